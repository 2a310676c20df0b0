"""A tiny finished run on the handwritten digits, made once for the commands that read one."""

import pytest

from cnn_vit.__main__ import main

TINY = [
    "train", "--config=configs/digits_mlp.py", "--config.model.name=mlp/test", "--config.duration=40 steps",
    "--config.schedule.warmup=0", "--config.evaluate_every=20 steps", "--config.checkpoint_every=20 steps",
]  # fmt: skip


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The run folder."""
    workdir = tmp_path_factory.mktemp("run") / "digits"
    assert main([*TINY, f"--workdir={workdir}"]) == 0
    return workdir


@pytest.fixture(scope="session")
def tiny():
    """The words of its command, without the folder."""
    return TINY[1:]
