"""A run that was stopped, damaged or refused goes on to the bits of one that nothing happened to."""

import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from faults import PlantedError, list_damages, plant_file_fault
from running import (
    COMMON,
    EPOCH,
    RECIPES,
    call_at_step,
    committed_steps,
    find_leftovers,
    hash_files,
    load_settings,
    read_lines,
    read_outcome,
    read_result,
    send_signal,
    train,
    undisturbed_outcome,
)
from sealing import reseal

from cnn_vit import compilation, data, files, stops
from cnn_vit.data.feed import stream
from cnn_vit.errors import DivergedError, StoppedError, SurroundingsError, UserError
from cnn_vit.runs import folder, manifests
from cnn_vit.training import trained
from cnn_vit.training.run import Run

pytestmark = pytest.mark.usefixtures("_compiled_quickly")


def stop_run(monkeypatch, name, folder, step, *changes, number=signal.SIGTERM):
    """Trains a run that a signal stops at a step; returns the error."""
    with monkeypatch.context() as patch:
        call_at_step(patch, step, lambda: send_signal(number))
        with pytest.raises(StoppedError) as error:
            train(name, folder, *changes)
    return error.value


def slow(*arguments):
    """A case that only the slow tests have."""
    return pytest.param(*arguments, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("name", "step"),
    [
        *(("narrow_vit", EPOCH), ("frozen", EPOCH + 1)),
        *(slow("cnn", 1), slow("cnn", 5), slow("cnn", EPOCH), slow("cnn", EPOCH + 1)),
        *(slow("vit", 1), slow("vit", 5), slow("vit", EPOCH), slow("vit", EPOCH + 1)),
        *(slow("frozen", 1), slow("frozen", 5)),
    ],
)
def test_a_run_goes_on_from_any_step_to_the_same_bits(name, step, tmp_path, monkeypatch):
    error = stop_run(monkeypatch, name, tmp_path, step)
    assert (str(error), error.code) == (f"stopped at step {step} by SIGTERM; the same command resumes", 143)
    assert committed_steps(tmp_path)[-1] == step
    assert not (tmp_path / "result.json").exists()
    train(name, tmp_path)
    assert read_outcome(tmp_path) == undisturbed_outcome(name)
    assert not find_leftovers(tmp_path)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_each_signal_has_its_code(number, code, tmp_path, monkeypatch):
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_DFL)  # under nohup, a run ignores SIGHUP
    assert stop_run(monkeypatch, "mlp", tmp_path, 3, number=number).code == code


def test_a_run_stopped_twice_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    stop_run(monkeypatch, "mlp", tmp_path, 2)
    stop_run(monkeypatch, "mlp", tmp_path, 7)
    train("mlp", tmp_path)
    assert read_outcome(tmp_path) == undisturbed_outcome("mlp")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize(
    ("owner", "function_name"),
    [(data, "load"), (Run, "restore_or_init"), (Run, "compile_step")],
    ids=["data", "first state", "first compilation"],
)
def test_a_signal_before_the_first_step_leaves_nothing_and_the_same_command_starts_afresh(
    number, code, owner, function_name, tmp_path, monkeypatch
):
    """As soon as the data are there, when there is a state, and when all is ready for the first step."""
    monkeypatch.setattr(stops, "ECHO_SECONDS", 0.0)  # here a signal has no echo to wait for
    function = getattr(owner, function_name)

    def call_and_send_signal(*args):
        returned = function(*args)
        send_signal(number)
        return returned

    with monkeypatch.context() as patch:
        patch.setattr(owner, function_name, call_and_send_signal)
        with pytest.raises(StoppedError) as error:
            train("mlp", tmp_path)
    signal_name = signal.Signals(number).name
    assert (
        str(error.value) == f"stopped by {signal_name} before this start trained a step; the same command starts again"
    )
    assert error.value.code == code
    assert not any((tmp_path / name).exists() for name in ("checkpoints", "result.json", "predictions"))
    assert not folder.has_begun(tmp_path)
    train("mlp", tmp_path)
    assert read_outcome(tmp_path) == undisturbed_outcome("mlp")


# On the disk ----------------------------------------------------------------------------------------------------------


def test_a_step_counts_only_once_the_journals_lines_up_to_it_are_on_the_disk(tmp_path, monkeypatch):
    """By what stood in the journal when it was last flushed before a manifest was."""
    on_disk, on_disk_at_seal, fsync = {}, {}, os.fsync

    def note_and_fsync(handle):
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        if path.suffix == ".jsonl":
            on_disk[path.name] = path.read_text()
        elif path.name.startswith(".MANIFEST.json"):
            on_disk_at_seal[int(path.parent.name)] = dict(on_disk)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", note_and_fsync)
    train("mlp", tmp_path, "log_every=1", "checkpoint_every=3")
    assert {3, 6, 9, 12} <= on_disk_at_seal.keys()
    for name in ("metrics.jsonl", "timing.jsonl"):
        lines = (tmp_path / name).read_text().splitlines(keepends=True)
        for step, texts in on_disk_at_seal.items():
            lines_up_to_step = "".join(line for line in lines if json.loads(line)["step"] <= step)
            assert lines_up_to_step.count("\n") >= step
            assert texts.get(name, "").startswith(lines_up_to_step), (name, step)


# Damage ---------------------------------------------------------------------------------------------------------------


def largest_file(folder):
    """The largest file of a checkpoint, which holds arrays."""
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize(
    "damage", ["flip 0", "cut in half", "zeroed", "deleted", "no manifest", "another file", "empty"]
)
def test_a_damaged_newest_checkpoint_falls_back_loudly_to_the_same_bits(damage, tmp_path, monkeypatch, capsys):
    stop_run(monkeypatch, "mlp", tmp_path, 9)
    newest = tmp_path / "checkpoints" / "9"
    if damage == "another file":
        (newest / "stranger").write_text("?")
    elif damage == "empty":
        files.remove(newest)
        newest.mkdir()
    elif damage == "no manifest":
        (newest / "MANIFEST.json").unlink()
    else:
        path = largest_file(newest)
        damaged_content = dict(list_damages(path))[damage](path.read_bytes())
        if damaged_content is None:
            path.unlink()
        else:
            path.write_bytes(damaged_content)
    capsys.readouterr()
    train("mlp", tmp_path)
    assert re.search(r"checkpoint 9\b.*(going back to step 8|never finished)", capsys.readouterr().err)
    assert read_outcome(tmp_path) == undisturbed_outcome("mlp")


def test_a_run_without_a_whole_checkpoint_is_refused_and_nothing_is_touched(tmp_path, monkeypatch):
    stop_run(monkeypatch, "mlp", tmp_path, 9)
    for step_folder in manifests.step_folders(tmp_path / "checkpoints").values():
        path = largest_file(step_folder)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    before = hash_files(tmp_path)
    with pytest.raises(SurroundingsError, match=r"no checkpoint in .* is whole") as error:
        train("mlp", tmp_path)
    assert error.value.code == 3
    after = hash_files(tmp_path)
    assert {name for name in before if after[name] != before[name]} <= {"environment.json"}


@pytest.mark.slow
def test_a_run_that_dies_at_any_call_of_the_file_door_during_a_save_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    failing_call = 0
    while True:
        folder = tmp_path / str(failing_call)
        with monkeypatch.context() as patch:

            def plant_fault(patch=patch, failing_call=failing_call):
                plant_file_fault(patch, failing_call, dead=True)

            call_at_step(patch, 8, plant_fault)
            try:
                train("mlp", folder)
                break  # this run has fewer calls
            except PlantedError:
                pass
        train("mlp", folder)
        assert read_outcome(folder) == undisturbed_outcome("mlp"), failing_call
        assert not find_leftovers(folder), failing_call
        failing_call += 1
    assert failing_call > 20


# Divergence -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log_every", ["1", "1000"])
def test_a_run_that_leaves_the_finite_numbers_names_the_step_and_keeps_the_last_finite_checkpoint(log_every, tmp_path):
    # kernels grow 100,000-fold a step: past 3e38 after a few
    changes = [
        "optimizer.name=sgd", "optimizer.learning_rate=1000", "optimizer.weight_decay=100", "schedule.name=constant",
        "schedule.warmup=0", f"log_every={log_every}", "checkpoint_every=2", "optimizer.clip=1",
    ]  # fmt: skip
    with pytest.raises(DivergedError, match=r"step (\d+) is not finite") as error:
        train("mlp", tmp_path, *changes)
    assert error.value.code == 4
    diverged = json.loads((tmp_path / "crash" / "diverged.json").read_text())
    step = diverged["step"]
    assert f"step {step} is not finite" in str(error.value)
    settings = load_settings("mlp", *changes)
    examples = len(data.load(settings.section("data")).splits["train"])
    positions = np.arange((step - 1) * 32, step * 32)
    assert diverged["index"] == stream.order(examples, settings["seed"], positions).tolist()
    assert step > 2
    assert committed_steps(tmp_path)
    assert committed_steps(tmp_path)[-1] < step
    assert all(line["step"] < step and None not in line.values() for line in read_lines(tmp_path))


# Other runs, settings, data and machines ------------------------------------------------------------------------------


def test_a_second_process_is_refused_with_pid_and_host(tmp_path):
    recipe, *recipe_changes = RECIPES["mlp"]
    overrides = [f"--config.{setting}" for setting in (*recipe_changes, *COMMON)]
    command = [sys.executable, "-m", "cnn_vit", "train", f"--config={recipe}", *overrides, f"--workdir={tmp_path}"]
    with files.Lock(tmp_path / "lock"):
        process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 3
    (line,) = process.stderr.splitlines()
    assert re.fullmatch(rf"{tmp_path} is in use by process {os.getpid()} on \S+; wait .*", line)


def test_a_folder_of_other_settings_is_refused_key_by_key_and_nothing_is_touched(tmp_path, monkeypatch):
    stop_run(monkeypatch, "mlp", tmp_path, 3)
    before = hash_files(tmp_path)
    with pytest.raises(UserError) as error:
        train("mlp", tmp_path, "seed=7", "optimizer.weight_decay=0.5")
    assert error.value.code == 2
    assert "seed: 7 here, 0 in the folder" in str(error.value)
    assert "optimizer.weight_decay: 0.5 here, " in str(error.value)
    assert "--fork_from" in str(error.value)
    assert hash_files(tmp_path) == before


def test_other_data_are_refused(tmp_path, monkeypatch):
    stop_run(monkeypatch, "mlp", tmp_path, 3)
    facts = json.loads((tmp_path / "data.json").read_text())
    facts["fingerprint"] = "0" * 64
    (tmp_path / "data.json").write_text(json.dumps(facts))
    reseal(tmp_path)
    with pytest.raises(UserError, match="trained on other data: fingerprint 000000000000"):
        train("mlp", tmp_path)


@pytest.mark.parametrize("version", [None, 99])
def test_a_run_whose_images_became_pixels_by_other_rules_is_not_resumed(tmp_path, monkeypatch, version):
    stop_run(monkeypatch, "mlp", tmp_path, 3)
    path = tmp_path / "preprocessing.json"
    preprocessing = json.loads(path.read_text())
    preprocessing["version"] = version
    if version is None:  # a run from before the rules had versions
        for name in ("version", "levels", "max_pixels"):
            del preprocessing[name]
    path.write_text(json.dumps(preprocessing))
    reseal(tmp_path)  # as the cnn_vit of those rules would have sealed it
    before = hash_files(tmp_path)
    with pytest.raises(UserError, match=f"became pixels by version {version or 1} of the rules, and this cnn_vit has"):
        train("mlp", tmp_path)
    assert hash_files(tmp_path) == before


def write_as_before_interpolation(folder):
    """Leaves out what the files of a run did not say before there was a setting data.interpolation, and seals them."""
    config = json.loads((folder / "config.json").read_text())
    for part in ("values", "origin"):
        del config[part]["data.interpolation"]
    preprocessing = json.loads((folder / "preprocessing.json").read_text())
    assert preprocessing.pop("interpolation") == "bilinear"
    for name, content in (("config.json", config), ("preprocessing.json", preprocessing)):
        (folder / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    reseal(folder)


def test_a_run_that_says_nothing_of_interpolation_goes_on_to_the_same_bits_without_a_word(
    tmp_path, monkeypatch, capsys
):
    stop_run(monkeypatch, "mlp", tmp_path, 3)
    write_as_before_interpolation(tmp_path)
    content = (tmp_path / "preprocessing.json").read_bytes()
    capsys.readouterr()
    train("mlp", tmp_path)
    assert read_outcome(tmp_path) == undisturbed_outcome("mlp")
    printed = capsys.readouterr().err
    assert "going on from step 3 of 12" in printed
    assert not re.search(r"preprocessing|interpolation|bits may differ", printed)
    assert (tmp_path / "preprocessing.json").read_bytes() == content
    assert trained.load(tmp_path).preprocessing["interpolation"] == "bilinear"
    (tmp_path / "preprocessing.json").unlink()  # of the finished run, which makes it anew
    train("mlp", tmp_path)
    assert (tmp_path / "preprocessing.json").read_bytes() == content
    assert read_outcome(tmp_path) == undisturbed_outcome("mlp")
    with pytest.raises(UserError, match=r"data\.interpolation: 'bicubic' here, 'bilinear' in the folder"):
        train("mlp", tmp_path, "data.interpolation=bicubic")


def test_what_changes_no_result_may_change_on_resume(tmp_path, monkeypatch):
    stop_run(monkeypatch, "mlp", tmp_path, 3)
    train("mlp", tmp_path, "checkpoint_every=1", "data.workers=0", "keep_checkpoints=5", "data.max_pixels=60_000_000")
    assert read_outcome(tmp_path)["metrics"] == undisturbed_outcome("mlp")["metrics"]


def test_a_resume_on_other_cores_devices_and_versions_says_so_and_goes_on(tmp_path, monkeypatch, capsys):
    stop_run(monkeypatch, "mlp", tmp_path, 3)
    path = tmp_path / "environment.json"
    environment = json.loads(path.read_text())
    cores, jax_version = environment["cores"], environment["versions"]["jax"]
    environment["devices"] = {"count": 8, "platform": "tpu", "kind": "v9"}
    environment["cores"], environment["versions"]["jax"] = 96, "0.0.1"
    path.write_text(json.dumps(environment))
    train("mlp", tmp_path)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "where bits may differ" in line]
    assert line == (
        f"this run goes on where bits may differ from its beginning: cores 96 then, {cores} now; "
        "device count 8 then, 1 now; device platform tpu then, cpu now; device kind v9 then, cpu now; "
        f"jax 0.0.1 then, {jax_version} now"
    )
    assert read_result(tmp_path)["steps"] == 12


@pytest.mark.parametrize(("recorded", "text"), [({"xla_other": True}, "xla_other=true"), (None, "not recorded")])
def test_a_resume_with_other_compiler_options_says_so_and_goes_on(tmp_path, monkeypatch, capsys, recorded, text):
    stop_run(monkeypatch, "mlp", tmp_path, 3)
    path = tmp_path / "environment.json"
    environment = json.loads(path.read_text())
    options_now = compilation.options_as_text(environment["compiler_options"])
    environment["compiler_options"] = recorded
    if recorded is None:  # a run from before they were recorded
        del environment["compiler_options"]
    path.write_text(json.dumps(environment))
    train("mlp", tmp_path)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "where bits may differ" in line]
    assert line.endswith(f"from its beginning: compiler options {text} then, {options_now} now")
    assert read_result(tmp_path)["steps"] == 12


def test_the_compiler_options_of_a_run_are_recorded(tmp_path, monkeypatch):
    for name in ("CNN_VIT_TUNE", "XLA_FLAGS"):
        monkeypatch.delenv(name, raising=False)
    stop_run(monkeypatch, "mlp", tmp_path, 3)
    jaxlib = importlib.metadata.version("jaxlib")
    options = compilation.compiler_options("cpu", jaxlib, convolutional=False, dtype="float32")
    assert json.loads((tmp_path / "environment.json").read_text())["compiler_options"] == options
