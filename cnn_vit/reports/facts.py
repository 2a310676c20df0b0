"""What the page of a run says beside its plots: numbers with their intervals, images, settings, data, cost."""

from typing import Any

from cnn_vit import models, plots, settings
from cnn_vit.analysis import input_layer, table
from cnn_vit.errors import UserError
from cnn_vit.reports.page import duration_text, interval_text, percent
from cnn_vit.reports.tallies import tally
from cnn_vit.runs import journal
from cnn_vit.runs.reader import SPLITS, RunRecord

FEW = 64  # patches that are shown one by one
SMALL = 48  # pixels a side, up to which each is shown as a square
LOW = 0.1  # least width of the colors of a likeness, where all are alike


def tally_splits(record: RunRecord) -> dict[str, dict[str, Any]]:
    """The numbers of each split that was judged."""
    loss = record.settings["loss.name"]
    return {split: tally(rows, record.classes, loss) for split, rows in record.predictions.items()}


def page_facts(record: RunRecord, tallied: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Everything that the template of one run names."""
    layers, why_no_layers = layer_table(record)
    return {
        "record": record,
        "title": f"{record.name}: {record.settings['model.name']}",
        "status": status(record),
        "tallies": tallied,
        "best": journal.best_evaluation(told) if (told := record.lines("evaluation")) else None,
        "cards": cards(record, tallied, layers),
        "speed": speed(record),
        "mistakes": worst_mistakes(record, tallied),
        "seen": seen_images(record),
        "looks": learned_features(record),
        "layers": layers,
        "why_no_layers": why_no_layers,
        "settings": explain_settings(record.settings),
        "command": command(record),
        "reads": reads(record),
        "surroundings": surroundings(record),
        **sizes(record),
    }


def explain_settings(final: settings.Settings) -> list[tuple[str, Any, str, str]]:
    """Key, value, origin and meaning of every setting, those of the network's keywords from its own text."""
    try:
        known = models.keyword_table(final["model.name"])
    except UserError:  # a run of another version's network
        known = {}
    meant = {f"model.{name}": meaning.rstrip(".") for name, (_, _, meaning) in known.items()}
    return [
        (key, value, where, meaning or meant.get(key, "")) for key, value, where, meaning in settings.explain(final)
    ]


def status(record: RunRecord) -> str:
    """How far the run is, in words."""
    total = "" if record.total is None else f" of {record.total:,}"
    return f"finished at step {record.step:,}" if record.result else f"not finished: step {record.step:,}{total}"


def cards(
    record: RunRecord, tallied: dict[str, dict[str, Any]], layers: table.Description | None
) -> list[tuple[str, str, str]]:
    """The numbers at the top: name, value, remark."""
    found = [
        (f"{split} accuracy", percent(told["accuracy"].estimate), f"{interval_text(told['accuracy'])}, n {told['n']:,}")
        for split in reversed(SPLITS)
        if (told := tallied.get(split))
    ]
    evaluations = record.lines("evaluation")
    if not tallied and evaluations:
        best = journal.best_evaluation(evaluations)
        found.append(("best validation so far", percent(best["accuracy"]), f"step {best['step']:,}, n {best['n']:,}"))
    parameters = layers.parameters if layers else record.result.get("parameters")
    if parameters:
        macs = f"{layers.macs:,} MACs an image" if layers else ""
        found.append(("parameters", f"{parameters:,}", macs))
    if record.timing:
        last = record.timing[-1]
        found.append(("time", duration_text(last["seconds"]), f"{duration_text(last['cpu_seconds'])} of CPU"))
    if pace := speed(record):
        found.append(("images a second", f"{pace:,.0f}", "evaluations and saves included"))
    return found


def speed(record: RunRecord) -> float | None:
    """Images a second from the first line of the clock to the last, so without compilation; None of fewer than two."""
    first, last = (record.timing[0], record.timing[-1]) if record.timing else ({}, {})
    if not first or last["seconds"] <= first["seconds"]:
        return None
    return record.batch_size * (last["step"] - first["step"]) / (last["seconds"] - first["seconds"])


def command(record: RunRecord) -> str | None:
    """The words that do it again, in a new folder; None where the run was not started by any."""
    given = record.environment.get("command")
    return f"{plots.printable(given)} --workdir=NEW_FOLDER" if isinstance(given, str) else None


def reads(record: RunRecord) -> dict[str, int]:
    """How often the test split was read, by whom."""
    found: dict[str, int] = {}
    for line in record.reads:
        who = plots.printable(str(line.get("by", "unknown")))
        found[who] = found.get(who, 0) + 1
    return found


# Images -------------------------------------------------------------------------------------------------------------


def worst_mistakes(record: RunRecord, tallied: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The worst mistakes of the validation split: image, true and predicted class, probabilities of both."""
    rows, told = record.predictions.get("validation"), tallied.get("validation")
    if rows is None or told is None or "mistakes" not in record.samples:
        return []
    place = {int(index): at for at, index in enumerate(rows["index"])}
    names = record.samples.get("mistakes_name")
    found = []
    for number, index in enumerate(record.samples["mistakes_index"]):
        at = place.get(int(index))
        if at is None:
            continue
        true, predicted = int(rows["label"][at]), int(rows["predicted"][at])
        chances = told["chances"]
        found.append({
            "image": plots.data_uri(record.samples["mistakes"][number]),
            "true": record.classes[true],
            "predicted": record.classes[predicted],
            "sure": None if chances is None else chances[at, predicted],
            "of_true": None if chances is None else chances[at, true],
            "loss": float(rows["loss"][at]),
            "name": f"image {int(index)}" if names is None else plots.printable(str(names[number])),
        })  # fmt: skip
    return found


def seen_images(record: RunRecord) -> list[dict[str, Any]]:
    """The augmented images with their labels; of a mixture both classes with their shares."""
    found = record.samples
    if "seen" not in found or "seen_label" not in found:
        return []
    labels = [record.classes[label] for label in found["seen_label"]]
    if "seen_other" in found and "seen_share" in found:
        shares = zip(labels, found["seen_other"], found["seen_share"], strict=True)
        labels = [soft_label_text(own, record.classes[other], float(of_own)) for own, other, of_own in shares]
    images = map(plots.data_uri, found["seen"])
    return [{"image": image, "label": label} for image, label in zip(images, labels, strict=True)]


def sizes(record: RunRecord) -> dict[str, bool]:
    """Whether images are so small that pixels are shown as squares, and whether they are smaller than they were."""
    kept, shape = record.samples.get("seen"), record.data.get("image_shape")
    height = 0 if kept is None else kept.shape[1]
    return {"small_images": height <= SMALL, "shown_smaller": bool(shape and 0 < height < shape[0])}


def soft_label_text(own: str, other: str, of_own: float) -> str:
    """A soft label in words: "cat 71 %, dog 29 %"."""
    return own if of_own > 0.995 else f"{own} {percent(of_own, 0)}, {other} {percent(1 - of_own, 0)}"


def learned_features(record: RunRecord) -> dict[str, Any]:
    """Filters before and after, one image as the sequence of its patches, how alike positions are."""
    kept, found = record.samples, dict[str, Any]()
    for name in ("filters_before", "filters_after"):
        if name in kept:
            images = plots.filter_images(kept[name])
            found[name] = plots.data_uri(plots.image_grid(images, columns=8))
    if "filters_after" in kept:
        found["filters"] = kept["filters_after"].shape
    if "patches" in kept and "seen" in kept:
        found |= patch_sequence(record)
    if "similarity" in kept:
        maps = kept["similarity"]
        low = min(float(maps.min()), 1 - LOW)
        colors = plots.heatmap(maps.reshape(-1, *maps.shape[2:]), low, 1.0)
        found["positions"] = plots.data_uri(plots.image_grid(colors, columns=maps.shape[1]))
        found["positions_low"] = low
        found["positions_shape"] = maps.shape
    return found


def patch_sequence(record: RunRecord) -> dict[str, Any]:
    """The first image of the batch, cut, and its patches in the order in which the network reads them."""
    patch, rows, columns = map(int, record.samples["patches"][:3])
    image, shape = record.samples["seen"][0], record.data.get("image_shape")
    times = shape[0] // image.shape[0] if shape else 1  # pixels that one of the kept image stands for
    side = patch // times
    if not side or (image.shape[0] // side, image.shape[1] // side) != (rows, columns):
        return {}
    patches = input_layer.split_into_patches(image, side)
    return {
        "patch": patch,
        "patch_rows": rows,
        "patch_columns": columns,
        "patch_grid": plots.data_uri(plots.image_grid(patches, columns=columns)),
        "patches": [plots.data_uri(one) for one in patches] if len(patches) <= FEW else [],
        "patch_strip": plots.data_uri(plots.image_grid(patches, columns=2 * columns)),
    }


# The network ----------------------------------------------------------------------------------------------------------


def layer_table(record: RunRecord) -> tuple[table.Description | None, str]:
    """The network's layers, or None and why not."""
    shape = record.data.get("image_shape")
    if not isinstance(shape, list) or len(shape) != 3:
        return None, "data.json does not say the shape of the images"
    keywords = {key: value for key, value in record.settings.section("model").items() if key != "name"}
    try:
        found = table.describe(
            record.settings["model.name"],
            (shape[0], shape[1]),
            num_classes=len(record.classes),
            channels=shape[2],
            dtype=record.settings["dtype"],
            **keywords,
        )
    except UserError as error:
        return None, str(error)
    return found, ""


# Surroundings ---------------------------------------------------------------------------------------------------------


def surroundings(record: RunRecord) -> list[tuple[str, Any]]:
    """What bears on bits and times: commit, machine, versions, fingerprints, starts."""
    told, devices = record.environment, record.environment.get("devices", {})
    versions = told.get("versions", {})
    rows = [
        ("commit", told.get("commit")),
        ("device", f"{devices.get('count')} x {devices.get('kind')} ({devices.get('platform')})" if devices else None),
        ("cores", told.get("cores")),
        ("machine", told.get("machine")),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items()) or None),
        ("run fingerprint", record.result.get("fingerprint")),
        ("data fingerprint", record.data.get("fingerprint")),
        ("started again", f"{len(again)} times" if (again := told.get("resumed")) else None),
        ("started from", fork_text(record)),
    ]
    return [(name, value) for name, value in rows if value is not None]


def fork_text(record: RunRecord) -> str | None:
    """The run and step that this one started from, in words."""
    note = record.result.get("forked_from")
    return f"step {note.get('step')} of {note.get('from')}" if isinstance(note, dict) else None
