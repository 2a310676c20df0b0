"""Images of several sizes in one batch: each gets the scores that it gets alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnn_vit import models
from cnn_vit.errors import UserError

SIZES = [(16, 16), (7, 11), (8, 12)]
QUICK = {"xla_backend_optimization_level": 0}  # the same program, compiled in half the time: it runs once
CNNS = [
    {"stride": 1},
    {"stride": 2},
    {"stride": (1, 2), "convolutions": (2, 1), "kernel_size": (3, 2), "padding": (1, 0), "pooling": "average"},
    {"stride": (2, 1), "kernel_size": (4, 3), "padding": (0, 2), "pooling": "none"},
    {"stride": 2, "batch_norm": True, "pool_last": True, "padding": 2},
]


def together(pictures, size=(16, 16), around=np.nan):
    """Images in the corners of images of one size, and their masks."""
    channels = pictures[0].shape[-1]
    images, masks = (
        np.full((len(pictures), *size, channels), around, np.float32),
        np.zeros((len(pictures), *size), bool),
    )
    for image, mask, picture in zip(images, masks, pictures, strict=True):
        height, width = picture.shape[:2]
        image[:height, :width], mask[:height, :width] = picture, True
    return jnp.asarray(images), jnp.asarray(masks)


@pytest.fixture
def pictures(images):
    return [np.asarray(images((*size, 3)) + i) for i, size in enumerate(SIZES)]


def lively(network, seed=0):
    """The values of a network, those that start alike (head, class token, statistics) drawn."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: np.float32(rng.uniform(0.5, 1.5, leaf.shape)) if np.ptp(leaf) == 0 else leaf,
        (network.params, network.stats),
    )


def scores(network, values, images, mask=None):
    def call(values, images, mask):
        return network.network.apply(*values, images, mask=mask)[0]

    return jax.jit(call, compiler_options=QUICK)(values, jnp.asarray(images), mask)


@pytest.mark.parametrize("changes", CNNS, ids=str)
def test_a_cnn_scores_an_image_in_a_larger_image_as_it_is(changes, valued, images):
    """No mask on the other side: the network's plain call of the image."""
    network = valued("cnn/test", head="average", image_size=16, **({"batch_norm": False} | changes))
    values = lively(network)
    found = scores(network, values, *together(images))
    for row, image in zip(found, images, strict=True):
        np.testing.assert_allclose(row, scores(network, values, image[None])[0], rtol=1e-5, atol=1e-5)


def smaller(values, grid, part, tokens):
    """Values whose table of positions is the top left part of a grid's, cut out by hand."""
    params, stats = values
    table = params["pos_embed"]["embedding"]
    rows = table[tokens:].reshape(*grid, -1)[: part[0], : part[1]].reshape(part[0] * part[1], -1)
    return params | {"pos_embed": {"embedding": np.concatenate([table[:tokens], rows])}}, stats


@pytest.mark.parametrize(
    ("suffix", "changes"),
    [("", {}), ("-gap", {"fused": True}), ("-map", {}), ("-tok", {"norm": "post", "depth": 2})],
)
def test_a_vit_scores_an_image_as_the_network_of_its_size_does(suffix, changes, valued, images):
    """A network built for 8x12 pixels, whose positions are the top left 2x3 of the 4x4, reads it without a mask."""
    network = valued(f"vit/test{suffix}", image_size=16, **changes)
    values = lively(network)
    found = scores(network, values, *together(images))[SIZES.index((8, 12))]
    own = valued(f"vit/test{suffix}", image_size=(8, 12), **changes)
    cut = smaller(values, (4, 4), (2, 3), tokens=int(suffix == ""))
    expected = scores(own, cut, images[SIZES.index((8, 12))][None])[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_fixed_positions_are_those_of_the_pixels(valued, images):
    network = valued("vit/test", image_size=16, positions="sincos")
    values, own = lively(network), valued("vit/test", image_size=(8, 12), positions="sincos")
    found = scores(network, values, *together(images))[SIZES.index((8, 12))]
    expected = scores(own, values, images[SIZES.index((8, 12))][None])[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("leftover", ["refuse", "drop"])
def test_zeros_fill_a_patch_up_or_it_is_dropped(leftover, valued, images):
    """7x11 pixels are 2x3 patches of 4 pixels with zeros, or 1x2 whole ones."""
    network = valued("vit/test", image_size=16, leftover=leftover)
    values, image = lively(network), images[SIZES.index((7, 11))]
    found = scores(network, values, *together(images))[SIZES.index((7, 11))]
    whole = image[:4, :8] if leftover == "drop" else np.pad(image, ((0, 1), (0, 1), (0, 0)))
    own = valued("vit/test", image_size=whole.shape[:2])
    cut = smaller(values, (4, 4), (whole.shape[0] // 4, whole.shape[1] // 4), tokens=1)
    np.testing.assert_allclose(found, scores(own, cut, whole[None])[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["cnn/test", "vit/test-gap"])
def test_the_size_of_the_image_around_changes_nothing(name, valued, images):
    network = valued(name, image_size=32, **{"head": "average"} if name == "cnn/test" else {})
    values = lively(network)
    small, large = (scores(network, values, *together(images, (size, size + 3))) for size in (16, 25))
    np.testing.assert_allclose(small, large, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["cnn/test", "vit/test", "vit/test-map"])
def test_what_lies_around_an_image_changes_no_bit(name, valued, images):
    network = valued(name, image_size=16, **{"head": "average", "stride": 2} if name == "cnn/test" else {})
    values = lively(network)
    one, other = (scores(network, values, *together(images, around=around)) for around in (0, np.nan))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("name", "changes"), [("cnn/test", {"head": "average", "stride": 2, "batch_norm": False}), ("vit/test", {})]
)
def test_a_batch_of_several_sizes_has_the_gradient_of_its_images(name, changes, valued, pictures):
    network = valued(name, image_size=16, **changes)
    params, stats = lively(network)

    def loss(params, images, mask):
        given, _ = network.network.apply(params, stats, images, train=True, rngs=nnx.Rngs(dropout=0), mask=mask)
        return (given * jnp.arange(1.0, 4.0)).sum() + (given**2).sum()

    gradient = jax.jit(jax.grad(loss), compiler_options=QUICK)
    found = gradient(params, *together(pictures))
    each = [gradient(params, *together([image], image.shape[:2])) for image in pictures]
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(found))
    for one, *parts in zip(*map(jax.tree.leaves, (found, *each)), strict=True):
        np.testing.assert_allclose(one, sum(parts), rtol=1e-4, atol=1e-6 * largest)


@pytest.mark.parametrize("name", ["mlp/test", "lenet/5", "resnet/18", "cifar_resnet/20"])
def test_a_network_without_a_mask_is_refused_by_name(name):
    with pytest.raises(UserError, match=rf"{name} takes no mask, .* take cnn/\* or vit/\*, or data.fit=crop"):
        models.refuse_unmasked(name)


@pytest.mark.parametrize("name", ["cnn/small", "vit/B16-gap"])
def test_a_network_with_a_mask_is_taken(name):
    models.refuse_unmasked(name)


def test_batch_norm_learns_nothing_from_a_mask(valued, images):
    network = valued("cnn/test", head="average", image_size=16)
    with pytest.raises(UserError, match=r"statistics over the padding too; set model\.batch_norm=false"):
        network.network.apply(
            network.params, network.stats, *together(images)[:1], train=True, mask=together(images)[1]
        )


def test_a_dense_head_takes_no_mask(valued, pictures):
    network = valued("cnn/test", image_size=16)
    images, mask = together(pictures)
    with pytest.raises(UserError, match=r"set model\.head=average"):
        network.network.apply(network.params, network.stats, images, mask=mask)


def test_an_image_beyond_the_positions_is_refused(valued, images):
    network = valued("vit/test", image_size=12)
    with pytest.raises(UserError, match="images of 16x16 pixels; this network is built for 12x12"):
        scores(network, (network.params, network.stats), *together(images))


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
def test_the_least_image_leaves_something(name, changes, least):
    changes |= {"head": "average"} if name == "cnn/test" else {}
    assert models.build(name, 3, image_size=16, **changes).least_side == least
