"""Random changes of training images, computed on the device inside the compiled step.

A recipe writes its operations in order as texts, `("pad_crop(4)", "flip", "mixup(0.2)")`: a name of OPERATIONS and its
numbers, by position or by name. The numbers are arguments of the compiled program: another strength compiles nothing.

Randomness: the operation at place p of the recipe draws from `fold_in(row_key, p)`, so that an image's changes depend
on nothing around it; a mixing operation draws one weight and one permutation of the batch from `fold_in(mix_key, p)`.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cnn_vit.data.augment import color, geometry, mix, policies
from cnn_vit.errors import UserError, unknown

OPERATION = re.compile(r"\s*(\w+)\s*(?:\(([^()]*)\)\s*)?")  # flip, flip(), pad_crop(4), jitter(0.4, saturation=0)
NUMBER = re.compile(r"\s*(?:(\w+)\s*=)?\s*([^\s=]+)\s*")  # 0.4 or saturation=0


@dataclass(frozen=True)
class NumberKeyword:
    """A number that an operation takes in brackets.

    Attributes:
        name: its keyword.
        default: its value where none is written.
        low: the smallest value allowed.
        high: the largest value allowed.
        is_whole: whether it must be a whole number.
    """

    name: str
    default: float
    low: float
    high: float
    is_whole: bool = False

    def parse(self, text: str) -> float:
        """Reads the number from a text.

        Raises:
            ValueError: the text is not `a whole number from 0 to 1024`; the message is such a phrase.
        """
        try:
            value = float(text)
        except ValueError:
            value = math.nan  # fails the comparison below
        if not self.low <= value <= self.high or (self.is_whole and not value.is_integer()):
            raise ValueError(f"a {'whole ' if self.is_whole else ''}number from {self.low:g} to {self.high:g}")
        return value

    def __str__(self) -> str:
        """Returns the keyword with its default as in a signature: `pixels=4`."""
        return f"{self.name}={self.default:g}"


@dataclass(frozen=True)
class Operation:
    """One kind of random change.

    Attributes:
        meaning: what it does, in one line.
        change: (image, key, *numbers) -> image; where `all_rows`, (images, keys, *numbers) -> images; where `mixes`,
            (images, target, key, *numbers) -> (images, target).
        numbers: the numbers that it takes in brackets.
        mixes: whether it works on the whole batch and changes the labels together with the pixels.
        all_rows: whether it takes all rows with their keys, and itself makes sure that no row depends on another.
        masks: whether it has a keyword `mask` (H, W) and changes an image on a larger canvas as if it were alone.
    """

    meaning: str
    change: Callable
    numbers: tuple[NumberKeyword, ...] = ()
    mixes: bool = False
    all_rows: bool = False
    masks: bool = False


# Random keys ----------------------------------------------------------------------------------------------------------


class StepKeys(NamedTuple):
    """The random keys of one training step.

    Attributes:
        row_keys: (B,) keys, one for each row of the global batch: they decide on the changes of its image.
        mix_key: the key of the operations that mix images.
        dropout_key: the key of dropout.
    """

    row_keys: jax.Array
    mix_key: jax.Array
    dropout_key: jax.Array


def split_step_key(key: jax.Array, step: jax.Array | int, rows: int) -> StepKeys:
    """Derives all random keys of one training step from the key of the run.

    The key of the step is `fold_in(key, step)`; split in three it gives a key for the rows, the mix key and the dropout
    key. Row r has the key `fold_in(key for the rows, r)`, so that its draws depend on neither its neighbors nor `rows`.

    Args:
        key: the key of the run.
        step: the number of updates done before this step.
        rows: B, rows of the global batch.
    """
    key_of_rows, mix_key, dropout_key = jax.random.split(jax.random.fold_in(key, step), 3)
    row_keys = jax.vmap(jax.random.fold_in, (None, 0))(key_of_rows, jnp.arange(rows))
    return StepKeys(row_keys, mix_key, dropout_key)


# A batch --------------------------------------------------------------------------------------------------------------


def build_augmentation(operations: Sequence[str], num_classes: int) -> Callable:
    """Builds the function that augments a batch.

    Args:
        operations: texts or bare names; numbers written in them are not read, they come with each call.
        num_classes: K.

    Returns:
        augment(images (B, H, W, C) uint8, labels (B,) int32, row_keys (B,) keys, mix_key, numbers, mask=None) ->
        (images (B, H, W, C) float32 in 0..1, target (B, K) float32, each row a distribution). `numbers` are what
        `operation_numbers` returns, or the same as arrays. `mask` (B, H, W) is True on each image's own pixels; the
        others are black, before and after.

    Raises:
        UserError: as `check`.
    """
    chosen = [OPERATIONS[name] for name in operation_names(operations)]

    def augment(images, labels, row_keys, mix_key, numbers, mask=None):
        # Floats from here to the end: operations that follow one another do not round in between.
        images = images.astype(jnp.float32) / 255
        target = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)
        for place, (operation, strengths) in enumerate(zip(chosen, numbers, strict=True)):
            if operation.mixes:
                key = jax.random.fold_in(mix_key, place)
                images, target = mix.apply_mixing(operation.change, images, target, key, *strengths)
            else:
                keys = jax.vmap(jax.random.fold_in, (0, None))(row_keys, place)
                images = change_images(operation, images, keys, strengths, mask)
        return images, target

    return augment


def change_images(
    operation: Operation, images: jax.Array, keys: jax.Array, strengths: Sequence, mask: jax.Array | None
) -> jax.Array:  # (B, H, W, C), (B,) -> (B, H, W, C)
    """Changes each image of a batch with its own key; with a mask as if it were alone, its canvas black elsewhere."""
    if mask is not None:

        def change_on_canvas(image, mask, key):
            # Black again: an operation may write anything outside the mask.
            return jnp.where(mask[..., None], operation.change(image, key, *strengths, mask=mask), 0)

        return jax.vmap(change_on_canvas)(images, mask, keys)
    if operation.all_rows:
        return operation.change(images, keys, *strengths)
    in_axes = (0, 0, *[None] * len(strengths))  # one strength for all rows
    return jax.vmap(operation.change, in_axes)(images, keys, *strengths)


# What a recipe writes -------------------------------------------------------------------------------------------------


def check(operations: Sequence[str], *, masked: bool = False) -> None:
    """Refuses texts that are not operations or have wrong numbers.

    Args:
        operations: what the recipe writes.
        masked: whether images have several sizes: then operations that cannot tell an image from its padding are
            refused, too.

    Raises:
        UserError: naming the text, what it takes, and the nearest names.
    """
    for text in operations:
        name, _ = parse_operation(text)
        if masked and not OPERATIONS[name].masks:
            choices = ", ".join(name for name, operation in OPERATIONS.items() if operation.masks)
            raise UserError(
                f"data.augment: {name} cannot change images of several sizes (data.fit=pad_batch); take of {choices}"
            )


def operation_names(operations: Sequence[str]) -> tuple[str, ...]:
    """Returns the operations without their numbers: all that shapes the compiled program."""
    return tuple(parse_operation(text)[0] for text in operations)


def operation_numbers(operations: Sequence[str]) -> list[list[float]]:
    """Returns the numbers of the operation at each place, defaults filled in, in the order of its signature."""
    return [parse_operation(text)[1] for text in operations]


def signature(name: str) -> str:
    """Returns how an operation is written, with its defaults: `affine(degrees=10, shift=1, scale=0.1)`."""
    numbers = OPERATIONS[name].numbers
    return f"{name}({', '.join(map(str, numbers))})" if numbers else name


def parse_operation(text: str) -> tuple[str, list[float]]:
    """Reads the name and the numbers of one operation, defaults filled in. Nothing is executed.

    Raises:
        UserError: as `check`.
    """
    match = OPERATION.fullmatch(text) if isinstance(text, str) else None
    if not match:
        raise UserError(f"data.augment: {text!r} is not written as an operation, such as flip or pad_crop(4)")
    name, in_brackets = match[1], match[2] or ""
    if name not in OPERATIONS:
        raise unknown("operation of data.augment", name, OPERATIONS)
    # In the order of the signature, which writing over defaults does not change.
    values = {number.name: float(number.default) for number in OPERATIONS[name].numbers}
    if in_brackets.strip():
        values |= parse_numbers(text, name, in_brackets.split(","))
    if "max_area" in values and values["min_area"] > values["max_area"]:
        raise operation_error(text, name, f"min_area {values['min_area']:g} is above max_area {values['max_area']:g}")
    return name, list(values.values())


def parse_numbers(text: str, name: str, written: list[str]) -> dict[str, float]:
    """Reads the numbers written in the brackets of an operation, by keyword.

    Raises:
        UserError: as `check`.
    """
    numbers = {number.name: number for number in OPERATIONS[name].numbers}
    if len(written) > len(numbers):
        raise operation_error(text, name, "too many numbers")
    values: dict[str, float] = {}
    was_named = False
    for place, number in enumerate(written):
        match = NUMBER.fullmatch(number)
        if not match or (was_named and not match[1]):  # as in Python, no position follows a keyword
            raise operation_error(text, name, f"{number.strip()!r} is not a number and not keyword=number")
        was_named = bool(match[1])
        keyword = match[1] or list(numbers)[place]
        if keyword in values:
            raise operation_error(text, name, f"{keyword} is given twice")
        if keyword not in numbers:
            raise operation_error(text, name, f"there is no {keyword!r}")
        try:
            values[keyword] = numbers[keyword].parse(match[2])
        except ValueError as error:
            raise operation_error(text, name, f"{keyword} is {match[2]}, not {error}") from None
    return values


def operation_error(text: str, name: str, reason: str) -> UserError:
    """Returns the error for a known operation with wrong brackets."""
    return UserError(f"data.augment: {text!r}: {reason}; it is written {signature(name)}")


OPERATIONS = {
    "pad_crop": Operation(
        "adds a black border, then cuts out the old size at a random whole pixel",
        geometry.pad_crop,
        (NumberKeyword("pixels", 4, 0, 1024, is_whole=True),),
        masks=True,
    ),
    "shift": Operation(
        "moves along each axis by up to so many pixels, fractions included",
        geometry.shift,
        (NumberKeyword("pixels", 2, 0, 1024),),
        masks=True,
    ),
    "rotate": Operation(
        "turns about the center by up to so many degrees either way",
        geometry.rotate,
        (NumberKeyword("degrees", 15, 0, 180),),
        masks=True,
    ),
    "affine": Operation(
        "turns (degrees), moves (pixels) and resizes (by 1 + scale or its inverse at most) at once",
        geometry.affine,
        (NumberKeyword("degrees", 10, 0, 180), NumberKeyword("shift", 1, 0, 1024), NumberKeyword("scale", 0.1, 0, 10)),
        masks=True,
    ),
    "flip": Operation("exchanges left and right, half of the time", geometry.flip, masks=True),
    "resized_crop": Operation(
        "brings a box of a random share of the area, 3:4 to 4:3, to the whole size",
        geometry.resized_crop,
        (NumberKeyword("min_area", 0.08, 0.001, 1), NumberKeyword("max_area", 1, 0.001, 1)),
        masks=True,
    ),
    "jitter": Operation(
        "scales brightness, contrast and saturation by 1 - strength to 1 + strength; gray has no saturation",
        color.jitter,
        (
            NumberKeyword("brightness", 0.4, 0, 1),
            NumberKeyword("contrast", 0.4, 0, 1),
            NumberKeyword("saturation", 0.4, 0, 1),
        ),
        masks=True,
    ),
    "erase": Operation(
        "blackens a box of a random share of the area, with this probability",
        color.erase,
        (
            NumberKeyword("probability", 0.5, 0, 1),
            NumberKeyword("min_area", 0.02, 0.001, 1),
            NumberKeyword("max_area", 0.4, 0.001, 1),
        ),
        masks=True,
    ),
    "randaugment": Operation(
        "applies so many operations in turn, drawn from fourteen, all of one magnitude (10 is the papers' full range)",
        policies.randaugment,
        (NumberKeyword("count", 2, 0, 14, is_whole=True), NumberKeyword("magnitude", 9, 0, 30)),
        all_rows=True,
    ),
    "trivialaugment": Operation(
        "applies one operation drawn from fourteen, of any strength, in wide ranges",
        policies.trivialaugment,
        all_rows=True,
    ),
    "mixup": Operation(
        "adds two images, w and 1 - w, labels too; w from Beta(alpha, alpha), alpha 0 is off",
        mix.mixup,
        (NumberKeyword("alpha", 0.2, 0, 100),),
        mixes=True,
    ),
    "cutmix": Operation(
        "pastes in a box of another image, labels by area; 1 - w of it, w from Beta(alpha, alpha), alpha 0 is off",
        mix.cutmix,
        (NumberKeyword("alpha", 1, 0, 100),),
        mixes=True,
    ),
}
