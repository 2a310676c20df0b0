"""Folders and zips: both layouts, the same data packed or not, and every mistake named before the first step."""

import os
import socket
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from image_files import filled, noise, png, zipped

from cnn_vit import data
from cnn_vit.data.decode import images
from cnn_vit.data.reading import listing, materialize, unreadable
from cnn_vit.errors import UserError
from cnn_vit.files import cache
from cnn_vit.runs import folder

GIVEN = Path(__file__).parents[4] / "shared" / "data"
TWO = {"cats": 20, "dogs": 30}
THREE_SPLITS = {f"{split}/{name}": 4 for split in ("train", "val", "test") for name in ("cats", "dogs")}


def loaded(path, **changes):
    return data.load({"name": "folder", "path": str(path), **changes})


def every(dataset):
    """Each image of a data set by its name."""
    return {
        f"{split}/{name}": pixels
        for split, one in dataset.splits.items()
        for name, pixels in zip(one.names, one.read(np.arange(len(one))), strict=True)
    }


def refused(path, sentence, **changes):
    with pytest.raises(UserError, match=sentence) as caught:
        loaded(path, **changes)
    assert "\n" not in str(caught.value)


# Layouts


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "Val"])
def test_split_folders_are_the_splits(tmp_path, validation):
    pixels = filled(tmp_path, {key.replace("val", validation): count for key, count in THREE_SPLITS.items()})
    found = loaded(tmp_path)
    assert found.classes == ("cats", "dogs")
    assert found.image_shape == (6, 8, 3)
    assert {split: one.labels.tolist() for split, one in found.splits.items()} == dict.fromkeys(
        ("train", "validation", "test"), [0] * 4 + [1] * 4
    )
    for name, one in every(found).items():
        np.testing.assert_array_equal(one, pixels[name.replace("validation/", f"{validation}/")])


def test_classes_alone_are_split_in_strata(tmp_path):
    pixels = filled(tmp_path, TWO)
    found = loaded(tmp_path)
    assert {split: np.bincount(one.labels).tolist() for split, one in found.splits.items()} == {
        "train": [16, 24],
        "validation": [2, 3],
        "test": [2, 3],
    }
    names = [name.partition("/")[2] for name in every(found)]
    assert sorted(names) == sorted(pixels)
    for name, one in every(found).items():
        np.testing.assert_array_equal(one, pixels[name.partition("/")[2]])
        assert found.classes[name.split("/")[1] == "dogs"] == name.split("/")[1]
    assert "a stratified tenth is test" in found.facts["layout"]


def test_without_a_test_folder_there_is_no_test_split(tmp_path):
    filled(tmp_path, {"train/a": 10, "train/b": 10, "val/a": 1, "val/b": 1})
    assert loaded(tmp_path).facts["counts"] == {"train": 20, "validation": 2}


def test_train_alone_gives_a_tenth_to_validation(tmp_path):
    filled(tmp_path, {"train/a": 10, "train/b": 10})
    assert loaded(tmp_path).facts["counts"] == {"train": 18, "validation": 2}


def test_a_class_may_be_called_train(tmp_path):
    filled(tmp_path, {"train": 10, "bus": 10})
    assert loaded(tmp_path).classes == ("bus", "train")


def test_images_deeper_in_a_class_belong_to_it(tmp_path):
    filled(tmp_path, {"cats/indoors/kitchen": 10, "cats": 5, "dogs": 10})
    found = loaded(tmp_path)
    assert sum(np.sum(one.labels == 0) for one in found.splits.values()) == 15
    assert any(name.endswith("cats/indoors/kitchen/000.png") for name in every(found))


@pytest.mark.parametrize("kind", ["folder", "zip", "zip in a folder"])
def test_folders_around_all_others_are_looked_into(tmp_path, kind):
    filled(tmp_path / "root" / "photos" / "best", TWO)
    path = tmp_path / "root"
    if kind != "folder":
        (tmp_path / "box").mkdir()
        path = zipped(tmp_path / "root", tmp_path / "box" / "a.zip")
    assert loaded(path.parent if kind == "zip in a folder" else path).classes == ("cats", "dogs")


@pytest.mark.parametrize("counts", [TWO, THREE_SPLITS])
def test_a_zip_is_the_folder_it_was_made_from(tmp_path, counts):
    filled(tmp_path / "root", counts)
    folder = loaded(tmp_path / "root", workers=0)
    for inside, workers in (("", 0), ("wrapped/", 4)):
        packed = loaded(zipped(tmp_path / "root", tmp_path / "a.zip", inside=inside), workers=workers)
        assert packed.fingerprint == folder.fingerprint
        assert packed.facts["counts"] == folder.facts["counts"]
        for name, pixels in every(packed).items():
            np.testing.assert_array_equal(pixels, every(folder)[name])
    assert os.listdir(tmp_path) == ["root", "a.zip"] or sorted(os.listdir(tmp_path)) == ["a.zip", "root"]


def test_the_fingerprint_sees_content_name_class_and_split(tmp_path):
    filled(tmp_path, THREE_SPLITS)
    found = [loaded(tmp_path).fingerprint]
    image = tmp_path / "train/cats/000.png"
    whole = image.read_bytes()
    image.write_bytes(png(noise(6, 8, 3, seed=99)))
    found.append(loaded(tmp_path).fingerprint)
    image.write_bytes(whole)
    assert loaded(tmp_path).fingerprint == found[0]
    image.rename(tmp_path / "train/cats/zzz.png")
    found.append(loaded(tmp_path).fingerprint)
    (tmp_path / "train/cats/zzz.png").rename(tmp_path / "train/dogs/zzz.png")
    found.append(loaded(tmp_path).fingerprint)
    (tmp_path / "train/dogs/zzz.png").rename(tmp_path / "val/dogs/zzz.png")
    found.append(loaded(tmp_path).fingerprint)
    assert len(set(found)) == 5


def test_the_fingerprint_sees_on_which_side_of_a_border_an_image_lies(tmp_path):
    """The last of train becomes the first of validation: the same images, names and classes in the same order."""
    filled(tmp_path, {"train/a": 5, "train/b": 5, "val/b": 1})
    (tmp_path / "val/b/000.png").rename(tmp_path / "val/b/zzz.png")
    before = loaded(tmp_path)
    (tmp_path / "train/b/004.png").rename(tmp_path / "val/b/004.png")
    after = loaded(tmp_path)
    both = [[name for split in ("train", "validation") for name in one.splits[split].names] for one in (before, after)]
    assert both[0] == both[1]
    assert before.fingerprint != after.fingerprint


def test_a_zip_is_read_by_one_thread_at_a_time(tmp_path, monkeypatch):
    """zipfile promises nothing to threads that share a handle."""
    filled(tmp_path / "root", {"cats": 90, "dogs": 90})
    path = zipped(tmp_path / "root", tmp_path / "a.zip")
    inside, most = [], []
    whole = zipfile.ZipFile.open

    def slow(archive, *given, **named):
        inside.append(1)
        time.sleep(1e-4)
        most.append(len(inside))
        inside.pop()
        return whole(archive, *given, **named)

    monkeypatch.setattr(zipfile.ZipFile, "open", slow)
    loaded(path, workers=4)
    assert max(most) == 1


def test_above_two_gigabytes_the_fingerprint_is_of_names_and_sizes(tmp_path, monkeypatch):
    filled(tmp_path, TWO)
    whole = loaded(tmp_path)
    monkeypatch.setattr("cnn_vit.data.reading.fingerprints.MOST", 100)
    quick = loaded(tmp_path)
    assert whole.facts["fingerprint_of"] == "split, class, name and content"
    assert quick.facts["fingerprint_of"] == "split, class, name and bytes"
    assert quick.fingerprint != whole.fingerprint


def test_what_operating_systems_leave_is_passed_over(tmp_path):
    filled(tmp_path, TWO)
    clean = loaded(tmp_path)
    for name in (".DS_Store", "cats/._000.png", "cats/Thumbs.db", "dogs/desktop.ini", "dogs/.hidden.png"):
        (tmp_path / name).write_bytes(b"junk")
    filled(tmp_path, {"__MACOSX/cats": 2, ".git/cats": 1})
    found = loaded(tmp_path)
    assert (found.fingerprint, found.facts["ignored"]) == (clean.fingerprint, 7)
    assert loaded(zipped(tmp_path, tmp_path.parent / "junk.zip")).fingerprint == clean.fingerprint
    (tmp_path.parent / "junk.zip").unlink()


def test_notes_beside_the_class_folders_do_no_harm(tmp_path):
    filled(tmp_path, TWO)
    (tmp_path / "README.txt").write_text("my images")
    assert loaded(tmp_path).classes == ("cats", "dogs")


@pytest.mark.parametrize("root", ["", "all"], ids=["classes", "a folder around them"])
def test_runs_among_the_images_are_passed_over(tmp_path, root):
    """Who stands in the folder of the images leaves runs/NAME there; a file called lock makes no run of a class."""
    filled(tmp_path / root, TWO)
    clean = loaded(tmp_path)
    for run in ("runs/first", "runs/second", "alone"):
        (tmp_path / run / "plots").mkdir(parents=True)
        (tmp_path / run / folder.LOCK).write_text("1 host")
        (tmp_path / run / "plots" / "loss.png").write_bytes(b"a plot")
    found = loaded(tmp_path)
    assert (found.classes, found.fingerprint, found.facts) == (clean.classes, clean.fingerprint, clean.facts)
    (tmp_path / root / "cats" / folder.LOCK).write_text("1 host")
    refused(tmp_path, f"cats/{folder.LOCK} cannot be read")


def test_an_empty_folder_is_still_refused_as_a_class(tmp_path):
    filled(tmp_path, TWO)
    (tmp_path / "birds").mkdir()
    refused(tmp_path, "birds holds no images; fill it or remove it")


@pytest.mark.parametrize(
    "name", ["a b.png", "-rf.png", "ü\N{COMBINING DIAERESIS}.png", "line\nbreak.png", 'quo"te.png', "x" * 240 + ".png"]
)
def test_odd_names_are_names(tmp_path, name):
    filled(tmp_path, {"train/cats": 9, "train/dogs": 9})
    (tmp_path / "train/cats" / name).write_bytes(png(noise(6, 8, 3)))
    assert f"cats/{name}" in [*loaded(tmp_path).splits["train"].names, *loaded(tmp_path).splits["validation"].names]
    (tmp_path / "train/cats" / name).write_bytes(b"")
    refused(tmp_path, "cannot be read: empty, 0 bytes")


@pytest.mark.skipif(sys.platform == "darwin", reason="its file system takes UTF-8 only")
def test_names_that_are_not_utf8_are_read_and_printed_escaped(tmp_path):
    filled(tmp_path, {"train/cats": 9, "train/dogs": 9})
    odd = os.path.join(os.fsencode(tmp_path), b"train", b"cats", b"\xff\xfe.png")
    with open(odd, "wb") as file:
        file.write(png(noise(6, 8, 3)))
    assert loaded(tmp_path).fingerprint
    with open(odd, "wb") as file:
        file.write(b"text")
    refused(tmp_path, r"\\udcff\\udcfe.png' cannot be read: no image of a kind that is read")


# Size and color


@pytest.mark.parametrize("fit", ["stretch", "pad(99)"])
def test_size_and_color_are_brought_to_what_is_asked(tmp_path, fit):
    filled(tmp_path, {"cats": 10}, size=(6, 8))
    filled(tmp_path, {"dogs": 10}, size=(9, 5))
    found = loaded(tmp_path, image_size=(4, 5), channels=1, fit=fit)
    for split in found.splits.values():
        for name, pixels in zip(split.names, split.read(np.arange(len(split))), strict=True):
            content = (tmp_path / name).read_bytes()
            expected = images.fit_image(images.decode(content, channels=1), (4, 5), fit)
            np.testing.assert_array_equal(pixels, expected)


def test_images_of_several_sizes_need_an_image_size(tmp_path):
    filled(tmp_path, {"cats": 10}, size=(6, 8))
    filled(tmp_path, {"dogs": 10}, size=(9, 5))
    refused(tmp_path, "images have 2 sizes, 6 to 9 pixels high and 5 to 8 wide; set data.image_size to the size to")


@pytest.mark.parametrize(("gray", "channels"), [(19, 3), (20, 1)])
def test_unset_channels_are_three_where_any_image_has_color(tmp_path, gray, channels):
    filled(tmp_path, {"cats": 10, "dogs": 10})
    for at in range(gray):
        (tmp_path / f"{'cats' if at < 10 else 'dogs'}/{at % 10:03}.png").write_bytes(png(noise(6, 8)))
    assert loaded(tmp_path).image_shape == (6, 8, channels)


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_workers_and_memory_change_no_bit(tmp_path, monkeypatch, workers):
    filled(tmp_path, {"cats": 90, "dogs": 90})
    whole = loaded(tmp_path, image_size=5, workers=0)
    monkeypatch.setattr(materialize, "MEMORY", 100)
    found = loaded(tmp_path, image_size=5, workers=workers)
    assert [one.in_memory for one in (*whole.splits.values(), *found.splits.values())] == [True] * 3 + [False] * 3
    for name, pixels in every(found).items():
        np.testing.assert_array_equal(pixels, every(whole)[name])


# Files that cannot be read


def test_all_that_cannot_be_read_is_named_before_anything_starts(tmp_path):
    filled(tmp_path, {"cats": 10, "dogs": 10})
    for at in range(7):
        (tmp_path / f"cats/{at:03}.png").write_bytes([b"", b"text", b"<html>"][at % 3])
    with pytest.raises(UserError) as caught:
        loaded(tmp_path)
    said = str(caught.value)
    assert said.startswith("7 of 20 images cannot be read: ")
    assert said.count("/cats/00") == 5
    assert "(empty, 0 bytes)" in said
    assert "(a page of HTML, perhaps what a server answered instead)" in said
    assert said.endswith(
        ", and 2 more; replace it or take it away or download it again, then give the same command again"
    )
    for at in range(1, 7):
        (tmp_path / f"cats/{at:03}.png").write_bytes(png(noise(6, 8, 3)))
    refused(tmp_path, r"cats/000.png cannot be read: empty, 0 bytes; replace it or take it away, then give the same")


def test_a_cut_image_is_found_by_decoding_and_after_headers_alone_when_it_is_read(tmp_path, monkeypatch):
    filled(tmp_path, {"train/cats": 3, "train/dogs": 3, "val/cats": 1, "val/dogs": 1}, size=(40, 40))
    path = tmp_path / "train/cats/001.png"
    path.write_bytes(path.read_bytes()[:3000])
    refused(tmp_path, r"cats/001.png cannot be read: damaged \(.*\); replace it or take it away")
    monkeypatch.setattr(materialize, "MEMORY", 100)
    refused(tmp_path, r"cats/001.png cannot be read: damaged \(.*\); replace it or take it away, then give the same")
    found = loaded(tmp_path, check="header")
    at = found.splits["train"].names.index("cats/001.png")
    with pytest.raises(UserError, match=r"cats/001.png cannot be read: damaged \(.*\); replace it or take it away"):
        found.splits["train"].read(np.array([0, at]))
    for name in ("000", "002"):
        (tmp_path / f"train/cats/{name}.png").write_bytes(b"text")
    sentence = r"2 of 8 .*cats/000.png \(no image of a kind.*cats/002.png \(no image of a kind"
    refused(tmp_path, sentence, check="header")


def test_an_image_deleted_meanwhile_is_named_when_it_is_read(tmp_path, monkeypatch):
    filled(tmp_path, TWO)
    monkeypatch.setattr(materialize, "MEMORY", 100)
    train = loaded(tmp_path).splits["train"]
    (tmp_path / train.names[0]).unlink()
    with pytest.raises(UserError, match=r"cats/0\d\d.png cannot be read: gone since it was listed; put it back"):
        train.read(np.array([0]))


def test_what_is_no_regular_file_is_named_and_never_opened(tmp_path, monkeypatch):
    filled(tmp_path, {"train/cats": 3, "train/dogs": 3, "val/cats": 1, "val/dogs": 1})
    cats = tmp_path / "train/cats"
    os.mkfifo(cats / "fifo.png")
    (cats / "zero.png").symlink_to("/dev/zero")
    (cats / "dangling.png").symlink_to("nowhere.png")
    (cats / "circle.png").symlink_to("circle.png")
    (cats / "up").symlink_to("..")
    (cats / "folder.png").mkdir()
    with open(cats / "sparse.png", "wb") as file:
        file.truncate(20 * 2**30)
    monkeypatch.chdir(cats)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
    monkeypatch.setattr(unreadable, "NAMED", 20)
    with pytest.raises(UserError) as caught:
        loaded(tmp_path)
    for words in (
        "8 of 16 images cannot be read",
        "fifo.png (no regular file but a pipe, a socket or a device)",
        "zero.png (no regular file but",
        "socket.png (no regular file but",
        "dangling.png (a link to nothing)",
        "circle.png (a link to nothing)",
        "up (a link to a folder that is read already)",
        "folder.png (a folder with an image's name)",
        "sparse.png (21,474,836,480 bytes, more than 100,000,000)",
    ):
        assert words in str(caught.value)


def test_links_to_images_and_classes_are_followed(tmp_path):
    filled(tmp_path / "elsewhere", TWO)
    (tmp_path / "root").mkdir()
    (tmp_path / "root/dogs").symlink_to(tmp_path / "elsewhere/dogs")
    (tmp_path / "root/cats").mkdir()
    for at in range(20):
        (tmp_path / f"root/cats/{at:03}.png").symlink_to(tmp_path / f"elsewhere/cats/{at:03}.png")
    assert loaded(tmp_path / "root").fingerprint == loaded(tmp_path / "elsewhere").fingerprint


def test_a_damaged_member_of_a_zip_is_named(tmp_path):
    filled(tmp_path / "root", TWO)
    path = zipped(tmp_path / "root", tmp_path / "a.zip")
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 20] ^= 1
    path.write_bytes(content)
    refused(path, r"a.zip/cats/000.png cannot be read: damaged in the archive \(Bad CRC-32 .*\); pack it again")


def test_a_member_that_unpacks_to_too_much_is_not_unpacked(tmp_path, monkeypatch):
    filled(tmp_path / "root", TWO)
    monkeypatch.setattr(listing, "MOST_BYTES", 1000)
    (tmp_path / "root/cats/bomb.png").write_bytes(b"\0" * 1001)
    refused(
        zipped(tmp_path / "root", tmp_path / "a.zip"), "bomb.png cannot be read: 1,001 bytes, more than 1,000; make"
    )


# Folders that do not fit


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ({}, "holds no images; put each class's images in a folder of its own, ROOT/CLASS/x.jpg or"),
        (
            {".": 3},
            "has 3 images right in it, there are no classes; put each class's images in a folder of its own",
        ),
        ({".": 1, "cats": 9, "dogs": 9}, "has 1 images right in it, .*/000.png lies outside the class folders; put"),
        ({"cats": 9, "dogs": 0}, "/dogs holds no images; fill it or remove it"),
        ({"train/cats": 9, "train/dogs": 0, "val/dogs": 1}, "/train/dogs holds no images; fill it or remove it"),
        ({"cats": 20}, "the data has one class, cats; there must be two at least to tell apart"),
        ({"cats": 4, "dogs": 0.5}, "dogs holds no images"),
        ({"cats": 1, "dogs": 1}, "2 images are too few to set a tenth apart; add images, 10 at least"),
        ({"train": 9, "val": 9}, "/train has no class folders; put each class's images in a folder of its own"),
        ({"val/cats": 9, "test/dogs": 9}, "has test and val but no train folder; put each class's images"),
        ({"train/a": 9, "train/b": 9, "val/a": 1, "valid/a": 1}, "has two folders for validation; keep one of them"),
        (
            {"train/cats": 9, "train/dogs": 9, "val/dosg": 1},
            "class 'dosg' is in validation but not in train; rename its folder, add it to train or remove it; did you "
            "mean 'dogs'?",
        ),
        ({"train/a": 9, "train/b": 9, "extra/a": 1}, "/extra has images and lies beside train; move it into a split"),
        ({"cats/train": 9, "dogs/train": 9}, "/cats/train is a split inside a class; put each class's images"),
        ({"Cats": 9, "cats ": 9}, "has the classes 'Cats' and 'cats '; give them names apart"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused_by_name(tmp_path, counts, sentence):
    filled(tmp_path, {folder: int(count) for folder, count in counts.items()})
    refused(tmp_path, sentence)


def test_what_is_neither_folder_nor_zip_is_refused(tmp_path):
    refused(tmp_path / "a", "a is not there; data.path is a folder of images or a zip of one")
    (tmp_path / "a.zip").write_bytes(b"PK\3\4 cut")
    refused(
        tmp_path / "a.zip", "a.zip is no folder and no zip archive; data.path is a folder of images or a zip of one"
    )


# The given sets


def given(name):
    path = GIVEN / name
    return pytest.param(path, marks=pytest.mark.skipif(not path.is_file(), reason=f"there is no {path}"))


@pytest.mark.parametrize("path", [given("hymenoptera_256.zip")])
def test_ants_and_bees_load_from_their_zip(path):
    found = loaded(path, image_size=32, workers=2)
    assert found.facts["class_counts"] == {"train": {"ants": 123, "bees": 121}, "validation": {"ants": 70, "bees": 83}}
    assert found.splits["train"].read(np.array([0])).std() > 10


@pytest.mark.slow
@pytest.mark.parametrize("path", [given("flowers5_224.zip")])
def test_flowers_load_from_their_zip(path):
    found = loaded(path, image_size=64, workers=2)
    assert found.classes == ("daisy", "dandelion", "roses", "sunflowers", "tulips")
    assert found.facts["counts"] == {"train": 2569, "validation": 550}


@pytest.mark.slow
@pytest.mark.parametrize("path", [given("flowers5_224.zip")])
def test_a_second_start_on_flowers_decodes_no_image(tmp_path, monkeypatch, path):
    """Each that the archive holds is decoded once, at the first start; headers are not counted."""
    cache.configure(folder=tmp_path)
    opened, decode = [], images.decode
    monkeypatch.setattr(images, "decode", lambda content, **named: opened.append(1) or decode(content, **named))
    with zipfile.ZipFile(path) as archive:
        held = sum(name.endswith(".jpg") for name in archive.namelist())
    counts, pixels = [], []
    for _ in range(2):
        pixels.append(loaded(path, image_size=64, workers=2).splits["train"].read(np.arange(2569)))
        counts.append(len(opened))
        opened.clear()
    assert counts == [held, 0]
    np.testing.assert_array_equal(*pixels)
