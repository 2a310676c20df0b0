"""The dense layer equals its formula, on any number of axes."""

import formulas
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layers import assert_equals_formula, draw_normal, few_examples, run_layer, to_float32

from cnn_vit.nn.dense import Dense


@few_examples
@given(
    leading=st.lists(st.integers(1, 4), max_size=3),
    sizes=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    bias=st.booleans(),
    seed=st.integers(0, 999),
)
def test_a_dense_layer_equals_its_formula(leading, sizes, bias, seed):
    x, kernel, offset = draw_normal(seed, (*leading, sizes[0]), sizes, (sizes[1],))
    layer = Dense(*sizes, bias=bias)
    if bias:
        formula = formulas.dense(x, kernel, offset)
        assert_equals_formula(layer, formula, x, kernel, offset, names=("kernel", "bias"), seed=seed)
    else:
        y, backward = formulas.dense(x, kernel, 0 * offset)
        assert_equals_formula(layer, (y, lambda g: backward(g)[:2]), x, kernel, names=("kernel",), seed=seed)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_the_dtype_is_that_of_the_input(dtype):
    x, kernel, bias = to_float32(draw_normal(0, (2, 3, 4), (4, 5), (5,)))
    y = run_layer(Dense(4, 5), {"kernel": kernel, "bias": bias}, jnp.asarray(x, dtype))
    assert y.dtype == dtype
    np.testing.assert_allclose(np.float32(y), x @ kernel + bias, atol=0.05)
