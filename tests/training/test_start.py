"""The start of a run: where it may be written, what is checked before that, and what a refused start leaves."""

import json
import os

import pytest
from image_files import write_images
from running import load_settings

from cnn_vit import files, settings
from cnn_vit.data.base.parts import ImageFolders
from cnn_vit.errors import SurroundingsError, UserError
from cnn_vit.runs import folder
from cnn_vit.training import loop

SPLIT_CLASSES = {"train/cats": 9, "train/dogs": 9, "val/cats": 3, "val/dogs": 3}


def load_folder_settings(path, *changes):
    """Settings of a tiny run on a folder of images."""
    overrides = ["data.name=folder", f"data.path={path}", "data.image_size=8", *changes]
    return settings.load("configs/folder_resnet.py", [*overrides, "duration=2 steps"])


def list_files(path):
    """Returns the paths of all that lies in a folder, with the content of files."""
    return {inner: inner.read_bytes() if inner.is_file() else None for inner in path.rglob("*")}


@pytest.fixture
def images(tmp_path):
    """A folder of images with two splits, and a link to one of its classes beside it."""
    write_images(tmp_path / "set", SPLIT_CLASSES)
    os.symlink(tmp_path / "set" / "train" / "cats", tmp_path / "link")
    return tmp_path / "set"


@pytest.mark.parametrize(
    ("workdir", "sentence"),
    [
        ("set", "set is where the images lie"),
        ("set/../set/", "set is where the images lie"),
        ("set/train", "train is where the images lie"),
        ("set/val", "val is where the images lie"),
        ("set/train/cats", "cats lies among the images of"),
        ("set/train/cats/runs/new", "new lies among the images of"),
        ("link", "link lies among the images of .*/set/train/cats"),
        ("link/new", "new lies among the images of .*/set/train/cats"),
    ],
)
def test_a_run_among_the_images_is_refused_before_anything_is_written(tmp_path, images, workdir, sentence):
    before = list_files(tmp_path)
    with pytest.raises(UserError, match=rf"{sentence}.*; give a --workdir outside of the images") as error:
        loop.train(load_folder_settings(images), tmp_path / workdir)
    assert error.value.code == 2
    assert list_files(tmp_path) == before


def test_a_class_that_is_a_link_is_refused_by_the_folder_it_leads_to(tmp_path):
    write_images(tmp_path, {"elsewhere": 9, "set/dogs": 9})
    os.symlink(tmp_path / "elsewhere", tmp_path / "set" / "cats")
    with pytest.raises(UserError, match=r"elsewhere/run lies among the images of \S+/set/cats"):
        loop.train(load_folder_settings(tmp_path / "set"), tmp_path / "elsewhere" / "run")


def test_a_folder_of_images_without_labels_is_refused_too(tmp_path):
    write_images(tmp_path, {"set/train/cats": 9, "set/train/dogs": 9, "set/test": 2})
    with pytest.raises(UserError, match="test lies among the images of"):
        loop.train(load_folder_settings(tmp_path / "set"), tmp_path / "set" / "test")


@pytest.mark.parametrize("workdir", ["", "runs", "set/runs/first", "set/trainer", "set/train/run"])
def test_a_run_around_the_images_or_beside_the_classes_is_accepted(tmp_path, workdir):
    folders = ImageFolders((f"{tmp_path}/set", f"{tmp_path}/set/train"), (f"{tmp_path}/set/train/cats",))
    folder.refuse_image_folder(tmp_path / workdir, folders)


def test_settings_listing_and_classes_are_checked_before_the_folder_is_made(tmp_path, images):
    (images / "train" / "birds").mkdir()
    with pytest.raises(UserError, match="birds holds no images"):
        loop.train(load_folder_settings(images), tmp_path / "run")
    with pytest.raises(UserError, match=r"data\.classes is 3"):
        loop.train(load_folder_settings(images / "val", "data.classes=3"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def refuse_images(images):
    """Spoils an image, which is seen only when all of them are decoded, behind the lock."""
    (images / "train" / "cats" / "000.png").write_bytes(b"text")


def test_a_refused_start_leaves_nothing_that_it_made(tmp_path, images):
    refuse_images(images)
    before = list_files(tmp_path)
    with pytest.raises(UserError, match=r"000\.png cannot be read"):
        loop.train(load_folder_settings(images), tmp_path / "runs" / "new" / "first")
    assert list_files(tmp_path) == before


def test_a_refused_start_leaves_what_lay_there_before(tmp_path, images):
    refuse_images(images)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    (tmp_path / "run" / "data.json").write_text("mine too")  # a name that a start writes
    (tmp_path / "run" / "lock").write_text("cnn-vit run 1 host\n")
    with pytest.raises(UserError, match=r"000\.png cannot be read"):
        loop.train(load_folder_settings(images), tmp_path / "run")
    assert sorted(os.listdir(tmp_path / "run")) == ["data.json", "lock", "notes.txt"]


def test_a_start_that_is_refused_after_the_folder_was_opened_leaves_nothing(tmp_path, monkeypatch):
    def refuse_state(*_):
        assert {"config.json", "classes.json", "environment.json"} <= set(os.listdir(tmp_path / "run"))
        raise SurroundingsError("too large")

    monkeypatch.setattr("cnn_vit.training.memory.refuse_large_state", refuse_state)
    with pytest.raises(SurroundingsError, match="too large"):
        loop.train(load_settings("mlp"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_start_that_finds_another_run_at_work_takes_nothing_away(tmp_path):
    with folder.locked(tmp_path / "run"):
        with pytest.raises(SurroundingsError, match=f"run is in use by process {os.getpid()} on"):
            loop.train(load_settings("mlp"), tmp_path / "run")
        assert (tmp_path / "run" / "lock").read_text().startswith(f"cnn-vit run {os.getpid()} ")


def test_a_refused_start_does_not_take_the_lock_of_another_process_away(tmp_path):
    """Somebody removed the run folder's lock and another process made its own, while the first still started."""

    def start():
        with folder.locked(tmp_path / "run"):
            (tmp_path / "run" / "lock").unlink()
            with files.Lock(tmp_path / "run" / "lock", title="another"):
                raise UserError("refused")

    with pytest.raises(UserError, match="refused"):
        start()
    assert (tmp_path / "run" / "lock").read_text().startswith("another ")


def test_a_lock_whose_file_was_removed_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    """Between the opening of the file and its locking, its owner removes it: a lock on that file would keep nobody."""
    path = tmp_path / "lock"
    owner = files.Lock(path)
    acquire, removed = files.Lock._acquire, []

    def remove_and_acquire(self, *args):
        if not removed:
            removed.append(path)
            owner.remove()
            owner.release()
        acquire(self, *args)

    monkeypatch.setattr(files.Lock, "_acquire", remove_and_acquire)
    with files.Lock(path), pytest.raises(SurroundingsError, match="in use"):
        files.Lock(path)
    assert json.loads(path.read_text().split()[0]) == os.getpid()


# Folders of somebody else ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["config.json", "environment.json", "fork.json", "classes.json", "data.json"])
def test_a_folder_with_files_that_a_run_would_write_over_is_refused_untouched(tmp_path, images, name):
    (images.parent / name).write_text('{"mine": 1}')
    before = list_files(tmp_path)
    with pytest.raises(UserError, match=rf"{name} is not of a run, and one would write over it; give a --workdir"):
        loop.train(load_folder_settings(images), images.parent)
    assert list_files(tmp_path) == before


def test_a_name_that_the_system_refuses_is_one_sentence(tmp_path, images):
    with pytest.raises(SurroundingsError, match="File name too long"):
        loop.train(load_folder_settings(images), tmp_path / ("a" * 300))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (["schedule.name=onecycle"], "schedule.name is onecycle, which rises by itself; set schedule.warmup=0"),
        (["schedule.name=step", "schedule.boundaries=()"], "schedule.name is step without schedule.boundaries"),
        (
            ["duration=10 steps", "schedule.warmup=25 steps"],
            "schedule.warmup is 25 steps of a run of 10 steps",
        ),
    ],
)
def test_rules_that_do_not_fit_are_refused_before_the_folder_is_made(tmp_path, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        loop.train(load_settings("mlp", "schedule.warmup=2 steps", *changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()
