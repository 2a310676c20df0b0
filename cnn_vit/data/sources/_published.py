"""What sources of published files share: they take no path, a damaged file is one sentence, and the format IDX."""

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

BYTES = 0x0800  # IDX: unsigned bytes; the number of dimensions is added


def without_path(name: str, given: SourceOptions, remotes: Sequence[Remote]) -> None:
    """Refuses a path: the source knows its files."""
    if given.path is not None:
        theirs = ", ".join(Path(remote.name).name for remote in remotes)
        raise UserError(
            f"data.name={name} takes no path, data.path is {given.path!r}; unset it (--config.data.path=none): "
            f"{theirs} come from the cache, from CNN_VIT_MIRROR or from the network; "
            "or read a file of your own (--config.data.name=arrays)"
        )


def damaged_error(path: Path, what: str) -> SurroundingsError:
    """The error for a file that is not what it should be; `what` is a phrase behind its path."""
    return SurroundingsError(f"{path} {what}; remove it and give the same command again, which brings it anew")


def file_facts(remotes: Sequence[Remote]) -> dict[str, Any]:
    """What data.json keeps of the files."""
    return {"files": {Path(remote.name).name: {"bytes": remote.size, "sha256": remote.sha256} for remote in remotes}}


def idx_parts(
    files: Mapping[str, tuple[Remote, Remote]],
    counts: Mapping[str, int],
    image_shape: tuple[int, int, int],
    *,
    classes: int,
) -> dict[str, Part]:
    """Parts whose gray images and labels are packed IDX files, in the order of the files.

    Args:
        files: part -> images and labels.
        counts: examples of each part.
        image_shape: (H, W, 1).
        classes: how many; labels are below.

    Raises:
        SurroundingsError: a file cannot be had, or is damaged.
    """
    parts: dict[str, Part] = {}
    for name, remotes in files.items():
        images, marks = (downloads.fetch(remote) for remote in remotes)
        labels = idx(marks, (counts[name],))
        refuse_labels(marks, labels, classes)
        parts[name] = pixel_part(idx(images, (counts[name], *image_shape[:2]))[..., None], labels)
    return parts


def idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """An array of bytes from a packed IDX file, which must have this shape.

    The format (http://yann.lecun.com/exdb/mnist/): 4 bytes 0, 0, 8 (unsigned bytes), number of dimensions; each
    dimension as 4 bytes, the highest first; then the bytes, the last dimension fastest. All of it packed by gzip.

    Raises:
        SurroundingsError: it does not unpack, is no such file or has another shape.
    """
    head = np.array([BYTES + len(shape), *shape], ">u4")
    size = head.nbytes + math.prod(shape)
    try:
        with gzip.open(path) as file:
            content = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise damaged_error(path, f"does not unpack ({error})") from error
    found = np.frombuffer(content[: min(head.nbytes, len(content)) // 4 * 4], ">u4")
    if not len(found) or found[0] != head[0]:
        magic = f"begins with 0x{found[0]:08x}" if len(found) else "is empty"
        raise damaged_error(path, f"{magic}, expected 0x{head[0]:08x} (IDX, bytes in {len(shape)} dimensions)")
    if not np.array_equal(found, head):
        raise damaged_error(path, f"holds {shape_text(found[1:])} bytes, expected {shape_text(head[1:])}")
    if len(content) != size:
        more = "more than " * (len(content) > size)
        raise damaged_error(path, f"unpacks to {more}{min(len(content), size):,} bytes, expected {size:,}")
    return np.frombuffer(content, np.uint8, offset=head.nbytes).reshape(shape)


def shape_text(shape: np.ndarray) -> str:
    """A shape as text: 60000x28x28."""
    return "x".join(map(str, shape.tolist()))


def refuse_labels(path: Path, labels: np.ndarray, classes: int) -> None:
    """Refuses a label beyond the classes."""
    if len(labels) and labels.max() >= classes:
        raise damaged_error(path, f"has the label {labels.max()}, expected 0 to {classes - 1}")
