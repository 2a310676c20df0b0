"""MobileNetV2 on your own folder of images, at 128 pixels, from scratch; the word is the width multiplier.

Data:     The folder holds ROOT/CLASS/*, or ROOT/train/CLASS/* and ROOT/val/CLASS/*; a zip of either will do.
Paper:    arXiv:1801.04381, Table 2, describes the network. torchvision's weights of it with all filters have 71.9 and
          72.2 % on ImageNet at 224 pixels (`cnn-vit list weights mobilenet_v2`).
Departs:  AdamW instead of RMSprop, 128 pixels instead of 224. Depthwise filters do not decay.
Measured: not yet run.
Run:      cnn-vit train --config=configs/mobilenet_v2.py --config.data.path=FOLDER --workdir=runs/mobilenet_v2
Smoke:    cnn-vit train --config=configs/mobilenet_v2.py:smoke --workdir=runs/smoke
"""

from ml_collections import ConfigDict, config_dict

WORDS = {
    "0.5": "half of the filters, 1,968,680 parameters with 1,000 classes; the one without a word",
    "1.0": "all filters, 3,504,872 parameters with 1,000 classes",
    "1.4": "1.4 times as many filters, 6,108,776 parameters with 1,000 classes",
}


def get_config(mode: str = "") -> ConfigDict:
    """Returns the recipe of a width multiplier, which is one of WORDS; without a word that of 0.5."""
    width_multiplier = mode or "0.5"
    if width_multiplier not in WORDS:
        raise ValueError(f"the word must be one width multiplier, not {mode}")
    config = ConfigDict()

    config.data = ConfigDict()
    config.data.name = "folder"
    config.data.path = config_dict.placeholder(str)
    config.data.image_size = 128  # pixels
    config.data.channels = 3  # RGB
    config.data.batch_size = 64  # images
    config.data.random_crop = (0.25, 1.0)  # least and most share of an image's area
    config.data.augment = ("flip",)  # mirrors half of the images

    config.model = ConfigDict()
    config.model.name = f"mobilenet_v2/{width_multiplier}"
    config.model.dropout = 0.2  # share of the features in front of the head, as in torchvision

    config.loss = ConfigDict()
    config.loss.smoothing = 0.1  # share of the target, spread evenly over all classes

    config.optimizer = ConfigDict()
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 2e-3  # at its peak, after the warm-up
    config.optimizer.weight_decay = 0.05  # times the rate and the parameter
    # all kernels but the depthwise ones
    config.optimizer.decay_pattern = r"(^|/)(stem|expand/conv|project|last/conv|head)/kernel$"

    config.schedule = ConfigDict()
    config.schedule.name = "cosine"
    config.schedule.warmup = "2 epochs"

    config.duration = "30 epochs"
    config.log_every = "20 steps"
    config.evaluate_every = "2 epochs"
    config.checkpoint_every = "5 epochs"
    return config
