"""Walks through a layer: what is read, multiplied and added up is what the layer returns."""

import numpy as np
import pytest

from cnn_vit.analysis.walks import WindowWalk, walk_attention, walk_convolution, walk_pooling
from cnn_vit.errors import UserError

MODES = {"zero": "constant", "circular": "wrap", "reflect": "reflect", "edge": "edge"}  # NumPy's names


def add_up(image, kernel, stride, dilation):
    """A convolution without padding as four loops, in float64."""
    height, width, _ = kernel.shape
    rows = (image.shape[0] - dilation * (height - 1) - 1) // stride + 1
    columns = (image.shape[1] - dilation * (width - 1) - 1) // stride + 1
    output = np.zeros((rows, columns))
    for i in range(rows):
        for j in range(columns):
            for u in range(height):
                for v in range(width):
                    pixel = image[i * stride + u * dilation, j * stride + v * dilation]
                    output[i, j] += float(pixel @ kernel[u, v])
    return output


@pytest.mark.parametrize(
    ("kind", "stride", "dilation", "channels"),
    [("zero", 1, 1, 1), ("circular", 2, 1, 3), ("reflect", 1, 2, 1), ("edge", 3, 2, 3)],
)
def test_the_products_under_the_window_add_up_to_what_the_convolution_returns(kind, stride, dilation, channels):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 17, (7, 6, channels))
    kernel = rng.integers(-3, 4, (3, 2, channels))
    walk = walk_convolution(image, kernel, stride=stride, padding=2, padding_kind=kind, dilation=dilation)
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode=MODES[kind])
    np.testing.assert_array_equal(walk.slide.padded, padded)
    np.testing.assert_array_equal(walk.output, add_up(padded, kernel, stride, dilation))
    positions = list(walk.slide.positions())
    assert [(place.row, place.column) for place in positions] == list(np.ndindex(walk.output.shape))
    for place in positions:
        assert (place.read(walk.slide.padded) * kernel).sum() == walk.output[place.row, place.column]


def test_an_edge_filter_on_a_ramp_by_hand():
    # Each row is 0 1 2: (0 - 2) * 1 + (0 - 2) * 2 + (0 - 2) * 1 = -8.
    ramp = np.tile(np.arange(3), (3, 1))[..., None]
    kernel = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]])[..., None]
    assert walk_convolution(ramp, kernel).output.tolist() == [[-8]]


def test_what_lies_outside_the_image_is_padding():
    slide = WindowWalk(np.zeros((2, 3, 1)), np.zeros((4, 5, 1)), 1, (3, 3), 1, 1)
    inside = [place for place in np.ndindex(4, 5) if not slide.is_padding(*place)]
    assert inside == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]


def test_four_kinds_of_pooling_by_hand():
    image = np.array([[1, 2, 0, 9], [3, 6, 4, 3]])
    walk = walk_pooling(image, size=2, stride=2)
    outputs = {kind: output.tolist() for kind, output in walk.outputs.items()}
    # A blur over 2 pixels weighs them 1 1; over 3 pixels 1 2 1 down and right: (1 + 2 * 3 + 4 * 6) / 16 of the pixels
    # below, whose last row and column are 0.
    assert outputs == {"max": [[6, 9]], "average": [[3, 4]], "blur": [[3, 4]], "stride": [[1, 0]]}
    blurred = walk_pooling(np.array([[1, 0, 0], [3, 6, 0], [0, 0, 0]]), size=3, stride=1).outputs["blur"]
    assert blurred.tolist() == [[31 / 16]]
    # A third window of 2 would need a fifth column: what fills no window is left out, by all three.
    wide = walk_pooling(np.pad(image, ((0, 0), (0, 1))), size=2, stride=2)
    assert {output.shape for output in wide.outputs.values()} == {(1, 2)}


def test_attention_is_softmax_of_queries_times_keys_applied_to_values():
    patch, head_width = 4, 3
    image = np.random.default_rng(1).random((8, 8))
    walk = walk_attention(image, patch=patch, head_width=head_width, seed=3)
    tokens = walk.tokens.astype(np.float64)
    np.testing.assert_allclose(tokens.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(tokens.var(1), 1, atol=1e-3)
    first = image[:patch, :patch].ravel()
    np.testing.assert_allclose(tokens[0], (first - first.mean()) / first.std(), atol=1e-3)
    for name, vectors in (("query", walk.queries), ("key", walk.keys), ("value", walk.values)):
        projection = walk.projections[name]
        assert projection["kernel"].shape == (patch * patch, head_width)
        np.testing.assert_allclose(vectors, tokens @ projection["kernel"] + projection["bias"], atol=1e-5)
    scores = walk.queries.astype(np.float64) @ walk.keys.T / np.sqrt(head_width)
    weights = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(walk.scores, scores, atol=1e-5)
    np.testing.assert_allclose(walk.weights, weights, atol=1e-5)
    np.testing.assert_allclose(walk.output, weights @ walk.values, atol=1e-5)
    assert walk.weights.max() > 2 / len(tokens)  # not all alike: there is something to see


@pytest.mark.parametrize(
    ("patch", "sentence"), [(3, "8x8 pixels are not whole 3-pixel patches"), (8, "one patch of 8 pixels has no other")]
)
def test_an_image_that_is_no_row_of_patches_is_refused(patch, sentence):
    with pytest.raises(UserError, match=sentence):
        walk_attention(np.zeros((8, 8)), patch=patch, head_width=2, seed=0)
