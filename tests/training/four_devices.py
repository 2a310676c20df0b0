"""Runs in a process of its own with four forced CPU devices, for test_devices.py; prints what it measured as JSON.

Every run is done twice, on a mesh of one device and on one of four.
"""

import json
import sys

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, PartitionSpec
from stepping import (
    NOTHING_FROZEN,
    learn_batches,
    make_batch,
    make_hyperparameters,
    make_initial_state,
    make_network_spec,
    make_step_spec,
)

from cnn_vit import trees
from cnn_vit.data.base.splits import Split
from cnn_vit.training import devices, evaluation, forward, step

MESHES = {1: Mesh(np.array(jax.devices()[:1]), ("data",), axis_types=(AxisType.Auto,)), 4: devices.mesh()}
SIDE, ROWS, UPDATES = 8, 16, 20
NETWORKS = {
    "cnn": make_network_spec("cnn/test", side=SIDE, channels=3, head="average"),
    "vit": make_network_spec("vit/test", side=SIDE, channels=3),
}
STEPS = {name: make_step_spec(network, augment=("flip",)) for name, network in NETWORKS.items()}
SPLIT_SIZE = 61  # examples that are evaluated


def make_sorted_batch(seed):
    """A batch sorted by brightness: each device's quarter has other statistics than the whole."""
    batch = make_batch(ROWS, side=SIDE, channels=3, seed=seed)
    order = np.argsort(batch["image"].mean((1, 2, 3)))
    return {name: array[order] for name, array in batch.items()}


def train_networks():
    """Losses of 20 SGD steps of each network, the statistics after the first, and where the last state lies."""
    outcomes = {}
    for name, spec in STEPS.items():
        hyperparameters = make_hyperparameters(
            operations=("flip",), channels=3, learning_rate=0.05, optimizer=dict(momentum=0.9, weight_decay=1e-3)
        )
        for count, mesh in MESHES.items():
            state, first_measures = learn_batches(spec, hyperparameters, [make_sorted_batch(0)], mesh=mesh)
            statistics = [np.asarray(leaf).ravel().tolist() for leaf in jax.tree.leaves(state["stats"])]
            batches = [make_sorted_batch(seed) for seed in range(1, UPDATES)]
            state, other_measures = learn_batches(spec, hyperparameters, batches, mesh=mesh, state=state)
            outcomes[f"{name} {count}"] = dict(
                losses=[float(measures["loss"]) for measures in (*first_measures, *other_measures)],
                statistics=statistics,
                is_whole=all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state)),
                compilations=step.build_step(spec, mesh).learn._cache_size(),
            )
    return outcomes


def train_with_rules():
    """Trains a network whose hidden kernel lies in quarters on four devices, whole on each of four, and on one."""
    spec = make_step_spec(make_network_spec(dropout=0.3), ema=True, accumulate=2)
    in_quarters = (("^ema/", PartitionSpec()), ("layers/0/kernel$", PartitionSpec("data")))
    outcomes = {}
    for name, count, rules in (
        ("in quarters", 4, in_quarters),
        ("whole", 4, devices.REPLICATED),
        ("on one", 1, devices.REPLICATED),
    ):
        mesh = MESHES[count]
        built_step = step.build_step(spec, mesh, rules)
        hyperparameters = make_hyperparameters(optimizer=dict(momentum=0.9, weight_decay=0))
        hyperparameters = jax.device_put(hyperparameters, devices.replicated_sharding(mesh))
        state = make_initial_state(built_step, mesh=mesh, rules=rules)
        for seed in range(3):
            batch = devices.place_batch(make_batch(seed=seed), mesh)
            state, _ = built_step.learn(state, NOTHING_FROZEN, batch, hyperparameters)
        leaves = {trees.path_text(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state)}
        outcomes[name] = dict(
            split_paths=sorted(path for path, leaf in leaves.items() if not leaf.sharding.is_fully_replicated),
            piece_shape=list(leaves["params/hidden/layers/0/kernel"].addressable_shards[0].data.shape),
            values=np.concatenate([np.float64(leaf).ravel() for leaf in leaves.values()]).tolist(),
            compilations=built_step.learn._cache_size(),
        )
    return outcomes


def place_one_batch():
    """Which rows of a batch each device has, and whether a step's measures can be read."""
    batch = devices.place_batch(make_batch(8), MESHES[4])
    rows = {}
    for name, array in batch.items():
        rows[name] = [np.asarray(piece.data).shape[0] for piece in array.addressable_shards]
    _, (measures,) = learn_batches(make_step_spec(), make_hyperparameters(), [make_batch(8)], mesh=MESHES[4])
    return dict(
        rows=rows,
        index=[np.asarray(piece.data).tolist() for piece in batch["index"].addressable_shards],
        rounded_sizes=[devices.round_up_batch(size, MESHES[4]) for size in (1, 4, 5, 512)],
        loss=float(measures["loss"]),
        devices=MESHES[4].size,
    )


def evaluate_network():
    """Metrics, order and near ties of 61 images, for three batch sizes on each mesh."""
    batch = make_batch(SPLIT_SIZE, side=SIDE, channels=3, seed=9)
    split = Split(batch["label"], lambda indices: batch["image"][indices])
    mean_and_std = {name: make_hyperparameters(channels=3)[name] for name in ("mean", "std")}
    outcomes = {}
    for count, mesh in MESHES.items():
        hyperparameters = make_hyperparameters(operations=("flip",), channels=3)
        state, _ = learn_batches(STEPS["cnn"], hyperparameters, [make_sorted_batch(0)], mesh=mesh)
        evaluator = forward.build_evaluator(NETWORKS["cnn"], mean_and_std, mesh, loss_numbers={})
        for size in (1, 7, 512):
            per_example = evaluation.per_example(evaluator, state, split, batch_size=size)
            outcomes[f"{size} on {count}"] = evaluation.summarize(per_example, 4) | dict(
                index=per_example["index"].tolist(), near_ties=evaluation.find_near_ties(per_example)
            )
    return outcomes


if __name__ == "__main__":
    report = dict(
        networks=train_networks(), rules=train_with_rules(), batch=place_one_batch(), evaluation=evaluate_network()
    )
    json.dump(report, sys.stdout)
