"""Mistakes in pooling."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np

from cnn_vit.analysis import backprop
from cnn_vit.analysis.backprop import NO_PADDING, crop, pad, pixel_counts, pixels_at
from cnn_vit.studies.homework.mistakes.conv import exchanged_sides, first_on_both_sides
from cnn_vit.studies.homework.mistakes.record import Mistake, right


def padded_with_zeros(inputs: SimpleNamespace) -> np.ndarray:
    """The output of max pooling where zeros stand around x, and may be the largest."""
    return backprop.max_pool_forward(pad(inputs.x, inputs.padding), inputs.size, inputs.stride)


PADDING_IS_ZERO = (
    "the padding is 0, which is larger than a negative pixel. Max pooling's padding is minus infinity, so that it is "
    "never the largest"
)
STRIDE_IS_SIZE = "the windows stand side by side: window i begins at row i * stride, whatever its size is"
PADDING_FORGOTTEN = "the padding is left out: surround x first, (top, bottom) rows and (left, right) columns"
WRONG_SIDES = "top and bottom, or left and right, are exchanged: padding is ((top, bottom), (left, right))"
ONE_PADDING = "the first number of each pair is taken for both sides: padding is ((top, bottom), (left, right))"

MAX_POOL_FORWARD = (
    Mistake("padding of zeros", "y", PADDING_IS_ZERO, padded_with_zeros),
    Mistake(
        "average",
        "y",
        "the mean of each window is returned; the largest number is wanted",
        lambda i: backprop.average_pool_forward(i.x, i.size, i.stride, i.padding),
    ),
    Mistake(
        "smallest",
        "y",
        "the smallest number of each window is returned; the largest is wanted",
        lambda i: -backprop.max_pool_forward(-i.x, i.size, i.stride, i.padding),
    ),
    Mistake("stride forgotten", "y", STRIDE_IS_SIZE, lambda i: right("max_pool_forward", i, stride=i.size)),
    Mistake(
        "stride forgotten",
        "y",
        "the windows move by one pixel: window i begins at row i * stride",
        lambda i: right("max_pool_forward", i, stride=1),
    ),
    Mistake(
        "padding forgotten", "y", PADDING_FORGOTTEN, lambda i: right("max_pool_forward", i, padding=NO_PADDING)
    ),
    Mistake(
        "padding on the wrong sides",
        "y",
        WRONG_SIDES,
        lambda i: right("max_pool_forward", i, padding=exchanged_sides(i.padding)),
    ),
    Mistake(
        "one padding for both sides",
        "y",
        ONE_PADDING,
        lambda i: right("max_pool_forward", i, padding=first_on_both_sides(i.padding)),
    ),
)  # fmt: skip


# Max pooling backward -------------------------------------------------------------------------------------------------


def send_back(
    inputs: SimpleNamespace,
    share: Callable[[np.ndarray], np.ndarray],
    *,
    adds: bool = True,
    keeps: bool = True,
    fill: float = -np.inf,
) -> np.ndarray:
    """dL/dp, the gradient of the padded image, where each window gives its gradient to its pixels by some shares.

    Args:
        inputs: the arguments of max pooling's backward function.
        share: from the pixels of all windows (size * size, B, Y, X, C) to the shares of the gradient, as many.
        adds: whether the gradients of windows that overlap are added; else the last window's counts.
        keeps: whether, where nothing is added, a window leaves the pixels alone that get nothing of it.
        fill: the value of the padding.
    """
    height, width = inputs.g.shape[1:3]
    padded = pad(inputs.x, inputs.padding, fill)
    pixels = []
    for u in range(inputs.size):
        for v in range(inputs.size):
            rows, columns = pixels_at(u, height, inputs.stride), pixels_at(v, width, inputs.stride)
            pixels.append(padded[:, rows, columns])
    shares = share(np.stack(pixels)).reshape(inputs.size, inputs.size, *inputs.g.shape)
    dpadded = np.zeros(padded.shape)
    for i in range(height):
        for j in range(width):
            rows = slice(i * inputs.stride, i * inputs.stride + inputs.size)
            columns = slice(j * inputs.stride, j * inputs.stride + inputs.size)
            window = np.moveaxis(shares[:, :, :, i, j] * inputs.g[:, i, j], 2, 0)  # (B, size, size, C)
            before = dpadded[:, rows, columns]
            if adds:
                dpadded[:, rows, columns] = before + window
            elif keeps:  # as `dx[row, column] = g` does it, where the largest pixel of the window is
                dpadded[:, rows, columns] = np.where(window == 0, before, window)
            else:
                dpadded[:, rows, columns] = window
    return dpadded


def first_largest(pixels: np.ndarray) -> np.ndarray:  # (P, ...) -> (P, ...)
    """All to the first of equal largest pixels, as is right."""
    return (np.arange(len(pixels)).reshape(-1, 1, 1, 1, 1) == pixels.argmax(0)).astype(float)


def last_largest(pixels: np.ndarray) -> np.ndarray:  # (P, ...) -> (P, ...)
    """All to the last of equal largest pixels."""
    return first_largest(pixels[::-1])[::-1]


def all_largest(pixels: np.ndarray) -> np.ndarray:  # (P, ...) -> (P, ...)
    """All to each of the equal largest pixels."""
    return (pixels == pixels.max(0)).astype(float)


def even_largest(pixels: np.ndarray) -> np.ndarray:  # (P, ...) -> (P, ...)
    """The same part to each of the equal largest pixels."""
    return all_largest(pixels) / all_largest(pixels).sum(0)


def column_first_largest(pixels: np.ndarray) -> np.ndarray:  # (P, ...) -> (P, ...)
    """All to the first of equal largest pixels, counted column by column."""
    side = round(len(pixels) ** 0.5)
    order = np.arange(len(pixels)).reshape(side, side).T.ravel()
    shares = np.zeros(pixels.shape)
    shares[order] = first_largest(pixels[order])
    return shares


def even(pixels: np.ndarray) -> np.ndarray:  # (P, ...) -> (P, ...)
    """The same part to each pixel."""
    return np.full(pixels.shape, 1 / len(pixels))


def by_value(pixels: np.ndarray) -> np.ndarray:  # (P, ...) -> (P, ...)
    """The gradient times the value, to the largest pixel."""
    return first_largest(pixels) * np.where(np.isfinite(pixels), pixels, 0)


def cropped(inputs: SimpleNamespace, share: Callable[[np.ndarray], np.ndarray], **options: object) -> np.ndarray:
    """dL/dx by some shares."""
    return crop(send_back(inputs, share, **options), inputs.padding)  # type: ignore[arg-type]


def without_padding(inputs: SimpleNamespace) -> np.ndarray:
    """dL/dx where the windows are laid on x itself, cut off at its end; ValueError where one lies outside of it."""
    dx = np.zeros(inputs.x.shape)
    for n, i, j, c in np.ndindex(*inputs.g.shape):
        top, left = i * inputs.stride, j * inputs.stride
        window = inputs.x[n, top : top + inputs.size, left : left + inputs.size, c]
        u, v = np.unravel_index(window.argmax(), window.shape)
        dx[n, top + u, left + v, c] += inputs.g[n, i, j, c]
    return dx


OVERLAP = (
    "where windows overlap, the last one takes the place of the others. A pixel that is the largest of several windows "
    "gets the sum of their gradients: +="
)
MAX_POOL_BACKWARD = (
    Mistake(
        "all equal pixels",
        "dL/dx",
        "each of several equal largest pixels gets the whole gradient, which then counts several times. One of them "
        "gets it, the first row by row: that is what XLA and PyTorch do",
        lambda i: cropped(i, all_largest),
    ),
    Mistake(
        "shared among equal pixels",
        "dL/dx",
        "the gradient is shared evenly among equal largest pixels, as of jnp.max. It goes to the first of them, row by "
        "row: that is what XLA's pooling and PyTorch do",
        lambda i: cropped(i, even_largest),
    ),
    Mistake(
        "last of equal pixels",
        "dL/dx",
        "of several equal largest pixels the last gets the gradient; it is the first, row by row. In a loop, compare "
        "by >, not >=",
        lambda i: cropped(i, last_largest),
    ),
    Mistake(
        "first of equal pixels by columns",
        "dL/dx",
        "of several equal largest pixels the first in the order of the columns gets the gradient; the order is row by "
        "row",
        lambda i: cropped(i, column_first_largest),
    ),
    Mistake("not added up", "dL/dx", OVERLAP, lambda i: cropped(i, first_largest, adds=False)),
    Mistake("not added up", "dL/dx", OVERLAP, lambda i: cropped(i, first_largest, adds=False, keeps=False)),
    Mistake(
        "spread over the window",
        "dL/dx",
        "each pixel of a window gets an equal part, as in average pooling. Only the largest pixel has a part in y",
        lambda i: cropped(i, even),
    ),
    Mistake(
        "multiplied by the value",
        "dL/dx",
        "g is multiplied by the largest number. y is that pixel, so that the derivative is 1",
        lambda i: cropped(i, by_value),
    ),
    Mistake(
        "padding of zeros", "dL/dx", f"{PADDING_IS_ZERO}; here it takes the gradient with it",
        lambda i: cropped(i, first_largest, fill=0.0),
    ),
    Mistake(
        "padding forgotten",
        "dL/dx",
        "the windows are laid on x as if there were no padding. Window (0, 0) begins in the padding: surround x first, "
        "and crop the gradient at the end",
        without_padding,
    ),
    Mistake(
        "padding not taken away",
        "dL/dx",
        "the gradient of the padded image is returned; return the part where x lies",
        lambda i: send_back(i, first_largest),
    ),
    Mistake(
        "padding taken from the wrong sides",
        "dL/dx",
        "as many pixels are cropped at the bottom as were added at the top, and the other way round",
        lambda i: crop(send_back(i, first_largest), exchanged_sides(i.padding)),
    ),
)  # fmt: skip


# Average pooling ------------------------------------------------------------------------------------------------------


def pool_sums(inputs: SimpleNamespace) -> np.ndarray:
    """The sums of the windows."""
    return right("average_pool_forward", inputs, counts_padding=True) * inputs.size**2


AVERAGE_POOL_FORWARD = (
    Mistake("sum", "y", "the sum of each window is returned; divide it by the number of pixels", pool_sums),
    Mistake(
        "divided by the side",
        "y",
        "the sum is divided by size; a window has size * size pixels",
        lambda i: pool_sums(i) / i.size,
    ),
    Mistake(
        "padding always counted",
        "y",
        "the padding counts as pixels although counts_padding is False: divide by how many pixels of the image each "
        "window has",
        lambda i: right("average_pool_forward", i, counts_padding=True),
    ),
    Mistake(
        "padding never counted",
        "y",
        "the padding does not count as pixels although counts_padding is True: divide by size * size",
        lambda i: right("average_pool_forward", i, counts_padding=False),
    ),
    Mistake("stride forgotten", "y", STRIDE_IS_SIZE, lambda i: right("average_pool_forward", i, stride=i.size)),
    Mistake(
        "padding forgotten", "y", PADDING_FORGOTTEN, lambda i: right("average_pool_forward", i, padding=NO_PADDING)
    ),
    Mistake(
        "padding on the wrong sides",
        "y",
        WRONG_SIDES,
        lambda i: right("average_pool_forward", i, padding=exchanged_sides(i.padding)),
    ),
)  # fmt: skip


def spread(inputs: SimpleNamespace, divisor: np.ndarray | float, *, adds: bool = True) -> np.ndarray:
    """dL/dp where each pixel of a window gets its gradient divided by something."""
    height, width = inputs.g.shape[1:3]
    share = inputs.g / divisor
    dpadded = np.zeros(pad(inputs.x, inputs.padding).shape)
    for i in range(height):
        for j in range(width):
            rows = slice(i * inputs.stride, i * inputs.stride + inputs.size)
            columns = slice(j * inputs.stride, j * inputs.stride + inputs.size)
            if adds:
                dpadded[:, rows, columns] += share[:, i : i + 1, j : j + 1]
            else:
                dpadded[:, rows, columns] = share[:, i : i + 1, j : j + 1]
    return dpadded


def right_divisor(inputs: SimpleNamespace) -> np.ndarray:
    """By how many pixels each window is divided."""
    size, stride, padding = inputs.size, inputs.stride, inputs.padding
    return pixel_counts(inputs.x.shape, inputs.g.shape[1:3], size, stride, padding, inputs.counts_padding)


AVERAGE_POOL_BACKWARD = (
    Mistake(
        "not divided",
        "dL/dx",
        "each pixel gets the whole gradient of its window. It has a part of 1 / (size * size) in the mean, and gets as "
        "much of the gradient",
        lambda i: crop(spread(i, 1.0), i.padding),
    ),
    Mistake(
        "divided by the side",
        "dL/dx",
        "the gradient is divided by size; a window has size * size pixels",
        lambda i: crop(spread(i, i.size), i.padding),
    ),
    Mistake(
        "padding always counted",
        "dL/dx",
        "the padding counts as pixels although counts_padding is False: divide by the number that the forward function "
        "divides this window by",
        lambda i: right("average_pool_backward", i, counts_padding=True),
    ),
    Mistake(
        "padding never counted",
        "dL/dx",
        "the padding does not count as pixels although counts_padding is True: divide by size * size",
        lambda i: right("average_pool_backward", i, counts_padding=False),
    ),
    Mistake(
        "not added up",
        "dL/dx",
        "where windows overlap, the last one takes the place of the others. A pixel has a part in the mean of each "
        "window that it lies in: +=",
        lambda i: crop(spread(i, right_divisor(i), adds=False), i.padding),
    ),
    Mistake(
        "largest pixel alone",
        "dL/dx",
        "the largest pixel gets the gradient, as in max pooling; here every pixel has an equal part",
        lambda i: cropped(i, first_largest),
    ),
    Mistake(
        "padding not taken away",
        "dL/dx",
        "the gradient of the padded image is returned; return the part where x lies",
        lambda i: spread(i, right_divisor(i)),
    ),
    Mistake(
        "padding taken from the wrong sides",
        "dL/dx",
        "as many pixels are cropped at the bottom as were added at the top, and the other way round",
        lambda i: crop(spread(i, right_divisor(i)), exchanged_sides(i.padding)),
    ),
)
