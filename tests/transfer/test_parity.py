"""Converted networks give the scores of the programs that they come from; PyTorch's are stored, its weights made anew.

`write_parity.py` filled reference networks in PyTorch with values that follow from the names of their parameters, and
stored the scores of two images. Here the same values are made again and converted.
"""

import numpy as np
import pytest
from converted import as_named, compile_scores
from flax import nnx
from parity_values import FOLDER, Reference, fractions, make_images, make_values, read_reference

from cnn_vit import models
from cnn_vit.errors import UserError
from cnn_vit.nn.conv import Conv, is_convolutional
from cnn_vit.nn.values import functional
from cnn_vit.transfer import rules, weights
from cnn_vit.transfer.convert import Conversion, convert_arrays

pytestmark = pytest.mark.usefixtures("_compiled_quickly")

NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
# Their networks differ from others' in an epsilon or a head, and each takes a second to compile.
SLOW = {"vit_google_pre_logits", "vit_hf", "vit_hf_5", "vit_big_vision", "vit_big_vision_stacked", "deit_hf"}
SLOW |= {"convnext_hf", "deit"}
# All 7 stages, for torchvision's names hold the number of the last layer; those of timm have 3.
SLOW |= {"efficientnet_torchvision", "mobilenet_v2_torchvision"}
SYMMETRIC = {("head.bias", "head_dist.bias")}  # the mean of two heads adds both
CLOSE = 1e-4  # of two scores
for_each_reference = pytest.mark.parametrize("name", NAMES)


def convert_values(reference: Reference, values: dict[str, np.ndarray]) -> Conversion:
    """Converts the values of a reference network."""
    arrays = {name: value for name, value in values.items() if value.ndim}  # readers skip scalars
    return convert_arrays("parity.npz", as_named(arrays), keywords=reference.keywords)


class Converted:
    """A reference network in our hands: its values, and its scores for any values of the same shapes."""

    def __init__(self, name: str):
        self.reference = read_reference(name)
        self.values = make_values(self.reference.shapes)
        self.images = make_images(self.reference.image_shape)
        card = convert_values(self.reference, self.values).weights.card
        card.preprocessing["image_size"] = list(self.reference.image_shape[1:3])
        self.model = self.build(card)
        convolutional = is_convolutional(self.model)
        self.compiled = compile_scores(functional(self.model), convolutional=convolutional)

    def build(self, card: weights.Card) -> nnx.Module:
        """Builds the network of a card as a module."""
        size, channels = tuple(card.preprocessing["image_size"]), card.preprocessing["channels"]
        return models.build(card.model, card.num_classes, image_size=size, channels=channels, **card.keywords)

    def distance(self, values: dict[str, np.ndarray]) -> float:
        """Returns the largest difference of the scores from PyTorch's; infinity where the values are refused."""
        try:
            converted = convert_values(self.reference, values).weights
        except UserError:  # a variance below 0
            return np.inf
        scores = self.compiled(converted.params, converted.stats, self.images)
        return float(np.abs(np.asarray(scores) - np.array(self.reference.scores)).max())


@pytest.fixture(scope="module")
def converted():
    """Gives each converted network, compiled once."""
    networks: dict[str, Converted] = {}

    def find(name: str) -> Converted:
        if name not in networks:
            networks[name] = Converted(name)
        return networks[name]

    return find


def test_every_family_with_a_rule_has_stored_scores():
    assert [family for family in rules.families() if family not in NAMES] == []


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in NAMES])
def test_a_converted_network_gives_the_scores_of_pytorch(converted, name):
    network = converted(name)
    assert network.distance(network.values) <= CLOSE


@for_each_reference
def test_the_stored_scores_are_far_enough_apart_to_tell_networks_apart(name):
    scores = np.array(read_reference(name).scores)
    assert scores.std() > 0.1
    assert np.abs(scores[0] - scores[1]).max() > 0.1  # and the images apart
    assert (FOLDER / f"{name}.json").stat().st_size <= 20_000


def exchanges(values: dict[str, np.ndarray]) -> list[tuple[str, str]]:
    """Pairs of names whose arrays have the same shape: each array with the next one of its shape."""
    last_of_shape: dict[tuple, str] = {}
    pairs = []
    for name, value in values.items():
        if value.ndim:
            if value.shape in last_of_shape:
                pairs.append((last_of_shape[value.shape], name))
            last_of_shape[value.shape] = name
    return pairs


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("cifar_resnet", 60),
        ("vit", 60),
        ("mobilenet_v1", 20),
        ("vit_timm", 10),
        pytest.param("vit_hf", 10, marks=pytest.mark.slow),
        pytest.param("vit_big_vision", 10, marks=pytest.mark.slow),
        pytest.param("deit", 10, marks=pytest.mark.slow),
        ("convnext", 10),
        ("efficientnet", 10),
    ],
)
def test_two_exchanged_arrays_of_the_same_shape_are_noticed(converted, name, most):
    network = converted(name)
    pairs = [pair for pair in exchanges(network.values) if pair not in SYMMETRIC]
    assert len(pairs) >= 20
    for first, second in pairs[:: max(1, len(pairs) // most)]:
        swapped = network.values | {first: network.values[second], second: network.values[first]}
        assert network.distance(swapped) > 10 * CLOSE, (first, second)


def test_a_resnet_with_same_padding_is_noticed(converted):
    """SAME pads a stride of 2 by (0, 1) where PyTorch pads by (1, 1): the same shapes, other numbers."""
    network = converted("cifar_resnet")
    weights_of_pytorch = convert_values(network.reference, network.values).weights
    model = network.build(network_card(network))
    changed = 0
    for _, layer in nnx.iter_modules(model):
        if isinstance(layer, Conv) and layer.stride == (2, 2):
            layer.padding = ((0, 1), (0, 1))
            changed += 1
    assert changed == 2  # the first convolutions of the second and the third stage
    compiled = compile_scores(functional(model), convolutional=True)
    scores = compiled(weights_of_pytorch.params, weights_of_pytorch.stats, network.images)
    assert np.abs(np.asarray(scores) - np.array(network.reference.scores)).max() > 0.1


def network_card(network: Converted) -> weights.Card:
    """The card of a converted reference network."""
    return convert_values(network.reference, network.values).weights.card


def test_values_follow_from_their_names_on_every_platform():
    """These were made on x86-64 by NumPy 2; the bits of a generator are part of what NumPy promises to keep."""
    expected = [-0.766754150390625, 0.47979736328125, -0.821990966796875, 0.116241455078125]
    assert fractions("x", (2, 2)).ravel().tolist() == expected
    assert fractions("y", (4,)).tolist() != expected
