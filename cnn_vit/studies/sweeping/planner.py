"""From points to the rows of the plan: which point is next, what its trials are called, which are there already.

What a trial is called depends on all its settings and its data, so that somebody has to read them. That is a planning
process, a worker like those that train: it imports jax and holds the data, and the process of the sweep need not.

Row r of the plan is the trial of suggestion r // seeds with the seed number r % seeds. A point depends on its number,
on the seed of the sweep and, of a sampler that learns, on the results of the suggestions up to `lag` before it. How
long a trial took, how many workers there are, and how often the sweep was stopped decide nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cnn_vit import stops
from cnn_vit.errors import SurroundingsError, UserError
from cnn_vit.settings import load as load_settings
from cnn_vit.studies import objectives, trials, workers
from cnn_vit.studies.sweeping import rungs
from cnn_vit.studies.sweeping.claims import read_claimed
from cnn_vit.studies.sweeping.definition import SweepDefinition
from cnn_vit.studies.sweeping.ledger import Ledger, Plan, PlanRow, read_plan
from cnn_vit.studies.sweeping.samplers import SAMPLERS, Observation
from cnn_vit.studies.sweeping.space import Point, text_of_value
from cnn_vit.studies.trials import PlannedTrial, Trial
from cnn_vit.studies.worker import IN_THE_WAY, PLAN, READY
from cnn_vit.studies.workers import StudyOptions, Worker
from cnn_vit.training.progress import Progress

SEED = "seed"  # a setting; where the space varies it, it is no number of the sweep's own
BATCH = 50  # trials that are planned at a time
PLAN_LOG = "plan.log"


def make_trial(definition: SweepDefinition, values: Point, seed: int) -> Trial:
    """Returns the trial of a point; a point that was read from the plan, with its keys sorted, has the same one."""
    settings = []
    for dimension in definition.space.dimensions:
        if dimension.key in values and dimension.key != SEED:
            settings.append(f"{dimension.key}={text_of_value(values[dimension.key])}")
    name = ", ".join(settings)
    if definition.seeds > 1 or SEED in values:
        name += f", seed {seed}" if name else f"seed {seed}"
    if definition.objective:
        return Trial(trials.OBJECTIVE, definition.objective, (), seed, ((objectives.VALUES, values),), name)
    return Trial("train", definition.config, (*definition.overrides, *settings), seed, name=name)


def planned_trial(definition: SweepDefinition, out: Path, row: PlanRow) -> PlannedTrial:
    """Returns the trial of a row; whoever does it finds its settings again, and refuses it where they have changed."""
    trial = make_trial(definition, row.values, row.seed)
    return PlannedTrial(
        trial=trial,
        id=row.id,
        folder=out / trials.TRIALS / row.id,
        settings=None,
        data_fingerprint=row.data_fingerprint,
        error=row.error,
        steps=row.steps,
        reads_test=False,  # a sweep chooses, and may not choose by what it is tested on
        metric=definition.metric if definition.objective else "",
    )


def refuse_changed(definition: SweepDefinition, out: Path, plan: Plan) -> None:
    """Refuses to go on with a sweep whose recipe or function has become another one, as far as can be told quickly.

    The data are not read for that, and a recipe whose weights decide settings is looked at only once a trial is to be
    planned or done.

    Raises:
        SurroundingsError: the first trial that was planned would have another name today.
    """
    row = next((row for row in plan.rows if not row.error), None)
    if row is None:
        return
    trial = make_trial(definition, row.values, row.seed)
    if definition.objective:
        trial_id = objectives.plan_objective(trial, out).id
    else:
        settings = load_settings(trial.config, [*trial.overrides, f"seed={trial.seed}"])
        if settings["pretrained.weights"] is not None:
            return
        trial_id, _ = trials.place(trials.deciding_words(trial, settings, row.data_fingerprint), out)
    if trial_id != row.id:
        raise changed_error(definition)


def changed_error(definition: SweepDefinition) -> SurroundingsError:
    """Makes the error of a sweep that would go on with other trials than it began with."""
    changed = definition.objective or f"{definition.config}, or what it names,"
    return SurroundingsError(
        f"{changed} has changed since this sweep was planned: its trials would not be comparable with new ones; put it "
        "back, or start again in another folder with --out"
    )


class PlanningProcess:
    """A worker that plans trials. It is started when the first trial is to be planned.

    Args:
        definition: of the sweep.
        out: its folder.
        options: how its trials will be done.
        stop: the signals of this process.
    """

    def __init__(self, definition: SweepDefinition, out: Path, options: StudyOptions, stop: stops.StopSignals):
        self._definition, self._out, self._options, self._stop = definition, out, options, stop
        self._worker: Worker | None = None

    def plan(self, list_of_trials: Sequence[Trial]) -> list[dict[str, Any]]:
        """Returns what each trial is called, its steps and rungs, and why it cannot be where it cannot.

        Raises:
            SurroundingsError: the process died, or a file is in the way.
            StoppedError: a signal asked to stop.
        """
        if self._definition.objective:
            answers = []
            for trial in list_of_trials:
                planned = objectives.plan_objective(trial, self._out)
                answers.append({**trials.to_json(planned), "rungs": ()})
            return answers
        for _ in range(workers.MOST_EARLY_DEATHS):
            message = self._ask(list_of_trials)
            if message is not None:
                return message["trials"]
        raise SurroundingsError(
            f"the process that plans trials died {workers.MOST_EARLY_DEATHS} times; {self._log} says more"
        )

    @property
    def _log(self) -> Path:
        return self._out / workers.WORKERS / PLAN_LOG

    def _ask(self, list_of_trials: Sequence[Trial]) -> dict[str, Any] | None:
        """Asks the process, which is started where there is none; returns its answer, None where a signal killed it.

        Raises:
            SurroundingsError: it ended by itself, or a file is in the way.
            StoppedError: a signal asked this process to stop.
        """
        if self._worker is None:
            variables = workers.choose_accelerators(1)[0]
            self._worker = Worker(0, self._log, self._options, variables)
        halving = self._definition.halving
        self._worker.pipe.send(
            PLAN,
            trials=[asdict(trial) for trial in list_of_trials],
            out=str(self._out),
            first_rung=halving.first if halving else "",
            eta=halving.eta if halving else 0,
        )
        message: dict[str, Any] | None = {"kind": READY}
        while message is not None and message["kind"] == READY:
            message = workers.receive(self._worker, self._stop)
        if message is None:
            code = self._worker.end()
            self._worker = None
            if code >= 0:  # a signal may come from outside
                raise SurroundingsError(
                    f"the process that plans trials {workers.describe_exit(code)}; {self._log} says more"
                )
            return None
        if message["kind"] == IN_THE_WAY:
            raise SurroundingsError(message["sentence"])
        return message

    def hand_over(self) -> list[Worker]:
        """Returns the process, where there is one, to do trials from now on: it has its libraries and the data."""
        handed, self._worker = self._worker, None
        return [] if handed is None else [handed]

    def close(self) -> None:
        """Ends the process; it has nothing to save."""
        if self._worker is not None:
            self._worker.process.kill()
            self._worker.end()
            self._worker = None


class Planner:
    """Adds rows to the plan of a sweep as soon as they may be known.

    Args:
        definition: of the sweep.
        ledger: its plan.
        process: plans trials.
        plans_again: whether trials that could not be run when they were planned are planned again.
    """

    def __init__(
        self, definition: SweepDefinition, ledger: Ledger, process: PlanningProcess, *, plans_again: bool = False
    ):
        self._definition, self._ledger, self._process = definition, ledger, process
        self._plans_again = plans_again
        self._sampler = SAMPLERS[definition.sampler]
        self._is_checked = False  # whether a trial that was planned earlier would be planned as it was
        self._rows_by_id: dict[str, int] = {}
        for row in ledger.plan.rows:
            self._rows_by_id.setdefault(row.id, row.row)
        self._rungs = rungs.common_rungs(ledger.plan)

    @property
    def total(self) -> int:
        """How many rows the plan will have."""
        return self._definition.trials * self._definition.seeds

    def is_complete(self) -> bool:
        """Whether all rows are planned."""
        return len(self._ledger.plan.rows) >= self.total

    def needs(self) -> int:
        """Returns how many suggestions, from the first on, must be over before the next row can be planned."""
        if not self._sampler.is_adaptive:
            return 0
        next_suggestion = len(self._ledger.plan.rows) // self._definition.seeds
        return max(0, next_suggestion - self._definition.lag + 1)

    def plan_rows(self, observations: Sequence[Observation]) -> None:
        """Plans all rows that may be known by now.

        Args:
            observations: of the suggestions that are over, from the first on without a gap.

        Raises:
            UserError: no trial of a sweep can be run, for the same reason.
            SurroundingsError: a file is in the way.
            StoppedError: a signal asked to stop.
        """
        if self._plans_again:
            self._plans_again = False
            self._plan_again()
        progress: Progress | None = None
        first = len(self._ledger.plan.rows)
        try:
            while not self.is_complete() and self.needs() <= len(observations):
                self._refuse_other_trials()
                rows = self.next_rows(observations)
                if not self._ledger.plan.rows:
                    refuse_hopeless(rows, self._definition, is_whole=len(rows) == self.total)
                self._ledger.append(rows)
                if self.total - first > BATCH and not self._sampler.is_adaptive:
                    progress = progress or Progress(self.total, step=first, batch_size=None)
                    progress.update(len(self._ledger.plan.rows))
        finally:
            if progress is not None:
                progress.close()

    def _find_changed(self) -> PlanRow | None:
        """Returns the first row that could be planned where it would have another name today; None where it would not.

        Recipe or data have changed then, and so have the other trials.
        """
        row = next((row for row in self._ledger.plan.rows if not row.error), None)
        if row is None:
            return None
        (answer,) = self._process.plan([make_trial(self._definition, row.values, row.seed)])
        return None if answer["id"] == row.id else row

    def _refuse_other_trials(self) -> None:
        """Refuses to add to a plan whose trials would have other names today; looks once at each start.

        Raises:
            SurroundingsError: so it is.
        """
        if self._is_checked or not self._ledger.plan.rows:
            return
        self._is_checked = True
        if self._find_changed() is not None:
            raise changed_error(self._definition)

    def next_rows(self, observations: Sequence[Observation]) -> list[PlanRow]:
        """Returns the next rows of the plan, at most BATCH.

        Of a sampler that learns these are at first the trials that wait for no result, then those of one suggestion.
        """
        definition, plan = self._definition, self._ledger.plan
        first = len(plan.rows)
        last = min(first + BATCH, self.total)
        if self._sampler.is_adaptive:
            last = min(last, max(definition.lag, first // definition.seeds + 1) * definition.seeds)
        points: dict[int, Point] = {}
        list_of_trials: list[Trial] = []
        for number in range(first, last):
            suggestion, seed_number = divmod(number, definition.seeds)
            if suggestion not in points:
                points[suggestion] = self.find_point(suggestion, observations, points)
            values = points[suggestion]
            seed = values[SEED] if SEED in values and not definition.objective else definition.seed + seed_number
            list_of_trials.append(make_trial(definition, values, seed))
        rows: list[PlanRow] = []
        for number, answer in enumerate(self._process.plan(list_of_trials), start=first):
            trial = list_of_trials[number - first]
            rows.append(self._make_row(number, points[number // definition.seeds], trial.seed, answer))
        return rows

    def _make_row(self, number: int, values: Point, seed: int, answer: Mapping[str, Any]) -> PlanRow:
        """Returns a row of the plan; one whose rungs are not those of the first row that has some cannot be run."""
        alias_of = self._rows_by_id.setdefault(answer["id"], number)
        own_rungs, error = tuple(answer["rungs"]), answer["error"]
        if not self._rungs:
            self._rungs = own_rungs
        if own_rungs and own_rungs != self._rungs:
            error = (
                f"its rungs would end at the steps {', '.join(map(str, own_rungs))}, and those of the first trial at "
                f"{', '.join(map(str, self._rungs))}; halving compares trials at the same steps"
            )
        return PlanRow(
            row=number,
            suggestion=number // self._definition.seeds,
            seed=seed,
            values=values,
            id=answer["id"],
            alias_of=None if alias_of == number else alias_of,
            steps=answer["steps"],
            rungs=() if error else own_rungs,
            data_fingerprint=answer["data_fingerprint"],
            error=error,
        )

    def _plan_again(self) -> None:
        """Plans the trials again that could not be run: what they lacked may be there by now.

        A row that has become another one is added to the plan, where it stands for the first of its number.

        Raises:
            UserError: the recipe or its data have changed for the other trials, too, which could not be compared.
        """
        plan = self._ledger.plan
        wrong = [row for row in plan.rows if row.error and not rungs.is_decided(plan, row.suggestion)]
        changed_row = self._find_changed() if wrong else None
        if changed_row is not None:
            raise UserError(
                f"trial {changed_row.id} would be another run by now, for its recipe or its data have changed since it "
                "was planned, and trials that are planned anew could not be compared with it; put them back, or sweep "
                "in another folder"
            )
        for first in range(0, len(wrong), BATCH):
            batch = wrong[first : first + BATCH]
            answers = self._process.plan([make_trial(self._definition, row.values, row.seed) for row in batch])
            changed = []
            for row, answer in zip(batch, answers, strict=True):
                again = self._make_row(row.row, row.values, row.seed, answer)
                if again == row:
                    continue
                # A result counts for later rows only.
                if again.alias_of is None or again.alias_of < row.row:
                    changed.append(again)
            if changed:
                self._ledger.append(changed)

    def find_point(self, suggestion: int, observations: Sequence[Observation], points: Mapping[int, Point]) -> Point:
        """Returns the point of a suggestion: the one that the plan has begun with, or that the sampler gives.

        Args:
            suggestion: its number.
            observations: of the suggestions that are over, from the first on without a gap.
            points: of earlier suggestions that the plan does not have yet.
        """
        definition, plan = self._definition, self._ledger.plan
        if suggestion < plan.suggestions:
            return plan.trials_of(suggestion)[0].values
        history: list[Observation] = []
        pending: list[Point] = []
        if self._sampler.is_adaptive:
            seen = max(0, suggestion - definition.lag + 1)
            history = list(observations[:seen])
            for earlier in range(seen, suggestion):
                pending.append(points[earlier] if earlier in points else plan.trials_of(earlier)[0].values)
        return self._sampler.suggest(
            definition.space,
            index=suggestion,
            seed=definition.seed,
            history=history,
            pending=pending,
            **dict(definition.sampler_options),
        )


def refuse_hopeless(rows: Sequence[PlanRow], definition: SweepDefinition, *, is_whole: bool) -> None:
    """Raises UserError where none of the first trials can be run, and the mistake is not in one point.

    Args:
        rows: the first of the plan.
        definition: of the sweep.
        is_whole: whether these are all rows that the plan will have.
    """
    if not rows or not all(row.error for row in rows):
        return
    if is_whole:
        raise UserError(f"no trial can be run: {rows[0].error}")
    if rows[-1].suggestion + 1 >= definition.lag:
        raise UserError(f"none of the first {len(rows)} trials can be run: {rows[0].error}")


def open_trial(out: Path, trial_id: str) -> PlannedTrial:
    """Returns a trial of a sweep for a process that has not planned it, as far as it is to be done by now.

    Raises:
        UserError: the folder holds no sweep, or its plan no such trial.
        SurroundingsError: a file cannot be read.
    """
    definition = read_claimed(out)
    plan, _ = read_plan(out)
    for row in plan.rows:
        if row.id == trial_id and row.alias_of is None:
            planned = planned_trial(definition, out, row)
            return replace(planned, until=rungs.last_step(row, len(plan.rungs)))
    raise UserError(f"{out} has no trial {trial_id}; the ids stand in its plan.jsonl")
