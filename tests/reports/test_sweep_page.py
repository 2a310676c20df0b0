"""The page of a sweep: what it says first, what it holds, and sweeps of every kind that it must bear."""

import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from sweep_examples import MOMENTUM, OPTIMIZER, RATE, SPACE, make_facts, make_realistic, make_trial

from cnn_vit.reports import sweep_facts, sweep_importance, sweep_page, sweep_plots

HOSTILE = "<script>alert('x')</script>"


@pytest.fixture(autouse=True)
def small_forests(monkeypatch):
    """Forests that are fast, for no number of theirs is looked at here."""
    monkeypatch.setattr(sweep_importance, "REPEATS", 1)
    monkeypatch.setattr(sweep_importance, "TREES", 5)


def write_page(folder, facts, **options):
    """Writes the page of a sweep, and returns its text."""
    path = folder / "page.html"
    sweep_page.write(path, facts, **options)
    return path.read_text(encoding="utf-8")


def visible(text):
    """The words of a page on one line, without its tags."""
    body = text[text.index("<body>") :].replace("<wbr>", "")
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


class Balance(HTMLParser):
    """Collects the tags that are left open, or closed where others are open."""

    VOID = ("meta", "br", "wbr", "img", "path", "use", "rect", "hr", "link", "image")

    def __init__(self):
        super().__init__()
        self.open, self.wrong = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def is_whole(text):
    """Whether every tag of a page is closed in its place."""
    balance = Balance()
    balance.feed(text)
    return not balance.open and not balance.wrong


def test_the_page_says_first_which_setting_is_best_and_how_sure_that_is_and_needs_no_network(tmp_path):
    facts = make_realistic()
    text = write_page(tmp_path, facts, command="cnn-vit sweep digits.toml --out=out")
    verdict = sweep_facts.reach_verdict(facts)
    words = visible(text)
    answer = words.index(verdict.answer)
    assert words.index(verdict.certainty) < words.index("Leaderboard")
    assert answer < 100
    assert "cnn-vit sweep digits.toml --out=out" in words
    for sentence in (
        "37 complete, 20 pruned, 2 diverged, 1 out of memory",
        "the loss is nan at step",
        "optimizer.momentum 0.5 to 0.99, even optimizer.name is sgd",
        "duration=20 epochs",
        "cnn-vit sweep retry --out=out",
    ):
        assert sentence in words
    assert is_whole(text)
    assert not re.search(r"<script|https?://(?!www\.w3\.org)|\son\w+=|javascript:|@import|<link|<iframe", text)
    assert not re.search(r"url\((?!#)", text)


def make_hostile():
    """A sweep whose name, keys, values, reasons and notes hold markup, and values of every kind and length."""
    key = f"a.{HOSTILE}"
    choices = [HOSTILE, "x" * 500, None, True, [1, [2]], "\x1b[31m\u202e"]
    dimensions = (
        *SPACE,
        {"key": key, "kind": "choice", "choices": choices, "low": 0, "high": 0, "when": {OPTIMIZER: ["sgd"]}},
    )
    trials = []
    for row in range(18):
        values = {RATE: 0.001 * (row + 1), OPTIMIZER: "sgd", MOMENTUM: 0.9, key: choices[row % 6]}
        metric = None if row % 6 == 5 else row / 20
        trials.append(make_trial(row, metric, values=values, reason="" if row % 6 < 5 else f"{HOSTILE} {row}"))
    return make_facts(
        trials, dimensions=dimensions, name=HOSTILE, notes=(HOSTILE,), definition={"config": HOSTILE, "x": [HOSTILE]}
    )


def test_whatever_names_and_values_hold_is_text(tmp_path):
    text = write_page(tmp_path, make_hostile(), command=HOSTILE, next_commands=(HOSTILE,))
    assert "<script" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert text.count("&lt;script&gt;") > 20
    assert write_page(tmp_path, make_hostile(), command=HOSTILE, next_commands=(HOSTILE,)) == text  # the same bytes
    assert is_whole(text)


def seeds_of_a_loss():
    """A grid of three learning rates with two seeds, which are a key of the grid; one trial was planned twice."""
    trials = []
    for row in range(6):
        rate, seed = 10.0 ** -(row // 2), row % 2
        curve = ((10, 3.0), (20, 0.1 * (1 + row)))
        trials.append(make_trial(row, 0.1 * (1 + row), seed=seed, values={RATE: rate, "seed": seed}, curve=curve))
    trials.append(make_trial(6, None, state="queued", values=trials[0].values, alias_of=0, id=trials[0].id))
    rates = {**SPACE[0], "kind": "choice", "choices": [1.0, 0.1, 0.01]}
    seeds = {"key": "seed", "kind": "choice", "choices": [0, 1], "low": 0, "high": 0, "when": {}}
    return make_facts(
        trials, metric="validation.loss", mode="min", dimensions=(rates, seeds), definition={"sampler": "grid"}
    )


SWEEPS = {
    "one trial": lambda: make_facts([make_trial(0, 0.9, n=100)]),
    "no trial": lambda: make_facts([], planned=5),
    "all failed": lambda: make_facts([make_trial(row, None) for row in range(4)]),
    "all pruned": lambda: make_facts([make_trial(row, 0.1 * row, state="pruned", steps=9) for row in range(4)]),
    "halved and under way": lambda: make_facts(
        [make_trial(row, 0.1 * row, state="pruned" if row % 2 else "queued", steps=9) for row in range(6)], planned=9
    ),
    "running": lambda: make_facts([make_trial(0, 0.5), make_trial(1, None, state="running", steps=5)], planned=9),
    "equal metrics": lambda: make_facts([make_trial(row, 0.5) for row in range(12)]),
    "own objective": lambda: make_facts(
        [make_trial(row, -1.5 * row, curve=()) for row in range(12)], metric="value", mode="min", definition={}
    ),
    "far outliers": lambda: make_facts([make_trial(row, 10.0**row) for row in range(12)], metric="value", mode="min"),
    "nothing swept": lambda: make_facts([make_trial(0, 0.5, values={})], dimensions=()),
    "seeds of a loss": seeds_of_a_loss,
    "without times": lambda: make_facts([make_trial(0, 0.5, seconds=None, cpu_seconds=None)]),
}


@pytest.mark.parametrize("name", SWEEPS)
def test_every_kind_of_sweep_has_a_page(tmp_path, name):
    facts = SWEEPS[name]()
    text = write_page(tmp_path, facts)
    assert is_whole(text)
    assert sweep_facts.reach_verdict(facts).answer in visible(text)
    assert not re.search(r"\bnan\b|\bNone\b|\binf\b", visible(text))


def test_an_unfinished_sweep_says_how_many_trials_are_to_come(tmp_path):
    words = visible(write_page(tmp_path, SWEEPS["running"]()))
    assert "8 of 9 trials are still to come" in words  # one of nine is complete


def test_what_an_objective_of_ones_own_does_not_tell_is_not_on_its_page(tmp_path):
    trials = [make_trial(row, -1.5 * row, curve=(), seconds=None, cpu_seconds=None, steps=1) for row in range(3)]
    facts = make_facts(trials, metric="value", mode="min", definition={"objective": "mine.py:loss"})
    words = visible(write_page(tmp_path, facts))
    assert "processor time" not in words
    assert "training steps" not in words
    assert "3 runs were started. The folder is out;" in words
    timed = replace(facts, trials=tuple(replace(trial, seconds=2.0) for trial in trials))
    assert "time 6.0 s of trials one after the other" in visible(write_page(tmp_path, timed))


def test_a_trial_that_is_the_same_run_as_another_is_counted_apart(tmp_path):
    trials = [make_trial(0, 0.5), make_trial(1, None, state="queued", alias_of=0), make_trial(2, None)]
    words = visible(write_page(tmp_path, make_facts(trials, planned=5)))
    assert "1 complete, 1 crashed, 1 the same as another" in words
    assert "2 of 5 trials are still to come" in words


def test_a_leaderboard_of_several_settings_says_on_narrow_pages_that_it_goes_on(tmp_path):
    sentence = "The table goes on to the right: move it sideways."
    values = {RATE: 0.1, OPTIMIZER: "adamw"}
    wide = make_facts([make_trial(0, 0.5, values=values)], dimensions=[SPACE[0], SPACE[2]])
    assert f'narrow-only">{sentence}' in write_page(tmp_path, wide)
    assert sentence not in write_page(tmp_path, make_facts([make_trial(0, 0.5)]))


@pytest.mark.slow
def test_a_thousand_trials_make_a_page_of_less_than_two_megabytes(tmp_path):
    facts = make_realistic(suggestions=1000, failed=20, pruned=300)
    text = write_page(tmp_path, facts)
    assert len(text.encode()) < 2e6
    assert "180 more, up to rank 200 of 980; results.csv has all" in visible(text)
    assert is_whole(text)


# The table ------------------------------------------------------------------------------------------------------------


def test_the_table_has_the_leaderboards_order_with_intervals_and_values(tmp_path):
    trials = [
        make_trial(0, 15 / 148, n=148, values={RATE: 0.1, OPTIMIZER: "adamw"}),
        make_trial(1, 81 / 263, n=263, values={RATE: 0.2, OPTIMIZER: "sgd", MOMENTUM: 0.9}),
        make_trial(2, 0.9, state="pruned", steps=30, values={RATE: 0.3, OPTIMIZER: "adamw"}),
    ]
    facts = make_facts(trials, dimensions=[SPACE[0], *SPACE[2:]])
    table = [sweep_page.make_table_row(facts, row) for row in sweep_facts.leaderboard(facts)]
    # the intervals are Newcombe's, Statistics in Medicine 17 (1998), table I, method 3
    assert [(entry.metric, entry.interval, entry.values) for entry in table[:2]] == [
        ("30.80 %", "25.5 to 36.6", ("0.2", "sgd", "0.9")),
        ("10.14 %", "6.2 to 16.0", ("0.1", "adamw", "\N{EN DASH}")),
    ]
    words = visible(write_page(tmp_path, facts))
    assert words.index("25.5 to 36.6, n = 263") < words.index("6.2 to 16.0, n = 148")
    assert words.index("6.2 to 16.0") < words.index("pruned at step 30 of 90")


def test_a_swept_setting_is_described_by_what_it_may_be_and_when_it_is_active():
    dimension = {
        "key": "x",
        "kind": "log",
        "choices": [],
        "low": 1e-3,
        "high": 1e-2,
        "steps": 2,
        "when": {"y": ["a", 1]},
    }
    assert sweep_page.describe_dimension(dimension) == (
        "x", "0.001 to 0.01, even on a logarithmic scale; of a grid 2 values", "y is a or 1",
    )  # fmt: skip
    assert sweep_page.describe_dimension(SPACE[2]) == (OPTIMIZER, "one of adamw, sgd", "")


# The plots ------------------------------------------------------------------------------------------------------------


def rows_of(metrics, **changes):
    """The leaderboard of a sweep with these metrics."""
    facts = make_facts([make_trial(row, metric) for row, metric in enumerate(metrics)], metric="value", **changes)
    return facts, sweep_facts.leaderboard(facts)


def test_the_axis_of_the_metric_ends_at_the_smallest_and_largest():
    scale = sweep_plots.choose_scale(*rows_of([-1.0, 0.0, 3.0]))
    assert (scale.low, scale.high, scale.log, scale.outside) == (-1.0, 3.0, False, 0)


def test_the_axis_of_positive_metrics_that_span_a_power_of_ten_is_logarithmic():
    scale = sweep_plots.choose_scale(*rows_of([0.1, 0.5, 1.0], mode="min"))
    assert scale.log
    assert (scale.low, scale.high) == pytest.approx((0.1, 1.0))
    assert not sweep_plots.choose_scale(*rows_of([0.11, 0.5, 1.0], mode="min")).log


def test_a_metric_far_from_all_others_stands_at_the_end_of_the_axis_but_the_best_never():
    # quartiles of -1e6, 0, 1, ..., 7: 1 and 5, so that beyond 1 - 3 x 4 and 5 + 3 x 4 lies the first alone
    metrics = [-1e6, *map(float, range(8))]
    scale = sweep_plots.choose_scale(*rows_of(metrics))
    assert (scale.low, scale.high, scale.outside) == (0.0, 7.0, 1)
    assert scale.clip(-1e6) == 0.0
    assert sweep_plots.choose_scale(*rows_of(metrics, mode="min")).low == -1e6


def test_settings_far_from_the_others_are_counted_by_what_they_are_far_from():
    """Of nine settings the first is far away; where one alone is complete, the axis is that of all."""
    metrics = [-1e6, *map(float, range(8))]
    facts, rows = rows_of(metrics)
    sentence = sweep_page.describe_outside_lines(facts, rows)
    assert sentence == " 1 of the complete settings lies far from the others and stands at an end of the last axis."
    trials = [make_trial(row, metric, state="pruned", steps=9) for row, metric in enumerate(metrics[:-1])]
    facts = make_facts([*trials, make_trial(8, metrics[-1])], metric="value")
    sentence = sweep_page.describe_outside_lines(facts, sweep_facts.leaderboard(facts))
    assert sentence == " 1 setting lies far from the others and stands at an end of the last axis."
    assert sweep_page.describe_outside(2, "the edge") == " 2 settings lie far from the others and stand at the edge."
    assert sweep_page.describe_outside(0, "the edge") == ""


def test_lines_of_the_best_are_drawn_last_and_a_smaller_loss_is_better():
    facts, rows = rows_of([3.0, 1.0, 2.0], mode="min")
    failed = make_trial(9, None, values={RATE: 0.5})
    drawn = sweep_plots.draw_parallel_forms(replace(facts, trials=(*facts.trials, failed)), rows)
    titles = re.findall(r"<title>#(\d+): (\S+),", drawn["wide"])
    assert titles == [("9", "crashed"), ("0", "3"), ("2", "2"), ("1", "1")]
    heights = [float(y) for y in re.findall(r'd="M\S+ \S+ L\S+ (\S+)"[^>]*><title>', drawn["wide"])]
    assert heights[0] > heights[1] > heights[2] > heights[3]  # failed below all others, the best on top


def test_levels_of_color_are_fifths():
    assert [sweep_plots.find_level(rank, 10) for rank in range(10)] == [4, 4, 3, 3, 2, 2, 1, 1, 0, 0]
    assert [sweep_plots.find_level(rank, 2) for rank in range(2)] == [4, 2]


def test_of_many_items_the_first_half_is_kept_and_the_last():
    assert sweep_plots.spread_out(list(range(100)), 8) == [0, 1, 2, 3, 4, 36, 67, 99]
    assert sweep_plots.spread_out([1, 2], 8) == [1, 2]


def test_choices_of_numbers_stand_in_their_order_and_each_line_in_its_choices_part():
    axis = sweep_plots.make_axis({"key": "x", "kind": "choice", "choices": [10, 2.5, 1]}, [2.5])
    assert axis.names == ("1", "2.5", "10")
    for number in range(50):
        assert 1 / 3 < axis.place(2.5, number) < 2 / 3


def test_a_logarithmic_axis_places_values_by_their_logarithms():
    axis = sweep_plots.make_axis(SPACE[0], [0.01])
    assert axis.place(0.01, 0) == pytest.approx(0.5)  # 1e-4 to 1
    assert axis.place(2.0, 0) == 1  # outside
    assert math.isclose(sweep_plots.make_axis(SPACE[1], [7]).place(7, 0), 0.5)  # integers from 2 to 12


def test_learning_curves_show_the_best_strongly_and_a_cross_where_one_was_pruned():
    trials = [make_trial(0, 0.9), make_trial(1, 0.8), make_trial(2, 0.3, state="pruned", curve=((9, 0.3),), steps=9)]
    facts = make_facts(trials)
    drawn = sweep_plots.draw_learning(facts, sweep_facts.leaderboard(facts))
    assert "the best is #0" in drawn
    assert len(re.findall(r'style="fill: none; stroke: var\(--series1\); stroke-width: 2.8', drawn)) == 1
    assert len(re.findall(r'style="fill: none; stroke: var\(--soft\); stroke-opacity: 0.5', drawn)) >= 1
    assert len(re.findall(r"<use[^>]*stroke: var\(--soft\)", drawn)) == 1
    assert sweep_plots.draw_learning(*rows_of([])) == ""


def test_learning_curves_of_a_loss_are_logarithmic_but_not_where_it_is_negative():
    def ticks(metrics):
        drawn = sweep_plots.draw_learning(*rows_of(metrics, mode="min"))
        return set(re.findall(r">(-?[\d.]+)</text>", drawn))

    assert {"1", "10"} <= ticks([0.5, 2.0, 20.0])
    assert "-20" in ticks([-20.0, 2.0, 20.0])
