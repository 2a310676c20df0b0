"""ConvNeXt on your own folder of images, at 128 pixels, from scratch; the word is the size.

Data:     The folder holds ROOT/CLASS/*, or ROOT/train/CLASS/* and ROOT/val/CLASS/*; a zip of either will do.
Paper:    arXiv:2201.03545 describes T to L; on ImageNet at 224 pixels they have 82.1, 83.1, 83.8 and 84.3 % (Table 1).
          atto is one of timm's smaller ones. Decay, smoothing and mixtures are those of its Table 5.
Departs:  30 epochs of batches of 64 at a rate of 1e-3 instead of 300 of 4,096 at 4e-3; no RandAugment, no CutMix.
          The few images of a folder are learned faster from published weights: `pretrained.weights=convnext/T@...`.
Measured: not yet run.
Run:      cnn-vit train --config=configs/convnext.py --config.data.path=FOLDER --workdir=runs/convnext
Smoke:    cnn-vit train --config=configs/convnext.py:smoke --workdir=runs/smoke
"""

from ml_collections import ConfigDict, config_dict

WORDS = {
    "atto": "12 blocks of 40 to 320 channels, 3,695,520 parameters with 1,000 classes; the one without a word",
    "T": "18 blocks of 96 to 768 channels, 28,589,128 parameters with 1,000 classes",
}


def get_config(mode: str = "") -> ConfigDict:
    """Returns the recipe of a size, which is one of WORDS; without a word that of atto."""
    size = mode or "atto"
    if size not in WORDS:
        raise ValueError(f"the word must be one size, not {mode}")
    config = ConfigDict()

    config.data = ConfigDict()
    config.data.name = "folder"
    config.data.path = config_dict.placeholder(str)
    config.data.image_size = 128  # pixels
    config.data.channels = 3  # RGB
    config.data.batch_size = 64  # images
    config.data.random_crop = (0.25, 1.0)  # least and most share of an image's area
    # Mirrors half of the images; mixes pairs with a weight from Beta(0.8, 0.8).
    config.data.augment = ("flip", "mixup(0.8)")

    config.model = ConfigDict()
    config.model.name = f"convnext/{size}"

    config.loss = ConfigDict()
    config.loss.smoothing = 0.1  # share of the target, spread evenly over all classes

    config.optimizer = ConfigDict()
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3  # at its peak, after the warm-up
    config.optimizer.weight_decay = 0.05  # times the rate and the parameter

    config.schedule = ConfigDict()
    config.schedule.name = "cosine"
    config.schedule.warmup = "2 epochs"

    config.ema_decay = 0.999  # share of the averaged parameters that each step keeps
    config.duration = "30 epochs"
    config.log_every = "20 steps"
    config.evaluate_every = "2 epochs"
    config.checkpoint_every = "5 epochs"
    return config
