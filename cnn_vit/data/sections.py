"""A section of settings for data: the source it names, that source's keywords, each value in its own form."""

import ast
import functools
import importlib
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from cnn_vit import settings
from cnn_vit.data.base.parts import SourceOptions
from cnn_vit.errors import UserError, unknown
from cnn_vit.settings.values import KINDS, check_value

SOURCES = Path(__file__).with_name("sources")
DEFAULTS = {key.removeprefix("data."): row.default for key, row in settings.KEYS.items() if key.startswith("data.")}


def names() -> dict[str, str]:
    """Names of the sources and what each is, one line."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(SOURCES.glob("[!_]*.py"))}
    return {name: (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0] for name, text in texts.items()}


@functools.cache
def keywords(name: str) -> dict[str, tuple[Any, str, str]]:
    """Keywords of a source, read from its text: (default, type as written, meaning from the docstring)."""
    if name not in names():
        raise unknown("data source", name, names())
    body = ast.parse((SOURCES / f"{name}.py").read_text(encoding="utf-8")).body
    load = next(node for node in body if isinstance(node, ast.FunctionDef) and node.name == "load")
    meaning = meanings(ast.get_docstring(load) or "")
    return {
        word.arg: (
            inspect.Parameter.empty if default is None else ast.literal_eval(default),
            ast.unparse(word.annotation) if word.annotation else "",
            meaning.get(word.arg, ""),
        )
        for word, default in zip(load.args.kwonlyargs, load.args.kw_defaults, strict=True)
    }


def meanings(docstring: str) -> dict[str, str]:
    """The lines under `Args:`, a sentence per argument."""
    block = docstring.partition("Args:\n")[2].split("\n\n")[0]
    return {
        name: " ".join(text.split())
        for name, text in re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", block, flags=re.MULTILINE)
    }


def complete_section(section: Mapping[str, Any]) -> dict[str, Any]:
    """A section with every common key and the source's keywords, each of its type."""
    name = section.get("name")
    if not isinstance(name, str):
        raise UserError(f"data.name is {name!r}; it takes {' or '.join(names())}")
    known = keywords(name)
    for key in section:
        if key not in DEFAULTS and key not in known:
            raise unknown("setting", f"data.{key}", [f"data.{one}" for one in (*DEFAULTS, *known)])
    final = {**DEFAULTS, **{key: default for key, (default, _, _) in known.items()}}
    for key, value in section.items():
        row = settings.KEYS.get(f"data.{key}")
        if row or not is_default(value, known[key][0]):
            final[key] = (
                check_value(f"data.{key}", row, value, where="given") if row else fit_keyword(key, known[key][1], value)
            )
    return final


def is_default(value: Any, default: Any) -> bool:
    """Whether a value is the default, which may be one that nobody can write: an empty text."""
    return type(value) is type(default) and value == default


def fit_keyword(key: str, kind: str, value: Any) -> Any:
    """A keyword's value in its own form: `kind` is int, float, bool, str or Literal['a', 'b'], as written."""
    if kind.startswith("Literal["):
        choices = ast.literal_eval(f"({kind[8:-1]},)")
        if value in choices:
            return value
        raise UserError(f"data.{key} is {settings.quote_value(value)}; it takes {' or '.join(choices)}")
    rule = KINDS[{"str": "text"}.get(kind, kind)]
    try:
        return rule.fit(value)
    except (ValueError, TypeError) as error:
        raise UserError(f"data.{key} is {settings.quote_value(value)}; it takes {rule.phrase}") from error


def source_keywords(final: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of the source alone."""
    return {key: final[key] for key in keywords(final["name"])}


def source_module(name: str) -> ModuleType:
    """The module of a source."""
    return importlib.import_module(f"cnn_vit.data.sources.{name}")


def source_options(final: Mapping[str, Any]) -> SourceOptions:
    """The common settings that a source may look at."""
    return SourceOptions(final["path"], height_and_width(final["image_size"]), final["channels"], final["classes"])


def height_and_width(image_size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """(height, width) of an image size."""
    return (image_size, image_size) if isinstance(image_size, int) else image_size and (image_size[0], image_size[1])
