"""A fixed permutation of an image's pixels: the same for all images, so that no information is lost.

What it takes away is which pixels are neighbors. A network that learns as well with it makes no use of that.

Axes:
    B batch    H, W image height and width    C colors    N pixels
"""

import jax
import numpy as np


def permute_pixels(images: jax.Array, seed: int) -> jax.Array:  # (B, H, W, C) -> (B, H, W, C)
    """Puts the pixels of each image in another order, which follows from the seed and the number of pixels alone."""
    batch, height, width, channels = images.shape
    pixels = images.reshape(batch, height * width, channels)  # (B, N, C)
    return pixels[:, draw_order(seed, height * width)].reshape(images.shape)


def draw_order(seed: int, count: int) -> np.ndarray:  # -> (N,)
    """Draws a permutation of 0 to count - 1, the same with any version of NumPy.

    Args:
        seed: at least 0.
        count: N.
    """
    # The places of random numbers in ascending order; two of 100 words of 64 bits are equal once in 10^15 draws.
    return np.argsort(np.random.Philox(key=seed).random_raw(count), kind="stable")
