"""The journal of a run, copied to where other programs show it: TensorBoard's event files, or Weights & Biases.

`metrics.jsonl` stays the record; what is here is a copy of its lines, made anew each time it is asked for, of a run
that is finished or under way. The packages are extras.
"""

import importlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from cnn_vit import files
from cnn_vit.errors import SurroundingsError
from cnn_vit.files import cache
from cnn_vit.runs.reader import RunRecord

FOLDER = "tensorboard"  # in the run folder
PROJECT = "cnn_vit"


def journal_scalars(record: RunRecord) -> Iterator[tuple[int, dict[str, float]]]:
    """Step and numbers of each line, named `train/loss`, `validation/accuracy`; what is not finite is left out."""
    for line in record.metrics:
        part = "train" if line.get("kind") == "train" else line.get("split", "evaluation")
        numbers = {name: value for name, value in line.items() if isinstance(value, float)}
        if numbers:
            yield line["step"], {f"{part}/{name}": value for name, value in sorted(numbers.items())}


def tensorboard(record: RunRecord) -> str:
    """Writes `RUN/tensorboard` anew; returns the command that shows it.

    Raises:
        SurroundingsError: tensorboardX is not installed, or the folder cannot be written.
    """
    library = import_extra("tensorboardX", "tensorboard")
    folder = record.workdir / FOLDER
    files.remove(folder)
    with files.os_errors(folder):
        writer = library.SummaryWriter(str(folder))
        for step, numbers in journal_scalars(record):
            for name, value in numbers.items():
                writer.add_scalar(name, value, step)
        writer.close()
    return f"tensorboard --logdir={folder}"


def wandb(record: RunRecord) -> str:
    """Sends the journal and the settings to Weights & Biases, offline where CNN_VIT_OFFLINE says so; returns where to.

    Raises:
        SurroundingsError: wandb is not installed.
    """
    library = import_extra("wandb", "wandb")
    run = library.init(
        project=PROJECT,
        name=record.workdir.absolute().name,
        dir=str(record.workdir),
        config=dict(record.settings.values),
        mode="offline" if cache.current_places().offline else None,
    )
    for step, numbers in journal_scalars(record):
        run.log(numbers, step=step)
    address = run.url or f"wandb sync {record.workdir}/wandb/latest-run"
    run.finish()
    return str(address)


def import_extra(module: str, extra: str) -> Any:
    """An extra's package."""
    try:
        found: ModuleType = importlib.import_module(module)
    except ImportError as error:
        raise SurroundingsError(f"{module} is not installed; pip install 'cnn_vit[{extra}]'") from error
    return found


SERVICES = {"tensorboard": tensorboard, "wandb": wandb}
