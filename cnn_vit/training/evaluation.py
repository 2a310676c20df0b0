"""Exact evaluation: each example counts once, whatever the batch size or the number of devices.

The device computes loss, prediction and margin of each example; the host drops the rows that only filled up the last
batch, and sums in float64.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnn_vit import data, files, stops
from cnn_vit.data import evaluated
from cnn_vit.data.feed import stream
from cnn_vit.data.sections import READING_KEYS, complete_section
from cnn_vit.errors import UserError
from cnn_vit.runs import folder, reader
from cnn_vit.training import devices, forward
from cnn_vit.training.forward import Evaluator
from cnn_vit.training.trained import Trained, refuse_untrained

NEAR_TIE = 1e-5  # a margin below this is so small that float rounding may choose the class
BATCH_SIZE = 256  # examples that are evaluated at once by default
# Columns of predictions/SPLIT.npz
SAVED_COLUMNS = {"index", "label", "predicted", "loss", "margin", "scores", "classes"}


def per_example(
    evaluator: Evaluator, values: dict, split: data.Split, *, batch_size: int = BATCH_SIZE, workers: int = 0
) -> dict[str, np.ndarray]:
    """Measures every example of a split with a network, in the split's order.

    Args:
        evaluator: the compiled network.
        values: dict(params, stats) on the devices.
        split: N examples.
        batch_size: examples at once; the result does not depend on it.
        workers: threads that decode images.

    Returns:
        A dict of arrays with a row for each example: index, label, predicted, rank (N,) int32; loss, margin (N,)
        float32; scores (N, K) float32, or the five best with `classes` (N, 5) where there are more than 1,000 classes.
    """
    mesh = evaluator.mesh
    batches = stream.evaluation_batches(
        split,
        batch_size=devices.round_up_batch(min(batch_size, len(split.labels)), mesh),
        workers=workers,
        place=lambda batch: devices.place_batch(batch, mesh),
    )
    # a generator: the device begins with a batch when the loop below asks for its measures
    batches_of_measures = (evaluator(values, batch) for batch in batches)
    on_host = []
    for measures in yield_one_behind(batches_of_measures):
        stops.raise_if_requested()
        on_host.append({name: np.asarray(column) for name, column in measures.items()})
    columns = {name: np.concatenate([part[name] for part in on_host]) for name in on_host[0]}
    is_example = columns.pop("weight") > 0  # the last batch was filled up with rows of weight 0
    order = np.argsort(columns["index"][is_example], kind="stable")  # images of several sizes come sorted by size
    return {name: column[is_example][order] for name, column in columns.items()}


def yield_one_behind(items: Iterator) -> Iterator:
    """Yields the same items, each only after the next was asked for.

    Asking for a batch's measures starts the device's work on it, which goes on while the host reads the batch before.
    """
    waiting: list = []
    for item in items:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting


def summarize(per_example: dict[str, np.ndarray], classes: int) -> dict[str, Any]:
    """Summarizes the measures of a split as one number each, summed in float64.

    Args:
        per_example: arrays with a row for each example, of which rank, loss and index are read.
        classes: K.

    Returns:
        accuracy, top5 (accuracy of the best five classes; None for five classes or fewer), loss (the mean) and n.
    """
    rank = per_example["rank"]
    return {
        "accuracy": float((rank == 0).mean(dtype=np.float64)),
        "top5": float((rank < 5).mean(dtype=np.float64)) if classes > 5 else None,
        "loss": float(per_example["loss"].mean(dtype=np.float64)),
        "n": len(per_example["index"]),
    }


def find_near_ties(per_example: dict[str, np.ndarray]) -> list[int]:
    """Returns the indices of the examples whose first two scores are so near that rounding may exchange them."""
    is_near = per_example["margin"] < NEAR_TIE
    return sorted(int(index) for index in per_example["index"][is_near])


def save_predictions(workdir: Path, split: str, per_example: dict[str, np.ndarray]) -> None:
    """Writes predictions/SPLIT.npz: a row for each example, so that no later question needs the network again."""
    columns = {name: column for name, column in per_example.items() if name in SAVED_COLUMNS}
    files.write_npz(folder.predictions_path(workdir, split), columns)


def load_predictions(workdir: Path, split: str) -> dict[str, np.ndarray]:
    """Reads the arrays of predictions/SPLIT.npz; UserError where they cannot be read."""
    return files.read_npz(folder.predictions_path(workdir, split))


def record_test_read(workdir: Path, **facts) -> None:
    """Appends a line of facts to test_reads.jsonl, so that each reading of a test split leaves a trace."""
    files.append_line(workdir / folder.TEST_READS, facts)


def evaluate(
    network: Trained,
    source,
    split: str | None = None,
    *,
    layout: str | None = None,
    batch_size: int = BATCH_SIZE,
    workers: int = 2,
) -> dict[str, Any]:
    """Evaluates a trained network on a split, exactly: each example counts once.

    The data may have some of the network's classes, which are matched by name. Evaluating a test split, or data that
    are not divided, adds a line to the test_reads.jsonl of the network's run.

    Args:
        network: what `load` returned.
        source: a data set (`data.load`), the name of a data source such as "digits", a path (folder, zip, npz) or a
            data section. A folder without split folders, given by its path, is evaluated whole, but where it is what
            the network was trained on.
        split: train, validation or test; None: test, or all of such a folder.
        layout: what the folders at a path are, "classes" or "splits"; None: their names tell, or the run's own setting
            where the path is that of its data.
        batch_size: examples that are evaluated at once; the result does not depend on it.
        workers: threads that decode images.

    Returns:
        A dict of split ("all" for a whole folder), accuracy, top5, loss, n, near_ties (indices), `layout`: a sentence
        on how the split was made where the data has none of its own (else None), `trained_on`: the number of images
        whose content was trained on (None: not known), `notes`: what one who reads the accuracy should know, and
        `rows`: arrays of measures with a row for each example.

    Raises:
        UserError: the data have classes that the network does not know, other images or no such split, or batch_size
            is below 1.
    """
    refuse_untrained(network)
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size} evaluates nothing; make it at least 1")
    evaluated_split = load_matching(network, source, split, layout)
    mesh = devices.mesh()
    evaluator = forward.build_evaluator(network.spec, network.preprocessing, mesh, loss_numbers=network.loss_numbers)
    values = devices.place(network.values, mesh)
    measures = per_example(evaluator, values, evaluated_split.split, batch_size=batch_size, workers=workers)
    metrics = {
        "split": evaluated_split.name,
        **summarize(measures, len(network.classes)),
        "near_ties": find_near_ties(measures),
    }
    if evaluated_split.name in ("test", evaluated.ALL) and network.run is not None:
        record_test_read(network.run, by="evaluate", accuracy=metrics["accuracy"], data=path_of_source(source))
    return metrics | {
        "layout": evaluated_split.layout,
        "trained_on": evaluated_split.trained_on,
        "notes": evaluated_split.notes,
        "rows": measures,
    }


def path_of_source(source) -> str | None:
    """Returns the path that a source names, as text; None where it names none."""
    path = source.get("path") if isinstance(source, Mapping) else source
    return os.fspath(path) if isinstance(path, str | os.PathLike) else None


def load_matching(network: Trained, source, split: str | None, layout: str | None) -> evaluated.EvaluatedSplit:
    """Loads a split of the data that a source names, with images as the network takes them and its labels.

    Raises:
        UserError: it has classes that the network does not know, or its images have another shape.
    """
    is_path = isinstance(source, str | os.PathLike) and source not in data.names()
    if is_path:
        source = section_for(network, source, layout=layout)
    elif layout is not None:
        raise UserError(f"--layout={layout} says what the folders at a path are; give a path, --data=PATH")
    elif isinstance(source, str):  # a data source such as "digits"
        source = section_as_seen(network, {"name": source})
    run_data = None
    if network.run is not None and isinstance(source, Mapping):
        run_data = read_run_data(network.run)
    if isinstance(source, data.Dataset):
        loaded = evaluated.from_dataset(source, network.classes, split, by_position=not network.has_class_names)
    else:
        loaded = evaluated.load(
            source,
            network.classes,
            split,
            run_data=run_data,
            is_whole=is_path,
            by_position=not network.has_class_names,
        )
        loaded.notes.extend(describe_other_fit(network, source))
    if loaded.image_shape != tuple(network.spec.image_shape):
        raise UserError(
            f"the network takes {shape_text(network.spec.image_shape)} images, the data gives "
            f"{shape_text(loaded.image_shape)}; set data.image_size and data.channels to the network's"
        )
    refuse_other_levels(network, loaded)
    forward.refuse_padded_sizes(network.spec, {loaded.name: loaded.split})
    return loaded


def read_run_data(run: Path) -> evaluated.RunData:
    """Reads what a run folder says of the data that its network was trained on."""
    section = reader.read_settings(run).section("data")
    recorded = reader.read_data(run / folder.DATA)
    return evaluated.RunData(str(run), section, recorded["fingerprint"])


def refuse_other_levels(network: Trained, loaded: evaluated.EvaluatedSplit) -> None:
    """Raises UserError where white in images of 16 bits is another level than it was in training."""
    if loaded.highest_level is None:  # no image has 16 bits
        return
    expected = network.preprocessing["levels"]
    if loaded.levels != expected:
        raise UserError(
            f"data.levels is {text_of_levels(loaded.levels)}, and was {text_of_levels(expected)} when the network was "
            "trained; set it to that, or images of 16 bits have another brightness"
        )


def describe_other_fit(network: Trained, section: Mapping[str, Any]) -> list[str]:
    """Returns a sentence for each setting by which a section resizes images otherwise than was done in training."""
    section = complete_section(section)
    sentences = []
    for key in ("fit", "interpolation"):
        trained_with = network.preprocessing[key]
        if section[key] != trained_with:
            sentences.append(f"data.{key} is {section[key]}, and was {trained_with} when the network was trained")
    return sentences


def text_of_levels(levels: int | None) -> str:
    """Writes the setting `data.levels` in a sentence."""
    return "unset" if levels is None else str(levels)


def section_for(network: Trained, path: str | os.PathLike, *, layout: str | None = None) -> dict[str, Any]:
    """Returns the data section that reads a path the way the network's training images were read.

    Without `layout`, the layout of the run is taken where the path is that of its own data.
    """
    preprocessing = network.preprocessing
    section = data.section_for_path(
        path,
        image_size=tuple(preprocessing["image_size"]),
        channels=preprocessing["channels"],
        layout=layout,
    )
    for key in READING_KEYS:
        section[key] = preprocessing[key]
    if network.run is not None and section["name"] == "folder" and layout is None:
        trained_on = reader.read_settings(network.run).section("data")
        is_own_path = trained_on["path"] is not None and os.path.realpath(trained_on["path"]) == os.path.realpath(path)
        if is_own_path and "layout" in trained_on:
            section["layout"] = trained_on["layout"]
    return section


def section_as_seen(network: Trained, section: dict[str, Any]) -> dict[str, Any]:
    """Returns a copy of a data section in which what is unset or missing of how images are read is the network's."""
    preprocessing = network.preprocessing
    completed = dict(section)
    if completed.get("image_size") is None:
        completed["image_size"] = tuple(preprocessing["image_size"])
    for key in ("channels", *READING_KEYS):
        if completed.get(key) is None:
            completed[key] = preprocessing[key]
    return completed


def shape_text(shape: tuple[int, int, int]) -> str:
    """An image's height, width and channels as text: "28x30x1" for (28, 30, 1)."""
    return "x".join(map(str, shape))
