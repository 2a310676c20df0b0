"""What the predictions of a split add up to: a confusion matrix, numbers of each class, how far sureness is earned."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cnn_vit.reports.intervals import Interval, wilson

BINS = 10  # of sureness, equally wide


class ClassTally(NamedTuple):
    """A class in a split.

    Attributes:
        name: of it.
        n: examples that are of it.
        guessed: examples that were taken for it.
        recall: share of its examples that were found.
        precision: share right of those taken for it.
    """

    name: str
    n: int
    guessed: int
    recall: Interval
    precision: Interval


class Confusion(NamedTuple):
    """Two classes of which one was taken for the other so many times, of n examples."""

    true: str
    predicted: str
    times: int
    n: int


class Bin(NamedTuple):
    """Examples of a like sureness: how many, how sure on average, how often right."""

    n: int
    sure: float
    right: Interval


def confusion(label: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:  # (N,), (N,) -> (K, K)
    """How often each true class (row) was taken for each class (column)."""
    flat = np.bincount(label.astype(np.int64) * classes + predicted, minlength=classes * classes)
    return flat.reshape(classes, classes)


def tally_classes(counts: np.ndarray, names: Sequence[str]) -> list[ClassTally]:
    """Numbers of each class, in the order of the classes."""
    right, true, guessed = counts.diagonal(), counts.sum(1), counts.sum(0)
    return [
        ClassTally(
            name,
            int(true[k]),
            int(guessed[k]),
            wilson(int(right[k]), int(true[k])),
            wilson(int(right[k]), int(guessed[k])),
        )
        for k, name in enumerate(names)
    ]


def worst_confusions(counts: np.ndarray, names: Sequence[str], most: int = 10) -> list[Confusion]:
    """The commonest mistakes, most frequent first."""
    wrong = counts - np.diag(counts.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    places = [divmod(int(place), len(counts)) for place in order]
    return [Confusion(names[i], names[j], int(wrong[i, j]), int(counts[i].sum())) for i, j in places if wrong[i, j]]


def probabilities(found: dict[str, np.ndarray], loss: str) -> np.ndarray | None:  # (N, K)
    """The probability of every class for each example, as the loss reads scores; None where only the best were kept."""
    if "classes" in found:
        return None
    scores = found["scores"].astype(np.float64)
    if loss == "sigmoid":
        return np.exp(-np.logaddexp(0, -scores))
    shares = np.exp(scores - scores.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def calibration(sure: np.ndarray, right: np.ndarray) -> tuple[list[Bin], float]:
    """Bins of sureness with any example in them, and the expected calibration error.

    The error is the mean over examples of how far a bin's sureness is from its share of right ones. Source: Guo et al.,
    On Calibration of Modern Neural Networks, ICML 2017, arXiv:1706.04599, equation 5.
    """
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    found = []
    for number in range(BINS):
        inside = place == number
        if n := int(inside.sum()):
            found.append(Bin(n, float(sure[inside].mean()), wilson(int(right[inside].sum()), n)))
    return found, sum(one.n * abs(one.sure - one.right.estimate) for one in found) / len(sure)


def tally(found: dict[str, np.ndarray], names: Sequence[str], loss: str) -> dict[str, Any]:
    """All of these numbers of one split's predictions."""
    counts = confusion(found["label"], found["predicted"], len(names))
    right = found["label"] == found["predicted"]
    chances = probabilities(found, loss)
    sure = None if chances is None else chances[np.arange(len(chances)), found["predicted"]]
    bins, error = ([], None) if sure is None else calibration(sure, right)
    return {
        "counts": counts,
        "accuracy": wilson(int(right.sum()), len(right)),
        "loss": float(found["loss"].mean(dtype=np.float64)),
        "n": len(right),
        "classes": tally_classes(counts, names),
        "confused": worst_confusions(counts, names),
        "chances": chances,
        "bins": bins,
        "calibration_error": error,
    }
