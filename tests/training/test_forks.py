"""Forks: a new run that goes on from another's checkpoint, whatever happens while it begins."""

import itertools
import json

import pytest
from faults import PlantedError, faulty, flipped
from running import at_step, contents, left, lines, result, signaled, state, steps, train

from cnn_vit.errors import StoppedError, UserError
from cnn_vit.runs.manifests import DamageError
from cnn_vit.training import forks, stops


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run. To be read, not changed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train("mlp", folder)
    return folder


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """A run that was stopped at step 7. Its newest checkpoints are 5 (the best so far) and 7."""
    with monkeypatch.context() as patch:
        patch.setattr(stops, "ECHO_SECONDS", 0.0)  # no echo to be waited for
        at_step(patch, 7, signaled)
        with pytest.raises(StoppedError):
            train("mlp", tmp_path / "source", "keep_checkpoints=2")
    assert steps(tmp_path / "source") == [5, 7]
    return tmp_path / "source"


def same_but_for_the_fork(fork, whole):
    """A fork with the settings of its source ends as the source would have."""
    ours, theirs = left(fork), left(whole)
    del ours["result"]["forked_from"], theirs["result"]["forked_from"]
    del ours["samples"], theirs["samples"]  # first values are not a fork's
    return ours == theirs


def test_a_fork_goes_on_from_the_newest_checkpoint_with_the_journal_up_to_there(stopped, whole, tmp_path, capsys):
    before = contents(stopped)
    train("mlp", tmp_path / "fork", fork_from=stopped)
    assert "going on from step 7 of 12" in capsys.readouterr().err
    assert same_but_for_the_fork(tmp_path / "fork", whole)
    assert result(tmp_path / "fork")["forked_from"] == {"from": str(stopped), "step": 7}
    assert contents(stopped) == before
    train("mlp", tmp_path / "slower", "optimizer.learning_rate=1e-30", fork_from=stopped)
    up_to_7 = [line for line in lines(whole) if line["step"] <= 7]
    assert lines(tmp_path / "slower")[: len(up_to_7)] == up_to_7 != []
    assert lines(tmp_path / "slower")[-2]["learning_rate"] < 1e-29


def test_a_fork_takes_the_best_checkpoint_along(stopped, tmp_path):
    journal = [line | {"accuracy": 1.0} if line["kind"] == "evaluation" else line for line in lines(stopped)]
    (stopped / "metrics.jsonl").write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in journal))
    train("mlp", tmp_path / "fork", "test_weights=best", fork_from=stopped)
    found = result(tmp_path / "fork")
    assert found["tested"]["step"] == found["best"]["step"] == 5
    assert state(tmp_path / "fork", 5) == state(stopped, 5)


def test_a_fork_with_other_validation_examples_starts_its_own_journal(stopped, tmp_path):
    train("mlp", tmp_path / "fork", "data.validation=train[:32]", "data.train=train[32:]", fork_from=stopped)
    assert [line["step"] for line in lines(tmp_path / "fork")] == [8, 10, 10, 12, 12]


def test_a_fork_killed_while_it_begins_is_begun_again(stopped, whole, tmp_path, monkeypatch):
    """At every thirteenth call of the file door: before, between and after fork.json, journal, best and newest."""

    def fork(folder, at):
        """Forks, with the file door dead from call `at` on until the loop would begin; how many calls there were."""
        with monkeypatch.context() as patch:
            count, took = itertools.count(), forks.take_over

            def taking(*given, **named):
                nonlocal count
                with monkeypatch.context() as inner:
                    count = faulty(inner, at, dead=at >= 0)
                    return took(*given, **named)

            patch.setattr(forks, "take_over", taking)
            train("mlp", folder, fork_from=stopped)
        return next(count)

    calls, phases = fork(tmp_path / "fork", -1), set()
    for at in range(0, calls - 20, 13):  # Orbax writes a file more or less each time, which varies the calls by a few
        folder = tmp_path / str(at)
        with pytest.raises(PlantedError):
            fork(folder, at)
        phases.add(((folder / "fork.json").exists(), (folder / "metrics.jsonl").exists(), *steps(folder)))
        train("mlp", folder, fork_from=stopped)
        assert same_but_for_the_fork(folder, whole), at
    assert phases >= {(False, False), (True, True), (True, True, 5)}


def test_a_run_is_not_forked_into_what_it_cannot_be(stopped, tmp_path, capsys):
    fork = tmp_path / "fork"
    for changes, words in [
        (["duration=7"], r"is at step 7 of this run's 7; make duration longer"),
        (["model.hidden=(16,)"], r"checkpoints/7 holds another network or optimizer: params/head/kernel is"),
        (["data.classes=4"], r"was trained on the classes \[disc, .*, the data now have \[disc"),
    ]:
        with pytest.raises(UserError, match=words):
            train("mlp", fork, *changes, fork_from=stopped)
    with pytest.raises(UserError, match=r"holds no run \(no config\.json\)"):
        train("mlp", fork, fork_from=tmp_path)
    with pytest.raises(UserError, match="is the run itself"):
        train("mlp", stopped, fork_from=stopped)
    train("mlp", fork, fork_from=stopped)  # nothing that was refused is in the way
    other = tmp_path / "other"
    train("mlp", other)
    for folder, words in ((fork, f"was forked from {stopped}"), (other, "began without --fork_from")):
        before = contents(folder)
        with pytest.raises(UserError, match=words):
            train("mlp", folder, fork_from=other if folder == fork else stopped)
        assert contents(folder) == before
    train("mlp", fork)  # without the words: what began as a fork stays one


def test_a_fork_whose_best_is_damaged_is_refused_only_where_it_needs_it(stopped, tmp_path, capsys):
    spoiled = stopped / "checkpoints" / "5" / "_METADATA"
    spoiled.write_bytes(flipped(spoiled.read_bytes(), 9))
    with pytest.raises(DamageError, match="checkpoint 5 is damaged"):
        train("mlp", tmp_path / "needs", "test_weights=best", fork_from=stopped)
    train("mlp", tmp_path / "fork", fork_from=stopped)
    assert "checkpoint 5 is damaged" in capsys.readouterr().err
