"""Intervals of 95 %: of a proportion, of a mean over seeds, and of the difference between two runs or groups of runs.

The intervals over seeds are those of scipy, which takes up to a second to import and is therefore imported where it is
used. The page of a single run needs the interval of a proportion only, up to thousands of times, and does
not wait for that import: Wilson's formula stands here.
"""

import math
import statistics
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LEVEL = 0.95
Z = 1.959963984540054  # 97.5 % of a standard normal distribution lies below


class Interval(NamedTuple):
    """An estimate and the interval that holds the true value with 95 %.

    Attributes:
        estimate: the value itself; nan where there is none.
        low: lower end; None where nothing can be said.
        high: upper end; None where nothing can be said.
    """

    estimate: float
    low: float | None
    high: float | None


class Difference(NamedTuple):
    """How much a second run, or group of runs, has more than a first.

    Attributes:
        interval: the difference with its interval.
        method: "paired over seeds", "Welch" or "paired over images"; "" where nothing can be said.
    """

    interval: Interval
    method: str

    @property
    def is_resolved(self) -> bool:
        """Whether the interval leaves out zero."""
        low, high = self.interval.low, self.interval.high
        return low is not None and high is not None and not low <= 0 <= high


def wilson_interval(successes: int, n: int) -> Interval:
    """Returns the score interval of a proportion, which stays in 0..1 and is accurate near both ends.

    Source: Wilson, JASA 22 (1927); recommended by Brown, Cai and DasGupta, Statistical Science 16 (2001).
    """
    if not n:
        return Interval(math.nan, None, None)
    proportion = successes / n
    center = (proportion + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(proportion * (1 - proportion) / n + Z * Z / (4 * n * n))
    # At the ends the formula gives exactly 0 and 1, but its floating-point sum would miss them by a rounding error.
    low = center - half if successes else 0.0
    high = center + half if successes < n else 1.0
    return Interval(proportion, low, high)


def student_interval(values: Sequence[float]) -> Interval:
    """Returns Student's interval of a mean; fewer than two values have no interval."""
    if len(values) < 2:
        return Interval(statistics.fmean(values), None, None)
    if min(values) == max(values):
        # Before any arithmetic: the mean of 0.1 three times is rounded to above 0.1, and scipy would say nan.
        return Interval(float(values[0]), float(values[0]), float(values[0]))
    mean = statistics.fmean(values)
    standard_error = statistics.stdev(values) / math.sqrt(len(values))
    if not standard_error:
        return Interval(mean, mean, mean)  # values that differ by so little that their variance is rounded to 0
    # scipy.stats answers with the same bits, but takes twice the time and memory to import
    from scipy.special import stdtrit

    degrees = len(values) - 1
    low = mean + standard_error * stdtrit(degrees, (1 - LEVEL) / 2)
    high = mean + standard_error * stdtrit(degrees, (1 + LEVEL) / 2)
    return Interval(mean, float(low), float(high))


def difference_of_runs(first: dict[int, float], second: dict[int, float]) -> Difference:
    """Compares two groups of runs, each given as a value by seed: paired where the seeds are the same, else by Welch.

    Source: Welch, Biometrika 34 (1947), with Satterthwaite's degrees of freedom.
    """
    if len(first) > 1 and first.keys() == second.keys():
        gains = [second[seed] - first[seed] for seed in first]
        return Difference(student_interval(gains), "paired over seeds")
    first_numbers, second_numbers = list(first.values()), list(second.values())
    gain = statistics.fmean(second_numbers) - statistics.fmean(first_numbers)
    if min(len(first), len(second)) < 2:
        return Difference(Interval(gain, None, None), "")
    if not statistics.variance(first_numbers) and not statistics.variance(second_numbers):
        return Difference(Interval(gain, gain, gain), "Welch")  # scipy would warn and divide zero by zero
    from scipy import stats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # scipy warns of a group whose values are all equal
        bounds = stats.ttest_ind(second_numbers, first_numbers, equal_var=False).confidence_interval(LEVEL)
    return Difference(Interval(gain, float(bounds.low), float(bounds.high)), "Welch")


def difference_of_images(first_correct: np.ndarray, second_correct: np.ndarray) -> Difference:  # (N,), (N,)
    """Compares two runs, or two groups of runs, that were evaluated on the same images, image by image.

    Of two runs, only the images count on which exactly one of them is correct. These are the numbers that McNemar's
    test looks at.
    Source: Bonett and Price, Journal of Educational and Behavioral Statistics 37 (2012), adjusted Wald interval. Of
    groups it is the same interval, with the mean and the mean square of the differences instead of the counts.

    Args:
        first_correct: for each image, whether the first run classified it correctly, or the share of the first group's
            runs that did.
        second_correct: the same of the second run or group, in the same order.
    """
    n = len(first_correct)
    gains = np.asarray(second_correct, np.float64) - np.asarray(first_correct, np.float64)
    # The adjustment: an image that is gained is added, and one that is lost.
    center = float(gains.sum()) / (n + 2)
    mean_square = (float((gains**2).sum()) + 2) / (n + 2)
    half = Z * math.sqrt((mean_square - center**2) / (n + 2))
    interval = Interval(float(gains.sum()) / n, max(-1.0, center - half), min(1.0, center + half))
    return Difference(interval, "paired over images")
