"""What a weights file is, its content says; what is promised of all arrays; and the real files where they lie."""

import errno
import hashlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import watched
import weight_files
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from watched import read, read_bytes, refuse, refuse_bytes

from cnn_vit.errors import SurroundingsError
from cnn_vit.transfer import readers
from cnn_vit.transfer.readers import named_arrays

SHARED = Path(__file__).parents[3] / "shared" / "data"  # real weights, on machines that have them
PACKERS = {
    "safetensors": weight_files.pack_safetensors,
    "npz": weight_files.pack_npz,
    "torch": weight_files.pack_torch,
    "torch-legacy": weight_files.pack_legacy,
}


def check_equal(arrays, expected):
    """Checks that arrays have the same names, types, shapes and bits."""
    assert list(arrays) == list(expected)
    for name, array in expected.items():
        assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape), name
        assert arrays[name].tobytes() == array.tobytes(), name


# What a file is -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["safetensors", "npz", "pth", "h5", "txt"])
@pytest.mark.parametrize("kind", PACKERS)
def test_the_content_decides_and_never_the_name(tmp_path, kind, ending):
    content = PACKERS[kind](weight_files.example_arrays())
    named = read_bytes(tmp_path, content, f"weights.{ending}")
    assert (named.format, named.skipped, named.metadata) == (kind, {}, {})
    assert named.sha256 == hashlib.sha256(content).hexdigest()
    check_equal(named.arrays, weight_files.example_arrays())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "weights is empty; download or write it again"),
        (b"<!DOCTYPE html>\n<title>404</title>", "is a web page, perhaps what a server answered instead; download"),
        (b"  <html><body>", "is a web page"),
        (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "is XML, perhaps what a server answered instead; downl"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "is a Git LFS pointer, .* run git lfs pull"),
        (b"/annex/objects/SHA256E-s1", "is a git-annex pointer, not the weights; run git annex get"),
        (b"\x1f\x8b\x08\0\0\0", "is compressed by gzip; unpack it"),
        (b"\x93NUMPY\1\0", "is a single array; put all arrays by name into one npz"),
        (b"weights", "is not a weights file of a kind that is read; give safetensors, npz, files of torch.save"),
        (b"\0" * 600, "is not a weights file of a kind that is read"),
        (b"\x80\x04\x95\5\0\0\0\0\0\0\0\x8c\1a\x94.", "not a file of torch.save but another pickle"),
        (b"\0" * 257 + b"ustar\0" + b"\0" * 300, "not a file of torch.save but another pickle, or older than 2017"),
        (b"PK\5\6" + bytes(18), "holds no arrays"),
        (b"PK\3\4" + bytes(40), "is damaged .*zip.*; download or write it again"),
        (b"[1, 2]", "is not a weights file"),
        (b'{"a": 1}', "is JSON but not an index of safetensors"),
    ],
    ids=watched.sentence_id,
)
def test_what_is_not_a_weights_file_is_named_in_plain_words(tmp_path, content, sentence):
    refuse_bytes(tmp_path, content, sentence)


def test_a_folder_is_told_with_the_weights_in_it(tmp_path):
    refuse(tmp_path, "is a folder, where a weights file belongs; give the file itself")
    for name in ("a.safetensors", "notes.txt", "b.pth"):
        (tmp_path / name).write_bytes(b"1")
    refuse(tmp_path, "is a folder, where a weights file belongs; it holds a.safetensors, b.pth")


def test_a_missing_file_is_told_with_its_neighbor(tmp_path):
    refuse(tmp_path / "resnet20.pth", "resnet20.pth is not there; give the path of a weights file")
    (tmp_path / "resnet-20.pth").write_bytes(b"1")
    refuse(tmp_path / "resnet20.pth", "resnet20.pth is not there; did you mean resnet-20.pth?")


def test_pipes_sockets_and_devices_are_refused_unopened(tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    refuse(tmp_path / "pipe.pth", "is not a regular file")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.pth"))
        refuse(tmp_path / "socket.pth", "is not a regular file")
    (tmp_path / "zero.npz").symlink_to("/dev/zero")
    refuse(tmp_path / "zero.npz", "is not a regular file")
    (tmp_path / "nothing.npz").symlink_to(tmp_path / "removed.npz")
    refuse(tmp_path / "nothing.npz", "is not there")


def test_an_enormous_file_is_refused_by_its_size(tmp_path):
    path = tmp_path / "sparse.npz"
    path.touch()
    os.truncate(path, 2**40)
    refuse(path, "has 1,099,511,627,776 bytes; 34,359,738,368 are the most")


@pytest.mark.parametrize(
    ("number", "sentence"), [(errno.EACCES, "no permission for .*weights"), (errno.EIO, "weights: Input/output error")]
)
def test_what_the_system_refuses_is_an_error_of_the_surroundings(tmp_path, monkeypatch, number, sentence):
    def fail(path):
        raise OSError(number, os.strerror(number))

    path = tmp_path / "weights"
    path.write_bytes(b"1")
    monkeypatch.setattr(readers, "read_by_content", fail)
    with pytest.raises(SurroundingsError, match=sentence):
        read(path)


def test_a_file_that_changes_under_the_reader_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "growing.npz"
    path.write_bytes(weight_files.pack_npz(weight_files.example_arrays()))
    read_by_content = readers.read_by_content

    def change(its_path):
        arrays = read_by_content(its_path)
        path.write_bytes(b"other")
        return arrays

    monkeypatch.setattr(readers, "read_by_content", change)
    refuse(path, "growing.npz was changed while it was read; wait until it is whole")


# What is promised of all arrays ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PACKERS)
def test_nan_and_infinity_are_refused_with_all_their_names(tmp_path, kind):
    arrays = weight_files.example_arrays()
    arrays["head.bias"] = np.array([0, np.nan], np.float32)
    arrays["head.weight"] = np.array([[np.inf, 1]], np.float16)
    sentence = "weights holds nan or infinity in head.weight, head.bias, so that no score would be a number; save"
    refuse_bytes(tmp_path, PACKERS[kind](arrays), sentence)


def test_nan_is_seen_behind_the_numbers_that_are_looked_at_first(tmp_path):
    late = np.zeros(named_arrays.CHUNK + 3, np.float32)
    late[-1] = np.nan
    refuse_bytes(tmp_path, weight_files.pack_safetensors({"late": late}), "holds nan or infinity in late")


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("a" * 200_000, r"holds a name of 200,000 characters \(a+ \.\.\. a+\); 500 are the most"),
        ("\x1b[2Jconv", r"holds '\\x1b\[2Jconv', a name with characters that cannot be printed"),
        ("conv\nfake: ok", r"holds 'conv\\nfake: ok', a name with characters that cannot be printed"),
        ("conv\u202eweight", r"holds 'conv\\u202eweight', a name with"),
        ("", "without a name|is not an array"),
    ],
)
def test_names_that_would_harm_a_terminal_are_escaped_shortened_and_refused(tmp_path, kind, name, sentence):
    if kind == "npz" and len(name) > 65_000:
        name = name[:60_000]  # the most that a zip can hold
        sentence = sentence.replace("200,000", "60,000")
    refuse_bytes(tmp_path, PACKERS[kind]({name: np.zeros(2, np.float32)}), sentence)


@pytest.mark.parametrize("kind", PACKERS)
def test_arrays_without_elements_and_of_one_number_are_read(tmp_path, kind):
    arrays = {
        "none": np.zeros((0, 3), np.float32),
        "one": np.asarray(2.5, np.float32),
        "many": np.zeros((1, 0, 9), "i8"),
    }
    check_equal(read_bytes(tmp_path, PACKERS[kind](arrays)).arrays, arrays)


@pytest.mark.parametrize("kind", PACKERS)
def test_a_file_without_arrays_is_refused(tmp_path, kind):
    refuse_bytes(tmp_path, PACKERS[kind]({}), "weights holds no arrays")


@pytest.mark.parametrize("kind", PACKERS)
def test_more_sides_than_any_layer_has_are_refused(tmp_path, kind):
    refuse_bytes(tmp_path, PACKERS[kind]({"deep": np.zeros((1,) * 9, np.float32)}), "declares 9 axes of deep; 8 are")


@pytest.mark.parametrize("kind", PACKERS)
def test_arrays_cannot_be_written_for_two_may_share_memory(tmp_path, kind):
    named = read_bytes(tmp_path, PACKERS[kind](weight_files.example_arrays()))
    for array in named.arrays.values():
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


# What is written is read back -----------------------------------------------------------------------------------------

names = st.text(st.characters(codec="utf-8", categories=("L", "N"), include_characters="._- "), min_size=1, max_size=20)
shapes = arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


def arrays_of_types(types):
    """Dicts of arrays of these types whose floats are finite."""
    array = st.sampled_from(sorted(types)).flatmap(
        lambda dtype: arrays_of.arrays(
            dtype, shapes, elements=arrays_of.from_dtype(np.dtype(dtype), allow_nan=False, allow_infinity=False)
        )
    )
    return st.dictionaries(names, array, min_size=1, max_size=5)


@pytest.mark.parametrize("kind", PACKERS)
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_what_is_written_is_read_back_bit_for_bit(tmp_path_factory, kind, data):
    types = weight_files.STORAGES if kind.startswith("torch") else weight_files.SAFETENSORS
    arrays = data.draw(arrays_of_types(types))
    path = tmp_path_factory.getbasetemp() / "property"
    path.write_bytes(PACKERS[kind](arrays))
    check_equal(readers.read(path).arrays, arrays)


# Real files, where they lie -------------------------------------------------------------------------------------------


def shared_file(name):
    """The path of a real file; skips the test where it is not there."""
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"needs {path}")
    return path


@pytest.mark.parametrize(
    ("name", "sha256", "kind", "arrays", "numbers"),
    [
        # Numbers of ResNet-20 by hand: 432 + 6 x 2,304 + 4,608 + 5 x 9,216 + 18,432 + 5 x 36,864 in kernels, 4 x 688 in
        # batch norms, 650 in the head; a block more in each stage adds 2 x (2,304 + 9,216 + 36,864) + 8 x 112. Arrays:
        # 5 for each of 19, 31, 43 or 55 convolutions with their batch norms, 2 of the head.
        ("resnet20-12fca82f.th", "12fca82f", "torch-legacy", 97, 271_098),
        ("resnet32-d509ac18.th", "d509ac18", "torch-legacy", 157, 466_426),
        ("resnet44-014dd654.th", "014dd654", "torch-legacy", 217, 661_754),
        ("resnet56-4bfd9763.th", "4bfd9763", "torch-legacy", 277, 857_082),
        # as shared/data/SOURCES.md counts them
        ("mobilenet_v1_0.25_224_imagenet.npz", "fcfe0e79", "npz", 137, 475_544),
        # By hand: 6 blocks of 4 x 64 + 64 x 768 + 64 x 257 + 128 x 65 + 64 x 129 numbers in 11 arrays; 50 x 64 + 64 in
        # positions and token, 17 x 64 in the patch embedding, 128 + 650 in norm and head, 2 + 2 + 4 arrays.
        ("vit_mnist_d64_l6_h4_p4.pt", "f742611b", "torch", 74, 499_722),
    ],
)
def test_golden_files_have_their_arrays(name, sha256, kind, arrays, numbers):
    named = read(shared_file(f"pretrained/{name}"))
    assert named.sha256.startswith(sha256)
    assert (named.format, len(named.arrays)) == (kind, arrays)
    assert sum(array.size for array in named.arrays.values()) == numbers
    assert {array.dtype for array in named.arrays.values()} == {np.dtype(np.float32)}


# Memory ---------------------------------------------------------------------------------------------------------------

MEASURE = """
import re, sys
from cnn_vit.transfer import readers
def peak():  # kB; the figure of getrusage begins with that of the process that started this one
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
before = peak()
named = readers.read(sys.argv[1])
print(peak() - before, sum(array.nbytes for array in named.arrays.values()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bfloat16", "columns", *PACKERS])
def test_a_large_file_takes_less_memory_than_twice_its_bytes_and_some(tmp_path, kind):
    path, count = tmp_path / "large", 2**25
    numbers = np.ones(count, np.float32)  # 134 MB
    stored = weight_files.storage("0", count)
    if kind == "bfloat16":
        header = {"a": weight_files.declare("BF16", (2 * count,), 0, 4 * count)}
        content = weight_files.join_safetensors(header, bytes(4 * count))
    elif kind == "columns":  # which are copied to be in order
        value = weight_files.tensor(stored, (2**12, 2**13), (1, 2**12))
        content = weight_files.join_torch(weight_files.dict_of({"a": value}), (numbers.tobytes(),))
    else:
        content = PACKERS[kind]({"a": numbers.reshape(2, -1)})
    path.write_bytes(content)
    done = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True)
    kilobytes, array_bytes = map(int, done.stdout.split())
    assert array_bytes == (8 if kind == "bfloat16" else 4) * count
    assert array_bytes <= kilobytes * 1024 < 2 * len(content) + 100 * 2**20
