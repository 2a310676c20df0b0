"""Data sets by name: a source's parts become splits of images of one size, uint8, with one list of classes.

names(), read_keywords(name)   the sources and their keywords, read without importing them
check(section)                 refuses settings before any device or image is touched
about(section)                 classes, shape, counts, where they are known without the files
read_source(section)           what the source has: classes, and parts whose images are not read yet
load(section)                  the data set
section_for_path(path, ...)    the section that reads a path
mean_and_std(split)            mean and standard deviation of each channel

A section is a dict: the settings of the data without `data.`. A source is one file of `sources/`, found by its name;
its `about` and `load` take the common settings as `parts.SourceOptions`, and the source's own keywords.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cnn_vit.data.base import splits
from cnn_vit.data.base.padding import PAD_BATCH
from cnn_vit.data.base.parts import (
    PARTS,
    DecodingOptions,
    EncodedPart,
    Part,
    SourceData,
    SourceInfo,
    images_per_read,
)
from cnn_vit.data.base.splits import Split
from cnn_vit.data.sections import (
    DEFAULTS,
    complete_section,
    decoding_options,
    fit_options,
    height_and_width,
    names,
    read_keywords,
    read_operations,
    source_keywords,
    source_module,
    source_options,
)
from cnn_vit.errors import UserError

if TYPE_CHECKING:
    from cnn_vit.data.reading.scan_cache import ScanCache
    from cnn_vit.data.reading.unreadable import UnreadableFile

__all__ = [
    "Dataset",
    "SourceInfo",
    "Split",
    "about",
    "check",
    "load",
    "mean_and_std",
    "names",
    "read_keywords",
    "read_operations",
    "read_source",
    "section_for_path",
]  # fmt: skip

MOST_MEASURED = 5_000  # images, at most, for the mean and the standard deviation
PIXELS_COUNTED = 2**15  # of which the levels are counted at once, for each of which NumPy then holds 8 bytes
LEVELS = 256  # of a pixel
FLAT = 1e-6  # levels: a standard deviation below it is that of equal pixels
MOST_NAMED = 5  # classes that an error names


@dataclass(frozen=True)
class Dataset:
    """A data set, ready to be read.

    Attributes:
        classes: names in the order of the labels.
        image_shape: (H, W, C) of every image.
        splits: train, validation, and test where there is one.
        fingerprint: sha256 of the data, whatever the slices, sizes and seed.
        facts: what data.json records.
    """

    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    splits: dict[str, Split]
    fingerprint: str
    facts: dict[str, Any] = field(default_factory=dict)

    def warnings(self) -> list[str]:
        """Returns what one who trains on it should know, a sentence each: what was left out, what is not measured."""
        from cnn_vit.data.reading.unreadable import printable_name

        sentences = list(self.facts.get("left out", []))
        if "dark" in self.facts:
            sentences.append(self.facts["dark"])
        for split, counts in self.facts.get("class_counts", {}).items():
            missing = [printable_name(name) for name, count in counts.items() if not count]
            if missing and split != "train":  # a class that train lacks was refused before
                more = f" and {len(missing) - MOST_NAMED:,} more" if len(missing) > MOST_NAMED else ""
                sentences.append(
                    f"{split} has no image of {', '.join(missing[:MOST_NAMED])}{more}, so its accuracy says nothing "
                    "about those"
                )
        return sentences


class ReadableData(NamedTuple):
    """What a source has, after its unreadable files were dropped where the settings say so.

    Attributes:
        source_data: the parts and classes.
        skipped: the files that were dropped.
        scan_cache: what is remembered of all files of the source.
    """

    source_data: SourceData
    skipped: Sequence["UnreadableFile"]
    scan_cache: "ScanCache"


def check(section: Mapping[str, Any]) -> None:
    """Refuses settings before any device work; no image is read.

    Args:
        section: settings of the data without `data.`, the source's keywords among them; what is left out is unset.

    Raises:
        UserError: an unknown source or keyword, a value that a key does not take, a missing path, a slice that cannot
            be read or overlaps another, an unknown operation, a mean or std for another number of channels.
    """
    section = complete_section(section)
    refuse_blind_skip(section)
    info = about(section)
    for split in PARTS:
        if section[split] is not None:  # only its form: whether there are enough examples, only the files tell
            splits.parse_slice(section[split], key=f"data.{split}")
    channels = info.image_shape[2] if info.image_shape else section["channels"]
    for key in ("mean", "std"):
        if section[key] is not None and channels is not None and len(section[key]) != channels:
            raise UserError(f"data.{key} has {len(section[key])} numbers for {channels} channels; give one for each")
    random_crop = section["random_crop"]
    if random_crop is not None and (len(random_crop) != 2 or random_crop[0] > random_crop[1]):
        raise UserError(
            f"data.random_crop is {random_crop}; it takes the least and the largest share of the area, such as "
            "(0.08, 1.0)"
        )
    has_several_sizes = section["fit"] == PAD_BATCH
    if has_several_sizes and random_crop is not None:
        raise UserError(
            "data.random_crop brings boxes to one size, and data.fit=pad_batch leaves images their own; unset one "
            "(--config.data.random_crop=none), or take resized_crop of data.augment"
        )
    if section["augment"]:
        from cnn_vit.data import augment  # imports jax

        augment.check(section["augment"], masked=has_several_sizes)


def about(section: Mapping[str, Any]) -> SourceInfo:
    """Returns what is known of the data without its files; the counts are those of the splits, after slicing."""
    section = complete_section(section)
    info = source_module(section["name"]).about(source_options(section), **source_keywords(section))
    refuse_other_classes(info.num_classes, section["classes"])
    height, width, channels = info.image_shape or (None, None, None)
    # What the settings say comes first; what neither they nor the source says only the files tell.
    image_size = height_and_width(section["image_size"]) or (height, width)
    image_shape = (*image_size, section["channels"] or channels)
    counts = {}
    if info.counts:
        plan = splits.plan_splits(info.counts, {split: section[split] for split in PARTS})
        counts = {split: len(positions) for split, (_, positions) in plan.positions.items()}
    return SourceInfo(
        classes=info.classes,
        num_classes=info.num_classes or section["classes"],
        image_shape=image_shape if None not in image_shape else None,
        counts=counts,
    )


def read_source(section: Mapping[str, Any], *, for_evaluation: bool = False) -> SourceData:
    """Lists what a source has, as `load` does first: its classes, and its parts, of which no image is decoded yet.

    Args:
        section: settings of the data, as of `check`.
        for_evaluation: whether the data are only to be evaluated on: a folder or an npz then needs no train split, and
            any data may have a single class.

    Raises:
        UserError: as `check`; the data are not there, their classes are another number, or there is only one.
    """
    section = complete_section(section)
    options = replace(source_options(section), for_evaluation=for_evaluation)
    source_data = source_module(section["name"]).load(options, **source_keywords(section))
    source_data = decode_by(source_data, decoding_options(section))
    if for_evaluation:
        return source_data
    refuse_other_classes(len(source_data.classes), section["classes"])
    if len(source_data.classes) < 2:
        raise UserError(f"the data has one class, {source_data.classes[0]}; there must be two at least to tell apart")
    return source_data


def load(section: Mapping[str, Any], source_data: SourceData | None = None) -> Dataset:
    """Reads a data set: every image is decoded, or its file scanned where they are too many for the memory.

    Args:
        section: settings of the data, as of `check`.
        source_data: what `read_source` returned for the section, where it was read already.

    Raises:
        UserError: as `check`; files that are missing or cannot be read; classes that do not fit together.
    """
    from cnn_vit.data.reading import fingerprints, levels, materialize

    section = complete_section(section)
    refuse_blind_skip(section)
    source_data, skipped, scan_cache = load_readable(section, source_data)
    plan = plan_splits(source_data.parts, section)
    split_indices = index_splits(source_data.parts, plan)
    refuse_missing_classes(source_data, split_indices, skipped)
    made_splits = materialize.make_splits(
        source_data,
        split_indices,
        image_size=height_and_width(section["image_size"]),
        channels=section["channels"],
        fit_options=fit_options(section),
        random_crop=section["random_crop"],
        check=section["check"],
        scan_cache=scan_cache,
        workers=section["workers"],
        batch_size=section["batch_size"],
    )
    fingerprint, fingerprint_of = fingerprints.data_fingerprint(source_data, workers=section["workers"])
    classes, padded_sizes = source_data.classes, made_splits.splits["train"].padded_sizes
    facts = {
        "source": section["name"],
        "path": section["path"],
        "classes": list(classes),
        "image_shape": list(made_splits.shape),
        "counts": {name: len(split) for name, split in made_splits.splits.items()},
        "class_counts": {name: count_per_class(split.labels, classes) for name, split in made_splits.splits.items()},
        "slices": {name: section[name] for name in PARTS},
        "notes": plan.notes + source_data.facts.get("left out", []),
    }
    if padded_sizes is not None:
        facts["sizes"] = [list(size) for size in padded_sizes.buckets]
    dark = levels.describe_dark_levels(made_splits.highest_level, section["levels"], is_sampled=made_splits.is_sampled)
    if made_splits.highest_level is not None:
        facts |= {"highest_level": made_splits.highest_level, "levels": section["levels"]}
    if dark is not None:
        facts["dark"] = dark
    facts["fingerprint"] = fingerprint
    facts["fingerprint_of"] = fingerprint_of
    facts["skipped"] = [f"{file.name}: {file.error.reason}" for file in skipped]
    facts |= source_data.facts
    return Dataset(classes, made_splits.shape, made_splits.splits, fingerprint, facts)


def load_readable(section: Mapping[str, Any], source_data: SourceData | None = None) -> ReadableData:
    """Returns what the source of a completed section has, without its unreadable files where these are to be skipped.

    Data without split folders come as three parts.

    Args:
        section: completed settings of the data.
        source_data: what `read_source` returned for the section; None where it is still to be read.

    Raises:
        UserError: as `load`, for what the source itself refuses; there is only one class.
    """
    if source_data is None:
        source_data = read_source(section)
    readable = drop_unreadable(section, source_data)
    return readable._replace(source_data=divide(readable.source_data))


def drop_unreadable(section: Mapping[str, Any], source_data: SourceData) -> ReadableData:
    """Returns what a source has without its unreadable files, where a completed section says that these are skipped."""
    from cnn_vit.data.reading import checking, unreadable
    from cnn_vit.data.reading.scan_cache import ScanCache

    # The sources without a path are identified by their name.
    scan_cache = ScanCache(os.path.abspath(section["path"] or section["name"]))
    skipped: list[UnreadableFile] = []
    if section["on_bad_image"] == "skip":
        source_data, skipped = checking.drop_unreadable(
            source_data, section["check"], scan_cache, workers=section["workers"]
        )
    if skipped:
        print(f"{len(skipped):,} images are skipped: {unreadable.summarize(skipped)}", file=sys.stderr, flush=True)
    return ReadableData(source_data, skipped, scan_cache)


def divide(source_data: SourceData) -> SourceData:
    """Returns the data in three parts where they have none of their own: a tenth is test, another one validation.

    Raises:
        UserError: there are too few images to be divided.
    """
    if not source_data.is_undivided:
        return source_data
    parts = splits.split_in_three(source_data.parts["train"])
    return replace(source_data, parts=parts, is_undivided=False)


def plan_splits(parts: Mapping[str, Part], section: Mapping[str, Any]) -> splits.SplitPlan:
    """Decides by the slices of a completed section which positions of which part make up each split.

    Raises:
        UserError: the slices do not fit the parts.
    """
    counts = {name: len(part.labels) for name, part in parts.items()}
    return splits.plan_splits(counts, {split: section[split] for split in PARTS})


def index_splits(parts: Mapping[str, Part], plan: splits.SplitPlan) -> dict[str, tuple[str, np.ndarray]]:
    """Returns for each split of a plan its part and the indices (n,) of its examples there, ascending."""
    # A plan has positions in the stratified order of a part.
    return {
        split: (part, splits.example_indices(parts[part], positions))
        for split, (part, positions) in plan.positions.items()
    }


def decode_by(source_data: SourceData, options: DecodingOptions) -> SourceData:
    """Returns the same data, whose files become pixels as the options say."""
    parts: dict[str, Part] = {}
    for name, part in source_data.parts.items():
        parts[name] = replace(part, decoding=options) if isinstance(part, EncodedPart) else part
    return replace(source_data, parts=parts)


def section_for_path(
    path: str | os.PathLike,
    *,
    image_size: tuple[int, int] | int | None = None,
    channels: int | None = None,
    fit: str = "crop",
    layout: str | None = None,
) -> dict[str, Any]:
    """Returns the section that reads a path: a folder, a zip of one, an npz, or FILE.py:FUNCTION, which runs that file.

    Args:
        path: the path.
        image_size: side in pixels, or (height, width); None: as the images are.
        channels: 1 or 3; None: as the images are.
        fit: how images are brought to that size.
        layout: what the folders in a folder or a zip are, "classes" or "splits"; None: their names tell.

    Raises:
        UserError: the path is not there, or is something else; a layout is given for what has no folders.
    """
    text = os.fspath(path)
    common = {**DEFAULTS, "path": text, "image_size": image_size, "channels": channels, "fit": fit}
    ending = Path(text).suffix.lower()
    if os.path.isdir(text) or (ending == ".zip" and os.path.isfile(text)):
        return {**common, "name": "folder", **({} if layout is None else {"layout": layout})}
    if layout is not None:
        raise UserError(f"--layout={layout} says what folders are, and {text} has none; leave it out")
    if ending == ".npz" and os.path.isfile(text):
        return {**common, "name": "arrays"}
    if text.rpartition(":")[0].endswith(".py"):  # the last colon: a path may have others
        return {**common, "name": "generator"}
    problem = "not data that can be read" if os.path.exists(text) else "not there"
    raise UserError(
        f"{text} is {problem}; give a folder of images, a zip of one, an npz file or my_file.py:my_function"
    )


def mean_and_std(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation of each channel, with pixels as 0 to 1.

    They are over all images, or over 5,000 taken evenly. The sums are exact, and only a few MB of pixels are held at
    once, or one larger image; a standard deviation of 0, of images that are all alike, becomes 1/255.
    """
    count = min(len(split), MOST_MEASURED)
    rows = np.arange(count, dtype=np.int64) * len(split) // count
    image_shape = split.read(rows[:1]).shape[1:]
    level_counts = np.zeros((image_shape[-1], LEVELS), np.int64)  # whole numbers, so that all that follows is exact
    images_at_once = images_per_read(image_shape)
    for start in range(0, count, images_at_once):
        level_counts += count_levels(split.read(rows[start : start + images_at_once]))
    levels = np.arange(LEVELS, dtype=np.int64)
    sums = np.stack([level_counts @ levels, level_counts @ levels**2])
    pixels = int(level_counts[0].sum())
    if split.padded_sizes is not None:
        # the black around an image adds 0 to the sums, and must not count as pixels either
        pixels = int(split.padded_sizes.image_sizes[rows].prod(1, dtype=np.int64).sum())
    mean, mean_square = sums / pixels
    std = np.sqrt(np.maximum(mean_square - mean**2, 0))
    std[std < FLAT] = 1
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())


def count_levels(images: np.ndarray) -> np.ndarray:  # (n, H, W, C) -> (C, 256)
    """Counts how many pixels of uint8 images have each level, in each channel; int64."""
    pixels = images.reshape(-1, images.shape[-1])
    counts = np.zeros((pixels.shape[1], LEVELS), np.int64)
    for start in range(0, len(pixels), PIXELS_COUNTED):
        for channel, levels in enumerate(pixels[start : start + PIXELS_COUNTED].T):
            counts[channel] += np.bincount(levels, minlength=LEVELS)
    return counts


# Classes


def refuse_blind_skip(section: Mapping[str, Any]) -> None:
    """Refuses to skip unreadable files where no file is scanned for being one."""
    if section["on_bad_image"] == "skip" and section["check"] == "none":
        raise UserError("data.on_bad_image=skip skips what data.check finds, which is none; set it to all or header")


def refuse_other_classes(num_classes: int | None, expected: int | None) -> None:
    """Refuses data whose number of classes is known and is not the one that `data.classes` says."""
    if num_classes is not None and expected is not None and num_classes != expected:
        raise UserError(
            f"data.classes is {expected}, but the data has {num_classes} classes; set data.classes={num_classes}"
        )


def refuse_missing_classes(
    source_data: SourceData,
    split_indices: Mapping[str, tuple[str, np.ndarray]],
    skipped: Sequence["UnreadableFile"],
) -> None:
    """Refuses a train split without a class of the list: the network could never learn that class."""
    part, indices = split_indices["train"]
    classes = source_data.classes
    counts = np.bincount(source_data.parts[part].labels[indices], minlength=len(classes))
    missing = [name for name, count in zip(classes, counts, strict=True) if not count]
    if missing:
        named = " or ".join(missing[:MOST_NAMED]) + " ..." * (len(missing) > MOST_NAMED)
        without = f" without the {len(skipped):,} images that are skipped" if skipped else ""
        raise UserError(
            f"train has no image of {named}{without}, of {len(classes)} classes; add some, or take a larger slice for "
            "data.train"
        )


def count_per_class(labels: np.ndarray, classes: tuple[str, ...]) -> dict[str, int]:
    """Returns the number of examples of each class by its name."""
    return dict(zip(classes, np.bincount(labels, minlength=len(classes)).tolist(), strict=True))
