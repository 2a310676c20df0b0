"""Gradients by layer and effective receptive fields: by hand, by random walks, and as the table says."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_vit.analysis.gradients import measure_field, measure_gradients, summarize_influence
from cnn_vit.analysis.table import describe
from cnn_vit.errors import UserError
from cnn_vit.models import build
from cnn_vit.nn.values import functional, initial_values


def make_values(network, seed=0):
    return initial_values(functional(network), seed)


def plain_network(convolutions, *, side, **changes):
    """Builds convolutions of equal width without normalization and pooling, and an average."""
    keywords = {"filters": (8,), "pooling": "none", "batch_norm": False, "head": "average", "channels": 1} | changes
    return build("cnn/test", 3, image_size=side, convolutions=convolutions, **keywords)


def test_the_gradient_to_each_layer_is_that_of_the_chain_rule_by_hand():
    """A dense network h = relu(x A + a), z = h B + b: dL/dz = (softmax(z) - q) / B, and dL/dh = dL/dz B'."""
    network = build("mlp/test", 3, image_size=2, channels=1)
    params, stats = make_values(network)
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(5, 2, 2, 1)).astype(np.float32), np.array([0, 1, 2, 1, 0])
    first, head = params["hidden"]["layers"][0], params["head"]
    hidden = np.maximum(images.reshape(5, 4) @ first["kernel"] + first["bias"], 0)
    scores = np.exp(hidden @ head["kernel"] + head["bias"])
    to_scores = (scores / scores.sum(1, keepdims=True) - np.eye(3)[labels]) / 5
    to_hidden = to_scores @ head["kernel"].T
    expected = {"": to_scores, "hidden": to_hidden, "hidden/layers/0": to_hidden * (hidden > 0), "head": to_scores}
    sizes = {layer.path: layer.size for layer in measure_gradients(network, params, stats, images, labels)}
    assert expected.keys() <= sizes.keys()
    for path, gradient in expected.items():
        assert sizes[path] == pytest.approx(math.sqrt((gradient**2).mean()), rel=1e-5)


def test_a_residual_connection_adds_the_gradient_to_what_passes_the_layers_of_its_block():
    """y = x + f(x): dL/dx = dL/dy (1 + df/dx), both terms by hand, and without a shortcut the second alone.

    Of a single pixel a 3x3 convolution is its middle tap; batch norm divides by sqrt(1 + 1e-5) in an evaluation.
    """
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(5, 1, 1, 2)).astype(np.float32), np.array([0, 1, 2, 1, 0])
    norm = 1 / math.sqrt(1 + 1e-5)
    for shortcut, identity in (("pad", 1.0), ("none", 0.0)):
        keywords = {"channels": 2, "filters": 6, "blocks": 1, "cut": "stages/0", "shortcut": shortcut}
        network = build("cifar_resnet/8", 3, image_size=1, **keywords)
        params, stats = make_values(network)
        block = params["stages"][0]["blocks"][0]
        stem, conv1, conv2 = (part["kernel"][1, 1] * norm for part in (params["stem"], block["conv1"], block["conv2"]))
        x = np.maximum(images.reshape(5, 2) @ stem, 0)
        hidden = np.maximum(x @ conv1, 0)
        y = identity * x + hidden @ conv2
        head = params["head"]
        scores = np.exp(np.maximum(y, 0) @ head["kernel"] + head["bias"])
        to_scores = (scores / scores.sum(1, keepdims=True) - np.eye(3)[labels]) / 5
        to_y = to_scores @ head["kernel"].T * (y > 0)
        through_f = to_y @ conv2.T * (hidden > 0) @ conv1.T
        to_x = identity * to_y + through_f
        assert min(np.abs(to_y).max(), np.abs(through_f).max()) > 1e-3  # neither term is lost in the other
        layers = measure_gradients(network, params, stats, images, labels, train=False)
        sizes = {layer.path: layer.size for layer in layers}
        assert sizes["stages/0/blocks/0/norm2"] == pytest.approx(math.sqrt((to_y**2).mean()), rel=1e-5)
        assert sizes["stem_norm"] == pytest.approx(math.sqrt(((to_x * (x > 0)) ** 2).mean()), rel=1e-5)


def test_in_training_the_gradient_passes_through_the_statistics_of_the_batch():
    """Batch norm undoes what multiplies its input by 10, so that the gradient before it is a tenth; in an evaluation it
    divides by the square root of 1 + 1e-5 as before."""
    network = plain_network(1, side=4, batch_norm=True)
    images = np.random.default_rng(1).normal(size=(4, 4, 4, 1)).astype(np.float32)
    params, stats = make_values(network)
    large = params | {"stages": jax.tree.map(lambda value: value * 10, params["stages"])}
    large["stages"][0]["norms"] = params["stages"][0]["norms"]
    ratios = {}
    for train in (True, False):
        for name, values in {"initial": params, "large": large}.items():
            layers = measure_gradients(network, values, stats, images, np.array([0, 1, 2, 0]), train=train)
            sizes = {layer.kind: layer.size for layer in layers}
            ratios[name, train] = sizes["Conv"] / sizes["BatchNorm"]
    assert ratios["large", True] == pytest.approx(ratios["initial", True] / 10, rel=1e-3)
    assert ratios["initial", False] == pytest.approx(1 / math.sqrt(1 + 1e-5), rel=1e-6)
    assert ratios["large", False] == pytest.approx(1 / math.sqrt(1 + 1e-5), rel=1e-6)


def test_he_s_values_keep_the_gradient_and_lecun_s_halve_its_square_with_each_layer():
    """He et al., arXiv:1502.01852, section 2.2: a rectifier lets half of the square through, and He's values double it.

    LeCun's values are He's divided by sqrt(2). Circular padding loses nothing at the border.
    """
    network = plain_network(5, side=4, filters=(32,), padding_kind="circular")
    images = np.random.default_rng(0).normal(size=(4, 4, 4, 1)).astype(np.float32)
    factors = {}
    for gain in (1, math.sqrt(0.5)):
        growths = []
        for seed in range(8):
            params, stats = make_values(network, seed)
            params["stages"] = jax.tree.map(partial(np.multiply, np.float32(gain)), params["stages"])
            layers = measure_gradients(network, params, stats, images, np.array([0, 1, 2, 0]))
            first, *_, last = [layer.size for layer in layers if layer.kind == "Conv"]
            growths.append((first / last) ** 2)
        factors[gain] = np.mean(growths) ** (1 / 4)  # of the mean square, per layer
    assert factors[1] == pytest.approx(1, rel=0.06)
    assert factors[math.sqrt(0.5)] == pytest.approx(1 / 2, rel=0.06)


def test_behind_batch_norm_the_square_of_the_gradient_grows_by_pi_over_pi_less_1():
    """Yang et al., A Mean Field Theory of Batch Normalization, arXiv:1902.08129, for wide dense layers with rectifiers.

    By hand: half of the square passes the rectifier, and the norm divides by the variance of a rectified normal number,
    1 / 2 - 1 / (2 pi). 1x1 convolutions of a single pixel are dense layers.
    """
    network = plain_network(5, side=1, filters=(128,), kernel_size=1, padding=0, batch_norm=True, channels=64)
    images = np.random.default_rng(0).normal(size=(256, 1, 1, 64)).astype(np.float32)
    labels = np.arange(256) % 3
    growths = []
    for seed in range(4):
        layers = measure_gradients(network, *make_values(network, seed), images, labels)
        first, *_, last = [layer.size for layer in layers if layer.kind == "BatchNorm"]
        growths.append((first / last) ** 2)
    assert np.mean(growths) ** (1 / 4) == pytest.approx(math.pi / (math.pi - 1), rel=0.05)


@pytest.mark.parametrize(("convolutions", "kernel_size"), [(4, 3), (2, 5)])
def test_the_square_of_the_derivative_spreads_as_a_random_walk(convolutions, kernel_size):
    """Of a linear network with random filters the mean square is uniform over each window: spread^2 = n (k^2 - 1) / 12.

    By hand: one window of 3 pixels has a variance of (1 + 0 + 1) / 3 = 2 / 3.
    """
    side = 15
    network = plain_network(convolutions, side=side, kernel_size=kernel_size, padding=kernel_size // 2, filters=(32,))
    images = np.zeros((4, side, side, 1), np.float32)
    variances = []
    for seed in range(8):
        params, stats = make_values(network, seed)
        # All biases are high: no rectifier ever cuts, so that the network is linear.
        for layer in params["stages"][0]["convolutions"].values():
            layer["bias"] = np.full_like(layer["bias"], 1e3)
        field = measure_field(network, params, stats, images, path=f"stages/0/convolutions/{convolutions - 1}")
        variances += [spread**2 for spread in field.spread]
    assert np.mean(variances) == pytest.approx(convolutions * (kernel_size**2 - 1) / 12, rel=0.05)
    size = convolutions * (kernel_size - 1) + 1
    assert field.box == (size, size)


@pytest.mark.parametrize(
    ("name", "path", "changes"),
    [
        pytest.param("cifar_resnet/test", "stages/1/blocks/0/conv2", {}, marks=pytest.mark.slow),
        ("cnn/test", "stages/1/convolutions/0", {"kernel_size": 5, "padding": 2, "pooling": "average"}),
    ],
)
def test_the_pixels_with_any_influence_are_the_field_of_the_table(name, path, changes):
    """The table follows the network's program; the box comes from derivatives alone."""
    side = 36
    network = build(name, 3, image_size=side, channels=1, **changes)
    images = np.random.default_rng(0).normal(size=(8, side, side, 1)).astype(np.float32)
    field = measure_field(network, *make_values(network), images, path=path)
    (row,) = [row for row in describe(network, side, channels=1).rows if row.path == path]
    assert field.box == tuple(side_of_field.size for side_of_field in row.field)


def test_influence_is_a_share_with_spread_and_box():
    """By hand: 1/4 and 3/4 two rows apart have a variance of 4 * 1/4 * 3/4 = 3/4."""
    squares = np.zeros((5, 4))
    squares[1, 2], squares[3, 2] = 1, 3
    field = summarize_influence(squares)
    assert field.influence.sum() == 1
    assert field.box == (3, 1)
    assert field.spread == pytest.approx((math.sqrt(0.75), 0))
    nothing = summarize_influence(np.zeros((5, 4)))
    assert (nothing.box, nothing.spread) == ((0, 0), (0.0, 0.0))


@pytest.mark.parametrize(
    ("path", "message"),
    [("stages/0/convolutions/7", "no layer 'stages/0/convolutions/7'"), ("head", "head returns no map of the image")],
)
def test_a_layer_without_a_map_has_no_unit_in_the_middle(path, message):
    network = plain_network(1, side=6)
    with pytest.raises(UserError, match=message):
        measure_field(network, *make_values(network), jnp.zeros((1, 6, 6, 1)), path=path)
