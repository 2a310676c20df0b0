"""Convolution equals its formula; padding, groups, dilation and a filter that does not fit mean what they should."""

import formulas
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from layers import assert_equals_formula, call_layer, draw_normal, few_examples, run_layer, to_float32

from cnn_vit.errors import UserError
from cnn_vit.nn.conv import Conv, WindowDense


def pair(low, high):
    """Pairs of whole numbers, such as a height and a width."""
    return st.tuples(st.integers(low, high), st.integers(low, high))


STRIDED = {"image": (8, 7), "size": (3, 2), "padding": ((0, 1), (2, 1)), "stride": (2, 3), "dilation": (1, 2)}


@settings(few_examples, max_examples=16)
@given(
    batch=st.integers(1, 2),
    image=pair(1, 8),
    size=pair(1, 3),
    padding=st.tuples(pair(0, 2), pair(0, 2)),
    stride=pair(1, 3),
    dilation=pair(1, 2),
    groups=st.integers(1, 3),
    per_group=pair(1, 2),
    bias=st.booleans(),
    seed=st.integers(0, 999),
)
@example(batch=2, **STRIDED, groups=1, per_group=(3, 2), bias=True, seed=0)
@example(batch=2, **STRIDED, groups=2, per_group=(2, 2), bias=True, seed=1)
@example(batch=2, **STRIDED, groups=3, per_group=(1, 1), bias=True, seed=2)  # depthwise
@example(batch=2, **STRIDED, groups=3, per_group=(1, 2), bias=True, seed=3)  # two filters a channel
def test_a_convolution_equals_its_formula(batch, image, size, padding, stride, dilation, groups, per_group, bias, seed):
    for i in (0, 1):
        assume(image[i] + sum(padding[i]) > dilation[i] * (size[i] - 1))
    channels, filters = groups * per_group[0], groups * per_group[1]
    keywords = {"padding": padding, "stride": stride, "dilation": dilation, "groups": groups}
    x, kernel, offset = draw_normal(seed, (batch, *image, channels), (*size, per_group[0], filters), (filters,))
    layer = Conv(channels, filters, size, **keywords, bias=bias)
    if bias:
        formula = formulas.convolution(x, kernel, offset, **keywords)
        assert_equals_formula(layer, formula, x, kernel, offset, names=("kernel", "bias"), seed=seed)
    else:
        y, backward = formulas.convolution(x, kernel, 0 * offset, **keywords)
        assert_equals_formula(layer, (y, lambda g: backward(g)[:2]), x, kernel, names=("kernel",), seed=seed)


def test_one_number_stands_for_both_sides():
    x, kernel, bias = draw_normal(0, (1, 7, 6, 2), (3, 3, 2, 4), (4,))
    layer = Conv(2, 4, 3, padding=1, stride=2, dilation=2)
    keywords = {"padding": ((1, 1), (1, 1)), "stride": (2, 2), "dilation": (2, 2), "groups": 1}
    assert_equals_formula(layer, formulas.convolution(x, kernel, bias, **keywords), x, kernel, bias, seed=0)


@pytest.mark.parametrize("image", [(3, 2), (4, 5)], ids=["one window", "several"])
def test_a_dense_layer_on_windows_is_a_convolution_without_padding(image):
    x, kernel, bias = draw_normal(0, (2, *image, 3), (3, 2, 3, 4), (4,))
    keywords = {"padding": ((0, 0), (0, 0)), "stride": (1, 1), "dilation": (1, 1), "groups": 1}
    formula = formulas.convolution(x, kernel, bias, **keywords)
    assert_equals_formula(WindowDense(3, 4, (3, 2)), formula, x, kernel, bias, seed=0)


def test_the_filter_is_not_flipped():
    x = np.float32([1, 2, 4]).reshape(1, 1, 3, 1)
    params = {"kernel": np.float32([10, 1]).reshape(1, 2, 1, 1)}
    assert run_layer(Conv(1, 1, (1, 2), padding=0, bias=False), params, x).ravel().tolist() == [12, 24]


def test_channels_of_a_depthwise_convolution_do_not_mix():
    x, kernel = to_float32(draw_normal(0, (1, 5, 5, 3), (3, 3, 1, 3)))
    layer = Conv(3, 3, 3, padding=1, groups=3, bias=False)
    of_all_channels = run_layer(layer, {"kernel": kernel}, x)
    of_one_channel = run_layer(layer, {"kernel": kernel}, x * np.float32([0, 1, 0]))
    np.testing.assert_allclose(of_all_channels[..., 1], of_one_channel[..., 1], atol=1e-6)
    assert not np.any(of_one_channel[..., [0, 2]])


def test_padding_has_no_default():
    """Flax's is "SAME", PyTorch's 0."""
    with pytest.raises(TypeError, match="padding"):
        Conv(1, 1, 3)


def test_one_pixel_on_each_side_is_not_same_where_the_stride_is_2():
    """Both give 112 of 224 pixels; SAME has none before and one after, and so gives other numbers."""
    x, kernel = to_float32(draw_normal(0, (1, 224, 4, 1), (3, 3, 1, 1)))
    params = {"kernel": kernel}
    same = jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    after = run_layer(Conv(1, 1, 3, padding=((0, 1), (0, 1)), stride=2, bias=False), params, x)
    both = run_layer(Conv(1, 1, 3, padding=1, stride=2, bias=False), params, x)
    assert same.shape == after.shape == both.shape == (1, 112, 2, 1)
    np.testing.assert_allclose(after, same, atol=1e-5)
    assert np.abs(both - same).max() > 0.1


@pytest.mark.parametrize(
    ("pixels", "size", "stride", "padding", "dilation", "expected"),
    [  # output sides on which JAX and PyTorch agree
        (10, 4, 3, 1, 2, 2),
        (224, 11, 4, 2, 1, 55),
        (224, 7, 2, 3, 1, 112),
        (28, 5, 1, 0, 1, 24),
        (32, 3, 1, 1, 1, 32),
        (32, 3, 2, 0, 1, 15),
        (32, 5, 2, 2, 1, 16),
    ],
)
def test_output_sides_are_those_of_jax_and_pytorch(pixels, size, stride, padding, dilation, expected):
    layer = Conv(1, 1, size, padding=padding, stride=stride, dilation=dilation, bias=False)
    params = {"kernel": jax.ShapeDtypeStruct((size, size, 1, 1), jnp.float32)}
    image = jax.ShapeDtypeStruct((1, pixels, pixels, 1), jnp.float32)
    y = jax.eval_shape(lambda params, x: call_layer(layer, params, x), params, image)
    assert y.shape == (1, expected, expected, 1)


def test_bfloat16_images_give_bfloat16():
    x, kernel, bias = to_float32(draw_normal(0, (2, 5, 6, 3), (3, 3, 3, 4), (4,)))
    layer, params = Conv(3, 4, 3, padding=1), {"kernel": kernel, "bias": bias}
    rough, exact = run_layer(layer, params, jnp.asarray(x, jnp.bfloat16)), run_layer(layer, params, x)
    assert rough.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(rough), exact, atol=0.02 * np.abs(exact).max())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"groups": 2}, "2 groups do not divide 3 channels and 4 filters evenly"),
        ({"groups": 3}, "3 groups do not divide"),
        ({"groups": 0}, "0 groups do not divide"),
        ({"padding": "SAME"}, "padding 'SAME' is neither one number of pixels nor"),
        ({"padding": (1, 1)}, r"padding \(1, 1\) is neither"),
        ({"padding": -1}, "not a whole number of pixels from 0 up"),
        ({"padding": ((0, 1), (0, 0.5))}, "not a whole number of pixels from 0 up"),
        ({"stride": 0}, "stride 0 is neither a whole number of pixels above 0 nor two"),
        ({"dilation": (1, 1, 1)}, r"dilation \(1, 1, 1\) is neither"),
        ({"kernel_size": (3, 1.5)}, r"kernel_size \(3, 1.5\) is neither"),
        ({"initializer": "he_norml"}, "did you mean he_normal"),
    ],
)
def test_an_impossible_convolution_is_refused_in_one_sentence(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        Conv(**{"in_channels": 3, "filters": 4, "kernel_size": 3, "padding": 1} | changes)


def test_a_filter_larger_than_the_image_is_refused():
    layer = Conv(1, 1, 3, padding=((0, 0), (1, 1)), dilation=2, bias=False)
    params = {"kernel": np.ones((3, 3, 1, 1), np.float32)}
    assert run_layer(layer, params, jnp.ones((1, 5, 3, 1))).shape == (1, 1, 1, 1)
    with pytest.raises(UserError, match="a window of 5 pixels does not fit into 4 with 0 of padding"):
        run_layer(layer, params, jnp.ones((1, 4, 3, 1)))
