"""The one reader of run folders: each file of a run, and a whole run as one record.

Two kinds of callers read a run. Code that works with a run (to resume, evaluate or fork it) needs a file to be right,
and calls one of the `read_...` functions, which raise an error that names the file. Code that shows a run
(`cnn-vit report`) calls `read_run`: it reads whatever there is, finished or not, and notes each damaged or missing file
as a problem instead of giving up. Both give up where a sealed file (`runs/seals.py`) is not as it was sealed.

Nothing that a run folder names is executed, no network is built and no checkpoint is read.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnn_vit import files, plots
from cnn_vit.data.base.padding import PAD_BATCH
from cnn_vit.data.decode import pixel_rules
from cnn_vit.data.sections import READING_KEYS
from cnn_vit.errors import UserError
from cnn_vit.runs import folder, journal, seals
from cnn_vit.settings import KEYS, Settings, count_steps, from_json
from cnn_vit.settings.values import is_own_form

SPLITS = ("validation", "test")  # the splits of which a finished run has predictions
# Every file that `read_run` reads
DIGESTED = (
    folder.CONFIG,
    folder.CLASSES,
    folder.DATA,
    folder.PRETRAINED,
    folder.ENVIRONMENT,
    folder.METRICS,
    folder.TIMING,
    folder.RESULT,
    folder.TEST_READS,
    folder.SAMPLES,
    *(f"{folder.PREDICTIONS}/{split}.npz" for split in SPLITS),
)
OLDEST_RULES = 1  # of `pixel_rules.VERSION`, which runs of that time do not name
OLDEST_INTERPOLATION = "bilinear"  # of runs from before there was a choice, which do not name it
PUT_BACK = "put it back from a copy or remove it"


# Single files, for code that needs them to be right -------------------------------------------------------------------


def read_object(path: Path, **kinds: type) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
        path: the file.
        kinds: the type that the value of each of these keys must have.

    Raises:
        UserError: the file holds something else.
        SurroundingsError: the file cannot be read.
    """
    content = files.read_json(path)
    if not isinstance(content, dict):
        raise not_as_written(path)
    refuse_other_kinds(path, content, **kinds)
    return content


def refuse_other_kinds(path: Path, content: dict[str, Any], **kinds: type) -> None:
    """Raises UserError where the value of a key in the JSON object of a file has not the type that is given for it."""
    for key, kind in kinds.items():
        if not isinstance(content.get(key), kind):
            raise not_as_written(path)


def not_as_written(path: Path) -> UserError:
    """The error for a file that holds what no run writes."""
    return UserError(f"{path} is not as a run writes it; {PUT_BACK}")


def read_classes(path: Path) -> tuple[str, ...]:
    """Reads the names of the classes, in the order of the scores; raises what `read_object` raises."""
    names = files.read_json(path)
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path} is not a list of names; put it back from a copy")
    return tuple(names)


def read_preprocessing(path: Path) -> dict[str, Any]:
    """Reads how images become the network's input; what runs of an earlier time do not name is what it was then.

    Raises:
        UserError: as `read_object`; or the run's images became pixels by another version of `pixel_rules`.
        SurroundingsError: as `read_object`.
    """
    preprocessing = read_object(path, image_size=list, channels=int, fit=str, mean=list, std=list)
    refuse_other_rules(path, preprocessing)
    preprocessing.setdefault("interpolation", OLDEST_INTERPOLATION)
    image_size, channels = preprocessing["image_size"], preprocessing["channels"]
    is_right = is_height_and_width(image_size) and channels in (1, 3)
    for numbers in (preprocessing["mean"], preprocessing["std"]):
        is_right = is_right and len(numbers) == channels
        is_right = is_right and all(isinstance(number, int | float) for number in numbers)
    if preprocessing["fit"] == PAD_BATCH:
        # the padded sizes of the images, of which the largest is the network's image size and comes last
        sizes: Any = preprocessing.get("sizes")
        is_right = is_right and isinstance(sizes, list) and all(map(is_height_and_width, sizes))
        is_right = is_right and sizes[-1:] == [image_size]
    for key in READING_KEYS:
        is_right = is_right and is_own_form(KEYS[f"data.{key}"], preprocessing.get(key))
    if not is_right:
        raise not_as_written(path)
    return preprocessing


def refuse_other_rules(path: Path, preprocessing: dict[str, Any]) -> None:
    """Raises UserError where a run's images became pixels by another version of the rules than this package has.

    A run without a version is older than the first one that was written down.
    """
    version = preprocessing.get("version", OLDEST_RULES)
    if version != pixel_rules.VERSION:
        raise UserError(
            f"{path} says that images became pixels by version {version} of the rules, and this cnn_vit has version "
            f"{pixel_rules.VERSION}, so that the network would see other pixels than it learned from; take the cnn_vit "
            f"that trained it ({folder.ENVIRONMENT} names the commit), or train again in another --workdir"
        )


def is_height_and_width(value: object) -> bool:
    """Whether a value of a JSON file is a height and a width in pixels."""
    return isinstance(value, list) and len(value) == 2 and all(isinstance(side, int) and side > 0 for side in value)


def read_environment(path: Path) -> dict[str, Any]:
    """Reads the environment of the first start, with those of later ones under "resumed".

    Raises what `read_object` raises.
    """
    return read_object(path, versions=dict, devices=dict, resumed=list)


def read_data(path: Path) -> dict[str, Any]:
    """Reads fingerprint, counts and notes of a run's data; raises what `read_object` raises."""
    facts = read_object(path, fingerprint=str, counts=dict)
    optional = {"class_counts": dict, "image_shape": list, "notes": list, "skipped": list, "slices": dict}
    for key, kind in optional.items():
        if not isinstance(facts.get(key, kind()), kind):
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


def read_pretrained(path: Path) -> dict[str, Any]:
    """Reads what a run started from, as pretrained.json says it; raises what `read_object` raises."""
    record = read_object(path, leaves=list, frozen=dict)
    stages = record["frozen"].get("stages", [])
    for digests in (record["frozen"], *(stages if isinstance(stages, list) else [stages])):
        if not isinstance(digests, dict):
            raise not_as_written(path)
        refuse_other_kinds(path, digests, params=str, stats=str)
    if record.get("card") is not None:
        refuse_other_kinds(path, record, card=dict)
        refuse_other_kinds(path, record["card"], model=str, origin=dict)
    if not all(map(is_leaf_record, record["leaves"])):
        raise not_as_written(path)
    return record


def is_leaf_record(leaf: Any) -> bool:
    """Whether something says of a value its path, behind that of its tree, how it came about, and two shapes."""
    if not isinstance(leaf, list) or len(leaf) != 4:
        return False
    path, origin, _, _ = leaf
    return isinstance(path, str) and "/" in path and origin in ("loaded", "resized", "new")


def read_result(path: Path) -> dict[str, Any]:
    """Reads the result of a finished run.

    Raises:
        RunDamageError: it is not as it was written.
        UserError: it is sealed, but not as a run writes it.
        SurroundingsError: it cannot be read.
    """
    result = seals.read_result(path)
    refuse_other_kinds(path, result, tested=dict, steps=int, timing=dict)
    if not isinstance(result["tested"].get("step"), int):
        raise not_as_written(path)
    return result


def finished_result(workdir: Path, *, splits: Sequence[str] = SPLITS) -> dict[str, Any] | None:
    """Reads the result of a run that is finished; None where it is missing, or predictions that it stands on are.

    Args:
        workdir: the run folder.
        splits: those whose predictions must be there, where the result has numbers of them.
    """
    path = workdir / folder.RESULT
    with files.os_errors(path):  # a name may be too long, or a folder above it closed to this user
        if not path.exists():
            return None
    result = read_result(path)
    for split in splits:
        if result.get(split) and not folder.predictions_path(workdir, split).exists():
            return None
    return result


def has_unread_test(result: Mapping[str, Any]) -> bool:
    """Whether a run has finished without reading the test split of its data."""
    counts = result.get("counts", {})
    return not result.get("test") and bool(counts.get("test"))


@dataclass(frozen=True)
class Description:
    """What a run folder says about its network.

    Attributes:
        settings: final settings of the run.
        classes: names of the classes, in the order of the scores.
        preprocessing: how images become the network's input, as preprocessing.json says it.
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
    """Reads what a run folder says about its network.

    Raises:
        UserError: the folder holds no run, or one of another version, or a file is not as a run writes it.
        RunDamageError: a sealed file of the run is not as it was sealed.
    """
    seals.refuse_damaged(workdir)
    refuse_no_run(workdir, folder.CONFIG, folder.CLASSES, folder.PREPROCESSING)
    return Description(
        settings=read_settings(workdir),
        classes=read_classes(workdir / folder.CLASSES),
        preprocessing=read_preprocessing(workdir / folder.PREPROCESSING),
    )


def read_settings(workdir: Path) -> Settings:
    """Reads the final settings of the folder's run; UserError where they are not as they were written."""
    return from_json(files.read_json(workdir / folder.CONFIG), file=folder.CONFIG)


def refuse_no_run(workdir: Path, *names: str) -> None:
    """Raises UserError where a folder lacks one of these files, without which it holds no run."""
    for name in names:
        if not (workdir / name).is_file():
            raise UserError(f"{workdir} holds no run (no {name}); name the --workdir of a `cnn-vit train`")


# A whole run, for code that shows it ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunRecord:
    """The content of a run folder.

    Attributes:
        workdir: the folder.
        settings: final settings of the run.
        classes: names of the classes, with characters that cannot be printed replaced.
        data: content of data.json; empty where the file is missing or damaged, as are the attributes that follow.
        pretrained: content of pretrained.json, which only runs from weights or with frozen values have.
        environment: content of environment.json.
        result: content of result.json; empty for a run that is not finished.
        metrics: lines of metrics.jsonl.
        timing: lines of timing.jsonl.
        reads: lines of test_reads.jsonl.
        predictions: arrays of predictions/SPLIT.npz, by split.
        samples: arrays of samples.npz.
        problems: a sentence for each file that is damaged, or is missing although the run is finished; only of files
            that are not sealed.
        digest: sha256 over all files that were read.
    """

    workdir: Path
    settings: Settings
    classes: tuple[str, ...]
    data: dict[str, Any]
    pretrained: dict[str, Any]
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
        """The number of training steps that are done, as far as the files say."""
        if self.result.get("steps"):
            return self.result["steps"]
        return max((line["step"] for line in [*self.metrics, *self.timing]), default=0)

    @property
    def total(self) -> int | None:
        """The number of training steps of the whole run; None where that of training examples is not known."""
        examples = self.data.get("counts", {}).get("train")
        if not examples:
            return None
        return max(1, count_steps(self.settings["duration"], examples=examples, batch=self.batch_size, key="duration"))

    @property
    def has_unread_test(self) -> bool:
        """Whether the run has finished without reading the test split of its data."""
        has_test_split = bool(self.data.get("counts", {}).get("test"))
        return bool(self.result) and not self.result.get("test") and has_test_split

    @property
    def batch_size(self) -> int:
        """The number of images in the batch of a training step."""
        return self.settings["data.batch_size"]

    @property
    def name(self) -> str:
        """The recipe with its words, as on a command line: "digits_mlp:smoke"."""
        words = ",".join(self.settings.words)
        return f"{self.settings.recipe}:{words}" if words else self.settings.recipe

    def lines(self, kind: str) -> list[dict[str, Any]]:
        """Selects the lines of metrics.jsonl of one kind, "train" or "evaluation"."""
        return [line for line in self.metrics if line.get("kind") == kind]


def read_run(workdir: str | Path) -> RunRecord:
    """Reads the folder of a run, finished or under way, and notes what is wrong with the files that are not sealed.

    Raises:
        UserError: the folder holds no run, or its settings or classes are not as a run writes them.
        RunDamageError: a sealed file of the run is not as it was sealed.
        SurroundingsError: the file of settings or of classes cannot be read.
    """
    workdir = Path(workdir)
    seals.refuse_damaged(workdir)
    if not (workdir / folder.CONFIG).is_file() or not (workdir / folder.CLASSES).is_file():
        raise UserError(
            f"{workdir} holds no run (no {folder.CONFIG} and {folder.CLASSES}); name the --workdir of a `cnn-vit train`"
        )
    settings = read_settings(workdir)
    classes = read_classes(workdir / folder.CLASSES)
    attempts = ReadAttempts(workdir)
    result = attempts.read(folder.RESULT, read_result, {})
    attempts.is_finished = bool(result)
    predictions = {}
    for split in SPLITS:
        name = f"{folder.PREDICTIONS}/{split}.npz"
        arrays = attempts.read(name, make_predictions_reader(len(classes)), {}, needed=bool(result.get(split)))
        if arrays:
            predictions[split] = arrays
    return RunRecord(
        workdir=workdir,
        settings=settings,
        classes=tuple(plots.printable(name) for name in classes),
        data=attempts.read(folder.DATA, read_data, {}),
        pretrained=attempts.read(folder.PRETRAINED, read_pretrained, {}),
        environment=attempts.read(folder.ENVIRONMENT, read_environment, {}, needed=True),
        result=result,
        metrics=attempts.read(folder.METRICS, read_number_lines, []),
        timing=attempts.read(folder.TIMING, read_number_lines, []),
        reads=attempts.read(folder.TEST_READS, read_object_lines, [], needed=bool(result.get("test"))),
        predictions=predictions,
        samples=attempts.read(folder.SAMPLES, make_samples_reader(len(classes)), {}, needed=True),
        problems=tuple(attempts.problems),
        digest=digest(workdir),
    )


class ReadAttempts:
    """Reads files of a run folder one by one, and notes what is wrong with them instead of giving up.

    Attributes:
        is_finished: whether the run is finished, so that a file that it needs must be there.
        problems: a sentence for each file that is damaged or missing.
    """

    def __init__(self, workdir: Path):
        self.workdir, self.is_finished = workdir, False
        self.problems: list[str] = []

    def read(self, name: str, read_file: Callable[[Path], Any], default: Any, *, needed: bool = False) -> Any:
        """Reads a file.

        Args:
            name: the file's name in the run folder.
            read_file: takes the file's path and returns its content, or raises UserError.
            default: what is returned where the file is missing or damaged.
            needed: whether a finished run must have the file.
        """
        path = self.workdir / name
        try:
            if path.exists():
                return read_file(path)
        except UserError as error:
            self.problems.append(str(error))
            return default
        if needed and self.is_finished:
            self.problems.append(f"{path} is missing; the run's `cnn-vit train` command again makes what it can")
        return default


def digest(workdir: Path) -> str:
    """Computes the sha256 over all files that `read_run` reads; for a file that cannot be read, its error counts."""
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
    """Reads the lines of a journal, but for a last line that a kill has torn.

    Raises:
        UserError: a value other than the texts "kind" and "split" is neither a number nor null.
        SurroundingsError: the file cannot be read, or is not a journal.
    """
    lines, _ = journal.read_until(path, sys.maxsize)
    for number, line in enumerate(lines, 1):
        for key, value in line.items():
            if key not in journal.TEXTS and not isinstance(value, int | float | None):
                raise UserError(f"line {number} of {path} holds no numbers; put the file back from a copy")
    return lines


def read_object_lines(path: Path) -> list[dict[str, Any]]:
    """Reads lines of JSON objects; a torn or damaged line becomes an empty object, so that it still counts."""
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


def make_predictions_reader(num_classes: int) -> Callable[[Path], dict[str, np.ndarray]]:
    """Makes a reader of a split's predictions that refuses arrays which do not fit together or the classes."""
    # the number of axes and the kind of numbers of each array, i for integers and f for floats
    kinds = {"index": (1, "i"), "label": (1, "i"), "predicted": (1, "i"), "loss": (1, "f"), "scores": (2, "f")}

    def read_predictions(path: Path) -> dict[str, np.ndarray]:
        arrays = files.read_npz(path)
        columns = {name: arrays.get(name, np.zeros(0)) for name in kinds}
        is_right = all((columns[name].ndim, columns[name].dtype.kind) == kind for name, kind in kinds.items())
        is_right = is_right and len(columns["index"]) > 0
        for column in columns.values():
            is_right = is_right and len(column) == len(columns["index"])
        for name in ("label", "predicted"):
            is_right = is_right and columns[name].min() >= 0 and columns[name].max() < num_classes
        # of many classes only the best scores are saved, with their classes beside them
        is_right = is_right and ("classes" in arrays or columns["scores"].shape[1] == num_classes)
        if not is_right:
            raise UserError(f"{path} does not hold predictions of {num_classes} classes; {PUT_BACK}")
        return arrays

    return read_predictions


def make_samples_reader(num_classes: int) -> Callable[[Path], dict[str, np.ndarray]]:
    """Makes a reader of samples.npz that refuses images, filters, positions or labels of a wrong shape or kind."""
    axes = {"filters_before": 4, "filters_after": 4, "similarity": 4, "patches": 1}
    # an array with a row for each image, and the array of these images
    images_of = {"seen_label": "seen", "seen_other": "seen", "mistakes_index": "mistakes"}

    def read_samples(path: Path) -> dict[str, np.ndarray]:
        arrays = files.read_npz(path)
        is_right = "seen" in arrays and "seen_label" in arrays
        for name in ("seen", "mistakes"):
            is_right = is_right and (name not in arrays or is_image_array(arrays[name]))
        for name, count in axes.items():
            is_right = is_right and (name not in arrays or arrays[name].ndim == count)
        for name, images in images_of.items():
            fits = images in arrays and name in arrays and arrays[name].shape == (len(arrays[images]),)
            is_right = is_right and (name not in arrays or fits)
        for name in ("seen_label", "seen_other"):
            is_right = is_right and (name not in arrays or is_label_array(arrays[name], num_classes))
        if not is_right:
            raise UserError(f"{path} does not hold a run's samples; remove it and give the run's command again")
        return arrays

    return read_samples


def is_image_array(array: np.ndarray) -> bool:
    """Whether an array holds images (N, H, W, C), uint8, gray or in color."""
    return array.dtype == np.uint8 and array.ndim == 4 and array.shape[3] in (1, 3) and array.size > 0


def is_label_array(array: np.ndarray, num_classes: int) -> bool:
    """Whether an array holds labels from 0 to num_classes - 1."""
    return array.dtype.kind == "i" and array.min() >= 0 and array.max() < num_classes
