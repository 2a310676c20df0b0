"""Pages: templates of this folder and what they are written with. All text is escaped; a page needs no script."""

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnn_vit import plots
from cnn_vit.reports.intervals import Interval


def render(template: str, facts: Mapping[str, Any]) -> str:
    """A page: a template of this folder, filled in."""
    return environment().get_template(template).render(facts)


@functools.cache
def environment() -> Any:
    """Jinja as all pages use it; what a template names and nobody gave is an error."""
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent, encoding="utf-8"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {
        "share": percent,
        "interval": interval_text,
        "plain": as_text,
        "seconds": duration_text,
        "number": number_text,
    }
    made.globals |= {"css": plots.CSS, "plot_css": plots.PLOT, "letters": plots.FONT}
    return made


def as_text(value: Any) -> str:
    """Anything as one line of text: none for None, a list with commas."""
    if isinstance(value, tuple | list):
        return ", ".join(map(as_text, value)) or "none"
    return "none" if value is None else plots.printable(str(value))


def number_text(value: float | None, digits: int = 4) -> str:
    """A number with so many digits behind the point; "none" where it is not finite."""
    return f"{value:,.{digits}f}" if value is not None and math.isfinite(value) else "none"


def percent(value: float | None, digits: int = 2) -> str:
    """0.98889 as "98.89 %"."""
    return (
        f"{100 * value:.{digits}f}\N{NO-BREAK SPACE}%" if value is not None and math.isfinite(value) else "\N{EM DASH}"
    )


def interval_text(found: Interval, digits: int = 1) -> str:
    """The bounds of an interval of a share, 97.2 to 99.6 with a dash between; "" where there is none."""
    if found.low is None or found.high is None:
        return ""
    return f"{100 * found.low:.{digits}f}\N{EN DASH}{100 * found.high:.{digits}f} %"


def duration_text(value: float) -> str:
    """A duration: "58.3 s", "12 min 5 s", "3 h 20 min"."""
    if value < 100:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 2 * 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole // 60 % 60} min"
