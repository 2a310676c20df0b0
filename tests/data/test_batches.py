"""The verb `batches`: what a user's own loop gets from any data."""

import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import cnn_vit
from cnn_vit import data
from cnn_vit.data import augment
from cnn_vit.data.base.splits import Split
from cnn_vit.data.batches import epoch_rows
from cnn_vit.data.feed import stream
from cnn_vit.errors import UserError
from cnn_vit.settings import KEYS, Settings

OPERATIONS = ("flip", "jitter(0.5)")  # with batches of BATCH, compiled once for all tests
BATCH = 4
LABELS = {"train": np.arange(10) % 3, "validation": np.arange(4) % 3, "test": np.arange(7) % 3}


@pytest.fixture(scope="module")
def dataset():
    """Ten, four and seven images of noise; the images are not in memory, so that threads read them."""
    rng = np.random.default_rng(0)
    splits = {}
    for name, labels in LABELS.items():
        pixels = rng.integers(0, 256, (len(labels), 6, 5, 3), np.uint8)
        splits[name] = Split(np.int32(labels), pixels.__getitem__, False)
    return data.Dataset(("a", "b", "c"), (6, 5, 3), splits, "fingerprint")


def read_all(split):
    return split.read(np.arange(len(split)))


def join_batches(batches):
    """All images, and all labels, of some batches."""
    images, labels = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(labels)


# The order of the examples


def test_training_examples_come_shuffled_once_as_floats_from_0_to_1(dataset):
    split = dataset.splits["train"]
    batches = list(cnn_vit.batches(dataset, batch_size=4, seed=3))
    assert [len(images) for images, _ in batches] == [4, 4, 2]
    images, labels = join_batches(batches)
    assert (images.shape, images.dtype, labels.shape, labels.dtype) == ((10, 6, 5, 3), np.float32, (10,), np.int32)
    order = stream.order(10, 3, np.arange(10))
    assert order.tolist() != list(range(10))
    assert np.array_equal(labels, split.labels[order])
    np.testing.assert_allclose(images, read_all(split)[order] / 255, rtol=1e-7)
    assert images.max() <= 1


@pytest.mark.parametrize("name", ["validation", "test"])
def test_other_splits_come_in_order(dataset, name):
    split = dataset.splits[name]
    images, labels = join_batches(cnn_vit.batches(dataset, split=name, batch_size=3, epochs=2))
    assert np.array_equal(labels, np.tile(split.labels, 2))
    np.testing.assert_allclose(images, np.tile(read_all(split), (2, 1, 1, 1)) / 255, rtol=1e-7)


def test_epochs_follow_without_a_seam_and_only_the_last_batch_is_short(dataset):
    batches = list(cnn_vit.batches(dataset, batch_size=4, seed=1, epochs=3))
    assert [len(labels) for _, labels in batches] == [4] * 7 + [2]
    _, labels = join_batches(batches)
    assert np.array_equal(labels, dataset.splits["train"].labels[stream.order(10, 1, np.arange(30))])


@pytest.mark.parametrize("split", ["train", "test"])
def test_with_no_number_of_epochs_there_is_no_end(dataset, split):
    endless = cnn_vit.batches(dataset, split=split, batch_size=32, epochs=None)
    assert [len(labels) for _, labels in itertools.islice(endless, 20)] == [32] * 20


def test_a_batch_larger_than_the_data_is_one_short_batch(dataset):
    batches = list(cnn_vit.batches(dataset, batch_size=1_000_000))
    rows = next(epoch_rows(dataset.splits["train"], 1_000_000, 1, seed=0))
    assert len(rows.examples) == 10  # nor is it padded on the way
    assert [images.shape for images, _ in batches] == [(10, 6, 5, 3)]


def test_arrays_are_the_callers_own(dataset):
    before = read_all(dataset.splits["test"]).copy()
    for operations in ((), OPERATIONS):
        for images, labels in cnn_vit.batches(dataset, split="test", batch_size=BATCH, augment=operations):
            assert isinstance(images, np.ndarray)
            images *= 0
            labels += 1
    assert np.array_equal(read_all(dataset.splits["test"]), before)
    assert np.array_equal(dataset.splits["test"].labels, LABELS["test"])


# Augmentation


def test_images_are_augmented_as_in_the_run_of_that_seed(dataset):
    batches = cnn_vit.batches(dataset, batch_size=BATCH, seed=7, augment=OPERATIONS, epochs=2)
    run_batches = stream.batches(dataset.splits["train"], batch_size=BATCH, seed=7, start=0)
    augmentation = jax.jit(augment.build_augmentation(augment.operation_names(OPERATIONS), 3))
    numbers = augment.operation_numbers(OPERATIONS)
    for update, (images, labels) in enumerate(batches):
        batch = next(run_batches)
        rows, mix, _ = jax.random.split(jax.random.fold_in(jax.random.key(7), update), 3)
        row_keys = jnp.stack([jax.random.fold_in(rows, row) for row in range(BATCH)])
        expected, _ = augmentation(batch["image"], batch["label"], row_keys, mix, numbers)
        assert np.array_equal(labels, batch["label"])
        np.testing.assert_allclose(images, expected, atol=1e-6)
    assert update == 4


def test_a_short_batch_is_augmented_as_if_it_were_whole(dataset):
    two_epochs = list(cnn_vit.batches(dataset, batch_size=BATCH, augment=OPERATIONS, epochs=2))
    one_epoch = list(cnn_vit.batches(dataset, batch_size=BATCH, augment=OPERATIONS, epochs=1))
    whole_images, short_images = two_epochs[2][0], one_epoch[2][0]
    assert len(short_images) == 2
    np.testing.assert_allclose(short_images, whole_images[:2], atol=1e-6)


def test_another_seed_gives_another_order_and_other_changes(dataset):
    def first_augmented_images_and_labels(seed):
        images, _ = next(cnn_vit.batches(dataset, split="test", batch_size=BATCH, augment=OPERATIONS, seed=seed))
        _, labels = next(cnn_vit.batches(dataset, seed=seed))
        return images, labels

    images, labels = first_augmented_images_and_labels(0)
    images_of_seed_1, labels_of_seed_1 = first_augmented_images_and_labels(1)
    images_again, _ = first_augmented_images_and_labels(0)
    assert np.abs(images - images_of_seed_1).max() > 0.1
    assert not np.array_equal(labels, labels_of_seed_1)
    assert np.array_equal(images, images_again)


# Sources


def are_same_batches(batches, expected_batches):
    """Whether two series of batches have as many batches, and equal arrays in each."""
    for (images, labels), (expected_images, expected_labels) in zip(batches, expected_batches, strict=True):
        if not np.array_equal(images, expected_images) or not np.array_equal(labels, expected_labels):
            return False
    return True


def test_a_source_may_be_a_name_a_section_settings_or_a_data_set():
    section = {"name": "digits", "validation": "train[:50]", "augment": ("flip",)}
    values = {key: row.default for key, row in KEYS.items()}
    values |= {f"data.{key}": value for key, value in section.items()}
    expected = list(cnn_vit.batches(data.load(section), split="validation"))
    assert sum(len(labels) for _, labels in expected) == 50
    assert are_same_batches(cnn_vit.batches(section, split="validation"), expected)
    assert are_same_batches(cnn_vit.batches(Settings(values, {}, "mine"), split="validation"), expected)
    digits = data.load({"name": "digits"})
    assert are_same_batches(cnn_vit.batches("digits", split="test"), cnn_vit.batches(digits, split="test"))


def test_a_folder_is_read_at_the_size_asked_for(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "digits" / name).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 256, (9, 12, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "digits" / name / f"{number}.png")
    batches = []
    for split in LABELS:
        batches += cnn_vit.batches(tmp_path / "digits", image_size=8, split=split)
    assert sum(len(labels) for _, labels in batches) == 24
    assert {images.shape[1:] for images, _ in batches} == {(8, 8, 3)}
    monkeypatch.chdir(tmp_path)
    assert next(cnn_vit.batches("./digits", image_size=(4, 6)))[0].shape[1:] == (4, 6, 3)
    assert next(cnn_vit.batches("digits"))[0].shape[1:] == (8, 8, 1)  # the source of that name


# Refusals


def test_it_is_a_plain_generator_and_errors_come_at_the_call(dataset):
    assert inspect.isgenerator(cnn_vit.batches(dataset))
    with pytest.raises(UserError):
        cnn_vit.batches(dataset, split="valid")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (dict(split="tests"), "no split 'tests'; did you mean test?"),
        (dict(batch_size=0), "batch_size is 0"),
        (dict(batch_size=2.5), "batch_size is 2.5"),
        (dict(epochs=0), "epochs is 0 (batches); it takes an int from 1, or None for no end"),
        (dict(epochs=1.5), "epochs is 1.5"),
        (dict(epochs=True), "epochs is True"),
        (dict(seed=-1), "seed is -1"),
        (dict(augment="flip"), "augment is 'flip' (batches); it takes a tuple of texts"),
        (dict(augment=("flop",)), "did you mean flip"),
        (dict(augment=("flip", "mixup(0.2)")), "mixup mixes labels, which `batches` gives whole; leave it out"),
        (dict(augment=("cutmix",)), "cutmix mixes labels"),
        (dict(image_size=0), "image_size is 0"),
        (dict(image_size=6), "image_size is 6, but the data set is read as 6x5"),
    ],
)
def test_a_wrong_argument_is_one_sentence(dataset, arguments, sentence):
    with pytest.raises(UserError) as caught:
        cnn_vit.batches(dataset, **arguments)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_size_that_a_data_set_has_may_be_given(dataset):
    assert next(cnn_vit.batches(dataset, image_size=(6, 5)))[0].shape == (10, 6, 5, 3)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (5, "5 does not name data"),
        ("digit", "no path or data source 'digit'; did you mean digits?"),
        ("nowhere/at/all", "nowhere/at/all is not there"),
        ({"name": "digits", "image_size": 0}, "data.image_size is 0"),
        ({"name": "digits", "pth": "x"}, "did you mean data.path?"),
        ({"path": "x"}, "data.name is None"),
        ({"name": "folder"}, "data.path"),
    ],
)
def test_a_source_that_does_not_name_data_is_refused_in_one_sentence(source, sentence):
    with pytest.raises(UserError) as caught:
        cnn_vit.batches(source)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
