"""kill -9 at any moment: the same command goes on to the bits of a run that nothing happened to.

Real processes are killed. Each test asserts in which phase the kill fell, by what stood in the run folder after it.
"""

import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from running import (
    COMMON,
    RECIPES,
    call_at_step,
    committed_steps,
    find_leftovers,
    read_outcome,
    send_signal,
    train,
    train_lines,
    undisturbed_outcome,
)

from cnn_vit.errors import StoppedError
from cnn_vit.runs import manifests

OFTEN = ("log_every=1", "checkpoint_every=2")
PATIENCE = 600  # seconds until a process that reaches no phase fails its test
NETWORKS, KINDS = ("cnn", "vit", "wide_frozen", "staged"), ("start", "write", "seal", "random")
# Each kind of kill of each network once, with one seed in turn of three, and two more kills at random.
KILLS = [(*name_and_kind, 1 + i % 3) for i, name_and_kind in enumerate(itertools.product(NETWORKS, KINDS))]
KILLS += [("cnn", "random", 5), ("vit", "random", 6)]


def start_run(name, folder):
    """Starts a run in a process of its own, as a user does."""
    recipe, *recipe_changes = RECIPES[name]
    overrides = [f"--config.{setting}" for setting in (*recipe_changes, *COMMON, *OFTEN)]
    command = [sys.executable, "-m", "cnn_vit", "train", f"--config={recipe}", *overrides, f"--workdir={folder}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish_run(name, folder):
    """Runs to the end in a process of its own; returns what it printed to stderr."""
    process = start_run(name, folder)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, stderr
    assert "Traceback" not in stderr
    return stderr


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A function that gives the outcome of an undisturbed run in a process of its own; each network's runs once."""
    outcomes = {}

    def outcome_of(name):
        if name not in outcomes:
            folder = tmp_path_factory.mktemp("whole") / name
            finish_run(name, folder)
            outcomes[name] = read_outcome(folder)
        return outcomes[name]

    return outcome_of


def count_lines(folder):
    """The number of whole lines in the journal."""
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def list_unfinished(folder):
    """What Orbax is writing: its folders have another name until all of it is there."""
    return list((folder / "checkpoints").glob("*.orbax-checkpoint-tmp*"))


def list_unsealed(folder):
    """The folders of steps that Orbax has written and that have no manifest yet."""
    folders = manifests.step_folders(folder / "checkpoints").values()
    return [path for path in folders if not (path / "MANIFEST.json").exists()]


@dataclass(frozen=True)
class Fall:
    """Where a kill fell, by what it left behind.

    Attributes:
        phase: `start` before the first line of the journal; in a save, `write` while Orbax writes, or `seal` while what
            it wrote is hashed and sealed; else `between` saves.
        logged_step: the last step in the journal, 0 where there is none.
        saved_step: the last step that counts, 0 where there is none.
        has_result: whether the result was written.
    """

    phase: str
    logged_step: int
    saved_step: int
    has_result: bool


def read_fall(folder):
    """Reads a run folder after a kill."""
    text = (folder / "metrics.jsonl").read_text() if count_lines(folder) else ""
    whole_lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
    logged_steps = [json.loads(line)["step"] for line in whole_lines]
    if list_unfinished(folder):
        phase = "write"
    elif list_unsealed(folder):
        phase = "seal"
    elif logged_steps:
        phase = "between"
    else:
        phase = "start"
    assert (folder / "lock").exists()
    return Fall(
        phase=phase,
        logged_step=max(logged_steps, default=0),
        saved_step=max(committed_steps(folder), default=0),
        has_result=(folder / "result.json").exists(),
    )


def kill_run(name, folder, is_moment):
    """Starts a run and kills it as soon as `is_moment` of its folder is true; returns where the kill fell."""
    process = start_run(name, folder)
    deadline = time.monotonic() + PATIENCE
    while not is_moment(folder):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    return read_fall(folder)


def choose_moment(kind, seed):
    """When to kill: once the lock is taken; once either part of a save is seen after so many lines; or at random.

    At random is some milliseconds after so many lines; two steps and a save take some tens of them.
    """
    rng = random.Random(f"{kind} {seed}")
    lines_before, pause = rng.randrange(1, 9), rng.uniform(0, 0.03)
    return {
        "start": lambda folder: (folder / ("lock" if seed % 2 else "config.json")).exists(),
        "write": lambda folder: count_lines(folder) >= lines_before and list_unfinished(folder),
        "seal": lambda folder: count_lines(folder) >= lines_before and list_unsealed(folder),
        "random": lambda folder: count_lines(folder) >= lines_before and not time.sleep(pause),
    }[kind]


def is_as_intended(fall, kind):
    """Whether a kill fell where it should have; a random one may fall anywhere between the first step and the end."""
    fell_in_phase = fall.logged_step > 0 if kind == "random" else fall.phase == kind
    return not fall.has_result and fell_in_phase


def check_kill(name, folder, kind, seed, expected):
    """Kills a run, starts it again, and compares the outcome."""
    # a save may be over between the look and the kill, which then fell elsewhere: another attempt
    for attempt in range(10):
        fall = kill_run(name, folder / str(attempt), choose_moment(kind, seed))
        if is_as_intended(fall, kind):
            break
    assert is_as_intended(fall, kind), fall
    assert 0 <= fall.saved_step <= fall.logged_step <= 12, fall
    run_folder = folder / str(attempt)
    stderr = finish_run(name, run_folder)
    resumed_steps = re.findall(r"going on from step (\d+) of 12", stderr)
    assert resumed_steps == ([str(fall.saved_step)] if fall.saved_step else []), fall
    outcome = read_outcome(run_folder)
    assert outcome == expected, fall
    assert not find_leftovers(run_folder)
    assert len({line["step"] for line in train_lines(run_folder)}) == 12
    assert len(train_lines(run_folder)) == 12


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, undisturbed):
    check_kill("cnn", tmp_path, "write", 0, undisturbed("cnn"))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind", "seed"), KILLS)
def test_runs_killed_in_every_phase_go_on_to_the_same_bits(name, kind, seed, tmp_path, undisturbed):
    check_kill(name, tmp_path, kind, seed, undisturbed(name))


@pytest.mark.slow
def test_a_run_killed_while_it_saves_what_is_frozen_starts_anew_to_the_same_bits(tmp_path, undisturbed):
    def is_being_saved(folder):
        unfinished = list_unfinished(folder) or list((folder / "checkpoints").glob("frozen"))
        return unfinished and not (folder / "checkpoints/frozen/MANIFEST.json").exists()

    fall = kill_run("wide_frozen", tmp_path, is_being_saved)
    assert fall.logged_step == 0
    assert not (tmp_path / "checkpoints/frozen/MANIFEST.json").exists()
    finish_run("wide_frozen", tmp_path)
    assert read_outcome(tmp_path) == undisturbed("wide_frozen")
    assert not find_leftovers(tmp_path)


@pytest.mark.slow
def test_a_run_killed_again_and_again_goes_on_to_the_same_bits(tmp_path, undisturbed):
    folder, saved_steps = tmp_path / "run", [0]
    for goal in (2, 4, 7, 9):
        fall = kill_run("cnn", folder, lambda path, goal=goal: count_lines(path) >= goal)
        assert not fall.has_result
        assert fall.logged_step > 0
        saved_steps.append(fall.saved_step)
    assert saved_steps == sorted(saved_steps)  # what counts once goes on counting
    assert saved_steps[-1] > 0
    finish_run("cnn", folder)
    assert read_outcome(folder) == undisturbed("cnn")


def test_the_lock_dies_with_its_owner_and_the_killed_start_leaves_no_trace(tmp_path):
    kill_run("mlp", tmp_path, choose_moment("start", 1))
    assert "in use" not in finish_run("mlp", tmp_path)
    assert read_outcome(tmp_path) == undisturbed_outcome("mlp", *OFTEN)
    assert not find_leftovers(tmp_path)


# Signals --------------------------------------------------------------------------------------------------------------


def run_program(text, folder):
    """Runs lines of Python in a process of their own beside this file; returns the finished process."""
    command = [sys.executable, "-c", "import sys\n" + text, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, cwd=Path(__file__).parent)


def end_by_signal(process, number, *, twice=False):
    """Sends a process a signal, or the same twice at once as schedulers do; returns its exit code and stderr."""
    process.send_signal(number)
    if twice:
        time.sleep(0.05)
        process.send_signal(number)
    _, stderr = process.communicate(timeout=PATIENCE)
    return process.returncode, stderr


def wait_for_first_line(folder):
    """Waits until the journal of a run has a line."""
    while not count_lines(folder):
        time.sleep(0.001)


@pytest.mark.parametrize(("number", "code", "twice"), [(signal.SIGTERM, 143, True), (signal.SIGINT, 130, False)])
def test_a_signal_ends_with_its_code_and_one_sentence_and_its_echo_changes_nothing(number, code, twice, tmp_path):
    process = start_run("mlp", tmp_path)
    wait_for_first_line(tmp_path)
    returncode, stderr = end_by_signal(process, number, twice=twice)
    assert returncode == code, stderr
    assert "Traceback" not in stderr
    last_line = stderr.splitlines()[-1]
    assert last_line.startswith("stopped at step ") or last_line.startswith("stopped after its last step by ")
    assert "the same command " in last_line


def test_a_signal_before_the_first_step_ends_a_command_with_its_code_and_leaves_nothing(tmp_path):
    process = start_run("mlp", tmp_path)
    while not (tmp_path / "lock").exists():
        time.sleep(0.001)
    returncode, stderr = end_by_signal(process, signal.SIGTERM)
    assert returncode == 143, stderr
    assert stderr.splitlines() == ["stopped by SIGTERM before this start trained a step; the same command starts again"]
    assert not (tmp_path / "checkpoints").exists()
    train("mlp", tmp_path, *OFTEN)
    assert read_outcome(tmp_path) == undisturbed_outcome("mlp", *OFTEN)


def test_a_run_that_was_halted_for_a_while_goes_on_to_the_same_bits(tmp_path):
    """SIGSTOP and SIGCONT, which no program can see, as of a laptop that sleeps."""
    process = start_run("mlp", tmp_path)
    wait_for_first_line(tmp_path)
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    lines_at_stop = count_lines(tmp_path)
    time.sleep(0.5)
    assert count_lines(tmp_path) == lines_at_stop
    assert not (tmp_path / "result.json").exists()
    process.send_signal(signal.SIGCONT)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, stderr
    assert read_outcome(tmp_path) == undisturbed_outcome("mlp", *OFTEN)


SLOW_STEP = """
import time
from _pytest.monkeypatch import MonkeyPatch
from running import call_at_step, send_signal, train

def send_two_signals():
    send_signal()
    time.sleep(1)
    send_signal()
    time.sleep(60)

call_at_step(MonkeyPatch(), 7, send_two_signals)
train("mlp", sys.argv[1])
"""


def test_a_second_signal_stops_a_step_that_takes_long_and_loses_no_checkpoint(tmp_path):
    began = time.monotonic()
    process = run_program(SLOW_STEP, tmp_path)
    assert time.monotonic() - began < 60  # the step was not waited for
    assert process.returncode == 143
    assert process.stderr.splitlines()[-2:] == [
        "SIGTERM: finishing the step and saving; a second one stops at once",
        "stopped at once by a second SIGTERM; the same command resumes",
    ]
    assert committed_steps(tmp_path) == [4, 5]
    assert not (tmp_path / "result.json").exists()
    train("mlp", tmp_path)
    assert read_outcome(tmp_path) == undisturbed_outcome("mlp")
    assert not find_leftovers(tmp_path)


# A full disk ----------------------------------------------------------------------------------------------------------

SMALL_DISK = """
import resource
from _pytest.monkeypatch import MonkeyPatch
from running import call_at_step, train
from cnn_vit.errors import SurroundingsError

def limit_file_size():
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, resource.RLIM_INFINITY))

call_at_step(MonkeyPatch(), 6, limit_file_size)
try:
    train("mlp", sys.argv[1])
except SurroundingsError as error:
    print(error, file=sys.stderr)
    sys.exit(error.code)
"""


def test_a_disk_without_room_ends_a_run_with_its_code_and_the_same_command_goes_on(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        call_at_step(patch, 5, send_signal)
        with pytest.raises(StoppedError):
            train("mlp", tmp_path)
    process = run_program(SMALL_DISK, tmp_path)
    assert process.returncode == 3
    assert "Traceback" not in process.stderr
    last_line = process.stderr.splitlines()[-1]
    assert re.fullmatch(r"File too large: .*/checkpoints/8 needs .* raise it \(ulimit -f\), .*", last_line)
    assert committed_steps(tmp_path) == [4, 5]
    train("mlp", tmp_path)
    assert read_outcome(tmp_path) == undisturbed_outcome("mlp")
    assert not find_leftovers(tmp_path)
