"""What a listing of a folder or a zip is made of: files, folders, and which names are those of images or junk."""

import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from cnn_vit.data.decode.images import MOST_BYTES, UnreadableError

JUNK = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin", "lost+found"}
IMAGE_ENDINGS = {
    ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
    ".heic", ".avif",
}  # fmt: skip
LINK_TO_NOTHING = "a link to nothing"


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


def is_image_name(name: str) -> bool:
    """Whether a file name ends as those of images do."""
    return os.path.splitext(name)[1].lower() in IMAGE_ENDINGS


def is_junk(name: str) -> bool:
    """Whether a file or folder is hidden, or one of those that operating systems leave."""
    return name.startswith(".") or name.lower() in JUNK


def too_large(size: int) -> tuple[str, str] | None:
    """Returns the problem and the remedy of a file that is too large to be an image; None for a smaller one."""
    return (f"{size:,} bytes, more than {MOST_BYTES:,}", "make it smaller") if size > MOST_BYTES else None


def refuse_problem(entry: Entry) -> None:
    """Refuses to open what has a problem.

    Raises:
        UnreadableError: with the entry's reason and remedy.
    """
    if entry.problem is not None:
        raise UnreadableError(*entry.problem)
