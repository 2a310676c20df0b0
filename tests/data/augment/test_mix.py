"""Images mixed with images: the soft labels have exactly the shares of the pixels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from augmenting import MANY, augmented, mean_and_variance

from cnn_vit.data.augment import mix


@pytest.fixture(autouse=True)
def _strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


def grays_by_class():
    """Ten images of one gray each; class k has the gray 25 k."""
    return np.broadcast_to(np.uint8(25 * np.arange(10))[:, None, None, None], (10, 6, 5, 1))


def test_mixup_of_weight_one_is_the_identity_and_of_weight_zero_the_partner():
    image, partner = jnp.float32([[1.0, 2.0]]), jnp.float32([[5.0, 9.0]])
    assert mix.weighted_sum(image, partner, jnp.float32(1)).tolist() == [[1, 2]]
    assert mix.weighted_sum(image, partner, jnp.float32(0)).tolist() == [[5, 9]]


@pytest.mark.parametrize("text", ["mixup(1)", "cutmix(1)"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_soft_labels_carry_exactly_the_pixels_share(text, seed):
    out, target = augmented((text,), grays_by_class(), seed=seed)
    np.testing.assert_allclose(out.mean((1, 2, 3)), target @ (25 * np.arange(10) / 255), atol=1e-6)
    np.testing.assert_allclose(target.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(target.sum(0), 1, atol=1e-6)  # a permutation: every image goes once as partner
    shares = np.unique(np.round(target[(target > 0) & (target < 1)], 5))
    assert len(shares) == 2  # one weight for the batch, w and 1 - w
    np.testing.assert_allclose(shares.sum(), 1, atol=2e-5)


def test_cutmix_pastes_one_rectangle_of_whole_pixels_of_the_partner():
    out, target = augmented(("cutmix(1)",), grays_by_class(), seed=1)
    grays = np.round(out[..., 0] * 255 / 25)
    np.testing.assert_allclose(out[..., 0] * 255 / 25, grays, atol=1e-4)
    is_pasted = grays != np.arange(10)[:, None, None]
    is_mixed = is_pasted.any((1, 2))  # an image that is its own partner shows no box
    boxes = is_pasted[is_mixed]
    np.testing.assert_array_equal(boxes, np.broadcast_to(boxes[:1], boxes.shape))
    box = boxes[0]
    assert 0 < box.sum() < 30
    np.testing.assert_array_equal(box.any(1)[:, None] & box.any(0), box)
    np.testing.assert_allclose(target[is_mixed].max(1), max(box.mean(), 1 - box.mean()), atol=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.19, 0.75, 1.0])
def test_the_box_of_cutmix_has_about_the_area_that_the_weight_leaves(weight):
    keys = jax.random.split(jax.random.key(0), MANY)
    draw_box = jax.jit(jax.vmap(lambda key: mix.cutmix_box(20, 40, key, jnp.float32(weight))))
    areas = np.asarray(draw_box(keys)).sum((1, 2))
    side = np.sqrt(1 - weight)
    assert areas.max() == int(20 * side + 1e-4) * int(40 * side + 1e-4)  # where nothing is cut off
    assert (areas < 0.9 * areas.max()).any() == (weight < 1)  # centers lie at the edge too


@functools.cache
def compiled_draw():
    return jax.jit(jax.vmap(mix.draw_weight, (0, None)))


def draw_weights(alpha):
    return compiled_draw()(jax.random.split(jax.random.key(0), MANY), alpha)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_weights_have_the_moments_of_the_beta_distribution(alpha):
    np.testing.assert_allclose(mean_and_variance(draw_weights(alpha)), (0.5, 1 / (4 * (2 * alpha + 1))), atol=0.03)


def test_the_smallest_strengths_give_a_number():
    assert set(np.unique(draw_weights(1e-37))) == {0, 1}
    assert set(np.unique(draw_weights(0.0))) == {1}
