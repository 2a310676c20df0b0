"""One run from its settings to its result: learn, write down, evaluate, save; stop and go on to the same bits.

Read `train` first, then `learn`: everything else is called from one of the two, in this order. At a step: learn, log,
evaluate, save, retain.
"""

import contextlib
from pathlib import Path
from typing import Any

from cnn_vit import data, files
from cnn_vit.data.feed import stream
from cnn_vit.runs import folder
from cnn_vit.settings import Settings, load
from cnn_vit.training import devices, evaluation, forks, plan, samples
from cnn_vit.training.run import Run, TestedValues
from cnn_vit.training.stops import StopSignals


def train(
    settings: Settings | str,
    workdir: str | Path,
    *,
    fork_from: str | Path | None = None,
    command: str | None = None,
) -> dict[str, Any]:
    """Trains, or goes on with a run that was stopped; a finished one is only made whole again.

    Args:
        settings: final settings, or a recipe, "configs/digits_resnet.py:smoke".
        workdir: the run folder.
        fork_from: another run folder, from whose newest checkpoint a new run starts.
        command: the words that started it, written down.

    Returns:
        What `result.json` holds: test, validation, best, steps, parameters, fingerprint, timing ...

    Raises:
        UserError: settings, data or folder are not what they must be.
        SurroundingsError: the disk, the rights or another run are in the way.
        DivergedError: a loss, gradient or parameter is not finite.
        StoppedError: a signal came; all is saved.
    """
    final = load(settings) if isinstance(settings, str) else settings
    workdir = Path(workdir)
    plan.check(final)
    files.ensure_writable(workdir)
    with StopSignals() as stop, files.Lock(workdir / folder.LOCK):
        folder.claim(workdir, final)
        forks.fork_source(workdir, fork_from)
        files.remove_temporary(workdir)
        if (found := folder.finished_result(workdir)) and samples.are_saved(workdir):
            return found
        dataset = data.load(final.section("data"))
        with Run(final, workdir, dataset) as run:
            crossed = folder.record_environment(workdir, command)
            at, state = run.restore_or_init(fork_from)
            if at and crossed:
                run.say(f"this run goes on where bits may differ from its beginning: {'; '.join(crossed)}")
            state = learn(run, at, state, stop)
            stop.end_training()
            return finish(run, state)


def learn(run: Run, at: int, state: dict, stop: StopSignals) -> dict:
    """Takes the state from step `at` to the last one; returns it.

    The host runs a few steps ahead of the device and looks at nothing that the device has not finished long before.
    """
    total, stop_early = run.times.total, run.settings["early_stop"]
    if run.should_stop_early(stop_early):
        return state
    batches = stream.batches(
        run.dataset.splits["train"],
        batch_size=run.settings["data.batch_size"],
        seed=run.settings["seed"],
        first=at,
        last=total,
        workers=run.settings["data.workers"],
        prefetch=run.settings["data.prefetch"],
        place=lambda batch: devices.place_batch(batch, run.mesh),
    )
    stop.begin_training()
    with contextlib.closing(batches):
        for done, batch in enumerate(batches, at + 1):
            state, measures = run.step.learn(state, run.frozen, batch, run.hyperparameters)
            run.queue_measures(done, measures)
            if run.times.log.fires(done) or done == total:
                run.log(done)
            best = (run.times.evaluate.fires(done) or done == total) and run.evaluate(done, state)
            enough = done == total or run.should_stop_early(stop_early)
            asked = stop.requested  # once: a signal that comes later waits for the next step
            if best or enough or asked or run.times.checkpoint.fires(done):
                run.save(done, state)
            run.progress.update(done)
            if asked:
                run.checkpoints.wait()
                raise stop.error(done)
            if enough:
                break
    return state


def finish(run: Run, state: dict) -> dict[str, Any]:
    """Tests the network, keeps what there is to look at and writes the result; makes only what a finished run lacks."""
    run.checkpoints.wait()
    tested = run.values_to_test(state)
    if before := folder.finished_result(run.workdir):
        samples.save_samples(run, tested)
        return before
    found = evaluate_splits(run, tested)
    samples.save_samples(run, tested)
    result = run.result(state, tested, validation=found["validation"], test=found.get("test"))
    files.write_json(run.workdir / folder.RESULT, result)
    return result


def evaluate_splits(run: Run, tested: TestedValues) -> dict[str, dict[str, Any]]:
    """Metrics of validation and, where there is one, of the test split; keeps the predictions of both."""
    found: dict[str, dict[str, Any]] = {}
    for split in ("validation", "test"):
        if split in run.dataset.splits:
            rows = run.evaluate_split(split, tested.values)
            evaluation.save_predictions(run.workdir, split, rows)
            found[split] = evaluation.summarize(rows, len(run.dataset.classes))
    if "test" in found:
        evaluation.record_test_read(run.workdir, by="train", step=tested.step, accuracy=found["test"]["accuracy"])
    return found
