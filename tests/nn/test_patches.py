"""Patch embedding equals unfolding and a matrix, and a convolution whose stride is its kernel's side."""

import formulas
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layers import answered, assert_alike, assert_equals_formula, called, drawn, few, pulled, short

from cnn_vit.errors import UserError
from cnn_vit.nn.conv import Conv
from cnn_vit.nn.patches import PatchEmbed


@few
@given(
    batch=st.integers(1, 2),
    grid=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    patch=st.integers(1, 4),
    channels=st.integers(1, 3),
    width=st.integers(1, 5),
    seed=st.integers(0, 999),
)
def test_patch_embedding_equals_its_formula(batch, grid, patch, channels, width, seed):
    shapes = (batch, grid[0] * patch, grid[1] * patch, channels), (patch, patch, channels, width), (width,)
    x, kernel, bias = drawn(seed, *shapes)
    formula = formulas.patch_embedding(x, kernel, bias)
    assert_equals_formula(PatchEmbed(patch, channels, width), formula, x, kernel, bias, seed=seed)


@pytest.mark.parametrize(("sides", "patch"), [((8, 12), 4), ((9, 3), 3), ((4, 4), 1)])
def test_patch_embedding_is_a_convolution_with_its_sides_stride(sides, patch):
    """The values of one are those of the other, as they are; forward and gradient."""
    x, kernel, bias, g = short(drawn(0, (2, *sides, 3), (patch, patch, 3, 5), (5,), (2, *sides, 5)))
    params = {"kernel": kernel, "bias": bias}
    conv, embed = Conv(3, 5, patch, padding=0, stride=patch), PatchEmbed(patch, 3, 5)
    g = g[:, : sides[0] // patch, : sides[1] // patch].reshape(2, -1, 5)
    as_tokens = lambda params, x: called(conv, params, x).reshape(g.shape)  # noqa: E731
    expected = pulled(as_tokens, g, params, x)
    assert_alike(pulled(lambda params, x: called(embed, params, x), g, params, x), expected)


def test_tokens_run_row_by_row():
    x = jnp.arange(6.0).reshape(1, 2, 3, 1)
    params = {"kernel": np.ones((1, 1, 1, 1), np.float32), "bias": np.zeros(1, np.float32)}
    assert answered(PatchEmbed(1, 1, 1), params, x).ravel().tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("sides", [(30, 32), (32, 30), (8, 16)])
def test_an_image_that_is_not_whole_patches_is_refused(sides):
    params = {"kernel": np.ones((16, 16, 1, 2), np.float32), "bias": np.zeros(2, np.float32)}
    sentence = f"{sides[0]}x{sides[1]} pixels are not whole 16-pixel patches; make data.image_size a multiple of 16"
    with pytest.raises(UserError, match=sentence):
        answered(PatchEmbed(16, 1, 2), params, jnp.ones((1, *sides, 1)))


def test_patches_keep_bfloat16():
    x, kernel, bias = short(drawn(0, (2, 4, 6, 3), (2, 2, 3, 5), (5,)))
    layer, params = PatchEmbed(2, 3, 5), {"kernel": kernel, "bias": bias}
    rough, exact = answered(layer, params, jnp.asarray(x, jnp.bfloat16)), answered(layer, params, x)
    assert rough.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(rough), exact, atol=0.02 * np.abs(exact).max())
