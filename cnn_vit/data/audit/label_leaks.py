"""Labels in the names of image files: whoever is shown the names is told the answer.

A name is what follows the class folder, without its ending, in words and numbers: `cats/cat-007.jpg` is "cat", "007".
Upper and lower case are one, and a plural's s is nothing.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

PLACES = {0: "first", 1: "second", -1: "last"}  # words of a name that may tell the class by themselves
OFTEN = 4  # times that such a word must come up on average
LETTERS = 2  # of a class that names are searched for


class LabelLeaks(NamedTuple):
    """What the names of files tell of their classes.

    Attributes:
        own: places of those that say their own class.
        other: places of those that say another class and not their own, with it.
        word: "first", "second" or "last", where that word of every name belongs to one class alone, else None.
    """

    own: list[int]
    other: list[tuple[int, int]]
    word: str | None


def find_labels(names: Sequence[str], labels: np.ndarray, classes: Sequence[str]) -> LabelLeaks:
    """Looks for labels in names `CLASS/x.jpg`, (N,) labels beside them."""
    split = [path_words(name.partition("/")[2]) for name in names]
    known = {
        singular(path_words(name)): at for at, name in enumerate(classes) if sum(map(str.isalpha, name)) >= LETTERS
    }  # of names alike, the last
    longest = max(map(len, known), default=0)
    own: list[int] = []
    other: list[tuple[int, int]] = []
    for at, (parts, label) in enumerate(zip(map(singular, split), labels.tolist(), strict=True)):
        said = {
            known[some]
            for start in range(len(parts))
            for end in range(start + 1, min(start + longest, len(parts)) + 1)
            if (some := parts[start:end]) in known
        }
        if label in said:
            own.append(at)
        elif said:
            other.append((at, min(said)))
    telling = (word for at, word in PLACES.items() if word_tells_class(split, labels, at))
    return LabelLeaks(own, other, next(telling, None))


def path_words(name: str) -> tuple[str, ...]:
    """The words and numbers of a path without its ending."""
    stem = re.sub(r"\.\w{1,5}$", "", unicodedata.normalize("NFC", name).casefold())
    return tuple(re.findall(r"[^\W\d_]+|\d+", stem))


def singular(parts: tuple[str, ...]) -> tuple[str, ...]:
    """Words without the s of a plural."""
    return tuple(part[:-1] if len(part) > 2 and part.endswith("s") else part for part in parts)


def word_tells_class(split: Sequence[tuple[str, ...]], labels: np.ndarray, at: int) -> bool:
    """Whether a word at a place is in every name, comes up often, and belongs to one class alone."""
    of: dict[str, int] = {}
    for parts, label in zip(split, labels.tolist(), strict=True):
        if len(parts) < 2 or of.setdefault(parts[at], label) != label:
            return False
    return len(split) >= OFTEN * len(of) and len(set(of.values())) > 1
