"""One run from its settings to its result: learn, write down, evaluate, save; stop, and go on to the same bits.

Read `train` first, then `learn`: everything else is called from one of the two, in this order. At a step: learn, log,
evaluate, save, retain.
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
    """Trains, or goes on with a run that was stopped; a finished one is only made whole again.

    Args:
        settings: final settings, or a recipe, "configs/digits_resnet.py:smoke".
        workdir: the run folder.
        fork_from: another run folder, from whose newest checkpoint a new run starts.
        command: the words that started it, written down.
        dataset: the data of the settings where they are loaded already, as for the trials of a study.
        progress: shows how far the run is: an object with `update(step, accuracy=None)`, `say(sentence)` and
            `close()`; left out, a bar or lines on stderr.

    Returns:
        What `result.json` holds: test, validation, best, steps, parameters, fingerprint, timing ...

    Raises:
        UserError: settings, data or folder are not what they must be.
        SurroundingsError: the disk, the rights or another run are in the way.
        DivergedError: a loss, gradient or parameter is not finite.
        StoppedError: a signal came; all is saved.
    """
    settings = load(settings) if isinstance(settings, str) else settings
    workdir = Path(workdir)
    plan.check(settings)
    files.ensure_writable(workdir)
    with StopSignals() as stop, files.Lock(workdir / folder.LOCK):
        folder.claim(workdir, settings)
        forks.fork_source(workdir, fork_from)  # refuses what cannot be forked before the data are read
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
            stop.end_training()
            return finish(run, state)


def learn(run: Run, step: int, state: dict, stop: StopSignals) -> dict:
    """Takes a run's state from a step to the last one, and returns it.

    The host runs a few steps ahead of the device and looks at nothing that the device has not finished long before.

    Raises:
        StoppedError: a signal came; the step was finished and saved.
    """
    total, patience = run.times.total, run.settings["early_stop"]
    if run.should_stop_early(patience):
        return state
    batches = run.batches(step, total)
    stop.begin_training()
    with contextlib.closing(batches):
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
            is_finished = is_last or run.should_stop_early(patience)
            is_stopped = stop.requested is not None  # read once: a signal that comes later waits for the next step
            if is_best or is_finished or is_stopped or run.times.checkpoint.fires(step):
                run.save(step, state)
            run.show(step)
            if is_stopped:
                run.checkpoints.wait()
                raise stop.error(step)
            if is_finished:
                break
    return state


def finish(run: Run, state: dict) -> dict[str, Any]:
    """Tests the network, keeps samples and writes the result; makes only what a finished run lacks."""
    run.checkpoints.wait()
    tested = run.values_to_test(state)
    result = reader.finished_result(run.workdir)
    if result:
        samples.save_samples(run.workdir, run.program, tested.values["params"])
        return result
    metrics = evaluate_splits(run, tested)
    samples.save_samples(run.workdir, run.program, tested.values["params"])
    result = run.result(state, tested, validation=metrics["validation"], test=metrics.get("test"))
    files.write_json(run.workdir / folder.RESULT, result)
    return result


def evaluate_splits(run: Run, tested: TestedValues) -> dict[str, dict[str, Any]]:
    """Metrics of the validation split and, where there is one, of the test split; keeps the predictions of both."""
    metrics: dict[str, dict[str, Any]] = {}
    for split in ("validation", "test"):
        if split in run.dataset.splits:
            rows = run.evaluate_split(split, tested.values)
            evaluation.save_predictions(run.workdir, split, rows)
            metrics[split] = evaluation.summarize(rows, len(run.dataset.classes))
    if "test" in metrics:
        accuracy = metrics["test"]["accuracy"]
        evaluation.record_test_read(run.workdir, by="train", step=tested.step, accuracy=accuracy)
    return metrics
