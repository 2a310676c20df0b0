"""A comparison: several ways to get a classifier, on the same data with the same budget, and one page that says which.

Read `run_comparison`: a recipe (`arms.py`) becomes trials (`trials.py`), workers do them (`workers.py`), and what they
found becomes the answer (`outcome.py`):

    OUT/plan.json      the budget in steps, and the trials of each arm
    OUT/trials/ID/     the trials; each is done once, however often the command is given
    OUT/results.csv    a row for each trial, without any time: the same bytes whenever it is made
    OUT/timing.csv     the times of the trials
    OUT/report.html    the page
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cnn_vit import data, files, stops
from cnn_vit.data.evaluated import match_classes
from cnn_vit.errors import UserError, printable_name
from cnn_vit.models import new_when_cut
from cnn_vit.runs import folder, reader
from cnn_vit.settings import KEYS, count_steps
from cnn_vit.settings import load as load_settings
from cnn_vit.studies import arms, trials, workers
from cnn_vit.studies.arms import Arm, ComparisonRecipe
from cnn_vit.studies.outcome import Comparison, PlannedArm, conclude
from cnn_vit.studies.shares import DataShare, data_overrides, plan_shares
from cnn_vit.studies.trials import DataCache, PlannedTrial, Trial
from cnn_vit.studies.workers import StudyOptions
from cnn_vit.training import pretrained_settings
from cnn_vit.transfer.weights import Weights

PLAN = "plan.json"
FROM_CARD = ("image_size", "channels", "fit", "interpolation")  # of the data, where the recipe leaves them to weights
EVALUATIONS, LOGS, SAVES = 10, 20, 2  # in the course of a run
WARMUP = "schedule.warmup"
SHARE_OF_WARMUP = 10  # the warm-up is at most this part of the budget
STEPS_OF_PACE = 1000  # of a run that is never started: its settings are those whose pace is measured


def compare(
    config: str,
    out: str | os.PathLike,
    *,
    overrides: Sequence[str] = (),
    workers: int = 1,
    retries_failed: bool = False,
    is_isolated: bool = False,
    keep: str = "best",
) -> dict[str, Any]:
    """Does a comparison, or goes on with one that was stopped, and writes its page and tables.

    Args:
        config: the recipe, "configs/compare_digits.py" or with words, "configs/compare_digits.py:data".
        out: the folder of the comparison.
        overrides: settings over the recipe: "seeds=5", "data.path=photos", "arms.mine.recipe=configs/mine.py".
        workers: processes that work at the same time; no number depends on it.
        retries_failed: whether trials that have failed are done again.
        is_isolated: whether each trial gets a process of its own.
        keep: which checkpoints of finished trials stay, "best" or "all".

    Returns:
        answer and certainty (sentences), `rows` (a dict for each arm and share of the data, for `pandas.DataFrame`),
        notes, failed (the trials that have no numbers), report and results (paths) ...

    Raises:
        UserError: the recipe is wrong, or an arm's weights were trained on the data.
        SurroundingsError: the folder cannot be written, or another process works in it.
        StoppedError: a signal asked to stop; the same call goes on.
    """
    options = Options(workers, retries_failed=retries_failed, is_isolated=is_isolated, keep=keep)
    return run_comparison(config, Path(out), overrides=overrides, options=options).to_json()


@dataclass(frozen=True)
class Options:
    """How the trials are done, as `compare` takes it."""

    workers: int = 1
    retries_failed: bool = False
    is_isolated: bool = False
    keep: str = "best"


def run_comparison(config: str, out: Path, *, overrides: Sequence[str] = (), options: Options) -> Comparison:
    """Does a comparison as `compare` does, and returns its outcome."""
    refuse_wrong_options(options)
    recipe = arms.load_comparison(config, overrides)
    weights = open_weights(recipe)
    section, notes = complete_data(recipe, weights)
    cache = DataCache()
    dataset = cache.load(section)
    refuse_repeated(recipe)
    refuse_contaminated(recipe, weights, section, dataset)
    recipe = leave_out_unknown_classes(recipe, weights, dataset)
    data_shares, notes_on_shares = plan_shares(recipe.shares, section, dataset)
    notes += notes_on_shares
    stops.raise_if_requested()
    with workers.locked(out):
        plan = read_plan(out, recipe, dataset)
        steps = plan["steps"] if plan else choose_steps(recipe, weights, section, out, cache)
        planned_arms = make_trials(recipe, weights, data_shares, dataset, steps)
        planned = trials.plan_trials([trial for arm in planned_arms for trial in arm.trials], out, cache)
        refuse_contaminated_recipes(planned, weights, section, dataset)
        write_plan(out, recipe, dataset, planned_arms, planned, steps)
        study_options = StudyOptions(
            workers=options.workers,
            threads=recipe.threads,
            is_isolated=options.is_isolated,
            retries=trials.FAILED if options.retries_failed else (),
            keep=options.keep,
        )
        records = workers.do_trials(planned, out, study_options)
        return conclude(recipe, out, planned_arms, records, dataset, section, steps, notes)


def refuse_wrong_options(options: Options) -> None:
    """Raises UserError for options that mean nothing."""
    if options.workers < 1:
        raise UserError(f"workers={options.workers} do nothing; make it at least 1")
    if options.keep not in ("best", "all"):
        raise UserError(f"keep is {options.keep}; it takes best or all")


def refuse_repeated(recipe: ComparisonRecipe) -> None:
    """Raises UserError where two arms are the same: nothing could be learned from their difference."""
    names: dict[tuple, str] = {}
    for arm in recipe.arms:
        what = arms.identify(arm)
        if what in names:
            raise UserError(f"the arms {names[what]} and {arm.name} are the same; leave one out")
        names[what] = arm.name


# Weights and data -----------------------------------------------------------------------------------------------------


def open_weights(recipe: ComparisonRecipe) -> dict[str, Weights]:
    """Opens the weights of all arms, each once, by what the arms call them.

    Raises:
        UserError: weights cannot be read.
    """
    opened: dict[str, Weights] = {}
    for arm in recipe.arms:
        if arm.weights is None or arm.weights in opened:
            continue
        stops.raise_if_requested()
        model = None
        for setting in arm.settings:
            key, _, value = setting.partition("=")
            model = value if key == "model.name" else model
        try:
            opened[arm.weights] = pretrained_settings.open_weights(arm.weights, model=model)
        except UserError as error:
            raise type(error)(f"arm {arm.name}: {error}", details=error.details) from error
    return opened


def complete_data(recipe: ComparisonRecipe, weights: Mapping[str, Weights]) -> tuple[dict[str, Any], list[str]]:
    """Returns the data section of all arms, and sentences on what weights decided of it.

    All arms see the same images. How large they are and how they are brought to that size comes from the weights of
    the first arm that has some, by the names of the arms, where the recipe leaves it open; also for the arms without
    weights.
    """
    section = dict(recipe.data)
    if "name" not in section:
        raise UserError("the recipe names no data; set data.name, such as digits, or folder and data.path")
    notes = []
    for key in FROM_CARD:
        if section.get(key) is not None:
            continue
        for arm in recipe.arms:
            preprocessing = {} if arm.weights is None else weights[arm.weights].card.preprocessing
            if key in preprocessing:
                value = preprocessing[key]
                section[key] = tuple(value) if isinstance(value, list) else value
                if section[key] != KEYS[f"data.{key}"].default:
                    notes.append(
                        f"data.{key} is {section[key]} for all arms, as {arm.weights} of the arm {arm.name} has it"
                    )
                break
    data.check(section)
    return section, notes


def refuse_contaminated(
    recipe: ComparisonRecipe, weights: Mapping[str, Weights], section: Mapping[str, Any], dataset: data.Dataset
) -> None:
    """Raises UserError where weights of an arm were trained on the data that are compared on."""
    for arm in recipe.arms:
        if arm.weights is None:
            continue
        reason = find_contamination(weights[arm.weights], section, dataset)
        if reason:
            raise UserError(
                f"arm {arm.name}: {arm.weights} was trained on the very data of this comparison ({reason}), so that it "
                "would win by what it has seen; name other weights, or leave the arm out with "
                f"--config.arms.{arm.name}=none"
            )


def refuse_contaminated_recipes(
    planned: Sequence[PlannedTrial], opened: Mapping[str, Weights], section: Mapping[str, Any], dataset: data.Dataset
) -> None:
    """Raises UserError where the recipe of an arm itself names weights that were trained on the data."""
    checked = set(opened)
    for one in planned:
        source = None if one.settings is None else one.settings["pretrained.weights"]
        if source is None or source in checked:
            continue
        checked.add(source)
        reason = find_contamination(pretrained_settings.open_weights(source), section, dataset)
        if reason:
            raise UserError(
                f"{trials.describe(one.trial)}: {source}, which its recipe names, was trained on the very data of this "
                f"comparison ({reason}), so that it would win by what it has seen; name other weights"
            )


def find_contamination(weights: Weights, section: Mapping[str, Any], dataset: data.Dataset) -> str:
    """Says how it is known that weights were trained on the data; "" where nothing says so."""
    origin = weights.card.origin
    fingerprint = origin.get("data_fingerprint")
    if fingerprint is None and "run" in origin:
        fingerprint = reader.read_data(Path(str(origin["run"])) / folder.DATA)["fingerprint"]
    if fingerprint == dataset.fingerprint:
        return f"the same fingerprint, {dataset.fingerprint[:12]}"
    trained_on = origin.get("trained_on") or ()
    names = [trained_on] if isinstance(trained_on, str) else list(trained_on)
    data_name = name_data(section, dataset)
    for name in names:
        if data_name and fold(str(name)) == fold(data_name):
            return f"its card says {printable_name(str(name))}"
    return ""


def name_data(section: Mapping[str, Any], dataset: data.Dataset) -> str:
    """Returns what people call the data: the file's or the folder's name, or that of a published set; "" if nothing."""
    if section.get("path") is not None:
        return Path(str(section["path"])).stem
    source = str(section["name"])
    if source == "cifar":
        return f"cifar{len(dataset.classes)}"
    if source == "tfds":
        return re.split("[:/]", str(section.get("dataset", "")))[0]
    return "" if source == "generator" else source


def fold(name: str) -> str:
    """Returns the letters and digits of a name, in small letters."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def leave_out_unknown_classes(
    recipe: ComparisonRecipe, weights: Mapping[str, Weights], dataset: data.Dataset
) -> ComparisonRecipe:
    """Returns the recipe without the arms whose untouched network does not know the classes of the data."""
    kept, left_out = [], dict(recipe.left_out)
    for arm in recipe.arms:
        reason = ""
        if arm.task == arms.EVALUATE and arm.weights is not None:
            card = weights[arm.weights].card
            known = card.classes or tuple(f"class {number}" for number in range(card.num_classes))
            try:
                match_classes(np.arange(len(dataset.classes)), dataset.classes, known, by_position=card.classes is None)
            except UserError:
                reason = "its network does not know the classes of these data, so that it cannot be used untouched"
        if reason:
            left_out[arm.name] = reason
        else:
            kept.append(arm)
    if not kept:
        raise UserError(f"no arm is left to compare: {'; '.join(left_out.values())}")
    return replace(recipe, arms=tuple(kept), left_out=left_out)


# Trials ---------------------------------------------------------------------------------------------------------------


def make_trials(
    recipe: ComparisonRecipe,
    weights: Mapping[str, Weights],
    data_shares: Sequence[DataShare],
    dataset: data.Dataset,
    steps: int,
) -> list[PlannedArm]:
    """Makes the trials of all arms on all shares of the data, which are ascending; the largest comes first.

    An arm that learns nothing from the training data has one trial, at the largest share.
    """
    planned = []
    largest = data_shares[-1]
    for data_share in reversed(data_shares):
        for arm in recipe.arms:
            if arm.task == arms.EVALUATE and data_share is not largest:
                continue
            overrides = (*data_share.overrides, *arm_overrides(arm, weights, steps))
            overrides += tuple(shorten_warmup(arm, overrides, dataset, steps))
            seeds = range(recipe.seeds) if arm.has_seeds else (0,)
            arm_trials = []
            for seed in seeds:
                name = name_trial(arm, data_share.share, seed)
                arm_trials.append(Trial(arm.task, arm.recipe, overrides, seed, name=name))
            planned.append(PlannedArm(arm, data_share.share, tuple(arm_trials)))
    return planned


def name_trial(arm: Arm, share: float, seed: int) -> str:
    """Names a trial for people: the arm, the share of the data if that is not all of them, the seed if it has one."""
    parts = [arm.name]
    if share != 1:
        parts.append(f"with {100 * share:g} % of the data")
    if arm.has_seeds:
        parts.append(f"seed {seed}")
    return ", ".join(parts)


def arm_overrides(arm: Arm, weights: Mapping[str, Weights], steps: int) -> list[str]:
    """Returns the settings of an arm that stand over its recipe, beside those of the data."""
    overrides = []
    if arm.task == arms.TRAIN:
        overrides += [
            f"duration={steps} steps",
            f"evaluate_every={-(-steps // EVALUATIONS)} steps",
            f"log_every={-(-steps // LOGS)} steps",
            f"checkpoint_every={-(-steps // SAVES)} steps",
        ]
    if arm.weights is not None:
        overrides += [f"model.name={weights[arm.weights].card.model}", f"pretrained.weights={arm.weights}"]
    if arm.trained == arms.HEAD:
        overrides.append("pretrained.freeze=all but head")
    elif arm.trained == arms.LAST_STAGE and arm.weights is not None:
        overrides.append(f"pretrained.freeze=all but {', '.join(list_last_stage(weights[arm.weights]))}")
    elif arm.weights is not None:
        overrides.append("pretrained.freeze=none")
    return [*overrides, *arm.settings]


def shorten_warmup(arm: Arm, overrides: Sequence[str], dataset: data.Dataset, steps: int) -> list[str]:
    """Returns a setting that makes the warm-up of an arm's recipe a tenth of the budget, where it is longer.

    It was chosen for the length of the recipe's own run. What the comparison itself says of an arm's warm-up stays.

    Args:
        arm: the arm.
        overrides: its settings.
        dataset: all of the data, so that epochs have the same length on every share.
        steps: the budget.
    """
    is_set = any(setting.partition("=")[0].strip() == WARMUP for setting in arm.settings)
    if arm.task != arms.TRAIN or is_set:
        return []
    try:
        settings = load_settings(arm.recipe, overrides)
        batch = settings["data.batch_size"]
        examples = len(dataset.splits["train"].labels)
        warmup = count_steps(settings[WARMUP], examples=examples, batch=batch, key=WARMUP)
    except UserError:  # the trial will say so
        return []
    most = steps // SHARE_OF_WARMUP
    return [f"{WARMUP}={most} steps"] if warmup > most else []


def list_last_stage(weights: Weights) -> list[str]:
    """Lists the parts of a network from its last stage or block on: that, a norm behind it, and the head.

    Raises:
        UserError: the network does not consist of stages or blocks.
    """
    groups = []
    for name, child in weights.params.items():
        if isinstance(child, dict) and child and all(isinstance(key, int) for key in child):
            groups.append(name)
    if len(groups) != 1:
        raise UserError(
            f"{weights.card.model} has no row of stages or blocks whose last one could be trained; use "
            "trained='head', trained='all', or settings=('pretrained.freeze=...',)"
        )
    last = f"{groups[0]}/{max(weights.params[groups[0]])}"
    behind = [name for name in new_when_cut(weights.card.model, last) if name in weights.params]
    return [last, *behind, "head"]


# The budget -----------------------------------------------------------------------------------------------------------


def read_plan(out: Path, recipe: ComparisonRecipe, dataset: data.Dataset) -> dict[str, Any] | None:
    """Reads the plan that an earlier start left, where it is of the same budget and data; None where it is not there.

    Raises:
        UserError: the folder was begun with another number of threads.
    """
    path = out / PLAN
    if not path.exists():
        return None
    plan = reader.read_object(path, budget=str, steps=int, threads=int, data=str)
    if plan["threads"] != recipe.threads:
        raise UserError(
            f"{out} was begun with threads={plan['threads']}, and the order of sums depends on it; set "
            f"--config.threads={plan['threads']}, or name another --out"
        )
    is_same = plan["budget"] == recipe.budget and plan["data"] == dataset.fingerprint
    return plan if is_same else None


def choose_steps(
    recipe: ComparisonRecipe,
    weights: Mapping[str, Weights],
    section: Mapping[str, Any],
    out: Path,
    cache: DataCache,
) -> int:
    """Turns the budget into steps: a time of the processor into those that the slowest arm does in it.

    A worker measures the pace of each arm that trains, on as many cores as a trial gets. An arm that cannot be started
    does not count; its trials will say why.

    Raises:
        UserError: the pace of an arm cannot be measured.
        SurroundingsError: no worker can be started.
    """
    steps, seconds = arms.parse_budget(recipe.budget)
    if steps is not None or seconds is None:
        return steps or 0
    common = data_overrides(section)
    pace_trials = []
    for arm in recipe.arms:
        if arm.task == arms.TRAIN:
            # Of a run in stages the last one, which trains most, is measured.
            overrides = (*common, *arm_overrides(arm, weights, STEPS_OF_PACE), "pretrained.stages=()")
            pace_trials.append(Trial(arm.task, arm.recipe, overrides, 0, name=f"the pace of {arm.name}"))
    planned = [one for one in trials.plan_trials(pace_trials, out, cache) if one.settings is not None]
    paces = workers.measure_paces(planned, out, StudyOptions(threads=recipe.threads))
    return max(1, int(seconds / max(paces))) if paces else 1


def write_plan(
    out: Path,
    recipe: ComparisonRecipe,
    dataset: data.Dataset,
    planned_arms: Sequence[PlannedArm],
    planned: Sequence[PlannedTrial],
    steps: int,
) -> None:
    """Writes plan.json: the budget in steps, which later starts take from it, and where the trials of each arm lie."""
    ids = iter(one.id for one in planned)
    arms_of_plan = []
    for planned_arm in planned_arms:
        trial_ids = [next(ids) for _ in planned_arm.trials]
        arms_of_plan.append({"arm": planned_arm.arm.name, "share": planned_arm.share, "trials": trial_ids})
    content = {
        "recipe": recipe.name,
        "budget": recipe.budget,
        "steps": steps,
        "threads": recipe.threads,
        "seeds": recipe.seeds,
        "data": dataset.fingerprint,
        "arms": arms_of_plan,
    }
    files.write_json(out / PLAN, content)
