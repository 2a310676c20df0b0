"""Which sweep a folder holds: space.json keeps its definition, and a folder that holds something else is refused.

Read `claim_sweep`. A sweep may grow, and be done in another way; any other change of what is swept needs another
folder.
"""

import os
from pathlib import Path
from typing import Any

from cnn_vit import files
from cnn_vit.data.reading.entries import is_image_name
from cnn_vit.data.reading.run_folders import RUN_TITLE, is_run_config
from cnn_vit.errors import UserError, printable_name
from cnn_vit.runs import folder
from cnn_vit.settings.load import split_override
from cnn_vit.studies import trials
from cnn_vit.studies.sweeping.definition import SPACE, SweepDefinition
from cnn_vit.studies.sweeping.ledger import PLAN
from cnn_vit.studies.sweeping.space import CHOICE, Dimension, text_of_value

MAY_CHANGE = ("trials", "workers", "max_failures", "name")  # of a sweep that has begun; trials only upwards
# What a sweep writes into its folder, beside its lock and space.json.
WRITTEN = (PLAN, trials.TRIALS, "workers", "results.csv", "timing.csv", folder.REPORT, "slurm")
PLAN_OF_COMPARISON = "plan.json"


def claim_sweep(out: str | os.PathLike, definition: SweepDefinition) -> SweepDefinition:
    """Makes a folder that of a sweep, or goes on with the sweep that it holds.

    More trials, other workers and another max_failures are taken over; anything else would be another sweep, unless no
    trial of the first is planned yet.

    Args:
        out: the folder; whoever calls keeps it locked.
        definition: what is asked for.

    Returns:
        What the folder holds from now on.

    Raises:
        UserError: the folder holds another sweep, or something else; each difference is named.
        SurroundingsError: it cannot be read or written.
    """
    stored = check_claim(out, definition)
    if definition != stored:
        files.write_json(Path(out) / SPACE, definition.to_json())
    return definition


def check_claim(out: str | os.PathLike, definition: SweepDefinition) -> SweepDefinition | None:
    """Checks whether a folder may be that of a sweep, as `claim_sweep` does; nothing is written.

    Returns:
        What the folder holds; None where no sweep was begun in it.
    """
    out = Path(out)
    if not (out / SPACE).exists():
        refuse_other_folder(out)
        return None
    stored = read_claimed(out)
    if not has_trials(out):
        return stored
    differences = list_differences(definition, stored)
    if differences:
        raise UserError(
            f"{out} holds a sweep of another definition: {'; '.join(differences)}; put it back, or give another --out"
        )
    if definition.trials < stored.trials:
        raise UserError(
            f"{out} has {stored.trials} trials planned, and {definition.trials} are asked for; a sweep may grow, not "
            f"shrink: set trials to {stored.trials} or more, or give another --out (`sweep cancel` ends one)"
        )
    if definition.halving and definition.trials != stored.trials:
        raise UserError(
            f"{out} has {stored.trials} trials planned, and {definition.trials} are asked for; with halving the best "
            f"of all go on, which more of them would change: set trials to {stored.trials}, or give another --out"
        )
    return stored


def has_trials(out: Path) -> bool:
    """Whether a trial of a sweep was planned, or done; a line that a kill has torn counts for nothing.

    Raises:
        SurroundingsError: the plan cannot be read.
    """
    path = out / PLAN
    with files.os_errors(path):
        return (out / trials.TRIALS).exists() or (path.exists() and b"\n" in path.read_bytes())


def read_claimed(out: str | os.PathLike) -> SweepDefinition:
    """Reads the definition that a folder of a sweep holds.

    Raises:
        UserError: the folder holds none, or it is damaged.
        SurroundingsError: it cannot be read.
    """
    path = Path(out) / SPACE
    if not path.exists():
        raise UserError(f"{out} holds no sweep, for it has no {SPACE}; look for a typing error in --out")
    try:
        stored = files.read_json(path)
    except UserError as error:
        raise UserError(f"{path} is not JSON; put it back from a copy, or name another --out") from error
    return SweepDefinition.from_json(stored, file=str(path))


def list_differences(definition: SweepDefinition, stored: SweepDefinition) -> list[str]:
    """Lists what differs between two definitions and may not: "seed: 0 in the folder, 1 here"."""
    lines = []
    ours, theirs = definition.to_json(), stored.to_json()
    for key, value in ours.items():
        if key in (*MAY_CHANGE, "space", "overrides") or value == theirs[key]:
            continue
        lines.append(difference(key, theirs[key], value))
    our_settings = dict(map(split_override, definition.overrides))
    their_settings = dict(map(split_override, stored.overrides))
    for key in sorted({*our_settings, *their_settings}):
        if our_settings.get(key) != their_settings.get(key):
            lines.append(difference(f"settings.{key}", their_settings.get(key), our_settings.get(key)))
    our_space = {dimension.key: dimension for dimension in definition.space.dimensions}
    their_space = {dimension.key: dimension for dimension in stored.space.dimensions}
    for key in our_space | their_space:
        if our_space.get(key) != their_space.get(key):
            lines.append(difference(f"space.{key}", describe(their_space.get(key)), describe(our_space.get(key))))
    if not lines and definition.space != stored.space:
        lines.append(difference("the order of the space", ", ".join(their_space), ", ".join(our_space)))
    return lines


def difference(key: str, stored: Any, value: Any) -> str:
    """Says how a key differs: "seed: 0 in the folder, 1 here"."""
    texts = []
    for entry in (stored, value):
        if isinstance(entry, dict):
            entry = ", ".join(f"{name} {inner}" for name, inner in entry.items())
        texts.append("not set" if entry in (None, "") else str(entry))
    return f"{key}: {texts[0]} in the folder, {texts[1]} here"


def describe(dimension: Dimension | None) -> str | None:
    """Writes a dimension on one line: "log 0.0001 to 0.1 in 4 steps"; None where there is none."""
    if dimension is None:
        return None
    if dimension.kind == CHOICE:
        text = f"choice of {', '.join(map(text_of_value, dimension.choices))}"
    else:
        text = f"{dimension.kind} {text_of_value(dimension.low)} to {text_of_value(dimension.high)}"
    if dimension.steps is not None:
        text += f" in {dimension.steps} steps"
    for key, values in dimension.when:
        text += f" when {key} is {' or '.join(map(text_of_value, values))}"
    return text


def refuse_other_folder(out: Path) -> None:
    """Raises UserError for a folder that is of something else: a run, a comparison, images, or a user's own files."""
    remedy = "give an --out of the sweep's own, such as runs/NAME"
    shown = printable_name(str(out))
    if out.is_file():
        raise UserError(f"{shown} is a file, and a sweep is written to a folder; {remedy}")
    for parent in out.absolute().parents[:2]:
        if (parent / SPACE).is_file():
            raise UserError(f"{shown} lies in the folder of a sweep, {printable_name(str(parent))}; {remedy}")
    with files.os_errors(out):
        names = set(os.listdir(out)) if out.exists() else set()
    lock = folder.read_bytes(out / folder.LOCK)
    if lock.startswith(RUN_TITLE.encode()) or is_run_config(folder.read_bytes(out / folder.CONFIG)):
        raise UserError(f"{shown} holds a run, and a sweep is not begun in it; {remedy}")
    if PLAN_OF_COMPARISON in names and trials.TRIALS in names:
        raise UserError(f"{shown} holds a comparison, and a sweep is not begun in it; {remedy}")
    for name in sorted(names):
        if is_image_name(name) or has_images(out / name):
            raise UserError(f"{shown} holds images ({printable_name(name)}), and a sweep is not begun in it; {remedy}")
    foreign = [name for name in WRITTEN if name in names]
    if foreign:
        raise UserError(f"{out / foreign[0]} is not of a sweep, and one would write over it; {remedy}")


def has_images(path: Path) -> bool:
    """Whether a folder has images right in it."""
    with files.os_errors(path):
        return path.is_dir() and any(is_image_name(name) for name in os.listdir(path))
