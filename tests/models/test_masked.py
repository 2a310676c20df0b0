"""Images of several sizes in one batch: each gets the scores that it gets alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from quick import QUICK

from cnn_vit import models
from cnn_vit.errors import UserError

SIZES = [(16, 16), (7, 11), (8, 12)]
CNNS = [
    pytest.param({"stride": 1}, marks=pytest.mark.slow),
    pytest.param({"stride": 2}, marks=pytest.mark.slow),
    {"stride": (1, 2), "convolutions": (2, 1), "kernel_size": (3, 2), "padding": (1, 0), "pooling": "average"},
    {"stride": (2, 1), "kernel_size": (4, 3), "padding": (0, 2), "pooling": "none"},
    {"stride": 2, "batch_norm": True, "pool_last": True, "padding": 2},
    {"pooling": "max_blur", "pool_last": True},
]


@pytest.fixture
def sized_images(images):
    """One image (H, W, 3) of each of SIZES."""
    return [np.asarray(images((*size, 3)) + i) for i, size in enumerate(SIZES)]


def pad_together(sized_images, padded_size=(16, 16), around=np.nan):
    """Puts images into the corners of padded images of one size; returns those and their masks."""
    channels = sized_images[0].shape[-1]
    padded_images = np.full((len(sized_images), *padded_size, channels), around, np.float32)
    masks = np.zeros((len(sized_images), *padded_size), bool)
    for padded, mask, image in zip(padded_images, masks, sized_images, strict=True):
        height, width = image.shape[:2]
        padded[:height, :width] = image
        mask[:height, :width] = True
    return jnp.asarray(padded_images), jnp.asarray(masks)


def draw_distinct_values(network, seed=0):
    """Returns the values of a network, with those that start alike (head, class token, statistics) drawn at random."""
    rng = np.random.default_rng(seed)

    def redraw_equal(leaf):
        if np.ptp(leaf) == 0:
            return np.float32(rng.uniform(0.5, 1.5, leaf.shape))
        return leaf

    return jax.tree.map(redraw_equal, (network.params, network.stats))


def score(network, values, images, mask=None):
    """Scores images with the values (params, stats)."""

    def call(values, images, mask):
        scores, _ = network.network.apply(*values, images, mask=mask)
        return scores

    return jax.jit(call, compiler_options=QUICK)(values, jnp.asarray(images), mask)


def score_alone(network, values, image):
    """Scores one image by the network's plain call, without a mask."""
    return score(network, values, image[None])[0]


@pytest.mark.parametrize("changes", CNNS, ids=str)
def test_a_cnn_scores_an_image_in_a_padded_image_as_it_does_alone(changes, make_network, sized_images):
    keywords = {"batch_norm": False} | changes
    network = make_network("cnn/test", head="average", image_size=16, **keywords)
    values = draw_distinct_values(network)
    scores = score(network, values, *pad_together(sized_images))
    for row, image in zip(scores, sized_images, strict=True):
        np.testing.assert_allclose(row, score_alone(network, values, image), rtol=1e-5, atol=1e-5)


def cut_positions(values, grid, part, tokens):
    """Returns values whose table of positions is the top left part of a grid's, cut out by hand."""
    params, stats = values
    table = params["pos_embed"]["embedding"]
    patch_rows = table[tokens:].reshape(*grid, -1)[: part[0], : part[1]].reshape(part[0] * part[1], -1)
    smaller_table = np.concatenate([table[:tokens], patch_rows])
    return params | {"pos_embed": {"embedding": smaller_table}}, stats


@pytest.mark.parametrize(
    ("suffix", "changes"),
    [("", {}), ("-gap", {"fused": True}), ("-map", {}), ("-tok", {"norm": "post", "depth": 2})],
)
def test_a_vit_scores_an_image_as_the_network_of_its_size_does(suffix, changes, make_network, sized_images):
    """A network built for 8x12 pixels, whose positions are the top left 2x3 of the 4x4, reads it without a mask."""
    index = SIZES.index((8, 12))
    network = make_network(f"vit/test{suffix}", image_size=16, **changes)
    values = draw_distinct_values(network)
    scores = score(network, values, *pad_together(sized_images))
    small_network = make_network(f"vit/test{suffix}", image_size=(8, 12), **changes)
    small_values = cut_positions(values, (4, 4), (2, 3), tokens=int(suffix == ""))
    expected = score_alone(small_network, small_values, sized_images[index])
    np.testing.assert_allclose(scores[index], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("positions", ["sincos", "relative", "concatenated"])
def test_other_positions_are_those_of_the_pixels(positions, make_network, sized_images):
    index = SIZES.index((8, 12))
    network = make_network("vit/test", image_size=16, positions=positions)
    small_network = make_network("vit/test", image_size=(8, 12), positions=positions)
    values = draw_distinct_values(network)
    small_values = values
    if positions == "concatenated":
        small_values = cut_positions(values, (4, 4), (2, 3), tokens=1)
        small_values[0]["pos_embed"]["join"] = values[0]["pos_embed"]["join"]
    if positions == "relative":
        # 7 x 7 ways, of which 2 x 3 patches have the middle 3 x 5
        table = values[0]["relative_bias"][:, 2:5, 1:6]
        small_values = values[0] | {"relative_bias": table}, values[1]
    scores = score(network, values, *pad_together(sized_images))
    expected = score_alone(small_network, small_values, sized_images[index])
    np.testing.assert_allclose(scores[index], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("leftover", ["refuse", "drop"])
def test_zeros_fill_a_patch_up_or_it_is_dropped(leftover, make_network, sized_images):
    """7x11 pixels are 2x3 patches of 4 pixels with zeros, or 1x2 whole ones."""
    index = SIZES.index((7, 11))
    network = make_network("vit/test", image_size=16, leftover=leftover)
    values, image = draw_distinct_values(network), sized_images[index]
    scores = score(network, values, *pad_together(sized_images))
    whole_patches = image[:4, :8] if leftover == "drop" else np.pad(image, ((0, 1), (0, 1), (0, 0)))
    height, width = whole_patches.shape[:2]
    small_network = make_network("vit/test", image_size=(height, width))
    small_values = cut_positions(values, (4, 4), (height // 4, width // 4), tokens=1)
    expected = score_alone(small_network, small_values, whole_patches)
    np.testing.assert_allclose(scores[index], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("cnn/test", {"head": "average"}),
        ("vit/test-gap", {}),
        ("vit/test", {"positions": "rotary"}),
        ("vit/test", {"positions": "relative"}),
    ],
)
def test_the_size_of_the_padded_image_changes_nothing(name, changes, make_network, sized_images):
    network = make_network(name, image_size=32, **changes)
    values = draw_distinct_values(network)
    small = score(network, values, *pad_together(sized_images, (16, 19)))
    large = score(network, values, *pad_together(sized_images, (25, 28)))
    np.testing.assert_allclose(small, large, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "changes"), [("cnn/test", {"head": "average", "stride": 2}), ("vit/test", {}), ("vit/test-map", {})]
)
def test_what_lies_around_an_image_changes_no_bit(name, changes, make_network, sized_images):
    network = make_network(name, image_size=16, **changes)
    values = draw_distinct_values(network)
    among_zeros = score(network, values, *pad_together(sized_images, around=0))
    among_nans = score(network, values, *pad_together(sized_images, around=np.nan))
    np.testing.assert_array_equal(among_zeros, among_nans)


@pytest.mark.parametrize(
    ("name", "changes"), [("cnn/test", {"head": "average", "stride": 2, "batch_norm": False}), ("vit/test", {})]
)
def test_a_batch_of_several_sizes_has_the_gradient_of_its_images(name, changes, make_network, sized_images):
    network = make_network(name, image_size=16, **changes)
    params, stats = draw_distinct_values(network)

    def loss(params, images, mask):
        scores, _ = network.network.apply(params, stats, images, train=True, rngs=nnx.Rngs(dropout=0), mask=mask)
        return (scores * jnp.arange(1.0, 4.0)).sum() + (scores**2).sum()

    compute_gradient = jax.jit(jax.grad(loss), compiler_options=QUICK)
    gradient = compute_gradient(params, *pad_together(sized_images))
    of_images = [compute_gradient(params, *pad_together([image], image.shape[:2])) for image in sized_images]
    expected = jax.tree.map(lambda *leaves: sum(leaves), *of_images)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient))
    for leaf, expected_leaf in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(leaf, expected_leaf, rtol=1e-4, atol=1e-6 * largest)


@pytest.mark.parametrize("name", ["mlp/test", "lenet/5", "resnet/18", "cifar_resnet/20"])
def test_a_network_without_a_mask_is_refused_by_name(name):
    with pytest.raises(UserError, match=rf"{name} takes no mask, .* take cnn/\* or vit/\*, or data.fit=crop"):
        models.refuse_unmasked(name)


@pytest.mark.parametrize("name", ["cnn/small", "vit/B16-gap"])
def test_a_network_with_a_mask_is_accepted(name):
    models.refuse_unmasked(name)


def test_batch_norm_refuses_to_learn_from_a_mask(make_network, sized_images):
    network = make_network("cnn/test", head="average", image_size=16)
    padded_images, mask = pad_together(sized_images)
    with pytest.raises(UserError, match=r"statistics over the padding too; set model\.batch_norm=false"):
        network.network.apply(network.params, network.stats, padded_images, train=True, mask=mask)


def test_a_dense_head_takes_no_mask(make_network, sized_images):
    network = make_network("cnn/test", image_size=16)
    padded_images, mask = pad_together(sized_images)
    with pytest.raises(UserError, match=r"set model\.head=average"):
        network.network.apply(network.params, network.stats, padded_images, mask=mask)


def test_an_image_beyond_the_positions_is_refused(make_network, sized_images):
    network = make_network("vit/test", image_size=12)
    with pytest.raises(UserError, match="images of 16x16 pixels; this network is built for 12x12"):
        score(network, (network.params, network.stats), *pad_together(sized_images))


@pytest.mark.parametrize(
    ("name", "changes", "least"),
    [
        ("cnn/test", {}, 2),  # one pooling of 2
        ("cnn/test", {"padding": 0}, 8),  # 8 - 2 = 6, / 2 = 3, - 2 = 1
        ("cnn/test", {"padding": (0, 3)}, 4),  # below, the first stage leaves nothing, and padding makes nothing of it
        ("vit/test", {}, 1),
        ("vit/test", {"leftover": "drop"}, 4),
    ],
)
def test_something_is_left_of_the_smallest_image(name, changes, least):
    if name == "cnn/test":
        changes = changes | {"head": "average"}
    assert models.build(name, 3, image_size=16, **changes).least_side == least
