"""Chance in training: its share, its scaling, its gradient; nothing at all otherwise."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import assert_alike, drawn, few, once, pulled, short

from cnn_vit.errors import UserError
from cnn_vit.nn.dropout import Dropout, StochasticDepth

BOTH = pytest.mark.parametrize("kind", [Dropout, StochasticDepth])


def thinned(layer, seed, x):
    return layer(x, train=True, rngs=nnx.Rngs(dropout=jax.random.key(seed)))


def dropped(layer, x, *, seed=0):
    return np.asarray(once(partial(thinned, layer, seed), x))


@BOTH
@settings(few, max_examples=5)
@given(
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    rate=st.sampled_from([0.1, 0.5, 0.8]),
    seed=st.integers(0, 999),
)
def test_what_is_kept_is_divided_by_the_share_kept(kind, shape, rate, seed):
    """y = x kept / (1 - rate), and the gradient likewise; whole examples in stochastic depth."""
    x, g = drawn(seed, shape, shape)
    y, (of_x,) = pulled(partial(thinned, kind(rate), seed), short(g), short(x))
    kept = np.asarray(y) != 0
    assert_alike(y, x * kept / (1 - rate))
    assert_alike(of_x, g * kept / (1 - rate))
    if kind is StochasticDepth:
        rows = kept.reshape(len(x), -1)
        assert (rows.all(1) | ~rows.any(1)).all()


@BOTH
@pytest.mark.parametrize("rate", [0.05, 0.3, 0.9])
def test_the_share_dropped_is_the_rate(kind, rate):
    """Within four deviations of 20,000 draws."""
    x = jnp.ones((100, 200)) if kind is Dropout else jnp.ones((20_000, 1))
    share = np.mean(dropped(kind(rate), x) == 0)
    assert abs(share - rate) < 4 * np.sqrt(rate * (1 - rate) / 20_000)


def test_dropout_draws_for_each_number_and_stochastic_depth_for_each_example():
    x = jnp.ones((64, 5, 5))
    each = dropped(Dropout(0.5), x)
    assert all(0 < np.count_nonzero(example) < 25 for example in each)
    rows = dropped(StochasticDepth(0.5), x).reshape(64, -1)
    assert 0 < np.count_nonzero(rows[:, 0]) < 64


@BOTH
def test_chance_is_that_of_the_key(kind):
    x = jnp.ones((64, 3))
    np.testing.assert_array_equal(dropped(kind(0.5), x, seed=3), dropped(kind(0.5), x, seed=3))
    assert not np.array_equal(dropped(kind(0.5), x, seed=3), dropped(kind(0.5), x, seed=4))


def test_two_layers_of_one_call_draw_apart():
    rngs, layer, x = nnx.Rngs(dropout=jax.random.key(0)), Dropout(0.5), jnp.ones((64,))
    assert not np.array_equal(layer(x, train=True, rngs=rngs), layer(x, train=True, rngs=rngs))


@BOTH
@pytest.mark.parametrize(("rate", "train"), [(0.5, False), (0.0, True), (0.0, False)])
def test_without_training_or_rate_it_is_the_identity_and_needs_no_key(kind, rate, train):
    x = jnp.linspace(-1, 1, 12).reshape(3, 4)
    np.testing.assert_array_equal(kind(rate)(x, train=train), x)


@BOTH
def test_training_has_no_default(kind):
    with pytest.raises(TypeError, match="train"):
        kind(0.5)(jnp.ones(3))


@BOTH
def test_training_without_a_key_is_refused(kind):
    with pytest.raises(ValueError, match=r"dropping a share of 0.5 in training needs rngs: pass rngs=nnx.Rngs\("):
        kind(0.5)(jnp.ones(3), train=True)


@BOTH
@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, float("nan")])
def test_a_rate_that_is_no_share_is_refused(kind, rate):
    with pytest.raises(UserError, match=f"a dropped share of {rate} is not at least 0 and below 1"):
        kind(rate)


@BOTH
def test_bfloat16_is_divided_in_float32(kind):
    """91 / 0.9 is 101.1, of which 101 is the nearest; 0.9 rounded to bfloat16 first, 0.8984, would give 101.5."""
    y = np.float32(dropped(kind(0.1), jnp.full((50, 1), 91, jnp.bfloat16)))
    assert set(y.ravel().tolist()) == {0.0, 101.0}
    assert dropped(kind(0.1), jnp.ones((2, 2), jnp.bfloat16)).dtype == jnp.bfloat16
