"""Runs a learner's file in a process of its own, starts it again where it died, and collects what came out."""

import contextlib
import json
import multiprocessing
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from cnn_vit import process, stops
from cnn_vit.errors import SurroundingsError
from cnn_vit.studies.homework.learner import BEGIN, FAILED, LOADED, READY, RETURNED

# -P: the folder that the command is given in is not searched, so that a file random.py there is not taken for Python's.
# This package is searched in its own place first, for it may be run without being installed.
PLACE = str(Path(__file__).parents[3])
START = (
    f"import sys; sys.path.insert(0, {PLACE!r}); from cnn_vit.studies.homework import learner; "
    f"sys.path.remove({PLACE!r}); learner.main()"
)
COMMAND = (sys.executable, "-P", "-c", START)
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
MOST_DEATHS = 3  # of functions, before the others are left out
LOOK_EVERY = 0.2  # seconds between two looks at the signals


@dataclass(frozen=True)
class Limits:
    """What a learner's function may use.

    Attributes:
        seconds: CPU-seconds of a function with all its cases.
        wall_seconds: seconds until it has to be done, also where it waits for something.
        gigabytes: of memory.
    """

    seconds: int = 10
    wall_seconds: int = 60
    gigabytes: float = 2.0


@dataclass(frozen=True)
class LearnerError:
    """An exception of the learner's code.

    Attributes:
        type: its name, such as "ValueError".
        message: what it says.
        line: number of the last line of the file that was under way; None where none was.
        code: the text of that line.
    """

    type: str
    message: str
    line: int | None
    code: str


@dataclass(frozen=True)
class Item:
    """One thing that a function returned.

    Attributes:
        type: "array", also for a number; else what it is, such as "list".
        dtype: of an array.
        shape: of an array.
        values: the array as float64; None where it is no array, or a very large one.
    """

    type: str
    dtype: str = ""
    shape: tuple[int, ...] = ()
    values: np.ndarray | None = None


@dataclass(frozen=True)
class CaseRun:
    """What came out of one case.

    Attributes:
        items: what was returned; None where an exception was raised.
        error: the exception.
        changed: the arguments that the function changed.
    """

    items: tuple[Item, ...] | None
    error: LearnerError | None
    changed: tuple[str, ...]


@dataclass(frozen=True)
class FunctionRun:
    """What came out of a function.

    Attributes:
        cases: one for each case that was run.
        is_missing: whether the file has no such function.
        death: why the process died while it ran, as a sentence; "" where it did not.
        printed: what it printed.
        is_borrowed: whether it is a function of this package, which the file imports; it has no cases then.
    """

    cases: tuple[CaseRun, ...] = ()
    is_missing: bool = False
    death: str = ""
    printed: str = ""
    is_borrowed: bool = False


@dataclass
class FileRun:
    """What came out of a file.

    Attributes:
        functions: by name.
        error: the exception that the file raised when it was read.
        death: why the process died while the file was read, as a sentence; "" where it did not.
        names: what the file defines.
    """

    functions: dict[str, FunctionRun] = field(default_factory=dict)
    error: LearnerError | None = None
    death: str = ""
    names: tuple[str, ...] = ()


def run_file(file: Path, functions: Sequence[str], limits: Limits) -> FileRun:
    """Calls functions of a learner's file with all their cases.

    Args:
        file: the file, which is there.
        functions: names of exercises.
        limits: of each function, and of reading the file.

    Raises:
        SurroundingsError: no process can be started.
        StoppedError: a signal asked to stop.
    """
    outcome = FileRun()
    left = list(functions)
    deaths = 0
    while left and deaths < MOST_DEATHS:
        under_way = None
        with started(file, left, limits) as (connection, child):
            while (message := receive(connection)) is not None:
                kind = message["kind"]
                if kind == FAILED:
                    outcome.error = LearnerError(**message["error"])
                    return outcome
                if kind == LOADED:
                    outcome.names = tuple(message["names"])
                elif kind == BEGIN:
                    under_way = message["function"]
                elif kind == RETURNED:
                    outcome.functions[message["function"]] = read_function(message)
                    left.remove(message["function"])
                    under_way = None
            code = child.wait()
        if not left:
            break
        death = explain_death(code, limits)
        if under_way is None:
            outcome.death = death
            return outcome
        outcome.functions[under_way] = FunctionRun(death=death)
        left.remove(under_way)
        deaths += 1
    return outcome


@contextlib.contextmanager
def started(file: Path, functions: list[str], limits: Limits) -> Iterator[tuple[Connection, subprocess.Popen]]:
    """Starts the process of `learner.py` with its job; yields the connection to it. It is ended with the context."""
    ours, theirs = multiprocessing.Pipe()
    try:
        with theirs:
            child = subprocess.Popen(
                COMMAND,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=process.child_environment(ONE_THREAD),
                start_new_session=True,  # Ctrl-C is for the command, which then ends this process
            )
    except OSError as error:
        raise SurroundingsError(
            f"no process can be started for the learner's file: {error.strerror}; end other processes or raise the "
            "limits"
        ) from error
    try:
        job = {"file": str(file), "functions": functions, "bytes": int(limits.gigabytes * 2**30)}
        job |= {"seconds": limits.seconds, "wall_seconds": limits.wall_seconds}
        with contextlib.suppress(OSError):  # of a process that died at once
            ours.send_bytes(json.dumps(job).encode())
        ready = receive(ours)
        if ready is None or ready["kind"] != READY:
            child.wait()
            lines = child.stderr.read().decode(errors="replace").strip().splitlines() if child.stderr else []
            cause = lines[-1] if lines else f"exit code {child.returncode}"
            raise SurroundingsError(f"the process for the learner's file did not start: {cause}")
        yield ours, child
    finally:
        ours.close()
        child.kill()
        child.wait()
        if child.stderr:
            child.stderr.close()


def receive(connection: Connection) -> dict[str, Any] | None:
    """Waits for a message; None where the process is gone. A signal that asks to stop is obeyed."""
    try:
        while not connection.poll(LOOK_EVERY):
            stops.raise_if_requested()
        return json.loads(connection.recv_bytes())
    except (EOFError, OSError):
        return None


def read_function(message: dict[str, Any]) -> FunctionRun:
    """Reads what the process tells of a function."""
    cases = []
    for case in message["cases"]:
        error = LearnerError(**case["error"]) if "error" in case else None
        items = None
        if "returned" in case:
            items = tuple(read_item(item) for item in case["returned"])
        cases.append(CaseRun(items, error, tuple(case["changed"])))
    return FunctionRun(
        tuple(cases), message["is_missing"], printed=message["printed"], is_borrowed=message["is_borrowed"]
    )


def read_item(item: dict[str, Any]) -> Item:
    """Reads what the process tells of one returned thing."""
    if item["type"] != "array":
        return Item(item["type"])
    shape = tuple(item["shape"])
    values = np.array(item["values"], float).reshape(shape) if "values" in item else None
    return Item("array", item["dtype"], shape, values)


def explain_death(code: int, limits: Limits) -> str:
    """Says why the process died, by its exit code."""
    if code == -signal.SIGXCPU:
        return (
            f"did not end within {limits.seconds} CPU-seconds, though its arrays are tiny; a loop may have no end, "
            "such as a while whose condition never becomes false"
        )
    if code == -signal.SIGALRM:
        return f"did not end within {limits.wall_seconds} seconds; it waits for something, or the machine is very busy"
    if code < 0:
        return f"crashed Python itself (signal {signal.Signals(-code).name})"
    return f"ended the process with exit code {code}; a function returns its result and does not exit"
