"""Writes folders of images as people have them: of many sizes and formats, some gray, some turned.

The color of an image tells its class, and so does its brightness.
"""

import colorsys

import numpy as np
from PIL import Image

FORMATS = ("rgb.jpg", "rgba.png", "gray.png", "deep.png", "cmyk.jpg", "turned.jpg", "palette.gif", "wide.webp", "a.bmp")
GRAY = ("gray.png", "deep.png")
ORIENTATION = 274  # the EXIF tag that says how a camera was held


def pixels(label, classes, rng, size):
    """Draws noise around the color of a class, (*size, 3) uint8.

    A higher label is also brighter, so that gray images tell their class as well.
    """
    color = np.array(colorsys.hsv_to_rgb(label / classes, 0.6, 0.3 + 0.6 * label / classes)) * 255
    return np.clip(color + rng.normal(0, 12, (*size, 3)), 0, 255).astype(np.uint8)


def save(path, kind, image_pixels):
    """Writes pixels (H, W, 3) to `PATH.KIND`, where the kind is one of FORMATS."""
    image = Image.fromarray(image_pixels)
    target = path.with_name(f"{path.name}.{kind}")
    if kind == "rgba.png":
        image.putalpha(Image.fromarray(np.full(image_pixels.shape[:2], 255, np.uint8)))
        image.save(target)
    elif kind == "gray.png":
        image.convert("L").save(target)
    elif kind == "deep.png":  # 16 bits; 255 * 257 = 65535
        Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(target)
    elif kind == "cmyk.jpg":
        image.convert("CMYK").save(target)
    elif kind == "turned.jpg":
        exif = Image.Exif()
        exif[ORIENTATION] = 6  # turn by 90 degrees clockwise to see it upright
        image.transpose(Image.Transpose.ROTATE_90).save(target, exif=exif)
    elif kind == "palette.gif":
        image.quantize(32).save(target)
    else:
        image.save(target)


def folder(root, counts, *, formats=FORMATS, side_range=(20, 60)):
    """Writes so many images into each class folder, and returns the root.

    Args:
        root: the folder to write to.
        counts: images by class folder, such as {"cats": 3} or {"train/cats": 3}.
        formats: the formats, in turn.
        side_range: least and greatest side in pixels.
    """
    rng = np.random.default_rng(0)
    names = sorted({name.rpartition("/")[2] for name in counts})
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        label = names.index(name.rpartition("/")[2])
        for number in range(count):
            size = tuple(rng.integers(*side_range, 2, endpoint=True).tolist())
            image_pixels = pixels(label, len(names), rng, size)
            save(root / name / f"{number:04}", formats[number % len(formats)], image_pixels)
    return root
