"""Images in a page: PNG or JPEG as data addresses, grids of them, numbers as colors."""

import base64
import html
import io

import numpy as np

from cnn_vit.plots.style import COLORS, HEIGHT, NAMESPACES, PANEL_TOP, compact_label, rgb

LEAST = 16  # pixels of the longer side of an image in a grid
MAP_PIXELS = 8  # of the side of one number in a map
SCALE_COLORS = 64  # that are told apart on a scale
SCALE_WIDTH, SCALE_BAR, LETTER_WIDTH = 60, 20, 7  # CSS pixels: of a scale, of its colors, of a letter in its title
FRAME = (127, 127, 127, 110)  # around a map: red, green, blue, opacity; seen on light and on dark


def data_uri(pixels: np.ndarray) -> str:
    """Returns an image (H, W, 1, 3 or 4) uint8 as a data address: PNG, or JPEG where it is large and opaque."""
    from PIL import Image

    is_photograph = max(pixels.shape[:2]) > 64 and pixels.shape[2] < 4  # whose PNG would be a large file
    image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
    buffer = io.BytesIO()
    if is_photograph:
        kind = "jpeg"
        image.save(buffer, "JPEG", quality=85)
    else:
        kind = "png"
        image.save(buffer, "PNG", optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def image_grid(images: np.ndarray, *, columns: int) -> np.ndarray:  # (N, H, W, C) -> (Y, X, 4)
    """Returns images side by side in rows with transparent gaps, red, green, blue and opacity.

    Small images are enlarged until their longer side has LEAST pixels; each pixel becomes a square.
    """
    times = -(-LEAST // max(images.shape[1:3]))
    images = images.repeat(times, 1).repeat(times, 2)
    count, height, width = images.shape[:3]
    gap = max(1, height // 8)
    columns = min(columns, count)
    rows = -(-count // columns)
    grid = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 4), np.uint8)
    for number, image in enumerate(images):
        top = number // columns * (height + gap)
        left = number % columns * (width + gap)
        grid[top : top + height, left : left + width, :3] = image
        grid[top : top + height, left : left + width, 3] = 255
    return grid


def filter_images(values: np.ndarray) -> np.ndarray:  # (N, H, W, C) -> (N, H, W, 1 or 3)
    """Returns filters as images, uint8; three channels become colors, others their mean in gray.

    0 is middle gray, and the largest number of each filter is black or white.
    """
    filters = values if values.shape[-1] == 3 else values.mean(-1, keepdims=True)
    largest = np.abs(filters).max((1, 2, 3), keepdims=True)
    scaled = filters / np.where(largest > 0, largest, 1)  # a filter of zeros stays middle gray
    return np.round(127.5 + 127.5 * scaled).astype(np.uint8)


def heatmap(values: np.ndarray, low: float, high: float) -> np.ndarray:  # (...) -> (..., 3)
    """Returns numbers as colors, uint8, of cividis, which is the same to all eyes and rises in lightness.

    Args:
        values: numbers in any shape.
        low: the number that gets the darkest color, as do all below.
        high: the number that gets the lightest color, as do all above.
    """
    from matplotlib import colormaps

    shares = np.clip((values - low) / (high - low), 0, 1)
    return (colormaps["cividis"](shares)[..., :3] * 255).round().astype(np.uint8)


def draw_scale(low: float, high: float, title: str) -> str:
    """Returns the colors of `heatmap` from a number up to another, as a plot to stand beside those of `draw_panel`."""
    address = data_uri(heatmap(np.linspace(high, low, SCALE_COLORS)[:, None], low, high))
    width, bottom = max(SCALE_WIDTH, round(len(title) * LETTER_WIDTH)), PANEL_TOP + HEIGHT
    head = f'<svg class="plot" role="img" aria-label="{html.escape(title)}" viewBox="0 0 {width} {bottom}"'
    name = f'<text style="font-size: 12px; fill: var(--soft)" x="0" y="13">{html.escape(title)}</text>'
    size = f'width="{SCALE_BAR}" height="{HEIGHT}" preserveAspectRatio="none"'
    parts = [f'{head} style="max-width: {width}px" {NAMESPACES}>', name]
    parts.append(f'<image xlink:href="{address}" y="{PANEL_TOP}" {size}/>')
    for number, y in ((high, PANEL_TOP + 10), (low, bottom)):
        place = f'x="{SCALE_BAR + 6}" y="{y}"'
        parts.append(f'<text style="font-size: 12px; fill: var(--soft)" {place}>{compact_label(number)}</text>')
    return "\n".join([*parts, "</svg>"])


def signed_colors(values: np.ndarray, largest: float) -> np.ndarray:  # (...) -> (..., 4)
    """Returns numbers as colors, uint8: blue below 0, orange above, the more opaque the larger they are; 0 is the page.

    An image cannot change its colors with the page, so each is the mean of those of light and dark.

    Args:
        values: numbers in any shape.
        largest: the absolute value that is fully opaque, as are all beyond.
    """
    below, above = (np.mean([rgb(color) for color in COLORS[name]], 0) for name in ("series0", "series1"))
    colors = np.where((values < 0)[..., None], below, above)
    opacity = np.clip(np.abs(values) / largest, 0, 1) if largest > 0 else np.zeros(values.shape)
    return np.round(255 * np.concatenate([colors, opacity[..., None]], -1)).astype(np.uint8)


def signed_maps(values: np.ndarray, *, columns: int, largest: float | None = None) -> np.ndarray:
    """Returns maps of numbers side by side in rows as an image (Y, X, 4), each in a thin gray frame.

    Args:
        values: maps (N, H, W).
        columns: maps in a row, at most.
        largest: the absolute value that is fully opaque; None for the largest of all maps.
    """
    count, height, width = values.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    if largest is None:
        largest = float(np.abs(values).max())
    colors = signed_colors(values, largest).repeat(MAP_PIXELS, 1).repeat(MAP_PIXELS, 2)
    framed_height, framed_width = height * MAP_PIXELS + 2, width * MAP_PIXELS + 2
    gap = MAP_PIXELS
    grid = np.zeros((rows * (framed_height + gap) - gap, columns * (framed_width + gap) - gap, 4), np.uint8)
    for number, image in enumerate(colors):
        top, left = number // columns * (framed_height + gap), number % columns * (framed_width + gap)
        grid[top : top + framed_height, left : left + framed_width] = FRAME
        grid[top + 1 : top + framed_height - 1, left + 1 : left + framed_width - 1] = image
    return grid
