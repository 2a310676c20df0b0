"""Sets what has to be set before jax is imported: memory, the compilation cache, quiet logs; and tells what is free.

The command line prepares the process; nothing else does. The variables of downloads are read here too, for the command
line and the public door to hand on, and those that bear on compiler options, for `compilation`.

XLA on a CPU allocates its buffers anew at every call, and glibc answers large requests with fresh pages: a page fault
for each 4 KiB of every step. Keeping the freed pages makes a small CNN 1.8 times as fast, a small ViT 1.3 times. But
what is kept stays in memory: what the compiler took is given back once the step is compiled (`release_free_pages`),
and of a large step only one is in memory at a time (`training/memory.py`), so that this costs little memory.
Threads are left to XLA.

Environment:
    CNN_VIT_CACHE    folder of everything cached, ~/.cache/cnn_vit by default; compiled programs go to its `xla`
    CNN_VIT_TUNE     0 leaves the allocator and the compiler options alone
    CNN_VIT_OFFLINE  1 forbids downloads
    CNN_VIT_MIRROR   where downloads come from instead: a folder or an address that holds HOST/PATH of each
"""

import ctypes
import logging
import os
import platform
import re
import shlex
import sys
import warnings
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn_vit.errors import SurroundingsError, UserError

if TYPE_CHECKING:
    import jax

# Variables of the environment that bear on a run; those of others count by how they begin.
OUR_VARIABLES = ("CNN_VIT_CACHE", "CNN_VIT_MIRROR", "CNN_VIT_OFFLINE", "CNN_VIT_TUNE")
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"  # of NVIDIA's libraries, and of AMD's too
PLATFORM_VARIABLES = ("JAX_PLATFORMS", "JAX_PLATFORM_NAME")  # by which users ask jax for a kind of device
OTHER_VARIABLES = (
    VISIBLE_GPUS,
    "JAX_",
    "LD_PRELOAD",
    "MALLOC_",
    "NVIDIA_",
    "OMP_NUM_THREADS",
    "TF_CPP_",
    "XLA_",
)


@dataclass(frozen=True)
class ControlGroups:
    """Where one version of Linux's control groups tells how much memory they may use.

    Attributes:
        line: what the line of /proc/self/cgroup begins with that has the path of this process's group.
        folder: of the outermost group; those inside it are folders below.
        limit: name of the file with the limit, in bytes.
        used: name of the file with what the group uses, in bytes.
        prefix: what the names in memory.stat begin with that count the groups inside, too.
    """

    line: str
    folder: str
    limit: str
    used: str
    prefix: str


CONTROL_GROUPS = (
    ControlGroups(r"0::", "/sys/fs/cgroup", "memory.max", "memory.current", ""),
    ControlGroups(
        r"\d+:(?:[^:]*,)?memory(?:,[^:]*)?:",
        "/sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_",
    ),
)
MALLOPT = {"M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, -1), "M_ARENA_MAX": (-8, 1)}  # of glibc's malloc.h


@dataclass(frozen=True)
class Prepared:
    """What `prepare` set, for `doctor` to say.

    Attributes:
        allocator: what became of the allocator, a phrase.
        cache: the folder of compiled programs, or None.
        why_no_cache: the reason where there is no such folder, a phrase; else "".
        environment: the variables that bear on a run, as the user set them.
    """

    allocator: str
    cache: str | None
    why_no_cache: str
    environment: dict[str, str]


def prepare(environ: MutableMapping[str, str] = os.environ) -> Prepared:
    """Sets up the process; what the user has set already stays.

    Once jax is imported it is too late: then nothing is set, and the answer only tells what is so.
    """
    prefixes = ("CNN_VIT_", *OTHER_VARIABLES)
    variables = {name: environ[name] for name in sorted(environ) if name.startswith(prefixes)}
    cache, why_no_cache = cache_folder(environ)
    if "jax" in sys.modules:
        cache = environ.get("JAX_COMPILATION_CACHE_DIR")
        return Prepared("left alone: jax was imported before", cache, "", variables)
    if cache:
        environ.setdefault("JAX_COMPILATION_CACHE_DIR", cache)
        # jax by default keeps only programs that took a second to compile: ours are many and small
        environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only
    logging.getLogger("absl").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")  # then it compiles anew
    is_tuned = environ.get("CNN_VIT_TUNE") != "0"
    allocator = keep_pages() if is_tuned else "left alone: CNN_VIT_TUNE=0"
    return Prepared(allocator, cache, why_no_cache, variables)


@dataclass(frozen=True)
class CompilerEnvironment:
    """What the environment says of compiler options.

    Attributes:
        is_tuned: whether cnn_vit chooses options; CNN_VIT_TUNE=0 forbids it.
        flags: what the user sets in XLA_FLAGS, by name without the dashes.
    """

    is_tuned: bool
    flags: dict[str, str]


def compiler_environment(environ: Mapping[str, str] = os.environ) -> CompilerEnvironment:
    """Returns what the variables say of compiler options."""
    return CompilerEnvironment(environ.get("CNN_VIT_TUNE") != "0", read_xla_flags(environ.get("XLA_FLAGS", "")))


def read_xla_flags(text: str) -> dict[str, str]:
    """Reads flags such as "--xla_a=1 --xla_b=" into their values by name; where one is repeated, the last counts.

    As XLA has it, a text that does not begin with a dash is the path of a file of flags, and a flag without a value is
    true.
    """
    text = text.strip()
    if text and not text.startswith("-"):
        try:
            text = Path(text).read_text()
        except (OSError, ValueError):  # XLA passes over a file that cannot be read
            return {}
    try:
        words = shlex.split(text)
    except ValueError:  # a quote that is never closed
        words = text.split()
    flags = {}
    for word in words:
        name, equals, value = word.partition("=")
        flags[name.lstrip("-")] = value if equals else "true"
    return flags


def usable_cores() -> list[int]:
    """Returns the numbers of the cores that this process may compute on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def compute_on(cores: Sequence[int]) -> None:
    """Has this process compute on these cores alone, where the system can do that; libraries then count only them."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def find_devices() -> list["jax.Device"]:
    """Returns the devices that jax computes on.

    Raises:
        SurroundingsError: jax finds none of the platform that the environment asks for.
    """
    import jax

    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter where JAX_PLATFORMS names a platform without a plugin
        raise SurroundingsError(no_device_sentence(str(error))) from error


def no_device_sentence(cause: str) -> str:
    """Says that jax finds nothing to compute on, and the remedy; `cause` is jax's own sentence."""
    requests = [f"{name}={os.environ[name]}" for name in PLATFORM_VARIABLES if os.environ.get(name)]
    if not requests:
        return f"jax finds no device to compute on ({' '.join(cause.split())}); reinstall jax"
    names = " and ".join(request.partition("=")[0] for request in requests)
    return (
        f"{' and '.join(requests)} asks for devices that jax does not find here; unset {names} to compute on what "
        "there is, or install what these devices need (pip install 'cnn_vit[cuda]' for NVIDIA's)"
    )


def asks_for_cpu(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment tells jax to compute on the CPU alone."""
    return environ.get("JAX_PLATFORMS") == "cpu"


def gpu_variables(count: int, environ: Mapping[str, str] = os.environ) -> list[dict[str, str]]:
    """Returns for each GPU that this process sees the variables by which another process sees that one alone.

    Args:
        count: how many this process sees, or fewer that are wanted.
        environ: the environment, which may have said which they are, by number or by name; "" hides all.
    """
    named = environ.get(VISIBLE_GPUS)
    names = [str(number) for number in range(count)] if named is None else named.split(",")
    return [{VISIBLE_GPUS: name.strip()} for name in names[:count]]


def child_environment(variables: Mapping[str, str], environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Returns the environment of a process that has that of this one, with some variables over it."""
    return {**environ, **variables}


def set_variables(variables: Mapping[str, str], environ: MutableMapping[str, str] = os.environ) -> None:
    """Sets variables of this process's environment, for the libraries that are imported later."""
    environ.update(variables)


def cache_environment(environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Returns what the variables say of downloads, as the keywords of `files.cache.configure`.

    Raises:
        UserError: CNN_VIT_OFFLINE is neither 0 nor 1.
    """
    offline = environ.get("CNN_VIT_OFFLINE") or "0"
    if offline not in ("0", "1"):
        raise UserError(f"CNN_VIT_OFFLINE={offline} is neither 0 nor 1; 1 forbids downloads")
    return {
        "folder": environ.get("CNN_VIT_CACHE"),
        "offline": offline == "1",
        "mirror": environ.get("CNN_VIT_MIRROR"),
    }


def keep_pages() -> str:
    """Tells glibc to keep freed memory for the next step, and says what was done, as a phrase."""
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return "left alone: not Linux with glibc"
    libc = ctypes.CDLL(None)
    accepted = [name for name, (option, value) in MALLOPT.items() if libc.mallopt(option, value) == 1]
    if len(accepted) < len(MALLOPT):
        return f"glibc took only {accepted}"
    Heap.keeps_pages = True
    return f"keeps freed pages ({', '.join(accepted)})"


class Heap:
    """What this process has set of glibc's heap, for as long as it lives.

    Attributes:
        keeps_pages: whether freed pages are kept for the next step.
    """

    keeps_pages = False


class HeapStatistics(ctypes.Structure):
    """What glibc's `mallinfo2` returns: ten numbers.  Source: man mallinfo2.

    Attributes:
        arena: bytes that the heap spans, whether their pages are in memory or were given back.
        uordblks: bytes of them that are in use.
    """

    _fields_ = (
        ("arena", ctypes.c_size_t),
        ("ordblks", ctypes.c_size_t),
        ("smblks", ctypes.c_size_t),
        ("hblks", ctypes.c_size_t),
        ("hblkhd", ctypes.c_size_t),
        ("usmblks", ctypes.c_size_t),
        ("fsmblks", ctypes.c_size_t),
        ("uordblks", ctypes.c_size_t),
        ("fordblks", ctypes.c_size_t),
        ("keepcost", ctypes.c_size_t),
    )


def release_free_pages() -> None:
    """Gives the pages that are free now back to the system; those freed later are kept again.

    Does nothing where freed pages are not kept.
    """
    if Heap.keeps_pages:
        ctypes.CDLL(None).malloc_trim(0)


def heap_statistics() -> HeapStatistics | None:
    """Reads the size and the use of the heap, in 0.1 to 0.2 ms; None where freed pages are not kept."""
    libc = ctypes.CDLL(None)
    if not Heap.keeps_pages or not hasattr(libc, "mallinfo2"):  # glibc has it from 2.33 on
        return None
    libc.mallinfo2.restype = HeapStatistics
    return libc.mallinfo2()


def free_memory() -> int | None:
    """Returns the bytes of memory that this process may still take, or None where the system does not say.

    It is what the machine has available without swapping, or what the limit of its control group leaves, or of one
    that this group lies in, whichever is least.

    Sources: docs.kernel.org/filesystems/proc.html (MemAvailable), docs.kernel.org/admin-guide/cgroup-v2.html and
    cgroup-v1/memory.html.
    """
    sizes = []
    available = re.search(r"^MemAvailable:\s+(\d+) kB$", read_kernel_file("/proc/meminfo"), re.M)
    if available:
        sizes.append(1024 * int(available[1]))
    for groups in CONTROL_GROUPS:
        for folder in list_control_groups(groups):
            limit, used = (read_kernel_file(f"{folder}/{name}").strip() for name in (groups.limit, groups.used))
            if limit.isdigit() and used.isdigit():  # version 2 writes "max" where there is no limit
                # contents of files that the kernel keeps count as used; it drops them where a program needs the room
                statistics = read_kernel_file(f"{folder}/memory.stat")
                droppable = re.findall(rf"^{groups.prefix}(?:in)?active_file (\d+)$", statistics, re.M)
                sizes.append(max(0, int(limit) - int(used) + sum(map(int, droppable))))
    return min(sizes, default=None)


def peak_memory() -> int | None:
    """Returns the most bytes of memory that this process has had at once, or None where the system does not say.

    Source: docs.kernel.org/filesystems/proc.html (VmHWM).
    """
    peak = re.search(r"^VmHWM:\s+(\d+) kB$", read_kernel_file("/proc/self/status"), re.M)
    return 1024 * int(peak[1]) if peak else None


def list_control_groups(groups: ControlGroups) -> list[str]:
    """Lists the folders of the outermost control group, and of each one inside that this process belongs to.

    A container may see the path of its group on the host, where its own /sys does not show such a folder: then the
    outermost folder is the container's.
    """
    folders = [groups.folder]
    line = re.search(rf"^{groups.line}/(.*)$", read_kernel_file("/proc/self/cgroup"), re.M)
    if line is None or ".." in line[1]:  # a group outside of what the container sees
        return folders
    for name in line[1].split("/"):
        if name:
            folders.append(f"{folders[-1]}/{name}")
    return folders


def read_kernel_file(path: str) -> str:
    """Returns the text of a small file in which the kernel says something, or "" where it cannot be read."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def cache_folder(environ: MutableMapping[str, str]) -> tuple[str | None, str]:
    """Finds the folder of compiled programs: its path and "", or None and why there is none.

    Nothing is written here: jax makes the folder.
    """
    chosen = environ.get("JAX_COMPILATION_CACHE_DIR")
    if chosen:
        return chosen, ""
    home = os.path.expanduser("~")
    if not environ.get("CNN_VIT_CACHE") and not os.path.isabs(home):
        return None, "there is no home folder; set CNN_VIT_CACHE to a folder that can be written"
    cache = environ.get("CNN_VIT_CACHE") or os.path.join(home, ".cache", "cnn_vit")
    folder = os.path.join(os.path.abspath(cache), "xla")
    existing = next(place for place in (Path(folder), *Path(folder).parents) if os.path.lexists(place))
    if not (os.path.isdir(existing) and os.access(existing, os.W_OK | os.X_OK)):
        return None, f"{existing} cannot be written; set CNN_VIT_CACHE to a folder that can"
    return folder, ""
