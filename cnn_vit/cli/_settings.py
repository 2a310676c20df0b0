"""How settings are printed: the table of `--show`, and the help of a command whose `--config` names a recipe.

Both name every setting of the recipe, those of the data source and of the model included. Their keywords are read from
the text of the files that define them: this file imports no jax.
"""

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cnn_vit import data, models
from cnn_vit.cli import format_table, terminal_width, wrap_paragraphs
from cnn_vit.errors import nearest, unknown
from cnn_vit.settings import (
    KEYS,
    REQUIRED,
    Key,
    Settings,
    accepted_values,
    describe_recipe,
    explain,
    is_keyword,
    quote_value,
    read_command,
    recipe_names,
    rule_names,
    run_keys,
)
from cnn_vit.settings import load as load_settings
from cnn_vit.settings.signatures import Keyword
from cnn_vit.studies import arms

SECTIONS_OF_RULES = ("loss", "optimizer", "schedule")
MAX_VALUE = 40  # characters of a value in the help


@dataclass(frozen=True)
class HelpRow:
    """One setting, as a line of the help.

    Attributes:
        flag: the setting as the command line writes it, such as "--config.seed".
        value: its value, or the default of a keyword that the recipe does not set.
        takes: what it takes, such as "an int in [2, 1000] (checkpoints)".
        meaning: what it means, a phrase; "" where nothing says so.
    """

    flag: str
    value: str
    takes: str
    meaning: str


def settings_help(recipe: str, overrides: Sequence[str]) -> str:
    """Returns the help on a recipe: its settings, each with value, accepted values and meaning; then its words.

    Of a comparison, these are what all arms share, and the arms by name.

    Args:
        recipe: the recipe as `--config` names it, "configs/NAME.py[:word,word]".
        overrides: the settings of the command line, "key=value" each.

    Raises:
        UserError: the recipe cannot be read, or a setting is wrong.
    """
    path = recipe.partition(".py:")[0].removesuffix(".py") + ".py"
    file = recipe_names().get(path, Path(path))
    _, words = describe_recipe(file)
    if read_command(file) == arms.COMMAND:
        rows = list_comparison_rows(arms.load_comparison(recipe, overrides))
    else:
        rows = list_help_rows(load_settings(recipe, overrides))
    width = terminal_width()
    cells: list[tuple[str, ...]] = []
    if width is None:
        order = "value, what it takes, meaning"
        for row in rows:
            cells.append((row.flag, row.value, row.takes, row.meaning))
    else:
        # A table folds its last column alone: on a terminal the two columns of phrases become one.
        order = "value; meaning; what it takes"
        for row in rows:
            cells.append((row.flag, row.value, f"{row.meaning}; {row.takes}" if row.meaning else row.takes))
    return (
        f"{wrap_paragraphs(f'settings of {recipe} (--config.key=value; {order}):', width)}\n"
        f"{format_table(cells, indent='  ', width=width)}\n\n"
        f"{wrap_paragraphs(f'words of {path} (--config={path}:word,word):', width)}\n"
        f"{format_table(words.items(), indent='  ', width=width)}"
    )


def list_comparison_rows(comparison: arms.ComparisonRecipe) -> list[HelpRow]:
    """Returns the help rows of a comparison: what all arms share, the settings of the data that it sets, the arms."""
    values = {
        "budget": comparison.budget,
        "seeds": comparison.seeds,
        "threads": comparison.threads,
        "weights": comparison.weights,
        "shares": comparison.shares,
    }
    rows = []
    for key, row in arms.COMMON_KEYS.items():
        rows.append(HelpRow(f"--config.{key}", command_line_value(values[key]), accepted_values(row), row.meaning))
    for name, value in comparison.data.items():
        key = f"data.{name}"
        takes, meaning = "", ""
        if key in KEYS:
            takes, meaning = describe_accepted(key, KEYS[key]), KEYS[key].meaning
        rows.append(HelpRow(f"--config.{key}", command_line_value(value), takes, meaning))
    for arm in comparison.arms:
        rows.append(HelpRow(f"--config.arms.{arm.name}", arm.task, "none, which leaves it out", arm.about))
    for key, row in arms.ARM_KEYS.items():
        rows.append(HelpRow(f"--config.arms.NAME.{key}", "", accepted_values(row), row.meaning))
    return rows


def list_help_rows(settings: Settings) -> list[HelpRow]:
    """Returns the help row of every setting; keywords that are not set follow the name of the source or the model."""
    keyword_rows = read_keyword_rows(settings)
    table = run_keys(settings.values)
    rows = []
    for setting in explain(settings):
        key, value = setting.key, command_line_value(setting.value)
        if key in keyword_rows:
            rows.append(replace(keyword_rows[key], value=value))
        else:
            rows.append(HelpRow(f"--config.{key}", value, describe_accepted(key, table[key]), setting.meaning))
        if key in ("data.name", "model.name"):
            section = key.removesuffix("name")
            for keyword, row in keyword_rows.items():
                if keyword.startswith(section) and keyword not in settings.values:
                    rows.append(row)
    return rows


def settings_table(settings: Settings) -> str:
    """Returns a table of every setting: its key, its value, and where that comes from, such as "command line".

    Keywords of the data source and the model that nobody set are there, too, with their defaults.
    """
    defaults = unset_keywords(settings)
    rows = []
    for setting in explain(settings):
        rows.append((setting.key, repr(setting.value), setting.origin))
        if setting.key in ("data.name", "model.name"):
            section = setting.key.removesuffix("name")
            for key, default in defaults.items():
                if key.startswith(section):
                    rows.append((key, repr(default), "default"))
    return format_table(rows)


def unset_keywords(settings: Settings) -> dict[str, Any]:
    """Returns the defaults of the keywords of the data source and the model that nobody set, by key."""
    defaults = {}
    for key, keyword in read_keywords(settings).items():
        if key not in settings.values and not keyword.is_required:
            defaults[key] = keyword.default
    return defaults


def refuse_unknown_keywords(settings: Settings) -> None:
    """Checks, without importing them, that the named data source and model take all keywords that are set.

    Raises:
        UserError: one of them does not take a keyword; the sentence names the nearest ones.
    """
    keywords = read_keyword_rows(settings)
    for key in settings.values:
        if key in keywords or not is_keyword(key):
            continue
        section, _, name = key.partition(".")
        prefix = f"{section}."
        names = [accepted.removeprefix(prefix) for accepted in (*KEYS, *keywords) if accepted.startswith(prefix)]
        choices = nearest(name, names, most=2) or names
        raise unknown("setting", key, [prefix + choice for choice in choices])


def read_keyword_rows(settings: Settings) -> dict[str, HelpRow]:
    """Returns the help row of each keyword of the named data source and model, by key, with its default."""
    rows = {}
    for key, keyword in read_keywords(settings).items():
        rows[key] = HelpRow(
            f"--config.{key}",
            command_line_value(keyword.default),
            type_in_words(keyword.annotation),
            keyword.meaning.rstrip("."),
        )
    return rows


def read_keywords(settings: Settings) -> dict[str, Keyword]:
    """Returns the keywords of the named data source and model, by key ("model.width").

    Those of a model that follow from the data, such as its number of classes, cannot be set and are left out.
    """
    keywords = {f"data.{name}": keyword for name, keyword in data.read_keywords(settings["data.name"]).items()}
    for name, keyword in models.read_keywords(settings["model.name"]).items():
        if name not in models.KEYWORDS_FROM_DATA:
            keywords[f"model.{name}"] = keyword
    return keywords


def type_in_words(annotation: str) -> str:
    """Writes the annotation of a keyword for users: "Literal['pad', 'projection']" becomes "pad or projection"."""
    return re.sub(r"Literal\[(.*?)\]", lambda match: match[1].replace("', '", " or ").strip("'"), annotation)


def describe_accepted(key: str, row: Key) -> str:
    """Returns what a setting takes, as a phrase; where it takes a name, such as that of a loss, the names there are."""
    section, _, last_part = key.rpartition(".")
    if section in SECTIONS_OF_RULES and last_part == "name":
        return " or ".join(rule_names(section))
    if key == "data.name":
        return " or ".join(data.names())
    return accepted_values(row)


def command_line_value(value: Any) -> str:
    """Writes a value as the command line does; a keyword without a default "must be given"."""
    if value is None:
        return "none"
    if value in (inspect.Parameter.empty, REQUIRED):
        return "must be given"
    return quote_value(value, most=MAX_VALUE) if isinstance(value, tuple) else str(value)
