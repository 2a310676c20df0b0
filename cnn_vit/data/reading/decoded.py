"""Decoded images kept from start to start: the bytes of a split's array, in the cache's `decoded`.

A file there stands for the marks of all images (path, size, times of change), their size, colors and fit, and the
versions of what decodes: touch one image and all are decoded again. Its end is a checksum. The oldest go where there
are more than 2 GB. Where the cache cannot be read or written images are decoded at each start, and nothing else
changes.
"""

import contextlib
import hashlib
import math
import shutil
import zlib
from pathlib import Path

import numpy as np
import PIL

from cnn_vit import files
from cnn_vit.data.base.parts import EncodedPart, Part
from cnn_vit.data.decode import jpeg
from cnn_vit.errors import UserError
from cnn_vit.files import cache, stamps

RULES = 1  # raise it when `images` gives other pixels
LEAST = 2**20  # bytes of files that are worth it: about a tenth of a second
MOST = 2 * 2**30  # bytes of them all
SPARED = 4  # times its size must be free on the disk
CHECK = 4  # bytes of the checksum


class Buffer:
    """An array for the images of a split, filled where they are known.

    Attributes:
        pixels: (N, H, W, C) uint8.
        filled: whether it holds the images.
    """

    def __init__(self, part: Part, at: np.ndarray, shape: tuple[int, int, int], fit: str):
        self.path = decoded_buffer(part, at, shape, fit)
        size = len(at) * math.prod(shape)
        self.bytes = np.empty(size + CHECK, np.uint8)
        self.pixels = self.bytes[:size].reshape(len(at), *shape)
        self.filled = self.path is not None and read_exactly(self.path, self.bytes)

    def keep(self) -> None:
        """Writes down what has been filled in, where it is worth it and there is room."""
        if self.filled or self.path is None:
            return
        self.bytes[-CHECK:] = checksum(self.bytes)
        with contextlib.suppress(UserError, OSError):
            make_room(self.path.parent, len(self.bytes))
            files.write(self.path, self.bytes.data)
        self.filled = True


def decoded_buffer(part: Part, at: np.ndarray, shape: tuple[int, int, int], fit: str) -> Path | None:
    """Where the images of a split are kept; None where that is not worth it, or there is no cache."""
    if not isinstance(part, EncodedPart) or part.version is None or part.sizes[at].sum() < LEAST:
        return None
    digest = hashlib.sha256(f"{PIL.__version__}{jpeg.VERSION}:{RULES}:{shape}:{fit}".encode())
    for index in at.tolist():
        digest.update(hashlib.sha256(part.version(index).encode(errors="surrogateescape")).digest())
    with contextlib.suppress(UserError):
        return cache.folder() / "decoded" / digest.hexdigest()[:32]
    return None


def read_exactly(path: Path, into: np.ndarray) -> bool:
    """Reads a file of exactly so many bytes; whether it is whole."""
    try:
        with open(path, "rb") as file:
            whole = file.readinto(into.data) == len(into) and not file.read(1)
    except OSError:
        return False
    return whole and bool((into[-CHECK:] == checksum(into)).all())


def checksum(of: np.ndarray) -> np.ndarray:
    """The CRC-32 of all but the last bytes, as bytes."""
    return np.frombuffer(zlib.crc32(of[:-CHECK].data).to_bytes(CHECK, "big"), np.uint8)


def make_room(folder: Path, size: int) -> None:
    """Removes the oldest until a file of so many bytes may come.

    Raises:
        OSError: the disk has too little room to be spent on what can be had again.
    """
    kept = stamps.oldest_first(folder)
    total = sum(bytes for _, bytes in kept)
    for path, taken in kept:
        if total + size <= MOST:
            break
        files.remove(path)
        total -= taken
    there = next(one for one in (folder, *folder.parents) if one.is_dir())
    if shutil.disk_usage(there).free < SPARED * size:
        raise OSError(f"{there} is nearly full")
