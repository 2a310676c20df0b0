"""The one look of every plot: curves, matrices, bars and intervals as SVG, grids of images as PNG or JPEG.

A plot is the text of an SVG whose colors are CSS variables: inside a page they are the page's, with `standalone` it
brings its own, for light and dark. The same arguments give the same bytes with the same versions of matplotlib and
Pillow; neither the user's style files nor the day change them. Text stays text.

Series are told apart by color, dash and mark, never by color alone. The colors started from Okabe and Ito's
(jfly.uni-koeln.de/color) and were moved until each stands out from its paper by 3:1 and from the others by 18 in
CIELAB, for all three kinds of color blindness as Machado et al. (IEEE TVCG 2009) simulate them.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cnn_vit.plots.gallery import Row, draw_gallery
from cnn_vit.plots.images import data_uri, draw_scale, filter_images, heatmap, image_grid, signed_colors, signed_maps
from cnn_vit.plots.number_grids import (
    GridCell,
    NumberDrawing,
    NumberGrid,
    draw_animation,
    draw_numbers,
    framed,
    gray_cell,
    signed_cell,
)
from cnn_vit.plots.parallel import ParallelAxis, ParallelLine, draw_parallel, find_place, number_ticks
from cnn_vit.plots.scatter import Points, draw_scatter
from cnn_vit.plots.sheets import SheetImage, draw_sheet
from cnn_vit.plots.style import (
    COLORS,
    CSS,
    DASHES,
    FONT,
    HEIGHT,
    LEVELS,
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
    draw_panel,
    new_figure,
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
    "LEVELS",
    "PLOT",
    "SERIES",
    "GridCell",
    "Line",
    "NumberDrawing",
    "NumberGrid",
    "ParallelAxis",
    "ParallelLine",
    "Points",
    "Row",
    "SheetImage",
    "Span",
    "data_uri",
    "draw_animation",
    "draw_bars",
    "draw_confusion",
    "draw_curves",
    "draw_gallery",
    "draw_intervals",
    "draw_numbers",
    "draw_panel",
    "draw_parallel",
    "draw_reliability",
    "draw_scale",
    "draw_scatter",
    "draw_shares",
    "draw_sheet",
    "filter_images",
    "find_place",
    "framed",
    "gray_cell",
    "heatmap",
    "image_grid",
    "number_ticks",
    "printable",
    "shorten",
    "side_by_side",
    "signed_cell",
    "signed_colors",
    "signed_maps",
    "standalone",
]  # fmt: skip


NAMES_IN_ROW, ROW_HEIGHT = 3, 17  # of a legend below a plot: names in a row, and CSS pixels of one
DECADES = 100  # largest over smallest value up to which a logarithmic axis has labels between the powers of ten
PLAIN, FAINT, ENDED, STRONG = "plain", "faint", "ended", "strong"  # looks of a curve
FEW_POINTS = 20  # of a curve, at most, that has a mark at each value
FEW_CLASSES = 12  # of a matrix, at most, with large letters


@dataclass(frozen=True)
class Line:
    """A curve.

    Attributes:
        name: in the legend; "": the curve is not in it.
        x: steps, ascending.
        y: the value at each step; None or nan leaves a gap.
        series: number that chooses color and dash.
        look: plain; faint, one of many; ended, faint with a cross at its end; or strong, the one among many to look at.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    series: int = 0
    look: str = PLAIN


@dataclass(frozen=True)
class Span:
    """A value with its interval.

    Attributes:
        name: what the value is of.
        estimate: the value.
        low: lower end of the interval; None where there is none.
        high: upper end of the interval; None where there is none.
        series: number that chooses color and mark.
    """

    name: str
    estimate: float
    low: float | None
    high: float | None
    series: int = 0


def draw_curves(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str = "step",
    percent: bool = False,
    log: bool = False,
    log_x: bool = False,
    legend_below: bool = False,
    points: int = POINTS,
) -> str:
    """Returns a plot of curves over steps.

    Args:
        lines: the curves.
        title: over the plot.
        x_label: under the horizontal axis.
        percent: whether values are shares, written in percent.
        log: whether the values' axis may be logarithmic; it is where they span a power of ten.
        log_x: whether the horizontal axis is logarithmic, with a tick at each x of the curves, which are few.
        legend_below: whether the names stand under the plot, which many curves leave no room in.
        points: of a curve, at most; a longer one is drawn as means of neighbors (see `downsample`).
    """
    named_lines = sum(bool(line.name) for line in lines)
    rows_below = -(-named_lines // NAMES_IN_ROW) if legend_below and named_lines > 1 else 0
    with new_figure(height=HEIGHT + ROW_HEIGHT * rows_below) as figure:
        axes = figure.add_subplot()
        for line in lines:
            draw_line(axes, line, points)
        axes.set_title(title)
        axes.set_xlabel(x_label)
        axes.yaxis.set_major_formatter(percent_label if percent else compact_label)
        if log:
            use_log_scale(axes, lines)
        if log_x:
            axes.set_xscale("log")
            ticks = sorted(set(itertools.chain(*(line.x for line in lines))))
            axes.set_xticks(ticks, map(compact_label, ticks), minor=False)
            axes.set_xticks([], minor=True)
        else:
            axes.xaxis.set_major_formatter(compact_label)
            axes.xaxis.set_major_locator(tick_locator(6, whole=True))
        if rows_below:
            figure.legend(
                loc="outside lower center", fontsize=10, labelcolor=SENTINELS["soft"], ncols=NAMES_IN_ROW,
                handlelength=2.6, columnspacing=1.2,
            )  # fmt: skip
        elif named_lines > 1:
            columns = -(-named_lines // 6)  # six names one below the other, at most
            axes.legend(loc="best", fontsize=11, labelcolor=SENTINELS["soft"], ncols=columns)
        return to_svg(figure, title)


def use_log_scale(axes: "Axes", lines: Sequence[Line]) -> None:
    """Makes the values' axis logarithmic where positive values span a power of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter

    positive: list[float] = []
    for line in lines:
        positive += [value for value in line.y if value is not None and value > 0]
    if positive and max(positive) >= 10 * min(positive):
        axes.set_yscale("log")
        steps = (1, 2, 5) if max(positive) <= DECADES * min(positive) else (1,)  # more labels would lie on one another
        axes.yaxis.set_major_locator(LogLocator(subs=steps, numticks=7))
        axes.yaxis.set_major_formatter(compact_label)
        axes.yaxis.set_minor_formatter(NullFormatter())


def draw_line(axes: "Axes", line: Line, points: int) -> None:
    """Draws a curve of at most so many points, with a mark at each value where they are few."""
    x, y = downsample(line.x, line.y, points)
    if line.look in (FAINT, ENDED):
        axes.plot(x, y, label="_", color=SENTINELS["soft"], linewidth=0.9, alpha=0.5)
        if line.look == ENDED:
            axes.plot(x[-1:], y[-1:], label="_", color=SENTINELS["soft"], marker="x", markersize=4, alpha=0.8)
        return
    axes.plot(
        x,
        y,
        label=line.name or "_",  # matplotlib leaves names that begin with _ out of the legend
        marker=MARKERS[line.series % len(MARKERS)] if len(x) <= FEW_POINTS else "",
        markersize=3.5,
        color=color(line.series),
        linestyle=DASHES[line.series // SERIES % len(DASHES)],
        linewidth=2.8 if line.look == STRONG else 1.8,
        zorder=3 if line.look == STRONG else 2,
    )


def draw_confusion(counts: np.ndarray, names: Sequence[str], *, title: str) -> str:
    """Returns a plot of a confusion matrix: right predictions in one color, wrong ones in another.

    A cell is as dark as its share of the true class; of more than NUMBERED classes as the cube root of that, so that
    rare mistakes are seen, and without numbers.

    Args:
        counts: (K, K) examples of each true class (row) and predicted class (column).
        names: of the K classes.
        title: over the plot.
    """
    classes = len(counts)
    is_numbered = classes <= NUMBERED
    with new_figure(height=WIDTH) as figure:
        axes = figure.add_subplot()
        # A class without examples has shares of 0
        shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        if is_numbered:
            draw_cells(axes, counts, shares)
            short_names = [shorten(name) for name in names]
            axes.set_xticks(range(classes), short_names, rotation=label_rotation(names))
            axes.set_yticks(range(classes), short_names)
            axes.tick_params(length=0, labelsize=11 if classes <= FEW_CLASSES else 9)
        else:
            axes.imshow(shade_levels(np.cbrt(shares)), interpolation="nearest", aspect="equal")
        axes.grid(visible=False)
        axes.spines[:].set_visible(not is_numbered)
        axes.set_title(title)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        return to_svg(figure, title)


def draw_cells(axes: "Axes", counts: np.ndarray, shares: np.ndarray) -> None:
    """Draws a square and a number for each pair of classes that came up."""
    from matplotlib.patches import Rectangle

    font_size = 11 if len(counts) <= FEW_CLASSES else 7.5
    for row, column in np.argwhere(counts):
        # A single wrong example must be seen, so that a wrong cell is darker at least than a right one
        cell_color, least = (color(0), 0.05) if row == column else (color(1), 0.16)
        opacity = max(least, SHADE * shares[row, column])
        corner = column - 0.48, row - 0.48
        axes.add_patch(Rectangle(corner, 0.96, 0.96, facecolor=cell_color, alpha=opacity, linewidth=0))
        axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", fontsize=font_size)
    axes.set_xlim(-0.5, len(counts) - 0.5)
    axes.set_ylim(len(counts) - 0.5, -0.5)
    axes.set_aspect("equal")


def shade_levels(shares: np.ndarray) -> np.ndarray:  # (K, K) -> (K, K, 4)
    """Returns shares as the opacity of a color, red, green, blue and opacity in 0 to 1.

    An image cannot change its colors with the page, so each is the mean of those of light and dark.
    """
    right = np.mean([rgb(hex_color) for hex_color in COLORS["series0"]], 0)
    wrong = np.mean([rgb(hex_color) for hex_color in COLORS["series1"]], 0)
    colors = np.where(np.eye(len(shares), dtype=bool)[..., None], right, wrong)
    return np.concatenate([colors, shares[..., None]], -1)


def draw_intervals(rows: Sequence[Span], *, title: str, percent: bool = True) -> str:
    """Returns a plot of values with their intervals, one below the other under their names.

    Args:
        rows: the values.
        title: over the plot.
        percent: whether values are shares, written in percent.
    """
    with new_figure(height=70 + 26 * len(rows)) as figure:
        axes = figure.add_subplot()
        for number, row in enumerate(rows):
            if row.low is not None and row.high is not None:
                axes.plot([row.low, row.high], [number, number], color=color(row.series), linewidth=2.2)
            marker = MARKERS[row.series % len(MARKERS)]
            axes.plot([row.estimate], [number], marker=marker, markersize=6, color=color(row.series))
        axes.set_yticks(range(len(rows)), [shorten(row.name, 28) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.xaxis.set_major_formatter(percent_label if percent else compact_label)
        axes.xaxis.set_major_locator(tick_locator(4))
        axes.grid(visible=False, axis="y")
        axes.set_title(title)
        return to_svg(figure, title)


def draw_bars(values: Sequence[float], names: Sequence[str], *, title: str) -> str:
    """Returns a plot of counts as bars with their numbers, one below the other under their names."""
    with new_figure(height=60 + 17 * len(values)) as figure:
        axes = figure.add_subplot()
        axes.barh(range(len(values)), values, color=color(0), alpha=0.75, height=0.72)
        gap = max(values, default=0) / 80  # between a bar and its number
        for number, value in enumerate(values):
            axes.text(value + gap, number, f"{value:,}", va="center", fontsize=10, color=SENTINELS["soft"])
        axes.set_yticks(range(len(values)), [shorten(name, 22) for name in names])
        axes.set_ylim(len(values) - 0.4, -0.6)
        axes.set_xlim(0, 1.14 * max([*values, 1]))  # room for the number of the longest bar
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.spines["bottom"].set_visible(False)
        axes.set_title(title)
        return to_svg(figure, title)


def draw_shares(rows: Sequence[Span], *, title: str) -> str:
    """Returns a plot of shares as bars from 0, with a thin line over the end of each for its spread."""
    with new_figure(height=70 + 26 * len(rows)) as figure:
        axes = figure.add_subplot()
        axes.barh(range(len(rows)), [max(0, row.estimate) for row in rows], color=color(0), alpha=0.6, height=0.6)
        for number, row in enumerate(rows):
            if row.low is not None and row.high is not None:
                axes.plot([row.low, row.high], [number, number], color=SENTINELS["ink"], linewidth=1.6)
        axes.set_yticks(range(len(rows)), [shorten(row.name, 28) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.xaxis.set_major_formatter(percent_label)
        axes.xaxis.set_major_locator(tick_locator(4))
        axes.axvline(0, color=SENTINELS["line"], linewidth=1)
        axes.grid(visible=False, axis="y")
        axes.set_title(title)
        return to_svg(figure, title)


def draw_reliability(points: Sequence[Span], *, title: str) -> str:
    """Returns a plot of how often predictions are right against how sure they are.

    Args:
        points: the share that is right with its interval; the name is the mean probability, as text.
        title: over the plot.
    """
    with new_figure() as figure:
        axes = figure.add_subplot()
        # On the diagonal, predictions are right as often as they are sure
        axes.plot([0, 1], [0, 1], color=SENTINELS["soft"], linewidth=1, linestyle=DASHES[1])
        probabilities = [float(point.name) for point in points]
        for probability, point in zip(probabilities, points, strict=True):
            if point.low is not None and point.high is not None:
                axes.plot([probability] * 2, [point.low, point.high], color=color(0), linewidth=2.2, alpha=0.6)
        axes.plot(probabilities, [point.estimate for point in points], "o", color=color(0))
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.xaxis.set_major_formatter(percent_label)
        axes.yaxis.set_major_formatter(percent_label)
        axes.set_xlabel("probability of the predicted class")
        axes.set_ylabel("right")
        axes.set_title(title)
        return to_svg(figure, title)


def label_rotation(names: Sequence[str]) -> float:
    """Returns the degrees by which names below a matrix are turned: 0 where all of them fit beside each other."""
    return 90.0 if max(map(len, names)) * len(names) > 30 else 0.0
