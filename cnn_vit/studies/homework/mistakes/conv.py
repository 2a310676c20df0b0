"""Mistakes in convolutions.

What each of them gives is computed as a learner would get there: often the right function with another argument, such
as a kernel that is flipped once too often.
"""

from types import SimpleNamespace

import numpy as np

from cnn_vit.analysis import backprop
from cnn_vit.analysis.backprop import NO_PADDING, blocks, crop, pad, pixels_at
from cnn_vit.studies.homework.mistakes.dense import MEAN_OVER_BATCH, NOT_SUMMED
from cnn_vit.studies.homework.mistakes.record import Mistake, right


def exchanged_sides(padding: backprop.Padding) -> backprop.Padding:
    """Padding with bottom for top and right for left."""
    (top, bottom), (left, right_) = padding
    return (bottom, top), (right_, left)


def first_on_both_sides(padding: backprop.Padding) -> backprop.Padding:
    """Padding with top also for bottom, and left also for right."""
    (top, _), (left, _) = padding
    return (top, top), (left, left)


def exchanged_axes(padding: backprop.Padding) -> backprop.Padding:
    """Padding with the pixels of the columns for the rows."""
    return padding[1], padding[0]


def exchange_channels(w: np.ndarray, groups: int) -> np.ndarray:  # (U, V, I, O) -> (U, V, I, O)
    """A kernel whose channels and filters are exchanged in each group; ValueError where they are not as many."""
    if w.shape[2] != w.shape[3] // groups:
        raise ValueError("as many filters as channels are needed")
    return np.concatenate([w[..., outputs].swapaxes(2, 3) for _, outputs in blocks(w, groups)], axis=-1)


def transpose_kernel(w: np.ndarray) -> np.ndarray:  # (U, V, I, O) -> (V, U, I, O)
    """A kernel with its height and width exchanged."""
    return w.swapaxes(0, 1)


# Forward --------------------------------------------------------------------------------------------------------------


def interleave_groups(inputs: SimpleNamespace) -> np.ndarray:
    """The output where filter o belongs to group o modulo the number of groups, and channels likewise."""
    if inputs.groups == 1:
        return right("conv_forward", inputs)
    parts = []
    for group in range(inputs.groups):
        one_group = SimpleNamespace(
            **{
                **vars(inputs),
                "x": inputs.x[..., group :: inputs.groups],
                "w": inputs.w[..., group :: inputs.groups],
                "b": inputs.b[group :: inputs.groups],
                "groups": 1,
            }
        )
        parts.append(right("conv_forward", one_group))
    y = np.empty((*parts[0].shape[:3], inputs.w.shape[3]))
    for group, part in enumerate(parts):
        y[..., group :: inputs.groups] = part
    return y


def deal_out_filters(inputs: SimpleNamespace) -> np.ndarray:
    """The output where filter o belongs to group o modulo the number of groups, but the channels are in blocks."""
    if inputs.groups == 1:
        return right("conv_forward", inputs)
    filters = np.arange(inputs.w.shape[3])
    order = np.argsort(filters % inputs.groups, kind="stable")  # the filters of the first group, then of the next ...
    y_in_blocks = right("conv_forward", inputs, w=inputs.w[..., order], b=inputs.b[order])
    y = np.empty_like(y_in_blocks)
    y[..., order] = y_in_blocks
    return y


def last_place_alone(inputs: SimpleNamespace) -> np.ndarray:
    """The output where each place of the kernel takes the sum's place instead of being added to it."""
    w = np.zeros(inputs.w.shape)
    w[-1, -1] = inputs.w[-1, -1]
    return right("conv_forward", inputs, w=w)


def first_channels_for_all(inputs: SimpleNamespace) -> np.ndarray:
    """The output where the filters of every group see the channels of the first one."""
    channels = inputs.w.shape[2]
    return right("conv_forward", inputs, x=inputs.x[..., :channels], groups=1)


CONV_FORWARD = (
    Mistake(
        "kernel flipped",
        "y",
        "the kernel is flipped. That is convolution in mathematics; in networks w[0, 0] lies on the top left pixel of "
        "the window, so that nothing is flipped forward, and the flip comes in dL/dx",
        lambda i: right("conv_forward", i, w=i.w[::-1, ::-1]),
    ),
    Mistake(
        "padding forgotten",
        "y",
        "the padding is left out: put zeros around x first, (top, bottom) rows and (left, right) columns",
        lambda i: right("conv_forward", i, padding=NO_PADDING),
    ),
    Mistake(
        "padding on the wrong sides",
        "y",
        "top and bottom, or left and right, are exchanged: padding is ((top, bottom), (left, right))",
        lambda i: right("conv_forward", i, padding=exchanged_sides(i.padding)),
    ),
    Mistake(
        "one padding for both sides",
        "y",
        "the first number of each pair is taken for both sides: padding is ((top, bottom), (left, right)), and the two "
        "may differ",
        lambda i: right("conv_forward", i, padding=first_on_both_sides(i.padding)),
    ),
    Mistake(
        "padding of the wrong axes",
        "y",
        "rows get the padding of the columns: padding[0] is (top, bottom), along axis 1 of x",
        lambda i: right("conv_forward", i, padding=exchanged_axes(i.padding)),
    ),
    Mistake(
        "stride forgotten",
        "y",
        "the windows move by one pixel: window (i, j) begins at row i * stride and column j * stride",
        lambda i: right("conv_forward", i, stride=1),
    ),
    Mistake(
        "dilation forgotten",
        "y",
        "the places of the kernel lie on neighboring pixels: place u lies u * dilation rows below the first",
        lambda i: right("conv_forward", i, dilation=1),
    ),
    Mistake(
        "kernel transposed",
        "y",
        "rows and columns of the kernel are exchanged: w[u, v] lies u rows below and v columns to the right",
        lambda i: right("conv_forward", i, w=transpose_kernel(i.w)),
    ),
    Mistake(
        "channels and filters exchanged",
        "y",
        "the last two axes of w are exchanged: w[u, v, c, o] leads from channel c to filter o",
        lambda i: right("conv_forward", i, w=exchange_channels(i.w, i.groups)),
    ),
    Mistake("bias forgotten", "y", "b is not added", lambda i: right("conv_forward", i, b=np.zeros_like(i.b))),
    Mistake(
        "groups interleaved",
        "y",
        "channels are dealt out to the groups one by one; a group is a block of neighbors, the first of 2 groups the "
        "first half of the channels and of the filters",
        interleave_groups,
    ),
    Mistake(
        "groups interleaved",
        "y",
        "filters are dealt out to the groups one by one; a group is a block of neighbors, the first of 2 groups the "
        "first half of the channels and of the filters",
        deal_out_filters,
    ),
    Mistake(
        "first group's channels for all",
        "y",
        "the filters of every group see the channels of the first one; group number m sees the channels from "
        "m * C / groups on",
        first_channels_for_all,
    ),
    Mistake(
        "not added up",
        "y",
        "only the last place of the kernel counts: add the products of all places, += in the loop",
        last_place_alone,
    ),
)


# dL/dx ----------------------------------------------------------------------------------------------------------------


def input_gradient(inputs: SimpleNamespace, **changes: object) -> np.ndarray:
    """dL/dx by convolution of g, with some arguments changed."""
    arguments = {"g": inputs.g, "w": inputs.w, "image_size": inputs.x.shape[1:3]}
    arguments |= {name: getattr(inputs, name) for name in ("stride", "padding", "dilation", "groups")}
    return backprop.conv_input_gradient(**{**arguments, **changes})  # type: ignore[arg-type]


def padded_gradient(inputs: SimpleNamespace) -> np.ndarray:
    """dL/dx with the gradient of the padding around it."""
    padded_size = pad(inputs.x, inputs.padding).shape[1:3]
    return input_gradient(inputs, image_size=padded_size, padding=NO_PADDING)


def without_zeros(inputs: SimpleNamespace) -> np.ndarray:
    """dL/dx by a convolution of g without zeros between its numbers; it is smaller than x where the stride is not 1."""
    reach = [inputs.dilation * (taps - 1) for taps in inputs.w.shape[:2]]
    size = inputs.g.shape[1] + reach[0], inputs.g.shape[2] + reach[1]
    dpadded = input_gradient(inputs, image_size=size, stride=1, padding=NO_PADDING)
    return crop(dpadded, inputs.padding)


def windows_side_by_side(inputs: SimpleNamespace) -> np.ndarray:
    """dL/dx where window (i, j) is taken to begin at pixel (i, j), whatever the stride."""
    padded_size = pad(inputs.x, inputs.padding).shape[1:3]
    return crop(input_gradient(inputs, image_size=padded_size, stride=1, padding=NO_PADDING), inputs.padding)


def without_unread(inputs: SimpleNamespace) -> np.ndarray:
    """dL/dx without the last rows and columns where no window reads them."""
    size = []
    for axis in (0, 1):
        reach = inputs.dilation * (inputs.w.shape[axis] - 1)
        size.append((inputs.g.shape[1 + axis] - 1) * inputs.stride + 1 + reach)
    dpadded = input_gradient(inputs, image_size=tuple(size), padding=NO_PADDING)
    return crop(dpadded, inputs.padding)


def last_place_wins(inputs: SimpleNamespace) -> np.ndarray:
    """dL/dx where, in a loop over the places of the kernel, what comes later takes the place of what came before."""
    height, width = inputs.g.shape[1:3]
    dpadded = np.zeros(pad(inputs.x, inputs.padding).shape)
    for u in range(inputs.w.shape[0]):
        for v in range(inputs.w.shape[1]):
            rows = pixels_at(u, height, inputs.stride, inputs.dilation)
            columns = pixels_at(v, width, inputs.stride, inputs.dilation)
            for channels, outputs in blocks(inputs.w, inputs.groups):
                dpadded[:, rows, columns, channels] = inputs.g[..., outputs] @ inputs.w[u, v, :, outputs].T
    return crop(dpadded, inputs.padding)


def last_window_wins(inputs: SimpleNamespace) -> np.ndarray:
    """dL/dx where, in a loop over the windows, what comes later takes the place of what came before."""
    height, width = inputs.g.shape[1:3]
    dpadded = np.zeros(pad(inputs.x, inputs.padding).shape)
    for i in range(height):
        for j in range(width):
            for u in range(inputs.w.shape[0]):
                for v in range(inputs.w.shape[1]):
                    row, column = i * inputs.stride + u * inputs.dilation, j * inputs.stride + v * inputs.dilation
                    for channels, outputs in blocks(inputs.w, inputs.groups):
                        gradient = inputs.g[:, i, j, outputs] @ inputs.w[u, v, :, outputs].T
                        dpadded[:, row, column, channels] = gradient
    return crop(dpadded, inputs.padding)


def last_filter_wins(inputs: SimpleNamespace) -> np.ndarray:
    """dL/dx where the last filter of a group, and the last window, take the place of the others."""
    w, g = np.zeros(inputs.w.shape), np.zeros(inputs.g.shape)
    for _, outputs in blocks(inputs.w, inputs.groups):
        last = outputs.stop - 1
        w[..., last], g[..., last] = inputs.w[..., last], inputs.g[..., last]
    return last_window_wins(SimpleNamespace(**{**vars(inputs), "w": w, "g": g}))


OVERLAP = (
    "where windows overlap, the last one takes the place of the others. A pixel that several windows read has a part "
    "in each of their outputs: add up, +="
)
ZEROS = (
    "no zeros stand between the numbers of g, as if the stride were 1. Window i begins at pixel i * stride, and there "
    "its gradient has to arrive: put stride - 1 zeros between neighbors, or add at rows i * stride + u * dilation"
)
INPUT_GRADIENT = (
    Mistake(
        "kernel not flipped",
        "dL/dx",
        "the kernel is not flipped. Forward, place (u, v) of a window reads the pixel u rows below its corner; "
        "backward the gradient of that pixel comes from the window whose corner is u rows above. As a convolution of "
        "g, slide w[::-1, ::-1] over it",
        lambda i: input_gradient(i, w=i.w[::-1, ::-1]),
    ),
    Mistake(
        "kernel flipped along one axis",
        "dL/dx",
        "the kernel is flipped along one of its axes alone; flip rows and columns, w[::-1, ::-1]",
        lambda i: input_gradient(i, w=i.w[::-1]),
    ),
    Mistake(
        "kernel flipped along one axis",
        "dL/dx",
        "the kernel is flipped along one of its axes alone; flip rows and columns, w[::-1, ::-1]",
        lambda i: input_gradient(i, w=i.w[:, ::-1]),
    ),
    Mistake(
        "kernel transposed",
        "dL/dx",
        "rows and columns of the kernel are exchanged; dL/dx needs a flip of both axes, not their exchange",
        lambda i: input_gradient(i, w=transpose_kernel(i.w)),
    ),
    Mistake(
        "kernel transposed",
        "dL/dx",
        "rows and columns of the kernel are exchanged; dL/dx needs a flip of both axes, w[::-1, ::-1], not their "
        "exchange",
        lambda i: input_gradient(i, w=transpose_kernel(i.w)[::-1, ::-1]),
    ),
    Mistake(
        "channels and filters not exchanged",
        "dL/dx",
        "w leads from channels to filters as it does forward. Backward the gradient goes from filter o to channel c: "
        "exchange the last two axes of w, or multiply by w[u, v].T",
        lambda i: input_gradient(i, w=exchange_channels(i.w, i.groups)),
    ),
    Mistake(
        "neither flipped nor exchanged",
        "dL/dx",
        "w is used as it is forward. Backward it is flipped in height and width, and its channels and filters are "
        "exchanged",
        lambda i: input_gradient(i, w=exchange_channels(i.w, i.groups)[::-1, ::-1]),
    ),
    Mistake("stride forgotten", "dL/dx", ZEROS, without_zeros),
    Mistake("stride forgotten", "dL/dx", ZEROS, windows_side_by_side),
    Mistake(
        "padding not taken away",
        "dL/dx",
        "the gradient of the padded image is returned. The padding belongs to nobody: return the part where x lies",
        padded_gradient,
    ),
    Mistake(
        "padding taken from the wrong sides",
        "dL/dx",
        "as many pixels are cropped at the bottom as were added at the top, and the other way round",
        lambda i: crop(padded_gradient(i), exchanged_sides(i.padding)),
    ),
    Mistake(
        "one padding for both sides",
        "dL/dx",
        "the first number of each pair of the padding is cropped on both sides: it is ((top, bottom), (left, right))",
        lambda i: crop(padded_gradient(i), first_on_both_sides(i.padding)),
    ),
    Mistake(
        "padding forgotten",
        "dL/dx",
        "the gradient is laid on x as if there were no padding. Window (0, 0) begins in the padding, top rows above "
        "and left columns beside the first pixel: build the gradient of the padded image, then crop it",
        lambda i: padded_gradient(i)[:, : i.x.shape[1], : i.x.shape[2]],
    ),
    Mistake(
        "unread pixels forgotten",
        "dL/dx",
        "the last rows or columns are missing. No window reads them, so that their gradient is 0, but they are pixels "
        "of x: take the size from x",
        without_unread,
    ),
    Mistake(
        "dilation forgotten",
        "dL/dx",
        "the places of the kernel are taken to lie on neighboring pixels: place u belongs to row i * stride + u * "
        "dilation",
        lambda i: input_gradient(i, dilation=1),
    ),
    Mistake("not added up", "dL/dx", OVERLAP, last_place_wins),
    Mistake("not added up", "dL/dx", OVERLAP, last_window_wins),
    Mistake("not added up", "dL/dx", f"{OVERLAP}, over the filters too", last_filter_wins),
    Mistake(
        "mean over the batch",
        "dL/dx",
        "dL/dx is divided by the number of images. Each image has its own x, and nothing is averaged here",
        lambda i: right("conv_backward", i) / len(i.x),
    ),
)


# dL/dw and dL/db ------------------------------------------------------------------------------------------------------


def kernel_gradient(inputs: SimpleNamespace, *, stride: int | None = None, dilation: int | None = None) -> np.ndarray:
    """dL/dw where the pixels are read at another stride or dilation; ValueError where they do not fit g."""
    stride = inputs.stride if stride is None else stride
    dilation = inputs.dilation if dilation is None else dilation
    height, width = inputs.g.shape[1:3]
    padded = pad(inputs.x, inputs.padding)
    dw = np.zeros(inputs.w.shape)
    for u in range(inputs.w.shape[0]):
        for v in range(inputs.w.shape[1]):
            rows, columns = pixels_at(u, height, stride, dilation), pixels_at(v, width, stride, dilation)
            for channels, outputs in blocks(inputs.w, inputs.groups):
                pixels = padded[:, rows, columns, channels]
                dw[u, v, :, outputs] = np.einsum("nijc,nijo->co", pixels, inputs.g[..., outputs])
    return dw


def of_part(inputs: SimpleNamespace, output: int, images: slice, rows: slice, columns: slice) -> np.ndarray:
    """An output of the backward function where only some images and windows have a gradient."""
    g = np.zeros(inputs.g.shape)
    g[images, rows, columns] = inputs.g[images, rows, columns]
    return right("conv_backward", inputs, output, g=g)


def window_count(inputs: SimpleNamespace) -> int:
    """How many windows an image has."""
    return inputs.g.shape[1] * inputs.g.shape[2]


ALL, FIRST, LAST = slice(None), slice(0, 1), slice(-1, None)
MEAN_OVER_WINDOWS = (
    "the gradients of the windows are averaged. All windows use the same parameter, that is what sharing weights "
    "means: sum over them"
)
LAST_ALONE = "only the last {} counts: add up over all of them, += in the loop"
KERNEL_GRADIENT = (
    Mistake(
        "flipped",
        "dL/dw",
        "dL/dw is flipped in height and width. Place (u, v) of the kernel always met the pixels (i s + u d, j s + v "
        "d), so that nothing is flipped here; the flip belongs to dL/dx",
        lambda i: right("conv_backward", i, 1)[::-1, ::-1],
    ),
    Mistake(
        "stride forgotten",
        "dL/dw",
        "neighboring pixels of the padded x meet neighboring numbers of g. Window i read the pixels from i * stride "
        "on: take every stride-th row and column from u * dilation on",
        lambda i: kernel_gradient(i, stride=1),
    ),
    Mistake(
        "dilation forgotten",
        "dL/dw",
        "place u of the kernel is taken to read pixels u rows below the corner; with dilation it is u * dilation",
        lambda i: kernel_gradient(i, dilation=1),
    ),
    Mistake(
        "padding on the wrong sides",
        "dL/dw",
        "the padding of x has top and bottom, or left and right, exchanged: it is ((top, bottom), (left, right))",
        lambda i: right("conv_backward", i, 1, padding=exchanged_sides(i.padding)),
    ),
    Mistake(
        "mean over the batch", "dL/dw", MEAN_OVER_BATCH, lambda i: right("conv_backward", i, 1) / len(i.x)
    ),
    Mistake(
        "mean over the windows",
        "dL/dw",
        MEAN_OVER_WINDOWS,
        lambda i: right("conv_backward", i, 1) / window_count(i),
    ),
    Mistake(
        "mean over images and windows",
        "dL/dw",
        f"{MEAN_OVER_WINDOWS}, and over the images",
        lambda i: right("conv_backward", i, 1) / window_count(i) / len(i.x),
    ),
    Mistake(
        "last image alone", "dL/dw", LAST_ALONE.format("image"), lambda i: of_part(i, 1, LAST, ALL, ALL)
    ),
    Mistake(
        "first image alone",
        "dL/dw",
        "only the first image counts: add up over the batch",
        lambda i: of_part(i, 1, FIRST, ALL, ALL),
    ),
    Mistake(
        "last window alone", "dL/dw", LAST_ALONE.format("window"), lambda i: of_part(i, 1, ALL, LAST, LAST)
    ),
    Mistake(
        "last window alone", "dL/dw", LAST_ALONE.format("window"), lambda i: of_part(i, 1, LAST, LAST, LAST)
    ),
    Mistake(
        "channels and filters exchanged",
        "dL/dw",
        "the last two axes are exchanged: dL/dw has the shape of w, with the channel third and the filter last",
        lambda i: np.concatenate(
            [right("conv_backward", i, 1)[..., outputs].swapaxes(2, 3) for _, outputs in blocks(i.w, i.groups)], -1
        ),
    ),
    Mistake(
        "transposed",
        "dL/dw",
        "rows and columns of dL/dw are exchanged",
        lambda i: transpose_kernel(right("conv_backward", i, 1)),
    ),
    Mistake(
        "mean over the batch", "dL/db", MEAN_OVER_BATCH, lambda i: right("conv_backward", i, 2) / len(i.x)
    ),
    Mistake(
        "mean over the windows",
        "dL/db",
        MEAN_OVER_WINDOWS,
        lambda i: right("conv_backward", i, 2) / window_count(i),
    ),
    Mistake(
        "mean over images and windows",
        "dL/db",
        f"{MEAN_OVER_WINDOWS}, and over the images",
        lambda i: right("conv_backward", i, 2) / window_count(i) / len(i.x),
    ),
    Mistake("not summed over the batch", "dL/db", NOT_SUMMED, lambda i: i.g.sum((1, 2))),
    Mistake(
        "not summed over the windows",
        "dL/db",
        "there is a gradient for each window. A filter adds the same b[o] everywhere, so that its gradient is the sum "
        "over images, rows and columns",
        lambda i: i.g.sum(0),
    ),
    Mistake("nothing summed", "dL/db", "g is returned as it came; sum it over images, rows and columns", lambda i: i.g),
    Mistake(
        "last image alone", "dL/db", LAST_ALONE.format("image"), lambda i: of_part(i, 2, LAST, ALL, ALL)
    ),
    Mistake(
        "first image alone", "dL/db", "only the first image counts: add up over the batch",
        lambda i: of_part(i, 2, FIRST, ALL, ALL),
    ),
    Mistake(
        "last window alone", "dL/db", LAST_ALONE.format("window"), lambda i: of_part(i, 2, ALL, LAST, LAST)
    ),
)  # fmt: skip

CONV_BACKWARD = INPUT_GRADIENT + KERNEL_GRADIENT
