"""Does a sweep: plans what may be planned, hands out what may be done, until all trials are over.

Read `Supply.take`. What became of a trial is read from its folder; here it is only remembered. So after any kill the
same command finds in the folders what is left, and decides as it would have decided.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cnn_vit import files
from cnn_vit.runs import journal
from cnn_vit.studies import trials, workers
from cnn_vit.studies.sweeping import rungs
from cnn_vit.studies.sweeping.definition import SweepDefinition
from cnn_vit.studies.sweeping.ledger import Ledger, PlanRow, RungRow
from cnn_vit.studies.sweeping.planner import Planner, planned_trial
from cnn_vit.studies.sweeping.samplers import Observation
from cnn_vit.studies.trials import PlannedTrial
from cnn_vit.studies.workers import StudyOptions

CANCEL = "cancel"  # a file in the folder of a sweep: somebody asks it to end
AHEAD = 8  # trials that are ready for workers, at least


def read_metric(result: Mapping[str, Any], metric: str) -> float | None:
    """Returns a number of a result by its dotted name, "validation.accuracy"; None where it has none.

    The numbers of an objective stand in its result under the names that it gave them, which may have dots.
    """
    if metric in result:
        return float(result[metric])
    value: Any = result
    for name in metric.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return float(value) if isinstance(value, int | float) else None


@dataclass(frozen=True)
class Outcome:
    """What is known of a row whose trial is over.

    Attributes:
        metric: its number, as it stands in the result; None where it has none.
        has_failed: whether it counts as a failure.
    """

    metric: float | None
    has_failed: bool


class Supply:
    """The trials of a sweep, in the order in which they may be done; what `workers.Study` takes them from.

    Args:
        definition: of the sweep.
        out: its folder, locked by this process.
        ledger: its plan.
        planner: adds to the plan.
        options: how trials are done.
        ahead: the most trials that are handed out and not over; None for no limit.
        deadline: the time (`journal.now`) at which no more trials are to be done; None for no such time.
    """

    def __init__(
        self,
        definition: SweepDefinition,
        out: Path,
        ledger: Ledger,
        planner: Planner,
        options: StudyOptions,
        *,
        ahead: int | None = AHEAD,
        deadline: float | None = None,
    ):
        self._definition, self._out, self._ledger, self._planner = definition, out, ledger, planner
        self._options, self._ahead, self._deadline = options, ahead, deadline
        self._sign = 1.0 if definition.mode == "max" else -1.0
        self._outcomes: dict[int, Outcome] = {}  # by row, of the rung that is under way
        self._under_way: dict[int, PlannedTrial] = {}
        self._observations: list[Observation] = []
        self._next = 0  # the first row of the rung that was not looked at
        self._steps_over = 0
        for rung in range(len(ledger.plan.rungs)):
            self._prune(rung)  # a kill may have come between the decision and what follows from it
        self._failed = set() if definition.max_failures is None else self._find_failed()  # rows

    # What `workers.Study` asks for ------------------------------------------------------------------------------------

    def take(self) -> list[PlannedTrial]:
        """Returns the trials that may be done now and were not returned before."""
        while True:
            before = self._progress()
            self._look_at_trials()
            self._observe()
            self._planner.plan_rows(self._observations)
            taken = self._take_rows()
            if taken:
                return taken
            self._decide_rung()
            # Trials that were over before this start may be all that the planner, or the next rung, has waited for.
            if self._progress() == before:
                return []

    def _progress(self) -> tuple[int, ...]:
        """Returns numbers that grow with all that is planned, looked at, observed or decided."""
        plan = self._ledger.plan
        return len(plan.rows), len(plan.rungs), self._next, len(self._observations), len(self._outcomes)

    def plan(self) -> None:
        """Plans the trials that may be known before any is done."""
        self._planner.plan_rows(self._observations)

    def is_planned(self) -> bool:
        """Whether all trials are planned."""
        return self._planner.is_complete()

    def describe_errors(self) -> list[str]:
        """Says which trials cannot be run, by what is planned so far: a sentence for each reason."""
        rows_by_error: dict[str, int] = {}
        for row in self._ledger.plan.rows:
            if row.error and row.alias_of is None:
                rows_by_error[row.error] = rows_by_error.get(row.error, 0) + 1
        sentences: list[str] = []
        for error, count in rows_by_error.items():
            noun = "trial" if count == 1 else "trials"
            sentences.append(f"{count} {noun} of {len(self._ledger.plan.rows)} cannot be run, the others are: {error}")
        return sentences

    def is_exhausted(self) -> bool:
        """Whether every trial is over."""
        is_last_rung = self._rung >= rungs.count_rungs(self._ledger.plan) - 1
        if not self._planner.is_complete() or not self._is_rung_over():
            return False
        return is_last_rung or not self._choose_survivors()

    def describe_dead_end(self) -> str:
        """Says why no trial goes on beyond a rung that is over and not the last; "" where that is not so."""
        last = rungs.count_rungs(self._ledger.plan)
        if self._rung >= last - 1 or not self.is_exhausted():
            return ""
        return (
            f"no trial has a number at the end of rung {self._rung + 1} of {last}, so that none goes on; `cnn-vit "
            "sweep retry` does those again that have failed"
        )

    def reason_to_end(self) -> str:
        """Says why the sweep is to end before all is done; "" where it is not."""
        if is_cancelled(self._out):
            return "cancelled"
        if self._deadline is not None and journal.now() >= self._deadline:
            return "the time is over"
        most = self._definition.max_failures
        if most is not None and len(self._failed) >= most:
            return f"{len(self._failed)} trials have failed, and max_failures is {most}"
        return ""

    def count_steps(self) -> tuple[int, int]:
        """Returns the steps of the trials that are over, and of all as far as is known."""
        plan, definition = self._ledger.plan, self._definition
        if definition.halving:
            total = rungs.expected_steps(plan, definition.halving.eta, definition.trials, definition.seeds)
            return self._steps_over, total
        planned = sum(row.steps for row in plan.rows if row.alias_of is None)
        missing = self._planner.total - len(plan.rows)
        return self._steps_over, planned + missing * (plan.rows[0].steps if plan.rows else 1)

    # Trials that are over ---------------------------------------------------------------------------------------------

    @property
    def _rung(self) -> int:
        """The rung that is under way."""
        return len(self._ledger.plan.rungs)

    def _planned(self, row: PlanRow) -> PlannedTrial:
        """Returns the trial of a row, with the step at which it waits in this rung."""
        planned = planned_trial(self._definition, self._out, row)
        return replace(planned, until=rungs.last_step(row, self._rung))

    def _look_at_trials(self) -> None:
        """Takes note of the trials that were under way and are over now."""
        for number, planned in list(self._under_way.items()):
            if trials.is_over(planned):
                del self._under_way[number]
                self._note(self._ledger.plan.rows[number], planned)

    def _note(self, row: PlanRow, planned: PlannedTrial) -> None:
        """Remembers the numbers of a trial that is over, or has reached the end of its rung."""
        record = trials.read_record(planned)
        result = record.result
        if planned.until is not None and record.state not in trials.RETRIABLE:
            result = trials.read_rung(planned, planned.until) or result
        metric = read_metric(result, self._definition.metric)
        has_failed = record.state in trials.FAILED
        self._outcomes[row.row] = Outcome(metric, has_failed=has_failed)
        if has_failed:
            self._failed.add(row.row)
        before = row.rungs[self._rung - 1] if self._rung else 0
        self._steps_over += (planned.until or row.steps) - before

    def _find_failed(self) -> set[int]:
        """Returns the rows that have failed before this start and are not done again."""
        failed = set()
        for row in self._ledger.plan.rows:
            if row.alias_of is not None:
                continue
            state = trials.read_record(planned_trial(self._definition, self._out, row)).state
            is_retried = state in self._options.retries and not rungs.is_decided(self._ledger.plan, row.suggestion)
            if state in trials.FAILED and not is_retried:
                failed.add(row.row)
        return failed

    def _outcome(self, row: PlanRow) -> Outcome | None:
        """Returns what is known of a row; of one that is the same trial as an earlier one, what is known of that."""
        return self._outcomes.get(row.row if row.alias_of is None else row.alias_of)

    def _metric_of(self, suggestion: int) -> tuple[bool, float | None]:
        """Returns whether all trials of a point are over, and their mean, where larger is better.

        The mean is None where one has no number.
        """
        numbers: list[float] = []
        rows = self._ledger.plan.trials_of(suggestion)
        for row in rows:
            outcome = self._outcome(row)
            if outcome is None:
                return False, None
            if outcome.metric is not None:
                numbers.append(self._sign * outcome.metric)
        if len(rows) < self._definition.seeds:
            return False, None
        return True, sum(numbers) / len(numbers) if len(numbers) == len(rows) else None

    def _observe(self) -> None:
        """Adds the suggestions that are over, from the first on without a gap, to what the sampler may know."""
        while len(self._observations) < self._ledger.plan.suggestions:
            suggestion = len(self._observations)
            is_over, metric = self._metric_of(suggestion)
            if not is_over:
                return
            point = self._ledger.plan.trials_of(suggestion)[0].values
            self._observations.append(Observation(point, metric))

    # Trials that are to be done ---------------------------------------------------------------------------------------

    def _rows_of_rung(self) -> list[PlanRow]:
        """Returns the trials of the rung that is under way, in the order in which they are done."""
        plan = self._ledger.plan
        if self._rung == 0:
            return plan.rows
        rows: list[PlanRow] = []
        for suggestion in sorted(rungs.candidates(plan, self._rung)):
            rows += plan.trials_of(suggestion)
        return rows

    def _take_rows(self) -> list[PlannedTrial]:
        """Returns trials of this rung, as many as may be under way."""
        rows = self._rows_of_rung()
        taken: list[PlannedTrial] = []
        while self._next < len(rows) and (self._ahead is None or len(self._under_way) < self._ahead):
            row = rows[self._next]
            self._next += 1
            if row.alias_of is not None:
                continue
            planned = self._planned(row)
            workers.prepare_folder(planned, self._options)
            if trials.is_over(planned):
                self._note(row, planned)
                continue
            self._under_way[row.row] = planned
            taken.append(planned)
        return taken

    def _is_rung_over(self) -> bool:
        """Whether every trial of the rung that is under way is over."""
        return self._next >= len(self._rows_of_rung()) and not self._under_way

    def _decide_rung(self) -> None:
        """Decides which trials go on, once a rung that is not the last one is over.

        Where none has a number nothing is decided: the sweep ends there, and a retry may still change it.
        """
        halving, rung = self._definition.halving, self._rung
        is_last = rung >= rungs.count_rungs(self._ledger.plan) - 1
        if halving is None or is_last or not self._planner.is_complete() or not self._is_rung_over():
            return
        survivors = self._choose_survivors()
        if not survivors:
            return
        self._ledger.append([RungRow(rung, survivors)])
        self._prune(rung)
        self._outcomes.clear()
        self._next = 0

    def _choose_survivors(self) -> tuple[int, ...]:
        """Returns the suggestions that go on beyond the rung that is under way, all of whose trials are over."""
        if self._definition.halving is None:
            return ()
        metrics: dict[int, float | None] = {}
        for suggestion in rungs.candidates(self._ledger.plan, self._rung):
            if self._is_new(suggestion):
                _, metrics[suggestion] = self._metric_of(suggestion)
        return rungs.choose_survivors(metrics, self._definition.halving.eta)

    def _is_new(self, suggestion: int) -> bool:
        """Whether a suggestion has a trial of its own; one that only repeats others competes with none."""
        return any(row.alias_of is None for row in self._ledger.plan.trials_of(suggestion))

    def _prune(self, rung: int) -> None:
        """Writes the results of the trials that do not go on beyond a rung."""
        plan = self._ledger.plan
        survivors = plan.rungs[rung].suggestions
        for suggestion in rungs.candidates(plan, rung):
            if suggestion in survivors:
                continue
            for row in plan.trials_of(suggestion):
                if row.alias_of is None:
                    self._prune_row(row, rung, survivors)

    def _prune_row(self, row: PlanRow, rung: int, survivors: Sequence[int]) -> None:
        """Writes the result of a trial that does not go on, unless it has one."""
        planned = planned_trial(self._definition, self._out, row)
        if (planned.folder / trials.RESULT).exists() or not row.rungs:
            return
        numbers = trials.read_rung(planned, row.rungs[rung])
        reason = rungs.describe_pruning(self._ledger.plan, rung, row, survivors)
        with files.Lock(planned.folder / trials.LOCK, on_wait=lambda _: None):
            trials.write_result(planned, trials.PRUNED, reason=reason, result=numbers)


def request_cancel(out: Path) -> bool:
    """Asks the process that does a sweep to end; returns whether there is one."""
    if not files.is_locked(out / trials.LOCK):
        return False
    files.write_json(out / CANCEL, files.read_owner(out / trials.LOCK))
    return True


def is_cancelled(out: Path) -> bool:
    """Whether the process that holds a sweep, or held it last, was asked to end."""
    path = out / CANCEL
    return path.exists() and files.read_json(path) == files.read_owner(out / trials.LOCK)
