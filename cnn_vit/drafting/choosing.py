"""What a first recipe sets, a rule each: sides of the images, network, batch, rates, random changes, durations.

A first run is to end while one waits for it: the network is small and sees small images. Nothing here looks at files
or devices.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from cnn_vit.drafting.stopwatch import Pace

LARGEST, SMALLEST = 64, 8  # pixels of a side, where nobody says
GRID = 8  # pixels that a chosen side is a multiple of; and patches, about, along a side
BATCH = (8, 64)  # images of a step, from and to
BATCHES = 8  # of an epoch, at least, where the batch may still be smaller
EPOCHS = 300  # at most: after so many, more of the same images teach hardly anything
MANY = 10  # epochs, from which on durations are whole epochs
EVALUATIONS = 20  # of a run, at most
WATCHING = 0.1  # share of the time, at most, that they take

Sides = tuple[int, int]


def choose_image_size(seen: np.ndarray) -> Sides:
    """Height and width to bring images to, of those seen (n, 2).

    Small images of one size stay as they are; others become squares, small ones of about their shorter side.
    """
    height, width = map(int, seen[0])
    if (seen == seen[0]).all() and min(height, width) >= SMALLEST and max(height, width) <= LARGEST:
        return height, width
    shorter = int(np.median(seen.min(1)))
    square = min(LARGEST, max(SMALLEST, shorter // GRID * GRID))
    return square, square


def choose_cnn(given: Sides) -> tuple[Sides, dict[str, Any]]:
    """Sides and keywords of a small CNN: more stages, and fewer filters in the first, where pixels are many."""
    if min(given) >= 48:
        return given, {"name": "cnn/small", "filters": (16, 32, 64, 128), "stride": (2, 1, 1, 1)}
    return given, {"name": "cnn/small", "filters": (32, 64, 128) if min(given) >= 24 else (32, 64)}


def choose_vit(given: Sides) -> tuple[Sides, dict[str, Any]]:
    """Sides and keywords of a small ViT: at most 8 x 8 patches of whole pixels; what fills none is left out."""
    patch = 2 ** math.ceil(math.log2(max(*given, GRID) / GRID))
    step = max(patch, 4)  # the patch of vit/test, which reads the same sides in a smoke run
    height, width = (max(step, one // step * step) for one in given)
    keywords = {"name": f"vit/Ti{patch}-gap", "width": 96, "depth": 6, "heads": 4, "hidden": 192, "dropout": 0.1}
    return (height, width), keywords


NETWORKS: dict[str, Callable[[Sides], tuple[Sides, dict[str, Any]]]] = {"cnn": choose_cnn, "vit": choose_vit}
TITLES = {"cnn": "A small CNN", "vit": "A small Vision Transformer"}


def choose_augmentation(classes: Sequence[str], given: Sides) -> tuple[str, ...]:
    """Random changes of training images: moved, and mirrored unless classes look like letters, digits or sides."""
    moved = f"pad_crop({max(1, min(given) // 8)})"
    sided = all(len(name) == 1 for name in classes) or {"left", "right"} <= {name.casefold() for name in classes}
    return (moved,) if sided else (moved, "flip")


def choose_batch_size(count: int, devices: int) -> int:
    """Images of a step, of so many to train on: a power of two, then up to a multiple of the devices."""
    low, high = BATCH
    wanted = min(high, max(low, 2 ** int(math.log2(max(count / BATCHES, 1)))))
    return -(-wanted // devices) * devices


def choose_optimizer(network: str, batch: int) -> dict[str, Any]:
    """Settings of loss, optimizer and schedule, but for durations; smaller steps where the batch is small."""
    share = 1 if batch >= 32 else 0.5
    rule: dict[str, Any] = {"name": "adamw", "learning_rate": share * (1e-3 if network == "vit" else 2e-3)}
    rule["weight_decay"] = 0.05
    if network == "vit":
        rule["clip"] = 1.0
    found: dict[str, Any] = {"loss.smoothing": 0.1}
    return found | {f"optimizer.{key}": value for key, value in rule.items()} | {"schedule.name": "cosine"}


def choose_durations(count: int, batch: int, pace: "Pace", *, seconds: float) -> tuple[dict[str, Any], int, int]:
    """Settings that say how long and how often, so that a run takes so many seconds or EPOCHS, whichever ends first.

    Args:
        count: training examples.
        batch: images of a step.
        pace: what the clock said.
        seconds: of a run, from its start to its result.

    Returns:
        The settings, the steps of the run and the evaluations in it.
    """
    left = max(seconds - pace.start, seconds / 2)
    judged = EVALUATIONS + 2  # validation and test once more, at the end
    watched = min(judged * pace.evaluation, WATCHING * left)
    steps = max(1, min(int((left - watched) / pace.step), math.ceil(EPOCHS * count / batch)))
    wanted = EVALUATIONS if watched >= judged * pace.evaluation else int(watched / pace.evaluation) - 2
    amount, unit = (steps * batch // count, "epochs") if steps * batch // count >= MANY else (steps, "steps")
    if unit == "epochs":
        steps = math.ceil(amount * count / batch)
    every = max(1, math.ceil(amount / max(1, wanted)))
    found = {
        "schedule.warmup": f"{max(1, amount // 20)} {unit}",
        "duration": f"{amount} {unit}",
        "log_every": f"{max(1, steps // 100)} steps",
        "evaluate_every": f"{every} {unit}",
        "checkpoint_every": f"{max(every, amount // 5)} {unit}",
    }
    return found, steps, math.ceil(amount / every)
