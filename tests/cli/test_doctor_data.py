"""`doctor --data`: its table, its record, its gallery and its exit code."""

import base64
import io
import json
import re
import shutil
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from cnn_vit import cli
from cnn_vit.__main__ import main
from cnn_vit.cli import _survey

SPLITS = {"train": 12, "val": 3, "test": 2}  # images of each class
SVG = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"


def photograph(seed, side=48):
    """An image of a few soft colors; none is like another."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


@pytest.fixture
def photos(tmp_path):
    """A folder of two classes in three splits, with nothing wrong."""
    seed = 0
    for split, count in SPLITS.items():
        for class_name in ("cats", "dogs"):
            folder = tmp_path / "photos" / split / class_name
            folder.mkdir(parents=True)
            for number in range(count):
                photograph(seed).save(folder / f"{number:03}.png")
                seed += 1
    return tmp_path / "photos"


def test_a_folder_without_problems_is_shown_as_a_table_and_ends_with_0(photos, capsys):
    assert main(["doctor", f"--data={photos}"]) == 0
    printed = capsys.readouterr()
    assert (
        printed.out
        == f"""{photos}: 34 images, 2 classes

        train  validation  test
  cats     12           3     2
  dogs     12           3     2
  all      24           6     4

sizes     all 48x48 pixels
formats   PNG 34
colors    color 34
repeated  nothing

problems
  none
next: cnn-vit doctor --data={photos} --gallery=gallery.svg
"""
    )
    assert printed.err == ""


def test_errors_end_with_2_and_the_first_of_them_is_last_on_stderr(photos, capsys):
    (photos / "train/cats/bad.jpg").write_bytes(b"")
    shutil.copy(photos / "train/cats/000.png", photos / "test/cats/again.png")
    assert main(["doctor", f"--data={photos}"]) == 2
    printed = capsys.readouterr()
    assert "train/cats/bad.jpg  empty, 0 bytes; replace it or remove it" in printed.out
    assert "repeated  1 group of 2 images with the same pixels" in printed.out
    problem_lines = printed.out.partition("problems\n")[2].splitlines()
    assert [line.split()[0] for line in problem_lines] == ["error", "error", "next:"]
    assert printed.err == (
        "2 errors, the first: 1 image cannot be read: train/cats/bad.jpg (empty, 0 bytes); replace it or remove "
        "it, or leave such files out with --config.data.on_bad_image=skip\n"
    )


def test_warnings_alone_end_with_0(photos, capsys):
    shutil.copy(photos / "train/cats/000.png", photos / "train/cats/again.png")
    assert main(["doctor", f"--data={photos}"]) == 0
    printed = capsys.readouterr()
    assert "  warning  1 image of train repeats another of it" in printed.out
    assert printed.err == ""


def test_json_is_one_object_on_one_line_with_all_of_it(photos, capsys):
    for number in range(30):
        (photos / f"train/cats/bad{number}.jpg").write_bytes(b"text")
    assert main(["doctor", f"--data={photos}", "--json"]) == 2
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    record = json.loads(printed)
    assert list(record) == [
        "source", "path", "classes", "splits", "images", "sizes", "formats", "colors", "ignored", "notes", "broken",
        "skipped",
        "duplicates", "blank", "names", "problems",
    ]  # fmt: skip
    assert len(record["broken"]) == 30
    assert set(record["problems"][0]) == {"level", "sentence"}
    assert main(["doctor", f"--data={photos}"]) == 2
    assert "... 20 more" in capsys.readouterr().out


def test_no_line_is_longer_than_a_narrow_terminal(photos, capsys, monkeypatch):
    (photos / "train/cats/bad.jpg").write_bytes(b"<html>")
    shutil.copy(photos / "train/cats/000.png", photos / "test/dogs/again.png")
    photograph(99, side=64).save(photos / "train/cats/cat.png")
    monkeypatch.setattr(cli, "terminal_width", lambda: 60)
    monkeypatch.chdir(photos.parent)
    assert main(["doctor", "--data=photos"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[:-1])) <= 60
    assert any("doctor" in line for line in lines[-1:])


def test_of_many_classes_the_largest_and_the_smallest_are_in_the_table(tmp_path):
    for label in range(40):
        folder = tmp_path / "root" / f"class{label:02}"
        folder.mkdir(parents=True)
        for number in range(10 + label):
            Image.fromarray(np.full((1, 1), label, np.uint8)).save(folder / f"{number}.png")
    from cnn_vit.data.audit import survey

    rows = _survey.class_rows(survey.survey({"name": "folder", "path": f"{tmp_path}/root"}))
    assert [row[0] for row in rows[1:11]] == [f"class{label}" for label in range(39, 29, -1)]
    assert rows[11][0] == "... 20 more"
    assert [row[0] for row in rows[12:22]] == [f"class{label:02}" for label in range(9, -1, -1)]
    assert rows[22][0] == "all"
    assert sum(int(cell.replace(",", "")) for cell in rows[22][1:]) == sum(range(10, 50))


def test_the_gallery_is_an_svg_with_a_row_for_each_class_and_for_what_repeats(photos, tmp_path, capsys):
    shutil.copy(photos / "train/cats/000.png", photos / "train/cats/again.png")
    assert main(["doctor", f"--data={photos}", f"--gallery={tmp_path}/seen.svg"]) == 0
    assert f"gallery  {tmp_path}/seen.svg" in capsys.readouterr().out
    svg = (tmp_path / "seen.svg").read_text()
    root = ElementTree.fromstring(svg)
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert texts[1:] == ["cats", "18", "dogs", "17", "same", "train/cats"]
    images = [image.attrib for image in root.iter(f"{SVG}image")]
    assert [int(image["width"]) // 66 for image in images] == [10, 10, 2]  # 64 pixels each and 2 between
    for image in images:
        content = base64.b64decode(image[HREF].partition(",")[2])
        assert Image.open(io.BytesIO(content)).size == (int(image["width"]), int(image["height"]))
    assert "<script" not in svg
    assert main(["doctor", f"--data={photos}", f"--gallery={tmp_path}/again.svg"]) == 0
    assert (tmp_path / "again.svg").read_text() == svg


def test_a_source_is_surveyed_by_its_name(capsys):
    assert main(["doctor", "--data=digits", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["images"] == len(load_digits().images)
    assert record["problems"] == []


def test_a_recipes_data_are_surveyed_in_its_splits(photos, capsys):
    words = ["--config=configs/folder_resnet.py", f"--config.data.path={photos}", "--config.data.train=train[:50%]"]
    assert main(["doctor", *words, "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["splits"] == {
        "train": {"cats": 6, "dogs": 6}, "validation": {"cats": 3, "dogs": 3}, "test": {"cats": 2, "dogs": 2},
    }  # fmt: skip
    next_line = r"^next: cnn-vit doctor --config=configs/folder_resnet.py '?--config.data.path="
    assert re.search(next_line, printed.err, re.M)


@pytest.mark.parametrize(("words", "sentence"), [
    (["--data=x", "--config=configs/digits_mlp.py"], "--config and --data both name data; give one of them"),
    (["--config.data.path=x"], "--config.data.path=x sets something of a recipe that is not named; add --"),
    (["--gallery=a.svg"], "--gallery draws images of data; add --data=PATH"),
    (["--data=digits", "--gallery=a.png"], "--gallery=a.png is drawn as SVG; give it a name that ends in .svg"),
    (["--data=digts"], "digts is not there; give a folder of images, a zip of one, an npz file or my_file.py:my"),
])  # fmt: skip
def test_words_that_do_not_go_together_are_refused(words, sentence, capsys):
    assert main(["doctor", *words]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(sentence)


def test_a_folder_without_classes_is_refused_as_training_would(tmp_path, capsys):
    (tmp_path / "root").mkdir()
    photograph(0).save(tmp_path / "root/a.png")
    assert main(["doctor", f"--data={tmp_path}/root"]) == 2
    assert "put each class's images in a folder of its own" in capsys.readouterr().err
