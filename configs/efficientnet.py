"""EfficientNet on your own folder of images, from scratch; the word is the size, which the image size follows.

Data:     The folder holds ROOT/CLASS/*, or ROOT/train/CLASS/* and ROOT/val/CLASS/*; a zip of either will do.
Paper:    arXiv:1905.11946, section 5.2, whose dropout and stochastic depth these are. torchvision's weights have 77.7,
          78.6, 80.6 and 82.0 % on ImageNet for B0 to B3, B2 at 288 pixels (`cnn-vit list weights efficientnet`).
Departs:  AdamW instead of RMSprop, and no AutoAugment. Depthwise filters do not decay.
Measured: not yet run.
Run:      cnn-vit train --config=configs/efficientnet.py --config.data.path=FOLDER --workdir=runs/efficientnet
Smoke:    cnn-vit train --config=configs/efficientnet.py:smoke --workdir=runs/smoke
"""

from ml_collections import ConfigDict, config_dict

WORDS = {
    "B0": "224 pixels, 5,288,548 parameters with 1,000 classes; the one without a word",
    "B1": "240 pixels, 7,794,184 parameters with 1,000 classes",
    "B2": "260 pixels, 9,109,994 parameters with 1,000 classes",
    "B3": "300 pixels, 12,233,232 parameters with 1,000 classes",
}
IMAGE_SIZES = {"B0": 224, "B1": 240, "B2": 260, "B3": 300}  # pixels
DROPOUT = {"B0": 0.2, "B1": 0.2, "B2": 0.3, "B3": 0.3}  # share of the features in front of the head


def get_config(mode: str = "") -> ConfigDict:
    """Returns the recipe of a size, which is one of WORDS; without a word that of B0."""
    size = mode or "B0"
    if size not in WORDS:
        raise ValueError(f"the word must be one size, not {mode}")
    config = ConfigDict()

    config.data = ConfigDict()
    config.data.name = "folder"
    config.data.path = config_dict.placeholder(str)
    config.data.image_size = IMAGE_SIZES[size]
    config.data.channels = 3  # RGB
    config.data.batch_size = 64  # images
    config.data.random_crop = (0.25, 1.0)  # least and most share of an image's area
    config.data.augment = ("flip",)  # mirrors half of the images

    config.model = ConfigDict()
    config.model.name = f"efficientnet/{size}"
    config.model.dropout = DROPOUT[size]
    config.model.stochastic_depth = 0.2  # share of the examples that skip a block, rising evenly from 0 in the first

    config.loss = ConfigDict()
    config.loss.smoothing = 0.1  # share of the target, spread evenly over all classes

    config.optimizer = ConfigDict()
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 2e-3  # at its peak, after the warm-up
    config.optimizer.weight_decay = 0.05  # times the rate and the parameter
    # all kernels but the depthwise ones
    config.optimizer.decay_pattern = r"(^|/)(stem|expand/conv|squeeze|excite|project|last/conv|head)/kernel$"

    config.schedule = ConfigDict()
    config.schedule.name = "cosine"
    config.schedule.warmup = "2 epochs"

    config.duration = "30 epochs"
    config.log_every = "20 steps"
    config.evaluate_every = "2 epochs"
    config.checkpoint_every = "5 epochs"
    return config
