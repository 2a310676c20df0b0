"""What a trial does: its task, from settings and data to the numbers of its result.json."""

import contextlib
from collections.abc import Mapping
from typing import Any

from cnn_vit import data
from cnn_vit.errors import DivergedError, SurroundingsError, UserError, is_out_of_memory
from cnn_vit.runs import folder
from cnn_vit.runs.checkpoints import Checkpoints
from cnn_vit.studies import trials
from cnn_vit.studies.trials import PlannedTrial
from cnn_vit.training import loop
from cnn_vit.training.run import Display


def do_task(planned: PlannedTrial, dataset: data.Dataset, display: Display) -> Mapping[str, Any]:
    """Does what a trial is for, and returns its numbers.

    Args:
        planned: a trial that has settings.
        dataset: its data.
        display: shows how far it is.
    """
    if planned.settings is None:
        raise UserError(planned.error)
    return loop.train(planned.settings, planned.folder / trials.RUN, dataset=dataset, progress=display)


def state_of_error(error: Exception) -> str | None:
    """Returns the state of a trial that an error ended; None where the surroundings are to blame, not the trial."""
    if is_out_of_memory(error):
        return trials.OUT_OF_MEMORY
    if isinstance(error, DivergedError):
        return trials.DIVERGED
    if isinstance(error, SurroundingsError):
        return None
    return trials.BAD_CONFIG if isinstance(error, UserError) else trials.CRASHED


def reason_of_error(error: Exception) -> str:
    """Returns why a trial has failed, a sentence."""
    if isinstance(error, UserError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def drop_checkpoints(planned: PlannedTrial, result: Mapping[str, Any], *, keep: str) -> None:
    """Deletes the checkpoints of a finished run that nothing needs any more, so that many trials do not fill a disk.

    Args:
        planned: the trial.
        result: of the run.
        keep: "all", or "best": the best checkpoint stays, and the one that was tested, which `predict` reads.
    """
    if planned.trial.task != "train" or keep == "all":
        return
    workdir = planned.folder / trials.RUN
    checkpoints = Checkpoints(workdir / folder.CHECKPOINTS, keep_checkpoints=1, crash=workdir / folder.CRASH)
    with contextlib.closing(checkpoints):
        checkpoints.keep_only({result["best"]["step"], result["tested"]["step"]})
