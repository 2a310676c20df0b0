"""List what there is by name: models, data sources, recipes.

    cnn-vit list            all of it
    cnn-vit list recipes    the recipes with their words; each has the word smoke too

Names are read from the files that hold them; nothing is imported or run for it.
"""

import argparse
from pathlib import Path
from typing import Any

from cnn_vit import cli, data, models, settings
from cnn_vit.errors import unknown


def arguments(parser: argparse.ArgumentParser) -> None:
    """Words of the command."""
    parser.add_argument("kind", nargs="*", help=f"{', '.join(LISTS)}; all where left out")


def run(given: argparse.Namespace) -> None:
    """Prints names with one line each."""
    for kind in given.kind:
        if kind not in LISTS:
            raise unknown("list of", kind, LISTS)
    found = {kind: LISTS[kind]() for kind in given.kind or LISTS}
    width = cli.terminal_width()
    tables = (
        f"{kind}\n{cli.table(map(entry_row, entries), indent='  ', width=width)}" for kind, entries in found.items()
    )
    text = "\n\n".join(tables)
    cli.print_answer(given, found, text, then="cnn-vit train --config=configs/digits_resnet.py --help")


def entry_row(entry: dict[str, Any]) -> tuple[str, str, str]:
    """An entry as a line: name, variants or words, meaning."""
    return entry["name"], " ".join(entry.get("variants") or entry.get("words") or ()), entry["meaning"]


def listed_models() -> list[dict[str, Any]]:
    """Families with their variants."""
    folder = Path(models.__file__).parent
    return [
        {"name": family, "variants": list(variants), "meaning": cli.summary(folder / f"{family}.py")}
        for family, variants in models.names().items()
    ]


def listed_sources() -> list[dict[str, Any]]:
    """Data sources."""
    return [{"name": name, "meaning": meaning} for name, meaning in data.names().items()]


def listed_recipes() -> list[dict[str, Any]]:
    """Recipes with their words."""
    found = {name: settings.describe_recipe(path) for name, path in settings.recipe_names().items()}
    return [
        {"name": name, "words": [word for word in words if word != "smoke"], "meaning": meaning}
        for name, (meaning, words) in found.items()
    ]


LISTS = {"models": listed_models, "data": listed_sources, "recipes": listed_recipes}
