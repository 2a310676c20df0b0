"""Images that a function of yours gives: data.path=my_file.py:my_function, a Python generator of (image, label).

    def my_function(split):          # "train", "validation" or "test"; without a parameter, a tenth each is set apart
        for image, label in ...:
            yield image, label

An image is an array of uint8, (H, W), (H, W, 1) or (H, W, 3), or a Pillow image, which becomes pixels as a file does:
upright, on white, 16 bits as 8 (`decode/pixel_rules.py`). A label is an integer from 0 or a text. All are kept in
memory; a split for which the function gives nothing does not exist. The function must give the same each time: a run
that is resumed compares.

The file is run, with all the rights of who runs the command. So it is only run where a recipe or a command line names
it: the commands that read a run folder refuse this source unless it is named again, --data=my_file.py:my_function.
"""

import inspect
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cnn_vit.data.base.parts import (
    PARTS,
    DecodingOptions,
    EncodedPart,
    Part,
    SourceData,
    SourceInfo,
    SourceOptions,
    pixel_part,
    require_path,
)
from cnn_vit.data.decode import caller_images
from cnn_vit.errors import UserError
from cnn_vit.settings import recipes

FORM = "write data.path=FILE.py:FUNCTION"
LARGEST = 8 * 2**30  # bytes of pixels of one split, at most
CLASSES = 1_000_000  # at most


@dataclass(frozen=True)
class Example:
    """What the function gave, checked.

    Attributes:
        pixels: (H, W, C) uint8.
        label: an integer from 0, or a text.
        highest_level: the highest level of an image of 16 bits; None of one of fewer bits.
    """

    pixels: np.ndarray
    label: int | str
    highest_level: int | None


def about(options: SourceOptions) -> SourceInfo:
    """Returns an empty record: nothing is known before the file is run. The form of the path is checked.

    Raises:
        UserError: the path does not name a function of a file.
    """
    split_path(require_path("generator", options))
    return SourceInfo()


def load(options: SourceOptions) -> SourceData:
    """Runs the file and reads the parts into memory.

    Raises:
        UserError: there is no such file or function, the function raises something (the sentence has file and line),
            or what it gives are not examples.
    """
    text = require_path("generator", options)
    path, name = split_path(text)
    if not path.is_file():
        raise UserError(f"{path} is not there; {FORM}")
    function = getattr(recipes.run_file(path, name=str(path)), name, None)
    if not callable(function):
        raise UserError(f"{path} has no function {name!r}; {FORM}")
    is_divided = takes_split(function)
    images: dict[str, list[np.ndarray]] = {}
    levels: list[int | None] = []
    raw_labels: dict[str, list[int | str]] = {}
    for part in PARTS if is_divided else ("train",):
        examples = read_examples(path, function, part if is_divided else None, options.decoding)
        if examples:
            images[part] = [example.pixels for example in examples]
            raw_labels[part] = [example.label for example in examples]
            levels += [example.highest_level for example in examples]
    if "train" not in images:
        raise UserError(f"{text} gives nothing to train on; yield (image, label)")
    classes, labels = number_labels(text, raw_labels, options.classes)
    parts = {part: make_part(images[part], labels[part], f"{text} {part}") for part in images}
    highest_level = max((level for level in levels if level is not None), default=None)
    return SourceData(
        classes,
        parts,
        is_undivided=not is_divided,
        highest_level=highest_level,
        is_named=isinstance(raw_labels["train"][0], str),
    )


def split_path(text: str) -> tuple[Path, str]:
    """Returns the file and the function that a path names, or raises UserError where it has another form."""
    path, _, name = text.rpartition(":")
    if not path.endswith(".py") or not name.isidentifier():
        raise UserError(f"data.path is {text!r}; data.name=generator runs a function of a Python file: {FORM}")
    return Path(path), name


def takes_split(function: Callable) -> bool:
    """Whether a function takes the name of the split.

    Raises:
        UserError: it needs more than that.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise UserError(f"{function!r} cannot be called here ({error}); make it a plain function of split") from error
    needed: list[inspect.Parameter] = []
    for parameter in parameters:
        takes_any_number = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.default is parameter.empty and not takes_any_number:
            needed.append(parameter)
    # The split is given by position, so that a parameter may have any name
    if len(needed) > 1 or any(parameter.kind is parameter.KEYWORD_ONLY for parameter in needed):
        names = ", ".join(parameter.name for parameter in needed)
        raise UserError(f"{getattr(function, '__name__', function)} needs {names}; it may take one thing, the split")
    return bool(needed) or any(parameter.name == "split" for parameter in parameters)


def read_examples(path: Path, function: Callable, part: str | None, decoding: DecodingOptions) -> list[Example]:
    """Returns all examples of one split; part is None for a function that does not take the split.

    Raises:
        UserError: the function raises something (the sentence has its line), or gives something else than examples.
    """
    name = getattr(function, "__name__", "it")
    with recipes.recipe_errors(path, name=str(path)):
        examples = function() if part is None else function(part)
        if examples is None:  # a function without a yield or a return gives nothing
            return []
        return list(check_examples(examples, f"{path}:{name}", decoding))


def check_examples(examples: Any, where: str, decoding: DecodingOptions) -> Iterator[Example]:
    """Yields each example once it is checked.

    Args:
        examples: what the function gave.
        where: the file and the function, as an error names them.
        decoding: how Pillow's images become pixels.

    Raises:
        UserError: one is not an image with a label, or they are more than fit into memory.
    """
    # A text, bytes and a dict can be iterated over but are surely not pairs of image and label
    if isinstance(examples, str | bytes | dict) or not isinstance(examples, Iterable):
        raise UserError(f"{where} gives a {type(examples).__name__}; make it a generator: yield image, label")
    total_bytes = 0
    for index, example in enumerate(examples):
        if not isinstance(example, tuple | list) or len(example) != 2:
            raise UserError(f"{where}: example {index} is not a pair (image, label) but {type(example).__name__}")
        image, label = example
        decoded = caller_images.decode_caller_image(image, f"{where}: image {index}", channels=None, options=decoding)
        # bool is a kind of int in Python; it is refused, for 0 and 1 are hardly meant
        is_number = isinstance(label, int | np.integer) and not isinstance(label, bool)
        is_text = isinstance(label, str) and label != ""
        if not is_number and not is_text:
            raise UserError(f"{where}: label {index} is {label!r:.60}; it must be an integer from 0, or a text")
        total_bytes += decoded.pixels.nbytes
        if total_bytes > LARGEST:
            raise UserError(f"{where} gives more than {LARGEST:,} bytes of pixels; write them into a folder or an npz")
        yield Example(decoded.pixels, str(label) if is_text else int(label), decoded.highest_level)


def number_labels(
    text: str, labels: dict[str, list[int | str]], least_classes: int | None
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Returns the classes and the labels (N,) of each part as numbers.

    Texts are numbered in their order; integers stand for themselves.

    Args:
        text: the path, as an error names it.
        labels: labels of each part as the function gave them.
        least_classes: number of classes that there are at least where labels are integers; None: as many as train has.

    Raises:
        UserError: labels are of both kinds, below 0, or not among the classes of train.
    """
    kinds: set[type] = set()
    for part_labels in labels.values():
        kinds.update(type(label) for label in part_labels)
    if len(kinds) > 1:
        raise UserError(f"{text} gives texts and integers as labels; give one of the two")
    if kinds == {str}:
        classes = tuple(sorted({str(label) for label in labels["train"]}))
    else:
        largest = max(int(label) for label in labels["train"])
        if largest + 1 > CLASSES:  # before a name is made for each class
            raise UserError(f"{text} gives the label {largest:,}; number the classes from 0")
        classes = tuple(str(number) for number in range(max(largest + 1, least_classes or 0)))
    number_of = {name: number for number, name in enumerate(classes)}
    numbered: dict[str, np.ndarray] = {}
    for part, part_labels in labels.items():
        for label in part_labels:
            if str(label) not in number_of:
                raise UserError(f"{text} gives {label!r} in {part}; train has the classes {', '.join(classes)[:200]}")
        numbered[part] = np.array([number_of[str(label)] for label in part_labels], np.int32)
    return classes, numbered


def make_part(images: list[np.ndarray], labels: np.ndarray, where: str) -> Part:
    """Returns a part: an array where all images (H, W, C) have one shape, else files in memory."""
    if len({image.shape for image in images}) == 1:
        return pixel_part(np.stack(images), labels)
    # Files may have different sizes, which the house brings to one; pixels may not
    files = [to_bmp(image) for image in images]
    return EncodedPart(
        labels=labels,
        content=lambda index, most: files[index][:most],
        sizes=np.array([len(file) for file in files], np.int64),
        path_of=lambda index: f"{where}[{index}]",
    )


def to_bmp(image: np.ndarray) -> bytes:
    """Returns pixels (H, W, C) as a BMP, exactly: the fastest format that `images` reads."""
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "BMP")
    return buffer.getvalue()
