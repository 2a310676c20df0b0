"""What a comparison found: its trials become the arms of a report, two tables, the page, and what a program reads."""

import csv
import io
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnn_vit import data, files
from cnn_vit.data.base.parts import PARTS
from cnn_vit.errors import printable_name
from cnn_vit.reports import arms as report
from cnn_vit.reports import arms_page
from cnn_vit.reports.arms import ArmRow, ArmRun, ArmRuns, Failure, Verdict
from cnn_vit.runs import folder, reader
from cnn_vit.studies import arms, trials
from cnn_vit.studies.arms import Arm, ComparisonRecipe
from cnn_vit.studies.trials import Trial, TrialRecord

PAGE = folder.REPORT
RESULTS = "results.csv"
TIMING = "timing.csv"
RESULT_COLUMNS = (
    "arm", "task", "share", "seed", "state", "test_accuracy", "test_n", "validation_accuracy", "validation_n",
    "training_images", "steps", "trained_parameters", "parameters", "macs", "model", "trial", "data", "reason",
)  # fmt: skip
TIMING_COLUMNS = ("arm", "share", "seed", "trial", "seconds", "cpu_seconds")


@dataclass(frozen=True)
class PlannedArm:
    """An arm on a share of the training data, with its trials."""

    arm: Arm
    share: float
    trials: tuple[Trial, ...]


@dataclass(frozen=True)
class Comparison:
    """The outcome of a comparison.

    Attributes:
        name: of the recipe with its words.
        out: the folder.
        split: that accuracies are shown of.
        rows: of all arms and shares.
        verdict: which arm to use.
        notes: what one who reads the accuracies should know, a sentence each.
        left_out: arms that could not be, with the reason of each.
        steps: the budget of each arm that trains.
        records: of all trials, in the order of the rows.
        next_command: that goes on from here.
    """

    name: str
    out: Path
    split: str
    rows: tuple[ArmRow, ...]
    verdict: Verdict
    notes: tuple[str, ...]
    left_out: Mapping[str, str]
    steps: int
    records: tuple[TrialRecord, ...]
    next_command: str

    @property
    def failed(self) -> list[TrialRecord]:
        """The trials that are over and have no numbers."""
        return [record for record in self.records if record.state != trials.COMPLETE]

    def to_json(self) -> dict[str, Any]:
        """Returns the comparison as plain values."""
        failed = []
        for record in self.failed:
            words = trials.describe(record.planned.trial)
            failed.append({"trial": words, "state": record.state, "reason": record.reason})
        return {
            "comparison": self.name,
            "out": str(self.out),
            "split": self.split,
            "steps": self.steps,
            "answer": self.verdict.answer,
            "certainty": self.verdict.certainty,
            "sure": self.verdict.is_sure,
            "rows": [row_json(row) for row in self.rows],
            "notes": list(self.notes),
            "left_out": dict(self.left_out),
            "failed": failed,
            "report": str(self.out / PAGE),
            "results": str(self.out / RESULTS),
        }


def conclude(
    recipe: ComparisonRecipe,
    out: Path,
    planned_arms: Sequence[PlannedArm],
    records: Sequence[TrialRecord],
    dataset: data.Dataset,
    section: Mapping[str, Any],
    steps: int,
    notes: Sequence[str],
) -> Comparison:
    """Reads what the trials found, and writes the tables and the page."""
    remaining = iter(records)
    members = []
    rows_of_results, rows_of_timing = [], []
    for planned_arm in planned_arms:
        arm_records = [next(remaining) for _ in planned_arm.trials]
        members.append(read_arm(planned_arm, arm_records))
        for record in arm_records:
            rows_of_results.append(result_row(planned_arm, record))
            rows_of_timing.append(timing_row(planned_arm, record))
    split = report.choose_split(members)
    rows = report.make_rows(members, split)
    verdict = report.reach_verdict(rows, split)
    all_notes = (*report.list_notes(members, split), *collect_trial_notes(members), *notes)
    write_csv(out / RESULTS, RESULT_COLUMNS, rows_of_results)
    write_csv(out / TIMING, TIMING_COLUMNS, rows_of_timing)
    next_command = suggest_command(recipe, out, rows, records, planned_arms)
    page = arms_page.ComparisonPage(
        title=f"{recipe.name}: {len(recipe.arms)} arms compared",
        split=split,
        budget=f"{steps:,} steps" + ("" if recipe.budget == f"{steps} steps" else f" ({recipe.budget})"),
        facts=describe_data(dataset, section, recipe),
        notes=all_notes,
        left_out=recipe.left_out,
        commands=(next_command,),
    )
    arms_page.write(out / PAGE, page, rows, verdict, dataset)
    return Comparison(
        name=recipe.name,
        out=out,
        split=split,
        rows=tuple(rows),
        verdict=verdict,
        notes=all_notes,
        left_out=recipe.left_out,
        steps=steps,
        records=tuple(records),
        next_command=next_command,
    )


def read_arm(planned_arm: PlannedArm, records: Iterable[TrialRecord]) -> ArmRuns:
    """Reads what the trials of an arm found."""
    arm = planned_arm.arm
    runs, failures = [], []
    for record in records:
        seed = record.planned.trial.seed
        if record.state == trials.COMPLETE:
            runs.append(read_arm_run(record))
        else:
            failures.append(Failure(seed, record.state, record.reason))
    return ArmRuns(
        name=arm.name,
        about=arm.about,
        task=arm.task,
        share=planned_arm.share,
        has_seeds=arm.has_seeds,
        runs=tuple(runs),
        failures=tuple(failures),
    )


def read_arm_run(record: TrialRecord) -> ArmRun:
    """Reads predictions and evaluations of a complete trial, and which data it saw, from its folder.

    Raises:
        UserError: a file is missing or damaged.
    """
    trial_folder = record.planned.folder if record.run is None else record.run
    read_predictions = reader.make_predictions_reader(record.result["classes"])
    predictions = {}
    for split in PARTS:
        if split != "train" and record.result.get(split):
            predictions[split] = read_predictions(folder.predictions_path(trial_folder, split))
    lines: list[dict[str, Any]] = []
    fingerprint = str(record.result.get("data_fingerprint"))
    if record.run is not None:
        lines = [line for line in reader.read_number_lines(record.run / folder.METRICS) if line["kind"] == "evaluation"]
        fingerprint = reader.read_data(record.run / folder.DATA)["fingerprint"]
    return ArmRun(record.planned.trial.seed, record.result, predictions, tuple(lines), fingerprint)


def collect_trial_notes(members: Sequence[ArmRuns]) -> list[str]:
    """Returns what the trials that train nothing have to say of themselves, behind the name of the arm."""
    notes: dict[str, None] = {}  # a dict, because it keeps the order
    for arm in members:
        for run in arm.runs:
            for note in run.result.get("notes", ()):
                share = "" if arm.share == 1 else f" with {100 * arm.share:g} % of the data"
                notes[f"{arm.name}{share}: {note}"] = None
    return list(notes)


def describe_data(dataset: data.Dataset, section: Mapping[str, Any], recipe: ComparisonRecipe) -> tuple[str, ...]:
    """Returns lines about the data that all arms see."""
    source = section.get("path") or section["name"]
    counts = ", ".join(f"{len(split.labels):,} {name}" for name, split in dataset.splits.items())
    height, width, _ = dataset.image_shape
    return (
        f"{printable_name(str(source))}: {counts} images of {height}x{width} pixels, {len(dataset.classes)} classes",
        f"{recipe.seeds} {'seed' if recipe.seeds == 1 else 'seeds'} of each arm that trains",
        f"data {dataset.fingerprint[:12]}",
    )


def suggest_command(
    recipe: ComparisonRecipe,
    out: Path,
    rows: Sequence[ArmRow],
    records: Sequence[TrialRecord],
    planned_arms: Sequence[PlannedArm],
) -> str:
    """Returns the command that goes on: predictions by the best arm; where none is complete, the reasons of all."""
    largest = max(row.arm.share for row in rows)
    leader = next((row.arm for row in rows if row.is_leader and row.arm.share == largest), None)
    if leader is None:
        return f"cat {shlex.quote(str(out / RESULTS))}"
    seed = min(leader.accuracies(report.choose_split([leader])), default=0)
    remaining = iter(records)
    for planned_arm in planned_arms:
        for _ in planned_arm.trials:
            record = next(remaining)
            is_of_leader = (planned_arm.arm.name, planned_arm.share) == (leader.name, leader.share)
            if is_of_leader and record.run is not None and record.planned.trial.seed == seed:
                return f"cnn-vit predict {shlex.quote(f'--workdir={record.run}')} IMAGE ..."
    weights = next(arm.weights for arm in recipe.arms if arm.name == leader.name)
    flag = shlex.quote(f"--weights={weights}")
    if leader.task == arms.EVALUATE:
        return f"cnn-vit predict {flag} IMAGE ..."
    return f"cnn-vit probe {flag} --data=PATH"


# Tables ---------------------------------------------------------------------------------------------------------------


def result_row(planned_arm: PlannedArm, record: TrialRecord) -> dict[str, Any]:
    """Returns the row of a trial in results.csv; what it does not have is empty."""
    row: dict[str, Any] = {
        "arm": planned_arm.arm.name,
        "task": planned_arm.arm.task,
        "share": planned_arm.share,
        "seed": record.planned.trial.seed,
        "state": record.state,
        "trial": record.planned.id,
        "data": record.planned.data_fingerprint,
        "reason": " ".join(record.reason.split()),
    }
    for split in ("test", "validation"):
        if record.result.get(split):
            row[f"{split}_accuracy"], row[f"{split}_n"] = record.result[split]["accuracy"], record.result[split]["n"]
    if record.result:
        is_untouched = planned_arm.arm.task == arms.EVALUATE  # it learns from none
        row["training_images"] = 0 if is_untouched else record.result["counts"]["train"]
        for key in ("steps", "trained_parameters", "parameters", "macs", "model"):
            row[key] = record.result[key]
    return row


def timing_row(planned_arm: PlannedArm, record: TrialRecord) -> dict[str, Any]:
    """Returns the row of a trial in timing.csv."""
    timing = record.result.get("timing", {})
    return {
        "arm": planned_arm.arm.name,
        "share": planned_arm.share,
        "seed": record.planned.trial.seed,
        "trial": record.planned.id,
        "seconds": timing.get("seconds"),
        "cpu_seconds": timing.get("cpu_seconds"),
    }


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows as CSV with a line of names, as pandas reads it."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write(path, buffer.getvalue())


def row_json(row: ArmRow) -> dict[str, Any]:
    """Returns the row of an arm as plain values, each a number or a text of its own."""
    content: dict[str, Any] = {
        "arm": row.arm.name,
        "about": row.arm.about,
        "task": row.arm.task,
        "share": row.arm.share,
        "seeds": len(row.arm.runs) if row.arm.has_seeds else 0,
        "failed": len(row.arm.failures),
    }
    for name, accuracy in (("accuracy", row.accuracy), ("validation", row.validation)):
        interval = (None, None, None) if accuracy is None else accuracy.interval
        content |= {name: interval[0], f"{name}_low": interval[1], f"{name}_high": interval[2]}
        content[f"{name}_over"] = None if accuracy is None else accuracy.basis
    shown = None if row.difference is None else row.difference.shown.interval
    is_known = shown is not None and shown.low is not None
    content |= {
        "difference": shown.estimate if shown is not None and is_known else None,
        "difference_low": shown.low if shown is not None else None,
        "difference_high": shown.high if shown is not None else None,
        "resolved": None if row.difference is None else row.difference.is_resolved,
        "best": row.is_leader,
        "training_images": row.arm.training_images,
        "steps": row.arm.mean("steps"),
        "trained_parameters": row.arm.mean("trained_parameters"),
        "parameters": row.arm.mean("parameters"),
        "macs": row.arm.mean("macs"),
        "seconds": row.arm.mean("timing", "seconds"),
        "cpu_seconds": row.arm.mean("timing", "cpu_seconds"),
    }
    return content
