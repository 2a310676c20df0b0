"""Names of the classes that published weights score, in the order of the scores.

ImageNet-1k's are those of the classification task of ILSVRC 2012 (Russakovsky et al., arXiv:1409.0575): synsets of
WordNet in the order of their identifiers, as PyTorch, Keras and Google's code number them, each by its first word. The
file beside this one has a line for each class: identifier and name.
"""

import functools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from cnn_vit.data.sources import cifar, mnist


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
