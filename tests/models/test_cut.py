"""A network that is cut keeps its lower layers with their paths, and its head stands on what they compute."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import QUICK

from cnn_vit import models, trees
from cnn_vit.analysis.record import record_calls
from cnn_vit.errors import UserError
from cnn_vit.models._names import read_family
from cnn_vit.nn.values import functional, initial_values

SEVERAL = {  # keywords that give each family's smallest network several layers of each kind that a cut may name
    "cifar_resnet": {"blocks": 2},
    "cnn": {"filters": (4, 5, 6), "hidden": (7, 6)},
    "convnext": {"blocks": (2, 1)},
    "deit": {"depth": 3},
    "efficientnet": {"blocks": (1, 2)},
    "lenet": {"hidden": (8, 7), "field": 24},
    "mlp": {"hidden": (8, 7, 6)},
    "mobilenet_v1": {"blocks": (1, 2)},
    "mobilenet_v2": {"blocks": (1, 2)},
    "resnet": {"blocks": (2, 1)},
    "vgg": {},
    "vit": {"depth": 3},
}
FAMILIES = sorted(SEVERAL)
IMAGES = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)


def build_several(family, cut=None, **changes):
    return models.build(f"{family}/test", 3, image_size=16, cut=cut, **SEVERAL[family] | changes)


def shapes_of(network):
    """The shape of each parameter and statistic by its path, `params/stages/0/...`."""
    plain = functional(network)
    shapes = trees.shapes_by_path(dict(params=plain.params, stats=plain.stats))
    return {"/".join(map(str, path)): shape for path, shape in shapes.items()}


def layer_of(path):
    """The path of the layer that holds a value: `stages/0/conv` of `params/stages/0/conv/kernel`."""
    return path.partition("/")[2].rpartition("/")[0]


def is_inside(layer, outer):
    return f"{layer}/".startswith(f"{outer}/")


def starred(place):
    """A place with a star for each number: `stages/*`, as CUTS has it."""
    return "/".join("*" if part.isdecimal() else part for part in place.split("/"))


@functools.cache
def list_calls(family):
    """Paths of the layers of the network that is not cut, in the order in which they are called."""
    return [call.path for call in record_calls(build_several(family), IMAGES)]


PLACES = []
for family_of_place in FAMILIES:
    for layer_path in list_calls(family_of_place):
        if starred(layer_path) in read_family(family_of_place).cuts:
            PLACES.append((family_of_place, layer_path))


def test_every_family_can_be_cut_at_all_that_it_names():
    assert [family for family in models.families() if read_family(family).cuts] == FAMILIES
    for family in models.families():
        assert ("cut" in models.keywords(f"{family}/test")) == (family in FAMILIES)
    for family in FAMILIES:
        named = {starred(place) for of_family, place in PLACES if of_family == family}
        assert named == read_family(family).cuts.keys()


@pytest.mark.parametrize(("family", "place"), PLACES)
def test_a_cut_keeps_what_runs_up_to_its_place(family, place):
    """Their values have the paths and shapes that they have in the whole network, so that they can be loaded."""
    calls = list_calls(family)
    last_call = max(i for i, layer in enumerate(calls) if is_inside(layer, place))
    whole = shapes_of(build_several(family))
    expected = {path: shape for path, shape in whole.items() if calls.index(layer_of(path)) <= last_call}
    network = build_several(family, cut=place)
    new = ("head", *models.new_when_cut(f"{family}/test", place))
    shapes = shapes_of(network)
    assert {path: shape for path, shape in shapes.items() if layer_of(path) not in new} == expected
    assert {layer_of(path) for path in shapes if layer_of(path) in new} == set(new)
    scores = record_calls(network, IMAGES)[0].outputs
    assert (scores.shape, scores.dtype) == ((2, 3), jnp.float32)


@functools.cache
def whole_with_values(family):
    """Random parameters, statistics and images of the network that is not cut, and what each layer makes of them."""
    network = build_several(family)
    rng = np.random.default_rng(0)
    params, stats = initial_values(functional(network), seed=1)
    params = jax.tree.map(lambda leaf: leaf + rng.normal(0, 0.1, leaf.shape).astype(np.float32), params)
    stats = jax.tree.map(lambda leaf: leaf + rng.uniform(0, 0.5, leaf.shape).astype(np.float32), stats)
    images = rng.normal(size=(2, 16, 16, 3)).astype(np.float32)

    def run(params, stats, images):
        return {call.path: call.outputs for call in record_calls(network, images, params, stats)}

    return params, stats, images, jax.jit(run, compiler_options=QUICK)(params, stats, images)


def run_inner_layer(family, layer):
    """What a layer of the network that is not cut makes of the images."""
    return np.asarray(whole_with_values(family)[3][layer])


def take_values(declared, whole):
    """The values of the whole network for what is declared; zeros for the head, which is another one."""
    values = {}
    for key, branch in declared.items():
        if key == "head":
            values[key] = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), branch)
        else:
            values[key] = take_values(branch, whole[key]) if isinstance(branch, dict) else whole[key]
    return values


def cut_features(family, place):
    """What the head of the network that is cut sees, its lower layers having the values of the whole network."""
    params, stats, images, _ = whole_with_values(family)
    network = build_several(family, cut=place)
    plain = functional(network)
    initial_params, _ = initial_values(plain, seed=2)
    cut_params = take_values(plain.params, params)
    for layer in models.new_when_cut(f"{family}/test", place):
        cut_params[layer] = initial_params[layer]

    def run(params, stats, images):
        (head,) = [call for call in record_calls(network, images, params, stats) if call.path == "head"]
        return head.inputs["x"]

    return jax.jit(run, compiler_options=QUICK)(cut_params, take_values(plain.stats, stats), images)


def normalize(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


@pytest.mark.parametrize(
    ("family", "place", "layer"),
    [
        ("cifar_resnet", "stages/1", "stages/1"),
        ("cnn", "stages/1", "stages/1"),
        ("lenet", "conv1", "average_pool"),
        ("lenet", "conv2", "average_pool#2"),
        ("mobilenet_v1", "stages/1/blocks/0", "stages/1/blocks/0"),
        pytest.param("mobilenet_v2", "stages/1/blocks/0", "stages/1/blocks/0", marks=pytest.mark.slow),
        pytest.param("efficientnet", "stages/0", "stages/0", marks=pytest.mark.slow),
        ("resnet", "stages/0", "stages/0"),
        ("vgg", "stages/0", "stages/0"),
    ],
)
def test_the_head_stands_on_the_average_of_the_pixels(family, place, layer):
    inner = run_inner_layer(family, layer)
    assert inner.shape[1] * inner.shape[2] > 1
    np.testing.assert_allclose(cut_features(family, place), inner.mean((1, 2)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("family", "activate"), [("cnn", "relu"), ("lenet", "tanh"), ("mlp", "relu")])
def test_the_head_stands_on_the_hidden_layer(family, activate):
    inner = run_inner_layer(family, "hidden/layers/0")
    expected = np.tanh(inner) if activate == "tanh" else np.maximum(inner, 0)
    assert np.any(expected)
    np.testing.assert_allclose(cut_features(family, "hidden/layers/0"), expected, rtol=1e-5, atol=1e-6)


def test_the_head_of_a_vit_stands_on_the_class_token_behind_a_new_norm():
    tokens = run_inner_layer("vit", "blocks/1")
    np.testing.assert_allclose(cut_features("vit", "blocks/1"), normalize(tokens[:, 0]), rtol=1e-4, atol=1e-5)


def test_the_head_of_a_distilled_deit_stands_on_two_tokens_behind_a_new_norm():
    network = build_several("deit", cut="blocks/1", distilled=True)
    shapes = shapes_of(network)
    assert shapes["params/head/dist/kernel"] == shapes["params/head/cls/kernel"] == (8, 3)
    assert "params/dist_token" in shapes
    assert "params/blocks/2/norm1/scale" not in shapes


@pytest.mark.slow
def test_the_head_of_a_convnext_stands_on_the_average_behind_a_new_norm():
    pixels = run_inner_layer("convnext", "stages/0")
    assert pixels.shape[1] * pixels.shape[2] > 1
    expected = normalize(pixels.mean((1, 2)))
    np.testing.assert_allclose(cut_features("convnext", "stages/0"), expected, rtol=1e-4, atol=1e-5)


def test_the_blocks_of_a_convnext_that_are_kept_skip_as_often_as_before():
    network = models.build("convnext/test", 3, blocks=(2, 3), stochastic_depth=0.4, cut="stages/1/blocks/0")
    rates = [block.skip.rate for stage in network.stages for block in stage.blocks]
    np.testing.assert_allclose(rates, [0.0, 0.1, 0.2])


def test_a_vit_loses_what_reads_the_tokens_and_averages_them():
    changes = {"pool": "attention", "pre_logits": True}
    whole, cut = (build_several("vit", cut=place, **changes) for place in (None, "blocks/1"))
    lost = {path.split("/")[1] for path in shapes_of(whole).keys() - shapes_of(cut).keys()}
    assert lost == {"blocks", "map_head", "pre_logits"}
    assert shapes_of(cut).keys() == shapes_of(build_several("vit", cut="blocks/1", pool="average")).keys()


def test_the_blocks_of_a_vit_that_are_kept_skip_as_often_as_before():
    network = build_several("vit", cut="blocks/1", stochastic_depth=0.2)
    assert [block.skip.rate for block in network.blocks] == [0.0, 0.1]


def test_the_blocks_of_an_efficientnet_that_are_kept_skip_as_often_as_before():
    network = models.build("efficientnet/B0", 3, cut="stages/2/blocks/0", stochastic_depth=0.32)
    rates = [block.skip.rate for stage in network.stages for block in stage.blocks]
    np.testing.assert_allclose(rates, [0, 0.02, 0.04, 0.06])  # of 16 blocks


def test_a_cut_leaves_the_parameters_of_the_lower_layers():
    """By hand: a stem of 3x3x3x16, three blocks of two 3x3x16x16, a norm behind each, a head of 16 x 10."""
    network = functional(models.build("cifar_resnet/20", 10, cut="stages/0"))
    assert trees.count(network.params) == 432 + 32 + 6 * (2304 + 32) + 170


@pytest.mark.parametrize(
    ("name", "cut", "sentence"),
    [
        (
            "resnet/18",
            "stages/4",
            "model.cut='stages/4' is not a place .*; there is stages/0, stages/1, stages/2, stages/3",
        ),
        ("cifar_resnet/20", "stages/0/blocks/3", "there is stages/0, .*, stages/0/blocks/2, ..., stages/2/blocks/2$"),
        ("cifar_resnet/20", "stem", "model.cut='stem' is not a place"),
        ("mobilenet_v1/1.0", "stages/00", "model.cut='stages/00' is not a place"),
        ("vgg/11", "head", "there is stages/0, .*stages/4, dense1, dense2$"),
        ("vit/Ti16", "blocks/12", "there is blocks/0, .*blocks/5, ..., blocks/11$"),
        ("cnn/small", "hidden/layers/0", "there is stages/0, stages/1$"),
        ("lenet/5", "conv3", "there is conv1, conv2, hidden/layers/0, hidden/layers/1$"),
        ("mlp/small", "", "there is hidden/layers/0, hidden/layers/1$"),
        ("mlp/small", 1, "model.cut=1 is not a text or none"),
    ],
)
def test_an_unknown_place_is_refused_with_those_that_there_are(name, cut, sentence):
    with pytest.raises(UserError, match=sentence):
        models.build(name, 10, cut=cut)


def test_a_network_without_a_place_says_so():
    with pytest.raises(UserError, match=r"there is none$"):
        models.build("mlp/small", 10, hidden=(), cut="hidden/layers/0")


def test_only_the_last_norm_of_a_vit_is_new():
    assert models.new_when_cut("vit/B16", "blocks/10") == ("norm",)
    assert models.new_when_cut("vit/B16", None) == ()
    assert models.new_when_cut("resnet/50", "stages/2/blocks/1") == ()
    with pytest.raises(
        UserError, match=r"model.cut='blocks/1' .* resnet/\* .* there is stages/\*, stages/\*/blocks/\*"
    ):
        models.new_when_cut("resnet/50", "blocks/1")
