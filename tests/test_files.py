"""The door to the disk: a file is the old or the new one, and every failure names its path."""

import errno
import fcntl
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cnn_vit import files
from cnn_vit.errors import SurroundingsError, UserError
from cnn_vit.files import stamps


def names_in(folder):
    """Lists the names of what lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("content", "expected"), [("grün\n", "grün\n".encode()), (b"\0\xff", b"\0\xff")])
def test_writing_makes_folders_and_leaves_the_file_alone_in_them(tmp_path, content, expected):
    path = tmp_path / "a" / "b" / "c"
    files.write(path, content)
    files.write(path, content)
    assert path.read_bytes() == expected
    assert names_in(tmp_path / "a" / "b") == ["c"]


def test_a_text_between_two_marks_is_replaced_and_all_else_stays(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("# Größe\n<!-- table -->\nold\nrows\n<!-- end -->\nbehind\n<!-- end -->\n")
    files.replace_between(path, "new\n", begin="<!-- table -->\n", end="<!-- end -->")
    assert path.read_text() == "# Größe\n<!-- table -->\nnew\n<!-- end -->\nbehind\n<!-- end -->\n"


@pytest.mark.parametrize(
    ("text", "missing"), [("<!-- end -->\n", "<!-- table -->"), ("<!-- end -->\n<!-- table -->\n", "<!-- end -->")]
)
def test_a_text_whose_marks_are_missing_is_not_written(tmp_path, text, missing):
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(UserError, match=f"has no '{missing}'"):
        files.replace_between(path, "new\n", begin="<!-- table -->\n", end="<!-- end -->")
    assert path.read_text() == text


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call):
    files.write(tmp_path / "x", "old")
    monkeypatch.setattr(os, call, failing(errno.ENOSPC))
    with pytest.raises(SurroundingsError, match=rf"No space left: {tmp_path}/x needs 1,234 bytes, [\d,]+ are free"):
        files.write(tmp_path / "x", "y" * 1234)
    assert (tmp_path / "x").read_text() == "old"
    assert names_in(tmp_path) == ["x"]


def failing(number):
    """Makes a function that fails as the operating system does, whatever it is called with."""

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    return fail


def test_the_content_is_on_the_disk_before_its_name_and_the_name_before_the_return(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(handle):
        calls.append(("fsync", Path(os.readlink(f"/proc/self/fd/{handle}")).name))
        fsync(handle)

    def record_replace(source, target):
        calls.append(("replace", Path(target).name))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    files.write(tmp_path / "x", "new")
    assert calls == [("fsync", f".x.{os.getpid()}.tmp"), ("replace", "x"), ("fsync", tmp_path.name)]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "No space left"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "no permission"),
        (errno.EPERM, "no permission"),
        (errno.EMFILE, "ulimit -n"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_each_error_of_the_system_is_a_sentence_with_the_path(tmp_path, monkeypatch, number, words):
    monkeypatch.setattr(os, "replace", failing(number))
    with pytest.raises(SurroundingsError) as caught:
        files.write(tmp_path / "x", "y")
    assert words in str(caught.value)
    assert str(tmp_path / "x") in str(caught.value)
    assert ";" in str(caught.value)  # and a remedy
    assert caught.value.code == 3


@pytest.mark.parametrize(
    "act",
    [
        lambda path: files.write(path, ""),
        lambda path: files.write_json(path, {}),
        lambda path: files.write_npz(path, {}),
        files.read_json,
        files.open_append,
        lambda path: files.append_line(path, {}),
        lambda path: files.truncate(path, 0),
        lambda path: files.move(path, path.with_name("other")),
        files.remove,
        files.fsync,
        files.sha256,
        files.ensure_writable,
        files.Lock,
    ],
)
def test_every_act_below_a_file_is_refused_with_the_path(tmp_path, act):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "x"
    with pytest.raises(SurroundingsError, match=str(path)):
        act(path)
    assert names_in(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("act", "name", "folder"),
    [
        (lambda path: files.write(path, ""), "missing/page.html", "/proc"),
        (lambda path: files.write(path, ""), "page.html", "/proc"),
        (lambda path: files.write(path, ""), "self/task/page.html", "/proc/self/task"),
        (files.ensure_writable, "missing", "/proc"),
        (files.ensure_writable, "", "/proc"),
        (files.make_folders, "missing/deeper", "/proc"),
        (files.open_append, "missing/lines", "/proc"),
        (files.Lock, "missing/lock", "/proc"),
        (files.Lock, "lock", "/proc"),
    ],
)
def test_where_no_names_can_be_made_the_sentence_says_so_and_not_that_the_file_is_missing(act, name, folder):
    path = Path("/proc", name)  # a file system that takes no new names, whoever asks, and says ENOENT
    with pytest.raises(SurroundingsError) as caught:
        act(path)
    assert str(caught.value) == (
        f"cannot write {path}: no file or folder could be made in {folder}; choose another folder"
    )


def test_a_file_to_read_that_is_missing_is_said_to_be_missing(tmp_path):
    with pytest.raises(SurroundingsError, match=f"{tmp_path / 'x'} is not there; look for a typing error"):
        files.read_json(tmp_path / "x")


def test_the_error_of_a_full_device_names_the_bytes_needed():
    file = files.open_append(Path("/dev/full"))
    with pytest.raises(SurroundingsError, match="No space left: /dev/full needs 5 bytes"):
        file.write("12345")


def test_the_error_of_a_too_large_file_names_the_limit(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(SurroundingsError, match="x needs 1,001 bytes, above the limit of 1,000 bytes"):
            files.write(tmp_path / "x", b"1" * 1001)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names_in(tmp_path) == []


def test_json_is_read_back_and_does_not_depend_on_the_order_of_keys(tmp_path):
    value = {"b": [1, 2.5, None, "ä\udcff"], "a": {"x": True}}
    files.write_json(tmp_path / "1", value)
    files.write_json(tmp_path / "2", dict(reversed(value.items())))
    assert files.read_json(tmp_path / "1") == value
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "1", {"loss": float("nan")})
    assert files.read_json(tmp_path / "1") == value


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a": 1} b'])
def test_what_is_not_json_is_refused_with_the_path(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UserError, match=rf"{tmp_path}/x is not JSON"):
        files.read_json(tmp_path / "x")


def test_the_same_arrays_are_the_same_bytes_and_objects_are_refused(tmp_path):
    arrays = {"index": np.arange(3, dtype=np.int32), "file": np.float32([[0.1]]), "none": np.zeros((0, 2))}
    for name in ("1.npz", "2.npz"):
        files.write_npz(tmp_path / name, arrays)
    assert (tmp_path / "1.npz").read_bytes() == (tmp_path / "2.npz").read_bytes()
    with np.load(tmp_path / "1.npz", allow_pickle=False) as stored:
        assert {name: stored[name].dtype for name in stored} == {name: array.dtype for name, array in arrays.items()}
        for name, array in arrays.items():
            np.testing.assert_array_equal(stored[name], array)
    with pytest.raises(ValueError, match="Object arrays"):
        files.write_npz(tmp_path / "1.npz", {"x": np.array([None])})


def test_a_growing_file_shows_a_line_at_once_and_goes_on_where_it_ended(tmp_path):
    for line, expected in (("one\n", b"one\n"), (b"two\n", b"two\n")):
        file = files.open_append(tmp_path / "a" / "x")
        file.write(line)
        assert (tmp_path / "a" / "x").read_bytes().endswith(expected)
        file.flush()
        file.close()
        file.close()
    assert (tmp_path / "a" / "x").read_text() == "one\ntwo\n"


@pytest.mark.parametrize("before", ["", '{"a": 0}\n', '{"a": 0}\n{"torn'])
def test_an_added_line_stands_alone_even_behind_a_torn_one(tmp_path, before):
    (tmp_path / "x").write_text(before)
    files.append_line(tmp_path / "x", {"b": 2, "a": 1})
    assert (tmp_path / "x").read_text().startswith(before)
    assert json.loads((tmp_path / "x").read_text().splitlines()[-1]) == {"a": 1, "b": 2}


def test_truncating_keeps_the_beginning(tmp_path):
    (tmp_path / "x").write_text("one\ntwo\n")
    files.truncate(tmp_path / "x", 4)
    assert (tmp_path / "x").read_text() == "one\n"


def test_moving_and_removing_take_files_and_folders(tmp_path):
    files.write(tmp_path / "folder" / "x", "1")
    files.move(tmp_path / "folder", tmp_path / "other")
    files.move(tmp_path / "other" / "x", tmp_path / "y")
    (tmp_path / "link").symlink_to(tmp_path / "other")
    files.remove(tmp_path / "link")
    assert names_in(tmp_path) == ["other", "y"]
    for name in ("other", "y", "nothing"):
        files.remove(tmp_path / name)
    assert names_in(tmp_path) == []


def test_the_sha256_is_that_of_the_standard(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert files.sha256(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_what_a_killed_write_left_is_removed_and_nothing_else(tmp_path):
    other_names = [".hidden", ".x.tmp", "x", "x.12.tmp"]
    for name in (*other_names, ".x.12.tmp", ".metrics.jsonl.7.tmp"):
        (tmp_path / name).write_text("")
    files.remove_temporary(tmp_path)
    files.remove_temporary(tmp_path / "missing")
    assert names_in(tmp_path) == other_names


def test_a_temporary_folder_is_gone_afterwards_with_all_that_is_in_it():
    with files.temporary_folder() as folder:
        (folder / "a").mkdir()
        (folder / "a" / "b").write_text("c")
    assert not folder.exists()


def test_the_free_bytes_of_a_disk_are_those_that_the_system_tells(tmp_path):
    """Of a folder that is not there yet, those of the disk that it would be on; other processes may write meanwhile."""
    statistics = os.statvfs(tmp_path)
    assert files.free_disk(tmp_path / "not" / "yet") == pytest.approx(
        statistics.f_bavail * statistics.f_frsize, rel=0.05
    )


def test_which_of_two_files_was_written_first_is_told_by_the_file_system(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    for seconds, path in ((1000, old), (2000, new)):
        path.touch()
        os.utime(path, (seconds, seconds))
    assert stamps.is_newer(new, old)
    assert not stamps.is_newer(old, new)
    assert not stamps.is_newer(old, old)
    assert not stamps.is_newer(new, tmp_path / "missing")
    assert not stamps.is_newer(tmp_path / "missing", old)


def test_a_folder_is_probed_without_a_trace(tmp_path):
    files.ensure_writable(tmp_path / "a" / "b", needed=10)
    assert names_in(tmp_path / "a" / "b") == []
    with pytest.raises(SurroundingsError, match=rf"No space left: {tmp_path} needs 1,000,000,000,000,000 bytes"):
        files.ensure_writable(tmp_path, needed=10**15)


@pytest.mark.parametrize("kind", ["pipe", "link to a device"])
def test_what_is_no_regular_file_is_not_replaced_by_one(tmp_path, kind):
    """As root, a rename would put a file in place of /dev/null."""
    path = tmp_path / "out.html"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(os.devnull)
    before = path.lstat()
    with pytest.raises(UserError, match=r"out\.html is not a regular file but a device, a pipe or a socket; give anot"):
        files.write(path, "text")
    assert os.path.samestat(path.lstat(), before)


def test_a_locked_folder_is_refused_with_pid_and_host(tmp_path):
    with (
        files.Lock(tmp_path / "run" / "lock"),
        pytest.raises(SurroundingsError, match=f"process {os.getpid()} on {socket.gethostname()}") as caught,
    ):
        files.Lock(tmp_path / "run" / "lock")
    assert str(caught.value).startswith(f"{tmp_path}/run is in use")
    files.Lock(tmp_path / "run" / "lock").release()


def test_a_lock_dies_with_its_owner_and_no_sooner(tmp_path):
    program = (
        "import sys, pathlib; from cnn_vit.files import Lock; lock = Lock(pathlib.Path(sys.argv[1])); print(1); input()"
    )
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout.readline() == b"1\n"
        with pytest.raises(SurroundingsError, match=f"process {owner.pid} on"):
            files.Lock(path)
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        files.Lock(path).release()
        assert path.read_text().split() == [str(os.getpid()), socket.gethostname()]


def test_a_lock_is_seen_where_nothing_can_be_written(tmp_path, monkeypatch):
    os_open = os.open

    def open_to_read(path, flags, *arguments):
        if flags & os.O_RDWR:
            raise OSError(errno.EROFS, "Read-only file system")
        return os_open(path, flags, *arguments)

    with files.Lock(tmp_path / "lock"):
        monkeypatch.setattr(os, "open", open_to_read)
        assert files.is_locked(tmp_path / "lock")
        monkeypatch.undo()
    monkeypatch.setattr(os, "open", open_to_read)
    assert not files.is_locked(tmp_path / "lock")


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", failing(errno.ENOLCK))
    with pytest.raises(SurroundingsError, match=rf"{tmp_path} lies on a file system without locks"):
        files.Lock(tmp_path / "lock")
