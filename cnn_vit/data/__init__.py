"""Data sets by name: a source's parts become splits of images of one size, uint8, with one list of classes.

names(), keywords(name)     what there is, read without importing it
check(section)              refuses settings before any device or image is touched
about(section)              classes, shape, counts, where they are known without the files
load(section)               the data set
at(path, ...)               the section that reads a path

A source is one file of `sources/`, found by its name: `about` and `load` take the common settings as `parts.SourceOptions` and
the source's own keywords.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cnn_vit.data.base import splits
from cnn_vit.data.base.padding import PAD_BATCH
from cnn_vit.data.base.parts import PARTS, SourceData, SourceInfo
from cnn_vit.data.base.splits import Split
from cnn_vit.data.sections import (
    DEFAULTS,
    complete_section,
    height_and_width,
    keywords,
    names,
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
    "keywords",
    "load",
    "mean_and_std",
    "names",
    "section_for_path",
]  # fmt: skip

MEASURED = 5_000  # images, at most, for the mean and the deviation


@dataclass(frozen=True)
class Dataset:
    """A data set, ready to be read.

    Attributes:
        classes: names in the order of the labels.
        image_shape: (H, W, C) of every image.
        splits: train, validation, and test where there is one.
        fingerprint: sha256 of the data, whatever the slices, sizes and seed.
        facts: for data.json.
    """

    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    splits: dict[str, Split]
    fingerprint: str
    facts: dict[str, Any] = field(default_factory=dict)


def check(section: Mapping[str, Any]) -> None:
    """Refuses settings before any device work; no image is read.

    Args:
        section: settings of the data without `data.`, the source's keywords among them; what is left out is unset.

    Raises:
        UserError: an unknown source or keyword, a value it does not take, no path where one is read, a slice that is
            none or overlaps another, an operation that is none, numbers for other channels.
    """
    final = complete_section(section)
    refuse_blind_skip(final)
    known = about(final)
    for split in PARTS:
        if final[split] is not None:
            splits.parse_slice(final[split], key=f"data.{split}")
    channels = known.image_shape[2] if known.image_shape else final["channels"]
    for key in ("mean", "std"):
        if final[key] is not None and channels is not None and len(final[key]) != channels:
            raise UserError(f"data.{key} has {len(final[key])} numbers for {channels} channels; give one for each")
    crop = final["random_crop"]
    if crop is not None and (len(crop) != 2 or crop[0] > crop[1]):
        raise UserError(
            f"data.random_crop is {crop}; it takes the least and the most share of the area, such as (0.08, 1.0)"
        )
    mixed = final["fit"] == PAD_BATCH
    if mixed and crop is not None:
        raise UserError(
            "data.random_crop brings boxes to one size, and data.fit=pad_batch leaves images their own; unset one "
            "(--config.data.random_crop=none), or take resized_crop of data.augment"
        )
    if final["augment"]:
        from cnn_vit.data import augment  # imports jax

        augment.check(final["augment"], masked=mixed)


def about(section: Mapping[str, Any]) -> SourceInfo:
    """What is known of the data without its files; counts are those of the splits, slices taken."""
    final = complete_section(section)
    found = source_module(final["name"]).about(source_options(final), **source_keywords(final))
    refuse_other_classes(found.num_classes, final["classes"])
    height, width, channels = found.image_shape or (None, None, None)
    sides = height_and_width(final["image_size"]) or (height, width)
    shape = (*sides, final["channels"] or channels)
    counts = {}
    if found.counts:
        laid = splits.plan_splits(found.counts, {split: final[split] for split in PARTS})
        counts = {split: len(rows) for split, (_, rows) in laid.positions.items()}
    return found._replace(
        num_classes=found.num_classes or final["classes"],
        image_shape=shape if None not in shape else None,  # type: ignore[arg-type]
        counts=counts,
    )


def load(section: Mapping[str, Any]) -> Dataset:
    """Reads a data set: every image is decoded, or looked at where they are too many for the memory.

    Raises:
        UserError: as `check`; files that are missing or no images; classes that do not fit together.
    """
    from cnn_vit.data.reading import fingerprints, materialize

    final = complete_section(section)
    refuse_blind_skip(final)
    found, skipped, verdicts = load_readable(final)
    laid = splits.plan_splits(
        {part: len(one.labels) for part, one in found.parts.items()}, {split: final[split] for split in PARTS}
    )
    rows = {
        split: (part, splits.example_indices(found.parts[part], at)) for split, (part, at) in laid.positions.items()
    }
    refuse_missing_classes(found, rows, skipped)
    ready, shape = materialize.make_splits(
        found, rows, sides=height_and_width(final["image_size"]), channels=final["channels"], fit=final["fit"],
        crop=final["random_crop"], check=final["check"], verdicts=verdicts, workers=final["workers"],
        batch_size=final["batch_size"],
    )  # fmt: skip
    fingerprint, how = fingerprints.data_fingerprint(found, workers=final["workers"])
    facts = {
        "source": final["name"],
        "path": final["path"],
        "classes": list(found.classes),
        "image_shape": list(shape),
        "counts": {split: len(one) for split, one in ready.items()},
        "class_counts": {split: count_per_class(one.labels, found.classes) for split, one in ready.items()},
        "slices": {split: final[split] for split in PARTS},
        "notes": laid.notes,
        **(
            {}
            if ready["train"].padded_sizes is None
            else {"sizes": [list(size) for size in ready["train"].padded_sizes.buckets]}
        ),
        "fingerprint": fingerprint,
        "fingerprint_of": how,
        "skipped": [f"{fault.name}: {fault.error.reason}" for fault in skipped],
        **found.facts,
    }
    return Dataset(found.classes, shape, ready, fingerprint, facts)


def load_readable(final: Mapping[str, Any]) -> tuple[SourceData, Sequence["UnreadableFile"], "ScanCache"]:
    """What a completed section's source has, without the files that are skipped; these; and what is known of them all.

    Raises:
        UserError: as `load`, for what the source itself finds.
    """
    from cnn_vit.data.reading import checking, unreadable
    from cnn_vit.data.reading.scan_cache import ScanCache

    found = source_module(final["name"]).load(source_options(final), **source_keywords(final))
    refuse_other_classes(len(found.classes), final["classes"])
    if len(found.classes) < 2:
        raise UserError(f"the data has one class, {found.classes[0]}; there must be two at least to tell apart")
    verdicts = ScanCache(os.path.abspath(final["path"] or final["name"]))
    skipped: list[UnreadableFile] = []
    if final["on_bad_image"] == "skip":
        found, skipped = checking.without_unreadable(found, final["check"], verdicts, workers=final["workers"])
    if skipped:
        print(f"{len(skipped):,} images are skipped: {unreadable.summarize(skipped)}", file=sys.stderr, flush=True)
    if found.is_undivided:
        found = replace(found, parts=splits.split_in_three(found.parts["train"]), is_undivided=False)
    return found, skipped, verdicts


def section_for_path(
    path: str | os.PathLike, *, image_size: tuple[int, int] | int | None, channels: int | None, fit: str
) -> dict[str, Any]:
    """The section that reads any path: a folder, a zip of one, an npz, or FILE.py:FUNCTION, which runs that file.

    Raises:
        UserError: it is not there, or something else.
    """
    text = os.fspath(path)
    common = {**DEFAULTS, "path": text, "image_size": image_size, "channels": channels, "fit": fit}
    kind = Path(text).suffix.lower()
    if os.path.isdir(text) or (kind == ".zip" and os.path.isfile(text)):
        return {**common, "name": "folder"}
    if kind == ".npz" and os.path.isfile(text):
        return {**common, "name": "arrays"}
    if text.rpartition(":")[0].endswith(".py"):
        return {**common, "name": "generator"}
    what = "no data that can be read" if os.path.exists(text) else "not there"
    raise UserError(f"{text} is {what}; give a folder of images, a zip of one, an npz file or my_file.py:my_function")


def mean_and_std(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel, pixels taken as 0 to 1.

    Over all images, or 5,000 taken evenly. Sums are exact; a deviation of 0, of images all alike, becomes 1/255.
    """
    count = min(len(split), MEASURED)
    rows = np.arange(count, dtype=np.int64) * len(split) // count
    sums = np.zeros((2, split.read(rows[:1]).shape[-1]), np.uint64)  # (2, C): of the levels, of their squares
    pixels = 0
    for some in np.array_split(rows, -(-count // 256)):
        levels = split.read(some).astype(np.uint64)
        sums += np.stack([levels.sum(axis=(0, 1, 2)), (levels * levels).sum(axis=(0, 1, 2))])
        own = (
            None if split.padded_sizes is None else split.padded_sizes.image_sizes[some].prod(1, dtype=np.int64)
        )  # what surrounds is 0
        pixels += levels[..., 0].size if own is None else int(own.sum())
    mean, square = sums / pixels
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    deviation[deviation < 1e-6] = 1
    return tuple((mean / 255).tolist()), tuple((deviation / 255).tolist())


# Classes


def refuse_blind_skip(final: Mapping[str, Any]) -> None:
    """Refuses to skip what cannot be read without looking for it."""
    if final["on_bad_image"] == "skip" and final["check"] == "none":
        raise UserError("data.on_bad_image=skip skips what data.check finds, which is none; set it to all or header")


def refuse_other_classes(found: int | None, asked: int | None) -> None:
    """Refuses data of another number of classes than `data.classes` says."""
    if found is not None and asked is not None and found != asked:
        raise UserError(f"data.classes is {asked}, but the data has {found} classes; set data.classes={found}")


def refuse_missing_classes(
    found: SourceData, rows: Mapping[str, tuple[str, np.ndarray]], skipped: Sequence["UnreadableFile"]
) -> None:
    """Refuses a train split without a class of the list: the network could never learn it."""
    part, at = rows["train"]
    counts = np.bincount(found.parts[part].labels[at], minlength=len(found.classes))
    if missing := [name for name, count in zip(found.classes, counts, strict=True) if not count]:
        without = f" without the {len(skipped):,} images that are skipped" * bool(skipped)
        raise UserError(
            f"train has no image of {' or '.join(missing[:5])}{' ...' * (len(missing) > 5)}{without}, of "
            f"{len(found.classes)} classes; add some, or take a larger slice for data.train"
        )


def count_per_class(labels: np.ndarray, classes: tuple[str, ...]) -> dict[str, int]:
    """Examples of each class."""
    return dict(zip(classes, np.bincount(labels, minlength=len(classes)).tolist(), strict=True))
