"""Augmentation as a whole: what enters and leaves, chance, and what a recipe may write."""

import ast
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from augmenting import QUICK, changed, compiled, noise

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
    out, target = changed((), images, labels=[3, 9])
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
    out, target = changed(operations, noise(6, 5, 8, channels))
    assert (out.shape, out.dtype) == ((6, 5, 8, channels), np.float32)
    assert out.min() >= 0
    assert out.max() <= 1 + 1e-6
    np.testing.assert_allclose(target.sum(1), 1, atol=1e-6)


OFF = ("pad_crop(0)", "shift(0)", "rotate(0)", "affine(0, 0, 0)", "resized_crop(1, 1)", "jitter(0, 0, 0)", "erase(0)")


@pytest.mark.parametrize("text", [*OFF, "mixup(0)", "cutmix(0)"])
def test_strength_zero_is_the_identity(text):
    images = noise(10, 6, 5, 1)
    out, target = changed((text,), images)
    np.testing.assert_allclose(out, images / 255, atol=2e-6)
    np.testing.assert_array_equal(target, np.eye(10))


# --- chance


def test_a_rows_draw_depends_on_no_neighbor_and_no_batch_size():
    images, keys = noise(6, 5, 7, 3), jax.random.split(jax.random.key(1), 6)
    function, given = compiled(augment.operation_names(ROWS)), augment.operation_numbers(ROWS)
    whole, _ = function(images, np.zeros(6, np.int32), keys, keys[0], given)
    others = np.concatenate([255 - images[:1], images[4:]])
    part, _ = function(others, np.zeros(3, np.int32), keys[jnp.array([3, 4, 5])], keys[1], given)
    np.testing.assert_allclose(part[1:], whole[4:], atol=2e-6)
    assert np.abs(part[0] - whole[3]).max() > 0.1  # another image under the same key


def test_an_operation_draws_from_its_rows_key_and_its_place():
    images, keys = noise(40, 3, 4, 1), jax.random.split(jax.random.key(2), 40)
    flipped = jax.jit(jax.vmap(geometry.flip))
    first = flipped(images / np.float32(255), jax.vmap(lambda key: jax.random.fold_in(key, 0))(keys))
    second = flipped(first, jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys))
    out, _ = compiled(("flip", "flip"))(images, np.zeros(40, np.int32), keys, keys[0], [[], []])
    np.testing.assert_allclose(out, second, atol=1e-7)
    assert np.abs(out - images / np.float32(255)).max() > 0.1  # the two places do not draw alike


def test_a_mixing_operation_draws_from_the_batchs_key_and_its_place():
    images, key = noise(6, 3, 4, 1), jax.random.key(5)
    floats, labels = jnp.asarray(images / np.float32(255)), np.arange(6, dtype=np.int32)
    expected = jax.jit(mix.mixup)(floats, jnp.eye(6, 10), jax.random.fold_in(key, 1), 1.0)
    out = compiled(("pad_crop", "mixup"))(images, labels, jax.random.split(key, 6), key, [[0.0], [1.0]])
    for one, other in zip(out, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_another_strength_traces_nothing_anew_and_changes_the_images():
    weak = ("pad_crop(1)", "affine(5, 0.5, 0.1)", "jitter(0.1)", "erase(0.1)", "mixup(0.1)")
    strong = ("pad_crop(3)", "affine(50, 2, 0.5)", "jitter(0.9)", "erase(1)", "mixup(2)")
    assert augment.operation_names(weak) == augment.operation_names(strong)
    traces, inner = [], augment.build_augmentation(weak, 10)
    function = jax.jit(lambda *given: traces.append(1) or inner(*given), compiler_options=QUICK)
    images, keys = noise(4, 6, 6, 1), jax.random.split(jax.random.key(0), 4)
    outs = [
        function(
            images,
            np.zeros(4, np.int32),
            keys,
            keys[0],
            jax.tree.map(np.float32, augment.operation_numbers(operations)),
        )[0]
        for operations in (weak, strong)
    ]
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
    ("text", "says"),
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
        ("jitter(saturation=0.2, 0.3)", "'0.3' is no number, nor keyword=number"),
        ("resized_crop(0.5, 0.2)", "min_area 0.5 is above max_area 0.2"),
        ("mixup(0.2", "is not written as an operation"),
        ("mixup(__import__('os'))", "is not written as an operation"),
        ("", "is not written as an operation"),
        (4, "4 is not written as an operation"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(text, says):
    with pytest.raises(UserError) as caught:
        augment.check(("flip", text))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_operation_is_right_with_its_defaults_and_at_its_limits():
    augment.check(list(augment.OPERATIONS))
    for name, operation in augment.OPERATIONS.items():
        for limits in zip(*((number.low, number.high) for number in operation.numbers), strict=True):
            augment.check((f"{name}({', '.join(map(str, limits))})",))
        assert augment.operation_names((augment.signature(name),)) == (name,)


def test_names_and_meanings_can_be_read_without_importing():
    tree = ast.parse(Path(augment.__file__).read_text())
    table = tree.body[-1]
    assert table.targets[0].id == "OPERATIONS"
    calls = zip(table.value.keys, table.value.values, strict=True)
    read = {ast.literal_eval(key): ast.literal_eval(call.args[0]) for key, call in calls}
    assert read == {name: operation.meaning for name, operation in augment.OPERATIONS.items()}
    assert all(len(meaning) < 110 and "\n" not in meaning for meaning in read.values())


# --- images smaller than their images


@pytest.mark.parametrize("text", [name for name, operation in augment.OPERATIONS.items() if operation.masks])
def test_an_image_in_a_corner_is_changed_as_if_it_were_alone(text):
    """With the same keys, for twenty of them; black lies around it before and after."""
    names, given = augment.operation_names((text,)), augment.operation_numbers((text,))
    image = noise(20, 7, 9, 3)
    images, mask = np.zeros((20, 10, 16, 3), np.uint8), np.zeros((20, 10, 16), bool)
    images[:, :7, :9], mask[:, :7, :9] = image, True
    keys, labels = jax.random.split(jax.random.key(1), 20), np.zeros(20, np.int32)
    change = jax.jit(augment.build_augmentation(names, 10))
    alone, _ = change(image, labels, keys, jax.random.key(2), given)
    found, _ = change(images, labels, keys, jax.random.key(2), given, mask)
    assert np.abs(np.asarray(alone) * 255 - image).max() > 1  # something was changed
    np.testing.assert_allclose(found[:, :7, :9], alone, atol=2e-6)
    assert np.abs(np.where(mask[..., None], 0, found)).max() == 0
