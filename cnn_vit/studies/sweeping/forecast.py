"""What a sweep would do and take, before it is started: its trials, then hours, disk and memory. Nothing is written.

`list_trials` imports no jax, and `measure` does not either. Where trials are finished already, their time and size tell
those of the others; else a worker times some steps of the first trial, in a folder that is gone afterwards.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cnn_vit import files, process, stops
from cnn_vit.errors import UserError
from cnn_vit.reports.sweep_facts import SweepFacts, SweepTrial
from cnn_vit.studies import trials, workers
from cnn_vit.studies.sweeping import claims, outcome, rungs, standing
from cnn_vit.studies.sweeping.definition import SweepDefinition
from cnn_vit.studies.sweeping.keys import GRID
from cnn_vit.studies.sweeping.ledger import Plan, PlanRow
from cnn_vit.studies.sweeping.planner import SEED, PlanningProcess, make_trial
from cnn_vit.studies.sweeping.samplers import SAMPLERS
from cnn_vit.studies.sweeping.space import Point
from cnn_vit.studies.workers import StudyOptions

MOST_POINTS = 10  # that are listed
MOST_COMPARED = 2000  # that are looked through for repeats
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
        repeats: trials that are the same run as an earlier one, as far as is known; they are not run again.
        repeated: of each of the first points that repeats an earlier one, by its number, the number of that one.
    """

    suggestions: int
    trials: int
    over: int
    points: tuple[Point, ...]
    facts: SweepFacts | None
    repeats: int = 0
    repeated: Mapping[int, int] = field(default_factory=dict)

    @property
    def runs(self) -> int:
        """Trials that are runs of their own."""
        return self.trials - self.repeats


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
        start_seconds: of `seconds`, those until the first step is compiled; None where they are not known apart.
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
    start_seconds: float | None = None


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
    if out is not None and claims.check_claim(out, definition) is not None:
        facts = outcome.read_sweep(out, with_curves=False)
    over = 0
    if facts is not None:
        over = sum(trial.state in standing.OVER for trial in facts.trials if trial.alias_of is None)
    points = known_points(definition, facts)
    repeated = find_repeated(points)
    repeats = len(repeated) * definition.seeds
    if facts is not None:
        # Points of other values may be the same run, too, which the plan knows.
        seen = {trial.suggestion for trial in facts.trials}
        repeats = sum(trial.alias_of is not None for trial in facts.trials)
        repeats += definition.seeds * len(repeated.keys() - seen)
    return TrialList(
        suggestions=definition.trials,
        trials=definition.trials * definition.seeds,
        over=over,
        points=tuple(points[:MOST_POINTS]),
        facts=facts,
        repeats=repeats,
        repeated={number: first for number, first in repeated.items() if number < MOST_POINTS},
    )


def find_repeated(points: Sequence[Point]) -> dict[int, int]:
    """Returns, of each point that repeats an earlier one, its number and the number of the first of them."""
    firsts: dict[str, int] = {}
    repeated: dict[int, int] = {}
    for number, point in enumerate(points):
        first = firsts.setdefault(json.dumps(point, sort_keys=True), number)
        if first != number:
            repeated[number] = first
    return repeated


def known_points(definition: SweepDefinition, facts: SweepFacts | None) -> list[Point]:
    """Returns the first points of a sweep: of a sampler that learns those that wait for no result, or are planned.

    Those of a grid are all different, so that no more of them are made than are listed.
    """
    planned: dict[int, Point] = {}
    for trial in () if facts is None else facts.trials:
        planned.setdefault(trial.suggestion, dict(trial.values))
    sampler = SAMPLERS[definition.sampler]
    known = definition.lag if sampler.is_adaptive else definition.trials
    points = []
    most = MOST_POINTS if definition.sampler == GRID else MOST_COMPARED
    for index in range(min(most, definition.trials)):
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
    at_once = max(1, min(workers_asked, cores, listed.runs - listed.over))
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
    if listed.over >= listed.runs:
        size = measure_disk(finished, listed.runs)
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
    planned = len(facts.trials) + listed.runs - len(own)  # of those to come only the runs
    steps_left = standing.count_steps_left(replace(facts, planned=planned), definition, own, ())
    what = "the finished trial" if len(finished) == 1 else f"the {len(finished):,} finished trials"
    steps_of_trial = sum(trial.planned_steps for trial in own) / len(own)
    return replace(
        nothing,
        trial_seconds=step_seconds * steps_of_trial,
        seconds=step_seconds * steps_left / nothing.at_once,
        disk_bytes=measure_disk(finished, listed.runs),
        basis=f"measured: what {what} of this sweep took",
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
    steps = planned.steps * listed.runs
    if definition.halving is not None:
        plan = Plan()
        plan.add(PlanRow(0, 0, 0, {}, "", None, planned.steps, tuple(answer["rungs"]), "", ""))
        steps = rungs.expected_steps(plan, definition.halving.eta, definition.trials, definition.seeds)
    seconds = pace["seconds"] * steps / planned.steps
    memory = pace["memory_bytes"]
    return replace(
        nothing,
        trial_seconds=pace["seconds"],
        start_seconds=pace["start_seconds"],
        seconds=pace["start_seconds"] + seconds / nothing.at_once,
        disk_bytes=listed.runs * KEPT_CHECKPOINTS * pace["checkpoint_bytes"],
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
