"""The page of several runs: which runs form a group, what differs, what is resolved."""

import numpy as np
import pytest
from folders import LABELS, PREDICTED, make_metrics, make_unfinished, write_finished_run
from sealing import reseal

from cnn_vit.errors import UserError
from cnn_vit.reports import several
from cnn_vit.runs.seals import RunDamageError

OTHER_DATA = "0" * 64  # a fingerprint; the runs' own is f...f


def predict_wrongly_at(*places):
    """Predictions that are wrong at these places only."""
    predicted = np.array(LABELS)
    predicted[list(places)] = (predicted[list(places)] + 1) % 3
    return predicted


@pytest.fixture
def make_run(tmp_path):
    """Writes a finished run whose predictions are wrong at some places."""

    def make(name, *overrides, wrong=(), **keywords):
        return write_finished_run(tmp_path / name, *overrides, predicted=predict_wrongly_at(*wrong), **keywords)

    return make


def test_runs_that_differ_only_in_the_seed_are_one_group_with_students_interval(make_run, tmp_path):
    # accuracies of 90, 80 and 70 %
    runs = [make_run(f"a{seed}", f"seed={seed}", wrong=range(seed + 1)) for seed in range(3)]
    (group,), comparisons, _ = several.write(runs, tmp_path / "page.html")
    (mean, low, high), basis = group.mean_accuracy("test")
    half = 4.302653 * 0.1 / np.sqrt(3)  # Student's quantile of two degrees of freedom, any table
    assert (mean, low, high) == pytest.approx((0.8, 0.8 - half, 1.0))  # cut at 1, for half is 0.25
    assert basis == "3 seeds"
    assert comparisons == []
    assert "Nothing but the seed." in (tmp_path / "page.html").read_text()


def test_seeds_that_are_all_wrong_have_an_interval_at_zero(make_run):
    runs = [make_run(f"a{seed}", f"seed={seed}", wrong=range(10)) for seed in range(2)]
    (group,) = several.read_groups(runs)
    assert group.mean_accuracy("test").interval == (0, 0, 0)


def test_settings_that_change_no_result_make_no_group_of_their_own(make_run):
    first, second = make_run("a", "seed=0"), make_run("b", "seed=1", "data.workers=7", "checkpoint_every=3")
    groups = several.read_groups([first, second])
    assert [len(group.runs) for group in groups] == [2]


def test_groups_are_compared_over_seeds_and_resolved_where_zero_is_left_out(make_run, tmp_path):
    runs = []
    for seed in range(3):
        runs.append(make_run(f"a{seed}", f"seed={seed}", wrong=range(seed)))
        runs.append(make_run(f"b{seed}", f"seed={seed}", "optimizer.clip=1", wrong=range(2 - seed)))
        runs.append(make_run(f"c{seed}", f"seed={seed}", "optimizer.clip=2", wrong=range(seed + 5)))
    groups, comparisons, _ = several.write(runs, tmp_path / "page.html")
    differences = {}
    for comparison in comparisons:
        difference = comparison.difference
        assert difference.method == "paired over seeds"
        estimate = round(difference.interval.estimate, 6)
        differences[comparison.group_name, comparison.split] = estimate, difference.is_resolved
    assert differences == {
        ("B", "test"): (0, False),
        ("B", "validation"): (0, False),
        ("C", "test"): (-0.5, True),
        ("C", "validation"): (-0.5, True),
    }
    assert several.differing_settings(groups) == [("optimizer.clip", ["none", "1", "2"])]
    text = (tmp_path / "page.html").read_text()
    assert text.count("not resolved</td>") == 2
    assert "-50.00 points" in text


def test_single_runs_are_compared_image_by_image(make_run):
    groups = several.read_groups([make_run("a", wrong=(0, 1)), make_run("b", "optimizer.clip=1", wrong=(0,))])
    differences = {comparison.split: comparison.difference for comparison in several.compare_groups(groups)}
    interval, method = differences["test"]
    assert (interval.estimate, method) == (pytest.approx(0.1), "paired over images")
    assert not differences["test"].is_resolved


def test_one_seed_against_several_and_other_data_are_not_resolved(make_run, tmp_path):
    first, second = make_run("a", "seed=0"), make_run("b", "seed=1")
    alone = make_run("c", "optimizer.clip=1", wrong=range(9))
    _, comparisons, _ = several.write([first, second, alone], tmp_path / "p.html")
    assert not any(comparison.difference.is_resolved for comparison in comparisons)
    of_other_data = make_run("d", wrong=range(9))
    text = (of_other_data / "data.json").read_text()
    (of_other_data / "data.json").write_text(text.replace("f" * 64, OTHER_DATA))
    reseal(of_other_data)
    groups, comparisons, _ = several.write([first, of_other_data], tmp_path / "p.html")
    assert [name for name, _ in several.differing_settings(groups)] == ["data"]
    assert not any(comparison.difference.is_resolved for comparison in comparisons)


def test_a_run_under_way_is_drawn_and_not_counted(make_run, tmp_path):
    runs = [make_run("a", "seed=0"), make_unfinished(make_run("b", "seed=1", wrong=range(5)))]
    (group,), _, _ = several.write(runs, tmp_path / "page.html")
    assert group.accuracy_by_seed("test") == {0: 1.0}
    assert group.mean_accuracy("test").basis == "10 images"
    assert "not finished: step 20 of 20" in (tmp_path / "page.html").read_text()


def swap_classes(run):
    """Exchanges the names of the first two classes of a run; returns the file."""
    path = run / "classes.json"
    path.write_text(path.read_text().replace("ant", "x").replace("bee", "ant").replace("x", "bee"))
    return path


def test_a_damaged_run_is_named_and_the_others_are_shown(make_run, tmp_path):
    whole, damaged, other = make_run("a", "seed=0"), make_run("b", "seed=1", wrong=range(5)), make_run("c", "seed=2")
    path = swap_classes(damaged)
    (group,), _, damages = several.write([damaged, whole, other], tmp_path / "page.html")
    assert [run.workdir for run in group.runs] == [whole, other]
    assert group.accuracy_by_seed("test") == {0: 1.0, 2: 1.0}
    (damage,) = damages
    assert damage.startswith(f"{path} has changed since result.json sealed it; ")
    assert str(path) in (tmp_path / "page.html").read_text()


def test_where_all_runs_are_damaged_no_page_is_made(make_run, tmp_path):
    paths = [swap_classes(make_run(name, f"seed={number}")) for number, name in enumerate("ab")]
    with pytest.raises(RunDamageError, match=f"no run is left to report: {paths[0]} has changed") as error:
        several.write([path.parent for path in paths], tmp_path / "page.html")
    assert [str(path) in detail for path, detail in zip(paths, error.value.details, strict=True)] == [True, True]
    assert not (tmp_path / "page.html").exists()


def test_the_same_run_twice_counts_once_and_a_copy_is_refused(make_run):
    run = make_run("a", "seed=3")
    assert len(several.read_groups([run, run])[0].runs) == 1
    with pytest.raises(UserError, match="would count twice"):
        several.read_groups([run, make_run("copy", "seed=3")])


def test_steps_of_different_batch_sizes_are_drawn_as_epochs(make_run):
    groups = several.read_groups([make_run("a"), make_run("b", "optimizer.clip=1")])
    assert several.collect_curves(groups, "evaluation", "loss")[0].x == [10, 20]
    groups = several.read_groups([make_run("c"), make_run("d", "data.batch_size=64")])
    curves = several.collect_curves(groups, "evaluation", "loss")
    assert [curve.x for curve in curves] == [[1, 2], [2, 4]]  # 320 examples in batches of 32 and 64


def test_the_legend_names_a_group_whose_first_run_has_no_curve(make_run):
    never_evaluated = make_run("a", "seed=0", lines=[dict(kind="train", step=20, loss=1.0)])
    runs = [never_evaluated, make_run("b", "seed=1"), make_run("c", "seed=2"), make_run("d", "optimizer.clip=1")]
    curves = several.collect_curves(several.read_groups(runs), "evaluation", "loss")
    assert [(curve.name, curve.series) for curve in curves] == [("A", 0), ("", 0), ("B", 1)]


def test_the_page_has_the_same_bytes_twice(make_run, tmp_path):
    runs = [make_run("a"), make_run("b", "optimizer.clip=1", names=["<script>", "b", "c"])]
    several.write(runs, tmp_path / "p.html")
    several.write(runs, tmp_path / "q.html")
    assert (tmp_path / "p.html").read_bytes() == (tmp_path / "q.html").read_bytes()
    assert b"<script" not in (tmp_path / "p.html").read_bytes()


@pytest.mark.slow
def test_a_page_of_many_long_runs_with_many_classes_stays_below_3_mb(tmp_path):
    """120 runs in 60 groups that differ in three settings, 1,000 classes, 4,000 lines of training each."""
    names = [f"n{number:08} a class with a name as long as those of ImageNet" for number in range(1000)]
    lines = [dict(kind="train", step=step, loss=1 + step * 7 % 11 / 3, gradient_norm=1.0) for step in range(1, 4001)]
    lines += make_metrics(steps=range(20, 4001, 20))
    labels = np.arange(10) * 100
    runs = []
    for number in range(120):
        value = f"0.{number // 2:03}"  # two runs have the same
        overrides = (
            f"seed={number % 2}",
            f"optimizer.clip={value}1",
            f"loss.smoothing={value}",
            f"optimizer.weight_decay={value}",
        )
        predicted = labels + (np.arange(10) < number % 10)
        folder = tmp_path / f"run{number}"
        runs.append(
            write_finished_run(folder, *overrides, names=names, labels=labels, predicted=predicted, lines=lines)
        )
    groups, _, _ = several.write(runs, tmp_path / "page.html")
    assert [len(group.runs) for group in groups] == [2] * 60
    size = (tmp_path / "page.html").stat().st_size
    assert 300_000 < size < 3_000_000  # with all curves, and with fewer points of each


def test_letters_go_on_behind_z():
    assert [several.group_name(number) for number in (0, 25, 26, 52)] == ["A", "Z", "A2", "A3"]
    assert len(PREDICTED) == len(LABELS)
