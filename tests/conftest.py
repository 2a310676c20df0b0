"""What all tests share: one compilation cache, one core for each worker, and the CPU-seconds of each test file."""

import os
import resource
import shutil
import tempfile
import time
from collections import defaultdict

import pytest

from cnn_vit.files import cache

CACHE = "JAX_COMPILATION_CACHE_DIR"
REMEMBERED = "CNN_VIT_CACHE"  # what is known of the files of tests is nobody else's
OURS = "CNN_VIT_TESTS_MADE_CACHE"  # set by the process that made the folder, read by its workers


def pytest_configure(config):
    """Before jax is imported: workers and the processes that tests start read what others compiled."""
    if CACHE not in os.environ:
        os.environ[CACHE] = os.environ[OURS] = tempfile.mkdtemp(prefix="cnn_vit_tests_")
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
        config.made_cache = os.environ[CACHE]
    os.environ.setdefault(REMEMBERED, os.path.join(os.environ[CACHE], "cnn_vit"))
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})
    config.cpu_seconds = defaultdict(float)


def pytest_unconfigure(config):
    if made := getattr(config, "made_cache", None):
        shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(autouse=True)
def _cache_of_tests():
    """The cache of the tests, as each command settles it, for what reads data without a command."""
    cache.configure(folder=os.environ[REMEMBERED])


def spent() -> float:
    """CPU-seconds of this process and of those it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    item.config.began = spent()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    now = spent()
    report.cpu_seconds, item.config.began = now - item.config.began, now
    return report


def pytest_runtest_logreport(report):
    if hasattr(report, "cpu_seconds") and (config := getattr(pytest_terminal_summary, "config", None)):
        config.cpu_seconds[report.nodeid.partition("::")[0]] += report.cpu_seconds


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session):
    pytest_terminal_summary.config = session.config


def pytest_terminal_summary(terminalreporter, config):
    """The CPU-seconds of each file, most first, and of all together."""
    found = sorted(config.cpu_seconds.items(), key=lambda pair: -pair[1])
    if not found:
        return
    terminalreporter.section("CPU-seconds of each test file")
    for name, seconds in found:
        terminalreporter.line(f"{seconds:8.1f}  {name}")
    terminalreporter.line(f"{sum(config.cpu_seconds.values()):8.1f}  in all")
