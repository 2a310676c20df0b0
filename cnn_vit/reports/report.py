"""Writes the page of one run from its folder alone: what was trained on what, how it went, where it errs, what it cost.

The same folder gives the same bytes with the same versions. A page carries a mark, a hash of everything that it was
made of: the run's files, the package's code, the versions of libraries. `write` leaves a page with the right mark as it
is.
"""

import functools
import hashlib
import importlib.metadata
from pathlib import Path

from cnn_vit import files, plots, stops
from cnn_vit.plots import Line, Span
from cnn_vit.reports import facts, page
from cnn_vit.reports.tallies import SplitTally
from cnn_vit.runs import folder, reader
from cnn_vit.runs.reader import RunRecord

MARK = '<meta name="made-of" content="{}">'
MARK_END = 4096  # bytes from the start of a page, within which its mark stands
PACKAGE = Path(__file__).parents[1]
LIBRARIES = ("flax", "jax", "jinja2", "matplotlib", "numpy", "pillow", "scipy")  # that pages are made with
MAX_CLASS_BARS = 30  # of more classes, the training examples are not drawn as bars


def write(workdir: str | Path, out: str | Path | None = None) -> tuple[RunRecord, Path]:
    """Writes the page of a run, and its plots beside it where the page goes into the run folder.

    Args:
        workdir: the run folder, of a run that is finished or not.
        out: where the page goes; left out, `RUN/report.html`.

    Returns:
        The record that was read, with its problems, and the path of the page.

    Raises:
        UserError: the folder holds no run.
        SurroundingsError: the folder cannot be read, or the page cannot be written.
    """
    record = reader.read_run(workdir)
    path = record.workdir / folder.REPORT if out is None else Path(out)
    mark = MARK.format(hashlib.sha256(f"{record.digest} {hash_makers()}".encode()).hexdigest())
    if has_mark(path, mark):
        return record, path
    tallies = facts.tally_splits(record)
    drawings = draw_plots(record, tallies)
    stops.raise_if_requested()
    if out is None:
        for name, svg in (drawings | draw_overview(record, drawings)).items():
            files.write(record.workdir / folder.PLOTS / f"{name}.svg", plots.standalone(svg))
    text = page.render(
        "run.html",
        mark=mark,
        title=f"{record.name}: {record.settings['model.name']}",
        record=record,
        page=facts.collect_page(record, tallies),
        plots=drawings,
    )
    files.write(path, text)
    return record, path


# Whether a page is new enough -----------------------------------------------------------------------------------------


def has_mark(path: Path, mark: str) -> bool:
    """Whether a page exists and carries exactly this mark."""
    if not path.is_file():
        return False
    with files.os_errors(path), open(path, "rb") as file:
        return mark.encode() in file.read(MARK_END)


@functools.cache
def hash_makers() -> str:
    """Returns the versions of the libraries and the hashes of the package's files, all that pages are made with.

    Every file of the package counts. A page depends on the code of most rooms, because its table of layers builds the
    network; to make one anew that did not need it takes a second, and to keep one that did would be wrong.
    """
    versions = [f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES]
    hashes = [files.sha256(path) for path in list_code_files()]
    return " ".join(versions + hashes)


def list_code_files() -> list[Path]:
    """Returns the code and the templates of the whole package, in a fixed order."""
    return sorted(path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".html"))


# Plots ----------------------------------------------------------------------------------------------------------------


def draw_plots(record: RunRecord, tallies: dict[str, SplitTally]) -> dict[str, str]:
    """Returns every plot that the run has numbers for, as SVG by name."""
    drawings = draw_curves(record)
    for split, tally in tallies.items():
        stops.raise_if_requested()
        if tally.confusion is not None:
            title = f"Confusion, {split} (n {tally.n:,})"
            drawings[f"confusion_{split}"] = plots.draw_confusion(tally.confusion, record.classes, title=title)
    evaluated = [tallies[split] for split in reader.SPLITS if split in tallies]
    if evaluated and evaluated[0].bins:  # of validation, or of test where there is no validation
        points = [Span(str(filled.confidence), *filled.accuracy) for filled in evaluated[0].bins]
        drawings["calibration"] = plots.draw_reliability(points, title="Calibration")
    stored_counts = record.data.get("class_counts", {}).get("train", {})
    if stored_counts and len(record.classes) <= MAX_CLASS_BARS:
        # The record's names of classes are printable ones; data.json has them as they are.
        counts = {plots.printable(name): count for name, count in stored_counts.items()}
        heights = [counts.get(name, 0) for name in record.classes]
        drawings["classes"] = plots.draw_bars(heights, record.classes, title="Training examples")
    return drawings


def draw_curves(record: RunRecord) -> dict[str, str]:
    """Returns the curves of metrics.jsonl: loss, accuracy, learning rate and gradient norm over the steps."""
    train, evaluations = record.lines("train"), record.lines("evaluation")
    train_steps = [line["step"] for line in train]
    evaluation_steps = [line["step"] for line in evaluations]
    titles = {
        "loss": "Loss",
        "accuracy": "Accuracy",
        "learning_rate": "Learning rate",
        "gradient_norm": "Norm of the gradient",
    }
    drawings = {}
    for name, title in titles.items():
        stops.raise_if_requested()
        curves = [Line("train", train_steps, [line.get(name) for line in train])]
        if name in ("loss", "accuracy"):
            curves.append(Line("validation", evaluation_steps, [line.get(name) for line in evaluations], series=1))
        curves = [curve for curve in curves if any(value is not None for value in curve.y)]
        if curves:
            is_logarithmic = name == "gradient_norm" and len(train_steps) > 1
            drawings[name] = plots.draw_curves(curves, title=title, percent=name == "accuracy", log=is_logarithmic)
    return drawings


def draw_overview(record: RunRecord, drawings: dict[str, str]) -> dict[str, str]:
    """Returns one plot of the run at a glance, named "overview": accuracy, confusion and training images side by side.

    A run that has not all three has no overview.
    """
    if "accuracy" not in drawings or "confusion_validation" not in drawings or "seen" not in record.samples:
        return {}
    sheet = plots.data_uri(plots.image_grid(record.samples["seen"][:16], columns=4))
    panels = drawings["accuracy"], drawings["confusion_validation"], plots.draw_panel(sheet, "What it saw")
    return {"overview": plots.side_by_side(panels, record.name)}
