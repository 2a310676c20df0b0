"""The door to the disk: whatever the package writes goes through here (and, for arrays of a checkpoint, through Orbax).

A file is either the old one or the new one, never half of both: it is written under a temporary name beside its own,
flushed to the disk and renamed. Every `OSError` leaves as a `SurroundingsError` that names the path.
"""

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import re
import resource
import shutil
import socket
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnn_vit.errors import SurroundingsError, UserError

TEMPORARY = re.compile(r"\..+\.\d+\.tmp")  # .NAME.PID.tmp
AGAIN = "then give the same command again"
NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}  # some network file systems cannot flush a folder


def from_os_error(error: OSError, path: Path, *, needed: int | None = None) -> SurroundingsError:
    """The sentence for an error of the operating system at a path; `needed` is what is written there, in bytes."""
    size = f"{path} needs {needed:,} bytes" if needed is not None else f"{path} cannot grow"
    match error.errno:
        case errno.ENOSPC:
            return SurroundingsError(f"No space left: {size}, {free_bytes(path)} are free; make room, {AGAIN}")
        case errno.EDQUOT:
            return SurroundingsError(f"Disk quota exceeded: {size}; make room, {AGAIN}")
        case errno.EFBIG:
            limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
            most = f" of {limit:,} bytes" if limit != resource.RLIM_INFINITY else ""
            return SurroundingsError(f"File too large: {size}, above the limit{most}; raise it (ulimit -f), {AGAIN}")
        case errno.EROFS:
            return SurroundingsError(f"{path} is on a read-only file system; choose another folder")
        case errno.EACCES | errno.EPERM:
            return SurroundingsError(f"no permission for {path}; change its rights or choose another folder")
        case errno.ENOENT:
            return SurroundingsError(f"{path} is not there; look for a typing error, or for what removed it")
        case errno.ENOTDIR | errno.EEXIST:
            return SurroundingsError(f"{path} is a file or lies under one, where a folder belongs; choose another name")
        case errno.EISDIR:
            return SurroundingsError(f"{path} is a folder where a file belongs; choose another name")
        case errno.EMFILE | errno.ENFILE:
            return SurroundingsError(f"{path}: too many files are open; raise the limit (ulimit -n), {AGAIN}")
        case _:
            return SurroundingsError(f"{path}: {error.strerror or error}; check the disk and the path, {AGAIN}")


def free_bytes(path: Path) -> str:
    """Free bytes of the disk under a path, which need not exist yet."""
    with contextlib.suppress(OSError):
        there = next(place for place in (path, *path.parents) if place.exists())
        return f"{shutil.disk_usage(there).free:,}"
    return "not enough"


@contextlib.contextmanager
def os_errors(path: Path, *, needed: int | None = None) -> Iterator[None]:
    """Turns an `OSError` into a `SurroundingsError` that names the path."""
    try:
        yield
    except OSError as error:
        raise from_os_error(error, path, needed=needed) from error


def write(path: Path, content: bytes | memoryview | str) -> None:
    """Writes a whole file, and the folders above it; after a power cut it holds all of the old or all of the new."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with os_errors(path, needed=len(data)):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    fsync(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Writes a value as JSON, keys sorted; a `ValueError` where it holds nan or inf, which JSON has not."""
    write(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file; `SurroundingsError` where it cannot be read, `UserError` where it is not JSON."""
    with os_errors(path):
        data = path.read_bytes()
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); mend it or remove it") from error


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes named arrays as `.npz`, the same bytes for the same arrays; a `ValueError` for an array of objects."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)  # type: ignore[arg-type]
    write(path, buffer.getvalue())


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Reads what `write_npz` wrote; errors as of `read_json`."""
    with os_errors(path):
        data = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {
                name.removesuffix(".npy"): np.lib.format.read_array(io.BytesIO(archive.read(name)), allow_pickle=False)
                for name in archive.namelist()
            }
    except (ValueError, LookupError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is not as it was written ({error}); put it back from a copy or remove it") from error


class AppendFile:
    """A file open for growing at its end; a line is visible to others as soon as it is written."""

    def __init__(self, path: Path):
        self.path = path
        with os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)

    def write(self, content: bytes | str) -> None:
        """Adds bytes or text at the end."""
        data = content.encode() if isinstance(content, str) else content
        with os_errors(self.path, needed=len(data)):
            while data:
                data = data[os.write(self._handle, data) :]

    def flush(self) -> None:
        """Returns once everything written is on the disk."""
        with os_errors(self.path):
            os.fsync(self._handle)

    def close(self) -> None:
        """Flushes and closes; nothing where it is closed already."""
        if self._handle < 0:
            return
        handle, self._handle = self._handle, -1
        with os_errors(self.path):
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def open_append(path: Path) -> AppendFile:
    """Opens a file for growing at its end, making it and the folders above it."""
    return AppendFile(path)


def append_line(path: Path, facts: Mapping[str, Any]) -> None:
    """Adds one line of JSON, keys sorted, and returns once it is on the disk. A torn last line keeps to itself."""
    with os_errors(path):
        torn = path.exists() and path.read_bytes()[-1:] not in (b"", b"\n")
    file = open_append(path)
    try:
        file.write("\n" * torn + json.dumps(facts, sort_keys=True, allow_nan=False) + "\n")
    finally:
        file.close()


def truncate(path: Path, size: int) -> None:
    """Keeps the first `size` bytes of a file."""
    with os_errors(path), open(path, "r+b") as file:
        file.truncate(size)
        os.fsync(file.fileno())


def move(source: Path, target: Path) -> None:
    """Gives a file or folder another name on the same disk; the folder it leaves and the one it enters are flushed."""
    with os_errors(source):
        os.rename(source, target)
    for folder in {source.parent, target.parent}:
        fsync(folder)


def remove(path: Path) -> None:
    """Removes a file, or a folder with all that is in it; nothing where there is none."""
    with os_errors(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def fsync(path: Path) -> None:
    """Returns once a file, or the list of a folder's names, is on the disk."""
    with os_errors(path):
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in NO_FOLDER_SYNC or not path.is_dir():
                raise
        finally:
            os.close(handle)


def sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with os_errors(path), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_temporary(folder: Path) -> None:
    """Removes what a killed `write` left in a folder; only for the holder of its lock, as no other may be writing."""
    with os_errors(folder):
        left = [entry for entry in folder.iterdir() if TEMPORARY.fullmatch(entry.name)] if folder.is_dir() else []
    for path in left:
        remove(path)


def ensure_writable(folder: Path, *, needed: int = 1) -> None:
    """Refuses, by name, a folder that cannot be written or has not `needed` bytes left; makes the folder."""
    try:
        str(folder.absolute()).encode()
    except UnicodeEncodeError as error:  # Orbax would give up at the first checkpoint
        raise SurroundingsError(f"{folder} is no name in UTF-8; choose another, or set LC_ALL=C.UTF-8") from error
    path = folder / f".probe.{os.getpid()}.tmp"
    with os_errors(folder, needed=needed):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            path.write_bytes(b"1")
        finally:
            path.unlink(missing_ok=True)
        if shutil.disk_usage(folder).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Lock:
    """A folder for one process at a time: a kernel lock on the file at `path`, which holds the owner's pid and host.

    The kernel drops it however the owner ends, kill -9 included, so no stale lock can be left; the file stays.
    `SurroundingsError` where another process holds it, by its pid and host, and where the file system has no such lock.

    Args:
        path: the file.
        wait: where another process holds it, takes a sentence that names it, and the lock is waited for.
    """

    def __init__(self, path: Path, *, wait: Callable[[str], None] | None = None):
        with os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            self._take(path, wait)
        except BaseException:
            self.release()
            raise

    def _take(self, path: Path, wait: Callable[[str], None] | None) -> None:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            in_use = f"{path.parent} is in use by {self._owner()}"
            if not wait:
                raise SurroundingsError(f"{in_use}; wait for it or stop it") from error
            wait(f"{in_use}; waiting for it")
            with os_errors(path):
                fcntl.flock(self._handle, fcntl.LOCK_EX)
        except OSError as error:
            raise SurroundingsError(
                f"{path.parent} lies on a file system without locks ({error.strerror}), where two runs could spoil "
                "each other; choose a folder on a local disk"
            ) from error
        with os_errors(path):
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)

    def _owner(self) -> str:
        owner = os.pread(self._handle, 512, 0).decode(errors="replace").split()
        return "process {} on {}".format(*owner) if len(owner) == 2 else "another process"

    def release(self) -> None:
        """Lets others have the folder; nothing where it is released already."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
