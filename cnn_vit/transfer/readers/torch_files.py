"""Reads files of torch.save without torch: dicts of tensors, in the zip format (since torch 1.6) and the legacy one.

Both formats hold a pickle, which names a storage and a view of it (offset, size, strides) for each tensor, and the
numbers of the storages. The pickle is run by `pickled.Machine`, which executes nothing. A view that leaves its storage,
or has more elements than it, is refused before memory is taken. Tensors of nested dicts are named by all keys on the
way, "state_dict.conv1.weight"; scalars, texts and lists are skipped.

Zip format:     ROOT/data.pkl, ROOT/byteorder, and ROOT/data/KEY for each storage
Legacy format:  five pickles (magic number, version, system, the object, keys of storages), then for each key the number
                of elements in 8 bytes and the elements, the lowest byte first on every system

Source: torch/serialization.py (`_save`, `_legacy_save`) and torch/_utils.py (`_rebuild_tensor_v2`) of PyTorch 2.13.
"""

import math
import struct
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from cnn_vit.errors import printable_name
from cnn_vit.transfer.readers import archives
from cnn_vit.transfer.readers.named_arrays import (
    MOST_ENTRIES,
    Collection,
    NamedArrays,
    RefusedError,
    abbreviate,
    bytes_in_file,
    bytes_in_memory,
    check_name,
    check_shape,
    check_unpacked,
    list_names,
    read_numbers,
)
from cnn_vit.transfer.readers.pickled import ORDERED_DICT, Call, Global, Machine, NotTensorsError, Reference

MOST_PICKLE_BYTES = 16 * 2**20  # of all pickles of a file; one of 1,000 parameters and their optimizer has 1 MB
MOST_DEPTH = 16  # dicts inside dicts
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_NUMBER = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # as a pickle of any protocol from 2 on ends with it
LONGEST_START = 32  # bytes of the pickle of that number; 24 in protocols 4 and 5
LEGACY_VERSION = 1001
COUNT = "<q"  # how the legacy format writes the number of elements
ORDERS: dict[bytes, Literal["<", ">"]] = {b"little": "<", b"big": ">"}
STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip
# Files of 2017 name the storages of a GPU apart.
ELEMENTS_BY_STORAGE = {
    f"{module}.{storage}": element for module in ("torch", "torch.cuda") for storage, element in STORAGES.items()
}
# What makes a tensor of (storage, offset, size, strides, and what is needed for training), and how many arguments.
REBUILD_TENSOR = {"torch._utils._rebuild_tensor": (4,), "torch._utils._rebuild_tensor_v2": (6, 7)}
REBUILD_PARAMETER = "torch._utils._rebuild_parameter"  # of (tensor, whether it is trained, hooks)
ALLOWED = frozenset({ORDERED_DICT, REBUILD_PARAMETER, *REBUILD_TENSOR, *ELEMENTS_BY_STORAGE})


@dataclass(frozen=True)
class Storage:
    """A row of numbers that tensors are views of.

    Attributes:
        key: its name in the file.
        element: what its elements are, a key of ELEMENTS.
        count: how many there are.
    """

    key: str
    element: str
    count: int


@dataclass(frozen=True)
class View:
    """A tensor: which numbers of a storage it has, and in what order.

    Attributes:
        storage: which one.
        offset: where in it the first number is.
        shape: its length along each axis.
        strides: how far apart in the storage two neighbors along each axis are, in elements.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def memory_bytes(self) -> int:
        """The bytes of the tensor once it is read."""
        return math.prod(self.shape) * bytes_in_memory(self.storage.element)

    @property
    def is_contiguous(self) -> bool:
        """Whether the numbers lie in the storage one behind the other, in the order of the tensor."""
        expected = 1
        for length, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if length != 1 and stride != expected:
                return False
            expected *= length
        return True


class Contents:
    """What the pickle of a file says.

    Attributes:
        views: of each tensor, by its name.
        skipped: why another value is left out, by its name.
        storages: all that the pickle mentions, by their keys.
    """

    def __init__(self, content: Any, references: Sequence[Reference]):
        self.views: dict[str, View] = {}
        self.skipped: dict[str, str] = {}
        self.storages: dict[str, Storage] = {}
        self._dicts = 0
        for reference in references:
            storage, _, _ = read_reference(reference)
            if self.storages.setdefault(storage.key, storage) != storage:
                raise RefusedError(f"is damaged: it declares storage {printable_name(storage.key)} in two ways")
        if not isinstance(content, dict):
            raise NotTensorsError(f"holds {describe(content)} instead of a dict of tensors by name")
        self._add_dict(content, "", 0)

    def _add_dict(self, values: dict, prefix: str, depth: int) -> None:
        """Adds all values of a dict under their names."""
        self._dicts += 1
        if depth > MOST_DEPTH:
            raise RefusedError(f"has dicts inside dicts, more than {MOST_DEPTH} deep")
        for key, value in values.items():
            # The same small dict may stand in many places, so that all of them together are many
            if self._dicts + len(self.views) + len(self.skipped) > MOST_ENTRIES:
                raise RefusedError(f"holds more than {MOST_ENTRIES:,} tensors and other values")
            name = f"{prefix}{key}"
            check_name(name)
            if name in self.views or name in self.skipped:
                raise RefusedError(f"holds {printable_name(name)} twice")
            if isinstance(value, dict):
                self._add_dict(value, f"{name}.", depth + 1)
            elif isinstance(value, Call):
                self.views[name] = read_view(name, value)
            else:
                self.skipped[name] = describe(value)


def describe(value: Any) -> str:
    """Says what a value is that is not a tensor."""
    match value:
        case bool() | int() | float():
            return "a scalar"
        case str():
            return "text"
        case None:
            return "nothing"
        case list() | tuple():
            return f"a list of {len(value):,}"
        case bytes():
            return "bytes"
        case Call():
            return "a tensor"
    return "the name of a type"


def read_view(name: str, call: Call) -> View:
    """Returns the tensor that a call would make.

    Raises:
        RefusedError: the call has other arguments than torch gives it, or the tensor leaves its storage.
    """
    shown = printable_name(name)
    if call.function == REBUILD_PARAMETER:
        if len(call.arguments) != 3 or not isinstance(call.arguments[0], Call):
            raise RefusedError(f"is damaged: {shown} is a parameter without a tensor")
        call = call.arguments[0]
    arguments = call.arguments
    if len(arguments) not in REBUILD_TENSOR.get(call.function, ()) or not isinstance(arguments[0], Reference):
        raise RefusedError(f"is damaged: {shown} is not made of a storage as torch does it")
    storage, base, count = read_reference(arguments[0])
    offset, strides = arguments[1], arguments[3]
    shape = check_shape(name, arguments[2])
    if not isinstance(strides, tuple) or len(strides) != len(shape):
        raise RefusedError(f"is damaged: {shown} does not have a stride for each axis")
    if any(type(number) is not int or number < 0 for number in (offset, *strides)):
        raise RefusedError(f"is damaged: offset and strides of {shown} are not integers from 0")
    elements = math.prod(shape)
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    if elements > count:
        raise RefusedError(
            f"makes {abbreviate(elements)} elements of {shown} out of a storage of {count:,}",
            "save the tensors as they are, by tensor.contiguous()",
        )
    if elements and last >= count:
        raise RefusedError(f"is damaged: {shown} ends at element {abbreviate(last)} of a storage of {count:,}")
    return View(storage, base + offset if elements else 0, shape, strides)


def read_reference(reference: Reference) -> tuple[Storage, int, int]:
    """Returns the storage that a reference names, and which part of it is meant: where it begins and its elements.

    Raises:
        RefusedError: the reference is not one of torch's, or the part leaves the storage.
    """
    part: Any = None
    match reference.value:
        case ("storage", Global(name=kind), str(key), str(), int(count)) if kind in ELEMENTS_BY_STORAGE:
            pass
        case ("storage", Global(name=kind), str(key), str(), int(count), part) if kind in ELEMENTS_BY_STORAGE:
            pass
        case _:
            raise RefusedError("is damaged: its pickle refers to something else than a storage")
    if count < 0:
        raise RefusedError(f"is damaged: storage {printable_name(key)} has {count:,} elements")
    storage = Storage(key, ELEMENTS_BY_STORAGE[kind], count)
    match part:
        case None:
            return storage, 0, count
        case (str(), int(start), int(length)) if min(start, length) >= 0 and start + length <= count:
            return storage, start, length
    raise RefusedError(f"is damaged: a part of storage {printable_name(key)} is not inside it")


def check_memory(contents: Contents, file_bytes: int) -> None:
    """Refuses tensors that take too much memory.

    A tensor whose numbers do not lie in order is copied; the others are parts of their storage.
    """
    views = contents.views.values()
    used = {view.storage for view in views}
    storage_bytes = sum(storage.count * bytes_in_memory(storage.element) for storage in used)
    copied_bytes = sum(view.memory_bytes for view in views if not view.is_contiguous)
    check_unpacked(storage_bytes + copied_bytes, file_bytes)
    check_unpacked(sum(view.memory_bytes for view in views), file_bytes)  # what the arrays become when they are apart


def make_array(numbers: np.ndarray, view: View) -> np.ndarray:  # (storage's elements,) -> the view's shape
    """Returns a tensor's numbers in its order; a view of the storage where they lie so."""
    if not math.prod(view.shape):
        return np.empty(view.shape, numbers.dtype)
    strides = [stride * numbers.itemsize for stride in view.strides]
    strided = np.lib.stride_tricks.as_strided(numbers[view.offset :], view.shape, strides, writeable=False)
    return np.ascontiguousarray(strided).reshape(view.shape)


def group_by_storage(contents: Contents) -> dict[str, list[tuple[str, View]]]:
    """Groups names and views by the key of their storage."""
    groups: dict[str, list[tuple[str, View]]] = {key: [] for key in contents.storages}
    for name, view in contents.views.items():
        groups[view.storage.key].append((name, view))
    return groups


def collect(contents: Contents, arrays: dict[str, np.ndarray], sha256: str, format_name: str) -> NamedArrays:
    """Puts arrays into the order of the pickle, and checks them."""
    collection = Collection()
    for name in contents.views:
        collection.add(name, arrays[name])
    for name, reason in contents.skipped.items():
        collection.skip(name, reason)
    collection.check_finished()
    return NamedArrays(collection.arrays, collection.skipped, sha256, format_name, {})


# The zip format -------------------------------------------------------------------------------------------------------


def find_root(names: Sequence[str]) -> str | None:
    """Returns the folder of data.pkl among the names of a zip, with its slash; None where it is not a file of torch."""
    roots = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
    return roots[0] if roots else None


def read_zip(archive: zipfile.ZipFile, root: str, sha256: str) -> NamedArrays:
    """Reads an archive that `archives` opened.

    Args:
        archive: the archive.
        root: the folder in it.
        sha256: of the file.

    Raises:
        RefusedError: it holds something else than tensors, or is damaged.
    """
    members = {info.filename: info for info in archive.infolist()}
    outside = [name for name in members if not name.startswith(root)]
    if outside:
        raise RefusedError(f"is damaged: it holds {list_names(outside)} beside its folder {printable_name(root)}")
    if f"{root}constants.pkl" in members:
        raise NotTensorsError("is a program of TorchScript, which is not run")
    pickle_bytes = archives.read_member(archive, members[f"{root}data.pkl"], most=MOST_PICKLE_BYTES)
    machine = Machine(pickle_bytes, 0, ALLOWED)
    content = machine.run()
    if machine.position < len(pickle_bytes):
        raise RefusedError(f"is damaged: {len(pickle_bytes) - machine.position:,} bytes stand behind its pickle")
    contents = Contents(content, machine.references)
    check_memory(contents, archives.file_bytes(archive))
    check_storages(members, root, contents)
    order = read_order(archive, root)
    arrays = {}
    for key, views in group_by_storage(contents).items():
        storage = contents.storages[key]
        with archive.open(members[f"{root}data/{key}"]) as file:  # at its end its checksum is compared
            numbers = read_numbers(file, storage.element, storage.count, order=order)
        for name, view in views:
            arrays[name] = make_array(numbers, view)
    return collect(contents, arrays, sha256, "torch")


def check_storages(members: dict[str, zipfile.ZipInfo], root: str, contents: Contents) -> None:
    """Checks that the archive holds the storages of the pickle, each with the bytes that its elements take."""
    prefix = f"{root}data/"
    stored = {name.removeprefix(prefix) for name in members if name.startswith(prefix)}
    if stored != contents.storages.keys():
        differing = list_names(sorted(stored ^ contents.storages.keys()))
        raise RefusedError(f"is damaged: storage {differing} is in the pickle or in the archive, not in both")
    for key, storage in contents.storages.items():
        expected = storage.count * bytes_in_file(storage.element)
        if members[prefix + key].file_size != expected:
            raise RefusedError(
                f"is damaged: storage {printable_name(key)} has {members[prefix + key].file_size:,} bytes and is "
                f"declared with {abbreviate(expected)}"
            )


def read_order(archive: zipfile.ZipFile, root: str) -> Literal["<", ">"]:
    """Returns "<" or ">", the order of bytes of all numbers; files without a word of it are of torch before 2.1."""
    name = f"{root}byteorder"
    if name not in archive.namelist():
        return "<"
    word = archives.read_member(archive, archive.getinfo(name), most=100)
    if word not in ORDERS:
        raise RefusedError(f"is damaged: its order of bytes is {printable_name(word.decode('latin-1'))}")
    return ORDERS[word]


# The legacy format ----------------------------------------------------------------------------------------------------


def is_legacy(beginning: bytes) -> bool:
    """Whether the first bytes of a file are those of torch's legacy format."""
    return LEGACY_NUMBER in beginning[:LONGEST_START]


def read_legacy(path: Path, sha256: str) -> NamedArrays:
    """Reads a file in the legacy format.

    Raises:
        RefusedError: it holds something else than tensors, or is damaged.
    """
    file_bytes = path.stat().st_size
    with open(path, "rb") as file:
        contents, keys, end = read_pickles(file.read(MOST_PICKLE_BYTES))
        check_memory(contents, file_bytes)
        file.seek(end)
        if len(set(keys)) < len(keys) or set(keys) != contents.storages.keys():
            raise RefusedError("is damaged: its list of storages is not that of its pickle")
        declared = sum(struct.calcsize(COUNT) + stored_bytes(contents.storages[key]) for key in keys)
        if end + declared != file_bytes:
            raise RefusedError(
                f"is cut or damaged: it has {file_bytes:,} bytes and declares {abbreviate(end + declared)}"
            )
        groups = group_by_storage(contents)
        arrays = {}
        for key in keys:
            numbers = read_legacy_storage(file, contents.storages[key])
            for name, view in groups[key]:
                arrays[name] = make_array(numbers, view)
    return collect(contents, arrays, sha256, "torch-legacy")


def stored_bytes(storage: Storage) -> int:
    """Returns the bytes that a storage's numbers take in the file."""
    return storage.count * bytes_in_file(storage.element)


def read_pickles(beginning: bytes) -> tuple[Contents, list[str], int]:
    """Runs the five pickles at the beginning of a file.

    Returns:
        What the fourth says, the keys of the fifth, and where the storages begin in the file.
    """
    position, values = 0, []
    references: list[Reference] = []
    for _ in range(5):
        machine = Machine(beginning, position, ALLOWED)
        values.append(machine.run())
        references += machine.references
        position = machine.position
    magic, version, _, content, keys = values
    if (type(magic), magic) != (int, LEGACY_MAGIC) or (type(version), version) != (int, LEGACY_VERSION):
        raise RefusedError("is damaged: it is not of the version of torch's legacy format that was ever written")
    if type(keys) is not list or not all(isinstance(key, str) for key in keys):
        raise RefusedError("is damaged: its list of storages does not hold their keys")
    return Contents(content, references), keys, position


def read_legacy_storage(file: IO[bytes], storage: Storage) -> np.ndarray:  # -> (storage's elements,)
    """Reads the numbers of one storage from where a file stands."""
    (count,) = struct.unpack(COUNT, file.read(struct.calcsize(COUNT)))
    if count != storage.count:
        raise RefusedError(
            f"is damaged: storage {printable_name(storage.key)} has {count:,} elements and is declared with "
            f"{abbreviate(storage.count)}"
        )
    return read_numbers(file, storage.element, count)
