"""What the numbers of an array see of one side of the image: windows of pixels that move with the array's indices.

A number sees the pixels from `start` + the sum of weight * digit on, `size` of them. Each digit is read off an index of
the array: of a feature map (B, Y, X, C) the row's window has one, the index of axis 1, its weight the total stride; of
tokens (B, N, D) it is the index of axis 1 divided by the patches of a row. Reshaping splits and joins digits; a sum
over an axis takes its digits away and makes the window larger.

Source: the recurrence of Araujo, Norris, Sim, Computing Receptive Fields of Convolutional Neural Networks, Distill
2019: field' = field + (kernel - 1) * dilation * stride, stride' = stride * step; the digits are ours.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Digit(NamedTuple):
    """A part of an index that moves a window: ((index - offset) // inner) % values, times `weight` pixels."""

    axis: int
    values: int
    weight: int
    inner: int = 1
    offset: int = 0

    def read(self, index: int) -> int | None:
        """The digit at an index; None before the first."""
        return (index - self.offset) // self.inner % self.values if index >= self.offset else None


class Window(NamedTuple):
    """Pixels that a number sees: `size` of them from `start` + digits on, but only those with low <= pixel < high.

    The bounds are the image's sides, or what is left of it where no window reaches its last pixels.
    """

    start: int
    size: int
    low: int
    high: int
    digits: tuple[Digit, ...] = ()

    @property
    def extent(self) -> tuple[int, int]:
        """First pixel, and one past the last, that it sees at any place."""
        travel = sum((digit.values - 1) * digit.weight for digit in self.digits)
        return max(self.start, self.low), min(self.start + self.size + travel, self.high)

    def on(self, axis: int) -> list[Digit]:
        """Digits read off an axis."""
        return [digit for digit in self.digits if digit.axis == axis]


Reach = tuple[Window, ...] | None  # windows that are seen together; () sees nothing, None is not known


def image(axis: int, side: int) -> Reach:
    """An image's own: each pixel sees itself."""
    return plain(Window(0, 1, 0, side, (Digit(axis, side, 1),)))


def plain(window: Window) -> Reach:
    """A window as a reach, its digits in order; none where it sees nothing."""
    found = window._replace(digits=tuple(sorted(window.digits)))
    return (found,) if found.extent[0] < found.extent[1] else ()


def joined(reaches: Iterable[Reach]) -> Reach:
    """What is seen by a number made of several; windows that move alike become one, those within a still one go."""
    alike: dict[tuple[Digit, ...], Window] = {}
    for reach in reaches:
        if reach is None:
            return None
        for window in reach:
            alike[window.digits] = hull(alike.get(window.digits, window), window)
    still = alike.get(())
    if still is None:
        return tuple(alike.values())
    low, high = still.extent
    return (still, *(one for one in alike.values() if one.digits and not low <= one.extent[0] <= one.extent[1] <= high))


def hull(one: Window, other: Window) -> Window:
    """The window from the first to the last pixel of two that move alike."""
    start = min(one.start, other.start)
    end = max(one.start + one.size, other.start + other.size)
    return Window(start, end - start, min(one.low, other.low), max(one.high, other.high), one.digits)


def renamed(reach: Reach, axes: Mapping[int, int]) -> Reach:
    """Axes moved to other places; those that are not named have left (they held one index)."""
    if reach is None:
        return None
    moved = [tuple(d._replace(axis=axes[d.axis]) for d in one.digits if d.axis in axes) for one in reach]
    return joined(plain(one._replace(digits=digits)) for one, digits in zip(reach, moved, strict=True))


def summed(reach: Reach, axes: Iterable[int]) -> Reach:
    """A number for all indices of some axes sees what any of them saw."""
    gone = set(axes)
    return None if reach is None else joined(plain(without(one, gone)) for one in reach)


def without(window: Window, axes: set[int]) -> Window:
    """A window as large as all that one saw over some axes."""
    travel = sum((digit.values - 1) * digit.weight for digit in window.digits if digit.axis in axes)
    left = tuple(digit for digit in window.digits if digit.axis not in axes)
    return window._replace(size=window.size + travel, digits=left)


class Slide(NamedTuple):
    """A window along an axis of `length` indices: taps `spread` apart, a place each `step`, the first `before` them."""

    length: int
    places: int
    taps: int = 1
    step: int = 1
    spread: int = 1
    before: int = 0


def slid(reach: Reach, axis: int, slide: Slide) -> Reach:
    """Behind a window along an axis. Slicing is one of a single tap, padding one that starts before the array."""
    if reach is None:
        return None
    found: list[Reach] = []
    for one in reach:
        digits = one.on(axis)
        if digits and not fills(digits, slide.length):
            return None
        found.append(plain(widened(one, digits[0], slide)) if digits else (one,))
    return joined(found)


def fills(digits: Sequence[Digit], length: int) -> bool:
    """Whether an axis's digits are one, the index itself."""
    return [(digit.values, digit.inner, digit.offset) for digit in digits] == [(length, 1, 0)]


def widened(window: Window, digit: Digit, slide: Slide) -> Window:
    """One window behind another that is read off its digit."""
    read = np.add.outer(np.arange(slide.places) * slide.step - slide.before, np.arange(slide.taps) * slide.spread)
    read = read[(read >= 0) & (read < slide.length)]
    first, last = (int(read.min()), int(read.max())) if read.size else (0, -1)  # indices that any place reads
    return Window(
        start=window.start - slide.before * digit.weight,
        size=window.size + (slide.taps - 1) * slide.spread * digit.weight,
        low=max(window.low, window.start + first * digit.weight),
        high=min(window.high, window.start + last * digit.weight + window.size),
        digits=(
            *(one for one in window.digits if one is not digit),
            digit._replace(values=slide.places, weight=digit.weight * slide.step),
        ),
    )


def shifted(reach: Reach, axis: int, length: int, before: int, places: int) -> Reach:
    """Behind indices added before an axis, or cut off where `before` is negative; `places` are left of its `length`.

    Windows with several digits on the axis keep them: their first index moves.
    """
    if reach is None:
        return None
    found: list[Reach] = []
    for one in reach:
        digits = one.on(axis)
        if fills(digits, length):
            found.append(slid((one,), axis, Slide(length, places, before=before)))
        elif digits and places == 1:
            found.append(at(one, {axis: -before}))
        else:
            there = (d._replace(offset=d.offset + before) if d.axis == axis else d for d in one.digits)
            found.append(plain(one._replace(digits=tuple(there))))
    return joined(found)


def at(window: Window, indices: Mapping[int, int]) -> Reach:
    """What is seen where some axes have these indices."""
    start, left = window.start, []
    for digit in window.digits:
        if digit.axis not in indices:
            left.append(digit)
            continue
        value = digit.read(indices[digit.axis])
        if value is None:
            return ()
        start += value * digit.weight
    return plain(window._replace(start=start, digits=tuple(left)))


def reshaped(reach: Reach, before: Sequence[int], after: Sequence[int]) -> Reach:
    """Behind a reshape of an array's whole shape: digits join where axes do, and split where axes do."""
    if reach is None:
        return None
    found: list[Reach] = []
    for one in reach:
        digits: list[Digit] = []
        for digit in one.digits:
            flat = flattened(digit, before)
            parts = None if flat is None else split(flat, after)
            if parts is None:
                return None
            digits += parts
        found.append(plain(one._replace(digits=tuple(digits))))
    return joined(found)


def flattened(digit: Digit, shape: Sequence[int]) -> Digit | None:
    """A digit of an axis as one of the index into the flattened array; None where what is above it would show."""
    inner = math.prod(shape[digit.axis + 1 :])
    fills = not digit.offset and shape[digit.axis] % (digit.inner * digit.values) == 0
    if not fills and math.prod(shape[: digit.axis]) > 1:
        return None
    return digit._replace(axis=0, inner=digit.inner * inner, offset=digit.offset * inner)


def split(digit: Digit, shape: Sequence[int]) -> list[Digit] | None:
    """A digit of the flattened index as digits of a shape's axes; None where they do not fall on its borders."""
    found, (_, count, weight, inner, offset) = [], digit
    for axis in reversed(range(len(shape))):
        below = math.prod(shape[axis + 1 :])
        above = below * shape[axis]
        if count == 1 or inner >= above:
            continue
        here = min(count, above // inner)
        whole = inner * count <= above
        first = whole and above == math.prod(shape)  # nothing above would show
        if inner % below or offset % below or count % here or (offset and not first):
            return None
        if not first and above % (inner * here):
            return None
        found.append(Digit(axis, here, weight, inner // below, offset // below))
        inner, count, weight = above, count // here, weight * here
    return found if count == 1 else None
