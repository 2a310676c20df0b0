"""Importance of swept settings: shares of the variance that are known by arithmetic, and when nothing is said."""

import numpy as np
import pytest
from sweep_examples import DEPTH, MOMENTUM, OPTIMIZER, RATE, SPACE, make_facts, make_trial

from cnn_vit.reports import sweep_importance


@pytest.fixture
def few_repeats(monkeypatch):
    """Fewer repeats, where no number depends on them."""
    monkeypatch.setattr(sweep_importance, "REPEATS", 2)


def facts_of(points, **changes):
    """A sweep of complete trials: a metric and values each."""
    trials = [make_trial(row, metric, values=values) for row, (metric, values) in enumerate(points)]
    return make_facts(trials, dimensions=changes.pop("dimensions", SPACE), metric="value", **changes)


def uniform(count, *, weights, seed=0):
    """Points whose metric is a weighted sum of two uniform numbers x and y."""
    rng = np.random.default_rng(seed)
    points = []
    for _ in range(count):
        x, y = rng.uniform(size=2)
        points.append((weights[0] * x + weights[1] * y, {"x": x, "y": y}))
    return points


FLAT = tuple({"key": key, "kind": "uniform", "choices": [], "low": 0, "high": 1, "when": {}} for key in "xy")


def test_importance_is_the_share_of_the_variance():
    # the variance of 3 x + y is 9 + 1 parts: shares of 0.9 and 0.1
    answer = sweep_importance.importance(facts_of(uniform(150, weights=(3, 1)), dimensions=FLAT))
    assert answer.r2 > 0.9
    assert [row.key for row in answer.rows] == ["x", "y"]
    assert [row.estimate for row in answer.rows] == pytest.approx([0.9, 0.1], abs=0.06)
    for row in answer.rows:
        assert row.low <= row.estimate <= row.high
    assert answer.sentence.startswith("By 150 complete settings a random forest explains 9")


def test_noise_is_explained_too_little_to_say(few_repeats):
    rng = np.random.default_rng(1)
    points = [(rng.normal(), {"x": rng.uniform(), "y": rng.uniform()}) for _ in range(40)]
    answer = sweep_importance.importance(facts_of(points, dimensions=FLAT))
    assert answer.rows == ()
    assert answer.r2 < 0.25
    assert answer.sentence.startswith("The forest explains too little to say what matters")


def test_fewer_than_ten_complete_settings_are_too_few():
    points = uniform(9, weights=(1, 1))
    facts = facts_of(points, dimensions=FLAT)
    more = [make_trial(9, 0.5, state="pruned", values={"x": 0.1, "y": 0.1}), make_trial(10, None)]
    answer = sweep_importance.importance(make_facts([*facts.trials, *more], dimensions=FLAT, metric="value"))
    assert answer == sweep_importance.Importance(
        (), None, "Importance needs at least 10 settings with a complete trial; this sweep has 9."
    )


@pytest.mark.parametrize(
    "points", [[(0.5, {"x": k / 10}) for k in range(10)], [(k, {"x": 0.5, "fixed": k}) for k in range(10)]]
)
def test_equal_metrics_or_equal_values_leave_nothing_to_explain(points):
    answer = sweep_importance.importance(facts_of(points, dimensions=FLAT[:1]))
    assert "nothing to explain" in answer.sentence
    assert answer.r2 is None


def test_a_conditional_setting_does_not_have_the_importance_of_its_condition(few_repeats):
    rng = np.random.default_rng(2)
    points = []
    for number in range(60):
        values = {"fixed": number, OPTIMIZER: str(rng.choice(["adamw", "sgd"]))}
        if values[OPTIMIZER] == "sgd":
            values[MOMENTUM] = rng.uniform(0.5, 0.99)
        points.append((float(values[OPTIMIZER] == "sgd"), values))
    answer = sweep_importance.importance(facts_of(points, dimensions=SPACE[2:]))
    by_key = {row.key: row for row in answer.rows}
    assert by_key[OPTIMIZER].estimate > 0.8
    assert abs(by_key[MOMENTUM].estimate) < 0.05
    active = sum(values[OPTIMIZER] == "sgd" for _, values in points)
    assert (by_key[MOMENTUM].active, by_key[MOMENTUM].settings) == (active, 60)


def test_columns_are_logarithms_or_one_for_each_choice_and_the_median_where_a_key_is_not_active():
    points = [
        (0.0, {RATE: 0.01, OPTIMIZER: "sgd", MOMENTUM: 0.5}),
        (1.0, {RATE: 1.0, OPTIMIZER: "adamw"}),
        (2.0, {RATE: 0.1, OPTIMIZER: "sgd", MOMENTUM: 0.9}),
    ]
    rows = sweep_importance.leaderboard(facts_of(points, mode="min"))
    rate, _, optimizer, momentum = (sweep_importance.encode(dimension, rows) for dimension in SPACE)
    np.testing.assert_allclose(rate.values[:, 0], [-2 * np.log(10), 0, -np.log(10)])
    np.testing.assert_array_equal(optimizer.values, [[0, 1], [1, 0], [0, 1]])
    np.testing.assert_allclose(momentum.values[:, 0], [0.5, 0.7, 0.9])
    np.testing.assert_array_equal(momentum.is_active, [True, False, True])
    shuffled = [sweep_importance.shuffle(momentum, np.random.default_rng(seed))[:, 0].tolist() for seed in range(9)]
    assert sorted(set(map(tuple, shuffled))) == [(0.5, 0.7, 0.9), (0.9, 0.7, 0.5)]  # one without the key stays


def test_a_choice_that_is_none_is_another_thing_than_one_that_is_not_active():
    dimension = {"key": "x", "kind": "choice", "choices": [None, "a"], "low": 0, "high": 0, "when": {}}
    rows = sweep_importance.leaderboard(facts_of([(0, {"x": None}), (1, {}), (2, {"x": "a"})], mode="min"))
    columns = sweep_importance.encode(dimension, rows)
    np.testing.assert_array_equal(columns.values, [[0, 1], [0, 0], [1, 0]])  # in the order of their JSON, "a", null


def test_losses_that_span_a_power_of_ten_are_explained_by_their_logarithm(few_repeats):
    points = [(10.0 ** (value["x"] * 4), value) for _, value in uniform(30, weights=(1, 0))]
    answer = sweep_importance.importance(facts_of(points, dimensions=FLAT, mode="min"))
    assert "the logarithm of value" in answer.sentence
    logarithms = [(np.log(metric) - 5, values) for metric, values in points]  # also negative: as they are
    expected = sweep_importance.importance(facts_of(logarithms, dimensions=FLAT, mode="min"))
    assert [row.estimate for row in answer.rows] == pytest.approx([row.estimate for row in expected.rows], abs=0.01)


def test_the_order_of_the_trials_decides_nothing_and_lists_are_choices(few_repeats):
    points = [(k % 3 + 0.01 * k, {"x": [["a", "b"], ["c"], None][k % 3], "fixed": k}) for k in range(24)]
    dimension = {"key": "x", "kind": "choice", "choices": [["a", "b"], ["c"], None], "low": 0, "high": 0, "when": {}}
    facts = facts_of(points, dimensions=[dimension])
    first = sweep_importance.importance(facts)
    assert first.rows[0].estimate > 0.5
    assert sweep_importance.importance(facts, sweep_importance.leaderboard(facts)[::-1]) == first
    assert DEPTH not in facts.keys
