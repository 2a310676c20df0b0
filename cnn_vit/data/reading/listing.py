"""Lists a folder or a zip without opening any of its files: regular files with their sizes, the rest with a reason.

Links to files and folders are followed. Each linked folder is entered once, so that no circle of links is walked
forever. Run folders are taken out, in a folder as in a zip (`run_folders`). Nothing is ever unpacked. Reading is safe
in threads.
"""

import os
import stat

from cnn_vit.data.decode.images import DEFAULT_REMEDY, MOST_BYTES, UnreadableError
from cnn_vit.data.reading.entries import (
    LINK_TO_NOTHING,
    Entry,
    Listing,
    Tree,
    is_image_name,
    is_junk,
    refuse_problem,
    too_large,
)
from cnn_vit.data.reading.run_folders import take_out_runs
from cnn_vit.data.reading.zips import is_zip, list_zip
from cnn_vit.errors import UserError
from cnn_vit.files import stamps

DEEPEST = 32  # levels of folders inside folders
ANNEX = "/annex/objects/"  # in the target of a link that git-annex made


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
    if not os.path.isfile(path) or not is_zip(path):
        raise UserError(
            f"{path} is neither a folder nor a zip archive; data.path is a folder of images or a zip of one"
        )
    return list_zip(path)


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
            if os.path.islink(path) and ANNEX in os.readlink(path):
                return Entry(name, path, 0, ("a git-annex link whose content is not here", "run git annex get"))
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
