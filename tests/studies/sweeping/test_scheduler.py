"""A sweep's plan and decisions follow from results alone: neither their order nor a restart shows in a byte.

Nothing trains here. Trials of a formula are finished in whatever order a test likes, as workers might finish them.
"""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_vit import files
from cnn_vit.errors import SurroundingsError, UserError
from cnn_vit.studies import objectives, trials
from cnn_vit.studies.sweeping import outcome
from cnn_vit.studies.sweeping.claims import claim_sweep
from cnn_vit.studies.sweeping.definition import Halving, SweepDefinition
from cnn_vit.studies.sweeping.ledger import Ledger, read_plan
from cnn_vit.studies.sweeping.planner import Planner, make_trial
from cnn_vit.studies.sweeping.scheduler import CANCEL, Supply, request_cancel
from cnn_vit.studies.sweeping.space import Dimension, Space
from cnn_vit.studies.workers import StudyOptions

RUNGS = (10, 30, 90)  # steps of every trial with halving
SPACE = Space(
    (
        Dimension("kind", "choice", ("flat", "steep")),
        Dimension("rate", "log", low=1e-4, high=1.0, steps=5),
        Dimension("width", "int", low=1, high=3, when=(("kind", ("steep",)),)),
    )
)


def make_definition(file, sampler="random", **changes):
    """A sweep of the formula in a file."""
    words = {
        "config": "",
        "objective": f"{file}:formula",
        "overrides": (),
        "space": SPACE,
        "sampler": sampler,
        "sampler_options": (("startup", 4),) if sampler == "tpe" else (),
        "trials": 20,
        "seeds": 1,
        "seed": 7,
        "metric": "value",
        "mode": "max",
        "name": "formula",
    }
    return SweepDefinition(**{**words, **changes})


@pytest.fixture(scope="module")
def formula(tmp_path_factory):
    """A file with a function that nobody calls here."""
    file = tmp_path_factory.mktemp("formula") / "formula.py"
    file.write_text("def formula(values):\n    return 1.0\n")
    return file


def value_of(values, seed, step=90):
    """The number of a trial, which changes with its steps."""
    noise = random.Random(repr((sorted(values.items()), seed))).random()
    return -abs(values["rate"] - 0.01) + 0.1 * values.get("width", 0) + noise * step / 90


class FakeProcess:
    """Plans trials of an objective, with rungs where there is halving."""

    def __init__(self, out, rungs):
        self.out, self.rungs = out, rungs

    def plan(self, list_of_trials):
        answers = []
        for trial in list_of_trials:
            planned = replace(objectives.plan_objective(trial, self.out), steps=RUNGS[-1])
            answers.append({**trials.to_json(planned), "rungs": self.rungs})
        return answers


class Simulation:
    """A sweep whose trials a test finishes."""

    def __init__(self, definition, out, *, ahead=8):
        self.definition = claim_sweep(out, definition)
        self.out, self.ahead = out, ahead
        self.finished = []
        self.start()

    def start(self, retries=()):
        """Begins, or begins again after a kill: what this process remembered is gone."""
        ledger = Ledger(self.out)
        self.process = FakeProcess(self.out, RUNGS if self.definition.halving else ())
        plans_again = trials.BAD_CONFIG in retries
        planner = Planner(self.definition, ledger, self.process, plans_again=plans_again)
        options = StudyOptions(retries=retries)
        self.supply = Supply(self.definition, self.out, ledger, planner, options, ahead=self.ahead)
        self.under_way = []

    def finish_one(self, rng):
        """Does one of the trials that may be done now; returns whether there was one."""
        self.under_way += self.supply.take()
        if not self.under_way:
            return False
        planned = self.under_way.pop(rng.randrange(len(self.under_way)))
        finish(planned)
        self.finished.append((planned.id, planned.until))
        return True

    def finish_all(self, rng, *, restarts=0.0):
        """Does all trials in random order, and starts again now and then."""
        while True:
            has_finished_one = self.finish_one(rng)
            if not has_finished_one and self.supply.is_exhausted():
                return
            assert has_finished_one, "nothing is under way, and the sweep waits for something"
            if rng.random() < restarts:
                self.start()

    def read(self):
        """The bytes of the plan and of the table of results."""
        outcome.write_tables(outcome.read_sweep(self.out))
        return (self.out / "plan.jsonl").read_bytes(), (self.out / "results.csv").read_bytes()


def finish(planned, *, has_diverged=False):
    """Writes what a worker would write at the end of a trial, or of its rung."""
    values = dict(planned.trial.options)["values"]
    with files.Lock(planned.folder / trials.LOCK):
        if has_diverged:
            trials.write_result(planned, trials.DIVERGED, reason="not finite")
            return
        numbers = {"value": value_of(values, planned.trial.seed, planned.until or RUNGS[-1])}
        if planned.until is not None:
            trials.write_rung(planned, {**numbers, "steps": planned.until, "is_finished": False})
        else:
            trials.write_result(planned, trials.COMPLETE, result={**numbers, "steps": RUNGS[-1]})


SWEEPS = {
    "grid": dict(sampler="grid", trials=20),
    "random": dict(sampler="random"),
    "sobol": dict(sampler="sobol", seeds=2, trials=10),
    "tpe": dict(sampler="tpe", trials=12),
    "tpe with seeds": dict(sampler="tpe", trials=8, seeds=2, lag=2),
    "halving": dict(sampler="halton", halving=Halving(3, "10 steps")),
    "tpe with halving": dict(sampler="tpe", trials=9, halving=Halving(3, "10 steps")),
}


@pytest.fixture(scope="module")
def in_order(formula, tmp_path_factory):
    """Plan and results of each sweep, done one trial after another without a kill."""
    bytes_of_sweep = {}
    for name, changes in SWEEPS.items():
        simulation = Simulation(make_definition(formula, **changes), tmp_path_factory.mktemp("in_order"), ahead=1)
        simulation.finish_all(random.Random(0))
        bytes_of_sweep[name] = simulation.read()
    return bytes_of_sweep


@pytest.mark.parametrize("name", SWEEPS)
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6), ahead=st.integers(1, 12), restarts=st.sampled_from([0.0, 0.2]))
def test_a_plan_is_the_same_bytes_in_any_order_and_after_any_kill(
    name, formula, in_order, tmp_path_factory, seed, ahead, restarts
):
    simulation = Simulation(make_definition(formula, **SWEEPS[name]), tmp_path_factory.mktemp("any"), ahead=ahead)
    simulation.finish_all(random.Random(seed), restarts=restarts)
    assert simulation.read() == in_order[name]
    assert len(set(simulation.finished)) == len(simulation.finished)  # no trial, and no rung of one, is done twice


def test_a_torn_plan_is_made_whole_with_the_same_bytes(formula, in_order, tmp_path):
    simulation = Simulation(make_definition(formula, **SWEEPS["tpe with seeds"]), tmp_path)
    simulation.finish_all(random.Random(1))
    plan, results = simulation.read()
    assert (plan, results) == in_order["tpe with seeds"]
    for size in range(0, len(plan), 397):  # also between two trials of one suggestion
        (tmp_path / "plan.jsonl").write_bytes(plan[:size])
        simulation.start()
        simulation.finish_all(random.Random(2))
        assert simulation.read() == (plan, results)


# What is done ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_point_that_comes_twice_is_an_alias_and_not_a_run(formula, tmp_path, sampler):
    space = Space((Dimension("kind", "choice", ("flat", "steep")), Dimension("rate", "choice", (0.1, 0.2))))
    simulation = Simulation(make_definition(formula, sampler, space=space), tmp_path)
    simulation.finish_all(random.Random(0))
    plan, _ = read_plan(tmp_path)
    assert len(plan.rows) == 20
    assert len(simulation.finished) == len({row.id for row in plan.rows}) == 4
    for row in plan.rows:
        first = next(other.row for other in plan.rows if other.values == row.values)
        assert row.alias_of == (None if first == row.row else first)
    facts = outcome.read_sweep(tmp_path)
    assert [trial.metric for trial in facts.trials] == [value_of(row.values, 7) for row in plan.rows]


def test_a_sampler_that_learns_sees_the_results_up_to_its_lag_and_no_others(formula, tmp_path):
    simulation = Simulation(make_definition(formula, "tpe", trials=12, lag=3), tmp_path, ahead=None)
    rows_by_results = []
    for _ in range(10):
        simulation.under_way += simulation.supply.take()
        plan, _ = read_plan(tmp_path)
        rows_by_results.append(len(plan.rows))
        finish(simulation.under_way.pop(0))
    # suggestion k waits for the results of 0 .. k - 3: three can be planned at once, then one for each that is over
    assert rows_by_results == [3, 4, 5, 6, 7, 8, 9, 10, 11, 12]


def test_rows_of_a_sampler_that_learns_wait_for_the_slowest_of_those_that_they_may_see(formula, tmp_path):
    simulation = Simulation(make_definition(formula, "tpe", trials=12, lag=3), tmp_path, ahead=None)
    first, second, third = simulation.supply.take()
    finish(second)
    finish(third)
    assert simulation.supply.take() == []
    finish(first)
    assert len(simulation.supply.take()) == 3


def test_halving_trains_to_each_rung_from_where_it_stopped_and_says_why_others_ended(formula, tmp_path):
    simulation = Simulation(make_definition(formula, "random", trials=9, halving=Halving(3, "10 steps")), tmp_path)
    simulation.finish_all(random.Random(3))
    plan, _ = read_plan(tmp_path)
    untils = [until for _, until in simulation.finished]
    assert sorted(untils, key=lambda until: until or 90) == [10] * 9 + [30] * 3 + [None]
    ranked = sorted(plan.rows, key=lambda row: -value_of(row.values, row.seed, 10))
    assert plan.rungs[0].suggestions == tuple(row.suggestion for row in ranked[:3])
    last = max(ranked[:3], key=lambda row: value_of(row.values, row.seed, 30))
    assert plan.rungs[1].suggestions == (last.suggestion,)
    facts = outcome.read_sweep(tmp_path)
    assert {trial.suggestion for trial in facts.trials if trial.state == "complete"} == {last.suggestion}
    pruned = [trial for trial in facts.trials if trial.state == "pruned"]
    assert sorted(trial.steps for trial in pruned) == [10] * 6 + [30] * 2
    worst = facts.trials[ranked[-1].row]
    assert worst.reason == "not among the best 3 of 9 at step 10, the end of rung 1 of 3"
    assert worst.metric == value_of(worst.values, worst.seed, 10)


def test_a_kill_between_a_decision_and_its_results_loses_neither(formula, tmp_path, monkeypatch):
    simulation = Simulation(make_definition(formula, "random", trials=9, halving=Halving(3, "10 steps")), tmp_path)

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Supply, "_prune", die)
    with pytest.raises(KeyboardInterrupt):
        simulation.finish_all(random.Random(3))
    plan, _ = read_plan(tmp_path)
    assert len(plan.rungs) == 1
    monkeypatch.undo()
    simulation.start()
    simulation.finish_all(random.Random(4))
    states = [trial.state for trial in outcome.read_sweep(tmp_path).trials]
    assert sorted(states) == ["complete", *["pruned"] * 8]


def test_trials_that_diverged_are_done_again_only_when_asked_and_crashed_ones_by_the_same_command(formula, tmp_path):
    simulation = Simulation(make_definition(formula, "random", trials=4), tmp_path)
    first, second, third, fourth = simulation.supply.take()
    for planned, state in ((first, trials.DIVERGED), (second, trials.CRASHED), (third, trials.CANCELLED)):
        with files.Lock(planned.folder / trials.LOCK):
            trials.write_result(planned, state, reason="so it was")
    finish(fourth)
    simulation.start(retries=(trials.CRASHED, trials.OUT_OF_MEMORY))
    assert [planned.id for planned in simulation.supply.take()] == [second.id]
    simulation.start(retries=(trials.DIVERGED, trials.CANCELLED))
    assert [planned.id for planned in simulation.supply.take()] == [first.id, second.id, third.id]


def test_a_sweep_ends_for_a_reason(formula, tmp_path):
    simulation = Simulation(make_definition(formula, trials=6, max_failures=2), tmp_path / "failing")
    taken = simulation.supply.take()
    assert simulation.supply.reason_to_end() == ""
    for planned in taken[:2]:
        finish(planned, has_diverged=True)
    simulation.supply.take()
    assert simulation.supply.reason_to_end() == "2 trials have failed, and max_failures is 2"
    other = Simulation(make_definition(formula, trials=6), tmp_path / "other")
    assert not request_cancel(tmp_path / "other")  # nobody is at work there
    with files.Lock(tmp_path / "other" / trials.LOCK):
        assert request_cancel(tmp_path / "other")
    assert (tmp_path / "other" / CANCEL).exists()
    assert other.supply.reason_to_end() == "cancelled"
    late = Supply(other.definition, tmp_path / "late", Ledger(tmp_path / "late"), None, StudyOptions(), deadline=0.0)
    assert late.reason_to_end() == "the time is over"


def test_a_sweep_of_which_no_trial_can_be_is_refused_before_anything_is_planned(formula, tmp_path):
    simulation = Simulation(make_definition(formula, trials=6), tmp_path)
    plan = simulation.process.plan

    def plan_with_errors(list_of_trials):
        return [{**answer, "error": "data.path is not set"} for answer in plan(list_of_trials)]

    simulation.process.plan = plan_with_errors
    with pytest.raises(UserError, match=r"no trial can be run: data\.path is not set"):
        simulation.supply.take()
    assert not (tmp_path / "plan.jsonl").exists()


def test_trials_that_cannot_be_run_are_told_before_any_is_done(formula, tmp_path):
    simulation = Simulation(make_definition(formula, trials=6), tmp_path)
    plan = simulation.process.plan

    def plan_with_errors(list_of_trials):
        return [{**answer, "error": "too wide" * (number < 2)} for number, answer in enumerate(plan(list_of_trials))]

    simulation.process.plan = plan_with_errors
    simulation.supply.plan()
    assert simulation.supply.describe_errors() == ["2 trials of 6 cannot be run, the others are: too wide"]


def test_a_sweep_does_not_grow_by_trials_of_another_function(formula, tmp_path):
    file = tmp_path / "formula.py"
    file.write_text(formula.read_text())
    simulation = Simulation(make_definition(file, trials=2), tmp_path / "out")
    simulation.finish_all(random.Random(0))
    more = Simulation(make_definition(file, trials=3), tmp_path / "out")
    assert len(more.supply.take()) == 1
    file.write_text(formula.read_text() + "# another one\n")
    grown = Simulation(make_definition(file, trials=4), tmp_path / "out")
    with pytest.raises(SurroundingsError, match="has changed since this sweep was planned"):
        grown.supply.take()


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_first_point_that_cannot_be_run_is_one_failed_trial(formula, tmp_path, sampler):
    simulation = Simulation(make_definition(formula, sampler, trials=6, lag=3), tmp_path)
    plan = simulation.process.plan

    def plan_with_an_error(list_of_trials):
        answers = plan(list_of_trials)
        if not (tmp_path / "plan.jsonl").exists():
            answers[0]["error"] = "no such width"
        return answers

    simulation.process.plan = plan_with_an_error
    simulation.finish_all(random.Random(0))
    states = [trial.state for trial in outcome.read_sweep(tmp_path).trials]
    assert states == ["bad config", *["complete"] * 5]


def test_a_sampler_that_learns_is_refused_where_none_of_the_points_that_wait_for_nothing_can_be_run(formula, tmp_path):
    simulation = Simulation(make_definition(formula, "tpe", trials=6, lag=3), tmp_path)
    plan = simulation.process.plan
    simulation.process.plan = lambda asked: [{**answer, "error": "no such file"} for answer in plan(asked)]
    with pytest.raises(UserError, match="none of the first 3 trials can be run: no such file"):
        simulation.supply.take()


def test_a_rung_that_nobody_comes_through_is_not_decided_so_that_a_retry_goes_on(formula, tmp_path):
    simulation = Simulation(make_definition(formula, "random", trials=3, halving=Halving(3, "10 steps")), tmp_path)
    taken = simulation.supply.take()
    for planned in taken:
        finish(planned, has_diverged=True)
    assert simulation.supply.take() == []
    assert simulation.supply.is_exhausted()
    assert "no trial has a number at the end of rung 1 of 3" in simulation.supply.describe_dead_end()
    assert read_plan(tmp_path)[0].rungs == []
    simulation.start(retries=(trials.DIVERGED,))
    simulation.finish_all(random.Random(0))
    assert simulation.supply.describe_dead_end() == ""
    states = [trial.state for trial in outcome.read_sweep(tmp_path).trials]
    assert sorted(states) == ["complete", "pruned", "pruned"]


def test_failures_of_a_rung_that_is_decided_still_count_after_a_restart_and_are_never_done_again(formula, tmp_path):
    definition = make_definition(formula, "random", trials=6, halving=Halving(2, "10 steps"), max_failures=4)
    simulation = Simulation(definition, tmp_path)
    taken = simulation.supply.take()
    for number, planned in enumerate(taken):
        finish(planned, has_diverged=number < 3)
    assert len(simulation.supply.take()) == 3  # of the next rung
    simulation.start(retries=(trials.DIVERGED,))
    (first, *_) = simulation.supply.take()
    finish(first, has_diverged=True)
    simulation.supply.take()
    assert simulation.supply.reason_to_end() == "4 trials have failed, and max_failures is 4"
    facts = outcome.read_sweep(tmp_path)
    assert [trial.is_decided for trial in facts.trials] == [True] * 3 + [False] * 3


def test_a_trial_with_other_rungs_than_the_first_is_not_compared_with_the_others(formula, tmp_path):
    definition = make_definition(formula, "random", trials=4, halving=Halving(3, "10 steps"))
    simulation = Simulation(definition, tmp_path)
    plan = simulation.process.plan

    def plan_with_other_rungs(list_of_trials):
        answers = plan(list_of_trials)
        answers[2]["rungs"] = (15, 30, 90)
        return answers

    simulation.process.plan = plan_with_other_rungs
    simulation.finish_all(random.Random(0))
    facts = outcome.read_sweep(tmp_path)
    assert [trial.row for trial in facts.trials if trial.state == "bad config"] == [2]
    assert facts.trials[2].reason == (
        "its rungs would end at the steps 15, 30, 90, and those of the first trial at 10, 30, 90; halving compares "
        "trials at the same steps"
    )


def test_a_retry_plans_a_trial_again_that_could_not_be_run_and_no_kill_shows_in_the_plan(formula, in_order, tmp_path):
    simulation = Simulation(make_definition(formula, **SWEEPS["random"]), tmp_path)
    plan = simulation.process.plan

    def plan_with_errors(list_of_trials):
        answers = plan(list_of_trials)
        for answer in answers[3:5]:
            answer |= {"id": answer["id"][::-1], "error": "no such file"}
        return answers

    simulation.process.plan = plan_with_errors
    simulation.finish_all(random.Random(0))
    states = [trial.state for trial in outcome.read_sweep(tmp_path).trials]
    assert (states[3:5], set(states[:3] + states[5:])) == (["bad config"] * 2, {"complete"})
    lines = (tmp_path / "plan.jsonl").read_bytes().splitlines(keepends=True)
    simulation.start(retries=(trials.BAD_CONFIG,))
    simulation.supply.take()
    again = (tmp_path / "plan.jsonl").read_bytes().splitlines(keepends=True)
    whole = in_order["random"][0].splitlines(keepends=True)
    assert again == [*lines, *whole[3:5]]
    simulation.start()  # a kill, after which nobody asks for a retry any more
    simulation.finish_all(random.Random(0))
    assert simulation.read()[1] == in_order["random"][1]
    simulation.start(retries=(trials.BAD_CONFIG,))
    simulation.supply.take()
    assert (tmp_path / "plan.jsonl").read_bytes().splitlines(keepends=True) == again


def test_a_point_that_is_read_from_the_plan_makes_the_same_trial():
    dimensions = (Dimension("optimizer.name", "choice", ("sgd",)), Dimension("model.depth", "int", low=1, high=2))
    definition = make_definition("", config="configs/digits_vit.py", objective="", space=Space(dimensions))
    trial = make_trial(definition, {"optimizer.name": "sgd", "model.depth": 2}, 0)
    assert trial.overrides == ("optimizer.name=sgd", "model.depth=2")
    assert make_trial(definition, {"model.depth": 2, "optimizer.name": "sgd"}, 0) == trial


def test_a_retry_plans_nothing_again_by_a_recipe_that_has_changed_for_the_others(formula, tmp_path):
    simulation = Simulation(make_definition(formula, **SWEEPS["random"]), tmp_path)
    plan = simulation.process.plan
    simulation.process.plan = lambda asked: [*plan(asked)[:-1], {**plan(asked)[-1], "error": "no such file"}]
    simulation.finish_all(random.Random(0))
    stored = (tmp_path / "plan.jsonl").read_bytes()
    simulation.start(retries=(trials.BAD_CONFIG,))
    simulation.process.plan = lambda asked: [{**answer, "id": answer["id"][::-1]} for answer in plan(asked)]
    with pytest.raises(UserError, match="would be another run by now, for its recipe or its data have changed"):
        simulation.supply.take()
    assert (tmp_path / "plan.jsonl").read_bytes() == stored


def test_only_the_process_that_was_asked_to_end_does(formula, tmp_path):
    simulation = Simulation(make_definition(formula, trials=6), tmp_path)
    (tmp_path / trials.LOCK).write_text("cnn-vit study 999999 elsewhere\n")
    files.write_json(tmp_path / CANCEL, files.read_owner(tmp_path / trials.LOCK))
    with files.Lock(tmp_path / trials.LOCK):
        assert simulation.supply.reason_to_end() == ""
        assert request_cancel(tmp_path)
        assert simulation.supply.reason_to_end() == "cancelled"
