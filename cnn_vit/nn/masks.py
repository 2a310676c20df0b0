"""Images of several sizes in one batch: each image lies in the top left corner of a padded image, and a mask marks it.

The surroundings of an image count as the zeros that a layer pads an image with. Layers pad by pixels before and after
each side, never by an amount that depends on the image's size. So a window reads in the corner of a padded image what
it reads in the image alone, at any stride. The next layer gets the mask of the pixels that the image alone would have.
"""

import jax
import jax.numpy as jnp
import numpy as np

from cnn_vit.nn.windows import IntOrPair, Padding, height_and_width, normalize_padding, output_size


def apply_mask(x: jax.Array, mask: jax.Array) -> jax.Array:  # (B, ..., C), (B, ...) -> (B, ..., C)
    """Keeps x where the mask is True, and puts 0 elsewhere, even in place of NaN."""
    return jnp.where(mask[..., None], x, jnp.zeros((), x.dtype))


def slide_mask(
    mask: jax.Array, size: IntOrPair, *, stride: IntOrPair, padding: Padding
) -> jax.Array:  # (B, H, W) -> (B, Y, X)
    """Returns the mask of the pixels that a sliding window would give for each image alone.

    An image's side becomes floor((side + padding - size) / stride) + 1 pixels.

    Args:
        mask: True on an image's pixels, a whole rectangle from the top left corner on.
        size: side of the window in pixels, or (height, width).
        stride: pixels from one window to the next, one number or (down, right).
        padding: pixels around an image, one number or ((top, bottom), (left, right)).
    """
    window_sides = height_and_width(size, "size")
    strides = height_and_width(stride, "stride")
    paddings = normalize_padding(padding)
    for i in (0, 1):
        window, step, pair = window_sides[i], strides[i], paddings[i]
        first_pixels = np.arange(output_size(mask.shape[1 + i], window, stride=step, padding=pair)) * step
        # An image alone has a window if its own last pixel lies here or beyond; padding fills the rest of the window.
        last_needed = np.maximum(first_pixels + window - 1 - sum(pair), 0)
        mask = jnp.take(mask, last_needed, axis=1 + i, mode="clip")
    return mask


def masked_mean(x: jax.Array, mask: jax.Array) -> jax.Array:  # (B, ..., C), (B, ...) -> (B, C)
    """Returns the mean over the pixels or tokens that a mask keeps, summed in float32; 0 where it keeps none."""
    axes = tuple(range(1, mask.ndim))
    sums = apply_mask(x, mask).astype(jnp.float32).sum(axes)  # (B, C)
    counts = mask.sum(axes, dtype=jnp.float32)[:, None]  # (B, 1)
    return (sums / jnp.maximum(counts, 1)).astype(x.dtype)
