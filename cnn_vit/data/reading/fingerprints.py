"""Computes one sha256 for a whole data set, whatever the slices, the image size, the seed or the container.

It is over (split, class, name, content) of every example, sorted; above 2 GB over (split, class, name, bytes). The name
of an array's example is its row, its content are shape and pixels. Where images are files it is also over the version
of the rules by which these become pixels. For drawn images it is over the rule that draws them and a sample.
"""

import hashlib
import json
import math
from collections.abc import Iterator

import numpy as np

from cnn_vit.data.base.parts import EncodedPart, Part, PixelPart, SourceData, images_per_read, read_whole
from cnn_vit.data.base.threads import map_ranges
from cnn_vit.data.decode import pixel_rules
from cnn_vit.data.decode.images import UnreadableError
from cnn_vit.data.reading import unreadable
from cnn_vit.errors import UserError

MOST_READ = 2 * 10**9  # bytes up to which the contents are read
SAMPLE = 64  # drawn images of each part


def data_fingerprint(source_data: SourceData, *, workers: int = 0) -> tuple[str, str]:
    """Returns the fingerprint of a data set in hexadecimal, and what it was computed over, in words."""
    if source_data.generator_settings is not None:
        return generated_digest(source_data), f"the rule of the images and the first {SAMPLE} of each part"
    reads_content = sum(map(part_bytes, source_data.parts.values())) <= MOST_READ
    digest = hashlib.sha256()
    if any(isinstance(part, EncodedPart) for part in source_data.parts.values()):
        digest.update(length_prefixed("version of pixels", str(pixel_rules.VERSION)))
    for part_name, part in sorted(source_data.parts.items()):
        contents = content_digests(part, workers) if reads_content else map(str, file_sizes(part))
        classes = (source_data.classes[label] for label in part.labels.tolist())
        names = part.names or map(str, range(len(part.labels)))
        # Sorted, so that the order in which a container lists its files does not matter.
        for class_name, name, content in sorted(zip(classes, names, contents, strict=True)):
            digest.update(length_prefixed(part_name, class_name, name, content))
    return digest.hexdigest(), "split, class, name and content" if reads_content else "split, class, name and bytes"


def generated_digest(source_data: SourceData) -> str:
    """Returns the digest of images that are drawn: of the rule, and of enough of them to notice another drawing."""
    digest = hashlib.sha256(json.dumps(source_data.generator_settings, sort_keys=True).encode())
    for _, part in sorted(source_data.parts.items()):
        if isinstance(part, PixelPart):
            for pixels in read_in_order(part, range(min(SAMPLE, len(part.labels)))):
                digest.update(pixels.tobytes())
    return digest.hexdigest()


def read_in_order(part: PixelPart, rows: range) -> Iterator[np.ndarray]:  # -> (H, W, C) each
    """Yields the images of these rows, of which a few MB are in memory at once, or one larger image."""
    images_at_once = images_per_read(part.shape)
    for start in range(rows.start, rows.stop, images_at_once):
        yield from part.read(np.arange(start, min(start + images_at_once, rows.stop)))


def part_bytes(part: Part) -> int:
    """Returns the size of all images of a part together, in bytes."""
    return int(np.sum(file_sizes(part), dtype=np.int64))


def file_sizes(part: Part) -> np.ndarray:
    """Returns the size of each image of a part in bytes, (N,): of its file, else of its pixels."""
    if isinstance(part, PixelPart):
        return np.full(len(part.labels), math.prod(part.shape))
    return part.sizes


def content_digests(part: Part, workers: int) -> Iterator[str]:
    """Yields the sha256 of each image's content, in hexadecimal and in the order of the part."""

    def digest_rows(rows: range) -> list[str]:
        if isinstance(part, PixelPart):
            # Equal bytes in another shape are another image.
            shape = length_prefixed(*map(str, part.shape))
            return [hashlib.sha256(shape + pixels.tobytes()).hexdigest() for pixels in read_in_order(part, rows)]
        return [file_digest(part, row) for row in rows]

    for digests in map_ranges(digest_rows, len(part.labels), workers):
        yield from digests


def file_digest(part: EncodedPart, index: int) -> str:
    """Returns the sha256 of a file, in hexadecimal.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with read_whole(part, index) as content:
            return hashlib.sha256(content).hexdigest()
    except UnreadableError as error:
        raise UserError(str(unreadable.UnreadableFile(unreadable.path_of(part, index), index, error))) from error


def length_prefixed(*texts: str) -> bytes:
    """Joins texts to bytes, each behind its length, so that no two lists of texts give the same bytes."""
    encoded_texts = [text.encode("utf-8", "surrogateescape") for text in texts]
    return b"".join(b"%d:%s" % (len(encoded), encoded) for encoded in encoded_texts)
