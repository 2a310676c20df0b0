"""Recognizes a foreign file: whose names it has, and what its shapes say of the network."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cnn_vit import models
from cnn_vit.errors import UserError, printable_name
from cnn_vit.transfer import rules
from cnn_vit.transfer.matching import did_you_mean
from cnn_vit.transfer.readers import NamedArrays
from cnn_vit.transfer.rules import ConversionRule, Guess
from cnn_vit.transfer.weights import listed_error

# What programs put around a network when they save it, in front of the prefixes that a rule names.
WRAPPERS = ("state_dict.", "model_state_dict.", "model.", "net.")


@dataclass(frozen=True)
class Recognized:
    """The rule that knows a file.

    Attributes:
        rule: the rule.
        prefix: what all names of the file begin with.
        missing: the rule's signs that the file does not have.
        letters: sizes of letters of the rule's layouts that shapes of ours do not tell, by letter.
    """

    rule: ConversionRule
    prefix: str
    missing: tuple[str, ...] = ()
    letters: dict[str, int] = field(default_factory=dict)

    def with_letters(self, model: str, keywords: Mapping[str, Any]) -> "Recognized":
        """Returns the same with the sizes of letters of a network of this name and these keywords.

        Raises:
            UserError: there is no such network.
        """
        return replace(self, letters=self.rule.find_letters(model, keywords))


def recognize(path: str | Path, names: Sequence[str], model: str | None) -> Recognized:
    """Finds the rule whose signs a file has.

    Args:
        path: the file, for errors.
        names: of its arrays.
        model: name of the network, whose family alone is looked at; None: all families.

    Raises:
        UserError: no rule knows the names, or several do.
    """
    candidates = rules.all_rules()
    if model is not None:
        family = models.resolve(model).family
        candidates = tuple(rule for rule in candidates if rule.family == family)
        if not candidates:
            known = ", ".join(rules.families())
            raise UserError(f"{model}: no rule converts weights of {family}; there are rules for {known}")
    fitting: list[Recognized] = []
    for rule in candidates:
        fitting += find_signs(rule, names)
    if not fitting:
        raise unknown_names_error(path, names, model)
    fewest = min(len(recognized.missing) for recognized in fitting)
    best = leave_out_vaguer([recognized for recognized in fitting if len(recognized.missing) == fewest])
    sources = {f"{recognized.rule.family} ({recognized.rule.source})" for recognized in best}
    if len(sources) > 1:
        choices = " or ".join(sorted(sources))
        raise UserError(f"the names in {path} are those of {choices}; say which with --model=FAMILY/VARIANT")
    if len(best) > 1:
        prefixes = ", ".join(printable_name(recognized.prefix) or "no prefix" for recognized in best)
        raise UserError(
            f"{path} holds several networks, under {prefixes}; save the one that you mean to a file of its own"
        )
    refuse_prefix(path, best[0])
    return best[0]


def find_signs(rule: ConversionRule, names: Sequence[str]) -> list[Recognized]:
    """Looks for a rule's signs behind each prefix that occurs; more than half of them are enough to be recognized."""
    prefixes: dict[str, None] = {}  # in the order of the file
    for name in names:
        for sign in rule.signs:
            if name.endswith(sign):
                prefixes[name[: len(name) - len(sign)]] = None
    existing = set(names)
    fitting = []
    for prefix in prefixes:
        if prefix and not prefix.endswith((".", "/")):
            continue  # "fc1.weight" ends with "1.weight" and is something else
        missing = tuple(sign for sign in rule.signs if prefix + sign not in existing)
        if 2 * len(missing) < len(rule.signs):
            fitting.append(Recognized(rule, prefix, missing))
    return fitting


def leave_out_vaguer(fitting: list[Recognized]) -> list[Recognized]:
    """Leaves out rules whose signs another one has too, with more that fit: a VGG with batch norm is one without."""
    kept = []
    for recognized in fitting:
        signs = set(recognized.rule.signs)
        if not any(other.prefix == recognized.prefix and set(other.rule.signs) > signs for other in fitting):
            kept.append(recognized)
    return kept


def refuse_prefix(path: str | Path, recognized: Recognized) -> None:
    """Raises UserError for names that begin with something that the rule's program does not put there."""
    rest = recognized.prefix
    for wrapper in WRAPPERS:
        rest = rest.removeprefix(wrapper)
    if rest not in recognized.rule.prefixes:
        expected = " or ".join(repr(prefix) if prefix else "without a prefix" for prefix in recognized.rule.prefixes)
        raise UserError(
            f"the names in {path} begin with '{printable_name(recognized.prefix)}', and those of "
            f"{recognized.rule.source} begin {expected.replace(' or ', ', or with ')}; it may be a part of a larger "
            "network: save that part without the prefix if it is the whole network that you mean"
        )


def refuse_unlike(path: str | Path, recognized: Recognized, names: Sequence[str]) -> None:
    """Raises UserError for a file with something that the rule knows, and no network of ours has."""
    for pattern, meaning in recognized.rule.refused.items():
        for name in names:
            if re.fullmatch(pattern, name.removeprefix(recognized.prefix)):
                raise UserError(
                    f"{path} cannot become a network of {recognized.rule.family}: {printable_name(name)} is of "
                    f"{meaning}, which none of ours has"
                )


def unknown_names_error(path: str | Path, names: Sequence[str], model: str | None) -> UserError:
    """Makes the error for a file whose names no rule knows, or none of the family that is named."""
    if not names:
        return UserError(f"{path} holds no arrays; give a file of weights")
    if model is not None:
        for rule in rules.all_rules():
            if find_signs(rule, names):
                return UserError(f"the names in {path} are those of {rule.family} ({rule.source}), not of {model}")
    examples = ", ".join(printable_name(name) for name in names[:3])
    sources = ", ".join(f"{rule.family} ({rule.source})" for rule in rules.all_rules())
    return UserError(
        f"no rule knows the {len(names):,} names in {path}, such as {examples}; there are rules for {sources}"
    )


def guess_network(path: str | Path, recognized: Recognized, named: NamedArrays, keywords: dict[str, Any]) -> Guess:
    """Asks the rule what the shapes say of the network.

    Raises:
        UserError: an array that tells it is missing, or has another number of axes.
    """
    rule, prefix = recognized.rule, recognized.prefix
    shapes = {}
    for name, array in named.arrays.items():
        if name.startswith(prefix):
            shapes[name.removeprefix(prefix)] = array.shape
    try:
        return rule.guess(shapes, keywords)
    except (LookupError, ValueError, ZeroDivisionError) as error:
        problems = []
        for sign in recognized.missing:
            problems.append(f"{printable_name(prefix + sign)} is missing{did_you_mean(sign, list(shapes), prefix)}")
        for sign in rule.signs:
            if sign in shapes:
                problems.append(f"{printable_name(prefix + sign)} has the shape {shapes[sign]}")
        sentence = f"{path} has names of {rule.source}, but not the arrays and shapes that tell its network"
        raise listed_error(sentence, problems) from error
