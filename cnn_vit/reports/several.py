"""Several runs as one page: curves over each other, accuracies with their intervals, and what differs in the settings.

Runs of the same data that differ in nothing but the seed are a group. What a group says has an interval over seeds, or
over images where there is one seed; what two groups differ by is said to be resolved only where its interval leaves
out zero. Runs that are not finished are drawn and not counted.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cnn_vit import files, settings
from cnn_vit import plots as pictures
from cnn_vit.errors import UserError
from cnn_vit.plots import Line, Span
from cnn_vit.reports import facts, page
from cnn_vit.reports.intervals import (
    Difference,
    Interval,
    difference_of_runs,
    paired_difference,
    student_interval,
    wilson,
)
from cnn_vit.runs import reader
from cnn_vit.runs.reader import SPLITS, RunRecord

DRAWN = 5000  # points of a plot, about, shared by its curves
NOT_RESOLVED = Difference(Interval(float("nan"), None, None), "")


class Group(NamedTuple):
    """Runs that differ only in the seed.

    Attributes:
        letter: its name.
        runs: in the order given.
    """

    letter: str
    runs: list[RunRecord]

    def values(self, split: str) -> dict[int, float]:
        """Accuracy on a split by seed, of the runs that are finished and judged on it."""
        found = {run.settings["seed"]: accuracy(run, split) for run in self.runs}
        return {seed: value for seed, value in found.items() if value is not None}

    def interval(self, split: str) -> tuple[Interval, str] | None:
        """The mean accuracy, and what its interval is over; None where no run has one."""
        values = list(self.values(split).values())
        if not values:
            return None
        if len(values) > 1:
            middle, low, high = student_interval(values)  # Student's interval knows nothing of what a share can be
            return Interval(middle, max(low or 0.0, 0.0), min(high or 1.0, 1.0)), f"{len(values)} seeds"
        run = next(run for run in self.runs if accuracy(run, split) is not None)
        n = run.result[split]["n"]
        return wilson(round(values[0] * n), n), f"{n:,} images"


class Comparison(NamedTuple):
    """Two groups on one split: what the other has more than the first."""

    split: str
    first: str
    other: str
    difference: Difference


def accuracy(run: RunRecord, split: str) -> float | None:
    """Of a finished run on a split."""
    told = run.result.get(split)
    value = told.get("accuracy") if isinstance(told, dict) and isinstance(told.get("n"), int) else None
    return float(value) if isinstance(value, int | float) else None


def read_groups(workdirs: Sequence[str | Path]) -> list[Group]:
    """The runs of some folders in groups, named A, B, ... in the order given.

    Raises:
        UserError: a folder holds no run, or two hold runs of the same settings, data and seed.
    """
    found: dict[str, list[RunRecord]] = {}
    for workdir in dict.fromkeys(Path(one).absolute() for one in workdirs):
        run = reader.read_run(workdir)
        alike = found.setdefault(group_key(run), [])
        if same := next((other for other in alike if other.settings["seed"] == run.settings["seed"]), None):
            raise UserError(
                f"{same.workdir} and {workdir} hold runs of the same settings, data and seed, which would count twice; "
                "leave one out"
            )
        alike.append(run)
    return [Group(group_letter(number), runs) for number, runs in enumerate(found.values())]


def group_letter(number: int) -> str:
    """A to Z, then A2 to Z2 and so on."""
    return chr(65 + number % 26) + (str(number // 26 + 1) if number >= 26 else "")


def deciding_settings(run: RunRecord) -> dict[str, Any]:
    """What tells groups apart: settings that change results but the seed, and the data."""
    own = {key: value for key, value in settings.deciding_settings(run.settings).items() if key != "seed"}
    return own | {"data": str(run.data.get("fingerprint"))[:12]}


def group_key(run: RunRecord) -> str:
    """That as one text."""
    return json.dumps(deciding_settings(run), sort_keys=True)


def compare_groups(groups: Sequence[Group]) -> list[Comparison]:
    """Every other group against the first, on every split that both were judged on."""
    first = groups[0]
    return [
        Comparison(split, first.letter, other.letter, group_difference(first, other, split))
        for other in groups[1:]
        for split in reversed(SPLITS)
        if first.values(split) and other.values(split)
    ]


def group_difference(one: Group, other: Group, split: str) -> Difference:
    """The difference of two groups on a split; nothing is said of other data, or of one seed against several."""
    if one.runs[0].data.get("fingerprint") != other.runs[0].data.get("fingerprint"):
        return NOT_RESOLVED
    first, second = one.values(split), other.values(split)
    if len(first) == len(second) == 1:
        rows = [run.predictions.get(split) for group in (one, other) for run in group.runs if split in run.predictions]
        if len(rows) == 2 and rows[0] is not None and rows[1] is not None:
            return paired_by_image(rows[0], rows[1])
    return difference_of_runs(first, second)


def paired_by_image(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> Difference:
    """The difference of two runs that were judged on the same images; nothing is said where they were not."""
    orders = [np.argsort(rows["index"], kind="stable") for rows in (one, other)]
    (first, second) = ({name: rows[name][order] for name in ("index", "label", "predicted")}
                       for rows, order in zip((one, other), orders, strict=True))  # fmt: skip
    if not all(np.array_equal(first[name], second[name]) for name in ("index", "label")):
        return NOT_RESOLVED
    return paired_difference(first["predicted"] == first["label"], second["predicted"] == second["label"])


def differing_settings(groups: Sequence[Group]) -> list[tuple[str, list[str]]]:
    """What is not the same in all groups: a setting or fact, and its value in each."""
    found = []
    for facts_of in (deciding_settings, surroundings):
        each = [facts_of(group.runs[0]) for group in groups]
        for key in dict.fromkeys(key for one in each for key in one):
            if len({repr(one.get(key, ...)) for one in each}) > 1:
                found.append((key, [page.as_text(one[key]) if key in one else "not set" for one in each]))
    return found


def surroundings(run: RunRecord) -> dict[str, Any]:
    """What bears on bits and times beside the settings."""
    told = run.environment
    hashed, _, dirty = str(told.get("commit")).partition("-")
    return {
        "device": told.get("devices", {}).get("kind"),
        "cores": told.get("cores"),
        "jax": told.get("versions", {}).get("jax"),
        "commit": f"{hashed[:10]} {dirty}".strip(),
    }


# The page -------------------------------------------------------------------------------------------------------------


def write(workdirs: Sequence[str | Path], out: str | Path) -> tuple[list[Group], list[Comparison]]:
    """Writes the page of several runs; errors as of `read_groups` and of writing."""
    groups = read_groups(workdirs)
    found = compare_groups(groups)
    shown = {
        "mark": "",
        "title": f"{sum(len(group.runs) for group in groups)} runs",
        "groups": groups,
        "splits": [split for split in reversed(SPLITS) if any(group.values(split) for group in groups)],
        "compared": found,
        "differing": differing_settings(groups),
        "plots": plots(groups),
        "status": facts.status,
        "speed": facts.speed,
        "accuracy": accuracy,
        "color": lambda number: f"var(--series{number % pictures.SERIES})",
    }
    files.write(Path(out), page.render("several.html", shown))
    return groups, found


def plots(groups: Sequence[Group]) -> list[str]:
    """Intervals of the accuracies, and curves over each other."""
    found = []
    for split in reversed(SPLITS):
        spans = [
            Span(group.letter, *told[0], series=number)
            for number, group in enumerate(groups)
            if (told := group.interval(split))
        ]
        if spans:
            found.append(pictures.spans(spans, title=f"{split.capitalize()} accuracy, 95 %"))
    for kind, name, title in (
        ("evaluation", "accuracy", "Validation accuracy"),
        ("evaluation", "loss", "Validation loss"),
        ("train", "loss", "Training loss"),
    ):
        if lines := group_curves(groups, kind, name):
            points = max(20, DRAWN // len(lines))
            unit = "epoch" if in_epochs(groups) else "step"
            found.append(pictures.curves(lines, title=title, x_label=unit, percent=name == "accuracy", points=points))
    return found


def group_curves(groups: Sequence[Group], kind: str, name: str) -> list[Line]:
    """A curve of each run; the first of a group carries its letter."""
    found, epochs = [], in_epochs(groups)
    for number, group in enumerate(groups):
        for at, run in enumerate(group.runs):
            told = run.lines(kind)
            times = run.batch_size / run.data["counts"]["train"] if epochs else 1
            steps, values = [times * line["step"] for line in told], [line.get(name) for line in told]
            if any(value is not None for value in values):
                found.append(Line("" if at else group.letter, steps, values, number))
    return found


def in_epochs(groups: Sequence[Group]) -> bool:
    """Whether steps are not alike: batches or training splits of different sizes, all of them known."""
    runs = [run for group in groups for run in group.runs]
    sizes = {(run.batch_size, run.data.get("counts", {}).get("train")) for run in runs}
    return len(sizes) > 1 and all(examples for _, examples in sizes)
