"""Operations that change the values of pixels: brightness, contrast, saturation, a hole; drawn anew for each image.

Each operation takes one image (H, W, C), float32 in 0..1, the image's own key and its numbers, and returns an image of
the same shape, within 0..1; `augment` maps it over the rows of a batch. Where the image stands on a larger canvas,
`mask` (H, W) is True on its pixels and the canvas is black elsewhere; what an operation writes there does not count.
"""

import jax
import jax.numpy as jnp
import numpy as np

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # shares of red, green and blue in brightness: ITU-R BT.601
HOLE_RATIO = 0.3  # height to width of the widest hole, inverted of the tallest: arXiv:1708.04896, section 4


def jitter(
    image: jax.Array,
    key: jax.Array,
    brightness: jax.Array,
    contrast: jax.Array,
    saturation: jax.Array,
    *,
    mask: jax.Array | None = None,
) -> jax.Array:  # (H, W, C), (), (), (), () -> (H, W, C)
    """Changes brightness, then contrast, then saturation, each by a factor even in 1 - strength to 1 + strength.

    After each of the three, values are cut to 0..1. A gray image has no saturation to change. (torchvision's
    ColorJitter draws the order too.)
    """
    factors = 1 + jax.random.uniform(key, (3,), minval=-1.0, maxval=1.0) * jnp.stack([brightness, contrast, saturation])
    image = blend(image, jnp.zeros((), image.dtype), factors[0])
    # The canvas around the image is black and adds nothing to the sum, so that only its area must be left out.
    mean_level = gray(image).mean() if mask is None else gray(image).sum() / mask.sum(dtype=image.dtype)
    image = blend(image, mean_level, factors[1])
    return blend(image, gray(image), factors[2])


def erase(
    image: jax.Array,
    key: jax.Array,
    probability: jax.Array,
    min_area: jax.Array,
    max_area: jax.Array,
    *,
    mask: jax.Array | None = None,
) -> jax.Array:  # (H, W, C), (), (), (), () -> (H, W, C)
    """Blackens a random box, in a share `probability` of the images: random erasing, Zhong et al., arXiv:1708.04896.

    The box has a share of the area drawn evenly from `min_area` to `max_area`; a height-to-width ratio from 0.3 to
    1/0.3, even in its logarithm; sides rounded to whole pixels and at most the image's; and an even place wholly
    inside. Departs from the paper, whose holes are random values and whose boxes that do not fit are drawn again.
    """
    height: jax.Array | int = image.shape[0] if mask is None else mask.any(1).sum()
    width: jax.Array | int = image.shape[1] if mask is None else mask.any(0).sum()
    erase_key, area_key, ratio_key, row_key, column_key = jax.random.split(key, 5)
    area = jax.random.uniform(area_key, minval=min_area, maxval=max_area) * jnp.asarray(height * width, jnp.float32)
    ratio = jnp.exp(jax.random.uniform(ratio_key, minval=-1.0, maxval=1.0) * np.float32(np.log(1 / HOLE_RATIO)))
    hole_height = round_side(jnp.sqrt(area * ratio), height)
    hole_width = round_side(jnp.sqrt(area / ratio), width)
    top = jax.random.randint(row_key, (), 0, height - hole_height + 1)
    left = jax.random.randint(column_key, (), 0, width - hole_width + 1)
    hole = box_mask(image.shape[0], image.shape[1], top, left, hole_height, hole_width)
    # A hole of no pixel, rather than a branch: under vmap both sides of a branch would be computed anyway.
    hole = hole & jax.random.bernoulli(erase_key, probability)
    return jnp.where(hole[..., None], jnp.zeros((), image.dtype), image)


def box_mask(
    height: int, width: int, top: jax.Array, left: jax.Array, box_height: jax.Array, box_width: jax.Array
) -> jax.Array:  # -> (H, W)
    """Returns a mask of an image that is True inside a box of whole pixels; the box may stick out of the image."""
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    return (rows >= top) & (rows < top + box_height) & (columns >= left) & (columns < left + box_width)


def round_side(side: jax.Array, longest: jax.Array | int) -> jax.Array:
    """Rounds a side to whole pixels, from 1 to `longest`."""
    return jnp.clip(jnp.round(side), 1, jnp.asarray(longest, side.dtype)).astype(jnp.int32)


def gray(image: jax.Array) -> jax.Array:  # (H, W, C) -> (H, W, 1)
    """Returns each pixel's brightness: red, green and blue weighted as by the eye; of other channels, their mean."""
    if image.shape[-1] != len(LUMA):
        return image.mean(-1, keepdims=True)
    return (image * LUMA).sum(-1, keepdims=True)


def blend(image: jax.Array, reference: jax.Array, factor: jax.Array) -> jax.Array:
    """Moves an image from `reference` (factor 0) through itself (factor 1) to beyond (above 1), cut to 0..1."""
    return jnp.clip(image * factor + reference * (1 - factor), 0, 1)
