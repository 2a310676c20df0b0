"""What makes a Vision Transformer one: places, tokens, pools, norms; against a NumPy one written from the paper."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnn_vit.models import build
from cnn_vit.models.vit import EPSILON

SMALL = {"image_size": (8, 12), "channels": 1, "depth": 2}  # 2 x 3 patches of 4


@pytest.fixture
def batch(images):
    return images((2, 8, 12, 1))


def randomized(network, seed=0):
    """Every parameter random, so that none hides behind a first value of 0."""
    rng = np.random.default_rng(seed)
    network.params = jax.tree.map(lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(np.float32), network.params)
    return network


def shuffled(batch, order):
    """The images with their 4-pixel patches in another order."""
    rows, columns = batch.shape[1] // 4, batch.shape[2] // 4
    cut = np.asarray(batch).reshape(-1, rows, 4, columns, 4, batch.shape[-1]).transpose(0, 1, 3, 2, 4, 5)
    moved = cut.reshape(len(batch), rows * columns, 4, 4, -1)[:, order].reshape(cut.shape)
    return jnp.asarray(moved.transpose(0, 1, 3, 2, 4, 5).reshape(batch.shape))


@pytest.mark.parametrize("pool", ["average", "attention", "token"])
def test_without_positions_the_order_of_patches_does_not_matter(pool, valued, batch):
    network = randomized(valued("vit/test", positions="none", pool=pool, **SMALL))
    moved = shuffled(batch, [3, 1, 5, 0, 4, 2])
    assert np.abs(moved - batch).max() > 0.1
    np.testing.assert_allclose(network.run(moved), network.run(batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("positions", ["learned", "sincos"])
def test_with_positions_the_order_of_patches_matters(positions, valued, batch):
    network = randomized(valued("vit/test-gap", positions=positions, **SMALL))
    assert np.abs(network.run(shuffled(batch, [3, 1, 5, 0, 4, 2])) - network.run(batch)).max() > 1e-2


def layer_norm(x, p):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + EPSILON)
    return x * p["scale"] + p["bias"]


def dense(x, p):
    return x @ p["kernel"] + p["bias"]


def gelu(x, kind):
    if kind == "tanh":
        return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def mlp(x, p, kind):
    return dense(gelu(dense(x, p["dense1"]), kind), p["dense2"])


def attention(x, context, p, heads=2):
    split = lambda y: y.reshape(*y.shape[:2], heads, -1)  # noqa: E731
    q, k, v = split(dense(x, p["query"])), split(dense(context, p["key"])), split(dense(context, p["value"]))
    weights = np.einsum("bnae,bmae->banm", q, k) / math.sqrt(q.shape[-1])
    weights = np.exp(weights - weights.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return dense(np.einsum("banm,bmae->bnae", weights, v).reshape(x.shape), p["out"])


def reference(p, images, *, pool="token", token_position=True, pre_logits=False, norm="pre", kind="tanh"):
    """Scores of the paper's network in float64, equations 1 to 4; post-norm as in arXiv:1706.03762."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), p)
    b, h, w, c = images.shape
    patches = np.asarray(images, np.float64).reshape(b, h // 4, 4, w // 4, 4, c).transpose(0, 1, 3, 2, 4, 5)
    x = patches.reshape(b, -1, 16 * c) @ p["patches"]["kernel"].reshape(16 * c, -1) + p["patches"]["bias"]
    (table,) = jax.tree.leaves(p["pos_embed"])
    if pool == "token" and token_position:
        x = np.concatenate([np.broadcast_to(p["cls_token"], (b, 1, x.shape[-1])), x], 1) + table
    elif pool == "token":
        x = np.concatenate([np.broadcast_to(p["cls_token"], (b, 1, x.shape[-1])), x + table], 1)
    else:
        x = x + table
    for block in p["blocks"].values():
        if norm == "pre":
            y = layer_norm(x, block["norm1"])
            x = x + attention(y, y, block["attention"])
            x = x + mlp(layer_norm(x, block["norm2"]), block["mlp"], kind)
        else:
            x = layer_norm(x + attention(x, x, block["attention"]), block["norm1"])
            x = layer_norm(x + mlp(x, block["mlp"], kind), block["norm2"])
    x = layer_norm(x, p["norm"]) if norm == "pre" else x
    if pool == "attention":
        reader = p["map_head"]
        y = attention(np.broadcast_to(reader["query"], (b, 1, x.shape[-1])), x, reader["attention"])
        x = (y + mlp(layer_norm(y, reader["norm"]), reader["mlp"], kind))[:, 0]
    else:
        x = x[:, 0] if pool == "token" else x.mean(1)
    x = np.tanh(dense(x, p["pre_logits"])) if pre_logits else x
    return dense(x, p["head"])


@pytest.mark.parametrize(
    ("suffix", "changes", "how"),
    [
        ("", {}, {}),
        ("", {"gelu": "erf"}, {"kind": "erf"}),
        ("", {"norm": "post"}, {"norm": "post"}),
        ("-tok", {}, {"token_position": False}),
        ("-gap", {}, {"pool": "average"}),
        ("-map", {}, {"pool": "attention"}),
        ("-gap-pre_logits", {}, {"pool": "average", "pre_logits": True}),
        ("", {"fused": True}, {}),
    ],
)
def test_scores_equal_the_papers_equations(suffix, changes, how, valued, batch):
    network = randomized(valued(f"vit/test{suffix}", **SMALL, **changes))
    with jax.default_matmul_precision("highest"):
        found = network.run(batch)
    np.testing.assert_allclose(found, reference(network.params, batch, **how), rtol=1e-4, atol=1e-4)


def test_post_norm_has_no_norm_at_its_end_and_gives_other_scores(valued, batch):
    pre, post = (randomized(valued("vit/test", norm=norm, **SMALL)) for norm in ("pre", "post"))
    assert pre.params.keys() - post.params.keys() == {"norm"}
    del pre.params["norm"]
    assert jax.tree.structure(pre.params) == jax.tree.structure(post.params)


def test_sincos_positions_are_no_parameters_and_leave_the_token_alone(valued, batch):
    fixed, learned = valued("vit/test", positions="sincos", **SMALL), valued("vit/test", **SMALL)
    assert "pos_embed" not in fixed.params
    assert "pos_embed" in learned.params
    assert network_tokens(fixed, batch)[:, 0].tolist() == fixed.params["cls_token"].repeat(2, 0).tolist()


def network_tokens(network, batch):
    """Tokens before the first block."""
    live = nnx.merge(network.graph, network.params, network.stats)
    return live.placed(live.patches(batch))


def test_a_stochastic_depth_rises_from_none_in_the_first_block(valued, batch):
    """Of two blocks with rate 0.9 the first never skips: with the second block's parts silenced nothing is random."""
    network = randomized(valued("vit/test", stochastic_depth=0.9, **SMALL))
    run = lambda seed: np.asarray(network.features(batch, train=True, key=jax.random.key(seed)))  # noqa: E731
    assert any(not np.allclose(run(0), run(seed)) for seed in (1, 2, 3))
    for part in ("attention", "mlp"):
        second = network.params["blocks"][1]
        second[part] = jax.tree.map(np.zeros_like, second[part])
    for seed in (1, 2, 3):
        np.testing.assert_allclose(run(seed), run(0), rtol=1e-6)
    np.testing.assert_allclose(run(0), network.features(batch), rtol=1e-5, atol=1e-6)


def test_leftover_pixels_at_right_and_bottom_are_not_read(valued, batch):
    whole = randomized(valued("vit/test", **SMALL))
    cut = randomized(valued("vit/test", **SMALL | {"image_size": (11, 13)}, leftover="drop"))
    framed = jnp.pad(batch, ((0, 0), (0, 3), (0, 1), (0, 0)), constant_values=9.0)
    np.testing.assert_array_equal(cut.run(framed), whole.run(batch))


def test_first_scores_are_zero(valued, batch):
    assert not np.any(valued("vit/test", **SMALL).run(batch))


@pytest.mark.parametrize("train", [False, True], ids=["rest", "training"])
@pytest.mark.parametrize(
    ("suffix", "changes"),
    [
        ("", {}),
        ("-tok", {"gelu": "erf"}),
        ("-gap", {"positions": "sincos", "fused": True}),
        ("-map", {"norm": "post"}),
        ("", {"norm": "post", "positions": "none", "pre_logits": True}),
    ],
)
def test_every_kind_of_vit_keeps_bfloat16_to_its_head(suffix, changes, train):
    """Traced under strict promotion, where no sum of two types passes; sides that are not equal."""
    chance = {"dropout": 0.1, "stochastic_depth": 0.1}
    graph, params, _ = nnx.split(build(f"vit/test{suffix}", 3, **SMALL, **chance, **changes), nnx.Param, ...)

    def run(params, images, method):
        return getattr(nnx.merge(graph, params, {}), method)(
            images, train=train, rngs=nnx.Rngs(dropout=jax.random.key(0))
        )

    images = jax.ShapeDtypeStruct((2, 8, 12, 1), jnp.bfloat16)
    for method, expected in (("features", ((2, 8), jnp.bfloat16)), ("__call__", ((2, 3), jnp.float32))):
        found = jax.eval_shape(partial(run, method=method), nnx.to_pure_dict(params), images)
        assert (found.shape, found.dtype) == expected
