"""How the tests of layers run a layer: with values, compiled once, compared with its formula."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from hypothesis import settings
from quick import QUICK

few_examples = settings(max_examples=10, deadline=None, derandomize=True, database=None)


def with_values(layer, params, stats=None):
    """Returns the layer with values in place of its declarations."""
    graph, *_ = nnx.split(layer, nnx.Param, nnx.BatchStat)
    return nnx.merge(graph, params, {} if stats is None else stats)


def call_layer(layer, params, *arrays, stats=None, **keywords):
    """Calls a layer with its parameters as an argument, so that they may be traced."""
    return with_values(layer, params, stats)(*arrays, **keywords)


def run_compiled(function, *arrays):
    """Runs a function of arrays compiled as a whole: cheaper than operation by operation."""
    return jax.jit(function, compiler_options=QUICK)(*arrays)


def run_layer(layer, params, *arrays, **keywords):
    """Runs a layer compiled as a whole."""
    return run_compiled(lambda params, *arrays: call_layer(layer, params, *arrays, **keywords), params, *arrays)


def value_and_gradients(function, g, *inputs):
    """Returns a function's output, and the gradients of its inputs where g is the gradient of the output."""

    def run(g, *inputs):
        y, backward = jax.vjp(function, *inputs)
        return y, backward(g)

    return run_compiled(run, g, *inputs)


def draw_normal(seed, *shapes):
    """Draws normal numbers that float32 holds exactly, as float64."""
    rng = np.random.default_rng(seed)
    return [np.float64(rng.normal(size=shape).astype(np.float32)) for shape in shapes]


def to_float32(tree):
    """Returns a tree of arrays with float32 leaves."""
    return jax.tree.map(np.float32, tree)


def assert_close(tree, expected):
    """Asserts that float32 trees agree to 1e-5, of the largest number where that is above 1."""
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    for leaf, expected_leaf in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        assert leaf.dtype == jnp.float32
        assert leaf.shape == expected_leaf.shape
        largest = max(1, np.abs(expected_leaf).max(initial=0))
        np.testing.assert_allclose(leaf, expected_leaf, rtol=1e-5, atol=1e-5 * largest)


def assert_equals_formula(layer, formula, x, *values, seed, names=("kernel", "bias"), stats=None, **keywords):
    """Compares a layer with (y, backward) of its formula: its output, the gradients of x and of its parameters.

    `values` are those of the parameters called `names`.
    """
    expected, backward = formula
    (g,) = draw_normal(seed + 1, expected.shape)
    params = to_float32(dict(zip(names, values, strict=True)))
    if stats is not None:
        keywords["stats"] = to_float32(stats)
    run = partial(call_layer, layer, **keywords)
    y, (of_params, of_x) = value_and_gradients(run, to_float32(g), params, to_float32(x))
    expected_of_x, *expected_of_values = backward(g)
    assert_close(y, expected)
    assert_close(of_x, expected_of_x)
    assert_close(of_params, dict(zip(names, expected_of_values, strict=True)))


def assert_function_equals_formula(function, formula, *inputs, seed):
    """Compares a function of arrays with (y, backward) of its formula, output and gradients."""
    expected, backward = formula
    (g,) = draw_normal(seed + 1, expected.shape)
    y, gradients = value_and_gradients(function, to_float32(g), *to_float32(inputs))
    assert_close(y, expected)
    assert_close(gradients, tuple(backward(g)))
