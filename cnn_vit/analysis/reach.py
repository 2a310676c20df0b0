"""Receptive fields as arithmetic: which pixels along one side of the image each element of an array sees.

The words of this file:

    element     one number of an array.
    to see      an element sees a pixel that can have any influence on it.
    range       the pixels from a first to a last one that an element sees (`PixelRange`).
    digit       a part of an index that moves a range, and the pixels by which it moves it (`Digit`).
    reach       the ranges of all elements of an array, written down once for all of them (`Reach`).
    window      the sliding window of a convolution or pooling (`SlidingWindow`), never a range of pixels.

A worked example, along the rows of an image of 32 rows. Both convolutions have 3 taps, stride 2 and a padding of 1:

    the image               32 rows     row y starts at pixel  0 + 1 * y and sees  1
    the first convolution   16 rows     row y starts at pixel -1 + 2 * y and sees  3
    the second              8 rows      row y starts at pixel -3 + 4 * y and sees  3 + (3 - 1) * 2 = 7
    the mean over its rows  no index    starts at pixel       -3         and sees  7 + (8 - 1) * 4 = 35

The mean's range is cut off at the borders of the image: it sees all 32 rows. This is the recurrence of Araujo, Norris,
Sim, Computing Receptive Fields of Convolutional Neural Networks, Distill 2019:
field' = field + (kernel - 1) * dilation * stride, stride' = stride * step.

The digits are ours; they carry the recurrence through reshapes. A vision transformer joins the rows and columns of its
patches into one axis of tokens. Of a grid with 14 patches in a row, token t is the patch in row t // 14 and column
t % 14, so that with patches of 16 pixels it sees rows from 16 * (t // 14) on and columns from 16 * (t % 14) on. t // 14
and t % 14 are the digits of t, and 16 is the stride of each. A class token before the others shifts every index by one;
that is a digit's offset. Reshaping splits and joins digits. A sum over an axis takes its digits away and makes the
range as large as all the ranges that it sums over.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True, order=True)
class Digit:
    """A part of an index that moves a range of pixels: ((index - offset) // index_step) % count, times `stride` pixels.

    Attributes:
        axis: the axis of the array whose index it is read from.
        count: how many values the digit takes, from 0 to count - 1.
        stride: the pixels by which the range moves when the digit grows by one.
        index_step: how many neighboring indices share one value of the digit.
        offset: the index at which the digits begin; elements before it see nothing through this range.
    """

    axis: int
    count: int
    stride: int
    index_step: int = 1
    offset: int = 0

    def read(self, index: int) -> int | None:
        """Returns the digit of an index; None before the first that has one."""
        if index < self.offset:
            return None
        return (index - self.offset) // self.index_step % self.count


@dataclass(frozen=True)
class PixelRange:
    """The pixels that each element of an array sees along one side of the image.

    Attributes:
        start: the first pixel where all digits are 0; below 0 in the padding.
        size: how many pixels are seen, those in the padding included.
        low: no pixel before this one is seen.
        high: neither this pixel nor one after it is seen. `low` and `high` are the borders of the image, or of what is
            left of it where no window reaches its last pixels.
        digits: the digits that move the range.
    """

    start: int
    size: int
    low: int
    high: int
    digits: tuple[Digit, ...] = ()

    @property
    def extent(self) -> tuple[int, int]:
        """The first pixel that any element sees, and the one after the last."""
        return max(self.start, self.low), min(self.start + self.size + travel(self.digits), self.high)

    def digits_on(self, axis: int) -> list[Digit]:
        """Returns the digits that are read from an axis."""
        return [digit for digit in self.digits if digit.axis == axis]


Reach = tuple[PixelRange, ...] | None  # an element sees all its ranges together; () sees nothing, None is not known


@dataclass(frozen=True)
class SlidingWindow:
    """A window that slides along an axis of an array.

    A slice is a window of a single tap, and padding is one that begins before the array.

    Attributes:
        length: indices of the axis.
        output_size: positions of the window, which become the indices of the output.
        taps: indices that the window reads at each position.
        stride: indices between two positions.
        dilation: indices between two taps.
        before: indices of padding before the axis; below 0 where the first indices are left out.
    """

    length: int
    output_size: int
    taps: int = 1
    stride: int = 1
    dilation: int = 1
    before: int = 0


def image_reach(axis: int, pixels: int) -> Reach:
    """The reach of the image itself along an axis of so many pixels: each pixel sees itself."""
    return normalize_range(PixelRange(0, 1, 0, pixels, (Digit(axis, count=pixels, stride=1),)))


def travel(digits: Iterable[Digit]) -> int:
    """The pixels between the ranges of the first and of the last element."""
    return sum((digit.count - 1) * digit.stride for digit in digits)


def normalize_range(pixel_range: PixelRange) -> Reach:
    """Returns a range as a reach, with its digits in a fixed order; the reach is empty where nothing is seen."""
    # Two ranges that move alike are found by comparing their digits, so these need one order.
    pixel_range = replace(pixel_range, digits=tuple(sorted(pixel_range.digits)))
    first, end = pixel_range.extent
    return (pixel_range,) if first < end else ()


def join_reaches(reaches: Iterable[Reach]) -> Reach:
    """Returns the reach of elements that are computed from several arrays: they see what any of those see.

    Ranges that move alike become one. A range that moves only inside one that stands still adds nothing and goes.
    """
    by_digits: dict[tuple[Digit, ...], PixelRange] = {}
    for reach in reaches:
        if reach is None:
            return None
        for pixel_range in reach:
            previous = by_digits.get(pixel_range.digits, pixel_range)
            by_digits[pixel_range.digits] = cover_both(previous, pixel_range)
    still = by_digits.pop((), None)
    if still is None:
        return tuple(by_digits.values())
    low, high = still.extent
    joined = [still]
    for moving in by_digits.values():
        first, end = moving.extent
        if not low <= first <= end <= high:
            joined.append(moving)
    return tuple(joined)


def cover_both(first: PixelRange, second: PixelRange) -> PixelRange:
    """Returns the range from the first to the last pixel of two that move alike, the pixels between them included."""
    start = min(first.start, second.start)
    end = max(first.start + first.size, second.start + second.size)
    return PixelRange(start, end - start, min(first.low, second.low), max(first.high, second.high), first.digits)


def move_axes(reach: Reach, new_axes: Mapping[int, int]) -> Reach:
    """Returns the reach after the axes of an array have changed places.

    Args:
        reach: the reach before.
        new_axes: the new place of each axis. Axes that are not named had a single index and are gone.
    """
    if reach is None:
        return None
    moved = []
    for pixel_range in reach:
        digits = [replace(digit, axis=new_axes[digit.axis]) for digit in pixel_range.digits if digit.axis in new_axes]
        moved.append(normalize_range(replace(pixel_range, digits=tuple(digits))))
    return join_reaches(moved)


def sum_over_axes(reach: Reach, axes: Iterable[int]) -> Reach:
    """Returns the reach after a sum over some axes: an element sees what any element that it sums saw."""
    if reach is None:
        return None
    summed_axes = set(axes)
    summed = []
    for pixel_range in reach:
        gone = [digit for digit in pixel_range.digits if digit.axis in summed_axes]
        left = tuple(digit for digit in pixel_range.digits if digit.axis not in summed_axes)
        summed.append(normalize_range(replace(pixel_range, size=pixel_range.size + travel(gone), digits=left)))
    return join_reaches(summed)


def slide_window(reach: Reach, axis: int, window: SlidingWindow) -> Reach:
    """Returns the reach of the output of a window that slides along an axis; None where that is not known."""
    if reach is None:
        return None
    outputs: list[Reach] = []
    for pixel_range in reach:
        digits = pixel_range.digits_on(axis)
        if not digits:
            outputs.append((pixel_range,))  # every index along the axis sees the same
        elif is_whole_index(digits, window.length):
            outputs.append(normalize_range(widen_range(pixel_range, digits[0], window)))
        else:
            # A window over tokens, say: from the end of one row of patches it would step to the next row.
            return None
    return join_reaches(outputs)


def is_whole_index(digits: Sequence[Digit], length: int) -> bool:
    """Whether an axis of so many indices has one digit, and this is the index itself."""
    return [(digit.count, digit.index_step, digit.offset) for digit in digits] == [(length, 1, 0)]


def widen_range(pixel_range: PixelRange, digit: Digit, window: SlidingWindow) -> PixelRange:
    """Returns the range that is seen through a window along the axis whose index is `digit`."""
    positions = np.arange(window.output_size) * window.stride - window.before
    read = np.add.outer(positions, np.arange(window.taps) * window.dilation)
    read = read[(read >= 0) & (read < window.length)]
    # Where a stride steps over the last indices, the pixels behind them are out of sight for good.
    first, last = (int(read.min()), int(read.max())) if read.size else (0, -1)
    unmoved = [candidate for candidate in pixel_range.digits if candidate is not digit]
    moved = replace(digit, count=window.output_size, stride=digit.stride * window.stride)
    return PixelRange(
        start=pixel_range.start - window.before * digit.stride,
        size=pixel_range.size + (window.taps - 1) * window.dilation * digit.stride,
        low=max(pixel_range.low, pixel_range.start + first * digit.stride),
        high=min(pixel_range.high, pixel_range.start + last * digit.stride + pixel_range.size),
        digits=(*unmoved, moved),
    )


def pad_or_crop(reach: Reach, axis: int, length: int, before: int, output_length: int) -> Reach:
    """Returns the reach after padding or a slice along an axis.

    Unlike a window, this keeps ranges with several digits on the axis: only the index at which these begin moves.

    Args:
        reach: the reach before.
        axis: the axis.
        length: indices of the axis before.
        before: indices that are added in front; below 0 where indices are cut off.
        output_length: indices of the axis after.
    """
    if reach is None:
        return None
    outputs: list[Reach] = []
    for pixel_range in reach:
        axis_digits = pixel_range.digits_on(axis)
        if is_whole_index(axis_digits, length):
            window = SlidingWindow(length, output_length, before=before)
            outputs.append(slide_window((pixel_range,), axis, window))
        elif axis_digits and output_length == 1:
            # A slice of one index, such as the class token: its digits have one value each and are gone.
            outputs.append(pick_indices(pixel_range, {axis: -before}))
        else:
            still = [digit for digit in pixel_range.digits if digit.axis != axis]
            shifted = [replace(digit, offset=digit.offset + before) for digit in axis_digits]
            outputs.append(normalize_range(replace(pixel_range, digits=(*still, *shifted))))
    return join_reaches(outputs)


def pick_indices(pixel_range: PixelRange, indices: Mapping[int, int]) -> Reach:
    """Returns what is seen where some axes have these indices, {axis: index}; the other axes keep their digits."""
    start = pixel_range.start
    left = []
    for digit in pixel_range.digits:
        if digit.axis not in indices:
            left.append(digit)
            continue
        value = digit.read(indices[digit.axis])
        if value is None:
            return ()
        start += value * digit.stride
    return normalize_range(replace(pixel_range, start=start, digits=tuple(left)))


def reshape(reach: Reach, old_shape: Sequence[int], new_shape: Sequence[int]) -> Reach:
    """Returns the reach after a reshape: digits join where axes do and split where axes do.

    The way leads over the flattened array. Of a shape (14, 14) with the digits row and column, the digits of the flat
    index are index // 14 and index % 14, whatever shape comes next.

    Args:
        reach: the reach before; the reach after is None where it is not known.
        old_shape: the whole shape of the array before.
        new_shape: the whole shape of the array after.
    """
    if reach is None:
        return None
    outputs: list[Reach] = []
    for pixel_range in reach:
        digits: list[Digit] = []
        for digit in pixel_range.digits:
            flat_digit = flatten_digit(digit, old_shape)
            parts = None if flat_digit is None else split_digit(flat_digit, new_shape)
            if parts is None:
                return None
            digits += parts
        outputs.append(normalize_range(replace(pixel_range, digits=tuple(digits))))
    return join_reaches(outputs)


def flatten_digit(digit: Digit, shape: Sequence[int]) -> Digit | None:
    """Returns a digit of an axis as a digit of the index into the flattened array; None where that is not one digit."""
    flat_step = math.prod(shape[digit.axis + 1 :])  # flat indices from one index of the axis to the next
    # The flat index goes through the axis again for each index of the axes above it. The digit's `% count` starts over
    # in step with that only where the axis is a whole number of its periods and these begin at index 0.
    fills_axis = not digit.offset and shape[digit.axis] % (digit.index_step * digit.count) == 0
    if not fills_axis and math.prod(shape[: digit.axis]) > 1:
        return None
    return replace(digit, axis=0, index_step=digit.index_step * flat_step, offset=digit.offset * flat_step)


def split_digit(digit: Digit, shape: Sequence[int]) -> list[Digit] | None:
    """Returns a digit of the flat index as digits of a shape's axes; None where it does not fall on their borders.

    The digit of the flat index of a shape (12,), index // 1 % 12, becomes two in a shape (4, 3): the index of axis 1
    with the digit's stride, and the index of axis 0 with 3 times this stride.
    """
    parts: list[Digit] = []
    count, stride, index_step = digit.count, digit.stride, digit.index_step  # of what is not yet placed on an axis
    for axis in reversed(range(len(shape))):
        flat_step = math.prod(shape[axis + 1 :])  # flat indices from one index of this axis to the next
        span = flat_step * shape[axis]  # flat indices until this axis starts over
        if count == 1 or index_step >= span:
            continue  # the digit does not change along this axis
        count_here = min(count, span // index_step)
        ends_here = index_step * count <= span
        nothing_above = ends_here and span == math.prod(shape)
        if index_step % flat_step or digit.offset % flat_step or count % count_here:
            return None
        # An axis starts over at index 0, so a digit that begins later, or that is not done when the axis ends, can
        # stand on the outermost axis alone.
        if not nothing_above and (digit.offset or span % (index_step * count_here)):
            return None
        parts.append(Digit(axis, count_here, stride, index_step // flat_step, digit.offset // flat_step))
        index_step, count, stride = span, count // count_here, stride * count_here
    return parts if count == 1 else None
