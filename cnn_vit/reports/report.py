"""One run as one page, made from its folder alone: what was trained on what, how it went, where it errs, what it cost.

The same folder gives the same bytes with the same versions. `write` leaves a page as it is that was made of the same
files by the same code.
"""

import functools
import hashlib
import importlib.metadata
from pathlib import Path
from typing import Any

from cnn_vit import files
from cnn_vit import plots as pictures
from cnn_vit.plots import Line, Span
from cnn_vit.reports import facts, page
from cnn_vit.runs import reader
from cnn_vit.runs.reader import RunRecord

NAME = "report.html"
MARK = '<meta name="made-of" content="{}">'
HEAD = 4096  # bytes of a page that hold its mark
MADE_WITH = ("jinja2", "matplotlib", "numpy", "pillow")
LISTED = 30  # classes, at most, that are drawn as bars


def write(workdir: str | Path, out: str | Path | None = None) -> tuple[RunRecord, Path]:
    """Writes the page of a run, and its plots beside it where it goes into the run's own folder.

    Args:
        workdir: the run folder, of a run that is finished or not.
        out: the page; left out, `RUN/report.html`.

    Returns:
        What was read, with its problems, and where the page is.

    Raises:
        UserError: the folder holds no run.
        SurroundingsError: it cannot be read, or the page not written.
    """
    record = reader.read_run(workdir)
    path = record.workdir / NAME if out is None else Path(out)
    mark = MARK.format(hashlib.sha256(f"{record.digest} {makers()}".encode()).hexdigest())
    if not is_marked(path, mark):
        tallies = facts.tally_splits(record)
        drawn = plots(record, tallies)
        if out is None:
            for name, plot in (drawn | overview(record, drawn)).items():
                files.write(record.workdir / "plots" / f"{name}.svg", pictures.standalone(plot))
        files.write(path, page.render("run.html", facts.page_facts(record, tallies) | {"plots": drawn, "mark": mark}))
    return record, path


def is_marked(path: Path, mark: str) -> bool:
    """Whether a page says that it was made of just this."""
    if not path.is_file():
        return False
    with files.os_errors(path), open(path, "rb") as file:
        return mark.encode() in file.read(HEAD)


@functools.cache
def makers() -> str:
    """Versions and code that a page's bytes depend on."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in MADE_WITH]
    rooms = Path(__file__).parent, Path(pictures.__file__).parent
    own = [files.sha256(path) for room in rooms for path in sorted(room.iterdir()) if path.suffix in (".py", ".html")]
    return " ".join(versions + own)


# Plots ----------------------------------------------------------------------------------------------------------------


def plots(record: RunRecord, tallies: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Every plot there is something for, by name."""
    found = journal_plots(record)
    for split, told in tallies.items():
        found[f"confusion_{split}"] = pictures.matrix(
            told["counts"], record.classes, title=f"Confusion, {split} (n {told['n']:,})"
        )
    shown = next((tallies[split] for split in reader.SPLITS if split in tallies), None)
    if shown and shown["bins"]:
        points = [Span(str(one.sure), one.right.estimate, one.right.low, one.right.high) for one in shown["bins"]]
        found["calibration"] = pictures.reliability(points, title="Calibration")
    counts = {pictures.printable(name): n for name, n in record.data.get("class_counts", {}).get("train", {}).items()}
    if counts and len(record.classes) <= LISTED:
        values = [counts.get(name, 0) for name in record.classes]
        found["classes"] = pictures.bars(values, record.classes, title="Training examples")
    return found


def overview(record: RunRecord, drawn: dict[str, str]) -> dict[str, str]:
    """A run at a glance: accuracy, confusion and what it saw, side by side; none of a run that has not all three."""
    if not {"accuracy", "confusion_validation"} <= drawn.keys() or "seen" not in record.samples:
        return {}
    sheet = pictures.data_uri(pictures.image_grid(record.samples["seen"][:16], columns=4))
    plots = drawn["accuracy"], drawn["confusion_validation"], pictures.panel(sheet, "What it saw")
    return {"overview": pictures.side_by_side(plots, record.name)}


def journal_plots(record: RunRecord) -> dict[str, str]:
    """Curves of what the journal tells."""
    steps, told = [line["step"] for line in record.lines("train")], record.lines("evaluation")
    found = {}
    for name, title in (
        ("loss", "Loss"),
        ("accuracy", "Accuracy"),
        ("learning_rate", "Learning rate"),
        ("gradient_norm", "Norm of the gradient"),
    ):
        lines = [Line("train", steps, [line.get(name) for line in record.lines("train")])]
        if name in ("loss", "accuracy"):
            lines.append(Line("validation", [line["step"] for line in told], [line.get(name) for line in told], 1))
        lines = [line for line in lines if any(value is not None for value in line.y)]
        if lines:
            found[name] = pictures.curves(
                lines, title=title, percent=name == "accuracy", log=name == "gradient_norm" and len(steps) > 1
            )
    return found
