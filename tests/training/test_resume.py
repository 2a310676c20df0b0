"""A run that was stopped, damaged or refused goes on to the bits of one that nothing happened to."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from faults import PlantedError, damages, faulty
from running import (
    COMMON,
    EPOCH,
    RECIPES,
    at_step,
    configured,
    contents,
    left,
    leftovers,
    lines,
    result,
    signaled,
    steps,
    train,
    undisturbed,
)

from cnn_vit import data, files
from cnn_vit.data.feed import stream
from cnn_vit.errors import DivergedError, StoppedError, SurroundingsError, UserError
from cnn_vit.runs import folder, manifests
from cnn_vit.training import stops
from cnn_vit.training.run import Run


def stopped(monkeypatch, name, folder, step, *changes, number=signal.SIGTERM):
    """A run that a signal stopped at a step."""
    with monkeypatch.context() as patch:
        at_step(patch, step, lambda: signaled(number))
        with pytest.raises(StoppedError) as error:
            train(name, folder, *changes)
    return error.value


@pytest.mark.parametrize("step", [1, 5, EPOCH, EPOCH + 1])
@pytest.mark.parametrize("name", ["cnn", "vit"])
def test_a_run_goes_on_from_any_step_to_the_same_bits(name, step, tmp_path, monkeypatch):
    error = stopped(monkeypatch, name, tmp_path, step)
    assert (str(error), error.code) == (f"stopped at step {step} by SIGTERM; the same command resumes", 143)
    assert steps(tmp_path)[-1] == step
    assert not (tmp_path / "result.json").exists()
    train(name, tmp_path)
    assert left(tmp_path) == undisturbed(name)
    assert not leftovers(tmp_path)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_each_signal_has_its_code(number, code, tmp_path, monkeypatch):
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_DFL)  # under nohup, a run lets SIGHUP pass
    assert stopped(monkeypatch, "mlp", tmp_path, 3, number=number).code == code


def test_a_run_stopped_twice_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    stopped(monkeypatch, "mlp", tmp_path, 2)
    stopped(monkeypatch, "mlp", tmp_path, 7)
    train("mlp", tmp_path)
    assert left(tmp_path) == undisturbed("mlp")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize(("room", "last"), [(data, "load"), (Run, "restore_or_init")], ids=["data", "first state"])
def test_a_signal_before_the_first_step_leaves_nothing_and_the_same_command_starts_afresh(
    number, code, room, last, tmp_path, monkeypatch
):
    """As soon as the data are there, and when all is ready for the first step."""
    monkeypatch.setattr(stops, "ECHO_SECONDS", 0.0)  # no echo to be waited for
    done = getattr(room, last)
    with monkeypatch.context() as patch:
        patch.setattr(room, last, lambda *given: (done(*given), signaled(number))[0])
        with pytest.raises(StoppedError) as error:
            train("mlp", tmp_path)
    name = signal.Signals(number).name
    assert str(error.value) == f"stopped before its first step by {name}; the same command starts again"
    assert error.value.code == code
    assert not any((tmp_path / name).exists() for name in ("checkpoints", "result.json", "predictions"))
    assert not folder.has_begun(tmp_path)
    train("mlp", tmp_path)
    assert left(tmp_path) == undisturbed("mlp")


# On the disk ----------------------------------------------------------------------------------------------------------


def test_a_step_counts_only_once_the_journals_lines_up_to_it_are_on_the_disk(tmp_path, monkeypatch):
    """By what stood in the journal when it was last flushed before a manifest was."""
    durable, sealed, fsync = {}, {}, os.fsync

    def noted(handle):
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        if path.suffix == ".jsonl":
            durable[path.name] = path.read_text()
        elif path.name.startswith(".MANIFEST.json"):
            sealed[int(path.parent.name)] = dict(durable)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    train("mlp", tmp_path, "log_every=1", "checkpoint_every=3")
    assert {3, 6, 9, 12} <= sealed.keys()
    for name in ("metrics.jsonl", "timing.jsonl"):
        written = (tmp_path / name).read_text().splitlines(keepends=True)
        for step, there in sealed.items():
            until = "".join(line for line in written if json.loads(line)["step"] <= step)
            assert until.count("\n") >= step
            assert there.get(name, "").startswith(until), (name, step)


# Damage ---------------------------------------------------------------------------------------------------------------


def largest(folder):
    """The largest file of a checkpoint, which holds arrays."""
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("harm", ["flip 0", "cut in half", "zeroed", "deleted", "no manifest", "another file", "empty"])
def test_a_damaged_newest_checkpoint_falls_back_loudly_to_the_same_bits(harm, tmp_path, monkeypatch, capsys):
    stopped(monkeypatch, "mlp", tmp_path, 9)
    newest = tmp_path / "checkpoints" / "9"
    if harm == "another file":
        (newest / "stranger").write_text("?")
    elif harm == "empty":
        files.remove(newest)
        newest.mkdir()
    elif harm == "no manifest":
        (newest / "MANIFEST.json").unlink()
    else:
        path = largest(newest)
        bad = dict(damages(path))[harm](path.read_bytes())
        path.write_bytes(bad or b"")
        if bad is None:
            path.unlink()
    capsys.readouterr()
    train("mlp", tmp_path)
    assert re.search(r"checkpoint 9\b.*(going back to step 8|never finished)", capsys.readouterr().err)
    assert left(tmp_path) == undisturbed("mlp")


def test_a_run_without_a_whole_checkpoint_is_refused_and_nothing_is_touched(tmp_path, monkeypatch):
    stopped(monkeypatch, "mlp", tmp_path, 9)
    for path in manifests.step_folders(tmp_path / "checkpoints").values():
        bad = bytearray(largest(path).read_bytes())
        bad[len(bad) // 2] ^= 1
        largest(path).write_bytes(bad)
    before = contents(tmp_path)
    with pytest.raises(SurroundingsError, match=r"no checkpoint in .* is whole") as error:
        train("mlp", tmp_path)
    assert error.value.code == 3
    changed = contents(tmp_path)
    assert {name for name in before if changed[name] != before[name]} <= {"environment.json"}


@pytest.mark.slow
def test_a_run_that_dies_at_any_call_of_the_file_door_during_a_save_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    number = 0
    while True:
        folder = tmp_path / str(number)
        with monkeypatch.context() as patch:
            counts = []
            at_step(patch, 8, lambda at=number, patch=patch, counts=counts: counts.append(faulty(patch, at, dead=True)))
            try:
                train("mlp", folder)
                break  # later than the last call of this run
            except PlantedError:
                pass
        train("mlp", folder)
        assert left(folder) == undisturbed("mlp"), number
        assert not leftovers(folder), number
        number += 1
    assert number > 20


# Numbers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log_every", ["1", "1000"])
def test_a_run_that_leaves_the_finite_numbers_names_the_step_and_keeps_the_last_finite_checkpoint(log_every, tmp_path):
    changes = [
        "optimizer.name=sgd", "optimizer.learning_rate=1000", "optimizer.weight_decay=100", "schedule.name=constant",
        "schedule.warmup=0", f"log_every={log_every}", "checkpoint_every=2", "optimizer.clip=1",
    ]  # fmt: skip  # kernels grow 100,000-fold a step: past 3e38 after a few
    with pytest.raises(DivergedError, match=r"step (\d+) is not finite") as error:
        train("mlp", tmp_path, *changes)
    assert error.value.code == 4
    told = json.loads((tmp_path / "crash" / "diverged.json").read_text())
    step = told["step"]
    assert f"step {step} is not finite" in str(error.value)
    final = configured("mlp", *changes)
    n = len(data.load(final.section("data")).splits["train"])
    positions = np.arange((step - 1) * 32, step * 32)
    assert told["index"] == stream.order(n, final["seed"], positions).tolist()
    assert step > 2
    assert steps(tmp_path)
    assert steps(tmp_path)[-1] < step
    assert all(line["step"] < step and None not in line.values() for line in lines(tmp_path))


# Neighbors ------------------------------------------------------------------------------------------------------------


def test_a_second_process_is_refused_with_pid_and_host(tmp_path):
    recipe, *its_own = RECIPES["mlp"]
    given = [f"--config={recipe}", *(f"--config.{one}" for one in (*its_own, *COMMON)), f"--workdir={tmp_path}"]
    with files.Lock(tmp_path / "lock"):
        words = [sys.executable, "-m", "cnn_vit", "train", *given]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert re.fullmatch(rf"{tmp_path} is in use by process {os.getpid()} on \S+; wait .*", line)


def test_a_folder_of_other_settings_is_refused_key_by_key_and_nothing_is_touched(tmp_path, monkeypatch):
    stopped(monkeypatch, "mlp", tmp_path, 3)
    before = contents(tmp_path)
    with pytest.raises(UserError) as error:
        train("mlp", tmp_path, "seed=7", "optimizer.weight_decay=0.5")
    assert error.value.code == 2
    assert "seed: 7 here, 0 in the folder" in str(error.value)
    assert "optimizer.weight_decay: 0.5 here, " in str(error.value)
    assert "--fork_from" in str(error.value)
    assert contents(tmp_path) == before


def test_other_data_are_refused(tmp_path, monkeypatch):
    stopped(monkeypatch, "mlp", tmp_path, 3)
    facts = json.loads((tmp_path / "data.json").read_text())
    (tmp_path / "data.json").write_text(json.dumps(facts | {"fingerprint": "0" * 64}))
    with pytest.raises(UserError, match="trained on other data: fingerprint 000000000000"):
        train("mlp", tmp_path)


def test_what_changes_no_result_may_change_on_resume(tmp_path, monkeypatch):
    stopped(monkeypatch, "mlp", tmp_path, 3)
    train("mlp", tmp_path, "checkpoint_every=1", "data.workers=0", "keep_checkpoints=5")
    assert left(tmp_path)["metrics"] == undisturbed("mlp")["metrics"]


def test_a_resume_on_other_cores_devices_and_versions_says_so_and_goes_on(tmp_path, monkeypatch, capsys):
    stopped(monkeypatch, "mlp", tmp_path, 3)
    path = Path(tmp_path / "environment.json")
    facts = json.loads(path.read_text())
    now = facts["cores"], facts["versions"]["jax"]
    facts["devices"] = {"count": 8, "platform": "tpu", "kind": "v9"}
    facts["cores"], facts["versions"]["jax"] = 96, "0.0.1"
    path.write_text(json.dumps(facts))
    train("mlp", tmp_path)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "where bits may differ" in line]
    assert line == (
        f"this run goes on where bits may differ from its beginning: cores 96 then, {now[0]} now; "
        "device count 8 then, 1 now; device platform tpu then, cpu now; device kind v9 then, cpu now; "
        f"jax 0.0.1 then, {now[1]} now"
    )
    assert result(tmp_path)["steps"] == 12
