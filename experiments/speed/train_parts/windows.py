"""Starts arms as processes of their own and measures windows of them, with the idle ones stopped.

OpenMP's threads spin while they wait, and XLA's wake now and then, so that an idle arm would slow down the one that is
measured: it is stopped by SIGSTOP, and continued before its next window.

A window is quiet unless other processes used much of the cores meanwhile, or this arm got much less CPU time than in
its best window. One that is not quiet is measured again, some times; what is never quiet is kept and marked.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from train_parts.rows import Arm, Row

TRAIN = Path(__file__).parents[1] / "train.py"
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100  # of /proc/stat, a second
MOST_OTHERS = 0.10  # share of the cores that other processes may use during a quiet window
LEAST_OWN = 0.85  # of the arm's largest share of the cores; below it, something else had them
SHORTEST_JUDGED = 0.2  # seconds; a shorter window has too few ticks to judge others by
ROOM = 1.2  # times the memory of the largest arm must be free for the next
LONG = 10  # windows: a step that takes so long is not taken again only to see how long it takes
WARM_SHARE = 0.15  # of a window's steps are taken before it, and not timed


class ArmError(Exception):
    """Why an arm, and with it its row, cannot be measured: a sentence."""


class ArmProcess:
    """A running arm.

    Attributes:
        arm: which.
        job: what it was asked to get ready, with the time at which it was started.
        ready: what it said when it was ready.
        process: its process.
        seconds_per_step: of the last steps, by work.
        steps_taken: how many steps of each work were taken.
    """

    def __init__(self, arm: Arm, row: Row, *, values: Path, images: Path | None, env: dict):
        self.arm = arm
        self.seconds_per_step: dict[str, float] = {}
        self.steps_taken: Counter[str] = Counter()
        self.job = dict(
            row=asdict(row),
            arm=arm.name,
            values=str(values),
            images=str(images) if images else None,
            began=time.perf_counter(),
        )
        self.ready: dict[str, Any] = {}
        command = [sys.executable, str(TRAIN), "--serve"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def get_ready(self) -> None:
        """Waits until the arm has compiled and taken its first steps, then stops it."""
        self.ready = self.ask(self.job)
        self.stop()

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Sends one line and returns the answer.

        Raises:
            ArmError: the process has ended.
        """
        try:
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # its end is told below
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            raise ArmError(f"the arm {self.arm.name} ended with exit code {code}; its last lines say why")
        return json.loads(line)

    def stop(self) -> None:
        """Stops the process, so that its threads do not spin."""
        self.process.send_signal(signal.SIGSTOP)

    def measure(self, work: str, seconds: float) -> dict[str, Any]:
        """Continues the process, warms it up, measures a window of about so many seconds, and stops it again."""
        self.process.send_signal(signal.SIGCONT)
        # The first step of a work may compile, the second tells how long one takes. Very long ones are not repeated.
        while self.steps_taken[work] < 2 and self.seconds_per_step.get(work, 0.0) < LONG * seconds:
            self.take_steps(work, 1)
        steps = max(1, round(seconds / self.seconds_per_step[work]))
        if steps > 1:  # a step that is as long as a window warms up by itself
            self.take_steps(work, max(1, round(WARM_SHARE * steps)))
        ticks, began = busy_ticks(), time.perf_counter()
        window = self.take_steps(work, steps)
        elapsed, ticks = time.perf_counter() - began, busy_ticks() - ticks
        self.stop()
        capacity = elapsed * self.ready["cores"]
        window["own_share"] = window["cpu_seconds"] / capacity
        window["others_share"] = max(0.0, (ticks / TICKS - window["cpu_seconds"]) / capacity)
        return window

    def take_steps(self, work: str, steps: int) -> dict[str, Any]:
        """Lets the arm do a work so many times; returns what it measured."""
        window = self.ask({"work": work, "steps": steps})
        self.seconds_per_step[work] = window["seconds"] / steps
        self.steps_taken[work] += steps
        return window

    def end(self) -> None:
        """Ends the process, whatever it does."""
        self.process.kill()
        self.process.wait()


def refuse_full_memory(processes: Sequence[ArmProcess]) -> None:
    """Raises ArmError where the memory has no room for one arm more like the largest so far."""
    largest = max((process.ready["peak_rss_bytes"] for process in processes), default=0)
    free = available_bytes()
    if free is not None and free < ROOM * largest:
        raise ArmError(
            f"{free / 1e9:.1f} GB of memory are free and an arm takes {largest / 1e9:.1f}; measure fewer arms at once"
        )


def available_bytes() -> int | None:
    """Returns how much memory Linux could still give to processes; None on other systems."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    sizes = dict(line.split(":") for line in lines)
    return 1024 * int(sizes["MemAvailable"].removesuffix("kB"))


def busy_ticks() -> int:
    """Sums the ticks of all processes, on the cores that this one may use, from /proc/stat; 0 where there is none."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return 0
    names = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    ticks = 0
    for line in lines:
        name, *columns = line.split()
        if name in names:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, columns[:8])
            ticks += user + nice + system + irq + softirq + steal
    return ticks


def is_quiet(window: dict[str, Any], largest_own_share: float) -> bool:
    """Whether nothing else had much of the cores during a window.

    Args:
        window: as `ArmProcess.measure` returns it.
        largest_own_share: share of the cores that the arm had in its best window of this work.
    """
    if window["seconds"] < SHORTEST_JUDGED:
        return window["own_share"] >= LEAST_OWN * largest_own_share
    return window["others_share"] <= MOST_OTHERS and window["own_share"] >= LEAST_OWN * largest_own_share


@contextmanager
def running_arms(processes: list[ArmProcess]) -> Iterator[list[ArmProcess]]:
    """Within this context, the processes that are put into the list live."""
    try:
        yield processes
    finally:
        for process in processes:
            process.end()


def measure_rounds(
    processes: Sequence[ArmProcess], work: str, *, rounds: int, seconds: float, retries: int
) -> dict[str, list[dict[str, Any]]]:
    """Measures so many windows of each arm, A B C A B C; returns them by the arm's name.

    A window that is not quiet is measured again, up to `retries` times; the quietest is the one that counts. Each
    window says in `round` its round, in `noisy` whether it is not quiet, in `refused` how many were measured in vain.
    """
    windows: dict[str, list[dict[str, Any]]] = {process.arm.name: [] for process in processes}
    for number in range(rounds):
        for process in processes:
            earlier = windows[process.arm.name]
            attempts: list[dict[str, Any]] = []
            is_noisy = True
            while is_noisy and len(attempts) <= retries:
                attempts.append(process.measure(work, seconds))
                quietest = min(attempts, key=lambda window: window["others_share"])
                largest_own_share = max(window["own_share"] for window in [*earlier, *attempts])
                is_noisy = not is_quiet(quietest, largest_own_share)
            earlier.append(quietest | {"round": number, "noisy": is_noisy, "refused": len(attempts) - 1})
    return windows


def summarize_windows(windows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns median, least and most images a second of the quiet windows (of all where none is quiet)."""
    quiet = [window for window in windows if not window["noisy"]]
    counted = quiet or windows
    rates = [window["images"] / window["seconds"] for window in counted]
    return {
        "images_per_second": statistics.median(rates),
        "least": min(rates),
        "most": max(rates),
        "cpu_ms_per_image": 1e3 * statistics.median(window["cpu_seconds"] / window["images"] for window in counted),
        "quiet_windows": len(quiet),
        "noisy_windows": len(windows) - len(quiet),
        "refused_windows": sum(window["refused"] for window in windows),
    }
