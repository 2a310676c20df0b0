"""Squeeze and excitation is its formula, and weakens all pixels of a channel alike."""

import formulas
import numpy as np
from layers import assert_function_equals_formula, call_layer, draw_normal, run_layer, to_float32

from cnn_vit.nn.squeeze import SqueezeExcitation

SHAPES = [(2, 3, 5, 4), (4, 3), (3,), (3, 4), (4,)]  # images, then kernel and bias of both dense layers


def nest(kernel1, bias1, kernel2, bias2):
    """Parameters of the layer."""
    return {"squeeze": {"kernel": kernel1, "bias": bias1}, "excite": {"kernel": kernel2, "bias": bias2}}


def test_squeeze_and_excitation_equals_its_formula():
    inputs = draw_normal(0, *SHAPES)
    layer = SqueezeExcitation(4, 3)

    def run(x, *values):
        return call_layer(layer, nest(*values), x)

    assert_function_equals_formula(run, formulas.squeeze_excitation(*inputs), *inputs, seed=1)


def test_a_factor_is_between_0_and_1_and_the_same_for_all_pixels_of_a_channel_of_an_image():
    x, *values = to_float32(draw_normal(1, *SHAPES))
    factors = np.asarray(run_layer(SqueezeExcitation(4, 3), nest(*values), x)) / x
    np.testing.assert_allclose(factors, np.broadcast_to(factors[:, :1, :1], x.shape), rtol=1e-5)
    assert (factors > 0).all()
    assert (factors < 1).all()
    assert np.ptp(factors[0, 0, 0]) > 0.01  # channels differ
    assert np.ptp(factors[:, 0, 0, 0]) > 0.01  # and images
