"""The page of a comparison: which arm to use and how sure that is, then all that it stands on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnn_vit import data, files, plots, stops
from cnn_vit.plots import Line, Span
from cnn_vit.reports import arms, page
from cnn_vit.reports.arms import ArmRow, ArmRuns, Verdict
from cnn_vit.reports.tallies import confusion_matrix

MOST_MISTAKES = 8  # images of an arm's worst mistakes
MOST_ALONE = 6  # images of each arm that it alone gets right
MOST_CLASSES = 60  # of a confusion matrix that is drawn for each arm
MAX_POINTS = 5000  # that all curves together have, about
SMALL = 48  # pixels a side; of images up to this size each pixel is shown as a square


@dataclass(frozen=True)
class ComparisonPage:
    """What the page says beside its rows.

    Attributes:
        title: of the page.
        split: that accuracies are shown of.
        budget: of each arm that trains, in words.
        facts: lines about the data.
        notes: what one who reads the accuracies should know, a sentence each.
        left_out: arms that could not be, with the reason of each.
        commands: that go on from here.
    """

    title: str
    split: str
    budget: str
    facts: tuple[str, ...]
    notes: tuple[str, ...]
    left_out: Mapping[str, str]
    commands: tuple[str, ...]


@dataclass(frozen=True)
class ShownImage:
    """An image of the page.

    Attributes:
        image: its data address.
        name: its file, or its number in the split.
        true: its class.
        says: what arms say of it.
    """

    image: str
    name: str
    true: str
    says: str


@dataclass(frozen=True)
class AloneRight:
    """The images that one arm alone gets right: its name, how many there are, and the first of them."""

    name: str
    count: int
    images: list[ShownImage]


def write(path: Path, about: ComparisonPage, rows: Sequence[ArmRow], verdict: Verdict, dataset: data.Dataset) -> None:
    """Writes the page of a comparison; the same results give the same bytes.

    Args:
        path: where it goes.
        about: what it says beside its rows.
        rows: of all arms and shares.
        verdict: which arm to use.
        dataset: the data, whose images are shown.
    """
    whole = rows_of_largest_share(rows)
    members = [row.arm for row in whole if row.arm.runs]
    text = page.render(
        "arms.html",
        mark="",
        title=about.title,
        about=about,
        rows=rows,
        shares=sorted({row.arm.share for row in rows}, reverse=True),
        verdict=verdict,
        left_out=arms.group_left_out(about.left_out),
        plots=draw_plots(rows, about.split),
        confusions=draw_confusions(members, about.split, dataset.classes),
        mistakes={arm.name: find_mistakes(arm, about.split, dataset) for arm in members},
        alone=find_alone(members, about.split, dataset),
        images_are_small=max(dataset.image_shape[:2]) <= SMALL,
        difference_text=arms.difference_text,
        series_color=make_series_color(rows),
    )
    stops.raise_if_requested()
    files.write(path, text)


def rows_of_largest_share(rows: Sequence[ArmRow]) -> list[ArmRow]:
    """Returns the rows of the largest share of the training data."""
    largest = max(row.arm.share for row in rows)
    return [row for row in rows if row.arm.share == largest]


def number_arms(rows: Sequence[ArmRow]) -> dict[str, int]:
    """Numbers the arms by name, for their colors."""
    names = dict.fromkeys(row.arm.name for row in rows)
    return {name: number for number, name in enumerate(names)}


def make_series_color(rows: Sequence[ArmRow]) -> Callable[[str], str]:
    """Returns the function from the name of an arm to the CSS color that its curves have."""
    numbers = number_arms(rows)

    def series_color(name: str) -> str:
        return f"var(--series{numbers[name] % plots.SERIES})"

    return series_color


# Plots ----------------------------------------------------------------------------------------------------------------


def draw_plots(rows: Sequence[ArmRow], split: str) -> list[str]:
    """Draws accuracies with their intervals, learning curves, and accuracies over the share of the data."""
    numbers = number_arms(rows)
    spans = []
    for row in rows_of_largest_share(rows):
        if row.accuracy is not None:
            spans.append(Span(row.arm.name, *row.accuracy.interval, series=numbers[row.arm.name]))
    drawings = []
    if spans:
        drawings.append(plots.draw_intervals(spans, title=f"{split.capitalize()} accuracy with 95 % intervals"))
    curves = collect_curves(rows, numbers)
    if curves:
        title = "Validation accuracy while training"
        points = max(20, MAX_POINTS // len(curves))
        drawings.append(plots.draw_curves(curves, title=title, percent=True, points=points, legend_below=True))
    efficiency = collect_efficiency(rows, numbers)
    if efficiency:
        title = f"{split.capitalize()} accuracy by training images"
        drawings.append(
            plots.draw_curves(
                efficiency, title=title, x_label="training images", percent=True, log_x=True, legend_below=True
            )
        )
    return drawings


def collect_curves(rows: Sequence[ArmRow], numbers: Mapping[str, int]) -> list[Line]:
    """Returns the validation curve of each run of the largest share; the first of an arm carries its name."""
    curves = []
    for row in rows_of_largest_share(rows):
        name = row.arm.name
        for run in row.arm.runs:
            if run.lines:
                steps = [line["step"] for line in run.lines]
                curves.append(Line(name, steps, [line.get("accuracy") for line in run.lines], numbers[row.arm.name]))
                name = ""
    return curves


def collect_efficiency(rows: Sequence[ArmRow], numbers: Mapping[str, int]) -> list[Line]:
    """Returns for each arm its accuracy over the number of training images; none where there is one share alone.

    An untouched network, which learns nothing from them, is a level line.
    """
    points: dict[str, dict[int, float]] = {}
    untouched = {row.arm.name for row in rows if row.arm.task == arms.EVALUATE}
    for row in rows:
        if row.accuracy is not None:
            count = row.arm.runs[0].result["counts"]["train"]
            points.setdefault(row.arm.name, {})[count] = row.accuracy.interval.estimate
    counts = sorted(set().union(*points.values())) if points else []
    if len(counts) < 2:
        return []
    lines = []
    for name, accuracies in points.items():
        if name in untouched:
            (level,) = accuracies.values()
            accuracies = dict.fromkeys(counts, level)
        x = sorted(accuracies)
        lines.append(Line(name, x, [accuracies[count] for count in x], numbers[name]))
    return lines


def draw_confusions(members: Sequence[ArmRuns], split: str, classes: Sequence[str]) -> list[str]:
    """Draws the confusion matrix of each arm, the counts of all its seeds together; none of very many classes."""
    if len(classes) > MOST_CLASSES:
        return []
    drawings = []
    names = [plots.printable(name) for name in classes]
    for arm in members:
        matrices = []
        for run in arm.runs:
            if split in run.predictions:
                columns = run.predictions[split]
                matrices.append(confusion_matrix(columns["label"], columns["predicted"], len(classes)))
        if matrices:
            seeds = f", {len(matrices)} seeds together" if len(matrices) > 1 else ""
            drawings.append(plots.draw_confusion(np.sum(matrices, axis=0), names, title=f"{arm.name}{seeds}"))
    return drawings


# Images ---------------------------------------------------------------------------------------------------------------


def find_mistakes(arm: ArmRuns, split: str, dataset: data.Dataset) -> list[ShownImage]:
    """Returns the images that most runs of an arm get wrong, of equally many runs the highest loss first."""
    runs = [run for run in arm.runs if split in run.predictions]
    if not runs:
        return []
    wrong: dict[int, list[tuple[float, int]]] = {}
    labels: dict[int, int] = {}
    for run in runs:
        columns = run.predictions[split]
        for row in np.flatnonzero(columns["predicted"] != columns["label"]):
            index = int(columns["index"][row])
            wrong.setdefault(index, []).append((float(columns["loss"][row]), int(columns["predicted"][row])))
            labels[index] = int(columns["label"][row])

    def badness(index: int) -> tuple[int, float]:
        return (-len(wrong[index]), -max(loss for loss, _ in wrong[index]))

    worst = sorted(wrong, key=badness)[:MOST_MISTAKES]
    says = {}
    for index in worst:
        answers = dict.fromkeys(dataset.classes[predicted] for _, predicted in wrong[index])
        times = f" by {len(wrong[index])} of {len(runs)} seeds" if len(runs) > 1 else ""
        says[index] = f"taken for {', '.join(map(plots.printable, answers))}{times}"
    return show_images(worst, labels, says, split, dataset)


def find_alone(members: Sequence[ArmRuns], split: str, dataset: data.Dataset) -> list[AloneRight]:
    """Returns for each arm the images that it alone gets right, in most of its runs; none with fewer than two arms."""
    shares = {}
    for arm in members:
        columns = arms.share_of_right(arm, split, list(arm.accuracies(split)))
        if columns is not None:
            shares[arm.name] = columns
    names = list(shares)
    if len(names) < 2:
        return []
    first = shares[names[0]]
    if not all(arms.is_same_images(first, columns) for columns in shares.values()):
        return []
    is_right = np.stack([columns["right"] > 0.5 for columns in shares.values()])
    labels = dict(zip(first["index"].tolist(), first["label"].tolist(), strict=True))
    alone = []
    for number, name in enumerate(names):
        rows = np.flatnonzero(is_right[number] & (is_right.sum(0) == 1))
        if len(rows):
            indices = first["index"][rows[:MOST_ALONE]].tolist()
            images = show_images(indices, labels, dict.fromkeys(indices, ""), split, dataset)
            alone.append(AloneRight(name, len(rows), images))
    nobody = np.flatnonzero(is_right.sum(0) == 0)
    if len(nobody):
        indices = first["index"][nobody[:MOST_ALONE]].tolist()
        images = show_images(indices, labels, dict.fromkeys(indices, ""), split, dataset)
        alone.append(AloneRight("no arm", len(nobody), images))
    return alone


def show_images(
    indices: Sequence[int], labels: Mapping[int, int], says: Mapping[int, str], split: str, dataset: data.Dataset
) -> list[ShownImage]:
    """Reads images of a split by their indices, and returns them as the page shows them."""
    if not indices:
        return []
    examples = dataset.splits[split]
    pixels = examples.read(np.asarray(indices, np.int64))
    shown = []
    for image, index in zip(pixels, indices, strict=True):
        name = f"image {index}" if examples.names is None else plots.printable(str(examples.names[index]))
        true = plots.printable(dataset.classes[labels[index]])
        shown.append(ShownImage(plots.data_uri(image), name, true, says[index]))
    return shown
