"""Reads the rows of an experiment: the numbers that match, one a seed, and their mean as text."""

from collections.abc import Mapping, Sequence
from typing import Any

from cnn_vit.reports.evidence import number
from cnn_vit.reports.intervals import student_interval

ROUNDING = 1e-6  # what float32 leaves of a relative error of 0


def values(rows: Sequence[Mapping[str, Any]], key: str, **match: Any) -> list[Any]:
    """Returns what the rows that match hold under a key, in their order, which is that of the seeds."""
    return [row[key] for row in rows if all(row.get(name) == value for name, value in match.items())]


def mean_text(numbers: Sequence[float], digits: int = 2, *, scale: float = 1.0, unit: str = "") -> str:
    """Returns the mean and half the width of its 95 % interval, "1.22 +- 0.05 s"; "" where there are no numbers.

    Of a single number there is no interval, and the number stands alone.

    Args:
        numbers: one a seed.
        digits: behind the point.
        scale: what the numbers are multiplied by.
        unit: what stands behind, with a space where one belongs.
    """
    if not len(numbers):
        return ""
    estimate, low, high = student_interval([float(value) for value in numbers])
    mean = f"{scale * estimate:.{digits}f}"
    if low is None or high is None:
        return f"{mean}{unit}"  # a single seed says nothing of the others
    return f"{mean} \u00b1 {scale * (high - low) / 2:.{digits}f}{unit}"


def percent_text(shares: Sequence[float]) -> str:
    """Returns the mean of shares and half the width of its interval in percent; "" where there are none."""
    return mean_text(shares, 1, scale=100, unit=" %")


def error_text(errors: Sequence[float], *, rounding: float = ROUNDING) -> str:
    """Returns the mean of relative errors as `mean_text` does, and where all are 0 but for rounding the mean alone."""
    if not len(errors) or max(map(abs, errors)) > rounding:
        return mean_text(errors, 3)
    return number(sum(errors) / len(errors)) if any(errors) else "0"
