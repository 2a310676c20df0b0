"""The walk of an image forward and back: every array is that of autodiff, and a step lowers the loss."""

import numpy as np
import pytest

from cnn_vit.analysis import backprop, backprop_trace


@pytest.fixture(scope="module")
def walk():
    """The walk of an image whose pixels are a ramp, so that no two are equal."""
    image = np.arange(64).reshape(8, 8) / 63
    return backprop_trace.trace(image, 4, rate=0.05, seed=1)


def test_every_array_of_every_layer_is_that_of_autodiff(walk):
    arrays = {(row.layer, row.array) for row in walk.differences}
    for name, kind in backprop_trace.LAYERS:
        expected = {"y", "dL/dy", "dL/dx"}
        if kind in ("conv", "dense"):
            expected |= {"dL/dw", "dL/db"}
        assert {array for layer, array in arrays if layer == name} == expected
    assert walk.largest_difference <= 1e-10
    assert all(row.scale > 1e-3 for row in walk.differences if row.array != "dL/dx")


def test_a_step_moves_each_parameter_against_its_gradient_and_lowers_the_loss(walk):
    for name, params in walk.stepped.items():
        layer = walk.layer(name)
        for key, values in params.items():
            np.testing.assert_array_equal(values, layer.params[key] - 0.05 * layer.gradients[key])
    assert walk.loss_after < walk.loss
    assert walk.loss == pytest.approx(-np.log(walk.probabilities[4]), rel=1e-12)
    assert walk.loss_after == pytest.approx(-np.log(walk.probabilities_after[4]), rel=1e-12)


def test_the_gradient_of_a_layer_is_what_the_layer_above_sends_down(walk):
    for below, above in zip(walk.layers, walk.layers[1:], strict=False):
        np.testing.assert_array_equal(below.g.ravel(), above.dx.ravel())
        np.testing.assert_array_equal(below.y.ravel(), above.x.ravel())
    np.testing.assert_array_equal(walk.layers[-1].g[0], walk.score_gradient)


def test_kernels_have_the_variance_of_he_and_another_seed_gives_others():
    first, second = (backprop_trace.initial_parameters((32, 32), seed) for seed in (0, 1))
    assert first["dense"]["w"].shape == (8 * 8 * 6, 10)
    assert first["dense"]["w"].var() == pytest.approx(2 / (8 * 8 * 6), rel=0.1)  # of 3,840 numbers
    assert not np.array_equal(first["conv1"]["w"], second["conv1"]["w"])
    assert not any(parameters["b"].any() for parameters in first.values())


def test_a_wrong_gradient_is_seen_as_a_difference(monkeypatch):
    """The comparison is no mere repetition: with the kernel's gradient turned round, the difference is its size."""

    def turned(x, w, g, **options):
        dx, dw, db = backward(x, w, g, **options)
        return dx, -dw, db

    backward = backprop.conv_backward
    monkeypatch.setattr(backprop, "conv_backward", turned)
    walk = backprop_trace.trace(np.arange(64).reshape(8, 8) / 63, 4, rate=0.05, seed=1)
    wrong = {(row.layer, row.array): row for row in walk.differences if row.largest > 1e-10}
    assert wrong.keys() == {("conv1", "dL/dw"), ("conv2", "dL/dw")}
    assert all(row.largest == pytest.approx(2 * row.scale) for row in wrong.values())
    assert walk.loss_difference[0] <= 1e-10 < walk.loss_difference[1]
