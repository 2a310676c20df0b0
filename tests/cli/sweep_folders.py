"""Folders of sweeps made up for the tests of their command: every number is chosen, and no run is behind them."""

from pathlib import Path

from cnn_vit import files
from cnn_vit.settings import load as load_settings
from cnn_vit.studies import trials
from cnn_vit.studies.sweeping import claims
from cnn_vit.studies.sweeping import definition as definitions
from cnn_vit.studies.sweeping.ledger import Ledger, PlanRow
from cnn_vit.studies.sweeping.planner import make_trial, planned_trial

RATE, DECAY = "optimizer.learning_rate", "optimizer.weight_decay"
STEPS, SECONDS = 20, 30.0  # of each trial
DATA = "f" * 64  # the fingerprint of its data


def define(count, **changes):
    """The definition of a sweep of so many random points of two settings."""
    table = {
        "config": "configs/digits_mlp.py:smoke",
        "sampler": "random",
        "trials": count,
        "space": {RATE: {"log": [1e-4, 1e-1]}, DECAY: {"uniform": [0, 0.1]}},
    }
    return definitions.make_definition(table | changes, name="made_up", where="test")


def write_sweep(out, ends, *, planned=None, has_real_ids=False, **changes):
    """Writes the folder of a sweep: of each trial its validation accuracy, or the state that it is in.

    Args:
        out: the folder.
        ends: for each planned trial a number, or a state; "queued" has no folder, "interrupted" was begun.
        planned: trials that there will be; as many as there are ends.
        has_real_ids: whether the trials have the names that their settings give them, so that a sweep goes on there.
        **changes: keys of its definition.

    Returns:
        The definition.
    """
    definition = define(planned or len(ends), **changes)
    claims.claim_sweep(out, definition)
    rows = []
    for number in range(len(ends)):
        values = {RATE: round(1e-3 * (number + 1), 6), DECAY: 0.01}
        trial_id = f"{number:04x}{'ab' * 6}"
        if has_real_ids:
            trial_id = find_id(definition, values)
        rows.append(
            PlanRow(
                row=number,
                suggestion=number,
                seed=0,
                values=values,
                id=trial_id,
                alias_of=None,
                steps=STEPS,
                rungs=(),
                data_fingerprint=DATA,
                error="",
            )
        )
    Ledger(out).append(rows)
    for row, end in zip(rows, ends, strict=True):
        write_trial(planned_trial(definition, out, row), end)
    return definition


def find_id(definition, values):
    """The name of the trial of a point."""
    trial = make_trial(definition, values, 0)
    settings = load_settings(trial.config, [*trial.overrides, "seed=0"])
    return trials.place(trials.deciding_words(trial, settings, DATA), Path())[0]


def write_trial(planned, end):
    """Writes how a trial ended."""
    if end == trials.QUEUED:
        return
    files.make_folders(planned.folder)
    trials.describe_trial(planned)
    if end == trials.INTERRUPTED:
        trials.note_start(planned)
        return
    if isinstance(end, str):
        trials.write_result(planned, end, reason="step 7 is not finite")
        return
    numbers = {"accuracy": end, "loss": 1 - end, "n": 360, "step": STEPS}
    timing = {"seconds": SECONDS, "cpu_seconds": 2 * SECONDS}
    result = {"validation": numbers, "best": numbers, "steps": STEPS, "timing": timing}
    trials.write_result(planned, trials.COMPLETE, result=result)
