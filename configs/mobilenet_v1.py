"""MobileNetV1 on your own folder of images, at 128 pixels, from scratch; the word is the width multiplier.

Data:     The folder holds ROOT/CLASS/*, or ROOT/train/CLASS/* and ROOT/val/CLASS/*; a zip of either will do.
Paper:    arXiv:1704.04861, Table 1, describes the network. On ImageNet its accuracy is 70.6 % with all filters at 224
          pixels, 64.4 % at 128, the smallest of its four sizes (Table 7), and 50.6 % with a quarter of them at 224
          (Table 6).
Departs:  AdamW instead of RMSprop. Depthwise filters do not decay; the paper says "very little or no".
Measured: not yet run.
Run:      cnn-vit train --config=configs/mobilenet_v1.py --config.data.path=FOLDER --workdir=runs/mobilenet_v1
Smoke:    cnn-vit train --config=configs/mobilenet_v1.py:smoke --workdir=runs/smoke
"""

from ml_collections import ConfigDict, config_dict

WORDS = {
    "0.25": "a quarter of the filters, 470,072 parameters with 1,000 classes; the one without a word",
    "0.5": "half of the filters, 1,331,592 parameters with 1,000 classes",
    "0.75": "three quarters of the filters, 2,585,560 parameters with 1,000 classes",
    "1.0": "all filters, 4,231,976 parameters with 1,000 classes",
}


def get_config(mode: str = "") -> ConfigDict:
    """Returns the recipe of a width multiplier, which is one of WORDS; without a word that of 0.25."""
    width_multiplier = mode or "0.25"
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
    config.model.name = f"mobilenet_v1/{width_multiplier}"

    config.loss = ConfigDict()
    config.loss.smoothing = 0.1  # share of the target, spread evenly over all classes

    config.optimizer = ConfigDict()
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 2e-3  # at its peak, after the warm-up
    config.optimizer.weight_decay = 0.05  # times the rate and the parameter
    config.optimizer.decay_pattern = r"(^|/)(stem|pointwise|head)/kernel$"  # all kernels but the depthwise ones

    config.schedule = ConfigDict()
    config.schedule.name = "cosine"
    config.schedule.warmup = "2 epochs"

    config.duration = "30 epochs"
    config.log_every = "20 steps"
    config.evaluate_every = "2 epochs"
    config.checkpoint_every = "5 epochs"
    return config
