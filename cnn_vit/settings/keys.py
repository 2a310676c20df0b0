"""The table of the common settings: what each takes, its default, its meaning, and whether it changes results.

The table is the first check, the help text and the list of what the fingerprint holds. The keywords of an optimizer, a
schedule or a loss (`optimizer.momentum`) join it in `rules.run_keys`. The keywords of a model (`model.width`) and of a
data source (`data.train_count`) do not: the rooms `models` and `data` know them.
"""

from dataclasses import dataclass
from typing import Any

REQUIRED = ...  # the default of what a recipe must set
RULES_OWN = None  # the default of the learning rate in this table; `rules.run_keys` puts that of the rule in its place


@dataclass(frozen=True)
class Key:
    """One setting.

    Attributes:
        type: a name of `values.KINDS`; a `?` behind it where None ("none" on the command line) means unset.
        default: the value where nobody sets it, or REQUIRED.
        range: the interval in which its numbers lie, `[1, 64]` with its ends or `(0, inf)` without; "" for none.
        meaning: what it does, one line for the help.
        unit: the unit of its number; "" for none.
        choices: all values that it takes, where that is a short list.
        changes_results: whether another value may give another result; the fingerprint holds those that do.
    """

    type: str
    default: Any
    range: str
    meaning: str
    unit: str = ""
    choices: tuple[str, ...] = ()
    changes_results: bool = True

    @property
    def kind(self) -> str:
        """The type without its question mark: a name of `values.KINDS`."""
        return self.type.removesuffix("?")

    @property
    def is_optional(self) -> bool:
        """Whether None, which means unset, is a value of it."""
        return self.type.endswith("?")


# fmt: off
KEYS: dict[str, Key] = {
    "seed": Key("int", 0, "[0, 2147483647]", "initial values, order, augmentation and dropout all follow from it"),
    "duration": Key("duration", "10 epochs", "(0, 1e15]", "length of the run"),
    "log_every": Key("duration", "50 steps", "(0, 1e15]", "time between two lines of training measures"),
    "evaluate_every": Key("duration", "1 epochs", "(0, 1e15]", "time between two evaluations of the validation split"),
    "checkpoint_every": Key("duration", "1 epochs", "(0, 1e15]", "time between two checkpoints", changes_results=False),
    "keep_checkpoints": Key("int", 2, "[2, 1000]", "number of newest checkpoints that are kept, beside the best one",
                            "checkpoints", changes_results=False),
    "test_weights": Key("text?", None, "", "which parameters the test split is evaluated with; unset: ema where "
                        "ema_decay is set or the optimizer averages by itself, else last",
                        choices=("last", "best", "ema")),
    "ema_decay": Key("float?", None, "[0, 1)", "decay of the parameters' moving average, which the validation split "
                     "is evaluated with; unset: no average"),
    "dtype": Key("text", "float32", "", "number format in which layers compute; parameters and loss are always float32",
                 choices=("float32", "bfloat16")),
    "early_stop": Key("int?", None, "[1, 1000000]", "stop after this many evaluations without a better one, with "
                      "pretrained.stages in the last stage, where counting begins; unset: never", "evaluations"),

    "data.name": Key("text", REQUIRED, "", "the data source: digits, shapes, folder, arrays ..."),
    "data.path": Key("text?", None, "", "file or folder that the source reads", changes_results=False),
    "data.train": Key("text?", None, "", "slice to train on, train[:45000] or train[:90%]; unset: all of train"),
    "data.validation": Key("text?", None, "", "slice that choices look at; unset: validation, or a tenth of train"),
    "data.test": Key("text?", None, "", "slice to test on; unset: test, where there is one"),
    "data.batch_size": Key("int", 128, "[1, 1048576]", "images in a step, over all devices together", "images"),
    "data.image_size": Key("size?", None, "[1, 8192]", "side of the images, or (height, width); unset: as the data is",
                           "pixels"),
    "data.fit": Key("fit", "crop", "", "how an image is brought to the image size: crop keeps its center, stretch "
                    "changes its proportions, pad keeps all of it on a gray canvas; pad_batch leaves each image its "
                    "own size up to the image size and hides the canvas around it behind a mask; crop(0.875) keeps "
                    "that share of the center's sides, as published networks are evaluated (256 pixels for 224)"),
    "data.interpolation": Key("text", "bilinear", "", "how pixels between pixels are computed where an image is "
                              "resized, with antialiasing", choices=("bilinear", "bicubic")),
    "data.random_crop": Key("floats?", None, "(0, 1]", "least and most share of the area of a random box that is cut "
                            "out of a training image, anew each time it is decoded; unset: data.fit alone"),
    "data.levels": Key("int?", None, "[1, 65535]", "the level that is white in images of 16 bits: 1023 for data of 10 "
                       "bits, 4095 for 12; unset: 65535"),
    "data.max_pixels": Key("int", 50_000_000, "[1, 1000000000]", "pixels of an image file, at most; a larger one "
                           "cannot be read", "pixels", changes_results=False),
    "data.on_bad_image": Key("text", "refuse", "", "what happens to an image that cannot be read: refuse stops before "
                             "the first step, skip goes on without it", choices=("refuse", "skip"),
                             changes_results=False),
    "data.check": Key("text", "auto", "", "how closely each image file is looked at before the first step; auto: all "
                      "of it up to 50,000 files", choices=("auto", "all", "header", "none"), changes_results=False),
    "data.workers": Key("int", 2, "[0, 64]", "threads that decode images; 0: the training loop's own thread", "threads",
                        changes_results=False),
    "data.prefetch": Key("int", 2, "[0, 64]", "batches that are prepared ahead of the step", "batches",
                         changes_results=False),
    "data.augment": Key("texts", (), "", "random changes of training images, in order: pad_crop(4), flip, mixup(0.2)"),
    "data.mean": Key("floats?", None, "[0, 1]", "mean of each color, which is subtracted; unset: measured on train"),
    "data.std": Key("floats?", None, "(0, 1]", "standard deviation of each color, which is divided by; unset: measured "
                    "on train"),
    "data.channels": Key("int?", None, "", "colors of an image, 1 for gray or 3 for RGB; unset: as the data is",
                         choices=("1", "3")),
    "data.classes": Key("int?", None, "[2, 1000000]", "number of classes that the data has to have; unset: any",
                        "classes"),

    "model.name": Key("text", REQUIRED, "", "the network, family/variant"),

    "loss.name": Key("text", "softmax", "", "what a step minimizes"),
    "loss.smoothing": Key("float", 0.0, "[0, 1)", "share of the target that is spread evenly over all classes"),
    "loss.class_weight": Key("text", "none", "", "balanced: train each class with weight n / (classes x its count); "
                             "never in evaluation", choices=("none", "balanced")),

    "optimizer.name": Key("text", REQUIRED, "", "the learning rule"),
    "optimizer.learning_rate": Key("float", RULES_OWN, "(0, 1000]", "base rate, which the schedule multiplies"),
    "optimizer.decay_pattern": Key("pattern", r"(^|/)kernel$", "", "parameters decay whose path holds a match of it, "
                                   "where the rule has a weight_decay"),
    "optimizer.clip": Key("float?", None, "(0, 1e9]", "largest norm of the whole gradient; unset: no limit"),
    "optimizer.accumulate": Key("int", 1, "[1, 4096]", "micro-batches that a step is cut into, whose gradients are "
                                "averaged", "micro-batches"),

    "schedule.name": Key("text", "constant", "", "shape of the learning rate over the run"),
    "schedule.warmup": Key("duration", "0 steps", "[0, 1e15]", "time over which the rate rises from 0"),

    "pretrained.weights": Key("text?", None, "", "weights that the network starts from: a file, a run folder, or a "
                              "name of `cnn-vit list weights`; unset: initial values", changes_results=False),
    "pretrained.digest": Key("text?", None, "", "sha256 of the weights' values; unset: whatever pretrained.weights "
                             "holds when the run begins, which is written down here"),
    "pretrained.load": Key("texts", ("all",), "", "what is loaded, by paths: all, or stem, stages/0..1"),
    "pretrained.cut": Key("text?", None, "", "the last layer that is kept, such as stages/1; the head stands on it. "
                          "unset: the whole network"),
    "pretrained.head": Key("text?", None, "", "initial kernel of a new head, zero or of small random numbers; unset: "
                           "the weights' own head where they have the same classes and the same cut, else zero",
                           choices=("zero", "small")),
    "pretrained.freeze": Key("text?", None, "", "what is not trained, by paths: all but head, or stem, stages/0..1; "
                             "unset: nothing"),
    "pretrained.statistics": Key("text", "stored", "", "running statistics of frozen batch norm: stored stay as loaded "
                                 "and are used in training; update follow the batches; recalibrate are measured once "
                                 "on the training images", choices=("stored", "update", "recalibrate")),
    "pretrained.multipliers": Key("texts", (), "", "what the learning rate of parts is multiplied by, PATHS=NUMBER "
                                  "each: head=10, stages/0=0.1"),
    "pretrained.layer_decay": Key("float?", None, "(0, 1]", "each block learns at this share of the rate of the next "
                                  "one, the head at the whole rate; unset: all blocks alike"),
    "pretrained.lora": Key("int?", None, "[1, 4096]", "rank of the adapters: a frozen kernel W becomes W + alpha / "
                           "rank A B, and A and B are trained instead of it; unset: none"),
    "pretrained.lora_alpha": Key("float?", None, "(0, 1e6]", "alpha of the adapters; unset: their rank"),
    "pretrained.lora_on": Key("text?", None, "", "which kernels have adapters, by paths: blocks/6..11/attention; "
                              "unset: each frozen kernel of a dense layer, an attention or a 1x1 convolution that is "
                              "larger than the rank"),
    "pretrained.stages": Key("texts", (), "", "what is trained in addition, stage by stage: PATHS DURATION each, and "
                             "of the last PATHS alone: head 2 epochs, stages/2.. 3 epochs, all. Where PATHS hold a "
                             "comma, it is a list in quotes: ('stem, head 2 epochs', 'all'); unset: all at once"),
}
# fmt: on

SECTIONS = ("data", "model", "loss", "optimizer", "schedule", "pretrained")
SECTIONS_WITH_KEYWORDS = ("data", "model")  # they also take the keywords of the data source or model that they name


def is_keyword(key: str) -> bool:
    """Whether a key may be a keyword of the named model or data source, such as `model.width`."""
    section, _, name = key.partition(".")
    return section in SECTIONS_WITH_KEYWORDS and name.isidentifier() and key not in KEYS
