"""What a newcomer may do wrong, and what may happen to a run folder: each is one sentence with its exit code."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cnn_vit import cli
from cnn_vit.__main__ import main


def test_a_jax_without_devices_is_said_with_its_remedy(tmp_path):
    """In a process of its own: this one has its devices already."""
    done = subprocess.run(
        [sys.executable, "-m", "cnn_vit", "train", f"--workdir={tmp_path}/run"],
        env=os.environ | {"JAX_PLATFORMS": "nowhere"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3
    line = done.stderr.splitlines()[-1]
    assert line.startswith("jax finds no device (Unable to initialize backend 'nowhere'")
    assert line.endswith("unset JAX_PLATFORMS or install its drivers")


def said(capsys, words, code):
    """The one line that a command ends with."""
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
        (["train", "--workdir="], "--workdir= names nothing; write --workdir=VALUE, or leave it out"),
        (["train", "--config="], "--config= names nothing; write --config=VALUE, or leave it out"),
        (["predict", "--workdir=x", "--data="], "--data= names nothing; write --data=VALUE, or leave it out"),
        (
            ["predict", "--workdir=x", "--top=many", "a.png"],
            "cnn-vit predict: argument --top: 'many' is no whole number; cnn-vit predict --help shows what it takes",
        ),
        (
            ["new", "photos", "--minutes=long"],
            "cnn-vit new: argument --minutes: 'long' is no number; cnn-vit new --help shows what it takes",
        ),
        (
            ["predict"],
            "cnn-vit predict: the following arguments are required: --workdir, PICTURE; cnn-vit predict --help shows "
            "what it takes",
        ),
    ],
)
def test_words_that_mean_nothing_are_refused_with_what_would(capsys, words, line):
    assert said(capsys, words, 2) == line


def test_a_family_without_a_variant_is_told_from_a_wrong_one(capsys):
    line = said(capsys, ["train", "--config.model.name=resnet", "--workdir=/proc/nowhere"], 2)
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
def test_a_wrong_setting_is_told_before_any_device_is_asked_for(tmp_path, setting, line):
    """On a machine that has no device at all, where asking for one is an error."""
    words = ["train", "--config=configs/digits_mlp.py", f"--config.{setting}", f"--workdir={tmp_path / 'run'}"]
    done = subprocess.run(
        [sys.executable, "-m", "cnn_vit", *words],
        env=os.environ | {"JAX_PLATFORMS": "nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line + "\n")
    assert not (tmp_path / "run").exists()


def test_one_image_that_is_not_there_is_one_of_nothing(run, capsys, tmp_path):
    assert main(["predict", f"--workdir={run}", str(tmp_path / "gone.jpg")]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"{tmp_path / 'gone.jpg'} could not be read: not to be had (No such file or directory)")


def test_the_next_command_can_be_copied_whatever_the_folder_is_called(run, capsys, tmp_path):
    workdir = tmp_path / "it's mine"
    shutil.copytree(run, workdir)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    for words in (["evaluate"], ["predict", tmp_path / "a.png"]):
        assert main([*map(str, words), f"--workdir={workdir}"]) == 0
        assert cli.shell_quote(f"--workdir={workdir}") in capsys.readouterr().out.splitlines()[-1]


# A run folder that something happened to ------------------------------------------------------------------------------

NETWORK = ("evaluate", "predict", "describe")
TESTED = ("evaluate", "predict")
DAMAGES = {
    "another version": ("config.json", lambda found: found["values"].update({"sampler.size": 3}) or found, NETWORK),
    "settings without a name": ("config.json", lambda found: found["values"].pop("optimizer.name") and found, NETWORK),
    "no settings": ("config.json", lambda found: [], NETWORK),
    "classes of another kind": ("classes.json", lambda found: {"0": 1}, NETWORK),
    "classes that are none": ("classes.json", lambda found: None, NETWORK),
    "half of preprocessing": ("preprocessing.json", lambda found: {"image_size": [8, 8]}, NETWORK),
    "a mean of text": ("preprocessing.json", lambda found: found | {"mean": ["x"]}, NETWORK),
    "mixed sizes without sizes": ("preprocessing.json", lambda found: found | {"fit": "pad_batch"}, NETWORK),
    "mixed sizes without the largest": (
        "preprocessing.json",
        lambda found: found | {"fit": "pad_batch", "sizes": [[4, 4]]},
        NETWORK,
    ),
    "an image of three sides": ("preprocessing.json", lambda found: found | {"image_size": [8, 8, 8]}, NETWORK),
    "too many deviations": ("preprocessing.json", lambda found: found | {"std": [1.0, 1.0]}, NETWORK),
    "a result of another kind": ("result.json", lambda found: [1], (*TESTED, "train")),
    "a result of nothing": ("result.json", lambda found: {}, (*TESTED, "train")),
    "a result without a step": ("result.json", lambda found: found | {"tested": {"step": "20"}}, (*TESTED, "train")),
}


@pytest.fixture
def damaged(run, tmp_path):
    """Copies the run, and writes over one of its JSON files."""

    def write(name, change):
        shutil.copytree(run, tmp_path / "run")
        path = tmp_path / "run" / name
        path.write_text(json.dumps(change(json.loads(path.read_text()))))
        return tmp_path / "run"

    return write


@pytest.mark.parametrize("name", DAMAGES)
def test_a_file_that_no_run_writes_is_named(damaged, capsys, tmp_path, tiny, name):
    file, change, commands = DAMAGES[name]
    workdir = damaged(file, change)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    words = {"predict": [tmp_path / "a.png"], "train": tiny}
    for command in commands:
        line = said(capsys, [command, f"--workdir={workdir}", *words.get(command, [])], 2)
        assert file in line
        assert not (workdir / "crash").exists()
    if name == "another version":
        assert line == (
            "config.json sets 'sampler.size', which this version of cnn_vit does not know; use the version that wrote "
            "it (environment.json beside it names the commit)"
        )


@pytest.mark.parametrize("name", ["config.json", "classes.json", "preprocessing.json"])
def test_a_file_that_is_missing_is_named(run, capsys, tmp_path, name):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / name).unlink()
    for command in NETWORK:
        image = ["a.png"] if command == "predict" else []
        line = said(capsys, [command, f"--workdir={tmp_path / 'run'}", *image], 2)
        assert line == f"{tmp_path / 'run'} holds no run (no {name}); name the --workdir of a `cnn-vit train`"


def test_a_checkpoint_that_is_gone_says_what_is_left_to_do(run, capsys, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "40")
    line = said(capsys, ["evaluate", f"--workdir={tmp_path / 'run'}"], 3)
    assert line.endswith("MANIFEST.json is missing; put it back from a copy, or train again in another --workdir")


@pytest.mark.parametrize(
    ("file", "content"),
    [("data.json", {}), ("data.json", []), ("environment.json", []), ("environment.json", {"resumed": 3})],
)
def test_a_run_that_goes_on_does_not_trust_its_own_files(run, capsys, tmp_path, tiny, file, content):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    (tmp_path / "run" / file).write_text(json.dumps(content))
    line = said(capsys, ["train", f"--workdir={tmp_path / 'run'}", *tiny], 2)
    assert line == f"{tmp_path / 'run' / file} is not as a run writes it; put it back from a copy or remove it"
