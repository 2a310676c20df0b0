"""The page of several runs: who is grouped with whom, what differs, what is resolved."""

import numpy as np
import pytest
from folders import LABEL, PREDICTED, finished, metrics, unfinish

from cnn_vit.errors import UserError
from cnn_vit.reports import several

RIGHT = np.array(LABEL)


def wrong_at(*places):
    """Predictions that are wrong at some places only."""
    found = RIGHT.copy()
    found[list(places)] = (found[list(places)] + 1) % 3
    return found


@pytest.fixture
def make(tmp_path):
    def made(name, *overrides, wrong=(), **named):
        return finished(tmp_path / name, *overrides, predicted=wrong_at(*wrong), **named)

    return made


def test_runs_that_differ_only_in_the_seed_are_one_group_with_students_interval(make, tmp_path):
    runs = [make(f"a{seed}", f"seed={seed}", wrong=range(seed + 1)) for seed in range(3)]  # 90, 80, 70 %
    (group,), found = several.write(runs, tmp_path / "page.html")
    (middle, low, high), over = group.interval("test")
    half = 4.302653 * 0.1 / np.sqrt(3)  # Student's quantile of two degrees of freedom, any table
    assert (middle, low, high) == pytest.approx((0.8, 0.8 - half, 1.0))  # no more than all right: half is 0.25
    assert over == "3 seeds"
    assert found == []
    assert "Nothing but the seed." in (tmp_path / "page.html").read_text()


def test_what_bears_on_no_result_makes_no_group_of_its_own(make):
    groups = several.read_groups([make("a", "seed=0"), make("b", "seed=1", "data.workers=7", "checkpoint_every=3")])
    assert [len(group.runs) for group in groups] == [2]


def test_groups_are_compared_over_seeds_and_resolved_where_zero_is_left_out(make, tmp_path):
    close = [make(f"a{seed}", f"seed={seed}", wrong=range(seed)) for seed in range(3)]
    same = [make(f"b{seed}", f"seed={seed}", "optimizer.clip=1", wrong=range(2 - seed)) for seed in range(3)]
    far = [make(f"c{seed}", f"seed={seed}", "optimizer.clip=2", wrong=range(seed + 5)) for seed in range(3)]
    groups, found = several.write([*close, *same, *far], tmp_path / "page.html")
    told = {
        (one.other, one.split): (round(one.difference.interval.estimate, 6), one.difference.resolved) for one in found
    }
    assert told == {("B", "test"): (0, False), ("B", "validation"): (0, False),
                    ("C", "test"): (-0.5, True), ("C", "validation"): (-0.5, True)}  # fmt: skip
    assert {one.difference.how for one in found} == {"paired over seeds"}
    assert several.differing_settings(groups) == [("optimizer.clip", ["none", "1", "2"])]
    text = (tmp_path / "page.html").read_text()
    assert text.count("not resolved</td>") == 2
    assert "-50.00 points" in text


def test_single_runs_are_compared_image_by_image(make):
    groups = several.read_groups([make("a", wrong=(0, 1)), make("b", "optimizer.clip=1", wrong=(0,))])
    found = {one.split: one.difference for one in several.compare_groups(groups)}["test"]
    assert (found.interval.estimate, found.how, found.resolved) == (pytest.approx(0.1), "paired over images", False)


def test_one_seed_against_several_and_other_data_are_not_resolved(make, tmp_path):
    one, two, alone = make("a", "seed=0"), make("b", "seed=1"), make("c", "optimizer.clip=1", wrong=range(9))
    assert not any(found.difference.resolved for found in several.write([one, two, alone], tmp_path / "p.html")[1])
    other = make("d", wrong=range(9))
    text = (other / "data.json").read_text()
    (other / "data.json").write_text(text.replace("f" * 64, "0" * 64))
    groups, compared = several.write([one, other], tmp_path / "p.html")
    assert [key for key, _ in several.differing_settings(groups)] == ["data"]
    assert not any(found.difference.resolved for found in compared)


def test_a_run_under_way_is_drawn_and_not_counted(make, tmp_path):
    runs = [make("a", "seed=0"), unfinish(make("b", "seed=1", wrong=range(5)))]
    (group,), _ = several.write(runs, tmp_path / "page.html")
    assert group.values("test") == {0: 1.0}
    assert group.interval("test")[1] == "10 images"
    assert "not finished: step 20 of 20" in (tmp_path / "page.html").read_text()


def test_the_same_run_twice_counts_once_and_a_copy_is_refused(make):
    one = make("a", "seed=3")
    assert len(several.read_groups([one, one])[0].runs) == 1
    with pytest.raises(UserError, match="would count twice"):
        several.read_groups([one, make("copy", "seed=3")])


def test_steps_of_unlike_batches_are_drawn_as_epochs(make):
    alike = several.read_groups([make("a"), make("b", "optimizer.clip=1")])
    assert several.group_curves(alike, "evaluation", "loss")[0].x == [10, 20]
    unlike = several.read_groups([make("c"), make("d", "data.batch_size=64")])
    assert [line.x for line in several.group_curves(unlike, "evaluation", "loss")] == [[1, 2], [2, 4]]  # 320 examples


def test_the_page_has_the_same_bytes_twice(make, tmp_path):
    runs = [make("a"), make("b", "optimizer.clip=1", names=["<script>", "b", "c"])]
    several.write(runs, tmp_path / "p.html")
    several.write(runs, tmp_path / "q.html")
    assert (tmp_path / "p.html").read_bytes() == (tmp_path / "q.html").read_bytes()
    assert b"<script" not in (tmp_path / "p.html").read_bytes()


@pytest.mark.slow
def test_a_page_of_many_long_runs_with_many_classes_stays_below_3_mb(tmp_path):
    """120 runs in 60 groups that differ in three settings, 1,000 classes, 4,000 lines of training each."""
    names = [f"n{at:08} a class with a name as long as those of ImageNet" for at in range(1000)]
    lines = [
        *(dict(kind="train", step=step, loss=1 + step * 7 % 11 / 3, gradient_norm=1.0) for step in range(1, 4001)),
        *metrics(steps=range(20, 4001, 20)),
    ]
    runs = []
    for at in range(120):
        own = f"0.{at // 2:03}"
        apart = (f"seed={at % 2}", f"optimizer.clip={own}1", f"loss.smoothing={own}", f"optimizer.weight_decay={own}")
        label = np.arange(10) * 100
        given = dict(names=names, label=label, predicted=label + (np.arange(10) < at % 10), lines=lines)
        runs.append(finished(tmp_path / f"run{at}", *apart, **given))
    groups, _ = several.write(runs, tmp_path / "page.html")
    assert [len(group.runs) for group in groups] == [2] * 60
    size = (tmp_path / "page.html").stat().st_size
    assert 300_000 < size < 3_000_000  # with all curves, and thinned


def test_letters_go_on_behind_z():
    assert [several.group_letter(n) for n in (0, 25, 26, 52)] == ["A", "Z", "A2", "A3"]
    assert len(PREDICTED) == len(LABEL)
