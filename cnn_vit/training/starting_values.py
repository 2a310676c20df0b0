"""The values that training begins with: initial values, and what pretrained weights have of them; in words, too."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax

from cnn_vit import models, trees
from cnn_vit.analysis import input_layer
from cnn_vit.errors import UserError
from cnn_vit.nn.values import initial_values
from cnn_vit.settings import Settings
from cnn_vit.training import adapting, forward, freezing, optimizers, plan, rates
from cnn_vit.training.forward import NetworkSpec
from cnn_vit.training.freezing import FreezeSpec
from cnn_vit.transfer.adapt import loading
from cnn_vit.transfer.adapt.loading import Adapted, AdaptedLeaf, Geometry
from cnn_vit.transfer.adapt.rows import GroupRow, group_rows
from cnn_vit.transfer.weights import Card, Weights


@dataclass(frozen=True)
class Start:
    """What training begins with.

    Attributes:
        values: of the whole network, dict(params, stats) of NumPy arrays.
        leaves: how each of them came about; () where all are initial values.
        weights: text of the setting `pretrained.weights`; None for initial values.
        card: of the weights; None for initial values.
    """

    values: dict[str, dict]
    leaves: tuple[AdaptedLeaf, ...] = ()
    weights: str | None = None
    card: Card | None = None


def make_start(settings: Settings, weights: Weights | None, spec: NetworkSpec, classes: tuple[str, ...]) -> Start:
    """Makes the values that training begins with: initial values, and what the weights have of them.

    Args:
        settings: completed by the weights.
        weights: None for initial values alone.
        spec: the network that is trained.
        classes: of the data. Where the weights have the same, their head is loaded too.

    Raises:
        UserError: the weights do not fit the network.
    """
    network = forward.get_network(spec)
    params, stats = initial_values(network, settings["seed"])
    initial = dict(params=params, stats=stats)
    if weights is None:
        return Start(initial)
    adapted = adapt_weights(settings, weights, spec, initial, classes)
    refuse_frozen_initial_values(settings, spec, adapted)
    return Start(
        dict(params=adapted.params, stats=adapted.stats), adapted.rows, settings["pretrained.weights"], weights.card
    )


def describe_changes(settings: Settings, start: Start, image_shape: tuple[int, int, int]) -> list[str]:
    """Says in sentences what differs between the run and its weights, and what becomes of it; none without weights.

    Args:
        settings: of the run, completed by its weights.
        start: what it begins with.
        image_shape: (H, W, C) of its images.
    """
    if start.card is None:
        return []
    known = start.card.preprocessing
    height, width, channels = image_shape
    sentences = []
    counts = Counter(leaf.origin for leaf in start.leaves)
    parts = [f"{counts[origin]} arrays {origin}" for origin in ("loaded", "resized", "new") if counts[origin]]
    new_parts = sorted({str(leaf.path[0]) for leaf in start.leaves if leaf.origin == "new"})
    new = f" ({', '.join(new_parts)})" if new_parts else ""
    sentences.append(f"from {start.weights}, weights of {start.card.model}: {', '.join(parts)}{new}")
    if tuple(known.get("image_size", (height, width))) != (height, width):
        old_height, old_width = known["image_size"]
        resized = [trees.keys_text(leaf.path) for leaf in start.leaves if leaf.origin == "resized"]
        becomes = f"; {', '.join(resized)} resized" if resized else ""
        sentences.append(f"image size {old_height}x{old_width} -> {height}x{width}{becomes}")
    if known.get("channels", channels) != channels:
        sentences.append(
            f"colors {known['channels']} -> {channels}: the first kernel is made to fit, and so are mean and standard "
            "deviation, which is exact only where they are the same for each color"
        )
    for name in ("fit", "interpolation"):
        if name in known and known[name] != settings[f"data.{name}"]:
            sentences.append(f"data.{name} {known[name]} -> {settings[f'data.{name}']}")
    return sentences


def list_groups(settings: Settings, start: Start, spec: NetworkSpec) -> tuple[GroupRow, ...]:
    """Lists the parts of a network, and of each how much is loaded, resized, new, frozen and shrunk by weight decay.

    Args:
        settings: of the run, completed by its weights.
        start: what it begins with.
        spec: its network.
    """
    network = forward.get_network(spec)
    freeze = adapting.freeze_spec(settings)
    masks = freezing.get_masks(spec, freeze)
    decays = optimizers.build_decay_mask(network.params, settings["optimizer.decay_pattern"])
    if not plan.rule_numbers(settings, "optimizer").get("weight_decay"):
        decays = jax.tree.map(lambda _: False, decays)
    numbers = adapting.rate_numbers(settings)
    multipliers = rates.find_multipliers(spec, adapting.rates_spec(settings), network.params, numbers)
    return group_rows(
        network,
        masks=masks,
        decays=decays,
        leaves=start.leaves,
        factors=freezing.get_factors(spec, freeze),
        multipliers=multipliers,
    )


@dataclass(frozen=True)
class StageRow:
    """A stage of a run.

    Attributes:
        pattern: what is trained from its beginning on, beside what was trained before.
        duration: "2 epochs"; None of the last one, which lasts until the end.
        trained: how many numbers are trained in it, those of adapters among them.
    """

    pattern: str
    duration: str | None
    trained: int


def list_stages(settings: Settings, spec: NetworkSpec) -> tuple[StageRow, ...]:
    """Lists the stages of a run; () of one without."""
    network = forward.get_network(spec)
    rows = []
    for position, stage in enumerate(adapting.parse_stages(settings)):
        shapes = dict(params=network.params, stats=network.stats)
        trained, _ = freezing.split_shapes(spec, adapting.freeze_spec(settings, stage=position), shapes)
        rows.append(StageRow(stage.pattern, stage.duration, trees.count(trained["params"])))
    return tuple(rows)


def adapt_weights(
    settings: Settings,
    weights: Weights,
    spec: NetworkSpec,
    initial: dict[str, dict],
    classes: tuple[str, ...],
) -> Adapted:
    """Makes all values of the network that is trained from weights and initial values, as the settings ask.

    Args:
        settings: completed by the weights.
        weights: their source.
        spec: the network that is trained.
        initial: its initial values, dict(params, stats).
        classes: of the data.

    Raises:
        UserError: they do not fit.
    """
    head = settings["pretrained.head"]
    # the head, and a norm in front of it, have learned to read the layer that they stand on
    stands_where_it_did = find_cut(weights.card) == dict(spec.keywords).get("cut")
    return loading.adapt(
        weights,
        forward.get_network(spec),
        initial,
        geometry=find_geometry(weights.card, spec),
        load=tuple(settings["pretrained.load"]),
        keep_head=head is None and stands_where_it_did and weights.card.classes == classes,
        head=head or "zero",
        seed=settings["seed"],
        new=() if stands_where_it_did else find_new_layers(spec),
        dropped=() if stands_where_it_did else list_cut_off(spec),
    )


def find_cut(card: Card) -> str | None:
    """Finds the last layer that the network of weights keeps; None where it is whole."""
    return card.keywords.get("cut", card.origin.get("cut"))


def refuse_frozen_initial_values(settings: Settings, spec: NetworkSpec, adapted: Adapted) -> None:
    """Raises UserError where a parameter is frozen that the weights do not have, so that it would never learn."""
    frozen = trees.paths_where(freezing.get_masks(spec, adapting.freeze_spec(settings))["params"])
    new = [leaf.path for leaf in adapted.rows if leaf.origin == "new" and not leaf.is_statistic and leaf.path in frozen]
    if new:
        more = f" and {len(new) - 1} more" if len(new) > 1 else ""
        layer = trees.keys_text(new[0][:-1])
        remedy = f"leave {layer} out of it"
        if settings["pretrained.freeze"] is None:
            remedy = f"set pretrained.freeze=all but head, {layer}"
            if settings["pretrained.lora"] is None:
                remedy = f"name {layer} in a stage"
        raise UserError(
            f"{adapting.freezing_text(settings)} freezes {trees.keys_text(new[0])}{more}, which the "
            f"weights do not have: an initial value that never learns; {remedy}, or load it"
        )


def find_new_layers(spec: NetworkSpec) -> tuple[str, ...]:
    """Finds the layers of a cut network that are new, as a norm behind its last block is; () of a whole network."""
    return models.new_when_cut(spec.model, dict(spec.keywords).get("cut"))


def find_geometry(card: Card, spec: NetworkSpec) -> Geometry:
    """Finds what resizing must know: the first kernel, and the grids of patches of the weights and of the network."""
    network = forward.build_network(spec)
    layer = input_layer.find_input_layer(network, spec.image_shape)
    if layer is None:
        return Geometry()
    old_grid = None
    known = card.preprocessing
    if layer.grid is not None and "image_size" in known and "channels" in known:
        image_size, channels = tuple(known["image_size"]), known["channels"]
        source = models.build(card.model, card.num_classes, channels=channels, image_size=image_size, **card.keywords)
        source_layer = input_layer.find_input_layer(source, (*image_size, channels))
        old_grid = None if source_layer is None else source_layer.grid
    return Geometry(old_grid=old_grid, new_grid=layer.grid, input_kernel=layer.path)


def list_cut_off(spec: NetworkSpec) -> tuple[str, ...]:
    """Lists the paths, as text, of what a cut network lacks of the whole one; () of a whole network."""
    keywords = dict(spec.keywords)
    if keywords.pop("cut", None) is None:
        return ()
    whole = forward.get_network(replace(spec, keywords=tuple(sorted(keywords.items()))))
    cut = forward.get_network(spec)
    lost = []
    for whole_tree, cut_tree in ((whole.params, cut.params), (whole.stats, cut.stats)):
        kept = trees.shapes_by_path(cut_tree)
        lost += [trees.keys_text(path) for path in trees.shapes_by_path(whole_tree) if path not in kept]
    return tuple(lost)


def record_start(start: Start, spec: NetworkSpec, stages: Sequence[FreezeSpec]) -> dict[str, Any]:
    """Returns what pretrained.json says of the start of a run from weights, or of one that freezes something.

    It holds the card of the weights, how each value came about, and the digests of the values that are frozen, as they
    were before the run began: at its end they are compared with what is saved.

    Args:
        start: what the run begins with.
        spec: its network.
        stages: what each stage of the run does not train; one of a run without stages.
    """
    record: dict[str, Any] = {"weights": start.weights, "card": None, "leaves": []}
    if start.card is not None:
        record["card"] = asdict(start.card)
    for leaf in start.leaves:
        tree = "stats" if leaf.is_statistic else "params"
        source_shape = None if leaf.source_shape is None else list(leaf.source_shape)
        record["leaves"].append([f"{tree}/{trees.keys_text(leaf.path)}", leaf.origin, source_shape, list(leaf.shape)])
    digests = []
    for freeze in stages:
        _, frozen = freezing.split_values(start.values, freezing.get_masks(spec, freeze))
        digests.append({name: trees.digest(frozen[name]) for name in freezing.VALUES})
    record["frozen"] = digests[0]
    if len(digests) > 1:
        record["frozen"] = digests[0] | {"stages": digests}
    return record
