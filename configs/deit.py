"""DeiT on your own folder of images, in patches of 16x16 pixels, from scratch; the word is the size.

Data:     The folder holds ROOT/CLASS/*, or ROOT/train/CLASS/* and ROOT/val/CLASS/*; a zip of either will do.
Paper:    arXiv:2012.12877: on ImageNet alone Ti, S and B have 72.2, 79.8 and 81.8 % at 224 pixels. Decay, smoothing,
          mixtures and stochastic depth are those of its Table 9.
Departs:  100 epochs of batches of 64 instead of 300 of 1,024, at half of the rate; no repeated augmentation and no
          random erasing. Nothing is distilled: there is no teacher here.
Measured: not yet run.
Run:      cnn-vit train --config=configs/deit.py --config.data.path=FOLDER --workdir=runs/deit
Smoke:    cnn-vit train --config=configs/deit.py:smoke --workdir=runs/smoke
"""

from ml_collections import ConfigDict, config_dict

WORDS = {
    "Ti": "12 blocks of width 192, 5,717,416 parameters with 1,000 classes; the one without a word",
    "S": "12 blocks of width 384, 22,050,664 parameters with 1,000 classes",
    "B": "12 blocks of width 768, 86,567,656 parameters with 1,000 classes",
}


def get_config(mode: str = "") -> ConfigDict:
    """Returns the recipe of a size, which is one of WORDS; without a word that of Ti."""
    size = mode or "Ti"
    if size not in WORDS:
        raise ValueError(f"the word must be one size, not {mode}")
    config = ConfigDict()

    config.data = ConfigDict()
    config.data.name = "folder"
    config.data.path = config_dict.placeholder(str)
    config.data.image_size = 224  # pixels
    config.data.channels = 3  # RGB
    config.data.batch_size = 64  # images
    config.data.random_crop = (0.08, 1.0)  # least and most share of an image's area
    # Mirrors half of the images; changes each in 2 of many ways; mixes pairs, or puts a piece of one into another.
    config.data.augment = ("flip", "randaugment(2)", "mixup(0.8)", "cutmix(1.0)")

    config.model = ConfigDict()
    config.model.name = f"deit/{size}16"

    config.loss = ConfigDict()
    config.loss.smoothing = 0.1  # share of the target, spread evenly over all classes

    config.optimizer = ConfigDict()
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 5e-4  # at its peak, after the warm-up
    config.optimizer.weight_decay = 0.05  # times the rate and the parameter

    config.schedule = ConfigDict()
    config.schedule.name = "cosine"
    config.schedule.warmup = "5 epochs"

    config.duration = "100 epochs"
    config.log_every = "20 steps"
    config.evaluate_every = "2 epochs"
    config.checkpoint_every = "5 epochs"
    return config
