"""From what a user writes to the value of a setting, or to one sentence that says what the setting takes.

A command line writes text, which is read first; a recipe gives Python values. Both are then brought into the setting's
own form: 1e3 becomes the int 1000 where an int is taken. No text is ever executed: tuples are read as literals.
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

MAX_CHARACTERS = 10_000  # of a value on a command line
MAX_EXACT_INT = 2**53  # beyond it a float no longer holds every integer
FIT = re.compile(
    r"""\s*(?:
        (?P<name> crop | stretch | pad_batch )
        | crop \( (?P<share> [^()]+ ) \)
        | pad (?: \( \s* (?P<gray> \d{1,3} ) \s* \) )?
    )\s*""",
    re.ASCII | re.VERBOSE,
)
LEAST_SHARE = 0.01  # of crop(SHARE): less of an image would be enlarged a hundredfold before it is cropped


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


# From the text of a command line to a plain value


def parse_number(text: str) -> int | float:
    """Reads a number: 1000, 1_000 and 1e3 are ints, 0.5 and 1.0 are floats.

    Raises:
        ValueError: it is not a number, or it is nan or infinite.
    """
    try:
        return int(text)  # as Python writes one: 1_000 too
    except ValueError:
        value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not finite")
    if "." not in text and value.is_integer() and abs(value) <= MAX_EXACT_INT:
        return int(value)
    return value


def parse_bool(text: str) -> bool:
    """Reads true or false, in capitals or not.

    Raises:
        ValueError: it is neither.
    """
    words = {"true": True, "false": False}
    word = text.strip().lower()
    if word not in words:
        raise ValueError(f"{text!r} is neither true nor false")
    return words[word]


def parse_literal(text: str) -> Any:
    """Reads a Python literal: a number, a quoted text, a tuple or a list.

    Raises:
        ValueError: it is not a literal.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # "\d" is a literal, but Python warns of the backslash
            return ast.literal_eval(text.strip())
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError("not a literal") from error


def split_items(text: str) -> list[str]:
    """Splits a text at the commas that stand outside all brackets: "affine(10, 0.1), flip" has two items."""
    items, depth = [""], 0  # depth: brackets that are open
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth == 0:
            items.append("")
        else:
            items[-1] += letter
    return [item.strip() for item in items if item.strip()]


def parse_tuple(text: str) -> tuple:
    """Reads a tuple, which is written as a Python literal or as `a,b`; a single literal is a tuple of one."""
    try:
        value = parse_literal(text)
    except ValueError:
        return tuple(split_items(text))
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def parse_size(text: str) -> Any:
    """Reads an image size: one number, or a tuple where there is a comma."""
    return parse_tuple(text) if "," in text else parse_number(text)


def parse_any(text: str) -> Any:
    """Reads the value of a keyword, whose kind only the model or the data source knows.

    It is None, true or false where it says so, a number or a tuple where it is written as one, and else the text.
    """
    words = {"none": None, "true": True, "false": False}
    word = text.strip().lower()
    if word in words:
        return words[word]
    try:
        return parse_number(text)
    except ValueError:
        pass  # it is a tuple or a text
    if text.strip()[:1] in ("(", "[", "'", '"'):  # a literal that is meant as one; every other text is the user's
        try:
            return as_plain(parse_literal(text))
        except ValueError:
            return text
    items = split_items(text)
    return tuple(map(parse_any, items)) if len(items) > 1 else text


# From a plain value to a setting's own form


def as_plain(value: Any) -> Any:
    """Returns a value that is made of numbers, texts, truth values, None and tuples of them; lists become tuples.

    Raises:
        ValueError: there is something else in it, or a number that is not finite.
    """
    if isinstance(value, list | tuple):
        return tuple(as_plain(item) for item in value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not finite")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"{type(value).__name__} is not a plain value")


def as_int(value: Any) -> int:
    """Returns a whole number as an int; 1e3 is one; ValueError for anything else."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_EXACT_INT:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("not a whole number")
    return value


def as_float(value: Any) -> float:
    """Returns a number as a float; ValueError for what is not a number, is not finite, or is beyond 1e300."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("not a number")
    if not abs(value) <= 1e300:  # put so that it refuses nan too
        raise ValueError("not finite")
    return float(value)


def as_text(value: Any) -> str:
    """Returns a text that is not empty; ValueError for anything else."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:  # no path may hold a zero byte
        raise ValueError("not a text")
    return value


def as_bool(value: Any) -> bool:
    """Returns True or False; ValueError for anything else, for 0 and 1 are numbers."""
    if not isinstance(value, bool):
        raise ValueError("neither true nor false")
    return value


def as_pattern(value: Any) -> str:
    """Returns the text of a regular expression; ValueError where it does not compile."""
    try:
        re.compile(as_text(value))
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError("not a regular expression") from error
    return value


def as_size(value: Any) -> int | tuple[int, int]:
    """Returns a side, or (height, width); ValueError for anything else."""
    if not isinstance(value, list | tuple):
        return as_int(value)
    height, width = value
    return as_int(height), as_int(width)


def as_fit(value: Any) -> str:
    """Returns crop, crop(SHARE), stretch, pad_batch or pad(GRAY), where pad alone is pad(0), black.

    Raises:
        ValueError: it is something else, or SHARE is not a number in [0.01, 1].
    """
    match = FIT.fullmatch(as_text(value))
    if not match:
        raise ValueError("not a fit")
    if match["name"]:
        return match["name"]
    if match["share"]:
        share = float(match["share"])
        if not LEAST_SHARE <= share <= 1:  # put so that it refuses nan too
            raise ValueError("not a share")
        return f"crop({share})"
    gray = int(match["gray"] or 0)
    if gray > 255:
        raise ValueError("not a level of gray")
    return f"pad({gray})"


def fit_each(fit: Callable[[Any], Any]) -> Callable[[Any], tuple]:
    """Makes the function that fits every item of a tuple; it raises ValueError for what is not a tuple or a list."""

    def fit_tuple(value: Any) -> tuple:
        if not isinstance(value, list | tuple):
            raise ValueError("not a tuple")
        return tuple(fit(item) for item in value)

    return fit_tuple


DURATION_EXAMPLES = "(20 epochs, 4000 steps, 1e6 examples)"
KINDS = {
    "int": Kind("an int", parse_number, as_int),
    "float": Kind("a number", parse_number, as_float),
    "bool": Kind("true or false", parse_bool, as_bool),
    "text": Kind("a text", str, as_text),
    "pattern": Kind("a regular expression", str, as_pattern),
    "size": Kind("an int or (height, width)", parse_size, as_size),
    "fit": Kind("crop, crop(SHARE 0.01 to 1), stretch, pad_batch, pad or pad(GRAY 0 to 255)", str, as_fit),
    "duration": Kind(f"a duration {DURATION_EXAMPLES}", str, durations.canonicalize_duration),
    "texts": Kind("a tuple of texts", parse_tuple, fit_each(as_text)),
    "floats": Kind("a tuple of numbers", parse_tuple, fit_each(as_float)),
    "durations": Kind(
        f"a tuple of durations {DURATION_EXAMPLES}", parse_tuple, fit_each(durations.canonicalize_duration)
    ),
}


# Checking


def accepted_values(key: Key) -> str:
    """Says in words what a setting takes: "an int in [0, 64] (threads)"."""
    if key.choices:
        words = " or ".join(key.choices)
    elif key.range:
        words = f"{KINDS[key.kind].phrase} in {key.range}"
    else:
        words = KINDS[key.kind].phrase
    if key.unit:
        words += f" ({key.unit})"
    if key.is_optional:
        words += " or none"
    return words


def check_value(name: str, key: Key, value: Any, *, where: str, is_text: bool = False) -> Any:
    """Returns the value of a setting in the setting's own form.

    Args:
        name: the setting, for the error.
        key: its row of the table.
        value: what a recipe set or, where `is_text`, the text of a command line.
        where: who gave the value, for the error.
        is_text: whether the value is text that has to be read first.

    Raises:
        UserError: the setting takes something else; the sentence says what.
    """
    kind = KINDS[key.kind]
    try:
        if key.is_optional and (value is None or (is_text and value.strip().lower() == "none")):
            return None
        if is_text and len(value) > MAX_CHARACTERS:  # before it is read, which may take long
            raise ValueError("too long")
        fitted = kind.fit(kind.read(value) if is_text else value)
        if not is_in_range(fitted, key):
            raise ValueError("out of range")
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{name} is {quote_value(value)} ({where}); it takes {accepted_values(key)}") from error
    return fitted


def is_own_form(key: Key, value: Any) -> bool:
    """Whether a setting takes a value and leaves it as it is: "pad(0)" of data.fit, not "pad", which means the same."""
    try:
        fitted = check_value("", key, value, where="")
    except UserError:
        return False
    return type(fitted) is type(value) and fitted == value


def is_in_range(value: Any, key: Key) -> bool:
    """Whether a value, in its setting's own form, is among the choices, or each of its numbers inside the range."""
    if key.choices:
        return str(value) in key.choices
    if not key.range:
        return True
    low, high = (float(end) for end in key.range[1:-1].split(","))
    for item in value if isinstance(value, tuple) else (value,):
        # the range of a duration bounds its number, whatever the unit
        number = durations.parse_duration(item)[0] if "duration" in key.kind else item
        is_above = number > low or (number == low and key.range[0] == "[")
        is_below = number < high or (number == high and key.range[-1] == "]")
        if not (is_above and is_below):
            return False
    return True


def quote_value(value: Any, most: int = 80) -> str:
    """Quotes a value for an error, cut to `most` characters where it is long."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 4]} ..."
