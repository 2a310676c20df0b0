"""Positions: learned rows that are added, and the fixed waves of their source."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layers import assert_equals_formula, draw_normal, few_examples, run_layer, to_float32

from cnn_vit.errors import UserError
from cnn_vit.nn.position import LearnedPositions, sincos_positions


@few_examples
@given(batch=st.integers(1, 3), tokens=st.integers(1, 6), width=st.integers(1, 6), seed=st.integers(0, 999))
def test_learned_positions_are_added_to_each_token(batch, tokens, width, seed):
    x, table = draw_normal(seed, (batch, tokens, width), (tokens, width))
    formula = x + table, lambda g: (g, g.sum(0))
    assert_equals_formula(LearnedPositions(tokens, width), formula, x, table, names=("embedding",), seed=seed)


@pytest.mark.parametrize("shape", [(2, 4, 5), (2, 3, 6), (2, 1, 5)])
def test_positions_of_other_tokens_are_refused(shape):
    """A single token would be added to all rows silently."""
    params = {"embedding": np.zeros((3, 5), np.float32)}
    with pytest.raises(ValueError, match=r"do not fit learned positions of shape \(3, 5\)"):
        run_layer(LearnedPositions(3, 5), params, jnp.zeros(shape))


def test_learned_positions_keep_bfloat16():
    x, table = to_float32(draw_normal(0, (2, 3, 4), (3, 4)))
    y = run_layer(LearnedPositions(3, 4), {"embedding": table}, jnp.asarray(x, jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(y), x + table, atol=0.05)


def waves(position, quarter, temperature):
    """Sines, then cosines, of a position along one axis."""
    angles = [position / temperature ** (i / (quarter - 1)) for i in range(quarter)]
    return [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]


@few_examples
@given(
    grid=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    quarter=st.integers(2, 6),
    temperature=st.sampled_from([100.0, 10_000.0]),
)
def test_sincos_positions_are_the_waves_of_the_column_then_of_the_row(grid, quarter, temperature):
    """`posemb_sincos_2d` of big_vision: sin x, cos x, sin y, cos y; the slowest wave is 1 / temperature."""
    table = sincos_positions(*grid, 4 * quarter, temperature=temperature)
    assert (table.shape, table.dtype) == ((grid[0] * grid[1], 4 * quarter), np.float32)
    for token, features in enumerate(table):
        row, column = divmod(token, grid[1])
        expected = waves(column, quarter, temperature) + waves(row, quarter, temperature)
        np.testing.assert_allclose(features, expected, atol=1e-6)


def test_sincos_positions_are_those_that_big_vision_prints():
    """Token 10 of 7 x 7 is row 1, column 3."""
    expected = [0.14112001, 0.0003, -0.9899925, 0.99999996, 0.84147098, 0.0001, 0.54030231, 1.0]
    np.testing.assert_allclose(sincos_positions(7, 7, 8)[10], expected, atol=1e-6)
    assert abs(np.float64(sincos_positions(14, 14, 384)[195]).sum() - 159.071904) < 1e-3


def test_four_features_have_one_wave_each():
    expected = [math.sin(2), math.cos(2), math.sin(0), math.cos(0)]
    np.testing.assert_allclose(sincos_positions(1, 3, 4)[2], expected, atol=1e-6)


@pytest.mark.parametrize("features", [0, 2, 6, 7])
def test_features_that_four_waves_cannot_share_are_refused(features):
    with pytest.raises(UserError, match=f"{features} features are not a multiple of 4"):
        sincos_positions(2, 2, features)
