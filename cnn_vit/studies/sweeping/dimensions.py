"""From what a user writes of each setting that is varied to a `Space` whose every value the recipe takes.

A draft is a dimension as it was written, in a TOML file, in words of the command line or in a recipe's `sweep(add)`.
`make_space` types its values by the setting's own key and loads the recipe once at each choice and at both ends of each
range, so that a misspelled key and a wrong value are found before anything runs. Nothing here imports jax.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cnn_vit import data, models
from cnn_vit.errors import UserError, nearest, unknown
from cnn_vit.settings import KEYS, Key, Settings, is_keyword, quote_value, run_keys
from cnn_vit.settings import load as load_settings
from cnn_vit.settings.load import COMMAND_LINE, parse_value, unknown_key_error
from cnn_vit.settings.record import normalize, tuples_as_lists
from cnn_vit.settings.rules import keyword_row
from cnn_vit.settings.signatures import Keyword
from cnn_vit.settings.values import MAX_EXACT_INT, as_float, as_int, as_plain, check_value
from cnn_vit.studies.sweeping.space import CHOICE, INT, KINDS, LOG, Dimension, Point, Space, text_of_value

STEPS = "steps"
WHEN = "when"
# What the fingerprint of a run holds by content, so that another value is another run though the name does not count.
DECIDING_BY_CONTENT = ("data.path", "pretrained.weights")
TEST_ONLY = ("test_weights", "data.test", "data.test_count")  # settings that only the test split sees
# Settings that decide which images trials are compared on.
COMPARED_ON = ("data.validation", "data.validation_count")
NONE = "none"  # how a setting that may be unset is written where it is


@dataclass(frozen=True)
class Draft:
    """A dimension as it was written.

    Attributes:
        key: of the setting.
        kind: of space.KINDS.
        values: of a choice all values; of a range its two ends.
        steps: of a range; None where none are written.
        when: the values, by key, for which the dimension is active.
        where: the file and the place in it, for errors.
        is_text: whether the values are texts of the command line, which have to be read first.
    """

    key: str
    kind: str
    values: tuple[Any, ...]
    steps: Any = None
    when: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    where: str = COMMAND_LINE
    is_text: bool = False


@dataclass(frozen=True)
class Base:
    """What stands below every point of a sweep.

    Attributes:
        config: the recipe with its words; "" for an objective of the user's own, which takes any key.
        overrides: settings over the recipe, "key=value".
        settings: the two, loaded; None for an objective.
    """

    config: str
    overrides: tuple[str, ...]
    settings: Settings | None


# Reading --------------------------------------------------------------------------------------------------------------


def draft_of_table(key: Any, table: Any, *, where: str) -> Draft:
    """Reads a dimension as a TOML file writes it: {log = [1e-4, 1e-1], steps = 4}, or a list of choices.

    Raises:
        UserError: an unknown word, none of the kinds or several, something else than a list.
    """
    if not isinstance(key, str):
        raise UserError(f"{where} varies {quote_value(key)}, which is not the name of a setting; write it as a text")
    where = f"{where}, space.{key}"
    if isinstance(table, list | tuple):
        table = {CHOICE: table}
    if not isinstance(table, dict):
        raise UserError(
            f"{where} is {quote_value(table)}; it takes a list of values, or one of "
            "{log = [LOW, HIGH]}, {uniform = [LOW, HIGH]}, {int = [LOW, HIGH]}, {choice = [...]}"
        )
    for word in table:
        if word not in (*KINDS, STEPS, WHEN):
            raise UserError(f"{where}: {unknown('kind of dimension', word, (*KINDS, STEPS, WHEN))}")
    kinds = [word for word in table if word in KINDS]
    if len(kinds) != 1:
        named = " and ".join(kinds) or "none"
        raise UserError(f"{where} names {named} of the kinds {', '.join(KINDS)}; name one")
    kind = kinds[0]
    values = table[kind]
    if not isinstance(values, list | tuple):
        raise UserError(f"{where}: {kind} is {quote_value(values)}; it takes a list")
    if kind == CHOICE and table.get(STEPS) is not None:
        raise UserError(f"{where}: steps belong to a range, and a choice has its values; leave steps out")
    return Draft(key, kind, tuple(values), table.get(STEPS), read_when(table.get(WHEN), where=where), where)


def read_when(table: Any, *, where: str) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    """Reads the condition of a dimension: {"optimizer.name" = "sgd"}, a value or a list of values for each key."""
    if table is None:
        return ()
    if not isinstance(table, dict) or not table:
        raise UserError(f'{where}: when is {quote_value(table)}; it takes a table, {{"optimizer.name" = "sgd"}}')
    conditions = {}
    for key, values in flatten_condition(table).items():
        conditions[key] = tuple(values) if isinstance(values, list | tuple) else (values,)
        if not conditions[key]:
            raise UserError(f"{where}: when names no value of {key}, so that the dimension is never active; name one")
    return tuple(sorted(conditions.items()))


def flatten_condition(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns a condition under dotted keys: TOML makes tables of keys that are not quoted."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat |= flatten_condition(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


# Checking -------------------------------------------------------------------------------------------------------------


def make_space(drafts: Sequence[Draft], base: Base) -> Space:
    """Makes the space of some drafts, in their order.

    Raises:
        UserError: a key, a value, a range or a condition is wrong; the sentence says where.
    """
    space = Space(())
    for draft in drafts:
        if draft.key in [dimension.key for dimension in space.dimensions]:
            raise UserError(f"{draft.where} varies {draft.key}, which is varied already; name each key once")
        refuse_useless_key(draft, base)
        space = Space((*space.dimensions, make_dimension(draft, space, base)))
    if base.settings is not None:
        for draft, dimension in zip(drafts, space.dimensions, strict=True):
            check_values(draft, dimension, space, base)
    return space


def refuse_useless_key(draft: Draft, base: Base) -> None:
    """Raises UserError for a setting whose variation could not change what the sweep measures."""
    if base.settings is None:
        return
    key = draft.key
    if key in TEST_ONLY:
        raise UserError(
            f"{draft.where} varies {key}, which only the test split sees, and a sweep chooses by validation; leave it "
            "out"
        )
    if key in COMPARED_ON:
        raise UserError(
            f"{draft.where} varies {key}, and trials that are compared on other images cannot be compared; set it once "
            "under [settings] (--config.key=value)"
        )
    if key in KEYS and not KEYS[key].changes_results and key not in DECIDING_BY_CONTENT:
        raise UserError(
            f"{draft.where} varies {key}, {KEYS[key].meaning}, which changes no result, so that all its trials would "
            "be the same; leave it out, or set it once under [settings] (--config.key=value)"
        )


def make_dimension(draft: Draft, earlier: Space, base: Base) -> Dimension:
    """Makes a dimension of a draft, its values in the form that its setting has.

    Raises:
        UserError: as of `make_space`.
    """
    conditions = []
    for key, values in draft.when:
        conditions.append((key, check_condition(draft, key, values, earlier, base)))
    dimension = Dimension(draft.key, draft.kind, when=tuple(conditions))
    row = None
    if base.settings is not None:
        point = find_active_point(dimension, earlier, where=draft.where)
        row = find_row(draft, load_at(point, base, where=draft.where))
    if draft.kind == CHOICE:
        return replace(dimension, choices=check_choices(draft, row))
    return check_range(draft, dimension, row)


def check_condition(draft: Draft, key: str, values: Sequence[Any], earlier: Space, base: Base) -> tuple[Any, ...]:
    """Returns the values of a condition as its key has them.

    Raises:
        UserError: the key is not varied by an earlier dimension, or never has one of the values.
    """
    dimensions = {dimension.key: dimension for dimension in earlier.dimensions}
    if key not in dimensions:
        near = nearest(key, dimensions)
        remedy = f"did you mean {' or '.join(near)}?" if near else f"there is {', '.join(dimensions) or 'none'}"
        raise UserError(
            f"{draft.where}: when names {quote_value(key)}, which is not varied above it; a condition names an earlier "
            f"key of the space; {remedy}"
        )
    condition = dimensions[key]
    if condition.kind not in (CHOICE, INT):
        raise UserError(
            f"{draft.where}: when names {key}, of which hardly a value comes twice, for it is {condition.kind}; a "
            "condition needs a choice or an int"
        )
    row = None
    if base.settings is not None:
        point = find_active_point(condition, earlier, where=draft.where)
        row = find_row(replace(draft, key=key), load_at(point, base, where=draft.where))
    fitted = []
    for value in values:
        typed = fit(replace(draft, key=key, is_text=False), row, value)
        if condition.kind == INT:
            is_int = isinstance(typed, int) and not isinstance(typed, bool)
            is_possible = is_int and condition.low <= typed <= condition.high
            possible = f"{condition.low} to {condition.high}"
        else:
            is_possible = value_text(typed) in map(value_text, condition.choices)
            possible = ", ".join(map(text_of_value, condition.choices))
        if not is_possible:
            raise UserError(
                f"{draft.where}: when asks for {key}={text_of_value(value)}, which {key} never is; it is {possible}"
            )
        fitted.append(typed)
    return tuple(fitted)


def check_choices(draft: Draft, row: Key | None) -> tuple[Any, ...]:
    """Returns the values of a choice in the form of their setting.

    Raises:
        UserError: there are none, one is wrong, or two are the same.
    """
    if not draft.values:
        raise UserError(f"{draft.where} has no choices; name one at least")
    choices = []
    texts: list[str] = []
    for value in draft.values:
        fitted = fit(draft, row, value)
        if value_text(fitted) in texts:
            raise UserError(f"{draft.where} has the choice {text_of_value(fitted)} twice; name each once")
        choices.append(fitted)
        texts.append(value_text(fitted))
    return tuple(choices)


def check_range(draft: Draft, dimension: Dimension, row: Key | None) -> Dimension:
    """Returns the dimension with its two ends and the steps of a grid.

    Raises:
        UserError: the ends are not two numbers in order, or not such as the kind or the setting takes.
    """
    kind, where = draft.kind, draft.where
    if len(draft.values) != 2:
        raise UserError(f"{where}: {kind} is {quote_value(list(draft.values))}; it takes two numbers, [LOW, HIGH]")
    as_number = as_int if kind == INT else as_float
    ends: list[Any] = []
    for value in draft.values:
        try:
            ends.append(as_number(value))
            if abs(ends[-1]) > MAX_EXACT_INT and kind == INT:
                raise ValueError("too large")
        except ValueError as error:
            number = f"an int up to {MAX_EXACT_INT:,}" if kind == INT else "a number"
            raise UserError(f"{where}: {kind} is from {quote_value(value)}, which is not {number}") from error
    low, high = ends
    if kind == LOG and low <= 0:
        raise UserError(f"{where}: log is from {low:g}, which has no logarithm; begin above 0")
    if low >= high:
        remedy = "swap them" if low > high else "name one value as a choice, [VALUE]"
        raise UserError(f"{where}: {kind} is from {low:g} to {high:g}; the first must be below the second: {remedy}")
    if row is not None and row.kind == "int" and kind != INT:
        raise UserError(f"{where} is {kind}, and {draft.key} takes an int; write int = [{low:g}, {high:g}]")
    for end in ends:
        fit(draft, row, end)
    steps = draft.steps
    if steps is not None:
        try:
            steps = as_int(steps)
        except ValueError:
            steps = 0
        if not 2 <= steps <= 10_000:
            raise UserError(f"{where}: steps is {quote_value(draft.steps)}; it takes an int in [2, 10000]")
    return replace(dimension, low=low, high=high, steps=steps)


def fit(draft: Draft, row: Key | None, value: Any) -> Any:
    """Returns a value in the form that its setting has, with lists for tuples, as JSON has them.

    Args:
        draft: whose key and place the error names.
        row: of the setting; None for a keyword whose type only the model or the source knows, and for a user's own key.
        value: as it was written.

    Raises:
        UserError: the setting takes something else.
    """
    try:
        if draft.is_text:
            table = {} if row is None else {draft.key: row}
            return tuples_as_lists(parse_value(draft.key, value, table))
        is_unset = isinstance(value, str) and value.strip().lower() == NONE
        if is_unset and (row is None or row.is_optional):  # TOML has no null
            return None
        if row is None:
            return tuples_as_lists(as_plain(value))
        return tuples_as_lists(check_value(draft.key, row, value, where=draft.where))
    except ValueError as error:
        raise UserError(
            f"{draft.where}: {quote_value(value)} is not a value; it takes numbers, texts, true, false and lists "
            "of them"
        ) from error


def value_text(value: Any) -> str:
    """Returns a value as a text that two values share if they mean the same: 1 and 1.0, but not 1 and true."""
    return json.dumps(normalize(value))


# Settings at a point --------------------------------------------------------------------------------------------------


def find_active_point(dimension: Dimension, space: Space, *, where: str) -> Point:
    """Returns a point of a space at which a further dimension is active: its conditions hold, and theirs.

    Raises:
        UserError: there is none, for two conditions contradict each other.
    """
    dimensions = {earlier.key: earlier for earlier in space.dimensions}
    allowed: dict[str, list[Any]] = {}
    conditions = list(dimension.when)
    while conditions:
        key, values = conditions.pop()
        allowed[key] = [value for value in values if value in allowed.get(key, values)]
        if not allowed[key]:
            raise UserError(
                f"{where} is never active: its conditions ask for values of {key} that exclude one another; mend when"
            )
        conditions += dimensions[key].when
    point: Point = {}
    for earlier in space.dimensions:
        if space.is_active(earlier, point):
            possible = allowed.get(earlier.key) or end_values(earlier)
            point[earlier.key] = possible[0]
    return point


def end_values(dimension: Dimension) -> list[Any]:
    """Returns every choice, or both ends of a range."""
    return list(dimension.choices) if dimension.kind == CHOICE else [dimension.low, dimension.high]


def load_at(point: Mapping[str, Any], base: Base, *, where: str) -> Settings:
    """Loads the recipe at a point.

    Raises:
        UserError: it takes a key or a value of the point not.
    """
    texts = [f"{key}={text_of_value(value)}" for key, value in point.items()]
    try:
        return load_settings(base.config, [*base.overrides, *texts])
    except UserError as error:
        raise type(error)(f"{where}: {error}{at_point(point)}", details=error.details) from error


def at_point(point: Mapping[str, Any]) -> str:
    """Names a point behind a sentence about it."""
    words = [f"{key}={text_of_value(value)}" for key, value in point.items()]
    if not words:
        return ""
    remedy = "; where they exclude each other, say when each is active" if len(words) > 1 else ""
    return f" (at the point {' '.join(words)}){remedy}"


def find_row(draft: Draft, settings: Settings) -> Key | None:
    """Returns the row of a setting at a point; None for a keyword of a type that settings have no name for.

    Raises:
        UserError: neither the settings nor the model or the source that are named there take the key.
    """
    key = draft.key
    table = run_keys(settings.values)
    if key in table:
        return table[key]
    if not is_keyword(key):
        raise UserError(f"{draft.where}: {unknown_key_error(key, table)}")
    keyword = find_keyword(key, settings, where=draft.where)
    try:
        return keyword_row(keyword)
    except LookupError:
        return None


def find_keyword(key: str, settings: Settings, *, where: str) -> Keyword:
    """Returns a keyword of the model or the data source that settings name, as its file describes it.

    Raises:
        UserError: they have none of that name, or it follows from the data.
    """
    section, _, name = key.partition(".")
    if section == "data":
        keywords = data.read_keywords(settings["data.name"])
    else:
        keywords = models.read_keywords(settings["model.name"])
        if name in models.KEYWORDS_FROM_DATA:
            raise UserError(f"{where}: {key} is not a setting; the model takes it from data.{name}")
    if name in keywords:
        return keywords[name]
    common = [row_key.removeprefix(f"{section}.") for row_key in KEYS if row_key.startswith(f"{section}.")]
    choices = nearest(name, [*keywords, *common]) or keywords
    raise UserError(f"{where}: {unknown('setting', key, [f'{section}.{choice}' for choice in choices])}")


def check_values(draft: Draft, dimension: Dimension, space: Space, base: Base) -> None:
    """Loads the recipe at each choice, or at both ends of a range, where all that is active has its first value.

    Raises:
        UserError: the recipe takes one of them not, or reads another value from its text.
    """
    position = space.dimensions.index(dimension)
    for value in end_values(dimension):
        point = find_active_point(dimension, Space(space.dimensions[:position]), where=draft.where)
        point[dimension.key] = value
        for later in space.dimensions[position + 1 :]:
            if space.is_active(later, point):
                point[later.key] = end_values(later)[0]
        settings = load_at(point, base, where=draft.where)
        row = find_row(draft, settings)
        expected = value if row is None or dimension.kind == CHOICE else fit(replace(draft, is_text=False), row, value)
        loaded = tuples_as_lists(settings[dimension.key])
        if value_text(loaded) != value_text(expected):
            raise UserError(
                f"{draft.where}: {quote_value(value)} becomes {quote_value(loaded)} as {dimension.key}="
                f"{text_of_value(value)} on a command line, which is how trials get it; write that"
            )
