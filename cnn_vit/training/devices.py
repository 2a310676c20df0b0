"""The mesh of devices and where each array lies on it: the same code for one device or many.

The batch is split over the mesh axis `data`. Each value of the state goes where the first matching path pattern sends
it; by default every device holds all values whole. Plain `jit` over such a mesh computes statistics and gradients of
the global batch: the compiler adds the communication, so neither the step nor the layers mention it.
"""

import re
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cnn_vit import trees

Rules = tuple[tuple[str, PartitionSpec], ...]  # (regular expression for a leaf's path, how the leaf is split)
REPLICATED: Rules = ((".*", PartitionSpec()),)  # every leaf whole on every device


def mesh() -> Mesh:
    """Makes the mesh of all devices: one row, along the axis `data`."""
    devices = jax.devices()
    # Auto: the compiler derives where intermediate arrays lie from where inputs and outputs do
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def platform(mesh: Mesh) -> str:
    """The platform of the mesh, as jax names it: "cpu", "gpu" or "tpu"."""
    return mesh.devices.flat[0].platform


def shardings(tree: Any, mesh: Mesh, rules: Rules = REPLICATED) -> Any:
    """Returns the tree with a sharding in place of each leaf.

    Args:
        tree: arrays or their shapes.
        mesh: the devices.
        rules: patterns that are searched in a leaf's path, such as `params/head/kernel`. The first that is found
            decides; a leaf that none matches is replicated.
    """

    def sharding_of(path, leaf):
        text = trees.path_text(path)
        for pattern, spec in rules:
            if re.search(pattern, text):
                return NamedSharding(mesh, spec)
        return replicated_sharding(mesh)

    return jax.tree_util.tree_map_with_path(sharding_of, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of an array whose first axis is the batch: each device holds an equal share of the rows."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicated_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def place(tree: Any, mesh: Mesh, rules: Rules = REPLICATED) -> Any:
    """Puts a tree of host arrays on the devices, as `shardings` says.

    On a CPU the result may share the host array's memory. Donating it to a compiled call is safe even then: JAX gives
    such a buffer up without writing to it.
    """
    return jax.device_put(tree, shardings(tree, mesh, rules))


def constrain(tree: Any, mesh: Mesh, rules: Rules = REPLICATED) -> Any:
    """Keeps each leaf of a tree, inside a compiled function, where `place` with the same rules puts it.

    Without the constraint the compiler would choose a sharding of its own for the outputs.
    """
    return jax.lax.with_sharding_constraint(tree, shardings(tree, mesh, rules))


def place_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, Any]:
    """Puts this process's rows of the global batch on its devices.

    Where the mesh is a single CPU device, the host arrays are returned as they are: the compiled call reads them from
    the host's memory, which takes 20 us where `device_put` needs 300.
    """
    if mesh.size == 1 and platform(mesh) == "cpu":
        return batch
    sharding = batch_sharding(mesh)
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    return {key: jax.make_array_from_process_local_data(sharding, array) for key, array in batch.items()}


def round_up_batch(size: int, mesh: Mesh) -> int:
    """The smallest batch size of at least `size` rows that divides evenly among the devices."""
    return -(-size // mesh.size) * mesh.size
