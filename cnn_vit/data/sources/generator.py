"""Images that a function of yours gives: data.path=my_file.py:my_function, a Python generator of (image, label).

    def my_function(split):          # "train", "validation" or "test"; without a parameter, a tenth each is set apart
        for image, label in ...:
            yield image, label

An image is an array of uint8, (H, W), (H, W, 1) or (H, W, 3), or a Pillow image; a label is an integer from 0 or a
text. All are kept in memory; a split that gives nothing is none. The function must give the same each time: a run that
is resumed compares.

The file is run, with all the rights of who runs the command. So it is only run where a recipe or a command line names
it: the commands that read a run folder refuse this source unless it is said again, --data=my_file.py:my_function.
"""

import inspect
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cnn_vit.data.base.parts import (
    PARTS,
    EncodedPart,
    Part,
    SourceData,
    SourceInfo,
    SourceOptions,
    pixel_part,
    require_path,
)
from cnn_vit.errors import UserError
from cnn_vit.settings import recipes

FORM = "write data.path=FILE.py:FUNCTION"
MOST = 8 * 2**30  # bytes of pixels of one split
CLASSES = 1_000_000  # at most
Example = tuple[np.ndarray, int | str]


def about(given: SourceOptions) -> SourceInfo:
    """Nothing is known before looking; the path's form is checked and nothing is run.

    Raises:
        UserError: it is none.
    """
    split_path(require_path("generator", given))
    return SourceInfo()


def load(given: SourceOptions) -> SourceData:
    """The parts, in memory. Runs the file.

    Raises:
        UserError: no such file or function, whatever it raises (with file and line), examples that are none.
    """
    text = require_path("generator", given)
    path, name = split_path(text)
    if not path.is_file():
        raise UserError(f"{path} is not there; {FORM}")
    function = getattr(recipes.run_file(path, name=str(path)), name, None)
    if not callable(function):
        raise UserError(f"{path} has no function {name!r}; {FORM}")
    divided = takes_split(function)
    splits = PARTS if divided else PARTS[:1]
    examples = {part: take_examples(path, function, part if divided else None) for part in splits}
    if not examples["train"]:
        raise UserError(f"{text} gives nothing to train on; yield (image, label)")
    marks = {part: [label for _, label in found] for part, found in examples.items() if found}
    classes, labels = number_labels(text, marks, given.classes)
    parts = {part: part_of([image for image, _ in examples[part]], labels[part], f"{text} {part}") for part in labels}
    return SourceData(classes, parts, is_undivided=not divided)


def split_path(text: str) -> tuple[Path, str]:
    """File and function of a path."""
    path, _, name = text.rpartition(":")
    if not path.endswith(".py") or not name.isidentifier():
        raise UserError(f"data.path is {text!r}; data.name=generator runs a function of a Python file: {FORM}")
    return Path(path), name


def takes_split(function: Callable) -> bool:
    """Whether a function wants to know the split.

    Raises:
        UserError: it wants more.
    """
    try:
        words = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise UserError(f"{function!r} cannot be called here ({error}); make it a plain function of split") from error
    needed = [word for word in words if word.default is word.empty
              and word.kind not in (word.VAR_POSITIONAL, word.VAR_KEYWORD)]  # fmt: skip
    if len(needed) > 1 or any(word.kind is word.KEYWORD_ONLY for word in needed):
        names = ", ".join(word.name for word in needed)
        raise UserError(f"{getattr(function, '__name__', function)} needs {names}; it may take one thing, the split")
    return bool(needed) or any(word.name == "split" for word in words)


def take_examples(path: Path, function: Callable, part: str | None) -> list[Example]:
    """All examples of one split; what the function raises is told with its line."""
    name = getattr(function, "__name__", "it")
    with recipes.recipe_errors(path, name=str(path)):
        given: Iterable[Any] = function() if part is None else function(part)
        return list(checked_examples(() if given is None else given, f"{path}:{name}"))


def checked_examples(given: Iterable[Any], where: str) -> Iterator[Example]:
    """Checked examples.

    Raises:
        UserError: one that is none, or more than fit.
    """
    if isinstance(given, str | bytes | dict) or not isinstance(given, Iterable):
        raise UserError(f"{where} gives a {type(given).__name__}; make it a generator: yield image, label")
    weight = 0
    for place, one in enumerate(given):
        if not isinstance(one, tuple | list) or len(one) != 2:
            raise UserError(f"{where}: example {place} is no pair (image, label) but {type(one).__name__}")
        image, label = to_pixels(one[0], f"{where}: image {place}"), one[1]
        if isinstance(label, bool | np.bool_) or not isinstance(label, int | np.integer | str) or label == "":
            raise UserError(f"{where}: label {place} is {label!r:.60}; it is an integer from 0, or a text")
        weight += image.nbytes
        if weight > MOST:
            raise UserError(f"{where} gives more than {MOST:,} bytes of pixels; write them into a folder or an npz")
        yield image, str(label) if isinstance(label, str) else int(label)


def to_pixels(image: Any, where: str) -> np.ndarray:  # -> (H, W, C)
    """An image as an array of its own.

    Raises:
        UserError: it is none.
    """
    if isinstance(image, Image.Image):
        image = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    found = np.array(image)
    if found.dtype != np.uint8:
        turned = "; for values 0 to 1 give (255 * image).round().astype(numpy.uint8)" * (found.dtype.kind == "f")
        raise UserError(f"{where} is {found.dtype}, it is an array of uint8, 0 to 255{turned}")
    found = found[..., None] if found.ndim == 2 else found
    if found.ndim != 3 or found.shape[-1] not in (1, 3) or not found.size:
        raise UserError(f"{where} has the shape {np.shape(image)}; it is (H, W), (H, W, 1) or (H, W, 3)")
    return found


def number_labels(
    text: str, labels: dict[str, list[int | str]], asked: int | None
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Classes and labels (N,): texts are numbered in their order; integers stand for themselves.

    Raises:
        UserError: both kinds, a label below 0 or beyond the classes of train.
    """
    kinds = {type(label) for found in labels.values() for label in found}
    if len(kinds) > 1:
        raise UserError(f"{text} gives texts and integers as labels; give one of the two")
    if kinds == {str}:
        classes = tuple(sorted({str(label) for label in labels["train"]}))
    else:
        most = max(int(label) for label in labels["train"]) + 1
        if most > CLASSES:
            raise UserError(f"{text} gives the label {most - 1:,}; number the classes from 0")
        classes = tuple(map(str, range(max(most, asked or 0))))
    numbers = {name: number for number, name in enumerate(classes)}
    for part, found in labels.items():
        if other := next((label for label in found if str(label) not in numbers), None):
            raise UserError(f"{text} gives {other!r} in {part}; train has the classes {', '.join(classes)[:200]}")
    return classes, {part: np.array([numbers[str(one)] for one in found], np.int32) for part, found in labels.items()}


def part_of(images: list[np.ndarray], labels: np.ndarray, where: str) -> Part:
    """A part: an array where all images have one shape, else files in memory."""
    if len({image.shape for image in images}) == 1:
        return pixel_part(np.stack(images), labels)
    files = [to_bmp(image) for image in images]
    return EncodedPart(
        labels=labels,
        content=lambda index, most: files[index][:most],
        sizes=np.array([len(one) for one in files], np.int64),
        where=lambda index: f"{where}[{index}]",
    )


def to_bmp(image: np.ndarray) -> bytes:
    """Pixels as a BMP, exactly: the fastest format that `images` reads."""
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "BMP")
    return buffer.getvalue()
