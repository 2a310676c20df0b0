"""The experiment output_size: the windows that it draws are those that its table names, and its rules hold by hand."""

from pathlib import Path

import numpy as np
import pytest

from cnn_vit.studies.lab import load_experiment

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture(scope="module")
def experiment():
    """The script."""
    return load_experiment(EXPERIMENTS / "output_size").module


def test_windows_with_padding_or_dilation_have_one_of_the_two(experiment):
    def has_neither(window):
        return window.d == 1 and window.padding == (0, 0)

    rng = np.random.default_rng(0)
    drawn = {kind: list(experiment.draw_windows(rng, 400, is_plain=kind)) for kind in (True, False, None)}
    assert {has_neither(window) for window in drawn[True]} == {True}
    assert {has_neither(window) for window in drawn[False]} == {False}
    assert {has_neither(window) for window in drawn[None]} == {True, False}


def test_the_notes_are_right_by_accident_at_stride_2_with_dilation(experiment):
    """6 / 2 - 3 + 1 = 1, and floor((6 - 2 * 2 - 1) / 2) + 1 = 1; without dilation it is floor((6 - 2 - 1) / 2) + 1."""
    assert experiment.Window(6, 3, 2, 2, (0, 0)).textbook == experiment.Window(6, 3, 2, 2, (0, 0)).xla == 1
    assert experiment.Window(6, 3, 2, 1, (0, 0)).xla == 2


def test_same_pads_filters_of_3_5_and_7_taps_by_half_and_of_one_tap_by_nothing_also_where_they_are_wide(experiment):
    """By the rule of XLA's documentation, m = n / s rounded up: at stride 1 and 2 every window, as the page says."""
    rng = np.random.default_rng(0)
    for row in experiment.compare_same(np.random.default_rng(0), 200):
        windows = list(experiment.draw_windows(rng, 200, stride=row["stride"]))
        assert row["symmetric_one_tap"] == row["cases_one_tap"] > 0
        if row["stride"] <= 2:
            assert row["symmetric_odd"] == row["cases_odd"] > 0
            assert row["symmetric_even"] == (row["cases_even"] if row["stride"] == 1 else 0)
            # None is left out for being wide.
            counted = row["cases_one_tap"] + row["cases_odd"] + row["cases_even"]
            assert counted == sum(window.k % 2 for window in windows)
            assert any(window.d * (window.k - 1) + 1 > window.n for window in windows if window.k % 2)
