"""What a TIFF says of its samples, where Pillow does not look or keeps silent. TIFF 6.0, Adobe 1992.

Importing this file silences libtiff, which writes about damage to stderr by itself; what is wrong with a file, the
error says.
"""

import contextlib
import ctypes
import io
import logging

from PIL import Image, TiffImagePlugin, _imaging

SUBFILE_KIND, BITS, PHOTOMETRIC, SAMPLES, PLANAR, EXTRA_SAMPLES, SAMPLE_FORMAT = 254, 258, 262, 277, 284, 338, 339
REDUCED = 1  # bit of SUBFILE_KIND: the image is a small version of another one in the file
WHITE_IS_ZERO = 0  # of PHOTOMETRIC
COLOR_SAMPLES = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}  # samples of a pixel's color by PHOTOMETRIC
OPACITY = {1, 2, 999}  # of EXTRA_SAMPLES; 999 is Corel Draw's
IN_PLANES = 2  # of PLANAR
NUMBERS = {1: "integers", 2: "signed integers", 3: "floating-point numbers"}  # by SAMPLE_FORMAT
NOT_READ = ("unknown pixel mode", "unknown data organization", "Invalid value for samples per pixel")  # Pillow's words
MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
REMEDY = "save it as gray or RGB with 8 or 16 bits, as TIFF or PNG"
ErrorHandler = ctypes.c_void_p


def silence() -> None:
    """Takes away libtiff's handler of errors, which prints, in the very library that Pillow has loaded.

    Warnings Pillow silences itself. Where the library cannot be reached, its lines stay; nothing else depends on it.
    """
    # The handle of Pillow's own module: names are looked up in it and in the libraries that it was linked with.
    with contextlib.suppress(OSError, AttributeError):
        set_handler = ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler
        set_handler.argtypes, set_handler.restype = [ErrorHandler], ErrorHandler
        set_handler(None)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # it logs some of its errors before it raises them


silence()


def is_white_zero(image: Image.Image) -> bool:
    """Returns whether the levels of an open TIFF fall from black to white and Pillow gives them as they are stored.

    It turns levels of up to 8 bits round by itself.
    """
    if not isinstance(image, TiffImagePlugin.TiffImageFile) or not image.mode.startswith("I;16"):
        return False
    return image.tag_v2.get(PHOTOMETRIC, WHITE_IS_ZERO) == WHITE_IS_ZERO


def highest_stored(image: Image.Image) -> int:
    """Returns the level that is white in an open image of more than 8 bits, as its file says it: 4095 for 12 bits."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 65535
    bits = image.tag_v2.get(BITS, (16,))
    return 4095 if bits[0] == 12 else 65535


def find_problem(image: Image.Image) -> str | None:
    """Returns why an open TIFF would be read wrongly, or None.

    Pillow passes over bands whose meaning the file does not say, takes a fourth one for opacity where it says nothing,
    gives the small preview that a camera's raw file begins with, and reads planes of 16 bits as if they had 8.
    """
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return None
    tags = image.tag_v2
    if tags.get(SUBFILE_KIND, 0) & REDUCED:
        return "a TIFF that begins with a small preview, as raw files of cameras do"
    count = tags.get(SAMPLES, 1)
    colors = COLOR_SAMPLES.get(tags[PHOTOMETRIC], count) if PHOTOMETRIC in tags else count
    extra = tuple(tags.get(EXTRA_SAMPLES, ()))
    if count > colors and not (len(extra) == count - colors == 1 and extra[0] in OPACITY):
        return f"a TIFF of {count} bands, {count - colors} of them beside gray or colors"
    if count > 1 and tags.get(PLANAR) == IN_PLANES and max(tags.get(BITS, (1,))) > 8:
        return "a TIFF of 16-bit colors in planes of their own"
    return None


def describe(content: bytes) -> str | None:
    """Returns what a TIFF is that Pillow does not read, such as one of five bands; None for bytes that are no TIFF."""
    if not content.startswith(MARKS):
        return None
    image = TiffImagePlugin.TiffImageFile.__new__(TiffImagePlugin.TiffImageFile)
    try:
        image.__init__(io.BytesIO(content))  # type: ignore[misc]
    except SyntaxError as error:
        if str(error) not in NOT_READ:
            return None
    except Exception:  # whatever else damaged bytes raise
        return None
    tags = image.tag_v2
    count, bits = tags.get(SAMPLES, 1), tags.get(BITS, (1,))[0]
    kind = NUMBERS.get(tags.get(SAMPLE_FORMAT, (1,))[0], "numbers of another kind")
    bands = f"{count} bands" if count > 1 else "one band"
    return f"a TIFF of {bands} of {bits}-bit {kind}, which is not read"
