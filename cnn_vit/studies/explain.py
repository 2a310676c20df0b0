"""Looks into a trained network with images of the user's, and into the same network before it was trained."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from cnn_vit.analysis.shift import ShiftReport, measure_shift
from cnn_vit.data.base.padding import PAD_BATCH
from cnn_vit.errors import UserError
from cnn_vit.nn.values import initial_values
from cnn_vit.training import forward
from cnn_vit.training.prediction import read_images
from cnn_vit.training.trained import Trained, describe_start, refuse_untrained
from cnn_vit.trees import path_text


@dataclass(frozen=True)
class ShiftComparison:
    """How a network answers a shift.

    Attributes:
        images: (B, H, W, C) uint8 that were shifted, as the network sees them.
        trained: with its own values.
        untrained: with initial values. Where their head gives every image the same scores, what it says of them is nan.
        start: what the initial values are, in words: "before training" where the network began with them.
        has_zero_head: whether the kernel of the head begins as zeros, as in most Transformers.
    """

    images: np.ndarray
    trained: ShiftReport
    untrained: ShiftReport
    start: str
    has_zero_head: bool


def compare_shift(network: Trained, paths: Sequence[str], shift: tuple[int, int]) -> ShiftComparison:
    """Measures how a network answers a shift around, with its values and with initial ones.

    Args:
        network: what `training.trained.load` returned.
        paths: files, folders and zip archives of images.
        shift: pixels down and right.

    Raises:
        UserError: an image cannot be read, or the shift is larger than the images.
    """
    refuse_untrained(network)
    if network.preprocessing["fit"] == PAD_BATCH:
        raise UserError("a shift is measured on images of one size, and this network was trained on several")
    pixels = read_pixels(network, paths)
    images = normalize(network, pixels)
    module = forward.build_network(network.spec)
    trained = measure_shift(module, network.params, network.stats, images, shift=shift)
    seed, start = describe_start(network)
    params, stats = initial_values(network.network, seed)
    untrained = measure_shift(module, params, stats, images, shift=shift)
    has_zero_head = begins_as_zeros(params.get("head", {}))
    if has_zero_head:
        untrained = leave_out_scores(untrained)
    return ShiftComparison(pixels, trained, untrained, start, has_zero_head)


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


def normalize(network: Trained, pixels: np.ndarray) -> np.ndarray:  # (B, H, W, C) -> (B, H, W, C)
    """Scales images by the mean and standard deviation of the network's data."""
    mean, std = (np.float32(network.preprocessing[name]) for name in ("mean", "std"))
    return ((pixels.astype(np.float32) / 255 - mean) / std).astype(np.float32)
