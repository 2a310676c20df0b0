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

from cnn_vit import process, trees

Rules = tuple[tuple[str, PartitionSpec], ...]  # (regular expression for a leaf's path, how the leaf is split)
REPLICATED: Rules = ((".*", PartitionSpec()),)  # every leaf whole on every device


def mesh() -> Mesh:
    """Makes the mesh of all devices: one row, along the axis `data`."""
    devices = process.find_devices()
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


def replicated_template(shapes: Any, mesh: Mesh) -> Any:
    """Adds to each shape of a tree the sharding of an array that every device holds whole."""
    everywhere = replicated_sharding(mesh)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), shapes)


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
    if takes_host_arrays(mesh):
        return batch
    sharding = batch_sharding(mesh)
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    return {key: jax.make_array_from_process_local_data(sharding, array) for key, array in batch.items()}


def batch_template(shapes_and_types: dict[str, tuple[tuple[int, ...], type]], mesh: Mesh) -> dict[str, Any]:
    """The global batch without its values, placed as `place_batch` places it.

    Args:
        shapes_and_types: name -> shape of the global batch's array, and its type.
        mesh: the devices.
    """
    sharding = None if takes_host_arrays(mesh) else batch_sharding(mesh)
    template = {}
    for name, (shape, dtype) in shapes_and_types.items():
        template[name] = jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
    return template


def takes_host_arrays(mesh: Mesh) -> bool:
    """Whether batches are given to compiled calls as arrays of the host: where the mesh is a single CPU device."""
    return mesh.size == 1 and platform(mesh) == "cpu"


def round_up_batch(size: int, mesh: Mesh) -> int:
    """The smallest batch size of at least `size` rows that divides evenly among the devices."""
    return -(-size // mesh.size) * mesh.size


def memory_sharers(mesh: Mesh) -> int:
    """How many devices of this process share one memory: all CPU devices that of the host, others none."""
    return len(mesh.local_devices) if platform(mesh) == "cpu" else 1


def free_memory(mesh: Mesh) -> int | None:
    """The bytes that are free on the fullest device of this process, on CPUs those of the host; None where unknown."""
    if platform(mesh) == "cpu":
        return process.free_memory()
    free = []
    for device in mesh.local_devices:
        statistics = device.memory_stats() or {}
        if "bytes_limit" not in statistics or "bytes_in_use" not in statistics:
            return None
        free.append(statistics["bytes_limit"] - statistics["bytes_in_use"])
    return min(free, default=None)
