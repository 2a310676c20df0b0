"""Finds images that are the same or nearly so: a perceptual hash, and a search whose cost does not grow as the square.

The hash is pHash's (Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010): the lowest
frequencies of a small gray thumbnail. They stay numbers here, because the signs of handwritten digits are much the
same. A k-d tree finds the nearest neighbors of each image; two images are nearly the same where their thumbnails
correlate by LEAST_CORRELATION. No such pair lies farther apart in the tree than the correlation allows, so that none is
missed except among more than NEIGHBORS, which are then joined through one another.

That finds copies in another format, quality or size, or a little brighter; it does not find copies that are cut,
turned or mirrored. Measured: of 150 flowers at 224 pixels all were found again as JPEG of quality 30 to 90, at a third,
half and twice the size and as WebP of half the size, 93 % as GIF of 64 colors, 87 % a tenth brighter; of 1,797 and of
70,000 handwritten digits no two were taken for the same (a least correlation of 0.997 takes 8 pairs), of CIFAR-10's
60,000 images 10 pairs. 70,000 digits take 8 s of one core.
"""

from collections.abc import Sequence

import numpy as np

from cnn_vit.data.decode import images

SIDE = 16  # pixels of a side of a thumbnail
LOW_FREQUENCIES = 4  # in each direction; without the constant these are 15 numbers
LEAST_CORRELATION = 0.998  # of the thumbnails of two images that are nearly the same
LEAST_STD = 12  # levels of 255: a thumbnail of a lower standard deviation, such as of a clear sky, shows too little
NEIGHBORS = 8  # of each image
ROUNDING = 1e-4  # added to a distance, so that float32 misses no pair


def thumbnail(pixels: np.ndarray) -> np.ndarray:  # (H, W, C) -> (16, 16)
    """Returns the gray thumbnail of an image, uint8.

    An image that is smaller has its pixels repeated: smoothing would make all small images alike.
    """
    gray = images.to_channels(pixels, 1)
    height, width, _ = gray.shape
    size = min(height, SIDE), min(width, SIDE)
    small = images.resize(gray, size, (0, 0, width, height))[..., 0]
    return small[np.arange(SIDE) * size[0] // SIDE][:, np.arange(SIDE) * size[1] // SIDE]


def duplicate_groups(digests: Sequence[bytes], thumbnails: np.ndarray) -> tuple[list[list[int]], list[list[int]]]:
    """Groups images that are the same, and images that are nearly the same.

    Args:
        digests: a digest of the pixels of each image.
        thumbnails: (N, 16, 16) uint8.

    Returns:
        Groups of positions of images with the same pixels, and groups of those that are nearly the same; at least two
        in each group, ascending. A group of the second kind holds at least two different images, and all images with
        the same pixels as one of them.
    """
    positions_by_digest: dict[bytes, list[int]] = {}
    for position, digest in enumerate(digests):
        positions_by_digest.setdefault(digest, []).append(position)
    copies = list(positions_by_digest.values())
    near = []
    for group in near_groups(thumbnails[[positions[0] for positions in copies]]):  # one of each is compared
        near.append(sorted(position for image in group for position in copies[image]))
    return [positions for positions in copies if len(positions) > 1], sorted(near)


def near_groups(thumbnails: np.ndarray) -> list[list[int]]:  # (N, 16, 16) -> positions
    """Groups the positions of thumbnails that are nearly the same, at least two in each group."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    vectors = thumbnails.reshape(-1, SIDE * SIDE).astype(np.float32)
    vectors -= vectors.mean(1, keepdims=True)
    lengths = np.linalg.norm(vectors, axis=1)
    comparable = np.flatnonzero(lengths > LEAST_STD * SIDE)  # a length is SIDE times the standard deviation
    if len(comparable) < 2:
        return []
    vectors = vectors[comparable] / lengths[comparable, None]  # now a dot product is a correlation
    first, second = neighbor_pairs(vectors)
    is_near = np.einsum("nd,nd->n", vectors[first], vectors[second]) >= LEAST_CORRELATION
    edges = np.ones(is_near.sum(), bool), (first[is_near], second[is_near])
    graph = coo_array(edges, shape=(len(comparable), len(comparable)))
    _, component = connected_components(graph, directed=False)
    # Sorted by component, and cut wherever the next one begins.
    order = np.argsort(component, kind="stable")
    groups = np.split(comparable[order], np.flatnonzero(np.diff(component[order])) + 1)
    return [group.tolist() for group in groups if len(group) > 1]


def neighbor_pairs(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # (N, 256) -> (M,), (M,)
    """Returns pairs of thumbnails, of mean 0 and length 1, whose lowest frequencies are near enough to correlate."""
    from scipy.fft import dctn
    from scipy.spatial import KDTree

    spectra = dctn(vectors.reshape(-1, SIDE, SIDE), axes=(1, 2), norm="ortho")
    low = spectra[:, :LOW_FREQUENCIES, :LOW_FREQUENCIES].reshape(len(vectors), -1)[:, 1:]  # without the constant
    # Unit vectors of correlation c are sqrt(2 (1 - c)) apart; leaving frequencies out brings no two farther apart.
    farthest = np.sqrt(2 * (1 - LEAST_CORRELATION)) + ROUNDING
    _, neighbors = KDTree(low).query(low, k=min(NEIGHBORS + 1, len(low)), distance_upper_bound=farthest)
    first, second = np.repeat(np.arange(len(low)), neighbors.shape[1]), neighbors.reshape(-1)
    # Where an image has fewer neighbors the tree answers N; its nearest one is mostly itself.
    is_pair = (second < len(low)) & (first != second)
    return first[is_pair], second[is_pair]
