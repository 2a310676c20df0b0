"""The description of a run in its folder: written at the first start, and compared at each later one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnn_vit import data, files
from cnn_vit.data.decode import pixel_rules
from cnn_vit.errors import UserError
from cnn_vit.runs import folder, reader
from cnn_vit.settings import Settings, to_json


def describe(workdir: Path, settings: Settings, dataset: data.Dataset, preprocessing: Mapping[str, Any]) -> None:
    """Writes into a run folder what the run and its data are, or checks that the data are still the same.

    Raises:
        UserError: the folder's run was trained on other data.
    """
    if not (workdir / folder.CONFIG).exists():
        files.write_json(workdir / folder.CLASSES, list(dataset.classes))
        files.write_json(workdir / folder.PREPROCESSING, preprocessing)
        files.write_json(workdir / folder.DATA, dataset.facts | {"fingerprint": dataset.fingerprint})
        files.write_json(workdir / folder.CONFIG, to_json(settings))  # last: it says that the others are there
        return
    refuse_other_classes(workdir, dataset)
    recorded = reader.read_data(workdir / folder.DATA)
    if recorded["fingerprint"] != dataset.fingerprint:
        raise UserError(
            f"{workdir} was trained on other data: fingerprint {recorded['fingerprint'][:12]}, {recorded['counts']} "
            f"there, {dataset.fingerprint[:12]}, {dataset.facts['counts']} here; {folder.USE_ANOTHER_FOLDER}"
        )


def make_preprocessing(settings: Settings, dataset: data.Dataset) -> dict[str, Any]:
    """Returns how images become the network's input, as preprocessing.json says it.

    Where the settings leave mean or standard deviation open, it is measured on the training split.
    """
    train = dataset.splits["train"]
    mean, std = settings["data.mean"], settings["data.std"]
    if mean is None or std is None:
        measured_mean, measured_std = data.mean_and_std(train)
        mean, std = mean or measured_mean, std or measured_std
    height, width, channels = dataset.image_shape
    preprocessing = {
        "mean": list(mean),
        "std": list(std),
        "image_size": [height, width],
        "channels": channels,
        "fit": settings["data.fit"],
        "levels": settings["data.levels"],
        "max_pixels": settings["data.max_pixels"],
        "version": pixel_rules.VERSION,
    }
    if train.padded_sizes is not None:
        preprocessing["sizes"] = [list(size) for size in train.padded_sizes.buckets]
    return preprocessing


def refuse_other_rules(workdir: Path) -> None:
    """Raises UserError where the folder's run has begun and its images became pixels by other rules than today's."""
    if (workdir / folder.CONFIG).exists():
        reader.read_preprocessing(workdir / folder.PREPROCESSING)


def refuse_other_classes(workdir: Path, dataset: data.Dataset) -> None:
    """Raises UserError where the folder's run was trained on other classes than the data have."""
    classes = reader.read_classes(workdir / folder.CLASSES)
    if tuple(dataset.classes) != classes:
        raise UserError(
            f"{workdir} was trained on the classes {folder.list_names(classes)}, "
            f"the data now have {folder.list_names(dataset.classes)}; "
            f"labels would shift: {folder.USE_ANOTHER_FOLDER}"
        )


def has_same_examples(workdir: Path, dataset: data.Dataset) -> bool:
    """Whether the splits of the folder's run hold the same examples as these data."""
    recorded = reader.read_data(workdir / folder.DATA)
    current = dataset.facts | {"fingerprint": dataset.fingerprint}
    # the fingerprint is of all data, of which slices and counts say which examples a split has
    return all(recorded.get(name) == current.get(name) for name in ("fingerprint", "slices", "counts"))
