"""Train, validation and test: slices of a fixed stratified order, never of file order.

The order of a part is a keyed permutation inside each class (by blake2b of the example's name, or of its index where it
has none; `seed` does not enter) with the classes interleaved, so that any slice holds each class in its proportion.

A slice is written `train`, `train[:45000]`, `train[90%:]` or `train[10%:20%]`. Where `data.train`, `data.validation`,
`data.test` are unset they are the parts that the source has, less what another slice says it takes; without a
validation part, validation is the first tenth of train's order, and train loses it.
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

WRITTEN = re.compile(r"\s*(\w+)\s*(?:\[\s*([\d_.]+%?)?\s*:\s*([\d_.]+%?)?\s*\])?\s*")
FORMS = "write train, train[:45000], train[90%:], train[10%:20%], or the same of validation or test"
TENTH = Fraction(1, 10)  # of train, for validation


@dataclass(frozen=True)
class Split:
    """Examples of one use.

    Attributes:
        labels: (N,) int32.
        read: indices (n,) -> images (n, H, W, C) uint8; safe in threads. Raises UserError where an image turns out
            unreadable.
        in_memory: whether `read` is a mere look-up; else it decodes and is worth threads.
        names: of the images, where they are files.
        read_crops: (indices (n,), numbers (n, 4) in [0, 1)) -> random boxes of the images (n, H, W, C) uint8, where they are
            to be trained on in such (`crops`).
        padded_sizes: what of each image is image, where these have several sizes (`sizes`).
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
        """The examples at these positions, in this order."""
        positions = np.asarray(positions, np.int64)
        names = None if self.names is None else [self.names[at] for at in positions]
        cut = self.read_crops
        return Split(
            self.labels[positions],
            lambda rows: self.read(positions[rows]),
            self.in_memory,
            names,
            None if cut is None else lambda rows, numbers: cut(positions[rows], numbers),
            None if self.padded_sizes is None else self.padded_sizes.select(positions),
        )


class Slice(NamedTuple):
    """A part of a part.

    Attributes:
        part: train, validation or test.
        start: first position in the part's order: a number of examples, or a share (`Fraction`); None: 0.
        stop: the position behind the last; None: the end.
        text: as it was written.
    """

    part: str
    start: int | Fraction | None
    stop: int | Fraction | None
    text: str

    def bounds(self, count: int, *, key: str) -> tuple[int, int]:
        """First position and the one behind the last, of `count`.

        Raises:
            UserError: the part is too small, or nothing is left.
        """
        start, stop = (position(end, count) for end in (self.start or 0, count if self.stop is None else self.stop))
        if max(start, stop) > count:
            raise UserError(f"{key} is {self.text!r}, but {self.part} has {count:,} examples; ask for no more")
        if start >= stop:
            raise UserError(f"{key} is {self.text!r}, which holds none of the {count:,} examples; {FORMS}")
        return start, stop


def position(end: int | Fraction, count: int) -> int:
    """Where in `count` examples an end lies; shares are rounded, halves up."""
    return int(end * count + Fraction(1, 2)) if isinstance(end, Fraction) else end


def parse_slice(text: str, *, key: str) -> Slice:
    """Reads a slice.

    Raises:
        UserError: it is none; the sentence shows the forms.
    """
    found = WRITTEN.fullmatch(text)
    if not found or found[1] not in PARTS:
        raise UserError(f"{key} is {text!r}; {FORMS}")
    try:
        start, stop = (None if end is None else parse_end(end) for end in found.groups()[1:])
    except ValueError as error:
        raise UserError(f"{key} is {text!r}; {error}; {FORMS}") from error
    if type(start) is type(stop) and start is not None and stop is not None and start >= stop:
        raise UserError(f"{key} is {text!r}, which holds nothing; {FORMS}")
    return Slice(found[1], start, stop, text)


def parse_end(text: str) -> int | Fraction:
    """An end of a slice: "45_000" examples or "12.5%"."""
    if not text.endswith("%"):
        if not text.replace("_", "").isdigit():
            raise ValueError(f"{text} is no number of examples")
        return int(text.replace("_", ""))
    try:
        share = Fraction(text[:-1]) / 100
    except ValueError as error:
        raise ValueError(f"{text} is no share") from error
    if share > 1:
        raise ValueError(f"{text} is more than 100%")
    return share


def stratified_order(labels: np.ndarray, names: Sequence[str] | None = None) -> np.ndarray:
    """The fixed stratified order of a part.

    Args:
        labels: (N,), 0 to K - 1.
        names: of the examples; their indices stand for them where there are none.

    Returns:
        Indices (N,) int64. Any prefix holds each class in its proportion, to within one example.
    """
    keys = np.fromiter(map(shuffle_key, range(len(labels)) if names is None else names), np.uint64, len(labels))
    labels = np.asarray(labels, np.int64)
    by_class = np.lexsort((keys, labels))  # class by class, each shuffled
    sizes = np.bincount(labels)
    starts = np.cumsum(sizes) - sizes
    rank = np.arange(len(labels)) - starts[labels[by_class]]
    place = (2 * rank + 1) / (2 * sizes[labels[by_class]])  # equal fractions are equal floats
    return by_class[np.lexsort((labels[by_class], place))]


def shuffle_key(name: str | int) -> int:
    """A number of 64 bits that shuffles."""
    text = str(name).encode(errors="surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8, person=b"cnn_vit").digest(), "big")


class SplitPlan(NamedTuple):
    """Which positions of which part's order make up each split.

    Attributes:
        positions: split -> part and positions (n,) int64, ascending.
        notes: what nobody said and was decided, a sentence each.
    """

    positions: dict[str, tuple[str, np.ndarray]]
    notes: list[str]


def plan_splits(counts: Mapping[str, int], written: Mapping[str, str | None]) -> SplitPlan:
    """Lays out the splits; only the sizes of the parts are needed.

    Args:
        counts: examples of each part.
        written: split -> slice, or None.

    Raises:
        UserError: a slice of a part that is not there, two that overlap, a split with nothing in it.
    """
    said = {split: resolve_slice(split, text, counts) for split, text in written.items() if text is not None}
    refuse_overlap(said, written)
    final = dict(said)
    notes: list[str] = []
    for split in PARTS:
        if split in counts and split not in final:
            part, kept = split, np.arange(counts[split])
            lost = [taken for where, taken in said.values() if where == part]
            kept = np.setdiff1d(kept, np.concatenate(lost)) if lost else kept
            if not len(kept):
                raise UserError(f"the slices that are said leave nothing of {split}; say data.{split} too")
            final[split] = part, kept
            notes += [f"{split} is what other slices leave of it: {len(kept):,} of {counts[split]:,}"] * bool(lost)
    if "validation" not in final:
        part, kept = final["train"]
        tenth = position(TENTH, len(kept))
        if tenth < 1:
            raise UserError(f"{len(kept)} training examples leave no tenth for validation; add a validation split")
        final["train"], final["validation"] = (part, kept[tenth:]), (part, kept[:tenth])
        notes.append(f"validation is a stratified tenth of train: {tenth:,} of {len(kept):,}")
    return SplitPlan({split: final[split] for split in PARTS if split in final}, notes)


def resolve_slice(split: str, text: str, counts: Mapping[str, int]) -> tuple[str, np.ndarray]:
    """Part and positions of a slice that is written."""
    key = f"data.{split}"
    found = parse_slice(text, key=key)
    if found.part not in counts:
        raise UserError(f"{key} is {text!r}, but the data has no {found.part} split; it has {', '.join(counts)}")
    return found.part, np.arange(*found.bounds(counts[found.part], key=key))


def refuse_overlap(said: Mapping[str, tuple[str, np.ndarray]], written: Mapping[str, str | None]) -> None:
    """Refuses two splits that share examples: what is learned from or chosen by must not be judged by."""
    for at, one in enumerate(PARTS):
        for other in PARTS[at + 1 :]:
            if one not in said or other not in said or said[one][0] != said[other][0]:
                continue
            if shared := len(np.intersect1d(said[one][1], said[other][1])):
                raise UserError(
                    f"data.{one}={written[one]} and data.{other}={written[other]} share {shared:,} examples; "
                    "write slices apart, such as train[:90%] and train[90%:]"
                )


def split_in_three(part: Part) -> dict[str, Part]:
    """Train, validation and test out of one part: tenths of the stratified order."""
    at = stratified_order(part.labels, part.names)
    tenth = position(TENTH, len(at))
    if tenth < 1:
        raise UserError(f"{len(at)} images are too few to set a tenth apart; add images, 10 at least")
    cuts = {"train": at[2 * tenth :], "validation": at[tenth : 2 * tenth], "test": at[:tenth]}
    return {name: part.select_rows(np.sort(rows)) for name, rows in cuts.items()}


def example_indices(part: Part, positions: np.ndarray) -> np.ndarray:
    """Indices of the examples at positions of a part's order, ascending."""
    count = len(part.labels)
    if len(positions) == count:
        return np.arange(count, dtype=np.int64)
    return np.sort(stratified_order(part.labels, part.names)[positions])
