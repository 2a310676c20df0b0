"""Faults planted from outside: the file door that fails, bits that flip, processes of their own."""

import inspect
import itertools
import os
import subprocess
import sys
from pathlib import Path

from cnn_vit import files
from cnn_vit.errors import SurroundingsError


class PlantedError(SurroundingsError):
    """The one that a test puts in."""


def faulty(monkeypatch, at, *, dead):
    """Makes call number `at` of the file door fail, and all later ones where the process is to be dead; the counter."""
    count = itertools.count()
    owners = [files, files.AppendFile]

    def wrapped(function):
        def act(*given, **named):
            number = next(count)
            if number == at or (dead and number > at):
                raise PlantedError(f"{function.__name__} failed at call {number}")
            return function(*given, **named)

        return act

    for owner in owners:
        for name, function in inspect.getmembers(owner, inspect.isfunction):
            if function.__module__ == files.__name__ and not name.startswith("__"):
                monkeypatch.setattr(owner, name, wrapped(function))
    return count


def flipped(data, bit):
    return data[: bit // 8] + bytes([data[bit // 8] ^ (1 << bit % 8)]) + data[bit // 8 + 1 :]


def damages(path):
    """Ways to damage a file, by name: bytes in, bytes out; None deletes it."""
    size = path.stat().st_size
    for bit in sorted({0, 8 * size // 3, 8 * size // 2 + 1, 8 * size - 1}):
        yield f"flip {bit}", lambda data, bit=bit: flipped(data, bit)
    yield "cut in half", lambda data: data[: len(data) // 2]
    yield "cut by one", lambda data: data[:-1]
    yield "emptied", lambda data: b""
    yield "zeroed", lambda data: bytes(len(data))
    yield "extended", lambda data: data + b"\0"
    yield "deleted", lambda data: None


def script(code, folder, **environment):
    """Runs code with tests' helpers at hand in a process of its own; (exit code, stdout, stderr)."""
    start = "import sys, pathlib; sys.path.insert(0, sys.argv[1]); folder = pathlib.Path(sys.argv[2])\n"
    done = subprocess.run(
        [sys.executable, "-c", start + code, Path(__file__).parent, folder],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr
