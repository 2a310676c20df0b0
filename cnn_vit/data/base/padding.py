"""Images of several sizes in one data set, none cropped, and the few sizes that their batches have (`pad_batch`).

An image lies in the top left corner of black and a mask says which pixels are its own. Each batch has the smallest, of
at most eight sizes fixed at the start, that holds all its images; a size that comes up compiles the step once more.
The largest is the image size and holds every image, as larger ones are made smaller. The others are chosen for what
batches of this size need: of 128 photos, upright and not, nearly all need the largest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PAD_BATCH = "pad_batch"  # the `data.fit` that leaves images their own sizes
MOST = 8  # sizes
STEP = 8  # pixels: sides of all but the largest are multiples
DRAWN = 256  # batches that are looked at for what they need
FEW = 1024  # images by themselves, and most of a batch, that are looked at
JUDGED = 1 / 30  # an image judged against one learned from: a tenth as many, and without the way back
WORTH = 0.01  # share of all padded pixels that a further size must save, for its compilation

Size = tuple[int, int]  # (height, width) in pixels


@dataclass(frozen=True)
class PaddedSizes:
    """What of the images of a split is image.

    Attributes:
        image_sizes: (N, 2) int32, height and width of each image, in the top left corner of what is read.
        buckets: of batches, by their area; the last holds every image.
    """

    image_sizes: np.ndarray
    buckets: tuple[Size, ...]

    def bucket_for(self, examples: np.ndarray) -> Size:
        """The smallest size that holds all these images, (n,) indices."""
        return self.buckets[int(first_bucket_that_fits(self.buckets, self.image_sizes[examples].max(0)[None])[0])]

    def mask(self, examples: np.ndarray, size: Size) -> np.ndarray:  # (n,) -> (n, H, W)
        """True on the pixels of each image in an image of a size."""
        rows, columns = (np.arange(side) < self.image_sizes[examples, axis, None] for axis, side in enumerate(size))
        return rows[:, :, None] & columns[:, None, :]

    def small_first_order(self) -> np.ndarray:
        """All examples (N,) int64, those of small sizes first: batches in this order have little padding."""
        return np.argsort(first_bucket_that_fits(self.buckets, self.image_sizes), kind="stable")

    def select(self, positions: np.ndarray) -> "PaddedSizes":
        """Of the examples at these positions."""
        return PaddedSizes(self.image_sizes[positions], self.buckets)


def shrink_to_fit(own: Size, most: Size) -> Size:
    """(height, width) of an image that is made smaller, in its proportions, where it is larger than `most`."""
    scale = min(1, most[0] / own[0], most[1] / own[1])
    return max(1, round(own[0] * scale)), max(1, round(own[1] * scale))


def pad_bottom_right(pixels: np.ndarray, size: Size) -> np.ndarray:  # (h, w, C) -> (height, width, C)
    """An image in the top left corner of black."""
    if pixels.shape[:2] == size:
        return pixels
    found = np.zeros((*size, pixels.shape[-1]), pixels.dtype)
    found[: pixels.shape[0], : pixels.shape[1]] = pixels
    return found


def first_bucket_that_fits(sizes: Sequence[Size], sides: np.ndarray) -> np.ndarray:  # (n, 2) -> (n,)
    """Which is the first size that holds each of these sides; some size does."""
    holds = np.all(np.asarray(sizes)[None] >= sides[:, None], axis=-1)  # (n, sizes)
    return holds.argmax(1)


def choose_buckets(sides: np.ndarray, largest: Size, batch_size: int) -> tuple[Size, ...]:
    """The sizes for batches of images, one after the other the one that saves the most padding.

    Args:
        sides: (N, 2), height and width of each image trained on.
        largest: the size that holds everything.
        batch_size: images of a batch; which, is drawn here, always alike.

    Returns:
        At most eight sizes by their area, the last of which is `largest`.
    """
    needs, weights = candidate_sizes(sides, largest, batch_size)
    found, holds = [largest], np.all(needs[:, None] >= needs[None], axis=-1)  # (candidates, needs)
    areas = needs.prod(1, dtype=np.int64)
    taken = np.full(len(needs), largest[0] * largest[1], np.int64)
    while len(found) < MOST:
        saved = (np.where(holds, np.maximum(taken - areas[:, None], 0), 0) * weights).sum(1)
        best = int(saved.argmax())
        if saved[best] < WORTH * (taken * weights).sum():
            break
        found.append((int(needs[best, 0]), int(needs[best, 1])))
        taken = np.where(holds[best], np.minimum(taken, areas[best]), taken)
    return tuple(sorted(found, key=lambda size: (size[0] * size[1], size)))


def candidate_sizes(sides: np.ndarray, largest: Size, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """The sizes (n, 2) that batches and images by themselves need, in whole steps, and how much each weighs (n,)."""
    chance = np.random.Generator(np.random.Philox(0)).random((DRAWN, min(batch_size, FEW)))
    batches = sides[(chance * len(sides)).astype(np.int64)].max(1)  # (DRAWN, 2)
    singles = sides[np.arange(min(len(sides), FEW)) * len(sides) // min(len(sides), FEW)]
    both = np.concatenate([batches, singles]).astype(np.int64)
    weights = np.repeat([1 / len(batches), JUDGED / len(singles)], [len(batches), len(singles)])
    stepped = np.minimum(-(-both // STEP) * STEP, largest)
    needs, which = np.unique(stepped, axis=0, return_inverse=True)
    return needs, np.bincount(which.ravel(), weights)
