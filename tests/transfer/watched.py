"""Reads crafted weights files and watches what happens: the sentence, the memory, and whether anything is executed."""

import io
import sys
import tracemalloc

import numpy as np
import pytest
import weight_files

from cnn_vit.errors import UserError
from cnn_vit.transfer import readers

MOST_BYTES = 500 * 2**20  # that reading may take above twice the file
# Events of CPython's audit that no reader may cause: https://docs.python.org/3/library/audit_events.html
EXECUTION = frozenset(
    {
        "pickle.find_class", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "subprocess.Popen",
        "exec", "code.__new__", "marshal.loads", "socket.connect", "import", "ctypes.dlopen",
    }
)  # fmt: skip
watching: list[bool] = []
executed: list[str] = []


def watch(event, arguments):
    """The audit hook; it cannot be taken away again, so it looks at a flag."""
    if watching and event in EXECUTION:
        executed.append(f"{event} {arguments}")


sys.addaudithook(watch)
np.load(io.BytesIO(weight_files.pack_npz({"warm": np.zeros(1)})))["warm"]  # NumPy imports what it parses headers with


def read(path):
    """Reads a file; fails where anything is executed or more memory is taken than is promised."""
    executed.clear()
    tracemalloc.start()
    watching.append(True)
    try:
        return readers.read(path)
    finally:
        watching.clear()
        _, most_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        file_bytes = path.stat().st_size if path.is_file() else 0
        assert most_bytes < 2 * file_bytes + MOST_BYTES
        assert executed == [], executed


def read_bytes(folder, content, name="weights"):
    """Reads bytes as a file."""
    path = folder / name
    path.write_bytes(content)
    return read(path)


def refuse(path, sentence):
    """Checks that a file is refused by one printable sentence that names it and matches; returns the error."""
    with pytest.raises(UserError, match=sentence) as caught:
        read(path)
    assert caught.value.code == 2
    check_sentence(str(caught.value), path)
    return caught.value


def sentence_id(value):
    """The id of a parametrized test: its sentence, for the bytes of a file would make an endless one."""
    return value[:60] if isinstance(value, str) else "file"


def check_sentence(sentence, path):
    """Checks that a sentence names the file and can be printed as it is: no escapes, one line, not very long."""
    assert sentence.isprintable()
    assert len(sentence) < 1500
    assert path.name in sentence


def refuse_bytes(folder, content, sentence, name="weights"):
    """Checks that bytes are refused; returns the error."""
    path = folder / name
    path.write_bytes(content)
    return refuse(path, sentence)
