"""Random boxes of training images, cut on the host out of the file's own pixels, and brought to the image size.

Set by `data.random_crop`. Every time an image is trained on, its file is decoded and another box of it is taken: a
look at the finest detail that there is, where `resized_crop` of `data.augment` enlarges parts of images that were
brought to the image size before. Validation and test are read as `data.fit` says.

Chance: row r of the batch of update k has four numbers of its own, from (seed, k, r) alone; no thread, host or
neighbor has a part in them. Whether the other splits fit into memory changes nothing: a split that is cut is never kept
decoded.

Of a JPEG whose box has at least twice, four or eight times the rows and columns that are wanted, only every second,
fourth or eighth is decoded, as the format allows: means of squares of pixels, about. Which it is follows from the box.
"""

import hashlib
import math
import operator
from collections.abc import Callable

import numpy as np
from PIL import Image

from cnn_vit.data.decode import images, orientation

ASPECT = 4 / 3  # of a box, at most this wide and at most this high: Szegedy et al., arXiv:1409.4842, section 6
NUMBERS = 4  # of a row: area, proportions, place down and across
REDUCTIONS = (8, 4, 2)  # of a JPEG, by its format

Box = tuple[float, float, float, float]


def crop_numbers(seed: int, update: int, rows: int) -> np.ndarray:
    """Even numbers in [0, 1), (rows, 4) float64, of one update's global batch: Philox of (seed, update).

    Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011. A row's numbers do not depend on how many rows
    there are.
    """
    word = hashlib.blake2b(f"crops {operator.index(seed)}".encode(), digest_size=8).digest()
    bits = np.random.Philox(key=np.array([int.from_bytes(word, "little"), update], np.uint64))
    return (bits.random_raw(rows * NUMBERS) >> np.uint64(11)).reshape(rows, NUMBERS) * 2.0**-53


def crop_box(height: int, width: int, numbers: np.ndarray, *, min_area: float, max_area: float) -> Box:
    """The (left, top, right, bottom) that four numbers in [0, 1) mean in an image of a size; all are real numbers.

    The law of `warp.resized_crop`: an even share of the area from `min_area` to `max_area`, a width-to-height ratio
    from 3/4 to 4/3, even in its logarithm, and an even place. Only ratios whose box fits are drawn; of an image so
    long that none does, the box takes the whole of the shorter side and less than its area.
    """
    area = (min_area + numbers[0] * (max_area - min_area)) * height * width
    limit = math.log(ASPECT)
    narrowest = min(max(math.log(area / height**2), -limit), limit)  # the box as high as the image
    widest = min(max(math.log(width**2 / area), -limit), limit)
    ratio = math.exp(narrowest + numbers[1] * (widest - narrowest))
    tall, wide = min(math.sqrt(area / ratio), height), min(math.sqrt(area * ratio), width)
    top, left = numbers[2] * (height - tall), numbers[3] * (width - wide)
    return left, top, min(left + wide, width), min(top + tall, height)


def read_crop(
    content: bytes, size: tuple[int, int], *, channels: int, place: Callable[[int, int], Box]
) -> np.ndarray:  # -> (height, width, C)
    """A part of an image file at a size.

    Args:
        content: all its bytes.
        size: (height, width).
        channels: 1 or 3.
        place: (height, width) of the image, upright -> the box (left, top, right, bottom) in it.

    Raises:
        UnreadableError: as `images.decode`.
    """

    def use(image: Image.Image) -> np.ndarray:
        whole = images.header_of_image(image)
        left, top, right, bottom = place(whole.height, whole.width)
        spare = min((bottom - top) / size[0], (right - left) / size[1])
        by = next((one for one in REDUCTIONS if one <= spare), 1) if image.format == "JPEG" else 1
        down, across = beyond(whole, by, orientation.exif_orientation(image))
        pixels = images.image_pixels(image, content, channels, by)
        part = left / by + across, top / by + down, right / by + across, bottom / by + down
        return images.resize(pixels, size, part)

    return images.use_image(content, use)


def beyond(whole: images.Header, by: int, orientation: int) -> tuple[float, float]:
    """Where the image begins in its reduced pixels (down, across): what the last one has beyond it, if it is first.

    Of 13 columns two by two the seventh pixel holds half a column; turned by half, the image begins within it.
    """
    sides = ((whole.height, orientation in (3, 4, 7, 8)), (whole.width, orientation in (2, 3, 6, 7)))
    down, across = (-side % by / by if mirrored else 0.0 for side, mirrored in sides)
    return down, across
