"""Scans image files before the first step: the header of each, or all of it, and each file only once.

A scan finds the sizes of the images and the files that cannot be read. What it has found is remembered in a
`ScanCache`, so that the next start opens no file again merely to scan it.
"""

import contextlib
import functools
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from cnn_vit.data.base.parts import EncodedPart, Part, PixelPart, SourceData, read_whole
from cnn_vit.data.base.threads import map_ranges
from cnn_vit.data.decode import images
from cnn_vit.data.decode.images import Header, UnreadableError
from cnn_vit.data.reading import unreadable
from cnn_vit.data.reading.scan_cache import ScanCache
from cnn_vit.data.reading.unreadable import UnreadableFile

MOST_DECODED = 50_000  # files up to which data.check=auto decodes each of them
HEADER_BYTES = 2**16  # bytes at the beginning of a file in which most headers lie


class ScannedFile(NamedTuple):
    """What the scan of one file has found.

    Attributes:
        image_index: index of the image in its part.
        outcome: the header, or the error that says why the file cannot be read.
        is_new: whether the outcome was not in the cache and is to be remembered there.
    """

    image_index: int
    outcome: Header | UnreadableError
    is_new: bool


def scan_level(check: str, count: int) -> str:
    """Returns how closely to scan `count` images: "none", "header" or "all". `check` is the setting `data.check`."""
    if check != "auto":
        return check
    return "all" if count <= MOST_DECODED else "header"


def scan_files(
    selections: Iterable[tuple[Part, np.ndarray]], level: str, scan_cache: ScanCache, *, workers: int
) -> tuple[set[Header], list[list[UnreadableFile]]]:
    """Scans the files of some parts.

    Args:
        selections: parts, each with the indices (n,) of the images to scan.
        level: "header", or "all", which also decodes.
        scan_cache: what earlier scans have found; new outcomes are put into it.
        workers: number of threads.

    Returns:
        The different headers of all parts together, and the unreadable files of each part in the order of the indices.
    """
    headers: set[Header] = set()
    unreadable_by_part: list[list[UnreadableFile]] = []
    for part, indices in selections:
        unreadable_files: list[UnreadableFile] = []
        unreadable_by_part.append(unreadable_files)
        if isinstance(part, PixelPart):  # has no files: its one shape stands for all headers
            headers.add(Header(*part.shape[:2], part.shape[2] == 3))
            continue
        scan = functools.partial(scan_range, part, indices, level, scan_cache)
        for scanned_files in map_ranges(scan, len(indices), workers):
            range_headers, range_unreadable = remember_scan(part, scanned_files, level, scan_cache)
            headers.update(range_headers)
            unreadable_files += range_unreadable
    return headers, unreadable_by_part


def scan_range(
    part: EncodedPart, indices: np.ndarray, level: str, scan_cache: ScanCache, rows: range
) -> list[ScannedFile]:
    """Scans the files at a range of rows of `indices` (n,). Only reads the cache, so that threads may share it."""
    scanned_files = []
    for index in indices[rows.start : rows.stop].tolist():
        outcome, is_new = scan_cache.get(file_version(part, index), level), False
        if outcome is None:
            outcome, is_new = scan_file(part, index, level)
        scanned_files.append(ScannedFile(index, outcome, is_new))
    return scanned_files


def remember_scan(
    part: EncodedPart, scanned_files: Iterable[ScannedFile], level: str, scan_cache: ScanCache
) -> tuple[list[Header], list[UnreadableFile]]:
    """Puts new outcomes of a scan into the cache, and returns the headers and the files that cannot be read."""
    headers: list[Header] = []
    unreadable_files: list[UnreadableFile] = []
    for index, outcome, is_new in scanned_files:
        if is_new:
            scan_cache.put(file_version(part, index), level, outcome)
        if isinstance(outcome, UnreadableError):
            unreadable_files.append(UnreadableFile(unreadable.path_of(part, index), index, outcome))
        else:
            headers.append(outcome)
    return headers, unreadable_files


def scan_file(part: EncodedPart, index: int, level: str) -> tuple[Header | UnreadableError, bool]:
    """Scans one file; a header is read from the file's beginning where that is enough.

    Returns:
        The header or the error, and whether this is a property of the file that is worth remembering. An error of the
        moment, such as a missing right or too little memory, is not.
    """
    if level == "header" and part.sizes[index] > HEADER_BYTES:
        with contextlib.suppress(UnreadableError):  # the header may be longer: the whole file is tried below
            return images.read_header(part.content(index, HEADER_BYTES), part.decoding), True
    has_content = False
    try:
        with read_whole(part, index) as content:
            has_content = True
            read = images.inspect_file if level == "all" else images.read_header
            return read(content, part.decoding), True
    except UnreadableError as error:
        # Kept bare: the traceback would hold all bytes of the file in memory.
        return error.without_traceback(), has_content and not isinstance(error.__cause__, MemoryError)


def file_version(part: EncodedPart, index: int) -> str | None:
    """Returns a text that changes whenever a file, or how it is decoded, does; None where there is none."""
    return None if part.version is None else f"{part.version(index)}:{part.decoding}"


def drop_unreadable(
    source_data: SourceData, check: str, scan_cache: ScanCache, *, workers: int
) -> tuple[SourceData, list[UnreadableFile]]:
    """Returns the data as if its unreadable files were not there, and these files.

    Every file is scanned, whatever the slices: a slice is taken from the files that are left.

    Args:
        source_data: what the source has.
        check: the setting `data.check`.
        scan_cache: what earlier scans have found; new outcomes are saved in it.
        workers: number of threads.

    Raises:
        UserError: nothing is left of a part.
    """
    level = scan_level(check, count_files(source_data.parts))
    all_indices = [np.arange(len(part.labels)) for part in source_data.parts.values()]
    selections = zip(source_data.parts.values(), all_indices, strict=True)
    _, unreadable_by_part = scan_files(selections, level, scan_cache, workers=workers)
    scan_cache.save()
    parts: dict[str, Part] = {}
    for (name, part), indices, unreadable_files in zip(
        source_data.parts.items(), all_indices, unreadable_by_part, strict=True
    ):
        readable = np.setdiff1d(indices, [file.index for file in unreadable_files])
        if not len(readable):
            unreadable.refuse_unreadable(unreadable_files, len(unreadable_files))
        parts[name] = part.select(readable) if unreadable_files else part
    return replace(source_data, parts=parts), list(itertools.chain.from_iterable(unreadable_by_part))


def count_files(parts: Mapping[str, Part]) -> int:
    """Returns the number of images that are files, in all parts together."""
    return sum(len(part.labels) for part in parts.values() if isinstance(part, EncodedPart))
