"""Random changes of training images, on the device, inside the compiled step.

A recipe writes them in order as texts, `("pad_crop(4)", "flip", "mixup(0.2)")`: a name of OPERATIONS and its numbers,
by position or by name. The numbers are arguments of the compiled program: another strength compiles nothing.

Chance: the operation at place p draws from `fold_in(row's key, p)`, so that an image's changes depend on nothing
around it; a mixing operation draws one weight and one permutation of the batch from `fold_in(mix_key, p)`.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cnn_vit.data.augment import color, geometry, mix, policies
from cnn_vit.errors import UserError, unknown

WRITTEN = re.compile(r"\s*(\w+)\s*(?:\(([^()]*)\)\s*)?")  # flip, flip(), pad_crop(4), jitter(0.4, saturation=0)
ARGUMENT = re.compile(r"\s*(?:(\w+)\s*=)?\s*([^\s=]+)\s*")


class NumberKeyword(NamedTuple):
    """What an operation takes in brackets.

    Attributes:
        name: its keyword.
        default: its value where none is written.
        low: smallest value.
        high: largest value.
        whole: whether it is a whole number.
    """

    name: str
    default: float
    low: float
    high: float
    whole: bool = False

    def read(self, text: str) -> float:
        """The number that a text writes.

        Raises:
            ValueError: `a whole number from 0 to 1024`, which the text does not write.
        """
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not self.low <= value <= self.high or (self.whole and not value.is_integer()):
            raise ValueError(f"a {'whole ' if self.whole else ''}number from {self.low:g} to {self.high:g}")
        return value

    def __str__(self) -> str:
        """`pixels=4`, as in a signature."""
        return f"{self.name}={self.default:g}"


class Operation(NamedTuple):
    """One kind of random change.

    Attributes:
        meaning: what it does, one line.
        change: (image, key, *numbers) -> image; where it takes all rows, (images, keys, *numbers) -> images; where it
            mixes, (images, target, key, *numbers) -> (images, target).
        numbers: what it takes in brackets.
        mixes: whether it works on the whole batch and changes the labels with the pixels.
        all_rows: whether it is given all rows with their keys, and itself sees to it that none depends on another.
        masks: whether it has a keyword `mask` (H, W), and changes an image smaller than its image as if it were alone.
    """

    meaning: str
    change: Callable
    numbers: tuple[NumberKeyword, ...] = ()
    mixes: bool = False
    all_rows: bool = False
    masks: bool = False


def check(operations: Sequence[str], *, masked: bool = False) -> None:
    """Refuses what is no operation or has wrong numbers; `masked`, also what cannot tell an image from its padding.

    Raises:
        UserError: naming the text, what it takes, and the nearest names.
    """
    for text in operations:
        name, _ = parse_operation(text)
        if masked and not OPERATIONS[name].masks:
            able = ", ".join(other for other, operation in OPERATIONS.items() if operation.masks)
            raise UserError(
                f"data.augment: {name} takes no images of several sizes (data.fit=pad_batch); take of {able}"
            )


def operation_names(operations: Sequence[str]) -> tuple[str, ...]:
    """The operations without their numbers: all that shapes the compiled program."""
    return tuple(parse_operation(text)[0] for text in operations)


def operation_numbers(operations: Sequence[str]) -> list[list[float]]:
    """The numbers of the operation at each place, defaults filled in, in the order of its signature."""
    return [parse_operation(text)[1] for text in operations]


def build_augmentation(operations: Sequence[str], num_classes: int) -> Callable:
    """Makes the function that augments a batch; numbers written in the texts are not read, they are given at each call.

    Args:
        operations: texts or bare names.
        num_classes: K.

    Returns:
        augment(images (B, H, W, C) uint8, labels (B,) int32, row_keys (B,) keys, mix_key, numbers, mask=None) ->
        (images (B, H, W, C) float32 in 0..1, target (B, K) float32, each row a distribution). `operation_numbers` as the function
        of this name gives them, or the same as arrays. `mask` (B, H, W) is True on each image's own pixels; the
        others are black, before and after.

    Raises:
        UserError: as `check`.
    """
    chosen = [OPERATIONS[name] for name in operation_names(operations)]

    def augment(images, labels, row_keys, mix_key, numbers, mask=None):
        images = images.astype(jnp.float32) / 255
        target = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)
        for place, (operation, given) in enumerate(zip(chosen, numbers, strict=True)):
            if operation.mixes:
                images, target = mix.apply_mixing(
                    operation.change, images, target, jax.random.fold_in(mix_key, place), *given
                )
            else:
                keys = jax.vmap(jax.random.fold_in, (0, None))(row_keys, place)
                over = (0, 0, *[None] * len(given))
                change = operation.change if operation.all_rows else jax.vmap(operation.change, over)
                images = (
                    change(images, keys, *given)
                    if mask is None
                    else change_each_alone(operation, images, mask, keys, given)
                )
        return images, target

    return augment


def change_each_alone(
    operation: Operation, images: jax.Array, mask: jax.Array, keys: jax.Array, given: Sequence
) -> jax.Array:
    """Images changed as if each were alone, black elsewhere."""

    def change(image, mask, key):
        return jnp.where(mask[..., None], operation.change(image, key, *given, mask=mask), 0)

    return jax.vmap(change)(images, mask, keys)


def signature(name: str) -> str:
    """How an operation is written, with its defaults: `affine(degrees=10, shift=1, scale=0.1)`."""
    return f"{name}({', '.join(map(str, OPERATIONS[name].numbers))})" if OPERATIONS[name].numbers else name


def parse_operation(text: str) -> tuple[str, list[float]]:
    """Name and numbers of one text, defaults filled in. Nothing is executed.

    Raises:
        UserError: as `check`.
    """
    found = WRITTEN.fullmatch(text) if isinstance(text, str) else None
    if not found:
        raise UserError(f"data.augment: {text!r} is not written as an operation, such as flip or pad_crop(4)")
    name, inside = found[1], found[2] or ""
    if name not in OPERATIONS:
        raise unknown("operation of data.augment", name, OPERATIONS)
    values = {number.name: float(number.default) for number in OPERATIONS[name].numbers}
    values |= arguments(text, name, inside.split(",") if inside.strip() else [])
    if "max_area" in values and values["min_area"] > values["max_area"]:
        raise operation_error(text, name, f"min_area {values['min_area']:g} is above max_area {values['max_area']:g}")
    return name, list(values.values())


def arguments(text: str, name: str, parts: list[str]) -> dict[str, float]:
    """Numbers written in the brackets, by keyword."""
    places = {number.name: number for number in OPERATIONS[name].numbers}
    if len(parts) > len(places):
        raise operation_error(text, name, "too many numbers")
    values: dict[str, float] = {}
    named = False
    for place, part in enumerate(parts):
        found = ARGUMENT.fullmatch(part)
        if not found or (named and not found[1]):
            raise operation_error(text, name, f"{part.strip()!r} is no number, nor keyword=number")
        named = bool(found[1])
        keyword = found[1] or list(places)[place]
        if keyword not in places or keyword in values:
            raise operation_error(
                text, name, f"{keyword} is given twice" if keyword in values else f"there is no {keyword!r}"
            )
        try:
            values[keyword] = places[keyword].read(found[2])
        except ValueError as error:
            raise operation_error(text, name, f"{keyword} is {found[2]}, not {error}") from None
    return values


def operation_error(text: str, name: str, why: str) -> UserError:
    """The error for a known operation with wrong brackets."""
    return UserError(f"data.augment: {text!r}: {why}; it is written {signature(name)}")


OPERATIONS = {
    "pad_crop": Operation(
        "a black border, then a crop of the old size at a random whole pixel",
        geometry.pad_crop,
        (NumberKeyword("pixels", 4, 0, 1024, whole=True),),
        masks=True,
    ),
    "shift": Operation(
        "a move along each axis by up to so many pixels, fractions included",
        geometry.shift,
        (NumberKeyword("pixels", 2, 0, 1024),),
        masks=True,
    ),
    "rotate": Operation(
        "a turn about the center by up to so many degrees either way",
        geometry.rotate,
        (NumberKeyword("degrees", 15, 0, 180),),
        masks=True,
    ),
    "affine": Operation(
        "a turn (degrees), a move (pixels) and a change of size (factor 1 + scale or its inverse at most) at once",
        geometry.affine,
        (NumberKeyword("degrees", 10, 0, 180), NumberKeyword("shift", 1, 0, 1024), NumberKeyword("scale", 0.1, 0, 10)),
        masks=True,
    ),
    "flip": Operation("left and right exchanged, half of the time", geometry.flip, masks=True),
    "resized_crop": Operation(
        "a box of a random share of the area, 3:4 to 4:3, brought to the whole size",
        geometry.resized_crop,
        (NumberKeyword("min_area", 0.08, 0.001, 1), NumberKeyword("max_area", 1, 0.001, 1)),
        masks=True,
    ),
    "jitter": Operation(
        "brightness, contrast and saturation by factors of 1 - strength to 1 + strength; gray has no saturation",
        color.jitter,
        (
            NumberKeyword("brightness", 0.4, 0, 1),
            NumberKeyword("contrast", 0.4, 0, 1),
            NumberKeyword("saturation", 0.4, 0, 1),
        ),
        masks=True,
    ),
    "erase": Operation(
        "a black box of a random share of the area, with this probability",
        color.erase,
        (
            NumberKeyword("probability", 0.5, 0, 1),
            NumberKeyword("min_area", 0.02, 0.001, 1),
            NumberKeyword("max_area", 0.4, 0.001, 1),
        ),
        masks=True,
    ),
    "randaugment": Operation(
        "so many operations in turn, drawn from fourteen, all of one magnitude (10 is the papers' full range)",
        policies.randaugment,
        (NumberKeyword("count", 2, 0, 14, whole=True), NumberKeyword("magnitude", 9, 0, 30)),
        all_rows=True,
    ),
    "trivialaugment": Operation(
        "one operation drawn from fourteen, of any strength, in wide ranges", policies.trivialaugment, all_rows=True
    ),
    "mixup": Operation(
        "two images added, w and 1 - w, labels too; w from Beta(alpha, alpha), alpha 0 is off",
        mix.mixup,
        (NumberKeyword("alpha", 0.2, 0, 100),),
        mixes=True,
    ),
    "cutmix": Operation(
        "a box of another image pasted in, labels by area; 1 - w of it, w from Beta(alpha, alpha), alpha 0 is off",
        mix.cutmix,
        (NumberKeyword("alpha", 1, 0, 100),),
        mixes=True,
    ),
}
