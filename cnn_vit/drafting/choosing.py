"""The rules of a first recipe, a function each: image size, network, batch, learning rate, augmentation, durations.

A first run is to end while one waits for it: the network is small and sees small images. Nothing here looks at files
or devices.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cnn_vit.errors import UserError

if TYPE_CHECKING:
    from cnn_vit.drafting.stopwatch import Pace

LARGEST_SIDE, SMALLEST_SIDE = 64, 8  # pixels of a chosen side
SIDE_STEP = 8  # pixels that a chosen side is a multiple of
PATCHES = 8  # of a Vision Transformer along a side, at most
SMALLEST_BATCH, LARGEST_BATCH = 8, 64  # images of a step
BATCHES = 8  # of an epoch, at least, where the batch may still be smaller
EPOCHS = 300  # at most: after so many, more of the same images teach hardly anything
MANY_EPOCHS = 10  # from which on durations are whole epochs
EVALUATIONS = 20  # of a run, at most
EVALUATION_SHARE = 0.1  # of a run's time, at most, that its evaluations take
TRANSFER = "transfer"  # the network that starts from pretrained weights, which say what it is
FEW_A_CLASS = 100  # training images of a class, below which a pretrained body stays as it is

FOR_STROKES = "cifar_resnet/8@mnist"  # weights at hand for small gray images, such as letters and signs

ImageSize = tuple[int, int]
"""Height and width in pixels."""


def choose_image_size(image_sizes: np.ndarray) -> ImageSize:
    """Returns the size to bring images to.

    Small images of one size stay as they are. Others become squares, small ones of about their shorter side.

    Args:
        image_sizes: (n, 2) heights and widths of the images.
    """
    height, width = map(int, image_sizes[0])
    have_one_size = bool((image_sizes == image_sizes[0]).all())
    if have_one_size and min(height, width) >= SMALLEST_SIDE and max(height, width) <= LARGEST_SIDE:
        return height, width
    shorter_side = int(np.median(image_sizes.min(1)))
    side = min(LARGEST_SIDE, max(SMALLEST_SIDE, shorter_side // SIDE_STEP * SIDE_STEP))
    return side, side


def choose_cnn(image_size: ImageSize) -> tuple[ImageSize, dict[str, Any]]:
    """Returns the image size and the keywords of a small CNN.

    It has more stages, and fewer filters in the first, where pixels are many.
    """
    shorter_side = min(image_size)
    if shorter_side >= 48:
        return image_size, {"name": "cnn/small", "filters": (16, 32, 64, 128), "stride": (2, 1, 1, 1)}
    if shorter_side >= 24:
        return image_size, {"name": "cnn/small", "filters": (32, 64, 128)}
    return image_size, {"name": "cnn/small", "filters": (32, 64)}


def choose_vit(image_size: ImageSize) -> tuple[ImageSize, dict[str, Any]]:
    """Returns the image size and the keywords of a small ViT: at most 8 x 8 patches, whose side is a power of two.

    Pixels that would fill no whole patch are left out of the image size.
    """
    patch = 2 ** math.ceil(math.log2(max(*image_size, PATCHES) / PATCHES))
    multiple = max(patch, 4)  # 4 is the patch of vit/test, which reads the same image size in a smoke run
    height, width = (max(multiple, side // multiple * multiple) for side in image_size)
    keywords = {"name": f"vit/Ti{patch}-gap", "width": 96, "depth": 6, "heads": 4, "hidden": 192, "dropout": 0.1}
    return (height, width), keywords


NETWORKS: dict[str, Callable[[ImageSize], tuple[ImageSize, dict[str, Any]]]] = {"cnn": choose_cnn, "vit": choose_vit}
TITLES = {"cnn": "A small CNN", "vit": "A small Vision Transformer", TRANSFER: "A pretrained network"}


def choose_augmentation(classes: Sequence[str], image_size: ImageSize) -> tuple[str, ...]:
    """Returns the augmentations of training images: they are moved by up to an eighth of the shorter side and mirrored.

    They are not mirrored where the names of the classes look like letters, digits or sides.
    """
    move = f"pad_crop({max(1, min(image_size) // 8)})"
    are_letters = all(len(name) == 1 for name in classes)
    are_sides = {"left", "right"} <= {name.casefold() for name in classes}
    return (move,) if are_letters or are_sides else (move, "flip")


def choose_mirroring(classes: Sequence[str]) -> tuple[str, ...]:
    """Returns the augmentation of training images for a pretrained network, as `choose_augmentation` but unmoved."""
    return tuple(
        operation for operation in choose_augmentation(classes, (SMALLEST_SIDE, SMALLEST_SIDE)) if operation == "flip"
    )


def choose_weights(image_sizes: np.ndarray, *, is_colored: bool) -> str:
    """Returns the name of the weights at hand that suit some images.

    Args:
        image_sizes: (n, 2) heights and widths of the images.
        is_colored: whether any of them has colors.

    Raises:
        UserError: none do.
    """
    if is_colored or int(np.median(image_sizes.min(1))) > LARGEST_SIDE:
        raise UserError(
            "no weights at hand suit these images: those that come with the package have learned from small gray "
            "digits; name others with --weights=FILE, of `cnn-vit convert` or somebody else's, or a run folder"
        )
    return FOR_STROKES


def choose_freeze(train_count: int, classes: int) -> dict[str, Any]:
    """Returns what of a pretrained network is frozen: all but its head, of few images a class; else nothing.

    A whole network has far more numbers than so few images could decide.
    """
    if train_count < FEW_A_CLASS * classes:
        return {"pretrained.freeze": "all but head"}
    return {}


def choose_batch_size(count: int, devices: int) -> int:
    """Returns the images of a step: a power of two, rounded up to a multiple of the devices.

    Args:
        count: images to train on.
        devices: number of devices that share a batch.
    """
    power_of_two = 2 ** int(math.log2(max(count / BATCHES, 1)))
    batch = min(LARGEST_BATCH, max(SMALLEST_BATCH, power_of_two))
    return -(-batch // devices) * devices


def choose_optimizer(network: str, batch: int, *, is_frozen: bool = False) -> dict[str, Any]:
    """Returns the settings of loss, optimizer and schedule, but for durations.

    Args:
        network: a name of NETWORKS, or TRANSFER.
        batch: images of a step; the learning rate is half as large where they are fewer than 32.
        is_frozen: whether the head alone is trained.
    """
    learning_rate = 1e-3 if network == "vit" else 2e-3
    if network == TRANSFER:
        learning_rate = 3e-3 if is_frozen else 3e-4  # a pretrained body is changed gently
    if batch < 32:
        learning_rate *= 0.5
    chosen: dict[str, Any] = {
        "loss.smoothing": 0.1,
        "optimizer.name": "adamw",
        "optimizer.learning_rate": learning_rate,
        "optimizer.weight_decay": 0.05,
    }
    if network == "vit":
        chosen["optimizer.clip"] = 1.0
    chosen["schedule.name"] = "cosine"
    return chosen


class Durations(NamedTuple):
    """How long a run is, and how often it does what.

    Attributes:
        settings: the settings that say so, flat.
        steps: of the run.
        evaluations: of the validation split in it.
    """

    settings: dict[str, Any]
    steps: int
    evaluations: int


def choose_durations(count: int, batch: int, pace: "Pace", *, seconds: float) -> Durations:
    """Chooses durations so that a run takes so many seconds or EPOCHS, whichever ends first.

    Args:
        count: training examples.
        batch: images of a step.
        pace: how long steps and evaluations take.
        seconds: of a run, from its start to its result.
    """
    # A slow compilation takes half of the time at most, so that a run always learns something
    seconds_left = max(seconds - pace.start, seconds / 2)
    # At the end, validation and test are evaluated once more
    seconds_of_all = (EVALUATIONS + 2) * pace.evaluation
    evaluation_seconds = min(seconds_of_all, EVALUATION_SHARE * seconds_left)
    steps_in_time = int((seconds_left - evaluation_seconds) / pace.step)
    steps = max(1, min(steps_in_time, math.ceil(EPOCHS * count / batch)))
    evaluations = EVALUATIONS
    if evaluation_seconds < seconds_of_all:
        evaluations = int(evaluation_seconds / pace.evaluation) - 2
    amount, unit = steps, "steps"
    epochs = steps * batch // count
    if epochs >= MANY_EPOCHS:
        amount, unit = epochs, "epochs"
        steps = math.ceil(epochs * count / batch)
    evaluate_every = max(1, math.ceil(amount / max(1, evaluations)))
    settings = {
        "schedule.warmup": f"{max(1, amount // 20)} {unit}",
        "duration": f"{amount} {unit}",
        "log_every": f"{max(1, steps // 100)} steps",
        "evaluate_every": f"{evaluate_every} {unit}",
        "checkpoint_every": f"{max(evaluate_every, amount // 5)} {unit}",
    }
    return Durations(settings, steps, math.ceil(amount / evaluate_every))
