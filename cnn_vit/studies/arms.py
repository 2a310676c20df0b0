"""Recipes of comparisons: arms, each a way to get a classifier, on the same data with the same budget.

A recipe sets what all arms share, and the arms by name:

    COMMAND = "compare"

    def get_config(mode=""):
        config = ConfigDict()
        config.data = ConfigDict({"name": "digits", "image_size": 28})      the data section of all arms
        config.budget = "200 steps"                                         of each arm; or "90 CPU-seconds"
        config.seeds = 3
        config.arms = ConfigDict()
        config.arms.mine = dict(recipe="configs/mine.py")                   a recipe of a training, from scratch
        config.arms.tuned = dict(weights="runs/other", trained="all")       pretrained weights, trained on
        config.arms.nearest = dict(weights="runs/other", task="knn")        pretrained weights that stay as they are

`load_comparison` reads and checks it. What an arm's own recipe says of data, duration and the times between its lines
does not count, and its warm-up is a tenth of the budget at most; all else does, and `settings` stands over it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from cnn_vit.errors import UserError, unknown
from cnn_vit.settings import KEYS, REQUIRED, Key, StudyRecipe, is_keyword, load_study, quote_value
from cnn_vit.settings.durations import parse_duration
from cnn_vit.settings.recipes import SMOKE
from cnn_vit.settings.values import as_plain, check_value
from cnn_vit.studies.trials import TASKS

COMMAND = "compare"
MEASURED = ("data.mean", "data.std")  # each arm's own: those of its weights, or measured on the training images
TRAIN = "train"
EVALUATE = "evaluate"
HEAD, LAST_STAGE, ALL = "head", "last stage", "all"
TRAINED = (HEAD, LAST_STAGE, ALL)  # what of a pretrained network an arm trains
HEAD_RECIPE = "configs/linear_probe.py"  # of an arm that names none: with a new head alone to train
BODY_RECIPE = "configs/finetune_folder.py"  # and with more than that, or nothing
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")  # no dash: the command line reads one as an underscore
CPU_TIME = re.compile(r"\s*([0-9][0-9_]*(?:\.[0-9]+)?)\s*CPU[- ]?s(?:econds?)?\s*", re.IGNORECASE)
COMMAND_LINE = "command line"

COMMON_KEYS = {
    "budget": Key("text", REQUIRED, "", 'length of each arm that trains: "200 steps", or "90 CPU-seconds", which '
                  "become the steps that the slowest arm does in that time"),
    "seeds": Key("int", 3, "[1, 1000]", "runs of each arm that trains, with the seeds 0, 1, 2, ...", "runs"),
    "threads": Key("int", 1, "[1, 1024]", "cores that one run computes on", "cores"),
    "weights": Key("text?", None, "", "pretrained weights of the arms that name none of their own"),
    "shares": Key("floats", (1.0,), "(0, 1]", "shares of the training data that every arm learns from"),
}  # fmt: skip
ARM_KEYS = {
    "recipe": Key("text?", None, "", "recipe of a training, configs/NAME.py:WORDS"),
    "task": Key("text", TRAIN, "", "train, or what is done with pretrained weights that stay as they are",
                choices=TASKS),
    "weights": Key("text?", None, "", "pretrained weights; unset: those of the comparison where the arm needs some"),
    "trained": Key("text?", None, "", "what of the pretrained network is trained", choices=TRAINED),
    "settings": Key("texts", (), "", "settings that stand over the recipe, key=value each"),
    "about": Key("text?", None, "", "what the arm is, for people"),
}  # fmt: skip

# What the word smoke sets: the digits that come with scikit-learn, so that the weights of the package know the classes.
SMOKE_WEIGHTS = "cifar_resnet/8@mnist"
SMOKE_DATA = {
    "name": "digits", "margin": 2, "image_size": 28, "interpolation": "bicubic", "channels": 1, "batch_size": 16,
    "train": "train[:120]", "validation": "validation[:40]", "test": "test[:60]",
}  # fmt: skip
SMOKE_BUDGET = "6 steps"
SMOKE_SEEDS = 2


@dataclass(frozen=True)
class Arm:
    """A way to get a classifier.

    Attributes:
        name: of the arm.
        task: of TASKS.
        recipe: that it trains by, with words.
        weights: that it starts from; None for initial values.
        trained: of TRAINED, for a pretrained network that is trained; else None.
        settings: over the recipe, "key=value".
        about: what it is, for people.
    """

    name: str
    task: str
    recipe: str
    weights: str | None
    trained: str | None
    settings: tuple[str, ...]
    about: str

    @property
    def has_seeds(self) -> bool:
        """Whether another seed may give another result."""
        return self.task == TRAIN


@dataclass(frozen=True)
class ComparisonRecipe:
    """A recipe of a comparison, checked.

    Attributes:
        name: of the recipe with its words, compare_digits:data.
        arms: by name.
        left_out: arms that cannot be, with the reason of each.
        data: the settings of the data that it sets, without `data.`.
        budget: as it was written.
        seeds: how many runs each arm that trains gets.
        threads: cores of a run.
        shares: of the training data, ascending.
        weights: of the arms that name none of their own; None where none are set.
    """

    name: str
    arms: tuple[Arm, ...]
    left_out: Mapping[str, str]
    data: Mapping[str, Any]
    budget: str
    seeds: int
    threads: int
    shares: tuple[float, ...]
    weights: str | None


def load_comparison(config: str, overrides: Sequence[str] = ()) -> ComparisonRecipe:
    """Loads a recipe of a comparison with its words and puts the command line over it.

    Args:
        config: the recipe, "configs/compare_digits.py:data".
        overrides: settings of the command line: "seeds=5", "data.path=photos", "arms.mine.recipe=configs/mine.py",
            and "arms.vit=none", which leaves an arm out.

    Raises:
        UserError: the recipe, a word or a value is wrong.
    """
    study = load_study(config, overrides, command=COMMAND)
    common: dict[str, Any] = {key: row.default for key, row in COMMON_KEYS.items()}
    data_settings: dict[str, Any] = {}
    entries: dict[str, dict[str, Any]] = {}
    dropped = set()
    for key, value in study.values.items():
        section, _, rest = key.partition(".")
        if key in COMMON_KEYS:
            common[key] = check(study, key, COMMON_KEYS[key], value)
        elif section == "data" and rest:
            data_settings[rest] = check_data(study, key, value)
        elif section == "arms" and rest:
            name, _, keyword = rest.partition(".")
            entry = entries.setdefault(name, {})
            if not keyword and value is None:
                dropped.add(name)
            elif keyword not in ARM_KEYS:
                raise unknown(f"setting of the arm {name}", keyword or quote_value(value), ARM_KEYS)
            else:
                entry[keyword] = check(study, key, ARM_KEYS[keyword], value)
        else:
            raise unknown("setting of a comparison", key, [*COMMON_KEYS, "data.KEY", "arms.NAME.KEY"])
    for name in sorted(dropped):
        if not entries[name]:  # the recipe has nothing of it
            raise unknown("arm", name, [choice for choice in entries if choice not in dropped])
    arms, left_out = [], {}
    entries = dict(sorted(entries.items()))  # as ml_collections has them, also those of the command line
    for name, entry in entries.items():
        if name in dropped:
            continue
        arm = make_arm(study, name, entry, common["weights"])
        if needs_weights(arm) and arm.weights is None:
            left_out[name] = "it starts from weights, and none are named; add --config.weights=FILE, a run or a name"
            continue
        arms.append(arm)
    words = f":{','.join(study.words)}" if study.words else ""
    if common["budget"] is REQUIRED:
        raise UserError(f"{study.file} sets no budget, {COMMON_KEYS['budget'].meaning}")
    recipe = ComparisonRecipe(
        name=f"{study.recipe}{words}",
        arms=tuple(arms),
        left_out=left_out,
        data=data_settings,
        budget=common["budget"],
        seeds=common["seeds"],
        threads=common["threads"],
        shares=tuple(sorted(set(common["shares"]))),
        weights=common["weights"],
    )
    if SMOKE in study.words:
        arms = [make_arm(study, name, entry, SMOKE_WEIGHTS) for name, entry in entries.items() if name not in dropped]
        recipe = shrink_to_smoke(recipe, arms)
    parse_budget(recipe.budget)
    if not recipe.arms:
        raise UserError(f"{study.file} has no arm to compare; add config.arms.NAME = dict(recipe=...)")
    return recipe


def check(study: StudyRecipe, key: str, row: Key, value: Any) -> Any:
    """Returns a value in the form that its key has; UserError where it takes another."""
    if key in study.texts:
        return check_value(key, row, study.texts[key], where=COMMAND_LINE, is_text=True)
    if value is None and not row.is_optional:  # left open
        return row.default
    if key == "budget" and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return check_value(key, row, value, where=study.file)


def check_data(study: StudyRecipe, key: str, value: Any) -> Any:
    """Checks a setting of the data: a common one by its row, a keyword of the source later, by the source itself."""
    if key in MEASURED:
        raise UserError(
            f"{key} is each arm's own: that of its weights, or measured on the training images; leave it out"
        )
    if key in KEYS:
        return check(study, key, KEYS[key], value)
    if not is_keyword(key):
        raise unknown("setting", key, [name for name in KEYS if name.startswith("data.")])
    return as_plain(value)


def make_arm(study: StudyRecipe, name: str, entry: Mapping[str, Any], weights: str | None) -> Arm:
    """Makes an arm of what the recipe says of it.

    Args:
        study: the recipe.
        name: of the arm.
        entry: what stands under its name.
        weights: of the comparison, for an arm that needs some and names none.

    Raises:
        UserError: the entry contradicts itself.
    """
    if not NAME.fullmatch(name):
        raise UserError(
            f"{quote_value(name)} is not the name of an arm; begin with a letter, and take letters, digits and _, at "
            "most 40"
        )
    arm = Arm(
        name=name,
        task=entry.get("task", TRAIN),
        recipe=entry.get("recipe") or "",
        weights=entry.get("weights"),
        trained=entry.get("trained"),
        settings=entry.get("settings", ()),
        about=entry.get("about") or name,
    )
    if arm.task != TRAIN and arm.trained is not None:
        raise UserError(f"arms.{name}: trained={arm.trained} belongs to task=train, and {arm.task} trains nothing")
    if arm.task == TRAIN and arm.trained is None and arm.weights is not None:
        arm = replace(arm, trained=ALL)
    if not arm.recipe:
        if not needs_weights(arm):
            raise UserError(f"arms.{name} names neither recipe nor weights; {study.file} says what it is")
        arm = replace(arm, recipe=HEAD_RECIPE if arm.trained == HEAD else BODY_RECIPE)
    if needs_weights(arm) and arm.weights is None:
        arm = replace(arm, weights=weights)
    return arm


def needs_weights(arm: Arm) -> bool:
    """Whether an arm starts from pretrained weights."""
    return arm.task != TRAIN or arm.trained is not None


def identify(arm: Arm) -> tuple:
    """Returns all of an arm that decides what it does, so that arms of other names can be told to be the same."""
    return arm.task, arm.recipe, arm.weights, arm.trained, arm.settings


def shrink_to_smoke(recipe: ComparisonRecipe, arms: list[Arm]) -> ComparisonRecipe:
    """Makes a comparison tiny, without a file of the user's: digits, few steps, the family's test variants.

    Arms that start from weights take the smallest ones of the package; what they train stays. The settings of arms are
    dropped, for they belong to other networks and other lengths.
    """
    small = []
    for arm in arms:
        if needs_weights(arm):
            small.append(replace(arm, weights=SMOKE_WEIGHTS, settings=()))
            continue
        path, _, words = arm.recipe.partition(".py:")
        path = path.removesuffix(".py")
        modes = ",".join(filter(None, (words, SMOKE)))
        small.append(replace(arm, recipe=f"{path}.py:{modes}", settings=()))
    different: dict[tuple, Arm] = {}
    for arm in small:
        different.setdefault(identify(arm), arm)  # several may have become the same: the first stays
    return replace(
        recipe,
        arms=tuple(different.values()),
        left_out={},
        data={**SMOKE_DATA, "augment": recipe.data.get("augment", ())},
        budget=SMOKE_BUDGET,
        seeds=SMOKE_SEEDS,
    )


def parse_budget(budget: str) -> tuple[int | None, float | None]:
    """Parses a budget into steps, or into CPU-seconds where it is a time; the other is None.

    Raises:
        UserError: it is neither.
    """
    match = CPU_TIME.fullmatch(budget)
    if match:
        seconds = float(match[1].replace("_", ""))
        if seconds > 0:
            return None, seconds
    try:
        number, unit = parse_duration(budget)
    except ValueError:
        number, unit = Fraction(0), "steps"
    if unit != "steps" or number < 1 or number.denominator != 1 or number > 10**9:
        raise UserError(f'budget is {quote_value(budget)}; it takes steps, "200 steps", or a time, "90 CPU-seconds"')
    return int(number), None
