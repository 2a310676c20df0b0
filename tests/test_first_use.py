"""Files of which no whole sha256 is published: what comes at first use is recorded, and another is refused later."""

import hashlib
import http.client
import json
import urllib.request

import pytest
from local_server import answer, local_server, serve

from cnn_vit import files
from cnn_vit.errors import SurroundingsError, UserError
from cnn_vit.files import cache
from cnn_vit.files.downloads import Remote, fetch

BODY = bytes(range(256)) * 40  # 10,240 bytes
OTHER = BODY[::-1]  # another file of the same size
SHA256 = hashlib.sha256(BODY).hexdigest()


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


def remote(server, sha256="", size=None):
    """Describes a file of which no more is known."""
    return Remote((f"{server.url}/x.bin",), "weights/a@b/x.bin", size, sha256)


def place(tmp_path, name="x.bin"):
    """Returns the path of a file in its folder of the cache."""
    return tmp_path / "cache" / "weights" / "a@b" / name


def names_in_cache(tmp_path):
    """Lists the names in the file's folder, but for the lock that two processes take in turns."""
    return sorted(path.name for path in place(tmp_path).parent.iterdir() if path.name != ".x.bin.lock")


def fetch_error(file):
    """Returns the sentence of a failed download."""
    with pytest.raises(SurroundingsError) as caught:
        fetch(file)
    assert caught.value.code == 3
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What is known


@pytest.mark.parametrize(("sha256", "size"), [("", None), (SHA256[:8], None), (SHA256[:8], 10_240), (SHA256, None)])
def test_a_first_use_is_recorded(server, tmp_path, sha256, size):
    server.pages["/x.bin"] = serve(BODY, etag='"v1"')
    file = remote(server, sha256, size)
    for _ in range(2):
        assert fetch(file).read_bytes() == BODY
    assert server.requests == [("/x.bin", None)]
    assert names_in_cache(tmp_path) == ["x.bin", "x.bin.first_use.json"]
    record = json.loads(place(tmp_path, "x.bin.first_use.json").read_text())
    assert record == {"address": f"{server.url}/x.bin", "size": 10_240, "etag": '"v1"', "sha256": SHA256}


def test_a_file_that_is_known_needs_no_record(server, tmp_path):
    server.pages["/x.bin"] = serve(BODY)
    fetch(remote(server, SHA256, 10_240))
    assert names_in_cache(tmp_path) == ["x.bin"]


@pytest.mark.parametrize("size", [None, 10_240])
def test_another_prefix_is_refused(server, tmp_path, size):
    server.pages["/x.bin"] = serve(OTHER)
    sentence = fetch_error(remote(server, SHA256[:8], size))
    assert f"x.bin has sha256 {hashlib.sha256(OTHER).hexdigest()}, expected {SHA256[:8]}..." in sentence
    assert f"put it at {place(tmp_path)} (" in sentence
    assert names_in_cache(tmp_path) == []


@pytest.mark.parametrize("other", [OTHER, BODY[:-1], BODY + b"!"], ids=["bytes", "shorter", "longer"])
@pytest.mark.parametrize("sha256", ["", SHA256[:8]])
def test_what_differs_from_the_first_use_is_refused_until_its_record_is_removed(server, tmp_path, other, sha256):
    server.pages["/x.bin"] = serve(BODY)
    fetch(remote(server, sha256))
    record = place(tmp_path, "x.bin.first_use.json")
    kept = record.read_bytes()
    place(tmp_path).unlink()
    server.pages["/x.bin"] = serve(other)
    sentence = fetch_error(remote(server, sha256))
    assert f"expected {SHA256}" in sentence or "expected 10,240" in sentence
    assert f"these are size and sha256 of its first use, and remove {record} to take a new version" in sentence
    assert record.read_bytes() == kept
    assert names_in_cache(tmp_path) == ["x.bin.first_use.json"]
    record.unlink()
    if not sha256:
        assert fetch(remote(server)).read_bytes() == other


def test_the_old_file_stays_where_the_host_has_another(server, tmp_path):
    server.pages["/x.bin"] = serve(BODY)
    fetch(remote(server))
    server.pages["/x.bin"] = serve(OTHER)
    server.requests.clear()
    assert fetch(remote(server)).read_bytes() == BODY
    assert server.requests == []  # a file that is as it was is not asked for again
    place(tmp_path).write_bytes(b"damaged")
    assert f"has sha256 {hashlib.sha256(OTHER).hexdigest()}, expected {SHA256}" in fetch_error(remote(server))
    assert place(tmp_path).read_bytes() == b"damaged"  # not replaced by what nobody knows
    server.pages["/x.bin"] = serve(BODY)
    assert fetch(remote(server)).read_bytes() == BODY


def test_a_record_of_another_address_says_nothing(server, tmp_path):
    server.pages["/x.bin"] = serve(BODY)
    fetch(remote(server))
    place(tmp_path).unlink()
    server.pages["/revision-2/x.bin"] = serve(OTHER)
    moved = Remote((f"{server.url}/revision-2/x.bin",), "weights/a@b/x.bin", None, "")
    assert fetch(moved).read_bytes() == OTHER
    assert json.loads(place(tmp_path, "x.bin.first_use.json").read_text())["address"] == moved.addresses[0]


def test_a_file_of_another_address_is_not_taken_for_this_ones_and_stays(server, tmp_path):
    server.pages["/x.bin"] = serve(BODY)
    fetch(remote(server))
    server.pages["/revision-2/x.bin"] = serve(OTHER)
    server.requests.clear()
    moved = Remote((f"{server.url}/revision-2/x.bin",), "weights/a@b/x.bin", None, "")
    path, record = place(tmp_path), place(tmp_path, "x.bin.first_use.json")
    kept = record.read_bytes()
    sentence = fetch_error(moved)
    assert f"no x.bin of {moved.addresses[0]}: {path} came from {server.url}/x.bin, as {record} says; " in sentence
    assert sentence.endswith(
        "; move both away, and it is downloaded, or only the record where you know the file to be the right one"
    )
    assert (path.read_bytes(), record.read_bytes(), server.requests) == (BODY, kept, [])
    assert fetch(remote(server)).read_bytes() == BODY  # and whoever wants the old one still has it
    path.unlink()
    record.unlink()
    assert fetch(moved).read_bytes() == OTHER


def test_a_file_that_a_kill_left_without_its_record_is_not_taken_for_that_of_another_address(server, tmp_path):
    cut(server, '"v1"')
    place(tmp_path, ".x.bin.part").rename(place(tmp_path))
    sentence = fetch_error(Remote((f"{server.url}/revision-2/x.bin",), "weights/a@b/x.bin", None, ""))
    assert f"came from {server.url}/x.bin, as {place(tmp_path, '.x.bin.stated.json')} says" in sentence
    assert names_in_cache(tmp_path) == [".x.bin.stated.json", "x.bin"]


def test_a_file_of_another_address_is_taken_where_its_sha256_is_the_published_one(server, tmp_path):
    server.pages["/x.bin"] = serve(BODY)
    fetch(remote(server))
    moved = Remote((f"{server.url}/revision-2/x.bin",), "weights/a@b/x.bin", None, SHA256[:8])
    assert fetch(moved).read_bytes() == BODY
    assert json.loads(place(tmp_path, "x.bin.first_use.json").read_text())["address"] == moved.addresses[0]


@pytest.mark.parametrize("text", ["", "[]", '{"address": "a", "size": "1", "etag": "", "sha256": ""}', '{"size": 1}'])
def test_a_damaged_record_is_told(server, tmp_path, text):
    files.write(place(tmp_path, "x.bin.first_use.json"), text)
    with pytest.raises(UserError, match=r"x\.bin\.first_use\.json is not (JSON|a record of a first use)"):
        fetch(remote(server))
    assert server.requests == []


# Where it comes from


def test_a_file_put_there_by_hand_is_taken_and_recorded(server, tmp_path):
    files.write(place(tmp_path), BODY)
    assert fetch(remote(server)) == place(tmp_path)
    assert json.loads(place(tmp_path, "x.bin.first_use.json").read_text())["sha256"] == SHA256
    assert server.requests == []


PAGE = b"\n<!DOCTYPE html><html><title>Sign in</title>"


def test_a_web_page_put_there_by_hand_is_not_recorded(server, tmp_path):
    files.write(place(tmp_path), PAGE)
    cache.configure(folder=tmp_path / "cache", offline=True)
    assert f"{place(tmp_path)} is a web page ('Sign in') instead of the file, and CNN" in fetch_error(remote(server))
    assert place(tmp_path).read_bytes() == PAGE
    assert names_in_cache(tmp_path) == ["x.bin"]
    cache.configure(folder=tmp_path / "cache")
    server.pages["/x.bin"] = serve(BODY)
    assert fetch(remote(server)).read_bytes() == BODY


def test_a_web_page_in_a_mirrors_folder_is_not_recorded(server, tmp_path):
    cache.configure(folder=tmp_path / "cache", mirror=str(tmp_path / "m"))
    mirrored = tmp_path / "m" / server.url.partition("://")[2] / "x.bin"
    files.write(mirrored, PAGE)
    assert f"{mirrored} is a web page ('Sign in') instead of the file" in fetch_error(remote(server))
    assert not place(tmp_path, "x.bin.first_use.json").exists()


def test_a_mirrors_folder_is_recorded_and_held_to_it(server, tmp_path):
    cache.configure(folder=tmp_path / "cache", mirror=str(tmp_path / "m"), offline=True)
    mirrored = tmp_path / "m" / server.url.partition("://")[2] / "x.bin"
    files.write(mirrored, BODY)
    assert fetch(remote(server)) == mirrored
    assert names_in_cache(tmp_path) == ["x.bin.first_use.json"]
    files.write(mirrored, OTHER)
    assert f"{mirrored} has sha256 {hashlib.sha256(OTHER).hexdigest()}, expected {SHA256}" in fetch_error(
        remote(server)
    )


def test_offline_the_sentence_says_where_the_file_belongs(server, tmp_path):
    cache.configure(folder=tmp_path / "cache", offline=True)
    sentence = fetch_error(remote(server, SHA256[:8]))
    assert f"{place(tmp_path)} is not there, and CNN_VIT_OFFLINE=1 forbids downloads" in sentence
    assert sentence.endswith(f"put it at {place(tmp_path)} (sha256 {SHA256[:8]}...)")
    assert server.requests == []


def test_a_host_that_does_not_say_the_size_is_refused(server, tmp_path):
    server.pages["/x.bin"] = serve(BODY, length=False)
    assert "does not say how large the file is, and so not whether all of it has come" in fetch_error(remote(server))
    assert names_in_cache(tmp_path) == []


def test_a_full_disk_is_told_before_the_bytes_come(server, tmp_path, monkeypatch):
    server.pages["/x.bin"] = serve(BODY)
    usage = files.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage._replace(free=100))
    sentence = fetch_error(remote(server))
    assert sentence.startswith(f"No space left: {place(tmp_path).parent} needs 10,240 bytes, 100 are free; make room")
    assert names_in_cache(tmp_path) == []


@pytest.mark.parametrize(
    ("kind", "body", "reason"),
    [
        ("text/html", b"<!doctype html><title>Sign in</title>", "gave a web page ('Sign in') instead of the file"),
        ("text/html", b"Please sign in", "gave a message (text/html) instead of the file"),
        ("application/json", b'{"error": "not found"}', "gave a message (application/json) instead of the file"),
        ("application/xml", b"<Error/>", "gave a message (application/xml) instead of the file"),
    ],
)
def test_an_error_page_is_not_taken_for_the_file(server, tmp_path, kind, body, reason):
    server.pages["/x.bin"] = answer(200, {"Content-Type": kind}, body)
    assert f"{server.url}/x.bin {reason}" in fetch_error(remote(server))
    assert names_in_cache(tmp_path) == []


@pytest.fixture
def https(server, monkeypatch):
    """The server's address as https. No certificate is at hand: what is asked of https is sent as http is."""

    def https_open(handler, request):
        return handler.do_open(http.client.HTTPConnection, request)

    monkeypatch.setattr(urllib.request.HTTPSHandler, "https_open", https_open)
    return server.url.replace("http:", "https:")


@pytest.mark.parametrize("sha256", ["", SHA256[:8]])
def test_a_redirect_from_https_to_http_is_refused(server, https, tmp_path, sha256):
    server.pages["/x.bin"] = answer(302, {"Location": f"{https}/next"})
    server.pages["/next"] = answer(302, {"Location": f"{server.url}/plain"})
    server.pages["/plain"] = serve(BODY)
    sentence = fetch_error(Remote((f"{https}/x.bin",), "weights/a@b/x.bin", 10_240, sha256))
    assert f"redirects to {server.url}/plain, which is not https, and no whole sha256 is known" in sentence
    assert [path for path, _ in server.requests] == ["/x.bin", "/next"]
    assert names_in_cache(tmp_path) == []


@pytest.mark.parametrize("size", [None, 10_240])
def test_a_redirect_to_http_is_followed_where_the_whole_sha256_is_known(server, https, size):
    server.pages["/x.bin"] = answer(302, {"Location": f"{server.url}/plain"})
    server.pages["/plain"] = serve(BODY)
    assert fetch(Remote((f"{https}/x.bin",), "weights/a@b/x.bin", size, SHA256)).read_bytes() == BODY


# Cuts


def cut(server, etag):
    """Lets a download end after 4,000 bytes."""
    server.pages["/x.bin"] = serve(BODY, most=4000, ranges=False, etag=etag)
    fetch_error(remote(server))
    server.requests.clear()


def test_a_cut_is_continued_where_the_host_has_the_same_version(server, tmp_path):
    cut(server, '"v1"')
    assert names_in_cache(tmp_path) == [".x.bin.part", ".x.bin.stated.json"]
    server.pages["/x.bin"] = serve(BODY, etag='"v1"')
    assert fetch(remote(server)).read_bytes() == BODY
    assert server.requests == [("/x.bin", "bytes=4000-")]
    assert names_in_cache(tmp_path) == ["x.bin", "x.bin.first_use.json"]


@pytest.mark.parametrize("other", [OTHER, OTHER[:9000]], ids=["same size", "other size"])
def test_a_part_of_another_version_begins_anew(server, tmp_path, other):
    cut(server, '"v1"')
    server.pages["/x.bin"] = serve(other, etag='"v2"')
    assert fetch(remote(server)).read_bytes() == other
    assert server.requests == [("/x.bin", "bytes=4000-")]


def test_a_host_that_goes_on_with_another_version_is_refused(server, tmp_path):
    cut(server, '"v1"')
    page = serve(OTHER, etag='"v2"')

    def ignore_if_range(handler):
        del handler.headers["If-Range"]
        page(handler)

    server.pages["/x.bin"] = ignore_if_range
    assert "goes on with another version of the file than it began with" in fetch_error(remote(server))
    assert names_in_cache(tmp_path) == []
    assert fetch(remote(server)).read_bytes() == OTHER


@pytest.mark.parametrize("etag", [None, 'W/"v1"', "v1"])
def test_without_a_tag_that_tells_versions_apart_a_part_begins_anew(server, tmp_path, etag):
    cut(server, etag)
    server.pages["/x.bin"] = serve(OTHER, etag=etag)
    assert fetch(remote(server)).read_bytes() == OTHER
    assert server.requests == [("/x.bin", None)]


def test_a_whole_part_that_a_kill_left_gets_its_name(server, tmp_path):
    cut(server, '"v1"')
    place(tmp_path, ".x.bin.part").write_bytes(BODY)
    assert fetch(remote(server)).read_bytes() == BODY
    assert server.requests == []


def test_a_kill_before_the_record_is_made_up_for(server, tmp_path):
    cut(server, '"v1"')
    place(tmp_path, ".x.bin.part").unlink()
    place(tmp_path).write_bytes(BODY)
    fetch(remote(server))
    assert json.loads(place(tmp_path, "x.bin.first_use.json").read_text())["etag"] == '"v1"'
    assert names_in_cache(tmp_path) == ["x.bin", "x.bin.first_use.json"]
