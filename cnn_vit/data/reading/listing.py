"""Lists a folder or a zip without opening any of its files: regular files with their sizes, the rest with a reason.

Links to files and folders are followed. Each linked folder is entered once, so that no circle of links is walked
forever. Run folders are taken out, in a folder as in a zip (`run_folders`). Nothing is ever unpacked. Reading is safe
in threads.
"""

import os
import stat
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from cnn_vit.data.decode.images import DEFAULT_REMEDY, MOST_BYTES, UnreadableError
from cnn_vit.data.reading.run_folders import take_out_runs
from cnn_vit.errors import UserError
from cnn_vit.files import stamps

JUNK = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin", "lost+found"}
IMAGE_ENDINGS = {
    ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
    ".heic", ".avif",
}  # fmt: skip
DEEPEST = 32  # levels of folders inside folders
LINK_TO_NOTHING = "a link to nothing"
LONGEST_CAUSE = 120  # characters of zipfile's own words that an error repeats


@dataclass(frozen=True)
class Entry:
    """A file, or something else that stands where a file should.

    Attributes:
        name: the name alone, "a.jpg".
        path: the whole path, as errors name it.
        size: bytes.
        problem: why it is not opened, and the remedy; None for a file that can be.
        member: its record in a zip; None in a folder.
        stamp: a text that changes whenever the file, or its zip, does.
    """

    name: str
    path: str
    size: int
    problem: tuple[str, str] | None = None
    member: zipfile.ZipInfo | None = None
    stamp: str = ""

    @property
    def file_version(self) -> str:
        """The file version: a text that stands for the file as it is now."""
        return f"{os.path.abspath(self.path)}:{self.stamp}"


@dataclass(frozen=True)
class Tree:
    """A folder with all that is in it.

    Attributes:
        path: the whole path, as errors name it.
        folders: the folders directly in it, by name.
        files: the files directly in it.
    """

    path: str
    folders: dict[str, "Tree"] = field(default_factory=dict)
    files: list[Entry] = field(default_factory=list)

    def image_files(self) -> list[Entry]:
        """Returns the files directly in the folder that have the name of an image."""
        return [entry for entry in self.files if is_image_name(entry.name)]

    def all_files(self) -> Iterator[tuple[str, Entry]]:
        """Yields all files, those of inner folders too, each with its path relative to this folder."""
        for entry in self.files:
            yield entry.name, entry
        for name, folder in self.folders.items():
            for path, entry in folder.all_files():
                yield f"{name}/{path}", entry

    def subfolder(self, parts: Sequence[str]) -> "Tree":
        """Returns the folder at a relative path, given in its parts; makes it where there is none."""
        folder = self
        for part in parts:
            folder = folder.folders.setdefault(part, Tree(f"{folder.path}/{part}"))
        return folder


@dataclass(frozen=True)
class Listing:
    """What lies in a folder or a zip, and how to read it.

    Attributes:
        tree: the root.
        ignored: number of hidden files and of files that operating systems leave, which were passed over.
        runs: paths of the run folders that were taken out of the tree.
        read: (entry, most) -> its first `most` bytes, or all of them where that is None. Raises `UnreadableError`
            where there are none to be had.
    """

    tree: Tree
    ignored: int
    runs: tuple[str, ...]
    read: Callable[[Entry, int | None], bytes]


def open_listing(path: str) -> Listing:
    """Lists a folder or a zip; where a folder holds one zip and nothing else, that zip.

    Raises:
        UserError: there is neither.
    """
    if os.path.isdir(path):
        walk = FolderWalk()
        tree = walk.fill_tree(path, Tree(path.rstrip("/") or path))
        if len(tree.files) == 1 and not tree.folders and tree.files[0].name.lower().endswith(".zip"):
            return list_zip(tree.files[0].path)
        return Listing(tree, walk.ignored, tuple(take_out_runs(tree, read_file)), read_file)
    if not os.path.exists(path):
        raise UserError(f"{path} is not there; data.path is a folder of images or a zip of one")
    if not os.path.isfile(path) or not zipfile.is_zipfile(path):
        raise UserError(
            f"{path} is neither a folder nor a zip archive; data.path is a folder of images or a zip of one"
        )
    return list_zip(path)


def is_image_name(name: str) -> bool:
    """Whether a file name ends as those of images do."""
    return os.path.splitext(name)[1].lower() in IMAGE_ENDINGS


def is_junk(name: str) -> bool:
    """Whether a file or folder is hidden, or one of those that operating systems leave."""
    return name.startswith(".") or name.lower() in JUNK


# Folders


class FolderWalk:
    """One walk through a folder.

    Attributes:
        ignored: number of names that were passed over as junk.
        entered: device and inode of the folders that links have led to.
    """

    def __init__(self) -> None:
        self.ignored = 0
        self.entered: set[tuple[int, int]] = set()

    def fill_tree(self, path: str, tree: Tree, depth: int = 0) -> Tree:
        """Fills a tree with all that is in the folder at `path`, sorted by name, and returns it."""
        try:
            names = sorted(os.listdir(path))
        except OSError as error:
            problem = f"a folder that cannot be listed ({error.strerror})", "change its rights"
            tree.files.append(Entry(os.path.basename(path), path, 0, problem))
            return tree
        visible_names = [name for name in names if not is_junk(name)]
        self.ignored += len(names) - len(visible_names)
        for name in visible_names:
            inner_path = os.path.join(path, name)
            entry = self.make_entry(name, inner_path, depth)
            if entry is not None:
                tree.files.append(entry)
            else:
                tree.folders[name] = self.fill_tree(inner_path, Tree(f"{tree.path}/{name}"), depth + 1)
        return tree

    def make_entry(self, name: str, path: str, depth: int) -> Entry | None:
        """Returns the entry for a file or for a problem; None for a folder that is to be entered."""
        try:
            status = os.stat(path)
        except OSError as error:
            reason = LINK_TO_NOTHING if os.path.islink(path) else f"not accessible ({error.strerror})"
            return Entry(name, path, 0, (reason, DEFAULT_REMEDY))
        if stat.S_ISREG(status.st_mode):
            return Entry(name, path, status.st_size, too_large(status.st_size), stamp=stamps.stamp(status))
        if not stat.S_ISDIR(status.st_mode):  # to open a pipe would wait forever, to read a device never end
            return Entry(name, path, 0, ("not a regular file but a pipe, a socket or a device", DEFAULT_REMEDY))
        if is_image_name(name):
            return Entry(name, path, 0, ("a folder with an image's name", "rename it or take it away"))
        if depth >= DEEPEST or not self.may_enter(path, (status.st_dev, status.st_ino)):
            return Entry(name, path, 0, ("a link to a folder that is read already", "take it away"))
        return None

    def may_enter(self, path: str, identity: tuple[int, int]) -> bool:
        """Whether to enter a folder, and notes that a linked one is entered.

        A linked folder is entered only once, and never where it lies above the link.
        """
        if not os.path.islink(path):
            return True
        target = os.path.realpath(path)
        is_above_link = os.path.commonpath([target, os.path.realpath(os.path.dirname(path))]) == target
        if is_above_link or identity in self.entered:
            return False
        self.entered.add(identity)
        return True


def too_large(size: int) -> tuple[str, str] | None:
    """Returns the problem and the remedy of a file that is too large to be an image; None for a smaller one."""
    return (f"{size:,} bytes, more than {MOST_BYTES:,}", "make it smaller") if size > MOST_BYTES else None


def read_file(entry: Entry, most: int | None) -> bytes:
    """Reads the first `most` bytes of a file, or all of it where that is None.

    Raises:
        UnreadableError: it cannot be read.
    """
    refuse_problem(entry)
    try:
        with open(entry.path, "rb") as file:
            return file.read(MOST_BYTES if most is None else most)  # never more: it may have grown since
    except FileNotFoundError as error:
        raise UnreadableError("gone since it was listed", "put it back") from error
    except PermissionError as error:
        raise UnreadableError("no permission to read it", "change its rights") from error
    except OSError as error:
        raise UnreadableError(f"the system does not read it ({error.strerror})") from error


def refuse_problem(entry: Entry) -> None:
    """Refuses to open what has a problem.

    Raises:
        UnreadableError: with the entry's reason and remedy.
    """
    if entry.problem is not None:
        raise UnreadableError(*entry.problem)


# Zips


def list_zip(path: str) -> Listing:
    """Lists a zip, which stays open.

    Raises:
        UserError: it cannot be opened.
    """
    try:
        stamp = stamps.stamp(os.stat(path))
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise UserError(f"{path} cannot be opened as a zip archive ({error}); download it or pack it again") from error
    tree, ignored = Tree(path), 0
    listed_paths: set[tuple[str, ...]] = set()
    for member in sorted(archive.infolist(), key=lambda member: member.filename):
        # Nothing is unpacked, so ".." is a folder's name like any other; some programs write backslashes.
        parts = tuple(part for part in member.filename.replace("\\", "/").split("/") if part not in ("", "."))
        if not parts or any(map(is_junk, parts)):
            ignored += 1
        elif member.is_dir():
            tree.subfolder(parts)
        else:
            problem = too_large(member.file_size)
            if problem is None and parts in listed_paths:
                problem = ("twice in the archive", "pack it again")
            entry = Entry(parts[-1], "/".join((path, *parts)), member.file_size, problem, member, stamp)
            tree.subfolder(parts[:-1]).files.append(entry)
            listed_paths.add(parts)
    read = member_reader(archive)
    return Listing(tree, ignored, tuple(take_out_runs(tree, read)), read)


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
