"""What training starts from, a row for each part of a network: what is loaded, what is frozen, what decays."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from cnn_vit.nn.values import Network
from cnn_vit.transfer.adapt.adapters import kernel_of
from cnn_vit.transfer.adapt.loading import AdaptedLeaf
from cnn_vit.trees import keys_text, leaves_by_path, part_of, paths_where, shapes_by_path


@dataclass(frozen=True)
class GroupRow:
    """A part of a network: a top-level layer, or one stage or block of a list of them.

    Attributes:
        path: "stages/0", "head".
        count: numbers in its parameters.
        loaded, resized, new: how many of them come from where; together they are `count`.
        frozen: how many of them are frozen; the others are trained.
        decayed: how many of those that are trained are shrunk by weight decay.
        statistics: numbers in its running statistics.
        frozen_statistics: how many of these are frozen.
        factors: numbers in the factors of its adapters, which are trained beside the parameters.
        least_multiplier, most_multiplier: of the learning rates of what is trained; 1 where nothing is.
    """

    path: str
    count: int = 0
    loaded: int = 0
    resized: int = 0
    new: int = 0
    frozen: int = 0
    decayed: int = 0
    statistics: int = 0
    frozen_statistics: int = 0
    factors: int = 0
    least_multiplier: float = 1.0
    most_multiplier: float = 1.0


def group_rows(
    network: Network,
    *,
    masks: dict[str, dict],
    decays: dict,
    leaves: Iterable[AdaptedLeaf] = (),
    factors: dict | None = None,
    multipliers: dict | None = None,
) -> tuple[GroupRow, ...]:
    """Sums up what becomes of a network's values, a row for each of its parts, in the order of jax.

    Args:
        network: the network that is trained.
        masks: what is frozen, of `freezing.frozen_masks`.
        decays: a tree of booleans, True for parameters that are shrunk by weight decay; of all parameters, or of those
            that are trained.
        leaves: what is loaded, `Adapted.rows`; without any everything is new.
        factors: shapes of the factors of adapters, by the paths of their layers; None for none.
        multipliers: what the learning rate of each parameter of the network is multiplied by; None for all the same.
    """
    origins = {leaf.path: leaf.origin for leaf in leaves}
    frozen_params, frozen_stats, decayed = map(paths_where, (masks["params"], masks["stats"], decays))
    counts: dict[str, Counter[str]] = defaultdict(Counter)  # of each part, by the attributes of its row
    for path, shape in shapes_by_path(network.params).items():
        size = math.prod(shape)
        count = counts[part_of(keys_text(path))]
        count["count"] += size
        count[origins.get(path, "new")] += size
        if path in frozen_params:
            count["frozen"] += size
        elif path in decayed:
            count["decayed"] += size
    for path, shape in shapes_by_path(network.stats).items():
        size = math.prod(shape)
        count = counts[part_of(keys_text(path))]
        count["statistics"] += size
        if path in frozen_stats:
            count["frozen_statistics"] += size
    adapted = set()
    for path, shape in shapes_by_path(factors or {}).items():
        counts[part_of(keys_text(path))]["factors"] += math.prod(shape)
        adapted.add(kernel_of(path))
    rates: dict[str, list[float]] = defaultdict(list)
    for path, multiplier in leaves_by_path(multipliers or {}).items():
        if path not in frozen_params or path in adapted:
            rates[part_of(keys_text(path))].append(float(multiplier))
    rows = []
    for part, count in counts.items():
        of_part = rates.get(part, [1.0])
        rows.append(GroupRow(part, **count, least_multiplier=min(of_part), most_multiplier=max(of_part)))
    return tuple(rows)
