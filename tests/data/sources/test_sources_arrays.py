"""Arrays in an npz: pixels or JPEG streams, checked before anything is unpacked."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st
from image_files import noise
from PIL import Image

from cnn_vit import data
from cnn_vit.data.decode import images
from cnn_vit.data.reading import materialize
from cnn_vit.data.sources import arrays
from cnn_vit.errors import UserError

GIVEN = Path(__file__).parents[4] / "shared" / "data"


def good(count=40, classes=4, shape=(5, 6)):
    """Arrays sorted by class, as some files are."""
    return {
        "train_x": noise(count, *shape),
        "train_y": np.repeat(np.arange(classes), count // classes),
        "test_x": noise(8, *shape, seed=1),
        "test_y": np.arange(8) % classes,
    }


def saved(folder, **changes):
    """An npz of the good arrays with some changed; None leaves one out."""
    path = folder / "a.npz"
    np.savez_compressed(path, **{key: value for key, value in (good() | changes).items() if value is not None})
    return path


def loaded(path, **changes):
    return data.load({"name": "arrays", "path": str(path), **changes})


def pixels_of(split):
    return split.read(np.arange(len(split)))


# What is there


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1), (5, 6, 3)])
@pytest.mark.parametrize("turned", [False, True])
def test_arrays_are_the_images(tmp_path, shape, turned):
    given = good(shape=shape)
    names = {key: "_".join(reversed(key.split("_"))) if turned else key for key in given}
    path = tmp_path / "a.npz"
    np.savez(path, **{names[key]: value for key, value in given.items()})
    found = loaded(path, validation="train[:25%]", train="train[25%:]")
    assert found.image_shape == (*shape, 1)[:3]
    assert found.classes == ("0", "1", "2", "3")
    np.testing.assert_array_equal(pixels_of(found.splits["test"]), given["test_x"].reshape(8, *found.image_shape))
    np.testing.assert_array_equal(found.splits["test"].labels, given["test_y"])
    both = np.concatenate([pixels_of(found.splits[name]) for name in ("train", "validation")])
    assert sorted(map(bytes, both)) == sorted(map(bytes, given["train_x"]))


def test_a_class_sorted_file_sliced_to_45_percent_keeps_every_class_in_proportion(tmp_path):
    given = good(count=400)
    path = saved(tmp_path, train_x=given["train_x"], train_y=given["train_y"])
    found = loaded(path, train="train[:45%]", validation="train[45%:]")
    assert np.bincount(found.splits["train"].labels).tolist() == [45] * 4
    assert np.bincount(found.splits["validation"].labels).tolist() == [55] * 4
    of = {bytes(pixels): label for pixels, label in zip(given["train_x"], given["train_y"], strict=True)}
    for split in ("train", "validation"):
        labels = [of[bytes(pixels)] for pixels in pixels_of(found.splits[split])]
        assert labels == found.splits[split].labels.tolist()


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.uint64])
def test_labels_may_be_any_integers_in_a_row_or_a_column(tmp_path, kind):
    found = loaded(saved(tmp_path, train_y=good()["train_y"].astype(kind)[:, None]))
    assert found.facts["class_counts"]["train"] == {"0": 9, "1": 9, "2": 9, "3": 9}


def test_class_names_and_validation_are_taken_and_what_is_unused_is_said(tmp_path):
    path = saved(
        tmp_path,
        validation_x=noise(4, 5, 6),
        validation_y=np.arange(4),
        class_names=np.array(["a", "b", "c", "d"]),
        ids=np.arange(3),
    )
    found = loaded(path)
    assert found.classes == ("a", "b", "c", "d")
    assert found.facts["counts"] == {"train": 40, "validation": 4, "test": 8}
    assert found.facts["unused"] == ["ids"]


def test_arrays_are_resized_and_recolored_by_the_one_fit(tmp_path):
    given = good(shape=(9, 12, 3))
    found = loaded(saved(tmp_path, **given), image_size=(4, 4), channels=1)
    expected = [images.fit_image(images.to_channels(one, 1), (4, 4), "crop") for one in given["test_x"]]
    np.testing.assert_array_equal(pixels_of(found.splits["test"]), expected)


def test_resized_arrays_that_would_fill_the_memory_are_resized_when_read(tmp_path, monkeypatch):
    path = saved(tmp_path)
    whole = loaded(path, image_size=3)
    monkeypatch.setattr(materialize, "MEMORY", 100)
    lazy = loaded(path, image_size=3)
    assert (whole.splits["train"].in_memory, lazy.splits["train"].in_memory) == (True, False)
    np.testing.assert_array_equal(pixels_of(lazy.splits["train"]), pixels_of(whole.splits["train"]))


def test_fortran_order_is_read_as_it_is_meant(tmp_path):
    given = good()
    found = loaded(saved(tmp_path, test_x=np.asfortranarray(given["test_x"])))
    np.testing.assert_array_equal(pixels_of(found.splits["test"])[..., 0], given["test_x"])


def test_the_fingerprint_sees_pixels_labels_and_shape(tmp_path):
    given = good()
    other = given["train_x"].copy()
    other[3, 2, 1] ^= 1
    turned = {key: given[key].reshape(-1, 6, 5) for key in ("train_x", "test_x")}
    changes = [
        {},
        {"train_x": other},
        turned,
        {"test_y": given["test_y"][::-1]},
        {"class_names": np.array(list("abcd"))},
    ]
    found = [loaded(saved(tmp_path, **change)).fingerprint for change in changes]
    assert len(set(found)) == len(changes)
    assert loaded(saved(tmp_path), train="train[:50%]", image_size=4).fingerprint == found[0]


# JPEG streams


def jpeg(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def streamed(files):
    """Files one behind the other, and where each begins."""
    joined = np.frombuffer(b"".join(files), np.uint8)
    return joined, np.cumsum([0, *map(len, files)])


def stream(folder, *, bad=(), **changes):
    files = {
        part: [jpeg(one) for one in noise(count, 8, 8, 3, seed=count)] for part, count in (("train", 20), ("test", 4))
    }
    for at in bad:
        files["train"][at] = b"text"
    found = {}
    for part, some in files.items():
        found[f"{part}_jpeg"], found[f"{part}_offsets"] = streamed(some)
        found[f"{part}_labels"] = (np.arange(len(some)) % 2).astype(np.uint8)
    return files, saved(folder, **dict.fromkeys(good()), **(found | changes))


@pytest.mark.parametrize("workers", [0, 3])
def test_jpeg_streams_are_decoded_in_memory(tmp_path, workers):
    files, path = stream(tmp_path)
    found = loaded(path, workers=workers)
    assert found.image_shape == (8, 8, 3)
    assert found.splits["test"].in_memory
    expected = [np.asarray(Image.open(io.BytesIO(one))) for one in files["test"]]
    np.testing.assert_array_equal(pixels_of(found.splits["test"]), expected)


def test_a_stream_that_is_no_image_is_named_by_its_place(tmp_path):
    with pytest.raises(UserError, match=r"a.npz: train_jpeg\[7\] cannot be read: no image of a kind that is read"):
        loaded(stream(tmp_path, bad=[7])[1])


# What is refused


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (dict.fromkeys(good()), "a.npz holds nothing; there must be train_x and train_y"),
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
        ({"test_y": np.arange(8)}, "labels of test go from 0 to 7; with the 4 classes of train they go from 0 to 3"),
        (
            {"class_names": np.array(["a", "b"])},
            "labels of train go from 0 to 3; with the 2 classes of class_names they",
        ),
        ({"class_names": np.array(["a", "b", "a", "d"])}, "class_names holds a name twice; give each class its own"),
        ({"class_names": np.arange(4)}, "class_names is int64 of shape .*; it is a row of texts"),
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
        loaded(saved(tmp_path, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"test_offsets": None}, "a.npz has no test_offsets"),
        ({"train_jpeg": noise(4, 4)}, r"train_jpeg is uint8 of shape \(4, 4\); it is a row of bytes, uint8"),
        ({"train_offsets": np.arange(21) / 1}, r"train_offsets is float64 of shape \(21,\); it is a row of integers"),
        ({"train_offsets": np.arange(20)}, "train_offsets has 19 images, train has 20 labels"),
        (
            {"train_offsets": np.arange(21)},
            "train_offsets must rise from 0 to .*, the bytes of train_jpeg; it goes from 0",
        ),
    ],
)
def test_streams_that_do_not_fit_are_refused_by_name(tmp_path, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        loaded(stream(tmp_path, **changes)[1])


def test_offsets_that_fall_are_refused(tmp_path):
    _, path = stream(tmp_path)
    offsets = np.load(path)["train_offsets"]
    offsets[3] = offsets[2] - 1
    with pytest.raises(UserError, match="train_offsets must rise"):
        loaded(stream(tmp_path, train_offsets=offsets)[1])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "a.npz is not there; data.path is an .npz of arrays"),
        (b"", "a.npz is no .npz, or a damaged one; write it with numpy.savez_compressed, or download it again"),
        (b"PK\3\4 cut", "a.npz is no .npz, or a damaged one"),
        (b"\x93NUMPY\1\0", "a.npz is no .npz, or a damaged one"),
    ],
)
def test_what_is_no_npz_is_refused(tmp_path, content, sentence):
    if content is not None:
        (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        loaded(tmp_path / "a.npz")


def with_member(folder, name, content):
    """The good arrays, one of them replaced by bytes of ours."""
    path = saved(folder, **{name: None})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}.npy", content)
    return path


def header(shape, kind="|u1"):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"shape": shape, "fortran_order": False, "descr": kind})
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (header((2**40, 28, 28)) + b"1" * 9, "train_x.npy declares 1099511627776x28x28 of uint8 but is 9 bytes long"),
        (
            header((40, 5, 6)) + b"1" * 1201,
            "train_x.npy declares 40x5x6 of uint8 but is 1,201 bytes long; write the file",
        ),
        (header((-40, -5, 6)) + b"1" * 1200, "train_x.npy"),
        (b"\x93NUMPY\1\0\xff\xff{'shape': __import__('os')", "train_x.npy is no array or a damaged one"),
        (b"text", "train_x.npy is no array or a damaged one; write the file again"),
        (header((1,), "|O") + b"cos\nsystem\n(S'true'\ntR.", "train_x.npy holds Python objects, which are never read"),
    ],
)
def test_a_header_that_lies_is_refused_before_anything_is_unpacked(tmp_path, content, sentence):
    with pytest.raises(UserError, match=sentence):
        loaded(with_member(tmp_path, "train_x", content))


def test_bombs_are_refused_by_the_directory(tmp_path, monkeypatch):
    bomb = with_member(tmp_path, "train_x", header((10**7,)) + b"\0" * 10**7)
    monkeypatch.setattr(arrays, "SUSPECT", 10**6)
    with pytest.raises(UserError, match=r"train_x.npy packs 10,000,128 bytes into [\d,]+, which no images do"):
        loaded(bomb)
    monkeypatch.setattr(arrays, "LARGEST", 10**6)
    with pytest.raises(UserError, match=r"a.npz unpacks to 10,[\d,]+ bytes; 1,000,000 are the most"):
        loaded(bomb)
    many = tmp_path / "many.npz"
    np.savez(many, **{f"a{at}": np.zeros(1) for at in range(65)})
    with pytest.raises(UserError, match=r"many.npz holds 65 arrays; 64 are the most"):
        loaded(many)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@drawn(share=st.floats(0, 1), bit=st.integers(0, 7))
def test_a_flipped_bit_is_an_error_of_ours_or_changes_nothing(tmp_path_factory, share, bit):
    """A checksum covers every array; what it does not cover, such as a date, does not matter."""
    folder = tmp_path_factory.mktemp("flip")
    path = saved(folder)
    whole = loaded(path)
    content = bytearray(path.read_bytes())
    content[int(share * (len(content) - 1))] ^= 1 << bit
    path.write_bytes(content)
    try:
        found = loaded(path)
    except UserError:
        return
    if found.splits.keys() == whole.splits.keys():  # else a name was hit, and a whole part is not seen
        assert found.fingerprint == whole.fingerprint


# The given sets


def given(name):
    path = GIVEN / name
    return pytest.param(path, marks=pytest.mark.skipif(not path.is_file(), reason=f"there is no {path}"))


@pytest.mark.parametrize("path", [given("mnist.npz")])
def test_mnist_loads(path):
    found = loaded(path, train="train[:90%]", validation="train[90%:]")
    assert (found.image_shape, found.facts["counts"]["test"]) == ((28, 28, 1), 10_000)
    # LeCun's file: test digits of each class
    assert list(found.facts["class_counts"]["test"].values()) == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    mean, deviation = data.mean_and_std(found.splits["train"])
    assert mean[0] == pytest.approx(0.1307, abs=2e-3)  # published for the whole train split
    assert deviation[0] == pytest.approx(0.3081, abs=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("path", [given("cifar10_jpeg.npz")])
def test_cifar_loads_from_jpeg_streams_and_its_slices_hold_all_classes(path):
    found = loaded(path, train="train[:45000]", validation="train[45000:]", workers=2)
    assert found.classes[0] == "airplane"
    assert found.image_shape == (32, 32, 3)
    assert set(found.facts["class_counts"]["train"].values()) == {4500}
    assert set(found.facts["class_counts"]["validation"].values()) == {500}
    mean, _ = data.mean_and_std(found.splits["train"])
    np.testing.assert_allclose(mean, (0.4914, 0.4822, 0.4465), atol=6e-3)  # published for the exact pixels
