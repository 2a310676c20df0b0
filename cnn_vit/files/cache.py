"""The cache: the folder of what can be had again, and where downloads come from. Nothing is written here.

`process` reads the variables CNN_VIT_CACHE, CNN_VIT_OFFLINE and CNN_VIT_MIRROR; the command line and the public verbs
hand them to `configure`. A program that imports rooms by themselves calls `configure` itself, or gets the defaults.

    FOLDER/data     data sets        FOLDER/xla     compiled programs        FOLDER/weights     pretrained weights
    FOLDER/decoded  pixels           FOLDER/features     what networks made of images (`training/features`)
"""

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

from cnn_vit.errors import SurroundingsError

DEFAULT = "~/.cache/cnn_vit"


class CachePlaces(NamedTuple):
    """Where downloads are kept and where they come from.

    Attributes:
        folder: the cache; None stands for ~/.cache/cnn_vit.
        offline: whether the network is forbidden.
        mirror: what replaces the addresses of downloads, a folder or an address; see `downloads`.
    """

    folder: Path | None = None
    offline: bool = False
    mirror: str | None = None


_places = CachePlaces()


def configure(*, folder: str | Path | None = None, offline: bool = False, mirror: str | None = None) -> None:
    """Sets the places for this process, as of `CachePlaces`; what is left out gets its default."""
    global _places
    _places = CachePlaces(Path(folder).absolute() if folder else None, offline, mirror)


def current_places() -> CachePlaces:
    """Returns the places that this process uses."""
    return _places


def folder() -> Path:
    """Returns the folder of the cache, which need not exist yet.

    Raises:
        SurroundingsError: no folder is set, and there is no home folder for it.
    """
    home = os.path.expanduser(DEFAULT)
    if _places.folder is None and not os.path.isabs(home):
        raise SurroundingsError("there is no home folder for the cache; set CNN_VIT_CACHE to a folder")
    return _places.folder or Path(home)


def folder_sizes() -> dict[str, int]:
    """Returns the size in bytes of each part of the cache.

    A part is a folder of the cache, or "." for the files that lie beside these folders. An empty cache has no parts.
    """
    top = folder()
    sizes: dict[str, int] = {}
    for place, _, names in os.walk(top):
        parts = Path(place).relative_to(top).parts
        part = parts[0] if parts else "."
        for name in names:
            with contextlib.suppress(OSError):  # the file is gone since it was listed
                size = os.lstat(os.path.join(place, name)).st_size
                sizes[part] = sizes.get(part, 0) + size
    return dict(sorted(sizes.items()))
