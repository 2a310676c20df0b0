"""The input layer is found, patches come in the order they are read, and similarities agree with hand arithmetic."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnn_vit.analysis import input_layer
from cnn_vit.models import build
from cnn_vit.nn.patches import PatchEmbed
from cnn_vit.nn.values import functional


@pytest.mark.parametrize(
    ("name", "changes", "shape", "expected"),
    [
        ("cifar_resnet/test", {}, (8, 8, 3), (("stem", "kernel"), None, None)),
        ("cnn/test", {}, (16, 16, 1), None),
        ("vit/test", {"image_size": (8, 16)}, (8, 16, 3), (("patches", "kernel"), 4, (2, 4))),
        ("mlp/test", {"image_size": 8}, (8, 8, 1), "nothing"),
    ],
)
def test_the_first_layer_that_reads_pixels_is_found_without_running_the_rest(name, changes, shape, expected):
    network = build(name, 10, channels=shape[2], **({"image_size": shape[:2]} | changes))
    first_layer = input_layer.find_input_layer(network, shape)
    if expected == "nothing":
        assert first_layer is None
        return
    if expected is not None:
        path, patch, _grid = expected
        assert first_layer.path == path
        if patch is not None:
            side = network.patches.patch
            assert (first_layer.patch, first_layer.grid) == (side, patch_grid(shape, side))
    kernel = input_layer.leaf_at(functional(network).params, first_layer.path)
    assert kernel.shape[2] == shape[2]


def patch_grid(shape, side):
    """Returns how many patches fit into an image (down, right)."""
    return shape[0] // side, shape[1] // side


def test_patches_come_in_the_order_in_which_the_network_reads_them():
    image = np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.float32)
    graph, state = nnx.split(PatchEmbed(3, 3, 27), nnx.Param)
    nnx.replace_by_pure_dict(state, {"kernel": jnp.eye(27).reshape(3, 3, 3, 27), "bias": jnp.zeros(27)})
    tokens = nnx.merge(graph, state)(jnp.asarray(image)[None])[0]  # the identity as kernel gives the pixels themselves
    np.testing.assert_array_equal(input_layer.split_into_patches(image, 3).reshape(6, 27), tokens)


def test_patches_leave_out_what_fills_none():
    assert input_layer.split_into_patches(np.zeros((7, 5, 1)), 2).shape == (6, 2, 2, 1)


def test_similarity_is_the_cosine_and_leaves_the_class_token_out():
    table = np.array([[9, 9], [1, 0], [0, 2], [3, 3], [-1, 0]], np.float32)  # a class token, then a grid of 2 x 2
    maps = input_layer.position_similarities(table, (2, 2))
    root = np.sqrt(0.5)
    np.testing.assert_allclose(maps[0, 0], [[1, 0], [root, -1]], atol=1e-6)
    np.testing.assert_allclose(maps[1, 0], [[root, root], [1, -root]], atol=1e-6)


def test_of_many_patches_only_some_have_a_map():
    table = np.random.default_rng(0).normal(size=(1 + 30 * 20, 4))
    before = table.copy()
    maps = input_layer.position_similarities(table, (30, 20))
    np.testing.assert_array_equal(table, before)
    assert maps.shape == (10, 7, 30, 20)
    for row, column in ((0, 0), (9, 6)):
        assert maps[row, column, 3 * row, 3 * column] == pytest.approx(1)


@pytest.mark.parametrize(("shape", "count"), [((3, 3, 1, 16), 16), ((3, 3, 3, 512), 64), ((32, 32, 3, 768), 16)])
def test_few_enough_filters_are_shown_each_as_an_image(shape, count):
    kernel = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    images = input_layer.take_filters(kernel)
    assert images.shape == (count, *shape[:3])
    np.testing.assert_array_equal(images[count - 1], kernel[..., count - 1])
