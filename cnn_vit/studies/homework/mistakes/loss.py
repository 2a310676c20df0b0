"""Mistakes in softmax cross-entropy."""

from types import SimpleNamespace

import numpy as np

from cnn_vit.analysis.backprop import smoothed_targets, softmax
from cnn_vit.studies.homework.mistakes.attention import softmax_without_shift
from cnn_vit.studies.homework.mistakes.record import Mistake, right

FORWARD, BACKWARD = "softmax_cross_entropy_forward", "softmax_cross_entropy_backward"


def one_hot(inputs: SimpleNamespace) -> np.ndarray:  # -> (B, K)
    """1 at the label of each example."""
    return smoothed_targets(inputs.labels, inputs.scores.shape[-1], 0.0)


def targets(inputs: SimpleNamespace) -> np.ndarray:  # -> (B, K)
    """The right targets."""
    return smoothed_targets(inputs.labels, inputs.scores.shape[-1], inputs.smoothing)


def smoothing_on_others(inputs: SimpleNamespace) -> np.ndarray:  # -> (B, K)
    """Targets whose smoothing is spread over the other classes alone."""
    share = inputs.smoothing / (inputs.scores.shape[-1] - 1)
    return np.where(one_hot(inputs) == 1, 1 - inputs.smoothing, share)


def loss(inputs: SimpleNamespace, target: np.ndarray, log_probabilities: np.ndarray) -> np.ndarray:
    """The mean of -sum t log p."""
    return np.asarray(-(target * log_probabilities).sum() / len(inputs.scores))


def log_softmax(values: np.ndarray) -> np.ndarray:
    """log p, as is right."""
    shifted = values - values.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def label_loss(log_probabilities: np.ndarray, inputs: SimpleNamespace) -> np.ndarray:
    """The mean of -log p at the label, read by its index: 0 times infinity does not come up."""
    return np.asarray(-log_probabilities[np.arange(len(inputs.labels)), inputs.labels].mean())


NO_SHIFT = (
    "exp overflows where scores are large, and infinity by infinity is nan. Subtract the largest score of each row "
    "first, which changes no probability"
)
LOG_OF_ZERO = (
    "log of a probability that was rounded to 0. Write log p = shifted - log(sum exp(shifted)) with shifted = scores - "
    "largest score, without a softmax in between"
)
SMOOTHING_FORGOTTEN = (
    "smoothing is left out: the target is 1 - smoothing + smoothing / K at the label, smoothing / K elsewhere"
)
SMOOTHING_ON_OTHERS = (
    "smoothing is spread over the K - 1 other classes. It is spread over all K, the label as well, which gets "
    "1 - smoothing + smoothing / K"
)
CROSS_ENTROPY_FORWARD = (
    Mistake(
        "sum over the batch",
        "L",
        "the losses of the examples are added up; L is their mean",
        lambda i: right(FORWARD, i) * len(i.scores),
    ),
    Mistake(
        "mean over classes too",
        "L",
        "the mean runs over examples and classes. Sum over the classes, then take the mean over the batch",
        lambda i: right(FORWARD, i) / i.scores.shape[-1],
    ),
    Mistake("smoothing forgotten", "L", SMOOTHING_FORGOTTEN, lambda i: right(FORWARD, i, smoothing=0.0)),
    Mistake(
        "smoothing on the others alone",
        "L",
        SMOOTHING_ON_OTHERS,
        lambda i: loss(i, smoothing_on_others(i), log_softmax(i.scores)),
    ),
    Mistake(
        "softmax without shift", "L", NO_SHIFT,
        lambda i: loss(i, targets(i), np.log(softmax_without_shift(i.scores))),
    ),
    Mistake(
        "softmax without shift", "L", NO_SHIFT,
        lambda i: label_or_loss(i, np.log(softmax_without_shift(i.scores))),
    ),
    Mistake(
        "softmax without shift", "L", NO_SHIFT,
        lambda i: loss(i, targets(i), i.scores - np.log(np.exp(i.scores).sum(-1, keepdims=True))),
    ),
    Mistake(
        "softmax without shift", "L", NO_SHIFT,
        lambda i: label_or_loss(i, i.scores - np.log(np.exp(i.scores).sum(-1, keepdims=True))),
    ),
    Mistake(
        "logarithm of 0", "L", LOG_OF_ZERO, lambda i: loss(i, targets(i), np.log(softmax(i.scores)))
    ),
    Mistake(
        "logarithm of 0", "L", LOG_OF_ZERO, lambda i: label_or_loss(i, np.log(softmax(i.scores)))
    ),
    Mistake(
        "not normalized",
        "L",
        "log(sum exp(scores)) is missing: softmax divides by the sum over the classes, so that log p = scores - "
        "log(sum exp(scores))",
        lambda i: loss(i, targets(i), i.scores),
    ),
    Mistake(
        "not normalized",
        "L",
        "log(sum exp) is missing: softmax divides by the sum over the classes",
        lambda i: loss(i, targets(i), i.scores - i.scores.max(-1, keepdims=True)),
    ),
    Mistake(
        "logarithm of base 2",
        "L",
        "the logarithm has base 2; the loss is measured in natural logarithms: np.log",
        lambda i: right(FORWARD, i) / np.log(2),
    ),
    Mistake(
        "mean probability",
        "L",
        "the probability of the label is taken without its logarithm: -log p",
        lambda i: loss(i, targets(i), softmax(i.scores)),
    ),
    Mistake(
        "not averaged at all",
        "L",
        "there is a loss for each example; L is one number, their mean",
        lambda i: -(targets(i) * log_softmax(i.scores)).sum(-1),
    ),
    Mistake(
        "softmax down the batch",
        "L",
        "softmax runs over the batch, axis 0; it runs over the classes, the last axis",
        lambda i: loss(i, targets(i), log_softmax(i.scores.T).T),
    ),
)  # fmt: skip


def label_or_loss(inputs: SimpleNamespace, log_probabilities: np.ndarray) -> np.ndarray:
    """The loss, by the index of the label where nothing is smoothed."""
    if inputs.smoothing:
        return loss(inputs, targets(inputs), log_probabilities)
    return label_loss(log_probabilities, inputs)


CROSS_ENTROPY_BACKWARD = (
    Mistake(
        "not divided by the batch",
        "dL/dscores",
        "p - t is not divided by the number of examples; L is their mean, so that each has a part of 1 / B in it",
        lambda i: right(BACKWARD, i) * len(i.scores),
    ),
    Mistake(
        "sign turned round",
        "dL/dscores",
        "t - p is returned, which is the negative gradient: raising a wrong class's score raises the loss, so that p - "
        "t",
        lambda i: -right(BACKWARD, i),
    ),
    Mistake(
        "sign turned round",
        "dL/dscores",
        "t - p is returned, not divided by B: it is (p - t) / B",
        lambda i: -right(BACKWARD, i) * len(i.scores),
    ),
    Mistake(
        "target forgotten",
        "dL/dscores",
        "the probabilities are returned; the target is subtracted from them: (p - t) / B",
        lambda i: softmax(i.scores) / len(i.scores),
    ),
    Mistake(
        "target forgotten",
        "dL/dscores",
        "the probabilities are returned; the target is subtracted, and the result divided by B: (p - t) / B",
        lambda i: softmax(i.scores),
    ),
    Mistake(
        "smoothing forgotten", "dL/dscores", SMOOTHING_FORGOTTEN, lambda i: right(BACKWARD, i, smoothing=0.0)
    ),
    Mistake(
        "smoothing on the others alone",
        "dL/dscores",
        SMOOTHING_ON_OTHERS,
        lambda i: (softmax(i.scores) - smoothing_on_others(i)) / len(i.scores),
    ),
    Mistake(
        "softmax without shift", "dL/dscores", NO_SHIFT,
        lambda i: (softmax_without_shift(i.scores) - targets(i)) / len(i.scores),
    ),
    Mistake(
        "not normalized",
        "dL/dscores",
        "exp(scores) is not divided by its sum over the classes: p must have sum 1 for each example",
        lambda i: (np.exp(i.scores) - targets(i)) / len(i.scores),
    ),
    Mistake(
        "not normalized",
        "dL/dscores",
        "the exponentials are not divided by their sum over the classes: p must have sum 1 for each example",
        lambda i: (np.exp(i.scores - i.scores.max(-1, keepdims=True)) - targets(i)) / len(i.scores),
    ),
    Mistake(
        "softmax forgotten",
        "dL/dscores",
        "the target is subtracted from the scores; subtract it from the probabilities, softmax(scores)",
        lambda i: (i.scores - targets(i)) / len(i.scores),
    ),
    Mistake(
        "derivative of softmax twice",
        "dL/dscores",
        "p - t is multiplied by softmax's derivative once more. It is there already: softmax and logarithm together "
        "have the derivative p - t",
        lambda i: softmax_derivative(i, (softmax(i.scores) - targets(i)) / len(i.scores)),
    ),
    Mistake(
        "derivative of the logarithm alone",
        "dL/dscores",
        "-t / p is dL/dp, not dL/dscores: it still has to go back through softmax, where p - t comes out",
        lambda i: -targets(i) / softmax(i.scores) / len(i.scores),
    ),
    Mistake(
        "softmax down the batch",
        "dL/dscores",
        "softmax runs over the batch, axis 0; it runs over the classes, the last axis",
        lambda i: (softmax(i.scores.T).T - targets(i)) / len(i.scores),
    ),
)  # fmt: skip


def softmax_derivative(inputs: SimpleNamespace, g: np.ndarray) -> np.ndarray:
    """The gradient behind softmax brought before it."""
    p = softmax(inputs.scores)
    return p * (g - (g * p).sum(-1, keepdims=True))
