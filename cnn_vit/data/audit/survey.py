"""Surveys a whole data set before anything is trained on it: every image is decoded once.

What is counted is what training would see: the splits that the settings lay out. What training would refuse is
recorded instead of raised, except for a folder in which no classes can be found.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from cnn_vit import data
from cnn_vit.data.audit import label_leaks, near_duplicates
from cnn_vit.data.audit.label_leaks import LabelLeaks
from cnn_vit.data.base import splits
from cnn_vit.data.base.parts import PARTS, EncodedPart, Part, PixelPart, SourceData, read_whole
from cnn_vit.data.base.threads import map_ranges
from cnn_vit.data.decode import images
from cnn_vit.data.decode.images import DecodedImage, UnreadableError
from cnn_vit.data.reading import checking, levels, materialize
from cnn_vit.data.reading.scan_cache import ScanCache
from cnn_vit.data.reading.unreadable import UnreadableFile
from cnn_vit.data.sections import (
    complete_section,
    decoding_options,
    names,
    source_keywords,
    source_module,
    source_options,
)
from cnn_vit.errors import UserError, nearest

OnProgress = Callable[[int, int], object]  # (images done, images in all)
GRAY_PAD = "pad(128)"  # the `fit` of sample images


@dataclass(frozen=True)
class ScannedImage:
    """An image that can be read.

    Attributes:
        split: the split it belongs to.
        part: the part that holds it.
        index: its index in the part.
        label: the number of its class.
        height: pixels, upright.
        width: pixels, upright.
        format: the format of its file, such as "JPEG"; "pixels" where it has no file.
        colored: whether it is stored in color.
        blank: whether all its pixels have one color.
    """

    split: str
    part: Part
    index: int
    label: int
    height: int
    width: int
    format: str
    colored: bool
    blank: bool

    @property
    def path(self) -> str:
        """The path of its file, or what it is called where it has none."""
        return f"{self.split} image {self.index}" if isinstance(self.part, PixelPart) else self.part.path_of(self.index)


@dataclass(frozen=True)
class BrokenFile:
    """A file that cannot be read.

    Attributes:
        split: the split it would belong to.
        label: the number of the class it would belong to.
        path: the path of the file.
        error: the reason and the remedy.
    """

    split: str
    label: int
    path: str
    error: UnreadableError


@dataclass(frozen=True)
class Survey:
    """What there is in a data set.

    Attributes:
        source: name of the data source.
        path: the path that it read.
        classes: names in the order of the labels.
        counts: split -> number of images of each class (K,), broken ones among them.
        images: every image that can be read.
        broken: every file that cannot be read and would stop training.
        skipped: files that cannot be read and would be left out, as `data.on_bad_image=skip` asks.
        duplicates: groups of images with the same pixels, as positions in `images`.
        near_duplicates: groups of images that are nearly the same, likewise.
        label_leaks: what the names of the files tell, in positions of `images`; None where there are no names.
        ignored: number of files that were passed over.
        notes: what training would decide by itself, a sentence each.
        refused: the sentences with which training would refuse these data.
        dark: that images of 16 bits are nearly black, with the remedy; None where they are not.
    """

    source: str
    path: str | None
    classes: tuple[str, ...]
    counts: Mapping[str, np.ndarray]
    images: list[ScannedImage]
    broken: list[BrokenFile]
    skipped: list[UnreadableFile]
    duplicates: list[list[int]]
    near_duplicates: list[list[int]]
    label_leaks: LabelLeaks | None
    ignored: int
    notes: list[str]
    refused: list[str]
    dark: str | None


@dataclass(frozen=True)
class SplitLayout:
    """The splits as training would lay them out.

    Attributes:
        parts: the parts of the source by name.
        indices: split -> name of its part, and the indices (n,) of its images there.
        notes: what was decided without a setting, a sentence each.
        refused: why training would lay out no splits; the parts then stand for them. Empty where it would.
    """

    parts: Mapping[str, Part]
    indices: dict[str, tuple[str, np.ndarray]]
    notes: list[str]
    refused: list[str]


@dataclass(frozen=True)
class ComparableImage:
    """A scanned image with what duplicates are found by.

    Attributes:
        image: the image.
        digest: digest of its size, its pixels in color, and of all bits of its levels where these are 16.
        thumbnail: (16, 16) uint8.
        highest_level: the highest of its levels of 16 bits; None where it has fewer bits.
    """

    image: ScannedImage
    digest: bytes
    thumbnail: np.ndarray
    highest_level: int | None


class ReadImage(NamedTuple):
    """An image as it was read.

    Attributes:
        format: the format of its file, such as "JPEG"; "pixels" where it has no file.
        colored: whether it is stored in color.
        decoded: its pixels, (H, W, 3) uint8, and its levels of 16 bits.
    """

    format: str
    colored: bool
    decoded: DecodedImage


def section_from_text(text: str, *, layout: str | None = None) -> dict[str, Any]:
    """Returns the data section for what a user wrote: a path, or the name of a source that needs none.

    Args:
        text: what the user wrote.
        layout: what the folders at a path are, "classes" or "splits"; None: their names tell.

    Raises:
        UserError: it is neither.
    """
    if text not in names() or os.path.exists(text):
        try:
            return data.section_for_path(text, layout=layout)
        except UserError as error:
            suggestions = nearest(text, names())
            if not suggestions:
                raise
            raise UserError(f"{error}; did you mean the source {suggestions[0]}?") from error
    if layout is not None:
        raise UserError(f"--layout={layout} says what folders are, and the source {text} has none; leave it out")
    section = {"name": text}
    try:
        data.about(section)
    except UserError as error:
        raise UserError(
            f"the source {text} needs more than its name ({error}); give a path, or a recipe by --config"
        ) from error
    return section


def survey(section: Mapping[str, Any], *, on_progress: OnProgress = lambda done, count: None) -> Survey:
    """Surveys a data set.

    Args:
        section: settings of the data, as for `data.load`.
        on_progress: called with the number of images scanned and of all images; from several threads.

    Raises:
        UserError: no classes can be found, for the reason that `data.load` gives.
    """
    section = complete_section(section)
    source_data = source_module(section["name"]).load(source_options(section), **source_keywords(section))
    source_data = data.decode_by(source_data, decoding_options(section))
    skipped: list[UnreadableFile] = []
    if section["on_bad_image"] == "skip":
        scan_cache = ScanCache(os.path.abspath(section["path"] or section["name"]))
        source_data, skipped = checking.drop_unreadable(
            source_data, section["check"], scan_cache, workers=section["workers"]
        )
    classes = source_data.classes
    layout = lay_out_splits(source_data, section)
    scanned, broken = scan_images(layout, section["workers"], on_progress)
    scanned_images = [comparable.image for comparable in scanned]
    duplicates: list[list[int]] = []
    near: list[list[int]] = []
    if scanned:
        duplicates, near = near_duplicates.duplicate_groups(
            [comparable.digest for comparable in scanned], np.array([comparable.thumbnail for comparable in scanned])
        )
    highest_level = materialize.highest_of(
        [*(comparable.highest_level for comparable in scanned), source_data.highest_level]
    )
    counts = {}
    for split, (part, indices) in layout.indices.items():
        counts[split] = np.bincount(layout.parts[part].labels[indices], minlength=len(classes))
    return Survey(
        source=section["name"],
        path=section["path"],
        classes=classes,
        counts=counts,
        images=scanned_images,
        broken=broken,
        skipped=skipped,
        duplicates=duplicates,
        near_duplicates=near,
        label_leaks=search_file_names(scanned_images, classes),
        ignored=source_data.facts.get("ignored", 0),
        notes=layout.notes,
        refused=layout.refused,
        dark=levels.describe_dark_levels(highest_level, section["levels"], is_sampled=False),
    )


def lay_out_splits(source_data: SourceData, section: Mapping[str, Any]) -> SplitLayout:
    """Lays out the splits as training would."""
    parts = source_data.parts
    notes = list(source_data.facts.get("left out", []))
    try:
        if source_data.is_undivided:
            parts = splits.split_in_three(parts["train"])
            notes.append("no split folders: a stratified tenth is test, another one validation")
        part_counts = {name: len(part.labels) for name, part in parts.items()}
        plan = splits.plan_splits(part_counts, {split: section[split] for split in PARTS})
        indices = {}
        for split, (part, positions) in plan.positions.items():
            indices[split] = (part, splits.example_indices(parts[part], positions))
        return SplitLayout(parts, indices, notes + plan.notes, [])
    except UserError as error:
        whole_parts = {name: (name, np.arange(len(part.labels))) for name, part in parts.items()}
        return SplitLayout(parts, whole_parts, [], [str(error)])


def scan_images(
    layout: SplitLayout, workers: int, on_progress: OnProgress
) -> tuple[list[ComparableImage], list[BrokenFile]]:
    """Scans all images of all splits, in threads; returns those that can be read and those that cannot."""
    count, done = sum(len(indices) for _, indices in layout.indices.values()), 0
    scanned: list[ComparableImage] = []
    broken: list[BrokenFile] = []

    def scan_rows(rows: range, *, split: str, part: Part, indices: np.ndarray) -> list[ComparableImage | BrokenFile]:
        nonlocal done
        outcomes = [scan_image(split, part, int(index)) for index in indices[rows.start : rows.stop]]
        done += len(outcomes)  # two threads may lose a few; it is only shown
        on_progress(min(done, count), count)
        return outcomes

    for split, (name, indices) in layout.indices.items():
        scan = functools.partial(scan_rows, split=split, part=layout.parts[name], indices=indices)
        for outcomes in map_ranges(scan, len(indices), workers):
            scanned += [outcome for outcome in outcomes if isinstance(outcome, ComparableImage)]
            broken += [outcome for outcome in outcomes if isinstance(outcome, BrokenFile)]
    on_progress(count, count)
    return scanned, broken


def scan_image(split: str, part: Part, index: int) -> ComparableImage | BrokenFile:
    """Scans one image; returns what is known of it, or why it cannot be read."""
    label = int(part.labels[index])
    try:
        format, colored, decoded = read_any_image(part, index)
    except UnreadableError as error:
        path = part.path_of(index) if isinstance(part, EncodedPart) else split
        return BrokenFile(
            split, label, path, error.without_traceback()
        )  # bare: the traceback would hold the file's bytes
    pixels = decoded.pixels
    height, width, _ = pixels.shape
    digest = hashlib.blake2b(f"{height}x{width}:".encode(), digest_size=16)  # equal bytes in another shape differ
    digest.update(pixels.tobytes())
    if decoded.stored is not None:  # levels that 8 bits make equal differ
        digest.update(decoded.stored.tobytes())
    is_blank = bool((pixels == pixels[:1, :1]).all())
    image = ScannedImage(split, part, index, label, height, width, format, colored, is_blank)
    return ComparableImage(image, digest.digest(), near_duplicates.thumbnail(pixels), decoded.highest_level)


def read_any_image(part: Part, index: int) -> ReadImage:
    """Reads an image in its own size, in color.

    Raises:
        UnreadableError: it cannot be decoded.
    """
    if isinstance(part, PixelPart):
        pixels = part.read(np.array([index]))[0]
        return ReadImage("pixels", pixels.shape[2] == 3, DecodedImage(images.to_channels(pixels, 3)))
    with read_whole(part, index) as content:

        def decode(image: Image.Image) -> ReadImage:
            colored = images.is_colored(image)
            return ReadImage(str(image.format), colored, images.image_pixels(image, content, 3, part.decoding))

        return images.use_image(content, decode, part.decoding)


def search_file_names(scanned_images: list[ScannedImage], classes: tuple[str, ...]) -> LabelLeaks | None:
    """Returns what the names of the files tell about their classes; None unless every image has a name."""
    file_names = [image.part.names[image.index] for image in scanned_images if image.part.names]
    # Positions in `file_names` are those in `scanned_images` only where none is missing.
    if not file_names or len(file_names) < len(scanned_images):
        return None
    labels = np.array([image.label for image in scanned_images])
    return label_leaks.find_label_leaks(file_names, labels, classes)


# Samples to show


def sample_images(
    surveyed: Survey, *, each_class: int, side: int, most: int
) -> dict[int, np.ndarray]:  # -> (n, side, side, 3)
    """Returns label -> some images of the class, taken evenly, whole and in their proportions.

    Args:
        surveyed: the survey of the data.
        each_class: images of a class, at most.
        side: side of the gray squares on which they lie, in pixels.
        most: classes, at most; the first are taken.
    """
    images_by_label: dict[int, list[ScannedImage]] = {}
    for image in surveyed.images:
        images_by_label.setdefault(image.label, []).append(image)
    samples = {}
    for label, class_images in sorted(images_by_label.items())[:most]:
        samples[label] = on_gray_squares(take_evenly(class_images, each_class), side)
    return samples


def take_evenly(scanned_images: list[ScannedImage], most: int) -> list[ScannedImage]:
    """Returns at most `most` of the images, the first among them."""
    count = min(len(scanned_images), most)
    return [scanned_images[number * len(scanned_images) // count] for number in range(count)]


def on_gray_squares(scanned_images: list[ScannedImage], side: int) -> np.ndarray:  # -> (n, side, side, 3)
    """Reads images and lays each on a gray square; small images are enlarged by whole pixels, which stay squares."""
    squares = []
    for image in scanned_images:
        pixels = read_any_image(image.part, image.index).decoded.pixels
        factor = max(1, side // max(pixels.shape[:2]))
        enlarged = pixels.repeat(factor, 0).repeat(factor, 1)
        squares.append(images.fit_image(enlarged, (side, side), GRAY_PAD))
    return np.stack(squares)
