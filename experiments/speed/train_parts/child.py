"""What runs in the process of an arm: it gets ready, then answers requests for windows, one JSON line each.

The first line that it reads is the job; the first that it writes holds what the parent checks before it measures. Then
each request {"work": ..., "steps": n} is answered with the seconds of n steps.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from train_parts.job import Job, read_job, read_row, usable_cores

CHECKED_STEPS = 3  # whose losses are compared before anything is timed
PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def take_stdout() -> TextIO:
    """Returns the parent's end of stdout, and sends what libraries print there to stderr."""
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return channel


def die_with_parent() -> None:
    """Asks Linux to kill this process when the parent ends: a stopped one could not see that by itself."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def serve() -> None:
    """Gets the arm of the first line ready and answers requests until there are no more."""
    channel = take_stdout()
    die_with_parent()
    job = read_job(sys.stdin.readline())
    arm = build_arm(job)
    send(channel, get_ready(arm, job))
    for line in sys.stdin:
        request = json.loads(line)
        send(channel, run_window(arm, request["work"], request["steps"]))


def send(channel: TextIO, message: dict[str, Any]) -> None:
    """Writes one line to the parent."""
    channel.write(json.dumps(message) + "\n")
    channel.flush()


def build_arm(job: Job) -> Any:
    """Imports a framework, as the arm has its memory, and builds network, optimizer and compiled functions in it."""
    from cnn_vit import process

    if job.arm.framework == "ours":
        process.prepare()  # before jax is imported, as the command line does
        from train_parts.arm_ours import OurArm

        return OurArm(job)
    if "keep" in job.arm.modifiers:
        process.keep_pages()
    if job.arm.framework == "nnx":
        from train_parts.arm_nnx import NnxArm

        return NnxArm(job)
    from train_parts.arm_torch import TorchArm

    return TorchArm(job)


def get_ready(arm: Any, job: Job) -> dict[str, Any]:
    """Takes the steps that are checked, and returns what there is to know of an arm before it is timed."""
    began = time.perf_counter()
    scores = arm.scores()
    evaluation_seconds = time.perf_counter() - began
    losses = [arm.step() for _ in range(CHECKED_STEPS)]
    return {
        "parameters": arm.parameters,
        "scores": np.asarray(scores, np.float64).tolist(),
        "losses": losses,
        "first_step_seconds": arm.first_step_at - job.began - evaluation_seconds,
        "compile_seconds": arm.compile_seconds,
        "temp_bytes": arm.temp_bytes,
        "cores": usable_cores(),
        "threads": arm.threads(),
        "device": arm.device_kind(),
        "peak_rss_bytes": peak_rss_bytes(),
        "facts": arm.facts(),
    }


def cpu_seconds() -> float:
    """CPU-seconds of all threads so far, and of the processes that this one has started and waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def peak_rss_bytes() -> int:
    """The most memory that this process has had so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # Linux counts KiB


def run_window(arm: Any, work: str, steps: int) -> dict[str, Any]:
    """Does the work so many times, and waits for its end."""
    began, cpu_began = time.perf_counter(), cpu_seconds()
    images = arm.run(work, steps)
    return {
        "steps": steps,
        "images": images,
        "seconds": time.perf_counter() - began,
        "cpu_seconds": cpu_seconds() - cpu_began,
        "peak_rss_bytes": peak_rss_bytes(),
        "peak_device_bytes": arm.peak_device_bytes(),
    }


def answer_facts(line: str) -> dict[str, Any]:
    """Answers a request for what does not depend on the arm."""
    from train_parts.arm_facts import collect_facts

    fields = json.loads(line)
    images = Path(fields["images"]) if fields["images"] else None
    return collect_facts(read_row(fields["row"]), Path(fields["values"]), images, fields["seconds"])
