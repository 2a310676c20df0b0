"""Images that a caller of this package gives as they are: arrays, and images that Pillow has opened or made."""

import io
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from cnn_vit.data.base.parts import DecodingOptions
from cnn_vit.data.decode import images
from cnn_vit.data.decode.images import DecodedImage, UnreadableError
from cnn_vit.errors import UserError

MULTIPLE = "MPO"  # what Pillow calls a JPEG with more images behind the first one
FORMATS = (*images.FORMATS, MULTIPLE)


def decode_caller_image(image: Any, where: str, *, channels: int | None, options: DecodingOptions) -> DecodedImage:
    """Decodes an image that a caller gives. Its pixels are an array of their own.

    Args:
        image: an array of uint8, (H, W), (H, W, 1) or (H, W, 3), or a Pillow image of any mode.
        where: which image it is, as an error names it.
        channels: 1 or 3; None: as the image is.
        options: what the settings say of decoding.

    Raises:
        UserError: it is neither, or is refused as a file would be.
    """
    if not isinstance(image, Image.Image):
        pixels = check_array(image, where)
        return DecodedImage(pixels if channels is None else images.to_channels(pixels, channels))
    try:
        with images.pillow_errors(b"", options):
            content = read_unloaded(image)
            if content is not None:
                return images.decode_image(content, channels=channels, options=options)
            images.refuse_large(image.size, options)
            return images.image_pixels(image, None, channels, options)
    except UnreadableError as error:
        raise UserError(f"{where} cannot be read: {error}") from error


def read_unloaded(image: Image.Image) -> bytes | None:
    """Returns the bytes of the file of an image that was opened and not loaded yet, else None.

    It is then read like any file, and the caller's image stays as it is. None also where its reader was told to give
    another frame or size, or is one that is never asked here.
    """
    if not isinstance(image, ImageFile.ImageFile) or image.format not in FORMATS:
        return None
    if not image.tile or image.fp is None or image.tell() != 0:
        return None
    position = image.fp.tell()
    image.fp.seek(0)
    content = image.fp.read()
    image.fp.seek(position)
    with Image.open(io.BytesIO(content), formats=images.FORMATS) as opened:
        is_unchanged = (opened.size, opened.mode) == (image.size, image.mode)
    return content if is_unchanged else None


def check_array(image: Any, where: str) -> np.ndarray:  # -> (H, W, C)
    """Returns an array of pixels as one of its own, for a caller may fill the same one again and again.

    Raises:
        UserError: it does not hold one image of uint8.
    """
    pixels = np.array(image)
    if pixels.dtype != np.uint8:
        is_float = pixels.dtype.kind == "f"
        remedy = "; for values 0 to 1 give (255 * image).round().astype(numpy.uint8)" if is_float else ""
        raise UserError(f"{where} is {pixels.dtype}; it must be an array of uint8, 0 to 255{remedy}")
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3) or not pixels.size:
        raise UserError(f"{where} has the shape {np.shape(image)}; it must be (H, W), (H, W, 1) or (H, W, 3)")
    return pixels
