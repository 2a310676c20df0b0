"""Commands in a process of its own with four forced CPU devices, for test_device_runs.py; prints what it saw as JSON.

Given a folder with the runs `one`, finished on one device, and `stopped`, begun there: trains `four`, evaluates `one`
and `four`, and goes on with `stopped`.
"""

import contextlib
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
ORIGINAL = step.build_step, forward.build_eval_step, devices.place_batch


def train(folder):
    """The words of a tiny run."""
    (recipe,) = RECIPES["mlp"]
    return ["train", f"--config={recipe}", *(f"--config.{one}" for one in COMMON), f"--workdir={folder}"]


def said(words):
    """What a command prints to stdout and stderr."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(words)
    assert code == 0, err.getvalue()
    return out.getvalue(), err.getvalue()


def evaluated(folder):
    """What `evaluate` answers, by batch size."""
    words = ["evaluate", f"--workdir={folder}", "--split=validation", "--json"]
    return {size: json.loads(said([*words, f"--batch_size={size}"])[0]) for size in SIZES}


def rows(tree):
    """Rows of each leaf's piece on each device, by the device's number; none of what lies on the host."""
    pieces = [getattr(leaf, "addressable_shards", ()) for leaf in jax.tree.leaves(tree)]
    return [{piece.device.id: len(np.atleast_1d(piece.data)) for piece in leaf} for leaf in pieces]


def watch():
    """Has each step and each judging note where its batch lies when it is asked, and where what it gives lies."""
    seen = dict(learned=[], judged=[], state=[], scores=[], placed=0, first=None)  # batches placed at the first step
    build, judge, place = ORIGINAL

    def building(*given, **named):
        built = build(*given, **named)

        def learn(state, frozen, batch, numbers):
            seen["first"] = seen["first"] or seen["placed"]
            seen["learned"] += rows(batch)
            state, measures = built.learn(state, frozen, batch, numbers)
            seen["state"] += rows((state, measures))
            return state, measures

        return built._replace(learn=learn)

    def judging(*given):
        judged = judge(*given)

        def said(params, stats, batch, numbers):
            seen["judged"] += rows(batch)
            found = judged(params, stats, batch, numbers)
            seen["scores"] += rows(found)
            return found

        return said

    def placing(batch, on):
        seen["placed"] += 1
        return place(batch, on)

    step.build_step, forward.build_eval_step, devices.place_batch = building, judging, placing
    return seen


def everything(folder):
    """What is done, in this order; each with what was seen of it."""
    found = {}
    acts = {
        "train": lambda: said(train(folder / "four")),
        "evaluate": lambda: {run: evaluated(folder / run) for run in ("one", "four")},
        "resume": lambda: said(train(folder / "stopped")),
    }
    for name, act in acts.items():
        seen = watch()
        found[name] = seen | {"answer": act()}
    return found


if __name__ == "__main__":
    json.dump(everything(Path(sys.argv[1])), sys.stdout)
