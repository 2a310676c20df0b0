"""Numbers of an experiment's rows, and their mean as text, by hand arithmetic."""

import numpy as np

from cnn_vit.reports import lab_rows

ROWS = [
    {"seed": 0, "what": "run", "arm": "a", "accuracy": 0.5},
    {"seed": 0, "what": "run", "arm": "b", "accuracy": 0.25},
    {"seed": 1, "what": "run", "arm": "a", "accuracy": 1.0},
    {"seed": 1, "what": "cost", "arm": "a", "seconds": 3},
]


def test_values_are_those_of_the_rows_that_match_in_their_order():
    assert lab_rows.values(ROWS, "accuracy", what="run", arm="a") == [0.5, 1.0]
    assert lab_rows.values(ROWS, "seconds", what="cost") == [3]
    assert lab_rows.values(ROWS, "accuracy", what="run", arm="c") == []


def test_a_mean_has_half_the_width_of_students_interval():
    """For 1, 2 and 3 that is 4.303 / sqrt(3) = 2.484, from Student's table for 2 degrees of freedom."""
    assert lab_rows.mean_text([1, 2, 3]) == "2.00 \u00b1 2.48"
    assert lab_rows.mean_text(np.array([1, 2, 3]), 1, scale=1000, unit=" ms") == "2000.0 \u00b1 2484.1 ms"
    assert lab_rows.percent_text([0.5, 0.5, 0.5]) == "50.0 \u00b1 0.0 %"
    assert lab_rows.mean_text([]) == lab_rows.percent_text([]) == ""


def test_a_single_number_has_no_interval():
    assert lab_rows.mean_text([5.0]) == "5.00"
    assert lab_rows.percent_text([0.5]) == "50.0 %"


def test_errors_that_are_rounding_have_no_interval():
    assert lab_rows.error_text([0, 0, 0]) == "0"
    assert lab_rows.error_text([1e-7, 2e-7, 3e-7]) == "2e-07"
    assert lab_rows.error_text([1e-6, 2e-6, 3e-6]) == "0.000 \u00b1 0.000"
    assert lab_rows.error_text([1e-6, 2e-6, 3e-6], rounding=1e-5) == "2e-06"
    assert lab_rows.error_text([0.1, 0.2, 0.3]) == "0.200 \u00b1 0.248"
