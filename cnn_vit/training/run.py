"""One run under way: its compiled step, data, checkpoints and journal, and what is done with them at a step."""

import contextlib
import sys
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from cnn_vit import data, files, trees
from cnn_vit.data.feed import stream
from cnn_vit.errors import DivergedError, SurroundingsError, UserError
from cnn_vit.nn.values import initial_values
from cnn_vit.runs import folder, journal
from cnn_vit.runs.checkpoints import Checkpoints
from cnn_vit.runs.journal import METRICS, Journal
from cnn_vit.runs.manifests import DamageError
from cnn_vit.settings import Settings, fingerprint
from cnn_vit.training import devices, evaluation, forks, plan, step
from cnn_vit.training.progress import Progress

STEPS_AHEAD = 4  # steps that the host may be ahead of the device; each holds a batch


class TestedValues(NamedTuple):
    """What the test split is judged with.

    Attributes:
        step: of the parameters.
        values: dict(params, stats).
        is_ema: whether they are the moving average.
        choice: last, best or ema, as `test_weights` says.
    """

    step: int
    values: dict
    is_ema: bool
    choice: str


class Run:
    """What a run works with, from the moment its data are known.

    Args:
        settings: final and checked.
        workdir: the run folder, locked and claimed.
        dataset: its data.

    Raises:
        UserError: the model does not take the data, the batch does not divide among the devices, or the folder's run
            was trained on other data.
    """

    journal: Journal  # both from `begin` on
    progress: Progress

    def __init__(self, settings: Settings, workdir: Path, dataset: data.Dataset):
        classes, shape = len(dataset.classes), dataset.image_shape
        plan.check_model(settings, classes=classes, image_shape=shape)
        self.settings, self.workdir, self.dataset = settings, workdir, dataset
        self.mesh = devices.mesh()
        self.batch_size, accumulate = settings["data.batch_size"], settings["optimizer.accumulate"]
        plan.refuse_uneven(self.batch_size, accumulate * self.mesh.size, f"micro-batches x {self.mesh.size} devices")
        examples = len(dataset.splits["train"])
        self.times = plan.run_times(settings, examples=examples)
        form = plan.network_spec(settings, classes=classes, image_shape=shape)
        evaluation.refuse_sizes(form, dataset)
        self.spec = plan.step_spec(settings, form, examples=examples)
        self.step = step.build_step(self.spec, self.mesh)
        self.eval_step = step.eval_step(form, self.mesh)
        preprocessing = folder.make_preprocessing(settings, dataset)
        folder.describe(workdir, settings, dataset, preprocessing)
        hyperparameters = plan.hyperparameters(
            settings, preprocessing, labels=dataset.splits["train"].labels, classes=classes
        )
        self.hyperparameters = jax.device_put(hyperparameters, devices.replicated(self.mesh))
        self.frozen: dict = dict(params={}, stats={})
        self.fingerprint = fingerprint(settings, dataset.fingerprint)
        self.checkpoints = Checkpoints(
            workdir / folder.CHECKPOINTS, keep=settings["keep_checkpoints"], crash=workdir / folder.CRASH, say=self.say
        )
        self._queued: deque[tuple[int, dict]] = deque()

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        """Closes everything; what a failing run leaves open is closed in silence, its error is the one to tell."""
        try:
            self.checkpoints.close()
        except UserError:
            if kind is None:
                raise
        finally:
            for name in ("progress", "journal"):
                if name in vars(self):
                    getattr(self, name).close()

    def say(self, sentence: str) -> None:
        """A sentence for the user, above the progress bar where there is one."""
        if "progress" in vars(self):
            self.progress.say(sentence)
        else:
            print(sentence, file=sys.stderr, flush=True)

    # Start

    def restore_or_init(self, fork_from: str | Path | None) -> tuple[int, dict]:
        """The step to go on from, and its state: the newest whole checkpoint's, else another run's, else the first."""
        template, there, note = (
            self.state_template(),
            forks.fork_source(self.workdir, fork_from),
            forks.read_fork_note(self.workdir),
        )
        found = self.checkpoints.restore_newest(template)
        if there and (found is None or note is None or found[0] < note["step"]):
            found = self.restore_fork(there, template)
        at, state = found or (0, self.initial_state())
        self.journal = Journal(self.workdir, at=at)
        self.progress = Progress(self.times.total, at=at, batch_size=self.batch_size)
        if at:
            self.say(f"going on from step {at} of {self.times.total}")
        return at, state

    def restore_fork(self, there: Path, template: dict) -> tuple[int, dict]:
        """Another run's newest checkpoint, taken over with its journal up to there."""
        return forks.take_over(
            self.workdir,
            there,
            template,
            ours=self.checkpoints,
            dataset=self.dataset,
            total=self.times.total,
            needs_best=self.settings["test_weights"] == "best",
            say=self.say,
        )

    def initial_state(self) -> dict:
        """The state before the first step, on the devices."""
        values = initial_values(self.step.network, self.settings["seed"])
        return devices.place(self.step.init_state(*values), self.mesh)

    def state_template(self) -> dict:
        """Shapes and placement of the state, without its values."""
        shapes = jax.eval_shape(self.step.init_state, self.step.network.params, self.step.network.stats)
        places = devices.shardings(shapes, self.mesh)
        return jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes, places
        )

    # At a step

    def queue_measures(self, done: int, measures: dict) -> None:
        """Keeps a step's measures, unread; waits for the device only where the host is more than a few steps ahead.

        Raises:
            SurroundingsError: a save in the background has failed.
        """
        self.checkpoints.check()
        self._queued.append((done, measures))
        if len(self._queued) > STEPS_AHEAD:
            jax.block_until_ready(self._queued[-STEPS_AHEAD - 1][1]["finite"])

    def read_finite_measures(self) -> dict:
        """Reads whether all steps since the last reading were finite; gives the measures of the newest of them, if any.

        Raises:
            DivergedError: one was not; its step and examples are named.
        """
        taken = jax.device_get(list(self._queued))
        self._queued.clear()
        for done, measures in taken:
            if not measures["finite"]:
                raise self.diverged_error(done)
        return taken[-1][1] if taken else {}

    def diverged_error(self, done: int) -> DivergedError:
        """The error for a step that left the finite numbers; its examples are written to crash/diverged.json."""
        first = (done - 1) * self.batch_size
        positions = np.arange(first, first + self.batch_size, dtype=np.int64)
        split = self.dataset.splits["train"]
        indices = stream.order(len(split.labels), self.settings["seed"], positions)
        path = self.workdir / folder.CRASH / "diverged.json"
        files.write_json(path, {"step": done, "index": [int(one) for one in indices]})
        with contextlib.suppress(SurroundingsError):  # of a save under way; it does not count then
            self.checkpoints.wait()
        kept = self.checkpoints.steps()
        last = f"checkpoint {kept[-1]} is the last finite one" if kept else "no checkpoint was saved before it"
        return DivergedError(
            f"step {done} is not finite (loss, gradient or a parameter); {last}, the step's examples are in {path}; "
            "make optimizer.learning_rate smaller, or set optimizer.clip"
        )

    def log(self, done: int) -> None:
        """Writes the step's own measures, and what the clock says."""
        measures = self.read_finite_measures()
        names = ("loss", "accuracy", "learning_rate", "gradient_norm")
        self.journal.write_train(done, **{name: measures[name] for name in names})
        self.journal.write_timing(done, **self.journal.elapsed())

    def evaluate(self, done: int, state: dict) -> bool:
        """Judges the validation split; returns whether it is the best evaluation so far."""
        self.read_finite_measures()
        values, _ = self.eval_values(state)
        found = evaluation.summarize(self.evaluate_split("validation", values), len(self.dataset.classes))
        self.journal.write_evaluation(done, "validation", found["accuracy"], found["loss"], found["n"])
        self.progress.update(done, accuracy=found["accuracy"])
        return self.best_evaluation()["step"] == done

    def evaluate_split(self, split: str, values: dict) -> dict[str, np.ndarray]:
        """What the network says of every example of a split."""
        shown = {name: self.hyperparameters[name] for name in ("mean", "std")}
        return evaluation.per_example(
            lambda batch: self.eval_step(values["params"], values["stats"], batch, shown),
            self.dataset.splits[split],
            batch_size=evaluation.BATCH_SIZE,
            on=self.mesh,
            workers=self.settings["data.workers"],
        )

    def eval_values(self, state: dict) -> tuple[dict, bool]:
        """The values that validation reads, and whether they are the moving average."""
        averaged = self.settings["ema_decay"] is not None
        return (state["ema"] if averaged else {name: state[name] for name in ("params", "stats")}), averaged

    def best_evaluation(self) -> dict[str, Any]:
        """The best evaluation so far.

        Raises:
            SurroundingsError: the journal of a run that has evaluated holds no evaluation.
        """
        if found := self.journal.evaluations():
            return journal.best_evaluation(found)
        raise SurroundingsError(
            f"{self.workdir / METRICS} holds no evaluation, though the run has made some; "
            "put the file back from a copy, or start again in another --workdir"
        )

    def should_stop_early(self, patience: int | None) -> bool:
        """Whether so many evaluations have passed without a better one."""
        found = self.journal.evaluations()
        if patience is None or not found:
            return False
        return len(found) - 1 - found.index(self.best_evaluation()) >= patience

    def save(self, done: int, state: dict) -> None:
        """Saves a state whose every step was finite, the journal's lines before it, and clears old checkpoints away."""
        self.read_finite_measures()
        self.checkpoints.save(done, state, before_commit=self.journal.flush)
        found = self.journal.evaluations()
        self.checkpoints.retain(self.best_evaluation()["step"] if found else None)

    # Finish

    def values_to_test(self, state: dict) -> TestedValues:
        """What the test split is to be judged with; the best checkpoint is read back where it is that."""
        how = self.settings["test_weights"] or ("last" if self.settings["ema_decay"] is None else "ema")
        last = int(state["step"])
        if how == "last":
            return TestedValues(last, {name: state[name] for name in ("params", "stats")}, False, how)
        at = self.best_evaluation()["step"] if how == "best" else last
        if at != last:
            state = self.restore_best(at)
        return TestedValues(at, *self.eval_values(state), how)

    def restore_best(self, at: int) -> dict:
        """The values of the best evaluation's checkpoint."""
        template = self.state_template()
        try:
            return self.checkpoints.restore(
                at, {name: template[name] for name in ("params", "stats", "ema")}, part=True
            )
        except DamageError as error:
            raise SurroundingsError(
                f"{error}; it is the best, which test_weights=best tests: put it back from a copy, "
                "or start again in another --workdir"
            ) from error

    def result(self, state: dict, tested: TestedValues, *, validation: dict, test: dict | None) -> dict[str, Any]:
        """What `result.json` holds."""
        best = {name: value for name, value in self.best_evaluation().items() if name not in ("kind", "split")}
        taken = self.journal.elapsed()
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
            "parameters": trees.count(self.step.network.params),
            "macs": plan.macs(self.settings, classes=len(self.dataset.classes), image_shape=self.dataset.image_shape),
            "fingerprint": self.fingerprint,
            "recipe": self.settings.recipe,
            "words": list(self.settings.words),
            "model": self.settings["model.name"],
            "seed": self.settings["seed"],
            "classes": len(self.dataset.classes),
            "counts": {name: len(split.labels) for name, split in self.dataset.splits.items()},
            "forked_from": forks.read_fork_note(self.workdir),
            "timing": taken,
        }
