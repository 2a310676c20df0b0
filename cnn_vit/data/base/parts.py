"""What a source hands to the room: the parts a data set comes in, before slices, sizes and colors are settled."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from cnn_vit.errors import UserError

PARTS = ("train", "validation", "test")


class SourceOptions(NamedTuple):
    """Common settings that a source may look at.

    Attributes:
        path: file or folder.
        image_size: (height, width) in pixels; None: as the data is.
        channels: 1 or 3; None: as the data is.
        classes: number of classes that the data must have; None: as found.
    """

    path: str | None = None
    image_size: tuple[int, int] | None = None
    channels: int | None = None
    classes: int | None = None


class SourceInfo(NamedTuple):
    """What is known of a data set without its files.

    Attributes:
        classes: names in the order of the labels.
        num_classes: how many.
        image_shape: (H, W, C).
        counts: examples of each split; of each part, where a source says it.
    """

    classes: tuple[str, ...] | None = None
    num_classes: int | None = None
    image_shape: tuple[int, int, int] | None = None
    counts: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True)
class PixelPart:
    """A part whose images are pixels already, all of one shape.

    Attributes:
        labels: (N,) int32.
        shape: (H, W, C).
        read: indices (n,) -> (n, H, W, C) uint8; safe in threads.
        is_generated: whether `read` computes the images, instead of looking them up.
    """

    labels: np.ndarray
    shape: tuple[int, int, int]
    read: Callable[[np.ndarray], np.ndarray]
    is_generated: bool = False
    names: None = None

    def select_rows(self, rows: np.ndarray) -> "PixelPart":
        """Some of the images, (n,) indices, as a part."""
        return PixelPart(self.labels[rows], self.shape, lambda indices: self.read(rows[indices]), self.is_generated)


@dataclass(frozen=True)
class EncodedPart:
    """A part whose images are files of some format, of any sizes.

    Attributes:
        labels: (N,) int32.
        content: (index, most) -> the first `most` bytes of a file, all of them where `most` is None; safe in threads;
            `images.UnreadableError` where there are none to be had.
        sizes: (N,) int64, bytes of each.
        where: index -> what an error calls it: its path.
        names: of the files, `CLASS/x.jpg`; None where they have none.
        version: index -> a text that changes whenever the file does, without reading it: path, size, times of change; None
            where there is no such text.
    """

    labels: np.ndarray
    content: Callable[[int, int | None], bytes]
    sizes: np.ndarray
    where: Callable[[int], str]
    names: Sequence[str] | None = None
    version: Callable[[int], str] | None = None

    def select_rows(self, rows: np.ndarray) -> "EncodedPart":
        """Some of the files, (n,) indices, as a part."""
        at = np.asarray(rows, np.int64).tolist()
        mark = self.version
        return EncodedPart(
            labels=self.labels[rows],
            content=lambda index, most: self.content(at[index], most),
            sizes=self.sizes[rows],
            where=lambda index: self.where(at[index]),
            names=None if self.names is None else [self.names[row] for row in at],
            version=None if mark is None else lambda index: mark(at[index]),
        )


Part = PixelPart | EncodedPart

LARGE_FILE = 2**24  # bytes of a file of which one at a time is held
_alone = threading.Lock()


@contextlib.contextmanager
def read_whole(part: EncodedPart, index: int) -> Iterator[bytes]:
    """All bytes of a file while they are looked at: of large ones one at a time, however many threads there are.

    Raises:
        UnreadableError: there are none to be had.
    """
    with _alone if part.sizes[index] > LARGE_FILE else contextlib.nullcontext():
        yield part.content(index, None)


@dataclass(frozen=True)
class SourceData:
    """What a source found.

    Attributes:
        classes: names in the order of the labels.
        parts: "train", and "validation" and "test" where there are such.
        generator_settings: keywords that images are drawn from, for their fingerprint; None where the data are data.
        facts: for data.json.
        is_undivided: whether train is all there is, to be cut in three.
    """

    classes: tuple[str, ...]
    parts: Mapping[str, Part]
    generator_settings: dict[str, Any] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    is_undivided: bool = False


def require_path(name: str, given: SourceOptions) -> str:
    """The path that a source reads, or an error that says how to give one."""
    if given.path is None:
        raise UserError(f"data.name={name} needs a path; add --config.data.path=PATH")
    return given.path


def refuse_path(name: str, given: SourceOptions) -> None:
    """Refuses a path that a source would not read."""
    if given.path is not None:
        raise UserError(
            f"data.name={name} reads no file, data.path is {given.path!r}; unset it (--config.data.path=none), "
            "or choose data.name=folder or data.name=arrays"
        )


def pixel_part(pixels: np.ndarray, labels: np.ndarray) -> PixelPart:
    """A part of arrays: pixels (N, H, W, C) uint8, labels (N,)."""
    _, height, width, channels = pixels.shape
    return PixelPart(labels.astype(np.int32), (height, width, channels), pixels.__getitem__)
