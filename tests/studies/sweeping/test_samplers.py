"""Samplers of a sweep: which points they suggest, and that nothing but number, seed and results decides."""

import itertools
import json
import math
import os
import subprocess
import sys
import threading
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_vit.errors import UserError
from cnn_vit.settings import signatures
from cnn_vit.settings.rules import keyword_row
from cnn_vit.studies.sweeping import samplers
from cnn_vit.studies.sweeping.samplers import COMMON_KEYWORDS, SAMPLERS, Observation
from cnn_vit.studies.sweeping.space import CHOICE, INT, LOG, UNIFORM, Dimension, Space

TOP = Path(__file__).parents[3]
WITHOUT_GRID = [name for name in SAMPLERS if name != "grid"]
for_each_sampler = pytest.mark.parametrize("name", WITHOUT_GRID)

# Two optimizers, each with a keyword of its own.
CONDITIONAL = Space(
    (
        Dimension("optimizer.name", CHOICE, choices=("sgd", "adamw")),
        Dimension("optimizer.learning_rate", LOG, low=1e-4, high=1.0),
        Dimension("optimizer.momentum", UNIFORM, low=0.0, high=0.99, when=(("optimizer.name", ("sgd",)),)),
        Dimension("optimizer.b2", UNIFORM, low=0.9, high=0.999, when=(("optimizer.name", ("adamw",)),)),
        Dimension("model.filters", INT, low=4, high=9),
    )
)


def unit_square() -> Space:
    """Two numbers between 0 and 1."""
    return Space((Dimension("x", UNIFORM, low=0.0, high=1.0), Dimension("y", UNIFORM, low=0.0, high=1.0)))


def fault_of(space: Space, point: dict) -> str:
    """What is wrong with a point, checked without any function of the space; "" for a good one."""
    keys = []
    for dimension in space.dimensions:
        if any(key not in point or point[key] not in values for key, values in dimension.when):
            continue
        keys.append(dimension.key)
        value = point.get(dimension.key, "missing")
        if dimension.kind == CHOICE:
            is_good = any(value is choice for choice in dimension.choices)
        else:
            kind = int if dimension.kind == INT else float
            is_good = type(value) is kind and dimension.low <= value <= dimension.high
            if is_good and value not in (dimension.low, dimension.high):
                is_good = float(f"{value:.4e}") == value  # five digits
        if not is_good:
            return f"{dimension.key} is {value}"
    return "" if list(point) == keys else f"{list(point)} is not {keys}"


@st.composite
def spaces(draw) -> Space:
    """Draws a space of one to four dimensions; each may depend on any earlier choice."""
    dimensions: list[Dimension] = []
    for number in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from((CHOICE, UNIFORM, LOG, INT)))
        words = {}
        if kind == CHOICE:
            choices = draw(st.sampled_from(((True, None), ("a",), (1, 2.5, "b"), ([1, 2], [3]))))
            words = {"choices": choices}
        elif kind == INT:
            low = draw(st.integers(-3, 3))
            words = {"low": low, "high": low + draw(st.integers(0, 5))}
        else:
            low = draw(st.sampled_from((1e-7, 0.25, 3.0)))
            words = {"low": low, "high": low * draw(st.sampled_from((1.0, 1.000001, 1e4)))}
        earlier = [dimension for dimension in dimensions if dimension.kind == CHOICE]
        if earlier and draw(st.booleans()):
            other = draw(st.sampled_from(earlier))
            words["when"] = ((other.key, other.choices[:1]),)
        dimensions.append(Dimension(f"d{number}", kind, **words))
    return Space(tuple(dimensions))


def random_history(space: Space, count: int, *, failing: int = 0) -> list[Observation]:
    """Results of random points: a number that repeats after seven of them; the first `failing` have failed."""
    history = []
    for index in range(count):
        metric = None if index < failing else float(index * 3 % 7)
        history.append(Observation(samplers.random(space, index=index, seed=9), metric))
    return history


# What holds for all ---------------------------------------------------------------------------------------------------


@for_each_sampler
@settings(max_examples=25, deadline=None, derandomize=True)
@given(space=spaces(), index=st.integers(0, 300), seed=st.integers(0, 2**31 - 1), shown=st.integers(0, 14))
def test_a_suggestion_is_a_point_of_the_space_and_the_same_when_asked_again(name, space, index, seed, shown):
    history = random_history(space, shown, failing=shown // 3)
    pending = [samplers.random(space, index=index + 1, seed=9)]
    suggest = SAMPLERS[name].suggest
    point = suggest(space, index=index, seed=seed, history=history, pending=pending)
    assert fault_of(space, point) == ""
    again = suggest(space, index=index, seed=seed, history=tuple(history), pending=tuple(pending))
    assert json.dumps(again) == json.dumps(point)


def suggestions_of_all() -> dict[str, list]:
    """Points 0, 3 and 17 of each sampler in the conditional space."""
    points: dict[str, list] = {}
    for name in WITHOUT_GRID:
        points[name] = []
        for index in (0, 3, 17):
            history = random_history(CONDITIONAL, max(index - 3, 0), failing=4)
            pending = [samplers.random(CONDITIONAL, index=50, seed=9)]
            suggest = SAMPLERS[name].suggest
            points[name].append(suggest(CONDITIONAL, index=index, seed=5, history=history, pending=pending))
    return points


IN_A_NEW_PROCESS = """
import json, pathlib, sys, threading
import cnn_vit.studies.workers
from cnn_vit.studies.sweeping.samplers import SAMPLERS, Observation
from cnn_vit.studies.sweeping.space import Dimension, Space

early = [name for name in ("jax", "scipy", "optuna") if name in sys.modules]
space = Space((Dimension("x", "uniform", low=0.0, high=1.0),))
history = [Observation({"x": number / 1000}, number) for number in range(1000)]
for name in ("sobol", "halton", "tpe"):
    SAMPLERS[name].suggest(space, index=1000, seed=0, history=history)
status = pathlib.Path("/proc/self/status").read_text()
most_kilobytes = int(status.partition("VmHWM:")[2].split()[0])
late = [name for name in ("jax", "scipy", "optuna") if name in sys.modules]
threads = threading.active_count()

sys.path.insert(0, "tests/studies/sweeping")
import test_samplers
points = test_samplers.suggestions_of_all()
print(json.dumps([early, late, threads, most_kilobytes, points]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the most memory of a process is read from /proc")
def test_a_new_process_suggests_the_same_says_nothing_and_needs_no_more_than_a_scheduler_may():
    process = subprocess.run(
        [sys.executable, "-W", "always::FutureWarning", "-c", IN_A_NEW_PROCESS],
        cwd=TOP,
        env=os.environ | {"PYTHONPATH": str(TOP), "PYTHONHASHSEED": "77"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert process.stderr == ""
    early, late, threads, most_kilobytes, points = json.loads(process.stdout)
    assert early == []
    assert late == ["scipy", "optuna"]
    assert threads == 1
    assert most_kilobytes < 150_000
    assert points == suggestions_of_all()


@for_each_sampler
def test_another_seed_gives_other_points(name):
    suggest = SAMPLERS[name].suggest
    history = random_history(CONDITIONAL, 12)
    for index in (0, 1, 15):
        points = [suggest(CONDITIONAL, index=index, seed=seed, history=history) for seed in range(3)]
        assert points[0] != points[1] != points[2] != points[0]


def test_the_second_point_of_a_seed_is_not_the_first_of_the_next():
    history = random_history(unit_square(), 12)
    for name in WITHOUT_GRID:
        suggest = SAMPLERS[name].suggest
        for index in (0, 14):
            point = suggest(unit_square(), index=index + 1, seed=0, history=history)
            assert point != suggest(unit_square(), index=index, seed=1, history=history)


def test_every_option_has_a_meaning_and_a_range_that_settings_can_read():
    module = signatures.parse_file(TOP / "cnn_vit/studies/sweeping/samplers.py")
    options = {}
    for name, entry in signatures.read_entries(module, "SAMPLERS").items():
        keywords = signatures.read_keywords(module, entry.args[0].id)
        assert tuple(keywords)[: len(COMMON_KEYWORDS)] == COMMON_KEYWORDS
        for keyword in list(keywords.values())[len(COMMON_KEYWORDS) :]:
            row = keyword_row(keyword)
            assert row.range
            assert row.meaning
            options[f"{name}.{keyword.name}"] = row.default
    assert options == {"tpe.startup": 10}


def test_only_tpe_looks_at_results():
    assert [name for name, sampler in SAMPLERS.items() if sampler.is_adaptive] == ["tpe"]
    for name, sampler in SAMPLERS.items():
        space = Space((Dimension("x", INT, low=0, high=99),))
        points = set()
        for metric in (0.0, 1.0):
            history = [Observation({"x": 3 * number}, abs(metric - number / 30)) for number in range(30)]
            points.add(sampler.suggest(space, index=40, seed=0, history=history)["x"])
        assert (len(points) == 2) == sampler.is_adaptive, name


# Grid -----------------------------------------------------------------------------------------------------------------


def test_a_grid_is_made_once_for_all_its_points(monkeypatch):
    calls = []
    make_grid = Space.grid
    monkeypatch.setattr(Space, "grid", lambda space: calls.append(space) or make_grid(space))
    space = Space((Dimension("boundaries", "choice", (["80 steps"], ["50 steps", "100 steps"])),))  # lists, too
    points = [samplers.grid(space, index=index, seed=0) for index in (0, 1, 0)]
    assert [point["boundaries"] for point in points] == [["80 steps"], ["50 steps", "100 steps"], ["80 steps"]]
    assert len(calls) == 1


def test_a_grid_has_every_combination_once_and_no_other():
    space = Space(
        (
            Dimension("a", CHOICE, choices=("p", "q")),
            Dimension("b", LOG, low=0.01, high=1.0, steps=3),
            Dimension("c", INT, low=1, high=2, when=(("a", ("q",)),)),
        )
    )
    rates = (0.01, 0.1, 1.0)
    expected = [{"a": "p", "b": rate} for rate in rates]
    expected += [{"a": "q", "b": rate, "c": count} for rate, count in itertools.product(rates, (1, 2))]
    assert [samplers.grid(space, index=index, seed=0) for index in range(9)] == expected
    samplers.grid(space, index=0, seed=0).clear()  # a point of one's own
    assert samplers.grid(space, index=0, seed=0) == expected[0]
    with pytest.raises(UserError, match="no suggestion 9: the grid is finished after 9"):
        samplers.grid(space, index=9, seed=0)


# Random, Sobol, Halton ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [{"index": 0}, {"seed": 0}], ids=["over seeds", "over numbers"])
def test_random_points_are_uniform(place):
    counts = Counter()
    for number in range(1000):
        point = samplers.random(unit_square(), **{"index": number, "seed": number, **place})
        counts[int(10 * point["x"]), int(2 * point["y"])] += 1
    # Pearson's statistic of 20 equal cells; the table gives 43.8 for 19 degrees of freedom and one in a thousand
    statistic = sum((counts[cell] - 50) ** 2 / 50 for cell in itertools.product(range(10), range(2)))
    assert sum(counts.values()) == 1000
    assert 5.4 < statistic < 43.8  # 5.4 is as unlikely: draws that repeat one another evenly


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sixteen_points_of_sobol_fill_every_box_of_a_sixteenth(seed):
    """Niederreiter's (0, 2)-sequence: of the first 2^m points, every box of 2^i by 2^(m - i) parts holds one."""
    points = [samplers.sobol(unit_square(), index=index, seed=seed) for index in range(16)]
    for columns in (1, 2, 4, 8, 16):
        rows = 16 // columns
        boxes = {(int(columns * point["x"]), int(rows * point["y"])) for point in points}
        assert len(boxes) == 16


@pytest.mark.parametrize("seed", [0, 1])
def test_the_parts_of_a_dimension_of_halton_are_visited_in_turn(seed):
    """The d-th dimension goes with the d-th prime b: b^2 successive points from a multiple on fill b^2 equal parts."""
    space = Space(tuple(Dimension(f"x{number}", UNIFORM, low=0.0, high=1.0) for number in range(3)))
    points = [samplers.halton(space, index=index, seed=seed) for index in range(50)]
    for number, prime in enumerate((2, 3, 5)):
        for length in (prime, prime**2):
            for start in range(0, 50 - length + 1, length):
                values = [point[f"x{number}"] for point in points[start : start + length]]
                assert sorted(int(length * value) for value in values) == list(range(length))


# TPE ------------------------------------------------------------------------------------------------------------------


def quadratic(point: dict) -> float:
    """Is 0 at (0.7, 0.3), its maximum."""
    return -((point["x"] - 0.7) ** 2) - (point["y"] - 0.3) ** 2


def run_sweep(space: Space, measure, *, seed: int, trials: int = 30, lag: int = 4, **options) -> list[Observation]:
    """Runs a sweep by TPE in which suggestion k sees the results of those up to k - lag."""
    observations: list[Observation] = []
    for index in range(trials):
        seen = max(index - lag + 1, 0)
        pending = [observation.point for observation in observations[seen:]]
        history = observations[:seen]
        point = samplers.tpe(space, index=index, seed=seed, history=history, pending=pending, **options)
        observations.append(Observation(point, measure(point)))
    return observations


def test_tpe_comes_closer_to_the_top_of_a_quadratic_than_random_points_do():
    differences = []
    for seed in range(16):
        learned = run_sweep(unit_square(), quadratic, seed=seed)
        points = [samplers.random(unit_square(), index=index, seed=seed) for index in range(30)]
        best = max(observation.metric for observation in learned)
        differences.append(best - max(quadratic(point) for point in points))
    # 16 fair coins show 13 heads or more in 1 % of all throws; a tie is no head
    assert sum(difference > 0 for difference in differences) >= 13
    assert np.mean(differences) > 0


def test_the_first_suggestions_of_tpe_are_random_ones():
    for startup in (1, 5):
        learned = [observation.point for observation in run_sweep(unit_square(), quadratic, seed=3, startup=startup)]
        points = [samplers.random(unit_square(), index=index, seed=3) for index in range(30)]
        assert learned[:startup] == points[:startup]
        assert all(one != other for one, other in zip(learned[startup:], points[startup:], strict=True))


def test_tpe_answers_from_what_it_is_shown_whatever_was_asked_before():
    """Suggestions are asked again in another order, among other sweeps, with global state of NumPy that has moved."""
    first = run_sweep(CONDITIONAL, lambda point: -(math.log10(point["optimizer.learning_rate"]) ** 2), seed=1)
    global_state = np.random.get_state()[1].tolist()
    for index in (29, 12, 20, 11):
        np.random.seed(index)
        samplers.tpe(unit_square(), index=index, seed=0, history=random_history(unit_square(), 5))
        seen = index - 3
        copies = [Observation(dict(reversed(shown.point.items())), shown.metric) for shown in first[:seen]]
        pending = [observation.point for observation in first[seen:index]]
        point = samplers.tpe(CONDITIONAL, index=index, seed=1, history=copies, pending=pending)
        assert point == first[index].point
    np.random.seed(5)
    before = np.random.get_state()[1].tolist()
    samplers.tpe(CONDITIONAL, index=12, seed=1, history=first[:9])
    assert np.random.get_state()[1].tolist() == before != global_state


def test_tpe_gives_a_keyword_only_to_the_optimizer_that_has_it():
    """The better optimizer is the one with b2; after a while, it is the one that is tried."""

    def measure(point):
        return 2 * (point["optimizer.name"] == "adamw") - abs(math.log10(point["optimizer.learning_rate"]) + 2)

    counts = Counter()
    for seed in range(3):
        points = [observation.point for observation in run_sweep(CONDITIONAL, measure, seed=seed, trials=40)]
        assert [fault_of(CONDITIONAL, point) for point in points] == [""] * 40
        counts.update(point["optimizer.name"] for point in points[10:])
    assert counts["adamw"] > 2 * counts["sgd"] > 0


def test_tpe_keeps_away_from_points_that_failed():
    """Half of the space fails. One that forgets failures tries hardly anything else, because nothing there is bad."""

    def measure(point):
        return None if point["x"] > 0.5 else point["y"]

    failed = Counter()
    for seed in range(5):
        observations = run_sweep(unit_square(), measure, seed=seed, trials=40)
        for index, observation in enumerate(observations):
            failed[index >= 10] += observation.metric is None
    assert failed[False] > 15  # of 50 random ones
    assert failed[True] < 60  # of 150


def test_tpe_goes_on_where_everything_has_failed():
    point = samplers.tpe(CONDITIONAL, index=12, seed=0, history=random_history(CONDITIONAL, 12, failing=12))
    assert fault_of(CONDITIONAL, point) == ""


@pytest.mark.parametrize("metric", [math.nan, math.inf, -math.inf])
def test_a_result_that_is_not_a_number_counts_as_failed(metric):
    history = random_history(unit_square(), 12, failing=1)
    changed = [Observation(history[0].point, metric), *history[1:]]
    expected = samplers.tpe(unit_square(), index=12, seed=0, history=history)
    assert samplers.tpe(unit_square(), index=12, seed=0, history=changed) == expected


def test_tpe_seldom_repeats_a_point_that_is_under_way():
    space = Space((Dimension("x", CHOICE, choices=tuple("abcdef")),))
    history = [Observation({"x": letter}, float(letter == "c")) for letter in "abcdef"]
    repeated = Counter()
    for seed in range(30):
        for pending in ([], [{"x": "c"}] * 3):
            point = samplers.tpe(space, index=20, seed=seed, history=history, pending=pending)
            repeated[len(pending)] += point == {"x": "c"}
    assert repeated[0] > 25
    assert repeated[3] < 15


def test_tpe_learns_which_values_are_good_together():
    """Good are (0.1, 0.1) and (0.9, 0.9). One density for each dimension would take their mixtures for good, too."""
    history = []
    for number in range(60):
        point = {"x": 0.1 + 0.4 * (number % 3), "y": 0.1 + 0.4 * (number // 3 % 3)}
        is_good = point["x"] == point["y"] != 0.5
        history.append(Observation(point, float(is_good)))
    mixed = 0
    for seed in range(40):
        point = samplers.tpe(unit_square(), index=60, seed=seed, history=history)
        mixed += (point["x"] > 0.5) != (point["y"] > 0.5)
    assert mixed <= 4


def test_tpe_tells_values_apart_that_python_takes_for_equal():
    space = Space((Dimension("x", CHOICE, choices=(1, True, 1.0, [1, 2], [3])),))
    for best, other in ((True, 1), (1, True), ([3], [1, 2])):
        history = [Observation({"x": best}, 1.0)] * 3 + [Observation({"x": other}, 0.0)] * 27
        points = [samplers.tpe(space, index=30, seed=seed, history=history) for seed in range(10)]
        assert Counter(json.dumps(point["x"]) for point in points)[json.dumps(best)] > 5


def test_tpe_leaves_the_log_and_the_warnings_of_optuna_as_they_were(capfd, monkeypatch):
    """Some versions of Optuna call what is used here experimental, in a warning; here every one does."""
    import optuna

    def create_with_warning(**words):
        warnings.warn("an experiment", optuna.exceptions.ExperimentalWarning, stacklevel=1)
        return create_study(**words)

    create_study = optuna.create_study
    monkeypatch.setattr(optuna, "create_study", create_with_warning)
    optuna.logging.set_verbosity(optuna.logging.DEBUG)
    threads = threading.active_count()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            filters = list(warnings.filters)
            run_sweep(CONDITIONAL, lambda point: None, seed=0, trials=12)
            assert list(warnings.filters) == filters
        assert optuna.logging.get_verbosity() == optuna.logging.DEBUG
    finally:
        optuna.logging.set_verbosity(optuna.logging.INFO)
    assert caught == []
    assert threading.active_count() == threads
    assert capfd.readouterr() == ("", "")


def test_without_optuna_the_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"pip install 'cnn_vit\[sweep\]', or take sobol") as caught:
        samplers.tpe(unit_square(), index=0, seed=0)
    assert caught.value.code == 2
    assert "\n" not in str(caught.value)
