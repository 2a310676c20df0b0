"""Pooling equals its formula; ties, overlap and the counting of padding are as documented."""

from functools import partial

import formulas
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from layers import assert_function_equals_formula, draw_normal, few_examples, run_compiled

from cnn_vit.errors import UserError
from cnn_vit.nn.pool import adaptive_average_pool, average_pool, blur_pool, max_pool


def pair(low, high):
    """Pairs of whole numbers, such as a height and a width."""
    return st.tuples(st.integers(low, high), st.integers(low, high))


def is_legal(plan):
    """Whether each padding is smaller than the window's side."""
    return all(max(padding) < side for padding, side in zip(plan["padding"], plan["size"], strict=True))


plans = st.fixed_dictionaries(
    {"size": pair(1, 4), "stride": pair(1, 3), "padding": st.tuples(pair(0, 2), pair(0, 2))}
).filter(is_legal)
shapes = st.tuples(st.integers(1, 2), st.integers(1, 8), st.integers(1, 8), st.integers(1, 3))


def fits(shape, plan):
    """Whether the padded images hold a window."""
    return all(shape[1 + i] + sum(plan["padding"][i]) >= plan["size"][i] for i in (0, 1))


def as_one_number(value):
    """One number where both are equal, which is the shorter way to write them."""
    return value[0] if value[0] == value[1] else value


@few_examples
@given(shape=shapes, plan=plans, seed=st.integers(0, 999), rounded=st.booleans())
def test_max_pooling_equals_its_formula(shape, plan, seed, rounded):
    """Overlapping windows and strides that leave pixels out; rounded numbers tie, as a rectifier's zeros do."""
    assume(fits(shape, plan))
    (x,) = draw_normal(seed, shape)
    if rounded:
        x = np.maximum(np.round(x), 0)
    size, stride = as_one_number(plan["size"]), as_one_number(plan["stride"])
    pool = partial(max_pool, size=size, stride=stride, padding=plan["padding"])
    assert_function_equals_formula(pool, formulas.max_pooling(x, **plan), x, seed=seed)


@few_examples
@given(shape=shapes, plan=plans, seed=st.integers(0, 999), count_padding=st.booleans())
def test_average_pooling_equals_its_formula(shape, plan, seed, count_padding):
    assume(fits(shape, plan))
    (x,) = draw_normal(seed, shape)
    formula = formulas.average_pooling(x, **plan, count_padding=count_padding)
    assert_function_equals_formula(partial(average_pool, **plan, count_padding=count_padding), formula, x, seed=seed)


@few_examples
@given(shape=shapes, plan=plans, seed=st.integers(0, 999))
def test_blur_pooling_equals_its_formula(shape, plan, seed):
    assume(fits(shape, plan))
    (x,) = draw_normal(seed, shape)
    pool = partial(blur_pool, **plan, padding_kind="zero")
    assert_function_equals_formula(pool, formulas.blur_pooling(x, **plan), x, seed=seed)


def blur_row(row, *, size=3, stride=2, kind="zero"):
    """Blurs one row, with size - 1 pixels of padding before it."""
    x = np.float32(row).reshape(1, 1, -1, 1)
    padding = ((0, 0), (size - 1, 0))
    pool = partial(blur_pool, size=(1, size), stride=(1, stride), padding=padding, padding_kind=kind)
    return run_compiled(pool, x).ravel().tolist()


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [  # of the row 8 16 32 64; windows end at the pixels 0 and 2, and have the weights 1 2 1
        ({"kind": "zero"}, [8, (8 + 2 * 16 + 32) / 4]),  # the first window holds one pixel
        ({"kind": "edge"}, [8, 18]),  # 8 8 8
        ({"kind": "reflect"}, [(32 + 2 * 16 + 8) / 4, 18]),  # 32 16 8
        ({"kind": "circular"}, [(32 + 2 * 64 + 8) / 4, 18]),  # 32 64 8
        ({"size": 2, "stride": 1}, [8, 12, 24, 48]),  # a mean of two
        ({"size": 4, "stride": 3}, [8, (8 + 3 * 16 + 3 * 32 + 64) / 8]),  # 1 3 3 1
    ],
)
def test_a_blurred_row_of_four_pixels_by_hand(keywords, expected):
    assert blur_row([8, 16, 32, 64], **keywords) == pytest.approx(expected)


def test_stripes_of_one_pixel_are_blurred_to_gray_where_every_second_pixel_depends_on_the_shift():
    """The highest frequency has no place on every second pixel: the weights 1 2 1 take it away whole.

    The largest of two neighbors is white wherever the stripes lie; the first of two is black or white.
    """
    stripes = np.float32([0, 1] * 4)
    for row, first in ((stripes, 0), (1 - stripes, 1)):
        assert blur_row(row)[1:] == [0.5] * 3
        image = row.reshape(1, 1, -1, 1)
        assert max_pool(image, (1, 1), stride=(1, 2), padding=0).ravel().tolist() == [first] * 4
        assert max_pool(image, (1, 2), stride=(1, 2), padding=0).ravel().tolist() == [1] * 4


def test_the_border_of_a_gray_image_stays_gray():
    pool = partial(blur_pool, size=3, stride=2, padding=2, padding_kind="zero")
    y = run_compiled(pool, np.full((1, 5, 7, 2), 0.75, np.float32))
    np.testing.assert_allclose(y, np.full((1, 4, 5, 2), 0.75), rtol=1e-6)


def test_a_blur_of_bfloat16_pixels_is_summed_in_float32():
    """256 + 1 is 256 in bfloat16, so that its partial sums would lose every 1."""
    row = jnp.asarray([256, 1, 1, 0], jnp.bfloat16).reshape(1, 1, 4, 1)
    y = run_compiled(partial(blur_pool, size=(1, 4), stride=1, padding=0, padding_kind="zero"), row)
    assert (y.dtype, y.ravel().tolist()) == (jnp.bfloat16, [32.75])  # (256 + 3 + 3 + 0) / 8


def gradient_of_sum(pool, x):
    """The gradient of the sum of all pooled numbers, for the first image and channel."""
    return jax.grad(lambda x: pool(x).sum())(x)[0, :, :, 0]


def test_the_first_of_equal_largest_pixels_gets_the_gradient():
    """Row by row, as in PyTorch; a maximum over reshaped windows would give a quarter to each."""
    gradient = gradient_of_sum(partial(max_pool, size=2, stride=2, padding=0), jnp.ones((1, 2, 2, 1)))
    assert gradient.tolist() == [[1, 0], [0, 0]]


def test_overlapping_windows_add_their_gradients():
    pool = partial(max_pool, size=3, stride=1, padding=0)
    assert gradient_of_sum(pool, jnp.ones((1, 4, 4, 1))).tolist() == [
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
    ]
    peak = jnp.zeros((1, 5, 5, 1)).at[0, 2, 2].set(1.0)
    assert gradient_of_sum(pool, peak)[2, 2] == 9


def test_padding_is_never_the_largest():
    x = jnp.full((1, 2, 2, 1), -5.0)
    assert max_pool(x, 3, stride=1, padding=1).ravel().tolist() == [-5] * 4


def average_ones(*, count_padding):
    """Averages ones in 3x3 windows that reach over the right and bottom edge."""
    padding = ((0, 1), (0, 1))
    y = average_pool(jnp.ones((1, 4, 4, 1)), 3, padding=padding, stride=2, count_padding=count_padding)
    return y[0, :, :, 0]


def test_an_average_counts_the_padding_only_where_it_should():
    """Ones under a padded 3x3 window: Flax and PyTorch count the zeros, TensorFlow does not."""
    np.testing.assert_allclose(average_ones(count_padding=True), [[1, 2 / 3], [2 / 3, 4 / 9]], rtol=1e-6)
    np.testing.assert_allclose(average_ones(count_padding=False), [[1, 1], [1, 1]], rtol=1e-6)


@pytest.mark.parametrize("missing", ["stride", "padding", "count_padding"])
def test_nothing_of_a_pooling_has_a_default(missing):
    """Flax's stride is 1, PyTorch's the window's size."""
    keywords = {"stride": 2, "padding": 0, "count_padding": True}
    del keywords[missing]
    with pytest.raises(TypeError, match=missing):
        average_pool(jnp.ones((1, 4, 4, 1)), 2, **keywords)
    if missing != "count_padding":
        del keywords["count_padding"]
        with pytest.raises(TypeError, match=missing):
            max_pool(jnp.ones((1, 4, 4, 1)), 2, **keywords)


def test_odd_pixels_at_right_and_bottom_are_left_out():
    x = jnp.arange(15.0).reshape(1, 3, 5, 1)
    assert max_pool(x, 2, stride=2, padding=0).ravel().tolist() == [6, 8]


def test_an_average_of_many_bfloat16_pixels_is_summed_in_float32():
    """Added up in bfloat16, ones would stop at 256."""
    y = average_pool(jnp.ones((1, 32, 32, 1), jnp.bfloat16), 32, stride=32, padding=0, count_padding=True)
    assert (y.dtype, y.ravel().tolist()) == (jnp.bfloat16, [1])


def test_the_largest_bfloat16_pixel_is_itself():
    x = jnp.asarray([-3.5, -1.25, -2.0, -7.0], jnp.bfloat16).reshape(1, 2, 2, 1)
    y = max_pool(x, 2, stride=2, padding=1)
    assert (y.dtype, y.ravel().tolist()) == (jnp.bfloat16, [-3.5, -1.25, -2.0, -7.0])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"padding": 2}, r"padding \(2, 2\) is as large as the window of 2 pixels, which could see nothing else"),
        ({"padding": ((0, 0), (0, 2))}, r"padding \(0, 2\) is as large as the window"),
        ({"padding": "VALID"}, "padding 'VALID' is neither"),
        ({"stride": 0}, "stride 0 is neither"),
        ({"size": 0}, "size 0 is neither"),
        ({"size": 5}, "a window of 5 pixels does not fit into 4 with 0 of padding"),
    ],
)
def test_an_impossible_pooling_is_refused_in_one_sentence(changes, sentence):
    keywords = {"size": 2, "stride": 2, "padding": 0} | changes
    for pool in (max_pool, partial(average_pool, count_padding=True), partial(blur_pool, padding_kind="zero")):
        with pytest.raises(UserError, match=sentence):
            pool(jnp.ones((1, 4, 4, 1)), **keywords)


@pytest.mark.parametrize(
    ("side", "expected"),
    [
        ([1, 2, 4, 8], [1.5, 6]),  # 2 divides 4
        ([1, 2, 4], [1.5, 3]),  # the windows share the middle one
        ([5], [5, 5]),
        ([1, 2], [1, 2]),
        ([1, 2, 4, 8, 16], [7 / 3, 28 / 3]),  # 0..2 and 2..4
    ],
)
def test_adaptive_windows_share_what_does_not_divide(side, expected):
    rows = np.float32(side).reshape(1, -1, 1, 1)
    assert adaptive_average_pool(rows, (2, 1)).ravel().tolist() == pytest.approx(expected)
    columns = rows.transpose(0, 2, 1, 3)
    assert adaptive_average_pool(columns, (1, 2)).ravel().tolist() == pytest.approx(expected)


def test_more_adaptive_windows_than_pixels_repeat_and_mix_them():
    """Three windows on two pixels: 0..1, 0..2 and 1..2; in both directions at once."""
    y = adaptive_average_pool(np.float32([[[[1], [3]], [[5], [11]]]]), 3)
    assert y[0, ..., 0].tolist() == [[1, 2, 3], [3, 5, 7], [5, 8, 11]]
