"""Loads data that a trained network is evaluated on: some of its classes, in splits or not, with a train split or not.

Data without split folders are evaluated whole, and labels are matched to the network's classes by name; labels without
names count the network's classes. Where the data are those of the network's own run, which their fingerprint says, the
splits are the run's. Images whose content is in the run's train split are counted, as far as the run's data can still
be read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cnn_vit import data
from cnn_vit.data.base.parts import PARTS, Part, SourceData
from cnn_vit.data.base.splits import Split
from cnn_vit.data.sections import complete_section, fit_options, height_and_width
from cnn_vit.errors import UserError, nearest

if TYPE_CHECKING:
    from cnn_vit.data.reading.materialize import MadeSplits

ALL = "all"  # the split of data that are not divided
MOST_NAMED = 5  # classes that a sentence names


@dataclass(frozen=True)
class RunData:
    """The data of a run, as its folder describes them.

    Attributes:
        path: what a sentence calls the run.
        section: settings of the data.
        fingerprint: of the data.
    """

    path: str
    section: dict[str, Any]
    fingerprint: str


@dataclass(frozen=True)
class EvaluatedSplit:
    """A split that a network is evaluated on.

    Attributes:
        name: train, validation, test or ALL.
        split: its images, with labels that count the network's classes.
        image_shape: (H, W, C) of the images.
        layout: how the split was made where the data have none of their own, as a sentence; else None.
        trained_on: number of images whose content was trained on; None where that is not known.
        notes: what one who reads the accuracy should know, a sentence each.
        highest_level: the highest level of images of 16 bits; None where all have fewer bits.
        levels: the setting `data.levels` that they were read with.
    """

    name: str
    split: Split
    image_shape: tuple[int, int, int]
    layout: str | None
    trained_on: int | None
    notes: list[str]
    highest_level: int | None
    levels: int | None


def from_dataset(
    dataset: data.Dataset, classes: tuple[str, ...], split_name: str | None, *, by_position: bool = False
) -> EvaluatedSplit:
    """Returns a split of a data set that is loaded already; by default test.

    Args:
        dataset: the data set.
        classes: of the network.
        by_position: as of `load`.
        split_name: train, validation or test; None: test.

    Raises:
        UserError: there is no such split, or it has a class that the network does not know.
    """
    name = split_name or "test"
    refuse_missing_split(name, dataset.splits)
    split = dataset.splits[name]
    labels, notes = match_classes(split.labels, dataset.classes, classes, by_position=by_position)
    return EvaluatedSplit(
        name=name,
        split=replace(split, labels=labels),
        image_shape=dataset.image_shape,
        layout=dataset.facts.get("layout"),
        trained_on=None,
        notes=notes,
        highest_level=dataset.facts.get("highest_level"),
        levels=dataset.facts.get("levels"),
    )


def load(
    section: Mapping[str, Any],
    classes: tuple[str, ...],
    split_name: str | None,
    *,
    run_data: RunData | None,
    is_whole: bool,
    by_position: bool = False,
) -> EvaluatedSplit:
    """Loads a split that a network is evaluated on.

    Args:
        section: settings of the data.
        classes: of the network.
        split_name: train, validation or test; None: test, or all images of undivided data.
        run_data: the data of the network's run; None where they are not known.
        is_whole: whether undivided data are evaluated whole; else a tenth of them is test, as in training.
        by_position: whether the classes of the network have no names, so that those of the data are taken for them in
            their order.

    Raises:
        UserError: as `data.load`; there is no such split, or it has a class that the network does not know.
    """
    from cnn_vit.data.reading import levels

    section = complete_section(section)
    readable = data.drop_unreadable(section, data.read_source(section, for_evaluation=is_whole))
    source_data = readable.source_data
    own_data = None if run_data is None else find_own_data(source_data, run_data, section)
    if not is_whole:
        chosen = choose_slice(data.divide(source_data).parts, section, split_name)
    elif own_data is not None and run_data is not None:
        chosen = choose_slice(own_data.parts, complete_section(run_data.section), split_name)
    else:
        chosen = choose_part(source_data, section["path"], split_name)
    part = chosen.parts[chosen.part_name].select(chosen.indices)
    data_classes, notes = name_classes(source_data, classes, by_position=by_position)
    labels, class_notes = match_classes(part.labels, data_classes, classes, by_position=by_position)
    readable = readable._replace(source_data=replace(source_data, parts=chosen.parts))
    made_splits = read_split(section, readable, chosen)
    notes += list(source_data.facts.get("left out", [])) + class_notes
    dark = levels.describe_dark_levels(made_splits.highest_level, section["levels"], is_sampled=made_splits.is_sampled)
    if dark is not None:
        notes.append(dark)
    trained_on = None
    if run_data is not None:
        if own_data is None and section == complete_section(run_data.section):
            notes.append(f"these are not the data that {run_data.path} was trained on: their fingerprint is another")
        try:
            trained_on = count_trained_on(part, run_data, own_data)
            notes += describe_trained_on(trained_on, len(part.labels))
        except UserError as error:
            notes.append(f"whether the network was trained on some of these images is not known: {error}")
    return EvaluatedSplit(
        name=chosen.name,
        split=replace(made_splits.splits[chosen.name], labels=labels),
        image_shape=made_splits.shape,
        layout="no split folders: all images are evaluated" if chosen.name == ALL else source_data.facts.get("layout"),
        trained_on=trained_on,
        notes=notes,
        highest_level=made_splits.highest_level,
        levels=section["levels"],
    )


@dataclass(frozen=True)
class ChosenSplit:
    """The examples that are evaluated, before their images are read.

    Attributes:
        name: of the split: train, validation, test or ALL.
        parts: of the data.
        part_name: the part that holds the examples.
        indices: of the examples there, (n,).
    """

    name: str
    parts: Mapping[str, Part]
    part_name: str
    indices: np.ndarray


def choose_slice(parts: Mapping[str, Part], section: Mapping[str, Any], split_name: str | None) -> ChosenSplit:
    """Chooses a split as training does, by the slices of a completed section; None is test.

    Raises:
        UserError: there is no such split.
    """
    name = split_name or "test"
    split_indices = data.index_splits(parts, data.plan_splits(parts, section))
    refuse_missing_split(name, split_indices)
    part_name, indices = split_indices[name]
    return ChosenSplit(name, parts, part_name, indices)


def choose_part(source_data: SourceData, path: str, split_name: str | None) -> ChosenSplit:
    """Chooses a whole part of the data: test for None, or all images of undivided data.

    Raises:
        UserError: there is no such part.
    """
    name, parts = split_name or "test", source_data.parts
    if source_data.is_undivided:
        if split_name is not None:
            raise UserError(
                f"{path} has no split folders, and all of its images are evaluated; leave --split={split_name} out"
            )
        name, parts = ALL, {ALL: source_data.parts["train"]}
    refuse_missing_split(name, parts)
    return ChosenSplit(name, parts, name, np.arange(len(parts[name].labels)))


def read_split(section: Mapping[str, Any], readable: data.ReadableData, chosen: ChosenSplit) -> "MadeSplits":
    """Reads the images of one split.

    Args:
        section: completed settings of the data.
        readable: what the source has.
        chosen: the split.

    Raises:
        UserError: images cannot be read.
    """
    from cnn_vit.data.reading import materialize

    return materialize.make_splits(
        readable.source_data,
        {chosen.name: (chosen.part_name, chosen.indices)},
        image_size=height_and_width(section["image_size"]),
        channels=section["channels"],
        fit_options=fit_options(section),
        random_crop=None,
        check=section["check"],
        scan_cache=readable.scan_cache,
        workers=section["workers"],
        batch_size=section["batch_size"],
    )


def refuse_missing_split(name: str, present: Mapping[str, Any]) -> None:
    """Raises UserError where there is no split of this name; the message says which there are."""
    if name in present:
        return
    if name not in PARTS:
        near = nearest(name, present)
        hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(present)}"
        raise UserError(f"no split {name!r}; {hint}")
    choices = [split for split in ("validation", "test", "train") if split in present]
    raise UserError(f"the data have no {name} split, only {' and '.join(present)}; add --split={choices[0]}")


# Classes --------------------------------------------------------------------------------------------------------------


def match_classes(
    labels: np.ndarray, data_classes: tuple[str, ...], classes: tuple[str, ...], *, by_position: bool
) -> tuple[np.ndarray, list[str]]:
    """Matches labels to a network's classes, by name or by position; returns them, with what one should know of it.

    Raises:
        UserError: examples have a class that the network does not know, or positions cannot be meant.
    """
    if not by_position:
        matched, missing = match_labels(labels, data_classes, classes)
        return matched, describe_missing(missing, classes)
    if len(data_classes) != len(classes):
        raise UserError(
            f"the weights name no classes and have {len(classes):,} scores, and the data have {len(data_classes):,} "
            "classes, so that nobody knows which is which; convert the weights with --class_names=FILE"
        )
    return labels, [
        f"the weights name no classes; the data's are taken for them in their order, {list_names(data_classes)}"
    ]


def name_classes(
    source_data: SourceData, classes: tuple[str, ...], *, by_position: bool
) -> tuple[tuple[str, ...], list[str]]:
    """Returns names of the classes of data: the network's, by their order, where the data have none of their own.

    Args:
        source_data: the data.
        classes: of the network.
        by_position: whether these are no names.

    Returns:
        The names in the order of the data's labels, and a sentence where they are the network's.

    Raises:
        UserError: data without names have more classes than the network.
    """
    data_classes = source_data.classes
    # Labels as text are names as well where the network learned from such data, in whatever order.
    if by_position or source_data.is_named or set(data_classes) <= set(classes):
        return data_classes, []
    if len(data_classes) > len(classes):
        raise UserError(
            f"the data have labels up to {len(data_classes) - 1:,} and no names of classes, and the network knows "
            f"{len(classes):,} classes; give data of its classes, in their order"
        )
    note = (
        "the data do not name their classes, so that their labels are taken for the network's classes in order: "
        f"[{list_names(classes)}]"
    )
    return classes[: len(data_classes)], [note]


def match_labels(
    labels: np.ndarray, data_classes: tuple[str, ...], classes: tuple[str, ...]
) -> tuple[np.ndarray, list[str]]:
    """Matches labels to a network's classes by their names.

    Args:
        labels: (N,), which count `data_classes`.
        data_classes: of the data; those without examples may be any.
        classes: of the network.

    Returns:
        Labels (N,) int32 that count the network's classes, and the classes without examples.

    Raises:
        UserError: examples have a class that the network does not know; both lists are named.
    """
    position_by_class = {name: position for position, name in enumerate(classes)}
    counts = np.bincount(labels, minlength=len(data_classes))
    positions = np.zeros(len(data_classes), np.int32)
    unknown = []
    for label, name in enumerate(data_classes):
        if name in position_by_class:
            positions[label] = position_by_class[name]
        elif counts[label]:
            unknown.append(name)
    if unknown:
        near = nearest(unknown[0], classes)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(
            f"the network does not know the class {list_names(unknown)} of the data; it knows "
            f"[{list_names(classes)}], the data have [{list_names(data_classes)}]; name the class folders as in "
            f"training, or take away what it did not learn{hint}"
        )
    matched = positions[labels]
    matched_counts = np.bincount(matched, minlength=len(classes))
    return matched, [name for name, count in zip(classes, matched_counts, strict=True) if not count]


def list_names(names: list[str] | tuple[str, ...]) -> str:
    """Returns names in a row, the first few of many."""
    from cnn_vit.data.reading.unreadable import printable_name

    shown = ", ".join(printable_name(name) for name in names[:MOST_NAMED])
    return shown if len(names) <= MOST_NAMED else f"{shown}, ... {len(names):,} in all"


def describe_missing(missing: list[str], classes: tuple[str, ...]) -> list[str]:
    """Returns a sentence about the classes without examples; none where there are no such classes."""
    if not missing:
        return []
    return [
        f"the data have no image of {list_names(missing)}: {len(missing):,} of the network's {len(classes):,} classes, "
        "of which the accuracy says nothing"
    ]


# Images that were trained on ------------------------------------------------------------------------------------------


def find_own_data(source_data: SourceData, run_data: RunData, section: Mapping[str, Any]) -> SourceData | None:
    """Returns the data in their parts where they are those that the run was trained on; None for other data."""
    from cnn_vit.data.reading import fingerprints

    if source_data.parts.keys() == {"test"}:
        return None
    try:
        divided = data.divide(source_data)
    except UserError:  # too few images to be divided
        return None
    fingerprint, _ = fingerprints.data_fingerprint(divided, workers=section["workers"])
    return divided if fingerprint == run_data.fingerprint else None


def count_trained_on(part: Part, run_data: RunData, own_data: SourceData | None) -> int:
    """Counts the images of a part whose content is also in the train split of a run.

    The content of a file are its bytes, that of an array its shape and pixels. Only images of equal size are read.

    Args:
        part: the images.
        run_data: the data of the run.
        own_data: the same as a source has them, where they are read already.

    Raises:
        UserError: the run's data cannot be read, or are not what they were.
    """
    from cnn_vit.data.reading import fingerprints

    section = complete_section(run_data.section)
    if own_data is None:
        own_data = read_run_data(run_data, section)
    train_name, indices = data.index_splits(own_data.parts, data.plan_splits(own_data.parts, section))["train"]
    train = own_data.parts[train_name].select(indices)
    sizes, train_sizes = fingerprints.file_sizes(part), fingerprints.file_sizes(train)
    rows = np.flatnonzero(np.isin(sizes, train_sizes))
    train_rows = np.flatnonzero(np.isin(train_sizes, sizes))
    trained_digests = set(fingerprints.content_digests(train.select(train_rows), section["workers"]))
    digests = fingerprints.content_digests(part.select(rows), section["workers"])
    return sum(digest in trained_digests for digest in digests)


def read_run_data(run_data: RunData, section: Mapping[str, Any]) -> SourceData:
    """Reads the data of a run from where the run read them.

    Args:
        run_data: the data of the run.
        section: their completed settings.

    Raises:
        UserError: they come from a program, cannot be read, or are not what they were.
    """
    from cnn_vit.data.reading import fingerprints

    if section["name"] == "generator":  # a run folder may come from anybody
        raise UserError(f"the data of {run_data.path} come from a program, which is not run")
    own_data = data.load_readable(section).source_data
    fingerprint, _ = fingerprints.data_fingerprint(own_data, workers=section["workers"])
    if fingerprint != run_data.fingerprint:
        raise UserError(f"the data of {run_data.path} in {section['path'] or section['name']} have changed")
    return own_data


def describe_trained_on(count: int, total: int) -> list[str]:
    """Returns a sentence about the images that were trained on; none where there are none."""
    if not count:
        return []
    return [
        f"{count:,} of the {total:,} images were trained on: their accuracy does not tell how well the network does on "
        "new images"
    ]
