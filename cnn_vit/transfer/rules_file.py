"""Somebody's own rules: a small TOML file of patterns that say which array of a checkpoint is which of ours.

    layout = "torch"
    prefix = "module."
    drop = ["*.attn.mask"]

    [arrays]
    "pos_embed" = { ours = "pos_embed/embedding", axes = "1 t d -> t d" }
    "transformer.{i}.attn.qkv.weight" = "blocks/{i}/attention/{query,key,value}/kernel"

    layout   whose axes an array has where its line says none: "torch" for (out, in) and (out, in, height, width),
             "ours" for (in, out) and (height, width, in, out), as Keras and Flax have them
    prefix   what all names begin with
    drop     names that no score depends on; * stands for any characters
    arrays   a line for each kind of array: their name, and ours. {i} stands for any number, the same on both sides;
             {i+1} is one more. {query,key,value} are several of ours in one array of theirs, in this order.
    axes     theirs -> ours, a letter for each axis; letters in brackets are one axis, 1 is an axis of size one. An
             array that holds several of ours has one more letter in front of ours: "(s o) i -> s i o".
    sizes    of letters that no axis tells: { h = 8, w = 8 }

`rule_of_file` makes a `ConversionRule` of it. Every fault of the file is one sentence that names its line.
"""

import fnmatch
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnn_vit import files
from cnn_vit.errors import UserError, nearest, printable_name
from cnn_vit.transfer import axes

MOST_BYTES = 2**20
KEYS = ("layout", "prefix", "drop", "arrays")
LINE_KEYS = ("ours", "axes", "sizes")
TORCH, OURS = "torch", "ours"
LAYOUTS = (TORCH, OURS)
# What stands in braces: a number, or names of several arrays.
BRACES = re.compile(r"\{([^{}]*)\}")
NUMBER = re.compile(r"([a-z]\w*)(?:\+\d+)?")
NAMES = re.compile(r"\w+(?:,\w+)+")
LAYOUT = re.compile(r"(?:\((?:[a-z]\s+)+[a-z]\)|[a-z1])(?:\s+(?:\((?:[a-z]\s+)+[a-z]\)|[a-z1]))*")


@dataclass(frozen=True)
class RulesLine:
    """A line of the file: which array of theirs is which of ours.

    Attributes:
        number: of the line in the file; 0 where it is not found.
        theirs: pattern of their names, without the prefix.
        ours: patterns of our paths, one or several.
        their_axes, our_axes: as `axes` reads them; "" where the line says none.
        sizes: of letters that no axis tells.
    """

    number: int
    theirs: str
    ours: tuple[str, ...]
    their_axes: str = ""
    our_axes: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class RulesFile:
    """A file of rules that was read.

    Attributes:
        path: of the file.
        layout: "torch", "ours", or None where it says none.
        prefix: what all names begin with.
        dropped: patterns of names, as `ConversionRule` has them.
        lines: the arrays.
    """

    path: Path
    layout: str | None
    prefix: str
    dropped: tuple[str, ...]
    lines: tuple[RulesLine, ...]

    def fault(self, line: RulesLine | int, sentence: str) -> UserError:
        """Makes the error for a fault, with its line where it is known."""
        number = line.number if isinstance(line, RulesLine) else line
        where = f"{self.path}, line {number}" if number else f"{self.path}"
        return UserError(f"{where}: {sentence}")


# Reading --------------------------------------------------------------------------------------------------------------


def read(path: str | Path) -> RulesFile:
    """Reads a file of rules, as far as it can be checked without a network.

    Raises:
        SurroundingsError: it cannot be read.
        UserError: it is not such a file; the sentence names the line.
    """
    path = Path(path)
    text = read_text(path)
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not TOML: {error}; names of arrays stand in quotes, one on a line") from error
    except RecursionError as error:
        raise UserError(f"{path} is not TOML that is read: it is nested too deep") from error
    empty = RulesFile(path, None, "", (), ())
    for key in content:
        if key not in KEYS:
            near = nearest(key, KEYS, most=1)
            hint = f"did you mean {near[0]}?" if near else "there is layout, prefix, drop; arrays stand below [arrays]"
            raise empty.fault(find_line(text, key), f"no setting {printable_name(key)!r}; {hint}")
    layout = content.get("layout")
    if layout not in (None, *LAYOUTS):
        raise empty.fault(find_line(text, "layout"), f"layout = {layout!r}; it is {' or '.join(map(repr, LAYOUTS))}")
    prefix = content.get("prefix", "")
    if not isinstance(prefix, str):
        raise empty.fault(find_line(text, "prefix"), f"prefix = {prefix!r}; it is a text, such as 'module.'")
    drop = content.get("drop", [])
    if not isinstance(drop, list) or not all(isinstance(pattern, str) for pattern in drop):
        raise empty.fault(find_line(text, "drop"), "drop is a list of names, such as ['*.mask']")
    entries = content.get("arrays", {})
    if not isinstance(entries, dict) or not entries:
        raise UserError(f'{path} names no arrays; add a line [arrays], and below it lines "THEIR.NAME" = "our/path"')
    read_file = RulesFile(path, layout, prefix, tuple(fnmatch.translate(pattern) for pattern in drop), ())
    lines = []
    for theirs, entry in entries.items():
        lines.append(read_line(read_file, find_line(text, theirs), theirs, entry))
    return RulesFile(path, layout, prefix, read_file.dropped, tuple(lines))


def read_text(path: Path) -> str:
    """Reads a small file of text."""
    with files.os_errors(path), open(path, "rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise UserError(f"{path} has more than {MOST_BYTES:,} bytes; rules are a line for each kind of array")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8 ({error}); rules are a file of TOML") from error


def find_line(text: str, key: str) -> int:
    """Returns the number of the line that begins with a key, 0 where none does."""
    beginnings = tuple(f"{quote}{key}{quote}" for quote in ('"', "'", ""))
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        for beginning in beginnings:
            if stripped.startswith(beginning) and stripped[len(beginning) :].lstrip().startswith(("=", ".")):
                return number
    return 0


def read_line(file: RulesFile, number: int, theirs: str, entry: Any) -> RulesLine:
    """Reads a line: the path alone, or a table with `ours`, `axes` and `sizes`."""
    if isinstance(entry, str):
        entry = {"ours": entry}
    if not isinstance(entry, dict):
        raise file.fault(number, f'{printable_name(theirs)} is {entry!r}; give our path, such as "head/kernel"')
    for key in entry:
        if key not in LINE_KEYS:
            near = nearest(key, LINE_KEYS, most=1)
            hint = f"did you mean {near[0]}?" if near else "a name with dots stands in quotes"
            raise file.fault(number, f"a line takes {', '.join(LINE_KEYS)}, not {printable_name(key)!r}; {hint}")
    ours = entry.get("ours")
    if not isinstance(ours, str) or not ours:
        raise file.fault(number, f'{printable_name(theirs)} has no ours; give our path, such as ours = "head/kernel"')
    sizes = entry.get("sizes", {})
    if not isinstance(sizes, dict) or not all(type(size) is int and size > 0 for size in sizes.values()):
        raise file.fault(number, "sizes are whole numbers by letter, such as { h = 8, w = 8 }")
    letters = read_braces(file, number, theirs, several=False)
    our_letters = read_braces(file, number, ours, several=True)
    if letters != our_letters:
        raise file.fault(
            number,
            f"the numbers {printed(letters)} of {printable_name(theirs)} and {printed(our_letters)} of "
            f"{printable_name(ours)} are not the same; each {{letter}} stands on both sides",
        )
    their_axes, our_axes = read_axes(file, number, entry.get("axes", ""))
    return RulesLine(number, theirs, spread(ours), their_axes, our_axes, sizes)


def printed(letters: set[str]) -> str:
    """Lists letters for an error: "{b} {s}", or "(none)"."""
    return " ".join(f"{{{letter}}}" for letter in sorted(letters)) or "(none)"


def read_braces(file: RulesFile, number: int, name: str, *, several: bool) -> set[str]:
    """Returns the letters of a name that stand for numbers.

    Raises:
        UserError: braces hold something else, a letter stands twice, or nothing closes them.
    """
    letters: set[str] = set()
    lists = 0
    for match in BRACES.finditer(name):
        letter = NUMBER.fullmatch(match[1])
        if letter and several and "+" in match[1]:
            raise file.fault(number, f"{match[0]} stands in our path {printable_name(name)}; write it into their name")
        if letter and letter[1] not in letters:
            letters.add(letter[1])
        elif several and NAMES.fullmatch(match[1]) and not lists and not has_twice(match[1].split(",")):
            lists += 1
        else:
            what = "a letter once, such as {i} or {i+1}"
            what += ", or names once, such as {query,key,value}" if several else ""
            raise file.fault(number, f"{match[0]} in {printable_name(name)} is not read; braces hold {what}")
    if "{" in BRACES.sub("", name) or "}" in BRACES.sub("", name):
        raise file.fault(number, f"{printable_name(name)} has a brace without its partner; write numbers as {{i}}")
    return letters


def has_twice(names: list[str]) -> bool:
    """Whether a name stands twice in a list."""
    return len(set(names)) < len(names)


def spread(ours: str) -> tuple[str, ...]:
    """Writes out the names in braces: "a/{q,k}/kernel" is ("a/q/kernel", "a/k/kernel")."""
    for match in BRACES.finditer(ours):
        if "," in match[1]:
            before, behind = ours[: match.start()], ours[match.end() :]
            return tuple(f"{before}{name}{behind}" for name in match[1].split(","))
    return (ours,)


def read_axes(file: RulesFile, number: int, text: Any) -> tuple[str, str]:
    """Reads "o i -> i o": the layouts of theirs and of ours; two empty ones where the text is empty."""
    if text == "":
        return "", ""
    parts = [part.strip() for part in text.split("->")] if isinstance(text, str) else []
    if len(parts) != 2 or not all(LAYOUT.fullmatch(part) for part in parts):
        raise file.fault(
            number,
            f'axes = {text!r}; they are theirs -> ours, a letter for each, such as "o i -> i o" or "1 t d -> t d"',
        )
    by_side = [[letter for letters in axes.split_layout(part) for letter in letters] for part in parts]
    if sorted(by_side[0]) != sorted(by_side[1]) or len(set(by_side[0])) < len(by_side[0]):
        raise file.fault(number, f"axes = {text!r} have not each letter once on both sides of the arrow")
    return parts[0], parts[1]
