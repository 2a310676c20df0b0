"""The one look of every image: curves, matrices, bars and intervals as SVG, grids of images as PNG or JPEG.

A plot is the text of an SVG whose colors are CSS variables: inside a page they are the page's, with `standalone` it
brings its own, for light and dark. The same arguments give the same bytes with the same versions of matplotlib and
Pillow; neither the user's style files nor the day have a say. Text stays text.

Series are told apart by color, dash and mark, never by color alone. The colors set out from Okabe and Ito's
(jfly.uni-koeln.de/color) and were moved until each stands out from its paper by 3:1 and from the others by 18 in
CIELAB, for all three kinds of color blindness as Machado et al. (IEEE TVCG 2009) simulate them.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cnn_vit.plots.gallery import Row, gallery
from cnn_vit.plots.images import data_uri, filter_images, heatmap, image_grid
from cnn_vit.plots.style import (
    COLORS,
    CSS,
    DASHES,
    FONT,
    MARKERS,
    NUMBERED,
    PLOT,
    POINTS,
    SENTINELS,
    SERIES,
    SHADE,
    WIDTH,
    color,
    compact_label,
    downsample,
    new_figure,
    panel,
    percent_label,
    printable,
    rgb,
    shorten,
    side_by_side,
    standalone,
    tick_locator,
    to_svg,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "COLORS",
    "CSS",
    "DASHES",
    "FONT",
    "PLOT",
    "SERIES",
    "Line",
    "Row",
    "Span",
    "bars",
    "curves",
    "data_uri",
    "filter_images",
    "gallery",
    "heatmap",
    "image_grid",
    "matrix",
    "panel",
    "printable",
    "reliability",
    "side_by_side",
    "spans",
    "standalone",
]  # fmt: skip


class Line(NamedTuple):
    """A curve: values (None or nan: a gap) at steps, ascending. `series` chooses color and dash."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    series: int = 0


class Span(NamedTuple):
    """A value with its interval; None where there is none."""

    name: str
    estimate: float
    low: float | None
    high: float | None
    series: int = 0


def curves(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str = "step",
    percent: bool = False,
    log: bool = False,
    points: int = POINTS,
) -> str:
    """Curves over steps; one without a name is not in the legend.

    One of more than so many points is drawn as means of neighbors (see `thinned`).
    """
    with new_figure() as figure:
        axes = figure.add_subplot()
        for line in lines:
            draw_line(axes, line, points)
        axes.set_title(title)
        axes.set_xlabel(x_label)
        axes.yaxis.set_major_formatter(percent_label if percent else compact_label)
        if log:
            logarithmic(axes, lines)
        axes.xaxis.set_major_formatter(compact_label)
        axes.xaxis.set_major_locator(tick_locator(6, whole=True))
        if (named := sum(bool(line.name) for line in lines)) > 1:
            axes.legend(loc="best", fontsize=11, labelcolor=SENTINELS["soft"], ncols=-(-named // 6))
        return to_svg(figure, title)


def logarithmic(axes: "Axes", lines: Sequence[Line]) -> None:
    """A logarithmic axis where positive values span a power of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter

    values = [value for line in lines for value in line.y if value is not None and value > 0]
    if values and max(values) >= 10 * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=7))
        axes.yaxis.set_major_formatter(compact_label)
        axes.yaxis.set_minor_formatter(NullFormatter())


def draw_line(axes: "Axes", line: Line, points: int) -> None:
    """A curve, with a mark at each value where they are few."""
    x, y = downsample(line.x, line.y, points)
    marker = MARKERS[line.series % len(MARKERS)] if len(x) <= 20 else ""
    look: dict[str, Any] = {"color": color(line.series), "linestyle": DASHES[line.series // SERIES % len(DASHES)]}
    axes.plot(x, y, label=line.name or "_", marker=marker, markersize=3.5, **look)


def matrix(counts: np.ndarray, names: Sequence[str], *, title: str) -> str:
    """A confusion matrix, counts (K, K) of true by predicted classes: right ones in one color, wrong in another.

    A cell is as dark as its share of the true class; of more than NUMBERED classes as the cube root of that, so that
    rare mistakes are seen, and without numbers.
    """
    classes = len(counts)
    small = classes <= NUMBERED
    with new_figure(height=WIDTH) as figure:
        axes = figure.add_subplot()
        shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        if small:
            cells(axes, counts, shares)
            axes.set_xticks(range(classes), [shorten(name) for name in names], rotation=label_rotation(names))
            axes.set_yticks(range(classes), [shorten(name) for name in names])
            axes.tick_params(length=0, labelsize=11 if classes <= 12 else 9)
        else:
            axes.imshow(shade_levels(np.cbrt(shares)), interpolation="nearest", aspect="equal")
        axes.grid(visible=False)
        axes.spines[:].set_visible(not small)
        axes.set_title(title)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        return to_svg(figure, title)


def cells(axes: "Axes", counts: np.ndarray, shares: np.ndarray) -> None:
    """A square and a number for each pair of classes that came up."""
    from matplotlib.patches import Rectangle

    size = 11 if len(counts) <= 12 else 7.5
    for row, column in np.argwhere(counts):
        look, least = (color(0), 0.05) if row == column else (color(1), 0.16)
        dark = max(least, SHADE * shares[row, column])
        corner = column - 0.48, row - 0.48
        axes.add_patch(Rectangle(corner, 0.96, 0.96, facecolor=look, alpha=dark, linewidth=0))
        axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", fontsize=size)
    axes.set_xlim(-0.5, len(counts) - 0.5)
    axes.set_ylim(len(counts) - 0.5, -0.5)
    axes.set_aspect("equal")


def shade_levels(shares: np.ndarray) -> np.ndarray:  # (K, K) -> (K, K, 4)
    """Shares as opacities of a color between those of light and dark."""
    right, wrong = (np.mean([rgb(one) for one in COLORS[name]], 0) for name in ("series0", "series1"))
    colors = np.where(np.eye(len(shares), dtype=bool)[..., None], right, wrong)
    return np.concatenate([colors, shares[..., None]], -1)


def spans(rows: Sequence[Span], *, title: str, percent: bool = True) -> str:
    """A value with its interval for each of some names, one below the other."""
    with new_figure(height=70 + 26 * len(rows)) as figure:
        axes = figure.add_subplot()
        for place, row in enumerate(rows):
            if row.low is not None and row.high is not None:
                axes.plot([row.low, row.high], [place, place], color=color(row.series), linewidth=2.2)
            axes.plot([row.estimate], [place], marker=MARKERS[row.series % 6], markersize=6, color=color(row.series))
        axes.set_yticks(range(len(rows)), [shorten(row.name, 28) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.xaxis.set_major_formatter(percent_label if percent else compact_label)
        axes.xaxis.set_major_locator(tick_locator(4))
        axes.grid(visible=False, axis="y")
        axes.set_title(title)
        return to_svg(figure, title)


def bars(values: Sequence[float], names: Sequence[str], *, title: str) -> str:
    """Counts as bars, one below the other, with their numbers."""
    with new_figure(height=60 + 17 * len(values)) as figure:
        axes = figure.add_subplot()
        axes.barh(range(len(values)), values, color=color(0), alpha=0.75, height=0.72)
        for place, value in enumerate(values):
            axes.text(value + max(values) / 80, place, f"{value:,}", va="center", fontsize=10, color=SENTINELS["soft"])
        axes.set_yticks(range(len(values)), [shorten(name, 22) for name in names])
        axes.set_ylim(len(values) - 0.4, -0.6)
        axes.set_xlim(0, 1.14 * max([*values, 1]))
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.spines["bottom"].set_visible(False)
        axes.set_title(title)
        return to_svg(figure, title)


def reliability(points: Sequence[Span], *, title: str) -> str:
    """How often predictions are right (middle, low, high) against how sure they are (the name, a share)."""
    with new_figure() as figure:
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=SENTINELS["soft"], linewidth=1, linestyle=DASHES[1])
        for point in points:
            if point.low is not None and point.high is not None:
                axes.plot([float(point.name)] * 2, [point.low, point.high], color=color(0), linewidth=2.2, alpha=0.6)
        axes.plot([float(point.name) for point in points], [point.estimate for point in points], "o", color=color(0))
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.xaxis.set_major_formatter(percent_label)
        axes.yaxis.set_major_formatter(percent_label)
        axes.set_xlabel("probability of the predicted class")
        axes.set_ylabel("right")
        axes.set_title(title)
        return to_svg(figure, title)


def label_rotation(names: Sequence[str]) -> float:
    """Degrees that names below a matrix are turned by: none where they are short."""
    return 90.0 if max(map(len, names)) * len(names) > 30 else 0.0
