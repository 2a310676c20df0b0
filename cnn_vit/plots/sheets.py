"""Draws images below each other under their titles, as one SVG that a phone can show."""

import html
import math
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cnn_vit.plots.gallery import text_element
from cnn_vit.plots.images import data_uri
from cnn_vit.plots.style import NAMESPACES

SHEET_WIDTH, EDGE = 420, 20  # CSS pixels: of the drawing, and of its edge
TITLE_HEIGHT, LINE_HEIGHT, IMAGE_GAP = 24, 18, 16  # of the title, of a line of letters, and below an image
LINE_LETTERS = 54  # that fit into a line
SHARPNESS = 2  # pixels of the file, at least, for a CSS pixel
MOST_ENLARGED = 6  # CSS pixels for a pixel of an image


class SheetImage(NamedTuple):
    """An image (H, W, 3 or 4) uint8, its title, and a line under the title, "" for none."""

    title: str
    note: str
    pixels: np.ndarray


def draw_sheet(images: Sequence[SheetImage], *, title: str, lines: Sequence[str] = ()) -> str:
    """Returns images below each other as SVG to stand in a page, each as wide as the drawing or MOST_ENLARGED.

    Args:
        images: from above to below.
        title: above all of them.
        lines: sentences below the title.
    """
    inner_width = SHEET_WIDTH - 2 * EDGE
    parts, y = [text_element(EDGE, EDGE + 10, title, size=14, color="ink", bold=True)], EDGE + TITLE_HEIGHT
    for sentence in lines:
        for line in textwrap.wrap(sentence, LINE_LETTERS):
            parts.append(text_element(EDGE, y + 10, line, size=12, color="ink"))
            y += LINE_HEIGHT
    y += LINE_HEIGHT // 2
    for image in images:
        parts.append(text_element(EDGE, y + 10, image.title, size=13, color="ink", bold=True))
        y += LINE_HEIGHT
        if image.note:
            parts.append(text_element(EDGE, y + 10, image.note, size=12, color="soft"))
            y += LINE_HEIGHT
        height, width = image.pixels.shape[:2]
        times = min(inner_width / width, MOST_ENLARGED)
        size = f'width="{width * times:.4g}" height="{height * times:.4g}"'
        parts.append(f'<image xlink:href="{data_uri(sharpen(image.pixels, times))}" x="{EDGE}" y="{y}" {size}/>')
        y += round(height * times) + IMAGE_GAP
    label = html.escape(title)
    head = f'<svg class="plot" role="img" aria-label="{label}" viewBox="0 0 {SHEET_WIDTH} {y}"'
    return "\n".join([f'{head} style="max-width: {SHEET_WIDTH}px" {NAMESPACES}>', *parts, "</svg>"])


def sharpen(pixels: np.ndarray, times: float) -> np.ndarray:  # (H, W, 3 or 4) -> (Y, X, 4)
    """Returns an image with so many squares of each pixel that its edges are sharp where it is shown enlarged.

    Browsers would make pixels of unequal sizes of an image that is enlarged by a fraction.
    """
    repeats = max(1, math.ceil(SHARPNESS * times))
    opaque = np.full((*pixels.shape[:2], 1), 255, np.uint8)
    with_opacity = np.concatenate([pixels, opaque], -1) if pixels.shape[-1] == 3 else pixels
    return with_opacity.repeat(repeats, 0).repeat(repeats, 1)
