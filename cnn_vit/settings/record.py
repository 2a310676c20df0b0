"""Settings on disk and side by side: their JSON, their fingerprint, how two of them differ, what each one means."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from cnn_vit.errors import UserError
from cnn_vit.settings import rules
from cnn_vit.settings.keys import KEYS, is_keyword
from cnn_vit.settings.load import Settings, complete_settings, fit_values
from cnn_vit.settings.values import quote_value

STORED = {"recipe": str, "words": list, "values": dict, "origin": dict}  # the record's keys, with their types in JSON


def to_json(settings: Settings) -> dict[str, Any]:
    """Returns settings as plain JSON values, which `from_json` reads back."""
    return {
        "recipe": settings.recipe,
        "words": list(settings.words),
        "values": tuples_as_lists(settings.values),
        "origin": dict(settings.origin),
    }


def from_json(stored: Any, *, file: str) -> Settings:
    """Reads settings back from what `to_json` returned, checked as a recipe's are.

    Raises:
        UserError: it is not such a record, or a value in it is not one that its key takes.
    """
    if not is_record(stored):
        raise UserError(f"{file} holds {quote_value(stored)}; settings are stored as {', '.join(STORED)}")
    values = drop_foreign_keywords(stored["values"])
    for key in values:
        section, _, name = key.partition(".")
        is_of_rule = section in rules.TABLES and bool(rules.rules_that_take(section, name))
        if key not in KEYS and not is_keyword(key) and not is_of_rule:
            raise UserError(
                f"{file} sets {quote_value(key)}, which this version of cnn_vit does not know; use the version "
                "that wrote it (the environment beside it names the commit)"
            )
    assignments = fit_values(values, where=file)
    words = tuple(map(str, stored["words"]))
    origins = {str(key): str(origin) for key, origin in stored["origin"].items()}
    return complete_settings(assignments, origins, recipe_name=stored["recipe"], words=words, file_in_errors=file)


def is_record(stored: Any) -> bool:
    """Whether a JSON value has the keys and types of what `to_json` returns; their values may still be wrong."""
    if not isinstance(stored, dict):
        return False
    return all(isinstance(stored.get(name), kind) for name, kind in STORED.items())


def drop_foreign_keywords(values: dict[str, Any]) -> dict[str, Any]:
    """Returns stored values without the keywords of other optimizers, schedules and losses than those of the run.

    Runs were once stored with the keywords of all of them, and those of the others changed nothing.
    """
    values_of_run = {}
    for key, value in values.items():
        section, _, name = key.partition(".")
        takers = rules.rules_that_take(section, name) if section in rules.TABLES else []
        if not takers or rules.rule_name(section, values) in (*takers, None):
            values_of_run[key] = value
    return values_of_run


def tuples_as_lists(value: Any) -> Any:
    """Returns a value with its tuples as lists, at every depth, as JSON has them."""
    if isinstance(value, dict):
        return {key: tuples_as_lists(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [tuples_as_lists(item) for item in value]
    return value


def deciding_settings(settings: Settings) -> dict[str, Any]:
    """Returns the settings that change results, values that mean the same in one form."""
    deciding = {}
    for key, value in settings.values.items():
        if key not in KEYS or KEYS[key].changes_results:  # every keyword does
            deciding[key] = normalize(value)
    return deciding


def normalize(value: Any) -> Any:
    """Returns the one form of values that mean the same: a whole float is an int, for 1.0 and 1 give the same run."""
    if isinstance(value, tuple | list):
        return [normalize(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def fingerprint(settings: Settings, data_fingerprint: str) -> str:
    """Returns the sha256, in hexadecimal, of the canonical JSON of all that decides a run's results: settings and data.

    Args:
        settings: those of the run.
        data_fingerprint: the sha256 of the data.
    """
    deciding = {"settings": deciding_settings(settings), "data": data_fingerprint}
    text = json.dumps(deciding, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(ours: Settings, theirs: Settings) -> list[str]:
    """Lists the settings that differ and change results: "optimizer.learning_rate: 0.1 here, 0.01 in the folder".

    Args:
        ours: what the user asks for now.
        theirs: what the run folder was started with.
    """
    our_values, their_values = deciding_settings(ours), deciding_settings(theirs)
    lines = []
    for key in our_values | their_values:
        # As text, for True and 1 are equal in Python but differ in the fingerprint.
        is_same = repr(our_values.get(key)) == repr(their_values.get(key))
        if not is_same or (key in our_values) != (key in their_values):
            lines.append(f"{key}: {quoted_setting(ours, key)} here, {quoted_setting(theirs, key)} in the folder")
    return lines


def quoted_setting(settings: Settings, key: str) -> str:
    """Returns the value of a setting as a sentence quotes it, or "not set"."""
    return quote_value(settings[key]) if key in settings.values else "not set"


@dataclass(frozen=True)
class ExplainedSetting:
    """A setting as `explain` lists it.

    Attributes:
        key: its name, `data.batch_size`.
        value: its value.
        origin: where the value comes from, as in `Settings`.
        meaning: what it does; "" for a keyword of the model or the source, which only they know.
    """

    key: str
    value: Any
    origin: str
    meaning: str


def explain(settings: Settings) -> list[ExplainedSetting]:
    """Lists every setting with its origin and meaning."""
    table = rules.run_keys(settings.values)
    rows = []
    for key, value in settings.values.items():
        meaning = table[key].meaning if key in table else ""
        rows.append(ExplainedSetting(key, value, settings.origin[key], meaning))
    return rows
