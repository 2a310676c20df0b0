"""Writes run folders by hand: every number in them is chosen, nothing is trained."""

import json
from pathlib import Path

import numpy as np
from sealing import reseal

from cnn_vit import files, settings

NAMES = ("ant", "bee", "cat")
LABELS = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
PREDICTED = [0, 0, 0, 1, 1, 1, 2, 2, 0, 0]  # 6 of 10 are right
RECIPE = "configs/digits_mlp.py:smoke"


def make_predictions(labels, predicted, classes, score=3.0):
    """Predictions with this score for the predicted class and 0 for each other class."""
    labels, predicted = np.array(labels, np.int32), np.array(predicted, np.int32)
    n = len(labels)
    scores = np.zeros((n, classes), np.float32)
    scores[np.arange(n), predicted] = score
    probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    losses = -np.log(probabilities[np.arange(n), labels]).astype(np.float32)
    return dict(index=np.arange(n, dtype=np.int32), label=labels, predicted=predicted, loss=losses, scores=scores)


def make_metrics(steps=(10, 20), accuracy=0.6):
    """Lines of metrics.jsonl with an evaluation at each step."""
    for step in steps:
        yield dict(kind="train", step=step, loss=20 / step, accuracy=0.5, learning_rate=0.1, gradient_norm=1.0)
        yield dict(kind="evaluation", split="validation", step=step, loss=30 / step, accuracy=accuracy, n=10)


def make_samples(predictions, side=8, channels=1):
    """Training images of noise, and images of noise for the mistakes of these predictions, worst first."""
    rng = np.random.default_rng(0)

    def draw_images(n):
        return rng.integers(0, 256, (n, side, side, channels), np.uint8)

    wrong = np.flatnonzero(predictions["label"] != predictions["predicted"])
    wrong = wrong[np.argsort(-predictions["loss"][wrong], kind="stable")][:32]
    mistakes = {}
    if len(wrong):
        mistakes = dict(mistakes=draw_images(len(wrong)), mistakes_index=predictions["index"][wrong])
    labels = np.resize(np.unique(predictions["label"]), 32).astype(np.int32)
    return dict(seen=draw_images(32), seen_label=labels, **mistakes)


def write_finished_run(
    workdir,
    *overrides,
    recipe=RECIPE,
    names=NAMES,
    labels=LABELS,
    predicted=PREDICTED,
    score=3.0,
    shape=(8, 8, 1),
    samples=None,
    lines=None,
    reads=1,
    command="cnn-vit train --config=configs/digits_mlp.py",
):
    """Writes the folder of a finished run, sealed and without checkpoints; both splits have the same predictions."""
    workdir = Path(workdir)
    predictions = make_predictions(labels, predicted, len(names), score)
    lines = list(make_metrics() if lines is None else lines)
    steps = lines[-1]["step"]
    accuracy = float(np.mean(predictions["label"] == predictions["predicted"]))
    counts = {"train": 320, "validation": len(labels), "test": len(labels)}
    files.write_json(workdir / "config.json", settings.to_json(settings.load(recipe, list(overrides))))
    files.write_json(workdir / "classes.json", list(names))
    files.write_json(
        workdir / "data.json",
        dict(counts=counts, class_counts={"train": dict.fromkeys(names, 7)}, fingerprint="f" * 64, source="digits",
             image_shape=list(shape), notes=[], skipped=[], slices={}, path=None),
    )  # fmt: skip
    files.write_json(
        workdir / "environment.json",
        dict(command=command, commit="c" * 40, cores=2, machine="x", resumed=[], versions={"jax": "1.2.3"},
             devices=dict(count=1, kind="cpu", platform="cpu")),
    )  # fmt: skip
    write_lines(workdir / "metrics.jsonl", lines)
    write_lines(
        workdir / "timing.jsonl", [dict(step=step, seconds=step / 10, cpu_seconds=step / 5) for step in (10, 20)]
    )
    write_lines(workdir / "test_reads.jsonl", [dict(by="train", step=steps, accuracy=accuracy)] * reads)
    for split in ("validation", "test"):
        files.write_npz(workdir / "predictions" / f"{split}.npz", predictions)
    files.write_npz(workdir / "samples.npz", make_samples(predictions) if samples is None else samples)
    evaluation = dict(accuracy=accuracy, loss=float(predictions["loss"].mean()), n=len(labels), top5=None)
    files.write_json(
        workdir / "result.json",
        dict(test=evaluation, validation=evaluation | {"step": steps}, steps=steps, parameters=1234,
             fingerprint="a" * 64, timing={}, tested={"step": steps, "values": "trained", "with": "last"},
             forked_from=None),
    )  # fmt: skip
    return reseal(workdir)


def write_lines(path, lines):
    """Writes a file of JSON objects, one a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))


def make_unfinished(workdir):
    """Removes from a finished run's folder what a run that is under way does not have yet."""
    for name in (
        "result.json",
        "samples.npz",
        "test_reads.jsonl",
        "predictions/validation.npz",
        "predictions/test.npz",
    ):
        (Path(workdir) / name).unlink()
    return workdir
