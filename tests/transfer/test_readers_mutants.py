"""Fuzz tests: weights files after accidents give arrays or one sentence, in bounded time and memory; nothing is run."""

import io
import itertools
import json
import math
import signal
import zipfile

import numpy as np
import pytest
import watched
import weight_files
from test_mutants import FAST, SLOW, mutate

from cnn_vit.errors import SurroundingsError, UserError

LONGEST = 60  # seconds that FAST mutants may take, on a busy machine


@pytest.fixture(autouse=True)
def _limited():
    """An end for whatever hangs."""

    def stop(number, frame):
        raise TimeoutError("a mutant hangs")

    signal.signal(signal.SIGALRM, stop)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)


def small_arrays():
    """Few bytes, so that accidents meet headers as often as numbers."""
    return {
        "conv.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "count": np.asarray(7),
        "half": np.ones(2, "f2"),
    }


def safetensors_files():
    arrays = small_arrays()
    return [weight_files.pack_safetensors(arrays), weight_files.pack_safetensors(arrays, {"cnn_vit": "{}"})]


def npz_files():
    arrays = small_arrays() | {"names": np.array(["a", "b"])}
    return [weight_files.pack_npz(arrays), weight_files.pack_npz(arrays, zipfile.ZIP_DEFLATED)]


def nested_value():
    """The opcodes of a checkpoint with tensors in a dict, and things beside it."""
    tensors = weight_files.pickle_arrays(small_arrays())
    return weight_files.dict_of(
        {"epoch": weight_files.integer(3), "state_dict": tensors, "name": weight_files.text("x")}
    )


def torch_files():
    stored = [array.tobytes() for array in small_arrays().values()]
    packed = weight_files.join_torch(nested_value(), stored)
    return [packed, weight_files.pack_torch(small_arrays(), order="big")]


def legacy_files():
    stored = [(array.size, array.tobytes()) for array in small_arrays().values()]
    return [weight_files.join_legacy(nested_value(), stored), weight_files.pack_legacy(small_arrays())]


def pickles():
    """The pickle of a file in the zip format, whose checksum would hide most accidents from the reader."""
    return [weight_files.program(nested_value())]


def headers():
    """The header of a safetensors file, put in front of its bytes with the right length."""
    content = weight_files.pack_safetensors(small_arrays())
    length = int.from_bytes(content[:8], "little")
    return [content[8 : 8 + length]]


def put_pickle(content):
    stored = [array.tobytes() for array in small_arrays().values()]
    members = {"x/data.pkl": content} | {f"x/data/{place}": numbers for place, numbers in enumerate(stored)}
    return weight_files.zip_members(members)


def put_header(content):
    return weight_files.join_safetensors(content, weight_files.pack_safetensors(small_arrays())[-36:])


def indices():
    return [json.dumps({"metadata": {}, "weight_map": dict.fromkeys(small_arrays(), "shard.safetensors")}).encode()]


def hdf5_files():
    h5py = pytest.importorskip("h5py", reason="HDF5 is read where h5py is installed")
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, array in small_arrays().items():
            file[name] = array
    return [buffer.getvalue()]


# Files of each kind, and what a file is made of when they are mutated.
KINDS = {
    "safetensors": (safetensors_files, bytes),
    "header": (headers, put_header),
    "index": (indices, bytes),
    "npz": (npz_files, bytes),
    "torch": (torch_files, bytes),
    "pickle": (pickles, put_pickle),
    "legacy": (legacy_files, bytes),
    "hdf5": (hdf5_files, bytes),
}


@pytest.mark.parametrize("count", [FAST, pytest.param(SLOW, marks=pytest.mark.slow)], ids=["fast", "slow"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_mutant_raises_anything_but_our_errors_or_runs_or_hangs(tmp_path, kind, count):
    signal.setitimer(signal.ITIMER_REAL, LONGEST * count / FAST)
    (tmp_path / "shard.safetensors").write_bytes(weight_files.pack_safetensors(small_arrays()))
    make_originals, make_file = KINDS[kind]
    originals = make_originals()
    for original in originals:
        assert len(watched.read_bytes(tmp_path, make_file(original)).arrays) == 3
    rng = np.random.default_rng(len(kind))
    path = tmp_path / "weights"
    readable = 0
    for number, original in zip(range(count), itertools.cycle(originals)):
        path.write_bytes(make_file(mutate(original, rng)))
        try:
            named = watched.read(path)
        except SurroundingsError as error:
            pytest.fail(f"mutant {number} is taken for a fault of the disk: {error}")
        except UserError as error:
            watched.check_sentence(str(error), path)
        except Exception as error:
            pytest.fail(f"mutant {number} raised {error!r}")
        else:
            readable += 1
            check_promises(named)
    assert readable < count / 2


def check_promises(named):
    """Checks what is promised of all arrays."""
    for name, array in named.arrays.items():
        assert name.isprintable()
        assert array.flags.c_contiguous
        assert array.dtype.kind in "fiub"
        assert array.dtype.isnative
        assert array.size == math.prod(array.shape)
        assert array.dtype.kind != "f" or np.isfinite(array).all()
