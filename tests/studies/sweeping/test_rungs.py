"""Successive halving: which trials go on, by hand arithmetic."""

import pytest

from cnn_vit.studies.sweeping import rungs
from cnn_vit.studies.sweeping.ledger import Plan, PlanRow, RungRow


def make_row(number, rung_steps=(1, 3, 9, 27)):
    """A row of a plan with one seed a suggestion."""
    return PlanRow(number, number, 0, {"x": number}, f"{number:016x}", None, 27, rung_steps, "", "")


def make_plan(count, *decided):
    """A plan of so many suggestions, of which some rungs are decided."""
    plan = Plan()
    for number in range(count):
        plan.add(make_row(number))
    for rung, suggestions in enumerate(decided):
        plan.add(RungRow(rung, suggestions))
    return plan


@pytest.mark.parametrize(
    ("metrics", "eta", "survivors"),
    [
        ([0.1, 0.5, 0.3, 0.9, 0.2, 0.4], 3, (3, 1)),
        ([0.5, 0.5, 0.5, 0.5], 2, (0, 1)),  # of equal ones the earlier
        ([0.1, 0.2], 3, (1,)),  # at least one
        ([None, 0.2, None, 0.3, None, None], 3, (3, 1)),
        ([None, 0.2, None, None, None, None], 3, (1,)),  # one that has failed never goes on
        ([None, None, None], 3, ()),
        ([-3.0, -1.0, -2.0], 3, (1,)),
    ],
)
def test_one_in_eta_goes_on(metrics, eta, survivors):
    assert rungs.choose_survivors(dict(enumerate(metrics)), eta) == survivors


def test_27_trials_of_27_epochs_at_eta_3_cost_81_epochs_a_ninth_of_a_grid():
    # 27 trials train 1 epoch; 9 of them 2 more; 3 of them 6 more; 1 of them 18 more: 27 + 18 + 18 + 18
    assert rungs.expected_steps(make_plan(27), eta=3, trials=27, seeds=1) == 81
    assert rungs.expected_steps(make_plan(27), eta=3, trials=27, seeds=2) == 162


def test_a_trial_waits_at_the_end_of_each_rung_but_the_last():
    row = make_row(0)
    assert [rungs.last_step(row, rung) for rung in range(4)] == [1, 3, 9, None]
    assert rungs.last_step(make_row(0, rung_steps=()), 0) is None  # without halving


def test_only_those_that_were_chosen_take_part_in_the_next_rung():
    plan = make_plan(9, (4, 2, 7), (2,))
    assert rungs.candidates(plan, 0) == list(range(9))
    assert rungs.candidates(plan, 1) == [4, 2, 7]
    assert rungs.candidates(plan, 2) == [2]
    assert rungs.describe_pruning(plan, 1, plan.rows[4], (2,)) == (
        "not among the best 1 of 3 at step 3, the end of rung 2 of 4"
    )
