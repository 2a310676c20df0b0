"""The story of `cnn-vit new`: from a user's images to a first recipe.

`draft_recipe` looks at the images, chooses settings by the rules of `choosing` and times a few steps; `recipe_text`
writes a lab note that runs; `draft_notes` says what the user should know before the run.
"""

import os
import shlex
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnn_vit import data, trees
from cnn_vit.data.audit.headers import HeaderSummary, summarize_headers
from cnn_vit.drafting import choosing, stopwatch, written
from cnn_vit.drafting.stopwatch import Pace
from cnn_vit.errors import UserError
from cnn_vit.runs.environment import current_environment
from cnn_vit.settings import Settings, from_json
from cnn_vit.training import devices, plan, pretrained_settings
from cnn_vit.training.forward import get_network
from cnn_vit.transfer.weights import Weights

UNEVEN = 5  # times that the largest class is as large as the smallest, from which on a note says so
NAMED = 5  # classes that a note names, at most
LINE = 120  # characters


@dataclass(frozen=True)
class Draft:
    """A first recipe, and what it was made from.

    Attributes:
        path: of the images.
        recipe: path of the recipe.
        network: its name in `choosing.NETWORKS`, or `choosing.TRANSFER`.
        settings: flat, in the order in which they are written.
        header_summary: classes, counts and sizes of the images as their headers tell them.
        dataset: the images as the recipe reads them.
        pace: how long steps and evaluations take.
        machine: what they were timed on, in words.
        steps: number of steps of the run.
        evaluations: number of evaluations in it.
        parameters: number of parameters of the network.
        weights: that it starts from; None for initial values.
        expectation: what to expect of them on these images, a phrase; "" where nothing was measured.
    """

    path: str
    recipe: str
    network: str
    settings: dict[str, Any]
    header_summary: HeaderSummary
    dataset: data.Dataset
    pace: Pace
    machine: str
    steps: int
    evaluations: int
    parameters: int
    weights: Weights | None = None
    expectation: str = ""

    @property
    def seconds(self) -> float:
        """Seconds of the run, if all goes on as while it was timed; without starting Python and the report."""
        # Validation and test are evaluated once more at the end
        return self.pace.start + self.steps * self.pace.step + (self.evaluations + 2) * self.pace.evaluation


def ignore_progress(sentence: str) -> None:
    """Does nothing with a sentence about what is done next."""


def draft_recipe(
    path: str,
    recipe: str,
    *,
    network: str = "cnn",
    minutes: float = 10.0,
    image_size: int | None = None,
    on_bad_image: str = "refuse",
    layout: str | None = None,
    weights: str | None = None,
    on_progress: Callable[[str], None] = ignore_progress,
) -> Draft:
    """Makes a recipe for the images at a path; nothing is written.

    Args:
        path: a folder, a zip of one or an npz.
        recipe: path that the recipe is to have, by which it names itself.
        network: a name of `choosing.NETWORKS`.
        minutes: that the run may take on this machine.
        image_size: side in pixels; None: it is chosen.
        on_bad_image: "refuse" or "skip" files that cannot be read.
        layout: "classes" or "splits", what the folders are; None: their names tell.
        weights: file, run folder or name that a pretrained network starts from, where `network` is `choosing.TRANSFER`;
            None: weights at hand that suit the images.
        on_progress: takes a sentence about what is done next.

    Raises:
        UserError: there are no images that can be trained on, no weights at hand suit them, or the weights were trained
            on them.
    """
    on_progress(f"looking at {path}")
    section = data.section_for_path(path, layout=layout) | {"on_bad_image": on_bad_image}
    summary = summarize_headers(section)
    source = None
    if network == choosing.TRANSFER:
        weights = weights or choosing.choose_weights(summary.image_sizes, is_colored=summary.colored)
        on_progress(f"opening {weights}")
        source = pretrained_settings.open_weights(weights)
        chosen = choose_transfer(section, summary, weights, source, image_size)
    else:
        chosen = choose_data_and_model(section, summary, network, image_size)

    on_progress(f"reading {summary.counts.sum():,} images")
    dataset = data.load(final_settings(chosen, source).section("data"))
    if source is not None and source.card.origin.get("data_fingerprint") == dataset.fingerprint:
        raise UserError(f"{weights} was trained on these very images, so that nothing would be learned of transfer")
    chosen |= choose_training(network, dataset)
    settings = final_settings(chosen, source)
    plan.check_model(settings, classes=len(dataset.classes), image_shape=dataset.image_shape)

    on_progress(f"timing a few steps of {chosen['model.name']} with them")
    pace = stopwatch.measure_pace(settings, dataset, weights=source)
    train_count, batch = len(dataset.splits["train"]), chosen["data.batch_size"]
    durations = choosing.choose_durations(train_count, batch, pace, seconds=60 * minutes)
    return Draft(
        path=path,
        recipe=recipe,
        network=network,
        settings=chosen | durations.settings,
        header_summary=summary,
        dataset=dataset,
        pace=pace,
        machine=describe_machine(),
        steps=durations.steps,
        evaluations=durations.evaluations,
        parameters=count_parameters(settings, dataset),
        weights=source,
    )


# The chapters of the story --------------------------------------------------------------------------------------------


def choose_data_and_model(
    section: dict[str, Any], summary: HeaderSummary, network: str, image_size: int | None
) -> dict[str, Any]:
    """Returns the settings of the data and of the model, which the headers of the images decide.

    Args:
        section: settings of the data that read the images, without `data.`.
        summary: what the headers tell.
        network: a name of `choosing.NETWORKS`.
        image_size: side in pixels; None: it is chosen.
    """
    wanted_size = choosing.choose_image_size(summary.image_sizes)
    if image_size is not None:
        wanted_size = (image_size, image_size)
    size, keywords = choosing.NETWORKS[network](wanted_size)  # another size where patches would not be whole
    chosen = data_settings(section, summary, size)
    for key, value in keywords.items():
        chosen[f"model.{key}"] = value
    return chosen


def choose_transfer(
    section: dict[str, Any], summary: HeaderSummary, path: str, weights: Weights, image_size: int | None
) -> dict[str, Any]:
    """Returns the settings of data, model and start of a pretrained network; the weights decide what is left out.

    Args:
        section: settings of the data that read the images, without `data.`.
        summary: what the headers tell.
        path: of the weights.
        weights: what lies there.
        image_size: side in pixels; None: that of the weights.
    """
    chosen = data_settings(section, summary, (choosing.SMALLEST_SIDE, choosing.SMALLEST_SIDE))
    for key in ("data.image_size", "data.fit", "data.channels"):
        del chosen[key]
    if image_size is not None:
        chosen["data.image_size"] = image_size
    chosen["data.augment"] = choosing.choose_mirroring(summary.classes)
    chosen["model.name"] = weights.card.model
    chosen["pretrained.weights"] = path
    return chosen


def data_settings(section: dict[str, Any], summary: HeaderSummary, image_size: choosing.ImageSize) -> dict[str, Any]:
    """Returns the settings of the data, flat, in the order in which they are written."""
    height, width = image_size
    chosen: dict[str, Any] = {"data.name": section["name"], "data.path": section["path"]}
    if section["on_bad_image"] != "refuse":
        chosen["data.on_bad_image"] = section["on_bad_image"]
    if "layout" in section:
        chosen["data.layout"] = section["layout"]
    chosen["data.image_size"] = height if height == width else image_size
    chosen["data.fit"] = section["fit"]
    chosen["data.channels"] = 3 if summary.colored else 1
    chosen["data.classes"] = len(summary.classes)
    chosen["data.batch_size"] = choosing.SMALLEST_BATCH  # until the size of the training split is known
    chosen["data.augment"] = choosing.choose_augmentation(summary.classes, image_size)
    return chosen


def choose_training(network: str, dataset: data.Dataset) -> dict[str, Any]:
    """Returns the settings of batch, loss, optimizer and schedule, which the size of the training split decides."""
    train_count = len(dataset.splits["train"])
    batch = choosing.choose_batch_size(train_count, devices.mesh().size)
    freeze: dict[str, Any] = {}
    if network == choosing.TRANSFER:
        freeze = choosing.choose_freeze(train_count, len(dataset.classes))
    optimizer = choosing.choose_optimizer(network, batch, is_frozen=bool(freeze))
    return {"data.batch_size": batch, **freeze, **optimizer}


def final_settings(chosen: dict[str, Any], weights: Weights | None = None) -> Settings:
    """Returns final settings of what is chosen so far, with an optimizer where none is chosen yet.

    Weights complete them as they complete those of a run.
    """
    values = {"optimizer.name": "adamw", "optimizer.learning_rate": 1e-3, **chosen}
    settings = from_json({"recipe": "", "words": [], "values": values, "origin": {}}, file="the draft")
    return settings if weights is None else pretrained_settings.complete_from_card(settings, weights)


def count_parameters(settings: Settings, dataset: data.Dataset) -> int:
    """Returns the number of parameters of the network."""
    network_spec = plan.network_spec(settings, classes=len(dataset.classes), image_shape=dataset.image_shape)
    return trees.count(get_network(network_spec).params)


def describe_machine() -> str:
    """Returns what computes here, in words: `2 cores`, `8 x NVIDIA H100`."""
    environment = current_environment(None)
    if environment["devices"]["platform"] == "cpu":
        return f"{environment['cores']} cores"
    return f"{environment['devices']['count']} x {environment['devices']['kind']}"


# The recipe's text ----------------------------------------------------------------------------------------------------


def recipe_text(draft: Draft) -> str:
    """Returns the text of the recipe's file."""
    return written.recipe_source(recipe_docstring(draft), draft.settings, recipe_comments(draft))


def recipe_docstring(draft: Draft) -> str:
    """Returns what the recipe says of itself: a title and a row each of data, figures, cost and commands."""
    summary, pace = draft.header_summary, draft.pace
    splits = ", ".join(f"{name} {len(split):,}" for name, split in draft.dataset.splits.items())
    classes = ", ".join(f"{name} {count:,}" for name, count in zip(summary.classes, summary.counts, strict=True))
    rows = {
        "Data": f"{summary.counts.sum():,} images, {describe_sizes(summary)}; {splits}. Of each class: {classes}.",
        **describe_weights(draft),
        **({"Expect": f"{draft.expectation}."} if draft.expectation else {}),
        "Measured": "not yet run.",
        "Cost": f"{describe_seconds(draft.seconds)} on {draft.machine}: {draft.steps:,} steps of {pace.step:.3f} s "
        f"(mean of {pace.steps} with these images), {draft.evaluations} evaluations of {pace.evaluation:.2f} s, "
        f"{pace.start:.0f} s to compile.",
        "Run": f"cnn-vit train {shlex.quote(f'--config={draft.recipe}')}",
        "Smoke": f"cnn-vit train {shlex.quote(f'--config={draft.recipe}:smoke')} --workdir=runs/smoke",
    }
    name = os.path.basename(os.path.abspath(draft.path))
    start = "from scratch" if draft.weights is None else f"from {draft.weights.card.model}'s weights"
    title = f"{choosing.TITLES[draft.network]} on {name}, {start}; written by `cnn-vit new`, yours to change."
    wrapped_rows = [wrap_row(f"{heading + ':':10}{row}") for heading, row in rows.items()]
    return "\n".join([title, "", *wrapped_rows])


def describe_weights(draft: Draft) -> dict[str, str]:
    """Returns a row about the weights that the recipe starts from, and what it does with them; none without weights."""
    if draft.weights is None:
        return {}
    card = draft.weights.card
    trained_on = card.origin.get("trained_on")
    of_what = f", trained on {trained_on}" if trained_on else ""
    plan_of_run = "every layer goes on learning"
    if "pretrained.freeze" in draft.settings:
        plan_of_run = (
            f"with fewer than {choosing.FEW_A_CLASS} images a class its body stays as it is, and the head alone learns"
        )
    from_card = "Image size, crop, mean and standard deviation are those of the weights."
    if "data.image_size" in draft.settings:
        from_card = "Crop, mean and standard deviation are those of the weights; the image size is not."
    return {"Weights": f"{card.model}{of_what}: {plan_of_run}. {from_card}"}


def wrap_row(row: str) -> str:
    """Returns a row of the docstring in lines; a path or a name is never cut."""
    return textwrap.fill(row, LINE, subsequent_indent=" " * 10, break_long_words=False, break_on_hyphens=False)


def describe_sizes(summary: HeaderSummary) -> str:
    """Returns what the images look like: `28x28 pixels, gray`, `60x80 to 3000x4000 pixels, in color`; height, width."""
    sizes = {(int(height), int(width)) for height, width in summary.image_sizes}
    by_area = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    smallest, largest = (f"{height}x{width}" for height, width in (by_area[0], by_area[-1]))
    color = "in color" if summary.colored else "gray"
    if smallest == largest:
        return f"{smallest} pixels, {color}"
    return f"{smallest} to {largest} pixels, {color}"


def describe_seconds(seconds: float) -> str:
    """Returns a time as people say it: `about 40 seconds`, `about 10 minutes`."""
    if seconds < 95:  # tens of seconds, as round(seconds, -1) gives them
        return f"about {max(10, round(seconds, -1)):.0f} seconds"
    return f"about {seconds / 60:.0f} minutes"


def recipe_comments(draft: Draft) -> dict[str, str]:
    """Returns what stands behind each setting; a comment on a setting that the recipe lacks is not written."""
    is_mirrored = "flip" in draft.settings["data.augment"]
    is_relative = not os.path.isabs(draft.path)
    return {
        "data.path": "seen from the folder in which commands are given" if is_relative else "",
        "data.on_bad_image": f"{draft.header_summary.skipped:,} files cannot be read",
        "data.image_size": "pixels",
        "data.fit": 'keeps the center; "stretch" or "pad(127)" keep all of an image',
        "data.channels": "RGB" if draft.header_summary.colored else "gray",
        "data.batch_size": "images",
        "data.augment": 'leave "flip" out where left and right matter' if is_mirrored else "",
        "pretrained.freeze": 'leave it out where images are many: "all but head" trains the new head alone',
        "model.filters": "of each stage",
        "model.stride": "of each stage's first convolution",
        "model.width": "numbers per patch",
        "model.depth": "blocks",
        "model.hidden": "units",
        "model.dropout": "share of the values",
        "loss.smoothing": "share of the target",
        "loss.class_weight": '"balanced" makes small classes count as much as large ones',
        "optimizer.weight_decay": "times the rate",
        "optimizer.clip": "norm of the gradient",
        "duration": f"{draft.steps:,} steps, {describe_seconds(draft.seconds)}",
    }


# Notes to the user ----------------------------------------------------------------------------------------------------


def draft_notes(draft: Draft) -> list[str]:
    """Returns what the user should know before the run, a sentence each."""
    facts, summary = draft.dataset.facts, draft.header_summary
    notes: list[str] = []
    if "layout" in facts:
        notes.append(facts["layout"])
    notes += facts["notes"]
    if "dark" in facts:
        notes.append(facts["dark"])
    if "test" not in draft.dataset.splits:
        notes.append("there is no test split: only validation will be measured, by which settings are chosen as well")
    for split in ("validation", "test"):
        class_counts = facts["class_counts"].get(split, {})
        missing = [name for name, count in class_counts.items() if not count]
        if missing:
            notes.append(
                f"{split} has no image of {name_classes(missing)}, so that nothing is measured of them; "
                "give each class at least 10"
            )
    if summary.sampled:
        notes.append(
            f"sizes and colors are those of {len(summary.image_sizes):,} images, taken evenly from "
            f"{summary.counts.sum():,}: a rare color image among gray ones may have been missed"
        )
    smallest, largest = int(np.argmin(summary.counts)), int(np.argmax(summary.counts))
    if summary.counts[largest] >= UNEVEN * summary.counts[smallest]:
        notes.append(
            f"{summary.classes[largest]} has {summary.counts[largest]:,} images and {summary.classes[smallest]} "
            f'{summary.counts[smallest]:,}; loss.class_weight="balanced" may help the small classes'
        )
    if draft.settings["duration"] == f"{choosing.EPOCHS} epochs":
        notes.append(f"{choosing.EPOCHS} epochs are the most: after so many, the same images teach hardly anything new")
    return notes + notes_on_load()


def name_classes(names: list[str]) -> str:
    """Returns names of classes as a list in words, the first NAMED of them."""
    text = ", ".join(names[:NAMED])
    return f"{text} and {len(names) - NAMED} more" if len(names) > NAMED else text


def notes_on_load() -> list[str]:
    """Returns a sentence where other work shared the processors while steps were timed, else none."""
    try:
        load = os.getloadavg()[0]  # processes that ran or waited in the last minute
    except OSError:
        return []
    cores = os.cpu_count() or 1
    if load < 1.5 * cores:
        return []
    return [f"this machine was busy while steps were timed (load {load:.1f} on {cores} cores); idle, it is faster"]
