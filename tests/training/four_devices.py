"""Runs in a process of its own with four forced CPU devices, for test_devices.py; prints what it found as JSON.

Every run is done twice, on a mesh of one device and on one of four.
"""

import json
import sys

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, PartitionSpec
from stepping import NOTHING_FROZEN, batch, begun, network_spec, learned, numbers, static

from cnn_vit import trees
from cnn_vit.data.base.splits import Split
from cnn_vit.training import devices, evaluation, forward, step

MESHES = {1: Mesh(np.array(jax.devices()[:1]), ("data",), axis_types=(AxisType.Auto,)), 4: devices.mesh()}
SIDE, ROWS, UPDATES = 8, 16, 20
NETWORKS = {
    "cnn": dict(of=network_spec("cnn/test", side=SIDE, channels=3, head="average"), augment=("flip",)),
    "vit": dict(of=network_spec("vit/test", side=SIDE, channels=3), augment=("flip",)),
}
SPLIT = 61  # examples judged


def uneven(seed):
    """A batch sorted by brightness: each device's quarter has other statistics than the whole."""
    one = batch(ROWS, side=SIDE, channels=3, seed=seed)
    order = np.argsort(one["image"].mean((1, 2, 3)))
    return {key: value[order] for key, value in one.items()}


def runs():
    """Losses of 20 SGD steps of each network, the statistics after the first, and where the state is after the last."""
    found = {}
    for name, changes in NETWORKS.items():
        given = numbers(operations=("flip",), channels=3, learning_rate=0.05, momentum=0.9, weight_decay=1e-3)
        for count, on in MESHES.items():
            state, taken = learned(static(**changes), given, [uneven(0)], on=on)
            first = [np.asarray(leaf).ravel().tolist() for leaf in jax.tree.leaves(state["stats"])]
            batches = [uneven(seed) for seed in range(1, UPDATES)]
            state, more = learned(static(**changes), given, batches, on=on, state=state)
            losses = [float(one["loss"]) for one in (*taken, *more)]
            found[f"{name} {count}"] = dict(losses=losses, statistics=first)
            whole = all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state))
            found[f"{name} {count}"] |= dict(
                whole=whole, compiled=step.build_step(static(**changes), on).learn._cache_size()
            )
    return found


def sharded():
    """A network whose hidden kernel lies in quarters on four devices, whole on each of four, and on one."""
    of = static(network_spec(dropout=0.3), ema=True, accumulate=2)
    parts = (("^ema/", PartitionSpec()), ("layers/0/kernel$", PartitionSpec("data")))
    found = {}
    for name, count, rules in (
        ("parted", 4, parts),
        ("whole", 4, devices.REPLICATED),
        ("alone", 1, devices.REPLICATED),
    ):
        on = MESHES[count]
        built, given = step.build_step(of, on, rules), jax.device_put(numbers(momentum=0.9), devices.replicated_sharding(on))
        state = begun(built, on=on, rules=rules)
        for seed in range(3):
            state, _ = built.learn(state, NOTHING_FROZEN, devices.place_batch(batch(seed=seed), on), given)
        leaves = {trees.path_text(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state)}
        found[name] = dict(
            parted=sorted(path for path, leaf in leaves.items() if not leaf.sharding.is_fully_replicated),
            piece=list(leaves["params/hidden/layers/0/kernel"].addressable_shards[0].data.shape),
            values=np.concatenate([np.float64(leaf).ravel() for leaf in leaves.values()]).tolist(),
            compiled=built.learn._cache_size(),
        )
    return found


def placed():
    """Which rows each device has, and where a step's measures are."""
    one = devices.place_batch(batch(8), MESHES[4])
    rows = {key: [np.asarray(piece.data).shape[0] for piece in leaf.addressable_shards] for key, leaf in one.items()}
    index = [np.asarray(piece.data).tolist() for piece in one["index"].addressable_shards]
    _, (measures,) = learned(static(), numbers(), [batch(8)], on=MESHES[4])
    fills = [devices.round_up_batch(size, MESHES[4]) for size in (1, 4, 5, 512)]
    return dict(rows=rows, index=index, fills=fills, loss=float(measures["loss"]), devices=MESHES[4].size)


def judged():
    """All that evaluation says of 61 images, for three batch sizes on each mesh."""
    of = NETWORKS["cnn"]["of"]
    images = batch(SPLIT, side=SIDE, channels=3, seed=9)
    split = Split(images["label"], lambda indices: images["image"][indices])
    given = {key: numbers(channels=3)[key] for key in ("mean", "std")}
    found = {}
    for count, on in MESHES.items():
        state, _ = learned(static(**NETWORKS["cnn"]), numbers(operations=("flip",), channels=3), [uneven(0)], on=on)
        evaluator = forward.build_evaluator(of, given, on)
        for size in (1, 7, 512):
            rows = evaluation.per_example(evaluator, state, split, batch_size=size)
            found[f"{size} on {count}"] = evaluation.summarize(rows, 4) | dict(
                index=rows["index"].tolist(), near_ties=evaluation.find_near_ties(rows)
            )
    return found


if __name__ == "__main__":
    json.dump(dict(runs=runs(), sharded=sharded(), placed=placed(), judged=judged()), sys.stdout)
