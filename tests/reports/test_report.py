"""The page of a run: its numbers by hand, its bytes and size, what is escaped, damaged, and not executed."""

import json
import os
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from folders import NAMES, finished, metrics, pictures, rows, unfinish

from cnn_vit import files
from cnn_vit.errors import UserError
from cnn_vit.reports import facts, report, tallies
from cnn_vit.runs import reader


def page(workdir, **named):
    """The text of a run's page."""
    return report.write(workdir, **named)[1].read_text()


class Words(HTMLParser):
    """What a reader sees: texts, one a cell or paragraph; and tags with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.texts, self.tags, self.hidden = [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.hidden += tag == "style"

    def handle_endtag(self, tag):
        self.hidden -= tag == "style"

    def handle_data(self, data):
        if not self.hidden and data.strip():
            self.texts.append(" ".join(data.split()))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("run") / "run")


# Numbers --------------------------------------------------------------------------------------------------------------


def test_the_confusion_has_true_rows_and_the_commonest_mistake_comes_first():
    found = rows([0, 0, 0, 1, 2, 2], [0, 1, 1, 1, 0, 2], 3)
    counts = tallies.confusion(found["label"], found["predicted"], 3)
    np.testing.assert_array_equal(counts, [[1, 2, 0], [0, 1, 0], [1, 0, 1]])
    assert tallies.worst_confusions(counts, NAMES) == [("ant", "bee", 2, 3), ("cat", "ant", 1, 2)]


def test_recall_is_of_the_class_and_precision_of_what_was_taken_for_it():
    counts = np.array([[1, 2, 0], [0, 1, 0], [1, 0, 1]])
    found = tallies.tally_classes(counts, NAMES)
    assert [(one.n, one.guessed) for one in found] == [(3, 2), (1, 3), (2, 1)]
    assert [one.recall.estimate for one in found] == pytest.approx([1 / 3, 1, 1 / 2])
    assert [one.precision.estimate for one in found] == pytest.approx([1 / 2, 1 / 3, 1])


def test_the_calibration_error_is_the_mean_gap_of_the_bins():
    sure = np.array([0.95, 0.91, 0.55, 0.55, 1.0])
    right = np.array([True, False, True, True, True])
    bins, error = tallies.calibration(sure, right)
    assert [(one.n, one.right.estimate) for one in bins] == [(2, 1.0), (3, 2 / 3)]
    assert error == pytest.approx((2 * abs(0.55 - 1) + 3 * abs((0.95 + 0.91 + 1) / 3 - 2 / 3)) / 5)


def test_probabilities_are_those_of_the_loss():
    found = {"scores": np.array([[0.0, np.log(3.0)]], np.float32)}
    np.testing.assert_allclose(tallies.probabilities(found, "softmax"), [[0.25, 0.75]], rtol=1e-6)
    np.testing.assert_allclose(tallies.probabilities(found, "sigmoid"), [[0.5, 0.75]], rtol=1e-6)
    assert tallies.probabilities(found | {"classes": np.zeros((1, 2))}, "softmax") is None


def test_the_page_shows_accuracy_classes_and_the_reading_of_the_test_split(tmp_path):
    texts = Words(page(finished(tmp_path / "run", reads=3))).texts
    at = texts.index("test accuracy")
    assert texts[at + 1 : at + 3] == ["60.00 %", "31.3\u201383.2 %, n 10"]  # Wilson of 6 of 10
    at = texts.index("bee", texts.index("recall"))  # two of its three were found, two of three taken for it are it
    assert texts[at : at + 6] == ["bee", "3", "66.7 %", "20.8\u201393.9 %", "66.7 %", "20.8\u201393.9 %"]
    assert any(text.startswith("The test split was read 3 times (by train)") for text in texts)


def test_mistakes_stand_with_both_classes_and_probabilities(run):
    texts = Words(page(run)).texts
    at = texts.index("Worst mistakes")
    # scores 3, 0, 0: the softmax is 91 % and 5 %
    assert texts[at + 2 : at + 6] == ["ant", "5 %", "taken for", "bee"]
    assert texts[at + 6] == "91 %"


def test_speed_leaves_the_time_before_the_first_line_out(run):
    assert facts.speed(reader.read_run(run)) == pytest.approx(32 * 10 / 1.0)  # 10 steps of 32 in a second


def test_the_command_is_given_with_a_new_folder(tmp_path):
    words = [
        "cnn-vit",
        "train",
        "--config=configs/digits_mlp.py",
        "--config.data.augment=('shift(1)',)",
        "--config.duration=2 epochs",
    ]
    run = finished(tmp_path / "run", command=shlex.join(words))
    found = facts.command(reader.read_run(run))
    assert shlex.split(found) == [*words, "--workdir=NEW_FOLDER"]


def test_settings_of_the_network_stand_with_their_meaning(tmp_path):
    """As its docstring has it, for a keyword is no setting of all networks."""
    text = report.write(finished(tmp_path / "run", "model.hidden=(5,)"))[1].read_text()
    assert re.search(r"model\.hidden</code>.*?units of each hidden layer", text, re.DOTALL)


def test_mixed_labels_are_told_with_their_shares(tmp_path):
    samples = pictures(rows([0, 1], [0, 1], 3))
    samples |= {"seen_other": np.full(32, 2, np.int32), "seen_share": np.full(32, 0.71, np.float32)}
    texts = Words(page(finished(tmp_path / "run", samples=samples))).texts
    assert "ant 71 %, cat 29 %" in texts


# Bytes ----------------------------------------------------------------------------------------------------------------


def test_the_same_folder_gives_the_same_bytes_also_in_another_process(run, tmp_path):
    first = page(run, out=tmp_path / "a.html")
    assert page(run, out=tmp_path / "b.html") == first
    code = f"from cnn_vit.reports import report; report.write({str(run)!r}, {str(tmp_path / 'c.html')!r})"
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr.decode()) == (0, "")
    assert (tmp_path / "c.html").read_text() == first


def test_a_page_of_the_same_files_is_left_as_it_is_and_of_others_made_anew(tmp_path):
    run = finished(tmp_path / "run")
    report.write(run)
    before = (run / "report.html").stat()
    report.write(run)
    assert (run / "report.html").stat().st_ino == before.st_ino
    files.append_line(run / "test_reads.jsonl", {"by": "evaluate"})
    report.write(run)
    assert (run / "report.html").stat().st_ino != before.st_ino
    assert "read 2 times (by train 1, by evaluate 1)" in " ".join(Words((run / "report.html").read_text()).texts)


def test_a_page_holds_all_it_shows_and_no_script(run):
    found = Words(page(run))
    assert not {tag for tag, _ in found.tags} & {"script", "link", "iframe", "object", "embed", "form"}
    for tag, attributes in found.tags:
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "data:").startswith(("data:", "#")), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")]
    addresses = set(re.findall(r"https?://[\w./]+", page(run)))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not re.search(r"url\((?!#)|@import", page(run))


@pytest.mark.slow
def test_the_largest_page_is_under_3_mb(tmp_path):
    names = [f"class number {k} of a thousand" for k in range(1000)]
    rng = np.random.default_rng(0)
    label, predicted = rng.integers(0, 1000, (2, 20_000))
    found = rows(label, predicted, 1000)
    samples = pictures(found, side=128, channels=3) | {
        "filters_before": rng.normal(size=(64, 16, 16, 3)).astype(np.float32),
        "filters_after": rng.normal(size=(64, 16, 16, 3)).astype(np.float32),
        "similarity": rng.uniform(-1, 1, (14, 14, 14, 14)).astype(np.float32),
        "patches": np.array([16, 14, 14], np.int32),
    }
    lines = list(metrics(range(10, 50_000, 10)))
    run = finished(
        tmp_path / "run",
        names=names,
        label=label,
        predicted=predicted,
        samples=samples,
        lines=lines,
        shape=(224, 224, 3),
    )
    assert len(page(run)) < 3_000_000


def test_plots_stand_beside_the_page_as_files(run):
    report.write(run)
    assert {path.stem for path in (run / "plots").iterdir()} == {
        "accuracy", "calibration", "classes", "confusion_test", "confusion_validation", "gradient_norm",
        "learning_rate", "loss", "overview",
    }  # fmt: skip


# Whatever a folder holds ----------------------------------------------------------------------------------------------


def test_names_are_text_whatever_they_hold(tmp_path):
    names = ["<script>alert(1)</script>", "\x1b[31mred", "a & b\u202e"]
    text = page(finished(tmp_path / "run", names=names, command="<img src=x onerror=alert(1)>"))
    assert "<script" not in text
    assert "<img src=x" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    texts = Words(text).texts
    assert names[0] in texts
    assert "\\x1b[31mred" in texts
    assert "a & b\\u202e" in texts


def test_a_run_under_way_shows_what_there_is(tmp_path):
    run = unfinish(finished(tmp_path / "run", "duration=40 steps"))
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"kind": "train", "st')  # a line that is being written
    record, path = report.write(run)
    text = " ".join(Words(path.read_text()).texts)
    assert record.problems == ()
    assert "not finished: step 20 of 40" in text
    assert "best validation so far 60.00 %" in text
    assert "Where it errs" not in text


def test_a_run_without_a_line_yet_has_a_page(tmp_path):
    run = unfinish(finished(tmp_path / "run"))
    for name in ("metrics.jsonl", "timing.jsonl"):
        (run / name).unlink()
    assert "Nothing is written down yet." in page(run)


READ = ["data.json", "environment.json", "metrics.jsonl", "timing.jsonl", "result.json", "samples.npz",
        "predictions/test.npz", "predictions/validation.npz"]  # fmt: skip
OTHER = {
    "json": b'{"counts": {"train": "many"}, "versions": [], "tested": 3}\n',
    "jsonl": b'{"step": 1, "kind": "train", "loss": "high", "seconds": "long"}\n',
}


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("damage", ["cut", "noise", "other"])
def test_a_damaged_file_is_named(tmp_path, name, damage):
    run = finished(tmp_path / "run")
    content = (run / name).read_bytes()
    npz = (run / ("samples.npz" if "predictions" in name else "predictions/test.npz")).read_bytes()
    spoiled = {"cut": content[: len(content) // 2], "noise": b"\xff\x00 not what it was\n" * 3}
    (run / name).write_bytes(spoiled.get(damage, OTHER.get(name.rpartition(".")[2], npz)))
    problems = reader.read_run(run).problems
    if (name, damage) == ("timing.jsonl", "cut"):  # a clock's last line may be torn
        assert problems == ()
    else:
        assert len(problems) == 1
        assert str(run / name) in problems[0]


def test_what_is_damaged_is_told_on_the_page_beside_the_rest(tmp_path):
    run = finished(tmp_path / "run")
    (run / "samples.npz").write_bytes(b"<b>")
    texts = Words(page(run)).texts
    assert any(text.startswith(f"{run / 'samples.npz'} is not as it was written") for text in texts)
    assert "Where it errs: validation" in texts
    assert "Worst mistakes" not in texts


@pytest.mark.parametrize("name", [name for name in READ if name not in ("result.json", "timing.jsonl")])
def test_what_a_finished_run_lacks_is_named(tmp_path, name):
    run = finished(tmp_path / "run")
    (run / name).unlink()
    assert [problem.partition(" is missing")[0] for problem in reader.read_run(run).problems] == [str(run / name)]


@pytest.mark.parametrize("name", ["config.json", "classes.json"])
def test_a_folder_that_is_no_run_is_refused_in_one_sentence(tmp_path, name):
    run = finished(tmp_path / "run")
    (run / name).unlink()
    with pytest.raises(UserError, match="holds no run"):
        report.write(run)
    (run / name).write_text('{"a": 1}')
    with pytest.raises(UserError, match=name):
        report.write(run)


def test_no_file_that_a_run_names_is_executed(tmp_path):
    spy = tmp_path / "spy.py"
    spy.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    run = finished(tmp_path / "run", f"data.path={spy}:images")
    config = json.loads((run / "config.json").read_text())
    config["recipe"] = str(spy)
    (run / "config.json").write_text(json.dumps(config))
    page(run)
    assert not (tmp_path / "ran").exists()


def test_a_network_that_is_no_more_leaves_the_table_out_with_the_reason(tmp_path):
    text = " ".join(Words(page(finished(tmp_path / "run", "model.name=mlp/gone"))).texts)
    assert "No table of layers: mlp has no 'gone'" in text
