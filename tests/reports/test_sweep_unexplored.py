"""What a sweep has not looked at: gaps and edges by hand, and nothing where sampling explains it."""

import numpy as np
import pytest
from sweep_examples import DEPTH, MOMENTUM, OPTIMIZER, RATE, SPACE, make_facts, make_realistic, make_trial

from cnn_vit.reports.sweep_unexplored import is_rare_gap, unexplored

LOG, WHOLE, CHOICE, CONDITIONAL = SPACE


def facts_of(key, values, *, metrics=None, dimensions=SPACE[:1], **changes):
    """A sweep of trials with these values of a key; without metrics the middle one is the best."""
    if metrics is None:
        metrics = [-abs(number - len(values) / 2) for number in range(len(values))]
    # another key tells the settings apart
    trials = [make_trial(row, metrics[row], values={key: value, "row": row}) for row, value in enumerate(values)]
    return make_facts([*trials, *changes.pop("more", ())], dimensions=dimensions, metric="value", **changes)


def log_values(exponents):
    return [float(10**exponent) for exponent in exponents]


def test_a_gap_is_rare_where_uniform_points_leave_it_in_less_than_one_sweep_of_a_hundred():
    # 30 points leave 31 gaps: 31 x 0.77^30 = 0.0122, 31 x 0.76^30 = 0.0082
    assert not is_rare_gap(0.23, 30)
    assert is_rare_gap(0.24, 30)
    # by simulation: a longest gap of 0.24 comes up in fewer than one of a hundred
    points = np.sort(np.random.default_rng(0).uniform(size=(4000, 30)))
    longest = np.diff(points, axis=1, prepend=0, append=1).max(1)
    assert (longest > 0.24).mean() < 0.01 < (longest > 0.2).mean()


def test_a_gap_in_a_range_is_said_with_its_values_and_the_failures_in_it():
    values = log_values([*np.linspace(-4, -2.5, 15), *np.linspace(-1, 0, 15)])
    more = [make_trial(99, None, values={RATE: 0.01}), make_trial(98, None, values={RATE: 0.0101})]
    assert unexplored(facts_of(RATE, values, more=more)) == [
        "No trial has optimizer.learning_rate between 0.00316 and 0.1, 38 % of the range's logarithm; 2 settings there "
        "failed."
    ]


def test_a_gap_at_the_end_of_a_range_is_one_and_trials_to_come_have_looked():
    values = log_values(np.linspace(-4, -1.5, 30))
    (sentence,) = unexplored(facts_of(RATE, values))
    assert sentence == "No trial has optimizer.learning_rate between 0.0316 and 1, 38 % of the range's logarithm."
    more = [make_trial(99, None, state="queued", values={RATE: 0.2})]
    assert unexplored(facts_of(RATE, values, more=more)) == []


def test_the_gaps_of_a_grid_and_of_few_points_are_meant():
    values = log_values([-4, -3, -1, 0] * 8)
    assert unexplored(facts_of(RATE, values, definition={"sampler": "grid"})) == []
    assert unexplored(facts_of(RATE, [0.001, 0.5, 0.6])) == []


def test_uniform_points_have_no_gap():
    rng = np.random.default_rng(3)
    sentences = 0
    for _ in range(200):
        sentences += len(unexplored(facts_of(RATE, log_values(rng.uniform(-4, 0, 30)))))
    assert sentences <= 4  # of 200 sweeps at most one of a hundred in the mean


def test_integers_are_named_one_by_one_where_they_are_few():
    values = [2, 3, 4, 5, 6, 8, 9, 10, 11, 12] * 8  # of 11 integers, 80 points leave 11 (10/11)^80 = 0.0054 untried
    assert unexplored(facts_of(DEPTH, values, dimensions=[WHOLE])) == ["No trial has tried model.depth=7."]
    assert unexplored(facts_of(DEPTH, values[:70], dimensions=[WHOLE])) == []  # 11 (10/11)^70 = 0.0139
    wide = {**WHOLE, "low": 1, "high": 100}
    (sentence,) = unexplored(facts_of(DEPTH, [*range(1, 31), *range(71, 101)], dimensions=[wide]))
    assert sentence == "No trial has model.depth between 31 and 70, 40 % of the range."


def test_choices_that_no_trial_or_only_failed_ones_tried_are_said():
    choices = {**CHOICE, "choices": ["adamw", "sgd", "lion", "lamb"]}
    more = [make_trial(99, None, values={OPTIMIZER: "lion"}), make_trial(98, None, values={OPTIMIZER: "adamw"})]
    assert unexplored(facts_of(OPTIMIZER, ["adamw", "adamw"], dimensions=[choices], more=more)) == [
        "No trial has tried optimizer.name=sgd or lamb.",
        "All trials with optimizer.name=lion failed.",
    ]


def test_a_conditional_setting_that_was_never_active_is_said():
    facts = facts_of(OPTIMIZER, ["adamw", "sgd"], dimensions=[CHOICE, CONDITIONAL])
    assert unexplored(facts) == ["optimizer.momentum was active in no trial."]
    more = [make_trial(9, None, values={OPTIMIZER: "sgd", MOMENTUM: 0.9})]
    facts = facts_of(OPTIMIZER, ["adamw", "sgd"], dimensions=[CHOICE, CONDITIONAL], more=more)
    assert unexplored(facts) == ["optimizer.momentum was active in no trial; 1 setting there failed."]


@pytest.mark.parametrize(
    ("low_first", "sentence"),
    [
        (True, "The best 3 of 30 lie in the lowest tenth of optimizer.learning_rate: widen it downwards."),
        (False, "The best 3 of 30 lie in the highest tenth of optimizer.learning_rate: widen it upwards."),
    ],
)
def test_the_best_at_an_edge_say_in_which_direction_to_widen(low_first, sentence):
    values = log_values(np.linspace(-4, 0, 30))  # a tenth of the range holds the first three, at -4, -3.86 and -3.72
    metrics = list(range(30, 0, -1) if low_first else range(30))
    assert unexplored(facts_of(RATE, values, metrics=metrics)) == [sentence]
    metrics[2 if low_first else 27] = -1.0  # then one of the best three lies farther inside
    assert unexplored(facts_of(RATE, values, metrics=metrics)) == []


def test_a_range_that_begins_at_0_is_not_widened_downwards():
    flat = {**LOG, "kind": "uniform", "low": 0.0, "high": 0.1}
    values = np.linspace(0, 0.1, 30).tolist()
    (sentence,) = unexplored(facts_of(RATE, values, metrics=list(range(30, 0, -1)), dimensions=[flat]))
    assert sentence.endswith("next to 0: a logarithmic range would tell them apart.")


def test_the_lowest_tenth_of_eleven_integers_is_the_first_alone():
    values = [2, 2, 2, 3, *range(4, 13)]
    assert unexplored(facts_of(DEPTH, values, metrics=list(range(13, 0, -1)), dimensions=[WHOLE])) == [
        "The best 3 of 13 lie in the lowest tenth of model.depth: widen it downwards."
    ]
    assert unexplored(facts_of(DEPTH, values[1:], metrics=list(range(12, 0, -1)), dimensions=[WHOLE])) == []


def test_the_best_value_of_a_grid_at_its_edge_is_said():
    grid = {**CHOICE, "key": RATE, "choices": [0.01, 0.1, 1.0]}
    best_last = facts_of(RATE, [0.01, 0.1, 1.0] * 3, metrics=[1, 2, 3, 1.1, 2.1, 3.1, 1.2, 2.2, 3.2], dimensions=[grid])
    assert unexplored(best_last) == [
        "The best 3 of 9 have optimizer.learning_rate=1, the largest value tried: try larger ones."
    ]
    one_each = facts_of(RATE, [0.01, 0.1, 1.0], metrics=[3, 2, 1], dimensions=[grid])
    assert unexplored(one_each) == [
        "The best setting has optimizer.learning_rate=0.01, the smallest value tried: try smaller ones."
    ]
    assert unexplored(facts_of(RATE, [0.01, 0.1, 0.1], metrics=[3, 2, 1], dimensions=[grid])) == [
        "No trial has tried optimizer.learning_rate=1."
    ]  # an end of two values is no edge
    inside = facts_of(RATE, [0.01, 0.1, 1.0], metrics=[1, 3, 2], dimensions=[grid])
    assert unexplored(inside) == []


def test_without_numbers_there_is_nothing_to_say():
    assert unexplored(make_facts([])) == []
    assert unexplored(make_facts([make_trial(0, None)])) == []


def test_a_realistic_sweep_is_explored():
    assert unexplored(make_realistic()) == []
