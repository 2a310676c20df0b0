"""How the tests of layers run one: with values, compiled once, beside its formula."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from hypothesis import settings

few = settings(max_examples=10, deadline=None, derandomize=True, database=None)
QUICK = {"xla_backend_optimization_level": 0}  # the same program, compiled in half the time: it runs once


def live(layer, params, stats=None):
    """The layer with values."""
    graph, *_ = nnx.split(layer, nnx.Param, nnx.BatchStat)
    return nnx.merge(graph, params, {} if stats is None else stats)


def called(layer, params, *arrays, stats=None, **how):
    return live(layer, params, stats)(*arrays, **how)


def once(function, *arrays):
    """What a function of arrays answers, compiled as a whole: cheaper than operation by operation."""
    return jax.jit(function, compiler_options=QUICK)(*arrays)


def answered(layer, params, *arrays, **how):
    """What a layer answers."""
    return once(lambda params, *arrays: called(layer, params, *arrays, **how), params, *arrays)


def pulled(function, g, *given):
    """What a function answers, and the gradients of what it was given where g is that of its answer."""

    def both(g, *given):
        y, back = jax.vjp(function, *given)
        return y, back(g)

    return once(both, g, *given)


def drawn(seed, *shapes):
    """Normal numbers that float32 holds, in float64."""
    rng = np.random.default_rng(seed)
    return [np.float64(rng.normal(size=shape).astype(np.float32)) for shape in shapes]


def short(tree):
    return jax.tree.map(np.float32, tree)


def assert_alike(found, expected):
    """Equal to 1e-5, of the largest number where that is above 1."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.dtype == jnp.float32
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * max(1, np.abs(other).max(initial=0)))


def assert_equals_formula(layer, formula, *given, seed, names=("kernel", "bias"), stats=None, **how):
    """A layer, forward and gradients of its input and of its parameters; those come behind x in `given`."""
    x, *values = given
    y, back = formula
    (g,) = drawn(seed + 1, y.shape)
    params = short(dict(zip(names, values, strict=True)))
    layer = partial(called, layer, **how) if stats is None else partial(called, layer, stats=short(stats), **how)
    found, (of_params, of_x) = pulled(layer, short(g), params, short(x))
    of_given = back(g)
    assert_alike(found, y)
    assert_alike(of_x, of_given[0])
    assert_alike(of_params, dict(zip(names, of_given[1:], strict=True)))


def assert_function_equals_formula(function, formula, *given, seed):
    """The same for a function of arrays alone."""
    y, back = formula
    (g,) = drawn(seed + 1, y.shape)
    found, gradients = pulled(function, short(g), *short(given))
    assert_alike(found, y)
    assert_alike(gradients, tuple(back(g)))
