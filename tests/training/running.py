"""Tiny runs of three networks, and what of their run folders must not depend on having been stopped."""

import functools
import hashlib
import json
import os
import signal
import tempfile
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
VIT_TRAINING = ("model.dropout=0.1", "data.augment=('flip', 'mixup(0.2)')", "optimizer.accumulate=2", "ema_decay=0.9")
FREEZE = ("pretrained.freeze=stem, stages/0..1", "pretrained.statistics=update")
# A recipe and changes of its settings. cnn, vit, wide_frozen and staged have about 5 MB of state, so that a save lasts
RECIPES = {
    "cnn": ("configs/digits_resnet.py:smoke", "model.filters=40", "data.augment=('pad_crop(1)',)"),  # batch norm
    "vit": (
        "configs/digits_vit.py:smoke",
        *("model.width=160", "model.hidden=640", "model.heads=4"),
        *VIT_TRAINING,
    ),
    "narrow_vit": ("configs/digits_vit.py:smoke", *VIT_TRAINING),
    "mlp": ("configs/digits_mlp.py:smoke",),  # dropout; compiles quickly
    # a frozen body, whose running statistics are trained all the same
    "frozen": (
        "configs/digits_resnet.py:smoke",
        *("model.filters=8", "data.augment=('pad_crop(1)',)", "ema_decay=0.9"),
        *FREEZE,
    ),
    "wide_frozen": (
        "configs/digits_resnet.py:smoke",
        *("model.filters=40", "data.augment=('pad_crop(1)',)", "ema_decay=0.9"),
        *FREEZE,
    ),
    # adapters on a frozen body; compiles quickly
    "lora": ("configs/digits_mlp.py:smoke", "pretrained.lora=4", "ema_decay=0.9"),
    # three stages; at last a block has adapters, and the rest is trained as a whole
    "staged": (
        "configs/digits_vit.py:smoke",
        *("model.depth=2", "model.width=160", "model.hidden=640", "model.heads=4", "ema_decay=0.9"),
        *("pretrained.freeze=blocks/0", "pretrained.lora=16"),
        "pretrained.stages=('head 3 steps', 'blocks 4 steps', 'all')",
    ),
}
VIT = ("model.dropout=0", "optimizer.accumulate=1", "ema_decay=none", "data.augment=()")  # a ViT and nothing else


def load_settings(name, *changes):
    """Final settings of a tiny run."""
    recipe, *recipe_changes = RECIPES[name]
    return settings.load(recipe, [*recipe_changes, *COMMON, *changes])


def train(name, folder, *changes, **options):
    """Trains a tiny run in a folder, and returns its result."""
    return loop.train(load_settings(name, *changes), folder, **options)


@functools.cache
def undisturbed_outcome(name, *changes):
    """The outcome of a run that nothing happened to, trained once for a process."""
    with tempfile.TemporaryDirectory() as folder:
        train(name, Path(folder) / "run", *changes)
        return read_outcome(Path(folder) / "run")


def read_outcome(folder):
    """All of a finished run that the seed decides: every bit of the last state, the journal, predictions, result."""
    result = read_result(folder)
    for name in ("timing", "sealed", "seal"):  # the seals are of the timing too, and of settings that change no result
        del result[name]
    return {
        "state": state_digest(folder),
        "metrics": (folder / "metrics.jsonl").read_bytes(),
        "predictions": {path.name: path.read_bytes() for path in sorted((folder / "predictions").iterdir())},
        "samples": (folder / "samples.npz").read_bytes(),
        "result": result,
    }


def read_result(folder):
    return json.loads((folder / "result.json").read_text())


def read_pretrained(folder):
    return json.loads((folder / "pretrained.json").read_text())


def read_lines(folder):
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def train_lines(folder):
    """The lines of logged steps in metrics.jsonl."""
    return [line for line in read_lines(folder) if line["kind"] == "train"]


def evaluation_lines(folder):
    """The lines of evaluations in metrics.jsonl."""
    return [line for line in read_lines(folder) if line["kind"] == "evaluation"]


def committed_steps(folder):
    """The steps of a run that have a manifest."""
    folders = manifests.step_folders(folder / "checkpoints")
    return [step for step, path in folders.items() if (path / "MANIFEST.json").exists()]


def state_digest(folder, step=None):
    """The digest of a checkpoint, the newest by default, read without the settings of its run."""
    step = step or committed_steps(folder)[-1]
    arrays = manifests.read(folder / "checkpoints" / str(step))["arrays"]
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    template = {
        name: jax.ShapeDtypeStruct(shape, np.dtype(dtype), sharding=sharding) for name, (dtype, shape) in arrays.items()
    }
    checkpoints = Checkpoints(folder / "checkpoints", keep_checkpoints=2, crash=folder / "crash", clean_up=False)
    try:
        return trees.digest(checkpoints.restore(step, template))
    finally:
        checkpoints.close()


def hash_files(folder):
    """The sha256 of every file of a run folder but its lock, by the file's path in the folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


def find_leftovers(folder):
    """The names of files and folders that only a write or removal under way may leave beside its target."""
    return [path.name for path in folder.rglob("*") if "tmp" in path.name or path.name.startswith(".deleted")]


def call_at_step(monkeypatch, step, action):
    """Has the loop itself call a function, right after it has begun a step."""
    queue_measures = Run.queue_measures

    def queue_and_act(self, step_now, measures):
        queue_measures(self, step_now, measures)
        if step_now == step:
            action()

    monkeypatch.setattr(Run, "queue_measures", queue_and_act)


def send_signal(number=signal.SIGTERM):
    """Sends this process a signal."""
    os.kill(os.getpid(), number)
