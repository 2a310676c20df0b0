"""Reads HDF5, as Keras writes weights, through h5py where that is installed; names are paths, "conv1/conv1/kernel:0".

The HDF5 library itself, in C, parses the file: what it does with a file that was made to harm it is beyond what is
checked here, which is why it is not installed by default. What a file can ask for without that is refused: other files
(links, external storage, virtual datasets), filters that would be loaded as programs, and arrays larger than the file.

Source: the HDF5 library's reference, H5Pget_filter2, H5Z (numbers of filters); h5py's low-level interface.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from cnn_vit.errors import UserError, printable_name
from cnn_vit.transfer.readers.named_arrays import (
    MOST_ENTRIES,
    Collection,
    NamedArrays,
    RefusedError,
    check_shape,
    check_unpacked,
)

MOST_DEPTH = 16  # groups inside groups
FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}  # those that are part of the library or of h5py
NUMBER_KINDS = "fiub"  # NumPy's letters of floats, integers with and without sign, booleans
FLOAT_BYTES = (2, 4, 8)


def recipe(path: Path) -> tuple[str, str, str]:
    """Returns three lines of Python that make an npz of the file where h5py is."""
    return (
        "import h5py, numpy; arrays = {}",
        f"with h5py.File({str(path)!r}) as file: file.visititems(lambda name, item: arrays.update({{name: item[()]}}) "
        "if isinstance(item, h5py.Dataset) else None)",
        f"numpy.savez({str(path.with_suffix('.npz'))!r}, **arrays)",
    )


def read(path: Path, sha256: str) -> NamedArrays:
    """Reads all arrays of a file.

    Raises:
        UserError: h5py is not installed.
        RefusedError: the file asks for what is never done, or is damaged.
    """
    try:
        import h5py
    except ImportError as error:
        raise UserError(
            f"{printable_name(str(path))} is HDF5, which needs h5py; pip install h5py, or make an npz of it where h5py "
            "is, as above",
            details=recipe(path),
        ) from error
    collection = Collection()
    datasets: dict[str, Any] = {}
    with h5py.File(path, "r") as file:
        add_group(h5py, file, "", 0, datasets, collection)
        check_unpacked(sum(dataset.nbytes for dataset in datasets.values()), path.stat().st_size)
        for name, dataset in datasets.items():
            native = dataset.astype(dataset.dtype.newbyteorder("="))  # converted by the library, piece by piece
            collection.add(name, np.ascontiguousarray(native[()]).reshape(dataset.shape))
    collection.check_finished()
    return NamedArrays(collection.arrays, collection.skipped, sha256, "hdf5", {})


def add_group(h5py: Any, group: Any, prefix: str, depth: int, datasets: dict, collection: Collection) -> None:
    """Adds the datasets of numbers of a group and the groups in it, by name; nothing of their content is read yet.

    Args:
        h5py: the module.
        group: the group.
        prefix: what its names begin with.
        depth: groups around it.
        datasets: what they are added to.
        collection: where others are noted.
    """
    if depth > MOST_DEPTH:
        raise RefusedError(f"has groups inside groups, more than {MOST_DEPTH} deep")
    for key in group:
        name = f"{prefix}{key}"
        if len(datasets) + len(collection.skipped) > MOST_ENTRIES:
            raise RefusedError(f"holds more than {MOST_ENTRIES:,} arrays")
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise RefusedError(f"holds {printable_name(name)}, a link to somewhere else, which is not followed")
        item = group[key]
        if isinstance(item, h5py.Group):
            add_group(h5py, item, f"{name}/", depth + 1, datasets, collection)
        elif not isinstance(item, h5py.Dataset):
            collection.skip(name, "a type")
        elif item.dtype.kind in NUMBER_KINDS:
            check_dataset(name, item)
            datasets[name] = item
        elif item.dtype.kind in "OS" and h5py.check_string_dtype(item.dtype):
            collection.skip(name, "text")
        else:
            raise RefusedError(f"holds {item.dtype} in {printable_name(name)}, which is not read", "save it as float32")


def check_dataset(name: str, dataset: Any) -> None:
    """Refuses a dataset that is not numbers of a usual size in the file itself."""
    shown = printable_name(name)
    if dataset.shape is None:
        raise RefusedError(f"holds no numbers in {shown}")
    check_shape(name, dataset.shape)
    if dataset.dtype.kind == "f" and dataset.dtype.itemsize not in FLOAT_BYTES:
        raise RefusedError(f"holds {dataset.dtype} in {shown}, which is not read", "save it as float32")
    if dataset.external or dataset.is_virtual:
        raise RefusedError(f"keeps {shown} in another file, which is not followed")
    properties = dataset.id.get_create_plist()
    for number in range(properties.get_nfilters()):
        if properties.get_filter(number)[0] not in FILTERS:
            raise RefusedError(f"packs {shown} by a filter that would be loaded as a program", "pack it by gzip")
    if dataset.chunks and math.prod(dataset.chunks) > max(1, 2 * dataset.size):
        raise RefusedError(f"is damaged: a chunk of {shown} is larger than all of it")
