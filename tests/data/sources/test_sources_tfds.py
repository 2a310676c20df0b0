"""The source `tfds`, on a small data set prepared here: no network, no TensorFlow."""

import json
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from prepared import COUNTS, Gaps, Tiny, Unlabeled, draw_image

from cnn_vit import data
from cnn_vit.data.base.parts import SourceOptions
from cnn_vit.data.decode import images
from cnn_vit.data.sources import tfds as source
from cnn_vit.errors import SurroundingsError, UserError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The folder of prepared data sets, with two versions of one."""
    folder = tmp_path_factory.mktemp("prepared")
    for version in ("1.2.0", "1.10.0"):
        Tiny(data_dir=folder, file_format="array_record", version=version).download_and_prepare()
    return folder


def section(root, **changes):
    """Settings of the data that read the small data set at 6x8 pixels."""
    return {"name": "tfds", "path": str(root), "dataset": "tiny", "image_size": (6, 8), **changes}


def copy_version(root, folder):
    """Copies version 1.2.0 to a folder where a test may damage it; returns the copy's path."""
    copy = folder / "tiny" / "1.2.0"
    shutil.copytree(root / "tiny" / "1.2.0", copy)
    return copy


def test_images_and_classes_are_those_that_were_prepared(root):
    dataset = data.load(section(root))
    assert dataset.classes == ("ant", "bee", "cat")
    counts = {name: len(split) for name, split in dataset.splits.items()}
    assert counts == {"train": 27, "validation": 3, "test": 6}
    assert dataset.facts["dataset"] == "tiny/1.10.0"  # the highest version, not the last in the alphabet
    expected = {}
    for split in ("train", "test"):
        for index in range(COUNTS[split]):
            pixels = images.fit_image(draw_image(split, index), (6, 8), "crop")
            expected[split, pixels.tobytes()] = index % 3
    labels = {}
    for name, split in dataset.splits.items():
        part = "test" if name == "test" else "train"  # validation is cut from train
        for pixels, label in zip(split.read(np.arange(len(split))), split.labels.tolist(), strict=True):
            labels[part, pixels.tobytes()] = label
    assert labels == expected


def test_sizes_are_those_of_the_images_files(root):
    part = source.load(SourceOptions(str(root)), dataset="tiny").parts["train"]
    assert part.sizes.tolist() == [len(part.content(index, None)) for index in range(COUNTS["train"])]


def test_another_feature_is_the_class_where_it_is_named(root):
    dataset = data.load(section(root, label="group"))
    assert dataset.classes == ("insect", "mammal")
    assert np.bincount(dataset.splits["test"].labels).tolist() == [4, 2]
    with pytest.raises(UserError, match=r"tiny/1.10.0 has no class feature 'kind'; it has group, label"):
        data.load(section(root, label="kind"))


def test_a_version_or_the_folder_itself_may_be_named(root):
    assert data.load(section(root, dataset="tiny:1.2.0")).facts["dataset"] == "tiny/1.2.0"
    named_by_path = data.load({"name": "tfds", "path": str(root / "tiny" / "1.2.0"), "image_size": 8})
    assert named_by_path.facts["dataset"] == "tiny/1.2.0"


@pytest.mark.parametrize(
    ("dataset", "sentence"),
    [
        ("tiny:3.0.0", r"tiny:3.0.0 is not prepared in .*; run: tfds build tiny:3.0.0 --file_format=array_record "
                       r"--data_dir=\S*prepared\S*   \(after pip install tensorflow-cpu"),
        ("mnist:3.0.1", r"mnist:3.0.1 is not prepared in .*run: tfds build mnist:3.0.1 --file_format=array_record"),
        ("oxford_flowers103", "the catalog has no 'oxford_flowers103'; did you mean oxford_flowers102"),
        ("../tiny", r"data.dataset is '../tiny', which cannot be a name of the catalog; write mnist, mnist:3.0.1 or"),
        ("kaggle:tiny", "data.dataset is 'kaggle:tiny', which cannot be a name of the catalog"),
    ],
)  # fmt: skip
def test_a_data_set_that_is_not_there_is_refused_with_the_way_to_it(root, dataset, sentence):
    with pytest.raises(UserError, match=sentence):
        data.load(section(root, dataset=dataset))


def test_the_command_is_one_that_a_shell_takes(tmp_path):
    with pytest.raises(UserError) as caught:
        data.load({"name": "tfds", "path": str(tmp_path / "my sets"), "dataset": "mnist:3.0.1"})
    command = str(caught.value).partition("run: ")[2].partition("   (")[0]
    words = shlex.split(command)
    assert words == ["tfds", "build", "mnist:3.0.1", "--file_format=array_record", f"--data_dir={tmp_path}/my sets"]


def test_without_a_name_the_error_asks_for_one(root):
    with pytest.raises(UserError, match=r"add --config.data.dataset=NAME: write mnist"):
        data.check({"name": "tfds"})
    with pytest.raises(UserError, match=r"holds no prepared data set .*--config.data.dataset=NAME"):
        data.load({"name": "tfds", "path": str(root)})


def test_features_of_other_programs_are_not_imported(root, tmp_path):
    copy = copy_version(root, tmp_path)
    features = json.loads((copy / "features.json").read_text())
    features["featuresDict"]["features"]["label"]["pythonClassName"] = "antigravity.Label"
    (copy / "features.json").write_text(json.dumps(features))
    with pytest.raises(UserError, match=r"asks for antigravity.Label, which is not a feature of tensorflow_datasets"):
        data.load(section(tmp_path))
    assert "antigravity" not in sys.modules


def test_a_label_beyond_the_classes_is_refused_with_both_numbers(root, tmp_path):
    copy = copy_version(root, tmp_path)
    (copy / "label.labels.txt").write_text("ant\nbee\n")  # of three
    features = json.loads((copy / "features.json").read_text())
    features["featuresDict"]["features"]["label"]["classLabel"]["numClasses"] = "2"
    (copy / "features.json").write_text(json.dumps(features))
    with pytest.raises(UserError) as caught:
        data.load(section(tmp_path))
    assert str(caught.value) == "tiny/1.2.0 train has labels from 0 to 2; with 2 classes they go from 0 to 1"


def test_a_split_that_lacks_some_labels_is_refused(tmp_path):
    Gaps(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    with pytest.raises(UserError, match=r"gaps/1.2.0 train has labels from -1 to 2; with 3 classes they go from 0 to"):
        data.load(section(tmp_path, dataset="gaps"))


def test_a_split_without_any_labels_is_left_out_and_written_down(tmp_path):
    Unlabeled(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    dataset = data.load(section(tmp_path, dataset="unlabeled"))
    assert dataset.splits.keys() == {"train", "validation"}
    assert dataset.facts["without labels"] == ["test"]


@pytest.mark.parametrize(
    ("name", "share"), [("tiny-train.array_record-00000-of-00001", 0.5), ("dataset_info.json", 0.5)]
)
def test_a_file_cut_short_is_one_sentence(root, tmp_path, name, share):
    copy = copy_version(root, tmp_path)
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"prepare (the data set|it) again"):
        data.load(section(tmp_path))


def test_a_description_that_names_no_files_is_one_sentence(root, tmp_path):
    copy = copy_version(root, tmp_path)
    info = (copy / "dataset_info.json").read_text()
    (copy / "dataset_info.json").write_text(info.replace("{SPLIT}", "{SPLIT"))
    with pytest.raises(UserError, match=r"^tiny/1.2.0 train cannot be read \(.*\); prepare the data set again$"):
        data.load(section(tmp_path))


def test_another_format_is_refused_with_the_command(root, tmp_path):
    copy = copy_version(root, tmp_path)
    info = json.loads((copy / "dataset_info.json").read_text())
    info["fileFormat"] = "tfrecord"
    (copy / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match=r"is prepared as tfrecord, which has no random access; tfds build tiny "):
        data.load(section(tmp_path))


def test_tensorflow_and_jax_are_not_imported(root):
    code = f"""
import sys
from cnn_vit import data
data.load({section(root)!r})
print({{"tensorflow", "jax"}} & sys.modules.keys())
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (process.stdout, process.returncode) == ("set()\n", 0)


def test_without_the_packages_the_error_says_what_to_install(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets.core.read_only_builder", None)
    with pytest.raises(SurroundingsError, match=r"pip install 'cnn_vit\[tfds\]'"):
        data.load(section(root))
