"""The plots of a sweep: parallel coordinates, metric against settings, learning curves, intervals and importance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnn_vit import plots
from cnn_vit.plots import Line, ParallelAxis, ParallelLine, Points, Span
from cnn_vit.reports import sweep_facts
from cnn_vit.reports.sweep_facts import (
    COMPLETE,
    FAILED,
    MAX,
    PRUNED,
    SEED,
    LeaderRow,
    SweepFacts,
    SweepTrial,
    metric_text,
    value_text,
    values_text,
)
from cnn_vit.reports.sweep_importance import ImportanceRow

MOST_SPANS = 12  # settings whose intervals are drawn
MOST_LINES = 1000  # of the parallel coordinates
MOST_POINTS = 300  # of a plot of the metric against a setting
MOST_CURVES, CURVE_POINTS = 150, 4000  # learning curves, and points of all together, about
JITTER = 0.5  # share of its room that lines and points of one choice are spread over
GOLDEN = 0.6180339887  # its multiples modulo 1 lie apart
SPAN = 10  # positive metrics that span such a factor are drawn on a logarithmic axis
FENCE = 3.0  # interquartile ranges beyond the quartiles; what lies farther stands at the end of the axis
BROKEN, BEST = "failed", "best"  # kinds of lines beside pruned and complete
NOT_ACTIVE = "not active"


# How the metric is drawn ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scale:
    """The axis that the metric is drawn on.

    Attributes:
        low: its low end.
        high: its high end.
        log: whether it is logarithmic.
        outside: settings that lie outside and stand at an end.
    """

    low: float
    high: float
    log: bool
    outside: int

    def clip(self, metric: float) -> float:
        """Returns a metric, or the end of the axis that it lies beyond."""
        return min(self.high, max(self.low, metric))


def choose_scale(facts: SweepFacts, rows: Sequence[LeaderRow], *, clips: bool = True) -> Scale:
    """Returns the axis for the metrics of settings.

    It is logarithmic for positive ones that span a power of ten, but for an accuracy.

    Args:
        facts: the sweep.
        rows: the settings.
        clips: whether a few that lie very far from the others, which they would press into one line, are to stand at
            the end of the axis.
    """
    metrics = np.array([row.estimate for row in rows])
    if not len(metrics):
        return Scale(0.0, 1.0, False, 0)
    log = bool(not facts.is_accuracy and metrics.min() > 0 and metrics.max() >= SPAN * metrics.min())
    measured = np.log(metrics) if log else metrics
    first, third = np.quantile(measured, [0.25, 0.75])
    room = FENCE * (third - first)
    inside = measured
    if clips and room > 0:
        inside = measured[(measured >= first - room) & (measured <= third + room)]
    best = measured.max() if facts.mode == MAX else measured.min()
    low, high = min(inside.min(), best), max(inside.max(), best)
    outside = int(((measured < low) | (measured > high)).sum())
    if log:
        low, high = np.exp(low), np.exp(high)
    return Scale(float(low), float(high), log, outside)


def scale_of_lines(facts: SweepFacts, rows: Sequence[LeaderRow]) -> Scale:
    """Returns the axis of the metric for parallel coordinates: that of the settings whose runs are whole.

    The others have numbers of fewer steps, mostly worse, which would press these together.
    """
    complete = [row for row in rows if row.is_whole]
    return choose_scale(facts, complete if len(complete) > 1 else rows)


def scale_of_points(facts: SweepFacts, rows: Sequence[LeaderRow]) -> Scale:
    """Returns the axis of the metric for plots against a setting; all accuracies fit on one."""
    return choose_scale(facts, rows, clips=not facts.is_accuracy)


# Plots ----------------------------------------------------------------------------------------------------------------


def draw_leaders(facts: SweepFacts, rows: Sequence[LeaderRow]) -> str:
    """Draws the intervals of the best settings whose runs are whole; "" where none has one."""
    spans = []
    for row in rows[:MOST_SPANS]:
        if row.is_whole:
            spans.append(Span(f"#{row.suggestion}", row.estimate, row.low, row.high))
    if all(span.low is None for span in spans):
        return ""
    title = f"{facts.metric_name.capitalize()} with 95 % intervals"
    return plots.draw_intervals(spans, title=title, percent=facts.is_accuracy)


def draw_importance(rows: Sequence[ImportanceRow]) -> str:
    """Draws how much each swept setting matters."""
    return plots.draw_shares(
        [Span(row.key, row.estimate, row.low, row.high) for row in rows], title="Share of the variance"
    )


def jitter(number: int) -> float:
    """Returns a shift from -0.5 to 0.5, another for each number, so that equal values do not hide each other."""
    return number * GOLDEN % 1 - 0.5


def failed_settings(facts: SweepFacts) -> list[tuple[SweepTrial, ...]]:
    """Returns the settings of which every trial failed."""
    settings = []
    for trials in sweep_facts.group_settings(facts):
        if all(trial.state in FAILED for trial in trials):
            settings.append(trials)
    return settings


@dataclass(frozen=True)
class Axis:
    """A swept setting as an axis.

    Attributes:
        key: of the setting.
        names: of its choices; none of a range.
        low: low end of a range.
        high: high end of a range.
        log: whether a range is logarithmic.
        whole: whether a range is of integers.
    """

    key: str
    names: tuple[str, ...]
    low: float
    high: float
    log: bool
    whole: bool

    def place(self, value: Any, number: int) -> float:
        """Returns where a value lies from 0 to 1; choices have equal parts, in which the number spreads lines."""
        if not self.names:
            return plots.find_place(float(value), self.low, self.high, log=self.log)
        return (self.names.index(value_text(value)) + 0.5 + JITTER * jitter(number)) / len(self.names)


def make_axis(dimension: Mapping[str, Any], values: Sequence[Any]) -> Axis:
    """Returns a swept setting as an axis; values that are not of its range, or of its choices, get a place as well.

    Args:
        dimension: of the space.
        values: all that were tried.
    """
    key = str(dimension["key"])
    is_numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if dimension["kind"] != "choice" and is_numbers:
        low, high = float(dimension["low"]), float(dimension["high"])
        return Axis(key, (), low, high, log=dimension["kind"] == "log", whole=dimension["kind"] == "int")
    choices = [*dimension["choices"], *values]
    if all(isinstance(choice, int | float) and not isinstance(choice, bool) for choice in choices):
        choices.sort()
    names = dict.fromkeys(map(value_text, choices))
    return Axis(key, tuple(names), 0, 1, log=False, whole=False)


def make_axes(facts: SweepFacts, settings: Sequence[Mapping[str, Any]]) -> list[Axis]:
    """Returns the axes of all swept settings but the seed."""
    axes = []
    for dimension in facts.dimensions:
        key = dimension["key"]
        if key != SEED:
            axes.append(make_axis(dimension, [values[key] for values in settings if key in values]))
    return axes


def spread_out(items: Sequence[Any], most: int) -> list[Any]:
    """Returns the first half of so many items and the rest evenly from the others; all where there are no more."""
    if len(items) <= most:
        return list(items)
    first = most // 2
    others = np.linspace(first, len(items) - 1, most - first).round().astype(int)
    return [*items[:first], *(items[number] for number in others)]


def draw_parallel_forms(facts: SweepFacts, rows: Sequence[LeaderRow]) -> dict[str, str]:
    """Draws parallel coordinates for wide pages and for narrow ones; none where nothing was tried or nothing swept."""
    failed = failed_settings(facts)
    axes = make_axes(facts, [*(row.values for row in rows), *(trials[0].values for trials in failed)])
    if not axes or not (rows or failed):
        return {}
    scale = scale_of_lines(facts, rows)
    lines = []
    for trials in spread_out(failed, MOST_LINES // 4):
        first = trials[0]
        title = f"#{first.suggestion}: {first.state}, {values_text(first.values)}"
        lines.append(ParallelLine(title, (*find_places(axes, first.values, first.suggestion), None), BROKEN))
    ranked = [row for row in rows if row.is_whole]
    levels = {row.rank: find_level(number, len(ranked)) for number, row in enumerate(ranked)}
    for row in reversed(spread_out(rows, MOST_LINES)):
        place = plots.find_place(row.estimate, scale.low, scale.high, log=scale.log)
        metric_place = place if facts.mode == MAX else 1 - place
        note = f", {row.note}" if row.note else ""
        title = f"#{row.suggestion}: {metric_text(facts, row.estimate)}{note}, {values_text(row.values)}"
        kind = COMPLETE if row.is_whole else PRUNED
        if row is rows[0] and kind == COMPLETE:
            kind = BEST
        places = (*find_places(axes, row.values, row.suggestion), metric_place)
        lines.append(ParallelLine(title, places, kind, levels.get(row.rank, 0)))
    drawn_axes = [draw_axis_of(axis, lines, number) for number, axis in enumerate(axes)]
    ticks: tuple[tuple[float, str], ...] = ()
    if rows:
        ticks = plots.number_ticks(
            scale.low, scale.high, log=scale.log, percent=facts.is_accuracy, is_flipped=facts.mode != MAX
        )
    drawn_axes.append(ParallelAxis(facts.metric_name, ticks, BROKEN if failed else ""))
    title = f"Parallel coordinates: the swept settings and {facts.metric_name}"
    return {
        "wide": plots.draw_parallel(drawn_axes, lines, title=title),
        "narrow": plots.draw_parallel(drawn_axes, lines, title=title, is_stacked=True),
    }


def find_level(rank: int, count: int) -> int:
    """Returns the level of color of the setting that so many others of a count are better than: 4 of the best fifth."""
    return plots.LEVELS - 1 - min(plots.LEVELS - 1, plots.LEVELS * rank // max(count, 1))


def find_places(axes: Sequence[Axis], values: Mapping[str, Any], number: int) -> list[float | None]:
    """Returns where the values of a setting lie on the axes; None where a key is not active."""
    return [axis.place(values[axis.key], number) if axis.key in values else None for axis in axes]


def draw_axis_of(axis: Axis, lines: Sequence[ParallelLine], number: int) -> ParallelAxis:
    """Returns an axis with its ticks, and with a foot where a line has no value on it."""
    foot = NOT_ACTIVE if any(line.places[number] is None for line in lines) else ""
    if not axis.names:
        return ParallelAxis(axis.key, plots.number_ticks(axis.low, axis.high, log=axis.log, whole=axis.whole), foot)
    ticks = []
    for place, name in enumerate(axis.names):
        ticks.append(((place + 0.5) / len(axis.names), name))
    return ParallelAxis(axis.key, tuple(ticks), foot)


def draw_scatters(facts: SweepFacts, rows: Sequence[LeaderRow]) -> list[str]:
    """Draws the metric against each swept setting: complete, pruned and failed ones, and the best."""
    scale = scale_of_points(facts, rows)
    failed = spread_out(failed_settings(facts), MOST_POINTS)
    shown = spread_out(rows, MOST_POINTS)
    axes = make_axes(facts, [*(row.values for row in rows), *(trials[0].values for trials in failed)])
    drawings = []
    for axis in axes:
        of_axis = [row for row in shown if axis.key in row.values]
        groups = []
        pruned = [row for row in of_axis if not row.is_whole]
        complete = [row for row in of_axis if row.is_whole]
        groups.append(make_points(axis, pruned, scale, color="soft", is_hollow=True, size=4.5))
        groups.append(make_points(axis, complete, scale, color="level2"))
        if complete and complete[0].rank == 1:
            groups.append(make_points(axis, complete[:1], scale, color="series1", marker="D", size=7))
        broken = [trials[0] for trials in failed if axis.key in trials[0].values]
        feet = [find_x(axis, trial.values[axis.key], trial.suggestion) for trial in broken]
        groups.append(Points(feet, [None] * len(feet), "series3", "x"))
        if of_axis or broken:
            drawings.append(
                plots.draw_scatter(
                    [group for group in groups if group.x],
                    title=plots.shorten(plots.printable(axis.key), 40),
                    names=[plots.printable(name) for name in axis.names],
                    percent=facts.is_accuracy,
                    log_x=axis.log,
                    whole_x=axis.whole,
                    log_y=scale.log,
                )
            )
    return drawings


def make_points(axis: Axis, rows: Sequence[LeaderRow], scale: Scale, **look: Any) -> Points:
    """Returns the metrics of settings over their values on an axis."""
    x = [find_x(axis, row.values[axis.key], row.suggestion) for row in rows]
    return Points(x, [scale.clip(row.estimate) for row in rows], **look)


def find_x(axis: Axis, value: Any, number: int) -> float:
    """Returns where a value stands on the axis of a plot: a number as it is, a choice by its place, spread a little."""
    if not axis.names:
        return float(value)
    return axis.names.index(value_text(value)) + JITTER * jitter(number)


def draw_learning(facts: SweepFacts, rows: Sequence[LeaderRow]) -> str:
    """Draws the metric of trials over their steps, the best setting's strongly; "" where no trial has a curve."""
    leader = next((row for row in rows if row.is_whole), None)
    trials = [trial for row in rows for trial in row.trials if trial.curve]
    if not trials:
        return ""
    shown = spread_out(trials, MOST_CURVES)
    values = np.array([metric for trial in shown for _, metric in trial.curve])
    first, third = np.quantile(values, [0.05, 0.95])
    room = FENCE * (third - first)
    lines = []
    name = ""
    for trial in reversed(shown):
        steps = [step for step, _ in trial.curve]
        metrics = [float(np.clip(metric, first - room, third + room)) for _, metric in trial.curve]
        is_best = leader is not None and trial in leader.trials
        look, series = "faint", 0
        if is_best:
            name = f"#{trial.suggestion}"
            look, series = "strong", 1
        elif trial.state == PRUNED:
            look = "ended"
        lines.append(Line("", steps, metrics, series, look))
    title = facts.metric_name.capitalize() + (f", the best is {name}" if name else "")
    log = not facts.is_accuracy and values.min() > 0
    return plots.draw_curves(
        lines, title=title, percent=facts.is_accuracy, log=log, points=max(20, CURVE_POINTS // len(lines))
    )
