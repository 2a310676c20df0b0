"""Files of HDF5: read where h5py is, refused with a recipe where it is not, and never let out of the file."""

import builtins
import sys

import numpy as np
import pytest
from watched import read, refuse, refuse_bytes
from weight_files import example_arrays, zip_members

from cnn_vit.errors import UserError
from cnn_vit.transfer import readers
from cnn_vit.transfer.readers import named_arrays


@pytest.fixture
def h5py():
    """The library; the test is skipped where it is not installed."""
    return pytest.importorskip("h5py", reason="HDF5 is read where h5py is installed")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.h5"


def test_arrays_are_named_by_their_path_and_texts_are_skipped(h5py, path):
    with h5py.File(path, "w") as file:  # as Keras 2 lays weights out
        file["conv1/conv1/kernel:0"] = np.arange(6, dtype=np.float32).reshape(2, 3)
        file["model_config"] = "{}"
        file.attrs["backend"] = "tensorflow"
        file.create_dataset("packed", data=np.arange(1000.0), chunks=(100,), compression="gzip", shuffle=True)
        file["big"] = np.arange(3, dtype=">i4")
        file["one"] = np.float32(2.5)
        file.create_group("empty")
    named = read(path)
    assert (named.format, named.skipped) == ("hdf5", {"model_config": "text"})
    np.testing.assert_array_equal(named.arrays["conv1/conv1/kernel:0"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(named.arrays["packed"], np.arange(1000.0))
    np.testing.assert_array_equal(named.arrays["big"], np.arange(3, dtype=np.int32), strict=True)
    assert named.arrays["one"].shape == ()
    assert sorted(named.arrays) == ["big", "conv1/conv1/kernel:0", "one", "packed"]


def test_what_is_written_is_read_back_bit_for_bit(h5py, path):
    arrays = example_arrays()
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    for name, array in read(path).arrays.items():
        np.testing.assert_array_equal(array, arrays[name], strict=True)


def test_without_h5py_three_lines_make_an_npz(path, tmp_path, monkeypatch):
    real_import = builtins.__import__

    def without_h5py(name, *more):
        if name == "h5py":
            raise ImportError(name)
        return real_import(name, *more)

    monkeypatch.delitem(sys.modules, "h5py", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_h5py)
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(UserError, match="is HDF5, which needs h5py; pip install h5py, or make an npz of it") as caught:
        readers.read(path)
    assert caught.value.code == 2
    assert len(caught.value.details) == 3


def test_the_three_lines_do_what_they_say(h5py, path, tmp_path):
    from cnn_vit.transfer.readers import hdf5

    with h5py.File(path, "w") as file:
        file["a/b"] = np.arange(3)
    lines = hdf5.recipe(path)
    exec("\n".join(lines), {})
    np.testing.assert_array_equal(read(path.with_suffix(".npz")).arrays["a/b"], np.arange(3))


def test_other_files_are_never_opened(h5py, path, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["a"] = np.arange(3)
    (tmp_path / "secret").write_bytes(bytes(12))
    good = np.arange(3)
    with h5py.File(path, "w") as file:
        file["a"] = good
        file["link"] = h5py.ExternalLink("other.h5", "/a")
    refuse(path, "holds link, a link to somewhere else, which is not followed")
    with h5py.File(path, "w") as file:
        file["a"] = good
        file["soft"] = h5py.SoftLink("/a")
    refuse(path, "holds soft, a link to somewhere else")
    with h5py.File(path, "w") as file:
        file.create_dataset("outside", shape=(3,), dtype="f4", external=[(str(tmp_path / "secret"), 0, 12)])
    refuse(path, "keeps outside in another file, which is not followed")
    layout = h5py.VirtualLayout(shape=(3,), dtype="i8")
    layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "a", shape=(3,))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("virtual", layout)
    refuse(path, "keeps virtual in another file, which is not followed")


def test_groups_in_themselves_end(h5py, path):
    with h5py.File(path, "w") as file:
        group = file.create_group("a")
        group["a"] = group  # a hard link to itself
    refuse(path, "has groups inside groups, more than 16 deep")


def test_arrays_larger_than_the_file_and_other_types_are_refused(h5py, path, monkeypatch):
    monkeypatch.setattr(named_arrays, "ALLOWED_BYTES", 10**6)
    with h5py.File(path, "w") as file:  # nothing of it is ever written: 4 TB of zeros
        file.create_dataset("bomb", shape=(2**40,), dtype="f4", chunks=(1000,), compression="gzip")
    refuse(path, "would become 4,398,046,511,104 bytes of arrays")
    with h5py.File(path, "w") as file:
        file["complex"] = np.zeros(2, np.complex64)
    refuse(path, "holds complex64 in complex, which is not read; save it as float32")
    with h5py.File(path, "w") as file:
        file["empty"] = h5py.Empty("f4")
    refuse(path, "holds no numbers in empty")
    with h5py.File(path, "w") as file:
        file["a"] = np.array([1, np.inf])
    refuse(path, "holds nan or infinity in a")


def test_a_filter_that_is_a_program_is_refused(h5py, path):
    with h5py.File(path, "w") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((10,))
        properties.set_scaleoffset(h5py.h5z.SO_INT, 0)  # of the library, but of no weights
        space = h5py.h5s.create_simple((100,))
        h5py.h5d.create(file.id, b"a", h5py.h5t.NATIVE_INT32, space, properties)
    refuse(path, "packs a by a filter that would be loaded as a program; pack it by gzip")


def test_a_cut_file_is_damaged(h5py, path):
    with h5py.File(path, "w") as file:
        file["a"] = np.zeros(1000)
    content = path.read_bytes()
    refuse_bytes(path.parent, content[: len(content) // 2], "is damaged", "weights.h5")


def test_a_model_of_keras_is_refused_with_its_recipe(tmp_path):
    content = zip_members({"metadata.json": b"{}", "config.json": b"{}", "model.weights.h5": b"\x89HDF"})
    error = refuse_bytes(
        tmp_path, content, "is a model of Keras, whose program is not run; where Keras is", "model.keras"
    )
    assert len(error.details) == 3
    assert "model.npz" in error.details[2]
