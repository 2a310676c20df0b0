"""Train, validation and test: slices of a fixed stratified order, never of the order of the files.

The order of a part is a keyed permutation inside each class (by blake2b of the example's name, or of its index where it
has no name; `seed` does not enter) with the classes interleaved, so that any slice holds each class in its proportion.

A slice is written `train`, `train[:45000]`, `train[90%:]` or `train[10%:20%]`. Where `data.train`, `data.validation`,
`data.test` are unset they are the parts of the source, without the examples that another slice takes; where there is no
validation part either, validation is the first tenth of train's order, and train loses that tenth.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from cnn_vit.data.base.padding import PaddedSizes
from cnn_vit.data.base.parts import PARTS, Part
from cnn_vit.errors import UserError

SLICE = re.compile(r"\s*(\w+)\s*(?:\[\s*([\d_.]+%?)?\s*:\s*([\d_.]+%?)?\s*\])?\s*")
SLICE_FORMS = "write train, train[:45000], train[90%:], train[10%:20%], or the same of validation or test"
TENTH = Fraction(1, 10)  # of train, for validation


@dataclass(frozen=True)
class Split:
    """The examples of one use: training, validation or test.

    Attributes:
        labels: (N,) int32.
        read: indices (n,) -> images (n, H, W, C) uint8; may be called by several threads at once. It raises a UserError
            where an image turns out to be unreadable.
        in_memory: whether `read` is a mere look-up; else it decodes and is worth threads.
        names: the names of the images, where they are files.
        read_crops: (indices (n,), numbers (n, 4) in [0, 1)) -> random boxes of the images (n, H, W, C) uint8, where
            training uses such boxes (`decode/crops.py`).
        padded_sizes: the size of each image in its padded canvas, where images have several sizes (`base/padding.py`).
    """

    labels: np.ndarray
    read: Callable[[np.ndarray], np.ndarray]
    in_memory: bool = True
    names: Sequence[str] | None = None
    read_crops: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    padded_sizes: PaddedSizes | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, positions: np.ndarray) -> "Split":
        """Returns the examples at these positions, in this order, as a split."""
        positions = np.asarray(positions, np.int64)
        read_crops = self.read_crops
        return Split(
            labels=self.labels[positions],
            read=lambda indices: self.read(positions[indices]),
            in_memory=self.in_memory,
            names=None if self.names is None else [self.names[position] for position in positions],
            read_crops=None if read_crops is None else lambda indices, draws: read_crops(positions[indices], draws),
            padded_sizes=None if self.padded_sizes is None else self.padded_sizes.select(positions),
        )


@dataclass(frozen=True)
class Slice:
    """A slice of a part, before it is known how many examples the part has.

    Attributes:
        part: train, validation or test.
        start: the first position in the part's order, as a number of examples or a share (`Fraction`); None: 0.
        stop: the position behind the last one, likewise; None: the end.
        text: the slice as it was written.
    """

    part: str
    start: int | Fraction | None
    stop: int | Fraction | None
    text: str

    def bounds(self, count: int, *, key: str) -> tuple[int, int]:
        """Returns the first position and the one behind the last, in a part of `count` examples.

        Raises:
            UserError: the part is too small, or no example is left; the message names the setting `key`.
        """
        start = resolve_position(self.start or 0, count)
        stop = count if self.stop is None else resolve_position(self.stop, count)
        if max(start, stop) > count:
            raise UserError(f"{key} is {self.text!r}, but {self.part} has {count:,} examples; ask for no more")
        if start >= stop:
            raise UserError(f"{key} is {self.text!r}, which holds none of the {count:,} examples; {SLICE_FORMS}")
        return start, stop


def resolve_position(position: int | Fraction, count: int) -> int:
    """Returns a position among `count` examples as a number; shares are rounded, halves upwards."""
    return int(position * count + Fraction(1, 2)) if isinstance(position, Fraction) else position


def parse_slice(text: str, *, key: str) -> Slice:
    """Reads a slice from the text of the setting `key`.

    Raises:
        UserError: the text is not a slice; the message shows the forms that there are.
    """
    match = SLICE.fullmatch(text)
    if not match or match[1] not in PARTS:
        raise UserError(f"{key} is {text!r}; {SLICE_FORMS}")
    try:
        start = None if match[2] is None else parse_end(match[2])
        stop = None if match[3] is None else parse_end(match[3])
    except ValueError as error:
        raise UserError(f"{key} is {text!r}; {error}; {SLICE_FORMS}") from error
    # A number and a share can be compared only when the size of the part is known: `Slice.bounds` does that.
    if start is not None and stop is not None and type(start) is type(stop) and start >= stop:
        raise UserError(f"{key} is {text!r}, which holds nothing; {SLICE_FORMS}")
    return Slice(match[1], start, stop, text)


def parse_end(text: str) -> int | Fraction:
    """Reads one end of a slice: "45_000" examples or "12.5%".

    Raises:
        ValueError: the text is neither; the message says why.
    """
    if not text.endswith("%"):
        if not text.replace("_", "").isdigit():
            raise ValueError(f"{text} is not a number of examples")
        return int(text.replace("_", ""))
    try:
        share = Fraction(text[:-1]) / 100
    except ValueError as error:
        raise ValueError(f"{text} is not a percentage") from error
    if share > 1:
        raise ValueError(f"{text} is more than 100%")
    return share


def stratified_order(labels: np.ndarray, names: Sequence[str] | None = None) -> np.ndarray:
    """Returns the fixed stratified order of a part.

    Args:
        labels: (N,), 0 to K - 1.
        names: the names of the examples; where there are none, their indices stand for them.

    Returns:
        Indices (N,) int64. Any prefix holds each class in its proportion, to within one example.
    """
    keys = np.fromiter(map(shuffle_key, range(len(labels)) if names is None else names), np.uint64, len(labels))
    labels = np.asarray(labels, np.int64)
    by_class = np.lexsort((keys, labels))  # class by class, each class shuffled
    class_sizes = np.bincount(labels)
    class_starts = np.cumsum(class_sizes) - class_sizes
    sorted_labels = labels[by_class]
    rank = np.arange(len(labels)) - class_starts[sorted_labels]  # inside the class
    # Example `rank` of n in its class stands at the fraction (rank + 1/2) / n of the whole order. As one division of
    # whole numbers, equal fractions are equal floats, so that ties go to the smaller label on every machine.
    place = (2 * rank + 1) / (2 * class_sizes[sorted_labels])
    return by_class[np.lexsort((sorted_labels, place))]


def shuffle_key(name: str | int) -> int:
    """Returns a number of 64 bits that stands for an example; sorting by it shuffles."""
    text = str(name).encode(errors="surrogateescape")  # names of files may be bytes that are not text
    return int.from_bytes(hashlib.blake2b(text, digest_size=8, person=b"cnn_vit").digest(), "big")


class SplitPlan(NamedTuple):
    """Which positions of which part's order make up each split.

    Attributes:
        positions: split -> its part and its positions (n,) int64, ascending.
        notes: decisions that no setting asked for, one sentence each.
    """

    positions: dict[str, tuple[str, np.ndarray]]
    notes: list[str]


def plan_splits(counts: Mapping[str, int], slices: Mapping[str, str | None]) -> SplitPlan:
    """Decides which examples make up each split; only the sizes of the parts are needed.

    Args:
        counts: the number of examples of each part.
        slices: split -> slice as written, or None.

    Raises:
        UserError: a slice of a part that does not exist, two slices that overlap, or a split without examples.
    """
    requested = {split: resolve_slice(split, text, counts) for split, text in slices.items() if text is not None}
    refuse_overlap(requested, slices)
    positions = dict(requested)
    notes: list[str] = []
    for split in PARTS:
        if split not in counts or split in positions:
            continue
        remaining = np.arange(counts[split])
        taken_by_slices = [sliced for part, sliced in requested.values() if part == split]
        if taken_by_slices:
            remaining = np.setdiff1d(remaining, np.concatenate(taken_by_slices))
            notes.append(f"{split} is what other slices leave of it: {len(remaining):,} of {counts[split]:,}")
        if not len(remaining):
            raise UserError(f"the slices that are set leave nothing of {split}; set data.{split} too")
        positions[split] = split, remaining
    if "validation" not in positions:
        part, train = positions["train"]
        tenth = resolve_position(TENTH, len(train))
        if tenth < 1:
            raise UserError(f"{len(train)} training examples leave no tenth for validation; add a validation split")
        positions["train"] = part, train[tenth:]
        positions["validation"] = part, train[:tenth]
        notes.append(f"validation is a stratified tenth of train: {tenth:,} of {len(train):,}")
    return SplitPlan({split: positions[split] for split in PARTS if split in positions}, notes)


def resolve_slice(split: str, text: str, counts: Mapping[str, int]) -> tuple[str, np.ndarray]:
    """Returns the part and the positions of the slice that is written for a split."""
    key = f"data.{split}"
    requested = parse_slice(text, key=key)
    part = requested.part
    if part not in counts:
        raise UserError(f"{key} is {text!r}, but the data has no {part} split; it has {', '.join(counts)}")
    return part, np.arange(*requested.bounds(counts[part], key=key))


def refuse_overlap(requested: Mapping[str, tuple[str, np.ndarray]], slices: Mapping[str, str | None]) -> None:
    """Refuses two splits that share examples: a network must not be judged by what it learned from or was chosen by."""
    pairs = (("train", "validation"), ("train", "test"), ("validation", "test"))
    for first, second in pairs:
        if first not in requested or second not in requested:
            continue
        (first_part, first_positions), (second_part, second_positions) = requested[first], requested[second]
        if first_part != second_part:
            continue
        shared = np.intersect1d(first_positions, second_positions)
        if len(shared):
            raise UserError(
                f"data.{first}={slices[first]} and data.{second}={slices[second]} share {len(shared):,} examples; "
                "write slices apart, such as train[:90%] and train[90%:]"
            )


def split_in_three(part: Part) -> dict[str, Part]:
    """Cuts one part into train, validation and test: the latter two are tenths of its stratified order."""
    order = stratified_order(part.labels, part.names)
    tenth = resolve_position(TENTH, len(order))
    if tenth < 1:
        raise UserError(f"{len(order)} images are too few to set a tenth apart; add images, 10 at least")
    slices = {"train": order[2 * tenth :], "validation": order[tenth : 2 * tenth], "test": order[:tenth]}
    return {split: part.select(np.sort(indices)) for split, indices in slices.items()}


def example_indices(part: Part, positions: np.ndarray) -> np.ndarray:
    """Returns the indices of the examples at these positions of a part's stratified order, ascending."""
    count = len(part.labels)
    if len(positions) == count:
        return np.arange(count, dtype=np.int64)  # all of them: no need to know the order
    return np.sort(stratified_order(part.labels, part.names)[positions])
