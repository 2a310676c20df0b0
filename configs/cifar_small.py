"""A ResNet of 8 layers on CIFAR-10: the smallest network of its paper, to start from or to compare with.

Data:     CIFAR-10, which is downloaded (170 MB): 60,000 color photos of 32x32 pixels; the middle 28x28 are seen.
Paper:    The network is that of arXiv:1512.03385, section 4.2, at its smallest depth.
Departs:  28 pixels instead of 32 keep it below 10 million multiply-adds an image; a cosine instead of steps.
Measured: 81.04 % test accuracy (n = 10,000 images, as JPEG), 83.7 % of the first 1,000 as published; one seed,
          2,030 CPU-seconds on two cores of an x86-64 machine that was shared with other work. As a start for few
          photos of ants and bees it was not measured to be better than initial values: experiments/transfer.
Run:      cnn-vit train --config=configs/cifar_small.py --workdir=runs/cifar_small
          To read an npz with train_x, train_y, test_x, test_y instead of downloading, add
          --config.data.name=arrays --config.data.path=cifar10.npz
Smoke:    cnn-vit train --config=configs/cifar_small.py:smoke --workdir=runs/smoke
"""

from ml_collections import ConfigDict


def get_config(mode: str = "") -> ConfigDict:
    """Returns the recipe. Its only word is `smoke`, which every recipe has and the package applies."""
    config = ConfigDict()

    config.data = ConfigDict()
    config.data.name = "cifar"
    config.data.fit = "crop(0.875)"  # the middle 28 of 32 pixels
    config.data.image_size = 28  # pixels
    config.data.channels = 3  # RGB
    config.data.classes = 10  # kinds of objects
    config.data.batch_size = 128  # images
    config.data.augment = ("pad_crop(3)", "flip")  # moves by up to 3 pixels; mirrors half of the images

    config.model = ConfigDict()
    config.model.name = "cifar_resnet/8"  # 16, 32 and 64 filters, one block each

    config.optimizer = ConfigDict()
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.1  # at its peak, after the warm-up
    config.optimizer.momentum = 0.9  # share of the last step that each step keeps
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 2e-4  # times the parameter, added to the gradient

    config.schedule = ConfigDict()
    config.schedule.name = "cosine"
    config.schedule.warmup = "400 steps"

    config.duration = "30 epochs"
    config.log_every = "100 steps"
    config.evaluate_every = "2 epochs"
    return config
