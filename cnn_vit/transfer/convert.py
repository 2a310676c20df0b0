"""Somebody's weights become ours: a file is recognized by its names and shapes, and a rule's table moves its arrays.

convert(path, ...)          a foreign file -> `Weights`
convert_file(path, ...)     the same, with what was recognized and why, for people
open_weights(source, ...)   weights of a name, one of our own files, or a foreign one

Every array of the file and every array of the network has its partner of the expected shape, or the file is refused;
all that does not fit is listed in one error. Nothing is guessed silently: what no shape tells is asked for.
"""

import typing
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from cnn_vit import models
from cnn_vit.errors import UserError, printable_name
from cnn_vit.nn.values import Network
from cnn_vit.transfer import catalog, class_names, hub_config, readers, weights
from cnn_vit.transfer.catalog import NamedWeights
from cnn_vit.transfer.hub_config import BesideFile
from cnn_vit.transfer.matching import Group, Matched, fill_tree, group_pairs, shapes_by_text, skipped_notes
from cnn_vit.transfer.readers import NamedArrays
from cnn_vit.transfer.recognition import Recognized, guess_network, recognize, refuse_unlike
from cnn_vit.transfer.rule_of_file import make_rule
from cnn_vit.transfer.rules import ConversionRule, Guess, PublishedFile
from cnn_vit.transfer.rules_file import RulesFile
from cnn_vit.transfer.source_facts import (
    BGR,
    SourceFacts,
    choose_classes,
    make_origin,
    make_preprocessing,
    reverse_first_colors,
)
from cnn_vit.transfer.table import pair_names
from cnn_vit.transfer.weights import Card, Weights, listed_error


@dataclass(frozen=True)
class Conversion:
    """Weights, and how they were made of a file.

    Attributes:
        weights: the values and their card.
        source: the program whose names they had.
        reasons: by what the file was recognized.
        notes: what was assumed, changed or left out.
        groups: the parts of the network.
    """

    weights: Weights
    source: str
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    groups: tuple[Group, ...]


def open_weights(
    source: str | Path,
    *,
    model: str | None = None,
    keywords: Mapping[str, Any] | None = None,
    for_training: bool = False,
) -> Weights:
    """Opens one of our own files, or converts a foreign one; weights of a name are downloaded first.

    Args:
        source: path of the file, or a name of the catalogue, which says the network too.
        model: name of the network, where a foreign file does not tell it.
        keywords: keywords of the network, where a foreign file does not tell them.
        for_training: whether another network is to start from these values, whose keywords may be others: it may drop
            more at random, for example.

    Raises:
        SurroundingsError: the file cannot be read or downloaded.
        UserError: it is damaged or unknown, does not fit the network, or is ours and of another network.
    """
    entry = find_entry(source)
    if entry is not None:
        refuse_other_model(entry, model, for_training=for_training)
        model = None if entry.is_shipped else entry.model
    path = find_file(source, entry)
    named = readers.read(path)
    if not weights.is_own(named):
        whole = dict(keywords or {})
        if for_training:
            whole.pop("cut", None)  # the file holds the whole network, of which the other one takes a part
        conversion = convert_arrays(
            path, named, model=model, keywords=whole, entry=entry, file=path, for_training=for_training
        )
        return conversion.weights
    opened = weights.from_named_arrays(source, named)
    if model not in (None, opened.card.model):
        raise UserError(f"{source} holds {opened.card.model}, not {model}; leave out the model, its card says it")
    for key, value in ({} if for_training else keywords or {}).items():
        if opened.card.keywords.get(key) != value:
            said = opened.card.keywords.get(key, "the model's own")
            raise UserError(f"{source} was made with model.{key} = {said}, not {value}; leave it out, its card says it")
    return opened


def find_entry(source: str | Path) -> NamedWeights | None:
    """Finds the weights that a text names; None for a path. UserError where there are none of that name."""
    return catalog.find_entry(str(source)) if catalog.is_name(str(source)) else None


def find_file(source: str | Path, entry: NamedWeights | None) -> Path:
    """Returns the path of a source of weights, whose file is downloaded where it has a name.

    Raises:
        SurroundingsError: it cannot be downloaded.
        UserError: the source is the name of a network or a family, of which there are weights by other names.
    """
    if entry is not None:
        return catalog.find_file(entry.name)
    names = [] if Path(source).exists() else catalog.suggest_names(str(source))
    if names:
        more = f"; `cnn-vit list weights {source}` names all {len(names)}" if len(names) > 3 else ""
        raise UserError(f"{source} is not a file; did you mean the weights {' or '.join(names[:3])}{more}?")
    return Path(source)


def refuse_other_model(
    entry: NamedWeights, model: str | None, *, for_training: bool, path: str | Path | None = None
) -> None:
    """Raises UserError, before anything is downloaded, where weights of a name are asked for another network.

    `path` is the file, where its content told which weights it holds.
    """
    if model in (None, entry.model):
        return
    if path is not None:
        remedy = f"set model.name={entry.model}" if for_training else "leave out --model, its content says it"
        raise UserError(f"{path} is the file of {entry.name}, which holds {entry.model}, not {model}; {remedy}")
    remedy = f"set model.name={entry.model}" if for_training else "leave out the model, the name says it"
    raise UserError(f"{entry.name} holds {entry.model}, not {model}; {remedy}, or name other weights")


def refuse_other_keywords(entry: NamedWeights, rule: ConversionRule, keywords: Mapping[str, Any]) -> None:
    """Raises UserError for keywords that weights of a name do not have: heads, padding, epsilon and the like."""
    own = models.variant(entry.model).keywords | rule.keywords | entry.keywords
    for key, value in keywords.items():
        if key in own and own[key] != value:
            raise UserError(f"{entry.name} has model.{key}={own[key]}, not {value}; leave out --model.{key}")


def convert(
    path: str | Path,
    *,
    model: str | None = None,
    keywords: Mapping[str, Any] | None = None,
    facts: SourceFacts | None = None,
) -> Weights:
    """Makes weights of ours of a foreign file; the arguments are those of `convert_file`."""
    return convert_file(path, model=model, keywords=keywords, facts=facts).weights


def convert_file(
    path: str | Path,
    *,
    model: str | None = None,
    keywords: Mapping[str, Any] | None = None,
    facts: SourceFacts | None = None,
    rules_file: RulesFile | None = None,
) -> Conversion:
    """Makes weights of ours of a foreign file, and says how.

    Args:
        path: the file, or a name of the catalogue.
        model: name of the network; None: as the shapes tell.
        keywords: keywords of the network that replace what the shapes tell.
        facts: what the user says of the file.
        rules_file: the user's own rules, which are taken instead of those of the families; `model` is needed then.

    Raises:
        SurroundingsError: the file cannot be read or downloaded.
        UserError: it is damaged or ours already, no rule knows its names, or they do not fit the network.
    """
    entry = find_entry(path)
    if entry is not None:
        refuse_other_model(entry, model, for_training=False)
        model = entry.model
    file = find_file(path, entry)
    named = readers.read(file)
    if weights.is_own(named):
        raise UserError(f"{path} is a file of cnn_vit already; `cnn-vit evaluate --weights={path}` takes it as it is")
    recognized = None
    if rules_file is not None:
        recognized = apply_rules_file(rules_file, named, model, keywords or {}, facts or SourceFacts())
    return convert_arrays(
        file,
        named,
        model=model,
        keywords=keywords,
        facts=facts,
        entry=entry,
        file=file,
        recognized=recognized,
    )


def convert_arrays(
    path: str | Path,
    named: NamedArrays,
    *,
    model: str | None = None,
    keywords: Mapping[str, Any] | None = None,
    facts: SourceFacts | None = None,
    entry: NamedWeights | None = None,
    file: Path | None = None,
    for_training: bool = False,
    recognized: Recognized | None = None,
) -> Conversion:
    """Makes weights of ours of the arrays of a file that was read; the other arguments are those of `convert_file`.

    `entry` are the weights that the file was named by; None for a file that was given by its path, which may be in the
    catalogue all the same, and is known again by its content. Files of JSON are read that lie beside `file`
    (`hub_config`). `for_training` says that model and keywords are the settings of a run; else they are flags of a
    command. `recognized` is the rule that is taken; None looks for one.
    """
    facts = facts or SourceFacts()
    plan = plan_conversion(
        path,
        named,
        model=model,
        keywords=keywords,
        facts=facts,
        entry=entry,
        file=file,
        for_training=for_training,
        recognized=recognized,
    )
    rule, guess, network = plan.recognized.rule, plan.guess, plan.network
    matched = match_network(plan.recognized, named, network)
    problems = matched.find_problems()
    if problems:
        refuse_other_network(path, plan.recognized, named, guess, plan.card, plan.said, for_training=for_training)
        sentence = f"{path} does not fit {describe_network(plan.card)}, with the names of {rule.source}"
        raise listed_error(sentence, problems)
    arrays = matched.move_arrays()
    if facts.channel_order == BGR:
        reverse_first_colors(arrays, rule.first_kernel, guess.channels)
    return Conversion(
        weights=Weights(fill_tree(network.params, arrays), fill_tree(network.stats, arrays), plan.card),
        source=rule.source,
        reasons=(*list_reasons(plan.recognized, guess, plan.published), *plan.beside.reasons),
        notes=(*plan.notes, *matched.notes(), *skipped_notes(named)),
        groups=group_pairs(matched.pairs, plan.recognized.prefix, arrays),
    )


@dataclass(frozen=True)
class ConversionPlan:
    """What names and shapes of a file tell of the network that it becomes, before a value is looked at.

    Attributes:
        recognized: the rule that knows the file.
        guess: what the shapes say.
        published: what is published of the file.
        beside: what files of JSON beside it say.
        said: keywords of the network that are published or asked for.
        card: of the weights.
        notes: what was assumed.
    """

    recognized: Recognized
    guess: Guess
    published: PublishedFile
    beside: BesideFile
    said: dict[str, Any]
    card: Card
    notes: tuple[str, ...]

    @cached_property
    def network(self) -> Network:
        """The network of the card."""
        return weights.network_of(self.card)


def plan_conversion(
    path: str | Path,
    named: NamedArrays,
    *,
    model: str | None,
    keywords: Mapping[str, Any] | None,
    facts: SourceFacts,
    entry: NamedWeights | None,
    file: Path | None = None,
    for_training: bool,
    recognized: Recognized | None = None,
) -> ConversionPlan:
    """Reads from names and shapes what a file becomes; the arguments are those of `convert_arrays`."""
    if entry is None:
        entry = catalog.find_by_content(named.sha256)
        if entry is not None:
            refuse_other_model(entry, model, for_training=for_training, path=path)
            model = entry.model
    if recognized is None:
        recognized = recognize(path, list(named.arrays), model)
    refuse_unlike(path, recognized, list(named.arrays))
    rule = recognized.rule
    if entry is not None and not for_training:
        refuse_other_keywords(entry, rule, keywords or {})
    published = find_published(rule, named.sha256, entry)
    said = published.keywords | dict(keywords or {})
    refuse_other_types(model or f"{rule.family}/{models.variants_of(rule.family)[0]}", said)
    beside = BesideFile() if file is None else hub_config.read_beside(file, rule)
    size = {"image_size": facts.image_size or beside.image_size}
    guess = guess_network(path, recognized, named, beside.keywords | said | size)
    recognized = complete_rule(recognized, beside.keywords, model or guess.model)
    rule = recognized.rule
    facts, notes = complete_facts(facts, beside, guess)
    model, keywords = choose_network(path, rule, guess, model, said, for_training=for_training)
    preprocessing, preprocessing_notes = make_preprocessing(rule, published, beside, facts, guess, model)
    classes, class_notes = choose_classes(rule, published, facts, guess.num_classes)
    origin = make_origin(path, named, rule, published, facts)
    card = Card(model, keywords, guess.num_classes, classes, preprocessing, origin)
    recognized = recognized.with_letters(model, keywords)
    notes = (*beside.notes, *notes, *preprocessing_notes, *class_notes)
    return ConversionPlan(recognized, guess, published, beside, said, card, notes)


def refuse_other_types(model: str, keywords: Mapping[str, Any]) -> None:
    """Raises UserError for a keyword of another type than a network takes, before anything is computed with it.

    Words are left to `refuse_unseen`, which says which of them the file may be of.
    """
    known = models.keywords(model)
    numbers = {}
    for key, value in keywords.items():
        if key in known and typing.get_origin(known[key].annotation) is not typing.Literal:
            numbers[key] = value
    models.check_keywords(model, numbers)


def complete_rule(recognized: Recognized, config_keywords: Mapping[str, Any], model: str) -> Recognized:
    """Puts what the file of JSON says in the place of what all networks of the program have.

    Args:
        recognized: the rule that knows the file.
        config_keywords: keywords that the file of JSON says.
        model: name of the network; what it says already is left out.
    """
    defaults = models.read_keywords(model) if config_keywords else {}
    keywords = dict(recognized.rule.keywords)
    for key, value in config_keywords.items():
        if key in keywords or defaults[key].default != value:
            keywords[key] = value
    return replace(recognized, rule=replace(recognized.rule, keywords=keywords))


def complete_facts(facts: SourceFacts, beside: BesideFile, guess: Guess) -> tuple[SourceFacts, tuple[str, ...]]:
    """Adds size and classes that the files of JSON beside the weights say, where the user does not, and notes.

    A network for one size has the one that it was built for; for others, the size counts that images were brought to.
    """
    notes: list[str] = []
    has_other_size = guess.image_size is None and "image_size" in beside.preprocessing
    if facts.image_size is None and not has_other_size:
        facts = replace(facts, image_size=beside.image_size)
    if facts.classes is None:
        classes, notes = beside.choose_classes(guess.num_classes)
        facts = replace(facts, classes=classes)
    return facts, tuple(notes)


def find_published(rule: ConversionRule, sha256: str, entry: NamedWeights | None) -> PublishedFile:
    """Finds what is published of a file.

    Args:
        rule: that knows the file.
        sha256: of the file.
        entry: the weights of the catalogue that it holds; None where it is in none.
    """
    if entry is None:
        return rule.find_published(sha256) or PublishedFile(sha256, {})
    facts: dict[str, Any] = {"name": entry.name, "published_as": entry.file, "address": entry.address}
    facts |= {"source": entry.source, "trained_on": list(entry.trained_on)}
    if entry.license is not None:
        facts["licence"] = entry.license
    if entry.accuracy is not None:
        facts["accuracy"] = entry.accuracy_text
    of_known_classes = [name for name in entry.trained_on if name in class_names.KNOWN]
    return PublishedFile(
        sha256=sha256,
        facts=facts,
        preprocessing=entry.preprocessing,
        keywords=entry.keywords,
        classes=of_known_classes[-1] if of_known_classes else None,
    )


def apply_rules_file(
    rules_file: RulesFile, named: NamedArrays, model: str | None, keywords: Mapping[str, Any], facts: SourceFacts
) -> Recognized:
    """Makes the rule of a file of the user's own rules, which needs no signs: the user says that it fits."""
    if model is None:
        raise UserError(f"{rules_file.path} names the arrays of a network, and not which; add --model=FAMILY/VARIANT")
    shapes = {name: array.shape for name, array in named.arrays.items()}
    rule = make_rule(rules_file, shapes, model=model, keywords=keywords, image_size=facts.image_size)
    return Recognized(rule, rules_file.prefix)


def match_network(recognized: Recognized, named: NamedArrays, network: Network) -> Matched:
    """Puts the arrays of a file beside those of a network."""
    shapes = shapes_by_text(network)
    pairs, unnamed = pair_names(recognized.rule.table, list(shapes), recognized.letters)
    return Matched(recognized.rule, recognized.prefix, named.arrays, shapes, pairs, tuple(unnamed))


def refuse_other_network(
    path: str | Path,
    recognized: Recognized,
    named: NamedArrays,
    guess: Guess,
    card: Card,
    said: Mapping[str, Any],
    *,
    for_training: bool,
) -> None:
    """Raises UserError where a file does not fit the network that is asked for, and just fits the one its shapes tell.

    Args:
        path: the file.
        recognized: the rule that knows it.
        named: its arrays.
        guess: the network that its shapes tell.
        card: of the network that is asked for.
        said: keywords that are asked for.
        for_training: whether they are settings of a run.
    """

    def fits(keywords: dict[str, Any]) -> bool:
        try:
            network = weights.network_of(replace(card, model=guess.model, keywords=keywords))
        except UserError:
            return False
        return not match_network(recognized.with_letters(guess.model, keywords), named, network).find_problems()

    keywords = recognized.rule.keywords | guess.keywords
    keywords |= {key: said[key] for key in guess.unseen if key in said}
    if not fits(keywords):
        return
    wrong = []  # keywords that are asked for, and contradict the file
    for key, value in said.items():
        if key in guess.keywords or keywords.get(key) == value:
            continue
        if key not in recognized.rule.keywords and fits(keywords | {key: value}):
            keywords[key] = value
        else:
            wrong.append(key)

    flag = "model" if for_training else "--model"
    missing = [f"{flag}.{key}={value}" for key, value in guess.keywords.items() if card.keywords.get(key) != value]
    if card.model != guess.model:
        missing.insert(0, f"model.name={guess.model}" if for_training else f"--model={guess.model}")
    remedies = []
    if missing:
        remedies.append(f"{'set' if for_training else 'give'} {', '.join(missing)}")
    if wrong:
        remedies.append(f"leave out {', '.join(f'{flag}.{key}' for key in wrong)}")
    raise UserError(
        f"{path} holds {describe_model(guess.model, guess.keywords)}, as its shapes tell, and not "
        f"{describe_model(card.model, card.keywords)}; {', and '.join(remedies)}"
    )


def list_reasons(recognized: Recognized, guess: Guess, published: PublishedFile) -> tuple[str, ...]:
    """Says by what a file was recognized: its content where that is known, its names, its shapes."""
    reasons = [f"names such as {printable_name(recognized.prefix + recognized.rule.signs[0])}", *guess.reasons]
    if published.facts:
        file = f"{published.facts['published_as']} of {published.facts['source']}"
        entry = catalog.read_catalog().get(published.facts.get("name", ""))
        if entry is None or entry.trust == catalog.FULL:
            reasons.insert(0, f"its sha256 is that of {file}")
        elif entry.trust == catalog.PREFIX:
            reasons.insert(0, f"its sha256 begins with {entry.sha256}, as that of {file} does")
        else:
            reasons.insert(0, f"it was given by the name of {file}, whose sha256 nobody publishes")
    return tuple(reasons)


def choose_network(
    path: str | Path,
    rule: ConversionRule,
    guess: Guess,
    model: str | None,
    said: dict[str, Any],
    *,
    for_training: bool,
) -> tuple[str, dict[str, Any]]:
    """Returns the network's name and its keywords: the name that is given, else as the shapes tell.

    Raises:
        UserError: there is no such network, or a keyword is needed that neither shapes nor the user tell, or two
            keywords contradict each other.
    """
    if model is None:
        model = guess.model
        keywords = rule.keywords | guess.keywords | said
        refuse_unseen(path, rule, guess, keywords, for_training=for_training)
    else:
        keywords = rule.keywords | said
        refuse_unseen(path, rule, guess, models.variant(model).keywords | keywords, for_training=for_training)
    return model, keywords | follow_ties(rule, guess, model, keywords, said, for_training=for_training)


def follow_ties(
    rule: ConversionRule,
    guess: Guess,
    model: str,
    keywords: Mapping[str, Any],
    said: Mapping[str, Any],
    *,
    for_training: bool,
) -> dict[str, Any]:
    """Returns keywords that follow from others, where the network would not have them by itself.

    Raises:
        UserError: another value of such a keyword is asked for.
    """
    known = {key: keyword.default for key, keyword in models.read_keywords(model).items()} | dict(keywords)
    flag = "model" if for_training else "--model"
    followed = {}
    for key, by_value in guess.tied.items():
        for tied, value in by_value[known[key]].items():
            if said.get(tied, value) != value:
                raise UserError(
                    f"{flag}.{tied}={said[tied]} contradicts {key}={known[key]}: such networks of {rule.source} have "
                    f"{value:g}; leave out {flag}.{tied}, or ask for another {key}"
                )
            if known[tied] != value:
                followed[tied] = value
    return followed


def refuse_unseen(
    path: str | Path, rule: ConversionRule, guess: Guess, keywords: Mapping[str, Any], *, for_training: bool
) -> None:
    """Raises UserError where keywords are needed that no shape tells, and neither the user nor the model's name says.

    A name such as vit/S16 says the number of heads, and not the activation.
    """
    choices = []
    for key, values in guess.unseen.items():
        if keywords.get(key) not in values:
            flag = "model" if for_training else "--model"
            choices.append(f"{flag}.{key}= one of {', '.join(map(str, values))}")
    if choices:
        raise UserError(
            f"{path} does not tell all of its network ({rule.source}), for no shape depends on it; look it up where "
            f"the file comes from and {'set' if for_training else 'add'} {' and '.join(choices)}"
        )


def describe_model(model: str, keywords: Mapping[str, Any]) -> str:
    """Names a model with its keywords: "vit/Ti4 width=64 depth=6"."""
    return " ".join([model, *(f"{key}={value}" for key, value in keywords.items())])


def describe_network(card: Card) -> str:
    """Names the network of a card with its keywords, classes and images."""
    height, width = card.preprocessing["image_size"]
    return f"{describe_model(card.model, card.keywords)} of {card.num_classes:,} classes and {height}x{width} pixels"
