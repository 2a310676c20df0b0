"""The test split of the best setting of a sweep: read once, at the end, and written down.

A sweep chooses by validation, so that its best number there is too good: of many that are near, chance picks one. The
test split says how good it is on images that chose nothing, as long as it is read for one setting. So what was read is
kept in OUT/best_test.json and said again from there; reading it for another setting has to be asked for, and the number
of settings that it was read for stands beside the numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cnn_vit import files, stops
from cnn_vit.errors import UserError
from cnn_vit.reports import sweep_facts
from cnn_vit.reports.intervals import Interval
from cnn_vit.reports.sweep_facts import LeaderRow, SweepFacts, SweepTrial
from cnn_vit.runs import folder, reader
from cnn_vit.studies import trials

FILE = "best_test.json"
LOCK = "best_test.lock"
STOPPED = "stopped by {}; the same command reads what is left of the test split"


@dataclass(frozen=True)
class SplitReading:
    """The numbers of a trial on the test split.

    Attributes:
        id: of the trial.
        suggestion: number of its point.
        seed: of its run.
        values: its point.
        accuracy, loss: on the test split.
        n: examples of the test split.
        reads: how often the trial's run has read its test split, as its folder says.
    """

    id: str
    suggestion: int
    seed: int
    values: Mapping[str, Any]
    accuracy: float
    loss: float
    n: int
    reads: int


@dataclass(frozen=True)
class BestTest:
    """What the test split says of the best setting.

    Attributes:
        readings: of its trials, by their seed.
        accuracy: the mean with its interval.
        basis: what the interval is over.
        is_new: whether the test split was read just now.
        settings: how many settings of the sweep it was read for, this one included.
    """

    readings: tuple[SplitReading, ...]
    accuracy: Interval
    basis: str
    is_new: bool
    settings: int


def read_stored(out: Path) -> list[SplitReading]:
    """Reads what was read of the test split so far; nothing where it never was.

    Raises:
        UserError: the file is not as it was written.
        SurroundingsError: it cannot be read.
    """
    path = out / FILE
    with files.os_errors(path):
        if not path.exists():
            return []
    try:
        return [SplitReading(**reading) for reading in reader.read_object(path, readings=list)["readings"]]
    except TypeError as error:
        raise reader.not_as_written(path) from error


def find_stored(facts: SweepFacts, leader: LeaderRow) -> BestTest | None:
    """Returns what the test split said of the best setting, as it is stored; None where a trial was not tested.

    Raises:
        UserError: the file of what was read is not as it was written.
        SurroundingsError: it cannot be read.
    """
    stored = read_stored(facts.out)
    if find_missing(leader, stored):
        return None
    return conclude(facts, leader, stored, is_new=False)


def measure_best(facts: SweepFacts, leader: LeaderRow, *, again: bool) -> BestTest:
    """Measures the best setting on the test split, each of its trials once; says what is stored where that was done.

    Args:
        facts: of the sweep.
        leader: its best setting.
        again: whether the test split may be read though it was read for another setting of the sweep.

    Raises:
        UserError: it was read for another setting, there is no test split, or only a program gives the data.
        SurroundingsError: a run cannot be read, or another process tests it.
        StoppedError: a signal asked to stop; what was measured by then is stored.
    """
    known = find_stored(facts, leader)
    if known is not None:
        return known
    with files.Lock(facts.out / LOCK):
        stored = read_stored(facts.out)
        others = settings_of(stored) - {sweep_facts.setting_key(leader.values)}
        if others and not again:
            raise UserError(refusal(facts, leader, stored))
        missing = find_missing(leader, stored)
        with stops.saying(STOPPED):
            for trial in missing:
                stored.append(read_test(trial))
                files.write_json(facts.out / FILE, {"readings": [asdict(reading) for reading in stored]})
    return conclude(facts, leader, stored, is_new=bool(missing))


def find_missing(leader: LeaderRow, stored: Sequence[SplitReading]) -> list[SweepTrial]:
    """Returns the trials of a setting that have numbers and were not tested, by their seed."""
    known = {reading.id for reading in stored}
    measured = sorted(sweep_facts.measured_trials(leader.trials), key=lambda trial: trial.seed)
    return [trial for trial in measured if trial.id not in known]


def conclude(facts: SweepFacts, leader: LeaderRow, stored: Sequence[SplitReading], *, is_new: bool) -> BestTest:
    """Returns what the test split says of a setting, all trials of which were tested.

    The mean accuracy has the interval that it would have on a leaderboard.
    """
    by_id = {reading.id: reading for reading in stored}
    tested, readings = [], []
    for trial in sorted(sweep_facts.measured_trials(leader.trials), key=lambda trial: trial.seed):
        reading = by_id[trial.id]
        readings.append(reading)
        tested.append(replace(trial, metric=reading.accuracy, n=reading.n))
    interval, basis = sweep_facts.measure_setting(replace(facts, metric="test.accuracy", mode="max"), tested)
    return BestTest(tuple(readings), interval, basis, is_new, len(settings_of(stored)))


def settings_of(readings: Sequence[SplitReading]) -> set[str]:
    """Returns the settings that the test split was read for."""
    return {sweep_facts.setting_key(reading.values) for reading in readings}


def refusal(facts: SweepFacts, leader: LeaderRow, stored: Sequence[SplitReading]) -> str:
    """Says why the test split is not read once more."""
    last = stored[-1]
    before = sweep_facts.values_text(sweep_facts.without_seed(last.values))
    return (
        f"the test split was read for another setting, {before} ({100 * last.accuracy:.2f} % with seed {last.seed}), "
        f"and the best one is now {sweep_facts.values_text(leader.values)}: reading it until a setting does well would "
        f"choose by it; --again reads it, and {facts.out / FILE} keeps count"
    )


def read_test(trial: SweepTrial) -> SplitReading:
    """Measures the finished run of a trial on its test split, or finds there that this was done.

    The run keeps the numbers in its own result, so that a kill between its writing and ours reads nothing twice.

    Raises:
        UserError: there is no test split, or only a program gives the data.
        SurroundingsError: the run cannot be read.
    """
    from cnn_vit.training import loop

    run = trial.folder / trials.RUN
    settings = reader.read_settings(run)
    result = reader.finished_result(run, splits=("validation",))
    if result is None:
        raise UserError(f"the run of trial {trial.id} is not whole any more; train the setting again and test that")
    if not result.get("test") and not reader.has_unread_test(result):
        raise UserError("the data of this sweep have no test split; keep one apart with data.test, in another sweep")
    if not result.get("test") and settings["data.name"] == "generator":
        # A folder may come from anybody: only a user may decide that a program which it names is executed.
        raise UserError(
            f"the data of {run} come from a program, {settings['data.path']}, and cnn-vit runs no program that only a "
            f"run folder names; if you trust it, name it yourself: cnn-vit evaluate --workdir={run} "
            f"--data={settings['data.path']} --split=test"
        )
    result = loop.train(settings, run)
    test = result["test"]
    return SplitReading(
        id=trial.id,
        suggestion=trial.suggestion,
        seed=trial.seed,
        values=dict(trial.values),
        accuracy=test["accuracy"],
        loss=test["loss"],
        n=test["n"],
        reads=len(reader.read_object_lines(run / folder.TEST_READS)),
    )
