"""What a sweep would do and take, before it is started: its trials, then hours, disk and memory. Nothing is written.

`list_trials` imports no jax, and `measure` does not either. Where trials are finished already, their time and size tell
those of the others; else a worker times some steps of the first trial, in a folder that is gone afterwards.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cnn_vit import files, process, stops
from cnn_vit.errors import UserError
from cnn_vit.reports.sweep_facts import SweepFacts, SweepTrial
from cnn_vit.studies import trials, workers
from cnn_vit.studies.sweeping import definition as definitions
from cnn_vit.studies.sweeping import outcome, rungs, standing
from cnn_vit.studies.sweeping.definition import SweepDefinition
from cnn_vit.studies.sweeping.ledger import Plan, PlanRow
from cnn_vit.studies.sweeping.planner import SEED, PlanningProcess, make_trial
from cnn_vit.studies.sweeping.samplers import SAMPLERS
from cnn_vit.studies.sweeping.space import Point
from cnn_vit.studies.workers import StudyOptions

MOST_POINTS = 10  # that are listed
# A finished trial keeps its best checkpoint and its last one, which may be the same.
KEPT_CHECKPOINTS = 2


@dataclass(frozen=True)
class TrialList:
    """The trials of a sweep that is not begun, or not over.

    Attributes:
        suggestions: points that will be tried.
        trials: trials of all of them.
        over: those that are over already, as far as they are runs of their own.
        points: the first of the points; those that follow from results are not known.
        facts: of the trials that are planned already; None where the sweep is not begun.
    """

    suggestions: int
    trials: int
    over: int
    points: tuple[Point, ...]
    facts: SweepFacts | None


@dataclass(frozen=True)
class Forecast:
    """What the trials that are left will take.

    Attributes:
        trial_seconds: of one trial of full length, once its program is compiled; None where it is not known.
        seconds: of all that are left, beside each other as far as there are workers and cores.
        is_from_finished: whether finished trials tell it, and not some steps of the first one.
        disk_bytes: that the trials of the sweep will keep, those that are over included: all of their folders, or their
            checkpoints where no trial is finished.
        memory_bytes: that all workers together will take.
        free_disk_bytes, free_memory_bytes: what is free now.
        at_once: trials beside each other.
        basis: what these numbers stand on, a sentence.
    """

    trial_seconds: float | None
    seconds: float | None
    is_from_finished: bool
    disk_bytes: int | None
    memory_bytes: int | None
    free_disk_bytes: int | None
    free_memory_bytes: int | None
    at_once: int
    basis: str


def list_trials(definition: SweepDefinition, out: Path | None) -> TrialList:
    """Lists what a sweep would do.

    Args:
        definition: of the sweep.
        out: its folder; None where none was named yet.

    Raises:
        UserError: the folder holds another sweep or something else, or the sampler cannot be used.
        SurroundingsError: the folder cannot be read.
    """
    facts = None
    if out is not None and definitions.check_claim(out, definition) is not None:
        facts = outcome.read_sweep(out, with_curves=False)
    over = 0
    if facts is not None:
        over = sum(trial.state in standing.OVER for trial in facts.trials if trial.alias_of is None)
    points = tuple(first_points(definition, facts))
    return TrialList(definition.trials, definition.trials * definition.seeds, over, points, facts)


def first_points(definition: SweepDefinition, facts: SweepFacts | None) -> list[Point]:
    """Returns the first points of a sweep: of a sampler that learns those that wait for no result, or are planned."""
    planned: dict[int, Point] = {}
    for trial in () if facts is None else facts.trials:
        planned.setdefault(trial.suggestion, dict(trial.values))
    sampler = SAMPLERS[definition.sampler]
    known = definition.lag if sampler.is_adaptive else definition.trials
    points = []
    for index in range(min(MOST_POINTS, definition.trials)):
        if index in planned:
            points.append(planned[index])
        elif index < known:
            options = dict(definition.sampler_options)
            points.append(sampler.suggest(definition.space, index=index, seed=definition.seed, **options))
    return points


# What it takes --------------------------------------------------------------------------------------------------------


def measure(definition: SweepDefinition, listed: TrialList, out: Path | None, *, workers_asked: int) -> Forecast:
    """Forecasts what the trials that are left will take.

    Args:
        definition: of the sweep.
        listed: its trials, by `list_trials`.
        out: its folder; None where none was named yet.
        workers_asked: processes that will work at the same time.

    Raises:
        UserError: none of the first trials can be run.
        SurroundingsError: no worker can be started, or something is in the way.
        StoppedError: a signal asked to stop.
    """
    cores = max(1, len(process.usable_cores()) // definition.threads)
    at_once = max(1, min(workers_asked, cores, listed.trials - listed.over))
    place = out if out is not None else Path()
    nothing = Forecast(
        trial_seconds=None,
        seconds=None,
        is_from_finished=bool(finished_trials(listed.facts)),
        disk_bytes=None,
        memory_bytes=None,
        free_disk_bytes=files.free_disk(place),
        free_memory_bytes=process.free_memory(),
        at_once=at_once,
        basis="",
    )
    finished = finished_trials(listed.facts)
    if listed.over >= listed.trials:
        size = measure_disk(finished, listed.trials)
        return replace(nothing, seconds=0.0, disk_bytes=size, basis="all trials are over")
    if finished:
        return forecast_from_finished(definition, listed, finished, nothing)
    if definition.objective:
        return replace(nothing, basis="what an objective of your own takes is known once one of its trials is finished")
    return forecast_from_steps(definition, listed, nothing, workers_asked)


def finished_trials(facts: SweepFacts | None) -> list[SweepTrial]:
    """Returns the trials whose time is known."""
    finished = []
    for trial in () if facts is None else facts.trials:
        if trial.alias_of is None and trial.state in standing.MEASURED and trial.seconds and trial.steps:
            finished.append(trial)
    return finished


def forecast_from_finished(
    definition: SweepDefinition, listed: TrialList, finished: Sequence[SweepTrial], nothing: Forecast
) -> Forecast:
    """Forecasts from trials of the sweep that are finished."""
    facts = listed.facts
    if facts is None:
        return nothing
    own = [trial for trial in facts.trials if trial.alias_of is None]
    step_seconds = sum(trial.seconds or 0.0 for trial in finished) / sum(trial.steps for trial in finished)
    steps_left = standing.count_steps_left(replace(facts, planned=listed.trials), definition, own, ())
    steps_of_trial = sum(trial.planned_steps for trial in own) / len(own)
    return replace(
        nothing,
        trial_seconds=step_seconds * steps_of_trial,
        seconds=step_seconds * steps_left / nothing.at_once,
        disk_bytes=measure_disk(finished, listed.trials),
        basis=f"measured: what the {len(finished):,} finished trials of this sweep took",
    )


def measure_disk(finished: Sequence[SweepTrial], count: int) -> int | None:
    """Returns the bytes that so many trials will keep, by the folders of finished ones; None without any."""
    if not finished:
        return None
    sample = finished[:MOST_POINTS]
    return count * sum(folder_size(trial.folder) for trial in sample) // len(sample)


def folder_size(folder: Path) -> int:
    """Returns the bytes of all files in a folder."""
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with files.os_errors(Path(place, name)):
                size += os.lstat(os.path.join(place, name)).st_size
    return size


def forecast_from_steps(
    definition: SweepDefinition, listed: TrialList, nothing: Forecast, workers_asked: int
) -> Forecast:
    """Forecasts from some steps of the first trial that can be run, timed by a worker on a trial's number of cores."""
    options = StudyOptions(threads=definition.threads)
    with files.temporary_folder() as folder, stops.handle_signals() as stop:
        planning = PlanningProcess(definition, folder, options, stop)
        try:
            answer = plan_first(definition, listed.points, planning)
            planned = trials.from_json(answer)
            (worker,) = planning.hand_over()
            try:
                pace = workers.ask_pace(worker, planned, stop, remedy="mend that")
            finally:
                worker.process.kill()  # it has nothing to save
                worker.end()
        finally:
            planning.close()
    steps = planned.steps * listed.trials
    if definition.halving is not None:
        plan = Plan()
        plan.add(PlanRow(0, 0, 0, {}, "", None, planned.steps, tuple(answer["rungs"]), "", ""))
        steps = rungs.expected_steps(plan, definition.halving.eta, definition.trials, definition.seeds)
    seconds = pace["seconds"] * steps / planned.steps
    memory = pace["memory_bytes"]
    return replace(
        nothing,
        trial_seconds=pace["seconds"],
        seconds=pace["start_seconds"] + seconds / nothing.at_once,
        disk_bytes=listed.trials * KEPT_CHECKPOINTS * pace["checkpoint_bytes"],
        memory_bytes=None if memory is None else memory * workers_asked,
        basis="measured: some steps and an evaluation of the first trial, with its data, on "
        f"{definition.threads} {'core' if definition.threads == 1 else 'cores'}; another point may take another time, "
        "and one that changes more than numbers is compiled anew",
    )


def plan_first(definition: SweepDefinition, points: Sequence[Point], planning: PlanningProcess) -> dict[str, Any]:
    """Plans the first trial that can be run.

    Raises:
        UserError: there is none.
        SurroundingsError, StoppedError: as of `PlanningProcess.plan`.
    """
    errors = []
    for point in points:
        answer = planning.plan([make_trial(definition, point, point.get(SEED, definition.seed))])[0]
        if not answer["error"]:
            return answer
        errors.append(answer["error"])
    raise UserError(f"none of the first {len(errors)} points can be run: {errors[0]}")
