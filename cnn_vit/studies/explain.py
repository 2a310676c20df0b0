"""Looks into a trained network with images of the user's, and into the same network before it was trained."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_vit import stops
from cnn_vit.analysis.shift import ShiftReport, find_first_stride, measure_shift
from cnn_vit.data.base.padding import PAD_BATCH
from cnn_vit.errors import UserError
from cnn_vit.nn.values import initial_values
from cnn_vit.training import forward
from cnn_vit.training.prediction import read_images
from cnn_vit.training.progress import Progress
from cnn_vit.training.trained import Trained, describe_initial_values, refuse_untrained
from cnn_vit.trees import path_text

LEAST_SHIFT = 2  # pixels down and right, where nobody says another


@dataclass(frozen=True)
class ShiftComparison:
    """How a network answers a shift.

    Attributes:
        images: (B, H, W, C) uint8 that were shifted, as the network sees them.
        shift: pixels down and right.
        trained: with its own values.
        untrained: with initial values. Where their head gives every image the same scores, what it says of them is nan.
        start: what the initial values are, in words: "before training", or "initial values of seed 0".
        has_zero_head: whether the kernel of the head begins as zeros, as in most Transformers.
        is_before_training: whether the training of the network began with the initial values.
    """

    images: np.ndarray
    shift: tuple[int, int]
    trained: ShiftReport
    untrained: ShiftReport
    start: str
    has_zero_head: bool
    is_before_training: bool


def compare_shift(network: Trained, paths: Sequence[str], shift: tuple[int, int] | None) -> ShiftComparison:
    """Measures how a network answers a shift around, with its values and with initial ones.

    Args:
        network: what `training.trained.load` returned.
        paths: files, folders and zip archives of images.
        shift: pixels down and right; None for `choose_shift`.

    Raises:
        UserError: an image cannot be read, or the shift is larger than the images.
    """
    refuse_untrained(network)
    if network.preprocessing["fit"] == PAD_BATCH:
        raise UserError("a shift is measured on images of one size, and this network was trained on several")
    pixels = read_pixels(network, paths)
    module = forward.build_network(network.spec)
    shift = shift or choose_shift(network)
    start = describe_initial_values(network)
    params, stats = initial_values(network.network, start.seed)
    reports = []
    with Progress(2 * len(pixels), batch_size=1) as progress:
        for number, values in enumerate(((network.params, network.stats), (params, stats))):

            def note_images(done: int, before: int = number * len(pixels)) -> None:
                stops.raise_if_requested()
                progress.update(before + done)

            report = measure_shift(
                module,
                *values,
                pixels,
                shift=shift,
                prepare=lambda batch: prepare_images(network, batch),
                on_batch=note_images,
            )
            reports.append(report)
    trained, untrained = reports
    has_zero_head = begins_as_zeros(params.get("head", {}))
    if has_zero_head:
        untrained = leave_out_scores(untrained)
    return ShiftComparison(
        pixels, shift, trained, untrained, start.words, has_zero_head, is_before_training=start.is_before_training
    )


def choose_shift(network: Trained) -> tuple[int, int]:
    """Returns a shift that is whole in the first map of a network: the side of a patch, or the first stride.

    It is of LEAST_SHIFT pixels at least; of so many where the image has no room for a whole one.
    """
    height, width = network.spec.image_shape[:2]
    stride = find_first_stride(forward.build_network(network.spec), network.spec.image_shape) or 1
    whole = fit_shift(math.ceil(LEAST_SHIFT / stride) * stride, (height, width))
    return whole or (min(LEAST_SHIFT, height - 1), min(LEAST_SHIFT, width - 1))


def fit_shift(pixels: int, size: tuple[int, int]) -> tuple[int, int] | None:
    """Returns so many pixels along each side of an image that is longer, and 0 along others; None of none."""
    down, right = (pixels if pixels < side else 0 for side in size)
    return (down, right) if down or right else None


def suggest_shift(compared: ShiftComparison) -> tuple[int, int] | None:
    """Returns a shift with which some layer has a map of errors, where none has; None where one has, or none can."""
    layers = compared.trained.layers
    if any(layer.errors is not None for layer in layers):
        return None
    strides = [layer.stride for layer in layers if layer.stride is not None]
    height, width = compared.images.shape[1:3]
    return fit_shift(min(strides), (height, width)) if strides else None


def begins_as_zeros(head: Mapping[str, Any]) -> bool:
    """Whether a head's kernels are all zero, so that no score depends on the image; False where it has none."""
    leaves = jax.tree_util.tree_leaves_with_path(head)
    kernels = [leaf for path, leaf in leaves if path_text(path).rpartition("/")[2] == "kernel"]
    return bool(kernels) and not any(np.any(kernel) for kernel in kernels)


def leave_out_scores(report: ShiftReport) -> ShiftReport:
    """Returns a report that says nan of the head and the scores: a constant is no invariance that was measured."""
    layers = []
    for layer in report.layers:
        is_of_scores = layer.path.partition("/")[0] in ("", "head")
        layers.append(replace(layer, invariance=math.nan) if is_of_scores else layer)
    return ShiftReport(tuple(layers), consistency=math.nan, largest_change=math.nan)


def read_pixels(network: Trained, paths: Sequence[str]) -> np.ndarray:  # -> (B, H, W, C)
    """Reads images at the size of a network, uint8.

    Raises:
        UserError: an image cannot be read.
    """
    pixels = []
    for image in read_images(network, paths):
        if image.pixels is None:
            raise UserError(f"{image.path}: {image.error}")
        pixels.append(image.pixels)
    return np.stack(pixels)


def prepare_images(network: Trained, pixels: np.ndarray) -> np.ndarray:  # (B, H, W, C) -> (B, H, W, C)
    """Makes of pixels, uint8, what a network takes, by the mean and standard deviation of its data."""
    mean_and_std = {name: np.float32(network.preprocessing[name]) for name in ("mean", "std")}
    return np.asarray(forward.normalize(jnp.asarray(pixels, jnp.float32) / 255, mean_and_std, "float32"))
