"""One run under way: its compiled program, its folder, and what the loop does with both at a step."""

import contextlib
import sys
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from cnn_vit import data, files, process, trees
from cnn_vit.data.feed import stream
from cnn_vit.errors import DivergedError, SurroundingsError, UserError
from cnn_vit.runs import description, environment, folder, journal, manifests, reader, seals
from cnn_vit.runs.checkpoints import Checkpoints
from cnn_vit.runs.journal import Journal
from cnn_vit.runs.manifests import DamageError
from cnn_vit.settings import Settings, fingerprint
from cnn_vit.training import (
    adapting,
    devices,
    evaluation,
    forks,
    forward,
    freezing,
    memory,
    plan,
    program,
    starting_values,
)
from cnn_vit.training.progress import Progress
from cnn_vit.training.step import NOTHING_FROZEN, AddMeasures
from cnn_vit.transfer.weights import Weights

STEPS_AHEAD = 4  # steps that the host may be ahead of the device; each holds a batch in memory


class Display(Protocol):
    """Something that shows how far a run is. The command line uses `training.progress.Progress`."""

    def update(self, step: int, *, accuracy: float | None = None) -> None:
        """Takes the number of steps done, and a new validation accuracy if there is one."""

    def say(self, sentence: str) -> None:
        """Shows a sentence at once."""

    def close(self) -> None:
        """Shows the last step and gives the terminal back."""


@dataclass(frozen=True)
class TestedValues:
    """The values that the test split is evaluated with.

    Attributes:
        step: the training step that they come from.
        values: dict(params, stats) of the whole network.
        is_ema: whether they are an average of the parameters.
        choice: "last", "best" or "ema": the setting `test_weights`, or its default.
    """

    step: int
    values: dict
    is_ema: bool
    choice: str


class Run:
    """A run whose data are loaded. Nothing is written before `open_folder`.

    Args:
        settings: final and checked.
        workdir: the run folder, locked and claimed.
        dataset: the run's data.
        weights: that the run starts from, as `pretrained_settings.complete_settings` returned them with the settings.
        progress: shows how far the run is; by default on stderr.
        add_measures: adds scalars to the measures of each step, as `step.learn` says; they are logged with the others.

    Raises:
        UserError: the model does not take the data, or the batch does not divide among the devices.
    """

    checkpoints: Checkpoints  # set by `open_folder`, as is the next
    sealed: dict[str, seals.Seal]  # the seals of the files that describe the run
    journal: Journal  # set by `restore_or_init`

    def __init__(
        self,
        settings: Settings,
        workdir: Path,
        dataset: data.Dataset,
        *,
        weights: Weights | None = None,
        progress: Display | None = None,
        add_measures: AddMeasures | None = None,
    ):
        self.progress = progress
        program.check_network(settings, dataset)  # before mean and std are measured, which reads images
        computed = description.make_preprocessing(settings, dataset)
        preprocessing = description.choose_preprocessing(workdir, computed, say=self.say)
        self.program = program.Program(
            settings,
            dataset,
            preprocessing,
            weights=weights,
            add_measures=add_measures,
        )
        self.settings, self.workdir, self.dataset = settings, workdir, dataset
        self.times = self.program.times
        self.fingerprint = fingerprint(settings, dataset.fingerprint)
        self._queued: deque[tuple[int, dict]] = deque()
        self._one_at_a_time: memory.OneStepAtATime | None = None

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, error_type: type | None, *_: object) -> None:
        """Closes everything. Where the run failed, an error of closing is dropped: the run's own error says more."""
        try:
            if "checkpoints" in vars(self):
                self.checkpoints.close()
        except UserError:
            if error_type is None:
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
        """Shows the number of steps done, and a new validation accuracy if there is one."""
        if self.progress is not None:
            self.progress.update(step, accuracy=accuracy)

    # Start ------------------------------------------------------------------------------------------------------------

    def record_start(self, origin: Path | None) -> dict[str, Any] | None:
        """Makes what pretrained.json is to say, and tells the user what differs between the run and its weights.

        It is None of a run that trains all of a network from initial values.

        Args:
            origin: the run that this one forks from, whose start is this one's too; None where it is no fork.
        """
        if origin is not None:
            return forks.read_start(origin, self.settings)
        if self.settings["pretrained.weights"] is None and not adapting.freezes_something(self.settings):
            return None
        start = self.program.start
        for sentence in starting_values.describe_changes(self.settings, start, self.dataset.image_shape):
            self.say(sentence)
        stages = [self.program.part_of(stage).spec.freeze for stage in range(len(self.program.stage_ends) + 1)]
        return starting_values.record_start(start, self.program.spec.network, stages)

    def open_folder(self, command: str | None, fork_from: str | Path | None = None) -> list[str]:
        """Writes into the folder what the run is, or checks that it holds this run, and opens its checkpoints.

        Args:
            command: the command line that started the run, to be written down with versions and devices.
            fork_from: the run folder that a new run starts from; None where it is no fork.

        Returns:
            A phrase for each version, device or other thing that may change bits and has changed since the run began.

        Raises:
            UserError: the folder's run was trained on other data, or the weights do not fit.
        """
        pretrained_record = None
        if seals.find_seals(self.workdir) is None:  # else the run has written it down
            pretrained_record = self.record_start(forks.find_origin(self.workdir, fork_from))
        self.sealed = description.describe(
            self.workdir,
            self.settings,
            self.dataset,
            self.program.preprocessing,
            pretrained_record=pretrained_record,
            say=self.say,
        )
        for sentence in self.dataset.warnings():
            self.say(sentence)
        self.checkpoints = Checkpoints(
            self.workdir / folder.CHECKPOINTS,
            keep_checkpoints=self.settings["keep_checkpoints"],
            crash=self.workdir / folder.CRASH,
            say=self.say,
        )
        kind = forward.program_kind(self.program.spec.network, self.program.mesh)
        return environment.record_environment(self.workdir, command, kind)

    def restore_or_init(self, fork_from: str | Path | None) -> tuple[int, dict]:
        """Restores the step and the state to go on from, and opens journal and progress display at that step.

        They are those of the newest whole checkpoint, else those of the run that this one forks from, else step 0 and
        the initial state.
        """
        last_template = self.program.part_of(len(self.program.stage_ends)).state_template
        state_size = devices.memory_sharers(self.program.mesh) * trees.size_in_bytes(last_template)
        memory.refuse_large_state(state_size, devices.free_memory(self.program.mesh), self.settings)
        origin = forks.find_origin(self.workdir, fork_from)
        note = forks.read_fork_note(self.workdir)
        restored = self.checkpoints.restore_newest(self.template_at)
        # a fork whose beginning was cut short may hold the origin's best checkpoint, but not yet that of the noted step
        is_forked = restored is not None and note is not None and restored[0] >= note["step"]
        if origin and not is_forked:
            if self.has_frozen_values:
                first_template = self.program.part_of(0).frozen_template
                self.save_frozen(forks.restore_frozen(self.workdir, origin, first_template, self.say))
            restored = self.take_over(origin)
        if restored is None:
            restored = 0, self.program.initial_state()
            if self.has_frozen_values:
                self.save_frozen(self.program.frozen)
        else:
            self.program.stage = self.program.stage_at(restored[0])
            self.program.frozen = self.restore_frozen(self.program.stage)
        step, state = restored
        self.program.release_start(keeps_kernel=forks.read_fork_note(self.workdir) is None)
        self.warn_of_frozen_initial_values()
        self.warn_of_moving_statistics()
        sealed_size = self.checkpoints.read_seals(step)[folder.METRICS]["bytes"] if step else 0
        self.forget_after(step, sealed_size)
        self.journal = Journal(self.workdir, step=step, size=sealed_size)
        if self.progress is None:
            self.progress = Progress(self.times.total, step=step, batch_size=self.program.batch_size)
        if step:
            self.say(f"going on from step {step} of {self.times.total}")
        return step, state

    @property
    def has_frozen_values(self) -> bool:
        """Whether a part of the network is not trained, in the first stage at least."""
        return bool(jax.tree.leaves(self.program.part_of(0).frozen_template))

    def template_at(self, step: int) -> dict:
        """Returns shapes and placement of the state that is saved at a step, which is of the stage of that step."""
        return self.program.part_of(self.program.stage_at(step)).state_template

    def restore_frozen(self, stage: int) -> dict:
        """Restores what is frozen in a stage, a part of what the first one froze: dict(params, stats)."""
        template = self.program.part_of(stage).frozen_template
        return self.checkpoints.restore_frozen(template) if jax.tree.leaves(template) else NOTHING_FROZEN

    def save_frozen(self, values: dict) -> None:
        """Saves the values that the first stage does not train, dict(params, stats), once, and seals them."""
        self.checkpoints.save_frozen(values)
        manifest = self.workdir / folder.FROZEN_MANIFEST
        self.sealed[folder.FROZEN_MANIFEST] = seals.seal_content(folder.read_bytes(manifest))

    def warn_of_frozen_initial_values(self) -> None:
        """Tells the user where what is frozen was never trained, for the settings name no weights."""
        if self.has_frozen_values and self.settings["pretrained.weights"] is None:
            self.say(
                f"{adapting.freezing_text(self.settings)} freezes initial values, which have learned "
                "nothing; to start from a trained network, name it in pretrained.weights"
            )

    def warn_of_moving_statistics(self) -> None:
        """Tells the user which frozen statistics training changes all the same, where there are any."""
        spec = self.program.spec
        moving = freezing.find_moving_statistics(spec.network, spec.freeze)
        if moving:
            more = f" and {len(moving) - 1} more" if len(moving) > 1 else ""
            self.say(
                f"{moving[0]}{more} are frozen, and training does not use them: their layer does not heed `fixed`; the "
                "network will be evaluated with other features than it learns from"
            )

    def forget_after(self, step: int, sealed_size: int) -> None:
        """Deletes what stands on lines of the journal that are to be cut off: later checkpoints, and a result.

        Args:
            step: the step that the run goes on from.
            sealed_size: the bytes of metrics.jsonl that stay.
        """
        self.checkpoints.delete_after(step)
        metrics = self.workdir / folder.METRICS
        if metrics.exists() and manifests.file_size(metrics) > sealed_size:
            files.remove(self.workdir / folder.RESULT)

    def take_over(self, origin: Path) -> tuple[int, dict]:
        """Takes over another run's newest checkpoint, with its journal up to that step; returns step and state."""
        fork = forks.Fork(
            workdir=self.workdir,
            origin=origin,
            dataset=self.dataset,
            total=self.times.total,
            stage_ends=self.program.stage_ends,
            needs_best=self.settings["test_weights"] == "best",
            optimizer=self.settings["optimizer.name"],
            sealed=self.sealed,
            say=self.say,
            renew=self.program.renew_numbers,
        )
        return forks.take_over(fork, self.template_at, self.checkpoints)

    # At a step --------------------------------------------------------------------------------------------------------

    def batches(self, start: int, stop: int | None = None) -> Generator[Any, None, None]:
        """Yields the training batches of the updates `start` to `stop` - 1, on the devices; without end for None."""
        return self.program.batches(start, stop)

    def compile_step(self) -> None:
        """Compiles the step, once its state is made; says what memory it needs, and writes that into the folder.

        The memory that the compiler took is given back. Nothing is said where the compiler does not tell.

        Raises:
            SurroundingsError: so much memory is not free.
        """
        step_memory = self.program.compile_step()
        process.release_free_pages()
        if step_memory is None:
            return
        self.refuse_large_last_stage(step_memory)
        is_kept = process.Heap.keeps_pages and devices.platform(self.program.mesh) == "cpu"
        if is_kept and step_memory.intermediate >= memory.LARGE_STEP:
            self._one_at_a_time = memory.OneStepAtATime(step_memory.intermediate)
        free = devices.free_memory(self.program.mesh)
        memory.refuse_large_step(step_memory, free, self.settings)
        self.say(memory.memory_line(step_memory, free))
        environment.record_step_memory(self.workdir, step_memory.as_json())

    def refuse_large_last_stage(self, step_memory: memory.StepMemory) -> None:
        """Refuses a run whose last stage, which trains most, needs more memory than there is, before it gets there.

        The step of that stage is compiled, so that it is found compiled when the stage begins.

        Args:
            step_memory: of the stage that the run is in.

        Raises:
            SurroundingsError: so much memory is not free.
        """
        last_stage = len(self.program.stage_ends)
        if self.program.stage == last_stage:
            return
        last_memory = self.program.compile_step(last_stage)
        process.release_free_pages()
        free = devices.free_memory(self.program.mesh)
        if last_memory is None or free is None:
            return
        more_values = last_memory.values - step_memory.values  # which are not in the memory yet
        memory.refuse_large_step(last_memory, max(0, free - more_values), self.settings)

    def enter_stages(self, step: int, state: dict) -> dict:
        """Enters the stages that begin with the next step, and says so; returns the state with which it begins.

        Args:
            step: steps done so far.
            state: the state after them.
        """
        while self.program.begins_stage(step):
            state = self.program.enter_stage(state)
            stages = adapting.parse_stages(self.settings)
            number = self.program.stage + 1
            trained = trees.count(self.program.state_template["params"])
            self.say(
                f"stage {number} of {len(stages)} from step {step} on: {stages[number - 1].pattern}; {trained:,} "
                "parameters are trained"
            )
        return state

    def learn(self, state: dict, batch: dict) -> tuple[dict, dict]:
        """Updates the state by one batch, as `Program.learn` does; of a large step, once the one before is done."""
        if self._one_at_a_time is None:
            return self.program.learn(state, batch)
        self._one_at_a_time.begin_step()
        state, measures = self.program.learn(state, batch)
        self._one_at_a_time.step_began(measures)
        return state, measures

    def queue_measures(self, step: int, measures: dict) -> None:
        """Queues a step's measures without reading them, so that the host need not wait for the device.

        The host waits only where it would be more than STEPS_AHEAD steps ahead.

        Raises:
            SurroundingsError: a save in the background has failed.
        """
        self.checkpoints.raise_failure()
        self._queued.append((step, measures))
        if len(self._queued) > STEPS_AHEAD:
            # waiting for an earlier step, not for this one, leaves the device work to do
            _, earlier = self._queued[-STEPS_AHEAD - 1]
            jax.block_until_ready(earlier["finite"])

    def read_finite_measures(self) -> dict:
        """Reads all queued measures and returns those of the newest step; {} where none are queued.

        Raises:
            DivergedError: a step was not finite. The error names the first such step and the file with its examples.
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
        """Makes the error for a step that was not finite, and writes its examples to crash/diverged.json."""
        batch_size = self.program.batch_size
        first = (step - 1) * batch_size  # steps count from 1 here, batches from 0
        positions = np.arange(first, first + batch_size, dtype=np.int64)
        indices = stream.order(len(self.dataset.splits["train"]), self.settings["seed"], positions)
        path = self.workdir / folder.CRASH / folder.DIVERGED
        files.write_json(path, {"step": step, "index": [int(index) for index in indices]})
        with contextlib.suppress(SurroundingsError):  # a save that fails now matters less than the divergence
            self.checkpoints.wait()
        steps = self.checkpoints.steps()
        last_finite = f"checkpoint {steps[-1]} is the last finite one" if steps else "no checkpoint was saved before it"
        return DivergedError(
            f"step {step} is not finite (loss, gradient or a parameter); {last_finite}, "
            f"the step's examples are in {path}; "
            "make optimizer.learning_rate smaller, or set optimizer.clip"
        )

    def log(self, step: int) -> None:
        """Writes the measures of this very step to the journal, and the time that the run has taken so far."""
        measures = self.read_finite_measures()
        logged = {name: measure for name, measure in measures.items() if name != "finite"}
        self.journal.write_train(step, **logged)
        self.journal.write_timing(step, **self.journal.elapsed())

    def evaluate(self, step: int, state: dict) -> bool:
        """Evaluates the validation split and logs its metrics; returns whether this is the best evaluation so far."""
        self.read_finite_measures()  # only for its error: a state that is not finite is not worth an evaluation
        values, _ = self.values_to_evaluate(state)
        metrics = evaluation.summarize(self.evaluate_split("validation", values), len(self.dataset.classes))
        self.journal.write_evaluation(step, "validation", metrics["accuracy"], metrics["loss"], metrics["n"])
        self.show(step, accuracy=metrics["accuracy"])
        return self.best_evaluation()["step"] == step

    def evaluate_split(self, split: str, values: dict) -> dict[str, np.ndarray]:
        """Measures every example of a split with the network; returns arrays with a row for each example."""
        return evaluation.per_example(
            self.program.evaluator,
            values,
            self.dataset.splits[split],
            workers=self.settings["data.workers"],
        )

    def values_to_evaluate(self, state: dict, frozen: dict | None = None) -> tuple[dict, bool]:
        """Chooses the values that are validated: the average of the parameters where there is one, else the trained.

        Args:
            state: the state.
            frozen: what was not trained in its stage; None for the stage that the run is in.

        Returns:
            dict(params, stats) of the whole network, and whether what is trained of them is the average.
        """
        if plan.evaluates_average(self.settings):
            return self.program.whole(state["ema"], frozen), True
        return self.program.whole(state, frozen), False

    def best_evaluation(self) -> dict[str, Any]:
        """Returns the best evaluation so far, as a line of metrics.jsonl; there must be one."""
        return journal.best_evaluation(self.journal.evaluations())

    def should_stop_early(self, patience: int | None) -> bool:
        """Whether `patience` evaluations have passed since the best one; never where `patience` is None.

        Of a run in stages only those of the last one count, so that every stage has its turn.
        """
        last_stage_begins = max(self.program.stage_ends, default=0)
        evaluations = [line for line in self.journal.evaluations() if line["step"] > last_stage_begins]
        if patience is None or not evaluations:
            return False
        best_position = evaluations.index(journal.best_evaluation(evaluations))
        return len(evaluations) - 1 - best_position >= patience

    def find_goal(self, step: int, until: int | None) -> int:
        """Returns the step to train to: the last one, or the first evaluation at or after `until`.

        It is `step` where that evaluation was made before.

        Args:
            step: steps done so far.
            until: a step; None for the whole run.
        """
        if until is None:
            return self.times.total
        if any(line["step"] >= until for line in self.journal.evaluations()):
            return step
        return self.times.evaluation_from(max(until, step + 1))

    def has_ended(self, step: int) -> bool:
        """Whether there is nothing left to learn after so many steps, the newest that were done."""
        return step == self.times.total or self.should_stop_early(self.settings["early_stop"])

    def save(self, step: int, state: dict) -> None:
        """Saves a state in the background, and then deletes old checkpoints.

        The checkpoint counts only once the journal's lines up to it are on the disk. The newest checkpoints and that of
        the best evaluation stay.

        Raises:
            DivergedError: a step before it was not finite.
            SurroundingsError: the save before failed.
        """
        self.read_finite_measures()
        self.checkpoints.save(step, state, sealed=self.seals_now(), before_commit=self.journal.flush)
        best_step = self.best_evaluation()["step"] if self.journal.evaluations() else None
        self.checkpoints.retain(best_step)

    def seals_now(self) -> dict[str, seals.Seal]:
        """Returns the seals of the run's files: those that describe it, and all lines of metrics.jsonl so far."""
        return {**self.sealed, folder.METRICS: self.journal.seal()}

    # Finish -----------------------------------------------------------------------------------------------------------

    def values_to_test(self, state: dict) -> TestedValues:
        """Chooses the values that the test split is evaluated with, and reads the best checkpoint if it needs that.

        Args:
            state: the state after the last step.
        """
        choice = self.settings["test_weights"]
        if choice is None:
            choice = "ema" if plan.evaluates_average(self.settings) else "last"
        last_step = int(state["step"])
        # an optimizer that averages by itself has no other parameters to test than its average
        if choice == "last" and not plan.averages_by_itself(self.settings):
            return TestedValues(step=last_step, values=self.program.whole(state), is_ema=False, choice=choice)
        step = self.best_evaluation()["step"] if choice == "best" else last_step
        frozen = None
        if step != last_step:
            state = self.restore_best(step)
            frozen = self.restore_frozen(self.program.stage_at(step))
        values, is_ema = self.values_to_evaluate(state, frozen)
        return TestedValues(step=step, values=values, is_ema=is_ema, choice=choice)

    def restore_best(self, step: int) -> dict:
        """Reads the values in the checkpoint of the best evaluation: dict(params, stats, ema).

        Raises:
            SurroundingsError: the checkpoint is damaged.
        """
        template = {name: self.template_at(step)[name] for name in ("params", "stats", "ema")}
        try:
            return self.checkpoints.restore(step, template, partial=True)
        except DamageError as error:
            raise SurroundingsError(
                f"{error}; it is the best, which test_weights=best tests: put it back from a copy, "
                "or start again in another --workdir"
            ) from error

    def prove_frozen(self) -> dict[str, Any] | None:
        """Compares the frozen values that are saved with those that the run started from; None where all is trained.

        Returns:
            A dict of pattern; parameters and running_statistics (how many numbers); digest and source_digest, of the
            parameters; statistics (the setting), statistics_digest and source_statistics_digest; and `moved`: what has
            not stayed as it was, an empty list where all did. Statistics that were measured anew are expected to be
            others. Of a run in stages these are of the first one, and `stages` is a list of such dicts of all of them.
        """
        if not self.has_frozen_values:
            return None
        source = reader.read_pretrained(self.workdir / folder.PRETRAINED)["frozen"]
        if not self.program.stage_ends:
            return self.prove_stage(0, source)
        proofs = [self.prove_stage(stage, source["stages"][stage]) for stage in range(len(self.program.stage_ends) + 1)]
        moved = sorted({name for proof in proofs for name in proof["moved"]})
        return proofs[0] | {"moved": moved, "stages": proofs}

    def prove_stage(self, stage: int, source: dict[str, str]) -> dict[str, Any]:
        """Compares what is frozen in a stage, as it is saved, with `source`, the digests of what the run began with."""
        freeze = self.program.part_of(stage).spec.freeze
        saved = self.restore_frozen(stage)
        digests = {name: trees.digest(saved[name]) for name in freezing.VALUES}
        moved = freezing.find_moving_statistics(self.program.spec.network, freeze)
        if digests["params"] != source["params"]:
            moved.append("parameters")
        if digests["stats"] != source["stats"] and freeze.statistics == "stored":
            moved.append("statistics")
        pattern = freeze.pattern or "nothing"
        if freeze.stages:
            pattern = f"all but {', '.join(freeze.stages)}"
        return {
            "pattern": pattern,
            "parameters": trees.count(saved["params"]),
            "running_statistics": trees.count(saved["stats"]),
            "digest": digests["params"],
            "source_digest": source["params"],
            "statistics": freeze.statistics,
            "statistics_digest": digests["stats"],
            "source_statistics_digest": source["stats"],
            "moved": moved,
        }

    def describe_adapters(self) -> dict[str, Any] | None:
        """Returns rank and alpha of the adapters, on how many kernels they are, and the numbers that they hold.

        None where there are none.
        """
        spec = self.program.spec
        if spec.freeze.lora is None:
            return None
        factors = freezing.get_factors(spec.network, spec.freeze)
        rank, alpha = self.settings["pretrained.lora"], self.settings["pretrained.lora_alpha"]
        return {
            "rank": rank,
            "alpha": rank if alpha is None else alpha,
            "kernels": len(freezing.get_targets(spec.network, spec.freeze)),
            "parameters": trees.count(factors),
        }

    def make_result(self, state: dict, tested: TestedValues, *, validation: dict, test: dict | None) -> dict[str, Any]:
        """Makes the content of `result.json`, with the seals of the files that it stands on and its own.

        Args:
            state: the state after the last step.
            tested: the values that were evaluated last.
            validation: their metrics on the validation split.
            test: their metrics on the test split, None where there is none.
        """
        best = {name: value for name, value in self.best_evaluation().items() if name not in ("kind", "split")}
        elapsed = self.journal.elapsed()
        result = {
            "test": test,
            "validation": {**validation, "step": tested.step},
            "best": best,
            "tested": {
                "step": tested.step,
                "values": "ema" if tested.is_ema else "trained",
                "with": tested.choice,
            },
            "steps": int(state["step"]),
            "is_finished": True,
            "parameters": trees.count(self.program.step.network.params),
            "trained_parameters": trees.count(self.program.state_template["params"]),
            "frozen": self.prove_frozen(),
            "lora": self.describe_adapters(),
            "macs": plan.count_macs(
                self.settings, classes=len(self.dataset.classes), image_shape=self.dataset.image_shape
            ),
            "fingerprint": self.fingerprint,
            "recipe": self.settings.recipe,
            "words": list(self.settings.words),
            "model": self.settings["model.name"],
            "seed": self.settings["seed"],
            "classes": len(self.dataset.classes),
            "counts": {name: len(split.labels) for name, split in self.dataset.splits.items()},
            "forked_from": forks.read_fork_note(self.workdir),
            "timing": elapsed,
            "sealed": self.seals_now(),
        }
        return seals.seal_result(result)
