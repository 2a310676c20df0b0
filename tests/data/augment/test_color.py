"""What each operation makes of the values of pixels, against Pillow or hand arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from augmenting import MANY, augmented, mean_and_variance, noise
from PIL import Image

from cnn_vit.data import augment
from cnn_vit.data.augment import color


@pytest.fixture(autouse=True)
def _strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


def gray(images):
    return np.asarray(color.gray(jnp.float32(images)))


def test_gray_is_pillows():
    image = noise(4, 5, 3)
    ours = np.asarray(color.gray(jnp.asarray(image / np.float32(255))))[..., 0] * 255
    np.testing.assert_allclose(ours, np.asarray(Image.fromarray(image).convert("L")), atol=1)


def test_no_saturation_is_gray_in_all_channels():
    image = jnp.asarray(noise(4, 5, 3) / np.float32(255))
    out = color.blend(image, color.gray(image), jnp.float32(0))
    np.testing.assert_allclose(out, np.repeat(color.gray(image), 3, -1), atol=1e-6)


def dull(channels):
    """Images so near the middle that nothing is cut off."""
    return np.uint8(noise(MANY, 3, 4, channels) // 10 + 115)


def test_brightness_multiplies_all_pixels_by_one_even_factor():
    images = dull(3)
    out, _ = augmented(("jitter(0.5, 0, 0)",), images)
    factors = out / (images / 255)
    assert np.ptp(factors, (1, 2, 3)).max() < 1e-5
    np.testing.assert_allclose(mean_and_variance(factors[:, 0, 0, 0]), (1, 0.25 / 3), atol=0.05)
    assert np.abs(factors - 1).max() < 0.5 + 1e-5


@pytest.mark.parametrize("channels", [1, 3])
def test_contrast_keeps_the_mean_brightness_and_scales_the_differences(channels):
    images = dull(channels)
    out, _ = augmented(("jitter(0, 1, 0)",), images)
    before, after = gray(images / 255), gray(out)
    np.testing.assert_allclose(after.mean((1, 2, 3)), before.mean((1, 2, 3)), atol=1e-5)
    factors = after.std((1, 2, 3)) / before.std((1, 2, 3))
    assert factors.max() < 2 + 1e-3
    np.testing.assert_allclose(mean_and_variance(factors), (1, 1 / 3), atol=0.08)


def test_saturation_keeps_every_pixels_brightness_and_scales_its_color():
    images = dull(3)
    out, _ = augmented(("jitter(0, 0, 1)",), images)
    before, after = gray(images / 255), gray(out)
    np.testing.assert_allclose(after, before, atol=1e-5)
    factors = np.std(out - after, (1, 2, 3)) / np.std(images / 255 - before, (1, 2, 3))
    np.testing.assert_allclose(mean_and_variance(factors), (1, 1 / 3), atol=0.08)


def test_a_gray_image_has_no_saturation_to_change():
    images = noise(4, 3, 4, 1)
    out, _ = augmented(("jitter(0, 0, 1)",), images)
    np.testing.assert_allclose(out, images / 255, atol=1e-6)


def test_jitter_cuts_at_black_and_white():
    out, _ = augmented(("jitter(1, 1, 1)",), noise(64, 3, 4, 3))
    assert out.min() == 0
    assert out.max() == 1


@pytest.mark.parametrize(("text", "share"), [("erase(1, 0.2, 0.3)", 1.0), ("erase(0.3)", 0.3), ("erase", 0.5)])
def test_erase_blackens_one_box_of_its_area_in_its_share_of_images(text, share):
    _, low, high = augment.operation_numbers((text,))[0]
    out, _ = augmented((text,), np.full((MANY, 20, 16, 2), 255, np.uint8))
    hole = out[..., 0] == 0
    assert set(np.unique(out)) == {0, 1}
    np.testing.assert_array_equal(out[..., 0], out[..., 1])
    np.testing.assert_array_equal(hole.any(2)[:, :, None] & hole.any(1)[:, None, :], hole)  # a full rectangle
    erased = hole.any((1, 2))
    assert abs(erased.mean() - share) < 0.1
    areas = hole[erased].mean((1, 2))
    heights, widths = hole.any(2).sum(1)[erased], hole.any(1).sum(1)[erased]
    fits = (heights < 20) & (widths < 16)  # not cut to the image's side
    rounding = (0.5 * (heights + widths) + 0.25) / 320
    assert (areas[fits] > (low - rounding)[fits]).all()
    assert (areas < high + rounding).all()
    np.testing.assert_allclose(areas[fits].mean(), (low + high) / 2, atol=0.05)
    assert np.unique(heights > widths).tolist() == [False, True]
    first_and_last_rows = {tuple(rows.nonzero()[0][[0, -1]]) for rows in hole.any(2)[erased]}
    assert first_and_last_rows >= {(0, 4), (15, 19)}  # holes reach all places
