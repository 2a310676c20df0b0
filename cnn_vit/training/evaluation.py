"""Exact evaluation: each example counts once, whatever the batch size or the number of devices.

Each example's loss, prediction and margin come back to the host, which drops the padding rows and sums in float64.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnn_vit import data, files, models
from cnn_vit.data.feed import stream
from cnn_vit.errors import UserError, unknown
from cnn_vit.runs import folder
from cnn_vit.training import devices, step

NEAR_TIE = 1e-5  # margin below which float rounding may choose the class
BATCH_SIZE = 256  # examples judged at once where nobody says


def per_example(
    judged: Callable[[dict], dict], split: data.Split, *, batch_size: int, on: jax.sharding.Mesh, workers: int = 0
) -> dict[str, np.ndarray]:
    """What `judged` says of every example of a split, in the split's order.

    Returns:
        index, label, predicted, rank (N,) int32; loss, margin (N,) float32; scores (N, K) float32, or the five best
        with `classes` (N, 5) where there are more than 1,000 classes.
    """
    size = devices.round_up_batch(min(batch_size, len(split.labels)), on)
    batches = stream.ordered_batches(
        split, batch_size=size, workers=workers, place=lambda batch: devices.place_batch(batch, on)
    )
    found = [{key: np.asarray(value) for key, value in ready.items()} for ready in one_behind(map(judged, batches))]
    together = {key: np.concatenate([part[key] for part in found]) for key in found[0]}
    real = together.pop("weight") > 0
    order = np.argsort(together["index"][real], kind="stable")  # images of several sizes come by size
    return {key: value[real][order] for key, value in together.items()}


def one_behind(items: Iterator) -> Iterator:
    """The same items, each fetched only after the next was asked for: the device works while the host reads."""
    waiting: list = []
    for item in items:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting


def summarize(found: dict[str, np.ndarray], classes: int) -> dict[str, Any]:
    """Accuracy, top-5 accuracy (None for five classes or fewer), mean loss and number of examples."""
    return {
        "accuracy": float((found["rank"] == 0).mean(dtype=np.float64)),
        "top5": float((found["rank"] < 5).mean(dtype=np.float64)) if classes > 5 else None,
        "loss": float(found["loss"].mean(dtype=np.float64)),
        "n": len(found["index"]),
    }


def near_ties(found: dict[str, np.ndarray]) -> list[int]:
    """Indices of examples whose first two scores are so near that rounding may exchange them."""
    return sorted(int(index) for index in found["index"][found["margin"] < NEAR_TIE])


def save_predictions(workdir: Path, split: str, found: dict[str, np.ndarray]) -> None:
    """Writes predictions/SPLIT.npz: a line per example, so that no later question needs the network again."""
    names = {"index", "label", "predicted", "loss", "margin", "scores", "classes"}
    files.write_npz(workdir / "predictions" / f"{split}.npz", {k: v for k, v in found.items() if k in names})


def load_predictions(workdir: Path, split: str) -> dict[str, np.ndarray]:
    """The arrays of predictions/SPLIT.npz; `UserError` where they cannot be read."""
    return files.read_npz(workdir / "predictions" / f"{split}.npz")


def record_test_read(workdir: Path, **facts) -> None:
    """Appends a line to test_reads.jsonl: whoever chooses by a test split leaves a trace."""
    files.append_line(workdir / "test_reads.jsonl", facts)


def evaluate(network, source, split: str = "test", *, batch_size: int = BATCH_SIZE, workers: int = 2) -> dict[str, Any]:
    """Exact metrics of a trained network on a split. Reading a test split adds a line to the run's test_reads.jsonl.

    Args:
        network: what `load` returned.
        source: a data set (`data.load`), the name of a data source such as "digits", a path (folder, zip, npz) or a
            data section.
        split: train, validation or test.
        batch_size: examples judged at once; the result does not depend on it.
        workers: threads that decode images.

    Returns:
        split, accuracy, top5, loss, n, near_ties, `layout`: how the split was made where the data has none of its own
        (else None), and `per_example`: the arrays of `per_example` above.

    Raises:
        UserError: the data has other classes, other images, or no such split; no example at once.
    """
    refuse_untrained(network)
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size} judges nothing; make it at least 1")
    dataset = load_matching(network, source)
    if split not in dataset.splits:
        raise unknown("split", split, dataset.splits)
    on = devices.mesh()
    judge = step.eval_step(network.spec, on)
    params, stats, mean_and_std = devices.place(
        (network.params, network.stats, normalization(network.preprocessing)), on
    )
    found = per_example(
        lambda batch: judge(params, stats, batch, mean_and_std),
        dataset.splits[split],
        batch_size=batch_size,
        on=on,
        workers=workers,
    )
    answer = {"split": split, **summarize(found, len(network.classes)), "near_ties": near_ties(found)}
    if split == "test" and network.run is not None:
        path = source.get("path") if isinstance(source, Mapping) else source
        told = os.fspath(path) if isinstance(path, str | os.PathLike) else None
        record_test_read(network.run, by="evaluate", accuracy=answer["accuracy"], data=told)
    return answer | {"layout": dataset.facts.get("layout"), "rows": found}


def refuse_untrained(network) -> None:
    """Refuses what `load` did not give: `build`'s networks have no values, a folder's name is no network."""
    if not hasattr(network, "preprocessing"):
        raise UserError(f"{type(network).__name__} is no trained network; cnn_vit.load(RUN) gives that of a run folder")


def normalization(preprocessing: dict) -> dict[str, np.ndarray]:
    """Mean and deviation of the channels as `judge` takes them."""
    return {key: np.asarray(preprocessing[key], np.float32) for key in ("mean", "std")}


def section_for(network, path: str | os.PathLike) -> dict[str, Any]:
    """The data section that reads a path the way a network was trained to see images."""
    seen = network.preprocessing
    return data.section_for_path(path, image_size=tuple(seen["image_size"]), channels=seen["channels"], fit=seen["fit"])


def section_as_seen(network, section: dict[str, Any]) -> dict[str, Any]:
    """A data section whose unset size and colors are those that a network takes."""
    own = {key: network.preprocessing[key] for key in ("image_size", "channels")}
    own["image_size"] = tuple(own["image_size"])
    return section | {key: value for key, value in own.items() if section.get(key) is None}


def load_matching(network, source) -> data.Dataset:
    """The data that a source names, or an error with both lists where its classes are not the network's."""
    if isinstance(source, str | os.PathLike):
        known = source in data.names()
        source = section_as_seen(network, {"name": source}) if known else section_for(network, source)
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
    refuse_sizes(network.spec, dataset)
    return dataset


def refuse_sizes(form: step.NetworkSpec, dataset: data.Dataset) -> None:
    """Raises UserError where a network cannot tell images from their padding, or leaves nothing of a small one."""
    for name, split in dataset.splits.items():
        if split.padded_sizes is None:
            continue
        models.refuse_unmasked(form.model)
        network = step.build_network(form)
        if hasattr(network, "refuse_mask"):
            network.refuse_mask(train=False)
        at = int(split.padded_sizes.image_sizes.min(1).argmin())
        where = f"image {at} of {name}" if split.names is None else split.names[at]
        refuse_small(form, split.padded_sizes.image_sizes[at].tolist(), where)


def refuse_small(form: step.NetworkSpec, sides: Sequence[int], where: str) -> None:
    """Raises UserError for an image that leaves nothing behind the network's last layer."""
    least = step.smallest_side(form)
    if min(sides) < least:
        raise UserError(
            f"{where} is read as {sides[0]}x{sides[1]} pixels, and the last layer of {form.model} needs {least} a side "
            "to have anything left; take it away, or train with data.fit=crop, which enlarges small images"
        )


def first_difference(known: tuple[str, ...], found: tuple[str, ...]) -> str:
    """Where two lists part, in words; "" where one only goes on longer."""
    places = ((i, *pair) for i, pair in enumerate(zip(known, found, strict=False)) if pair[0] != pair[1])
    return next((f" (class {i} is {one!r} there and {other!r} here)" for i, one, other in places), "")


def shape_text(shape: tuple[int, int, int]) -> str:
    """(28, 30, 1) as "28x30x1"."""
    return "x".join(map(str, shape))
