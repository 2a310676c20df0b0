"""Writes the page of a file of weights: what they are of, where they come from, and what can be seen of the network."""

from pathlib import Path
from typing import Any

from cnn_vit import files, trees
from cnn_vit.analysis import input_layer, table
from cnn_vit.reports import facts, page
from cnn_vit.reports.facts import Card
from cnn_vit.transfer.weights import Weights

SHOWN_DIGITS = 10  # of a digest


def write(source: str, weights: Weights, out: Path) -> dict[str, Any]:
    """Writes the page.

    Args:
        source: the file, as the user names it.
        weights: what it holds.
        out: where the page goes.

    Returns:
        What the page says at its top, as a JSON object.

    Raises:
        UserError: the card does not say the size of the images.
        SurroundingsError: the page cannot be written.
    """
    card = weights.card
    known = card.preprocessing
    height, width = known.get("image_size", (None, None))
    layers = table.describe(
        card.model,
        None if height is None else (height, width),
        num_classes=card.num_classes,
        channels=known.get("channels"),
        **card.keywords,
    )
    image_shape = layers.image_shape
    arrays = input_layer.collect_arrays(layers.network, image_shape, weights.params)
    statistics = trees.count(weights.stats)
    cards = [
        Card("network", card.model, ", ".join(f"{key} {value}" for key, value in card.keywords.items())),
        Card("parameters", f"{layers.parameters:,}", f"{statistics:,} running statistics" if statistics else ""),
        Card("MACs an image", f"{layers.macs:,}", f"at {image_shape[0]} x {image_shape[1]} pixels"),
        Card("classes", f"{card.num_classes:,}", "" if card.classes else "without names"),
        Card("sha256 of the values", weights.digest[:SHOWN_DIGITS], "paths, shapes and bits"),
    ]
    origin = [(name.replace("_", " "), value) for name, value in card.origin.items() if value is not None]
    text = page.render(
        "weights.html",
        mark="",
        title=f"Weights of {card.model}",
        file=source,
        cards=cards,
        origin=origin,
        preprocessing=[(name.replace("_", " "), value) for name, value in known.items()],
        classes=card.classes or (),
        filters=facts.show_filters(arrays),
        positions=facts.show_positions(arrays),
        layers=layers,
    )
    files.write(out, text)
    return {
        "weights": source,
        "model": card.model,
        "keywords": card.keywords,
        "parameters": layers.parameters,
        "macs": layers.macs,
        "classes": card.num_classes,
        "digest": weights.digest,
        "preprocessing": known,
        "origin": card.origin,
        "report": str(out),
    }
