"""By what the learning rate of each parameter is multiplied: by pattern, and by its distance from the head.

Patterns and distances shape the compiled program; the numbers are its arguments, so that others compile nothing.
"""

from dataclasses import dataclass

import jax
import numpy as np

from cnn_vit import trees
from cnn_vit.errors import UserError
from cnn_vit.training import forward
from cnn_vit.training.caches import compiled_once
from cnn_vit.training.forward import NetworkSpec
from cnn_vit.transfer.adapt import adapters, rates


@dataclass(frozen=True)
class RatesSpec:
    """Which parameters have learning rates of their own.

    Attributes:
        patterns: of the setting `pretrained.multipliers`.
        layer_decay: whether the rate falls from block to block towards the first.
    """

    patterns: tuple[str, ...] = ()
    layer_decay: bool = False


EQUAL = RatesSpec()


@compiled_once
def find_multiplied(spec: NetworkSpec, patterns: tuple[str, ...]) -> dict[tuple, int]:
    """Finds the pattern of each parameter, its index by path; UserError where the patterns do not fit the network."""
    return rates.find_multiplied(patterns, trees.shapes_by_path(forward.get_network(spec).params))


@compiled_once
def find_distances(spec: NetworkSpec) -> dict[tuple, int]:
    """Finds the distance of each parameter from the head by its path; UserError where the network has no blocks."""
    distances = rates.find_distances(trees.shapes_by_path(forward.get_network(spec).params), forward.list_calls(spec))
    if not distances:
        raise UserError(
            f"pretrained.layer_decay is set, and {spec.model} has no row of stages or blocks to count; set "
            "pretrained.multipliers instead"
        )
    return distances


def find_multipliers(spec: NetworkSpec, rates_spec: RatesSpec, params: dict, numbers: dict) -> dict | None:
    """Builds the tree of what the learning rate of each parameter is multiplied by; None where all are equal.

    Args:
        spec: the network.
        rates_spec: which parameters have rates of their own.
        params: the parameters that are trained. The factors of an adapter have the rate of their kernel.
        numbers: dict(multipliers, layer_decay): a number for each pattern, and the decay from block to block; they may
            be traced.
    """
    if rates_spec == EQUAL:
        return None
    indices = find_multiplied(spec, rates_spec.patterns)
    distances = find_distances(spec) if rates_spec.layer_decay else {}

    def multiply(path, _):
        kernel = adapters.kernel_of(tuple(entry.key for entry in path))
        multiplier: jax.Array | np.float32 = np.float32(1)
        if kernel in distances:
            multiplier = multiplier * numbers["layer_decay"] ** distances[kernel]
        if kernel in indices:
            multiplier = multiplier * numbers["multipliers"][indices[kernel]]
        return multiplier

    return jax.tree_util.tree_map_with_path(multiply, params)
