"""The settings of the data: a section names its source, takes that source's keywords, and holds each value in its form.

A source is one file of `sources/`, found by its name. Its keywords are those of its function `load`, read from the
text of the file, so that nothing is imported before it is used.
"""

import ast
import functools
import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from cnn_vit import settings
from cnn_vit.data.base.parts import DecodingOptions, FitOptions, SourceOptions
from cnn_vit.errors import UserError, unknown
from cnn_vit.settings import Key, Rule, signatures
from cnn_vit.settings.signatures import Keyword
from cnn_vit.settings.values import KINDS, check_value

SOURCES = Path(__file__).with_name("sources")
AUGMENT = Path(__file__).with_name("augment") / "__init__.py"
DEFAULTS = {key.removeprefix("data."): row.default for key, row in settings.KEYS.items() if key.startswith("data.")}
# The settings of how any image is read. They travel with a network, under the same names, in its preprocessing.json.
READING_KEYS = ("fit", "interpolation", "levels", "max_pixels")


def names() -> dict[str, str]:
    """Lists the sources, and of each the first line of its docstring: what it is."""
    return {path.stem: signatures.read_summary(path) for path in sorted(SOURCES.glob("[!_]*.py"))}


@functools.cache
def read_keywords(source: str) -> dict[str, Keyword]:
    """Reads the keywords of a source from the text of its file.

    Raises:
        UserError: there is no such source.
    """
    if source not in names():
        raise unknown("data source", source, names())
    return signatures.read_keywords(signatures.parse_file(SOURCES / f"{source}.py"), "load")


@functools.cache
def read_operations() -> dict[str, Rule]:
    """Reads the operations of `data.augment` from the text of their file: of each its meaning and its numbers."""
    module = signatures.parse_file(AUGMENT)
    operations = {}
    for name, entry in signatures.read_entries(module, "OPERATIONS").items():
        meaning, _, *numbers = call_arguments(entry)
        keys = {}
        for number in getattr(numbers[0], "elts", ()) if numbers else ():
            keyword, default, low, high = map(ast.literal_eval, call_arguments(number))
            is_whole = any(word.arg == "is_whole" for word in number.keywords)
            keys[keyword] = Key("int" if is_whole else "float", default, f"[{low}, {high}]", "")
        operations[name] = Rule(name, ast.literal_eval(meaning), keys)
    return operations


def call_arguments(call: ast.expr) -> list[ast.expr]:
    """Returns the positional arguments of a call, as code.

    Raises:
        LookupError: it is not a call.
    """
    if not isinstance(call, ast.Call):
        raise LookupError(f"{ast.unparse(call)} is not a call")
    return call.args


def complete_section(section: Mapping[str, Any]) -> dict[str, Any]:
    """Completes a section of data settings: every common key and every keyword of the source, each of its type.

    Args:
        section: settings without `data.`, the source's name among them; what is left out gets its default.

    Raises:
        UserError: an unknown source or keyword, or a value that it does not take.
    """
    source = section.get("name")
    if not isinstance(source, str):
        raise UserError(f"data.name is {source!r}; it takes {' or '.join(names())}")
    source_takes = read_keywords(source)
    for key in section:
        if key not in DEFAULTS and key not in source_takes:
            raise unknown("setting", f"data.{key}", [f"data.{choice}" for choice in (*DEFAULTS, *source_takes)])
    complete = DEFAULTS | {name: keyword.default for name, keyword in source_takes.items()}
    for key, value in section.items():
        common = settings.KEYS.get(f"data.{key}")
        if common:
            complete[key] = check_value(f"data.{key}", common, value, where="given")
        elif not is_default(value, source_takes[key].default):
            complete[key] = fit_keyword(source_takes[key], value)
    return complete


def is_default(value: Any, default: Any) -> bool:
    """Whether a value is the default, which may be one that nobody can write: an empty text."""
    return type(value) is type(default) and value == default


def fit_keyword(keyword: Keyword, value: Any) -> Any:
    """Brings the value of a source's keyword into its own form.

    Args:
        keyword: its annotation is int, float, bool, str or Literal['a', 'b'], or a name of `values.KINDS`.
        value: what a recipe or a command line gives.

    Raises:
        UserError: the keyword takes something else.
    """
    sentence = f"data.{keyword.name} is {settings.quote_value(value)}; it takes"
    if keyword.annotation.startswith("Literal["):
        choices = ast.literal_eval(f"({keyword.annotation.removeprefix('Literal[').removesuffix(']')},)")
        if value not in choices:
            raise UserError(f"{sentence} {' or '.join(choices)}")
        return value
    kind = KINDS["text" if keyword.annotation == "str" else keyword.annotation]
    try:
        return kind.fit(value)
    except (ValueError, TypeError) as error:
        raise UserError(f"{sentence} {kind.phrase}") from error


def source_keywords(complete: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keywords of the source alone, of a section that `complete_section` completed."""
    return {key: complete[key] for key in read_keywords(complete["name"])}


def source_module(name: str) -> ModuleType:
    """Imports the module of a source."""
    return importlib.import_module(f"cnn_vit.data.sources.{name}")


def source_options(complete: Mapping[str, Any]) -> SourceOptions:
    """Returns the common settings that a source may look at, of a section that `complete_section` completed."""
    image_size = height_and_width(complete["image_size"])
    return SourceOptions(
        path=complete["path"],
        image_size=image_size,
        channels=complete["channels"],
        classes=complete["classes"],
        decoding=decoding_options(complete),
    )


def decoding_options(complete: Mapping[str, Any]) -> DecodingOptions:
    """Returns what a section that `complete_section` completed, or preprocessing, says of how files become pixels."""
    return DecodingOptions(levels=complete["levels"], max_pixels=complete["max_pixels"])


def fit_options(complete: Mapping[str, Any]) -> FitOptions:
    """Returns what a completed section, or preprocessing, says of how images are brought to the image size."""
    return FitOptions(fit=complete["fit"], interpolation=complete["interpolation"])


def height_and_width(image_size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """Returns the (height, width) in pixels that an image size stands for; None for None, which leaves it open."""
    if image_size is None:
        return None
    if isinstance(image_size, int):
        return image_size, image_size
    height, width = image_size
    return height, width
