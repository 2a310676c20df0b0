"""From a recipe and a command line to final settings: recipe, its words, smoke, the command line, each over the last.

The first check is here: each common key against the table. Keywords of the model and of the data source are plain
values here and are checked by the rooms that own them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnn_vit.errors import UserError, nearest, unknown
from cnn_vit.settings import durations, recipes, values
from cnn_vit.settings.keys import KEYS, OPEN, REQUIRED, SECTIONS, is_keyword
from cnn_vit.settings.values import quote_value

SMOKE_SIDE = 64  # pixels, at most
SMOKE_EXAMPLES = {"train_count": 256, "validation_count": 64, "test_count": 64}
SMOKE_BATCH = 32
SMOKE_WARMUP = 5  # steps, at most
COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Settings:
    """Final settings of one run.

    Attributes:
        values: flat, {"data.batch_size": 128}; every common key, and the keywords given to the model and the source.
        origin: where each came from: "default", "recipe", "word 56" or "command line".
        recipe: name of the recipe, `cifar_resnet`.
        words: its words, smoke last.
    """

    values: dict[str, Any]
    origin: dict[str, str]
    recipe: str
    words: tuple[str, ...] = ()

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def section(self, name: str) -> dict[str, Any]:
        """Settings of a section without its name: {"batch_size": 128}."""
        return {key.removeprefix(f"{name}."): value for key, value in self.values.items() if key.startswith(f"{name}.")}


def load(recipe: str, overrides: Sequence[str] = ()) -> Settings:
    """Loads a recipe and puts the command line over it.

    A model of another family, or another data source, named on the command line starts without the keywords that the
    recipe gave to its own.

    Args:
        recipe: "configs/cifar_resnet.py:56,smoke".
        overrides: ["optimizer.learning_rate=1e-3"].

    Raises:
        UserError: a fault of the file, an unknown word or key, a value that a key does not take.
    """
    path, words = recipes.split_name(recipe)
    name = recipe.partition(".py:")[0].removesuffix(".py") + ".py"
    found, origin = apply_words(path, [word for word in words if word != recipes.SMOKE], name=name)
    if recipes.SMOKE in words:
        smoked = smoke(found)
        found = {key: value for key, value in found.items() if not is_keyword(key)} | smoked
        origin |= dict.fromkeys(smoked, f"word {recipes.SMOKE}")
    written = dict(split_override(override) for override in overrides)
    for section in OPEN:
        found = without_replaced_keywords(section, found, written)
    for key, text in written.items():
        found[key] = parse_value(key, text)
        origin[key] = COMMAND_LINE
    return complete(found, origin, recipe=path.stem, words=words, name=name)


def apply_words(path: Path, words: Sequence[str], *, name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """What a recipe sets with its words, checked, and which word set it."""
    found: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for where, given in recipes.layers(path, words, name=name):
        origin = {key: origin[key] if key in found and found[key] == value else where for key, value in given.items()}
        found = given
    return {key: fit_value(key, value, where=name) for key, value in found.items()}, origin


def fit_value(key: str, value: Any, *, where: str) -> Any:
    """A value of a recipe or a stored run in its own form."""
    if key in KEYS:
        return values.check_value(key, KEYS[key], value, where=where)
    if not is_keyword(key):
        raise unknown_key_error(key)
    try:
        return values.is_plain(value)
    except ValueError as error:
        raise UserError(
            f"{key} is {quote_value(value)} ({where}); it takes numbers, texts, true, false, none and tuples of them"
        ) from error


def parse_value(key: str, text: str) -> Any:
    """A value of the command line in its own form."""
    if key in KEYS:
        return values.check_value(key, KEYS[key], text, where=COMMAND_LINE, written=True)
    if not is_keyword(key):
        raise unknown_key_error(key)
    if len(text) > values.LONGEST:
        raise UserError(
            f"{key} is {quote_value(text)} ({COMMAND_LINE}), {len(text)} characters; {values.LONGEST} are the most"
        )
    return values.parse_any(text)


def unknown_key_error(key: str) -> UserError:
    """The error for a key that is none."""
    section, _, name = key.rpartition(".")
    inside = {known.rpartition(".")[2]: known for known in KEYS if known.startswith(f"{key}.")}
    if inside:
        return UserError(f"{key!r} is a section, not a setting; set {', '.join(inside.values())}")
    ours = {known.rpartition(".")[2]: known for known in KEYS if section not in SECTIONS or known.startswith(section)}
    if near := nearest(name, ours, most=2):
        return UserError(f"no setting {quote_value(key)}; did you mean {' or '.join(ours[one] for one in near)}?")
    return unknown("setting", key, KEYS)


def split_override(override: str) -> tuple[str, str]:
    """Key and text of `optimizer.learning-rate=1e-3`; dashes and underscores are the same in keys."""
    key, equals, text = override.partition("=")
    if not equals:
        raise UserError(f"{override!r} sets nothing; write {override}=VALUE")
    return key.strip().replace("-", "_"), text


def without_replaced_keywords(section: str, found: dict[str, Any], written: dict[str, str]) -> dict[str, Any]:
    """Settings without the recipe's keywords of a section where the command line names another thing for it."""
    ours = found.get(f"{section}.name") or ""
    if written.get(f"{section}.name", ours).partition("/")[0] == ours.partition("/")[0]:
        return found
    return {key: value for key, value in found.items() if not (is_keyword(key) and key.startswith(f"{section}."))}


def smoke(found: dict[str, Any]) -> dict[str, Any]:
    """What makes any recipe a tiny run that needs no files: drawn shapes at its size, its family's test variant."""
    side = found.get("data.image_size") or SMOKE_SIDE // 2
    small = tuple(min(SMOKE_SIDE, one) for one in side) if isinstance(side, tuple) else min(SMOKE_SIDE, side)
    family = (found.get("model.name") or "").partition("/")[0]
    classes = found.get("data.classes") or 10
    counts = {**SMOKE_EXAMPLES, "train_count": max(SMOKE_EXAMPLES["train_count"], classes)}  # each class has an image
    warmup = durations.steps(
        found.get("schedule.warmup", 0), examples=counts["train_count"], batch=SMOKE_BATCH, key="schedule.warmup"
    )
    return {
        **{key: row.default for key, row in KEYS.items() if key.startswith("data.")},
        "data.name": "shapes",
        **{f"data.{name}": count for name, count in counts.items()},
        "data.image_size": small,
        "data.channels": found.get("data.channels") or 3,
        "data.classes": classes,
        "data.augment": found.get("data.augment", ()),
        "data.batch_size": SMOKE_BATCH,
        "model.name": f"{family}/test" if family else None,
        "duration": "20 steps",
        "evaluate_every": "10 steps",
        "log_every": "5 steps",
        "schedule.warmup": f"{min(warmup, SMOKE_WARMUP)} steps",
    }


def complete(
    found: dict[str, Any], origin: dict[str, str], *, recipe: str, words: tuple[str, ...], name: str
) -> Settings:
    """Settings with every default filled in, in the table's order, keywords behind the name they belong to."""
    for key, row in KEYS.items():
        if row.default is REQUIRED and found.get(key) is None:
            raise UserError(f"{name} sets no {key}, {row.meaning}; it takes {values.accepted_values(row)}")
    final: dict[str, Any] = {}
    for key, row in KEYS.items():
        final[key] = found.get(key, row.default)
        if key in (f"{section}.name" for section in OPEN):
            section = key.removesuffix("name")
            final |= {other: value for other, value in found.items() if is_keyword(other) and other.startswith(section)}
    return Settings(final, {key: origin.get(key, "default") for key in final}, recipe, words)
