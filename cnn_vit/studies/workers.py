"""Does the trials of a study in worker processes: each exactly once, whatever dies on the way.

Read `run_trials`. The process of the study holds the lock of the study's folder, plans, and hands out trials; workers
(`worker.py`) hold the locks of their trials, do them, and write results. Nobody keeps a list of what is done: after any
kill the same call finds in the folders what is left.
"""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Protocol

from cnn_vit import files, process, stops
from cnn_vit.errors import StoppedError, SurroundingsError, UserError, on_one_line
from cnn_vit.studies import trials
from cnn_vit.studies.trials import PlannedTrial, TrialRecord
from cnn_vit.studies.worker import DO, IN_THE_WAY, MEASURE, OVER, PROGRESS, READY, SETUP, Pipe
from cnn_vit.training.progress import Progress

LOCK_TITLE = "cnn-vit study"
WORKERS = "workers"  # the folder of a study that the logs of its workers lie in
MOST_DEATHS = 3  # of a trial that does not get further
MOST_EARLY_DEATHS = 10  # of workers by a signal before they are ready, one after another
LOOK_EVERY = 0.2  # seconds between two looks at the signals
WORKER_COMMAND = (sys.executable, "-m", "cnn_vit.studies.worker")
DEVICES_COMMAND = (sys.executable, "-c", "import jax; print(jax.default_backend(), jax.local_device_count())")
PATIENCE_FOR_DEVICES = 120  # seconds
MOST_LOOKS_AT_GROUP = 50  # a hundredth of a second apart: what a worker has left behind is killed by then
STOPPED = "stopped by {}; the same command goes on with the trials that are left"


@dataclass(frozen=True)
class StudyOptions:
    """How the trials of a study are done. None of it changes a number but `threads`.

    Attributes:
        workers: processes that work at the same time.
        threads: cores that one trial computes on; sums of floats depend on it, so that it belongs to the study.
        is_isolated: whether each trial gets a process of its own.
        retries: states of trials that are over and are done again all the same.
        keep: which checkpoints of a finished trial stay: "best", or "all".
    """

    workers: int = 1
    threads: int = 1
    is_isolated: bool = False
    retries: tuple[str, ...] = ()
    keep: str = "best"


class Supply(Protocol):
    """Where a study takes its trials from, while it does them."""

    def take(self) -> list[PlannedTrial]:
        """Returns the trials that may be done now and were not returned before; they have no result yet."""

    def is_exhausted(self) -> bool:
        """Whether there are no more trials, now that none is under way."""

    def reason_to_end(self) -> str:
        """Says why no more trials are to be done, though there are some; "" where they are to be done."""

    def count_steps(self) -> tuple[int, int]:
        """Returns the steps of the trials that are over, and of all, as far as that is known."""


class FixedSupply:
    """A list of trials, all of which may be done at once.

    Args:
        left: the trials of the study that have no result.
        steps: of all its trials together.
    """

    def __init__(self, left: Sequence[PlannedTrial], steps: int):
        self._left = list(left)
        self._given: list[PlannedTrial] = []
        self._steps = steps
        self._steps_before = steps - sum(planned.steps for planned in left)

    def take(self) -> list[PlannedTrial]:
        """Returns all trials, the first time."""
        taken, self._left = self._left, []
        self._given += taken
        return taken

    def is_exhausted(self) -> bool:
        """Whether the trials were taken."""
        return not self._left

    def reason_to_end(self) -> str:
        """There is none."""
        return ""

    def count_steps(self) -> tuple[int, int]:
        """Returns the steps of the trials that are over, and of all."""
        over = sum(planned.steps for planned in self._given if trials.is_over(planned))
        return self._steps_before + over, self._steps


class Worker:
    """A worker process, and the trial that it has.

    Args:
        place: its number among those that work at the same time, from 0.
        log: the file that its stdout and stderr go to.
        options: of the study.
        variables: of its environment that differ from those of this process.

    Raises:
        SurroundingsError: the log cannot be written, or no process can be started.

    Attributes:
        place, log: the arguments.
        pipe: to the process.
        trial: that it has; None where it waits for one.
        step: how many steps of it are done.
        is_ready: whether it waits for a trial.
        was_ready: whether it ever did.
    """

    def __init__(self, place: int, log: Path, options: StudyOptions, variables: Mapping[str, str]):
        cores = choose_cores(place, options.threads)
        ours, theirs = multiprocessing.Pipe()
        with theirs, files.appending(log) as stream:
            try:
                self.process = subprocess.Popen(
                    WORKER_COMMAND,
                    stdin=theirs.fileno(),
                    stdout=stream,
                    stderr=stream,
                    env=process.child_environment(variables),
                    # A session of its own: Ctrl-C in the terminal stops the study, which then stops its workers.
                    start_new_session=True,
                )
            except OSError as error:
                raise SurroundingsError(
                    f"no worker can be started: {error.strerror}; end other processes or raise the limits, then give "
                    "the same command again"
                ) from error
        self.pipe = Pipe(ours)
        self.place, self.log = place, log
        self.trial: PlannedTrial | None = None
        self.step = 0
        self.is_ready = self.was_ready = False
        is_alone = options.workers == 1
        self.pipe.send(SETUP, cores=cores, is_alone=is_alone, is_isolated=options.is_isolated, keep=options.keep)

    def give(self, planned: PlannedTrial) -> None:
        """Gives the worker a trial to do."""
        self.trial, self.step, self.is_ready = planned, 0, False
        self.pipe.send(DO, trial=trials.to_json(planned))

    def stop(self) -> None:
        """Asks the process to end; where it has a trial, it saves what that has learned."""
        self.pipe.connection.close()
        if self.trial is not None:
            os.kill(self.process.pid, signal.SIGTERM)  # nothing happens where the process is gone

    def has_ended(self) -> bool:
        """Whether the process is gone. It is not waited for here, so that its number stays its own until `end`."""
        if self.process.returncode is not None:
            return True
        return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None

    def end(self) -> int:
        """Waits for the end of the process; returns its exit code, negative for a signal.

        What its trials have started and left behind is killed: a forked process would keep the lock of the trial.
        """
        if not self.pipe.connection.closed:
            self.pipe.connection.close()
        if self.process.returncode is None:  # from then on its number may be that of another process
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
            os.killpg(self.process.pid, signal.SIGKILL)
        code = self.process.wait()
        for _ in range(MOST_LOOKS_AT_GROUP):  # a kill takes a moment, and a lock is held until then
            try:
                os.killpg(self.process.pid, 0)  # sends nothing; it fails once nobody is there
            except OSError:
                break
            time.sleep(0.01)
        return code


def run_trials(planned: Sequence[PlannedTrial], out: Path, options: StudyOptions) -> list[TrialRecord]:
    """Does the trials that have no result yet, and returns what is known of all, in their order.

    Args:
        planned: the trials, by `trials.plan_trials`.
        out: the folder of the study.
        options: how they are done.

    Raises:
        SurroundingsError: the folder cannot be written, another process does its trials, or something else than the
            trials is in the way, such as a full disk.
        StoppedError: a signal asked to stop; all trials are saved as far as they are.
    """
    with locked(out):
        return do_trials(planned, out, options)


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keeps the folder of a study for this process.

    Raises:
        SurroundingsError: it cannot be written, or another process does its trials.
    """
    files.ensure_writable(out)
    with files.Lock(out / trials.LOCK, title=LOCK_TITLE):
        yield


def do_trials(planned: Sequence[PlannedTrial], out: Path, options: StudyOptions) -> list[TrialRecord]:
    """Does what `run_trials` does in a folder that is `locked`."""
    with stops.handle_signals() as stop, stop.saying(STOPPED):
        for one in planned:
            prepare_folder(one, options)
        left = [one for one in planned if not (one.folder / trials.RESULT).exists()]
        if left:
            Study(FixedSupply(left, sum(one.steps for one in planned)), out, options, stop).run()
        return [trials.read_record(one) for one in planned]


def measure_paces(planned: Sequence[PlannedTrial], out: Path, options: StudyOptions) -> list[float]:
    """Lets a worker measure how many CPU-seconds a training step of each trial takes; no trial is done.

    Args:
        planned: trials that train.
        out: the folder of the study, which this process has locked; the log of the worker goes there.
        options: how the trials will be done.

    Raises:
        UserError: the pace of a trial cannot be measured, for a reason of its own.
        SurroundingsError: the worker died, or disk or rights are in the way.
        StoppedError: a signal asked to stop.
    """
    if not planned:
        return []
    paces: list[float] = []
    with stops.handle_signals() as stop:
        worker = Worker(0, out / WORKERS / "pace.log", replace(options, workers=1), choose_accelerators(1)[0])
        try:
            for one in planned:
                paces.append(ask_pace(worker, one, stop, remedy="mend that, or give the budget in steps")["step_cpu"])
        finally:
            worker.process.kill()  # it has nothing to save
            worker.end()
    return paces


def ask_pace(worker: Worker, planned: PlannedTrial, stop: stops.StopSignals, *, remedy: str) -> dict[str, Any]:
    """Lets a worker measure what a trial takes; returns the attributes of `tasks.TrialPace` by name.

    Args:
        worker: the process.
        planned: the trial.
        stop: the signals of this process.
        remedy: what to do where the trial cannot be measured, the end of a sentence.

    Raises:
        UserError: it cannot be measured, for a reason of its own.
        SurroundingsError: the worker died, or disk or rights are in the way.
        StoppedError: a signal asked to stop.
    """
    worker.pipe.send(MEASURE, trial=trials.to_json(planned))
    message: dict[str, Any] = {"kind": READY}
    while message["kind"] == READY:
        message = wait_for_message(worker, stop)
    if message["kind"] == IN_THE_WAY:
        sentence = f"{trials.describe(planned.trial)} cannot be measured: {message['sentence']}"
        if message["is_of_trial"]:
            raise UserError(f"{sentence}; {remedy}")
        raise SurroundingsError(sentence)
    return message


def wait_for_message(worker: Worker, stop: stops.StopSignals) -> dict[str, Any]:
    """Waits for the next message of a worker.

    Raises:
        SurroundingsError: the worker died.
        StoppedError: a signal asked to stop.
    """
    message = receive(worker, stop)
    if message is None:
        raise SurroundingsError(f"a worker {describe_exit(worker.end())} while it measured; {worker.log} says more")
    return message


def receive(worker: Worker, stop: stops.StopSignals) -> dict[str, Any] | None:
    """Waits for the next message of a worker and returns it; None where the worker is gone.

    Raises:
        StoppedError: a signal asked to stop.
    """
    while True:
        has_ended = worker.has_ended()  # a process that it has forked may keep the pipe open
        if wait([worker.pipe.connection], timeout=0 if has_ended else LOOK_EVERY):
            break
        if has_ended:
            return None
        stop.raise_if_requested()
    return worker.pipe.receive()


def prepare_folder(planned: PlannedTrial, options: StudyOptions) -> None:
    """Writes what a trial is; records one that cannot be, and forgets the failure of one that is to be done again."""
    if is_settled(planned, options) or not is_free(planned):  # else an orphan of an earlier start is at work
        return
    with files.Lock(planned.folder / trials.LOCK, on_wait=lambda _: None):
        record = trials.read_record(planned)
        if record.state in options.retries:
            trials.forget(planned)
        if not (planned.folder / trials.TRIAL).exists():
            trials.describe_trial(planned)
        if planned.error and record.reason != planned.error:  # a mistake may have become another one
            trials.write_result(planned, trials.BAD_CONFIG, reason=planned.error)


def is_settled(planned: PlannedTrial, options: StudyOptions) -> bool:
    """Whether a trial is over and nothing is to be written of it, which is seen without its lock.

    Taking a thousand locks, each of which writes its owner's name, takes seconds.
    """
    if not (planned.folder / trials.RESULT).exists() or not (planned.folder / trials.TRIAL).exists():
        return False
    record = trials.read_record(planned)
    return record.state not in options.retries and planned.error in ("", record.reason)


def is_free(planned: PlannedTrial) -> bool:
    """Whether no process works on a trial."""
    return not files.is_locked(planned.folder / trials.LOCK)


class Study:
    """The trials of a study that are left, and the workers that do them.

    Args:
        supply: gives the trials.
        out: the folder of the study.
        options: how they are done.
        stop: the signals of this process.
        workers: those that run already, at most as many as `options` asks for.
    """

    def __init__(
        self,
        supply: Supply,
        out: Path,
        options: StudyOptions,
        stop: stops.StopSignals,
        workers: Sequence[Worker] = (),
    ):
        self.supply = supply
        self.queue: list[PlannedTrial] = []
        self.out, self.options, self.stop = out, options, stop
        self._variables: list[dict[str, str]] | None = None
        self.workers = list(workers)
        self.obstacle = ""
        self.early_deaths = 0  # of workers that were not ready yet, one after another
        self.steps_over, steps = supply.count_steps()
        self.steps_at_start = self.steps_over
        self.progress = Progress(steps, step=self.steps_over, batch_size=None)

    def run(self) -> str:
        """Does the trials; returns "" once all are over, or the supply's reason to end before.

        Raises:
            SurroundingsError: something else than the trials is in the way.
            StoppedError: a signal asked to stop.
        """
        self.stop.begin_training()  # from here on this loop looks at the signals by itself
        try:
            while True:
                self.queue += self.supply.take()
                if not self.queue and not self.has_trials() and self.supply.is_exhausted():
                    self.show_end()
                    return ""
                self.start_workers()
                self.hear()
                if self.stop.requested is not None:
                    raise self.stopped_error()
                if self.obstacle:
                    raise SurroundingsError(self.obstacle)
                reason = self.supply.reason_to_end()
                if reason:
                    return reason
        finally:
            self.end_workers()
            self.progress.close()

    def show_end(self) -> None:
        """Shows that all is done: the trials that ended last are counted by now."""
        steps, _ = self.supply.count_steps()
        if steps == self.steps_at_start:
            return
        self.progress.set_total(steps)  # trials that were given up made it fewer than was expected
        self.progress.update(steps)

    @property
    def variables(self) -> list[dict[str, str]]:
        """The variables of each worker, which another process may have to find out: not before one is to start."""
        if self._variables is None:
            self._variables = choose_accelerators(self.options.workers)
        return self._variables

    def has_trials(self) -> bool:
        """Whether a worker is at work."""
        return any(worker.trial for worker in self.workers)

    def stopped_error(self) -> StoppedError:
        """Makes the error of a study that was asked to stop."""
        error = self.stop.stopped_error(0)
        return StoppedError(error.signal, STOPPED.format(error.signal.name))

    def start_workers(self) -> None:
        """Starts workers as far as there are trials for them, and gives trials to those that wait."""
        waiting = [worker for worker in self.workers if worker.trial is None]
        taken = {worker.place for worker in self.workers}
        for place in range(self.options.workers):
            if place not in taken and len(waiting) < len(self.queue):
                worker = Worker(place, self.out / WORKERS / f"{place}.log", self.options, self.variables[place])
                self.workers.append(worker)
                waiting.append(worker)
        for worker in waiting:
            if worker.is_ready and self.queue:
                # A trial that an orphan of an earlier start is doing comes last: the worker that gets it has to wait.
                self.queue.sort(key=lambda one: not is_free(one))
                planned = self.queue.pop(0)
                if not is_free(planned):
                    self.progress.say(f"{trials.describe(planned.trial)} is under way from an earlier start; waiting")
                worker.give(planned)

    def hear(self) -> None:
        """Waits for messages of the workers, a little while at most, and does what they ask for."""
        by_connection = {worker.pipe.connection: worker for worker in self.workers}
        ended = [worker for worker in self.workers if worker.has_ended()]
        for connection in wait(list(by_connection), timeout=LOOK_EVERY):
            worker = by_connection[connection]  # type: ignore[index]  # `wait` returns what it was given
            message = worker.pipe.receive()
            if message is None:
                self.bury(worker)
            elif message["kind"] == READY:
                worker.is_ready = worker.was_ready = True
                self.early_deaths = 0
            elif message["kind"] == PROGRESS:
                worker.step = message["step"]
            elif message["kind"] == IN_THE_WAY:
                self.obstacle = message["sentence"]
                worker.trial = None
            elif message["kind"] == OVER:
                self.finish(worker)
        for worker in ended:
            # A process that it has forked may keep the pipe open, so that it never says that the worker is gone.
            if worker in self.workers and not worker.pipe.connection.poll():
                self.bury(worker)
        self.progress.update(self.steps_over + sum(worker.step for worker in self.workers if worker.trial))

    def finish(self, worker: Worker) -> None:
        """Takes note of a trial that has a result."""
        planned, worker.trial = worker.trial, None
        if planned is None:
            return
        self.steps_over, _ = self.supply.count_steps()
        if not trials.is_over(planned):
            self.obstacle = f"{trials.describe(planned.trial)} was done, and {planned.folder} holds no result of it"
        elif (planned.folder / trials.RESULT).exists():
            self.progress.say(describe_end(trials.read_record(planned)))

    def bury(self, worker: Worker) -> None:
        """Takes note of a worker that is gone; a trial that it leaves behind goes back to the others."""
        code = worker.end()
        self.workers.remove(worker)
        planned = worker.trial
        if not worker.was_ready:
            self.early_deaths += 1
            if code >= 0 or self.early_deaths >= MOST_EARLY_DEATHS:  # a signal may come from outside
                self.obstacle = f"a worker {describe_exit(code)} before it could begin; {worker.log} says more"
        if planned is None:
            return
        self.record_death(planned, code)
        if trials.is_over(planned):  # it died between the result and the message, or for good
            self.finish(worker)
            return
        self.progress.say(f"the process of {trials.describe(planned.trial)} {describe_exit(code)}; it is done again")
        self.queue.insert(0, planned)

    def record_death(self, planned: PlannedTrial, code: int) -> None:
        """Writes that a trial crashes, where it has died too often and nobody else is at work on it."""
        if not is_free(planned):
            return  # an orphan has it: the last start that was noted is that one's
        with files.Lock(planned.folder / trials.LOCK, on_wait=self.progress.say):
            has_result = (planned.folder / trials.RESULT).exists()
            if not has_result and trials.count_deaths(planned) >= MOST_DEATHS:
                reason = f"its process {describe_exit(code)}, {MOST_DEATHS} times without getting further"
                trials.write_result(planned, trials.CRASHED, reason=reason)

    def end_workers(self) -> None:
        """Ends all workers; those that train save what they have learned."""
        for worker in self.workers:
            worker.stop()
        for worker in self.workers:
            worker.end()
            if worker.trial is not None and is_free(worker.trial):
                trials.note_stop(worker.trial)  # of one that could not note it in time, such as while it compiled


def choose_cores(place: int, threads: int) -> list[int]:
    """Returns the cores that a worker computes on: as many as a trial has threads, others for each worker if there are.

    Args:
        place: the number of the worker, from 0.
        threads: cores of a trial.

    Raises:
        UserError: there are not so many cores.
    """
    cores = process.usable_cores()
    if threads > len(cores):
        raise UserError(f"threads={threads} are more than the {len(cores)} cores of this machine; make it at most that")
    first = place * threads % len(cores)
    return [cores[(first + number) % len(cores)] for number in range(threads)]


def choose_accelerators(workers: int) -> list[dict[str, str]]:
    """Returns the variables by which each worker sees a GPU of its own; on a CPU they say nothing.

    A single worker sees one as well, so that no number depends on how many work. jax takes most of the memory of every
    accelerator that it sees: two workers on the same one would take it from each other.

    Args:
        workers: how many there are.

    Raises:
        UserError: there are not so many accelerators, or they cannot be told apart.
        SurroundingsError: it cannot be found out how many there are.
        StoppedError: a signal asked to stop.
    """
    if workers == 1:
        return process.gpu_variables(1)
    if process.asks_for_cpu():
        return [{} for _ in range(workers)]
    platform, count = count_devices()
    if platform == "cpu":
        return [{} for _ in range(workers)]
    if platform != "gpu":
        raise UserError(f"workers={workers} would share the {platform.upper()} of this machine; leave --workers out")
    if workers > count:
        raise UserError(
            f"workers={workers} are more than the {count} GPUs that can be seen, and each takes one; make it at most "
            "that, or set JAX_PLATFORMS=cpu"
        )
    return process.gpu_variables(count)[:workers]


def count_devices() -> tuple[str, int]:
    """Returns the platform that jax computes on, such as "gpu", and its number of devices.

    Another process finds it out: this one would keep the memory that jax takes when it looks.

    Raises:
        SurroundingsError: that process failed.
        StoppedError: a signal asked to stop.
    """
    for _ in range(MOST_EARLY_DEATHS):
        stops.raise_if_requested()
        try:
            answer = subprocess.run(
                DEVICES_COMMAND, capture_output=True, text=True, check=False, timeout=PATIENCE_FOR_DEVICES
            )
        except subprocess.TimeoutExpired as error:
            raise SurroundingsError(
                f"jax does not tell its devices in {PATIENCE_FOR_DEVICES} seconds; look into it with `cnn-vit doctor`"
            ) from error
        if answer.returncode >= 0:  # a signal may come from outside
            break
    if answer.returncode < 0:
        raise SurroundingsError(f"the process that asks jax for its devices {describe_exit(answer.returncode)}")
    if answer.returncode:
        last_line = "".join(answer.stderr.strip().splitlines()[-1:])
        raise SurroundingsError(f"jax cannot tell its devices: {last_line}; look into it with `cnn-vit doctor`")
    platform, count = answer.stdout.split()[-2:]
    return platform, int(count)


def describe_exit(code: int) -> str:
    """Says how a process ended, by its exit code."""
    return f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def describe_end(record: TrialRecord) -> str:
    """Says how a trial ended, on one line."""
    name = trials.describe(record.planned.trial)
    result = record.result
    if record.state in trials.FAILED:
        return f"{name}: {record.state}: {on_one_line(record.reason)}"
    if "validation" in result:
        return f"{name}: {100 * result['validation']['accuracy']:.2f} % of validation"
    numbers = [f"{key} {value:.6g}" for key, value in result.items() if key != "steps"]
    return f"{name}: {', '.join(numbers) or record.state}"
