"""Any set of labeled images of the TensorFlow Datasets catalog, once prepared as ArrayRecord; no TensorFlow here.

`data.dataset` is its name there, with configuration and version where you like: mnist, mnist:3.0.1,
cifar10_corrupted/fog_3. `data.path` is the folder that holds prepared data sets, or one of them; unset:
~/tensorflow_datasets, or TFDS_DATA_DIR. Only files are read: the catalog's programs, which download and prepare, are
never run. That takes TensorFlow, once: `pip install tensorflow-cpu`, then `tfds build NAME --file_format=array_record`.

The images are those of the set's supervised pair, or of its only image feature; splits called train, validation and
test are used, and those without labels are left out. Starting reads every record for its label, about 0.1 ms each.
"""

import importlib
import json
import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cnn_vit.data.base.parts import PARTS, EncodedPart, SourceData, SourceInfo, SourceOptions
from cnn_vit.data.decode.images import UnreadableError
from cnn_vit.errors import SurroundingsError, UserError, nearest

DATASET = re.compile(r"([a-z]\w*)(/[\w.+-]+)?(:\d+\.\d+\.\d+)?")  # name, /configuration, :version
FORMS = "write mnist, mnist:3.0.1 or cifar10_corrupted/fog_3"
LIBRARY = "tensorflow_datasets."  # where the classes of features lie that are read
FORMAT = "array_record"
CHUNK = 256  # records that are read at once for their labels


class Fields(NamedTuple):
    """The two features of an example that are used.

    Attributes:
        image: name of the feature that is the image.
        label: name of the feature that is the class.
        classes: names of the classes in the order of the labels.
    """

    image: str
    label: str
    classes: tuple[str, ...]


def about(options: SourceOptions, *, dataset: str = "", label: str = "") -> SourceInfo:
    """Returns an empty record: nothing is known before the files are read. The name is checked.

    Raises:
        UserError: there is no name, or it has a form that no name of the catalog has.
    """
    if not dataset and options.path is None:
        raise UserError(f"data.name=tfds needs a data set; add --config.data.dataset=NAME: {FORMS}")
    if dataset and not DATASET.fullmatch(dataset):
        raise UserError(f"data.dataset is {dataset!r}, which cannot be a name of the catalog; {FORMS}")
    return SourceInfo()


def load(options: SourceOptions, *, dataset: str = "", label: str = "") -> SourceData:
    """Returns the parts; an image is read when it is asked for.

    Args:
        options: the common settings; `path` is where prepared data sets lie.
        dataset: name in the catalog, with /configuration and :version; unset: the path is the set's own folder.
        label: the feature that is the class, where the set has several; unset: that of its supervised pair.

    Raises:
        UserError: it is not prepared (the sentence says how to), has no images with classes, or no train split.
        SurroundingsError: tensorflow_datasets is not installed.
    """
    about(options, dataset=dataset, label=label)
    builder = open_prepared(options.path, dataset)
    fields = find_fields(builder, label)
    parts: dict[str, EncodedPart] = {}
    facts: dict[str, Any] = {"dataset": builder.info.full_name, "features": [fields.image, fields.label]}
    for split in PARTS:
        if split not in builder.info.splits:
            continue
        part = read_part(builder, split, fields)
        # The catalog keeps a split whose labels are secret, with -1 for every label
        if (part.labels < 0).all():
            facts.setdefault("without labels", []).append(split)
        else:
            parts[split] = part
    if "train" not in parts:
        splits = ", ".join(builder.info.splits) or "none"
        raise UserError(f"{builder.info.full_name} has no train split with labels (its splits: {splits}); take another")
    return SourceData(fields.classes, parts, facts=facts)


# Where the files are


def open_prepared(path: str | None, dataset: str) -> Any:
    """Opens a prepared data set read-only; returns its tensorflow_datasets builder.

    Raises:
        UserError: the data set is not there, is damaged, or is in another format.
        SurroundingsError: a package is missing.
    """
    try:
        read_only = importlib.import_module("tensorflow_datasets.core.read_only_builder")
        importlib.import_module("array_record.python.array_record_data_source")
    except ImportError as error:
        raise SurroundingsError(
            f"data.name=tfds needs tensorflow-datasets and array_record ({error}); pip install 'cnn_vit[tfds]'"
        ) from error
    folder = find_prepared(path, dataset)
    if folder is None:
        raise unprepared_error(path, dataset)
    refuse_foreign_features(folder)
    try:
        builder = read_only.builder_from_directory(str(folder))
        formats = {file_format.value for file_format in builder.info.available_file_formats()}
    except Exception as error:  # protocol buffers, JSON and paths each raise their own over damaged files
        raise UserError(f"{folder} is damaged ({shorten_error(error)}); remove it and prepare it again") from error
    if FORMAT not in formats:
        raise UserError(
            f"{folder} is prepared as {', '.join(sorted(formats)) or 'nothing'}, which has no random access; "
            f"{prepare_command(path, dataset or builder.info.full_name)} --overwrite"
        )
    return builder


def find_prepared(path: str | None, dataset: str) -> Path | None:
    """Returns the folder of a prepared data set, or None where there is none.

    Args:
        path: the folder of the data sets, or the data set's own where no name is given; None: the default folders.
        dataset: its name; where it has no version, the highest is taken.
    """
    if not dataset:
        folder = Path(path or "")
        return folder if (folder / "dataset_info.json").is_file() else None
    match = DATASET.fullmatch(dataset)
    name, config, version = match.groups() if match else (dataset, None, None)
    roots = [Path(path)] if path else default_folders()
    versions: list[tuple[tuple[int, ...], Path]] = []
    for root in roots:
        for info in (root / name / (config or "").strip("/")).glob("*/dataset_info.json"):
            folder = info.parent
            is_wanted = version is None or version == f":{folder.name}"
            if is_wanted and re.fullmatch(r"\d+\.\d+\.\d+", folder.name):
                # As numbers, for 1.10.0 comes after 1.9.0
                versions.append((tuple(map(int, folder.name.split("."))), folder))
    return max(versions)[1] if versions else None


def default_folders() -> list[Path]:
    """Returns the folders in which tensorflow_datasets itself looks."""
    file_utils = importlib.import_module("tensorflow_datasets.core.utils.file_utils")
    return [Path(folder) for folder in file_utils.list_data_dirs()]


def unprepared_error(path: str | None, dataset: str) -> UserError:
    """Returns the error for a data set that is not there: how to prepare it, or that no set has this name."""
    if not dataset:
        return UserError(
            f"{path} holds no prepared data set (no dataset_info.json); say which with --config.data.dataset=NAME"
        )
    name = re.split("[/:]", dataset)[0]
    catalog = catalog_names()
    if name not in catalog:
        alike = nearest(name, catalog)
        if alike:
            return UserError(f"the catalog has no {name!r}; did you mean {' or '.join(alike)}?")
    folder = path or str(default_folders()[0])
    return UserError(
        f"{dataset} is not prepared in {folder}; run: {prepare_command(path, dataset)}   "
        "(after pip install tensorflow-cpu, which preparing takes and reading does not)"
    )


def prepare_command(path: str | None, dataset: str) -> str:
    """Returns the command that prepares a data set, as a shell takes it."""
    command = f"tfds build {dataset} --file_format={FORMAT}"
    return f"{command} --data_dir={shlex.quote(path)}" if path else command


def catalog_names() -> set[str]:
    """Returns the names of the catalog, read from the package's file names.

    A set that is defined in one file with others may be missing.
    """
    package = Path(importlib.import_module("tensorflow_datasets").__file__ or "").parent
    names = {path.stem for path in (package / "url_checksums").glob("*.txt")}
    return names | {path.parent.name for path in (package / "datasets").glob("*/*_dataset_builder.py")}


def refuse_foreign_features(folder: Path) -> None:
    """Refuses a data set with features of other programs: the library would import whatever they name.

    Raises:
        UserError: there are such features, or the list of features cannot be read.
    """
    path = folder / "features.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); prepare the data set again") from error
    for name in feature_classes(content):
        if not str(name).startswith(LIBRARY):
            raise UserError(f"{path} asks for {name}, which is not a feature of tensorflow_datasets; it is not run")


def feature_classes(content: Any) -> list[Any]:
    """Returns the classes that a list of features names, at any depth of the JSON."""
    names: list[Any] = []
    if isinstance(content, dict):
        for key in ("pythonClassName", "python_class_name"):
            if key in content:
                names.append(content[key])
        if "type" in content and "content" in content:  # how older versions of the library write a feature
            names.append(content["type"])
        for inside in content.values():
            names += feature_classes(inside)
    elif isinstance(content, list):
        for inside in content:
            names += feature_classes(inside)
    return names


# What is in them


def find_fields(builder: Any, label: str) -> Fields:
    """Returns the image and the class among the features.

    Args:
        builder: of the data set.
        label: the feature that is the class; "": that of the supervised pair, or the only one.

    Raises:
        UserError: the data set does not say which feature is the image and which the class.
    """
    features, title = builder.info.features, builder.info.full_name
    by_name = dict(sorted(features.items())) if hasattr(features, "items") else {}
    images: list[str] = []
    labels: list[str] = []
    for name, feature in by_name.items():
        kind = type(feature).__name__
        if kind == "Image" and feature.shape[-1] in (1, 3):
            images.append(name)
        elif kind == "ClassLabel":
            labels.append(name)
    if label and label not in labels:
        raise UserError(f"{title} has no class feature {label!r}; it has {', '.join(labels) or 'none'}")
    supervised = builder.info.supervised_keys or ()
    image = choose_feature(images, supervised)
    label = label or choose_feature(labels, supervised)
    if not image or not label:
        remedy = "set data.label" if image and labels else "take another data set"
        raise UserError(
            f"{title} does not say what is image and class: images {', '.join(images) or 'none'}, classes "
            f"{', '.join(labels) or 'none'}; {remedy}"
        )
    feature = by_name[label]
    if feature.names:
        return Fields(image, label, tuple(feature.names))
    return Fields(image, label, tuple(str(number) for number in range(feature.num_classes or 0)))


def choose_feature(names: list[str], supervised: tuple[str, ...]) -> str:
    """Returns the feature that is in the supervised pair, else the only one there is, else ""."""
    for name in supervised:
        if name in names:
            return name
    return names[0] if len(names) == 1 else ""


def read_part(builder: Any, split: str, fields: Fields) -> EncodedPart:
    """Reads a split as a part; labels are -1 where there are none.

    Raises:
        UserError: the records cannot be read, or a label is not among the classes.
    """
    title = f"{builder.info.full_name} {split}"
    records = open_records(builder, split, title)
    labels = np.empty(len(records), np.int32)
    sizes = np.empty(len(records), np.int64)
    for start in range(0, len(records), CHUNK):
        stop = min(start + CHUNK, len(records))
        labels[start:stop], sizes[start:stop] = read_labels_and_sizes(records, range(start, stop), fields, title)
    refuse_other_labels(labels, len(fields.classes), title)

    def content(index: int, most: int | None) -> bytes:
        try:
            return records[index][fields.image][:most]
        except Exception as error:  # readers raise errors of many kinds, as in `read_labels_and_sizes`
            raise UnreadableError(f"its record is damaged ({type(error).__name__})") from error

    return EncodedPart(labels, content, sizes, lambda index: f"{title}[{index}]")


def refuse_other_labels(labels: np.ndarray, count: int, title: str) -> None:
    """Raises UserError where a label (N,) is not below the number of classes; a split may lack all labels, not some."""
    if not len(labels) or (labels == -1).all():
        return
    low, high = labels.min(), labels.max()
    if low < 0 or high >= count:
        raise UserError(f"{title} has labels from {low} to {high}; with {count} classes they go from 0 to {count - 1}")


def open_records(builder: Any, split: str, title: str) -> Any:
    """Returns the examples of a split by index, their images as the bytes of files."""
    decode = importlib.import_module("tensorflow_datasets.core.decode")
    decoders = {}
    for name, feature in builder.info.features.items():
        if type(feature).__name__ == "Image":
            decoders[name] = decode.SkipDecoding()
    try:
        return builder.as_data_source(split, decoders=decoders)
    except Exception as error:  # names of files are made here, of a template that dataset_info.json holds
        raise unreadable_error(title, error) from error


def read_labels_and_sizes(records: Any, rows: range, fields: Fields, title: str) -> tuple[list[int], list[int]]:
    """Returns the labels of some examples and the sizes of their images in bytes."""
    try:
        examples = records.__getitems__(list(rows))
        labels = [int(example[fields.label]) for example in examples]
        sizes = [len(example[fields.image]) for example in examples]
    except Exception as error:  # readers of ArrayRecord raise RuntimeError or give nothing, those of examples their own
        raise unreadable_error(f"{title}[{rows[0]}:]", error) from error
    return labels, sizes


def unreadable_error(title: str, error: Exception) -> UserError:
    """Returns the error for examples that the catalog's readers raised something over."""
    return UserError(f"{title} cannot be read ({shorten_error(error)}); prepare the data set again")


def shorten_error(error: Exception) -> str:
    """Returns the first 200 characters of an error's text on one line."""
    return " ".join(str(error).split())[:200]
