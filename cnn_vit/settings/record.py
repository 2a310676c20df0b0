"""Settings on disk and side by side: their JSON, their fingerprint, how two differ, how one is explained."""

import hashlib
import json
from typing import Any

from cnn_vit.errors import UserError
from cnn_vit.settings.keys import KEYS, is_keyword
from cnn_vit.settings.load import Settings, complete, fit_value
from cnn_vit.settings.values import quote_value


def to_json(settings: Settings) -> dict[str, Any]:
    """Settings as plain JSON values, which `from_json` takes back."""
    return {
        "recipe": settings.recipe,
        "words": list(settings.words),
        "values": tuples_as_lists(settings.values),
        "origin": dict(settings.origin),
    }


def from_json(stored: Any) -> Settings:
    """Settings from what `to_json` gave, checked as a recipe's are.

    Raises:
        UserError: it is no such record, or a value in it is not what its key takes.
    """
    kinds = {"recipe": str, "words": list, "values": dict, "origin": dict}
    if not isinstance(stored, dict) or any(not isinstance(stored.get(name), kind) for name, kind in kinds.items()):
        raise UserError(f"config.json holds {quote_value(stored)}; settings are stored as {', '.join(kinds)}")
    for key in stored["values"]:
        if key not in KEYS and not is_keyword(key):
            raise UserError(
                f"config.json sets {quote_value(key)}, which this version of cnn_vit does not know; use the version that "
                "wrote it (environment.json beside it names the commit)"
            )
    found = {key: fit_value(key, value, where="config.json") for key, value in stored["values"].items()}
    words = tuple(map(str, stored["words"]))
    origin = {str(key): str(where) for key, where in stored["origin"].items()}
    return complete(found, origin, recipe=stored["recipe"], words=words, name="config.json")


def tuples_as_lists(value: Any) -> Any:
    """Tuples as lists, as JSON has them."""
    if isinstance(value, dict):
        return {key: tuples_as_lists(item) for key, item in value.items()}
    return [tuples_as_lists(item) for item in value] if isinstance(value, tuple | list) else value


def deciding_settings(settings: Settings) -> dict[str, Any]:
    """The settings that change results. Whole floats are ints here: 1.0 and 1 give the same run."""
    return {
        key: normalize(value) for key, value in settings.values.items() if is_keyword(key) or KEYS[key].changes_results
    }


def normalize(value: Any) -> Any:
    """The one form of values that mean the same."""
    if isinstance(value, tuple | list):
        return [normalize(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def fingerprint(settings: Settings, data_fingerprint: str) -> str:
    """sha256, in hex, of the canonical JSON of all that decides a run's results: settings and data."""
    decides = {"settings": deciding_settings(settings), "data": data_fingerprint}
    text = json.dumps(decides, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(ours: Settings, theirs: Settings) -> list[str]:
    """A line per setting that differs and changes results: "optimizer.learning_rate: 0.1 here, 0.01 in the folder"."""
    here, there = deciding_settings(ours), deciding_settings(theirs)
    return [
        f"{key}: {quoted_setting(ours, key)} here, {quoted_setting(theirs, key)} in the folder"
        for key in {**here, **there}
        if (key in here, repr(here.get(key))) != (key in there, repr(there.get(key)))
    ]


def quoted_setting(settings: Settings, key: str) -> str:
    """A setting as a sentence quotes it."""
    return quote_value(settings[key]) if key in settings.values else "not set"


def explain(settings: Settings) -> list[tuple[str, Any, str, str]]:
    """Key, value, origin and meaning of every setting; keywords of the model and the source have no meaning here."""
    return [
        (key, value, settings.origin[key], KEYS[key].meaning if key in KEYS else "")
        for key, value in settings.values.items()
    ]
