"""A pretrained network on your own folder of images: every layer goes on learning, from weights instead of chance.

Data:     The folder holds ROOT/CLASS/*, or ROOT/train/CLASS/* and ROOT/val/CLASS/*; a zip of either will do.
Weights:  A file of `cnn-vit convert`, somebody else's, or a run folder, of the network that model.name says. The size,
          mean, standard deviation and crop come from the weights. The head is new and starts from zeros.
Paper:    Kornblith et al., arXiv:1805.08974, section 3: SGD with Nesterov's momentum and a cosine without warm-up.
Measured: not yet run
Run:      cnn-vit train --config=configs/finetune_folder.py --config.data.path=FOLDER --config.model.name=NAME
          --config.pretrained.weights=FILE --workdir=runs/finetune
Smoke:    cnn-vit train --config=configs/finetune_folder.py:smoke --workdir=runs/smoke
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

    config.optimizer = ConfigDict()
    config.optimizer.name = "sgd"
    config.optimizer.momentum = 0.9
    config.optimizer.nesterov = True
    config.optimizer.learning_rate = 0.01  # at its peak; a pretrained body is changed gently
    config.optimizer.weight_decay = 1e-4  # added to the gradient, of kernels

    config.schedule = ConfigDict()
    config.schedule.name = "cosine"

    config.duration = "20 epochs"
    config.log_every = "10 steps"
    config.evaluate_every = "1 epochs"
    config.checkpoint_every = "5 epochs"
    return config
