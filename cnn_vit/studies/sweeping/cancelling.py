"""Trials of a sweep that somebody calls off: each is over then, without numbers, and the sweep goes on without it.

A whole sweep ends by `scheduler.request_cancel`; nothing is written of its trials, which the same command goes on with.
"""

from collections.abc import Sequence
from pathlib import Path

from cnn_vit import files
from cnn_vit.errors import SurroundingsError, UserError, nearest
from cnn_vit.studies import trials
from cnn_vit.studies.sweeping.claims import read_claimed
from cnn_vit.studies.sweeping.ledger import PlanRow, read_plan
from cnn_vit.studies.sweeping.planner import planned_trial
from cnn_vit.studies.trials import PlannedTrial

REASON = "cancelled; `sweep retry --state=cancelled` does it after all"
HALVED = ", until its rung is decided"  # how the reason goes on where trials are halved
FEWEST_DIGITS = 4  # of an id that is shortened


def cancel_trials(out: Path, ids: Sequence[str]) -> list[PlanRow]:
    """Calls trials off that nobody works on; none where one of them cannot be called off.

    Args:
        out: the folder of the sweep, which may be under way.
        ids: names of trials, or their beginnings.

    Returns:
        The rows of the plan that were called off.

    Raises:
        UserError: the plan has no such trial, or several, or it is over.
        SurroundingsError: a process works on one, or it cannot be written.
    """
    definition = read_claimed(out)
    plan, _ = read_plan(out)
    own_rows = {row.id: row for row in plan.rows if row.alias_of is None}
    reason = REASON if definition.halving is None else REASON + HALVED
    rows = [own_rows[find_id(name, list(own_rows), out)] for name in dict.fromkeys(ids)]
    planned = [planned_trial(definition, out, row) for row in rows]
    for one in planned:
        refuse_uncancellable(one)
    for one in planned:
        with files.Lock(one.folder / trials.LOCK):
            refuse_uncancellable(one, is_locked_here=True)
            if not (one.folder / trials.TRIAL).exists():
                trials.describe_trial(one)
            trials.write_result(one, trials.CANCELLED, reason=reason)
    return rows


def find_id(name: str, ids: Sequence[str], out: Path) -> str:
    """Returns the trial that a name, or the beginning of one, stands for.

    Raises:
        UserError: it stands for none, or for several.
    """
    if name in ids:
        return name
    if len(name) >= FEWEST_DIGITS:
        fitting = [one for one in ids if one.startswith(name)]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise UserError(
                f"{name} is the beginning of {len(fitting)} trials, {fitting[0]} and others; write more of it"
            )
    near = nearest(name, ids)
    remedy = f"did you mean {' or '.join(near)}?" if near else f"`cnn-vit sweep status {out}` and results.csv name them"
    raise UserError(f"{out} has planned no trial {name!r}; {remedy}")


def refuse_uncancellable(planned: PlannedTrial, *, is_locked_here: bool = False) -> None:
    """Raises an error where a trial cannot be called off: it is over, or somebody works on it."""
    out = planned.folder.parents[1]
    if not is_locked_here and files.is_locked(planned.folder / trials.LOCK):
        raise SurroundingsError(
            f"trial {planned.id} is under way; end the sweep with `cnn-vit sweep cancel {out}`, cancel the trial, and "
            f"give `cnn-vit sweep {out}`, which goes on without it"
        )
    if (planned.folder / trials.RESULT).exists():
        state = trials.read_record(planned).state
        raise UserError(f"trial {planned.id} is over ({state}); leave it out")
