"""Copies a sweep to where other programs show it: TensorBoard's HParams, or Weights & Biases. Both are extras.

Each run of a trial becomes one of theirs, with its values, its seed, its curve and its last metric. A trial that is the
same run as another is left out, and so is one that has neither numbers nor a curve.
"""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cnn_vit import files, stops
from cnn_vit.files import cache
from cnn_vit.reports.mirror import PROJECT, import_extra
from cnn_vit.reports.sweep_facts import SEED, SweepFacts, SweepTrial, value_text

FINAL = "final"  # in front of the metric that a trial ended with, which has no curve of its own


def to_tensorboard(facts: SweepFacts, folder: Path) -> str:
    """Writes a run for each trial into a folder, anew where it is there, and returns the command that shows them.

    What else lies in the folder stays.

    Raises:
        SurroundingsError: tensorboardX is not installed, or the folder cannot be written.
    """
    tensorboardx = import_extra("tensorboardX", "tensorboard")
    for trial in shown_trials(facts):
        stops.raise_if_requested()
        run_folder = folder / run_name(trial)
        files.remove(run_folder)  # event files of an earlier copy would be shown beside the new ones
        with files.os_errors(run_folder):
            writer = tensorboardx.SummaryWriter(str(run_folder))
            final_name = f"{FINAL}/{facts.metric}"
            # Not `writer.add_hparams`: it begins a second file of events, and TensorBoard reads one of a run
            for summary in tensorboardx.summary.hparams(plain_values(trial), {final_name: trial.metric}):
                writer.file_writer.add_summary(summary)
            for step, metric in trial.curve:
                writer.add_scalar(facts.metric, metric, step)
            if trial.metric is not None:
                writer.add_scalar(final_name, trial.metric, trial.steps)
            writer.close()
    return f"tensorboard --logdir={folder}"


def to_wandb(facts: SweepFacts, project: str = PROJECT) -> str:
    """Sends a run for each trial to Weights & Biases, and returns their address, or the command that uploads them.

    With CNN_VIT_OFFLINE, or wandb's own WANDB_MODE=offline, the copies stay in the folder of the sweep until that
    command.

    Args:
        facts: the sweep.
        project: of Weights & Biases that the runs go to, as a group that has the name of the sweep.

    Raises:
        SurroundingsError: wandb is not installed.
    """
    library = import_extra("wandb", "wandb")
    address = None
    for trial in shown_trials(facts):
        stops.raise_if_requested()
        run = library.init(
            project=project,
            group=facts.name,
            name=run_name(trial),
            tags=[trial.state],
            dir=str(facts.out),
            config=plain_values(trial),
            mode="offline" if cache.current_places().offline else None,
        )
        for step, metric in trial.curve:
            run.log({facts.metric: metric}, step=step)
        if trial.metric is not None:
            run.summary[f"{FINAL}/{facts.metric}"] = float(trial.metric)
        address = run.url
        run.finish()
    return str(address or f"wandb sync {shlex.quote(str(facts.out))}/wandb/offline-run-*")


def shown_trials(facts: SweepFacts) -> Iterator[SweepTrial]:
    """Yields the trials that have something to show, each run once."""
    for trial in facts.trials:
        if trial.alias_of is None and (trial.metric is not None or trial.curve):
            yield trial


def run_name(trial: SweepTrial) -> str:
    """Returns the name of a trial's run, "suggestion0017-seed0"."""
    return f"suggestion{trial.suggestion:04}-seed{trial.seed}"


def plain_values(trial: SweepTrial) -> dict[str, Any]:
    """Returns the values of a trial and its seed as both services take them: numbers, truths and texts."""
    values: dict[str, Any] = {SEED: trial.seed}
    for key, value in trial.values.items():
        values[key] = value if isinstance(value, bool | int | float | str) else value_text(value)
    return values


SERVICES = {"tensorboard": to_tensorboard, "wandb": to_wandb}
