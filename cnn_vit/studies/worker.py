"""A worker: a process that does the trials which the process of a study gives it, one after another.

    python -m cnn_vit.studies.worker

Its standard input is a pipe in both directions. Over it come JSON objects: of the study, the trials to do and the cores
to do them on; of the worker, how far it is. A worker whose study is gone ends with the trial that it has: what it
learned is not lost, and the next study that is started finds the trial done, or waits for it.
"""

import json
import os
import sys
import traceback
from dataclasses import asdict, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn_vit import stops
from cnn_vit.errors import StoppedError

if TYPE_CHECKING:
    from cnn_vit.studies.trials import DataCache, PlannedTrial
    from cnn_vit.training.run import Display

STANDARD_INPUT = 0  # its descriptor
LITTLE_MEMORY = 2 * 2**30  # bytes: where fewer are free, a worker forgets the programs of the trials before

# The kinds of messages. Of the study:
SETUP = "setup"
DO = "do"
PLAN = "plan"  # several trials: their names, steps and errors
MEASURE = "measure"  # the pace of a trial
# Of the worker:
READY = "ready"  # it waits for a trial
PROGRESS = "progress"  # it has done so many steps of its trial
OVER = "over"  # its trial has a result
PLANNED = "planned"  # it has planned trials
PACE = "pace"  # it has measured the pace of a trial
IN_THE_WAY = "in the way"  # disk, rights or another run keep it from going on


class Pipe:
    """JSON objects over a connection between two processes.

    Args:
        connection: to the other process.
    """

    def __init__(self, connection: Connection):
        self.connection = connection

    def send(self, kind: str, **content: Any) -> None:
        """Sends a message; nothing happens where the other process is gone."""
        try:
            self.connection.send_bytes(json.dumps({"kind": kind, **content}).encode())
        except OSError:
            return

    def receive(self) -> dict[str, Any] | None:
        """Waits for a message and returns it; None where the other process is gone."""
        try:
            return json.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            return None


class LogDisplay:
    """Writes down what a trial has to say, and shows nothing.

    Args:
        log: the file of the trial's sentences.
    """

    def __init__(self, log: Path):
        self._log = log

    def update(self, step: int, *, accuracy: float | None = None) -> None:
        """Shows nothing."""

    def say(self, sentence: str) -> None:
        """Adds a sentence to the log of the trial."""
        from cnn_vit import files

        files.append_line(self._log, {"said": sentence})

    def close(self) -> None:
        """Nothing is to be given back."""


class TrialDisplay(LogDisplay):
    """Tells the study how far a trial is, and writes down what it has to say.

    Args:
        pipe: to the study.
        log: the file of the trial's sentences.
    """

    def __init__(self, pipe: Pipe, log: Path):
        super().__init__(log)
        self._pipe = pipe

    def update(self, step: int, *, accuracy: float | None = None) -> None:
        """Sends the number of steps done."""
        self._pipe.send(PROGRESS, step=step)


def take_pipe() -> Pipe:
    """Takes the pipe to the study off the standard input, which is empty from then on.

    The programs that a trial starts inherit its standard input: with the pipe in it, one that outlives the worker would
    hide the worker's end from the study; and a function that asks for input would read messages of the study.
    """
    connection = Connection(os.dup(STANDARD_INPUT))  # the new descriptor is closed in programs that are started
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, STANDARD_INPUT)
    os.close(nothing)
    return Pipe(connection)


def main() -> int:
    """Does trials until there are no more; returns the exit code."""
    pipe = take_pipe()
    setup = pipe.receive()
    if setup is None:
        return 0
    from cnn_vit import process
    from cnn_vit.files import cache

    process.compute_on(setup["cores"])  # before any library counts them
    process.prepare()
    cache.configure(**process.cache_environment())
    with stops.handle_signals(owns_process=True):
        try:
            work(pipe, is_alone=setup["is_alone"], is_isolated=setup["is_isolated"], keep=setup["keep"])
        except StoppedError as error:
            stops.end_command(error.code)
            return error.code
        stops.end_command(0)
    return 0


def work(pipe: Pipe, *, is_alone: bool, is_isolated: bool, keep: str) -> None:
    """Takes one trial after another and does it.

    Args:
        pipe: to the study.
        is_alone: whether there is no other worker.
        is_isolated: whether the process ends after one trial.
        keep: which checkpoints of a finished trial stay, "best" or "all".
    """
    # All is imported before the worker says that it is ready: what fails here is no fault of a trial's.
    import jax

    from cnn_vit.studies import tasks, trials  # noqa: F401

    if not is_alone and jax.default_backend() != "cpu" and jax.local_device_count() > 1:  # it was to see one alone
        pipe.send(IN_THE_WAY, sentence="several workers would share accelerators; leave --workers out")
        return
    cache = trials.DataCache()
    while True:
        pipe.send(READY)
        message = pipe.receive()
        if message is None:
            return
        if message["kind"] == PLAN:
            send_plan(pipe, message, cache)
            continue
        planned = trials.from_json(message["trial"])
        if message["kind"] == MEASURE:
            send_pace(pipe, planned, cache)
            continue
        try:
            with stops.saying(stops.STOPPED):  # a run that failed leaves behind that there was a step to finish
                do_trial(planned, cache, TrialDisplay(pipe, planned.folder / trials.LOG), keep=keep)
        except ObstacleError as obstacle:
            pipe.send(IN_THE_WAY, id=planned.id, sentence=str(obstacle))
        else:
            pipe.send(OVER, id=planned.id)
        if is_isolated:
            return
        forget_programs()


def forget_programs() -> None:
    """Drops the compiled programs of earlier trials where memory is short: many of them take some GB.

    The next trials compile theirs anew, or read them from the cache on the disk.
    """
    from cnn_vit import process
    from cnn_vit.training import caches

    free = process.free_memory()
    if free is not None and free < LITTLE_MEMORY:
        caches.clear_compiled()
        process.release_free_pages()


def send_pace(pipe: Pipe, planned: "PlannedTrial", cache: "DataCache") -> None:
    """Measures what a trial takes and sends it, or the sentence that says why it cannot be measured."""
    from cnn_vit.studies import tasks, trials

    try:
        if planned.settings is None and not planned.error:
            planned = trials.plan_again(planned, cache)
        pace = tasks.measure_trial(planned, cache)
    except StoppedError:
        raise
    except Exception as error:
        is_of_trial = tasks.state_of_error(error) is not None
        pipe.send(IN_THE_WAY, sentence=tasks.reason_of_error(error), is_of_trial=is_of_trial)
    else:
        pipe.send(PACE, **asdict(pace))


def send_plan(pipe: Pipe, message: dict[str, Any], cache: "DataCache") -> None:
    """Plans trials and sends what was found; or the sentence that says what keeps them from being planned."""
    from cnn_vit.errors import SurroundingsError
    from cnn_vit.studies import trials

    answers = []
    try:
        for words in message["trials"]:
            stops.raise_if_requested()
            planned = trials.plan_trial(trials.trial_from_json(words), Path(message["out"]), cache)
            rungs: tuple[int, ...] = ()
            if message["first_rung"] and planned.settings is not None:
                planned, rungs = plan_rungs(planned, cache, message["first_rung"], message["eta"])
            answers.append({**trials.to_json(planned), "settings": None, "rungs": rungs})
    except SurroundingsError as error:
        pipe.send(IN_THE_WAY, sentence=str(error))
    else:
        pipe.send(PLANNED, trials=answers)


def plan_rungs(
    planned: "PlannedTrial", cache: "DataCache", first: str, eta: int
) -> "tuple[PlannedTrial, tuple[int, ...]]":
    """Returns the steps at which the rungs of a trial end; a trial that cannot have them gets an error."""
    from cnn_vit.errors import UserError
    from cnn_vit.training import plan

    settings = planned.settings
    if settings is None:
        return planned, ()
    examples = len(cache.load(settings.section("data")).splits["train"])
    try:
        return planned, plan.rung_steps(settings, examples=examples, first=first, eta=eta)
    except UserError as error:
        return replace(planned, settings=None, error=str(error)), ()


class ObstacleError(Exception):
    """Something keeps a trial from being done that is no fault of its own; it is tried again another time."""


def do_trial(planned: "PlannedTrial", cache: "DataCache", display: "Display", *, keep: str) -> None:
    """Does a trial and writes its result, unless it has one; whoever does it already is waited for.

    Args:
        planned: the trial.
        cache: of the data sets of this process.
        display: shows how far it is.
        keep: which checkpoints stay, "best" or "all".

    Raises:
        ObstacleError: disk, rights or another run are in the way.
        StoppedError: a signal asked to stop.
    """
    from cnn_vit import files
    from cnn_vit.errors import SurroundingsError
    from cnn_vit.studies import tasks, trials

    try:
        with files.Lock(planned.folder / trials.LOCK, on_wait=display.say):
            if trials.is_over(planned):
                return
            if planned.settings is None and not planned.error and planned.trial.task != trials.OBJECTIVE:
                planned = trials.plan_again(planned, cache)
            trials.note_start(planned)
            try:
                result = tasks.do_task(planned, cache, display)
                if tasks.is_waiting(result):
                    trials.write_rung(planned, result)
                    trials.note_stop(planned)
                    return
                tasks.drop_checkpoints(planned, result, keep=keep)
                trials.write_result(planned, trials.COMPLETE, result=result)
            except StoppedError:
                trials.note_stop(planned)
                raise
            except (Exception, SystemExit) as error:  # to end the process is not for a trial to decide
                state = tasks.state_of_error(error)
                if state is None:
                    trials.note_stop(planned)
                    raise ObstacleError(str(error)) from error
                if state == trials.CRASHED:
                    display.say(traceback.format_exc())
                trials.write_result(planned, state, reason=tasks.reason_of_error(error))
    except SurroundingsError as error:
        raise ObstacleError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
