"""LeNet-5 on MNIST, which is downloaded (12 MB).

Paper:    LeCun et al. 1998, doi:10.1109/5.726791, figure 9, report 0.95 % test error, with trained sub-sampling and RBF
          units. This is the network's common form, with averages and a dense head.
Measured: 99.13 % test accuracy (95 % interval 98.97 to 99.28 %, 3 seeds, the lowest 99.06 %, n = 10,000 images). A run
          takes 129 CPU-seconds on two cores of an x86-64 machine. The program is experiments/recipes/run.py.
Run:      cnn-vit train --config=configs/mnist_lenet.py --workdir=runs/mnist_lenet
          To read an npz with train_x, train_y, test_x, test_y instead of downloading, add
          --config.data.name=arrays --config.data.path=mnist.npz
Smoke:    cnn-vit train --config=configs/mnist_lenet.py:smoke --workdir=runs/smoke
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

    config.model = ConfigDict()
    config.model.name = "lenet/5"

    config.optimizer = ConfigDict()
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 2e-3  # at its peak, after the warm-up
    config.optimizer.weight_decay = 0.01  # times the rate and the parameter

    config.schedule = ConfigDict()
    config.schedule.name = "cosine"
    config.schedule.warmup = "200 steps"

    config.duration = "10 epochs"
    config.log_every = "100 steps"
    return config
