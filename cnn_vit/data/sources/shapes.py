"""Drawn shapes whose form, texture, place, size and colors are independent: nothing else tells the class.

Any size, number and seed; images are made on demand, each a function of (seed, split, index) alone (Philox). All
shapes have one area and all textures one mean, so that the amount of ink says nothing. With `label="shape"` the class
is the shape; what is asked beyond the ten of them is the shape with a texture, beyond those with a place as well.
"""

import math
from typing import Literal, NamedTuple

import numpy as np

from cnn_vit.data.base.parts import PARTS, PixelPart, SourceData, SourceInfo, SourceOptions, refuse_path
from cnn_vit.data.sources._drawing import LUMA, SHAPES, TEXTURES, Factors, paint
from cnn_vit.errors import UserError

SIDE = 32  # pixels, where no image size is given
CELLS = 9  # places that are classes, where nobody says how many
RADII = (0.2, 0.28)  # of the shorter side
ROOM = (0.36, 0.64)  # where a center may lie, as a share of the sides: no shape is cut
TILT = math.radians(12)  # at most, either way
BLOCKS = 6  # Philox blocks of four words for the factors of an image, before those of its noise
WORDS = 4  # of a block


def about(
    given: SourceOptions,
    *,
    train_count: int = 10_000,
    validation_count: int = 1_000,
    test_count: int = 2_000,
    shapes_seed: int = 0,
    label: Literal["shape", "texture", "position"] = "shape",
) -> SourceInfo:
    """Classes, image shape and counts; nothing is drawn.

    Raises:
        UserError: a number out of its range.
    """
    refuse_path("shapes", given)
    counts = dict(zip(PARTS, (train_count, validation_count, test_count), strict=True))
    for name, count in counts.items():
        if not (name == "train") <= count <= 2**31 - 1:
            raise UserError(f"data.{name}_count is {count}; it takes an int in [{int(name == 'train')}, 2147483647]")
    if not 0 <= shapes_seed < 2**63:
        raise UserError(f"data.shapes_seed is {shapes_seed}; it takes an int in [0, {2**63 - 1}]")
    height, width = given.image_size or (SIDE, SIDE)
    if min(height, width) < 8:
        raise UserError(f"shapes of {height}x{width} pixels cannot be told apart; make data.image_size at least 8")
    classes = names(label, given.classes or default_classes(label))
    return SourceInfo(
        classes, len(classes), (height, width, given.channels or 3), {k: n for k, n in counts.items() if n}
    )


def load(
    given: SourceOptions,
    *,
    train_count: int = 10_000,
    validation_count: int = 1_000,
    test_count: int = 2_000,
    shapes_seed: int = 0,
    label: Literal["shape", "texture", "position"] = "shape",
) -> SourceData:
    """The parts; an image is drawn when it is read.

    Args:
        given: the common settings; `classes` says how many to make.
        train_count: images to train on.
        validation_count: images to choose by; 0: a tenth of train is.
        test_count: images to test on; 0: none.
        shapes_seed: of the images; the run's seed does not change them.
        label: what the classes are.

    Raises:
        UserError: a number out of its range.
    """
    keywords = {"train_count": train_count, "validation_count": validation_count, "test_count": test_count,
                "shapes_seed": shapes_seed, "label": label}  # fmt: skip
    known = about(given, **keywords)  # type: ignore[arg-type]
    classes, image_shape = known.classes or (), known.image_shape or (SIDE, SIDE, 3)
    parts = {}
    for name, count in known.counts.items():
        maker = Maker(shapes_seed, PARTS.index(name), label, len(classes), image_shape)
        labels = (np.arange(count) % len(classes)).astype(np.int32)
        parts[name] = PixelPart(labels, image_shape, maker.draw, is_generated=True)
    return SourceData(
        classes, parts, generator_settings=keywords | {"classes": len(classes), "image_shape": list(image_shape)}
    )


# Classes


def default_classes(label: str) -> int:
    """Number of classes where nobody says."""
    return {"shape": len(SHAPES), "texture": len(TEXTURES), "position": CELLS}[label]


def class_factors(label: str, count: int) -> tuple[tuple[str, int], ...]:
    """Factors that make up a class, the label's own first, with the number of values of each."""
    if label == "position":
        return (("position", count),)
    pair = [("shape", len(SHAPES)), ("texture", len(TEXTURES))]
    first, second = pair if label == "shape" else pair[::-1]
    if count <= first[1]:
        return ((first[0], count),)
    if count <= first[1] * second[1]:
        return first, (second[0], -(-count // first[1]))
    return first, second, ("position", -(-count // (first[1] * second[1])))


def factor_values(label: str, count: int, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Value of each factor that makes up the class: class = first + size of first * second + ..."""
    found = {}
    rest = labels.astype(np.int64)
    for factor, size in class_factors(label, count):
        found[factor] = rest % size
        rest = rest // size
    return found


def names(label: str, count: int) -> tuple[str, ...]:
    """Names of the classes: "disc", "disc-rows", "disc-rows-0x1"."""
    side = cells_per_side(label, count)
    written = {"shape": list(SHAPES), "texture": list(TEXTURES)}
    found = factor_values(label, count, np.arange(count))
    columns = [
        [written[factor][one] if factor in written else f"{one // side}x{one % side}" for one in column]
        for factor, column in found.items()
    ]
    return tuple("-".join(parts) for parts in zip(*columns, strict=True))


def cells_per_side(label: str, count: int) -> int:
    """Cells on a side of the square grid of places that are classes; 1: the place is free."""
    return math.ceil(math.sqrt(dict(class_factors(label, count)).get("position", 1)))


# Images


class Maker(NamedTuple):
    """Draws the images of one part.

    Attributes:
        seed: of the images.
        part: number of the part.
        label: what the classes are.
        classes: how many.
        image_shape: (H, W, C).
    """

    seed: int
    part: int
    label: str
    classes: int
    image_shape: tuple[int, int, int]

    def draw(self, indices: np.ndarray) -> np.ndarray:  # (n,) -> (n, H, W, C)
        """Images, uint8."""
        return np.concatenate([self.chunk(part) for part in np.array_split(indices, -(-len(indices) // 64) or 1)])

    def chunk(self, indices: np.ndarray) -> np.ndarray:  # (n,) -> (n, H, W, C)
        """A few images at once: their planes stay in the processor's cache."""
        chance, noise = self.chance(indices)
        return paint(self.chosen(indices, chance), noise, self.image_shape)

    def factors(self, indices: np.ndarray) -> Factors:
        """What the images are drawn from."""
        return self.chosen(indices, self.chance(indices)[0])

    def chance(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Uniform numbers in [0, 1) for the factors (n, 24) and bytes for the noise (n, H, W, C), of Philox."""
        size = math.prod(self.image_shape)
        blocks = BLOCKS + -(-size // (8 * WORDS))
        source, at = np.random.Philox(key=np.array([self.seed, self.part], np.uint64)), 0
        raw = np.empty((len(indices), blocks * WORDS), np.uint64)
        for row, index in zip(raw, indices.tolist(), strict=True):
            source.advance((index * blocks - at) % 2**256)
            row[:] = source.random_raw(blocks * WORDS)
            at = (index + 1) * blocks
        uniform = (raw[:, : BLOCKS * WORDS] >> np.uint64(11)) * 2.0**-53
        noise = raw[:, BLOCKS * WORDS :].astype("<u8").view(np.uint8)[:, :size]
        return uniform, noise.reshape(-1, *self.image_shape)

    def chosen(self, indices: np.ndarray, chance: np.ndarray) -> Factors:
        """Factors from chance; those that make up the class come from it."""
        labels = np.asarray(indices) % self.classes
        fixed = factor_values(self.label, self.classes, labels)
        side = cells_per_side(self.label, self.classes)
        low, high = ROOM
        row, column = (low + (high - low) * chance[:, at] for at in (2, 3))
        shrink = 1.0
        if "position" in fixed:
            cell = fixed["position"]
            row, column = (
                (place + 0.5 + 0.3 * (chance[:, at] - 0.5)) / side
                for place, at in ((cell // side, 2), (cell % side, 3))
            )
            shrink = min(1.0, 1.4 / side)
        ground, ink = draw_colors(chance[:, 8:16])
        return Factors(
            shape=fixed.get("shape", (chance[:, 0] * len(SHAPES)).astype(np.int64)),
            texture=fixed.get("texture", (chance[:, 1] * len(TEXTURES)).astype(np.int64)),
            row=row,
            column=column,
            radius=shrink * (RADII[0] + (RADII[1] - RADII[0]) * chance[:, 4]),
            tilt=TILT * (2 * chance[:, 5] - 1),
            period=0.5 + 0.3 * chance[:, 6],
            phase=chance[:, 7],
            ground=ground,
            ink=ink,
        )


def draw_colors(chance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # (n, 8) -> (n, 3), (n, 3)
    """Two colors whose brightness (luma) is 0.32 to 0.44 apart, either the brighter one; their hues are free."""
    first = chance[:, 0]
    apart = 0.4 + 0.15 * chance[:, 1]
    second = np.where(first < 0.5, first + apart, first - apart)
    found = []
    for brightness, hue in ((first, chance[:, 2:5]), (second, chance[:, 5:8])):
        shift = 0.5 * (hue - hue @ LUMA[:, None])
        found.append(np.clip(0.1 + 0.8 * brightness[:, None] + shift, 0, 1))
    return found[0], found[1]
