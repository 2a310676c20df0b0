"""Copies the trials of a sweep to where other programs compare them: TensorBoard's HParams, or a table of W&B.

The files of the sweep stay the record. A copy is made anew each time a user asks for one, of a sweep that is finished
or under way. Trials without numbers are left out of TensorBoard, whose table cannot show them. Curves of single trials
are copied by `cnn-vit report RUN --to=`. The packages are extras.
"""

import json
import shlex
from typing import Any

from cnn_vit import files
from cnn_vit.files import cache
from cnn_vit.reports.mirror import PROJECT, import_extra
from cnn_vit.reports.sweep_facts import SweepFacts, SweepTrial
from cnn_vit.runs.folder import TENSORBOARD

WANDB = "wandb"  # the folder that W&B writes into


def tensorboard(facts: SweepFacts) -> str:
    """Writes `OUT/tensorboard` anew, a row of HParams for each trial with numbers; returns the command that shows it.

    Raises:
        SurroundingsError: tensorboardX is not installed, or the folder cannot be written.
    """
    tensorboardx = import_extra("tensorboardX", "tensorboard")
    folder = facts.out / TENSORBOARD
    files.remove(folder)  # event files of an earlier copy would be shown beside the new ones
    with files.os_errors(folder):
        writer = tensorboardx.SummaryWriter(str(folder))
        for trial in facts.trials:
            if trial.metric is not None and trial.alias_of is None:
                metrics = {facts.metric: trial.metric}
                writer.add_hparams(plain_values(trial), metrics, name=trial.id, global_step=trial.steps)
        writer.close()
    return f"tensorboard --logdir={shlex.quote(str(folder))}"


def wandb(facts: SweepFacts) -> str:
    """Sends a table of all trials to Weights & Biases, and returns its address, or the command that uploads it.

    With CNN_VIT_OFFLINE the copy stays in the folder of the sweep until that command.

    Raises:
        SurroundingsError: wandb is not installed.
    """
    library = import_extra("wandb", "wandb")
    run = library.init(
        project=PROJECT,
        name=facts.name,
        dir=str(facts.out),
        config=dict(facts.definition),
        mode="offline" if cache.current_places().offline else None,
    )
    columns = ["suggestion", "seed", "id", "state", facts.metric, "steps", *facts.keys]
    rows: list[list[Any]] = []
    for trial in facts.trials:
        values = plain_values(trial)
        cells = [values.get(key) for key in facts.keys]
        rows.append([trial.suggestion, trial.seed, trial.id, trial.state, trial.metric, trial.steps, *cells])
    run.log({"trials": library.Table(columns=columns, data=rows, allow_mixed_types=True)})
    address = run.url or f"wandb sync {shlex.quote(str(facts.out / WANDB / 'latest-run'))}"
    run.finish()
    return str(address)


def plain_values(trial: SweepTrial) -> dict[str, Any]:
    """Returns the values of a trial and its seed, as numbers, truth values and texts, which tables of others take."""
    plain: dict[str, Any] = {}
    for key, value in trial.values.items():
        plain[key] = value if isinstance(value, bool | int | float | str) else json.dumps(value)
    return {**plain, "seed": trial.seed}


SERVICES = {"tensorboard": tensorboard, "wandb": wandb}
