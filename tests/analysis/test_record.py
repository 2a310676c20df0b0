"""Every call of a layer is recorded, in order, with inputs and outputs, and the network is left as it was."""

import threading
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnn_vit.analysis.record import append_call, intercept_calls, is_array, record_calls
from cnn_vit.models import build
from cnn_vit.nn.pool import average_pool, max_pool
from cnn_vit.nn.values import functional, initial_values

IMAGES = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)


def network_with_values(name, **changes):
    """Returns a network for images of 8 pixels, its parameters and its statistics."""
    network = build(name, 3, image_size=8, **changes)
    return network, *initial_values(functional(network), seed=1)


def make_callable(network, params, stats):
    """Returns a module that holds these values and can be called."""
    graph, *_ = nnx.split(network, nnx.Param, nnx.BatchStat)
    return nnx.merge(graph, params, stats)


def random_images(seed=0, shape=(2, 8, 8, 3)):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_calls_come_in_the_order_in_which_they_begin_functions_too():
    calls = record_calls(build("cnn/test", 3, image_size=8), IMAGES)
    assert [(call.path, call.kind, call.outputs.shape) for call in calls] == [
        ("", "CNN", (2, 3)),
        ("stages/0", "Stage", (2, 4, 4, 8)),
        ("stages/0/convolutions/0", "Conv", (2, 8, 8, 8)),
        ("stages/0/norms/0", "BatchNorm", (2, 8, 8, 8)),
        ("stages/0/max_pool", "max_pool", (2, 4, 4, 8)),
        ("stages/1", "Stage", (2, 4, 4, 8)),
        ("stages/1/convolutions/0", "Conv", (2, 4, 4, 8)),
        ("stages/1/norms/0", "BatchNorm", (2, 4, 4, 8)),
        ("dropout", "Dropout", (2, 128)),
        ("hidden", "Hidden", (2, 128)),
        ("head", "Dense", (2, 3)),
    ]


def test_inputs_have_their_names_and_defaults():
    calls = {call.path: call for call in record_calls(build("cnn/test", 3, image_size=8), IMAGES)}
    pool = calls["stages/0/max_pool"].inputs
    assert (pool.pop("x").shape, pool) == ((2, 8, 8, 8), {"size": 2, "stride": 2, "padding": 0})
    assert calls["stages/0"].inputs.keys() == {"x", "pooling", "train", "mask"}
    assert calls[""].inputs["rngs"] is None  # the default


def test_a_second_call_of_a_layer_has_its_number_behind_it():
    paths = [call.path for call in record_calls(build("vit/test", 3, image_size=8), IMAGES)]
    assert len(paths) == len(set(paths))
    assert {"blocks/0/mlp/dropout", "blocks/0/mlp/dropout#2", "blocks/0/skip#2"} <= set(paths)
    gray = jax.ShapeDtypeStruct((1, 32, 32, 1), jnp.float32)
    pools = [call.path for call in record_calls(build("lenet/5", 10), gray) if call.kind == "average_pool"]
    assert pools == ["average_pool", "average_pool#2"]


def test_without_values_calls_hold_shapes_and_nothing_is_computed():
    calls = record_calls(
        build("resnet/50", 1000), jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    )  # 4 GMACs otherwise
    arrays = [leaf for call in calls for leaf in jax.tree.leaves((call.inputs, call.outputs)) if is_array(leaf)]
    assert len(arrays) > 200
    assert {type(leaf) for leaf in arrays} == {jax.ShapeDtypeStruct}


def test_with_values_calls_hold_what_was_computed():
    network, params, stats = network_with_values("vit/test", heads=2)
    calls = {call.path: call for call in record_calls(network, random_images(), params, stats)}
    attend = calls["blocks/0/attention/attend"]
    q, k, v = (np.asarray(attend.inputs[name], np.float64) for name in "qkv")
    scores = np.exp(np.einsum("bnae,bmae->banm", q, k) / np.sqrt(q.shape[-1]))  # an attention map
    weights = scores / scores.sum(-1, keepdims=True)
    np.testing.assert_allclose(attend.outputs, np.einsum("banm,bmae->bnae", weights, v), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(calls[""].outputs, functional(network).apply(params, stats, random_images())[0])


def test_values_of_another_network_are_refused():
    network, params, stats = network_with_values("mlp/test")
    params["head"]["kernel"] = params["head"]["kernel"].T
    with pytest.raises(ValueError, match="another network"):
        record_calls(network, random_images(), params, stats)


@pytest.mark.parametrize("faulty", [False, True])
def test_classes_are_put_back_as_they_were(faulty):
    network = build("resnet/test", 3)
    kinds = {type(module) for _, module in nnx.iter_modules(network)}
    before = {kind: kind.__dict__.get("__call__") for kind in kinds}
    if faulty:
        images_of_4_channels = jax.ShapeDtypeStruct((2, 8, 8, 4), jnp.float32)  # the network reads 3
        with pytest.raises(ValueError, match="4 // 1 != 3"):
            record_calls(network, images_of_4_channels)
    else:
        record_calls(network, IMAGES)
    assert {kind: kind.__dict__.get("__call__") for kind in kinds} == before


def test_another_network_of_the_same_classes_runs_unrecorded():
    recorded, unrecorded = (make_callable(*network_with_values("cnn/test")) for _ in range(2))
    calls = []
    with intercept_calls(recorded, partial(append_call, calls)):
        unrecorded(random_images())
        assert calls == []
        recorded(random_images())
    assert len(calls) == 11


def test_two_interceptions_of_one_network_both_see_every_call():
    network = make_callable(*network_with_values("cnn/test"))
    outer, inner = [], []
    with (
        intercept_calls(network, partial(append_call, outer)),
        intercept_calls(network, partial(append_call, inner)),
    ):
        network(random_images())
    assert [call.path for call in outer] == [call.path for call in inner]
    assert "stages/0/max_pool" in {call.path for call in outer}


def test_an_interception_waits_until_that_of_another_thread_has_ended():
    """Else one would take the other's stand-ins for the original methods, and put those back."""
    first, second = (build("cnn/test", 3, image_size=8) for _ in range(2))
    method, calls = type(first).__call__, []
    thread = threading.Thread(target=lambda: calls.extend(record_calls(second, IMAGES)))
    with intercept_calls(first, partial(append_call, [])):
        standing_in = type(first).__call__
        thread.start()
        thread.join(timeout=0.5)
        assert thread.is_alive()
        assert type(first).__call__ is standing_in
    thread.join()
    assert type(first).__call__ is method
    assert len(calls) == 11


def test_outputs_that_an_interceptor_returns_are_those_that_the_network_goes_on_with():
    """The gradient of a score by a layer's output is that by a zero added to it; a central difference agrees."""
    network, params, stats = network_with_values("cnn/test")
    images = random_images()[:1]

    def score(added):
        def add_to_one_layer(call, run):
            return run(call.inputs) + (added if call.path == "stages/1/convolutions/0" else 0)

        module = make_callable(network, params, stats)
        with intercept_calls(module, add_to_one_layer):
            return module(images)[0, 1]

    gradient = jax.grad(score)(jnp.zeros((1, 4, 4, 8)))
    largest = np.unravel_index(np.abs(gradient).argmax(), gradient.shape)
    step = np.zeros((1, 4, 4, 8), np.float32)
    step[largest] = 1e-2
    assert abs(gradient[largest]) > 1e-3
    assert float(gradient[largest]) == pytest.approx(float(score(step) - score(-step)) / 2e-2, rel=1e-2)


def test_other_inputs_may_be_handed_to_a_layer():
    network, params, stats = network_with_values("cnn/test")
    images, other_images = random_images(), random_images(seed=5)

    def exchange_images(call, run):
        return run({"images": other_images} if call.path == "" else call.inputs)

    module = make_callable(network, params, stats)
    with intercept_calls(module, exchange_images):
        scores = module(images)
    np.testing.assert_array_equal(scores, module(other_images))


def test_functions_that_nobody_intercepts_run_themselves():
    images = random_images(shape=(1, 4, 4, 1))
    expected = images.reshape(1, 2, 2, 2, 2, 1).max((2, 4))
    np.testing.assert_array_equal(max_pool(images, 2, stride=2, padding=0), expected)
    assert average_pool.__doc__.startswith("Takes the mean of each window")
    assert max_pool.__wrapped__.__name__ == "max_pool"


class Parent(nnx.Module):
    def __call__(self, x):
        return x + 1


class Child(Parent):
    def __call__(self, x):
        return 2 * super().__call__(x)


def test_a_call_of_the_parents_method_is_not_a_second_call():
    calls = []
    child = Child()
    with intercept_calls(child, partial(append_call, calls)):
        assert child(jnp.float32(1)) == 4
    assert [(call.path, call.kind) for call in calls] == [("", "Child")]
