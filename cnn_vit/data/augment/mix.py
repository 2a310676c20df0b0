"""Operations that mix images with others of the same batch, and their labels in the same shares.

Each operation takes the images (B, H, W, C) and soft labels (B, K) of the global batch, one key and a strength `alpha`;
it draws one weight and one permutation for the whole batch. Strength 0 is off: the weight is 1.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cnn_vit.data.augment.color import box_mask


def apply_mixing(
    change: Callable, images: jax.Array, target: jax.Array, key: jax.Array, alpha: jax.Array
) -> tuple[jax.Array, jax.Array]:  # (B, H, W, C), (B, K), (), () -> (B, H, W, C), (B, K)
    """Applies one mixing operation; on a CPU it is not even begun where it is off.

    There the branch is what keeps XLA from computing every earlier operation twice, once for an image and once for its
    partner: 215,000 instead of 65,000 images of 32x32x3 per CPU-second for pad_crop, flip and mixup. On other platforms
    a branch would wait for the device to say which way to go.
    """

    def branch(images, target, key, alpha):
        return jax.lax.cond(alpha > 0, change, keep_batch, images, target, key, alpha)

    return jax.lax.platform_dependent(images, target, key, alpha, cpu=branch, default=change)


def keep_batch(images: jax.Array, target: jax.Array, *_) -> tuple[jax.Array, jax.Array]:
    """Returns the batch as it is."""
    return images, target


def mixup(
    images: jax.Array, target: jax.Array, key: jax.Array, alpha: jax.Array
) -> tuple[jax.Array, jax.Array]:  # (B, H, W, C), (B, K), (), () -> (B, H, W, C), (B, K)
    """Adds each image to a partner: w of the image and 1 - w of the partner, w from Beta(alpha, alpha).

    Zhang et al., arXiv:1710.09412, section 2.
    """
    weight_key, partner_key = jax.random.split(key)
    partners = jax.random.permutation(partner_key, len(images))
    weight = draw_weight(weight_key, alpha)
    return weighted_sum(images, images[partners], weight), weighted_sum(target, target[partners], weight)


def cutmix(
    images: jax.Array, target: jax.Array, key: jax.Array, alpha: jax.Array
) -> tuple[jax.Array, jax.Array]:  # (B, H, W, C), (B, K), (), () -> (B, H, W, C), (B, K)
    """Replaces a box of each image by a partner's, about 1 - w of the area, w from Beta(alpha, alpha).

    The box has the image's proportions and its center anywhere; what sticks out is cut off. Labels are mixed by the
    pixels really replaced. Yun et al., arXiv:1905.04899, section 3.1; one box for the batch, as in its published code.
    """
    weight_key, partner_key, box_key = jax.random.split(key, 3)
    partners = jax.random.permutation(partner_key, len(images))
    box = cutmix_box(images.shape[1], images.shape[2], box_key, draw_weight(weight_key, alpha))
    unchanged_share = 1 - box.mean(dtype=jnp.float32)
    mixed_images = jnp.where(box[..., None], images[partners], images)
    return mixed_images, weighted_sum(target, target[partners], unchanged_share)


def draw_weight(key: jax.Array, alpha: jax.Array) -> jax.Array:
    """Draws a weight in 0..1 from Beta(alpha, alpha); 1 where alpha is 0."""
    strength = jnp.asarray(alpha, jnp.float32)
    positive = jnp.where(strength > 0, strength, 1)  # both sides of the next `where` are computed: 0 would give NaN
    return jnp.where(strength > 0, jax.random.beta(key, positive, positive), 1)


def cutmix_box(height: int, width: int, key: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns a mask (H, W), True in a box of about 1 - `weight` of the area around a pixel drawn evenly."""
    box_height = jnp.floor(height * jnp.sqrt(1 - weight)).astype(jnp.int32)
    box_width = jnp.floor(width * jnp.sqrt(1 - weight)).astype(jnp.int32)
    row, column = jax.random.randint(key, (2,), 0, jnp.array([height, width]))
    return box_mask(height, width, row - box_height // 2, column - box_width // 2, box_height, box_width)


def weighted_sum(first: jax.Array, second: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns `weight` times the first and 1 - `weight` times the second."""
    return weight * first + (1 - weight) * second
