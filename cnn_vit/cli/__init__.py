"""Commands: words -> calls -> a printed answer. One file per command, found by its name.

A command's file has its help as docstring, `arguments(parser)` and `run(given)`; what is heavy to import is imported
inside `run`. `given` holds what `arguments` declared, and for every command `json`, `debug`, `overrides` (the
`--config.key=value` words) and `prepared` (what `process` set up). Only this room prints to stdout, the answer and
nothing else; notes go to stderr.
"""

import argparse
import ast
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def commands() -> dict[str, Path]:
    """Files of the commands by name."""
    return {path.stem: path for path in sorted(HERE.glob("*.py")) if not path.stem.startswith("_")}


def docstring(path: Path) -> str:
    """A file's docstring, read without running the file."""
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def summary(path: Path) -> str:
    """The first line of a file's docstring."""
    return docstring(path).partition("\n")[0]


def literal_keys(path: Path, name: str) -> list[str]:
    """Text keys of the dict `name = {...}` of a file, read without running the file."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        given = getattr(node, "value", None)
        if isinstance(target, ast.Name) and target.id == name and isinstance(given, ast.Dict):
            return [str(key.value) for key in given.keys if isinstance(key, ast.Constant)]
    return []


def table(rows: Iterable[Sequence[Any]], *, indent: str = "") -> str:
    """Rows as text in aligned columns."""
    texts = [[plain(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in texts)
    return "\n".join(f"{indent}{line}".rstrip() for line in lines)


def plain(text: str, *, most: int = 4000) -> str:
    """A text on one line: line breaks and terminal escapes written out, cut where it is very long."""
    line = "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
    return line if len(line) <= most else f"{line[:most]} ..."


def answer(given: argparse.Namespace, record: dict[str, Any], text: str, *, then: str) -> None:
    """Prints a command's answer: one JSON object on one line with --json, else the text.

    The next sensible command comes last; with --json it goes to stderr.
    """
    print(json.dumps(record, allow_nan=False) if given.json else text)
    note(f"next: {then}", file=None if given.json else sys.stdout)


def note(text: str, *, file: Any = None) -> None:
    """Prints a line to stderr, or to the file given."""
    print(text, file=file or sys.stderr, flush=True)
