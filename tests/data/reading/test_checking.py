"""Image files are scanned once before the first step, and what was found is remembered.

An unreadable file that is skipped is as if it were not there.
"""

import os

import numpy as np
import pytest
from image_files import encode_png, noise, write_images, write_zip

from cnn_vit import data, files, settings
from cnn_vit.data.decode import images
from cnn_vit.data.feed import stream
from cnn_vit.data.reading import checking, decoded, materialize, scan_cache
from cnn_vit.errors import UserError
from cnn_vit.files import cache
from cnn_vit.settings.keys import KEYS
from cnn_vit.training import loop

FOUR_FOLDERS = {"train/cats": 6, "train/dogs": 6, "val/cats": 2, "val/dogs": 2}
FILES = 16  # in these folders together
CUT = 3000  # bytes that are left of a file cut short: its header and some of its pixels


@pytest.fixture(autouse=True)
def cache_folder(tmp_path):
    """The folder of a cache of the test's own."""
    cache.configure(folder=tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def opened(monkeypatch):
    """The bytes of every image that Pillow opens, its header or all of it."""
    contents, use_image = [], images.use_image

    def record_and_use(content, use, options):
        contents.append(content)
        return use_image(content, use, options)

    monkeypatch.setattr(images, "use_image", record_and_use)
    return contents


@pytest.fixture
def little_memory(monkeypatch):
    """So little memory that images are decoded when they are read, and only scanned before."""
    monkeypatch.setattr(materialize, "MEMORY", 100)


def load_folder(path, **changes):
    return data.load({"name": "folder", "path": str(path), **changes})


def all_images(dataset):
    """SPLIT/NAME -> the bytes of the pixels, of all images in their order."""
    pixels_by_name = {}
    for split_name, split in dataset.splits.items():
        for name, pixels in zip(split.names, split.read(np.arange(len(split))), strict=True):
            pixels_by_name[f"{split_name}/{name}"] = pixels.tobytes()
    return pixels_by_name


def spoil(root, names, content=b"text"):
    """Overwrites files with something that is not an image."""
    for name in names:
        (root / name).write_bytes(content)


def cut_short(path):
    """Cuts a file behind its header."""
    path.write_bytes(path.read_bytes()[:CUT])


# Scans are remembered


@pytest.mark.parametrize("as_zip", [False, True])
@pytest.mark.parametrize("check", ["all", "header"])
@pytest.mark.usefixtures("little_memory")
def test_a_second_start_opens_no_image_again_merely_to_scan_it(tmp_path, opened, check, as_zip):
    write_images(tmp_path / "root", FOUR_FOLDERS)
    path = write_zip(tmp_path / "root", tmp_path / "a.zip") if as_zip else tmp_path / "root"
    first = load_folder(path, check=check)
    assert len(opened) == (FILES if check == "header" else 2 * FILES)  # all sizes first, then all of each
    opened.clear()
    second = load_folder(path, check=check)
    assert not opened
    assert (second.fingerprint, second.image_shape) == (first.fingerprint, first.image_shape)
    assert all_images(second) == all_images(first)


@pytest.mark.usefixtures("little_memory")
def test_a_file_that_was_changed_is_scanned_again_and_no_other(tmp_path, opened):
    write_images(tmp_path / "root", FOUR_FOLDERS)
    changes = {"image_size": (6, 8), "channels": 3}
    load_folder(tmp_path / "root", **changes)
    changed_file = tmp_path / "root/val/dogs/001.png"
    before = os.stat(changed_file)
    content = bytearray(changed_file.read_bytes())
    content[content.index(b"IDAT") + 20] ^= 1
    changed_file.write_bytes(content)
    os.utime(changed_file, ns=(before.st_atime_ns, before.st_mtime_ns))  # as some programs do
    opened.clear()
    for start in range(2):
        with pytest.raises(UserError, match=r"val/dogs/001.png cannot be read: damaged"):
            load_folder(tmp_path / "root", **changes)
        assert opened == [bytes(content)], f"start {start}"  # the second start remembers that as well
    changed_file.write_bytes(encode_png(noise(6, 8, 3)))
    load_folder(tmp_path / "root", **changes)
    assert len(opened) == 2


@pytest.mark.usefixtures("little_memory")
def test_a_header_that_was_read_does_not_count_as_an_image_that_was_decoded(tmp_path, opened):
    write_images(tmp_path / "root", FOUR_FOLDERS, size=(40, 40))
    cut_short(tmp_path / "root/train/cats/002.png")
    assert load_folder(tmp_path / "root", check="header").facts["counts"] == {"train": 12, "validation": 4}
    with pytest.raises(UserError, match=r"train/cats/002.png cannot be read: damaged"):
        load_folder(tmp_path / "root", check="all")
    opened.clear()
    assert load_folder(tmp_path / "root", check="header").facts["counts"] == {"train": 12, "validation": 4}
    assert not opened


@pytest.mark.usefixtures("little_memory")
def test_under_another_version_of_pillow_every_file_is_scanned_again(tmp_path, monkeypatch, opened):
    write_images(tmp_path / "root", FOUR_FOLDERS)
    load_folder(tmp_path / "root")
    opened.clear()
    monkeypatch.setattr(scan_cache.PIL, "__version__", "99.0")
    load_folder(tmp_path / "root")
    assert len(opened) == 2 * FILES


@pytest.mark.parametrize("content", [b"", b"text", b"PK\3\4", None])
def test_a_scan_cache_that_cannot_be_read_is_written_anew(tmp_path, cache_folder, opened, content):
    write_images(tmp_path / "root", FOUR_FOLDERS)
    load_folder(tmp_path / "root")
    (path,) = (cache_folder / "verdicts").iterdir()
    original = path.read_bytes()
    if content is None:
        files.write_npz(path, {"key": np.zeros(3, np.uint64)})
    else:
        path.write_bytes(content)
    opened.clear()
    load_folder(tmp_path / "root")
    assert opened
    assert path.read_bytes() == original


@pytest.mark.parametrize("obstacle", ["a file", "no home"])
def test_without_a_cache_all_is_the_same(tmp_path, monkeypatch, obstacle):
    write_images(tmp_path / "root", FOUR_FOLDERS)
    monkeypatch.setattr(decoded, "LEAST_ENCODED", 0)
    with_cache = load_folder(tmp_path / "root")
    if obstacle == "a file":
        (tmp_path / "file").write_text("")
        cache.configure(folder=tmp_path / "file" / "deeper")
    else:
        cache.configure()
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    without_cache = load_folder(tmp_path / "root")
    assert all_images(without_cache) == all_images(with_cache)
    assert without_cache.facts == with_cache.facts


def test_the_newest_scans_are_remembered_where_there_are_too_many(monkeypatch):
    monkeypatch.setattr(scan_cache, "MOST_REMEMBERED", 3)
    for file_versions in ("ab", "cd"):
        scans = scan_cache.ScanCache("set")
        for file_version in file_versions:
            scans.put(file_version, "all", images.Header(1, 2, True))
        scans.save()
    scans = scan_cache.ScanCache("set")
    remembered = {file_version for file_version in "abcd" if scans.get(file_version, "all")}
    assert remembered >= set("cd")
    assert len(remembered) == 3


# Decoded images are kept


@pytest.fixture
def kept_files(cache_folder, monkeypatch):
    """Lets decoded images be kept however few they are; gives the function that lists their files."""
    monkeypatch.setattr(decoded, "LEAST_ENCODED", 0)
    return lambda: sorted((cache_folder / "decoded").iterdir())


def test_a_second_start_does_not_decode_again(tmp_path, opened, kept_files):
    write_images(tmp_path / "root", FOUR_FOLDERS)
    first = load_folder(tmp_path / "root", image_size=5)
    opened.clear()
    second = load_folder(tmp_path / "root", image_size=5)
    assert not opened
    assert all_images(second) == all_images(first)
    assert len(kept_files()) == 2  # of train and of validation


@pytest.mark.parametrize(
    "changes",
    [
        {"image_size": 4},
        {"channels": 1},
        {"fit": "stretch"},
        {"fit": "pad(3)"},
        {"fit": "crop(0.7)"},
        {"interpolation": "bicubic"},
    ],
)
@pytest.mark.usefixtures("kept_files")
def test_another_size_or_color_or_way_of_resizing_is_decoded_anew(tmp_path, changes):
    write_images(tmp_path / "root", FOUR_FOLDERS)
    original = {"image_size": 5, "channels": 3}
    original_images = all_images(load_folder(tmp_path / "root", **original))
    changed_images = all_images(load_folder(tmp_path / "root", **original | changes))
    assert changed_images != original_images
    cache.configure(folder=tmp_path / "other")
    assert changed_images == all_images(load_folder(tmp_path / "root", **original | changes))


@pytest.mark.parametrize("damage", ["flipped", "cut", "longer"])
def test_kept_images_that_are_damaged_are_decoded_again(tmp_path, kept_files, opened, damage):
    write_images(tmp_path / "root", FOUR_FOLDERS)
    expected = all_images(load_folder(tmp_path / "root", image_size=5))
    for path in kept_files():
        content = path.read_bytes()
        flipped = bytes([content[0] ^ 1]) + content[1:]
        path.write_bytes({"flipped": flipped, "cut": content[:-1], "longer": content + b"\0"}[damage])
    opened.clear()
    assert all_images(load_folder(tmp_path / "root", image_size=5)) == expected
    assert len(opened) == FILES


def test_the_oldest_are_removed_where_kept_images_grow_too_many(tmp_path, kept_files, monkeypatch):
    write_images(tmp_path / "root", FOUR_FOLDERS)
    load_folder(tmp_path / "root", image_size=5)
    sizes = [path.stat().st_size for path in kept_files()]
    assert sum(sizes) == FILES * 75 + 2 * (decoded.LEVEL_BYTES + decoded.CHECKSUM_BYTES)  # 5 x 5 pixels of three colors
    oldest = kept_files()
    for path in oldest:
        os.utime(path, (1, 1))
    monkeypatch.setattr(decoded, "MOST_KEPT", sum(sizes) + 1)
    load_folder(tmp_path / "root", image_size=5, channels=3, fit="stretch")
    assert not set(oldest) & set(kept_files())
    assert len(kept_files()) == 2


@pytest.mark.usefixtures("kept_files")
def test_nothing_is_kept_where_an_image_cannot_be_read_or_the_disk_is_nearly_full(tmp_path, cache_folder, monkeypatch):
    write_images(tmp_path / "root", FOUR_FOLDERS)
    monkeypatch.setattr(decoded, "FREE_FACTOR", 1e15)
    load_folder(tmp_path / "root", image_size=5)
    assert not (cache_folder / "decoded").exists()
    monkeypatch.undo()
    monkeypatch.setattr(decoded, "LEAST_ENCODED", 0)
    spoil(tmp_path / "root", ["train/cats/000.png", "val/cats/000.png"])
    with pytest.raises(UserError, match="2 of 16"):
        load_folder(tmp_path / "root", image_size=5)
    assert not (cache_folder / "decoded").exists()


# How closely files are scanned


@pytest.mark.parametrize(("check", "most_decoded", "named_at"), [
    ("auto", 16, "start"), ("auto", 15, "read"), ("all", 0, "start"), ("header", 99, "read"), ("none", 99, "read"),
])  # fmt: skip
@pytest.mark.usefixtures("little_memory")
def test_up_to_some_number_each_image_is_decoded_and_of_more_the_headers_are_read(
    tmp_path, monkeypatch, check, most_decoded, named_at
):
    monkeypatch.setattr(checking, "MOST_DECODED", most_decoded)
    write_images(tmp_path / "root", FOUR_FOLDERS, size=(40, 40))
    cut_short(tmp_path / "root/train/cats/002.png")
    sentence = r"train/cats/002.png cannot be read: damaged \(image file is truncated.*\); replace it or remove it"
    changes = {"image_size": 8, "channels": 3, "check": check}
    if named_at == "start":
        with pytest.raises(UserError, match=sentence):
            load_folder(tmp_path / "root", **changes)
    else:
        with pytest.raises(UserError, match=sentence):
            load_folder(tmp_path / "root", **changes).splits["train"].read(np.arange(12))


def test_up_to_50_000_images_are_decoded_and_of_more_the_headers_are_read():
    """The limit that the setting's explanation names."""
    assert "all of it up to 50,000 files" in KEYS["data.check"].meaning
    assert checking.MOST_DECODED == 50_000
    assert [checking.scan_level("auto", count) for count in (1, 50_000, 50_001)] == ["all", "all", "header"]


@pytest.mark.usefixtures("little_memory")
def test_without_a_check_no_file_is_opened_to_scan_it(tmp_path, opened):
    write_images(tmp_path / "root", FOUR_FOLDERS)
    load_folder(tmp_path / "root", image_size=8, channels=3, check="none")
    assert not opened


TINY = (
    "data.name=folder", "data.check=none", "data.image_size=6", "data.channels=3", "data.classes=none",
    "data.batch_size=8", "data.mean=(0.5, 0.5, 0.5)", "data.std=(0.3, 0.3, 0.3)", "model.name=mlp/test",
    "duration=6 steps", "schedule.warmup=0 steps", "log_every=1", "evaluate_every=6", "checkpoint_every=1",
)  # fmt: skip


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_image_that_turns_out_broken_while_training_is_named_and_nothing_saved_is_lost(tmp_path, monkeypatch, split):
    """In the third batch, or at the evaluation after the sixth step; a run on mended data begins where that one was."""
    monkeypatch.setattr(materialize, "MEMORY", 0)  # so that images are decoded when they are read
    write_images(tmp_path / "root", {"train/cats": 16, "train/dogs": 16, "val/cats": 4, "val/dogs": 4})
    run_settings = settings.load("configs/digits_mlp.py", [*TINY, f"data.path={tmp_path}/root"])
    index = int(stream.order(32, run_settings["seed"], np.array([20]))[0])  # of 32, cats first
    name = "val/dogs/002.png"
    if split == "train":
        name = f"train/{'dogs' if index >= 16 else 'cats'}/{index % 16:03}.png"
    content = (tmp_path / "root" / name).read_bytes()
    spoil(tmp_path / "root", [name], content[: len(content) // 2])
    with pytest.raises(UserError) as caught:
        loop.train(run_settings, tmp_path / "run")
    assert type(caught.value) is UserError
    assert str(caught.value).startswith(f"{tmp_path}/root/{name} cannot be read: damaged (")
    assert str(caught.value).endswith("; replace it or remove it")
    saved_steps = sorted(int(path.name) for path in (tmp_path / "run/checkpoints").iterdir())
    assert saved_steps == ([1, 2] if split == "train" else [4, 5])
    spoil(tmp_path / "root", [name], content)
    summary = loop.train(run_settings, tmp_path / "mended", fork_from=tmp_path / "run")
    assert (summary["steps"], summary["forked_from"]["step"]) == (6, saved_steps[-1])


# Unreadable files are skipped


@pytest.mark.parametrize("memory", [100, 2**29])
@pytest.mark.parametrize("layout", ["splits", "classes"])
@pytest.mark.parametrize("workers", [0, 4])
def test_a_file_that_is_skipped_is_as_if_it_were_not_there(tmp_path, monkeypatch, capsys, layout, memory, workers):
    monkeypatch.setattr(materialize, "MEMORY", memory)
    counts = FOUR_FOLDERS if layout == "splits" else {"cats": 90, "dogs": 80}
    spoiled_names = sorted(write_images(tmp_path / "root", counts))[1::3]
    first_folder = next(iter(counts))
    spoil(tmp_path / "root", spoiled_names[::2])
    spoil(tmp_path / "root", spoiled_names[1::2], encode_png(noise(6, 8, 3))[:90])
    os.mkfifo(tmp_path / "root" / first_folder / "pipe.png")
    with_skipped = load_folder(tmp_path / "root", on_bad_image="skip", workers=workers)
    printed = capsys.readouterr()
    for name in (*spoiled_names, f"{first_folder}/pipe.png"):
        (tmp_path / "root" / name).unlink()
    without_files = load_folder(tmp_path / "root")
    assert with_skipped.fingerprint == without_files.fingerprint
    assert list(all_images(with_skipped).items()) == list(all_images(without_files).items())
    assert {**with_skipped.facts, "skipped": []} == without_files.facts
    skipped = with_skipped.facts["skipped"]
    assert len(skipped) == len(spoiled_names) + 1
    reasons = {spoiled_names[0]: "not an image of a kind", spoiled_names[1]: "damaged"}
    reasons[f"{first_folder}/pipe.png"] = "not a regular file"
    for name, reason in reasons.items():
        assert any(line.startswith(f"{tmp_path}/root/{name}: {reason}") for line in skipped)
    assert printed.err.startswith(f"{len(spoiled_names) + 1} images are skipped: {tmp_path}/root/{first_folder}/")
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1


@pytest.mark.usefixtures("little_memory")
def test_which_files_are_skipped_does_not_depend_on_a_closer_scan_before(tmp_path):
    write_images(tmp_path / "root", FOUR_FOLDERS, size=(40, 40))
    spoil(tmp_path / "root", ["train/cats/000.png"])
    cut_short(tmp_path / "root/train/cats/002.png")
    loaded = []
    for check in ("header", "all", "header"):
        loaded.append(load_folder(tmp_path / "root", on_bad_image="skip", check=check))
    assert [len(dataset.facts["skipped"]) for dataset in loaded] == [1, 2, 1]
    assert loaded[0].fingerprint == loaded[2].fingerprint != loaded[1].fingerprint


def test_whatever_the_slices_the_same_files_are_skipped(tmp_path):
    write_images(tmp_path / "root", {"train/cats": 20, "train/dogs": 20})
    spoil(tmp_path / "root", ["train/cats/000.png", "train/dogs/003.png"])
    whole = load_folder(tmp_path / "root", on_bad_image="skip")
    sliced = load_folder(tmp_path / "root", on_bad_image="skip", train="train[:50%]", validation="train[50%:60%]")
    assert whole.facts["skipped"] == sliced.facts["skipped"]
    assert whole.fingerprint == sliced.fingerprint
    assert sliced.facts["counts"] == {"train": 19, "validation": 4}


def test_a_class_or_a_split_of_which_nothing_is_left_is_refused(tmp_path):
    write_images(tmp_path / "root", FOUR_FOLDERS)
    spoil(tmp_path / "root", [f"train/cats/{number:03}.png" for number in range(6)])
    with pytest.raises(UserError, match="train has no image of cats without the 6 images that are skipped, of 2"):
        load_folder(tmp_path / "root", on_bad_image="skip")
    for name in ("cats", "dogs"):
        spoil(tmp_path / "root", [f"val/{name}/{number:03}.png" for number in range(2)])
    with pytest.raises(UserError, match=r"4 of 4 images cannot be read: .*/val/cats/000.png \(not an image of a kind"):
        load_folder(tmp_path / "root", on_bad_image="skip")


def test_to_skip_without_scanning_is_refused():
    section = {"name": "folder", "path": "x", "on_bad_image": "skip", "check": "none"}
    for verb in (data.check, data.load):
        with pytest.raises(UserError, match=r"skips what data.check finds, which is none; set it to all or header"):
            verb(section)


# Unreadable files are listed


def test_every_unreadable_file_is_in_the_details_where_the_sentence_leaves_some_out(tmp_path):
    write_images(tmp_path / "root", FOUR_FOLDERS)
    names = [f"train/cats/{number:03}.png" for number in range(6)]
    spoil(tmp_path / "root", names)
    with pytest.raises(UserError, match=r"6 of 16 images cannot be read: .*, and 1 more; replace it") as caught:
        load_folder(tmp_path / "root")
    named = [line.partition(" cannot be read: ")[0] for line in caught.value.details]
    assert named == [f"{tmp_path}/root/{name}" for name in names]
    assert all(line.endswith("; replace it or remove it") for line in caught.value.details)
