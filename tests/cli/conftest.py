"""Fixtures for the tests of commands: a tiny finished run on the handwritten digits, trained once per session."""

import pytest

from cnn_vit.__main__ import main

TINY = [
    "train", "--config=configs/digits_mlp.py", "--config.model.name=mlp/test", "--config.duration=40 steps",
    "--config.schedule.warmup=0", "--config.evaluate_every=20 steps", "--config.checkpoint_every=20 steps",
]  # fmt: skip


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The folder of the finished run. Tests may add to it by `evaluate`, and copy it to change it."""
    workdir = tmp_path_factory.mktemp("run") / "digits"
    assert main([*TINY, f"--workdir={workdir}"]) == 0
    return workdir


@pytest.fixture(scope="session")
def tiny():
    """The words behind `train` that trained the run, without its folder."""
    return TINY[1:]
