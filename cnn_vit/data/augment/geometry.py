"""Operations that move pixels: crops, shifts, turns and mirror images, drawn anew for each image.

Each operation takes one image (H, W, C), float32 in 0..1, the image's own key and its numbers, and returns an image of
the same shape; `augment` maps it over the rows of a batch. Pixels that come from outside the image are black (0). Where
the image stands in the top left corner of a larger canvas, it is changed as if it were alone: `mask` (H, W) is True on
its pixels, and the canvas is black elsewhere; what an operation writes there does not count.

Reading between pixels is bilinear: four pixels are fetched, each with a tent's weight. The other form, a product with
a matrix of tent weights for each axis, gives the same numbers; it was never the faster one on a CPU (thousands of
images per CPU-second, jaxlib 0.10.2, two cores; side in pixels, colors in brackets):

    side                    8 (1)   16 (3)   28 (1)   32 (3)   64 (3)
    rotation  fetched         964      526      256      197       54
              products        545       51       19        5        -
    shift     fetched         984      480      322      218       65
              products        765      302      279      107       16
"""

import jax
import jax.numpy as jnp

BOX_RATIO = 4 / 3  # of the sides of resized_crop's boxes, wide or high, at most: Szegedy et al., arXiv:1409.4842


def pad_crop(
    image: jax.Array, key: jax.Array, pixels: jax.Array, *, mask: jax.Array | None = None
) -> jax.Array:  # (H, W, C), (), () -> (H, W, C)
    """Adds a black border of `pixels` on every side, then cuts out the old size at a random whole pixel.

    He et al., arXiv:1512.03385, section 4.2.
    """
    border = jnp.asarray(pixels, jnp.int32)
    down, right = jax.random.randint(key, (2,), -border, border + 1)
    return roll(image, down, right)


def shift(
    image: jax.Array, key: jax.Array, pixels: jax.Array, *, mask: jax.Array | None = None
) -> jax.Array:  # (H, W, C), (), () -> (H, W, C)
    """Moves an image by up to `pixels` along each axis, evenly distributed, fractions of a pixel included."""
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
    """Turns, resizes and moves an image at once; all draws are even and independent.

    Args:
        image: the image, in 0..1.
        key: the random key of this image.
        degrees: the largest turn about the center, either way.
        shift: the largest move along each axis, in pixels.
        scale: the size changes by a factor from 1 / (1 + scale) to 1 + scale, even in its logarithm.
        mask: True on the image's own pixels.
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
    # On a canvas the image ends before the last column; the columns behind its width come out negative and are clipped.
    mirrored = columns[::-1] if mask is None else mask.any(0).sum() - 1 - columns
    return jnp.take(image, jnp.where(jax.random.bernoulli(key), mirrored, columns), axis=1, mode="clip")


def resized_crop(
    image: jax.Array, key: jax.Array, min_area: jax.Array, max_area: jax.Array, *, mask: jax.Array | None = None
) -> jax.Array:  # (H, W, C), (), (), () -> (H, W, C)
    """Brings a random box of the image to the whole size.

    The box has a share of the area drawn evenly from `min_area` to `max_area`; a width-to-height ratio in pixels from
    3/4 to 4/3, even in its logarithm; and an even place. All are real numbers. Only ratios whose box fits are drawn, so
    that none is tried again (torchvision's whole-pixel boxes are drawn again and again, which favors small areas).
    Pixels at the image's edge stand for those beyond.

    Source: Szegedy et al., arXiv:1409.4842, section 6.
    """
    height, width = image_sides(image, mask)
    area_key, ratio_key, place_key = jax.random.split(key, 3)
    area = jax.random.uniform(area_key, minval=min_area, maxval=max_area)
    limit = jnp.log(BOX_RATIO)
    narrowest = jnp.clip(jnp.log(area * width / height), -limit, limit)  # logarithm of the ratio: as high as the image
    widest = jnp.clip(jnp.log(width / (area * height)), -limit, limit)  # as wide as the image
    # Rounding may put `widest` a hair below `narrowest` where one ratio alone fits.
    ratio = jnp.exp(jax.random.uniform(ratio_key, minval=narrowest, maxval=jnp.maximum(narrowest, widest)))
    box_height = jnp.minimum(jnp.sqrt(area * width / (height * ratio)), 1)  # shares of the image's sides
    box_width = jnp.minimum(jnp.sqrt(area * height * ratio / width), 1)
    down, right = jax.random.uniform(place_key, (2,))
    top, left = down * (1 - box_height), right * (1 - box_width)
    return zoom(image, top=top, left=left, box_height=box_height, box_width=box_width, mask=mask)


def image_sides(image: jax.Array, mask: jax.Array | None) -> tuple[jax.Array | int, jax.Array | int]:
    """Returns height and width of the image: those of the array, or on a canvas those of the mask, as floats."""
    if mask is None:
        return image.shape[0], image.shape[1]
    return mask.any(1).sum(dtype=jnp.float32), mask.any(0).sum(dtype=jnp.float32)


def roll(image: jax.Array, down: jax.Array, right: jax.Array) -> jax.Array:  # (H, W, C), (), () -> (H, W, C)
    """Moves an image by whole pixels; black comes in from outside."""
    height, width, _ = image.shape
    rows, columns = jnp.arange(height) - down, jnp.arange(width) - right  # that each new pixel is read at
    inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
    moved = jnp.take(jnp.take(image, rows, axis=0, mode="clip"), columns, axis=1, mode="clip")
    return jnp.where(inside[..., None], moved, jnp.zeros((), image.dtype))


def transform(
    image: jax.Array,
    *,
    angle: jax.Array | float = 0.0,
    scale: jax.Array | float = 1.0,
    down: jax.Array | float = 0.0,
    right: jax.Array | float = 0.0,
    mask: jax.Array | None = None,
) -> jax.Array:  # (H, W, C) -> (H, W, C)
    """Turns an image about its center (radians, counterclockwise), enlarges it by `scale`, then moves it (pixels).

    Each new pixel is read where the inverse of these changes puts it: it is moved back, then turned back and shrunk.
    """
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
    box_height: jax.Array,
    box_width: jax.Array,
    mask: jax.Array | None = None,
) -> jax.Array:  # (H, W, C) -> (H, W, C)
    """Brings a box of the image to the whole size; the box's place and sides are shares of the image's sides."""
    height, width = image_sides(image, mask)
    y = (top + box_height * pixel_centers(image.shape[0], height)) * height - 0.5
    x = (left + box_width * pixel_centers(image.shape[1], width)) * width - 0.5
    y, x = jnp.clip(y, 0, height - 1), jnp.clip(x, 0, width - 1)  # the edge stands for what lies beyond
    return sample_bilinear(image, *jnp.broadcast_arrays(y[:, None], x[None, :]))


def pixel_centers(count: int, side: jax.Array | int) -> jax.Array:
    """Returns the centers of `count` pixels as shares of a side, (count,): 1/4 and 3/4 for two pixels of two."""
    return (jnp.arange(count, dtype=jnp.float32) + 0.5) / side


def sample_bilinear(
    image: jax.Array, y: jax.Array, x: jax.Array
) -> jax.Array:  # (H, W, C), (Y, X), (Y, X) -> (Y, X, C)
    """Reads an image between its pixels: four neighbors, each weighing (1 - distance) along both axes; black outside.

    Args:
        image: of any float dtype.
        y: rows to read at, in pixels; 0 is the center of the first row.
        x: columns to read at, likewise.
    """
    height, width, channels = image.shape
    flat = image.reshape(height * width, channels)
    total = jnp.zeros((), image.dtype)
    # The four neighbors: the pixel above and below, each with the one to the left and to the right.
    for row in (jnp.floor(y), jnp.floor(y) + 1):
        for column in (jnp.floor(x), jnp.floor(x) + 1):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            weight = jnp.where(inside, (1 - jnp.abs(y - row)) * (1 - jnp.abs(x - column)), 0)
            index = clip_indices(row, height) * width + clip_indices(column, width)
            total = total + weight[..., None] * jnp.take(flat, index, axis=0, mode="clip")
    return total


def clip_indices(positions: jax.Array, size: int) -> jax.Array:
    """Returns whole positions as integers, those outside moved to the nearest of 0 to size - 1."""
    return jnp.clip(positions, 0, size - 1).astype(jnp.int32)
