"""Reads safetensors: eight bytes with the length of a header, a header in JSON, then the numbers of all tensors.

The header says where each tensor lies. It is held to the format's own rules: tensors lie one behind the other, without
a gap, an overlap or a rest, and no name stands there twice. A large network may come in several such files (shards)
with an index, `NAME.safetensors.index.json`, whose `weight_map` names the shard of each tensor.

Format: https://huggingface.co/docs/safetensors, "Format"; https://huggingface.co/docs/transformers/big_models.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from cnn_vit.errors import printable_name
from cnn_vit.transfer.readers.named_arrays import (
    MOST_ENTRIES,
    Collection,
    NamedArrays,
    RefusedError,
    abbreviate,
    bytes_in_file,
    check_regular,
    check_shape,
    list_names,
    read_numbers,
)

LENGTH_BYTES = 8  # of the header's length, an integer without sign, its lowest byte first
# The format allows headers of 100 MB; 50,000 tensors with long names have 8, and a hostile header takes about 25 times
# its bytes of memory while it is read.
MOST_HEADER_BYTES = 8 * 2**20
MOST_SHARDS = 1_000
TEXTS = "__metadata__"  # the key of texts among the tensors
SHARD_ENDING = ".safetensors"
DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """A tensor as the header declares it.

    Attributes:
        name: its key.
        element: what its elements are, a key of ELEMENTS.
        shape: its length along each axis.
        start, stop: where it lies, in bytes behind the header.
    """

    name: str
    element: str
    shape: tuple[int, ...]
    start: int
    stop: int


def read(path: Path, sha256: str) -> NamedArrays:
    """Reads one file.

    Raises:
        RefusedError: the file breaks a rule of the format.
    """
    collection = Collection()
    texts = read_into(path, collection)
    collection.check_finished()
    return NamedArrays(collection.arrays, {}, sha256, "safetensors", texts)


def read_into(path: Path, collection: Collection) -> dict[str, str]:
    """Adds the tensors of one file to a collection, and returns the file's texts."""
    file_bytes = path.stat().st_size
    with open(path, "rb") as file:
        header, data_start = read_header(file, file_bytes)
        texts = check_texts(header.pop(TEXTS, {}))
        tensors = sorted(
            (declared_tensor(name, facts) for name, facts in header.items()),
            key=lambda tensor: (tensor.start, tensor.stop),
        )
        check_places(tensors, file_bytes - data_start)
        for tensor in tensors:  # in the order of the file, which is read once from its start to its end
            numbers = read_numbers(file, tensor.element, math.prod(tensor.shape))
            collection.add(tensor.name, numbers.reshape(tensor.shape))
    return texts


def read_header(file: BinaryIO, file_bytes: int) -> tuple[dict[str, Any], int]:
    """Reads the header of an open file; returns it, and where the numbers begin in the file."""
    length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    if LENGTH_BYTES + length > file_bytes:
        raise RefusedError(
            f"has {file_bytes:,} bytes and a header of {abbreviate(length)}: it is cut, or another kind of file"
        )
    if length > MOST_HEADER_BYTES:
        raise RefusedError(f"declares a header of {length:,} bytes; {MOST_HEADER_BYTES:,} are the most")
    header = parse_json(file.read(length), "its header")
    return header, LENGTH_BYTES + length


def parse_json(content: bytes, what: str) -> dict[str, Any]:
    """Parses a JSON object in which no key stands twice; RefusedError names what is not one."""
    try:
        parsed = json.loads(content.decode(), object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise RefusedError(f"is damaged: {what} is not JSON ({printable_name(str(error))})") from error
    if not isinstance(parsed, dict):
        raise RefusedError(f"is damaged: {what} is not a JSON object")
    return parsed


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Makes a dict of pairs; RefusedError where a key stands there twice, for readers differ in which they take."""
    by_key: dict[str, Any] = {}
    for key, value in pairs:
        if key in by_key:
            raise RefusedError(f"holds {printable_name(key)} twice in its header")
        by_key[key] = value
    return by_key


def check_texts(texts: Any) -> dict[str, str]:
    """Returns the file's texts; RefusedError where they are not texts."""
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise RefusedError(f"is damaged: {TEXTS} of its header does not hold texts alone")
    return texts


def declared_tensor(name: str, facts: Any) -> Tensor:
    """Returns what the header declares of one tensor, once it agrees with itself.

    Raises:
        RefusedError: something is missing or of another kind, or shape and type do not give the declared bytes.
    """
    shown = printable_name(name)
    if not isinstance(facts, dict) or facts.keys() != {"dtype", "shape", "data_offsets"}:
        raise RefusedError(f"is damaged: {shown} does not have dtype, shape and data_offsets in its header")
    dtype, offsets = facts["dtype"], facts["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise RefusedError(
            f"has {printable_name(str(dtype))} in {shown}, which is not read", f"save it as one of {', '.join(DTYPES)}"
        )
    shape = check_shape(name, facts["shape"])
    if not isinstance(offsets, list) or len(offsets) != 2 or any(type(offset) is not int for offset in offsets):
        raise RefusedError(f"is damaged: data_offsets of {shown} are not two integers")
    start, stop = offsets
    if not 0 <= start <= stop:
        raise RefusedError(f"is damaged: {shown} ends before it begins")
    element = DTYPES[dtype]
    if math.prod(shape) * bytes_in_file(element) != stop - start:
        raise RefusedError(
            f"is damaged: {shown} is declared as {'x'.join(map(str, shape)) or 'one number'} of {dtype} in "
            f"{stop - start:,} bytes, which does not fit"
        )
    return Tensor(name, element, shape, start, stop)


def check_places(tensors: Sequence[Tensor], data_bytes: int) -> None:
    """Checks that tensors fill the file, one behind the other.

    Args:
        tensors: in the order of their places.
        data_bytes: bytes behind the header.

    Raises:
        RefusedError: two overlap, there is a gap, or the file is shorter or longer.
    """
    end, previous = 0, "the header"
    for tensor in tensors:
        shown = printable_name(tensor.name)
        if tensor.start < end:
            raise RefusedError(f"is damaged: {shown} overlaps {previous}")
        if tensor.start > end:
            raise RefusedError(
                f"is damaged: {tensor.start - end:,} bytes between {previous} and {shown} belong to none"
            )
        if tensor.stop > data_bytes:
            raise RefusedError(f"is cut: it ends {tensor.stop - data_bytes:,} bytes before the end of {shown}")
        end, previous = tensor.stop, shown
    if end < data_bytes:
        raise RefusedError(f"is damaged: {data_bytes - end:,} bytes behind {previous} belong to no tensor")


# Several files with an index ------------------------------------------------------------------------------------------


def read_index(path: Path) -> NamedArrays:
    """Reads the shards that an index names, which lie in its folder.

    Raises:
        RefusedError: the index, or a shard, breaks a rule of the format, or is not there.
    """
    if path.stat().st_size > MOST_HEADER_BYTES:
        raise RefusedError(f"is an index of more than {MOST_HEADER_BYTES:,} bytes")
    shards_by_tensor = parse_json(path.read_bytes(), "the index").get("weight_map")
    if not isinstance(shards_by_tensor, dict) or not shards_by_tensor:
        raise RefusedError("is JSON but not an index of safetensors, which has tensors and their files in `weight_map`")
    if len(shards_by_tensor) > MOST_ENTRIES:
        raise RefusedError(f"names {len(shards_by_tensor):,} tensors; {MOST_ENTRIES:,} are the most")
    for shard_name in shards_by_tensor.values():
        check_shard_name(shard_name)
    shard_names = sorted(set(shards_by_tensor.values()))
    if len(shard_names) > MOST_SHARDS:
        raise RefusedError(f"names {len(shard_names):,} shards; {MOST_SHARDS:,} are the most")
    missing = [name for name in shard_names if not (path.parent / name).exists()]
    if missing:
        raise RefusedError(f"names {list_names(missing)}, not there", "download all files of the index")
    return read_shards(path, shard_names, shards_by_tensor)


def check_shard_name(name: Any) -> None:
    """Raises RefusedError for a name that is not one of a safetensors file in the folder of the index."""
    is_plain = isinstance(name, str) and name.isprintable() and not set(name) & set('/\\:"')
    if not is_plain or not name.endswith(SHARD_ENDING) or name.startswith("."):
        raise RefusedError(
            f"names the shard {printable_name(str(name))}, which is not a file NAME{SHARD_ENDING} in the index's folder"
        )


def read_shards(path: Path, shard_names: Sequence[str], shards_by_tensor: dict[str, str]) -> NamedArrays:
    """Reads the shards of an index.

    Args:
        path: of the index.
        shard_names: in their order.
        shards_by_tensor: the name of the shard of each tensor.
    """
    names_by_shard: dict[str, set[str]] = {name: set() for name in shard_names}
    for tensor_name, shard_name in shards_by_tensor.items():
        names_by_shard[shard_name].add(tensor_name)
    collection, sha256 = Collection(), hashlib.sha256()
    texts: dict[str, str] = {}
    for shard_name in shard_names:
        shard, expected = path.parent / shard_name, names_by_shard[shard_name]
        check_regular(shard)
        shard_collection = Collection()
        try:
            shard_texts = read_into(shard, shard_collection)
        except RefusedError as error:
            raise RefusedError(f"names {printable_name(shard_name)}, which {error.reason}", error.remedy) from error
        if shard_collection.arrays.keys() != expected:
            differing = sorted(shard_collection.arrays.keys() ^ expected)
            raise RefusedError(
                f"and {printable_name(shard_name)} do not agree: {list_names(differing)} in one of them alone"
            )
        collection.merge(shard_collection)
        texts = texts or shard_texts  # those of the first shard that has any
        add_file(sha256, shard)
    collection.check_finished()
    return NamedArrays(collection.arrays, {}, sha256.hexdigest(), "safetensors", texts)


def add_file(sha256: Any, path: Path) -> None:
    """Adds a file's content to a running hash."""
    with open(path, "rb") as file:
        while content := file.read(2**20):
            sha256.update(content)
