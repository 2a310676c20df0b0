"""From scratch or pretrained? Ten ways to read scikit-learn's handwritten digits, with the weights of the package.

Data:     1,797 images of 8x8 pixels by 13 writers, enlarged and put into the middle of 28x28 pixels as those of MNIST
          are, which the weights come from. The test split has 360. The task is nearly that of the weights: MNIST's own
          head is one of the arms.
Arms:     The same two networks from scratch and pretrained, and a plain CNN. Each that trains does the same number of
          steps on batches of the same size with the same augmentation.
Measured: 3 seeds, n = 360 test images: ResNet-8 of MNIST fine-tuned 100.00 % (95 % interval 98.9 to 100.0), from
          scratch 99.91 %, which is not resolved; as it is 94.44 %. The README has the table. 8.5 minutes, 425
          CPU-seconds on two cores of an x86-64 machine that other work shared; with the word data 9.7 minutes, 1,105
          CPU-seconds, on one that little other work shared.
Run:      cnn-vit compare --config=configs/compare_digits.py --out=runs/compare_digits --workers=2
          The word data also compares with 1 and 10 % of the labels: --config=configs/compare_digits.py:data
          An arm of your own is one line below, or --config.arms.mine.recipe=configs/mine.py
Smoke:    cnn-vit compare --config=configs/compare_digits.py:smoke --out=runs/smoke
"""

from ml_collections import ConfigDict

COMMAND = "compare"
WORDS = {"data": "with 1, 10 and 100 % of the training data; validation stays whole"}
RESNET = "cifar_resnet/8@mnist"
VIT = "vit/Ti4-gap@mnist"


def get_config(mode: str = "") -> ConfigDict:
    """Returns the recipe; its words are those of WORDS, and `smoke`, which every recipe has."""
    config = ConfigDict()

    config.data = ConfigDict()
    config.data.name = "digits"
    config.data.margin = 2  # black pixels around the 8x8: MNIST's digits stand in the middle, too
    config.data.image_size = 28  # pixels
    config.data.interpolation = "bicubic"
    config.data.channels = 1  # gray
    config.data.batch_size = 64  # images
    # Turns by up to 10 degrees, moves by up to 2 pixels, scales by a factor of up to 1.1.
    config.data.augment = ("affine(10, 2, 0.1)",)

    config.budget = "200 steps"  # of each arm that trains
    config.seeds = 3  # runs of each arm that trains
    config.threads = 1  # cores of a run
    if mode == "data":
        config.shares = (0.01, 0.1, 1.0)  # of the training data

    config.arms = ConfigDict()
    config.arms.cnn = dict(about="a plain CNN from scratch", recipe="configs/digits_cnn.py")
    config.arms.resnet = dict(
        about="ResNet-8 from scratch", recipe="configs/digits_resnet.py", settings=("ema_decay=0.98",)
    )
    config.arms.vit = dict(
        about="a small ViT from scratch", recipe="configs/mnist_vit.py", settings=("ema_decay=0.98",)
    )
    config.arms.resnet_head = dict(about="ResNet-8 of MNIST, a new head trained", weights=RESNET, trained="head")
    config.arms.resnet_last = dict(about="ResNet-8 of MNIST, last stage trained", weights=RESNET, trained="last stage")
    config.arms.resnet_full = dict(about="ResNet-8 of MNIST, all of it trained", weights=RESNET, trained="all")
    config.arms.vit_full = dict(about="the ViT of MNIST, all of it trained", weights=VIT, trained="all")
    config.arms.resnet_knn = dict(about="k-nearest by features of MNIST's ResNet-8", weights=RESNET, task="knn")
    config.arms.resnet_untouched = dict(about="MNIST's ResNet-8 as it is", weights=RESNET, task="evaluate")
    config.arms.vit_untouched = dict(about="MNIST's ViT as it is", weights=VIT, task="evaluate")
    return config
