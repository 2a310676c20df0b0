"""What is known of a foreign file beside its arrays, by its rule, by its content and by the user, becomes its card."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnn_vit import models
from cnn_vit.errors import UserError
from cnn_vit.transfer import class_names
from cnn_vit.transfer.hub_config import PREPROCESSOR, BesideFile
from cnn_vit.transfer.readers import NamedArrays
from cnn_vit.transfer.rules import ConversionRule, Guess, PublishedFile

RGB, BGR = "RGB", "BGR"
PATCH_NORMS = ("patches/norm/scale", "patches/norm/bias")  # of networks that normalize the pixels of a patch


@dataclass(frozen=True)
class SourceFacts:
    """What a user says of a file; None is not said, and comes from the rule where that knows it.

    Attributes:
        mean, std: of each channel, in the unit of the file's own values.
        value_range: what black and white are for the file's network, before mean and std: (0, 255), (-1, 1).
        channel_order: of the file's network, "RGB" or "BGR".
        image_size: height and width in pixels.
        fit, interpolation: how images were brought to that size.
        classes: names in the order of the scores.
        licence: of the file.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    value_range: tuple[float, float] | None = None
    channel_order: str | None = None
    image_size: tuple[int, int] | None = None
    fit: str | None = None
    interpolation: str | None = None
    classes: tuple[str, ...] | None = None
    licence: str | None = None


def make_preprocessing(
    rule: ConversionRule,
    published: PublishedFile,
    beside: BesideFile,
    facts: SourceFacts,
    guess: Guess,
    model: str,
) -> tuple[dict[str, Any], list[str]]:
    """Says how images become the network's input, for images that are RGB in 0..1.

    A network that saw values from `low` to `high` saw `low + (high - low) x` of a pixel x in 0..1. So with mean m and
    standard deviation s in that unit it saw (x - (m - low) / (high - low)) / (s / (high - low)).

    Returns:
        The preprocessing, and notes on what was assumed.

    Raises:
        UserError: what the user says contradicts itself, or a file beside the weights is of other channels.
    """
    channels = guess.channels
    preprocessing = copy.deepcopy(rule.preprocessing | beside.preprocessing | published.preprocessing)
    notes = []
    if facts.mean is None and len(beside.preprocessing.get("mean", [])) not in (0, channels):
        raise UserError(
            f"image_mean in the {PREPROCESSOR} beside the weights has {len(beside.preprocessing['mean'])} numbers, and "
            f"this network sees {channels} channels; mend that file, or give --mean and --std"
        )
    if preprocessing and not published.facts and not beside.preprocessing:
        notes.append(f"how images are prepared is taken from {rule.source}; --mean, --std ... say otherwise")
    if len(preprocessing.get("mean", [])) not in (0, channels):
        del preprocessing["mean"], preprocessing["std"]
    if guess.image_size is not None:
        preprocessing["image_size"] = list(guess.image_size)
        other = beside.preprocessing.get("image_size", preprocessing["image_size"])
        if other != preprocessing["image_size"]:
            height, width = other
            notes.append(f"{PREPROCESSOR} asks for {height}x{width} pixels, and the network is of another size")
    preprocessing.setdefault("image_size", list(default_image_size(model)))
    preprocessing["channels"] = channels
    said = {"image_size": facts.image_size, "fit": facts.fit, "interpolation": facts.interpolation}
    for key, value in said.items():
        if value is not None:
            preprocessing[key] = list(value) if isinstance(value, tuple) else value
    is_bgr = facts.channel_order == BGR
    if is_bgr and channels != 3:
        raise UserError(f"--channel_order=BGR orders three channels, and this network sees {channels}; leave it out")
    if (facts.mean is None) != (facts.std is None):
        raise UserError("--mean and --std belong together; give both")
    if facts.mean is None and facts.value_range is None:
        if is_bgr and len(set(preprocessing.get("mean", []))) > 1:
            raise UserError("--channel_order=BGR also orders mean and standard deviation; give --mean and --std too")
    else:
        low, high = facts.value_range or (0.0, 1.0)
        mean = facts.mean or (0.0,) * channels
        std = facts.std or (1.0,) * channels
        refuse_mean_and_std(mean, std, channels, low, high)
        order = -1 if is_bgr else 1
        preprocessing["mean"] = [(number - low) / (high - low) for number in mean][::order]
        preprocessing["std"] = [number / (high - low) for number in std][::order]
    if "mean" not in preprocessing:
        notes.append("mean and standard deviation are not known; give --mean and --std, or scores will mean little")
    return preprocessing, notes


def refuse_mean_and_std(mean: Sequence[float], std: Sequence[float], channels: int, low: float, high: float) -> None:
    """Raises UserError for a mean and std of another number of channels, or numbers that nothing can be divided by."""
    if len(mean) != channels or len(std) != channels:
        raise UserError(
            f"--mean has {len(mean)} and --std {len(std)} numbers, and this network sees {channels} channels; give one "
            "number for each"
        )
    if min(std) <= 0:
        raise UserError(f"--std={','.join(map(str, std))} must be above 0")
    if not low < high:
        raise UserError(f"--value_range={low:g},{high:g} must rise: black first, then white")


def default_image_size(model: str) -> tuple[int, int]:
    """Returns the image size that a network has by default, (height, width)."""
    return models.height_and_width(models.keywords(model)["image_size"].default)


def reverse_colors(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Exchanges red and blue in a kernel (..., C, O): our network sees red first, where the file's saw blue.

    Raises:
        UserError: the kernel has the colors of all pixels in one axis.
    """
    if kernel.shape[-2] != channels:
        raise UserError("--channel_order=BGR cannot be worked into a network that sees flattened pixels; leave it out")
    return np.ascontiguousarray(kernel[..., ::-1, :])


def reverse_first_colors(arrays: dict[str, np.ndarray], first_kernel: str, channels: int) -> None:
    """Exchanges red and blue in all arrays that see the colors of an image: the first kernel, and norms of patches.

    Args:
        arrays: of ours by path; they are replaced in it.
        first_kernel: path of the kernel.
        channels: colors of an image.
    """
    arrays[first_kernel] = reverse_colors(arrays[first_kernel], channels)
    for path in PATCH_NORMS:
        if path in arrays:  # one number for each pixel and color of a patch, its colors last
            by_color = arrays[path].reshape(-1, channels, 1)
            arrays[path] = reverse_colors(by_color, channels).reshape(-1)


def make_origin(
    path: str | Path, named: NamedArrays, rule: ConversionRule, published: PublishedFile, facts: SourceFacts
) -> dict[str, Any]:
    """Says where the values come from: the file, the rule, what is published of it, and what the user says of it."""
    origin: dict[str, Any] = {
        "file": Path(path).name,
        "sha256": named.sha256,
        "format": named.format,
        "rule": f"{rule.family}, version {rule.version}",
        "program": rule.source,
    }
    origin |= copy.deepcopy(published.facts)
    if facts.licence is not None:
        origin["licence"] = facts.licence
    if facts.channel_order is not None:  # both are worked into values and preprocessing, which no longer show them
        origin["channel_order"] = facts.channel_order
    if facts.value_range is not None:
        origin["value_range"] = list(facts.value_range)
    return origin


def choose_classes(
    rule: ConversionRule, published: PublishedFile, facts: SourceFacts, num_classes: int
) -> tuple[tuple[str, ...] | None, list[str]]:
    """Returns the names of the classes, as far as anybody knows them, and a note where they are assumed.

    Raises:
        UserError: the user names another number of classes than the network scores.
    """
    if facts.classes is not None:
        if len(facts.classes) != num_classes:
            raise UserError(
                f"--class_names has {len(facts.classes):,} names, and the network gives {num_classes:,} scores"
            )
        return facts.classes, []
    if published.classes is not None:
        names = class_names.KNOWN[published.classes]()
        if len(names) == num_classes:
            return names, []
    if num_classes in rule.classes:
        known = rule.classes[num_classes]
        note = f"{num_classes:,} scores are taken for the classes of {known}; --class_names=FILE says otherwise"
        return class_names.KNOWN[known](), [note]
    return None, ["nobody says what the classes are called; --class_names=FILE does"]
