"""Images of several sizes in one data set, none of them cropped: the padded sizes that their batches have.

This file serves `data.fit=pad_batch`. Each image has its own size and stands in the top left corner of a larger canvas,
which is black elsewhere; a mask says which pixels of the canvas belong to the image. A bucket is one padded size. Each
batch has the smallest bucket that holds all its images; there are at most eight, fixed when the data is read, and the
first batch of each compiles the step once more. The largest bucket is the image size and holds every image, because
larger images are shrunk. The others are chosen for what batches of this size need: of 128 photos, some upright and some
not, nearly every batch needs the largest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PAD_BATCH = "pad_batch"  # the value of `data.fit` that leaves images their own sizes
MOST_BUCKETS = 8
BUCKET_STEP = 8  # pixels; the sides of every bucket but the largest are multiples of it
SAMPLED_BATCHES = 256  # batches drawn to see which sizes they need
MOST_SAMPLED = 1024  # single images looked at, and images drawn for one sampled batch, at most
EVALUATION_COST = 1 / 30  # of an image, over that of training on one: a tenth as many images, no backward pass
LEAST_SAVING = 0.01  # share of all padded pixels that a further bucket must save to be worth its compilation

Size = tuple[int, int]  # (height, width) in pixels


@dataclass(frozen=True)
class PaddedSizes:
    """The sizes of a split's images, and the padded sizes that its batches may have.

    Attributes:
        image_sizes: (N, 2) int32, height and width of each image, which stands in the top left corner of what is read.
        buckets: the padded sizes of batches, ordered by their area; the last one holds every image.
    """

    image_sizes: np.ndarray
    buckets: tuple[Size, ...]

    def bucket_for(self, examples: np.ndarray) -> Size:
        """Returns the smallest bucket that holds all images of these examples, (n,) indices."""
        largest_sides = self.image_sizes[examples].max(axis=0, keepdims=True)  # (1, 2)
        (bucket,) = first_bucket_that_fits(self.buckets, largest_sides)
        return self.buckets[bucket]

    def mask(self, examples: np.ndarray, size: Size) -> np.ndarray:  # (n,) -> (n, H, W)
        """Returns a mask that is True on each image's own pixels in a canvas of this (height, width)."""
        heights = self.image_sizes[examples, 0]
        widths = self.image_sizes[examples, 1]
        rows = np.arange(size[0]) < heights[:, None]  # (n, H)
        columns = np.arange(size[1]) < widths[:, None]  # (n, W)
        return rows[:, :, None] & columns[:, None, :]

    def small_first_order(self) -> np.ndarray:
        """Returns all examples, (N,) int64, those of small buckets first: batches in this order have little padding."""
        return np.argsort(first_bucket_that_fits(self.buckets, self.image_sizes), kind="stable")

    def select(self, positions: np.ndarray) -> "PaddedSizes":
        """Returns the sizes of the examples at these positions, with the same buckets."""
        return PaddedSizes(self.image_sizes[positions], self.buckets)


def shrink_to_fit(image_size: Size, largest: Size) -> Size:
    """Returns the (height, width) of an image after it is shrunk in proportion to fit `largest`; it never grows."""
    scale = min(1, largest[0] / image_size[0], largest[1] / image_size[1])
    return max(1, round(image_size[0] * scale)), max(1, round(image_size[1] * scale))


def pad_bottom_right(pixels: np.ndarray, size: Size) -> np.ndarray:  # (h, w, C) -> (height, width, C)
    """Puts an image into the top left corner of a black canvas of this (height, width)."""
    if pixels.shape[:2] == size:
        return pixels
    canvas = np.zeros((*size, pixels.shape[-1]), pixels.dtype)
    canvas[: pixels.shape[0], : pixels.shape[1]] = pixels
    return canvas


def first_bucket_that_fits(buckets: Sequence[Size], image_sizes: np.ndarray) -> np.ndarray:  # (n, 2) -> (n,)
    """Returns, for each image size, the index of the first bucket that holds it; some bucket must."""
    fits = np.all(np.asarray(buckets)[None] >= image_sizes[:, None], axis=-1)  # (n, buckets)
    return fits.argmax(1)  # of booleans: the first True


def choose_buckets(image_sizes: np.ndarray, largest: Size, batch_size: int) -> tuple[Size, ...]:
    """Chooses the padded sizes of batches greedily: in each turn the one that saves the most padded pixels.

    Args:
        image_sizes: (N, 2), height and width of each training image.
        largest: the (height, width) that holds every image.
        batch_size: images of a batch; which images those are is drawn here, always the same.

    Returns:
        At most eight buckets ordered by their area, the last of which is `largest`.
    """
    needs, weights = candidate_sizes(image_sizes, largest, batch_size)
    # Any needed size may become a bucket: holds[i, j] says whether size i as a bucket would hold size j as a need.
    holds = np.all(needs[:, None] >= needs[None], axis=-1)  # (candidates, needs)
    areas = needs.prod(1, dtype=np.int64)
    buckets = [largest]
    padded_areas = np.full(len(needs), largest[0] * largest[1], np.int64)  # of each need in its smallest bucket so far
    while len(buckets) < MOST_BUCKETS:
        savings = np.where(holds, np.maximum(padded_areas - areas[:, None], 0), 0)  # (candidates, needs)
        saved = (savings * weights).sum(1)
        best = int(saved.argmax())
        if saved[best] < LEAST_SAVING * (padded_areas * weights).sum():
            break
        buckets.append((int(needs[best, 0]), int(needs[best, 1])))
        padded_areas = np.where(holds[best], np.minimum(padded_areas, areas[best]), padded_areas)
    return tuple(sorted(buckets, key=lambda size: (size[0] * size[1], size)))


def candidate_sizes(image_sizes: np.ndarray, largest: Size, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sizes, (n, 2), that batches and single images need, in whole steps, and the weight of each, (n,).

    Training reads batches of drawn images; evaluation reads images of like size together, so that each counts alone.
    """
    # A generator of its own with a fixed key: the buckets depend on the data and the batch size, never on the seed.
    draws = np.random.Generator(np.random.Philox(0)).random((SAMPLED_BATCHES, min(batch_size, MOST_SAMPLED)))
    examples = (draws * len(image_sizes)).astype(np.int64)
    batch_needs = image_sizes[examples].max(1)  # (SAMPLED_BATCHES, 2)
    single_count = min(len(image_sizes), MOST_SAMPLED)
    single_needs = image_sizes[np.arange(single_count) * len(image_sizes) // single_count]  # taken evenly
    all_needs = np.concatenate([batch_needs, single_needs]).astype(np.int64)
    weights = np.repeat([1 / len(batch_needs), EVALUATION_COST / single_count], [len(batch_needs), single_count])
    rounded_up = np.minimum(-(-all_needs // BUCKET_STEP) * BUCKET_STEP, largest)
    needs, which_need = np.unique(rounded_up, axis=0, return_inverse=True)
    return needs, np.bincount(which_need.ravel(), weights)
