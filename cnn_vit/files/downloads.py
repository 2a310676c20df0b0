"""The door to the network: brings a file from one of its addresses into the cache.

A file is in the cache whole and right or not at all. It grows as `.NAME.part` beside its place, where the next attempt
goes on after a cut or a kill, and gets its name once its bytes have the sha256. What arrives wrong is removed. Two
processes take turns. A file that a user put into its place by hand is as good as a downloaded one.

Where only the first digits of the sha256 are published, or nothing of it, the file is trusted at its first use: what
its host states and what its bytes are is recorded (`first_use`), and whatever differs from that later is refused. Such
a file comes by https alone where its address is https: a redirect to http is not followed.

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
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, urljoin, urlsplit

from cnn_vit import files
from cnn_vit.errors import SurroundingsError, UserError
from cnn_vit.files import cache, first_use
from cnn_vit.files.progress import note, progress

TIMEOUT = 30.0  # seconds without a byte
MAX_REDIRECTS = 5
MAX_ATTEMPTS = 5  # at one address, each of which added to the file
CHUNK = 1 << 18  # bytes that are received at once
SHA256_DIGITS = 64
MOVED = {301, 302, 303, 307, 308}  # the statuses of HTTP that name another address
PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|head)\b", re.I)  # how a web page begins
MESSAGES = {"text/html", "application/json", "application/xml", "text/xml"}  # kinds of content that are no data
TITLE = re.compile(rb"<title[^>]*>(.{1,500}?)</title>", re.I | re.S)
SAFE = "%/:=&?~#+!$,;'@()*[]"  # letters that stay as they are in an address


@dataclass(frozen=True)
class Remote:
    """A file that can be downloaded.

    Attributes:
        addresses: where it is, http or https, in the order to try.
        name: its path in the cache: "data/cifar-10-binary.tar.gz".
        size: its size in bytes; None where nobody publishes it, and the host's word is taken.
        sha256: the hash by which it is known, in hexadecimal: all 64 digits, or the first ones that are published;
            "" where none are.
        md5: the hash that its page publishes, for users who fetch the file by hand; "" where the page gives none.
        recorded_in: the record of the first use that size and sha256 come from; None where they are published.
    """

    addresses: tuple[str, ...]
    name: str
    size: int | None
    sha256: str
    md5: str = ""
    recorded_in: Path | None = None

    @property
    def has_whole_sha256(self) -> bool:
        """Whether all digits of the sha256 are known, so that it does not matter where the bytes come from."""
        return len(self.sha256) == SHA256_DIGITS

    @property
    def is_known(self) -> bool:
        """Whether size and sha256 tell the file from every other."""
        return self.size is not None and self.has_whole_sha256

    @property
    def size_text(self) -> str:
        """The size in megabytes, in brackets behind the name; "" where it is not known."""
        return "" if self.size is None else f" ({self.size / 1e6:,.1f} MB)"


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
        UserError: an address or the mirror is not an http or https address, or the record of a first use is damaged.
        SurroundingsError: no address gave the file, or the cache cannot take it: the sentence says where to put it; or
            the file in its place came from another address: the sentence says what to remove.
    """
    target = cache.folder() / remote.name
    if remote.is_known:
        return bring(remote, target, timeout)
    recorded = first_use.read(first_use.record_path(target))
    if recorded is not None and is_of(recorded, remote):
        path = first_use.record_path(target)
        return bring(replace(remote, size=recorded.size, sha256=recorded.sha256, recorded_in=path), target, timeout)
    refuse_file_of_other_address(remote, target)
    path = bring(remote, target, timeout)
    with explain_remedy(remote, target), files.Lock(hidden_sibling(target, "lock"), on_wait=note):
        first_use.record(target, path, remote.addresses[0])
    return path


def is_of(recorded: first_use.Stated, remote: Remote) -> bool:
    """Whether a record is of this file: the same address, and a size and sha256 that do not contradict what is
    published of it. Another version of this package may mean another file by the same name."""
    return (
        recorded.address == remote.addresses[0]
        and recorded.sha256.startswith(remote.sha256)
        and remote.size in (None, recorded.size)
    )


def refuse_file_of_other_address(remote: Remote, target: Path) -> None:
    """Raises SurroundingsError where the file in its place came from another address, and no sha256 says whether the
    file of this address is the same. The file stays, for nobody may have another copy of it."""
    with files.os_errors(target):
        is_there = target.is_file()
    if remote.sha256 or not is_there:
        return
    address = remote.addresses[0]
    for record in (first_use.record_path(target), first_use.stated_path(target)):  # a kill leaves the second alone
        recorded = first_use.read(record)
        if recorded is not None and recorded.address != address:
            raise SurroundingsError(
                f"no {target.name} of {address}: {target} came from {recorded.address}, as {record} says; move both "
                "away, and it is downloaded, or only the record where you know the file to be the right one"
            )


def bring(remote: Remote, target: Path, timeout: float) -> Path:
    """Finds a file or downloads it, as `fetch` does, without the record of its first use."""
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
    facts = [] if remote.size is None else [f"{remote.size:,} bytes"]
    if remote.sha256:
        facts.append(f"sha256 {remote.sha256}{'' if len(remote.sha256) == SHA256_DIGITS else '...'}")
    if remote.md5:
        facts.append(f"md5 {remote.md5}")
    known = f" ({', '.join(facts)})" if facts else ""
    by_hand = f"get {remote.addresses[0]} in another way and put it at {target}{known}"
    if remote.recorded_in is not None:
        by_hand += (
            f"; these are size and sha256 of its first use, and remove {remote.recorded_in} to take a new version"
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
    if remote.size is not None and size != remote.size:
        return f"has {size:,} bytes, expected {remote.size:,}"
    if not remote.sha256:
        with files.os_errors(path), open(path, "rb") as file:
            page = describe_page(file.read(CHUNK))
        return f"is {page}" if page else ""
    sha256 = files.sha256(path)
    if not sha256.startswith(remote.sha256):
        rest = "" if len(remote.sha256) == SHA256_DIGITS else "..."
        return f"has sha256 {sha256}, expected {remote.sha256}{rest}"
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


def download(addresses: list[str], published: Remote, target: Path, timeout: float) -> None:
    """Brings a file to its place from the first address that has it. Only the holder of its lock may call it.

    Args:
        addresses: where to look, in order; with a mirror they are the mirror's.
        published: the file, as far as it is known.
        target: its place in the cache.
        timeout: seconds without a byte after which a server counts as dead.

    Raises:
        RefusedError: no address has the file; the reason of each.
    """
    part = hidden_sibling(target, "part")
    remote = with_size_of_part(published, target)
    needed = 1 if remote.size is None else max(1, remote.size - size_of(part))
    files.ensure_writable(target.parent, needed=needed)
    reasons = []
    with progress(target.name, remote.size) as on_progress:
        for address in addresses:
            note(f"downloading {target.name}{remote.size_text} from {address}")
            try:
                download_from(address, published, target, timeout=timeout, on_progress=on_progress)
            except RefusedError as error:
                reasons.append(f"{address} {error}")
            else:
                files.move(part, target)
                return
    sentence = ", ".join(reasons)
    if size_of(part):
        sentence += f" ({size_of(part):,} bytes are kept; the next attempt goes on from there)"
    raise RefusedError(sentence)


def read_stated(remote: Remote, target: Path) -> first_use.Stated | None:
    """Reads what its host said of a file when its part began; None where the file is known, or has no part yet.

    A part whose version nobody can tell is removed, for the rest of another version would make a file of both.
    """
    part = hidden_sibling(target, "part")
    if remote.is_known or not size_of(part):
        return None
    stated = first_use.read(first_use.stated_path(target))
    if stated is not None and stated.can_resume and is_of(stated, replace(remote, sha256="")):
        return stated
    remove_part(target)
    return None


def remove_part(target: Path) -> None:
    """Removes the part of a file, and what its host said of it."""
    files.remove(hidden_sibling(target, "part"))
    files.remove(first_use.stated_path(target))


def with_size_of_part(remote: Remote, target: Path) -> Remote:
    """Returns what is known of a file, with the size that its host said when its part began."""
    stated = read_stated(remote, target)
    return remote if stated is None else replace(remote, size=stated.size)


def download_from(
    address: str, published: Remote, target: Path, *, timeout: float, on_progress: Callable[[int], None]
) -> None:
    """Fills the part of a file from one address, again and again as long as each attempt adds to it.

    Raises:
        RefusedError: the address does not have the file, or no longer adds to it.
    """
    part = hidden_sibling(target, "part")
    reason = ""
    for _ in range(MAX_ATTEMPTS):
        expected_size = with_size_of_part(published, target).size
        size_before = size_of(part)
        start = size_before
        try:
            if expected_size is None or size_before < expected_size:
                start = stream(address, published, target, timeout=timeout, on_progress=on_progress)
        except BrokenError as error:
            reason = str(error)
            if size_of(part) <= size_before:
                break
            continue
        fault = find_fault(part, published)
        if not fault:
            return
        remove_part(target)
        if start == 0:
            raise RefusedError(fault)
        reason = fault  # the part's beginning was of another file or version: all of it has to come anew
    raise RefusedError(reason)


def stream(address: str, published: Remote, target: Path, *, timeout: float, on_progress: Callable[[int], None]) -> int:
    """Adds what an address gives to the part of a file, or begins the part anew where the server begins at 0.

    Returns:
        The position in the file of the first byte that the server gave.

    Raises:
        RefusedError: the answer is not the file; the part is as it was, but for a body that is too long.
        BrokenError: the answer ends early.
    """
    part = hidden_sibling(target, "part")
    stated = read_stated(published, target)
    asked = size_of(part)
    etag = stated.etag if stated is not None else ""
    response = open_address(address, asked, timeout, etag=etag, may_leave_https=published.has_whole_sha256)
    with contextlib.closing(response):
        size = published.size if stated is None else stated.size
        start = first_byte(response, asked, size)
        if start == 0:
            size = published.size  # the version that begins here may be another than that of the part
        elif stated is not None and read_etag(response) not in ("", stated.etag):
            remove_part(target)
            raise RefusedError("goes on with another version of the file than it began with")
        if size is None:
            size = read_size(response)
            files.ensure_writable(target.parent, needed=size)  # which could not be asked before
        done = start  # bytes of the file that have arrived
        chunk = receive(response, done, size, timeout)
        if not chunk:
            raise BrokenError(f"ended after {done:,} of {size:,} bytes")
        if start == 0:
            refuse_other_content(response, chunk, size)
            if not published.is_known:
                refuse_message(response)
            files.remove(part)
            if not published.is_known:
                state = first_use.Stated(published.addresses[0], size, read_etag(response))
                first_use.write(first_use.stated_path(target), state)
        with contextlib.closing(files.open_append(part)) as file:
            while chunk and done <= size:
                file.write(chunk)
                done += len(chunk)
                on_progress(done)
                chunk = receive(response, done, size, timeout)
    if done > size:
        remove_part(target)
        raise RefusedError(f"gives more than the {size:,} bytes expected")
    if done < size:
        raise BrokenError(f"ended after {done:,} of {size:,} bytes")
    return start


def open_address(
    address: str, start: int, timeout: float, *, etag: str, may_leave_https: bool
) -> http.client.HTTPResponse:
    """Asks an address for its bytes from `start` on, and returns the answer behind all redirects, whatever its status.

    Args:
        address: http or https.
        start: the first byte that is wanted.
        timeout: seconds without a byte after which a server counts as dead.
        etag: of the version that is to go on; of another one the server then gives all bytes. "" is any version.
        may_leave_https: whether a redirect from https to http is followed, where anybody on the way can change the
            bytes.

    Raises:
        RefusedError: there is no answer, or the redirects lead too far or to another kind of address.
    """
    opener = urllib.request.OpenerDirector()  # built by hand, for the usual one opens file:// and ftp:// as well
    for handler in (urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
        opener.add_handler(handler())
    headers = {"User-Agent": "cnn_vit", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if etag:
            headers["If-Range"] = etag
    for _ in range(MAX_REDIRECTS + 1):
        try:
            response = opener.open(urllib.request.Request(address, headers=headers), timeout=timeout)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise RefusedError(unreached_reason(error, timeout)) from error
        if response.status not in MOVED:
            return response
        response.close()
        was_https = urlsplit(address).scheme == "https"
        address = urljoin(address, quote(response.headers.get("Location", ""), safe=SAFE))
        if not is_address(address):
            raise RefusedError(f"redirects to {shorten(address)}, which is not an http or https address")
        if was_https and urlsplit(address).scheme != "https" and not may_leave_https:
            raise RefusedError(f"redirects to {shorten(address)}, which is not https, and no whole sha256 is known")
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


def read_size(response: http.client.HTTPResponse) -> int:
    """Returns the size in bytes that an answer states; RefusedError where it states none, so that a cut is no end."""
    length = response.headers.get("Content-Length", "")
    if not length.isdecimal():
        raise RefusedError("does not say how large the file is, and so not whether all of it has come")
    return int(length)


def read_etag(response: http.client.HTTPResponse) -> str:
    """Returns the tag by which a server tells versions of a file apart; "" where it gives none, or a very long one."""
    etag = response.headers.get("ETag", "").strip()
    return etag if len(etag) <= first_use.MAX_ETAG else ""


def first_byte(response: http.client.HTTPResponse, asked: int, size: int | None) -> int:
    """Returns the position in the file at which an answer begins: the one asked for, or 0.

    Args:
        response: the answer.
        asked: the position that was asked for; 0 for the whole file.
        size: of the file in bytes; None where it is not known, and the whole file was asked for.

    Raises:
        RefusedError: another status than success, or other bytes than those asked for.
    """
    if response.status == http.HTTPStatus.OK:
        return 0
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
        raise RefusedError(f"answered {response.status} {shorten(response.reason)}".rstrip())
    span = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", span)
    if not match or int(match[1]) != asked or match[2] not in ("*", str(size)):
        expected = "the whole file" if size is None else f"bytes {asked}-{size - 1}/{size}"
        raise RefusedError(f"gave {shorten(span) or 'unnamed bytes'}, expected {expected}")
    return asked


def receive(response: http.client.HTTPResponse, done: int, size: int, timeout: float) -> bytes:
    """Returns the next bytes of an answer, none at its end; BrokenError where the connection fails before that."""
    try:
        return response.read1(CHUNK)
    except TimeoutError as error:
        raise BrokenError(f"fell silent for {timeout:g} seconds after {done:,} of {size:,} bytes") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise BrokenError(f"broke off after {done:,} of {size:,} bytes ({shorten(error)})") from error


def refuse_other_content(response: http.client.HTTPResponse, beginning: bytes, size: int) -> None:
    """Raises RefusedError where an answer that begins at 0 is a web page, or is not as long as the file."""
    page = describe_page(beginning)
    if page:
        raise RefusedError(f"gave {page}")
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) != size:
        kind = response.headers.get_content_type()
        raise RefusedError(f"offers {int(length):,} bytes ({shorten(kind)}), expected {size:,}")


def describe_page(beginning: bytes) -> str:
    """Names the web page that begins so, as a phrase behind a verb; "" where no web page does."""
    if not PAGE.match(beginning):
        return ""
    title = TITLE.search(beginning)
    quoted = f" ({shorten(title[1].decode(errors='replace'))!r})" if title else ""
    return f"a web page{quoted} instead of the file"


def refuse_message(response: http.client.HTTPResponse) -> None:
    """Raises RefusedError where an answer is a text for people or programs, which no sha256 tells from the file."""
    kind = response.headers.get_content_type()
    if kind in MESSAGES:
        raise RefusedError(f"gave a message ({kind}) instead of the file")


def size_of(path: Path) -> int:
    """Returns the size of a file in bytes; 0 where there is none."""
    with files.os_errors(path):
        return path.stat().st_size if path.is_file() else 0
