"""The one reader of run folders: each file of a run, and a whole run as one record.

Two kinds of callers read a run. Who works with it (resume, evaluate, fork) needs a file to be right and takes one of the
`read_...` functions, which raise an error that names the file. Who shows it (`cnn-vit report`) takes `read_run`: it
reads whatever there is, finished or not, and notes each damaged or missing file as a problem instead of giving up.

Nothing that a run folder names is executed, no network is built and no checkpoint is read.
"""

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnn_vit import files, plots, settings
from cnn_vit.data.base.padding import PAD_BATCH
from cnn_vit.errors import UserError
from cnn_vit.runs import folder, journal
from cnn_vit.settings import Settings

SPLITS = ("validation", "test")  # the splits that a finished run keeps predictions of
DIGESTED = (
    folder.CONFIG,
    folder.CLASSES,
    folder.DATA,
    folder.ENVIRONMENT,
    folder.METRICS,
    folder.TIMING,
    folder.RESULT,
    folder.TEST_READS,
    folder.SAMPLES,
    *(f"{folder.PREDICTIONS}/{split}.npz" for split in SPLITS),
)  # every file that `read_run` reads
PUT_BACK = "put it back from a copy or remove it"


# Files of which a run cannot do without -------------------------------------------------------------------------------


def read_object(path: Path, **kinds: type) -> dict[str, Any]:
    """A JSON object that has values of these names, each of its kind.

    Raises:
        UserError: the file holds something else.
        SurroundingsError: it cannot be read.
    """
    content = files.read_json(path)
    if not isinstance(content, dict):
        raise not_as_written(path)
    for name, kind in kinds.items():
        if not isinstance(content.get(name), kind):
            raise not_as_written(path)
    return content


def not_as_written(path: Path) -> UserError:
    """The error for a file whose content no run writes."""
    return UserError(f"{path} is not as a run writes it; {PUT_BACK}")


def read_classes(path: Path) -> tuple[str, ...]:
    """The names of the classes, in the order of the scores; errors as of `read_object`."""
    names = files.read_json(path)
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path} is not a list of names; put it back from a copy")
    return tuple(names)


def read_preprocessing(path: Path) -> dict[str, Any]:
    """How images become the network's input; errors as of `read_object`."""
    preprocessing = read_object(path, image_size=list, channels=int, fit=str, mean=list, std=list)
    image_size, channels = preprocessing["image_size"], preprocessing["channels"]
    right = is_height_and_width(image_size) and channels in (1, 3)
    for numbers in (preprocessing["mean"], preprocessing["std"]):
        right = right and len(numbers) == channels and all(isinstance(number, int | float) for number in numbers)
    if preprocessing["fit"] == PAD_BATCH:  # the padded sizes stand beside, the largest last
        sizes = preprocessing.get("sizes")
        right = (
            right and isinstance(sizes, list) and all(map(is_height_and_width, sizes)) and sizes[-1:] == [image_size]
        )
    if not right:
        raise not_as_written(path)
    return preprocessing


def is_height_and_width(value: object) -> bool:
    """Whether a value of JSON is a height and a width in pixels."""
    return isinstance(value, list) and len(value) == 2 and all(isinstance(side, int) and side > 0 for side in value)


def read_environment(path: Path) -> dict[str, Any]:
    """The environment of the first start, with those of later ones under "resumed"; errors as of `read_object`."""
    return read_object(path, versions=dict, devices=dict, resumed=list)


def read_data(path: Path) -> dict[str, Any]:
    """Fingerprint, counts and notes of a run's data; errors as of `read_object`."""
    facts = read_object(path, fingerprint=str, counts=dict)
    optional = {"class_counts": dict, "image_shape": list, "notes": list, "skipped": list, "slices": dict}
    for name, kind in optional.items():
        if not isinstance(facts.get(name, kind()), kind):
            raise not_as_written(path)
    numbers = list(facts["counts"].values())
    for counts in facts.get("class_counts", {}).values():
        if not isinstance(counts, dict) or not counts:
            raise not_as_written(path)
        numbers += counts.values()
    shape = facts.get("image_shape", [1, 1, 1])
    if len(shape) != 3 or not all(isinstance(number, int) and number >= 0 for number in [*numbers, *shape]):
        raise UserError(f"{path} does not count examples; {PUT_BACK}")
    return facts


def read_result(path: Path) -> dict[str, Any]:
    """What a finished run wrote about itself; errors as of `read_object`."""
    result = read_object(path, tested=dict, steps=int, timing=dict)
    if not isinstance(result["tested"].get("step"), int):
        raise not_as_written(path)
    return result


def finished_result(workdir: Path) -> dict[str, Any] | None:
    """The result of a run that has one and lacks no predictions; None where something is still to be done."""
    path = workdir / folder.RESULT
    if not path.exists():
        return None
    result = read_result(path)
    for split in SPLITS:
        if result.get(split) and not folder.predictions_path(workdir, split).exists():
            return None
    return result


@dataclass(frozen=True)
class Description:
    """What a run folder says of its network.

    Attributes:
        settings: final settings of the run.
        classes: names of the classes, in the order of the scores.
        preprocessing: how images become the network's input, as preprocessing.json keeps it.
    """

    settings: Settings
    classes: tuple[str, ...]
    preprocessing: dict[str, Any]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the images that the network takes."""
        height, width = self.preprocessing["image_size"]
        return height, width, self.preprocessing["channels"]


def read_description(workdir: Path) -> Description:
    """Reads what a run folder says of its network.

    Raises:
        UserError: the folder holds no run, or one of another version, or a file is not as it was written.
    """
    refuse_no_run(workdir, folder.CONFIG, folder.CLASSES, folder.PREPROCESSING)
    return Description(
        settings=read_settings(workdir),
        classes=read_classes(workdir / folder.CLASSES),
        preprocessing=read_preprocessing(workdir / folder.PREPROCESSING),
    )


def read_settings(workdir: Path) -> Settings:
    """The final settings of the folder's run; UserError where they are not as they were written."""
    return settings.from_json(files.read_json(workdir / folder.CONFIG), file=folder.CONFIG)


def refuse_no_run(workdir: Path, *names: str) -> None:
    """Raises UserError where a folder lacks one of these files, so that it holds no run."""
    for name in names:
        if not (workdir / name).is_file():
            raise UserError(f"{workdir} holds no run (no {name}); name the --workdir of a `cnn-vit train`")


# A whole run, as it is shown -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunRecord:
    """Everything that a run folder tells.

    Attributes:
        workdir: the folder.
        settings: final settings of the run.
        classes: names of the classes, fit to be printed.
        data: content of data.json; empty where it is missing or damaged, as the following ones are.
        environment: content of environment.json.
        result: content of result.json; empty for a run that is not finished.
        metrics: lines of metrics.jsonl.
        timing: lines of timing.jsonl.
        reads: lines of test_reads.jsonl.
        predictions: arrays of predictions/SPLIT.npz, by split.
        samples: arrays of samples.npz.
        problems: a sentence for each file that is damaged, or missing though the run is finished.
        digest: sha256 over all files that were read.
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
        """Training steps done, as far as they are written down."""
        if self.result.get("steps"):
            return self.result["steps"]
        return max((line["step"] for line in [*self.metrics, *self.timing]), default=0)

    @property
    def total(self) -> int | None:
        """Training steps of the whole run; None where the number of training examples is not known."""
        examples = self.data.get("counts", {}).get("train")
        if not examples:
            return None
        steps = settings.count_steps(
            self.settings["duration"], examples=examples, batch=self.batch_size, key="duration"
        )
        return max(1, steps)

    @property
    def batch_size(self) -> int:
        """Images of a training step."""
        return self.settings["data.batch_size"]

    @property
    def name(self) -> str:
        """The recipe with its words, as a command line writes it."""
        words = ",".join(self.settings.words)
        return f"{self.settings.recipe}:{words}" if words else self.settings.recipe

    def lines(self, kind: str) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl of one kind, "train" or "evaluation"."""
        return [line for line in self.metrics if line.get("kind") == kind]


def read_run(workdir: str | Path) -> RunRecord:
    """Reads a run folder, finished or under way, and notes what is wrong with it.

    Raises:
        UserError: the folder holds no run, or its settings or classes are not as they were written.
        SurroundingsError: one of these two cannot be read.
    """
    workdir = Path(workdir)
    if not (workdir / folder.CONFIG).is_file() or not (workdir / folder.CLASSES).is_file():
        raise UserError(
            f"{workdir} holds no run (no {folder.CONFIG} and {folder.CLASSES}); name the --workdir of a `cnn-vit train`"
        )
    final = read_settings(workdir)
    names = read_classes(workdir / folder.CLASSES)
    attempts = Attempts(workdir)
    result = attempts.read(folder.RESULT, read_result, {})
    attempts.finished = bool(result)
    predictions = {}
    for split in SPLITS:
        name = f"{folder.PREDICTIONS}/{split}.npz"
        arrays = attempts.read(name, checked_predictions(len(names)), {}, needed=bool(result.get(split)))
        if arrays:
            predictions[split] = arrays
    return RunRecord(
        workdir=workdir,
        settings=final,
        classes=tuple(plots.printable(name) for name in names),
        data=attempts.read(folder.DATA, read_data, {}, needed=True),
        environment=attempts.read(folder.ENVIRONMENT, read_environment, {}, needed=True),
        result=result,
        metrics=attempts.read(folder.METRICS, checked_metrics(result), [], needed=True),
        timing=attempts.read(folder.TIMING, read_number_lines, []),
        reads=attempts.read(folder.TEST_READS, read_object_lines, [], needed=bool(result.get("test"))),
        predictions=predictions,
        samples=attempts.read(folder.SAMPLES, checked_samples(len(names)), {}, needed=True),
        problems=tuple(attempts.problems),
        digest=digest(workdir),
    )


class Attempts:
    """Reads files of a run folder one by one and notes what is wrong with them.

    Attributes:
        finished: whether the run is finished, so that a file that it needs must be there.
        problems: a sentence for each file that is damaged or missing.
    """

    def __init__(self, workdir: Path):
        self.workdir, self.finished = workdir, False
        self.problems: list[str] = []

    def read(self, name: str, read: Callable[[Path], Any], otherwise: Any, *, needed: bool = False) -> Any:
        """The content of a file.

        Args:
            name: the file's name in the run folder.
            read: takes its path and gives its content, or raises UserError.
            otherwise: what is returned where the file is not there or damaged.
            needed: whether a finished run must have it.
        """
        path = self.workdir / name
        try:
            if path.exists():
                return read(path)
        except UserError as error:
            self.problems.append(str(error))
            return otherwise
        if needed and self.finished:
            self.problems.append(f"{path} is missing; the run's `cnn-vit train` command again makes what it can")
        return otherwise


def digest(workdir: Path) -> str:
    """The sha256 over all files that `read_run` reads; a file that cannot be read counts as its error."""
    total = hashlib.sha256()
    for name in DIGESTED:
        path = workdir / name
        try:
            content = files.sha256(path) if path.is_file() else None
            total.update(f"{name} {content}\n".encode())
        except UserError as error:
            total.update(f"{name} {error}\n".encode())
    return total.hexdigest()


def read_number_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a journal, whose values are numbers or null but for the texts "kind" and "split".

    A last line that a kill has torn is left out.
    """
    lines, _ = journal.read_until(path, sys.maxsize)
    for number, line in enumerate(lines, 1):
        for name, value in line.items():
            if name not in journal.TEXTS and not isinstance(value, int | float | None):
                raise UserError(f"line {number} of {path} holds no numbers; put the file back from a copy")
    return lines


def checked_metrics(result: dict[str, Any]) -> Callable[[Path], list[dict[str, Any]]]:
    """A reader of metrics.jsonl that refuses a finished run's file which ends before the run did."""

    def read(path: Path) -> list[dict[str, Any]]:
        lines = read_number_lines(path)
        last = lines[-1]["step"] if lines else 0
        if result and last != result["steps"]:
            raise UserError(f"{path} ends at step {last}, the run at {result['steps']}; put it back from a copy")
        return lines

    return read


def read_object_lines(path: Path) -> list[dict[str, Any]]:
    """Lines of JSON objects; a torn or damaged line counts as one of which nothing is known."""
    with files.os_errors(path):
        texts = path.read_bytes().splitlines()
    lines = []
    for text in texts:
        if not text:
            continue
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            line = {}
        lines.append(line if isinstance(line, dict) else {})
    return lines


def checked_predictions(num_classes: int) -> Callable[[Path], dict[str, np.ndarray]]:
    """A reader of a split's predictions that refuses arrays which do not fit together or the number of classes."""
    kinds = {"index": (1, "i"), "label": (1, "i"), "predicted": (1, "i"), "loss": (1, "f"), "scores": (2, "f")}

    def read(path: Path) -> dict[str, np.ndarray]:
        arrays = files.read_npz(path)
        columns = {name: arrays.get(name, np.zeros(0)) for name in kinds}
        right = all((columns[name].ndim, columns[name].dtype.kind) == kind for name, kind in kinds.items())
        right = right and len({len(column) for column in columns.values()}) == 1 and len(columns["index"]) > 0
        for name in ("label", "predicted"):
            right = right and columns[name].min() >= 0 and columns[name].max() < num_classes
        # of many classes only the best scores are kept, with their classes beside them
        right = right and ("classes" in arrays or columns["scores"].shape[1] == num_classes)
        if not right:
            raise UserError(f"{path} does not hold predictions of {num_classes} classes; {PUT_BACK}")
        return arrays

    return read


def checked_samples(num_classes: int) -> Callable[[Path], dict[str, np.ndarray]]:
    """A reader of samples.npz that refuses images, filters, positions or labels of a wrong shape or kind."""
    axes = {"filters_before": 4, "filters_after": 4, "similarity": 4, "patches": 1}
    belongs_to = {"seen_label": "seen", "seen_other": "seen", "mistakes_index": "mistakes"}

    def read(path: Path) -> dict[str, np.ndarray]:
        arrays = files.read_npz(path)
        right = "seen" in arrays and "seen_label" in arrays
        for name in ("seen", "mistakes"):
            right = right and (name not in arrays or is_image_array(arrays[name]))
        for name, count in axes.items():
            right = right and (name not in arrays or arrays[name].ndim == count)
        for name, images in belongs_to.items():
            fits = images in arrays and name in arrays and arrays[name].shape == (len(arrays[images]),)
            right = right and (name not in arrays or fits)
        for name in ("seen_label", "seen_other"):
            right = right and (name not in arrays or is_label_array(arrays[name], num_classes))
        if not right:
            raise UserError(f"{path} does not hold a run's samples; remove it and give the run's command again")
        return arrays

    return read


def is_image_array(array: np.ndarray) -> bool:
    """Whether an array is images (N, H, W, C), uint8, gray or in color."""
    return array.dtype == np.uint8 and array.ndim == 4 and array.shape[3] in (1, 3) and array.size > 0


def is_label_array(array: np.ndarray, num_classes: int) -> bool:
    """Whether an array holds labels from 0 to num_classes - 1."""
    return array.dtype.kind == "i" and array.min() >= 0 and array.max() < num_classes
