"""Looking at picture files before the first step: at the header of each or at all of it, once for each file.

What was found is remembered (`verdicts`), so that the next start opens none of them again merely to look.
"""

import contextlib
import functools
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from cnn_vit.data.base.parts import Encoded, Found, Part, Pixels, whole
from cnn_vit.data.base.threads import each
from cnn_vit.data.decode import images
from cnn_vit.data.decode.images import Header, UnreadableError
from cnn_vit.data.reading import unreadable
from cnn_vit.data.reading.scan_cache import Verdicts
from cnn_vit.data.reading.unreadable import Fault

FEW = 50_000  # pictures up to which each is decoded where nobody says
START = 2**16  # bytes in which most headers lie


def level(written: str, count: int) -> str:
    """How closely to look at so many pictures: what `data.check` says, or by their number."""
    if written != "auto":
        return written
    return "all" if count <= FEW else "header"


def looked(
    chosen: Iterable[tuple[Part, np.ndarray]], level: str, verdicts: Verdicts, *, workers: int
) -> tuple[set[Header], list[list[Fault]]]:
    """Looks at files.

    Args:
        chosen: parts, and indices (n,) of the pictures of each.
        level: "header", or "all", which decodes.
        verdicts: what is known of them; takes up what is found.
        workers: threads.

    Returns:
        All that the headers say, each once, and the faults of each part in the order of the indices.
    """
    heads: set[Header] = set()
    found: list[list[Fault]] = []
    for part, at in chosen:
        bad: list[Fault] = []
        found.append(bad)
        if isinstance(part, Pixels):
            heads.add(Header(*part.shape[:2], part.shape[2] == 3))
            continue
        for some in each(functools.partial(look, part, at, level, verdicts), len(at), workers):
            for index, result, new in some:
                if new:
                    verdicts.put(marked(part, index), level, result)
                if isinstance(result, UnreadableError):
                    bad.append(Fault(unreadable.where(part, index), index, result))
                else:
                    heads.add(result)
    return heads, found


def look(
    part: Encoded, at: np.ndarray, level: str, verdicts: Verdicts, some: range
) -> list[tuple[int, Header | UnreadableError, bool]]:
    """Index, header or what is wrong, and whether that is news to remember, of some files."""
    found = []
    for index in at[some.start : some.stop].tolist():
        known = verdicts.get(marked(part, index), level)
        result, lasts = (known, False) if known is not None else opened(part, index, level)
        found.append((index, result, lasts))
    return found


def opened(part: Encoded, index: int, level: str) -> tuple[Header | UnreadableError, bool]:
    """What is in a file, and whether that is of the file and not of the moment.

    A header is read from the beginning where that is enough.
    """
    if level == "header" and part.sizes[index] > START:
        with contextlib.suppress(UnreadableError):  # more of it may be needed
            return images.header(part.content(index, START)), True
    lasts = False
    try:
        with whole(part, index) as content:
            lasts = True
            return (images.inspected if level == "all" else images.header)(content), lasts
    except UnreadableError as error:
        return error.bare(), lasts and not isinstance(error.__cause__, MemoryError)


def marked(part: Encoded, index: int) -> str | None:
    """What stands for a file as it is now, or None where nothing does."""
    return None if part.mark is None else part.mark(index)


def without_bad(found: Found, written: str, verdicts: Verdicts, *, workers: int) -> tuple[Found, list[Fault]]:
    """The data as though the files that cannot be read were not there, and these files.

    Every file is looked at, whatever the slices: a slice is of what is left.

    Args:
        found: what the source gave.
        written: `data.check`.
        verdicts: what is known of the files.
        workers: threads.

    Raises:
        UserError: nothing is left of a part.
    """
    whole = {name: np.arange(len(part.labels)) for name, part in found.parts.items()}
    closely = level(written, counted(found.parts))
    _, bad = looked(((found.parts[name], at) for name, at in whole.items()), closely, verdicts, workers=workers)
    verdicts.save()
    parts: dict[str, Part] = {}
    for (name, part), wrong in zip(found.parts.items(), bad, strict=True):
        kept = np.setdiff1d(whole[name], [fault.at for fault in wrong])
        if not len(kept):
            unreadable.refuse(wrong, len(wrong))
        parts[name] = part if isinstance(part, Pixels) or not wrong else part.picked(kept)
    return replace(found, parts=parts), [fault for wrong in bad for fault in wrong]


def counted(parts: Mapping[str, Part]) -> int:
    """How many pictures there are as files."""
    return sum(len(part.labels) for part in parts.values() if isinstance(part, Encoded))
