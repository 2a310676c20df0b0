"""The dense layer equals its formula, on any number of axes."""

import formulas
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layers import answered, assert_equals_formula, drawn, few, short

from cnn_vit.nn.dense import Dense


@few
@given(
    leading=st.lists(st.integers(1, 4), max_size=3),
    sizes=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    bias=st.booleans(),
    seed=st.integers(0, 999),
)
def test_a_dense_layer_equals_its_formula(leading, sizes, bias, seed):
    x, kernel, offset = drawn(seed, (*leading, sizes[0]), sizes, (sizes[1],))
    y, back = formulas.dense(x, kernel, offset if bias else 0 * offset)
    taken, names = ((x, kernel, offset), ("kernel", "bias")) if bias else ((x, kernel), ("kernel",))
    layer = Dense(*sizes, bias=bias)
    assert_equals_formula(layer, (y, lambda g: back(g)[: len(taken)]), *taken, names=names, seed=seed)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_the_dtype_is_that_of_the_input(dtype):
    x, kernel, bias = short(drawn(0, (2, 3, 4), (4, 5), (5,)))
    y = answered(Dense(4, 5), {"kernel": kernel, "bias": bias}, jnp.asarray(x, dtype))
    assert y.dtype == dtype
    np.testing.assert_allclose(np.float32(y), x @ kernel + bias, atol=0.05)
