"""Augmentation as a whole: what enters and leaves, the random draws, and what a recipe may write."""

import ast
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from augmenting import QUICK, augmented, compiled, noise

from cnn_vit.data import augment
from cnn_vit.data.augment import geometry, mix
from cnn_vit.errors import UserError

POLICIES = ("randaugment", "trivialaugment")  # of fourteen operations each, slow to compile: test_policies has them
ROWS = ("pad_crop(2)", "affine", "flip", "resized_crop", "jitter", "erase")


@pytest.fixture(autouse=True)
def _strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


# --- entering and leaving


def test_bytes_become_floats_from_0_to_1_and_labels_rows_of_one():
    images = np.arange(0, 240, 10, dtype=np.uint8).reshape(2, 3, 4, 1)
    out, target = augmented((), images, labels=[3, 9])
    np.testing.assert_allclose(out, images / 255, atol=1e-7)
    assert out.dtype == np.float32
    assert target.tolist() == [[0, 0, 0, 1, 0, 0, 0, 0, 0, 0], [0] * 9 + [1]]


@pytest.mark.parametrize(
    ("channels", "operations"),
    [
        (3, tuple(name for name in augment.OPERATIONS if name not in POLICIES)),
        (1, ("resized_crop", "jitter", "erase", "cutmix")),
    ],
    ids=["color", "gray"],
)
def test_every_operation_keeps_shape_range_and_sum_of_labels(channels, operations):
    out, target = augmented(operations, noise(6, 5, 8, channels))
    assert (out.shape, out.dtype) == ((6, 5, 8, channels), np.float32)
    assert out.min() >= 0
    assert out.max() <= 1 + 1e-6
    np.testing.assert_allclose(target.sum(1), 1, atol=1e-6)


OFF = ("pad_crop(0)", "shift(0)", "rotate(0)", "affine(0, 0, 0)", "resized_crop(1, 1)", "jitter(0, 0, 0)", "erase(0)")


@pytest.mark.parametrize("text", [*OFF, "mixup(0)", "cutmix(0)"])
def test_strength_zero_is_the_identity(text):
    images = noise(10, 6, 5, 1)
    out, target = augmented((text,), images)
    np.testing.assert_allclose(out, images / 255, atol=2e-6)
    np.testing.assert_array_equal(target, np.eye(10))


# --- random draws


def test_a_steps_keys_are_those_of_the_written_rule():
    """step_key = fold_in(key, step); rows, mix, drop = split(step_key, 3); row r has fold_in(rows, r)."""
    run_key = jax.random.key(7)
    keys = jax.jit(augment.split_step_key, static_argnums=2)(run_key, 12, 5)
    rows, mix_key, dropout_key = jax.random.split(jax.random.fold_in(run_key, 12), 3)
    expected_row_keys = jnp.stack([jax.random.fold_in(rows, row) for row in range(5)])
    np.testing.assert_array_equal(jax.random.key_data(keys.row_keys), jax.random.key_data(expected_row_keys))
    np.testing.assert_array_equal(jax.random.key_data(keys.mix_key), jax.random.key_data(mix_key))
    np.testing.assert_array_equal(jax.random.key_data(keys.dropout_key), jax.random.key_data(dropout_key))


def test_all_keys_of_several_steps_differ_and_a_rows_key_depends_on_no_batch_size():
    run_key = jax.random.key(0)
    all_keys = []
    for step in range(3):
        keys = augment.split_step_key(run_key, step, 4)
        all_keys += [*keys.row_keys, keys.mix_key, keys.dropout_key]
        larger = augment.split_step_key(run_key, step, 6).row_keys
        np.testing.assert_array_equal(jax.random.key_data(larger[:4]), jax.random.key_data(keys.row_keys))
    assert len({jax.random.key_data(key).tobytes() for key in all_keys}) == 3 * 6


def test_a_rows_draw_depends_on_no_neighbor_and_no_batch_size():
    images, keys = noise(6, 5, 7, 3), jax.random.split(jax.random.key(1), 6)
    augmentation, numbers = compiled(augment.operation_names(ROWS)), augment.operation_numbers(ROWS)
    whole, _ = augmentation(images, np.zeros(6, np.int32), keys, keys[0], numbers)
    other_images = np.concatenate([255 - images[:1], images[4:]])
    part, _ = augmentation(other_images, np.zeros(3, np.int32), keys[jnp.array([3, 4, 5])], keys[1], numbers)
    np.testing.assert_allclose(part[1:], whole[4:], atol=2e-6)
    assert np.abs(part[0] - whole[3]).max() > 0.1  # another image under the same key


def test_an_operation_draws_from_its_rows_key_and_its_place():
    images, keys = noise(40, 3, 4, 1), jax.random.split(jax.random.key(2), 40)
    flip = jax.jit(jax.vmap(geometry.flip))
    first = flip(images / np.float32(255), jax.vmap(lambda key: jax.random.fold_in(key, 0))(keys))
    second = flip(first, jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys))
    out, _ = compiled(("flip", "flip"))(images, np.zeros(40, np.int32), keys, keys[0], [[], []])
    np.testing.assert_allclose(out, second, atol=1e-7)
    assert np.abs(out - images / np.float32(255)).max() > 0.1  # the two places do not draw alike


def test_a_mixing_operation_draws_from_the_batchs_key_and_its_place():
    images, key = noise(6, 3, 4, 1), jax.random.key(5)
    floats, labels = jnp.asarray(images / np.float32(255)), np.arange(6, dtype=np.int32)
    expected = jax.jit(mix.mixup)(floats, jnp.eye(6, 10), jax.random.fold_in(key, 1), 1.0)
    out = compiled(("pad_crop", "mixup"))(images, labels, jax.random.split(key, 6), key, [[0.0], [1.0]])
    for array, expected_array in zip(out, expected, strict=True):
        np.testing.assert_allclose(array, expected_array, atol=1e-6)


def test_another_strength_traces_nothing_anew_and_changes_the_images():
    weak = ("pad_crop(1)", "affine(5, 0.5, 0.1)", "jitter(0.1)", "erase(0.1)", "mixup(0.1)")
    strong = ("pad_crop(3)", "affine(50, 2, 0.5)", "jitter(0.9)", "erase(1)", "mixup(2)")
    assert augment.operation_names(weak) == augment.operation_names(strong)
    augmentation = augment.build_augmentation(weak, 10)
    traces = []

    def traced(*args):
        traces.append(args)
        return augmentation(*args)

    function = jax.jit(traced, compiler_options=QUICK)
    images, keys = noise(4, 6, 6, 1), jax.random.split(jax.random.key(0), 4)
    outs = []
    for operations in (weak, strong):
        numbers = jax.tree.map(np.float32, augment.operation_numbers(operations))
        out, _ = function(images, np.zeros(4, np.int32), keys, keys[0], numbers)
        outs.append(out)
    assert len(traces) == 1
    assert np.abs(outs[0] - outs[1]).max() > 0.1


# --- what is written


@pytest.mark.parametrize(
    ("text", "name", "numbers"),
    [
        ("flip", "flip", []),
        ("flip()", "flip", []),
        ("pad_crop(4)", "pad_crop", [4]),
        ("pad_crop( pixels = 1e1 )", "pad_crop", [10]),
        (" affine (5, scale=0.2) ", "affine", [5, 1, 0.2]),
        ("jitter(saturation=0, brightness=.25)", "jitter", [0.25, 0.4, 0]),
        ("erase", "erase", [0.5, 0.02, 0.4]),
    ],
)
def test_numbers_are_read_by_position_and_by_name_with_defaults(text, name, numbers):
    assert augment.operation_names((text,)) == (name,)
    assert augment.operation_numbers((text,)) == [numbers]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("flop", "no operation of data.augment 'flop'; did you mean flip"),
        ("padcrop(4)", "did you mean pad_crop"),
        ("flip(3)", "too many numbers; it is written flip"),
        ("pad_crop(4.5)", "pixels is 4.5, not a whole number from 0 to 1024; it is written pad_crop(pixels=4)"),
        ("shift(-1)", "pixels is -1, not a number from 0 to 1024"),
        ("mixup(nan)", "alpha is nan, not a number from 0 to 100"),
        ("mixup(inf)", "alpha is inf"),
        ("rotate(x)", "degrees is x"),
        ("affine(angle=3)", "there is no 'angle'; it is written affine(degrees=10, shift=1, scale=0.1)"),
        ("affine(3, degrees=4)", "degrees is given twice"),
        ("jitter(saturation=0.2, 0.3)", "'0.3' is not a number and not keyword=number"),
        ("resized_crop(0.5, 0.2)", "min_area 0.5 is above max_area 0.2"),
        ("mixup(0.2", "is not written as an operation"),
        ("mixup(__import__('os'))", "is not written as an operation"),
        ("", "is not written as an operation"),
        (4, "4 is not written as an operation"),
    ],
)
def test_a_wrong_text_is_refused_in_one_sentence(text, sentence):
    with pytest.raises(UserError) as caught:
        augment.check(("flip", text))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_operation_is_right_with_its_defaults_and_at_its_limits():
    augment.check(list(augment.OPERATIONS))
    for name, operation in augment.OPERATIONS.items():
        if operation.numbers:
            lowest = ", ".join(str(number.low) for number in operation.numbers)
            highest = ", ".join(str(number.high) for number in operation.numbers)
            augment.check((f"{name}({lowest})", f"{name}({highest})"))
        assert augment.operation_names((augment.signature(name),)) == (name,)


def test_names_and_meanings_can_be_read_without_importing():
    tree = ast.parse(Path(augment.__file__).read_text())
    table = tree.body[-1]
    assert table.targets[0].id == "OPERATIONS"
    calls = zip(table.value.keys, table.value.values, strict=True)
    meanings = {ast.literal_eval(key): ast.literal_eval(call.args[0]) for key, call in calls}
    assert meanings == {name: operation.meaning for name, operation in augment.OPERATIONS.items()}
    assert all(len(meaning) < 110 and "\n" not in meaning for meaning in meanings.values())


# --- images on a larger canvas


@pytest.mark.parametrize("text", [name for name, operation in augment.OPERATIONS.items() if operation.masks])
def test_an_image_on_a_canvas_is_changed_as_if_it_were_alone(text):
    """With the same keys, for twenty of them; the canvas is black around it before and after."""
    names, numbers = augment.operation_names((text,)), augment.operation_numbers((text,))
    images = noise(20, 7, 9, 3)
    canvases, mask = np.zeros((20, 10, 16, 3), np.uint8), np.zeros((20, 10, 16), bool)
    canvases[:, :7, :9], mask[:, :7, :9] = images, True
    keys, labels = jax.random.split(jax.random.key(1), 20), np.zeros(20, np.int32)
    augmentation = compiled(names)
    alone, _ = augmentation(images, labels, keys, jax.random.key(2), numbers)
    on_canvas, _ = augmentation(canvases, labels, keys, jax.random.key(2), numbers, mask)
    assert np.abs(np.asarray(alone) * 255 - images).max() > 1  # something was changed
    np.testing.assert_allclose(on_canvas[:, :7, :9], alone, atol=2e-6)
    assert np.abs(np.where(mask[..., None], 0, on_canvas)).max() == 0
