"""Rules of ResNet and VGG read depth, groups and norms from names and shapes, and refuse what we have no layer for."""

import numpy as np
import pytest

from cnn_vit.errors import UserError
from cnn_vit.transfer import rules
from cnn_vit.transfer.recognition import recognize
from cnn_vit.transfer.table import pair_names


def find_rule(family, word):
    """The rule of a family whose source ends with a word."""
    (rule,) = [rule for rule in rules.all_rules() if rule.family == family and rule.source.endswith(word)]
    return rule


TORCH, HF = find_rule("resnet", "timm"), find_rule("resnet", "transformers")

# He et al., table 1; Xie et al., table 1 and section 5.1; Zagoruyko and Komodakis, table 8: blocks of each stage,
# convolutions of a block, channels of the second convolution of the first block, groups.
PUBLISHED = {
    "resnet/18": ((2, 2, 2, 2), 2, 64, 1),
    "resnet/34": ((3, 4, 6, 3), 2, 64, 1),
    "resnet/50": ((3, 4, 6, 3), 3, 64, 1),
    "resnet/101": ((3, 4, 23, 3), 3, 64, 1),
    "resnet/152": ((3, 8, 36, 3), 3, 64, 1),
    "resnet/50-wide2": ((3, 4, 6, 3), 3, 128, 1),
    "resnet/50-32x4d": ((3, 4, 6, 3), 3, 128, 32),
    "resnet/101-32x8d": ((3, 4, 23, 3), 3, 256, 32),
    "resnet/101-64x4d": ((3, 4, 23, 3), 3, 256, 64),
}


def resnet_shapes(blocks, convolutions, inner=64, groups=1, filters=64):
    """Shapes of the arrays of torchvision that tell a ResNet, and the first kernel of each block."""
    shapes = {"conv1.weight": (filters, 3, 7, 7), "fc.weight": (7, 512)}
    for stage, count in enumerate(blocks, 1):
        for block in range(count):
            shapes[f"layer{stage}.{block}.conv1.weight"] = (inner, filters, 1, 1)
    shapes["layer1.0.conv2.weight"] = (inner, inner // groups, 3, 3)
    if convolutions == 3:
        shapes["layer1.0.conv3.weight"] = (4 * filters, inner, 1, 1)
    return shapes


@pytest.mark.parametrize("model", PUBLISHED)
def test_published_resnets_are_told_by_their_shapes(model):
    guess = TORCH.guess(resnet_shapes(*PUBLISHED[model]), {})
    assert (guess.model, guess.keywords) == (model, {})
    assert (guess.num_classes, guess.channels, guess.image_size, guess.unseen) == (7, 3, None, {})
    assert any("timm's resnetaa50 and resnetblur50" in reason for reason in guess.reasons)


def test_other_depths_widths_and_groups_become_keywords():
    guess = TORCH.guess(resnet_shapes((1, 2, 1, 1), 3, inner=32, groups=4, filters=32), {})
    # 8 channels a group where the stage has 32 filters are 16 where it has 64
    assert (guess.model, guess.keywords) == (
        "resnet/50", {"blocks": (1, 2, 1, 1), "filters": 32, "groups": 4, "group_width": 16}
    )  # fmt: skip
    guess = TORCH.guess(resnet_shapes((1, 1), 2, inner=8, filters=8), {})
    assert (guess.model, guess.keywords) == ("resnet/18", {"blocks": (1, 1), "filters": 8})
    assert guess.reasons[0] == "1-1 blocks of 2 convolutions: 6 layers"


def test_hugging_face_s_names_tell_the_same():
    shapes = {"resnet.embedder.embedder.convolution.weight": (64, 3, 7, 7), "classifier.1.weight": (7, 2048)}
    for stage, count in enumerate((3, 4, 6, 3)):
        for block in range(count):
            name = f"resnet.encoder.stages.{stage}.layers.{block}.layer"
            shapes[f"{name}.0.convolution.weight"] = (64, 64, 1, 1)
            shapes[f"{name}.1.convolution.weight"] = (64, 64, 3, 3)
            shapes[f"{name}.2.convolution.weight"] = (256, 64, 1, 1)
    guess = HF.guess(shapes, {})
    assert (guess.model, guess.keywords, guess.num_classes) == ("resnet/50", {}, 7)
    assert not any("timm" in reason for reason in guess.reasons)
    assert recognize("net.safetensors", [*shapes, HF.signs[1]], None).rule is HF


@pytest.mark.parametrize(
    ("config", "keywords"),
    [
        ({}, {}),
        ({"downsample_in_bottleneck": False, "hidden_act": "relu"}, {}),
        ({"downsample_in_bottleneck": True}, {"version": "v1"}),
    ],
)
def test_hugging_face_s_config_tells_which_convolution_has_the_stride(config, keywords):
    assert HF.read_config(config) == keywords


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"hidden_act": "gelu"}, "hidden_act='gelu' of the file's config.json is not that of .*: relu"),
        ({"downsample_in_first_stage": True}, "downsample_in_first_stage=True of .*: False"),
        ({"downsample_in_bottleneck": "false"}, "downsample_in_bottleneck='false' of .* is no truth value"),
    ],
)
def test_networks_of_hugging_face_that_ours_are_not_are_refused(config, sentence):
    with pytest.raises(UserError, match=sentence):
        HF.read_config(config)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"conv1.weight": (64, 3, 3, 3)}, "conv1.weight has filters of 3 x 3 pixels, and the first ones of resnet"),
        ({"conv1.0.weight": (32, 3, 3, 3)}, "conv1.0.weight is one of several convolutions in the stem"),
        ({"layer1.0.se.fc1.weight": (16, 256, 1, 1)}, "layer1.0.se.fc1.weight weighs channels"),
        ({"layer2.0.downsample.1.weight": (512, 256, 1, 1)}, "stands behind average pooling in a shortcut"),
    ],
)
def test_layers_that_our_resnets_lack_are_refused(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        TORCH.guess(resnet_shapes((1, 1, 1, 1), 3) | changes, {})


def test_a_shortcut_s_norm_is_no_convolution():
    shapes = resnet_shapes((1, 1, 1, 1), 3) | {"layer2.0.downsample.1.weight": (512,)}
    assert TORCH.guess(shapes, {}).model == "resnet/50"


# Simonyan and Zisserman, table 1, columns A, B, D and E, as torchvision numbers them: names of the convolutions.
VGG_PLACES = {
    "vgg/11": (0, 3, 6, 8, 11, 13, 16, 18),
    "vgg/13": (0, 2, 5, 7, 10, 12, 15, 17, 20, 22),
    "vgg/16": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
    "vgg/19": (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34),
    "vgg/11-bn": (0, 4, 8, 11, 15, 18, 22, 25),
    "vgg/16-bn": (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40),
}
VGG_DENSE = {"classifier.0": (4096, 25088), "classifier.3": (4096, 4096), "classifier.6": (7, 4096)}
TIMM_DENSE = {"pre_logits.fc1": (4096, 512, 7, 7), "pre_logits.fc2": (4096, 4096, 1, 1), "head.fc": (7, 4096)}


def vgg_shapes(model, dense):
    """Shapes of the kernels of a VGG, and of its norms."""
    filters = [64, 128, 256, 512, 512]
    places = VGG_PLACES[model]
    layers = 3 if model.endswith("-bn") else 2
    shapes, stage, inputs = {}, 0, 3
    for number, place in enumerate(places):
        if number and place - places[number - 1] > layers:
            stage += 1
        shapes[f"features.{place}.weight"] = (filters[stage], inputs, 3, 3)
        inputs = filters[stage]
        if layers == 3:
            shapes[f"features.{place + 1}.weight"] = shapes[f"features.{place + 1}.running_mean"] = (inputs,)
    return shapes | {f"{name}.weight": shape for name, shape in dense.items()}


@pytest.mark.parametrize(("dense", "program"), [(VGG_DENSE, "torchvision"), (TIMM_DENSE, "timm")])
@pytest.mark.parametrize("model", VGG_PLACES)
def test_published_vggs_are_told_by_their_names(model, dense, program):
    """A VGG with batch norm has all names by which one without is known, and some more."""
    shapes = vgg_shapes(model, dense)
    rule = recognize("net.pth", list(shapes), None).rule
    assert rule.source == f"PyTorch, {program}{', with batch norm' if model.endswith('-bn') else ''}"
    assert rule.keywords == ({"larger_map": "slide"} if program == "timm" else {})
    guess = rule.guess(shapes, {})
    assert (guess.model, guess.keywords, guess.num_classes, guess.channels) == (model, {}, 7, 3)


def test_the_first_dense_layer_of_torchvision_reads_channels_then_rows_then_columns():
    rule = find_rule("vgg", "torchvision")
    (pair,), _ = pair_names([row for row in rule.table if row.ours == "dense1"], ["dense1/kernel"])
    theirs = np.zeros((5, 3 * 7 * 7), np.float32)
    theirs[4, 2 * 49 + 6 * 7 + 1] = 1  # output 4, channel 2, row 6, column 1
    ours = pair.to_ours(theirs, (7, 7, 3, 5))["dense1/kernel"]
    assert np.argwhere(ours).tolist() == [[6, 1, 2, 4]]


def test_two_networks_under_their_own_prefixes_are_not_taken_for_one():
    """What has more signs is preferred where it is the same network, not where it is another one of the file."""
    names = [f"a.{name}" for name in vgg_shapes("vgg/11", VGG_DENSE)]
    names += [f"b.{name}" for name in vgg_shapes("vgg/11-bn", VGG_DENSE)]
    with pytest.raises(UserError, match="say which with --model"):
        recognize("net.pth", names, None)
