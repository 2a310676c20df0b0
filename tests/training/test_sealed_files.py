"""A run whose settings, classes, preprocessing, data or metrics have changed: refused, mended, or taken back a step."""

import json
import shutil

import pytest
from running import (
    call_at_step,
    committed_steps,
    hash_files,
    read_lines,
    read_outcome,
    send_signal,
    train,
    undisturbed_outcome,
)
from sealing import lines_until

from cnn_vit import data, stops
from cnn_vit.errors import StoppedError, UserError
from cnn_vit.runs import description
from cnn_vit.runs.seals import RunDamageError
from cnn_vit.training import loop, trained

REMADE = ("classes.json", "preprocessing.json", "data.json")


@pytest.fixture(scope="module")
def stopped_at_9(tmp_path_factory):
    """A run that was stopped at step 9, with the checkpoints 5 (the best), 8 and 9. To be copied, not changed."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stops, "ECHO_SECONDS", 0.0)  # here a signal has no echo to wait for
        call_at_step(patch, 9, send_signal)
        with pytest.raises(StoppedError):
            train("mlp", folder)
    assert committed_steps(folder) == [5, 8, 9]
    return folder


@pytest.fixture
def stopped(stopped_at_9, tmp_path):
    """A copy of that run, to be changed."""
    return shutil.copytree(stopped_at_9, tmp_path / "run")


@pytest.fixture
def begun(stopped):
    """A run that was killed before its first checkpoint."""
    shutil.rmtree(stopped / "checkpoints")
    return stopped


def change_mean(folder, added=0.01):
    """Adds to the mean in preprocessing.json; returns the file."""
    path = folder / "preprocessing.json"
    preprocessing = json.loads(path.read_text())
    preprocessing["mean"] = [mean + added for mean in preprocessing["mean"]]
    path.write_text(json.dumps(preprocessing, indent=2, sort_keys=True) + "\n")
    return path


def measure_otherwise(monkeypatch):
    """Has mean and std measured a little differently, as another version of a library may do."""
    mean_and_std = data.mean_and_std

    def measure(split):
        means, stds = mean_and_std(split)
        return tuple(mean * (1 + 1e-7) for mean in means), stds

    monkeypatch.setattr(data, "mean_and_std", measure)


# What describes a run -------------------------------------------------------------------------------------------------


def test_a_changed_mean_is_refused_and_nothing_is_touched(stopped):
    path = change_mean(stopped)
    before = hash_files(stopped)
    with pytest.raises(RunDamageError) as error:
        train("mlp", stopped)
    assert str(error.value) == (
        f"{path} has changed since checkpoint 9 sealed it; put it back from a copy, or remove it and give the run's "
        "`cnn-vit train` command again, which makes it anew"
    )
    assert error.value.code == 3
    assert hash_files(stopped) == before


def test_a_file_that_changes_while_the_run_goes_on_is_refused_later(tmp_path, monkeypatch):
    """What a save seals is what the run stands on, not what lies on the disk by then."""
    with monkeypatch.context() as patch:
        call_at_step(patch, 3, lambda: change_mean(tmp_path))
        train("mlp", tmp_path)
    for read in (trained.load, lambda folder: train("mlp", folder)):
        with pytest.raises(RunDamageError, match=r"preprocessing\.json has changed since result\.json sealed it"):
            read(tmp_path)


@pytest.mark.parametrize("name", REMADE)
def test_a_file_that_has_disappeared_is_made_anew_with_the_same_bytes(name, stopped, capsys):
    content = (stopped / name).read_bytes()
    (stopped / name).unlink()
    train("mlp", stopped)
    sentence = f"{stopped / name} has disappeared since checkpoint 9 sealed it; it is made anew, with the same content"
    assert sentence in capsys.readouterr().err.splitlines()
    assert (stopped / name).read_bytes() == content
    assert read_outcome(stopped) == undisturbed_outcome("mlp")


def test_a_file_that_would_be_made_anew_with_other_bytes_is_refused(stopped, monkeypatch):
    path = stopped / "preprocessing.json"
    path.unlink()
    measure_otherwise(monkeypatch)
    with pytest.raises(RunDamageError, match=f"{path} has disappeared .* settings and data now give another content"):
        train("mlp", stopped)
    assert not path.exists()


def test_a_mean_that_is_measured_otherwise_now_is_said_and_the_sealed_one_kept(stopped, monkeypatch, capsys):
    path = stopped / "preprocessing.json"
    content = path.read_bytes()
    (mean,) = json.loads(content)["mean"]
    measure_otherwise(monkeypatch)
    train("mlp", stopped)
    assert capsys.readouterr().err.splitlines()[0] == (
        f"{path} was measured differently: mean [{mean}] there, [{mean * (1 + 1e-7)}] now; "
        "the run goes on with what checkpoint 9 sealed"
    )
    assert path.read_bytes() == content
    assert read_outcome(stopped) == undisturbed_outcome("mlp")


def test_a_sealed_preprocessing_that_settings_and_data_contradict_is_refused(stopped):
    computed = json.loads((stopped / "preprocessing.json").read_text()) | {"fit": "stretch", "sizes": [[8, 8]]}
    with pytest.raises(UserError, match=r"fit crop there, stretch now; sizes None there, \[\[8, 8\]\] now") as error:
        description.choose_preprocessing(stopped, computed, say=pytest.fail)
    assert error.value.code == 2


def test_before_the_first_checkpoint_what_differs_is_named_and_written_anew(begun, capsys):
    contents = {name: (begun / name).read_bytes() for name in REMADE}
    change_mean(begun)
    (begun / "classes.json").unlink()
    facts = json.loads((begun / "data.json").read_text())
    (begun / "data.json").write_text(json.dumps(facts | {"counts": {"train": 7}}))
    train("mlp", begun)
    lines = capsys.readouterr().err.splitlines()
    differing = "is not what settings and data give now"
    for name, happened in zip(REMADE, ("is missing", differing, differing), strict=True):
        sentence = f"{begun / name} {happened}, and no checkpoint stands on it; it is written anew"
        assert sentence in lines
        assert (begun / name).read_bytes() == contents[name]
    assert read_outcome(begun) == undisturbed_outcome("mlp")


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("classes.json", "disc", "disk", "was trained on the classes"),
        ("data.json", '"fingerprint": "', '"fingerprint": "0', "was trained on other data"),
    ],
)
def test_before_the_first_checkpoint_other_data_are_refused(begun, name, old, new, message):
    text = (begun / name).read_text()
    assert old in text
    (begun / name).write_text(text.replace(old, new))
    before = hash_files(begun)
    with pytest.raises(UserError, match=message):
        train("mlp", begun)
    assert hash_files(begun) == before


def test_a_checkpoint_of_another_run_is_refused(stopped, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(stops, "ECHO_SECONDS", 0.0)
        call_at_step(patch, 9, send_signal)
        with pytest.raises(StoppedError):
            train("mlp", tmp_path / "other", "seed=7")
    shutil.rmtree(stopped / "checkpoints" / "9")
    shutil.copytree(tmp_path / "other" / "checkpoints" / "9", stopped / "checkpoints" / "9")
    for read in (trained.load, lambda folder: train("mlp", folder)):
        with pytest.raises(RunDamageError, match=r"config\.json has changed since checkpoint 9 sealed it"):
            read(stopped)


def test_a_fork_from_a_damaged_run_is_refused(stopped, tmp_path):
    path = change_mean(stopped)
    with pytest.raises(RunDamageError, match=f"{path} has changed since checkpoint 9 sealed it"):
        train("mlp", tmp_path / "fork", fork_from=stopped)


# Metrics --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["emptied", "lost", "first line changed"])
def test_metrics_on_which_no_checkpoint_stands_are_refused(stopped, damage):
    path = stopped / "metrics.jsonl"
    content = path.read_bytes()
    if damage == "lost":
        path.unlink()
    else:
        path.write_bytes(b"" if damage == "emptied" else content.replace(b'"loss": 2', b'"loss": 1', 1))
    before = hash_files(stopped)
    with pytest.raises(UserError, match=r"no checkpoint in .* is whole") as error:
        train("mlp", stopped)
    assert error.value.code == 3
    happened = "disappeared" if damage == "lost" else "changed"
    for step in (5, 8, 9):
        sentence = f"checkpoint {step} is damaged: {path} has {happened} since the checkpoint was saved"
        assert sentence in str(error.value)
    after = hash_files(stopped)
    assert {name for name in before if after[name] != before[name]} <= {"environment.json"}


def test_damaged_metrics_take_a_run_back_to_the_newest_checkpoint_whose_lines_are_whole(stopped, capsys):
    """Lines of the steps 6 and 8 stand behind those that checkpoint 5 seals, and are sealed by 8 and 9."""
    path = stopped / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    train("mlp", stopped)
    lines = capsys.readouterr().err.splitlines()
    for step in (9, 8):
        sentence = (
            f"checkpoint {step} is damaged: {path} has changed since the checkpoint was saved; going back to step 5"
        )
        assert sentence in lines
    assert read_outcome(stopped) == undisturbed_outcome("mlp")


def test_a_run_that_went_back_and_was_killed_at_once_is_whole(stopped, monkeypatch):
    """The later checkpoints have sealed lines that are no longer there, so they are gone too."""
    path = stopped / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-1])

    def stop_before_learning(run, step, state, stop, until):
        send_signal()
        stop.begin_training()

    with monkeypatch.context() as patch:
        patch.setattr(loop, "learn", stop_before_learning)
        patch.setattr(stops, "ECHO_SECONDS", 0.0)
        with pytest.raises(StoppedError):
            train("mlp", stopped)
    assert committed_steps(stopped) == [5]
    assert path.read_bytes() == lines_until(stopped, 5)
    trained.load(stopped)
    train("mlp", stopped)
    assert read_outcome(stopped) == undisturbed_outcome("mlp")


def test_what_stands_behind_the_sealed_lines_is_cut_off_unread(stopped):
    """Else a changed digit would make a line of a later step one of an earlier step, the best of all."""
    content = (stopped / "metrics.jsonl").read_bytes()
    best = b'{"accuracy": 1.0, "kind": "evaluation", "loss": 0.0, "n": 64, "split": "validation", "step": 5}\n'
    (stopped / "metrics.jsonl").write_bytes(content + best + b"nonsense\n")
    train("mlp", stopped)
    assert best not in (stopped / "metrics.jsonl").read_bytes()
    assert read_outcome(stopped) == undisturbed_outcome("mlp")


def test_a_result_that_a_finished_run_can_no_longer_stand_on_is_made_anew(tmp_path, capsys):
    """Without samples, a finished run needs its last checkpoint; where that is damaged, it goes back before its end."""
    train("mlp", tmp_path)
    (tmp_path / "samples.npz").unlink()
    (tmp_path / "checkpoints" / "12" / "_METADATA").write_bytes(b"")
    reads = (tmp_path / "test_reads.jsonl").read_text()
    capsys.readouterr()
    train("mlp", tmp_path)
    assert "going back to step 8" in capsys.readouterr().err
    assert (tmp_path / "test_reads.jsonl").read_text() == 2 * reads
    assert read_outcome(tmp_path) == undisturbed_outcome("mlp")
    assert [line["step"] for line in read_lines(tmp_path)][-1] == 12
