"""Names of the classes that published weights score, in the order of the scores.

ImageNet-1k's are those of the classification task of ILSVRC 2012 (Russakovsky et al., arXiv:1409.0575): synsets of
WordNet in the order of their identifiers, as PyTorch, Keras and Google's code number them, each by its first word. The
file beside this one has a line for each class: identifier and name.
"""

import functools
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cnn_vit.data.sources import cifar, mnist
from cnn_vit.errors import printable_name


@functools.cache
def imagenet() -> tuple[str, ...]:
    """Returns the 1,000 names; "crane" and "maillot", which two synsets have, stand with their identifiers."""
    text = Path(__file__).with_name("imagenet_classes.txt").read_text(encoding="utf-8")
    pairs = [line.split(" ", 1) for line in text.splitlines()]
    counts = Counter(name for _, name in pairs)
    names = []
    for identifier, name in pairs:
        names.append(name if counts[name] == 1 else f"{name} ({identifier})")
    return tuple(names)


KNOWN: dict[str, Callable[[], tuple[str, ...]]] = {
    "ImageNet-1k": imagenet,
    "CIFAR-10": lambda: cifar.LAYOUTS[10].classes,
    "MNIST": lambda: mnist.CLASSES,
}


# Names that somebody gives --------------------------------------------------------------------------------------------


def find_fault(names: Sequence[Any]) -> str:
    """Says why names cannot be those of classes, "class 3 has no name"; "" where they can."""
    seen: set[str] = set()
    for number, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            return f"class {number} has no name"
        stripped = name.strip()
        if any(unicodedata.category(letter) == "Cc" for letter in stripped):
            return f"the name of class {number}, {printable_name(stripped)}, has characters that no screen shows"
        if stripped in seen:
            return f"{printable_name(stripped)} stands twice"
        seen.add(stripped)
    return ""


def strip(names: Sequence[Any]) -> tuple[str, ...]:
    """Returns names that have no fault without the white space around them."""
    return tuple(name.strip() for name in names)
