"""Folders and zips: both layouts, the same data packed or not, and every mistake refused before the first step."""

import os
import socket
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from image_files import encode_png, noise, write_images, write_zip

from cnn_vit import data
from cnn_vit.data.decode import images
from cnn_vit.data.reading import entries, materialize, unreadable
from cnn_vit.errors import UserError
from cnn_vit.files import cache

SHARED = Path(__file__).parents[4] / "shared" / "data"  # real data sets, on machines that have them
TWO_CLASSES = {"cats": 20, "dogs": 30}
THREE_SPLITS = {f"{split}/{name}": 4 for split in ("train", "val", "test") for name in ("cats", "dogs")}


def load_dataset(path, **changes):
    """Loads the data set of a path with some settings of the data changed."""
    return data.load({"name": "folder", "path": str(path), **changes})


def images_by_name(dataset):
    """Returns the pixels of each image of a data set by SPLIT/CLASS/FILE."""
    pixels_by_name = {}
    for split_name, split in dataset.splits.items():
        for name, pixels in zip(split.names, split.read(np.arange(len(split))), strict=True):
            pixels_by_name[f"{split_name}/{name}"] = pixels
    return pixels_by_name


def check_refused(path, sentence, **changes):
    """Checks that loading ends with one sentence on one line."""
    with pytest.raises(UserError, match=sentence) as caught:
        load_dataset(path, **changes)
    assert "\n" not in str(caught.value)


# Layouts


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "Val"])
def test_split_folders_are_the_splits(tmp_path, validation):
    pixels = write_images(tmp_path, {key.replace("val", validation): count for key, count in THREE_SPLITS.items()})
    dataset = load_dataset(tmp_path)
    assert dataset.classes == ("cats", "dogs")
    assert dataset.image_shape == (6, 8, 3)
    labels = {name: split.labels.tolist() for name, split in dataset.splits.items()}
    assert labels == dict.fromkeys(("train", "validation", "test"), [0] * 4 + [1] * 4)
    for name, image in images_by_name(dataset).items():
        np.testing.assert_array_equal(image, pixels[name.replace("validation/", f"{validation}/")])


def test_classes_alone_are_split_in_strata(tmp_path):
    pixels = write_images(tmp_path, TWO_CLASSES)
    dataset = load_dataset(tmp_path)
    class_counts = {name: np.bincount(split.labels).tolist() for name, split in dataset.splits.items()}
    assert class_counts == {"train": [16, 24], "validation": [2, 3], "test": [2, 3]}
    by_name = images_by_name(dataset)
    names = [name.partition("/")[2] for name in by_name]
    assert sorted(names) == sorted(pixels)
    for name, image in by_name.items():
        np.testing.assert_array_equal(image, pixels[name.partition("/")[2]])
        class_name = name.split("/")[1]
        assert dataset.classes[class_name == "dogs"] == class_name
    assert "a stratified tenth is test" in dataset.facts["layout"]


def test_without_a_test_folder_there_is_no_test_split(tmp_path):
    write_images(tmp_path, {"train/a": 10, "train/b": 10, "val/a": 1, "val/b": 1})
    assert load_dataset(tmp_path).facts["counts"] == {"train": 20, "validation": 2}


def test_train_alone_gives_a_tenth_to_validation(tmp_path):
    write_images(tmp_path, {"train/a": 10, "train/b": 10})
    assert load_dataset(tmp_path).facts["counts"] == {"train": 18, "validation": 2}


def test_a_class_may_be_called_train(tmp_path):
    write_images(tmp_path, {"train": 10, "bus": 10})
    assert load_dataset(tmp_path).classes == ("bus", "train")


def test_images_deeper_in_a_class_belong_to_it(tmp_path):
    write_images(tmp_path, {"cats/indoors/kitchen": 10, "cats": 5, "dogs": 10})
    dataset = load_dataset(tmp_path)
    assert sum(np.sum(split.labels == 0) for split in dataset.splits.values()) == 15
    assert any(name.endswith("cats/indoors/kitchen/000.png") for name in images_by_name(dataset))


@pytest.mark.parametrize("kind", ["folder", "zip", "zip in a folder"])
def test_folders_around_all_others_are_looked_into(tmp_path, kind):
    write_images(tmp_path / "root" / "photos" / "best", TWO_CLASSES)
    path = tmp_path / "root"
    if kind != "folder":
        (tmp_path / "box").mkdir()
        path = write_zip(tmp_path / "root", tmp_path / "box" / "a.zip")
    assert load_dataset(path.parent if kind == "zip in a folder" else path).classes == ("cats", "dogs")


@pytest.mark.parametrize("counts", [TWO_CLASSES, THREE_SPLITS])
def test_a_zip_is_the_folder_it_was_made_from(tmp_path, counts):
    write_images(tmp_path / "root", counts)
    unpacked = load_dataset(tmp_path / "root", workers=0)
    for inside, workers in (("", 0), ("wrapped/", 4)):
        packed = load_dataset(write_zip(tmp_path / "root", tmp_path / "a.zip", inside=inside), workers=workers)
        assert packed.fingerprint == unpacked.fingerprint
        assert packed.facts["counts"] == unpacked.facts["counts"]
        for name, pixels in images_by_name(packed).items():
            np.testing.assert_array_equal(pixels, images_by_name(unpacked)[name])
    assert sorted(os.listdir(tmp_path)) == ["a.zip", "root"]  # nothing was unpacked


def test_the_fingerprint_sees_content_name_class_and_split(tmp_path):
    write_images(tmp_path, THREE_SPLITS)
    fingerprints = [load_dataset(tmp_path).fingerprint]
    image = tmp_path / "train/cats/000.png"
    content = image.read_bytes()
    image.write_bytes(encode_png(noise(6, 8, 3, seed=99)))
    fingerprints.append(load_dataset(tmp_path).fingerprint)
    image.write_bytes(content)
    assert load_dataset(tmp_path).fingerprint == fingerprints[0]
    for place in ("train/cats/zzz.png", "train/dogs/zzz.png", "val/dogs/zzz.png"):  # another name, class, split
        image = image.rename(tmp_path / place)
        fingerprints.append(load_dataset(tmp_path).fingerprint)
    assert len(set(fingerprints)) == 5


def test_the_fingerprint_sees_on_which_side_of_a_border_an_image_lies(tmp_path):
    """The last of train becomes the first of validation: the same images, names and classes in the same order."""
    write_images(tmp_path, {"train/a": 5, "train/b": 5, "val/b": 1})
    (tmp_path / "val/b/000.png").rename(tmp_path / "val/b/zzz.png")
    before = load_dataset(tmp_path)
    (tmp_path / "train/b/004.png").rename(tmp_path / "val/b/004.png")
    after = load_dataset(tmp_path)
    names_before = [*before.splits["train"].names, *before.splits["validation"].names]
    names_after = [*after.splits["train"].names, *after.splits["validation"].names]
    assert names_before == names_after
    assert before.fingerprint != after.fingerprint


def test_a_zip_is_read_by_one_thread_at_a_time(tmp_path, monkeypatch):
    """zipfile promises nothing to threads that share a handle."""
    write_images(tmp_path / "root", {"cats": 90, "dogs": 90})
    path = write_zip(tmp_path / "root", tmp_path / "a.zip")
    threads_inside, counts = [], []
    zipfile_open = zipfile.ZipFile.open

    def open_slowly(archive, *args, **keywords):
        threads_inside.append(1)
        time.sleep(1e-4)
        counts.append(len(threads_inside))
        threads_inside.pop()
        return zipfile_open(archive, *args, **keywords)

    monkeypatch.setattr(zipfile.ZipFile, "open", open_slowly)
    load_dataset(path, workers=4)
    assert max(counts) == 1


def test_above_two_gigabytes_the_fingerprint_is_of_names_and_sizes(tmp_path, monkeypatch):
    write_images(tmp_path, TWO_CLASSES)
    of_content = load_dataset(tmp_path)
    monkeypatch.setattr("cnn_vit.data.reading.fingerprints.MOST_READ", 100)
    of_sizes = load_dataset(tmp_path)
    assert of_content.facts["fingerprint_of"] == "split, class, name and content"
    assert of_sizes.facts["fingerprint_of"] == "split, class, name and bytes"
    assert of_sizes.fingerprint != of_content.fingerprint


def test_what_operating_systems_leave_is_passed_over(tmp_path):
    write_images(tmp_path, TWO_CLASSES)
    clean = load_dataset(tmp_path)
    for name in (".DS_Store", "cats/._000.png", "cats/Thumbs.db", "dogs/desktop.ini", "dogs/.hidden.png"):
        (tmp_path / name).write_bytes(b"junk")
    write_images(tmp_path, {"__MACOSX/cats": 2, ".git/cats": 1})
    dataset = load_dataset(tmp_path)
    assert (dataset.fingerprint, dataset.facts["ignored"]) == (clean.fingerprint, 7)
    assert load_dataset(write_zip(tmp_path, tmp_path.parent / "junk.zip")).fingerprint == clean.fingerprint
    (tmp_path.parent / "junk.zip").unlink()


def test_notes_beside_the_class_folders_do_no_harm(tmp_path):
    write_images(tmp_path, TWO_CLASSES)
    (tmp_path / "README.txt").write_text("my images")
    assert load_dataset(tmp_path).classes == ("cats", "dogs")


def test_an_empty_folder_is_still_refused_as_a_class(tmp_path):
    write_images(tmp_path, TWO_CLASSES)
    (tmp_path / "birds").mkdir()
    check_refused(tmp_path, "birds holds no images; fill it or remove it")


@pytest.mark.parametrize(
    "name", ["a b.png", "-rf.png", "ü\N{COMBINING DIAERESIS}.png", "line\nbreak.png", 'quo"te.png', "x" * 240 + ".png"]
)
def test_odd_names_are_names(tmp_path, name):
    write_images(tmp_path, {"train/cats": 9, "train/dogs": 9})
    (tmp_path / "train/cats" / name).write_bytes(encode_png(noise(6, 8, 3)))
    splits = load_dataset(tmp_path).splits
    assert f"cats/{name}" in [*splits["train"].names, *splits["validation"].names]
    (tmp_path / "train/cats" / name).write_bytes(b"")
    check_refused(tmp_path, "cannot be read: empty, 0 bytes")


@pytest.mark.skipif(sys.platform == "darwin", reason="its file system takes UTF-8 only")
def test_names_that_are_not_utf8_are_read_and_printed_escaped(tmp_path):
    write_images(tmp_path, {"train/cats": 9, "train/dogs": 9})
    path = os.path.join(os.fsencode(tmp_path), b"train", b"cats", b"\xff\xfe.png")
    with open(path, "wb") as file:
        file.write(encode_png(noise(6, 8, 3)))
    assert load_dataset(tmp_path).fingerprint
    with open(path, "wb") as file:
        file.write(b"text")
    check_refused(tmp_path, r"\\udcff\\udcfe.png' cannot be read: not an image of a kind that is read")


# Size and color


@pytest.mark.parametrize("fit", ["stretch", "pad(99)"])
def test_size_and_color_are_brought_to_what_is_asked(tmp_path, fit):
    write_images(tmp_path, {"cats": 10}, size=(6, 8))
    write_images(tmp_path, {"dogs": 10}, size=(9, 5))
    dataset = load_dataset(tmp_path, image_size=(4, 5), channels=1, fit=fit)
    for split in dataset.splits.values():
        for name, pixels in zip(split.names, split.read(np.arange(len(split))), strict=True):
            content = (tmp_path / name).read_bytes()
            expected = images.fit_image(images.decode(content, channels=1), (4, 5), fit)
            np.testing.assert_array_equal(pixels, expected)


def test_images_of_several_sizes_need_an_image_size(tmp_path):
    write_images(tmp_path, {"cats": 10}, size=(6, 8))
    write_images(tmp_path, {"dogs": 10}, size=(9, 5))
    check_refused(
        tmp_path, "images have 2 sizes, 6 to 9 pixels high and 5 to 8 wide; set data.image_size to the size to"
    )


@pytest.mark.parametrize(("gray", "channels"), [(19, 3), (20, 1)])
def test_unset_channels_are_three_where_any_image_has_color(tmp_path, gray, channels):
    write_images(tmp_path, {"cats": 10, "dogs": 10})
    for index in range(gray):
        class_folder = tmp_path / ("cats" if index < 10 else "dogs")
        (class_folder / f"{index % 10:03}.png").write_bytes(encode_png(noise(6, 8)))
    assert load_dataset(tmp_path).image_shape == (6, 8, channels)


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_workers_and_memory_change_no_bit(tmp_path, monkeypatch, workers):
    write_images(tmp_path, {"cats": 90, "dogs": 90})
    in_memory = load_dataset(tmp_path, image_size=5, workers=0)
    monkeypatch.setattr(materialize, "MEMORY", 100)
    when_read = load_dataset(tmp_path, image_size=5, workers=workers)
    assert [split.in_memory for split in in_memory.splits.values()] == [True] * 3
    assert [split.in_memory for split in when_read.splits.values()] == [False] * 3
    expected = images_by_name(in_memory)
    for name, pixels in images_by_name(when_read).items():
        np.testing.assert_array_equal(pixels, expected[name])


# Files that cannot be read


def test_all_that_cannot_be_read_is_named_before_anything_starts(tmp_path):
    write_images(tmp_path, {"cats": 10, "dogs": 10})
    for index in range(7):
        (tmp_path / f"cats/{index:03}.png").write_bytes([b"", b"text", b"<html>"][index % 3])
    with pytest.raises(UserError) as caught:
        load_dataset(tmp_path)
    sentence = str(caught.value)
    assert sentence.startswith("7 of 20 images cannot be read: ")
    assert sentence.count("/cats/00") == 5
    assert "(empty, 0 bytes)" in sentence
    assert "(an HTML page, perhaps what a server answered instead)" in sentence
    assert sentence.endswith(
        ", and 2 more; replace it or remove it or download it again, then give the same command again"
    )
    for index in range(1, 7):
        (tmp_path / f"cats/{index:03}.png").write_bytes(encode_png(noise(6, 8, 3)))
    check_refused(tmp_path, r"cats/000.png cannot be read: empty, 0 bytes; replace it or remove it, then give the same")


def test_a_cut_image_is_found_by_decoding_and_after_headers_alone_when_it_is_read(tmp_path, monkeypatch):
    write_images(tmp_path, {"train/cats": 3, "train/dogs": 3, "val/cats": 1, "val/dogs": 1}, size=(40, 40))
    path = tmp_path / "train/cats/001.png"
    path.write_bytes(path.read_bytes()[:3000])
    check_refused(tmp_path, r"cats/001.png cannot be read: damaged \(.*\); replace it or remove it")
    monkeypatch.setattr(materialize, "MEMORY", 100)
    check_refused(tmp_path, r"cats/001.png cannot be read: damaged \(.*\); replace it or remove it, then give the same")
    train = load_dataset(tmp_path, check="header").splits["train"]
    index = train.names.index("cats/001.png")
    with pytest.raises(UserError, match=r"cats/001.png cannot be read: damaged \(.*\); replace it or remove it"):
        train.read(np.array([0, index]))
    for name in ("000", "002"):
        (tmp_path / f"train/cats/{name}.png").write_bytes(b"text")
    sentence = r"2 of 8 .*cats/000.png \(not an image of a kind.*cats/002.png \(not an image of a kind"
    check_refused(tmp_path, sentence, check="header")


def test_an_image_deleted_meanwhile_is_named_when_it_is_read(tmp_path, monkeypatch):
    write_images(tmp_path, TWO_CLASSES)
    monkeypatch.setattr(materialize, "MEMORY", 100)
    train = load_dataset(tmp_path).splits["train"]
    (tmp_path / train.names[0]).unlink()
    with pytest.raises(UserError, match=r"cats/0\d\d.png cannot be read: gone since it was listed; put it back"):
        train.read(np.array([0]))


def test_an_entry_that_is_not_a_regular_file_is_named_and_never_opened(tmp_path, monkeypatch):
    write_images(tmp_path, {"train/cats": 3, "train/dogs": 3, "val/cats": 1, "val/dogs": 1})
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
    monkeypatch.setattr(unreadable, "MOST_NAMED", 20)
    with pytest.raises(UserError) as caught:
        load_dataset(tmp_path)
    for words in (
        "8 of 16 images cannot be read",
        "fifo.png (not a regular file but a pipe, a socket or a device)",
        "zero.png (not a regular file but",
        "socket.png (not a regular file but",
        "dangling.png (a link to nothing)",
        "circle.png (a link to nothing)",
        "up (a link to a folder that is read already)",
        "folder.png (a folder with an image's name)",
        "sparse.png (21,474,836,480 bytes, more than 100,000,000)",
    ):
        assert words in str(caught.value)


def test_links_to_images_and_classes_are_followed(tmp_path):
    write_images(tmp_path / "elsewhere", TWO_CLASSES)
    (tmp_path / "root").mkdir()
    (tmp_path / "root/dogs").symlink_to(tmp_path / "elsewhere/dogs")
    (tmp_path / "root/cats").mkdir()
    for index in range(20):
        (tmp_path / f"root/cats/{index:03}.png").symlink_to(tmp_path / f"elsewhere/cats/{index:03}.png")
    assert load_dataset(tmp_path / "root").fingerprint == load_dataset(tmp_path / "elsewhere").fingerprint


def test_a_damaged_member_of_a_zip_is_named(tmp_path):
    write_images(tmp_path / "root", TWO_CLASSES)
    path = write_zip(tmp_path / "root", tmp_path / "a.zip")
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 20] ^= 1
    path.write_bytes(content)
    check_refused(path, r"a.zip/cats/000.png cannot be read: damaged in the archive \(Bad CRC-32 .*\); pack it again")


def test_a_member_that_unpacks_to_too_much_is_not_unpacked(tmp_path, monkeypatch):
    write_images(tmp_path / "root", TWO_CLASSES)
    monkeypatch.setattr(entries, "MOST_BYTES", 1000)
    (tmp_path / "root/cats/bomb.png").write_bytes(b"\0" * 1001)
    path = write_zip(tmp_path / "root", tmp_path / "a.zip")
    check_refused(path, "bomb.png cannot be read: 1,001 bytes, more than 1,000; make")


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
    write_images(tmp_path, {folder: int(count) for folder, count in counts.items()})
    check_refused(tmp_path, sentence)


def test_a_path_that_is_neither_folder_nor_zip_is_refused(tmp_path):
    check_refused(tmp_path / "a", "a is not there; data.path is a folder of images or a zip of one")
    (tmp_path / "a.zip").write_bytes(b"PK\3\4 cut")
    check_refused(
        tmp_path / "a.zip",
        "a.zip is neither a folder nor a zip archive; data.path is a folder of images or a zip of one",
    )


# Real data sets, where the machine has them


def shared_file(name):
    """Returns the path of a real data set as a parameter, whose test is skipped where the file is not there."""
    path = SHARED / name
    return pytest.param(path, marks=pytest.mark.skipif(not path.is_file(), reason=f"there is no {path}"))


@pytest.mark.parametrize("path", [shared_file("hymenoptera_256.zip")])
def test_ants_and_bees_load_from_their_zip(path):
    dataset = load_dataset(path, image_size=32, workers=2)
    assert dataset.facts["class_counts"] == {
        "train": {"ants": 123, "bees": 121},
        "validation": {"ants": 70, "bees": 83},
    }
    assert dataset.splits["train"].read(np.array([0])).std() > 10


@pytest.mark.slow
@pytest.mark.parametrize("path", [shared_file("flowers5_224.zip")])
def test_flowers_load_from_their_zip(path):
    dataset = load_dataset(path, image_size=64, workers=2)
    assert dataset.classes == ("daisy", "dandelion", "roses", "sunflowers", "tulips")
    assert dataset.facts["counts"] == {"train": 2569, "validation": 550}


@pytest.mark.slow
@pytest.mark.parametrize("path", [shared_file("flowers5_224.zip")])
def test_a_second_start_on_flowers_decodes_no_image(tmp_path, monkeypatch, path):
    """Each image of the archive is decoded once, at the first start; headers are not counted."""
    cache.configure(folder=tmp_path)
    decode_calls, decode = [], images.decode_image

    def count_and_decode(content, **keywords):
        decode_calls.append(1)
        return decode(content, **keywords)

    monkeypatch.setattr(images, "decode_image", count_and_decode)
    with zipfile.ZipFile(path) as archive:
        image_count = sum(name.endswith(".jpg") for name in archive.namelist())
    counts, pixels = [], []
    for _ in range(2):
        pixels.append(load_dataset(path, image_size=64, workers=2).splits["train"].read(np.arange(2569)))
        counts.append(len(decode_calls))
        decode_calls.clear()
    assert counts == [image_count, 0]
    np.testing.assert_array_equal(*pixels)
