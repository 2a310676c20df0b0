"""Remembers from start to start what scans of image files have found: headers, and why a file cannot be read.

There is one file for each data set, in the folder `verdicts` of the cache. An image is known by its file version (path,
size and times of change), so that a file that was touched is scanned again; under another version of Pillow every file
is. Where the cache cannot be read or written nothing is remembered, and nothing else changes.
"""

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from cnn_vit import files
from cnn_vit.data.decode import pixel_rules
from cnn_vit.data.decode.images import Header, UnreadableError
from cnn_vit.errors import UserError
from cnn_vit.files import cache

LEVELS = ("none", "header", "all")  # how closely a file is scanned, each level closer than the one before
READER_VERSION = 2  # to be raised when `images` accepts other files; other pixels have a version of their own
MOST_REMEMBERED = 4_000_000  # images of a data set; of more, those scanned last
COLUMNS = {"level": np.int8, "height": np.int32, "width": np.int32, "colored": bool, "deep": bool, "highest": np.int32}


class ScanCache:
    """The scans of one data set.

    Args:
        path: the path of the data set, or any other text that identifies it.

    Attributes:
        path: the file in the cache; None where there is no cache.
        keys: (N,) uint64, ascending: the keys of the stored headers.
        rows: (N, 6) int32: the stored headers, in the columns of `COLUMNS`; no highest level is -1.
        unreadable: key as text -> [level, reason, remedy] of each unreadable file.
        new_headers: key -> (level, header) of what this process has scanned.
        is_changed: whether there is anything that `save` has not written.
    """

    def __init__(self, path: str):
        self.path = cache_path(path)
        stored = read_stored(self.path)
        self.keys = stored["key"]
        self.rows = np.stack([stored[name].astype(np.int32) for name in COLUMNS], 1)
        self.unreadable: dict[str, list[Any]] = json.loads(stored["bad"].tobytes())
        self.new_headers: dict[int, tuple[int, Header]] = {}
        self.is_changed = False

    def get(self, file_version: str | None, level: str) -> Header | UnreadableError | None:
        """Returns what an earlier scan at least as close has found, or None where there was none. Safe in threads."""
        if file_version is None:
            return None
        key, wanted_level = hash_version(file_version), LEVELS.index(level)
        if str(key) in self.unreadable:
            error_level, reason, remedy = self.unreadable[str(key)]
            if error_level <= wanted_level:  # what a less close scan cannot read, a closer one cannot read either
                return UnreadableError(reason, remedy)
        level_and_header = self.new_headers.get(key) or self.find_stored(key)
        if level_and_header is None or level_and_header[0] < wanted_level:
            return None
        return level_and_header[1]

    def find_stored(self, key: int) -> tuple[int, Header] | None:
        """Returns the level and the header that the cache's file has for a key, or None."""
        position = int(np.searchsorted(self.keys, np.uint64(key)))
        if position == len(self.keys) or int(self.keys[position]) != key:
            return None
        level, height, width, colored, deep, highest = self.rows[position].tolist()
        return level, Header(height, width, bool(colored), bool(deep), None if highest < 0 else highest)

    def put(self, file_version: str | None, level: str, outcome: Header | UnreadableError) -> None:
        """Remembers what a scan has found; until `save` is called, for this process alone."""
        if file_version is None:
            return
        key = hash_version(file_version)
        self.is_changed = True
        if isinstance(outcome, UnreadableError):
            self.unreadable[str(key)] = [LEVELS.index(level), outcome.reason, outcome.remedy]
        else:
            self.new_headers[key] = (LEVELS.index(level), outcome)

    def save(self) -> None:
        """Writes the file in the cache, where there is anything new."""
        if not self.is_changed or self.path is None:
            return
        new_keys = np.fromiter(self.new_headers, np.uint64, len(self.new_headers))
        new_rows = []
        for level, header in self.new_headers.values():
            highest = -1 if header.highest_level is None else header.highest_level
            # in the order of COLUMNS
            new_rows.append((level, header.height, header.width, header.colored, header.deep, highest))
        is_still_valid = ~np.isin(self.keys, new_keys)
        # The new ones come first, so that the older ones are lost where there are too many.
        keys = np.concatenate([new_keys, self.keys[is_still_valid]])[:MOST_REMEMBERED]
        new_table = np.array(new_rows, np.int32).reshape(-1, len(COLUMNS))  # no rows where there are none
        rows = np.concatenate([new_table, self.rows[is_still_valid]])[:MOST_REMEMBERED]
        order = np.argsort(keys)  # `find_stored` searches by bisection
        arrays: dict[str, Any] = {"key": keys[order]}
        for column, (name, dtype) in enumerate(COLUMNS.items()):
            arrays[name] = rows[order, column].astype(dtype)
        arrays["bad"] = np.frombuffer(json.dumps(self.unreadable, sort_keys=True).encode(), np.uint8)
        with contextlib.suppress(UserError):  # a full disk costs a scan at the next start, no more
            files.write_npz(self.path, arrays)
        self.is_changed = False


def hash_version(file_version: str) -> int:
    """Returns 64 bits that stand for a version of a file under this reader and this version of Pillow."""
    text = f"{PIL.__version__}:{READER_VERSION}:{pixel_rules.VERSION}:{file_version}".encode(errors="surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def cache_path(path: str) -> Path | None:
    """Returns the file that remembers the scans of the data set at `path`; None where there is no cache."""
    name = hashlib.sha256(path.encode(errors="surrogateescape")).hexdigest()[:32]
    with contextlib.suppress(UserError):
        return cache.folder() / "verdicts" / f"{name}.npz"
    return None


def read_stored(path: Path | None) -> dict[str, np.ndarray]:
    """Reads the arrays of a file of remembered scans; empty arrays where there is none, or one of another form."""
    empty: dict[str, np.ndarray] = {"key": np.zeros(0, np.uint64), "bad": np.frombuffer(b"{}", np.uint8)}
    empty |= {name: np.zeros(0, dtype) for name, dtype in COLUMNS.items()}
    if path is None:
        return empty
    with contextlib.suppress(UserError):
        stored = files.read_npz(path)
        has_all_arrays = stored.keys() == empty.keys() and all(
            stored[name].dtype == empty[name].dtype for name in empty
        )
        if has_all_arrays and len({stored[name].shape for name in ("key", *COLUMNS)}) == 1:
            return stored
    return empty
