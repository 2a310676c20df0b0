"""`evaluate` gives the numbers of the run again, on any split and at any batch size; and what it refuses."""

import json

import numpy as np
import pytest
from PIL import Image

import cnn_vit
from cnn_vit.__main__ import main


def evaluate(capsys, run, *words):
    """The JSON object that `evaluate` prints for a run folder."""
    assert main(["evaluate", f"--workdir={run}", *words, "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)


def test_it_gives_the_numbers_of_the_result(run, capsys):
    result = json.loads((run / "result.json").read_text())
    for split in ("test", "validation"):
        metrics = evaluate(capsys, run, f"--split={split}")
        assert metrics["split"] == split
        assert metrics["n"] == result["counts"][split]
        assert metrics["accuracy"] == result[split]["accuracy"]
        assert metrics["loss"] == pytest.approx(result[split]["loss"], rel=1e-6)


def test_the_verb_takes_the_name_of_a_source(run):
    """Its line in the list of test readings is written as that of the command is."""
    result = json.loads((run / "result.json").read_text())
    reads = run / "test_reads.jsonl"
    count_before = len(reads.read_text().splitlines())
    metrics = cnn_vit.evaluate(cnn_vit.load(run), "digits", "test")
    assert metrics["accuracy"] == result["test"]["accuracy"]
    new_lines = reads.read_text().splitlines()[count_before:]
    assert [json.loads(line)["by"] for line in new_lines] == ["evaluate"]


@pytest.mark.parametrize("size", [1, 7, 512])
def test_the_batch_size_changes_nothing(run, capsys, size):
    usual = evaluate(capsys, run, "--split=validation")
    metrics = evaluate(capsys, run, "--split=validation", f"--batch_size={size}")
    assert metrics | {"loss": 0} == usual | {"loss": 0}
    assert metrics["loss"] == pytest.approx(usual["loss"], rel=1e-6, abs=1e-7)


def test_accuracy_is_the_share_of_right_predictions_in_the_run_folder(run, capsys):
    predictions = np.load(run / "predictions" / "test.npz")
    is_right = predictions["predicted"] == predictions["label"]
    assert evaluate(capsys, run)["accuracy"] == pytest.approx(is_right.mean(), abs=1e-12)


def test_each_reading_of_the_test_split_leaves_a_line(run, capsys):
    reads = run / "test_reads.jsonl"
    count_before = len(reads.read_text().splitlines())
    evaluate(capsys, run, "--split=validation")
    assert len(reads.read_text().splitlines()) == count_before
    evaluate(capsys, run)
    lines = reads.read_text().splitlines()
    assert len(lines) == count_before + 1
    assert json.loads(lines[-1])["by"] == "evaluate"


def test_data_of_other_classes_are_refused_with_both_lists(run, capsys, tmp_path):
    pixels = np.zeros((40, 8, 8), np.uint8)
    path = tmp_path / "two.npz"
    names = np.array(["nought", "1"])
    np.savez(path, train_x=pixels, train_y=[0, 1] * 20, test_x=pixels, test_y=[0, 1] * 20, class_names=names)
    assert main(["evaluate", f"--workdir={run}", f"--data={path}"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "does not know the class nought of the data; it knows [0, 1, 2, 3, 4, ... 10 in all]" in line
    assert "the data have [nought, 1]" in line


@pytest.mark.parametrize(
    ("words", "beginning"),
    [
        (["--split=tset"], "no split 'tset'; did you mean test?"),
        (["--batch_size=0"], "--batch_size=0 must be at least 1"),
        (["--data=nowhere"], "nowhere is not there"),
        (["--config.data.path=x"], "--config.data.path=x sets something of a recipe that is not named"),
        (["--config=configs/digits_mlp.py", "--data=x"], "--config and --data both name data; give one of them"),
    ],
)
def test_wrong_words_are_one_line_and_exit_2(run, capsys, words, beginning):
    assert main(["evaluate", f"--workdir={run}", *words]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(beginning)


def test_a_folder_without_a_run_is_refused(capsys, tmp_path):
    assert main(["evaluate", f"--workdir={tmp_path}"]) == 2
    assert "holds no run" in capsys.readouterr().err.splitlines()[-1]


def test_of_images_in_no_split_all_are_evaluated_and_the_answer_says_so(run, capsys, tmp_path):
    for digit in range(9):
        folder = tmp_path / str(digit)
        folder.mkdir()
        for number in range(10):
            Image.fromarray(np.full((8, 8), 20 * digit + number, np.uint8)).save(folder / f"{number}.png")
    assert main(["evaluate", f"--workdir={run}", f"--data={tmp_path}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["examples", "90"] for line in lines)
    assert lines[0] == "all"
    assert any("no split folders: all images are evaluated" in line for line in lines)
    assert any(line.split()[:8] == ["note", "the", "data", "have", "no", "image", "of", "9:"] for line in lines)
