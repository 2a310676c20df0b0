"""What training starts from, a row for each part of a network: what is loaded, what is frozen, what decays."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from cnn_vit.nn.values import Network
from cnn_vit.transfer.adapt.loading import AdaptedLeaf
from cnn_vit.trees import keys_text, part_of, paths_where, shapes_by_path


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


def group_rows(
    network: Network, *, masks: dict[str, dict], decays: dict, leaves: Iterable[AdaptedLeaf] = ()
) -> tuple[GroupRow, ...]:
    """Sums up what becomes of a network's values, a row for each of its parts, in the order of jax.

    Args:
        network: the network that is trained.
        masks: what is frozen, of `freezing.frozen_masks`.
        decays: a tree of booleans, True for parameters that are shrunk by weight decay; of all parameters, or of those
            that are trained.
        leaves: what is loaded, `Adapted.rows`; without any everything is new.
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
    return tuple(GroupRow(path, **count) for path, count in counts.items())
