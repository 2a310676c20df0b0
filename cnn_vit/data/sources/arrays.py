"""Arrays in an .npz: train_x, train_y, test_x, test_y (uint8 NHW or NHWC), or images as JPEG bytes with offsets.

    train_x        (N, H, W) or (N, H, W, C), uint8; x_train is the same
    train_y        (N,) or (N, 1), integers from 0; y_train is the same
    train_jpeg     bytes of all files one behind the other, uint8, instead of train_x
    train_offsets  (N + 1,), where each file begins; the last is the number of bytes
    train_labels   as train_y
    class_names    (K,), texts, if you like

and the same of test and validation, where there are any. Everything is checked against the directory of the archive
before it is unpacked, and no pickled object is ever read.
"""

import math
import os
import zipfile
from typing import NamedTuple

import numpy as np

from cnn_vit.data.base.parts import (
    PARTS,
    EncodedPart,
    Part,
    SourceData,
    SourceInfo,
    SourceOptions,
    pixel_part,
    require_path,
)
from cnn_vit.errors import UserError, nearest
from cnn_vit.files import stamps

MEMBERS = 64  # arrays in a file, at most
LARGEST = 32 * 2**30  # bytes of them all, unpacked
SUSPECT = 256 * 2**20  # bytes from which on an array that packs better than RATIO is no data
RATIO = 200
FORMS = "there must be train_x and train_y (uint8 images and their labels), or train_jpeg, train_offsets, train_labels"


class Member(NamedTuple):
    """An array as the archive's directory and its own header declare it."""

    shape: tuple[int, ...]
    dtype: np.dtype


def about(given: SourceOptions) -> SourceInfo:
    """Nothing is known before looking."""
    require_path("arrays", given)
    return SourceInfo()


def load(given: SourceOptions) -> SourceData:
    """The parts, in memory.

    Raises:
        UserError: no npz, or arrays that do not fit together; names the file and the array.
    """
    path = require_path("arrays", given)
    with open_archive(path) as archive:
        members = {
            name.removesuffix(".npy"): read_declaration(path, archive, info)
            for name, info in read_directory(path, archive).items()
        }
        arrays = Arrays(path, archive, members)
        kinds = {part: arrays.kind(part) for part in PARTS}
        if kinds["train"] is None:
            raise UserError(f"{path} holds {', '.join(sorted(members)) or 'nothing'}; {FORMS}")
        labels = {part: arrays.labels(part, kind) for part, kind in kinds.items() if kind is not None}
        classes = arrays.classes(labels)
        parts = {part: arrays.part(part, kinds[part] or "x", found) for part, found in labels.items()}
    return SourceData(classes, parts, facts={"unused": sorted(members.keys() - arrays.used)})


# The archive


def open_archive(path: str) -> zipfile.ZipFile:
    """Opens the archive."""
    if not os.path.exists(path):
        raise UserError(f"{path} is not there; data.path is an .npz of arrays")
    try:
        if os.path.isfile(path):
            return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError):
        pass  # said below
    raise UserError(f"{path} is no .npz, or a damaged one; write it with numpy.savez_compressed, or download it again")


def read_directory(path: str, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Members by name, once their declared sizes are sane."""
    members = archive.infolist()
    if len(members) > MEMBERS:
        raise UserError(f"{path} holds {len(members):,} arrays; {MEMBERS} are the most")
    if (total := sum(info.file_size for info in members)) > LARGEST:
        raise UserError(f"{path} unpacks to {total:,} bytes; {LARGEST:,} are the most")
    for info in members:
        if info.flag_bits & 1:
            raise UserError(f"{path}: {info.filename} is encrypted; write the file without a password")
        if info.file_size > SUSPECT and info.file_size > RATIO * info.compress_size:
            raise UserError(
                f"{path}: {info.filename} packs {info.file_size:,} bytes into {info.compress_size:,}, which no "
                "images do; write it again"
            )
    found = {info.filename: info for info in members}
    if len(found) < len(members):
        raise UserError(f"{path} holds an array twice; write it again")
    return found


def read_declaration(path: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    """Shape and dtype from an array's header, once they agree with its size."""
    name = info.filename
    try:
        with archive.open(info) as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            start = file.tell()
    except Exception as error:  # NumPy's and zipfile's readers raise seven kinds over damaged bytes
        raise UserError(f"{path}: {name} is no array or a damaged one; write the file again") from error
    if dtype.hasobject:
        raise UserError(f"{path}: {name} holds Python objects, which are never read; write numbers or texts")
    if start + math.prod(shape) * dtype.itemsize != info.file_size or min(shape, default=0) < 0:
        raise UserError(
            f"{path}: {name} declares {'x'.join(map(str, shape))} of {dtype} but is {info.file_size - start:,} bytes "
            "long; write the file again"
        )
    return Member(shape, dtype)


class Arrays:
    """The arrays of a file, each checked before it is unpacked."""

    def __init__(self, path: str, archive: zipfile.ZipFile, members: dict[str, Member]):
        self.path = path
        self.archive = archive
        self.members = members
        self.stamp = stamps.stamp(os.stat(path))
        self.used: set[str] = set()

    def name(self, part: str, what: str) -> str | None:
        """The name of an array, `train_x` or `x_train`; None where there is none."""
        return next((name for name in (f"{part}_{what}", f"{what}_{part}") if name in self.members), None)

    def kind(self, part: str) -> str | None:
        """Whether a part's images are arrays ("x") or files ("jpeg"); None where there is no such part."""
        for images, others in (("x", ("y",)), ("jpeg", ("offsets", "labels"))):
            found = [self.name(part, what) for what in (images, *others)]
            if all(found):
                return images
            if any(found):
                lost = [what for what, name in zip((images, *others), found, strict=True) if name is None]
                near = nearest(f"{part}_{lost[0]}", self.members)
                hint = f" (it has {near[0]})" if near and near[0] not in found else ""
                raise UserError(f"{self.path} has no {part}_{lost[0]}{hint}; {FORMS}".replace("train", part))
        return None

    def read(self, name: str) -> np.ndarray:
        """Unpacks an array; its checksum is compared."""
        self.used.add(name)
        try:
            with self.archive.open(f"{name}.npy") as file:
                return np.ascontiguousarray(np.lib.format.read_array(file, allow_pickle=False))
        except Exception as error:
            raise UserError(f"{self.path}: {name} is damaged ({error}); download or write the file again") from error

    def labels(self, part: str, kind: str) -> np.ndarray:  # -> (N,)
        """Labels of a part, int64, whatever their range."""
        name = self.name(part, "y" if kind == "x" else "labels") or ""
        shape, dtype = self.members[name]
        if dtype.kind not in "iu":
            raise UserError(f"{self.path}: {name} is {dtype}; labels are integers from 0")
        if len(shape) != 1 and not (len(shape) == 2 and shape[1] == 1):
            raise UserError(f"{self.path}: {name} has the shape {shape}; labels are (N,), an integer for each image")
        if not shape[0]:
            raise UserError(f"{self.path}: {name} is empty; leave the array out or fill it")
        return self.read(name).reshape(-1).astype(np.int64)

    def classes(self, labels: dict[str, np.ndarray]) -> tuple[str, ...]:
        """Names of the classes, and labels in their range."""
        count = int(labels["train"].max()) + 1
        names = tuple(map(str, range(max(count, 0))))
        if "class_names" in self.members:
            shape, dtype = self.members["class_names"]
            if dtype.kind not in "US" or len(shape) != 1:
                raise UserError(f"{self.path}: class_names is {dtype} of shape {shape}; it is a row of texts")
            names = tuple(map(str, self.read("class_names").astype(str).tolist()))
            if len(set(names)) < len(names):
                raise UserError(f"{self.path}: class_names holds a name twice; give each class its own")
        for part, found in labels.items():
            low, high = int(found.min()), int(found.max())
            if low < 0 or high >= len(names):
                known = "class_names" if "class_names" in self.members else "train"
                raise UserError(
                    f"{self.path}: the labels of {part} go from {low} to {high}; with the {len(names)} classes of "
                    f"{known} they go from 0 to {len(names) - 1}"
                )
        return names

    def part(self, part: str, kind: str, labels: np.ndarray) -> Part:
        """A part with its images."""
        return self.pictures(part, labels) if kind == "x" else self.files(part, labels)

    def pictures(self, part: str, labels: np.ndarray) -> Part:
        """A part whose images are an array."""
        name = self.name(part, "x") or ""
        shape, dtype = self.members[name]
        if dtype != np.uint8:
            raise UserError(f"{self.path}: {name} is {dtype}; images are uint8, 0 to 255")
        if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)) or not min(shape[1:]):
            turned = len(shape) == 4 and shape[1] in (1, 3)
            remedy = "; transpose it with (0, 2, 3, 1)" if turned else ""
            raise UserError(
                f"{self.path}: {name} has the shape {shape}; images are (N, H, W), (N, H, W, 1) or (N, H, W, 3){remedy}"
            )
        self.refuse_lengths(name, shape[0], part, labels)
        pixels = self.read(name)
        return pixel_part(pixels if pixels.ndim == 4 else pixels[..., None], labels)

    def files(self, part: str, labels: np.ndarray) -> Part:
        """A part whose images are the bytes of files."""
        name, offsets_name = (self.name(part, what) or "" for what in ("jpeg", "offsets"))
        (shape, dtype), (ends, kind) = self.members[name], self.members[offsets_name]
        if dtype != np.uint8 or len(shape) != 1:
            raise UserError(f"{self.path}: {name} is {dtype} of shape {shape}; it is a row of bytes, uint8")
        if kind.kind not in "iu" or len(ends) != 1:
            raise UserError(f"{self.path}: {offsets_name} is {kind} of shape {ends}; it is a row of integers")
        self.refuse_lengths(offsets_name, ends[0] - 1, part, labels)
        offsets = self.read(offsets_name).astype(np.int64)
        if offsets[0] != 0 or offsets[-1] != shape[0] or (np.diff(offsets) < 0).any():
            raise UserError(
                f"{self.path}: {offsets_name} must rise from 0 to {shape[0]:,}, the bytes of {name}; it goes from "
                f"{offsets[0]:,} to {offsets[-1]:,}"
            )
        joined = self.read(name)
        mark = f"{os.path.abspath(self.path)}:{self.stamp}:{name}"

        def content(index: int, most: int | None) -> bytes:
            start, stop = int(offsets[index]), int(offsets[index + 1])
            return joined[start : stop if most is None else min(stop, start + most)].tobytes()

        return EncodedPart(
            labels=labels.astype(np.int32),
            content=content,
            sizes=np.diff(offsets),
            where=lambda index: f"{self.path}: {name}[{index}]",
            version=lambda index: f"{mark}[{index}]",
        )

    def refuse_lengths(self, name: str, count: int, part: str, labels: np.ndarray) -> None:
        """Refuses another number of images than of labels."""
        if count != len(labels):
            raise UserError(f"{self.path}: {name} has {count:,} images, {part} has {len(labels):,} labels")
