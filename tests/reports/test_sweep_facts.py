"""What a sweep has found: settings in order, their intervals, how sure the best is, what failed and what it cost."""

import itertools
import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest
from sweep_examples import DECAY, DEPTH, RATE, make_facts, make_realistic, make_trial

from cnn_vit.reports import sweep_facts
from cnn_vit.studies import trials as studied_trials

T2 = 4.302653  # Student's quantile of two degrees of freedom for 95 %, as in any table


def seeds_of(suggestion, metrics, *, first_row=0, n=None, **values):
    """Trials of one setting, one for each metric, with seeds 0, 1, ..."""
    trials = []
    for seed, metric in enumerate(metrics):
        setting = {RATE: 0.001 * (suggestion + 1), **values}
        trials.append(make_trial(first_row + seed, metric, suggestion=suggestion, seed=seed, values=setting, n=n))
    return trials


def facts_of(*settings, **changes):
    """A sweep of settings, each a list of its seeds' metrics."""
    trials = []
    for suggestion, metrics in enumerate(settings):
        trials += seeds_of(suggestion, metrics, first_row=len(trials), n=changes.get("n"))
    changes.pop("n", None)
    return make_facts(trials, **changes)


def test_the_states_are_those_of_the_studies():
    assert sweep_facts.FAILED == studied_trials.FAILED
    assert sweep_facts.COMPLETE == studied_trials.COMPLETE


# The leaderboard ------------------------------------------------------------------------------------------------------


def test_the_mean_over_seeds_has_students_interval_and_the_best_stands_first():
    # 0.8, 0.9, 1.0: mean 0.9, standard deviation 0.1, half of the interval T2 x 0.1 / sqrt 3 = 0.2484
    rows = sweep_facts.leaderboard(facts_of([0.7, 0.7, 0.73], [0.8, 0.9, 1.0], metric="value"))
    assert [row.suggestion for row in rows] == [1, 0]
    half = T2 * 0.1 / math.sqrt(3)
    assert (rows[0].estimate, rows[0].low, rows[0].high) == pytest.approx((0.9, 0.9 - half, 0.9 + half), rel=1e-6)
    assert (rows[0].rank, rows[0].basis, rows[0].state, rows[0].note) == (1, "3 seeds", "complete", "")


def test_an_accuracys_interval_over_seeds_ends_at_one():
    rows = sweep_facts.leaderboard(facts_of([0.8, 0.9, 1.0]))
    assert rows[0].low == pytest.approx(0.9 - T2 * 0.1 / math.sqrt(3), rel=1e-6)
    assert rows[0].high == 1


def test_one_seed_has_wilsons_interval_where_the_number_of_examples_is_known():
    (row,) = sweep_facts.leaderboard(facts_of([15 / 148], n=148))
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
    assert (row.low, row.high) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert row.basis == "n = 148"


@pytest.mark.parametrize(("metric", "n"), [("validation.accuracy", None), ("validation.loss", 148), ("accuracy", 148)])
def test_one_seed_of_another_metric_or_of_unknown_examples_has_no_interval(metric, n):
    (row,) = sweep_facts.leaderboard(facts_of([0.1], metric=metric, n=n))
    assert (row.low, row.high, row.basis) == (None, None, "1 seed")


def test_seeds_that_agree_have_the_interval_over_examples():
    (row,) = sweep_facts.leaderboard(facts_of([15 / 148] * 3, n=148))
    assert (row.low, row.high) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert row.basis == "n = 148"


def test_of_a_loss_the_smallest_is_best_also_below_zero():
    rows = sweep_facts.leaderboard(facts_of([0.5], [-2.0], [3.0], metric="value", mode="min"))
    assert [row.estimate for row in rows] == [-2.0, 0.5, 3.0]


def test_suggestions_that_differ_in_the_seed_alone_are_one_setting():
    trials = []
    for row, (rate, seed) in enumerate(itertools.product([0.1, 0.2], [0, 1, 2])):
        trials.append(make_trial(row, rate + seed, seed=seed, values={RATE: rate, "seed": seed}))
    rows = sweep_facts.leaderboard(make_facts(trials, metric="value"))
    assert [dict(row.values) for row in rows] == [{RATE: 0.2}, {RATE: 0.1}]
    assert [row.estimate for row in rows] == pytest.approx([1.2, 1.1])
    assert [row.suggestion for row in rows] == [3, 0]


def test_a_setting_of_which_a_seed_has_no_numbers_is_marked():
    trials = seeds_of(0, [0.5, None, 0.7, None])
    trials[3] = replace(trials[3], state="running")
    (row,) = sweep_facts.leaderboard(make_facts(trials, metric="value"))
    assert row.state == "incomplete"
    assert row.note == "2 of 4 seeds: 1 crashed, 1 running"
    assert row.estimate == pytest.approx(0.6)
    assert len(row.trials) == 4


def test_pruned_settings_stand_last_those_that_came_farther_first_then_the_better_ones():
    trials = [
        make_trial(0, 0.99, state="pruned", steps=10),
        make_trial(1, 0.30, state="pruned", steps=30),
        make_trial(2, 0.40, state="pruned", steps=30),
        make_trial(3, 0.20),
        make_trial(4, None),
        make_trial(5, None, state="queued"),
    ]
    rows = sweep_facts.leaderboard(make_facts(trials))
    assert [(row.rank, row.suggestion) for row in rows] == [(1, 3), (2, 2), (3, 1), (4, 0)]
    assert rows[1].note == "pruned at step 30 of 90"
    assert rows[1].state == "pruned"


def test_settings_that_wait_at_a_rung_stand_between_complete_and_pruned_ones_and_are_no_rivals():
    trials = [
        make_trial(0, 0.5, state="pruned", steps=30),
        make_trial(1, 0.6, state="queued", steps=30),
        make_trial(2, 0.7, state="running", steps=10),
    ]
    rows = sweep_facts.leaderboard(make_facts(trials))
    assert [(row.suggestion, row.state, row.is_whole) for row in rows] == [
        (1, "under way", False), (2, "under way", False), (0, "pruned", False),
    ]  # fmt: skip
    assert rows[0].note == "at step 30 of 90 so far"
    verdict = sweep_facts.reach_verdict(make_facts(trials))
    assert verdict.answer.startswith("No trial is complete, so that there is no best setting: 1 pruned, 1 queued")
    assert verdict.certainty == (
        "Of those that came farthest, optimizer.learning_rate=0.002 (suggestion 1) has validation accuracy 60.00 %, "
        "at step 30 of 90 so far."
    )
    trials.append(make_trial(3, 0.1))
    assert [row.suggestion for row in sweep_facts.leaderboard(make_facts(trials))] == [3, 1, 2, 0]
    assert sweep_facts.reach_verdict(make_facts(trials)).second is None


def test_of_a_pruned_setting_the_seeds_that_came_farthest_count():
    trials = seeds_of(0, [0.5, 0.7, 0.9])
    trials = [replace(trial, state="pruned", steps=steps) for trial, steps in zip(trials, [30, 30, 10], strict=True)]
    (row,) = sweep_facts.leaderboard(make_facts(trials, metric="value"))
    assert row.estimate == pytest.approx(0.6)


def test_a_number_that_is_not_finite_is_none():
    rows = sweep_facts.leaderboard(facts_of([math.nan], [0.5], [math.inf], metric="value"))
    assert [row.suggestion for row in rows] == [1]


def test_a_run_counts_once_also_where_it_was_suggested_twice():
    first = make_trial(0, 0.5, values={RATE: 0.1, DECAY: 0.0})
    again = make_trial(1, None, values={RATE: 0.1, DECAY: 0.0}, state="queued", alias_of=0, id=first.id)
    # another text of the same run: its settings are others, its fingerprint is not
    spelled = make_trial(2, None, values={RATE: 0.1, DECAY: -0.0}, state="queued", alias_of=0, id=first.id)
    (row,) = sweep_facts.leaderboard(make_facts([first, again, spelled]))
    assert (row.suggestion, row.basis, row.state, len(row.trials)) == (0, "1 seed", "complete", 1)
    followed = sweep_facts.follow_aliases([first, again])
    assert (followed[1].row, followed[1].metric, followed[1].state) == (1, 0.5, "complete")


def test_bad_settings_without_a_name_are_not_taken_for_one_run():
    trials = [make_trial(row, None, id="", state="bad config") for row in range(3)]
    assert len(sweep_facts.group_settings(make_facts(trials))) == 3


# How sure -------------------------------------------------------------------------------------------------------------


def test_the_best_is_resolved_where_it_is_better_with_every_seed():
    # gains of 0.02, 0.03, 0.04: mean 0.03, standard deviation 0.01, half T2 x 0.01 / sqrt 3 = 0.02484
    verdict = sweep_facts.reach_verdict(facts_of([0.52, 0.63, 0.74], [0.50, 0.60, 0.70]))
    assert verdict.is_sure
    assert verdict.second.gain.interval == pytest.approx((0.03, 0.03 - 0.0248414, 0.03 + 0.0248414), abs=1e-6)
    assert verdict.second.sentence == (
        "It is better than suggestion 1 by 3.00 points (0.52 to 5.48), paired over 3 seeds: resolved."
    )
    assert verdict.answer.startswith(
        "The best setting is optimizer.learning_rate=0.001 (suggestion 0): validation accuracy 63.00 % ("
    )


def test_the_best_is_not_resolved_where_a_seed_turns_it():
    # gains of 0.02, 0.03, -0.01: mean 0.0133, standard deviation 0.0208, half 0.0517
    verdict = sweep_facts.reach_verdict(facts_of([0.52, 0.63, 0.69], [0.50, 0.60, 0.70]))
    assert not verdict.is_sure
    assert "1.33 points (-3.84 to 6.50), paired over 3 seeds, is not resolved: it may be chance." in verdict.certainty


def test_one_seed_of_each_is_never_resolved():
    verdict = sweep_facts.reach_verdict(facts_of([0.9], [0.5], [0.4], n=360))
    assert not verdict.is_sure
    assert "40.00 points, is not resolved: a single seed says nothing of other seeds" in verdict.certainty
    assert "Of 2 other complete settings, 2 are not resolved against it." in verdict.certainty


def test_a_gain_of_every_seed_on_one_image_is_not_resolved():
    verdict = sweep_facts.reach_verdict(facts_of([0.901] * 3, [0.9] * 3, n=1000))
    assert "so few of 1,000 images may be chance of other images" in verdict.certainty
    # Six images gained and none lost: 6/1002 -+ 1.96 sqrt((8/1002 - (6/1002)^2) / 1002) leaves out zero; five do not.
    assert sweep_facts.is_more_than_images(0.006, 1000)
    assert not sweep_facts.is_more_than_images(0.005, 1000)


def test_a_smaller_loss_is_a_gain():
    verdict = sweep_facts.reach_verdict(facts_of([0.3, 0.4], [0.2, 0.3], metric="validation.loss", mode="min"))
    assert verdict.second.row.suggestion == 0
    assert verdict.second.gain.interval.estimate == pytest.approx(0.1)
    assert verdict.is_sure
    assert "by 0.1 (0.1 to 0.1), paired over 2 seeds: resolved" in verdict.certainty


def test_a_pruned_setting_is_no_rival_and_a_setting_with_a_failed_seed_is_never_sure():
    facts = facts_of([0.5, 0.5], [0.9, None])
    verdict = sweep_facts.reach_verdict(facts)
    assert verdict.answer.startswith("The best setting is optimizer.learning_rate=0.002")
    assert "Not all of its trials are complete: 1 of 2 seeds: 1 crashed." in verdict.certainty
    resolved = sweep_facts.reach_verdict(facts_of([0.5, 0.41, 0.32], [0.9, 0.8, None]))
    assert resolved.second.is_resolved
    assert not resolved.is_sure
    pruned = [make_trial(9, 0.99, state="pruned", steps=5)]
    alone = sweep_facts.reach_verdict(make_facts([*facts.trials[:2], *pruned]))
    assert alone.certainty == "There is no other complete setting to compare it with."
    assert not alone.is_sure


@pytest.mark.parametrize(
    ("trials", "sentence"),
    [
        ([], "No trial is planned yet, so that there is no best setting."),
        (
            [make_trial(0, None), make_trial(1, None, state="queued"), make_trial(2, None)],
            "No trial is complete, so that there is no best setting: 2 crashed, 1 queued.",
        ),
    ],
)
def test_without_numbers_there_is_no_best_setting(trials, sentence):
    facts = make_facts(trials)
    assert sweep_facts.leaderboard(facts) == []
    assert sweep_facts.reach_verdict(facts).answer == sentence


# Failures and cost ----------------------------------------------------------------------------------------------------


def test_a_trial_that_is_the_same_run_as_another_counts_once_where_none_is_complete():
    trials = [make_trial(0, None, state="bad config"), make_trial(1, None, state="bad config", alias_of=0)]
    sentence = "No trial is complete, so that there is no best setting: 1 bad config."
    assert sweep_facts.describe_nothing(make_facts(trials)) == sentence


def test_settings_as_good_as_the_best_are_named():
    certainty = sweep_facts.reach_verdict(facts_of([0.5], [0.9], [0.8], [0.9])).certainty
    assert certainty.startswith("Suggestion 3 has the same metric; the one that was suggested first is named. ")
    certainty = sweep_facts.reach_verdict(facts_of(*[[0.9]] * 8)).certainty
    assert certainty.startswith("Suggestions 1, 2, 3, 4, 5 and 2 more have the same metric; ")
    assert "same metric" not in sweep_facts.reach_verdict(facts_of([0.5], [0.9])).certainty


def test_failures_whose_reasons_differ_in_numbers_are_one_group():
    reasons = ["loss is nan at step 7", "no memory for 1.5e9 bytes", "loss is nan at step 12", "loss is nan at step 7"]
    trials = [make_trial(row, None, reason=reason, state="diverged") for row, reason in enumerate(reasons)]
    trials[1] = replace(trials[1], state="out of memory")
    trials[3] = replace(trials[3], alias_of=0)  # the same run as the first: one failure
    groups = sweep_facts.failures(make_facts([*trials, make_trial(4, 0.5), make_trial(5, None, state="cancelled")]))
    assert [(group.state, group.reason, len(group.trials)) for group in groups] == [
        ("diverged", "loss is nan at step 7", 2),
        ("out of memory", "no memory for 1.5e9 bytes", 1),
    ]


def test_the_cost_is_that_of_each_run_once():
    trials = [make_trial(0, 0.5), make_trial(1, 0.5, alias_of=0), make_trial(2, None), make_trial(3, 0.6, seconds=None)]
    trials += [make_trial(4, None, state=state) for state in ("queued", "cancelled", "bad config")]
    spent = sweep_facts.cost(make_facts(trials))
    # two runs with numbers of 90 steps and 72 s of processors, of which one does not say how long it took, and one that
    # crashed before its first step
    assert spent == sweep_facts.SweepCost(runs=3, steps=180, hours=36 / 3600, cpu_hours=144 / 3600, unknown=2)


# Text -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.001, "0.001"), (1e-5, "1e-05"), (0.1234567, "0.1234567"), (True, "true"), (None, "none"), (3, "3"),
     (["80 epochs"], "('80 epochs',)"), ("adamw", "adamw")],
)  # fmt: skip
def test_a_value_is_written_as_the_command_line_takes_it(value, text):
    assert sweep_facts.value_text(value) == text


def test_a_sweep_of_a_thousand_trials_is_read_without_jax_or_what_draws(tmp_path):
    code = (
        "import sys; from sweep_examples import make_realistic; from cnn_vit.reports import sweep_facts;"
        "facts = make_realistic(suggestions=1000, failed=20, pruned=300); rows = sweep_facts.leaderboard(facts);"
        "sweep_facts.reach_verdict(facts, rows);"
        "import json; print(json.dumps([len(rows), sorted({'jax', 'matplotlib', 'sklearn'} & sys.modules.keys())]))"
    )
    environment = {"PYTHONPATH": ":".join(sys.path)}
    printed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(printed.stdout) == [980, []]


def test_a_realistic_sweep_has_all_its_settings_in_order():
    facts = make_realistic()
    rows = sweep_facts.leaderboard(facts)
    assert len(rows) == 57
    assert [row.state for row in rows] == ["complete"] * 37 + ["pruned"] * 20
    metrics = [row.estimate for row in rows[:37]]
    assert metrics == sorted(metrics, reverse=True)
    assert facts.keys[1] == DEPTH
