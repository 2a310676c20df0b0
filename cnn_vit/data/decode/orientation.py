"""How an image stands: its EXIF orientation, and its pixels turned as that says."""

import numpy as np
from PIL import Image

ORIENTATION = 274  # the EXIF tag
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # orientation -> the change that puts the stored pixels upright; 1 needs none


def exif_orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation, 1 to 8, that a file has before its pixels; 1 where it is damaged or missing.

    Call this before the pixels are loaded: a PNG may have an orientation behind them, which reading its header alone
    cannot see.
    """
    try:
        # Not image.getexif(): that of a PNG loads the pixels to look behind them.
        orientation = Image.Image.getexif(image).get(ORIENTATION, 1)
    except Exception:  # the pixels may be whole even where the metadata is not
        return 1
    return orientation if orientation in TURNS else 1


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:  # (H, W, C) -> (H, W, C) or (W, H, C)
    """Turns stored pixels upright, as an EXIF orientation asks for."""
    if orientation not in TURNS:
        return pixels
    channels = pixels.shape[-1]
    if channels > 1 and pixels.dtype != np.uint8:  # which Pillow holds only band by band
        bands = [upright(pixels[..., band : band + 1], orientation) for band in range(channels)]
        return np.concatenate(bands, axis=-1)
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels).transpose(TURNS[orientation])
    return np.array(image).reshape(image.height, image.width, channels)
