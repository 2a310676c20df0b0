"""Our weights -> the names and axes of another program, and the Python that loads them there.

A network is only written where it comes back as the same network: its arrays, read again by the rule, have to give the
same keywords and the same bits. So nothing is written for a program whose network computes something else with them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnn_vit import files, models
from cnn_vit.errors import UserError, unknown
from cnn_vit.transfer import rules, torch_models
from cnn_vit.transfer.convert import convert_arrays, describe_network
from cnn_vit.transfer.matching import to_theirs
from cnn_vit.transfer.readers import NamedArrays
from cnn_vit.transfer.recognition import Recognized
from cnn_vit.transfer.rules import ConversionRule
from cnn_vit.transfer.source_facts import SourceFacts, default_image_size
from cnn_vit.transfer.weights import Weights, encode_safetensors

# What `--to` calls the programs that sources name, and the words by which a source names them.
PROGRAMS = {"timm": ("timm",), "torchvision": ("torchvision",), "hf": ("Hugging Face", "transformers")}
# Keywords that change training, or how something is computed, and never a score.
NEUTRAL = ("dropout", "stochastic_depth", "fused", "zero_last")
METADATA = {"format": "pt", "written_by": "cnn_vit"}  # the first is what Hugging Face's code asks for


@dataclass(frozen=True)
class Written:
    """Weights under the names of another program.

    Attributes:
        arrays: by their names there.
        rule: by which they were named.
        lines: Python that loads them from a file.
        untold: keywords that have to be said where the file is read again, since it does not tell them.
    """

    arrays: dict[str, np.ndarray]
    rule: ConversionRule
    lines: tuple[str, ...]
    untold: dict[str, Any]


def targets_of(rule: ConversionRule) -> tuple[str, ...]:
    """Returns what `--to` calls the programs of a rule: what it says itself, else what its source names."""
    if rule.targets:
        return rule.targets
    named = []
    for target, words in PROGRAMS.items():
        if any(word in rule.source for word in words):
            named.append(target)
    return tuple(named)


def write_for(
    weights: Weights, target: str, out: str | Path, candidates: Sequence[ConversionRule] | None = None
) -> Written:
    """Gives weights the names of another program.

    Args:
        weights: ours.
        target: what `--to` calls the program.
        out: the file that they will stand in, for the lines that load it.
        candidates: rules that are looked through; None for all.

    Raises:
        UserError: no rule serves that program, or it has no network like this one.
    """
    family = models.resolve(weights.card.model).family
    of_family = []
    for rule in rules.all_rules() if candidates is None else candidates:
        if rule.family == family and targets_of(rule):
            of_family.append(rule)
    if not of_family:
        raise UserError(
            f"no rule writes weights of {family} for another program; cnn_vit's own file is written by --out"
        )
    serving = [rule for rule in of_family if target in targets_of(rule)]
    if not serving:
        raise unknown(
            f"program for weights of {family}", target, sorted({t for rule in of_family for t in targets_of(rule)})
        )
    first_error: UserError | None = None
    for rule in serving:
        model = torch_models.MODELS.get((family, target))
        try:
            if model is not None:
                refuse_other_keywords(all_keywords(weights.card.model, weights.card.keywords), model.has, rule)
                refuse_beyond(model.limits, describe(weights), rule)
            arrays, untold = name_arrays(weights, rule, model.sets if model is not None else ())
        except UserError as error:
            first_error = first_error or error
            continue
        return Written(arrays, rule, loading_lines(weights, rule, model, out), untold)
    raise first_error or UserError(f"{target} has no network like {describe_network(weights.card)}")


def name_arrays(
    weights: Weights, rule: ConversionRule, sets: Sequence[str]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Names arrays by a rule, and reads them back to see that they are of the same network.

    Args:
        weights: ours.
        rule: of the program.
        sets: keywords that the program's network is given, so that they may be other than usual there.

    Returns:
        The arrays, and the keywords that had to be said to read them back.

    Raises:
        UserError: the program has no such network; the sentence says what it lacks.
    """
    card = weights.card
    keywords = all_keywords(card.model, card.keywords)
    if keywords.get("cut") is not None:
        raise UserError(f"this network ends at {keywords['cut']} (model.cut), which no network of {rule.source} does")
    usual = {key: value for key, value in rule.keywords.items() if key not in sets}
    refuse_other_keywords(keywords, usual, rule)
    arrays = to_theirs(rule, weights.params, weights.stats)
    arrays = {rule.prefixes[0] + name: array for name, array in arrays.items()}
    named = NamedArrays(arrays=arrays, skipped={}, sha256="0" * 64, format="safetensors", metadata={})
    size = card.preprocessing.get("image_size")
    facts = SourceFacts(image_size=tuple(size) if size is not None else None)
    shapes = {name.removeprefix(rule.prefixes[0]): array.shape for name, array in arrays.items()}
    lacking = f"no network of {rule.source} is like {describe_network(card)}"
    try:
        # A rule may ask for nothing that is given already, or for more once something is given.
        guess = rule.guess(shapes, keywords)
        unseen = rule.guess(shapes, {}).unseen | guess.unseen
        said = {key: keywords[key] for key in unseen}
        theirs = all_keywords(guess.model, guess.keywords) | rule.keywords
        said |= {key: keywords[key] for key in sets if keywords[key] != theirs[key]}
        back = convert_arrays("it", named, keywords=said, facts=facts, recognized=Recognized(rule, rule.prefixes[0]))
    except (LookupError, ValueError, UserError) as error:
        raise UserError(f"{lacking}: {error}") from error
    refuse_other_keywords(keywords, all_keywords(back.weights.card.model, back.weights.card.keywords), rule)
    if back.weights.digest != weights.digest:
        raise UserError(f"{lacking}: its values read back are others")
    return arrays, said


def all_keywords(model: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all keywords of a network: those of its name, and what replaces them."""
    defaults = {key: keyword.default for key, keyword in models.read_keywords(model).items()}
    keywords = defaults | dict(changes)
    for key in ("channels", "image_size"):
        keywords.pop(key, None)
    return keywords


def refuse_other_keywords(ours: Mapping[str, Any], theirs: Mapping[str, Any], rule: ConversionRule) -> None:
    """Raises UserError where the program's network would have other keywords than ours."""
    for key, value in theirs.items():
        if key not in NEUTRAL and key in ours and ours[key] != value:
            raise UserError(
                f"this network has model.{key}={ours[key]}, and that of {rule.source} would have {value}; write it for "
                f"another program, or train with model.{key}={value}"
            )


def describe(weights: Weights) -> dict[str, Any]:
    """Returns all keywords of a network with its classes, channels and image size, as a torch model is written of."""
    card = weights.card
    return all_keywords(card.model, card.keywords) | {
        "num_classes": card.num_classes,
        "channels": card.preprocessing.get("channels", 3),
        "image_size": tuple(card.preprocessing.get("image_size", default_image_size(card.model))),
    }


def refuse_beyond(
    limits: Sequence[Callable[[Mapping[str, Any]], str]], described: Mapping[str, Any], rule: ConversionRule
) -> None:
    """Raises UserError where a network has something that the program's own code does not make."""
    for limit in limits:
        lacking = limit(described)
        if lacking:
            raise UserError(
                f"no network of {rule.source} is like this one: it has {lacking}; write it for another program"
            )


def loading_lines(
    weights: Weights, rule: ConversionRule, model: torch_models.TorchModel | None, out: str | Path
) -> tuple[str, ...]:
    """Returns the Python that loads the file where the program is, and what its network sees."""
    card = weights.card
    preprocessing = card.preprocessing
    imports = ["import safetensors.torch"]
    made = f"# `model` is {describe_network(card)}, made by the code of {rule.source}; nothing here knows how."
    if model is not None:
        expression = model.write(describe(weights))
        imports += [f"import {module}" for module in (*model.modules, expression.partition(".")[0])]
        made = f"model = {expression}"
    images = "RGB in 0..1" if preprocessing.get("channels", 3) == 3 else "gray in 0..1"
    if "mean" in preprocessing:
        images += f", minus {preprocessing['mean']}, divided by {preprocessing['std']}"
    load = torch_models.LOAD if model is None else model.load
    return (
        *imports,
        made,
        load.format(file=repr(str(out))),
        f"model.eval()  # images (N, C, H, W): {images}",
    )


def save(out: Path, written: Written) -> None:
    """Writes the arrays as a file of safetensors.

    Raises:
        SurroundingsError: it cannot be written.
    """
    arrays = {}
    for name, array in written.arrays.items():
        arrays[name] = np.ascontiguousarray(array, np.dtype("<f4"))
    files.write(out, encode_safetensors(arrays, METADATA))
