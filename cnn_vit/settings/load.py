"""From a recipe and a command line to the settings of a run: recipe, words, smoke, command line, each over the last.

The first check is here: each common key against the table. Keywords of the model and of the data source are plain
values here and are checked by the rooms that own them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnn_vit.errors import UserError, nearest, unknown
from cnn_vit.settings import durations, recipes
from cnn_vit.settings.keys import KEYS, OPEN, REQUIRED, SECTIONS, is_keyword
from cnn_vit.settings.values import MAX_CHARACTERS, accepted_values, as_plain, check_value, parse_any, quote_value

SMOKE_SIDE = 64  # pixels, at most
SMOKE_EXAMPLES = {"train_count": 256, "validation_count": 64, "test_count": 64}
SMOKE_CLASSES = 10  # where the recipe does not say
SMOKE_BATCH = 32  # images
SMOKE_WARMUP = 5  # steps, at most
COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Settings:
    """The settings of one run.

    Attributes:
        values: flat, {"data.batch_size": 128}: every common key, and the keywords set for the model and the source.
        origin: where each value comes from: "default", "recipe", "word 56" or "command line".
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
        """Returns the settings of a section without its name: {"batch_size": 128}."""
        prefix = f"{name}."
        return {key.removeprefix(prefix): value for key, value in self.values.items() if key.startswith(prefix)}


def load(recipe: str, overrides: Sequence[str] = ()) -> Settings:
    """Loads a recipe with its words and puts the command line over it.

    A model of another family, or another data source, named on the command line starts without the keywords that the
    recipe sets for its own.

    Args:
        recipe: "configs/cifar_resnet.py:56,smoke".
        overrides: ["optimizer.learning_rate=1e-3"].

    Raises:
        UserError: a fault of the file, an unknown word or key, a value that a key does not take.
    """
    path, words = recipes.split_name(recipe)
    name = recipe.partition(".py:")[0].removesuffix(".py") + ".py"

    # Each step goes on from what is assigned so far, {"seed": 1}, and from where it comes, {"seed": "recipe"}.
    assignments, origins = read_recipe(path, [word for word in words if word != recipes.SMOKE], name=name)
    if recipes.SMOKE in words:
        assignments, origins = shrink_to_smoke(assignments, origins)
    override_texts = dict(map(split_override, overrides))  # where a key is given twice, the last text counts
    assignments = drop_replaced_keywords(assignments, override_texts)
    for key, text in override_texts.items():
        assignments[key] = parse_value(key, text)
        origins[key] = COMMAND_LINE
    return complete_settings(assignments, origins, recipe=path.stem, words=words, name=name)


# The recipe and its words


def read_recipe(path: Path, words: Sequence[str], *, name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Reads what a recipe assigns with its words, checked, and which word each assignment comes from.

    An assignment comes from the last word that changed its value; one that no word changes comes from the recipe.
    """
    assignments: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, layer in recipes.read_layers(path, words, name=name):
        changed = [key for key, value in layer.items() if key not in assignments or assignments[key] != value]
        origins |= dict.fromkeys(changed, origin)
        assignments = layer
    checked = {key: fit_value(key, value, where=name) for key, value in assignments.items()}
    return checked, {key: origins[key] for key in checked}  # a word may have taken a key away


def fit_value(key: str, value: Any, *, where: str) -> Any:
    """Returns a value of a recipe, or of a stored run, in its own form.

    Raises:
        UserError: an unknown key, or a value that it does not take; `where` names who set it.
    """
    if key in KEYS:
        return check_value(key, KEYS[key], value, where=where)
    if not is_keyword(key):
        raise unknown_key_error(key)
    try:
        return as_plain(value)
    except ValueError as error:
        raise UserError(
            f"{key} is {quote_value(value)} ({where}); it takes numbers, texts, true, false, none and tuples of them"
        ) from error


def shrink_to_smoke(assignments: dict[str, Any], origins: dict[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Puts smoke over a recipe: its keywords go, for they belong to another variant and another source."""
    smoke = smoke_assignments(assignments)
    common = {key: value for key, value in assignments.items() if not is_keyword(key)}
    return common | smoke, origins | dict.fromkeys(smoke, f"word {recipes.SMOKE}")


def smoke_assignments(assignments: dict[str, Any]) -> dict[str, Any]:
    """Returns what makes a recipe a tiny run without files: drawn shapes at its image size, its family's test variant.

    Args:
        assignments: those of the recipe, of which image size, channels, classes, augmentation and warmup are looked at.
    """
    image_size = assignments.get("data.image_size") or SMOKE_SIDE // 2
    if isinstance(image_size, tuple):
        image_size = tuple(min(SMOKE_SIDE, side) for side in image_size)
    else:
        image_size = min(SMOKE_SIDE, image_size)
    classes = assignments.get("data.classes") or SMOKE_CLASSES
    train_count = max(SMOKE_EXAMPLES["train_count"], classes)  # a class without an image would be an error
    warmup = durations.count_steps(
        assignments.get("schedule.warmup", 0), examples=train_count, batch=SMOKE_BATCH, key="schedule.warmup"
    )
    family = (assignments.get("model.name") or "").partition("/")[0]
    return {
        # a path, a slice or a mean that the recipe sets belongs to its own data
        **{key: row.default for key, row in KEYS.items() if key.startswith("data.")},
        "data.name": "shapes",
        "data.train_count": train_count,
        "data.validation_count": SMOKE_EXAMPLES["validation_count"],
        "data.test_count": SMOKE_EXAMPLES["test_count"],
        "data.image_size": image_size,
        "data.channels": assignments.get("data.channels") or 3,
        "data.classes": classes,
        "data.augment": assignments.get("data.augment", ()),
        "data.batch_size": SMOKE_BATCH,
        "model.name": f"{family}/test" if family else None,  # None is refused as a name that is not set
        "duration": "20 steps",
        "evaluate_every": "10 steps",
        "log_every": "5 steps",
        "schedule.warmup": f"{min(warmup, SMOKE_WARMUP)} steps",
    }


# The command line


def split_override(override: str) -> tuple[str, str]:
    """Splits `optimizer.learning-rate=1e-3` into key and text; dashes and underscores are the same in keys."""
    key, equals, text = override.partition("=")
    if not equals:
        raise UserError(f"{override!r} sets nothing; write {override}=VALUE")
    return key.strip().replace("-", "_"), text


def drop_replaced_keywords(assignments: dict[str, Any], override_texts: dict[str, str]) -> dict[str, Any]:
    """Returns the assignments without the keywords of a model or a source that the command line replaces by another.

    Args:
        assignments: those of the recipe.
        override_texts: what the command line writes for each key. A variant of the same family keeps the keywords.
    """
    for section in OPEN:
        name = assignments.get(f"{section}.name") or ""
        family = name.partition("/")[0]
        new_family = override_texts.get(f"{section}.name", name).partition("/")[0]
        if new_family == family:
            continue
        dropped = {key for key in assignments if is_keyword(key) and key.startswith(f"{section}.")}
        assignments = {key: value for key, value in assignments.items() if key not in dropped}
    return assignments


def parse_value(key: str, text: str) -> Any:
    """Reads a value of the command line and returns it in its own form.

    Raises:
        UserError: an unknown key, or a value that it does not take.
    """
    if key in KEYS:
        return check_value(key, KEYS[key], text, where=COMMAND_LINE, is_text=True)
    if not is_keyword(key):
        raise unknown_key_error(key)
    if len(text) > MAX_CHARACTERS:
        raise UserError(
            f"{key} is {quote_value(text)} ({COMMAND_LINE}), {len(text)} characters; {MAX_CHARACTERS} are the most"
        )
    return parse_any(text)


def unknown_key_error(key: str) -> UserError:
    """Makes the error for an unknown key, with the keys spelled most like it."""
    inside = [common for common in KEYS if common.startswith(f"{key}.")]
    if inside:
        return UserError(f"{key!r} is a section, not a setting; set {', '.join(inside)}")
    section, _, name = key.rpartition(".")
    keys_by_name = {}  # of the key's own section, if it has one
    for common in KEYS:
        if section not in SECTIONS or common.startswith(section):
            keys_by_name[common.rpartition(".")[2]] = common
    near = [keys_by_name[choice] for choice in nearest(name, keys_by_name, most=2)]
    if near:
        return UserError(f"no setting {quote_value(key)}; did you mean {' or '.join(near)}?")
    return unknown("setting", key, KEYS)


# Defaults


def complete_settings(
    assignments: dict[str, Any], origins: dict[str, str], *, recipe: str, words: tuple[str, ...], name: str
) -> Settings:
    """Fills in every default.

    The keys are in the order of the table, the keywords of a model or a source behind the name that they belong to.

    Args:
        assignments: what is set, each value in its own form.
        origins: where each assignment comes from.
        recipe: name of the recipe.
        words: its words.
        name: the file as errors name it.

    Raises:
        UserError: a key without a default is not set.
    """
    values: dict[str, Any] = {}
    for key, row in KEYS.items():
        # a placeholder of ml_collections that nobody filled is None
        if row.default is REQUIRED and assignments.get(key) is None:
            raise UserError(f"{name} sets no {key}, {row.meaning}; it takes {accepted_values(row)}")
        values[key] = assignments.get(key, row.default)
        section, _, last = key.rpartition(".")
        if section in OPEN and last == "name":
            for keyword, value in assignments.items():
                if is_keyword(keyword) and keyword.startswith(f"{section}."):
                    values[keyword] = value
    return Settings(values, {key: origins.get(key, "default") for key in values}, recipe, words)
