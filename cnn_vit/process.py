"""What has to be set before jax is imported: memory, the compilation cache, quiet logs. For `__main__` alone.

The variables of downloads are read here too, for `__main__` and the public door to hand on.

XLA on a CPU allocates its buffers anew at every call, and glibc answers large requests with fresh pages: a page fault
per 4 KiB of each step. Keeping what was freed makes a small CNN 1.8 times as fast, a small ViT 1.3 times, for 0 to 40 %
more memory. Threads are left to XLA.

Environment:
    CNN_VIT_CACHE    folder of everything cached, ~/.cache/cnn_vit by default; compiled programs go to its `xla`
    CNN_VIT_TUNE     0 leaves the allocator alone
    CNN_VIT_OFFLINE  1 forbids downloads
    CNN_VIT_MIRROR   where downloads come from instead: a folder or an address that holds HOST/PATH of each
"""

import ctypes
import logging
import os
import platform
import sys
import warnings
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any, NamedTuple

from cnn_vit.errors import UserError

OUR_VARIABLES = ("CNN_VIT_CACHE", "CNN_VIT_MIRROR", "CNN_VIT_OFFLINE", "CNN_VIT_TUNE")
OTHER_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "JAX_",
    "LD_PRELOAD",
    "MALLOC_",
    "NVIDIA_",
    "OMP_NUM_THREADS",
    "TF_CPP_",
    "XLA_",
)
MALLOPT = {"M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, -1), "M_ARENA_MAX": (-8, 1)}  # numbers of glibc's malloc.h


class Prepared(NamedTuple):
    """What was set, for `doctor` to say.

    Attributes:
        allocator: what became of the allocator, a phrase.
        cache: folder of compiled programs, or None.
        why_no_cache: the reason where there is none, a phrase; else "".
        environment: variables at hand that bear on a run.
    """

    allocator: str
    cache: str | None
    why_no_cache: str
    environment: dict[str, str]


def prepare(environ: MutableMapping[str, str] = os.environ) -> Prepared:
    """Sets up the process; what the user has set already stays. Too late once jax is imported: then only tells."""
    found = {key: environ[key] for key in sorted(environ) if key.startswith(("CNN_VIT_", *OTHER_VARIABLES))}
    cache, why = cache_folder(environ)
    if "jax" in sys.modules:
        return Prepared("left alone: jax was imported before", environ.get("JAX_COMPILATION_CACHE_DIR"), "", found)
    if cache:
        environ.setdefault("JAX_COMPILATION_CACHE_DIR", cache)
        environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only
    logging.getLogger("absl").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")  # then it compiles anew
    tuned = environ.get("CNN_VIT_TUNE") != "0"
    return Prepared(keep_pages() if tuned else "left alone: CNN_VIT_TUNE=0", cache, why, found)


def cache_environment(environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """What the variables say of downloads, as `files.cache.configure` takes it."""
    offline = environ.get("CNN_VIT_OFFLINE") or "0"
    if offline not in ("0", "1"):
        raise UserError(f"CNN_VIT_OFFLINE={offline} is neither 0 nor 1; 1 forbids downloads")
    return {
        "folder": environ.get("CNN_VIT_CACHE"),
        "offline": offline == "1",
        "mirror": environ.get("CNN_VIT_MIRROR"),
    }


def keep_pages() -> str:
    """Tells glibc to keep freed memory for the next step; says what was done."""
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return "left alone: not Linux with glibc"
    libc = ctypes.CDLL(None)
    done = [name for name, (option, value) in MALLOPT.items() if libc.mallopt(option, value) == 1]
    return f"keeps freed pages ({', '.join(done)})" if len(done) == len(MALLOPT) else f"glibc took only {done}"


def cache_folder(environ: MutableMapping[str, str]) -> tuple[str | None, str]:
    """The folder of compiled programs, or None and why. Nothing is written here: jax makes the folder."""
    if folder := environ.get("JAX_COMPILATION_CACHE_DIR"):
        return folder, ""
    home = os.path.expanduser("~")
    if not environ.get("CNN_VIT_CACHE") and not os.path.isabs(home):
        return None, "there is no home folder; set CNN_VIT_CACHE to a folder that can be written"
    folder = os.path.join(
        os.path.abspath(environ.get("CNN_VIT_CACHE") or os.path.join(home, ".cache", "cnn_vit")), "xla"
    )
    first = next(place for place in (Path(folder), *Path(folder).parents) if os.path.lexists(place))
    if not (os.path.isdir(first) and os.access(first, os.W_OK | os.X_OK)):
        return None, f"{first} cannot be written; set CNN_VIT_CACHE to a folder that can"
    return folder, ""


def no_device_sentence(why: str) -> str:
    """The sentence for a jax that finds nothing to compute on."""
    return f"jax finds no device ({why}); unset JAX_PLATFORMS or install its drivers"
