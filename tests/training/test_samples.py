"""What a finished run keeps to be looked at: the batch it saw, its worst mistakes, its first filters and positions."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from running import configured, result, train

from cnn_vit import data, files
from cnn_vit.data import augment
from cnn_vit.data.feed import stream
from cnn_vit.nn.values import initial_values
from cnn_vit.training import evaluation, forward, plan, samples


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of an MLP, augmented and mixed."""
    folder = tmp_path_factory.mktemp("samples") / "run"
    train("mlp", folder, "data.augment=('shift(1)', 'mixup(1)')")
    return folder


@pytest.fixture(scope="module")
def dataset():
    return data.load(configured("mlp").section("data"))


def test_the_batch_is_the_first_one_as_the_step_draws_it(run, dataset):
    kept = files.read_npz(run / "samples.npz")
    index = stream.order(len(dataset.splits["train"]), 0, np.arange(32))
    images, labels = dataset.splits["train"].read(index), dataset.splits["train"].labels[index]
    rows, mix, _ = jax.random.split(jax.random.fold_in(jax.random.key(0), 0), 3)  # the step key of update 0
    keys = jnp.stack([jax.random.fold_in(rows, row) for row in range(32)])
    change = augment.build_augmentation(("shift", "mixup"), 10)
    seen, target = change(jnp.asarray(images), jnp.asarray(labels), keys, mix, [[1.0], [1.0]])
    np.testing.assert_allclose(kept["seen"], 255 * np.asarray(seen), atol=0.51)
    np.testing.assert_array_equal(kept["seen_label"], labels)
    np.testing.assert_allclose(kept["seen_share"], target[np.arange(32), labels], atol=1e-6)
    mixed = kept["seen_share"] < 1 - 1e-6
    other = np.asarray(target)[np.arange(32), kept["seen_other"]]
    np.testing.assert_allclose((other + kept["seen_share"])[mixed], 1, atol=1e-6)


def test_mistakes_are_the_wrong_validation_images_of_highest_loss(run, dataset):
    kept, found = files.read_npz(run / "samples.npz"), evaluation.load_predictions(run, "validation")
    wrong = {int(index): float(loss) for index, loss, label, predicted
             in zip(found["index"], found["loss"], found["label"], found["predicted"], strict=True)
             if label != predicted}  # fmt: skip
    worst = sorted(wrong, key=lambda index: -wrong[index])[:32]
    assert list(kept["mistakes_index"]) == worst
    np.testing.assert_array_equal(kept["mistakes"], dataset.splits["validation"].read(np.array(worst)))


def test_a_finished_run_that_lacks_them_makes_the_same_without_reading_the_test_split(run):
    before, told = (run / "samples.npz").read_bytes(), result(run)
    (run / "samples.npz").unlink()
    reads = (run / "test_reads.jsonl").read_bytes()
    assert train("mlp", run, "data.augment=('shift(1)', 'mixup(1)')") == told
    assert (run / "samples.npz").read_bytes() == before
    assert (run / "test_reads.jsonl").read_bytes() == reads


@pytest.mark.parametrize(("name", "path"), [("cnn", ("stem", "kernel")), ("vit", ("patches", "kernel"))])
def test_filters_are_the_first_values_and_the_tested_ones(name, path, tmp_path):
    form = plan.network_spec(configured(name), classes=10, image_shape=(8, 8, 1))
    network = forward.get_network(form)
    first = initial_values(network, 5)[0]
    tested = jax.tree.map(lambda leaf: leaf + 1, first)
    program = SimpleNamespace(
        spec=SimpleNamespace(network=form),
        step=SimpleNamespace(network=network),
        settings={"seed": 5},
        dataset=SimpleNamespace(image_shape=(8, 8, 1)),
    )
    kept = samples.collect_features(tmp_path, program, tested)
    before = np.moveaxis(first[path[0]][path[1]], -1, 0)[:64]
    np.testing.assert_array_equal(kept["filters_before"], before)
    np.testing.assert_array_equal(kept["filters_after"], before + 1)
    assert ("similarity" in kept, "patches" in kept) == (name == "vit", name == "vit")
    files.write_json(tmp_path / "fork.json", {"from": "another", "step": 3})
    assert "filters_before" not in samples.collect_features(tmp_path, program, tested)  # they were another run's


def test_large_images_are_means_of_squares_and_small_ones_stay():
    images = np.random.default_rng(0).integers(0, 256, (2, 300, 200, 3)).astype(np.uint8)
    found = samples.shrink(images)
    assert found.shape == (2, 100, 66, 3)
    assert found[1, 4, 7, 2] == round(float(images[1, 12:15, 21:24, 2].mean()))
    np.testing.assert_array_equal(samples.shrink(images[:, :128, :128]), images[:, :128, :128])
    assert samples.shrink(images[:, :1]).shape == (2, 1, 100, 3)
