"""What all tests share: one compilation cache, one core for each worker, and a table of CPU-seconds by test file."""

import os
import resource
import shutil
import tempfile
import time
from collections import defaultdict

import pytest

from cnn_vit.files import cache

COMPILED = "JAX_COMPILATION_CACHE_DIR"
CACHE = "CNN_VIT_CACHE"  # the tests have their own, so that nothing they scan enters the user's


def pytest_configure(config):
    """Sets up the cache before jax is imported, so that workers and processes of tests read what others compiled."""
    if COMPILED not in os.environ:
        os.environ[COMPILED] = tempfile.mkdtemp(prefix="cnn_vit_tests_")
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
        config.made_cache = os.environ[COMPILED]
    os.environ.setdefault(CACHE, os.path.join(os.environ[COMPILED], "cnn_vit"))
    # Workers that share cores slow each other down: XLA starts a thread for each core that it sees.
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})
    config.cpu_seconds = defaultdict(float)


def pytest_unconfigure(config):
    """Removes the cache in the process that made it."""
    made_cache = getattr(config, "made_cache", None)
    if made_cache:
        shutil.rmtree(made_cache, ignore_errors=True)


@pytest.fixture(autouse=True)
def _configure_cache():
    """Configures the cache of the tests, as each command does, for tests that read data without a command."""
    cache.configure(folder=os.environ[CACHE])


@pytest.fixture(scope="module")
def _compiled_quickly():
    """Compiles each program of a file's steps and runs quickly, and forgets them at the end of the file.

    It is for files whose programs run a few times, and not for one that compares bits with those of another process, or
    looks at what is compiled.
    """
    from quick import compile_quickly  # here, because the cache is set up before jax is imported

    with compile_quickly():
        yield


def measure_cpu_seconds() -> float:
    """CPU-seconds so far of this process and of the processes that it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    item.config.began = measure_cpu_seconds()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    now = measure_cpu_seconds()
    report.cpu_seconds = now - item.config.began
    item.config.began = now
    return report


def pytest_runtest_logreport(report):
    # This hook is not given the config, so `pytest_sessionstart` leaves it on the function below.
    config = getattr(pytest_terminal_summary, "config", None)
    if config and hasattr(report, "cpu_seconds"):
        config.cpu_seconds[report.nodeid.partition("::")[0]] += report.cpu_seconds


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session):
    pytest_terminal_summary.config = session.config


def pytest_terminal_summary(terminalreporter, config):
    """Prints the CPU-seconds of each test file, most first, and of all together."""
    seconds_by_file = sorted(config.cpu_seconds.items(), key=lambda pair: -pair[1])
    if not seconds_by_file:
        return
    terminalreporter.section("CPU-seconds of each test file")
    for name, seconds in seconds_by_file:
        terminalreporter.line(f"{seconds:8.1f}  {name}")
    terminalreporter.line(f"{sum(config.cpu_seconds.values()):8.1f}  in all")
