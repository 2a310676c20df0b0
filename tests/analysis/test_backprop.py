"""Each gradient by hand is that of automatic differentiation to 1e-10 in float64, and that of finite differences to
1e-6: over random shapes whose stride leaves pixels unread, dilation, groups, unequal padding and equal largest pixels.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from quick import QUICK

from cnn_vit.analysis import backprop

EXACT = 1e-10  # against automatic differentiation
DIFFERENCE = 1e-6  # against finite differences
some_examples = partial(settings, deadline=None, derandomize=True)
# Each example compiles a program: a failure is shown as it was drawn, without minutes of looking for a smaller one.
compiled_examples = partial(some_examples, phases=(Phase.explicit, Phase.generate))
seeds = st.integers(0, 2**32 - 1)


def autodiff(function, arrays, g):
    """Value and derivatives of a function of jax in float64, with g = dL/dy."""

    def value_and_derivatives(arrays, g):
        y, pull_back = jax.vjp(function, *arrays)
        return y, pull_back(g)

    with jax.enable_x64(True):
        y, gradients = jax.jit(value_and_derivatives, compiler_options=QUICK)(tuple(arrays), g)
    return jax.tree.map(np.asarray, (y, gradients))


def assert_matches_autodiff(function, arrays, y, g, gradients):
    """Compares a forward and a backward pass by hand with those of a function of jax."""
    expected_y, expected = autodiff(function, arrays, g)
    np.testing.assert_allclose(y, expected_y, rtol=0, atol=EXACT)
    assert len(gradients) == len(expected)
    for gradient, right in zip(gradients, expected, strict=True):
        assert gradient.shape == right.shape
        np.testing.assert_allclose(gradient, right, rtol=0, atol=EXACT)


def finite_differences(loss, array, step=1e-5):
    """The derivative of a loss by each number of an array, (L(a + h) - L(a - h)) / 2h."""
    gradient = np.zeros_like(array)
    for place in np.ndindex(array.shape):
        above, below = array.copy(), array.copy()
        above[place] += step
        below[place] -= step
        gradient[place] = (loss(above) - loss(below)) / (2 * step)
    return gradient


def assert_matches_finite_differences(forward, backward, arrays, g):
    """Compares a backward pass with the differences of L = sum(g y), whose dL/dy is g."""
    gradients = backward(*arrays, g)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    for number, gradient in enumerate(gradients):

        def loss(array, number=number):
            changed = [*arrays[:number], array, *arrays[number + 1 :]]
            return float((g * forward(*changed)).sum())

        np.testing.assert_allclose(gradient, finite_differences(loss, arrays[number]), rtol=0, atol=DIFFERENCE)


# Convolution ----------------------------------------------------------------------------------------------------------


def convolve(x, w, b, stride, padding, dilation, groups):
    """XLA's convolution."""
    return b + jax.lax.conv_general_dilated(
        x, w, (stride, stride), padding, rhs_dilation=(dilation, dilation), feature_group_count=groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


@st.composite
def convolutions(draw):
    """Arrays (x, w, b) and (stride, padding, dilation, groups) of a convolution whose kernel fits."""
    stride, dilation, groups = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    kernel = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    edges = st.tuples(st.integers(0, 2), st.integers(0, 2))
    padding = draw(edges), draw(edges)
    image_size = []
    for taps, before_and_after in zip(kernel, padding, strict=True):
        least = max(1, dilation * (taps - 1) + 1 - sum(before_and_after))
        image_size.append(draw(st.integers(least, least + 4)))
    batch, channels, filters = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    rng = np.random.default_rng(draw(seeds))
    x = rng.normal(size=(batch, *image_size, channels * groups))
    w = rng.normal(size=(*kernel, channels, filters * groups))
    return (x, w, rng.normal(size=filters * groups)), (stride, padding, dilation, groups), rng


CONVOLUTIONS = {  # sides of the image, sides of the kernel, stride, padding, dilation, groups
    "pixels_unread": ((6, 7), (3, 3), 2, ((0, 0), (0, 1)), 1, 1),  # 6 pixels, 3 taps, stride 2: the last is not read
    "more_padding_than_kernel": ((3, 3), (1, 2), 2, ((2, 1), (2, 2)), 1, 1),
    "all": ((9, 8), (3, 2), 3, ((2, 1), (0, 1)), 2, 2),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_has_the_gradients_of_autodiff(name):
    image_size, kernel, stride, padding, dilation, groups = CONVOLUTIONS[name]
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, *image_size, 2 * groups)), rng.normal(size=(*kernel, 2, 3 * groups))
    check_convolution((x, w, rng.normal(size=3 * groups)), (stride, padding, dilation, groups), rng)


def check_convolution(arrays, options, rng):
    """Compares a convolution with XLA's, and both ways to its input's gradient."""
    x, w, _ = arrays
    y = backprop.conv_forward(*arrays, *options)
    g = rng.normal(size=y.shape)
    gradients = backprop.conv_backward(x, w, g, *options)
    function = lambda x, w, b: convolve(x, w, b, *options)  # noqa: E731
    assert_matches_autodiff(function, arrays, y, g, gradients)
    np.testing.assert_allclose(
        backprop.conv_input_gradient(g, w, x.shape[1:3], *options), gradients[0], rtol=0, atol=EXACT
    )


@given(convolutions())
@compiled_examples(max_examples=6)
def test_convolutions_of_random_shapes_have_the_gradients_of_autodiff(drawn):
    check_convolution(*drawn)


@pytest.mark.slow
@given(convolutions())
@compiled_examples(max_examples=150)
def test_many_convolutions_have_the_gradients_of_autodiff(drawn):
    check_convolution(*drawn)


@given(convolutions())
@some_examples(max_examples=25)
def test_convolutions_have_the_gradients_of_finite_differences(drawn):
    (x, w, b), options, rng = drawn
    g = rng.normal(size=backprop.conv_forward(x, w, b, *options).shape)
    forward = lambda x, w, b: backprop.conv_forward(x, w, b, *options)  # noqa: E731
    backward = lambda x, w, b, g: backprop.conv_backward(x, w, g, *options)  # noqa: E731
    assert_matches_finite_differences(forward, backward, (x, w, b), g)


def test_one_convolution_by_hand():
    """Two outputs of a kernel of two taps: y = (1*3 + 2*4, 2*3 + 5*4), g = (1, 10)."""
    x, w, b = np.array([1.0, 2, 5]).reshape(1, 1, 3, 1), np.array([3.0, 4]).reshape(1, 2, 1, 1), np.zeros(1)
    g = np.array([1.0, 10]).reshape(1, 1, 2, 1)
    dx, dw, db = backprop.conv_backward(x, w, g)
    assert backprop.conv_forward(x, w, b).ravel().tolist() == [11, 26]
    assert dx.ravel().tolist() == [3, 4 + 30, 40]
    assert dw.ravel().tolist() == [1 + 20, 2 + 50]
    assert db.tolist() == [11]


# Pooling --------------------------------------------------------------------------------------------------------------


def pool_max(x, size, stride, padding):
    """XLA's maximum over windows."""
    window, strides = (1, size, size, 1), (1, stride, stride, 1)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, ((0, 0), *padding, (0, 0)))


def pool_average(x, size, stride, padding, counts_padding):
    """Means over windows by XLA's sums."""
    window, strides, padding = (1, size, size, 1), (1, stride, stride, 1), ((0, 0), *padding, (0, 0))
    total = jax.lax.reduce_window(x, 0.0, jax.lax.add, window, strides, padding)
    if counts_padding:
        return total / size**2
    return total / jax.lax.reduce_window(jnp.ones_like(x), 0.0, jax.lax.add, window, strides, padding)


@st.composite
def poolings(draw):
    """Images with many equal pixels, and (size, stride, padding) of windows that all see one of them."""
    size, stride = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    edges = st.tuples(st.integers(0, size - 1), st.integers(0, size - 1))
    padding = draw(edges), draw(edges)
    image_size = draw(st.integers(size, size + 3)), draw(st.integers(size, size + 3))
    rng = np.random.default_rng(draw(seeds))
    x = np.maximum(rng.integers(-3, 3, size=(2, *image_size, 2)), -1).astype(float)  # as behind a ReLU: many equal
    return x, (size, stride, padding), rng


def check_pooling(x, options, rng):
    """Compares both poolings with XLA's."""
    largest = backprop.max_pool_forward(x, *options)
    means = [backprop.average_pool_forward(x, *options, counts_padding) for counts_padding in (True, False)]
    g = rng.normal(size=(3, *largest.shape))
    gradients = (
        backprop.max_pool_backward(x, g[0], *options),
        backprop.average_pool_backward(x, g[1], *options, True),
        backprop.average_pool_backward(x, g[2], *options, False),
    )

    def all_poolings(x_max, x_average, x_inside):
        return jnp.stack(
            [
                pool_max(x_max, *options),
                pool_average(x_average, *options, True),
                pool_average(x_inside, *options, False),
            ]
        )

    assert_matches_autodiff(all_poolings, (x, x, x), np.stack([largest, *means]), g, gradients)


@given(poolings())
@compiled_examples(max_examples=5)
def test_poolings_of_random_shapes_have_the_gradients_of_autodiff(drawn):
    check_pooling(*drawn)


@pytest.mark.slow
@given(poolings())
@compiled_examples(max_examples=80)
def test_many_poolings_have_the_gradients_of_autodiff(drawn):
    check_pooling(*drawn)


@given(poolings())
@some_examples(max_examples=20)
def test_poolings_have_the_gradients_of_finite_differences_where_no_pixels_are_equal(drawn):
    x, options, rng = drawn
    x = rng.permutation(x.size).reshape(x.shape).astype(float)
    g = rng.normal(size=backprop.max_pool_forward(x, *options).shape)
    forward = lambda x: backprop.max_pool_forward(x, *options)  # noqa: E731
    backward = lambda x, g: backprop.max_pool_backward(x, g, *options)  # noqa: E731
    assert_matches_finite_differences(forward, backward, (x,), g)
    forward = lambda x: backprop.average_pool_forward(x, *options, False)  # noqa: E731
    backward = lambda x, g: backprop.average_pool_backward(x, g, *options, False)  # noqa: E731
    assert_matches_finite_differences(forward, backward, (x,), g)


def test_of_equal_pixels_the_first_in_row_major_order_gets_the_gradient():
    """checks.csv grad-3 and grad-5: a constant 2x2 window; 3x3 windows at stride 1 on 4x4 ones."""
    assert backprop.max_pool_backward(np.ones((1, 2, 2, 1)), np.ones((1, 1, 1, 1)), 2, 2).ravel().tolist() == [
        1,
        0,
        0,
        0,
    ]
    dx = backprop.max_pool_backward(np.ones((1, 4, 4, 1)), np.ones((1, 2, 2, 1)), 3, 1)
    expected = np.zeros((4, 4))
    expected[:2, :2] = 1
    assert dx[0, ..., 0].tolist() == expected.tolist()


def test_an_average_over_padding_is_the_published_one():
    """checks.csv grad-6: 3x3 windows at stride 2, padding (0, 1) as SAME has it, on 4x4 ones."""
    y = backprop.average_pool_forward(np.ones((1, 4, 4, 1)), 3, 2, ((0, 1), (0, 1)))
    np.testing.assert_allclose(y[0, ..., 0], [[1, 2 / 3], [2 / 3, 4 / 9]], rtol=1e-15)
    ones = backprop.average_pool_forward(np.ones((1, 4, 4, 1)), 3, 2, ((0, 1), (0, 1)), False)
    assert ones.ravel().tolist() == [1, 1, 1, 1]


# The other layers -----------------------------------------------------------------------------------------------------


def norm(x, gamma, beta, axes, epsilon):
    """Normalization over some axes, in jax."""
    mean = x.mean(axes, keepdims=True)
    return gamma * (x - mean) / jnp.sqrt(x.var(axes, keepdims=True) + epsilon) + beta


def attend(q, k, v):
    """Attention of one head, in jax."""
    return jax.nn.softmax(q @ k.mT / jnp.sqrt(q.shape[-1]), axis=-1) @ v


def layers(rng, batch, height, width, channels):
    """(forward, backward, function of jax, arrays) of each layer without windows, at a size."""
    images = rng.normal(size=(batch, height, width, channels))
    tokens = rng.normal(size=(batch, height, channels))
    gamma, beta = rng.normal(size=channels), rng.normal(size=channels)
    images_with_zeros = images * (rng.random(images.shape) < 0.7)
    dense = rng.normal(size=(batch, height)), rng.normal(size=(height, width)), rng.normal(size=width)
    attention = (
        rng.normal(size=(batch, height, channels)),
        rng.normal(size=(batch, width, channels)),
        rng.normal(size=(batch, width, height)),
    )
    epsilon = 0.3
    return {
        "relu": (backprop.relu_forward, backprop.relu_backward, jax.nn.relu, (images_with_zeros,)),
        "dense": (
            backprop.dense_forward,
            lambda x, w, b, g: backprop.dense_backward(x, w, g),
            lambda x, w, b: x @ w + b,
            dense,
        ),
        "batch_norm": (
            partial(backprop.batch_norm_forward, epsilon=epsilon),
            lambda x, gamma, beta, g: backprop.batch_norm_backward(x, gamma, g, epsilon),
            lambda x, gamma, beta: norm(x, gamma, beta, (0, 1, 2), epsilon),
            (images, gamma, beta),
        ),
        "layer_norm": (
            partial(backprop.layer_norm_forward, epsilon=epsilon),
            lambda x, gamma, beta, g: backprop.layer_norm_backward(x, gamma, g, epsilon),
            lambda x, gamma, beta: norm(x, gamma, beta, -1, epsilon),
            (tokens, gamma, beta),
        ),
        "attention": (backprop.attention_forward, backprop.attention_backward, attend, attention),
    }


LAYERS = ("relu", "dense", "batch_norm", "layer_norm", "attention")
sizes = st.tuples(*[st.integers(1, 4)] * 4)


@given(sizes, seeds)
@compiled_examples(max_examples=3)
def test_layers_have_the_gradients_of_autodiff(size, seed):
    """All layers of a size at once: jax derives the sum of g y over them."""
    rng = np.random.default_rng(seed)
    by_name = layers(rng, *size)
    assert by_name.keys() == set(LAYERS)
    expected_names, arrays, values, gradients = [], [], [], []
    for name, (forward, backward, _, layer_arrays) in by_name.items():
        y = forward(*layer_arrays)
        g = rng.normal(size=y.shape)
        layer_gradients = backward(*layer_arrays, g)
        arrays.append((layer_arrays, g))
        values.append(y)
        gradients.append(layer_gradients if isinstance(layer_gradients, tuple) else (layer_gradients,))
        expected_names.append(name)

    def value_and_derivatives(arrays):
        results = []
        for name, (layer_arrays, g) in zip(expected_names, arrays, strict=True):
            y, pull_back = jax.vjp(by_name[name][2], *layer_arrays)
            results.append((y, pull_back(g)))
        return results

    with jax.enable_x64(True):
        expected = jax.jit(value_and_derivatives, compiler_options=QUICK)(arrays)
    for name, y, ours, (expected_y, theirs) in zip(expected_names, values, gradients, expected, strict=True):
        np.testing.assert_allclose(y, expected_y, rtol=0, atol=EXACT, err_msg=name)
        for gradient, right in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(gradient, right, rtol=0, atol=EXACT, err_msg=name)


@pytest.mark.parametrize("name", LAYERS)
@given(sizes, seeds)
@some_examples(max_examples=10)
def test_layers_have_the_gradients_of_finite_differences(name, size, seed):
    rng = np.random.default_rng(seed)
    forward, backward, _, arrays = layers(rng, *size)[name]
    arrays = [np.where(abs(array) < 1e-3, 0.1, array) for array in arrays]  # away from the corner of ReLU
    g = rng.normal(size=forward(*arrays).shape)
    assert_matches_finite_differences(forward, backward, arrays, g)


# Loss -----------------------------------------------------------------------------------------------------------------


def cross_entropy(scores, labels, smoothing):
    """The mean loss, in jax."""
    targets = (1 - smoothing) * jax.nn.one_hot(labels, scores.shape[-1], dtype=scores.dtype)
    targets += smoothing / scores.shape[-1]
    return -(targets * jax.nn.log_softmax(scores)).sum(-1).mean()


@given(st.integers(1, 4), st.integers(2, 5), st.sampled_from([0.0, 0.1, 1.0]), st.sampled_from([1.0, 1e3]), seeds)
@compiled_examples(max_examples=5)
def test_cross_entropy_has_the_gradients_of_autodiff_and_of_finite_differences(batch, classes, smoothing, scale, seed):
    rng = np.random.default_rng(seed)
    scores, labels = scale * rng.normal(size=(batch, classes)), rng.integers(0, classes, batch)
    loss = backprop.softmax_cross_entropy_forward(scores, labels, smoothing)
    gradient = backprop.softmax_cross_entropy_backward(scores, labels, smoothing)
    function = lambda scores: cross_entropy(scores, labels, smoothing)  # noqa: E731
    assert_matches_autodiff(function, (scores,), loss, 1.0, (gradient,))
    forward = lambda scores: backprop.softmax_cross_entropy_forward(scores, labels, smoothing)  # noqa: E731
    np.testing.assert_allclose(gradient, finite_differences(forward, scores), rtol=0, atol=DIFFERENCE)


@pytest.mark.parametrize(("classes", "entropy"), [(10, 0.5002880350577577), (1000, 1.014847997749)])
def test_the_smallest_smoothed_loss_is_the_entropy_of_the_target(classes, entropy):
    """checks.csv ls-10 and ls-1000: at scores whose softmax is the target."""
    scores = np.log(backprop.smoothed_targets(np.array([3]), classes, 0.1))
    assert backprop.softmax_cross_entropy_forward(scores, np.array([3]), 0.1) == pytest.approx(entropy, abs=1e-9)
    assert abs(backprop.softmax_cross_entropy_backward(scores, np.array([3]), 0.1)).max() < 1e-14


# A whole network ------------------------------------------------------------------------------------------------------

PADDING_1, PADDING_2, SIZE = ((1, 0), (0, 1)), ((0, 1), (1, 1)), 2
SMOOTHING, RATE = 0.1, 0.05


def forward_and_backward(x, w1, b1, w2, b2, w3, b3, labels):
    """The loss of a CNN, conv-ReLU-pool-conv-ReLU-pool-dense-cross-entropy, and dL/d of each array, in NumPy alone."""
    conv1 = (1, PADDING_1, 1, 1)
    conv2 = (2, PADDING_2, 2, 2)  # stride, padding, dilation, groups
    y1 = backprop.conv_forward(x, w1, b1, *conv1)
    a1 = backprop.relu_forward(y1)
    p1 = backprop.max_pool_forward(a1, SIZE, SIZE)
    y2 = backprop.conv_forward(p1, w2, b2, *conv2)
    a2 = backprop.relu_forward(y2)
    p2 = backprop.max_pool_forward(a2, SIZE, 1)
    rows = p2.reshape(len(x), -1)
    scores = backprop.dense_forward(rows, w3, b3)
    loss = backprop.softmax_cross_entropy_forward(scores, labels, SMOOTHING)

    g = backprop.softmax_cross_entropy_backward(scores, labels, SMOOTHING)
    g, dw3, db3 = backprop.dense_backward(rows, w3, g)
    g = backprop.max_pool_backward(a2, g.reshape(p2.shape), SIZE, 1)
    g = backprop.relu_backward(y2, g)
    g, dw2, db2 = backprop.conv_backward(p1, w2, g, *conv2)
    g = backprop.max_pool_backward(a1, g, SIZE, SIZE)
    g = backprop.relu_backward(y1, g)
    dx, dw1, db1 = backprop.conv_backward(x, w1, g, *conv1)
    return loss, (dx, dw1, db1, dw2, db2, dw3, db3)


def network_loss(x, w1, b1, w2, b2, w3, b3, labels):
    """The loss of the same network in jax."""
    first = pool_max(jax.nn.relu(convolve(x, w1, b1, 1, PADDING_1, 1, 1)), SIZE, SIZE, ((0, 0), (0, 0)))
    second = pool_max(jax.nn.relu(convolve(first, w2, b2, 2, PADDING_2, 2, 2)), SIZE, 1, ((0, 0), (0, 0)))
    return cross_entropy(second.reshape(len(x), -1) @ w3 + b3, labels, SMOOTHING)


def test_a_cnn_in_numpy_has_every_gradient_of_autodiff_and_the_same_loss_after_a_step():
    height, width = 11, 10  # the second convolution leaves a row and a column unread
    rng = np.random.default_rng(height)
    x = np.maximum(rng.normal(size=(3, height, width, 1)), 0)  # zeros, so that windows have equal largest pixels
    arrays = [x, *(0.3 * rng.normal(size=shape) for shape in [(3, 3, 1, 4), 4, (2, 2, 2, 6), 6])]
    numbers = pooled_numbers(arrays)
    arrays += [0.3 * rng.normal(size=(numbers, 5)), 0.3 * rng.normal(size=5)]
    labels = np.array([0, 4, 2])

    loss, gradients = forward_and_backward(*arrays, labels)
    assert all(abs(gradient).max() > 1e-3 for gradient in gradients)
    expected_loss, expected = autodiff(lambda *arrays: network_loss(*arrays, labels), arrays, 1.0)
    assert abs(loss - expected_loss) <= EXACT
    for gradient, right in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, right, rtol=0, atol=EXACT)
    # Of the image only a few pixels, which take two passes each.
    for place in [(0, 0, 0, 0), (1, 4, 5, 0), (2, height - 1, width - 1, 0)]:
        above, below = x.copy(), x.copy()
        above[place] += 1e-6
        below[place] -= 1e-6
        losses = [forward_and_backward(changed, *arrays[1:], labels)[0] for changed in (above, below)]
        if x[place] > 0:  # at a tie there is no derivative
            assert abs((losses[0] - losses[1]) / 2e-6 - gradients[0][place]) <= DIFFERENCE

    stepped = [x, *(array - RATE * gradient for array, gradient in zip(arrays[1:], gradients[1:], strict=True))]
    with jax.enable_x64(True):
        right = [
            x,
            *(jnp.asarray(array) - RATE * jnp.asarray(g) for array, g in zip(arrays[1:], expected[1:], strict=True)),
        ]
        expected_loss = float(network_loss(*map(jnp.asarray, right), labels))
    stepped_loss = forward_and_backward(*stepped, labels)[0]
    assert abs(stepped_loss - expected_loss) <= EXACT
    # Sums in another order leave the last bits of a float64 apart; as float32 both losses have the same bits.
    assert np.float32(stepped_loss).tobytes() == np.float32(expected_loss).tobytes()
    assert expected_loss < loss

    # The gradients that a training computes, in float32, whose numbers have a relative distance of 1.2e-7.
    single = [jnp.asarray(array, jnp.float32) for array in arrays]
    trained = jax.jit(jax.grad(network_loss, argnums=range(7)), compiler_options=QUICK)(*single, labels)
    for gradient, right in zip(trained, gradients, strict=True):
        assert gradient.dtype == jnp.float32
        assert np.linalg.norm(gradient - right) <= 1e-4 * np.linalg.norm(right)


def pooled_numbers(arrays):
    """How many numbers of an image the dense layer sees."""
    x, w1, b1, w2, b2 = arrays
    first = backprop.max_pool_forward(backprop.conv_forward(x, w1, b1, 1, PADDING_1), SIZE, SIZE)
    second = backprop.max_pool_forward(backprop.conv_forward(first, w2, b2, 2, PADDING_2, 2, 2), SIZE, 1)
    return second[0].size
