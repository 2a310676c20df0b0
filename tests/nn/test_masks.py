"""Images in the corners of larger images: windows, masks and means are those of each image alone."""

from functools import partial

import formulas
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from layers import answered, assert_alike, assert_function_equals_formula, drawn, few, once, short

from cnn_vit.nn.conv import Conv
from cnn_vit.nn.masks import apply_mask, masked_mean, slide_mask
from cnn_vit.nn.pool import max_pool
from cnn_vit.nn.position import LearnedPositions

pair = lambda low, high: st.tuples(st.integers(low, high), st.integers(low, high))  # noqa: E731
plans = st.fixed_dictionaries({"size": pair(1, 4), "stride": pair(1, 3), "padding": st.tuples(pair(0, 3), pair(0, 3))})


def corner(size, image):
    """(1, H, W) True on an image of a size."""
    mask = np.zeros((1, *image), bool)
    mask[:, : size[0], : size[1]] = True
    return mask


def alone(size, plan):
    """Rows and columns of the places that an image by itself has; 0 where it is too small."""
    each = zip(size, plan["padding"], plan["size"], plan["stride"], strict=True)
    return tuple(max(0, (side + sum(edge) - window) // step + 1) for side, edge, window, step in each)


def enough(image, plan):
    return all(image[i] + sum(plan["padding"][i]) >= plan["size"][i] for i in (0, 1))


@few
@given(size=pair(1, 8), more=pair(0, 6), plan=plans)
def test_windows_are_those_of_the_image_alone(size, more, plan):
    """The counted places are a rectangle in the corner, floor((side + padding - size) / stride) + 1 a side."""
    image = size[0] + more[0], size[1] + more[1]
    assume(enough(image, plan))
    found = np.asarray(slide_mask(jnp.asarray(corner(size, image)), plan["size"], **without(plan, "size")))
    rows, columns = alone(size, plan)
    expected = np.zeros(found.shape, bool)
    expected[:, :rows, :columns] = rows > 0 and columns > 0
    np.testing.assert_array_equal(found, expected)


def without(plan, name):
    return {key: value for key, value in plan.items() if key != name}


@few
@given(size=pair(1, 8), more=pair(0, 6), plan=plans, seed=st.integers(0, 999))
def test_a_convolution_reads_the_same_taps_in_a_larger_image(size, more, plan, seed):
    """At any stride, with what lies around the image not even a number."""
    image = size[0] + more[0], size[1] + more[1]
    assume(min(alone(size, plan)) > 0)
    picture, kernel, bias = drawn(seed, (1, *size, 2), (*plan["size"], 2, 3), (3,))
    around = np.full((1, *image, 2), np.nan)
    around[:, : size[0], : size[1]] = picture
    how = {"padding": plan["padding"], "stride": plan["stride"]}
    layer, params = Conv(2, 3, plan["size"], **how), short({"kernel": kernel, "bias": bias})
    x = once(apply_mask, jnp.asarray(short(around)), jnp.asarray(corner(size, image)))
    rows, columns = alone(size, plan)
    expected, _ = formulas.convolution(picture, kernel, bias, **how, dilation=(1, 1), groups=1)
    assert_alike(answered(layer, params, x)[:, :rows, :columns], expected)


@few
@given(size=pair(2, 8), more=pair(0, 6), window=st.integers(1, 2), seed=st.integers(0, 999))
def test_counted_windows_of_a_pooling_lie_in_the_image(size, more, window, seed):
    image = size[0] + more[0], size[1] + more[1]
    (picture,) = drawn(seed, (1, *size, 2))
    around = np.full((1, *image, 2), 100.0)
    around[:, : size[0], : size[1]] = picture
    pool = partial(max_pool, size=window, stride=window, padding=0)
    mask = np.asarray(slide_mask(jnp.asarray(corner(size, image)), window, stride=window, padding=0))
    found = np.asarray(once(pool, short(around)))[mask]
    np.testing.assert_array_equal(found, np.asarray(once(pool, short(picture))).reshape(found.shape))


@few
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(1, 3)),
    flat=st.booleans(),
    seed=st.integers(0, 999),
)
def test_a_masked_mean_equals_its_formula(shape, flat, seed):
    """sum(m x) / sum(m), forward and backward, over pixels and over tokens; a mask of nothing gives 0."""
    (x,) = drawn(seed, shape)
    mask = np.random.default_rng(seed).random(shape[:-1]) < 0.6
    mask[0] = False
    if flat:
        x, mask = x.reshape(shape[0], -1, shape[-1]), mask.reshape(shape[0], -1)
    axes = tuple(range(1, mask.ndim))
    share = mask / np.maximum(mask.sum(axes, keepdims=True), 1)  # (B, ...)
    formula = (
        (x * share[..., None]).sum(axes),
        lambda g: (g[(slice(None), *[None] * len(axes))] * share[..., None],),
    )
    assert_function_equals_formula(lambda x: masked_mean(x, jnp.asarray(mask)), formula, x, seed=seed)


def test_a_masked_mean_of_bfloat16_is_summed_in_float32():
    """Of 1,000 ones and a 4 it is 1.003, which bfloat16 rounds to 1; sums in bfloat16 stop at 256."""
    x = jnp.ones((1, 1001, 1), jnp.bfloat16).index[0, 0].set(4)
    assert masked_mean(x, jnp.ones((1, 1001), bool)) == 1
    assert masked_mean(x, jnp.ones((1, 1001), bool)).dtype == jnp.bfloat16


@pytest.mark.parametrize("rows", [[0, 1, 2], [2, 0], [1]])
def test_tokens_get_the_positions_of_their_rows(rows):
    x, table = short(drawn(0, (2, len(rows), 4), (3, 4)))
    y = answered(LearnedPositions(3, 4), {"embedding": table}, jnp.asarray(x), rows=np.array(rows))
    np.testing.assert_array_equal(y, x + table[rows])


def test_what_is_left_out_sends_no_gradient():
    x = jnp.ones((1, 2, 3, 1))
    mask = jnp.asarray(corner((1, 2), (2, 3)))
    gradient = jax.grad(lambda x: apply_mask(x, mask).sum())(x)
    np.testing.assert_array_equal(gradient[..., 0], mask.astype(jnp.float32))
