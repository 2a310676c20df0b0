"""What makes a Vision Transformer one: positions, tokens, pools, norms; compared with one in NumPy from the paper."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnn_vit.models import build

EPSILON = 1e-6  # of the norms in Google's code
SMALL = {"image_size": (8, 12), "channels": 1, "depth": 2}  # 2 x 3 patches of 4


@pytest.fixture
def batch(images):
    return images((2, 8, 12, 1))


def randomize(network, seed=0):
    """Draws every parameter at random, so that none hides behind an initial value of 0."""
    rng = np.random.default_rng(seed)
    network.params = jax.tree.map(lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(np.float32), network.params)
    return network


def shuffle_patches(batch, order):
    """Puts the 4-pixel patches of the images into another order."""
    rows, columns = batch.shape[1] // 4, batch.shape[2] // 4
    grid = np.asarray(batch).reshape(-1, rows, 4, columns, 4, batch.shape[-1]).transpose(0, 1, 3, 2, 4, 5)
    patches = grid.reshape(len(batch), rows * columns, 4, 4, -1)
    shuffled_grid = patches[:, order].reshape(grid.shape)
    return jnp.asarray(shuffled_grid.transpose(0, 1, 3, 2, 4, 5).reshape(batch.shape))


@pytest.mark.parametrize("pool", ["average", "attention", "token"])
def test_without_positions_the_order_of_patches_does_not_matter(pool, make_network, batch):
    network = randomize(make_network("vit/test", positions="none", pool=pool, **SMALL))
    shuffled = shuffle_patches(batch, [3, 1, 5, 0, 4, 2])
    assert np.abs(shuffled - batch).max() > 0.1
    np.testing.assert_allclose(network.run(shuffled), network.run(batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("positions", ["learned", "sincos", "rotary", "relative"])
def test_with_positions_the_order_of_patches_matters(positions, make_network, batch):
    network = randomize(make_network("vit/test-gap", positions=positions, **SMALL))
    assert np.abs(network.run(shuffle_patches(batch, [3, 1, 5, 0, 4, 2])) - network.run(batch)).max() > 1e-2


def layer_norm(x, p, epsilon=EPSILON):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
    return x * p["scale"] + p["bias"]


def dense(x, p):
    return x @ p["kernel"] + p.get("bias", 0)


def activate(x, kind):
    if kind == "relu":
        return np.maximum(x, 0)
    if kind == "gelu_tanh":
        return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def mlp(x, p, kind):
    return dense(activate(dense(x, p["dense1"]), kind), p["dense2"])


def turn(heads, places):
    """Rotary positions: the first half of the pairs turns by the column, the second by the row, as complex numbers."""
    pairs = heads.shape[-1] // 2
    numbers = heads[..., :pairs] + 1j * heads[..., pairs:]
    frequencies = [100 ** -(i / (pairs // 2)) for i in range(pairs // 2)]
    for token, (row, column) in enumerate(places):
        for i, frequency in enumerate(frequencies):
            numbers[:, token, :, i] *= np.exp(1j * frequency * column)
            numbers[:, token, :, pairs // 2 + i] *= np.exp(1j * frequency * row)
    return np.concatenate([numbers.real, numbers.imag], -1)


def scores_by_way(table, places):
    """Relative positions: the middle of the table is the reader; what stands at no place (None) has no score."""
    scores = np.zeros((len(table), len(places), len(places)))
    for i, reader in enumerate(places):
        for j, read in enumerate(places):
            if reader is not None and read is not None:
                scores[:, i, j] = table[:, read[0] - reader[0] + 1, read[1] - reader[1] + 2]
    return scores


def attention(x, context, p, heads=2, places=None, table=None):
    def split_heads(y):
        return y.reshape(*y.shape[:2], heads, -1)

    q = split_heads(dense(x, p["query"]))
    k = split_heads(dense(context, p["key"]))
    v = split_heads(dense(context, p["value"]))
    if places is not None and table is None:
        stands = [place or (0, 0) for place in places]  # the class token is not turned
        q, k = turn(q, stands), turn(k, stands)
    weights = np.einsum("bnae,bmae->banm", q, k) / math.sqrt(q.shape[-1])
    if table is not None:
        weights += scores_by_way(table, places)
    weights = np.exp(weights - weights.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return dense(np.einsum("banm,bmae->bnae", weights, v).reshape(*x.shape[:2], -1), p["out"])


def embed(p, images, *, pool, token_position, epsilon):
    """Patches with class token and positions: equation 1; with norms around the patches as in arXiv:2302.01327."""
    b, h, w, c = images.shape
    patches = np.asarray(images, np.float64).reshape(b, h // 4, 4, w // 4, 4, c).transpose(0, 1, 3, 2, 4, 5)
    x = patches.reshape(b, -1, 16 * c)
    if "norm" in p["patches"]:
        x = layer_norm(x, p["patches"]["norm"], epsilon)
    x = x @ p["patches"]["kernel"].reshape(16 * c, -1) + p["patches"]["bias"]
    if "patch_norm" in p:
        x = layer_norm(x, p["patch_norm"], epsilon)

    def place(tokens):
        if "pos_embed" not in p:
            return tokens
        table = p["pos_embed"]["embedding"]
        if "join" not in p["pos_embed"]:
            return tokens + table
        return dense(np.concatenate([tokens, np.broadcast_to(table, tokens.shape)], -1), p["pos_embed"]["join"])

    if pool != "token":
        return place(x)
    cls_token = np.broadcast_to(p["cls_token"], (b, 1, x.shape[-1]))
    if token_position:
        return place(np.concatenate([cls_token, x], 1))
    return np.concatenate([cls_token, place(x)], 1)


def pool_tokens(p, x, *, pool, kind, epsilon):
    """The class token, the average of the tokens, or what a learned query reads of them."""
    if pool == "token":
        return x[:, 0]
    if pool == "average":
        return x.mean(1)
    map_head = p["map_head"]
    query = np.broadcast_to(map_head["query"], (len(x), 1, x.shape[-1]))
    y = attention(query, x, map_head["attention"])
    return (y + mlp(layer_norm(y, map_head["norm"], epsilon), map_head["mlp"], kind))[:, 0]


def reference(
    p,
    images,
    *,
    pool="token",
    token_position=True,
    pre_logits=False,
    norm="pre",
    kind="gelu_tanh",
    epsilon=EPSILON,
    by_place=False,
):
    """Scores of the paper's network in float64, equations 1 to 4; post-norm as in arXiv:1706.03762.

    `by_place`: whether attention knows where the patches stand, by a table of relative positions or by turning.
    """
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), p)
    x = embed(p, images, pool=pool, token_position=token_position, epsilon=epsilon)
    normalize = partial(layer_norm, epsilon=epsilon)
    places = None
    if by_place:
        places = [None] * (pool == "token") + [(row, column) for row in range(2) for column in range(3)]
    read = partial(attention, places=places, table=p.get("relative_bias"))
    for block in p["blocks"].values():
        if norm == "pre":
            y = normalize(x, block["norm1"])
            x = x + read(y, y, block["attention"])
            x = x + mlp(normalize(x, block["norm2"]), block["mlp"], kind)
        else:
            x = normalize(x + read(x, x, block["attention"]), block["norm1"])
            x = normalize(x + mlp(x, block["mlp"], kind), block["norm2"])
    if "norm" in p:
        x = normalize(x, p["norm"])
    x = pool_tokens(p, x, pool=pool, kind=kind, epsilon=epsilon)
    if pre_logits:
        x = np.tanh(dense(x, p["pre_logits"]))
    return dense(x, p["head"])


@pytest.mark.parametrize(
    ("suffix", "changes", "of_reference"),
    [
        ("", {}, {}),
        ("", {"activation": "gelu"}, {"kind": "gelu"}),
        ("", {"activation": "relu", "head_width": 3, "qkv_bias": False}, {"kind": "relu"}),
        ("-map", {"epsilon": 0.1, "head_width": 5}, {"pool": "attention", "epsilon": 0.1}),
        ("", {"norm": "post"}, {"norm": "post"}),
        ("", {"norm": "post", "final_norm": True, "patch_norm": True}, {"norm": "post"}),
        ("-tok", {}, {"token_position": False}),
        ("-gap", {}, {"pool": "average"}),
        ("-gap-pre_logits", {}, {"pool": "average", "pre_logits": True}),
        ("", {"fused": True}, {}),
        ("-map", {"positions": "rotary", "head_width": 8}, {"pool": "attention", "by_place": True}),
        ("", {"positions": "rotary"}, {"by_place": True}),
        ("-gap", {"positions": "relative"}, {"pool": "average", "by_place": True}),
        ("-tok", {"positions": "relative", "fused": True}, {"token_position": False, "by_place": True}),
        ("", {"positions": "concatenated"}, {}),
        ("-tok", {"positions": "concatenated"}, {"token_position": False}),
    ],
)
def test_scores_equal_the_papers_equations(suffix, changes, of_reference, make_network, batch):
    network = randomize(make_network(f"vit/test{suffix}", **SMALL, **changes))
    with jax.default_matmul_precision("highest"):
        scores = network.run(batch)
    np.testing.assert_allclose(scores, reference(network.params, batch, **of_reference), rtol=1e-4, atol=1e-4)


def test_queries_keys_and_values_may_have_no_bias_and_a_width_of_their_own(make_network):
    attention_params = make_network("vit/test", head_width=3, qkv_bias=False, **SMALL).params["blocks"][1]["attention"]
    shapes = {name: jax.tree.map(np.shape, layer) for name, layer in attention_params.items()}
    inner = {"kernel": (8, 2 * 3)}  # two heads of 3 numbers; the tokens have 8
    assert shapes == {"query": inner, "key": inner, "value": inner, "out": {"kernel": (2 * 3, 8), "bias": (8,)}}


def test_post_norm_has_no_norm_at_its_end(make_network):
    pre, post = (randomize(make_network("vit/test", norm=norm, **SMALL)) for norm in ("pre", "post"))
    assert pre.params.keys() - post.params.keys() == {"norm"}
    del pre.params["norm"]
    assert jax.tree.structure(pre.params) == jax.tree.structure(post.params)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_norm_at_the_end_can_be_asked_for_or_left_out(norm, make_network):
    assert "norm" in make_network("vit/test", norm=norm, final_norm=True, **SMALL).params
    assert "norm" not in make_network("vit/test", norm=norm, final_norm=False, **SMALL).params


def test_sincos_positions_are_no_parameters_and_leave_the_token_alone(make_network, batch):
    fixed, learned = make_network("vit/test", positions="sincos", **SMALL), make_network("vit/test", **SMALL)
    assert "pos_embed" not in fixed.params
    assert "pos_embed" in learned.params
    cls_tokens = tokens_before_blocks(fixed, batch)[:, 0]
    assert cls_tokens.tolist() == fixed.params["cls_token"].repeat(2, 0).tolist()


def test_learned_values_of_each_kind_of_positions(make_network):
    """2 x 3 patches and a class token, width 8, 2 heads: rows, a dense layer of 16 to 8, 3 x 5 ways for each head."""
    counts = {}
    for positions in ("learned", "sincos", "rotary", "relative", "concatenated", "none"):
        params = make_network("vit/test", positions=positions, **SMALL).params
        counts[positions] = sum(leaf.size for leaf in jax.tree.leaves(params))
    plain = counts["none"]
    assert (counts["sincos"], counts["rotary"]) == (plain, plain)
    assert counts["learned"] == plain + 7 * 8
    assert counts["concatenated"] == plain + 7 * 8 + 16 * 8 + 8
    assert counts["relative"] == plain + 2 * 3 * 5


@pytest.mark.parametrize("suffix", ["", "-gap"])
def test_a_vit_with_concatenated_positions_is_one_with_added_ones(suffix, make_network, batch):
    """The dense layer's upper half is multiplied into the patches' kernel and the class token, its lower into the rows.

    So the second network has fewer parameters, and the same scores.
    """
    concatenated = randomize(make_network(f"vit/test{suffix}", positions="concatenated", **SMALL))
    added = make_network(f"vit/test{suffix}", **SMALL)
    p = concatenated.params
    join = p["pos_embed"]["join"]
    of_token, of_position = join["kernel"][:8], join["kernel"][8:]
    mapped = {
        "patches": jax.tree.map(lambda leaf: leaf @ of_token, p["patches"]),
        "pos_embed": {"embedding": p["pos_embed"]["embedding"] @ of_position + join["bias"]},
    }
    if suffix == "":
        mapped["cls_token"] = p["cls_token"] @ of_token
    added.params = p | mapped
    with jax.default_matmul_precision("highest"):
        np.testing.assert_allclose(added.run(batch), concatenated.run(batch), rtol=1e-4, atol=1e-4)


def test_no_score_moves_by_more_than_a_hundred_thousandth_without_positions(make_network, images):
    """The row `perm` of tests/tables/checks.csv: 16 patches in three other orders, a head of normal values."""
    network = make_network("vit/test-gap", positions="none", image_size=16, channels=1, depth=2)
    network.params["head"]["kernel"] = np.random.default_rng(1).normal(size=(8, 3)).astype(np.float32)
    batch = images((4, 16, 16, 1))
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(16)
        assert np.abs(network.run(shuffle_patches(batch, order)) - network.run(batch)).max() <= 1e-5


def tokens_before_blocks(network, batch):
    """Tokens with their positions, before the first block."""
    vit = nnx.merge(network.graph, network.params, network.stats)
    return vit.add_positions(vit.patches(batch))


def test_stochastic_depth_rises_from_none_in_the_first_block(make_network, batch):
    """Of two blocks with rate 0.9 the first never skips: with the second block's parts silenced nothing is random."""
    network = randomize(make_network("vit/test", stochastic_depth=0.9, **SMALL))

    def run(seed):
        return np.asarray(network.features(batch, train=True, key=jax.random.key(seed)))

    assert any(not np.allclose(run(0), run(seed)) for seed in (1, 2, 3))
    second = network.params["blocks"][1]
    for part in ("attention", "mlp"):
        second[part] = jax.tree.map(np.zeros_like, second[part])
    for seed in (1, 2, 3):
        np.testing.assert_allclose(run(seed), run(0), rtol=1e-6)
    np.testing.assert_allclose(run(0), network.features(batch), rtol=1e-5, atol=1e-6)


def test_leftover_pixels_at_right_and_bottom_are_not_read(make_network, batch):
    whole_patches = randomize(make_network("vit/test", **SMALL))
    with_leftover = randomize(make_network("vit/test", **SMALL | {"image_size": (11, 13)}, leftover="drop"))
    framed = jnp.pad(batch, ((0, 0), (0, 3), (0, 1), (0, 0)), constant_values=9.0)
    np.testing.assert_array_equal(with_leftover.run(framed), whole_patches.run(batch))


def test_initial_scores_are_zero(make_network, batch):
    assert not np.any(make_network("vit/test", **SMALL).run(batch))


@pytest.mark.parametrize("train", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize(
    ("suffix", "changes"),
    [
        ("", {}),
        ("-tok", {"activation": "gelu", "head_width": 3, "qkv_bias": False}),
        ("-gap", {"positions": "sincos", "fused": True}),
        ("-map", {"norm": "post"}),
        ("", {"norm": "post", "positions": "none", "pre_logits": True}),
        ("", {"positions": "rotary"}),
        ("", {"positions": "relative"}),
        ("-gap", {"positions": "relative", "fused": True}),
        ("-tok", {"positions": "concatenated"}),
    ],
)
def test_every_kind_of_vit_keeps_bfloat16_to_its_head(suffix, changes, train):
    """Traced under strict promotion, where no sum of two types passes; height and width differ."""
    rates = {"dropout": 0.1, "stochastic_depth": 0.1}
    graph, params, _ = nnx.split(build(f"vit/test{suffix}", 3, **SMALL, **rates, **changes), nnx.Param, ...)

    def run(params, images, method):
        vit = nnx.merge(graph, params, {})
        return getattr(vit, method)(images, train=train, rngs=nnx.Rngs(dropout=jax.random.key(0)))

    images = jax.ShapeDtypeStruct((2, 8, 12, 1), jnp.bfloat16)
    for method, expected in (("features", ((2, 8), jnp.bfloat16)), ("__call__", ((2, 3), jnp.float32))):
        output = jax.eval_shape(partial(run, method=method), nnx.to_pure_dict(params), images)
        assert (output.shape, output.dtype) == expected
