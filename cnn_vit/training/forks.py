"""Forks: runs that start from the newest checkpoint of another run, the origin, with its journal up to that step.

`fork.json` says from which run and step. A fork has begun once it has saved that step as a checkpoint of its own;
whatever a kill leaves behind before then is made anew.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnn_vit import data, files
from cnn_vit.errors import UserError
from cnn_vit.runs import description, folder, journal, reader, seals
from cnn_vit.runs.checkpoints import Checkpoints
from cnn_vit.runs.manifests import DamageError
from cnn_vit.settings import Settings
from cnn_vit.training import adapting, plan

SAME_IN_FORKS = ("pretrained.lora", "pretrained.lora_on", "pretrained.stages")  # what a state means beside its shapes


@dataclass(frozen=True)
class Fork:
    """A fork that is to be made.

    Attributes:
        workdir: the run folder of the fork.
        origin: the run folder that it starts from.
        dataset: the fork's data. Evaluations on other examples are not taken over.
        total: steps of the fork.
        stage_ends: the step at which each stage of the fork but the last ends.
        needs_best: whether the fork cannot do without the origin's best checkpoint, since it may test that one.
        optimizer: name of the fork's optimizer.
        sealed: seals of the files that describe the fork.
        say: takes a sentence for the user.
        renew: takes the numbers of the fork's settings into a state of the origin; most optimizers keep none there.
    """

    workdir: Path
    origin: Path
    dataset: data.Dataset
    total: int
    stage_ends: tuple[int, ...]
    needs_best: bool
    optimizer: str
    sealed: dict[str, seals.Seal]
    say: Callable[[str], None]
    renew: Callable[[dict], dict]


def read_fork_note(workdir: Path) -> dict[str, Any] | None:
    """Reads fork.json, {"from": the origin's folder, "step": the step}; None where the run is not a fork."""
    path = workdir / folder.FORK
    return files.read_json(path) if path.exists() else None


def find_origin(workdir: Path, fork_from: str | Path | None) -> Path | None:
    """Finds the folder that a run starts from: `fork_from`, else the one in its fork.json; None where it has none.

    Raises:
        UserError: that folder holds no run or is the run itself, or the run has already begun in another way.
    """
    note = read_fork_note(workdir)
    if fork_from is None:
        return Path(note["from"]) if note else None
    origin = Path(fork_from).absolute()
    if not (origin / folder.CONFIG).is_file():
        raise UserError(f"--fork_from={origin} holds no run (no {folder.CONFIG}); name the --workdir of one")
    if origin == workdir.absolute():
        raise UserError(f"--fork_from={origin} is the run itself; give the new one another --workdir")
    if folder.has_begun(workdir) and (note is None or note["from"] != str(origin)):
        beginning = f"was forked from {note['from']}" if note else "began without --fork_from"
        raise UserError(f"the run in {workdir} {beginning}; give another --workdir, or the words it began with")
    return origin


def take_over(fork: Fork, template_at: Callable[[int], dict], checkpoints: Checkpoints) -> tuple[int, dict]:
    """Takes over a checkpoint of the origin, its journal up to that step, and its best checkpoint.

    The checkpoint is that of the step in fork.json, which an earlier start may have written, else the newest; where it
    is the newest for the origin has deleted the other one, the user is told so.

    Args:
        fork: what is to be made.
        template_at: step -> shapes and placement of the state at that step.
        checkpoints: the checkpoints of the fork itself.

    Returns:
        The step and the state.

    Raises:
        UserError: the origin has other classes, another network or optimizer, no checkpoint before the fork's end, or
            one of another stage than the fork is in at that step.
        SurroundingsError: every checkpoint of the origin is damaged, or the best one is and is needed, or another file
            that the origin has sealed is.
    """
    seals.refuse_damaged(fork.origin)
    refuse_other_optimizer(fork)
    description.refuse_other_classes(fork.origin, fork.dataset)
    origin_ends = read_stage_ends(fork.origin)

    def template_of_origin(step: int) -> dict:
        refuse_other_stage(fork, origin_ends, step)
        return template_at(step)

    origin_checkpoints = Checkpoints(
        fork.origin / folder.CHECKPOINTS,
        keep_checkpoints=2,
        crash=fork.workdir / folder.CRASH,
        say=fork.say,
        clean_up=False,  # a run may be working in the origin's folder
    )
    try:
        step, state = choose_checkpoint(fork, origin_checkpoints, template_of_origin)
        if step == 0 or step >= fork.total:
            position = f"is at step {step} of this run's {fork.total}" if step else "has no checkpoint yet"
            raise UserError(f"--fork_from={fork.origin} {position}; make duration longer, or name another run")
        sealed_size = origin_checkpoints.read_seals(step)[folder.METRICS]["bytes"]
        lines, content = journal.read_until(fork.origin / folder.METRICS, step, sealed_size)
        if not description.has_same_examples(fork.origin, fork.dataset):
            lines, content = [], b""  # evaluations on other examples cannot be compared with the fork's
        # fork.json comes before everything else, so that a start after a kill takes the same step again
        files.write_json(fork.workdir / folder.FORK, {"from": str(fork.origin), "step": step})
        files.write(fork.workdir / folder.METRICS, content)
        evaluations = journal.evaluation_lines(lines)
        best_step = journal.best_evaluation(evaluations)["step"] if evaluations else step
        if best_step != step:
            copy_best(fork, origin_checkpoints, checkpoints, best_step, template_of_origin)
    finally:
        origin_checkpoints.close()
    state = fork.renew(state)
    checkpoints.save(step, state, sealed=seals_at(fork, step))  # last: from here on the fork has begun
    checkpoints.wait()
    return step, state


def read_start(origin: Path, settings: Settings) -> dict[str, Any] | None:
    """Reads what the origin of a fork started from, which the fork goes on with; None where nothing is written of it.

    Args:
        origin: the run folder that a new run starts from.
        settings: of the new run, completed by its weights.

    Raises:
        UserError: the settings ask for other weights, for other statistics of frozen layers, or for other adapters or
            stages.
        SurroundingsError: a file that the origin has sealed is damaged.
    """
    seals.refuse_damaged(origin)
    recorded = reader.read_settings(origin)
    if settings["pretrained.digest"] != recorded["pretrained.digest"]:
        ours, theirs = settings["pretrained.weights"], recorded["pretrained.weights"]
        if theirs is None:
            remedy = f"leave pretrained.weights={ours} out"
        elif theirs == ours:
            remedy = f"put {ours} back as it was then, or move it away, for it is not needed any more"
        else:
            remedy = f"name the same, pretrained.weights={theirs}"
        raise UserError(
            f"--fork_from={origin} did not begin with the weights of this run, and a fork goes on with that run's "
            f"values; {remedy}"
        )
    ours, theirs = settings["pretrained.statistics"], recorded["pretrained.statistics"]
    if adapting.freezes_something(settings) and ours != theirs:
        raise UserError(
            f"--fork_from={origin} has pretrained.statistics={theirs}, and a fork goes on with what is frozen there; "
            f"set it to that, not {ours}"
        )
    different = [key for key in SAME_IN_FORKS if settings[key] != recorded[key]]
    if adapting.lora_scale(settings) != adapting.lora_scale(recorded):  # unset, alpha is the rank
        different.append("pretrained.lora_alpha")
    for key in different:
        theirs = f"has {key}={recorded[key]}" if recorded[key] else f"leaves {key} unset"
        remedy = "set it to that" if recorded[key] else "leave it out"
        instead = f", not {settings[key]}" if settings[key] and recorded[key] else ""
        raise UserError(
            f"--fork_from={origin} {theirs}, and a fork goes on with what is trained there; {remedy}{instead}, or "
            f"start from it, pretrained.weights={origin}"
        )
    path = origin / folder.PRETRAINED
    return reader.read_pretrained(path) if path.exists() else None


def restore_frozen(workdir: Path, origin: Path, template: dict, say: Callable[[str], None]) -> dict:
    """Restores the values that the origin of a fork does not train, where the fork does not train the same ones.

    Args:
        workdir: the run folder of the fork.
        origin: that of the run that it starts from.
        template: shapes and placement of the values.
        say: takes a sentence for the user.

    Raises:
        UserError: the origin trains other values.
        SurroundingsError: they are damaged.
    """
    if not adapting.freezes_something(reader.read_settings(origin)):
        raise UserError(
            f"--fork_from={origin} trained its whole network; leave pretrained.freeze unset, or start from it, "
            f"pretrained.weights={origin}"
        )
    seals.refuse_damaged(origin)
    checkpoints = Checkpoints(
        origin / folder.CHECKPOINTS, keep_checkpoints=2, crash=workdir / folder.CRASH, say=say, clean_up=False
    )
    try:
        return checkpoints.restore_frozen(template)
    finally:
        checkpoints.close()


def refuse_other_optimizer(fork: Fork) -> None:
    """Raises UserError where the origin was trained by another optimizer.

    Some optimizers have states of one form and another meaning, so that shapes do not tell.
    """
    optimizer = reader.read_settings(fork.origin)["optimizer.name"]
    if optimizer != fork.optimizer:
        raise UserError(
            f"--fork_from={fork.origin} was trained by {optimizer}, whose state {fork.optimizer} cannot go on with; "
            f"set optimizer.name={optimizer}"
        )


def read_stage_ends(origin: Path) -> tuple[int, ...]:
    """Returns the step at which each stage of a run but the last ends, by its own batches and data."""
    settings = reader.read_settings(origin)
    if not settings["pretrained.stages"]:
        return ()
    return plan.stage_ends(settings, examples=reader.read_data(origin / folder.DATA)["counts"]["train"])


def refuse_other_stage(fork: Fork, origin_ends: tuple[int, ...], step: int) -> None:
    """Raises UserError where a step of the origin is of another stage than that step of the fork.

    So it may be where stages are given in epochs or examples, and the batches or the data are others.
    """
    pairs = zip(origin_ends, fork.stage_ends, strict=True)  # their texts are the same
    for number, (origin_end, end) in enumerate(pairs, start=1):
        if (origin_end < step) != (end < step):
            raise UserError(
                f"stage {number} of {fork.origin} ends at step {origin_end}, and in this run at step {end}, as its "
                f"batches or data are others, so that step {step} is of another stage; take the same "
                f"data.batch_size and data, or start from it, pretrained.weights={fork.origin}"
            )


def seals_at(fork: Fork, step: int) -> dict[str, seals.Seal]:
    """Returns the seals of a fork's files: those that describe it, and the lines up to a step of metrics.jsonl."""
    _, content = journal.read_until(fork.workdir / folder.METRICS, step)
    return {**fork.sealed, folder.METRICS: seals.seal_content(content)}


def choose_checkpoint(fork: Fork, checkpoints: Checkpoints, template_at: Callable[[int], dict]) -> tuple[int, dict]:
    """Restores the checkpoint of the step in fork.json where it is still there, else the newest.

    Args:
        fork: what is to be made; it is told where the origin has deleted the step in fork.json.
        checkpoints: of the origin.
        template_at: step -> shapes and placement of the state at that step.

    Returns:
        The step and the state; (0, {}) where there is no checkpoint.
    """
    note = read_fork_note(fork.workdir)
    if note and note["step"] in checkpoints.steps():
        return note["step"], checkpoints.restore(note["step"], template_at(note["step"]))
    step, state = checkpoints.restore_newest(template_at) or (0, {})
    if note and step:
        fork.say(
            f"this fork was begun from step {note['step']} of {fork.origin}, whose checkpoint is not there any more; "
            f"it begins anew from step {step}, the newest"
        )
    return step, state


def copy_best(
    fork: Fork, origin: Checkpoints, checkpoints: Checkpoints, step: int, template_at: Callable[[int], dict]
) -> None:
    """Copies the origin's best checkpoint. Where it is damaged, gone or of another stage, but not needed, the user is
    told so.
    """
    try:
        template = template_at(step)
    except UserError as error:
        if fork.needs_best:
            raise
        fork.say(f"{error}; it was the best of that run, and is not taken over")
        return
    try:
        best = fork.renew(origin.restore(step, template))
        checkpoints.save(step, best, sealed=seals_at(fork, step))
    except DamageError as error:
        if fork.needs_best:
            raise
        fork.say(f"{error}; it was the best of that run, and is not taken over")
