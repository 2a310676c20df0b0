"""What a source hands to the rest of `data`: the parts of a data set, before slices, sizes and colors are settled."""

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cnn_vit.errors import UserError

PARTS = ("train", "validation", "test")
MOST_PER_READ = 256  # images that are read at once where all images of a part or a split are gone through ...
BYTES_PER_READ = 4 * 2**20  # ... and bytes of their pixels, unless a single image has more


@dataclass(frozen=True)
class DecodingOptions:
    """What the settings say of how files become pixels (`decode/pixel_rules.py`).

    Attributes:
        levels: the level that is white in images of 16 bits, such as 4095 for data of 12 bits; None: 65535.
        max_pixels: pixels of an image, at most; a larger one is refused by its header.
    """

    levels: int | None = None
    max_pixels: int = 50_000_000


@dataclass(frozen=True)
class FitOptions:
    """What the settings say of how an image is brought to the image size (`decode/images.fit_image`).

    Attributes:
        fit: "crop", "crop(SHARE)", "stretch", "pad(GRAY)" or "pad_batch".
        interpolation: "bilinear" or "bicubic".
    """

    fit: str = "crop"
    interpolation: str = "bilinear"


@dataclass(frozen=True)
class SourceOptions:
    """The common settings that a source may look at.

    Attributes:
        path: the file or folder to read.
        image_size: (height, width) in pixels; None: as the data is.
        channels: 1 or 3; None: as the data is.
        classes: the number of classes that the data must have; None: any.
        for_evaluation: whether the data are only to be evaluated on, and need no train split.
        decoding: how files become pixels; read by a source that decodes images itself.
    """

    path: str | None = None
    image_size: tuple[int, int] | None = None
    channels: int | None = None
    classes: int | None = None
    for_evaluation: bool = False
    decoding: DecodingOptions = field(default_factory=DecodingOptions)


@dataclass(frozen=True)
class SourceInfo:
    """What is known of a data set before any of its files is read.

    Attributes:
        classes: class names in the order of the labels.
        num_classes: how many classes there are.
        image_shape: (H, W, C).
        counts: the number of examples of each split; where a source says it, of each part.
    """

    classes: tuple[str, ...] | None = None
    num_classes: int | None = None
    image_shape: tuple[int, int, int] | None = None
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class PixelPart:
    """A part whose images are pixels already, all of one shape.

    Attributes:
        labels: (N,) int32.
        shape: (H, W, C).
        read: indices (n,) -> images (n, H, W, C) uint8; may be called by several threads at once.
        is_generated: whether `read` computes the images instead of looking them up.
    """

    labels: np.ndarray
    shape: tuple[int, int, int]
    read: Callable[[np.ndarray], np.ndarray]
    is_generated: bool = False
    names: None = None

    def select(self, rows: np.ndarray) -> "PixelPart":
        """Returns the images with these indices, (n,), as a part."""
        return PixelPart(self.labels[rows], self.shape, lambda indices: self.read(rows[indices]), self.is_generated)


@dataclass(frozen=True)
class EncodedPart:
    """A part whose images are files of some format, of any sizes.

    Attributes:
        labels: (N,) int32.
        content: (index, most) -> the first `most` bytes of a file, or all of them where `most` is None; may be called
            by several threads at once; raises `images.UnreadableError` where the bytes cannot be had.
        sizes: (N,) int64, the size of each file in bytes.
        path_of: index -> what an error message calls the file: its path.
        names: the names of the files, `CLASS/x.jpg`; None where they have none.
        version: index -> a text that changes whenever the file does and that is known without reading it (path, size,
            times of change); None where there is no such text.
        decoding: how the files become pixels; `data.load_readable` sets it from the settings.
    """

    labels: np.ndarray
    content: Callable[[int, int | None], bytes]
    sizes: np.ndarray
    path_of: Callable[[int], str]
    names: Sequence[str] | None = None
    version: Callable[[int], str] | None = None
    decoding: DecodingOptions = field(default_factory=DecodingOptions)

    def select(self, rows: np.ndarray) -> "EncodedPart":
        """Returns the files with these indices, (n,), as a part."""
        indices = np.asarray(rows, np.int64).tolist()
        version = self.version
        return EncodedPart(
            labels=self.labels[rows],
            content=lambda row, most: self.content(indices[row], most),
            sizes=self.sizes[rows],
            path_of=lambda row: self.path_of(indices[row]),
            names=None if self.names is None else [self.names[index] for index in indices],
            version=None if version is None else lambda row: version(indices[row]),
            decoding=self.decoding,
        )


Part = PixelPart | EncodedPart

LARGE_FILE = 2**24  # bytes; of files larger than this only one at a time is held in memory
_large_file_lock = threading.Lock()


@contextlib.contextmanager
def read_whole(part: EncodedPart, index: int) -> Iterator[bytes]:
    """Gives all bytes of a file while the context is open; of large files, one at a time for all threads together.

    Raises:
        UnreadableError: the bytes cannot be had.
    """
    is_large = part.sizes[index] > LARGE_FILE
    with _large_file_lock if is_large else contextlib.nullcontext():
        yield part.content(index, None)


@dataclass(frozen=True)
class ImageFolders:
    """The folders that a source reads images from, into which nothing else may be written.

    Attributes:
        roots: paths of the whole data and of its splits, in which class folders lie; other folders may lie beside them.
        classes: paths of the class folders, and of folders of images without labels.
    """

    roots: tuple[str, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class SourceData:
    """What a source has read.

    Attributes:
        classes: class names in the order of the labels.
        parts: "train", and "validation" and "test" where the source has them.
        generator_settings: the keywords that images are drawn from, which stand for them in the fingerprint; None where
            the images are not drawn.
        facts: what the source adds to data.json.
        is_undivided: whether train is the whole data, still to be cut into train, validation and test.
        folders: where the images lie; None where they lie in no folders.
        highest_level: the highest level of all images of 16 bits that the source itself has decoded; None where it has
            decoded none.
        is_named: whether the data themselves name their classes; else the names are the labels as text.
    """

    classes: tuple[str, ...]
    parts: Mapping[str, Part]
    generator_settings: dict[str, Any] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    is_undivided: bool = False
    folders: ImageFolders | None = None
    highest_level: int | None = None
    is_named: bool = True


def images_per_read(image_shape: Sequence[int]) -> int:
    """Returns how many images (H, W, C) to read at once, so that memory stays small whatever their size; at least 1."""
    return max(1, min(MOST_PER_READ, BYTES_PER_READ // math.prod(image_shape)))


def require_path(name: str, options: SourceOptions) -> str:
    """Returns the path that a source reads.

    Raises:
        UserError: there is none; the message shows how to give one.
    """
    if options.path is None:
        raise UserError(f"data.name={name} needs a path; add --config.data.path=PATH")
    return options.path


def refuse_path(name: str, options: SourceOptions) -> None:
    """Refuses a path that a source would not read.

    Raises:
        UserError: there is a path.
    """
    if options.path is not None:
        raise UserError(
            f"data.name={name} reads no file, data.path is {options.path!r}; unset it (--config.data.path=none), "
            "or choose data.name=folder or data.name=arrays"
        )


def pixel_part(pixels: np.ndarray, labels: np.ndarray) -> PixelPart:
    """Makes a part of arrays: pixels (N, H, W, C) uint8 and labels (N,)."""
    _, height, width, channels = pixels.shape
    return PixelPart(labels.astype(np.int32), (height, width, channels), pixels.__getitem__)
