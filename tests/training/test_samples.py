"""The samples of a finished run: the batch that it saw, its worst mistakes, its first filters and positions."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import QUICK
from running import load_settings, read_result, train

from cnn_vit import data, files
from cnn_vit.analysis.input_layer import find_input_layer
from cnn_vit.data import augment
from cnn_vit.data.feed import stream
from cnn_vit.nn.values import initial_values
from cnn_vit.training import evaluation, forward, plan, samples
from cnn_vit.training.program import Program

pytestmark = pytest.mark.usefixtures("_compiled_quickly")

AUGMENT = "data.augment=('shift(1)', 'mixup(1)')"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """The folder of a finished run of an MLP, whose images are shifted and mixed."""
    folder = tmp_path_factory.mktemp("samples") / "run"
    train("mlp", folder, AUGMENT)
    return folder


@pytest.fixture(scope="module")
def dataset():
    return data.load(load_settings("mlp").section("data"))


def test_the_batch_is_the_first_one_as_the_step_draws_it(run_folder, dataset):
    arrays = files.read_npz(run_folder / "samples.npz")
    indices = stream.order(len(dataset.splits["train"]), 0, np.arange(32))
    images, labels = dataset.splits["train"].read(indices), dataset.splits["train"].labels[indices]
    step_key = jax.random.fold_in(jax.random.key(0), 0)  # of update 0
    rows_key, mix_key, _ = jax.random.split(step_key, 3)
    row_keys = jnp.stack([jax.random.fold_in(rows_key, row) for row in range(32)])
    apply_operations = jax.jit(augment.build_augmentation(("shift", "mixup"), 10), compiler_options=QUICK)
    seen, target = apply_operations(jnp.asarray(images), jnp.asarray(labels), row_keys, mix_key, [[1.0], [1.0]])
    np.testing.assert_allclose(arrays["seen"], 255 * np.asarray(seen), atol=0.51)
    np.testing.assert_array_equal(arrays["seen_label"], labels)
    np.testing.assert_allclose(arrays["seen_share"], target[np.arange(32), labels], atol=1e-6)
    is_mixed = arrays["seen_share"] < 1 - 1e-6
    second_share = np.asarray(target)[np.arange(32), arrays["seen_other"]]
    np.testing.assert_allclose((second_share + arrays["seen_share"])[is_mixed], 1, atol=1e-6)


def test_mistakes_are_the_wrong_validation_images_of_highest_loss(run_folder, dataset):
    arrays = files.read_npz(run_folder / "samples.npz")
    predictions = evaluation.load_predictions(run_folder, "validation")
    columns = (predictions[name] for name in ("index", "loss", "label", "predicted"))
    loss_of_mistake = {}
    for index, loss, label, predicted in zip(*columns, strict=True):
        if label != predicted:
            loss_of_mistake[int(index)] = float(loss)
    worst = sorted(loss_of_mistake, key=lambda index: -loss_of_mistake[index])[:32]
    assert list(arrays["mistakes_index"]) == worst
    np.testing.assert_array_equal(arrays["mistakes"], dataset.splits["validation"].read(np.array(worst)))


def test_mistakes_are_read_one_by_one_because_images_may_be_large(run_folder, dataset):
    validation = dataset.splits["validation"]
    read_counts = []

    def read(rows):
        read_counts.append(len(rows))
        return validation.read(rows)

    recorded = {"validation": replace(validation, read=read)}
    program = SimpleNamespace(dataset=SimpleNamespace(splits=recorded))
    arrays = samples.collect_worst_mistakes(run_folder, program)
    assert read_counts == [1] * len(arrays["mistakes"])


def test_a_finished_run_that_lacks_them_makes_the_same_without_reading_the_test_split(run_folder):
    path = run_folder / "samples.npz"
    samples_before, result_before = path.read_bytes(), read_result(run_folder)
    path.unlink()
    reads_before = (run_folder / "test_reads.jsonl").read_bytes()
    assert train("mlp", run_folder, AUGMENT) == result_before
    assert path.read_bytes() == samples_before
    assert (run_folder / "test_reads.jsonl").read_bytes() == reads_before


@pytest.mark.parametrize(("name", "path"), [("cnn", ("stem", "kernel")), ("narrow_vit", ("patches", "kernel"))])
def test_filters_are_the_initial_values_and_the_tested_ones(name, path, tmp_path):
    spec = plan.network_spec(load_settings(name), classes=10, image_shape=(8, 8, 1))
    network = forward.get_network(spec)
    initial_params, _ = initial_values(network, 5)
    tested_params = jax.tree.map(lambda leaf: leaf + 1, initial_params)
    program = SimpleNamespace(
        spec=SimpleNamespace(network=spec),
        step=SimpleNamespace(network=network),
        settings={"seed": 5, "pretrained.weights": None},
        dataset=SimpleNamespace(image_shape=(8, 8, 1)),
        input_layer=find_input_layer(forward.build_network(spec), (8, 8, 1)),
    )
    program.starting_kernel = partial(Program.starting_kernel, program)
    features = samples.collect_features(tmp_path, program, tested_params)
    filters_before = np.moveaxis(initial_params[path[0]][path[1]], -1, 0)[:64]
    np.testing.assert_array_equal(features["filters_before"], filters_before)
    np.testing.assert_array_equal(features["filters_after"], filters_before + 1)
    assert ("similarity" in features, "patches" in features) == (name == "narrow_vit", name == "narrow_vit")
    files.write_json(tmp_path / "fork.json", {"from": "another", "step": 3})
    features_of_fork = samples.collect_features(tmp_path, program, tested_params)
    assert "filters_before" not in features_of_fork  # they were another run's


def test_large_images_are_means_of_squares_and_small_ones_stay():
    images = np.random.default_rng(0).integers(0, 256, (2, 300, 200, 3)).astype(np.uint8)
    shrunk = samples.shrink(images)
    assert shrunk.shape == (2, 100, 66, 3)
    assert shrunk[1, 4, 7, 2] == round(float(images[1, 12:15, 21:24, 2].mean()))
    np.testing.assert_array_equal(samples.shrink(images[:, :128, :128]), images[:, :128, :128])
    assert samples.shrink(images[:, :1]).shape == (2, 1, 100, 3)
