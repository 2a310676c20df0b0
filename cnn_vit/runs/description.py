"""The description of a run in its folder: settings, classes, preprocessing and data.

It is written at the first start and compared at each later one with what settings and data say then. What a checkpoint
has sealed is believed (`runs/seals.py`), and what is missing is made anew where that gives the very bytes that were
sealed. Before the first checkpoint nothing depends on the description yet, so what differs is written anew.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cnn_vit import data, files
from cnn_vit.data.decode import pixel_rules
from cnn_vit.data.sections import READING_KEYS
from cnn_vit.errors import UserError
from cnn_vit.runs import folder, reader, seals
from cnn_vit.runs.seals import RECOVER, REMADE, RunDamageError, Seal
from cnn_vit.settings import Settings, to_json

FREE_KEY = "max_pixels"  # of preprocessing.json, which changes no pixel, so that a resume may raise it
MEASURED = ("mean", "std")  # the keys of preprocessing.json that other versions of libraries may measure differently


def describe(
    workdir: Path,
    settings: Settings,
    dataset: data.Dataset,
    preprocessing: Mapping[str, Any],
    *,
    pretrained_record: Mapping[str, Any] | None = None,
    say: Callable[[str], None],
) -> dict[str, Seal]:
    """Writes into a run folder what the run and its data are, or checks that the data are still the same.

    Args:
        workdir: the run folder, in which no sealed file has changed (`seals.refuse_changed`).
        settings: of the run.
        dataset: its data.
        preprocessing: what `choose_preprocessing` returned.
        pretrained_record: what pretrained.json is to say, of a run that starts from weights or freezes something.
        say: takes a sentence for each file that is made anew.

    Returns:
        The seals of the files that describe the run, by their names.

    Raises:
        UserError: the folder's run was trained on other data.
        RunDamageError: a file is missing, and what settings and data give now is not what was sealed.
    """
    texts = {
        folder.CLASSES: files.json_text(list(dataset.classes)),
        folder.PREPROCESSING: files.json_text(preprocessing),
        folder.DATA: files.json_text(dataset.facts | {"fingerprint": dataset.fingerprint}),
    }
    if pretrained_record is not None:
        texts[folder.PRETRAINED] = files.json_text(pretrained_record)
    texts[folder.CONFIG] = files.json_text(to_json(settings))  # last: it says that the others are there
    if not (workdir / folder.CONFIG).exists():
        for name, text in texts.items():
            files.write(workdir / name, text)
        return seal_texts(texts)
    run_seals = seals.find_seals(workdir)
    if run_seals is None:
        refuse_other_data(workdir, dataset)
        rewrite_differing(workdir, texts, say)
        return seal_texts(texts)
    earlier_text = files.json_text(as_once_written(preprocessing))
    if seals.seal_content(earlier_text.encode()) == run_seals.files[folder.PREPROCESSING]:
        texts[folder.PREPROCESSING] = earlier_text
    make_missing(workdir, texts, run_seals, say)
    refuse_other_data(workdir, dataset)
    # also of pretrained.json and of the frozen values, which only the first start could write
    return {name: seal for name, seal in run_seals.files.items() if name != folder.METRICS}


def is_complete(workdir: Path) -> bool:
    """Whether a run folder has all files that describe its run."""
    return all((workdir / name).exists() for name in (folder.CONFIG, *REMADE))


def as_once_written(preprocessing: Mapping[str, Any]) -> dict[str, Any]:
    """Returns preprocessing as runs wrote it before they named the interpolation, which then was always the same."""
    earlier = dict(preprocessing)
    if earlier["interpolation"] == reader.OLDEST_INTERPOLATION:
        del earlier["interpolation"]
    return earlier


def seal_texts(texts: Mapping[str, str]) -> dict[str, Seal]:
    """Returns the seal of each text, by the name of its file."""
    return {name: seals.seal_content(text.encode()) for name, text in texts.items()}


def rewrite_differing(workdir: Path, texts: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Writes each file anew that has not this text, and says so."""
    for name, text in texts.items():
        path = workdir / name
        if seals.find_damage(path, seals.seal_content(text.encode())):
            difference = "is not what settings and data give now" if path.exists() else "is missing"
            files.write(path, text)
            say(f"{path} {difference}, and no checkpoint stands on it; it is written anew")


def make_missing(
    workdir: Path, texts: Mapping[str, str], run_seals: seals.RunSeals, say: Callable[[str], None]
) -> None:
    """Makes the files anew that are missing, and says so of each.

    Raises:
        RunDamageError: the file would have another content than was sealed.
    """
    for name in REMADE:
        path = workdir / name
        if path.exists():
            continue
        if seals.seal_content(texts[name].encode()) != run_seals.files[name]:
            raise RunDamageError(
                f"{path} has disappeared since {run_seals.sealed_by} sealed it, and settings and data now give another "
                f"content; {RECOVER}"
            )
        files.write(path, texts[name])
        say(f"{path} has disappeared since {run_seals.sealed_by} sealed it; it is made anew, with the same content")


def choose_preprocessing(workdir: Path, computed: dict[str, Any], *, say: Callable[[str], None]) -> dict[str, Any]:
    """Returns how images become the network's input: as the run has sealed it, where it has, else as computed now.

    Where mean or standard deviation were measured differently when the run began, which other versions of libraries may
    do, the user is told so.

    Args:
        workdir: the run folder, in which no sealed file has changed (`seals.refuse_changed`).
        computed: what `make_preprocessing` returned.
        say: takes a sentence for the user.

    Raises:
        UserError: something else than mean and standard deviation differs.
    """
    path = workdir / folder.PREPROCESSING
    run_seals = seals.find_seals(workdir)
    if run_seals is None or not path.exists():
        return computed
    recorded = reader.read_preprocessing(path)
    current = json.loads(files.json_text(computed))  # tuples as lists, as the file has them
    differing = []
    for key in recorded | current:
        if key != FREE_KEY and recorded.get(key) != current.get(key):
            differing.append(key)
    changes = [f"{key} {recorded.get(key)} there, {current.get(key)} now" for key in differing]
    if not set(differing) <= set(MEASURED):
        raise UserError(
            f"{path} is not what settings and data now give: {'; '.join(changes)}; {folder.USE_ANOTHER_FOLDER}"
        )
    if changes:
        measured = "; ".join(changes)
        say(f"{path} was measured differently: {measured}; the run goes on with what {run_seals.sealed_by} sealed")
    return recorded


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
        "version": pixel_rules.VERSION,
    }
    for key in READING_KEYS:
        preprocessing[key] = settings[f"data.{key}"]
    if train.padded_sizes is not None:
        preprocessing["sizes"] = [list(size) for size in train.padded_sizes.buckets]
    return preprocessing


def refuse_other_data(workdir: Path, dataset: data.Dataset) -> None:
    """Raises UserError where the folder's run was trained on other data; a file that is missing says nothing."""
    if (workdir / folder.CLASSES).exists():
        refuse_other_classes(workdir, dataset)
    if not (workdir / folder.DATA).exists():
        return
    recorded = reader.read_data(workdir / folder.DATA)
    if recorded["fingerprint"] != dataset.fingerprint:
        raise UserError(
            f"{workdir} was trained on other data: fingerprint {recorded['fingerprint'][:12]}, {recorded['counts']} "
            f"there, {dataset.fingerprint[:12]}, {dataset.facts['counts']} here; {folder.USE_ANOTHER_FOLDER}"
        )


def refuse_other_rules(workdir: Path) -> None:
    """Raises UserError where the folder's run has begun and its images became pixels by other rules than today's."""
    if (workdir / folder.CONFIG).exists() and (workdir / folder.PREPROCESSING).exists():
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
