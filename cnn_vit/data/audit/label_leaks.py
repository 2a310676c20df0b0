"""Finds labels in the names of image files: whoever is shown such names is told the answer.

A name is what follows the class folder, without its ending, in words and numbers: `cats/cat-007.jpg` is "cat", "007".
Upper and lower case are the same, and the s of a plural does not count.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

WORD_POSITIONS = {0: "first", 1: "second", -1: "last"}  # words of a name that may tell the class by themselves
LEAST_REPEATS = 4  # times that such a word must occur on average
LEAST_LETTERS = 2  # letters of a class name that file names are searched for

Words = tuple[str, ...]


class LabelLeaks(NamedTuple):
    """What the names of files tell about their classes.

    Attributes:
        own_class: positions of the names that say their own class.
        other_class: (position, label said) of the names that say another class and not their own.
        word: "first", "second" or "last", where that word of every name belongs to one class alone, else None.
    """

    own_class: list[int]
    other_class: list[tuple[int, int]]
    word: str | None


def find_label_leaks(names: Sequence[str], labels: np.ndarray, classes: Sequence[str]) -> LabelLeaks:
    """Searches the names `CLASS/x.jpg` of files with labels (N,) for the names of classes, and for telling words."""
    words_of_names = [path_words(name.partition("/")[2]) for name in names]
    label_by_words: dict[Words, int] = {}
    for label, class_name in enumerate(classes):
        if sum(map(str.isalpha, class_name)) >= LEAST_LETTERS:
            label_by_words[singular(path_words(class_name))] = label  # of class names that look alike, the last
    longest = max(map(len, label_by_words), default=0)
    own_class: list[int] = []
    other_class: list[tuple[int, int]] = []
    for position, (words, label) in enumerate(zip(words_of_names, labels.tolist(), strict=True)):
        labels_said = find_labels(singular(words), label_by_words, longest)
        if label in labels_said:
            own_class.append(position)
        elif labels_said:
            other_class.append((position, min(labels_said)))
    telling_words = (word for index, word in WORD_POSITIONS.items() if word_tells_class(words_of_names, labels, index))
    return LabelLeaks(own_class, other_class, next(telling_words, None))


def find_labels(words: Words, label_by_words: Mapping[Words, int], longest: int) -> set[int]:
    """Returns the labels of the classes whose whole names, of at most `longest` words, occur among some words."""
    labels = set()
    for start in range(len(words)):
        for end in range(start + 1, min(start + longest, len(words)) + 1):
            if words[start:end] in label_by_words:
                labels.add(label_by_words[words[start:end]])
    return labels


def path_words(name: str) -> Words:
    """Returns the words and numbers of a path without its ending, in lower case."""
    stem = re.sub(r"\.\w{1,5}$", "", unicodedata.normalize("NFC", name).casefold())
    return tuple(re.findall(r"[^\W\d_]+|\d+", stem))


def singular(words: Words) -> Words:
    """Returns the words without the s of a plural."""
    return tuple(word[:-1] if len(word) > 2 and word.endswith("s") else word for word in words)


def word_tells_class(words_of_names: Sequence[Words], labels: np.ndarray, index: int) -> bool:
    """Whether each name has a word at `index`, such words occur often, and each belongs to one class alone."""
    label_by_word: dict[str, int] = {}
    for words, label in zip(words_of_names, labels.tolist(), strict=True):
        if len(words) < 2 or label_by_word.setdefault(words[index], label) != label:
            return False
    # Numbers of images, each of which occurs once, tell nothing; nor does one word for all.
    return len(words_of_names) >= LEAST_REPEATS * len(label_by_word) and len(set(label_by_word.values())) > 1
