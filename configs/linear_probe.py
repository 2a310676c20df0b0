"""A new head on a pretrained network that stays as it is, for your own folder of images: best of few images.

Data:     The folder holds ROOT/CLASS/*, or ROOT/train/CLASS/* and ROOT/val/CLASS/*; a zip of either will do.
Weights:  A file of `cnn-vit convert`, somebody else's, or a run folder, of the network that model.name says. The size,
          mean, standard deviation and crop come from the weights. The head is new and starts from zeros.
          The result proves by a digest that the body did not move. `cnn-vit probe` fits such a head in seconds, on
          images that are not augmented; this recipe mirrors them, and leaves a run that predicts.
Paper:    Kornblith et al., arXiv:1805.08974, compares networks by such heads (there fitted by L-BFGS).
Measured: 86.1 % of 153 validation photos of ants and bees, mean of 3 seeds, from MobileNetV1-0.25 of ImageNet, after
          training on 244; from scratch 56.9 %. The program is experiments/transfer/run.py.
Run:      cnn-vit train --config=configs/linear_probe.py --config.data.path=FOLDER --config.model.name=NAME
          --config.pretrained.weights=FILE --workdir=runs/head
Smoke:    cnn-vit train --config=configs/linear_probe.py:smoke --workdir=runs/smoke
"""

from ml_collections import ConfigDict, config_dict


def get_config(mode: str = "") -> ConfigDict:
    """Returns the recipe. Its only word is `smoke`, which every recipe has and the package applies."""
    config = ConfigDict()

    config.data = ConfigDict()
    config.data.name = "folder"
    config.data.path = config_dict.placeholder(str)
    config.data.batch_size = 32  # images
    config.data.augment = ("flip",)  # mirrors half of the images

    config.model = ConfigDict()
    config.model.name = "mobilenet_v1/0.25"

    config.pretrained = ConfigDict()
    config.pretrained.weights = config_dict.placeholder(str)
    config.pretrained.freeze = "all but head"  # running statistics stay as they are, too

    config.optimizer = ConfigDict()
    config.optimizer.name = "sgd"
    config.optimizer.momentum = 0.9
    config.optimizer.nesterov = True
    config.optimizer.learning_rate = 0.1  # at its peak
    config.optimizer.weight_decay = 1e-4  # added to the gradient, of the head's kernel

    config.schedule = ConfigDict()
    config.schedule.name = "cosine"

    config.duration = "20 epochs"
    config.log_every = "10 steps"
    config.evaluate_every = "1 epochs"
    config.checkpoint_every = "5 epochs"
    return config
