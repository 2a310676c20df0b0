"""One run from its settings to its result: learn, log, evaluate, save; stop, and resume to the same bits.

Read `train`, then `learn`, then `finish`. Each step is: learn, queue the measures, log, evaluate, save (which also
deletes old checkpoints), show. Logging, evaluating and saving happen only at some steps.

Step s counts the updates done: update k (from 0) runs at step k and makes it k + 1.

A run may be trained in parts, each up to an evaluation (`until`). A part ends as a signal would end it, with a
checkpoint and without a result, so that the parts together write the bits of the whole.
"""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnn_vit import data, files, stops
from cnn_vit.errors import UserError
from cnn_vit.runs import description, folder, pauses, reader, seals
from cnn_vit.settings import Settings, load
from cnn_vit.training import evaluation, forks, plan, pretrained_settings, samples, trained
from cnn_vit.training.run import Display, Run, TestedValues


def train(
    settings: Settings | str,
    workdir: str | Path,
    *,
    fork_from: str | Path | None = None,
    command: str | None = None,
    dataset: data.Dataset | None = None,
    progress: Display | None = None,
    until: int | None = None,
    evaluates_test: bool = True,
) -> dict[str, Any]:
    """Trains a run, or resumes one that was stopped.

    A finished run is not trained again. Only its samples and its description are written where they are missing; where
    predictions are missing, its network is evaluated again and predictions and result are written anew. Where it left
    the test split unread, that is read, and the result written anew with its numbers.

    Args:
        settings: checked settings, or a recipe as text, configs/NAME.py:WORDS ("configs/digits_resnet.py:smoke").
        workdir: the run folder.
        fork_from: another run folder, from whose newest checkpoint a new run starts.
        command: the command line; written to environment.json.
        dataset: the data set, if it is loaded already (a study shares it between trials).
        progress: shows how far the run is: an object with `update(step, accuracy=None)`, `say(sentence)` and
            `close()`; by default a bar or lines on stderr.
        until: a step, from 1 on. The run is trained to the first step at or after it at which the validation split is
            evaluated, and is saved there, not finished: no split is tested, and no result is written. Called again, it
            goes on from there. Nothing but the time shows afterwards that it was trained in parts: every part follows
            the schedule of the whole run. None: to the end.
        evaluates_test: whether a run that finishes evaluates the test split, if there is one. Else it stays unread, and
            result["test"] is None unless an earlier call has read it.

    Returns:
        What `result.json` holds: test, validation, best, steps, parameters (their number), fingerprint, timing ... and
        `is_finished`, True. With `until` before the step that the run ends at: steps, validation and best of the
        evaluation at or after it, timing, and `is_finished`, False; the same of a run that has gone on since then.

    Raises:
        UserError: a setting is wrong, the data cannot be used, or the folder belongs to a run with other settings.
        SurroundingsError: the disk is full or damaged, rights are missing, or another process trains in the folder.
        DivergedError: the loss, the gradient or a parameter became infinite or NaN.
        StoppedError: a signal asked the run to stop; all steps done are saved.
    """
    if until is not None and until < 1:
        raise UserError(f"until={until} trains nothing; give a step from 1 on, or leave it out to train to the end")
    run_settings = load(settings) if isinstance(settings, str) else settings
    workdir = Path(workdir)
    origin = None if fork_from is None else Path(fork_from)
    # weights come before the data, whose size and normalization their card may decide
    run_settings, weights = pretrained_settings.complete_settings(run_settings, workdir=workdir, fork_from=origin)
    plan.check(run_settings)
    splits = reader.SPLITS if evaluates_test else ("validation",)  # that are evaluated
    source_data = None
    if dataset is None and reader.finished_result(workdir, splits=splits) is None:
        # Listing and classes are checked before anything is written; the images are decoded behind the lock.
        source_data = data.read_source(run_settings.section("data"))
        if source_data.folders is not None:
            folder.refuse_image_folder(workdir, source_data.folders)
    stops.raise_if_requested()  # nothing is written yet
    with stops.handle_signals() as stop, stop.saying(stops.STOPPED_BEFORE), folder.locked(workdir):
        seals.refuse_changed(workdir)  # before anything in the folder is believed
        folder.claim(workdir, run_settings)
        # Its answer is not used here. It refuses a wrong `fork_from` before the data are read, which may take long;
        # `restore_or_init` below asks again and takes over the checkpoint.
        forks.find_origin(workdir, fork_from)
        files.remove_temporary(workdir)
        result = reader.finished_result(workdir, splits=splits)
        if result and until is not None:
            pause = pauses.read_pause(workdir, until, before=result["steps"])
            if pause:
                return pause
        # A finished run without samples, or without a file that describes it, goes on: these need data and network. It
        # then finds its last checkpoint, learns nothing, and `finish` saves the samples.
        needs_only_test = False
        if result and samples.are_saved(workdir) and description.is_complete(workdir):
            needs_only_test = evaluates_test and reader.has_unread_test(result)
            if not needs_only_test:
                return {**result, "is_finished": True}  # results of an earlier version do not say so
        description.refuse_other_rules(workdir)  # before the data are read
        if dataset is None:
            dataset = data.load(run_settings.section("data"), source_data)
            source_data = None  # what it holds in memory is not needed while the run trains
        stop.raise_if_requested()
        with Run(run_settings, workdir, dataset, weights=weights, progress=progress) as run:
            weights = None  # the run drops them, too, once its state is made of them
            environment_changes = run.open_folder(command, fork_from)
            if result and needs_only_test:
                return read_test(run, result)
            step, state = run.restore_or_init(fork_from)
            if step and environment_changes:
                run.say(f"this run goes on where bits may differ from its beginning: {'; '.join(environment_changes)}")
            state = learn(run, step, state, stop, until)
            run.checkpoints.wait()
            if until is not None:
                pause = find_pause(run, int(state["step"]), until)
                if pause:
                    return pause
            # From here on a signal ends the run at the next safe point, as all that was learned is saved. One that came
            # after `learn` last looked ends it on the next line.
            stop.end_training()
            return finish(run, state, splits)


def learn(run: Run, step: int, state: dict, stop: stops.StopSignals, until: int | None = None) -> dict:
    """Trains from a step to the end of the run or to an evaluation, and returns the last state.

    Logging, evaluating and saving read the current step's measures, so there the host waits for the device. In between
    the host runs ahead of it, by at most STEPS_AHEAD steps (in run.py).

    Args:
        run: the run, its folder opened.
        step: steps done so far.
        state: the state after them.
        stop: the signals that may end the run.
        until: the step at or after which an evaluation is to be made; None for all of the run.

    Raises:
        StoppedError: a signal came; the step that it fell into was finished and saved.
    """
    total, patience = run.times.total, run.settings["early_stop"]
    goal = run.find_goal(step, until)
    # A run that stopped early and was then killed while it tested has nothing left to learn when it is resumed.
    if run.should_stop_early(patience):
        return state
    batches = run.batches(step, goal)
    with contextlib.closing(batches):  # ends the threads that read ahead
        if step < goal:
            state = run.enter_stages(step, state)
            run.compile_step()
        stop.begin_training()
        for batch in batches:
            if run.program.begins_stage(step):
                state = run.enter_stages(step, state)
                run.compile_step()
            state, measures = run.learn(state, batch)
            step += 1
            is_last = step == total
            run.queue_measures(step, measures)
            if is_last or run.times.log.fires(step):
                run.log(step)
            is_best = False
            if is_last or run.times.evaluate.fires(step):
                is_best = run.evaluate(step, state)
            is_finished = is_last or run.should_stop_early(patience)  # after the evaluation, which decides it
            is_stopped = stop.requested is not None  # read once, so that a later signal waits for the next step
            ends_stage = run.program.begins_stage(step)  # saved, in case the next stage cannot begin
            is_paused = step == goal and not is_finished
            if is_paused:
                run.journal.write_timing(step, **run.journal.elapsed())  # from which the next part counts on
            if is_best or is_finished or is_stopped or is_paused or ends_stage or run.times.checkpoint.fires(step):
                run.save(step, state)
            run.show(step)
            # Also after the last step, where only the tests and the result are left: the same command makes them later.
            if is_stopped:
                run.checkpoints.wait()
                raise stop.stopped_error(step)
            if is_finished:
                break
    return state


def find_pause(run: Run, step: int, until: int) -> dict[str, Any] | None:
    """Returns what a run that was trained up to an evaluation answers; None where the run ends there or before.

    Args:
        run: the run, whose saves are done.
        step: steps done so far.
        until: the step at or after which the evaluation is.
    """
    run.journal.flush()  # it is read below
    # an evaluation at the step of the end is answered by the result
    pause = pauses.read_pause(run.workdir, until, before=step if run.has_ended(step) else step + 1)
    if pause:
        run.say(f"paused at step {step} of {run.times.total}; the run goes on from there when it is called again")
    return pause


def finish(run: Run, state: dict, splits: Sequence[str]) -> dict[str, Any]:
    """Evaluates the trained network, saves samples and writes the result, which it returns.

    For a run that has its result already, only the missing samples are saved, and a test split is read that it left
    unread.

    Args:
        run: the run.
        state: the state after the last step.
        splits: those that are evaluated, where the data have them.
    """
    chosen_values = run.values_to_test(state)
    result = reader.finished_result(run.workdir, splits=splits)
    if result:
        samples.save_samples(run.workdir, run.program, chosen_values.values["params"])
        if "test" in splits and reader.has_unread_test(result):
            return read_test(run, result)
        return result
    metrics = evaluate_splits(run, chosen_values, splits)
    path = run.workdir / folder.RESULT
    if "test" not in splits and path.exists():
        metrics["test"] = reader.read_result(path)["test"]  # of an earlier call, which has read it
    samples.save_samples(run.workdir, run.program, chosen_values.values["params"])
    result = run.make_result(state, chosen_values, validation=metrics["validation"], test=metrics.get("test"))
    files.write_json(path, result)  # last: a run with a result is finished
    return result


def evaluate_splits(run: Run, chosen_values: TestedValues, splits: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Evaluates those of these splits that the data have, and saves their predictions.

    Returns:
        The metrics of each split by its name, as `evaluation.summarize` gives them.
    """
    metrics: dict[str, dict[str, Any]] = {}
    for split in splits:
        if split in run.dataset.splits:
            per_example = run.evaluate_split(split, chosen_values.values)
            evaluation.save_predictions(run.workdir, split, per_example)
            metrics[split] = evaluation.summarize(per_example, len(run.dataset.classes))
    if "test" in metrics:
        accuracy = metrics["test"]["accuracy"]
        evaluation.record_test_read(run.workdir, by="train", step=chosen_values.step, accuracy=accuracy)
    return metrics


def read_test(run: Run, result: Mapping[str, Any]) -> dict[str, Any]:
    """Evaluates the test split of a run that has finished without it; writes the result anew, which it returns.

    The values are those of the checkpoint that was evaluated on validation, which may be the only one left.
    """
    run.say("this run has finished without reading the test split, which is read now")
    network = trained.load_run(run.workdir)
    chosen_values = TestedValues(
        step=result["tested"]["step"],
        values=network.values,
        is_ema=result["tested"]["values"] == "ema",
        choice=result["tested"]["with"],
    )
    metrics = evaluate_splits(run, chosen_values, ("test",))
    unsealed = {name: value for name, value in result.items() if name != "seal"}
    with_test = seals.seal_result({**unsealed, "test": metrics["test"]})
    files.write_json(run.workdir / folder.RESULT, with_test)
    return with_test
