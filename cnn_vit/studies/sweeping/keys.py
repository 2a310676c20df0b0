"""The keys of a sweep beside its space: what each takes, its default, and the sentence for whatever else it gets."""

import ast
import functools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnn_vit import files
from cnn_vit.errors import UserError, unknown
from cnn_vit.settings import Key, quote_value, recipes, signatures
from cnn_vit.settings.load import COMMAND_LINE, split_override
from cnn_vit.settings.rules import keyword_row
from cnn_vit.settings.values import check_value
from cnn_vit.studies import objectives
from cnn_vit.studies.sweeping import samplers
from cnn_vit.studies.sweeping.samplers import SAMPLERS
from cnn_vit.studies.sweeping.space import CHOICE, LOG, UNIFORM, Dimension, Space, text_of_value

# The metrics of a recipe's trials, and whether more or less of each is better.
METRICS = {
    "validation.accuracy": "max",
    "validation.loss": "min",
    "best.accuracy": "max",
    "best.loss": "min",
}
DEFAULT_METRIC = "validation.accuracy"
DEFAULT_OBJECTIVE_METRIC = "value"
GRID = "grid"
MOST_POINTS = 1_000_000  # of a grid
NAME_OF_VALUE = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,99}")  # in what an objective takes or returns

# What stands at the top of a TOML file, beside sampler, halving, settings and space, which are tables.
COMMON_KEYS = {
    "config": Key("text?", None, "", "recipe of every trial, configs/NAME.py[:WORDS]"),
    "objective": Key("text?", None, "", "your own function in the place of a recipe, FILE.py:NAME"),
    "words": Key("texts", (), "", "words of the recipe"),
    "trials": Key("int?", None, "[1, 1000000]", "points that are tried; a grid has as many as it has", "points"),
    "seeds": Key("int", 1, "[1, 1000]", "runs of each point, with the seeds seed, seed + 1, ...", "runs"),
    "seed": Key("int", 0, "[0, 2147483647]", "of the sampler, and the first of the runs"),
    "metric": Key("text?", None, "", "what is compared"),
    "mode": Key("text?", None, "", "whether more or less of it is better", choices=("max", "min")),
    "workers": Key("int", 1, "[1, 1024]", "processes that work at the same time", "processes"),
    "threads": Key("int", 1, "[1, 1024]", "cores that one trial computes on", "cores"),
    "lag": Key("int", 4, "[1, 10000]", "an adaptive sampler suggests point k from the results up to k - lag", "points"),
    "max_failures": Key("int?", None, "[1, 1000000]", "failed trials after which no other is begun", "trials"),
}  # fmt: skip
TABLES = ("sampler", "halving", "settings", "space")
HALVING_KEYS = {
    "eta": Key("int", 3, "[2, 1000]", "of so many trials one goes on beyond a rung"),
    "first": Key("duration", "1 epochs", "(0, 1e15]", "length of the first rung"),
}


@dataclass(frozen=True)
class Halving:
    """Successive halving: of the trials that have come to a rung, the best go on, and the others are pruned.

    Attributes:
        eta: of so many trials one goes on; the rungs lie at a share of 1 / eta, 1 / eta^2, ... of each run.
        first: a duration; no rung lies before it.
    """

    eta: int = 3
    first: str = "1 epochs"


def read_common(table: Mapping[str, Any], changes: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Returns the value of each of COMMON_KEYS: that of the command line, else the file's, else the default.

    Raises:
        UserError: an unknown key on the command line, or a value that a key does not take.
    """
    for key in changes:
        if key not in (*COMMON_KEYS, "sampler"):
            raise unknown("key of a sweep", key, [*COMMON_KEYS, "sampler"])
    common = {}
    for key, row in COMMON_KEYS.items():
        changed = changes.get(key)
        if changed is not None:
            common[key] = check_value(key, row, changed, where=COMMAND_LINE, is_text=isinstance(changed, str))
        elif table.get(key) is not None:
            common[key] = check_value(key, row, table[key], where=where)
        else:
            common[key] = row.default
    return common


def read_what_runs(common: Mapping[str, Any], *, where: str) -> tuple[str, str]:
    """Returns the recipe with its words and the user's own function, of which one is "".

    Raises:
        UserError: neither is named, or both, or the function is not there.
    """
    config, objective, words = common["config"] or "", common["objective"] or "", common["words"]
    if bool(config) == bool(objective):
        named = "both config and objective" if config else "neither config nor objective"
        raise UserError(
            f'{where} names {named}; name one: config = "configs/NAME.py", a recipe, or objective = "FILE.py:NAME", a '
            "function of your own"
        )
    if objective:
        if words:
            raise UserError(f"{where}: words belong to a recipe, and {objective} is none; leave them out")
        if not objectives.is_function_here(objective):
            check_objective(objective, where=where)
        return "", objective
    _, colon, words_of_config = config.partition(".py:")
    if words and colon:
        raise UserError(
            f"{where} names words twice, {words_of_config} in config and {','.join(words)} in words; name them once"
        )
    return f"{config}:{','.join(words)}" if words else config, ""


def check_objective(objective: str, *, where: str) -> None:
    """Checks that a file of the user's assigns or defines the function that is to be called, without running it.

    Raises:
        UserError: there is no such file, it is not Python, or it has no such name.
        SurroundingsError: it cannot be read.
    """
    path, colon, name = objective.partition(".py:")
    file = Path(f"{path}.py")
    if not colon or not name.isidentifier():
        raise UserError(f"{where}: objective is {quote_value(objective)}; it takes FILE.py:NAME, a function of a file")
    if not file.is_file():
        raise UserError(f"{where}: objective names {file}, which is not there; look for a typing error")
    with files.os_errors(file):
        content = file.read_bytes()
    try:
        module = ast.parse(content)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise UserError(f"{file}:{line}: {getattr(error, 'msg', error)}") from error
    names = list_top_names(module)
    if name not in names:
        raise UserError(f"{where}: {file} has {unknown('function', name, names)}")


def list_top_names(module: ast.Module) -> list[str]:
    """Lists what a file defines, assigns or imports at its top level."""
    names = []
    for statement in module.body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            names.append(statement.name)
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            names += [alias.asname or alias.name for alias in statement.names]
        elif isinstance(statement, ast.Assign):
            names += [target.id for target in statement.targets if isinstance(target, ast.Name)]
    return names


def read_settings(table: Any, *, where: str) -> dict[str, str]:
    """Returns the fixed settings of a file, as texts by key.

    Raises:
        UserError: it is not a table, or a value in it is not one of a setting.
    """
    if not isinstance(table, dict):
        raise UserError(f"{where}: settings is {quote_value(table)}; it takes a table, [settings]")
    fixed = {}
    for key, value in recipes.flatten(table):
        is_plain = value is None or isinstance(value, bool | int | float | str | list | tuple)
        if not is_plain:
            raise UserError(f"{where}: settings.{key} is {quote_value(value)}; it takes numbers, texts, true and lists")
        fixed[key] = text_of_value(value)
    if "seed" in fixed:
        raise UserError(
            f"{where}: settings.seed is the sweep's own; write seed = {fixed['seed']} at the top of the file"
        )
    return fixed


def read_overrides(overrides: Sequence[str], common: dict[str, Any], *, has_seed: bool) -> dict[str, str]:
    """Returns the settings of the command line, as texts by key; a seed among them is the sweep's.

    Raises:
        UserError: one sets nothing, or the seed is set twice.
    """
    fixed = dict(map(split_override, overrides))
    seed = fixed.pop("seed", None)
    if seed is not None:
        if has_seed:
            raise UserError(
                f"--config.seed={seed} and the sweep's own seed, {common['seed']}, say two things; leave one"
            )
        common["seed"] = check_value("seed", COMMON_KEYS["seed"], seed, where=COMMAND_LINE, is_text=True)
    return fixed


def read_sampler(
    common: Mapping[str, Any], written: Any, changes: Mapping[str, Any], *, where: str
) -> tuple[str, tuple[tuple[str, Any], ...]]:
    """Returns the name of the sampler, and its options in the order of their names.

    Raises:
        UserError: an unknown sampler or option, or a value that an option does not take.
    """
    changed = changes.get("sampler")
    if changed is not None:
        written, where = changed, COMMAND_LINE
    options = dict(written) if isinstance(written, dict) else {"name": written}
    name = options.pop("name", None)
    if name is None:
        raise UserError(f'{where}: sampler has no name; write {{name = "tpe", startup = 5}}')
    if not isinstance(name, str) or name not in SAMPLERS:
        raise UserError(f"{where}: {unknown('sampler', str(name), SAMPLERS)}")
    rows = sampler_options(name)
    fitted = {}
    for option, value in options.items():
        if option not in rows:
            choices = ", ".join(rows) or "none"
            raise UserError(f"{where}: {name} has no option {quote_value(option)}; it takes {choices}")
        fitted[option] = check_value(f"sampler.{option}", rows[option], value, where=where)
    return name, tuple(sorted(fitted.items()))


@functools.cache
def sampler_options(name: str) -> dict[str, Key]:
    """Reads the options of a sampler from the text of its function, as the rules of training are read."""
    module = signatures.parse_file(Path(samplers.__file__))
    rows = {}
    for keyword in signatures.read_keywords(module, SAMPLERS[name].suggest.__name__).values():
        if keyword.name not in samplers.COMMON_KEYWORDS:
            rows[keyword.name] = keyword_row(keyword)
    return rows


def count_trials(trials_written: int | None, sampler: str, space: Space, *, where: str) -> int:
    """Returns how many points are tried.

    Raises:
        UserError: a grid over a float range without steps, another number than the grid has, or none for a sampler.
    """
    if sampler != GRID:
        if trials_written is None:
            raise UserError(f"{where}: {sampler} goes on for ever; set trials, {COMMON_KEYS['trials'].meaning}")
        return trials_written
    for dimension in space.dimensions:
        if dimension.kind in (LOG, UNIFORM) and dimension.steps is None:
            raise UserError(
                f"{where}: a grid takes a range in steps, and {dimension.key} has none; add steps = 4, or take another "
                "sampler"
            )
    most = math.prod(map(count_grid_values, space.dimensions))  # as many as there are where no condition cuts some off
    if most > MOST_POINTS:
        raise UserError(
            f"{where}: the grid has {most:,} points; {MOST_POINTS:,} are the most; take fewer values, or another "
            "sampler with as many trials as you can wait for"
        )
    points = len(space.grid())
    if trials_written not in (None, points):
        raise UserError(
            f"{where}: trials is {trials_written}, and the grid has {points} points, all of which are tried; leave "
            'trials out, or take another sampler, such as "random"'
        )
    return points


def count_grid_values(dimension: Dimension) -> int:
    """Counts the values that a grid takes of a dimension, at most."""
    if dimension.kind == CHOICE:
        return len(dimension.choices)
    if dimension.steps is not None:
        return dimension.steps
    return int(dimension.high) - int(dimension.low) + 1


def choose_metric(common: Mapping[str, Any], *, objective: str, where: str) -> tuple[str, str]:
    """Returns what is compared, and whether more or less of it is better.

    Raises:
        UserError: a metric of the test split, an unknown one, a mode against its meaning, or none where it has to be
            named.
    """
    metric, mode = common["metric"], common["mode"]
    if objective:
        metric = metric or DEFAULT_OBJECTIVE_METRIC
        if not NAME_OF_VALUE.fullmatch(metric):
            raise UserError(
                f"{where}: metric is {quote_value(metric)}; it takes value, or a key that {objective} returns"
            )
        if mode is None:
            raise UserError(
                f'{where}: whether more or less of {metric} is better only you can tell; write mode = "max" or "min"'
            )
        return metric, mode
    metric = metric or DEFAULT_METRIC
    if re.match(r"test(ed)?\b", metric):
        raise UserError(
            f"{where}: metric is {metric}, and a sweep chooses by validation; `sweep best --test` measures the test "
            f"split once; take {' or '.join(METRICS)}"
        )
    if metric not in METRICS:
        raise UserError(f"{where}: {unknown('metric', metric, METRICS)}")
    if mode not in (None, METRICS[metric]):
        raise UserError(
            f"{where}: mode is {mode}, which would look for the worst {metric}; leave it out: it is {METRICS[metric]}"
        )
    return metric, METRICS[metric]


def read_halving(written: Any, *, where: str) -> Halving | None:
    """Returns how trials are halved; None where nothing is written of it.

    Raises:
        UserError: an unknown key, or a value that one does not take.
    """
    if written is None or written is False:
        return None
    if not isinstance(written, dict):
        raise UserError(
            f'{where}: halving is {quote_value(written)}; it takes a table, {{eta = 3, first = "1 epochs"}}'
        )
    words = {}
    for key, value in written.items():
        if key not in HALVING_KEYS:
            raise UserError(f"{where}: {unknown('key of halving', key, HALVING_KEYS)}")
        words[key] = check_value(f"halving.{key}", HALVING_KEYS[key], value, where=where)
    return Halving(**words)
