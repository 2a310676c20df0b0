"""Looking at image files before the first step: at the header of each or at all of it, once for each file.

What was found is remembered (`verdicts`), so that the next start opens none of them again merely to look.
"""

import contextlib
import functools
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from cnn_vit.data.base.parts import EncodedPart, Part, PixelPart, SourceData, read_whole
from cnn_vit.data.base.threads import map_ranges
from cnn_vit.data.decode import images
from cnn_vit.data.decode.images import Header, UnreadableError
from cnn_vit.data.reading import unreadable
from cnn_vit.data.reading.scan_cache import ScanCache
from cnn_vit.data.reading.unreadable import UnreadableFile

FEW = 50_000  # images up to which each is decoded where nobody says
START = 2**16  # bytes in which most headers lie


def scan_level(written: str, count: int) -> str:
    """How closely to look at so many images: what `data.check` says, or by their number."""
    if written != "auto":
        return written
    return "all" if count <= FEW else "header"


def scan_files(
    chosen: Iterable[tuple[Part, np.ndarray]], level: str, verdicts: ScanCache, *, workers: int
) -> tuple[set[Header], list[list[UnreadableFile]]]:
    """Looks at files.

    Args:
        chosen: parts, and indices (n,) of the images of each.
        level: "header", or "all", which decodes.
        verdicts: what is known of them; takes up what is found.
        workers: threads.

    Returns:
        All that the headers say, each once, and the faults of each part in the order of the indices.
    """
    heads: set[Header] = set()
    found: list[list[UnreadableFile]] = []
    for part, at in chosen:
        bad: list[UnreadableFile] = []
        found.append(bad)
        if isinstance(part, PixelPart):
            heads.add(Header(*part.shape[:2], part.shape[2] == 3))
            continue
        for some in map_ranges(functools.partial(scan_range, part, at, level, verdicts), len(at), workers):
            for index, result, new in some:
                if new:
                    verdicts.put(version_of(part, index), level, result)
                if isinstance(result, UnreadableError):
                    bad.append(UnreadableFile(unreadable.path_of(part, index), index, result))
                else:
                    heads.add(result)
    return heads, found


def scan_range(
    part: EncodedPart, at: np.ndarray, level: str, verdicts: ScanCache, some: range
) -> list[tuple[int, Header | UnreadableError, bool]]:
    """Index, header or what is wrong, and whether that is news to remember, of some files."""
    found = []
    for index in at[some.start : some.stop].tolist():
        known = verdicts.get(version_of(part, index), level)
        result, lasts = (known, False) if known is not None else scan_file(part, index, level)
        found.append((index, result, lasts))
    return found


def scan_file(part: EncodedPart, index: int, level: str) -> tuple[Header | UnreadableError, bool]:
    """What is in a file, and whether that is of the file and not of the moment.

    A header is read from the beginning where that is enough.
    """
    if level == "header" and part.sizes[index] > START:
        with contextlib.suppress(UnreadableError):  # more of it may be needed
            return images.read_header(part.content(index, START)), True
    lasts = False
    try:
        with read_whole(part, index) as content:
            lasts = True
            return (images.inspect_file if level == "all" else images.read_header)(content), lasts
    except UnreadableError as error:
        return error.bare(), lasts and not isinstance(error.__cause__, MemoryError)


def version_of(part: EncodedPart, index: int) -> str | None:
    """What stands for a file as it is now, or None where nothing does."""
    return None if part.version is None else part.version(index)


def without_unreadable(
    found: SourceData, written: str, verdicts: ScanCache, *, workers: int
) -> tuple[SourceData, list[UnreadableFile]]:
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
    closely = scan_level(written, count_files(found.parts))
    _, bad = scan_files(((found.parts[name], at) for name, at in whole.items()), closely, verdicts, workers=workers)
    verdicts.save()
    parts: dict[str, Part] = {}
    for (name, part), wrong in zip(found.parts.items(), bad, strict=True):
        kept = np.setdiff1d(whole[name], [fault.index for fault in wrong])
        if not len(kept):
            unreadable.refuse_unreadable(wrong, len(wrong))
        parts[name] = part if isinstance(part, PixelPart) or not wrong else part.select_rows(kept)
    return replace(found, parts=parts), [fault for wrong in bad for fault in wrong]


def count_files(parts: Mapping[str, Part]) -> int:
    """How many images there are as files."""
    return sum(len(part.labels) for part in parts.values() if isinstance(part, EncodedPart))
