"""Archives of arrays that lie, unpack to too much, or hold something else than numbers."""

import io
import os
import struct
import zipfile

import numpy as np
import pytest
import watched
from watched import read_bytes, refuse_bytes
from weight_files import example_arrays, npy_header, pack_npy, pack_npz, zip_members

from cnn_vit.files import npz
from cnn_vit.transfer.readers import archives, named_arrays

SYSTEM = b"cposix\nsystem\n(S'touch executed'\ntR."  # a pickle that runs a command


def test_names_with_slashes_stay_as_they_are(tmp_path):
    named = read_bytes(tmp_path, pack_npz({"params/stem/kernel": np.ones(2), "conv_dw_3_bn/gamma": np.zeros(1)}))
    assert list(named.arrays) == ["params/stem/kernel", "conv_dw_3_bn/gamma"]


def test_compressed_arrays_and_those_of_numpy_itself_are_read(tmp_path):
    arrays = example_arrays()
    for save in (np.savez, np.savez_compressed):
        buffer = io.BytesIO()
        save(buffer, **arrays)
        named = read_bytes(tmp_path, buffer.getvalue())
        for name, array in arrays.items():
            np.testing.assert_array_equal(named.arrays[name], array, strict=True)


def test_big_ends_first_and_first_sides_fastest_are_put_in_order(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    named = read_bytes(tmp_path, pack_npz({"big": array.astype(">f4"), "columns": np.asfortranarray(array)}))
    for name in ("big", "columns"):
        np.testing.assert_array_equal(named.arrays[name], array, strict=True)
        assert named.arrays[name].flags.c_contiguous
        assert named.arrays[name].dtype.isnative


def test_texts_are_skipped_and_named(tmp_path):
    named = read_bytes(
        tmp_path, pack_npz({"classes": np.array(["cat", "dog"]), "by": np.bytes_(b"me"), "a": np.ones(1)})
    )
    assert named.skipped == {"classes": "text", "by": "text"}
    assert list(named.arrays) == ["a"]


@pytest.mark.parametrize(
    ("member", "sentence"),
    [
        (pack_npy(np.array([{}], object)), "a.npy holds Python objects, which are never read; write numbers or texts"),
        (npy_header((1,), "|O") + SYSTEM, "a.npy holds Python objects, which are never read"),
        (b"\x93NUMPY\1\0\x40\0{'shape': __import__('os').system('touch executed')}", "a.npy is not an array"),
        (b"\x93NUMPY\1\0\x27\0" + b"(" * 39, "a.npy is not an array, or is damaged"),
        (b"\x93NUMPY\2\0\xff\xff\xff\xff{'descr'", "a.npy is not an array, or is damaged"),
        (b"\x93NUMPY\1\0\xff\xff" + b"-" * 65535, "a.npy is not an array, or is damaged"),
        (b"\x93NUMPY\x09\x09" + bytes(100), "a.npy is not an array, or is damaged"),
        (SYSTEM, "a.npy is not an array, or is damaged"),
        (b"", "a.npy is not an array, or is damaged"),
        (npy_header((2**40,)) + bytes(8), "a.npy declares 1099511627776 of float32 but is 8 bytes long"),
        (npy_header((2,)) + bytes(9), "a.npy declares 2 of float32 but is 9 bytes long"),
        (npy_header((2,)) + bytes(7), "a.npy declares 2 of float32 but is 7 bytes long"),
        (npy_header((-2, -1)) + bytes(8), "a.npy"),
        (npy_header((2,), "<c8") + bytes(16), "holds complex64 in a, which is not read; save it as float32"),
        (npy_header((2,), "|V2") + bytes(4), r"holds \|V2 \(NumPy stores bfloat16 so\) in a, which is not read; save"),
        (npy_header((1,), "<M8[s]") + bytes(8), "holds datetime64.* in a, which is not read"),
        (npy_header((1,), [("x", "<f4")]) + bytes(4), "holds .* in a, which is not read; save it as float32"),
        (pack_npy(np.zeros(1, np.longdouble)), "holds float128 in a, which is not read"),
    ],
    ids=watched.sentence_id,
)
def test_every_lie_of_an_array_is_refused_and_named(tmp_path, monkeypatch, member, sentence):
    monkeypatch.chdir(tmp_path)
    refuse_bytes(tmp_path, zip_members({"a.npy": member}), sentence, "weights.npz")
    assert os.listdir(tmp_path) == ["weights.npz"]


@pytest.mark.parametrize(
    "name", ["../a.npy", "/a.npy", "a/../../b.npy", "sub\\a.npy", "a//b.npy", "a/", "..", "a\0b.npy", "./../a.npy"]
)
def test_names_that_lead_out_of_the_archive_are_refused(tmp_path, name):
    content = zip_members({name.replace("\0", "?").replace("\\", "?"): pack_npy(np.ones(1))})
    if "\0" in name or "\\" in name:  # zipfile would not write these
        content = content.replace(name.replace("\0", "?").replace("\\", "?").encode(), name.encode())
    refuse_bytes(tmp_path, content, "a name that leads out of the archive; download or write it again", "weights.npz")


def test_a_member_that_is_not_an_array_is_refused(tmp_path):
    content = zip_members({"a.npy": pack_npy(np.ones(1)), "run.py": b"import os"})
    refuse_bytes(tmp_path, content, "holds run.py, which is not an array")


def test_a_name_that_stands_there_twice_is_refused(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.npy", pack_npy(np.ones(1)))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.npy", pack_npy(np.zeros(1)))
    refuse_bytes(tmp_path, buffer.getvalue(), "weights.npz holds a.npy twice", "weights.npz")


def change_directory(content, offset, form, value):
    """Overwrites a field of the first entry of a zip's directory."""
    start = content.index(b"PK\1\2") + offset
    return content[:start] + struct.pack(form, value) + content[start + struct.calcsize(form) :]


def test_an_encrypted_member_is_refused(tmp_path):
    content = change_directory(pack_npz({"a": np.ones(1)}), 8, "<H", 1)
    refuse_bytes(tmp_path, content, "a.npy is encrypted; write the file without a password")


def test_an_unusual_way_of_packing_is_refused(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.npy", pack_npy(np.ones(1)))
    refuse_bytes(tmp_path, buffer.getvalue(), "packs a.npy by method 14, which is not read; write it with Deflate")


def test_a_wrong_checksum_is_refused(tmp_path):
    content = bytearray(pack_npz({"a": np.zeros(5000, np.float32)}))
    content[content.index(b"}") + 15_000] ^= 1
    refuse_bytes(tmp_path, bytes(content), r"is damaged \(Bad CRC-32 for file 'a.npy'\)")


def test_a_bomb_is_refused_by_the_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(named_arrays, "ALLOWED_BYTES", 10**6)
    bomb = zip_members({"a.npy": npy_header((750_000,)) + bytes(3_000_000)}, zipfile.ZIP_DEFLATED)
    most = 10**6 + 2 * len(bomb)
    sentence = (
        f"has {len(bomb):,} bytes and would become 3,000,128 bytes of arrays, above {most:,}; write its arrays apart"
    )
    refuse_bytes(tmp_path, bomb, sentence)
    claim = change_directory(pack_npz({"a": np.zeros(10)}, zipfile.ZIP_DEFLATED), 24, "<L", 2**32 - 2)
    refuse_bytes(tmp_path, claim, "would become 4,294,967,294 bytes of arrays")


def test_a_member_that_unpacks_to_more_than_the_directory_says_is_cut_there(tmp_path):
    packed = zip_members({"a.npy": npy_header((5000,)) + bytes(20_000)}, zipfile.ZIP_DEFLATED)
    content = change_directory(packed, 24, "<L", 128 + 16_000)
    refuse_bytes(tmp_path, content, "a.npy declares 5000 of float32 but is 16,000 bytes long")
    both = change_directory(
        zip_members({"a.npy": npy_header((4000,)) + bytes(20_000)}, zipfile.ZIP_DEFLATED), 24, "<L", 128 + 16_000
    )
    refuse_bytes(tmp_path, both, r"is damaged \(Bad CRC-32 for file 'a.npy'\)")


def test_arrays_whose_first_side_is_fastest_count_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(named_arrays, "ALLOWED_BYTES", 10**6)
    array = np.zeros((2, 75_000), np.float32)  # 600 kB, and as many for a copy in order
    read_bytes(tmp_path, pack_npz({"a": array}, zipfile.ZIP_DEFLATED))
    content = pack_npz({"a": np.asfortranarray(array)}, zipfile.ZIP_DEFLATED)
    refuse_bytes(tmp_path, content, "would become 1,200,256 bytes of arrays")


def test_a_directory_that_would_fill_the_memory_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(npz, "MOST_DIRECTORY_BYTES", 10_000)
    content = zip_members({f"{number:06}{'a' * 200}.npy": b"" for number in range(100)})
    refuse_bytes(tmp_path, content, "its directory has more than 10,000 bytes")


def test_more_members_than_any_network_has_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MOST_ENTRIES", 100)
    content = zip_members({f"{number}.npy": b"" for number in range(101)})
    refuse_bytes(tmp_path, content, "holds 101 arrays; 100 are the most")
