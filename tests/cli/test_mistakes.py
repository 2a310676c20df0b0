"""What a newcomer may do wrong, and what may happen to a run folder: each ends with one sentence and its exit code."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sealing import reseal

from cnn_vit import cli
from cnn_vit.__main__ import main
from cnn_vit.data.decode import pixel_rules


def test_a_jax_without_devices_is_one_line_with_its_remedy(tmp_path):
    """The command is a process of its own, since this one has its devices already."""
    process = subprocess.run(
        [sys.executable, "-m", "cnn_vit", "train", f"--workdir={tmp_path}/run"],
        env=os.environ | {"JAX_PLATFORMS": "nowhere"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 3
    line = process.stderr.splitlines()[-1]
    assert line.startswith("JAX_PLATFORMS=nowhere asks for devices that jax does not find here; unset JAX_PLATFORMS to")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 1.46 TiB for an array"),  # as NumPy says it
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 17179869184 bytes."),  # as jax does
    ],
)
def test_too_little_memory_is_one_sentence_with_what_to_make_smaller(capsys, monkeypatch, error):
    def run_out(args):
        raise error

    monkeypatch.setattr("cnn_vit.cli.list.run", run_out)
    line = read_cause(capsys, ["list"], 3)
    assert line.startswith(
        "there is too little memory; make data.batch_size, data.image_size or the model smaller, `cnn"
    )
    assert (str(error) or "no more was said") in line


def read_cause(capsys, words, code):
    """Runs a command that must fail with this exit code and print nothing else; returns its one line on stderr."""
    capsys.readouterr()
    assert main(list(map(str, words))) == code, capsys.readouterr().err
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    return line


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["help"], "no command 'help'; did you mean --help?"),
        (["train", "--workdir="], "--workdir= has no value; write --workdir=VALUE, or leave it out"),
        (["train", "--config="], "--config= has no value; write --config=VALUE, or leave it out"),
        (["predict", "--workdir=x", "--data="], "--data= has no value; write --data=VALUE, or leave it out"),
        (
            ["predict", "--workdir=x", "--top=many", "a.png"],
            "cnn-vit predict: argument --top: 'many' is not a whole number; cnn-vit predict --help shows what it takes",
        ),
        (
            ["new", "photos", "--minutes=long"],
            "cnn-vit new: argument --minutes: 'long' is not a number; cnn-vit new --help shows what it takes",
        ),
        (
            ["predict"],
            "cnn-vit predict: the following arguments are required: IMAGE; cnn-vit predict --help shows what it takes",
        ),
    ],
)
def test_words_that_mean_nothing_are_refused_with_their_remedy(capsys, words, line):
    assert read_cause(capsys, words, 2) == line


def test_a_family_without_a_variant_is_refused_with_its_variants(capsys):
    line = read_cause(capsys, ["train", "--config.model.name=resnet", "--workdir=/proc/nowhere"], 2)
    assert line == "resnet alone is a family, not a network, resnet/VARIANT; it has test, 18, 26, 34, 50, 101, 152"


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        (
            "optimizer.learning_rate=-1",
            "optimizer.learning_rate is '-1' (command line); it takes a number in (0, 1000]",
        ),
        ("model.hidden=(0,)", "model.hidden=(0,) must be at least 1"),
    ],
    ids=["first check", "second check"],
)
def test_a_wrong_setting_is_refused_before_any_device_is_asked_for(tmp_path, setting, line):
    """The machine has no device at all, so that asking for one would be another error."""
    words = ["train", "--config=configs/digits_mlp.py", f"--config.{setting}", f"--workdir={tmp_path / 'run'}"]
    process = subprocess.run(
        [sys.executable, "-m", "cnn_vit", *words],
        env=os.environ | {"JAX_PLATFORMS": "nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (process.returncode, process.stdout, process.stderr) == (2, "", line + "\n")
    assert not (tmp_path / "run").exists()


def test_of_a_single_image_that_is_missing_no_count_is_given(run, capsys, tmp_path):
    assert main(["predict", f"--workdir={run}", str(tmp_path / "gone.jpg")]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"{tmp_path / 'gone.jpg'} could not be read: not accessible (No such file or directory)")


def test_the_next_command_can_be_copied_whatever_the_name_of_the_folder(run, capsys, tmp_path):
    workdir = tmp_path / "it's mine"
    shutil.copytree(run, workdir)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    for words in (["evaluate"], ["predict", tmp_path / "a.png"]):
        assert main([*map(str, words), f"--workdir={workdir}"]) == 0
        assert cli.shell_quote(f"--workdir={workdir}") in capsys.readouterr().out.splitlines()[-1]


# A run folder that something happened to ------------------------------------------------------------------------------

READERS = ("evaluate", "predict", "describe", "probe", "features")  # the commands that read a network
RESULT_READERS = ("evaluate", "predict", "probe", "features", "train")  # those that read what the run tested


@dataclass(frozen=True)
class Damage:
    """A change to a file of a run folder that no run makes.

    Attributes:
        file: the name of the file, which holds JSON.
        change: takes the content of the file and returns the damaged one.
        commands: the commands that must refuse the folder.
        is_sealed: whether the folder is sealed with the change.
    """

    file: str
    change: Callable[[Any], Any]
    commands: tuple[str, ...]
    is_sealed: bool = True


def set_unknown_key(content):
    content["values"]["sampler.size"] = 3
    return content


def remove_optimizer_name(content):
    del content["values"]["optimizer.name"]
    return content


DAMAGES = {
    "another version": Damage("config.json", set_unknown_key, READERS),
    "settings without a name": Damage("config.json", remove_optimizer_name, READERS),
    "no settings": Damage("config.json", lambda content: [], READERS),
    "classes of another kind": Damage("classes.json", lambda content: {"0": 1}, READERS),
    "null for classes": Damage("classes.json", lambda content: None, READERS),
    "half of preprocessing": Damage("preprocessing.json", lambda content: {"image_size": [8, 8]}, READERS),
    "a mean of text": Damage("preprocessing.json", lambda content: content | {"mean": ["x"]}, READERS),
    "padded sizes without sizes": Damage("preprocessing.json", lambda content: content | {"fit": "pad_batch"}, READERS),
    "padded sizes without the largest": Damage(
        "preprocessing.json", lambda content: content | {"fit": "pad_batch", "sizes": [[4, 4]]}, READERS
    ),
    "an image of three sides": Damage(
        "preprocessing.json", lambda content: content | {"image_size": [8, 8, 8]}, READERS
    ),
    "too many standard deviations": Damage(
        "preprocessing.json", lambda content: content | {"std": [1.0, 1.0]}, READERS
    ),
    "pixels by other rules": Damage("preprocessing.json", lambda content: content | {"version": 99}, READERS),
    "pixels by rules without a version": Damage(
        "preprocessing.json",
        lambda content: {key: content[key] for key in ("mean", "std", "image_size", "channels", "fit")},
        READERS,
    ),
    "a share above one": Damage("preprocessing.json", lambda content: content | {"fit": "crop(1.5)"}, READERS),
    "an unknown interpolation": Damage(
        "preprocessing.json", lambda content: content | {"interpolation": "cubic"}, READERS
    ),
    "levels of text": Damage("preprocessing.json", lambda content: content | {"levels": "4095"}, READERS),
    "a result of another kind": Damage("result.json", lambda content: [1], RESULT_READERS, is_sealed=False),
    "a result of nothing": Damage("result.json", lambda content: {}, RESULT_READERS, is_sealed=False),
    "a result without a step": Damage(
        "result.json", lambda content: content | {"tested": {"step": "20"}}, RESULT_READERS
    ),
}


@pytest.fixture
def damaged(run, tmp_path):
    """A function that copies the run, changes one of its files, and returns the copy's folder.

    Where another version of this program may have written the change, the copy is sealed with it.
    """

    def copy_damaged(damage):
        shutil.copytree(run, tmp_path / "run")
        path = tmp_path / "run" / damage.file
        path.write_text(json.dumps(damage.change(json.loads(path.read_text()))))
        return reseal(tmp_path / "run") if damage.is_sealed else tmp_path / "run"

    return copy_damaged


@pytest.mark.parametrize("name", DAMAGES)
def test_a_file_that_no_run_writes_is_named(damaged, capsys, tmp_path, tiny, name):
    damage = DAMAGES[name]
    workdir = damaged(damage)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    further_words = {"predict": [tmp_path / "a.png"], "features": [f"--out={tmp_path / 'a.npz'}"], "train": tiny}
    for command in damage.commands:
        words = [command, f"--workdir={workdir}", *further_words.get(command, [])]
        line = read_cause(capsys, words, 2 if damage.is_sealed else 3)
        assert damage.file in line
        assert not (workdir / "crash").exists()
    if name.startswith("pixels by"):
        version = 99 if name == "pixels by other rules" else 1
        assert line == (
            f"{workdir / 'preprocessing.json'} says that images became pixels by version {version} of the rules, and "
            f"this cnn_vit has version {pixel_rules.VERSION}, so that the network would see other pixels than it "
            "learned from; take the cnn_vit that trained it (environment.json names the commit), or train again in "
            "another --workdir"
        )
    if name == "another version":
        assert line == (
            "config.json sets 'sampler.size', which this version of cnn_vit does not know; use the version that wrote "
            "it (the environment beside it names the commit)"
        )


@pytest.mark.parametrize("name", ["config.json", "classes.json", "preprocessing.json", "data.json"])
def test_a_file_that_is_missing_is_named(run, capsys, tmp_path, name):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / name).unlink()
    remedy = "give the run's `cnn-vit train` command again, which makes it anew"
    if name == "config.json":
        remedy = "train again in another --workdir"
    further_words = {"predict": ["a.png"], "features": [f"--out={tmp_path / 'a.npz'}"]}
    for command in READERS:
        words = [command, f"--workdir={tmp_path / 'run'}", *further_words.get(command, [])]
        line = read_cause(capsys, words, 3)
        disappeared = f"{tmp_path / 'run' / name} has disappeared since result.json sealed it"
        assert line == f"{disappeared}; put it back from a copy, or {remedy}"


@pytest.mark.parametrize("name", ["config.json", "classes.json", "preprocessing.json"])
def test_a_file_that_a_run_without_a_checkpoint_lacks_is_named(run, capsys, tmp_path, name):
    workdir = tmp_path / "run"
    shutil.copytree(run, workdir)
    shutil.rmtree(workdir / "checkpoints")
    for missing in ("result.json", name):
        (workdir / missing).unlink()
    line = read_cause(capsys, ["evaluate", f"--workdir={workdir}"], 2)
    assert line == f"{workdir} holds no run (no {name}); name the --workdir of a `cnn-vit train`"


def test_a_checkpoint_that_is_gone_says_what_is_left_to_do(run, capsys, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "40")
    line = read_cause(capsys, ["evaluate", f"--workdir={tmp_path / 'run'}"], 3)
    assert line.endswith("MANIFEST.json is missing; put it back from a copy, or train again in another --workdir")


@pytest.mark.parametrize(
    ("file", "content"),
    [("data.json", {}), ("data.json", []), ("environment.json", []), ("environment.json", {"resumed": 3})],
)
def test_a_run_that_resumes_does_not_trust_its_own_files(run, capsys, tmp_path, tiny, file, content):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    (tmp_path / "run" / file).write_text(json.dumps(content))
    reseal(tmp_path / "run")
    line = read_cause(capsys, ["train", f"--workdir={tmp_path / 'run'}", *tiny], 2)
    assert line == f"{tmp_path / 'run' / file} is not as a run writes it; put it back from a copy or remove it"
