"""Folders as people have them: images of many sizes and formats, some gray, some turned; color tells the class."""

import colorsys

import numpy as np
from PIL import Image

FORMATS = ("rgb.jpg", "rgba.png", "gray.png", "deep.png", "cmyk.jpg", "turned.jpg", "palette.gif", "wide.webp", "a.bmp")
GRAY = ("gray.png", "deep.png")


def pixels(label, classes, rng, size):
    """Noise around the color of a class, brighter with the class too: gray images tell it as well."""
    color = np.array(colorsys.hsv_to_rgb(label / classes, 0.6, 0.3 + 0.6 * label / classes)) * 255
    return np.clip(color + rng.normal(0, 12, (*size, 3)), 0, 255).astype(np.uint8)


def save(path, kind, found):
    """Writes pixels (H, W, 3) in one of FORMATS."""
    image = Image.fromarray(found)
    target = path.with_name(f"{path.name}.{kind}")
    if kind == "rgba.png":
        image.putalpha(Image.fromarray(np.full(found.shape[:2], 255, np.uint8)))
        image.save(target)
    elif kind == "gray.png":
        image.convert("L").save(target)
    elif kind == "deep.png":
        Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(target)
    elif kind == "cmyk.jpg":
        image.convert("CMYK").save(target)
    elif kind == "turned.jpg":
        exif = Image.Exif()
        exif[274] = 6
        image.transpose(Image.Transpose.ROTATE_90).save(target, exif=exif)
    elif kind == "palette.gif":
        image.quantize(32).save(target)
    else:
        image.save(target)


def folder(root, counts, *, formats=FORMATS, sides=(20, 60)):
    """Writes so many images into each class folder, {"cats": 3}, and gives the root."""
    rng = np.random.default_rng(0)
    names = sorted({name.rpartition("/")[2] for name in counts})
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        label = names.index(name.rpartition("/")[2])
        for at in range(count):
            size = tuple(rng.integers(*sides, 2, endpoint=True).tolist())
            save(root / name / f"{at:04}", formats[at % len(formats)], pixels(label, len(names), rng, size))
    return root
