"""Commands in processes of their own, and signals that end them."""

import math
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 600  # seconds until a process that comes to no end fails its test
WITHIN = 5.0  # seconds that a process may go on after a signal, on a machine that has nothing else to do
STARTS_AGAIN = "stopped by {}; the same command starts again"
FINISHING = "{}: finishing the step and saving; a second one stops at once"


def start(words, **environment):
    """Starts a command as a user does; keywords are variables of its environment."""
    command = [sys.executable, "-m", "cnn_vit", *words]
    environ = {**os.environ, **environment}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ)


def read_kernel_file(process, name):
    """The text of a file in which the kernel tells of a process; "" once the process is gone."""
    try:
        return Path(f"/proc/{process.pid}/{name}").read_text()
    except OSError:
        return ""


def handles_signals(process):
    """Whether a process handles signals by now: it has a handler for SIGTERM, which it installs last."""
    caught = re.search(r"^SigCgt:\s*(\w+)$", read_kernel_file(process, "status"), re.M)
    return caught is not None and int(caught[1], 16) & 1 << signal.SIGTERM - 1 != 0


def imports_jax(process):
    """Whether a process has begun to import jax: jax's library is in its memory."""
    return "jaxlib" in read_kernel_file(process, "maps")


def cpu_seconds(process):
    """CPU-seconds that a process has used, all its threads together; infinite once it is gone."""
    _, _, fields = read_kernel_file(process, "stat").rpartition(") ")  # behind the name, which may hold blanks
    if not fields:
        return math.inf
    user, system = fields.split()[11:13]  # utime and stime in the list of `man proc_pid_stat`, of which two are gone
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def wait_until(process: subprocess.Popen, is_reached: Callable[[], bool]) -> None:
    """Waits until a process has reached something, or has ended."""
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and not is_reached():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def measure_life(process: subprocess.Popen, *causes: Callable[[], bool]) -> tuple[list[float], str]:
    """Lets a process come to its end, with exit code 0.

    Returns:
        The CPU-seconds that it has used when it reaches each cause, in this order, and at its end; and its stdout.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    marks = []
    for is_reached in causes:
        wait_until(process, is_reached)
        marks.append(cpu_seconds(process))
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    marks.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert marks == sorted(marks)
    return marks, stdout


def seconds_allowed():
    """Seconds that a process may go on after a signal: WITHIN, and more where others want the cores as well."""
    return WITHIN * max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))


@dataclass(frozen=True)
class Ending:
    """How a process ended after a signal.

    Attributes:
        number: of the signal.
        code: its exit code.
        lines: of stderr.
        stdout: what it printed there.
    """

    number: signal.Signals
    code: int
    lines: list[str]
    stdout: str

    def says(self, *patterns):
        """Whether the last line of stderr matches a pattern, in which {} stands for the name of the signal."""
        return any(re.fullmatch(pattern.format(self.number.name), self.lines[-1]) for pattern in patterns)


def end_by_signal(process: subprocess.Popen, number: signal.Signals) -> Ending:
    """Sends a process a signal, and returns how it ended.

    It did so soon and without a traceback: with the signal's code and one last sentence of it, or with exit code 0 and
    no word of it.
    """
    began = time.monotonic()
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=PATIENCE)
    seconds = time.monotonic() - began
    ending = Ending(number, process.returncode, stderr.splitlines(), stdout)
    for word in ("Traceback", "Exception", "Error", "Fatal"):
        assert word not in stderr, stderr
    sentences = [line for line in ending.lines if number.name in line and line != FINISHING.format(number.name)]
    if ending.code:
        assert ending.code == 128 + number, stderr
        assert sentences == ending.lines[-1:], stderr
    else:
        assert sentences == [], stderr
    assert seconds < seconds_allowed(), (seconds, ending)
    return ending
