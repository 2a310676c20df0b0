"""Low-rank adapters in training: what is joined, what is learned, and that a run gives on what it was tested with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from running import load_settings, read_result, train
from stepping import learn_batches, make_batch, make_hyperparameters, make_network_spec, make_step_spec

from cnn_vit import data, trees
from cnn_vit.cli.train import list_adapters
from cnn_vit.data.feed import stream
from cnn_vit.errors import UserError
from cnn_vit.nn.values import initial_values
from cnn_vit.runs.description import make_preprocessing
from cnn_vit.training import adapting, devices, evaluation, forks, forward, freezing, plan, run_weights, step, trained
from cnn_vit.training.freezing import FreezeSpec, LoraSpec
from cnn_vit.training.program import Program
from cnn_vit.training.run import Run
from cnn_vit.transfer import weights

pytestmark = pytest.mark.usefixtures("_compiled_quickly")

HEAD = "all but head"


def draw(shapes, seed=0):
    """A tree of random float32 arrays."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: np.float32(rng.normal(size=leaf.shape)), shapes)


# What is joined -------------------------------------------------------------------------------------------------------


def test_joining_adds_the_scaled_product_to_each_kernel_and_leaves_all_else():
    """By float64 and NumPy, of 1x1 convolutions, whose kernels have four axes, and of a head without an adapter."""
    spec = make_network_spec("mobilenet_v1/0.25", side=32, channels=3)
    freeze = FreezeSpec(HEAD, lora=LoraSpec(4))
    network = forward.get_network(spec)
    values = dict(params=draw(network.params), stats=draw(network.stats))
    part, frozen = freezing.split_values(values, freezing.get_masks(spec, freeze))
    factors = draw(freezing.get_factors(spec, freeze), seed=1)
    part["params"] = trees.merge(part["params"], factors)
    joined = freezing.join_values(part, frozen, np.float32(0.5))
    by_path, factors = trees.leaves_by_path(joined["params"]), trees.leaves_by_path(factors)
    adapted = 0
    for path, kernel in trees.leaves_by_path(values["params"]).items():
        if (*path[:-1], "lora_a") not in factors:
            assert by_path[path] is kernel
            continue
        adapted += 1
        product = factors[(*path[:-1], "lora_a")].astype(np.float64) @ factors[(*path[:-1], "lora_b")]
        np.testing.assert_allclose(by_path[path], kernel + 0.5 * product[None, None], rtol=1e-5, atol=1e-5)
    assert adapted == 13
    assert joined["stats"] == values["stats"]


def test_a_run_begins_as_the_network_that_it_starts_from():
    settings = load_settings("lora")
    dataset = data.load(settings.section("data"))
    program = Program(settings, dataset, make_preprocessing(settings, dataset))
    state = program.initial_state()
    assert trees.digest(program.whole(state)) == trees.digest(program.start.values)
    factors = [path for path in trees.shapes_by_path(state["params"]) if path[-1] == "lora_a"]
    assert factors == [("hidden", "layers", 0, "lora_a")]


def test_alpha_over_rank_scales_the_product_and_is_one_unless_alpha_is_set():
    assert adapting.lora_scale(load_settings("lora")) == 1
    assert adapting.lora_scale(load_settings("lora", "pretrained.lora_alpha=6")) == 1.5
    assert adapting.lora_scale(load_settings("mlp")) is None


@pytest.mark.parametrize(("lora", "is_random"), [(None, False), (LoraSpec(2, "blocks/0"), True)])
def test_behind_a_layer_with_an_adapter_dropout_is_on(lora, is_random):
    """Of a frozen body without adapters it is off, in front of the head."""
    spec = make_network_spec("vit/test", side=8, depth=2, dropout=0.5)
    network = freezing.build_training_network(spec, FreezeSpec(HEAD, lora=lora))
    params, images = draw(network.params), np.float32(make_batch(4, side=8)["image"] / 255)
    scores = []
    for seed in range(2):
        rngs = nnx.Rngs(dropout=jax.random.fold_in(stream.key(0), seed))
        scores.append(network.apply(params, {}, images, train=True, rngs=rngs)[0])
    assert (np.abs(scores[0] - scores[1]).max() > 1e-3) == is_random


def test_a_step_follows_the_gradient_of_the_joined_kernel():
    """By the chain rule from the gradient of the whole network: dA = s dW B', dB = s A' dW; W itself stays."""
    spec, scale, rate = make_network_spec(), 1.5, 0.1
    freeze = FreezeSpec(HEAD, lora=LoraSpec(2))
    network = forward.get_network(spec)
    params = draw(jax.tree.map(np.asarray, initial_values(network, 0)[0]))
    part, frozen = freezing.split_values(dict(params=params, stats={}), freezing.get_masks(spec, freeze))
    part["params"] = trees.merge(part["params"], draw(freezing.get_factors(spec, freeze), seed=1))
    factors = part["params"]["hidden"]["layers"][0]
    a, b = np.float64(factors["lora_a"]), np.float64(factors["lora_b"])

    hyperparameters = make_hyperparameters(learning_rate=rate) | {"lora_scale": np.float32(scale)}
    step_spec = make_step_spec(spec, freeze=freeze)
    built_step = step.build_step(step_spec, devices.mesh())
    state = devices.place(built_step.init_state(**part, hyperparameters=hyperparameters), devices.mesh())
    batch = make_batch()
    state, _ = learn_batches(step_spec, hyperparameters, [batch], frozen=frozen, state=state)

    def loss(params):
        images = forward.normalize(np.float32(batch["image"]) / 255, hyperparameters, "float32")
        scores, _ = network.apply(params, {}, images, train=True)
        return -jnp.take_along_axis(jax.nn.log_softmax(scores), batch["label"][:, None], 1).mean()

    merged = jax.tree.map(np.array, params)
    merged["hidden"]["layers"][0]["kernel"] = np.float32(params["hidden"]["layers"][0]["kernel"] + scale * a @ b)
    gradient = jax.grad(loss)(merged)
    kernel_gradient = np.float64(gradient["hidden"]["layers"][0]["kernel"])
    learned = state["params"]["hidden"]["layers"][0]
    np.testing.assert_allclose(learned["lora_a"], a - rate * scale * kernel_gradient @ b.T, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(learned["lora_b"], b - rate * scale * a.T @ kernel_gradient, rtol=1e-3, atol=1e-4)
    expected = params["head"]["kernel"] - rate * np.float64(gradient["head"]["kernel"])
    np.testing.assert_allclose(state["params"]["head"]["kernel"], expected, rtol=1e-3, atol=1e-4)
    assert np.abs(learned["lora_a"] - a).max() > 1e-3
    assert set(learned) == {"lora_a", "lora_b"}


# A run ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run, and the digest of the values that it was tested with."""
    folder = tmp_path_factory.mktemp("lora") / "run"
    digests = []
    with pytest.MonkeyPatch.context() as patch:
        values_to_test = Run.values_to_test

        def record_tested_values(self, state):
            tested = values_to_test(self, state)
            digests.append(trees.digest(tested.values))
            return tested

        patch.setattr(Run, "values_to_test", record_tested_values)
        train("lora", folder)
    (digest,) = digests
    return folder, digest


def test_the_result_counts_what_is_trained_and_proves_that_the_kernels_stayed(finished):
    """A hidden layer of 64 pixels and 8 units, and a head of 10 classes: 4 (64 + 8) in factors, 8 x 10 + 10."""
    folder, _ = finished
    result = read_result(folder)
    assert result["lora"] == {"rank": 4, "alpha": 4, "kernels": 1, "parameters": 4 * 72}
    assert result["trained_parameters"] == 4 * 72 + 90
    assert result["parameters"] == 64 * 8 + 8 + 90
    assert result["frozen"]["parameters"] == 64 * 8 + 8
    assert result["frozen"]["moved"] == []


def test_what_is_given_on_has_the_bits_that_were_tested(finished, tmp_path):
    """The average of the factors, merged: loaded from the run, exported to a file, and read from that."""
    folder, digest = finished
    network = trained.load(folder)
    assert trees.digest(network.values) == digest
    weights.save(tmp_path / "merged.safetensors", run_weights.weights_of_run(str(folder)))
    merged = weights.load(tmp_path / "merged.safetensors")
    assert trees.digest(dict(params=merged.params, stats=merged.stats)) == digest
    metrics = evaluation.evaluate(network, load_settings("lora").section("data"), "test")
    assert metrics["accuracy"] == read_result(folder)["test"]["accuracy"]
    initial, _ = initial_values(network.network, 0)
    assert np.abs(network.params["hidden"]["layers"][0]["kernel"] - initial["hidden"]["layers"][0]["kernel"]).max() > 0


@pytest.mark.parametrize("change", ["pretrained.lora_alpha=8", "pretrained.lora=2", "pretrained.lora_on=hidden"])
def test_another_adapter_is_another_run_and_no_fork(finished, tmp_path, change):
    folder, _ = finished
    key = change.partition("=")[0]
    with pytest.raises(UserError, match=rf"{key}: .* here, .* in the folder"):
        train("lora", folder, change)
    is_set = key == "pretrained.lora"
    recorded = f"has {key}=4, .*; set it to that, not 2," if is_set else f"leaves {key} unset, .*; leave it out,"
    with pytest.raises(UserError, match=recorded):
        train("lora", tmp_path / "fork", change, "duration=14 steps", fork_from=folder)


def test_alpha_at_its_own_default_is_the_adapter_of_the_origin(finished):
    folder, _ = finished
    assert forks.read_start(folder, load_settings("lora", "pretrained.lora_alpha=4")) is not None


def test_a_stage_that_trains_nothing_is_refused_with_what_adapters_freeze():
    settings = load_settings("lora", "pretrained.stages=hidden/layers/0/bias 2 steps, all")
    network = plan.network_spec(settings, classes=10, image_shape=(8, 8, 1))
    with pytest.raises(UserError, match="name more than 'all but head' leaves, which is frozen beside adapters where"):
        adapting.check_parts(settings, network)


def test_the_result_says_how_many_kernels_have_adapters(finished):
    _, adapters = list_adapters(read_result(finished[0]))[0]
    assert adapters == "288 on 1 kernel (rank 4, alpha 4)"  # 4 * (64 + 8)


@pytest.mark.slow
def test_a_fork_goes_on_with_the_same_adapters(finished, tmp_path):
    folder, _ = finished
    train("lora", tmp_path / "fork", "duration=14 steps", fork_from=folder)
    result = read_result(tmp_path / "fork")
    assert (result["steps"], result["frozen"]["moved"]) == (14, [])
    assert result["lora"] == read_result(folder)["lora"]
