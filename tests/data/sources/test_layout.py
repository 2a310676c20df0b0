"""Which folders are splits and which are classes: by names, never by structure alone, and said where it is open."""

import pytest
from image_files import write_images

import cnn_vit
from cnn_vit import data
from cnn_vit.data.sources import _layout
from cnn_vit.errors import UserError

CLASSES = ("cats", "dogs")


def write_folders(root, *folders, count=4):
    """Writes images into folders below a root."""
    write_images(root, dict.fromkeys(folders, count))


def write_splits(root, *splits):
    """Writes two classes of four images into each of the folders."""
    write_folders(root, *(f"{split}/{name}" for split in splits for name in CLASSES))


def load_dataset(path, **changes):
    """Loads the data set of a path with some settings of the data changed."""
    return data.load({"name": "folder", "path": str(path), **changes})


def counts(path, **changes):
    """Returns the number of images of each split, once the classes were seen to be cats and dogs."""
    dataset = load_dataset(path, **changes)
    assert dataset.classes == CLASSES
    return dataset.facts["counts"]


def train_briefly(path, workdir, *overrides):
    """Trains a tiny network for two steps on the images at a path."""
    words = ["model.name=mlp/test", "data.name=folder", f"data.path={path}", "duration=2 steps", "schedule.warmup=0"]
    words += ["data.batch_size=2", "data.image_size=8", "data.classes=none", *overrides]
    cnn_vit.train(cnn_vit.settings.load("configs/digits_mlp.py", words), workdir)


@pytest.mark.parametrize(
    ("train", "other", "split"),
    [
        ("training_set", "test_set", "test"),
        ("Training", "Testing", "test"),
        ("TRAIN_DATA", "Test Images", "test"),
        ("trainset", "testset", "test"),
        ("TrainImages", "TestImages", "test"),
        ("train-v1", "test-v1", "test"),
        ("train_512x512", "val_512x512", "validation"),
        ("train2017", "val2017", "validation"),
        ("seg_train", "seg_test", "test"),
        ("train", "dev", "validation"),
        ("train-images", "validation-images", "validation"),
        ("train", "eval", "validation"),
        ("train", "Evaluation", "validation"),
    ],
)
def test_a_folder_is_a_split_by_its_name_beside_one_for_training(tmp_path, train, other, split):
    write_splits(tmp_path, train, other)
    # without a validation split, a tenth of the training images
    expected = {"train": 8, "validation": 8} if split == "validation" else {"train": 7, "validation": 1, "test": 8}
    assert counts(tmp_path) == expected


def test_eval_is_the_test_split_beside_another_for_validation(tmp_path):
    write_splits(tmp_path, "train", "val", "eval")
    assert counts(tmp_path) == {"train": 8, "validation": 8, "test": 8}
    write_splits(tmp_path, "test")
    with pytest.raises(UserError, match="has two folders for test; keep one of them"):
        load_dataset(tmp_path)


def test_a_folder_in_a_folder_of_its_own_name_is_looked_into(tmp_path):
    write_splits(tmp_path, "seg_train/seg_train", "seg_test/Seg_Test")
    assert counts(tmp_path) == {"train": 7, "validation": 1, "test": 8}


@pytest.mark.parametrize(
    "names",
    [("dev", "prod"), ("test_set", "test_tube"), ("eval", "exam"), ("training", "train_station"), ("pred", "prey")],
)
def test_without_two_splits_such_names_are_classes(tmp_path, names):
    write_folders(tmp_path, *names, count=12)
    assert load_dataset(tmp_path).classes == tuple(sorted(names))


@pytest.mark.parametrize(
    ("folders", "classes"),
    [
        (["PlantVillage/Potato___healthy", "PlantVillage/Tomato___healthy"], ("Potato___healthy", "Tomato___healthy")),
        (["animals/cat", "animals/dog"], ("cat", "dog")),
        (["cat/indoor", "cat/outdoor", "dog/indoor"], ("cat", "dog")),
        (["cat/photos", "dog/photos"], ("cat", "dog")),
    ],
)
def test_what_can_be_read_in_one_way_is_read_so(tmp_path, folders, classes):
    write_folders(tmp_path, *folders, count=12)
    assert load_dataset(tmp_path).classes == classes


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        (("benign", "malignant"), ("40X", "100X")),
        (("hospitalA", "hospitalB"), ("benign", "malignant")),
        (("fold1", "fold2", "fold3"), ("a", "b")),
        (("color", "grayscale"), ("Potato", "Tomato", "Grape")),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused_and_both_are_shown(tmp_path, outer, inner):
    write_folders(tmp_path, *(f"{first}/{second}" for first in outer for second in inner), count=6)
    with pytest.raises(UserError) as caught:
        load_dataset(tmp_path)
    sentence = str(caught.value)
    for name in (*outer, *inner, "data.layout=classes", "data.layout=splits"):
        assert name in sentence
    as_classes, as_splits = load_dataset(tmp_path, layout="classes"), load_dataset(tmp_path, layout="splits")
    assert as_classes.classes == tuple(sorted(outer))
    assert as_splits.classes == tuple(sorted(inner))
    assert as_classes.fingerprint != as_splits.fingerprint


def test_the_parts_of_one_set_are_joined_class_by_class(tmp_path):
    write_images(tmp_path, {"hospitalA/sick": 11, "hospitalA/well": 12, "hospitalB/sick": 13, "hospitalB/well": 14})
    dataset = load_dataset(tmp_path, layout="splits")
    by_class = {"sick": 0, "well": 0}
    for split, images in dataset.splits.items():
        for name, label in zip(images.names, images.labels, strict=True):
            assert name.split("/")[0] == dataset.classes[label]
            assert name.split("/")[1] in ("hospitalA", "hospitalB")
        for name, count in dataset.facts["class_counts"][split].items():
            by_class[name] += count
    assert by_class == {"sick": 24, "well": 26}


@pytest.mark.parametrize(
    ("added", "sentence"),
    [
        (".", "has 4 images right in it"),
        ("hospitalA", "has 4 images right in it"),
        ("hospitalA/cats/train", "train is a split inside a class"),
        ("hospitalB/Cats", "has the classes 'cats' and 'Cats' in two parts; write them alike"),
        ("hospitalC/", "hospitalC holds no images"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(tmp_path, added, sentence):
    write_splits(tmp_path, "hospitalA")
    write_folders(tmp_path, "hospitalB/dogs")
    if added.endswith("/"):
        (tmp_path / added).mkdir()
    else:
        write_folders(tmp_path, added)
    with pytest.raises(UserError, match=sentence):
        load_dataset(tmp_path, layout="splits")


@pytest.mark.parametrize(
    "names", [("my_train", "my_test"), ("train-mine", "val-mine"), ("dev", "ops"), ("train1", "train2")]
)
def test_what_may_be_splits_under_names_of_ones_own_is_never_mixed(tmp_path, names):
    write_splits(tmp_path, *names)
    for layout in ("auto", "splits"):
        with pytest.raises(
            UserError, match=r"may be a split or a class; .* rename it and those beside it to train, val"
        ):
            load_dataset(tmp_path, layout=layout)
    assert load_dataset(tmp_path, layout="classes").classes == tuple(sorted(names))


@pytest.mark.parametrize("inner", [("train", "test"), ("training_set", "test_set"), ("train", "val", "test")])
def test_splits_inside_classes_are_refused(tmp_path, inner):
    write_folders(tmp_path, *(f"{name}/{split}" for name in ("car", "bus") for split in inner))
    with pytest.raises(UserError, match="is a split inside a class; put each class's images in a folder of its own"):
        load_dataset(tmp_path)
    assert load_dataset(tmp_path, layout="classes").classes == ("bus", "car")


def test_a_copy_of_the_set_beside_its_splits_is_called_one(tmp_path):
    write_splits(tmp_path, "train", "test", "xrays/train", "xrays/test")
    with pytest.raises(UserError, match=r"xrays looks like a copy of .* beside it; take it away"):
        load_dataset(tmp_path)


def test_classes_may_have_the_names_of_splits_where_it_is_said(tmp_path):
    write_splits(tmp_path, "train", "test")
    assert load_dataset(tmp_path, layout="classes").classes == ("test", "train")
    assert load_dataset(tmp_path).fingerprint == load_dataset(tmp_path, layout="splits").fingerprint


def test_splits_beside_other_folders_are_refused(tmp_path):
    write_splits(tmp_path, "train", "test", "extra")
    for layout in ("auto", "splits"):
        with pytest.raises(
            UserError, match=r"extra has images and lies beside .*; where all of these are classes, set"
        ):
            load_dataset(tmp_path, layout=layout)


def test_a_layout_of_another_name_is_refused_with_the_choices(tmp_path):
    with pytest.raises(UserError, match=r"data.layout is 'folders'; it takes auto or classes or splits"):
        load_dataset(tmp_path, layout="folders")


@pytest.mark.parametrize("folder", ["test", "test/test", "seg_pred/seg_pred", "val", "Testing", "single_prediction"])
def test_images_without_labels_are_left_out_and_named(tmp_path, folder):
    write_splits(tmp_path, "train")
    write_folders(tmp_path, folder)
    dataset = load_dataset(tmp_path)
    assert dataset.facts["counts"] == {"train": 7, "validation": 1}
    name = f"{tmp_path}/{folder.split('/')[0]}"
    sentence = f"{name} has images without labels and is left out; cnn-vit predict gives their classes"
    assert dataset.facts["left out"] == [sentence]
    assert sentence in dataset.facts["notes"]


def test_a_folder_for_prediction_without_images_is_not_worth_a_word(tmp_path):
    write_splits(tmp_path, "train", "test")
    (tmp_path / "pred").mkdir()
    assert "left out" not in load_dataset(tmp_path).facts


def test_a_class_may_have_the_name_of_its_split(tmp_path):
    write_folders(tmp_path, "train/val", "train/bus", "val/val")
    dataset = load_dataset(tmp_path)
    assert dataset.facts["class_counts"]["validation"] == {"bus": 0, "val": 4}


def test_a_path_is_evaluated_in_the_layout_of_the_run(tmp_path):
    write_splits(tmp_path / "photos", "hospitalA", "hospitalB")
    train_briefly(tmp_path / "photos", tmp_path / "run", "data.layout=splits")
    network = cnn_vit.load(tmp_path / "run")
    assert network.classes == CLASSES
    assert cnn_vit.evaluate(network, tmp_path / "photos", "test")["n"] == 2


def test_training_says_what_it_leaves_out_and_what_is_not_measured(tmp_path, capsys):
    write_splits(tmp_path / "photos", "train")
    write_folders(tmp_path / "photos", "test", "val/cats")
    train_briefly(tmp_path / "photos", tmp_path / "run")
    stderr = capsys.readouterr().err
    assert f"{tmp_path}/photos/test has images without labels and is left out" in stderr
    assert "validation has no image of dogs, so its accuracy says nothing about those" in stderr


@pytest.mark.parametrize("link", ["ghost", "train/ghost", "val", "train/train/ghost", "train/train/train/ghost"])
def test_a_link_to_nothing_may_have_been_a_class_and_is_named(tmp_path, link):
    write_splits(tmp_path, "train/train/train", "test")
    (tmp_path / link).symlink_to("/nowhere")
    with pytest.raises(UserError, match=f"{link} is a link to nothing, where a class or a split may have been; mend"):
        load_dataset(tmp_path)


def test_a_link_to_nothing_in_a_part_of_a_set_is_named(tmp_path):
    write_splits(tmp_path, "hospitalA", "hospitalB")
    (tmp_path / "hospitalB" / "birds").symlink_to("/nowhere")
    with pytest.raises(UserError, match="hospitalB/birds is a link to nothing"):
        load_dataset(tmp_path, layout="splits")


def test_a_link_to_nothing_on_the_way_to_the_classes_is_named(tmp_path):
    write_splits(tmp_path, "photos/mine")
    (tmp_path / "photos" / "others").symlink_to("/nowhere")
    with pytest.raises(UserError, match="others is a link to nothing"):
        load_dataset(tmp_path)


def test_notes_that_are_a_link_to_nothing_do_no_harm(tmp_path):
    write_splits(tmp_path, "train", "test")
    for name in ("README.md", "train/labels.csv"):
        (tmp_path / name).symlink_to("/nowhere")
    assert counts(tmp_path) == {"train": 7, "validation": 1, "test": 8}


@pytest.mark.parametrize("folders", [("train", "test"), ("training_set", "test_set"), ("Training", "eval")])
def test_training_images_need_labels(tmp_path, folders):
    write_folders(tmp_path, *folders)
    with pytest.raises(
        UserError, match=r"has no class folders; .*; where it is a class itself, set data.layout=classes"
    ):
        load_dataset(tmp_path)
    assert load_dataset(tmp_path, layout="classes").classes == tuple(sorted(folders))


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("train", "train"), ("Training Set", "train"), ("train_224", "train"), ("traindata", "train"),
        ("val", "validation"), ("dev_set", "validation"), ("TESTING", "test"), ("eval", "evaluation"),
        ("predictions", None), ("seg_pred", "unlabeled"), ("trainer", None), ("contest", None), ("set", None),
        ("train_test", None), ("my train", None), ("", None), ("1", None), ("testing_v2", "test"),
        ("trainImages", "train"), ("test tube", None), ("TestSet", "test"),
    ],
)  # fmt: skip
def test_the_role_of_a_name(name, role):
    assert _layout.read_role(name) == role
