"""Settings of a run in four layers, later ones winning: the recipe, its words (`cifar_resnet.py:56`), the built-in word
`smoke`, the command line.

The first check is made here: each key against the table of the run, which holds the common settings and the keywords
of the optimizer, the schedule and the loss that are named (`rules.run_keys`). Keywords of the model and of the data
source are plain values here; the packages `models` and `data`, which know them, check them later.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cnn_vit.errors import UserError, nearest, unknown
from cnn_vit.settings import durations, recipes, rules
from cnn_vit.settings.keys import KEYS, REQUIRED, SECTIONS, SECTIONS_WITH_KEYWORDS, Key, is_keyword
from cnn_vit.settings.values import MAX_CHARACTERS, accepted_values, as_plain, check_value, parse_any, quote_value

# What the word smoke sets.
SMOKE_SIDE = 64  # pixels, at most, for each side of an image
SMOKE_DEFAULT_SIDE = 32  # pixels, where the recipe does not set it
SMOKE_DEFAULT_CHANNELS = 3  # where the recipe does not set them
SMOKE_DEFAULT_CLASSES = 10  # where the recipe does not set them
SMOKE_EXAMPLES = {"train_count": 256, "validation_count": 64, "test_count": 64}
SMOKE_BATCH = 32  # images
SMOKE_WARMUP = 5  # steps, at most
SMOKE_DURATION = "20 steps"
SMOKE_EVALUATE_EVERY = "10 steps"
SMOKE_LOG_EVERY = "5 steps"
FREEZE_OF_ANY = "all but head"  # what can be frozen of any network

DROPPED_WITH_RULE = ("optimizer.learning_rate",)  # common settings that go with the rule that they were chosen for
# What other programs call a setting, where its spelling does not lead to ours.
USUAL_NAMES = {
    "lr": "learning_rate",
    "wd": "weight_decay",
    "bs": "batch_size",
    "epochs": "duration",
    "steps": "duration",
}
COMMAND_LINE = "command line"  # the origin of a value, also as errors name it


@dataclass(frozen=True)
class Settings:
    """The settings of one run.

    Attributes:
        values: every common key, every keyword of the named optimizer, schedule and loss, and the keywords set for the
            model and the source, by dotted key: {"data.batch_size": 128}.
        origin: where each value comes from: "default", "recipe", "word 56" or "command line".
        recipe: name of the recipe without folder and words, `cifar_resnet`.
        words: the words behind the recipe, smoke last.
        notes: sentences about what the recipe sets and the command line dropped.
    """

    values: dict[str, Any]
    origin: dict[str, str]
    recipe: str
    words: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def section(self, name: str) -> dict[str, Any]:
        """Returns the settings of a section without its name: {"batch_size": 128}."""
        prefix = f"{name}."
        return {key.removeprefix(prefix): value for key, value in self.values.items() if key.startswith(prefix)}


def load(recipe: str, overrides: Sequence[str] = ()) -> Settings:
    """Loads a recipe with its words and puts the command line over it.

    Where the command line names a model of another family, another data source, optimizer, schedule or loss, the
    keywords that the recipe sets for its own are dropped, of another optimizer the learning rate too. The settings'
    notes name them.

    Args:
        recipe: file of the recipe with its words, "configs/cifar_resnet.py:56,smoke".
        overrides: settings of the command line, ["optimizer.learning_rate=1e-3"].

    Raises:
        UserError: an error in the file, an unknown word or key, a value that a key does not take.
    """
    recipe_with_words = recipe
    path, words = recipes.split_name(recipe_with_words)
    # The file as the user wrote it: `path` may be in another folder, beside the package.
    file_in_errors = recipe_with_words.partition(".py:")[0].removesuffix(".py") + ".py"

    # Each layer changes what is assigned so far, {"seed": 1}, and from where it comes, {"seed": "recipe"}.
    recipe_words = [word for word in words if word != recipes.SMOKE]
    assignments, origins = read_recipe(path, recipe_words, file_in_errors=file_in_errors)
    if recipes.SMOKE in words:
        assignments, origins = shrink_to_smoke(assignments, origins)
    override_texts = dict(map(split_override, overrides))  # where a key is set twice, the last text counts
    # Before the command line is put over it, so that keywords of the command line stay.
    assignments, notes = drop_replaced_keywords(assignments, override_texts)
    origins = {key: origins[key] for key in assignments}
    table = rules.run_keys(assignments | override_texts)
    for key, text in override_texts.items():
        assignments[key] = parse_value(key, text, table)
        origins[key] = COMMAND_LINE
    settings = complete_settings(
        assignments, origins, recipe_name=path.stem, words=words, file_in_errors=file_in_errors
    )
    return replace(settings, notes=notes)


# The recipe and its words


def read_recipe(path: Path, words: Sequence[str], *, file_in_errors: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Reads what a recipe assigns with its words, checked, and where each assignment comes from.

    An assignment comes from the last word that changed its value, and else from the recipe. A recipe that does not run
    without a word is first read with the first words that it runs with; what is set then comes from the last of these.

    Args:
        path: the file.
        words: its words, without `smoke`.
        file_in_errors: the file as errors name it.

    Returns:
        The assignments, {"seed": 1}, and their origins, {"seed": "recipe"}.
    """
    assignments: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, layer in recipes.read_layers(path, words, name=file_in_errors):
        changed = [key for key, value in layer.items() if key not in assignments or assignments[key] != value]
        origins |= dict.fromkeys(changed, origin)
        assignments = layer
    # Only the last layer is checked: a word may replace a value that would be refused.
    checked = fit_values(assignments, where=file_in_errors)
    # A word may have taken a key away, which then has an origin but no value.
    return checked, {key: origins[key] for key in checked}


def fit_values(values: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Checks the values of a recipe, or of a stored run, and returns each in the form that its key has in the settings.

    Args:
        values: what the recipe or the stored run sets, by dotted key.
        where: the file that sets it, as errors name it.

    Raises:
        UserError: an unknown key, or a value that it does not take.
    """
    names = {}  # of the rules, which say what else there is; checked first, for they may be anything
    for section in rules.TABLES:
        key = f"{section}.name"
        if key in values:
            names[key] = check_value(key, KEYS[key], values[key], where=where)
    table = rules.run_keys(names)
    fitted = {}
    for key, value in values.items():
        section = key.partition(".")[0]
        if section in rules.TABLES and rules.rule_name(section, names) is None and key not in table:
            raise unset_error(f"{section}.name", KEYS[f"{section}.name"], where=where)
        fitted[key] = fit_value(key, value, table, where=where)
    return fitted


def fit_value(key: str, value: Any, table: Mapping[str, Key], *, where: str) -> Any:
    """Checks a value as `fit_values` does; `table` is that of the run, as `rules.run_keys` returns it."""
    if key in table:
        return check_value(key, table[key], value, where=where)
    if not is_keyword(key):
        raise unknown_key_error(key, table)
    try:
        return as_plain(value)
    except ValueError as error:
        raise UserError(
            f"{key} is {quote_value(value)} ({where}); it takes numbers, texts, true, false, none and tuples of them"
        ) from error


def shrink_to_smoke(assignments: dict[str, Any], origins: dict[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Puts smoke over the assignments and origins of a recipe, and returns both.

    The recipe's keywords are dropped, for they belong to another variant and another source, and so is what it says of
    pretrained weights, which would not fit. What is frozen stays where every network has it.
    """
    smoke = smoke_assignments(assignments)
    common = {}
    for key, value in assignments.items():
        is_dropped = is_keyword(key) or key.startswith("pretrained.")
        if not is_dropped or (key == "pretrained.freeze" and value == FREEZE_OF_ANY):
            common[key] = value
    return common | smoke, origins | dict.fromkeys(smoke, f"word {recipes.SMOKE}")


def smoke_assignments(assignments: dict[str, Any]) -> dict[str, Any]:
    """Returns what makes a recipe a tiny run without files: drawn shapes at its image size, its family's test variant.

    Args:
        assignments: those of the recipe. Read are `model.name` (for the family), `schedule.warmup`, and of `data` the
            image size, channels, classes and augmentation.
    """
    image_size = assignments.get("data.image_size") or SMOKE_DEFAULT_SIDE
    if isinstance(image_size, tuple):
        image_size = tuple(min(SMOKE_SIDE, side) for side in image_size)
    else:
        image_size = min(SMOKE_SIDE, image_size)
    classes = assignments.get("data.classes") or SMOKE_DEFAULT_CLASSES
    train_count = max(SMOKE_EXAMPLES["train_count"], classes)  # a class without an image would be an error
    # The recipe's warmup may be in epochs, which smoke makes shorter: it is counted in smoke's own steps.
    warmup_steps = durations.count_steps(
        assignments.get("schedule.warmup", 0), examples=train_count, batch=SMOKE_BATCH, key="schedule.warmup"
    )
    family = (assignments.get("model.name") or "").partition("/")[0]
    return {
        # First every default of `data`, because a path, a slice or a mean of the recipe belongs to the recipe's data.
        **{key: row.default for key, row in KEYS.items() if key.startswith("data.")},
        "data.name": "shapes",
        "data.train_count": train_count,
        "data.validation_count": SMOKE_EXAMPLES["validation_count"],
        "data.test_count": SMOKE_EXAMPLES["test_count"],
        "data.image_size": image_size,
        "data.channels": assignments.get("data.channels") or SMOKE_DEFAULT_CHANNELS,
        "data.classes": classes,
        "data.augment": assignments.get("data.augment", ()),
        "data.batch_size": SMOKE_BATCH,
        "model.name": f"{family}/test" if family else None,  # complete_settings refuses None as a name that is not set
        "duration": SMOKE_DURATION,
        "evaluate_every": SMOKE_EVALUATE_EVERY,
        "log_every": SMOKE_LOG_EVERY,
        "schedule.warmup": f"{min(warmup_steps, SMOKE_WARMUP)} steps",
    }


# The command line


def split_override(override: str) -> tuple[str, str]:
    """Splits `optimizer.learning-rate=1e-3` into key and text; dashes in the key become underscores."""
    key, equals, text = override.partition("=")
    if not equals:
        raise UserError(f"{override!r} sets nothing; write {override}=VALUE")
    return key.strip().replace("-", "_"), text


def drop_replaced_keywords(
    assignments: dict[str, Any], override_texts: dict[str, str]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Drops the keywords of a model, a source or a rule that the command line replaces by another.

    Where it names another variant of the same family, such as `vit/B16` instead of `vit/S16`, the keywords stay. With
    an optimizer its learning rate is dropped, for what is right for one is far too large or small for another.

    Args:
        assignments: those of the recipe.
        override_texts: the text of the command line for each key that it sets.

    Returns:
        The assignments that are left, and a sentence for each section that lost some, which names them.
    """
    notes = []
    for section in SECTIONS:
        key = f"{section}.name"
        if key not in KEYS:  # a section that names nothing
            continue
        name = assignments.get(key) or KEYS[key].default
        new_name = override_texts.get(key, name)
        if name is REQUIRED or new_name.partition("/")[0] == name.partition("/")[0]:
            continue
        dropped = {}
        for assigned, value in assignments.items():
            is_own = assigned.startswith(f"{section}.") and (assigned not in KEYS or assigned in DROPPED_WITH_RULE)
            if is_own:
                dropped[assigned] = value
        assignments = {assigned: value for assigned, value in assignments.items() if assigned not in dropped}
        # what the command line sets anew is not missed
        missed = [f"{assigned}={value}" for assigned, value in dropped.items() if assigned not in override_texts]
        if missed:
            notes.append(f"{key}={new_name} drops what the recipe sets for {name}: {', '.join(missed)}")
    return assignments, tuple(notes)


def parse_value(key: str, text: str, table: Mapping[str, Key]) -> Any:
    """Reads a value of the command line and returns it in the form that its key has in the settings.

    Raises:
        UserError: an unknown key, or a value that it does not take.
    """
    if key in table:
        return check_value(key, table[key], text, where=COMMAND_LINE, is_text=True)
    if not is_keyword(key):
        raise unknown_key_error(key, table)
    if len(text) > MAX_CHARACTERS:
        raise UserError(
            f"{key} is {quote_value(text)} ({COMMAND_LINE}), {len(text)} characters; {MAX_CHARACTERS} are the most"
        )
    return parse_any(text)


def unknown_key_error(key: str, table: Mapping[str, Key]) -> UserError:
    """Makes the error for an unknown key, with the keys spelled most like it.

    A keyword of another optimizer, schedule or loss than the one that is named is said to be that.
    """
    keys_in_section = [row_key for row_key in table if row_key.startswith(f"{key}.")]
    if keys_in_section:
        return UserError(f"{key!r} is a section, not a setting; set {', '.join(keys_in_section)}")
    section, _, name = key.rpartition(".")
    takers = rules.rules_that_take(section, name) if section in rules.TABLES else []
    if takers:
        keywords = [row_key for row_key in table if row_key.startswith(f"{section}.") and row_key != f"{section}.name"]
        return UserError(
            f"{key} is a keyword of {', '.join(takers)}, not of the {section} that is named; that takes "
            f"{', '.join(keywords)}"
        )
    keys_by_name = {}  # of the key's own section where that exists, else of all sections
    for row_key in table:
        if section not in SECTIONS or row_key.startswith(section):
            keys_by_name[row_key.rpartition(".")[2]] = row_key
    usual_name = USUAL_NAMES.get(name, name)
    near = [keys_by_name[choice] for choice in nearest(usual_name, keys_by_name, most=2)]
    if near:
        return UserError(f"no setting {quote_value(key)}; did you mean {' or '.join(near)}?")
    return unknown("setting", key, table)


# Defaults


def complete_settings(
    assignments: dict[str, Any],
    origins: dict[str, str],
    *,
    recipe_name: str,
    words: tuple[str, ...],
    file_in_errors: str,
) -> Settings:
    """Fills in every default.

    The keys are in the order of the table, the keywords of a model or a source behind the name that they belong to.

    Args:
        assignments: what is set, each value as `fit_values` or `parse_value` returns it.
        origins: where each assignment comes from.
        recipe_name: name of the recipe without folder and words, `cifar_resnet`.
        words: the words behind the recipe, smoke last.
        file_in_errors: the file as errors name it.

    Raises:
        UserError: a key without a default is not set.
    """
    values: dict[str, Any] = {}
    for key, row in rules.run_keys(assignments).items():
        # a placeholder of ml_collections that nobody filled is None
        if row.default is REQUIRED and assignments.get(key) is None:
            raise unset_error(key, row, where=file_in_errors)
        values[key] = assignments.get(key, row.default)
        section, _, last_part = key.rpartition(".")
        if section in SECTIONS_WITH_KEYWORDS and last_part == "name":
            for keyword, value in assignments.items():
                if is_keyword(keyword) and keyword.startswith(f"{section}."):
                    values[keyword] = value
    return Settings(values, {key: origins.get(key, "default") for key in values}, recipe_name, words)


def unset_error(key: str, row: Key, *, where: str) -> UserError:
    """Makes the error for a setting without a default that a file does not set."""
    return UserError(f"{where} sets no {key}, {row.meaning}; it takes {accepted_values(row)}")
