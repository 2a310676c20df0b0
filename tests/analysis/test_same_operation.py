"""Layers that are one operation under two names: each against the other, and the constructions by hand."""

import jax
import numpy as np
import pytest

from cnn_vit.analysis.same_operation import (
    add_places,
    attention_of_convolution,
    average_kernel,
    convolution_matrix,
    layer_function,
    read_weights,
    run_layer,
    unfold,
)
from cnn_vit.errors import UserError
from cnn_vit.nn.conv import Conv
from cnn_vit.nn.dense import Dense
from cnn_vit.nn.patches import PatchEmbed
from cnn_vit.nn.pool import average_pool, max_pool


def draw(seed, *shapes):
    """Draws normal numbers, float32."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def assert_same(values, expected):
    """Asserts that two float32 results agree to 1e-5 of the largest number."""
    assert values.shape == expected.shape
    np.testing.assert_allclose(values, expected, atol=1e-5 * np.abs(expected).max())


# A convolution is a matrix --------------------------------------------------------------------------------------------


def test_the_matrix_of_a_row_of_four_pixels_is_the_one_by_hand():
    """The filter 1 10 100 on 4 pixels: each row of the matrix is the row above, moved by one."""
    kernel = np.float32([1, 10, 100]).reshape(1, 3, 1, 1)

    def matrix(**keywords):
        return convolution_matrix(kernel, (1, 4), **keywords).tolist()

    around = ((0, 0), (1, 1))
    assert matrix(padding=0) == [[1, 10, 100, 0], [0, 1, 10, 100]]
    assert matrix(padding=around) == [[10, 100, 0, 0], [1, 10, 100, 0], [0, 1, 10, 100], [0, 0, 1, 10]]
    circulant = [[10, 100, 0, 1], [1, 10, 100, 0], [0, 1, 10, 100], [100, 0, 1, 10]]
    assert matrix(padding=around, padding_kind="circular") == circulant
    assert matrix(padding=around, stride=(1, 2)) == [[10, 100, 0, 0], [0, 1, 10, 100]]
    assert matrix(padding=((0, 0), (2, 2)), dilation=(1, 2)) == [
        [10, 0, 100, 0],
        [0, 10, 0, 100],
        [1, 0, 10, 0],
        [0, 1, 0, 10],
    ]
    # What stands in the padding is read twice: the first pixel at its own place and beside it.
    assert matrix(padding=around, padding_kind="edge")[0] == [11, 100, 0, 0]


def follows_diagonals(matrix):
    """Whether each row is the row above, moved by one: whether a matrix (of numbers, or of blocks) is Toeplitz."""
    return np.array_equal(matrix[1:, 1:], matrix[:-1, :-1])


@pytest.mark.parametrize(("kind", "is_circular"), [("zero", False), ("circular", True)])
def test_the_matrix_of_an_image_is_toeplitz_in_its_blocks_and_in_their_arrangement_but_not_as_a_whole(
    kind, is_circular
):
    (kernel,) = draw(0, (3, 3, 1, 1))
    matrix = convolution_matrix(kernel, (4, 5), padding=1, padding_kind=kind)
    blocks = matrix.reshape(4, 5, 4, 5).swapaxes(1, 2)  # (row of the output, row of the image, 5, 5)
    assert not follows_diagonals(matrix)
    assert follows_diagonals(blocks)
    assert all(follows_diagonals(block) for line in blocks for block in line)
    # Circulant: what leaves at the end comes in at the beginning.
    assert np.array_equal(blocks, np.roll(blocks, (1, 1), axis=(0, 1))) == is_circular
    assert (
        all(np.array_equal(block, np.roll(block, (1, 1), (0, 1))) for line in blocks for block in line) == is_circular
    )


@pytest.mark.parametrize(
    "keywords",
    [
        {"padding": 1},
        {"padding": ((2, 0), (0, 1)), "stride": (2, 1)},
        {"padding": 2, "dilation": 2, "padding_kind": "reflect"},
    ],
)
def test_a_convolution_is_a_product_with_its_matrix_and_its_gradient_with_the_transposed_one(keywords):
    images, kernel = draw(0, (2, 6, 5, 2), (3, 3, 2, 4))
    layer = Conv(2, 4, 3, bias=False, **keywords)
    matrix = convolution_matrix(kernel, (6, 5), **keywords)
    (g,) = draw(1, (2, len(matrix)))

    def convolve(images):
        return layer_function(layer)({"kernel": kernel}, images).reshape(2, -1)

    def run(images):
        y, backward = jax.vjp(convolve, images)
        return y, *backward(g)

    y, of_images = jax.jit(run)(images)
    assert_same(y, images.reshape(2, -1) @ matrix.T)
    assert_same(of_images.reshape(2, -1), g @ matrix)


def test_the_matrix_commutes_with_a_shift_only_where_it_is_circulant():
    (kernel,) = draw(0, (3, 3, 1, 1))
    shift = np.roll(np.eye(25).reshape(5, 5, 25), (1, 2), axis=(0, 1)).reshape(25, 25)  # what np.roll does to an image
    for kind, commutes in {"circular": True, "zero": False}.items():
        matrix = convolution_matrix(kernel, (5, 5), padding=1, padding_kind=kind)
        assert np.array_equal(matrix @ shift, shift @ matrix) == commutes


# Layers of other names ------------------------------------------------------------------------------------------------


def test_patch_embedding_is_unfolding_and_a_product_and_a_convolution():
    images, kernel, bias = draw(0, (2, 6, 9, 2), (3, 3, 2, 5), (5,))
    params = {"kernel": kernel, "bias": bias}
    tokens = run_layer(PatchEmbed(3, 2, 5), params, images)
    assert_same(tokens, unfold(images, 3, stride=3) @ kernel.reshape(-1, 5) + bias)
    assert_same(tokens, run_layer(Conv(2, 5, 3, padding=0, stride=3), params, images).reshape(2, 6, 5))


def test_windows_that_overlap_are_unfolded_too():
    images = np.arange(12.0).reshape(1, 3, 4, 1)
    assert unfold(images, 2, stride=2).tolist() == [[[0, 1, 4, 5], [2, 3, 6, 7]]]
    assert unfold(images, 3, stride=1)[0, 1].tolist() == [1, 2, 3, 5, 6, 7, 9, 10, 11]
    two_channels = np.stack([images[..., 0], 100 + images[..., 0]], -1)
    assert unfold(two_channels, 2, stride=2)[0, 0].tolist() == [0, 100, 1, 101, 4, 104, 5, 105]


def test_a_1x1_convolution_is_a_dense_layer_on_each_pixel():
    images, kernel, bias = draw(0, (2, 4, 5, 3), (1, 1, 3, 6), (6,))
    dense = run_layer(Dense(3, 6), {"kernel": kernel[0, 0], "bias": bias}, images)
    assert_same(run_layer(Conv(3, 6, 1, padding=0), {"kernel": kernel, "bias": bias}, images), dense)


@pytest.mark.parametrize(("size", "stride", "padding"), [(2, 2, 0), (3, 2, 1), ((3, 2), 1, 0)])
def test_average_pooling_is_a_depthwise_convolution(size, stride, padding):
    (images,) = draw(0, (2, 7, 6, 3))
    layer = Conv(3, 3, size, padding=padding, stride=stride, groups=3, bias=False)
    pooled = np.asarray(average_pool(images, size, stride=stride, padding=padding, count_padding=True))
    assert_same(run_layer(layer, {"kernel": average_kernel(size, 3)}, images), pooled)


def test_max_pooling_is_no_convolution_for_it_is_not_linear():
    """By hand: the maxima of (1, 0) and (0, 1) are 1 and 1, and that of their sum is 1, not 2."""
    first, second = np.float32([1, 0]).reshape(1, 1, 2, 1), np.float32([0, 1]).reshape(1, 1, 2, 1)
    maxima = [max_pool(x, (1, 2), stride=1, padding=0).item() for x in (first, second, first + second)]
    assert maxima == [1, 1, 1]


# Attention ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "image_size"), [((3, 3, 2, 4), (5, 6)), ((1, 5, 4, 1), (3, 7))])
def test_heads_with_relative_positions_are_a_convolution_with_edge_padding(shape, image_size):
    images, kernel = draw(0, (2, *image_size, shape[2]), shape)
    attention, params = attention_of_convolution(kernel, sharpness=30.0)
    assert attention.heads == shape[0] * shape[1]
    tokens = run_layer(attention, params, add_places(images, max(shape[2:])))
    padding = tuple((side // 2, side // 2) for side in shape[:2])
    layer = Conv(shape[2], shape[3], shape[:2], padding=padding, padding_kind="edge", bias=False)
    expected = run_layer(layer, {"kernel": kernel}, images)
    assert_same(tokens[..., : shape[3]].reshape(expected.shape), expected)


def test_a_ring_of_pixels_that_are_zero_makes_it_zero_padding():
    images, kernel = draw(0, (1, 4, 4, 2), (3, 3, 2, 2))
    attention, params = attention_of_convolution(kernel, sharpness=30.0)
    surrounded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    tokens = run_layer(attention, params, add_places(surrounded, 2))
    expected = run_layer(Conv(2, 2, 3, padding=1, bias=False), {"kernel": kernel}, images)
    assert_same(tokens[..., :2].reshape(1, 6, 6, 2)[:, 1:-1, 1:-1], expected)


def test_each_head_reads_with_weights_that_fall_with_the_square_of_the_distance_from_its_offset():
    """A softmax in float64 of the formula, for pixels inside and at the border; heads in the order of the filter."""
    sharpness, side = 0.5, 5
    attention, params = attention_of_convolution(np.zeros((3, 3, 1, 1), np.float32), sharpness=sharpness)
    weights = read_weights(attention, params, add_places(np.zeros((1, side, side, 1)), 1))[0]
    places = np.stack(np.mgrid[:side, :side], -1).reshape(-1, 2)
    for head, offset in enumerate(np.ndindex(3, 3)):
        for query in (0, 7, 12, 24):
            target = places[query] + np.array(offset) - 1
            shares = np.exp(-sharpness * ((places - target) ** 2).sum(-1))
            np.testing.assert_allclose(weights[query, head], shares / shares.sum(), atol=1e-5)


def test_a_filter_without_a_middle_is_refused():
    with pytest.raises(UserError, match="a filter of 3x2 pixels has no middle; make both sides odd"):
        attention_of_convolution(np.zeros((3, 2, 1, 1)), sharpness=1.0)
