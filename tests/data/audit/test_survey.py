"""A survey of a whole data set: what it counts, what it finds wrong, and which sentences it gives."""

import os

import numpy as np
import pytest
import spoiled
from image_files import encode_png, noise, write_images, write_zip
from PIL import Image

from cnn_vit import data
from cnn_vit.data.audit import findings, survey
from cnn_vit.errors import UserError

COUNTS = {"train/cats": 12, "train/dogs": 12, "val/cats": 3, "val/dogs": 3, "test/cats": 2, "test/dogs": 2}
TOTAL = 34
ORIENTATION = 0x0112  # EXIF tag


def survey_folder(path, **changes):
    return survey.survey({"name": "folder", "path": str(path), "workers": 2, **changes})


def record_of(path, **changes):
    """The survey of a folder as plain values."""
    return findings.to_record(survey_folder(path, **changes))


def sentences(path, level=None, **changes):
    """The sentences about the problems of a folder, of both levels or of one."""
    problems = findings.find_problems(survey_folder(path, **changes))
    return [problem.sentence for problem in problems if level in (None, problem.level)]


def smooth(seed):
    """Pixels of images that are far from each other and stay the same in another format."""
    small = Image.fromarray(noise(5, 5, 3, seed=seed))
    return np.asarray(small.resize((64, 64), Image.Resampling.BICUBIC))


def copy_image(root, source, target, change=lambda image: image, **options):
    """Writes an image once more, changed, as another file."""
    (root / target).parent.mkdir(parents=True, exist_ok=True)
    change(Image.open(root / source)).save(root / target, **options)


@pytest.fixture
def photos(tmp_path):
    """A folder of two classes in three splits, with nothing wrong."""
    root = tmp_path / "photos"
    for seed, path in enumerate(write_images(root, COUNTS)):
        (root / path).write_bytes(encode_png(smooth(seed)))
    return root


# Counts


@pytest.mark.parametrize("as_zip", [False, True])
def test_counts_are_those_of_training_and_there_is_no_problem(photos, tmp_path, as_zip):
    path = write_zip(photos, tmp_path / "a.zip") if as_zip else photos
    record = record_of(path)
    loaded = data.load({"name": "folder", "path": str(path)})
    assert record["splits"] == loaded.facts["class_counts"]
    assert record["problems"] == []
    assert (record["images"], record["formats"], record["colors"]) == (TOTAL, {"PNG": 34}, {"color": 34, "gray": 0})
    assert record["sizes"]["different"] == 1
    assert record["sizes"]["largest"] == list(loaded.image_shape[:2])


@pytest.mark.parametrize("counts", [{"cats": 40, "dogs": 25}, {"train/cats": 30, "train/dogs": 30}, COUNTS])
@pytest.mark.parametrize("slices", [{}, {"train": "train[:50%]", "validation": "train[50%:75%]"}])
def test_whatever_the_layout_and_the_slices_counts_are_those_of_training(tmp_path, counts, slices):
    write_images(tmp_path / "root", counts)
    loaded = data.load({"name": "folder", "path": f"{tmp_path}/root", **slices})
    assert record_of(tmp_path / "root", **slices)["splits"] == loaded.facts["class_counts"]


def test_a_source_by_name_is_counted_as_well():
    record = findings.to_record(survey.survey(survey.section_from_text("digits")))
    assert record["splits"] == data.load({"name": "digits"}).facts["class_counts"]
    assert (record["sizes"]["commonest"]["size"], record["colors"]["gray"]) == ([8, 8], 1797)
    assert record["problems"] == []
    assert record["names"] is None


def test_sizes_formats_and_colors_are_those_of_the_upright_images(photos):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    cats = "train/cats"
    copy_image(photos, f"{cats}/000.png", f"{cats}/000.png", lambda image: image.crop((0, 0, 64, 30)), exif=exif)
    copy_image(photos, f"{cats}/001.png", f"{cats}/001.jpg")
    (photos / cats / "001.png").unlink()
    copy_image(photos, f"{cats}/002.png", f"{cats}/002.png", lambda image: image.convert("L"))
    record = record_of(photos)
    assert record["formats"] == {"PNG": 33, "JPEG": 1}
    assert record["colors"] == {"color": 33, "gray": 1}
    assert record["sizes"] == {
        "different": 2, "smallest": [64, 30], "median": [64, 64], "largest": [64, 64],
        "commonest": {"size": [64, 64], "images": 33},
    }  # fmt: skip


def test_the_smallest_and_the_largest_are_sizes_of_real_images(tmp_path):
    """By area; the least of each side would be 8x5, which no image has."""
    for size in ((8, 90), (60, 5), (30, 30)):
        write_images(tmp_path / "root", {f"{name}/{name}{size[0]}": 4 for name in ("cats", "dogs")}, size=size)
    sizes = record_of(tmp_path / "root")["sizes"]
    assert (sizes["smallest"], sizes["largest"]) == ([60, 5], [30, 30])


@pytest.mark.parametrize("workers", [0, 4])
def test_threads_change_nothing_and_progress_is_reported(tmp_path, workers):
    write_images(tmp_path / "root", {"cats": 90, "dogs": 80})
    progress = []
    section = {"name": "folder", "path": f"{tmp_path}/root"}
    surveyed = survey.survey(
        {**section, "workers": workers}, on_progress=lambda done, count: progress.append((done, count))
    )
    assert findings.to_record(surveyed) == findings.to_record(survey.survey({**section, "workers": 1}))
    assert progress[-1] == (170, 170)
    assert {count for _, count in progress} == {170}


# Problems


def test_every_file_that_cannot_be_read_is_named_with_reason_and_remedy(photos):
    spoiled_files = spoiled.unreadable_files()[::11]
    for file in spoiled_files:
        (photos / "train/dogs" / file.name).write_bytes(file.content)
    os.mkfifo(photos / "val/dogs/pipe.png")
    surveyed = survey_folder(photos)
    record = findings.to_record(surveyed)
    assert len(record["broken"]) == len(spoiled_files) + 1
    broken_by_path = {broken["path"]: broken for broken in record["broken"]}
    for file in spoiled_files:
        broken = broken_by_path[f"{photos}/train/dogs/{file.name}"]
        assert file.reason in broken["reason"]
        assert broken["remedy"] == file.remedy
        assert (broken["split"], broken["class"]) == ("train", "dogs")
    assert broken_by_path[f"{photos}/val/dogs/pipe.png"]["split"] == "validation"
    (error,) = [problem.sentence for problem in findings.find_problems(surveyed) if problem.level == "error"]
    assert error.startswith(f"{len(spoiled_files) + 1} images cannot be read: train/dogs/")
    assert error.endswith(", or leave such files out with --config.data.on_bad_image=skip")
    assert record["images"] == TOTAL + len(spoiled_files) + 1


def test_files_that_are_skipped_are_not_errors_and_are_not_counted(photos):
    (photos / "train/cats/bad.png").write_bytes(b"bad")
    surveyed = survey_folder(photos, on_bad_image="skip")
    assert (surveyed.counts["train"].tolist(), len(surveyed.broken)) == ([12, 12], 0)
    assert [problem.level for problem in findings.find_problems(surveyed)] == ["warning"]
    (warning,) = sentences(photos, on_bad_image="skip")
    assert warning.startswith("1 image cannot be read and is left out: train/cats/bad.png (")
    skipped = findings.to_record(surveyed)["skipped"]
    assert [file["path"] for file in skipped] == [str(photos / "train/cats/bad.png")]


def test_images_on_both_sides_of_a_split_are_an_error(photos):
    copy_image(photos, "train/cats/000.png", "test/cats/a.bmp")  # the same pixels in another container
    copy_image(photos, "train/cats/001.png", "test/cats/b.jpg", lambda image: image.resize((40, 40)), quality=80)
    copy_image(photos, "train/cats/000.png", "test/cats/c.jpg", quality=80)
    copy_image(photos, "train/dogs/001.png", "val/dogs/d.png")
    assert sentences(photos, "error") == [
        "1 image of validation is in train too, 1 with the same pixels (val/dogs/d.png and train/dogs/001.png); take "
        "one of each away, or the accuracy on validation looks better than it is",
        "3 images of test are in train too, 1 with the same pixels and 2 nearly so (test/cats/a.bmp and "
        "train/cats/000.png); take one of each away, or the accuracy on test looks better than it is",
    ]
    (warning,) = sentences(photos, "warning")
    assert warning.startswith("1 image of test repeats another of it, 1 nearly so (test/cats/c.jpg and ")


def test_a_folder_without_splits_is_surveyed_as_training_would_split_it(tmp_path):
    write_images(tmp_path / "root", {"cats": 30, "dogs": 30})
    splits = data.load({"name": "folder", "path": f"{tmp_path}/root"}).splits
    test_name, train_name = splits["test"].names[0], splits["train"].names[0]
    (tmp_path / "root" / train_name).write_bytes((tmp_path / "root" / test_name).read_bytes())
    (error,) = [sentence for sentence in sentences(tmp_path / "root", "error") if "two classes" not in sentence]
    assert error.startswith("1 image of test is in train too, 1 with the same pixels (")
    assert survey_folder(tmp_path / "root").notes[0].startswith("no split folders")


def test_an_image_in_two_classes_is_an_error(photos):
    copy_image(photos, "train/cats/000.png", "train/dogs/x.png")
    copy_image(photos, "train/cats/001.png", "train/dogs/y.jpg", quality=85)
    assert sentences(photos, "error") == [
        "1 image is in two classes, pixel for pixel (train/cats/000.png and train/dogs/x.png); check which is right "
        "and take the other away",
        "1 image is in two classes, nearly so (train/cats/001.png and train/dogs/y.jpg); check which is right and "
        "take the other away",
    ]


def test_images_that_repeat_inside_a_split_are_a_warning(photos):
    for name in ("x", "y"):
        copy_image(photos, "train/cats/000.png", f"train/cats/{name}.png")
    copy_image(photos, "train/cats/000.png", "train/cats/z.webp", quality=80)
    copy_image(photos, "val/cats/000.png", "val/cats/z.webp", quality=80)
    assert sentences(photos) == [
        "3 images of train repeat another of it, 2 with the same pixels and 1 nearly so (train/cats/x.png and "
        "train/cats/000.png); keep one of each",
        "1 image of validation repeats another of it, 1 nearly so (val/cats/z.webp and val/cats/000.png); keep one "
        "of each",
    ]
    duplicates = record_of(photos)["duplicates"]
    (same_group,) = duplicates["same"]
    assert [image["path"].rpartition("/")[2] for image in same_group] == ["000.png", "x.png", "y.png"]
    train_group, validation_group = duplicates["near"]
    assert [image["split"] for image in train_group] == ["train"] * 4
    assert [image["split"] for image in validation_group] == ["validation"] * 2


def test_images_that_differ_in_one_pixel_are_not_the_same(photos):
    pixels = np.array(Image.open(photos / "train/cats/000.png"))
    pixels[-1, -1, -1] ^= 1
    Image.fromarray(pixels).save(photos / "train/cats/x.png")
    duplicates = record_of(photos)["duplicates"]
    assert duplicates["same"] == []
    assert [len(group) for group in duplicates["near"]] == [2]


def test_uneven_classes_are_reported_with_the_setting_that_evens_them(tmp_path):
    write_images(tmp_path / "root", {"train/cats": 36, "train/dogs": 12, "val/cats": 1, "val/dogs": 1})
    (warning,) = sentences(tmp_path / "root")
    assert warning.startswith("train has 3 times as many images of cats (36) as of dogs (12); ")
    assert "--config.loss.class_weight=balanced" in warning
    (tmp_path / "root/train/cats/035.png").unlink()
    assert sentences(tmp_path / "root") == []


def test_classes_with_few_images_or_none_are_reported(tmp_path):
    write_images(tmp_path / "root", {"train/cats": 12, "train/dogs": 9, "train/emus": 12, "val/cats": 2, "val/dogs": 1})
    for number in range(12):
        (tmp_path / f"root/train/emus/{number:03}.png").write_bytes(b"text")
    errors, warnings = (sentences(tmp_path / "root", level) for level in ("error", "warning"))
    assert errors[1:] == ["train has no image of emus that can be read; add some or take the class away"]
    assert warnings == [
        "train has fewer than 10 images of dogs; add some",
        "validation has no image of emus, so its accuracy says nothing about that; add some",
    ]


@pytest.mark.parametrize(("counts", "sentence"), [
    ({"cats": 2, "dogs": 2}, "4 images are too few to set a tenth apart"),
    ({"cats": 20}, "there is one class, cats; there must be two at least to tell apart"),
])  # fmt: skip
def test_what_training_refuses_is_reported_and_the_rest_surveyed(tmp_path, counts, sentence):
    write_images(tmp_path / "root", counts)
    assert any(error.startswith(sentence) for error in sentences(tmp_path / "root", "error"))
    assert len(survey_folder(tmp_path / "root").images) == sum(counts.values())


def test_images_of_one_color_are_reported_and_are_near_duplicates_of_none(photos):
    for number in range(3):
        Image.new("RGB", (20 + number, 20), (number, 0, 0)).save(photos / f"train/cats/blank{number}.png")
    (warning,) = sentences(photos)
    assert warning.startswith("3 images of one color throughout (train/cats/blank0.png, ")


def test_labels_in_file_names_are_reported(photos):
    for path in photos.rglob("cats/*.png"):
        path.rename(path.with_name(f"Cat_{path.name}"))
    (warning,) = sentences(photos)
    assert warning.startswith("labels in file names: 17 file names say the class, of 34 (train/cats/Cat_000.png); ")
    (photos / "train/dogs/000.png").rename(photos / "train/dogs/cat.png")
    contradiction = "1 file name says another class than the folder (train/dogs/cat.png says cats); "
    assert sentences(photos)[0].startswith(contradiction)
    assert record_of(photos)["names"]["other_class"][0]["says"] == "cats"


def test_names_that_steer_a_terminal_are_escaped(tmp_path):
    write_images(tmp_path / "root", {"train/a\x1b[31m": 12, "train/b\nc": 12, "val/a\x1b[31m": 2, "val/b\nc": 2})
    (tmp_path / "root/train/b\nc/\u202ex\n.png").write_bytes(b"text")
    (tmp_path / "root/train/a\x1b[31m/copy.png").write_bytes((tmp_path / "root/val/b\nc/000.png").read_bytes())
    problems = sentences(tmp_path / "root")
    assert len(problems) == 3
    assert all(sentence.isprintable() for sentence in problems)


# The section for what a user wrote


@pytest.mark.parametrize(("text", "sentence"), [
    ("digit", "did you mean the source digits"), ("nowhere/", "nowhere/ is not there; give a folder"),
    ("folder", "the source folder needs more than its name (data.name=folder needs a path"),
])  # fmt: skip
def test_a_text_that_is_neither_a_path_nor_a_source_is_refused(tmp_path, monkeypatch, text, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        survey.section_from_text(text)
    assert sentence in str(caught.value)


def test_a_folder_with_the_name_of_a_source_is_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "digits", {"cats": 20, "dogs": 20})
    assert survey.section_from_text("digits")["name"] == "folder"


def test_samples_of_each_class_are_whole_and_taken_evenly(photos):
    samples = survey.sample_images(survey_folder(photos), each_class=3, side=32, most=9)
    assert {label: pixels.shape for label, pixels in samples.items()} == {0: (3, 32, 32, 3), 1: (3, 32, 32, 3)}
    wide = Image.open(photos / "train/cats/000.png").crop((0, 0, 20, 10))
    wide.save(photos / "train/cats/000.png")
    (sample,) = survey.sample_images(survey_folder(photos), each_class=1, side=60, most=1)[0]
    np.testing.assert_array_equal(sample[15:45], np.asarray(wide).repeat(3, 0).repeat(3, 1))  # each pixel a square
    assert (sample[:15] == 128).all()
    assert (sample[45:] == 128).all()
