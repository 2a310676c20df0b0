"""Any set of labelled images of the TensorFlow Datasets catalogue, once prepared as ArrayRecord; no TensorFlow here.

`data.dataset` is its name there, with configuration and version where you like: mnist, mnist:3.0.1,
cifar10_corrupted/fog_3. `data.path` is the folder that holds prepared data sets, or one of them; unset:
~/tensorflow_datasets, or TFDS_DATA_DIR. Only files are read: the catalogue's programs, which download and prepare, are
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

WRITTEN = re.compile(r"([a-z]\w*)(/[\w.+-]+)?(:\d+\.\d+\.\d+)?")
FORMS = "write mnist, mnist:3.0.1 or cifar10_corrupted/fog_3"
OURS = "tensorflow_datasets."  # modules whose features are read
FORMAT = "array_record"
AT_ONCE = 256  # records read for their labels


class Fields(NamedTuple):
    """Features of an example.

    Attributes:
        image: name of the image.
        label: name of the class.
        classes: names in the order of the labels.
    """

    image: str
    label: str
    classes: tuple[str, ...]


def about(given: SourceOptions, *, dataset: str = "", label: str = "") -> SourceInfo:
    """Nothing is known before looking; the name is checked.

    Raises:
        UserError: there is no name, or none that the catalogue could hold.
    """
    if not dataset and given.path is None:
        raise UserError(f"data.name=tfds needs a data set; add --config.data.dataset=NAME: {FORMS}")
    if dataset and not WRITTEN.fullmatch(dataset):
        raise UserError(f"data.dataset is {dataset!r}, no name of the catalogue; {FORMS}")
    return SourceInfo()


def load(given: SourceOptions, *, dataset: str = "", label: str = "") -> SourceData:
    """The parts; an image is read when it is asked for.

    Args:
        given: the common settings; `path` is where prepared data sets lie.
        dataset: name in the catalogue, with /configuration and :version; unset: the path is the set's own folder.
        label: the feature that is the class, where the set has several; unset: that of its supervised pair.

    Raises:
        UserError: it is not prepared (the sentence says how to), has no images with classes, or no train split.
        SurroundingsError: tensorflow_datasets is not installed.
    """
    about(given, dataset=dataset, label=label)
    builder = open_prepared(given.path, dataset)
    fields = fields_of(builder, label)
    parts: dict[str, EncodedPart] = {}
    facts: dict[str, Any] = {"dataset": builder.info.full_name, "features": [fields.image, fields.label]}
    for part in PARTS:
        if part in builder.info.splits:
            labels, one = part_of(builder, part, fields)
            if (labels < 0).all():
                facts.setdefault("without labels", []).append(part)
            else:
                parts[part] = one
    if "train" not in parts:
        there = ", ".join(builder.info.splits) or "none"
        raise UserError(f"{builder.info.full_name} has no train split with labels (its splits: {there}); take another")
    return SourceData(fields.classes, parts, facts=facts)


# Where the files are


def open_prepared(path: str | None, dataset: str) -> Any:
    """The prepared data set, read-only.

    Raises:
        UserError: it is not there, or in another format.
        SurroundingsError: a package is missing.
    """
    try:
        read_only = importlib.import_module("tensorflow_datasets.core.read_only_builder")
        importlib.import_module("array_record.python.array_record_data_source")
    except ImportError as error:
        raise SurroundingsError(
            f"data.name=tfds needs tensorflow-datasets and array_record ({error}); pip install 'cnn_vit[tfds]'"
        ) from error
    folder = prepared_folder(path, dataset)
    if folder is None:
        raise unprepared_error(path, dataset)
    refuse_foreign(folder)
    try:
        builder = read_only.builder_from_directory(str(folder))
        formats = {one.value for one in builder.info.available_file_formats()}
    except Exception as error:  # protocol buffers, JSON and paths each raise their own over damaged files
        said = " ".join(str(error).split())[:200]
        raise UserError(f"{folder} is damaged ({said}); remove it and prepare it again") from error
    if FORMAT not in formats:
        raise UserError(
            f"{folder} is prepared as {', '.join(sorted(formats)) or 'nothing'}, which has no random access; "
            f"{prepare_command(path, dataset or builder.info.full_name)} --overwrite"
        )
    return builder


def prepared_folder(path: str | None, dataset: str) -> Path | None:
    """The folder of a prepared data set: its highest version where none is said; None where there is none."""
    if not dataset:
        return Path(path or "") if (Path(path or "") / "dataset_info.json").is_file() else None
    found = WRITTEN.fullmatch(dataset)
    name, config, version = found.groups() if found else (dataset, None, None)
    roots = [Path(path)] if path else default_folders()
    places = [root / name / (config or "").strip("/") for root in roots]
    versions = [
        (tuple(map(int, one.parent.name.split("."))), one.parent)
        for place in places
        for one in place.glob("*/dataset_info.json")
        if re.fullmatch(r"\d+\.\d+\.\d+", one.parent.name) and version in (None, f":{one.parent.name}")
    ]
    return max(versions)[1] if versions else None


def default_folders() -> list[Path]:
    """Where tensorflow_datasets itself looks."""
    file_utils = importlib.import_module("tensorflow_datasets.core.utils.file_utils")
    return [Path(one) for one in file_utils.list_data_dirs()]


def unprepared_error(path: str | None, dataset: str) -> UserError:
    """The error for a data set that is not there: how to prepare it, or that there is none of this name."""
    if not dataset:
        return UserError(
            f"{path} holds no prepared data set (no dataset_info.json); say which with --config.data.dataset=NAME"
        )
    name = re.split("[/:]", dataset)[0]
    known = catalog_names()
    if known and name not in known and (near := nearest(name, known)):
        return UserError(f"the catalogue has no {name!r}; did you mean {' or '.join(near)}?")
    folder = path or str(default_folders()[0])
    return UserError(
        f"{dataset} is not prepared in {folder}; run: {prepare_command(path, dataset)}   (after pip install tensorflow-cpu, "
        "which preparing takes and reading does not)"
    )


def prepare_command(path: str | None, dataset: str) -> str:
    """The command that prepares a data set."""
    return f"tfds build {dataset} --file_format={FORMAT}" + (f" --data_dir={shlex.quote(path)}" if path else "")


def catalog_names() -> set[str]:
    """Names in the catalogue, of files and folders of the package; a set defined beside others may be missing."""
    top = Path(importlib.import_module("tensorflow_datasets").__file__ or "").parent
    sums = {path.stem for path in (top / "url_checksums").glob("*.txt")}
    return sums | {path.parent.name for path in (top / "datasets").glob("*/*_dataset_builder.py")}


def refuse_foreign(folder: Path) -> None:
    """Refuses features of other programs: their names would be imported.

    Raises:
        UserError: there are some, or none can be read.
    """
    path = folder / "features.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); prepare the data set again") from error
    for name in named_classes(content):
        if not str(name).startswith(OURS):
            raise UserError(f"{path} asks for {name}, which is no feature of tensorflow_datasets; it is not run")


def named_classes(content: Any) -> list[Any]:
    """Values of pythonClassName and type, at any depth."""
    if isinstance(content, dict):
        own = [content[key] for key in ("pythonClassName", "python_class_name") if key in content]
        legacy = [content["type"]] if {"type", "content"} <= content.keys() else []
        return own + legacy + [name for value in content.values() for name in named_classes(value)]
    return [name for value in content for name in named_classes(value)] if isinstance(content, list) else []


# What is in them


def fields_of(builder: Any, label: str) -> Fields:
    """Image and class among the features.

    Raises:
        UserError: there is not one of each.
    """
    features, title = builder.info.features, builder.info.full_name
    top = dict(sorted(features.items())) if hasattr(features, "items") else {}
    images = [name for name, one in top.items() if type(one).__name__ == "Image" and one.shape[-1] in (1, 3)]
    marks = [name for name, one in top.items() if type(one).__name__ == "ClassLabel"]
    pair = builder.info.supervised_keys or ()
    if label and label not in marks:
        raise UserError(f"{title} has no class feature {label!r}; it has {', '.join(marks) or 'none'}")
    image = next((name for name in pair if name in images), images[0] if len(images) == 1 else None)
    mark = label or next((name for name in pair if name in marks), marks[0] if len(marks) == 1 else None)
    if image is None or not mark:
        raise UserError(
            f"{title} does not say what is image and class: images {', '.join(images) or 'none'}, classes "
            f"{', '.join(marks) or 'none'}; " + ("set data.label" if image and marks else "take another data set")
        )
    names = top[mark].names
    return Fields(image, mark, tuple(names) if names else tuple(map(str, range(top[mark].num_classes or 0))))


def part_of(builder: Any, part: str, fields: Fields) -> tuple[np.ndarray, EncodedPart]:
    """Labels of a part, -1 where there are none, and the part."""
    title = f"{builder.info.full_name} {part}"
    records = records_of(builder, part, title)
    labels, sizes = np.empty(len(records), np.int32), np.empty(len(records), np.int64)
    for start in range(0, len(records), AT_ONCE):
        rows = range(start, min(start + AT_ONCE, len(records)))
        labels[rows.start : rows.stop], sizes[rows.start : rows.stop] = read_examples(records, rows, fields, title)
    count = len(fields.classes)
    if len(labels) and not (labels == -1).all() and (labels.min() < 0 or labels.max() >= count):
        low, high = labels.min(), labels.max()
        raise UserError(f"{title} has labels from {low} to {high}; with {count} classes they go from 0 to {count - 1}")

    def content(index: int, most: int | None) -> bytes:
        try:
            return records[index][fields.image][:most]
        except Exception as error:  # as below
            raise UnreadableError(f"its record is damaged ({type(error).__name__})") from error

    return labels, EncodedPart(labels, content, sizes, lambda index: f"{title}[{index}]")


def records_of(builder: Any, part: str, title: str) -> Any:
    """The examples of a part, their images as files."""
    decode = importlib.import_module("tensorflow_datasets.core.decode")
    images = [name for name, one in builder.info.features.items() if type(one).__name__ == "Image"]
    try:
        return builder.as_data_source(part, decoders={name: decode.SkipDecoding() for name in images})
    except Exception as error:  # names of files are made here, of a template that dataset_info.json holds
        raise unreadable_error(title, error) from error


def read_examples(records: Any, rows: range, fields: Fields, title: str) -> tuple[list[int], list[int]]:
    """Labels and bytes of the images of some examples."""
    try:
        found = records.__getitems__(list(rows))
        return [int(one[fields.label]) for one in found], [len(one[fields.image]) for one in found]
    except Exception as error:  # readers of ArrayRecord raise RuntimeError or give nothing, those of examples their own
        raise unreadable_error(f"{title}[{rows[0]}:]", error) from error


def unreadable_error(title: str, error: Exception) -> UserError:
    """The error for examples that the catalogue's readers raised something over."""
    return UserError(f"{title} cannot be read ({' '.join(str(error).split())[:200]}); prepare the data set again")
