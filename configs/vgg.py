"""VGG with batch norm on your own folder of images, at 64 pixels, from scratch; the word is the depth.

Data:     The folder holds ROOT/CLASS/*, or ROOT/train/CLASS/* and ROOT/val/CLASS/*; a zip of either will do.
Paper:    arXiv:1409.1556, Table 1, describes the networks, and section 3.1 their training: SGD with momentum 0.9 and a
          rate of 0.01, decay of 5e-4, dropout of a half, batches of 256.
Departs:  Batch norm behind each convolution, dense layers of 512 units instead of 4,096, which are nine tenths of the
          paper's parameters, batches of 64, and a rate that falls along a cosine.
Measured: not yet run.
Run:      cnn-vit train --config=configs/vgg.py --config.data.path=FOLDER --workdir=runs/vgg
Smoke:    cnn-vit train --config=configs/vgg.py:smoke --workdir=runs/smoke
"""

from ml_collections import ConfigDict, config_dict

WORDS = {
    "11": "8 convolutions; the one without a word",
    "13": "10 convolutions",
    "16": "13 convolutions",
    "19": "16 convolutions",
}


def get_config(mode: str = "") -> ConfigDict:
    """Returns the recipe of a depth, which is one of WORDS; without a word that of 11."""
    depth = mode or "11"
    if depth not in WORDS:
        raise ValueError(f"the word must be one depth, not {mode}")
    config = ConfigDict()

    config.data = ConfigDict()
    config.data.name = "folder"
    config.data.path = config_dict.placeholder(str)
    config.data.image_size = 64  # pixels
    config.data.channels = 3  # RGB
    config.data.batch_size = 64  # images
    config.data.augment = ("pad_crop(8)", "flip")  # moves by up to 8 pixels; mirrors half of the images

    config.model = ConfigDict()
    config.model.name = f"vgg/{depth}-bn"
    config.model.hidden = (512, 512)  # units of the two dense layers

    config.optimizer = ConfigDict()
    config.optimizer.name = "sgd"
    config.optimizer.momentum = 0.9
    config.optimizer.learning_rate = 0.01  # at its peak, after the warm-up
    config.optimizer.weight_decay = 5e-4  # times the parameter, added to the gradient

    config.schedule = ConfigDict()
    config.schedule.name = "cosine"
    config.schedule.warmup = "2 epochs"

    config.duration = "30 epochs"
    config.log_every = "20 steps"
    config.evaluate_every = "2 epochs"
    config.checkpoint_every = "5 epochs"
    return config
