"""Pooling over images, channels last: a window of pixels becomes one, in each channel by itself.

Nothing has a default: Flax's stride is 1 where PyTorch's is the window's size, and whether an average counts the
padding's zeros is a choice of its own (Flax and PyTorch count them, TensorFlow does not).
Each output side has floor((side + padding - size) / stride) + 1 pixels: what fills no window at the right and bottom is
left out.
"""

import jax
import jax.numpy as jnp
import numpy as np

from cnn_vit.errors import UserError
from cnn_vit.nn.calls import layer
from cnn_vit.nn.windows import IntOrPair, Padding, height_and_width, normalize_padding, output_size


@layer
def max_pool(
    x: jax.Array, size: IntOrPair, *, stride: IntOrPair, padding: Padding
) -> jax.Array:  # (B, H, W, C) -> (B, Y, X, C)
    """The largest value of each window; padding is never the largest.

    The gradient goes to the first of equal largest values in row-major order, as in PyTorch; windows that overlap add
    theirs.

    Args:
        x: images, floating point.
        size: side of the window in pixels, or (height, width).
        stride: pixels between two windows, one number or (down, right).
        padding: pixels around the image, one number or ((top, bottom), (left, right)); each smaller than the window.

    Raises:
        UserError: a window that is larger than the padded image, or one that could see padding alone.
    """
    window, steps, edges, _ = plan_windows(x.shape[1:3], size, stride, padding)
    lowest = np.array(-np.inf, x.dtype)
    return jax.lax.reduce_window(x, lowest, jax.lax.max, window, steps, edges)


@layer
def average_pool(
    x: jax.Array, size: IntOrPair, *, stride: IntOrPair, padding: Padding, count_padding: bool
) -> jax.Array:  # (B, H, W, C) -> (B, Y, X, C)
    """The mean of each window, summed in float32.

    Args:
        x: images, floating point.
        size: side of the window in pixels, or (height, width).
        stride: pixels between two windows, one number or (down, right).
        padding: zeros around the image, one number or ((top, bottom), (left, right)); each smaller than the window.
        count_padding: divide by the window's size (the corner of ones under a padded 3x3 window is 4/9), else by the
            number of its pixels that lie in the image (the corner is 1).

    Raises:
        UserError: a window that is larger than the padded image, or one that could see padding alone.
    """
    window, steps, edges, inside = plan_windows(x.shape[1:3], size, stride, padding)
    sums = jax.lax.reduce_window(x.astype(jnp.float32), np.float32(0), jax.lax.add, window, steps, edges)
    counts = window[1] * window[2] if count_padding else np.multiply.outer(*inside)[..., None]
    return (sums / np.float32(counts)).astype(x.dtype)


def plan_windows(image: tuple[int, ...], size: IntOrPair, stride: IntOrPair, padding: Padding):
    """Window, strides and padding of all four axes; for each side of an image how many of its pixels a window has."""
    window, steps, edges = (
        height_and_width(size, "size"),
        height_and_width(stride, "stride"),
        normalize_padding(padding),
    )
    inside = []
    for pixels, side, step, pair in zip(image, window, steps, edges, strict=True):
        if max(pair) >= side:
            raise UserError(f"padding {pair} is as large as the window of {side} pixels, which could see nothing else")
        first = np.arange(output_size(pixels, side, stride=step, padding=pair)) * step - pair[0]
        inside.append(np.minimum(first + side, pixels) - np.maximum(first, 0))
    return (1, *window, 1), (1, *steps, 1), ((0, 0), *edges, (0, 0)), inside
