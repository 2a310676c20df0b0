"""A file of somebody's weights -> named arrays. Nothing in a file is executed, and nothing it declares is believed.

    safetensors.py    one file, or several with an index
    npz.py            arrays of NumPy
    torch_files.py    files of torch.save, new and legacy, by the machine of pickled.py; torch is not needed
    hdf5.py           files of Keras, through h5py where it is installed
    named_arrays.py   what is promised of all of them

What a file is, its first bytes say, never its name. Reading takes less memory than twice the file and 500 MB.
"""

import errno
from pathlib import Path

from cnn_vit import files
from cnn_vit.errors import UserError, nearest, printable_name
from cnn_vit.files import downloads, stamps
from cnn_vit.transfer.readers import archives, hdf5, npz, safetensors, torch_files
from cnn_vit.transfer.readers.named_arrays import NamedArrays, RefusedError, check_regular
from cnn_vit.transfer.readers.pickled import NotTensorsError

__all__ = ["NamedArrays", "read"]

MOST_BYTES = 32 * 2**30  # of a file; the largest vision transformers have 6 billion numbers, 24 GB in float32
BEGINNING = 4096  # bytes that are looked at
LONGEST_CAUSE = 150  # characters of a library's own words that an error repeats
DAMAGE = (None, errno.EINVAL)  # numbers of an OSError that come of places a file declares, not of the system
ZIPS = (b"PK\3\4", b"PK\5\6")  # of an archive with members, of an empty one
HDF5 = b"\x89HDF\r\n\x1a\n"
PICKLE = b"\x80"  # the opcode PROTO, with which every pickle of protocol 2 and up begins
TAR, TAR_START = b"ustar", 257
# What else may lie where weights were expected: how it begins, what it is, and what to do.
FOREIGN = (
    (b"version https://git-lfs", "a Git LFS pointer, not the weights", "run git lfs pull"),
    (b"/annex/objects/", "a git-annex pointer, not the weights", "run git annex get"),
    (b"<?xml", "XML, perhaps what a server answered instead", "download it again"),
    (b"\x1f\x8b", "compressed by gzip", "unpack it (gunzip)"),
    (b"BZh", "compressed by bzip2", "unpack it (bunzip2)"),
    (b"\xfd7zXZ\0", "compressed by xz", "unpack it (unxz)"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", "unpack it (unzstd)"),
    (b"\x93NUMPY", "a single array", "put all arrays by name into one npz (numpy.savez)"),
)
KINDS = "safetensors, npz, files of torch.save (.pth .pt .th .bin) and HDF5 (.h5)"


def read(path: str | Path) -> NamedArrays:
    """Reads a weights file of any kind that is read.

    Raises:
        UserError: there is no such file, it is of another kind or damaged, or it holds what is not read. The sentence
            names the file and the array.
        SurroundingsError: the file cannot be opened.
    """
    path = Path(path)
    shown = printable_name(str(path))
    try:
        check_file(path)
        before = stamps.stamp(path.stat())
        arrays = read_by_content(path)
        if stamps.stamp(path.stat()) != before:
            raise RefusedError("was changed while it was read", "wait until it is whole")
        return arrays
    except RefusedError as error:
        raise UserError(f"{shown} {error.reason}; {error.remedy}") from error
    except UserError:
        raise
    except Exception as error:  # zipfile, zlib, NumPy and h5py raise a dozen kinds over damaged bytes
        if isinstance(error, OSError) and error.errno not in DAMAGE:
            raise files.from_os_error(error, path) from error
        cause = " ".join(str(error).split())[:LONGEST_CAUSE] or type(error).__name__
        raise UserError(f"{shown} is damaged ({printable_name(cause)}); download or write it again") from error


def check_file(path: Path) -> None:
    """Raises UserError where there is no file to read, or an empty or enormous one."""
    shown = printable_name(str(path))
    if not path.exists():
        names = [child.name for child in path.parent.iterdir()] if path.parent.is_dir() else []
        near = nearest(path.name, names)
        hint = f"did you mean {' or '.join(map(printable_name, near))}?" if near else "give the path of a weights file"
        raise UserError(f"{shown} is not there; {hint}")
    check_regular(path)
    size = path.stat().st_size
    if size == 0:
        raise UserError(f"{shown} is empty; download or write it again")
    if size > MOST_BYTES:
        raise UserError(f"{shown} has {size:,} bytes; {MOST_BYTES:,} are the most of a weights file")


def read_by_content(path: Path) -> NamedArrays:
    """Reads a file by the reader that its first bytes ask for."""
    with open(path, "rb") as file:
        beginning = file.read(BEGINNING)
    text = beginning.lstrip()
    if beginning.startswith(ZIPS):
        return read_zip(path)
    if beginning.startswith(HDF5):
        return hdf5.read(path, files.sha256(path))
    if torch_files.is_legacy(beginning):
        return read_torch(path)
    if downloads.PAGE.match(beginning):
        raise RefusedError("is a web page, perhaps what a server answered instead", "download it again")
    for foreign_beginning, what, remedy in FOREIGN:
        if text.startswith(foreign_beginning):
            raise RefusedError(f"is {what}", remedy)
    # A header's length may begin with any byte, so the brace behind its eight decides. Where it begins with a brace
    # too, its high bytes, which are 0, tell it from an index: text has no such byte.
    is_text = beginning.startswith(b"{") and b"\0" not in beginning[: safetensors.LENGTH_BYTES]
    if beginning[safetensors.LENGTH_BYTES :].startswith(b"{") and not is_text:
        return safetensors.read(path, files.sha256(path))
    if text.startswith(b"{"):
        return safetensors.read_index(path)
    if beginning.startswith(PICKLE) or beginning[TAR_START:].startswith(TAR):
        raise torch_error(path, "is not a file of torch.save but another pickle, or older than 2017")
    if path.suffix == safetensors.SHARD_ENDING:
        return safetensors.read(path, files.sha256(path))  # which says what is wrong with it
    raise RefusedError("is not a weights file of a kind that is read", f"give {KINDS}")


def read_zip(path: Path) -> NamedArrays:
    """Reads an archive: arrays of NumPy, or a file of torch."""
    with archives.open_checked(path) as archive:
        names = archive.namelist()
        root = torch_files.find_root(names)
        if root is not None:
            try:
                return torch_files.read_zip(archive, root, files.sha256(path))
            except NotTensorsError as error:
                raise torch_error(path, error.reason) from error
        if "model.weights.h5" in names:
            raise UserError(
                f"{printable_name(str(path))} is a model of Keras, whose program is not run; where Keras is, make an "
                "npz of its weights, as above",
                details=keras_recipe(path),
            )
        return npz.read(path, archive, files.sha256(path))


def read_torch(path: Path) -> NamedArrays:
    """Reads a file of torch in the legacy format."""
    try:
        return torch_files.read_legacy(path, files.sha256(path))
    except NotTensorsError as error:
        raise torch_error(path, error.reason) from error


def torch_error(path: Path, reason: str) -> UserError:
    """Returns the error for a file that holds more than tensors, with three lines that save these safely."""
    recipe = (
        "import torch, safetensors.torch",
        f"content = torch.load({str(path)!r}, map_location='cpu', weights_only=True)  # of a whole model, where its "
        "code is: content = model.state_dict()",
        "safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in content.get('state_dict', "
        f"content).items()}}, {str(path.with_suffix('.safetensors'))!r})",
    )
    return UserError(
        f"{printable_name(str(path))} {reason}, and nothing in a file is executed; where torch is, save the tensors "
        "alone, as above, or ask its author for safetensors",
        details=recipe,
    )


def keras_recipe(path: Path) -> tuple[str, str, str]:
    """Returns three lines of Python that make an npz of a model of Keras."""
    return (
        "import keras, numpy",
        f"model = keras.saving.load_model({str(path)!r}, compile=False)",
        f"numpy.savez({str(path.with_suffix('.npz'))!r}, **{{w.path: w.numpy() for w in model.weights}})",
    )
