"""Patch embedding equals unfolding and a matrix, and a convolution whose stride is its kernel's side."""

import formulas
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
    run_layer,
    to_float32,
    value_and_gradients,
)

from cnn_vit.errors import UserError
from cnn_vit.nn.conv import Conv
from cnn_vit.nn.patches import PatchEmbed


@few_examples
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
    x, kernel, bias = draw_normal(seed, *shapes)
    formula = formulas.patch_embedding(x, kernel, bias)
    assert_equals_formula(PatchEmbed(patch, channels, width), formula, x, kernel, bias, seed=seed)


@pytest.mark.parametrize(("image_size", "patch"), [((8, 12), 4), ((9, 3), 3), ((4, 4), 1)])
def test_patch_embedding_is_a_convolution_with_its_sides_stride(image_size, patch):
    """The values of one are those of the other, as they are; forward and gradient."""
    tokens = (image_size[0] // patch) * (image_size[1] // patch)
    shapes = (2, *image_size, 3), (patch, patch, 3, 5), (5,), (2, tokens, 5)
    x, kernel, bias, g = to_float32(draw_normal(0, *shapes))
    params = {"kernel": kernel, "bias": bias}
    conv, embed = Conv(3, 5, patch, padding=0, stride=patch), PatchEmbed(patch, 3, 5)

    def convolve_to_tokens(params, x):
        return call_layer(conv, params, x).reshape(g.shape)

    expected = value_and_gradients(convolve_to_tokens, g, params, x)
    assert_close(value_and_gradients(lambda params, x: call_layer(embed, params, x), g, params, x), expected)


def test_tokens_run_row_by_row():
    x = jnp.arange(6.0).reshape(1, 2, 3, 1)
    params = {"kernel": np.ones((1, 1, 1, 1), np.float32), "bias": np.zeros(1, np.float32)}
    assert run_layer(PatchEmbed(1, 1, 1), params, x).ravel().tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("image_size", [(30, 32), (32, 30), (8, 16)])
def test_an_image_that_is_not_whole_patches_is_refused(image_size):
    params = {"kernel": np.ones((16, 16, 1, 2), np.float32), "bias": np.zeros(2, np.float32)}
    height, width = image_size
    sentence = f"{height}x{width} pixels are not whole 16-pixel patches; make data.image_size a multiple of 16"
    with pytest.raises(UserError, match=sentence):
        run_layer(PatchEmbed(16, 1, 2), params, jnp.ones((1, height, width, 1)))


def test_patches_keep_bfloat16():
    x, kernel, bias = to_float32(draw_normal(0, (2, 4, 6, 3), (2, 2, 3, 5), (5,)))
    layer, params = PatchEmbed(2, 3, 5), {"kernel": kernel, "bias": bias}
    rough, exact = run_layer(layer, params, jnp.asarray(x, jnp.bfloat16)), run_layer(layer, params, x)
    assert rough.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(rough), exact, atol=0.02 * np.abs(exact).max())
