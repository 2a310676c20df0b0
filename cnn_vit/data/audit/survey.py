"""A look at a whole data set before anything is trained on it: every image once, decoded.

What is counted is what training would see: the splits that the settings lay out. What stands in the way of that is told
instead of raised, but for a folder in which no classes can be found.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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
from cnn_vit.data.decode.images import UnreadableError
from cnn_vit.data.reading import checking
from cnn_vit.data.reading.scan_cache import ScanCache
from cnn_vit.data.reading.unreadable import UnreadableFile
from cnn_vit.data.sections import complete_section, names, source_keywords, source_module, source_options
from cnn_vit.errors import UserError, nearest


@dataclass(frozen=True)
class ScannedImage:
    """An image.

    Attributes:
        split: of it.
        part: that holds it.
        index: its place there.
        label: of its class.
        height, width: pixels, upright.
        format: of its file, "JPEG"; "pixels" where it is none.
        colored: whether it is stored in color.
        blank: whether all its pixels are one color.
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
        """Of its file; else what it is called."""
        return f"{self.split} image {self.index}" if isinstance(self.part, PixelPart) else self.part.where(self.index)


class BrokenFile(NamedTuple):
    """A file that cannot be read.

    Attributes:
        split, label: where it would be.
        path: of it.
        error: reason and remedy.
    """

    split: str
    label: int
    path: str
    error: UnreadableError


@dataclass(frozen=True)
class Survey:
    """What there is.

    Attributes:
        source: name of the data source.
        path: that it read.
        classes: names in the order of the labels.
        counts: split -> images of each class (K,), broken ones among them.
        images: every image that can be read.
        broken: every one that cannot, and would stop training.
        skipped: files that cannot be read and would be left out, as `data.on_bad_image=skip` asks.
        duplicates: places in `seen` of images with the same pixels, a list for each group.
        near_duplicates: likewise of those nearly the same.
        label_leaks: what the names of the files tell, in places of `seen`; None where there are no names.
        ignored: files passed over.
        notes: what training would decide by itself.
        refused: sentences with which training would refuse these data.
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


OnProgress = Callable[[int, int], object]


def section_from_text(text: str) -> dict[str, Any]:
    """The data section of what somebody wrote: a path, or the name of a source that needs none.

    Raises:
        UserError: it is neither.
    """
    if text not in names() or os.path.exists(text):
        try:
            return data.section_for_path(text, image_size=None, channels=None, fit="crop")
        except UserError as error:
            near = nearest(text, names())
            raise UserError(f"{error}; did you mean the source {near[0]}?" if near else str(error)) from error
    section = {"name": text}
    try:
        data.about(section)
    except UserError as error:
        raise UserError(
            f"the source {text} must be told more than its name ({error}); give a path, or a recipe by --config"
        ) from error
    return section


def survey(section: Mapping[str, Any], *, told: OnProgress = lambda done, count: None) -> Survey:
    """Looks at everything.

    Args:
        section: settings of the data, as for `data.load`.
        told: given how many images have been looked at, of how many; from several threads.

    Raises:
        UserError: no classes can be found, for the reason that `data.load` gives.
    """
    final = complete_section(section)
    found = source_module(final["name"]).load(source_options(final), **source_keywords(final))
    skipped: list[UnreadableFile] = []
    if final["on_bad_image"] == "skip":
        verdicts = ScanCache(os.path.abspath(final["path"] or final["name"]))
        found, skipped = checking.without_unreadable(found, final["check"], verdicts, workers=final["workers"])
    parts, rows, notes, refused = lay_out_splits(found, final)
    seen, broken, digests, thumbnails = scan_images(parts, rows, final["workers"], told)
    same, near = near_duplicates.duplicate_groups(digests, thumbnails) if seen else ([], [])
    count = len(found.classes)
    return Survey(
        source=final["name"],
        path=final["path"],
        classes=found.classes,
        counts={split: np.bincount(parts[part].labels[at], minlength=count) for split, (part, at) in rows.items()},
        images=seen,
        broken=broken,
        skipped=skipped,
        duplicates=same,
        near_duplicates=near,
        label_leaks=find_label_leaks(seen, found.classes),
        ignored=found.facts.get("ignored", 0),
        notes=notes,
        refused=refused,
    )


def lay_out_splits(
    found: SourceData, final: Mapping[str, Any]
) -> tuple[Mapping[str, Part], dict[str, tuple[str, np.ndarray]], list[str], list[str]]:
    """Parts, split -> part and indices (n,), notes, and why training would lay out nothing; then the parts are."""
    try:
        if found.is_undivided:
            found = replace(found, parts=splits.split_in_three(found.parts["train"]))
        counts = {part: len(one.labels) for part, one in found.parts.items()}
        plan = splits.plan_splits(counts, {split: final[split] for split in PARTS})
        rows = {
            split: (part, splits.example_indices(found.parts[part], at)) for split, (part, at) in plan.positions.items()
        }
        undivided = "no split folders: a stratified tenth is test, another one validation"
        return found.parts, rows, [undivided] * found.is_undivided + plan.notes, []
    except UserError as error:
        every = {part: (part, np.arange(len(one.labels))) for part, one in found.parts.items()}
        return found.parts, every, [], [str(error)]


def scan_images(
    parts: Mapping[str, Part], rows: Mapping[str, tuple[str, np.ndarray]], workers: int, told: OnProgress
) -> tuple[list[ScannedImage], list[BrokenFile], list[bytes], np.ndarray]:
    """Every image that can be read, with the digest of its pixels and its thumbnail, and every one that cannot."""
    count, done = sum(len(at) for _, at in rows.values()), 0
    seen: list[ScannedImage] = []
    broken: list[BrokenFile] = []
    digests: list[bytes] = []
    thumbnails: list[np.ndarray] = []

    def counted(some: range, *, split: str, part: Part, at: np.ndarray) -> list[Any]:
        nonlocal done
        found = [scan_image(split, part, int(index)) for index in at[some.start : some.stop]]
        done += len(found)  # two threads may lose a few; it is only shown
        told(min(done, count), count)
        return found

    for split, (name, at) in rows.items():
        work = functools.partial(counted, split=split, part=parts[name], at=at)
        for found in map_ranges(work, len(at), workers):
            for one in found:
                if isinstance(one, BrokenFile):
                    broken.append(one)
                    continue
                seen.append(one[0])
                digests.append(one[1])
                thumbnails.append(one[2])
    told(count, count)
    return seen, broken, digests, np.array(thumbnails)


def scan_image(split: str, part: Part, index: int) -> tuple[ScannedImage, bytes, np.ndarray] | BrokenFile:
    """One image: what is to be known of it, the digest of its pixels in color, and its thumbnail."""
    label = int(part.labels[index])
    try:
        kind, colored, pixels = read_any_image(part, index)
    except UnreadableError as error:
        return BrokenFile(split, label, part.where(index) if isinstance(part, EncodedPart) else split, error.bare())
    height, width, _ = pixels.shape
    digest = hashlib.blake2b(f"{height}x{width}:".encode(), digest_size=16)
    digest.update(pixels.tobytes())
    blank = bool((pixels == pixels[:1, :1]).all())
    one = ScannedImage(split, part, index, label, height, width, kind, colored, blank)
    return one, digest.digest(), near_duplicates.thumbnail(pixels)


def read_any_image(part: Part, index: int) -> tuple[str, bool, np.ndarray]:
    """Format, whether it is in color, and pixels (H, W, 3) of an image."""
    if isinstance(part, PixelPart):
        pixels = part.read(np.array([index]))[0]
        return "pixels", pixels.shape[2] == 3, images.to_channels(pixels, 3)
    with read_whole(part, index) as content:

        def use(image: Image.Image) -> tuple[str, bool, np.ndarray]:
            colored = images.is_colored(image)
            return str(image.format), colored, images.image_pixels(image, content, 3)

        return images.use_image(content, use)


def find_label_leaks(seen: list[ScannedImage], classes: tuple[str, ...]) -> LabelLeaks | None:
    """What the names of the files tell."""
    given = [one.part.names[one.index] for one in seen if one.part.names]
    if not given or len(given) < len(seen):
        return None
    return label_leaks.find_labels(given, np.array([one.label for one in seen]), classes)


def sample_images(
    found: Survey, *, each_class: int, side: int, most: int
) -> dict[int, np.ndarray]:  # -> (n, side, side, 3)
    """Some images of each of the first classes, taken evenly, whole and in their proportions: label -> pixels."""
    by_class: dict[int, list[ScannedImage]] = {}
    for one in found.images:
        by_class.setdefault(one.label, []).append(one)
    return {
        label: on_gray_squares(take_evenly(some, each_class), side) for label, some in sorted(by_class.items())[:most]
    }


def take_evenly(of: list[ScannedImage], most: int) -> list[ScannedImage]:
    """At most so many, the first among them."""
    count = min(len(of), most)
    return [of[at * len(of) // count] for at in range(count)]


def on_gray_squares(some: list[ScannedImage], side: int) -> np.ndarray:  # -> (n, side, side, 3)
    """Images on gray squares; the pixels of small ones are squares too."""
    found = []
    for one in some:
        _, _, pixels = read_any_image(one.part, one.index)
        times = max(1, side // max(pixels.shape[:2]))
        found.append(images.fit_image(pixels.repeat(times, 0).repeat(times, 1), (side, side), "pad(128)"))
    return np.stack(found)
