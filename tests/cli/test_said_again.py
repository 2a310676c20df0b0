"""Nothing that a run folder names is run: data of a program must be said again."""

import json

import pytest

from cnn_vit.__main__ import main

PROGRAM = """
import pathlib
import numpy as np

def give(split):
    with (pathlib.Path(__file__).parent / "ran").open("a") as file:
        file.write(split)
    for at in range(24):
        yield np.full((8, 8, 1), 200 * (at % 2) + at, np.uint8), "dark" if at % 2 == 0 else "light"
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder and what its data are."""
    folder = tmp_path_factory.mktemp("program")
    (folder / "mine.py").write_text(PROGRAM)
    source = f"{folder / 'mine.py'}:give"
    words = ["train", "--config=configs/digits_mlp.py", "--config.model.name=mlp/test", "--config.data.name=generator",
             f"--config.data.path={source}", "--config.data.classes=none", "--config.duration=4 steps",
             "--config.schedule.warmup=0", f"--workdir={folder / 'run'}"]  # fmt: skip
    assert main(words) == 0
    (folder / "ran").unlink()
    return folder / "run", source


def test_the_run_folder_alone_runs_nothing(trained, capsys):
    workdir, source = trained
    assert main(["evaluate", f"--workdir={workdir}"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"the data of {workdir} come from a program, {source}, and nothing that a run folder names is run; if you "
        f"trust it, say it again: --data={source}"
    )
    for words in (["report", str(workdir)], ["describe", f"--workdir={workdir}"]):
        main(words)
    assert not (workdir.parent / "ran").exists()


def test_said_again_it_is_read_as_the_network_sees(trained, capsys):
    workdir, source = trained
    capsys.readouterr()
    assert main(["evaluate", f"--workdir={workdir}", f"--data={source}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == 24
    assert found["accuracy"] == json.loads((workdir / "result.json").read_text())["test"]["accuracy"]
    assert (workdir.parent / "ran").read_text() == "trainvalidationtest"
