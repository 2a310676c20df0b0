"""ResNet-20 to ResNet-110 on CIFAR-10 from scratch; the word is the depth.

Paper:    arXiv:1512.03385, section 4.2 and Table 6, report 8.75 % test error for 20 layers, 7.51 % for 32, 7.17 % for
          44, 6.97 % for 56, and 6.43 % for 110 (the best of 5 runs; their mean is 6.61 % +- 0.16 %).
Departs:  With 110 layers the learning rate rises over 400 steps, where the paper keeps 0.01 until the training error is
          below 80 %. Biases and the scales of norms do not decay. Colors are scaled by mean and standard deviation.
Measured: not yet run.
Run:      cnn-vit train --config=configs/cifar_resnet.py:20 --workdir=runs/resnet20
          To read an npz with train_x, train_y, test_x, test_y instead of downloading, add
          --config.data.name=arrays --config.data.path=cifar10.npz
Smoke:    cnn-vit train --config=configs/cifar_resnet.py:20,smoke --workdir=runs/smoke
"""

from ml_collections import ConfigDict

WORDS = {
    "20": "20 layers, 269,722 parameters; the one without a word",
    "32": "32 layers",
    "44": "44 layers",
    "56": "56 layers",
    "110": "110 layers, with a warm-up",
}


def get_config(mode: str = "") -> ConfigDict:
    """Returns the recipe of a depth, which is one of WORDS; without a word that of 20 layers."""
    depth = mode or "20"
    if depth not in WORDS:
        raise ValueError(f"the word must be one depth, not {mode}")
    config = ConfigDict()

    config.data = ConfigDict()
    config.data.name = "cifar"
    config.data.train = "train[:45000]"  # the paper's split, on which it chose the schedule
    config.data.validation = "train[45000:]"
    config.data.image_size = 32  # pixels
    config.data.channels = 3  # RGB
    config.data.classes = 10  # kinds of objects
    config.data.batch_size = 128  # images
    config.data.augment = ("pad_crop(4)", "flip")  # moves by up to 4 pixels; mirrors half of the images

    config.model = ConfigDict()
    config.model.name = f"cifar_resnet/{depth}"

    config.optimizer = ConfigDict()
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.1  # until the first boundary
    config.optimizer.momentum = 0.9  # share of the last step that each step keeps
    config.optimizer.weight_decay = 1e-4  # times the parameter, added to the gradient

    config.schedule = ConfigDict()
    config.schedule.name = "step"
    config.schedule.boundaries = ("32000 steps", "48000 steps")
    config.schedule.factor = 0.1  # times the rate, at each boundary
    config.schedule.warmup = "400 steps" if depth == "110" else "0 steps"

    config.duration = "64000 steps"
    config.log_every = "100 steps"
    config.evaluate_every = "5 epochs"
    config.checkpoint_every = "5 epochs"
    return config
