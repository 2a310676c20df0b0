"""What makes a folder a checkpoint: `MANIFEST.json`, written last, with the size and sha256 of every other file in it.

The manifest carries a seal, the sha256 of its own content, and is compared as text: no bit of it can change unnoticed.
"""

import contextlib
import hashlib
import json
from pathlib import Path

from cnn_vit import files
from cnn_vit.errors import SurroundingsError

MANIFEST = "MANIFEST.json"


class DamageError(SurroundingsError):
    """A checkpoint is not what was saved. The sentence names step and file."""

    def __init__(self, step: int, what: str):
        super().__init__(f"checkpoint {step} is damaged: {what}")


def write(path: Path, manifest: dict) -> None:
    """Commits a checkpoint, the folder `path`: writes its manifest and returns once that is on the disk."""
    files.write(path / MANIFEST, manifest_text(manifest))
    files.fsync(path.parent)


def read(path: Path) -> dict:
    """The manifest of the checkpoint `path`, named by its step; `DamageError` where it is not as it was written."""
    step, place = int(path.name), path / MANIFEST
    if not place.exists():
        raise DamageError(step, f"{place} is missing")
    with files.os_errors(place):
        found = place.read_bytes()
    with contextlib.suppress(ValueError, TypeError, AttributeError, KeyError, RecursionError):
        manifest = json.loads(found)
        del manifest["seal"]
        if manifest["step"] == step and manifest_text(manifest).encode() == found:
            return manifest
    raise DamageError(step, f"{place} is not as it was written")


def manifest_text(manifest: dict) -> str:
    """The one way to write a manifest, with its seal."""
    seal = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    return json.dumps(manifest | {"seal": seal}, sort_keys=True, indent=1) + "\n"


def list_files(path: Path) -> dict[str, dict]:
    """Flushes all of the folder `path`; size and sha256 of each file but the manifest, by its name from there."""
    for entry in path.rglob("*"):
        files.fsync(entry)
    return {
        name: {"bytes": file_size(path / name), "sha256": files.sha256(path / name)}
        for name in file_names(path)
        if name != MANIFEST
    }


def verify(path: Path) -> dict:
    """Reads every file of the checkpoint `path` and returns its manifest; `DamageError` where one is not as listed."""
    step, manifest = int(path.name), read(path)
    there = set(file_names(path)) - {MANIFEST}
    for name, facts in manifest["files"].items():
        file = path / name
        if name not in there:
            raise DamageError(step, f"{file} is missing")
        if file_size(file) != facts["bytes"]:
            raise DamageError(step, f"{file} has {file_size(file)} bytes, not {facts['bytes']}")
        if files.sha256(file) != facts["sha256"]:
            raise DamageError(step, f"the bits of {file} are not those saved")
    if strange := there - manifest["files"].keys():
        raise DamageError(step, f"{path / min(strange)} does not belong to it")
    return manifest


def file_names(path: Path) -> list[str]:
    """Names, from the folder `path` on, of all that is not a folder in it."""
    return sorted(entry.relative_to(path).as_posix() for entry in path.rglob("*") if not entry.is_dir())


def file_size(path: Path) -> int:
    """Bytes of a file."""
    with files.os_errors(path):
        return path.stat().st_size


def step_folders(folder: Path) -> dict[int, Path]:
    """The folders of steps in a folder, whole or not, by step, ascending; none where there is no folder."""
    with files.os_errors(folder):
        found = list(folder.iterdir()) if folder.is_dir() else []
    steps = {int(path.name): path for path in found if path.name.isdecimal() and path.is_dir()}
    return {step: path for step, path in sorted(steps.items()) if path.name == str(step)}
