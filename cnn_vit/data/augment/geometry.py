"""Where the pixels of an image go: crops, shifts, turns and mirror images, drawn anew for each image.

Each operation takes one image (H, W, C), float32 in 0..1, the image's own key and its numbers, and gives an image of
the same shape; `augment` maps it over the rows of a batch. Pixels that come from outside the image are black (0).
Where an image is smaller than its image it lies in the top left corner, and is changed as if it were alone: `mask`
(H, W) is True on its pixels, and the others are black. What is written there does not count.

Reading between pixels is bilinear: four pixels are fetched, each with a tent's weight. The other form, a product with
a matrix of tent weights for each axis, gives the same numbers; it was never the faster on a CPU (thousands of images
per CPU-second, jaxlib 0.10.2, two cores; colors in brackets):

    side          8 (1)   16 (3)   28 (1)   32 (3)   64 (3)
    rotation      fetched     964      526      256      197       54
                  products    545       51       19        5        -
    shift         fetched     984      480      322      218       65
                  products    765      302      279      107       16
"""

import jax
import jax.numpy as jnp

ASPECT = 4 / 3  # of resized_crop's boxes, at most this wide and at most this high: Szegedy et al., arXiv:1409.4842


def pad_crop(
    image: jax.Array, key: jax.Array, pixels: jax.Array, *, mask: jax.Array | None = None
) -> jax.Array:  # (H, W, C), (), () -> (H, W, C)
    """A black border of `pixels` on every side, then a crop of the old size at a random whole pixel.

    He et al., arXiv:1512.03385, section 4.2.
    """
    most = jnp.asarray(pixels, jnp.int32)
    down, right = jax.random.randint(key, (2,), -most, most + 1)
    return roll(image, down, right)


def shift(
    image: jax.Array, key: jax.Array, pixels: jax.Array, *, mask: jax.Array | None = None
) -> jax.Array:  # (H, W, C), (), () -> (H, W, C)
    """Moves an image by up to `pixels` along each axis, fractions of a pixel included, evenly distributed."""
    down, right = jax.random.uniform(key, (2,), minval=-pixels, maxval=pixels)
    return transform(image, down=down, right=right)


def rotate(
    image: jax.Array, key: jax.Array, degrees: jax.Array, *, mask: jax.Array | None = None
) -> jax.Array:  # (H, W, C), (), () -> (H, W, C)
    """Turns an image about its center by up to `degrees` either way, evenly distributed."""
    return transform(image, angle=jnp.deg2rad(jax.random.uniform(key, minval=-degrees, maxval=degrees)), mask=mask)


def affine(
    image: jax.Array,
    key: jax.Array,
    degrees: jax.Array,
    shift: jax.Array,
    scale: jax.Array,
    *,
    mask: jax.Array | None = None,
) -> jax.Array:  # (H, W, C), (), (), (), () -> (H, W, C)
    """Turns, enlarges and moves an image at once; all draws are even and independent.

    Args:
        image: in 0..1.
        key: of this image.
        degrees: largest turn about the center, either way.
        shift: largest move along each axis, in pixels.
        scale: the size changes by a factor from 1 / (1 + scale) to 1 + scale, even in its logarithm.
        mask: of this image's pixels.
    """
    turn, size, down, right = jax.random.uniform(key, (4,), minval=-1.0, maxval=1.0)
    return transform(
        image,
        angle=jnp.deg2rad(turn * degrees),
        scale=jnp.exp(size * jnp.log1p(scale)),
        down=down * shift,
        right=right * shift,
        mask=mask,
    )


def flip(image: jax.Array, key: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:  # (H, W, C), () -> (H, W, C)
    """Mirrors left and right, for half of the images."""
    columns = jnp.arange(image.shape[1])
    mirrored = columns[::-1] if mask is None else mask.any(0).sum() - 1 - columns
    return jnp.take(image, jnp.where(jax.random.bernoulli(key), mirrored, columns), axis=1, mode="clip")


def resized_crop(
    image: jax.Array, key: jax.Array, min_area: jax.Array, max_area: jax.Array, *, mask: jax.Array | None = None
) -> jax.Array:  # (H, W, C), (), (), () -> (H, W, C)
    """A random box of the image, brought to the whole size.

    The box has an even share of the area from `min_area` to `max_area`, a width-to-height ratio in pixels from 3/4 to
    4/3, even in its logarithm, and an even place; all are real numbers. Only ratios whose box fits are drawn, so none
    is tried again (torchvision's whole-pixel boxes are drawn again and again, which favors small areas). Pixels at the
    image's edge stand for those beyond.

    Source: Szegedy et al., arXiv:1409.4842, section 6.
    """
    height, width = image_sides(image, mask)
    areas, ratios, places = jax.random.split(key, 3)
    area = jax.random.uniform(areas, minval=min_area, maxval=max_area)
    limit = jnp.log(ASPECT)
    narrowest = jnp.clip(jnp.log(area * width / height), -limit, limit)  # the box as high as the image
    widest = jnp.clip(jnp.log(width / (area * height)), -limit, limit)
    ratio = jnp.exp(jax.random.uniform(ratios, minval=narrowest, maxval=jnp.maximum(narrowest, widest)))
    tall = jnp.minimum(jnp.sqrt(area * width / (height * ratio)), 1)  # shares of the image's sides
    wide = jnp.minimum(jnp.sqrt(area * height * ratio / width), 1)
    down, right = jax.random.uniform(places, (2,))
    return zoom(image, top=down * (1 - tall), left=right * (1 - wide), tall=tall, wide=wide, mask=mask)


def image_sides(image: jax.Array, mask: jax.Array | None) -> tuple[jax.Array | int, jax.Array | int]:
    """Height and width of the image in an image: the whole of it, or where its mask is True, as floats."""
    if mask is None:
        return image.shape[0], image.shape[1]
    return mask.any(1).sum(dtype=jnp.float32), mask.any(0).sum(dtype=jnp.float32)


def roll(image: jax.Array, down: jax.Array, right: jax.Array) -> jax.Array:  # (H, W, C), (), () -> (H, W, C)
    """The image moved by whole pixels, black where nothing came from."""
    height, width, _ = image.shape
    rows, columns = jnp.arange(height) - down, jnp.arange(width) - right
    inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
    read = jnp.take(jnp.take(image, rows, axis=0, mode="clip"), columns, axis=1, mode="clip")
    return jnp.where(inside[..., None], read, jnp.zeros((), image.dtype))


def transform(
    image: jax.Array,
    *,
    angle: jax.Array | float = 0.0,
    scale: jax.Array | float = 1.0,
    down: jax.Array | float = 0.0,
    right: jax.Array | float = 0.0,
    mask: jax.Array | None = None,
) -> jax.Array:  # (H, W, C) -> (H, W, C)
    """The image turned about its center (radians, counterclockwise), enlarged by `scale`, then moved (pixels)."""
    height, width = image_sides(image, mask)
    y = jnp.arange(image.shape[0], dtype=jnp.float32)[:, None] - ((height - 1) / 2 + down)
    x = jnp.arange(image.shape[1], dtype=jnp.float32)[None, :] - ((width - 1) / 2 + right)
    cosine, sine = jnp.cos(angle) / scale, jnp.sin(angle) / scale
    return sample_bilinear(image, cosine * y + sine * x + (height - 1) / 2, cosine * x - sine * y + (width - 1) / 2)


def zoom(
    image: jax.Array,
    *,
    top: jax.Array,
    left: jax.Array,
    tall: jax.Array,
    wide: jax.Array,
    mask: jax.Array | None = None,
) -> jax.Array:  # (H, W, C) -> (H, W, C)
    """A box of the image brought to the whole size; its place and its sides are shares of the image's sides."""
    height, width = image_sides(image, mask)
    y = (top + tall * pixel_centers(image.shape[0], height)) * height - 0.5
    x = (left + wide * pixel_centers(image.shape[1], width)) * width - 0.5
    y, x = jnp.clip(y, 0, height - 1), jnp.clip(x, 0, width - 1)
    return sample_bilinear(image, *jnp.broadcast_arrays(y[:, None], x[None, :]))


def pixel_centers(count: int, side: jax.Array | int) -> jax.Array:
    """Centers of `count` pixels as shares of a side, (count,): 1/4 and 3/4 for two of two."""
    return (jnp.arange(count, dtype=jnp.float32) + 0.5) / side


def sample_bilinear(
    image: jax.Array, y: jax.Array, x: jax.Array
) -> jax.Array:  # (H, W, C), (Y, X), (Y, X) -> (Y, X, C)
    """Reads an image between its pixels: four neighbors, each weighing (1 - distance) along both axes; black outside.

    Args:
        image: any float.
        y: rows to read at; 0 is the center of the first.
        x: columns to read at.
    """
    height, width, channels = image.shape
    flat = image.reshape(height * width, channels)
    total = jnp.zeros((), image.dtype)
    for row in (jnp.floor(y), jnp.floor(y) + 1):
        for column in (jnp.floor(x), jnp.floor(x) + 1):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            weight = jnp.where(inside, (1 - jnp.abs(y - row)) * (1 - jnp.abs(x - column)), 0)
            place = clip_indices(row, height) * width + clip_indices(column, width)
            total = total + weight[..., None] * jnp.take(flat, place, axis=0, mode="clip")
    return total


def clip_indices(place: jax.Array, size: int) -> jax.Array:
    """Whole places as integers from 0 to size - 1."""
    return jnp.clip(place, 0, size - 1).astype(jnp.int32)
