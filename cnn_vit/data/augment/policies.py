"""RandAugment and TrivialAugment: for each image, operations drawn evenly from one list of fourteen.

RandAugment, Cubuk et al., arXiv:1909.13719, applies `count` operations one after the other, all of one magnitude, 0 to
10. TrivialAugment, Müller and Hutter, arXiv:2103.10158, here with its wide ranges, applies one operation, its strength
drawn evenly from 31 steps. In the table s is magnitude / 10, or step / 30; the sign is drawn too.

    operation        RandAugment                      TrivialAugment
    identity         the image as it is               the same
    autocontrast     each channel stretched to 0..1   the same
    equalize         each channel's histogram flat    the same
    rotate           +- 30 s degrees                  +- 135 s degrees
    shear_x shear_y  +- 0.3 s, about the corner       +- 0.99 s
    move_x move_y    +- 150/331 s of the side         +- 32 s pixels
    posterize        8 - 4 s bits stay, rounded       8 - 6 s
    solarize         levels from 256 - 256 s inverted the same
    color contrast   a factor of 1 +- 0.9 s           1 +- 0.99 s
    brightness sharpness, as color

Beyond magnitude 10, which the first paper uses for large networks, the ranges go on, but at least one bit stays and no
factor is below 0.

Departs from the published programs in these points. Strength grows with s everywhere (RandAugment's program posterizes
and solarizes least at the highest magnitude; the factors of both programs run from 0.1 to 1.9, or 0.01 to 2, with
nothing changed in the middle). Bits are rounded, while degrees and moves are not whole numbers. Pixels are read
bilinearly, not as the nearest. A gray image has no color to change. What comes in from outside is gray, 128 of 255, as
in RandAugment's program; in TrivialAugment's it is black. The list is not that of big_vision, which has no identity,
has invert, cutout and solarize-add besides, and whose contrast blends with (number of pixels / 256) instead of the mean
level.

On a CPU the rows are changed one by one, so that each runs only its own operation: randaugment(2) changes 23 thousand
images of 32x32x3 per CPU-second (jaxlib 0.10.2), against 1.2 thousand with all rows at once, where every row computes
all fourteen operations.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from cnn_vit.data.augment import color as color_operations
from cnn_vit.data.augment import geometry

OUTSIDE = 128 / 255  # the gray that comes in from outside
STEPS = 30  # TrivialAugment's strengths are 0 to 30 of 30
LEVELS = 256  # of a byte


@dataclass(frozen=True)
class Ranges:
    """How far each operation goes at strength 1.

    Attributes:
        degrees: of a turn.
        shear: pixels along one axis for each pixel along the other.
        share: of a side, that a move goes.
        pixels: that a move goes in addition to its share of the side.
        bits: that posterize takes away.
        factor: the distance of a blend's factor from 1.
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
    """Applies `count` random operations in turn to each image, of strength magnitude / 10."""
    times, strength = jnp.asarray(count, jnp.int32), jnp.asarray(magnitude, jnp.float32) / 10

    def change_image(image, key):
        def apply_next(turn, image):
            return apply_random_operation(image, jax.random.fold_in(key, turn), strength, NARROW)

        return jax.lax.fori_loop(0, times, apply_next, image)

    return change_rows(change_image, images, keys)


def trivialaugment(images: jax.Array, keys: jax.Array) -> jax.Array:  # (B, H, W, C), (B,) -> (B, H, W, C)
    """Applies one random operation to each image, of a strength drawn evenly from 0, 1/30 ... 1."""

    def change_image(image, key):
        operation_key, strength_key = jax.random.split(key)
        strength = jax.random.randint(strength_key, (), 0, STEPS + 1).astype(jnp.float32) / STEPS
        return apply_random_operation(image, operation_key, strength, WIDE)

    return change_rows(change_image, images, keys)


def change_rows(change_image: Callable, images: jax.Array, keys: jax.Array) -> jax.Array:
    """Changes every row by itself with (image, key) -> image: in turn on a CPU, all at once elsewhere."""

    def in_turn(images, keys):
        return jax.lax.map(lambda row: change_image(*row), (images, keys))

    return jax.lax.platform_dependent(images, keys, cpu=in_turn, default=jax.vmap(change_image))


def apply_random_operation(
    image: jax.Array, key: jax.Array, strength: jax.Array, ranges: Ranges
) -> jax.Array:  # (H, W, C) -> (H, W, C)
    """Applies one operation of the list, drawn evenly, with its strength of either sign."""
    operation_key, sign_key = jax.random.split(key)
    signed = jnp.where(jax.random.bernoulli(sign_key), strength, -strength)
    branches = [partial(change, ranges=ranges) for change in CHANGES.values()]
    return jax.lax.switch(jax.random.randint(operation_key, (), 0, len(branches)), branches, image, signed)


# The fourteen operations: (image (H, W, C) float32 in 0..1, signed strength, ranges) -> image -------------------------


def identity(image: jax.Array, signed: jax.Array, ranges: Ranges) -> jax.Array:
    """Returns the image as it is."""
    return image


def autocontrast(image: jax.Array, signed: jax.Array, ranges: Ranges) -> jax.Array:
    """Stretches each channel from its darkest and brightest pixel to 0..1; a channel of a single level stays."""
    low, high = image.min((0, 1)), image.max((0, 1))
    has_range = high - low >= 0.5 / 255
    return jnp.where(has_range, jnp.clip((image - low) / jnp.where(has_range, high - low, 1), 0, 1), image)


def equalize(image: jax.Array, signed: jax.Array, ranges: Ranges) -> jax.Array:
    """Makes each channel's histogram flat, with exactly the whole numbers of Pillow's ImageOps.equalize."""
    return jax.vmap(equalize_channel, -1, -1)(to_levels(image)).astype(image.dtype) / 255


def equalize_channel(channel: jax.Array) -> jax.Array:  # (H, W) -> (H, W)
    """Equalizes the levels of one channel."""
    counts = jnp.zeros(LEVELS, jnp.int32).at[channel].add(1)
    step = (channel.size - counts[channel.max()]) // 255  # pixels for each new level; Pillow leaves out the brightest
    darker = jnp.cumsum(counts) - counts  # pixels darker than each level
    table = jnp.minimum((step // 2 + darker) // jnp.maximum(step, 1), 255)
    return jnp.where(step > 0, table, jnp.arange(LEVELS))[channel]


def rotate(image: jax.Array, signed: jax.Array, ranges: Ranges) -> jax.Array:
    """Turns the image about its center."""
    return gray_outside(partial(geometry.transform, angle=jnp.deg2rad(signed * ranges.degrees)), image)


def shear_x(image: jax.Array, signed: jax.Array, ranges: Ranges) -> jax.Array:
    """Slides each row along, further than the row above; the top left corner stays."""
    return gray_outside(partial(shear, across=signed * ranges.shear), image)


def shear_y(image: jax.Array, signed: jax.Array, ranges: Ranges) -> jax.Array:
    """Slides each column down, further than the column before; the top left corner stays."""
    return gray_outside(partial(shear, along=signed * ranges.shear), image)


def move_x(image: jax.Array, signed: jax.Array, ranges: Ranges) -> jax.Array:
    """Moves the image to the left or right."""
    distance = signed * (ranges.share * image.shape[1] + ranges.pixels)
    return gray_outside(partial(geometry.transform, right=distance), image)


def move_y(image: jax.Array, signed: jax.Array, ranges: Ranges) -> jax.Array:
    """Moves the image up or down."""
    distance = signed * (ranges.share * image.shape[0] + ranges.pixels)
    return gray_outside(partial(geometry.transform, down=distance), image)


def posterize(image: jax.Array, signed: jax.Array, ranges: Ranges) -> jax.Array:
    """Leaves only the highest bits of each level."""
    lost = jnp.clip(jnp.round(jnp.abs(signed) * ranges.bits), 0, 7).astype(jnp.int32)
    levels = jax.lax.shift_left(jax.lax.shift_right_logical(to_levels(image), lost), lost)
    return jnp.where(lost > 0, levels.astype(image.dtype) / 255, image)


def solarize(image: jax.Array, signed: jax.Array, ranges: Ranges) -> jax.Array:
    """Inverts the bright levels."""
    threshold = LEVELS - LEVELS * jnp.abs(signed)
    return jnp.where(to_levels(image).astype(image.dtype) >= threshold, 1 - image, image)


def color(image: jax.Array, signed: jax.Array, ranges: Ranges) -> jax.Array:
    """Makes the image anything from gray to more colorful than it is."""
    return color_operations.blend(image, color_operations.gray(image), blend_factor(signed, ranges))


def contrast(image: jax.Array, signed: jax.Array, ranges: Ranges) -> jax.Array:
    """Gives the image anything from the mean gray to more contrast than it has."""
    return color_operations.blend(image, color_operations.gray(image).mean(), blend_factor(signed, ranges))


def brightness(image: jax.Array, signed: jax.Array, ranges: Ranges) -> jax.Array:
    """Makes the image anything from black to twice as bright."""
    return color_operations.blend(image, jnp.zeros((), image.dtype), blend_factor(signed, ranges))


def sharpness(image: jax.Array, signed: jax.Array, ranges: Ranges) -> jax.Array:
    """Smooths or sharpens the image, by Pillow's filter SMOOTH, which leaves the edge as it is."""
    height, width, _ = image.shape
    rows = image[:-2] + image[1:-1] + image[2:]
    # Each of the nine pixels weighs 1, the middle one 5: it is in the sum once and is added four times more.
    smooth = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * image[1:-1, 1:-1]) / 13
    inside = color_operations.box_mask(
        height, width, jnp.int32(1), jnp.int32(1), jnp.int32(height - 2), jnp.int32(width - 2)
    )
    # An image of fewer than three rows or columns is all edge.
    padded = jnp.pad(smooth, ((1, 1), (1, 1), (0, 0))) if min(height, width) > 2 else image
    return color_operations.blend(image, jnp.where(inside[..., None], padded, image), blend_factor(signed, ranges))


def blend_factor(signed: jax.Array, ranges: Ranges) -> jax.Array:
    """Returns the factor of a blend, at least 0."""
    return jnp.maximum(1 + signed * ranges.factor, 0)


def to_levels(image: jax.Array) -> jax.Array:
    """Returns the levels of the pixels, 0 to 255, int32."""
    return jnp.clip(jnp.round(image * 255), 0, 255).astype(jnp.int32)


def shear(
    image: jax.Array, *, across: jax.Array | float = 0.0, along: jax.Array | float = 0.0
) -> jax.Array:  # (H, W, C) -> (H, W, C)
    """Reads pixel (y, x) at (y + along x, x + across y), measured from the outer corner of the first pixel."""
    height, width, _ = image.shape
    y = jnp.arange(height, dtype=jnp.float32)[:, None] + 0.5
    x = jnp.arange(width, dtype=jnp.float32)[None, :] + 0.5
    return geometry.sample_bilinear(image, y + along * x - 0.5, x + across * y - 0.5)


def gray_outside(change: Callable[[jax.Array], jax.Array], image: jax.Array) -> jax.Array:
    """Moves pixels by `change`, which lets in black from outside, but with gray coming in instead of black."""
    return change(image - OUTSIDE) + OUTSIDE


CHANGES = {
    "identity": identity, "autocontrast": autocontrast, "equalize": equalize, "rotate": rotate, "shear_x": shear_x,
    "shear_y": shear_y, "move_x": move_x, "move_y": move_y, "posterize": posterize, "solarize": solarize,
    "color": color, "contrast": contrast, "brightness": brightness, "sharpness": sharpness,
}  # fmt: skip
