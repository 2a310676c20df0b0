"""Freezing: what a pattern means, what goes with it, and patterns that do less or more than they seem to."""

import jax
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cnn_vit import trees
from cnn_vit.errors import UserError
from cnn_vit.models import build
from cnn_vit.nn.values import Network, functional
from cnn_vit.transfer.adapt.freezing import frozen_layers, frozen_masks


def tops(tree):
    """The first two components of the paths of the leaves that are True, as text."""
    return {trees.keys_text(path[:2]) for path in trees.paths_where(tree)}


def freeze(network, pattern, statistics="stored"):
    masks = frozen_masks(network, pattern, statistics)
    assert jax.tree.structure(masks) == jax.tree.structure(dict(params=network.params, stats=network.stats))
    return masks


@pytest.fixture(scope="module")
def resnet():
    return functional(build("cifar_resnet/test", 3))


@pytest.fixture(scope="module")
def vit():
    return functional(build("vit/test", 3, depth=12, image_size=16))


def declare_network(params, stats):
    """A network of shapes alone, by path."""

    def nest(paths):
        tree = {}
        for path in paths:
            branch = tree
            for key in path[:-1]:
                branch = branch.setdefault(key, {})
            branch[path[-1]] = jax.ShapeDtypeStruct((2,), "float32")
        return tree

    return Network(nest(params), nest(stats), {}, apply=None)


# What a pattern means -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "frozen", "trained"),
    [
        ("all but head", {"stem/kernel", "stages/0", "stages/1", "stages/2"}, {"head/kernel", "head/bias"}),
        ("stages/0..1", {"stages/0", "stages/1"}, {"stages/2", "stem/kernel", "head/kernel"}),
        (" stem ,stages/0..1 ", {"stem/kernel", "stages/0", "stages/1"}, {"stages/2", "stem_norm/scale"}),
        ("all but  head,stages/2", {"stem/kernel", "stem_norm/scale", "stages/0"}, {"head/bias", "stages/2"}),
        ("head/bias", {"head/bias"}, {"head/kernel", "stages/0"}),
        ("stages/1..", {"stages/1", "stages/2"}, {"stages/0", "head/kernel"}),
    ],
)
def test_a_pattern_freezes_what_it_names_and_the_rest_trains(resnet, pattern, frozen, trained):
    masks = freeze(resnet, pattern)
    assert frozen <= tops(masks["params"])
    assert not trained & tops(masks["params"])


def test_a_prefix_ends_where_a_component_ends(resnet):
    assert tops(freeze(resnet, "stem")["params"]) == {"stem/kernel"}  # and not stem_norm


def test_a_range_holds_both_ends_and_counts_as_numbers_do(vit):
    """As texts "10" and "11" would stand between "1" and "2"."""
    assert tops(freeze(vit, "blocks/2..10")["params"]) == {f"blocks/{i}" for i in range(2, 11)}
    assert tops(freeze(vit, "blocks/1")["params"]) == {"blocks/1"}


def test_a_range_may_stand_above_other_components(vit):
    paths = trees.paths_where(freeze(vit, "blocks/0..3/attention")["params"])
    assert {path[:3] for path in paths} == {("blocks", i, "attention") for i in range(4)}


def test_without_a_pattern_nothing_is_frozen(resnet):
    masks = freeze(resnet, None)
    assert not any(jax.tree.leaves(masks))
    assert frozen_layers(resnet, masks) == ()


def test_the_masks_part_a_network_by_hand_count(resnet):
    """The head of cifar_resnet/test has 32 x 3 weights and 3 biases."""
    masks = freeze(resnet, "all but head")
    frozen, trained = trees.split(resnet.params, masks["params"])
    assert trees.count(trained) == 32 * 3 + 3
    assert trees.count(frozen) == trees.count(resnet.params) - 99


def test_in_a_stage_what_none_so_far_names_is_frozen_and_what_freeze_names_always(resnet):
    def trained(*stages, freeze=None):
        masks = frozen_masks(resnet, freeze, "stored", stages)
        everything = {path[:2] for path in trees.shapes_by_path(resnet.params)}
        names = {trees.keys_text(path) for path in everything} - tops(masks["params"])
        assert any(jax.tree.leaves(masks["stats"]["stages"][0])) == ("stages/0" not in names)
        return names

    assert trained("head") == {"head/kernel", "head/bias"}
    assert trained("head", "stages/1..") == {"head/kernel", "head/bias", "stages/1", "stages/2"}
    stem = {"stem/kernel", "stem_norm/scale", "stem_norm/bias"}
    assert trained("head", "all") - stem == {"head/kernel", "head/bias", "stages/0", "stages/1", "stages/2"}
    assert trained("head", "all", freeze="stages/0..1") == {"head/kernel", "head/bias", "stages/2"} | stem


# Statistics and layers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("statistics", "is_frozen"), [("stored", True), ("recalibrate", True), ("update", False)])
def test_statistics_of_frozen_layers_are_frozen_unless_they_are_updated(resnet, statistics, is_frozen):
    masks = freeze(resnet, "stem_norm, stages/0", statistics)
    assert masks["stats"]["stem_norm"] == {"mean": is_frozen, "var": is_frozen}
    assert all(jax.tree.leaves(masks["stats"]["stages"][0])) == is_frozen
    assert not any(jax.tree.leaves(masks["stats"]["stages"][1]))


def test_a_norm_with_a_trained_bias_keeps_no_statistics(resnet):
    masks = freeze(resnet, "stem_norm/scale")
    assert masks["params"]["stem_norm"] == {"scale": True, "bias": False}
    assert masks["stats"]["stem_norm"] == {"mean": False, "var": False}
    assert frozen_layers(resnet, masks) == ()


def test_a_statistic_without_parameters_beside_it_follows_the_nearest_module_above():
    params = [("body", "block", "conv", "kernel"), ("body", "out", "kernel"), ("head", "kernel")]
    network = declare_network(params, [("body", "block", "norm", "inner", "mean"), ("body", "mean")])
    masks = freeze(network, "body/block")
    assert trees.paths_where(masks["stats"]) == {("body", "block", "norm", "inner", "mean")}
    masks = freeze(network, "body")
    assert trees.paths_where(masks["stats"]) == {("body", "block", "norm", "inner", "mean"), ("body", "mean")}
    masks = freeze(network, "body/out")
    assert trees.paths_where(masks["stats"]) == set()


def test_a_statistic_of_the_whole_network_trains_while_anything_does():
    network = declare_network([("body", "kernel"), ("head", "kernel")], [("mean",)])
    assert freeze(network, "all but head")["stats"] == {"mean": False}


def test_frozen_layers_are_the_modules_without_a_trained_parameter(resnet, vit):
    layers = frozen_layers(resnet, freeze(resnet, "stem_norm, stages/1, stages/2/blocks/0/conv1"))
    assert layers == (
        *("stages/1", "stages/1/blocks", "stages/1/blocks/0"),
        *(f"stages/1/blocks/0/{layer}" for layer in ("conv1", "conv2", "norm1", "norm2")),
        *("stages/2/blocks/0/conv1", "stem_norm"),
    )
    layers = frozen_layers(vit, freeze(vit, "blocks/0..10"))
    assert [layer for layer in layers if layer.count("/") == 1] == [f"blocks/{i}" for i in range(11)]


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("stagse/0", "there is no stagse; did you mean stages?"),
        ("body", "there is no body; this network has head, stages, stem, stem_norm"),
        ("stages/0..3", "there is no stages/3; stages has 0..2"),
        ("stages/3", "there is no stages/3; stages has 0..2"),
        ("stages/0-1", "there is no stages/0-1; stages has 0..2, and a range is written 0..1"),
        ("stages/00", "there is no stages/00; stages has 0..2"),
        ("stages/" + "9" * 30, "stages has 0..2"),
        ("stages/0..1/block", "there is no stages/0..1/block; did you mean stages/0..1/blocks?"),
        ("stem/0", "there is no stem/0; stem has kernel"),
        ("stem/kernel/0", "there is no stem/kernel/0; stem/kernel is a parameter itself"),
        ("stem_norm/mean", "there is no stem_norm/mean; stem_norm has bias, scale"),
        ("stages/2..0", r"the range 2..0 runs backwards; write 0..2"),
        ("stages/3..", "there is no stages/3; stages has 0..2, and a range is written 0..1"),
        ("stages/1.., stages/2", "'stages/1..' and 'stages/2' both name stages/2/blocks/0"),
        ("stages/0, stages/0..1", "'stages/0' and 'stages/0..1' both name stages/0/blocks/0/conv1/kernel"),
        ("all but head, head/bias", "'head' and 'head/bias' both name head/bias"),
        ("all, head", "'all' cannot stand among other parts"),
        ("stem, all but head", "'all but head' cannot stand among other parts"),
        ("", "'' is no part of a network"),
        ("stem,", "'' is no part of a network"),
        ("all but", "'' is no part of a network"),
        ("stages//0", "'stages//0' is no part of a network"),
        ("/stem", "'/stem' is no part of a network"),
        ("all", "leaves nothing to train"),
        ("head, stages, stem, stem_norm", "leaves nothing to train"),
        ("all but head, stages, stem, stem_norm", "freezes nothing"),
    ],
)
def test_a_pattern_that_does_not_fit_is_refused_in_one_sentence(resnet, pattern, sentence):
    with pytest.raises(UserError) as error:
        frozen_masks(resnet, pattern, "stored")
    assert sentence in str(error.value)
    assert str(error.value).startswith("pretrained.freeze=")
    assert len(str(error.value)) < 400


words = st.sampled_from(
    [
        "all",
        "all but",
        "head",
        "stem",
        "stages",
        "blocks",
        "kernel",
        "norm1",
        "0",
        "2",
        "0..1",
        "1..0",
        "..",
        "-1",
        "",
        "A",
    ]
)
prefixes = st.lists(words, min_size=1, max_size=4).map("/".join)
patterns = st.one_of(st.text(max_size=12), st.lists(prefixes, min_size=1, max_size=3).map(", ".join))


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(pattern=patterns, is_complement=st.booleans())
@example(pattern="stages/\u0661", is_complement=False)  # a digit that Python reads as 1
@example(pattern="stages/0..\u0661", is_complement=False)
def test_any_text_freezes_a_part_or_is_refused(resnet, pattern, is_complement):
    try:
        masks = frozen_masks(resnet, f"all but {pattern}" if is_complement else pattern, "stored")
    except UserError:
        return
    assert 0 < len(trees.paths_where(masks["params"])) < len(jax.tree.leaves(resnet.params))
    assert "\u0661" not in pattern


def test_a_layer_without_parameters_may_lie_inside_a_range_but_not_at_its_end():
    network = declare_network([("layers", i, "kernel") for i in (0, 2)] + [("head", "kernel")], [])
    assert tops(freeze(network, "layers/0..2")["params"]) == {"layers/0", "layers/2"}
    with pytest.raises(UserError, match=r"there is no layers/1; layers has 0\.\.2"):
        frozen_masks(network, "layers/0..1", "stored")
