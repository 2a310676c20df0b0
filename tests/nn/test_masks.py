"""Images in the corners of padded images: windows, masks and means are those of each image alone."""

from functools import partial

import formulas
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from layers import (
    assert_close,
    assert_function_equals_formula,
    draw_normal,
    few_examples,
    run_compiled,
    run_layer,
    to_float32,
)

from cnn_vit.nn.conv import Conv
from cnn_vit.nn.masks import apply_mask, masked_mean, slide_mask
from cnn_vit.nn.pool import max_pool
from cnn_vit.nn.position import LearnedPositions


def pair(low, high):
    """Pairs of whole numbers, such as a height and a width."""
    return st.tuples(st.integers(low, high), st.integers(low, high))


plans = st.fixed_dictionaries({"size": pair(1, 4), "stride": pair(1, 3), "padding": st.tuples(pair(0, 3), pair(0, 3))})


def enlarge(size, extra):
    """The sides of a padded image that is larger by some pixels."""
    return size[0] + extra[0], size[1] + extra[1]


def mask_corner(size, padded_size):
    """Returns (1, H, W), True on an image of a size in the corner of a padded image."""
    mask = np.zeros((1, *padded_size), bool)
    mask[:, : size[0], : size[1]] = True
    return mask


def put_in_corner(image, padded_size, around):
    """Puts an image (1, H, W, C) into the corner of a padded image of one number."""
    padded = np.full((1, *padded_size, image.shape[-1]), around)
    padded[:, : image.shape[1], : image.shape[2]] = image
    return padded


def count_windows_alone(size, plan):
    """Rows and columns of the windows that an image by itself has; 0 where it is too small."""
    counts = []
    for i in (0, 1):
        room = size[i] + sum(plan["padding"][i]) - plan["size"][i]
        counts.append(max(0, room // plan["stride"][i] + 1))
    return counts


def fits(image, plan):
    """Whether an image holds a window."""
    return all(image[i] + sum(plan["padding"][i]) >= plan["size"][i] for i in (0, 1))


@few_examples
@given(size=pair(1, 8), extra=pair(0, 6), plan=plans)
def test_windows_are_those_of_the_image_alone(size, extra, plan):
    """The counted windows are a rectangle in the corner, floor((side + padding - size) / stride) + 1 a side."""
    padded_size = enlarge(size, extra)
    assume(fits(padded_size, plan))
    mask = jnp.asarray(mask_corner(size, padded_size))
    new_mask = np.asarray(slide_mask(mask, plan["size"], stride=plan["stride"], padding=plan["padding"]))
    rows, columns = count_windows_alone(size, plan)
    expected = np.zeros(new_mask.shape, bool)
    expected[:, :rows, :columns] = rows > 0 and columns > 0
    np.testing.assert_array_equal(new_mask, expected)


@few_examples
@given(size=pair(1, 8), extra=pair(0, 6), plan=plans, seed=st.integers(0, 999))
def test_a_convolution_reads_the_same_pixels_in_a_padded_image(size, extra, plan, seed):
    """At any stride, where what lies around the image is not even a number."""
    padded_size = enlarge(size, extra)
    rows, columns = count_windows_alone(size, plan)
    assume(min(rows, columns) > 0)
    image, kernel, bias = draw_normal(seed, (1, *size, 2), (*plan["size"], 2, 3), (3,))
    padded = to_float32(put_in_corner(image, padded_size, around=np.nan))
    keywords = {"padding": plan["padding"], "stride": plan["stride"]}
    layer, params = Conv(2, 3, plan["size"], **keywords), to_float32({"kernel": kernel, "bias": bias})
    x = run_compiled(apply_mask, jnp.asarray(padded), jnp.asarray(mask_corner(size, padded_size)))
    expected, _ = formulas.convolution(image, kernel, bias, **keywords, dilation=(1, 1), groups=1)
    assert_close(run_layer(layer, params, x)[:, :rows, :columns], expected)


@few_examples
@given(size=pair(2, 8), extra=pair(0, 6), window=st.integers(1, 2), seed=st.integers(0, 999))
def test_counted_windows_of_a_pooling_lie_in_the_image(size, extra, window, seed):
    padded_size = enlarge(size, extra)
    (image,) = draw_normal(seed, (1, *size, 2))
    padded = put_in_corner(image, padded_size, around=100.0)
    pool = partial(max_pool, size=window, stride=window, padding=0)
    mask = np.asarray(slide_mask(jnp.asarray(mask_corner(size, padded_size)), window, stride=window, padding=0))
    pooled = np.asarray(run_compiled(pool, to_float32(padded)))[mask]
    expected = np.asarray(run_compiled(pool, to_float32(image)))
    np.testing.assert_array_equal(pooled, expected.reshape(pooled.shape))


@few_examples
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(1, 3)),
    flat=st.booleans(),
    seed=st.integers(0, 999),
)
def test_a_masked_mean_equals_its_formula(shape, flat, seed):
    """sum(m x) / sum(m), forward and backward, over pixels and over tokens; a mask of nothing gives 0."""
    (x,) = draw_normal(seed, shape)
    mask = np.random.default_rng(seed).random(shape[:-1]) < 0.6
    mask[0] = False
    if flat:
        x, mask = x.reshape(shape[0], -1, shape[-1]), mask.reshape(shape[0], -1)
    axes = tuple(range(1, mask.ndim))
    weights = mask / np.maximum(mask.sum(axes, keepdims=True), 1)  # (B, ...)

    def backward(g):
        return (np.expand_dims(g, axes) * weights[..., None],)

    formula = (x * weights[..., None]).sum(axes), backward
    assert_function_equals_formula(lambda x: masked_mean(x, jnp.asarray(mask)), formula, x, seed=seed)


def test_a_masked_mean_of_bfloat16_is_summed_in_float32():
    """Of 1,000 ones and a 4 it is 1.003, which bfloat16 rounds to 1; sums in bfloat16 stop at 256."""
    x = jnp.ones((1, 1001, 1), jnp.bfloat16).at[0, 0].set(4)
    assert masked_mean(x, jnp.ones((1, 1001), bool)) == 1
    assert masked_mean(x, jnp.ones((1, 1001), bool)).dtype == jnp.bfloat16


@pytest.mark.parametrize("rows", [[0, 1, 2], [2, 0], [1]])
def test_tokens_get_the_positions_of_their_rows(rows):
    x, table = to_float32(draw_normal(0, (2, len(rows), 4), (3, 4)))
    y = run_layer(LearnedPositions(3, 4), {"embedding": table}, jnp.asarray(x), rows=np.array(rows))
    np.testing.assert_array_equal(y, x + table[rows])


def test_what_a_mask_leaves_out_sends_no_gradient():
    x = jnp.ones((1, 2, 3, 1))
    mask = jnp.asarray(mask_corner((1, 2), (2, 3)))
    gradient = jax.grad(lambda x: apply_mask(x, mask).sum())(x)
    np.testing.assert_array_equal(gradient[..., 0], mask.astype(jnp.float32))
