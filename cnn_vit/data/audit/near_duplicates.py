"""Images that are the same or nearly so: a perceptual hash, and a search whose cost does not grow as the square.

The hash is pHash's (Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010): the lowest
frequencies of a small gray thumbnail, here kept as numbers, as the signs of handwritten digits are much the same. A k-d
tree finds each image's nearest ones; two are nearly the same where their thumbnails correlate by ALIKE. No such pair
lies farther apart in the tree than the correlation allows, so that none is missed but among more than NEIGHBORS, which
are then joined through one another.

That finds copies in another format, quality or size, or a little brighter; none that are cut, turned or mirrored.
Measured: of 150 flowers at 224 pixels all were found again as JPEG of quality 30 to 90, at a third, half and twice the
size and as WebP of half the size, 93 % as GIF of 64 colors, 87 % a tenth brighter; of 1,797 and of 70,000 handwritten
digits no two were taken for one another (ALIKE of 0.997 takes 8 pairs), of CIFAR-10's 60,000 images 10 pairs. 70,000
digits take 8 s of one core.
"""

from collections.abc import Sequence

import numpy as np

from cnn_vit.data.decode import images

SIDE = 16  # of a thumbnail, pixels
LOWEST = 4  # frequencies of each direction, the constant left out: 15 numbers
ALIKE = 0.998  # least correlation
FLAT = 12  # levels of 255: a thumbnail that deviates less shows too little to compare, such as a clear sky
NEIGHBORS = 8


def thumbnail(pixels: np.ndarray) -> np.ndarray:  # (H, W, C) -> (16, 16)
    """An image's look: gray levels. What is smaller has its pixels repeated, as smoothing would make all alike."""
    gray = images.to_channels(pixels, 1)
    height, width, _ = gray.shape
    size = min(height, SIDE), min(width, SIDE)
    small = images.resize(gray, size, (0, 0, width, height))[..., 0]
    return small[np.arange(SIDE) * size[0] // SIDE][:, np.arange(SIDE) * size[1] // SIDE]


def duplicate_groups(digests: Sequence[bytes], thumbnails: np.ndarray) -> tuple[list[list[int]], list[list[int]]]:
    """Images that go together.

    Args:
        digests: of the pixels of each image.
        thumbnails: (N, 16, 16) uint8.

    Returns:
        Places of those of the same pixels, and of those nearly the same, two at least in each group, ascending. A group
        of the second kind holds images of two looks at least, and all that have one of them.
    """
    alike: dict[bytes, list[int]] = {}
    for at, digest in enumerate(digests):
        alike.setdefault(digest, []).append(at)
    looks = list(alike.values())
    joined = near_groups(thumbnails[[places[0] for places in looks]])
    return (
        [places for places in looks if len(places) > 1],
        sorted(sorted(at for look in some for at in looks[look]) for some in joined),
    )


def near_groups(thumbnails: np.ndarray) -> list[list[int]]:  # (N, 16, 16) -> places
    """Places of thumbnails that are nearly the same, in groups of two at least."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    values = thumbnails.reshape(-1, SIDE * SIDE).astype(np.float32)
    values -= values.mean(1, keepdims=True)
    lengths = np.linalg.norm(values, axis=1)
    rich = np.flatnonzero(lengths > FLAT * SIDE)
    if len(rich) < 2:
        return []
    values = values[rich] / lengths[rich, None]
    first, second = neighbor_pairs(values)
    found = np.einsum("nd,nd->n", values[first], values[second]) >= ALIKE
    edges = np.ones(found.sum(), bool), (first[found], second[found])
    _, part = connected_components(coo_array(edges, shape=(len(rich), len(rich))), directed=False)
    order = np.argsort(part, kind="stable")
    parts = np.split(rich[order], np.flatnonzero(np.diff(part[order])) + 1)
    return [one.tolist() for one in parts if len(one) > 1]


def neighbor_pairs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # (N, 256) -> (M,), (M,)
    """Pairs of thumbnails, of mean 0 and length 1, whose lowest frequencies lie as near as their correlation asks."""
    from scipy.fft import dctn
    from scipy.spatial import KDTree

    low = dctn(values.reshape(-1, SIDE, SIDE), axes=(1, 2), norm="ortho")[:, :LOWEST, :LOWEST].reshape(len(values), -1)
    farthest = np.sqrt(2 * (1 - ALIKE)) + 1e-4  # between unit vectors; frequencies left out bring no two apart
    _, at = KDTree(low[:, 1:]).query(low[:, 1:], k=min(NEIGHBORS + 1, len(low)), distance_upper_bound=farthest)
    first, second = np.repeat(np.arange(len(low)), at.shape[1]), at.reshape(-1)
    real = (second < len(low)) & (first != second)
    return first[real], second[real]
