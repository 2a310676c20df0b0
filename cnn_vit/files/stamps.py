"""What changes whenever a file does, without reading it: its size and the times that the file system keeps.

Only to tell whether a file is still the one that was looked at, and which of two was written first.
"""

import os
from pathlib import Path


def stamp(found: os.stat_result) -> str:
    """Size in bytes and the times of the last change to content and to anything, in nanoseconds."""
    return f"{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}"


def oldest_first(folder: Path) -> list[tuple[Path, int]]:
    """The files of a folder with their bytes, by the time of writing; none where there is no folder."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    about = entry.stat(follow_symlinks=False)
                    found.append((about.st_mtime_ns, entry.name, about.st_size))
    except OSError:
        return []
    return [(folder / name, size) for _, name, size in sorted(found)]
