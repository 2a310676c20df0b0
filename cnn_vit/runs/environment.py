"""The surroundings of a run: versions, devices, cores, commit and command, written down at every start."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from cnn_vit import files
from cnn_vit.runs import folder, reader

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow", "simplejpeg")


def current_environment(command: str | None) -> dict[str, Any]:
    """Everything that may change a run's bits or times; `command` is what the user typed, or None."""
    import jax  # imported here, because whoever only reads a run folder needs no jax

    devices = jax.devices()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = {name: installed_version(name) for name in LIBRARIES}
    return {
        "versions": {"python": platform.python_version(), **versions},
        "machine": platform.machine(),
        "cores": cores,
        "devices": {"count": len(devices), "platform": devices[0].platform, "kind": devices[0].device_kind},
        "commit": git_commit(),
        "command": command,
    }


def installed_version(distribution: str) -> str:
    """The installed version of a distribution, or "missing"."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def git_commit() -> str | None:
    """The commit of this code, with "-dirty" behind it where files differ from it; None outside a repository."""
    repository = Path(__file__).parents[2]
    command = ["git", "-C", str(repository), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        finished = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return finished.stdout.strip() or None


def record_environment(workdir: Path, command: str | None) -> list[str]:
    """Writes the environment of this start into the run folder, behind those of earlier starts.

    Returns:
        A phrase for each difference from the first start; none at the first start itself.
    """
    now = current_environment(command)
    path = workdir / folder.ENVIRONMENT
    if not path.exists():
        files.write_json(path, now | {"resumed": []})
        return []
    first = reader.read_environment(path)
    files.write_json(path, first | {"resumed": [*first["resumed"], now]})
    return environment_changes(first, now)


def environment_changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """A phrase for each thing that may change a run's bits and is not what it was when the run began."""
    comparisons = [(name, before.get(name), now[name]) for name in ("cores", "machine")]
    for key, value in now["devices"].items():
        comparisons.append((f"device {key}", before.get("devices", {}).get(key), value))
    for name, value in now["versions"].items():
        comparisons.append((name, before.get("versions", {}).get(name), value))
    return [f"{name} {old} then, {new} now" for name, old, new in comparisons if old != new]
