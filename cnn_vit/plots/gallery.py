"""Rows of photographs under their names, as one drawing."""

import html
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cnn_vit.plots.images import data_uri
from cnn_vit.plots.style import NAMESPACES, shorten

NAMES, GAP, TOP = 150, 8, 28  # CSS pixels of the column of names, between rows, of the title
BETWEEN, GRAY = 2, 128  # pixels between photographs, and their level: seen on white and on black
LETTERS = 21  # that fit into the column


class Row(NamedTuple):
    """Photographs (n, side, side, 3) uint8, their name, and a line under it."""

    name: str
    note: str
    images: np.ndarray


def gallery(rows: Sequence[Row], *, title: str) -> str:
    """The rows one below the other, each as wide as its photographs; all have one side, in CSS pixels."""
    side = rows[0].images.shape[1] if rows else 0
    width = NAMES + max((len(row.images) * (side + BETWEEN) for row in rows), default=0)
    height = TOP + len(rows) * (side + GAP)
    head = f'<svg class="plot" role="img" aria-label="{html.escape(title)}" viewBox="0 0 {width} {height}"'
    parts = [f'{head} style="max-width: {width}px" {NAMESPACES}>', text(0, 15, title, 13, "ink", bold=True)]
    for place, row in enumerate(rows):
        top = TOP + place * (side + GAP)
        parts += [
            text(0, top + 14, shorten(row.name, LETTERS), 12, "ink", bold=True),
            text(0, top + 30, shorten(row.note, LETTERS + 2), 11, "soft"),
            f'<image xlink:href="{data_uri(strip(row.images))}" x="{NAMES}" y="{top}" '
            f'width="{len(row.images) * (side + BETWEEN)}" height="{side}"/>',
        ]
    return "\n".join([*parts, "</svg>"])


def strip(images: np.ndarray) -> np.ndarray:  # (n, side, side, 3) -> (side, X, 3)
    """Photographs side by side."""
    apart = np.pad(images, ((0, 0), (0, 0), (0, BETWEEN), (0, 0)), constant_values=GRAY)
    return np.concatenate(list(apart), axis=1)


def text(x: int, y: int, said: str, size: int, color: str, *, bold: bool = False) -> str:
    """Letters at a place."""
    weight = " font-weight: 700;" * bold
    return f'<text x="{x}" y="{y}" style="font-size: {size}px;{weight} fill: var(--{color})">{html.escape(said)}</text>'
