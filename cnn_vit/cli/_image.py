"""What the commands share that walk through one image: a file of the user's, or a handwritten digit.

This file imports no jax, so that the help of these commands answers at once.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from cnn_vit.errors import SurroundingsError, UserError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image


def read_digit(label: int) -> tuple["np.ndarray", str]:
    """Reads the first handwritten digit of a class, (8, 8) in 0..1, and says what it is."""
    from cnn_vit.data.sources import digits

    levels, labels = digits.read_table()
    number = list(labels).index(label)
    return levels[number].reshape(8, 8) / 16, f"number {number} of scikit-learn's handwritten digits"


def read_image(path: str, side: int, *, channels: int = 1) -> tuple["np.ndarray", str]:
    """Reads an image file as pixels (side, side, channels) in 0..1, its middle brought to that size.

    Args:
        path: of the file.
        side: pixels of the square.
        channels: 1 for gray, 3 for colors.

    Returns:
        The pixels, and what they are in words.

    Raises:
        UserError: there is none, or it cannot be decoded.
    """
    from cnn_vit.data.decode import images, refusals

    if Path(path).is_dir():
        raise UserError(f"{path} is a folder; name one image in it")
    if not Path(path).is_file():
        raise UserError(f"there is no image {path}; leave IMAGE out for a handwritten digit")
    try:
        content = Path(path).read_bytes()
        pixels = images.decode(content, channels=channels)
        left_out = images.use_image(content, describe_rest)
    except OSError as error:
        raise SurroundingsError(f"{path} cannot be read ({error.strerror}); change its rights") from error
    except refusals.UnreadableError as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    fitted = images.fit_image(pixels, (side, side), "crop")
    colors = "in gray" if channels == 1 else "in color"
    return fitted / 255, f"{Path(path).name}, its middle {colors} at {side} x {side} pixels{left_out}"


def describe_rest(image: "Image.Image") -> str:
    """Returns what of an open image file is not looked at, as the end of a phrase: transparency, other frames."""
    rest = ""
    if image.has_transparency_data:
        rest += ", without its transparency"
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        rest += f", the first of {frames} frames"
    return rest
