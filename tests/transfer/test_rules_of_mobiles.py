"""MobileNetV2 and EfficientNet: which of two programs and two families a file is, and what its shapes do not tell."""

import functools

import jax
import numpy as np
import pytest
from converted import as_named

from cnn_vit import models
from cnn_vit.errors import UserError
from cnn_vit.nn.values import functional
from cnn_vit.transfer import rules
from cnn_vit.transfer.convert import convert_arrays, plan_conversion
from cnn_vit.transfer.matching import shapes_by_text, to_theirs
from cnn_vit.transfer.rules import find_multiplier
from cnn_vit.transfer.source_facts import SourceFacts
from cnn_vit.transfer.table import pair_names

SMALL = {"width_multiplier": 0.2}


def find_rule(family, program):
    (rule,) = [rule for rule in rules.all_rules() if rule.family == family and rule.source.endswith(program)]
    return rule


@functools.cache
def named_of(program, model, **changes):
    """The arrays of a network under a program's names: zeros, which take no memory."""
    shapes = shapes_by_text(functional(models.build(model, 5, **changes)))
    pairs, unnamed = pair_names(find_rule(model.partition("/")[0], program).table, list(shapes))
    assert unnamed == []
    arrays = {}
    for pair in pairs:
        arrays[pair.theirs] = np.broadcast_to(np.float32(0), pair.their_shape(shapes[pair.ours[0]]))
    return as_named(arrays)


@pytest.mark.parametrize("program", ["torchvision", "timm"])
@pytest.mark.parametrize("model", ["mobilenet_v2/1.0", "efficientnet/B0"])
def test_the_names_tell_family_and_program(model, program):
    named = named_of(program, model, **SMALL)
    keywords = {"padding": "symmetric"} if (model, program) == ("efficientnet/B0", "timm") else {}
    card = convert_arrays("net.npz", named, keywords=keywords).weights.card
    assert (card.model, card.keywords) == (model, SMALL | keywords)
    assert card.origin["program"] == f"PyTorch, {program}"


def test_the_padding_of_a_file_of_timm_has_to_be_said():
    named = named_of("timm", "efficientnet/B0", **SMALL)
    with pytest.raises(UserError, match=r"does not tell all .* add --model.padding= one of symmetric, same"):
        convert_arrays("net.npz", named)
    card = convert_arrays("net.npz", named, keywords={"padding": "same"}).weights.card
    assert card.model == "efficientnet/B0-tf"
    network = models.build(card.model, 5, **card.keywords)
    assert network.stem_norm.epsilon == 1e-3  # that of the same networks
    for model in ("efficientnet/B0", "efficientnet/B0-tf"):  # a name says it too
        assert convert_arrays("net.npz", named, model=model, keywords=SMALL).weights.card.model == model


def test_the_epsilon_of_a_file_of_timm_follows_from_its_padding():
    """timm: 1e-5 of efficientnet_b0, which pads symmetrically, and 1e-3 of tf_efficientnet_b0."""
    named = named_of("timm", "efficientnet/B0", **SMALL)
    facts = {"facts": SourceFacts(), "entry": None, "for_training": False}
    for name in ("efficientnet/B0", "efficientnet/B0-tf"):
        for padding, epsilon in (("symmetric", 1e-5), ("same", 1e-3)):
            keywords = SMALL | {"padding": padding}
            plan = plan_conversion("a.pth", named, model=name, keywords=keywords, **facts)
            own = models.read_keywords(name)["epsilon"].default
            assert plan.card.keywords.get("epsilon", own) == epsilon
    sentence = "--model.epsilon=1e-05 contradicts padding=same: .* timm have 0.001; leave out --model.epsilon"
    keywords = SMALL | {"padding": "same", "epsilon": 1e-5}
    for model in (None, "efficientnet/B0", "efficientnet/B0-tf"):
        with pytest.raises(UserError, match=sentence):
            plan_conversion("a.pth", named, model=model, keywords=keywords, **facts)


def test_the_epsilon_of_torchvision_s_larger_efficientnets_is_told_by_their_size():
    shapes = {}
    for name, array in named_of("torchvision", "efficientnet/B5").arrays.items():
        shapes[name] = array.shape
    guess = find_rule("efficientnet", "torchvision").guess(shapes, {})
    assert (guess.model, guess.keywords) == ("efficientnet/B5", {"epsilon": 1e-3})
    assert guess.unseen == {"epsilon": (1e-3,)}  # so that it is asked for where a model is named


@pytest.mark.parametrize("variant", ["0.35", "1.1d"])
def test_the_shapes_of_a_mobilenet_v2_tell_its_variant(variant):
    shapes = {name: array.shape for name, array in named_of("timm", f"mobilenet_v2/{variant}").arrays.items()}
    guess = find_rule("mobilenet_v2", "timm").guess(shapes, {})
    assert (guess.model, guess.keywords) == (f"mobilenet_v2/{variant}", {})


def test_torchvision_has_no_mobilenet_v2_of_more_blocks():
    network = functional(models.build("mobilenet_v2/1.1d", 5))
    params = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), network.params)
    with pytest.raises(UserError, match=r"the names of PyTorch, torchvision.*stages/1/blocks/2/"):
        to_theirs(find_rule("mobilenet_v2", "torchvision"), params, {})


def test_the_width_multiplier_follows_from_rounded_widths():
    """To multiples of 8 that keep 90 %: 12 and 18, 0.75 of 16 and 24, are 16 and 24 (16 would be 89 % of 18)."""
    assert find_multiplier((16, 24), (16, 24)) == 0.75
    assert find_multiplier((16, 24, 32), (16, 24, 32)) == 0.85  # 27.2: 24 is 88 % of it
    assert find_multiplier((16, 24, 320), (24, 32, 448)) == 1.4
    assert find_multiplier((16, 24, 320), (16, 24, 328)) == 1.02  # no multiple of 0.05
    with pytest.raises(ValueError, match="no multiplier"):
        find_multiplier((16, 24), (16, 64))
