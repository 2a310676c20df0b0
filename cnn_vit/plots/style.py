"""Colors, dashes, letters and numbers of every plot, and the way from a figure of matplotlib to the text of an SVG."""

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

COLORS = {  # by name: on white, on black
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
}
SERIES = 6
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
MARKERS = "osD^vP"
SENTINELS = {name: f"#a1b2{number:02x}" for number, name in enumerate(COLORS, 0xC0)}  # drawn with, then replaced
WIDTH, HEIGHT = 360, 230  # of a plot, in CSS pixels: a phone's width, so that text keeps its size there
GAP = 20  # pixels between and around plots side by side
POINTS = 400  # of a curve, at most
NUMBERED = 20  # classes, at most, of a matrix with names and numbers
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
PLOT = "svg.plot { width: 100%; height: auto; stroke-linejoin: round; }"
SHADE = 0.5  # of the darkest cell: ink stays readable on it
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


CSS = "\n".join(
    [
        ":root { color-scheme: light dark; "
        + " ".join(f"--{name}: {light};" for name, (light, _) in COLORS.items())
        + " }",
        "@media (prefers-color-scheme: dark) { :root { "
        + " ".join(f"--{name}: {dark};" for name, (_, dark) in COLORS.items())
        + " } }",
    ]
)
"""The variables, for a page or a drawing."""


def color(series: int) -> str:
    """The color of a series; after SERIES they come again, with another dash."""
    return SENTINELS[f"series{series % SERIES}"]


def rgb(color: str) -> tuple[float, float, float]:
    """ "#0072b2" as shares of red, green and blue."""
    return tuple(int(color[at : at + 2], 16) / 255 for at in (1, 3, 5))  # type: ignore[return-value]


@contextlib.contextmanager
def new_figure(*, width: float = WIDTH, height: float = HEIGHT) -> Iterator["Figure"]:
    """A figure of so many CSS pixels in the house's look, whatever the user's settings of matplotlib."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # a cache folder that cannot be written is no news here
    import matplotlib
    from matplotlib.figure import Figure

    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.simplefilter("ignore")  # of letters that its own font lacks: the reader's has them
        matplotlib.rcParams.update(matplotlib.rcParamsDefault)
        matplotlib.rcParams.update(STYLE)
        yield Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")


def to_svg(figure: "Figure", title: str) -> str:
    """A figure as SVG to stand in a page, in its colors and letters: as wide as there is room, at most as drawn.

    The title is also what a screen reader says.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue()
    text = text[text.index("<svg ") :]
    for name, sentinel in SENTINELS.items():
        text = text.replace(sentinel, f"var(--{name})")
    for found, instead in CLEANED:
        text = re.sub(found, instead, text, flags=re.DOTALL)
    used = set(re.findall(r"#([\w-]+)", text))
    text = re.sub(r' id="([\w-]+)"', lambda found: found[0] if found[1] in used else "", text)
    width, height = (float(side) * 72 for side in figure.get_size_inches())
    head = f'<svg class="plot" role="img" aria-label="{html.escape(title)}" viewBox="0 0 {width:g} {height:g}"'
    return re.sub(r"<svg [^>]*>", f'{head} style="max-width: {width:g}px" {NAMESPACES}>', text, count=1).strip()


NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
CLEANED = (
    (r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->|<defs>\s*</defs>", ""),
    (r" ?font-family: [^;\"]*;?", ""),  # the page's
    (r"(?<=[ \"(-])(\d+\.\d\d)\d+(?=[ \n\")])", r"\1"),  # of places, hundredths of a pixel are enough
    (r"\n\s*", "\n"),
)


def standalone(text: str) -> str:
    """An SVG of `to_svg` as a file of its own, with colors, letters and background, light or dark as the reader's are."""
    style = f"<style>{CSS} svg {{ background: var(--paper); font-family: {FONT}; }} {PLOT}</style>"
    width, height = re.findall(r'viewBox="0 0 (\S+) (\S+)"', text)[0]
    sized = re.sub(r"<svg ", f'<svg width="{width}" height="{height}" ', text, count=1)
    return re.sub(r"(<svg [^>]*>)", lambda found: f"{found[1]}\n{style}", sized, count=1) + "\n"


def panel(address: str, title: str) -> str:
    """An image by its data address as a plot as high as the others, under its title."""
    top = 24  # pixels of the title
    head = f'<svg class="plot" role="img" aria-label="{html.escape(title)}" viewBox="0 0 {HEIGHT} {HEIGHT + top}"'
    name = f'<text style="font-size: 12px; font-weight: 700; fill: var(--ink)" x="0" y="13">{html.escape(title)}</text>'
    size = f'width="{HEIGHT}" height="{HEIGHT}" style="image-rendering: pixelated"'
    shown = f'<image xlink:href="{address}" y="{top}" {size}/>'
    return f'{head} style="max-width: {HEIGHT}px" {NAMESPACES}>\n{name}\n{shown}\n</svg>'


def side_by_side(plots: Sequence[str], title: str, *, high: float = 300) -> str:
    """Plots side by side as one, each so many pixels high."""
    found, left = [], 0.0
    for plot in plots:
        width, height = map(float, re.findall(r'viewBox="0 0 (\S+) (\S+)"', plot)[0])
        width *= high / height
        place = f'<svg x="{GAP + left:g}" y="{GAP}" width="{width:g}" height="{high:g}" '
        found.append(re.sub(r'<svg (.*?) style="max-width[^"]*"', rf"{place}\1", plot, count=1))
        left += width + GAP
    size = f"{left + GAP:g} {high + 2 * GAP:g}"
    head = f'<svg class="plot" role="img" aria-label="{html.escape(title)}" viewBox="0 0 {size}"'
    return "\n".join([f'{head} style="max-width: {left + GAP:g}px" {NAMESPACES}>', *found, "</svg>"])


# Letters and numbers --------------------------------------------------------------------------------------------------


def printable(text: str) -> str:
    """A text on one line, with whatever would steer a terminal or turn the direction of reading written out."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def shorten(text: str, most: int = 14) -> str:
    """A name that fits beside a plot."""
    return text if len(text) <= most else f"{text[: most - 1]}\u2026"


def percent_label(value: float, _: Any = None) -> str:
    """0.9875 as "98.75 %", with as many digits as it has, three behind the point at most."""
    return f"{round(100 * value, 3):g} %"


def compact_label(value: float, _: Any = None) -> str:
    """A number on an axis: 25,000 as "25k", 0.0001 as "1e-4"."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):.4g}{letter}"
    return re.sub(r"e([+-])0*", lambda found: "e" + found[1].strip("+"), f"{value:.4g}")


def tick_locator(count: int, *, whole: bool = False) -> Any:
    """Places of at most so many numbers on an axis, at round values; at whole ones where things are counted."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(count, steps=[1, 2, 2.5, 5, 10], integer=whole)


def downsample(x: Sequence[float], y: Sequence[float | None], most: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """A curve of at most so many values: means of so many neighbors each, gaps left out, at the mean of their steps."""
    steps, values = np.asarray(x, float), np.array([np.nan if value is None else value for value in y], float)
    times = -(-len(steps) // most)
    if times <= 1:
        return steps, values
    starts = np.arange(0, len(steps), times)
    real = np.isfinite(values)
    counts = np.add.reduceat(real.astype(float), starts)
    sums = np.add.reduceat(np.where(real, values, 0), starts)
    lengths = np.diff(np.append(starts, len(steps)))
    means = np.divide(sums, counts, out=np.full(len(starts), np.nan), where=counts > 0)
    return np.add.reduceat(steps, starts) / lengths, means
