"""Exact evaluation: each example counts once, whatever the batch size or the number of devices.

Each example's loss, prediction and margin come back to the host, which drops the padding rows and sums in float64.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnn_vit import data, files
from cnn_vit.data.feed import stream
from cnn_vit.errors import UserError, unknown
from cnn_vit.runs import folder
from cnn_vit.training import devices, forward
from cnn_vit.training.forward import Evaluator
from cnn_vit.training.trained import Trained, refuse_untrained

NEAR_TIE = 1e-5  # margin below which float rounding may choose the class
BATCH_SIZE = 256  # examples that are evaluated at once where nobody says
KEPT = {"index", "label", "predicted", "loss", "margin", "scores", "classes"}  # columns of predictions/SPLIT.npz


def per_example(
    evaluator: Evaluator, values: dict, split: data.Split, *, batch_size: int = BATCH_SIZE, workers: int = 0
) -> dict[str, np.ndarray]:
    """What a network says of every example of a split, in the split's order.

    Args:
        evaluator: the compiled network.
        values: dict(params, stats) on the devices.
        split: N examples.
        batch_size: examples at once; the answer does not depend on it.
        workers: threads that decode images.

    Returns:
        index, label, predicted, rank (N,) int32; loss, margin (N,) float32; scores (N, K) float32, or the five best
        with `classes` (N, 5) where there are more than 1,000 classes.
    """
    mesh = evaluator.mesh
    batches = stream.ordered_batches(
        split,
        batch_size=devices.round_up_batch(min(batch_size, len(split.labels)), mesh),
        workers=workers,
        place=lambda batch: devices.place_batch(batch, mesh),
    )
    measured = (evaluator(values, batch) for batch in batches)
    on_host = []
    for measures in one_behind(measured):
        on_host.append({name: np.asarray(column) for name, column in measures.items()})
    columns = {name: np.concatenate([part[name] for part in on_host]) for name in on_host[0]}
    real = columns.pop("weight") > 0  # the last batch was filled up with rows of weight 0
    order = np.argsort(columns["index"][real], kind="stable")  # images of several sizes come sorted by size
    return {name: column[real][order] for name, column in columns.items()}


def one_behind(items: Iterator) -> Iterator:
    """The same items, each handed on only after the next was asked for: the device works while the host reads."""
    waiting: list = []
    for item in items:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting


def summarize(rows: dict[str, np.ndarray], classes: int) -> dict[str, Any]:
    """Accuracy, top-5 accuracy (None for five classes or fewer), mean loss and number of examples.

    Args:
        rows: what `per_example` gave.
        classes: K.
    """
    return {
        "accuracy": float((rows["rank"] == 0).mean(dtype=np.float64)),
        "top5": float((rows["rank"] < 5).mean(dtype=np.float64)) if classes > 5 else None,
        "loss": float(rows["loss"].mean(dtype=np.float64)),
        "n": len(rows["index"]),
    }


def near_ties(rows: dict[str, np.ndarray]) -> list[int]:
    """Indices of the examples whose first two scores are so near that rounding may exchange them."""
    return sorted(int(index) for index in rows["index"][rows["margin"] < NEAR_TIE])


def save_predictions(workdir: Path, split: str, rows: dict[str, np.ndarray]) -> None:
    """Writes predictions/SPLIT.npz: a row for each example, so that no later question needs the network again."""
    kept = {name: column for name, column in rows.items() if name in KEPT}
    files.write_npz(folder.predictions_path(workdir, split), kept)


def load_predictions(workdir: Path, split: str) -> dict[str, np.ndarray]:
    """The arrays of predictions/SPLIT.npz; UserError where they cannot be read."""
    return files.read_npz(folder.predictions_path(workdir, split))


def record_test_read(workdir: Path, **facts) -> None:
    """Appends a line to test_reads.jsonl: whoever chooses by a test split leaves a trace."""
    files.append_line(workdir / folder.TEST_READS, facts)


def evaluate(
    network: Trained, source, split: str = "test", *, batch_size: int = BATCH_SIZE, workers: int = 2
) -> dict[str, Any]:
    """Exact metrics of a trained network on a split. Reading a test split adds a line to the run's test_reads.jsonl.

    Args:
        network: what `load` returned.
        source: a data set (`data.load`), the name of a data source such as "digits", a path (folder, zip, npz) or a
            data section.
        split: train, validation or test.
        batch_size: examples that are evaluated at once; the result does not depend on it.
        workers: threads that decode images.

    Returns:
        split, accuracy, top5, loss, n, near_ties, `layout`: how the split was made where the data has none of its own
        (else None), and `rows`: the arrays of `per_example`.

    Raises:
        UserError: the data has other classes, other images, or no such split; or batch_size is below 1.
    """
    refuse_untrained(network)
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size} judges nothing; make it at least 1")
    dataset = load_matching(network, source)
    if split not in dataset.splits:
        raise unknown("split", split, dataset.splits)
    mesh = devices.mesh()
    evaluator = forward.build_evaluator(network.spec, network.preprocessing, mesh)
    values = devices.place(network.values, mesh)
    rows = per_example(evaluator, values, dataset.splits[split], batch_size=batch_size, workers=workers)
    metrics = {"split": split, **summarize(rows, len(network.classes)), "near_ties": near_ties(rows)}
    if split == "test" and network.run is not None:
        record_test_read(network.run, by="evaluate", accuracy=metrics["accuracy"], data=path_of(source))
    return metrics | {"layout": dataset.facts.get("layout"), "rows": rows}


def path_of(source) -> str | None:
    """The path that a source names, as text; None where it names none."""
    path = source.get("path") if isinstance(source, Mapping) else source
    return os.fspath(path) if isinstance(path, str | os.PathLike) else None


def load_matching(network: Trained, source) -> data.Dataset:
    """The data that a source names, read as the network takes images.

    Raises:
        UserError: its classes are not the network's (with both lists), or its images have another shape.
    """
    if isinstance(source, str | os.PathLike):
        if source in data.names():
            source = section_as_seen(network, {"name": source})
        else:
            source = section_for(network, source)
    dataset = source if isinstance(source, data.Dataset) else data.load(source)
    if tuple(dataset.classes) != tuple(network.classes):
        raise UserError(
            f"the network knows the classes {folder.list_names(network.classes)}, "
            f"the data has {folder.list_names(dataset.classes)}"
            f"{first_difference(network.classes, dataset.classes)}; name and order the class folders as in training"
        )
    if dataset.image_shape != tuple(network.spec.image_shape):
        raise UserError(
            f"the network takes {shape_text(network.spec.image_shape)} images, the data gives "
            f"{shape_text(dataset.image_shape)}; set data.image_size and data.channels to the network's"
        )
    forward.refuse_padded_sizes(network.spec, dataset)
    return dataset


def section_for(network: Trained, path: str | os.PathLike) -> dict[str, Any]:
    """The data section that reads a path the way a network was trained to see images."""
    preprocessing = network.preprocessing
    return data.section_for_path(
        path,
        image_size=tuple(preprocessing["image_size"]),
        channels=preprocessing["channels"],
        fit=preprocessing["fit"],
    )


def section_as_seen(network: Trained, section: dict[str, Any]) -> dict[str, Any]:
    """A data section whose unset image size and channels are those that a network takes."""
    completed = dict(section)
    if completed.get("image_size") is None:
        completed["image_size"] = tuple(network.preprocessing["image_size"])
    if completed.get("channels") is None:
        completed["channels"] = network.preprocessing["channels"]
    return completed


def first_difference(expected: tuple[str, ...], actual: tuple[str, ...]) -> str:
    """Where two lists of classes part, in words; "" where one only goes on longer."""
    for number, (there, here) in enumerate(zip(expected, actual, strict=False)):
        if there != here:
            return f" (class {number} is {there!r} there and {here!r} here)"
    return ""


def shape_text(shape: tuple[int, int, int]) -> str:
    """(28, 30, 1) as "28x30x1"."""
    return "x".join(map(str, shape))
