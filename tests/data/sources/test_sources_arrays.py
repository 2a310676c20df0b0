"""Arrays in an npz: pixels or JPEG streams, checked before anything is unpacked."""

import errno
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import noise
from PIL import Image

from cnn_vit import data
from cnn_vit.data.decode import images
from cnn_vit.data.reading import materialize
from cnn_vit.data.sources import arrays
from cnn_vit.errors import SurroundingsError, UserError

SHARED = Path(__file__).parents[4] / "shared" / "data"  # real data sets, on machines that have them


def valid_arrays(count=40, classes=4, shape=(5, 6)):
    """Returns arrays that fit together, sorted by class as some files are."""
    return {
        "train_x": noise(count, *shape),
        "train_y": np.repeat(np.arange(classes), count // classes),
        "test_x": noise(8, *shape, seed=1),
        "test_y": np.arange(8) % classes,
    }


def save_arrays(folder, **changes):
    """Saves the valid arrays with some changed, and returns the path; None leaves an array out."""
    path = folder / "a.npz"
    arrays_to_save = {name: array for name, array in (valid_arrays() | changes).items() if array is not None}
    np.savez_compressed(path, **arrays_to_save)
    return path


def load_dataset(path, **changes):
    """Loads the data set of a path with some settings of the data changed."""
    return data.load({"name": "arrays", "path": str(path), **changes})


def read_pixels(split):
    """Reads all images of a split."""
    return split.read(np.arange(len(split)))


# What is read


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1), (5, 6, 3)])
@pytest.mark.parametrize("is_reversed", [False, True])
def test_arrays_are_the_images(tmp_path, shape, is_reversed):
    arrays_to_save = valid_arrays(shape=shape)
    path = tmp_path / "a.npz"
    if is_reversed:  # x_train for train_x
        np.savez(path, **{"_".join(reversed(name.split("_"))): array for name, array in arrays_to_save.items()})
    else:
        np.savez(path, **arrays_to_save)
    dataset = load_dataset(path, validation="train[:25%]", train="train[25%:]")
    assert dataset.image_shape == (*shape, 1)[:3]
    assert dataset.classes == ("0", "1", "2", "3")
    test_images = arrays_to_save["test_x"].reshape(8, *dataset.image_shape)
    np.testing.assert_array_equal(read_pixels(dataset.splits["test"]), test_images)
    np.testing.assert_array_equal(dataset.splits["test"].labels, arrays_to_save["test_y"])
    train_images = [*read_pixels(dataset.splits["train"]), *read_pixels(dataset.splits["validation"])]
    assert sorted(map(bytes, train_images)) == sorted(map(bytes, arrays_to_save["train_x"]))


def test_a_class_sorted_file_sliced_to_45_percent_keeps_every_class_in_proportion(tmp_path):
    many = valid_arrays(count=400)
    path = save_arrays(tmp_path, train_x=many["train_x"], train_y=many["train_y"])
    dataset = load_dataset(path, train="train[:45%]", validation="train[45%:]")
    assert np.bincount(dataset.splits["train"].labels).tolist() == [45] * 4
    assert np.bincount(dataset.splits["validation"].labels).tolist() == [55] * 4
    label_of = {bytes(pixels): label for pixels, label in zip(many["train_x"], many["train_y"], strict=True)}
    for name in ("train", "validation"):
        split = dataset.splits[name]
        labels = [label_of[bytes(pixels)] for pixels in read_pixels(split)]
        assert labels == split.labels.tolist()


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint64])
def test_labels_may_be_any_integers_in_a_row_or_a_column(tmp_path, dtype):
    dataset = load_dataset(save_arrays(tmp_path, train_y=valid_arrays()["train_y"].astype(dtype)[:, None]))
    assert dataset.facts["class_counts"]["train"] == {"0": 9, "1": 9, "2": 9, "3": 9}


def test_class_names_and_validation_are_read_and_unused_arrays_are_recorded(tmp_path):
    path = save_arrays(
        tmp_path,
        validation_x=noise(4, 5, 6),
        validation_y=np.arange(4),
        class_names=np.array(["a", "b", "c", "d"]),
        ids=np.arange(3),
    )
    dataset = load_dataset(path)
    assert dataset.classes == ("a", "b", "c", "d")
    assert dataset.facts["counts"] == {"train": 40, "validation": 4, "test": 8}
    assert dataset.facts["unused"] == ["ids"]


def test_arrays_are_resized_and_recolored_by_the_one_fit(tmp_path):
    large = valid_arrays(shape=(9, 12, 3))
    dataset = load_dataset(save_arrays(tmp_path, **large), image_size=(4, 4), channels=1)
    expected = [images.fit_image(images.to_channels(image, 1), (4, 4), "crop") for image in large["test_x"]]
    np.testing.assert_array_equal(read_pixels(dataset.splits["test"]), expected)


def test_resized_arrays_that_would_fill_the_memory_are_resized_when_read(tmp_path, monkeypatch):
    path = save_arrays(tmp_path)
    in_memory = load_dataset(path, image_size=3).splits["train"]
    monkeypatch.setattr(materialize, "MEMORY", 100)
    when_read = load_dataset(path, image_size=3).splits["train"]
    assert (in_memory.in_memory, when_read.in_memory) == (True, False)
    np.testing.assert_array_equal(read_pixels(when_read), read_pixels(in_memory))


def test_fortran_order_is_read_as_it_is_meant(tmp_path):
    test_images = valid_arrays()["test_x"]
    dataset = load_dataset(save_arrays(tmp_path, test_x=np.asfortranarray(test_images)))
    np.testing.assert_array_equal(read_pixels(dataset.splits["test"])[..., 0], test_images)


def test_the_fingerprint_sees_pixels_labels_and_shape(tmp_path):
    valid = valid_arrays()
    one_bit_flipped = valid["train_x"].copy()
    one_bit_flipped[3, 2, 1] ^= 1
    changes = [
        {},
        {"train_x": one_bit_flipped},
        {name: valid[name].reshape(-1, 6, 5) for name in ("train_x", "test_x")},
        {"test_y": valid["test_y"][::-1]},
        {"class_names": np.array(list("abcd"))},
    ]
    fingerprints = [load_dataset(save_arrays(tmp_path, **change)).fingerprint for change in changes]
    assert len(set(fingerprints)) == len(changes)
    sliced_and_resized = load_dataset(save_arrays(tmp_path), train="train[:50%]", image_size=4)
    assert sliced_and_resized.fingerprint == fingerprints[0]


# JPEG streams


def encode_jpeg(pixels):
    """Returns pixels as the bytes of a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def join_files(files):
    """Returns files one behind the other, and where each begins."""
    joined = np.frombuffer(b"".join(files), np.uint8)
    return joined, np.cumsum([0, *map(len, files)])


def save_streams(folder, *, bad=(), **changes):
    """Saves JPEG files as streams, some arrays changed; returns the files of each part and the path.

    `bad` holds the indices of files to train on that are replaced by a text.
    """
    files, streams = {}, {}
    for part, count in (("train", 20), ("test", 4)):
        files[part] = [encode_jpeg(pixels) for pixels in noise(count, 8, 8, 3, seed=count)]
    for index in bad:
        files["train"][index] = b"text"
    for part, part_files in files.items():
        streams[f"{part}_jpeg"], streams[f"{part}_offsets"] = join_files(part_files)
        streams[f"{part}_labels"] = (np.arange(len(part_files)) % 2).astype(np.uint8)
    without_pixels = dict.fromkeys(valid_arrays())
    return files, save_arrays(folder, **without_pixels, **(streams | changes))


@pytest.mark.parametrize("workers", [0, 3])
def test_jpeg_streams_are_decoded_in_memory(tmp_path, workers):
    files, path = save_streams(tmp_path)
    dataset = load_dataset(path, workers=workers)
    assert dataset.image_shape == (8, 8, 3)
    assert dataset.splits["test"].in_memory
    expected = [np.asarray(Image.open(io.BytesIO(file))) for file in files["test"]]
    np.testing.assert_array_equal(read_pixels(dataset.splits["test"]), expected)


def test_a_file_in_a_stream_that_cannot_be_read_is_named_by_its_index(tmp_path):
    _, path = save_streams(tmp_path, bad=[7])
    with pytest.raises(UserError, match=r"a.npz: train_jpeg\[7\] cannot be read: not an image of a kind that is read"):
        load_dataset(path)


# What is refused


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (dict.fromkeys(valid_arrays()), "a.npz holds nothing; there must be train_x and train_y"),
        ({"train_x": None, "train_y": None}, "a.npz holds test_x, test_y; there must be train_x and train_y"),
        ({"train_y": None}, "a.npz has no train_y"),
        ({"train_y": None, "train_labels": np.arange(3)}, "a.npz has no train_y"),
        ({"test_y": None}, "a.npz has no test_y"),
        ({"train_x": noise(40, 5, 6) / 255}, "train_x is float64; images are uint8, 0 to 255"),
        ({"train_x": noise(40, 5)}, r"train_x has the shape \(40, 5\); images are \(N, H, W\), \(N, H, W, 1\) or"),
        ({"train_x": noise(40, 3, 5, 6)}, r"the shape \(40, 3, 5, 6\); .*; transpose it with \(0, 2, 3, 1\)"),
        ({"train_x": noise(40, 5, 6, 4)}, r"train_x has the shape \(40, 5, 6, 4\); images are"),
        ({"train_x": noise(39, 5, 6)}, "train_x has 39 images, train has 40 labels"),
        ({"test_x": noise(9, 5, 6)}, "test_x has 9 images, test has 8 labels"),
        ({"train_y": np.repeat(np.arange(4), 10) / 1}, "train_y is float64; labels are integers from 0"),
        ({"train_y": np.eye(4, dtype=int).repeat(10, 0)}, r"train_y has the shape \(40, 4\); labels are \(N,\)"),
        ({"test_y": np.arange(0), "test_x": noise(0, 5, 6)}, "test_y is empty; leave the array out or fill it"),
        (
            {"train_y": np.repeat(np.arange(4), 10) - 1},
            "labels of train go from -1 to 2; with the 3 classes of train they",
        ),
        (
            {"train_y": np.append(np.arange(39) % 4, 2**31 - 1)},
            "a label of train is 2,147,483,647, which makes 2,147,483,648 classes of 40 images; labels count the cla",
        ),
        ({"test_y": np.arange(8)}, "labels of test go from 0 to 7; with the 4 classes of train they go from 0 to 3"),
        (
            {"class_names": np.array(["a", "b"])},
            "labels of train go from 0 to 3; with the 2 classes of class_names they",
        ),
        ({"class_names": np.array(["a", "b", "a", "d"])}, "class_names holds a name twice; give each class its own"),
        ({"class_names": np.array([b"a", b"b", b"\xe9", b"d"])}, "class_names holds bytes that are not UTF-8; write"),
        ({"class_names": np.arange(4)}, "class_names is int64 of shape .*; it must be a row of texts"),
        (
            {"train_y": np.repeat([0, 1, 3, 4], 10), "test_y": None, "test_x": None},
            "train has no image of 2, of 5 cla",
        ),
        ({"train_y": np.zeros(40, int), "test_y": np.zeros(8, int)}, "the data has one class, 0; there must be two"),
        ({"test_x": noise(8, 7, 6)}, "images have 2 sizes, 5 to 7 pixels high and 6 to 6 wide; set data.image_size"),
        ({"ids": np.array([{}], object)}, "ids.npy holds Python objects, which are never read; write numbers or texts"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_name(tmp_path, changes, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        load_dataset(save_arrays(tmp_path, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"test_offsets": None}, "a.npz has no test_offsets"),
        ({"train_jpeg": noise(4, 4)}, r"train_jpeg is uint8 of shape \(4, 4\); it must be a row of bytes, uint8"),
        (
            {"train_offsets": np.arange(21) / 1},
            r"train_offsets is float64 of shape \(21,\); it must be a row of integers",
        ),
        ({"train_offsets": np.arange(20)}, "train_offsets has 19 images, train has 20 labels"),
        (
            {"train_offsets": np.arange(21)},
            "train_offsets must rise from 0 to .*, the bytes of train_jpeg; it goes from 0",
        ),
    ],
)
def test_streams_that_do_not_fit_are_refused_by_name(tmp_path, changes, sentence):
    _, path = save_streams(tmp_path, **changes)
    with pytest.raises(UserError, match=sentence):
        load_dataset(path)


def test_a_missing_array_is_named_with_the_path_as_it_is(tmp_path):
    (tmp_path / "train").mkdir()
    path = save_arrays(tmp_path / "train", test_y=None)
    with pytest.raises(UserError) as caught:
        load_dataset(path)
    assert str(caught.value).startswith(f"{path} has no test_y; there must be test_x and test_y (")


def test_offsets_that_fall_are_refused(tmp_path):
    _, path = save_streams(tmp_path)
    offsets = np.load(path)["train_offsets"]
    offsets[3] = offsets[2] - 1
    _, path = save_streams(tmp_path, train_offsets=offsets)
    with pytest.raises(UserError, match="train_offsets must rise"):
        load_dataset(path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "a.npz is not there; data.path is an .npz of arrays"),
        (b"", "a.npz is not an .npz, or is damaged; write it with numpy.savez_compressed, or download it again"),
        (b"PK\3\4 cut", "a.npz is not an .npz, or is damaged"),
        (b"\x93NUMPY\1\0", "a.npz is not an .npz, or is damaged"),
    ],
)
def test_a_file_that_is_not_an_npz_is_refused(tmp_path, content, sentence):
    if content is not None:
        (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        load_dataset(tmp_path / "a.npz")


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    """The system is asked in its own words, for root may read everything."""
    path = tmp_path / "a.npz"
    np.savez_compressed(path, train_x=np.zeros((4, 8, 8), np.uint8), train_y=[0, 1, 0, 1])
    ask_system = open

    def refuse(name, *arguments, **keywords):
        if str(name) == str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return ask_system(name, *arguments, **keywords)

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(SurroundingsError, match=f"no permission for {path}; change its rights"):
        load_dataset(path)


def test_a_folder_above_that_may_not_be_searched_is_not_called_an_absent_file(tmp_path, monkeypatch):
    path = tmp_path / "closed" / "a.npz"
    ask_system = os.stat

    def refuse(name, *arguments, **keywords):
        if str(name) == str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return ask_system(name, *arguments, **keywords)

    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(SurroundingsError, match=f"no permission for {path}"):
        load_dataset(path)


def test_a_folder_in_place_of_the_file_is_called_one(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path} is a folder, and data.path is an .npz of arrays; name a file"):
        load_dataset(tmp_path)


def replace_array(folder, name, content):
    """Saves the valid arrays, the file of one of them replaced by other bytes; returns the path."""
    path = save_arrays(folder, **{name: None})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}.npy", content)
    return path


def array_header(shape, dtype="|u1"):
    """Returns the header of a .npy file that declares a shape and a dtype."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"shape": shape, "fortran_order": False, "descr": dtype})
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            array_header((2**40, 28, 28)) + b"1" * 9,
            "train_x.npy declares 1099511627776x28x28 of uint8 but is 9 bytes long",
        ),
        (
            array_header((40, 5, 6)) + b"1" * 1201,
            "train_x.npy declares 40x5x6 of uint8 but is 1,201 bytes long; write the file",
        ),
        (array_header((-40, -5, 6)) + b"1" * 1200, "train_x.npy"),
        (b"\x93NUMPY\1\0\xff\xff{'shape': __import__('os')", "train_x.npy is not an array, or is damaged"),
        (b"text", "train_x.npy is not an array, or is damaged; write the file again"),
        (
            array_header((1,), "|O") + b"cos\nsystem\n(S'true'\ntR.",
            "train_x.npy holds Python objects, which are never read",
        ),
    ],
)
def test_a_header_that_lies_is_refused_before_anything_is_unpacked(tmp_path, content, sentence):
    with pytest.raises(UserError, match=sentence):
        load_dataset(replace_array(tmp_path, "train_x", content))


def test_bombs_are_refused_by_the_directory(tmp_path, monkeypatch):
    bomb = replace_array(tmp_path, "train_x", array_header((10**7,)) + b"\0" * 10**7)
    monkeypatch.setattr(arrays, "SUSPECT", 10**6)
    with pytest.raises(UserError, match=r"train_x.npy packs 10,000,128 bytes into [\d,]+, which no images do"):
        load_dataset(bomb)
    monkeypatch.setattr(arrays, "LARGEST", 10**6)
    with pytest.raises(UserError, match=r"a.npz unpacks to 10,[\d,]+ bytes; 1,000,000 are the most"):
        load_dataset(bomb)
    many = tmp_path / "many.npz"
    np.savez(many, **{f"a{number}": np.zeros(1) for number in range(65)})
    with pytest.raises(UserError, match=r"many.npz holds 65 arrays; 64 are the most"):
        load_dataset(many)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(share=st.floats(0, 1), bit=st.integers(0, 7))
def test_a_flipped_bit_is_a_user_error_or_changes_nothing(tmp_path_factory, share, bit):
    """A checksum covers every array; what it does not cover, such as a date, does not matter."""
    folder = tmp_path_factory.mktemp("flip")
    path = save_arrays(folder)
    undamaged = load_dataset(path)
    content = bytearray(path.read_bytes())
    content[int(share * (len(content) - 1))] ^= 1 << bit
    path.write_bytes(content)
    try:
        damaged = load_dataset(path)
    except UserError:
        return
    if damaged.splits.keys() == undamaged.splits.keys():  # else a name was hit, and a whole part is not seen
        assert damaged.fingerprint == undamaged.fingerprint


# Real data sets, where the machine has them


def shared_file(name):
    """Returns the path of a real data set as a parameter, whose test is skipped where the file is not there."""
    path = SHARED / name
    return pytest.param(path, marks=pytest.mark.skipif(not path.is_file(), reason=f"there is no {path}"))


@pytest.mark.parametrize("path", [shared_file("mnist.npz")])
def test_mnist_loads(path):
    dataset = load_dataset(path, train="train[:90%]", validation="train[90%:]")
    assert (dataset.image_shape, dataset.facts["counts"]["test"]) == ((28, 28, 1), 10_000)
    test_counts = list(dataset.facts["class_counts"]["test"].values())
    assert test_counts == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]  # of LeCun's file
    mean, std = data.mean_and_std(dataset.splits["train"])
    assert mean[0] == pytest.approx(0.1307, abs=2e-3)  # published for the whole train split
    assert std[0] == pytest.approx(0.3081, abs=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("path", [shared_file("cifar10_jpeg.npz")])
def test_cifar_loads_from_jpeg_streams_and_its_slices_hold_all_classes(path):
    dataset = load_dataset(path, train="train[:45000]", validation="train[45000:]", workers=2)
    assert dataset.classes[0] == "airplane"
    assert dataset.image_shape == (32, 32, 3)
    assert set(dataset.facts["class_counts"]["train"].values()) == {4500}
    assert set(dataset.facts["class_counts"]["validation"].values()) == {500}
    mean, _ = data.mean_and_std(dataset.splits["train"])
    np.testing.assert_allclose(mean, (0.4914, 0.4822, 0.4465), atol=6e-3)  # published for the exact pixels
