"""`evaluate`: the run's own numbers again, on any split and batch size, and what it refuses."""

import json

import numpy as np
import pytest
from PIL import Image

import cnn_vit
from cnn_vit.__main__ import main


def answer(capsys, words):
    """The JSON object that a command prints."""
    assert main([*words, "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)


def test_it_gives_the_numbers_of_the_result(run, capsys):
    result = json.loads((run / "result.json").read_text())
    for split in ("test", "validation"):
        found = answer(capsys, ["evaluate", f"--workdir={run}", f"--split={split}"])
        assert found["split"] == split
        assert found["n"] == result["counts"][split]
        assert found["accuracy"] == result[split]["accuracy"]
        assert found["loss"] == pytest.approx(result[split]["loss"], rel=1e-6)


def test_the_verb_takes_the_name_of_a_source(run):
    """Its line in the list of readings is written as the command's is."""
    result, reads = json.loads((run / "result.json").read_text()), run / "test_reads.jsonl"
    before = len(reads.read_text().splitlines())
    found = cnn_vit.evaluate(cnn_vit.load(run), "digits", "test")
    assert found["accuracy"] == result["test"]["accuracy"]
    assert [json.loads(line)["by"] for line in reads.read_text().splitlines()[before:]] == ["evaluate"]


@pytest.mark.parametrize("size", [1, 7, 512])
def test_the_batch_size_changes_nothing(run, capsys, size):
    whole = answer(capsys, ["evaluate", f"--workdir={run}", "--split=validation"])
    found = answer(capsys, ["evaluate", f"--workdir={run}", "--split=validation", f"--batch_size={size}"])
    assert found | {"loss": 0} == whole | {"loss": 0}
    assert found["loss"] == pytest.approx(whole["loss"], rel=1e-6, abs=1e-7)


def test_accuracy_is_the_share_of_right_predictions_kept(run, capsys):
    kept = np.load(run / "predictions" / "test.npz")
    right = kept["predicted"] == kept["label"]
    assert answer(capsys, ["evaluate", f"--workdir={run}"])["accuracy"] == pytest.approx(right.mean(), abs=1e-12)


def test_each_look_at_the_test_split_leaves_a_line(run, capsys):
    reads = run / "test_reads.jsonl"
    before = len(reads.read_text().splitlines())
    answer(capsys, ["evaluate", f"--workdir={run}", "--split=validation"])
    assert len(reads.read_text().splitlines()) == before
    answer(capsys, ["evaluate", f"--workdir={run}"])
    lines = reads.read_text().splitlines()
    assert len(lines) == before + 1
    assert json.loads(lines[-1])["by"] == "evaluate"


def test_data_of_other_classes_are_refused_with_both_lists(run, capsys, tmp_path):
    pixels = np.zeros((40, 8, 8), np.uint8)
    path = tmp_path / "two.npz"
    np.savez(path, train_x=pixels, train_y=[0, 1] * 20, test_x=pixels, test_y=[0, 1] * 20)
    assert main(["evaluate", f"--workdir={run}", f"--data={path}"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]" in line
    assert "[0, 1]" in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--split=tset"], "no split 'tset'; did you mean test?"),
        (["--batch_size=0"], "--batch_size=0 must be at least 1"),
        (["--data=nowhere"], "nowhere is not there"),
        (["--config.data.path=x"], "--config.data.path=x sets something of a recipe that is not named"),
        (["--config=configs/digits_mlp.py", "--data=x"], "--config and --data both name data; give one of them"),
    ],
)
def test_wrong_words_are_one_line_and_exit_2(run, capsys, words, said):
    assert main(["evaluate", f"--workdir={run}", *words]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(said)


def test_a_folder_without_a_run_is_refused(capsys, tmp_path):
    assert main(["evaluate", f"--workdir={tmp_path}"]) == 2
    assert "holds no run" in capsys.readouterr().err.splitlines()[-1]


def test_images_that_lie_in_no_split_say_which_of_them_were_judged(run, capsys, tmp_path):
    for kind in range(10):
        (tmp_path / str(kind)).mkdir()
        for number in range(10):
            Image.fromarray(np.full((8, 8), 20 * kind + number, np.uint8)).save(tmp_path / str(kind) / f"{number}.png")
    assert main(["evaluate", f"--workdir={run}", f"--data={tmp_path}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["examples", "10"] for line in lines)
    assert any("no split folders: a stratified tenth is test" in line for line in lines)
