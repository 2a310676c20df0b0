"""The door to the network: brings a file, known by its sha256, from one of its addresses into the cache.

A file is in the cache whole and right or not at all. It grows as `.NAME.part` beside its place, where the next attempt
goes on after a cut or a kill, and gets its name once its bytes have the sha256. What arrives wrong is removed. Two
processes take turns. A file that a user put into its place by hand is as good as a downloaded one.

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
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urljoin, urlsplit

from cnn_vit import files
from cnn_vit.errors import SurroundingsError, UserError
from cnn_vit.files import cache
from cnn_vit.files.progress import note, progress

TIMEOUT = 30.0  # seconds without a byte
MAX_REDIRECTS = 5
MAX_ATTEMPTS = 5  # at one address, each of which added to the file
CHUNK = 1 << 18  # bytes that are received at once
MOVED = {301, 302, 303, 307, 308}  # the statuses of HTTP that name another address
PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|head)\b", re.I)  # how a web page begins
TITLE = re.compile(rb"<title[^>]*>(.{1,500}?)</title>", re.I | re.S)
SAFE = "%/:=&?~#+!$,;'@()*[]"  # letters that stay as they are in an address


@dataclass(frozen=True)
class Remote:
    """A file that can be downloaded.

    Attributes:
        addresses: where it is, http or https, in the order to try.
        name: its path in the cache: "data/cifar-10-binary.tar.gz".
        size: its size in bytes.
        sha256: the hash by which it is known, in hexadecimal.
        md5: the hash that its page publishes, for users who fetch the file by hand; "" where the page gives none.
    """

    addresses: tuple[str, ...]
    name: str
    size: int
    sha256: str
    md5: str = ""


class RefusedError(Exception):
    """An address gave something else than the file; the text is a phrase that stands behind the address."""


class BrokenError(RefusedError):
    """The connection ended before the file did; the next attempt may bring more of it."""


def fetch(remote: Remote, *, timeout: float = TIMEOUT) -> Path:
    """Returns the path of a file that is whole and right: in the cache, in a mirror's folder, or downloaded now.

    Args:
        remote: the file.
        timeout: seconds without a byte after which a server counts as dead.

    Raises:
        UserError: an address or the mirror is not an http or https address.
        SurroundingsError: no address gave the file, or the cache cannot take it. The sentence says where to put it.
    """
    target = cache.folder() / remote.name
    with explain_remedy(remote, target):
        fault = find_fault(target, remote)
        if not fault:
            return target
        mirror = cache.current_places().mirror
        if mirror and "://" not in mirror:
            return find_in_mirror(Path(mirror), remote)
        base = check_address(mirror).rstrip("/") if mirror else ""
        addresses = [check_address(address) for address in remote.addresses]
        if mirror:
            addresses = [f"{base}/{address.partition('://')[2]}" for address in addresses]
        if cache.current_places().offline:
            raise RefusedError(f"{target} {fault}, and CNN_VIT_OFFLINE=1 forbids downloads")
        with files.Lock(hidden_sibling(target, "lock"), on_wait=note):
            fault = find_fault(target, remote)  # another process may have brought the file while this one waited
            if fault and target.is_file():
                note(f"{target} {fault}: it is downloaded again")
            if fault:
                download(addresses, remote, target, timeout)
    return target


@contextlib.contextmanager
def explain_remedy(remote: Remote, target: Path) -> Iterator[None]:
    """Turns an error of a download into one sentence that also says how to get the file in another way."""
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


def find_fault(path: Path, remote: Remote) -> str:
    """Says how a file differs from the one that it should be, as a phrase behind its path; "" where it does not."""
    with files.os_errors(path):
        if not path.is_file():
            return "is not there"
        size = path.stat().st_size
    if size != remote.size:
        return f"has {size:,} bytes, expected {remote.size:,}"
    sha256 = files.sha256(path)
    if sha256 != remote.sha256:
        return f"has sha256 {sha256}, expected {remote.sha256}"
    return ""


def find_in_mirror(mirror: Path, remote: Remote) -> Path:
    """Returns the path of a file in a mirror's folder; RefusedError where none of its addresses has the right one."""
    faults = []
    for address in map(check_address, remote.addresses):
        path = mirror.absolute() / address.partition("://")[2]
        fault = find_fault(path, remote)
        if not fault:
            return path
        faults.append(f"{path} {fault}")
    raise RefusedError(f"{', '.join(faults)} (CNN_VIT_MIRROR={mirror})")


def check_address(address: str) -> str:
    """Returns an address as it is; UserError for another kind than http and https."""
    if not is_address(address):
        raise UserError(f"{address} is not an http or https address; only these are downloaded")
    return address


def is_address(text: str) -> bool:
    """Whether a text is an http or https address."""
    parts = urlsplit(text)
    return parts.scheme in ("http", "https") and bool(parts.netloc)


def hidden_sibling(target: Path, suffix: str) -> Path:
    """Returns the path of a hidden file that belongs to a file: `.NAME.suffix` in the same folder."""
    return target.with_name(f".{target.name}.{suffix}")


# One address after the other


def download(addresses: list[str], remote: Remote, target: Path, timeout: float) -> None:
    """Brings a file to its place from the first address that has it. Only the holder of its lock may call it.

    Args:
        addresses: where to look, in order; with a mirror they are the mirror's.
        remote: the file.
        target: its place in the cache.
        timeout: seconds without a byte after which a server counts as dead.

    Raises:
        RefusedError: no address has the file; the reason of each.
    """
    part = hidden_sibling(target, "part")
    files.ensure_writable(target.parent, needed=max(1, remote.size - size_of(part)))
    reasons = []
    with progress(target.name, remote.size) as on_progress:
        for address in addresses:
            note(f"downloading {target.name} ({remote.size / 1e6:,.1f} MB) from {address}")
            try:
                download_from(address, remote, part, timeout=timeout, on_progress=on_progress)
            except RefusedError as error:
                reasons.append(f"{address} {error}")
            else:
                files.move(part, target)
                return
    sentence = ", ".join(reasons)
    if size_of(part):
        sentence += f" ({size_of(part):,} bytes are kept; the next attempt goes on from there)"
    raise RefusedError(sentence)


def download_from(
    address: str, remote: Remote, part: Path, *, timeout: float, on_progress: Callable[[int], None]
) -> None:
    """Fills a part file from one address, again and again as long as each attempt adds to it.

    Raises:
        RefusedError: the address does not have the file, or no longer adds to it.
    """
    reason = ""
    for _ in range(MAX_ATTEMPTS):
        size_before = size_of(part)
        start = size_before
        try:
            if size_before < remote.size:
                start = stream(address, part, remote, timeout=timeout, on_progress=on_progress)
        except BrokenError as error:
            reason = str(error)
            if size_of(part) <= size_before:
                break
            continue
        fault = find_fault(part, remote)
        if not fault:
            return
        files.remove(part)
        if start == 0:
            raise RefusedError(fault)
        reason = fault  # the part's beginning was of another file or version: all of it has to come anew
    raise RefusedError(reason)


def stream(address: str, part: Path, remote: Remote, *, timeout: float, on_progress: Callable[[int], None]) -> int:
    """Adds what an address gives to a part file, or begins the part anew where the server begins at 0.

    Returns:
        The position in the file of the first byte that the server gave.

    Raises:
        RefusedError: the answer is not the file; the part is as it was, but for a body that is too long.
        BrokenError: the answer ends early.
    """
    response = open_address(address, size_of(part), timeout)
    with contextlib.closing(response):
        start = first_byte(response, size_of(part), remote)
        done = start  # bytes of the file that have arrived
        chunk = receive(response, done, remote, timeout)
        if not chunk:
            raise BrokenError(f"ended after {done:,} of {remote.size:,} bytes")
        if start == 0:
            refuse_other_content(response, chunk, remote)
            files.remove(part)
        with contextlib.closing(files.open_append(part)) as file:
            while chunk and done <= remote.size:
                file.write(chunk)
                done += len(chunk)
                on_progress(done)
                chunk = receive(response, done, remote, timeout)
    if done > remote.size:
        files.remove(part)
        raise RefusedError(f"gives more than the {remote.size:,} bytes expected")
    if done < remote.size:
        raise BrokenError(f"ended after {done:,} of {remote.size:,} bytes")
    return start


def open_address(address: str, start: int, timeout: float) -> http.client.HTTPResponse:
    """Asks an address for its bytes from `start` on, and returns the answer behind all redirects, whatever its status.

    Raises:
        RefusedError: there is no answer, or the redirects lead too far or to another kind of address.
    """
    opener = urllib.request.OpenerDirector()  # built by hand, for the usual one opens file:// and ftp:// as well
    for handler in (urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
        opener.add_handler(handler())
    headers = {"User-Agent": "cnn_vit", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    for _ in range(MAX_REDIRECTS + 1):
        try:
            response = opener.open(urllib.request.Request(address, headers=headers), timeout=timeout)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise RefusedError(unreached_reason(error, timeout)) from error
        if response.status not in MOVED:
            return response
        response.close()
        address = urljoin(address, quote(response.headers.get("Location", ""), safe=SAFE))
        if not is_address(address):
            raise RefusedError(f"redirects to {shorten(address)}, which is not an http or https address")
    raise RefusedError(f"redirects more than {MAX_REDIRECTS} times")


def unreached_reason(error: Exception, timeout: float) -> str:
    """Says why an address gave no answer, as a phrase behind the address."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return f"did not answer within {timeout:g} seconds"
    reason = shorten(getattr(cause, "strerror", None) or cause) or type(cause).__name__
    return f"could not be reached ({reason})"


def shorten(message: object) -> str:
    """Returns what a server said on one line, cut to 100 characters."""
    return " ".join(str(message).split())[:100]


def first_byte(response: http.client.HTTPResponse, asked: int, remote: Remote) -> int:
    """Returns the position in the file at which an answer begins: the one asked for, or 0.

    Raises:
        RefusedError: another status than success, or other bytes than those asked for.
    """
    if response.status == http.HTTPStatus.OK:
        return 0
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
        raise RefusedError(f"answered {response.status} {shorten(response.reason)}".rstrip())
    span = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", span)
    if not match or int(match[1]) != asked or match[2] not in ("*", str(remote.size)):
        raise RefusedError(
            f"gave {shorten(span) or 'unnamed bytes'}, expected bytes {asked}-{remote.size - 1}/{remote.size}"
        )
    return asked


def receive(response: http.client.HTTPResponse, done: int, remote: Remote, timeout: float) -> bytes:
    """Returns the next bytes of an answer, none at its end; BrokenError where the connection fails before that."""
    try:
        return response.read1(CHUNK)
    except TimeoutError as error:
        raise BrokenError(f"fell silent for {timeout:g} seconds after {done:,} of {remote.size:,} bytes") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise BrokenError(f"broke off after {done:,} of {remote.size:,} bytes ({shorten(error)})") from error


def refuse_other_content(response: http.client.HTTPResponse, beginning: bytes, remote: Remote) -> None:
    """Raises RefusedError where an answer that begins at 0 is a web page, or is not as long as the file."""
    if PAGE.match(beginning):
        title = TITLE.search(beginning)
        quoted = f" ({shorten(title[1].decode(errors='replace'))!r})" if title else ""
        raise RefusedError(f"gave a web page{quoted} instead of the file")
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) != remote.size:
        kind = response.headers.get_content_type()
        raise RefusedError(f"offers {int(length):,} bytes ({shorten(kind)}), expected {remote.size:,}")


def size_of(path: Path) -> int:
    """Returns the size of a file in bytes; 0 where there is none."""
    with files.os_errors(path):
        return path.stat().st_size if path.is_file() else 0
