"""Arms of a comparison: the accuracy of each with its interval, how it stands to the best one, and what to make of it.

An arm is a way to get a classifier: a recipe, or pretrained weights and what is done with them. All arms saw the same
data. One that trains was run with several seeds; one that trains nothing gives the same for every seed and ran once.

A difference between two arms is *resolved* only where it holds in both ways in which luck enters: over other seeds
(Student's interval of the paired differences) and over other images of the same kind (Bonett and Price's interval of
the paired images, with the share of the seeds that are right on each). Where neither arm has seeds, the images alone
decide. So an arm never wins against itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from cnn_vit.reports.several import NOT_COMPARABLE, sort_by_index

TEST, VALIDATION = "test", "validation"
NEARLY_SAME_TASK = 0.9  # accuracy of an untouched network from which its own task is called nearly the same
TRAIN = "train"  # the task of an arm that learns by steps
EVALUATE = "evaluate"  # the task of an arm whose network is untouched


@dataclass(frozen=True)
class ArmRun:
    """One trial of an arm that is complete.

    Attributes:
        seed: of the run.
        result: what its result.json holds: test, validation, steps, parameters, macs, timing ...
        predictions: of each split that was evaluated: columns with a row for each image.
        lines: the evaluations of its metrics.jsonl.
        data_fingerprint: of the data that it saw.
    """

    seed: int
    result: Mapping[str, Any]
    predictions: Mapping[str, dict[str, np.ndarray]]
    lines: tuple[Mapping[str, Any], ...]
    data_fingerprint: str


@dataclass(frozen=True)
class Failure:
    """One trial of an arm that is not complete: its seed, its state, and why."""

    seed: int
    state: str
    reason: str


@dataclass(frozen=True)
class ArmRuns:
    """All trials of an arm on one share of the training data.

    Attributes:
        name: of the arm.
        about: what it is, for people.
        task: train, evaluate, linear or knn.
        share: of the training data.
        has_seeds: whether another seed may give another result.
        runs: those that are complete, in the order of their seeds.
        failures: the others.
    """

    name: str
    about: str
    task: str
    share: float
    has_seeds: bool
    runs: tuple[ArmRun, ...]
    failures: tuple[Failure, ...] = ()

    def mean(self, *names: str) -> float | None:
        """Returns the mean of a number of the results, by its path in them; None where no run has it."""
        numbers = []
        for run in self.runs:
            value: Any = run.result
            for name in names:
                value = value.get(name) if isinstance(value, Mapping) else None
            if isinstance(value, int | float):
                numbers.append(value)
        return float(np.mean(numbers)) if numbers else None

    @property
    def training_images(self) -> float | None:
        """How many images of the training split it learns from: none where the network is untouched."""
        if self.task == EVALUATE and self.runs:
            return 0.0
        return self.mean("counts", "train")

    def accuracies(self, split: str) -> dict[int, float]:
        """Returns the accuracy on a split by seed."""
        found = {}
        for run in self.runs:
            if run.result.get(split):
                found[run.seed] = float(run.result[split]["accuracy"])
        return found


@dataclass(frozen=True)
class ArmAccuracy:
    """The accuracy of an arm on a split.

    Attributes:
        interval: the mean over seeds, with the wider of two 95 % intervals: over other seeds, and over other images.
        basis: what that one is over: "3 seeds" or "360 images".
    """

    interval: Interval
    basis: str


@dataclass(frozen=True)
class ArmDifference:
    """The accuracy of an arm minus that of another.

    Attributes:
        over_seeds: paired over seeds; None where neither arm has seeds, or where there are fewer than two.
        over_images: paired over the images.
        lacks_seeds: whether an arm has seeds, and fewer than two are there to compare by: one says nothing of others.
    """

    over_seeds: Difference | None
    over_images: Difference
    lacks_seeds: bool = False

    @property
    def shown(self) -> Difference:
        """The difference whose interval is printed: the wider one, which is the more careful."""
        if self.over_seeds is None or width(self.over_images.interval) >= width(self.over_seeds.interval):
            return self.over_images
        return self.over_seeds

    @property
    def is_resolved(self) -> bool:
        """Whether zero lies outside the interval over seeds as well as outside that over images."""
        if self.lacks_seeds or (self.over_seeds is not None and not self.over_seeds.is_resolved):
            return False
        return self.over_images.is_resolved

    @property
    def is_known(self) -> bool:
        """Whether the arms were evaluated on the same images of the same data."""
        return self.over_images.interval.low is not None


def width(interval: Interval) -> float:
    """Returns the width of an interval; infinity where it has no ends."""
    _, low, high = interval
    return float("inf") if low is None or high is None else high - low


def measure_accuracy(arm: ArmRuns, split: str) -> ArmAccuracy | None:
    """Returns the accuracy of an arm on a split; None where it has none."""
    accuracies = arm.accuracies(split)
    if not accuracies:
        return None
    values = list(accuracies.values())
    n = next(run.result[split]["n"] for run in arm.runs if run.seed in accuracies)
    mean, *bounds = student_interval(values)
    # Wilson's interval of as many right images as a seed has in the mean
    over_images = wilson_interval(round(mean * n), n)._replace(estimate=mean)
    if len(values) == 1:
        return ArmAccuracy(over_images, f"{n:,} images")
    # Student's interval does not know that an accuracy lies in 0..1
    low, high = np.clip(np.array(bounds, np.float64), 0.0, 1.0).tolist()
    over_seeds = Interval(mean, low, high)
    # seeds that agree, as where all are right on each image, say nothing of other images
    if width(over_images) >= width(over_seeds):
        return ArmAccuracy(over_images, f"{n:,} images")
    return ArmAccuracy(over_seeds, f"{len(values)} seeds")


def compare_arms(first: ArmRuns, second: ArmRuns, split: str) -> ArmDifference:
    """Returns the second arm's accuracy minus the first's.

    An arm without seeds has the same accuracy for each seed of the other. Of two arms with seeds, the seeds that both
    have count. Arms of other data, or of other images, get neither estimate nor interval.
    """
    fingerprints = {run.data_fingerprint for arm in (first, second) for run in arm.runs}
    if len(fingerprints) != 1:
        return ArmDifference(None, NOT_COMPARABLE)
    seeds = shared_seeds(first, second, split)
    first_shares = share_of_right(first, split, seeds)
    second_shares = share_of_right(second, split, seeds)
    if first_shares is None or second_shares is None or not is_same_images(first_shares, second_shares):
        return ArmDifference(None, NOT_COMPARABLE)
    over_images = difference_of_images(first_shares["right"], second_shares["right"])
    if len(seeds) < 2:
        return ArmDifference(None, over_images, lacks_seeds=first.has_seeds or second.has_seeds)
    over_seeds = difference_of_runs(spread_over_seeds(first, split, seeds), spread_over_seeds(second, split, seeds))
    return ArmDifference(over_seeds, over_images)


def shared_seeds(first: ArmRuns, second: ArmRuns, split: str) -> list[int]:
    """Returns the seeds by which two arms are compared; none where neither has any."""
    seeds = [set(arm.accuracies(split)) for arm in (first, second) if arm.has_seeds]
    return sorted(set.intersection(*seeds)) if seeds else []


def spread_over_seeds(arm: ArmRuns, split: str, seeds: Sequence[int]) -> dict[int, float]:
    """Returns the accuracy of an arm for each seed; one without seeds has the same for all."""
    accuracies = arm.accuracies(split)
    if arm.has_seeds:
        return {seed: accuracies[seed] for seed in seeds}
    (only,) = accuracies.values()
    return dict.fromkeys(seeds, only)


def share_of_right(arm: ArmRuns, split: str, seeds: Sequence[int]) -> dict[str, np.ndarray] | None:
    """Returns for each image of a split the share of an arm's runs that are right.

    Args:
        arm: the arm.
        split: test or validation.
        seeds: whose runs count, of an arm that has seeds.

    Returns:
        Columns index, label and right (N,), in the order of the indices; None where a run has no predictions, or the
        runs did not see the same images.
    """
    columns: list[dict[str, np.ndarray]] = []
    for run in arm.runs:
        if arm.has_seeds and run.seed not in seeds:
            continue
        if split not in run.predictions:
            return None
        columns.append(sort_by_index(run.predictions[split]))
    if not columns or not all(is_same_images(columns[0], other) for other in columns[1:]):
        return None
    right = np.mean([other["predicted"] == other["label"] for other in columns], axis=0)
    return {"index": columns[0]["index"], "label": columns[0]["label"], "right": right}


def is_same_images(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> bool:
    """Whether two sets of columns are of the same images with the same labels."""
    is_same_index = np.array_equal(first["index"], second["index"])
    return is_same_index and np.array_equal(first["label"], second["label"])


# What to make of it ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ArmRow:
    """What a table says of an arm on one share of the training data.

    Attributes:
        arm: its runs.
        accuracy: on the split that is shown; None where no run of it is complete.
        validation: on validation.
        difference: from the leader of the same share; None of the leader itself and of an arm without accuracy.
        is_leader: whether no arm of the share has a higher accuracy.
    """

    arm: ArmRuns
    accuracy: ArmAccuracy | None
    validation: ArmAccuracy | None
    difference: ArmDifference | None
    is_leader: bool


@dataclass(frozen=True)
class Verdict:
    """Which arm to use and how sure that is, in sentences.

    Attributes:
        answer: which arm.
        certainty: how sure.
        is_sure: whether every other arm is behind by more than chance.
    """

    answer: str
    certainty: str
    is_sure: bool


def choose_split(arms: Sequence[ArmRuns]) -> str:
    """Returns the split that accuracies are shown of: test where the data have one, else validation."""
    return TEST if any(arm.accuracies(TEST) for arm in arms) else VALIDATION


def mean_accuracy(arm: ArmRuns, split: str) -> float:
    """Returns the mean accuracy of an arm on a split; -1 where it has none."""
    accuracies = list(arm.accuracies(split).values())
    return float(np.mean(accuracies)) if accuracies else -1.0


def find_leader(arms: Sequence[ArmRuns], split: str) -> ArmRuns | None:
    """Returns the arm with the highest mean accuracy; of equal ones the one that trains least, then the first."""

    def rank(arm: ArmRuns) -> tuple[float, float]:
        return (-mean_accuracy(arm, split), arm.mean("trained_parameters") or 0)

    measured = [arm for arm in arms if arm.accuracies(split)]
    return min(measured, key=rank) if measured else None


def make_rows(arms: Sequence[ArmRuns], split: str) -> list[ArmRow]:
    """Returns the row of each arm: of the largest share of the data first, and of a share the best arm first.

    An arm that learns nothing from the training data stands at the largest share alone, and is compared there.
    """
    rows = []
    for share in sorted({arm.share for arm in arms}, reverse=True):
        members = [arm for arm in arms if arm.share == share]
        leader = find_leader(members, split)
        for arm in sorted(members, key=lambda arm: (arm is not leader, -mean_accuracy(arm, split))):
            accuracy = measure_accuracy(arm, split)
            difference = None
            if leader is not None and arm is not leader and accuracy is not None:
                difference = compare_arms(leader, arm, split)
            rows.append(ArmRow(arm, accuracy, measure_accuracy(arm, VALIDATION), difference, arm is leader))
    return rows


def reach_verdict(rows: Sequence[ArmRow], split: str) -> Verdict:
    """Says which arm to use and how sure that is, by the rows of the largest share."""
    largest = max(row.arm.share for row in rows)
    members = [row for row in rows if row.arm.share == largest]
    leader = next((row for row in members if row.is_leader), None)
    if leader is None or leader.accuracy is None:
        return Verdict("No arm is complete, so that there is nothing to compare.", "", is_sure=False)
    interval = leader.accuracy.interval
    low, high = (100 * (end or 0) for end in (interval.low, interval.high))
    answer = (
        f"Use {leader.arm.name} ({leader.arm.about}): it is right on {100 * interval.estimate:.2f} % of the {split} "
        f"images ({low:.1f} to {high:.1f}, over {leader.accuracy.basis})."
    )
    rivals = sort_rivals(members)
    failed = [row.arm.name for row in members if row.arm.failures or row.accuracy is None]
    if not any((rivals.beaten, rivals.unresolved, rivals.ahead, rivals.strangers)):
        return Verdict(answer, "There is no other arm to compare it with.", is_sure=False)
    if not (rivals.unresolved or rivals.ahead or rivals.strangers or failed):
        nearest = max(rivals.beaten, key=lambda row: row.difference.shown.interval.estimate if row.difference else 0)
        gap = f" The next one is {nearest.arm.name}, {difference_text(nearest.difference)}."
        return Verdict(answer, f"That is sure: every other arm is behind by more than chance.{gap}", is_sure=True)
    return Verdict(answer, describe_doubt(leader, rivals, failed), is_sure=False)


@dataclass(frozen=True)
class Rivals:
    """The other arms of a share, by what their difference from the leader says.

    Attributes:
        beaten: behind by more than chance.
        unresolved: behind or ahead, which may be chance.
        ahead: ahead by more than chance on the seeds that both have; the leader's mean is over all its own.
        strangers: evaluated on other images or data.
    """

    beaten: list[ArmRow]
    unresolved: list[ArmRow]
    ahead: list[ArmRow]
    strangers: list[ArmRow]


def sort_rivals(members: Sequence[ArmRow]) -> Rivals:
    """Sorts the arms of a share by their difference from the leader; those without accuracy are left out."""
    rivals = Rivals([], [], [], [])
    for row in members:
        if row.difference is None:
            continue
        if not row.difference.is_known:
            rivals.strangers.append(row)
        elif not row.difference.is_resolved:
            rivals.unresolved.append(row)
        elif row.difference.over_images.interval.estimate > 0:
            rivals.ahead.append(row)
        else:
            rivals.beaten.append(row)
    return rivals


def describe_doubt(leader: ArmRow, rivals: Rivals, failed: Sequence[str]) -> str:
    """Says why it is not sure that the leader is the best, in sentences.

    Args:
        leader: the row of the arm with the highest accuracy.
        rivals: the others.
        failed: names of arms of which a trial has failed.
    """

    def names(rows: Sequence[ArmRow]) -> str:
        return join_names([row.arm.name for row in rows])

    sentences = ["That is not sure."]
    if rivals.unresolved:
        what = f"between it and {names(rivals.unresolved)} the difference is not resolved, it may be chance."
        sentences = [f"That is not sure: {what}"]
    if any(row.difference is not None and row.difference.lacks_seeds for row in rivals.unresolved):
        sentences.append("A single seed says nothing of other seeds; --config.seeds=3 does.")
    if rivals.ahead:
        sentences.append(f"On the seeds that both have, {names(rivals.ahead)} is right more often than it.")
    if rivals.beaten:
        sentences.append(f"Against {names(rivals.beaten)} it is ahead by more than chance.")
    if rivals.strangers:
        sentences.append(f"It cannot be compared with {names(rivals.strangers)}, which saw other images.")
    if failed:
        sentences.append(f"Trials of {join_names(failed)} have failed.")
    return " ".join(sentences) + describe_cheapest([leader, *rivals.unresolved])


def describe_cheapest(rows: Sequence[ArmRow]) -> str:
    """Says which of the arms that may be equally good trains the fewest parameters, beginning with a blank.

    The first row is the leader's. Nothing is said where it is the one.
    """
    counts = {row.arm.name: row.arm.mean("trained_parameters") for row in rows}
    known = {name: count for name, count in counts.items() if count is not None}
    leader = rows[0].arm.name
    cheapest = min(known, key=lambda name: known[name], default=leader)
    if cheapest == leader or known[cheapest] == known.get(leader):
        return ""
    fewest, most = f"{known[cheapest]:,.0f}", f"{known[leader]:,.0f}"
    return f" Of those that are not resolved, {cheapest} trains the fewest parameters: {fewest}, not {most}."


def join_names(names: Sequence[str]) -> str:
    """Returns names as a sentence lists them: "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def difference_text(difference: ArmDifference | None) -> str:
    """Writes a difference: "-0.40 points (-0.90 to +0.10), not resolved"; "" of None."""
    if difference is None:
        return ""
    estimate, low, high = difference.shown.interval
    if low is None or high is None:
        return "not comparable"
    text = f"{100 * estimate:+.2f} points ({100 * low:+.2f} to {100 * high:+.2f})"
    return text if difference.is_resolved else f"{text}, not resolved"


def list_notes(arms: Sequence[ArmRuns], split: str) -> list[str]:
    """Says what one who reads the comparison should know: unequal budgets or data, a task that is nearly the same."""
    notes = []
    steps = group_names([arm for arm in arms if arm.task == TRAIN], lambda run: run.result["steps"])
    if len(steps) > 1:
        parts = [f"{count:,} steps of {names}" for count, names in sorted(steps.items())]
        notes.append(
            f"the budgets are not equal: {'; '.join(parts)}; a difference between these arms may be one of the budgets"
        )
    fingerprints = group_names(arms, lambda run: run.data_fingerprint)
    if len(fingerprints) > 1:
        parts = [f"{names} ({fingerprint[:12]})" for fingerprint, names in fingerprints.items()]
        notes.append(f"the data are not the same: {'; '.join(parts)}; arms of other data are not compared")
    notes += list_unequal_images(arms)
    for arm in arms:
        accuracies = list(arm.accuracies(split).values())
        if arm.task == EVALUATE and accuracies and np.mean(accuracies) >= NEARLY_SAME_TASK:
            notes.append(
                f"{arm.name} was never trained on these data, yet right on {100 * np.mean(accuracies):.1f} % of them: "
                "the task that its weights were trained on is nearly the same, so that transfer has an easy time here"
            )
    shares = sorted({arm.share for arm in arms})
    if len(shares) > 1:
        texts = join_names([f"{100 * share:g} %" for share in shares])
        notes.append(
            f"{texts} of the training data are learned from; validation stays whole, also where it has more images "
            "than there are to train on, so that what is chosen by it is chosen better than so few labels would allow"
        )
    return notes


def group_names(arms: Sequence[ArmRuns], read_value: Callable[[ArmRun], Any]) -> dict[Any, str]:
    """Returns the names of the arms that have a run of some value, as a sentence lists them, by that value."""
    names: dict[Any, list[str]] = {}
    for arm in arms:
        for value in dict.fromkeys(read_value(run) for run in arm.runs):
            names.setdefault(value, []).append(arm.name)
    return {value: join_names(names_of_value) for value, names_of_value in names.items()}


def group_left_out(left_out: Mapping[str, str]) -> list[tuple[str, str]]:
    """Returns the arms that could not be, those with the same reason together: their names in words, and the reason."""
    names: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        names.setdefault(reason, []).append(name)
    return [(join_names(names_of_reason), reason) for reason, names_of_reason in names.items()]


def list_unequal_images(arms: Sequence[ArmRuns]) -> list[str]:
    """Says so where arms of the same share have learned from different numbers of images."""
    notes = []
    for share in sorted({arm.share for arm in arms}):
        counts = group_names([arm for arm in arms if arm.share == share], lambda run: run.result["counts"]["train"])
        if len(counts) > 1:
            parts = [f"{count:,} of {names}" for count, names in sorted(counts.items())]
            notes.append(f"the numbers of training images are not equal: {'; '.join(parts)}")
    return notes
