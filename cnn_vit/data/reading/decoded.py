"""Keeps decoded images from start to start: the pixels of a split as one file, in the folder `decoded` of the cache.

The name of such a file is a hash of the file versions of all its images (path, size, times of change), of their size,
colors, fit and interpolation, of how they are decoded and of the versions of the decoders: touch one image and all are
decoded again. A file ends with the highest level of 16 bits and a checksum. Together the files take at most 2 GB; the
oldest are removed. Where the cache cannot be read or written the images are decoded at each start, and nothing else
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
from cnn_vit.data.base.parts import EncodedPart, FitOptions, Part
from cnn_vit.data.decode import jpeg, pixel_rules
from cnn_vit.errors import UserError
from cnn_vit.files import cache, stamps

LEAST_ENCODED = 2**20  # bytes of encoded files from which on keeping is worth it: about a tenth of a second
MOST_KEPT = 2 * 2**30  # bytes of all kept files together
FREE_FACTOR = 4  # the disk must have this many times the size of a new file free
LEVEL_BYTES = 4  # of the highest level
CHECKSUM_BYTES = 4


class Buffer:
    """An array for the images of a split, filled from the cache where they are there.

    Attributes:
        path: the file in the cache; None where the images are not worth keeping.
        bytes: (N H W C + 8,) uint8: the pixels, their highest level of 16 bits and a checksum, as the file has them.
        pixels: (N, H, W, C) uint8, a view of `bytes`.
        is_filled: whether the pixels are those of the images.
    """

    def __init__(self, part: Part, indices: np.ndarray, shape: tuple[int, int, int], fit_options: FitOptions):
        self.path = buffer_path(part, indices, shape, fit_options)
        size = len(indices) * math.prod(shape)
        self.bytes = np.empty(size + LEVEL_BYTES + CHECKSUM_BYTES, np.uint8)
        self.pixels = self.bytes[:size].reshape(len(indices), *shape)
        self._level = self.bytes[size : size + LEVEL_BYTES]
        self.is_filled = self.path is not None and read_exactly(self.path, self.bytes)

    @property
    def highest_level(self) -> int | None:
        """The highest level of all images of 16 bits; None where all have fewer. Only of a filled or given buffer."""
        level = int.from_bytes(self._level.tobytes(), "big", signed=True)
        return None if level < 0 else level

    @highest_level.setter
    def highest_level(self, level: int | None) -> None:
        number = -1 if level is None else level
        self._level[:] = np.frombuffer(number.to_bytes(LEVEL_BYTES, "big", signed=True), np.uint8)

    def save(self) -> None:
        """Writes newly decoded pixels into the cache, where that is worth it and there is room."""
        if self.is_filled or self.path is None:
            return
        self.bytes[-CHECKSUM_BYTES:] = compute_checksum(self.bytes)
        with contextlib.suppress(UserError, OSError):  # without room or rights the next start decodes again
            make_room(self.path.parent, len(self.bytes))
            files.write(self.path, self.bytes.data)
        self.is_filled = True


def buffer_path(part: Part, indices: np.ndarray, shape: tuple[int, int, int], fit_options: FitOptions) -> Path | None:
    """Returns the cache's file for the decoded images of a split; None without a cache or where it is not worth it."""
    if not isinstance(part, EncodedPart) or part.version is None or part.sizes[indices].sum() < LEAST_ENCODED:
        return None
    decoders = f"{PIL.__version__}{jpeg.VERSION}:{pixel_rules.VERSION}:{part.decoding}"
    digest = hashlib.sha256(f"{decoders}:{shape}:{fit_options}".encode())
    for index in indices.tolist():
        # Each version is hashed by itself, so that two lists of versions never join to the same bytes.
        digest.update(hashlib.sha256(part.version(index).encode(errors="surrogateescape")).digest())
    with contextlib.suppress(UserError):
        return cache.folder() / "decoded" / digest.hexdigest()[:32]
    return None


def read_exactly(path: Path, buffer: np.ndarray) -> bool:
    """Reads a file into a buffer of bytes; returns whether it has exactly that size and the right checksum."""
    try:
        with open(path, "rb") as file:
            has_right_size = file.readinto(buffer.data) == len(buffer) and not file.read(1)
    except OSError:
        return False
    return has_right_size and bool((buffer[-CHECKSUM_BYTES:] == compute_checksum(buffer)).all())


def compute_checksum(buffer: np.ndarray) -> np.ndarray:
    """Returns the CRC-32 of all but the last 4 bytes of a buffer, as 4 bytes."""
    return np.frombuffer(zlib.crc32(buffer[:-CHECKSUM_BYTES].data).to_bytes(CHECKSUM_BYTES, "big"), np.uint8)


def make_room(folder: Path, size: int) -> None:
    """Removes the oldest files of a folder until one of `size` bytes may come.

    Raises:
        OSError: the disk has too little room to spend it on what can be computed again.
    """
    sizes = stamps.list_oldest_first(folder)
    total = sum(file_size for _, file_size in sizes)
    for path, file_size in sizes:
        if total + size <= MOST_KEPT:
            break
        files.remove(path)
        total -= file_size
    # The folder itself need not exist yet.
    existing_folder = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    if shutil.disk_usage(existing_folder).free < FREE_FACTOR * size:
        raise OSError(f"{existing_folder} is nearly full")
