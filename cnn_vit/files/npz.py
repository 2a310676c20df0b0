"""Archives of arrays (.npz) and what they declare, checked before anything is unpacked; objects are never unpickled.

A zip's directory says how large each member is, and the header of a .npy file says how large its array is. Both are
written by whoever made the file: an array is read once they agree with each other and with the caller's limits.

Formats: PKWARE, APPNOTE.TXT 6.3.10; NumPy enhancement proposal 1 (.npy).
"""

import contextlib
import io
import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnn_vit.errors import UserError, printable_name

MOST_DIRECTORY_BYTES = 8 * 2**20  # that a zip's directory takes: 50,000 members with long names, 60 MB once it is read
MOST_HEADER_BYTES = 12_000  # of a .npy file; NumPy reads 10,000 at most, behind 12 of magic, version and length
ENCRYPTED = 0x1  # the zip format's mark, APPNOTE 4.4.4


@dataclass(frozen=True)
class Declaration:
    """An array as its own header declares it.

    Attributes:
        shape: its length along each axis.
        dtype: of its elements.
        is_fortran: whether the first axis varies fastest.
        header_bytes: where its elements begin in the .npy file.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    is_fortran: bool
    header_bytes: int


class ZipSource(io.BufferedReader):
    """The file of an archive, which gives a few MB at a time: a directory that is larger is refused, not read."""

    def read(self, size: int | None = -1) -> bytes:
        """Reads `size` bytes, or all that is left."""
        most = MOST_DIRECTORY_BYTES + 1
        content = super().read(most if size is None or size < 0 else min(size, most))
        if len(content) == most:
            raise zipfile.BadZipFile(f"its directory has more than {MOST_DIRECTORY_BYTES:,} bytes")
        return content


@contextlib.contextmanager
def open_archive(path: str | Path) -> Iterator[zipfile.ZipFile]:
    """Opens an archive for reading.

    Raises:
        OSError, ValueError, zipfile.BadZipFile, NotImplementedError: the file cannot be read or is not an archive.
    """
    with ZipSource(io.FileIO(path)) as source, zipfile.ZipFile(source) as archive:
        yield archive


def check_members(path: str | Path, archive: zipfile.ZipFile, *, most: int, most_bytes: int) -> None:
    """Refuses an archive whose directory declares too much, or what no array of numbers needs.

    Args:
        path: of the archive, for errors.
        archive: the archive.
        most: members that it may have.
        most_bytes: that all of them may have, unpacked.

    Raises:
        UserError: there are too many members, they unpack to too much, or one is encrypted or stands there twice.
    """
    members = archive.infolist()
    if len(members) > most:
        raise UserError(f"{path} holds {len(members):,} arrays; {most:,} are the most")
    total_bytes = sum(info.file_size for info in members)
    if total_bytes > most_bytes:
        raise UserError(f"{path} unpacks to {total_bytes:,} bytes; {most_bytes:,} are the most")
    names = set()
    for info in members:
        name = printable_name(info.filename)
        if info.flag_bits & ENCRYPTED:
            raise UserError(f"{path}: {name} is encrypted; write the file without a password")
        if info.filename in names:
            raise UserError(f"{path} holds {name} twice; write it again")
        names.add(info.filename)


def read_declaration(path: str | Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Declaration:
    """Returns what the header of a .npy member declares, once it agrees with the member's size.

    Args:
        path: of the archive, for errors.
        archive: the archive.
        info: the member.

    Raises:
        UserError: the header cannot be read, declares Python objects, or does not agree with the size.
    """
    name = printable_name(info.filename)
    try:
        with archive.open(info) as file:
            beginning = io.BytesIO(file.read(MOST_HEADER_BYTES))
        version = np.lib.format.read_magic(beginning)
        if version == (1, 0):
            shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(beginning)
        else:
            shape, is_fortran, dtype = np.lib.format.read_array_header_2_0(beginning)
    except Exception as error:  # NumPy's and zipfile's readers raise seven kinds over damaged bytes
        raise UserError(f"{path}: {name} is not an array, or is damaged; write the file again") from error
    if dtype.hasobject:
        raise UserError(f"{path}: {name} holds Python objects, which are never read; write numbers or texts")
    header_bytes = beginning.tell()
    declared_bytes = math.prod(shape) * dtype.itemsize
    # Two negative lengths have a positive product, so each is looked at as well
    if header_bytes + declared_bytes != info.file_size or min(shape, default=0) < 0:
        raise UserError(
            f"{path}: {name} declares {printable_name('x'.join(map(str, shape)))} of {printable_name(str(dtype))} but "
            f"is {info.file_size - header_bytes:,} bytes long; write the file again"
        )
    return Declaration(shape, dtype, is_fortran, header_bytes)
