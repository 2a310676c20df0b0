"""Positions: learned rows that are added or stand beside, fixed waves, turned pairs, scores by the offset."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import (
    assert_equals_formula,
    assert_function_equals_formula,
    call_layer,
    draw_normal,
    few_examples,
    run_compiled,
    run_layer,
    to_float32,
)

from cnn_vit.errors import UserError
from cnn_vit.nn.dense import Dense
from cnn_vit.nn.position import (
    ConcatenatedPositions,
    LearnedPositions,
    relative_scores,
    rotary_angles,
    rotate,
    sincos_positions,
)

few = st.integers(1, 4)
a_few = settings(few_examples, max_examples=4)


@few_examples
@given(batch=st.integers(1, 3), tokens=st.integers(1, 6), width=st.integers(1, 6), seed=st.integers(0, 999))
def test_learned_positions_are_added_to_each_token(batch, tokens, width, seed):
    x, table = draw_normal(seed, (batch, tokens, width), (tokens, width))
    formula = x + table, lambda g: (g, g.sum(0))
    assert_equals_formula(LearnedPositions(tokens, width), formula, x, table, names=("embedding",), seed=seed)


@pytest.mark.parametrize("shape", [(2, 4, 5), (2, 3, 6), (2, 1, 5)])
@pytest.mark.parametrize("kind", [LearnedPositions, ConcatenatedPositions])
def test_positions_of_other_tokens_are_refused(kind, shape):
    """A single token would be added to all rows silently."""
    params = {"embedding": np.zeros((3, 5), np.float32)}
    if kind is ConcatenatedPositions:
        params["join"] = {"kernel": np.zeros((10, 5), np.float32), "bias": np.zeros(5, np.float32)}
    with pytest.raises(ValueError, match=r"do not fit learned positions of shape \(3, 5\)"):
        run_layer(kind(3, 5), params, jnp.zeros(shape))


def test_learned_positions_keep_bfloat16():
    x, table = to_float32(draw_normal(0, (2, 3, 4), (3, 4)))
    y = run_layer(LearnedPositions(3, 4), {"embedding": table}, jnp.asarray(x, jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(y), x + table, atol=0.05)


# Concatenated positions


def draw_concatenated(seed, batch, tokens, width):
    """Draws tokens, the rows of their positions, and kernel and bias of the dense layer that joins them."""
    return draw_normal(seed, (batch, tokens, width), (tokens, width), (2 * width, width), (width,))


def concatenated_params(table, kernel, bias):
    """The parameters of concatenated positions."""
    return {"embedding": table, "join": {"kernel": kernel, "bias": bias}}


def concatenate_and_map(x, table, kernel, bias):
    """[x, p] W + b for each token, and its gradients."""
    width = table.shape[1]
    joined = np.stack([np.concatenate([image, table], 1) for image in x])

    def backward(g):
        of_joined = g @ kernel.T
        of_kernel = np.einsum("bni,bnd->id", joined, g)
        return of_joined[..., :width], of_joined[..., width:].sum(0), of_kernel, g.sum((0, 1))

    return joined @ kernel + bias, backward


@a_few
@given(batch=st.integers(1, 3), tokens=st.integers(1, 5), width=st.integers(1, 4), seed=st.integers(0, 999))
def test_concatenated_positions_are_mapped_together_with_their_token(batch, tokens, width, seed):
    values = draw_concatenated(seed, batch, tokens, width)

    def run(x, *params):
        return call_layer(ConcatenatedPositions(tokens, width), concatenated_params(*params), x)

    assert_function_equals_formula(run, concatenate_and_map(*values), *values, seed=seed)


@a_few
@given(batch=st.integers(1, 3), tokens=st.integers(1, 5), width=st.integers(1, 4), seed=st.integers(0, 999))
def test_concatenation_and_a_linear_map_is_a_sum_of_two_maps(batch, tokens, width, seed):
    """[x, p] W + b = x W1 + (p W2 + b), W1 above W2 in W: the token is mapped, and a learned row is added to it."""
    x, table, kernel, bias = draw_concatenated(seed, batch, tokens, width)
    concatenated = run_layer(
        ConcatenatedPositions(tokens, width), to_float32(concatenated_params(table, kernel, bias)), np.float32(x)
    )
    of_token, of_position = kernel[:width], kernel[width:]
    mapped = run_layer(Dense(width, width, bias=False), {"kernel": np.float32(of_token)}, np.float32(x))
    rows = {"embedding": np.float32(table @ of_position + bias)}
    added = run_layer(LearnedPositions(tokens, width), rows, mapped)
    np.testing.assert_allclose(concatenated, added, rtol=1e-5, atol=1e-5)


# Fixed positions


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


# Rotary positions


def test_a_head_of_four_numbers_has_a_pair_for_the_column_and_one_for_the_row():
    """Of 2 x 3 patches, patch 5 is row 1, column 2; the only frequency of each axis is 1 radian a patch."""
    angles = rotary_angles(2, 3, 4)
    assert (angles.shape, angles.dtype) == ((6, 2), np.float32)
    assert angles.tolist() == [[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1]]


def test_the_frequencies_of_an_axis_fall_by_equal_factors_down_to_nearly_a_hundredth():
    """With eight numbers a head: 100 ** 0 and 100 ** -(1 / 2)."""
    np.testing.assert_allclose(rotary_angles(2, 3, 8)[5], [2, 0.2, 1, 0.1], rtol=1e-6)
    np.testing.assert_allclose(rotary_angles(2, 3, 8, temperature=10_000.0)[5], [2, 0.02, 1, 0.01], rtol=1e-6)


@a_few
@given(tokens=st.integers(1, 4), heads=st.integers(1, 3), pairs=st.integers(1, 4), seed=st.integers(0, 999))
def test_a_pair_of_numbers_is_turned_as_a_complex_number(tokens, heads, pairs, seed):
    """x_i + j x_(i + E/2) times exp(j angle); the gradient is turned back."""
    (x,) = draw_normal(seed, (2, tokens, heads, 2 * pairs))
    (angles,) = to_float32(draw_normal(seed + 1, (tokens, pairs)))

    def turn(values, turns):
        turned = (values[..., :pairs] + 1j * values[..., pairs:]) * np.exp(1j * np.float64(turns))[:, None]
        return np.concatenate([turned.real, turned.imag], -1)

    formula = turn(x, angles), lambda g: (turn(g, -angles),)
    assert_function_equals_formula(lambda x: rotate(x, angles), formula, x, seed=seed)


def test_products_of_turned_queries_and_keys_depend_on_the_way_between_them_only():
    """One query and one key at all places of 3 x 4 patches: a product for each way down and across, and no other."""
    q, k = (np.tile(np.float32(values), (12, 1)) for values in draw_normal(0, (8,), (8,)))
    angles = rotary_angles(3, 4, 8)
    heads = np.stack([q, k])[:, :, None]  # of two images with one head
    turned = run_compiled(lambda x: rotate(x, angles), heads)
    turned_q, turned_k = np.asarray(turned)[:, :, 0]
    products = turned_q @ turned_k.T
    by_way = {}
    for reader in range(12):
        for read in range(12):
            way = read // 4 - reader // 4, read % 4 - reader % 4
            by_way.setdefault(way, []).append(products[reader, read])
    assert len(by_way) == 5 * 7
    for alike in by_way.values():
        np.testing.assert_allclose(alike, alike[0], rtol=1e-4, atol=1e-5)
    assert np.ptp([alike[0] for alike in by_way.values()]) > 1
    np.testing.assert_allclose(by_way[0, 0], q[0] @ k[0], rtol=1e-5)


def test_turned_heads_keep_bfloat16():
    x = jnp.asarray(draw_normal(0, (1, 4, 2, 4))[0], jnp.bfloat16)
    assert run_compiled(lambda x: rotate(x, rotary_angles(2, 2, 4)), x).dtype == jnp.bfloat16


@pytest.mark.parametrize("features", [0, 2, 6])
def test_heads_whose_pairs_two_axes_cannot_share_are_refused(features):
    with pytest.raises(UserError, match=f"heads of {features} numbers are no multiple of 4"):
        rotary_angles(2, 2, features)


@pytest.mark.parametrize("shape", [(2, 3, 1, 4), (2, 1, 1, 4), (2, 4, 1, 2)])
def test_angles_of_other_tokens_are_refused(shape):
    with pytest.raises(ValueError, match=r"angles of shape \(4, 2\) do not fit heads of shape"):
        rotate(jnp.zeros(shape), rotary_angles(2, 2, 4))


# Relative positions


@a_few
@given(largest=st.tuples(few, few), less=st.tuples(few, few), heads=st.integers(1, 3), seed=st.integers(0, 99))
def test_the_score_of_a_patch_for_another_is_that_of_the_way_between_them(largest, less, heads, seed):
    """A smaller grid reads the middle of the table of the largest one."""
    grid = tuple(max(1, side - fewer + 1) for side, fewer in zip(largest, less, strict=True))
    (table,) = to_float32(draw_normal(seed, (heads, 2 * largest[0] - 1, 2 * largest[1] - 1)))
    scores = run_compiled(lambda table: relative_scores(table, grid), table)
    patches = [(row, column) for row in range(grid[0]) for column in range(grid[1])]
    assert scores.shape == (heads, len(patches), len(patches))
    for i, reader in enumerate(patches):
        for j, read in enumerate(patches):
            down, across = read[0] - reader[0], read[1] - reader[1]
            expected = table[:, largest[0] - 1 + down, largest[1] - 1 + across]
            np.testing.assert_array_equal(scores[:, i, j], expected)
