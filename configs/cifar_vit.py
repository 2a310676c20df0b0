"""A small Vision Transformer on CIFAR-10 from scratch, in patches of 4x4 pixels.

Paper:    arXiv:2010.11929 for the network; no number there for CIFAR-10 from scratch.
Measured: not yet run.
Run:      cnn-vit train --config=configs/cifar_vit.py --workdir=runs/cifar_vit
          and, of an npz with train_x, train_y, test_x, test_y: --config.data.name=arrays --config.data.path=cifar10.npz
Smoke:    cnn-vit train --config=configs/cifar_vit.py:smoke --workdir=runs/smoke
"""

from ml_collections import ConfigDict


def get_config(mode: str = "") -> ConfigDict:
    """The recipe; it has no words but `smoke`."""
    config = ConfigDict()

    config.data = ConfigDict()
    config.data.name = "cifar"
    config.data.train = "train[:45000]"
    config.data.validation = "train[45000:]"
    config.data.image_size = 32  # pixels
    config.data.channels = 3  # RGB
    config.data.classes = 10
    config.data.batch_size = 128  # images
    config.data.augment = ("pad_crop(4)", "flip", "mixup(0.2)")

    config.model = ConfigDict()
    config.model.name = "vit/Ti4"  # 64 patches of 4x4 pixels, width 192
    config.model.depth = 9  # blocks
    config.model.heads = 6
    config.model.hidden = 384  # units
    config.model.dropout = 0.1  # share of the values

    config.loss = ConfigDict()
    config.loss.smoothing = 0.1  # share of the target

    config.optimizer = ConfigDict()
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.05  # times the rate
    config.optimizer.clip = 1.0  # norm of the gradient

    config.schedule = ConfigDict()
    config.schedule.name = "cosine"
    config.schedule.warmup = "10 epochs"

    config.ema_decay = 0.999
    config.duration = "200 epochs"
    config.log_every = "100 steps"
    config.evaluate_every = "5 epochs"
    config.checkpoint_every = "5 epochs"
    return config
