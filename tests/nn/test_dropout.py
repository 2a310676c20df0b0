"""What is dropped in training: its share, the scaling of the rest, its gradient; otherwise the layers do nothing."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import assert_close, draw_normal, few_examples, run_compiled, to_float32, value_and_gradients

from cnn_vit.errors import UserError
from cnn_vit.nn.dropout import Dropout, StochasticDepth

both_layers = pytest.mark.parametrize("layer_class", [Dropout, StochasticDepth])


def train_call(layer, seed, x):
    return layer(x, train=True, rngs=nnx.Rngs(dropout=jax.random.key(seed)))


def drop(layer, x, *, seed=0):
    """Runs a layer in training, compiled."""
    return np.asarray(run_compiled(partial(train_call, layer, seed), x))


@both_layers
@settings(few_examples, max_examples=5)
@given(
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    rate=st.sampled_from([0.1, 0.5, 0.8]),
    seed=st.integers(0, 999),
)
def test_what_remains_is_divided_by_the_probability_of_remaining(layer_class, shape, rate, seed):
    """y = x remains / (1 - rate), and the gradient likewise; whole examples in stochastic depth."""
    x, g = draw_normal(seed, shape, shape)
    y, (of_x,) = value_and_gradients(partial(train_call, layer_class(rate), seed), to_float32(g), to_float32(x))
    remains = np.asarray(y) != 0
    assert_close(y, x * remains / (1 - rate))
    assert_close(of_x, g * remains / (1 - rate))
    if layer_class is StochasticDepth:
        by_example = remains.reshape(len(x), -1)
        assert (by_example.all(1) | ~by_example.any(1)).all()


@both_layers
@pytest.mark.parametrize("rate", [0.05, 0.3, 0.9])
def test_the_share_dropped_is_the_rate(layer_class, rate):
    """Within four standard deviations of 20,000 draws."""
    x = jnp.ones((100, 200)) if layer_class is Dropout else jnp.ones((20_000, 1))
    share = np.mean(drop(layer_class(rate), x) == 0)
    assert abs(share - rate) < 4 * np.sqrt(rate * (1 - rate) / 20_000)


def test_dropout_draws_for_each_number_and_stochastic_depth_for_each_example():
    x = jnp.ones((64, 5, 5))
    examples = drop(Dropout(0.5), x)
    assert all(0 < np.count_nonzero(example) < 25 for example in examples)
    rows = drop(StochasticDepth(0.5), x).reshape(64, -1)
    assert 0 < np.count_nonzero(rows[:, 0]) < 64


@both_layers
def test_the_draws_are_those_of_the_key(layer_class):
    x = jnp.ones((64, 3))
    np.testing.assert_array_equal(drop(layer_class(0.5), x, seed=3), drop(layer_class(0.5), x, seed=3))
    assert not np.array_equal(drop(layer_class(0.5), x, seed=3), drop(layer_class(0.5), x, seed=4))


def test_two_layers_of_one_call_draw_apart():
    rngs, layer, x = nnx.Rngs(dropout=jax.random.key(0)), Dropout(0.5), jnp.ones((64,))
    assert not np.array_equal(layer(x, train=True, rngs=rngs), layer(x, train=True, rngs=rngs))


@both_layers
@pytest.mark.parametrize(("rate", "train"), [(0.5, False), (0.0, True), (0.0, False)])
def test_without_training_or_rate_it_is_the_identity_and_needs_no_key(layer_class, rate, train):
    x = jnp.linspace(-1, 1, 12).reshape(3, 4)
    np.testing.assert_array_equal(layer_class(rate)(x, train=train), x)


@both_layers
def test_training_has_no_default(layer_class):
    with pytest.raises(TypeError, match="train"):
        layer_class(0.5)(jnp.ones(3))


@both_layers
def test_training_without_a_key_is_refused(layer_class):
    with pytest.raises(ValueError, match=r"a dropout rate of 0.5 in training needs rngs: pass rngs=nnx.Rngs\("):
        layer_class(0.5)(jnp.ones(3), train=True)


@both_layers
@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, float("nan")])
def test_a_rate_outside_its_range_is_refused(layer_class, rate):
    with pytest.raises(UserError, match=f"a dropout rate of {rate} must be at least 0 and below 1"):
        layer_class(rate)


@both_layers
def test_bfloat16_is_divided_in_float32(layer_class):
    """91 / 0.9 is 101.1, of which 101 is the nearest; 0.9 rounded to bfloat16 first, 0.8984, would give 101.5."""
    y = np.float32(drop(layer_class(0.1), jnp.full((50, 1), 91, jnp.bfloat16)))
    assert set(y.ravel().tolist()) == {0.0, 101.0}
    assert drop(layer_class(0.1), jnp.ones((2, 2), jnp.bfloat16)).dtype == jnp.bfloat16
