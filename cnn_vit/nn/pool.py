"""Pooling over images, channels last: a window of pixels becomes one pixel, in each channel by itself.

Nothing has a default: Flax's stride is 1 where PyTorch's is the window's size, and whether an average counts the
padding's zeros is a choice of its own (Flax and PyTorch count them, TensorFlow does not).
Each output side has floor((side + padding - size) / stride) + 1 pixels: what fills no window at the right and bottom is
left out.

| form | case | reason | measured |
|---|---|---|---|
| `fast_max_pool` | CPU; windows up to 5x5 | XLA's own gradient searches each window anew | 5.3 to 11 |

Measured: how many times as fast as the plain form, forward and backward (experiments/speed/forms.py, jaxlib 0.10.2).

Axes:
    B batch    H, W input height and width    Y, X output height and width    C channels
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from cnn_vit.errors import UserError
from cnn_vit.nn.calls import layer
from cnn_vit.nn.forms import choose_form
from cnn_vit.nn.padding import ZERO, check_padding_kind, surround
from cnn_vit.nn.windows import IntOrPair, Padding, height_and_width, normalize_padding, output_size

MOST_PLACES = 25  # of a window: each is written out in the program of the fast form, which takes time to compile


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
    if plan.window[1] * plan.window[2] > MOST_PLACES:
        return plain_max_pool(x, plan)
    return choose_form(partial(plain_max_pool, plan=plan), x, cpu=partial(fast_max_pool, plan=plan))


def plain_max_pool(x: jax.Array, plan: "WindowPlan") -> jax.Array:  # (B, H, W, C) -> (B, Y, X, C)
    """Takes the largest value of each window as XLA does it."""
    lowest = np.array(-np.inf, x.dtype)  # fills the padding: anything in the image is larger
    return jax.lax.reduce_window(x, lowest, jax.lax.max, plan.window, plan.strides, plan.padding)


@partial(jax.custom_jvp, nondiff_argnames=("plan",))
def fast_max_pool(x: jax.Array, plan: "WindowPlan") -> jax.Array:  # (B, H, W, C) -> (B, Y, X, C)
    """Takes the largest value of each window, comparing whole images: place 0 of all windows, place 1, and so on.

    Of a window with values that are not numbers, the gradient may go to another place than in the plain form.
    """
    return find_largest(x, plan)[0]


def find_largest(x: jax.Array, plan: "WindowPlan") -> tuple[jax.Array, jax.Array]:  # (B, H, W, C) -> (B, Y, X, C)
    """Returns the largest value of each window, and the first place, counted row by row, that holds it."""
    values = slide_window(x, plan, fill=-np.inf)
    largest = next(values)
    place = jnp.zeros(largest.shape, jnp.int32)
    for number, value in enumerate(values, start=1):
        place = jnp.where(value > largest, number, place)
        largest = jnp.maximum(largest, value)  # of a value that is not a number, too, as XLA does it
    return largest, place


def slide_window(x: jax.Array, plan: "WindowPlan", *, fill: float) -> Iterator[jax.Array]:  # (B, H, W, C)
    """Yields for each place of a window, row by row, its pixel in all windows (B, Y, X, C); `fill` is the padding's."""
    edges = [(before, after, 0) for before, after in plan.padding]
    padded = jax.lax.pad(x, jnp.asarray(fill, x.dtype), edges)
    (_, height, width, _), (_, down, right, _) = plan.window, plan.strides
    last_row, last_column = (len(plan.rows_inside) - 1) * down, (len(plan.columns_inside) - 1) * right
    for row in range(height):
        for column in range(width):
            yield padded[:, row : row + last_row + 1 : down, column : column + last_column + 1 : right]


@fast_max_pool.defjvp
def max_pool_jvp(plan: "WindowPlan", primals: tuple, tangents: tuple) -> tuple:
    """The largest value of a window changes as the pixel that holds it; all other pixels have no gradient."""
    largest, place = find_largest(primals[0], plan)
    if plan.window == plan.strides and plan.padding == ((0, 0),) * 4:
        return largest, select_from_blocks(tangents[0], place, plan)
    change = jnp.zeros_like(largest)
    for number, value_change in enumerate(slide_window(tangents[0], plan, fill=0)):
        change = change + jnp.where(place == number, value_change, 0)
    return largest, change


def select_from_blocks(
    x: jax.Array, place: jax.Array, plan: "WindowPlan"
) -> jax.Array:  # (B, H, W, C), (B, Y, X, C) -> (B, Y, X, C)
    """Takes the value at a place of each window, where windows lie side by side.

    Transposed it is one loop over the image; `slide_window` would need one for each place, and another to add them.
    """
    _, height, width, _ = plan.window
    batch, rows, columns, channels = place.shape
    whole_windows = x[:, : rows * height, : columns * width]
    blocks = whole_windows.reshape(batch, rows, height, columns, width, channels)
    places = jnp.arange(height * width).reshape(height, 1, width, 1)
    is_chosen = places == place[:, :, None, :, None]
    return jnp.where(is_chosen, blocks, 0).sum((2, 4))


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


@layer
def blur_pool(
    x: jax.Array, size: IntOrPair, *, stride: IntOrPair, padding: Padding, padding_kind: str
) -> jax.Array:  # (B, H, W, C) -> (B, Y, X, C)
    """Takes the weighted mean of each window with binomial weights, summed in float32: 1 2 1 over 4 for 3 pixels.

    Frequencies that the smaller image cannot hold are damped before pixels are left out, as a low-pass filter does it
    before a signal is sampled. They would come back as false low ones (aliasing), which change with every shift.

    Paper: Zhang, Making Convolutional Networks Shift-Invariant Again, ICML 2019, arXiv:1904.11486. Its Triangle-3 and
    Binomial-5 are size 3 and 5 here, and its padding kind is reflect.

    Args:
        x: images, floating point.
        size: side of the window in pixels, or (height, width).
        stride: pixels from one window to the next, one number or (down, right).
        padding: pixels around the image, one number or ((top, bottom), (left, right)); each smaller than the window.
        padding_kind: what stands there, of `padding.MODES`. Of zeros the mean takes no notice: it is that of the pixels
            in the image, for zeros would darken the border.

    Raises:
        UserError: if there is no such kind, if a window is larger than the padded image, could see nothing but padding,
            or if the image has too few pixels to fill the padding with.
    """
    plan = plan_windows(x.shape[1:3], size, stride, padding)
    if check_padding_kind(padding_kind) != ZERO:
        x = surround(x, normalize_padding(padding), padding_kind)
        plan = plan_windows(x.shape[1:3], size, stride, 0)
    _, height, width, _ = plan.window
    row_weights, column_weights = binomial_weights(height), binomial_weights(width)
    y = jnp.zeros((), jnp.float32)
    weights = np.multiply.outer(row_weights, column_weights).ravel()
    for weight, value in zip(weights, slide_window(x.astype(jnp.float32), plan, fill=0), strict=True):
        y = y + weight * value
    # The weights of each window that lie in the image: all of them, whose sum is 1, but for windows in the padding.
    of_rows = sum_weights_inside(x.shape[1], row_weights, plan.strides[1], plan.padding[1])
    of_columns = sum_weights_inside(x.shape[2], column_weights, plan.strides[2], plan.padding[2])
    return (y / np.multiply.outer(of_rows, of_columns)[..., None]).astype(x.dtype)


def binomial_weights(taps: int) -> np.ndarray:
    """Returns a row of Pascal's triangle, scaled to a sum of 1: that many taps of a low-pass filter, float32."""
    row = np.array([math.comb(taps - 1, place) for place in range(taps)], np.float32)
    return row / np.float32(2 ** (taps - 1))


def sum_weights_inside(pixels: int, weights: np.ndarray, stride: int, padding: tuple[int, int]) -> np.ndarray:
    """Returns the sum of the weights that lie on a pixel, of each window along a side, float32."""
    windows = output_size(pixels, len(weights), stride=stride, padding=padding)
    places = np.add.outer(np.arange(windows) * stride - padding[0], np.arange(len(weights)))
    is_inside = (places >= 0) & (places < pixels)
    return is_inside.astype(np.float32) @ weights


@layer
def adaptive_average_pool(x: jax.Array, size: IntOrPair) -> jax.Array:  # (B, H, W, C) -> (B, Y, X, C)
    """Takes means over as many windows as there shall be pixels, of sides that differ by one at most, in float32.

    Output row i of Y is the mean of the input rows from floor(i H / Y) up to ceil((i + 1) H / Y), columns alike, as in
    PyTorch's adaptive_avg_pool2d. Neighboring windows share a row where Y does not divide H; Y may be larger than H.

    Args:
        x: images, floating point.
        size: sides of the output in pixels, one number or (height, width).
    """
    height, width = height_and_width(size, "size")
    if x.shape[1:3] == (height, width):
        return x
    # Multiplied and added up, which XLA makes one loop of: no matrix products, for these are MACs, and a mean is none.
    of_rows = window_shares(x.shape[1], height)[:, :, None, None]
    of_columns = window_shares(x.shape[2], width)[:, :, None]
    y = (x.astype(jnp.float32)[:, None] * of_rows).sum(2)
    return (y[:, :, None] * of_columns).sum(3).astype(x.dtype)


def window_shares(pixels: int, windows: int) -> np.ndarray:
    """Returns the share (windows, pixels) that each pixel of a side has in the mean of each window."""
    shares = np.zeros((windows, pixels), np.float32)
    for i in range(windows):
        start, stop = i * pixels // windows, -(-(i + 1) * pixels // windows)  # rounded down, and up
        shares[i, start:stop] = 1 / (stop - start)
    return shares


@dataclass(frozen=True, eq=False)  # as an argument of a traced function it is compared by identity: arrays have no hash
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
