"""Intervals against published tables, scipy and arithmetic by hand."""

import numpy as np
import pytest
import scipy.stats

from cnn_vit.reports import intervals
from cnn_vit.reports.intervals import Difference, Interval


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),  # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_is_the_published_one(right, n, low, high):
    found = intervals.wilson(right, n)
    assert found == pytest.approx((right / n, low, high), abs=5e-5)


def test_all_right_reaches_one_and_nothing_says_nothing():
    assert intervals.wilson(20, 20) == pytest.approx((1, 1 - 0.1611, 1), abs=5e-5)
    assert intervals.wilson(0, 0)[1:] == (None, None)


def test_the_mean_over_seeds_has_students_interval():
    values = [0.91, 0.93, 0.92, 0.95]
    found = intervals.student_interval(values)
    theirs = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found == pytest.approx((0.9275, theirs.low, theirs.high), rel=1e-9)
    assert intervals.student_interval([0.9]) == (0.9, None, None)


def test_same_seeds_are_paired_and_others_are_not():
    one, other = {0: 0.90, 1: 0.95, 2: 0.85}, {0: 0.91, 1: 0.96, 2: 0.87}
    paired = intervals.difference_of_runs(one, other)
    theirs = scipy.stats.ttest_rel(list(other.values()), list(one.values())).confidence_interval(0.95)
    assert paired.interval == pytest.approx((0.04 / 3, theirs.low, theirs.high), rel=1e-9)
    assert (paired.how, paired.resolved) == ("paired over seeds", False)  # 0.0133 +- 0.0143
    apart = intervals.difference_of_runs(one, {3: 0.91, 4: 0.96, 5: 0.87, 6: 0.90})
    theirs = scipy.stats.ttest_ind([0.91, 0.96, 0.87, 0.90], list(one.values()), equal_var=False).confidence_interval(
        0.95
    )
    assert apart.interval == pytest.approx((0.01, theirs.low, theirs.high), rel=1e-9)
    assert (apart.how, apart.resolved) == ("Welch", False)
    assert intervals.difference_of_runs(one, {3: 0.91, 4: 0.96, 5: 0.87}).how == "Welch"


def test_one_seed_against_several_is_never_resolved():
    found = intervals.difference_of_runs({0: 0.1}, {0: 0.9, 1: 0.91})
    assert found.interval[1:] == (None, None)
    assert not found.resolved


def test_paired_images_have_bonett_and_prices_interval():
    # Fagerland, Lydersen and Laake, Statistics in Medicine 33 (2014), table I: 1, 1, 7 and 12 of 21 pairs; table VII
    one = np.array([True] * 8 + [False] * 13)
    other = np.array([True] + [False] * 7 + [True] + [False] * 12)
    found = intervals.paired_difference(one, other)
    assert found.interval == pytest.approx((-6 / 21, -0.508, -0.013), abs=6e-4)
    assert found.resolved


@pytest.mark.parametrize(
    ("low", "high", "resolved"), [(0.1, 0.2, True), (-0.2, -0.1, True), (-0.1, 0.1, False), (0.0, 0.1, False)]
)
def test_an_interval_that_holds_zero_is_not_resolved(low, high, resolved):
    assert Difference(Interval(0.1, low, high), "Welch").resolved is resolved
