"""What a sweep has found: its trials, the settings from best to worst, how sure the best one is, and what failed.

A *suggestion* is a point of the swept space, and a *trial* runs it with a seed. Suggestions whose values differ in the
seed alone are one *setting*, which has one row of the leaderboard.

This file imports neither jax nor what draws and fits, so that a scheduler's process may read it.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cnn_vit.reports.intervals import (
    Difference,
    Interval,
    difference_of_images,
    difference_of_runs,
    student_interval,
    wilson_interval,
)

# States of a trial, as `studies/trials` names them
COMPLETE = "complete"
PRUNED = "pruned"
NOT_OVER = ("running", "interrupted", "queued")
FAILED = ("diverged", "out of memory", "bad config", "crashed")  # over, without numbers
INCOMPLETE = "incomplete"  # of a setting: a trial is complete, and another of the same setting is not
UNDER_WAY = "under way"  # of a setting: no trial is over, and there are numbers of the steps that are done

UNBEGUN = ("queued", "cancelled", "bad config")  # states of trials that may not have begun

SEED = "seed"  # the key that does not tell settings apart
MAX, MIN = "max", "min"
MOST_TIES = 5  # settings as good as the best that are named
LONGEST = 60  # letters of a value in a sentence
POINTS = 100  # percentage points of a share


@dataclass(frozen=True)
class SweepTrial:
    """One trial of a sweep.

    Attributes:
        row: its number in the plan.
        suggestion: number of the point that it runs.
        seed: of the run.
        id: name of its folder; equal for two trials that are the same run.
        values: of the swept settings, by key; those that are not active are left out.
        state: complete, pruned, diverged, out of memory, bad config, crashed, cancelled, running, interrupted, queued.
        reason: why it has no numbers, or is not over; "" of a complete one.
        metric: what the sweep compares; None where there are no numbers. Of a trial that is pruned, or waits for the
            others at the end of a rung, it is of its last step.
        alias_of: the row of the trial that is the same run, and was planned before; None where it is a run of its own.
        steps: training steps that are done.
        planned_steps: training steps of the whole run.
        seconds: time that it took; None where it is not known.
        cpu_seconds: processor time that it took, of all cores together; None where it is not known.
        curve: step and metric of each of its evaluations.
        folder: where its files lie.
        n: how many examples an accuracy is a share of; None where the metric is none, or it is not known.
        is_decided: whether its rung of the halving is decided without it, so that it is never done again.
    """

    row: int
    suggestion: int
    seed: int
    id: str
    values: Mapping[str, Any]
    state: str
    reason: str
    metric: float | None
    alias_of: int | None
    steps: int
    planned_steps: int
    seconds: float | None
    cpu_seconds: float | None
    curve: tuple[tuple[int, float], ...]
    folder: Path
    n: int | None = None
    is_decided: bool = False


@dataclass(frozen=True)
class SweepFacts:
    """A sweep with all its trials, as far as it is done.

    Attributes:
        name: of the sweep, for titles.
        out: its folder.
        definition: what was asked for, as space.json holds it.
        dimensions: of the space, each with key, kind (choice, uniform, log, int), choices, low, high and when.
        metric: name of what is compared, "validation.accuracy".
        mode: "max" where a larger metric is better, "min" where a smaller one is.
        trials: in the order of their rows.
        planned: how many trials there will be in all, as far as is known.
        notes: what one who reads the numbers should know, a sentence each.
    """

    name: str
    out: Path
    definition: Mapping[str, Any]
    dimensions: tuple[Mapping[str, Any], ...]
    metric: str
    mode: str
    trials: tuple[SweepTrial, ...]
    planned: int
    notes: tuple[str, ...]

    @property
    def is_accuracy(self) -> bool:
        """Whether the metric is the share of examples that are right, which lies in 0 to 1."""
        return self.metric.endswith(".accuracy")  # what somebody's own objective calls accuracy may be anything

    @property
    def metric_name(self) -> str:
        """The metric as a sentence names it: "validation accuracy"."""
        return self.metric.replace(".", " ")

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the swept settings without the seed, in the order of the space."""
        return tuple(str(dimension["key"]) for dimension in self.dimensions if dimension["key"] != SEED)

    def improvement(self, metric: float) -> float:
        """Returns a metric so that larger is better, whatever the mode."""
        return metric if self.mode == MAX else -metric


@dataclass(frozen=True)
class LeaderRow:
    """A setting of the leaderboard: the trials whose values differ in the seed alone.

    Attributes:
        rank: 1 of the best.
        suggestion: number of its first suggestion.
        values: of the swept settings, without the seed.
        estimate: the metric, the mean over the seeds that have one.
        low: lower end of its 95 % interval; None where there is none.
        high: upper end.
        basis: what the interval is over: "3 seeds", "n = 360" examples of a single seed, or "1 seed" without interval.
        trials: of all its seeds, each run once, whether it has numbers or not.
        state: complete, incomplete where a trial has no numbers (yet), under way, or pruned.
        steps: training steps that the numbers are after.
        note: what is missing, in words: "2 of 3 seeds: 1 diverged", "pruned at step 120 of 960"; "" of a complete one.
    """

    rank: int
    suggestion: int
    values: Mapping[str, Any]
    estimate: float
    low: float | None
    high: float | None
    basis: str
    trials: tuple[SweepTrial, ...]
    state: str
    steps: int
    note: str

    @property
    def is_whole(self) -> bool:
        """Whether the numbers are those of whole runs, so that they can be compared; those of fewer steps cannot."""
        return self.state in (COMPLETE, INCOMPLETE)

    @property
    def metrics(self) -> dict[int, float]:
        """The metric by seed, of the trials that the estimate is the mean of."""
        return {trial.seed: trial.metric for trial in measured_trials(self.trials) if trial.metric is not None}


# The leaderboard ------------------------------------------------------------------------------------------------------


def leaderboard(facts: SweepFacts) -> list[LeaderRow]:
    """Returns the settings that have numbers, best first, then those that are under way, and the pruned ones last.

    Among the pruned ones those that came farther stand first, of equal steps the better one; so do those under way. Of
    equal settings the one that was suggested first stands first. A setting whose trials are all the runs of earlier
    settings is left out.
    """
    rows = []
    for trials in group_settings(facts):
        row = make_row(facts, trials)
        if row is not None:
            rows.append(row)

    places = {COMPLETE: 0, INCOMPLETE: 0, UNDER_WAY: 1, PRUNED: 2}

    def order(row: LeaderRow) -> tuple[int, int, float, int]:
        steps = 0 if row.is_whole else row.steps  # whole runs are compared by the metric alone
        return places[row.state], -steps, -facts.improvement(row.estimate), row.suggestion

    rows.sort(key=order)
    return [replace(row, rank=rank) for rank, row in enumerate(rows, 1)]


def group_settings(facts: SweepFacts) -> list[tuple[SweepTrial, ...]]:
    """Returns the trials of each setting, settings in the order of their first suggestion; each run is in one alone."""
    settings: dict[str, list[SweepTrial]] = {}
    seen_ids: set[str] = set()
    for trial in follow_aliases(facts.trials):
        if trial.id in seen_ids:
            continue
        if trial.id:  # a bad setting may have none
            seen_ids.add(trial.id)
        settings.setdefault(setting_key(trial.values), []).append(trial)
    return [tuple(trials) for trials in settings.values()]


def follow_aliases(trials: Sequence[SweepTrial]) -> list[SweepTrial]:
    """Returns the trials; one that is the same run as an earlier one has the id, the state and the numbers of that."""
    by_row = {trial.row: trial for trial in trials}
    followed = []
    for trial in trials:
        if trial.alias_of is None or trial.alias_of not in by_row:
            followed.append(trial)
            continue
        run = by_row[trial.alias_of]
        followed.append(replace(run, row=trial.row, suggestion=trial.suggestion, seed=trial.seed, values=trial.values))
    return followed


def setting_key(values: Mapping[str, Any]) -> str:
    """Returns a text that is equal for values which differ in the seed alone: the others as JSON."""
    return json.dumps(without_seed(values), sort_keys=True, default=str)


def without_seed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of all keys but the seed."""
    return {key: value for key, value in values.items() if key != SEED}


def measured_trials(trials: Sequence[SweepTrial]) -> list[SweepTrial]:
    """Returns the trials of a setting that its numbers are of.

    These are the complete ones; where none is, those of one state that came farthest: under way, else pruned.
    """
    finite = [trial for trial in trials if trial.metric is not None and math.isfinite(trial.metric)]
    complete = [trial for trial in finite if trial.state == COMPLETE]
    if complete:
        return complete
    for states in (NOT_OVER, (PRUNED,)):
        of_state = [trial for trial in finite if trial.state in states]
        if of_state:
            farthest = max(trial.steps for trial in of_state)
            return [trial for trial in of_state if trial.steps == farthest]
    return []


def make_row(facts: SweepFacts, trials: tuple[SweepTrial, ...]) -> LeaderRow | None:
    """Returns the row of a setting, its rank not yet known; None where no trial has numbers."""
    measured = measured_trials(trials)
    if not measured:
        return None
    interval, basis = measure_setting(facts, measured)
    first = measured[0]
    if first.state == PRUNED:
        state = PRUNED
        note = f"pruned at step {first.steps:,} of {first.planned_steps:,}"
    elif first.state != COMPLETE:
        state = UNDER_WAY
        note = f"at step {first.steps:,} of {first.planned_steps:,} so far"
    elif len(measured) < len(trials):
        state = INCOMPLETE
        states = Counter(trial.state for trial in trials if trial not in measured)
        others = ", ".join(f"{count} {name}" for name, count in sorted(states.items()))
        note = f"{len(measured)} of {len(trials)} seeds: {others}"
    else:
        state, note = COMPLETE, ""
    return LeaderRow(
        rank=0,
        suggestion=trials[0].suggestion,
        values=without_seed(trials[0].values),
        estimate=interval.estimate,
        low=interval.low,
        high=interval.high,
        basis=basis,
        trials=trials,
        state=state,
        steps=first.steps,
        note=note,
    )


def measure_setting(facts: SweepFacts, measured: Sequence[SweepTrial]) -> tuple[Interval, str]:
    """Returns the mean of the metric over seeds with its interval, and what that is over.

    Of an accuracy it is the wider of Student's interval over seeds and Wilson's over examples, as in a comparison of
    arms: seeds that agree say nothing of other images. Of any other metric it is Student's, and one seed has none.
    """
    metrics = [trial.metric for trial in measured if trial.metric is not None]
    over_seeds = student_interval(metrics)
    basis = f"{len(metrics)} seeds" if len(metrics) > 1 else "1 seed"
    n = measured[0].n
    is_share = facts.is_accuracy and 0 <= over_seeds.estimate <= 1
    if not is_share:
        return over_seeds, basis
    if over_seeds.low is not None and over_seeds.high is not None:
        # Student's interval does not know that an accuracy lies in 0..1
        over_seeds = over_seeds._replace(low=max(0.0, over_seeds.low), high=min(1.0, over_seeds.high))
    if not n:
        return over_seeds, basis
    # Wilson's interval of as many right examples as a seed has in the mean
    over_examples = wilson_interval(round(over_seeds.estimate * n), n)._replace(estimate=over_seeds.estimate)
    if width(over_examples) >= width(over_seeds):
        return over_examples, f"n = {n:,}"
    return over_seeds, basis


def width(interval: Interval) -> float:
    """Returns the width of an interval; 0 where it has no ends, so that any other is wider."""
    if interval.low is None or interval.high is None:
        return 0.0
    return interval.high - interval.low


# How sure the best is -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LeaderComparison:
    """How the best setting stands to another one.

    Attributes:
        row: the other setting.
        gain: by how much the best one is better, in the metric's unit, positive also where a smaller metric is better.
        is_resolved: whether it is better by more than chance.
        sentence: that in words, with what is missing to tell.
    """

    row: LeaderRow
    gain: Difference
    is_resolved: bool
    sentence: str


@dataclass(frozen=True)
class SweepVerdict:
    """Which setting is best and how sure that is, in sentences.

    Attributes:
        answer: which setting, with its metric.
        certainty: how sure, against the second and against all others.
        is_sure: whether every other complete setting is worse by more than chance.
        second: how the best one stands to the second; None where there is no second.
    """

    answer: str
    certainty: str
    is_sure: bool
    second: LeaderComparison | None


def compare_rows(facts: SweepFacts, leader: LeaderRow, other: LeaderRow) -> LeaderComparison:
    """Says whether the best setting is better than another one by more than chance.

    The difference is paired over the seeds that both have; where these are fewer than two, and each has several of its
    own, it is Welch's. One seed says nothing of other seeds. A difference of accuracies is resolved only where it is
    also more than chance over other images of the same kind: paired over the images, and in the best case, in which
    the other setting is right on no image that the best one gets wrong, for more is not known here.
    """
    leader_metrics, other_metrics = leader.metrics, other.metrics
    shared = sorted(leader_metrics.keys() & other_metrics.keys())
    if len(shared) > 1:
        leader_metrics = {seed: leader_metrics[seed] for seed in shared}
        other_metrics = {seed: other_metrics[seed] for seed in shared}
    gain = difference_of_runs(
        {seed: facts.improvement(metric) for seed, metric in other_metrics.items()},
        {seed: facts.improvement(metric) for seed, metric in leader_metrics.items()},
    )
    name = f"suggestion {other.suggestion}"
    amount = gain_text(facts, gain.interval)
    if not gain.method:
        sentence = (
            f"The difference from {name}, {amount}, is not resolved: a single seed says nothing of other seeds; "
            "run both with several."
        )
        return LeaderComparison(other, gain, False, sentence)
    method = f"paired over {len(shared)} seeds" if len(shared) > 1 else "over other seeds each, by Welch"
    if gain.interval.low is None or gain.interval.low <= 0:
        sentence = f"The difference from {name}, {amount}, {method}, is not resolved: it may be chance."
        return LeaderComparison(other, gain, False, sentence)
    n = measured_trials(leader.trials)[0].n
    if facts.is_accuracy and n and not is_more_than_images(gain.interval.estimate, n):
        sentence = (
            f"The difference from {name}, {amount}, {method}, is not resolved: so few of {n:,} images may be chance of "
            "other images."
        )
        return LeaderComparison(other, gain, False, sentence)
    return LeaderComparison(other, gain, True, f"It is better than {name} by {amount}, {method}: resolved.")


def is_more_than_images(gain: float, n: int) -> bool:
    """Whether a gain in accuracy on n images is more than chance over other images, in the best case of their pairs."""
    gained = np.zeros(n)
    gained[: round(gain * n)] = 1
    return difference_of_images(np.zeros(n), gained).is_resolved


def reach_verdict(facts: SweepFacts, rows: Sequence[LeaderRow] | None = None) -> SweepVerdict:
    """Says which setting is best and how sure that is.

    Args:
        facts: the sweep.
        rows: its leaderboard, where it is already made.
    """
    if rows is None:
        rows = leaderboard(facts)
    rivals = [row for row in rows if row.is_whole]
    if not rivals:
        return SweepVerdict(describe_nothing(facts), describe_so_far(facts, rows), False, None)
    leader = rivals[0]
    ends = interval_text(facts, leader)
    amount = f"{metric_text(facts, leader.estimate)} ({ends}{leader.basis})"
    answer = (
        f"The best setting is {values_text(leader.values)} (suggestion {leader.suggestion}): "
        f"{facts.metric_name} {amount}."
    )
    sentences = []
    if leader.note:
        sentences.append(f"Not all of its trials are complete: {leader.note}.")
    ties = [row for row in rivals[1:] if row.estimate == leader.estimate]
    if ties:
        sentences.append(describe_ties(ties))
    comparisons = [compare_rows(facts, leader, row) for row in rivals[1:]]
    if not comparisons:
        sentences.append("There is no other complete setting to compare it with.")
        return SweepVerdict(answer, " ".join(sentences), False, None)
    sentences.append(comparisons[0].sentence)
    unresolved = [comparison for comparison in comparisons if not comparison.is_resolved]
    is_sure = not unresolved and not leader.note
    if not unresolved:
        sentences.append(f"So it is against each of the {len(comparisons)} other complete settings.")
    elif len(comparisons) > 1:
        sentences.append(
            f"Of {len(comparisons)} other complete settings, {len(unresolved)} "
            f"{'is' if len(unresolved) == 1 else 'are'} not resolved against it."
        )
    return SweepVerdict(answer, " ".join(sentences), is_sure, comparisons[0])


def describe_ties(ties: Sequence[LeaderRow]) -> str:
    """Says which settings have the very metric of the best one; at most MOST_TIES are named."""
    names = [str(row.suggestion) for row in ties[:MOST_TIES]]
    if len(ties) > MOST_TIES:
        names.append(f"{len(ties) - MOST_TIES:,} more")
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    if len(ties) == 1:
        return f"Suggestion {listed} has the same metric; the one that was suggested first is named."
    return f"Suggestions {listed} have the same metric; the one that was suggested first is named."


def describe_nothing(facts: SweepFacts) -> str:
    """Says that there is no best setting, and why."""
    if not facts.trials:
        return "No trial is planned yet, so that there is no best setting."
    states = Counter(trial.state for trial in facts.trials if trial.alias_of is None)
    counts = ", ".join(f"{count:,} {state}" for state, count in states.most_common())
    return f"No trial is complete, so that there is no best setting: {counts}."


def describe_so_far(facts: SweepFacts, rows: Sequence[LeaderRow]) -> str:
    """Says which setting is ahead where none is complete; "" where none has numbers."""
    if not rows:
        return ""
    first = rows[0]
    return (
        f"Of those that came farthest, {values_text(first.values)} (suggestion {first.suggestion}) has "
        f"{facts.metric_name} {metric_text(facts, first.estimate)}, {first.note}."
    )


# What failed, and what it cost ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FailureGroup:
    """Trials that failed in the same way.

    Attributes:
        state: that they ended in.
        reason: of the first of them; those of the others differ in numbers alone.
        trials: in the order of their rows.
    """

    state: str
    reason: str
    trials: tuple[SweepTrial, ...]


def failures(facts: SweepFacts) -> list[FailureGroup]:
    """Returns the failed trials by state and reason, the most frequent first; each run counts once."""
    groups: dict[tuple[str, str], list[SweepTrial]] = {}
    for trial in facts.trials:
        if trial.state in FAILED and trial.alias_of is None:
            # reasons that differ in a step, a loss, a number of bytes or the trial's own folder are one reason
            reason = trial.reason.replace(str(trial.folder), "#")
            pattern = re.sub(r"\d[\d.,e+-]*", "#", reason)
            groups.setdefault((trial.state, pattern), []).append(trial)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[1][0].row))
    return [FailureGroup(state, trials[0].reason, tuple(trials)) for (state, _), trials in ordered]


@dataclass(frozen=True)
class SweepCost:
    """What the trials of a sweep took, as far as it is known; a trial that is the same run as another counts nothing.

    Attributes:
        runs: trials that were started.
        steps: training steps of all of them.
        hours: of their times, added up; workers beside each other make the sweep shorter.
        cpu_hours: of their processors.
        unknown: runs whose times are not known.
    """

    runs: int
    steps: int
    hours: float
    cpu_hours: float
    unknown: int


def cost(facts: SweepFacts) -> SweepCost:
    """Adds up what the trials took."""
    started = []
    for trial in facts.trials:
        has_begun = trial.steps > 0 or trial.seconds is not None or trial.state not in UNBEGUN
        if trial.alias_of is None and has_begun:
            started.append(trial)
    return SweepCost(
        runs=len(started),
        steps=sum(trial.steps for trial in started),
        hours=sum(trial.seconds or 0 for trial in started) / 3600,
        cpu_hours=sum(trial.cpu_seconds or 0 for trial in started) / 3600,
        unknown=sum(trial.seconds is None for trial in started),
    )


# Numbers and values as text -------------------------------------------------------------------------------------------


def value_text(value: Any) -> str:
    """Returns a value of a setting as the command line takes it: "0.003", "true", "none", "('80 epochs',)"."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if isinstance(value, list):
        return repr(tuple(value))
    return str(value)


def values_text(values: Mapping[str, Any]) -> str:
    """Returns the values of a setting as a sentence lists them: "optimizer.learning_rate=0.003, model.depth=4".

    Long values are cut with an ellipsis.
    """
    return ", ".join(f"{key}={shorten_value(value)}" for key, value in values.items()) or "the recipe as it stands"


def shorten_value(value: Any) -> str:
    """Returns a value as text of at most LONGEST letters."""
    text = value_text(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"


def metric_text(facts: SweepFacts, metric: float) -> str:
    """Returns the metric as text: an accuracy in percent, "97.50 %"; any other with four significant digits."""
    if facts.is_accuracy:
        return f"{100 * metric:.2f} %"
    return f"{metric:.4g}"


def interval_text(facts: SweepFacts, row: LeaderRow) -> str:
    """Returns the ends of a row's interval, "95.3 to 98.7, " with a comma behind; "" where it has none."""
    if row.low is None or row.high is None:
        return ""
    if facts.is_accuracy:
        return f"{100 * row.low:.1f} to {100 * row.high:.1f}, "
    return f"{row.low:.4g} to {row.high:.4g}, "


def gain_text(facts: SweepFacts, gain: Interval) -> str:
    """Returns by how much a setting is better: "0.50 points (0.21 to 0.79)"; of a loss without the word points."""
    scale, digits, unit = 1, ".3g", ""
    if facts.is_accuracy:
        scale, digits, unit = POINTS, ".2f", " points"
    text = f"{scale * gain.estimate:{digits}}{unit}"
    if gain.low is None or gain.high is None:
        return text
    return f"{text} ({scale * gain.low:{digits}} to {scale * gain.high:{digits}})"
