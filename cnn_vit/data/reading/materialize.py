"""From the parts of a source to splits that are read: one size, one number of colors, in memory where they fit.

Where `data.fit` is pad_batch images keep their own sizes (`sizes`), which their headers say before the first is read.

Images that fit in 512 MB are decoded at the start, in threads, and kept in the cache (`decoded`); of more, each is
looked at as closely as `data.check` says, and they are decoded when they are read; so are training images that boxes
are cut out of (`crops`). What cannot be read is named before the first step; what turns out so later is named then.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from cnn_vit.data.base.padding import PAD_BATCH, PaddedSizes, Size, choose_buckets, pad_bottom_right, shrink_to_fit
from cnn_vit.data.base.parts import Part, PixelPart, SourceData, read_whole
from cnn_vit.data.base.splits import Split
from cnn_vit.data.base.threads import map_ranges
from cnn_vit.data.decode import crops, images
from cnn_vit.data.decode.images import Header, UnreadableError
from cnn_vit.data.reading import checking, decoded, unreadable
from cnn_vit.data.reading.scan_cache import ScanCache
from cnn_vit.data.reading.unreadable import UnreadableFile
from cnn_vit.errors import UserError

MEMORY = 512 * 2**20  # bytes of decoded images, of all splits together

Shape = tuple[int, int, int]
Rows = Mapping[str, tuple[str, np.ndarray]]


def make_splits(
    found: SourceData,
    rows: Rows,
    *,
    sides: tuple[int, int] | None,
    channels: int | None,
    fit: str,
    crop: tuple[float, float] | None,
    check: str,
    verdicts: ScanCache,
    workers: int,
    batch_size: int,
) -> tuple[dict[str, Split], Shape]:
    """Makes the splits.

    Args:
        found: what the source gave.
        rows: split -> part and indices of its examples.
        sides: (height, width); None: as the images are.
        channels: 1 or 3; None: as the images are.
        fit: "crop", "stretch", "pad(GRAY)" or "pad_batch".
        crop: shares of the area, least and most, of the boxes that training images are cut in; None: they are not.
        check: how closely to look at images that are not decoded at the start: "auto", "all", "header", "none".
        verdicts: what is known of the files.
        workers: threads.
        batch_size: images of a batch, which decides on the sizes of batches.

    Returns:
        split -> `Split`, and the shape (H, W, C) of all images.

    Raises:
        UserError: files that cannot be read, all in one sentence; images of several sizes and no size to bring
            them to.
    """
    chosen = {split: (found.parts[part], at) for split, (part, at) in rows.items()}
    count = sum(len(at) for _, at in chosen.values())
    closely = checking.scan_level(check, count)
    bad: list[UnreadableFile] = []
    done = "none"
    if sides is None or channels is None or fit == PAD_BATCH:
        heads, bad, done = *scan_headers(chosen, "header", verdicts, workers), "header"
        sides, channels = settle_size(heads, bad, count, sides, channels, fit)
    shape = (*sides, channels)
    later = {split: one for split, one in chosen.items() if crop and split == "train"}
    kept = {split: one for split, one in chosen.items() if split not in later}
    if sum(len(at) for _, at in kept.values()) * math.prod(shape) > MEMORY:
        later, kept = chosen, {}
    if later and closely not in ("none", done):
        _, bad = scan_headers(later, closely, verdicts, workers)
    verdicts.save()
    now = {split: decoded_split(part, at, shape, fit, workers) for split, (part, at) in kept.items()}
    wrong = [*bad, *(fault for _, wrong in now.values() for fault in wrong)]
    unreadable.refuse_unreadable(list({fault.name: fault for fault in wrong}.values()), count)
    ready = {split: lazy_split(part, at, shape, fit) for split, (part, at) in later.items()}
    ready |= {split: one for split, (one, _) in now.items()}
    if crop:
        ready["train"] = croppable_split(ready["train"], *chosen["train"], shape, crop)
    if fit == PAD_BATCH:
        own = {split: own_image_sizes(*one, sides, verdicts, workers) for split, one in chosen.items()}
        sizes = choose_buckets(own["train"], sides, batch_size)
        ready = {split: replace(one, padded_sizes=PaddedSizes(own[split], sizes)) for split, one in ready.items()}
    return {split: ready[split] for split in chosen}, shape


def lazy_split(part: Part, at: np.ndarray, shape: Shape, fit: str) -> Split:
    """A split whose images are decoded when they are read."""
    if isinstance(part, PixelPart) and part.shape == shape:
        return Split(part.labels[at], lambda rows: part.read(at[rows]), not part.is_generated)

    def take(_: int, index: int) -> np.ndarray:
        return read_image(part, index, shape, fit)

    return Split(part.labels[at], lambda rows: read_images(part, at[rows], shape, take), False, names_of(part, at))


def croppable_split(split: Split, part: Part, at: np.ndarray, shape: Shape, crop: tuple[float, float]) -> Split:
    """The same, with random boxes cut out of its images when they are trained on."""

    def cut(rows: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        def take(row: int, index: int) -> np.ndarray:
            place = functools.partial(crops.crop_box, numbers=numbers[row], min_area=crop[0], max_area=crop[1])
            return read_crop_of(part, index, shape, place)

        return read_images(part, at[rows], shape, take)

    return replace(split, in_memory=False, read_crops=cut)


def decoded_split(
    part: Part, at: np.ndarray, shape: Shape, fit: str, workers: int
) -> tuple[Split, list[UnreadableFile]]:
    """A split whose images are decoded now, and those that cannot be."""
    if isinstance(part, PixelPart) and part.shape == shape and not part.is_generated:
        return lazy_split(part, at, shape, fit), []
    buffer = decoded.Buffer(part, at, shape, fit)
    bad = [] if buffer.filled else decode_into(buffer.pixels, part, at, shape, fit, workers)
    if not bad:
        buffer.keep()
    return Split(part.labels[at], buffer.pixels.__getitem__, True, names_of(part, at)), bad


def decode_into(
    pixels: np.ndarray, part: Part, at: np.ndarray, shape: Shape, fit: str, workers: int
) -> list[UnreadableFile]:
    """Decodes images into an array (N, H, W, C); those that cannot be are named."""

    def fill(some: range) -> list[UnreadableFile]:
        if isinstance(part, PixelPart) and part.shape == shape:
            pixels[some.start : some.stop] = part.read(at[some.start : some.stop])
            return []
        bad = []
        for row in some:
            index = int(at[row])
            try:
                pixels[row] = read_image(part, index, shape, fit)
            except UnreadableError as error:
                bad.append(UnreadableFile(unreadable.path_of(part, index), index, error.bare()))
        return bad

    return [fault for bad in map_ranges(fill, len(at), workers) for fault in bad]


def names_of(part: Part, at: np.ndarray) -> Sequence[str] | None:
    """Names of some images, where they have any."""
    return None if part.names is None else [part.names[index] for index in at]


def read_images(
    part: Part, indices: np.ndarray, shape: Shape, take: Callable[[int, int], np.ndarray]
) -> np.ndarray:  # (n,) -> (n, H, W, C)
    """Images as they are asked for, by (place among them, index) -> pixels."""
    pixels = np.empty((len(indices), *shape), np.uint8)
    for row, index in enumerate(indices.tolist()):
        try:
            pixels[row] = take(row, index)
        except UnreadableError as error:
            raise UserError(str(UnreadableFile(unreadable.path_of(part, index), index, error))) from error
    return pixels


def read_image(part: Part, index: int, shape: Shape, fit: str) -> np.ndarray:  # -> (H, W, C)
    """An image in its final shape."""
    height, width, channels = shape
    if isinstance(part, PixelPart):
        raw = images.to_channels(part.read(np.array([index]))[0], channels)
    else:
        with read_whole(part, index) as content:
            raw = images.decode(content, channels=channels)
    return pad_bottom_right(images.fit_image(raw, (height, width), fit), (height, width))


def read_crop_of(
    part: Part, index: int, shape: Shape, place: Callable[[int, int], crops.Box]
) -> np.ndarray:  # -> (H, W, C)
    """A box of an image in the final shape."""
    height, width, channels = shape
    if isinstance(part, PixelPart):
        raw = images.to_channels(part.read(np.array([index]))[0], channels)
        return images.resize(raw, (height, width), place(*raw.shape[:2]))
    with read_whole(part, index) as content:
        return crops.read_crop(content, (height, width), channels=channels, place=place)


# Headers


def scan_headers(
    chosen: Mapping[str, tuple[Part, np.ndarray]], level: str, verdicts: ScanCache, workers: int
) -> tuple[set[Header], list[UnreadableFile]]:
    """All that the headers say, each once, and what cannot be read."""
    heads, bad = checking.scan_files(chosen.values(), level, verdicts, workers=workers)
    return heads, [fault for wrong in bad for fault in wrong]


def own_image_sizes(
    part: Part, at: np.ndarray, most: Size, verdicts: ScanCache, workers: int
) -> np.ndarray:  # (N,) -> (N, 2)
    """Height and width of images that keep their own sizes, made smaller where they are larger than `most`; int32."""
    if isinstance(part, PixelPart):
        return np.tile(np.array(shrink_to_fit(part.shape[:2], most), np.int32), (len(at), 1))
    looked = map_ranges(functools.partial(checking.scan_range, part, at, "header", verdicts), len(at), workers)
    heads = [(index, found) for some in looked for index, found, _ in some]
    right = [head for _, head in heads if isinstance(head, Header)]
    bad = [
        UnreadableFile(unreadable.path_of(part, at), at, error) for at, error in heads if not isinstance(error, Header)
    ]
    unreadable.refuse_unreadable(bad, len(at))
    return np.array([shrink_to_fit((one.height, one.width), most) for one in right], np.int32).reshape(-1, 2)


def settle_size(
    heads: set[Header],
    bad: Sequence[UnreadableFile],
    count: int,
    sides: tuple[int, int] | None,
    channels: int | None,
    fit: str,
) -> tuple[tuple[int, int], int]:
    """Size and channels, from the headers where they are unset; the size that holds all images that keep their own.

    Raises:
        UserError: there are several sizes.
    """
    if not heads:
        unreadable.refuse_unreadable(bad, count)
    sizes = sorted({(one.height, one.width) for one in heads})
    if sides is None and fit == PAD_BATCH:
        sides = max(height for height, _ in sizes), max(width for _, width in sizes)
    if sides is None and len(sizes) > 1:
        (low, narrow), (high, wide) = (tuple(end(side) for side in zip(*sizes, strict=True)) for end in (min, max))
        raise UserError(
            f"images have {len(sizes)} sizes, {low} to {high} pixels high and {narrow} to {wide} wide; set "
            "data.image_size to the size to bring them to (--config.data.image_size=64)"
        )
    return sides or sizes[0], channels or (3 if any(one.colored for one in heads) else 1)
