"""What a trial does: its task, from settings and data to the numbers of its result.json.

`train` is a run. The others train nothing: `evaluate` measures a pretrained network as it is, with its own head;
`linear` and `knn` fit a probe on its features, chosen on validation. Their predictions lie in the trial's folder as
those of a run lie in the run folder, so that all that is made of predictions can be made of theirs.
"""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnn_vit import data, process, trees
from cnn_vit.data import evaluated
from cnn_vit.drafting import stopwatch
from cnn_vit.errors import DivergedError, SurroundingsError, UserError, is_out_of_memory
from cnn_vit.runs import folder, journal
from cnn_vit.runs.checkpoints import Checkpoints
from cnn_vit.runs.description import make_preprocessing
from cnn_vit.runs.manifests import DamageError
from cnn_vit.runs.seals import RunDamageError
from cnn_vit.settings import Settings
from cnn_vit.studies import objectives, probe, trials
from cnn_vit.studies.trials import DataCache, PlannedTrial
from cnn_vit.training import devices, evaluation, features, forward, loop, plan, pretrained_settings, starting_values
from cnn_vit.training.run import Display
from cnn_vit.training.trained import Trained

MOST_SCORES = 1000  # classes, at most, of which every score is kept; of more the five best, as runs do


def do_task(planned: PlannedTrial, cache: DataCache, display: Display) -> Mapping[str, Any]:
    """Does what a trial is for, and returns its numbers.

    Args:
        planned: the trial.
        cache: of the data sets that trials of this process share.
        display: shows how far it is.

    Raises:
        UserError: it has no settings, for the reason that its plan gives; or as its task says.
    """
    if planned.trial.task == trials.OBJECTIVE:
        return objectives.call_objective(planned)
    if planned.settings is None:
        raise UserError(planned.error)
    dataset = cache.load(planned.settings.section("data"))
    if planned.trial.task == "train":
        return loop.train(
            planned.settings,
            planned.folder / trials.RUN,
            dataset=dataset,
            progress=display,
            until=planned.until,
            evaluates_test=planned.reads_test,
        )
    return do_without_training(planned, planned.settings, dataset)


def is_waiting(result: Mapping[str, Any]) -> bool:
    """Whether a trial has reached the step at which it is to wait, and is not finished."""
    return not result.get("is_finished", True)


@dataclass(frozen=True)
class TrialPace:
    """What a trial takes, as far as a few of its steps tell.

    Attributes:
        step_cpu: CPU-seconds of a training step.
        start_seconds: until the first step is compiled, which trials of one process share where only numbers differ.
        seconds: of all that comes behind it, if all goes on as while it was timed.
        checkpoint_bytes: of the state that a checkpoint holds.
        memory_bytes: the most that this process has had at once; None where the system does not say.
    """

    step_cpu: float
    start_seconds: float
    seconds: float
    checkpoint_bytes: int
    memory_bytes: int | None


def measure_trial(planned: PlannedTrial, cache: DataCache) -> TrialPace:
    """Measures what a trial that trains takes, by a few steps and an evaluation; nothing is kept.

    Raises:
        UserError: it has no settings, or its weights cannot be read.
    """
    if planned.settings is None:
        raise UserError(planned.error)
    dataset = cache.load(planned.settings.section("data"))
    settings, weights = pretrained_settings.complete_settings(planned.settings)
    pace = stopwatch.measure_pace(settings, dataset, weights=weights)
    times = plan.run_times(settings, examples=len(dataset.splits["train"]))
    # the last step is always evaluated, and validation once more with the values that are kept
    evaluations = math.ceil(times.total / times.evaluate.interval) + 1
    return TrialPace(
        step_cpu=pace.step_cpu,
        start_seconds=pace.start,
        seconds=times.total * pace.step + evaluations * pace.evaluation,
        checkpoint_bytes=pace.state_bytes,
        memory_bytes=process.peak_memory(),
    )


def do_without_training(planned: PlannedTrial, settings: Settings, dataset: data.Dataset) -> dict[str, Any]:
    """Evaluates or probes a pretrained network, and writes its predictions into the trial's folder.

    Returns:
        What a run's result.json holds, as far as there is such a thing, and the data's fingerprint.
    """
    began, began_cpu = journal.now(), journal.cpu_seconds()
    task = planned.trial.task
    network = open_network(settings, dataset, has_own_head=task == trials.EVALUATE)
    if task == trials.EVALUATE:
        predicted = evaluate_own_head(network, dataset)
    else:
        predicted = fit_probe(network, dataset, task)
    metrics: dict[str, Any] = {"validation": None, "test": None}
    for split, rows in predicted.rows.items():
        evaluation.save_predictions(planned.folder, split, rows)
        metrics[split] = {**evaluation.summarize(rows, len(dataset.classes)), "step": 0}
        if split == "test":
            accuracy = metrics[split]["accuracy"]
            evaluation.record_test_read(planned.folder, by=task, accuracy=accuracy)
    seconds, cpu_seconds = journal.now() - began, journal.cpu_seconds() - began_cpu
    return {
        **metrics,
        "steps": 0,
        "parameters": trees.count(network.network.params),
        "trained_parameters": predicted.parameters,
        "macs": plan.count_macs(settings, classes=network.spec.num_classes, image_shape=dataset.image_shape),
        "model": settings["model.name"],
        "seed": planned.trial.seed,
        "classes": len(dataset.classes),
        "counts": {name: len(split.labels) for name, split in dataset.splits.items()},
        "data_fingerprint": dataset.fingerprint,
        "chosen": predicted.chosen,
        "notes": list(predicted.notes),
        "timing": {"seconds": round(seconds, 3), "cpu_seconds": round(cpu_seconds, 3)},
    }


@dataclass(frozen=True)
class Predicted:
    """What a pretrained network, or a probe of it, says of the images that were not trained on.

    Attributes:
        rows: of validation and test, where there is one: columns with a row for each image, as runs save them.
        parameters: how many were fitted.
        chosen: the number that was chosen on validation; None where nothing was.
        notes: what one who reads the accuracy should know, a sentence each.
    """

    rows: Mapping[str, dict[str, np.ndarray]]
    parameters: int
    chosen: float | None
    notes: tuple[str, ...]


def open_network(settings: Settings, dataset: data.Dataset, *, has_own_head: bool) -> Trained:
    """Opens the pretrained network of settings, at the size that the images of the data have.

    Args:
        settings: completed by the weights.
        dataset: the data.
        has_own_head: whether it keeps the head and the classes of the weights; else its head is one for the data's
            classes, and untrained.

    Raises:
        UserError: the weights cannot be read, or do not fit.
    """
    settings, weights = pretrained_settings.complete_settings(settings)
    if weights is None:
        raise UserError("there are no weights; set pretrained.weights")
    card = weights.card
    classes, count = dataset.classes, len(dataset.classes)
    start_classes = classes
    if has_own_head:
        count = card.num_classes
        classes = card.classes or tuple(f"class {number}" for number in range(count))
        start_classes = card.classes  # type: ignore[assignment]  # None is equal to the None of the card
    spec = plan.network_spec(settings, classes=count, image_shape=dataset.image_shape)
    start = starting_values.make_start(settings, weights, spec, start_classes)
    values = devices.place(start.values, devices.mesh())
    return Trained(
        spec=spec,
        params=values["params"],
        stats=values["stats"],
        classes=classes,
        preprocessing=make_preprocessing(settings, dataset),
        loss_numbers=plan.rule_numbers(settings, "loss"),
        has_class_names=card.classes is not None,
    )


def measured_splits(dataset: data.Dataset) -> dict[str, data.Split]:
    """Returns the splits that are not trained on."""
    return {name: split for name, split in dataset.splits.items() if name != "train"}


def evaluate_own_head(network: Trained, dataset: data.Dataset) -> Predicted:
    """Evaluates a network as it is: of its own classes, those of the data are scored against each other.

    Raises:
        UserError: the data have a class that the network does not know.
    """
    names = np.arange(len(dataset.classes), dtype=np.int32)
    positions, notes = evaluated.match_classes(
        names, dataset.classes, network.classes, by_position=not network.has_class_names
    )
    if len(network.classes) > MOST_SCORES:
        raise UserError(
            f"the network has {len(network.classes):,} classes, and the scores of {MOST_SCORES:,} at most are kept; "
            "probe it instead"
        )
    if len(network.classes) > len(dataset.classes):
        notes = [f"of the network's {len(network.classes):,} classes, the {len(names):,} of the data are scored"]
    mesh = devices.mesh()
    evaluator = forward.build_evaluator(network.spec, network.preprocessing, mesh, loss_numbers=network.loss_numbers)
    values = devices.place(network.values, mesh)
    rows = {}
    for name, split in measured_splits(dataset).items():
        measures = evaluation.per_example(evaluator, values, split)
        scores = measures["scores"][:, positions]
        rows[name] = make_rows(split.labels, scores, scores.argmax(1))
    return Predicted(rows, parameters=0, chosen=None, notes=tuple(notes))


def fit_probe(network: Trained, dataset: data.Dataset, method: str) -> Predicted:
    """Fits a probe on the features that the head of a network would see, chosen on validation.

    Raises:
        UserError: the features are not finite, or the data have no validation split.
    """
    examples, _ = probe.extract_examples(network, dataset, features.FEATURES, batch_size=evaluation.BATCH_SIZE)
    train, validation, test = examples["train"], examples["validation"], examples.get("test")
    classes, dimensions = len(dataset.classes), train.rows.shape[1]
    if method == "linear":
        with probe.one_thread():
            fitted = probe.probe_linearly(train, validation, test)
        # of two classes there is one score
        parameters = (dimensions + 1) * (classes if classes > 2 else 1)
    else:
        fitted, parameters = probe.probe_neighbors(train, validation, test), 0
    rows = {}
    for name, split in measured_splits(dataset).items():
        answer = fitted.answers[name]
        rows[name] = make_rows(split.labels, answer.scores, answer.predicted)
    return Predicted(rows, parameters, fitted.chosen, fitted.notes)


def make_rows(labels: np.ndarray, scores: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the measures of images as `evaluation.per_example` has them.

    Args:
        labels: (N,) of the images, in the order of the split.
        scores: (N, K), of which a softmax gives probabilities.
        predicted: (N,) the class that is answered, whose score is among the highest.
    """
    scores = np.asarray(scores, np.float64)
    positions = np.arange(len(labels))
    label_scores = scores[positions, labels]
    highest = scores.max(1, keepdims=True)
    log_sums = np.log(np.exp(scores - highest).sum(1)) + highest[:, 0]
    before = (scores > label_scores[:, None]).sum(1)
    ordered = np.sort(scores, axis=1)
    columns = {
        "index": positions.astype(np.int32),
        "label": np.asarray(labels, np.int32),
        "predicted": np.asarray(predicted, np.int32),
        # among equal scores the answered class comes first
        "rank": np.where(predicted == labels, 0, np.maximum(before, 1)).astype(np.int32),
        "loss": (log_sums - label_scores).astype(np.float32),
        "margin": (ordered[:, -1] - ordered[:, -2]).astype(np.float32),
    }
    if scores.shape[1] > MOST_SCORES:
        best = np.argsort(-scores, axis=1, kind="stable")[:, :5]
        columns["classes"] = best.astype(np.int32)
        scores = np.take_along_axis(scores, best, 1)
    return {**columns, "scores": scores.astype(np.float32)}


def state_of_error(error: BaseException) -> str | None:
    """Returns the state of a trial that an error ended; None where the surroundings are to blame, not the trial."""
    if is_out_of_memory(error):
        return trials.OUT_OF_MEMORY
    if isinstance(error, DivergedError):
        return trials.DIVERGED
    if isinstance(error, DamageError | RunDamageError):
        return trials.CRASHED  # nothing outside the trial can mend it; --retry_failed begins it anew
    if isinstance(error, SurroundingsError):
        return None
    return trials.BAD_CONFIG if isinstance(error, UserError) else trials.CRASHED


def reason_of_error(error: BaseException) -> str:
    """Returns why a trial has failed, a sentence that every file can hold: a path may have bytes that are no text."""
    reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return reason.encode(errors="backslashreplace").decode()


def drop_checkpoints(planned: PlannedTrial, result: Mapping[str, Any], *, keep: str) -> None:
    """Deletes the checkpoints of a finished run that nothing needs any more, so that many trials do not fill a disk.

    Args:
        planned: the trial.
        result: of the run.
        keep: "all", or "best": the best checkpoint stays, and the one that was tested, which `predict` reads.
    """
    if planned.trial.task != "train" or keep == "all":
        return
    workdir = planned.folder / trials.RUN
    checkpoints = Checkpoints(workdir / folder.CHECKPOINTS, keep_checkpoints=1, crash=workdir / folder.CRASH)
    with contextlib.closing(checkpoints):
        checkpoints.keep_only({result["best"]["step"], result["tested"]["step"]})
