"""The readers beside torch and safetensors themselves: pytest -m torch, where `pip install -e .[torch]` was given."""

from collections import OrderedDict

import numpy as np
import pytest
import weight_files
from test_readers import shared_file
from watched import read, refuse

pytestmark = pytest.mark.torch
FORMATS = {"zip": True, "legacy": False}


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="pip install -e .[torch]")


def tensors_by_name(torch, value, prefix=""):
    """All tensors in nested dicts, by all keys on the way."""
    by_name = {}
    for key, item in value.items():
        if isinstance(item, dict):
            by_name |= tensors_by_name(torch, item, f"{prefix}{key}.")
        elif isinstance(item, torch.Tensor):
            by_name[f"{prefix}{key}"] = item.detach()
    return by_name


def check_equal(torch, arrays, value):
    """Checks arrays against what torch gives; NumPy has no bfloat16, which are float32 of the same value."""
    tensors = tensors_by_name(torch, value)
    assert list(arrays) == list(tensors)
    for name, tensor in tensors.items():
        expected = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        np.testing.assert_array_equal(arrays[name], expected, strict=True)


def make_checkpoint(torch):
    """What a training script saves: a network, its optimizer, and things beside them."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network[0](torch.ones(1, 3, 5, 5)).sum().backward()
    optimizer.step()
    shared = torch.arange(24.0)
    return {
        "epoch": 3,
        "arch": "net",
        "best": 91.5,
        "model": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "views": OrderedDict(a=shared, b=shared[3:9], c=shared[::5], d=shared.reshape(4, 6).T, e=shared[24:]),
        "types": {str(dtype): torch.ones(3).to(dtype) for dtype in (
            torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
            torch.uint8, torch.bool,
        )},
        "parameter": network[0].weight,
        "one": torch.tensor(2.5),
        "none": torch.zeros(0, 3),
    }  # fmt: skip


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("kind", FORMATS)
def test_what_torch_saves_is_read_as_torch_reads_it(torch, tmp_path, kind, protocol):
    checkpoint, path = make_checkpoint(torch), tmp_path / "checkpoint.pth"
    torch.save(checkpoint, path, _use_new_zipfile_serialization=FORMATS[kind], pickle_protocol=protocol)
    named = read(path)
    assert named.format == ("torch" if kind == "zip" else "torch-legacy")
    check_equal(torch, named.arrays, checkpoint)
    assert {"epoch": "a scalar", "arch": "text", "best": "a scalar"}.items() <= named.skipped.items()


@pytest.mark.parametrize(
    "name",
    [
        "resnet20-12fca82f.th", "resnet32-d509ac18.th", "resnet44-014dd654.th", "resnet56-4bfd9763.th",
        "vit_mnist_d64_l6_h4_p4.pt",
    ],
)  # fmt: skip
def test_golden_files_are_read_as_torch_reads_them(torch, name):
    path = shared_file(f"pretrained/{name}")
    value = torch.load(path, map_location="cpu", weights_only=True)
    check_equal(torch, read(path).arrays, value)


@pytest.mark.parametrize("pack", [weight_files.pack_torch, weight_files.pack_legacy])
def test_torch_reads_the_files_that_the_tests_write(torch, tmp_path, pack):
    path = tmp_path / "weights.pth"
    path.write_bytes(pack(weight_files.example_arrays()))
    check_equal(torch, weight_files.example_arrays(), torch.load(path, weights_only=True))


def test_safetensors_reads_the_files_that_the_tests_write_and_we_read_its_own(torch, tmp_path):
    library = pytest.importorskip("safetensors.torch", reason="pip install -e .[torch]")
    path = tmp_path / "weights.safetensors"
    path.write_bytes(weight_files.pack_safetensors(weight_files.example_arrays()))
    loaded = library.load_file(path)
    check_equal(torch, weight_files.example_arrays(), {name: loaded[name] for name in weight_files.example_arrays()})
    types = make_checkpoint(torch)["types"]
    library.save_file(types, path, metadata={"format": "pt"})
    named = read(path)
    check_equal(torch, {name: named.arrays[name] for name in types}, types)
    assert named.metadata == {"format": "pt"}


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_not_a_dict_of_tensors_is_refused(torch, tmp_path, kind):
    path = tmp_path / "model.pth"
    network = torch.nn.Linear(2, 2)
    for value, sentence in (
        (network, "asks for torch.nn.modules.linear.Linear, which is not among the few names of a state_dict"),
        ({"a": torch.ones(2), "shape": torch.Size((2,))}, r"asks for torch.Size"),
        ({"a": torch.ones(2), "best": np.float64(1)}, r"asks for numpy\._core\.multiarray\.scalar"),
        (
            {"a": torch.ones(1).expand(1000)},
            "makes 1,000 elements of a out of a storage of 1; save the tensors as",
        ),
        ({"a": torch.tensor([1.0, float("nan")])}, "holds nan or infinity in a"),
    ):
        torch.save(value, path, _use_new_zipfile_serialization=FORMATS[kind])
        refuse(path, sentence)


def test_a_program_of_torchscript_is_refused(torch, tmp_path):
    path = tmp_path / "program.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), path)
    refuse(path, "is a program of TorchScript, which is not run")


def test_the_three_lines_of_the_recipe_do_what_they_say(torch, tmp_path):
    pytest.importorskip("safetensors.torch", reason="pip install -e .[torch]")
    path = tmp_path / "model.pth"
    tensors = {"a": torch.arange(6.0).reshape(2, 3).T}
    torch.save({"state_dict": tensors, "shape": torch.Size((2,))}, path)
    exec("\n".join(refuse(path, "asks for torch.Size").details), {})
    check_equal(torch, read(path.with_suffix(".safetensors")).arrays, tensors)
