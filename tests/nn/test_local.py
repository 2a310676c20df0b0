"""A locally connected layer: its formula, what it shares with a convolution, and what it does not."""

import copy

import jax
import numpy as np
import pytest
from layers import assert_equals_formula, call_layer, draw_normal, run_layer, to_float32

from cnn_vit.analysis.table import describe
from cnn_vit.errors import UserError
from cnn_vit.models import build
from cnn_vit.nn.conv import Conv
from cnn_vit.nn.local import LocalConv
from cnn_vit.nn.values import functional, initial_values


def local_convolution(x, kernel, bias, *, padding, stride):
    """y[b,i,j,o] = bias[i,j,o] + the sum over u, v, c of padded[b, s i + u, s j + v, c] kernel[i, j, u, v, c, o]."""
    padded = np.pad(x, ((0, 0), *padding, (0, 0)))
    height, width = kernel.shape[2:4]
    y = np.zeros((len(x), *bias.shape)) + bias

    def window(i, j):
        return np.s_[:, i * stride[0] : i * stride[0] + height, j * stride[1] : j * stride[1] + width]

    for i, j in np.ndindex(kernel.shape[:2]):
        y[:, i, j] += np.einsum("bvui,vuio->bo", padded[window(i, j)], kernel[i, j])

    def backward(g):
        of_padded, of_kernel = np.zeros_like(padded), np.zeros_like(kernel)
        for i, j in np.ndindex(kernel.shape[:2]):
            of_padded[window(i, j)] += np.einsum("bo,vuio->bvui", g[:, i, j], kernel[i, j])
            of_kernel[i, j] = np.einsum("bvui,bo->vuio", padded[window(i, j)], g[:, i, j])
        (top, bottom), (left, right) = padding
        return of_padded[:, top : padded.shape[1] - bottom, left : padded.shape[2] - right], of_kernel, g.sum(0)

    return y, backward


def test_a_locally_connected_layer_equals_its_formula_with_gradients():
    """A 3x2 window on 5x6 pixels, stride 2 and 1, padding 1 above and 2 right: (6 - 3) // 2 + 1 by 8 - 2 + 1 places."""
    x, kernel, bias = draw_normal(0, (2, 5, 6, 2), (2, 7, 3, 2, 2, 4), (2, 7, 4))
    padding, stride = ((1, 0), (0, 2)), (2, 1)
    layer = LocalConv(2, 4, (3, 2), image_size=(5, 6), padding=padding, stride=stride)
    formula = local_convolution(x, kernel, bias, padding=padding, stride=stride)
    assert_equals_formula(layer, formula, x, kernel, bias, seed=0)


@pytest.mark.parametrize("kind", ["zero", "circular"])
def test_with_the_same_filters_at_each_place_it_is_the_convolution(kind):
    x, kernel, bias = to_float32(draw_normal(1, (2, 5, 6, 2), (3, 3, 2, 4), (4,)))
    keywords = {"padding": 1, "padding_kind": kind, "stride": (2, 1)}
    everywhere = {"kernel": np.tile(kernel, (3, 6, 1, 1, 1, 1)), "bias": np.tile(bias, (3, 6, 1))}
    y = run_layer(LocalConv(2, 4, 3, image_size=(5, 6), **keywords), everywhere, x)
    expected = run_layer(Conv(2, 4, 3, **keywords), {"kernel": kernel, "bias": bias}, x)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_what_is_learned_at_one_place_is_known_at_no_other():
    x, kernel = to_float32(draw_normal(2, (1, 4, 4, 1), (4, 4, 3, 3, 1, 2)))
    layer = LocalConv(1, 2, 3, image_size=4, padding=1, bias=False)
    gradient = jax.grad(lambda params: call_layer(layer, params, x)[0, 1, 2, 0])({"kernel": kernel})["kernel"]
    places = np.abs(gradient).sum((2, 3, 4, 5))
    assert np.argwhere(places).tolist() == [[1, 2]]


def test_parameters_and_products_are_counted_by_hand():
    """12x12 places of (9 weights + 1 bias) x 2 filters, 6x6 of (18 + 1) x 8, a head of 3x3x8 inputs: 9,082."""
    keywords = {"filters": (2, 8), "batch_norm": False, "pool_last": True, "channels": 1}
    local = describe("cnn/test", 12, sharing=False, **keywords)
    assert local.parameters == 144 * (9 + 1) * 2 + 36 * (18 + 1) * 8 + (72 + 1) * 10
    assert local.macs == 144 * 9 * 2 + 36 * 18 * 8 + 72 * 10
    shared = describe("cnn/test", 12, **keywords)
    assert shared.parameters == (9 + 1) * 2 + (18 + 1) * 8 + (72 + 1) * 10
    assert shared.macs == local.macs  # sharing saves memory, no arithmetic


def test_initial_values_are_he_s_for_one_window():
    """The variance is 2 / (3 * 3 * 4 inputs of a filter), whatever the number of places."""
    layer = LocalConv(4, 2, 3, image_size=5, padding=1)
    assert layer.kernel.shape == (5, 5, 3, 3, 4, 2)
    assert layer.kernel.get_metadata()["initializer"] == f"normal({np.sqrt(2 / 36)})"


@pytest.mark.parametrize(
    ("size", "sentence"),
    [(5, r"5x6 pixels has 5x6 places, and this layer has filters for 4x6"), (1, "does not fit")],
)
def test_an_image_of_another_size_is_refused(size, sentence):
    layer = LocalConv(1, 1, 3, image_size=(4, 6), padding=((0, 0), (1, 1)) if size == 1 else 1, bias=False)
    params = {"kernel": np.zeros(layer.kernel.shape, np.float32)}
    with pytest.raises(UserError, match=sentence):
        run_layer(layer, params, np.ones((1, size, 6, 1), np.float32))


def test_a_network_with_the_same_filters_at_each_place_scores_as_with_sharing():
    """Two convolutions in the first stage, strides and odd sizes: each layer has filters for the map that it gets."""
    keywords = {"image_size": (11, 13), "channels": 2, "convolutions": (2, 1), "stride": (2, 1), "padding": (1, 0)}
    networks = [functional(build("cnn/test", 3, sharing=sharing, **keywords)) for sharing in (True, False)]
    params, stats = initial_values(networks[0], 0)
    places = iter([(6, 7), (6, 7), (1, 1)])  # half of 11 and 13 rounded up, the same, and 3x3 pooled pixels less 2
    local = copy.deepcopy(params)
    for stage in local["stages"].values():
        for convolution in stage["convolutions"].values():
            convolution["kernel"] = np.tile(convolution["kernel"], (*next(places), 1, 1, 1, 1))
    images = np.random.default_rng(0).normal(size=(2, 11, 13, 2)).astype(np.float32)
    expected, _ = networks[0].apply(params, stats, images)
    scores, _ = networks[1].apply(local, stats, images)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)


def test_a_network_without_sharing_takes_images_of_its_size_and_no_mask():
    network = build("cnn/test", 3, image_size=8, sharing=False, head="average", batch_norm=False)
    with pytest.raises(UserError, match=r"filters for one size of images; set model\.sharing=true"):
        network.refuse_mask(train=False)
    with pytest.raises(UserError, match="16x16"):
        network.features(np.ones((1, 16, 16, 3), np.float32))
