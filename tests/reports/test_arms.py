"""Arms of a comparison: what is resolved, which one is best, what is said of it, and the page."""

import re
from dataclasses import replace

import numpy as np
import pytest
from folders import make_predictions

from cnn_vit import data
from cnn_vit.data.base.splits import Split
from cnn_vit.reports import arms, arms_page, intervals
from cnn_vit.reports.arms import ArmRun, ArmRuns, Failure

N = 200
LABELS = np.arange(N) % 4
CLASSES = ("ant", "bee", "cat", "<b>dog</b>")
OURS, OTHERS = "f" * 64, "0" * 64  # fingerprints of data


def make_run(wrong, *, seed=0, steps=20, fingerprint=OURS, trained=100, train_count=80):
    """A complete trial whose predictions of the test split are wrong at these places."""
    predicted = LABELS.copy()
    predicted[list(wrong)] = (predicted[list(wrong)] + 1) % 4
    predictions = make_predictions(LABELS, predicted, 4)
    evaluation = {"accuracy": 1 - len(set(wrong)) / N, "loss": 0.1, "n": N}
    result = {
        "test": evaluation, "validation": evaluation, "steps": steps, "parameters": 1000, "macs": 5000,
        "trained_parameters": trained, "counts": {"train": train_count, "test": N},
        "timing": {"seconds": 1.5, "cpu_seconds": 1.25},
    }  # fmt: skip
    lines = tuple({"step": step, "accuracy": 0.5, "loss": 1.0} for step in (10, 20))
    return ArmRun(seed, result, {"test": predictions}, lines, fingerprint)


def make_arm(name, *wrongs, task="train", share=1.0, **keywords):
    """An arm with a run for each of these sets of wrong places."""
    runs = tuple(make_run(wrong, seed=seed, **keywords) for seed, wrong in enumerate(wrongs))
    return ArmRuns(name, f"about {name}", task, share, task == "train", runs)


def test_a_network_compared_with_itself_never_wins():
    for arm in (make_arm("a", range(3)), make_arm("a", range(3), range(9), range(5))):
        difference = arms.compare_arms(arm, replace(arm, name="b"), "test")
        assert difference.over_images.interval.estimate == 0
        assert not difference.is_resolved
        verdict = arms.reach_verdict(arms.make_rows([arm, replace(arm, name="b")], "test"), "test")
        assert not verdict.is_sure
        assert "between it and b the difference is not resolved" in verdict.certainty


def test_a_gain_of_every_seed_on_one_image_alone_is_not_resolved():
    # over seeds the gain is exactly half a point each time, an interval without width
    better, worse = make_arm("a", [], [], []), make_arm("b", [7], [7], [7])
    difference = arms.compare_arms(better, worse, "test")
    assert difference.over_seeds.interval == pytest.approx((-0.005, -0.005, -0.005))
    assert difference.over_seeds.is_resolved
    assert not difference.is_resolved
    assert difference.shown == difference.over_images  # the wider one


def test_a_gain_of_one_seed_of_three_alone_is_not_resolved():
    # 40 images of 200, but all in the third seed: gains of 0, 0 and -0.2, a mean of -0.0667 with a wide interval
    difference = arms.compare_arms(make_arm("a", [], [], []), make_arm("b", [], [], range(40)), "test")
    assert difference.over_images.is_resolved
    assert not difference.over_seeds.is_resolved
    assert not difference.is_resolved


def test_a_gain_of_every_seed_on_many_images_is_resolved():
    difference = arms.compare_arms(make_arm("a", [0], [1], [2]), make_arm("b", range(40), range(42), range(44)), "test")
    assert difference.is_resolved
    assert difference.over_seeds.interval.estimate == pytest.approx((-39 - 41 - 43) / 3 / N)


def test_an_arm_without_seeds_has_the_same_accuracy_for_each_seed_of_the_other():
    untouched = make_arm("untouched", range(20), task="evaluate")
    difference = arms.compare_arms(untouched, make_arm("a", [0], [0, 1], [0, 1, 2]), "test")
    assert difference.over_seeds.interval.estimate == pytest.approx((19 + 18 + 17) / 3 / N)
    assert difference.over_seeds.method == "paired over seeds"
    both = arms.compare_arms(untouched, make_arm("knn", range(60), task="knn"), "test")
    assert both.over_seeds is None  # by the images alone, as McNemar has it
    assert both.over_images.interval.estimate == pytest.approx(-40 / N)


def verdict_on(*some_arms):
    """The verdict on arms of one share."""
    return arms.reach_verdict(arms.make_rows(some_arms, "test"), "test")


def test_one_seed_of_an_arm_that_has_seeds_is_never_sure():
    verdict = verdict_on(make_arm("a", range(2)), make_arm("b", range(100)))
    assert not verdict.is_sure
    assert "A single seed says nothing of other seeds" in verdict.certainty


def test_a_rival_that_is_ahead_on_the_seeds_of_both_is_not_called_beaten():
    # a is right on 80, 80 and 100 %, in the mean 86.7; b on 85 and 85 %
    verdict = verdict_on(make_arm("a", range(40), range(40), []), make_arm("b", range(30), range(30)))
    assert verdict.answer.startswith("Use a ")
    assert not verdict.is_sure
    assert "On the seeds that both have, b is right more often than it." in verdict.certainty


@pytest.mark.parametrize("has_a_run", [False, True])
def test_where_a_trial_has_failed_nothing_is_sure(has_a_run):
    failed = make_arm("c", *([range(90), range(95)] if has_a_run else []))
    failed = replace(failed, failures=(Failure(2, "diverged", "the loss is not finite"),))
    verdict = verdict_on(make_arm("a", range(2), range(3)), make_arm("b", range(100), range(99)), failed)
    assert not verdict.is_sure
    assert verdict.certainty.startswith("That is not sure.")
    assert "Trials of c have failed." in verdict.certainty


def test_an_arm_of_other_data_is_said_to_be_no_rival():
    strange = make_arm("b", range(9), range(9), fingerprint=OTHERS)
    verdict = verdict_on(make_arm("a", range(2), range(3)), strange)
    assert not verdict.is_sure
    assert "It cannot be compared with b, which saw other images." in verdict.certainty
    assert "chance" not in verdict.certainty


def test_shares_of_seeds_have_the_interval_of_their_mean_with_one_image_gained_and_one_lost_added():
    # 3 images: gains of 1/2, 0, -1; with +1 and -1 added the mean is -0.5/5 and the mean square 3.25/5
    difference = intervals.difference_of_images(np.array([0.5, 1, 1]), np.array([1.0, 1, 0]))
    half = 1.959963985 * np.sqrt((0.65 - 0.01) / 5)
    assert difference.interval == pytest.approx((-0.5 / 3, -0.1 - half, -0.1 + half))


def test_only_seeds_that_both_arms_have_are_paired():
    first = make_arm("a", [0], [1], range(60))
    second = make_arm("b", [0, 1], [1, 2])  # its third seed has failed
    difference = arms.compare_arms(first, second, "test")
    assert difference.over_seeds.interval.estimate == pytest.approx(-1 / N)


def test_arms_of_other_data_or_other_images_are_not_compared():
    ours, others = make_arm("a", [0]), make_arm("b", [0, 1], fingerprint=OTHERS)
    assert arms.difference_text(arms.compare_arms(ours, others, "test")) == "not comparable"
    (note,) = arms.list_notes([ours, others], "test")
    assert re.search(r"the data are not the same: a \(f{12}\); b \(0{12}\)", note)
    shuffled = ours.runs[0].predictions["test"] | {"label": np.roll(LABELS, 1)}
    relabeled = replace(ours, runs=(replace(ours.runs[0], predictions={"test": shuffled}),))
    assert arms.difference_text(arms.compare_arms(ours, relabeled, "test")) == "not comparable"


def test_unequal_budgets_and_numbers_of_images_are_told():
    members = [make_arm("a", [0]), make_arm("b", [1], steps=40), make_arm("c", [2], train_count=8)]
    budgets, images = arms.list_notes(members, "test")
    assert "the budgets are not equal: 20 steps of a and c; 40 steps of b" in budgets
    assert images == "the numbers of training images are not equal: 8 of c; 80 of a and b"
    untouched = make_arm("u", [0] * 1, task="evaluate", steps=0)
    (nearly,) = arms.list_notes([members[0], untouched], "test")  # no steps are no budget
    assert "u was never trained on these data, yet right on 99.5 % of them" in nearly


def test_an_untouched_network_learns_from_no_image():
    assert make_arm("u", [0], task="evaluate", steps=0).training_images == 0
    assert make_arm("a", [0], train_count=8).training_images == 8


def test_arms_that_are_left_out_for_one_reason_are_named_together():
    reasons = {"full": "no weights", "head": "no weights", "odd": "other classes"}
    assert arms.group_left_out(reasons) == [("full and head", "no weights"), ("odd", "other classes")]


def test_the_best_of_equal_arms_is_the_one_that_trains_least():
    rows = arms.make_rows([make_arm("full", [0]), make_arm("head", [1], trained=10)], "test")
    assert [row.arm.name for row in rows if row.is_leader] == ["head"]


def test_the_answer_names_arm_accuracy_interval_and_how_sure_it_is():
    better, worse = make_arm("a", range(2), range(2)), make_arm("b", range(100), range(100))
    sure = arms.make_rows([better, worse], "test")
    verdict = arms.reach_verdict(sure, "test")
    assert verdict.answer.startswith(
        "Use a (about a): it is right on 99.00 % of the test images (96.4 to 99.7, over 200"
    )
    assert verdict.is_sure
    assert "The next one is b, -49.00 points" in verdict.certainty
    close = [
        make_arm("a", range(2), range(2), trained=900),
        make_arm("b", range(3), range(3), trained=7),
        make_arm("c", range(100), range(100)),
    ]
    verdict = arms.reach_verdict(arms.make_rows(close, "test"), "test")
    assert "between it and b the difference is not resolved" in verdict.certainty
    assert "Against c it is ahead by more than chance. Of those" in verdict.certainty
    assert verdict.certainty.endswith("b trains the fewest parameters: 7, not 900.")
    failed = ArmRuns("a", "a", "train", 1.0, True, (), (Failure(0, "diverged", "the loss is nan"),))
    assert arms.reach_verdict(arms.make_rows([failed], "test"), "test").answer.startswith("No arm is complete")


# The page -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def dataset():
    """Data with a test split of gray noise of 8x8 pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (N, 8, 8, 1), np.uint8)
    split = Split(LABELS.astype(np.int32), lambda indices: pixels[indices])
    return data.Dataset(CLASSES, (8, 8, 1), {"train": split, "test": split}, OURS, {})


def write_page(path, members, dataset):
    """Writes the page of arms, and returns its text."""
    rows = arms.make_rows(members, "test")
    about = arms_page.ComparisonPage(
        "mine: <i>arms</i>", "test", "20 steps", ("digits",), ("a <note>",), {"c": "no <weights>"}, ("cnn-vit predict",)
    )
    arms_page.write(path, about, rows, arms.reach_verdict(rows, "test"), dataset)
    return path.read_text()


def test_the_page_says_first_which_arm_to_use_and_is_the_same_bytes_again(tmp_path, dataset):
    failed = replace(make_arm("b", [1, 2]), failures=(Failure(1, "diverged", "loss <nan>"),))
    members = [make_arm("a", [0], [0, 1]), failed, make_arm("a", range(30), share=0.1, train_count=8)]
    text = write_page(tmp_path / "page.html", members, dataset)
    assert text == write_page(tmp_path / "other.html", members, dataset)
    assert text.index("Use a (about a)") < text.index("<table")
    for sentence in (
        "seed 1: diverged.",
        "loss &lt;nan&gt;",
        "a &lt;note&gt;",
        "no &lt;weights&gt;",
        "10 % of the training",
    ):
        assert sentence in text
    assert not re.search(r"<script|https?://(?!www\.w3\.org)|<nan>|<i>arms|<b>dog", text)


def test_the_page_shows_the_images_that_one_arm_alone_gets_right_and_the_worst_mistakes(dataset):
    members = [make_arm("a", [5, 9], [5, 9, 7]), make_arm("b", [3, 9], [3, 4, 9])]
    alone = {entry.name: entry for entry in arms_page.find_alone(members, "test", dataset)}
    # most runs: an image that one of two seeds gets right is not counted as right
    assert {name: [shown.name for shown in entry.images] for name, entry in alone.items()} == {
        "a": ["image 3", "image 4"],
        "b": ["image 5", "image 7"],
        "no arm": ["image 9"],
    }
    mistakes = arms_page.find_mistakes(members[0], "test", dataset)
    assert [(shown.name, shown.true, shown.says) for shown in mistakes] == [
        ("image 5", "bee", "taken for cat by 2 of 2 seeds"),
        ("image 9", "bee", "taken for cat by 2 of 2 seeds"),
        ("image 7", "<b>dog</b>", "taken for ant by 1 of 2 seeds"),
    ]


def test_curves_over_the_number_of_images_hold_an_untouched_network_as_a_level_line():
    members = [make_arm("a", [0]), make_arm("a", range(50), share=0.1, train_count=8)]
    members.append(make_arm("u", range(20), task="evaluate"))
    rows = arms.make_rows(members, "test")
    lines = arms_page.collect_efficiency(rows, arms_page.number_arms(rows))
    assert [(line.name, list(line.x), line.y) for line in lines] == [
        ("a", [8, 80], [0.75, 0.995]),
        ("u", [8, 80], [0.9, 0.9]),
    ]
    assert arms_page.collect_efficiency(rows[:1], {"a": 0}) == []
