"""Reads the arrays of an .npz; names are those of its members, such as "conv1/kernel"."""

import math
import zipfile
from pathlib import Path

import numpy as np

from cnn_vit.errors import printable_name
from cnn_vit.files import npz
from cnn_vit.transfer.readers import archives
from cnn_vit.transfer.readers.named_arrays import (
    ELEMENTS,
    Collection,
    NamedArrays,
    RefusedError,
    check_shape,
    check_unpacked,
    read_numbers,
)

ENDING = ".npy"
TEXT_KINDS = "SU"  # NumPy's letters of bytes and texts
# What arrays of numbers may hold, by NumPy's letter and the bytes of an element.
ELEMENTS_BY_CODE = {code: element for element, code in ELEMENTS.items() if element not in ("bfloat16", "bool")}


def read(path: Path, archive: zipfile.ZipFile, sha256: str) -> NamedArrays:
    """Reads all members of an archive that `archives` opened.

    Raises:
        RefusedError: a member is not an array of numbers or text, or all unpack to too much.
        UserError: the header of a member lies.
    """
    collection = Collection()
    declarations: dict[str, npz.Declaration] = {}
    for info in archive.infolist():
        if not info.filename.endswith(ENDING):
            raise RefusedError(f"holds {printable_name(info.filename)}, which is not an array (NAME{ENDING})")
        declarations[info.filename] = npz.read_declaration(path, archive, info)
    check_memory(archive, declarations)
    for info in archive.infolist():
        read_member(archive, info, declarations[info.filename], collection)
    collection.check_finished()
    return NamedArrays(collection.arrays, collection.skipped, sha256, "npz", {})


def check_memory(archive: zipfile.ZipFile, declarations: dict[str, npz.Declaration]) -> None:
    """Refuses arrays that take too much memory; one whose first axis varies fastest is copied, so it counts twice."""
    sizes = {info.filename: info.file_size for info in archive.infolist()}
    copies = [sizes[name] for name, declaration in declarations.items() if declaration.is_fortran]
    check_unpacked(sum(sizes.values()) + max(copies, default=0), archives.file_bytes(archive))


def read_member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, declaration: npz.Declaration, collection: Collection
) -> None:
    """Adds one array of numbers to a collection; a text is skipped."""
    name, dtype = info.filename.removesuffix(ENDING), declaration.dtype
    if dtype.kind in TEXT_KINDS:
        collection.skip(name, "text")
        return
    shape = check_shape(name, declaration.shape)
    element = "bool" if dtype.kind == "b" else ELEMENTS_BY_CODE.get(f"{dtype.kind}{dtype.itemsize}")
    if element is None:
        hint = " (NumPy stores bfloat16 so)" if dtype.kind == "V" else ""
        raise RefusedError(
            f"holds {printable_name(str(dtype))}{hint} in {printable_name(name)}, which is not read",
            "save it as float32",
        )
    with archive.open(info) as file:  # at its end its checksum is compared
        file.read(declaration.header_bytes)
        numbers = read_numbers(file, element, math.prod(shape), order=">" if dtype.str[0] == ">" else "<")
    collection.add(name, arrange(numbers, shape, is_fortran=declaration.is_fortran))


def arrange(numbers: np.ndarray, shape: tuple[int, ...], *, is_fortran: bool) -> np.ndarray:  # (N,) -> shape
    """Gives numbers their shape, in C's order."""
    if is_fortran:
        return np.ascontiguousarray(numbers.reshape(shape[::-1]).T).reshape(shape)
    return numbers.reshape(shape)
