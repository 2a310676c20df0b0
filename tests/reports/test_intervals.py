"""Intervals against published tables, scipy and arithmetic by hand."""

import numpy as np
import pytest
import scipy.stats

from cnn_vit.reports import intervals
from cnn_vit.reports.intervals import Difference, Interval


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),  # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_is_the_published_one(successes, n, low, high):
    interval = intervals.wilson_interval(successes, n)
    assert interval == pytest.approx((successes / n, low, high), abs=5e-5)


@pytest.mark.parametrize(("successes", "n"), [(0, 7), (3, 7), (7, 7), (1, 1), (9_999, 10_000)])
def test_wilsons_interval_is_that_of_scipy(successes, n):
    bounds = scipy.stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert intervals.wilson_interval(successes, n) == pytest.approx((successes / n, *bounds), rel=1e-12, abs=1e-15)


def test_all_right_reaches_one_and_no_examples_have_no_interval():
    assert intervals.wilson_interval(20, 20) == pytest.approx((1, 1 - 0.1611, 1), abs=5e-5)
    assert intervals.wilson_interval(0, 0)[1:] == (None, None)


def test_the_mean_over_seeds_has_students_interval():
    values = [0.91, 0.93, 0.92, 0.95]
    interval = intervals.student_interval(values)
    # Student's quantile of three degrees of freedom is 3.182446 in any table; the standard deviation is 0.0170783.
    half = 3.182446 * 0.0170783 / 2
    assert interval == pytest.approx((0.9275, 0.9275 - half, 0.9275 + half), rel=1e-6)
    bounds = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert interval == pytest.approx((0.9275, bounds.low, bounds.high), rel=1e-9)
    assert intervals.student_interval([0.9]) == (0.9, None, None)


def test_equal_values_have_an_interval_without_width():
    assert intervals.student_interval([0.1, 0.1, 0.1]) == pytest.approx((0.1, 0.1, 0.1))
    difference = intervals.difference_of_runs({0: 0.5, 1: 0.5}, {2: 0.75, 3: 0.75, 4: 0.75})
    assert difference == (Interval(0.25, 0.25, 0.25), "Welch")
    assert difference.is_resolved


def test_same_seeds_are_paired_and_others_are_not():
    first, second = {0: 0.90, 1: 0.95, 2: 0.85}, {0: 0.91, 1: 0.96, 2: 0.87}
    paired = intervals.difference_of_runs(first, second)
    bounds = scipy.stats.ttest_rel(list(second.values()), list(first.values())).confidence_interval(0.95)
    assert paired.interval == pytest.approx((0.04 / 3, bounds.low, bounds.high), rel=1e-9)
    assert (paired.method, paired.is_resolved) == ("paired over seeds", False)  # 0.0133 +- 0.0143
    unpaired = intervals.difference_of_runs(first, {3: 0.91, 4: 0.96, 5: 0.87, 6: 0.90})
    bounds = scipy.stats.ttest_ind([0.91, 0.96, 0.87, 0.90], list(first.values()), equal_var=False).confidence_interval(
        0.95
    )
    assert unpaired.interval == pytest.approx((0.01, bounds.low, bounds.high), rel=1e-9)
    assert (unpaired.method, unpaired.is_resolved) == ("Welch", False)
    assert intervals.difference_of_runs(first, {3: 0.91, 4: 0.96, 5: 0.87}).method == "Welch"


def test_welch_with_a_group_of_equal_values_has_the_other_groups_spread(recwarn):
    # All variance is that of three values 0.1 apart: 0.01 / 3, with two degrees of freedom, quantile 4.302653.
    difference = intervals.difference_of_runs({0: 0.5, 1: 0.5}, {2: 0.7, 3: 0.8, 4: 0.9})
    half = 4.302653 * 0.1 / np.sqrt(3)
    assert difference.interval == pytest.approx((0.3, 0.3 - half, 0.3 + half), rel=1e-6)
    assert not list(recwarn)


def test_one_seed_against_several_is_never_resolved():
    difference = intervals.difference_of_runs({0: 0.1}, {0: 0.9, 1: 0.91})
    assert difference.interval[1:] == (None, None)
    assert not difference.is_resolved


def test_paired_images_have_bonett_and_prices_interval():
    # Fagerland, Lydersen and Laake, Statistics in Medicine 33 (2014), table I: 1, 1, 7 and 12 of 21 pairs; table VII
    first_correct = np.array([True] * 8 + [False] * 13)
    second_correct = np.array([True] + [False] * 7 + [True] + [False] * 12)
    difference = intervals.difference_of_images(first_correct, second_correct)
    assert difference.interval == pytest.approx((-6 / 21, -0.508, -0.013), abs=6e-4)
    assert difference.is_resolved


@pytest.mark.parametrize(
    ("low", "high", "resolved"), [(0.1, 0.2, True), (-0.2, -0.1, True), (-0.1, 0.1, False), (0.0, 0.1, False)]
)
def test_an_interval_that_holds_zero_is_not_resolved(low, high, resolved):
    assert Difference(Interval(0.1, low, high), "Welch").is_resolved is resolved
