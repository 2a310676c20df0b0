"""RandAugment and TrivialAugment: each operation against Pillow or NumPy, and what is drawn for whom."""

import functools
import re

import jax
import numpy as np
import pytest
from augmenting import MANY, augmented, noise
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from cnn_vit.data import augment
from cnn_vit.data.augment import policies
from cnn_vit.errors import UserError

SIDES = (17, 18)  # more pixels than levels: of fewer, equalize leaves all as it is
ROWS = 6
few = settings(max_examples=6, deadline=None, derandomize=True, database=None)
strengths = st.floats(-1, 1, width=32)
BOTH = pytest.mark.parametrize("ranges", [policies.NARROW, policies.WIDE], ids=["narrow", "wide"])


@pytest.fixture(autouse=True)
def _strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


def one(name, image, signed=0.0, ranges=policies.NARROW):
    """An operation on an image of bytes, in levels."""
    return 255 * np.asarray(compiled_alone(name, ranges)(image / np.float32(255), np.float32(signed)))


@functools.cache
def compiled_alone(name, ranges):
    return jax.jit(functools.partial(policies.CHANGES[name], ranges=ranges))


def picture(channels=3, seed=0):
    """Levels from 40 to 209, so that there is something to stretch; less of the later colors, so that none is gray."""
    return (40 + noise(*SIDES, channels, seed=seed) // 1.5 / np.arange(1, channels + 1)).astype(np.uint8)


def pillow(image):
    return Image.fromarray(image if image.shape[-1] == 3 else image[..., 0])


def array(image):
    return np.asarray(image).reshape(*image.size[::-1], -1).astype(int)


# --- levels


@pytest.mark.parametrize("channels", [1, 3])
def test_autocontrast_is_pillows(channels):
    image = picture(channels)
    out = one("autocontrast", image)
    assert np.abs(out - array(ImageOps.autocontrast(pillow(image)))).max() <= 1  # Pillow cuts to whole levels
    assert (out.min(), out.max()) == (0, pytest.approx(255, abs=1e-3))


def test_autocontrast_leaves_a_channel_of_one_level():
    image = np.full((4, 5, 3), 77, np.uint8)
    np.testing.assert_allclose(one("autocontrast", image), 77, atol=1e-4)


@few
@given(seed=st.integers(0, 1000), top=st.sampled_from([1, 2, 3, 90, 255]), channels=st.sampled_from([1, 3]))
def test_equalize_is_pillows_to_the_level(seed, top, channels):
    image = (noise(40, 30, channels, seed=seed).astype(int) % (top + 1)).astype(np.uint8)
    np.testing.assert_allclose(one("equalize", image), array(ImageOps.equalize(pillow(image))), atol=1e-3)


def test_equalize_begins_where_255_pixels_lie_below_the_brightest():
    image = noise(16, 16, 1) // 2
    image[3, 4] = 255
    expected = array(ImageOps.equalize(pillow(image)))
    assert (expected != image).any()
    np.testing.assert_allclose(one("equalize", image), expected, atol=1e-3)


@pytest.mark.parametrize(
    ("strength", "ranges", "bits"),
    [(0.0, policies.NARROW, 8), (0.5, policies.NARROW, 6), (-1.0, policies.NARROW, 4), (1.0, policies.WIDE, 2),
     (3.0, policies.NARROW, 1)],
)  # fmt: skip
def test_posterize_keeps_so_many_bits(strength, ranges, bits):
    image = noise(*SIDES, 3)
    expected = array(ImageOps.posterize(pillow(image), bits))
    np.testing.assert_allclose(one("posterize", image, strength, ranges), expected, atol=1e-3)


@pytest.mark.parametrize(("strength", "threshold"), [(0.0, 256), (0.25, 192), (-0.5, 128), (1.0, 0), (3.0, 0)])
def test_solarize_turns_what_is_bright(strength, threshold):
    image = noise(*SIDES, 3)
    expected = array(ImageOps.solarize(pillow(image), threshold))
    np.testing.assert_allclose(one("solarize", image, strength), expected, atol=1e-3)


ENHANCED = {"color": ImageEnhance.Color, "contrast": ImageEnhance.Contrast, "brightness": ImageEnhance.Brightness,
            "sharpness": ImageEnhance.Sharpness}  # fmt: skip


@BOTH
@pytest.mark.parametrize("name", ENHANCED)
@few
@given(signed=strengths)
def test_a_factor_is_pillows(name, ranges, signed):
    image = picture()
    factor = 1 + signed * (0.9 if ranges is policies.NARROW else 0.99)
    expected = array(ENHANCED[name](pillow(image)).enhance(factor))
    assert np.abs(one(name, image, signed, ranges) - expected).max() <= 2  # Pillow rounds gray, mean and sum


@pytest.mark.parametrize("name", ["color", "contrast", "brightness"])
def test_no_factor_is_below_zero(name):
    np.testing.assert_allclose(one(name, picture(), -3.0), one(name, picture(), -1 / 0.9), atol=1e-3)


def test_gray_has_no_color_to_change():
    np.testing.assert_allclose(one("color", picture(1), 0.7), picture(1), atol=1e-3)


# --- places


def warped(image, signed, name):
    """Pillow's transform, and where it read inside the image."""
    height, width = SIDES
    shift = {"move_x": (2, -signed * 150 / 331 * width), "move_y": (5, -signed * 150 / 331 * height),
             "shear_x": (1, signed * 0.3), "shear_y": (3, signed * 0.3)}  # fmt: skip
    read = [1.0, 0, 0, 0, 1, 0]  # across, down and constant of the column, then of the row, that a pixel is read at
    place, read[place] = shift[name]
    found, inside = (
        pillow(one).transform((width, height), Image.Transform.AFFINE, tuple(read), Image.Resampling.BILINEAR)
        for one in (image, np.full((*SIDES, 1), 255, np.uint8))
    )
    return array(found), array(inside)[..., 0] > 0


def deeply(there):
    """Pixels all of whose neighbors are there, none at the edge: Pillow repeats it, we blend it with gray."""
    found = there.copy()
    for axis in (0, 1):
        found &= np.roll(there, 1, axis) & np.roll(there, -1, axis)
    found[[0, -1]] = found[:, [0, -1]] = False
    return found


@pytest.mark.parametrize("name", ["move_x", "move_y", "shear_x", "shear_y"])
@pytest.mark.parametrize("signed", [-1.0, -0.3, 0.4, 0.9])
def test_a_move_or_shear_is_pillows_transform_with_gray_outside(name, signed):
    image = picture()
    expected, inside = warped(image, signed, name)
    out = one(name, image, signed)
    deep, far = deeply(inside), deeply(~inside)
    assert deep.sum() > 20
    assert np.abs(out - expected)[deep].max() <= 1.5
    np.testing.assert_allclose(out[far], 128, atol=1e-3)


def test_moves_of_the_wide_ranges_are_32_pixels():
    image = noise(40, 40, 1)
    out = one("move_x", image, 1.0, policies.WIDE)
    np.testing.assert_allclose(out[:, 32:], image[:, :8], atol=1e-2)
    np.testing.assert_allclose(out[:, :32], 128, atol=1e-3)


@pytest.mark.parametrize(("signed", "ranges", "degrees"), [(1.0, policies.NARROW, 30), (-0.5, policies.WIDE, -67.5)])
def test_a_turn_is_pillows_rotation(signed, ranges, degrees):
    image = np.asarray(Image.fromarray(noise(6, 6, 3)).resize((31, 31), Image.Resampling.BICUBIC))
    expected = array(pillow(image).rotate(degrees, Image.Resampling.BILINEAR))
    inner = (slice(8, -8), slice(8, -8))
    assert np.abs(one("rotate", image, signed, ranges)[inner] - expected[inner]).max() <= 2


@pytest.mark.parametrize("name", sorted(set(policies.CHANGES) - {"autocontrast", "equalize"}))
def test_strength_zero_changes_nothing(name):
    np.testing.assert_allclose(one(name, picture()), picture(), atol=1e-3)


# --- what is drawn


def test_both_lists_are_the_fourteen_of_the_papers():
    assert len(policies.CHANGES) == 14


def test_each_operation_comes_as_often_as_any():
    """An image on which the fourteen differ: each row's result is that of exactly one of them."""
    image = picture(3, seed=4)
    out, _ = augmented(("randaugment(1, 9)",), np.repeat(image[None], MANY, 0))
    results = {
        (name, sign): one(name, image, sign * 0.9)
        for name in policies.CHANGES
        for sign in ((-1, 1) if name not in ("identity", "autocontrast", "equalize", "posterize", "solarize") else (1,))
    }
    found = dict.fromkeys(results, 0)
    for row in 255 * out:
        (hit,) = [key for key, expected in results.items() if np.abs(row - expected).max() < 0.05]
        found[hit] += 1
    per_kind = {name: sum(n for (kind, _), n in found.items() if kind == name) for name in policies.CHANGES}
    expected = MANY / 14
    assert sum((n - expected) ** 2 / expected for n in per_kind.values()) < 34.5  # chi squared, 13 degrees, p = 0.001
    minus, plus = (sum(n for (kind, sign), n in found.items() if sign == s and (kind, -1) in found) for s in (-1, 1))
    assert abs(minus - plus) < 3.3 * np.sqrt(minus + plus)


def test_trivialaugment_draws_any_of_31_strengths():
    image = np.full((3, 3, 1), 100, np.uint8)
    out, _ = augmented(("trivialaugment",), np.repeat(image[None], 3 * MANY, 0))
    bright = {round(float(v), 2) for v in 255 * out[:, 1, 1, 0]}
    steps = {round(100 * (1 + sign * 0.99 * step / 30), 2) for step in range(31) for sign in (-1, 1)}
    seen = {value for value in bright if any(abs(value - step) < 0.02 for step in steps)}
    assert len(seen) > 45  # of 61; moves and turns give gray or leave it, solarize gives 155
    assert min(bright) < 5
    assert max(v for v in seen) > 195


@functools.cache
def rows():
    """Images, their keys, and both functions compiled for so many."""
    images, keys = noise(ROWS, *SIDES, 3) / np.float32(255), jax.random.split(jax.random.key(1), ROWS)
    three = jax.jit(policies.randaugment).lower(images, keys, np.float32(3), np.float32(7)).compile()
    return images, keys, three, jax.jit(policies.trivialaugment).lower(images, keys).compile()


def test_count_zero_changes_nothing():
    images, keys, randaugment, _ = rows()
    np.testing.assert_array_equal(randaugment(images, keys, np.float32(0), np.float32(9)), images)


def test_operations_of_one_image_follow_one_another():
    images, keys, randaugment, _ = rows()
    alone = jax.jit(functools.partial(policies.apply_random_operation, ranges=policies.NARROW))
    expected = list(images)
    for row, key in enumerate(keys):
        for at in range(3):
            expected[row] = alone(expected[row], jax.random.fold_in(key, at), np.float32(0.7))
    np.testing.assert_allclose(randaugment(images, keys, np.float32(3), np.float32(7)), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["randaugment", "trivialaugment"])
def test_a_rows_draw_depends_on_no_neighbor_and_stays_in_range(name):
    images, keys, randaugment, trivialaugment = rows()
    given = (np.float32(2), np.float32(9)) if name == "randaugment" else ()
    function = randaugment if given else trivialaugment
    whole = np.asarray(function(images, keys, *given))
    order = np.array([4, 0, 5, 2, 2, 1])
    moved = function(np.concatenate([images[order[:5]], 1 - images[:1]]), keys[order], *given)
    np.testing.assert_array_equal(moved[:5], whole[order[:5]])
    assert len({row.tobytes() for row in whole}) == ROWS
    assert (whole.shape, whole.dtype) == (images.shape, np.float32)
    assert whole.min() >= 0
    assert whole.max() <= 1 + 1e-6


def test_rows_in_turn_are_rows_at_once(monkeypatch):
    """The form of a CPU and the form of other platforms, both run here."""
    images, keys, randaugment, _ = rows()
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *given, cpu, default: default(*given))
    at_once = jax.jit(policies.randaugment)(images, keys, np.float32(2), np.float32(7))
    np.testing.assert_allclose(at_once, randaugment(images, keys, np.float32(2), np.float32(7)), atol=1e-5)


def test_a_row_runs_its_own_operation_only():
    """On a CPU the compiled program branches fourteen ways, once; it does not compute all and choose."""
    for function in rows()[2:]:
        (branches,) = re.findall(r" conditional\(.*branch_computations=\{([^}]*)\}", function.as_text())
        assert branches.count(",") == 13


def test_recipes_write_them_as_the_papers_do():
    """RandAugment's two numbers N and M; TrivialAugment has none."""
    assert augment.operation_numbers(("randaugment(3, 15)", "randaugment", "trivialaugment")) == [[3, 15], [2, 9], []]
    for text in ("randaugment(1.5)", "randaugment(2, 31)", "trivialaugment(1)"):
        with pytest.raises(UserError, match="it is written"):
            augment.check((text,))
