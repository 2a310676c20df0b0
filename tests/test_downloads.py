"""The door to the network: a file is in the cache whole and right or not at all, and each failure is one sentence."""

import contextlib
import errno
import hashlib
import io
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from local_server import answer, local_server, serve

import cnn_vit
from cnn_vit import files, process
from cnn_vit.errors import SurroundingsError, UserError
from cnn_vit.files import cache, downloads
from cnn_vit.files.downloads import Remote, fetch

BODY = bytes(range(256)) * 40  # 10,240 bytes
PROGRAM = (
    "import sys; from cnn_vit.files import cache, downloads;"
    "cache.configure(folder=sys.argv[1]);"
    "print(downloads.fetch(downloads.Remote((sys.argv[2],), 'data/x.bin', int(sys.argv[3]), sys.argv[4])))"
)


@pytest.fixture
def server(monkeypatch):
    """A server on this machine that answers from `pages`."""
    with local_server(monkeypatch) as local:
        yield local


@pytest.fixture(autouse=True)
def _cache(tmp_path):
    cache.configure(folder=tmp_path / "cache")
    yield
    cache.configure()


def remote(*addresses, body=BODY, name="data/x.bin"):
    """Describes a file with this body at these addresses."""
    return Remote(addresses, name, len(body), hashlib.sha256(body).hexdigest())


def cache_path(tmp_path, name="x.bin"):
    """Returns the path of a file in the cache's folder of data."""
    return tmp_path / "cache" / "data" / name


def names_in_cache(tmp_path):
    """Lists the names in the cache's folder of data."""
    folder = tmp_path / "cache" / "data"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def fetch_error(tmp_path, file, **settings):
    """Returns the sentence of a failed download, which always says where the file belongs and how to know it."""
    with pytest.raises(SurroundingsError) as caught:
        fetch(file, **settings)
    sentence = str(caught.value)
    assert caught.value.code == 3
    assert "\n" not in sentence
    assert f"get {file.addresses[0]} in another way and put it at {cache_path(tmp_path)}" in sentence
    assert f"({len(BODY):,} bytes, sha256 {file.sha256}" in sentence
    return sentence


# The file arrives


def test_a_file_is_downloaded_once(server, tmp_path):
    server.pages["/x.bin"] = serve(BODY)
    for _ in range(2):
        assert fetch(remote(f"{server.url}/x.bin")) == cache_path(tmp_path)
    assert cache_path(tmp_path).read_bytes() == BODY
    assert server.requests == [("/x.bin", None)]
    assert names_in_cache(tmp_path) == [".x.bin.lock", "x.bin"]


def test_a_server_that_hangs_up_early_is_asked_for_the_rest(server, tmp_path):
    server.pages["/x.bin"] = serve(BODY, most=4000)
    fetch(remote(f"{server.url}/x.bin"))
    assert cache_path(tmp_path).read_bytes() == BODY
    assert [span for _, span in server.requests] == [None, "bytes=4000-", "bytes=8000-"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_body_is_kept_for_the_next_attempt(server, tmp_path, ranges):
    server.pages["/x.bin"] = serve(BODY[:1000] + bytes(9240), most=1000, ranges=False)
    sentence = fetch_error(tmp_path, remote(f"{server.url}/x.bin"))
    assert f"no x.bin: {server.url}/x.bin ended after 1,000 of 10,240 bytes (1,000 bytes are kept; " in sentence
    assert cache_path(tmp_path, ".x.bin.part").read_bytes() == BODY[:1000]
    server.pages["/x.bin"] = serve(BODY, ranges=ranges)
    server.requests.clear()
    fetch(remote(f"{server.url}/x.bin"))
    assert cache_path(tmp_path).read_bytes() == BODY
    assert server.requests == [("/x.bin", "bytes=1000-")]
    assert names_in_cache(tmp_path) == [".x.bin.lock", "x.bin"]


def test_a_file_that_changed_between_two_attempts_is_downloaded_anew(server, tmp_path):
    files.write(cache_path(tmp_path, ".x.bin.part"), b"of the version before" * 100)
    server.pages["/x.bin"] = serve(BODY)
    fetch(remote(f"{server.url}/x.bin"))
    assert cache_path(tmp_path).read_bytes() == BODY
    assert [span for _, span in server.requests] == ["bytes=2100-", None]


@pytest.mark.parametrize("size", [len(BODY), len(BODY) + 1])
def test_a_part_of_another_file_is_replaced(server, tmp_path, size):
    files.write(cache_path(tmp_path, ".x.bin.part"), bytes(size))
    server.pages["/x.bin"] = serve(BODY)
    fetch(remote(f"{server.url}/x.bin"))
    assert cache_path(tmp_path).read_bytes() == BODY


def test_a_whole_part_needs_no_server(tmp_path):
    files.write(cache_path(tmp_path, ".x.bin.part"), BODY)
    fetch(remote("http://127.0.0.1:1/x.bin"))
    assert cache_path(tmp_path).read_bytes() == BODY


def test_a_body_of_unknown_length_is_accepted(server, tmp_path):
    server.pages["/x.bin"] = serve(BODY, length=False)
    fetch(remote(f"{server.url}/x.bin"))
    assert cache_path(tmp_path).read_bytes() == BODY


def test_addresses_are_tried_in_order(server, tmp_path):
    server.pages["/cut"] = serve(BODY, most=600, ranges=False)
    server.pages["/right"] = serve(BODY)
    addresses = ["http://127.0.0.1:1/x", *(f"{server.url}/{name}" for name in ("none", "cut", "right", "unneeded"))]
    fetch(remote(*addresses))
    assert cache_path(tmp_path).read_bytes() == BODY
    assert [path for path, _ in server.requests] == ["/none", "/cut", "/cut", "/right"]
    cache_path(tmp_path).unlink()
    sentence = fetch_error(tmp_path, remote(*addresses[:2]))
    assert sentence.index(f"{addresses[0]} could not be reached") < sentence.index(f"{addresses[1]} answered 404")


def test_redirects_are_followed_to_a_bound(server, tmp_path):
    for hop in range(5):
        location = f"{server.url}/{hop + 1}" if hop % 2 else f"{hop + 1}"
        server.pages[f"/{hop}"] = answer([301, 302, 303, 307, 308][hop], {"Location": location})
    server.pages["/5"] = serve(BODY)
    fetch(remote(f"{server.url}/0"))
    assert cache_path(tmp_path).read_bytes() == BODY
    cache_path(tmp_path).unlink()
    server.pages["/start"] = answer(302, {"Location": "/0"})
    assert "/start redirects more than 5 times" in fetch_error(tmp_path, remote(f"{server.url}/start"))


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher:x"])
def test_a_redirect_to_another_kind_of_address_is_refused(server, tmp_path, location):
    server.pages["/x"] = answer(302, {"Location": location})
    assert "not an http or https address" in fetch_error(tmp_path, remote(f"{server.url}/x"))


def test_a_proxy_of_the_environment_is_used(server, tmp_path, monkeypatch):
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", server.url)
    server.pages["http://somewhere.invalid/x.bin"] = serve(BODY)
    fetch(remote("http://somewhere.invalid/x.bin"))
    assert cache_path(tmp_path).read_bytes() == BODY


# Something else arrives


def test_other_bytes_are_named_by_both_hashes_and_removed(server, tmp_path):
    wrong = BODY[:-1] + b"!"
    server.pages["/x.bin"] = serve(wrong)
    file = remote(f"{server.url}/x.bin")
    sentence = fetch_error(tmp_path, file)
    assert f"{server.url}/x.bin has sha256 {hashlib.sha256(wrong).hexdigest()}, expected {file.sha256}" in sentence
    assert names_in_cache(tmp_path) == [".x.bin.lock"]
    files.write(cache_path(tmp_path, ".x.bin.part"), BODY[:100])
    server.requests.clear()
    assert "has sha256" in fetch_error(tmp_path, file)
    assert [span for _, span in server.requests] == ["bytes=100-", None]  # the part may have been to blame
    assert names_in_cache(tmp_path) == [".x.bin.lock"]


@pytest.mark.parametrize("part", [b"", BODY[:100]])
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"<!DOCTYPE html>\n<html><title>Sign in\n to the  wifi</title>", "gave a web page ('Sign in to the wifi')"),
        (b"\xef\xbb\xbf\n <HTML lang=en>", "gave a web page instead of the file"),
        (b"<!doctype html>" + b" " * (len(BODY) - 15), "gave a web page instead of the file"),
        (b"<html><title>" + b"long " * 9999 + b"</title>", "gave a web page instead of the file"),
        (b"no such file", "offers 12 bytes (text/html), expected 10,240"),
        (BODY * 2, "offers 20,480 bytes (text/html), expected 10,240"),
    ],
)
def test_what_is_not_the_file_is_told_and_leaves_the_part(server, tmp_path, part, body, reason):
    if part:
        files.write(cache_path(tmp_path, ".x.bin.part"), part)
    server.pages["/x.bin"] = answer(200, {"Content-Type": "text/html; charset=utf-8"}, body)
    assert f"{server.url}/x.bin {reason}" in fetch_error(tmp_path, remote(f"{server.url}/x.bin"))
    assert names_in_cache(tmp_path) == [".x.bin.lock", *([".x.bin.part"] if part else [])]
    assert not part or cache_path(tmp_path, ".x.bin.part").read_bytes() == part


def test_an_endless_body_ends(server, tmp_path):
    megabytes = []

    def send_endlessly(handler):
        handler.send_response(200)
        handler.end_headers()
        for count in range(200):
            handler.wfile.write(bytes(10**6))
            megabytes.append(count)

    server.pages["/x.bin"] = send_endlessly
    assert "gives more than the 10,240 bytes expected" in fetch_error(tmp_path, remote(f"{server.url}/x.bin"))
    assert names_in_cache(tmp_path) == [".x.bin.lock"]
    assert len(megabytes) < 100  # what the sockets hold


def test_an_answer_without_bytes_leaves_the_part(server, tmp_path):
    files.write(cache_path(tmp_path, ".x.bin.part"), BODY[:100])
    server.pages["/x.bin"] = serve(BODY, ranges=False, most=0)
    assert "ended after 0 of 10,240 bytes (100 bytes are kept" in fetch_error(tmp_path, remote(f"{server.url}/x.bin"))
    assert cache_path(tmp_path, ".x.bin.part").read_bytes() == BODY[:100]


@pytest.mark.parametrize("status", [204, 206, 401, 403, 404, 410, 416, 429, 500, 503])
def test_another_status_is_told(server, tmp_path, status):
    server.pages["/x.bin"] = answer(status)
    reason = "gave unnamed bytes, expected" if status == 206 else f"answered {status} "
    assert f"{server.url}/x.bin {reason}" in fetch_error(tmp_path, remote(f"{server.url}/x.bin"))


@pytest.mark.parametrize("span", ["bytes 0-9/10240", "bytes 100-199/200", "bytes */10240", "lines 100-200/10240", "x"])
def test_other_bytes_than_asked_for_are_refused(server, tmp_path, span):
    files.write(cache_path(tmp_path, ".x.bin.part"), BODY[:100])
    server.pages["/x.bin"] = answer(206, {"Content-Range": span}, b"1234567890")
    sentence = fetch_error(tmp_path, remote(f"{server.url}/x.bin"))
    assert f"gave {span}, expected bytes 100-10239/10240" in sentence
    assert cache_path(tmp_path, ".x.bin.part").read_bytes() == BODY[:100]


def test_a_dead_server_is_told(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/x.bin"
    assert f"{address} could not be reached (Connection refused)" in fetch_error(tmp_path, remote(address))


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (lambda handler: handler.server.is_over.wait(10), "did not answer within 0.2 seconds"),
        (serve(BODY, most=700, hang=True, ranges=False), "fell silent for 0.2 seconds after 700 of 10,240 bytes"),
        (serve(BODY, most=0, hang=True), "fell silent for 0.2 seconds after 0 of 10,240 bytes"),
    ],
)
def test_a_silent_server_is_given_up(server, tmp_path, page, reason):
    server.pages["/x.bin"] = page
    assert f"{server.url}/x.bin {reason}" in fetch_error(tmp_path, remote(f"{server.url}/x.bin"), timeout=0.2)


@pytest.mark.parametrize("reply", [b"", b"hello\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10240\r\n\r\n1",
                                   b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n12"])  # fmt: skip
def test_gibberish_is_a_sentence(tmp_path, monkeypatch, reply):
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/x.bin"

        def send_reply():
            with contextlib.suppress(OSError):  # the second request may never come
                for _ in range(2):
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(10_000)
                        connection.sendall(reply)

        threading.Thread(target=send_reply, daemon=True).start()
        reasons = "(could not be reached|broke off after|ended after)"
        assert re.search(f"{address} {reasons}", fetch_error(tmp_path, remote(address), timeout=5))


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://a.org/x", "/etc/passwd", "a.org/x", "http:///x", ""])
def test_other_addresses_than_http_are_refused(address):
    with pytest.raises(UserError, match=r"is not an http or https address; only these are downloaded") as caught:
        fetch(remote(address))
    assert caught.value.code == 2


# The disk


def test_a_full_disk_is_told_before_anything_is_asked(server, tmp_path, monkeypatch):
    usage = files.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage._replace(free=100))
    sentence = fetch_error(tmp_path, remote(f"{server.url}/x.bin"))
    assert sentence.startswith(f"No space left: {tmp_path}/cache/data needs 10,240 bytes, 100 are free; make room")
    assert "set CNN_VIT_CACHE to another folder" in sentence
    assert server.requests == []


def test_a_limit_on_the_way_is_told_and_what_arrived_stays(server, tmp_path):
    server.pages["/x.bin"] = serve(BODY)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        sentence = fetch_error(tmp_path, remote(f"{server.url}/x.bin"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert sentence.startswith(f"File too large: {cache_path(tmp_path, '.x.bin.part')}")
    fetch(remote(f"{server.url}/x.bin"))
    assert cache_path(tmp_path).read_bytes() == BODY
    assert server.requests[-1][1] == "bytes=5000-"


def test_a_cache_that_cannot_be_written_is_told(server, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("")
    sentence = fetch_error(tmp_path, remote(f"{server.url}/x.bin"))
    assert f"{cache_path(tmp_path, '.x.bin.lock')} is a file or lies under one" in sentence
    (tmp_path / "cache").unlink()
    monkeypatch.setattr(files.os, "open", failing(errno.EROFS))
    sentence = fetch_error(tmp_path, remote(f"{server.url}/x.bin"))
    assert re.search(r"/cache/data/\.x\.bin\.lock is on a read-only file system; choose another folder", sentence)
    assert server.requests == []


def failing(number):
    """Makes a function that fails as the operating system does, whatever it is called with."""

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("name", ["open", "write", "fsync", "rename"])
def test_whatever_call_of_the_system_fails_the_next_attempt_has_the_file(server, tmp_path, monkeypatch, name):
    server.pages["/x.bin"] = serve(BODY, most=4000)
    real, calls = getattr(os, name), 0
    for failing_call in range(1, 20):
        calls = 0

        def fail_once(*arguments, failing_call=failing_call, **keywords):
            nonlocal calls
            calls += 1
            if calls == failing_call:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*arguments, **keywords)

        monkeypatch.setattr(files.os, name, fail_once)
        with contextlib.suppress(SurroundingsError):
            fetch(remote(f"{server.url}/x.bin"))
        monkeypatch.setattr(files.os, name, real)
        assert cache_path(tmp_path).exists() <= (fetch(remote(f"{server.url}/x.bin")).read_bytes() == BODY)
        assert names_in_cache(tmp_path) == [".x.bin.lock", "x.bin"]
        cache_path(tmp_path).unlink()
        if calls < failing_call:
            break  # the download makes fewer calls: each of them has failed once
    assert 1 < failing_call < 19


def test_two_processes_take_turns(server, tmp_path):
    is_asked = threading.Event()

    def answer_slowly(handler):
        is_asked.set()
        time.sleep(0.3)
        serve(BODY)(handler)

    server.pages["/x.bin"] = answer_slowly
    file = remote(f"{server.url}/x.bin")
    command = [sys.executable, "-c", PROGRAM, tmp_path / "cache", file.addresses[0], str(file.size), file.sha256]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process_in_front:
        is_asked.wait(20)
        stderr = io.StringIO()
        with contextlib.redirect_stderr(stderr):
            assert fetch(file).read_bytes() == BODY
        assert process_in_front.communicate()[0].strip() == str(cache_path(tmp_path))
    assert f"is in use by process {process_in_front.pid} on {socket.gethostname()}; waiting for it" in stderr.getvalue()
    assert server.requests == [("/x.bin", None)]


def test_a_killed_download_goes_on_where_it_was(server, tmp_path):
    server.pages["/x.bin"] = serve(BODY, most=3000, hang=True)
    file = remote(f"{server.url}/x.bin")
    command = [sys.executable, "-c", PROGRAM, tmp_path / "cache", file.addresses[0], str(file.size), file.sha256]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as killed:
        part = cache_path(tmp_path, ".x.bin.part")
        for _ in range(1000):
            if part.exists() and part.stat().st_size == 3000:
                break
            time.sleep(0.02)
        killed.send_signal(signal.SIGKILL)
    assert part.read_bytes() == BODY[:3000]
    server.pages["/x.bin"] = serve(BODY)
    assert fetch(file).read_bytes() == BODY
    assert server.requests == [("/x.bin", None), ("/x.bin", "bytes=3000-")]


# Without the network


def test_a_file_put_there_by_hand_is_used_and_a_wrong_one_replaced(server, tmp_path, capsys):
    file = remote(f"{server.url}/x.bin")
    files.write(cache_path(tmp_path), BODY)
    assert fetch(file) == cache_path(tmp_path)
    assert server.requests == []
    files.write(cache_path(tmp_path), b"wrong")
    with pytest.raises(SurroundingsError):
        fetch(file)
    assert cache_path(tmp_path).read_bytes() == b"wrong"  # until the right one is there
    server.pages["/x.bin"] = serve(BODY)
    assert fetch(file).read_bytes() == BODY
    assert f"{cache_path(tmp_path)} has 5 bytes, expected 10,240: it is downloaded again" in capsys.readouterr().err


def test_offline_nothing_is_asked_and_what_is_in_the_cache_is_found(server, tmp_path):
    server.pages["/x.bin"] = serve(BODY)
    cache.configure(folder=tmp_path / "cache", offline=True)
    file = remote(f"{server.url}/x.bin")
    sentence = fetch_error(tmp_path, file)
    assert f"{cache_path(tmp_path)} is not there, and CNN_VIT_OFFLINE=1 forbids downloads" in sentence
    files.write(cache_path(tmp_path), b"!" * len(BODY))
    sha256 = hashlib.sha256(b"!" * len(BODY)).hexdigest()
    assert f"{cache_path(tmp_path)} has sha256 {sha256}" in fetch_error(tmp_path, file)
    files.write(cache_path(tmp_path), BODY)
    assert fetch(file) == cache_path(tmp_path)
    assert server.requests == []


@pytest.mark.parametrize("slash", ["", "/"])
def test_an_address_as_mirror_holds_host_and_path(server, tmp_path, slash):
    cache.configure(folder=tmp_path / "cache", mirror=f"{server.url}/m{slash}")
    server.pages["/m/a.org/~b/x.bin"] = serve(BODY)
    assert fetch(remote("https://a.org/~b/x.bin")).read_bytes() == BODY
    cache_path(tmp_path).unlink()
    sentence = fetch_error(tmp_path, remote("https://a.org/y", "https://c.org/z"))
    assert f"{server.url}/m/a.org/y answered 404 Not Found, {server.url}/m/c.org/z answered 404" in sentence


def test_a_folder_as_mirror_is_read_in_place_and_offline_too(tmp_path):
    cache.configure(folder=tmp_path / "cache", mirror=str(tmp_path / "m"), offline=True)
    file = remote("https://a.org/~b/x.bin", "https://c.org/x.bin")
    first, second = tmp_path / "m" / "a.org" / "~b" / "x.bin", tmp_path / "m" / "c.org" / "x.bin"
    sentence = fetch_error(tmp_path, file)
    assert f"{first} is not there, {second} is not there (CNN_VIT_MIRROR={tmp_path}/m)" in sentence
    files.write(first, b"wrong")
    assert f"{first} has 5 bytes, expected 10,240, {second} is not there" in fetch_error(tmp_path, file)
    files.write(second, BODY)
    assert fetch(file) == second
    assert names_in_cache(tmp_path) == []


def test_another_kind_of_mirror_is_refused(tmp_path):
    cache.configure(folder=tmp_path / "cache", mirror="ftp://a.org")
    with pytest.raises(UserError, match=r"ftp://a\.org is not an http or https address"):
        fetch(remote("https://a.org/x"))


# What is printed on the way, and the cache


def test_progress_goes_to_stderr_a_line_for_each_tenth(server, capfd):
    server.pages["/x.bin"] = serve(BODY, most=4000)
    fetch(remote(f"{server.url}/x.bin"))
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines()[0] == f"downloading x.bin (0.0 MB) from {server.url}/x.bin"
    assert [line.split()[1] for line in err.splitlines()[1:]] == ["30", "70", "100"]


def test_a_terminal_shows_a_bar(server, monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    server.pages["/x.bin"] = serve(BODY)
    fetch(remote(f"{server.url}/x.bin"))
    assert "10.2/10.2 kB" in sys.stderr.getvalue()
    assert capsys.readouterr().out == ""


def test_a_closed_stderr_is_not_a_failure(server, tmp_path, monkeypatch):
    closed = io.StringIO()
    monkeypatch.setattr(downloads.progress.__globals__["sys"], "stderr", closed)
    monkeypatch.setattr(closed, "write", failing(errno.EPIPE))
    server.pages["/x.bin"] = serve(BODY)
    assert fetch(remote(f"{server.url}/x.bin")).read_bytes() == BODY


def test_the_cache_has_a_size_for_each_part(tmp_path):
    assert cache.folder_sizes() == {}
    for name, size in {"data/a/x": 5, "data/.y.part": 2, "xla/z": 4, "note": 1}.items():
        files.write(tmp_path / "cache" / name, b"1" * size)
    (tmp_path / "cache" / "loop").symlink_to(tmp_path / "cache")
    assert {part: size for part, size in cache.folder_sizes().items() if part != "."} == {"data": 7, "xla": 4}


def test_the_default_cache_is_where_compiled_programs_go(tmp_path, monkeypatch):
    cache.configure()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert str(cache.folder()) == str(Path(process.cache_folder({})[0]).parent) == f"{tmp_path}/.cache/cnn_vit"
    monkeypatch.setattr(cache.os.path, "expanduser", lambda path: path)
    with pytest.raises(SurroundingsError, match="no home folder for the cache; set CNN_VIT_CACHE"):
        cache.folder()


def test_the_public_verbs_configure_the_cache_from_the_environment(tmp_path, monkeypatch):
    cnn_vit._configure_cache.cache_clear()
    monkeypatch.setitem(cnn_vit.VERBS, "build", "cnn_vit.files.cache")  # any room will do that imports no jax
    monkeypatch.setattr(cache, "build", None, raising=False)
    for name, value in {"CACHE": str(tmp_path / "mine"), "OFFLINE": "1", "MIRROR": "https://a.org"}.items():
        monkeypatch.setenv(f"CNN_VIT_{name}", value)
    assert cnn_vit.build is None
    assert cache.current_places() == cache.CachePlaces(tmp_path / "mine", True, "https://a.org")
    cnn_vit._configure_cache.cache_clear()
