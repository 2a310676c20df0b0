"""Evaluation on other data than the run's: whole folders, some of the classes, and images that were trained on."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from image_files import encode_png, noise, write_images, write_zip
from PIL import Image

from cnn_vit import data, settings
from cnn_vit.data.reading import fingerprints
from cnn_vit.errors import UserError
from cnn_vit.nn.values import initial_values
from cnn_vit.runs import description, reader
from cnn_vit.training import evaluation, forward, plan, trained

CLASSES = ("ant", "bee", "cow")
SIDE = 4  # pixels
RECIPE = "configs/digits_mlp.py"


def make_trained(workdir, section):
    """A network with values from a seed, as that of a run folder whose data a section names.

    The folder holds what a run writes of its settings and data, and no checkpoint.
    """
    section = {"classes": None, "channels": None, "image_size": SIDE, **section}
    overrides = [f"data.{key}={'none' if value is None else value}" for key, value in section.items()]
    run_settings = settings.load(RECIPE, [*overrides, "model.name=mlp/test"])
    dataset = data.load(run_settings.section("data"))
    preprocessing = description.make_preprocessing(run_settings, dataset)
    workdir.mkdir(parents=True)
    description.describe(workdir, run_settings, dataset, preprocessing, say=print)
    spec = plan.network_spec(run_settings, classes=len(dataset.classes), image_shape=dataset.image_shape)
    params, stats = initial_values(forward.get_network(spec), seed=0)
    return trained.Trained(
        spec=spec,
        params=params,
        stats=stats,
        classes=dataset.classes,
        preprocessing=preprocessing,
        run=workdir,
    )


@pytest.fixture
def root(tmp_path):
    """A folder of images with a folder for each class and no split folders."""
    write_images(tmp_path / "own", dict.fromkeys(CLASSES, 10), size=(SIDE, SIDE))
    return tmp_path / "own"


@pytest.fixture
def network(tmp_path, root):
    """A network that was trained on 18 of the 30 images, which slices say."""
    # Of undivided data the part called train has 24 images, of which 6 are left for validation
    section = {"name": "folder", "path": root, "train": "train[:18]", "validation": "train[18:]"}
    return make_trained(tmp_path / "run", section)


def write_new_images(path, counts):
    """Writes images that are in no other folder of these tests."""
    number = 1000
    for folder, count in counts.items():
        (path / folder).mkdir(parents=True)
        for _ in range(count):
            number += 1
            (path / folder / f"{number}.png").write_bytes(encode_png(noise(SIDE, SIDE, 3, seed=number)))
    return path


def trained_names(network):
    """The names of the images that a network was trained on, CLASS/x.png."""
    return list(data.load(evaluation.read_run_data(network.run).section).splits["train"].names)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_folder_without_split_folders_is_evaluated_whole(tmp_path, network, kind):
    path = write_new_images(tmp_path / "new", {"ant": 3, "cow": 4})
    if kind == "zip":
        path = write_zip(path, tmp_path / "new.zip")
    metrics = evaluation.evaluate(network, path)
    assert (metrics["split"], metrics["n"], metrics["trained_on"]) == ("all", 7, 0)
    assert metrics["layout"] == "no split folders: all images are evaluated"
    assert metrics["rows"]["label"].tolist() == [0] * 3 + [2] * 4
    [note] = metrics["notes"]
    assert note.startswith("the data have no image of bee: 1 of the network's 3 classes")


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_split_of_a_folder_without_split_folders_is_refused(tmp_path, network, split):
    path = write_new_images(tmp_path / "new", {"ant": 30, "cow": 4})
    with pytest.raises(UserError, match=f"all of its images are evaluated; leave --split={split} out"):
        evaluation.evaluate(network, path, split)


def test_one_image_of_one_class_is_enough(tmp_path, network):
    metrics = evaluation.evaluate(network, write_new_images(tmp_path / "new", {"cow": 1}))
    assert (metrics["n"], metrics["rows"]["label"].tolist()) == (1, [2])


def test_the_runs_own_data_are_evaluated_in_the_runs_splits(tmp_path, network, root):
    """Also by another path, since the content tells; the slices of the run count too."""
    shutil.copytree(root, tmp_path / "copy")
    for split, count in {"train": 18, "validation": 6, "test": 3}.items():
        own = evaluation.evaluate(network, evaluation.read_run_data(network.run).section, split)
        for path in (root, tmp_path / "copy"):
            metrics = evaluation.evaluate(network, path, split)
            trained_on = count if split == "train" else 0
            assert (metrics["split"], metrics["n"], metrics["trained_on"]) == (split, count, trained_on)
            assert (metrics["accuracy"], metrics["loss"]) == (own["accuracy"], own["loss"])


def test_split_folders_without_train_are_accepted(tmp_path, network):
    path = write_new_images(tmp_path / "new", {"test/bee": 2, "test/ant": 1})
    metrics = evaluation.evaluate(network, path)
    assert (metrics["split"], metrics["rows"]["label"].tolist()) == ("test", [0, 1, 1])
    with pytest.raises(UserError, match="the data have no validation split, only test; add --split=test"):
        evaluation.evaluate(network, path, "validation")


def test_a_missing_test_split_is_told_with_the_one_to_ask_for(tmp_path, network):
    path = write_new_images(tmp_path / "new", {"train/bee": 9, "train/ant": 9, "val/ant": 1})
    with pytest.raises(UserError, match="no test split, only train and validation; add --split=validation"):
        evaluation.evaluate(network, path)
    assert evaluation.evaluate(network, path, "validation")["n"] == 1


def test_an_npz_without_train_is_accepted(tmp_path):
    images, labels = noise(40, SIDE, SIDE), np.arange(40) % 3
    np.savez(tmp_path / "own.npz", train_x=images, train_y=labels)
    network = make_trained(tmp_path / "run", {"name": "arrays", "path": tmp_path / "own.npz"})
    new_images = np.concatenate([noise(4, SIDE, SIDE, seed=1), images[:2]])
    np.savez(tmp_path / "new.npz", test_x=new_images, test_y=np.array([2, 1, 1, 2, 0, 1]))
    metrics = evaluation.evaluate(network, tmp_path / "new.npz")
    run_data = evaluation.read_run_data(network.run)
    train = data.load(run_data.section).splits["train"].read(np.arange(36))
    expected = sum(any(np.array_equal(image, other[..., 0]) for other in train) for image in new_images)
    assert (metrics["n"], metrics["trained_on"]) == (6, expected)
    assert expected > 0
    assert "do not name their classes" not in " ".join(metrics["notes"])  # neither does the network: same labels


def test_labels_without_names_are_the_networks_classes_by_position_and_that_is_said(tmp_path, network):
    images, labels = noise(5, SIDE, SIDE, 3, seed=3), np.array([2, 0, 0, 2, 1])
    np.savez(tmp_path / "new.npz", test_x=images, test_y=labels)
    (tmp_path / "new.py").write_text(
        f"import numpy\n\ndef give():\n"
        f"    arrays = numpy.load({str(tmp_path / 'new.npz')!r})\n"
        f"    yield from zip(arrays['test_x'], arrays['test_y'])\n"
    )
    for path in (tmp_path / "new.npz", f"{tmp_path / 'new'}.py:give"):
        metrics = evaluation.evaluate(network, path)
        assert metrics["rows"]["label"].tolist() == labels.tolist()
        assert metrics["notes"] == [
            "the data do not name their classes, so that their labels are taken for the network's classes in order: "
            "[ant, bee, cow]"
        ]
    np.savez(tmp_path / "new.npz", test_x=images, test_y=labels + 1)
    with pytest.raises(UserError, match="labels up to 3 and no names of classes, and the network knows 3 classes"):
        evaluation.evaluate(network, tmp_path / "new.npz")
    np.savez(tmp_path / "new.npz", test_x=images, test_y=labels, class_names=["ant", "cow", "bee"])
    metrics = evaluation.evaluate(network, tmp_path / "new.npz")
    assert (metrics["rows"]["label"].tolist(), metrics["notes"]) == ([1, 0, 0, 1, 2], [])
    np.savez(tmp_path / "new.npz", test_x=images, test_y=labels, class_names=["ant", "cow", "elk"])
    with pytest.raises(UserError, match="does not know the class elk"):
        evaluation.evaluate(network, tmp_path / "new.npz")


# Images that were trained on ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most_read", [2 * 10**9, 100], ids=["contents hashed", "names and sizes hashed"])
def test_images_that_were_trained_on_are_counted_whatever_their_names(tmp_path, network, root, monkeypatch, most_read):
    """A copy under another name and in another class counts; an image of the run's other splits does not."""
    monkeypatch.setattr(fingerprints, "MOST_READ", most_read)
    network = make_trained(tmp_path / "run2", {"name": "folder", "path": root})
    names = trained_names(network)
    other_names = sorted({str(path.relative_to(root)) for path in root.rglob("*.png")} - set(names))
    path = write_new_images(tmp_path / "new", {"ant": 3, "bee": 2})
    for number, name in enumerate([*names[:4], *other_names[:2]]):
        shutil.copy(root / name, path / "ant" / f"copy{number}.png")
    metrics = evaluation.evaluate(network, path)
    assert (metrics["n"], metrics["trained_on"]) == (11, 4)
    assert "4 of the 11 images were trained on" in " ".join(metrics["notes"])


def test_data_that_changed_since_they_were_trained_on_leave_the_count_open(tmp_path, network, root):
    path = write_new_images(tmp_path / "new", {"ant": 3})
    (root / "ant" / "000.png").write_bytes(encode_png(noise(SIDE, SIDE, 3, seed=77)))
    metrics = evaluation.evaluate(network, path)
    assert (metrics["n"], metrics["trained_on"]) == (3, None)
    assert f"is not known: the data of {network.run} in {root} have changed" in " ".join(metrics["notes"])
    shutil.rmtree(root)
    assert f"is not known: {root} is not there" in " ".join(evaluation.evaluate(network, path)["notes"])


def test_the_runs_own_section_says_where_its_data_have_changed(tmp_path, network, root):
    section = evaluation.read_run_data(network.run).section
    assert evaluation.evaluate(network, section)["notes"] == []
    (root / "ant" / "000.png").write_bytes(encode_png(noise(SIDE, SIDE, 3, seed=77)))
    sentence = f"these are not the data that {network.run} was trained on: their fingerprint is another"
    assert sentence in evaluation.evaluate(network, section)["notes"]


def test_the_layout_of_other_data_can_be_said(tmp_path, network):
    """The folders may be classes with folders inside, or parts of one set."""
    path = write_new_images(tmp_path / "new", {"first/ant": 1, "first/bee": 1, "second/ant": 1, "second/bee": 1})
    with pytest.raises(UserError, match=r"can be read in two ways: .* evaluate have --layout"):
        evaluation.evaluate(network, path)
    with pytest.raises(UserError, match="does not know the class first, second"):
        evaluation.evaluate(network, path, layout="classes")
    assert evaluation.evaluate(network, path, layout="splits")["rows"]["label"].tolist() == [0, 0, 1, 1]


def test_dark_images_of_sixteen_bits_are_told(tmp_path, network):
    path = write_new_images(tmp_path / "new", {"ant": 1})
    Image.fromarray(np.full((SIDE, SIDE), 4000, np.uint16)).save(path / "ant" / "dark.png")
    notes = " ".join(evaluation.evaluate(network, path)["notes"])
    assert "images of 16 bits have levels of 0 to 4,000" in notes or "levels of 4,000 to 4,000" in notes


def test_each_reading_of_a_whole_folder_leaves_a_line(tmp_path, network):
    evaluation.evaluate(network, write_new_images(tmp_path / "new", {"ant": 3}))
    assert len((network.run / "test_reads.jsonl").read_text().splitlines()) == 1


# How images are resized


def test_how_images_are_resized_travels_with_the_network_and_another_way_is_said(tmp_path, root):
    section = {"name": "folder", "path": root, "fit": "crop(0.5)", "interpolation": "bicubic"}
    network = make_trained(tmp_path / "run", section)
    stored = reader.read_preprocessing(tmp_path / "run" / "preprocessing.json")
    assert (stored["fit"], stored["interpolation"]) == ("crop(0.5)", "bicubic")
    # the network of a run folder, a path, and a section that says nothing of it
    network = replace(network, preprocessing=stored)
    as_seen = evaluation.section_as_seen(network, {"name": "folder", "path": str(root)})
    by_path = evaluation.load_matching(network, root, "test", None)
    by_section = evaluation.load_matching(network, as_seen, "test", None)
    assert by_path.notes == by_section.notes == []
    for loaded in (by_path, by_section):
        first = loaded.split.read(np.arange(1))[0]
        image = Image.open(root / loaded.split.names[0])
        expected = np.asarray(image.resize((8, 8), Image.Resampling.BICUBIC))[2:6, 2:6]  # 4 / 0.5 pixels, the middle 4
        np.testing.assert_array_equal(first, expected)
    other = evaluation.load_matching(network, {**as_seen, "fit": "stretch", "interpolation": "bilinear"}, "test", None)
    assert other.notes == [
        "data.fit is stretch, and was crop(0.5) when the network was trained",
        "data.interpolation is bilinear, and was bicubic when the network was trained",
    ]
