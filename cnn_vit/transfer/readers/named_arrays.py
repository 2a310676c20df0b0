"""The named arrays of a weights file, and what every reader holds them to, whatever the file's format."""

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Literal

import numpy as np

from cnn_vit.errors import UserError, printable_name

MOST_ENTRIES = 50_000  # arrays and skipped values of a file; a vision transformer of 5 billion parameters has 1,000
MOST_AXES = 8  # of an array; a convolution in three dimensions has 5
LONGEST_NAME = 500  # characters; the longest published names have about 150
# All arrays together may take twice the bytes of the file (numbers of 16 bits become 32 wide) and these more, for small
# files whose arrays are packed well. What a few bytes would unpack to is refused before it is.
MOST_UNPACKED_PER_BYTE = 2
ALLOWED_BYTES = 256 * 2**20
MOST_NAMED = 5  # arrays that a sentence names
# What a folder is searched for, to name a file in it; reading looks at no ending.
ENDINGS = frozenset({".safetensors", ".npz", ".pth", ".pt", ".th", ".bin", ".ckpt", ".h5", ".hdf5"})
CHUNK = 2**18  # numbers that are read at once
# How the elements that are read lie in a file, little end first unless the file says otherwise. NumPy has no bfloat16:
# these are read as the float32 that has the same value.
ELEMENTS = MappingProxyType(
    {
        "float64": "f8", "float32": "f4", "float16": "f2", "bfloat16": "u2",
        "int64": "i8", "int32": "i4", "int16": "i2", "int8": "i1",
        "uint64": "u8", "uint32": "u4", "uint16": "u2", "uint8": "u1", "bool": "u1",
    }
)  # fmt: skip


AGAIN = "download or write it again"


class RefusedError(Exception):
    """A file breaks a rule of its format, or holds what is not read.

    Attributes:
        reason: a phrase that stands behind the path.
        remedy: what the user can do.
    """

    def __init__(self, reason: str, remedy: str = AGAIN):
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


@dataclass(frozen=True)
class NamedArrays:
    """What a weights file holds.

    Names are printable and at most 500 characters long, whatever the file. Values of `metadata` are what the file's
    author wrote: `printable_name` makes them fit for a terminal.

    Attributes:
        arrays: by name, float64, float32, float16, integers of 8 to 64 bits or bool; bfloat16 comes as float32, which
            holds every such number exactly. All floats are finite. Whether integers are weights, and whether a shape
            (also one without elements) is the right one, is for the rules of a family to say. Arrays cannot be written,
            for two of a file may share their memory.
        skipped: why a value of the file is not among the arrays, by its name: "a scalar", "text", ...
        sha256: of the file in hexadecimal; of a sharded file, of all shards one behind the other in the order of names.
        format: "safetensors", "npz", "torch", "torch-legacy" or "hdf5".
        metadata: the texts that a safetensors file carries, else {}.
    """

    arrays: dict[str, np.ndarray]
    skipped: dict[str, str]
    sha256: str
    format: str
    metadata: dict[str, str]


class Collection:
    """Gathers the arrays of a file, and holds them to what is promised of them.

    Attributes:
        arrays, skipped: as of NamedArrays.
    """

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self.skipped: dict[str, str] = {}
        self._not_finite: list[str] = []

    def add(self, name: str, array: np.ndarray) -> None:
        """Takes an array in; RefusedError for a name that is not allowed."""
        self._check_name(name)
        array.flags.writeable = False
        self.arrays[name] = array
        if array.dtype.kind == "f" and not is_finite(array):
            self._not_finite.append(name)

    def skip(self, name: str, reason: str) -> None:
        """Notes why a value is left out; RefusedError for a name that is not allowed."""
        self._check_name(name)
        self.skipped[name] = reason

    def merge(self, other: "Collection") -> None:
        """Takes in all of another collection, whose names are others."""
        self.arrays |= other.arrays
        self.skipped |= other.skipped
        self._not_finite += other._not_finite

    def _check_name(self, name: str) -> None:
        check_name(name)
        if name in self.arrays or name in self.skipped:
            raise RefusedError(f"holds {printable_name(name)} twice")
        if len(self.arrays) + len(self.skipped) >= MOST_ENTRIES:
            raise RefusedError(f"holds more than {MOST_ENTRIES:,} arrays and other values")

    def check_finished(self) -> None:
        """Raises RefusedError where there are no arrays, or some hold nan or infinity."""
        if self._not_finite:
            raise RefusedError(
                f"holds nan or infinity in {list_names(self._not_finite)}, so that no score would be a number",
                "save the weights of an earlier step",
            )
        if not self.arrays:
            raise RefusedError("holds no arrays")


def check_name(name: str) -> None:
    """Raises RefusedError for a name that is empty, very long, or would do something to a terminal."""
    if not name:
        raise RefusedError("holds a value without a name")
    if len(name) > LONGEST_NAME:
        raise RefusedError(
            f"holds a name of {len(name):,} characters ({printable_name(name)}); {LONGEST_NAME} are the most"
        )
    if not name.isprintable():
        raise RefusedError(f"holds {printable_name(name)}, a name with characters that cannot be printed")


def list_names(names: list[str]) -> str:
    """Lists the first few names for a sentence, and says how many more there are."""
    shown = ", ".join(printable_name(name) for name in names[:MOST_NAMED])
    if len(names) > MOST_NAMED:
        shown += f" and {len(names) - MOST_NAMED:,} more"
    return shown


def is_finite(array: np.ndarray) -> bool:
    """Whether no element of an array is nan or infinite; little memory is used, whatever its size."""
    flat = array.reshape(-1)  # a view: the readers give arrays whose elements lie one behind the other
    return all(np.isfinite(flat[start : start + CHUNK]).all() for start in range(0, flat.size, CHUNK))


def check_shape(name: str, shape: object) -> tuple[int, ...]:
    """Returns a declared shape as a tuple; RefusedError where it is not a few integers of at least 0."""
    if not isinstance(shape, tuple | list) or any(type(length) is not int or length < 0 for length in shape):
        raise RefusedError(f"is damaged: the shape of {printable_name(name)} is not a list of integers from 0")
    if len(shape) > MOST_AXES:
        raise RefusedError(f"declares {len(shape):,} axes of {printable_name(name)}; {MOST_AXES} are the most")
    return tuple(shape)


def check_unpacked(total_bytes: int, file_bytes: int) -> None:
    """Raises RefusedError where arrays would take much more memory than their file has bytes."""
    most = MOST_UNPACKED_PER_BYTE * file_bytes + ALLOWED_BYTES
    if total_bytes > most:
        raise RefusedError(
            f"has {file_bytes:,} bytes and would become {abbreviate(total_bytes)} bytes of arrays, above {most:,}",
            "write its arrays apart and as they are: contiguous, none twice, not compressed",
        )


def abbreviate(number: int) -> str:
    """Writes a number that a file declares, which may have thousands of digits."""
    return f"{number:,}" if number < 10**18 else "more than 10^18"


def bytes_in_memory(element: str) -> int:
    """Returns the bytes that an element takes once it is read."""
    return 4 if element == "bfloat16" else bytes_in_file(element)


def bytes_in_file(element: str) -> int:
    """Returns the bytes that an element takes in a file."""
    return np.dtype(ELEMENTS[element]).itemsize


def read_numbers(
    file: IO[bytes], element: str, count: int, *, order: Literal["<", ">"] = "<"
) -> np.ndarray:  # -> (count,)
    """Reads numbers from where a file stands.

    Args:
        file: what is read.
        element: what they are, a key of ELEMENTS.
        count: how many there are.
        order: "<" where the lowest byte of a number comes first, ">" where the highest does.

    Raises:
        EOFError: the file ends before.
    """
    stored = np.dtype(ELEMENTS[element]).newbyteorder(order)
    if element == "bfloat16":
        widened = np.empty(count, np.uint32)
        read_pieces(file, stored, widened)
        widened <<= 16  # a bfloat16 is the upper half of the float32 of the same value
        return widened.view(np.float32)
    numbers = np.empty(count, bool if element == "bool" else stored.newbyteorder("="))
    read_pieces(file, stored, numbers)
    return numbers


def read_pieces(file: IO[bytes], stored: np.dtype, numbers: np.ndarray) -> None:  # (N,)
    """Fills an array piece by piece with numbers of the type `stored`; EOFError where the file ends before."""
    for start in range(0, numbers.size, CHUNK):
        count = min(CHUNK, numbers.size - start)
        content = file.read(count * stored.itemsize)
        if len(content) < count * stored.itemsize:
            raise EOFError("the file ends inside its numbers")
        numbers[start : start + count] = np.frombuffer(content, stored)


def check_regular(path: Path) -> None:
    """Raises UserError where a path is not that of a file that can be read to its end."""
    shown = printable_name(str(path))
    if path.is_dir():
        candidates = sorted(child.name for child in path.iterdir() if child.suffix in ENDINGS)
        advice = f"it holds {list_names(candidates)}" if candidates else "give the file itself"
        raise UserError(f"{shown} is a folder, where a weights file belongs; {advice}")
    if not path.is_file():
        raise UserError(f"{shown} is not a regular file but a device, a pipe or a socket; give a weights file")
