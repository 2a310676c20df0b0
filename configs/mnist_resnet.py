"""A ResNet of 8 layers on MNIST: the network whose weights come with the package as cifar_resnet/8@mnist.

Data:     MNIST, which is downloaded (12 MB): 60,000 digits of 28x28 gray pixels, 10,000 to test on.
Paper:    The network is that of arXiv:1512.03385, section 4.2, at its smallest depth.
Measured: 99.31 % test accuracy (n = 10,000 images), one seed, 448 CPU-seconds on two cores of an x86-64 machine that
          was shared with other work.
Run:      cnn-vit train --config=configs/mnist_resnet.py --workdir=runs/mnist_resnet
          To read an npz with train_x, train_y, test_x, test_y instead of downloading, add
          --config.data.name=arrays --config.data.path=mnist.npz
          Then cnn-vit convert runs/mnist_resnet --out=FILE.safetensors makes the file of the package.
Smoke:    cnn-vit train --config=configs/mnist_resnet.py:smoke --workdir=runs/smoke
"""

from ml_collections import ConfigDict


def get_config(mode: str = "") -> ConfigDict:
    """Returns the recipe. Its only word is `smoke`, which every recipe has and the package applies."""
    config = ConfigDict()

    config.data = ConfigDict()
    config.data.name = "mnist"
    config.data.image_size = 28  # pixels
    config.data.channels = 1  # gray
    config.data.classes = 10  # digits
    config.data.batch_size = 128  # images
    config.data.augment = ("shift(2)",)  # moves by up to 2 pixels

    config.model = ConfigDict()
    config.model.name = "cifar_resnet/8"  # 16, 32 and 64 filters, one block each

    config.optimizer = ConfigDict()
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 3e-3  # at its peak, after the warm-up
    config.optimizer.weight_decay = 0.01  # times the rate and the parameter

    config.schedule = ConfigDict()
    config.schedule.name = "cosine"
    config.schedule.warmup = "200 steps"

    config.ema_decay = 0.999  # share of the averaged parameters that each step keeps
    config.duration = "5 epochs"
    config.log_every = "50 steps"
    return config
