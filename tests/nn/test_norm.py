"""Normalization equals its formulas; running statistics, epsilon and float32 are as documented."""

import formulas
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layers import (
    assert_close,
    assert_equals_formula,
    call_layer,
    draw_normal,
    few_examples,
    run_compiled,
    run_layer,
    to_float32,
    with_values,
)

from cnn_vit.errors import UserError
from cnn_vit.nn.norm import BatchNorm, GroupNorm, LayerNorm

NAMES = ("scale", "bias")
shapes = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.integers(1, 5))


def draw_inputs(seed, shape):
    """Draws images whose channels differ in mean and standard deviation, a scale and a bias."""
    x, mean, std, scale, bias = draw_normal(seed, shape, *[shape[-1:]] * 4)
    return np.float64(np.float32(x * (0.5 + np.abs(std)) + mean)), scale, bias


def draw_statistics(seed, channels):
    """Draws running statistics; the variances are at least 0.25."""
    mean, var = draw_normal(seed + 2, (channels,), (channels,))
    return {"mean": mean, "var": np.abs(var) + 0.25}


def identity_params(channels):
    """A scale of 1 and a bias of 0."""
    return {"scale": np.ones(channels, np.float32), "bias": np.zeros(channels, np.float32)}


# --- batch norm


@few_examples
@given(shape=shapes, epsilon=st.sampled_from([1e-5, 1e-3]), seed=st.integers(0, 999))
def test_batch_norm_in_training_equals_its_formula(shape, epsilon, seed):
    inputs = draw_inputs(seed, shape)
    formula = formulas.normalization(*inputs, axes=(0, 1, 2), epsilon=epsilon)
    stats = draw_statistics(seed, shape[-1])  # must not matter
    layer = BatchNorm(shape[-1], epsilon=epsilon)
    assert_equals_formula(layer, formula, *inputs, seed=seed, names=NAMES, stats=stats, train=True)


@few_examples
@given(shape=shapes, train=st.booleans(), seed=st.integers(0, 999))
def test_batch_norm_outside_training_or_fixed_uses_the_running_statistics(shape, train, seed):
    inputs, stats = draw_inputs(seed, shape), draw_statistics(seed, shape[-1])
    formula = formulas.fixed_normalization(*inputs, **stats, epsilon=1e-5)
    layer = BatchNorm(shape[-1], fixed=train)
    assert_equals_formula(layer, formula, *inputs, seed=seed, names=NAMES, stats=stats, train=train)


def running_statistics(x, *, train=True, stats=None, dtype=jnp.float32, **keywords):
    """Returns running mean and variance after one call; before it they are `stats`, or 0 and 1."""
    channels = x.shape[-1]
    if stats is None:
        stats = {"mean": np.zeros(channels, np.float32), "var": np.ones(channels, np.float32)}
    ones = np.ones(channels, np.float32)

    def run(x, stats):
        layer = with_values(BatchNorm(channels, **keywords), {"scale": ones, "bias": ones}, stats)
        y = layer(x, train=train)
        return y, layer.mean[...], layer.var[...]

    y, mean, var = run_compiled(run, jnp.asarray(x, dtype), stats)
    assert y.dtype == dtype
    return np.asarray(mean), np.asarray(var)


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.99])
def test_running_statistics_keep_the_share_that_momentum_names(momentum):
    x, _, _ = draw_inputs(3, (2, 3, 4, 5))
    stats = to_float32(draw_statistics(3, 5))
    mean, var = running_statistics(x, momentum=momentum, stats=stats)
    assert_close(mean, momentum * stats["mean"] + (1 - momentum) * x.mean((0, 1, 2)))
    assert_close(var, momentum * stats["var"] + (1 - momentum) * x.var((0, 1, 2)))


def test_the_running_variance_is_the_biased_one():
    """Of 0, 1, 2, 3 it is 5 / 4 as in Flax; PyTorch keeps 5 / 3."""
    x = np.arange(4.0).reshape(4, 1, 1, 1)
    _, var = running_statistics(x, momentum=0.0)
    assert var.tolist() == [1.25]


def test_the_defaults_of_batch_norm_are_those_of_pytorch():
    """Momentum 0.9, which PyTorch writes as 0.1 and for which Flax has 0.99; epsilon 1e-5."""
    mean, _ = running_statistics(np.full((1, 2, 2, 1), 10.0))
    assert mean == np.float32(1)
    stats = {"mean": np.zeros(1, np.float32), "var": np.zeros(1, np.float32)}
    y = run_layer(BatchNorm(1), identity_params(1), jnp.ones((1, 1, 1, 1)), stats=stats, train=False)
    np.testing.assert_allclose(y.ravel(), [1 / np.sqrt(1e-5)], rtol=1e-6)


@pytest.mark.parametrize("keywords", [{"train": False}, {"train": True, "fixed": True}])
def test_statistics_stay_as_they_are_unless_trained(keywords):
    stats = to_float32(draw_statistics(0, 5))
    x, _, _ = draw_inputs(0, (2, 2, 2, 5))
    mean, var = running_statistics(x, stats=stats, **keywords)
    np.testing.assert_array_equal(mean, stats["mean"])
    np.testing.assert_array_equal(var, stats["var"])


def test_batch_norm_of_bfloat16_keeps_its_statistics_in_float32():
    """A mean of 1000.5 over thousands of pixels is not a number of bfloat16, whose neighbors there are 4 apart."""
    x = np.where(np.arange(4096) % 2, 996.0, 1004.0).reshape(1, 64, 64, 1)
    x[0, 0, 0, 0] += 2048
    mean, var = running_statistics(x, momentum=0.0, dtype=jnp.bfloat16)
    assert mean.dtype == var.dtype == np.float32
    rounded = np.float64(np.asarray(jnp.asarray(x, jnp.bfloat16), np.float32))
    np.testing.assert_allclose(mean, [rounded.mean()], rtol=1e-6)
    np.testing.assert_allclose(var, [rounded.var()], rtol=1e-5)


def test_batch_norm_of_bfloat16_is_that_of_float32_rounded_once():
    """The mean is not folded into the bias: at 1000 in bfloat16 that would move a channel by up to 2."""
    x = np.float32(np.asarray(jnp.asarray(draw_normal(0, (2, 3, 4, 5))[0] + 1000, jnp.bfloat16)))
    params = {"scale": np.full(5, 0.7, np.float32), "bias": np.full(5, 0.1, np.float32)}
    stats = {"mean": np.full(5, 1000, np.float32), "var": np.ones(5, np.float32)}
    layer = BatchNorm(5)
    rough = run_layer(layer, params, jnp.asarray(x, jnp.bfloat16), stats=stats, train=False)
    exact = run_layer(layer, params, jnp.asarray(x, jnp.float32), stats=stats, train=False)
    np.testing.assert_array_equal(rough, exact.astype(jnp.bfloat16))


def test_a_callers_statistics_keep_their_bits():
    """NumPy's too, without a compiler between: Flax writes into an array where one assigns to `variable[...]`."""
    stats = to_float32(draw_statistics(0, 2))
    before = jax.tree.map(np.copy, stats)
    layer = with_values(BatchNorm(2), identity_params(2), stats)
    layer(jnp.arange(8.0).reshape(1, 2, 2, 2), train=True)
    assert not np.allclose(layer.mean[...], before["mean"])
    jax.tree.map(np.testing.assert_array_equal, stats, before)


# --- layer and group norm


@few_examples
@given(
    leading=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    width=st.integers(1, 8),
    epsilon=st.sampled_from([1e-6, 1e-5, 0.1]),
    seed=st.integers(0, 999),
)
def test_layer_norm_equals_its_formula(leading, width, epsilon, seed):
    inputs = draw_inputs(seed, (*leading, width))
    formula = formulas.normalization(*inputs, axes=(-1,), epsilon=epsilon)
    assert_equals_formula(LayerNorm(width, epsilon=epsilon), formula, *inputs, seed=seed, names=NAMES)


@few_examples
@given(
    shape=shapes.map(lambda shape: shape[:3]),
    groups=st.integers(1, 3),
    per_group=st.integers(1, 3),
    epsilon=st.sampled_from([1e-6, 1e-5, 0.1]),
    seed=st.integers(0, 999),
)
def test_group_norm_equals_its_formula(shape, groups, per_group, epsilon, seed):
    channels = groups * per_group
    inputs = draw_inputs(seed, (*shape, channels))
    formula = formulas.group_normalization(*inputs, groups=groups, epsilon=epsilon)
    layer = GroupNorm(channels, groups=groups, epsilon=epsilon)
    assert_equals_formula(layer, formula, *inputs, seed=seed, names=NAMES)


@pytest.mark.parametrize(
    "make_layer", [lambda **keywords: LayerNorm(4, **keywords), lambda **keywords: GroupNorm(4, groups=2, **keywords)]
)
def test_epsilon_of_layer_and_group_norm_has_no_default(make_layer):
    """Flax's is 1e-6, PyTorch's 1e-5."""
    with pytest.raises(TypeError, match="epsilon"):
        make_layer()


@pytest.mark.parametrize(("epsilon", "expected"), [(1e-6, 1 / np.sqrt(2)), (3e-6, 1 / 2), (1e-5, 1 / np.sqrt(11))])
def test_epsilon_is_added_to_the_variance(epsilon, expected):
    """Two numbers 1e-3 from their mean have a variance of 1e-6."""
    x = jnp.asarray([[[[0.0, 2e-3]]]])
    for layer in (LayerNorm(2, epsilon=epsilon), GroupNorm(2, groups=1, epsilon=epsilon)):
        y = run_layer(layer, identity_params(2), x)
        np.testing.assert_allclose(y.ravel(), [-expected, expected], rtol=1e-5)


@pytest.mark.parametrize("layer", [LayerNorm(64, epsilon=1e-6), GroupNorm(64, groups=4, epsilon=1e-6)])
def test_norms_of_bfloat16_are_those_of_float32_rounded_once(layer):
    x = jnp.asarray(draw_normal(0, (2, 3, 2, 64))[0] + 100, jnp.bfloat16)  # in bfloat16 neighbors are 0.5 apart there
    scale, bias = to_float32(draw_normal(1, (64,), (64,)))
    params = {"scale": scale, "bias": bias}
    rough, exact = run_layer(layer, params, x), run_layer(layer, params, x.astype(jnp.float32))
    assert rough.dtype == jnp.bfloat16
    np.testing.assert_array_equal(rough, exact.astype(jnp.bfloat16))


@pytest.mark.parametrize("groups", [0, 3, 8])
def test_groups_that_do_not_divide_the_channels_are_refused(groups):
    with pytest.raises(UserError, match=f"{groups} groups do not divide 4 channels evenly"):
        GroupNorm(4, groups=groups, epsilon=1e-5)


def test_the_gradient_of_a_flat_image_is_finite():
    params = identity_params(4)
    for layer in (LayerNorm(4, epsilon=1e-6), GroupNorm(4, groups=2, epsilon=1e-6)):
        gradient_of_sum = jax.grad(lambda x, layer=layer: call_layer(layer, params, x).sum())
        gradient = run_compiled(gradient_of_sum, jnp.ones((1, 2, 2, 4)))
        assert np.isfinite(gradient).all()
