"""What is set before jax is imported, and that what the user has set stays."""

import ctypes
import os
import subprocess
import sys

import pytest

from cnn_vit import process
from cnn_vit.errors import UserError


@pytest.fixture(autouse=True)
def _before_jax(monkeypatch):
    monkeypatch.delitem(sys.modules, "jax", raising=False)
    monkeypatch.setattr(process, "keep_pages", lambda: "keeps freed pages")  # it would last for the other tests


def test_compiled_programs_are_cached_whatever_their_size(tmp_path):
    environ = {"CNN_VIT_CACHE": str(tmp_path / "new")}
    prepared = process.prepare(environ)
    assert prepared.cache == str(tmp_path / "new" / "xla")
    assert environ["JAX_COMPILATION_CACHE_DIR"] == prepared.cache
    assert environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0"
    assert environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] == "-1"
    assert prepared.allocator == "keeps freed pages"
    assert not (tmp_path / "new").exists()  # jax makes it


def test_what_the_user_has_set_stays(tmp_path):
    theirs = {"JAX_COMPILATION_CACHE_DIR": "theirs", "TF_CPP_MIN_LOG_LEVEL": "0", "CNN_VIT_TUNE": "0", "HOME": "x"}
    environ = dict(theirs)
    prepared = process.prepare(environ)
    assert {key: environ[key] for key in theirs} == theirs
    assert (prepared.cache, prepared.allocator) == ("theirs", "left alone: CNN_VIT_TUNE=0")
    assert prepared.environment.keys() == theirs.keys() - {"HOME"}


def test_without_a_writable_folder_nothing_is_cached_and_the_reason_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    environ = {"CNN_VIT_CACHE": str(tmp_path / "file" / "deeper")}
    prepared = process.prepare(environ)
    assert prepared.cache is None
    assert prepared.why_no_cache == f"{tmp_path / 'file'} cannot be written; set CNN_VIT_CACHE to a folder that can"
    assert "JAX_COMPILATION_CACHE_DIR" not in environ

    monkeypatch.setattr(process.os.path, "expanduser", lambda path: path)  # no HOME and no such user
    assert process.prepare({}).why_no_cache.startswith("there is no home folder; set CNN_VIT_CACHE")


def test_nothing_is_set_once_jax_is_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", sys)
    environ: dict[str, str] = {}
    assert process.prepare(environ).allocator == "left alone: jax was imported before"
    assert environ == {}


def test_the_variables_of_downloads_are_read():
    environ = {"CNN_VIT_CACHE": "/c", "CNN_VIT_OFFLINE": "1", "CNN_VIT_MIRROR": "https://a.org"}
    assert process.cache_environment(environ) == {"folder": "/c", "offline": True, "mirror": "https://a.org"}
    for unset in ({}, dict.fromkeys(environ, ""), {"CNN_VIT_OFFLINE": "0"}):
        assert not any(process.cache_environment(unset).values())
    with pytest.raises(UserError, match="CNN_VIT_OFFLINE=yes is neither 0 nor 1; 1 forbids downloads"):
        process.cache_environment({"CNN_VIT_OFFLINE": "yes"})


def test_compiler_options_are_tuned_unless_forbidden():
    assert process.compiler_environment({}) == process.CompilerEnvironment(True, {})
    assert process.compiler_environment({"CNN_VIT_TUNE": "1"}).is_tuned
    assert not process.compiler_environment({"CNN_VIT_TUNE": "0"}).is_tuned


def test_the_flags_of_xla_are_read_as_xla_reads_them(tmp_path):
    def flags(text):
        return process.compiler_environment({"XLA_FLAGS": text}).flags

    assert flags("--xla_a=1  --xla_b= --xla_c") == {"xla_a": "1", "xla_b": "", "xla_c": "true"}
    assert flags("--xla_a=1 --xla_a=2") == {"xla_a": "2"}
    assert flags("--xla_dir='a folder' --xla_b=c,d") == {"xla_dir": "a folder", "xla_b": "c,d"}
    assert flags("--xla_a='1") == {"xla_a": "'1"}
    (tmp_path / "flags.txt").write_text("--xla_a=1\n--xla_b=2\n")
    assert flags(str(tmp_path / "flags.txt")) == {"xla_a": "1", "xla_b": "2"}
    assert flags(str(tmp_path / "missing.txt")) == flags("") == flags("\0") == {}


MACHINE = {"/proc/meminfo": "MemTotal:       24684132 kB\nMemAvailable:   20000000 kB\nSwapFree:        9999999 kB\n"}
V2, V1 = "/sys/fs/cgroup/memory.", "/sys/fs/cgroup/memory/memory."


def in_group(name, limit, used, version_1=""):
    """The files of a control group of a scheduler, inside its own."""
    folder = f"/sys/fs/cgroup{version_1}/slurm/{name}".rstrip("/")
    names = ("limit_in_bytes", "usage_in_bytes") if version_1 else ("max", "current")
    return {f"{folder}/memory.{names[0]}": f"{limit}\n", f"{folder}/memory.{names[1]}": f"{used}\n"}


@pytest.mark.parametrize(
    ("kernel_files", "free"),
    [
        ({}, None),
        (MACHINE, 20_480_000_000),  # the swap does not count
        ({**MACHINE, f"{V2}max": "max\n", f"{V2}current": "500\n"}, 20_480_000_000),
        ({**MACHINE, f"{V2}max": "800\n", f"{V2}current": "500\n"}, 300),
        ({f"{V2}max": "800\n", f"{V2}current": "500\n", f"{V2}stat": "inactive_file 60\nactive_file 7\n"}, 367),
        ({f"{V2}max": "800\n", f"{V2}current": "900\n"}, 0),
        ({f"{V1}limit_in_bytes": "800\n", f"{V1}usage_in_bytes": "500\n", f"{V1}stat": "total_active_file 7\n"}, 307),
        ({**MACHINE, f"{V1}limit_in_bytes": f"{2**63 - 4096}\n", f"{V1}usage_in_bytes": "500\n"}, 20_480_000_000),
        ({**in_group("job", 800, 500), "/proc/self/cgroup": "0::/slurm/job\n"}, 300),
        ({**in_group("job", 800, 500), **in_group("", 900, 700), "/proc/self/cgroup": "0::/slurm/job/step\n"}, 200),
        ({**in_group("job", 800, 500), "/proc/self/cgroup": "0::/slurm/other\n"}, None),
        ({**in_group("job", 800, 500), "/proc/self/cgroup": "0::/../slurm/job\n"}, None),
        ({**in_group("job", 800, 500, "/memory"), "/proc/self/cgroup": "4:cpuset,memory:/slurm/job\n0::/\n"}, 300),
        ({**in_group("job", 800, 500, "/memory"), "/proc/self/cgroup": "4:hugememory:/slurm/job\n0::/\n"}, None),
    ],
)
def test_free_is_what_the_machine_has_and_what_the_control_group_leaves(monkeypatch, kernel_files, free):
    monkeypatch.setattr(process, "read_kernel_file", lambda path: kernel_files.get(path, ""))
    assert process.free_memory() == free


@pytest.mark.parametrize(("status", "peak"), [("VmPeak:\t 9 kB\nVmHWM:\t    20 kB\nVmRSS: 7 kB\n", 20_480), ("", None)])
def test_the_peak_of_memory_is_the_high_water_mark_of_what_was_resident(monkeypatch, status, peak):
    monkeypatch.setattr(process, "read_kernel_file", {"/proc/self/status": status}.get)
    assert process.peak_memory() == peak


needs_glibc = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="this is not glibc from 2.33 on")
HEAP_OF_A_PROCESS = """
import ctypes, sys
from cnn_vit import process
if sys.argv[1] == "kept":
    process.keep_pages()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
size = 64 * 2**20
def heap_in_use():
    statistics = process.heap_statistics()
    return None if statistics is None else statistics.uordblks
sizes, in_use = [resident()], [heap_in_use()]
block = libc.malloc(ctypes.c_size_t(size))
ctypes.memset(block, 1, size)
libc.malloc(ctypes.c_size_t(2**20))  # stands above it, so that it is not the heap's end that is freed
sizes.append(resident()); in_use.append(heap_in_use())
libc.free(ctypes.c_void_p(block))
sizes.append(resident()); in_use.append(heap_in_use())
process.release_free_pages()
sizes.append(resident())
print(*[round((size - sizes[0]) / 2**20) for size in sizes], in_use[0] is None or (in_use[1] - in_use[0]) // 2**20,
      in_use[0] is None or (in_use[2] - in_use[0]) // 2**20)
"""


def heap_of_a_process(mode):
    """What a process of its own says of 64 MB: resident before, with them, freed, released; in use with them, freed."""
    command = [sys.executable, "-c", HEAP_OF_A_PROCESS, mode]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


@needs_glibc
def test_pages_that_are_kept_are_given_back_where_that_is_asked_for():
    before, allocated, freed, released, in_use, in_use_after = map(int, heap_of_a_process("kept"))
    assert before == 0
    assert min(allocated, freed) >= 64  # freed, they are still there
    assert released < 8
    assert (in_use, in_use_after) == (65, 1)


@needs_glibc
def test_the_heap_is_left_alone_where_pages_are_not_kept():
    *_, in_use, in_use_after = heap_of_a_process("left alone")
    assert (in_use, in_use_after) == ("True", "True")  # it does not say


@pytest.mark.parametrize("variable", ["JAX_PLATFORMS", pytest.param("JAX_PLATFORM_NAME", marks=pytest.mark.slow)])
def test_a_platform_that_is_not_here_is_told_by_the_variable_that_asks_for_it(variable):
    program = "from cnn_vit import process; process.find_devices()"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_PLATFORM")}
    command = [sys.executable, "-c", program]
    finished = subprocess.run(command, env=environment | {variable: "tpu"}, capture_output=True, text=True, check=False)
    sentence = f"{variable}=tpu asks for devices that jax does not find here; unset {variable} to compute on what there"
    assert sentence in finished.stderr.splitlines()[-1]
