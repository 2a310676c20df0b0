"""Forks: a run that starts from another's newest checkpoint, with that one's journal up to there.

`fork.json` says from where. The fork counts from its checkpoint of that step on; what a kill leaves before is made
anew.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cnn_vit import data, files
from cnn_vit.errors import UserError
from cnn_vit.runs import folder, journal
from cnn_vit.runs.checkpoints import Checkpoints
from cnn_vit.runs.journal import METRICS
from cnn_vit.runs.manifests import DamageError


def read_fork_note(workdir: Path) -> dict[str, Any] | None:
    """Where a run folder was forked from, and at which step; None where it was not."""
    return files.read_json(workdir / folder.FORK) if (workdir / folder.FORK).exists() else None


def fork_source(workdir: Path, fork_from: str | Path | None) -> Path | None:
    """The folder that a run starts from: the one given, else the one noted; None where it starts by itself.

    Raises:
        UserError: it holds no run, is the run itself, or the run has begun in another way already.
    """
    note = read_fork_note(workdir)
    if fork_from is None:
        return Path(note["from"]) if note else None
    there = Path(fork_from).absolute()
    if not (there / folder.CONFIG).is_file():
        raise UserError(f"--fork_from={there} holds no run (no {folder.CONFIG}); name the --workdir of one")
    if there == workdir.absolute():
        raise UserError(f"--fork_from={there} is the run itself; give the new one another --workdir")
    began = f"was forked from {note['from']}" if note else "began without --fork_from"
    if folder.has_begun(workdir) and (note is None or note["from"] != str(there)):
        raise UserError(f"the run in {workdir} {began}; give another --workdir, or the words it began with")
    return there


def take_over(
    workdir: Path,
    there: Path,
    template: dict,
    *,
    ours: Checkpoints,
    dataset: data.Dataset,
    total: int,
    needs_best: bool,
    say: Callable[[str], None],
) -> tuple[int, dict]:
    """Takes over the newest checkpoint, or that of the step noted; the journal up to there; and the best checkpoint.

    Args:
        workdir: the run folder of the fork.
        there: the run folder that it starts from.
        template: shapes and placement of the state.
        ours: the fork's checkpoints.
        dataset: the fork's data. Evaluations on other examples are not taken over.
        total: steps of the fork.
        needs_best: whether the fork cannot do without the best checkpoint.
        say: takes a sentence for the user.

    Returns:
        The step and the state.

    Raises:
        UserError: other classes, another network or optimizer, no checkpoint, or none before the last step.
        SurroundingsError: every checkpoint is damaged, or the best where it is needed.
    """
    folder.refuse_other_classes(there, dataset)
    theirs = Checkpoints(there / folder.CHECKPOINTS, keep=2, crash=workdir / folder.CRASH, say=say, sweep=False)
    try:
        at, state = choose_checkpoint(theirs, template, read_fork_note(workdir))
        if at == 0 or at >= total:
            has = f"is at step {at} of this run's {total}" if at else "has no checkpoint yet"
            raise UserError(f"--fork_from={there} {has}; make duration longer, or name another run")
        lines, text = journal.read_until(there / METRICS, at)
        same = folder.has_same_examples(there, dataset)
        files.write_json(workdir / folder.FORK, {"from": str(there), "step": at})
        files.write(workdir / METRICS, text if same else b"")
        evaluations = journal.evaluation_lines(lines) if same else []
        best = journal.best_evaluation(evaluations)["step"] if evaluations else at
        if best != at:
            copy_checkpoint(theirs, ours, best, template, needed=needs_best, say=say)
    finally:
        theirs.close()
    ours.save(at, state)
    ours.wait()
    return at, state


def choose_checkpoint(theirs: Checkpoints, template: dict, note: dict[str, Any] | None) -> tuple[int, dict]:
    """The checkpoint of the step noted where it is still there, else the newest; (0, {}) where there is none."""
    if note and note["step"] in theirs.steps():
        return note["step"], theirs.restore(note["step"], template)
    return theirs.restore_newest(template) or (0, {})


def copy_checkpoint(
    theirs: Checkpoints, ours: Checkpoints, step: int, template: dict, *, needed: bool, say: Callable[[str], None]
) -> None:
    """Copies a checkpoint; one that is damaged or gone is done without where it is not needed, in a sentence."""
    try:
        ours.save(step, theirs.restore(step, template))
    except DamageError as error:
        if needed:
            raise
        say(f"{error}; it was the best of that run, and is not taken over")
