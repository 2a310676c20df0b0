"""Check this machine, or with --data a data set, and name each problem with its remedy.

    cnn-vit doctor                                         this machine
    cnn-vit doctor --data=photos/                          a folder, zip, npz, or a named source
    cnn-vit doctor --data=photos/ --gallery=gallery.svg    also draws some images of each class
    cnn-vit doctor --config=configs/folder_resnet.py       the data of a recipe, in its splits

Of the machine, the command lists versions, devices, cores, memory, free disk, the cache, the
settings that are in force for this process, and the options that its programs are compiled with,
which decide what library computes what.

Of a data set, every image is decoded. The command counts classes and splits, lists sizes and
formats, names the files that cannot be read, and looks for uneven classes and for file names that
give the label away. It finds images that repeat inside a split or across two: with the same pixels,
or nearly the same (another format, quality or size, but not turned or cut). The gallery shows those
that repeat as well.

A problem is an error where training would stop or where its accuracies would not be true: files
that cannot be read, a class without images, the same image in train and test or in two classes.
All other problems are warnings. For use in scripts, the exit code is 2 where there is an error in
the data, else 0, and --json prints everything that was found.
"""

import argparse
import importlib.metadata
import os
import platform
import re
import shutil
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

from cnn_vit import cli, process
from cnn_vit.cli import _compiler
from cnn_vit.errors import SurroundingsError, UserError, nearest

GB, MB = 1e9, 1e6  # bytes
TITLES = {"compiler_options": "compiler options", "memory": "memory, GB", "disk": "free disk, GB", "cache": "cache, MB"}
MIN_MEMORY = 2.0  # GB, what a small network takes
MIN_DISK = 1.0  # GB, what a few checkpoints and the compilation cache take
NO_LIMIT_DIGITS = 16  # a control group without a limit of memory says so by a number of at least so many digits
MISSING = "missing"  # in place of the version of a distribution that is not installed


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    parser.add_argument(
        "--data", metavar="PATH", help="look at this folder, zip, npz, FILE.py:FUNCTION, or source such as digits"
    )
    parser.add_argument(
        "--config", help="look at the data section of this recipe; --config.data.key=value changes the section"
    )
    parser.add_argument(
        "--layout",
        metavar="KIND",
        help="what the folders of --data are: classes, or splits with class folders (default: their names tell)",
    )
    parser.add_argument(
        "--gallery", metavar="FILE.svg", help="draw some images of each class, and those that repeat, into this file"
    )


def run(args: argparse.Namespace) -> int:
    """Prints the state of the machine, or of the data that are named, and the problems.

    Returns:
        The exit code: 2 where the data have errors, else 0.

    Raises:
        UserError: a gallery is asked for, but no data are named.
    """
    if args.data or args.config or args.overrides or args.layout:
        from cnn_vit.cli import _survey

        return _survey.run(args)
    if args.gallery:
        raise UserError("--gallery draws images of data; add --data=PATH")
    prepared: process.Prepared = args.prepared
    devices = list_devices()
    record: dict[str, Any] = {
        "versions": collect_versions(),
        "devices": devices,
        "cores": count_cores(),
        "memory": measure_memory(),
        "disk": measure_free_disk(prepared),
        "cache": measure_cache(),
        "settings": collect_process_settings(prepared),
        "compiler_options": _compiler.collect_options(devices),
    }
    sections = [
        f"{TITLES.get(name, name)}\n{cli.format_table(facts.items(), indent='  ')}" for name, facts in record.items()
    ]
    problems = find_problems(record, prepared)
    record["problems"] = problems
    lines = [f"  {problem}" for problem in problems or ["none"]]
    cli.print_answer(args, record, "\n".join([*sections, "problems", *lines]), next_command="cnn-vit train")
    return 0


# Versions -------------------------------------------------------------------------------------------------------------


def collect_versions() -> dict[str, str]:
    """Returns the versions of Python, the system, this package and each distribution that it requires, by name."""
    versions = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cnn_vit": read_version("cnn_vit"),
    }
    return versions | {requirement.name: read_version(requirement.name) for requirement in read_requirements()}


def read_version(name: str) -> str:
    """Returns the installed version of a distribution, or "missing" where it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return MISSING


def read_requirements() -> list[Requirement]:
    """Returns what this package requires on this machine, without its extras.

    The list is empty where the package is not installed but only on the path, since its metadata are not there then.
    """
    try:
        lines = importlib.metadata.requires("cnn_vit") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    requirements = [Requirement(line) for line in lines]
    # The marker of a requirement of an extra is true only where that extra is asked for.
    return [requirement for requirement in requirements if requirement.marker is None or requirement.marker.evaluate()]


def find_wrong_versions(versions: dict[str, str]) -> list[str]:
    """Returns a sentence for each required distribution that is missing or outside its bounds.

    Args:
        versions: the installed version, or "missing", of each required distribution by name.
    """
    sentences = []
    for requirement in read_requirements():
        name, bounds = requirement.name, str(requirement.specifier)
        if not is_satisfied(requirement, versions[name]):
            sentences.append(
                f"{name} is {versions[name]}, {bounds or 'any version'} is required; pip install '{name}{bounds}'"
            )
    return sentences


def is_satisfied(requirement: Requirement, version: str) -> bool:
    """Whether a version such as "0.12.8" lies within the bounds of a requirement; "missing" never does.

    A pre-release counts as the release that it leads to, so that 2.0rc1 satisfies >=2.0. A version that is not written
    as PEP 440 asks satisfies a requirement without bounds and no other.
    """
    if version == MISSING:
        return False
    try:
        release = Version(version).base_version
    except InvalidVersion:
        return not requirement.specifier
    return requirement.specifier.contains(release)


# The machine ----------------------------------------------------------------------------------------------------------


def list_devices() -> dict[str, str]:
    """Returns the platform and the kind of each device that jax computes on, by the device's name.

    Where jax finds none, the only entry is "none", with the reason.
    """
    try:
        devices = process.find_devices()
    except SurroundingsError as error:
        return {"none": cli.as_one_line(str(error), most=300)}
    return {str(device): f"{device.platform} {device.device_kind}" for device in devices}


def count_cores() -> dict[str, Any]:
    """Counts the cores of the machine, those that this process may use, and those that a container grants it."""
    usable = len(process.usable_cores())
    return {"machine": os.cpu_count(), "usable": usable, "granted": read_granted_cores()}


def read_granted_cores() -> float | None:
    """Returns how many cores the control group of this process grants, such as 1.5, or None without a limit.

    A control group grants microseconds of computing in each period of so many microseconds.
    Source: docs.kernel.org/admin-guide/cgroup-v2.html, cpu.max.
    """
    words = read_first_line("/sys/fs/cgroup/cpu.max").split()
    if not words:  # version 1 of control groups has two files instead
        folder = "/sys/fs/cgroup/cpu/cpu.cfs_"
        words = [read_first_line(f"{folder}quota_us"), read_first_line(f"{folder}period_us")]
    if len(words) < 2:
        return None
    quota, period = words[:2]
    # Without a limit, version 2 writes "max" and version 1 writes -1: neither consists of digits.
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def measure_memory() -> dict[str, float | None]:
    """Returns the memory of the machine in GB: total, available, and the limit of the control group.

    What the system does not say, and the limit where there is none, is None.
    """
    kilobytes = dict(re.findall(r"^(\w+):\s+(\d+) kB$", read_kernel_file("/proc/meminfo"), re.M))
    memory = {}
    for name, field in (("total", "MemTotal"), ("available", "MemAvailable")):
        memory[name] = round_to_tenth(int(kilobytes[field]) * 1024 / GB if field in kilobytes else None)
    # The files of version 2 and of version 1 of control groups.
    limit = read_first_line("/sys/fs/cgroup/memory.max") or read_first_line(
        "/sys/fs/cgroup/memory/memory.limit_in_bytes"
    )
    is_limited = limit.isdigit() and len(limit) < NO_LIMIT_DIGITS
    return memory | {"limit": round_to_tenth(int(limit) / GB if is_limited else None)}


def measure_free_disk(prepared: process.Prepared) -> dict[str, float]:
    """Returns the GB that are free where runs are written and where compiled programs are, by "NAME (FOLDER)"."""
    folders = {"current folder": Path()}
    if prepared.cache:
        folders["cache"] = Path(prepared.cache)
    free = {}
    for name, folder in folders.items():
        usage = shutil.disk_usage(find_existing_folder(folder))
        free[f"{name} ({folder.absolute()})"] = round(usage.free / GB, 1)
    return free


def measure_cache() -> dict[str, str | float]:
    """Returns the MB of each part of the download cache by its folder; the user may remove any of it at any time.

    An empty cache is one entry of 0. Where there is no cache, the only entry is "none", with the reason.
    """
    from cnn_vit.files import cache

    try:
        sizes: dict[str, str | float] = {}
        for part, size in cache.folder_sizes().items():
            sizes[f"{cache.folder()}/{part}"] = round(size / MB, 1)
        return sizes or {str(cache.folder()): 0.0}
    except SurroundingsError as error:
        return {"none": str(error)}


def collect_process_settings(prepared: process.Prepared) -> dict[str, str]:
    """Returns the settings of this process: allocator, compilation cache, environment variables that bear on a run."""
    cache = prepared.cache or f"none: {prepared.why_no_cache}"
    return {"allocator": prepared.allocator, "compilation cache": cache, **prepared.environment}


# Problems -------------------------------------------------------------------------------------------------------------


def find_problems(record: dict[str, Any], prepared: process.Prepared) -> list[str]:
    """Returns a sentence for each thing that stands in the way of a run, with its remedy.

    Args:
        record: what `run` collected, all of the answer but the problems.
        prepared: what `process.prepare` set up.
    """
    problems = find_wrong_versions(record["versions"])
    if "none" in record["devices"]:
        problems.append(record["devices"]["none"])
    is_on_cpu = all(kind.startswith("cpu") for kind in record["devices"].values())
    has_nvidia_driver = Path("/proc/driver/nvidia/version").exists()
    # A user who sets JAX_PLATFORMS may well want the CPU.
    if is_on_cpu and has_nvidia_driver and "JAX_PLATFORMS" not in prepared.environment:
        problems.append("jax does not use the NVIDIA card of this machine; pip install 'cnn_vit[cuda]'")
    granted, usable = record["cores"]["granted"], record["cores"]["usable"]
    # More threads than granted cores wait for each other; half a core of rounding does not matter.
    if granted and granted < usable - 0.5:
        problems.append(
            f"{usable} cores are usable, but only {granted:g} are granted; start with taskset -c "
            f"0-{max(0, int(granted) - 1)}"
        )
    memory = [size for size in (record["memory"]["available"], record["memory"]["limit"]) if size]
    if memory and min(memory) < MIN_MEMORY:
        problems.append(f"only {min(memory)} GB of memory is available; close programs or make data.batch_size smaller")
    for place, free in record["disk"].items():
        if free < MIN_DISK:
            problems.append(f"only {free} GB is free in {place}; make room")
    if not os.access(".", os.W_OK):
        problems.append(f"{Path().absolute()} cannot be written; give --workdir=DIR or go to another folder")
    if prepared.why_no_cache:
        problems.append(f"every start compiles all programs again: {prepared.why_no_cache}")
    problems += _compiler.find_problems(record["devices"], prepared.environment)
    for name in prepared.environment:
        if name.startswith("CNN_VIT_") and name not in process.OUR_VARIABLES:
            problems.append(misnamed_variable_sentence(name))
    return problems


def misnamed_variable_sentence(name: str) -> str:
    """Returns the sentence about an environment variable that looks like ours, but that nothing reads."""
    near = nearest(name, process.OUR_VARIABLES)
    remedy = f"did you mean {near[0]}?" if near else f"there is {', '.join(process.OUR_VARIABLES)}"
    return f"nothing reads {name}; {remedy}"


# Small things ---------------------------------------------------------------------------------------------------------


def find_existing_folder(path: Path) -> Path:
    """Returns the path where it is a folder, else the nearest folder above it that exists."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def read_kernel_file(path: str) -> str:
    """Returns the text of a small file in which the kernel says something, or "" where it cannot be read."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def read_first_line(path: str) -> str:
    """Returns the first line of a small file in which the kernel says something, or "" where it cannot be read."""
    return read_kernel_file(path).partition("\n")[0].strip()


def round_to_tenth(number: float | None) -> float | None:
    """Rounds a number to one decimal place; None stays None."""
    return None if number is None else round(number, 1)
