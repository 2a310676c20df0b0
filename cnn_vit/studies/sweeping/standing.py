"""How a sweep stands at a moment: which trials are under way and how far they are, and how long the rest will take.

All is read from files, by any process that sees the folder, while the sweep runs or later; no lock is taken.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cnn_vit import files
from cnn_vit.errors import SurroundingsError
from cnn_vit.files import stamps
from cnn_vit.reports.sweep_facts import SweepFacts, SweepTrial
from cnn_vit.runs import folder, journal
from cnn_vit.studies import trials
from cnn_vit.studies.sweeping import ledger, outcome, rungs
from cnn_vit.studies.sweeping.definition import SweepDefinition

ARRAYS = "slurm"  # the folder of a sweep that what was given to SLURM lies in
MEASURED = (trials.COMPLETE, trials.PRUNED)  # states of trials whose time and steps tell how fast the others will be
OVER = (*MEASURED, *trials.RETRIABLE)


@dataclass(frozen=True)
class RunningTrial:
    """A trial that a process works on.

    Attributes:
        trial: what the folder says of it.
        step: the last step that it has logged; 0 before the first.
        seconds: that it had taken by then, in earlier starts, too; 0 before the first.
    """

    trial: SweepTrial
    step: int
    seconds: float


@dataclass(frozen=True)
class Standing:
    """How a sweep stands.

    Attributes:
        facts: what its folder says, without learning curves.
        is_running: whether a process holds the sweep, or one of its trials, or SLURM has some.
        running: the trials under way.
        queue: SLURM's words for trials that it has, by their ids.
        over: trials that are over, of those that are runs of their own.
        total: trials that there will be, as far as is known.
        steps_left: training steps that are still to be done, as far as is known.
        seconds_left: how long the rest will take; None where no trial has told its pace.
        basis: what `seconds_left` stands on, in words.
    """

    facts: SweepFacts
    is_running: bool
    running: tuple[RunningTrial, ...]
    queue: Mapping[str, str]
    over: int
    total: int
    steps_left: int
    seconds_left: float | None
    basis: str


def read_standing(out: Path) -> Standing:
    """Reads how a sweep stands.

    Raises:
        UserError: the folder holds no sweep, or a file of it is not as it was written.
        SurroundingsError: a file cannot be read.
    """
    facts = outcome.read_sweep(out, with_curves=False)
    definition = SweepDefinition.from_json(facts.definition)
    own = [trial for trial in facts.trials if trial.alias_of is None]
    running = tuple(read_progress(trial) for trial in own if trial.state == trials.RUNNING)
    steps_left = count_steps_left(facts, definition, own, running)
    measured, where = choose_measured(out, own)
    seconds_left, basis = None, ""
    pace = measure_pace(measured, running)
    if pace is not None:
        at_once = max(1, len(running))
        seconds_left = steps_left * pace / at_once
        measured_text = f"{len(measured)} finished {where}" if measured else "those under way"
        basis = f"at the pace of {measured_text}, {at_once} at a time"
    over = sum(trial.state in OVER for trial in own)
    total = max(len(own), facts.planned - (len(facts.trials) - len(own)))
    queue: dict[str, str] = {}
    if over < total and has_arrays(out):
        from cnn_vit.studies.sweeping import slurm

        queue = slurm.queue_states(out)
    return Standing(
        facts=facts,
        is_running=bool(running) or bool(queue) or files.is_locked(out / trials.LOCK),
        running=running,
        queue=queue,
        over=over,
        total=total,
        steps_left=steps_left,
        seconds_left=seconds_left,
        basis=basis,
    )


def has_arrays(out: Path) -> bool:
    """Whether trials of a sweep were ever given to SLURM."""
    return (out / ARRAYS).is_dir()


def read_progress(trial: SweepTrial) -> RunningTrial:
    """Reads how far a trial is that a process works on; one whose journal cannot be read has told nothing."""
    try:
        lines, _ = journal.read_until(trial.folder / trials.RUN / folder.TIMING, sys.maxsize)
    except SurroundingsError:
        lines = []
    last = lines[-1] if lines else {}
    return RunningTrial(trial, int(last.get("step", trial.steps)), float(last.get("seconds") or 0.0))


def count_steps_left(
    facts: SweepFacts, definition: SweepDefinition, own: Sequence[SweepTrial], running: Sequence[RunningTrial]
) -> int:
    """Counts the training steps that are still to be done; trials that are not planned yet count as the others do."""
    steps_by_row = {one.trial.row: one.step for one in running}
    if definition.halving is not None:
        plan, _ = ledger.read_plan(facts.out)
        total = rungs.expected_steps(plan, definition.halving.eta, definition.trials, definition.seeds)
        done = sum(max(trial.steps, steps_by_row.get(trial.row, 0)) for trial in own)
        return 0 if all(trial.state in OVER for trial in own) and own else max(0, total - done)
    left = 0
    for trial in own:
        if trial.state not in OVER:
            left += max(0, trial.planned_steps - steps_by_row.get(trial.row, trial.steps))
    mean = sum(trial.planned_steps for trial in own) / len(own) if own else 0
    return left + round(mean * max(0, facts.planned - len(facts.trials)))


def choose_measured(out: Path, own: Sequence[SweepTrial]) -> tuple[list[SweepTrial], str]:
    """Returns the trials whose times tell the pace, and when they finished, in words.

    These are those that finished since the last start of the sweep, which may have had other workers and another
    machine; where there is none, all that finished.
    """
    finished = []
    for trial in own:
        if trial.state in MEASURED and trial.seconds and trial.steps:
            finished.append(trial)
    lock = out / trials.LOCK  # written at each start
    recent = [trial for trial in finished if stamps.is_newer(trial.folder / trials.RESULT, lock)]
    if recent:
        return recent, "since the last start"
    return finished, "before the last start"


def measure_pace(finished: Sequence[SweepTrial], running: Sequence[RunningTrial]) -> float | None:
    """Returns the seconds of a training step: of the trials that finished, else of those under way; None of neither."""
    seconds = sum(trial.seconds or 0.0 for trial in finished)
    steps = sum(trial.steps for trial in finished)
    if not steps:
        seconds = sum(one.seconds for one in running)
        steps = sum(one.step for one in running)
    return seconds / steps if steps and seconds else None
