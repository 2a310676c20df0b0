"""Final settings as text: for `--show`, and for the help of a command that takes a recipe. Imports no jax."""

import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cnn_vit import data, models, settings
from cnn_vit.cli import HERE, literal_keys, table, terminal_width, wrap
from cnn_vit.errors import nearest, unknown

CHOICES = {"loss.name": ("losses", "LOSSES"), "optimizer.name": ("optimizers", "OPTIMIZERS"),
           "schedule.name": ("schedules", "SCHEDULES")}  # fmt: skip
SHORT = 40  # characters of a value in the help


def settings_help(recipe: str, overrides: Sequence[str]) -> str:
    """Every setting of a recipe: value, what it takes, meaning; and the recipe's words."""
    final = settings.load(recipe, overrides)
    known = keywords(final)
    rows: list[tuple[str, ...]] = []
    for key, value, _, meaning in settings.explain(final):
        takes, meant = typed(*known[key][-2:]) if key in known else (accepted_by(key), meaning)
        rows.append((f"--config.{key}", command_line_value(value), takes, meant))
        if key in ("data.name", "model.name"):
            rows += [
                (f"--config.{name}", command_line_value(default), *typed(takes, meant))
                for name, (default, takes, meant) in known.items()
                if name not in final.values and name.startswith(key.removesuffix("name"))
            ]
    path = recipe.partition(".py:")[0].removesuffix(".py") + ".py"
    words = settings.describe_recipe(settings.recipe_names().get(path, Path(path)))[1]
    wide = terminal_width()
    if wide is not None:
        rows = [(key, value, f"{meaning}; {takes}" if meaning else takes) for key, value, takes, meaning in rows]
    order = "value, what it takes, meaning" if wide is None else "value; meaning; what it takes"
    return (
        f"{wrap(f'settings of {recipe} (--config.key=value; {order}):', wide)}\n"
        f"{table(rows, indent='  ', width=wide)}\n\n"
        f"{wrap(f'words of {path} (--config={path}:word,word):', wide)}\n"
        f"{table(words.items(), indent='  ', width=wide)}"
    )


def settings_table(final: settings.Settings) -> str:
    """Every setting with its value and where that comes from."""
    return table([(key, repr(value), origin) for key, value, origin, _ in settings.explain(final)])


def refuse_unknown(final: settings.Settings) -> None:
    """Raises UserError for a keyword that the named model or data source does not take, without importing either."""
    known = keywords(final)
    for key in filter(settings.is_keyword, final.values):
        if key not in known:
            section, _, name = key.partition(".")
            ours = [one.partition(".")[2] for one in (*settings.KEYS, *known) if one.startswith(f"{section}.")]
            near = [f"{section}.{one}" for one in nearest(name, ours, most=2)]
            raise unknown("setting", key, near or [f"{section}.{one}" for one in ours])


def keywords(final: settings.Settings) -> dict[str, tuple[Any, str, str]]:
    """Keywords of the named source and model: default, type and meaning, read from their text."""
    of_data = {f"data.{name}": about for name, about in data.keywords(final["data.name"]).items()}
    of_model = {
        f"model.{name}": about
        for name, about in models.keyword_table(final["model.name"]).items()
        if name not in models.KEYWORDS_FROM_DATA
    }
    return of_data | of_model


def typed(annotation: str, meaning: str) -> tuple[str, str]:
    """A keyword's type in a user's words, and its meaning: a Literal is its choices."""
    return re.sub(
        r"Literal\[(.*?)\]", lambda found: found[1].replace("', '", " or ").strip("'"), annotation
    ), meaning.rstrip(".")


def accepted_by(key: str) -> str:
    """What a common key takes; names of losses and the like are read from the dicts that hold them."""
    if key in CHOICES:
        file, name = CHOICES[key]
        return " or ".join(literal_keys(HERE.parent / "training" / f"{file}.py", name))
    if key == "data.name":
        return " or ".join(data.names())
    return settings.accepted_values(settings.KEYS[key])


def command_line_value(value: Any) -> str:
    """A value as the command line writes it."""
    if value is None or value is inspect.Parameter.empty:
        return "none" if value is None else "must be given"
    return settings.quote_value(value, most=SHORT) if isinstance(value, tuple) else str(value)
