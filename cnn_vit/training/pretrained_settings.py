"""Settings that name pretrained weights, a file or a run folder, are completed by the card of these weights.

What a recipe leaves open, the card decides: size of the images, how they are brought to it, mean and standard
deviation, keywords of the model. Another mean or standard deviation than the card's is refused. The digest of the
values is one of the settings (`pretrained.digest`), so that a run knows its weights, wherever they lie.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cnn_vit.errors import UserError
from cnn_vit.runs import folder, reader
from cnn_vit.settings import KEYS, Settings
from cnn_vit.training import plan
from cnn_vit.training.run_weights import weights_of_run
from cnn_vit.transfer import catalog, convert
from cnn_vit.transfer.weights import Weights

ORIGIN = "weights"  # of a setting that the weights' card decides
NEEDS_WEIGHTS = ("pretrained.digest", "pretrained.load", "pretrained.head")  # settings that mean nothing without them
DIGITS = 12  # of a digest that a sentence shows


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
    if recorded is not None and not os.path.exists(source) and not catalog.is_here(source):
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
