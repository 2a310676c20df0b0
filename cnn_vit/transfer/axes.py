"""Axes by name: how the array of one program is rearranged into that of another, written as data.

A layout is a text with a letter for each axis. `o i h w` are the axes of PyTorch's convolution kernels, `h w i o` of
ours; axes in brackets are one axis of the array, `(s o) i`, whose first letter changes slowest; `1` is an axis of size
one that the other side does not have. Where an axis is one here and several there, as `(a e)` and `a e`, the number of
heads has to be known. A pair of layouts is read in both directions, and a round trip gives the same bits: values are
moved, never computed with.
"""

import math
import re
from collections.abc import Mapping

import numpy as np

GROUP = re.compile(r"\(([^()]*)\)|(\S+)")


def split_layout(layout: str) -> list[tuple[str, ...]]:
    """Splits a layout into the letters of each axis: "(s o) i" is [("s", "o"), ("i",)]; "1" is an axis without any."""
    groups = []
    for match in GROUP.finditer(layout):
        letters = (match[1] or match[2]).split()
        groups.append(tuple(letter for letter in letters if letter != "1"))
    return groups


def axis_sizes(layout: str, shape: tuple[int, ...], known: Mapping[str, int] | None = None) -> dict[str, int]:
    """Returns the size of each letter of a layout in an array of this shape.

    Args:
        layout: in which each pair of brackets has at most one letter that is not known.
        shape: of the array.
        known: sizes of letters in brackets, {"a": 12} for the heads of "(a e)".

    Raises:
        ValueError: the shape has another number of axes than the layout, or is no multiple of what is known.
    """
    sizes = dict(known or {})
    for letters, size in zip(split_layout(layout), shape, strict=True):
        others = [letter for letter in letters if letter not in sizes]
        rest, remainder = divmod(size, math.prod(sizes[letter] for letter in letters if letter in sizes))
        if len(others) > 1 or remainder or (not others and rest != 1):
            raise ValueError(f"an axis of {size} does not tell the sizes of {' '.join(letters)} with {sizes}")
        if others:
            sizes[others[0]] = rest
    return sizes


def shape_of(layout: str, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Returns the shape of an array of a layout, from the size of each letter."""
    return tuple(math.prod(sizes[letter] for letter in letters) for letters in split_layout(layout))


def rearrange(array: np.ndarray, source: str, target: str, sizes: Mapping[str, int]) -> np.ndarray:
    """Moves the axes of an array from one layout to another.

    Args:
        array: of the shape `shape_of(source, sizes)`.
        source: layout of the array.
        target: layout of what is returned, with the same letters.
        sizes: of each letter.
    """
    source_letters = [letter for letters in split_layout(source) for letter in letters]
    target_letters = [letter for letters in split_layout(target) for letter in letters]
    spread = array.reshape([sizes[letter] for letter in source_letters])
    moved = spread.transpose([source_letters.index(letter) for letter in target_letters])
    return np.ascontiguousarray(moved.reshape(shape_of(target, sizes)))
