"""The bytes of an image file -> pixels: the only place that decodes (a plain JPEG with `jpeg`), and that resizes.

The same pixels in another container give the same array. Animations give their first frame, 16 bits become 8 by 1/257,
EXIF orientation is applied, and what is transparent lies on white. Gray is ITU-R 601 luma, as Pillow computes it; a
color image whose three channels agree has exactly that gray.
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
TEXTS = (b"P1", b"P2", b"P3")  # beginnings of PPM written as text
SLOW = {"ppm_plain": "pixels as text", "bmp_rle": "run lengths"}  # codecs of Pillow, and what they read
MOST_SLOW = 10_000_000  # bytes of such a file
MOST_READS = 500_000  # that a reader may make of a file; a whole one takes a few thousand
GRAY = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L"}  # modes of Pillow without color
OTHERS = (
    (b"version https://git-lfs", "a pointer of git-lfs, not the image", "run git lfs pull"),
    (b"%PDF", "a PDF", "export its pages as PNG or JPEG"),
    (b"%!PS", "PostScript", "export it as PNG or JPEG"),
    (b"<!doctype html", "a page of HTML, perhaps what a server answered instead", "download it again"),
    (b"<html", "a page of HTML, perhaps what a server answered instead", "download it again"),
    (b"<svg", "a drawing of vectors (SVG)", "export it as PNG"),
    (b"<?xml", "XML, perhaps a drawing of vectors (SVG)", "export it as PNG"),
    (b"PK\3\4", "a zip archive", "unpack it"),
    (b"8BPS", "a Photoshop file", "export it as PNG or JPEG"),
)  # beginnings of what bears an image's name and is none, lower case
REMEDY_LARGE = "replace it or take it away"

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # MOST_PIXELS is stricter
warnings.filterwarnings("ignore", module=r"PIL\.")  # of damaged notes; damaged pixels are errors


class UnreadableError(UserError):
    """A file that is no image we read: why, and what to do."""

    def __init__(self, reason: str, remedy: str = REMEDY_LARGE):
        super().__init__(f"{reason}; {remedy}")
        self.reason = reason
        self.remedy = remedy

    def bare(self) -> "UnreadableError":
        """The same to be kept: not the way that it came, which holds all bytes of the file."""
        return UnreadableError(self.reason, self.remedy)


class Pieces(io.BytesIO):
    """A file's bytes for Pillow, whose readers look through junk byte by byte: 90 MB of it took up to half a minute."""

    reads, most = 0, MOST_READS

    def read(self, size: int | None = -1, /) -> bytes:
        """Some of the bytes.

        Raises:
            UnreadableError: that was asked too often.
        """
        self.reads += 1
        if self.reads > self.most:
            raise UnreadableError("damaged (its parts come to no end)")
        return super().read(size)


class Header(NamedTuple):
    """What a file says of its image before it is decoded.

    Attributes:
        height: pixels, as it stands upright.
        width: pixels.
        colored: whether it is stored in color; a palette of grays is none.
    """

    height: int
    width: int
    colored: bool


def read_header(content: bytes) -> Header:
    """Reads a header, from the beginning of a file or from all of it.

    Raises:
        UnreadableError: it is no image of FORMATS, or too large.
    """
    return use_image(content, header_of_image)


def decode(content: bytes, *, channels: int) -> np.ndarray:  # -> (H, W, C)
    """Decodes a file.

    Args:
        content: all its bytes.
        channels: 1 or 3.

    Returns:
        Pixels, uint8, upright.

    Raises:
        UnreadableError: it is no image of FORMATS, too large, or damaged.
    """
    return use_image(content, lambda image: image_pixels(image, content, channels))


def inspect_file(content: bytes) -> Header:
    """The header of a file that can be decoded; errors as of `decode`."""

    def use(image: Image.Image) -> Header:
        found = header_of_image(image)
        image_pixels(image, content, 3)
        return found

    return use_image(content, use)


def use_image(content: bytes, use: Callable[[Image.Image], object]):
    """Opens an image and uses it; whatever Pillow raises is one of ours."""
    if not content:
        raise UnreadableError("empty, 0 bytes")
    if content[:2] in TEXTS:
        refuse_slow("ppm_plain", len(content))
    try:
        pieces = Pieces(strip_comments(content))
        with Image.open(pieces, formats=FORMATS) as image:
            refuse_large(image.size)
            if image.tile and (codec := image.tile[0][0]) in SLOW:
                refuse_slow(codec, len(content))
                pieces.most += 2 * MOST_SLOW  # these are read byte by byte
            return use(image)
    except UnreadableError:
        raise
    except Image.UnidentifiedImageError as error:
        raise unknown_format_error(content) from error
    except Image.DecompressionBombError as error:
        raise UnreadableError(f"more than {MOST_PIXELS:,} pixels", "make it smaller") from error
    except MemoryError as error:
        raise UnreadableError("more memory is asked for than there is", "make it smaller") from error
    except Exception as error:  # Pillow's readers raise nearly anything over damaged bytes
        said = " ".join(str(error).split())[:120] or type(error).__name__
        raise UnreadableError(f"damaged ({said})") from error


def strip_comments(content: bytes) -> bytes:
    """An image written as text without its comments, any other as it is.

    Pillow looks through all that is left of a block for each comment: 3 MB of them took half a minute.
    """
    return re.sub(rb"#[^\r\n]*", b"", content) if content[:2] in TEXTS else content


def refuse_slow(codec: str, size: int) -> None:
    """Refuses a large file of the kinds, keys of SLOW, that Pillow reads in Python, a microsecond or so a byte."""
    if size > MOST_SLOW:
        raise UnreadableError(f"{size:,} bytes of {SLOW[codec]}, more than {MOST_SLOW:,}", "save it as PNG")


def refuse_large(size: tuple[int, int]) -> None:
    """Refuses an image by its header, before anything is decoded."""
    width, height = size
    if width * height > MOST_PIXELS:
        raise UnreadableError(f"{height:,} x {width:,} pixels, more than {MOST_PIXELS:,}", "make it smaller")


def unknown_format_error(content: bytes) -> UnreadableError:
    """The error for bytes that no reader knows, by what they begin with."""
    start = content[:256].lstrip().lower()
    if content[4:8] == b"ftyp":
        return UnreadableError("HEIC, AVIF or a film", "convert it to JPEG or PNG")
    for beginning, what, remedy in OTHERS:
        if start.startswith(beginning.lower()):
            return UnreadableError(what, remedy)
    return UnreadableError(f"no image of a kind that is read ({', '.join(FORMATS)}), or its beginning is damaged")


def header_of_image(image: Image.Image) -> Header:
    """Height, width and color of an open image."""
    width, height = image.size
    if image.format != "TIFF" and orientation.exif_orientation(image) >= 5:  # Pillow gives a TIFF upright
        width, height = height, width
    return Header(height, width, is_colored(image))


def is_colored(image: Image.Image) -> bool:
    """Whether an image is stored in color."""
    if image.mode in ("P", "PA") and image.palette is not None:
        kind, raw = image.palette.getdata()  # RGB, BGRX ...; RGB;L is all reds, all greens, all blues
        levels = np.frombuffer(raw, np.uint8)
        colors = levels.reshape(3, -1).T if kind == "RGB;L" else levels.reshape(-1, len(kind))[:, :3]
        return bool((colors != colors[:, :1]).any())
    return image.mode not in GRAY


def image_pixels(image: Image.Image, content: bytes, channels: int, reduction: int = 1) -> np.ndarray:  # -> (H, W, C)
    """Pixels of an open image, uint8, upright; the sides of a JPEG divided by 1, 2, 4 or 8, rounded up."""
    whole = image.size
    if reduction > 1:
        image.draft(None, (image.width // reduction, image.height // reduction))  # nothing where it is no JPEG
    stored = jpeg.decode_jpeg(content, image, whole)
    if stored is not None:
        return orientation.upright(to_channels(stored, channels), orientation.exif_orientation(image))
    turn = 1 if image.format == "TIFF" else orientation.exif_orientation(image)  # Pillow gives a TIFF upright
    image.load()
    if image.format == "PNG" and png.lacks_rows(image, content):
        raise UnreadableError("damaged (rows are missing)")
    flat = to_eight_bits(image)
    if flat.has_transparency_data:
        over = flat.convert("RGBA")
        flat = Image.new("RGB", flat.size, "white")
        flat.paste(over, mask=over.getchannel("A"))
    flat = flat.convert("RGB" if channels == 3 else "L")
    return orientation.upright(np.array(flat).reshape(flat.height, flat.width, channels), turn)


def to_eight_bits(image: Image.Image) -> Image.Image:
    """Gray of 16 bits as 8, by 1/257; other images as they are.

    Raises:
        UnreadableError: pixels of a range that nobody states.
    """
    if image.mode == "F":
        raise UnreadableError("floating-point pixels, whose range nobody states", "save it with 8 bits")
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    levels = np.asarray(image).astype(np.int32)
    if levels.size and not 0 <= levels.min() <= levels.max() <= 65535:
        raise UnreadableError("pixels of 32 bits, whose range nobody states", "save it with 8 or 16 bits")
    return Image.fromarray(((levels + 128) // 257).astype(np.uint8))


def to_channels(pixels: np.ndarray, channels: int) -> np.ndarray:  # (H, W, C) -> (H, W, channels)
    """Pixels with 1 or 3 channels: gray three times, or the luma of colors."""
    if pixels.shape[-1] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=-1)
    return np.array(Image.fromarray(pixels).convert("L"))[..., None]


def fit_image(pixels: np.ndarray, size: tuple[int, int], how: str) -> np.ndarray:  # (H, W, C) -> (height, width, C)
    """Pixels at a size: the one resize of training, evaluation and prediction.

    Bilinear with antialiasing (Pillow's: the tent grows with the reduction), over the part that is kept.

    Args:
        pixels: uint8.
        size: (height, width).
        how: "crop" keeps the largest centered part of the size's proportions, which is resizing the shorter side and
            keeping the center; "stretch" keeps all; "pad(127)" keeps all and its proportions, in the middle of a gray
            of that level (a letterbox); "pad_batch" keeps all, its proportions and its own size, which is given, but
            where it is larger than (height, width): as large as fits then.
    """
    height, width, _ = pixels.shape
    if (height, width) == size:
        return pixels
    if how == PAD_BATCH:
        inner = shrink_to_fit((height, width), size)
        return pixels if inner == (height, width) else resize(pixels, inner, (0, 0, width, height))
    if how.startswith("pad"):
        return letterbox(pixels, size, int(how[4:-1]))
    kept_height, kept_width = float(height), float(width)
    if how == "crop":
        scale = min(height / size[0], width / size[1])
        kept_height, kept_width = scale * size[0], scale * size[1]
    top, left = int((height - kept_height) / 2), int((width - kept_width) / 2)  # whole pixels: a mere crop stays exact
    return resize(pixels, size, (left, top, min(left + kept_width, width), min(top + kept_height, height)))


def letterbox(pixels: np.ndarray, size: tuple[int, int], gray: int) -> np.ndarray:  # (H, W, C) -> (height, width, C)
    """All of an image, as large as fits, in the middle of a gray; an odd row or column of it lies below or right."""
    height, width, channels = pixels.shape
    scale = min(size[0] / height, size[1] / width)
    inner = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    found = np.full((*size, channels), gray, np.uint8)
    found[top : top + inner[0], left : left + inner[1]] = resize(pixels, inner, (0, 0, width, height))
    return found


def resize(
    pixels: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float]
) -> np.ndarray:  # (H, W, C) -> (height, width, C)
    """A part (left, top, right, bottom) of an image at a size."""
    channels = pixels.shape[-1]
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    return np.array(image.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box)).reshape(*size, channels)
