"""The torch lane: MobileNetV2 and EfficientNet beside torchvision's and timm's own classes, of odd image sizes too.

pip install -e '.[torch]' && pip install --no-deps torchvision timm && pytest -m torch
"""

import importlib

import numpy as np
import pytest
from converted import as_named, compute_scores
from parity_values import make_images
from torch_libraries import import_timm, import_torchvision

from cnn_vit.errors import UserError
from cnn_vit.transfer.convert import convert_arrays
from cnn_vit.transfer.source_facts import SourceFacts

pytestmark = pytest.mark.torch
CLOSE = 1e-4
SIZES = [(64, 64), (65, 47), (33, 70)]


@pytest.fixture(scope="module")
def lane():
    """The module that fills reference networks; the libraries take seconds to import, so only these tests do."""
    pytest.importorskip("torch")
    import_torchvision()
    import_timm()
    return importlib.import_module("write_parity")


def calibrate(network):
    """Sets the running statistics to those of some images, as training does.

    Without it the numbers of so many layers grow, and their roundings with them: torch itself is then up to 5e-5 away
    from what it computes in float64.
    """
    import torch

    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the average of all batches, of which there is one
    with torch.no_grad():
        network.train()(torch.tensor(make_images((8, 64, 64, 3))).permute(0, 3, 1, 2))
    network.eval()


def check(lane, network, size, expected_model, *, close=True, **options):
    """Converts a network of torch and compares the scores of two images; returns the card."""
    network, _ = lane.fill(network)
    calibrate(network)
    images = make_images((2, *size, 3))
    expected = lane.compute_scores(network, images)
    assert expected.std() > 0.1
    arrays = {name: tensor.numpy() for name, tensor in network.state_dict().items() if tensor.ndim}
    facts = SourceFacts(image_size=size)
    converted = convert_arrays("net.npz", as_named(arrays), facts=facts, **options).weights
    assert converted.card.model == expected_model
    difference = np.abs(compute_scores(converted, images) - expected).max()
    assert (difference <= CLOSE) == close, difference
    return converted.card


@pytest.mark.parametrize("size", SIZES)
def test_a_mobilenet_v2_of_torchvision(lane, size):
    card = check(lane, lane.mobile.torchvision_mobilenet(0.35, 7), size, "mobilenet_v2/0.35")
    assert (card.keywords, card.num_classes) == ({}, 7)


@pytest.mark.parametrize(
    ("width", "depth", "fixed_ends", "size", "model", "keywords"),
    [
        (0.5, 1.0, False, (65, 47), "mobilenet_v2/0.5", {}),
        (1.4, 1.0, False, (32, 32), "mobilenet_v2/1.4", {}),
        (1.1, 1.2, True, (33, 32), "mobilenet_v2/1.1d", {}),
        (1.2, 1.4, True, (32, 33), "mobilenet_v2/1.2d", {}),
        (0.3, 0.3, False, (64, 64), "mobilenet_v2/1.0", {"width_multiplier": 0.3, "blocks": (1, 1, 1, 2, 1, 1, 1)}),
    ],
)
def test_a_mobilenet_v2_of_timm(lane, width, depth, fixed_ends, size, model, keywords):
    network = lane.mobile.timm_mobilenet(width, depth, 7, fixed_ends=fixed_ends)
    assert check(lane, network, size, model).keywords == keywords


@pytest.mark.parametrize("size", SIZES)
def test_an_efficientnet_of_torchvision(lane, size):
    network = lane.mobile.torchvision_efficientnet(0.25, 0.5, 7)
    card = check(lane, network, size, "efficientnet/B0")
    assert card.keywords == {"width_multiplier": 0.25, "blocks": (1, 1, 1, 2, 2, 2, 1)}


@pytest.mark.parametrize("name", ["b0", "b3", "b5"])
def test_a_whole_efficientnet_of_torchvision(lane, name):
    """B5 has another epsilon there."""
    network = getattr(import_torchvision().models, f"efficientnet_{name}")(num_classes=7)
    card = check(lane, network, (33, 40), f"efficientnet/{name.upper()}")
    assert card.keywords == ({"epsilon": 1e-3} if name == "b5" else {})
    assert card.num_classes == 7


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("tf", "padding", "suffix"), [(False, "symmetric", ""), (True, "same", "-tf")])
def test_an_efficientnet_of_timm(lane, size, tf, padding, suffix):
    network = lane.mobile.timm_efficientnet(0.25, 0.5, 7, tf=tf)
    check(lane, network, size, f"efficientnet/B0{suffix}", keywords={"padding": padding})


@pytest.mark.parametrize(("prefix", "name", "suffix"), [("", "b1", ""), ("tf_", "b2", "-tf")])
def test_a_whole_efficientnet_of_timm_by_the_name_of_its_model(lane, prefix, name, suffix):
    network = import_timm().create_model(f"{prefix}efficientnet_{name}", num_classes=7)
    model = f"efficientnet/{name.upper()}{suffix}"
    assert check(lane, network, (40, 33), model, model=model).keywords == {}


@pytest.mark.parametrize(("tf", "padding"), [(False, "same"), (True, "symmetric")])
def test_the_wrong_padding_is_noticed(lane, tf, padding):
    network = lane.mobile.timm_efficientnet(0.25, 0.5, 7, tf=tf)
    suffix = "-tf" if padding == "same" else ""
    check(lane, network, (64, 64), f"efficientnet/B0{suffix}", keywords={"padding": padding}, close=False)


def test_the_padding_of_a_file_of_timm_has_to_be_said(lane):
    _, values = lane.fill(lane.mobile.timm_efficientnet())
    with pytest.raises(UserError, match=r"does not tell all .* add --model.padding= one of symmetric, same"):
        convert_arrays("net.npz", as_named({name: value for name, value in values.items() if value.ndim}))
