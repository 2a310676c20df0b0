"""The convolutional families: what the average, the padding, strides, shortcuts and poolings mean."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnn_vit.analysis.record import record_calls
from cnn_vit.models import build
from cnn_vit.models.mlp import ACTIVATIONS
from cnn_vit.models.resnet import Basic, Bottleneck
from cnn_vit.nn.values import functional, initial_values


@pytest.mark.parametrize("name", ["cnn/test", "cifar_resnet/test", "mobilenet_v1/test", "resnet/test"])
def test_an_average_takes_any_size(name, make_network, images):
    keywords = {"head": "average"} if name == "cnn/test" else {}
    small = make_network(name, image_size=8, **keywords)
    large = make_network(name, image_size=(16, 12), **keywords)
    assert jax.tree.map(np.shape, small.params) == jax.tree.map(np.shape, large.params)
    batch = images((2, 16, 12, 3))
    np.testing.assert_array_equal(small.run(batch), large.run(batch))


def test_an_average_of_equal_pixels_is_the_pixel(make_network):
    """Without padding every window of a flat image sees the same, so a larger flat image scores the same."""
    network = make_network("cnn/test", head="average", padding=0, image_size=8)
    small, large = jnp.full((1, 8, 8, 3), 0.7), jnp.full((1, 14, 14, 3), 0.7)
    np.testing.assert_allclose(network.run(small), network.run(large), rtol=1e-5)


def convolve(x, kernel, *, stride, padding):
    """Cross-correlates one image (H, W, C) with a kernel by loops over the filter's pixels."""
    x = np.pad(x, (padding, padding, (0, 0)))
    size = kernel.shape[0]
    height, width = ((side - size) // stride + 1 for side in x.shape[:2])
    y = np.float32(0)
    for i in range(size):
        for j in range(size):
            pixels = x[i : i + stride * height : stride, j : j + stride * width : stride]
            y = y + pixels[:height, :width] @ kernel[i, j]
    return y


def pool_pairs(x, reduce):
    """Reduces 2x2 windows of one image (H, W, C) to a pixel each; an odd last row or column is left out."""
    height, width = x.shape[0] // 2, x.shape[1] // 2
    windows = x[: 2 * height, : 2 * width].reshape(height, 2, width, 2, -1)
    return reduce(windows, (1, 3))


@pytest.mark.parametrize(("pooling", "reduce"), [("average", np.mean), ("max", np.max)])
@pytest.mark.parametrize(("size", "pad_down"), [((28, 28), (2, 2)), ((32, 32), (0, 0)), ((27, 32), (2, 3))])
def test_lenet_equals_its_description(pooling, reduce, size, pad_down, make_network, images):
    network = make_network("lenet/5", image_size=size, pooling=pooling)
    batch = images((1, *size, 1))
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), network.params)
    pad_across = (0, 0) if size[1] == 32 else pad_down
    x = np.pad(np.asarray(batch[0], np.float64), (pad_down, pad_across, (0, 0)))
    for layer in ("conv1", "conv2"):
        x = convolve(x, p[layer]["kernel"], stride=1, padding=(0, 0)) + p[layer]["bias"]
        x = pool_pairs(np.tanh(x), reduce)
    x = x.reshape(-1)
    assert x.size == 400
    for layer in p["hidden"]["layers"].values():
        x = np.tanh(x @ layer["kernel"] + layer["bias"])
    expected = x @ p["head"]["kernel"] + p["head"]["bias"]
    np.testing.assert_allclose(network.run(batch)[0], expected, rtol=1e-4, atol=1e-5)


def test_lenet_valid_pads_nothing(make_network):
    assert make_network("lenet/5-valid").params["hidden"]["layers"][0]["kernel"].shape == (4 * 4 * 16, 120)
    assert make_network("lenet/5", image_size=28).params["hidden"]["layers"][0]["kernel"].shape == (5 * 5 * 16, 120)


def relu(x):
    return np.maximum(x, 0)


@pytest.mark.parametrize(("pooling", "reduce"), [("average", np.mean), ("max", np.max), ("none", None)])
def test_cnn_equals_its_description(pooling, reduce, make_network, images):
    changes = {"filters": (4, 5), "convolutions": (2, 1), "kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)}
    network = make_network("cnn/test", image_size=(9, 12), pooling=pooling, batch_norm=False, hidden=(6,), **changes)
    p, batch = network.params, images((1, 9, 12, 3))
    x = np.asarray(batch[0])
    for stage, i in ((0, 0), (0, 1), (1, 0)):
        layer = p["stages"][stage]["convolutions"][i]
        padding = (changes["padding"][stage],) * 2
        stride = changes["stride"][stage] if i == 0 else 1
        x = relu(convolve(x, layer["kernel"], stride=stride, padding=padding) + layer["bias"])
        if (stage, i) == (0, 1) and reduce:
            x = pool_pairs(x, reduce)
    x = relu(x.reshape(-1) @ p["hidden"]["layers"][0]["kernel"] + p["hidden"]["layers"][0]["bias"])
    expected = x @ p["head"]["kernel"] + p["head"]["bias"]
    np.testing.assert_allclose(network.run(batch)[0], expected, rtol=1e-4, atol=1e-5)


def blur_pairs(x):
    """Blurs one image (H, W, C) by the weights 1 2 1 around every second pixel; a window at the border has fewer."""
    height, width = x.shape[0] // 2, x.shape[1] // 2
    y = np.zeros((height, width, x.shape[2]))
    for i, j in np.ndindex(height, width):
        weights = 0
        for down, right in np.ndindex(3, 3):
            row, column = 2 * i + down - 1, 2 * j + right - 1
            if row >= 0 and column >= 0:
                weight = (2 - abs(down - 1)) * (2 - abs(right - 1))
                y[i, j] += weight * x[row, column]
                weights += weight
        y[i, j] /= weights
    return y


def max_of_pairs(x):
    """The largest value of each pixel, its upper, its left and its upper left neighbor."""
    low = np.pad(x, ((1, 0), (1, 0), (0, 0)), constant_values=-np.inf)
    return np.maximum(np.maximum(low[:-1, :-1], low[:-1, 1:]), np.maximum(low[1:, :-1], low[1:, 1:]))


@pytest.mark.parametrize("pooling", ["blur", "max_blur"])
def test_a_cnn_blurs_between_its_stages_and_max_blur_takes_the_largest_first(pooling, make_network, images):
    network = make_network("cnn/test", image_size=(8, 11), filters=(4, 5), pooling=pooling, batch_norm=False)
    p, batch = network.params, images((1, 8, 11, 3))
    x = np.asarray(batch[0])
    for stage in (0, 1):
        layer = p["stages"][stage]["convolutions"][0]
        x = relu(convolve(x, layer["kernel"], stride=1, padding=(1, 1)) + layer["bias"])
        if stage == 0:
            x = blur_pairs(max_of_pairs(x) if pooling == "max_blur" else x)
    expected = x.reshape(-1) @ p["head"]["kernel"] + p["head"]["bias"]
    np.testing.assert_allclose(network.run(batch)[0], expected, rtol=1e-4, atol=1e-5)


def normalize(x, p, s, epsilon=1e-5):
    """Batch norm outside training, with parameters p and statistics s."""
    return (x - s["mean"]) / np.sqrt(s["var"] + epsilon) * p["scale"] + p["bias"]


def draw_statistic(leaf):
    """A random statistic around the initial 0 or 1: with means near 1 a narrow network would be rectified to 0."""
    rng = np.random.default_rng(leaf.size)
    return np.float32(leaf + rng.uniform(-0.5, 0.5, leaf.shape))


def bottleneck(x, p, s, *, stride, version):
    """One block of He et al. from its values; v1 strides in the first 1x1, v1.5 in the 3x3."""
    stride1, stride2 = (stride, 1) if version == "v1" else (1, stride)
    y = convolve(x, p["conv1"]["kernel"], stride=stride1, padding=(0, 0))
    y = relu(normalize(y, p["norm1"], s["norm1"]))
    y = convolve(y, p["conv2"]["kernel"], stride=stride2, padding=(1, 1))
    y = relu(normalize(y, p["norm2"], s["norm2"]))
    y = convolve(y, p["conv3"]["kernel"], stride=1, padding=(0, 0))
    y = normalize(y, p["norm3"], s["norm3"])
    if "shortcut" in p:
        projected = convolve(x, p["shortcut"]["conv"]["kernel"], stride=stride, padding=(0, 0))
        x = normalize(projected, p["shortcut"]["norm"], s["shortcut"]["norm"])
    return relu(x + y)


def max_pool(x):
    """The largest pixel of 3x3 windows with stride 2 and padding 1, of one image (H, W, C)."""
    x = np.pad(x, ((1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    height, width = ((side - 3) // 2 + 1 for side in x.shape[:2])
    shifted = [x[i:, j:][: 2 * height : 2, : 2 * width : 2] for i in range(3) for j in range(3)]
    return np.max(shifted, axis=0)


@pytest.mark.parametrize("version", ["v1.5", "v1"])
def test_resnet_of_bottlenecks_equals_its_description(version, make_network, images):
    keywords = {"bottleneck": True, "blocks": (2, 1), "filters": 4}
    network = make_network("resnet/test", version=version, image_size=(13, 16), **keywords)
    network.stats = jax.tree.map(draw_statistic, network.stats)
    p, s, batch = network.params, network.stats, images((1, 13, 16, 3))
    x = convolve(np.asarray(batch[0]), p["stem"]["kernel"], stride=2, padding=(3, 3))
    x = max_pool(relu(normalize(x, p["stem_norm"], s["stem_norm"])))
    for stage, block, stride in ((0, 0, 1), (0, 1, 1), (1, 0, 2)):
        block_params, block_stats = p["stages"][stage]["blocks"][block], s["stages"][stage]["blocks"][block]
        x = bottleneck(x, block_params, block_stats, stride=stride, version=version)
    expected = x.mean((0, 1)) @ p["head"]["kernel"] + p["head"]["bias"]
    assert np.all(expected)
    np.testing.assert_allclose(network.run(batch)[0], expected, rtol=1e-4, atol=1e-4)


def convolve_channels(x, kernel, *, stride, padding):
    """Cross-correlates each channel of one image (H, W, C) with its own filter of a kernel (V, U, 1, C)."""
    channels = []
    for i in range(x.shape[-1]):
        channels.append(convolve(x[..., i : i + 1], kernel[..., i : i + 1], stride=stride, padding=padding))
    return np.concatenate(channels, -1)


@pytest.mark.parametrize("size", [(16, 24), (13, 18)])
def test_mobilenet_equals_its_description(size, make_network, images):
    """Half a side is rounded down: a stride pads one zero at the right and bottom. A unit ends at 6."""
    network = make_network("mobilenet_v1/test", blocks=(1, 2), image_size=size)
    network.stats = jax.tree.map(draw_statistic, network.stats)
    p, s, batch = network.params, network.stats, 20 * images((1, *size, 3))

    def normalize_and_rectify(y, params, stats):
        return np.clip(normalize(y, params, stats, epsilon=1e-3), 0, 6)

    x = convolve(np.asarray(batch[0]), p["stem"]["kernel"], stride=2, padding=(0, 1))
    x = normalize_and_rectify(x, p["stem_norm"], s["stem_norm"])
    assert x.shape == (size[0] // 2, size[1] // 2, 8)
    assert 0.1 < np.mean(x == 6) < 0.9
    for stage, block, stride in ((0, 0, 1), (1, 0, 2), (1, 1, 1)):
        block_params, block_stats = p["stages"][stage]["blocks"][block], s["stages"][stage]["blocks"][block]
        padding = (1, 1) if stride == 1 else (0, 1)
        x = convolve_channels(x, block_params["depthwise"]["kernel"], stride=stride, padding=padding)
        x = normalize_and_rectify(x, block_params["depthwise_norm"], block_stats["depthwise_norm"])
        x = convolve(x, block_params["pointwise"]["kernel"], stride=1, padding=(0, 0))
        x = normalize_and_rectify(x, block_params["pointwise_norm"], block_stats["pointwise_norm"])
    assert x.shape == (size[0] // 4, size[1] // 4, 32)
    expected = x.mean((0, 1)) @ p["head"]["kernel"] + p["head"]["bias"]
    np.testing.assert_allclose(network.run(batch)[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow  # the stored scores of timm and torchvision say the same
def test_convnext_equals_its_description(make_network, images):
    """A stem of 4x4 pixels; a block adds scale * W2 gelu(W1 norm(filters)); windows of 2x2 between the stages."""
    size = (13, 27)
    network = make_network("convnext/test", image_size=size, kernel_size=5, epsilon=0.5, last_epsilon=0.25)
    rng = np.random.default_rng(0)
    p = jax.tree.map(lambda leaf: leaf + rng.normal(0, 0.3, leaf.shape).astype(np.float32), network.params)
    network.params = p
    batch = images((1, *size, 3))

    def normalize(x, params, epsilon=0.5):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
        return x * params["scale"] + params["bias"]

    def dense(x, params):
        return x @ params["kernel"] + params["bias"]

    x = convolve(np.asarray(batch[0]), p["stem"]["kernel"], stride=4, padding=(0, 0)) + p["stem"]["bias"]
    assert x.shape == (size[0] // 4, size[1] // 4, 8)
    x = normalize(x, p["stem_norm"])
    for stage in p["stages"].values():
        if "downsample" in stage:
            x = normalize(x, stage["downsample"]["norm"])
            x = convolve(x, stage["downsample"]["conv"]["kernel"], stride=2, padding=(0, 0))
            x = x + stage["downsample"]["conv"]["bias"]
        for block in stage["blocks"].values():
            y = (
                convolve_channels(x, block["depthwise"]["kernel"], stride=1, padding=(2, 2))
                + block["depthwise"]["bias"]
            )
            y = dense(normalize(y, block["norm"]), block["dense1"])
            y = y * [[[(1 + math.erf(number / math.sqrt(2))) / 2 for number in row] for row in column] for column in y]
            x = x + block["layer_scale"] * dense(y, block["dense2"])
    assert x.shape == (size[0] // 8, size[1] // 8, 16)
    expected = dense(normalize(x.mean((0, 1)), p["norm"], 0.25), p["head"])
    np.testing.assert_allclose(network.run(batch)[0], expected, rtol=1e-4, atol=1e-4)


def test_a_block_of_convnext_starts_as_almost_the_identity():
    """Its scale is 1e-6 at first, so that 36 blocks do not change an image."""
    network = functional(build("convnext/test", 3))
    params, _ = initial_values(network, seed=0)
    np.testing.assert_array_equal(params["stages"][1]["blocks"][0]["layer_scale"], np.full(16, 1e-6, np.float32))


def test_a_block_whose_last_scale_starts_at_zero_hands_its_input_on():
    x = jnp.linspace(0, 1, 2 * 4 * 4 * 8).reshape(2, 4, 4, 8)
    keywords = {"groups": 1, "group_width": 64, "version": "v1.5"}
    for block in (Basic(8, 8, stride=1, zero_last=True), Bottleneck(8, 8, stride=1, zero_last=True, **keywords)):
        graph, *_ = nnx.split(block, nnx.Param, nnx.BatchStat)
        block_with_values = nnx.merge(graph, *initial_values(functional(block), seed=0))
        np.testing.assert_array_equal(block_with_values(x, train=False), x)


@pytest.mark.parametrize("shortcut", ["pad", "projection"])
def test_the_shortcut_of_a_small_resnet_does_what_its_option_names(shortcut, make_network, images):
    """With the last norm of each block silenced a block gives its shortcut: option A keeps every second pixel."""
    network = make_network("cifar_resnet/test", shortcut=shortcut, image_size=8)
    for stage in network.params["stages"].values():
        last_norm = stage["blocks"][0]["norm2"]
        last_norm["scale"] = np.zeros_like(last_norm["scale"])
    p, batch = network.params, images((1, 8, 8, 3))
    initial_stats = {"mean": 0.0, "var": 1.0}
    x = convolve(np.asarray(batch[0]), p["stem"]["kernel"], stride=1, padding=(1, 1))
    x = relu(normalize(x, p["stem_norm"], initial_stats))
    for stage in (1, 2):
        if shortcut == "pad":
            missing = x.shape[-1] // 2  # channels on each side
            x = np.pad(x[::2, ::2], ((0, 0), (0, 0), (missing, missing)))
        else:
            projection = p["stages"][stage]["blocks"][0]["projection"]
            x = convolve(x, projection["conv"]["kernel"], stride=2, padding=(0, 0))
            x = relu(normalize(x, projection["norm"], initial_stats))
    np.testing.assert_allclose(network.features(batch)[0], x.mean((0, 1)), rtol=1e-4, atol=1e-5)


def test_without_shortcuts_nothing_passes_a_silent_block(make_network, images):
    """The plain network of the same paper: where the last norm of a block gives 0, so does the block."""
    network = make_network("cifar_resnet/test", shortcut="none", image_size=8)
    last_norm = network.params["stages"][2]["blocks"][0]["norm2"]
    last_norm["scale"] = np.zeros_like(last_norm["scale"])
    np.testing.assert_array_equal(network.features(images((2, 8, 8, 3))), np.zeros((2, 32), np.float32))


@pytest.mark.parametrize(("padding_kind", "is_undone"), [("circular", True), ("zero", False)])
def test_the_statistics_of_the_batch_undo_contrast_and_brightness_unless_zeros_stand_beside(padding_kind, is_undone):
    """(a x + b - (a mean + b)) / (a std) = (x - mean) / std; zeros at the border do not move with x."""
    network = functional(build("cnn/test", 3, image_size=8, channels=1, padding_kind=padding_kind, head="average"))
    params, stats = initial_values(network, 0)
    batch = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)
    scores, _ = network.apply(params, stats, batch, train=True)
    changed, _ = network.apply(params, stats, 0.5 * batch + 0.5, train=True)
    assert (float(np.abs(changed - scores).max()) < 1e-3) == is_undone


def test_an_mlp_sees_a_shuffled_image_as_well(make_network, images):
    """Pixels and rows of the first kernel moved alike give the same scores: no notion of neighbors."""
    network, batch = make_network("mlp/test", image_size=(4, 6), channels=1), images((2, 4, 6, 1))
    order = np.random.default_rng(0).permutation(24)
    before = network.run(batch)
    layer = network.params["hidden"]["layers"][0]
    layer["kernel"] = layer["kernel"][order]
    shuffled = np.asarray(batch).reshape(2, 24)[:, order].reshape(batch.shape)
    np.testing.assert_allclose(network.run(jnp.asarray(shuffled)), before, rtol=1e-5, atol=1e-6)


def exact_gelu(x):
    return x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


@pytest.mark.parametrize(("activation", "function"), [("relu", relu), ("tanh", np.tanh), ("gelu", exact_gelu)])
def test_an_mlp_equals_its_description(activation, function, make_network, images):
    network = make_network("mlp/test", image_size=4, hidden=(5, 7), activation=activation)
    p, batch = network.params, images((2, 4, 4, 3))
    x = np.asarray(batch).reshape(2, -1)
    for layer in p["hidden"]["layers"].values():
        x = function(x @ layer["kernel"] + layer["bias"])
    expected = x @ p["head"]["kernel"] + p["head"]["bias"]
    np.testing.assert_allclose(network.run(batch), expected, rtol=1e-4, atol=1e-5)


def test_gelu_is_the_exact_one_where_jaxs_default_is_not():
    """JAX's default, by tanh, is up to 4.7e-4 away."""
    x = np.linspace(-6, 6, 2001, dtype=np.float32)
    np.testing.assert_allclose(ACTIVATIONS["gelu"](x), exact_gelu(np.float64(x)), atol=1e-6)
    assert abs(np.abs(jax.nn.gelu(x) - ACTIVATIONS["gelu"](x)).max() - 4.7e-4) < 1e-5
    np.testing.assert_array_equal(ACTIVATIONS["gelu_tanh"](x), jax.nn.gelu(x))


def test_relu_has_no_upper_end():
    np.testing.assert_array_equal(ACTIVATIONS["relu"](np.float32([-7, 0, 7, 1e30])), np.float32([0, 0, 7, 1e30]))


def test_a_rectifier_sends_no_gradient_through_zero():
    """`jnp.maximum(x, 0)` would send half of it."""
    assert jax.grad(ACTIVATIONS["relu"])(0.0) == 0


def test_a_vgg_drops_values_behind_each_of_its_two_dense_layers():
    """Simonyan and Zisserman, section 3.1: dropout for the first two of the fully connected layers."""
    images = jax.ShapeDtypeStruct((2, 60, 60, 3), jnp.float32)
    calls = record_calls(build("vgg/test", 3, image_size=60, dropout=0.5), images)
    layers = [call.path for call in calls if call.path and not call.path.startswith("stages")]
    assert layers == ["adaptive_average_pool", "dense1", "dropout", "dense2", "dropout#2", "head"]
