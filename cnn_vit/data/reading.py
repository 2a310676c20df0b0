"""From the parts of a source to splits that are read: one size, one number of colors, in memory where they fit.

Every picture is decoded at the start, in threads; where the decoded set would not fit in 512 MB, each header is looked
at and pictures are decoded when they are read. What cannot be read is named before the first step.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from cnn_vit.data import images
from cnn_vit.data.images import Header, UnreadableError
from cnn_vit.data.parts import Encoded, Found, Part, Pixels
from cnn_vit.data.splits import Split
from cnn_vit.errors import UserError

MEMORY = 512 * 2**20  # bytes of decoded pictures, of all splits together
START = 2**16  # bytes in which most headers lie
AT_ONCE = 64  # pictures that a thread takes
NAMED = 5  # files that an error names
LONGEST = 200  # characters of a name that an error shows

Shape = tuple[int, int, int]
Rows = Mapping[str, tuple[str, np.ndarray]]
T = TypeVar("T")


def read(
    found: Found, rows: Rows, *, sides: tuple[int, int] | None, channels: int | None, fit: str, workers: int
) -> tuple[dict[str, Split], Shape]:
    """Makes the splits.

    Args:
        found: what the source gave.
        rows: split -> part and indices of its examples.
        sides: (height, width); None: as the pictures are.
        channels: 1 or 3; None: as the pictures are.
        fit: "crop", "stretch" or "pad(GRAY)".
        workers: threads.

    Returns:
        split -> `Split`, and the shape (H, W, C) of all pictures.

    Raises:
        UserError: files that cannot be read, all in one sentence; pictures of several sizes and no size to bring
            them to.
    """
    chosen = {split: (found.parts[part], at) for split, (part, at) in rows.items()}
    faults: dict[str, UnreadableError] = {}
    looked = sides is None or channels is None
    if sides is None or channels is None:
        sides, channels = settled(surveyed(chosen, faults, workers), faults, sides, channels)
    shape = (*sides, channels)
    fits = sum(len(at) for _, at in chosen.values()) * math.prod(shape) <= MEMORY
    if not fits and not looked:
        surveyed(chosen, faults, workers)
    made = {
        split: made_split(part, at, shape, fit, faults if fits else None, workers)
        for split, (part, at) in chosen.items()
    }
    refuse_unreadable(faults, sum(len(at) for _, at in chosen.values()))
    return made, shape


def made_split(
    part: Part, at: np.ndarray, shape: Shape, fit: str, faults: dict[str, UnreadableError] | None, workers: int
) -> Split:
    """One split; where faults are given, its pictures are decoded now and what cannot be read goes there."""
    labels, names = part.labels[at], None if part.names is None else [part.names[index] for index in at]
    if isinstance(part, Pixels) and part.shape == shape and (faults is None or not part.drawn):
        return Split(labels, lambda rows: part.read(at[rows]), not part.drawn, names)
    if faults is None:
        return Split(labels, lambda rows: many(part, at[rows], shape, fit), False, names)
    pixels = np.empty((len(at), *shape), np.uint8)  # (N, H, W, C)

    def fill(some: range) -> dict[str, UnreadableError]:
        if isinstance(part, Pixels) and part.shape == shape:
            pixels[some.start : some.stop] = part.read(at[some.start : some.stop])
            return {}
        bad = {}
        for row in some:
            try:
                pixels[row] = one(part, int(at[row]), shape, fit)
            except UnreadableError as error:
                bad[where(part, int(at[row]))] = error
        return bad

    for bad in each(fill, len(at), workers):
        faults |= bad
    return Split(labels, pixels.__getitem__, True, names)


def many(part: Part, indices: np.ndarray, shape: Shape, fit: str) -> np.ndarray:  # (n,) -> (n, H, W, C)
    """Pictures as they are asked for."""
    pixels = np.empty((len(indices), *shape), np.uint8)
    for row, index in enumerate(indices.tolist()):
        try:
            pixels[row] = one(part, index, shape, fit)
        except UnreadableError as error:
            raise UserError(f"{where(part, index)} cannot be read: {error}") from error
    return pixels


def one(part: Part, index: int, shape: Shape, fit: str) -> np.ndarray:  # -> (H, W, C)
    """A picture in its final shape."""
    height, width, channels = shape
    if isinstance(part, Pixels):
        raw = images.recolored(part.read(np.array([index]))[0], channels)
    else:
        raw = images.decode(part.content(index, None), channels=channels)
    return images.fitted(raw, (height, width), fit)


# Headers


def surveyed(
    chosen: Mapping[str, tuple[Part, np.ndarray]], faults: dict[str, UnreadableError], workers: int
) -> set[Header]:
    """All that the headers say, each once; what cannot be read goes to the faults."""
    heads = set()
    for part, at in chosen.values():
        if isinstance(part, Pixels):
            heads.add(Header(*part.shape[:2], part.shape[2] == 3))
            continue

        def look(
            some: range, part: Encoded = part, at: np.ndarray = at
        ) -> tuple[set[Header], dict[str, UnreadableError]]:
            good, bad = set(), {}
            for index in at[some.start : some.stop].tolist():
                try:
                    good.add(head(part, index))
                except UnreadableError as error:
                    bad[where(part, index)] = error
            return good, bad

        for good, bad in each(look, len(at), workers):
            heads |= good
            faults |= bad
    return heads


def head(part: Encoded, index: int) -> Header:
    """The header of a file, from its beginning where that is enough."""
    if part.sizes[index] > START:
        try:
            return images.header(part.content(index, START))
        except UnreadableError:
            pass  # it may lie further on
    return images.header(part.content(index, None))


def settled(
    heads: set[Header], faults: dict[str, UnreadableError], sides: tuple[int, int] | None, channels: int | None
) -> tuple[tuple[int, int], int]:
    """Size and channels, from the headers where they are unset.

    Raises:
        UserError: there are several sizes.
    """
    if not heads:
        refuse_unreadable(faults, len(faults))
    sizes = sorted({(one.height, one.width) for one in heads})
    if sides is None and len(sizes) > 1:
        (low, narrow), (high, wide) = (tuple(end(side) for side in zip(*sizes, strict=True)) for end in (min, max))
        raise UserError(
            f"pictures have {len(sizes)} sizes, {low} to {high} pixels high and {narrow} to {wide} wide; set "
            "data.image_size to the size to bring them to (--config.data.image_size=64)"
        )
    return sides or sizes[0], channels or (3 if any(one.colored for one in heads) else 1)


# Threads and faults


def each(work: Callable[[range], T], count: int, workers: int) -> Iterable[T]:
    """Does the work for ranges that cover `count`, in threads; results in order."""
    ranges = [range(start, min(start + AT_ONCE, count)) for start in range(0, count, AT_ONCE)]
    if workers < 2 or len(ranges) < 2:
        return map(work, ranges)
    with ThreadPoolExecutor(workers) as threads:
        return list(threads.map(work, ranges))


def where(part: Part, index: int) -> str:
    """What an error calls a picture."""
    return shown(part.where(index)) if isinstance(part, Encoded) else f"picture {index}"


def shown(name: str) -> str:
    """A name as an error prints it: on one line, escaped, not too long."""
    text = name if name.isprintable() else ascii(name)
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 3 :]}"


def refuse_unreadable(faults: Mapping[str, UnreadableError], count: int) -> None:
    """Names the files that cannot be read, with reason and remedy, in one sentence."""
    if not faults:
        return
    remedies: Sequence[str] = list(dict.fromkeys(fault.remedy for fault in faults.values()))
    if len(faults) == 1:
        ((name, fault),) = faults.items()
        raise UserError(f"{name} cannot be read: {fault}, then give the same command again")
    listed = ", ".join(f"{name} ({fault.reason})" for name, fault in list(faults.items())[:NAMED])
    more = f", and {len(faults) - NAMED:,} more" if len(faults) > NAMED else ""
    raise UserError(
        f"{len(faults):,} of {count:,} pictures cannot be read: {listed}{more}; {' or '.join(remedies[:3])}, "
        "then give the same command again"
    )
