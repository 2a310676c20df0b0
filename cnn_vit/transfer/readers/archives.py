"""Zip archives of arrays, npz and torch's: the directory is checked first, and each member's checksum as it is read."""

import contextlib
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

from cnn_vit.errors import printable_name
from cnn_vit.files import npz
from cnn_vit.transfer.readers.named_arrays import MOST_ENTRIES, RefusedError, check_unpacked

PIECE = 2**20  # bytes that are read at once
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the two that NumPy and torch write


@contextlib.contextmanager
def open_checked(path: Path) -> Iterator[zipfile.ZipFile]:
    """Opens an archive and checks its directory.

    Raises:
        UserError: it declares too many members, or one is encrypted or stands there twice.
        RefusedError: it unpacks to much more than its bytes, or a member has a name that leads elsewhere, or is packed
            in an unusual way.
    """
    with npz.open_archive(path) as archive:
        unpacked_bytes = sum(info.file_size for info in archive.infolist())
        check_unpacked(unpacked_bytes, file_bytes(archive))
        npz.check_members(path, archive, most=MOST_ENTRIES, most_bytes=unpacked_bytes)
        for info in archive.infolist():
            check_member(info)
        yield archive


def check_member(info: zipfile.ZipInfo) -> None:
    """Raises RefusedError for a member whose name no program of arrays writes, or that is packed in an unusual way."""
    name, shown = info.orig_filename, printable_name(info.orig_filename)
    parts = name.split("/")
    if name != info.filename or "\\" in name or "\0" in name or ".." in parts or "" in parts:
        raise RefusedError(f"holds {shown}, a name that leads out of the archive")
    if info.compress_type not in METHODS:
        raise RefusedError(f"packs {shown} by method {info.compress_type}, which is not read", "write it with Deflate")


def file_bytes(archive: zipfile.ZipFile) -> int:
    """Returns the size of an archive in bytes."""
    return os.fstat(archive.fp.fileno()).st_size  # type: ignore[union-attr]


def read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, *, most: int) -> bytes:
    """Returns the content of a member; RefusedError where it has more than `most` bytes."""
    if info.file_size > most:
        raise RefusedError(f"holds {info.file_size:,} bytes in {printable_name(info.filename)}; {most:,} are the most")
    pieces = []
    with archive.open(info) as file:
        while piece := file.read(PIECE):
            pieces.append(piece)
    return b"".join(pieces)
