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

import os
import stat
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnn_vit import files
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
from cnn_vit.files import npz, stamps

MEMBERS = 64  # arrays in a file, at most
MOST_NUMBERED = 2**16  # classes without names, of data that are only to be evaluated on
LARGEST = 32 * 2**30  # bytes of them all, unpacked
SUSPECT = 256 * 2**20  # bytes from which on an array that packs better than RATIO cannot be images
RATIO = 200  # unpacked by packed bytes
PIXELS = ("x", "y")  # arrays of a part whose images are pixels: images, labels
FILES = ("jpeg", "offsets", "labels")  # arrays of a part whose images are files: images, where each begins, labels
FORMS = "there must be train_x and train_y (uint8 images and their labels), or train_jpeg, train_offsets, train_labels"


class PartNames(NamedTuple):
    """The names of the arrays that a part consists of.

    Attributes:
        images: pixels, or the bytes of files.
        labels: a number for each image.
        offsets: where each file begins among the bytes; None where the images are pixels.
    """

    images: str
    labels: str
    offsets: str | None


def about(options: SourceOptions) -> SourceInfo:
    """Returns an empty record: nothing is known before the file is read."""
    require_path("arrays", options)
    return SourceInfo()


def load(options: SourceOptions) -> SourceData:
    """Reads the parts into memory.

    Raises:
        UserError: the file is not an npz, or its arrays do not fit together; the sentence names the file and the array.
    """
    path = require_path("arrays", options)
    with open_archive(path) as archive:
        members: dict[str, npz.Declaration] = {}
        for file_name, info in read_directory(path, archive).items():
            members[file_name.removesuffix(".npy")] = npz.read_declaration(path, archive, info)
        arrays = Arrays(path, archive, members)
        names = arrays.find_parts(needs_train=not options.for_evaluation)
        labels = {part: arrays.read_labels(names[part].labels) for part in names}
        classes = arrays.class_names(labels)
        parts = {part: arrays.read_part(part, names[part], labels[part]) for part in names}
    facts = {"unused": sorted(members.keys() - arrays.used)}
    return SourceData(classes, parts, facts=facts, is_named="class_names" in members)


# The archive


def open_archive(path: str) -> zipfile.ZipFile:
    """Opens the file as an archive.

    Raises:
        UserError: there is no file, or it is not an archive.
        SurroundingsError: the system does not let it be read, for it has other rights, say.
    """
    with files.os_errors(Path(path)):
        try:
            mode = os.stat(path).st_mode
        except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: no path at all
            raise UserError(f"{path} is not there; data.path is an .npz of arrays") from error
        if stat.S_ISREG(mode):
            # Opened apart from the archive, for one that is damaged raises OSError, too.
            with open(path, "rb"):
                pass
    if stat.S_ISDIR(mode):
        raise UserError(
            f"{path} is a folder, and data.path is an .npz of arrays; name a file in it, or choose data.name=folder "
            "for a folder of images"
        )
    try:
        if stat.S_ISREG(mode):
            return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError):
        pass  # the sentence below says it
    raise UserError(f"{path} is not an .npz, or is damaged; write it with numpy.savez_compressed, or download it again")


def read_directory(path: str, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Returns the archive's members by name, once their declared sizes are plausible.

    Raises:
        UserError: there are too many arrays, they unpack to too much, or one is encrypted or stands there twice.
    """
    npz.check_members(path, archive, most=MEMBERS, most_bytes=LARGEST)
    by_name = {info.filename: info for info in archive.infolist()}
    for name, info in by_name.items():
        if info.file_size > SUSPECT and info.file_size > RATIO * info.compress_size:
            raise UserError(
                f"{path}: {name} packs {info.file_size:,} bytes into {info.compress_size:,}, which no images do; write "
                "it again"
            )
    return by_name


# The arrays


class Arrays:
    """The arrays of a file, each checked before it is unpacked.

    Attributes:
        path: the file, as the user wrote it.
        archive: the file, open.
        members: what each array declares, by its name.
        stamp: a text that changes whenever the file does.
        used: names of the arrays that have been unpacked.
    """

    def __init__(self, path: str, archive: zipfile.ZipFile, members: dict[str, npz.Declaration]):
        self.path = path
        self.archive = archive
        self.members = members
        self.stamp = stamps.stamp(os.stat(path))
        self.used: set[str] = set()

    def find_parts(self, *, needs_train: bool) -> dict[str, PartNames]:
        """Returns the names of the arrays of each part that the file has.

        Raises:
            UserError: a part lacks one of its arrays, or there is no part, or no train part where there must be one.
        """
        parts: dict[str, PartNames] = {}
        for part in PARTS:
            names = self.find_part(part)
            if names is not None:
                parts[part] = names
        if not parts or (needs_train and "train" not in parts):
            raise UserError(f"{self.path} holds {', '.join(sorted(self.members)) or 'nothing'}; {FORMS}")
        return parts

    def find_part(self, part: str) -> PartNames | None:
        """Returns the names of the arrays of one part, or None where the file has none of them."""
        for suffixes in (PIXELS, FILES):
            names: dict[str, str] = {}
            for suffix in suffixes:
                name = self.find_name(part, suffix)
                if name is not None:
                    names[suffix] = name
            if len(names) == len(suffixes):
                return PartNames(images=names[suffixes[0]], labels=names[suffixes[-1]], offsets=names.get("offsets"))
            if names:
                missing = next(suffix for suffix in suffixes if suffix not in names)
                raise self.missing_error(part, missing, list(names.values()))
        return None

    def find_name(self, part: str, suffix: str) -> str | None:
        """Returns the name of an array, such as `train_x` or `x_train`, or None where there is no such array."""
        for name in (f"{part}_{suffix}", f"{suffix}_{part}"):
            if name in self.members:
                return name
        return None

    def missing_error(self, part: str, suffix: str, present: list[str]) -> UserError:
        """Returns the error for a part that lacks an array; the hint names one that is spelled alike.

        Args:
            part: the part.
            suffix: of the missing array.
            present: names of the other arrays of the part, which are no hint.
        """
        name = f"{part}_{suffix}"
        alike = nearest(name, self.members)
        hint = f" (it has {alike[0]})" if alike and alike[0] not in present else ""
        return UserError(f"{self.path} has no {name}{hint}; {FORMS.replace('train', part)}")

    def read(self, name: str) -> np.ndarray:
        """Unpacks an array, or raises UserError where its checksum is wrong."""
        self.used.add(name)
        try:
            with self.archive.open(f"{name}.npy") as file:
                return np.ascontiguousarray(np.lib.format.read_array(file, allow_pickle=False))
        except Exception as error:
            raise UserError(f"{self.path}: {name} is damaged ({error}); download or write the file again") from error

    def read_labels(self, name: str) -> np.ndarray:  # -> (N,)
        """Reads labels as int64, whatever their range.

        Raises:
            UserError: the array does not hold one integer for each image, or is empty.
        """
        shape, dtype = self.members[name].shape, self.members[name].dtype
        if dtype.kind not in "iu":  # signed or unsigned integers
            raise UserError(f"{self.path}: {name} is {dtype}; labels are integers from 0")
        is_row, is_column = len(shape) == 1, len(shape) == 2 and shape[1] == 1
        if not is_row and not is_column:
            raise UserError(f"{self.path}: {name} has the shape {shape}; labels are (N,), an integer for each image")
        if not shape[0]:
            raise UserError(f"{self.path}: {name} is empty; leave the array out or fill it")
        return self.read(name).reshape(-1).astype(np.int64)

    def class_names(self, labels: dict[str, np.ndarray]) -> tuple[str, ...]:
        """Returns the names of the classes: those of the array `class_names`, else the numbers that train holds.

        Where there is no train part, these are the numbers of all parts.

        Args:
            labels: (N,) of each part.

        Raises:
            UserError: `class_names` does not hold different texts, or a label is not among the classes.
        """
        if "class_names" in self.members:
            names, origin = self.read_class_names(), "class_names"
        else:
            origin = "train" if "train" in labels else "all parts"
            counting = [labels["train"]] if "train" in labels else list(labels.values())
            count = max(int(part_labels.max()) for part_labels in counting) + 1
            # There is a name for each number, so that a wrong label must not make millions of them.
            most = len(labels["train"]) if "train" in labels else MOST_NUMBERED
            if count > most:
                raise UserError(
                    f"{self.path}: a label of {origin} is {count - 1:,}, which makes {count:,} classes of "
                    f"{sum(map(len, counting)):,} images; labels count the classes from 0 without gaps"
                )
            names = tuple(str(number) for number in range(count))
        for part, part_labels in labels.items():
            low, high = int(part_labels.min()), int(part_labels.max())
            if low < 0 or high >= len(names):
                raise UserError(
                    f"{self.path}: the labels of {part} go from {low} to {high}; with the {len(names)} classes of "
                    f"{origin} they go from 0 to {len(names) - 1}"
                )
        return names

    def read_class_names(self) -> tuple[str, ...]:
        """Reads the array `class_names`, or raises UserError where it does not hold different texts."""
        shape, dtype = self.members["class_names"].shape, self.members["class_names"].dtype
        if dtype.kind not in "US" or len(shape) != 1:  # Unicode texts or bytes
            raise UserError(f"{self.path}: class_names is {dtype} of shape {shape}; it must be a row of texts")
        stored_names = self.read("class_names").tolist()
        try:
            names = tuple(name.decode() if isinstance(name, bytes) else str(name) for name in stored_names)
        except UnicodeDecodeError as error:
            raise UserError(f"{self.path}: class_names holds bytes that are not UTF-8; write texts") from error
        if len(set(names)) < len(names):
            raise UserError(f"{self.path}: class_names holds a name twice; give each class its own")
        return names

    def read_part(self, part: str, names: PartNames, labels: np.ndarray) -> Part:
        """Reads a part with its images."""
        if names.offsets is None:
            return self.read_pixels(part, names.images, labels)
        return self.read_files(part, names.images, names.offsets, labels)

    def read_pixels(self, part: str, name: str, labels: np.ndarray) -> Part:
        """Reads a part whose images are an array of pixels.

        Raises:
            UserError: the array does not hold images, or not one for each label.
        """
        shape, dtype = self.members[name].shape, self.members[name].dtype
        if dtype != np.uint8:
            raise UserError(f"{self.path}: {name} is {dtype}; images are uint8, 0 to 255")
        if not is_image_shape(shape):
            has_colors_first = len(shape) == 4 and shape[1] in (1, 3)
            remedy = "; transpose it with (0, 2, 3, 1)" if has_colors_first else ""
            raise UserError(
                f"{self.path}: {name} has the shape {shape}; images are (N, H, W), (N, H, W, 1) or (N, H, W, 3){remedy}"
            )
        self.refuse_other_count(name, shape[0], part, labels)
        pixels = self.read(name)
        return pixel_part(pixels if pixels.ndim == 4 else pixels[..., None], labels)

    def read_files(self, part: str, name: str, offsets_name: str, labels: np.ndarray) -> Part:
        """Reads a part whose images are the bytes of files.

        Raises:
            UserError: the arrays do not hold bytes and where each file begins, or not one file for each label.
        """
        shape, dtype = self.members[name].shape, self.members[name].dtype
        if dtype != np.uint8 or len(shape) != 1:
            raise UserError(f"{self.path}: {name} is {dtype} of shape {shape}; it must be a row of bytes, uint8")
        offsets_shape, offsets_dtype = self.members[offsets_name].shape, self.members[offsets_name].dtype
        if offsets_dtype.kind not in "iu" or len(offsets_shape) != 1:
            raise UserError(
                f"{self.path}: {offsets_name} is {offsets_dtype} of shape {offsets_shape}; it must be a row of integers"
            )
        self.refuse_other_count(offsets_name, offsets_shape[0] - 1, part, labels)
        offsets = self.read(offsets_name).astype(np.int64)
        if offsets[0] != 0 or offsets[-1] != shape[0] or (np.diff(offsets) < 0).any():
            raise UserError(
                f"{self.path}: {offsets_name} must rise from 0 to {shape[0]:,}, the bytes of {name}; it goes from "
                f"{offsets[0]:,} to {offsets[-1]:,}"
            )
        all_bytes = self.read(name)
        # The whole path, for this text is looked up by later runs from other folders
        version_prefix = f"{os.path.abspath(self.path)}:{self.stamp}:{name}"

        def content(index: int, most: int | None) -> bytes:
            start, stop = int(offsets[index]), int(offsets[index + 1])
            if most is not None:
                stop = min(stop, start + most)
            return all_bytes[start:stop].tobytes()

        return EncodedPart(
            labels=labels.astype(np.int32),
            content=content,
            sizes=np.diff(offsets),
            path_of=lambda index: f"{self.path}: {name}[{index}]",
            version=lambda index: f"{version_prefix}[{index}]",
        )

    def refuse_other_count(self, name: str, count: int, part: str, labels: np.ndarray) -> None:
        """Raises UserError where there are not as many images as labels."""
        if count != len(labels):
            raise UserError(f"{self.path}: {name} has {count:,} images, {part} has {len(labels):,} labels")


def is_image_shape(shape: tuple[int, ...]) -> bool:
    """Whether a shape is (N, H, W), (N, H, W, 1) or (N, H, W, 3) with at least one pixel in an image."""
    if len(shape) == 4:
        return shape[3] in (1, 3) and min(shape[1:]) > 0
    return len(shape) == 3 and min(shape[1:]) > 0
