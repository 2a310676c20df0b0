"""What is swept: a TOML file, words of the command line or a recipe's own `sweep(add)` become a `SweepDefinition`.

A TOML file says it all:

    config = "configs/digits_vit.py"        the recipe of every trial; words = ["big"] are its words
    sampler = "tpe"                         or a table: {name = "tpe", startup = 5}
    trials = 30
    metric = "validation.accuracy"
    [settings]                              fixed, over the recipe
    duration = "600 steps"
    [space]
    optimizer.learning_rate = {log = [1e-4, 1e-1], steps = 4}
    optimizer.name = ["adamw", "sgd"]
    optimizer.momentum = {uniform = [0, 0.99], when = {"optimizer.name" = "sgd"}}

A recipe says the same beside its get_config, `add("optimizer.learning_rate", log=(1e-4, 1e-1), steps=4)` for each
dimension, and returns the other keys as a dict if it has any. All three are checked before anything runs, and none of
it imports jax. `claim_sweep` keeps the definition in the folder of the sweep (`claims.py`), which then takes no other.
"""

import ast
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any

from cnn_vit import files
from cnn_vit.errors import UserError, nearest, unknown
from cnn_vit.settings import Settings, is_keyword, quote_value, recipes
from cnn_vit.settings.durations import parse_duration
from cnn_vit.settings.keys import SECTIONS
from cnn_vit.settings.load import COMMAND_LINE
from cnn_vit.settings.values import parse_literal, split_items
from cnn_vit.studies import objectives
from cnn_vit.studies.sweeping import keys
from cnn_vit.studies.sweeping.dimensions import Base, Draft, draft_of_table, find_keyword, load_at, make_space
from cnn_vit.studies.sweeping.keys import COMMON_KEYS, GRID, NAME_OF_VALUE, TABLES, Halving, list_top_names
from cnn_vit.studies.sweeping.samplers import SAMPLERS
from cnn_vit.studies.sweeping.space import CHOICE, INT, KINDS, Space

SPACE = "space.json"  # of a sweep's folder: its definition
FOLDER = "configs/sweeps"  # where sweeps lie, under the current folder or beside the package

# Settings that change how many steps a duration is: always, in examples or epochs, in epochs.
LENGTHS = {
    "steps": ("duration",),
    "examples": ("duration", "data.batch_size"),
    "epochs": ("duration", "data.batch_size", "data.train", "data.name", "data.path", "data.train_count"),
}
# What space.json holds, by key, with the types that JSON has of it.
STORED: dict[str, type | UnionType] = {
    "config": str, "objective": str, "overrides": list, "space": list, "sampler": str, "sampler_options": dict,
    "trials": int, "seeds": int, "seed": int, "metric": str, "mode": str, "lag": int, "halving": dict | None,
    "workers": int, "threads": int, "max_failures": int | None, "name": str,
}  # fmt: skip
TRAINING_LOSS = ("loss.smoothing", "loss.class_weight")  # settings of the loss that evaluations leave out
RANGE_OF_INTS = re.compile(r"\s*([+-]?[0-9]{1,20})\s*\.\.\s*([+-]?[0-9]{1,20})\s*")
FLOAT_RANGE = re.compile(r"\s*[+-]?[0-9.]+(e[+-]?[0-9]+)?\s*\.\.\s*[+-]?[0-9.]+(e[+-]?[0-9]+)?\s*", re.I)


@dataclass(frozen=True)
class SweepDefinition:
    """What is swept, checked.

    Attributes:
        config: the recipe with its words, "configs/digits_vit.py:big"; "" with an objective.
        objective: the user's own function, "FILE.py:NAME"; "" with a config.
        overrides: fixed settings over the recipe, "key=value" in the order of the keys.
        space: what varies.
        sampler: that chooses the points.
        sampler_options: of it, in the order of their names.
        trials: how many points; of a grid all that it has.
        seeds: runs of each point, with the seeds `seed`, `seed` + 1, ...; 1 where the space varies the seed itself.
        seed: of the sampler, and the first of the runs.
        metric: what is compared, a key of METRICS; with an objective "value" or a key that it returns.
        mode: "max" or "min".
        lag: of an adaptive sampler: suggestion k knows the results of those up to k - lag.
        halving: successive halving; None where each trial is done to its end.
        workers: processes that work at the same time.
        threads: cores that one trial computes on.
        max_failures: failed trials after which no other is begun; None for any number.
        name: for titles: that of the file without its ending.
    """

    config: str
    objective: str
    overrides: tuple[str, ...]
    space: Space
    sampler: str
    sampler_options: tuple[tuple[str, Any], ...]
    trials: int
    seeds: int
    seed: int
    metric: str
    mode: str
    lag: int = 4
    halving: Halving | None = None
    workers: int = 1
    threads: int = 1
    max_failures: int | None = None
    name: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns the definition as plain values, which `from_json` reads back."""
        halving = None
        if self.halving is not None:
            halving = {"eta": self.halving.eta, "first": self.halving.first}
        return {
            "config": self.config,
            "objective": self.objective,
            "overrides": list(self.overrides),
            "space": self.space.to_json(),
            "sampler": self.sampler,
            "sampler_options": dict(self.sampler_options),
            "trials": self.trials,
            "seeds": self.seeds,
            "seed": self.seed,
            "metric": self.metric,
            "mode": self.mode,
            "lag": self.lag,
            "halving": halving,
            "workers": self.workers,
            "threads": self.threads,
            "max_failures": self.max_failures,
            "name": self.name,
        }

    @classmethod
    def from_json(cls, stored: Any, *, file: str = SPACE) -> "SweepDefinition":
        """Reads a definition back from what `to_json` returned.

        Raises:
            UserError: it is something else.
        """
        try:
            words = dict(stored)
            for key, kind in STORED.items():
                if not isinstance(words[key], kind):
                    raise TypeError(f"{key} is {quote_value(words[key])}")
            words["overrides"] = tuple(map(str, words["overrides"]))
            words["space"] = Space.from_json(words["space"])
            for dimension in words["space"].dimensions:
                if dimension.kind not in KINDS or not isinstance(dimension.low + dimension.high, int | float):
                    raise TypeError(f"a dimension is {quote_value(dimension)}")
            words["sampler_options"] = tuple(sorted(words["sampler_options"].items()))
            if words["halving"] is not None:
                words["halving"] = Halving(**words["halving"])
            return cls(**words)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise UserError(
                f"{file} is not a definition of a sweep as this version of cnn_vit writes it ({error}); put it back "
                "from a copy, or name another --out"
            ) from error


# A TOML file ----------------------------------------------------------------------------------------------------------


def read_toml(
    path: str | os.PathLike, *, changes: Mapping[str, Any] | None = None, overrides: Sequence[str] = ()
) -> SweepDefinition:
    """Reads a sweep from a TOML file.

    Args:
        path: the file; it is looked for under the current folder, then beside the package, as recipes are.
        changes: values of top-level keys that stand over the file's, such as {"trials": 60}; None is no change.
        overrides: settings of the command line over those of the file, "key=value".

    Raises:
        UserError: anything in it is wrong.
        SurroundingsError: it cannot be read.
    """
    file = find_file(path)
    where = os.fspath(path)
    table = parse_toml(file, where=where)
    objective = table.get("objective")
    if isinstance(objective, str):
        table["objective"] = os.path.normpath(file.parent / objective)
    return make_definition(table, name=file.stem, where=where, changes=changes, overrides=overrides)


def find_file(path: str | os.PathLike) -> Path:
    """Returns the path of a TOML file, here or beside the package.

    Raises:
        UserError: there is none; the sentence names the nearest.
    """
    for root in (Path(), recipes.PACKAGE_PARENT):
        if os.path.isfile(root / path):
            return root / path
    if os.path.exists(path):
        raise UserError(f"{path} is not a file; a sweep is a TOML file, such as {FOLDER}/NAME.toml")
    names = {Path(name).stem: name for name in sweep_names()}
    near = find_beside(Path(path)) or [names[stem] for stem in nearest(Path(path).stem, names)]
    remedy = f"did you mean {' or '.join(near)}?" if near else f"there is {', '.join(names.values()) or 'none'}"
    raise UserError(f"no sweep {quote_value(os.fspath(path))} here or beside the package; {remedy}")


def find_beside(path: Path) -> list[str]:
    """Returns the TOML files in the folder of a path whose names are like its own."""
    try:
        names = sorted(one.name for one in path.parent.glob("*.toml"))
    except OSError:
        return []
    return [str(path.parent / name) for name in nearest(path.name, names)]


def sweep_names() -> dict[str, Path]:
    """Lists the sweeps by the name to write, `configs/sweeps/NAME.toml`; one of the current folder hides the other."""
    sweeps = {}
    for root in (recipes.PACKAGE_PARENT, Path()):
        for path in (root / FOLDER).glob("*.toml"):
            sweeps[f"{FOLDER}/{path.name}"] = path
    return dict(sorted(sweeps.items()))


def describe_sweep(path: Path) -> str:
    """Reads what the first line of a sweep's TOML file says of it, which is a comment; "" where it says nothing."""
    try:
        line = path.read_text(encoding="utf-8").partition("\n")[0]
    except (OSError, ValueError) as error:
        return f"cannot be read: {error}"
    return line.removeprefix("#").strip() if line.startswith("#") else ""


def parse_toml(path: Path, *, where: str) -> dict[str, Any]:
    """Parses a TOML file.

    Raises:
        UserError: it is not TOML, or not in UTF-8; the sentence names the line.
        SurroundingsError: it cannot be read.
    """
    with files.os_errors(path):
        content = path.read_bytes()
    try:
        return tomllib.loads(content.decode("utf-8-sig"))  # some editors put a mark before the text
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(f"{where}:{line}: byte {error.start} is not UTF-8; save the file in UTF-8") from error
    except ValueError as error:  # TOMLDecodeError, and what Python says of an int of thousands of digits
        raise UserError(f"{where} is not TOML: {error}") from error
    except RecursionError as error:
        raise UserError(f"{where} is not TOML that can be read: its tables are nested too deeply") from error


def read_space_table(table: Any, *, where: str, has_settings: bool) -> list[Draft]:
    """Reads the table `space` of a TOML file, whose keys are quoted or make tables of their own.

    Args:
        table: "optimizer.learning_rate" or optimizer = {learning_rate = ...} in it are the same.
        where: the file.
        has_settings: whether the keys are settings; those of an objective are the user's own.
    """
    if not isinstance(table, dict):
        raise UserError(f"{where}: space is {quote_value(table)}; it takes a table, [space]")
    if not table:
        raise UserError(f"{where}: space is empty; name what varies, such as optimizer.learning_rate = [1e-3, 3e-3]")
    drafts = []
    for key, value in table.items():
        if is_section(key, value, has_settings=has_settings):
            for inner_key, inner_value in value.items():
                drafts.append(draft_of_table(f"{key}.{inner_key}", inner_value, where=where))
        else:
            drafts.append(draft_of_table(key, value, where=where))
    if not has_settings:
        for draft in drafts:
            if not NAME_OF_VALUE.fullmatch(draft.key):
                raise UserError(
                    f"{where}: {quote_value(draft.key)} is not a name; begin with a letter, and take letters, "
                    "digits, _ and ."
                )
    return drafts


def is_section(key: str, value: Any, *, has_settings: bool) -> bool:
    """Whether an entry of a space holds dimensions, and is not one itself."""
    if not isinstance(value, dict):
        return False
    if has_settings:
        return key in SECTIONS
    return bool(value) and all(isinstance(inner, dict) for inner in value.values()) and "when" not in value


# The one-line form ----------------------------------------------------------------------------------------------------


def from_grid_words(
    config: str,
    grid: Sequence[str],
    overrides: Sequence[str] = (),
    seeds: int = 1,
    *,
    changes: Mapping[str, Any] | None = None,
) -> SweepDefinition:
    """Makes the sweep of a grid from words of the command line.

    Args:
        config: the recipe with its words.
        grid: "KEY=VALUES" each: "optimizer.learning_rate=1e-3,3e-3", "seed=0..4" for the ints from 0 to 4, and a Python
            list where a value itself holds a comma, "schedule.boundaries=[('80 epochs',), ('100 epochs',)]".
        overrides: fixed settings, "key=value".
        seeds: runs of each point.
        changes: other keys of a TOML file, such as {"metric": "best.loss"}.

    Raises:
        UserError: anything in it is wrong.
    """
    drafts = [read_grid_word(word) for word in grid]
    table = {"config": config, "sampler": GRID, "seeds": seeds}
    return make_definition(
        table,
        name=name_of_config(config),
        where=COMMAND_LINE,
        changes=changes,
        overrides=overrides,
        drafts=drafts,
    )


def read_grid_word(word: str) -> Draft:
    """Reads a dimension as the command line writes it.

    Raises:
        UserError: there is no value, or a list that is not a literal.
    """
    key, equals, text = word.partition("=")
    key = key.strip().replace("-", "_")
    where = f"--grid {key}"
    if not equals or not key or not text.strip():
        raise UserError(f"--grid {quote_value(word)} varies nothing; write --grid KEY=VALUE,VALUE")
    ints = RANGE_OF_INTS.fullmatch(text)
    if ints:
        low, high = int(ints[1]), int(ints[2])
        if low > high:
            raise UserError(f"{where}: {text.strip()} is empty; write {high}..{low}")
        return Draft(key, INT, (low, high), where=where) if low < high else Draft(key, CHOICE, (low,), where=where)
    if text.strip().startswith("["):
        try:
            values = parse_literal(text)
        except ValueError as error:
            raise UserError(
                f"{where}: {quote_value(text)} is not a list; write one as Python does, "
                "[('80 epochs',), ('100 epochs',)]"
            ) from error
        return Draft(key, CHOICE, tuple(values), where=where)
    if FLOAT_RANGE.fullmatch(text) or text.strip().startswith("{"):
        raise UserError(
            f"{where}: {quote_value(text)} is a range, and --grid takes values, {key}=VALUE,VALUE, or ints, 0..4; "
            "write ranges into a file, under [space], as `cnn-vit sweep --help` shows"
        )
    items = split_items(text)
    if len(items) != count_items(text):
        raise UserError(f"{where}: {quote_value(text)} has an empty value between its commas; leave one comma out")
    return Draft(key, CHOICE, tuple(items), where=where, is_text=True)


def count_items(text: str) -> int:
    """Counts the items between the commas outside all brackets, the empty ones included."""
    depth, count = 0, 1
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        count += letter == "," and depth == 0
    return count


# A recipe's own sweep -------------------------------------------------------------------------------------------------


def from_recipe(
    config: str, *, overrides: Sequence[str] = (), changes: Mapping[str, Any] | None = None
) -> SweepDefinition:
    """Makes the sweep that a recipe defines itself, by `def sweep(add)` beside its get_config.

    Args:
        config: the recipe with its words.
        overrides: fixed settings, "key=value".
        changes: values that stand over those that the function returns.

    Raises:
        UserError: the recipe has none, or anything in it is wrong.
    """
    path, _ = recipes.split_name(config)
    where = config.partition(".py:")[0].removesuffix(".py") + ".py"
    module = recipes.run_recipe(path, name=where)
    function = getattr(module, "sweep", None)
    if not callable(function):
        raise UserError(
            f"{where} says nothing of a sweep; add --grid KEY=VALUE,VALUE, or write def sweep(add) beside its "
            'get_config, with add("optimizer.learning_rate", log=(1e-4, 1e-1), steps=4) in it'
        )
    drafts: list[Draft] = []

    def add(*names: Any, steps: int | None = None, when: Mapping[str, Any] | None = None, **kinds: Any) -> None:
        """Varies a setting, by one of the keywords log=(LOW, HIGH), uniform=, int= and choice=[...]."""
        if len(names) != 1:
            raise UserError(
                f"{where}, sweep(add): add takes the name of a setting, and how it varies by a keyword; write "
                'add("optimizer.learning_rate", log=(1e-4, 1e-1)), or choice=[...], uniform=(...), int=(...)'
            )
        (key,) = names
        table = {**kinds, "steps": steps, "when": when}
        drafts.append(draft_of_table(key, table, where=f"{where}, sweep(add)"))

    first_line = getattr(getattr(function, "__code__", None), "co_firstlineno", 1)
    with recipes.recipe_errors(path, name=where, line=first_line):
        returned = function(add)
    if returned is None:
        returned = {}
    if not isinstance(returned, dict):
        raise UserError(
            f"{where}:{first_line}: sweep returned {type(returned).__name__}; it returns nothing, or a dict of the "
            "keys of a sweep, such as {'sampler': 'tpe', 'trials': 30}"
        )
    for key in ("config", "objective", "words", "space"):
        if key in returned:
            raise UserError(f"{where}:{first_line}: sweep returned {key}, which is the recipe's own; leave it out")
    table = {**returned, "config": config}
    return make_definition(
        table, name=name_of_config(config), where=where, changes=changes, overrides=overrides, drafts=drafts
    )


# A call in Python -----------------------------------------------------------------------------------------------------


def from_call(
    settings: str | os.PathLike | Callable[..., Any],
    space: Mapping[str, Any] | None,
    *,
    sampler: str | None = None,
    trials: int | None = None,
    overrides: Sequence[str] = (),
    sampler_options: Mapping[str, Any] | None = None,
    halving: Mapping[str, Any] | None = None,
    **changes: Any,
) -> SweepDefinition:
    """Makes the definition that a call of `cnn_vit.sweep` asks for; see there what each argument is.

    Raises:
        UserError: anything in it is wrong.
    """
    where = "sweep()"
    if isinstance(settings, os.PathLike):
        settings = os.fspath(settings)
    if not isinstance(settings, str) and not callable(settings):
        raise UserError(f"{where} sweeps a recipe, a file or a function, and {settings!r} is none of them")
    space = plain_value(space)
    common = {"trials": trials, **changes}
    if isinstance(settings, str) and settings.endswith(".toml"):
        refuse_own_words(settings, space, halving, sampler_options)
        return read_toml(settings, changes={"sampler": sampler, **common}, overrides=overrides)
    table = {key: value for key, value in common.items() if value is not None}
    if space is not None:
        table["space"] = space
    if halving is not None:
        table["halving"] = halving
    given_sampler = sampler
    sampler = sampler or (GRID if trials is None else "random")
    table["sampler"] = sampler if sampler_options is None else {"name": sampler, **sampler_options}
    if callable(settings):
        if changes.get("workers") not in (None, 1):
            raise UserError(
                f"{where}: workers={changes['workers']} cannot call a function of this process; write it into a file "
                "and give FILE.py:NAME, or leave workers out"
            )
        table["objective"] = objectives.register_function(settings)
        name = settings.__qualname__
    elif is_recipe(settings):
        name = name_of_config(settings)
        table["config"] = settings
        if space is None:
            refuse_own_words(settings, halving, sampler_options)
            return from_recipe(settings, changes={"sampler": given_sampler, **common}, overrides=overrides)
    else:
        name = settings.rpartition(":")[2]
        table["objective"] = settings
    return make_definition(table, name=name, where=where, overrides=overrides)


def plain_value(value: Any) -> Any:
    """Returns a value of a call as a file would have it: arrays and ranges as lists, scalars of numpy as numbers."""
    if isinstance(value, Mapping):
        return {key: plain_value(inner) for key, inner in value.items()}
    if isinstance(value, range):
        return list(value)
    if isinstance(value, list | tuple):
        values = [plain_value(inner) for inner in value]
        return values if isinstance(value, list) else tuple(values)
    if hasattr(value, "tolist"):
        return value.tolist()
    return value


def refuse_own_words(settings: str, *arguments: Mapping[str, Any] | None) -> None:
    """Raises UserError where a call says what a file or a recipe says by itself."""
    if any(argument is not None for argument in arguments):
        raise UserError(f"{settings} names its space, halving and options of the sampler itself; leave them out")


def is_recipe(settings: str) -> bool:
    """Whether a text names a recipe with its words, and not the function of a file, FILE.py:NAME.

    A file that cannot be read counts as a recipe, whose reading then says why.
    """
    file, colon, _ = settings.partition(".py:")
    if not colon:
        return True
    try:
        module = ast.parse(Path(f"{file}.py").read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return True
    return "get_config" in list_top_names(module)


def name_of_config(config: str) -> str:
    """Returns the name of a recipe with its words, digits_vit:big."""
    path, colon, words = config.partition(".py:")
    stem = Path(path).stem
    return f"{stem}:{words}" if colon and words else stem


# Checking -------------------------------------------------------------------------------------------------------------


def make_definition(
    table: Mapping[str, Any],
    *,
    name: str,
    where: str,
    changes: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    drafts: Sequence[Draft] | None = None,
) -> SweepDefinition:
    """Makes a definition of what a TOML file holds, and checks it.

    Args:
        table: the file's keys.
        name: of the sweep.
        where: the file, for errors.
        changes: of the command line, over the file's keys.
        overrides: settings of the command line, over those of the file.
        drafts: of the space, where it does not stand in the table.

    Raises:
        UserError: anything in it is wrong.
    """
    for key in table:
        if key not in (*COMMON_KEYS, *TABLES):
            raise UserError(f"{where}: {unknown('key of a sweep', key, [*COMMON_KEYS, *TABLES])}")
    common = keys.read_common(table, changes or {}, where=where)
    config, objective = keys.read_what_runs(common, where=where)
    fixed = keys.read_settings(table.get("settings", {}), where=where)
    fixed |= keys.read_overrides(overrides, common, has_seed="seed" in table or (changes or {}).get("seed") is not None)
    if objective and fixed:
        raise UserError(f"{where}: settings stand over a recipe, and {objective} is none; leave them out")
    fixed_words = tuple(f"{key}={text}" for key, text in sorted(fixed.items()))
    settings = None
    if config:
        settings = load_at({}, Base(config, fixed_words, None), where=where)
        for key in filter(is_keyword, fixed):
            find_keyword(key, settings, where=f"{where}, settings.{key}")
    if drafts is None:
        if "space" not in table:
            raise UserError(f"{where} has no [space]; name what varies, such as optimizer.learning_rate = [1e-3, 3e-3]")
        drafts = read_space_table(table["space"], where=where, has_settings=bool(config))
    if not drafts:
        raise UserError(f"{where} varies nothing; name one setting at least")
    for draft in drafts:
        if draft.key in fixed:
            raise UserError(f"{draft.where} varies {draft.key}, which is also set to {fixed[draft.key]}; leave one out")
    space = make_space(drafts, Base(config, fixed_words, settings))
    sampler, sampler_options = keys.read_sampler(common, table.get("sampler", GRID), changes or {}, where=where)
    metric, mode = keys.choose_metric(common, objective=objective, where=where)
    definition = SweepDefinition(
        config=config,
        objective=objective,
        overrides=fixed_words,
        space=space,
        sampler=sampler,
        sampler_options=sampler_options,
        trials=keys.count_trials(common["trials"], sampler, space, where=where),
        seeds=common["seeds"],
        seed=common["seed"],
        metric=metric,
        mode=mode,
        lag=common["lag"],
        halving=keys.read_halving(table.get("halving"), where=where),
        workers=common["workers"],
        threads=common["threads"],
        max_failures=common["max_failures"],
        name=name,
    )
    refuse_contradictions(definition, settings, where=where)
    return definition


def refuse_contradictions(definition: SweepDefinition, settings: Settings | None, *, where: str) -> None:
    """Raises UserError for keys of a definition that do not go together."""
    varied = [dimension.key for dimension in definition.space.dimensions]
    # a key of that name that an objective takes is the user's own
    if "seed" in varied and definition.config and definition.seeds > 1:
        raise UserError(
            f"{where}: the space varies the seed itself, so that seeds = {definition.seeds} would run the same trials "
            "again; leave one of them out"
        )
    if settings is not None and str(settings["data.validation"]).startswith("test"):
        raise UserError(
            f"{where}: data.validation is {settings['data.validation']}, and a sweep would choose by what it is tested "
            "on; take a part of train or of validation"
        )
    if settings is not None and definition.metric.endswith("loss"):
        refuse_other_losses(varied, definition.metric, where=where)
    if SAMPLERS[definition.sampler].is_adaptive and definition.workers > definition.lag:
        raise UserError(
            f"{where}: workers is {definition.workers}, and {definition.sampler} waits for the result of the point "
            f"{definition.lag} before each, so that {definition.lag} work at the most; raise lag, which belongs to the "
            "sweep, or take fewer workers"
        )
    if definition.halving is not None:
        refuse_wrong_halving(definition, definition.halving, settings, where=where)


def refuse_other_losses(varied: Sequence[str], metric: str, *, where: str) -> None:
    """Raises UserError where the space varies what a loss is, by which trials are to be compared."""
    for key in varied:
        if key.startswith("loss.") and key not in TRAINING_LOSS:
            raise UserError(
                f"{where}: the space varies {key}, so that {metric} is another measure in each trial; compare by "
                "validation.accuracy, or leave the key out"
            )


def refuse_wrong_halving(
    definition: SweepDefinition, halving: Halving, settings: Settings | None, *, where: str
) -> None:
    """Raises UserError where trials have no common rungs, or none below their end."""
    if settings is None:
        raise UserError(
            f"{where}: halving stops and goes on with runs of a recipe, and an objective is none; leave it out"
        )
    first, first_unit = parse_duration(halving.first)
    whole, unit = parse_duration(settings["duration"])
    lengths = {*LENGTHS[unit], *LENGTHS[first_unit]}
    for dimension in definition.space.dimensions:
        if dimension.key == "evaluate_every":
            raise UserError(
                f"{where}: the space varies evaluate_every, and a rung of the halving ends at an evaluation, so that "
                "trials would be compared after different numbers of steps; leave one out"
            )
        if dimension.key in lengths:
            raise UserError(
                f"{where}: the space varies {dimension.key}, on which the length of a trial depends, and halving "
                "compares trials after the same number of steps; leave one out, or give durations in steps"
            )
    if first_unit == unit and first >= whole:
        raise UserError(
            f"{where}: halving.first is {halving.first}, and a trial is done after {settings['duration']}; make it "
            "shorter"
        )
