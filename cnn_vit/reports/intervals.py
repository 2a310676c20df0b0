"""Intervals of 95 %: of a share, of a mean over seeds, and of the difference between two runs or two groups of runs."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Z = 1.959963984540054  # 97.5 % of a normal distribution lies below
LEVEL = 0.975


class Interval(NamedTuple):
    """A value and where it lies with 95 %; low and high are None where nothing can be said."""

    estimate: float
    low: float | None
    high: float | None


class Difference(NamedTuple):
    """What another has more than one.

    Attributes:
        interval: of the difference.
        how: paired over seeds, Welch, or paired over images; "" where nothing can be said.
    """

    interval: Interval
    how: str

    @property
    def resolved(self) -> bool:
        """Whether the interval leaves out zero."""
        low, high = self.interval.low, self.interval.high
        return low is not None and high is not None and not low <= 0 <= high


def wilson(right: int, n: int) -> Interval:
    """A share of n by the score interval, which stays in 0..1 and holds near its ends.

    Source: Wilson, JASA 22 (1927); recommended by Brown, Cai and DasGupta, Statistical Science 16 (2001).
    """
    if not n:
        return Interval(math.nan, None, None)
    share = right / n
    middle = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    low, high = middle - half, middle + half
    return Interval(share, low if right else 0.0, high if right < n else 1.0)  # exact at the ends, without rounding


def student_interval(values: Sequence[float]) -> Interval:
    """Student's interval of a mean; none of fewer than two values."""
    middle = statistics.fmean(values)
    if len(values) < 2:
        return Interval(middle, None, None)
    half = student_quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(middle, middle - half, middle + half)


def student_quantile(freedom: float) -> float:
    """97.5 % of Student's distribution of so many degrees of freedom, which need not be whole, lies below."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, LEVEL))


def difference_of_runs(one: dict[int, float], other: dict[int, float]) -> Difference:
    """Of two groups of runs, each a value by its seed: paired where the seeds are the same, else Welch's.

    Source: Welch, Biometrika 34 (1947), with Satterthwaite's degrees of freedom.
    """
    if len(one) > 1 and one.keys() == other.keys():
        return Difference(student_interval([other[seed] - one[seed] for seed in one]), "paired over seeds")
    first, second = list(one.values()), list(other.values())
    middle = statistics.fmean(second) - statistics.fmean(first)
    if min(len(first), len(second)) < 2:
        return Difference(Interval(middle, None, None), "")
    parts = [statistics.variance(values) / len(values) for values in (first, second)]
    total = sum(parts)
    if not total:
        return Difference(Interval(middle, middle, middle), "Welch")
    freedom = total**2 / sum(part**2 / (len(values) - 1) for part, values in zip(parts, (first, second), strict=True))
    half = student_quantile(freedom) * math.sqrt(total)
    return Difference(Interval(middle, middle - half, middle + half), "Welch")


def paired_difference(one: np.ndarray, other: np.ndarray) -> Difference:
    """Of two runs judged on the same images, which of them each had right: what McNemar's test looks at.

    Source: Bonett and Price, Journal of Educational and Behavioral Statistics 37 (2012), adjusted Wald interval.
    """
    n, gained, lost = len(one), int((other & ~one).sum()), int((one & ~other).sum())
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    half = Z * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    middle = up - down
    interval = Interval((gained - lost) / n, max(-1.0, middle - half), min(1.0, middle + half))
    return Difference(interval, "paired over images")
