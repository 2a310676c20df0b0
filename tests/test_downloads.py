"""The door to the network: a file is in the cache whole and right or not at all, and every failure is one sentence."""

import contextlib
import errno
import hashlib
import http.server
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

import cnn_vit
from cnn_vit import files, process
from cnn_vit.errors import SurroundingsError, UserError
from cnn_vit.files import cache, downloads
from cnn_vit.files.downloads import Remote, fetch

BODY = bytes(range(256)) * 40  # 10,240 bytes
CODE = (
    "import sys; from cnn_vit.files import cache, downloads;"
    "cache.settle(folder=sys.argv[1]);"
    "print(downloads.fetch(downloads.Remote((sys.argv[2],), 'data/x.bin', int(sys.argv[3]), sys.argv[4])))"
)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as `server.pages[path]` says; each request is kept as (path, its Range)."""

    def do_GET(self):
        self.server.requested.append((self.path, self.headers.get("Range")))
        page = self.server.pages.get(self.path)
        with contextlib.suppress(ConnectionError):
            page(self) if page else self.send_error(404)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        found.daemon_threads, found.block_on_close = True, False
        found.pages, found.asked, found.done = {}, [], threading.Event()
        found.at = f"http://127.0.0.1:{found.server_port}"
        threading.Thread(target=found.serve_forever, args=(0.02,), daemon=True).start()
        yield found
        found.done.set()  # frees what hangs
        found.shutdown()


@pytest.fixture(autouse=True)
def _cache(tmp_path):
    cache.configure(folder=tmp_path / "cache")
    yield
    cache.configure()


def serve(body, *, ranges=True, most=None, status=200, hang=False, length=True):
    """A page that gives a body; at most so many bytes of it an answer, then hangs or hangs up."""

    def page(handler):
        start = int((handler.headers.get("Range") or "bytes=0-")[6:-1]) if ranges else 0
        handler.send_response(206 if start else status)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if length:
            handler.send_header("Content-Length", str(len(body) - start))
        handler.end_headers()
        handler.wfile.write(body[start:][:most])
        if hang:
            handler.server.done.wait(10)

    return page


def answer(status, headers=(), body=b""):
    """A page that is given as it is written here."""

    def page(handler):
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **dict(headers)}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return page


def remote(*addresses, body=BODY, name="data/x.bin"):
    return Remote(addresses, name, len(body), hashlib.sha256(body).hexdigest())


def there(tmp_path, name="x.bin"):
    return tmp_path / "cache" / "data" / name


def left(tmp_path):
    folder = tmp_path / "cache" / "data"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def refused(tmp_path, what, **settings):
    """The sentence of a failed download, which always says where the file belongs and how to know it."""
    with pytest.raises(SurroundingsError) as caught:
        fetch(what, **settings)
    sentence = str(caught.value)
    assert caught.value.code == 3
    assert "\n" not in sentence
    assert f"get {what.addresses[0]} in another way and put it at {there(tmp_path)}" in sentence
    assert f"({len(BODY):,} bytes, sha256 {what.sha256}" in sentence
    return sentence


# It comes


def test_a_file_is_downloaded_once(server, tmp_path):
    server.pages["/x.bin"] = serve(BODY)
    for _ in range(2):
        assert fetch(remote(f"{server.at}/x.bin")) == there(tmp_path)
    assert there(tmp_path).read_bytes() == BODY
    assert server.asked == [("/x.bin", None)]
    assert left(tmp_path) == [".x.bin.lock", "x.bin"]


def test_a_server_that_hangs_up_early_is_asked_for_the_rest(server, tmp_path):
    server.pages["/x.bin"] = serve(BODY, most=4000)
    fetch(remote(f"{server.at}/x.bin"))
    assert there(tmp_path).read_bytes() == BODY
    assert [span for _, span in server.asked] == [None, "bytes=4000-", "bytes=8000-"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_body_is_kept_for_the_next_attempt(server, tmp_path, ranges):
    server.pages["/x.bin"] = serve(BODY[:1000] + bytes(9240), most=1000, ranges=False)
    sentence = refused(tmp_path, remote(f"{server.at}/x.bin"))
    assert f"no x.bin: {server.at}/x.bin ended after 1,000 of 10,240 bytes (1,000 bytes are kept; " in sentence
    assert there(tmp_path, ".x.bin.part").read_bytes() == BODY[:1000]
    server.pages["/x.bin"] = serve(BODY, ranges=ranges)
    server.asked.clear()
    fetch(remote(f"{server.at}/x.bin"))
    assert there(tmp_path).read_bytes() == BODY
    assert server.asked == [("/x.bin", "bytes=1000-")]
    assert left(tmp_path) == [".x.bin.lock", "x.bin"]


def test_a_file_that_changed_between_its_parts_is_asked_for_anew(server, tmp_path):
    files.write(there(tmp_path, ".x.bin.part"), b"of the version before" * 100)
    server.pages["/x.bin"] = serve(BODY)
    fetch(remote(f"{server.at}/x.bin"))
    assert there(tmp_path).read_bytes() == BODY
    assert [span for _, span in server.asked] == ["bytes=2100-", None]


@pytest.mark.parametrize("size", [len(BODY), len(BODY) + 1])
def test_a_part_that_is_no_part_of_it_does_not_stay(server, tmp_path, size):
    files.write(there(tmp_path, ".x.bin.part"), bytes(size))
    server.pages["/x.bin"] = serve(BODY)
    fetch(remote(f"{server.at}/x.bin"))
    assert there(tmp_path).read_bytes() == BODY


def test_a_whole_part_needs_no_server(tmp_path):
    files.write(there(tmp_path, ".x.bin.part"), BODY)
    fetch(remote("http://127.0.0.1:1/x.bin"))
    assert there(tmp_path).read_bytes() == BODY


def test_a_body_of_unsaid_length_is_taken(server, tmp_path):
    server.pages["/x.bin"] = serve(BODY, length=False)
    fetch(remote(f"{server.at}/x.bin"))
    assert there(tmp_path).read_bytes() == BODY


def test_addresses_are_tried_in_order(server, tmp_path):
    server.pages["/cut"] = serve(BODY, most=600, ranges=False)
    server.pages["/right"] = serve(BODY)
    addresses = ["http://127.0.0.1:1/x", *(f"{server.at}/{name}" for name in ("none", "cut", "right", "unneeded"))]
    fetch(remote(*addresses))
    assert there(tmp_path).read_bytes() == BODY
    assert [path for path, _ in server.asked] == ["/none", "/cut", "/cut", "/right"]
    there(tmp_path).unlink()
    sentence = refused(tmp_path, remote(*addresses[:2]))
    assert sentence.index(f"{addresses[0]} could not be reached") < sentence.index(f"{addresses[1]} answered 404")


def test_redirects_are_followed_to_a_bound(server, tmp_path):
    for hop in range(5):
        place = f"{server.at}/{hop + 1}" if hop % 2 else f"{hop + 1}"
        server.pages[f"/{hop}"] = answer([301, 302, 303, 307, 308][hop], {"Location": place})
    server.pages["/5"] = serve(BODY)
    fetch(remote(f"{server.at}/0"))
    assert there(tmp_path).read_bytes() == BODY
    there(tmp_path).unlink()
    server.pages["/start"] = answer(302, {"Location": "/0"})
    assert "/start redirects more than 5 times" in refused(tmp_path, remote(f"{server.at}/start"))


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher:x"])
def test_a_redirect_to_another_kind_of_address_is_refused(server, tmp_path, place):
    server.pages["/x"] = answer(302, {"Location": place})
    assert "no http or https address" in refused(tmp_path, remote(f"{server.at}/x"))


def test_a_proxy_of_the_environment_is_used(server, tmp_path, monkeypatch):
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", server.at)
    server.pages["http://somewhere.invalid/x.bin"] = serve(BODY)
    fetch(remote("http://somewhere.invalid/x.bin"))
    assert there(tmp_path).read_bytes() == BODY


# It comes wrong


def test_other_bytes_are_named_by_both_hashes_and_removed(server, tmp_path):
    other = BODY[:-1] + b"!"
    server.pages["/x.bin"] = serve(other)
    what = remote(f"{server.at}/x.bin")
    sentence = refused(tmp_path, what)
    assert f"{server.at}/x.bin has sha256 {hashlib.sha256(other).hexdigest()}, expected {what.sha256}" in sentence
    assert left(tmp_path) == [".x.bin.lock"]
    files.write(there(tmp_path, ".x.bin.part"), BODY[:100])
    server.asked.clear()
    assert "has sha256" in refused(tmp_path, what)
    assert [span for _, span in server.asked] == ["bytes=100-", None]  # the part may have been to blame
    assert left(tmp_path) == [".x.bin.lock"]


@pytest.mark.parametrize("part", [b"", BODY[:100]])
@pytest.mark.parametrize(
    ("page", "said"),
    [
        (b"<!DOCTYPE html>\n<html><title>Sign in\n to the  wifi</title>", "gave a web page ('Sign in to the wifi')"),
        (b"\xef\xbb\xbf\n <HTML lang=en>", "gave a web page instead of the file"),
        (b"<!doctype html>" + b" " * (len(BODY) - 15), "gave a web page instead of the file"),
        (b"<html><title>" + b"long " * 9999 + b"</title>", "gave a web page instead of the file"),
        (b"no such file", "offers 12 bytes (text/html), expected 10,240"),
        (BODY * 2, "offers 20,480 bytes (text/html), expected 10,240"),
    ],
)
def test_what_is_not_the_file_is_said_and_leaves_the_part(server, tmp_path, part, page, said):
    if part:
        files.write(there(tmp_path, ".x.bin.part"), part)
    server.pages["/x.bin"] = answer(200, {"Content-Type": "text/html; charset=utf-8"}, page)
    assert f"{server.at}/x.bin {said}" in refused(tmp_path, remote(f"{server.at}/x.bin"))
    assert left(tmp_path) == [".x.bin.lock", *([".x.bin.part"] if part else [])]
    assert not part or there(tmp_path, ".x.bin.part").read_bytes() == part


def test_an_endless_body_ends(server, tmp_path):
    sent = []

    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        for _ in range(200):
            handler.wfile.write(bytes(10**6))
            sent.append(1)

    server.pages["/x.bin"] = endless
    assert "gives more than the 10,240 bytes expected" in refused(tmp_path, remote(f"{server.at}/x.bin"))
    assert left(tmp_path) == [".x.bin.lock"]
    assert len(sent) < 100  # what the sockets hold


def test_an_answer_without_bytes_costs_nothing(server, tmp_path):
    files.write(there(tmp_path, ".x.bin.part"), BODY[:100])
    server.pages["/x.bin"] = serve(BODY, ranges=False, most=0)
    assert "ended after 0 of 10,240 bytes (100 bytes are kept" in refused(tmp_path, remote(f"{server.at}/x.bin"))
    assert there(tmp_path, ".x.bin.part").read_bytes() == BODY[:100]


@pytest.mark.parametrize("status", [204, 206, 401, 403, 404, 410, 416, 429, 500, 503])
def test_another_status_is_said(server, tmp_path, status):
    server.pages["/x.bin"] = answer(status)
    said = "gave unnamed bytes, expected" if status == 206 else f"answered {status} "
    assert f"{server.at}/x.bin {said}" in refused(tmp_path, remote(f"{server.at}/x.bin"))


@pytest.mark.parametrize("span", ["bytes 0-9/10240", "bytes 100-199/200", "bytes */10240", "lines 100-200/10240", "x"])
def test_other_bytes_than_asked_for_are_refused(server, tmp_path, span):
    files.write(there(tmp_path, ".x.bin.part"), BODY[:100])
    server.pages["/x.bin"] = answer(206, {"Content-Range": span}, b"1234567890")
    sentence = refused(tmp_path, remote(f"{server.at}/x.bin"))
    assert f"gave {span}, expected bytes 100-10239/10240" in sentence
    assert there(tmp_path, ".x.bin.part").read_bytes() == BODY[:100]


def test_a_dead_server_is_said(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/x.bin"
    assert f"{address} could not be reached (Connection refused)" in refused(tmp_path, remote(address))


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (lambda handler: handler.server.done.wait(10), "did not answer within 0.2 seconds"),
        (serve(BODY, most=700, hang=True, ranges=False), "fell silent for 0.2 seconds after 700 of 10,240 bytes"),
        (serve(BODY, most=0, hang=True), "fell silent for 0.2 seconds after 0 of 10,240 bytes"),
    ],
)
def test_a_silent_server_is_given_up(server, tmp_path, page, said):
    server.pages["/x.bin"] = page
    assert f"{server.at}/x.bin {said}" in refused(tmp_path, remote(f"{server.at}/x.bin"), timeout=0.2)


@pytest.mark.parametrize("reply", [b"", b"hello\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10240\r\n\r\n1",
                                   b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n12"])  # fmt: skip
def test_gibberish_is_a_sentence(tmp_path, monkeypatch, reply):
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/x.bin"

        def speak():
            with contextlib.suppress(OSError):  # the second call may never come
                for _ in range(2):
                    caller, _ = listening.accept()
                    with caller:
                        caller.recv(10_000)
                        caller.sendall(reply)

        threading.Thread(target=speak, daemon=True).start()
        said = "(could not be reached|broke off after|ended after)"
        assert re.search(f"{address} {said}", refused(tmp_path, remote(address), timeout=5))


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://a.org/x", "/etc/passwd", "a.org/x", "http:///x", ""])
def test_other_addresses_than_http_are_refused(address):
    with pytest.raises(UserError, match=r"is no http or https address; only these are downloaded") as caught:
        fetch(remote(address))
    assert caught.value.code == 2


# The disk


def test_a_full_disk_is_said_before_anything_is_asked(server, tmp_path, monkeypatch):
    usage = files.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage._replace(free=100))
    sentence = refused(tmp_path, remote(f"{server.at}/x.bin"))
    assert sentence.startswith(f"No space left: {tmp_path}/cache/data needs 10,240 bytes, 100 are free; make room")
    assert "set CNN_VIT_CACHE to another folder" in sentence
    assert server.asked == []


def test_a_limit_on_the_way_is_said_and_what_came_stays(server, tmp_path):
    server.pages["/x.bin"] = serve(BODY)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        sentence = refused(tmp_path, remote(f"{server.at}/x.bin"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert sentence.startswith(f"File too large: {there(tmp_path, '.x.bin.part')}")
    fetch(remote(f"{server.at}/x.bin"))
    assert there(tmp_path).read_bytes() == BODY
    assert server.asked[-1][1] == "bytes=5000-"


def test_a_cache_that_cannot_be_written_is_said(server, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("")
    assert f"{there(tmp_path, '.x.bin.lock')} is a file or lies under one" in refused(
        tmp_path, remote(f"{server.at}/x.bin")
    )
    (tmp_path / "cache").unlink()
    monkeypatch.setattr(files.os, "open", failing(errno.EROFS))
    sentence = refused(tmp_path, remote(f"{server.at}/x.bin"))
    assert re.search(r"/cache/data/\.x\.bin\.lock is on a read-only file system; choose another folder", sentence)
    assert server.asked == []


def failing(number):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("name", ["open", "write", "fsync", "rename"])
def test_whatever_call_of_the_system_fails_the_next_attempt_has_the_file(server, tmp_path, monkeypatch, name):
    server.pages["/x.bin"] = serve(BODY, most=4000)
    real, calls = getattr(os, name), 0
    for failed_at in range(1, 20):
        calls = 0

        def counted(*given, at=failed_at, **named):
            nonlocal calls
            calls += 1
            if calls == at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*given, **named)

        monkeypatch.setattr(files.os, name, counted)
        with contextlib.suppress(SurroundingsError):
            fetch(remote(f"{server.at}/x.bin"))
        monkeypatch.setattr(files.os, name, real)
        assert there(tmp_path).exists() <= (fetch(remote(f"{server.at}/x.bin")).read_bytes() == BODY)
        assert left(tmp_path) == [".x.bin.lock", "x.bin"]
        there(tmp_path).unlink()
        if calls < failed_at:
            break
    assert 1 < failed_at < 19


def test_two_processes_take_turns(server, tmp_path):
    begun = threading.Event()

    def slow(handler):
        begun.set()
        time.sleep(0.3)
        serve(BODY)(handler)

    server.pages["/x.bin"] = slow
    what = remote(f"{server.at}/x.bin")
    words = [sys.executable, "-c", CODE, tmp_path / "cache", what.addresses[0], str(what.size), what.sha256]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as other:
        begun.wait(20)
        stderr = io.StringIO()
        with contextlib.redirect_stderr(stderr):
            assert fetch(what).read_bytes() == BODY
        assert other.communicate()[0].strip() == str(there(tmp_path))
    assert f"is in use by process {other.pid} on {socket.gethostname()}; waiting for it" in stderr.getvalue()
    assert server.asked == [("/x.bin", None)]


def test_a_killed_download_is_gone_on_with(server, tmp_path):
    server.pages["/x.bin"] = serve(BODY, most=3000, hang=True)
    what = remote(f"{server.at}/x.bin")
    words = [sys.executable, "-c", CODE, tmp_path / "cache", what.addresses[0], str(what.size), what.sha256]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as killed:
        part = there(tmp_path, ".x.bin.part")
        for _ in range(1000):
            if part.exists() and part.stat().st_size == 3000:
                break
            time.sleep(0.02)
        killed.send_signal(signal.SIGKILL)
    assert part.read_bytes() == BODY[:3000]
    server.pages["/x.bin"] = serve(BODY)
    assert fetch(what).read_bytes() == BODY
    assert server.asked == [("/x.bin", None), ("/x.bin", "bytes=3000-")]


# Without the network


def test_a_file_put_there_by_hand_is_taken_and_a_wrong_one_replaced(server, tmp_path, capsys):
    what = remote(f"{server.at}/x.bin")
    files.write(there(tmp_path), BODY)
    assert fetch(what) == there(tmp_path)
    assert server.asked == []
    files.write(there(tmp_path), b"wrong")
    with pytest.raises(SurroundingsError):
        fetch(what)
    assert there(tmp_path).read_bytes() == b"wrong"  # until the right one is there
    server.pages["/x.bin"] = serve(BODY)
    assert fetch(what).read_bytes() == BODY
    assert f"{there(tmp_path)} has 5 bytes, expected 10,240: it is downloaded again" in capsys.readouterr().err


def test_offline_nothing_is_asked_and_what_is_there_is_found(server, tmp_path):
    server.pages["/x.bin"] = serve(BODY)
    cache.configure(folder=tmp_path / "cache", offline=True)
    what = remote(f"{server.at}/x.bin")
    sentence = refused(tmp_path, what)
    assert f"{there(tmp_path)} is not there, and CNN_VIT_OFFLINE=1 forbids downloads" in sentence
    files.write(there(tmp_path), b"!" * len(BODY))
    assert f"{there(tmp_path)} has sha256 {hashlib.sha256(b'!' * len(BODY)).hexdigest()}" in refused(tmp_path, what)
    files.write(there(tmp_path), BODY)
    assert fetch(what) == there(tmp_path)
    assert server.asked == []


@pytest.mark.parametrize("slash", ["", "/"])
def test_an_address_as_mirror_holds_host_and_path(server, tmp_path, slash):
    cache.configure(folder=tmp_path / "cache", mirror=f"{server.at}/m{slash}")
    server.pages["/m/a.org/~b/x.bin"] = serve(BODY)
    assert fetch(remote("https://a.org/~b/x.bin")).read_bytes() == BODY
    there(tmp_path).unlink()
    sentence = refused(tmp_path, remote("https://a.org/y", "https://c.org/z"))
    assert f"{server.at}/m/a.org/y answered 404 Not Found, {server.at}/m/c.org/z answered 404" in sentence


def test_a_folder_as_mirror_is_read_in_place_and_offline_too(tmp_path):
    cache.configure(folder=tmp_path / "cache", mirror=str(tmp_path / "m"), offline=True)
    what = remote("https://a.org/~b/x.bin", "https://c.org/x.bin")
    first, second = tmp_path / "m" / "a.org" / "~b" / "x.bin", tmp_path / "m" / "c.org" / "x.bin"
    sentence = refused(tmp_path, what)
    assert f"{first} is not there, {second} is not there (CNN_VIT_MIRROR={tmp_path}/m)" in sentence
    files.write(first, b"wrong")
    assert f"{first} has 5 bytes, expected 10,240, {second} is not there" in refused(tmp_path, what)
    files.write(second, BODY)
    assert fetch(what) == second
    assert left(tmp_path) == []


def test_another_kind_of_mirror_is_refused(tmp_path):
    cache.configure(folder=tmp_path / "cache", mirror="ftp://a.org")
    with pytest.raises(UserError, match=r"ftp://a\.org is no http or https address"):
        fetch(remote("https://a.org/x"))


# What is said on the way, and the cache


def test_progress_goes_to_stderr_a_line_a_tenth(server, capfd):
    server.pages["/x.bin"] = serve(BODY, most=4000)
    fetch(remote(f"{server.at}/x.bin"))
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines()[0] == f"downloading x.bin (0.0 MB) from {server.at}/x.bin"
    assert [line.split()[1] for line in err.splitlines()[1:]] == ["30", "70", "100"]


def test_a_terminal_shows_a_bar(server, monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    server.pages["/x.bin"] = serve(BODY)
    fetch(remote(f"{server.at}/x.bin"))
    assert "10.2/10.2 kB" in sys.stderr.getvalue()
    assert capsys.readouterr().out == ""


def test_nobody_at_stderr_is_no_failure(server, tmp_path, monkeypatch):
    closed = io.StringIO()
    monkeypatch.setattr(downloads.progress.__globals__["sys"], "stderr", closed)
    monkeypatch.setattr(closed, "write", failing(errno.EPIPE))
    server.pages["/x.bin"] = serve(BODY)
    assert fetch(remote(f"{server.at}/x.bin")).read_bytes() == BODY


def test_the_cache_tells_the_size_of_each_part(tmp_path):
    assert cache.folder_sizes() == {}
    for name, size in {"data/a/x": 5, "data/.y.part": 2, "xla/z": 4, "note": 1}.items():
        files.write(tmp_path / "cache" / name, b"1" * size)
    (tmp_path / "cache" / "loop").symlink_to(tmp_path / "cache")
    assert {part: size for part, size in cache.folder_sizes().items() if part != "."} == {"data": 7, "xla": 4}


def test_without_a_folder_said_it_is_where_compiled_programs_go(tmp_path, monkeypatch):
    cache.configure()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert str(cache.folder()) == str(Path(process.cache_folder({})[0]).parent) == f"{tmp_path}/.cache/cnn_vit"
    monkeypatch.setattr(cache.os.path, "expanduser", lambda path: path)
    with pytest.raises(SurroundingsError, match="no home folder for the cache; set CNN_VIT_CACHE"):
        cache.folder()


def test_the_public_verbs_hand_on_what_the_environment_says(tmp_path, monkeypatch):
    cnn_vit._settle.cache_clear()
    monkeypatch.setitem(cnn_vit.VERBS, "build", "cnn_vit.files.cache")  # any room will do, and no jax
    monkeypatch.setattr(cache, "build", None, raising=False)
    for name, value in {"CACHE": str(tmp_path / "mine"), "OFFLINE": "1", "MIRROR": "https://a.org"}.items():
        monkeypatch.setenv(f"CNN_VIT_{name}", value)
    assert cnn_vit.build is None
    assert cache.current_places() == cache.CachePlaces(tmp_path / "mine", True, "https://a.org")
    cnn_vit._settle.cache_clear()
