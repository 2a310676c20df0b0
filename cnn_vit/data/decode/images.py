"""From the bytes of an image file, or an image of Pillow's, to pixels: the only place that opens and that resizes.

What pixels an image has, `pixel_rules.image_pixels` says.
"""

import contextlib
import io
import math
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from cnn_vit.data.base.padding import PAD_BATCH, Size, shrink_to_fit
from cnn_vit.data.base.parts import DecodingOptions
from cnn_vit.data.decode import orientation
from cnn_vit.data.decode.pixel_rules import (
    DecodedImage,
    image_pixels,
    is_colored,
    is_deep,
    refuse_unreadable_kind,
    to_channels,
)
from cnn_vit.data.decode.refusals import DEFAULT_REMEDY, FORMATS, UnreadableError, unknown_format_error

__all__ = [
    "DEFAULT_REMEDY",
    "FORMATS",
    "DecodedImage",
    "Header",
    "UnreadableError",
    "decode",
    "decode_image",
    "fit_image",
    "header_of_image",
    "image_pixels",
    "inspect_file",
    "is_at_size",
    "is_colored",
    "pillow_errors",
    "read_header",
    "refuse_large",
    "resize",
    "to_channels",
    "use_image",
]  # fmt: skip

MOST_BYTES = 100_000_000  # of a file
PLAIN_PPM = (b"P1", b"P2", b"P3")  # beginnings of PPM files written as text
SLOW_CODECS = {"ppm_plain": "pixels as text", "bmp_rle": "run lengths"}  # of Pillow, and what each reads
MOST_SLOW_BYTES = 10_000_000  # of a file that such a codec reads
MOST_READS = 500_000  # that Pillow may make of a file; a whole file takes a few thousand
SMALLER = "make it smaller, or train with a larger data.max_pixels"
DEFAULTS = DecodingOptions()
INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
MOST_RESIZED = 2**24  # pixels of a whole image that is resized before its middle is cut out: 120 MB

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # data.max_pixels is meant
warnings.filterwarnings("ignore", module=r"PIL\.")  # about damaged metadata; damaged pixels are errors


class CountedReads(io.BytesIO):
    """A file's bytes for Pillow, which may read only so often.

    Pillow's readers look through junk byte by byte: 90 MB of it took up to half a minute.
    """

    reads, most_reads = 0, MOST_READS

    def read(self, size: int | None = -1, /) -> bytes:
        """Reads some of the bytes.

        Raises:
            UnreadableError: there were too many reads.
        """
        self.reads += 1
        if self.reads > self.most_reads:
            raise UnreadableError("damaged (reading it does not come to an end)")
        return super().read(size)


@dataclass(frozen=True)
class Header:
    """What a file says of its image before it is decoded.

    Attributes:
        height: in pixels, of the upright image.
        width: in pixels, likewise.
        colored: whether it is stored in color; a palette of grays is not color.
        deep: whether it has 16 bits.
        highest_level: the highest of its levels of 16 bits; None where it has fewer bits, or was not decoded.
    """

    height: int
    width: int
    colored: bool
    deep: bool = False
    highest_level: int | None = None


def read_header(content: bytes, options: DecodingOptions = DEFAULTS) -> Header:
    """Reads the header of an image, from the beginning of a file or from all of it.

    Raises:
        UnreadableError: it is not an image of FORMATS, too large, or refused by its kind.
    """
    return use_image(content, header_of_image, options)


def decode(content: bytes, *, channels: int, options: DecodingOptions = DEFAULTS) -> np.ndarray:  # -> (H, W, C)
    """Decodes an image file to its pixels, uint8 and upright; as `decode_image`."""
    return decode_image(content, channels=channels, options=options).pixels


def decode_image(content: bytes, *, channels: int | None, options: DecodingOptions = DEFAULTS) -> DecodedImage:
    """Decodes an image file.

    Args:
        content: all bytes of the file.
        channels: 1 or 3; None: as the image is.
        options: what the settings say of it.

    Raises:
        UnreadableError: it is not an image of FORMATS, too large, refused by its kind, or damaged.
    """
    return use_image(content, lambda image: image_pixels(image, content, channels, options), options)


def inspect_file(content: bytes, options: DecodingOptions = DEFAULTS) -> Header:
    """Decodes a file to see that it can be, and returns its header; errors are those of `decode_image`."""

    def decode_after_header(image: Image.Image) -> Header:
        header = header_of_image(image)
        return replace(header, highest_level=image_pixels(image, content, 3, options).highest_level)

    return use_image(content, decode_after_header, options)


def use_image(content: bytes, use: Callable[[Image.Image], object], options: DecodingOptions = DEFAULTS):
    """Opens an image, returns what `use` makes of it, and turns whatever Pillow raises into an error of ours.

    Raises:
        UnreadableError: the image cannot be opened or used.
    """
    if not content:
        raise UnreadableError("empty, 0 bytes")
    if content[:2] in PLAIN_PPM:
        refuse_slow("ppm_plain", len(content))  # before the comments are looked for
    if Image.MAX_IMAGE_PIXELS is not None:  # Pillow's own limit, which stays as it is unless a larger one is asked for
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, options.max_pixels)
    with pillow_errors(content, options):
        file = CountedReads(strip_comments(content))
        with Image.open(file, formats=FORMATS) as image:
            refuse_large(image.size, options)
            refuse_unreadable_kind(image)
            codec = image.tile[0][0] if image.tile else None
            if codec in SLOW_CODECS:
                refuse_slow(codec, len(content))
                file.most_reads += 2 * MOST_SLOW_BYTES  # these codecs read byte by byte
            return use(image)


@contextlib.contextmanager
def pillow_errors(content: bytes, options: DecodingOptions) -> Iterator[None]:
    """Turns whatever Pillow raises over an image, whose file has these bytes, into an `UnreadableError`."""
    try:
        yield
    except UnreadableError:
        raise
    except Image.UnidentifiedImageError as error:
        raise unknown_format_error(content) from error
    except Image.DecompressionBombError as error:
        raise UnreadableError(f"more than {options.max_pixels:,} pixels", SMALLER) from error
    except MemoryError as error:
        raise UnreadableError("decoding it takes more memory than there is", "make it smaller") from error
    except Exception as error:  # Pillow's readers raise nearly anything over damaged bytes
        message = " ".join(str(error).split())[:120] or type(error).__name__
        raise UnreadableError(f"damaged ({message})") from error


def strip_comments(content: bytes) -> bytes:
    """Returns an image written as text without its comments, and any other as it is.

    For each comment Pillow looks through all that is left of a block: 3 MB of comments took half a minute.
    """
    return re.sub(rb"#[^\r\n]*", b"", content) if content[:2] in PLAIN_PPM else content


def refuse_slow(codec: str, size: int) -> None:
    """Refuses a large file for a codec of SLOW_CODECS, which runs in Python: a microsecond or so for each byte."""
    if size > MOST_SLOW_BYTES:
        raise UnreadableError(
            f"{size:,} bytes of {SLOW_CODECS[codec]}, more than {MOST_SLOW_BYTES:,}", "save it as PNG"
        )


def refuse_large(size: tuple[int, int], options: DecodingOptions) -> None:
    """Refuses an image by its header, before anything is decoded."""
    width, height = size
    if width * height > options.max_pixels:
        raise UnreadableError(f"{height:,} x {width:,} pixels, more than {options.max_pixels:,}", SMALLER)


def header_of_image(image: Image.Image) -> Header:
    """Returns height, width, color and depth of an open image that is not loaded."""
    width, height = image.size
    if image.format != "TIFF" and orientation.exif_orientation(image) >= 5:  # Pillow gives a TIFF upright
        width, height = height, width
    return Header(height, width, is_colored(image), is_deep(image))


def fit_image(
    pixels: np.ndarray, size: Size, fit: str, interpolation: str = "bilinear"
) -> np.ndarray:  # (H, W, C) -> (height, width, C)
    """Brings an image to a size: the one resize of training, evaluation and prediction.

    Args:
        pixels: uint8.
        size: (height, width).
        fit: "crop" takes the largest centered part of the size's proportions, which is resizing the shorter side and
            cutting out the center; "crop(0.875)" resizes the whole image and then cuts out the center, as
            `crop_middle` says; "stretch" takes the whole image; "pad(127)" takes the whole image in its proportions, in
            the middle of a gray of that level (a letterbox); "pad_batch" returns the whole image at its own size, and
            only one that is larger than (height, width) is shrunk in proportion to fit.
        interpolation: as in `resize`.
    """
    height, width, _ = pixels.shape
    if is_at_size((height, width), size, fit):
        return pixels
    if fit == PAD_BATCH:
        inner_size = shrink_to_fit((height, width), size)
        if inner_size == (height, width):
            return pixels
        return resize(pixels, inner_size, (0, 0, width, height), interpolation)
    if fit.startswith("pad"):
        return letterbox(pixels, size, int(fit[4:-1]), interpolation)
    share = crop_share(fit)
    if share is not None:
        return crop_middle(pixels, size, share, interpolation)
    part_height, part_width = float(height), float(width)
    if fit == "crop":
        scale = min(height / size[0], width / size[1])
        part_height, part_width = scale * size[0], scale * size[1]
    top, left = int((height - part_height) / 2), int((width - part_width) / 2)  # whole pixels: a mere crop stays exact
    box = left, top, min(left + part_width, width), min(top + part_height, height)
    return resize(pixels, size, box, interpolation)


def is_at_size(image_size: Size, size: Size, fit: str) -> bool:
    """Whether `fit_image` leaves an image of this (height, width) as it is, because it has the size already.

    An image of 224 x 224 that is brought to 224 x 224 by crop(0.875) is enlarged to 256 x 256 first.
    """
    if image_size != size:
        return False
    share = crop_share(fit)
    return share is None or size_before_crop(image_size, size, share) == size


def crop_share(fit: str) -> float | None:
    """Returns the share of crop(SHARE); None for any other fit."""
    return float(fit.removeprefix("crop(").removesuffix(")")) if fit.startswith("crop(") else None


def crop_middle(
    pixels: np.ndarray, size: Size, share: float, interpolation: str
) -> np.ndarray:  # (H, W, C) -> (height, width, C)
    """Resizes a whole image in its proportions, and cuts out the middle, which is about this share of a side.

    This gives the pixels that published networks are evaluated with, bit for bit: those of torchvision's Resize(256)
    and CenterCrop(224) for a share of 0.875, on images of Pillow's. "crop" computes the middle alone, at once, and a
    share of 1 differs from it by roundings: of the longer side, and of the place of the middle, to whole pixels.

    Where the whole would have more than MOST_RESIZED pixels, because the image is long and thin, its middle is computed
    alone: by the same weights, but Pillow may go over rows and columns in the other order, and rounds in between.
    """
    height, width, _ = pixels.shape
    whole_height, whole_width = size_before_crop((height, width), size, share)
    # Python rounds a half to the even number, and so does torchvision.transforms.functional.center_crop.
    top, left = round((whole_height - size[0]) / 2), round((whole_width - size[1]) / 2)
    bottom, right = top + size[0], left + size[1]
    if whole_height * whole_width > MOST_RESIZED:
        down, across = height / whole_height, width / whole_width
        box = left * across, top * down, min(right * across, width), min(bottom * down, height)
        return resize(pixels, size, box, interpolation)
    whole = resize(pixels, (whole_height, whole_width), (0, 0, width, height), interpolation)
    return whole[top:bottom, left:right].copy()  # a view would hold the whole in memory


def size_before_crop(image_size: Size, size: Size, share: float) -> Size:
    """Returns the (height, width) of an image of which the middle `size` is then cut out.

    The sides of `size` are divided by the share and rounded down. A square is then the shorter side of the image, whose
    longer side is rounded down too: torchvision.transforms.Resize. Otherwise the image becomes as small as still covers
    both sides, each rounded to the nearest: timm.data.transforms.ResizeKeepRatio. Which of them, and the division, are
    those of timm.data.transforms_factory.transforms_imagenet_eval.
    """
    height, width = image_size
    least_height, least_width = math.floor(size[0] / share), math.floor(size[1] / share)
    if least_height != least_width:
        scale = min(height / least_height, width / least_width)
        return round(height / scale), round(width / scale)
    if height <= width:
        return least_height, int(least_height * width / height)
    return int(least_height * height / width), least_height


def letterbox(
    pixels: np.ndarray, size: Size, gray: int, interpolation: str
) -> np.ndarray:  # (H, W, C) -> (height, width, C)
    """Puts a whole image, as large as fits, in the middle of a gray; an odd row or column of gray is below or right."""
    height, width, channels = pixels.shape
    scale = min(size[0] / height, size[1] / width)
    inner_height, inner_width = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (size[0] - inner_height) // 2, (size[1] - inner_width) // 2
    canvas = np.full((*size, channels), gray, np.uint8)
    inner = resize(pixels, (inner_height, inner_width), (0, 0, width, height), interpolation)
    canvas[top : top + inner_height, left : left + inner_width] = inner
    return canvas


def resize(
    pixels: np.ndarray, size: Size, box: tuple[float, float, float, float], interpolation: str = "bilinear"
) -> np.ndarray:  # (H, W, C) -> (height, width, C)
    """Brings a part (left, top, right, bottom) of an image, in pixels and fractions of them, to a size.

    Args:
        pixels: uint8.
        size: (height, width).
        box: the part.
        interpolation: "bilinear" or "bicubic" (with a = -0.5), with antialiasing: Pillow's filters, which grow with the
            reduction.
    """
    channels = pixels.shape[-1]
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    resized = image.resize((size[1], size[0]), INTERPOLATIONS[interpolation], box=box)
    return np.array(resized).reshape(*size, channels)
