"""One run under way: its compiled program, its folder, and what is done with both at a step."""

import contextlib
import sys
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from cnn_vit import data, files, trees
from cnn_vit.data.feed import stream
from cnn_vit.errors import DivergedError, SurroundingsError, UserError
from cnn_vit.runs import description, environment, folder, journal
from cnn_vit.runs.checkpoints import Checkpoints
from cnn_vit.runs.journal import Journal
from cnn_vit.runs.manifests import DamageError
from cnn_vit.settings import Settings, fingerprint
from cnn_vit.training import evaluation, forks, plan, program
from cnn_vit.training.progress import Progress
from cnn_vit.training.step import AddMeasures

STEPS_AHEAD = 4  # steps that the host may be ahead of the device; each holds a batch


class Display(Protocol):
    """Shows how far a run is. `training.progress.Progress` is the one of the command line."""

    def update(self, step: int, *, accuracy: float | None = None) -> None:
        """Takes the number of steps done, and a new validation accuracy where there is one."""

    def say(self, sentence: str) -> None:
        """Shows a sentence at once."""

    def close(self) -> None:
        """Shows the last step and gives the terminal back."""


@dataclass(frozen=True)
class TestedValues:
    """The values that the test split is evaluated with.

    Attributes:
        step: of the training step that they come from.
        values: dict(params, stats).
        is_ema: whether they are the moving average.
        choice: "last", "best" or "ema", as `test_weights` says.
    """

    step: int
    values: dict
    is_ema: bool
    choice: str


class Run:
    """A run from the moment that its data are known. Nothing is written before `open_folder`.

    Args:
        settings: final and checked.
        workdir: the run folder, locked and claimed.
        dataset: the run's data.
        progress: shows how far the run is; left out, on stderr.
        add_measures: as of `step.learn`: more measures, which are written to metrics.jsonl with the others.

    Raises:
        UserError: the model does not take the data, or the batch does not divide among the devices.
    """

    checkpoints: Checkpoints  # from `open_folder` on
    journal: Journal  # from `restore_or_init` on

    def __init__(
        self,
        settings: Settings,
        workdir: Path,
        dataset: data.Dataset,
        *,
        progress: Display | None = None,
        add_measures: AddMeasures | None = None,
    ):
        program.check_network(settings, dataset)  # before mean and std are measured, which reads images
        preprocessing = description.make_preprocessing(settings, dataset)
        self.program = program.Program(settings, dataset, preprocessing, add_measures=add_measures)
        self.settings, self.workdir, self.dataset = settings, workdir, dataset
        self.times = self.program.times
        self.fingerprint = fingerprint(settings, dataset.fingerprint)
        self.progress = progress
        self._queued: deque[tuple[int, dict]] = deque()

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        """Closes everything. What a failing run cannot close is passed over: its own error is the one to tell."""
        try:
            if "checkpoints" in vars(self):
                self.checkpoints.close()
        except UserError:
            if kind is None:
                raise
        finally:
            if self.progress is not None:
                self.progress.close()
            if "journal" in vars(self):
                self.journal.close()

    def say(self, sentence: str) -> None:
        """Tells the user a sentence, above the progress bar where there is one."""
        if self.progress is not None:
            self.progress.say(sentence)
        else:
            print(sentence, file=sys.stderr, flush=True)

    def show(self, step: int, *, accuracy: float | None = None) -> None:
        """Shows the number of steps done, and a new validation accuracy where there is one."""
        if self.progress is not None:
            self.progress.update(step, accuracy=accuracy)

    # Start ------------------------------------------------------------------------------------------------------------

    def open_folder(self, command: str | None) -> list[str]:
        """Writes into the folder what the run is, or checks that it is the same run, and opens its checkpoints.

        Args:
            command: the words that started it, written down with versions and devices.

        Returns:
            A phrase for each thing that may change bits and is not what it was when the run began.

        Raises:
            UserError: the folder's run was trained on other data.
        """
        description.describe(self.workdir, self.settings, self.dataset, self.program.preprocessing)
        self.checkpoints = Checkpoints(
            self.workdir / folder.CHECKPOINTS,
            keep_checkpoints=self.settings["keep_checkpoints"],
            crash=self.workdir / folder.CRASH,
            say=self.say,
        )
        return environment.record_environment(self.workdir, command)

    def restore_or_init(self, fork_from: str | Path | None) -> tuple[int, dict]:
        """The step to go on from, and its state.

        The state is that of the newest whole checkpoint, else another run's that this one forks from, else the initial
        one. Opens journal and progress display at that step.
        """
        template = self.program.state_template
        origin, note = forks.fork_source(self.workdir, fork_from), forks.read_fork_note(self.workdir)
        restored = self.checkpoints.restore_newest(template)
        is_forked = restored is not None and note is not None and restored[0] >= note["step"]
        if origin and not is_forked:
            restored = self.take_over(origin)
        step, state = restored or (0, self.program.initial_state())
        self.journal = Journal(self.workdir, step=step)
        if self.progress is None:
            self.progress = Progress(self.times.total, step=step, batch_size=self.program.batch_size)
        if step:
            self.say(f"going on from step {step} of {self.times.total}")
        return step, state

    def take_over(self, origin: Path) -> tuple[int, dict]:
        """Another run's newest checkpoint, with its journal up to there."""
        fork = forks.Fork(
            workdir=self.workdir,
            origin=origin,
            dataset=self.dataset,
            total=self.times.total,
            needs_best=self.settings["test_weights"] == "best",
            say=self.say,
        )
        return forks.take_over(fork, self.program.state_template, self.checkpoints)

    # At a step --------------------------------------------------------------------------------------------------------

    def batches(self, first: int, last: int | None = None) -> Generator[Any, None, None]:
        """The training batches of updates `first` to `last` - 1, on the devices; None: without end."""
        return self.program.batches(first, last)

    def learn(self, state: dict, batch: dict) -> tuple[dict, dict]:
        """Takes a state to the next one, with the measures of the step; the state given is used up."""
        return self.program.learn(state, batch)

    def queue_measures(self, step: int, measures: dict) -> None:
        """Keeps a step's measures without reading them, so that the host need not wait for the device.

        It waits only where it would be more than STEPS_AHEAD steps ahead.

        Raises:
            SurroundingsError: a save in the background has failed.
        """
        self.checkpoints.raise_failed_save()
        self._queued.append((step, measures))
        if len(self._queued) > STEPS_AHEAD:
            _, earlier = self._queued[-STEPS_AHEAD - 1]
            jax.block_until_ready(earlier["finite"])

    def read_finite_measures(self) -> dict:
        """Reads all queued measures; returns those of the newest step, {} where none were queued.

        Raises:
            DivergedError: a step was not finite; the first such step and its examples are named.
        """
        queued = jax.device_get(list(self._queued))
        self._queued.clear()
        for step, measures in queued:
            if not measures["finite"]:
                raise self.diverged_error(step)
        if not queued:
            return {}
        _, newest = queued[-1]
        return newest

    def diverged_error(self, step: int) -> DivergedError:
        """The error for a step that left the finite numbers; its examples are written to crash/diverged.json."""
        batch_size = self.program.batch_size
        first = (step - 1) * batch_size
        positions = np.arange(first, first + batch_size, dtype=np.int64)
        indices = stream.order(len(self.dataset.splits["train"]), self.settings["seed"], positions)
        path = self.workdir / folder.CRASH / folder.DIVERGED
        files.write_json(path, {"step": step, "index": [int(index) for index in indices]})
        with contextlib.suppress(SurroundingsError):  # a save that fails now is not what the user has to know
            self.checkpoints.wait()
        saved = self.checkpoints.steps()
        last = f"checkpoint {saved[-1]} is the last finite one" if saved else "no checkpoint was saved before it"
        return DivergedError(
            f"step {step} is not finite (loss, gradient or a parameter); {last}, the step's examples are in {path}; "
            "make optimizer.learning_rate smaller, or set optimizer.clip"
        )

    def log(self, step: int) -> None:
        """Writes down the step's own measures, and what the clock says."""
        measures = self.read_finite_measures()
        written = {name: measure for name, measure in measures.items() if name != "finite"}
        self.journal.write_train(step, **written)
        self.journal.write_timing(step, **self.journal.elapsed())

    def evaluate(self, step: int, state: dict) -> bool:
        """Evaluates the validation split; returns whether this is the best evaluation so far."""
        self.read_finite_measures()
        values, _ = self.eval_values(state)
        metrics = evaluation.summarize(self.evaluate_split("validation", values), len(self.dataset.classes))
        self.journal.write_evaluation(step, "validation", metrics["accuracy"], metrics["loss"], metrics["n"])
        self.show(step, accuracy=metrics["accuracy"])
        return self.best_evaluation()["step"] == step

    def evaluate_split(self, split: str, values: dict) -> dict[str, np.ndarray]:
        """What the network says of every example of a split, as `evaluation.per_example` gives it."""
        return evaluation.per_example(
            self.program.evaluator,
            values,
            self.dataset.splits[split],
            workers=self.settings["data.workers"],
        )

    def eval_values(self, state: dict) -> tuple[dict, bool]:
        """The values that validation reads, and whether they are the moving average."""
        if self.settings["ema_decay"] is not None:
            return state["ema"], True
        return trained_values(state), False

    def best_evaluation(self) -> dict[str, Any]:
        """The best evaluation so far, as a line of metrics.jsonl.

        Raises:
            SurroundingsError: the journal of a run that has evaluated holds no evaluation.
        """
        evaluations = self.journal.evaluations()
        if not evaluations:
            raise SurroundingsError(
                f"{self.workdir / folder.METRICS} holds no evaluation, though the run has made some; "
                "put the file back from a copy, or start again in another --workdir"
            )
        return journal.best_evaluation(evaluations)

    def should_stop_early(self, patience: int | None) -> bool:
        """Whether so many evaluations have passed without a better one; never where `patience` is None."""
        evaluations = self.journal.evaluations()
        if patience is None or not evaluations:
            return False
        best = evaluations.index(self.best_evaluation())
        return len(evaluations) - 1 - best >= patience

    def save(self, step: int, state: dict) -> None:
        """Saves a state whose every step was finite, after the journal's lines before it, and deletes old checkpoints.

        The newest ones and that of the best evaluation are kept.
        """
        self.read_finite_measures()
        self.checkpoints.save(step, state, before_commit=self.journal.flush)
        best_step = self.best_evaluation()["step"] if self.journal.evaluations() else None
        self.checkpoints.retain(best_step)

    # Finish -----------------------------------------------------------------------------------------------------------

    def values_to_test(self, state: dict) -> TestedValues:
        """The values that the test split is evaluated with; the best checkpoint is read back where it is that."""
        choice = self.settings["test_weights"]
        if choice is None:
            choice = "last" if self.settings["ema_decay"] is None else "ema"
        last_step = int(state["step"])
        if choice == "last":
            return TestedValues(last_step, trained_values(state), False, choice)
        step = self.best_evaluation()["step"] if choice == "best" else last_step
        if step != last_step:
            state = self.restore_best(step)
        values, is_ema = self.eval_values(state)
        return TestedValues(step, values, is_ema, choice)

    def restore_best(self, step: int) -> dict:
        """The values in the checkpoint of the best evaluation: dict(params, stats, ema)."""
        template = {name: self.program.state_template[name] for name in ("params", "stats", "ema")}
        try:
            return self.checkpoints.restore(step, template, partial=True)
        except DamageError as error:
            raise SurroundingsError(
                f"{error}; it is the best, which test_weights=best tests: put it back from a copy, "
                "or start again in another --workdir"
            ) from error

    def result(self, state: dict, tested: TestedValues, *, validation: dict, test: dict | None) -> dict[str, Any]:
        """What `result.json` holds, from the metrics of the validation split and of the test split, if there is one."""
        best = {name: value for name, value in self.best_evaluation().items() if name not in ("kind", "split")}
        elapsed = self.journal.elapsed()
        return {
            "test": test,
            "validation": {**validation, "step": tested.step},
            "best": best,
            "tested": {
                "step": tested.step,
                "values": "ema" if tested.is_ema else "trained",
                "with": tested.choice,
            },
            "steps": int(state["step"]),
            "parameters": trees.count(self.program.step.network.params),
            "macs": plan.macs(self.settings, classes=len(self.dataset.classes), image_shape=self.dataset.image_shape),
            "fingerprint": self.fingerprint,
            "recipe": self.settings.recipe,
            "words": list(self.settings.words),
            "model": self.settings["model.name"],
            "seed": self.settings["seed"],
            "classes": len(self.dataset.classes),
            "counts": {name: len(split.labels) for name, split in self.dataset.splits.items()},
            "forked_from": forks.read_fork_note(self.workdir),
            "timing": elapsed,
        }


def trained_values(state: dict) -> dict:
    """The values that training has made of a state, dict(params, stats)."""
    return {name: state[name] for name in ("params", "stats")}
