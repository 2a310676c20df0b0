"""The same and nearly the same images: what is found, what is not taken for it, and at what cost."""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from cnn_vit.data.audit import near_duplicates
from cnn_vit.data.decode import images

SIDE = 160  # pixels


@pytest.fixture(scope="module")
def photographs():
    """Pieces of two photographs, none overlapping another; not the clear sky."""
    whole = load_sample_images().images  # 427 x 640: a temple and its sky, a flower
    every = [
        one[top : top + SIDE, left : left + SIDE]
        for one in whole
        for top in range(0, 427 - SIDE, SIDE)
        for left in range(0, 640 - SIDE + 1, SIDE)
    ]
    return [one for one in every if near_duplicates.thumbnail(one).std() > 1.3 * near_duplicates.FLAT]


def packed(image, kind, **options):
    """Pixels after having been a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return images.decode(buffer.getvalue(), channels=3)


def sized(image, times, how):
    return np.asarray(image.resize([int(side * times) for side in image.size], how))


COPIES = {
    "jpeg 30": lambda image: packed(image, "JPEG", quality=30),
    "jpeg 90": lambda image: packed(image, "JPEG", quality=90),
    "webp 50": lambda image: packed(image, "WEBP", quality=50),
    "half": lambda image: sized(image, 0.5, Image.Resampling.LANCZOS),
    "a third": lambda image: sized(image, 0.35, Image.Resampling.BICUBIC),
    "twice": lambda image: sized(image, 2, Image.Resampling.BICUBIC),
    "half as jpeg": lambda image: packed(image.resize((SIDE // 2, SIDE // 2)), "JPEG", quality=60),
    "gray": lambda image: np.asarray(image.convert("L"))[..., None],
    "darker": lambda image: (np.asarray(image) * 0.8).astype(np.uint8),
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_in_another_format_size_or_brightness_is_found_and_no_other_image(photographs, kind):
    copies = [COPIES[kind](Image.fromarray(one)) for one in photographs]
    looks = np.stack([near_duplicates.thumbnail(one) for one in [*photographs, *copies]])
    count = len(photographs)
    assert count == 10
    assert near_duplicates.near_groups(looks) == [[at, at + count] for at in range(count)]


@pytest.mark.parametrize("kind", ["mirrored", "turned", "moved"])
def test_what_is_mirrored_turned_or_cut_elsewhere_is_another_image(photographs, kind):
    other = {"mirrored": lambda x: x[:, ::-1], "turned": lambda x: x[::-1, ::-1], "moved": lambda x: x[24:, 24:]}[kind]
    looks = [near_duplicates.thumbnail(one) for one in photographs]
    assert (
        near_duplicates.near_groups(np.stack([*looks, *(near_duplicates.thumbnail(other(one)) for one in photographs)]))
        == []
    )


def test_no_two_handwritten_digits_are_taken_for_one_another():
    digits = (load_digits().images * 15).astype(np.uint8)[..., None]
    assert near_duplicates.near_groups(np.stack([near_duplicates.thumbnail(one) for one in digits])) == []


def test_the_search_finds_exactly_what_comparing_all_pairs_finds():
    """Against correlations of all pairs by NumPy, joined by hand; a fifth of the images are copies with noise."""
    rng = np.random.default_rng(0)
    looks = rng.integers(0, 256, (120, 4, 4)).repeat(4, 1).repeat(4, 2)
    for at in range(96, 120):
        noise = rng.normal(0, rng.choice([1, 4, 6, 8]), (4, 4) if at % 2 else (16, 16))  # of low, of all frequencies
        looks[at] = np.clip(looks[rng.integers(0, 96)] + np.kron(noise, np.ones([16 // len(noise)] * 2)), 0, 255)
    alike = np.corrcoef(looks.reshape(120, -1)) >= near_duplicates.ALIKE
    joined = {at: {at} for at in range(120)}
    for one, other in zip(*np.nonzero(alike), strict=True):
        together = joined[one] | joined[other]
        joined |= dict.fromkeys(together, together)
    expected = sorted({tuple(sorted(some)) for some in joined.values() if len(some) > 1})
    assert 5 < len(expected) < 24
    assert sorted(map(tuple, near_duplicates.near_groups(looks.astype(np.uint8)))) == expected


def test_a_film_is_one_group_though_its_frames_meet_only_some_of_each_other():
    rng = np.random.default_rng(0)
    first, last = rng.integers(40, 200, (2, 16, 16))
    frames = np.stack([first + (last - first) * at / 400 for at in range(400)]).astype(np.uint8)
    assert near_duplicates.near_groups(frames) == [list(range(400))]
    values = frames.reshape(400, -1) - frames.mean((1, 2))[:, None]
    one, _ = near_duplicates.neighbor_pairs((values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32))
    assert len(one) <= 400 * near_duplicates.NEIGHBORS  # of 79,800 pairs


def test_what_shows_nothing_is_compared_with_nothing():
    flat = np.full((3, 16, 16), 90) + np.random.default_rng(0).integers(0, 4, (16, 16))
    assert near_duplicates.near_groups(flat.astype(np.uint8)) == []
    assert near_duplicates.near_groups(np.zeros((0, 16, 16), np.uint8)) == []
    assert near_duplicates.near_groups(np.random.default_rng(0).integers(0, 256, (1, 16, 16), np.uint8)) == []


def test_equal_digests_are_one_group_and_all_of_them_belong_to_what_is_nearly_the_same():
    rng = np.random.default_rng(0)
    look, other = rng.integers(20, 200, (2, 16, 16), np.uint8)
    looks = np.stack([look, other, look, look + 1, other])
    same, near = near_duplicates.duplicate_groups([b"a", b"b", b"a", b"c", b"b"], looks)
    assert same == [[0, 2], [1, 4]]
    assert near == [[0, 2, 3]]


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 40, 3), (40, 1, 3), (8, 8, 1), (16, 16, 3), (100, 3, 3)])
def test_an_image_of_any_shape_has_a_look(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    look = near_duplicates.thumbnail(pixels)
    assert (look.shape, look.dtype) == ((16, 16), np.uint8)
    if shape == (8, 8, 1):
        np.testing.assert_array_equal(look, pixels[..., 0].repeat(2, 0).repeat(2, 1))
