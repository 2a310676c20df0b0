"""Regions of a swept space that no trial has looked at, and edges at which the best settings lie, in sentences."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnn_vit.reports.sweep_facts import (
    COMPLETE,
    FAILED,
    NOT_OVER,
    PRUNED,
    SEED,
    LeaderRow,
    SweepFacts,
    SweepTrial,
    group_settings,
    leaderboard,
    value_text,
)

CHANCE = 0.01  # a gap that uniform sampling leaves more rarely is said
EDGE = 0.1  # share of a range that is its edge
BEST = 3  # settings, or a twentieth of all: where all of them lie at an edge, that is said
LEAST_SETTINGS = 10  # with numbers, for edges of a range
LEAST_VALUES = 3  # of a grid, for its edges
FEW_VALUES = 12  # of an integer range, at most, of which each is a choice


@dataclass(frozen=True)
class Points:
    """The settings of a sweep by what became of them, each by its values.

    Attributes:
        visited: those with numbers, or whose trials are still to come.
        failed: those of which every trial failed.
        best: those that are complete, best first.
    """

    visited: list[Mapping[str, Any]]
    failed: list[Mapping[str, Any]]
    best: list[Mapping[str, Any]]


def unexplored(facts: SweepFacts, rows: Sequence[LeaderRow] | None = None) -> list[str]:
    """Says which choices and which parts of ranges no trial has looked at, and where the best lie at an edge.

    A gap in a range is said only where uniform sampling would leave such a gap in fewer than one sweep of a hundred;
    gaps between the values of a grid are meant.

    Args:
        facts: the sweep.
        rows: its leaderboard, where it is already made.
    """
    if rows is None:
        rows = leaderboard(facts)
    points = sort_points(facts, rows)
    if not points.visited:
        return []
    sentences = []
    for dimension in facts.dimensions:
        if dimension["key"] == SEED:
            continue
        visited = read_values(dimension, points.visited)
        failed = read_values(dimension, points.failed)
        best = read_values(dimension, points.best)
        if dimension["kind"] == "choice":
            sentences += find_untried(dimension, dimension["choices"], visited, failed)
            sentences += find_best_value_at_edge(dimension, best)
        elif not visited:
            sentences.append(f"{dimension['key']} was active in no trial{failed_text(len(failed))}.")
        elif facts.definition.get("sampler") == "grid":
            sentences += find_best_value_at_edge(dimension, best)
        else:
            sentences += find_gaps(dimension, visited, failed)
            sentences += find_best_at_edge(dimension, best)
    return sentences


def sort_points(facts: SweepFacts, rows: Sequence[LeaderRow]) -> Points:
    """Returns the values of the settings by what became of their trials."""
    visited, failed = [], []
    for trials in group_settings(facts):
        if all(trial.state in FAILED for trial in trials):
            failed.append(trials[0].values)
        elif any(is_visit(trial) for trial in trials):
            visited.append(trials[0].values)
    return Points(visited, failed, [row.values for row in rows if row.is_whole])


def is_visit(trial: SweepTrial) -> bool:
    """Whether a trial has tried its values, or still will."""
    return trial.state in (COMPLETE, PRUNED, *NOT_OVER)


def read_values(dimension: Mapping[str, Any], points: Iterable[Mapping[str, Any]]) -> list[Any]:
    """Returns the values of a dimension, of the points that have it."""
    return [point[dimension["key"]] for point in points if dimension["key"] in point]


def failed_text(count: int) -> str:
    """Returns "; 3 settings there failed" for the end of a sentence; "" of none."""
    if not count:
        return ""
    return f"; {count} {'setting' if count == 1 else 'settings'} there failed"


# Choices --------------------------------------------------------------------------------------------------------------


def find_untried(
    dimension: Mapping[str, Any], choices: Iterable[Any], visited: Sequence[Any], failed: Sequence[Any]
) -> list[str]:
    """Says which choices no trial has tried, and which of them only trials that failed."""
    key = dimension["key"]
    seen, broken = set(map(value_text, visited)), set(map(value_text, failed))
    names = [value_text(choice) for choice in choices]
    never = [name for name in names if name not in seen and name not in broken]
    sentences = []
    if never and len(never) == len(names):
        return [f"{key} was active in no trial."]
    if never:
        sentences.append(f"No trial has tried {key}={' or '.join(never)}.")
    only_failed = [name for name in names if name not in seen and name in broken]
    if only_failed:
        sentences.append(f"All trials with {key}={' or '.join(only_failed)} failed.")
    return sentences


def find_best_value_at_edge(dimension: Mapping[str, Any], best: Sequence[Any]) -> list[str]:
    """Says so where the best settings have the smallest or the largest value of all that were tried.

    Args:
        dimension: of which a few values were tried.
        best: its values, of the best setting first.
    """
    if not all(is_number(value) for value in best):
        return []
    values = sorted(set(best))
    if len(values) < LEAST_VALUES or best[0] not in (values[0], values[-1]):
        return []
    edge = best[0]
    count = min(BEST, best.count(edge))
    if any(value != edge for value in best[:count]):
        return []
    who = f"The best {count} of {len(best)} have" if count > 1 else "The best setting has"
    which, others = ("smallest", "smaller") if edge == values[0] else ("largest", "larger")
    return [f"{who} {dimension['key']}={value_text(edge)}, the {which} value tried: try {others} ones."]


def is_number(value: Any) -> bool:
    """Whether a value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


# Ranges ---------------------------------------------------------------------------------------------------------------


def unit_positions(dimension: Mapping[str, Any], values: Sequence[float]) -> np.ndarray:
    """Returns where values lie in a range, 0 at its low end and 1 at its high one, by logarithms on a log scale.

    Each integer has an equal part of 0..1 and lies in the middle of it.
    """
    low, high, numbers = float(dimension["low"]), float(dimension["high"]), np.array(values, float)
    if dimension["kind"] == "log":
        low, high, numbers = np.log(low), np.log(high), np.log(numbers)
    if dimension["kind"] == "int":
        return (numbers - low + 0.5) / (high - low + 1)
    if high == low:
        return np.full(len(numbers), 0.5)
    return (numbers - low) / (high - low)


def find_gaps(dimension: Mapping[str, Any], visited: Sequence[float], failed: Sequence[float]) -> list[str]:
    """Says which parts of a range hold no value, though uniform sampling would hardly leave such a gap."""
    if dimension["kind"] == "int":
        return find_gaps_of_integers(dimension, visited, failed)
    values = np.unique(np.array(visited, float))
    ends = [float(dimension["low"]), *values.tolist(), float(dimension["high"])]
    positions = np.clip([0, *unit_positions(dimension, values.tolist()), 1], 0, 1)
    sentences = []
    for number, share in enumerate(np.diff(positions)):
        if is_rare_gap(share, len(visited)):
            low, high = ends[number : number + 2]
            inside = sum(low < value < high for value in failed)
            sentences.append(describe_gap(dimension, low, high, share, inside))
    return sentences


def find_gaps_of_integers(dimension: Mapping[str, Any], visited: Sequence[float], failed: Sequence[float]) -> list[str]:
    """Says which integers of a range no trial has tried: those of a long gap, or single ones where there are few."""
    low, high = int(dimension["low"]), int(dimension["high"])
    count = high - low + 1
    if count <= FEW_VALUES:
        # of all integers, how many are left out by chance in the mean
        if count * (1 - 1 / count) ** len(visited) >= CHANCE:
            return []
        return find_untried(dimension, range(low, high + 1), [int(value) for value in visited], failed)
    values = [low - 1, *sorted({int(value) for value in visited}), high + 1]
    sentences = []
    for before, after in itertools.pairwise(values):
        share = (after - before - 1) / count
        if is_rare_gap(share, len(visited)):
            inside = sum(before < value < after for value in failed)
            sentences.append(describe_gap(dimension, before + 1, after - 1, share, inside))
    return sentences


def is_rare_gap(share: float, count: int) -> bool:
    """Whether uniform sampling of so many points leaves a gap of such a share of the range more rarely than CHANCE.

    Each of the count + 1 gaps is that long with the probability (1 - share) ** count (Feller, volume 2, I.7); their sum
    bounds that of the longest.
    """
    return (count + 1) * (1 - share) ** count < CHANCE


def describe_gap(dimension: Mapping[str, Any], low: float, high: float, share: float, failed: int) -> str:
    """Says between which values of a range no trial has looked."""
    of_what = "of the range's logarithm" if dimension["kind"] == "log" else "of the range"
    return (
        f"No trial has {dimension['key']} between {low:.3g} and {high:.3g}, {100 * share:.0f} % {of_what}"
        f"{failed_text(failed)}."
    )


def find_best_at_edge(dimension: Mapping[str, Any], best: Sequence[float]) -> list[str]:
    """Says so where the best settings all lie in the lowest or the highest tenth of a range.

    Args:
        dimension: a range.
        best: its values, of the best setting first.
    """
    if len(best) < LEAST_SETTINGS:
        return []
    count = max(BEST, len(best) // 20)
    positions = unit_positions(dimension, best[:count])
    who = f"The best {count} of {len(best)} lie in the"
    key = dimension["key"]
    if (positions <= EDGE).all():
        if float(dimension["low"]) == 0:
            return [f"{who} lowest tenth of {key}, next to 0: a logarithmic range would tell them apart."]
        return [f"{who} lowest tenth of {key}: widen it downwards."]
    if (positions >= 1 - EDGE).all():
        return [f"{who} highest tenth of {key}: widen it upwards."]
    return []
