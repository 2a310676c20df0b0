"""What a run starts from: settings completed from pretrained weights, and the values that training begins with.

Weights are a file or a run folder. What a recipe leaves open, their card decides: size of the images, how they are
brought to it, mean and standard deviation, keywords of the model. Another mean or standard deviation than the card's
is refused. The digest of the values is one of the settings (`pretrained.digest`), so that a run knows its weights,
wherever they lie.
"""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnn_vit import models, trees
from cnn_vit.analysis import input_layer
from cnn_vit.errors import UserError
from cnn_vit.nn.values import initial_values
from cnn_vit.runs import folder, reader
from cnn_vit.settings import KEYS, Settings
from cnn_vit.training import forward, freezing, optimizers, plan, trained
from cnn_vit.training.forward import NetworkSpec
from cnn_vit.training.freezing import FreezeSpec
from cnn_vit.transfer import catalog, convert
from cnn_vit.transfer.adapt import loading
from cnn_vit.transfer.adapt.loading import Adapted, AdaptedLeaf, Geometry
from cnn_vit.transfer.adapt.rows import GroupRow, group_rows
from cnn_vit.transfer.weights import Card, Weights

ORIGIN = "weights"  # of a setting that the weights' card decides
NEEDS_WEIGHTS = ("pretrained.digest", "pretrained.load", "pretrained.head")  # settings that mean nothing without them
DIGITS = 12  # of a digest that a sentence shows
EXPORTED = ("mean", "std", "image_size", "channels", "fit", "interpolation")  # of a run's preprocessing.json


# Settings -------------------------------------------------------------------------------------------------------------


def complete_settings(
    settings: Settings, *, workdir: Path | None = None, fork_from: Path | None = None
) -> tuple[Settings, Weights | None]:
    """Reads the weights that settings name, and completes the settings by them.

    Where a run has begun and its weights are not there any more, the settings are completed from its config.json.

    Args:
        settings: final settings.
        workdir: the run folder, which may hold the run already; None where nothing is trained.
        fork_from: the run folder that a new run starts from.

    Returns:
        The settings, and the weights; None where the settings name none, or where they are not there any more.

    Raises:
        UserError: the weights cannot be read, do not fit the model, have another digest than the settings say, or the
            settings contradict their card.
    """
    source = settings["pretrained.weights"]
    if source is None:
        for key in NEEDS_WEIGHTS:
            if settings[key] != KEYS[key].default:
                raise UserError(f"{key} is {settings[key]}, and there are no weights; set pretrained.weights too")
        return settings, None
    recorded = read_recorded(source, workdir, fork_from)
    if recorded is not None and not os.path.exists(source) and not catalog.is_name(source):
        return adopt_recorded(settings, recorded), None
    weights = open_weights(source, model=settings["model.name"], keywords=plan.model_keywords(settings))
    return complete_from_card(settings, weights), weights


def open_weights(source: str, *, model: str | None = None, keywords: dict[str, Any] | None = None) -> Weights:
    """Opens weights: of a run folder, the values that its run was tested with; else those of a file.

    Args:
        source: the folder or the file.
        model: name of the network, for a file that does not say it; None: what the file's names and shapes say.
        keywords: of the model, for such a file.

    Raises:
        UserError: there are no weights, or they are of another model.
    """
    if os.path.isdir(source):
        weights = weights_of_run(source)
    else:
        weights = convert.open_weights(source, model=model, keywords=keywords, for_training=True)
    if model is not None and weights.card.model != model:
        raise UserError(
            f"{source} holds weights of {weights.card.model}, and model.name is {model}; set model.name to that, or "
            "name other weights"
        )
    return weights


def weights_of_run(workdir: str) -> Weights:
    """Reads the values that a run was tested with, with a card of what its folder says."""
    network = trained.load_run(workdir)
    keywords = dict(network.spec.keywords)
    preprocessing = network.preprocessing
    card = Card(
        model=network.spec.model,
        keywords={key: value for key, value in keywords.items() if key != "cut"},
        num_classes=network.spec.num_classes,
        classes=network.classes,
        preprocessing=preprocessing,
        origin={"run": os.fspath(workdir), "cut": keywords.get("cut")},
    )
    values = jax.device_get(network.values)
    return Weights(values["params"], values["stats"], card)


def describe_export(
    weights: Weights, workdir: str, *, licence: str | None = None, trained_on: str | None = None
) -> Weights:
    """Returns the weights of a run with a card that says where they come from without naming a path.

    Args:
        weights: of `weights_of_run`.
        workdir: the run folder.
        licence: under which they are given on; None where that is not said.
        trained_on: name of the data set; None for that of the source, which says little of a folder.
    """
    settings = reader.read_settings(Path(workdir))
    facts = reader.read_data(Path(workdir) / folder.DATA)
    keywords = dict(weights.card.keywords)
    if weights.card.origin.get("cut") is not None:
        keywords["cut"] = weights.card.origin["cut"]
    recipe = settings.recipe
    if settings.words:
        recipe = f"{recipe}:{','.join(settings.words)}"
    origin: dict[str, Any] = {
        "program": "cnn_vit",
        "recipe": recipe,
        "seed": settings["seed"],
        "trained_on": [trained_on or settings["data.name"]],
        "data_fingerprint": facts["fingerprint"],
        "counts": ", ".join(f"{split} {count:,}" for split, count in facts["counts"].items()),
    }
    result = reader.finished_result(Path(workdir))
    if result is not None:
        split = "test" if result["test"] else "validation"
        metrics = result[split]
        origin["accuracy"] = f"{100 * metrics['accuracy']:.2f} % of {metrics['n']:,} {split} images"
        origin["fingerprint"] = result["fingerprint"]
    if licence is not None:
        origin["licence"] = licence
    known = {key: value for key, value in weights.card.preprocessing.items() if key in EXPORTED}
    return replace(weights, card=replace(weights.card, keywords=keywords, preprocessing=known, origin=origin))


def read_recorded(source: str, workdir: Path | None, fork_from: Path | None) -> Settings | None:
    """Reads the settings of a run that has begun from the same weights; None where there is no such run.

    It is the run in the folder itself, else the one that a new run forks from.
    """
    for run in (workdir, fork_from):
        if run is None or not (run / folder.CONFIG).is_file():
            continue
        recorded = reader.read_settings(run)
        if recorded["pretrained.weights"] == source and recorded["pretrained.digest"] is not None:
            return recorded
    return None


def adopt_recorded(settings: Settings, recorded: Settings) -> Settings:
    """Completes settings by those that the weights decided for a run when it began, and they were still there.

    What the settings say themselves stays, so that the run refuses it where it began otherwise.
    """
    decided = {}
    for key, origin in recorded.origin.items():
        is_open = settings.values.get(key) is None or settings.origin.get(key) == "default"
        if origin == ORIGIN and is_open:
            decided[key] = recorded[key]
    return with_values(settings, decided)


def with_values(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """Returns settings with some values that the weights decide; a keyword of the model stands behind its name."""
    completed: dict[str, Any] = {}
    for key, value in settings.values.items():
        completed[key] = values.get(key, value)
        if key == "model.name":
            for keyword in values:
                if keyword.startswith("model.") and keyword not in settings.values:
                    completed[keyword] = values[keyword]
    return replace(settings, values=completed, origin={**settings.origin, **dict.fromkeys(values, ORIGIN)})


def complete_from_card(settings: Settings, weights: Weights) -> Settings:
    """Completes settings by the card of the weights that they start from.

    Raises:
        UserError: the settings contradict the card, or say another digest.
    """
    card = weights.card
    source, digest = settings["pretrained.weights"], settings["pretrained.digest"]
    if digest is not None and digest != weights.digest:
        raise UserError(
            f"{source} holds other weights than pretrained.digest says, {weights.digest[:DIGITS]} "
            f"and not {digest[:DIGITS]}; name the right file, or unset the digest"
        )
    decided: dict[str, Any] = {"pretrained.digest": weights.digest}
    for keyword, value in card.keywords.items():
        if f"model.{keyword}" not in settings.values:
            decided[f"model.{keyword}"] = value
    known = card.preprocessing
    for name in ("fit", "interpolation"):
        key = f"data.{name}"
        if name in known and key in settings.values and settings.origin[key] == "default":
            decided[key] = known[name]
    if settings["data.channels"] is None and "channels" in known:
        decided["data.channels"] = known["channels"]
    if settings["data.image_size"] is None and "image_size" in known:
        decided["data.image_size"] = tuple(known["image_size"])
    channels = decided.get("data.channels", settings["data.channels"])
    for name in ("mean", "std"):
        if name not in known:
            continue
        expected = for_channels(known[name], channels)
        stated = settings[f"data.{name}"]
        if stated is None:
            decided[f"data.{name}"] = expected
        elif len(stated) not in (1, len(expected)) or not np.allclose(stated, expected, rtol=0, atol=1e-6):
            raise UserError(
                f"data.{name} is {stated}, and the weights were trained with {expected}; leave it unset, which takes "
                "theirs"
            )
    return with_values(settings, decided)


def for_channels(numbers: list[float], channels: int | None) -> tuple[float, ...]:
    """Returns mean or standard deviation of each channel for images of so many channels.

    One for all is the average of three, and three are three times the one.
    """
    if channels is None or channels == len(numbers):
        return tuple(numbers)
    return (float(np.mean(numbers)),) * channels


# Values ---------------------------------------------------------------------------------------------------------------


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
    masks = freezing.get_masks(spec, plan.freeze_spec(settings))
    decays = optimizers.build_decay_mask(network.params, settings["optimizer.decay_pattern"])
    if not plan.rule_numbers(settings, "optimizer").get("weight_decay"):
        decays = jax.tree.map(lambda _: False, decays)
    return group_rows(network, masks=masks, decays=decays, leaves=start.leaves)


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
    frozen = trees.paths_where(freezing.get_masks(spec, plan.freeze_spec(settings))["params"])
    new = [leaf.path for leaf in adapted.rows if leaf.origin == "new" and not leaf.is_statistic and leaf.path in frozen]
    if new:
        more = f" and {len(new) - 1} more" if len(new) > 1 else ""
        layer = trees.keys_text(new[0][:-1])
        raise UserError(
            f"pretrained.freeze={settings['pretrained.freeze']!r} freezes {trees.keys_text(new[0])}{more}, which the "
            f"weights do not have: an initial value that never learns; leave {layer} out of it, or load it"
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


def record_start(start: Start, spec: NetworkSpec, freeze: FreezeSpec) -> dict[str, Any]:
    """Returns what pretrained.json says of the start of a run from weights, or of one that freezes something.

    It holds the card of the weights, how each value came about, and the digests of the values that are frozen, as they
    were before the run began: at its end they are compared with what is saved.
    """
    _, frozen = freezing.split_values(start.values, freezing.get_masks(spec, freeze))
    record: dict[str, Any] = {"weights": start.weights, "card": None, "leaves": []}
    if start.card is not None:
        record["card"] = asdict(start.card)
    for leaf in start.leaves:
        tree = "stats" if leaf.is_statistic else "params"
        source_shape = None if leaf.source_shape is None else list(leaf.source_shape)
        record["leaves"].append([f"{tree}/{trees.keys_text(leaf.path)}", leaf.origin, source_shape, list(leaf.shape)])
    record["frozen"] = {name: trees.digest(frozen[name]) for name in freezing.VALUES}
    return record
