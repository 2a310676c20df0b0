"""The run folder: what stands in it beside checkpoints and journal, and whose run it is.

config.json         final settings with their origins    classes.json   names of the classes, in the scores' order
environment.json    versions, devices, cores, commit     data.json      fingerprint and counts of the data
preprocessing.json  how images become the network's    result.json    written last: the run is finished

fork.json           another run, and its step, that this one started from; by `forks`

Whoever reads a run needs nothing else: no recipe, and no other Python file, is ever executed for it.
"""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnn_vit import data, files, settings
from cnn_vit.data.reading.listing import RUN_MARKER
from cnn_vit.errors import UserError
from cnn_vit.runs import records
from cnn_vit.runs.journal import METRICS
from cnn_vit.runs.manifests import step_folders

CONFIG = "config.json"
ENVIRONMENT = "environment.json"
CLASSES = "classes.json"
PREPROCESSING = "preprocessing.json"
DATA = "data.json"
RESULT = "result.json"
CHECKPOINTS = "checkpoints"
CRASH = "crash"
LOCK = RUN_MARKER  # by which a look at images tells a run among them
FORK = "fork.json"

AGAIN = "give another --workdir, or start this run from that one's checkpoint with --fork_from"
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow", "simplejpeg")


def read_folder(workdir: Path) -> tuple[settings.Settings, tuple[str, ...], dict[str, Any]]:
    """What a run folder says of its network: settings, names of the classes, preprocessing.

    Raises:
        UserError: the folder holds no run, or one of another version, or these are not as they were written.
    """
    for name in (CONFIG, CLASSES, PREPROCESSING):
        if not (workdir / name).is_file():
            raise UserError(f"{workdir} holds no run (no {name}); name the --workdir of a `cnn-vit train`")
    final = settings.from_json(files.read_json(workdir / CONFIG))
    return final, records.read_classes(workdir / CLASSES), records.read_preprocessing(workdir / PREPROCESSING)


def claim(workdir: Path, ours: settings.Settings) -> None:
    """Finds that the folder is this run's or nobody's; one in which no step was logged or saved is nobody's.

    Raises:
        UserError: it holds another run; the settings that differ are named, key by key.
    """
    path = workdir / CONFIG
    if not has_begun(workdir):
        for name in (CONFIG, ENVIRONMENT, FORK):
            files.remove(workdir / name)
    elif not path.exists():
        raise UserError(f"{workdir} holds part of a run without its {CONFIG}; give another --workdir")
    elif differ := settings.differences(ours, settings.from_json(files.read_json(path))):
        raise UserError(f"{workdir} holds a run of other settings: {'; '.join(differ)}; {AGAIN}")


def has_begun(workdir: Path) -> bool:
    """Whether there is anything in a run folder that took a step to make."""
    metrics, saved = workdir / METRICS, step_folders(workdir / CHECKPOINTS)
    return bool(saved) or (workdir / RESULT).exists() or (metrics.exists() and metrics.stat().st_size > 0)


def finished_result(workdir: Path) -> dict[str, Any] | None:
    """The result of a run that has one and lacks nothing else; None where something is still to do."""
    if not (workdir / RESULT).exists():
        return None
    result = records.read_result(workdir / RESULT)
    splits = [split for split in ("validation", "test") if result.get(split)]
    whole = all((workdir / "predictions" / f"{split}.npz").exists() for split in splits)
    return result if whole else None


def describe(workdir: Path, ours: settings.Settings, dataset: data.Dataset, preprocessing: Mapping[str, Any]) -> None:
    """Makes the folder this run's by writing what it is and what it knows of its data, or finds them as they were.

    Raises:
        UserError: the folder's run was trained on other data.
    """
    if not (workdir / CONFIG).exists():
        files.write_json(workdir / CLASSES, list(dataset.classes))
        files.write_json(workdir / PREPROCESSING, preprocessing)
        files.write_json(workdir / DATA, dataset.facts | {"fingerprint": dataset.fingerprint})
        files.write_json(workdir / CONFIG, settings.to_json(ours))
        return
    refuse_other_classes(workdir, dataset)
    before = records.read_object(workdir / DATA, fingerprint=str, counts=dict)
    if before["fingerprint"] != dataset.fingerprint:
        raise UserError(
            f"{workdir} was trained on other data: fingerprint {before['fingerprint'][:12]}, {before['counts']} "
            f"there, {dataset.fingerprint[:12]}, {dataset.facts['counts']} here; {AGAIN}"
        )


def make_preprocessing(of: settings.Settings, dataset: data.Dataset) -> dict[str, Any]:
    """How images become the network's: measured on the training split where the settings leave it open."""
    mean, deviation = of["data.mean"], of["data.std"]
    if mean is None or deviation is None:
        measured = data.mean_and_std(dataset.splits["train"])
        mean, deviation = mean or measured[0], deviation or measured[1]
    height, width, channels = dataset.image_shape
    mixed = dataset.splits["train"].padded_sizes
    return {
        "mean": list(mean),
        "std": list(deviation),
        "image_size": [height, width],
        "channels": channels,
        "fit": of["data.fit"],
        **({} if mixed is None else {"sizes": [list(size) for size in mixed.buckets]}),
    }


def refuse_other_classes(workdir: Path, dataset: data.Dataset) -> None:
    """Raises UserError where a run was trained on other classes than the data have."""
    classes = records.read_classes(workdir / CLASSES)
    if tuple(dataset.classes) != classes:
        raise UserError(
            f"{workdir} was trained on the classes {list_names(classes)}, the data now have {list_names(dataset.classes)}; "
            f"labels would shift: {AGAIN}"
        )


def has_same_examples(workdir: Path, dataset: data.Dataset) -> bool:
    """Whether a run's splits hold the examples of these data."""
    before, now = records.read_object(workdir / DATA), dataset.facts | {"fingerprint": dataset.fingerprint}
    return all(before.get(name) == now.get(name) for name in ("fingerprint", "slices", "counts"))


def current_environment(command: str | None) -> dict[str, Any]:
    """What bears on a run's bits and times: versions, devices, cores, the commit of this code, the command."""
    import jax  # whoever only reads a run folder needs none

    found = jax.devices()
    return {
        "versions": {"python": platform.python_version(), **{name: installed_version(name) for name in LIBRARIES}},
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "devices": {"count": len(found), "platform": found[0].platform, "kind": found[0].device_kind},
        "commit": git_commit(),
        "command": command,
    }


def installed_version(name: str) -> str:
    """The installed version of a distribution, or "missing"."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def git_commit() -> str | None:
    """The commit that this code stands at, "-dirty" behind it where files differ from it; None outside a repository."""
    top = Path(__file__).parents[2]
    command = ["git", "-C", str(top), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def environment_changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """A phrase per thing that bears on a run's bits and is another than when the run began."""
    then, devices_then, versions_then = before, before.get("devices", {}), before.get("versions", {})
    pairs = [
        *((name, then.get(name), now[name]) for name in ("cores", "machine")),
        *((f"device {key}", devices_then.get(key), value) for key, value in now["devices"].items()),
        *((name, versions_then.get(name), value) for name, value in now["versions"].items()),
    ]
    return [f"{what} {old} then, {new} now" for what, old, new in pairs if old != new]


def record_environment(workdir: Path, command: str | None) -> list[str]:
    """Writes the environment down, a later start's behind the first; gives what differs from the first."""
    now = current_environment(command)
    path = workdir / ENVIRONMENT
    if not path.exists():
        files.write_json(path, now | {"resumed": []})
        return []
    before = records.read_object(path, versions=dict, devices=dict, resumed=list)
    files.write_json(path, before | {"resumed": [*before["resumed"], now]})
    return environment_changes(before, now)


def list_names(names: tuple[str, ...], most: int = 12) -> str:
    """Names in brackets, the first dozen."""
    return "[" + ", ".join(names[:most]) + (f", ... {len(names)} in all" if len(names) > most else "") + "]"
