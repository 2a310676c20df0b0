"""Trials have names by what decides their numbers, states by what lies in their folders, and are done in workers."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import pytest

from cnn_vit import files
from cnn_vit.errors import DivergedError, SurroundingsError, TooLittleMemoryError, UserError
from cnn_vit.runs.manifests import DamageError
from cnn_vit.runs.seals import RunDamageError
from cnn_vit.studies import tasks, trials, worker
from cnn_vit.studies.trials import DataCache, PlannedTrial, Trial

SMOKE = "configs/digits_mlp.py:smoke"
FEW_STEPS = ("duration=4 steps", "evaluate_every=2 steps", "log_every=2 steps", "schedule.warmup=0")
ONE = Trial("train", SMOKE, FEW_STEPS)


@pytest.fixture(scope="module")
def data_cache():
    return DataCache()


@pytest.fixture(scope="module")
def name_of(data_cache):
    """A function that plans a single trial and returns its name."""

    def name(trial):
        (planned,) = trials.plan_trials([trial], Path("out"), data_cache)
        assert not planned.error
        return planned.id

    return name


# Names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"overrides": (*FEW_STEPS, "optimizer.learning_rate=1e-4")},
        {"overrides": (*FEW_STEPS, "data.train_count=128")},
        {"overrides": (*FEW_STEPS, "data.batch_size=16")},
    ],
)
def test_what_decides_the_numbers_of_a_trial_gives_it_another_name(name_of, change):
    assert name_of(replace(ONE, **change)) != name_of(ONE)


def test_what_changes_no_number_leaves_a_trial_its_name(name_of):
    assert name_of(replace(ONE, overrides=(*FEW_STEPS, "data.workers=1", "keep_checkpoints=3"))) == name_of(ONE)


def test_a_trial_is_found_again_by_another_spelling_of_its_settings(name_of):
    spelled = ("schedule.warmup=0 steps", "log_every=2", "evaluate_every=2", "duration=4")
    assert name_of(replace(ONE, overrides=spelled)) == name_of(ONE)


def test_the_same_trial_twice_is_refused(data_cache):
    twice = [ONE, replace(ONE, overrides=(*FEW_STEPS, "data.workers=1"))]
    with pytest.raises(UserError, match=r"are the same trial; leave one of them out"):
        trials.plan_trials(twice, Path("out"), data_cache)


@pytest.mark.parametrize(
    ("trial", "sentence"),
    [
        (replace(ONE, overrides=("optimizer.learning_rat=1",)), "did you mean optimizer.learning_rate"),
        (replace(ONE, task="trian"), "no task of a trial 'trian'; did you mean train"),
        (replace(ONE, task="knn"), "set pretrained.weights"),
        (replace(ONE, config="configs/digits_mpl.py"), "did you mean configs/digits_mlp.py"),
    ],
)
def test_a_trial_that_cannot_be_is_planned_with_the_reason(data_cache, trial, sentence):
    planned = trials.plan_trials([trial, ONE], Path("out"), data_cache)
    assert sentence in planned[0].error
    assert planned[0].settings is None
    assert not planned[1].error


def test_a_trial_comes_back_whole_from_plain_values(data_cache):
    trial = replace(ONE, options=(("shots", 5),))
    (planned,) = trials.plan_trials([trial], Path("/out"), data_cache)
    returned = trials.from_json(json.loads(json.dumps(trials.to_json(planned))))
    assert returned.settings.values == planned.settings.values
    assert replace(returned, settings=None) == replace(planned, settings=None)
    # whoever does it may come to work in another folder
    assert trials.to_json(replace(planned, folder=Path("here")))["folder"] == str(Path.cwd() / "here")


def test_data_sets_are_shared_and_the_oldest_makes_room(monkeypatch):
    read = []
    monkeypatch.setattr(trials.data, "load", lambda section: read.append(section["train_count"]) or len(read))
    cache = DataCache(most=2)
    for count, batch_size in ((10, 8), (10, 16), (20, 8), (10, 8), (30, 8), (10, 8), (20, 8)):
        cache.load({"name": "shapes", "train_count": count, "batch_size": batch_size})
    assert read == [10, 20, 30, 20]


def test_batches_of_another_size_are_other_data_where_they_decide_the_padding(monkeypatch):
    read = []
    monkeypatch.setattr(trials.data, "load", lambda section: read.append(section["batch_size"]) or len(read))
    cache = DataCache()
    for fit, batch_size in (("crop", 8), ("crop", 16), ("pad_batch", 8), ("pad_batch", 16), ("pad_batch", 8)):
        cache.load({"name": "folder", "path": "photos", "fit": fit, "batch_size": batch_size})
    assert read == [8, 8, 16]


# States ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path):
    """A trial with a folder, of which nothing is known but that."""
    return PlannedTrial(ONE, "0123", tmp_path / "trials" / "0123", None, "", "", steps=4)


def test_a_trial_is_queued_then_running_then_interrupted_then_over(place):
    assert trials.read_record(place).state == trials.QUEUED
    with files.Lock(place.folder / trials.LOCK):
        trials.note_start(place)
        assert trials.read_record(place).state == trials.RUNNING
    assert trials.read_record(place).state == trials.INTERRUPTED
    trials.write_result(place, trials.DIVERGED, reason="the loss is nan")
    record = trials.read_record(place)
    assert (record.state, record.reason, record.run) == (trials.DIVERGED, "the loss is nan", None)


def test_deaths_count_only_while_a_trial_does_not_get_further(place):
    for _ in range(2):
        trials.note_start(place)
    assert trials.count_deaths(place) == 2
    (place.folder / trials.RUN / "checkpoints" / "2").mkdir(parents=True)
    assert trials.count_deaths(place) == 0
    trials.note_start(place)
    assert trials.count_deaths(place) == 1
    for _ in range(2):  # it was asked to stop, which counts once
        trials.note_stop(place)
    assert trials.count_deaths(place) == 0
    assert (place.folder / trials.ATTEMPTS).read_text().count("stop") == 1


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (DivergedError("the loss is nan"), trials.DIVERGED),
        (MemoryError(), trials.OUT_OF_MEMORY),
        (RuntimeError("RESOURCE_EXHAUSTED: out of memory"), trials.OUT_OF_MEMORY),
        (
            RuntimeError("INTERNAL: Error dispatching computation: Out of memory allocating 9 bytes."),
            trials.OUT_OF_MEMORY,
        ),
        (TooLittleMemoryError("a step needs 9 GB"), trials.OUT_OF_MEMORY),
        (UserError("no setting"), trials.BAD_CONFIG),
        (ZeroDivisionError("division by zero"), trials.CRASHED),
        (SurroundingsError("the disk is full"), None),
        (DamageError(4, "params has changed"), trials.CRASHED),
        (RunDamageError("classes.json is not as it was"), trials.CRASHED),
    ],
)
def test_an_error_says_how_a_trial_ended(error, state):
    assert tasks.state_of_error(error) == state


# A worker -------------------------------------------------------------------------------------------------------------


class SilentDisplay:
    """A display that nobody looks at."""

    def update(self, step, *, accuracy=None):
        pass

    def say(self, sentence):
        pass

    def close(self):
        pass


@pytest.fixture
def backend_compilations():
    """A list that grows by one with each program that XLA compiles or reads from the cache."""
    seen = []

    def listen(event, duration, **facts):
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)


def test_a_second_trial_of_a_process_compiles_nothing_and_reads_no_data(tmp_path, backend_compilations, monkeypatch):
    changed = Trial("train", SMOKE, (*FEW_STEPS, "optimizer.learning_rate=1e-4", "optimizer.weight_decay=0.3"), seed=1)
    cache = DataCache()
    first, second = trials.plan_trials([ONE, changed], tmp_path, cache)
    worker.do_trial(first, cache, SilentDisplay(), keep="best")
    assert backend_compilations
    backend_compilations.clear()
    monkeypatch.setattr(trials.data, "load", None)
    worker.do_trial(second, cache, SilentDisplay(), keep="best")
    assert not backend_compilations
    records = [trials.read_record(planned) for planned in (first, second)]
    assert [record.state for record in records] == [trials.COMPLETE] * 2
    assert records[0].result["validation"]["loss"] != records[1].result["validation"]["loss"]


def test_a_trial_that_has_a_result_is_not_done_again(tmp_path, place, monkeypatch):
    trials.write_result(place, trials.COMPLETE, result={"validation": {"accuracy": 1.0}})
    monkeypatch.setattr(tasks, "do_task", None)
    worker.do_trial(place, DataCache(), SilentDisplay(), keep="best")
    assert not (place.folder / trials.ATTEMPTS).exists()


def test_what_is_in_the_way_is_no_result(tmp_path, place, monkeypatch):
    def fail(*_):
        raise SurroundingsError("the disk is full")

    (planned,) = trials.plan_trials([ONE], tmp_path, DataCache())
    monkeypatch.setattr(tasks, "do_task", fail)
    with pytest.raises(worker.ObstacleError, match="the disk is full"):
        worker.do_trial(planned, DataCache(), SilentDisplay(), keep="best")
    assert trials.read_record(planned).state == trials.INTERRUPTED
    assert trials.count_deaths(planned) == 0


@pytest.mark.parametrize(("keep", "kept"), [("best", {"best", "tested"}), ("all", None)])
def test_a_finished_trial_keeps_the_checkpoints_that_something_reads(tmp_path, keep, kept):
    often = ("checkpoint_every=1 steps", "keep_checkpoints=4")
    (planned,) = trials.plan_trials([replace(ONE, overrides=FEW_STEPS + often)], tmp_path, DataCache())
    worker.do_trial(planned, DataCache(), SilentDisplay(), keep=keep)
    record = trials.read_record(planned)
    steps = {int(path.name) for path in (record.run / "checkpoints").iterdir() if path.name.isdecimal()}
    expected = {1, 2, 3, 4} if kept is None else {record.result[name]["step"] for name in kept}
    assert steps == expected

    from cnn_vit.training import loop, trained

    assert trained.load(record.run).spec.model == "mlp/test"
    assert loop.train(planned.settings, record.run) == record.result  # finished, and so left alone
