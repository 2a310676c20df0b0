"""Two-way tables of names and axes: which array of somebody's network is which of ours.

A table has a row for each kind of layer. A row names the layer on both sides and the arrays in it:

    Row("stages/{s}/blocks/{b}/conv{n}", "layer{s+1}.{b}.conv{n}", TORCH_CONV)

`{b}` stands for any number, the same on both sides; `{s+1}` is one more than `{s}`. `{#}` is the running number of the
layer among all of ours that fit the row, in their order, and `{#+1}` counts from 1. Where only our name has a number,
`Row("blocks/{b}/norm1", "encoderblock/LayerNorm_0", ...)`, their array holds those of all our layers along an axis of
its own, the first. Their side may have any sum of multiples: `{2#+s}` counts layers between which another one stands,
and one more at the end of each stage.

What is read from left to right gives somebody's names of our arrays, and so both directions: the same pairs move their
arrays into our tree, and our arrays under their names.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cnn_vit.transfer import axes

NUMBER = re.compile(r"\{([^{}]+)\}")
TERM = re.compile(r"([+-]?)(?=[a-z#\d])(\d*)([a-z]\w*|#)?")  # "+3", "s", "-2#"


@dataclass(frozen=True)
class Leaf:
    """An array of a layer on both sides; the names are what follows the layer's own.

    Attributes:
        ours: its name in our layer, "/kernel"; several where their one array holds several of ours, which are stacked
            along the first axis of `our_axes` then.
        theirs: its name in their layer, ".weight".
        our_axes: the layout of ours, as `axes` reads it; "" where both sides have the same axes.
        their_axes: the layout of theirs.
        known: sizes of letters that stand in brackets in `our_axes` and are the same for every network of the table.
    """

    ours: str | tuple[str, ...]
    theirs: str
    our_axes: str = ""
    their_axes: str = ""
    known: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A layer on both sides.

    Attributes:
        ours: its path in our tree, "stages/{s}/blocks/{b}/conv1".
        theirs: its name, "layer{s+1}.{b}.conv1", without what all names of a file begin with.
        leaves: the arrays that it may have; those that our network does not have are not asked for.
    """

    ours: str
    theirs: str
    leaves: tuple[Leaf, ...]


@dataclass(frozen=True)
class Pair:
    """An array of theirs and the arrays of ours that it holds.

    Attributes:
        ours: paths as text, one or several.
        theirs: the name.
        our_axes, their_axes: the layouts, "" for the same axes on both sides.
        is_stacked: whether theirs holds ours along an axis of its own, the first of `our_axes`.
        letters: sizes of letters that our shapes do not tell, by letter.
    """

    ours: tuple[str, ...]
    theirs: str
    our_axes: str
    their_axes: str
    is_stacked: bool = False
    letters: Mapping[str, int] = field(default_factory=dict)

    def their_shape(self, our_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape of their array where each of ours has this shape."""
        if not self.our_axes:
            return self.stack_shape(our_shape)
        return axes.shape_of(self.their_axes, self.sizes(our_shape))

    def stack_shape(self, our_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape of all our arrays together where each has this shape."""
        return (len(self.ours), *our_shape) if self.is_stacked else our_shape

    def sizes(self, our_shape: tuple[int, ...]) -> dict[str, int]:
        """Returns the size of each letter of the layouts where each of our arrays has this shape."""
        return axes.axis_sizes(self.our_axes, self.stack_shape(our_shape), self.letters)

    def to_ours(self, array: np.ndarray, our_shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        """Takes their array, of the shape `their_shape(our_shape)`, apart into ours, by path."""
        if self.our_axes:
            array = axes.rearrange(array, self.their_axes, self.our_axes, self.sizes(our_shape))
        parts = array if self.is_stacked else [array]
        return dict(zip(self.ours, parts, strict=True))

    def to_theirs(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Makes their array of ours, which are found by path."""
        parts = [arrays[path] for path in self.ours]
        array = np.stack(parts) if self.is_stacked else parts[0]
        if not self.our_axes:
            return array
        return axes.rearrange(array, self.our_axes, self.their_axes, self.sizes(parts[0].shape))


def pair_names(
    table: Sequence[Row], paths: Sequence[str], letters: Mapping[str, int] | None = None
) -> tuple[list[Pair], list[str]]:
    """Finds their name for each of our arrays.

    Args:
        table: the rows.
        paths: of all our arrays, as text, in the order of our tree.
        letters: sizes of letters of the layouts that our shapes do not tell, by letter.

    Returns:
        The pairs, and the paths that no row names.

    Raises:
        ValueError: two rows name the same array of ours, or the same of theirs: the table itself is wrong.
    """
    pairs: list[Pair] = []
    for row in table:
        for leaf in row.leaves:
            pairs += pair_leaf(row, leaf, paths, letters or {})
    named = [path for pair in pairs for path in pair.ours]
    names = [pair.theirs for pair in pairs]
    if len(set(named)) < len(named) or len(set(names)) < len(names):
        raise ValueError(f"two rows of a table name the same array: {sorted(named)}, {sorted(names)}")
    known = set(named)
    return pairs, [path for path in paths if path not in known]


def pair_leaf(row: Row, leaf: Leaf, paths: Sequence[str], sizes: Mapping[str, int]) -> list[Pair]:
    """Makes the pairs of one array of a row, for every layer of ours that fits it, or one pair for all of them."""
    sizes = {**sizes, **leaf.known}
    suffixes = (leaf.ours,) if isinstance(leaf.ours, str) else leaf.ours
    path_of_row = row.ours + suffixes[0]
    letters = NUMBER.findall(path_of_row)
    numbers_of_layers: list[tuple[int, ...]] = []
    if letters:
        pattern = re.compile(as_pattern(path_of_row))
        for path in paths:
            match = pattern.fullmatch(path)
            if match:
                numbers_of_layers.append(tuple(map(int, match.groups())))
    elif path_of_row in paths:  # no pattern is tried: a file of rules may have a line for each of thousands of arrays
        numbers_of_layers.append(())
    theirs = row.theirs + leaf.theirs
    pairs = []
    for running, numbers in enumerate(sorted(numbers_of_layers)):
        values = dict(zip(letters, numbers, strict=True)) | {"#": running}
        ours = tuple(fill(row.ours + suffix, values) for suffix in suffixes)
        pairs.append(Pair(ours, fill(theirs, values), leaf.our_axes, leaf.their_axes, len(ours) > 1, sizes))
    if letters and pairs and NUMBER.search(theirs) is None:
        return [stack_pairs(pairs)]
    return pairs


def stack_pairs(pairs: Sequence[Pair]) -> Pair:
    """Makes one pair of those of all layers, which their array holds along its first axis, the letter `#`."""
    first = pairs[0]
    ours = tuple(path for pair in pairs for path in pair.ours)
    our_axes, their_axes = first.our_axes, first.their_axes
    if our_axes:
        our_axes, their_axes = f"# {our_axes}", f"# {their_axes}"
    return Pair(ours, first.theirs, our_axes, their_axes, True, first.letters)


def as_pattern(template: str) -> str:
    """Turns the name of a row into a regular expression with a group for each number."""
    pattern, end = "", 0
    for match in NUMBER.finditer(template):
        pattern += re.escape(template[end : match.start()]) + rf"(?P<{match[1]}>\d+)"
        end = match.end()
    return pattern + re.escape(template[end:])


def fill(template: str, values: Mapping[str, int]) -> str:
    """Writes the numbers of a layer into the name of a row: "layer{s+1}" with s = 0 is "layer1"."""
    return NUMBER.sub(lambda match: str(add_terms(match[1], values)), template)


def add_terms(text: str, values: Mapping[str, int]) -> int:
    """Computes a sum of numbers and letters, which may have a factor: "2#+s-1"."""
    total = 0
    for sign, factor, letter in TERM.findall(text):
        number = int(factor or 1) * (values[letter] if letter else 1)
        total += -number if sign == "-" else number
    return total


# Layers as PyTorch and Keras keep them --------------------------------------------------------------------------------

TORCH_CONV = (Leaf("/kernel", ".weight", "h w i o", "o i h w"), Leaf("/bias", ".bias"))
TORCH_DENSE = (Leaf("/kernel", ".weight", "i o", "o i"), Leaf("/bias", ".bias"))
TORCH_BATCH_NORM = (
    Leaf("/scale", ".weight"),
    Leaf("/bias", ".bias"),
    Leaf("/mean", ".running_mean"),
    Leaf("/var", ".running_var"),
)
TORCH_LAYER_NORM = (Leaf("/scale", ".weight"), Leaf("/bias", ".bias"))
# What no score depends on: batches seen in training, and what an optimizer keeps of a training that was saved.
TORCH_COUNTER = r"(.*\.)?num_batches_tracked"
TORCH_OPTIMIZER = r"(optimizer|optimizer_state_dict|optim)\..*"

KERAS_CONV = (Leaf("/kernel", "/kernel"), Leaf("/bias", "/bias"))
# `m` filters for each channel: 1 here, so that ours, whose groups have one channel each, has the axis before
KERAS_DEPTHWISE = (Leaf("/kernel", "/depthwise_kernel", "h w m c", "h w c m"),)
KERAS_BATCH_NORM = (
    Leaf("/scale", "/gamma"),
    Leaf("/bias", "/beta"),
    Leaf("/mean", "/moving_mean"),
    Leaf("/var", "/moving_variance"),
)
