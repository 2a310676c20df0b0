"""What the folder of a sweep says: facts for pages and tables, read from files alone, while the sweep runs or later."""

import csv
import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from cnn_vit import files
from cnn_vit.errors import SurroundingsError, UserError, on_one_line
from cnn_vit.reports.sweep_facts import SweepFacts, SweepTrial
from cnn_vit.runs import folder, journal, reader
from cnn_vit.studies import trials
from cnn_vit.studies.sweeping import rungs
from cnn_vit.studies.sweeping.claims import read_claimed
from cnn_vit.studies.sweeping.definition import SweepDefinition
from cnn_vit.studies.sweeping.ledger import Plan, PlanRow, read_plan
from cnn_vit.studies.sweeping.planner import planned_trial
from cnn_vit.studies.sweeping.scheduler import read_metric
from cnn_vit.studies.trials import PlannedTrial, TrialRecord

RESULTS, TIMING = "results.csv", "timing.csv"
PAGE = folder.REPORT  # the same name as that of a run's page
VALIDATION = "validation"


def read_sweep(out: Path, *, with_curves: bool = True) -> SweepFacts:
    """Reads all that is known of a sweep.

    Args:
        out: its folder.
        with_curves: whether the evaluations in the course of each trial are read, too.

    Raises:
        UserError: the folder holds no sweep, or a file of it is not as it was written.
        SurroundingsError: a file cannot be read.
    """
    definition = read_claimed(out)
    plan, _ = read_plan(out)
    records: dict[int, TrialRecord] = {}
    facts: list[SweepTrial] = []
    for row in plan.rows:
        if row.alias_of is None:
            records[row.row] = trials.read_record(planned_trial(definition, out, row))
            record = records[row.row]
        else:
            record = records[row.alias_of]
        facts.append(read_trial(definition, plan, row, record, with_curves=with_curves))
    return SweepFacts(
        name=definition.name,
        out=out,
        definition=definition.to_json(),
        dimensions=tuple(definition.space.to_json()),
        metric=definition.metric,
        mode=definition.mode,
        trials=tuple(facts),
        planned=definition.trials * definition.seeds,
        notes=(),
    )


def read_trial(
    definition: SweepDefinition, plan: Plan, row: PlanRow, record: TrialRecord, *, with_curves: bool
) -> SweepTrial:
    """Returns the facts of a row of the plan."""
    planned, result = record.planned, record.result
    if not result:
        result = read_last_rung(plan, row, planned)
    timing = result.get("timing") or {}
    state = record.state
    if state in (trials.INTERRUPTED, trials.QUEUED) and result:
        state = trials.QUEUED  # it has done a rung, and waits for what comes of the others
    curve: tuple[tuple[int, float], ...] = ()
    if with_curves and planned.trial.task == "train":
        curve = read_curve(planned.folder / trials.RUN, definition.metric)
    validation = result.get(VALIDATION) or {}
    steps = int(result.get("steps", 0))
    if state in trials.FAILED and planned.trial.task == "train":
        steps = max(steps, read_last_step(planned))
    return SweepTrial(
        row=row.row,
        suggestion=row.suggestion,
        seed=row.seed,
        id=row.id,
        values=row.values,
        state=state,
        reason=record.reason,
        metric=read_metric(result, definition.metric),
        alias_of=row.alias_of,
        steps=steps,
        planned_steps=row.steps,
        seconds=timing.get("seconds"),
        cpu_seconds=timing.get("cpu_seconds"),
        curve=curve,
        folder=planned.folder,
        n=validation.get("n"),
        is_decided=rungs.is_decided(plan, row.suggestion),
    )


def read_last_rung(plan: Plan, row: PlanRow, planned: PlannedTrial) -> dict[str, Any]:
    """Returns the numbers of a trial at the end of the last rung that it has done; {} where it has done none."""
    for rung in reversed(range(len(row.rungs))):
        step = rungs.last_step(row, rung)
        numbers = None if step is None else trials.read_rung(planned, step)
        if numbers is not None:
            return numbers
    return {}


def read_last_step(planned: PlannedTrial) -> int:
    """Returns the last step that a trial has logged, which has failed behind it; 0 where it has logged none."""
    try:
        lines, _ = journal.read_until(planned.folder / trials.RUN / folder.TIMING, sys.maxsize)
    except SurroundingsError:
        return 0
    return int(lines[-1].get("step", 0)) if lines else 0


def read_curve(run: Path, metric: str) -> tuple[tuple[int, float], ...]:
    """Returns the evaluations of a run that the metric stands for: (step, number).

    A run that is under way may have a torn last line, which is left out; so is a file that cannot be read, for a page
    is better without a curve than not made.
    """
    name = metric.rpartition(".")[2]
    path = run / folder.METRICS
    if not path.exists():
        return ()
    try:
        lines = reader.read_number_lines(path)
    except (UserError, SurroundingsError):
        return ()
    curve: list[tuple[int, float]] = []
    for line in lines:
        if line.get("kind") == "evaluation" and line.get("split") == VALIDATION and name in line:
            curve.append((line["step"], line[name]))
    return tuple(curve)


def add_reason(facts: SweepFacts, reason: str) -> SweepFacts:
    """Returns the facts of a sweep with a note that says why it ended before all was done."""
    return replace(facts, notes=(*facts.notes, f"ended before all was done: {reason}"))


def write_tables(facts: SweepFacts) -> bool:
    """Writes results.csv, a row for each trial without any time, and timing.csv with the times.

    The first is the same bytes whenever it is made of the same results. Nothing is written where it stands there so.

    Returns:
        Whether something was written.

    Raises:
        SurroundingsError: they cannot be written.
    """
    keys = [dimension["key"] for dimension in facts.dimensions]
    results: list[list[Any]] = [
        ["row", "suggestion", "seed", "id", "state", "alias_of", facts.metric, "steps", *keys, "reason"]
    ]
    timing: list[list[Any]] = [["row", "id", "seconds", "cpu_seconds"]]
    for trial in facts.trials:
        values = [cell(trial.values[key]) if key in trial.values else "" for key in keys]
        alias_of = "" if trial.alias_of is None else trial.alias_of
        metric = "" if trial.metric is None else repr(trial.metric)
        about = [trial.row, trial.suggestion, trial.seed, trial.id, trial.state, alias_of, metric, trial.steps]
        results.append([*about, *values, on_one_line(trial.reason)])
        timing.append([trial.row, trial.id, trial.seconds, trial.cpu_seconds])
    path, text = facts.out / RESULTS, csv_text(results)
    with files.os_errors(path):
        if path.exists() and path.read_bytes() == text.encode() and (facts.out / TIMING).exists():
            return False
    files.write(facts.out / TIMING, csv_text(timing))
    files.write(path, text)
    return True


def cell(value: Any) -> Any:
    """Returns a value as a cell of a table: lists and truth values as JSON, texts as they are."""
    return value if isinstance(value, str | int | float) and not isinstance(value, bool) else json.dumps(value)


def csv_text(rows: list[list[Any]]) -> str:
    """Writes rows as comma-separated values."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()
