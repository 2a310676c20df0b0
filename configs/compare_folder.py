"""From scratch or pretrained? A plain CNN, a ResNet and a ViT against pretrained weights, on your own folder of images.

Data:     The folder holds ROOT/CLASS/*, or ROOT/train/CLASS/* and ROOT/val/CLASS/*; a zip of either will do.
Weights:  A file of `cnn-vit convert`, somebody else's, a run folder, or a name of `cnn-vit list weights`. Size and crop
          of all arms' images come from them. Without weights only the arms from scratch are compared, and
          --config.data.image_size=64 says how large their images are.
Measured: hymenoptera (244 photos to train on, 153 to validate, 128 pixels) with MobileNetV1-0.25 of ImageNet, 3 seeds:
          k-nearest by its features 83.7 % (95 % interval 77.0 to 88.7), all of it trained 81.9 %, which is not
          resolved; a plain CNN from scratch 74.1 %. The README has the table and the command. 22.8 minutes, 2,460
          CPU-seconds on two cores of an x86-64 machine that little other work shared, two workers.
Run:      cnn-vit compare --config=configs/compare_folder.py --config.data.path=FOLDER --config.weights=FILE
          --out=runs/mine
          The word data also compares with 1 and 10 % of the labels: --config=configs/compare_folder.py:data
          A budget of time: --config.budget="120 CPU-seconds"
          The word ways adds three ways of fine-tuning: low-rank adapters, rates that fall from the head to the first
          layer, and the head first, then all. An arm of your own is a line below, or on the command line
          --config.arms.mine.trained=all --config.arms.mine.settings=pretrained.lora=16
          where a setting with commas stands in quotes, with a comma behind it,
          --config.arms.slowly.trained=all '--config.arms.slowly.settings="pretrained.stages=head 50 steps, all",'
Smoke:    cnn-vit compare --config=configs/compare_folder.py:smoke --out=runs/smoke
"""

from ml_collections import ConfigDict, config_dict

COMMAND = "compare"
WORDS = {
    "data": "with 1, 10 and 100 % of the training data; validation stays whole",
    "ways": "also low-rank adapters, rates that fall from the head to the first layer, and the head first",
}


def get_config(mode: str = "") -> ConfigDict:
    """Returns the recipe; its words are those of WORDS, and `smoke`, which every recipe has."""
    words = mode.split(",")
    config = ConfigDict()

    config.data = ConfigDict()
    config.data.name = "folder"
    config.data.path = config_dict.placeholder(str)
    config.data.batch_size = 32  # images
    config.data.augment = ("flip",)  # mirrors half of the images

    config.weights = config_dict.placeholder(str)  # of the arms below that start from some
    config.budget = "200 steps"  # of each arm that trains
    config.seeds = 3  # runs of each arm that trains
    config.threads = 1  # cores of a run
    if "data" in words:
        config.shares = (0.01, 0.1, 1.0)  # of the training data

    config.arms = ConfigDict()
    config.arms.cnn = dict(about="a plain CNN from scratch", recipe="configs/digits_cnn.py")
    config.arms.resnet = dict(about="a ResNet from scratch", recipe="configs/folder_resnet.py")
    config.arms.vit = dict(about="a ViT from scratch", recipe="configs/folder_vit.py", settings=("ema_decay=0.98",))
    config.arms.head = dict(about="pretrained, a new head trained", trained="head")
    config.arms.last = dict(about="pretrained, last stage trained", trained="last stage")
    config.arms.full = dict(about="pretrained, all of it trained", trained="all")
    if "ways" in words:
        config.arms.lora = dict(
            about="pretrained, adapters of rank 8 trained", trained="all", settings=("pretrained.lora=8",)
        )
        config.arms.decay = dict(
            about="pretrained, slower towards the first layer", trained="all", settings=("pretrained.layer_decay=0.75",)
        )
        config.arms.head_first = dict(
            about="pretrained, the head first, then all",
            trained="all",
            settings=("pretrained.stages=head 50 steps, all",),
        )
    config.arms.linear = dict(about="logistic regression on pretrained features", task="linear")
    config.arms.knn = dict(about="k-nearest by pretrained features", task="knn")
    config.arms.untouched = dict(about="the pretrained network as it is", task="evaluate")
    return config
