"""From the bytes of an image file to pixels: the only place that decodes (a plain JPEG with `jpeg`) and that resizes.

The same pixels in another container give the same array. Animations give their first frame, 16 bits become 8 by 1/257,
EXIF orientation is applied, and transparent pixels lie on white. Gray is ITU-R 601 luma, as Pillow computes it; a color
image whose three channels agree has exactly that gray.
"""

import io
import re
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from cnn_vit.data.base.padding import PAD_BATCH, shrink_to_fit
from cnn_vit.data.decode import jpeg, orientation, png
from cnn_vit.errors import UserError

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")  # no other reader of Pillow is ever asked
MOST_PIXELS = 50_000_000  # of an image, by its header
MOST_BYTES = 100_000_000  # of a file
PLAIN_PPM = (b"P1", b"P2", b"P3")  # beginnings of PPM files written as text
SLOW_CODECS = {"ppm_plain": "pixels as text", "bmp_rle": "run lengths"}  # of Pillow, and what each reads
MOST_SLOW_BYTES = 10_000_000  # of a file that such a codec reads
MOST_READS = 500_000  # that Pillow may make of a file; a whole file takes a few thousand
GRAY_MODES = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L"}  # modes of Pillow without color
DEFAULT_REMEDY = "replace it or remove it"


class ForeignFormat(NamedTuple):
    """A kind of file that may bear an image's name and is not an image that can be read.

    Attributes:
        beginning: its first bytes, in any case.
        description: what such a file is.
        remedy: what the user can do.
    """

    beginning: bytes
    description: str
    remedy: str


WEB_PAGE = "an HTML page, perhaps what a server answered instead"
FOREIGN_FORMATS = (
    ForeignFormat(b"version https://git-lfs", "a Git LFS pointer, not the image", "run git lfs pull"),
    ForeignFormat(b"%PDF", "a PDF", "export its pages as PNG or JPEG"),
    ForeignFormat(b"%!PS", "PostScript", "export it as PNG or JPEG"),
    ForeignFormat(b"<!doctype html", WEB_PAGE, "download it again"),
    ForeignFormat(b"<html", WEB_PAGE, "download it again"),
    ForeignFormat(b"<svg", "a vector drawing (SVG)", "export it as PNG"),
    ForeignFormat(b"<?xml", "XML, perhaps a vector drawing (SVG)", "export it as PNG"),
    ForeignFormat(b"PK\3\4", "a zip archive", "unpack it"),
    ForeignFormat(b"8BPS", "a Photoshop file", "export it as PNG or JPEG"),
)

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # MOST_PIXELS is stricter
warnings.filterwarnings("ignore", module=r"PIL\.")  # about damaged metadata; damaged pixels are errors


class UnreadableError(UserError):
    """A file that is not an image that can be read: the reason, and the remedy."""

    def __init__(self, reason: str, remedy: str = DEFAULT_REMEDY):
        super().__init__(f"{reason}; {remedy}")
        self.reason = reason
        self.remedy = remedy

    def without_traceback(self) -> "UnreadableError":
        """Returns the same error without its traceback, which holds all bytes of the file, to be stored."""
        return UnreadableError(self.reason, self.remedy)


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


class Header(NamedTuple):
    """What a file says of its image before it is decoded.

    Attributes:
        height: in pixels, of the upright image.
        width: in pixels, likewise.
        colored: whether it is stored in color; a palette of grays is not color.
    """

    height: int
    width: int
    colored: bool


def read_header(content: bytes) -> Header:
    """Reads the header of an image, from the beginning of a file or from all of it.

    Raises:
        UnreadableError: it is not an image of FORMATS, or too large.
    """
    return use_image(content, header_of_image)


def decode(content: bytes, *, channels: int) -> np.ndarray:  # -> (H, W, C)
    """Decodes an image file.

    Args:
        content: all bytes of the file.
        channels: 1 or 3.

    Returns:
        The pixels, uint8, upright.

    Raises:
        UnreadableError: it is not an image of FORMATS, too large, or damaged.
    """
    return use_image(content, lambda image: image_pixels(image, content, channels))


def inspect_file(content: bytes) -> Header:
    """Decodes a file to see that it can be, and returns its header; errors are those of `decode`."""

    def decode_after_header(image: Image.Image) -> Header:
        header = header_of_image(image)
        image_pixels(image, content, 3)
        return header

    return use_image(content, decode_after_header)


def use_image(content: bytes, use: Callable[[Image.Image], object]):
    """Opens an image, returns what `use` makes of it, and turns whatever Pillow raises into an error of ours.

    Raises:
        UnreadableError: the image cannot be opened or used.
    """
    if not content:
        raise UnreadableError("empty, 0 bytes")
    if content[:2] in PLAIN_PPM:
        refuse_slow("ppm_plain", len(content))  # before the comments are looked for
    try:
        file = CountedReads(strip_comments(content))
        with Image.open(file, formats=FORMATS) as image:
            refuse_large(image.size)
            codec = image.tile[0][0] if image.tile else None
            if codec in SLOW_CODECS:
                refuse_slow(codec, len(content))
                file.most_reads += 2 * MOST_SLOW_BYTES  # these codecs read byte by byte
            return use(image)
    except UnreadableError:
        raise
    except Image.UnidentifiedImageError as error:
        raise unknown_format_error(content) from error
    except Image.DecompressionBombError as error:
        raise UnreadableError(f"more than {MOST_PIXELS:,} pixels", "make it smaller") from error
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


def refuse_large(size: tuple[int, int]) -> None:
    """Refuses an image by its header, before anything is decoded."""
    width, height = size
    if width * height > MOST_PIXELS:
        raise UnreadableError(f"{height:,} x {width:,} pixels, more than {MOST_PIXELS:,}", "make it smaller")


def unknown_format_error(content: bytes) -> UnreadableError:
    """Returns the error for bytes that no reader knows, by what they begin with."""
    start = content[:256].lstrip().lower()
    if content[4:8] == b"ftyp":  # the box that begins any file of the ISO base media format
        return UnreadableError("HEIC, AVIF or a video", "convert it to JPEG or PNG")
    for foreign in FOREIGN_FORMATS:
        if start.startswith(foreign.beginning.lower()):
            return UnreadableError(foreign.description, foreign.remedy)
    return UnreadableError(f"not an image of a kind that is read ({', '.join(FORMATS)}), or its beginning is damaged")


def header_of_image(image: Image.Image) -> Header:
    """Returns height, width and color of an open image."""
    width, height = image.size
    if image.format != "TIFF" and orientation.exif_orientation(image) >= 5:  # Pillow gives a TIFF upright
        width, height = height, width
    return Header(height, width, is_colored(image))


def is_colored(image: Image.Image) -> bool:
    """Returns whether an image is stored in color; a palette counts as what its colors are."""
    if image.mode not in ("P", "PA") or image.palette is None:
        return image.mode not in GRAY_MODES
    kind, raw = image.palette.getdata()
    levels = np.frombuffer(raw, np.uint8)
    # RGB;L is all reds, all greens, all blues; RGB, BGRX ... are the colors one after the other, a letter for a byte.
    colors = levels.reshape(3, -1).T if kind == "RGB;L" else levels.reshape(-1, len(kind))[:, :3]
    return bool((colors != colors[:, :1]).any())


def image_pixels(image: Image.Image, content: bytes, channels: int, reduction: int = 1) -> np.ndarray:  # -> (H, W, C)
    """Decodes an open image to upright pixels, uint8; the sides of a JPEG are divided by `reduction`, rounded up.

    Args:
        image: the image, opened but not loaded.
        content: all bytes of its file.
        channels: 1 or 3.
        reduction: 1, 2, 4 or 8.

    Raises:
        UnreadableError: the image is damaged. Whatever Pillow raises goes through; `use_image` turns it into this.
    """
    whole = image.size
    if reduction > 1:
        image.draft(None, (image.width // reduction, image.height // reduction))  # does nothing if not a JPEG
    stored = jpeg.decode_jpeg(content, image, whole)
    if stored is not None:
        return orientation.upright(to_channels(stored, channels), orientation.exif_orientation(image))
    # Asked before the pixels are loaded, as `exif_orientation` says. Pillow turns a TIFF upright itself.
    turn = 1 if image.format == "TIFF" else orientation.exif_orientation(image)
    image.load()
    if image.format == "PNG" and png.lacks_rows(image, content):
        raise UnreadableError("damaged (rows are missing)")
    opaque = to_eight_bits(image)
    if opaque.has_transparency_data:
        transparent = opaque.convert("RGBA")
        opaque = Image.new("RGB", transparent.size, "white")
        opaque.paste(transparent, mask=transparent.getchannel("A"))
    opaque = opaque.convert("RGB" if channels == 3 else "L")
    return orientation.upright(np.array(opaque).reshape(opaque.height, opaque.width, channels), turn)


def to_eight_bits(image: Image.Image) -> Image.Image:
    """Brings gray of 16 bits to 8 by 1/257, rounded; returns other images as they are.

    Raises:
        UnreadableError: the pixels have a range that the file does not state.
    """
    if image.mode == "F":
        raise UnreadableError("floating-point pixels of unknown range", "save it with 8 bits")
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    levels = np.asarray(image).astype(np.int32)
    # Pillow may open 16 bits as 32 (mode I): only larger or negative levels show that the file has more than 16.
    if levels.size and not 0 <= levels.min() <= levels.max() <= 65535:
        raise UnreadableError("32-bit pixels of unknown range", "save it with 8 or 16 bits")
    return Image.fromarray(((levels + 128) // 257).astype(np.uint8))


def to_channels(pixels: np.ndarray, channels: int) -> np.ndarray:  # (H, W, C) -> (H, W, channels)
    """Brings pixels to 1 or 3 channels: gray is repeated three times, colors become their luma."""
    if pixels.shape[-1] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=-1)
    return np.array(Image.fromarray(pixels).convert("L"))[..., None]


def fit_image(pixels: np.ndarray, size: tuple[int, int], fit: str) -> np.ndarray:  # (H, W, C) -> (height, width, C)
    """Brings an image to a size: the one resize of training, evaluation and prediction.

    Resizing is bilinear with antialiasing (Pillow's: the tent grows with the reduction).

    Args:
        pixels: uint8.
        size: (height, width).
        fit: "crop" takes the largest centered part of the size's proportions, which is resizing the shorter side and
            cutting out the center; "stretch" takes the whole image; "pad(127)" takes the whole image in its
            proportions, in the middle of a gray of that level (a letterbox); "pad_batch" returns the whole image at its
            own size, and only one that is larger than (height, width) is shrunk in proportion to fit.
    """
    height, width, _ = pixels.shape
    if (height, width) == size:
        return pixels
    if fit == PAD_BATCH:
        inner_size = shrink_to_fit((height, width), size)
        return pixels if inner_size == (height, width) else resize(pixels, inner_size, (0, 0, width, height))
    if fit.startswith("pad"):
        return letterbox(pixels, size, int(fit[4:-1]))
    part_height, part_width = float(height), float(width)
    if fit == "crop":
        scale = min(height / size[0], width / size[1])
        part_height, part_width = scale * size[0], scale * size[1]
    top, left = int((height - part_height) / 2), int((width - part_width) / 2)  # whole pixels: a mere crop stays exact
    return resize(pixels, size, (left, top, min(left + part_width, width), min(top + part_height, height)))


def letterbox(pixels: np.ndarray, size: tuple[int, int], gray: int) -> np.ndarray:  # (H, W, C) -> (height, width, C)
    """Puts a whole image, as large as fits, in the middle of a gray; an odd row or column of gray is below or right."""
    height, width, channels = pixels.shape
    scale = min(size[0] / height, size[1] / width)
    inner_height, inner_width = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (size[0] - inner_height) // 2, (size[1] - inner_width) // 2
    canvas = np.full((*size, channels), gray, np.uint8)
    inner = resize(pixels, (inner_height, inner_width), (0, 0, width, height))
    canvas[top : top + inner_height, left : left + inner_width] = inner
    return canvas


def resize(
    pixels: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float]
) -> np.ndarray:  # (H, W, C) -> (height, width, C)
    """Brings a part (left, top, right, bottom) of an image, in pixels and fractions of them, to a size."""
    channels = pixels.shape[-1]
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    return np.array(image.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box)).reshape(*size, channels)
