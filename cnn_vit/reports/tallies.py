"""Counts over the predictions of a split: the confusion matrix, numbers for each class, and the calibration."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from cnn_vit.reports.intervals import Interval, wilson_interval
from cnn_vit.training import losses

BINS = 10  # of the predicted probability, equally wide
MOST_IN_MATRIX = 1_000  # classes of a confusion matrix; of 10,000 it would take 0.8 GB, and nobody could read it


@dataclass(frozen=True)
class ClassTally:
    """How well one class is recognized in a split.

    Attributes:
        name: the class's name.
        n: examples whose label is the class.
        predicted: examples for which the class is predicted.
        recall: share of its examples for which it is predicted.
        precision: share of the predictions of it that are right.
    """

    name: str
    n: int
    predicted: int
    recall: Interval
    precision: Interval


@dataclass(frozen=True)
class Confusion:
    """Two classes, one of which is predicted for examples of the other.

    Attributes:
        true: the name of the examples' class.
        predicted: the name of the predicted class.
        count: examples of the true class for which the other is predicted.
        n: examples of the true class.
    """

    true: str
    predicted: str
    count: int
    n: int


class CalibrationBin(NamedTuple):
    """Examples whose predicted class has about the same probability.

    Attributes:
        n: number of examples.
        confidence: mean probability of their predicted classes.
        accuracy: share of them that are predicted rightly.
    """

    n: int
    confidence: float
    accuracy: Interval


@dataclass(frozen=True)
class SplitTally:
    """All that the page says of one split's predictions.

    Attributes:
        confusion: counts (K, K), true classes as rows, predicted ones as columns; None above MOST_IN_MATRIX classes.
        accuracy: share of right predictions.
        loss: mean over the examples.
        n: number of examples.
        classes: a tally for each class, in the order of the classes.
        confusions: the most frequent mistakes, most frequent first.
        probabilities: of every class for each example, (N, K); None where only the best scores were stored.
        bins: the calibration bins that hold any example; none without probabilities.
        calibration_error: the expected calibration error; None without probabilities.
    """

    confusion: np.ndarray | None
    accuracy: Interval
    loss: float
    n: int
    classes: list[ClassTally]
    confusions: list[Confusion]
    probabilities: np.ndarray | None
    bins: list[CalibrationBin]
    calibration_error: float | None


def tally_predictions(predictions: dict[str, np.ndarray], names: Sequence[str], loss: str) -> SplitTally:
    """Counts the predictions of a split.

    Args:
        predictions: arrays with a row for each example: label, predicted, loss, scores, and classes where only the best
            scores are stored.
        names: names of the classes.
        loss: name of the loss, which decides how scores become probabilities.
    """
    labels, predicted = predictions["label"], predictions["predicted"]
    correct = labels == predicted
    confusion = None
    if len(names) <= MOST_IN_MATRIX:
        confusion = confusion_matrix(labels, predicted, len(names))
    probabilities = class_probabilities(predictions, loss)
    bins: list[CalibrationBin] = []
    error = None
    if probabilities is not None:
        confidences = probabilities[np.arange(len(probabilities)), predicted]
        bins, error = measure_calibration(confidences, correct)
    return SplitTally(
        confusion=confusion,
        accuracy=wilson_interval(int(correct.sum()), len(correct)),
        loss=float(predictions["loss"].mean(dtype=np.float64)),
        n=len(correct),
        classes=tally_classes(labels, predicted, names),
        confusions=worst_confusions(labels, predicted, names),
        probabilities=probabilities,
        bins=bins,
        calibration_error=error,
    )


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:  # (N,), (N,) -> (K, K)
    """Counts how often each true class (row) is predicted as each class (column)."""
    # Each pair of classes gets one number, so that one call of bincount counts all pairs.
    pairs = labels.astype(np.int64) * classes + predicted
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def tally_classes(labels: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> list[ClassTally]:  # (N,), (N,)
    """Returns the numbers of each class, in the order of the classes."""
    label_counts = np.bincount(labels, minlength=len(names)).tolist()
    predicted_counts = np.bincount(predicted, minlength=len(names)).tolist()
    right_counts = np.bincount(labels[labels == predicted], minlength=len(names)).tolist()
    tallies = []
    for name, right, n, count in zip(names, right_counts, label_counts, predicted_counts, strict=True):
        tallies.append(ClassTally(name, n, count, wilson_interval(right, n), wilson_interval(right, count)))
    return tallies


def worst_confusions(
    labels: np.ndarray, predicted: np.ndarray, names: Sequence[str], most: int = 10
) -> list[Confusion]:  # (N,), (N,)
    """Returns the most frequent mistakes, most frequent first, at most `most`."""
    is_wrong = labels != predicted
    # Only pairs that came up are counted: of 10,000 classes there are 100 million.
    pairs, counts = np.unique(labels[is_wrong].astype(np.int64) * len(names) + predicted[is_wrong], return_counts=True)
    label_counts = np.bincount(labels, minlength=len(names))
    confusions = []
    # A stable order, so that equally frequent mistakes stand in the order of the classes.
    for place in np.argsort(-counts, kind="stable")[:most]:
        true, wrong = divmod(int(pairs[place]), len(names))
        confusions.append(Confusion(names[true], names[wrong], int(counts[place]), int(label_counts[true])))
    return confusions


def class_probabilities(predictions: dict[str, np.ndarray], loss: str) -> np.ndarray | None:  # -> (N, K)
    """Returns the probability of every class for each example, or None where only the best scores were stored.

    They are those that the loss brings along: a softmax, or for each class its own probability.

    Raises:
        UserError: there is no loss of that name.
    """
    if "classes" in predictions:
        return None
    scores = jnp.asarray(predictions["scores"], jnp.float32)
    return np.asarray(losses.get_loss(loss).probabilities(scores), np.float64)


def measure_calibration(confidences: np.ndarray, correct: np.ndarray) -> tuple[list[CalibrationBin], float]:
    """Returns the bins that hold any example, and the expected calibration error.

    The error is the mean over examples of the distance between a bin's mean probability and its share of right
    predictions. Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, arXiv:1706.04599, equation 5.

    Args:
        confidences: probability of the predicted class of each example, (N,).
        correct: whether the prediction is right, (N,).
    """
    numbers = np.minimum((confidences * BINS).astype(int), BINS - 1)  # a probability of exactly 1 is in the last bin
    bins = []
    for number in range(BINS):
        inside = numbers == number
        n = int(inside.sum())
        if n:
            accuracy = wilson_interval(int(correct[inside].sum()), n)
            bins.append(CalibrationBin(n, float(confidences[inside].mean()), accuracy))
    gaps = [filled.n * abs(filled.confidence - filled.accuracy.estimate) for filled in bins]
    return bins, sum(gaps) / len(confidences)
