"""Matches the arrays of a foreign file with those of a network, by a rule's table, and says all that does not fit."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import jax
import numpy as np

from cnn_vit import trees
from cnn_vit.errors import nearest, printable_name
from cnn_vit.nn.values import Network
from cnn_vit.transfer.readers import NamedArrays
from cnn_vit.transfer.rules import ConversionRule
from cnn_vit.transfer.table import Pair, pair_names
from cnn_vit.transfer.weights import listed_error

LONGEST_WORD = 100  # characters of a name that is compared with others
MOST_COMPARED, MOST_CHOICES = 20, 1000  # names that are compared with so many others: it takes long
FLOATS = ("float16", "float32", "float64")  # bfloat16 is read as float32


@dataclass(frozen=True)
class Matched:
    """The arrays of a file beside those of the network.

    Attributes:
        rule: whose table gave the pairs.
        prefix: what all names of the file begin with.
        arrays: of the file, by name.
        shapes: of ours, by path as text.
        pairs: which is which.
        unnamed: paths of ours that the rule's table has no name for.
    """

    rule: ConversionRule
    prefix: str
    arrays: Mapping[str, np.ndarray]
    shapes: Mapping[str, tuple[int, ...]]
    pairs: Sequence[Pair]
    unnamed: Sequence[str] = ()

    @cached_property
    def dropped(self) -> list[str]:
        """The names of the file that the rule drops."""
        dropped = []
        for name in self.arrays:
            inner = name.removeprefix(self.prefix)
            if any(re.fullmatch(pattern, inner) for pattern in self.rule.dropped):
                dropped.append(name)
        return dropped

    def find_problems(self) -> list[str]:
        """Lists all that keeps the file from being the network, a line for each array."""
        problems = self.find_misfits()
        for pair in self.pairs:
            array = self.arrays.get(self.prefix + pair.theirs)
            if array is not None:
                problems += find_faults(self.prefix + pair.theirs, array, is_variance=is_variance(pair))
        return problems

    def find_misfits(self) -> list[str]:
        """Lists the names and shapes that differ from those of the network, a line for each; no value is looked at."""
        problems = [f"{self.rule.source} has nothing like {path} of this network" for path in self.unnamed]
        expected = {}
        for pair in self.pairs:
            expected[self.prefix + pair.theirs] = pair.their_shape(self.shapes[pair.ours[0]])
        missing = [name for name in expected if name not in self.arrays]
        paired_or_dropped = {*expected, *self.dropped}
        left_over = [name for name in self.arrays if name not in paired_or_dropped]
        for number, name in enumerate(missing):
            near = did_you_mean(name, left_over) if number < MOST_COMPARED else ""
            problems.append(f"{printable_name(name)} {expected[name]} is missing{near}")
        for number, name in enumerate(left_over):
            if not name.startswith(self.prefix):
                problems.append(
                    f"{printable_name(name)} does not begin with {printable_name(self.prefix)} as others do"
                )
                continue
            near = did_you_mean(name, missing) if number < MOST_COMPARED else ""
            problems.append(f"{printable_name(name)} {self.arrays[name].shape} is not known{near}")
        for name, shape in expected.items():
            if name in self.arrays and self.arrays[name].shape != shape:
                problems.append(f"{printable_name(name)} has the shape {self.arrays[name].shape}, expected {shape}")
        return problems

    def move_arrays(self) -> dict[str, np.ndarray]:
        """Returns our arrays by path, in float32."""
        ours: dict[str, np.ndarray] = {}
        for pair in self.pairs:
            array = self.arrays[self.prefix + pair.theirs].astype(np.float32, copy=False)
            ours |= pair.to_ours(array, self.shapes[pair.ours[0]])
        return ours

    def notes(self) -> list[str]:
        """Says which arrays were rounded or widened to float32, and which were dropped."""
        notes = []
        counts = Counter(str(self.arrays[self.prefix + pair.theirs].dtype) for pair in self.pairs)
        for dtype, count in counts.items():
            if dtype != "float32":
                verb = "rounded" if dtype == "float64" else "widened"
                notes.append(f"{count:,} arrays of {dtype} were {verb} to float32")
        if self.dropped:
            names = Counter(re.split(r"[./]", name)[-1] for name in self.dropped)
            listed = ", ".join(f"{printable_name(name)} ({count:,})" for name, count in names.items())
            notes.append(f"dropped, since no score depends on them: {listed}")
        return notes


def is_variance(pair: Pair) -> bool:
    """Whether a pair is the running variance of a batch norm."""
    return pair.ours[0].endswith("/var")


def find_faults(name: str, array: np.ndarray, *, is_variance: bool) -> list[str]:
    """Lists what is wrong with the values of an array: their type, numbers that give no scores."""
    printed = printable_name(name)
    if array.dtype.name not in FLOATS:
        return [f"{printed} is {array.dtype}; weights are floating point numbers of 16, 32 or 64 bits"]
    with np.errstate(over="ignore"):
        finite = np.isfinite(array.astype(np.float32, copy=False))
    if not finite.all():
        count = int(finite.size - np.count_nonzero(finite))
        return [f"{printed} has {count:,} of {finite.size:,} numbers that are not finite in float32"]
    if is_variance and array.min() < 0:
        return [f"{printed} has a variance below 0"]
    return []


def did_you_mean(name: str, choices: Sequence[str], prefix: str = "") -> str:
    """Returns the nearest of some names as a question in brackets, or ""; very long names are compared with none."""
    short = [choice for choice in choices[:MOST_CHOICES] if len(choice) <= LONGEST_WORD]
    near = nearest(name, short, most=1) if len(name) <= LONGEST_WORD else []
    return f" (is it {printable_name(prefix + near[0])}?)" if near else ""


def shapes_by_text(network: Network) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each parameter and statistic of a network by its path as text."""
    shapes = {}
    for tree in (network.params, network.stats):
        for keys, shape in trees.shapes_by_path(tree).items():
            shapes["/".join(map(str, keys))] = shape
    return shapes


def fill_tree(tree: dict, arrays: Mapping[str, np.ndarray]) -> dict:
    """Puts arrays, by path as text, in the places of a tree of shapes."""
    return jax.tree_util.tree_map_with_path(lambda keys, _: arrays[trees.path_text(keys)], tree)


def to_theirs(
    rule: ConversionRule, params: dict, stats: dict, letters: Mapping[str, int] | None = None
) -> dict[str, np.ndarray]:
    """Gives our arrays the names and axes of a rule's program: the other direction of its table.

    Args:
        rule: the rule.
        params, stats: our arrays.
        letters: sizes of letters that our shapes do not tell, as `rule.find_letters` finds them.

    Raises:
        UserError: the program has nothing like one of our arrays.
    """
    arrays = {}
    for tree in (params, stats):
        for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
            arrays[trees.path_text(keys)] = np.asarray(leaf)
    pairs, unnamed = pair_names(rule.table, list(arrays), letters)
    if unnamed:
        problems = [f"nothing there is like {path}" for path in unnamed]
        raise listed_error(f"this network cannot be written with the names of {rule.source}", problems)
    return {pair.theirs: pair.to_theirs(arrays) for pair in pairs}


# For people -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Group:
    """A part of our network and where it comes from.

    Attributes:
        ours: path, "stages/0".
        theirs: what their names begin with, with `*` behind it where there are several; else the first and the last.
        arrays: how many of ours.
        numbers: how many in them together.
    """

    ours: str
    theirs: str
    arrays: int
    numbers: int


def group_pairs(pairs: Sequence[Pair], prefix: str, arrays: Mapping[str, np.ndarray]) -> tuple[Group, ...]:
    """Groups the arrays by the first words of our paths: a layer of the network itself, or an entry of its lists."""
    paths: dict[str, list[str]] = {}
    names: dict[str, list[str]] = {}
    for path in arrays:
        paths.setdefault(trees.part_of(path), []).append(path)
    for pair in pairs:
        for group in {trees.part_of(path) for path in pair.ours}:
            names.setdefault(group, []).append(prefix + pair.theirs)
    groups = []
    for group, members in paths.items():
        numbers = sum(arrays[path].size for path in members)
        groups.append(Group(group, name_together(names[group]), len(members), numbers))
    return tuple(groups)


def name_together(names: Sequence[str]) -> str:
    """Returns what some names begin with, up to a dot or slash, and `*` behind it; else the first and the last name."""
    if len(names) == 1:
        return names[0]
    words = [re.split(r"(?<=[./])", name) for name in names]  # each word with the dot or slash behind it
    shared: list[str] = []
    for column in zip(*words, strict=False):
        if len(set(column)) > 1:
            return f"{''.join(shared)}*" if shared else f"{names[0]} ... {names[-1]}"
        shared.append(column[0])
    return "".join(shared)


def skipped_notes(named: NamedArrays) -> list[str]:
    """Says what the file holds beside arrays."""
    listed = [f"{printable_name(name)} ({why})" for name, why in list(named.skipped.items())[:5]]
    if len(named.skipped) > 5:
        listed.append(f"and {len(named.skipped) - 5:,} more")
    return [f"left out, for no network is made of them: {', '.join(listed)}"] if listed else []
