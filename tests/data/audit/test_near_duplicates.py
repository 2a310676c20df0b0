"""The same and nearly the same images: which are found, which are not taken for the same, and at what cost."""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from cnn_vit.data.audit import near_duplicates
from cnn_vit.data.decode import images

SIDE = 160  # pixels of a piece of a photograph


@pytest.fixture(scope="module")
def photographs():
    """Pieces of two photographs that do not overlap, without those of the clear sky."""
    pieces = []
    for photograph in load_sample_images().images:  # 427 x 640: a temple and its sky, a flower
        for top in range(0, 427 - SIDE, SIDE):
            for left in range(0, 640 - SIDE + 1, SIDE):
                piece = photograph[top : top + SIDE, left : left + SIDE]
                if near_duplicates.thumbnail(piece).std() > 1.3 * near_duplicates.LEAST_STD:
                    pieces.append(piece)
    return pieces


def thumbnails_of(pixel_arrays):
    return np.stack([near_duplicates.thumbnail(pixels) for pixels in pixel_arrays])


def through_file(image, format, **options):
    """The pixels of an image after it was a file of a format."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return images.decode(buffer.getvalue(), channels=3)


def scaled(image, factor, resampling):
    """The pixels of an image with its sides times a factor."""
    return np.asarray(image.resize([int(side * factor) for side in image.size], resampling))


COPIES = {
    "jpeg 30": lambda image: through_file(image, "JPEG", quality=30),
    "jpeg 90": lambda image: through_file(image, "JPEG", quality=90),
    "webp 50": lambda image: through_file(image, "WEBP", quality=50),
    "half": lambda image: scaled(image, 0.5, Image.Resampling.LANCZOS),
    "a third": lambda image: scaled(image, 0.35, Image.Resampling.BICUBIC),
    "twice": lambda image: scaled(image, 2, Image.Resampling.BICUBIC),
    "half as jpeg": lambda image: through_file(image.resize((SIDE // 2, SIDE // 2)), "JPEG", quality=60),
    "gray": lambda image: np.asarray(image.convert("L"))[..., None],
    "darker": lambda image: (np.asarray(image) * 0.8).astype(np.uint8),
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_in_another_format_size_or_brightness_is_found_and_no_other_image(photographs, kind):
    copies = [COPIES[kind](Image.fromarray(photograph)) for photograph in photographs]
    count = len(photographs)
    assert count == 10
    expected = [[position, position + count] for position in range(count)]
    assert near_duplicates.near_groups(thumbnails_of([*photographs, *copies])) == expected


@pytest.mark.parametrize("kind", ["mirrored", "turned", "moved"])
def test_an_image_that_is_mirrored_turned_or_cut_elsewhere_is_another_image(photographs, kind):
    rows, columns = {
        "mirrored": (slice(None), slice(None, None, -1)),
        "turned": (slice(None, None, -1), slice(None, None, -1)),
        "moved": (slice(24, None), slice(24, None)),
    }[kind]
    changed = [photograph[rows, columns] for photograph in photographs]
    assert near_duplicates.near_groups(thumbnails_of([*photographs, *changed])) == []


def test_no_two_handwritten_digits_are_taken_for_the_same():
    digits = (load_digits().images * 15).astype(np.uint8)[..., None]
    assert near_duplicates.near_groups(thumbnails_of(digits)) == []


def test_the_search_finds_exactly_what_comparing_all_pairs_finds():
    """Against correlations of all pairs by NumPy, joined by hand; a fifth of the images are copies with noise."""
    rng = np.random.default_rng(0)
    thumbnails = rng.integers(0, 256, (120, 4, 4)).repeat(4, 1).repeat(4, 2)
    for position in range(96, 120):
        # Noise of low frequencies, and of all frequencies, in turn.
        noise = rng.normal(0, rng.choice([1, 4, 6, 8]), (4, 4) if position % 2 else (16, 16))
        noise = np.kron(noise, np.ones([16 // len(noise)] * 2))
        thumbnails[position] = np.clip(thumbnails[rng.integers(0, 96)] + noise, 0, 255)
    is_near = np.corrcoef(thumbnails.reshape(120, -1)) >= near_duplicates.LEAST_CORRELATION
    group_of = {position: {position} for position in range(120)}
    for first, second in zip(*np.nonzero(is_near), strict=True):
        joined = group_of[first] | group_of[second]
        group_of |= dict.fromkeys(joined, joined)
    expected = sorted({tuple(sorted(group)) for group in group_of.values() if len(group) > 1})
    assert 5 < len(expected) < 24
    assert sorted(map(tuple, near_duplicates.near_groups(thumbnails.astype(np.uint8)))) == expected


def test_a_film_is_one_group_though_its_frames_meet_only_some_of_each_other():
    rng = np.random.default_rng(0)
    first, last = rng.integers(40, 200, (2, 16, 16))
    frames = np.stack([first + (last - first) * number / 400 for number in range(400)]).astype(np.uint8)
    assert near_duplicates.near_groups(frames) == [list(range(400))]
    centered = frames.reshape(400, -1) - frames.mean((1, 2))[:, None]
    vectors = (centered / np.linalg.norm(centered, axis=1, keepdims=True)).astype(np.float32)
    pair_firsts, _ = near_duplicates.neighbor_pairs(vectors)
    assert len(pair_firsts) <= 400 * near_duplicates.NEIGHBORS  # of 79,800 pairs


def test_a_thumbnail_that_shows_nothing_is_compared_with_nothing():
    flat = np.full((3, 16, 16), 90) + np.random.default_rng(0).integers(0, 4, (16, 16))
    assert near_duplicates.near_groups(flat.astype(np.uint8)) == []
    assert near_duplicates.near_groups(np.zeros((0, 16, 16), np.uint8)) == []
    assert near_duplicates.near_groups(np.random.default_rng(0).integers(0, 256, (1, 16, 16), np.uint8)) == []


def test_equal_digests_are_one_group_and_all_of_them_belong_to_a_group_of_near_duplicates():
    rng = np.random.default_rng(0)
    a, b = rng.integers(20, 200, (2, 16, 16), np.uint8)
    thumbnails = np.stack([a, b, a, a + 1, b])
    same, near = near_duplicates.duplicate_groups([b"a", b"b", b"a", b"c", b"b"], thumbnails)
    assert same == [[0, 2], [1, 4]]
    assert near == [[0, 2, 3]]


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 40, 3), (40, 1, 3), (8, 8, 1), (16, 16, 3), (100, 3, 3)])
def test_an_image_of_any_shape_has_a_thumbnail(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    thumbnail = near_duplicates.thumbnail(pixels)
    assert (thumbnail.shape, thumbnail.dtype) == ((16, 16), np.uint8)
    if shape == (8, 8, 1):
        np.testing.assert_array_equal(thumbnail, pixels[..., 0].repeat(2, 0).repeat(2, 1))
