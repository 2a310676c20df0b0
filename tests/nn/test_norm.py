"""Normalization equals its formulas; running statistics, epsilon and float32 are what they are said to be."""

import formulas
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layers import answered, assert_alike, assert_equals_formula, called, drawn, few, live, once, short

from cnn_vit.errors import UserError
from cnn_vit.nn.norm import BatchNorm, GroupNorm, LayerNorm

NAMES = ("scale", "bias")
shapes = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.integers(1, 5))


def spread(seed, shape):
    """Images whose channels differ in mean and deviation, a scale and a bias."""
    x, mean, deviation, scale, bias = drawn(seed, shape, *[shape[-1:]] * 4)
    return np.float64(np.float32(x * (0.5 + np.abs(deviation)) + mean)), scale, bias


def statistics(seed, channels):
    mean, var = drawn(seed + 2, (channels,), (channels,))
    return {"mean": mean, "var": np.abs(var) + 0.25}


# --- batch norm


@few
@given(shape=shapes, epsilon=st.sampled_from([1e-5, 1e-3]), seed=st.integers(0, 999))
def test_batch_norm_in_training_equals_its_formula(shape, epsilon, seed):
    given = spread(seed, shape)
    formula = formulas.normalization(*given, axes=(0, 1, 2), epsilon=epsilon)
    stats = statistics(seed, shape[-1])  # must not matter
    layer = BatchNorm(shape[-1], epsilon=epsilon)
    assert_equals_formula(layer, formula, *given, seed=seed, names=NAMES, stats=stats, train=True)


@few
@given(shape=shapes, train=st.booleans(), seed=st.integers(0, 999))
def test_batch_norm_at_rest_or_fixed_uses_the_running_statistics(shape, train, seed):
    given, stats = spread(seed, shape), statistics(seed, shape[-1])
    formula = formulas.fixed_normalization(*given, **stats, epsilon=1e-5)
    layer = BatchNorm(shape[-1], fixed=train)
    assert_equals_formula(layer, formula, *given, seed=seed, names=NAMES, stats=stats, train=train)


def running(x, *, train=True, stats=None, dtype=jnp.float32, **how):
    """Running mean and variance after one call; at first 0 and 1."""
    channels = x.shape[-1]
    stats = {"mean": np.zeros(channels, np.float32), "var": np.ones(channels, np.float32)} if stats is None else stats
    ones = np.ones(channels, np.float32)

    def run(x, stats):
        layer = live(BatchNorm(channels, **how), {"scale": ones, "bias": ones}, stats)
        y = layer(x, train=train)
        return y, layer.mean[...], layer.var[...]

    y, mean, var = once(run, jnp.asarray(x, dtype), stats)
    assert y.dtype == dtype
    return np.asarray(mean), np.asarray(var)


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.99])
def test_running_statistics_keep_the_share_that_momentum_says(momentum):
    x = spread(3, (2, 3, 4, 5))[0]
    stats = short(statistics(3, 5))
    mean, var = running(x, momentum=momentum, stats=stats)
    assert_alike(mean, momentum * stats["mean"] + (1 - momentum) * x.mean((0, 1, 2)))
    assert_alike(var, momentum * stats["var"] + (1 - momentum) * x.var((0, 1, 2)))


def test_the_running_variance_is_the_biased_one():
    """Of 0, 1, 2, 3 it is 5 / 4 as in Flax; PyTorch keeps 5 / 3."""
    x = np.arange(4.0).reshape(4, 1, 1, 1)
    assert running(x, momentum=0.0)[1].tolist() == [1.25]


def test_the_defaults_of_batch_norm_are_those_of_pytorch():
    """Momentum 0.9, which PyTorch writes as 0.1 and for which Flax has 0.99; epsilon 1e-5."""
    assert running(np.full((1, 2, 2, 1), 10.0))[0] == np.float32(1)
    zero = {"scale": np.ones(1, np.float32), "bias": np.zeros(1, np.float32)}
    stats = {"mean": np.zeros(1, np.float32), "var": np.zeros(1, np.float32)}
    y = answered(BatchNorm(1), zero, jnp.ones((1, 1, 1, 1)), stats=stats, train=False)
    np.testing.assert_allclose(y.ravel(), [1 / np.sqrt(1e-5)], rtol=1e-6)


@pytest.mark.parametrize("how", [{"train": False}, {"train": True, "fixed": True}])
def test_statistics_rest_unless_trained(how):
    stats = short(statistics(0, 5))
    mean, var = running(spread(0, (2, 2, 2, 5))[0], stats=stats, **how)
    np.testing.assert_array_equal(mean, stats["mean"])
    np.testing.assert_array_equal(var, stats["var"])


def test_batch_norm_of_bfloat16_keeps_its_statistics_in_float32():
    """A mean of 1000.5 over thousands of pixels is no number of bfloat16, whose neighbors there are 4 apart."""
    x = np.where(np.arange(4096) % 2, 996.0, 1004.0).reshape(1, 64, 64, 1)
    x[0, 0, 0, 0] += 2048
    mean, var = running(x, momentum=0.0, dtype=jnp.bfloat16)
    assert mean.dtype == var.dtype == np.float32
    held = np.float64(np.asarray(jnp.asarray(x, jnp.bfloat16), np.float32))
    np.testing.assert_allclose(mean, [held.mean()], rtol=1e-6)
    np.testing.assert_allclose(var, [held.var()], rtol=1e-5)


def test_batch_norm_of_bfloat16_is_that_of_float32_rounded_once():
    """The mean is not folded into the bias: at 1000 in bfloat16 that would move a channel by up to 2."""
    x = np.float32(np.asarray(jnp.asarray(drawn(0, (2, 3, 4, 5))[0] + 1000, jnp.bfloat16)))
    params = {"scale": np.full(5, 0.7, np.float32), "bias": np.full(5, 0.1, np.float32)}
    stats = {"mean": np.full(5, 1000, np.float32), "var": np.ones(5, np.float32)}
    rough, exact = (
        answered(BatchNorm(5), params, jnp.asarray(x, dtype), stats=stats, train=False)
        for dtype in (jnp.bfloat16, jnp.float32)
    )
    np.testing.assert_array_equal(rough, exact.astype(jnp.bfloat16))


def test_statistics_that_are_given_keep_their_bits():
    """NumPy's too, without a compiler between: Flax writes into an array where one assigns to `variable[...]`."""
    given = short(statistics(0, 2))
    kept = jax.tree.map(np.copy, given)
    layer = live(BatchNorm(2), {"scale": np.ones(2, np.float32), "bias": np.ones(2, np.float32)}, given)
    layer(jnp.arange(8.0).reshape(1, 2, 2, 2), train=True)
    assert not np.allclose(layer.mean[...], kept["mean"])
    jax.tree.map(np.testing.assert_array_equal, given, kept)


# --- layer and group norm


@few
@given(
    leading=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    width=st.integers(1, 8),
    epsilon=st.sampled_from([1e-6, 1e-5, 0.1]),
    seed=st.integers(0, 999),
)
def test_layer_norm_equals_its_formula(leading, width, epsilon, seed):
    given = spread(seed, (*leading, width))
    formula = formulas.normalization(*given, axes=(-1,), epsilon=epsilon)
    assert_equals_formula(LayerNorm(width, epsilon=epsilon), formula, *given, seed=seed, names=NAMES)


@few
@given(
    shape=shapes.map(lambda shape: shape[:3]),
    groups=st.integers(1, 3),
    per_group=st.integers(1, 3),
    epsilon=st.sampled_from([1e-6, 1e-5, 0.1]),
    seed=st.integers(0, 999),
)
def test_group_norm_equals_its_formula(shape, groups, per_group, epsilon, seed):
    channels = groups * per_group
    given = spread(seed, (*shape, channels))
    formula = formulas.group_normalization(*given, groups=groups, epsilon=epsilon)
    assert_equals_formula(GroupNorm(channels, groups=groups, epsilon=epsilon), formula, *given, seed=seed, names=NAMES)


@pytest.mark.parametrize("layer", [lambda **how: LayerNorm(4, **how), lambda **how: GroupNorm(4, groups=2, **how)])
def test_epsilon_of_layer_and_group_norm_has_no_default(layer):
    """Flax's is 1e-6, PyTorch's 1e-5."""
    with pytest.raises(TypeError, match="epsilon"):
        layer()


@pytest.mark.parametrize(("epsilon", "expected"), [(1e-6, 1 / np.sqrt(2)), (3e-6, 1 / 2), (1e-5, 1 / np.sqrt(11))])
def test_epsilon_is_added_to_the_variance(epsilon, expected):
    """Two numbers 1e-3 from their mean have a variance of 1e-6."""
    params = {"scale": np.ones(2, np.float32), "bias": np.zeros(2, np.float32)}
    x = jnp.asarray([[[[0.0, 2e-3]]]])
    for layer in (LayerNorm(2, epsilon=epsilon), GroupNorm(2, groups=1, epsilon=epsilon)):
        np.testing.assert_allclose(answered(layer, params, x).ravel(), [-expected, expected], rtol=1e-5)


@pytest.mark.parametrize("layer", [LayerNorm(64, epsilon=1e-6), GroupNorm(64, groups=4, epsilon=1e-6)])
def test_norms_of_bfloat16_are_those_of_float32_rounded_once(layer):
    x = jnp.asarray(drawn(0, (2, 3, 2, 64))[0] + 100, jnp.bfloat16)  # in bfloat16 neighbors are 0.5 apart there
    scale, bias = short(drawn(1, (64,), (64,)))
    params = {"scale": scale, "bias": bias}
    rough, exact = answered(layer, params, x), answered(layer, params, x.astype(jnp.float32))
    assert rough.dtype == jnp.bfloat16
    np.testing.assert_array_equal(rough, exact.astype(jnp.bfloat16))


@pytest.mark.parametrize("groups", [0, 3, 8])
def test_groups_that_do_not_divide_the_channels_are_refused(groups):
    with pytest.raises(UserError, match=f"{groups} groups do not divide 4 channels evenly"):
        GroupNorm(4, groups=groups, epsilon=1e-5)


def test_the_gradient_of_a_flat_image_is_finite():
    params = {"scale": np.ones(4, np.float32), "bias": np.zeros(4, np.float32)}
    for layer in (LayerNorm(4, epsilon=1e-6), GroupNorm(4, groups=2, epsilon=1e-6)):
        found = once(jax.grad(lambda x, layer=layer: called(layer, params, x).sum()), jnp.ones((1, 2, 2, 4)))
        assert np.isfinite(found).all()
