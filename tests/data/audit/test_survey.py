"""A whole data set looked at: what is counted, what is found wrong, and what is said of it."""

import os

import numpy as np
import pytest
import spoiled
from image_files import filled, noise, png, zipped
from PIL import Image

from cnn_vit import data
from cnn_vit.data.audit import findings, survey
from cnn_vit.errors import UserError

PLAIN = {"train/cats": 12, "train/dogs": 12, "val/cats": 3, "val/dogs": 3, "test/cats": 2, "test/dogs": 2}


def seen(path, **changes):
    return survey.survey({"name": "folder", "path": str(path), "workers": 2, **changes})


def said(path, level=None, **changes):
    return [one.sentence for one in findings.problems(seen(path, **changes)) if level in (None, one.level)]


def smooth(at):
    """Images that are far from each other and stay themselves in another format."""
    small = Image.fromarray(noise(5, 5, 3, seed=at))
    return np.asarray(small.resize((64, 64), Image.Resampling.BICUBIC))


def copied(root, source, target, change=lambda image: image, **options):
    """An image once more, as another file."""
    (root / target).parent.mkdir(parents=True, exist_ok=True)
    change(Image.open(root / source)).save(root / target, **options)


@pytest.fixture
def photos(tmp_path):
    """Two classes in three splits, nothing wrong."""
    root = tmp_path / "photos"
    for at, path in enumerate(filled(root, PLAIN)):
        (root / path).write_bytes(png(smooth(at)))
    return root


# Counted


@pytest.mark.parametrize("packed", [False, True])
def test_counts_are_those_of_training_and_there_is_nothing_to_say(photos, tmp_path, packed):
    path = zipped(photos, tmp_path / "a.zip") if packed else photos
    found = seen(path)
    loaded = data.load({"name": "folder", "path": str(path)})
    record = findings.to_record(found)
    assert record["splits"] == loaded.facts["class_counts"]
    assert record["problems"] == []
    assert (record["images"], record["formats"], record["colors"]) == (34, {"PNG": 34}, {"color": 34, "gray": 0})
    assert record["sizes"]["different"] == 1
    assert record["sizes"]["largest"] == list(loaded.image_shape[:2])


@pytest.mark.parametrize("counts", [{"cats": 40, "dogs": 25}, {"train/cats": 30, "train/dogs": 30}, PLAIN])
@pytest.mark.parametrize("slices", [{}, {"train": "train[:50%]", "validation": "train[50%:75%]"}])
def test_whatever_the_layout_and_the_slices_counts_are_those_of_training(tmp_path, counts, slices):
    filled(tmp_path / "root", counts)
    loaded = data.load({"name": "folder", "path": f"{tmp_path}/root", **slices})
    assert findings.to_record(seen(tmp_path / "root", **slices))["splits"] == loaded.facts["class_counts"]


def test_a_source_by_name_is_counted_as_well(tmp_path):
    found = survey.survey(survey.section_from_text("digits"))
    record = findings.to_record(found)
    assert record["splits"] == data.load({"name": "digits"}).facts["class_counts"]
    assert (record["sizes"]["commonest"]["size"], record["colors"]["gray"]) == ([8, 8], 1797)
    assert record["problems"] == []
    assert record["names"] is None


def test_sizes_formats_and_colors_are_told_as_the_images_stand_upright(photos):
    exif = Image.Exif()
    exif[0x0112] = 6
    copied(photos, "train/cats/000.png", "train/cats/000.png", lambda one: one.crop((0, 0, 64, 30)), exif=exif)
    copied(photos, "train/cats/001.png", "train/cats/001.jpg")
    (photos / "train/cats/001.png").unlink()
    copied(photos, "train/cats/002.png", "train/cats/002.png", lambda one: one.convert("L"))
    record = findings.to_record(seen(photos))
    assert record["formats"] == {"PNG": 33, "JPEG": 1}
    assert record["colors"] == {"color": 33, "gray": 1}
    assert record["sizes"] == {
        "different": 2, "smallest": [64, 30], "median": [64, 64], "largest": [64, 64],
        "commonest": {"size": [64, 64], "images": 33},
    }  # fmt: skip


def test_the_smallest_and_the_largest_are_images_that_are_there(tmp_path):
    """By area; the least of each side apart would be 8x5, which none is."""
    for size in ((8, 90), (60, 5), (30, 30)):
        filled(tmp_path / "root", {f"{kind}/{size[0]}": 4 for kind in ("cats", "dogs")}, size=size)
    sizes = findings.to_record(seen(tmp_path / "root"))["sizes"]
    assert (sizes["smallest"], sizes["largest"]) == ([60, 5], [30, 30])


@pytest.mark.parametrize("workers", [0, 4])
def test_threads_change_nothing_and_how_far_it_is_is_told(tmp_path, workers):
    filled(tmp_path / "root", {"cats": 90, "dogs": 80})
    told = []
    given = {"name": "folder", "path": f"{tmp_path}/root"}
    found = survey.survey({**given, "workers": workers}, told=lambda done, count: told.append((done, count)))
    assert findings.to_record(found) == findings.to_record(survey.survey({**given, "workers": 1}))
    assert told[-1] == (170, 170)
    assert {count for _, count in told} == {170}


# Found wrong


def test_every_file_that_cannot_be_read_is_named_with_reason_and_remedy(photos):
    every = spoiled.pictures()[::11]
    for one in every:
        (photos / "train/dogs" / one.name).write_bytes(one.content)
    os.mkfifo(photos / "val/dogs/pipe.png")
    found = seen(photos)
    record = findings.to_record(found)
    assert len(record["broken"]) == len(every) + 1
    by_path = {one["path"]: one for one in record["broken"]}
    for one in every:
        row = by_path[f"{photos}/train/dogs/{one.name}"]
        assert one.reason in row["reason"]
        assert row["remedy"] == one.remedy
        assert (row["split"], row["class"]) == ("train", "dogs")
    assert by_path[f"{photos}/val/dogs/pipe.png"]["split"] == "validation"
    (error,) = [one.sentence for one in findings.problems(found) if one.level == "error"]
    assert error.startswith(f"{len(every) + 1} images cannot be read: train/dogs/")
    assert error.endswith(", or leave such out with --config.data.on_bad_image=skip")
    assert record["images"] == 34 + len(every) + 1


def test_files_that_are_skipped_are_no_errors_and_are_not_counted(photos):
    (photos / "train/cats/bad.png").write_bytes(b"bad")
    found = seen(photos, on_bad_image="skip")
    assert (found.counts["train"].tolist(), len(found.broken)) == ([12, 12], 0)
    assert [one.level for one in findings.problems(found)] == ["warning"]
    (warning,) = said(photos, on_bad_image="skip")
    assert warning.startswith("1 image cannot be read and is left out: train/cats/bad.png (")
    assert [one["path"] for one in findings.to_record(found)["skipped"]] == [str(photos / "train/cats/bad.png")]


def test_images_on_both_sides_of_a_split_are_an_error(photos):
    copied(photos, "train/cats/000.png", "test/cats/a.bmp")  # the same pixels in another container
    copied(photos, "train/cats/001.png", "test/cats/b.jpg", lambda one: one.resize((40, 40)), quality=80)
    copied(photos, "train/cats/000.png", "test/cats/c.jpg", quality=80)
    copied(photos, "train/dogs/001.png", "val/dogs/d.png")
    errors = said(photos, "error")
    assert errors == [
        "1 image of validation is in train too, 1 with the same pixels (val/dogs/d.png and train/dogs/001.png); take "
        "one of each away, or accuracy on validation flatters",
        "3 images of test are in train too, 1 with the same pixels and 2 nearly so (test/cats/a.bmp and "
        "train/cats/000.png); take one of each away, or accuracy on test flatters",
    ]
    (warning,) = said(photos, "warning")
    assert warning.startswith("1 image of test repeats another of it, 1 nearly so (test/cats/c.jpg and ")


def test_a_folder_without_splits_is_looked_at_as_training_would_cut_it(tmp_path):
    filled(tmp_path / "root", {"cats": 30, "dogs": 30})
    test = data.load({"name": "folder", "path": f"{tmp_path}/root"}).splits["test"].names[0]
    train = data.load({"name": "folder", "path": f"{tmp_path}/root"}).splits["train"].names[0]
    (tmp_path / "root" / train).write_bytes((tmp_path / "root" / test).read_bytes())
    (error,) = [one for one in said(tmp_path / "root", "error") if "two classes" not in one]
    assert error.startswith("1 image of test is in train too, 1 with the same pixels (")
    assert seen(tmp_path / "root").notes[0].startswith("no split folders")


def test_an_image_in_two_classes_is_an_error(photos):
    copied(photos, "train/cats/000.png", "train/dogs/x.png")
    copied(photos, "train/cats/001.png", "train/dogs/y.jpg", quality=85)
    assert said(photos, "error") == [
        "1 image is in two classes, pixel for pixel (train/cats/000.png and train/dogs/x.png); look which is right "
        "and take the other away",
        "1 image is in two classes, nearly so (train/cats/001.png and train/dogs/y.jpg); look which is right and "
        "take the other away",
    ]


def test_what_repeats_inside_a_split_is_a_warning(photos):
    for name in ("x", "y"):
        copied(photos, "train/cats/000.png", f"train/cats/{name}.png")
    copied(photos, "train/cats/000.png", "train/cats/z.webp", quality=80)
    copied(photos, "val/cats/000.png", "val/cats/z.webp", quality=80)
    assert said(photos) == [
        "3 images of train repeat another of it, 2 with the same pixels and 1 nearly so (train/cats/x.png and "
        "train/cats/000.png); keep one of each",
        "1 image of validation repeats another of it, 1 nearly so (val/cats/z.webp and val/cats/000.png); keep one "
        "of each",
    ]
    record = findings.to_record(seen(photos))["duplicates"]
    assert [[one["path"].rpartition("/")[2] for one in group] for group in record["same"]] == [
        ["000.png", "x.png", "y.png"]
    ]
    assert [[one["split"] for one in group] for group in record["near"]] == [["train"] * 4, ["validation"] * 2]


def test_images_that_differ_in_one_pixel_are_not_the_same(photos):
    pixels = np.array(Image.open(photos / "train/cats/000.png"))
    pixels[-1, -1, -1] ^= 1
    Image.fromarray(pixels).save(photos / "train/cats/x.png")
    duplicates = findings.to_record(seen(photos))["duplicates"]
    assert duplicates["same"] == []
    assert [len(group) for group in duplicates["near"]] == [2]


def test_uneven_classes_are_told_with_the_setting_that_evens_them(tmp_path):
    filled(tmp_path / "root", {"train/cats": 36, "train/dogs": 12, "val/cats": 1, "val/dogs": 1})
    (warning,) = said(tmp_path / "root")
    assert warning.startswith("train has 3 times as many images of cats (36) as of dogs (12); ")
    assert "--config.loss.class_weight=balanced" in warning
    (tmp_path / "root/train/cats/035.png").unlink()
    assert said(tmp_path / "root") == []


def test_classes_with_few_images_or_none_are_told(tmp_path):
    filled(tmp_path / "root", {"train/cats": 12, "train/dogs": 9, "train/emus": 12, "val/cats": 2, "val/dogs": 1})
    for at in range(12):
        (tmp_path / f"root/train/emus/{at:03}.png").write_bytes(b"text")
    errors, warnings = (said(tmp_path / "root", level) for level in ("error", "warning"))
    assert errors[1:] == ["train has no image of emus that can be read; add some or take the class away"]
    assert warnings == [
        "train has fewer than 10 images of dogs; add some",
        "validation has no image of emus, so its accuracy says nothing about that; add some",
    ]


@pytest.mark.parametrize(("counts", "sentence"), [
    ({"cats": 2, "dogs": 2}, "4 images are too few to set a tenth apart"),
    ({"cats": 20}, "there is one class, cats; there must be two at least to tell apart"),
])  # fmt: skip
def test_what_training_refuses_is_told_and_the_rest_looked_at(tmp_path, counts, sentence):
    filled(tmp_path / "root", counts)
    assert any(one.startswith(sentence) for one in said(tmp_path / "root", "error"))
    assert len(seen(tmp_path / "root").seen) == sum(counts.values())


def test_images_of_one_color_are_told_and_are_like_no_others(photos):
    for at in range(3):
        Image.new("RGB", (20 + at, 20), (at, 0, 0)).save(photos / f"train/cats/blank{at}.png")
    (warning,) = said(photos)
    assert warning.startswith("3 images of one color throughout (train/cats/blank0.png, ")


def test_labels_in_file_names_are_told(photos):
    for path in photos.rglob("cats/*.png"):
        path.rename(path.with_name(f"Cat_{path.name}"))
    (warning,) = said(photos)
    assert warning.startswith("labels in file names: 17 file names say the class, of 34 (train/cats/Cat_000.png); ")
    (photos / "train/dogs/000.png").rename(photos / "train/dogs/cat.png")
    assert said(photos)[0].startswith("1 file name says another class than the folder (train/dogs/cat.png says cats); ")
    assert findings.to_record(seen(photos))["names"]["other_class"][0]["says"] == "cats"


def test_names_that_steer_a_terminal_are_written_out(tmp_path):
    filled(tmp_path / "root", {"train/a\x1b[31m": 12, "train/b\nc": 12, "val/a\x1b[31m": 2, "val/b\nc": 2})
    (tmp_path / "root/train/b\nc/\u202ex\n.png").write_bytes(b"text")
    (tmp_path / "root/train/a\x1b[31m/copy.png").write_bytes((tmp_path / "root/val/b\nc/000.png").read_bytes())
    found = said(tmp_path / "root")
    assert len(found) == 3
    assert all(one.isprintable() for one in found)


# What was asked for


@pytest.mark.parametrize(("text", "sentence"), [
    ("digit", "did you mean the source digits"), ("nowhere/", "nowhere/ is not there; give a folder"),
    ("folder", "the source folder must be told more than its name (data.name=folder needs a path"),
])  # fmt: skip
def test_what_is_neither_a_path_nor_a_source_is_refused(tmp_path, monkeypatch, text, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        survey.section_from_text(text)
    assert sentence in str(caught.value)


def test_a_folder_called_as_a_source_is_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    filled(tmp_path / "digits", {"cats": 20, "dogs": 20})
    assert survey.section_from_text("digits")["name"] == "folder"


def test_samples_of_each_class_are_whole_and_taken_evenly(photos):
    found = survey.sample_images(seen(photos), each_class=3, side=32, most=9)
    assert {label: pixels.shape for label, pixels in found.items()} == {0: (3, 32, 32, 3), 1: (3, 32, 32, 3)}
    flat = Image.open(photos / "train/cats/000.png").crop((0, 0, 20, 10))
    flat.save(photos / "train/cats/000.png")
    (sample,) = survey.sample_images(seen(photos), each_class=1, side=60, most=1)[0]
    np.testing.assert_array_equal(sample[15:45], np.asarray(flat).repeat(3, 0).repeat(3, 1))  # each pixel a square
    assert (sample[:15] == 128).all()
    assert (sample[45:] == 128).all()
