"""The verb `batches`: what a loop of one's own gets from any data."""

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

CHANGES = ("flip", "jitter(0.5)")  # with batches of SIZE, compiled once for all tests
SIZE = 4
LABELS = {"train": np.arange(10) % 3, "validation": np.arange(4) % 3, "test": np.arange(7) % 3}


@pytest.fixture(scope="module")
def dataset():
    """Ten, four and seven images of noise; the images are not in memory, so that threads read them."""
    chance = np.random.default_rng(0)
    pixels = {name: chance.integers(0, 256, (len(labels), 6, 5, 3), np.uint8) for name, labels in LABELS.items()}
    splits = {name: Split(np.int32(labels), pixels[name].__getitem__, False) for name, labels in LABELS.items()}
    return data.Dataset(("a", "b", "c"), (6, 5, 3), splits, "fingerprint")


def whole(split):
    return split.read(np.arange(len(split)))


# --- what comes


def test_training_examples_come_shuffled_once_as_floats_from_0_to_1(dataset):
    split = dataset.splits["train"]
    found = list(cnn_vit.batches(dataset, batch_size=4, seed=3))
    assert [len(images) for images, _ in found] == [4, 4, 2]
    images, labels = map(np.concatenate, zip(*found, strict=True))
    assert (images.shape, images.dtype, labels.shape, labels.dtype) == ((10, 6, 5, 3), np.float32, (10,), np.int32)
    order = stream.order(10, 3, np.arange(10))
    assert order.tolist() != list(range(10))
    assert np.array_equal(labels, split.labels[order])
    np.testing.assert_allclose(images, whole(split)[order] / 255, rtol=1e-7)
    assert images.max() <= 1


@pytest.mark.parametrize("split", ["validation", "test"])
def test_other_splits_come_in_order(dataset, split):
    chosen, found = dataset.splits[split], list(cnn_vit.batches(dataset, split=split, batch_size=3, epochs=2))
    images, labels = map(np.concatenate, zip(*found, strict=True))
    assert np.array_equal(labels, np.tile(chosen.labels, 2))
    np.testing.assert_allclose(images, np.tile(whole(chosen), (2, 1, 1, 1)) / 255, rtol=1e-7)


def test_epochs_follow_without_a_seam_and_only_the_last_batch_is_short(dataset):
    found = list(cnn_vit.batches(dataset, batch_size=4, seed=1, epochs=3))
    assert [len(labels) for _, labels in found] == [4] * 7 + [2]
    labels = np.concatenate([labels for _, labels in found])
    assert np.array_equal(labels, dataset.splits["train"].labels[stream.order(10, 1, np.arange(30))])


@pytest.mark.parametrize("split", ["train", "test"])
def test_no_number_of_epochs_is_no_end(dataset, split):
    endless = cnn_vit.batches(dataset, split=split, batch_size=32, epochs=None)
    assert [len(labels) for _, labels in itertools.islice(endless, 20)] == [32] * 20


def test_a_batch_larger_than_the_data_is_one_short_batch(dataset):
    found = list(cnn_vit.batches(dataset, batch_size=1_000_000))
    assert (
        len(next(epoch_rows(dataset.splits["train"], 1_000_000, 1, seed=0)).examples) == 10
    )  # nor is it padded on the way
    assert [images.shape for images, _ in found] == [(10, 6, 5, 3)]


def test_arrays_are_the_callers_own(dataset):
    before = whole(dataset.splits["test"]).copy()
    for operations in ((), CHANGES):
        for images, labels in cnn_vit.batches(dataset, split="test", batch_size=SIZE, augment=operations):
            assert isinstance(images, np.ndarray)
            images *= 0
            labels += 1
    assert np.array_equal(whole(dataset.splits["test"]), before)
    assert np.array_equal(dataset.splits["test"].labels, LABELS["test"])


# --- chance


def test_images_are_augmented_as_in_the_run_of_that_seed(dataset):
    found = cnn_vit.batches(dataset, batch_size=SIZE, seed=7, augment=CHANGES, epochs=2)
    run = stream.batches(dataset.splits["train"], batch_size=SIZE, seed=7, first=0)
    function = jax.jit(augment.build_augmentation(augment.operation_names(CHANGES), 3))
    for update, (images, labels) in enumerate(found):
        batch = next(run)
        rows, mix, _ = jax.random.split(jax.random.fold_in(jax.random.key(7), update), 3)
        keys = jnp.stack([jax.random.fold_in(rows, row) for row in range(SIZE)])
        expected, _ = function(batch["image"], batch["label"], keys, mix, augment.operation_numbers(CHANGES))
        assert np.array_equal(labels, batch["label"])
        np.testing.assert_allclose(images, expected, atol=1e-6)
    assert update == 4


def test_a_short_batch_is_augmented_as_if_it_were_whole(dataset):
    long, short = (list(cnn_vit.batches(dataset, batch_size=SIZE, augment=CHANGES, epochs=epochs)) for epochs in (2, 1))
    assert len(short[2][0]) == 2
    np.testing.assert_allclose(short[2][0], long[2][0][:2], atol=1e-6)


def test_another_seed_gives_another_order_and_other_changes(dataset):
    def first(seed):
        images, _ = next(cnn_vit.batches(dataset, split="test", batch_size=SIZE, augment=CHANGES, seed=seed))
        return images, next(cnn_vit.batches(dataset, seed=seed))[1]

    (images, labels), (others, other_labels), (again, _) = first(0), first(1), first(0)
    assert np.abs(images - others).max() > 0.1
    assert not np.array_equal(labels, other_labels)
    assert np.array_equal(images, again)


# --- sources


def same(one, other):
    return all(np.array_equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))


def test_a_source_may_be_a_name_a_section_settings_or_a_data_set():
    section = {"name": "digits", "validation": "train[:50]", "augment": ("flip",)}
    values = {key: row.default for key, row in KEYS.items()} | {f"data.{key}": one for key, one in section.items()}
    loaded = data.load(section)
    expected = list(cnn_vit.batches(loaded, split="validation"))
    assert sum(len(labels) for _, labels in expected) == 50
    assert same(cnn_vit.batches(section, split="validation"), expected)
    assert same(cnn_vit.batches(Settings(values, {}, "mine"), split="validation"), expected)
    digits = data.load({"name": "digits"})
    assert same(cnn_vit.batches("digits", split="test"), cnn_vit.batches(digits, split="test"))


def test_a_folder_is_read_at_the_size_asked_for(tmp_path, monkeypatch):
    chance = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "digits" / name).mkdir(parents=True)
        for number in range(12):
            pixels = chance.integers(0, 256, (9, 12, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "digits" / name / f"{number}.png")
    found = [batch for split in LABELS for batch in cnn_vit.batches(tmp_path / "digits", size=8, split=split)]
    assert sum(len(labels) for _, labels in found) == 24
    assert {images.shape[1:] for images, _ in found} == {(8, 8, 3)}
    monkeypatch.chdir(tmp_path)
    assert next(cnn_vit.batches("./digits", size=(4, 6)))[0].shape[1:] == (4, 6, 3)
    assert next(cnn_vit.batches("digits"))[0].shape[1:] == (8, 8, 1)  # the source of that name


# --- what is refused


def test_it_is_a_plain_generator_and_errors_come_at_the_call(dataset):
    assert inspect.isgenerator(cnn_vit.batches(dataset))
    with pytest.raises(UserError):
        cnn_vit.batches(dataset, split="valid")


@pytest.mark.parametrize(
    ("given", "says"),
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
        (dict(size=0), "size is 0"),
        (dict(size=6), "size is 6, but the data set is read as 6x5"),
    ],
)
def test_a_wrong_argument_is_one_sentence(dataset, given, says):
    with pytest.raises(UserError) as caught:
        cnn_vit.batches(dataset, **given)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_size_that_a_data_set_has_may_be_said(dataset):
    assert next(cnn_vit.batches(dataset, size=(6, 5)))[0].shape == (10, 6, 5, 3)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (5, "5 names no data"),
        ("digit", "no path or data source 'digit'; did you mean digits?"),
        ("nowhere/at/all", "nowhere/at/all is not there"),
        ({"name": "digits", "image_size": 0}, "data.image_size is 0"),
        ({"name": "digits", "pth": "x"}, "did you mean data.path?"),
        ({"path": "x"}, "data.name is None"),
        ({"name": "folder"}, "data.path"),
    ],
)
def test_a_source_that_is_none_is_one_sentence(source, says):
    with pytest.raises(UserError) as caught:
        cnn_vit.batches(source)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
