"""Lists a zip as the folder that unpacking makes of it, and reads its members; nothing is ever unpacked.

People's archives leave the format's rules: macOS writes names in UTF-8 without saying so, PowerShell writes backslashes
between folders. Names are read as Info-ZIP's unzip reads them, so that an archive and the folder it becomes have the
same classes and the same fingerprint. What no member can be read of (a password, an unknown compression) is said once,
of the whole archive.

Format: PKWARE, APPNOTE.TXT 6.3.10: general purpose flags 4.4.4, compression methods 4.4.5, systems 4.4.2, the Unicode
path 4.6.9.
"""

import os
import stat
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Sequence

from cnn_vit.data.decode.images import MOST_BYTES, UnreadableError
from cnn_vit.data.reading.entries import Entry, Listing, Tree, is_image_name, is_junk, refuse_problem, too_large
from cnn_vit.data.reading.run_folders import take_out_runs
from cnn_vit.errors import UserError
from cnn_vit.files import stamps

BEGINNINGS = (b"PK\3\4", b"PK\5\6")  # of an archive with members, of an empty one
ENCRYPTED, UTF8_NAMES = 0x1, 0x800  # general purpose flags
UNIX = 3  # the system that wrote a member, where it was Unix or macOS
BACKSLASH_SYSTEMS = (0, 10, 11, 14)  # DOS and Windows, where a backslash is no part of a name
UNICODE_PATH = 0x7075  # extra field that repeats the name in UTF-8
# Compression methods that zipfile reads in every version of Python that this package runs on, and names of others.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
METHOD_NAMES = {
    1: "Shrink", 6: "Implode", 9: "Deflate64", 93: "Zstandard", 94: "MP3", 95: "XZ", 96: "JPEG", 98: "PPMd",
    99: "AES",
}  # fmt: skip
LONGEST_CAUSE = 120  # characters of zipfile's own words that an error repeats


def is_zip(path: str) -> bool:
    """Whether a file is a zip archive by its first bytes; a zip behind an image is an image."""
    try:
        with open(path, "rb") as file:
            return file.read(4) in BEGINNINGS and zipfile.is_zipfile(path)
    except OSError:
        return False


def list_zip(path: str) -> Listing:
    """Lists a zip, which stays open.

    Raises:
        UserError: it cannot be opened, or images in it are encrypted or compressed in a way that is not read.
    """
    if os.path.isfile(path) and not is_zip(path):
        raise UserError(f"{path} is not a zip archive by its first bytes; download it or pack it again")
    try:
        stamp = stamps.stamp(os.stat(path))
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise UserError(f"{path} cannot be opened as a zip archive ({error}); download it or pack it again") from error
    members = [(member_name(member), member) for member in archive.infolist()]
    refuse_unreadable_members(path, members)
    tree, ignored = Tree(path), 0
    listed_paths: set[tuple[str, ...]] = set()
    for name, member in sorted(members, key=lambda name_and_member: name_and_member[0]):
        parts = split_name(name)
        if not parts or any(map(is_junk, parts)):
            ignored += 1
        elif name.endswith("/"):
            tree.subfolder(parts)
        else:
            problem = find_problem(member, is_listed=parts in listed_paths)
            entry = Entry(parts[-1], "/".join((path, *parts)), member.file_size, problem, member, stamp)
            tree.subfolder(parts[:-1]).files.append(entry)
            listed_paths.add(parts)
    read = member_reader(archive)
    return Listing(tree, ignored, tuple(take_out_runs(tree, read)), read)


def split_name(name: str) -> tuple[str, ...]:
    """Splits a member's name into folders and file, as unpacking does: it leads to no folder above."""
    return tuple(part for part in name.split("/") if part not in ("", ".", ".."))


def find_problem(member: zipfile.ZipInfo, *, is_listed: bool) -> tuple[str, str] | None:
    """Returns the problem and the remedy of a member that is not read; None for one that is.

    Args:
        member: the member.
        is_listed: whether another one of its name is listed already.
    """
    if member.create_system == UNIX and stat.S_ISLNK(member.external_attr >> 16):
        return "a link inside an archive", "pack the file that it leads to"
    if is_listed:
        return "twice in the archive", "pack it again"
    return too_large(member.file_size)


# Names ----------------------------------------------------------------------------------------------------------------


def member_name(member: zipfile.ZipInfo) -> str:
    """Returns the name of a member with slashes between its folders; one of a folder ends with a slash."""
    raw = member.orig_filename.encode("utf-8" if member.flag_bits & UTF8_NAMES else "cp437", "surrogateescape")
    name = read_unicode_path(member.extra, raw) or decode_name(raw, member.create_system)
    name = name.partition("\0")[0]  # as zipfile cuts it
    if member.create_system in BACKSLASH_SYSTEMS and "/" not in name:
        name = name.replace("\\", "/")
    return name


def decode_name(raw: bytes, system: int) -> str:
    """Decodes a name: as UTF-8 where it is, else by the system that wrote it.

    Names of Unix may be bytes that are no text, which the file system gives in the same form.
    """
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("utf-8", "surrogateescape") if system == UNIX else raw.decode("cp437")


def read_unicode_path(extra: bytes, raw: bytes) -> str | None:
    """Returns the name in UTF-8 that an extra field repeats; None where there is none, or it is that of another name.

    Args:
        extra: all extra fields of a member.
        raw: its name, whose checksum the field holds.
    """
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        content, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind != UNICODE_PATH or len(content) < 5:
            continue
        version, checksum = struct.unpack("<BL", content[:5])
        if version == 1 and checksum == zlib.crc32(raw):
            try:
                return content[5:].decode()
            except UnicodeDecodeError:
                return None
    return None


# Members --------------------------------------------------------------------------------------------------------------


def refuse_unreadable_members(path: str, members: Sequence[tuple[str, zipfile.ZipInfo]]) -> None:
    """Refuses an archive whose images are encrypted, or compressed in a way that zipfile does not read.

    Args:
        path: of the archive.
        members: with their names.

    Raises:
        UserError: one sentence for the whole archive.
    """
    images = [member for name, member in members if is_image_name(name) and not any(map(is_junk, split_name(name)))]
    encrypted = sum(bool(member.flag_bits & ENCRYPTED) for member in images)
    if encrypted:
        raise UserError(
            f"{path} is encrypted, {encrypted:,} of its {len(images):,} images; unpack it with the password and give "
            "the folder"
        )
    unread = [member.compress_type for member in images if member.compress_type not in METHODS]
    if unread:
        method = METHOD_NAMES.get(unread[0], f"method {unread[0]}")
        raise UserError(
            f"{path} is compressed by {method}, {len(unread):,} of its {len(images):,} images, which is not read; "
            "unpack it and give the folder, or pack it again with Deflate"
        )


def member_reader(archive: zipfile.ZipFile) -> Callable[[Entry, int | None], bytes]:
    """Returns the function that reads members of a zip, as `Listing.read`."""
    lock = threading.Lock()  # the zip's handle has one position; only decoding goes on in other threads

    def read_member(entry: Entry, most: int | None) -> bytes:
        refuse_problem(entry)
        try:
            with lock, archive.open(entry.member) as file:  # type: ignore[arg-type]
                return file.read(MOST_BYTES if most is None else most)
        except Exception as error:  # zipfile and its decompressors raise eight kinds over damaged bytes
            cause = " ".join(str(error).split())[:LONGEST_CAUSE] or type(error).__name__
            raise UnreadableError(f"damaged in the archive ({cause})", "pack it again") from error

    return read_member
