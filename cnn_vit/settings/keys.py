"""Every common setting: what it takes, its default, its meaning, and whether it changes results.

This table is the first check, the help text and the fingerprint's list. Keywords of a model (`model.width`) and of a
data source (`data.train_count`) are not here: the rooms `models` and `data` know them.
"""

from typing import Any, NamedTuple

REQUIRED = ...  # the default of what a recipe must set


class Key(NamedTuple):
    """One setting.

    Attributes:
        type: a name of `values.KINDS`; behind it a `?` where None ("none" on the command line) means unset.
        default: what it is where nobody sets it, or REQUIRED.
        range: the interval its numbers lie in, `[1, 64]` with its ends or `(0, inf)` without; "" for none.
        meaning: one line.
        unit: of its number.
        choices: all it may be, where that is a short list.
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
        """The type without its question mark."""
        return self.type.removesuffix("?")

    @property
    def optional(self) -> bool:
        """Whether it may be unset."""
        return self.type.endswith("?")


# fmt: off
KEYS: dict[str, Key] = {
    "seed": Key("int", 0, "[0, 2147483647]", "first values, order, augmentation and dropout all follow from it"),
    "duration": Key("duration", "10 epochs", "(0, 1e15]", "length of the run"),
    "log_every": Key("duration", "50 steps", "(0, 1e15]", "between two lines of training measures"),
    "evaluate_every": Key("duration", "1 epochs", "(0, 1e15]", "between two evaluations of the validation split"),
    "checkpoint_every": Key("duration", "1 epochs", "(0, 1e15]", "between two saves", changes_results=False),
    "keep_checkpoints": Key("int", 2, "[2, 1000]", "newest checkpoints kept, beside the best", "checkpoints", changes_results=False),
    "test_weights": Key("text?", None, "", "parameters that the test split sees; unset: ema if there is one, else last",
                     choices=("last", "best", "ema")),
    "ema_decay": Key("float?", None, "[0, 1)", "decay of the parameters' moving average, read by validation; unset: none"),
    "dtype": Key("text", "float32", "", "in which layers compute; parameters and loss are always float32",
                 choices=("float32", "bfloat16")),
    "early_stop": Key("int?", None, "[1, 1000000]", "stop after so many without a better one", "evaluations"),

    "data.name": Key("text", REQUIRED, "", "the data source: digits, shapes, folder, arrays ..."),
    "data.path": Key("text?", None, "", "file or folder that the source reads", changes_results=False),
    "data.train": Key("text?", None, "", "part trained on, such as train[:45000] or train[:90%]; unset: all of train"),
    "data.validation": Key("text?", None, "", "part that choices look at; unset: validation, or a tenth of train"),
    "data.test": Key("text?", None, "", "part tested on; unset: test, where there is one"),
    "data.batch_size": Key("int", 128, "[1, 1048576]", "of one step, over all devices together", "images"),
    "data.image_size": Key("size?", None, "[1, 8192]", "side, or (height, width); unset: as the data is", "pixels"),
    "data.fit": Key("fit", "crop", "", "to the image size: keep the center, stretch, or keep all and pad with a gray; "
                    "pad_batch: keep all, each its own size up to that, padded with others' behind a mask"),
    "data.random_crop": Key("floats?", None, "(0, 1]", "least and most share of the area of a box that is cut out of a "
                            "training image, each time another, as it is decoded; unset: data.fit"),
    "data.on_bad_image": Key("text", "refuse", "", "an image that cannot be read: stop before the first step, or do "
                             "as though it were not there", choices=("refuse", "skip"), changes_results=False),
    "data.check": Key("text", "auto", "", "how closely each image file is looked at first; auto: all of it up to "
                      "50,000 files", choices=("auto", "all", "header", "none"), changes_results=False),
    "data.workers": Key("int", 2, "[0, 64]", "that decode images; 0: the loop's own", "threads", changes_results=False),
    "data.prefetch": Key("int", 2, "[0, 64]", "made ready ahead", "batches", changes_results=False),
    "data.augment": Key("texts", (), "", "random changes of training images, in order: pad_crop(4), flip, mixup(0.2)"),
    "data.mean": Key("floats?", None, "[0, 1]", "of each color, subtracted; unset: measured on train"),
    "data.std": Key("floats?", None, "(0, 1]", "of each color, divided by; unset: measured on train"),
    "data.channels": Key("int?", None, "", "colors, 1 gray or 3 RGB; unset: as the data is", choices=("1", "3")),
    "data.classes": Key("int?", None, "[2, 1000000]", "that the data must have; unset: as found", "classes"),

    "model.name": Key("text", REQUIRED, "", "the network, family/variant"),

    "loss.name": Key("text", "softmax", "", "cross-entropy of a softmax over the classes, or of a sigmoid for each"),
    "loss.smoothing": Key("float", 0.0, "[0, 1)", "share of the target spread evenly over all classes"),
    "loss.class_weight": Key("text", "none", "", "balanced: train each class with weight n / (classes x its count); "
                             "never in evaluation", choices=("none", "balanced")),

    "optimizer.name": Key("text", REQUIRED, "", "the learning rule"),
    "optimizer.learning_rate": Key("float", REQUIRED, "(0, 1000]", "base rate, which the schedule multiplies"),
    "optimizer.weight_decay": Key("float", 0.0, "[0, 100]", "adamw: times the rate; sgd: added to the gradient"),
    "optimizer.decay_pattern": Key("pattern", r"(^|/)kernel$", "", "found in the paths of the parameters that decay"),
    "optimizer.momentum": Key("float", 0.9, "[0, 1)", "sgd: share of the last update kept"),
    "optimizer.nesterov": Key("bool", False, "", "sgd: look ahead along the momentum"),
    "optimizer.b1": Key("float", 0.9, "[0, 1)", "adamw: decay of the gradient's average"),
    "optimizer.b2": Key("float", 0.999, "[0, 1)", "adamw: decay of the squared gradient's average"),
    "optimizer.epsilon": Key("float", 1e-8, "(0, 1]", "adamw: added to the denominator"),
    "optimizer.clip": Key("float?", None, "(0, 1e9]", "largest norm of the whole gradient; unset: any"),
    "optimizer.accumulate": Key("int", 1, "[1, 4096]", "that a step is cut into and adds up", "micro-batches"),

    "schedule.name": Key("text", "constant", "", "shape of the learning rate over the run"),
    "schedule.warmup": Key("duration", "0 steps", "[0, 1e15]", "the rate rises from 0 for so long"),
    "schedule.boundaries": Key("durations", (), "(0, 1e15]", "step: where the rate falls"),
    "schedule.factor": Key("float", 0.1, "(0, 1]", "step: what each boundary multiplies the rate by"),
    "schedule.timescale": Key("duration", "10000 steps", "(0, 1e15]", "rsqrt: full rate so long, then as 1/sqrt(step)"),
}
# fmt: on

SECTIONS = ("data", "model", "loss", "optimizer", "schedule")
OPEN = ("data", "model")  # sections that take the keywords of the thing they name as well


def is_keyword(key: str) -> bool:
    """Whether a key may be a keyword of the named model or data source: `model.width`."""
    section, _, name = key.partition(".")
    return section in OPEN and name.isidentifier() and key not in KEYS
