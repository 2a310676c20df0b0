"""A first look at any data: classes, how many images of each, their sizes and colors, before a size is chosen.

Sizes and colors are read from headers; nothing is decoded, but for what is skipped.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from cnn_vit.data import load_readable
from cnn_vit.data.base.parts import Part, PixelPart
from cnn_vit.data.decode.images import Header
from cnn_vit.data.reading import checking, unreadable
from cnn_vit.data.reading.unreadable import UnreadableFile
from cnn_vit.data.sections import complete_section

MOST_READ = 2_000  # images of a part, at most, whose headers are read


class HeaderSummary(NamedTuple):
    """What was seen.

    Attributes:
        classes: names in the order of the labels.
        counts: (K,) images of each class, of all parts together.
        image_sizes: (n, 2) height and width in pixels of those whose headers were read, taken evenly from each part.
        colored: whether any of these is stored in color.
        sampled: whether there are others.
        skipped: number of files that cannot be read, where they are skipped.
    """

    classes: tuple[str, ...]
    counts: np.ndarray
    image_sizes: np.ndarray
    colored: bool
    sampled: bool
    skipped: int


def summarize_headers(section: Mapping[str, Any]) -> HeaderSummary:
    """Looks at data.

    Args:
        section: settings of the data without `data.`, as `data.section_for_path` gives them; its size and colors are not read.

    Raises:
        UserError: nothing there, or in another layout; one class; no image that can be read.
    """
    final = complete_section(section)
    found, skipped, verdicts = load_readable(final)
    heads: list[Header] = []
    bad: list[UnreadableFile] = []
    for part in found.parts.values():
        seen, wrong = headers(part, verdicts)
        heads += seen
        bad += wrong
    verdicts.save()
    if not heads:
        unreadable.refuse_unreadable(bad, len(bad))
    labels = np.concatenate([part.labels for part in found.parts.values()])
    return HeaderSummary(
        classes=found.classes,
        counts=np.bincount(labels, minlength=len(found.classes)),
        image_sizes=np.array([(head.height, head.width) for head in heads], np.int64).reshape(-1, 2),
        colored=any(head.colored for head in heads),
        sampled=any(len(part.labels) > MOST_READ for part in found.parts.values() if not isinstance(part, PixelPart)),
        skipped=len(skipped),
    )


def headers(part: Part, verdicts: Any) -> tuple[list[Header], list[UnreadableFile]]:
    """Headers of some images of a part, taken evenly, and what has none that can be read."""
    if isinstance(part, PixelPart):
        return [Header(*part.shape[:2], part.shape[2] == 3)], []
    count = min(len(part.labels), MOST_READ)
    rows = np.arange(count, dtype=np.int64) * len(part.labels) // max(count, 1)
    heads, bad = [], []
    for index, result, new in checking.scan_range(part, rows, "header", verdicts, range(count)):
        if new:
            verdicts.put(checking.version_of(part, index), "header", result)
        if isinstance(result, Header):
            heads.append(result)
        else:
            bad.append(UnreadableFile(unreadable.path_of(part, index), index, result))
    return heads, bad
