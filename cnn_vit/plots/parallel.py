"""Draws parallel coordinates as SVG: an axis for each swept setting, and a line through all axes for each point tried.

There are two forms: axes beside each other for a wide page, and axes below each other for a phone.
"""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from cnn_vit.plots.style import NAMESPACES, WIDTH, compact_label, percent_label, printable, shorten, tick_locator

SPACING = 150  # CSS pixels between axes beside each other, at most
WIDEST, SIDE_HEIGHT = 1120, 400  # of axes beside each other
ROW_HEIGHT = 76  # of axes below each other
LETTER = 8  # width of a bold letter of 12 CSS pixels, about
MOST_TICKS = 12  # of an axis
SMALL = 6.2  # width of a letter of 10.5 CSS pixels, about
FEW_LINES, MANY_LINES = 30, 300  # up to and from which lines are as opaque, and as transparent, as they get

FAILED = "failed"
PRUNED = "pruned"
COMPLETE = "complete"
BEST = "best"


@dataclass(frozen=True)
class ParallelAxis:
    """An axis of parallel coordinates.

    Attributes:
        name: of what it measures; a part before the last point is written smaller above it.
        ticks: places from 0 to 1 with their texts.
        foot: what a line has that crosses below the axis: "not active", "failed"; "" where no line does.
    """

    name: str
    ticks: tuple[tuple[float, str], ...]
    foot: str = ""


@dataclass(frozen=True)
class ParallelLine:
    """A line through all axes.

    Attributes:
        title: what is shown where a pointer rests on the line.
        places: from 0 to 1 on each axis; None where it crosses at the foot.
        kind: best, complete, pruned or failed.
        level: of a complete one, 0 for the worst fifth to 4 for the best.
    """

    title: str
    places: tuple[float | None, ...]
    kind: str = COMPLETE
    level: int = 0


def draw_parallel(
    axes: Sequence[ParallelAxis], lines: Sequence[ParallelLine], *, title: str, is_stacked: bool = False
) -> str:
    """Returns parallel coordinates as SVG; of the lines, later ones are drawn over earlier ones.

    Args:
        axes: at least two.
        lines: those that should be seen best last.
        title: what a screen reader says.
        is_stacked: whether the axes lie below each other, for a narrow page.
    """
    layout = StackedLayout(len(axes)) if is_stacked else SideLayout(len(axes))
    head = f'<svg class="plot parallel" role="img" aria-label="{html.escape(title)}"'
    parts = [
        f'{head} viewBox="0 0 {layout.width:g} {layout.height:g}" style="max-width: {layout.width:g}px" {NAMESPACES}>'
    ]
    opacity = choose_opacity(len(lines))
    for line in lines:
        parts.append(draw_path(layout, line, opacity))
    for number, axis in enumerate(axes):
        parts += draw_axis(layout, number, axis)
    parts.append("</svg>")
    return "\n".join(parts)


# Where things lie -----------------------------------------------------------------------------------------------------


class SideLayout:
    """Axes beside each other, their high ends above.

    Args:
        count: of the axes.

    Attributes:
        count: of the axes.
        spacing: CSS pixels between two axes.
        width: of the whole.
        height: of the whole.
    """

    LEFT, RIGHT, TOP, BOTTOM = 64, 60, 44, 24  # CSS pixels around the axes
    FOOT = -0.13  # where a line crosses an axis on which it has no value

    def __init__(self, count: int) -> None:
        self.count = count
        self.spacing = min(2 * SPACING, (WIDEST - self.LEFT - self.RIGHT) / (count - 1))
        self.width = self.LEFT + self.RIGHT + self.spacing * (count - 1)
        self.height = SIDE_HEIGHT

    def point(self, axis: int, place: float) -> tuple[float, float]:
        """Returns the point of an axis at a place from 0 to 1, or at the foot."""
        high = self.height - self.TOP - self.BOTTOM
        return self.LEFT + self.spacing * axis, self.TOP + high * (1 - place) / (1 - self.FOOT)

    def name_parts(self, axis: int, name: str) -> list[str]:
        """Returns the name over an axis as SVG: its section smaller, above its last part."""
        section, _, last = name.rpartition(".")
        letters = int(0.94 * self.spacing / LETTER)
        middle, _ = self.point(axis, 1)
        half = LETTER / 2 * min(letters, max(len(last), len(section)))
        x = min(max(middle, half), self.width - half)
        parts = []
        if section:
            parts.append(text_at(x, 14, shorten(f"{section}.", letters), anchor="middle", size=10))
        parts.append(text_at(x, 28, shorten(last, letters), anchor="middle", color="ink", bold=True, title=name))
        return parts

    def tick_part(self, axis: int, place: float, text: str) -> str:
        """Returns the text of a tick, left of its axis, or right of the last one."""
        x, y = self.point(axis, place)
        if axis == self.count - 1:
            return text_at(x + 5, y + 3.5, shorten(text, 10), size=10.5, title=text)
        return text_at(x - 5, y + 3.5, shorten(text, 10 if axis == 0 else 18), anchor="end", size=10.5, title=text)


class StackedLayout:
    """Axes below each other, their high ends to the right.

    Args:
        count: of the axes.

    Attributes:
        count: of the axes.
        width: of the whole.
        height: of the whole.
    """

    LEFT, RIGHT, TOP = 8, 22, 24  # CSS pixels around the axes
    LETTERS = 12  # of a tick
    FOOT = -0.22  # where a line crosses an axis on which it has no value: left of it is room for a word

    def __init__(self, count: int) -> None:
        self.count = count
        self.width = WIDTH
        self.height = self.TOP + ROW_HEIGHT * (count - 1) + 22

    def point(self, axis: int, place: float) -> tuple[float, float]:
        """Returns the point of an axis at a place from 0 to 1, or at the foot."""
        wide = self.width - self.LEFT - self.RIGHT
        return self.LEFT + wide * (place - self.FOOT) / (1 - self.FOOT), self.TOP + ROW_HEIGHT * axis

    def name_parts(self, axis: int, name: str) -> list[str]:
        """Returns the name above an axis as SVG."""
        _, y = self.point(axis, 0)
        letters = int((self.width - self.LEFT) / LETTER)
        return [text_at(self.LEFT, y - 8, shorten(name, letters), color="ink", bold=True, size=11, title=name)]

    def tick_part(self, axis: int, place: float, text: str) -> str:
        """Returns the text of a tick, below its axis."""
        x, y = self.point(axis, place)
        anchor = "middle"
        if place > 0.93:
            x, anchor = self.width, "end"
        if place < 0:
            x, anchor = 0, "start"
        return text_at(x, y + 14, shorten(text, self.LETTERS), anchor=anchor, size=10.5, title=text)


# What is drawn --------------------------------------------------------------------------------------------------------


def choose_opacity(count: int) -> float:
    """Returns the opacity of so many lines: from 0.9 of few down to 0.3 of many."""
    share = min(1.0, max(0.0, (count - FEW_LINES) / (MANY_LINES - FEW_LINES)))
    return round(0.9 - 0.6 * share, 2)


def draw_path(layout: SideLayout | StackedLayout, line: ParallelLine, opacity: float) -> str:
    """Returns a line with its title."""
    points = []
    for axis, place in enumerate(line.places):
        x, y = layout.point(axis, layout.FOOT if place is None else place)
        points.append(f"{x:.1f} {y:.1f}")
    styles = {
        FAILED: f"stroke: var(--series3); stroke-width: 1.2; stroke-dasharray: 1.5 3; opacity: {max(opacity, 0.7)}",
        PRUNED: f"stroke: var(--level1); stroke-width: 1; stroke-dasharray: 6 3; opacity: {opacity}",
        COMPLETE: f"stroke: var(--level{line.level}); stroke-width: 1.4; opacity: {opacity}",
        BEST: "stroke: var(--series1); stroke-width: 3",
    }
    title = html.escape(printable(line.title))
    return f'<path d="M{" L".join(points)}" style="fill: none; {styles[line.kind]}"><title>{title}</title></path>'


def draw_axis(layout: SideLayout | StackedLayout, number: int, axis: ParallelAxis) -> list[str]:
    """Returns an axis with its name, ticks and foot, in the order in which they are drawn."""
    (low_x, low_y), (high_x, high_y) = layout.point(number, 0), layout.point(number, 1)
    parts = [
        f'<path d="M{low_x:.1f} {low_y:.1f} L{high_x:.1f} {high_y:.1f}" '
        'style="fill: none; stroke: var(--soft); stroke-width: 1.5"/>'
    ]
    parts += layout.name_parts(number, printable(axis.name))
    for place, text in thin_ticks(axis.ticks, layout):
        parts.append(layout.tick_part(number, place, printable(text)))
    if axis.foot:
        parts.append(layout.tick_part(number, layout.FOOT, axis.foot))
    return parts


def thin_ticks(ticks: Sequence[tuple[float, str]], layout: SideLayout | StackedLayout) -> Sequence[tuple[float, str]]:
    """Returns every tick, or every second one and so on, so that they have room."""
    if not ticks:
        return ticks
    most = MOST_TICKS
    if isinstance(layout, StackedLayout):
        letters = 1 + max(min(len(text), layout.LETTERS) for _, text in ticks)
        axis_width = layout.point(0, 1)[0] - layout.point(0, 0)[0]
        most = max(1, int(axis_width / (SMALL * letters)))
    step = -(-len(ticks) // most)
    return ticks[::step]


def text_at(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    size: float = 12,
    color: str = "soft",
    bold: bool = False,
    title: str = "",
) -> str:
    """Returns letters at a place as SVG, with a rim in the color of the paper, so that they stand out from lines.

    Args:
        x: in CSS pixels.
        y: of the letters' foot.
        text: the letters.
        anchor: which end of the text stands at x: start, middle or end.
        size: in CSS pixels.
        color: of the page, by name.
        bold: whether they are bold.
        title: the whole text, where a pointer shows it because it was cut.
    """
    weight = " font-weight: 700;" if bold else ""
    rim = "paint-order: stroke; stroke: var(--paper); stroke-width: 3px; stroke-linejoin: round;"
    tip = f"<title>{html.escape(title)}</title>" if title and title != text else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
        f'style="font-size: {size:g}px;{weight} fill: var(--{color}); {rim}">{html.escape(text)}{tip}</text>'
    )


# Ticks of an axis of numbers ------------------------------------------------------------------------------------------


def number_ticks(
    low: float, high: float, *, log: bool = False, whole: bool = False, percent: bool = False, is_flipped: bool = False
) -> tuple[tuple[float, str], ...]:
    """Returns the ticks of an axis of numbers: at round ones, or at powers of ten where it is logarithmic.

    Args:
        low: number at the low end.
        high: number at the high end, or above it.
        log: whether the axis is logarithmic.
        whole: whether ticks stand at whole numbers alone.
        percent: whether numbers are shares, written in percent.
        is_flipped: whether the low number stands at the high end.
    """
    numbers = round_numbers(low, high, log=log, whole=whole)
    ticks = []
    for number in numbers:
        place = find_place(number, low, high, log=log)
        text = percent_label(number) if percent else compact_label(number)
        ticks.append((1 - place if is_flipped else place, text))
    return tuple(ticks)


def round_numbers(low: float, high: float, *, log: bool, whole: bool) -> list[float]:
    """Returns round numbers between two ends; the ends themselves where there are fewer than two."""
    from matplotlib.ticker import LogLocator

    if high <= low:
        return [low]
    locator = tick_locator(6, whole=whole)
    if log:
        is_short = math.log10(high / low) < 2  # powers of ten alone would be too few
        locator = LogLocator(subs=(1, 2, 5) if is_short else (1,), numticks=9)
    numbers = []
    for number in locator.tick_values(low, high):
        if low * (1 - 1e-9 if low > 0 else 1 + 1e-9) <= number <= high + 1e-9 * abs(high):
            numbers.append(float(number))
    return numbers if len(numbers) > 1 else sorted({low, high})


def find_place(number: float, low: float, high: float, *, log: bool = False) -> float:
    """Returns where a number lies between two ends, 0 at the low and 1 at the high one, and at an end if outside."""
    if high <= low:
        return 0.5
    if log:
        number, low, high = math.log(max(number, low)), math.log(low), math.log(high)
    return min(1.0, max(0.0, (number - low) / (high - low)))
