"""List by name what there is: models, weights, data sources, augmentations, losses, optimizers, schedules, recipes.

    cnn-vit list               lists all
    cnn-vit list optimizers    lists one kind: each optimizer with its keywords, their defaults,
                               what they take and what they mean
    cnn-vit list recipes       lists the recipes and their words; each takes the word smoke too

The names are read from the text of the files that define them; no file is imported or run for it.
"""

import argparse
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cnn_vit import cli, data, models, settings
from cnn_vit.cli._settings import command_line_value
from cnn_vit.errors import unknown
from cnn_vit.settings import Key, Rule


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the words of the command."""
    parser.add_argument("kind", nargs="*", help=f"what to list: {', '.join(LISTS)} (default: all)")


def run(args: argparse.Namespace) -> None:
    """Prints a line for each name, one table for each kind.

    Raises:
        UserError: there is no list of that kind.
    """
    for kind in args.kind:
        if kind not in LISTS:
            raise unknown("list of", kind, LISTS)
    entries_by_kind = {kind: LISTS[kind]() for kind in args.kind or LISTS}
    width = cli.terminal_width()
    tables = []
    for kind, entries in entries_by_kind.items():
        rows = [entry_row(entry) for entry in entries]
        if args.kind and any("keywords" in entry for entry in entries):
            rows = rows_with_keywords(entries)
        tables.append(f"{kind}\n{cli.format_table(rows, indent='  ', width=width)}")
    next_command = "cnn-vit train --config=configs/digits_resnet.py --help"
    cli.print_answer(args, entries_by_kind, "\n\n".join(tables), next_command=next_command)


def entry_row(entry: dict[str, Any]) -> tuple[str, str, str]:
    """Returns the row of an entry: its name, its variants or words where it has any, and its meaning."""
    return entry["name"], " ".join(entry.get("variants") or entry.get("words") or ()), entry["meaning"]


def rows_with_keywords(entries: Sequence[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Returns a row for each entry, and below it a row for each of its keywords: name, default, meaning and range."""
    rows = []
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
    """Returns the weights that have a name, which every command takes as --weights=NAME, with what they are."""
    from cnn_vit.transfer import catalog

    return [{"name": name, "meaning": weights.meaning} for name, weights in catalog.read_catalog().items()]


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
}
