"""A sweep: many points of a space of settings, each trained once, and a table that says which is best and how sure.

Read `run_sweep`. A definition (`sweeping/definition.py`) says what varies; the plan (`sweeping/ledger.py`) says which
trials that makes; workers, or a cluster, do them; what they found is read from their folders (`sweeping/outcome.py`):

    OUT/space.json     what is swept
    OUT/plan.jsonl     the trials, a line each
    OUT/trials/ID/     the trials; each is done once, however often the command is given
    OUT/results.csv    a row for each trial, without any time: the same bytes whenever it is made
    OUT/timing.csv     the times of the trials
    OUT/report.html    the page

No trial reads the test split.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnn_vit import files, process, stops
from cnn_vit.errors import SurroundingsError, UserError, unknown
from cnn_vit.reports.sweep_facts import SweepFacts, leaderboard
from cnn_vit.runs import journal
from cnn_vit.studies import objectives, trials, workers
from cnn_vit.studies.sweeping import claims, outcome
from cnn_vit.studies.sweeping import definition as definitions
from cnn_vit.studies.sweeping.definition import SweepDefinition
from cnn_vit.studies.sweeping.ledger import Ledger
from cnn_vit.studies.sweeping.planner import Planner, PlanningProcess, refuse_changed
from cnn_vit.studies.sweeping.samplers import SAMPLERS
from cnn_vit.studies.sweeping.scheduler import AHEAD, CANCEL, Supply, is_cancelled
from cnn_vit.studies.trials import DataCache, PlannedTrial
from cnn_vit.studies.worker import LogDisplay, ObstacleError, do_trial
from cnn_vit.studies.workers import Study, StudyOptions

HOUR = 3600.0  # seconds
PAGE_COMMAND = (sys.executable, "-m", "cnn_vit.studies.sweeping.page_process")
# Trials in these states are done again by the same command; the others that have failed would fail again.
RETRIED = (trials.CRASHED, trials.OUT_OF_MEMORY)


@dataclass(frozen=True)
class SweepOptions:
    """How the trials of a sweep are done. None of it changes a number.

    Attributes:
        workers: processes that work at the same time; None as the definition says.
        keep: which checkpoints of finished trials stay, "best" or "all".
        is_isolated: whether each trial gets a process of its own.
        hours: after which the sweep ends, with all saved that it has learned; None for no limit.
        slurm: options for `sbatch`, "--partition=gpu --time=2:00:00", where a cluster does the trials; None for here.
        retries: states of trials that are over and are done again, beside RETRIED.
    """

    workers: int | None = None
    keep: str = "best"
    is_isolated: bool = False
    hours: float | None = None
    slurm: str | None = None
    retries: tuple[str, ...] = ()


def sweep(
    settings: str | os.PathLike | Callable[..., Any],
    space: Mapping[str, Any] | None = None,
    *,
    out: str | os.PathLike,
    sampler: str | None = None,
    trials: int | None = None,
    hours: float | None = None,
    retries: Sequence[str] = (),
    **changes: Any,
) -> dict[str, Any]:
    """Does a sweep, or goes on with one that was stopped; writes its page and tables.

    Args:
        settings: a recipe, "configs/digits_cnn.py"; a sweep's own file, "configs/sweeps/NAME.toml"; or an objective of
            one's own, "FILE.py:NAME" or a function: it takes the values of a point as a dict, and returns a number.
            Where it asks for them it also gets `seed=`, and `folder=`, which it may write into.
        space: what varies, by setting: a list of choices, or {"log": (1e-4, 1e-1)}, {"uniform": (0, 0.5)},
            {"int": (2, 8)}, {"choice": [...]}, each with `steps` for a grid and `when` for conditions; None where the
            file says so.
        out: the folder of the sweep.
        sampler: "grid", "random", "sobol", "halton" or "tpe"; None as the file says, else random where `trials` is
            given, and grid where it is not.
        trials: number of points; None for all points of a grid, or as the file says.
        hours: after which the sweep ends; the same call goes on.
        retries: states of trials that are done again, such as "diverged".
        **changes: what else a definition has: seeds, seed, metric, mode, workers, threads, lag, halving, overrides,
            max_failures.

    Returns:
        `rows` (a dict for each trial, for `pandas.DataFrame`), `best` (values, estimate, low and high of the best
        point; None without one), counts (trials by state), report and results (paths).

    Raises:
        UserError: the definition is wrong, or the folder belongs to another one.
        SurroundingsError: the folder cannot be written, or another process works in it.
        StoppedError: a signal asked to stop; the same call goes on.
    """
    if not os.fspath(out):
        raise UserError("out is empty; give the folder of the sweep, such as out='runs/NAME'")
    definition = definitions.from_call(settings, space, sampler=sampler, trials=trials, **changes)
    facts = run_sweep(definition, Path(out), SweepOptions(hours=hours, retries=tuple(retries)))
    return summarize(facts)


def summarize(facts: SweepFacts) -> dict[str, Any]:
    """Returns a sweep as plain values: see `sweep`."""
    rows = []
    counts: dict[str, int] = {}
    for trial in facts.trials:
        counts[trial.state] = counts.get(trial.state, 0) + 1
        row = {"row": trial.row, "suggestion": trial.suggestion, "seed": trial.seed, "id": trial.id}
        row |= {"state": trial.state, "alias_of": trial.alias_of, facts.metric: trial.metric, "steps": trial.steps}
        rows.append({**row, **trial.values, "reason": trial.reason})
    best = None
    leaders = [leader for leader in leaderboard(facts) if leader.is_whole]
    if leaders:
        leader = leaders[0]
        best = {
            "suggestion": leader.suggestion,
            "values": dict(leader.values),
            "estimate": leader.estimate,
            "low": leader.low,
            "high": leader.high,
            "basis": leader.basis,
        }
    return {
        "metric": facts.metric,
        "mode": facts.mode,
        "planned": facts.planned,
        "counts": counts,
        "best": best,
        "rows": rows,
        "report": str(facts.out / outcome.PAGE),
        "results": str(facts.out / outcome.RESULTS),
    }


def run_sweep(definition: SweepDefinition, out: Path, options: SweepOptions) -> SweepFacts:
    """Does a sweep as `sweep` does, and returns what is known of it then."""
    number = definition.workers if options.workers is None else options.workers
    refuse_wrong_options(definition, number, options)
    study_options = StudyOptions(
        workers=number,
        threads=definition.threads,
        is_isolated=options.is_isolated,
        retries=(*RETRIED, *options.retries),
        keep=options.keep,
    )
    if not (out / definitions.SPACE).exists():
        claims.refuse_other_folder(out)  # before anything is written there
    is_here = objectives.is_function_here(definition.objective)
    ahead: int | None = max(AHEAD, 2 * number)
    if options.slurm is not None:
        ahead = None
    elif is_here:
        ahead = 1  # its result may end the sweep
    # A second Ctrl-C would end the process, which may be a notebook with more in it than the sweep.
    with workers.locked(out), stops.handle_signals(heeds_second=not is_here) as stop, stop.saying(workers.STOPPED):
        if (out / CANCEL).exists() and not is_cancelled(out):
            files.remove(out / CANCEL)  # it was meant for an earlier process
        definition = claims.claim_sweep(out, definition)
        ledger = Ledger(out)
        refuse_changed(definition, out, ledger.plan)
        planning = PlanningProcess(definition, out, study_options, stop)
        supply = Supply(
            definition,
            out,
            ledger,
            Planner(definition, ledger, planning, plans_again=trials.BAD_CONFIG in options.retries),
            study_options,
            ahead=ahead,
            deadline=None if options.hours is None else journal.now() + HOUR * options.hours,
        )
        try:
            reason = do_trials(definition, supply, planning, out, study_options, options, stop)
            reason = reason or supply.describe_dead_end()
        finally:
            planning.close()
            files.remove(out / CANCEL)
        return write_outcome(out, reason, is_here=is_here)


def do_trials(
    definition: SweepDefinition,
    supply: Supply,
    planning: PlanningProcess,
    out: Path,
    study_options: StudyOptions,
    options: SweepOptions,
    stop: stops.StopSignals,
) -> str:
    """Does the trials of a sweep where they are to be done; returns why it ended before all were, or ""."""
    if options.slurm is not None:
        from cnn_vit.studies.sweeping import slurm

        supply.plan()
        if supply.is_planned():
            planning.close()  # it would keep its memory for as long as SLURM works
        return slurm.run(supply, out, options.slurm, study_options, stop, most=options.workers)
    if objectives.is_function_here(definition.objective):
        return do_here(supply, stop)
    supply.plan()
    ready = planning.hand_over() if supply.is_planned() else []
    study = Study(supply, out, study_options, stop, workers=ready)
    for sentence in supply.describe_errors():
        study.progress.say(sentence)
    return study.run()


def do_here(supply: Supply, stop: stops.StopSignals) -> str:
    """Does trials in this process, one after another: those of a function that no other one can call."""
    cache = DataCache()
    while True:
        queue = supply.take()
        if not queue and supply.is_exhausted():
            return ""
        for planned in queue:
            stop.raise_if_requested()
            reason = supply.reason_to_end()
            if reason:
                return reason
            if record_deaths(planned):
                continue
            try:
                do_trial(planned, cache, LogDisplay(planned.folder / trials.LOG), keep="all")
            except ObstacleError as obstacle:
                raise SurroundingsError(str(obstacle)) from obstacle


def record_deaths(planned: PlannedTrial) -> bool:
    """Writes that a trial crashes, and returns so, where processes like this one died too often while they did it."""
    if trials.count_deaths(planned) < workers.MOST_DEATHS:
        return False
    reason = f"the process that did it ended {workers.MOST_DEATHS} times before it had a result"
    with files.Lock(planned.folder / trials.LOCK):
        trials.write_result(planned, trials.CRASHED, reason=reason)
    return True


def refuse_wrong_options(definition: SweepDefinition, number: int, options: SweepOptions) -> None:
    """Raises UserError for options that mean nothing, or that the definition does not go with."""
    if number < 1:
        raise UserError(f"workers={number} do nothing; make it at least 1")
    if options.keep not in ("best", "all"):
        raise UserError(f"keep is {options.keep}; it takes best or all")
    if options.hours is not None and not options.hours > 0:
        raise UserError(f"hours={options.hours} do nothing; make it more than 0")
    for state in options.retries:
        if state not in trials.RETRIABLE:
            raise unknown("state of a trial that is done again", state, trials.RETRIABLE)
    if options.slurm is not None:
        refuse_wrong_slurm(definition, options.slurm)
    if SAMPLERS[definition.sampler].is_adaptive and number > definition.lag:
        raise UserError(
            f"workers={number} are more than lag={definition.lag}: a point of {definition.sampler} waits for the "
            "results of all but so many before it; make workers at most that, or start a sweep with a larger lag"
        )


def refuse_wrong_slurm(definition: SweepDefinition, text: str) -> None:
    """Raises UserError where SLURM cannot do the trials, before any is planned."""
    from cnn_vit.studies.sweeping import slurm

    slurm.read_options(text)
    if objectives.is_function_here(definition.objective):
        raise UserError(
            "a function of this process cannot be called by a task at SLURM; write it into a file and give FILE.py:NAME"
        )


def write_outcome(out: Path, reason: str, *, is_here: bool) -> SweepFacts:
    """Reads what is known of a sweep, writes its tables and its page, and returns it.

    Args:
        out: the folder of the sweep.
        reason: why it ended before all was done; "" where all is.
        is_here: whether this process did the trials, and makes the page, too.
    """
    facts = outcome.read_sweep(out)
    if reason:
        facts = outcome.add_reason(facts, reason)
    is_page_old = outcome.write_tables(facts) or not (out / outcome.PAGE).exists()
    if is_page_old and not is_here:
        is_page_old = not is_page_written_elsewhere(out, reason)
    if is_page_old:  # also one that another process could not write, for the sentence that says why
        write_page(facts)
    return facts


def is_page_written_elsewhere(out: Path, reason: str) -> bool:
    """Lets another process write the page, whose plots and forest take more memory than all else here.

    Returns:
        Whether it did.
    """
    words = [str(out), reason] if reason else [str(out)]
    environment = process.child_environment({})
    return subprocess.run([*PAGE_COMMAND, *words], capture_output=True, check=False, env=environment).returncode == 0


def write_page(facts: SweepFacts) -> Path:
    """Writes the page of a sweep and returns it.

    Raises:
        SurroundingsError: it cannot be written.
    """
    from cnn_vit.reports import sweep_page  # with its plots, heavy to import

    path = facts.out / outcome.PAGE
    sweep_page.write(path, facts)
    return path
