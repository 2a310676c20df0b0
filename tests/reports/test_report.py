"""The page of a run: its numbers by hand, its bytes and size, what is escaped, damaged, and not executed."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tracemalloc
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from folders import NAMES, make_metrics, make_predictions, make_samples, make_unfinished, write_finished_run
from sealing import reseal

from cnn_vit import files
from cnn_vit.errors import UserError
from cnn_vit.reports import facts, report, tallies
from cnn_vit.reports.tallies import Confusion
from cnn_vit.runs import reader
from cnn_vit.runs.seals import RunDamageError

CONFUSION = np.array([[1, 2, 0], [0, 1, 0], [1, 0, 1]])  # of these labels and predictions
CONFUSION_LABELS, CONFUSION_PREDICTED = [0, 0, 0, 1, 2, 2], [0, 1, 1, 1, 0, 2]


def page_of(workdir, **keywords):
    """The text of a run's page."""
    return report.write(workdir, **keywords)[1].read_text()


def texts_of(html):
    """The texts that a reader of a page sees, one for each cell or paragraph."""
    return PageParser(html).texts


class PageParser(HTMLParser):
    """What a reader of a page sees: `texts`, one for each cell or paragraph; and `tags` with their attributes."""

    def __init__(self, html):
        super().__init__()
        self.texts, self.tags, self.open_styles = [], [], 0
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open_styles += tag == "style"

    def handle_endtag(self, tag):
        self.open_styles -= tag == "style"

    def handle_data(self, data):
        if not self.open_styles and data.strip():
            self.texts.append(" ".join(data.split()))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_finished_run(tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def other_process(run, tmp_path_factory):
    """The run's page, written in a process of its own, with the process and the modules that it loaded."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    code = (
        "import sys; from cnn_vit.reports import report; "
        f"report.write({str(run)!r}, {str(path)!r}); print(*sys.modules)"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    return SimpleNamespace(process=process, path=path, modules=process.stdout.decode().split())


# Numbers --------------------------------------------------------------------------------------------------------------


def test_the_confusion_has_true_rows_and_the_most_frequent_mistake_comes_first():
    predictions = make_predictions(CONFUSION_LABELS, CONFUSION_PREDICTED, 3)
    confusion = tallies.confusion_matrix(predictions["label"], predictions["predicted"], 3)
    np.testing.assert_array_equal(confusion, CONFUSION)
    labels, predicted = predictions["label"], predictions["predicted"]
    assert tallies.worst_confusions(labels, predicted, NAMES) == [
        Confusion("ant", "bee", count=2, n=3),
        Confusion("cat", "ant", count=1, n=2),
    ]


def test_ten_thousand_classes_are_tallied_in_little_memory():
    """A matrix of all pairs would take 0.8 GB, several times over."""
    names = [f"class {number}" for number in range(10_000)]
    labels = np.arange(10_000, dtype=np.int32)
    predicted = labels.copy()
    predicted[[7, 4_321]] = 9_999
    tracemalloc.start()
    predictions = dict(label=labels, predicted=predicted, loss=np.zeros(10_000), classes=np.zeros((10_000, 5)))
    tally = tallies.tally_predictions(predictions, names, "softmax")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert tally.confusion is None
    mistakes = [(names[7], names[9_999]), (names[4_321], names[9_999])]
    assert [(pair.true, pair.predicted) for pair in tally.confusions] == mistakes
    assert (tally.classes[9_999].predicted, tally.classes[7].recall.estimate) == (3, 0)
    assert peak < 50 * 2**20


def test_recall_is_a_share_of_the_class_and_precision_of_its_predictions():
    rows = tallies.tally_classes(np.array(CONFUSION_LABELS), np.array(CONFUSION_PREDICTED), NAMES)
    assert [(row.n, row.predicted) for row in rows] == [(3, 2), (1, 3), (2, 1)]
    assert [row.recall.estimate for row in rows] == pytest.approx([1 / 3, 1, 1 / 2])
    assert [row.precision.estimate for row in rows] == pytest.approx([1 / 2, 1 / 3, 1])


def test_the_calibration_error_is_the_mean_gap_of_the_bins():
    confidences = np.array([0.95, 0.91, 0.55, 0.55, 1.0])
    correct = np.array([True, False, True, True, True])
    bins, error = tallies.measure_calibration(confidences, correct)
    assert [(filled.n, filled.accuracy.estimate) for filled in bins] == [(2, 1.0), (3, 2 / 3)]
    assert error == pytest.approx((2 * abs(0.55 - 1) + 3 * abs((0.95 + 0.91 + 1) / 3 - 2 / 3)) / 5)


def test_probabilities_are_those_of_the_loss():
    predictions = {"scores": np.array([[0.0, np.log(3.0)]], np.float32)}
    np.testing.assert_allclose(tallies.class_probabilities(predictions, "softmax"), [[0.25, 0.75]], rtol=1e-6)
    np.testing.assert_allclose(tallies.class_probabilities(predictions, "sigmoid"), [[0.5, 0.75]], rtol=1e-6)
    assert tallies.class_probabilities(predictions | {"classes": np.zeros((1, 2))}, "softmax") is None


def test_the_page_shows_accuracy_classes_and_the_readings_of_the_test_split(tmp_path):
    texts = texts_of(page_of(write_finished_run(tmp_path / "run", reads=3)))
    card = texts.index("test accuracy")
    assert texts[card + 1 : card + 3] == ["60.00 %", "31.3\u201383.2 %, n 10"]  # Wilson of 6 of 10
    # Two of the three bees are predicted as bees, and two of the three predictions of bees are right.
    row = texts.index("bee", texts.index("recall"))
    assert texts[row : row + 6] == ["bee", "3", "66.7 %", "20.8\u201393.9 %", "66.7 %", "20.8\u201393.9 %"]
    assert any(text.startswith("The test split was read 3 times (by train)") for text in texts)


def test_mistakes_stand_with_both_classes_and_probabilities(run):
    texts = texts_of(page_of(run))
    start = texts.index("Worst mistakes")
    # scores 3, 0, 0: the softmax is 91 % and 5 %
    assert texts[start + 2 : start + 6] == ["ant", "5 %", "predicted as", "bee"]
    assert texts[start + 6] == "91 %"


def test_speed_leaves_the_time_before_the_first_line_out(run):
    # 10 steps of 32 images in a second
    assert facts.images_per_second(reader.read_run(run)) == pytest.approx(32 * 10 / 1.0)


def test_the_command_is_shown_with_a_new_folder(tmp_path):
    words = [
        "cnn-vit",
        "train",
        "--config=configs/digits_mlp.py",
        "--config.data.augment=('shift(1)',)",
        "--config.duration=2 epochs",
    ]
    run = write_finished_run(tmp_path / "run", command=shlex.join(words))
    command = facts.command_text(reader.read_run(run))
    assert shlex.split(command) == [*words, "--workdir=NEW_FOLDER"]


def test_settings_of_the_network_stand_with_their_meaning(tmp_path):
    """The meaning is that of the docstring of the network's class, for a keyword is no setting of all networks."""
    text = page_of(write_finished_run(tmp_path / "run", "model.hidden=(5,)"))
    assert re.search(r"model\.hidden</code>.*?units of each hidden layer", text, re.DOTALL)


def test_mixed_labels_are_shown_with_their_shares(tmp_path):
    samples = make_samples(make_predictions([0, 1], [0, 1], 3))
    samples |= {"seen_other": np.full(32, 2, np.int32), "seen_share": np.full(32, 0.71, np.float32)}
    texts = texts_of(page_of(write_finished_run(tmp_path / "run", samples=samples)))
    assert "ant 71 %, cat 29 %" in texts


def test_images_that_are_stored_larger_than_the_data_says_are_not_called_reduced(tmp_path):
    """Such a folder is damaged, and has a page all the same."""
    samples = make_samples(make_predictions([0, 1], [0, 1], 3)) | {"patches": np.array([4, 2, 2], np.int32)}
    text = page_of(write_finished_run(tmp_path / "run", samples=samples, shape=(4, 4, 1)))
    assert "2 x 2 patches of 4 x 4 pixels" in text
    assert "shown smaller than they are" not in text


# Bytes ----------------------------------------------------------------------------------------------------------------


def test_the_same_folder_gives_the_same_bytes_also_in_another_process(run, other_process, tmp_path):
    first = page_of(run, out=tmp_path / "a.html")
    assert page_of(run, out=tmp_path / "b.html") == first
    assert (other_process.process.returncode, other_process.process.stderr.decode()) == (0, "")
    assert other_process.path.read_text() == first


def test_a_page_of_the_same_files_is_left_as_it_is_and_of_others_made_anew(tmp_path):
    run = write_finished_run(tmp_path / "run")
    report.write(run)
    before = (run / "report.html").stat()
    report.write(run)
    assert (run / "report.html").stat().st_ino == before.st_ino
    files.append_line(run / "test_reads.jsonl", {"by": "evaluate"})
    report.write(run)
    assert (run / "report.html").stat().st_ino != before.st_ino
    assert "read 2 times (by train 1, by evaluate 1)" in " ".join(texts_of((run / "report.html").read_text()))


@pytest.fixture
def copied_package(tmp_path, monkeypatch):
    """A copy of the package's files, which the marks of pages are made of for the length of a test."""
    package = tmp_path / "cnn_vit"
    shutil.copytree(report.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(report, "PACKAGE", package)
    report.hash_makers.cache_clear()
    yield package
    report.hash_makers.cache_clear()


@pytest.mark.parametrize(
    "name",
    [
        "analysis/table.py",
        "models/mlp.py",
        "nn/dense.py",
        "plots/style.py",
        "reports/run.html",
        "runs/journal.py",
        "settings/record.py",
        "trees.py",
    ],
)
def test_a_page_is_made_anew_where_code_that_makes_it_changed(tmp_path, copied_package, name):
    run = write_finished_run(tmp_path / "run")
    report.write(run)
    before = (run / "report.html").stat()
    with open(copied_package / name, "a") as file:
        file.write("#")
    report.hash_makers.cache_clear()
    report.write(run)
    assert (run / "report.html").stat().st_ino != before.st_ino


def test_a_page_is_made_anew_for_another_version_of_a_library(tmp_path, monkeypatch):
    run = write_finished_run(tmp_path / "run")
    report.write(run)
    before = (run / "report.html").stat()
    monkeypatch.setattr(report.importlib.metadata, "version", lambda name: "0.0")
    report.hash_makers.cache_clear()
    report.write(run)
    report.hash_makers.cache_clear()
    assert (run / "report.html").stat().st_ino != before.st_ino


def test_every_module_that_a_page_loads_counts_as_its_maker(other_process):
    loaded = set()
    for module in other_process.modules:
        if module.startswith("cnn_vit"):
            path = Path(report.PACKAGE, *module.split(".")[1:])
            loaded.add(path / "__init__.py" if path.is_dir() else path.with_suffix(".py"))
    assert len(loaded) > 20
    assert loaded <= set(report.list_code_files())


def test_a_page_holds_all_it_shows_and_no_script(run):
    html = page_of(run)
    tags = PageParser(html).tags
    assert not {tag for tag, _ in tags} & {"script", "link", "iframe", "object", "embed", "form"}
    for tag, attributes in tags:
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "data:").startswith(("data:", "#")), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")]
    addresses = set(re.findall(r"https?://[\w./]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not re.search(r"url\((?!#)|@import", html)


@pytest.mark.slow
def test_the_largest_page_is_under_3_mb(tmp_path):
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 1000, (2, 20_000))
    samples = make_samples(make_predictions(labels, predicted, 1000), side=128, channels=3) | {
        "filters_before": rng.normal(size=(64, 16, 16, 3)).astype(np.float32),
        "filters_after": rng.normal(size=(64, 16, 16, 3)).astype(np.float32),
        "similarity": rng.uniform(-1, 1, (14, 14, 14, 14)).astype(np.float32),
        "patches": np.array([16, 14, 14], np.int32),
    }
    run = write_finished_run(
        tmp_path / "run",
        names=[f"class number {k} of a thousand" for k in range(1000)],
        labels=labels,
        predicted=predicted,
        samples=samples,
        lines=make_metrics(range(10, 50_000, 10)),
        shape=(224, 224, 3),
    )
    assert len(page_of(run)) < 3_000_000


def test_plots_stand_beside_the_page_as_files(run):
    report.write(run)
    assert {path.stem for path in (run / "plots").iterdir()} == {
        "accuracy", "calibration", "classes", "confusion_test", "confusion_validation", "gradient_norm",
        "learning_rate", "loss", "overview",
    }  # fmt: skip


# Whatever a folder holds ----------------------------------------------------------------------------------------------


def test_names_are_text_whatever_they_hold(tmp_path):
    names = ["<script>alert(1)</script>", "\x1b[31mred", "a & b\u202e"]
    text = page_of(write_finished_run(tmp_path / "run", names=names, command="<img src=x onerror=alert(1)>"))
    assert "<script" not in text
    assert "<img src=x" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    texts = texts_of(text)
    assert names[0] in texts
    assert "\\x1b[31mred" in texts
    assert "a & b\\u202e" in texts


def test_a_run_under_way_shows_what_there_is(tmp_path):
    run = make_unfinished(write_finished_run(tmp_path / "run", "duration=40 steps"))
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"kind": "train", "st')  # a line that is being written
    record, path = report.write(run)
    text = " ".join(texts_of(path.read_text()))
    assert record.problems == ()
    assert "not finished: step 20 of 40" in text
    assert "best validation so far 60.00 %" in text
    assert "Where it errs" not in text


def test_a_run_without_a_line_yet_has_a_page(tmp_path):
    run = make_unfinished(write_finished_run(tmp_path / "run"))
    for name in ("metrics.jsonl", "timing.jsonl"):
        (run / name).unlink()
    assert "No step has been written down yet." in page_of(run)


FILES = ["data.json", "environment.json", "metrics.jsonl", "timing.jsonl", "result.json", "samples.npz",
         "predictions/test.npz", "predictions/validation.npz"]  # fmt: skip
SEALED = ("data.json", "metrics.jsonl", "result.json")
MISTYPED = {
    "json": b'{"counts": {"train": "many"}, "versions": [], "tested": 3}\n',
    "jsonl": b'{"step": 1, "kind": "train", "loss": "high", "seconds": "long"}\n',
}  # content of the right format with values of wrong types, by the ending of the file


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["cut", "noise", "other"])
def test_a_damaged_file_is_named(tmp_path, name, damage):
    run = write_finished_run(tmp_path / "run")
    content = (run / name).read_bytes()
    if damage == "cut":
        damaged = content[: len(content) // 2]
    elif damage == "noise":
        damaged = b"\xff\x00 not what it was\n" * 3
    elif name.endswith(".npz"):  # the arrays of another file
        damaged = (run / ("samples.npz" if "predictions" in name else "predictions/test.npz")).read_bytes()
    else:
        damaged = MISTYPED[name.rpartition(".")[2]]
    (run / name).write_bytes(damaged)
    if name in SEALED:
        with pytest.raises(RunDamageError, match=str(run / name)) as error:
            reader.read_run(run)
        assert error.value.code == 3
        return
    problems = reader.read_run(run).problems
    if (name, damage) == ("timing.jsonl", "cut"):  # a clock's last line may be torn
        assert problems == ()
    else:
        assert len(problems) == 1
        assert str(run / name) in problems[0]


@pytest.mark.parametrize("name", ["data.json", "metrics.jsonl"])
def test_a_sealed_file_that_no_run_writes_is_named_beside_the_rest(tmp_path, name):
    """As another version of this program may have written and sealed it."""
    run = write_finished_run(tmp_path / "run")
    (run / name).write_bytes(MISTYPED[name.rpartition(".")[2]])
    (problem,) = reader.read_run(reseal(run)).problems
    assert str(run / name) in problem


def test_a_damaged_file_is_named_on_the_page_beside_the_rest(tmp_path):
    run = write_finished_run(tmp_path / "run")
    (run / "samples.npz").write_bytes(b"<b>")
    texts = texts_of(page_of(run))
    assert any(text.startswith(f"{run / 'samples.npz'} is not as it was written") for text in texts)
    assert "Where it errs: validation" in texts
    assert "Worst mistakes" not in texts


@pytest.mark.parametrize("name", [name for name in FILES if name not in ("result.json", "timing.jsonl")])
def test_what_a_finished_run_lacks_is_named(tmp_path, name):
    run = write_finished_run(tmp_path / "run")
    (run / name).unlink()
    if name in SEALED:
        with pytest.raises(RunDamageError, match=f"{run / name} has disappeared since result.json sealed it; "):
            reader.read_run(run)
    else:
        assert [problem.partition(" is missing")[0] for problem in reader.read_run(run).problems] == [str(run / name)]


@pytest.mark.parametrize("name", ["config.json", "classes.json"])
def test_a_folder_that_holds_no_run_is_refused_in_one_sentence(tmp_path, name):
    run = make_unfinished(write_finished_run(tmp_path / "run"))  # nothing is sealed
    (run / name).unlink()
    with pytest.raises(UserError, match="holds no run"):
        report.write(run)
    (run / name).write_text('{"a": 1}')
    with pytest.raises(UserError, match=name):
        report.write(run)


def test_no_file_that_a_run_names_is_executed(tmp_path):
    spy = tmp_path / "spy.py"
    spy.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    run = write_finished_run(tmp_path / "run", f"data.path={spy}:images")
    config = json.loads((run / "config.json").read_text())
    config["recipe"] = str(spy)
    (run / "config.json").write_text(json.dumps(config))
    page_of(reseal(run))
    assert not (tmp_path / "ran").exists()


def test_a_network_that_no_longer_exists_leaves_the_table_out_with_the_reason(tmp_path):
    text = " ".join(texts_of(page_of(write_finished_run(tmp_path / "run", "model.name=mlp/gone"))))
    assert "There is no table of layers: mlp has no 'gone'" in text
