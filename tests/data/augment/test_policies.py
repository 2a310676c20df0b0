"""RandAugment and TrivialAugment: each operation against Pillow or NumPy, and what is drawn for which image."""

import functools
import re

import jax
import numpy as np
import pytest
from augmenting import MANY, QUICK, augmented, noise
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


@functools.cache
def compiled_alone(name, ranges):
    return jax.jit(functools.partial(policies.CHANGES[name], ranges=ranges), compiler_options=QUICK)


def apply(name, image, signed=0.0, ranges=policies.NARROW):
    """What an operation makes of an image of bytes, in levels."""
    return 255 * np.asarray(compiled_alone(name, ranges)(image / np.float32(255), np.float32(signed)))


def random_image(channels=3, seed=0):
    """Levels from 40 to 209, so that there is something to stretch; less of the later colors, so that none is gray."""
    return (40 + noise(*SIDES, channels, seed=seed) // 1.5 / np.arange(1, channels + 1)).astype(np.uint8)


def to_pillow(image):
    return Image.fromarray(image if image.shape[-1] == 3 else image[..., 0])


def from_pillow(image):
    return np.asarray(image).reshape(*image.size[::-1], -1).astype(int)


# --- levels


@pytest.mark.parametrize("channels", [1, 3])
def test_autocontrast_is_pillows(channels):
    image = random_image(channels)
    out = apply("autocontrast", image)
    assert np.abs(out - from_pillow(ImageOps.autocontrast(to_pillow(image)))).max() <= 1  # Pillow cuts to whole levels
    assert (out.min(), out.max()) == (0, pytest.approx(255, abs=1e-3))


def test_autocontrast_leaves_a_channel_of_one_level():
    image = np.full((4, 5, 3), 77, np.uint8)
    np.testing.assert_allclose(apply("autocontrast", image), 77, atol=1e-4)


@few
@given(seed=st.integers(0, 1000), top=st.sampled_from([1, 2, 3, 90, 255]), channels=st.sampled_from([1, 3]))
def test_equalize_is_pillows_to_the_level(seed, top, channels):
    image = (noise(40, 30, channels, seed=seed).astype(int) % (top + 1)).astype(np.uint8)
    np.testing.assert_allclose(apply("equalize", image), from_pillow(ImageOps.equalize(to_pillow(image))), atol=1e-3)


def test_equalize_begins_where_255_pixels_lie_below_the_brightest():
    image = noise(16, 16, 1) // 2
    image[3, 4] = 255
    expected = from_pillow(ImageOps.equalize(to_pillow(image)))
    assert (expected != image).any()
    np.testing.assert_allclose(apply("equalize", image), expected, atol=1e-3)


@pytest.mark.parametrize(
    ("strength", "ranges", "bits"),
    [(0.0, policies.NARROW, 8), (0.5, policies.NARROW, 6), (-1.0, policies.NARROW, 4), (1.0, policies.WIDE, 2),
     (3.0, policies.NARROW, 1)],
)  # fmt: skip
def test_posterize_keeps_so_many_bits(strength, ranges, bits):
    image = noise(*SIDES, 3)
    expected = from_pillow(ImageOps.posterize(to_pillow(image), bits))
    np.testing.assert_allclose(apply("posterize", image, strength, ranges), expected, atol=1e-3)


@pytest.mark.parametrize(("strength", "threshold"), [(0.0, 256), (0.25, 192), (-0.5, 128), (1.0, 0), (3.0, 0)])
def test_solarize_turns_what_is_bright(strength, threshold):
    image = noise(*SIDES, 3)
    expected = from_pillow(ImageOps.solarize(to_pillow(image), threshold))
    np.testing.assert_allclose(apply("solarize", image, strength), expected, atol=1e-3)


ENHANCED = {"color": ImageEnhance.Color, "contrast": ImageEnhance.Contrast, "brightness": ImageEnhance.Brightness,
            "sharpness": ImageEnhance.Sharpness}  # fmt: skip


@BOTH
@pytest.mark.parametrize("name", ENHANCED)
@few
@given(signed=strengths)
def test_a_factor_is_pillows(name, ranges, signed):
    image = random_image()
    factor = 1 + signed * (0.9 if ranges is policies.NARROW else 0.99)
    expected = from_pillow(ENHANCED[name](to_pillow(image)).enhance(factor))
    assert np.abs(apply(name, image, signed, ranges) - expected).max() <= 2  # Pillow rounds gray, mean and sum


@pytest.mark.parametrize("name", ["color", "contrast", "brightness"])
def test_no_factor_is_below_zero(name):
    np.testing.assert_allclose(apply(name, random_image(), -3.0), apply(name, random_image(), -1 / 0.9), atol=1e-3)


def test_gray_has_no_color_to_change():
    np.testing.assert_allclose(apply("color", random_image(1), 0.7), random_image(1), atol=1e-3)


# --- places


def transform_with_pillow(image, signed, name):
    """Pillow's transform of an image, and a mask of the pixels that it read inside the image."""
    height, width = SIDES
    changed_number = {
        "move_x": (2, -signed * 150 / 331 * width),
        "move_y": (5, -signed * 150 / 331 * height),
        "shear_x": (1, signed * 0.3),
        "shear_y": (3, signed * 0.3),
    }
    # Across, down and constant of the column that a pixel is read at, then of the row.
    matrix = [1.0, 0, 0, 0, 1, 0]
    place, number = changed_number[name]
    matrix[place] = number

    def transform(pixels):
        pillow_image = to_pillow(pixels)
        return from_pillow(
            pillow_image.transform((width, height), Image.Transform.AFFINE, tuple(matrix), Image.Resampling.BILINEAR)
        )

    white = np.full((*SIDES, 1), 255, np.uint8)
    return transform(image), transform(white)[..., 0] > 0


def shrink_mask(mask):
    """Pixels of a mask whose four neighbors are in it, none at the edge: Pillow repeats it, we blend it with gray."""
    inner = mask.copy()
    for axis in (0, 1):
        inner &= np.roll(mask, 1, axis) & np.roll(mask, -1, axis)
    inner[[0, -1]] = inner[:, [0, -1]] = False
    return inner


@pytest.mark.parametrize("name", ["move_x", "move_y", "shear_x", "shear_y"])
@pytest.mark.parametrize("signed", [-1.0, -0.3, 0.4, 0.9])
def test_a_move_or_shear_is_pillows_transform_with_gray_outside(name, signed):
    image = random_image()
    expected, inside = transform_with_pillow(image, signed, name)
    out = apply(name, image, signed)
    well_inside, well_outside = shrink_mask(inside), shrink_mask(~inside)
    assert well_inside.sum() > 20
    assert np.abs(out - expected)[well_inside].max() <= 1.5
    np.testing.assert_allclose(out[well_outside], 128, atol=1e-3)


def test_moves_of_the_wide_ranges_are_32_pixels():
    image = noise(40, 40, 1)
    out = apply("move_x", image, 1.0, policies.WIDE)
    np.testing.assert_allclose(out[:, 32:], image[:, :8], atol=1e-2)
    np.testing.assert_allclose(out[:, :32], 128, atol=1e-3)


@pytest.mark.parametrize(("signed", "ranges", "degrees"), [(1.0, policies.NARROW, 30), (-0.5, policies.WIDE, -67.5)])
def test_a_turn_is_pillows_rotation(signed, ranges, degrees):
    image = np.asarray(Image.fromarray(noise(6, 6, 3)).resize((31, 31), Image.Resampling.BICUBIC))
    expected = from_pillow(to_pillow(image).rotate(degrees, Image.Resampling.BILINEAR))
    inner = (slice(8, -8), slice(8, -8))
    assert np.abs(apply("rotate", image, signed, ranges)[inner] - expected[inner]).max() <= 2


@pytest.mark.parametrize("name", sorted(set(policies.CHANGES) - {"autocontrast", "equalize"}))
def test_strength_zero_changes_nothing(name):
    np.testing.assert_allclose(apply(name, random_image()), random_image(), atol=1e-3)


# --- what is drawn


def test_both_lists_are_the_fourteen_of_the_papers():
    assert len(policies.CHANGES) == 14


UNSIGNED = ("identity", "autocontrast", "equalize", "posterize", "solarize")  # the same for either sign


def test_each_operation_comes_as_often_as_any():
    """An image on which the fourteen differ: each row's result is that of exactly one of them."""
    image = random_image(3, seed=4)
    out, _ = augmented(("randaugment(1, 9)",), np.repeat(image[None], MANY, 0))
    results = {}
    for name in policies.CHANGES:
        for sign in (1,) if name in UNSIGNED else (-1, 1):
            results[name, sign] = apply(name, image, sign * 0.9)
    counts = dict.fromkeys(results, 0)
    for row in 255 * out:
        (match,) = [key for key, expected in results.items() if np.abs(row - expected).max() < 0.05]
        counts[match] += 1
    counts_by_name = dict.fromkeys(policies.CHANGES, 0)
    counts_by_sign = {-1: 0, 1: 0}
    for (name, sign), count in counts.items():
        counts_by_name[name] += count
        if name not in UNSIGNED:
            counts_by_sign[sign] += count
    expected = MANY / 14
    chi_squared = sum((count - expected) ** 2 / expected for count in counts_by_name.values())
    assert chi_squared < 34.5  # 13 degrees of freedom, p = 0.001
    minus, plus = counts_by_sign[-1], counts_by_sign[1]
    assert abs(minus - plus) < 3.3 * np.sqrt(minus + plus)


def test_trivialaugment_draws_any_of_31_strengths():
    image = np.full((3, 3, 1), 100, np.uint8)
    out, _ = augmented(("trivialaugment",), np.repeat(image[None], 3 * MANY, 0))
    levels = {round(float(level), 2) for level in 255 * out[:, 1, 1, 0]}
    signed_steps = np.arange(-30, 31)
    blended = np.round(100 * (1 + 0.99 * signed_steps / 30), 2)  # what a factor makes of level 100
    drawn = {level for level in levels if np.abs(level - blended).min() < 0.02}
    assert len(drawn) > 45  # of 61; moves and turns give gray or leave it, solarize gives 155
    assert min(levels) < 5
    assert max(drawn) > 195


@functools.cache
def images_and_keys():
    return noise(ROWS, *SIDES, 3) / np.float32(255), jax.random.split(jax.random.key(1), ROWS)


@functools.cache
def compiled_randaugment():
    images, keys = images_and_keys()
    numbers = np.float32(3), np.float32(7)
    return jax.jit(policies.randaugment, compiler_options=QUICK).lower(images, keys, *numbers).compile()


@functools.cache
def compiled_trivialaugment():
    images, keys = images_and_keys()
    return jax.jit(policies.trivialaugment, compiler_options=QUICK).lower(images, keys).compile()


def test_count_zero_changes_nothing():
    images, keys = images_and_keys()
    np.testing.assert_array_equal(compiled_randaugment()(images, keys, np.float32(0), np.float32(9)), images)


def test_operations_of_one_image_follow_one_another():
    images, keys = images_and_keys()
    apply_random = jax.jit(functools.partial(policies.apply_random_operation, ranges=policies.NARROW))
    expected = list(images)
    for row, key in enumerate(keys):
        for turn in range(3):
            expected[row] = apply_random(expected[row], jax.random.fold_in(key, turn), np.float32(0.7))
    out = compiled_randaugment()(images, keys, np.float32(3), np.float32(7))
    np.testing.assert_allclose(out, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["randaugment", "trivialaugment"])
def test_a_rows_draw_depends_on_no_neighbor_and_stays_in_range(name):
    images, keys = images_and_keys()
    policy, numbers = compiled_trivialaugment, ()
    if name == "randaugment":
        policy, numbers = compiled_randaugment, (np.float32(2), np.float32(9))
    whole = np.asarray(policy()(images, keys, *numbers))
    order = np.array([4, 0, 5, 2, 2, 1])
    reordered = policy()(np.concatenate([images[order[:5]], 1 - images[:1]]), keys[order], *numbers)
    np.testing.assert_array_equal(reordered[:5], whole[order[:5]])
    assert len({row.tobytes() for row in whole}) == ROWS
    assert (whole.shape, whole.dtype) == (images.shape, np.float32)
    assert whole.min() >= 0
    assert whole.max() <= 1 + 1e-6


def test_rows_in_turn_are_rows_at_once(monkeypatch):
    """The form of a CPU and the form of other platforms, both run here."""
    images, keys = images_and_keys()
    in_turn = compiled_randaugment()(images, keys, np.float32(2), np.float32(7))
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *args, cpu, default: default(*args))
    at_once = jax.jit(policies.randaugment, compiler_options=QUICK)(images, keys, np.float32(2), np.float32(7))
    np.testing.assert_allclose(at_once, in_turn, atol=1e-5)


def test_a_row_runs_its_own_operation_only():
    """On a CPU the compiled program branches fourteen ways, once; it does not compute all and choose."""
    for function in (compiled_randaugment(), compiled_trivialaugment()):
        (branches,) = re.findall(r" conditional\(.*branch_computations=\{([^}]*)\}", function.as_text())
        assert branches.count(",") == 13


def test_recipes_write_them_as_the_papers_do():
    """RandAugment's two numbers N and M; TrivialAugment has none."""
    assert augment.operation_numbers(("randaugment(3, 15)", "randaugment", "trivialaugment")) == [[3, 15], [2, 9], []]
    for text in ("randaugment(1.5)", "randaugment(2, 31)", "trivialaugment(1)"):
        with pytest.raises(UserError, match="it is written"):
            augment.check((text,))
