"""One run from its settings to its result: learn, log, evaluate, save; stop, and resume to the same bits.

Read `train`, then `learn`, then `finish`. Each step is: learn, queue the measures, log, evaluate, save (which also
deletes old checkpoints), show. Logging, evaluating and saving happen only at some steps.

Step s counts the updates done: update k (from 0) runs at step k and makes it k + 1.
"""

import contextlib
from pathlib import Path
from typing import Any

from cnn_vit import data, files, stops
from cnn_vit.runs import description, folder, reader, seals
from cnn_vit.settings import Settings, load
from cnn_vit.training import evaluation, forks, plan, pretrained_settings, samples
from cnn_vit.training.run import Display, Run, TestedValues


def train(
    settings: Settings | str,
    workdir: str | Path,
    *,
    fork_from: str | Path | None = None,
    command: str | None = None,
    dataset: data.Dataset | None = None,
    progress: Display | None = None,
) -> dict[str, Any]:
    """Trains a run, or resumes one that was stopped.

    A finished run is not trained again. Only its samples and its description are written where they are missing; where
    predictions are missing, its network is evaluated again and predictions and result are written anew.

    Args:
        settings: checked settings, or a recipe as text, configs/NAME.py:WORDS ("configs/digits_resnet.py:smoke").
        workdir: the run folder.
        fork_from: another run folder, from whose newest checkpoint a new run starts.
        command: the command line; written to environment.json.
        dataset: the data set, if it is loaded already (a study shares it between trials).
        progress: shows how far the run is: an object with `update(step, accuracy=None)`, `say(sentence)` and
            `close()`; by default a bar or lines on stderr.

    Returns:
        What `result.json` holds: test, validation, best, steps, parameters (their number), fingerprint, timing ...

    Raises:
        UserError: a setting is wrong, the data cannot be used, or the folder belongs to a run with other settings.
        SurroundingsError: the disk is full or damaged, rights are missing, or another process trains in the folder.
        DivergedError: the loss, the gradient or a parameter became infinite or NaN.
        StoppedError: a signal asked the run to stop; all steps done are saved.
    """
    run_settings = load(settings) if isinstance(settings, str) else settings
    workdir = Path(workdir)
    origin = None if fork_from is None else Path(fork_from)
    # weights come before the data, whose size and normalization their card may decide
    run_settings, weights = pretrained_settings.complete_settings(run_settings, workdir=workdir, fork_from=origin)
    plan.check(run_settings)
    source_data = None
    if dataset is None and reader.finished_result(workdir) is None:
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
        result = reader.finished_result(workdir)
        # A finished run without samples, or without a file that describes it, goes on: these need data and network. It
        # then finds its last checkpoint, learns nothing, and `finish` saves the samples.
        if result and samples.are_saved(workdir) and description.is_complete(workdir):
            return result
        description.refuse_other_rules(workdir)  # before the data are read
        if dataset is None:
            dataset = data.load(run_settings.section("data"), source_data)
            source_data = None  # what it holds in memory is not needed while the run trains
        stop.raise_if_requested()
        with Run(run_settings, workdir, dataset, weights=weights, progress=progress) as run:
            weights = None  # the run drops them, too, once its state is made of them
            environment_changes = run.open_folder(command, fork_from)
            step, state = run.restore_or_init(fork_from)
            if step and environment_changes:
                run.say(f"this run goes on where bits may differ from its beginning: {'; '.join(environment_changes)}")
            state = learn(run, step, state, stop)
            # From here on a signal ends the run at the next safe point, as all that was learned is saved. One that came
            # after `learn` last looked ends it on the second of these lines.
            run.checkpoints.wait()
            stop.end_training()
            return finish(run, state)


def learn(run: Run, step: int, state: dict, stop: stops.StopSignals) -> dict:
    """Trains from a step to the end of the run, and returns the last state.

    Logging, evaluating and saving read the current step's measures, so there the host waits for the device. In between
    the host runs ahead of it, by at most STEPS_AHEAD steps (in run.py).

    Args:
        run: the run, its folder opened.
        step: steps done so far.
        state: the state after them.
        stop: the signals that may end the run.

    Raises:
        StoppedError: a signal came; the step that it fell into was finished and saved.
    """
    total, patience = run.times.total, run.settings["early_stop"]
    # A run that stopped early and was then killed while it tested has nothing left to learn when it is resumed.
    if run.should_stop_early(patience):
        return state
    batches = run.batches(step, total)
    with contextlib.closing(batches):  # ends the threads that read ahead
        if step < total:
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
            if is_best or is_finished or is_stopped or ends_stage or run.times.checkpoint.fires(step):
                run.save(step, state)
            run.show(step)
            # Also after the last step, where only the tests and the result are left: the same command makes them later.
            if is_stopped:
                run.checkpoints.wait()
                raise stop.stopped_error(step)
            if is_finished:
                break
    return state


def finish(run: Run, state: dict) -> dict[str, Any]:
    """Evaluates the trained network, saves samples and writes the result, which it returns.

    For a run that has its result already, only the missing samples are saved.
    """
    chosen_values = run.values_to_test(state)
    result = reader.finished_result(run.workdir)
    if result:
        samples.save_samples(run.workdir, run.program, chosen_values.values["params"])
        return result
    metrics = evaluate_splits(run, chosen_values)
    samples.save_samples(run.workdir, run.program, chosen_values.values["params"])
    result = run.make_result(state, chosen_values, validation=metrics["validation"], test=metrics.get("test"))
    files.write_json(run.workdir / folder.RESULT, result)  # last: a run with a result is finished
    return result


def evaluate_splits(run: Run, chosen_values: TestedValues) -> dict[str, dict[str, Any]]:
    """Evaluates the validation split and the test split, if there is one, and saves the predictions of both.

    Returns:
        The metrics of each split by its name, as `evaluation.summarize` gives them.
    """
    metrics: dict[str, dict[str, Any]] = {}
    for split in ("validation", "test"):
        if split in run.dataset.splits:
            per_example = run.evaluate_split(split, chosen_values.values)
            evaluation.save_predictions(run.workdir, split, per_example)
            metrics[split] = evaluation.summarize(per_example, len(run.dataset.classes))
    if "test" in metrics:
        accuracy = metrics["test"]["accuracy"]
        evaluation.record_test_read(run.workdir, by="train", step=chosen_values.step, accuracy=accuracy)
    return metrics
