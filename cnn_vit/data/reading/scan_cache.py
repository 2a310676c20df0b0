"""What was found out about image files, remembered from start to start: headers, and why a file is no image.

One file for each data set, in the cache's `verdicts`. An image is known by its mark (path, size and times of change),
so that a file that was touched is looked at again; so is every one after another version of Pillow. Where the cache
cannot be read or written nothing is remembered, and nothing else changes.
"""

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from cnn_vit import files
from cnn_vit.data.decode.images import Header, UnreadableError
from cnn_vit.errors import UserError
from cnn_vit.files import cache

LEVELS = ("none", "header", "all")  # how closely, each closer than the one before
RULES = 1  # raise it when `images` takes other files
MOST = 4_000_000  # remembered for a data set; of more, those met last
COLUMNS = {"level": np.int8, "height": np.int32, "width": np.int32, "colored": bool}


class ScanCache:
    """The memory of one data set.

    Args:
        path: the data set's, whatever it stands for.
    """

    def __init__(self, path: str):
        self.path = cache_path(path)
        stored = read_stored(self.path)
        self.keys, self.rows = stored["key"], np.stack([stored[name].astype(np.int32) for name in COLUMNS], 1)
        self.bad: dict[str, list[Any]] = json.loads(stored["bad"].tobytes())
        self.fresh: dict[int, tuple[int, int, int, bool]] = {}
        self.changed = False

    def get(self, mark: str | None, level: str) -> Header | UnreadableError | None:
        """What a look as close has found, or None where there was none; safe in threads."""
        if mark is None:
            return None
        key, closely = key_of(mark), LEVELS.index(level)
        if (known := self.bad.get(str(key))) and known[0] <= closely:
            return UnreadableError(*known[1:])
        at = int(np.searchsorted(self.keys, np.uint64(key)))
        there = at < len(self.keys) and int(self.keys[at]) == key
        row = self.fresh.get(key) or (tuple(self.rows[at].tolist()) if there else None)
        return Header(row[1], row[2], bool(row[3])) if row and row[0] >= closely else None

    def put(self, mark: str | None, level: str, found: Header | UnreadableError) -> None:
        """Remembers what was found, until `save` for this process alone."""
        if mark is None:
            return
        key = key_of(mark)
        self.changed = True
        if isinstance(found, UnreadableError):
            self.bad[str(key)] = [LEVELS.index(level), found.reason, found.remedy]
        else:
            self.fresh[key] = (LEVELS.index(level), *found)

    def save(self) -> None:
        """Writes it down, where there is something new."""
        if not self.changed or self.path is None:
            return
        keys = np.fromiter(self.fresh, np.uint64, len(self.fresh))
        rows = np.array(list(self.fresh.values()), np.int32).reshape(-1, len(COLUMNS))
        old = ~np.isin(self.keys, keys)
        keys = np.concatenate([keys, self.keys[old]])[:MOST]
        rows = np.concatenate([rows, self.rows[old]])[:MOST]
        order = np.argsort(keys)
        arrays: dict[str, Any] = {"key": keys[order]}
        arrays |= {name: rows[order, at].astype(kind) for at, (name, kind) in enumerate(COLUMNS.items())}
        arrays["bad"] = np.frombuffer(json.dumps(self.bad, sort_keys=True).encode(), np.uint8)
        with contextlib.suppress(UserError):
            files.write_npz(self.path, arrays)
        self.changed = False


def key_of(mark: str) -> int:
    """64 bits that stand for a file under these rules."""
    text = f"{PIL.__version__}:{RULES}:{mark}".encode(errors="surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def cache_path(path: str) -> Path | None:
    """Where a data set's verdicts are kept; None where there is no cache."""
    name = hashlib.sha256(path.encode(errors="surrogateescape")).hexdigest()[:32]
    with contextlib.suppress(UserError):
        return cache.folder() / "verdicts" / f"{name}.npz"
    return None


def read_stored(path: Path | None) -> dict[str, np.ndarray]:
    """The arrays of a file of verdicts; empty ones where there is none, or another's."""
    empty: dict[str, np.ndarray] = {"key": np.zeros(0, np.uint64), "bad": np.frombuffer(b"{}", np.uint8)}
    empty |= {name: np.zeros(0, kind) for name, kind in COLUMNS.items()}
    if path is None:
        return empty
    with contextlib.suppress(UserError):
        found = files.read_npz(path)
        fits = found.keys() == empty.keys() and all(found[name].dtype == empty[name].dtype for name in empty)
        if fits and len({found[name].shape for name in ("key", *COLUMNS)}) == 1:
            return found
    return empty
