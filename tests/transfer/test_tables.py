"""Axes and tables in both directions: where each number goes, by hand, and that it comes back."""

import numpy as np
import pytest
from converted import as_named, find_rule, leaves_by_path, under_their_names

from cnn_vit import models
from cnn_vit.errors import UserError
from cnn_vit.nn.values import functional, initial_values
from cnn_vit.transfer import axes, class_names, rules
from cnn_vit.transfer.convert import convert_arrays
from cnn_vit.transfer.matching import shapes_by_text, to_theirs
from cnn_vit.transfer.table import KERAS_DEPTHWISE, TORCH_CONV, Leaf, Row, pair_names
from cnn_vit.transfer.weights import Card, Weights, network_of


def move(array, their_axes, our_axes, our_shape):
    """Rearranges an array of theirs into one of ours."""
    return axes.rearrange(array, their_axes, our_axes, axes.axis_sizes(our_axes, our_shape))


def test_a_kernel_of_pytorch_puts_outputs_last():
    theirs = np.arange(2 * 3 * 5 * 7).reshape(2, 3, 5, 7)  # outputs, inputs, height, width
    ours = move(theirs, "o i h w", "h w i o", (5, 7, 3, 2))
    assert ours[4, 6, 1, 0] == theirs[0, 1, 4, 6]
    assert ours.shape == (5, 7, 3, 2)


def test_a_depthwise_kernel_of_keras_has_its_channels_last():
    (leaf,) = KERAS_DEPTHWISE
    theirs = np.arange(3 * 3 * 4).reshape(3, 3, 4, 1)
    ours = move(theirs, leaf.their_axes, leaf.our_axes, (3, 3, 1, 4))
    assert ours[2, 1, 0, 3] == theirs[2, 1, 3, 0]


def test_a_row_of_a_flattened_patch_is_row_column_color():
    theirs = np.arange(5 * 12).reshape(5, 12)  # width, (2 rows, 2 columns, 3 colors)
    ours = move(theirs, "d (p q c)", "p q c d", (2, 2, 3, 5))
    assert ours[1, 0, 2, 4] == theirs[4, 1 * 6 + 0 * 3 + 2]


def test_axes_of_size_one_come_and_go():
    theirs = np.arange(6).reshape(1, 1, 2, 3)
    assert move(theirs, "1 1 i o", "i o", (2, 3)).tolist() == theirs[0, 0].tolist()


def test_fused_rows_are_queries_then_keys_then_values():
    row = Row("a", "b", (Leaf(("/q", "/k", "/v"), "", "s i o", "(s o) i"),))
    pairs, unnamed = pair_names([row], ["a/q", "a/k", "a/v"])
    (pair,) = pairs
    assert unnamed == []
    assert pair.their_shape((2, 3)) == (9, 2)
    theirs = np.arange(18).reshape(9, 2)
    ours = pair.to_ours(theirs, (2, 3))
    assert ours["a/k"].tolist() == theirs[3:6].T.tolist()
    np.testing.assert_array_equal(pair.to_theirs(ours), theirs)


def test_heads_get_an_axis_of_their_own():
    row = Row("q", "query", (Leaf("", "", "i (a e)", "i a e"),))
    (pair,), _ = pair_names([row], ["q"], {"a": 3})
    assert pair.their_shape((2, 6)) == (2, 3, 2)
    theirs = np.arange(12).reshape(2, 3, 2)
    ours = pair.to_ours(theirs, (2, 6))["q"]
    assert ours[1, 2 * 2 + 1] == theirs[1, 2, 1]  # number 1 of head 2 of 3
    np.testing.assert_array_equal(pair.to_theirs({"q": ours}), theirs)
    with pytest.raises(ValueError, match="an axis of 7 does not tell"):
        pair.their_shape((2, 7))


def test_layers_that_share_a_name_are_stacked_in_their_order():
    paths = [f"blocks/{b}/dense/kernel" for b in range(11)]
    row = Row("blocks/{b}/dense", "block/Dense_0", (Leaf("/kernel", "/kernel", "i o", "o i"),))
    pairs, unnamed = pair_names([row], paths)
    assert (len(pairs), unnamed) == (1, [])
    assert pairs[0].their_shape((2, 3)) == (11, 3, 2)
    theirs = np.arange(66).reshape(11, 3, 2)
    ours = pairs[0].to_ours(theirs, (2, 3))
    assert ours["blocks/10/dense/kernel"].tolist() == theirs[10].T.tolist()  # "10" sorts before "2" as text
    np.testing.assert_array_equal(pairs[0].to_theirs(ours), theirs)


def test_one_layer_is_stacked_too():
    row = Row("blocks/{b}/norm", "block/LayerNorm_0", (Leaf("/scale", "/scale"),))
    (pair,), _ = pair_names([row], ["blocks/0/norm/scale"])
    assert pair.their_shape((4,)) == (1, 4)
    ours = pair.to_ours(np.arange(4)[None], (4,))
    assert ours["blocks/0/norm/scale"].tolist() == [0, 1, 2, 3]


def test_numbers_in_names_are_shifted_and_counted_through():
    paths = [f"stages/{s}/blocks/{b}/conv/kernel" for s in range(2) for b in range(11)]
    shifted, _ = pair_names([Row("stages/{s}/blocks/{b}/conv", "layer{s+1}.{b}", TORCH_CONV)], paths)
    assert [pair.theirs for pair in shifted][-1] == "layer2.10.weight"
    counted, _ = pair_names([Row("stages/{s}/blocks/{b}/conv", "dw_{#+1}", TORCH_CONV)], paths)
    theirs = {pair.ours[0]: pair.theirs for pair in counted}
    # block 2 of the first stage is the third, block 10 the eleventh, though "10" sorts before "2" as text
    assert theirs["stages/0/blocks/2/conv/kernel"] == "dw_3.weight"
    assert theirs["stages/0/blocks/10/conv/kernel"] == "dw_11.weight"
    assert theirs["stages/1/blocks/0/conv/kernel"] == "dw_12.weight"


def test_names_count_sums_of_layers_and_stages():
    """torchvision's VGG-11 numbers rectifiers and poolings too: two for each convolution, one for each stage."""
    counts = (1, 1, 2, 2, 2)
    paths = [f"stages/{s}/convolutions/{c}/kernel" for s, count in enumerate(counts) for c in range(count)]
    plain, _ = pair_names([Row("stages/{s}/convolutions/{c}", "features.{2#+s}", TORCH_CONV)], paths)
    assert [int(pair.theirs.split(".")[1]) for pair in plain] == [0, 3, 6, 8, 11, 13, 16, 18]
    normed, _ = pair_names([Row("stages/{s}/convolutions/{c}", "features.{3#+s+1}", TORCH_CONV)], paths)
    assert [int(pair.theirs.split(".")[1]) for pair in normed] == [1, 5, 9, 12, 16, 19, 23, 26]
    fewer, _ = pair_names([Row("conv{n}", "layer.{n-1}.{10-n}", TORCH_CONV)], ["conv1/kernel"])
    assert fewer[0].theirs == "layer.0.9.weight"


def test_paths_without_a_name_are_returned_and_a_table_that_names_one_twice_is_wrong():
    row = Row("stem", "conv1", TORCH_CONV)
    pairs, unnamed = pair_names([row], ["stem/kernel", "head/kernel"])
    assert ([pair.theirs for pair in pairs], unnamed) == (["conv1.weight"], ["head/kernel"])
    with pytest.raises(ValueError, match="two rows"):
        pair_names([row, row], ["stem/kernel"])


# The rules ------------------------------------------------------------------------------------------------------------

# A network that each family's rules convert, with the keywords that the rules' programs have.
SMALL_VGG = {"convolutions": (1, 2), "filters": (3, 4), "hidden": (6, 5)}
NETWORKS = {
    "cifar_resnet": ("cifar_resnet/8-b", {}, (8, 8), 3),
    "convnext": ("convnext/T", {"blocks": (1, 2), "widths": (8, 12)}, (16, 16), 3),
    "deit": (
        "deit/Ti4-distilled",
        {"epsilon": 1e-6, "width": 12, "depth": 2, "hidden": 20, "heads": 3},
        (8, 8),
        3,
    ),
    "efficientnet": ("efficientnet/B0", {"width_multiplier": 0.15}, (32, 32), 3),
    "mobilenet_v1": ("mobilenet_v1/0.25", {}, (32, 32), 3),
    "mobilenet_v2": ("mobilenet_v2/1.0", {"width_multiplier": 0.15}, (32, 32), 3),
    "resnet": ("resnet/50-32x4d", {"blocks": (1, 2, 1, 1), "filters": 16}, (32, 32), 3),
    "vgg": ("vgg/11", SMALL_VGG, (32, 32), 3),
    "vit": (
        "vit/Ti4",
        {"qkv_bias": False, "epsilon": 1e-5, "width": 12, "depth": 2, "hidden": 20, "heads": 3, "activation": "relu"},
        (8, 8),
        1,
    ),
}


# Networks that only some rules of a family convert, by what their source ends with.
OTHER_NETWORKS = {"with batch norm": ("vgg/11-bn", SMALL_VGG, (32, 32), 3)}


def network_of_rule(rule) -> str:
    """The key of the network that a rule converts, in NETWORKS or OTHER_NETWORKS."""
    ends = [end for end in OTHER_NETWORKS if rule.source.endswith(end)]
    return ends[0] if ends else rule.family


def draw_weights(key: str) -> Weights:
    """Initial values of a network, with statistics and zeros that are not what they were."""
    model, keywords, size, channels = (NETWORKS | OTHER_NETWORKS)[key]
    card = Card(model, keywords, 5, None, {"image_size": list(size), "channels": channels})
    network = network_of(card)
    params, stats = initial_values(network, seed=3)
    rng = np.random.default_rng(0)
    for tree in (params, stats):
        for leaf in leaves_by_path(Weights(tree, {}, card)).values():
            leaf += rng.uniform(0.25, 0.75, leaf.shape).astype(np.float32)
    return Weights(params, stats, card)


@pytest.fixture(scope="module")
def drawn():
    """Weights of each family and of each other network, drawn once."""
    return {key: draw_weights(key) for key in NETWORKS | OTHER_NETWORKS}


def test_every_family_with_a_rule_is_tested():
    assert sorted(NETWORKS) == rules.families()


@pytest.mark.parametrize("rule", rules.all_rules(), ids=lambda rule: rule.source)
def test_there_and_back_gives_the_same_bits(drawn, rule):
    key = network_of_rule(rule)
    weights = drawn[key]
    model, keywords, _, _ = (NETWORKS | OTHER_NETWORKS)[key]
    arrays = to_theirs(rule, weights.params, weights.stats, rule.find_letters(model, keywords))
    back = convert_arrays("theirs.npz", as_named(arrays), model=model, keywords=keywords).weights
    assert back.digest == Weights(weights.params, weights.stats, back.card).digest
    assert back.card.origin["program"] == rule.source


@pytest.mark.parametrize("family", NETWORKS)
def test_shapes_alone_tell_the_network(drawn, family):
    weights = drawn[family]
    keywords = {key: weights.card.keywords[key] for key in ("heads", "activation") if key in weights.card.keywords}
    named = as_named(under_their_names(weights, family))
    card = convert_arrays("theirs.npz", named, keywords=keywords).weights.card
    assert card.model == weights.card.model
    assert card.keywords == weights.card.keywords
    assert card.num_classes == 5


@pytest.mark.parametrize("family", NETWORKS)
def test_the_first_kernel_of_a_rule_sees_the_colors_of_an_image(drawn, family):
    shapes = shapes_by_text(network_of(drawn[family].card))
    assert shapes[find_rule(family).first_kernel][-2] == NETWORKS[family][3]


def test_a_named_size_is_told_by_its_name():
    """ViT-S/8 at 16 pixels: 384 wide, 12 blocks, MLPs of 1,536 units (Dosovitskiy et al. and Touvron et al.)."""
    shapes = {
        "to_patch_embedding.1.weight": (384, 192),
        "pos_embedding": (1, 5, 384),
        "mlp_head.1.weight": (7, 384),
        "transformer.layers.0.1.fn.net.0.weight": (1536, 384),
    }
    for block in range(12):
        shapes[f"transformer.layers.{block}.0.fn.to_qkv.weight"] = (1152, 384)
    guess = find_rule("vit").guess(shapes, {"heads": 6})
    assert (guess.model, guess.keywords, guess.image_size) == ("vit/S8", {}, (16, 16))
    assert guess.unseen["activation"] == ("gelu", "relu", "gelu_tanh")
    assert guess.unseen["heads"][:4] == (1, 2, 3, 4)  # divisors of 384


def test_imagenet_has_a_thousand_different_names_in_the_order_of_identifiers():
    names = class_names.imagenet()
    assert len(set(names)) == len(names) == 1000
    # Russakovsky et al.; the indices are those of torchvision and Keras
    assert (names[0], names[285], names[999]) == ("tench", "Egyptian cat", "toilet tissue")
    assert (names[134], names[517]) == ("crane (n02012849)", "crane (n03126707)")


def test_classes_of_published_sets_are_as_many_as_rules_say():
    for rule in rules.all_rules():
        for count, known in rule.classes.items():
            assert len(class_names.KNOWN[known]()) == count


def test_rules_keep_to_keys_that_a_card_has():
    for rule in rules.all_rules():
        assert rule.preprocessing.keys() <= {"mean", "std", "image_size", "fit", "interpolation"}
        assert rule.family in models.families()
        for file in rule.published:
            assert len(file.sha256) == 64
            assert {"source", "revision", "licence", "trained_on", "accuracy"} <= file.facts.keys()


def test_a_network_that_the_program_does_not_have_is_refused(drawn):
    network = functional(models.build("vit/test-pre_logits", 2, qkv_bias=False))
    params, stats = initial_values(network, 0)
    with pytest.raises(UserError, match="nothing there is like pre_logits/kernel"):
        to_theirs(find_rule("vit"), params, stats)
