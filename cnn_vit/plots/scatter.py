"""Draws points over an axis of numbers or of names: what a metric was at each value of a setting."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cnn_vit.plots.style import SENTINELS, compact_label, new_figure, percent_label, shorten, tick_locator, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

FOOT_ROOM = 0.12  # share of the height that is left for points without a value
FOOT = 0.04  # where they stand, as a share of the height
ROW_LETTERS = 46  # of all names under an axis, about; more are turned


@dataclass(frozen=True)
class Points:
    """Points of one kind.

    Attributes:
        x: numbers, or places among the names of the axis.
        y: the values; None where there is none: such points stand at the foot of the plot.
        color: of the page, by name.
        marker: matplotlib's letter for their mark.
        size: of a mark, in CSS pixels.
        is_hollow: whether only the rim of a mark is drawn.
    """

    x: Sequence[float]
    y: Sequence[float | None]
    color: str
    marker: str = "o"
    size: float = 5
    is_hollow: bool = False


def draw_scatter(
    groups: Sequence[Points],
    *,
    title: str,
    names: Sequence[str] = (),
    percent: bool = False,
    log_x: bool = False,
    whole_x: bool = False,
    log_y: bool = False,
) -> str:
    """Returns a plot of points.

    Args:
        groups: later ones are drawn over earlier ones.
        title: over the plot.
        names: of the places 0, 1, ... of the horizontal axis, where it has no numbers.
        percent: whether values are shares, written in percent.
        log_x: whether the horizontal axis is logarithmic.
        whole_x: whether its ticks stand at whole numbers alone.
        log_y: whether the vertical axis is logarithmic.
    """
    with new_figure() as figure:
        axes = figure.add_subplot()
        if log_x:
            axes.set_xscale("log")
        if log_y:
            axes.set_yscale("log")
        has_feet, has_heights = False, False
        for group in groups:
            pairs = list(zip(group.x, group.y, strict=True))
            feet = [x for x, y in pairs if y is None]
            if feet:
                draw_points(axes, group, feet, [FOOT] * len(feet), transform=axes.get_xaxis_transform())
                has_feet = True
            if len(feet) < len(pairs):
                draw_points(axes, group, [x for x, y in pairs if y is not None], [y for y in group.y if y is not None])
                has_heights = True
        if not has_heights:
            axes.set_yticks([])
        elif log_y:
            mark_powers(axes.yaxis)
        else:
            axes.yaxis.set_major_formatter(percent_label if percent else compact_label)
            axes.yaxis.set_major_locator(tick_locator(6))
        if has_feet and has_heights:
            leave_foot_room(axes, log_y=log_y)
        name_places(axes, names, log_x=log_x, whole_x=whole_x)
        axes.set_title(title)
        return to_svg(figure, title)


def draw_points(axes: "Axes", group: Points, x: Sequence[float], y: Sequence[float], **options: object) -> None:
    """Draws marks of the look of a group."""
    ink = SENTINELS[group.color]
    axes.plot(
        x,
        y,
        color=ink,
        marker=group.marker,
        markersize=group.size,
        linestyle="",
        markerfacecolor="none" if group.is_hollow else ink,
        markeredgewidth=1.2 if group.is_hollow or group.marker == "x" else 0,
        **options,  # type: ignore[arg-type]
    )


def mark_powers(axis: "Axis") -> None:
    """Gives a logarithmic axis ticks at powers of ten; at twice and five times these as well, where it spans few."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,), numticks=7))
    axis.set_major_formatter(compact_label)
    axis.set_minor_formatter(NullFormatter())


def leave_foot_room(axes: "Axes", *, log_y: bool) -> None:
    """Moves the lower end of the vertical axis down, so that points without a value stand below all others."""
    low, high = axes.get_ylim()
    if log_y:
        axes.set_ylim(low * (low / high) ** FOOT_ROOM, high)
    else:
        axes.set_ylim(low - FOOT_ROOM * (high - low), high)


def name_places(axes: "Axes", names: Sequence[str], *, log_x: bool, whole_x: bool) -> None:
    """Writes names under the horizontal axis, or numbers where there are none."""
    if names:
        short_names = [shorten(name) for name in names]
        is_turned = sum(map(len, short_names)) + 2 * len(names) > ROW_LETTERS
        axes.set_xticks(range(len(names)), short_names, rotation=90 if is_turned else 0)
        axes.set_xlim(-0.5, len(names) - 0.5)
    elif log_x:
        mark_powers(axes.xaxis)
    else:
        axes.xaxis.set_major_formatter(compact_label)
        axes.xaxis.set_major_locator(tick_locator(5, whole=whole_x))
