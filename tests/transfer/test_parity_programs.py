"""The torch lane for networks of torchvision, timm and transformers: live scores at odd sizes, and what is refused.

pip install -e '.[torch]' && pip install --no-deps torchvision timm && pip install transformers && pytest -m torch
"""

import importlib

import numpy as np
import pytest
from converted import as_named, compute_scores
from parity_values import make_images

from cnn_vit.errors import UserError
from cnn_vit.transfer.convert import convert_arrays, convert_file

pytestmark = pytest.mark.torch
CLOSE = 1e-4
HF_SMALL = {"embedding_size": 16, "hidden_sizes": [64, 128], "depths": [1, 2]}
HF_BASIC = {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [2, 1], "layer_type": "basic"}


@pytest.fixture(scope="module")
def lane():
    """The modules that make and fill networks; torch takes seconds to import, so only these tests do."""
    pytest.importorskip("torch")
    return importlib.import_module("torch_programs")


def check_live(network, sizes, **keywords):
    """Checks that a network gives the same scores here and in its program, of images of several sizes."""
    write_parity = importlib.import_module("write_parity")
    network, values = write_parity.fill(network)
    named = as_named({name: value for name, value in values.items() if value.ndim})
    conversion = convert_arrays("net.pth", named, keywords=keywords)
    for size in sizes:
        images = make_images((2, *size, 3))
        expected = write_parity.compute_scores(network, images)
        assert expected.std() > 0.1
        np.testing.assert_allclose(compute_scores(conversion.weights, images), expected, atol=CLOSE)
    return conversion


RESNETS = {
    "two convolutions a block": ("BasicBlock", [2, 1, 1, 1], {}),
    "bottlenecks": ("Bottleneck", [1, 2, 1, 1], {}),
    "groups": ("Bottleneck", [1, 1, 1, 1], {"groups": 32, "width_per_group": 4}),
    "wide": ("Bottleneck", [1, 1, 1, 1], {"width_per_group": 128}),
}


@pytest.mark.parametrize("kind", RESNETS)
def test_resnets_of_torchvision(lane, kind):
    block, blocks, keywords = RESNETS[kind]
    network = lane.torchvision_resnet(block, blocks, **keywords)
    conversion = check_live(network, [(64, 64), (65, 47), (33, 90), (1, 1)])
    assert conversion.source == "PyTorch, torchvision and timm"


@pytest.mark.parametrize("kind", RESNETS)
def test_resnets_of_timm(lane, kind):
    block, blocks, keywords = RESNETS[kind]
    names = {"groups": "cardinality", "width_per_group": "base_width"}
    network = lane.timm_resnet(block, blocks, **{names[key]: value for key, value in keywords.items()})
    check_live(network, [(64, 64), (65, 47)])


@pytest.mark.parametrize("config", [HF_SMALL, HF_BASIC], ids=["bottleneck", "basic"])
def test_resnets_of_transformers_as_they_save_them(lane, tmp_path, config):
    network = lane.hf_resnet(**config)
    check_live(network, [(64, 64), (65, 47), (33, 90)])
    network.network.save_pretrained(tmp_path)
    card = convert_file(tmp_path / "model.safetensors").weights.card
    assert card.preprocessing["interpolation"] == "bicubic"
    assert card.num_classes == 10


def test_strides_of_the_paper_in_transformers(lane, tmp_path):
    """Its configuration may say that the first convolution of a block has the stride; no tensor shows it."""
    network = lane.hf_resnet(**HF_SMALL, downsample_in_bottleneck=True)
    check_live(network, [(65, 47)], version="v1")
    network.network.save_pretrained(tmp_path)
    assert convert_file(tmp_path / "model.safetensors").weights.card.keywords["version"] == "v1"


@pytest.mark.parametrize("batch_norm", [False, True])
def test_vggs_of_torchvision(lane, batch_norm):
    """The feature map is smaller than 7x7, as large, and larger: 7 to 60 pixels behind two poolings."""
    network = lane.torchvision_vgg(batch_norm=batch_norm)
    check_live(network, [(28, 28), (41, 18), (64, 64), (33, 75), (4, 4)])


@pytest.mark.parametrize("batch_norm", [False, True])
def test_vggs_of_timm_slide_over_larger_maps(lane, batch_norm):
    network = lane.timm_vgg(batch_norm=batch_norm)
    conversion = check_live(network, [(28, 28), (41, 18), (64, 64), (33, 75), (4, 4)])
    assert conversion.weights.card.keywords["larger_map"] == "slide"


def test_a_larger_map_tells_torchvision_and_timm_apart(lane):
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check_live(lane.timm_vgg(batch_norm=False), [(64, 64)], larger_map="pool")


def named_of(model: str):
    """The arrays of a network of timm, of zeros that take no memory."""
    timm = importlib.import_module("torch_libraries").import_timm()
    torch = importlib.import_module("torch")
    with torch.device("meta"):
        state = timm.create_model(model, pretrained=False).state_dict()
    arrays = {}
    for name, tensor in state.items():
        arrays[name] = np.broadcast_to(np.float32(0), tuple(tensor.shape))
    return as_named({name: array for name, array in arrays.items() if array.ndim})


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("resnet50d", r"^conv1.0.weight is one of several convolutions in the stem .* timm's resnet50.a1_in1k"),
        ("resnet26t", r"^conv1.0.weight is one of several"),
        ("seresnet50", r"^layer1.0.se.fc1.weight weighs channels \(squeeze and excitation"),
        ("ecaresnet26t", r"^conv1.0.weight is one of several"),
        ("resnetv2_50", r"no rule knows"),
        ("resnet50_gn", r"does not fit resnet/50"),
    ],
)
def test_other_resnets_of_timm_are_refused(lane, model, sentence):
    with pytest.raises(UserError, match=sentence):
        convert_arrays("net.pth", named_of(model))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("resnet18", "resnet/18"),
        ("resnet26", "resnet/26"),
        ("resnet152", "resnet/152"),
        ("resnext50_32x4d", "resnet/50-32x4d"),
        ("resnext101_64x4d", "resnet/101-64x4d"),
        ("wide_resnet50_2", "resnet/50-wide2"),
        ("vgg13", "vgg/13"),
        ("vgg16_bn", "vgg/16-bn"),
        ("vgg19", "vgg/19"),
    ],
)
def test_names_and_shapes_of_timm_s_networks_tell_which_they_are(lane, model, expected):
    card = convert_arrays("net.pth", named_of(model)).weights.card
    assert card.model == expected
    assert card.keywords == ({"larger_map": "slide"} if expected.startswith("vgg") else {})
    assert card.num_classes == 1000
