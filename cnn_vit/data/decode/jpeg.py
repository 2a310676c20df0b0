"""JPEG files read by simplejpeg, where it is installed, in about half of Pillow's time (224 pixels: 0.23 for 0.45 ms).

Both call libjpeg-turbo with the same settings (exact cosine transform, smooth upsampling), so that the pixels are the
same to the bit, reduced or not; a Pillow built on another libjpeg may differ by a few levels. Whatever is not a plain
gray or color JPEG without a flaw is left to Pillow, so that the same files are read, and refused in the same words,
with and without simplejpeg.
"""

import numpy as np
from PIL import Image

from cnn_vit.errors import unknown

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

VERSION = f"+{simplejpeg.__version__}" if simplejpeg else ""  # follows Pillow's in the names of cached pixels
FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers that begin a frame header; ISO/IEC 10918-1, B.1.1.3
COLORS = {"L": "GRAY", "RGB": "RGB"}  # modes of Pillow that simplejpeg reads alike, and its names of them


def decode_jpeg(content: bytes, image: Image.Image, whole: tuple[int, int]) -> np.ndarray | None:  # -> (H, W, 1 or 3)
    """Decodes a JPEG as it is stored, to the size that Pillow would give.

    Args:
        content: all bytes of the file.
        image: the same file, opened by Pillow and perhaps told to reduce it (`draft`), but not loaded.
        whole: its (width, height) without reduction.

    Returns:
        The pixels, uint8, or None where Pillow is to read them.
    """
    if simplejpeg is None or image.format != "JPEG" or image.mode not in COLORS:
        return None
    reduction = {} if image.size == whole else {"min_height": image.height, "min_width": image.width}
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(content)
        if (width, height) != whole:
            return None
        pixels = simplejpeg.decode_jpeg(content, COLORS[image.mode], strict=True, **reduction)
    except Exception:  # Pillow says what is wrong, if anything is
        return None
    return pixels if pixels.shape[1::-1] == image.size else None  # a reduction that Pillow rounds otherwise


def count_bits(content: bytes) -> int | None:
    """Returns the bits of a sample that a JPEG's frame header states; None for bytes without such a header."""
    start = 2  # behind the mark of a beginning
    while content[start : start + 1] == b"\xff" and start + 5 <= len(content):
        if content[start + 1] in FRAMES:
            return content[start + 4]
        start += 2 + int.from_bytes(content[start + 2 : start + 4], "big")
    return None


DECODERS = ("fastest", "pillow")
INSTALLED = simplejpeg  # None where simplejpeg is not installed


def use_decoder(name: str) -> str:
    """Chooses what decodes plain JPEG files in this process from now on. Without a call it is the fastest decoder.

    Choose before data are loaded: what is decoded already stays. `VERSION` changes too, so that the decoded images
    that are kept on disk come from the decoder in use.

    Args:
        name: "fastest" for simplejpeg where it is installed, else Pillow; "pillow" for Pillow in any case.

    Returns:
        The decoder in use, such as "simplejpeg 1.8.2" or "Pillow".

    Raises:
        UserError: there is no such name.
    """
    global simplejpeg, VERSION
    if name not in DECODERS:
        raise unknown("JPEG decoder", name, DECODERS)
    simplejpeg = INSTALLED if name == "fastest" else None
    if simplejpeg is None:
        VERSION = ""
        return "Pillow"
    VERSION = f"+{simplejpeg.__version__}"
    return f"simplejpeg {simplejpeg.__version__}"
