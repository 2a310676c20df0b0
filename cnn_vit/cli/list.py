"""List by name the models, data sources and recipes that there are.

    cnn-vit list            lists all three
    cnn-vit list recipes    lists the recipes and their words; each takes the word smoke too

The names are read from the text of the files that define them; no file is imported or run for it.
"""

import argparse
from pathlib import Path
from typing import Any

from cnn_vit import cli, data, models, settings
from cnn_vit.errors import unknown


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
        tables.append(f"{kind}\n{cli.format_table(map(entry_row, entries), indent='  ', width=width)}")
    next_command = "cnn-vit train --config=configs/digits_resnet.py --help"
    cli.print_answer(args, entries_by_kind, "\n\n".join(tables), next_command=next_command)


def entry_row(entry: dict[str, Any]) -> tuple[str, str, str]:
    """Returns the row of an entry: its name, its variants or words where it has any, and its meaning."""
    return entry["name"], " ".join(entry.get("variants") or entry.get("words") or ()), entry["meaning"]


def list_models() -> list[dict[str, Any]]:
    """Returns each family of models with its variants and the first line of its file."""
    folder = Path(models.__file__).parent
    entries = []
    for family, variants in models.names().items():
        meaning = cli.read_summary(folder / f"{family}.py")
        entries.append({"name": family, "variants": list(variants), "meaning": meaning})
    return entries


def list_sources() -> list[dict[str, Any]]:
    """Returns each data source with the first line of its file."""
    return [{"name": name, "meaning": meaning} for name, meaning in data.names().items()]


def list_recipes() -> list[dict[str, Any]]:
    """Returns each recipe with its words, but for `smoke`, which all have, and the first line of its file."""
    entries = []
    for name, path in settings.recipe_names().items():
        meaning, words = settings.describe_recipe(path)
        entries.append({"name": name, "words": [word for word in words if word != "smoke"], "meaning": meaning})
    return entries


LISTS = {"models": list_models, "data": list_sources, "recipes": list_recipes}
