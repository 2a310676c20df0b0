"""Several runs as one page: curves over each other, accuracies with their intervals, and what differs in the settings.

The file has four parts, in the order in which `write` uses them:

1. Groups. Runs whose data and result-changing settings are equal but for the seed form a group, named A, B, ...
   A group's accuracy has an interval over its seeds, or over the images where it has a single seed.
2. Comparisons. Every other group is compared with the first one, the baseline. A difference is resolved only where its
   interval leaves out zero.
3. What differs. The settings, the data and the machines that are not the same in all groups.
4. The page.

Runs that are not finished are drawn as curves and do not count in any accuracy.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cnn_vit import files, plots, settings, stops
from cnn_vit.errors import UserError
from cnn_vit.plots import Line, Span
from cnn_vit.reports import facts, page
from cnn_vit.reports.intervals import (
    Difference,
    Interval,
    difference_of_images,
    difference_of_runs,
    student_interval,
    wilson_interval,
)
from cnn_vit.runs import reader
from cnn_vit.runs.reader import RunRecord
from cnn_vit.runs.seals import RunDamageError

SHOWN_SPLITS = ("test", "validation")  # in the order of the tables
MAX_POINTS = 5000  # points that all curves of a plot have together, about; each curve has 20 at least
# The difference of groups that were not evaluated on the same images: neither an estimate nor an interval.
NOT_COMPARABLE = Difference(interval=Interval(estimate=float("nan"), low=None, high=None), method="")


# 1. Groups: runs that differ only in the seed -------------------------------------------------------------------------


class GroupAccuracy(NamedTuple):
    """The accuracy of a group on a split.

    Attributes:
        interval: the mean over the group's seeds.
        basis: what the interval is over: "3 seeds", or "10,000 images" of a single seed.
    """

    interval: Interval
    basis: str


class Group(NamedTuple):
    """Runs whose data and result-changing settings are equal but for the seed.

    Attributes:
        name: the group's name, a letter, such as A; behind Z a letter and a number, such as A2.
        runs: its runs, in the order in which the user named them.
    """

    name: str
    runs: list[RunRecord]

    def accuracy_by_seed(self, split: str) -> dict[int, float]:
        """Returns the accuracy on a split for each seed whose run is finished and was evaluated on it."""
        accuracies = {}
        for run in self.runs:
            accuracy = find_accuracy(run, split)
            if accuracy is not None:
                accuracies[run.settings["seed"]] = accuracy
        return accuracies

    def mean_accuracy(self, split: str) -> GroupAccuracy | None:
        """Returns the mean accuracy on a split with its interval; None where no run of the group has an accuracy."""
        accuracies = list(self.accuracy_by_seed(split).values())
        if not accuracies:
            return None
        if len(accuracies) == 1:
            # One seed says nothing of others: the interval is that of a share of the images.
            n = next(run.result[split]["n"] for run in self.runs if find_accuracy(run, split) is not None)
            return GroupAccuracy(wilson_interval(round(accuracies[0] * n), n), f"{n:,} images")
        mean, *bounds = student_interval(accuracies)
        # Student's interval does not know that an accuracy lies in 0..1.
        low, high = np.clip(np.array(bounds, np.float64), 0.0, 1.0).tolist()
        return GroupAccuracy(Interval(mean, low, high), f"{len(accuracies)} seeds")


def find_accuracy(run: RunRecord, split: str) -> float | None:
    """Returns the accuracy of a finished run on a split; None of a run that is not finished or not evaluated on it."""
    evaluation = run.result.get(split)
    if not isinstance(evaluation, dict) or not isinstance(evaluation.get("n"), int):
        return None
    accuracy = evaluation.get("accuracy")
    return float(accuracy) if isinstance(accuracy, int | float) else None


def read_groups(workdirs: Sequence[str | Path], *, on_damage: Callable[[str], None] | None = None) -> list[Group]:
    """Reads run folders and returns their runs in groups, named A, B, ... in the order of their first runs.

    Args:
        workdirs: the run folders.
        on_damage: takes a sentence for each damaged run, which is left out; None: such a run is an error.

    Raises:
        UserError: a folder holds no run, or two folders hold runs of the same settings, data and seed.
        RunDamageError: a run is damaged, and `on_damage` is None.
    """
    runs_by_key: dict[str, list[RunRecord]] = {}
    # A folder that is named twice counts once.
    unique_workdirs = dict.fromkeys(Path(workdir).absolute() for workdir in workdirs)
    for workdir in unique_workdirs:
        try:
            run = reader.read_run(workdir)
        except RunDamageError as error:
            if on_damage is None:
                raise
            on_damage(str(error))
            continue
        members = runs_by_key.setdefault(group_key(run), [])
        for member in members:
            if member.settings["seed"] == run.settings["seed"]:
                raise UserError(
                    f"{member.workdir} and {workdir} hold runs of the same settings, data and seed, which would count "
                    "twice; leave one out"
                )
        members.append(run)
    return [Group(group_name(number), runs) for number, runs in enumerate(runs_by_key.values())]


def group_key(run: RunRecord) -> str:
    """Returns a text that is equal for two runs exactly where they belong to one group: `group_settings` as JSON."""
    return json.dumps(group_settings(run), sort_keys=True)


def group_settings(run: RunRecord) -> dict[str, Any]:
    """Returns what the runs of a group share: all settings that change results but the seed, and the data."""
    shared = settings.deciding_settings(run.settings)
    shared.pop("seed", None)
    shared["data"] = str(run.data.get("fingerprint"))[:12]
    return shared


def group_name(number: int) -> str:
    """Returns the name of a group by its number from 0: A to Z, then A2 to Z2 and so on."""
    round_of_alphabet, letter = divmod(number, 26)
    return chr(ord("A") + letter) + (str(round_of_alphabet + 1) if round_of_alphabet else "")


# 2. Comparisons: every other group with the first ---------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """Two groups on one split.

    Attributes:
        split: the split that both were evaluated on.
        baseline_name: name of the first group.
        group_name: name of the group that is compared with it.
        difference: this group's accuracy minus the baseline's.
    """

    split: str
    baseline_name: str
    group_name: str
    difference: Difference


def compare_groups(groups: Sequence[Group]) -> list[Comparison]:
    """Compares every other group with the first one, on every split that both were evaluated on."""
    baseline = groups[0]
    comparisons = []
    for group in groups[1:]:
        for split in SHOWN_SPLITS:
            if baseline.accuracy_by_seed(split) and group.accuracy_by_seed(split):
                difference = compare_pair(baseline, group, split)
                comparisons.append(Comparison(split, baseline.name, group.name, difference))
    return comparisons


def compare_pair(baseline: Group, group: Group, split: str) -> Difference:
    """Returns the difference of two groups on a split: the second's accuracy minus the first's.

    Single runs are compared image by image where both stored their predictions, groups of several seeds by their
    accuracies. One seed against several, or two single runs of which one has no predictions, get a difference without
    an interval. Groups of different data get neither.
    """
    if baseline.runs[0].data.get("fingerprint") != group.runs[0].data.get("fingerprint"):
        return NOT_COMPARABLE
    baseline_accuracies, group_accuracies = baseline.accuracy_by_seed(split), group.accuracy_by_seed(split)
    if len(baseline_accuracies) == len(group_accuracies) == 1:
        runs = [*baseline.runs, *group.runs]
        predictions = [run.predictions[split] for run in runs if split in run.predictions]
        if len(predictions) == 2:
            return compare_predictions(*predictions)
    return difference_of_runs(baseline_accuracies, group_accuracies)


def compare_predictions(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> Difference:
    """Returns the difference of two runs, image by image: the second's accuracy minus the first's.

    Runs that were not evaluated on the same images get neither a difference nor an interval.

    Args:
        first: the first run's predictions: arrays `index`, `label` and `predicted` with a row for each image.
        second: the second run's predictions.
    """
    first, second = sort_by_index(first), sort_by_index(second)
    if not np.array_equal(first["index"], second["index"]) or not np.array_equal(first["label"], second["label"]):
        return NOT_COMPARABLE
    return difference_of_images(first["predicted"] == first["label"], second["predicted"] == second["label"])


def sort_by_index(predictions: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns index, label and predicted class in the order of the images' indices in the split."""
    order = np.argsort(predictions["index"], kind="stable")
    return {name: predictions[name][order] for name in ("index", "label", "predicted")}


# 3. What differs between the groups -----------------------------------------------------------------------------------


def differing_settings(groups: Sequence[Group]) -> list[tuple[str, list[str]]]:
    """Returns what is not the same in all groups: the name of a setting or fact, and its value in each as text."""
    # A group's runs share their settings; its environment is taken to be that of its first run.
    first_runs = [group.runs[0] for group in groups]
    differing = []
    for read_facts in (group_settings, read_environment):
        facts_of_groups = [read_facts(run) for run in first_runs]
        names: dict[str, None] = {}  # a dict, because it keeps the order
        for group_facts in facts_of_groups:
            names |= dict.fromkeys(group_facts)
        for name in names:
            # repr, because some values cannot be put into a set as they are, and because None and the text "none" must
            # differ. Ellipsis, which is no value of a setting, stands for a fact that is not set.
            distinct = {repr(group_facts.get(name, ...)) for group_facts in facts_of_groups}
            if len(distinct) > 1:
                cells = [page.as_text(group_facts.get(name, "not set")) for group_facts in facts_of_groups]
                differing.append((name, cells))
    return differing


def read_environment(run: RunRecord) -> dict[str, Any]:
    """Returns what bears on a run's bits and times beside its settings: the device, cores, jax and the commit."""
    environment = run.environment
    # A commit with changes that were not committed is written HASH-dirty.
    commit_hash, _, dirty = str(environment.get("commit")).partition("-")
    return {
        "device": environment.get("devices", {}).get("kind"),
        "cores": environment.get("cores"),
        "jax": environment.get("versions", {}).get("jax"),
        "commit": f"{commit_hash[:10]} {dirty}".strip(),
    }


# 4. The page ----------------------------------------------------------------------------------------------------------


class SeveralRuns(NamedTuple):
    """What the page of several runs shows.

    Attributes:
        groups: the groups that the runs form.
        comparisons: of the other groups with the first.
        damages: a sentence for each damaged run, which is in no group.
    """

    groups: list[Group]
    comparisons: list[Comparison]
    damages: list[str]


def write(workdirs: Sequence[str | Path], out: str | Path) -> SeveralRuns:
    """Writes the page of several runs, without those that are damaged, which it names.

    Args:
        workdirs: the run folders.
        out: where the page goes.

    Raises:
        UserError: a folder holds no run, or two folders hold runs of the same settings, data and seed.
        SurroundingsError: a folder cannot be read, all runs are damaged, or the page cannot be written.
    """
    damages: list[str] = []
    groups = read_groups(workdirs, on_damage=damages.append)
    if not groups:
        raise RunDamageError(f"no run is left to report: {damages[0]}", details=damages)
    comparisons = compare_groups(groups)
    text = page.render(
        "several.html",
        mark="",  # a mark tells `report.write` that a page is up to date, but this page is written anew each time
        title=f"{sum(len(group.runs) for group in groups)} runs",
        groups=groups,
        damages=damages,
        splits=evaluated_splits(groups),
        comparisons=comparisons,
        differing=differing_settings(groups),
        plots=draw_plots(groups),
        find_accuracy=find_accuracy,
        explain_missing=explain_missing,
        status_text=facts.status_text,
        images_per_second=facts.images_per_second,
        series_color=series_color,
    )
    stops.raise_if_requested()
    files.write(Path(out), text)
    return SeveralRuns(groups, comparisons, damages)


def evaluated_splits(groups: Sequence[Group]) -> list[str]:
    """Returns the splits on which any group has an accuracy, in the order of the tables.

    The test split is among them, too, where a finished run has left it unread, so that the tables say so.
    """
    splits = []
    for split in SHOWN_SPLITS:
        is_unread = split == "test" and any(run.has_unread_test for group in groups for run in group.runs)
        if is_unread or any(group.accuracy_by_seed(split) for group in groups):
            splits.append(split)
    return splits


def explain_missing(group: Group, split: str) -> str:
    """Says in two words or three why a group has no accuracy on a split."""
    if split == "test" and any(run.has_unread_test for run in group.runs):
        return "not read"
    if any(run.result for run in group.runs):
        return "not evaluated"
    return "not finished"


def series_color(number: int) -> str:
    """Returns the CSS color of a group by its number from 0, as its curves have it."""
    return f"var(--series{number % plots.SERIES})"


def draw_plots(groups: Sequence[Group]) -> list[str]:
    """Draws the accuracies with their intervals, and the curves of all runs over each other."""
    drawings = []
    for split in SHOWN_SPLITS:
        spans = []
        for number, group in enumerate(groups):
            accuracy = group.mean_accuracy(split)
            if accuracy is not None:
                spans.append(Span(group.name, *accuracy.interval, series=number))
        if spans:
            drawings.append(plots.draw_intervals(spans, title=f"{split.capitalize()} accuracy with 95 % intervals"))
    unit = "epoch" if uses_epochs(groups) else "step"
    for kind, quantity, title in (
        ("evaluation", "accuracy", "Validation accuracy"),
        ("evaluation", "loss", "Validation loss"),
        ("train", "loss", "Training loss"),
    ):
        curves = collect_curves(groups, kind, quantity)
        if curves:
            # With many runs each curve gets fewer points, so that the page stays small; 20 still show its course.
            points = max(20, MAX_POINTS // len(curves))
            is_share = quantity == "accuracy"
            drawings.append(plots.draw_curves(curves, title=title, x_label=unit, percent=is_share, points=points))
    return drawings


def collect_curves(groups: Sequence[Group], kind: str, quantity: str) -> list[Line]:
    """Returns a curve for each run that has values, over steps or epochs.

    The first curve of a group carries the group's name, so that the legend names each group once.

    Args:
        groups: the groups.
        kind: which lines of metrics.jsonl the values come from, "train" or "evaluation".
        quantity: which number of a line is drawn, "loss" or "accuracy".
    """
    over_epochs = uses_epochs(groups)
    curves = []
    for number, group in enumerate(groups):
        name = group.name
        for run in group.runs:
            lines = run.lines(kind)
            values = [line.get(quantity) for line in lines]
            if all(value is None for value in values):
                continue
            scale = run.batch_size / run.data["counts"]["train"] if over_epochs else 1
            x = [scale * line["step"] for line in lines]
            curves.append(Line(name, x, values, number))
            name = ""  # the further curves of the group are not in the legend
    return curves


def uses_epochs(groups: Sequence[Group]) -> bool:
    """Whether curves are drawn over epochs: the runs' batches or training splits differ in size, and all are known."""
    sizes = set()
    for group in groups:
        for run in group.runs:
            sizes.add((run.batch_size, run.data.get("counts", {}).get("train")))
    return len(sizes) > 1 and all(examples for _, examples in sizes)
