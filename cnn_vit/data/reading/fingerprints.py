"""One sha256 for a whole data set, whatever the slices, the size of the images, the seed or the container.

Over (split, class, name, content) of every example, sorted; above 2 GB over (split, class, name, bytes). An example of
an array is named by its row, its content are shape and pixels. Drawn images are told by their rule and a sample.
"""

import hashlib
import json
import math
from collections.abc import Iterator

import numpy as np

from cnn_vit.data.base.parts import EncodedPart, Part, PixelPart, SourceData, read_whole
from cnn_vit.data.base.threads import map_ranges
from cnn_vit.data.decode.images import UnreadableError
from cnn_vit.data.reading import unreadable
from cnn_vit.errors import UserError

MOST = 2 * 10**9  # bytes that are read
SAMPLE = 64  # drawn images of each part


def data_fingerprint(found: SourceData, *, workers: int = 0) -> tuple[str, str]:
    """The fingerprint in hexadecimal, and what it was computed over."""
    if found.generator_settings is not None:
        return generated_digest(found), f"the rule of the images and the first {SAMPLE} of each part"
    whole = sum(map(part_bytes, found.parts.values())) <= MOST
    digest = hashlib.sha256()
    for name, part in sorted(found.parts.items()):
        marks = content_digests(part, workers) if whole else map(str, file_sizes(part))
        classes = (found.classes[label] for label in part.labels.tolist())
        names = part.names or map(str, range(len(part.labels)))
        for entry in sorted(zip(classes, names, marks, strict=True)):
            digest.update(length_prefixed(name, *entry))
    return digest.hexdigest(), "split, class, name and content" if whole else "split, class, name and bytes"


def generated_digest(found: SourceData) -> str:
    """Of images that are drawn: the rule, and enough of them to see another way of drawing."""
    digest = hashlib.sha256(json.dumps(found.generator_settings, sort_keys=True).encode())
    for _, part in sorted(found.parts.items()):
        if isinstance(part, PixelPart):
            digest.update(part.read(np.arange(min(SAMPLE, len(part.labels)))).tobytes())
    return digest.hexdigest()


def part_bytes(part: Part) -> int:
    """Bytes of a part's images."""
    return int(np.sum(file_sizes(part), dtype=np.int64))


def file_sizes(part: Part) -> np.ndarray:
    """Bytes of each image (N,)."""
    return np.full(len(part.labels), math.prod(part.shape)) if isinstance(part, PixelPart) else part.sizes


def content_digests(part: Part, workers: int) -> Iterator[str]:
    """The sha256 of each image's bytes, in hexadecimal."""

    def some(rows: range) -> list[str]:
        if isinstance(part, PixelPart):
            shape = length_prefixed(*map(str, part.shape))
            return [hashlib.sha256(shape + pixels.tobytes()).hexdigest() for pixels in part.read(np.array(rows))]
        return [file_digest(part, row) for row in rows]

    for found in map_ranges(some, len(part.labels), workers):
        yield from found


def file_digest(part: EncodedPart, index: int) -> str:
    """The sha256 of a file, in hexadecimal."""
    try:
        with read_whole(part, index) as content:
            return hashlib.sha256(content).hexdigest()
    except UnreadableError as error:
        raise UserError(str(unreadable.UnreadableFile(unreadable.path_of(part, index), index, error))) from error


def length_prefixed(*texts: str) -> bytes:
    """Texts one behind the other, each behind its length, so that no two lists give the same bytes."""
    return b"".join(b"%d:%s" % (len(raw), raw) for raw in (text.encode("utf-8", "surrogateescape") for text in texts))
