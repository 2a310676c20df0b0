"""Running statistics measured anew: one deterministic pass of a network over its training images.

A pretrained network's batch norms hold the mean and variance that each channel had on the images it was trained on.
Other images have others. The pass normalizes each batch by its own statistics, as training does, and takes mean and
variance of each channel over all batches; nothing is augmented or dropped.

Source: Wu and Johnson, Rethinking "Batch" in BatchNorm, arXiv:2105.07576, section 3 ("precise BatchNorm").
"""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cnn_vit import compilation, data, stops, trees
from cnn_vit.data.feed import stream
from cnn_vit.errors import UserError
from cnn_vit.nn.dropout import Dropout, StochasticDepth
from cnn_vit.nn.norm import BatchNorm
from cnn_vit.nn.values import functional
from cnn_vit.training import devices, forward
from cnn_vit.training.caches import compiled_once
from cnn_vit.training.forward import NetworkSpec


@compiled_once
def build_measuring(spec: NetworkSpec, mesh: jax.sharding.Mesh) -> Callable:
    """Compiles (params, stats, batch, mean_and_std) -> the statistics of the batch in each batch norm, like `stats`."""
    module = forward.build_network(spec)
    for _, layer in nnx.iter_modules(module):
        if isinstance(layer, BatchNorm):
            layer.momentum = 0.0  # the running statistics become those of the batch
        elif isinstance(layer, Dropout | StochasticDepth):
            layer.rate = 0.0
    network = functional(module)

    def measure(params, stats, batch, mean_and_std):
        images = forward.normalize(batch["image"].astype(jnp.float32) / 255, mean_and_std, spec.dtype)
        _, batch_stats = network.apply(params, stats, images, train=True, mask=batch.get("mask"))
        return batch_stats

    kind = forward.program_kind(spec, mesh)
    return compilation.jit(measure, kind, out_shardings=devices.replicated_sharding(mesh))


def measure_statistics(
    spec: NetworkSpec,
    mesh: jax.sharding.Mesh,
    values: dict,
    preprocessing: dict[str, Any],
    split: data.Split,
    *,
    batch_size: int,
    workers: int,
) -> dict:
    """Measures the running statistics of a network on a split.

    The mean of a channel is that of the batches' means, and its variance the mean of their variances and the variance
    of their means together: of equal batches, those of all their pixels. Examples that fill no batch are left out.

    Args:
        spec: the network.
        mesh: the devices.
        values: of the network, dict(params, stats).
        preprocessing: of the run; its mean and std are read.
        split: the images.
        batch_size: images of a batch.
        workers: threads that decode images.

    Returns:
        A tree like `values["stats"]`, of NumPy float32 arrays.

    Raises:
        UserError: there are fewer images than a batch.
    """
    if len(split) < batch_size:
        raise UserError(
            f"pretrained.statistics=recalibrate measures whole batches, and data.batch_size of {batch_size} is more "
            f"than the {len(split)} training images; make it smaller"
        )
    measure = build_measuring(spec, mesh)
    mean_and_std = {name: np.asarray(preprocessing[name], np.float32) for name in ("mean", "std")}
    placed = devices.place(values, mesh)
    batches = stream.evaluation_batches(
        split, batch_size=batch_size, workers=workers, place=lambda batch: devices.place_batch(batch, mesh)
    )
    of_batches: list[dict[str, np.ndarray]] = []
    with contextlib.closing(batches):
        for batch in batches:
            stops.raise_if_requested()
            if not np.asarray(batch["weight"]).all():
                continue  # the last batch, filled up with copies of an image
            batch_stats = measure(placed["params"], placed["stats"], batch, mean_and_std)
            of_batches.append(flatten(jax.device_get(batch_stats)))
    measured = pool_batches(of_batches)
    return jax.tree_util.tree_map_with_path(lambda path, _: measured[trees.path_text(path)], values["stats"])


def flatten(tree: dict) -> dict[str, np.ndarray]:
    """Returns the leaves of a tree by their paths as text."""
    return {trees.path_text(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def pool_batches(of_batches: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Pools means and variances of equal batches, by path (".../mean", ".../var"), to those of all batches together."""
    pooled = {}
    for path in of_batches[0]:
        columns = np.stack([batch[path] for batch in of_batches]).astype(np.float64)
        total = columns.mean(0)
        layer, _, leaf = path.rpartition("/")
        if leaf == "var":
            means = np.stack([batch[f"{layer}/mean".lstrip("/")] for batch in of_batches]).astype(np.float64)
            total = total + means.var(0)
        pooled[path] = total.astype(np.float32)
    return pooled
