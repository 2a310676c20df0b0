"""Learning rates of parts: which parameters a multiplier means, and how far each layer is from the head."""

import pytest

from cnn_vit import trees
from cnn_vit.errors import UserError
from cnn_vit.models import build
from cnn_vit.nn.values import functional
from cnn_vit.training import rates as training_rates
from cnn_vit.training.forward import NetworkSpec
from cnn_vit.training.rules import RuleSpec
from cnn_vit.transfer.adapt.rates import Multiplier, find_distances, find_multiplied, parse_multipliers


@pytest.fixture(scope="module")
def resnet():
    return trees.shapes_by_path(functional(build("cifar_resnet/test", 3)).params)


def test_a_multiplier_is_a_pattern_and_a_number():
    parsed = parse_multipliers(("head=10", "stem, stages/0..1 = 1e-1", "all but head=0.5"))
    assert parsed == (Multiplier("head", 10), Multiplier("stem, stages/0..1", 0.1), Multiplier("all but head", 0.5))


def test_a_multiplier_means_what_its_pattern_means_in_freeze(resnet):
    indices = find_multiplied(("head", "stem, stages/1.."), resnet)
    means = {trees.keys_text(path[:2]) for path, index in indices.items() if index == 1}
    assert means == {"stem/kernel", "stages/1", "stages/2"}
    assert {trees.keys_text(path) for path, index in indices.items() if index == 0} == {"head/kernel", "head/bias"}
    assert not [path for path in indices if path[:2] == ("stages", 0) or path[0] == "stem_norm"]


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (("stagse/0=0.1",), "there is no stagse; did you mean stages?"),
        (("head=10", "all but stem=2"), "'head' and 'all but stem' both name head/"),
        (("head",), "holds 'head', which has no number; write PATHS=NUMBER, such as head=10"),
        (("head=ten",), "the number lies above 0"),
        (("head=0",), "the number lies above 0 and is at most 1e+06, and what is not to be trained stands in"),
        (("head=-1",), "the number lies above 0"),
        (("head=nan",), "the number lies above 0"),
        (("head=1e7",), "the number lies above 0"),
        (("=2",), "'' is no part of a network"),
    ],
)
def test_a_multiplier_that_does_not_fit_is_refused_in_one_sentence(resnet, texts, sentence):
    with pytest.raises(UserError) as error:
        find_multiplied([multiplier.pattern for multiplier in parse_multipliers(texts)], resnet)
    assert sentence in str(error.value)
    assert "pretrained.multipliers" in str(error.value)


# Layer-wise decay -----------------------------------------------------------------------------------------------------


def distances_of(model, image_shape, **keywords):
    """The distance of each top-level layer or block of a network, by its path as text."""
    spec = NetworkSpec(model, tuple(sorted(keywords.items())), 3, image_shape, "float32", RuleSpec("softmax"))
    distances: dict[str, set[int]] = {}
    for path, distance in training_rates.find_distances(spec).items():
        depth = 2 if len(path) > 1 and isinstance(path[1], int) else 1
        distances.setdefault(trees.keys_text(path[:depth]), set()).add(distance)
    return distances


def test_the_distances_of_a_vit_are_those_of_beit():
    """arXiv:2106.08254: with 12 blocks, the head and its norm 0, block k 12 - k, patches, positions and token 13."""
    distances = distances_of("vit/test", (16, 16, 3), depth=12)
    expected = {f"blocks/{k}": {12 - k} for k in range(12)}
    expected |= {"head": {0}, "norm": {0}, "patches": {13}, "pos_embed": {13}, "cls_token": {13}}
    assert distances == expected


def test_a_map_head_stands_where_the_head_does():
    distances = distances_of("vit/test", (16, 16, 3), depth=2, pool="attention")
    assert distances["map_head"] == {0}
    assert distances["patches"] == {3}


def test_the_blocks_of_all_stages_count():
    """MobileNet's 1, 2, 2, 6 and 2 blocks are 13; the stem, with its norm, is 14 away."""
    distances = distances_of("mobilenet_v1/0.25", (32, 32, 3))
    assert distances == {
        **{"stem": {14}, "stem_norm": {14}, "stages/0": {13}, "stages/1": {12, 11}, "stages/2": {10, 9}},
        **{"stages/3": {8, 7, 6, 5, 4, 3}, "stages/4": {2, 1}, "head": {0}},
    }


def test_what_a_stage_has_beside_its_blocks_goes_with_its_first_block():
    params = [
        ("stem", "kernel"),
        ("stages", 0, "blocks", 0, "kernel"),
        ("stages", 1, "shrink", "kernel"),
        ("stages", 1, "blocks", 0, "kernel"),
        ("stages", 1, "blocks", 1, "convs", 0, "kernel"),
        ("stages", 1, "blocks", 1, "convs", 1, "kernel"),
        ("between", "kernel"),
        ("token",),
        ("head", "kernel"),
    ]
    calls = ["", "stem", "stages/0/blocks/0", "between", "stages/1/shrink", "stages/1/blocks/0"]
    calls += ["stages/1/blocks/1/convs/0", "stages/1/blocks/1/convs/1", "head"]
    distances = {trees.keys_text(path): distance for path, distance in find_distances(params, calls).items()}
    assert distances == {
        **{"stem/kernel": 4, "token": 4, "stages/0/blocks/0/kernel": 3, "between/kernel": 2},
        **{"stages/1/shrink/kernel": 2, "stages/1/blocks/0/kernel": 2, "head/kernel": 0},
        **{f"stages/1/blocks/1/convs/{k}/kernel": 1 for k in (0, 1)},
    }


def test_a_stage_without_blocks_of_its_own_is_one():
    """Of a plain CNN with a convolution and a norm in each of two stages."""
    distances = distances_of("cnn/test", (8, 8, 1))
    assert distances == {"stages/0": {2}, "stages/1": {1}, "head": {0}}


def test_blocks_count_in_the_order_of_their_calls():
    params = [("a", 0, "kernel"), ("b", 0, "kernel"), ("head", "kernel")]
    assert find_distances(params, ["", "b/0", "a/0", "head"]) == {params[0]: 1, params[1]: 2, params[2]: 0}


def test_a_network_without_blocks_has_no_distances():
    assert find_distances([("conv", "kernel"), ("head", "kernel")], ["", "conv", "head"]) == {}
    spec = NetworkSpec("lenet/5", (), 10, (32, 32, 1), "float32", RuleSpec("softmax"))
    with pytest.raises(UserError, match=r"lenet/5 has no row of stages or blocks .* pretrained\.multipliers instead"):
        training_rates.find_distances(spec)
