"""From an image that Pillow has opened, or that it holds, to pixels: one rule for every way in.

Files in folders, zips and arrays, images that a function gives or that `predict` is asked about all pass here.
"""

import io
import sys
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from PIL import Image

from cnn_vit.data.base.parts import DecodingOptions
from cnn_vit.data.decode import jpeg, orientation, png, tiff
from cnn_vit.data.decode.refusals import FORMATS, UnreadableError

VERSION = 2  # of the rules in `image_pixels`; to be raised whenever one of them gives other pixels
LEVELS_AT_ONCE = 2**20  # that are scaled with 32 bits each
WHITE = 65535  # the highest level of 16 bits
SIXTEEN_BITS = {"I;16", "I;16L", "I;16B", "I;16N"}  # modes of Pillow
GRAY_MODES = {"1", "L", "LA", "La", "I", *SIXTEEN_BITS}  # without color
COLOR_MODES = {"RGB", "RGBX", "CMYK", "YCbCr", "HSV"}  # which Pillow brings to RGB by a formula
OPACITY_MODES = {"RGBA", "RGBa", "PA"}
MODES = GRAY_MODES | COLOR_MODES | OPACITY_MODES | {"P"}  # that give pixels
DEEP_COLORS = ("LA", "RGB", "RGBA", "RGBa", "CMYK")  # bands that Pillow brings from 16 to 8 bits
OTHER_ENDS = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}  # of two bytes, the other one first


class DecodedImage(NamedTuple):
    """An image in its own size.

    Attributes:
        pixels: (H, W, C) uint8, upright.
        stored: (H, W, 1 or 3) uint16, all 16 bits as the file has them; None where it has 8, or 12 and says so.
    """

    pixels: np.ndarray
    stored: np.ndarray | None = None

    @property
    def highest_level(self) -> int | None:
        """The highest level of 16 bits that the file has; None where it has fewer bits."""
        return None if self.stored is None else int(self.stored.max())


@dataclass(frozen=True)
class Samples:
    """What an image stores, not yet upright.

    Attributes:
        color: (H, W, 1 or 3), uint8 or uint16.
        alpha: (H, W) uint8, 255 where it is opaque; None where all of it is.
        white: the highest level that `color` may have.
        is_negative: whether that level is black, and 0 white.
    """

    color: np.ndarray
    alpha: np.ndarray | None = None
    white: int = 255
    is_negative: bool = False


def image_pixels(
    image: Image.Image,
    content: bytes | None,
    channels: int | None,
    options: DecodingOptions,
    reduction: int = 1,
) -> DecodedImage:
    """Brings an image to upright pixels of 8 bits. This is the only place that does; `VERSION` counts its rules.

    By the mode that Pillow opens an image in:

        1                     black and white, 0 and 255
        L                     gray, as it is
        I;16 I;16L I;16B I;16N  gray of 16 bits, times 255/65535 and rounded; times 255/`levels` where that is set
        I                     the same where all levels lie in 0 to 65535, else refused: its range is not known
        F                     refused: its range is not known
        LA La                 gray on white; La was multiplied by its opacity and is divided again
        P PA                  the colors of the palette, gray where all of these are; opacity of the palette's colors,
                              or of a band (PA), on white
        RGB RGBX              colors, as they are; X means nothing
        RGBA RGBa             colors on white; RGBa was multiplied by its opacity and is divided again
        CMYK YCbCr HSV        red, green and blue by Pillow's formulas; color profiles are not applied
        LAB                   refused: the result would depend on a profile
        any other             refused

    Where the file says more than the mode, the file counts:

        colors of 16 bits     as gray of 16 bits, not their higher bytes alone (PNG, TIFF)
        12 bits (TIFF)        times 255/4095
        white is zero (TIFF)  turned round, at 16 bits too
        a transparent color   compared with the samples that are stored, at every depth (PNG); then white
        no opacity at all     of a BMP means that nobody filled it in: it is opaque; elsewhere it is white
        EXIF orientation      applied where it stands before the pixels
        animations, pages     the first one
        bands beyond colors   and opacity are refused, and so are a preview that stands for a camera's raw data, and
                              planes of 16 bits (TIFF)

    All this is so whatever brings an image. Only where the caller has loaded or changed it before, what Pillow has made
    of it is all there is: colors of 16 bits are cut to 8, and a transparent level of 2 or 4 bits is not met. An
    orientation that is still written in a changed image is applied: who turns an image by himself takes it out, as
    `PIL.ImageOps.exif_transpose` does.

    Gray is ITU-R 601 luma of red, green and blue, as Pillow computes it; a color image whose three channels agree has
    exactly that gray.

    Args:
        image: the image; where it was opened from `content`, not yet loaded.
        content: all bytes of its file; None where there is only the image.
        channels: 1 or 3; None: 1 for gray and 3 for color.
        options: of 16 bits, the level that is white.
        reduction: 1, 2, 4 or 8, by which the sides of a JPEG are divided, rounded up.

    Raises:
        UnreadableError: the image is refused as above, or damaged. Whatever Pillow raises goes through.
    """
    whole = image.size
    if reduction > 1:
        image.draft(None, (image.width // reduction, image.height // reduction))  # does nothing if not a JPEG
    # Asked before the pixels are loaded, as `exif_orientation` says. Pillow turns a TIFF upright itself.
    turn = 1 if image.format == "TIFF" else orientation.exif_orientation(image)
    jpeg_pixels = None if content is None else jpeg.decode_jpeg(content, image, whole)
    samples = read_samples(image, content) if jpeg_pixels is None else Samples(jpeg_pixels)
    stored = samples.color if samples.white == WHITE else None
    pixels = to_eight_bits(samples, options)
    if samples.alpha is not None:
        pixels = lay_on_white(pixels, samples.alpha)
    if channels is not None:
        pixels = to_channels(pixels, channels)
    return DecodedImage(
        orientation.upright(pixels, turn), None if stored is None else orientation.upright(stored, turn)
    )


def refuse_unreadable_kind(image: Image.Image) -> None:
    """Refuses an open image by its mode and its tags, before anything is decoded."""
    problem = tiff.find_problem(image)
    if problem is not None:
        raise UnreadableError(problem, tiff.REMEDY)
    if image.mode == "F":
        raise UnreadableError("floating-point pixels of unknown range", "save it with 8 bits")
    if image.mode == "LAB":
        raise UnreadableError("CIELAB colors", "save it as RGB")
    if image.mode not in MODES:
        raise UnreadableError(f"pixels of mode {image.mode}", "save it as RGB")


def is_colored(image: Image.Image) -> bool:
    """Returns whether an image is stored in color; a palette counts as what its colors are."""
    if image.mode in ("P", "PA") and image.palette is not None:
        kind, raw = image.palette.getdata()
        levels = np.frombuffer(raw, np.uint8)
        # RGB;L is all reds, all greens, all blues; RGB, BGRX ... are the colors one after the other, a letter a byte.
        colors = levels.reshape(3, -1).T if kind == "RGB;L" else levels.reshape(-1, len(kind))[:, :3]
        return bool((colors != colors[:, :1]).any())
    return image.mode not in GRAY_MODES and raw_mode(image) != "LA;16B"  # which Pillow opens as RGBA


def is_deep(image: Image.Image) -> bool:
    """Returns whether an image that is not loaded has samples of 16 bits, or may have."""
    _, _, order = (raw_mode(image) or "").partition(";16")
    return image.mode in SIXTEEN_BITS or image.mode == "I" or order in OTHER_ENDS


def raw_mode(image: Image.Image) -> str | None:
    """Returns Pillow's name for how the samples of an image lie in its file; None where they are loaded already."""
    tiles = getattr(image, "tile", None)
    if not tiles:
        return None
    arguments = tiles[0].args
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else None


# Samples


def read_samples(image: Image.Image, content: bytes | None) -> Samples:
    """Reads what an image stores, as `image_pixels` says."""
    refuse_unreadable_kind(image)
    key = transparent_key(image, content)
    samples = None if content is None else read_deep_colors(image, content)
    if samples is None:
        image.load()
        if content is not None and image.format == "PNG" and png.lacks_rows(image, content):
            raise UnreadableError("damaged (rows are missing)")
        samples = samples_by_mode(image)
    if key is not None and samples.alpha is None and len(key) == samples.color.shape[-1]:
        is_key = (samples.color == np.array(key)).all(axis=-1)
        samples = replace(samples, alpha=np.where(is_key, 0, 255).astype(np.uint8))
    return samples


def samples_by_mode(image: Image.Image) -> Samples:
    """Returns what a loaded image holds, by its mode."""
    mode = image.mode
    if mode in SIXTEEN_BITS:
        levels, white = np.asarray(image).astype(np.uint16)[..., None], tiff.highest_stored(image)
        return Samples(levels, white=white, is_negative=tiff.is_white_zero(image))
    if mode == "I":
        return Samples(known_levels(np.asarray(image))[..., None], white=WHITE)
    if mode in ("1", "L"):
        return Samples(to_array(image, "L")[..., None])
    if mode in ("LA", "La"):
        bands = to_array(image, "LA")
        return Samples(bands[..., :1], bands[..., 1])
    has_opacity = mode in OPACITY_MODES or (mode == "P" and image.has_transparency_data)
    # A copy, for Pillow writes the opacity into the palette of the image that it converts.
    bands = to_array(image.copy() if mode == "P" else image, "RGBA" if has_opacity else "RGB")
    color = bands[..., :3] if is_colored(image) else bands[..., :1]
    alpha = bands[..., 3] if has_opacity else None
    if image.format == "BMP" and alpha is not None and not alpha.any():
        alpha = None
    return Samples(color, alpha)


def to_array(image: Image.Image, mode: str) -> np.ndarray:  # -> (H, W) or (H, W, bands)
    """Returns the pixels of an image in another mode, by Pillow's formulas; uint8."""
    return np.array(image if image.mode == mode else image.convert(mode))


def known_levels(levels: np.ndarray) -> np.ndarray:  # (H, W) -> (H, W)
    """Returns integers of 32 bits as 16 bits.

    Pillow may open 16 bits as 32: only larger or negative levels show that the file has more.

    Raises:
        UnreadableError: there are such levels.
    """
    if levels.size and not 0 <= levels.min() <= levels.max() <= WHITE:
        raise UnreadableError("32-bit pixels of unknown range", "save it with 8 or 16 bits")
    return levels.astype(np.uint16)


def transparent_key(image: Image.Image, content: bytes | None) -> tuple[int, ...] | None:
    """Returns the level, or red, green and blue, that an image makes transparent, as `samples_by_mode` has levels.

    None where there is none, or where it is a palette's.
    """
    if content is not None and image.format == "PNG":
        key = png.transparent_color(content)
        if key is None:
            return None
        bits = content[png.BIT_DEPTH]
        scale = 1 if bits > 8 else 255 // (2**bits - 1)  # levels of 1, 2 and 4 bits are loaded as 0 to 255
        return tuple(scale * level for level in key)
    key = image.info.get("transparency")
    if image.mode == "1" and isinstance(key, int):
        return (255 if key else 0,)
    if image.mode in GRAY_MODES and isinstance(key, int):
        return (key,)
    if image.mode == "RGB" and isinstance(key, tuple):
        return key
    return None


# Colors of 16 bits, of which Pillow keeps the higher bytes


def read_deep_colors(image: Image.Image, content: bytes) -> Samples | None:
    """Reads the colors of a PNG or TIFF with all their 16 bits; None where it has no colors, or fewer bits.

    Pillow reads either byte of each sample: once in the file's own order of bytes, once in the other.
    """
    letters, _, order = (raw_mode(image) or "").partition(";16")  # such as RGB;16B
    if letters not in DEEP_COLORS or order not in OTHER_ENDS:
        return None
    if letters == "LA":
        quarters = read_with(content, "RGBA").astype(np.uint16)  # higher and lower byte of gray, then of opacity
        bands = quarters[..., 0::2] << 8 | quarters[..., 1::2]
        return Samples(bands[..., :1], scale_levels(bands[..., 1], WHITE), WHITE)
    as_stored = letters.upper()  # RGBa: not yet divided by opacity, which Pillow would do in 8 bits
    bands = read_with(content, f"{as_stored};16{order}").astype(np.uint16)  # the higher bytes
    bands <<= 8
    bands |= read_with(content, f"{as_stored};16{OTHER_ENDS[order]}")
    if letters == "CMYK":
        inks = Image.frombytes("CMYK", bands.shape[1::-1], scale_levels(bands, WHITE).tobytes())
        return Samples(np.array(inks.convert("RGB")))
    color = bands[..., :3]
    if letters == "RGB":
        return Samples(color, white=WHITE)
    if letters == "RGBa":
        opacity = np.maximum(bands[..., 3:], 1).astype(np.int64)
        color = np.minimum(color * np.int64(WHITE) // opacity, WHITE).astype(np.uint16)
    return Samples(color, scale_levels(bands[..., 3], WHITE), WHITE)


def read_with(content: bytes, name: str) -> np.ndarray:  # -> (H, W, bands)
    """Decodes a file whose samples lie as Pillow's `name` says, whatever Pillow thinks of it; uint8."""
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        tiles = []
        for tile in image.tile:  # type: ignore[attr-defined]
            arguments = (name, *tile.args[1:]) if isinstance(tile.args, tuple) else name
            tiles.append(tile._replace(args=arguments))
        image.tile = tiles  # type: ignore[attr-defined]
        image.load()
        if image.format == "PNG" and png.lacks_rows(image, content):
            raise UnreadableError("damaged (rows are missing)")
        return np.asarray(image)


# From samples to pixels


def to_eight_bits(samples: Samples, options: DecodingOptions) -> np.ndarray:  # -> (H, W, C)
    """Returns colors with 8 bits; `options.levels` says what is white among 16 bits.

    Raises:
        UnreadableError: a level lies above it.
    """
    if samples.white == 255:
        return samples.color
    white = samples.white
    if white == WHITE and options.levels is not None:
        white = options.levels
        highest = int(samples.color.max())
        if highest > white:
            raise UnreadableError(
                f"a level of {highest:,}, above data.levels={white}", "make data.levels larger, or unset it"
            )
    pixels = scale_levels(samples.color, white)
    return 255 - pixels if samples.is_negative else pixels


def scale_levels(levels: np.ndarray, white: int) -> np.ndarray:
    """Brings levels (H, W ...) of 0 to `white` to 0 to 255, rounded, halves upwards; uint8."""
    scaled = np.empty(levels.shape, np.uint8)
    rows_at_once = max(1, LEVELS_AT_ONCE // max(levels[:1].size, 1))
    for start in range(0, len(levels), rows_at_once):
        rows = slice(start, start + rows_at_once)
        scaled[rows] = (levels[rows].astype(np.int32) * 255 + white // 2) // white
    return scaled


def lay_on_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:  # (H, W, C), (H, W) -> (H, W, C)
    """Lays pixels of an opacity on white."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else np.ascontiguousarray(pixels))
    canvas = Image.new(image.mode, image.size, "white")
    canvas.paste(image, mask=Image.fromarray(np.ascontiguousarray(alpha)))
    return np.array(canvas).reshape(pixels.shape)


def to_channels(pixels: np.ndarray, channels: int) -> np.ndarray:  # (H, W, C) -> (H, W, channels)
    """Brings pixels to 1 or 3 channels: gray is repeated three times, colors become their luma."""
    if pixels.shape[-1] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=-1)
    return np.array(Image.fromarray(pixels).convert("L"))[..., None]
