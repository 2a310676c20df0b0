"""RandAugment and TrivialAugment: for each image, operations drawn evenly from one list of fourteen.

RandAugment: Cubuk et al., arXiv:1909.13719: `count` operations one after the other, all of one magnitude, 0 to 10.
TrivialAugment: Müller and Hutter, arXiv:2103.10158, its wide ranges: one operation, its strength drawn evenly from 31
steps. In the table s is magnitude / 10, or step / 30; the sign is drawn too.

    operation        RandAugment                      TrivialAugment
    identity         the image as it is             the same
    autocontrast     each channel stretched to 0..1   the same
    equalize         each channel's histogram flat    the same
    rotate           +- 30 s degrees                  +- 135 s degrees
    shear_x shear_y  +- 0.3 s, about the corner       +- 0.99 s
    move_x move_y    +- 150/331 s of the side         +- 32 s pixels
    posterize        8 - 4 s bits kept, rounded       8 - 6 s
    solarize         levels from 256 - 256 s turned   the same
    color contrast   a factor of 1 +- 0.9 s           1 +- 0.99 s
    brightness sharpness, as color

Beyond magnitude 10, which the first paper uses for large networks, ranges go on, but a bit is kept and no factor is
below 0. Departs from the published programs: strength grows with s everywhere (RandAugment's posterizes and solarizes
least at the highest magnitude; the factors of both run from 0.1 to 1.9, or 0.01 to 2, with nothing changed in the
middle); bits are rounded, degrees and moves are no whole numbers; pixels are read bilinearly, not the nearest; a gray
image has no color to change. What comes in from outside is gray, 128 of 255, as in RandAugment's; TrivialAugment's is
black. Not the list of big_vision, which has no identity, has invert, cutout and solarize-add besides, and whose
contrast blends with (number of pixels / 256) instead of the mean level.

On a CPU the rows are done one by one, so that each runs only its own operation: thousands of images of 32x32x3 per
CPU-second (jaxlib 0.10.2), randaugment(2) 23 against 1.2 with all rows at once, where every row computes all fourteen.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cnn_vit.data.augment import color as pixels
from cnn_vit.data.augment import geometry

OUTSIDE = 128 / 255  # gray that comes in from outside
STEPS = 30  # of TrivialAugment's strengths, and 0
LEVELS = 256


class Ranges(NamedTuple):
    """How far each operation goes at strength 1.

    Attributes:
        degrees: of a turn.
        shear: pixels along one axis for each along the other.
        share: of a side, that a move goes.
        pixels: that a move goes as well.
        bits: that are lost.
        factor: by which a factor leaves 1.
    """

    degrees: float
    shear: float
    share: float
    pixels: float
    bits: float
    factor: float


NARROW = Ranges(degrees=30, shear=0.3, share=150 / 331, pixels=0, bits=4, factor=0.9)
WIDE = Ranges(degrees=135, shear=0.99, share=0, pixels=32, bits=6, factor=0.99)


def randaugment(
    images: jax.Array, keys: jax.Array, count: jax.Array, magnitude: jax.Array
) -> jax.Array:  # (B, H, W, C), (B,), (), () -> (B, H, W, C)
    """`count` operations in turn for each image, of strength magnitude / 10."""
    times, strength = jnp.asarray(count, jnp.int32), jnp.asarray(magnitude, jnp.float32) / 10

    def one(image, key):
        return jax.lax.fori_loop(
            0,
            times,
            lambda at, image: apply_random_operation(image, jax.random.fold_in(key, at), strength, NARROW),
            image,
        )

    return change_rows(one, images, keys)


def trivialaugment(images: jax.Array, keys: jax.Array) -> jax.Array:  # (B, H, W, C), (B,) -> (B, H, W, C)
    """One operation for each image, of a strength drawn evenly from 0, 1/30 ... 1."""

    def one(image, key):
        which, steps = jax.random.split(key)
        strength = jax.random.randint(steps, (), 0, STEPS + 1).astype(jnp.float32) / STEPS
        return apply_random_operation(image, which, strength, WIDE)

    return change_rows(one, images, keys)


def change_rows(one: Callable, images: jax.Array, keys: jax.Array) -> jax.Array:
    """Changes every row by itself: in turn on a CPU, all at once elsewhere."""

    def in_turn(images, keys):
        return jax.lax.map(lambda row: one(*row), (images, keys))

    return jax.lax.platform_dependent(images, keys, cpu=in_turn, default=jax.vmap(one))


def apply_random_operation(
    image: jax.Array, key: jax.Array, strength: jax.Array, ranges: Ranges
) -> jax.Array:  # (H, W, C) -> (H, W, C)
    """One operation of the list, either sign of its strength."""
    which, signs = jax.random.split(key)
    signed = jnp.where(jax.random.bernoulli(signs), strength, -strength)
    branches = [partial(change, ranges=ranges) for change in CHANGES.values()]
    return jax.lax.switch(jax.random.randint(which, (), 0, len(branches)), branches, image, signed)


# The fourteen: (image (H, W, C) float32 in 0..1, signed strength, ranges) -> image


def identity(image: jax.Array, signed: jax.Array, ranges: Ranges) -> jax.Array:
    """The image as it is."""
    return image


def autocontrast(image: jax.Array, signed: jax.Array, ranges: Ranges) -> jax.Array:
    """Each channel stretched from its darkest and brightest pixel to 0..1; one of a single level stays."""
    low, high = image.min((0, 1)), image.max((0, 1))
    wide = high - low >= 0.5 / 255
    return jnp.where(wide, jnp.clip((image - low) / jnp.where(wide, high - low, 1), 0, 1), image)


def equalize(image: jax.Array, signed: jax.Array, ranges: Ranges) -> jax.Array:
    """Each channel's histogram made flat, by the very whole numbers of Pillow's ImageOps.equalize."""
    return jax.vmap(equalize_channel, -1, -1)(to_levels(image)).astype(image.dtype) / 255


def equalize_channel(channel: jax.Array) -> jax.Array:  # (H, W) -> (H, W)
    """Levels of one channel, equalized."""
    counts = jnp.zeros(LEVELS, jnp.int32).at[channel].add(1)
    step = (channel.size - counts[channel.max()]) // 255
    before = jnp.cumsum(counts) - counts
    table = jnp.minimum((step // 2 + before) // jnp.maximum(step, 1), 255)
    return jnp.where(step > 0, table, jnp.arange(LEVELS))[channel]


def rotate(image: jax.Array, signed: jax.Array, ranges: Ranges) -> jax.Array:
    """A turn about the center."""
    return gray_outside(partial(geometry.transform, angle=jnp.deg2rad(signed * ranges.degrees)), image)


def shear_x(image: jax.Array, signed: jax.Array, ranges: Ranges) -> jax.Array:
    """Rows slid along, each further than the one above; the top left corner stays."""
    return gray_outside(partial(shear, across=signed * ranges.shear), image)


def shear_y(image: jax.Array, signed: jax.Array, ranges: Ranges) -> jax.Array:
    """Columns slid down, each further than the one before; the top left corner stays."""
    return gray_outside(partial(shear, along=signed * ranges.shear), image)


def move_x(image: jax.Array, signed: jax.Array, ranges: Ranges) -> jax.Array:
    """A move to the left or right."""
    return gray_outside(
        partial(geometry.transform, right=signed * (ranges.share * image.shape[1] + ranges.pixels)), image
    )


def move_y(image: jax.Array, signed: jax.Array, ranges: Ranges) -> jax.Array:
    """A move up or down."""
    return gray_outside(
        partial(geometry.transform, down=signed * (ranges.share * image.shape[0] + ranges.pixels)), image
    )


def posterize(image: jax.Array, signed: jax.Array, ranges: Ranges) -> jax.Array:
    """Only the highest bits of each level kept."""
    lost = jnp.clip(jnp.round(jnp.abs(signed) * ranges.bits), 0, 7).astype(jnp.int32)
    kept = jax.lax.shift_left(jax.lax.shift_right_logical(to_levels(image), lost), lost)
    return jnp.where(lost > 0, kept.astype(image.dtype) / 255, image)


def solarize(image: jax.Array, signed: jax.Array, ranges: Ranges) -> jax.Array:
    """Bright levels turned into their negative."""
    threshold = LEVELS - LEVELS * jnp.abs(signed)
    return jnp.where(to_levels(image).astype(image.dtype) >= threshold, 1 - image, image)


def color(image: jax.Array, signed: jax.Array, ranges: Ranges) -> jax.Array:
    """Between gray and more colorful than it is."""
    return pixels.blend(image, pixels.gray(image), blend_factor(signed, ranges))


def contrast(image: jax.Array, signed: jax.Array, ranges: Ranges) -> jax.Array:
    """Between the mean gray and more contrast than it has."""
    return pixels.blend(image, pixels.gray(image).mean(), blend_factor(signed, ranges))


def brightness(image: jax.Array, signed: jax.Array, ranges: Ranges) -> jax.Array:
    """Between black and twice as bright."""
    return pixels.blend(image, jnp.zeros((), image.dtype), blend_factor(signed, ranges))


def sharpness(image: jax.Array, signed: jax.Array, ranges: Ranges) -> jax.Array:
    """Between smoothed and sharpened: Pillow's filter SMOOTH, which leaves the edge."""
    height, width, _ = image.shape
    rows = image[:-2] + image[1:-1] + image[2:]
    smooth = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * image[1:-1, 1:-1]) / 13
    inside = pixels.box_mask(height, width, jnp.int32(1), jnp.int32(1), jnp.int32(height - 2), jnp.int32(width - 2))
    whole = jnp.pad(smooth, ((1, 1), (1, 1), (0, 0))) if min(height, width) > 2 else image
    return pixels.blend(image, jnp.where(inside[..., None], whole, image), blend_factor(signed, ranges))


def blend_factor(signed: jax.Array, ranges: Ranges) -> jax.Array:
    """What a blend is multiplied by; at least 0."""
    return jnp.maximum(1 + signed * ranges.factor, 0)


def to_levels(image: jax.Array) -> jax.Array:
    """Levels 0 to 255, int32."""
    return jnp.clip(jnp.round(image * 255), 0, 255).astype(jnp.int32)


def shear(
    image: jax.Array, *, across: jax.Array | float = 0.0, along: jax.Array | float = 0.0
) -> jax.Array:  # (H, W, C) -> (H, W, C)
    """Reads pixel (y, x) at (y + along x, x + across y), from the outer corner of the first pixel."""
    height, width, _ = image.shape
    y = jnp.arange(height, dtype=jnp.float32)[:, None] + 0.5
    x = jnp.arange(width, dtype=jnp.float32)[None, :] + 0.5
    return geometry.sample_bilinear(image, y + along * x - 0.5, x + across * y - 0.5)


def gray_outside(change: Callable[[jax.Array], jax.Array], image: jax.Array) -> jax.Array:
    """A change of place with gray instead of black outside."""
    return change(image - OUTSIDE) + OUTSIDE


CHANGES = {
    "identity": identity, "autocontrast": autocontrast, "equalize": equalize, "rotate": rotate, "shear_x": shear_x,
    "shear_y": shear_y, "move_x": move_x, "move_y": move_y, "posterize": posterize, "solarize": solarize,
    "color": color, "contrast": contrast, "brightness": brightness, "sharpness": sharpness,
}  # fmt: skip
