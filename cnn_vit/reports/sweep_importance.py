"""Which swept settings matter: permutation importance of a random forest that is fitted to the metric.

The forest predicts the metric of settings that it was not fitted on (cross-validation). A setting matters as much as
that prediction gets worse where its values are shuffled among the trials. It is a statement about the trials of this
sweep: what a sampler has hardly varied cannot matter.

Sources: Breiman, Machine Learning 45 (2001), section 10, for forests and what shuffling does to their error; Jansen,
Computer Physics Communications 117 (1999), for what the growth of the squared error is: twice the part of the variance
that goes through the setting, alone or together with others (Sobol's total effect).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnn_vit import stops
from cnn_vit.reports.sweep_facts import LeaderRow, SweepFacts, leaderboard

LEAST_SETTINGS = 10  # that a forest is fitted to
LEAST_R2 = 0.25  # below it the forest explains too little
FOLDS = 5
REPEATS = 5  # of the whole, with other folds and other trees
TREES = 40
SHUFFLES = 4  # of each column in each repeat
SPAN = 10  # positive metrics that span such a factor are fitted by their logarithm


@dataclass(frozen=True)
class ImportanceRow:
    """How much a swept setting matters.

    Attributes:
        key: of the setting.
        estimate: about the share of the metric's variance that goes through the setting, alone or with others: half of
            what shuffling its values adds to the forest's squared error, in variances. The shares of settings that act
            together add up to more than 1.
        low: the smallest of the repeats.
        high: the largest of the repeats.
        active: settings in which the key is active; the others do not have it.
        settings: all that the forest is fitted to.
    """

    key: str
    estimate: float
    low: float
    high: float
    active: int
    settings: int


@dataclass(frozen=True)
class Importance:
    """Which swept settings matter, as far as a forest can tell.

    Attributes:
        rows: of the keys with more than one value, what matters most first; none where nothing can be said.
        r2: share of the metric's variance that the forest explains on settings that it was not fitted on; None where
            there is no forest.
        sentence: what it means, or why nothing can be said.
    """

    rows: tuple[ImportanceRow, ...]
    r2: float | None
    sentence: str


@dataclass(frozen=True)
class Columns:
    """What the forest sees of a swept setting.

    Attributes:
        key: of the setting.
        values: (n, c) of n settings: one column of a number, or one column for each choice.
        is_active: (n,) whether the setting has the key.
    """

    key: str
    values: np.ndarray
    is_active: np.ndarray


def importance(facts: SweepFacts, rows: Sequence[LeaderRow] | None = None) -> Importance:
    """Returns how much each swept setting matters for the metric.

    Args:
        facts: the sweep.
        rows: its leaderboard, where it is already made.
    """
    if rows is None:
        rows = leaderboard(facts)
    complete = [row for row in rows if row.is_whole]
    if len(complete) < LEAST_SETTINGS:
        what_there_is = f"this sweep has {len(complete)}."
        needed = f"Importance needs at least {LEAST_SETTINGS} settings with a complete trial; "
        return Importance((), None, needed + what_there_is)
    complete.sort(key=lambda row: row.suggestion)  # so that the leaderboard's order decides nothing
    columns = [encode(dimension, complete) for dimension in facts.dimensions if dimension["key"] in facts.keys]
    varied = [column for column in columns if np.ptp(column.values, axis=0).any()]
    metrics = np.array([row.estimate for row in complete])
    if not varied or not np.ptp(metrics):
        return Importance((), None, "All complete trials have the same values or the same metric: nothing to explain.")
    name = facts.metric_name
    if not facts.is_accuracy and metrics.min() > 0 and metrics.max() >= SPAN * metrics.min():
        metrics, name = np.log(metrics), f"the logarithm of {name}"
    r2, shares = measure_shares(varied, metrics)
    share = max(0.0, 100 * r2)  # below 0 the mean of all predicts better
    explained = f"a random forest explains {share:.0f} % of the variance of {name} (cross-validated R2 {r2:.2f})"
    if r2 < LEAST_R2:
        little = f"{explained}, less than {100 * LEAST_R2:.0f} %."
        return Importance((), r2, f"The forest explains too little to say what matters: {little}")
    importance_rows = []
    for column, shares_of_column in zip(varied, shares.T, strict=True):
        importance_rows.append(
            ImportanceRow(
                column.key,
                float(shares_of_column.mean()),
                float(shares_of_column.min()),
                float(shares_of_column.max()),
                active=int(column.is_active.sum()),
                settings=len(complete),
            )
        )
    importance_rows.sort(key=lambda row: -row.estimate)
    return Importance(tuple(importance_rows), r2, f"By {len(complete)} complete settings {explained}.")


# What the forest sees -------------------------------------------------------------------------------------------------


def encode(dimension: Any, rows: Sequence[LeaderRow]) -> Columns:
    """Returns the values of a dimension as columns: a number, by its logarithm on a log scale, or one for each choice.

    A setting that does not have the key gets the median of those that have it, or no choice.
    """
    key = dimension["key"]
    is_active = np.array([key in row.values for row in rows])
    values = [row.values.get(key) for row in rows]
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if dimension["kind"] == "choice" or not numbers or len(numbers) < is_active.sum():
        texts = [json.dumps(value, sort_keys=True, default=str) for value in values]
        choices = sorted({text for text, active in zip(texts, is_active, strict=True) if active})
        matrix = np.array([[float(text == choice) for choice in choices] for text in texts]).reshape(len(rows), -1)
        return Columns(key, matrix * is_active[:, None], is_active)
    column = np.full(len(rows), np.median(numbers))
    column[is_active] = numbers
    if dimension["kind"] == "log":
        column = np.log(column)
    return Columns(key, column[:, None], is_active)


def shuffle(column: Columns, rng: np.random.Generator) -> np.ndarray:
    """Returns the values of a column, those of settings that have the key shuffled among each other.

    So a conditional setting does not get the importance of the choice that it depends on.
    """
    shuffled = column.values.copy()
    active = np.flatnonzero(column.is_active)
    shuffled[active] = column.values[rng.permutation(active)]
    return shuffled


# The forest -----------------------------------------------------------------------------------------------------------


def measure_shares(columns: Sequence[Columns], metrics: np.ndarray) -> tuple[float, np.ndarray]:
    """Fits forests, and measures the share of the variance that goes through each column.

    Args:
        columns: what the forests see.
        metrics: (n,) what they predict.

    Returns:
        R2 on settings that a forest was not fitted on, the mean of the repeats; and the shares, (REPEATS, number of
        columns).
    """
    scores = []
    shares = np.zeros((REPEATS, len(columns)))
    matrix = np.concatenate([column.values for column in columns], axis=1)
    ends = np.cumsum([column.values.shape[1] for column in columns])
    for repeat in range(REPEATS):
        stops.raise_if_requested()
        rng = np.random.default_rng(repeat)
        matrices = [matrix]
        for column, end in zip(columns, ends, strict=True):
            for _ in range(SHUFFLES):
                shuffled = matrix.copy()
                shuffled[:, end - column.values.shape[1] : end] = shuffle(column, rng)
                matrices.append(shuffled)
        predicted = cross_predict(matrix, metrics, np.stack(matrices), rng)
        score, *shuffled_scores = [r2_score(metrics, values) for values in predicted]
        scores.append(score)
        shares[repeat] = (score - np.reshape(shuffled_scores, (len(columns), SHUFFLES)).mean(1)) / 2
    return float(np.mean(scores)), shares


def cross_predict(
    matrix: np.ndarray, metrics: np.ndarray, matrices: np.ndarray, rng: np.random.Generator
) -> np.ndarray:  # (n, c), (n,), (m, n, c) -> (m, n)
    """Predicts the metric of each setting, also with shuffled values, by the forest that was fitted without its fold.

    Args:
        matrix: what the forests are fitted to.
        metrics: what they predict.
        matrices: what they predict from, all at once.
        rng: chooses folds and trees.
    """
    from sklearn.ensemble import RandomForestRegressor
    from threadpoolctl import threadpool_limits

    folds = rng.permutation(len(metrics)) % FOLDS
    predicted = np.zeros(matrices.shape[:2])
    with threadpool_limits(limits=1):
        for fold in range(FOLDS):
            is_left_out = folds == fold
            forest = RandomForestRegressor(TREES, random_state=int(rng.integers(2**31)), n_jobs=1)
            forest.fit(matrix[~is_left_out], metrics[~is_left_out])
            values = matrices[:, is_left_out].reshape(-1, matrix.shape[1])
            predicted[:, is_left_out] = forest.predict(values).reshape(len(matrices), -1)
    return predicted


def r2_score(metrics: np.ndarray, predicted: np.ndarray) -> float:
    """Returns the share of the variance that a prediction explains; below 0 it is worse than the mean."""
    return 1 - float(((metrics - predicted) ** 2).sum() / ((metrics - metrics.mean()) ** 2).sum())
