"""Writes a recipe: settings -> the text of the Python file that sets them, as `recipes` reads it and ruff leaves it."""

from collections.abc import Mapping
from typing import Any

LONGEST = 120  # characters of a line
QUOTES = '"""'


def recipe_source(docstring: str, settings: Mapping[str, Any], comments: Mapping[str, str]) -> str:
    """Returns the text of a recipe without words of its own.

    Args:
        docstring: what the file says of itself, lines.
        settings: flat, in the order to be written: {"data.name": "folder", "duration": "20 epochs"}.
        comments: what stands behind a setting, or above it where the line would be too long.
    """
    lines = [
        f"{QUOTES}{escape_docstring(docstring.strip())}",
        QUOTES,
        "",
        "from ml_collections import ConfigDict",
        "",
        "",
        'def get_config(mode: str = "") -> ConfigDict:',
        '    """The recipe; it has no words but `smoke`."""',
        "    config = ConfigDict()",
    ]
    section = None  # of the setting before
    for key, value in settings.items():
        section_before, section = section, key.rpartition(".")[0]
        if section != section_before:
            lines.append("")
            if section:  # a key without a point, such as `duration`, stands in no section
                lines.append(f"    config.{section} = ConfigDict()")
        lines += assignment_lines(key, value, comments.get(key, ""))
    return "\n".join([*lines, "    return config", ""])


def assignment_lines(key: str, value: Any, comment: str) -> list[str]:
    """Returns the lines that set a value, with its comment if it has one."""
    literal = python_literal(value)
    line = f"    config.{key} = {literal}"
    if comment and len(f"{line}  # {comment}") <= LONGEST:
        return [f"{line}  # {comment}"]
    lines = [f"    # {comment}"] if comment else []
    line_in_parentheses = f"        {literal}"
    # ruff puts a long text into parentheses, but only where it fits on a line of its own
    if len(line) > LONGEST and isinstance(value, str) and len(line_in_parentheses) <= LONGEST:
        return [*lines, f"    config.{key} = (", line_in_parentheses, "    )"]
    return [*lines, line]


def python_literal(value: Any) -> str:
    """Returns a plain value as Python writes it.

    A text stands in the quotes that take fewer backslashes, in double ones where both take as many.
    """
    if isinstance(value, tuple):
        comma = "," if len(value) == 1 else ""
        return f"({', '.join(map(python_literal, value))}{comma})"
    if not isinstance(value, str):
        return repr(value)
    quote = "'" if value.count('"') > value.count("'") else '"'
    letters: list[str] = []
    for letter in value:
        if letter == quote:
            letters.append(f"\\{letter}")
        elif letter in "'\"":
            letters.append(letter)
        else:
            letters.append(repr(letter)[1:-1])  # what cannot be printed is escaped, without the quotes
    return f"{quote}{''.join(letters)}{quote}"


def escape_docstring(text: str) -> str:
    """Returns a text for a docstring: what would end it, or be read as something else, stands behind a backslash."""
    letters: list[str] = []
    for letter in text:
        if letter == "\\":
            letters.append("\\\\")
        elif letter.isprintable() or letter == "\n":
            letters.append(letter)
        else:
            letters.append(letter.encode("unicode_escape").decode())
    return "".join(letters).replace(QUOTES, '\\"\\"\\"')
