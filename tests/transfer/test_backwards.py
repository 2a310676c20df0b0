"""Weights of ours under the names of another program: the same bytes when they come back, or one sentence."""

from dataclasses import replace

import numpy as np
import pytest
from converted import find_rule, leaves_by_path

from cnn_vit.errors import UserError
from cnn_vit.nn.values import initial_values
from cnn_vit.transfer import backwards, readers, rules, torch_models
from cnn_vit.transfer.convert import open_weights
from cnn_vit.transfer.rules import ConversionRule, Guess
from cnn_vit.transfer.table import TORCH_DENSE, Row
from cnn_vit.transfer.weights import Card, Weights, network_of

VIT = {"width": 12, "depth": 2, "hidden": 20, "heads": 3, "activation": "relu", "qkv_bias": False, "epsilon": 1e-5}


def draw(model, keywords=None, *, size=(8, 8), channels=3) -> Weights:
    """Initial values of a network that are all other than 0, with a card."""
    card = Card(model, keywords or {}, 5, None, {"image_size": list(size), "channels": channels})
    params, stats = initial_values(network_of(card), seed=1)
    rng = np.random.default_rng(0)
    for leaf in leaves_by_path(Weights(params, stats, card)).values():
        leaf += rng.uniform(0.25, 0.75, leaf.shape).astype(np.float32)
    return Weights(params, stats, card)


@pytest.fixture(scope="module")
def vit():
    return draw("vit/Ti4", VIT)


@pytest.mark.parametrize(
    ("model", "keywords", "target", "said"),
    [
        ("vit/Ti4", VIT | {"dropout": 0.1}, "vit-pytorch", {"heads": 3, "activation": "relu"}),
        ("cifar_resnet/8-b", {}, "akamaster", {}),
        ("cifar_resnet/8", {"filters": 4}, "akamaster", {}),
    ],
)
def test_there_and_back_gives_the_same_bytes_in_both_directions(model, keywords, target, said, tmp_path):
    weights = draw(model, keywords)
    path = tmp_path / "theirs.safetensors"
    written = backwards.write_for(weights, target, path)
    backwards.save(path, written)
    named = readers.read(path)
    back = open_weights(path, keywords=said)
    assert back.digest == weights.digest
    again = backwards.write_for(back, target, path)
    assert again.arrays.keys() == named.arrays.keys()
    for name, array in again.arrays.items():
        assert array.tobytes() == named.arrays[name].tobytes()
    assert named.metadata == {"format": "pt", "written_by": "cnn_vit"}
    assert f"model.load_state_dict(safetensors.torch.load_file('{path}'))" in written.lines


# What rules serve -----------------------------------------------------------------------------------------------------


def guess_mlp(shapes, keywords) -> Guess:
    """A rule of these tests: two layers, on color images of 8x8 pixels."""
    return Guess("mlp/test", shapes["head.weight"][0], 3, (8, 8), (), {"hidden": (shapes["fc1.weight"][0],)})


RULE = ConversionRule(
    family="mlp",
    source="PyTorch, torchvision and timm",
    version=1,
    table=(Row("hidden/layers/{i}", "fc{i+1}", TORCH_DENSE), Row("head", "head", TORCH_DENSE)),
    signs=("fc1.weight", "head.weight"),
    guess=guess_mlp,
    first_kernel="hidden/layers/0/kernel",
    keywords={"activation": "relu"},
)


@pytest.mark.parametrize(
    ("source", "targets"),
    [
        ("PyTorch, torchvision and timm", ("timm", "torchvision")),
        ("torchvision, files with mlp.linear_1", ("torchvision",)),
        ("Hugging Face, modules of version 5", ("hf",)),
        ("PyTorch, Hugging Face transformers", ("hf",)),
        ("Keras 2, keras.applications.MobileNet in HDF5", ()),
    ],
)
def test_a_rule_serves_the_programs_that_its_source_names_or_that_it_says(source, targets):
    assert backwards.targets_of(replace(RULE, source=source)) == targets
    assert backwards.targets_of(replace(RULE, source=source, targets=("mine",))) == ("mine",)


def test_each_program_of_a_rule_is_written_and_the_first_rule_that_has_the_network_is_taken():
    weights = draw("mlp/test")
    lacking = replace(RULE, source="timm, old files", keywords={"activation": "tanh"})
    for target, candidates in (("timm", (lacking, RULE)), ("torchvision", (lacking, RULE)), ("timm", (RULE, lacking))):
        written = backwards.write_for(weights, target, "out.safetensors", candidates)
        assert written.rule is RULE
        np.testing.assert_array_equal(
            written.arrays["fc1.weight"], leaves_by_path(weights)["params/hidden/layers/0/kernel"].T
        )


# What programs lack ---------------------------------------------------------------------------------------------------


def refuse(weights, target, sentence, candidates=None):
    with pytest.raises(UserError, match=sentence) as caught:
        backwards.write_for(weights, target, "out.safetensors", candidates)
    assert "\n" not in str(caught.value)


def test_a_program_that_no_rule_serves_is_named_with_those_that_are(vit):
    refuse(vit, "vit-pytroch", "no program for weights of vit 'vit-pytroch'; did you mean vit-pytorch")
    refuse(draw("lenet/test"), "timm", "no rule writes weights of lenet for another program")
    refuse(draw("mobilenet_v1/test"), "keras", "no rule writes weights of mobilenet_v1 for another program")
    refuse(draw("mlp/test"), "tim", "no program for weights of mlp 'tim'; did you mean timm", (RULE,))


def test_a_keyword_that_the_program_does_not_have_is_one_sentence():
    qkv = draw("vit/Ti4", VIT | {"qkv_bias": True})
    refuse(qkv, "vit-pytorch", r"model.qkv_bias=True, and that of PyTorch, lucidrains.* would have False; write it for")
    epsilon = draw("vit/Ti4", VIT | {"epsilon": 1e-6})
    refuse(epsilon, "vit-pytorch", "model.epsilon=1e-06, and that of .* would have 1e-05")
    cut = draw("vit/Ti4", VIT | {"cut": "blocks/0"})
    refuse(cut, "vit-pytorch", r"this network ends at blocks/0 \(model.cut\)")


def test_arrays_that_the_program_does_not_have_are_one_sentence(vit):
    refuse(draw("vit/Ti4-pre_logits", VIT), "vit-pytorch", "nothing there is like pre_logits/kernel")
    refuse(draw("vit/Ti4", VIT | {"patch_norm": True}), "vit-pytorch", "nothing there is like")


def test_a_network_that_computes_something_else_with_the_same_arrays_is_refused():
    """Post-norm blocks with a norm at their end have the arrays of pre-norm blocks, by name and shape."""
    post = draw("vit/Ti4", VIT | {"norm": "post", "final_norm": True})
    refuse(post, "vit-pytorch", "this network has model.norm=post, and that of .* would have pre")
    deeper = draw("mlp/test", {"hidden": (8, 8)})  # which the guess of the tests' rule takes for one layer
    refuse(
        deeper, "timm", r"no network of .* is like mlp/test hidden=\(8, 8\) of 5 classes .*fc2.* is not known", (RULE,)
    )


def test_python_that_makes_a_vit_of_another_program_has_its_sizes(vit):
    rule = replace(find_rule("vit"), source="timm and transformers")
    timm = "timm.models.vision_transformer.VisionTransformer(img_size=(8, 8), patch_size=4, in_chans=3, num_classes=5"
    hf = "transformers.ViTConfig(hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20"
    for target, expression in (("timm", timm), ("hf", hf)):
        named = replace(rule, targets=(target,))
        lines = backwards.write_for(vit, target, "vit.safetensors", (named,)).lines
        assert lines[1] == f"import {expression.partition('.')[0]}"
        assert lines[2].startswith(f"model = {expression}")
    assert "transformers.ViTForImageClassification.from_pretrained(None, config=model, state_dict=" in lines[3]


def test_what_no_network_of_a_program_has_is_refused_though_its_rule_could_write_it(vit):
    rule = replace(find_rule("vit"), targets=("torchvision",))  # whose queries always have a bias
    refuse(vit, "torchvision", "this network has model.qkv_bias=False, and that of .* would have True", (rule,))


def test_a_program_may_be_given_another_activation_which_is_then_said_where_the_file_is_read_again(vit):
    always = find_rule("vit").keywords | {"activation": "gelu"}
    rule = replace(find_rule("vit"), targets=("timm",), keywords=always)
    written = backwards.write_for(vit, "timm", "vit.safetensors", (rule,))
    assert "act_layer='relu'" in written.lines[2]
    assert written.untold == {"heads": 3, "activation": "relu"}
    refuse(
        vit,
        "elsewhere",
        "model.activation=relu, and that of .* would have gelu",
        (replace(rule, targets=("elsewhere",)),),
    )


# What is printed ------------------------------------------------------------------------------------------------------

PROGRAMS_OF_TORCH = ("timm", "torchvision", "hf")


def test_every_program_that_is_installed_by_name_has_its_constructor_for_every_family():
    served = {(rule.family, target) for rule in rules.all_rules() for target in backwards.targets_of(rule)}
    expected = {(family, target) for family, target in served if target in PROGRAMS_OF_TORCH}
    assert expected - torch_models.MODELS.keys() == set()
    assert torch_models.MODELS.keys() <= served


def test_where_nothing_knows_how_the_network_is_made_a_comment_says_so(vit):
    lines = backwards.write_for(vit, "vit-pytorch", "vit.safetensors").lines
    assert not any(line.startswith("model =") for line in lines)
    assert lines[1].startswith("# `model` is vit/Ti4 ")
    assert lines[1].endswith(
        "made by the code of PyTorch, lucidrains/vit-pytorch (with PreNorm and fn); nothing here knows how."
    )
    compile("\n".join(lines), "lines", "exec")


TIMM_VIT = VIT | {"activation": "gelu", "qkv_bias": True, "epsilon": 1e-6}
ONE_EACH = {"blocks": (1, 1, 1, 1), "widths": (8, 8, 8, 8)}
THREE_EACH = {"blocks": (1, 1, 1), "widths": (8, 8, 8)}


@pytest.mark.parametrize(
    ("model", "keywords", "facts", "target", "sentence"),
    [
        ("vit/Ti4-pre_logits", TIMM_VIT, {}, "timm", "model.pre_logits=True, and that of timm would have False"),
        ("vit/Ti4", TIMM_VIT, {"size": (8, 12)}, "torchvision", "it has images of 8x12 pixels, and there they"),
        ("vit/Ti4", TIMM_VIT, {"channels": 1}, "torchvision", "it has images of 1 channel, and there they have 3"),
        ("convnext/T", THREE_EACH, {}, "timm", "it has 3 stages, and there it is always 4"),
        ("convnext/T", ONE_EACH, {"channels": 1}, "torchvision", "it has images of 1 channel"),
        ("convnext/xxlarge", ONE_EACH, {}, "torchvision", "model.epsilon=1e-05, and that of .* would have 1e-06"),
        ("convnext/xxlarge", ONE_EACH, {}, "hf", "model.epsilon=1e-05, and that of .* would have 1e-06"),
        ("convnext/T", ONE_EACH | {"epsilon": 1e-5}, {}, "timm", "an epsilon of 1e-05, in the last norm of 1e-06"),
        ("mobilenet_v2/test", {}, {}, "torchvision", r"model.blocks=\(1, 1\), and that of .* would have \(1, 2, 3"),
        ("mobilenet_v2/test", {"cut": "stages/0"}, {}, "timm", "this network ends at stages/0"),
        ("efficientnet/test", {}, {}, "torchvision", "it has 2 stages, and there it is always 7"),
        ("efficientnet/test", {"padding": "same"}, {}, "torchvision", "model.padding=same"),
        ("deit/test", {"distilled": False}, {}, "timm", "model.distilled=False, and that of .* would have True"),
    ],
)  # fmt: skip
def test_what_the_printed_lines_would_not_make_is_refused(model, keywords, facts, target, sentence):
    refuse(draw_zeros(model, keywords, **facts), target, sentence)


@pytest.mark.parametrize("model", ["resnet/18", "resnet/50"])
@pytest.mark.parametrize("target", ["timm", "torchvision"])
def test_a_resnet_of_three_stages_is_refused(model, target):
    three = draw_zeros(model, {"blocks": (1, 1, 1)})
    refuse(three, target, "it has 3 stages, and there it is always 4")


def draw_zeros(model, keywords, *, size=(8, 8), channels=3) -> Weights:
    """A network without a value of its own, which is not looked at where the network itself is refused."""
    card = Card(model, keywords, 5, None, {"image_size": list(size), "channels": channels})
    return Weights({}, {}, card)


@pytest.mark.parametrize(
    ("model", "keywords", "target", "parts"),
    [
        ("mobilenet_v2/test", {"scale_ends": False}, "timm", ("import torch", "'ir_r1_k3_s2_e6_c24'", "fix_stem=True")),
        ("efficientnet/test", {}, "timm", ("import functools", "'ir_r1_k3_s2_e6_c24_se0.25'", "eps=1e-05")),
        ("deit/test", {"distilled": True}, "timm", ("VisionTransformerDistilled(", "num_classes=5")),
        ("convnext/test", {}, "hf", ("transformers.ConvNextForImageClassification.from_pretrained(None",)),
    ],
)  # fmt: skip
def test_python_that_makes_a_network_of_another_program_has_its_parts(model, keywords, target, parts):
    size = (32, 32)
    written = backwards.loading_lines(
        draw_zeros(model, keywords, size=size),
        next(rule for rule in rules.all_rules() if rule.family == model.partition("/")[0]),
        torch_models.MODELS[(model.partition("/")[0], target)],
        "x.safetensors",
    )
    for part in parts:
        assert part in "\n".join(written)
    compile("\n".join(written), "lines", "exec")
