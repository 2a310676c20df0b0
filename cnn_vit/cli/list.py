"""List by name what there is: models, weights, data, augmentations, losses, optimizers, schedules, recipes, sweeps.

    cnn-vit list               lists all
    cnn-vit list optimizers    lists one kind: each optimizer with its keywords, their defaults,
                               what they take and what they mean
    cnn-vit list recipes       lists the recipes and their words; each takes the word smoke too
    cnn-vit list sweeps        lists the sweeps, which `cnn-vit sweep FILE` does
    cnn-vit list weights resnet    lists the weights whose names begin with a word, resnet or vit/B16,
                               or else those whose names or sources hold it: mnist, timm

The names are read from the text of the files that define them; no file is imported or run for it.

Weights have a name, NETWORK@SOURCE, which every command takes as --weights=NAME, and training as
--config.pretrained.weights=NAME. Those that do not come with the package are downloaded when they are first used, and
kept in the cache. The list shows the size of their file; their published top-1 accuracy with the size of the images
that it was measured on; their licence; and by what the downloaded file is known to be the right one:

    full         the sha256 of the file is published
    prefix       the first 8 of its 64 digits are, in the name of the file
    first use    nothing is: what the host states, and the bytes that come, are recorded when the file is first used,
                 and whatever differs from that later is refused
"""

import argparse
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cnn_vit import cli, data, models, settings
from cnn_vit.cli._settings import command_line_value
from cnn_vit.errors import fold, unknown
from cnn_vit.settings import Key, Rule


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the words of the command."""
    parser.add_argument("kind", nargs="*", help=f"what to list: {', '.join(LISTS)} (default: all)")


def run(args: argparse.Namespace) -> None:
    """Prints a line for each name, one table for each kind.

    Raises:
        UserError: there is no list of that kind, or no weights of that name.
    """
    kinds, words = [], []
    for kind in args.kind:
        if kind in LISTS:
            kinds.append(kind)
        elif "weights" in kinds:
            words.append(kind)
        else:
            raise unknown("list of", kind, LISTS)
    entries_by_kind = {kind: LISTS[kind]() for kind in kinds or LISTS}
    if words:
        entries_by_kind["weights"] = choose_weights(entries_by_kind["weights"], words)
    width = cli.terminal_width()
    tables = []
    for kind, entries in entries_by_kind.items():
        rows: list[tuple[str, ...]] = [entry_row(entry) for entry in entries]
        if args.kind and any("keywords" in entry for entry in entries):
            rows = rows_with_keywords(entries)
        if kind == "weights":
            rows = weights_rows(entries)
        tables.append(f"{kind}\n{cli.format_table(rows, indent='  ', width=width)}")
    next_command = "cnn-vit train --config=configs/digits_resnet.py --help"
    if kinds == ["weights"]:
        next_command = f"cnn-vit predict --weights={entries_by_kind['weights'][0]['name']} IMAGE ..."
    if kinds == ["sweeps"] and entries_by_kind["sweeps"]:
        next_command = f"cnn-vit sweep {entries_by_kind['sweeps'][0]['name']} --out=runs/sweep"
    cli.print_answer(args, entries_by_kind, "\n\n".join(tables), next_command=next_command)


def entry_row(entry: dict[str, Any]) -> tuple[str, str, str]:
    """Returns the row of an entry: its name, its variants or words where it has any, and its meaning."""
    return entry["name"], " ".join(entry.get("variants") or entry.get("words") or ()), entry["meaning"]


def rows_with_keywords(entries: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Returns a row for each entry, and below it a row for each of its keywords: name, default, meaning and range."""
    rows: list[tuple[str, ...]] = []
    for entry in entries:
        rows.append((entry["name"], "", entry["meaning"]))
        for keyword in entry["keywords"]:
            meaning = "; ".join(filter(None, (keyword["meaning"], keyword["takes"])))
            rows.append((f"  {keyword['name']}", keyword["default"], meaning))
    return rows


def list_models() -> list[dict[str, Any]]:
    """Returns each family of models with its variants and the first line of its file."""
    folder = Path(models.__file__).parent
    entries = []
    for family, variants in models.names().items():
        meaning = cli.read_summary(folder / f"{family}.py")
        entries.append({"name": family, "variants": list(variants), "meaning": meaning})
    return entries


def list_weights() -> list[dict[str, Any]]:
    """Returns the weights that have a name, which every command takes as --weights=NAME, with what is known of them."""
    from cnn_vit.transfer import catalog

    entries = []
    for name, weights in catalog.read_catalog().items():
        place = "missing"
        if weights.is_here:
            place = "package" if weights.is_shipped else "cache"
        entries.append(
            {
                "name": name,
                "model": weights.model,
                "bytes": weights.size,
                "size": weights.size_text,
                "license": weights.license,
                "forbids_commercial_use": weights.forbids_commercial_use,
                "accuracy": weights.accuracy,
                "accuracy_size": weights.accuracy_size,
                "trust": weights.trust,
                "place": place,
                "trained_on": list(weights.trained_on),
                "source": weights.source,
                "address": weights.address or None,
                "meaning": weights.meaning or f"{', '.join(weights.trained_on)}; {weights.source}",
            }
        )
    return entries


def choose_weights(entries: Sequence[dict[str, Any]], words: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the weights whose names begin with one of some words; where none does, whose names or sources hold it.

    Raises:
        UserError: a word is in no name and no source.
    """
    chosen: set[str] = set()
    for word in words:
        names = {entry["name"] for entry in entries}
        fitting = {name for name in names if fold(name).startswith(fold(word))}
        if not fitting:
            fitting = {entry["name"] for entry in entries if fold(word) in fold(f"{entry['name']} {entry['source']}")}
        if not fitting:
            families = {entry["name"].partition("/")[0] for entry in entries}
            raise unknown("weights of", word, families)
        chosen |= fitting
    return [entry for entry in entries if entry["name"] in chosen]


def weights_rows(entries: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Returns a row for each weights: name, size, published accuracy, and the rest in one sentence."""
    rows: list[tuple[str, ...]] = [("NAME", "SIZE", "TOP-1", "LICENCE; TRUST; WHERE THE FILE IS; WHAT IT IS")]
    for entry in entries:
        accuracy = "unknown"
        if entry["accuracy"] is not None:
            accuracy = f"{entry['accuracy']:.2f} % at {entry['accuracy_size']}"
        licence = entry["license"] or "no licence stated"
        if entry["forbids_commercial_use"]:
            licence += ", not for commercial use"
        place = {"missing": "not downloaded", "package": "in the package", "cache": "in the cache"}[entry["place"]]
        rows.append(
            (entry["name"], entry["size"], accuracy, f"{licence}; {entry['trust']}; {place}; {entry['meaning']}")
        )
    return rows


def list_sources() -> list[dict[str, Any]]:
    """Returns each data source with the first line of its file."""
    return [{"name": name, "meaning": meaning} for name, meaning in data.names().items()]


def list_recipes() -> list[dict[str, Any]]:
    """Returns each recipe with its command, its words without `smoke`, which all have, and its first line."""
    entries = []
    for name, path in settings.recipe_names().items():
        meaning, words = settings.describe_recipe(path)
        named = [word for word in words if word != "smoke"]
        entries.append({"name": name, "command": settings.read_command(path), "words": named, "meaning": meaning})
    return entries


def list_sweeps() -> list[dict[str, Any]]:
    """Returns each sweep with the first line of its file, which is a comment."""
    from cnn_vit.studies.sweeping import definition

    entries = []
    for name, path in definition.sweep_names().items():
        entries.append({"name": name, "meaning": definition.describe_sweep(path)})
    return entries


def list_augmentations() -> list[dict[str, Any]]:
    """Returns each operation of `data.augment` with the numbers that it takes in brackets, in order."""
    return [rule_entry(rule, rule.keys) for rule in data.read_operations().values()]


def list_rules(section: str) -> list[dict[str, Any]]:
    """Returns each rule of a section of the settings with its keywords, which are settings of that section."""
    entries = []
    for name in settings.rule_names(section):
        rule = settings.read_rule(section, name)
        keys = rule.keys
        if rule.learning_rate is not None:
            table = settings.run_keys({f"{section}.name": name})
            keys = {"learning_rate": table[f"{section}.learning_rate"], **keys}
        entries.append(rule_entry(rule, keys))
    return entries


def rule_entry(rule: Rule, keys: Mapping[str, Key]) -> dict[str, Any]:
    """Returns a rule as the list shows it: name, meaning, and of each keyword name, default, range and meaning."""
    keywords = []
    for name, row in keys.items():
        keywords.append(
            {
                "name": name,
                "default": command_line_value(row.default),
                "takes": settings.accepted_values(row),
                "meaning": row.meaning,
            }
        )
    return {"name": rule.name, "keywords": keywords, "meaning": rule.meaning}


LISTS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "models": list_models,
    "weights": list_weights,
    "data": list_sources,
    "augment": list_augmentations,
    "losses": functools.partial(list_rules, "loss"),
    "optimizers": functools.partial(list_rules, "optimizer"),
    "schedules": functools.partial(list_rules, "schedule"),
    "recipes": list_recipes,
    "sweeps": list_sweeps,
}
