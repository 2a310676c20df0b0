"""From somebody's images to a first recipe: look at them, choose, time a few steps, write a lab note that runs."""

import os
import shlex
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from cnn_vit import data, settings, trees
from cnn_vit.data.audit.headers import HeaderSummary, summarize_headers
from cnn_vit.drafting import choosing, stopwatch, written
from cnn_vit.drafting.stopwatch import Pace
from cnn_vit.runs import environment
from cnn_vit.training import devices, plan
from cnn_vit.training.forward import get_network

UNEVEN = 5  # times that the largest class is as large as the smallest, from which on a note says so
LINE = 120  # characters


class Draft(NamedTuple):
    """A first recipe, and what it was made from.

    Attributes:
        path: of the images.
        recipe: path of the recipe.
        network: its name in `choosing.NETWORKS`.
        settings: flat, in the order in which they are written.
        header_summary: the images at a glance.
        dataset: they as the recipe reads them.
        pace: what the clock said.
        machine: what it was timed on, in words.
        steps: of the run.
        evaluations: in it.
        parameters: of the network.
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

    @property
    def seconds(self) -> float:
        """That the run takes, if all goes on as while it was timed; without starting Python and the report."""
        return self.pace.start + self.steps * self.pace.step + (self.evaluations + 2) * self.pace.evaluation


def draft_recipe(
    path: str,
    recipe: str,
    *,
    network: str = "cnn",
    minutes: float = 10.0,
    image_size: int | None = None,
    on_bad_image: str = "refuse",
    say: Callable[[str], None] = lambda sentence: None,
) -> Draft:
    """Makes a recipe for the images at a path; nothing is written.

    Args:
        path: a folder, a zip of one or an npz.
        recipe: path that the recipe is to have, by which it names itself.
        network: a name of `choosing.NETWORKS`.
        minutes: that the run may take on this machine.
        image_size: side in pixels; None: chosen.
        on_bad_image: refuse, or skip.
        say: takes a sentence about what is done next.

    Raises:
        UserError: no images that can be trained on.
    """
    say(f"looking at {path}")
    section = data.section_for_path(path, image_size=None, channels=None, fit="crop") | {"on_bad_image": on_bad_image}
    seen = summarize_headers(section)
    wanted = choosing.choose_image_size(seen.image_sizes) if image_size is None else (image_size, image_size)
    sides, keywords = choosing.NETWORKS[network](wanted)
    found = data_settings(section, seen, sides) | {f"model.{key}": value for key, value in keywords.items()}
    say(f"reading {seen.counts.sum():,} images")
    dataset = data.load(final_settings(found).section("data"))
    count, mesh = len(dataset.splits["train"]), devices.mesh()
    found["data.batch_size"] = choosing.choose_batch_size(count, mesh.size)
    found |= choosing.choose_optimizer(network, found["data.batch_size"])
    plan.check_model(final_settings(found), classes=len(dataset.classes), image_shape=dataset.image_shape)
    say(f"timing a few steps of {found['model.name']} with them")
    pace = stopwatch.measure_pace(final_settings(found), dataset)
    often, steps, evaluations = choosing.choose_durations(count, found["data.batch_size"], pace, seconds=60 * minutes)
    form = plan.network_spec(final_settings(found), classes=len(dataset.classes), image_shape=dataset.image_shape)
    parameters = trees.count(get_network(form).params)
    return Draft(
        path, recipe, network, found | often, seen, dataset, pace, describe_machine(), steps, evaluations, parameters
    )  # fmt: skip


def data_settings(section: dict[str, Any], seen: HeaderSummary, sides: choosing.Sides) -> dict[str, Any]:
    """Settings of the data."""
    found: dict[str, Any] = {"data.name": section["name"], "data.path": section["path"]}
    if section["on_bad_image"] != "refuse":
        found["data.on_bad_image"] = section["on_bad_image"]
    found["data.image_size"] = sides[0] if sides[0] == sides[1] else sides
    found["data.fit"] = section["fit"]
    found["data.channels"] = 3 if seen.colored else 1
    found["data.classes"] = len(seen.classes)
    found["data.batch_size"] = choosing.BATCH[0]  # until the training split is known
    found["data.augment"] = choosing.choose_augmentation(seen.classes, sides)
    return found


def final_settings(found: dict[str, Any]) -> settings.Settings:
    """Final settings of what is chosen so far."""
    values = {"optimizer.name": "adamw", "optimizer.learning_rate": 1e-3, **found}
    return settings.from_json({"recipe": "", "words": [], "values": values, "origin": {}}, file="the draft")


def describe_machine() -> str:
    """What computes here, in words: `2 cores`, `8 x NVIDIA H100`."""
    about = environment.current_environment(None)
    count, kind = about["devices"]["count"], about["devices"]["kind"]
    return f"{about['cores']} cores" if about["devices"]["platform"] == "cpu" else f"{count} x {kind}"


# Words ----------------------------------------------------------------------------------------------------------------


def recipe_text(made: Draft) -> str:
    """The recipe's file."""
    return written.recipe_source(docstring(made), made.settings, comments(made))


def docstring(made: Draft) -> str:
    """What the recipe says of itself."""
    splits = ", ".join(f"{split} {len(one):,}" for split, one in made.dataset.splits.items())
    each = ", ".join(
        f"{name} {count:,}" for name, count in zip(made.header_summary.classes, made.header_summary.counts, strict=True)
    )
    rows = {
        "Data": f"{made.header_summary.counts.sum():,} images, {describe_sizes(made.header_summary)}; {splits}. Of each class: {each}.",
        "Measured": "not yet run.",
        "Cost": f"{describe_seconds(made.seconds)} on {made.machine}: {made.steps:,} steps of {made.pace.step:.3f} s (mean of "
        f"{made.pace.steps} with these images), {made.evaluations} evaluations of {made.pace.evaluation:.2f} s, "
        f"{made.pace.start:.0f} s to compile.",
        "Run": f"cnn-vit train {shlex.quote(f'--config={made.recipe}')}",
        "Smoke": f"cnn-vit train {shlex.quote(f'--config={made.recipe}:smoke')} --workdir=runs/smoke",
    }
    name = os.path.basename(os.path.abspath(made.path))
    title = f"{choosing.TITLES[made.network]} on {name}, from scratch; written by `cnn-vit new`, yours to change."
    return "\n".join([title, "", *(wrap_row(f"{heading + ':':10}{row}") for heading, row in rows.items())])


def wrap_row(row: str) -> str:
    """A row of a docstring in lines; a path or a name is never cut."""
    return textwrap.fill(row, LINE, subsequent_indent=" " * 10, break_long_words=False, break_on_hyphens=False)


def describe_sizes(seen: HeaderSummary) -> str:
    """What images look like: `28x28 pixels, gray`, `60x80 to 3000x4000 pixels, in color`; height, width."""
    pairs = sorted({(int(h), int(w)) for h, w in seen.image_sizes}, key=lambda pair: (pair[0] * pair[1], pair))
    low, high = (f"{h}x{w}" for h, w in (pairs[0], pairs[-1]))
    return f"{low if low == high else f'{low} to {high}'} pixels, {'in color' if seen.colored else 'gray'}"


def describe_seconds(seconds: float) -> str:
    """A time for a person: `about 40 seconds`, `about 10 minutes`."""
    return f"about {max(10, round(seconds, -1)):.0f} seconds" if seconds < 95 else f"about {seconds / 60:.0f} minutes"


def comments(made: Draft) -> dict[str, str]:
    """What stands behind the settings."""
    mirrored = 'leave "flip" out where left and right matter' if "flip" in made.settings["data.augment"] else ""
    place = "" if os.path.isabs(made.path) else "seen from the folder in which commands are given"
    return {
        "data.path": place,
        "data.on_bad_image": f"{made.header_summary.skipped:,} files cannot be read",
        "data.image_size": "pixels",
        "data.fit": 'keeps the center; "stretch" or "pad(127)" keep all of an image',
        "data.channels": "RGB" if made.header_summary.colored else "gray",
        "data.batch_size": "images",
        "data.augment": mirrored,
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
        "duration": f"{made.steps:,} steps, {describe_seconds(made.seconds)}",
    }


def draft_notes(made: Draft) -> list[str]:
    """What one should know before the run, sentences."""
    facts, seen = made.dataset.facts, made.header_summary
    said = [facts["layout"]] if "layout" in facts else []
    said += facts["notes"]
    if "test" not in made.dataset.splits:
        said.append("there is no test split: validation, by which one chooses, is all that will be measured")
    for split in ("validation", "test"):
        counts = facts["class_counts"].get(split, {})
        if lost := [name for name, count in counts.items() if not count]:
            named = ", ".join(lost[:5]) + f" and {len(lost) - 5} more" * (len(lost) > 5)
            said.append(f"{split} has no image of {named}, so that nothing is measured of them; give each 10 at least")
    if seen.sampled:
        said.append(
            f"sizes and colors are those of {len(seen.image_sizes):,} images, taken evenly from {seen.counts.sum():,}: "
            "a rare color image among gray ones may have been missed"
        )
    low, high = int(np.argmin(seen.counts)), int(np.argmax(seen.counts))
    if seen.counts[high] >= UNEVEN * seen.counts[low]:
        said.append(
            f"{seen.classes[high]} has {seen.counts[high]:,} images and {seen.classes[low]} {seen.counts[low]:,}; "
            'loss.class_weight="balanced" may help the small classes'
        )
    if made.settings["duration"] == f"{choosing.EPOCHS} epochs":
        said.append(f"{choosing.EPOCHS} epochs are the most: after so many, the same images teach hardly anything new")
    return said + busy()


def busy() -> list[str]:
    """A sentence where other work shared the processors while steps were timed."""
    try:
        load, cores = os.getloadavg()[0], os.cpu_count() or 1
    except OSError:
        return []
    if load < 1.5 * cores:
        return []
    return [f"this machine was busy while steps were timed (load {load:.1f} on {cores} cores); idle, it is faster"]
