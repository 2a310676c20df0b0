"""Attention equals its formula, plain and fused; masks, heads and dropout do what their documentation says."""

from functools import partial

import formulas
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import example, given, settings
from hypothesis import strategies as st
from layers import (
    assert_function_equals_formula,
    call_layer,
    draw_normal,
    few_examples,
    run_compiled,
    run_layer,
    to_float32,
    value_and_gradients,
)

from cnn_vit.errors import UserError
from cnn_vit.nn.attention import Attention, attend
from cnn_vit.nn.values import functional, initial_values

size = st.integers(1, 5)
both_forms = pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])


def draw_mask(kind, seed, batch, readers, read):
    """Draws a mask as `attend` takes it, and the same as (B, N, M); some readers may read nothing."""
    rng = np.random.default_rng(seed)
    if kind == "none":
        return None, np.ones((batch, readers, read), bool)
    if kind == "tokens":
        mask = rng.random((batch, read)) < 0.6
        return mask, np.repeat(mask[:, None], readers, 1)
    mask = rng.random((batch, readers, read)) < 0.5
    return mask[:, None], mask


@both_forms
@settings(few_examples, max_examples=8)
@given(
    batch=st.integers(1, 3),
    tokens=st.tuples(size, size),
    heads=st.integers(1, 3),
    width=st.integers(1, 4),
    kind=st.sampled_from(["none", "tokens", "each"]),
    seed=st.integers(0, 999),
)
def test_attention_equals_its_formula(fused, batch, tokens, heads, width, kind, seed):
    readers, read = tokens
    q, k, v = draw_normal(seed, (batch, readers, heads, width), *[(batch, read, heads, width)] * 2)
    mask, whole_mask = draw_mask(kind, seed, batch, readers, read)
    function = partial(attend, mask=None if mask is None else jnp.asarray(mask), fused=fused)
    assert_function_equals_formula(function, formulas.attention(q, k, v, mask=whole_mask), q, k, v, seed=seed)


PARTS = ("query", "key", "value", "out")


def params_of(values):
    """The parameters of an attention layer, of kernel and bias of each part in turn."""
    return {part: {"kernel": values[2 * i], "bias": values[2 * i + 1]} for i, part in enumerate(PARTS)}


@settings(few_examples, max_examples=6)
@given(
    batch=st.integers(1, 2),
    tokens=st.tuples(size, size),
    heads=st.integers(1, 3),
    share=st.integers(1, 3),
    has_context=st.booleans(),
    fused=st.booleans(),
    seed=st.integers(0, 999),
)
@example(batch=2, tokens=(4, 3), heads=2, share=3, has_context=True, fused=False, seed=0)
@example(batch=2, tokens=(4, 3), heads=3, share=2, has_context=False, fused=True, seed=0)
def test_attention_in_heads_equals_its_formula(batch, tokens, heads, share, has_context, fused, seed):
    """Head a owns features a E to (a + 1) E - 1; the context, where there is one, is what is read."""
    width, read = heads * share, tokens[1] if has_context else tokens[0]
    shapes = (batch, tokens[0], width), (batch, read, width), *[(width, width), (width,)] * 4
    x, context, *values = draw_normal(seed, *shapes)
    values = [value / np.sqrt(width) for value in values]
    if not has_context:
        context = x
    mask = np.ones((batch, tokens[0], read), bool)
    y, backward = formulas.multi_head(x, context, *values, heads=heads, mask=mask)
    layer = Attention(width, heads, fused=fused)

    def run(x, context, *values):
        contexts = [context] if has_context else []
        return call_layer(layer, params_of(values), x, *contexts)

    def backward_of_run(g):
        of_x, of_context, *of_values = backward(g)
        if has_context:
            return of_x, of_context, *of_values
        # x is its own context: both gradients are its, and the argument that is not read has none.
        return of_x + of_context, 0 * of_context, *of_values

    assert_function_equals_formula(run, (y, backward_of_run), x, context, *values, seed=seed)


@pytest.mark.parametrize("kind", ["tokens", "each"])
def test_the_layer_hands_its_mask_on(kind):
    (x, *values) = draw_normal(0, (2, 3, 4), *[(4, 4), (4,)] * 4)
    mask, whole_mask = draw_mask(kind, 5, 2, 3, 3)
    expected, _ = formulas.multi_head(x, x, *values, heads=2, mask=whole_mask)
    params = to_float32(params_of(values))
    y = run_layer(Attention(4, 2), params, jnp.asarray(to_float32(x)), mask=jnp.asarray(mask))
    np.testing.assert_allclose(y, expected, atol=1e-5)


@both_forms
@pytest.mark.parametrize("form", ["tokens", "each"])
def test_a_reader_that_may_read_nothing_gets_zeros_and_sends_no_gradient_back(fused, form):
    q, k, v, g = to_float32(draw_normal(0, *[(2, 3, 2, 4)] * 4))
    shape = (2, 3) if form == "tokens" else (2, 1, 3, 3)
    mask = jnp.ones(shape, bool).at[1].set(False)
    y, gradients = value_and_gradients(partial(attend, mask=mask, fused=fused), g, q, k, v)
    assert not np.any(y[1])
    assert np.any(y[0])
    for gradient in gradients:
        assert np.isfinite(gradient).all()
        assert not np.any(gradient[1])
        assert np.any(gradient[0])


@both_forms
def test_a_masked_token_is_not_read(fused):
    q, k, v = to_float32(draw_normal(0, *[(2, 4, 2, 3)] * 3))
    moved_k, moved_v = k.copy(), v.copy()
    moved_k[:, 2], moved_v[:, 2] = 1e4, -1e4
    mask = jnp.asarray([[True, True, False, True]] * 2)
    run = jax.jit(partial(attend, mask=mask, fused=fused))
    np.testing.assert_array_equal(run(q, k, v), run(q, moved_k, moved_v))


@both_forms
def test_attention_over_equal_values_gives_that_value(fused):
    q, k = to_float32(draw_normal(0, (2, 5, 2, 3), (2, 4, 2, 3)))
    value = np.float32([[1, 2, 3], [-4, 5, 6]])
    y = run_compiled(partial(attend, fused=fused), q, k, np.broadcast_to(value, (2, 4, 2, 3)))
    np.testing.assert_allclose(y, np.broadcast_to(value, (2, 5, 2, 3)), rtol=1e-5)


def test_scores_are_divided_by_the_root_of_the_heads_width():
    """q k' = 4 ln 3 in a head of width 16: ln 3 against 0, so weights of 3/4 and 1/4."""
    q, v = np.ones((1, 1, 1, 16), np.float32), np.float32([1, 0]).reshape(1, 2, 1, 1).repeat(16, -1)
    k = v * np.float32(np.log(3) / 4)
    np.testing.assert_allclose(run_compiled(attend, q, k, v), np.full((1, 1, 1, 16), 0.75), rtol=1e-5)


@both_forms
def test_a_bias_is_added_to_the_scores_of_its_head(fused):
    """Queries of 0 score 0 everywhere: a bias of ln 3 gives a weight of 3/4 beside 1/4, in the head that has it."""
    q, k = np.zeros((2, 1, 2, 3), np.float32), np.ones((2, 2, 2, 3), np.float32)
    v = np.float32([1, 0]).reshape(1, 2, 1, 1) * np.ones((2, 2, 2, 3), np.float32)
    bias = np.float32([[[np.log(3), 0]], [[0, 0]]])[None]  # (1, A, N, M)

    def run(q, k, v, bias):
        return attend(q, k, v, bias=bias, fused=fused)

    y = run_compiled(run, q, k, v, bias)
    np.testing.assert_allclose(y[:, 0], np.broadcast_to([[0.75], [0.5]], (2, 2, 3)), rtol=1e-5)
    _, (*_, of_bias) = value_and_gradients(run, np.ones_like(y), q, k, v, bias)
    # Six outputs of a head are its first weight w, whose slope in its bias is w (1 - w): 3/16 and 1/4.
    np.testing.assert_allclose(of_bias[0, :, 0], [[6 * 3 / 16, -6 * 3 / 16], [6 / 4, -6 / 4]], rtol=1e-5)


@both_forms
def test_a_bias_is_not_divided_by_the_root_of_the_heads_width_and_masked_tokens_stay_unread(fused):
    q, v = np.ones((1, 1, 1, 16), np.float32), np.float32([1, 0, 9]).reshape(1, 3, 1, 1).repeat(16, -1)
    k = np.float32([1, 0, 0]).reshape(1, 3, 1, 1).repeat(16, -1) * np.float32(np.log(2) / 4)  # scores ln 2, 0, 0
    bias = np.float32([np.log(2), 0, 50]).reshape(1, 1, 1, 3)
    mask = jnp.asarray([[True, True, False]])
    y = run_compiled(partial(attend, mask=mask, fused=fused), q, k, v)
    np.testing.assert_allclose(y, 2 / 3, rtol=1e-5)
    y = run_compiled(lambda q, k, v, bias: attend(q, k, v, mask=mask, bias=bias, fused=fused), q, k, v, bias)
    np.testing.assert_allclose(y, 4 / 5, rtol=1e-5)


@both_forms
def test_angles_turn_queries_and_keys_and_nothing_else(fused):
    """One head of two numbers, all kernels 1: turned by a and b, (1, 0) and (1, 0) have the product cos(b - a)."""
    identity = {"kernel": np.eye(2, dtype=np.float32), "bias": np.zeros(2, np.float32)}
    x = np.float32([[[1, 0], [1, 0], [1, 0]]])
    values = {"kernel": np.zeros((2, 2), np.float32), "bias": np.float32([3, 4])}
    angles = np.float32([[0], [1], [3]])
    layer = Attention(2, 1, fused=fused)
    same = run_layer(layer, dict.fromkeys(PARTS, identity) | {"value": values}, x, angles=angles)
    np.testing.assert_allclose(same, np.broadcast_to([3, 4], (1, 3, 2)), rtol=1e-5)
    # With the third token's value alone, what comes out is its weight.
    x = np.float32([[[1, 0], [1, 0], [1, 0.25]]])
    picked = {"kernel": np.float32([[0, 0], [4, 0]]), "bias": np.zeros(2, np.float32)}
    only_first = {"kernel": np.float32([[1, 0], [0, 0]]), "bias": np.zeros(2, np.float32)}
    params = {"query": only_first, "key": only_first, "value": picked, "out": identity}
    y = run_layer(layer, params, x, angles=angles)
    scores = np.cos(np.subtract.outer([0, 1, 3], [0, 1, 3])) / np.sqrt(2)
    weights = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(y[0, :, 0], weights[:, 2], rtol=1e-5)


@both_forms
def test_bfloat16_scores_and_softmax_are_float32(fused):
    """Scores of 600 and 602 over sqrt(4) are 300 and 301: in bfloat16, where neighbors are 2 apart, they would tie."""
    q = jnp.asarray([1, 1, 0, 0], jnp.bfloat16).reshape(1, 1, 1, 4)
    k = jnp.asarray([[300, 300, 0, 0], [300, 302, 0, 0]], jnp.bfloat16).reshape(1, 2, 1, 4)
    v = jnp.asarray([[0, 0, 0, 0], [1, 1, 1, 1]], jnp.bfloat16).reshape(1, 2, 1, 4)
    y = run_compiled(partial(attend, fused=fused), q, k, v)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(y), 1 / (1 + np.exp(-1)), rtol=0.01)


def test_bfloat16_tokens_give_bfloat16():
    layer = Attention(8, 2)
    params, _ = initial_values(functional(layer), seed=0)
    x = jnp.asarray(draw_normal(0, (2, 3, 8))[0], jnp.bfloat16)
    rough, exact = run_layer(layer, params, x), run_layer(layer, params, x.astype(jnp.float32))
    assert rough.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(rough), exact, atol=0.03)


def test_initial_kernels_reach_xaviers_limit_and_no_further():
    """sqrt(3 / width) in each of the four; PyTorch's joint kernel of queries, keys, values has sqrt(1/2) of it."""
    params, _ = initial_values(functional(Attention(96, 4)), seed=0)
    for part in PARTS:
        limit = np.sqrt(3 / 96)
        assert 0.99 * limit < np.abs(params[part]["kernel"]).max() <= limit
        assert not np.any(params[part]["bias"])


def sum_weights(*, train, seed=0, rate=0.5):
    """Runs attention whose outputs are the sums of each reader's weights: its values are 1, its output is handed on."""
    identity = {"kernel": np.eye(4, dtype=np.float32), "bias": np.zeros(4, np.float32)}
    constant_one = {"kernel": np.zeros((4, 4), np.float32), "bias": np.ones(4, np.float32)}
    params = {"query": identity, "key": identity, "value": constant_one, "out": identity}
    layer, x = Attention(4, 2, dropout=rate), np.zeros((6, 8, 4), np.float32)  # every weight is 1/8

    def run(x):
        return call_layer(layer, params, x, train=train, rngs=nnx.Rngs(dropout=jax.random.key(seed)))

    return np.asarray(run_compiled(run, x))


def test_dropped_weights_are_zero_and_the_others_are_doubled():
    sums = sum_weights(train=True)
    weights_left = sums * 4  # of 8 weights of 1/8, those that stay count 2/8 each
    np.testing.assert_allclose(weights_left, np.round(weights_left), atol=1e-6)
    assert abs(sums.mean() - 1) < 0.1  # 96 sums of 8 draws: three standard deviations
    np.testing.assert_allclose(sum_weights(train=False), 1, rtol=1e-6)


def test_each_weight_is_dropped_by_itself():
    """Flax's default drops the same weights in the whole batch and in all heads."""
    sums = sum_weights(train=True)
    assert any(not np.array_equal(sums[0], sums[i]) for i in range(1, 6))
    assert not np.array_equal(sums[..., :2], sums[..., 2:])  # the two heads
    np.testing.assert_array_equal(sums, sum_weights(train=True))
    assert not np.array_equal(sums, sum_weights(train=True, seed=1))


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        ({"heads": 3}, "3 heads do not share a width of 8 evenly"),
        ({"heads": 0}, "0 heads do not share"),
        ({"heads": 0, "head_width": 4}, "0 heads do not share"),
        ({"heads": 2, "head_width": 0}, "a head of 0 numbers has nothing to compare"),
        (
            {"heads": 2, "fused": True, "dropout": 0.1},
            "fused attention hides the weights to drop; set dropout=0.1 to 0",
        ),
        ({"heads": 2, "dropout": 1.0}, "a dropout rate of 1.0 must be at least 0 and below 1"),
    ],
)
def test_an_impossible_attention_is_refused_in_one_sentence(keywords, sentence):
    with pytest.raises(UserError, match=sentence):
        Attention(8, **keywords)
