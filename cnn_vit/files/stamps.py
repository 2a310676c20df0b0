"""What changes whenever a file does, without reading it: its size and the times that the file system keeps.

The stamps only tell whether a file is still the one that was looked at, and which of two was written first.
"""

import os
from pathlib import Path


def stamp(status: os.stat_result) -> str:
    """Returns a file's size in bytes and the times when its content and anything about it last changed, in ns."""
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def list_oldest_first(folder: Path) -> list[tuple[Path, int]]:
    """Lists the files of a folder with their sizes in bytes, by the time of writing; none where there is no folder."""
    files = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    files.append((status.st_mtime_ns, entry.name, status.st_size))
    except OSError:
        return []
    return [(folder / name, size) for _, name, size in sorted(files)]


def is_newer(path: Path, other: Path) -> bool:
    """Whether a file was written after another one; not where one of them is missing."""
    try:
        return path.stat().st_mtime_ns > other.stat().st_mtime_ns
    except OSError:
        return False
