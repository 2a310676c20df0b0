"""A run folder as it is read when training is over, or under way: whatever there is, each damage named.

Nothing is executed that a run folder names, no network is built and no checkpoint read. What only a finished run has
may be missing from one that is not; what a finished one lacks, or is not as it was written, is told beside the rest.
"""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cnn_vit import files, plots, settings
from cnn_vit.errors import UserError
from cnn_vit.runs import journal
from cnn_vit.settings import Settings

SPLITS = ("validation", "test")
READ = (
    "config.json", "classes.json", "data.json", "environment.json", "metrics.jsonl", "timing.jsonl", "result.json",
    "test_reads.jsonl", "samples.npz", *(f"predictions/{split}.npz" for split in SPLITS),
)  # fmt: skip
IMAGES = ("seen", "mistakes")


class RunRecord(NamedTuple):
    """What a run folder tells.

    Attributes:
        workdir: the folder.
        settings: of the run.
        classes: their names, fit to be shown.
        data, environment: data.json and environment.json; empty where there are none.
        result: result.json; empty of a run that is not finished.
        metrics, timing, reads: lines of metrics.jsonl, timing.jsonl, test_reads.jsonl.
        predictions: the arrays of each split judged.
        samples: the arrays of samples.npz.
        problems: a sentence for each file that is damaged, or missing though the run is finished.
        digest: sha256 of all files read.
    """

    workdir: Path
    settings: Settings
    classes: tuple[str, ...]
    data: dict[str, Any]
    environment: dict[str, Any]
    result: dict[str, Any]
    metrics: list[dict[str, Any]]
    timing: list[dict[str, Any]]
    reads: list[dict[str, Any]]
    predictions: dict[str, dict[str, np.ndarray]]
    samples: dict[str, np.ndarray]
    problems: tuple[str, ...]
    digest: str

    @property
    def step(self) -> int:
        """Steps done, as far as they are written down."""
        return self.result.get("steps") or max((line["step"] for line in [*self.metrics, *self.timing]), default=0)

    @property
    def total(self) -> int | None:
        """Steps of the whole run; None where the number of examples is not known."""
        examples = self.data.get("counts", {}).get("train")
        if not examples:
            return None
        return max(
            1, settings.steps(self.settings["duration"], examples=examples, batch=self.batch_size, key="duration")
        )

    @property
    def batch_size(self) -> int:
        """Images of a step."""
        return self.settings["data.batch_size"]

    @property
    def name(self) -> str:
        """The recipe with its words."""
        return ":".join(filter(None, (self.settings.recipe, ",".join(self.settings.words))))

    def lines(self, kind: str) -> list[dict[str, Any]]:
        """Those lines of the journal that tell of training, or of an evaluation."""
        return [line for line in self.metrics if line.get("kind") == kind]


def read_run(workdir: str | Path) -> RunRecord:
    """Reads a run folder.

    Raises:
        UserError: it is none, or its settings or classes are not as they were written.
        SurroundingsError: a file of it cannot be read.
    """
    workdir = Path(workdir)
    if not (workdir / "config.json").is_file() or not (workdir / "classes.json").is_file():
        raise UserError(
            f"{workdir} holds no run (no config.json and classes.json); name the --workdir of a `cnn-vit train`"
        )
    found = Reader(workdir)
    final = settings.from_json(files.read_json(workdir / "config.json"))
    names = files.read_json(workdir / "classes.json")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{workdir / 'classes.json'} is not a list of names; put it back from a copy")
    result = found.take("result.json", object_of(tested=dict, steps=int, timing=dict), {})
    found.finished = bool(result)
    predictions = {
        split: rows
        for split in SPLITS
        if (
            rows := found.take(
                f"predictions/{split}.npz", predictions_of(len(names)), {}, wanted=bool(result.get(split))
            )
        )
    }
    metrics = found.take("metrics.jsonl", journal_of(result), [], wanted=True)
    return RunRecord(
        workdir=workdir,
        settings=final,
        classes=tuple(map(plots.printable, names)),
        data=found.take("data.json", data_of, {}, wanted=True),
        environment=found.take(
            "environment.json", object_of(versions=dict, devices=dict, resumed=list), {}, wanted=True
        ),
        result=result,
        metrics=metrics,
        timing=found.take("timing.jsonl", lines_of("seconds", "cpu_seconds"), []),
        reads=found.take("test_reads.jsonl", objects_of, [], wanted=bool(result.get("test"))),
        predictions=predictions,
        samples=found.take("samples.npz", samples_of(len(names)), {}, wanted=True),
        problems=tuple(found.problems),
        digest=digest(workdir),
    )


class Reader:
    """Takes files of a folder one by one and notes what is wrong with them."""

    def __init__(self, workdir: Path):
        self.workdir, self.finished = workdir, False
        self.problems: list[str] = []

    def take(self, name: str, how: Callable[[Path], Any], otherwise: Any, *, wanted: bool = False) -> Any:
        """What a file holds; `otherwise` where it is not there or damaged, which is noted."""
        path = self.workdir / name
        try:
            if path.exists():
                return how(path)
        except UserError as error:
            self.problems.append(str(error))
            return otherwise
        if wanted and self.finished:
            self.problems.append(f"{path} is missing; the run's `cnn-vit train` command again makes what it can")
        return otherwise


def digest(workdir: Path) -> str:
    """sha256 of what is read of a run folder; of files that cannot be read, that they cannot."""
    total = hashlib.sha256()
    for name in READ:
        path = workdir / name
        try:
            total.update(f"{name} {files.sha256(path) if path.is_file() else None}\n".encode())
        except UserError as error:
            total.update(f"{name} {error}\n".encode())
    return total.hexdigest()


# What files hold: path -> value, or a UserError -----------------------------------------------------------------------


def object_of(**kinds: type) -> Callable[[Path], dict[str, Any]]:
    """A JSON object, whose values of these names are of these kinds where they are there."""

    def read(path: Path) -> dict[str, Any]:
        found = files.read_json(path)
        if not isinstance(found, dict):
            raise UserError(f"{path} is not a JSON object; put it back from a copy or remove it")
        for name, kind in kinds.items():
            if not isinstance(found.get(name, kind()), kind):
                raise UserError(f"{path}: {name} is no {kind.__name__}; put it back from a copy or remove it")
        return found

    return read


def data_of(path: Path) -> dict[str, Any]:
    """data.json, with counts that are counts."""
    found = object_of(counts=dict, class_counts=dict, image_shape=list, notes=list, skipped=list, slices=dict)(path)
    counts = [found.get("counts", {}), *found.get("class_counts", {}).values()]
    numbers = [*found.get("image_shape", [1, 1, 1]), *(n for one in counts for n in (one or {"": ""}).values())]
    if len(found.get("image_shape", "HWC")) != 3 or not all(isinstance(one, int) and one >= 0 for one in numbers):
        raise UserError(f"{path} does not count examples; put it back from a copy or remove it")
    return found


def lines_of(*names: str) -> Callable[[Path], list[dict[str, Any]]]:
    """The lines of a journal, a torn last one left out; what has these names is a number or null."""

    def read(path: Path) -> list[dict[str, Any]]:
        found = journal.read_until(path, sys.maxsize)[0]
        for number, line in enumerate(found, 1):
            if not all(isinstance(line.get(name), int | float | None) for name in names):
                raise UserError(f"line {number} of {path} holds no numbers; put the file back from a copy")
        return found

    return read


def journal_of(result: dict[str, Any]) -> Callable[[Path], list[dict[str, Any]]]:
    """The lines of metrics.jsonl; of a finished run, up to its last step."""

    def read(path: Path) -> list[dict[str, Any]]:
        found = lines_of("loss", "accuracy", "learning_rate", "gradient_norm", "n")(path)
        last = found[-1]["step"] if found else 0
        if result and last != result.get("steps"):
            raise UserError(f"{path} ends at step {last}, the run at {result.get('steps')}; put it back from a copy")
        return found

    return read


def objects_of(path: Path) -> list[dict[str, Any]]:
    """Lines of JSON objects; a torn one counts as one of which nothing is known."""
    with files.os_errors(path):
        texts = path.read_bytes().splitlines()
    found = []
    for text in filter(None, texts):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            line = {}
        found.append(line if isinstance(line, dict) else {})
    return found


def predictions_of(classes: int) -> Callable[[Path], dict[str, np.ndarray]]:
    """Predictions of a split."""

    def read(path: Path) -> dict[str, np.ndarray]:
        found = files.read_npz(path)
        columns = [found.get(name, np.zeros(0)) for name in ("index", "label", "predicted", "loss", "scores")]
        kinds = [(column.ndim, column.dtype.kind) for column in columns]
        whole = kinds == [(1, "i"), (1, "i"), (1, "i"), (1, "f"), (2, "f")]
        whole = whole and len({len(column) for column in columns}) == 1 and len(columns[0]) > 0
        whole = whole and all(column.min() >= 0 and column.max() < classes for column in columns[1:3])
        if not whole or ("classes" not in found and columns[4].shape[1] != classes):
            raise UserError(
                f"{path} does not hold predictions of {classes} classes; put it back from a copy or remove it"
            )
        return found

    return read


def samples_of(classes: int) -> Callable[[Path], dict[str, np.ndarray]]:
    """Images, filters and positions."""
    axes = {"filters_before": 4, "filters_after": 4, "similarity": 4, "patches": 1}

    def read(path: Path) -> dict[str, np.ndarray]:
        found = files.read_npz(path)
        images = [found[name] for name in IMAGES if name in found]
        right = "seen" in found and "seen_label" in found
        right = right and all(
            one.dtype == np.uint8 and one.ndim == 4 and one.shape[3] in (1, 3) and one.size for one in images
        )
        right = right and all(found[name].ndim == count for name, count in axes.items() if name in found)
        for name, of in (("seen_label", "seen"), ("seen_other", "seen"), ("mistakes_index", "mistakes")):
            right = right and (name not in found or (of in found and found[name].shape == (len(found[of]),)))
        labels = [found[name] for name in ("seen_label", "seen_other") if name in found]
        if not right or any(one.dtype.kind != "i" or one.min() < 0 or one.max() >= classes for one in labels):
            raise UserError(f"{path} does not hold a run's samples; remove it and give the run's command again")
        return found

    return read
