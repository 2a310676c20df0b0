"""Images of 16 bits that use few levels: seen over all of them, said with the remedy, and not taken for copies."""

import json

import numpy as np
import pytest
from image_files import noise
from PIL import Image

from cnn_vit import data, settings
from cnn_vit.data.audit import findings, survey
from cnn_vit.data.reading import checking, decoded, levels, materialize
from cnn_vit.errors import UserError
from cnn_vit.files import cache
from cnn_vit.runs import description

SENTENCE = (
    "images of 16 bits have levels of 0 to 4,000, so that they are nearly black where 65,535 is white; if the data "
    "have 12 bits, set data.levels=4095"
)


def write_dark(root, *, highest=4000, count=3, split_of_highest="val"):
    """Writes 16-bit PNG files whose levels reach `highest` in one image of one split alone."""
    for split in ("train", "val", "test"):
        for label, name in enumerate("ab"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                # Every image has another level, of which 8 bits make 0 to 3.
                pixels = np.full((6, 6), 300 + 40 * label + 7 * number + len(split), np.uint16)
                if (split, label, number) == (split_of_highest, 1, count - 1):
                    pixels[0, 0] = highest
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return {"name": "folder", "path": str(root)}


@pytest.fixture(autouse=True)
def cache_folder(tmp_path):
    """The folder of a cache of the test's own."""
    cache.configure(folder=tmp_path / "cache")
    return tmp_path / "cache"


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("memory", [2**29, 0])
def test_levels_of_twelve_bits_are_said_whatever_split_has_the_highest_and_however_it_is_read(
    tmp_path, monkeypatch, split, memory
):
    monkeypatch.setattr(materialize, "MEMORY", memory)
    monkeypatch.setattr(decoded, "LEAST_ENCODED", 0)
    section = write_dark(tmp_path / "root", split_of_highest=split)
    for _ in range(2):  # the second time they come from the cache
        assert data.load(section).warnings() == [SENTENCE]
    assert data.load({**section, "levels": 4095}).warnings() == []


def test_of_too_many_files_some_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(materialize, "MEMORY", 0)
    monkeypatch.setattr(checking, "MOST_DECODED", 1)
    section = write_dark(tmp_path / "root")
    assert data.load(section).warnings() == [SENTENCE.replace("4,000,", "4,000 as far as they were looked at,")]
    assert data.load({**section, "check": "none", "image_size": 6, "channels": 1}).warnings() == []  # as was asked for


@pytest.mark.parametrize(
    ("highest", "remedy"),
    [(255, "8 bits, set data.levels=255"), (1023, "levels=1023"), (1024, "levels=4095"), (16383, "levels=16383"),
     (16384, None), (65535, None), (None, None)],
)  # fmt: skip
def test_the_remedy_is_the_least_usual_depth_that_holds_all_levels(highest, remedy):
    sentence = levels.describe_dark_levels(highest, None, is_sampled=False)
    if remedy is None:
        assert sentence is None
    else:
        assert sentence.endswith(remedy)


def test_a_setting_that_says_nothing_of_any_image_is_said(tmp_path):
    for split in ("train", "val"):
        for name in "ab":
            (tmp_path / "root" / split / name).mkdir(parents=True)
            Image.fromarray(noise(4, 4)).save(tmp_path / "root" / split / name / "x.png")
    dataset = data.load({"name": "folder", "path": str(tmp_path / "root"), "levels": 4095})
    assert dataset.warnings() == ["data.levels=4095 says what is white in images of 16 bits, and there are none"]


def test_levels_above_the_setting_name_the_file(tmp_path):
    section = write_dark(tmp_path / "root")
    with pytest.raises(UserError, match=r"val/b/2.png cannot be read: a level of 4,000, above data.levels=1023; make"):
        data.load({**section, "levels": 1023})


def test_the_pixels_are_those_of_the_setting_also_where_others_were_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(decoded, "LEAST_ENCODED", 0)
    section = write_dark(tmp_path / "root")
    dark = data.load(section).splits["validation"].read(np.arange(6))
    bright = data.load({**section, "levels": 4095}).splits["validation"].read(np.arange(6))
    assert dark.max() == 16  # 4000 / 257
    assert bright.max() == 249  # 4000 * 255 / 4095


def test_a_generator_that_gives_twelve_bits_is_told_so_too(tmp_path):
    body = """
import numpy as np
from PIL import Image

def give(split):
    for index in range(4):
        yield Image.fromarray(np.full((4, 4), 1000 * (1 + index), np.uint16)), index % 2
"""
    (tmp_path / "mine.py").write_text(body)
    section = {"name": "generator", "path": f"{tmp_path}/mine.py:give"}
    assert data.load(section).warnings() == [SENTENCE]
    bright = data.load({**section, "levels": 4095})
    assert bright.warnings() == []
    assert bright.splits["train"].read(np.arange(4))[:, 0, 0, 0].tolist() == [62, 125, 187, 249]


def test_images_that_eight_bits_make_equal_are_not_copies(tmp_path):
    section = write_dark(tmp_path / "root")
    eight_bits = data.load(section).splits["train"].read(np.arange(6))
    assert len(np.unique(eight_bits, axis=0)) < 6  # some look the same
    surveyed = survey.survey(section)
    assert surveyed.duplicates == []
    problems = [problem.sentence for problem in findings.find_problems(surveyed)]
    assert SENTENCE in problems


def test_copies_of_sixteen_bits_are_found_in_another_format(tmp_path):
    section = write_dark(tmp_path / "root")
    Image.open(tmp_path / "root/train/a/0.png").save(tmp_path / "root/train/a/copy.tif")
    surveyed = survey.survey(section)
    [group] = surveyed.duplicates
    assert {surveyed.images[position].path.rpartition("/")[2] for position in group} == {"0.png", "copy.tif"}


def test_the_setting_is_in_the_fingerprint_and_in_preprocessing(tmp_path):
    root = tmp_path / "root"
    write_dark(root)
    recipe = "configs/digits_mlp.py"
    overrides = ["data.name=folder", f"data.path={root}", "data.classes=none"]
    plain = settings.load(recipe, overrides)
    bright = settings.load(recipe, [*overrides, "data.levels=4095", "data.max_pixels=99"])
    assert settings.fingerprint(plain, "") != settings.fingerprint(bright, "")
    assert settings.differences(bright, plain) == ["data.levels: 4095 here, None in the folder"]
    preprocessing = description.make_preprocessing(bright, data.load(bright.section("data")))
    assert (preprocessing["levels"], preprocessing["max_pixels"]) == (4095, 99)
    assert json.dumps(preprocessing)
