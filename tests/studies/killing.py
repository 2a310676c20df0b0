"""Studies in processes of their own that a test kills at random moments; tests of workers and sweeps share it."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

from cnn_vit import files
from cnn_vit.studies import trials, workers

PATIENCE = 400  # seconds until a study that goes nowhere fails its test


def start(command):
    """Starts a program."""
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    """Waits for the end of a program that is to succeed; returns what it printed to stdout."""
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, stderr
    return stdout


def find_children(pid):
    """The processes that a process has started; none where it is gone."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def results_of(out, *names):
    """The bytes of the metrics of each trial, and those of its numbers, by its name."""
    results = {}
    for folder in (out / trials.TRIALS).iterdir():
        result = json.loads((folder / trials.RESULT).read_text())["result"]
        numbers = {name: result[name] for name in names}
        results[folder.name] = ((folder / trials.RUN / "metrics.jsonl").read_bytes(), numbers)
    return results


def count_starts(out):
    """How often trials of a study were begun, all together."""
    return sum(path.read_text().count("start") for path in out.glob(f"{trials.TRIALS}/*/{trials.ATTEMPTS}"))


def may_crash(out):
    """Whether a trial under way has died twice without getting further, as on a machine with much to do.

    It is left alone then, for the third death in a row would be its last.
    """
    for folder in out.glob(f"{trials.TRIALS}/*"):
        is_over = (folder / trials.RESULT).exists()
        if not is_over and trials.count_deaths(SimpleNamespace(folder=folder)) >= workers.MOST_DEATHS:
            return True
    return False


def is_training(out):
    """Whether a trial is under way that has written a line of its journal and has no result."""
    for path in out.glob(f"{trials.TRIALS}/*/{trials.LOCK}"):
        has_lines = (path.parent / trials.RUN / "metrics.jsonl").exists()
        if files.is_locked(path) and has_lines and not (path.parent / trials.RESULT).exists():
            return True
    return False


def kill_now_and_then(start_study, out, *, worker_kills, parent_kills, seed):
    """Does a study whose processes are killed at random moments.

    Args:
        start_study: starts it, and returns the process.
        out: its folder.
        worker_kills: how many of its workers are killed.
        parent_kills: how often the study itself is killed, and started again.
        seed: of the moments.

    Returns:
        What the last start printed, and for each kill whether a trial was training then.
    """
    rng = random.Random(seed)
    kinds = ["worker"] * worker_kills + ["parent"] * parent_kills
    rng.shuffle(kinds)
    kills = []
    process = start_study()
    while kinds and process.poll() is None:
        time.sleep(rng.uniform(0.1, 1.0))
        children = find_children(process.pid)
        is_under_way = any(files.is_locked(path) for path in out.glob(f"{trials.TRIALS}/*/{trials.LOCK}"))
        if process.poll() is not None or not children or not is_under_way:  # the study is over, or no trial has begun
            continue
        if may_crash(out):
            continue
        kills.append(is_training(out))
        if kinds.pop() == "parent":
            process.kill()
            process.communicate()
            process = start_study()
        else:
            os.kill(rng.choice(children), signal.SIGKILL)
    return finish(process), kills
