"""JSON files of a run folder, read back: each is what a run writes, or an error names it."""

from pathlib import Path
from typing import Any

from cnn_vit import files
from cnn_vit.data.base.padding import PAD_BATCH
from cnn_vit.errors import UserError


def read_object(path: Path, **kinds: type) -> dict[str, Any]:
    """A JSON object whose values of these names are there and of these kinds.

    Raises:
        UserError: it is none.
        SurroundingsError: it cannot be read.
    """
    found = files.read_json(path)
    if not isinstance(found, dict) or not all(isinstance(found.get(name), kind) for name, kind in kinds.items()):
        raise not_as_written(path)
    return found


def read_classes(path: Path) -> tuple[str, ...]:
    """Names of the classes; errors as of `read_object`."""
    found = files.read_json(path)
    if not isinstance(found, list) or not found or not all(isinstance(name, str) for name in found):
        raise UserError(f"{path} is not a list of names; put it back from a copy")
    return tuple(found)


def read_preprocessing(path: Path) -> dict[str, Any]:
    """How images become the network's; errors as of `read_object`."""
    found = read_object(path, image_size=list, channels=int, fit=str, mean=list, std=list)
    sides, each = found["image_size"], (found["mean"], found["std"])
    whole = is_height_and_width(sides)
    numbers = all(isinstance(number, int | float) for one in each for number in one)
    if found["fit"] == PAD_BATCH:
        sizes = found.get("sizes")
        whole = (
            whole
            and isinstance(sizes, list)
            and all(is_height_and_width(size) for size in sizes)
            and sizes[-1:] == [sides]
        )
    if not whole or not numbers or {len(one) for one in each} != {found["channels"]} or found["channels"] not in (1, 3):
        raise not_as_written(path)
    return found


def is_height_and_width(value: object) -> bool:
    """Whether it is a height and a width."""
    return isinstance(value, list) and len(value) == 2 and all(isinstance(side, int) and side > 0 for side in value)


def read_result(path: Path) -> dict[str, Any]:
    """The result of a finished run; errors as of `read_object`."""
    found = read_object(path, tested=dict)
    if not isinstance(found["tested"].get("step"), int):
        raise not_as_written(path)
    return found


def not_as_written(path: Path) -> UserError:
    """The error for a file that no run writes so."""
    return UserError(f"{path} is not as a run writes it; put it back from a copy or remove it")
