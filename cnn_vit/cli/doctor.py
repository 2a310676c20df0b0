"""Look at this machine, or with --data at a data set, and say what stands in the way, each with its remedy.

    cnn-vit doctor                                       versions, devices, cores, memory, disk, settings in force
    cnn-vit doctor --data=photos/                        a folder, a zip, an npz, or a source by name such as digits
    cnn-vit doctor --data=photos/ --images=seen.svg    some images of each class, and those that repeat
    cnn-vit doctor --config=configs/folder_resnet.py     the data of a recipe, in its splits

Of data every image is decoded: counts of classes and splits, sizes and formats, files that cannot be read, images
that repeat inside a split or across two, pixel for pixel or nearly (another format, quality or size; not turned or
cut), uneven classes, labels in file names. Problems are errors, where training would stop or its accuracies would not
be true (files that cannot be read, a class without images, the same image in train and test or in two classes), or
warnings. The exit code is 2 where there is an error, else 0, for use in scripts; --json lists all of it.
"""

import argparse
import importlib.metadata
import os
import platform
import re
import shutil
from pathlib import Path
from typing import Any

from cnn_vit import cli, process
from cnn_vit.errors import SurroundingsError, UserError, nearest

GB, MB = 1e9, 1e6  # bytes
TITLES = {"memory": "memory, GB", "disk": "free disk, GB", "cache": "cache, MB"}
LEAST_MEMORY, LEAST_DISK = 2.0, 1.0  # GB: what a small network takes, and a few checkpoints with a compilation cache


def arguments(parser: argparse.ArgumentParser) -> None:
    """Words of the command."""
    parser.add_argument("--data", metavar="PATH", help="a folder, zip, npz, FILE.py:FUNCTION, or a source by name")
    parser.add_argument("--config", help="recipe whose data section is looked at; --config.data.key=value sets in it")
    parser.add_argument("--images", metavar="FILE", help="draw some images of each class into this SVG")


def run(given: argparse.Namespace) -> int:
    """Prints what was found and a line per problem; 2 where data have errors."""
    if given.data or given.config or given.overrides:
        from cnn_vit.cli import _survey

        return _survey.run(given)
    if given.pictures:
        raise UserError("--images draws images of data; add --data=PATH")
    prepared: process.Prepared = given.prepared
    found: dict[str, Any] = {
        "versions": versions(),
        "devices": devices(),
        "cores": cores(),
        "memory": memory(),
        "disk": disk(prepared),
        "cache": cached(),
        "settings": in_force(prepared),
    }
    found["problems"] = problems(found, prepared)
    sections = [
        f"{TITLES.get(name, name)}\n{cli.table(facts.items(), indent='  ')}"
        for name, facts in found.items()
        if name != "problems"
    ]
    said = [f"  {problem}" for problem in found["problems"]] or ["  none"]
    cli.print_answer(given, found, "\n".join([*sections, "problems", *said]), then="cnn-vit train")
    return 0


def versions() -> dict[str, str]:
    """Of Python, this package and what it requires."""
    required = {name: version_of(name) for name, _ in requirements()}
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cnn_vit": version_of("cnn_vit"),
        **required,
    }


def version_of(name: str) -> str:
    """The installed version of a distribution, or "missing"."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def requirements() -> list[tuple[str, str]]:
    """What this package requires without extras: (distribution, its bounds such as ">=0.10.2")."""
    try:
        lines = importlib.metadata.requires("cnn_vit") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    pairs = (re.fullmatch(r"([\w.-]+)\s*(.*)", line) for line in lines if "extra ==" not in line)
    return [(found[1], found[2].strip(" ()")) for found in pairs if found]


def devices() -> dict[str, str]:
    """What jax computes on."""
    import jax

    try:
        found = jax.devices()
    except RuntimeError as error:
        return {"none": cli.one_line(str(error), most=300)}
    return {str(device): f"{device.platform} {device.device_kind}" for device in found}


def cores() -> dict[str, Any]:
    """Processors of the machine, those this process may use, and the share of them that a container grants."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"machine": os.cpu_count(), "usable": usable, "granted": container_cores()}


def container_cores() -> float | None:
    """Processors that a control group grants, or None where it sets no limit."""
    words = first_line("/sys/fs/cgroup/cpu.max").split()
    if not words:  # version 1 of control groups keeps two files
        folder = "/sys/fs/cgroup/cpu/cpu.cfs_"
        words = [first_line(f"{folder}quota_us"), first_line(f"{folder}period_us")]
    granted, period = words[:2] if len(words) > 1 else ("max", "")
    return int(granted) / int(period) if granted.isdigit() and period.isdigit() else None


def memory() -> dict[str, float | None]:
    """GB: total and available of the machine, and the limit that a control group sets."""
    lines = dict(re.findall(r"^(\w+):\s+(\d+) kB$", read_small_file("/proc/meminfo"), re.M))
    limit = first_line("/sys/fs/cgroup/memory.max") or first_line("/sys/fs/cgroup/memory/memory.limit_in_bytes")
    bound = int(limit) / GB if limit.isdigit() and len(limit) < 16 else None  # longer means no limit
    return {
        "total": rounded(int(lines["MemTotal"]) * 1024 / GB if "MemTotal" in lines else None),
        "available": rounded(int(lines["MemAvailable"]) * 1024 / GB if "MemAvailable" in lines else None),
        "limit": rounded(bound),
    }


def disk(prepared: process.Prepared) -> dict[str, float]:
    """GB free where runs and the cache are written."""
    places = {"current folder": Path(), **({"cache": Path(prepared.cache)} if prepared.cache else {})}
    return {
        f"{name} ({place.absolute()})": round(shutil.disk_usage(nearest_existing_folder(place)).free / GB, 1)
        for name, place in places.items()
    }


def cached() -> dict[str, str | float]:
    """The folder of the cache, and MB of each part of it; the whole of it may be removed at any time."""
    from cnn_vit.files import cache

    try:
        sizes: dict[str, str | float] = {
            f"{cache.folder()}/{part}": round(size / MB, 1) for part, size in cache.folder_sizes().items()
        }
        return sizes or {str(cache.folder()): 0.0}
    except SurroundingsError as error:
        return {"none": str(error)}


def in_force(prepared: process.Prepared) -> dict[str, str]:
    """The allocator, the compilation cache, and variables that bear on a run."""
    cache = prepared.cache or f"none: {prepared.why_no_cache}"
    return {"allocator": prepared.allocator, "compilation cache": cache, **prepared.environment}


def problems(found: dict[str, Any], prepared: process.Prepared) -> list[str]:
    """What stands in the way, each with its remedy."""
    said = [*wrong_versions(found["versions"])]
    if "none" in found["devices"]:
        said.append(process.no_device_sentence(found["devices"]["none"]))
    on_cpu = all(kind.startswith("cpu") for kind in found["devices"].values())
    if on_cpu and Path("/proc/driver/nvidia/version").exists() and "JAX_PLATFORMS" not in prepared.environment:
        said.append("there is an NVIDIA card that jax does not use; pip install 'cnn_vit[cuda]'")
    granted, usable = found["cores"]["granted"], found["cores"]["usable"]
    if granted and granted < usable - 0.5:
        said.append(
            f"{usable} cores are usable but {granted:g} granted; start with taskset -c 0-{max(0, int(granted) - 1)}"
        )
    least = min((value for value in (found["memory"]["available"], found["memory"]["limit"]) if value), default=None)
    if least is not None and least < LEAST_MEMORY:
        said.append(f"{least} GB of memory at hand; close programs or make data.batch_size smaller")
    said += [f"{free} GB free in {place}; make room" for place, free in found["disk"].items() if free < LEAST_DISK]
    if not os.access(".", os.W_OK):
        said.append(f"{Path().absolute()} cannot be written; give --workdir=DIR or go to another folder")
    if prepared.why_no_cache:
        said.append(f"every start compiles anew: {prepared.why_no_cache}")
    return said + [
        misnamed_variable(name)
        for name in prepared.environment
        if name.startswith("CNN_VIT_") and name not in process.OUR_VARIABLES
    ]


def wrong_versions(found: dict[str, str]) -> list[str]:
    """A sentence per distribution that is missing or outside its bounds."""
    return [
        f"{name} is {found[name]}, {bounds or 'any version'} is required; pip install '{name}{bounds}'"
        for name, bounds in requirements()
        if found[name] == "missing" or not all(keeps_bound(found[name], bound) for bound in bounds.split(",") if bound)
    ]


def keeps_bound(version: str, bound: str) -> bool:
    """Whether a version such as "0.12.8" keeps a bound such as ">=0.10" or "<0.13"."""
    sign, limit = re.fullmatch(r"([<>=!~]+)(.*)", bound.strip()).groups()  # type: ignore[union-attr]  # bounds begin so
    ours, theirs = ([int(part) for part in re.findall(r"\d+", text)[:3]] for text in (version, limit))
    return {">=": ours >= theirs, "<": ours < theirs}.get(sign, True)


def misnamed_variable(name: str) -> str:
    """The sentence about a variable that nothing reads."""
    near = nearest(name, process.OUR_VARIABLES)
    return f"{name} is read by nothing; " + (
        f"did you mean {near[0]}?" if near else f"there is {', '.join(process.OUR_VARIABLES)}"
    )


def nearest_existing_folder(place: Path) -> Path:
    """The nearest folder on the way up that is there."""
    return next(one for one in (place.absolute(), *place.absolute().parents) if one.is_dir())


def read_small_file(path: str) -> str:
    """A small file of the kernel, or "" where there is none."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def first_line(path: str) -> str:
    """The first line of a small file of the kernel."""
    return read_small_file(path).partition("\n")[0].strip()


def rounded(value: float | None) -> float | None:
    """To tenths."""
    return None if value is None else round(value, 1)
