"""Images mixed with images of the same batch, and their labels in the same shares.

Each operation takes the images (B, H, W, C) and soft labels (B, K) of the global batch, one key and a strength; it
draws one weight and one permutation for the whole batch. Strength 0 is off: the weight is 1.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cnn_vit.data.augment.color import box_mask


def apply_mixing(
    change: Callable, images: jax.Array, target: jax.Array, key: jax.Array, alpha: jax.Array
) -> tuple[jax.Array, jax.Array]:  # (B, H, W, C), (B, K), (), () -> (B, H, W, C), (B, K)
    """One mixing operation; on a CPU not even begun where it is off.

    There the branch is what keeps XLA from computing every earlier operation twice, once for an image and once for its
    partner: 215,000 instead of 65,000 images of 32x32x3 per CPU-second for pad_crop, flip and mixup. Other platforms
    would have to ask the device which way to go.
    """

    def branch(images, target, key, alpha):
        return jax.lax.cond(alpha > 0, change, keep_batch, images, target, key, alpha)

    return jax.lax.platform_dependent(images, target, key, alpha, cpu=branch, default=change)


def keep_batch(images: jax.Array, target: jax.Array, *_) -> tuple[jax.Array, jax.Array]:
    """The batch as it is."""
    return images, target


def mixup(
    images: jax.Array, target: jax.Array, key: jax.Array, alpha: jax.Array
) -> tuple[jax.Array, jax.Array]:  # (B, H, W, C), (B, K), (), () -> (B, H, W, C), (B, K)
    """Adds up two images, w of one and 1 - w of the other, w from Beta(alpha, alpha).

    Zhang et al., arXiv:1710.09412, section 2.
    """
    weights, orders = jax.random.split(key)
    order = jax.random.permutation(orders, len(images))
    weight = draw_weight(weights, alpha)
    return weighted_sum(images, images[order], weight), weighted_sum(target, target[order], weight)


def cutmix(
    images: jax.Array, target: jax.Array, key: jax.Array, alpha: jax.Array
) -> tuple[jax.Array, jax.Array]:  # (B, H, W, C), (B, K), (), () -> (B, H, W, C), (B, K)
    """Replaces a box of each image by another's, about 1 - w of the area, w from Beta(alpha, alpha).

    The box has the image's shape and its center anywhere; what sticks out is cut off. Labels are mixed by the pixels
    really replaced. Yun et al., arXiv:1905.04899, section 3.1; one box for the batch, as in its published code.
    """
    weights, orders, places = jax.random.split(key, 3)
    order = jax.random.permutation(orders, len(images))
    hole = cutmix_box(images.shape[1], images.shape[2], places, draw_weight(weights, alpha))
    kept = 1 - hole.mean(dtype=jnp.float32)
    return jnp.where(hole[..., None], images[order], images), weighted_sum(target, target[order], kept)


def draw_weight(key: jax.Array, alpha: jax.Array) -> jax.Array:
    """A weight in 0..1 from Beta(alpha, alpha); 1 where alpha is 0."""
    strength = jnp.asarray(alpha, jnp.float32)
    positive = jnp.where(strength > 0, strength, 1)
    return jnp.where(strength > 0, jax.random.beta(key, positive, positive), 1)


def cutmix_box(height: int, width: int, key: jax.Array, weight: jax.Array) -> jax.Array:
    """True (H, W) in a box of about 1 - `weight` of the area, around a pixel drawn evenly."""
    tall, wide = (jnp.floor(side * jnp.sqrt(1 - weight)).astype(jnp.int32) for side in (height, width))
    row, column = jax.random.randint(key, (2,), 0, jnp.array([height, width]))
    return box_mask(height, width, row - tall // 2, column - wide // 2, tall, wide)


def weighted_sum(one: jax.Array, other: jax.Array, weight: jax.Array) -> jax.Array:
    """`weight` of one and the rest of the other."""
    return weight * one + (1 - weight) * other
