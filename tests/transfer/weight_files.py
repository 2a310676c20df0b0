"""Weights files, good and crafted, written byte by byte: neither torch nor safetensors nor pickle is needed.

Formats: https://huggingface.co/docs/safetensors; CPython's Lib/pickletools.py; torch/serialization.py.
"""

import io
import json
import struct
import zipfile

import numpy as np

# The dtypes of safetensors and the storages of torch, by what NumPy calls them.
SAFETENSORS = {
    "float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
STORAGES = {
    "float64": "DoubleStorage", "float32": "FloatStorage", "float16": "HalfStorage", "int64": "LongStorage",
    "int32": "IntStorage", "int16": "ShortStorage", "int8": "CharStorage", "uint8": "ByteStorage",
    "bool": "BoolStorage",
}  # fmt: skip


# safetensors


def join_safetensors(header, data=b""):
    """A file of safetensors with a header, given as a value or as bytes, and the bytes behind it."""
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


def pack_safetensors(arrays, texts=None):
    """A file of safetensors that holds arrays, each behind the one before."""
    header, data = {}, b""
    if texts is not None:
        header["__metadata__"] = texts
    for name, array in arrays.items():
        content = array.tobytes()
        header[name] = declare(array.dtype.name, array.shape, len(data), len(data) + len(content))
        data += content
    return join_safetensors(header, data)


def declare(dtype, shape, start, stop):
    """What a header says of one tensor; the dtype may be NumPy's name or one of the format."""
    return {"dtype": SAFETENSORS.get(str(dtype), dtype), "shape": list(shape), "data_offsets": [start, stop]}


# Pickles: each function returns the opcodes that put one value on the stack


def text(word):
    encoded = word.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def integer(number):
    if 0 <= number < 256:
        return b"K" + bytes([number])
    size = number.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + number.to_bytes(size, "little", signed=True)


def name(module, word):
    return f"c{module}\n{word}\n".encode()


def tuple_of(*values):
    return b"(" + b"".join(values) + b"t"


def integers(numbers):
    return tuple_of(*map(integer, numbers))


def dict_of(values):
    """A dict with texts as keys."""
    return b"}(" + b"".join(text(key) + value for key, value in values.items()) + b"u"


ORDERED_DICT = name("collections", "OrderedDict") + b")R"


def storage(key, count, kind="FloatStorage", *more):
    """A reference to a storage of so many elements."""
    return tuple_of(text("storage"), name("torch", kind), text(key), text("cpu"), integer(count), *more) + b"Q"


def tensor(stored, shape, strides, offset=0):
    """A tensor that views a storage, as `_rebuild_tensor_v2` makes it."""
    arguments = tuple_of(
        stored, integer(offset), integers(shape), integers(strides), b"\x89", name("collections", "OrderedDict") + b")R"
    )
    return name("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"


def program(value):
    """A whole pickle of protocol 2 that gives a value."""
    return b"\x80\x02" + value + b"."


def strides_of(array):
    """How far apart two neighbors along each axis are, in elements."""
    return [stride // array.itemsize for stride in array.strides]


def pickle_arrays(arrays, *more):
    """The opcodes of a dict of contiguous arrays, each with a storage of its own whose key is its place.

    `more` is what references to storages have more: a part of it, or None, in the legacy format.
    """
    tensors = {}
    for place, (key, array) in enumerate(arrays.items()):
        stored = storage(str(place), array.size, STORAGES[array.dtype.name], *more)
        tensors[key] = tensor(stored, array.shape, strides_of(array))
    return dict_of(tensors)


# Files of torch


def zip_members(members, compression=zipfile.ZIP_STORED):
    """A zip archive with these members, dated 1980."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for member, content in members.items():
            archive.writestr(zipfile.ZipInfo(member), content, compression)
    return buffer.getvalue()


def join_torch(value, storages=(), *, order="little", **members):
    """A file of torch in the zip format: the opcodes of its value and the bytes of its storages, in order of keys."""
    contents = {"x/data.pkl": program(value), "x/byteorder": order.encode(), "x/version": b"3\n"}
    contents |= {f"x/data/{place}": content for place, content in enumerate(storages)}
    contents |= {f"x/{member}": content for member, content in members.items()}
    return zip_members({member: content for member, content in contents.items() if content is not None})


def pack_torch(arrays, *, order="little"):
    """A file of torch in the zip format that holds arrays."""
    stored = [array.astype(array.dtype.newbyteorder(order)).tobytes() for array in arrays.values()]
    return join_torch(pickle_arrays(arrays), stored, order=order)


LEGACY_START = (
    program(integer(0x1950A86A20F9469CFC6C)),
    program(integer(1001)),
    program(dict_of({"protocol_version": integer(1001), "little_endian": b"\x88"})),
)


def join_legacy(value, storages=(), *, keys=None):
    """A file of torch in the legacy format: opcodes, and (count, bytes) of each storage in the order of the keys."""
    keys = [str(place) for place in range(len(storages))] if keys is None else keys
    listed = program(b"](" + b"".join(map(text, keys)) + b"e")
    data = b"".join(struct.pack("<q", count) + content for count, content in storages)
    return b"".join(LEGACY_START) + program(value) + listed + data


def pack_legacy(arrays):
    """A file of torch in the legacy format that holds arrays."""
    return join_legacy(pickle_arrays(arrays, b"N"), [(array.size, array.tobytes()) for array in arrays.values()])


# npz


def pack_npz(arrays, compression=zipfile.ZIP_STORED):
    """An npz of arrays."""
    return zip_members({f"{key}.npy": pack_npy(array) for key, array in arrays.items()}, compression)


def pack_npy(array):
    """A .npy file of an array."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asanyarray(array), allow_pickle=True)
    return buffer.getvalue()


def npy_header(shape, dtype="<f4"):
    """The header of a .npy file that declares a shape and a dtype."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"shape": shape, "fortran_order": False, "descr": dtype})
    return buffer.getvalue()


def example_arrays():
    """Arrays as a small network has them."""
    rng = np.random.default_rng(0)
    return {
        "conv.weight": rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "norm.running_var": np.abs(rng.normal(size=4)).astype(np.float32),
        "norm.num_batches_tracked": np.asarray(7),
        "head.weight": rng.normal(size=(2, 4)).astype(np.float16),
        "head.bias": np.zeros(2, np.float32),
    }
