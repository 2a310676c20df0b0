"""What is frozen: which parameters and running statistics training leaves as they were loaded."""

from collections.abc import Iterable, Sequence
from typing import Literal

from cnn_vit.errors import UserError
from cnn_vit.nn.values import Network
from cnn_vit.transfer.adapt.modules import find_statistics, find_whole_modules
from cnn_vit.transfer.adapt.patterns import find_matches, parse
from cnn_vit.trees import keys_text, mask_by_paths, paths_where, shapes_by_path

SETTING = "pretrained.freeze"
STAGES = "pretrained.stages"


def frozen_masks(
    network: Network,
    freeze: str | None,
    statistics: Literal["stored", "update", "recalibrate"],
    stages: Sequence[str] = (),
    *,
    has_adapters: bool = False,
) -> dict[str, dict]:
    """Says of each value of a network whether it is frozen.

    A running statistic belongs to the module that holds it, or, where that has no parameters, to the nearest module
    above it that has some. It is frozen where all parameters of that module are, those below it too.

    Args:
        network: the network that is trained.
        freeze: a pattern (see `patterns`), "all but head"; None where everything is trained.
        statistics: "update" lets the running statistics of frozen layers follow the data, so that none is frozen.
            "stored" and "recalibrate" freeze them alike: what is recalibrated is computed once, before the first step.
        stages: patterns of the stages that have begun; what none of them means is frozen too. () for no stages.
        has_adapters: whether frozen kernels have adapters, so that all parameters may be frozen.

    Returns:
        dict(params, stats), trees of booleans with the network's own keys: True for what is frozen.

    Raises:
        UserError: a pattern that does not fit the network, that leaves nothing to train, or that freezes nothing.
    """
    params = shapes_by_path(network.params).keys()
    frozen_params: set[tuple] = set()
    if freeze is not None:
        frozen_params = find_matches(parse(freeze, setting=SETTING), params)
        if len(frozen_params) == len(params) and not has_adapters:
            raise UserError(f"{SETTING}={freeze!r} leaves nothing to train; take all but head to train the head alone")
        if not frozen_params:
            raise UserError(f"{SETTING}={freeze!r} freezes nothing; leave it unset to train everything")
    frozen_params |= params - begun_paths(stages, params)
    frozen_stats: set[tuple] = set()
    if statistics != "update":
        frozen_stats = find_statistics(shapes_by_path(network.stats), params, frozen_params)
    return dict(
        params=mask_by_paths(network.params, frozen_params),
        stats=mask_by_paths(network.stats, frozen_stats),
    )


def begun_paths(stages: Sequence[str], params: Iterable[tuple]) -> set[tuple]:
    """Returns the paths that the patterns of the stages so far mean; all of them where there are no stages.

    Raises:
        UserError: a pattern does not fit the network.
    """
    params = set(params)
    if not stages:
        return params
    return set().union(*(find_matches(parse(pattern, setting=STAGES), params) for pattern in stages))


def frozen_layers(network: Network, masks: dict[str, dict]) -> tuple[str, ...]:
    """Returns the paths of the modules all of whose parameters, those below them too, are frozen: `stages/0/blocks/1`.

    A list of modules counts as one. A module without parameters, such as dropout, has no path here: it lies in a frozen
    part where a module above it is among these.

    Args:
        network: the network that is trained.
        masks: of `frozen_masks`.
    """
    modules = find_whole_modules(shapes_by_path(network.params), paths_where(masks["params"])) - {()}
    # Keys of one place are all names or all indices, so that paths can be sorted; 2 stands before 10.
    return tuple(keys_text(module) for module in sorted(modules))
