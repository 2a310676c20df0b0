"""Fills in the HTML templates of this folder and writes numbers in them. All text is escaped; pages have no script."""

import functools
import html
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn_vit import plots
from cnn_vit.reports.intervals import Interval

if TYPE_CHECKING:
    import jinja2


def render(template: str, **variables: Any) -> str:
    """Returns a page: a template of this folder, filled in with the variables that it names."""
    return template_environment().get_template(template).render(variables)


@functools.cache
def template_environment() -> "jinja2.Environment":
    """Jinja as all pages use it. A variable that a template names and `render` does not give is an error."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent, encoding="utf-8"),
        autoescape=True,  # names of classes and files may hold anything, also HTML
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "percent": percent,
        "interval": interval_text,
        "text": as_text,
        "duration": duration_text,
        "number": number_text,
        "prose": set_code,
    }
    environment.globals |= {"css": plots.CSS, "plot_css": plots.PLOT, "font": plots.FONT}
    return environment


def as_text(value: Any) -> str:
    """Writes any value on one line: "none" for None and for an empty list, a list with commas."""
    if value is None:
        return "none"
    if isinstance(value, tuple | list):
        return ", ".join(map(as_text, value)) or "none"
    return plots.printable(str(value))


def set_code(text: str) -> str:
    """Writes an author's sentences as HTML, in which what stands between backticks is set as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", html.escape(text))


def number_text(value: float | None, digits: int = 4) -> str:
    """Writes a number with this many digits after the point; "none" where it is missing or not finite."""
    if value is None or not math.isfinite(value):
        return "none"
    return f"{value:,.{digits}f}"


def percent(value: float | None, digits: int = 2) -> str:
    """Writes 0.98889 as "98.89 %", and a dash where the value is missing or not finite."""
    if value is None or not math.isfinite(value):
        return "\N{EM DASH}"
    # A space that no line breaks at, so that the sign stays beside its number.
    return f"{100 * value:.{digits}f}\N{NO-BREAK SPACE}%"


def interval_text(interval: Interval, digits: int = 1) -> str:
    """Writes the ends of a proportion's interval in percent, 97.2 to 99.6 with a dash between; "" where it has none."""
    if interval.low is None or interval.high is None:
        return ""
    return f"{100 * interval.low:.{digits}f}\N{EN DASH}{100 * interval.high:.{digits}f} %"


def duration_text(seconds: float) -> str:
    """Writes a duration: "58.3 s", "12 min 5 s", "3 h 20 min"."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 2 * 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole // 60 % 60} min"
