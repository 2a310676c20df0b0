"""How the source `shapes` draws: textured shapes with soft edges over a plain background, many at a time."""

import math
from typing import NamedTuple

import numpy as np

TEXTURES = ("plain", "rows", "columns", "slanted", "checked", "grained")
NOISE = 12  # levels, at most, either way
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R 601


class Factors(NamedTuple):
    """What an image is drawn from; arrays of (n,), but the colors (n, 3).

    Attributes:
        shape: place in SHAPES.
        texture: place in TEXTURES.
        row: of the center, a share of the height.
        column: of the center, a share of the width.
        radius: of a disc of the same area times sqrt(pi / 2), a share of the shorter side.
        tilt: radians.
        period: of the texture, a share of the radius.
        phase: of the texture, turns.
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


def paint(given: Factors, noise: np.ndarray, image_shape: tuple[int, int, int]) -> np.ndarray:  # -> (n, H, W, C)
    """Pixels, uint8: background, textured shape over it with smooth edges, a little noise."""
    height, width, channels = image_shape
    unit = min(height, width)
    one = {name: getattr(given, name).astype(np.float32)[:, None, None] for name in Factors._fields[2:8]}
    radius = one["radius"] * unit  # (n, 1, 1)
    down = (np.arange(height, dtype=np.float32)[:, None] + 0.5 - one["row"] * height) / radius  # (n, H, 1)
    right = (np.arange(width, dtype=np.float32) + 0.5 - one["column"] * width) / radius  # (n, 1, W)
    cosine, sine = np.cos(one["tilt"]), np.sin(one["tilt"])
    v, u = cosine * down + sine * right, cosine * right - sine * down  # (n, H, W)
    cover = np.empty_like(u)  # share of a pixel that the shape covers
    for place, distance in enumerate(SHAPES.values()):
        rows = given.shape == place
        if rows.any():
            cover[rows] = np.clip(0.5 - distance(u[rows], v[rows]) * radius[rows], 0, 1)
    cover *= 1 - 0.7 * weave(given.texture, u, v, np.maximum(one["period"], 2 / radius), one["phase"])
    shade = cover[..., None]
    ground, ink = (c.astype(np.float32)[:, None, None, :] for c in (given.ground, given.ink))
    if channels == 1:
        ground, ink = (c @ LUMA[:, None].astype(np.float32) for c in (ground, ink))
    levels = 255 * (ground + shade * (ink - ground)) + (noise.astype(np.float32) / 255 - 0.5) * 2 * NOISE
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def weave(texture: np.ndarray, u: np.ndarray, v: np.ndarray, period: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """How much of the background shows through, 0 or 1 (a half where it is plain), for each pixel (n, H, W)."""
    across, along = np.floor(2 * (u / period + phase)), np.floor(2 * (v / period + phase))
    slant = np.floor(2 * ((u + v) * math.sqrt(0.5) / period + phase))
    kinds = texture[:, None, None]
    grain = np.floor(2 * np.modf(np.abs(np.sin(across * 12.9898 + along * 78.233 + phase * 40)) * 43758.547)[0])
    patterns = (along % 2, across % 2, slant % 2, (across + along) % 2, grain)
    found = np.full_like(u, 0.5)
    for place, pattern in enumerate(patterns, start=1):
        np.copyto(found, pattern, where=kinds == place)
    return found


# Signed distances to the edge, below 0 inside; each shape covers an area of 2 in its own units


def disc(u, v):
    """A full circle."""
    return np.hypot(u, v) - math.sqrt(2 / math.pi)


def square(u, v):
    """A square on its side."""
    return np.maximum(np.abs(u), np.abs(v)) - math.sqrt(0.5)


def triangle(u, v):
    """An equilateral triangle that points up; its inscribed circle has radius r, its area is 3 sqrt(3) r^2."""
    slope = math.sqrt(0.75)
    return np.maximum(v, slope * np.abs(u) - v / 2) - math.sqrt(2 / (3 * math.sqrt(3)))


def diamond(u, v):
    """A square on its corner."""
    return (np.abs(u) + np.abs(v) - 1) * math.sqrt(0.5)


def plus(u, v):
    """Two bars, upright; half as long as 1, half as wide as w: 8 w - 4 w^2 = 2."""
    wide = 1 - math.sqrt(0.5)
    a, b = np.abs(u), np.abs(v)
    return np.minimum(np.maximum(a - 1, b - wide), np.maximum(b - 1, a - wide))


def cross(u, v):
    """Two bars, slanted."""
    half = math.sqrt(0.5)
    return plus((u + v) * half, (v - u) * half)


def ring(u, v):
    """A circle with a hole; pi (1 - r^2) = 2."""
    hole = math.sqrt(1 - 2 / math.pi)
    return np.abs(np.hypot(u, v) - (1 + hole) / 2) - (1 - hole) / 2


def frame(u, v):
    """A square with a hole; 4 (0.9^2 - r^2) = 2."""
    hole = math.sqrt(0.81 - 0.5)
    return np.abs(np.maximum(np.abs(u), np.abs(v)) - (0.9 + hole) / 2) - (0.9 - hole) / 2


def bar(u, v):
    """A lying bar, 2 by 1."""
    return np.maximum(np.abs(u) - 1, np.abs(v) - 0.5)


def bowl(u, v):
    """The lower half of a circle around the middle of its height; pi r^2 / 2 = 2."""
    size = 2 / math.sqrt(math.pi)
    return np.maximum(np.hypot(u, v + size / 2) - size, -(v + size / 2))


SHAPES = {
    "disc": disc, "square": square, "triangle": triangle, "diamond": diamond, "plus": plus,
    "cross": cross, "ring": ring, "frame": frame, "bar": bar, "bowl": bowl,
}  # fmt: skip
