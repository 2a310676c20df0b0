"""Seals: bytes and sha256 of a run's small files, by which whoever reads them knows that they are as they were.

A checkpoint is worth nothing without the settings, classes and preprocessing of its run. So its manifest seals them:

    config.json, classes.json, preprocessing.json, data.json    the whole file
    pretrained.json, checkpoints/frozen/MANIFEST.json           likewise, of a run that has them
    metrics.jsonl                                               the lines up to the checkpoint's step: its first bytes

`result.json` seals the same files once more, metrics.jsonl as a whole. Manifests and results also seal themselves:
`manifests.read` and `read_result` refuse one of which a bit has changed.

What is sealed is what the run has written or has compared with an earlier seal, not what lies on the disk when a
checkpoint is saved. So a save reads no file for it, and a file that changes while the run goes on is noticed.

Not sealed: environment.json, timing.jsonl, test_reads.jsonl, fork.json, predictions, samples and plots, from which no
number of a run follows.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnn_vit import files
from cnn_vit.errors import SurroundingsError
from cnn_vit.runs import folder, manifests
from cnn_vit.runs.manifests import MANIFEST, DamageError, step_folders

Seal = dict[str, Any]  # {"bytes": size, "sha256": in hexadecimal}, as JSON has it
REMADE = (folder.CLASSES, folder.PREPROCESSING, folder.DATA)  # follow from settings and data: a run makes them anew
RECOVER = "put it back from a copy, or train again in another --workdir"
REMAKE = "give the run's `cnn-vit train` command again, which makes it anew"


class RunDamageError(SurroundingsError):
    """A file of a run is not as it was sealed. The message names it."""


@dataclass(frozen=True)
class RunSeals:
    """The seals of a run's files.

    Attributes:
        files: the seal of each file by its name.
        sealed_by: the file or checkpoint that holds them, "result.json" or "checkpoint 12".
        is_final: whether the run is finished, so that metrics.jsonl grows no more.
    """

    files: Mapping[str, Seal]
    sealed_by: str
    is_final: bool


def seal_content(content: bytes) -> Seal:
    """Returns the seal of a file with this content."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def find_damage(path: Path, seal: Seal, *, may_be_longer: bool = False) -> str:
    """Says in a phrase what has happened to a sealed file; "" where it is as it was sealed.

    Args:
        path: the file.
        seal: its seal.
        may_be_longer: whether only the file's first bytes are sealed, as many as the seal says.
    """
    if not path.is_file():
        return f"{path} has disappeared"
    with files.os_errors(path):
        content = path.read_bytes()
    if may_be_longer:
        content = content[: seal["bytes"]]
    return "" if seal_content(content) == seal else f"{path} has changed"


# A whole run ----------------------------------------------------------------------------------------------------------


def find_seals(workdir: Path) -> RunSeals | None:
    """Reads the newest seals of a run's files: those of its result, else of its newest checkpoint; None without either.

    A checkpoint whose manifest is damaged is passed over; restoring it says so.

    Raises:
        RunDamageError: the result is damaged, or the manifests of all checkpoints are, or the run is of a version of
            cnn_vit that did not seal its files: nothing then says whether they are as they were.
    """
    with files.os_errors(workdir):
        is_finished = (workdir / folder.RESULT).exists()
    if is_finished:
        return RunSeals(read_result(workdir / folder.RESULT)["sealed"], folder.RESULT, is_final=True)
    by_step = step_folders(workdir / folder.CHECKPOINTS)
    first_error = None
    for step in reversed(by_step):
        if step == max(by_step) and not (by_step[step] / MANIFEST).exists():
            continue  # not committed: it is being written, or was when the run was killed
        try:
            sealed = manifests.read(by_step[step])["sealed"]
        except DamageError as error:
            first_error = first_error or error
        else:
            return RunSeals(sealed, f"checkpoint {step}", is_final=False)
    if first_error:
        raise RunDamageError(f"{first_error}; {RECOVER}") from first_error
    return None


def refuse_damaged(workdir: Path) -> None:
    """Refuses a run of which a sealed file is missing or has changed. A run that has saved nothing yet has no seals.

    Raises:
        RunDamageError: so it is, or there are seals that cannot be read (`find_seals`).
    """
    seals = find_seals(workdir)
    if seals is None:
        return
    for name in seals.files:
        refuse_damaged_file(workdir, name, seals)


def refuse_changed(workdir: Path) -> None:
    """Refuses a run of which a sealed file has changed, before the run goes on; raises what `refuse_damaged` raises.

    What the run itself mends is let pass: a file of REMADE that is missing, and metrics.jsonl of a run that is not
    finished, for which the run goes back to the newest checkpoint whose lines are whole.
    """
    seals = find_seals(workdir)
    if seals is None:
        return
    for name in seals.files:
        is_remade = name in REMADE and not (workdir / name).exists()
        if not is_remade and (name != folder.METRICS or seals.is_final):
            refuse_damaged_file(workdir, name, seals)


def refuse_damaged_file(workdir: Path, name: str, seals: RunSeals) -> None:
    """Raises RunDamageError where a file is not as the seals say."""
    may_be_longer = name == folder.METRICS and not seals.is_final
    damage = find_damage(workdir / name, seals.files[name], may_be_longer=may_be_longer)
    if not damage:
        return
    remedy = RECOVER
    if name in REMADE:
        remove = "remove it and " if (workdir / name).exists() else ""
        remedy = f"put it back from a copy, or {remove}{REMAKE}"
    raise RunDamageError(f"{damage} since {seals.sealed_by} sealed it; {remedy}")


def refuse_other_run_files(workdir: Path, step: int | str, sealed: Mapping[str, Seal]) -> None:
    """Raises DamageError where the files of a run are not those that a checkpoint of it has sealed."""
    for name, seal in sealed.items():
        damage = find_damage(workdir / name, seal, may_be_longer=name == folder.METRICS)
        if damage:
            raise DamageError(step, f"{damage} since the checkpoint was saved")


# The result -----------------------------------------------------------------------------------------------------------


def seal_result(result: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a result with "seal": the sha256 of all the rest of it as canonical JSON.

    That JSON has sorted keys and no blanks. So the seal holds whatever the layout of the file, and breaks with any
    change of a name or value.
    """
    text = json.dumps(result, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return {**result, "seal": hashlib.sha256(text.encode()).hexdigest()}


def read_result(path: Path) -> dict[str, Any]:
    """Reads `result.json`, a JSON object.

    Raises:
        RunDamageError: it is not as it was written.
        SurroundingsError: it cannot be read.
    """
    with files.os_errors(path):
        content = path.read_bytes()
    damage = "is not as it was written"
    with contextlib.suppress(ValueError, TypeError, AttributeError, KeyError, RecursionError):
        result = json.loads(content)
        if "seal" not in result:
            raise RunDamageError(
                f"{path} has no seal: its run is of an older cnn_vit, which {folder.ENVIRONMENT} names; use that one, "
                "or train again in another --workdir"
            )
        seal = result.pop("seal")
        if seal == seal_result(result)["seal"] and isinstance(result["sealed"], dict):
            return {**result, "seal": seal}
    raise RunDamageError(f"{path} {damage}; put it back from a copy, or remove it and {REMAKE}")
