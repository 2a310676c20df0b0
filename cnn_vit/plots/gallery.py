"""Draws rows of photographs under their names, as one SVG."""

import html
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cnn_vit.plots.images import data_uri
from cnn_vit.plots.style import NAMESPACES, shorten

NAMES_WIDTH, ROW_GAP, TITLE_HEIGHT = 150, 8, 28  # CSS pixels: the column of names, between rows, above the first row
IMAGE_GAP, GAP_LEVEL = 2, 128  # pixels between photographs, and their gray level: seen on white and on black
NAME_LETTERS, NOTE_LETTERS = 21, 23  # that fit into the column of names; a note's letters are smaller


class Row(NamedTuple):
    """Photographs (n, side, side, 3) uint8, their name, and a line under it."""

    name: str
    note: str
    images: np.ndarray


def draw_gallery(rows: Sequence[Row], *, title: str, side: int | None = None) -> str:
    """Returns the rows one below the other as SVG, each as wide as its photographs, which all have one side.

    Args:
        rows: the photographs.
        title: over them.
        side: of a photograph in CSS pixels; None for one a pixel of the photograph. The letters keep their size.
    """
    pixels = rows[0].images.shape[1] if rows else 0
    side = pixels if side is None else side
    scale = side / pixels if pixels else 1  # CSS pixels of a pixel
    widths = [round(len(row.images) * (pixels + IMAGE_GAP) * scale) for row in rows]
    width = NAMES_WIDTH + max(widths, default=0)
    height = TITLE_HEIGHT + len(rows) * (side + ROW_GAP)
    head = f'<svg class="plot" role="img" aria-label="{html.escape(title)}" viewBox="0 0 {width} {height}"'
    parts = [
        f'{head} style="max-width: {width}px" {NAMESPACES}>',
        text_element(0, 15, title, size=13, color="ink", bold=True),
    ]
    for number, row in enumerate(rows):
        top = TITLE_HEIGHT + number * (side + ROW_GAP)
        name, note = shorten(row.name, NAME_LETTERS), shorten(row.note, NOTE_LETTERS)
        parts.append(text_element(0, top + 14, name, size=12, color="ink", bold=True))
        parts.append(text_element(0, top + 30, note, size=11, color="soft"))
        parts.append(
            f'<image xlink:href="{data_uri(join_images(row.images))}" x="{NAMES_WIDTH}" y="{top}" '
            f'width="{widths[number]}" height="{side}"/>'
        )
    parts.append("</svg>")
    return "\n".join(parts)


def join_images(images: np.ndarray) -> np.ndarray:  # (n, side, side, 3) -> (side, X, 3)
    """Returns photographs side by side as one image, with a gray gap behind each."""
    with_gaps = np.pad(images, ((0, 0), (0, 0), (0, IMAGE_GAP), (0, 0)), constant_values=GAP_LEVEL)
    return np.concatenate(list(with_gaps), axis=1)


def text_element(x: int, y: int, text: str, *, size: int, color: str, bold: bool = False) -> str:
    """Returns letters at a place in CSS pixels as an SVG element, in a color of the page by its name."""
    weight = " font-weight: 700;" if bold else ""
    return f'<text x="{x}" y="{y}" style="font-size: {size}px;{weight} fill: var(--{color})">{html.escape(text)}</text>'
