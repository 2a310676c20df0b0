"""A ResNet of 8 layers on scikit-learn's handwritten digits: the default run.

Data:     1,797 pictures of 8x8 pixels by 13 writers; the split is random, so each writer stands on both sides of it.
Paper:    arXiv:1512.03385, section 4.2, at its smallest depth; no published number for this set.
Measured: not yet run.
Run:      cnn-vit train --config=configs/digits_resnet.py --workdir=runs/digits_resnet
Smoke:    cnn-vit train --config=configs/digits_resnet.py:smoke --workdir=runs/smoke
"""

from ml_collections import ConfigDict


def get_config(mode: str = "") -> ConfigDict:
    """The recipe; it has no words but `smoke`."""
    config = ConfigDict()

    config.data = ConfigDict()
    config.data.name = "digits"
    config.data.image_size = 8  # pixels
    config.data.channels = 1  # gray
    config.data.classes = 10
    config.data.batch_size = 128  # images
    config.data.augment = ("affine(10, 0.1, 0.1)",)

    config.model = ConfigDict()
    config.model.name = "cifar_resnet/8"  # 16, 32 and 64 filters, one block each

    config.loss = ConfigDict()
    config.loss.smoothing = 0.1  # share of the target

    config.optimizer = ConfigDict()
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 3e-3
    config.optimizer.weight_decay = 0.01  # times the rate

    config.schedule = ConfigDict()
    config.schedule.name = "cosine"
    config.schedule.warmup = "25 steps"

    config.duration = "500 steps"
    config.log_every = "25 steps"
    config.evaluate_every = "50 steps"
    config.checkpoint_every = "100 steps"
    return config
