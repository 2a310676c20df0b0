"""Run folders among the images: known by what only a run writes, passed over and named, in folders and zips alike."""

import json
import os
import shutil

import pytest
from image_files import write_images, write_zip

from cnn_vit import data
from cnn_vit.errors import UserError
from cnn_vit.settings import load, to_json

TWO_CLASSES = {"cats": 20, "dogs": 30}
LOCK_TEXT = "cnn-vit run 17 host\n"


def load_dataset(path):
    """Loads the data set of a folder or a zip."""
    return data.load({"name": "folder", "path": str(path)})


def write_run(path, *, lock=LOCK_TEXT, config=None):
    """Writes what tells a run folder, and a plot that has the name of an image."""
    (path / "plots").mkdir(parents=True)
    (path / "plots" / "loss.png").write_bytes(b"a plot")
    if lock is not None:
        (path / "lock").write_text(lock)
    if config is not None:
        (path / "config.json").write_text(json.dumps(config))


def make_source(root, kind):
    """Returns the path of a folder, or of the zip of it."""
    return root if kind == "folder" else write_zip(root, root.parent / "images.zip")


@pytest.fixture
def root(tmp_path):
    """The folder of a small data set."""
    write_images(tmp_path / "set", TWO_CLASSES)
    return tmp_path / "set"


for_folder_and_zip = pytest.mark.parametrize("kind", ["folder", "zip"])


@for_folder_and_zip
@pytest.mark.parametrize("name", ["lock", "config.json"])
def test_a_class_may_have_the_name_of_a_file_of_a_run(root, kind, name):
    write_images(root, {name: 10})
    assert load_dataset(make_source(root, kind)).classes == tuple(sorted([*TWO_CLASSES, name]))


@for_folder_and_zip
@pytest.mark.parametrize("around", ["", "all"], ids=["classes", "a folder around them"])
def test_runs_among_the_images_are_passed_over_and_named(tmp_path, kind, around):
    """Whoever trains from inside the folder of the images leaves runs/NAME there."""
    root = tmp_path / "set"
    write_images(root / around, TWO_CLASSES)
    clean = load_dataset(root)
    write_run(root / "runs" / "first")
    write_run(root / "runs" / "second", lock=None, config=to_json(load("configs/digits_mlp.py")))
    write_run(root / "alone")
    path = make_source(root, kind)
    dataset = load_dataset(path)
    assert (dataset.classes, dataset.fingerprint) == (clean.classes, clean.fingerprint)
    names = f"{path}/alone, {path}/runs/first and {path}/runs/second"
    [sentence] = dataset.facts["left out"]
    assert sentence == f"{names} are folders of training runs and are left out"
    assert sentence in dataset.warnings()


@for_folder_and_zip
@pytest.mark.parametrize(
    ("lock", "config"),
    [
        (None, {"architectures": ["ViTForImageClassification"], "hidden_size": 192}),
        ("17 host\n", None),
        ("a cnn-vit run", None),
        (None, [1]),
    ],
    ids=["a model of Hugging Face", "the lock of another program", "other words", "a list"],
)
def test_files_of_the_same_names_that_no_run_wrote_make_no_run_of_a_class(root, kind, lock, config):
    write_images(root, {"birds/indoors": 9})
    write_run(root / "birds" / "more", lock=lock, config=config)
    shutil.copy(root / "cats" / "000.png", root / "birds" / "more" / "plots" / "loss.png")
    with pytest.raises(UserError, match=r"birds/more/(lock|config\.json) cannot be read"):
        load_dataset(make_source(root, kind))


@for_folder_and_zip
def test_a_class_with_images_right_in_it_stays_though_a_run_lies_in_it(root, kind):
    (root / "cats" / "lock").write_text(LOCK_TEXT)
    with pytest.raises(UserError, match="cats/lock cannot be read"):
        load_dataset(make_source(root, kind))


@for_folder_and_zip
def test_the_root_is_never_taken_for_a_run(root, kind):
    clean = load_dataset(root)
    (root / "lock").write_text(LOCK_TEXT)
    (root / "config.json").write_text(json.dumps(to_json(load("configs/digits_mlp.py"))))
    assert load_dataset(make_source(root, kind)).fingerprint == clean.fingerprint


def test_a_folder_of_runs_alone_is_refused_by_their_names(tmp_path):
    write_run(tmp_path / "runs" / "first")
    sentence = f"{tmp_path} holds no class folders; {tmp_path}/runs/first is the folder of a training run"
    with pytest.raises(UserError, match=sentence):
        load_dataset(tmp_path)


def test_a_pipe_called_lock_is_not_opened(root):
    (root / "birds" / "inner").mkdir(parents=True)
    os.mkfifo(root / "birds" / "inner" / "lock")
    with pytest.raises(UserError, match="birds/inner/lock cannot be read: not a regular file but a pipe"):
        load_dataset(root)
