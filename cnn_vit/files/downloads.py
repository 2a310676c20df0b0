"""The door to the network: a file, known by its sha256, from one of its addresses into the cache.

A file is in the cache whole and right or not at all. It grows as `.NAME.part` beside its place, where the next attempt
goes on after a cut or a kill, and gets its name once its bytes have the sha256. What came wrong is removed. Two
processes take turns. A file that somebody put into its place by hand is as good as a downloaded one.

The addresses are tried in order. CNN_VIT_MIRROR replaces them by a folder, or an address, that holds HOST/PATH of each,
as `wget -x ADDRESS` lays files down; https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz comes from

    CNN_VIT_MIRROR=/data/mirror            /data/mirror/www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz, read in place
    CNN_VIT_MIRROR=https://intern.org/m    https://intern.org/m/www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz

CNN_VIT_OFFLINE=1 forbids the network; what lies in the cache or in a mirror's folder is found all the same.
"""

import contextlib
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit

from cnn_vit import files
from cnn_vit.errors import SurroundingsError, UserError
from cnn_vit.files import cache
from cnn_vit.files.progress import note, progress

TIMEOUT = 30.0  # seconds without a byte
REDIRECTS = 5  # at most
ATTEMPTS = 5  # at most at one address, each of which added to the file
CHUNK = 1 << 18  # bytes
MOVED = {301, 302, 303, 307, 308}
PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|head)\b", re.I)
TITLE = re.compile(rb"<title[^>]*>(.{1,500}?)</title>", re.I | re.S)
SAFE = "%/:=&?~#+!$,;'@()*[]"  # what stands in an address as it is


class Remote(NamedTuple):
    """A file that can be downloaded.

    Attributes:
        addresses: where it is, http or https, in the order to try.
        name: its path in the cache: "data/cifar-10-binary.tar.gz".
        size: in bytes.
        sha256: in hexadecimal, which decides.
        md5: as its page publishes it, for who fetches it by hand; "" where it does not.
    """

    addresses: tuple[str, ...]
    name: str
    size: int
    sha256: str
    md5: str = ""


class RefusedError(Exception):
    """What an address gave instead of the file, a phrase behind the address."""


class BrokenError(RefusedError):
    """The connection ended before the file did; more of it may come at the next attempt."""


def fetch(remote: Remote, *, timeout: float = TIMEOUT) -> Path:
    """The path of a file that is whole and right: in the cache, in a mirror's folder, or downloaded now.

    Args:
        remote: the file.
        timeout: seconds without a byte after which a server counts as dead.

    Raises:
        UserError: an address or the mirror is no http or https address.
        SurroundingsError: no address gave the file, or the cache cannot take it. The sentence says where to put it.
    """
    target = cache.folder() / remote.name
    with with_remedy(remote, target):
        if not (wrong := difference(target, remote)):
            return target
        mirror = cache.current_places().mirror
        if mirror and "://" not in mirror:
            return copy_from_mirror(Path(mirror), remote, target)
        base = f"{check_address(mirror).rstrip('/')}/" if mirror else ""
        addresses = [base + one.partition("://")[2] if base else one for one in map(check_address, remote.addresses)]
        if cache.current_places().offline:
            raise RefusedError(f"{target} {wrong}, and CNN_VIT_OFFLINE=1 forbids downloads")
        with files.Lock(hidden_sibling(target, "lock"), wait=note):
            if wrong := difference(target, remote):  # another process may have brought it
                if target.is_file():
                    note(f"{target} {wrong}: it is downloaded again")
                download(addresses, remote, target, timeout)
    return target


@contextlib.contextmanager
def with_remedy(remote: Remote, target: Path) -> Iterator[None]:
    """Turns what goes wrong into one sentence that says how to get the file in another way."""
    md5 = f", md5 {remote.md5}" if remote.md5 else ""
    by_hand = (
        f"get {remote.addresses[0]} in another way and put it at {target} "
        f"({remote.size:,} bytes, sha256 {remote.sha256}{md5})"
    )
    try:
        yield
    except RefusedError as error:
        raise SurroundingsError(f"no {target.name}: {error}; {by_hand}") from error
    except SurroundingsError as error:
        raise SurroundingsError(f"{error}, or set CNN_VIT_CACHE to another folder, or {by_hand}") from error


def difference(path: Path, remote: Remote) -> str:
    """How a file differs from the one it should be, a phrase behind its path; "" where it does not."""
    with files.os_errors(path):
        if not path.is_file():
            return "is not there"
        size = path.stat().st_size
    if size != remote.size:
        return f"has {size:,} bytes, expected {remote.size:,}"
    found = files.sha256(path)
    return "" if found == remote.sha256 else f"has sha256 {found}, expected {remote.sha256}"


def copy_from_mirror(mirror: Path, remote: Remote, target: Path) -> Path:
    """The file in a mirror's folder."""
    reasons = []
    for address in map(check_address, remote.addresses):
        place = mirror.absolute() / address.partition("://")[2]
        if not (wrong := difference(place, remote)):
            return place
        reasons.append(f"{place} {wrong}")
    raise RefusedError(f"{', '.join(reasons)} (CNN_VIT_MIRROR={mirror})")


def check_address(address: str) -> str:
    """An address as it is; UserError for another kind than http and https."""
    if not is_address(address):
        raise UserError(f"{address} is no http or https address; only these are downloaded")
    return address


def is_address(text: str) -> bool:
    """Whether a text is an http or https address."""
    parts = urlsplit(text)
    return parts.scheme in ("http", "https") and bool(parts.netloc)


def hidden_sibling(target: Path, suffix: str) -> Path:
    """The hidden file that goes with a file."""
    return target.with_name(f".{target.name}.{suffix}")


# One address after the other


def download(addresses: list[str], remote: Remote, target: Path, timeout: float) -> None:
    """Brings a file to its place; RefusedError with the reasons of all addresses. Only for who holds its lock."""
    part = hidden_sibling(target, "part")
    files.ensure_writable(target.parent, needed=max(1, remote.size - size_of(part)))
    reasons = []
    with progress(target.name, remote.size) as told:
        for address in addresses:
            note(f"downloading {target.name} ({remote.size / 1e6:,.1f} MB) from {address}")
            try:
                download_from(address, remote, part, timeout=timeout, told=told)
            except RefusedError as error:
                reasons.append(f"{address} {error}")
            else:
                files.move(part, target)
                return
    kept = f" ({size_of(part):,} bytes are kept; the next attempt goes on from there)" if size_of(part) else ""
    raise RefusedError(f"{', '.join(reasons)}{kept}")


def download_from(address: str, remote: Remote, part: Path, *, timeout: float, told: Callable[[int], None]) -> None:
    """Fills a part file from one address, again and again as long as each attempt adds to it."""
    phrase = ""
    for _ in range(ATTEMPTS):
        before = start = size_of(part)
        try:
            if before < remote.size:
                start = stream(address, part, remote, timeout=timeout, told=told)
        except BrokenError as error:
            phrase = str(error)
            if size_of(part) <= before:
                break
            continue
        if not (wrong := difference(part, remote)):
            return
        files.remove(part)
        if start == 0:
            raise RefusedError(wrong)
        phrase = wrong  # its beginning was of another file or version: all of it anew
    raise RefusedError(phrase)


def stream(address: str, part: Path, remote: Remote, *, timeout: float, told: Callable[[int], None]) -> int:
    """Adds what an address gives to a part file, or begins it anew where the server does; returns where it began.

    RefusedError, the part as it was, where the answer is not the file; BrokenError where it ends early.
    """
    response = open_address(address, size_of(part), timeout)
    with contextlib.closing(response):
        done = start = first_byte(response, size_of(part), remote)
        data = receive(response, done, remote, timeout)
        if not data:
            raise BrokenError(f"ended after {done:,} of {remote.size:,} bytes")
        if start == 0:
            refuse_another(response, data, remote)
            files.remove(part)
        with contextlib.closing(files.open_append(part)) as file:
            while data and done <= remote.size:
                file.write(data)
                done += len(data)
                told(done)
                data = receive(response, done, remote, timeout)
    if done > remote.size:
        files.remove(part)
        raise RefusedError(f"gives more than the {remote.size:,} bytes expected")
    if done < remote.size:
        raise BrokenError(f"ended after {done:,} of {remote.size:,} bytes")
    return start


def open_address(address: str, start: int, timeout: float) -> http.client.HTTPResponse:
    """The answer of an address, behind its redirects, whatever its status; asked for the bytes from `start` on."""
    opener = urllib.request.OpenerDirector()  # by hand: the usual one opens file:// and ftp:// as well
    for handler in (urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
        opener.add_handler(handler())
    headers = {"User-Agent": "cnn_vit", "Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    for _ in range(REDIRECTS + 1):
        try:
            response = opener.open(urllib.request.Request(address, headers=headers), timeout=timeout)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise RefusedError(unreached_reason(error, timeout)) from error
        if response.status not in MOVED:
            return response
        response.close()
        address = urljoin(address, quote(response.headers.get("Location", ""), safe=SAFE))
        if not is_address(address):
            raise RefusedError(f"redirects to {shorten(address)}, which is no http or https address")
    raise RefusedError(f"redirects more than {REDIRECTS} times")


def unreached_reason(error: Exception, timeout: float) -> str:
    """Why an address gave no answer, a phrase."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return f"did not answer within {timeout:g} seconds"
    return f"could not be reached ({shorten(getattr(cause, 'strerror', None) or cause) or type(cause).__name__})"


def shorten(words: object) -> str:
    """What a server said, on one line and not for long."""
    return " ".join(str(words).split())[:100]


def first_byte(response: http.client.HTTPResponse, asked: int, remote: Remote) -> int:
    """Where the bytes of an answer begin: where it was asked to, or at 0."""
    if response.status == http.HTTPStatus.OK:
        return 0
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
        raise RefusedError(f"answered {response.status} {shorten(response.reason)}".rstrip())
    given = response.headers.get("Content-Range", "")
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", given)
    if not found or int(found[1]) != asked or found[2] not in ("*", str(remote.size)):
        raise RefusedError(
            f"gave {shorten(given) or 'unnamed bytes'}, expected bytes {asked}-{remote.size - 1}/{remote.size}"
        )
    return asked


def receive(response: http.client.HTTPResponse, done: int, remote: Remote, timeout: float) -> bytes:
    """The next bytes of an answer; none at its end."""
    try:
        return response.read1(CHUNK)
    except TimeoutError as error:
        raise BrokenError(f"fell silent for {timeout:g} seconds after {done:,} of {remote.size:,} bytes") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise BrokenError(f"broke off after {done:,} of {remote.size:,} bytes ({shorten(error)})") from error


def refuse_another(response: http.client.HTTPResponse, data: bytes, remote: Remote) -> None:
    """Raises RefusedError where an answer from 0 on is a web page, or is not as long as the file."""
    if PAGE.match(data):
        title = TITLE.search(data)
        words = f" ({shorten(title[1].decode(errors='replace'))!r})" if title else ""
        raise RefusedError(f"gave a web page{words} instead of the file")
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) != remote.size:
        kind = response.headers.get_content_type()
        raise RefusedError(f"offers {int(length):,} bytes ({shorten(kind)}), expected {remote.size:,}")


def size_of(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    with files.os_errors(path):
        return path.stat().st_size if path.is_file() else 0
