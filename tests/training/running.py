"""Tiny runs of two networks, and what of a run folder must not depend on having been stopped."""

import functools
import hashlib
import json
import os
import signal
from pathlib import Path

import jax
import numpy as np

from cnn_vit import settings, trees
from cnn_vit.runs import manifests
from cnn_vit.runs.checkpoints import Checkpoints
from cnn_vit.training import loop
from cnn_vit.training.run import Run

TOTAL = 12  # steps
EPOCH = 8  # steps: 256 examples in batches of 32
COMMON = ("duration=12 steps", "log_every=2", "evaluate_every=5", "checkpoint_every=4")
RECIPES = {  # the first two have about 5 MB of state, so that a save lasts for a while
    "cnn": ("configs/digits_resnet.py:smoke", "model.filters=40", "data.augment=('pad_crop(1)',)"),  # batch norm
    "vit": (
        "configs/digits_vit.py:smoke",
        *("model.width=160", "model.hidden=640", "model.heads=4", "model.dropout=0.1"),
        "data.augment=('flip', 'mixup(0.2)')",
        "optimizer.accumulate=2",
        "ema_decay=0.9",
    ),
    "mlp": ("configs/digits_mlp.py:smoke",),  # dropout; compiles quickly
}


def configured(name, *changes):
    """Final settings of a tiny run."""
    recipe, *its_own = RECIPES[name]
    return settings.load(recipe, [*its_own, *COMMON, *changes])


def train(name, folder, *changes, **named):
    return loop.train(configured(name, *changes), folder, **named)


@functools.cache
def undisturbed(name, *changes):
    """What a run that nothing happened to leaves behind. Made once for a process."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        train(name, Path(folder) / "run", *changes)
        return left(Path(folder) / "run")


def left(folder):
    """All of a finished run that the seed decides: every bit of the last state, the journal, predictions, result."""
    return {
        "state": state(folder),
        "metrics": (folder / "metrics.jsonl").read_bytes(),
        "predictions": {path.name: path.read_bytes() for path in sorted((folder / "predictions").iterdir())},
        "samples": (folder / "samples.npz").read_bytes(),
        "result": {key: value for key, value in result(folder).items() if key != "timing"},
    }


def result(folder):
    return json.loads((folder / "result.json").read_text())


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def steps(folder):
    """Committed steps of a run."""
    return [
        step
        for step, path in manifests.step_folders(folder / "checkpoints").items()
        if (path / "MANIFEST.json").exists()
    ]


def state(folder, step=None):
    """The digest of a checkpoint, the newest by default, read without the settings of its run."""
    step = step or steps(folder)[-1]
    arrays = manifests.read(folder / "checkpoints" / str(step))["arrays"]
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    template = {
        name: jax.ShapeDtypeStruct(shape, np.dtype(kind), sharding=here) for name, (kind, shape) in arrays.items()
    }
    kept = Checkpoints(folder / "checkpoints", keep_checkpoints=2, crash=folder / "crash", clean_up=False)
    try:
        return trees.digest(kept.restore(step, template))
    finally:
        kept.close()


def contents(folder, *, but=("lock",)):
    """sha256 of every file of a folder, by its name from there."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in but
    }


def leftovers(folder):
    """Names of what only a write under way may have beside its target."""
    return [path.name for path in folder.rglob("*") if "tmp" in path.name or path.name.startswith(".deleted")]


def at_step(monkeypatch, step, act):
    """Has something done by the loop itself when it has begun a step."""
    queue_measures = Run.queue_measures

    def acting(self, done, measures):
        queue_measures(self, done, measures)
        if done == step:
            act()

    monkeypatch.setattr(Run, "queue_measures", acting)


def signaled(number=signal.SIGTERM):
    """Sends this process a signal."""
    os.kill(os.getpid(), number)
