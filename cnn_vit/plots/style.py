"""Gives every plot its colors, dashes, letters and numbers, and turns matplotlib's figures into the text of an SVG."""

import contextlib
import html
import io
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = {  # name -> color on white, color on black
    "ink": ("#1c1f23", "#e8eaed"),
    "soft": ("#59616a", "#a3abb5"),
    "line": ("#d8dce1", "#3a4048"),
    "paper": ("#ffffff", "#14171b"),
    "series0": ("#0063d1", "#4a9df0"),  # blue
    "series1": ("#9c3600", "#e8692a"),  # rust, orange
    "series2": ("#009e73", "#5fe3b0"),  # green
    "series3": ("#c2469b", "#c966a6"),  # magenta
    "series4": ("#949000", "#f5d033"),  # olive, yellow
    "series5": ("#3d4248", "#f2f3f5"),  # nearly ink
    "level0": ("#c8d0d9", "#3a434e"),  # levels of blue, each farther from the paper than the one before
    "level1": ("#86abd8", "#3a648f"),
    "level2": ("#4380cb", "#4589cc"),
    "level3": ("#0b52a4", "#86bff4"),
    "level4": ("#05224a", "#e4f1ff"),
}
LEVELS = 5  # colors for more and less of one thing, level0 to level4
SERIES = 6  # colors of series; the next ones have them again with another dash
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
MARKERS = "osD^vP"
# matplotlib takes no CSS variables: it draws with a color of its own for each name, which `to_svg` then replaces
SENTINELS = {name: f"#a1b2{number:02x}" for number, name in enumerate(COLORS, 0xC0)}
WIDTH, HEIGHT = 360, 230  # of a plot, in CSS pixels: a phone's width, so that text keeps its size there
PANEL_TOP = 24  # pixels of the title over an image
GAP = 20  # pixels between and around plots side by side
POINTS = 400  # of a curve, at most
NUMBERED = 20  # classes, at most, of a matrix with names and numbers
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
PLOT = "svg.plot { width: 100%; height: auto; stroke-linejoin: round; }"
SHADE = 0.5  # opacity of the darkest cell of a matrix: ink stays readable on it
STYLE: Any = {
    "axes.edgecolor": SENTINELS["line"],
    "axes.grid": True,
    "axes.labelcolor": SENTINELS["soft"],
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": SENTINELS["ink"],
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 11,
    "grid.color": SENTINELS["line"],
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "svg.hashsalt": "cnn_vit",
    "text.color": SENTINELS["ink"],
    "text.parse_math": False,
    "xtick.color": SENTINELS["line"],
    "xtick.labelcolor": SENTINELS["soft"],
    "ytick.color": SENTINELS["line"],
    "ytick.labelcolor": SENTINELS["soft"],
}


def css_variables(number: int) -> str:
    """Returns the colors as CSS variables: number 0 of each pair for light pages, 1 for dark ones."""
    return " ".join(f"--{name}: {pair[number]};" for name, pair in COLORS.items())


CSS = f""":root {{ color-scheme: light dark; {css_variables(0)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {css_variables(1)} }} }}"""
"""The variables, for a page or a drawing."""


def color(series: int) -> str:
    """Returns the color of a series; after SERIES they come again, with another dash."""
    return SENTINELS[f"series{series % SERIES}"]


def rgb(color: str) -> tuple[float, float, float]:
    """Returns a color such as "#0072b2" as shares of red, green and blue."""
    red, green, blue = (int(color[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return red, green, blue


@contextlib.contextmanager
def new_figure(*, width: float = WIDTH, height: float = HEIGHT) -> Iterator["Figure"]:
    """Yields a figure of so many CSS pixels in the house's look, whatever the user's settings of matplotlib."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # a cache folder that cannot be written does not matter
    import matplotlib
    from matplotlib.figure import Figure

    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.simplefilter("ignore")  # about letters that matplotlib's own font lacks: the reader's has them
        matplotlib.rcParams.update(matplotlib.rcParamsDefault)
        matplotlib.rcParams.update(STYLE)
        # At 72 pixels to the inch, a CSS pixel is a point, in which matplotlib measures letters and lines
        yield Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")


def to_svg(figure: "Figure", title: str) -> str:
    """Returns a figure as SVG to stand in a page, in the page's colors and letters.

    It is as wide as its place, but no wider than drawn. The title is also what a screen reader says.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    without_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    FigureCanvasSVG(figure).print_svg(buffer, metadata=without_metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg ") :]
    for name, sentinel in SENTINELS.items():
        text = text.replace(sentinel, f"var(--{name})")
    for pattern, replacement in CLEANED:
        text = re.sub(pattern, replacement, text, flags=re.DOTALL)
    text = remove_unused_ids(text)
    width, height = (float(inches) * 72 for inches in figure.get_size_inches())
    head = f'<svg class="plot" role="img" aria-label="{html.escape(title)}" viewBox="0 0 {width:g} {height:g}"'
    return re.sub(r"<svg [^>]*>", f'{head} style="max-width: {width:g}px" {NAMESPACES}>', text, count=1).strip()


NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
CLEANED = (  # pattern -> replacement
    (r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->|<defs>\s*</defs>", ""),
    (r" ?font-family: [^;\"]*;?", ""),  # the page says which
    (r"(?<=[ \"(-])(\d+\.\d\d)\d+(?=[ \n\")])", r"\1"),  # hundredths of a pixel are enough
    (r"\n\s*", "\n"),
)


def remove_unused_ids(text: str) -> str:
    """Returns an SVG without the ids that nothing in it refers to."""
    used = set(re.findall(r"#([\w-]+)", text))

    def keep_used(match: re.Match) -> str:
        return match[0] if match[1] in used else ""

    return re.sub(r' id="([\w-]+)"', keep_used, text)


def view_size(svg: str) -> tuple[str, str]:
    """Returns the width and the height of an SVG as its text says them."""
    width, height = re.findall(r'viewBox="0 0 (\S+) (\S+)"', svg)[0]
    return width, height


def standalone(text: str) -> str:
    """Returns an SVG of `to_svg` as a file that needs no page.

    It brings colors, letters and background, light or dark as the reader's are.
    """
    style = f"<style>{CSS} svg {{ background: var(--paper); font-family: {FONT}; }} {PLOT}</style>"
    width, height = view_size(text)
    sized = re.sub(r"<svg ", f'<svg width="{width}" height="{height}" ', text, count=1)
    return re.sub(r"(<svg [^>]*>)", lambda match: f"{match[1]}\n{style}", sized, count=1) + "\n"


def draw_panel(address: str, title: str) -> str:
    """Returns an image, by its data address, as a plot as high as the others, under its title."""
    bottom = PANEL_TOP + HEIGHT
    head = f'<svg class="plot" role="img" aria-label="{html.escape(title)}" viewBox="0 0 {HEIGHT} {bottom}"'
    name = f'<text style="font-size: 12px; font-weight: 700; fill: var(--ink)" x="0" y="13">{html.escape(title)}</text>'
    size = f'width="{HEIGHT}" height="{HEIGHT}" style="image-rendering: pixelated"'
    image = f'<image xlink:href="{address}" y="{PANEL_TOP}" {size}/>'
    return f'{head} style="max-width: {HEIGHT}px" {NAMESPACES}>\n{name}\n{image}\n</svg>'


def side_by_side(plots: Sequence[str], title: str, *, high: float = 300) -> str:
    """Returns plots side by side as one plot, each so many pixels high."""
    placed_plots: list[str] = []
    left = 0.0  # of the next plot
    for plot in plots:
        width, height = map(float, view_size(plot))
        width *= high / height
        # A plot inside another has a place and a size instead of a largest width
        place = f'<svg x="{GAP + left:g}" y="{GAP}" width="{width:g}" height="{high:g}" '
        placed_plots.append(re.sub(r'<svg (.*?) style="max-width[^"]*"', rf"{place}\1", plot, count=1))
        left += width + GAP
    size = f"{left + GAP:g} {high + 2 * GAP:g}"
    head = f'<svg class="plot" role="img" aria-label="{html.escape(title)}" viewBox="0 0 {size}"'
    return "\n".join([f'{head} style="max-width: {left + GAP:g}px" {NAMESPACES}>', *placed_plots, "</svg>"])


# Letters and numbers --------------------------------------------------------------------------------------------------


def printable(text: str) -> str:
    """Returns a text on one line; what would steer a terminal or turn the direction of reading is escaped."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def shorten(text: str, most: int = 14) -> str:
    """Returns a name that fits beside a plot: of at most so many letters, cut with an ellipsis."""
    return text if len(text) <= most else f"{text[: most - 1]}\u2026"


def percent_label(value: float, _: Any = None) -> str:
    """Returns a share in percent, 0.9875 as "98.75 %", with as many digits as it has, three decimals at most."""
    return f"{round(100 * value, 3):g} %"


def compact_label(value: float, _: Any = None) -> str:
    """Returns a number for an axis: 25,000 as "25k", 0.0001 as "1e-4"."""
    # 9000 is as short as 9k, so that thousands begin at ten thousand
    for least, unit, letter in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= least:
            return f"{value / unit:.4g}{letter}"
    return re.sub(r"e([+-])0*", lambda match: "e" + match[1].strip("+"), f"{value:.4g}")


def tick_locator(count: int, *, whole: bool = False) -> Any:
    """Returns matplotlib's rule for ticks: at most so many on an axis, at round values; at whole ones for counts."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(count, steps=[1, 2, 2.5, 5, 10], integer=whole)


def downsample(x: Sequence[float], y: Sequence[float | None], most: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Returns a curve of at most so many points: means of as many neighbors each, at the mean of their steps.

    Gaps, None or nan, are left out of a mean; a mean of gaps alone is nan.
    """
    steps = np.asarray(x, float)
    values = np.array([np.nan if value is None else value for value in y], float)
    neighbors = -(-len(steps) // most)
    if neighbors <= 1:
        return steps, values
    starts = np.arange(0, len(steps), neighbors)
    is_real = np.isfinite(values)
    counts = np.add.reduceat(is_real.astype(float), starts)
    sums = np.add.reduceat(np.where(is_real, values, 0), starts)
    means = np.divide(sums, counts, out=np.full(len(starts), np.nan), where=counts > 0)
    lengths = np.diff(np.append(starts, len(steps)))  # the last mean may be of fewer
    return np.add.reduceat(steps, starts) / lengths, means
