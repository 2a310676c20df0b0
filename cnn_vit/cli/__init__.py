"""Commands: words -> calls -> a printed answer. One file per command, found by its name.

A command's file has its help as docstring, `arguments(parser)` and `run(given)`; what is heavy to import is imported
inside `run`. `given` holds what `arguments` declared, and for every command `json`, `debug`, `overrides` (the
`--config.key=value` words) and `prepared` (what `process` set up). Only this room prints to stdout, the answer and
nothing else; notes go to stderr.
"""

import argparse
import ast
import functools
import json
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cnn_vit.errors import SurroundingsError

HERE = Path(__file__).parent
NARROW = 40  # characters, at least, in which a column of sentences can be read
UNDER = "    "  # in front of a column that stands under its row


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


def table(rows: Iterable[Sequence[Any]], *, indent: str = "", width: int | None = None) -> str:
    """Rows as text in aligned columns.

    Args:
        rows: cells, as many in each row.
        indent: in front of each line.
        width: characters of a line; the last column is folded to it, under itself where that leaves it room, else
            under its row. None: as long as they come.
    """
    texts = [[one_line(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = [indent + "  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)) for row in texts]
    if width is None or max((len(line.rstrip()) for line in lines), default=0) <= width:
        return "\n".join(line.rstrip() for line in lines)
    last = len(lines[0]) - widths[-1]
    under = width - last < NARROW
    heads = [f"{line[:last].rstrip()}\n{indent}{UNDER}" if under else line[:last] for line in lines]
    left = f"{indent}{UNDER}" if under else " " * last
    folded = (textwrap.wrap(row[-1], max(width - len(left), NARROW), break_on_hyphens=False) or [""] for row in texts)
    return "\n".join((head + f"\n{left}".join(found)).rstrip() for head, found in zip(heads, folded, strict=True))


def wrap(text: str, width: int | None) -> str:
    """A text with its paragraphs folded to a width; lines that begin with a blank, such as commands, stay."""
    if width is None:
        return text
    parts: list[str] = []
    for line in text.splitlines():
        if line and not line.startswith(" ") and parts and parts[-1] and not parts[-1].startswith(" "):
            parts[-1] += f" {line}"
        else:
            parts.append(line)
    wrap = functools.partial(textwrap.fill, width=max(width, NARROW), break_long_words=False, break_on_hyphens=False)
    return "\n".join(part if part.startswith(" ") else wrap(part) for part in parts)


def terminal_width() -> int | None:
    """Characters of a line of the terminal that stdout is; None where it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def one_line(text: str, *, most: int = 4000) -> str:
    """A text on one line: line breaks and terminal escapes written out, cut where it is very long."""
    line = "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
    return line if len(line) <= most else f"{line[:most]} ..."


def print_answer(given: argparse.Namespace, record: dict[str, Any], text: str, *, then: str) -> None:
    """Prints a command's answer: one JSON object on one line with --json, else the text.

    The next sensible command comes last; with --json it goes to stderr.
    """
    print_line(json.dumps(record, allow_nan=False) if given.json else text)
    if given.json:
        print_note(f"next: {then}")
    else:
        print_line(f"next: {then}")


def print_line(text: str) -> None:
    """Prints to stdout; `SurroundingsError` where that is full. A pipe that nobody reads is left to the caller."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        sentence = f"the answer cannot be written to stdout ({error.strerror}); send it elsewhere"
        raise SurroundingsError(sentence) from error


def shell_quote(word: str) -> str:
    """A word as a shell takes it back, in double quotes where that reads better."""
    return f'"{word}"' if "'" in word and not set(word) & set('"$`\\!') else shlex.quote(word)


def print_note(text: str) -> None:
    """Prints a line to stderr."""
    print(text, file=sys.stderr, flush=True)
