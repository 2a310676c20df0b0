"""Where each operation puts the pixels, against NumPy or hand arithmetic."""

import itertools

import jax
import numpy as np
import pytest
from augmenting import MANY, augmented, mean_and_variance, noise
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_vit.data import augment
from cnn_vit.data.augment import geometry

few = settings(max_examples=15, deadline=None, derandomize=True, database=None)


@pytest.fixture(autouse=True)
def _strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


def roll_with_zeros(image, down, right):
    """np.roll, with zeros where pixels came around."""
    height, width, _ = image.shape
    out = np.roll(image, (down, right), (0, 1))
    rows, columns = np.arange(height)[:, None] - down, np.arange(width) - right
    return out * ((rows >= 0) & (rows < height) & (columns >= 0) & (columns < width))[..., None]


@few
@given(down=st.integers(-8, 8), right=st.integers(-8, 8))
def test_a_move_by_whole_pixels_is_numpys_roll_with_zeros(down, right):
    image = np.float32(noise(5, 7, 2)) / np.float32(255)
    np.testing.assert_array_equal(jax.jit(geometry.roll)(image, down, right), roll_with_zeros(image, down, right))
    moved = jax.jit(geometry.transform)(image, down=float(down), right=float(right))
    np.testing.assert_allclose(moved, roll_with_zeros(image, down, right), atol=1e-6)


def tent_products(image, y, x):
    """The same reading as two products with tent weights, in float64: (Y, X, H) by (H, W, C) by (Y, X, W)."""
    height, width, _ = image.shape
    row_weights = np.maximum(0, 1 - np.abs(y[..., None] - np.arange(height)))
    column_weights = np.maximum(0, 1 - np.abs(x[..., None] - np.arange(width)))
    return np.einsum("yxi,ijc,yxj->yxc", row_weights, np.float64(image), column_weights)


@few
@given(
    angle=st.floats(-4, 4),
    scale=st.floats(0.4, 2.5),
    down=st.floats(-3, 3),
    right=st.floats(-3, 3),
)
def test_a_transform_is_two_products_with_tent_weights(angle, scale, down, right):
    image = np.float32(noise(6, 9, 3)) / np.float32(255)
    center = np.array([2.5, 4.0])
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])  # (y, x), y downwards
    grid = np.stack(np.meshgrid(np.arange(6), np.arange(9), indexing="ij"), -1)
    y, x = np.moveaxis((grid - center - [down, right]) @ np.linalg.inv(turn).T + center, -1, 0)
    out = jax.jit(geometry.transform)(image, angle=angle, scale=scale, down=down, right=right)
    np.testing.assert_allclose(out, tent_products(image, y, x), atol=1e-5)


def test_a_quarter_turn_is_rot90_and_a_half_turn_reverses_both_axes():
    square, oblong = np.float32(noise(6, 6, 3)) / 255, np.float32(noise(4, 7, 1)) / 255
    transform = jax.jit(geometry.transform)
    np.testing.assert_allclose(transform(square, angle=np.pi / 2), np.rot90(square), atol=1e-5)
    np.testing.assert_allclose(transform(oblong, angle=np.pi), oblong[::-1, ::-1], atol=1e-5)


def test_an_image_enlarged_by_two_shows_every_pixel_half_a_pixel_nearer():
    image = np.float32([[0, 8, 16, 24]])[..., None] / 255  # a slope of 8 becomes one of 4 around the same center
    out = np.asarray(geometry.transform(np.repeat(image, 4, axis=0), scale=2.0)) * 255
    np.testing.assert_allclose(out[1:3, :, 0], [[6, 10, 14, 18]] * 2, atol=1e-4)


def dot(size):
    """Many images of one white pixel in the middle."""
    images = np.zeros((MANY, size, size, 1), np.uint8)
    images[:, size // 2, size // 2] = 255
    return images


def displacement(images):
    """Center of mass (y, x) from the middle pixel, in pixels, (B, 2). Bilinear reading moves it exactly."""
    places = np.arange(images.shape[1]) - images.shape[1] // 2
    mass = images[..., 0].sum((1, 2))
    return np.stack([(images[..., 0].sum(axis) * places).sum(1) / mass for axis in (2, 1)], 1)


def test_pad_crop_reaches_every_whole_pixel_alike():
    out, _ = augmented(("pad_crop(1)",), dot(5))
    moves, counts = np.unique(displacement(out), axis=0, return_counts=True)
    assert moves.tolist() == [list(move) for move in itertools.product((-1, 0, 1), repeat=2)]
    assert np.abs(counts - MANY / 9).max() < 5 * np.sqrt(MANY / 9)


@pytest.mark.parametrize("text", ["shift(1.5)", "affine(0, 1.5, 0)"])
def test_shifts_are_even_up_to_their_pixels_along_each_axis(text):
    out, _ = augmented((text,), dot(7))
    for moves in displacement(out).T:
        assert np.abs(moves).max() < 1.5 + 1e-4
        assert np.sum(np.abs(moves - np.round(moves)) > 0.1) > MANY / 2  # fractions of a pixel
        np.testing.assert_allclose(mean_and_variance(moves), (0, 1.5**2 / 3), atol=0.15)


def slopes():
    """Images whose channels are the row and the column, in steps of 8 of 255: (MANY, 16, 12, 2)."""
    rows, columns = np.meshgrid(np.arange(16), np.arange(12), indexing="ij")
    return np.broadcast_to(np.stack([rows, columns], -1).astype(np.uint8) * 8, (MANY, 16, 12, 2))


def gradients(images):
    """Steps in the source for each pixel, at the middle: [d row, d column] along y, then along x; (B, 2, 2)."""
    places = images * 255 / 8
    middle = places[:, 7:9, 5:7]
    return np.stack([middle[:, 1, 0] - middle[:, 0, 0], middle[:, 0, 1] - middle[:, 0, 0]], 1)


@pytest.mark.parametrize("text", ["rotate(30)", "affine(30, 0, 0)"])
def test_turns_are_even_up_to_their_degrees_either_way(text):
    out, _ = augmented((text,), slopes())
    along_y = gradients(out)[:, 0]
    np.testing.assert_allclose(np.linalg.norm(along_y, axis=1), 1, atol=1e-3)
    angles = np.rad2deg(np.arctan2(-along_y[:, 1], along_y[:, 0]))
    assert np.abs(angles).max() < 30 + 0.1
    np.testing.assert_allclose(np.array(mean_and_variance(angles)) / (30, 300), (0, 1), atol=0.1)


def test_sizes_change_by_a_factor_and_its_inverse_alike():
    out, _ = augmented(("affine(0, 0, scale=0.5)",), slopes())
    logs = -np.log(gradients(out)[:, 0, 0])
    assert np.abs(logs).max() < np.log(1.5) + 1e-3
    np.testing.assert_allclose(mean_and_variance(logs / np.log(1.5)), (0, 1 / 3), atol=0.07)


def test_half_of_the_images_are_mirrored_and_mirrored_again_are_themselves():
    images = noise(MANY, 2, 5, 1)
    out, _ = augmented(("flip",), images)
    mirrored = (np.round(out * 255) == images[:, :, ::-1]).all((1, 2, 3))
    same = (np.round(out * 255) == images).all((1, 2, 3))
    assert (mirrored ^ same).all()
    assert abs(mirrored.mean() - 0.5) < 0.1
    again, _ = augmented(("flip",), np.round(out * 255).astype(np.uint8))
    np.testing.assert_allclose(again, images / 255, atol=1e-6)


@pytest.mark.parametrize("text", ["resized_crop", "resized_crop(0.3, 0.5)"])
def test_a_crop_has_the_area_the_ratio_and_the_place_it_says(text):
    (low, high), (height, width) = augment.operation_numbers((text,))[0], (16, 12)
    out, _ = augmented((text,), slopes())
    steps = gradients(out)
    box_height, box_width = steps[:, 0, 0] * height, steps[:, 1, 1] * width  # in pixels
    area, ratio = box_height * box_width / (height * width), box_width / box_height
    assert low - 1e-3 < area.min() < low + 0.1
    assert high - 0.1 < area.max() < high + 1e-3
    np.testing.assert_allclose(area.mean(), (low + high) / 2, atol=0.05)
    assert 3 / 4 - 2e-3 < ratio.min() < 0.85
    assert 1.1 < ratio.max() < 4 / 3 + 2e-3
    middle = (out[:, 7:9, 5:7] * 255 / 8).mean((1, 2)) + 0.5  # of the box, from the image's edge
    half = np.stack([box_height, box_width], 1) / 2
    assert (middle - half).min() > -2e-2
    assert (middle + half - [height, width]).max() < 2e-2


def test_a_crop_of_one_color_is_that_color():
    out, _ = augmented(("resized_crop",), np.full((8, 16, 12, 3), 77, np.uint8))
    np.testing.assert_allclose(out, 77 / 255, atol=1e-6)


def test_a_crop_of_a_long_image_stays_inside_it():
    out, _ = augmented(("resized_crop(1, 1)",), np.full((4, 4, 20, 1), 255, np.uint8))
    np.testing.assert_allclose(out, 1, atol=1e-6)
