"""Looks into a trained network with images of the user's, and into the same network before it was trained."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cnn_vit.analysis.shift import ShiftReport, measure_shift
from cnn_vit.data.base.padding import PAD_BATCH
from cnn_vit.errors import UserError
from cnn_vit.nn.values import initial_values
from cnn_vit.training import forward
from cnn_vit.training.prediction import read_images
from cnn_vit.training.trained import Trained, refuse_untrained


class ShiftComparison(NamedTuple):
    """How a network answers a shift.

    Attributes:
        images: (B, H, W, C) uint8 that were shifted, as the network sees them.
        trained: with its own values.
        untrained: with initial values, those of seed 0.
    """

    images: np.ndarray
    trained: ShiftReport
    untrained: ShiftReport


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
    params, stats = initial_values(forward.get_network(network.spec), 0)
    return ShiftComparison(pixels, trained, measure_shift(module, params, stats, images, shift=shift))


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
