"""A signal at any moment of a command that does not train ends it with its code and one sentence, or comes too late."""

import signal

import foreign_weights
import photos
import pytest
from signaling import (
    STARTS_AGAIN,
    cpu_seconds,
    end_by_signal,
    handles_signals,
    imports_jax,
    measure_life,
    start,
    wait_until,
)

COMMANDS = {
    "evaluate": ["evaluate", "--workdir={run}"],
    "predict": ["predict", "--workdir={run}", "{photos}"],
    "probe": ["probe", "--workdir={run}"],
    "features": ["features", "--workdir={run}", "--out={out}/features.npz"],
    "report": ["report", "{run}", "--out={out}/page.html"],
    "report of two": ["report", "{run}", "{other}", "--out={out}/page.html"],
    "describe": ["describe", "resnet/50"],
    "doctor": ["doctor"],
    "doctor of data": ["doctor", "--data={photos}", "--gallery={out}/gallery.svg"],
    "new": ["new", "{photos}", "--out={out}/photos.py", "--image_size=8"],
    "convert": ["convert", "{weights}", "--out={out}/net.safetensors"],
    "list": ["list"],
    "show": ["train", "--show"],
    "show with the memory": ["train", "--config=configs/digits_mlp.py:smoke", "--show", "--compile"],
}
MOMENTS = 6  # of the life of each command


@pytest.fixture(scope="module")
def folders(tmp_path_factory, run, tiny):
    """The folders that commands are given, by their names in COMMANDS, but for that of what they write."""
    from cnn_vit.__main__ import main

    folder = tmp_path_factory.mktemp("stopped")
    assert main(["train", *tiny, "--config.seed=1", f"--workdir={folder / 'other'}"]) == 0
    return {
        "run": run,
        "other": folder / "other",
        "photos": photos.folder(folder / "photos", {"cats": 12, "dogs": 12}, formats=("rgb.jpg",)),
        "weights": foreign_weights.write(folder / "net.npz"),
    }


def start_command(name, folders, out):
    """Starts a command that writes into the folder `out`."""
    return start([word.format(**folders, out=out) for word in COMMANDS[name]])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_imports_jax_ends_with_its_code_and_one_sentence(number):
    process = start(COMMANDS["describe"])
    wait_until(process, lambda: imports_jax(process))
    ending = end_by_signal(process, number)
    assert ending.says(STARTS_AGAIN), ending
    assert ending.stdout == ""


@pytest.fixture(scope="module")
def lives(tmp_path_factory, folders):
    """For each command by name the CPU-seconds at its first line and at its end, and the names of what it writes."""
    lives = {}
    for name in COMMANDS:
        out = tmp_path_factory.mktemp("whole")
        process = start_command(name, folders, out)
        marks, stdout = measure_life(process, lambda process=process: handles_signals(process))
        assert "next: " in stdout
        lives[name] = marks, {path.name for path in out.iterdir()}
    return lives


# Every third moment of each command is a slow test.
PLACES = [
    pytest.param(place, marks=pytest.mark.exhaustive if place % 3 else pytest.mark.slow) for place in range(MOMENTS)
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_signal_at_any_moment_of_a_command_leaves_all_or_nothing(name, place, tmp_path, folders, lives):
    (first_line, end), written = lives[name]
    moment = first_line + (end - first_line) * place / (MOMENTS - 1)
    process = start_command(name, folders, tmp_path)
    wait_until(process, lambda: handles_signals(process) and cpu_seconds(process) >= moment)
    ending = end_by_signal(process, (signal.SIGTERM, signal.SIGINT)[place % 2])
    names = {path.name for path in tmp_path.iterdir()}
    if ending.code:
        assert ending.says(STARTS_AGAIN), ending
        assert ending.stdout == ""
        assert names == set()
    else:
        assert "next: " in ending.stdout
        assert names == written
