"""Attention equals its formula, plain and fused; masks, heads and dropout are what they are said to be."""

from functools import partial

import formulas
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import example, given, settings
from hypothesis import strategies as st
from layers import answered, assert_function_equals_formula, called, drawn, few, once, pulled, short

from cnn_vit.errors import UserError
from cnn_vit.nn.attention import Attention, attend
from cnn_vit.nn.values import functional, initial_values

size = st.integers(1, 5)
both_forms = pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])


def masked(kind, seed, batch, readers, read):
    """A mask as `attend` takes it, and as (B, N, M); some readers may read nothing."""
    rng = np.random.default_rng(seed)
    if kind == "none":
        return None, np.ones((batch, readers, read), bool)
    if kind == "tokens":
        mask = rng.random((batch, read)) < 0.6
        return mask, np.repeat(mask[:, None], readers, 1)
    mask = rng.random((batch, readers, read)) < 0.5
    return mask[:, None], mask


@both_forms
@settings(few, max_examples=8)
@given(
    batch=st.integers(1, 3),
    tokens=st.tuples(size, size),
    heads=st.integers(1, 3),
    width=st.integers(1, 4),
    mask=st.sampled_from(["none", "tokens", "each"]),
    seed=st.integers(0, 999),
)
def test_attention_equals_its_formula(fused, batch, tokens, heads, width, mask, seed):
    readers, read = tokens
    q, k, v = drawn(seed, (batch, readers, heads, width), *[(batch, read, heads, width)] * 2)
    given_mask, whole = masked(mask, seed, batch, readers, read)
    function = partial(attend, mask=None if given_mask is None else jnp.asarray(given_mask), fused=fused)
    assert_function_equals_formula(function, formulas.attention(q, k, v, mask=whole), q, k, v, seed=seed)


PARTS = ("query", "key", "value", "out")


@settings(few, max_examples=6)
@given(
    batch=st.integers(1, 2),
    tokens=st.tuples(size, size),
    heads=st.integers(1, 3),
    share=st.integers(1, 3),
    other=st.booleans(),
    fused=st.booleans(),
    seed=st.integers(0, 999),
)
@example(batch=2, tokens=(4, 3), heads=2, share=3, other=True, fused=False, seed=0)
@example(batch=2, tokens=(4, 3), heads=3, share=2, other=False, fused=True, seed=0)
def test_attention_in_heads_equals_its_formula(batch, tokens, heads, share, other, fused, seed):
    """Head a owns features a E to (a + 1) E - 1; the context, where there is one, is what is read."""
    width, read = heads * share, tokens[1] if other else tokens[0]
    shapes = (batch, tokens[0], width), (batch, read, width), *[(width, width), (width,)] * 4
    x, context, *values = drawn(seed, *shapes)
    values = [value / np.sqrt(width) for value in values]
    context = context if other else x
    mask = np.ones((batch, tokens[0], read), bool)
    y, back = formulas.multi_head(x, context, *values, heads=heads, mask=mask)
    layer = Attention(width, heads, fused=fused)

    def run(x, context, *values):
        params = {part: {"kernel": values[2 * i], "bias": values[2 * i + 1]} for i, part in enumerate(PARTS)}
        return called(layer, params, x, context) if other else called(layer, params, x)

    def through(g):
        of_x, of_context, *of_values = back(g)
        return (of_x, of_context, *of_values) if other else (of_x + of_context, 0 * of_context, *of_values)

    assert_function_equals_formula(run, (y, through), x, context, *values, seed=seed)


@pytest.mark.parametrize("kind", ["tokens", "each"])
def test_the_layer_hands_its_mask_on(kind):
    (x, *values) = drawn(0, (2, 3, 4), *[(4, 4), (4,)] * 4)
    given_mask, whole = masked(kind, 5, 2, 3, 3)
    y, _ = formulas.multi_head(x, x, *values, heads=2, mask=whole)
    params = {part: {"kernel": values[2 * i], "bias": values[2 * i + 1]} for i, part in enumerate(PARTS)}
    found = answered(Attention(4, 2), short(params), jnp.asarray(short(x)), mask=jnp.asarray(given_mask))
    np.testing.assert_allclose(found, y, atol=1e-5)


@both_forms
@pytest.mark.parametrize("form", ["tokens", "each"])
def test_a_reader_that_may_read_nothing_gets_zeros_and_sends_no_gradient_back(fused, form):
    q, k, v, g = short(drawn(0, *[(2, 3, 2, 4)] * 4))
    mask = jnp.ones((2, 3), bool).index[1].set(False) if form == "tokens" else jnp.ones((2, 1, 3, 3), bool)
    mask = mask if form == "tokens" else mask.at[1].set(False)
    y, gradients = pulled(partial(attend, mask=mask, fused=fused), g, q, k, v)
    assert not np.any(y[1])
    assert np.any(y[0])
    for gradient in gradients:
        assert np.isfinite(gradient).all()
        assert not np.any(gradient[1])
        assert np.any(gradient[0])


@both_forms
def test_what_is_masked_is_not_read(fused):
    q, k, v = short(drawn(0, *[(2, 4, 2, 3)] * 3))
    moved = k.copy(), v.copy()
    moved[0][:, 2], moved[1][:, 2] = 1e4, -1e4
    mask = jnp.asarray([[True, True, False, True]] * 2)
    run = jax.jit(partial(attend, mask=mask, fused=fused))
    np.testing.assert_array_equal(run(q, k, v), run(q, *moved))


@both_forms
def test_attention_over_equal_values_gives_that_value(fused):
    q, k = short(drawn(0, (2, 5, 2, 3), (2, 4, 2, 3)))
    value = np.float32([[1, 2, 3], [-4, 5, 6]])
    y = once(partial(attend, fused=fused), q, k, np.broadcast_to(value, (2, 4, 2, 3)))
    np.testing.assert_allclose(y, np.broadcast_to(value, (2, 5, 2, 3)), rtol=1e-5)


def test_scores_are_divided_by_the_root_of_the_heads_width():
    """q k' = 4 ln 3 in a head of width 16: ln 3 against 0, so weights of 3/4 and 1/4."""
    q, v = np.ones((1, 1, 1, 16), np.float32), np.float32([1, 0]).reshape(1, 2, 1, 1).repeat(16, -1)
    np.testing.assert_allclose(
        once(attend, q, v * np.float32(np.log(3) / 4), v), np.full((1, 1, 1, 16), 0.75), rtol=1e-5
    )


@both_forms
def test_bfloat16_scores_and_softmax_are_float32(fused):
    """Scores of 600 and 602 over sqrt(4) are 300 and 301: in bfloat16, where neighbors are 2 apart, they would tie."""
    q = jnp.asarray([1, 1, 0, 0], jnp.bfloat16).reshape(1, 1, 1, 4)
    k = jnp.asarray([[300, 300, 0, 0], [300, 302, 0, 0]], jnp.bfloat16).reshape(1, 2, 1, 4)
    v = jnp.asarray([[0, 0, 0, 0], [1, 1, 1, 1]], jnp.bfloat16).reshape(1, 2, 1, 4)
    y = once(partial(attend, fused=fused), q, k, v)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(y), 1 / (1 + np.exp(-1)), rtol=0.01)


def test_bfloat16_tokens_give_bfloat16():
    layer = Attention(8, 2)
    params, _ = initial_values(functional(layer), seed=0)
    x = jnp.asarray(drawn(0, (2, 3, 8))[0], jnp.bfloat16)
    rough, exact = answered(layer, params, x), answered(layer, params, x.astype(jnp.float32))
    assert rough.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(rough), exact, atol=0.03)


def test_first_kernels_reach_xaviers_limit_and_no_further():
    """sqrt(3 / width) in each of the four; PyTorch's joint kernel of queries, keys, values has sqrt(1/2) of it."""
    params, _ = initial_values(functional(Attention(96, 4)), seed=0)
    for part in PARTS:
        limit = np.sqrt(3 / 96)
        assert 0.99 * limit < np.abs(params[part]["kernel"]).max() <= limit
        assert not np.any(params[part]["bias"])


def summed_weights(*, train, seed=0, rate=0.5):
    """Each output is the sum of a reader's weights: values of 1, dense layers that hand on."""
    eye = {"kernel": np.eye(4, dtype=np.float32), "bias": np.zeros(4, np.float32)}
    one = {"kernel": np.zeros((4, 4), np.float32), "bias": np.ones(4, np.float32)}
    params = {"query": eye, "key": eye, "value": one, "out": eye}
    layer, x = Attention(4, 2, dropout=rate), np.zeros((6, 8, 4), np.float32)  # every weight is 1/8

    def run(x):
        return called(layer, params, x, train=train, rngs=nnx.Rngs(dropout=jax.random.key(seed)))

    return np.asarray(once(run, x))


def test_dropped_weights_are_zero_and_the_others_are_doubled():
    sums = summed_weights(train=True)
    eighths = sums * 4  # of 8 weights of 1/8, those kept count 2/8 each
    np.testing.assert_allclose(eighths, np.round(eighths), atol=1e-6)
    assert abs(sums.mean() - 1) < 0.1  # 96 sums of 8 draws: three deviations
    np.testing.assert_allclose(summed_weights(train=False), 1, rtol=1e-6)


def test_each_weight_is_dropped_by_itself():
    """Flax's default drops the same weights in the whole batch and in all heads."""
    sums = summed_weights(train=True)
    assert any(not np.array_equal(sums[0], sums[i]) for i in range(1, 6))
    assert not np.array_equal(sums[..., :2], sums[..., 2:])  # the two heads
    np.testing.assert_array_equal(sums, summed_weights(train=True))
    assert not np.array_equal(sums, summed_weights(train=True, seed=1))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"heads": 3}, "3 heads do not share a width of 8 evenly"),
        ({"heads": 0}, "0 heads do not share"),
        ({"heads": 2, "fused": True, "dropout": 0.1}, "fused attention has no weights to drop; make dropout=0.1 0"),
        ({"heads": 2, "dropout": 1.0}, "a dropped share of 1.0 is not at least 0 and below 1"),
    ],
)
def test_attention_that_cannot_be_is_one_sentence(given, sentence):
    with pytest.raises(UserError, match=sentence):
        Attention(8, **given)
