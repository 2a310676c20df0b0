"""What the pixels of an image hold: brightness, contrast, saturation, a hole; drawn anew for each image.

Each operation takes one image (H, W, C), float32 in 0..1, the image's own key and its numbers, and gives an image of
the same shape, within 0..1; `augment` maps it over the rows of a batch. `mask` (H, W) is True on the pixels of a
image that is smaller than its image, which is black elsewhere; what is written there does not count.
"""

import jax
import jax.numpy as jnp
import numpy as np

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # shares of red, green and blue in brightness: ITU-R BT.601
ASPECT = 0.3  # narrowest and, inverted, widest hole: Zhong et al., arXiv:1708.04896, section 4


def jitter(
    image: jax.Array,
    key: jax.Array,
    brightness: jax.Array,
    contrast: jax.Array,
    saturation: jax.Array,
    *,
    mask: jax.Array | None = None,
) -> jax.Array:  # (H, W, C), (), (), (), () -> (H, W, C)
    """Brightness, then contrast, then saturation, each by a factor drawn evenly from 1 - strength to 1 + strength.

    After each step values are cut to 0..1. A gray image has no saturation to change. (torchvision's ColorJitter draws
    the order too.)
    """
    factors = 1 + jax.random.uniform(key, (3,), minval=-1.0, maxval=1.0) * jnp.stack([brightness, contrast, saturation])
    image = blend(image, jnp.zeros((), image.dtype), factors[0])
    level = gray(image).mean() if mask is None else gray(image).sum() / mask.sum(dtype=image.dtype)
    image = blend(image, level, factors[1])
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

    The box has an even share of the area from `min_area` to `max_area`, a height-to-width ratio from 0.3 to 1/0.3, even
    in its logarithm, sides rounded to whole pixels and at most the image's, and an even place wholly inside. Departs
    from the paper, whose holes are random values and whose boxes that do not fit are drawn again.
    """
    height: jax.Array | int = image.shape[0] if mask is None else mask.any(1).sum()
    width: jax.Array | int = image.shape[1] if mask is None else mask.any(0).sum()
    whether, areas, ratios, rows, columns = jax.random.split(key, 5)
    area = jax.random.uniform(areas, minval=min_area, maxval=max_area) * jnp.asarray(height * width, jnp.float32)
    ratio = jnp.exp(jax.random.uniform(ratios, minval=-1.0, maxval=1.0) * np.float32(np.log(1 / ASPECT)))
    tall = round_side(jnp.sqrt(area * ratio), height)
    wide = round_side(jnp.sqrt(area / ratio), width)
    top = jax.random.randint(rows, (), 0, height - tall + 1)
    left = jax.random.randint(columns, (), 0, width - wide + 1)
    hole = box_mask(image.shape[0], image.shape[1], top, left, tall, wide) & jax.random.bernoulli(whether, probability)
    return jnp.where(hole[..., None], jnp.zeros((), image.dtype), image)


def box_mask(
    height: int, width: int, top: jax.Array, left: jax.Array, tall: jax.Array, wide: jax.Array
) -> jax.Array:  # -> (H, W)
    """True inside a box of whole pixels, whose place may lie outside the image."""
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    return (rows >= top) & (rows < top + tall) & (columns >= left) & (columns < left + wide)


def round_side(side: jax.Array, most: jax.Array | int) -> jax.Array:
    """A side rounded to whole pixels, from 1 to `most`."""
    return jnp.clip(jnp.round(side), 1, jnp.asarray(most, side.dtype)).astype(jnp.int32)


def gray(image: jax.Array) -> jax.Array:  # (H, W, C) -> (H, W, 1)
    """Brightness of each pixel: by the eye's weights of red, green and blue, else the mean of the channels."""
    if image.shape[-1] != len(LUMA):
        return image.mean(-1, keepdims=True)
    return (image * LUMA).sum(-1, keepdims=True)


def blend(image: jax.Array, other: jax.Array, factor: jax.Array) -> jax.Array:
    """Moves an image from `other` (factor 0) over itself (1) to beyond (above 1), cut to 0..1."""
    return jnp.clip(image * factor + other * (1 - factor), 0, 1)
