"""DeiT: the network of a Vision Transformer, and what a second token and a second head add."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cnn_vit import models
from cnn_vit.analysis.record import record_calls
from cnn_vit.models.deit import TwoHeads
from cnn_vit.nn.values import functional

IMAGES = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)


def trace(name, **keywords):
    """The program of a network in training, as text."""
    network = functional(models.build(name, 3, **keywords))

    def score(params, images):
        return network.apply(params, {}, images, train=True, rngs=nnx.Rngs(dropout=jax.random.key(0)))

    return str(jax.make_jaxpr(score)(network.params, IMAGES))


def test_without_a_second_token_it_is_a_vision_transformer_with_exact_gelu():
    keywords = {"depth": 2, "stochastic_depth": 0.1, "dropout": 0.2}
    assert trace("deit/test", **keywords) == trace("vit/test", activation="gelu", **keywords)
    assert trace("deit/test", **keywords) != trace("vit/test", **keywords)


def test_the_scores_are_the_mean_of_both_heads_each_on_its_token():
    graph, _ = nnx.split(TwoHeads(2, 1), nnx.Param)
    # The class token is counted in ones, the other one in hundreds.
    params = {
        "cls": {"kernel": jnp.float32([[1], [2]]), "bias": jnp.float32([4])},
        "dist": {"kernel": jnp.float32([[100], [200]]), "bias": jnp.float32([400])},
    }
    heads = nnx.merge(graph, params)
    assert heads(jnp.float32([[1, 0, 0, 0]])).item() == (1 + 4 + 400) / 2
    assert heads(jnp.float32([[0, 1, 1, 0]])).item() == (2 + 4 + 100 + 400) / 2


def test_a_second_token_stands_behind_the_class_token_and_both_are_the_features():
    network = models.build("deit/test-distilled", 3)
    graph, *_ = nnx.split(network, nnx.Param)
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), functional(network).params)
    params["cls_token"] += 1
    params["dist_token"] += 10
    tokens = nnx.merge(graph, params).add_tokens(jnp.full((1, 3, 8), -1.0))
    assert np.asarray(tokens)[0, :, 0].tolist() == [1, 10, -1, -1, -1]
    calls = {call.path: call for call in record_calls(network, IMAGES)}
    assert calls["pos_embed"].outputs.shape == (2, 2 + 16, 8)
    assert calls["head"].inputs["x"].shape == (2, 2 * 8)
