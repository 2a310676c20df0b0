"""`doctor --data`: its table, its record, its images and its exit code."""

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

SPLITS = {"train": 12, "val": 3, "test": 2}


def photograph(at, side=48):
    """Images of a few soft colors, none like another."""
    small = np.random.default_rng(at).integers(0, 256, (5, 5, 3), np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


@pytest.fixture
def photos(tmp_path):
    """Two classes in three splits, nothing wrong."""
    places = [(split, name, at) for split, count in SPLITS.items() for name in ("cats", "dogs") for at in range(count)]
    for number, (split, name, at) in enumerate(places):
        (tmp_path / "photos" / split / name).mkdir(parents=True, exist_ok=True)
        photograph(number).save(tmp_path / "photos" / split / name / f"{at:03}.png")
    return tmp_path / "photos"


def test_a_sound_folder_is_told_as_a_table_and_ends_with_0(photos, capsys):
    assert main(["doctor", f"--data={photos}"]) == 0
    found = capsys.readouterr()
    assert (
        found.out
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
next: cnn-vit doctor --data={photos} --images=images.svg
"""
    )
    assert found.err == ""


def test_errors_end_with_2_and_the_first_of_them_last_on_stderr(photos, capsys):
    (photos / "train/cats/bad.jpg").write_bytes(b"")
    shutil.copy(photos / "train/cats/000.png", photos / "test/cats/again.png")
    assert main(["doctor", f"--data={photos}"]) == 2
    found = capsys.readouterr()
    assert "train/cats/bad.jpg  empty, 0 bytes; replace it or take it away" in found.out
    assert "repeated  1 group of 2 images with the same pixels" in found.out
    assert [line.split()[0] for line in found.out.partition("problems\n")[2].splitlines()] == [
        "error",
        "error",
        "next:",
    ]
    assert found.err == (
        "2 errors, the first: 1 image cannot be read: train/cats/bad.jpg (empty, 0 bytes); replace it or take it "
        "away, or leave such out with --config.data.on_bad_image=skip\n"
    )


def test_warnings_alone_end_with_0(photos, capsys):
    shutil.copy(photos / "train/cats/000.png", photos / "train/cats/again.png")
    assert main(["doctor", f"--data={photos}"]) == 0
    found = capsys.readouterr()
    assert "  warning  1 image of train repeats another of it" in found.out
    assert found.err == ""


def test_json_is_one_object_on_one_line_with_all_of_it(photos, capsys):
    for at in range(30):
        (photos / f"train/cats/bad{at}.jpg").write_bytes(b"text")
    assert main(["doctor", f"--data={photos}", "--json"]) == 2
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    found = json.loads(out)
    assert list(found) == [
        "source", "path", "classes", "splits", "images", "sizes", "formats", "colors", "ignored", "notes", "broken",
        "skipped",
        "duplicates", "blank", "names", "problems",
    ]  # fmt: skip
    assert len(found["broken"]) == 30
    assert set(found["problems"][0]) == {"level", "sentence"}
    assert main(["doctor", f"--data={photos}"]) == 2
    assert "... 20 more" in capsys.readouterr().out


def test_a_line_of_a_narrow_terminal_is_never_longer_than_it(photos, capsys, monkeypatch):
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
    for at in range(40):
        (tmp_path / "root" / f"class{at:02}").mkdir(parents=True)
        for number in range(10 + at):
            Image.fromarray(np.full((1, 1), at, np.uint8)).save(tmp_path / f"root/class{at:02}/{number}.png")
    from cnn_vit.data.audit import survey

    rows = _survey.per_class(survey.survey({"name": "folder", "path": f"{tmp_path}/root"}))
    assert [row[0] for row in rows[1:11]] == [f"class{at}" for at in range(39, 29, -1)]
    assert rows[11][0] == "... 20 more"
    assert [row[0] for row in rows[12:22]] == [f"class{at:02}" for at in range(9, -1, -1)]
    assert rows[22][0] == "all"
    assert sum(int(cell.replace(",", "")) for cell in rows[22][1:]) == sum(range(10, 50))


def test_images_are_a_drawing_with_a_row_of_each_class_and_of_what_repeats(photos, tmp_path, capsys):
    shutil.copy(photos / "train/cats/000.png", photos / "train/cats/again.png")
    assert main(["doctor", f"--data={photos}", f"--images={tmp_path}/seen.svg"]) == 0
    assert f"images  {tmp_path}/seen.svg" in capsys.readouterr().out
    text = (tmp_path / "seen.svg").read_text()
    root = ElementTree.fromstring(text)
    words = [one.text for one in root.iter("{http://www.w3.org/2000/svg}text")]
    assert words[1:] == ["cats", "18", "dogs", "17", "same", "train/cats"]
    images = [one.attrib for one in root.iter("{http://www.w3.org/2000/svg}image")]
    assert [int(one["width"]) // 66 for one in images] == [10, 10, 2]  # 64 pixels each and 2 between
    for one in images:
        content = base64.b64decode(one["{http://www.w3.org/1999/xlink}href"].partition(",")[2])
        assert Image.open(io.BytesIO(content)).size == (int(one["width"]), int(one["height"]))
    assert "<script" not in text
    assert main(["doctor", f"--data={photos}", f"--images={tmp_path}/again.svg"]) == 0
    assert (tmp_path / "again.svg").read_text() == text


def test_a_source_by_name_is_looked_at(capsys):
    assert main(["doctor", "--data=digits", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == len(load_digits().images)
    assert found["problems"] == []


def test_a_recipes_data_are_looked_at_in_its_splits(photos, capsys):
    given = ["--config=configs/folder_resnet.py", f"--config.data.path={photos}", "--config.data.train=train[:50%]"]
    assert main(["doctor", *given, "--json"]) == 0
    found = capsys.readouterr()
    assert json.loads(found.out)["splits"] == {
        "train": {"cats": 6, "dogs": 6}, "validation": {"cats": 3, "dogs": 3}, "test": {"cats": 2, "dogs": 2},
    }  # fmt: skip
    assert re.search(r"^next: cnn-vit doctor --config=configs/folder_resnet.py '?--config.data.path=", found.err, re.M)


@pytest.mark.parametrize(("words", "sentence"), [
    (["--data=x", "--config=configs/digits_mlp.py"], "--config and --data both name data; give one of them"),
    (["--config.data.path=x"], "--config.data.path=x sets something of a recipe that is not named; add --"),
    (["--images=a.svg"], "--images draws images of data; add --data=PATH"),
    (["--data=digits", "--images=a.png"], "--images=a.png is drawn as SVG; give it a name that ends in .svg"),
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
