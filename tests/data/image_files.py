"""Writes folders and zips of small images, for the tests of sources."""

import io
import zipfile

import numpy as np
from PIL import Image


def noise(*shape, seed=0):
    """Random bytes of a shape, uint8; the same for the same seed."""
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def encode_png(pixels):
    """The bytes of a PNG file of some pixels."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_images(root, counts, *, size=(6, 8)):
    """Writes different PNG files into folders under a root.

    Args:
        root: the folder that holds all others.
        counts: folder -> number of images, such as {"train/cats": 3}.
        size: (height, width) in pixels.

    Returns:
        path under the root -> pixels (H, W, 3).
    """
    pixels_by_path = {}
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            path = f"{folder}/{number:03}.png"
            pixels_by_path[path] = noise(*size, 3, seed=len(pixels_by_path) + 1)
            (root / path).write_bytes(encode_png(pixels_by_path[path]))
    return pixels_by_path


def write_zip(root, path, *, inside=""):
    """Writes a zip of all files in a folder, and of the folders themselves as zip programs do; returns its path.

    Args:
        root: the folder.
        path: the path of the zip.
        inside: what is put in front of the names in the zip, such as "wrapped/".
    """
    with zipfile.ZipFile(path, "w") as archive:
        for inner_path in sorted(root.rglob("*")):
            archive.write(inner_path, f"{inside}{inner_path.relative_to(root)}")
    return path
