"""What lies in a folder or a zip, without opening any of it: regular files by size, and what is none by reason.

Links to files and folders are followed; each linked folder is entered once, so that no circle of links is walked
forever. Run folders are passed over, for some train where their images are. Nothing is ever unpacked. Reading is safe
in threads.
"""

import os
import stat
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cnn_vit.data.decode.images import MOST_BYTES, REMEDY_LARGE, UnreadableError
from cnn_vit.errors import UserError
from cnn_vit.files import stamps

JUNK = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin", "lost+found"}
IMAGE_ENDINGS = {
    ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
    ".heic", ".avif",
}  # fmt: skip
DEEPEST = 32  # folders inside folders
RUN_MARKER = "lock"  # a file of every run folder from its start on


@dataclass(frozen=True)
class Entry:
    """A file, or what stands where one should.

    Attributes:
        name: its own, "a.jpg".
        path: its whole path, as errors name it.
        size: bytes.
        problem: why it is not opened, and the remedy; None for a file.
        member: its record in a zip.
        stamp: what changes whenever the file, or its zip, does.
    """

    name: str
    path: str
    size: int
    problem: tuple[str, str] | None = None
    member: zipfile.ZipInfo | None = None
    stamp: str = ""

    @property
    def mark(self) -> str:
        """What stands for the file as it is now."""
        return f"{os.path.abspath(self.path)}:{self.stamp}"


@dataclass(frozen=True)
class Tree:
    """A folder.

    Attributes:
        path: as errors name it.
        folders: those right here, by name.
        files: those right here.
    """

    path: str
    folders: dict[str, "Tree"] = field(default_factory=dict)
    files: list[Entry] = field(default_factory=list)

    def image_files(self) -> list[Entry]:
        """Files right here with the name of an image."""
        return [entry for entry in self.files if is_image_name(entry.name)]

    def all_files(self) -> Iterator[tuple[str, Entry]]:
        """All files, of the folders inside as well: path from here, and file."""
        for entry in self.files:
            yield entry.name, entry
        for name, folder in self.folders.items():
            yield from ((f"{name}/{path}", entry) for path, entry in folder.all_files())

    def subfolder(self, parts: Sequence[str]) -> "Tree":
        """The folder at a path from here, made where there is none."""
        here = self
        for part in parts:
            here = here.folders.setdefault(part, Tree(f"{here.path}/{part}"))
        return here


class Listing(NamedTuple):
    """What was found, and how to read it.

    Attributes:
        tree: the root.
        ignored: number of hidden files and of those that operating systems leave.
        read: (entry, most) -> its first `most` bytes, all of them where that is None; `UnreadableError` where they
            cannot be had.
    """

    tree: Tree
    ignored: int
    read: Callable[[Entry, int | None], bytes]


def open_listing(path: str) -> Listing:
    """Lists a folder or a zip; the zip, where a folder holds one and nothing else.

    Raises:
        UserError: there is neither.
    """
    if os.path.isdir(path):
        walk = Walk()
        tree = walk.folder(path, Tree(path.rstrip("/") or path))
        alone = len(tree.files) == 1 and not tree.folders and tree.files[0].name.lower().endswith(".zip")
        return list_zip(tree.files[0].path) if alone else Listing(tree, walk.ignored, read_file)
    if not os.path.exists(path):
        raise UserError(f"{path} is not there; data.path is a folder of images or a zip of one")
    if not os.path.isfile(path) or not zipfile.is_zipfile(path):
        raise UserError(f"{path} is no folder and no zip archive; data.path is a folder of images or a zip of one")
    return list_zip(path)


def is_image_name(name: str) -> bool:
    """Whether a name is an image's."""
    return os.path.splitext(name)[1].lower() in IMAGE_ENDINGS


def is_junk(name: str) -> bool:
    """Whether a name is hidden or an operating system's."""
    return name.startswith(".") or name.lower() in JUNK


# Folders


class Walk:
    """One walk through a folder: what it passed over, and the folders that links have led to."""

    def __init__(self) -> None:
        self.ignored = 0
        self.runs = 0
        self.entered: set[tuple[int, int]] = set()

    def folder(self, path: str, tree: Tree, depth: int = 0) -> Tree:
        """Fills a tree with all that is in a folder, by name."""
        try:
            names = sorted(os.listdir(path))
        except OSError as error:
            problem = f"a folder that cannot be listed ({error.strerror})", "change its rights"
            tree.files.append(Entry(os.path.basename(path), path, 0, problem))
            return tree
        kept = [name for name in names if not is_junk(name)]
        if RUN_MARKER in kept and not any(map(is_image_name, kept)):  # who trains among the images leaves a run there
            self.runs += 1
            return tree
        self.ignored += len(names) - len(kept)
        for name in kept:
            place = os.path.join(path, name)
            entry = self.entry(name, place, depth)
            if entry is not None:
                tree.files.append(entry)
                continue
            runs = self.runs
            inside = self.folder(place, Tree(f"{tree.path}/{name}"), depth + 1)
            if inside.files or inside.folders or self.runs == runs:  # a folder of runs and nothing else is no class
                tree.folders[name] = inside
        return tree

    def entry(self, name: str, place: str, depth: int) -> Entry | None:
        """What a name stands for: a file, a problem, or None for a folder to go into."""
        try:
            found = os.stat(place)
        except OSError as error:
            reason = "a link to nothing" if os.path.islink(place) else f"not to be had ({error.strerror})"
            return Entry(name, place, 0, (reason, REMEDY_LARGE))
        if stat.S_ISREG(found.st_mode):
            return Entry(name, place, found.st_size, too_large(found.st_size), stamp=stamps.stamp(found))
        if not stat.S_ISDIR(found.st_mode):
            return Entry(name, place, 0, ("no regular file but a pipe, a socket or a device", REMEDY_LARGE))
        if is_image_name(name):
            return Entry(name, place, 0, ("a folder with an image's name", "rename it or take it away"))
        if depth >= DEEPEST or not self.enters(place, (found.st_dev, found.st_ino)):
            return Entry(name, place, 0, ("a link to a folder that is read already", "take it away"))
        return None

    def enters(self, place: str, identity: tuple[int, int]) -> bool:
        """Whether to go into a folder: a linked one only once, and never into one above the link."""
        if not os.path.islink(place):
            return True
        target = os.path.realpath(place)
        above = os.path.commonpath([target, os.path.realpath(os.path.dirname(place))]) == target
        if above or identity in self.entered:
            return False
        self.entered.add(identity)
        return True


def too_large(size: int) -> tuple[str, str] | None:
    """The problem of a file that is too large to be an image."""
    return (f"{size:,} bytes, more than {MOST_BYTES:,}", "make it smaller") if size > MOST_BYTES else None


def read_file(entry: Entry, most: int | None) -> bytes:
    """Reads a file."""
    refuse_problem(entry)
    try:
        with open(entry.path, "rb") as file:
            return file.read(MOST_BYTES if most is None else most)
    except FileNotFoundError as error:
        raise UnreadableError("gone since it was listed", "put it back") from error
    except PermissionError as error:
        raise UnreadableError("no permission to read it", "change its rights") from error
    except OSError as error:
        raise UnreadableError(f"not to be read ({error.strerror})") from error


def refuse_problem(entry: Entry) -> None:
    """Raises the error for what is no file to open."""
    if entry.problem is not None:
        raise UnreadableError(*entry.problem)


# Zips


def list_zip(path: str) -> Listing:
    """Lists a zip; it stays open."""
    try:
        stamp = stamps.stamp(os.stat(path))
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise UserError(f"{path} cannot be opened as a zip archive ({error}); download it or pack it again") from error
    tree, ignored = Tree(path), 0
    seen: set[tuple[str, ...]] = set()
    for member in sorted(archive.infolist(), key=lambda member: member.filename):
        parts = tuple(part for part in member.filename.replace("\\", "/").split("/") if part not in ("", "."))
        if not parts or any(map(is_junk, parts)):
            ignored += 1
        elif member.is_dir():
            tree.subfolder(parts)
        else:
            twice = ("twice in the archive", "pack it again") if parts in seen else None
            place = "/".join((path, *parts))
            entry = Entry(parts[-1], place, member.file_size, too_large(member.file_size) or twice, member, stamp)
            tree.subfolder(parts[:-1]).files.append(entry)
            seen.add(parts)
    return Listing(tree, ignored, reader_of(archive))


def reader_of(archive: zipfile.ZipFile) -> Callable[[Entry, int | None], bytes]:
    """Reads members of a zip, one thread at a time: its handle has one position. Decoding goes on beside it."""
    alone = threading.Lock()

    def read(entry: Entry, most: int | None) -> bytes:
        refuse_problem(entry)
        try:
            with alone, archive.open(entry.member) as file:  # type: ignore[arg-type]
                return file.read(MOST_BYTES if most is None else most)
        except Exception as error:  # zipfile and its decompressors raise eight kinds over damaged bytes
            said = " ".join(str(error).split())[:120] or type(error).__name__
            raise UnreadableError(f"damaged in the archive ({said})", "pack it again") from error

    return read
