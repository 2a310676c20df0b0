"""Faults that tests plant from outside: file functions that fail, bits that flip, and code in a process of its own."""

import inspect
import itertools
import os
import subprocess
import sys
from pathlib import Path

from cnn_vit import files
from cnn_vit.errors import SurroundingsError


class PlantedError(SurroundingsError):
    """The error that a test has the file functions raise."""


def plant_file_fault(monkeypatch, failing_call, *, dead):
    """Makes one call of the functions in `cnn_vit.files` fail, counted over all of them.

    Args:
        monkeypatch: takes the fault back in the end.
        failing_call: number of the call that fails, from 0; -1 for none, to count the calls alone.
        dead: whether all later calls fail too, as of a process that was killed.

    Returns:
        The counter of the calls: `next` of it gives their number so far.
    """
    counter = itertools.count()

    def wrap(function):
        def call(*args, **kwargs):
            number = next(counter)
            if number == failing_call or (dead and number > failing_call):
                raise PlantedError(f"{function.__name__} failed at call {number}")
            return function(*args, **kwargs)

        return call

    for owner in (files, files.AppendFile):
        for name, function in inspect.getmembers(owner, inspect.isfunction):
            if function.__module__ == files.__name__ and not name.startswith("__"):
                monkeypatch.setattr(owner, name, wrap(function))
    return counter


def flip_bit(content, bit):
    """Bytes with one bit changed, counted from the first byte's lowest."""
    position = bit // 8
    changed_byte = bytes([content[position] ^ (1 << bit % 8)])
    return content[:position] + changed_byte + content[position + 1 :]


def list_damages(path):
    """Yields ways to damage a file, by name: each takes its bytes and returns others, or None to delete it."""
    bits = 8 * path.stat().st_size
    for bit in sorted({0, bits // 3, bits // 2 + 1, bits - 1}):
        yield f"flip {bit}", lambda content, bit=bit: flip_bit(content, bit)
    yield "cut in half", lambda content: content[: len(content) // 2]
    yield "cut by one", lambda content: content[:-1]
    yield "emptied", lambda content: b""
    yield "zeroed", lambda content: bytes(len(content))
    yield "extended", lambda content: content + b"\0"
    yield "deleted", lambda content: None


def run_script(code, folder, **environment):
    """Runs code in a process of its own, which has `sys`, the variable `folder` and the modules beside this file.

    Returns:
        The finished process with `returncode`, and `stdout` and `stderr` as text.
    """
    start = "import sys, pathlib; sys.path.insert(0, sys.argv[1]); folder = pathlib.Path(sys.argv[2])\n"
    return subprocess.run(
        [sys.executable, "-c", start + code, Path(__file__).parent, folder],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=900,
        check=False,
    )
