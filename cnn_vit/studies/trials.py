"""Trials: the runs and fits that a study is made of. Each has a folder of its own, and no trial is done twice.

    OUT/trials/ID/trial.json      what the trial is: task, recipe, words of the command line, seed, options
    OUT/trials/ID/lock            held by the process that works on the trial, for as long as it does
    OUT/trials/ID/attempts.jsonl  a line for each start, and for each end that a signal asked for
    OUT/trials/ID/result.json     written last and at once: the trial is over, whether well or badly
    OUT/trials/ID/rungs/STEP.json the numbers of a trial that was told to wait at a step
    OUT/trials/ID/run/            the run folder of a trial that trains
    OUT/trials/ID/predictions/    SPLIT.npz of a trial that only evaluates or fits, as in a run folder
    OUT/trials/ID/log.jsonl       what the trial had to say
    OUT/workers/N.log             what else the workers printed

ID is the beginning of the sha256 of the task, its options and the fingerprint of the run, which settings, seed and
data decide. So the same trial of two studies has the same name, and one whose recipe was edited has another.

The state of a trial is never stored. It follows from what lies in the folder: a result says how the trial ended; else
it is running while its lock is held, interrupted once it was started, and queued before.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cnn_vit import data, files, stops
from cnn_vit.data.base.padding import PAD_BATCH
from cnn_vit.data.sections import complete_section
from cnn_vit.errors import SurroundingsError, UserError, unknown
from cnn_vit.runs import folder, reader
from cnn_vit.runs.manifests import step_folders
from cnn_vit.settings import Settings, fingerprint
from cnn_vit.settings import from_json as settings_from_json
from cnn_vit.settings import load as load_settings
from cnn_vit.settings import to_json as settings_to_json

TRIALS = "trials"  # the folder of a study that its trials lie in
TRIAL = "trial.json"
LOCK = "lock"
ATTEMPTS = "attempts.jsonl"
RESULT = folder.RESULT  # the same name as in a run folder, for it says the same
RUN = "run"
LOG = "log.jsonl"
RUNGS = "rungs"

EVALUATE = "evaluate"
OBJECTIVE = "objective"  # a function of the user's own
TASKS = ("train", EVALUATE, "linear", "knn")
ID_DIGITS = 16  # of the sha256: among a million trials two share a name with a probability of 3e-8

COMPLETE = "complete"
DIVERGED = "diverged"
OUT_OF_MEMORY = "out of memory"
BAD_CONFIG = "bad config"
CRASHED = "crashed"
FAILED = (DIVERGED, OUT_OF_MEMORY, BAD_CONFIG, CRASHED)  # states of trials that are over and have no numbers
PRUNED = "pruned"  # over before its time, with the numbers that it had by then: others promised more
CANCELLED = "cancelled"  # over without numbers, because somebody said so
RETRIABLE = (*FAILED, CANCELLED)  # states of trials that are over without numbers, and may be asked to be done again
RUNNING = "running"
INTERRUPTED = "interrupted"
QUEUED = "queued"

KEPT_DATASETS = 2  # in the memory of a process
# Settings of the data that change neither its images nor their order: they do not keep trials from sharing a data set.
READ_LATER = ("augment", "batch_size", "mean", "prefetch", "std", "workers")


@dataclass(frozen=True)
class Trial:
    """One run or fit of a study, as its recipe names it.

    Attributes:
        task: of TASKS. `train` trains a run; `evaluate` evaluates pretrained weights as they are; `linear` and `knn`
            probe the features of pretrained weights. Of a sweep also `objective`: a function of the user's own.
        config: the recipe with its words, configs/NAME.py:WORDS.
        overrides: settings that stand over the recipe, "key=value".
        seed: of the run; it stands over both.
        options: of a task that does not train, by name.
        name: what people call it; it decides nothing.
    """

    task: str
    config: str
    overrides: tuple[str, ...] = ()
    seed: int = 0
    options: tuple[tuple[str, Any], ...] = ()
    name: str = ""


@dataclass(frozen=True)
class PlannedTrial:
    """A trial whose settings are final, with its place.

    Attributes:
        trial: the trial.
        id: the name of its folder.
        folder: OUT/trials/ID.
        settings: of the run; None where there cannot be one, or where whoever does the trial finds them again.
        data_fingerprint: of its data; "" where there is no run.
        error: why there is no run, a sentence; "" where there is one.
        steps: of the run; 1 where nothing is trained.
        until: the step at which the run waits to be told whether it goes on; None for its end.
        reads_test: whether the test split is evaluated at the end of the run.
        metric: the name of a number that an objective has to return; "" for none.
    """

    trial: Trial
    id: str
    folder: Path
    settings: Settings | None
    data_fingerprint: str
    error: str
    steps: int
    until: int | None = None
    reads_test: bool = True
    metric: str = ""


@dataclass(frozen=True)
class TrialRecord:
    """What is known of a trial.

    Attributes:
        planned: the trial and its place.
        state: COMPLETE, PRUNED, CANCELLED, one of FAILED, RUNNING, INTERRUPTED or QUEUED.
        reason: why it has failed, a sentence; "" where it has not.
        result: the numbers of a complete trial: of one that trains what its run's result.json holds, of others
            validation, test, counts, classes, model and parameters likewise; of a pruned one those of the step that
            it reached; {} of all others.
        run: the run folder of a trial that trained; else None.
    """

    planned: PlannedTrial
    state: str
    reason: str
    result: Mapping[str, Any]
    run: Path | None


class DataCache:
    """The data sets that trials of one process share; the one that was asked for longest ago makes room for another."""

    def __init__(self, most: int = KEPT_DATASETS):
        self._most = most
        self._datasets: OrderedDict[str, data.Dataset] = OrderedDict()

    def load(self, section: Mapping[str, Any]) -> data.Dataset:
        """Returns the data set of a section, which is read only where it is not at hand.

        Raises:
            UserError: as `data.load`.
        """
        completed = complete_section(section)
        later = set(READ_LATER)
        if completed["fit"] == PAD_BATCH:
            later.remove("batch_size")  # it decides the sizes that images are padded to
        deciding = {key: value for key, value in completed.items() if key not in later}
        key = json.dumps(deciding, sort_keys=True, default=str)
        if key not in self._datasets:
            self._datasets[key] = data.load(section)
        self._datasets.move_to_end(key)
        while len(self._datasets) > self._most:
            self._datasets.popitem(last=False)
        return self._datasets[key]


# Plan -----------------------------------------------------------------------------------------------------------------


def plan_trials(trials: Sequence[Trial], out: Path, cache: DataCache) -> list[PlannedTrial]:
    """Gives each trial its final settings and its place; the data of all are read for that.

    A trial that cannot be, such as one with a setting that does not exist, is planned as well: it will fail and be
    recorded, and the others go on.

    Args:
        trials: of a study.
        out: the folder of the study.
        cache: keeps the data sets.

    Raises:
        UserError: two trials are the same.
        SurroundingsError: a file of one cannot be read.
    """
    planned: list[PlannedTrial] = []
    for trial in trials:
        stops.raise_if_requested()
        planned.append(plan_trial(trial, out, cache))
    refuse_repeated(planned)
    return planned


def plan_trial(trial: Trial, out: Path, cache: DataCache) -> PlannedTrial:
    """Gives a trial its final settings and its place, as `plan_trials` does.

    Raises:
        SurroundingsError: a file cannot be read.
    """
    from cnn_vit.training import plan

    try:
        settings, dataset = prepare_trial(trial, cache)
    except SurroundingsError:
        raise  # no fault of the trial's
    except UserError as error:
        words = {"trial": asdict(trial), "error": True}
        return PlannedTrial(trial, *place(words, out), None, "", str(error), steps=1)
    steps = 1
    if trial.task == "train":
        steps = plan.run_times(settings, examples=len(dataset.splits["train"])).total
    words = deciding_words(trial, settings, dataset.fingerprint)
    return PlannedTrial(trial, *place(words, out), settings, dataset.fingerprint, "", steps)


def deciding_words(trial: Trial, settings: Settings, data_fingerprint: str) -> dict[str, Any]:
    """Returns what decides the numbers of a trial, which its name is made of."""
    run = fingerprint(settings, data_fingerprint)
    return {"task": trial.task, "options": dict(trial.options), "run": run}


def plan_again(planned: PlannedTrial, cache: DataCache) -> PlannedTrial:
    """Returns a trial that was planned by another process, with the settings that this one finds for it.

    Raises:
        SurroundingsError: it has become another trial since, for its recipe or its data were changed.
    """
    again = plan_trial(planned.trial, planned.folder.parents[1], cache)
    if again.id == planned.id:
        return replace(again, until=planned.until, reads_test=planned.reads_test)
    if again.data_fingerprint not in ("", planned.data_fingerprint):
        changed = "its data have changed"
    else:
        changed = "its recipe, or a file that the recipe names, has changed"
    why = f" ({again.error})" if again.error else ""
    raise SurroundingsError(
        f"{describe(planned.trial)}: {changed} since this was planned{why}; put it back, or start again in another "
        "folder with --out"
    )


def prepare_trial(trial: Trial, cache: DataCache) -> tuple[Settings, data.Dataset]:
    """Returns the final settings of a trial, completed by its weights, and its data.

    Raises:
        UserError: it cannot be run.
    """
    from cnn_vit.training import plan, pretrained_settings, program

    if trial.task not in TASKS:
        raise unknown("task of a trial", trial.task, TASKS)
    settings = load_settings(trial.config, [*trial.overrides, f"seed={trial.seed}"])
    settings, _ = pretrained_settings.complete_settings(settings)
    plan.check(settings)
    dataset = cache.load(settings.section("data"))
    if trial.task == "train":
        program.check_network(settings, dataset)
        plan.check_schedule(settings, examples=len(dataset.splits["train"]))
    elif settings["pretrained.weights"] is None:
        raise UserError(
            f"{trial.task} looks at a trained network, and {trial.config} names none; set pretrained.weights"
        )
    return settings, dataset


def place(deciding: Mapping[str, Any], out: Path) -> tuple[str, Path]:
    """Returns the name of a trial, by all that decides its numbers, and its folder; nothing is written."""
    text = json.dumps(deciding, sort_keys=True, separators=(",", ":"), allow_nan=False)
    trial_id = hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS]
    return trial_id, out / TRIALS / trial_id


def refuse_repeated(planned: Sequence[PlannedTrial]) -> None:
    """Raises UserError where two trials are the same, so that one would be counted twice."""
    first_by_id: dict[str, Trial] = {}
    for one in planned:
        if one.id in first_by_id:
            raise UserError(
                f"{describe(first_by_id[one.id])} and {describe(one.trial)} are the same trial; leave one of them out"
            )
        first_by_id[one.id] = one.trial


def describe(trial: Trial) -> str:
    """Returns a trial as a sentence names it: by its name, or by all that it is."""
    if trial.name:
        return trial.name
    words = [trial.task, trial.config, *trial.overrides, f"seed={trial.seed}"]
    words += [f"{name}={value}" for name, value in trial.options]
    return " ".join(words)


def to_json(planned: PlannedTrial) -> dict[str, Any]:
    """Returns a trial as plain values, for the worker that is to do it, which may come to work in another folder."""
    return {
        "trial": asdict(planned.trial),
        "id": planned.id,
        "folder": str(planned.folder.absolute()),
        "settings": None if planned.settings is None else settings_to_json(planned.settings),
        "data_fingerprint": planned.data_fingerprint,
        "error": planned.error,
        "steps": planned.steps,
        "until": planned.until,
        "reads_test": planned.reads_test,
        "metric": planned.metric,
    }


def from_json(stored: Mapping[str, Any]) -> PlannedTrial:
    """Returns the trial that `to_json` made plain values of."""
    settings = stored["settings"]
    return PlannedTrial(
        trial=trial_from_json(stored["trial"]),
        id=stored["id"],
        folder=Path(stored["folder"]),
        settings=None if settings is None else settings_from_json(settings, file=TRIAL),
        data_fingerprint=stored["data_fingerprint"],
        error=stored["error"],
        steps=stored["steps"],
        until=stored["until"],
        reads_test=stored["reads_test"],
        metric=stored["metric"],
    )


def trial_from_json(words: Mapping[str, Any]) -> Trial:
    """Returns the trial that `dataclasses.asdict` made plain values of."""
    return Trial(
        task=words["task"],
        config=words["config"],
        overrides=tuple(words["overrides"]),
        seed=words["seed"],
        options=tuple((name, value) for name, value in words["options"]),
        name=words["name"],
    )


# States ---------------------------------------------------------------------------------------------------------------


def read_record(planned: PlannedTrial) -> TrialRecord:
    """Returns what is known of a trial from its folder.

    Raises:
        SurroundingsError: its result cannot be read.
    """
    path = planned.folder / RESULT
    run = planned.folder / RUN
    if path.exists():
        result = reader.read_object(path, state=str, reason=str, result=dict)
        has_run = planned.trial.task == "train" and result["state"] in (COMPLETE, PRUNED)
        kept_run = run if has_run else None
        return TrialRecord(planned, result["state"], result["reason"], result["result"], kept_run)
    state = QUEUED
    if files.is_locked(planned.folder / LOCK):
        state = RUNNING
    elif (planned.folder / ATTEMPTS).exists():
        state = INTERRUPTED
    return TrialRecord(planned, state, "", {}, None)


def write_result(
    planned: PlannedTrial, state: str, *, reason: str = "", result: Mapping[str, Any] | None = None
) -> None:
    """Writes how a trial ended; from then on it is over. The caller holds its lock."""
    content = {
        "id": planned.id,
        "task": planned.trial.task,
        "state": state,
        "reason": reason,
        "result": result or {},
    }
    files.write_json(planned.folder / RESULT, content)


def rung_path(planned: PlannedTrial, step: int) -> Path:
    """Returns the file of the numbers that a trial had when it was told to wait at a step."""
    return planned.folder / RUNGS / f"{step}.json"


def is_over(planned: PlannedTrial) -> bool:
    """Whether there is nothing to do for a trial: it has a result, or has reached the step at which it is to wait."""
    if (planned.folder / RESULT).exists():
        return True
    return planned.until is not None and rung_path(planned, planned.until).exists()


def read_rung(planned: PlannedTrial, step: int) -> dict[str, Any] | None:
    """Returns the numbers that a trial had at a step, as `loop.train` gave them; None where it is not so far.

    Raises:
        UserError: the file is not as it was written.
    """
    path = rung_path(planned, step)
    return reader.read_object(path, steps=int) if path.exists() else None


def write_rung(planned: PlannedTrial, result: Mapping[str, Any]) -> None:
    """Writes the numbers of a trial that has reached the step at which it is to wait. The caller holds its lock."""
    if planned.until is None:
        raise ValueError("a trial that is not to wait has no rung")
    files.write_json(rung_path(planned, planned.until), dict(result))


def forget(planned: PlannedTrial) -> None:
    """Removes all that a trial has done, so that it is done again. The caller holds its lock."""
    for name in (RESULT, ATTEMPTS, RUN, RUNGS):
        files.remove(planned.folder / name)


def describe_trial(planned: PlannedTrial) -> None:
    """Writes trial.json, for people and for other programs; nothing reads it to decide anything."""
    trial = planned.trial
    content = {
        "id": planned.id,
        "task": trial.task,
        "config": trial.config,
        "overrides": list(trial.overrides),
        "seed": trial.seed,
        "options": dict(trial.options),
        "data_fingerprint": planned.data_fingerprint,
    }
    files.write_json(planned.folder / TRIAL, content)


# Attempts -------------------------------------------------------------------------------------------------------------


def saved_step(planned: PlannedTrial) -> int:
    """The newest step that a trial has saved, 0 where there is none."""
    return max(step_folders(planned.folder / RUN / folder.CHECKPOINTS), default=0)


def note_start(planned: PlannedTrial) -> None:
    """Notes that an attempt begins, and from which step."""
    files.append_line(planned.folder / ATTEMPTS, {"event": "start", "step": saved_step(planned)})


def note_stop(planned: PlannedTrial) -> None:
    """Notes that the last attempt ended because it was asked to, which is no fault of the trial's."""
    path = planned.folder / ATTEMPTS
    if path.exists() and reader.read_object_lines(path)[-1].get("event") == "start":
        files.append_line(path, {"event": "stop"})


def count_deaths(planned: PlannedTrial) -> int:
    """Counts the attempts that ended without a word since the trial got further for the last time.

    A trial that is killed now and then, but gets further each time, is not to blame for it.
    """
    path = planned.folder / ATTEMPTS
    if not path.exists():
        return 0
    step_now = saved_step(planned)
    deaths = 0
    for line in reader.read_object_lines(path):
        if line.get("event") == "start":
            deaths = deaths + 1 if line.get("step") == step_now else 0
        elif line.get("event") == "stop" and deaths:
            deaths -= 1
    return deaths
