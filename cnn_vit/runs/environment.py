"""The environment of a run: versions, devices, cores, commit and command, recorded at every start."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

from cnn_vit import compilation, files, process
from cnn_vit.compilation import Options, ProgramKind
from cnn_vit.runs import folder, reader

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow", "simplejpeg")


def current_environment(command: str | None) -> dict[str, Any]:
    """Returns everything that may change a run's bits or times, but for compiler options.

    Args:
        command: the command line that the user typed; None where there was none.
    """
    import jax  # here, because a program that only reads a run folder needs no jax

    devices = jax.devices()
    # a process may be allowed fewer cores than the machine has; not every system can tell
    cores = len(process.usable_cores())
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
    """The commit of this code, ending in "-dirty" where files differ from it; None outside a git repository."""
    repository = Path(__file__).parents[2]
    command = ["git", "-C", str(repository), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return process.stdout.strip() or None


def record_environment(workdir: Path, command: str | None, kind: ProgramKind) -> list[str]:
    """Adds the environment of this start to the run folder, after those of earlier starts.

    Args:
        workdir: the run folder.
        command: the command line that the user typed; None where there was none.
        kind: of the programs that run the network, whose compiler options are recorded.

    Returns:
        A phrase for each difference from the first start; none at the first start itself.
    """
    current = current_environment(command) | {"compiler_options": compilation.options_in_force(kind)}
    path = workdir / folder.ENVIRONMENT
    if not path.exists():
        files.write_json(path, current | {"resumed": []})
        return []
    first = reader.read_environment(path)
    files.write_json(path, first | {"resumed": [*first["resumed"], current]})
    return environment_changes(first, current)


def record_step_memory(workdir: Path, step_memory: dict[str, int]) -> None:
    """Adds the memory of a training step, in bytes by kind, to the newest start that the run folder records."""
    path = workdir / folder.ENVIRONMENT
    first = reader.read_environment(path)
    newest = first["resumed"][-1] if first["resumed"] else first
    newest["step_memory"] = step_memory
    files.write_json(path, first)


def environment_changes(first: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """Returns a phrase for each thing that may change a run's bits and differs from the run's first start.

    Commit and command are not compared.
    """
    comparisons = [(name, first.get(name), current[name]) for name in ("cores", "machine")]
    for key, value in current["devices"].items():
        comparisons.append((f"device {key}", first.get("devices", {}).get(key), value))
    for name, value in current["versions"].items():
        comparisons.append((name, first.get("versions", {}).get(name), value))
    options_text = compiler_options_text(current["compiler_options"])
    comparisons.append(("compiler options", compiler_options_text(first.get("compiler_options")), options_text))
    return [f"{name} {old} then, {new} now" for name, old, new in comparisons if old != new]


def compiler_options_text(options: Options | None) -> str:
    """Writes recorded compiler options in a line; None is of a run that was begun before they were recorded."""
    return "not recorded" if options is None else compilation.options_as_text(options)
