"""Images in a page: PNG or JPEG as data addresses, sheets of them, numbers as colors."""

import base64
import io

import numpy as np

LEAST = 16  # pixels of the longer side of an image in a sheet


def data_uri(pixels: np.ndarray) -> str:
    """An image (H, W, 1, 3 or 4) uint8 as a data address: PNG, or JPEG where it is large and opaque."""
    from PIL import Image

    large = max(pixels.shape[:2]) > 64 and pixels.shape[2] < 4
    buffer = io.BytesIO()
    shown = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
    shown.save(buffer, "JPEG", quality=85) if large else shown.save(buffer, "PNG", optimize=True)
    kind = "jpeg" if large else "png"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def image_grid(images: np.ndarray, *, columns: int) -> np.ndarray:  # (N, H, W, C) -> (Y, X, 4)
    """Images side by side in rows, with transparent gaps; small ones enlarged to LEAST pixels, each pixel a square."""
    times = -(-LEAST // max(images.shape[1:3]))
    images = images.repeat(times, 1).repeat(times, 2)
    count, height, width = images.shape[:3]
    gap, columns = max(1, height // 8), min(columns, count)
    rows = -(-count // columns)
    found = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 4), np.uint8)
    for place, one in enumerate(images):
        top, left = place // columns * (height + gap), place % columns * (width + gap)
        found[top : top + height, left : left + width, :3] = one
        found[top : top + height, left : left + width, 3] = 255
    return found


def filter_images(values: np.ndarray) -> np.ndarray:  # (N, H, W, C) -> (N, H, W, 1 or 3)
    """Filters as images: 0 is middle gray, the largest number of each filter black or white. Colors where C is 3."""
    shown = values if values.shape[-1] == 3 else values.mean(-1, keepdims=True)
    largest = np.abs(shown).max((1, 2, 3), keepdims=True)
    scaled = shown / np.where(largest > 0, largest, 1)
    return np.round(127.5 + 127.5 * scaled).astype(np.uint8)


def heatmap(values: np.ndarray, low: float, high: float) -> np.ndarray:  # (...) -> (..., 3)
    """Numbers as colors of cividis, which is the same to all eyes and rises in lightness."""
    from matplotlib import colormaps

    return (colormaps["cividis"](np.clip((values - low) / (high - low), 0, 1))[..., :3] * 255).round().astype(np.uint8)
