"""What of a network is trained, and what is frozen: held still, without gradient or optimizer state.

The values of a network are cut in two by masks. What is trained lives in the state of a run, the rest in `frozen`. This
file makes the masks, cuts, joins, and builds the network as training runs it: batch norms whose statistics are frozen
use them in training too, and nothing random happens in frozen parts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from cnn_vit import trees
from cnn_vit.analysis import record
from cnn_vit.data.feed import stream
from cnn_vit.nn.dropout import Dropout, StochasticDepth
from cnn_vit.nn.norm import BatchNorm
from cnn_vit.nn.values import Network, functional
from cnn_vit.training import forward
from cnn_vit.training.caches import compiled_once
from cnn_vit.training.forward import NetworkSpec
from cnn_vit.transfer.adapt import freezing

VALUES = ("params", "stats")  # the two trees of a network's values


@dataclass(frozen=True)
class FreezeSpec:
    """What of a network is not trained.

    Attributes:
        pattern: the setting `pretrained.freeze`, "all but head"; None where everything is trained.
        statistics: the setting `pretrained.statistics`: what becomes of the running statistics of frozen batch norms.
    """

    pattern: str | None = None
    statistics: Literal["stored", "update", "recalibrate"] = "stored"


NOTHING = FreezeSpec()


@compiled_once
def get_masks(spec: NetworkSpec, freeze: FreezeSpec) -> dict[str, dict]:
    """Builds dict(params, stats), trees of booleans like a network's values: which of them are frozen.

    Raises:
        UserError: the pattern matches nothing of the network, matches something twice, or leaves nothing to train.
    """
    return freezing.frozen_masks(forward.get_network(spec), freeze.pattern, freeze.statistics)


def split_values(values: Mapping[str, dict], masks: Mapping[str, dict]) -> tuple[dict[str, dict], dict[str, dict]]:
    """Cuts the values of a network, dict(params, stats), into those that are trained and those that are frozen."""
    trained, frozen = {}, {}
    for name in VALUES:
        frozen[name], trained[name] = trees.split(values[name], masks[name])
    return trained, frozen


def join_values(trained: Mapping[str, dict], frozen: Mapping[str, dict]) -> dict[str, dict]:
    """Joins trained and frozen values to those of the whole network, dict(params, stats)."""
    return {name: trees.merge(trained[name], frozen[name]) for name in VALUES}


@compiled_once
def build_training_network(spec: NetworkSpec, freeze: FreezeSpec) -> Network:
    """Builds the network as training runs it. Its values are those of `forward.get_network(spec)`, path by path.

    Batch norms whose running statistics are frozen are fixed: they use these in training too, and do not change them.
    Dropout and stochastic depth are off in frozen layers, and in front of the first layer that is trained.
    """
    if freeze.pattern is None:
        return forward.get_network(spec)
    network, masks = forward.build_network(spec), get_masks(spec, freeze)
    frozen_layers = freezing.frozen_layers(forward.get_network(spec), masks)
    frozen_statistics = {path.rpartition("/")[0] for path in select_paths(masks["stats"])}
    calls_before = find_calls_before_training(spec, masks)
    for keys, module in nnx.iter_modules(network):
        path = "/".join(map(str, keys))
        is_held_still = path in calls_before or lies_in_any(path, frozen_layers)
        if isinstance(module, BatchNorm) and path in frozen_statistics:
            module.fixed = True
        elif isinstance(module, Dropout | StochasticDepth) and is_held_still:
            module.rate = 0.0
    return functional(network)


def select_paths(mask: dict) -> list[str]:
    """Lists the paths, as text, of the leaves that a tree of booleans marks."""
    return [trees.path_text(path) for path, is_marked in jax.tree_util.tree_leaves_with_path(mask) if is_marked]


def lies_in_any(path: str, layers: tuple[str, ...]) -> bool:
    """Whether a path is that of one of the layers, or of something inside one."""
    return any(path == layer or path.startswith(f"{layer}/") for layer in layers)


def find_calls_before_training(spec: NetworkSpec, masks: Mapping[str, dict]) -> set[str]:
    """Finds the layers that are called before any layer that is trained, by tracing the network; returns their paths.

    A layer is trained where one of the parameters that it holds itself is. What comes before all such layers works on
    fixed features, and has no gradient.
    """
    frozen = set(select_paths(masks["params"]))
    trained_layers = set()
    for path, _ in jax.tree_util.tree_leaves_with_path(masks["params"]):
        parameter = trees.path_text(path)
        if parameter not in frozen:
            trained_layers.add(parameter.rpartition("/")[0])
    images = jax.ShapeDtypeStruct((2, *spec.image_shape), jnp.float32)
    before = set()
    for call in record.record_calls(forward.build_network(spec), images):
        layer = call.path.partition("#")[0]
        if layer in trained_layers:
            break
        before.add(layer)
    return before


def find_moving_statistics(spec: NetworkSpec, freeze: FreezeSpec) -> list[str]:
    """Finds the frozen statistics that a forward pass in training changes all the same; there should be none.

    Training would then see other features than the network has when it is evaluated with its frozen statistics. So it
    is where a layer of one's own does not heed `fixed`. The pass is traced, not run: a statistic that stays is returned
    as the very value that came in.
    """
    network, masks = build_training_network(spec, freeze), get_masks(spec, freeze)
    if not select_paths(masks["stats"]):
        return []
    stays: dict[str, bool] = {}

    def compare_statistics(params: dict, stats: dict, images: jax.Array) -> None:
        _, new_stats = network.apply(params, stats, images, train=True, rngs=nnx.Rngs(dropout=stream.key(0)))
        new_leaves = dict(jax.tree_util.tree_leaves_with_path(new_stats))
        for path, leaf in jax.tree_util.tree_leaves_with_path(stats):
            stays[trees.path_text(path)] = new_leaves[path] is leaf

    images = jax.ShapeDtypeStruct((2, *spec.image_shape), jnp.dtype(spec.dtype))
    jax.eval_shape(compare_statistics, network.params, network.stats, images)
    return [path for path in select_paths(masks["stats"]) if not stays[path]]
