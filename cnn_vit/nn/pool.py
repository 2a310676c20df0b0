"""Pooling over images, channels last: a window of pixels becomes one pixel, in each channel by itself.

Nothing has a default: Flax's stride is 1 where PyTorch's is the window's size, and whether an average counts the
padding's zeros is a choice of its own (Flax and PyTorch count them, TensorFlow does not).
Each output side has floor((side + padding - size) / stride) + 1 pixels: what fills no window at the right and bottom is
left out.
"""

from dataclasses import dataclass

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
    """Takes the largest value of each window; padding is never the largest.

    The gradient goes to the first of equal largest values in row-major order, as in PyTorch; windows that overlap add
    theirs.

    Args:
        x: images, floating point.
        size: side of the window in pixels, or (height, width).
        stride: pixels from one window to the next, one number or (down, right).
        padding: pixels around the image, one number or ((top, bottom), (left, right)); each smaller than the window.

    Raises:
        UserError: if a window is larger than the padded image, or could see nothing but padding.
    """
    plan = plan_windows(x.shape[1:3], size, stride, padding)
    lowest = np.array(-np.inf, x.dtype)  # fills the padding: anything in the image is larger
    return jax.lax.reduce_window(x, lowest, jax.lax.max, plan.window, plan.strides, plan.padding)


@layer
def average_pool(
    x: jax.Array, size: IntOrPair, *, stride: IntOrPair, padding: Padding, count_padding: bool
) -> jax.Array:  # (B, H, W, C) -> (B, Y, X, C)
    """Takes the mean of each window, summed in float32.

    Args:
        x: images, floating point.
        size: side of the window in pixels, or (height, width).
        stride: pixels from one window to the next, one number or (down, right).
        padding: zeros around the image, one number or ((top, bottom), (left, right)); each smaller than the window.
        count_padding: divide by the window's size (the corner of ones under a padded 3x3 window is 4/9), else by the
            number of its pixels that lie in the image (the corner is 1).

    Raises:
        UserError: if a window is larger than the padded image, or could see nothing but padding.
    """
    plan = plan_windows(x.shape[1:3], size, stride, padding)
    zero = np.float32(0)
    sums = jax.lax.reduce_window(x.astype(jnp.float32), zero, jax.lax.add, plan.window, plan.strides, plan.padding)
    if count_padding:
        counts = plan.window[1] * plan.window[2]
    else:
        # The pixels of a window that lie in the image: as many rows times as many columns, alike for all channels.
        counts = np.multiply.outer(plan.rows_inside, plan.columns_inside)[..., None]
    return (sums / np.float32(counts)).astype(x.dtype)


@dataclass(frozen=True)
class WindowPlan:
    """How windows lie on images (B, H, W, C), with an entry for each of the four axes as `jax.lax` wants it.

    Attributes:
        window: sides of a window.
        strides: from one window to the next.
        padding: before and after each axis.
        rows_inside: (Y,) how many rows of a window lie in the image, for each row of windows.
        columns_inside: (X,) how many columns of a window lie in the image, for each column of windows.
    """

    window: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    rows_inside: np.ndarray
    columns_inside: np.ndarray


def plan_windows(image_size: tuple[int, ...], size: IntOrPair, stride: IntOrPair, padding: Padding) -> WindowPlan:
    """Lays windows on images of a size (height, width); raises UserError where they do not fit or see only padding."""
    window = height_and_width(size, "size")
    strides = height_and_width(stride, "stride")
    paddings = normalize_padding(padding)
    inside = []
    for pixels, side, step, pair in zip(image_size, window, strides, paddings, strict=True):
        if max(pair) >= side:
            raise UserError(f"padding {pair} is as large as the window of {side} pixels, which could see nothing else")
        # Where each window begins, counted from the image's first pixel; the padding before it has negative numbers.
        starts = np.arange(output_size(pixels, side, stride=step, padding=pair)) * step - pair[0]
        inside.append(np.minimum(starts + side, pixels) - np.maximum(starts, 0))
    return WindowPlan(
        window=(1, *window, 1),
        strides=(1, *strides, 1),
        padding=((0, 0), *paddings, (0, 0)),
        rows_inside=inside[0],
        columns_inside=inside[1],
    )
