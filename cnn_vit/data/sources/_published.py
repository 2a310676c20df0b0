"""What the sources of published files share: refusing a path, naming a damaged file in one sentence, reading IDX files.

MNIST and Fashion-MNIST are laid out alike: each keeps its addresses, checksums and classes, the rest is here.
"""

import gzip
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnn_vit.data.base.parts import Part, SourceOptions, pixel_part
from cnn_vit.errors import SurroundingsError, UserError
from cnn_vit.files import downloads
from cnn_vit.files.downloads import Remote

IDX_BYTES = 0x0800  # the first word of an IDX file of unsigned bytes; the number of dimensions is added to it

MNIST_SHAPE = (28, 28, 1)  # (H, W, C) of an image of MNIST and of Fashion-MNIST
MNIST_COUNTS = {"train": 60_000, "test": 10_000}  # their examples in each part

PartFiles = Mapping[str, tuple[Remote, Remote]]
"""The files of a data set in IDX format: part -> images and labels."""


# For all published files


def refuse_path_of_published(name: str, options: SourceOptions, remotes: Sequence[Remote]) -> None:
    """Raises UserError where a path is set: the source `name` knows its files."""
    if options.path is not None:
        file_names = ", ".join(Path(remote.name).name for remote in remotes)
        raise UserError(
            f"data.name={name} takes no path, data.path is {options.path!r}; unset it (--config.data.path=none): "
            f"{file_names} come from the cache, from CNN_VIT_MIRROR or from the network; "
            "or read a file of your own (--config.data.name=arrays)"
        )


def damaged_error(path: Path, problem: str) -> SurroundingsError:
    """Returns the error for a file that is not what it should be; the problem is a phrase that continues its path."""
    return SurroundingsError(f"{path} {problem}; remove it and give the same command again, which downloads it again")


def refuse_large_labels(path: Path, labels: np.ndarray, classes: int) -> None:
    """Raises SurroundingsError where a label of the file is not below the number of classes."""
    if len(labels) and labels.max() >= classes:
        raise damaged_error(path, f"has the label {labels.max()}, expected 0 to {classes - 1}")


def file_facts(remotes: Sequence[Remote]) -> dict[str, Any]:
    """Returns what data.json records of the files: the size in bytes and the sha256 of each."""
    return {"files": {Path(remote.name).name: {"bytes": remote.size, "sha256": remote.sha256} for remote in remotes}}


# For data sets in IDX files


def mirrored_file(folder: str, addresses: Sequence[str], name: str, *, size: int, sha256: str, md5: str) -> Remote:
    """Returns a file that has the same name at several addresses.

    Args:
        folder: the data set's folder in the cache, under data/.
        addresses: where the file can be had, each without the file's name, in the order to try.
        name: of the file.
        size: in bytes.
        sha256: in hexadecimal.
        md5: in hexadecimal.
    """
    full_addresses = tuple(f"{address}/{name}" for address in addresses)
    return Remote(full_addresses, f"data/{folder}/{name}", size, sha256, md5)


def list_remotes(files: PartFiles) -> list[Remote]:
    """Returns all files of a data set in the order of its parts, images before labels."""
    remotes: list[Remote] = []
    for part_remotes in files.values():
        remotes.extend(part_remotes)
    return remotes


def read_idx_parts(
    files: PartFiles, counts: Mapping[str, int], image_shape: tuple[int, int, int], *, classes: int
) -> dict[str, Part]:
    """Reads parts whose gray images and labels are packed IDX files; the examples keep the order of the files.

    Args:
        files: images and labels of each part.
        counts: number of examples of each part.
        image_shape: (H, W, 1).
        classes: number of classes; every label must be below it.

    Raises:
        SurroundingsError: a file cannot be had, or is damaged.
    """
    height, width, _ = image_shape
    parts: dict[str, Part] = {}
    for part, (images_remote, labels_remote) in files.items():
        images_path, labels_path = downloads.fetch(images_remote), downloads.fetch(labels_remote)
        # The labels come first: they are small, and a damaged file among them is named before the images are unpacked
        labels = read_idx(labels_path, (counts[part],))
        refuse_large_labels(labels_path, labels, classes)
        images = read_idx(images_path, (counts[part], height, width))
        parts[part] = pixel_part(images[..., None], labels)
    return parts


def read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Reads an array of unsigned bytes from a packed IDX file, which must hold an array of this shape.

    The format (http://yann.lecun.com/exdb/mnist/): 4 bytes 0, 0, 8 (unsigned bytes), number of dimensions; each
    dimension as 4 bytes, the highest first; then the bytes, the last dimension fastest. All of it packed by gzip.

    Raises:
        SurroundingsError: the file does not unpack, is not in this format, or holds an array of another shape.
    """
    expected_header = np.array([IDX_BYTES + len(shape), *shape], ">u4")
    expected_size = expected_header.nbytes + math.prod(shape)
    try:
        with gzip.open(path) as file:
            content = file.read(expected_size + 1)  # one byte more than expected shows that the file is too long
    except (OSError, EOFError, zlib.error) as error:
        raise damaged_error(path, f"does not unpack ({error})") from error
    header_bytes = min(expected_header.nbytes, len(content)) // 4 * 4  # whole words of 4 bytes, in a short file too
    header = np.frombuffer(content[:header_bytes], ">u4")
    expected_kind = f"expected 0x{expected_header[0]:08x} (IDX, bytes in {len(shape)} dimensions)"
    if not len(header):
        raise damaged_error(path, f"is empty, {expected_kind}")
    if header[0] != expected_header[0]:
        raise damaged_error(path, f"begins with 0x{header[0]:08x}, {expected_kind}")
    if not np.array_equal(header, expected_header):
        problem = f"holds {shape_text(header[1:])} bytes, expected {shape_text(expected_header[1:])}"
        raise damaged_error(path, problem)
    if len(content) > expected_size:
        raise damaged_error(path, f"unpacks to more than {expected_size:,} bytes, expected {expected_size:,}")
    if len(content) < expected_size:
        raise damaged_error(path, f"unpacks to {len(content):,} bytes, expected {expected_size:,}")
    return np.frombuffer(content, np.uint8, offset=expected_header.nbytes).reshape(shape)


def shape_text(shape: np.ndarray) -> str:
    """Returns a shape as text, such as 60000x28x28."""
    return "x".join(map(str, shape.tolist()))
