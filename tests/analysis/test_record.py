"""Every call of a layer is seen, in order, with what it took and gave, and nothing of the network is left changed."""

import threading
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnn_vit.analysis.record import is_array, listing, record, watching
from cnn_vit.models import build
from cnn_vit.nn.pool import average_pool, max_pool
from cnn_vit.nn.values import functional, initial_values

IMAGES = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)


def valued(name, **changes):
    network = build(name, 3, image_size=8, **changes)
    return network, *initial_values(functional(network), seed=1)


def live(network, params, stats):
    graph, *_ = nnx.split(network, nnx.Param, nnx.BatchStat)
    return nnx.merge(graph, params, stats)


def pixels(seed=0, shape=(2, 8, 8, 3)):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_calls_come_in_the_order_in_which_they_begin_functions_too():
    calls = record(build("cnn/test", 3, image_size=8), IMAGES)
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
    calls = {call.path: call for call in record(build("cnn/test", 3, image_size=8), IMAGES)}
    pool = calls["stages/0/max_pool"].inputs
    assert (pool.pop("x").shape, pool) == ((2, 8, 8, 8), {"size": 2, "stride": 2, "padding": 0})
    assert calls["stages/0"].inputs.keys() == {"x", "pooling", "train", "mask"}
    assert calls[""].inputs["rngs"] is None  # nobody gave it


def test_a_second_call_of_a_layer_has_its_number_behind_it():
    paths = [call.path for call in record(build("vit/test", 3, image_size=8), IMAGES)]
    assert len(paths) == len(set(paths))
    assert {"blocks/0/mlp/dropout", "blocks/0/mlp/dropout#2", "blocks/0/skip#2"} <= set(paths)
    gray = jax.ShapeDtypeStruct((1, 32, 32, 1), jnp.float32)
    pools = [call.path for call in record(build("lenet/5", 10), gray) if call.kind == "average_pool"]
    assert pools == ["average_pool", "average_pool#2"]


def test_without_values_calls_hold_shapes_and_nothing_is_computed():
    calls = record(build("resnet/50", 1000), jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32))  # 4 GMACs otherwise
    arrays = [leaf for call in calls for leaf in jax.tree.leaves((call.inputs, call.outputs)) if is_array(leaf)]
    assert len(arrays) > 200
    assert {type(leaf) for leaf in arrays} == {jax.ShapeDtypeStruct}


def test_with_values_calls_hold_what_was_computed():
    network, params, stats = valued("vit/test", heads=2)
    calls = {call.path: call for call in record(network, pixels(), params, stats)}
    read = calls["blocks/0/attention/attend"]
    q, k, v = (np.asarray(read.inputs[name], np.float64) for name in "qkv")
    scores = np.exp(np.einsum("bnae,bmae->banm", q, k) / np.sqrt(q.shape[-1]))  # an attention map
    weights = scores / scores.sum(-1, keepdims=True)
    np.testing.assert_allclose(read.outputs, np.einsum("banm,bmae->bnae", weights, v), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(calls[""].outputs, functional(network).apply(params, stats, pixels())[0])


def test_values_of_another_network_are_refused():
    network, params, stats = valued("mlp/test")
    params["head"]["kernel"] = params["head"]["kernel"].T
    with pytest.raises(ValueError, match="another network"):
        record(network, pixels(), params, stats)


@pytest.mark.parametrize("faulty", [False, True])
def test_classes_are_put_back_as_they_were(faulty):
    network = build("resnet/test", 3)
    kinds = {type(module) for _, module in nnx.iter_modules(network)}
    before = {kind: kind.__dict__.get("__call__") for kind in kinds}
    images = IMAGES if not faulty else jax.ShapeDtypeStruct((2, 8, 8, 4), jnp.float32)  # 3 channels are read
    if faulty:
        with pytest.raises(ValueError, match="4 // 1 != 3"):
            record(network, images)
    else:
        record(network, images)
    assert {kind: kind.__dict__.get("__call__") for kind in kinds} == before


def test_another_network_of_the_same_classes_runs_unseen():
    one, other = (live(*valued("cnn/test")) for _ in range(2))
    found = []
    with watching(one, partial(listing, found)):
        other(pixels())
        assert found == []
        one(pixels())
    assert len(found) == 11


def test_two_looks_at_one_network_both_see_it():
    network = live(*valued("cnn/test"))
    outer, inner = [], []
    with watching(network, partial(listing, outer)), watching(network, partial(listing, inner)):
        network(pixels())
    assert [call.path for call in outer] == [call.path for call in inner]
    assert "stages/0/max_pool" in {call.path for call in outer}


def test_a_thread_that_looks_waits_for_another_thread_to_have_looked():
    """Else one would take the other's stand-ins for the classes' own, and put those back."""
    first, second = (build("cnn/test", 3, image_size=8) for _ in range(2))
    method, found = type(first).__call__, []
    thread = threading.Thread(target=lambda: found.extend(record(second, IMAGES)))
    with watching(first, partial(listing, [])):
        standing_in = type(first).__call__
        thread.start()
        thread.join(timeout=0.5)
        assert thread.is_alive()
        assert type(first).__call__ is standing_in
    thread.join()
    assert type(first).__call__ is method
    assert len(found) == 11


def test_an_answer_given_in_a_layers_place_is_the_networks():
    """The gradient of a score by a layer's output: that by a zero added to it, against a central difference."""
    network, params, stats = valued("cnn/test")
    images = pixels()[:1]

    def score(added):
        def around(call, run):
            return run(call.inputs) + (added if call.path == "stages/1/convolutions/0" else 0)

        module = live(network, params, stats)
        with watching(module, around):
            return module(images)[0, 1]

    gradient = jax.grad(score)(jnp.zeros((1, 4, 4, 8)))
    at = np.unravel_index(np.abs(gradient).argmax(), gradient.shape)
    step = np.zeros((1, 4, 4, 8), np.float32)
    step[at] = 1e-2
    assert abs(gradient[at]) > 1e-3
    assert float(gradient[at]) == pytest.approx(float(score(step) - score(-step)) / 2e-2, rel=1e-2)


def test_other_inputs_may_be_handed_to_a_layer():
    network, params, stats = valued("cnn/test")
    images, other = pixels(), pixels(seed=5)

    def around(call, run):
        return run({"images": other} if call.path == "" else call.inputs)

    module = live(network, params, stats)
    with watching(module, around):
        found = module(images)
    np.testing.assert_array_equal(found, module(other))


def test_functions_nobody_watches_are_themselves():
    images = pixels(shape=(1, 4, 4, 1))
    expected = images.reshape(1, 2, 2, 2, 2, 1).max((2, 4))
    np.testing.assert_array_equal(max_pool(images, 2, stride=2, padding=0), expected)
    assert average_pool.__doc__.startswith("The mean of each window")
    assert max_pool.__wrapped__.__name__ == "max_pool"


class Parent(nnx.Module):
    def __call__(self, x):
        return x + 1


class Child(Parent):
    def __call__(self, x):
        return 2 * super().__call__(x)


def test_a_call_of_the_parents_method_is_no_second_call():
    found = []
    child = Child()
    with watching(child, partial(listing, found)):
        assert child(jnp.float32(1)) == 4
    assert [(call.path, call.kind) for call in found] == [("", "Child")]
