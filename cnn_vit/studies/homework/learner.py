"""The process that runs a learner's functions: limits first, then the file, then case after case.

`running.py` starts it and calls `main`, with a connection as its stdin, over which JSON goes both ways. The first
message is the job. Then this process says what it begins and what came out of it, so that the other one knows which
function was under way where this one dies.

It is not a safe place for the code of strangers: the file may do whatever the user may do. The limits are there for
loops without an end and arrays without a limit.
"""

import contextlib
import copy
import importlib.util
import io
import json
import math
import os
import resource
import signal
import sys
import traceback
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from cnn_vit.studies.homework.exercises import load_exercise

READY, BEGIN, LOADED, FAILED, RETURNED = "ready", "begin", "loaded", "failed", "returned"
PACKAGE = __name__.partition(".")[0]
MODULE = "learner_file"  # the name by which Python knows the file
MOST_PRINTED = 2000  # characters of what a function prints that are kept
MOST_NUMBERS = 100_000  # of an array; of a larger one only the shape is told
LARGEST_FILE = 10_000_000  # bytes that the learner's code may write to a file


def main() -> None:
    """Does one job."""
    connection = take_connection()
    job = json.loads(connection.recv_bytes())
    set_limits(job["bytes"])
    send(connection, READY)
    silence_streams()
    warnings.simplefilter("ignore")  # of NumPy about nan and overflow, which the grading sees by itself
    allow_time(job["seconds"], job["wall_seconds"])
    module = load_file(Path(job["file"]), connection)
    if module is None:
        return
    for name in job["functions"]:
        send(connection, BEGIN, function=name)
        function = getattr(module, name, None)
        if function is None:
            send(connection, RETURNED, function=name, is_missing=True, is_borrowed=False, cases=[], printed="")
            continue
        if str(getattr(function, "__module__", "")).partition(".")[0] == PACKAGE:
            send(connection, RETURNED, function=name, is_missing=False, is_borrowed=True, cases=[], printed="")
            continue
        allow_time(job["seconds"], job["wall_seconds"])
        run_function(connection, name, function, job["file"])


def take_connection() -> Connection:
    """Takes the connection away from stdin, which then is empty: `input()` of the learner gets its end at once."""
    connection = Connection(os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    return connection


def send(connection: Connection, kind: str, **content: Any) -> None:
    """Sends a message."""
    connection.send_bytes(json.dumps({"kind": kind, **content}).encode())


# Limits ---------------------------------------------------------------------------------------------------------------


def set_limits(memory: int) -> None:
    """Limits what the process may have; where the system has no such limit, there is none.

    Args:
        memory: bytes of addresses.
    """
    for what, limit in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, LARGEST_FILE), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(what, (limit, limit))


def allow_time(seconds: int, wall_seconds: int) -> None:
    """Has the system end this process after so many more seconds of computing, or of waiting."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    until = math.ceil(used.ru_utime + used.ru_stime) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (until, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    signal.alarm(wall_seconds)


def silence_streams() -> None:
    """Sends what is printed past Python's own streams to nowhere."""
    for descriptor in (1, 2):
        os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)


class Printed(io.StringIO):
    """What is printed, up to MOST_PRINTED characters."""

    def write(self, text: str) -> int:
        """Keeps the text as far as there is room."""
        super().write(text[: max(0, MOST_PRINTED - self.tell())])
        return len(text)


@contextlib.contextmanager
def catch_printing(printed: Printed):
    """Within this context, what is printed is kept."""
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        yield


# The file -------------------------------------------------------------------------------------------------------------


def load_file(path: Path, connection: Connection) -> ModuleType | None:
    """Runs the file, and returns its module; None where that failed, which is told."""
    sys.dont_write_bytecode = True
    sys.path.append(str(path.parent.absolute()))  # at the end: a file numpy.py beside it is not taken for NumPy
    spec = importlib.util.spec_from_file_location(MODULE, path)
    if spec is None or spec.loader is None:
        send(
            connection, FAILED, error={"type": "ImportError", "message": "not a Python file", "line": None, "code": ""}
        )
        return None
    module = importlib.util.module_from_spec(spec)
    try:
        with catch_printing(Printed()):
            spec.loader.exec_module(module)
    except BaseException as error:
        send(connection, FAILED, error=describe_error(error, str(path)))
        return None
    send(connection, LOADED, names=[name for name in vars(module) if not name.startswith("_")])
    return module


def run_function(connection: Connection, name: str, function: Any, file: str) -> None:
    """Calls a function with each of its cases, and tells what it returned."""
    printed = Printed()
    cases = []
    with catch_printing(printed):
        for case in load_exercise(name).cases:
            inputs = copy.deepcopy(case.inputs)
            try:
                returned = describe_returned(function(*inputs.values()))
                outcome: dict[str, Any] = {"returned": returned}
            except BaseException as error:  # also SystemExit, of sys.exit()
                outcome = {"error": describe_error(error, file)}
            changed = [key for key, value in case.inputs.items() if not is_same(value, inputs[key])]
            cases.append({**outcome, "changed": changed})
            if "error" in outcome and outcome["error"]["type"] == "NotImplementedError":
                break
    send(
        connection,
        RETURNED,
        function=name,
        is_missing=False,
        is_borrowed=False,
        cases=cases,
        printed=printed.getvalue(),
    )


def is_same(before: Any, after: Any) -> bool:
    """Whether an argument is as it was."""
    if isinstance(before, np.ndarray):
        return before.shape == after.shape and np.array_equal(before, after)
    return before == after


# What came out --------------------------------------------------------------------------------------------------------


def describe_error(error: BaseException, file: str) -> dict[str, Any]:
    """Describes an exception: its type, its message, and the last line of the learner's file that was under way."""
    line, code = None, ""
    if isinstance(error, SyntaxError):
        line, code = error.lineno, (error.text or "").strip()
        return {"type": type(error).__name__, "message": error.msg, "line": line, "code": code}
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename == file:
            line, code = frame.lineno, (frame.line or "").strip()
    return {"type": type(error).__name__, "message": str(error), "line": line, "code": code}


def describe_returned(value: Any) -> list[dict[str, Any]]:
    """Describes what a function returned, each item of a tuple by itself."""
    items = value if isinstance(value, tuple) else (value,)
    return [describe_item(item) for item in items]


def describe_item(item: Any) -> dict[str, Any]:
    """Describes an array or a number by dtype, shape and values, and anything else by its type."""
    if item is None:
        return {"type": "None"}
    if not isinstance(item, np.ndarray | np.generic | float | int):
        return {"type": type(item).__name__}
    array = np.asarray(item)
    if array.dtype.kind not in "fiub":  # floats, integers, truth values
        return {"type": f"array of {array.dtype}"}
    described = {"type": "array", "dtype": str(array.dtype), "shape": list(array.shape)}
    if array.size <= MOST_NUMBERS:
        described["values"] = array.astype(float).ravel().tolist()
    return described
