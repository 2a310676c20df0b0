"""Takes run folders out of a listing, because some people train where their images are.

A run folder is known by what only a run writes: its lock begins with RUN_TITLE, or its settings are those of a run. A
folder that has images right in it is never taken for one, and neither is the root.
"""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from cnn_vit.data.decode.images import UnreadableError
from cnn_vit.settings import is_record

if TYPE_CHECKING:
    from cnn_vit.data.reading.entries import Entry, Tree

RUN_LOCK = "lock"  # held by the process that works in a run folder; the file stays when the process ends
RUN_TITLE = "cnn-vit run"  # what the lock of a run begins with
RUN_CONFIG = "config.json"  # the settings of a run
MOST_SETTINGS = 2**20  # bytes; those of a run are some 10,000


def take_out_runs(folder: "Tree", read: Callable[["Entry", int | None], bytes]) -> list[str]:
    """Takes the run folders at any depth out of a folder.

    Args:
        folder: is changed; it stays itself, whatever it holds.
        read: reads the first bytes of a file, as `Listing.read`.

    Returns:
        The paths of the run folders, whole.
    """
    paths: list[str] = []
    for name, inside in list(folder.folders.items()):
        if is_run_folder(inside, read):
            paths.append(inside.path)
            del folder.folders[name]
            continue
        inner_paths = take_out_runs(inside, read)
        # A folder of runs and nothing else is not a class; an empty folder is one, without images.
        if inner_paths and not inside.files and not inside.folders:
            del folder.folders[name]
        paths += inner_paths
    return paths


def is_run_folder(folder: "Tree", read: Callable[["Entry", int | None], bytes]) -> bool:
    """Whether a folder holds the lock or the settings of a run, and no images right in it."""
    if folder.image_files():
        return False
    for entry in folder.files:
        try:
            if entry.name == RUN_LOCK and read(entry, len(RUN_TITLE)) == RUN_TITLE.encode():
                return True
            if entry.name == RUN_CONFIG and is_run_config(read(entry, MOST_SETTINGS)):
                return True
        except UnreadableError:  # who reads the folder as a class hears of it
            continue
    return False


def is_run_config(content: bytes) -> bool:
    """Whether the content of a file is a record of settings, as a run folder has it."""
    try:
        return is_record(json.loads(content))
    except (ValueError, RecursionError):
        return False
