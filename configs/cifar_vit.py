"""A small Vision Transformer on CIFAR-10 from scratch, in patches of 4x4 pixels.

Paper:    arXiv:2010.11929 describes the network; it has no number for CIFAR-10 from scratch.
Measured: not yet run.
Run:      cnn-vit train --config=configs/cifar_vit.py --workdir=runs/cifar_vit
          To read an npz with train_x, train_y, test_x, test_y instead of downloading, add
          --config.data.name=arrays --config.data.path=cifar10.npz
Smoke:    cnn-vit train --config=configs/cifar_vit.py:smoke --workdir=runs/smoke
"""

from ml_collections import ConfigDict


def get_config(mode: str = "") -> ConfigDict:
    """Returns the recipe. Its only word is `smoke`, which every recipe has and the package applies."""
    config = ConfigDict()

    config.data = ConfigDict()
    config.data.name = "cifar"
    config.data.train = "train[:45000]"
    config.data.validation = "train[45000:]"
    config.data.image_size = 32  # pixels
    config.data.channels = 3  # RGB
    config.data.classes = 10  # kinds of objects
    config.data.batch_size = 128  # images
    # Moves by up to 4 pixels, mirrors half of the images, mixes pairs with a weight from Beta(0.2, 0.2).
    config.data.augment = ("pad_crop(4)", "flip", "mixup(0.2)")

    config.model = ConfigDict()
    config.model.name = "vit/Ti4"  # 64 patches of 4x4 pixels, width 192
    config.model.depth = 9  # blocks
    config.model.heads = 6  # attention heads per block
    config.model.hidden = 384  # units in the middle of each block's MLP
    config.model.dropout = 0.1  # share of the values

    config.loss = ConfigDict()
    config.loss.smoothing = 0.1  # share of the target, spread evenly over all classes

    config.optimizer = ConfigDict()
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3  # at its peak, after the warm-up
    config.optimizer.weight_decay = 0.05  # times the rate and the parameter
    config.optimizer.clip = 1.0  # largest norm of the whole gradient

    config.schedule = ConfigDict()
    config.schedule.name = "cosine"
    config.schedule.warmup = "10 epochs"

    config.ema_decay = 0.999  # share of the averaged parameters that each step keeps
    config.duration = "200 epochs"
    config.log_every = "100 steps"
    config.evaluate_every = "5 epochs"
    config.checkpoint_every = "5 epochs"
    return config
