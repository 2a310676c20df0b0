"""From what somebody wrote to the value of a setting, or to one sentence about what it takes.

A command line writes text; a recipe gives Python values. Nothing here is ever executed: tuples are Python literals.
"""

import ast
import math
import re
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

from cnn_vit.errors import UserError
from cnn_vit.settings import durations
from cnn_vit.settings.keys import Key

LONGEST = 10_000  # characters of a value on a command line
FIT = re.compile(r"\s*(?:(crop|stretch|pad_batch)|pad(?:\(\s*(\d{1,3})\s*\))?)\s*", re.ASCII)
WHOLE = 2**53  # beyond it a float no longer holds every integer


class Kind(NamedTuple):
    """A kind of setting.

    Attributes:
        phrase: what it takes, in words.
        read: from the text of a command line to a plain value.
        fit: from a plain value to the setting's own form; ValueError for another kind of value.
    """

    phrase: str
    read: Callable[[str], Any]
    fit: Callable[[Any], Any]


def parse_number(text: str) -> int | float:
    """1000, 1_000 and 1e3 are ints, 0.5 and 1.0 floats; nan and infinity are nothing."""
    try:
        return int(text)
    except ValueError:
        value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not finite")
    return int(value) if "." not in text and value.is_integer() and abs(value) <= WHOLE else value


def parse_bool(text: str) -> bool:
    """true or false."""
    words = {"true": True, "false": False}
    if text.strip().lower() not in words:
        raise ValueError("neither true nor false")
    return words[text.strip().lower()]


def parse_literal(text: str) -> Any:
    """A Python literal: a number, a quoted text, a tuple or a list.

    Raises:
        ValueError: it is none.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            return ast.literal_eval(text.strip())
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError("no literal") from error


def split_items(text: str) -> list[str]:
    """Parts between the commas that stand in no brackets: "affine(10, 0.1), flip" has two."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def parse_tuple(text: str) -> tuple:
    """A tuple from a Python literal or from `a,b`."""
    try:
        found = parse_literal(text)
    except ValueError:
        return tuple(split_items(text))
    return tuple(found) if isinstance(found, list | tuple) else (found,)


def parse_any(text: str) -> Any:
    """A keyword's value, whose kind only the named thing knows: none, true, false, a number, a tuple, else the text."""
    words = {"none": None, "true": True, "false": False}
    if text.strip().lower() in words:
        return words[text.strip().lower()]
    try:
        return parse_number(text)
    except ValueError:
        pass  # not a number: a tuple or a text
    if text.strip()[:1] in ("(", "[", "'", '"'):
        try:
            return is_plain(parse_literal(text))
        except ValueError:
            return text
    parts = split_items(text)
    return tuple(map(parse_any, parts)) if len(parts) > 1 else text


def is_plain(value: Any) -> Any:
    """A value made of numbers, texts, truth values, None and tuples of them.

    Raises:
        ValueError: there is something else in it, or a number that is not finite.
    """
    if isinstance(value, list | tuple):
        return tuple(is_plain(item) for item in value)
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError(f"{type(value).__name__} is no plain value")


def as_int(value: Any) -> int:
    """A whole number; 1e3 is one."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= WHOLE:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("no whole number")
    return value


def as_float(value: Any) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e300:
        raise ValueError("no number")
    return float(value)


def as_text(value: Any) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError("no text")
    return value


def as_bool(value: Any) -> bool:
    """True or False; 0 and 1 are numbers."""
    if not isinstance(value, bool):
        raise ValueError("neither true nor false")
    return value


def as_pattern(value: Any) -> str:
    """A regular expression that compiles."""
    try:
        re.compile(as_text(value))
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError("no regular expression") from error
    return value


def as_size(value: Any) -> int | tuple[int, int]:
    """A side, or (height, width)."""
    if not isinstance(value, list | tuple):
        return as_int(value)
    height, width = value
    return as_int(height), as_int(width)


def as_fit(value: Any) -> str:
    """crop, stretch, pad_batch or pad(GRAY); pad alone is pad(0), black."""
    found = FIT.fullmatch(as_text(value))
    if not found or int(found[2] or 0) > 255:
        raise ValueError("no fit")
    return found[1] or f"pad({int(found[2] or 0)})"


def fit_each(fit: Callable[[Any], Any]) -> Callable[[Any], tuple]:
    """Fits every item of a tuple."""

    def fits(value: Any) -> tuple:
        if not isinstance(value, list | tuple):
            raise ValueError("no tuple")
        return tuple(fit(item) for item in value)

    return fits


KINDS = {
    "int": Kind("an int", parse_number, as_int),
    "float": Kind("a number", parse_number, as_float),
    "bool": Kind("true or false", parse_bool, as_bool),
    "text": Kind("a text", str, as_text),
    "pattern": Kind("a regular expression", str, as_pattern),
    "size": Kind(
        "an int or (height, width)", lambda text: parse_number(text) if "," not in text else parse_tuple(text), as_size
    ),
    "fit": Kind("crop, stretch, pad_batch, pad or pad(GRAY), a level of 0 to 255", str, as_fit),
    "duration": Kind("a duration (20 epochs, 4000 steps, 1e6 examples)", str, durations.canonical),
    "texts": Kind("a tuple of texts", parse_tuple, fit_each(as_text)),
    "floats": Kind("a tuple of numbers", parse_tuple, fit_each(as_float)),
    "durations": Kind(
        "a tuple of durations (20 epochs, 4000 steps, 1e6 examples)", parse_tuple, fit_each(durations.canonical)
    ),
}


def accepted_values(key: Key) -> str:
    """What a setting takes, in words: "an int in [0, 64] (threads)"."""
    what = " or ".join(key.choices) or KINDS[key.kind].phrase
    where = f" in {key.range}" if key.range and not key.choices else ""
    return f"{what}{where}{f' ({key.unit})' * bool(key.unit)}{' or none' * key.optional}"


def check_value(name: str, key: Key, given: Any, *, where: str, written: bool = False) -> Any:
    """The value of a setting in its own form.

    Args:
        name: the setting.
        key: its row of the table.
        given: what a recipe set or, where `written`, the text of a command line.
        where: who gave it, for the error.

    Raises:
        UserError: it takes something else; the sentence says what.
    """
    try:
        if key.optional and (given is None or (written and given.strip().lower() == "none")):
            return None
        if written and len(given) > LONGEST:
            raise ValueError("too long")
        value = KINDS[key.kind].fit(KINDS[key.kind].read(given) if written else given)
        if not is_in_range(value, key):
            raise ValueError("out of range")
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{name} is {quote_value(given)} ({where}); it takes {accepted_values(key)}") from error
    return value


def is_in_range(value: Any, key: Key) -> bool:
    """Whether a value is among the choices, or each of its numbers inside the range."""
    if key.choices:
        return str(value) in key.choices
    if not key.range:
        return True
    low, high = (float(end) for end in key.range[1:-1].split(","))
    numbers = [
        durations.parse_duration(item)[0] if "duration" in key.kind else item
        for item in (value if isinstance(value, tuple) else (value,))
    ]
    above = all(low < item or (item == low and key.range[0] == "[") for item in numbers)
    return above and all(item < high or (item == high and key.range[-1] == "]") for item in numbers)


def quote_value(value: Any, most: int = 80) -> str:
    """A value as an error quotes it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 4]} ..."
