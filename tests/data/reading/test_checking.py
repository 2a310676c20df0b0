"""Files looked at before the first step: once each, remembered; and what is skipped is as though it were not there."""

import os

import numpy as np
import pytest
from pictures import filled, noise, png, zipped

from cnn_vit import data, files, settings
from cnn_vit.data.decode import images
from cnn_vit.data.feed import stream
from cnn_vit.data.reading import checking, decoded, materialize, scan_cache
from cnn_vit.errors import UserError
from cnn_vit.files import cache
from cnn_vit.settings.keys import KEYS
from cnn_vit.training import loop

FOUR = {"train/cats": 6, "train/dogs": 6, "val/cats": 2, "val/dogs": 2}


@pytest.fixture(autouse=True)
def place(tmp_path):
    cache.configure(folder=tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def opened(monkeypatch):
    """The bytes of every image that Pillow is given, header or all."""
    found, whole = [], images.use_image
    monkeypatch.setattr(images, "use_image", lambda content, use: found.append(content) or whole(content, use))
    return found


def loaded(path, **changes):
    return data.load({"name": "folder", "path": str(path), **changes})


def every(dataset):
    return {
        f"{split}/{name}": pixels.tobytes()
        for split, one in dataset.splits.items()
        for name, pixels in zip(one.names, one.read(np.arange(len(one))), strict=True)
    }


def spoiled(root, names, content=b"text"):
    for name in names:
        (root / name).write_bytes(content)


# Remembered


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("check", ["all", "header"])
def test_a_second_start_opens_no_image_again_merely_to_look(tmp_path, monkeypatch, opened, check, packed):
    monkeypatch.setattr(materialize, "MEMORY", 100)
    filled(tmp_path / "root", FOUR)
    path = zipped(tmp_path / "root", tmp_path / "a.zip") if packed else tmp_path / "root"
    first = loaded(path, check=check)
    assert len(opened) == (16 if check == "header" else 32)  # all sizes first, then all of each
    opened.clear()
    second = loaded(path, check=check)
    assert not opened
    assert (second.fingerprint, second.image_shape) == (first.fingerprint, first.image_shape)
    assert every(second) == every(first)


def test_a_file_that_was_changed_is_looked_at_again_and_no_other(tmp_path, monkeypatch, opened):
    monkeypatch.setattr(materialize, "MEMORY", 100)
    filled(tmp_path / "root", FOUR)
    given = {"image_size": (6, 8), "channels": 3}
    loaded(tmp_path / "root", **given)
    changed = tmp_path / "root/val/dogs/001.png"
    before = os.stat(changed)
    content = bytearray(changed.read_bytes())
    content[content.index(b"IDAT") + 20] ^= 1
    changed.write_bytes(content)
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))  # as some programs do
    opened.clear()
    for again in range(2):
        with pytest.raises(UserError, match=r"val/dogs/001.png cannot be read: damaged"):
            loaded(tmp_path / "root", **given)
        assert opened == [bytes(content)], f"start {again}"  # the second start knows that as well
    changed.write_bytes(png(noise(6, 8, 3)))
    loaded(tmp_path / "root", **given)
    assert len(opened) == 2


def test_a_header_that_was_read_is_no_image_that_was_decoded(tmp_path, monkeypatch, opened):
    monkeypatch.setattr(materialize, "MEMORY", 100)
    filled(tmp_path / "root", FOUR, size=(40, 40))
    cut = tmp_path / "root/train/cats/002.png"
    cut.write_bytes(cut.read_bytes()[:3000])
    assert loaded(tmp_path / "root", check="header").facts["counts"] == {"train": 12, "validation": 4}
    with pytest.raises(UserError, match=r"train/cats/002.png cannot be read: damaged"):
        loaded(tmp_path / "root", check="all")
    opened.clear()
    assert loaded(tmp_path / "root", check="header").facts["counts"] == {"train": 12, "validation": 4}
    assert not opened


def test_another_version_of_pillow_looks_again(tmp_path, monkeypatch, opened):
    monkeypatch.setattr(materialize, "MEMORY", 100)
    filled(tmp_path / "root", FOUR)
    loaded(tmp_path / "root")
    opened.clear()
    monkeypatch.setattr(scan_cache.PIL, "__version__", "99.0")
    loaded(tmp_path / "root")
    assert len(opened) == 32


@pytest.mark.parametrize("content", [b"", b"text", b"PK\3\4", None])
def test_a_memory_that_is_none_is_written_anew(tmp_path, place, opened, content):
    filled(tmp_path / "root", FOUR)
    loaded(tmp_path / "root")
    (path,) = (place / "verdicts").iterdir()
    whole = path.read_bytes()
    files.write_npz(path, {"key": np.zeros(3, np.uint64)}) if content is None else path.write_bytes(content)
    opened.clear()
    loaded(tmp_path / "root")
    assert opened
    assert path.read_bytes() == whole


@pytest.mark.parametrize("kind", ["a file", "no home"])
def test_without_a_cache_all_is_the_same(tmp_path, place, monkeypatch, kind):
    filled(tmp_path / "root", FOUR)
    monkeypatch.setattr(decoded, "LEAST", 0)
    expected = loaded(tmp_path / "root")
    if kind == "a file":
        (tmp_path / "file").write_text("")
        cache.configure(folder=tmp_path / "file" / "deeper")
    else:
        cache.configure()
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    found = loaded(tmp_path / "root")
    assert every(found) == every(expected)
    assert found.facts == expected.facts


def test_the_newest_are_remembered_where_there_are_too_many(place, monkeypatch):
    monkeypatch.setattr(scan_cache, "MOST", 3)
    for some in ("ab", "cd"):
        memory = scan_cache.ScanCache("set")
        for mark in some:
            memory.put(mark, "all", images.Header(1, 2, True))
        memory.save()
    memory = scan_cache.ScanCache("set")
    known = {mark for mark in "abcd" if memory.get(mark, "all")}
    assert known >= set("cd")
    assert len(known) == 3


# Decoded images kept


@pytest.fixture
def kept(place, monkeypatch):
    """Keeps decoded images however few; the files it has."""
    monkeypatch.setattr(decoded, "LEAST", 0)
    return lambda: sorted((place / "decoded").iterdir())


def test_a_second_start_does_not_decode_again(tmp_path, opened, kept):
    filled(tmp_path / "root", FOUR)
    first = loaded(tmp_path / "root", image_size=5)
    opened.clear()
    second = loaded(tmp_path / "root", image_size=5)
    assert not opened
    assert every(second) == every(first)
    assert len(kept()) == 2  # of train and of validation


@pytest.mark.parametrize("changes", [{"image_size": 4}, {"channels": 1}, {"fit": "stretch"}, {"fit": "pad(3)"}])
def test_another_size_or_color_or_fit_is_decoded_anew(tmp_path, kept, changes):
    filled(tmp_path / "root", FOUR)
    given = {"image_size": 5, "channels": 3}
    loaded(tmp_path / "root", **given)
    found = every(loaded(tmp_path / "root", **given | changes))
    cache.configure(folder=tmp_path / "other")
    assert found == every(loaded(tmp_path / "root", **given | changes))


@pytest.mark.parametrize("damage", ["flipped", "cut", "longer"])
def test_kept_images_that_are_damaged_are_decoded_again(tmp_path, kept, opened, damage):
    filled(tmp_path / "root", FOUR)
    expected = every(loaded(tmp_path / "root", image_size=5))
    for path in kept():
        whole = path.read_bytes()
        flipped = bytes([whole[0] ^ 1]) + whole[1:]
        path.write_bytes({"flipped": flipped, "cut": whole[:-1], "longer": whole + b"\0"}[damage])
    opened.clear()
    assert every(loaded(tmp_path / "root", image_size=5)) == expected
    assert len(opened) == 16


def test_the_oldest_go_where_kept_images_grow_too_many(tmp_path, kept, monkeypatch):
    filled(tmp_path / "root", FOUR)
    loaded(tmp_path / "root", image_size=5)
    sizes = [path.stat().st_size for path in kept()]
    assert sum(sizes) == 16 * 75 + 2 * decoded.CHECK
    oldest = kept()
    for path in oldest:
        os.utime(path, (1, 1))
    monkeypatch.setattr(decoded, "MOST", sum(sizes) + 1)
    loaded(tmp_path / "root", image_size=5, channels=3, fit="stretch")
    assert not set(oldest) & set(kept())
    assert len(kept()) == 2


def test_nothing_is_kept_where_an_image_cannot_be_read_or_the_disk_is_nearly_full(tmp_path, place, kept, monkeypatch):
    filled(tmp_path / "root", FOUR)
    monkeypatch.setattr(decoded, "SPARED", 1e15)
    loaded(tmp_path / "root", image_size=5)
    assert not (place / "decoded").exists()
    monkeypatch.undo()
    monkeypatch.setattr(decoded, "LEAST", 0)
    spoiled(tmp_path / "root", ["train/cats/000.png", "val/cats/000.png"])
    with pytest.raises(UserError, match="2 of 16"):
        loaded(tmp_path / "root", image_size=5)
    assert not (place / "decoded").exists()


# How closely


@pytest.mark.parametrize(("check", "few", "found"), [
    ("auto", 16, "start"), ("auto", 15, "read"), ("all", 0, "start"), ("header", 99, "read"), ("none", 99, "read"),
])  # fmt: skip
def test_each_image_is_decoded_up_to_so_many_and_more_by_their_headers(tmp_path, monkeypatch, check, few, found):
    monkeypatch.setattr(materialize, "MEMORY", 100)
    monkeypatch.setattr(checking, "FEW", few)
    filled(tmp_path / "root", FOUR, size=(40, 40))
    cut = tmp_path / "root/train/cats/002.png"
    cut.write_bytes(cut.read_bytes()[:3000])
    sentence = r"train/cats/002.png cannot be read: damaged \(image file is truncated.*\); replace it or take it away"
    given = {"image_size": 8, "channels": 3, "check": check}
    if found == "start":
        with pytest.raises(UserError, match=sentence):
            loaded(tmp_path / "root", **given)
    else:
        with pytest.raises(UserError, match=sentence):
            loaded(tmp_path / "root", **given).splits["train"].read(np.arange(12))


def test_up_to_50_000_images_are_decoded_and_more_are_looked_at_by_their_headers():
    """The border that the setting's explanation names."""
    assert "all of it up to 50,000 files" in KEYS["data.check"].meaning
    assert checking.FEW == 50_000
    assert [checking.scan_level("auto", count) for count in (1, 50_000, 50_001)] == ["all", "all", "header"]


def test_without_a_check_no_file_is_opened_to_look(tmp_path, monkeypatch, opened):
    monkeypatch.setattr(materialize, "MEMORY", 100)
    filled(tmp_path / "root", FOUR)
    loaded(tmp_path / "root", image_size=8, channels=3, check="none")
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
    filled(tmp_path / "root", {"train/cats": 16, "train/dogs": 16, "val/cats": 4, "val/dogs": 4})
    final = settings.load("configs/digits_mlp.py", [*TINY, f"data.path={tmp_path}/root"])
    at = int(stream.order(32, final["seed"], np.array([20]))[0])  # of 32, cats first
    name = f"train/{'dogs' if at >= 16 else 'cats'}/{at % 16:03}.png" if split == "train" else "val/dogs/002.png"
    whole = (tmp_path / "root" / name).read_bytes()
    spoiled(tmp_path / "root", [name], whole[: len(whole) // 2])
    with pytest.raises(UserError) as caught:
        loop.train(final, tmp_path / "run")
    assert type(caught.value) is UserError
    assert str(caught.value).startswith(f"{tmp_path}/root/{name} cannot be read: damaged (")
    assert str(caught.value).endswith("; replace it or take it away")
    saved = sorted(int(path.name) for path in (tmp_path / "run/checkpoints").iterdir())
    assert saved == ([1, 2] if split == "train" else [4, 5])
    spoiled(tmp_path / "root", [name], whole)
    result = loop.train(final, tmp_path / "mended", fork_from=tmp_path / "run")
    assert (result["steps"], result["forked_from"]["step"]) == (6, saved[-1])


# Skipped


@pytest.mark.parametrize("memory", [100, 2**29])
@pytest.mark.parametrize("layout", ["splits", "classes"])
@pytest.mark.parametrize("workers", [0, 4])
def test_what_is_skipped_is_as_though_it_were_not_there(tmp_path, monkeypatch, capsys, layout, memory, workers):
    monkeypatch.setattr(materialize, "MEMORY", memory)
    counts = FOUR if layout == "splits" else {"cats": 90, "dogs": 80}
    names, first = sorted(filled(tmp_path / "root", counts))[1::3], next(iter(counts))
    spoiled(tmp_path / "root", names[::2])
    spoiled(tmp_path / "root", names[1::2], png(noise(6, 8, 3))[:90])
    os.mkfifo(tmp_path / "root" / first / "pipe.png")
    found = loaded(tmp_path / "root", on_bad_image="skip", workers=workers)
    said = capsys.readouterr()
    for name in (*names, f"{first}/pipe.png"):
        (tmp_path / "root" / name).unlink()
    clean = loaded(tmp_path / "root")
    assert found.fingerprint == clean.fingerprint
    assert list(every(found).items()) == list(every(clean).items())
    assert {**found.facts, "skipped": []} == clean.facts
    assert len(found.facts["skipped"]) == len(names) + 1
    wrong = {names[0]: "no image of a kind", names[1]: "damaged", f"{first}/pipe.png": "no regular file"}
    for name, reason in wrong.items():
        assert any(one.startswith(f"{tmp_path}/root/{name}: {reason}") for one in found.facts["skipped"])
    assert said.err.startswith(f"{len(names) + 1} images are skipped: {tmp_path}/root/{first}/")
    assert said.out == ""
    assert len(said.err.splitlines()) == 1


def test_what_is_skipped_depends_on_no_closer_look_before(tmp_path, monkeypatch):
    monkeypatch.setattr(materialize, "MEMORY", 100)
    filled(tmp_path / "root", FOUR, size=(40, 40))
    spoiled(tmp_path / "root", ["train/cats/000.png"])
    cut = tmp_path / "root/train/cats/002.png"
    cut.write_bytes(cut.read_bytes()[:3000])
    seen = [loaded(tmp_path / "root", on_bad_image="skip", check=check) for check in ("header", "all", "header")]
    assert [len(one.facts["skipped"]) for one in seen] == [1, 2, 1]
    assert seen[0].fingerprint == seen[2].fingerprint != seen[1].fingerprint


def test_whatever_the_slices_the_same_is_skipped(tmp_path):
    filled(tmp_path / "root", {"train/cats": 20, "train/dogs": 20})
    spoiled(tmp_path / "root", ["train/cats/000.png", "train/dogs/003.png"])
    whole = loaded(tmp_path / "root", on_bad_image="skip")
    some = loaded(tmp_path / "root", on_bad_image="skip", train="train[:50%]", validation="train[50%:60%]")
    assert whole.facts["skipped"] == some.facts["skipped"]
    assert whole.fingerprint == some.fingerprint
    assert some.facts["counts"] == {"train": 19, "validation": 4}


def test_a_class_or_a_split_of_which_nothing_is_left_is_refused(tmp_path):
    filled(tmp_path / "root", FOUR)
    spoiled(tmp_path / "root", [f"train/cats/{at:03}.png" for at in range(6)])
    with pytest.raises(UserError, match="train has no image of cats without the 6 images that are skipped, of 2"):
        loaded(tmp_path / "root", on_bad_image="skip")
    spoiled(tmp_path / "root", [f"val/{name}/{at:03}.png" for name in ("cats", "dogs") for at in range(2)])
    with pytest.raises(UserError, match=r"4 of 4 images cannot be read: .*/val/cats/000.png \(no image of a kind"):
        loaded(tmp_path / "root", on_bad_image="skip")


def test_to_skip_without_looking_is_refused():
    section = {"name": "folder", "path": "x", "on_bad_image": "skip", "check": "none"}
    for use in (data.check, data.load):
        with pytest.raises(UserError, match=r"skips what data.check finds, which is none; set it to all or header"):
            use(section)


# Listed


def test_all_that_cannot_be_read_is_in_the_details_where_the_sentence_leaves_some_out(tmp_path):
    filled(tmp_path / "root", FOUR)
    names = [f"train/cats/{at:03}.png" for at in range(6)]
    spoiled(tmp_path / "root", names)
    with pytest.raises(UserError, match=r"6 of 16 images cannot be read: .*, and 1 more; replace it") as caught:
        loaded(tmp_path / "root")
    assert [line.partition(" cannot be read: ")[0] for line in caught.value.details] == [
        f"{tmp_path}/root/{name}" for name in names
    ]
    assert all(line.endswith("; replace it or take it away") for line in caught.value.details)
