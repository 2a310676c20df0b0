"""Images of several sizes in one batch: each in the top left corner of its image, with a mask of its own pixels.

What a mask leaves out counts as the zeros around an image. Padding is said in pixels before and after each side, never
by the size of the image, so a window reads in the corner of a larger image what it reads in the image alone, at any
stride. A layer behind it gets the mask of the places that the image alone has.
"""

import jax
import jax.numpy as jnp
import numpy as np

from cnn_vit.nn.windows import IntOrPair, Padding, height_and_width, normalize_padding, output_size


def apply_mask(x: jax.Array, mask: jax.Array) -> jax.Array:  # (B, ..., C), (B, ...) -> (B, ..., C)
    """What the mask keeps, and 0 elsewhere, whatever stood there."""
    return jnp.where(mask[..., None], x, jnp.zeros((), x.dtype))


def slide_mask(
    mask: jax.Array, size: IntOrPair, *, stride: IntOrPair, padding: Padding
) -> jax.Array:  # (B, H, W) -> (B, Y, X)
    """The places of a sliding window that each image alone would have: floor((side + padding - size) / stride) + 1.

    Args:
        mask: True on an image's pixels, a whole rectangle from the top left corner on.
        size: side of the window in pixels, or (height, width).
        stride: pixels between two places, one number or (down, right).
        padding: pixels around an image, one number or ((top, bottom), (left, right)).
    """
    each = zip(
        height_and_width(size, "size"), height_and_width(stride, "stride"), normalize_padding(padding), strict=True
    )
    for axis, (side, step, pair) in enumerate(each, start=1):
        first = np.arange(output_size(mask.shape[axis], side, stride=step, padding=pair)) * step
        needed = np.maximum(first + side - 1 - sum(pair), 0)  # the least last pixel of an image with this place
        mask = jnp.take(mask, needed, axis=axis, mode="clip")
    return mask


def masked_mean(x: jax.Array, mask: jax.Array) -> jax.Array:  # (B, ..., C), (B, ...) -> (B, C)
    """The mean over what the mask keeps, pixels or tokens, summed in float32; 0 where it keeps nothing."""
    axes = tuple(range(1, mask.ndim))
    sums = apply_mask(x, mask).astype(jnp.float32).sum(axes)  # (B, C)
    counts = mask.sum(axes, dtype=jnp.float32)[:, None]  # (B, 1)
    return (sums / jnp.maximum(counts, 1)).astype(x.dtype)
