"""How an image stands: its EXIF orientation, and the pixels turned as it says."""

import numpy as np
from PIL import Image

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # what undoes an EXIF orientation (tag 274)
ORIENTATION = 274


def exif_orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8, that stands before the pixels; 1 where it is damaged or missing.

    To be asked before the pixels are loaded: a PNG may have one behind them, which a look at its header cannot see.
    """
    try:
        found = Image.Image.getexif(image).get(ORIENTATION, 1)  # PNG's own getexif loads the pixels to look behind them
    except Exception:  # the pixels are whole even where the notes on them are not
        return 1
    return found if found in TURNS else 1


def upright(pixels: np.ndarray, turn: int) -> np.ndarray:  # (H, W, C) -> (H, W, C) or (W, H, C)
    """Stored pixels as an EXIF orientation shows them."""
    if turn not in TURNS:
        return pixels
    channels = pixels.shape[-1]
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels).transpose(TURNS[turn])
    return np.array(image).reshape(image.height, image.width, channels)
