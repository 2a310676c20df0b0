"""Forks: a new run that starts from another run's checkpoint, whatever happens while it begins."""

import itertools
import json

import pytest
from faults import PlantedError, flip_bit, plant_file_fault
from running import (
    call_at_step,
    committed_steps,
    hash_files,
    read_lines,
    read_outcome,
    read_result,
    send_signal,
    state_digest,
    train,
)
from sealing import reseal

from cnn_vit import stops
from cnn_vit.errors import StoppedError, UserError
from cnn_vit.runs.manifests import DamageError
from cnn_vit.training import forks


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run. To be read, not changed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train("mlp", folder)
    return folder


@pytest.fixture
def origin(tmp_path, monkeypatch):
    """A run that was stopped at step 7. Its newest checkpoints are 5 (the best so far) and 7."""
    with monkeypatch.context() as patch:
        patch.setattr(stops, "ECHO_SECONDS", 0.0)  # here a signal has no echo to wait for
        call_at_step(patch, 7, send_signal)
        with pytest.raises(StoppedError):
            train("mlp", tmp_path / "source", "keep_checkpoints=2")
    assert committed_steps(tmp_path / "source") == [5, 7]
    return tmp_path / "source"


def ends_alike(fork, whole):
    """Whether a fork with the settings of its origin ended as the origin would have."""
    fork_outcome, outcome = read_outcome(fork), read_outcome(whole)
    for differing in (fork_outcome, outcome):
        del differing["result"]["forked_from"]
        del differing["samples"]  # a fork's samples have no initial values
    return fork_outcome == outcome


def test_a_fork_goes_on_from_the_newest_checkpoint_with_the_journal_up_to_there(origin, whole, tmp_path, capsys):
    origin_before = hash_files(origin)
    train("mlp", tmp_path / "fork", fork_from=origin)
    assert "going on from step 7 of 12" in capsys.readouterr().err
    assert ends_alike(tmp_path / "fork", whole)
    assert read_result(tmp_path / "fork")["forked_from"] == {"from": str(origin), "step": 7}
    assert hash_files(origin) == origin_before
    train("mlp", tmp_path / "slower", "optimizer.learning_rate=1e-30", fork_from=origin)
    lines_up_to_7 = [line for line in read_lines(whole) if line["step"] <= 7]
    assert read_lines(tmp_path / "slower")[: len(lines_up_to_7)] == lines_up_to_7 != []
    assert read_lines(tmp_path / "slower")[-2]["learning_rate"] < 1e-29


def test_a_fork_takes_the_best_checkpoint_along(origin, tmp_path):
    lines = read_lines(origin)
    for line in lines:
        if line["kind"] == "evaluation":
            line["accuracy"] = 1.0
    (origin / "metrics.jsonl").write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))
    reseal(origin)
    train("mlp", tmp_path / "fork", "test_weights=best", fork_from=origin)
    result = read_result(tmp_path / "fork")
    assert result["tested"]["step"] == result["best"]["step"] == 5
    assert state_digest(tmp_path / "fork", 5) == state_digest(origin, 5)


def test_a_fork_with_other_validation_examples_starts_its_own_journal(origin, tmp_path):
    train("mlp", tmp_path / "fork", "data.validation=train[:32]", "data.train=train[32:]", fork_from=origin)
    assert [line["step"] for line in read_lines(tmp_path / "fork")] == [8, 10, 10, 12, 12]


def test_a_fork_killed_while_it_begins_is_begun_again(origin, whole, tmp_path, monkeypatch):
    """At every thirteenth call of the file door: before, between and after fork.json, journal, best and newest."""
    take_over = forks.take_over

    def fork(folder, failing_call):
        """Forks, with a file fault from a call on until the loop would begin; returns how many calls there were."""
        counter = itertools.count()

        def take_over_with_fault(*args, **kwargs):
            nonlocal counter
            with monkeypatch.context() as fault:
                counter = plant_file_fault(fault, failing_call, dead=failing_call >= 0)
                return take_over(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(forks, "take_over", take_over_with_fault)
            train("mlp", folder, fork_from=origin)
        return next(counter)

    calls, phases = fork(tmp_path / "fork", -1), set()
    # Orbax writes a few files more or less each time, five calls each, on a machine with much to do also four or more
    for failing_call in range(0, calls - 40, 13):
        folder = tmp_path / str(failing_call)
        with pytest.raises(PlantedError):
            fork(folder, failing_call)
        phases.add(((folder / "fork.json").exists(), (folder / "metrics.jsonl").exists(), *committed_steps(folder)))
        train("mlp", folder, fork_from=origin)
        assert ends_alike(folder, whole), failing_call
    assert phases >= {(False, False), (True, True), (True, True, 5)}


def test_a_fork_says_so_where_the_step_that_it_noted_is_not_there_any_more(origin, tmp_path, monkeypatch, capsys):
    """It was killed behind its note of step 7, and then the origin went on and deleted that checkpoint."""

    def fail(*_, **__):
        raise PlantedError

    fork, changes = tmp_path / "fork", ("duration=14 steps",)
    with monkeypatch.context() as patch:
        patch.setattr(forks, "copy_best", fail)
        with pytest.raises(PlantedError):
            train("mlp", fork, *changes, fork_from=origin)
    assert json.loads((fork / "fork.json").read_text())["step"] == 7
    assert "begun from step 7" not in capsys.readouterr().err
    train("mlp", origin, "keep_checkpoints=2")
    assert 7 not in committed_steps(origin)
    train("mlp", fork, *changes, fork_from=origin)
    sentence = f"this fork was begun from step 7 of {origin}, whose checkpoint is not there any more; it begins anew "
    assert f"{sentence}from step 12, the newest\n" in capsys.readouterr().err
    assert read_result(fork)["forked_from"] == {"from": str(origin), "step": 12}


def test_a_run_is_not_forked_into_what_it_cannot_be(origin, tmp_path, capsys):
    fork = tmp_path / "fork"
    for changes, message in [
        (["duration=7"], r"is at step 7 of this run's 7; make duration longer"),
        (["model.hidden=(16,)"], r"checkpoints/7 holds another network or optimizer: params/head/kernel is"),
        (["data.classes=4"], r"was trained on the classes \[disc, .*, the data now have \[disc"),
    ]:
        with pytest.raises(UserError, match=message):
            train("mlp", fork, *changes, fork_from=origin)
    with pytest.raises(UserError, match=r"holds no run \(no config\.json\)"):
        train("mlp", fork, fork_from=tmp_path)
    with pytest.raises(UserError, match="is the run itself"):
        train("mlp", origin, fork_from=origin)
    train("mlp", fork, fork_from=origin)  # nothing that was refused is in the way
    unforked = tmp_path / "other"
    train("mlp", unforked)
    for folder, fork_from, message in (
        (fork, unforked, f"was forked from {origin}"),
        (unforked, origin, "began without --fork_from"),
    ):
        files_before = hash_files(folder)
        with pytest.raises(UserError, match=message):
            train("mlp", folder, fork_from=fork_from)
        assert hash_files(folder) == files_before
    train("mlp", fork)  # without --fork_from: what began as a fork stays one


def test_a_fork_whose_best_is_damaged_is_refused_only_where_it_needs_it(origin, tmp_path, capsys):
    damaged = origin / "checkpoints" / "5" / "_METADATA"
    damaged.write_bytes(flip_bit(damaged.read_bytes(), 9))
    with pytest.raises(DamageError, match="checkpoint 5 is damaged"):
        train("mlp", tmp_path / "needs", "test_weights=best", fork_from=origin)
    train("mlp", tmp_path / "fork", fork_from=origin)
    assert "checkpoint 5 is damaged" in capsys.readouterr().err


def test_a_run_of_another_optimizer_is_not_forked(tmp_path):
    """The states of adopt and adamw have the same arrays, and another meaning."""
    train("mlp", tmp_path / "origin", "optimizer.name=adopt", "optimizer.learning_rate=0.001")
    with pytest.raises(
        UserError, match=r"was trained by adopt, whose state adamw cannot go on with; set optimizer\.name"
    ):
        train("mlp", tmp_path / "fork", "optimizer.name=adamw", fork_from=tmp_path / "origin")
    assert not (tmp_path / "fork").exists()
