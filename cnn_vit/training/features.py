"""Features: what a layer of a trained network gives for images, a row for each image of a split, in the split's order.

By default it is what the head sees. Any other layer is named by its path, as `describe` lists it. What it gives for
each pixel or token is averaged to one vector of an image, class token included, or left as it is.

Features of a split are computed once and kept in the folder `features` of the cache. The name of such a file is a hash
of whatever decides on them: the values of the network, what it is and the code that computes it, the layer, mean and
std of its images, the data's fingerprint, which images the split has and how they were read. Together these files take
at most 2 GB; the oldest are removed. One that is damaged is computed anew. Where the cache cannot be read or written,
nothing else changes.
"""

import contextlib
import functools
import hashlib
import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnn_vit import compilation, data, files, process, trees
from cnn_vit.analysis import record
from cnn_vit.data import evaluated
from cnn_vit.data.base.padding import PAD_BATCH, PaddedSizes, pad_bottom_right
from cnn_vit.data.base.splits import Split
from cnn_vit.data.reading import decoded
from cnn_vit.data.sections import complete_section
from cnn_vit.errors import UserError, unknown
from cnn_vit.files import cache
from cnn_vit.runs import reader
from cnn_vit.training import devices, evaluation, forward
from cnn_vit.training.caches import compiled_once
from cnn_vit.training.forward import Evaluator, NetworkSpec
from cnn_vit.training.prediction import InputImage
from cnn_vit.training.trained import Trained, refuse_untrained

FEATURES = "features"  # stands for what the head sees where a layer is named
HEAD = "head"  # path of the layer whose input that is, in every family
POOLS = ("mean", "none")
ROOMS = ("nn", "models")  # whose code computes them, beside that of this file, `forward` and `record`
TRACED_ROWS = 1009  # images of the batch that shows the layers' shapes: a prime that no axis of a layer is likely to be
SAMPLED_IMAGES = 16  # of a split, whose pixels stand for how all its images were read
MOST_KEPT = 512 * 2**20  # bytes of a split's features, above which they are not kept
MEMORY_FACTOR = 4  # features are held so many times: by batch, joined, in order, and in a file that is being written
IMAGES_AT_ONCE = 1024  # of a caller, that are decoded and held at once


class SplitFeatures(NamedTuple):
    """The features of a split.

    Attributes:
        rows: (N, D) float32, or (N, ..., D) where they are not averaged, in the order of the split.
        is_from_cache: whether they were computed before.
    """

    rows: np.ndarray
    is_from_cache: bool


@dataclass(frozen=True)
class ImageFeatures:
    """The features of images without labels.

    Attributes:
        paths: of the images that could be read, in their order.
        rows: (N, D) float32 or (N, ..., D), as of `SplitFeatures`.
        broken: the images that could not be read, with the reason of each.
    """

    paths: list[str]
    rows: np.ndarray
    broken: list[InputImage]


# Data -----------------------------------------------------------------------------------------------------------------


def load_dataset(network: Trained, source: Any, *, layout: str | None = None) -> data.Dataset:
    """Loads data of any classes, whose images are brought to the size, colors and fit that the network takes.

    Args:
        network: what `load` returned.
        source: a data set, which must have the network's image size; the name of a data source such as "digits"; a
            path (folder, zip, npz), which has the run's own slices where the run was trained on it; or a data section.
        layout: what the folders at a path are, "classes" or "splits"; None: their names tell.

    Raises:
        UserError: as `data.load`; the network does not take images of this shape, or of several sizes.
    """
    refuse_untrained(network)
    dataset = source if isinstance(source, data.Dataset) else data.load(section_for(network, source, layout=layout))
    if dataset.image_shape != tuple(network.spec.image_shape):
        raise UserError(
            f"the network takes {evaluation.shape_text(network.spec.image_shape)} images, the data set gives "
            f"{evaluation.shape_text(dataset.image_shape)}; load it at the network's size, or give its path"
        )
    forward.refuse_padded_sizes(network.spec, dataset.splits)
    return dataset


def section_for(network: Trained, source: Any, *, layout: str | None = None) -> dict[str, Any]:
    """Returns the data section of a source, in which images are brought to the network's size, colors and fit.

    White in images of 16 bits and the largest number of pixels are the network's where the source does not say them.

    Raises:
        UserError: as `data.section_for_path`, or a layout is given for what is not a path.
    """
    is_path = isinstance(source, str | os.PathLike) and source not in data.names()
    if is_path:
        section = evaluation.section_for(network, source, layout=layout) | own_slices(network, source)
    elif layout is not None:
        raise UserError(f"--layout={layout} says what the folders at a path are; give a path, --data=PATH")
    else:
        section = evaluation.section_as_seen(network, {"name": source} if isinstance(source, str) else source)
    for key in ("image_size", "channels", "fit", "interpolation"):
        section[key] = network.preprocessing[key]
    section["image_size"] = tuple(section["image_size"])
    section["random_crop"] = None  # each image is seen whole, those of train too
    return section


def own_slices(network: Trained, path: str | os.PathLike) -> dict[str, str]:
    """Returns the slices that the network's run made of the data at a path; none where it was trained on others."""
    if network.run is None:
        return {}
    trained_on = reader.read_settings(network.run).section("data")
    if trained_on["path"] is None or os.path.realpath(trained_on["path"]) != os.path.realpath(path):
        return {}
    return {split: trained_on[split] for split in ("train", "validation", "test") if trained_on[split] is not None}


def describe_trained_on(network: Trained, source: Any, split: str, *, layout: str | None = None) -> list[str]:
    """Says how many images of a split the network's run was trained on, in a sentence; says nothing where none were.

    Of a data set that is loaded already, of a network that no run folder holds, and of data that come from a program,
    nothing is known and nothing is said.

    Args:
        network: what `load` returned.
        source, layout: the data, as of `load_dataset`.
        split: train, validation or test.
    """
    if network.run is None or isinstance(source, data.Dataset):
        return []
    section = complete_section(section_for(network, source, layout=layout))
    if section["name"] == "generator":  # it would be executed again
        return []
    try:
        parts = data.load_readable(section).source_data.parts
        part, indices = data.index_splits(parts, data.plan_splits(parts, section))[split]
        examples = parts[part].select(indices)
        count = evaluated.count_trained_on(examples, evaluation.read_run_data(network.run), None)
    except UserError as error:
        return [f"whether the network was trained on some of these images is not known: {error}"]
    return evaluated.describe_trained_on(count, len(indices))


# Layers ---------------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=32)
def layer_shapes(spec: NetworkSpec) -> Mapping[str, tuple[int, ...]]:
    """Returns the shape of what each layer gives for one image, by the layer's path, in the order of the calls.

    `features` is what the head sees. Left out are layers whose output is not one array with a row for each image.
    """
    images = jax.ShapeDtypeStruct((TRACED_ROWS, *spec.image_shape), jnp.float32)
    shapes = {}
    for call in record.record_calls(forward.build_network(spec), images):
        if call.path == HEAD:
            shapes[FEATURES] = head_input(call).shape[1:]
        output = call.outputs
        if call.path and record.is_array(output) and output.shape[:1] == (TRACED_ROWS,) and output.ndim > 1:
            shapes[call.path] = output.shape[1:]
    return shapes


def head_input(call: record.Call) -> Any:
    """Returns the array that the head is called with."""
    return next(value for value in call.inputs.values() if record.is_array(value))


def check_layer(spec: NetworkSpec, layer: str, pool: str, *, has_several_sizes: bool) -> tuple[int, ...]:
    """Checks that features can be had of a layer, and returns their shape for one image.

    Args:
        spec: the network.
        layer: path of a layer, or `features`.
        pool: one of POOLS.
        has_several_sizes: whether the images have several sizes (`data.fit=pad_batch`).

    Raises:
        UserError: there is no such layer or pooling, or the layer's pixels would be mixed with the padding's.
    """
    if pool not in POOLS:
        raise unknown("pool", pool, POOLS)
    shapes = layer_shapes(spec)
    if layer not in shapes:
        raise unknown(f"layer of {spec.model}", layer, shapes)
    shape = shapes[layer]
    if len(shape) > 1 and has_several_sizes:
        raise UserError(
            f"{layer} of {spec.model} gives numbers for each pixel or token, and those of images of several sizes "
            f"(data.fit=pad_batch) stand among padding; take --layer={FEATURES}, which leaves the padding out"
        )
    return shape if pool == "none" else shape[-1:]


@compiled_once
def build_extract_step(spec: NetworkSpec, mesh: jax.sharding.Mesh, layer: str, pool: str) -> Callable:
    """Compiles the function that gives the features of a batch: (params, stats, batch, constants) -> a dict of arrays.

    The constants are those of an `Evaluator`. The arrays are the features, float32, and the batch's weight and index.
    What the network computes behind the layer is not compiled.
    """
    network = forward.build_network(spec)

    def extract(params: dict, stats: dict, batch: dict, constants: dict) -> dict:
        images = forward.normalize(batch["image"].astype(jnp.float32) / 255, constants, spec.dtype)
        calls = record.record_calls(network, images, params, stats, mask=batch.get("mask"))
        by_path = {call.path: call for call in calls}
        output = head_input(by_path[HEAD]) if layer == FEATURES else by_path[layer].outputs
        rows = output.astype(jnp.float32)  # before the mean, which a dtype of 16 bits would round
        if pool == "mean" and rows.ndim > 2:
            rows = rows.mean(tuple(range(1, rows.ndim - 1)))
        return dict(rows=rows, weight=batch["weight"], index=batch["index"])

    return compilation.jit(extract, forward.program_kind(spec, mesh), out_shardings=devices.batch_sharding(mesh))


@dataclass(frozen=True)
class Extractor(Evaluator):
    """An evaluator whose measures of a batch are features: `rows`, weight and index.

    Attributes:
        layer: path of the layer, or `features`.
        pool: one of POOLS.
    """

    layer: str
    pool: str

    def __call__(self, values: dict, batch: dict) -> dict[str, jax.Array]:
        """Extracts the features of a batch with `values`, dict(params, stats) on the devices."""
        extract_step = build_extract_step(self.spec, self.mesh, self.layer, self.pool)
        return extract_step(values["params"], values["stats"], batch, self.constants)


# Extraction -----------------------------------------------------------------------------------------------------------


def extract(
    network: Trained,
    dataset: data.Dataset,
    split: str,
    *,
    layer: str = FEATURES,
    pool: str = "mean",
    batch_size: int = evaluation.BATCH_SIZE,
    workers: int = 2,
) -> SplitFeatures:
    """Returns the features of each image of a split, from the cache where they were computed before.

    Args:
        network: what `load` returned.
        dataset: data at the network's size, as `load_dataset` loads them.
        split: train, validation or test.
        layer: path of a layer, or `features`, what the head sees.
        pool: "mean" averages over pixels or tokens to one vector; "none" leaves all of them.
        batch_size: images that are computed at once; the features do not depend on it but for their rounding.
        workers: threads that decode images.

    Raises:
        UserError: there is no such split or layer, or the features do not fit into memory.
    """
    if split not in dataset.splits:
        raise unknown("split", split, dataset.splits)
    examples = dataset.splits[split]
    shape = check_layer(network.spec, layer, pool, has_several_sizes=examples.padded_sizes is not None)
    path = cache_path(network, dataset, split, layer, pool)
    kept = read_kept(path, (len(examples), *shape))
    if kept is not None:
        return SplitFeatures(kept, True)
    rows = compute_rows(network, examples, layer, pool, batch_size=batch_size, workers=workers)
    keep(path, rows)
    return SplitFeatures(rows, False)


def extract_images(
    network: Trained,
    images: Iterable[InputImage],
    *,
    layer: str = FEATURES,
    pool: str = "mean",
    batch_size: int = evaluation.BATCH_SIZE,
) -> ImageFeatures:
    """Returns the features of images without labels; they are not kept in the cache.

    Args:
        network: what `load` returned.
        images: as `prediction.read_images` reads them.
        layer, pool, batch_size: as of `extract`.

    Raises:
        UserError: there is no such layer, or the features do not fit into memory.
    """
    has_several_sizes = network.preprocessing["fit"] == PAD_BATCH
    shape = check_layer(network.spec, layer, pool, has_several_sizes=has_several_sizes)
    paths: list[str] = []
    broken: list[InputImage] = []
    parts = [np.zeros((0, *shape), np.float32)]
    images = iter(images)
    while True:
        chunk = list(itertools.islice(images, IMAGES_AT_ONCE))
        if not chunk:
            return ImageFeatures(paths, np.concatenate(parts), broken)
        broken += [image for image in chunk if image.pixels is None]
        pixels = [image.pixels for image in chunk if image.pixels is not None]
        paths += [image.path for image in chunk if image.pixels is not None]
        if pixels:
            split = split_of_images(network, pixels)
            parts.append(compute_rows(network, split, layer, pool, batch_size=batch_size, workers=0))


def split_of_images(network: Trained, pixels: Sequence[np.ndarray]) -> Split:
    """Makes a split of images that are decoded already; its labels, all 0, mean nothing."""
    labels = np.zeros(len(pixels), np.int32)
    if network.preprocessing["fit"] != PAD_BATCH:
        return Split(labels, np.stack(pixels).__getitem__)
    buckets = tuple((height, width) for height, width in network.preprocessing["sizes"])
    canvas = np.stack([pad_bottom_right(image, buckets[-1]) for image in pixels])
    image_sizes = np.array([image.shape[:2] for image in pixels], np.int32)
    return Split(labels, canvas.__getitem__, padded_sizes=PaddedSizes(image_sizes, buckets))


def compute_rows(
    network: Trained, split: Split, layer: str, pool: str, *, batch_size: int, workers: int
) -> np.ndarray:  # -> (N, ..., D)
    """Computes the features of each example of a split, in the split's order.

    Raises:
        UserError: the layer and the images do not go together, the features do not fit into memory, or batch_size is
            below 1.
    """
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size} computes nothing; make it at least 1")
    mesh = devices.mesh()
    shape = check_layer(network.spec, layer, pool, has_several_sizes=split.padded_sizes is not None)
    refuse_too_many(len(split), shape, layer)
    plain = forward.build_evaluator(network.spec, network.preprocessing, mesh, loss_numbers={})
    extractor = Extractor(plain.spec, plain.mesh, plain.constants, layer, pool)
    values = devices.place(network.values, mesh)
    measures = evaluation.per_example(extractor, values, split, batch_size=batch_size, workers=workers)
    return measures["rows"]


def refuse_too_many(count: int, shape: tuple[int, ...], layer: str) -> None:
    """Raises UserError where the features of so many images would not fit into the memory of the host."""
    free = process.free_memory()
    needed = MEMORY_FACTOR * count * math.prod(shape) * 4  # bytes of a float32
    if free is not None and needed > free:
        raise UserError(
            f"{count:,} images with {math.prod(shape):,} numbers each of {layer} need {needed / 2**30:.1f} GB of "
            f"memory, {free / 2**30:.1f} are free; take fewer images, or --pool=mean, or another layer"
        )


def collect_arrays(
    network: Trained,
    dataset: data.Dataset,
    splits: Sequence[str],
    *,
    layer: str = FEATURES,
    pool: str = "mean",
    batch_size: int = evaluation.BATCH_SIZE,
) -> dict[str, np.ndarray]:
    """Returns the features of some splits, one behind the other, with all that another program needs to know of them.

    Args:
        network, dataset, layer, pool, batch_size: as of `extract`.
        splits: names of splits.

    Returns:
        features (N, D) float32 or (N, ..., D); label (N,) int32; split (N,) text; index (N,) int32, the position in
        the split; path (N,) text, where the images are files; classes (K,) text, in the order of the labels.
    """
    columns: dict[str, list[Any]] = {"features": [], "label": [], "split": [], "index": [], "path": []}
    for name in splits:
        extracted = extract(network, dataset, name, layer=layer, pool=pool, batch_size=batch_size)
        split = dataset.splits[name]
        columns["features"].append(extracted.rows)
        columns["label"].append(split.labels)
        columns["split"].append(np.full(len(split), name))
        columns["index"].append(np.arange(len(split), dtype=np.int32))
        if split.names is not None:
            columns["path"].append(np.array(split.names))
    arrays = {name: np.concatenate(column) for name, column in columns.items() if column}
    return arrays | {"classes": np.array(dataset.classes)}


# Cache ----------------------------------------------------------------------------------------------------------------


def cache_path(network: Trained, dataset: data.Dataset, split: str, layer: str, pool: str) -> Path | None:
    """Returns the file of the cache that keeps the features of a split; None where there is no cache.

    A data set without a fingerprint has none.
    """
    if not dataset.fingerprint:
        return None
    key = {
        "code": [digest_code(), jax.__version__, devices.platform(devices.mesh())],
        "values": trees.digest(network.values),
        "spec": repr(asdict(network.spec)),
        "layer": [layer, pool],
        "images": [list(map(float, network.preprocessing[name])) for name in ("mean", "std")],
        "data": [dataset.fingerprint, split, dataset.facts.get("slices"), list(dataset.image_shape)],
        "examples": digest_examples(dataset.splits[split]),
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    with contextlib.suppress(UserError):
        return cache.folder() / "features" / f"{name}.npz"
    return None


@functools.cache
def digest_code() -> str:
    """Returns the sha256, in hexadecimal, of the code that features are computed with.

    Where a layer is mended, its values give other features, and those that were kept must not be taken for them.
    """
    package = Path(__file__).parents[1]
    paths = [Path(__file__), Path(forward.__file__), Path(record.__file__)]
    for room in ROOMS:
        paths += sorted((package / room).glob("*.py"))
    digest = hashlib.sha256()
    for path in paths:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def digest_examples(split: Split) -> str:
    """Returns the sha256, in hexadecimal, of a split's labels, names and sizes of images, and of a sample of pixels.

    The fingerprint of the data tells what the files hold. The sample tells how they were read: at which size, with
    which fit, by which decoder.
    """
    digest = hashlib.sha256(split.labels.tobytes())
    for name in split.names or ():
        digest.update(hashlib.sha256(name.encode(errors="surrogateescape")).digest())
    if split.padded_sizes is not None:
        digest.update(np.ascontiguousarray(split.padded_sizes.image_sizes).tobytes())
    count = min(len(split), SAMPLED_IMAGES)
    rows = np.arange(count, dtype=np.int64) * len(split) // max(count, 1)
    digest.update(np.ascontiguousarray(split.read(rows)).tobytes())
    return digest.hexdigest()


def read_kept(path: Path | None, shape: tuple[int, ...]) -> np.ndarray | None:
    """Reads features of this shape from the cache; None where they are not there or damaged.

    An npz holds a checksum of each array, so that a changed bit is noticed.
    """
    if path is None:
        return None
    with contextlib.suppress(UserError):
        rows = files.read_npz(path).get("rows")
        if rows is not None and rows.shape == shape and rows.dtype == np.float32:
            return rows
    return None


def keep(path: Path | None, rows: np.ndarray) -> None:
    """Writes features into the cache, where they are not too many and there is room."""
    if path is None or rows.nbytes > MOST_KEPT:
        return
    with contextlib.suppress(UserError, OSError):  # without room or rights they are computed again the next time
        decoded.make_room(path.parent, rows.nbytes)
        files.write_npz(path, {"rows": rows})
