"""The torch lane: PyTorch makes the stored scores again, and is compared live, of odd image sizes and from real files.

pip install -e '.[torch]' && pytest -m torch
"""

import importlib

import numpy as np
import pytest
from converted import as_named, compute_scores, write_npz
from parity_values import FOLDER, make_images, read_reference

from cnn_vit.transfer import backwards
from cnn_vit.transfer.convert import convert_arrays, convert_file
from cnn_vit.transfer.source_facts import SourceFacts

pytestmark = pytest.mark.torch
CLOSE = 1e-4
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


@pytest.fixture(scope="module")
def lane():
    """The module that fills reference networks; torch takes seconds to import, so only these tests do."""
    pytest.importorskip("torch")
    return importlib.import_module("write_parity")


def test_every_reference_is_stored(lane):
    assert sorted(lane.NAMES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_stored_scores_are_made_again(lane, name):
    if name in lane.parity_wheels.NETWORKS:
        lane.parity_wheels.import_program(name)
    stored, made = read_reference(name), lane.make_reference(name)
    assert made.shapes == stored.shapes
    assert (made.keywords, made.image_shape) == (stored.keywords, stored.image_shape)
    np.testing.assert_allclose(made.scores, stored.scores, atol=1e-5)


def check_live(conversion, network, lane, shape):
    """Checks that a converted network gives the scores of PyTorch, of images that are not stored."""
    images = make_images(shape)
    expected = lane.compute_scores(network, images)
    assert expected.std() > 0.1
    scores = compute_scores(conversion.weights, images)
    np.testing.assert_allclose(scores, expected, atol=CLOSE)


@pytest.mark.parametrize("size", [(32, 32), (33, 31), (17, 40), (9, 5)])
@pytest.mark.parametrize(("blocks", "option"), [(2, "A"), (2, "B")])
def test_a_resnet_of_any_image_size(lane, tmp_path, size, blocks, option):
    import torch

    network, _ = lane.fill(lane.CifarResNet(blocks, 10, option))
    checkpoint = {"epoch": 7, "state_dict": torch.nn.DataParallel(network).state_dict(), "best_prec1": 91.5}
    torch.save(checkpoint, tmp_path / "net.th", _use_new_zipfile_serialization=option == "A")
    check_live(convert_file(tmp_path / "net.th"), network, lane, (2, *size, 3))


@pytest.mark.parametrize("option", ["A", "B"])
def test_what_is_written_for_torch_is_loaded_by_the_printed_lines_and_gives_the_same_scores(lane, tmp_path, option):
    """Strictly: torch fills in the counters of batch norms, which no score depends on, where a file has none."""
    pytest.importorskip("safetensors")
    trained, _ = lane.fill(lane.CifarResNet(1, 10, option))
    arrays = {name: value.numpy() for name, value in trained.state_dict().items() if value.ndim}
    weights = convert_arrays("net.npz", as_named(arrays)).weights
    path = tmp_path / "theirs.safetensors"
    written = backwards.write_for(weights, "akamaster", path)
    backwards.save(path, written)
    lines = [line.replace("model = ...", "model = lane.CifarResNet(1, 10, option)") for line in written.lines]
    names = {"lane": lane, "option": option}
    exec("\n".join(lines), names)
    images = make_images((2, 17, 32, 3))
    np.testing.assert_allclose(lane.compute_scores(names["model"], images), compute_scores(weights, images), atol=CLOSE)


@pytest.mark.parametrize("size", [(64, 64), (65, 47), (63, 33)])
def test_a_mobilenet_of_any_image_size(lane, tmp_path, size):
    network, values = lane.mobilenet(0.5, 7)
    check_live(convert_file(write_npz(tmp_path / "net.npz", values)), network, lane, (2, *size, 3))


@pytest.mark.parametrize("size", [(16, 16), (12, 20), (4, 28)])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_a_vit_of_any_grid(lane, tmp_path, size, activation):
    import torch

    module = {"relu": torch.nn.ReLU, "gelu": torch.nn.GELU}[activation]()
    network, _ = lane.fill(lane.make_vit(module, size))
    torch.save(network.state_dict(), tmp_path / "net.pt")
    keywords = {"heads": 3, "activation": activation}
    # A count of patches tells the image's sides only where it is square.
    conversion = convert_file(tmp_path / "net.pt", keywords=keywords, facts=SourceFacts(image_size=size))
    check_live(conversion, network, lane, (2, *size, 1))


def test_the_wrong_activation_is_noticed(lane):
    import torch

    network, values = lane.fill(lane.make_vit(torch.nn.GELU(), (16, 16)))
    images = make_images((2, 16, 16, 1))
    for activation, is_close in (("gelu", True), ("relu", False), ("gelu_tanh", False)):
        conversion = convert_arrays("net.npz", as_named(values), keywords={"heads": 3, "activation": activation})
        difference = np.abs(compute_scores(conversion.weights, images) - lane.compute_scores(network, images)).max()
        assert (difference <= CLOSE) == is_close, (activation, difference)


def test_a_training_that_was_saved_with_its_optimizer(lane, tmp_path):
    import torch

    network, _ = lane.fill(lane.CifarResNet(1, 10))
    optimizer = torch.optim.Adam(network.parameters())
    network.train()(torch.zeros(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    network.eval()
    torch.save({"model": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}, tmp_path / "net.pth")
    conversion = convert_file(tmp_path / "net.pth")
    assert any("exp_avg" in note for note in conversion.notes)
    check_live(conversion, network, lane, (2, 16, 16, 3))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_files_of_other_widths_give_the_scores_of_their_rounded_values(lane, tmp_path, dtype):
    import torch

    network, _ = lane.fill(lane.CifarResNet(1, 10))
    network.to(getattr(torch, dtype))
    torch.save(network.state_dict(), tmp_path / "net.pth")
    network.float()
    check_live(convert_file(tmp_path / "net.pth"), network, lane, (2, 32, 32, 3))


# Networks of torchvision, timm and transformers themselves ------------------------------------------------------------

SQUARE = [(16, 16), (28, 28)]
GRIDS = [(12, 20), (28, 8)]
ODD = [(64, 64), (37, 47), (32, 99)]
LIVE = [
    *[(name, size) for name in ("vit_torchvision",) for size in SQUARE],
    *[(name, size) for name in ("vit_timm", "vit_timm_map", "vit_timm_average", "vit_timm_token") for size in GRIDS],
    *[(name, size) for name in ("vit_hf", "vit_hf_5", "vit_google", "vit_google_pre_logits") for size in GRIDS],
    *[(name, size) for name in ("vit_big_vision", "vit_big_vision_stacked") for size in GRIDS],
    *[(name, size) for name in ("vit_big_vision_average", "vit_big_vision_token") for size in GRIDS],
    *[(name, size) for name in ("deit", "deit_hf", "deit_hf_5") for size in GRIDS],
    *[(name, size) for name in ("convnext", "convnext_torchvision", "convnext_hf") for size in ODD],
]


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_a_folder_of_transformers_tells_all_of_its_network(lane, tmp_path, activation):
    transformers = lane.parity_wheels.import_hf()
    settings = {"layer_norm_eps": 0.01, "hidden_act": activation, "qkv_bias": False, "num_labels": 7}
    config = transformers.ViTConfig(image_size=[8, 32], **lane.parity_wheels.HF_SIZES | settings)
    network = transformers.ViTForImageClassification(config)
    _, compute = lane.parity_wheels.fill(network)
    network.save_pretrained(tmp_path)
    conversion = convert_file(tmp_path / "model.safetensors")
    images = make_images((2, 8, 32, 3))
    np.testing.assert_allclose(compute_scores(conversion.weights, images), compute(images), atol=CLOSE)


@pytest.mark.parametrize(("name", "size"), LIVE)
def test_a_network_of_a_wheel_of_other_image_sizes(lane, name, size):
    lane.parity_wheels.import_program(name)
    values, compute = lane.parity_wheels.make(name, size)
    _, keywords, _ = (lane.parity_wheels.NETWORKS | lane.parity_wheels.MORE)[name]
    if name in ("vit_timm", "vit_timm_token"):  # 3 x 5 patches and a row more are 4 x 4
        keywords = keywords | {"token_position": name == "vit_timm"}
    arrays = {key: value for key, value in values.items() if value.ndim}
    conversion = convert_arrays("net.npz", as_named(arrays), keywords=keywords, facts=SourceFacts(image_size=size))
    images = make_images((2, *size, 3))
    expected = compute(images)
    assert expected.std() > 0.1
    np.testing.assert_allclose(compute_scores(conversion.weights, images), expected, atol=CLOSE)
