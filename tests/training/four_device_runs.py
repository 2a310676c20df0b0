"""Commands in a process of its own with four forced CPU devices, for test_device_runs.py; prints a report as JSON.

Takes a folder with the runs `one`, finished on one device, and `stopped`, begun there: trains `four`, evaluates `one`
and `four`, and resumes `stopped`.
"""

import contextlib
import dataclasses
import io
import json
import sys
from pathlib import Path

import jax
import numpy as np
from running import COMMON, RECIPES

from cnn_vit.__main__ import main
from cnn_vit.training import devices, forward, step

SIZES = (9, 512)  # neither divides the 64 examples of a split; 9 does not by the devices either
BUILD_STEP, BUILD_EVAL_STEP, PLACE_BATCH = step.build_step, forward.build_eval_step, devices.place_batch


def train_words(folder):
    """The command line that trains a tiny run."""
    (recipe,) = RECIPES["mlp"]
    overrides = [f"--config.{setting}" for setting in COMMON]
    return ["train", f"--config={recipe}", *overrides, f"--workdir={folder}"]


def run_command(words):
    """Runs a command; returns what it prints to stdout and to stderr."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(words)
    assert code == 0, err.getvalue()
    return out.getvalue(), err.getvalue()


def evaluate_run(folder):
    """What `evaluate --json` answers, by batch size."""
    answers = {}
    for size in SIZES:
        words = ["evaluate", f"--workdir={folder}", "--split=validation", "--json", f"--batch_size={size}"]
        out, _ = run_command(words)
        answers[size] = json.loads(out)
    return answers


def rows_per_device(tree):
    """For each leaf, the rows of its piece on each device by the device's number; {} for a leaf on the host."""
    rows = []
    for leaf in jax.tree.leaves(tree):
        pieces = getattr(leaf, "addressable_shards", ())
        rows.append({piece.device.id: len(np.atleast_1d(piece.data)) for piece in pieces})
    return rows


def observe():
    """Has each step and each evaluation note where its batch lies, and where what it returns lies.

    Returns:
        A dict that fills up: rows per device of the arrays of `learned` and `evaluated` batches, of `state` and
        measures, and of `scores`; the number of batches `placed`, and how many were placed before the `first` step.
    """
    observed = dict(learned=[], evaluated=[], state=[], scores=[], placed=0, first=None)

    def build_observed_step(*args, **kwargs):
        built_step = BUILD_STEP(*args, **kwargs)

        def learn(state, frozen, batch, hyperparameters):
            observed["first"] = observed["first"] or observed["placed"]
            observed["learned"] += rows_per_device(batch)
            state, measures = built_step.learn(state, frozen, batch, hyperparameters)
            observed["state"] += rows_per_device((state, measures))
            return state, measures

        learn.lower = built_step.learn.lower  # the run asks what memory the step needs
        return dataclasses.replace(built_step, learn=learn)

    def build_observed_eval_step(*args):
        eval_step = BUILD_EVAL_STEP(*args)

        def measure(params, stats, batch, constants):
            observed["evaluated"] += rows_per_device(batch)
            measures = eval_step(params, stats, batch, constants)
            observed["scores"] += rows_per_device(measures)
            return measures

        return measure

    def place_observed_batch(batch, mesh):
        observed["placed"] += 1
        return PLACE_BATCH(batch, mesh)

    step.build_step, forward.build_eval_step = build_observed_step, build_observed_eval_step
    devices.place_batch = place_observed_batch
    return observed


def run_everything(folder):
    """Runs the commands in their order; returns the answer of each with what was observed during it."""
    commands = {
        "train": lambda: run_command(train_words(folder / "four")),
        "evaluate": lambda: {name: evaluate_run(folder / name) for name in ("one", "four")},
        "resume": lambda: run_command(train_words(folder / "stopped")),
    }
    report = {}
    for name, command in commands.items():
        observed = observe()
        report[name] = observed | {"answer": command()}
    return report


if __name__ == "__main__":
    json.dump(run_everything(Path(sys.argv[1])), sys.stdout)
