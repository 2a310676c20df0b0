"""Files of safetensors whose headers lie, and files in several shards with an index."""

import hashlib
import json
import struct

import numpy as np
import pytest
import watched
from watched import read, read_bytes, refuse, refuse_bytes
from weight_files import declare, example_arrays, join_safetensors, pack_safetensors

from cnn_vit.transfer.readers import safetensors

ONE = {"a": declare("F32", (2,), 0, 8)}  # a header that is right where 8 bytes follow
DATA = bytes(8)


def two(first_stop, second_start, second_stop):
    """A header of two tensors: the first begins at 0."""
    return {
        "first": declare("U8", (first_stop,), 0, first_stop),
        "second": declare("U8", (second_stop - second_start,), second_start, second_stop),
    }


def test_bfloat16_comes_as_the_float32_of_the_same_value(tmp_path):
    # Sign, 8 bits of exponent, 7 of fraction: 1 = 0x3F80, -2.5 = 0xC020, 3.140625 = 0x4049, 2^-133 = 0x0001
    content = struct.pack("<4H", 0x3F80, 0xC020, 0x4049, 0x0001)
    named = read_bytes(tmp_path, join_safetensors({"a": declare("BF16", (2, 2), 0, 8)}, content))
    assert named.arrays["a"].dtype == np.float32
    assert named.arrays["a"].tolist() == [[1.0, -2.5], [3.140625, 2.0**-133]]
    infinite = join_safetensors({"a": declare("BF16", (1,), 0, 2)}, struct.pack("<H", 0x7F80))
    refuse_bytes(tmp_path, infinite, "holds nan or infinity in a")


def test_texts_come_with_the_arrays(tmp_path):
    texts = {"cnn_vit": json.dumps({"model": "cifar_resnet/20"}), "format": "pt"}
    assert read_bytes(tmp_path, pack_safetensors(example_arrays(), texts)).metadata == texts


def test_a_header_may_be_padded_with_blanks(tmp_path):
    content = join_safetensors(json.dumps(ONE).encode() + b"   ", DATA)
    assert read_bytes(tmp_path, content).arrays["a"].tolist() == [0, 0]


def test_a_length_that_begins_with_a_brace_is_no_index(tmp_path):
    text = json.dumps(ONE).encode()
    length = ord("{") if len(text) <= ord("{") else ord("{") + 256  # 123 or 379, whose first byte is the brace
    content = join_safetensors(text.ljust(length), DATA)
    assert content.startswith(b"{")
    assert read_bytes(tmp_path, content).arrays["a"].tolist() == [0, 0]


def test_tensors_may_stand_in_the_header_in_any_order(tmp_path):
    header = {"late": declare("U8", (1,), 1, 2), "early": declare("U8", (1,), 0, 1)}
    named = read_bytes(tmp_path, join_safetensors(header, b"\1\2"))
    assert {name: array.tolist() for name, array in named.arrays.items()} == {"early": [1], "late": [2]}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        # The length of the header
        (struct.pack("<Q", 2**63) + b"{}", "has 10 bytes and a header of more than 10.18: it is cut, or another kind"),
        (struct.pack("<Q", 11) + b"{}", "has 10 bytes and a header of 11: it is cut, or another kind"),
        (struct.pack("<Q", 2) + b"{", "has 9 bytes and a header of 2: it is cut"),
        (b"\1\0\0\0\0\0\0\0{", "its header is not JSON"),
        # The JSON
        (join_safetensors(b'{"a": '), "is damaged: its header is not JSON"),
        (join_safetensors(b"{" + b'"\xff": 1}'), "is damaged: its header is not JSON"),
        (join_safetensors(b'{"a":' + b"[" * 100_000), "is damaged: its header is not JSON"),
        (join_safetensors(b'{"a":' * 100_000), "is damaged: its header is not JSON"),
        (join_safetensors(b'{"a":1' + b"0" * 5000 + b"}"), "is damaged: its header is not JSON"),
        (join_safetensors(b'{"a":1,"a":1}'), "holds a twice in its header"),
        (
            join_safetensors(b'{"a":{"dtype":"U8","shape":[8],"shape":[4],"data_offsets":[0,8]}}', DATA),
            "holds shape twice in its header",
        ),
        (join_safetensors({"__metadata__": {"a": 1}} | ONE, DATA), "__metadata__ of its header does not hold texts"),
        (join_safetensors({"__metadata__": []} | ONE, DATA), "__metadata__ of its header does not hold texts"),
        # What it says of a tensor
        (join_safetensors({"a": 1}), "a does not have dtype, shape and data_offsets"),
        (join_safetensors({"a": {"dtype": "F32", "shape": [2]}}, DATA), "a does not have dtype, shape and data_offs"),
        (join_safetensors({"a": ONE["a"] | {"more": 1}}, DATA), "a does not have dtype, shape and data_offsets"),
        (join_safetensors({"a": declare("F8_E4M3", (8,), 0, 8)}, DATA), "has F8_E4M3 in a, .* save it as one of F64"),
        (join_safetensors({"a": declare("C64", (1,), 0, 8)}, DATA), "has C64 in a, which is not read"),
        (join_safetensors({"a": declare(["F32"], (2,), 0, 8)}, DATA), "which is not read; save it as one of F64, F32"),
        (join_safetensors({"a": declare("F32", (-2,), 0, 8)}, DATA), "the shape of a is not a list of integers from 0"),
        (
            join_safetensors({"a": declare("F32", (2.0,), 0, 8)}, DATA),
            "the shape of a is not a list of integers from 0",
        ),
        (
            join_safetensors({"a": declare("F32", (True, 2), 0, 8)}, DATA),
            "the shape of a is not a list of integers from 0",
        ),
        (join_safetensors({"a": declare("F32", (1,) * 100_000, 0, 8)}, DATA), "declares 100,000 axes of a; 8 are"),
        (join_safetensors({"a": declare("F32", (2**40,) * 8, 0, 8)}, DATA), "a is declared as 1099511627776x.* of F32"),
        (join_safetensors({"a": declare("F16", (2,), 0, 8)}, DATA), "a is declared as 2 of F16 in 8 bytes, which does"),
        (join_safetensors({"a": declare("F32", (3,), 0, 8)}, DATA), "a is declared as 3 of F32 in 8 bytes, which does"),
        (join_safetensors({"a": declare("F32", (), 0, 8)}, DATA), "a is declared as one number of F32 in 8 bytes"),
        # Where it says that tensors lie
        (join_safetensors({"a": declare("F32", (2,), 8, 0)}, DATA), "a ends before it begins"),
        (join_safetensors({"a": declare("F32", (2,), -8, 0)}, DATA), "a ends before it begins"),
        (join_safetensors({"a": declare("F32", (2,), 0.0, 8)}, DATA), "data_offsets of a are not two integers"),
        (join_safetensors({"a": declare("F32", (2,), False, 8)}, DATA), "data_offsets of a are not two integers"),
        (join_safetensors({"a": ONE["a"] | {"data_offsets": [0]}}, DATA), "data_offsets of a are not two integers"),
        (join_safetensors({"a": ONE["a"] | {"data_offsets": "08"}}, DATA), "data_offsets of a are not two integers"),
        (join_safetensors(two(4, 2, 8), DATA), "second overlaps first"),
        (join_safetensors(two(4, 0, 8), DATA), "second overlaps first"),
        (join_safetensors(two(4, 6, 8), DATA), "2 bytes between first and second belong to none"),
        (join_safetensors({"a": declare("U8", (2,), 6, 8)}, DATA), "6 bytes between the header and a belong to none"),
        (join_safetensors(ONE, DATA[:-1]), "is cut: it ends 1 bytes before the end of a"),
        (join_safetensors({"a": declare("U8", (2**40,), 0, 2**40)}, DATA), "is cut: it ends 1,.* before the end of a"),
        (join_safetensors(ONE, DATA + b"1"), "is damaged: 1 bytes behind a belong to no tensor"),
        (join_safetensors({"__metadata__": {}}, DATA), "is damaged: 8 bytes behind the header belong to no tensor"),
    ],
    ids=watched.sentence_id,
)
def test_every_lie_of_a_header_is_refused_and_named(tmp_path, content, sentence):
    refuse_bytes(tmp_path, content, sentence, "weights.safetensors")


def test_a_header_that_would_fill_the_memory_is_refused_unread(tmp_path):
    path = tmp_path / "header.safetensors"
    path.write_bytes(join_safetensors(b"{" + b" " * safetensors.MOST_HEADER_BYTES))
    refuse(path, "declares a header of 8,388,609 bytes; 8,388,608 are the most")


@pytest.mark.slow
def test_the_most_hostile_header_that_is_read_stays_within_the_memory(tmp_path):
    fullest = b'{"a":[' + b"[]," * ((safetensors.MOST_HEADER_BYTES - 10) // 3) + b"[]]}"
    refuse_bytes(tmp_path, join_safetensors(fullest), "a does not have dtype, shape and data_offsets")


# Several files with an index


def write_shards(folder, shards, weight_map=None, name="model.safetensors.index.json"):
    """Writes shards and their index; returns the path of the index."""
    for shard_name, arrays in shards.items():
        (folder / shard_name).write_bytes(pack_safetensors(arrays, {"shard": shard_name}))
    if weight_map is None:
        weight_map = {key: shard_name for shard_name, arrays in shards.items() for key in arrays}
    path = folder / name
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return path


SHARDS = {
    "model-00002-of-2.safetensors": {"b": np.ones(3, np.float32), "c": np.arange(2)},
    "model-00001-of-2.safetensors": {"a": np.zeros((2, 2), np.float32)},
}


def test_an_index_reads_all_its_shards(tmp_path):
    path = write_shards(tmp_path, SHARDS)
    named = read(path)
    assert {name: array.tolist() for name, array in named.arrays.items()} == {
        "a": [[0, 0], [0, 0]],
        "b": [1, 1, 1],
        "c": [0, 1],
    }
    contents = b"".join((tmp_path / name).read_bytes() for name in sorted(SHARDS))
    assert named.sha256 == hashlib.sha256(contents).hexdigest()
    assert (named.format, named.metadata) == ("safetensors", {"shard": "model-00001-of-2.safetensors"})


@pytest.mark.parametrize(
    "shard",
    [
        "../model.safetensors", "/etc/model.safetensors", "sub/model.safetensors", "..", "", ".hidden.safetensors",
        "sub\\model.safetensors", "model.pth", "model\n.safetensors", "C:model.safetensors", 7, None, ["a.safetensors"],
    ],
)  # fmt: skip
def test_a_shard_lies_in_the_folder_of_the_index(tmp_path, shard):
    (tmp_path.parent / "model.safetensors").write_bytes(pack_safetensors(SHARDS["model-00001-of-2.safetensors"]))
    path = write_shards(tmp_path, {}, {"a": shard})
    refuse(path, r"names the shard .*, which is not a file NAME.safetensors in the index's folder")


def test_an_index_and_its_shards_agree(tmp_path):
    path = write_shards(tmp_path, SHARDS)
    weight_map = json.loads(path.read_text())["weight_map"]
    write_shards(tmp_path, {}, weight_map | {"d": "model-00001-of-2.safetensors"})
    refuse(path, "and model-00001-of-2.safetensors do not agree: d in one of them alone")
    write_shards(tmp_path, {}, {name: shard for name, shard in weight_map.items() if name != "b"})
    refuse(path, "and model-00002-of-2.safetensors do not agree: b in one of them alone")
    write_shards(tmp_path, {}, weight_map | {"e": "model-00003-of-2.safetensors"})
    refuse(path, "names model-00003-of-2.safetensors, not there; download all files of the index")


def test_a_damaged_shard_is_named(tmp_path):
    path = write_shards(tmp_path, SHARDS)
    with open(tmp_path / "model-00002-of-2.safetensors", "ab") as shard:
        shard.write(b"1")
    refuse(path, "names model-00002-of-2.safetensors, which is damaged: 1 bytes behind c belong to no tensor; download")


@pytest.mark.parametrize(
    ("index", "sentence"),
    [
        (b'{"weight_map": {}}', "is JSON but not an index of safetensors"),
        (b'{"weight_map": ["a"]}', "is JSON but not an index of safetensors"),
        (b'{"weight_map": {"a": "a.safetensors", "a": "b.safetensors"}}', "holds a twice"),
        (b'{"weight_map": {"a"', "is damaged: the index is not JSON"),
        (b'{"weight_map":' * 100_000, "is damaged: the index is not JSON"),
        (b"{" + b" " * 2**23, "is an index of more than 8,388,608 bytes"),
    ],
    ids=watched.sentence_id,
)
def test_a_damaged_index_is_refused(tmp_path, index, sentence):
    refuse_bytes(tmp_path, index, sentence, "model.safetensors.index.json")


def test_too_many_shards_are_refused_before_any_is_opened(tmp_path):
    path = write_shards(tmp_path, {}, {f"a{number}": f"{number}.safetensors" for number in range(1001)})
    refuse(path, "names 1,001 shards; 1,000 are the most")
