"""A program that only a run folder names is never executed: data that come from a program must be named again."""

import json

import pytest

from cnn_vit.__main__ import main

# A program that gives images, and leaves a trace in the file `ran` each time that it is executed.
PROGRAM = """
import pathlib
import numpy as np

def give(split):
    with (pathlib.Path(__file__).parent / "ran").open("a") as file:
        file.write(split)
    for number in range(24):
        is_dark = number % 2 == 0
        pixels = np.full((8, 8, 1), (0 if is_dark else 200) + number, np.uint8)
        yield pixels, "dark" if is_dark else "light"
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder, and the program that its data come from, as `FILE.py:FUNCTION`."""
    folder = tmp_path_factory.mktemp("program")
    (folder / "mine.py").write_text(PROGRAM)
    source = f"{folder / 'mine.py'}:give"
    words = ["train", "--config=configs/digits_mlp.py", "--config.model.name=mlp/test", "--config.data.name=generator",
             f"--config.data.path={source}", "--config.data.classes=none", "--config.duration=4 steps",
             "--config.schedule.warmup=0", f"--workdir={folder / 'run'}"]  # fmt: skip
    assert main(words) == 0
    (folder / "ran").unlink()
    return folder / "run", source


def test_the_run_folder_alone_executes_nothing(trained, capsys):
    workdir, source = trained
    assert main(["evaluate", f"--workdir={workdir}"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"the data of {workdir} come from a program, {source}, and cnn-vit runs no program that only a run folder "
        f"names; if you trust it, name it yourself: --data={source}"
    )
    for words in (["report", str(workdir)], ["describe", f"--workdir={workdir}"]):
        main(words)
    assert not (workdir.parent / "ran").exists()


def test_a_program_that_is_named_again_is_read_as_the_network_sees_images(trained, capsys):
    workdir, source = trained
    capsys.readouterr()
    assert main(["evaluate", f"--workdir={workdir}", f"--data={source}", "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["n"] == 24
    assert metrics["accuracy"] == json.loads((workdir / "result.json").read_text())["test"]["accuracy"]
    assert (workdir.parent / "ran").read_text() == "trainvalidationtest"
