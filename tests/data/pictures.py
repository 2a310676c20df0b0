"""Folders, zips and arrays of small images, for the tests of sources."""

import io
import zipfile

import numpy as np
from PIL import Image


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def png(pixels):
    """A file's bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def filled(root, counts, *, size=(6, 8)):
    """Writes `count` different images into each folder: {"train/cats": 3}. Returns their pixels by path."""
    found = {}
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for at in range(count):
            path = f"{folder}/{at:03}.png"
            found[path] = noise(*size, 3, seed=len(found) + 1)
            (root / path).write_bytes(png(found[path]))
    return found


def zipped(root, path, *, inside=""):
    """A zip of all files in a folder, with the folders themselves as zip programs write them."""
    with zipfile.ZipFile(path, "w") as archive:
        for one in sorted(root.rglob("*")):
            archive.write(one, f"{inside}{one.relative_to(root)}")
    return path
