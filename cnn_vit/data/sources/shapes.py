"""Drawn shapes whose form, texture, position, size and colors are independent: nothing else tells the class.

They come in any size, number and seed. Images are made on demand, each a function of (seed, split, index) alone
(Philox). All shapes have one area and all textures one mean, so that the amount of ink says nothing about the class.

With `label="shape"` the class is the shape. Where more classes are asked for than there are shapes, the class is the
shape with a texture; where more than there are such pairs, the shape with a texture and a position.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cnn_vit.data.base.parts import PARTS, PixelPart, SourceData, SourceInfo, SourceOptions, refuse_path
from cnn_vit.data.sources._drawing import LUMA, SHAPES, TEXTURES, Factors, paint_images
from cnn_vit.errors import UserError

SIDE = 32  # pixels, where no image size is set
CELLS = 9  # positions that are classes, where no number of classes is set
RADII = (0.2, 0.28)  # smallest and largest radius, as a share of the shorter side
ROOM = (0.36, 0.64)  # where a center may lie, as a share of the sides: no shape is cut
TILT = math.radians(12)  # at most, either way
BLOCKS = 6  # Philox blocks of four words for the factors of an image, before those of its noise
WORDS = 4  # of 64 bits in a Philox block
CHUNK = 64  # images that are drawn at once


def about(
    options: SourceOptions,
    *,
    train_count: int = 10_000,
    validation_count: int = 1_000,
    test_count: int = 2_000,
    shapes_seed: int = 0,
    label: Literal["shape", "texture", "position"] = "shape",
) -> SourceInfo:
    """Returns the classes, the image shape and the counts; draws nothing.

    Raises:
        UserError: a number is out of its range.
    """
    refuse_path("shapes", options)
    counts = {"train": train_count, "validation": validation_count, "test": test_count}
    for part, count in counts.items():
        least = 1 if part == "train" else 0
        if not least <= count <= 2**31 - 1:
            raise UserError(f"data.{part}_count is {count}; it takes an int in [{least}, {2**31 - 1}]")
    if not 0 <= shapes_seed < 2**63:
        raise UserError(f"data.shapes_seed is {shapes_seed}; it takes an int in [0, {2**63 - 1}]")
    height, width = options.image_size or (SIDE, SIDE)
    if min(height, width) < 8:
        raise UserError(f"shapes of {height}x{width} pixels cannot be told apart; make data.image_size at least 8")
    classes = class_names(label, options.classes or default_classes(label))
    filled_counts = {part: count for part, count in counts.items() if count}
    return SourceInfo(classes, len(classes), (height, width, options.channels or 3), filled_counts)


def load(
    options: SourceOptions,
    *,
    train_count: int = 10_000,
    validation_count: int = 1_000,
    test_count: int = 2_000,
    shapes_seed: int = 0,
    label: Literal["shape", "texture", "position"] = "shape",
) -> SourceData:
    """Returns the parts, whose images are drawn when they are read.

    Args:
        options: the common settings; `classes` says how many to make.
        train_count: images to train on.
        validation_count: images to choose by; 0: a tenth of train is.
        test_count: images to test on; 0: none.
        shapes_seed: of the images; the run's seed does not change them.
        label: what the classes are.

    Raises:
        UserError: a number is out of its range.
    """
    # These keywords enter the data's fingerprint, with the number of classes and the image shape
    keywords = {"train_count": train_count, "validation_count": validation_count, "test_count": test_count,
                "shapes_seed": shapes_seed, "label": label}  # fmt: skip
    info = about(options, **keywords)  # type: ignore[arg-type]
    classes = info.classes or ()
    image_shape = info.image_shape or (SIDE, SIDE, 3)
    parts: dict[str, PixelPart] = {}
    for part, count in info.counts.items():
        drawer = ImageDrawer(shapes_seed, PARTS.index(part), label, len(classes), image_shape)
        labels = (np.arange(count) % len(classes)).astype(np.int32)
        parts[part] = PixelPart(labels, image_shape, drawer.draw, is_generated=True)
    generator_settings = keywords | {"classes": len(classes), "image_shape": list(image_shape)}
    return SourceData(classes, parts, generator_settings=generator_settings)


# Classes


def default_classes(label: str) -> int:
    """Returns the number of classes where none is set."""
    return {"shape": len(SHAPES), "texture": len(TEXTURES), "position": CELLS}[label]


def class_factors(label: str, count: int) -> tuple[tuple[str, int], ...]:
    """Returns the factors that make up a class, the label itself first, each with the number of its values.

    Args:
        label: "shape", "texture" or "position".
        count: number of classes.
    """
    if label == "position":
        return (("position", count),)
    shape, texture = ("shape", len(SHAPES)), ("texture", len(TEXTURES))
    first, second = (shape, texture) if label == "shape" else (texture, shape)
    if count <= first[1]:
        return ((first[0], count),)
    if count <= first[1] * second[1]:
        return first, (second[0], -(-count // first[1]))
    return first, second, ("position", -(-count // (first[1] * second[1])))


def factor_values(label: str, count: int, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the value (n,) of each factor that makes up the class of each label (n,).

    A class is numbered value of the first factor + number of its values * value of the second + ...
    """
    values: dict[str, np.ndarray] = {}
    rest = labels.astype(np.int64)
    for factor, size in class_factors(label, count):
        values[factor] = rest % size
        rest = rest // size
    return values


def class_names(label: str, count: int) -> tuple[str, ...]:
    """Returns the names of the classes, such as "disc", "disc-rows" or "disc-rows-0x1"."""
    columns: list[list[str]] = []  # for each factor, its word in the name of each class
    for factor, values in factor_values(label, count, np.arange(count)).items():
        if factor == "position":
            side = cells_per_side(label, count)
            columns.append([f"{cell // side}x{cell % side}" for cell in values])
        else:
            words = list(SHAPES if factor == "shape" else TEXTURES)
            columns.append([words[value] for value in values])
    return tuple("-".join(words) for words in zip(*columns, strict=True))


def cells_per_side(label: str, count: int) -> int:
    """Returns the cells on a side of the square grid of positions that are classes; 1 where the position is free."""
    return math.ceil(math.sqrt(dict(class_factors(label, count)).get("position", 1)))


# Images


@dataclass(frozen=True)
class ImageDrawer:
    """Draws the images of one part.

    Attributes:
        seed: of the images.
        part: number of the part in PARTS.
        label: what the classes are: "shape", "texture" or "position".
        classes: number of classes.
        image_shape: (H, W, C).
    """

    seed: int
    part: int
    label: str
    classes: int
    image_shape: tuple[int, int, int]

    def draw(self, indices: np.ndarray) -> np.ndarray:  # (n,) -> (n, H, W, C)
        """Draws the images of these indices, uint8."""
        chunks = np.array_split(indices, -(-len(indices) // CHUNK) or 1)
        return np.concatenate([self.draw_chunk(chunk) for chunk in chunks])

    def draw_chunk(self, indices: np.ndarray) -> np.ndarray:  # (n,) -> (n, H, W, C)
        """Draws a few images at once, so few that their planes stay in the processor's cache."""
        numbers, noise = self.draw_numbers(indices)
        return paint_images(self.choose_factors(indices, numbers), noise, self.image_shape)

    def draw_factors(self, indices: np.ndarray) -> Factors:
        """Returns what the images of these indices are drawn from."""
        numbers, _ = self.draw_numbers(indices)
        return self.choose_factors(indices, numbers)

    def draw_numbers(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Draws the random numbers of some images from Philox.

        Returns:
            Uniform numbers in [0, 1) for the factors, (n, 24), and bytes for the noise, (n, H, W, C).
        """
        size = math.prod(self.image_shape)
        blocks = BLOCKS + -(-size // (8 * WORDS))  # of one image: a word gives 8 bytes of noise
        philox = np.random.Philox(key=np.array([self.seed, self.part], np.uint64))
        position = 0  # of the generator, in blocks
        words = np.empty((len(indices), blocks * WORDS), np.uint64)
        for row, index in zip(words, indices.tolist(), strict=True):
            # Each image owns the blocks from index * blocks on; going back is going on around the period
            philox.advance((index * blocks - position) % 2**256)
            row[:] = philox.random_raw(blocks * WORDS)
            position = (index + 1) * blocks
        # The upper 53 bits of a word as a float64, as NumPy's own generators make them
        numbers = (words[:, : BLOCKS * WORDS] >> np.uint64(11)) * 2.0**-53
        # Little-endian everywhere, so that the bytes do not depend on the machine
        noise = words[:, BLOCKS * WORDS :].astype("<u8").view(np.uint8)[:, :size]
        return numbers, noise.reshape(-1, *self.image_shape)

    def choose_factors(self, indices: np.ndarray, numbers: np.ndarray) -> Factors:
        """Turns random numbers into factors; those that make up the class come from the class instead.

        Args:
            indices: (n,) indices of the images.
            numbers: (n, 24) uniform numbers in [0, 1); which column serves which factor is part of what an image is.
        """
        labels = np.asarray(indices) % self.classes
        class_values = factor_values(self.label, self.classes, labels)
        low, high = ROOM
        row = low + (high - low) * numbers[:, 2]
        column = low + (high - low) * numbers[:, 3]
        shrink = 1.0
        if "position" in class_values:
            # The center moves by 0.3 of a cell, and the shape shrinks so that it stays near its cell
            cell = class_values["position"]
            side = cells_per_side(self.label, self.classes)
            row = (cell // side + 0.5 + 0.3 * (numbers[:, 2] - 0.5)) / side
            column = (cell % side + 0.5 + 0.3 * (numbers[:, 3] - 0.5)) / side
            shrink = min(1.0, 1.4 / side)
        ground, ink = choose_colors(numbers[:, 8:16])
        return Factors(
            shape=class_values.get("shape", (numbers[:, 0] * len(SHAPES)).astype(np.int64)),
            texture=class_values.get("texture", (numbers[:, 1] * len(TEXTURES)).astype(np.int64)),
            row=row,
            column=column,
            radius=shrink * (RADII[0] + (RADII[1] - RADII[0]) * numbers[:, 4]),
            tilt=TILT * (2 * numbers[:, 5] - 1),
            period=0.5 + 0.3 * numbers[:, 6],
            phase=numbers[:, 7],
            ground=ground,
            ink=ink,
        )


def choose_colors(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # (n, 8) -> (n, 3), (n, 3)
    """Returns two colors for each image, RGB in 0 to 1, of the background and of the shape.

    Their brightness (luma) is 0.32 to 0.44 apart, either of them the brighter one; their hues are free.
    """
    first = numbers[:, 0]
    difference = 0.4 + 0.15 * numbers[:, 1]
    # The second color is brighter than a dark first one and darker than a bright one, so that both have room
    second = np.where(first < 0.5, first + difference, first - difference)
    return color_of(first, numbers[:, 2:5]), color_of(second, numbers[:, 5:8])


def color_of(brightness: np.ndarray, hue: np.ndarray) -> np.ndarray:  # (n,), (n, 3) -> (n, 3)
    """Returns RGB colors of a brightness; the hue, uniform numbers, shifts them without changing their luma."""
    shift = 0.5 * (hue - hue @ LUMA[:, None])
    return np.clip(0.1 + 0.8 * brightness[:, None] + shift, 0, 1)
