"""Low-rank adapters: which kernels have one, and the shapes of their factors."""

import pytest

from cnn_vit import trees
from cnn_vit.errors import UserError
from cnn_vit.training import freezing
from cnn_vit.training.forward import NetworkSpec
from cnn_vit.training.freezing import FreezeSpec, LoraSpec
from cnn_vit.training.rules import RuleSpec

SOFTMAX = RuleSpec("softmax")
VIT = NetworkSpec("vit/test", (("depth", 2),), 3, (16, 16, 3), "float32", SOFTMAX)  # width 8, MLPs of 16
MOBILENET = NetworkSpec("mobilenet_v1/0.25", (), 3, (32, 32, 3), "float32", SOFTMAX)
RESNET = NetworkSpec("cifar_resnet/test", (), 3, (32, 32, 3), "float32", SOFTMAX)
HEAD = "all but head"


def targets_of(spec, freeze=HEAD, *, rank=4, on=None, stages=()):
    """Inputs and outputs of the kernels with adapters, by path as text."""
    targets = freezing.get_targets(spec, FreezeSpec(freeze, lora=LoraSpec(rank, on), stages=stages))
    return {trees.keys_text(path): shape for path, shape in targets.items()}


def test_of_a_vit_attention_and_mlps_have_adapters_and_neither_patches_nor_head():
    expected = {}
    for block in ("blocks/0", "blocks/1"):
        expected |= {f"{block}/attention/{name}/kernel": (8, 8) for name in ("query", "key", "value", "out")}
        expected |= {f"{block}/mlp/dense1/kernel": (8, 16), f"{block}/mlp/dense2/kernel": (16, 8)}
    assert targets_of(VIT) == expected


def test_of_a_mobilenet_the_1x1_convolutions_larger_than_the_rank_have_adapters():
    """8, 16, 32, ... channels: of rank 8 the first, from 8 to 16 channels, is not larger, and no 3x3 filter counts."""
    names = {name.rpartition("/")[0] for name in targets_of(MOBILENET, rank=8)}
    assert len(names) == 12
    assert {name.rpartition("/")[2] for name in names} == {"pointwise"}
    assert "stages/0/blocks/0/pointwise" not in names
    assert targets_of(MOBILENET)["stages/0/blocks/0/pointwise/kernel"] == (8, 16)


def test_a_pattern_says_which_kernels_have_adapters():
    on = "blocks/0..1/attention/query, blocks/1/mlp"
    names = {name.removesuffix("/kernel") for name in targets_of(VIT, on=on, rank=8)}
    queries = {f"blocks/{k}/attention/query" for k in (0, 1)}
    assert names == queries | {"blocks/1/mlp/dense1", "blocks/1/mlp/dense2"}


def test_in_a_stage_only_what_it_means_has_adapters():
    assert targets_of(VIT, stages=("head",)) == {}
    assert {name.split("/")[1] for name in targets_of(VIT, stages=("head", "blocks/1.."))} == {"1"}
    assert targets_of(VIT, stages=("head", "all")) == targets_of(VIT)


def test_factors_stand_beside_their_kernel_and_count_by_hand():
    """Of rank 3: 3 times 4 (8 + 8) + (8 + 16) + (16 + 8) in each of two blocks."""
    factors = freezing.get_factors(VIT, FreezeSpec(HEAD, lora=LoraSpec(3)))
    assert trees.count(factors) == 3 * (4 * 16 + 24 + 24) * 2
    dense = factors["blocks"][1]["mlp"]["dense1"]
    assert {name: shape.shape for name, shape in dense.items()} == {"lora_a": (8, 3), "lora_b": (3, 16)}


def test_b_begins_as_zero_and_a_follows_from_the_seed():
    freeze = FreezeSpec(HEAD, lora=LoraSpec(3))
    first, again, other = (freezing.initial_factors(VIT, freeze, seed) for seed in (0, 0, 1))
    dense = first["blocks"][0]["mlp"]["dense2"]
    assert not dense["lora_b"].any()
    assert trees.digest(first) == trees.digest(again) != trees.digest(other)
    assert dense["lora_a"].std() == pytest.approx(1 / 16**0.5, rel=0.4)  # 48 draws with the variance 1 / 16


@pytest.mark.parametrize(
    ("spec", "keywords", "sentence"),
    [
        (VIT, dict(on="block/0"), "there is no block; did you mean blocks?"),
        (VIT, dict(on="patches"), "names no kernel of a dense layer, an attention or a 1x1 convolution; this"),
        (VIT, dict(on="blocks/0, patches"), "patches holds no kernel of a dense layer, an attention or a 1x1"),
        (VIT, dict(on="head"), "names head/kernel, which is trained as a whole; freeze it too, or leave it out"),
        (VIT, dict(on="blocks/0", rank=9), r"pretrained.lora=9 is more than blocks/0/attention/"),
        (VIT, dict(rank=8), "finds no frozen kernel"),
        (RESNET, dict(rank=1), "finds no frozen kernel of a dense layer, an attention or a 1x1 convolution"),
    ],
)  # fmt: skip
def test_adapters_that_do_not_fit_are_refused_in_one_sentence(spec, keywords, sentence):
    with pytest.raises(UserError) as error:
        targets_of(spec, **keywords)
    assert sentence in str(error.value)
