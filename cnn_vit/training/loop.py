"""One run from its settings to its result: learn, log, evaluate, save; stop, and resume to the same bits.

Read `train` first, then `learn` and `finish`, which it calls. At a step a run learns, logs, evaluates and saves, in
this order.
"""

import contextlib
from pathlib import Path
from typing import Any

from cnn_vit import data, files
from cnn_vit.runs import folder, reader
from cnn_vit.settings import Settings, load
from cnn_vit.training import evaluation, forks, plan, samples
from cnn_vit.training.run import Display, Run, TestedValues
from cnn_vit.training.stops import StopSignals


def train(
    settings: Settings | str,
    workdir: str | Path,
    *,
    fork_from: str | Path | None = None,
    command: str | None = None,
    dataset: data.Dataset | None = None,
    progress: Display | None = None,
) -> dict[str, Any]:
    """Trains a run, or resumes one that was stopped. For a finished run it only makes what its folder lacks.

    Args:
        settings: final settings, or a recipe, such as "configs/digits_resnet.py:smoke".
        workdir: the run folder.
        fork_from: another run folder, from whose newest checkpoint a new run starts.
        command: the command line that started the run, to be written down in its folder.
        dataset: the data of the settings where they are loaded already, as for the trials of a study.
        progress: shows how far the run is: an object with `update(step, accuracy=None)`, `say(sentence)` and
            `close()`; by default a bar or lines on stderr.

    Returns:
        What `result.json` holds: test, validation, best, steps, parameters, fingerprint, timing ...

    Raises:
        UserError: settings, data or folder are not what they must be.
        SurroundingsError: the disk, missing rights or another run prevent it.
        DivergedError: a loss, gradient or parameter is not finite.
        StoppedError: a signal asked for the end; what was learned is saved.
    """
    settings = load(settings) if isinstance(settings, str) else settings
    workdir = Path(workdir)
    plan.check(settings)
    files.ensure_writable(workdir)
    with StopSignals() as stop, files.Lock(workdir / folder.LOCK):
        folder.claim(workdir, settings)
        forks.find_origin(workdir, fork_from)  # only for its errors, before the data are read
        files.remove_temporary(workdir)
        result = reader.finished_result(workdir)
        if result and samples.are_saved(workdir):
            return result
        if dataset is None:
            dataset = data.load(settings.section("data"))
        with Run(settings, workdir, dataset, progress=progress) as run:
            changes = run.open_folder(command)
            step, state = run.restore_or_init(fork_from)
            if step and changes:
                run.say(f"this run goes on where bits may differ from its beginning: {'; '.join(changes)}")
            state = learn(run, step, state, stop)
            stop.end_training()  # ends the run here if a signal came too late for `learn` to see it
            return finish(run, state)


def learn(run: Run, step: int, state: dict, stop: StopSignals) -> dict:
    """Trains from a step to the end of the run, and returns the last state.

    The host runs a few steps ahead of the device: between logging, evaluating and saving it reads nothing that the
    device has not finished long before.

    Args:
        run: the run, its folder opened.
        step: steps done so far.
        state: the state after them.
        stop: the signals that may end the run.

    Raises:
        StoppedError: a signal came; its step was finished and saved.
    """
    total, patience = run.times.total, run.settings["early_stop"]
    if run.should_stop_early(patience):
        return state
    batches = run.batches(step, total)
    stop.begin_training()
    with contextlib.closing(batches):  # ends the threads that read ahead
        for batch in batches:
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
            if is_best or is_finished or is_stopped or run.times.checkpoint.fires(step):
                run.save(step, state)
            run.show(step)
            if is_stopped:
                run.checkpoints.wait()
                raise stop.stopped_error(step)
            if is_finished:
                break
    return state


def finish(run: Run, state: dict) -> dict[str, Any]:
    """Evaluates the trained network, saves samples and writes the result, which it returns.

    Of a run that has its result already, it only saves the missing samples.
    """
    run.checkpoints.wait()
    tested = run.values_to_test(state)
    result = reader.finished_result(run.workdir)
    if result:
        samples.save_samples(run.workdir, run.program, tested.values["params"])
        return result
    metrics = evaluate_splits(run, tested)
    samples.save_samples(run.workdir, run.program, tested.values["params"])
    result = run.make_result(state, tested, validation=metrics["validation"], test=metrics.get("test"))
    files.write_json(run.workdir / folder.RESULT, result)  # last: a run with a result is finished
    return result


def evaluate_splits(run: Run, tested: TestedValues) -> dict[str, dict[str, Any]]:
    """Evaluates the validation split and the test split, if there is one, and saves the predictions of both.

    Returns:
        The metrics of each split by its name, as `evaluation.summarize` gives them.
    """
    metrics: dict[str, dict[str, Any]] = {}
    for split in ("validation", "test"):
        if split in run.dataset.splits:
            per_example = run.evaluate_split(split, tested.values)
            evaluation.save_predictions(run.workdir, split, per_example)
            metrics[split] = evaluation.summarize(per_example, len(run.dataset.classes))
    if "test" in metrics:
        accuracy = metrics["test"]["accuracy"]
        evaluation.record_test_read(run.workdir, by="train", step=tested.step, accuracy=accuracy)
    return metrics
