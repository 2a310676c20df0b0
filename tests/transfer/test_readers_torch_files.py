"""Files of torch, read without torch: what is in them, every lie, and every way of a pickle to run a program."""

import os
import pickletools
import struct
import zipfile

import numpy as np
import pytest
import watched
import weight_files
from watched import read_bytes, refuse_bytes
from weight_files import (
    LEGACY_START,
    ORDERED_DICT,
    dict_of,
    integer,
    integers,
    join_legacy,
    join_torch,
    name,
    program,
    storage,
    tensor,
    text,
    tuple_of,
    zip_members,
)

from cnn_vit.transfer.readers import named_arrays, pickled, torch_files

FOUR = np.array([1, 2, 3, 4], np.float32)
STORED = FOUR.tobytes()
A = storage("0", 4)  # a reference to a storage of four numbers
GOOD = tensor(A, (4,), (1,))
SYSTEM = name("posix", "system") + tuple_of(text("touch executed")) + b"R"


def as_zip(value, storages=(STORED,), **members):
    """A file in the zip format with a storage of four numbers."""
    return join_torch(value, storages, **members)


def as_legacy(value, storages=((4, STORED),), **words):
    """The same in the legacy format, where a reference has one thing more."""
    return join_legacy(value, storages, **words)


def lists(arrays):
    """Arrays as nested lists, by name."""
    return {key: array.tolist() for key, array in arrays.items()}


# What is read ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [as_zip, as_legacy])
def test_tensors_of_nested_dicts_are_named_by_all_keys_and_the_rest_is_skipped_by_name(tmp_path, pack):
    value = dict_of(
        {
            "best_prec1": b"G" + struct.pack(">d", 91.78),
            "epoch": integer(200),
            "arch": text("resnet20"),
            "scheduler": b"N",
            "distributed": b"\x89",
            "milestones": b"](" + integer(100) + integer(150) + b"e",
            "betas": integers((1, 2)),
            "blob": b"C\3abc",
            "dtype": name("torch", "FloatStorage"),
            "state_dict": dict_of({"module.conv1": dict_of({"weight": GOOD})}),
            "optimizer": dict_of({"state": b"}" + integer(0) + dict_of({"momentum": GOOD}) + b"s"}),
        }
    )
    named = read_bytes(tmp_path, pack(value))
    assert lists(named.arrays) == {
        "state_dict.module.conv1.weight": [1, 2, 3, 4],
        "optimizer.state.0.momentum": [1, 2, 3, 4],
    }
    assert named.skipped == {
        "best_prec1": "a scalar",
        "epoch": "a scalar",
        "arch": "text",
        "scheduler": "nothing",
        "distributed": "a scalar",
        "milestones": "a list of 2",
        "betas": "a list of 2",
        "blob": "bytes",
        "dtype": "the name of a type",
    }


@pytest.mark.parametrize("pack", [as_zip, as_legacy])
def test_offset_and_strides_choose_the_numbers(tmp_path, pack):
    tensors = {
        "columns": tensor(A, (2, 2), (1, 2)),
        "last": tensor(A, (2,), (1,), offset=2),
        "every_second": tensor(A, (2,), (2,), offset=1),
        "repeated": tensor(A, (2, 2), (0, 1)),
        "one": tensor(A, (), (), offset=3),
        "none": tensor(A, (0, 3), (3, 1), offset=4),
        "wide": tensor(A, (1, 4), (1000, 1)),  # the stride of an axis of length one is never walked
    }
    arrays = read_bytes(tmp_path, pack(dict_of(tensors))).arrays
    assert lists(arrays) == {
        "columns": [[1, 3], [2, 4]],
        "last": [3, 4],
        "every_second": [2, 4],
        "repeated": [[1, 2], [1, 2]],
        "one": 4,
        "none": [],
        "wide": [[1, 2, 3, 4]],
    }
    assert arrays["none"].shape == (0, 3)
    assert all(array.flags.c_contiguous for array in arrays.values())


def test_the_old_tensor_and_the_parameter_are_tensors_too(tmp_path):
    old = name("torch._utils", "_rebuild_tensor") + tuple_of(A, integer(0), integers((4,)), integers((1,))) + b"R"
    parameter = name("torch._utils", "_rebuild_parameter") + tuple_of(GOOD, b"\x88", ORDERED_DICT) + b"R"
    with_metadata = (
        name("torch._utils", "_rebuild_tensor_v2")
        + tuple_of(A, integer(0), integers((4,)), integers((1,)), b"\x89", ORDERED_DICT, b"}")
        + b"R"
    )
    values = dict_of({"old": old, "parameter": parameter, "with_metadata": with_metadata})
    named = read_bytes(tmp_path, as_zip(values))
    assert lists(named.arrays) == {"old": [1, 2, 3, 4], "parameter": [1, 2, 3, 4], "with_metadata": [1, 2, 3, 4]}


def test_an_ordered_dict_may_be_made_in_either_way_and_have_attributes(tmp_path):
    ordered = ORDERED_DICT + b"(" + text("a") + GOOD + b"u" + dict_of({"_metadata": ORDERED_DICT}) + b"b"
    pairs = name("collections", "OrderedDict") + tuple_of(b"](](" + text("b") + GOOD + b"ee") + b"R"  # of Python 2
    named = read_bytes(tmp_path, as_zip(dict_of({"new": ordered, "old": pairs})))
    assert lists(named.arrays) == {"new.a": [1, 2, 3, 4], "old.b": [1, 2, 3, 4]}


def test_other_spellings_of_the_same_values_are_read(tmp_path):
    """Protocol 4 with its frames, memo and names from the stack; texts of Python 2; integers of every width."""
    rebuild = b"\x8c\x0ctorch._utils\x94\x8c\x12_rebuild_tensor_v2\x94\x93\x94"
    stored = (
        b"(\x8c\7storage\x8c\5torch\x8c\x0cFloatStorage\x93U\x010T\3\0\0\0cpuJ\4\0\0\0t\x94Q"
        + b"M\0\0K\4\x85\x8a\1\1\x85\x89"
    )
    value = b"\x95" + bytes(8) + b"}" + b"\x8d" + struct.pack("<Q", 1) + b"a" + rebuild + b"(" + stored + b"}tR\x94s"
    content = zip_members({"x/data.pkl": b"\x80\4" + value + b".", "x/data/0": STORED})
    assert lists(read_bytes(tmp_path, content).arrays) == {"a": [1, 2, 3, 4]}


def test_the_memo_gives_again_what_was_put_into_it(tmp_path):
    value = b"}" + text("a") + GOOD + b"q\7s" + text("b") + b"h\7s" + text("c") + b"j\7\0\0\0s"
    assert list(read_bytes(tmp_path, as_zip(value)).arrays) == ["a", "b", "c"]


@pytest.mark.parametrize("order", ["little", "big"])
def test_the_order_of_bytes_is_that_of_the_file(tmp_path, order):
    arrays = weight_files.example_arrays()
    named = read_bytes(tmp_path, weight_files.pack_torch(arrays, order=order))
    for key, array in arrays.items():
        np.testing.assert_array_equal(named.arrays[key], array, strict=True)


def test_files_from_before_the_order_was_written_have_the_lowest_byte_first(tmp_path):
    named = read_bytes(tmp_path, as_zip(dict_of({"a": GOOD}), byteorder=None))
    assert lists(named.arrays) == {"a": [1, 2, 3, 4]}


def test_bfloat16_comes_as_the_float32_of_the_same_value(tmp_path):
    stored = storage("0", 2, "BFloat16Storage")
    value = dict_of({"a": tensor(stored, (2,), (1,)), "swapped": tensor(stored, (1, 2), (1, 1))})
    named = read_bytes(tmp_path, as_zip(value, (struct.pack("<2H", 0x3F80, 0xC020),)))
    assert lists(named.arrays) == {"a": [1, -2.5], "swapped": [[1, -2.5]]}
    assert named.arrays["a"].dtype == np.float32


def test_a_packed_archive_is_read_like_an_unpacked_one(tmp_path):
    members = {"x/data.pkl": program(dict_of({"a": GOOD})), "x/data/0": STORED}
    assert lists(read_bytes(tmp_path, zip_members(members, zipfile.ZIP_DEFLATED)).arrays) == {"a": [1, 2, 3, 4]}


@pytest.mark.parametrize("place", [b"FloatStorage", STORED])
def test_a_wrong_checksum_is_refused(tmp_path, place):
    content = bytearray(as_zip(dict_of({"a": GOOD})))
    content[content.index(place) + 6] ^= 1
    refuse_bytes(tmp_path, bytes(content), r"is damaged \(Bad CRC-32 for file 'x/data")


def test_parts_of_a_storage_in_the_legacy_format_are_read(tmp_path):
    part = tuple_of(text("9"), integer(1), integer(3))
    value = dict_of({"a": tensor(storage("0", 4, "FloatStorage", part), (2,), (1,), offset=1), "b": GOOD_LEGACY})
    assert lists(read_bytes(tmp_path, as_legacy(value)).arrays) == {"a": [3, 4], "b": [1, 2, 3, 4]}


GOOD_LEGACY = tensor(storage("0", 4, "FloatStorage", b"N"), (4,), (1,))


def test_storages_of_the_legacy_format_lie_in_the_order_of_their_list(tmp_path):
    value = dict_of({"a": tensor(storage("x", 1), (1,), (1,)), "b": tensor(storage("y", 2), (2,), (1,))})
    stored = [(2, struct.pack("<2f", 5, 6)), (1, struct.pack("<f", 7))]
    assert lists(read_bytes(tmp_path, join_legacy(value, stored, keys=["y", "x"])).arrays) == {"a": [7], "b": [5, 6]}


# What is never executed -----------------------------------------------------------------------------------------------

# Opcodes that call, each with what it puts on the stack, and names that an attack has used or could use.
PROGRAMS = {
    "posix.system": SYSTEM,
    "nt.system": name("nt", "system") + tuple_of(text("x")) + b"R",
    "builtins.eval": name("builtins", "eval") + tuple_of(text("open('executed', 'w')")) + b"R",
    "__builtin__.eval": name("__builtin__", "eval") + tuple_of(text("open('executed', 'w')")) + b"R",
    "builtins.getattr": name("builtins", "getattr") + tuple_of(text("a"), text("b")) + b"R",
    "subprocess.Popen": name("subprocess", "Popen") + tuple_of(text("touch executed")) + b"R",
    "torch.load": name("torch", "load") + tuple_of(text("x")) + b"R",
    "torch.hub.load": name("torch.hub", "load") + tuple_of(text("x")) + b"R",
    "torch._utils._rebuild_tensor_v2.__globals__": name("torch._utils", "_rebuild_tensor_v2.__globals__"),
    "numpy.core.multiarray.scalar": name("numpy.core.multiarray", "scalar") + tuple_of() + b"R",
    "argparse.Namespace": name("argparse", "Namespace") + b")\x81" + dict_of({"lr": integer(1)}) + b"b",
    "torch.nn.modules.linear.Linear": name("torch.nn.modules.linear", "Linear") + b")\x81}b",
    "collections.OrderedDict.__class__": name("collections", "OrderedDict.__class__"),
    "os.system": b"\x8c\2os\x8c\6system\x93" + tuple_of(text("touch executed")) + b"R",
    "torch.FloatStorage.system": name("torch", "FloatStorage.system"),
}


def refuse_program(folder, value, sentence):
    """Checks that a program is refused with a recipe in both formats, alone, behind a tensor, and as a reference."""
    for where, whole in (
        ("alone", value),
        ("inside", dict_of({"a": GOOD, "b": value})),
        ("as a reference", dict_of({"a": value + b"Q"})),
    ):
        for pack in (as_zip, as_legacy):
            error = refuse_bytes(folder, pack(whole), sentence, "weights.pth")
            assert len(error.details) == 3, where
            assert error.details[0] == "import torch, safetensors.torch"
            assert "weights_only=True" in error.details[1]
            assert "safetensors.torch.save_file(" in error.details[2]
    assert os.listdir(folder) == ["weights.pth"]


@pytest.mark.parametrize("asked", PROGRAMS)
def test_a_name_that_is_not_allowed_is_refused_and_not_even_imported(tmp_path, monkeypatch, asked):
    monkeypatch.chdir(tmp_path)
    sentence = f"asks for {asked}, which is not among the few names of a state_dict, and nothing in a file is executed"
    refuse_program(tmp_path, PROGRAMS[asked], sentence)


@pytest.mark.parametrize(
    ("opcodes", "sentence"),
    [
        (b"(S'touch executed'\niposix\nsystem\n", r"makes objects of its own \(opcode b'S'"),
        (b"(" + text("touch executed") + b"iposix\nsystem\n", r"makes objects of its own \(opcode b'i'"),
        (b"(" + name("collections", "OrderedDict") + b"o", r"makes objects of its own \(opcode b'o'"),
        (name("collections", "OrderedDict") + b")\x81", r"makes objects of its own \(opcode b'\\x81'"),
        (name("collections", "OrderedDict") + b")}\x92", r"makes objects of its own \(opcode b'\\x92'"),
        (b"\x82\1", r"makes objects of its own \(opcode b'\\x82'"),
        (b"I1\n", r"makes objects of its own \(opcode b'I'"),
        (b"P0\n", r"makes objects of its own \(opcode b'P'"),
        (b"\x8b" + struct.pack("<i", 2**31 - 1), r"makes objects of its own \(opcode b'\\x8b'"),
        (b"\x8f", r"makes objects of its own \(opcode b'\\x8f'"),
        (b"N2", r"makes objects of its own \(opcode b'2'"),
        (GOOD + b"}b", "changes something else than a list or a dict"),
        (b"]}b", "changes something else than a list or a dict"),
        (b"N" + text("a") + b"Ns", "changes something else than a list or a dict"),
        (GOOD + text("a") + b"Ns", "changes something else than a list or a dict"),
        (b"}Na", "changes something else than a list or a dict"),
        (b"})Ns", "has a dict whose keys are not texts or integers"),
        (b"}\x88Ns", "has a dict whose keys are not texts or integers"),
        (b"}" + name("collections", "OrderedDict") + b"Ns", "has a dict whose keys are not texts or integers"),
    ],
    ids=watched.sentence_id,
)
def test_an_opcode_that_makes_objects_is_refused(tmp_path, monkeypatch, opcodes, sentence):
    monkeypatch.chdir(tmp_path)
    refuse_program(tmp_path, opcodes, sentence)


def test_all_opcodes_of_python_are_either_read_or_refused():
    """No opcode does anything unexpected: each is known, or named in the refusal."""
    read_opcodes = {
        *pickled.CONSTANTS, *pickled.NUMBERS, *pickled.TEXTS, *pickled.OLD_TEXTS, *pickled.BYTES, *pickled.EMPTY,
        *pickled.TUPLES, *pickled.PUTS, *pickled.GETS, pickled.STOP,
        b"\x80", b"\x95", b"\x8a", b"\x94", b"(", b"t", b"a", b"e", b"s", b"u", b"c", b"\x93", b"R", b"b", b"Q",
    }  # fmt: skip
    for opcode in pickletools.opcodes:
        code = opcode.code.encode("latin-1")
        if code in read_opcodes:
            continue
        with pytest.raises(pickled.NotTensorsError, match="makes objects of its own"):
            pickled.Machine(code + bytes(20), 0, frozenset()).run()


def test_a_payload_in_front_of_the_tensors_or_behind_them_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good, payload = program(dict_of({"a": GOOD})), program(SYSTEM)
    behind = zip_members({"x/data.pkl": good + payload, "x/data/0": STORED})
    refuse_bytes(tmp_path, behind, "bytes stand behind its pickle")
    garbage = zip_members({"x/data.pkl": payload + b"garbage" * 100, "x/data/0": STORED})
    refuse_bytes(tmp_path, garbage, "asks for posix.system")
    for place in range(3):
        start = b"".join(payload if number == place else part for number, part in enumerate(LEGACY_START))
        if place == 0:  # not a file of torch by its first bytes
            refuse_bytes(tmp_path, start + good, "is not a file of torch.save but another pickle")
        else:
            refuse_bytes(tmp_path, start + good, "asks for posix.system")
    refuse_bytes(tmp_path, join_legacy(dict_of({"a": GOOD}), [(4, STORED)]) + payload, "is cut or damaged: it has")
    assert not os.path.exists("executed")


def test_whole_programs_of_torchscript_are_refused(tmp_path):
    error = refuse_bytes(
        tmp_path, as_zip(dict_of({"a": GOOD}), **{"constants.pkl": b"1"}), "is a program of TorchScript"
    )
    assert len(error.details) == 3


def test_what_is_not_a_dict_of_tensors_is_refused(tmp_path):
    for value, what in (
        (b"](" + GOOD + b"e", "a list of 1"),
        (GOOD, "a tensor"),
        (text("a"), "text"),
        (b"N", "nothing"),
    ):
        refuse_bytes(tmp_path, as_zip(value), f"holds {what} instead of a dict of tensors by name")


# Lies about tensors ---------------------------------------------------------------------------------------------------


def rebuilt(*arguments, function="_rebuild_tensor_v2"):
    """A call of torch's with any arguments."""
    return name("torch._utils", function) + tuple_of(*arguments) + b"R"


HUGE = b"\x8a\x20" + (2**250).to_bytes(32, "little")


@pytest.mark.parametrize("pack", [as_zip, as_legacy])
@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (
            tensor(A, (10**10,), (0,)),
            "makes 10,000,000,000 elements of a out of a storage of 4; save the tensors as th",
        ),
        (tensor(A, (5,), (0,)), "makes 5 elements of a out of a storage of 4"),
        (tensor(A, (5,), (1,)), "makes 5 elements of a out of a storage of 4"),
        (tensor(A, (4,), (1,), offset=1), "a ends at element 4 of a storage of 4"),
        (tensor(A, (2, 2), (3, 1)), "a ends at element 4 of a storage of 4"),
        (tensor(A, (2,), (2**60,)), "a ends at element more than 10.18 of a storage of 4"),
        (tensor(A, (1,), (1,), offset=4), "a ends at element 4 of a storage of 4"),
        (tensor(A, (4,), (1,), offset=-1), "offset and strides of a are not integers from 0"),
        (tensor(A, (4,), (-1,), offset=3), "offset and strides of a are not integers from 0"),
        (tensor(A, (-4,), (1,)), "the shape of a is not a list of integers from 0"),
        (tensor(A, (-2, -2), (2, 1)), "the shape of a is not a list of integers from 0"),
        (tensor(A, (1,) * 9, (1,) * 9), "declares 9 axes of a"),
        (tensor(A, (2, 2), (1,)), "a does not have a stride for each axis"),
        (tensor(A, (0,), ()), "a does not have a stride for each axis"),
        (rebuilt(A, integer(0), tuple_of(HUGE), integers((1,)), b"N", b"}"), "makes more than 10.18 elements of a"),
        (rebuilt(A, HUGE, integers((1,)), integers((1,)), b"N", b"}"), "a ends at element more than 10.18"),
        (
            rebuilt(A, integer(0), integer(4), integers((1,)), b"N", b"}"),
            "the shape of a is not a list of integers from 0",
        ),
        (rebuilt(A, integer(0), integers((4,)), b"N", b"N", b"}"), "a does not have a stride for each axis"),
        (rebuilt(A, b"N", integers((4,)), integers((1,)), b"N", b"}"), "offset and strides of a are not integers"),
        (rebuilt(A, b"\x88", integers((3,)), integers((1,)), b"N", b"}"), "offset and strides of a are not integers"),
        (rebuilt(A, integer(0), integers((4,)), integers((1,))), "a is not made of a storage as torch does it"),
        (rebuilt(text("x"), integer(0), integers((4,)), integers((1,)), b"N", b"}"), "a is not made of a storage as"),
        (rebuilt(), "a is not made of a storage as torch does it"),
        (rebuilt(GOOD, b"\x88", function="_rebuild_parameter"), "a is a parameter without a tensor"),
        (rebuilt(A, b"\x88", b"}", function="_rebuild_parameter"), "a is a parameter without a tensor"),
        (
            rebuilt(
                rebuilt(GOOD, b"\x88", b"}", function="_rebuild_parameter"),
                b"\x88",
                b"}",
                function="_rebuild_parameter",
            ),
            "a is not made of a storage as torch does it",
        ),
        (name("torch", "FloatStorage") + b")R", "a is not made of a storage as torch does it"),
        (tensor(storage("0", 4, "DoubleStorage"), (4,), (1,)), "storage 0 has 16 bytes and is declared with 32|is cut"),
        (tensor(storage("0", 5), (4,), (1,)), "declared with 20|is cut or damaged"),
        (tensor(storage("0", -4), (0,), (1,)), "storage 0 has -4 elements"),
        (tensor(storage("1", 4), (4,), (1,)), "storage 0, 1 is in the pickle or in the archive|its list of storages"),
        (tensor(storage("../0", 4), (4,), (1,)), "storage ../0, 0 is in the pickle|its list of storages is not that"),
        (tensor(text("0") + b"Q", (4,), (1,)), "its pickle refers to something else than a storage"),
        (tensor(tuple_of(text("module"), text("a"), text("b")) + b"Q", (4,), (1,)), "refers to something else than"),
        (
            tensor(storage("0", 4, "FloatStorage", tuple_of(text("v"), integer(3), integer(2))), (1,), (1,)),
            "not inside",
        ),
        (tensor(storage("0", 4, "FloatStorage", tuple_of(text("v"), integer(-1), integer(2))), (1,), (1,)), "not ins"),
        (tensor(storage("0", 4, "FloatStorage", tuple_of(text("v"), integer(1), integer(2))), (3,), (1,)), "makes 3 "),
        (tensor(storage("0", 4, "FloatStorage", integer(1)), (1,), (1,)), "a part of storage 0 is not inside it"),
    ],
    ids=watched.sentence_id,
)
def test_a_tensor_that_lies_is_refused_and_named(tmp_path, pack, value, sentence):
    refuse_bytes(tmp_path, pack(dict_of({"a": value})), sentence, "weights.pth")


def test_a_storage_has_one_type_and_size(tmp_path):
    twice = dict_of({"a": GOOD, "b": tensor(storage("0", 2, "DoubleStorage"), (2,), (1,))})
    refuse_bytes(tmp_path, as_zip(twice), "declares storage 0 in two ways")


def test_storages_that_no_tensor_names_are_refused(tmp_path):
    refuse_bytes(
        tmp_path, as_zip(dict_of({"a": GOOD}), (STORED, STORED)), "storage 1 is in the pickle or in the archive"
    )
    refuse_bytes(
        tmp_path, as_zip(dict_of({"a": GOOD}), ()), "storage 0 is in the pickle or in the archive, not in both"
    )


def test_all_lies_in_one_folder_of_the_archive(tmp_path):
    members = {"x/data.pkl": program(dict_of({"a": GOOD})), "x/data/0": STORED, "y/data.pkl": program(SYSTEM)}
    refuse_bytes(tmp_path, zip_members(members), "it holds y/data.pkl beside its folder x/; download or write it again")


def test_the_order_of_bytes_is_one_of_two(tmp_path):
    refuse_bytes(tmp_path, as_zip(dict_of({"a": GOOD}), byteorder=b"mid\x1b"), r"its order of bytes is 'mid\\x1b'")


def test_names_are_unique_when_all_keys_are_joined(tmp_path):
    twice = dict_of({"a.b": GOOD, "a": dict_of({"b": GOOD})})
    refuse_bytes(tmp_path, as_zip(twice), "holds a.b twice")
    refuse_bytes(tmp_path, as_zip(b"}(" + (text("a") + GOOD) * 2 + b"u"), "holds the key a twice")
    refuse_bytes(tmp_path, as_zip(b"}(" + integer(0) + GOOD + text("0") + GOOD + b"u"), "holds 0 twice")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (join_legacy(dict_of({"a": GOOD}), [(5, STORED)]), "storage 0 has 5 elements and is declared with 4"),
        (join_legacy(dict_of({"a": GOOD}), [(-1, STORED)]), "storage 0 has -1 elements and is declared with 4"),
        (join_legacy(dict_of({"a": GOOD}), [(4, STORED)])[:-1], "is cut or damaged: it has"),
        (join_legacy(dict_of({"a": GOOD}), [(4, STORED)]) + b"1", "is cut or damaged: it has"),
        (join_legacy(dict_of({"a": GOOD}), [(4, STORED)], keys=["0", "0"]), "its list of storages is not that of its"),
        (join_legacy(dict_of({"a": GOOD}), [(4, STORED)], keys=[]), "its list of storages is not that of its pickle"),
        (
            b"".join(LEGACY_START) + program(dict_of({"a": GOOD})) + program(b"N"),
            "list of storages does not hold their",
        ),
        (b"".join(LEGACY_START) + program(b"}") + program(b"](K\1e"), "list of storages does not hold their keys"),
        (LEGACY_START[0] + program(integer(1000)) + LEGACY_START[2] + program(b"}") * 2, "is not of the version"),
        (b"".join(LEGACY_START), "is cut: it ends inside its pickle"),
        (LEGACY_START[0], "is cut: it ends inside its pickle"),
    ],
    ids=watched.sentence_id,
)
def test_a_damaged_legacy_file_is_refused(tmp_path, content, sentence):
    refuse_bytes(tmp_path, content, sentence, "weights.th")


# Programs that would fill the memory or never end ---------------------------------------------------------------------


LAUGHS = b")q\0" + b"".join(
    b"j" + struct.pack("<I", level) + b"\x86r" + struct.pack("<I", level + 1) for level in range(100)
)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        # Tuples of tuples that would take 2^100 steps to hash, as a key, as an argument, as a reference
        (b"}" + LAUGHS + b"Ns", "whose keys are not texts or integers"),
        (name("torch._utils", "_rebuild_tensor_v2") + LAUGHS + b"R", "instead of a dict|as torch does it"),
        (LAUGHS + b"Q", "its pickle refers to something else than a storage"),
        (
            dict_of({"a": rebuilt(A, LAUGHS, LAUGHS, LAUGHS, LAUGHS, LAUGHS)}),
            "the shape of a is not a list of integers from 0",
        ),
        # A dict in itself, and dicts without an end
        (b"}q\0" + text("a") + b"h\0s", "has dicts inside dicts, more than 16 deep"),
        (b"}" + (text("a") + b"}") * 1000 + b"s" * 1000, "has dicts inside dicts, more than 16 deep"),
        # Lists and tuples in one another, which are never walked; they end with too many values on the stack
        (b"](" + b"](" * 20_000 + b"e" * 20_001, "holds a list of 1 instead of a dict"),
        (b")" + b"\x85" * 20_000, "holds a list of 1 instead of a dict"),
        (b"](" * 100, "makes no sense|changes something|ends inside a list|is cut"),
        # A memo of four billion places, and texts that are longer than the file
        (b"Nr\xff\xff\xff\xff", "holds nothing instead of a dict"),
        (b"X\xff\xff\xff\xff", "is cut: it ends inside its pickle"),
        (b"\x8d" + b"\xff" * 8, "is cut: it ends inside its pickle"),
        (b"B\xff\xff\xff\x7f", "is cut: it ends inside its pickle"),
        (b"T\xff\xff\xff\xff", "is cut: it ends inside its pickle"),
        (b"\x8a\xff" + b"\x7f" * 255, "has an integer of 255 bytes"),
        # A stack with too little on it, and names without an end
        (b"t", "its pickle makes no sense"),
        (b"R", "its pickle makes no sense"),
        (b"\x87", "its pickle makes no sense"),
        (b"h\0", "its pickle makes no sense"),
        (b"", "its pickle makes no sense"),
        (b"NN", "its pickle makes no sense"),
        (b"(N", "its pickle ends inside a list"),
        (b"K\1K\2R", "its pickle makes no sense"),
        (b"K\1K\2\x93", "its pickle makes no sense"),
        (b"}(" + text("a") + b"u", "its pickle makes no sense"),
        (b"c" + b"a" * 300, "its pickle makes no sense"),
        (b"X\2\0\0\0\xff\xff", "its pickle makes no sense"),
        (name("collections", "OrderedDict") + tuple_of(b"](" + text("ab") + b"NeK\1") + b"R", "makes no sense"),
    ],
    ids=watched.sentence_id,
)
def test_a_hostile_program_ends_soon_with_a_sentence(tmp_path, value, sentence):
    refuse_bytes(tmp_path, as_zip(value), sentence, "weights.pth")


def test_a_dict_in_many_places_gives_no_more_names_than_a_network_has(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_files, "MOST_ENTRIES", 1000)
    levels = [b"}q\0"]
    for level in range(14):  # each dict holds the one before twice, under two names: 2^14 dicts in the last
        below = b"h" + bytes([level])
        levels.append(b"}(" + text("a") + below + text("b") + below + b"uq" + bytes([level + 1]))
    value = dict_of({str(place): level for place, level in enumerate(levels)})
    refuse_bytes(tmp_path, as_zip(value), "holds more than 1,000 tensors and other values")


def test_a_program_has_so_many_steps_and_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(pickled, "MOST_STEPS", 1000)
    refuse_bytes(tmp_path, as_zip(b"](" + b"N" * 1000 + b"e"), "has a pickle of more than 1,000 steps")
    # A list of 300 pairs becomes four dicts: twelve hundred items in a few steps
    pairs = b"](" + b"".join(b"](" + integer(number) + b"Ne" for number in range(150)) + b"eq\0"
    again = b"".join(name("collections", "OrderedDict") + b"h\0\x85R" for _ in range(4))
    refuse_bytes(tmp_path, as_zip(b"](" + pairs + again + b"e"), "has a pickle of more than 1,000 steps")


def test_a_pickle_that_would_fill_the_memory_is_refused_unread(tmp_path):
    members = {"x/data.pkl": bytes(torch_files.MOST_PICKLE_BYTES + 1), "x/data/0": STORED}
    content = zip_members(members, zipfile.ZIP_DEFLATED)
    refuse_bytes(tmp_path, content, "holds 16,777,217 bytes in x/data.pkl; 16,777,216 are the most")


def test_tensors_that_share_a_storage_take_no_more_than_twice_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(named_arrays, "ALLOWED_BYTES", 10_000)
    reference, stored = storage("0", 10_000), bytes(40_000)
    tied = {f"tied{place}": tensor(reference, (10_000,), (1,)) for place in range(2)}
    read_bytes(tmp_path, as_zip(dict_of(tied), (stored,)))
    tied |= {"third": tensor(reference, (10_000,), (1,))}
    refuse_bytes(tmp_path, as_zip(dict_of(tied), (stored,)), "would become 120,000 bytes of arrays, above 9")
    crossed = {f"crossed{place}": tensor(reference, (100, 100), (1, 100)) for place in range(2)}
    refuse_bytes(tmp_path, as_zip(dict_of(crossed), (stored,)), "would become 120,000 bytes of arrays, above 9")


def test_a_long_pickle_is_read(tmp_path):
    value = dict_of({"a": GOOD, "notes": text("a" * 10_000_000)})
    assert read_bytes(tmp_path, as_zip(value)).skipped == {"notes": "text"}


@pytest.mark.slow
def test_the_most_hostile_program_that_is_read_stays_within_the_memory(tmp_path):
    dicts = (pickled.MOST_STEPS - 10) // 2
    refuse_bytes(tmp_path, as_zip(b"](" + b"}q\0" * dicts + b"e"), "holds a list of 499,995 instead of a dict")
    texts = b"](" + text("\N{GRINNING FACE}" + "a" * 8_000_000) + text("b" * 8_000_000) + b"e"
    refuse_bytes(tmp_path, as_zip(texts), "holds a list of 2 instead of a dict")
