"""Manifests: `MANIFEST.json`, which makes a folder a checkpoint, with the size and sha256 of every other file in it.

Under "sealed" it holds those of the run's own files too (`runs/seals.py`). It is written last. It carries a seal, the
sha256 of its own content, and is compared as text, so that no bit of it can change unnoticed.
"""

import contextlib
import hashlib
import json
from pathlib import Path

from cnn_vit import files
from cnn_vit.errors import SurroundingsError

MANIFEST = "MANIFEST.json"
FROZEN = "frozen"  # the folder of the values that a run never changes, among those of the steps


class DamageError(SurroundingsError):
    """A checkpoint is not as it was saved. The message names its step, or "frozen", and the file."""

    def __init__(self, step: int | str, damage: str):
        super().__init__(f"checkpoint {step} is damaged: {damage}")


def write(path: Path, manifest: dict) -> None:
    """Commits a checkpoint, the folder `path`: writes its manifest and returns once that is on the disk."""
    files.write(path / MANIFEST, manifest_text(manifest))
    files.fsync(path.parent)  # which holds the name of the checkpoint's folder


def read(path: Path) -> dict:
    """Reads the manifest of the checkpoint in the folder `path`, whose name is the step, or "frozen".

    Raises:
        DamageError: the manifest is missing, is not as it was written, or is of a version that sealed no files of runs.
    """
    step, file = read_step(path), path / MANIFEST
    if not file.exists():
        raise DamageError(step, f"{file} is missing")
    with files.os_errors(file):
        content = file.read_bytes()
    damage = "is not as it was written"
    with contextlib.suppress(ValueError, TypeError, AttributeError, KeyError, RecursionError):
        manifest = json.loads(content)
        del manifest["seal"]
        # writing it again, with a new seal, must give the very same bytes
        if manifest["step"] == step and manifest_text(manifest).encode() == content:
            if "sealed" in manifest:
                return manifest
            damage = "does not seal the other files of its run: use the older cnn_vit that environment.json names"
    raise DamageError(step, f"{file} {damage}")


def read_step(path: Path) -> int | str:
    """Reads the step of a checkpoint from the name of its folder; the frozen values have their own name instead."""
    return int(path.name) if path.name.isdecimal() else path.name


def manifest_text(manifest: dict) -> str:
    """Formats a manifest as text, with its seal."""
    seal = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    return json.dumps(manifest | {"seal": seal}, sort_keys=True, indent=1) + "\n"


def list_files(path: Path) -> dict[str, dict]:
    """Brings a checkpoint's files to the disk; returns {name: {"bytes", "sha256"}} of all but the manifest."""
    for entry in path.rglob("*"):
        files.fsync(entry)
    listing = {}
    for name in file_names(path):
        if name != MANIFEST:
            listing[name] = {"bytes": file_size(path / name), "sha256": files.sha256(path / name)}
    return listing


def verify(path: Path) -> dict:
    """Reads every file of a checkpoint, compares it with the manifest, and returns the manifest.

    Raises:
        DamageError: a file is missing, changed, or not in the manifest.
    """
    step, manifest = read_step(path), read(path)
    names = set(file_names(path)) - {MANIFEST}
    for name, expected in manifest["files"].items():
        file = path / name
        if name not in names:
            raise DamageError(step, f"{file} is missing")
        if file_size(file) != expected["bytes"]:
            raise DamageError(step, f"{file} has {file_size(file)} bytes, not {expected['bytes']}")
        if files.sha256(file) != expected["sha256"]:
            raise DamageError(step, f"the bits of {file} are not those saved")
    foreign = names - manifest["files"].keys()
    if foreign:
        raise DamageError(step, f"{path / min(foreign)} does not belong to it")
    return manifest


def file_names(path: Path) -> list[str]:
    """Names, relative to a folder, of everything below it but folders."""
    return sorted(entry.relative_to(path).as_posix() for entry in path.rglob("*") if not entry.is_dir())


def file_size(path: Path) -> int:
    """The size of a file in bytes."""
    with files.os_errors(path):
        return path.stat().st_size


def step_folders(folder: Path) -> dict[int, Path]:
    """Lists the folders of checkpoints, whole or not, by step, ascending; none where `folder` does not exist."""
    with files.os_errors(folder):
        entries = list(folder.iterdir()) if folder.is_dir() else []
    by_step = {int(path.name): path for path in entries if path.name.isdecimal() and path.is_dir()}
    # a folder "007" was not made by a save
    return {step: path for step, path in sorted(by_step.items()) if path.name == str(step)}
