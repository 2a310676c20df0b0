"""Run folders written by hand: every number in them is chosen, nothing is trained."""

import json
from pathlib import Path

import numpy as np

from cnn_vit import files, settings

NAMES = ("ant", "bee", "cat")
LABEL = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
PREDICTED = [0, 0, 0, 1, 1, 1, 2, 2, 0, 0]  # 6 of 10 right
MLP = "configs/digits_mlp.py:smoke"


def rows(label, predicted, classes, sure=3.0):
    """Predictions whose scores are `sure` for the predicted class and 0 for the others."""
    label, predicted = np.array(label, np.int32), np.array(predicted, np.int32)
    scores = np.zeros((len(label), classes), np.float32)
    scores[np.arange(len(label)), predicted] = sure
    shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    loss = -np.log(shares[np.arange(len(label)), label]).astype(np.float32)
    return dict(index=np.arange(len(label), dtype=np.int32), label=label, predicted=predicted, loss=loss, scores=scores)


def metrics(steps=(10, 20), accuracy=0.6):
    """Lines of a journal with an evaluation at each step."""
    for step in steps:
        yield dict(kind="train", step=step, loss=20 / step, accuracy=0.5, learning_rate=0.1, gradient_norm=1.0)
        yield dict(kind="evaluation", split="validation", step=step, loss=30 / step, accuracy=accuracy, n=10)


def finished(
    workdir,
    *overrides,
    recipe=MLP,
    names=NAMES,
    label=LABEL,
    predicted=PREDICTED,
    sure=3.0,
    shape=(8, 8, 1),
    samples=None,
    lines=None,
    reads=1,
    command="cnn-vit train --config=configs/digits_mlp.py",
):
    """A finished run folder."""
    workdir = Path(workdir)
    final = settings.load(recipe, list(overrides))
    found = rows(label, predicted, len(names), sure)
    lines = list(metrics() if lines is None else lines)
    steps = lines[-1]["step"]
    accuracy = float(np.mean(found["label"] == found["predicted"]))
    counts = {"train": 320, "validation": len(label), "test": len(label)}
    files.write_json(workdir / "config.json", settings.to_json(final))
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
    write_lines(workdir / "timing.jsonl", [dict(step=s, seconds=s / 10, cpu_seconds=s / 5) for s in (10, 20)])
    write_lines(workdir / "test_reads.jsonl", [dict(by="train", step=steps, accuracy=accuracy)] * reads)
    for split in ("validation", "test"):
        files.write_npz(workdir / "predictions" / f"{split}.npz", found)
    files.write_npz(workdir / "samples.npz", pictures(found) if samples is None else samples)
    told = dict(accuracy=accuracy, loss=float(found["loss"].mean()), n=len(label), top5=None)
    files.write_json(
        workdir / "result.json",
        dict(test=told, validation=told | {"step": steps}, steps=steps, parameters=1234, fingerprint="a" * 64,
             timing={}, tested={"step": steps, "values": "trained", "with": "last"}, forked_from=None),
    )  # fmt: skip
    return workdir


def pictures(found, side=8, channels=1):
    """Samples of noise, with the mistakes of these predictions, worst first."""
    rng = np.random.default_rng(0)
    wrong = np.flatnonzero(found["label"] != found["predicted"])
    wrong = wrong[np.argsort(-found["loss"][wrong], kind="stable")][:32]
    noise = lambda n: rng.integers(0, 256, (n, side, side, channels), np.uint8)  # noqa: E731
    labels = np.resize(np.unique(found["label"]), 32).astype(np.int32)
    mistakes = dict(mistakes=noise(len(wrong)), mistakes_index=found["index"][wrong]) if len(wrong) else {}
    return dict(seen=noise(32), seen_label=labels, **mistakes)


def write_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))


def unfinish(workdir):
    """What a run has that is under way."""
    for name in (
        "result.json",
        "samples.npz",
        "test_reads.jsonl",
        "predictions/validation.npz",
        "predictions/test.npz",
    ):
        (Path(workdir) / name).unlink()
    return workdir
