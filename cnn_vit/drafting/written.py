"""A recipe as text: settings -> the Python file that says them, as `recipes` reads it back and ruff would leave it."""

from collections.abc import Mapping
from typing import Any

LONGEST = 120  # characters of a line
QUOTES = '"""'


def recipe_source(docstring: str, found: Mapping[str, Any], comments: Mapping[str, str]) -> str:
    """The text of a recipe without words of its own.

    Args:
        docstring: what the file says of itself, lines.
        found: settings, flat, in the order to be written: {"data.name": "folder", "duration": "20 epochs"}.
        comments: what stands behind a setting, or above it where that is too long.
    """
    lines = [
        f"{QUOTES}{escape_docstring(docstring.strip())}",
        QUOTES,
        "",
        "from ml_collections import ConfigDict",
        "",
        "",
    ]
    lines += ['def get_config(mode: str = "") -> ConfigDict:', '    """The recipe; it has no words but `smoke`."""']
    lines += ["    config = ConfigDict()"]
    section = None
    for key, value in found.items():
        before, section = section, key.rpartition(".")[0]
        if section != before:
            lines += ["", *([f"    config.{section} = ConfigDict()"] if section else [])]
        lines += statement(key, value, comments.get(key, ""))
    return "\n".join([*lines, "    return config", ""])


def statement(key: str, value: Any, comment: str) -> list[str]:
    """The lines that set a value."""
    line = f"    config.{key} = {python_literal(value)}"
    if comment and len(line) + len(comment) + 4 <= LONGEST:
        return [f"{line}  # {comment}"]
    above = [f"    # {comment}"] if comment else []
    inside = f"        {python_literal(value)}"
    if len(line) > LONGEST and isinstance(value, str) and len(inside) <= LONGEST:
        return [*above, f"    config.{key} = (", inside, "    )"]
    return [*above, line]


def python_literal(value: Any) -> str:
    """A plain value as Python writes it, texts in the quotes that take fewer backslashes, double ones before single."""
    if isinstance(value, str):
        quote = "'" if value.count('"') > value.count("'") else '"'
        letters = (f"\\{one}" if one == quote else one if one in "'\"" else repr(one)[1:-1] for one in value)
        return f"{quote}{''.join(letters)}{quote}"
    if isinstance(value, tuple):
        return f"({', '.join(map(python_literal, value))}{',' * (len(value) == 1)})"
    return repr(value)


def escape_docstring(text: str) -> str:
    """A text for a docstring: what would end it, or be read as something else, behind a backslash."""
    letters = (
        "\\\\" if one == "\\" else one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode()
        for one in text
    )
    return "".join(letters).replace(QUOTES, '\\"\\"\\"')
