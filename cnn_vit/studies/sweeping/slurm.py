"""Hands the trials of a sweep to SLURM: arrays of tasks, each of which is a process that does one trial.

    OUT/slurm/NUMBER.json       the trials of array NUMBER, in the order of its tasks
    OUT/slurm/NUMBER.sh         the script that SLURM runs for each task; it starts `array_task.py`
    OUT/slurm/NUMBER-TASK.log   what a task printed, all its starts one below the other

Read `run`. An array never changes once it is submitted. What is done is told by the folders of the trials alone, and
the lock of a trial keeps two tasks from doing it at once; so whatever SLURM says, however late, no trial is lost or
done twice. SLURM is asked only so as to follow the tasks that are under way instead of submitting them again, and to
show how they are. The tasks of a sweep are those whose script lies in its folder: nobody has to remember what SLURM
called them.
"""

import contextlib
import os
import re
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnn_vit import files, stops
from cnn_vit.errors import SurroundingsError, UserError
from cnn_vit.runs import reader
from cnn_vit.studies import trials, workers
from cnn_vit.studies.sweeping.slurm_commands import COMPLETING, ask_slurm, make_error
from cnn_vit.studies.trials import PlannedTrial
from cnn_vit.studies.workers import StudyOptions, Supply
from cnn_vit.training.progress import Progress

SLURM = "slurm"  # the folder of a sweep that its arrays lie in
TASK_MODULE = "cnn_vit.studies.sweeping.array_task"
TASK_NAME = '"$SLURM_ARRAY_JOB_ID" "$SLURM_ARRAY_TASK_ID"'  # by which a script learns what SLURM calls its task
# Unless the user says otherwise. "B:" sends the signal to the script's own process; without it only steps that srun
# starts would get it, of which there are none.
DEFAULTS = ("--requeue", "--signal=B:USR1@60", "--open-mode=append")
ARRAY_LIMIT = 1000  # tasks of an array, where SLURM was not told another number
# Options of sbatch that would take away what the trials depend on, and the remedies.  Source: man sbatch.
REFUSED = {
    "array": "the array is made of the trials without a result; --workers=N limits how many run at the same time",
    "chdir": "the trials run in the folder that this command is given in; go there first",
    "clusters": "set the variable SLURM_CLUSTERS instead, which squeue and scancel obey as well",
    "error": "what tasks print goes to OUT/slurm",
    "help": "read `man sbatch`",
    "input": "the trials read no input",
    "output": "what tasks print goes to OUT/slurm",
    "test-only": "give --dry to see what would be run",
    "usage": "read `man sbatch`",
    "version": "ask sbatch itself",
    "wait": "the sweep waits for its tasks by itself",
    "wrap": "the sweep brings its own script",
}
REFUSED_LETTERS = {"a": "array", "D": "chdir", "M": "clusters", "e": "error", "h": "help", "i": "input", "o": "output",
                   "V": "version", "W": "wait"}  # fmt: skip
LETTERS_WITHOUT_VALUE = "HkOQsv"  # which other letters may follow in the same word
LOOK_EVERY = 2.0  # seconds between two looks at the folders of trials
LOOKS_PER_QUESTION = 5  # to SLURM, which many people ask
LOOKS_FOR_THE_LAST = 30  # while cancelled tasks save what they have learned; SLURM kills them after 30 seconds or so
MOST_ANSWERS_WITHOUT = 2  # of SLURM that it has no task of a trial, while other machines' files may be seen late
UNKNOWN = -1  # how often a trial was begun before its task was submitted, by an earlier start of the sweep
STOPPED = "stopped by {}; its tasks at SLURM go on: the same command follows them, `cnn-vit sweep cancel` ends them"


@dataclass(frozen=True)
class QueuedTask:
    """A task of a sweep that SLURM has and that is not over.

    Attributes:
        id: of its trial.
        job: what SLURM calls the whole array, "123".
        state: SLURM's word, such as "PENDING" or "RUNNING".
        reason: why it does not run, SLURM's word, such as "Resources"; "None" where there is no reason.
    """

    id: str
    job: str
    state: str
    reason: str

    @property
    def words(self) -> str:
        """State and reason, as people read them."""
        return self.state if self.reason == "None" else f"{self.state} ({self.reason})"


# What the user may say ------------------------------------------------------------------------------------------------


def read_options(text: str) -> tuple[str, ...]:
    """Splits options of sbatch as a shell does, and checks that none takes away what the trials depend on.

    Args:
        text: such as "--partition=gpu --time=2:00:00 --gres=gpu:1".

    Raises:
        UserError: one does, or a word is no option.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UserError(f"--slurm={text!r} cannot be split into words ({error}); close what is open") from error
    may_be_value = False  # whether a word may be the value of the option before it
    for word in words:
        if word.startswith("-") and word.strip("-"):
            name = find_refused(word)
            if name is not None:
                raise UserError(f"{word} cannot stand in --slurm: {REFUSED[name]}")
            may_be_value = "=" not in word
        elif may_be_value:
            may_be_value = False
        else:
            raise UserError(f"{word!r} in --slurm is not an option of sbatch; write options as --partition=NAME")
    return tuple(words)


def find_refused(word: str) -> str | None:
    """Returns the name of the refused option that a word gives: in full, shortened or as a letter; None for others."""
    if word.startswith("--"):
        beginning = word.removeprefix("--").partition("=")[0]
        return next((name for name in REFUSED if name.startswith(beginning)), None)
    for letter in word.removeprefix("-"):
        if letter in REFUSED_LETTERS:
            return REFUSED_LETTERS[letter]
        if letter not in LETTERS_WITHOUT_VALUE:  # what follows is its value
            return None
    return None


# Submit ---------------------------------------------------------------------------------------------------------------


def submit(
    planned: Sequence[PlannedTrial], out: Path, options: StudyOptions, words: Sequence[str], *, most: int | None = None
) -> str:
    """Submits an array that does trials, whatever else is under way; returns what SLURM calls it, such as "123".

    Args:
        planned: the trials, not more than `read_array_limit` says.
        out: the folder of the sweep, which this process has locked.
        options: how the trials are done.
        words: options of sbatch that the user gives, by `read_options`.
        most: tasks that may run at the same time; None: as many as SLURM lets.

    Raises:
        UserError: SLURM does not take the options.
        SurroundingsError: there is no SLURM here, or it is in trouble.
    """
    folder = out.absolute() / SLURM
    number = max(list_arrays(folder), default=0) + 1
    script, listing = folder / f"{number:04}.sh", folder / f"{number:04}.json"
    tasks = [{"id": one.id, "name": trials.describe(one.trial)} for one in planned]
    files.write_json(listing, {"tasks": tasks, "threads": options.threads, "keep": options.keep})
    files.write(script, make_script(out.absolute(), listing))
    command = make_command(script, len(planned), options, words, most)
    try:
        answer = ask_slurm(command)
        if answer.returncode:
            raise make_error(command[0], answer.stderr)
    except UserError:
        files.remove(script)
        files.remove(listing)
        raise
    return answer.stdout.strip().partition(";")[0]  # behind it stands the cluster, where there are several


def make_script(out: Path, listing: Path) -> str:
    """Returns the script of an array. The task takes the place of the shell, so that SLURM's signals reach it."""
    command = shlex.join([sys.executable, "-m", TASK_MODULE, str(out), str(listing)])
    return f"#!/bin/sh\n# task N does trial N of {listing.name}\nexec {command} {TASK_NAME}\n"


def make_command(
    script: Path, count: int, options: StudyOptions, words: Sequence[str], most: int | None
) -> tuple[str, ...]:
    """Returns the command that submits a script as an array of so many tasks.

    Of an option that is given twice sbatch takes the last one, so that the user's stand over our defaults, and what
    the trials depend on over both.
    """
    out = script.parent.parent
    pattern = str(script.with_suffix("")).replace("%", "%%")  # of which sbatch makes "%" again
    return (
        "sbatch",
        *DEFAULTS,
        f"--job-name=sweep-{out.name}",
        f"--cpus-per-task={options.threads}",
        *words,
        "--parsable",
        f"--array=0-{count - 1}" + (f"%{most}" if most else ""),
        f"--output={pattern}-%a.log",
        str(script),
    )


def list_arrays(folder: Path) -> list[int]:
    """Lists the numbers of the arrays in the folder `slurm` of a sweep, the oldest first."""
    if not folder.is_dir():
        return []
    return sorted(int(path.stem) for path in folder.glob("*.json") if path.stem.isdigit())


def read_listing(path: Path) -> dict[str, Any]:
    """Reads the file that says what the tasks of an array do.

    Raises:
        SurroundingsError: it cannot be read.
        UserError: it is damaged.
    """
    return reader.read_object(path, tasks=list, threads=int, keep=str)


def read_array_limit() -> int:
    """Returns how many tasks an array may have."""
    with contextlib.suppress(SurroundingsError):
        limit = re.search(r"^MaxArraySize\s*= (\d+)$", ask_slurm(["scontrol", "show", "config"]).stdout, re.M)
        if limit:
            return max(1, int(limit[1]) - 1)  # numbers of tasks are below it
    return ARRAY_LIMIT


# Ask ------------------------------------------------------------------------------------------------------------------


def ask_queue(out: Path) -> list[QueuedTask] | None:
    """Returns the tasks of a sweep that SLURM has and that are not over; None where it does not say."""
    # --array: a line for each task, also for those that wait
    words = ["squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%F|%K|%T|%r|%o"]
    try:
        answer = ask_slurm(words)
    except SurroundingsError:
        return None
    return None if answer.returncode else read_queue(answer.stdout, out.absolute() / SLURM)


def read_queue(text: str, folder: Path) -> list[QueuedTask]:
    """Reads an answer of squeue; jobs whose script does not lie in the folder are left out."""
    tasks = []
    ids_by_script: dict[Path, list[str]] = {}
    for line in text.splitlines():
        fields = line.split("|", maxsplit=4)
        if len(fields) < 5 or not fields[1].isdigit():  # no task of an array
            continue
        job, index, state, reason, command = fields
        script = Path(command)
        if script.parent.resolve() != folder.resolve():
            continue
        if script not in ids_by_script:
            listing = read_listing(script.with_suffix(".json"))
            ids_by_script[script] = [task["id"] for task in listing["tasks"]]
        tasks.append(QueuedTask(ids_by_script[script][int(index)], job, state, reason))
    return tasks


def queue_states(out: Path) -> dict[str, str]:
    """Returns SLURM's words for the trials that it has, by their ids; {} where it does not answer."""
    return {task.id: task.words for task in ask_queue(out) or []}


def cancel(out: Path) -> int:
    """Ends all tasks of a sweep; those that train save what they have learned. Returns how many there were.

    Raises:
        SurroundingsError: SLURM does not answer.
    """
    if not list_arrays(out / SLURM):
        return 0
    tasks = ask_queue(out)
    if tasks is None:
        raise SurroundingsError(
            "squeue does not say which tasks SLURM has; look with sinfo how SLURM is, then cancel again"
        )
    if tasks:
        answer = ask_slurm(["scancel", *sorted({task.job for task in tasks})])
        if answer.returncode:
            raise make_error("scancel", answer.stderr)
    return len(tasks)


# Do trials ------------------------------------------------------------------------------------------------------------


def run(
    supply: Supply, out: Path, text: str, options: StudyOptions, stop: stops.StopSignals, *, most: int | None = None
) -> str:
    """Has SLURM do the trials of a sweep; returns "" once all are over, or the supply's reason to end before.

    Args:
        supply: gives the trials.
        out: the folder of the sweep, which this process has locked.
        text: options of sbatch, such as "--partition=gpu --time=2:00:00 --gres=gpu:1".
        options: how the trials are done.
        stop: the signals of this process.
        most: tasks that may run at the same time; None: as many as SLURM lets.

    Raises:
        UserError: SLURM does not take the options.
        SurroundingsError: there is no SLURM here, or tasks ended without a result; all others are over then.
        StoppedError: a signal asked to stop; the tasks go on.
    """
    return ArrayStudy(supply, out, read_options(text), options, stop, most).run()


class ArrayStudy:
    """The trials of a sweep that SLURM is to do, as far as they are known and not over.

    Args:
        as of `run`, but for `words`: the options of sbatch, one by one.
    """

    def __init__(
        self,
        supply: Supply,
        out: Path,
        words: Sequence[str],
        options: StudyOptions,
        stop: stops.StopSignals,
        most: int | None,
    ):
        self.supply, self.out, self.words, self.options, self.stop, self.most = supply, out, words, options, stop, most
        self.waiting: list[PlannedTrial] = []  # for their submission
        self.under_way: dict[str, PlannedTrial] = {}  # by id: SLURM has a task for them
        self.lost: list[PlannedTrial] = []  # their tasks ended without a result, for no fault of theirs
        self.starts: dict[str, int] = {}  # by id: how often a trial was begun when its task was submitted
        self.answers_without: dict[str, int] = {}  # by id: answers of SLURM in a row that it has no task for it
        self.array_limit: int | None = None  # once it is known
        self.said = ""
        self.waiting += supply.take()  # before its steps are counted, for it plans them
        steps_over, steps = supply.count_steps()
        self.progress = Progress(steps, step=steps_over, batch_size=None)

    def run(self) -> str:
        """Does what the function `run` says."""
        with contextlib.closing(self.progress), self.stop.saying(STOPPED):
            queue = ask_queue(self.out)
            looks = 0
            while True:
                if self.waiting:
                    self.follow(queue)
                    self.submit()
                if not self.under_way and not self.waiting:
                    if self.lost:
                        raise self.unfinished_error()
                    if self.supply.is_exhausted():
                        return ""
                reason = self.supply.reason_to_end()
                if reason:
                    self.cancel()
                    return reason
                self.sleep()
                self.look_at_trials()
                looks += 1
                if looks % LOOKS_PER_QUESTION == 0:
                    queue = ask_queue(self.out)
                    if queue is not None:
                        self.look_at_queue(queue)
                self.waiting += self.supply.take()

    def follow(self, queue: Sequence[QueuedTask] | None) -> None:
        """Follows the trials that SLURM has from an earlier start, instead of submitting them again."""
        # A task that is being ended may be gone the next moment; where it is not, another one waits for its trial.
        ids = {task.id for task in queue or [] if task.state != COMPLETING}
        for planned in self.waiting:
            if planned.id in ids and planned.id not in self.starts:
                self.under_way[planned.id] = planned
                self.starts[planned.id] = UNKNOWN
        self.waiting = [planned for planned in self.waiting if planned.id not in self.under_way]

    def submit(self) -> None:
        """Submits the trials that wait, as far as they may be under way."""
        count = len(self.waiting)
        if self.most is not None and self.under_way:
            count = min(count, max(0, self.most - len(self.under_way)))
        if count <= 0:
            return
        if self.array_limit is None:
            self.array_limit = read_array_limit()
        new = self.waiting[: min(count, self.array_limit)]
        job = submit(new, self.out, self.options, self.words, most=self.most)
        self.waiting = self.waiting[len(new) :]
        for planned in new:
            self.under_way[planned.id] = planned
            self.starts[planned.id] = read_attempts(planned).count("start")
            self.answers_without[planned.id] = 0
        self.progress.say(f"SLURM has job {job} of {len(new)} tasks")

    def cancel(self) -> None:
        """Ends all tasks, and waits as long as SLURM lets them save what they have learned."""
        cancel(self.out)
        for _ in range(LOOKS_FOR_THE_LAST):
            if not ask_queue(self.out):
                break
            self.sleep()

    def sleep(self) -> None:
        """Waits until the next look.

        Raises:
            StoppedError: a signal asked to stop.
        """
        for _ in range(max(1, round(LOOK_EVERY / workers.LOOK_EVERY))):
            self.stop.raise_if_requested()
            time.sleep(min(LOOK_EVERY, workers.LOOK_EVERY))

    def look_at_trials(self) -> None:
        """Takes note of the trials that are over."""
        for planned in list(self.under_way.values()):
            if is_over(planned):
                self.finish(planned)
        steps_over, _ = self.supply.count_steps()
        self.progress.update(steps_over)

    def look_at_queue(self, queue: Sequence[QueuedTask]) -> None:
        """Takes note of the trials for which SLURM has no task any more, and says how the others are."""
        tasks = [task for task in queue if task.id in self.under_way]
        ids = {task.id for task in tasks}
        for planned in list(self.under_way.values()):
            self.answers_without[planned.id] = self.answers_without.get(planned.id, 0) + 1
            if planned.id in ids:
                self.answers_without[planned.id] = 0
            elif self.answers_without[planned.id] >= MOST_ANSWERS_WITHOUT and not is_over(planned):
                self.lose(planned)
        sentence = describe_queue(tasks)
        if sentence and sentence != self.said:
            self.progress.say(f"at SLURM: {sentence}")
            self.said = sentence

    def finish(self, planned: PlannedTrial) -> None:
        """Takes note of a trial that is over."""
        del self.under_way[planned.id]
        if (planned.folder / trials.RESULT).exists():
            self.progress.say(workers.describe_end(trials.read_record(planned)))

    def lose(self, planned: PlannedTrial) -> None:
        """Takes note of a trial whose task is gone without a result.

        The trial is submitted again where its process died without a word, until it has died too often; or where the
        task was of an earlier start.
        """
        del self.under_way[planned.id]
        starts_before = self.starts[planned.id]
        if has_died(planned, max(0, starts_before)):
            record_deaths(planned)
            if not is_over(planned):
                self.progress.say(f"the process of {trials.describe(planned.trial)} died at SLURM; it is done again")
                self.waiting.append(planned)
        elif starts_before == UNKNOWN:
            self.waiting.append(planned)
        else:
            self.lost.append(planned)

    def unfinished_error(self) -> SurroundingsError:
        """Makes the error for trials whose tasks have ended without a result."""
        name = trials.describe(self.lost[0].trial)
        log = find_log(self.lost[0].id, self.out)
        last_line = "" if log is None else read_last_line(log)
        cause = f"{log} ends with: {last_line}" if last_line else "no task of it has begun"
        return SurroundingsError(
            f"the tasks of {len(self.lost)} trials ended without a result, as those do that are cancelled or out of "
            f"time ({name}: {cause}); the same command submits them again"
        )


def is_over(planned: PlannedTrial) -> bool:
    """Whether a trial is over, by its folder as the server of the files has it.

    Over NFS a new file may be seen late, but the list of the names in a folder is asked of the server.
    """
    for folder in (planned.folder, planned.folder / trials.RUNGS):
        with contextlib.suppress(OSError):
            os.listdir(folder)
    return trials.is_over(planned)


def read_attempts(planned: PlannedTrial) -> list[str]:
    """Returns what is noted of the attempts at a trial: "start" for each start, "stop" for each end that was asked for.

    A torn line is "".
    """
    path = planned.folder / trials.ATTEMPTS
    return [line.get("event", "") for line in reader.read_object_lines(path)] if path.exists() else []


def has_died(planned: PlannedTrial, starts_before: int) -> bool:
    """Whether a trial was begun once more, and its process then ended without a word."""
    events = read_attempts(planned)
    return events[-1:] == ["start"] and events.count("start") > starts_before


def record_deaths(planned: PlannedTrial) -> None:
    """Writes that a trial crashes, where its processes have died too often without getting further.

    Nothing happens where a process is at work on it: the last start that was noted is that one's.
    """
    if not workers.is_free(planned):
        return
    with files.Lock(planned.folder / trials.LOCK, on_wait=lambda _: None):
        if not trials.is_over(planned) and trials.count_deaths(planned) >= workers.MOST_DEATHS:
            reason = f"its process died at SLURM, {workers.MOST_DEATHS} times without getting further"
            trials.write_result(planned, trials.CRASHED, reason=reason)


def describe_queue(tasks: Sequence[QueuedTask]) -> str:
    """Returns how many tasks are in which state, such as "1 PENDING (Resources), 3 RUNNING"."""
    counts: dict[str, int] = {}
    for task in tasks:
        counts[task.words] = counts.get(task.words, 0) + 1
    return ", ".join(f"{count} {words}" for words, count in sorted(counts.items()))


def find_log(trial_id: str, out: Path) -> Path | None:
    """Returns the newest file that a task of a trial printed to; None where no task of it has begun."""
    folder = out.absolute() / SLURM
    for number in reversed(list_arrays(folder)):
        ids = [task["id"] for task in read_listing(folder / f"{number:04}.json")["tasks"]]
        if trial_id in ids:
            log = folder / f"{number:04}-{ids.index(trial_id)}.log"
            if log.exists():
                return log
    return None


def read_last_line(path: Path) -> str:
    """Returns the last line of a file that says something; "" where there is none."""
    with files.os_errors(path):
        lines = path.read_text(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
