"""Turns the parts of a source into splits that are read: one size, one number of colors, in memory where they fit.

Where `data.fit` is pad_batch the images keep their own sizes (`padding`), which their headers say before the first
image is read.

Images that fit in 512 MB are decoded at the start, in threads, and kept in the cache (`decoded`). Of more, each file is
scanned as closely as `data.check` says, and decoded when it is read; so are training images that random boxes are cut
out of (`crops`). Files that cannot be read are named before the first step; one that turns out so later is named then.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard

import numpy as np

from cnn_vit.data.base.padding import PAD_BATCH, PaddedSizes, Size, choose_buckets, pad_bottom_right, shrink_to_fit
from cnn_vit.data.base.parts import FitOptions, Part, PixelPart, SourceData, images_per_read, read_whole
from cnn_vit.data.base.splits import Split
from cnn_vit.data.base.threads import map_ranges
from cnn_vit.data.decode import crops, images
from cnn_vit.data.decode.images import DecodedImage, Header, UnreadableError
from cnn_vit.data.reading import checking, decoded, unreadable
from cnn_vit.data.reading.scan_cache import ScanCache
from cnn_vit.data.reading.unreadable import UnreadableFile
from cnn_vit.errors import UserError

MEMORY = 512 * 2**20  # bytes of decoded images, of all splits together
LEVEL_SAMPLE = 64  # images of a split, whose highest level stands for all, where not all are decoded at the start

Shape = tuple[int, int, int]
Selection = tuple[Part, np.ndarray]  # a part, and the indices (n,) of some of its images


@dataclass(frozen=True)
class MadeSplits:
    """The splits of a data set.

    Attributes:
        splits: split -> `Split`.
        shape: (H, W, C) of all images.
        highest_level: the highest level of all images of 16 bits; None where all have fewer bits.
        is_sampled: whether only some images were looked at for that.
    """

    splits: dict[str, Split]
    shape: Shape
    highest_level: int | None
    is_sampled: bool


def make_splits(
    source_data: SourceData,
    split_indices: Mapping[str, tuple[str, np.ndarray]],
    *,
    image_size: Size | None,
    channels: int | None,
    fit_options: FitOptions,
    random_crop: tuple[float, float] | None,
    check: str,
    scan_cache: ScanCache,
    workers: int,
    batch_size: int,
) -> MadeSplits:
    """Makes the splits of a data set.

    Args:
        source_data: what the source has.
        split_indices: split -> name of its part, and the indices (n,) of its examples there.
        image_size: (height, width) in pixels; None: as the images are.
        channels: 1 or 3; None: as the images are.
        fit_options: how images are brought to the size.
        random_crop: least and largest share of the area of the boxes that training images are cut in; None: they are
            not.
        check: how closely to scan images that are not decoded at the start: "auto", "all", "header", "none".
        scan_cache: what earlier scans have found; new outcomes are saved in it.
        workers: number of threads.
        batch_size: images of a batch; where images keep their own sizes, it decides on the sizes of batches.

    Raises:
        UserError: files that cannot be read, all in one sentence; images of several sizes and no size to bring
            them to.
    """
    fit = fit_options.fit
    selections = {split: (source_data.parts[part], indices) for split, (part, indices) in split_indices.items()}
    count = count_images(selections)
    level = checking.scan_level(check, count)
    scanned_level = "none"
    headers: set[Header] = set()
    unreadable_files: list[UnreadableFile] = []
    if image_size is None or channels is None or fit == PAD_BATCH:
        headers, unreadable_files = scan_selections(selections, "header", scan_cache, workers)
        scanned_level = "header"
        image_size, channels = settle_size(headers, unreadable_files, count, image_size, channels, fit)
    shape = (*image_size, channels)

    # Which splits are decoded when they are read, and which now. Boxes are cut out of the file's own pixels each time.
    lazy = {split: selections[split] for split in selections if random_crop and split == "train"}
    eager = {split: selections[split] for split in selections if split not in lazy}
    if count_images(eager) * math.prod(shape) > MEMORY:
        lazy, eager = selections, {}
    lazy_headers: set[Header] = set()
    if lazy and level not in ("none", scanned_level):  # decoding finds the unreadable files of the others
        lazy_headers, unreadable_files = scan_selections(lazy, level, scan_cache, workers)
    if level == "header" and any(header.deep for header in lazy_headers | headers):
        lazy_headers, _ = scan_selections(sample_evenly(lazy), "all", scan_cache, workers)
    scan_cache.save()

    splits = {split: lazy_split(part, indices, shape, fit_options) for split, (part, indices) in lazy.items()}
    levels = [header.highest_level for header in lazy_headers]
    for split, (part, indices) in eager.items():
        splits[split], undecodable_files, highest_level = decoded_split(part, indices, shape, fit_options, workers)
        unreadable_files += undecodable_files
        levels.append(highest_level)
    # A scan and the decoding may both have named a file; it counts once.
    unreadable.refuse_unreadable(list({file.name: file for file in unreadable_files}.values()), count)

    if random_crop:
        splits["train"] = croppable_split(
            splits["train"], *selections["train"], shape, random_crop, fit_options.interpolation
        )
    if fit == PAD_BATCH:
        splits = add_padded_sizes(splits, selections, image_size, scan_cache, workers, batch_size)
    return MadeSplits(
        splits={split: splits[split] for split in selections},
        shape=shape,
        highest_level=highest_of([*levels, source_data.highest_level]),
        is_sampled=bool(lazy) and level != "all",
    )


def highest_of(levels: Iterable[int | None]) -> int | None:
    """Returns the highest of some levels of 16 bits; None where all images have fewer bits."""
    return max((level for level in levels if level is not None), default=None)


def sample_evenly(selections: Mapping[str, Selection]) -> dict[str, Selection]:
    """Returns LEVEL_SAMPLE images of each split at most, taken evenly."""
    samples = {}
    for split, (part, indices) in selections.items():
        count = min(len(indices), LEVEL_SAMPLE)
        samples[split] = part, indices[np.arange(count) * len(indices) // max(count, 1)]
    return samples


def count_images(selections: Mapping[str, Selection]) -> int:
    """Returns the number of images of some splits together."""
    return sum(len(indices) for _, indices in selections.values())


def is_as_wanted(part: Part, shape: Shape, fit_options: FitOptions) -> TypeGuard[PixelPart]:
    """Whether the images of a part are pixels that are read as they are: of the final shape, which `fit` leaves."""
    if not isinstance(part, PixelPart) or part.shape != shape:
        return False
    return images.is_at_size(part.shape[:2], shape[:2], fit_options.fit)


def lazy_split(part: Part, indices: np.ndarray, shape: Shape, fit_options: FitOptions) -> Split:
    """Makes a split whose images are decoded when they are read."""
    if is_as_wanted(part, shape, fit_options):
        return Split(part.labels[indices], lambda rows: part.read(indices[rows]), not part.is_generated)

    def read_one(_: int, index: int) -> np.ndarray:
        return read_image(part, index, shape, fit_options)

    def read(rows: np.ndarray) -> np.ndarray:
        return read_images(part, indices[rows], shape, read_one)

    return Split(part.labels[indices], read, False, names_of(part, indices))


def croppable_split(
    split: Split,
    part: Part,
    indices: np.ndarray,
    shape: Shape,
    random_crop: tuple[float, float],
    interpolation: str,
) -> Split:
    """Returns the same split with `read_crops`, which cuts random boxes out of its images when they are trained on."""

    def read_crops(rows: np.ndarray, crop_numbers: np.ndarray) -> np.ndarray:  # (n,), (n, 4) -> (n, H, W, C)
        def read_one(row: int, index: int) -> np.ndarray:
            choose_box = functools.partial(
                crops.crop_box, numbers=crop_numbers[row], min_area=random_crop[0], max_area=random_crop[1]
            )
            return read_crop_of(part, index, shape, choose_box, interpolation)

        return read_images(part, indices[rows], shape, read_one)

    return replace(split, in_memory=False, read_crops=read_crops)


def decoded_split(
    part: Part, indices: np.ndarray, shape: Shape, fit_options: FitOptions, workers: int
) -> tuple[Split, list[UnreadableFile], int | None]:
    """Makes a split whose images are decoded now.

    Returns:
        The split, the files that cannot be decoded, and the highest level of 16 bits.
    """
    if is_as_wanted(part, shape, fit_options) and not part.is_generated:
        return lazy_split(part, indices, shape, fit_options), [], None  # its images are pixels in memory already
    buffer = decoded.Buffer(part, indices, shape, fit_options)
    unreadable_files: list[UnreadableFile] = []
    if not buffer.is_filled:
        unreadable_files, buffer.highest_level = decode_into(buffer.pixels, part, indices, shape, fit_options, workers)
    if not unreadable_files:
        buffer.save()
    split = Split(part.labels[indices], buffer.pixels.__getitem__, True, names_of(part, indices))
    return split, unreadable_files, buffer.highest_level


def decode_into(
    pixels: np.ndarray, part: Part, indices: np.ndarray, shape: Shape, fit_options: FitOptions, workers: int
) -> tuple[list[UnreadableFile], int | None]:
    """Decodes images into an array (N, H, W, C), in threads.

    Returns:
        The files that cannot be decoded, and the highest level of 16 bits.
    """

    def decode_rows(rows: range) -> tuple[list[UnreadableFile], int | None]:
        if is_as_wanted(part, shape, fit_options):
            images_at_once = images_per_read(shape)
            for start in range(rows.start, rows.stop, images_at_once):
                stop = min(start + images_at_once, rows.stop)
                pixels[start:stop] = part.read(indices[start:stop])
            return [], None
        unreadable_files = []
        levels: list[int | None] = []
        for row in rows:
            index = int(indices[row])
            try:
                decoded_image = decode_image(part, index, shape[2])
                pixels[row] = bring_to_shape(decoded_image.pixels, shape, fit_options)
                levels.append(decoded_image.highest_level)
            except UnreadableError as error:
                # Kept bare: the traceback would hold all bytes of the file in memory.
                unreadable_files.append(
                    UnreadableFile(unreadable.path_of(part, index), index, error.without_traceback())
                )
        return unreadable_files, highest_of(levels)

    outcomes = list(map_ranges(decode_rows, len(indices), workers))
    unreadable_files = list(itertools.chain.from_iterable(range_files for range_files, _ in outcomes))
    return unreadable_files, highest_of(level for _, level in outcomes)


def names_of(part: Part, indices: np.ndarray) -> Sequence[str] | None:
    """Returns the names of some images; None where they have none."""
    return None if part.names is None else [part.names[index] for index in indices]


def read_images(
    part: Part, indices: np.ndarray, shape: Shape, read_one: Callable[[int, int], np.ndarray]
) -> np.ndarray:  # (n,) -> (n, H, W, C)
    """Reads some images, each by `read_one(row of indices, index)`.

    Raises:
        UserError: an image turns out unreadable; it is named.
    """
    pixels = np.empty((len(indices), *shape), np.uint8)
    for row, index in enumerate(indices.tolist()):
        try:
            pixels[row] = read_one(row, index)
        except UnreadableError as error:
            raise UserError(str(UnreadableFile(unreadable.path_of(part, index), index, error))) from error
    return pixels


def read_image(part: Part, index: int, shape: Shape, fit_options: FitOptions) -> np.ndarray:  # -> (H, W, C)
    """Reads an image in its final shape."""
    return bring_to_shape(decode_image(part, index, shape[2]).pixels, shape, fit_options)


def decode_image(part: Part, index: int, channels: int) -> DecodedImage:
    """Decodes an image in its own size."""
    if isinstance(part, PixelPart):
        return DecodedImage(images.to_channels(part.read(np.array([index]))[0], channels))
    with read_whole(part, index) as content:
        return images.decode_image(content, channels=channels, options=part.decoding)


def bring_to_shape(pixels: np.ndarray, shape: Shape, fit_options: FitOptions) -> np.ndarray:  # (h, w, C) -> (H, W, C)
    """Brings decoded pixels to the final height and width."""
    size = shape[:2]
    return pad_bottom_right(images.fit_image(pixels, size, fit_options.fit, fit_options.interpolation), size)


def read_crop_of(
    part: Part, index: int, shape: Shape, choose_box: Callable[[int, int], crops.Box], interpolation: str
) -> np.ndarray:  # -> (H, W, C)
    """Reads a box of an image in the final shape; `choose_box(height, width)` says where it lies in the image."""
    height, width, channels = shape
    if isinstance(part, PixelPart):
        pixels = images.to_channels(part.read(np.array([index]))[0], channels)
        return images.resize(pixels, (height, width), choose_box(*pixels.shape[:2]), interpolation)
    with read_whole(part, index) as content:
        return crops.read_crop(
            content,
            (height, width),
            channels=channels,
            choose_box=choose_box,
            options=part.decoding,
            interpolation=interpolation,
        )


# Sizes from headers


def scan_selections(
    selections: Mapping[str, Selection], level: str, scan_cache: ScanCache, workers: int
) -> tuple[set[Header], list[UnreadableFile]]:
    """Scans the files of some splits; returns their different headers and the files that cannot be read."""
    headers, unreadable_by_split = checking.scan_files(selections.values(), level, scan_cache, workers=workers)
    return headers, list(itertools.chain.from_iterable(unreadable_by_split))


def settle_size(
    headers: set[Header],
    unreadable_files: Sequence[UnreadableFile],
    count: int,
    image_size: Size | None,
    channels: int | None,
    fit: str,
) -> tuple[Size, int]:
    """Returns the image size and the number of channels, from the headers where the settings leave them unset.

    Where images keep their own sizes, the image size is the smallest that holds all of them.

    Raises:
        UserError: there are several sizes, or there is no readable file among `count` images.
    """
    if not headers:
        unreadable.refuse_unreadable(unreadable_files, count)
    sizes = sorted({(header.height, header.width) for header in headers})
    heights, widths = [height for height, _ in sizes], [width for _, width in sizes]
    if image_size is None and fit == PAD_BATCH:
        image_size = max(heights), max(widths)
    if image_size is None and len(sizes) > 1:
        raise UserError(
            f"images have {len(sizes)} sizes, {min(heights)} to {max(heights)} pixels high and {min(widths)} to "
            f"{max(widths)} wide; set data.image_size to the size to bring them to (--config.data.image_size=64)"
        )
    if channels is None:
        channels = 3 if any(header.colored for header in headers) else 1
    return image_size or sizes[0], channels


def add_padded_sizes(
    splits: Mapping[str, Split],
    selections: Mapping[str, Selection],
    largest: Size,
    scan_cache: ScanCache,
    workers: int,
    batch_size: int,
) -> dict[str, Split]:
    """Returns the splits with the sizes of their images, and with the padded sizes of batches.

    The images of train choose these; where there is no train split, those of the first split.
    """
    image_sizes = {}
    for split, (part, indices) in selections.items():
        image_sizes[split] = read_image_sizes(part, indices, largest, scan_cache, workers)
    choosing_split = "train" if "train" in image_sizes else next(iter(image_sizes))
    buckets = choose_buckets(image_sizes[choosing_split], largest, batch_size)
    return {split: replace(splits[split], padded_sizes=PaddedSizes(image_sizes[split], buckets)) for split in splits}


def read_image_sizes(
    part: Part, indices: np.ndarray, largest: Size, scan_cache: ScanCache, workers: int
) -> np.ndarray:  # (N,) -> (N, 2)
    """Returns height and width of images that keep their own sizes, shrunk where larger than `largest`; int32.

    Raises:
        UserError: files that cannot be read.
    """
    if isinstance(part, PixelPart):
        return np.tile(np.array(shrink_to_fit(part.shape[:2], largest), np.int32), (len(indices), 1))
    scan = functools.partial(checking.scan_range, part, indices, "header", scan_cache)
    scanned_files = itertools.chain.from_iterable(map_ranges(scan, len(indices), workers))
    headers, unreadable_files = checking.remember_scan(part, scanned_files, "header", scan_cache)
    unreadable.refuse_unreadable(unreadable_files, len(indices))
    sizes = [shrink_to_fit((header.height, header.width), largest) for header in headers]
    return np.array(sizes, np.int32).reshape(-1, 2)  # (0, 2) where there are none
