"""A fixed permutation of the pixels: the same for all images, nothing lost, and nothing to an MLP."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_vit.errors import UserError
from cnn_vit.models import build
from cnn_vit.nn.permutation import draw_order, permute_pixels
from cnn_vit.nn.values import functional, initial_values

FAMILIES = {
    "mlp/test": {},
    "cnn/test": {"batch_norm": False},
    "vit/test": {"patch": 2, "positions": "sincos"},
}


def test_every_image_keeps_its_pixels_in_one_order():
    images = np.arange(2 * 3 * 4 * 2, dtype=np.float32).reshape(2, 3, 4, 2)
    order = draw_order(7, 12)
    assert sorted(order.tolist()) == list(range(12))
    assert order.tolist() != list(range(12))
    expected = images.reshape(2, 12, 2)[:, order].reshape(images.shape)
    np.testing.assert_array_equal(permute_pixels(jnp.asarray(images), 7), expected)
    assert draw_order(8, 12).tolist() != order.tolist()


def test_the_order_is_that_of_the_random_words_of_philox():
    words = np.random.Philox(key=3).random_raw(20).tolist()
    assert draw_order(3, 20).tolist() == sorted(range(20), key=words.__getitem__)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_with_a_permutation_sees_permuted_images(name):
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    scores = {}
    for permutation in (None, 5):
        network = functional(build(name, 4, image_size=8, permutation=permutation, **FAMILIES[name]))
        params, stats = initial_values(network, 1)
        params["head"]["kernel"] = np.random.default_rng(1).normal(size=params["head"]["kernel"].shape)
        params["head"]["kernel"] = params["head"]["kernel"].astype(np.float32)
        shown = np.asarray(permute_pixels(jnp.asarray(images), 5)) if permutation is None else images
        scores[permutation], _ = network.apply(params, stats, shown)
        plain, _ = network.apply(params, stats, images)
        assert (np.abs(plain - scores[permutation]).max() > 1e-3) == (permutation is None)
    np.testing.assert_array_equal(scores[None], scores[5])


def test_an_mlp_with_permuted_weights_learns_the_same_from_permuted_images_step_by_step():
    """Row r of its first kernel stands for pixel order[r]: the same scores, gradients and steps, up to rounding."""
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(8, 6, 6, 1)).astype(np.float32), np.arange(8) % 3
    order = draw_order(2, 36)
    losses = []
    for permutation in (None, 2):
        network = functional(build("mlp/test", 3, image_size=6, channels=1, permutation=permutation))
        params, stats = initial_values(network, 0)
        if permutation is not None:
            first = params["hidden"]["layers"][0]
            first["kernel"] = first["kernel"][order]

        def loss(params, network=network, stats=stats):
            scores, _ = network.apply(params, stats, images)
            return -jax.nn.log_softmax(scores)[np.arange(8), labels].mean()

        step = jax.jit(jax.value_and_grad(loss))
        history = []
        for _ in range(20):
            value, gradient = step(params)
            params = jax.tree.map(lambda value, slope: value - 0.1 * slope, params, gradient)
            history.append(float(value))
        losses.append(history)
    assert losses[0][-1] < 0.8 * losses[0][0]  # something was learned
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


@pytest.mark.parametrize("name", ["cnn/test", "vit/test"])
def test_a_permutation_is_refused_with_a_mask(name):
    keywords = {"head": "average"} if name == "cnn/test" else {}
    network = build(name, 3, image_size=8, permutation=1, **keywords)
    with pytest.raises(UserError, match=r"set model\.permutation=none for a mask"):
        network.refuse_mask(train=False)
    build(name, 3, image_size=8, **keywords).refuse_mask(train=False)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_number_below_0_is_refused(name):
    with pytest.raises(UserError, match=r"model\.permutation=-1 must be at least 0"):
        build(name, 3, image_size=8, permutation=-1)
