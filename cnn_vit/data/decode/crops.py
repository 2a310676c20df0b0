"""Random boxes of training images, cut on the host out of the file's own pixels and brought to the image size.

Set by `data.random_crop`. Each time an image is trained on, its file is decoded and another box is cut out of it: the
network sees the finest detail that there is, where `resized_crop` of `data.augment` enlarges parts of images that were
brought to the image size before. Validation and test images are read as `data.fit` says.

Randomness: row r of the batch of update k has four numbers of its own, which follow from (seed, k, r) alone; no thread,
host or neighbor has a part in them. Whether the other splits fit into memory changes nothing: a split whose images are
cut is never held decoded.

Of a JPEG whose box has at least twice, four or eight times the rows and columns that are wanted, only every second,
fourth or eighth row and column is decoded, as the format allows: these are the means of squares of pixels, about. Which
of the three it is follows from the box.
"""

import hashlib
import math
import operator
from collections.abc import Callable

import numpy as np
from PIL import Image

from cnn_vit.data.base.parts import DecodingOptions
from cnn_vit.data.decode import images, orientation

BOX_RATIO = 4 / 3  # of a box's sides, wide or high, at most: Szegedy et al., arXiv:1409.4842, section 6
NUMBERS_PER_ROW = 4  # they decide on area, proportions, place down and place across
REDUCTIONS = (8, 4, 2)  # that the format of JPEG allows

Box = tuple[float, float, float, float]  # (left, top, right, bottom) in pixels, as Pillow takes it


def crop_numbers(seed: int, update: int, rows: int) -> np.ndarray:
    """Draws even numbers in [0, 1), (rows, 4) float64, for one update's global batch: Philox of (seed, update).

    Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011. A row's numbers do not depend on how many rows
    there are.
    """
    word = hashlib.blake2b(f"crops {operator.index(seed)}".encode(), digest_size=8).digest()
    generator = np.random.Philox(key=np.array([int.from_bytes(word, "little"), update], np.uint64))
    raw = generator.random_raw(rows * NUMBERS_PER_ROW)
    return (raw >> np.uint64(11)).reshape(rows, NUMBERS_PER_ROW) * 2.0**-53  # 53 bits: as many as a float64 holds


def crop_box(height: int, width: int, numbers: np.ndarray, *, min_area: float, max_area: float) -> Box:
    """Returns the box that four numbers in [0, 1) choose in an image of this size; its sides are real numbers.

    The rule is that of `geometry.resized_crop`: a share of the area that is even from `min_area` to `max_area`; a
    width-to-height ratio from 3/4 to 4/3, even in its logarithm; and an even place. Only ratios whose box fits are
    drawn; in an image so long that none does, the box takes the whole of the shorter side and less than its area.
    """
    area = (min_area + numbers[0] * (max_area - min_area)) * height * width
    limit = math.log(BOX_RATIO)
    narrowest = min(max(math.log(area / height**2), -limit), limit)  # logarithm of the ratio: as high as the image
    widest = min(max(math.log(width**2 / area), -limit), limit)  # as wide as the image
    ratio = math.exp(narrowest + numbers[1] * (widest - narrowest))
    box_height, box_width = min(math.sqrt(area / ratio), height), min(math.sqrt(area * ratio), width)
    top, left = numbers[2] * (height - box_height), numbers[3] * (width - box_width)
    return left, top, min(left + box_width, width), min(top + box_height, height)


def read_crop(
    content: bytes,
    size: tuple[int, int],
    *,
    channels: int,
    choose_box: Callable[[int, int], Box],
    options: DecodingOptions = images.DEFAULTS,
    interpolation: str = "bilinear",
) -> np.ndarray:  # -> (height, width, C)
    """Reads a box of an image file and brings it to a size.

    Args:
        content: all bytes of the file.
        size: (height, width) of what is returned.
        channels: 1 or 3.
        choose_box: (height, width) of the upright image -> the box in it.
        options: what the settings say of decoding.
        interpolation: as in `images.resize`.

    Raises:
        UnreadableError: as `images.decode_image`.
    """

    def cut_box(image: Image.Image) -> np.ndarray:
        header = images.header_of_image(image)
        left, top, right, bottom = choose_box(header.height, header.width)
        reduction = 1
        if image.format == "JPEG":
            spare = min((bottom - top) / size[0], (right - left) / size[1])
            reduction = next((factor for factor in REDUCTIONS if factor <= spare), 1)
        down, across = reduced_origin(header, reduction, orientation.exif_orientation(image))
        pixels = images.image_pixels(image, content, channels, options, reduction).pixels
        part = left / reduction + across, top / reduction + down, right / reduction + across, bottom / reduction + down
        return images.resize(pixels, size, part, interpolation)

    return images.use_image(content, cut_box, options)


def reduced_origin(header: images.Header, reduction: int, exif_orientation: int) -> tuple[float, float]:
    """Returns where the upright image begins in its reduced pixels, (down, across), in reduced pixels.

    Where a side is not a multiple of the reduction, its last reduced pixel reaches beyond the image: of 13 columns two
    by two the seventh pixel holds half a column. The image begins at 0, unless the orientation puts that last pixel
    first: turned by half, the image begins in the middle of it.
    """
    down, across = 0.0, 0.0
    if exif_orientation in (3, 4, 7, 8):  # the last stored row, or column, is at the top
        down = -header.height % reduction / reduction
    if exif_orientation in (2, 3, 6, 7):  # the last stored column, or row, is at the left
        across = -header.width % reduction / reduction
    return down, across
