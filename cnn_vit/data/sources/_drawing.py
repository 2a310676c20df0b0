"""Draws the images of the source `shapes`: textured shapes with soft edges over a plain background, many at a time."""

import math
from dataclasses import dataclass

import numpy as np

TEXTURES = ("plain", "rows", "columns", "slanted", "checked", "grained")
NOISE = 12  # levels of 0 to 255 that a pixel is moved by at most, up or down
LUMA = np.array([0.299, 0.587, 0.114])  # weights of red, green and blue in the brightness of a color, ITU-R 601
TEXTURE_CONTRAST = 0.7  # share of the ink that a texture takes away where it lets the background through
FINEST_PERIOD = 2  # pixels: a finer texture would alias


@dataclass(frozen=True)
class Factors:
    """What n images are drawn from; each is an array of shape (n,), the two colors of shape (n, 3).

    Attributes:
        shape: number of the shape in SHAPES.
        texture: number of the texture in TEXTURES.
        row: of the center, as a share of the height.
        column: of the center, as a share of the width.
        radius: of a disc of the same area times sqrt(pi / 2), as a share of the shorter side.
        tilt: in radians.
        period: of the texture, as a share of the radius.
        phase: of the texture, in turns.
        ground: color of the background, 0 to 1.
        ink: color of the shape, 0 to 1.
    """

    shape: np.ndarray
    texture: np.ndarray
    row: np.ndarray
    column: np.ndarray
    radius: np.ndarray
    tilt: np.ndarray
    period: np.ndarray
    phase: np.ndarray
    ground: np.ndarray
    ink: np.ndarray


def paint_images(
    factors: Factors, noise: np.ndarray, image_shape: tuple[int, int, int]
) -> np.ndarray:  # -> (n, H, W, C)
    """Draws each image: a background, a textured shape over it with smooth edges, a little noise.

    Args:
        factors: what the n images are drawn from.
        noise: (n, H, W, C) random bytes.
        image_shape: (H, W, C); one channel gives the brightness of the colors.

    Returns:
        The pixels (n, H, W, C), uint8.
    """
    height, width, channels = image_shape
    radius = for_each_pixel(factors.radius) * min(height, width)  # (n, 1, 1), pixels
    # The coordinates of pixel centers in units of the radius, with the shape's center as the origin
    pixel_rows = np.arange(height, dtype=np.float32)[:, None] + 0.5
    pixel_columns = np.arange(width, dtype=np.float32) + 0.5
    down = (pixel_rows - for_each_pixel(factors.row) * height) / radius  # (n, H, 1)
    right = (pixel_columns - for_each_pixel(factors.column) * width) / radius  # (n, 1, W)
    # The same coordinates turned by the tilt: u to the right of the shape, v down from it
    tilt = for_each_pixel(factors.tilt)
    cosine, sine = np.cos(tilt), np.sin(tilt)
    v = cosine * down + sine * right  # (n, H, W)
    u = cosine * right - sine * down  # (n, H, W)
    cover = np.empty_like(u)  # share of a pixel that the shape covers
    for number, distance in enumerate(SHAPES.values()):
        has_shape = factors.shape == number
        if has_shape.any():
            # An edge one pixel wide: half covered at distance 0
            distance_in_pixels = distance(u[has_shape], v[has_shape]) * radius[has_shape]
            cover[has_shape] = np.clip(0.5 - distance_in_pixels, 0, 1)
    period = np.maximum(for_each_pixel(factors.period), FINEST_PERIOD / radius)
    cover *= 1 - TEXTURE_CONTRAST * weave_texture(factors.texture, u, v, period, for_each_pixel(factors.phase))
    ground = factors.ground.astype(np.float32)[:, None, None, :]
    ink = factors.ink.astype(np.float32)[:, None, None, :]
    if channels == 1:
        weights = LUMA[:, None].astype(np.float32)
        ground, ink = ground @ weights, ink @ weights
    levels = 255 * (ground + cover[..., None] * (ink - ground)) + (noise.astype(np.float32) / 255 - 0.5) * 2 * NOISE
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def for_each_pixel(factor: np.ndarray) -> np.ndarray:  # (n,) -> (n, 1, 1)
    """Returns one factor of each image in float32, with axes over which the pixels of the image broadcast."""
    return factor.astype(np.float32)[:, None, None]


def weave_texture(
    texture: np.ndarray, u: np.ndarray, v: np.ndarray, period: np.ndarray, phase: np.ndarray
) -> np.ndarray:
    """Returns how much of the background shows through each pixel: 0 or 1, and a half where the texture is plain.

    Args:
        texture: (n,) numbers of the textures in TEXTURES.
        u: (n, H, W) coordinates to the right of the shape, in units of its radius.
        v: (n, H, W) coordinates down from the shape, in the same units.
        period: (n, 1, 1), in the same units.
        phase: (n, 1, 1), in turns.

    Returns:
        An array (n, H, W).
    """
    # Numbers of the half periods that a pixel lies in; a texture alternates between even and odd ones
    across = np.floor(2 * (u / period + phase))
    along = np.floor(2 * (v / period + phase))
    slant = np.floor(2 * ((u + v) * math.sqrt(0.5) / period + phase))
    # A pseudo-random bit for each cell of the checked texture: the fraction of a large sine
    grain = np.floor(2 * np.modf(np.abs(np.sin(across * 12.9898 + along * 78.233 + phase * 40)) * 43758.547)[0])
    patterns = (along % 2, across % 2, slant % 2, (across + along) % 2, grain)
    share = np.full_like(u, 0.5)
    # Texture 0 is plain and keeps the half; the patterns are those of the textures behind it, in their order
    for number, pattern in enumerate(patterns, start=1):
        np.copyto(share, pattern, where=texture[:, None, None] == number)
    return share


# Signed distances to the edge of a shape, below 0 inside. u points right and v down from the center, in units in which
# every shape covers an area of 2.


def disc(u, v):
    """The signed distance to a full circle."""
    return np.hypot(u, v) - math.sqrt(2 / math.pi)


def square(u, v):
    """The signed distance to a square that stands on its side."""
    return np.maximum(np.abs(u), np.abs(v)) - math.sqrt(0.5)


def triangle(u, v):
    """The signed distance to an equilateral triangle that points up.

    Its inscribed circle has radius r, its area is 3 sqrt(3) r^2.
    """
    slope = math.sqrt(0.75)
    return np.maximum(v, slope * np.abs(u) - v / 2) - math.sqrt(2 / (3 * math.sqrt(3)))


def diamond(u, v):
    """The signed distance to a square that stands on its corner."""
    return (np.abs(u) + np.abs(v) - 1) * math.sqrt(0.5)


def plus(u, v):
    """The signed distance to two upright bars, half as long as 1, half as wide as w: 8 w - 4 w^2 = 2."""
    half_width = 1 - math.sqrt(0.5)
    a, b = np.abs(u), np.abs(v)
    return np.minimum(np.maximum(a - 1, b - half_width), np.maximum(b - 1, a - half_width))


def cross(u, v):
    """The signed distance to two slanted bars: those of `plus`, turned by 45 degrees."""
    cosine = math.sqrt(0.5)
    return plus((u + v) * cosine, (v - u) * cosine)


def ring(u, v):
    """The signed distance to a circle of radius 1 with a hole of radius r: pi (1 - r^2) = 2."""
    hole = math.sqrt(1 - 2 / math.pi)
    return np.abs(np.hypot(u, v) - (1 + hole) / 2) - (1 - hole) / 2


def frame(u, v):
    """The signed distance to a square of half side 0.9 with a square hole of half side r: 4 (0.9^2 - r^2) = 2."""
    hole = math.sqrt(0.81 - 0.5)
    return np.abs(np.maximum(np.abs(u), np.abs(v)) - (0.9 + hole) / 2) - (0.9 - hole) / 2


def bar(u, v):
    """The signed distance to a lying bar, 2 wide and 1 high."""
    return np.maximum(np.abs(u) - 1, np.abs(v) - 0.5)


def bowl(u, v):
    """The signed distance to the lower half of a circle of radius r, from the middle of its height: pi r^2 / 2 = 2."""
    radius = 2 / math.sqrt(math.pi)
    return np.maximum(np.hypot(u, v + radius / 2) - radius, -(v + radius / 2))


SHAPES = {
    "disc": disc, "square": square, "triangle": triangle, "diamond": diamond, "plus": plus,
    "cross": cross, "ring": ring, "frame": frame, "bar": bar, "bowl": bowl,
}  # fmt: skip
