"""The weights of a run: the values that it was tested with, and a card of what its folder says."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from cnn_vit.runs import folder, reader
from cnn_vit.training import trained
from cnn_vit.transfer.weights import Card, Weights

EXPORTED = ("mean", "std", "image_size", "channels", "fit", "interpolation")  # of a run's preprocessing.json


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
