"""The door to the disk: whatever the package writes goes through here (and, for arrays of a checkpoint, through Orbax).

A file is either the old one or the new one, never half of both: it is written under a temporary name beside its final
one, flushed to the disk and renamed. Every `OSError` leaves as a `SurroundingsError` that names the path.
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
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cnn_vit.errors import SurroundingsError, UserError

TEMPORARY = re.compile(r"\..+\.\d+\.tmp")  # .NAME.PID.tmp
AGAIN = "then give the same command again"  # the end of a remedy
NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}  # some network file systems cannot flush a folder


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Makes a folder that is gone at the end of this context, with all that is in it."""
    with tempfile.TemporaryDirectory(prefix="cnn_vit_") as name:
        yield Path(name)


def from_os_error(error: OSError, path: Path, *, needed: int | None = None, creates: bool = False) -> SurroundingsError:
    """Makes the error with a sentence and a remedy for an error of the operating system.

    Args:
        error: what the operating system raised.
        path: the file or folder that it is about.
        needed: the size in bytes of what was to be written there; None where that is not known.
        creates: whether the path and the folders above it were to be made, so that none of them had to be there.
    """
    size = f"{path} needs {needed:,} bytes" if needed is not None else f"{path} cannot grow"
    match error.errno:
        case errno.ENOSPC:
            return SurroundingsError(f"No space left: {size}, {free_bytes(path)} are free; make room, {AGAIN}")
        case errno.EDQUOT:
            return SurroundingsError(f"Disk quota exceeded: {size}; make room, {AGAIN}")
        case errno.EFBIG:
            limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
            bytes_allowed = f" of {limit:,} bytes" if limit != resource.RLIM_INFINITY else ""
            return SurroundingsError(
                f"File too large: {size}, above the limit{bytes_allowed}; raise it (ulimit -f), {AGAIN}"
            )
        case errno.EROFS:
            return SurroundingsError(f"{path} is on a read-only file system; choose another folder")
        case errno.EACCES | errno.EPERM:
            return SurroundingsError(f"no permission for {path}; change its rights or choose another folder")
        case errno.ENOENT if creates:
            # Not a missing folder, for those are made: some file systems, such as /proc, take no new names.
            folder = next(place for place in (path, *path.parents) if place.is_dir())
            return SurroundingsError(
                f"cannot write {path}: no file or folder could be made in {folder}; choose another folder"
            )
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
    """Says how many bytes are free on the disk of a path, which need not exist yet."""
    free = free_disk(path)
    return "not enough" if free is None else f"{free:,}"


def free_disk(path: Path) -> int | None:
    """Returns the bytes that are free on the disk of a path, which need not exist yet; None where it is not known."""
    with contextlib.suppress(OSError):
        existing = next(place for place in (path, *path.parents) if place.exists())
        return shutil.disk_usage(existing).free
    return None


@contextlib.contextmanager
def os_errors(path: Path, *, needed: int | None = None, creates: bool = False) -> Iterator[None]:
    """Turns an `OSError` into a `SurroundingsError` that names the path; arguments as of `from_os_error`."""
    try:
        yield
    except OSError as error:
        raise from_os_error(error, path, needed=needed, creates=creates) from error


def write(path: Path, content: bytes | memoryview | str) -> None:
    """Writes a whole file, and makes the folders above it.

    After a power cut the file holds all of the old content or all of the new.

    Args:
        path: the file.
        content: bytes, or a text that is written in UTF-8.
    """
    encoded = content.encode() if isinstance(content, str) else content
    refuse_special_file(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with os_errors(path, needed=len(encoded), creates=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(encoded)
                file.flush()
                os.fsync(file.fileno())  # the content is on the disk before the name points to it
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    fsync(path.parent)  # the new name is on the disk as well


def replace_between(path: Path, content: str, *, begin: str, end: str) -> None:
    """Puts a text, such as a table that was measured anew, between two marks of a file in place of what stands there.

    Args:
        path: a file of text.
        content: the text.
        begin: the mark before it, with the end of its line.
        end: the first mark behind it.

    Raises:
        UserError: a mark is missing; nothing is written.
    """
    with os_errors(path):
        text = path.read_text(encoding="utf-8")
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        missing = end if found_begin else begin
        raise UserError(
            f"{path} has no {missing.strip()!r}, between which and its counterpart the text belongs; add both"
        )
    write(path, f"{before}{begin}{content}{end}{after}")


def refuse_special_file(path: Path) -> None:
    """Refuses to write where a device, a pipe or a socket stands, which a file would replace.

    Raises:
        UserError: there is one at the path.
    """
    try:
        mode = path.stat().st_mode
    except OSError:  # nothing is there, or what writes will say why it cannot be seen
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise UserError(f"{path} is not a regular file but a device, a pipe or a socket; give another path")


def write_json(path: Path, value: Any) -> None:
    """Writes a value as JSON, in the form of `json_text`."""
    write(path, json_text(value))


def json_text(value: Any) -> str:
    """Formats a value as JSON with sorted keys; `ValueError` where it holds nan or inf, which JSON does not have."""
    return json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n"


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        SurroundingsError: it cannot be read.
        UserError: it is not JSON.
    """
    with os_errors(path):
        content = path.read_bytes()
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); mend it or remove it") from error


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes named arrays as `.npz`, the same bytes for the same arrays; `ValueError` for an array of objects."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            # a member that is opened by its name is dated 1980: no clock gets into the bytes
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)  # type: ignore[arg-type]
    write(path, buffer.getvalue())


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Reads the named arrays of a file that `write_npz` wrote.

    Raises:
        SurroundingsError: it cannot be read.
        UserError: it is damaged.
    """
    with os_errors(path):
        content = path.read_bytes()
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.namelist():
                member = io.BytesIO(archive.read(name))
                arrays[name.removesuffix(".npy")] = np.lib.format.read_array(member, allow_pickle=False)
        return arrays
    # what damaged bytes raise, according to where the damage is
    except (ValueError, LookupError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is not as it was written ({error}); put it back from a copy or remove it") from error


class AppendFile:
    """A file that is open for growing at its end; other processes see a line as soon as it is written.

    Args:
        path: the file, which is made with the folders above it where it does not exist.
    """

    def __init__(self, path: Path):
        self.path = path
        with os_errors(path, creates=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)

    def write(self, content: bytes | str) -> None:
        """Adds bytes, or a text in UTF-8, at the end."""
        rest = content.encode() if isinstance(content, str) else content
        with os_errors(self.path, needed=len(rest)):
            while rest:  # the operating system may take only a part at a time
                rest = rest[os.write(self._handle, rest) :]

    def flush(self) -> None:
        """Returns once everything written is on the disk."""
        with os_errors(self.path):
            os.fsync(self._handle)

    def close(self) -> None:
        """Flushes the file to the disk and closes it; does nothing where it is closed already."""
        if self._handle < 0:
            return
        handle, self._handle = self._handle, -1  # closed from here on, whatever fails below
        with os_errors(self.path):
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def open_append(path: Path) -> AppendFile:
    """Opens a file for growing at its end; makes it, and the folders above it, where it does not exist."""
    return AppendFile(path)


@contextlib.contextmanager
def appending(path: Path) -> Iterator[BinaryIO]:
    """Opens a file at its end, within this context, for what another process prints; makes it where it is missing."""
    with os_errors(path, creates=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as stream:
            yield stream


def append_line(path: Path, facts: Mapping[str, Any]) -> None:
    """Adds one line of JSON with sorted keys, and returns once it is on the disk.

    A last line that a killed process left without its end is ended first.
    """
    with os_errors(path):
        is_torn = path.exists() and path.read_bytes()[-1:] not in (b"", b"\n")
    file = open_append(path)
    try:
        line = json.dumps(facts, sort_keys=True, allow_nan=False) + "\n"
        file.write("\n" + line if is_torn else line)
    finally:
        file.close()


def truncate(path: Path, size: int) -> None:
    """Cuts a file to its first `size` bytes, and returns once that is on the disk."""
    with os_errors(path), open(path, "r+b") as file:
        file.truncate(size)
        os.fsync(file.fileno())


def move(source: Path, target: Path) -> None:
    """Gives a file or folder another name on the same disk, and returns once both folders' names are on the disk."""
    with os_errors(source):
        os.rename(source, target)
    for folder in {source.parent, target.parent}:  # a set, for they may be the same
        fsync(folder)


def remove(path: Path) -> None:
    """Removes a file, or a folder with all that is in it; does nothing where there is none."""
    with os_errors(path):
        if path.is_dir() and not path.is_symlink():  # of a link only the link goes
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def fsync(path: Path) -> None:
    """Returns once a file's content, or the list of a folder's names, is on the disk."""
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
    """Returns the sha256 of a file's content, in hexadecimal."""
    with os_errors(path), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_temporary(folder: Path) -> None:
    """Removes the temporary files that a killed `write` left in a folder.

    Only the holder of the folder's lock may call it, for no other process may be writing there.
    """
    leftovers: list[Path] = []
    with os_errors(folder):
        if folder.is_dir():
            leftovers = [path for path in folder.iterdir() if TEMPORARY.fullmatch(path.name)]
    for path in leftovers:
        remove(path)


def make_folders(folder: Path) -> list[Path]:
    """Makes a folder and those around it; returns the ones that were not there, the innermost first.

    Raises:
        SurroundingsError: it cannot be made.
    """
    new_folders = []
    with os_errors(folder, creates=True):
        for path in (folder, *folder.parents):
            if path.exists():
                break
            new_folders.append(path)
        folder.mkdir(parents=True, exist_ok=True)
    return new_folders


def remove_empty_folders(folders: Iterable[Path]) -> None:
    """Removes folders as far as they are empty; the innermost come first."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:  # it is not empty, or another process removed it
            return


def ensure_writable(folder: Path, *, needed: int = 1) -> None:
    """Makes a folder, and checks that it can be written.

    Args:
        folder: the folder.
        needed: the bytes that have to be free on its disk.

    Raises:
        SurroundingsError: it cannot be written, has too few bytes left, or has a name that is not UTF-8.
    """
    try:
        str(folder.absolute()).encode()
    except UnicodeEncodeError as error:  # Orbax would give up at the first checkpoint
        raise SurroundingsError(f"{folder} is not a name in UTF-8; choose another, or set LC_ALL=C.UTF-8") from error
    probe = folder / f".probe.{os.getpid()}.tmp"
    with os_errors(folder, needed=needed, creates=True):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            probe.write_bytes(b"1")
        finally:
            probe.unlink(missing_ok=True)
        if shutil.disk_usage(folder).free < needed:  # raised as the system does, so that it is told alike
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Lock:
    """Keeps a folder for one process at a time: a kernel lock on a file in it, which holds the owner's pid and host.

    The kernel drops the lock however the owner ends, kill -9 included, so no stale lock can be left; the file stays.

    Args:
        path: the file.
        title: what the file begins with, to tell what it is; pid and host follow.
        on_wait: called with a sentence that names the owner where another process holds the lock, which is then
            waited for; None: that is an error.

    Attributes:
        path: the file.
        is_made_here: whether this process made the file.

    Raises:
        SurroundingsError: another process holds the lock, or the file system has no such locks.
    """

    def __init__(self, path: Path, *, title: str = "", on_wait: Callable[[str], None] | None = None):
        self.path = path
        self._handle = -1
        self.is_made_here = False
        with os_errors(path, creates=True):
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._open()
            self._acquire(path, on_wait)
            while not self._is_own():  # its owner removed the file while this process opened it
                self.release()
                self._open()
                self._acquire(path, on_wait)
            with os_errors(path):
                os.ftruncate(self._handle, 0)  # the file still names its last owner
                words = [title] if title else []
                words += [str(os.getpid()), socket.gethostname()]
                os.pwrite(self._handle, f"{' '.join(words)}\n".encode(), 0)
        except BaseException:
            self.release()
            raise

    def _open(self) -> None:
        """Opens the file, which is made where there is none."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        with os_errors(self.path, creates=True):
            try:
                self._handle = os.open(self.path, flags | os.O_EXCL, 0o666)
                self.is_made_here = True
            except FileExistsError:
                self._handle = os.open(self.path, flags, 0o666)
                self.is_made_here = False

    def _is_own(self) -> bool:
        """Whether the file that is locked is still the one at the path."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._handle))
        except FileNotFoundError:
            return False

    def _acquire(self, path: Path, on_wait: Callable[[str], None] | None) -> None:
        """Locks the open file."""
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # NB: fails at once where it is taken
        except BlockingIOError as error:
            in_use = f"{path.parent} is in use by {self._owner()}"
            if not on_wait:
                raise SurroundingsError(f"{in_use}; wait for it or stop it") from error
            on_wait(f"{in_use}; waiting for it")
            with os_errors(path):
                fcntl.flock(self._handle, fcntl.LOCK_EX)
        except OSError as error:
            raise SurroundingsError(
                f"{path.parent} lies on a file system without locks ({error.strerror}), where two runs could spoil "
                "each other; choose a folder on a local disk"
            ) from error

    def _owner(self) -> str:
        """Names the process that the file tells as the owner, as a sentence does."""
        words = os.pread(self._handle, 512, 0).decode(errors="replace").split()
        return f"process {words[-2]} on {words[-1]}" if len(words) >= 2 else "another process"

    def remove(self) -> None:
        """Removes the file, which is still locked, where this process made it and it is still the one at the path."""
        if self.is_made_here and self._is_own():
            remove(self.path)

    def release(self) -> None:
        """Lets other processes have the folder; does nothing where it is released already."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def open_for_lock(path: Path) -> int:
    """Opens a file whose lock is to be looked at: to read alone where it cannot be written.

    Some network file systems lock only what is open to be written.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def is_locked(path: Path) -> bool:
    """Whether a process holds the `Lock` on a file; the file need not exist."""
    with os_errors(path):
        try:
            handle = open_for_lock(path)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
    return False


def is_owner(path: Path) -> bool:
    """Whether this process holds the `Lock` on a file; the file need not exist."""
    return read_owner(path) == [str(os.getpid()), socket.gethostname()] and is_locked(path)


def read_owner(path: Path) -> list[str]:
    """Returns pid and host of the process that holds the `Lock` on a file, or held it last; [] where none ever did."""
    with os_errors(path):
        try:
            return path.read_text(errors="replace").split()[-2:]
        except FileNotFoundError:
            return []
