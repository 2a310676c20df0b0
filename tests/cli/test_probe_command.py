"""`probe` prints the accuracies of its probes, keeps features, and leaves a trace of each reading of a test split."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from cnn_vit import data
from cnn_vit.__main__ import main


@pytest.fixture(scope="module")
def workdir(run, tmp_path_factory):
    """A copy of the run, whose readings of the test split are this module's alone."""
    return shutil.copytree(run, tmp_path_factory.mktemp("probe") / "run")


@pytest.fixture(scope="module")
def glyphs(tmp_path_factory):
    """A folder of 16x12 color images of two classes, undivided: digits 3 and 8 of train, which the run was trained on.

    Their files are others than the run's arrays, so that nobody could know.
    """
    folder = tmp_path_factory.mktemp("glyphs") / "glyphs"
    split = data.load({"name": "digits"}).splits["train"]
    for digit, name in ((3, "three"), (8, "eight")):
        (folder / name).mkdir(parents=True)
        for row in np.flatnonzero(split.labels == digit)[:40]:
            gray = split.read(np.array([row]))[0, ..., 0]
            Image.fromarray(gray).convert("RGB").resize((16, 12)).save(folder / name / f"{row}.png")
    return folder


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path_factory):
    """An empty cache for each test: features that other code computed must not hide a fault of this code."""
    monkeypatch.setenv("CNN_VIT_CACHE", str(tmp_path_factory.mktemp("cache")))


def probe(capsys, workdir, *words):
    """The JSON object that `probe` prints."""
    assert main(["probe", f"--workdir={workdir}", *map(str, words), "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)


def read_lines(workdir):
    return [json.loads(line) for line in (workdir / "test_reads.jsonl").read_text().splitlines()]


def test_the_run_s_own_data_are_probed_and_each_method_leaves_a_line(workdir, capsys):
    lines_before = len(read_lines(workdir))
    answer = probe(capsys, workdir, "--draws=2")
    assert (answer["model"], answer["layer"], answer["dimensions"]) == ("mlp/test", "features", 8)
    assert answer["counts"] == {"train": 1293, "validation": 144, "test": 360}
    assert answer["classes"] == [str(digit) for digit in range(10)]
    assert answer["linear"]["test"]["n"] == answer["few_shot"][0]["n"] == 360
    reads = read_lines(workdir)[lines_before:]
    assert [(line["by"], line["method"], line["data"]) for line in reads] == [
        ("probe", method, None) for method in ("linear", "knn", "few_shot")
    ]
    accuracies = [
        answer["linear"]["test"]["accuracy"],
        answer["knn"]["test"]["accuracy"],
        answer["few_shot"][-1]["mean"],
    ]
    assert [line["accuracy"] for line in reads] == accuracies


def test_other_classes_of_other_images_are_probed_at_the_network_s_size(workdir, glyphs, capsys):
    answer = probe(capsys, workdir, f"--data={glyphs}", "--methods=linear, knn", "--draws=2")
    assert answer["classes"] == ["eight", "three"]
    assert answer["counts"] == {"train": 64, "validation": 8, "test": 8}
    assert answer["few_shot"] == []
    assert answer["linear"]["test"]["n"] == 8
    assert read_lines(workdir)[-1]["data"] == str(glyphs)


def test_what_was_probed_once_is_read_from_the_cache(workdir, glyphs, capsys, monkeypatch):
    words = [f"--data={glyphs}", "--methods=knn", "--layer=hidden/layers/0"]
    first = probe(capsys, workdir, *words)
    monkeypatch.setattr("cnn_vit.training.features.build_extract_step", lambda *_: pytest.fail("the network was run"))
    again = probe(capsys, workdir, *words)
    assert (first["from_cache"], again["from_cache"]) == ([], ["train", "validation", "test"])
    assert first | {"from_cache": again["from_cache"]} == again


def test_images_that_the_run_was_trained_on_are_counted(workdir, capsys, tmp_path):
    split = data.load({"name": "digits"}).splits["train"]
    pixels = split.read(np.arange(80))[..., 0]
    np.savez(
        tmp_path / "seen.npz", train_x=pixels, train_y=split.labels[:80], test_x=pixels[:30], test_y=split.labels[:30]
    )
    answer = probe(capsys, workdir, f"--data={tmp_path / 'seen.npz'}", "--methods=knn")
    assert any(note.startswith("30 of the 30 images were trained on") for note in answer["notes"])


def test_people_get_a_table_with_the_choice_and_the_intervals(workdir, glyphs, capsys):
    assert main(["probe", f"--workdir={workdir}", f"--data={glyphs}", "--draws=2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split("  ")[0]: line for line in lines}
    assert rows["layer"].split() == ["layer", "features,", "8", "numbers", "an", "image"]
    assert rows["probe"].split() == ["probe", "validation", "test"]
    assert " regularization " in rows["linear"]
    assert " k = " in rows["knn"]
    assert rows["linear"].count(" % (") == rows["knn"].count(" % (") == 2
    assert rows["few_shot, 5 a class"].count(" % (") == 1
    lowest, highest = re.search(r" 2 draws, ([\d.]+) to ([\d.]+) %", rows["few_shot, 5 a class"]).groups()
    mean = re.search(r"([\d.]+) % \(", rows["few_shot, 5 a class"])[1]
    assert (float(lowest) + float(highest)) / 2 == pytest.approx(float(mean), abs=0.11)  # of two draws
    test_column = rows["probe"].index("test")
    assert rows["few_shot, 5 a class"].index(" % (") > test_column
    assert rows["always the most frequent class"].index("50.00 % (") == test_column
    assert any(line.startswith("note") and "the 32 training images of eight" in line for line in lines)
    assert lines[-1] == f"next: cnn-vit features --workdir={workdir} --out=features.npz --data={glyphs}"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--methods=liner"], "no method of probe 'liner'; did you mean linear?"),
        (["--layer=hidden/0"], "no layer of mlp/test 'hidden/0'; did you mean hidden?"),
        (["--draws=1"], "draws=1 gives no interval; make it at least 2"),
        (
            ["--data=nowhere/"],
            "nowhere/ is not there; give a folder of images, a zip of one, an npz file or my_file.py",
        ),
    ],
)
def test_wrong_words_are_one_line_and_exit_2(workdir, capsys, words, line):
    assert main(["probe", f"--workdir={workdir}", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith(line)
