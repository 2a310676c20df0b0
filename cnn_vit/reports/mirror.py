"""Copies the metrics of a run to where other programs show them: TensorBoard's event files, or Weights & Biases.

`metrics.jsonl` stays the record. A copy of its lines is made anew each time a user asks for one, of a run that is
finished or under way. The packages of both services are extras.
"""

import importlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from cnn_vit import files
from cnn_vit.errors import SurroundingsError
from cnn_vit.files import cache
from cnn_vit.runs.folder import TENSORBOARD
from cnn_vit.runs.reader import RunRecord

PROJECT = "cnn_vit"  # of Weights & Biases


def journal_scalars(record: RunRecord) -> Iterator[tuple[int, dict[str, float]]]:
    """Yields the step and the numbers of each line, named such as `train/loss` and `validation/accuracy`.

    A number that is not finite stands in the line as null and is left out.
    """
    for line in record.metrics:
        split = "train" if line.get("kind") == "train" else line.get("split", "evaluation")
        numbers = {name: value for name, value in line.items() if isinstance(value, float)}
        if numbers:
            yield line["step"], {f"{split}/{name}": value for name, value in sorted(numbers.items())}


def tensorboard(record: RunRecord) -> str:
    """Writes `RUN/tensorboard` anew and returns the command that shows it.

    Raises:
        SurroundingsError: tensorboardX is not installed, or the folder cannot be written.
    """
    tensorboardx = import_extra("tensorboardX", "tensorboard")
    folder = record.workdir / TENSORBOARD
    files.remove(folder)  # event files of an earlier copy would be shown beside the new ones
    with files.os_errors(folder):
        writer = tensorboardx.SummaryWriter(str(folder))
        for step, numbers in journal_scalars(record):
            for name, value in numbers.items():
                writer.add_scalar(name, value, step)
        writer.close()
    return f"tensorboard --logdir={folder}"


def wandb(record: RunRecord) -> str:
    """Sends metrics and settings to Weights & Biases, and returns their address, or the command that uploads them.

    With CNN_VIT_OFFLINE the copy stays in the run folder until that command.

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
    """Imports a package that an extra of cnn_vit installs; raises SurroundingsError where it is missing."""
    try:
        package: ModuleType = importlib.import_module(module)
    except ImportError as error:
        raise SurroundingsError(f"{module} is not installed; pip install 'cnn_vit[{extra}]'") from error
    return package


SERVICES = {"tensorboard": tensorboard, "wandb": wandb}
