"""What the commands of `cnn-vit` share: how they are found, and how their tables, paragraphs and answers are printed.

Each command is one file of this room, NAME.py, with three parts: its docstring is its help text, `arguments(parser)`
declares its flags, and `run(args)` does the work and returns the exit code, or None for 0. What is heavy to import is
imported inside `run`, so that `--help` answers at once. `_program.py` calls the command that a command line names.

`args` holds what `arguments` declared, and for every command four attributes more:

    json        whether the answer is printed as one JSON object
    debug       whether the traceback of an error is printed
    overrides   the settings of the command line, "key=value" for each `--config.key=value`
    prepared    what `process.prepare` set up before jax was imported

A command that takes the keywords of a network, `--model.key=value`, declares the attribute `model_keywords`
(`_model.add_model_arguments`), where "key=value" stands for each of them.

Only the files of this room print to stdout, and they print the answer and nothing else. Notes, and the one-line
cause of an error, go to stderr.
"""

import argparse
import ast
import functools
import itertools
import json
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cnn_vit import stops
from cnn_vit.errors import SurroundingsError

FOLDER = Path(__file__).parent
MIN_WIDTH = 40  # characters: a column of sentences that is narrower than this cannot be read
LEAST_COLUMN = 8  # characters of a column that gives way
SHORT_COLUMN = 20  # characters below which a last column holds no sentences or lists, but numbers and words
GAP = "  "  # between two columns
UNDER_ROW = "    "  # the margin of a last column that is written under its row


def find_commands() -> dict[str, Path]:
    """Returns the file of each command by the command's name, in alphabetical order; `_x.py` is not a command."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.py")) if not path.stem.startswith("_")}


def read_docstring(path: Path) -> str:
    """Returns the docstring of a Python file, or "" where it has none, without running the file."""
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def read_summary(path: Path) -> str:
    """Returns the first line of the docstring of a Python file, without running the file."""
    return read_docstring(path).partition("\n")[0]


# Text for the terminal ------------------------------------------------------------------------------------------------


def format_table(rows: Iterable[Sequence[Any]], *, indent: str = "", width: int | None = None) -> str:
    """Formats rows of cells as text, in columns that are aligned at the left and stand two blanks apart.

    Args:
        rows: the cells of each row, of the same number in every row; each is written on one line, as `str` gives it.
        indent: the text in front of each line.
        width: the most characters of a line, or None for no limit. Where a line would be longer, a last column of
            sentences is folded in all rows: under itself where that leaves it `MIN_WIDTH` characters, else under its
            row. Where the last column has less than `SHORT_COLUMN` characters, the widest columns are folded within
            themselves.

    Returns:
        The lines joined by line breaks, without blanks at their ends.
    """
    texts = []
    for row in rows:
        texts.append([as_one_line(str(cell)) for cell in row])
    column_widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = []
    for row in texts:
        cells = [cell.ljust(size) for cell, size in zip(row, column_widths, strict=True)]
        lines.append(indent + GAP.join(cells))
    longest = max((len(line.rstrip()) for line in lines), default=0)
    if width is None or longest <= width:
        return "\n".join(line.rstrip() for line in lines)

    if column_widths[-1] < SHORT_COLUMN:  # it has no room to give
        return fold_cells(texts, narrow_columns(column_widths, width - len(indent)), indent)
    last_column = len(lines[0]) - column_widths[-1]  # where it begins, the same in all lines
    is_under_row = width - last_column < MIN_WIDTH
    margin = f"{indent}{UNDER_ROW}" if is_under_row else " " * last_column
    folded_lines = []
    for line, row in zip(lines, texts, strict=True):
        head = line[:last_column]
        if is_under_row:
            head = f"{head.rstrip()}\n{margin}"
        folded = textwrap.wrap(row[-1], max(width - len(margin), MIN_WIDTH), break_on_hyphens=False)
        folded_lines.append((head + f"\n{margin}".join(folded)).rstrip())
    return "\n".join(folded_lines)


def narrow_columns(widths: Sequence[int], room: int) -> list[int]:
    """Returns the widths of columns that fit into so many characters with their gaps: the widest give way.

    None becomes narrower than LEAST_COLUMN, so that of very many columns a line may still be too long.
    """
    narrowed = [*widths]  # `list` is a command here
    while sum(narrowed) + len(GAP) * (len(narrowed) - 1) > room and max(narrowed) > LEAST_COLUMN:
        narrowed[narrowed.index(max(narrowed))] -= 1
    return narrowed


def fold_cells(rows: Sequence[Sequence[str]], widths: Sequence[int], indent: str) -> str:
    """Returns rows in columns of some widths; a cell that is longer goes on in the line below, in its column."""
    lines = []
    for row in rows:
        folded = [fold_cell(cell, width) for cell, width in zip(row, widths, strict=True)]
        for parts in itertools.zip_longest(*folded, fillvalue=""):
            cells = [part.ljust(width) for part, width in zip(parts, widths, strict=True)]
            lines.append((indent + GAP.join(cells)).rstrip())
    return "\n".join(lines)


def fold_cell(cell: str, width: int) -> list[str]:
    """Returns a cell in lines of so many characters: folded between words, and a path behind its slashes."""
    lines = [""]
    for piece in re.findall(r"[^ /]*[ /]+|[^ /]+", cell):
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
        while len(lines[-1].rstrip()) > width:  # a word that is longer than a line
            lines[-1:] = [lines[-1][:width], lines[-1][width:]]
    return [line.rstrip() for line in lines]


def wrap_paragraphs(text: str, width: int | None) -> str:
    """Folds the paragraphs of a text to a width.

    Lines that begin with a blank, such as examples, stay as they are, but for what explains a command behind a gap: it
    is folded under itself, or where it has less than `MIN_WIDTH` characters there, under its command.

    Args:
        text: the text; an empty line ends a paragraph.
        width: the most characters of a line, counted as `MIN_WIDTH` where it is less. None leaves the text as it is.
    """
    if width is None:
        return text
    parts: list[str] = []  # whole paragraphs on one line each, lines that begin with a blank, empty lines
    for line in text.splitlines():
        if is_prose(line) and parts and is_prose(parts[-1]):
            parts[-1] += f" {line}"
        else:
            parts.append(line)
    # A word that is longer than a line, such as a path or a flag, must stay whole to be copied.
    fold = functools.partial(textwrap.fill, width=max(width, MIN_WIDTH), break_long_words=False, break_on_hyphens=False)
    lines = []
    for part in parts:
        lines.append(fold(part) if is_prose(part) else fold_explanation(part, width))
    return "\n".join(lines)


def fold_explanation(line: str, width: int) -> str:
    """Folds what stands behind a gap of an indented line; the command before it stays whole, to be copied."""
    command = re.match(r"( *)(\S.*?) {2,}(?=\S)", line)
    if len(line) <= width or command is None:
        return line
    margin, begin = " " * command.end(), line[: command.end()]
    if width - command.end() < MIN_WIDTH:
        margin = command[1] + UNDER_ROW
        begin = f"{command[0].rstrip()}\n{margin}"
    room = max(width - len(margin), MIN_WIDTH)
    explanation = textwrap.wrap(line[command.end() :], room, break_long_words=False, break_on_hyphens=False)
    return begin + f"\n{margin}".join(explanation)


def is_prose(line: str) -> bool:
    """Whether a line belongs to a paragraph: it is neither empty nor indented."""
    return bool(line) and not line.startswith(" ")


def terminal_width() -> int | None:
    """Returns the characters of a line of the terminal, or None where stdout is a file or a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def as_one_line(text: str, *, most: int = 4000) -> str:
    r"""Writes a text on one line that does nothing to a terminal.

    Line breaks, escapes and all else that cannot be printed are written out, such as \n and \x1b. What is longer than
    `most` characters is cut, with " ..." behind it.
    """
    letters = []
    for letter in text:
        letters.append(letter if letter.isprintable() else letter.encode("unicode_escape").decode())
    line = "".join(letters)
    return line if len(line) <= most else f"{line[:most]} ..."


def shell_quote(word: str) -> str:
    """Quotes a word so that a shell reads it back unchanged: in double quotes where the word holds a single quote.

    Words that need no quotes stay as they are. Where double quotes would not protect the word, `shlex.quote` decides.
    """
    reads_better_in_double_quotes = "'" in word and not set(word) & set('"$`\\!')
    return f'"{word}"' if reads_better_in_double_quotes else shlex.quote(word)


# Printing -------------------------------------------------------------------------------------------------------------


def print_answer(
    args: argparse.Namespace,
    record: dict[str, Any],
    text: str,
    *,
    next_command: str,
    even_if_stopped: bool = False,
) -> None:
    """Prints the answer of a command to stdout: the text, or with --json the record as one JSON object on one line.

    The next sensible command follows as "next: COMMAND": on stdout below the text, but on stderr beside JSON, so that
    stdout holds the object alone.

    Args:
        args: the parsed words of the command; `args.json` chooses.
        record: the answer for programs. It holds no nan and no infinity, which are not JSON.
        text: the answer for people.
        next_command: the next command, as it is typed.
        even_if_stopped: whether the answer is printed though a signal asked to stop, as by commands that have written
            something by then.

    Raises:
        SurroundingsError: stdout cannot be written.
        StoppedError: a signal asked to stop before the answer was there.
    """
    if not even_if_stopped:
        stops.raise_if_requested()
    if args.json:
        print_line(json.dumps(record, allow_nan=False))
        print_note(f"next: {next_command}")
    else:
        print_line(text)
        print_line(f"next: {next_command}")


def print_line(text: str) -> None:
    """Prints a text and a line break to stdout at once.

    Raises:
        SurroundingsError: stdout cannot be written, such as on a full disk.
        BrokenPipeError: stdout is a pipe that nobody reads any more; `_program` then ends the command quietly.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        sentence = f"the answer cannot be written to stdout ({error.strerror}); send it elsewhere"
        raise SurroundingsError(sentence) from error


def print_note(text: str) -> None:
    """Prints a text and a line break to stderr at once."""
    print(text, file=sys.stderr, flush=True)
