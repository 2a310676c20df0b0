"""Proposes a network and a first file of rules for a checkpoint that no rule knows, and tries what it proposes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cnn_vit import models
from cnn_vit.errors import UserError, printable_name
from cnn_vit.nn.values import functional
from cnn_vit.transfer import rule_of_file, rules, rules_file
from cnn_vit.transfer.matching import FLOATS, shapes_by_text
from cnn_vit.transfer.readers import NamedArrays
from cnn_vit.transfer.recognition import find_signs
from cnn_vit.transfer.suggesting import alignment, sequence, transformer
from cnn_vit.transfer.suggesting.layers import Layer, Shape, read_layers, shared_prefix
from cnn_vit.transfer.suggesting.proposal import Proposal, as_toml
from cnn_vit.transfer.table import TORCH_COUNTER, TORCH_OPTIMIZER, pair_names

NO_WEIGHTS = re.compile(rf"{TORCH_COUNTER}|{TORCH_OPTIMIZER}")
FITS = "tried: every array has its partner of its shape"


@dataclass(frozen=True)
class Suggestion:
    """What is proposed for a checkpoint, and how a trial of it went.

    Attributes:
        proposal: the network and the lines.
        shapes: of all arrays of the checkpoint by name.
        toml: the lines as a file of rules.
        problems: what did not fit when the lines were tried on the network; empty where all did.
    """

    proposal: Proposal
    shapes: Mapping[str, Shape]
    toml: str
    problems: tuple[str, ...]


def suggest(
    path: str | Path, named: NamedArrays, *, model: str | None = None, keywords: Mapping[str, Any] | None = None
) -> Suggestion:
    """Proposes a network and rules for a checkpoint.

    Args:
        path: of the checkpoint, for the answer.
        named: its arrays.
        model: name of the network, where the user knows it; None to look for one.
        keywords: of the network.

    Raises:
        UserError: nothing that ours has is recognized in it.
    """
    all_shapes = {name: array.shape for name, array in named.arrays.items()}
    shapes = {}
    for name, array in named.arrays.items():
        if array.dtype.name in FLOATS and not NO_WEIGHTS.fullmatch(name) and array.ndim:
            shapes[name] = array.shape
    if not shapes:
        raise UserError(f"{path} holds no arrays of floating point numbers; give a file of weights")
    empty = [name for name, shape in shapes.items() if 0 in shape]
    if empty:
        raise UserError(
            f"{path}: {printable_name(empty[0])} has the shape {shapes[empty[0]]}, so that no number is in it; a file "
            "of weights has none like it"
        )
    prefix = shared_prefix(list(shapes))
    inner = {name.removeprefix(prefix): shape for name, shape in shapes.items()}
    layers = read_layers(inner)
    proposal = choose(layers, inner, model, keywords or {})
    if proposal is None:
        raise UserError(
            f"{path} holds {len(shapes):,} arrays in {len(layers):,} layers, in which no network is recognized; "
            "name one with --model=FAMILY/VARIANT and its keywords, beside which they are put by shape and order"
        )
    proposal = keep_writable(replace(proposal, prefix=prefix))
    known = find_known(list(named.arrays))
    if known:
        proposal = replace(proposal, doubts=(known, *proposal.doubts))
    problems = try_out(proposal, shapes, keywords or {})
    if not problems and not proposal.unplaced:
        proposal = replace(proposal, facts=(*proposal.facts, FITS))
    return Suggestion(proposal, all_shapes, as_toml(proposal, Path(path).name), tuple(problems))


def find_known(names: Sequence[str]) -> str:
    """Says which rule of a family knows all its signs in a checkpoint, so that no rules of one's own are needed."""
    for rule in rules.all_rules():
        if any(not recognized.missing for recognized in find_signs(rule, names)):
            return f"known: the rule of {rule.family} ({rule.source}) knows these names; try it without --suggest first"
    return ""


def choose(
    layers: list[Layer], shapes: Mapping[str, Shape], model: str | None, keywords: Mapping[str, Any]
) -> Proposal | None:
    """Proposes what fits: a transformer, a sequence, or the network that the user names."""
    family = models.resolve(model).family if model is not None else None
    proposal = None
    if family in (None, "vit"):
        place = {name: number for number, name in enumerate(shapes)}
        proposal = transformer.propose(layers, place)
    if proposal is None and family in (None, "cnn", "mlp"):
        proposal = sequence.propose(layers)
    if proposal is None and model is not None:
        network = functional(models.build(model, find_classes(layers), **keywords))
        proposal = alignment.propose(layers, shapes_by_text(network), model, keywords)
    return proposal


def find_classes(layers: list[Layer]) -> int:
    """Returns how many numbers come out of the last layer that has a bias."""
    for layer in reversed(layers):
        if layer.is_dense and "bias" in layer.shapes:
            return layer.shapes["bias"][0]
    return 2


def keep_writable(proposal: Proposal) -> Proposal:
    """Takes out lines whose names cannot be written as a pattern, because they have braces of their own."""
    lines, unplaced = [], list(proposal.unplaced)
    for line in proposal.lines:
        bare = re.sub(r"\{i(\+\d+)?\}", "", line.theirs)
        if "{" in bare or "}" in bare:
            unplaced.append(line.theirs)
        else:
            lines.append(line)
    return replace(proposal, lines=tuple(lines), unplaced=tuple(unplaced))


# Trying ---------------------------------------------------------------------------------------------------------------


def try_out(proposal: Proposal, shapes: Mapping[str, Shape], said: Mapping[str, Any]) -> list[str]:
    """Lists what does not fit where the lines are put beside the network; shapes alone are compared."""
    if proposal.model is None:
        return []
    keywords = placeholder_keywords(proposal) | dict(said)
    lines = []
    for number, line in enumerate(proposal.lines, 1):
        their_axes, _, our_axes = line.axes.partition(" -> ")
        paths = rules_file.spread(line.ours)
        lines.append(rules_file.RulesLine(number, line.theirs, paths, their_axes, our_axes, line.sizes))
    file = rules_file.RulesFile(Path("the table"), rules_file.OURS, proposal.prefix, (), tuple(lines))
    inner = {name.removeprefix(proposal.prefix): shape for name, shape in shapes.items()}
    try:
        rule = rule_of_file.make_rule(
            file, shapes, model=proposal.model, keywords=keywords, image_size=proposal.image_size
        )
        guess = rule.guess(inner, keywords)
        changes = keywords | {"channels": guess.channels}
        if guess.image_size is not None:
            changes["image_size"] = guess.image_size
        ours = shapes_by_text(functional(models.build(proposal.model, guess.num_classes, **changes)))
        pairs, unnamed = pair_names(rule.table, list(ours))
        problems = [f"nothing is like {path} of this network" for path in unnamed]
        for pair in pairs:
            expected = pair.their_shape(ours[pair.ours[0]])
            if inner.get(pair.theirs) != expected:
                problems.append(f"{pair.theirs} has the shape {inner.get(pair.theirs)}, expected {expected}")
    except (UserError, LookupError, ValueError) as error:
        return [str(error)]
    return problems


def placeholder_keywords(proposal: Proposal) -> dict[str, Any]:
    """Returns keywords with which the network has the shapes of the checkpoint, whatever the heads are."""
    keywords = dict(proposal.keywords)
    if "heads" in proposal.choices:
        keywords["heads"] = 1
        keywords["head_width"] = max(proposal.choices["heads"])
    if "pooling" in proposal.choices and proposal.image_size is None:
        keywords["pooling"] = "none"  # so that any number of stages leaves something of an image
    return keywords
