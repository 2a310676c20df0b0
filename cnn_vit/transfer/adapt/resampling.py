"""Resampling along one axis as a matrix: each new sample is a weighted sum of the old ones around it.

Samples stand in the middle of equal shares of the axis, as pixels do: of n samples the i-th stands at (i + 1/2) / n.
Where samples become fewer the kernel is widened in proportion, so that all old samples count (antialiasing). Weights
beyond the ends are left out, and the others scaled to sum to 1. So do Pillow, torch's `interpolate(antialias=True)`
and `jax.image.resize`.
"""

from typing import Literal

import numpy as np


def resampling_matrix(old: int, new: int, kernel: Literal["linear", "cubic"]) -> np.ndarray:  # -> (N, O)
    """Computes the weights, float64, by which `old` samples along an axis become `new` ones.

    Args:
        old: number of samples O there are, at least 1.
        new: number of samples N there will be, at least 1.
        kernel: linear reads 2 old samples, cubic 4, and more where samples become fewer.
    """
    spacing = old / new  # of the new samples, in old ones
    width = max(spacing, 1.0)
    centers = (np.arange(new) + 0.5) * spacing - 0.5  # of the new samples, in indices of the old ones
    distances = np.abs(centers[:, None] - np.arange(old)) / width  # (N, O)
    weights = linear_kernel(distances) if kernel == "linear" else cubic_kernel(distances)
    return weights / weights.sum(1, keepdims=True)


def linear_kernel(distance: np.ndarray) -> np.ndarray:
    """Weights by distances of at least 0: a triangle, 0 from a distance of 1 on."""
    return np.maximum(1 - distance, 0)


def cubic_kernel(distance: np.ndarray) -> np.ndarray:
    """Weights by distances of at least 0: Keys' cubic convolution with a = -1/2, 0 from a distance of 2 on.

    It is the only one of Keys' kernels that gives back a straight line, and a parabola too: IEEE Transactions on
    Acoustics, Speech and Signal Processing 29, 1981, equation 15. Torch without antialiasing has a = -3/4.
    """
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
