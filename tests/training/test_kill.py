"""kill -9 at any moment: the same command goes on to the bits of a run that nothing happened to.

Real processes, really killed; each test asserts in which phase the kill fell, by what stood in the run folder after it.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import running
from running import COMMON, RECIPES, at_step, left, leftovers, lines, signaled, steps, train

from cnn_vit.errors import StoppedError
from cnn_vit.runs import manifests

OFTEN = ("log_every=1", "checkpoint_every=2")
PATIENCE = 180  # seconds until a process that reaches no phase fails its test
KINDS = ["start", "write", "seal", "random"]


def started(name, folder):
    """The run as a user starts it."""
    recipe, *its_own = RECIPES[name]
    settings = [f"--config.{one}" for one in (*its_own, *COMMON, *OFTEN)]
    words = [sys.executable, "-m", "cnn_vit", "train", f"--config={recipe}", *settings, f"--workdir={folder}"]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finished(name, folder):
    """Runs to the end; what it printed to stderr."""
    process = started(name, folder)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    return err


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What a run in a process of its own leaves, by model; made once."""
    made = {}

    def of(name):
        if name not in made:
            folder = tmp_path_factory.mktemp("whole") / name
            finished(name, folder)
            made[name] = left(folder)
        return made[name]

    return of


def begun(folder):
    """Number of whole lines of the journal."""
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def writing(folder):
    """What Orbax is writing now: its folders go by another name until all of it is there."""
    return list((folder / "checkpoints").glob("*.orbax-checkpoint-tmp*"))


def unsealed(folder):
    """Steps that Orbax has written and that have no manifest yet."""
    found = manifests.step_folders(folder / "checkpoints").values()
    return [path for path in found if not (path / "MANIFEST.json").exists()]


class Fall(NamedTuple):
    """Where a kill fell, by what it left behind.

    Attributes:
        phase: `start` before the first line of the journal; in a save, while Orbax does `write`, or we hash and `seal`
            what it wrote; else `between` saves.
        logged: the last step in the journal.
        saved: the last step that counts, 0 where there is none.
        ended: whether the result was written.
    """

    phase: str
    logged: int
    saved: int
    ended: bool


def fallen(folder):
    """Reads a run folder after a kill."""
    text = (folder / "metrics.jsonl").read_text() if begun(folder) else ""
    logged = [json.loads(line)["step"] for line in text.splitlines(keepends=True) if line.endswith("\n")]
    phase = "write" if writing(folder) else "seal" if unsealed(folder) else "between" if logged else "start"
    assert (folder / "lock").exists()
    return Fall(phase, max(logged, default=0), max(steps(folder), default=0), (folder / "result.json").exists())


def killed(name, folder, moment):
    """Starts a run and kills it as soon as the moment has come; where the kill fell."""
    process = started(name, folder)
    end = time.monotonic() + PATIENCE
    while not moment(folder):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    return fallen(folder)


def moments(kind, seed):
    """When to kill: with the lock taken; as either part of a save after so many lines is seen; or by chance.

    That is some milliseconds after so many lines; two steps and a save take some tens of them.
    """
    draw = random.Random(f"{kind} {seed}")
    lines_before, pause = draw.randrange(1, 9), draw.uniform(0, 0.03)
    return {
        "start": lambda folder: (folder / ("lock" if seed % 2 else "config.json")).exists(),
        "write": lambda folder: begun(folder) >= lines_before and writing(folder),
        "seal": lambda folder: begun(folder) >= lines_before and unsealed(folder),
        "random": lambda folder: begun(folder) >= lines_before and not time.sleep(pause),
    }[kind]


def as_meant(fall, kind):
    """Whether a kill fell where it was to fall: by chance is anywhere between the first step and the end."""
    return not fall.ended and (fall.logged > 0 if kind == "random" else fall.phase == kind)


def check(name, folder, kind, seed, whole):
    """Kills, sees where, starts again, sees from where that goes on, compares."""
    for attempt in range(10):  # a save may be over between the look and the kill: then the kill was another one
        fall = killed(name, folder / str(attempt), moments(kind, seed))
        if as_meant(fall, kind):
            break
    assert as_meant(fall, kind), fall
    assert 0 <= fall.saved <= fall.logged <= 12, fall
    run = folder / str(attempt)
    err = finished(name, run)
    begins = re.findall(r"going on from step (\d+) of 12", err)
    assert begins == ([str(fall.saved)] if fall.saved else []), fall
    found = left(run)
    assert found == whole, fall
    assert not leftovers(run)
    assert len({line["step"] for line in lines(run) if line["kind"] == "train"}) == 12
    assert len([line for line in lines(run) if line["kind"] == "train"]) == 12


@pytest.mark.parametrize(("name", "kind"), [("cnn", "write"), ("vit", "start")])
def test_a_killed_run_goes_on_to_the_same_bits(name, kind, tmp_path, undisturbed):
    check(name, tmp_path, kind, 0, undisturbed(name))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["cnn", "vit"])
def test_runs_killed_in_every_phase_go_on_to_the_same_bits(name, kind, seed, tmp_path, undisturbed):
    check(name, tmp_path, kind, 1 + seed, undisturbed(name))


@pytest.mark.slow
def test_a_run_killed_again_and_again_goes_on_to_the_same_bits(tmp_path, undisturbed):
    folder, saved = tmp_path / "run", [0]
    for goal in (2, 4, 7, 9):
        fall = killed("cnn", folder, lambda path, goal=goal: begun(path) >= goal)
        assert not fall.ended
        assert fall.logged > 0
        saved.append(fall.saved)
    assert saved == sorted(saved)  # what counts once goes on counting
    assert saved[-1] > 0
    finished("cnn", folder)
    assert left(folder) == undisturbed("cnn")


def test_the_lock_dies_with_its_owner(tmp_path):
    killed("mlp", tmp_path, moments("start", 1))
    assert "in use" not in finished("mlp", tmp_path)


def program(text, folder):
    """Runs lines of Python in a process of their own beside this file; exit code and stderr."""
    words = [sys.executable, "-c", "import sys\n" + text, str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, cwd=Path(__file__).parent)
    return done.returncode, done.stderr


def ended(process, number, *, twice=False):
    """Sends a signal, or the same twice at once as schedulers do; exit code and stderr."""
    process.send_signal(number)
    if twice:
        time.sleep(0.05)
        process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    return process.returncode, err


@pytest.mark.parametrize(("number", "code", "twice"), [(signal.SIGTERM, 143, True), (signal.SIGINT, 130, False)])
def test_a_signal_ends_with_its_code_and_one_sentence_and_its_echo_changes_nothing(number, code, twice, tmp_path):
    process = started("mlp", tmp_path)
    while not begun(tmp_path):
        time.sleep(0.001)
    found, err = ended(process, number, twice=twice)
    assert found == code, err
    assert "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith("stopped at step ") or last.startswith("stopped after its last step by ")
    assert "the same command " in last


def test_a_signal_before_the_first_step_ends_a_command_with_its_code_and_leaves_nothing(tmp_path):
    process = started("mlp", tmp_path)
    while not (tmp_path / "lock").exists():
        time.sleep(0.001)
    code, err = ended(process, signal.SIGTERM)
    assert code == 143, err
    assert err.splitlines() == ["stopped before its first step by SIGTERM; the same command starts again"]
    assert not (tmp_path / "checkpoints").exists()
    train("mlp", tmp_path, *OFTEN)
    assert left(tmp_path) == running.undisturbed("mlp", *OFTEN)


def test_a_run_that_was_halted_for_a_while_goes_on_to_the_same_bits(tmp_path):
    """SIGSTOP and SIGCONT, which no program can see, as of a laptop that sleeps."""
    process = started("mlp", tmp_path)
    while not begun(tmp_path):
        time.sleep(0.001)
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    logged = begun(tmp_path)
    time.sleep(0.5)
    assert begun(tmp_path) == logged
    assert not (tmp_path / "result.json").exists()
    process.send_signal(signal.SIGCONT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert left(tmp_path) == running.undisturbed("mlp", *OFTEN)


SLOW_STEP = """
import time
from _pytest.monkeypatch import MonkeyPatch
from running import at_step, signaled, train

def asked_twice():
    signaled()
    time.sleep(1)
    signaled()
    time.sleep(60)

at_step(MonkeyPatch(), 7, asked_twice)
train("mlp", sys.argv[1])
"""


def test_a_second_signal_stops_a_step_that_takes_long_and_loses_no_checkpoint(tmp_path):
    began = time.monotonic()
    code, err = program(SLOW_STEP, tmp_path)
    assert time.monotonic() - began < 60  # the step was not waited for
    assert code == 143
    assert err.splitlines()[-2:] == [
        "SIGTERM: finishing the step and saving; a second one stops at once",
        "stopped at once by a second SIGTERM; the same command resumes",
    ]
    assert steps(tmp_path) == [4, 5]
    assert not (tmp_path / "result.json").exists()
    train("mlp", tmp_path)
    assert left(tmp_path) == running.undisturbed("mlp")
    assert not leftovers(tmp_path)


SMALL_DISK = """
import resource
from _pytest.monkeypatch import MonkeyPatch
from running import at_step, train
from cnn_vit.errors import SurroundingsError

at_step(MonkeyPatch(), 6, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, resource.RLIM_INFINITY)))
try:
    train("mlp", sys.argv[1])
except SurroundingsError as error:
    print(error, file=sys.stderr)
    sys.exit(error.code)
"""


def test_a_disk_without_room_ends_a_run_with_its_code_and_the_same_command_goes_on(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        at_step(patch, 5, signaled)
        with pytest.raises(StoppedError):
            train("mlp", tmp_path)
    code, err = program(SMALL_DISK, tmp_path)
    assert code == 3
    assert "Traceback" not in err
    assert re.fullmatch(r"File too large: .*/checkpoints/8 needs .* raise it \(ulimit -f\), .*", err.splitlines()[-1])
    assert steps(tmp_path) == [4, 5]
    train("mlp", tmp_path)
    assert left(tmp_path) == running.undisturbed("mlp")
    assert not leftovers(tmp_path)
