"""Takes a first look at any data: classes, images of each, their sizes and colors, before an image size is chosen.

Sizes and colors are read from headers; nothing is decoded, except where unreadable files are to be skipped.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnn_vit.data import load_readable
from cnn_vit.data.base.parts import Part, PixelPart
from cnn_vit.data.decode.images import Header
from cnn_vit.data.reading import checking, unreadable
from cnn_vit.data.reading.scan_cache import ScanCache
from cnn_vit.data.reading.unreadable import UnreadableFile
from cnn_vit.data.sections import complete_section

MOST_READ = 2_000  # images of a part, at most, whose headers are read


@dataclass(frozen=True)
class HeaderSummary:
    """What the headers of a data set say.

    Attributes:
        classes: names in the order of the labels.
        counts: (K,) images of each class, of all parts together.
        image_sizes: (n, 2) height and width in pixels of those whose headers were read, taken evenly from each part.
        colored: whether any of these is stored in color.
        sampled: whether there are others, whose headers were not read.
        skipped: number of files that cannot be read, where they are skipped.
    """

    classes: tuple[str, ...]
    counts: np.ndarray
    image_sizes: np.ndarray
    colored: bool
    sampled: bool
    skipped: int


def summarize_headers(section: Mapping[str, Any]) -> HeaderSummary:
    """Reads headers of a data set.

    Args:
        section: settings of the data without `data.`, as `data.section_for_path` gives them; image size and channels
            in it are not used.

    Raises:
        UserError: nothing is there, or it has another layout; one class; no image that can be read.
    """
    source_data, skipped, scan_cache = load_readable(complete_section(section))
    parts = source_data.parts.values()
    headers: list[Header] = []
    unreadable_files: list[UnreadableFile] = []
    for part in parts:
        part_headers, part_unreadable = sample_headers(part, scan_cache)
        headers += part_headers
        unreadable_files += part_unreadable
    scan_cache.save()
    if not headers:
        unreadable.refuse_unreadable(unreadable_files, len(unreadable_files))
    labels = np.concatenate([part.labels for part in parts])
    return HeaderSummary(
        classes=source_data.classes,
        counts=np.bincount(labels, minlength=len(source_data.classes)),
        image_sizes=np.array([(header.height, header.width) for header in headers], np.int64).reshape(-1, 2),
        colored=any(header.colored for header in headers),
        sampled=any(len(part.labels) > MOST_READ for part in parts if not isinstance(part, PixelPart)),
        skipped=len(skipped),
    )


def sample_headers(part: Part, scan_cache: ScanCache) -> tuple[list[Header], list[UnreadableFile]]:
    """Reads the headers of some images of a part, taken evenly; also returns those that cannot be read."""
    if isinstance(part, PixelPart):  # one shape for all
        return [Header(*part.shape[:2], part.shape[2] == 3)], []
    count = min(len(part.labels), MOST_READ)
    indices = np.arange(count, dtype=np.int64) * len(part.labels) // max(count, 1)
    scanned_files = checking.scan_range(part, indices, "header", scan_cache, range(count))
    return checking.remember_scan(part, scanned_files, "header", scan_cache)
