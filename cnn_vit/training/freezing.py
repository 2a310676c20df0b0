"""What of a network is trained, and what is frozen: held still, without gradient or optimizer state.

The values of a network are cut in two by masks. What is trained lives in the state of a run, the rest in `frozen`. This
file makes the masks, cuts, joins, and builds the network as training runs it: batch norms whose statistics are frozen
use them in training too, and nothing random happens in frozen parts.

A frozen kernel may have an adapter, whose factors are trained and have no place in the network (`adapters` of
`transfer/adapt`): `join_values` adds their product to the kernel. What is trained may grow in stages; a `FreezeSpec` is
that of one of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cnn_vit import trees
from cnn_vit.data.feed import stream
from cnn_vit.nn.conv import Conv
from cnn_vit.nn.dense import Dense
from cnn_vit.nn.dropout import Dropout, StochasticDepth
from cnn_vit.nn.norm import BatchNorm
from cnn_vit.nn.values import Network, functional, initial_values
from cnn_vit.training import forward
from cnn_vit.training.caches import compiled_once
from cnn_vit.training.forward import NetworkSpec
from cnn_vit.transfer.adapt import adapters, freezing

VALUES = ("params", "stats")  # the two trees of a network's values


@dataclass(frozen=True)
class LoraSpec:
    """Which frozen kernels have adapters.

    Attributes:
        rank: of the adapters.
        on: the setting `pretrained.lora_on`; None for every kernel that can have one.
    """

    rank: int
    on: str | None = None


@dataclass(frozen=True)
class FreezeSpec:
    """What of a network is not trained.

    Attributes:
        pattern: the setting `pretrained.freeze`, "all but head"; None where everything is trained.
        statistics: the setting `pretrained.statistics`: what becomes of the running statistics of frozen batch norms.
        lora: the adapters; None for none.
        stages: the patterns of the stages that have begun, ("head", "stages/2.."): what none of them means is frozen so
            far. () of a run without stages.
    """

    pattern: str | None = None
    statistics: Literal["stored", "update", "recalibrate"] = "stored"
    lora: LoraSpec | None = None
    stages: tuple[str, ...] = ()


NOTHING = FreezeSpec()


@compiled_once
def get_masks(spec: NetworkSpec, freeze: FreezeSpec) -> dict[str, dict]:
    """Builds dict(params, stats), trees of booleans like a network's values: which of them are frozen.

    Raises:
        UserError: a pattern matches nothing of the network, matches something twice, or leaves nothing to train.
    """
    network = forward.get_network(spec)
    return freezing.frozen_masks(
        network, freeze.pattern, freeze.statistics, freeze.stages, has_adapters=bool(freeze.lora)
    )


@compiled_once
def get_targets(spec: NetworkSpec, freeze: FreezeSpec) -> dict[tuple, tuple[int, int]]:
    """Finds the kernels whose adapters are trained: inputs and outputs of each by its path; {} where there are none.

    Raises:
        UserError: the setting `pretrained.lora_on` does not fit the network.
    """
    if freeze.lora is None:
        return {}
    params = trees.shapes_by_path(forward.get_network(spec).params)
    frozen_at_last = trees.paths_where(
        get_masks(spec, FreezeSpec(freeze.pattern, freeze.statistics, freeze.lora))["params"]
    )
    targets = adapters.find_targets(
        find_adaptable_kernels(spec), params, frozen_at_last, rank=freeze.lora.rank, pattern=freeze.lora.on
    )
    begun = freezing.begun_paths(freeze.stages, params)
    return {path: shape for path, shape in targets.items() if path in begun}


def find_adaptable_kernels(spec: NetworkSpec) -> dict[tuple, tuple[int, int]]:
    """Finds the kernels of dense layers (attention has four) and of 1x1 convolutions: inputs and outputs by path."""
    shapes = trees.shapes_by_path(forward.get_network(spec).params)
    kernels = {}
    for keys, module in nnx.iter_modules(forward.build_network(spec)):
        path = (*keys, adapters.KERNEL)
        is_matrix = isinstance(module, Dense)
        if isinstance(module, Conv):
            is_matrix = shapes[path][:2] == (1, 1) and module.groups == 1
        if is_matrix:
            *_, inputs, outputs = shapes[path]
            kernels[path] = (inputs, outputs)
    return kernels


@compiled_once
def get_factors(spec: NetworkSpec, freeze: FreezeSpec) -> dict:
    """Builds the shapes of all factors of the adapters that are trained, a tree; {} without adapters."""
    if freeze.lora is None:
        return {}
    return adapters.factor_shapes(get_targets(spec, freeze), freeze.lora.rank)


def initial_factors(spec: NetworkSpec, freeze: FreezeSpec, seed: int) -> dict:
    """Draws the initial values of the factors, which follow from the seed and their paths; B is zero."""
    shapes = get_factors(spec, freeze)
    initializers = {path: adapters.INITIALIZERS[path[-1]] for path in trees.shapes_by_path(shapes)}
    factors, _ = initial_values(Network(shapes, {}, initializers, forward.get_network(spec).apply), seed)
    return factors


def split_values(values: Mapping[str, dict], masks: Mapping[str, dict]) -> tuple[dict[str, dict], dict[str, dict]]:
    """Cuts the values of a network, dict(params, stats), into those that are trained and those that are frozen."""
    trained, frozen = {}, {}
    for name in VALUES:
        frozen[name], trained[name] = trees.split(values[name], masks[name])
    return trained, frozen


def split_shapes(spec: NetworkSpec, freeze: FreezeSpec, shapes: Mapping[str, dict]) -> tuple[dict, dict]:
    """Cuts shapes of the network's values as `split_values` does; the factors of adapters join what is trained."""
    trained, frozen = split_values(shapes, get_masks(spec, freeze))
    return trained | dict(params=trees.merge(trained["params"], get_factors(spec, freeze))), frozen


def join_values(
    trained: Mapping[str, dict], frozen: Mapping[str, dict], scale: jax.Array | np.float32 | None = None
) -> dict[str, dict]:
    """Joins trained and frozen values to those of the whole network, dict(params, stats).

    Args:
        trained: with the factors of adapters, where there are some.
        frozen: the rest.
        scale: alpha / rank, what the product of two factors is multiplied by; None where there are no adapters.
    """
    return dict(
        params=join_params(trained["params"], frozen["params"], scale),
        stats=trees.merge(trained["stats"], frozen["stats"]),
    )


def join_params(trained: dict, frozen: dict, scale: jax.Array | np.float32 | None = None) -> dict:
    """Joins trained and frozen parameters as `join_values` does."""
    if scale is None:
        return trees.merge(trained, frozen)
    is_factor = jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key in adapters.INITIALIZERS, trained)
    factors, others = trees.split(trained, is_factor)
    return trees.merge(others, add_products(frozen, factors, scale))


def add_products(frozen: dict, factors: dict, scale: jax.Array | np.float32) -> dict:
    """Adds to each kernel that has an adapter scale * A B; everything else stays."""
    summed = {}
    for key, branch in frozen.items():
        if key == adapters.KERNEL and adapters.FACTOR_A in factors:
            # in full precision: what is merged is what is trained, on an accelerator too
            product = jnp.matmul(
                factors[adapters.FACTOR_A], factors[adapters.FACTOR_B], precision=jax.lax.Precision.HIGHEST
            )
            summed[key] = branch + scale * product.reshape(branch.shape)
        elif key in factors:
            summed[key] = add_products(branch, factors[key], scale)
        else:
            summed[key] = branch
    return summed


@compiled_once
def build_training_network(spec: NetworkSpec, freeze: FreezeSpec) -> Network:
    """Builds the network as training runs it. Its values are those of `forward.get_network(spec)`, path by path.

    Batch norms whose running statistics are frozen are fixed: they use these in training too, and do not change them.
    Dropout and stochastic depth are off in frozen layers, and in front of the first layer that is trained.
    """
    if freeze.pattern is None and not freeze.stages:
        return forward.get_network(spec)
    network, masks = forward.build_network(spec), get_masks(spec, freeze)
    # a layer whose kernel has an adapter is trained
    unchanged = trees.paths_where(masks["params"]) - get_targets(spec, freeze).keys()
    whole = forward.get_network(spec)
    frozen_layers = freezing.frozen_layers(whole, masks | dict(params=trees.mask_by_paths(whole.params, unchanged)))
    frozen_statistics = {path.rpartition("/")[0] for path in select_paths(masks["stats"])}
    calls_before = find_calls_before_training(spec, unchanged)
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


def find_calls_before_training(spec: NetworkSpec, unchanged: set[tuple]) -> set[str]:
    """Finds the layers that are called before any layer that is trained, by tracing the network; returns their paths.

    A layer is trained where one of the parameters that it holds itself is. What comes before all such layers works on
    fixed features, and has no gradient.

    Args:
        spec: the network.
        unchanged: paths of the parameters that stay as they are.
    """
    trained_layers = set()
    for path in trees.shapes_by_path(forward.get_network(spec).params):
        if path not in unchanged:
            trained_layers.add(trees.keys_text(path[:-1]))
    before = set()
    for layer in forward.list_calls(spec):
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
