"""A task of a SLURM array: a process that does one trial of a sweep. `slurm.py` writes the script that starts it.

    python -m cnn_vit.studies.sweeping.array_task OUT LIST JOB TASK

SIGTERM, by which SLURM announces that it will kill, and SIGUSR1, which it is asked to send before the time limit, have
the trial save what it has learned and end. After SIGUSR1 the task asks SLURM to start it again. A second signal changes
nothing: SLURM may send one twice, and ends by itself what takes too long.

The exit code is 0 where the trial has a result, whether a good or a bad one, and whoever came to it; 128 + n after
signal n; 2 where the task cannot be done as it was asked for; 3 where the surroundings are in the way, or the trial is
not what it was when it was planned.
"""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn_vit import process, stops
from cnn_vit.errors import StoppedError, SurroundingsError, UserError
from cnn_vit.studies.sweeping import slurm_commands
from cnn_vit.studies.worker import LogDisplay

if TYPE_CHECKING:
    from cnn_vit.studies.trials import PlannedTrial

MOST_STARTS = 3  # of a trial one after another that got no further, after which it is not queued again
STOPPED = "stopped by {} before this start trained a step; the next task of the trial starts it again"


class TaskDisplay(LogDisplay):
    """Shows in the log of the task how far a trial is, and writes down what it has to say.

    Args:
        steps: of the trial.
        log: the file of the trial's sentences.
    """

    def __init__(self, steps: int, log: Path):
        from cnn_vit.training.progress import Progress

        super().__init__(log)
        self._progress = Progress(steps, batch_size=None)

    def update(self, step: int, *, accuracy: float | None = None) -> None:
        """Shows the number of steps done, now and then."""
        self._progress.update(step, accuracy=accuracy)

    def say(self, sentence: str) -> None:
        """Shows a sentence, and adds it to the log of the trial."""
        self._progress.say(sentence)
        super().say(sentence)

    def close(self) -> None:
        """Shows the last step."""
        self._progress.close()


class Task:
    """A task and its trial.

    Args:
        job: what SLURM calls the array.
        index: of the task in it.

    Attributes:
        job, index: the arguments.
        planned: the trial; None until it is known.
    """

    def __init__(self, job: str, index: int):
        self.job, self.index = job, index
        self.planned: PlannedTrial | None = None

    def end(self, number: int) -> None:
        """Does what is to be done last of all after a signal; the process may have come to no safe point before."""
        if self.planned is not None:
            note_stop(self.planned)
        if number != signal.SIGUSR1:
            return
        if self.planned is not None and is_stuck(self.planned):
            stops.print_to_stderr(
                f"the trial got no further in {MOST_STARTS} starts, so that it is not queued again; give it more --time"
            )
            return
        name = f"{self.job}_{self.index}"
        stops.print_to_stderr(slurm_commands.requeue(name) or f"SLURM has queued task {name} again")


def main(words: Sequence[str] | None = None) -> int:
    """Does the trial of a task; returns the exit code.

    Args:
        words: of the command line; None for those of this process.
    """
    arguments = parse_words(words)
    task = Task(arguments.job, arguments.index)
    with stops.handle_signals(owns_process=True, heeds_second=False, before_end=task.end):
        try:
            with stops.saying(STOPPED):
                do_task(task, arguments.out, read_listing(arguments.listing))
            code = 0
        except StoppedError as error:
            stops.print_to_stderr(str(error))
            task.end(error.signal)
            code = error.code
        except UserError as error:
            stops.print_to_stderr(str(error))
            code = error.code
        stops.end_command(code)
    return code


def parse_words(words: Sequence[str] | None) -> argparse.Namespace:
    """Reads the words of the command line."""
    parser = argparse.ArgumentParser(prog="array_task", description="Does the trial of one task of a SLURM array.")
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder of the sweep")
    parser.add_argument("listing", type=Path, metavar="LIST", help="OUT/slurm/NUMBER.json, the trials of the array")
    parser.add_argument("job", metavar="JOB", help="SLURM's number of the array")
    parser.add_argument("index", type=int, metavar="TASK", help="the number of the task in the array")
    return parser.parse_args(words)


def read_listing(path: Path) -> dict[str, Any]:
    """Reads what the tasks of an array do, as `slurm.submit` writes it; nothing large is imported for it.

    Raises:
        SurroundingsError: it cannot be read.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SurroundingsError(
            f"{path} cannot be read on this machine ({error}); the folder of a sweep at SLURM must lie on a disk that "
            "all its nodes share"
        ) from error


def do_task(task: Task, out: Path, listing: dict[str, Any]) -> None:
    """Does the trial of a task, unless it has a result.

    Args:
        task: which of the trials.
        out: the folder of the sweep.
        listing: of the array, by `read_listing`.

    Raises:
        UserError: the sweep has no such trial, or there are too few cores.
        SurroundingsError: disk, rights or another run are in the way, or the trial is not what it was when it was
            planned.
        StoppedError: a signal asked to stop.
    """
    if not 0 <= task.index < len(listing["tasks"]):
        raise UserError(f"the array has no task {task.index}; it has 0 to {len(listing['tasks']) - 1}")
    trial_id = listing["tasks"][task.index]["id"]
    process.compute_on(choose_task_cores(task.index, listing["threads"]))  # before any library counts them
    process.set_variables(process.gpu_variables(1)[0])
    process.prepare()

    from cnn_vit.files import cache
    from cnn_vit.studies import trials, worker, workers
    from cnn_vit.studies.sweeping import planner, slurm

    cache.configure(**process.cache_environment())
    planned = task.planned = planner.open_trial(out, trial_id)
    slurm.record_deaths(planned)
    if trials.is_over(planned):  # nothing large is imported for it
        stops.print_to_stderr(f"trial {trial_id} is over; there is nothing left to do")
        return
    display = TaskDisplay(planned.steps, planned.folder / trials.LOG)
    try:
        worker.do_trial(planned, trials.DataCache(), display, keep=listing["keep"])
    except worker.ObstacleError as error:
        raise SurroundingsError(str(error)) from error
    if (planned.folder / trials.RESULT).exists():
        display.say(workers.describe_end(trials.read_record(planned)))


def choose_task_cores(index: int, threads: int) -> list[int]:
    """Returns the cores that a task computes on: as many as a trial has threads.

    SLURM may have bound the process to some of the cores; where it has not, tasks of one machine choose different ones.

    Raises:
        UserError: there are not so many cores.
    """
    cores = process.usable_cores()
    if threads > len(cores):
        raise UserError(
            f"a trial computes on threads={threads} cores, and SLURM gives a task {len(cores)}; leave --cpus-per-task "
            "out of the options, or make it at least that"
        )
    first = index * threads % len(cores)
    return [cores[(first + number) % len(cores)] for number in range(threads)]


def note_stop(planned: "PlannedTrial") -> None:
    """Notes that this process ends because it was asked to, where it is at work on the trial and could not note it."""
    from cnn_vit import files
    from cnn_vit.studies import trials

    if files.is_owner(planned.folder / trials.LOCK):
        trials.note_stop(planned)


def is_stuck(planned: "PlannedTrial") -> bool:
    """Whether the last starts of a trial all began from the step that it has saved last."""
    from cnn_vit.runs import reader
    from cnn_vit.studies import trials

    path = planned.folder / trials.ATTEMPTS
    if not path.exists():
        return False
    starts = [line.get("step") for line in reader.read_object_lines(path) if line.get("event") == "start"]
    return len(starts) >= MOST_STARTS and set(starts[-MOST_STARTS:]) == {trials.saved_step(planned)}


if __name__ == "__main__":
    sys.exit(main())
