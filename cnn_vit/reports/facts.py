"""What the page of a run says beside its plots: one dataclass for each block of the template `run.html`.

`collect_page` fills a `RunPage` from the record of a run folder. The rest of the file follows the page from top to
bottom: each block's dataclass, then the function that makes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from cnn_vit import models, plots, settings, trees
from cnn_vit.analysis import input_layer, table
from cnn_vit.errors import UserError
from cnn_vit.reports.page import duration_text, interval_text, percent
from cnn_vit.reports.tallies import SplitTally, tally_predictions
from cnn_vit.runs import journal
from cnn_vit.runs.reader import SPLITS, RunRecord
from cnn_vit.settings.record import ExplainedSetting
from cnn_vit.training import memory, plan

MAX_SINGLE_PATCHES = 64  # of more patches, only the whole sequence is shown
SMALL = 48  # pixels a side; of images up to this size each pixel is shown as a square
LEAST_COLOR_RANGE = 0.1  # of cosines, so that the colors of nearly equal ones do not show noise


@dataclass(frozen=True)
class RunPage:
    """All blocks of the page of a run, from top to bottom.

    Attributes:
        status: how far the run is, in words.
        cards: the numbers at the top.
        test_reads: how often each command read the test split.
        best: the journal's line of the best evaluation; None before the first one.
        start: what the run started from, and what of it stayed; None where it trained all of a network from initial
            values.
        tallies: numbers of each split that was evaluated.
        mistakes: the worst mistakes of the validation split, worst first.
        training_images: images of the first batch, as the network saw them.
        images_are_small: whether each pixel is shown as a square.
        images_are_reduced: whether images are stored, and so shown, smaller than the network saw them.
        patches: the first image as a sequence of patches; None of a network without patches.
        filters: filters of the first convolution or patch embedding; None where none were stored.
        positions: how similar learned positions are; None of a network without them.
        layers: the table of layers; None where it cannot be made.
        why_no_layers: why there is no table of layers; "" where there is one.
        settings: every setting with its meaning.
        command: the command that repeats the run; None of a run that was started from Python.
        environment: names and values of what bears on the run's bits and times.
    """

    status: str
    cards: list["Card"]
    test_reads: dict[str, int]
    best: dict[str, Any] | None
    start: "Start | None"
    tallies: dict[str, SplitTally]
    mistakes: list["Mistake"]
    training_images: list["TrainingImage"]
    images_are_small: bool
    images_are_reduced: bool
    patches: "PatchSequence | None"
    filters: "Filters | None"
    positions: "PositionSimilarity | None"
    layers: table.Description | None
    why_no_layers: str
    settings: list[ExplainedSetting]
    command: str | None
    environment: list[tuple[str, Any]]


def collect_page(record: RunRecord, tallies: dict[str, SplitTally]) -> RunPage:
    """Returns everything that the template of one run names, beside the record itself and the plots."""
    layers, why_no_layers = describe_layers(record)
    evaluations = record.lines("evaluation")
    return RunPage(
        status=status_text(record),
        cards=make_cards(record, tallies, layers),
        test_reads=count_test_reads(record),
        best=journal.best_evaluation(evaluations) if evaluations else None,
        start=describe_start(record),
        tallies=tallies,
        mistakes=worst_mistakes(record, tallies),
        training_images=training_images(record),
        images_are_small=sample_height(record) <= SMALL,
        images_are_reduced=reduction_factor(record) > 1,
        patches=patch_sequence(record),
        filters=show_filters(record.samples),
        positions=show_positions(record.samples),
        layers=layers,
        why_no_layers=why_no_layers,
        settings=explain_settings(record),
        command=command_text(record),
        environment=list_environment(record),
    )


# The top of the page --------------------------------------------------------------------------------------------------


class Card(NamedTuple):
    """A number at the top of the page.

    Attributes:
        name: what it counts.
        value: the number.
        note: a remark below it.
    """

    name: str
    value: str
    note: str


def tally_splits(record: RunRecord) -> dict[str, SplitTally]:
    """Returns the numbers of each split whose predictions are there."""
    loss = record.settings["loss.name"]
    return {split: tally_predictions(rows, record.classes, loss) for split, rows in record.predictions.items()}


def status_text(record: RunRecord) -> str:
    """Says how far the run is: "finished at step 200" or "not finished: step 120 of 200"."""
    if record.result:
        return f"finished at step {record.step:,}"
    total = "" if record.total is None else f" of {record.total:,}"
    return f"not finished: step {record.step:,}{total}"


def make_cards(record: RunRecord, tallies: dict[str, SplitTally], layers: table.Description | None) -> list[Card]:
    """Returns the numbers at the top of the page: accuracies, the network's size, time, speed."""
    cards = []
    for split in reversed(SPLITS):
        if split in tallies:
            tally = tallies[split]
            note = f"{interval_text(tally.accuracy)}, n {tally.n:,}"
            cards.append(Card(f"{split} accuracy", percent(tally.accuracy.estimate), note))
    if record.has_unread_test:
        cards.append(Card("test accuracy", "not read", f"n {record.data['counts']['test']:,}, left unread by the run"))
    evaluations = record.lines("evaluation")
    if evaluations and not tallies:  # a run that is not finished has no predictions yet
        best = journal.best_evaluation(evaluations)
        note = f"step {best['step']:,}, n {best['n']:,}"
        cards.append(Card("best validation so far", percent(best["accuracy"]), note))
    # A network of another version cannot be described; what the run itself counted still stands in result.json.
    parameters = layers.parameters if layers else record.result.get("parameters")
    if parameters:
        note = f"{layers.macs:,} MACs an image" if layers else ""
        cards.append(Card("parameters", f"{parameters:,}", note))
    frozen: Any = record.result.get("frozen")
    if frozen:
        trained_count = record.result["trained_parameters"]
        note = f"all but {frozen['parameters']:,}"
        if frozen.get("stages"):
            note = f"at the end; {frozen['parameters']:,} were frozen at first"
        elif record.result.get("lora"):
            note = f"{record.result['lora']['parameters']:,} of them in adapters"
        cards.append(Card("trained parameters", f"{trained_count:,}", note))
    if record.timing:
        last = record.timing[-1]
        cards.append(Card("time", duration_text(last["seconds"]), f"{duration_text(last['cpu_seconds'])} of CPU"))
    speed = images_per_second(record)
    if speed:
        cards.append(Card("images a second", f"{speed:,.0f}", "evaluations and saves included"))
    return cards


def images_per_second(record: RunRecord) -> float | None:
    """Returns the speed of training between the first line of timing.jsonl and the last; None of fewer than two lines.

    The time before the first line, most of it compilation, does not count.
    """
    if len(record.timing) < 2:
        return None
    first, last = record.timing[0], record.timing[-1]
    seconds = last["seconds"] - first["seconds"]
    if seconds <= 0:
        return None
    return record.batch_size * (last["step"] - first["step"]) / seconds


def count_test_reads(record: RunRecord) -> dict[str, int]:
    """Returns how often each command read the test split, in the order of their first readings."""
    counts: dict[str, int] = {}
    for line in record.reads:
        command = plots.printable(str(line.get("by", "unknown")))
        counts[command] = counts.get(command, 0) + 1
    return counts


# What the run started from --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Start:
    """What a run started from, and what became of the values that it froze.

    Attributes:
        weights: the file or run that its values came from; None for initial values.
        origin: what the card of the weights says of where they come from, by name.
        groups: of each part of the network, how many of its arrays were loaded, resized and new.
        proof: a sentence on the frozen values; "" where nothing is frozen or the run is not finished.
        is_proven: whether all that is frozen has stayed as it was.
    """

    weights: str | None
    origin: dict[str, Any]
    groups: list[tuple[str, dict[str, int]]]
    proof: str
    is_proven: bool


def describe_start(record: RunRecord) -> Start | None:
    """Describes the start of a run that began from weights or froze something; None for any other."""
    if not record.pretrained:
        return None
    card = record.pretrained.get("card") or {}
    groups: dict[str, dict[str, int]] = {}
    for path, how, _, _ in record.pretrained["leaves"]:
        group = trees.part_of(path.partition("/")[2])  # behind "params" or "stats"
        counts = groups.setdefault(group, {"loaded": 0, "resized": 0, "new": 0})
        counts[how] += 1
    proof = record.result.get("frozen")
    return Start(
        weights=record.pretrained.get("weights"),
        origin={"model": card.get("model"), **card.get("origin", {})} if card else {},
        groups=list(groups.items()),
        proof=describe_proof(proof) if proof else "",
        is_proven=proof is not None and not proof["moved"],
    )


def describe_proof(frozen: dict[str, Any]) -> str:
    """Says whether the frozen values of a finished run have stayed as they were."""
    when = " in the first stage" if frozen.get("stages") else ""
    what = f"{frozen['parameters']:,} parameters ({frozen['pattern']}) were frozen{when}"
    if frozen["moved"]:
        return f"{what}, and {', '.join(frozen['moved'])} did not stay as they were."
    digest = frozen["digest"][:12]
    statistics = {
        "stored": "Their running statistics stayed, too.",
        "update": "Their running statistics followed the batches.",
        "recalibrate": "Their running statistics were measured once on the training images, before the first step.",
    }
    proof = f"{what}, and did not move: the sha256 of what is saved, {digest}..., is that of what the run started from."
    if frozen.get("stages"):
        proof += f" So is that of what each of the {len(frozen['stages'])} stages froze."
    if not frozen["running_statistics"] and frozen["statistics"] != "update":  # a network without batch norm
        return proof
    return f"{proof} {statistics[frozen['statistics']]}"


# Images: mistakes, and what the network saw ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Mistake:
    """An image for which another class than its own is predicted.

    Attributes:
        image: the image as a data address.
        true: name of its class.
        predicted: name of the predicted class.
        true_probability: probability of its class; None where only the best scores were stored.
        predicted_probability: probability of the predicted class; None likewise.
        loss: its loss.
        name: its file, or its number in the split.
    """

    image: str
    true: str
    predicted: str
    true_probability: float | None
    predicted_probability: float | None
    loss: float
    name: str


def worst_mistakes(record: RunRecord, tallies: dict[str, SplitTally]) -> list[Mistake]:
    """Returns the stored mistakes of the validation split, worst first; none where these or predictions are missing."""
    samples = record.samples
    if "validation" not in tallies or "mistakes" not in samples:
        return []
    predictions = record.predictions["validation"]
    probabilities = tallies["validation"].probabilities
    # Samples and predictions both name an image by its index in the split.
    row_of_index = {int(index): row for row, index in enumerate(predictions["index"])}
    mistakes = []
    for number, index in enumerate(map(int, samples["mistakes_index"])):
        if index not in row_of_index:  # samples of another run
            continue
        row = row_of_index[index]
        true, predicted = int(predictions["label"][row]), int(predictions["predicted"][row])
        name = f"image {index}"
        if "mistakes_name" in samples:
            name = plots.printable(str(samples["mistakes_name"][number]))
        mistakes.append(
            Mistake(
                image=plots.data_uri(samples["mistakes"][number]),
                true=record.classes[true],
                predicted=record.classes[predicted],
                true_probability=None if probabilities is None else probabilities[row, true],
                predicted_probability=None if probabilities is None else probabilities[row, predicted],
                loss=float(predictions["loss"][row]),
                name=name,
            )
        )
    return mistakes


class TrainingImage(NamedTuple):
    """An augmented image as a data address, with its label in words."""

    image: str
    label: str


def training_images(record: RunRecord) -> list[TrainingImage]:
    """Returns the stored images of the first batch; the label of a mixed image names both classes and their shares."""
    samples = record.samples
    if "seen" not in samples or "seen_label" not in samples:
        return []
    labels = [record.classes[label] for label in samples["seen_label"]]
    if "seen_other" in samples and "seen_share" in samples:
        mixtures = zip(labels, samples["seen_other"], samples["seen_share"], strict=True)
        labels = [mixed_label_text(first, record.classes[second], float(share)) for first, second, share in mixtures]
    images = map(plots.data_uri, samples["seen"])
    return [TrainingImage(image, label) for image, label in zip(images, labels, strict=True)]


def mixed_label_text(first: str, second: str, first_share: float) -> str:
    """Writes a soft label in words, "cat 71 %, dog 29 %"; a share that rounds to 100 % leaves its class alone."""
    if first_share > 0.995:
        return first
    return f"{first} {percent(first_share, 0)}, {second} {percent(1 - first_share, 0)}"


def sample_height(record: RunRecord) -> int:
    """Returns the height in pixels of the stored training images; 0 where there are none."""
    images = record.samples.get("seen")
    return 0 if images is None else images.shape[1]


def reduction_factor(record: RunRecord) -> float:
    """Returns how many times higher the network's images are than the stored ones; 1 where that is not known."""
    image_shape = record.data.get("image_shape")
    if not image_shape or not sample_height(record):
        return 1.0
    return max(1.0, image_shape[0] / sample_height(record))


# What the network learned of pixels -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class PatchSequence:
    """An image as a vision transformer reads it.

    Attributes:
        patch: side of a patch in pixels.
        rows: patches from top to bottom.
        columns: patches from left to right.
        grid: data address of the image, cut into its patches.
        patches: data addresses of the single patches, in their order; none where they are many.
        strip: data address of all patches in their order, half as many rows of twice as many patches.
    """

    patch: int
    rows: int
    columns: int
    grid: str
    patches: list[str]
    strip: str


def patch_sequence(record: RunRecord) -> PatchSequence | None:
    """Cuts the first training image into patches, in the order in which the network reads them.

    Returns:
        None where the network has no patches, no image is stored, or the image is stored too small to be cut.
    """
    if "patches" not in record.samples or "seen" not in record.samples:
        return None
    patch, rows, columns = map(int, record.samples["patches"][:3])
    image = record.samples["seen"][0]
    side = patch // int(reduction_factor(record))  # pixels of a patch in the stored image
    # A reduced image that does not fall into the network's rows and columns would show patches that it never reads.
    if not side or (image.shape[0] // side, image.shape[1] // side) != (rows, columns):
        return None
    patches = input_layer.split_into_patches(image, side)
    return PatchSequence(
        patch=patch,
        rows=rows,
        columns=columns,
        grid=plots.data_uri(plots.image_grid(patches, columns=columns)),
        patches=list(map(plots.data_uri, patches)) if len(patches) <= MAX_SINGLE_PATCHES else [],
        strip=plots.data_uri(plots.image_grid(patches, columns=2 * columns)),
    )


@dataclass(frozen=True)
class Filters:
    """Filters of the first convolution or patch embedding.

    Attributes:
        shape: their number, height, width and channels.
        before: data address of the filters before training; None where their values came from another run.
        after: data address of the filters after training.
    """

    shape: tuple[int, ...]
    before: str | None
    after: str


def show_filters(samples: Mapping[str, np.ndarray]) -> Filters | None:
    """Draws the filters before and after training; None where a run's samples hold none."""
    if "filters_after" not in samples:
        return None
    sheets = {}
    for name in ("filters_before", "filters_after"):
        if name in samples:
            images = plots.filter_images(samples[name])
            sheets[name] = plots.data_uri(plots.image_grid(images, columns=8))
    shape = samples["filters_after"].shape
    return Filters(shape=shape, before=sheets.get("filters_before"), after=sheets["filters_after"])


@dataclass(frozen=True)
class PositionSimilarity:
    """Cosines between the learned positions of patches.

    Attributes:
        image: data address of the maps, one for each chosen patch, side by side as the patches are.
        shape: rows and columns of maps, rows and columns of each map.
        low: the cosine that is shown in the darkest color; 1 has the lightest.
    """

    image: str
    shape: tuple[int, ...]
    low: float


def show_positions(samples: Mapping[str, np.ndarray]) -> PositionSimilarity | None:
    """Draws the cosines between learned positions; None where a run's samples hold none."""
    if "similarity" not in samples:
        return None
    maps = samples["similarity"]  # (map rows, map columns, patch rows, patch columns)
    low = min(float(maps.min()), 1 - LEAST_COLOR_RANGE)
    colors = plots.heatmap(maps.reshape(-1, *maps.shape[2:]), low, 1.0)
    image = plots.data_uri(plots.image_grid(colors, columns=maps.shape[1]))
    return PositionSimilarity(image=image, shape=maps.shape, low=low)


# The network ----------------------------------------------------------------------------------------------------------


def describe_layers(record: RunRecord) -> tuple[table.Description | None, str]:
    """Returns the table of the network's layers and "", or None and the reason why there is none."""
    shape = record.data.get("image_shape")
    if not isinstance(shape, list) or len(shape) != 3:
        return None, "data.json does not say the shape of the images"
    keywords = plan.model_keywords(record.settings)
    try:
        description = table.describe(
            record.settings["model.name"],
            (shape[0], shape[1]),
            num_classes=len(record.classes),
            channels=shape[2],
            dtype=record.settings["dtype"],
            **keywords,
        )
    except UserError as error:  # this version has no such network, or it does not take such keywords or images
        return None, str(error)
    return description, ""


# Settings, and how to repeat the run ----------------------------------------------------------------------------------


def explain_settings(record: RunRecord) -> list[ExplainedSetting]:
    """Returns every setting; a keyword of the network has its meaning from the docstring of the network's class."""
    try:
        keywords = models.read_keywords(record.settings["model.name"])
    except UserError:  # a run of another version, whose network this one does not have
        keywords = {}
    meanings = {f"model.{name}": keyword.meaning.rstrip(".") for name, keyword in keywords.items()}
    explained = []
    for setting in settings.explain(record.settings):
        explained.append(replace(setting, meaning=setting.meaning or meanings.get(setting.key, "")))
    return explained


def command_text(record: RunRecord) -> str | None:
    """Returns the command that repeats the run in a new folder; None of a run that was not started by a command."""
    command = record.environment.get("command")
    if not isinstance(command, str):
        return None
    return f"{plots.printable(command)} --workdir=NEW_FOLDER"


def list_environment(record: RunRecord) -> list[tuple[str, Any]]:
    """Returns names and values of what bears on bits and times: commit, machine, versions, fingerprints, restarts."""
    environment = record.environment
    devices = environment.get("devices", {})
    device = f"{devices.get('count')} x {devices.get('kind')} ({devices.get('platform')})"
    versions = ", ".join(f"{name} {version}" for name, version in environment.get("versions", {}).items())
    restarts = environment.get("resumed")
    rows = [
        ("commit", environment.get("commit")),
        ("device", device if devices else None),
        ("cores", environment.get("cores")),
        ("machine", environment.get("machine")),
        ("versions", versions or None),
        ("memory of a step", step_memory_text(environment.get("step_memory"))),
        ("run fingerprint", record.result.get("fingerprint")),
        ("data fingerprint", record.data.get("fingerprint")),
        ("started again", f"{len(restarts)} times" if restarts else None),
        ("started from", fork_text(record)),
    ]
    return [(name, value) for name, value in rows if value is not None]


def step_memory_text(step_memory: Any) -> str | None:
    """Returns the memory of a training step as text; None where a run has not recorded it."""
    try:
        return memory.StepMemory(**step_memory).as_text()
    except TypeError:  # missing, or not as this version writes it
        return None


def fork_text(record: RunRecord) -> str | None:
    """Says from which step of which run this one started; None of a run that started from nothing."""
    fork = record.result.get("forked_from")
    if not isinstance(fork, dict):
        return None
    return f"step {fork.get('step')} of {fork.get('from')}"
