"""Mistakes in attention."""

from functools import partial
from types import SimpleNamespace

import numpy as np

from cnn_vit.analysis.backprop import softmax
from cnn_vit.studies.homework.mistakes.record import Mistake, right


def scores(inputs: SimpleNamespace) -> np.ndarray:  # -> (B, T, S)
    """Products of queries and keys, not divided by anything."""
    return inputs.q @ inputs.k.swapaxes(1, 2)


def root(inputs: SimpleNamespace) -> float:
    """sqrt(E)."""
    return float(np.sqrt(inputs.q.shape[-1]))


def weights(inputs: SimpleNamespace) -> np.ndarray:  # -> (B, T, S)
    """P, as is right."""
    return softmax(scores(inputs) / root(inputs))


def softmax_without_shift(values: np.ndarray) -> np.ndarray:
    """Softmax as it is written, which overflows."""
    exponentials = np.exp(values)
    return exponentials / exponentials.sum(-1, keepdims=True)


def softmax_over_queries(values: np.ndarray) -> np.ndarray:
    """Softmax down the columns."""
    return softmax(values.swapaxes(1, 2)).swapaxes(1, 2)


NO_SHIFT = (
    "exp overflows where scores are large, and infinity by infinity is nan. Subtract the largest score of each row "
    "first, which changes no weight"
)
NO_ROOT = (
    "the scores are not divided by sqrt(E). Products of E pairs of numbers grow with sqrt(E), and softmax of large "
    "scores has next to no gradient"
)
ATTENTION_FORWARD = (
    Mistake("missing 1 / sqrt(E)", "y", NO_ROOT, lambda i: softmax(scores(i)) @ i.v),
    Mistake(
        "divided by E",
        "y",
        "the scores are divided by E; divide by its square root",
        lambda i: softmax(scores(i) / i.q.shape[-1]) @ i.v,
    ),
    Mistake(
        "softmax over the queries",
        "y",
        "softmax runs over the queries. Each query has weights over the keys with sum 1: the last axis of (B, T, S)",
        lambda i: softmax_over_queries(scores(i) / root(i)) @ i.v,
    ),
    Mistake("softmax without shift", "y", NO_SHIFT, lambda i: softmax_without_shift(scores(i) / root(i)) @ i.v),
    Mistake(
        "softmax not normalized",
        "y",
        "exp(scores) is not divided by its sum: the weights of a query must have sum 1",
        lambda i: np.exp(scores(i) / root(i)) @ i.v,
    ),
    Mistake(
        "softmax not normalized",
        "y",
        "the exponentials are not divided by their sum: the weights of a query must have sum 1",
        lambda i: np.exp(scores(i) / root(i) - (scores(i) / root(i)).max(-1, keepdims=True)) @ i.v,
    ),
    Mistake(
        "softmax forgotten",
        "y",
        "the scores themselves are the weights; softmax makes them positive with sum 1",
        lambda i: scores(i) / root(i) @ i.v,
    ),
    Mistake("weights transposed", "y", "P is transposed: y = P v", lambda i: weights(i).swapaxes(1, 2) @ i.v),
    Mistake(
        "keys for values", "y", "the keys are averaged; it is the values v that are", lambda i: weights(i) @ i.k
    ),
)  # fmt: skip


def scores_gradient(inputs: SimpleNamespace, rule: str = "right", of: np.ndarray | None = None) -> np.ndarray:
    """dL/dA by the derivative of softmax, right or wrong.

    Args:
        inputs: the arguments.
        rule: "right"; "diagonal" and "none" leave the other scores, or all of softmax, out; "mean" and "columns" sum
            wrongly; "unweighted" sums dL/dP alone.
        of: the weights; None for the right ones.
    """
    p = weights(inputs) if of is None else of
    dp = inputs.g @ inputs.v.swapaxes(1, 2)
    if rule == "none":
        return dp
    if rule == "diagonal":
        return p * dp
    if rule == "diagonal squared":
        return p * (1 - p) * dp
    if rule == "unweighted":
        return p * (dp - dp.sum(-1, keepdims=True))
    if rule == "mean":
        return p * (dp - (dp * p).mean(-1, keepdims=True))
    if rule == "columns":
        return p * (dp - (dp * p).sum(1, keepdims=True))
    return p * (dp - (dp * p).sum(-1, keepdims=True))


def query_gradient(inputs: SimpleNamespace, da: np.ndarray) -> np.ndarray:
    """dL/dq from dL/dA."""
    return da @ inputs.k / root(inputs)


def key_gradient(inputs: SimpleNamespace, da: np.ndarray) -> np.ndarray:
    """dL/dk from dL/dA."""
    return da.swapaxes(1, 2) @ inputs.q / root(inputs)


ROWS = {
    "diagonal": (
        "sum over the row forgotten",
        "the term - sum_s dL/dP P is missing. The weights of a query have sum 1: raising one score lowers all others",
    ),
    "diagonal squared": (
        "diagonal of softmax alone",
        "softmax's derivative is taken as P (1 - P) alone. That is its diagonal; each score moves the other weights of "
        "its row too: P (dL/dP - sum_s dL/dP P)",
    ),
    "none": (
        "softmax forgotten",
        "softmax is left out of the backward pass: dL/dA = P (dL/dP - sum_s dL/dP P), not dL/dP",
    ),
    "unweighted": (
        "sum without the weights",
        "the sum over the row is that of dL/dP alone; it is that of dL/dP P",
    ),
    "mean": ("mean for the sum", "the mean over the row stands where the sum belongs: sum_s dL/dP P"),
    "columns": (
        "sum over the queries",
        "the sum runs over the queries; softmax ran over the keys, and so does the sum, the last axis",
    ),
}


def query_gradient_by_rule(inputs: SimpleNamespace, rule: str) -> np.ndarray:
    """dL/dq by a wrong derivative of softmax."""
    return query_gradient(inputs, scores_gradient(inputs, rule))


def key_gradient_by_rule(inputs: SimpleNamespace, rule: str) -> np.ndarray:
    """dL/dk by a wrong derivative of softmax."""
    return key_gradient(inputs, scores_gradient(inputs, rule))


def softmax_mistakes() -> tuple[Mistake, ...]:
    """Wrong derivatives of softmax, as they come out in dL/dq and dL/dk."""
    mistakes = []
    for rule, (name, message) in ROWS.items():
        mistakes.append(Mistake(name, "dL/dq", message, partial(query_gradient_by_rule, rule=rule)))
        mistakes.append(Mistake(name, "dL/dk", message, partial(key_gradient_by_rule, rule=rule)))
    return tuple(mistakes)


def unscaled(inputs: SimpleNamespace) -> np.ndarray:
    """P without the root of E, forward as well."""
    return softmax(scores(inputs))


def overflowing(inputs: SimpleNamespace) -> np.ndarray:
    """P with nan where exp overflows."""
    return softmax_without_shift(scores(inputs) / root(inputs))


ROOT_AGAIN = (
    "1 / sqrt(E) is missing here: the scores were divided by sqrt(E), and the gradient on its way back is divided by "
    "it as well"
)
NO_ROOT_AT_ALL = "1 / sqrt(E) is missing, in the weights P already: A = q k^T / sqrt(E)"
ATTENTION_BACKWARD = (
    Mistake("missing 1 / sqrt(E)", "dL/dq", ROOT_AGAIN, lambda i: right("attention_backward", i) * root(i)),
    Mistake("missing 1 / sqrt(E)", "dL/dk", ROOT_AGAIN, lambda i: right("attention_backward", i, 1) * root(i)),
    Mistake(
        "missing 1 / sqrt(E)",
        "dL/dq",
        NO_ROOT_AT_ALL,
        lambda i: query_gradient(i, scores_gradient(i, of=unscaled(i))) * root(i),
    ),
    Mistake(
        "missing 1 / sqrt(E)",
        "dL/dk",
        NO_ROOT_AT_ALL,
        lambda i: key_gradient(i, scores_gradient(i, of=unscaled(i))) * root(i),
    ),
    Mistake("missing 1 / sqrt(E)", "dL/dv", NO_ROOT_AT_ALL, lambda i: unscaled(i).swapaxes(1, 2) @ i.g),
    *softmax_mistakes(),
    Mistake(
        "not transposed",
        "dL/dk",
        "dL/dA is not transposed: row t of it belongs to query t, and a key gathers its column: (dL/dA)^T q",
        lambda i: scores_gradient(i) @ i.q / root(i),
    ),
    Mistake(
        "transposed",
        "dL/dq",
        "dL/dA is transposed: row t of it belongs to query t: dL/dA k",
        lambda i: scores_gradient(i).swapaxes(1, 2) @ i.k / root(i),
    ),
    Mistake(
        "q and k exchanged",
        "dL/dq",
        "dL/dA is multiplied by q. A = q k^T, so that the derivative by q holds k: dL/dA k / sqrt(E)",
        lambda i: scores_gradient(i) @ i.q / root(i),
    ),
    Mistake(
        "q and k exchanged",
        "dL/dk",
        "(dL/dA)^T is multiplied by k. A = q k^T, so that the derivative by k holds q: (dL/dA)^T q / sqrt(E)",
        lambda i: scores_gradient(i).swapaxes(1, 2) @ i.k / root(i),
    ),
    Mistake(
        "weights not transposed",
        "dL/dv",
        "P is not transposed. Forward, row t of P says which values query t takes; backward, value s gathers from all "
        "queries that took it, its column: P^T g",
        lambda i: weights(i) @ i.g,
    ),
    Mistake(
        "softmax without shift",
        "dL/dq",
        NO_SHIFT,
        lambda i: query_gradient(i, scores_gradient(i, of=overflowing(i))),
    ),
    Mistake(
        "softmax without shift",
        "dL/dk",
        NO_SHIFT,
        lambda i: key_gradient(i, scores_gradient(i, of=overflowing(i))),
    ),
    Mistake("softmax without shift", "dL/dv", NO_SHIFT, lambda i: overflowing(i).swapaxes(1, 2) @ i.g),
)
