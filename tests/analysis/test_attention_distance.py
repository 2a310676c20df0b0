"""How far attention reads: by hand for a few patches, and from weights that are computed apart."""

import math

import jax
import numpy as np
import pytest

from cnn_vit.analysis.attention import attention_weights, grid_distances, measure_distances, uniform_distance
from cnn_vit.analysis.record import Call
from cnn_vit.errors import UserError
from cnn_vit.models import build
from cnn_vit.nn.attention import attend
from cnn_vit.nn.values import functional, initial_values


def test_distances_lie_between_patches_that_are_numbered_row_by_row():
    """By hand for 2 x 3 patches: patch 0 lies top left, patch 5 bottom right, 1 down and 2 to the right."""
    distances = grid_distances((2, 3))
    assert distances[0].tolist() == pytest.approx([0, 1, 2, 1, math.sqrt(2), math.sqrt(5)])
    assert distances[5].tolist() == distances[0][::-1].tolist()


@pytest.mark.parametrize(
    ("grid", "distance"),
    [((1, 2), 0.5), ((2, 2), (1 + 1 + math.sqrt(2)) / 4), ((40, 40), 0.5214 * 40)],
)
def test_a_head_that_reads_all_alike_has_the_mean_distance_of_all_pairs(grid, distance):
    """The last is that of two random points in a square: (2 + sqrt(2) + 5 asinh(1)) / 15 = 0.5214 of its side."""
    assert (2 + math.sqrt(2) + 5 * math.asinh(1)) / 15 == pytest.approx(0.5214, abs=1e-4)
    assert uniform_distance(grid) == pytest.approx(distance, rel=2e-3)


def make_vit(**changes):
    """A network of 3 x 3 patches with two blocks of two heads, and its values."""
    keywords = {"image_size": 12, "channels": 1, "depth": 2} | changes
    network = build("vit/test", 3, **keywords)
    return network, *initial_values(functional(network), 0)


IMAGES = np.random.default_rng(0).normal(size=(3, 12, 12, 1)).astype(np.float32)


@pytest.mark.parametrize("changes", [{}, {"pool": "average"}, {"fused": True}])
def test_a_head_without_keys_reads_all_patches_alike(changes):
    """Where all keys are 0 all weights are equal; a class token changes nothing in the mean over patches."""
    network, params, stats = make_vit(**changes)
    for block in params["blocks"].values():
        block["attention"]["key"] = jax.tree.map(np.zeros_like, block["attention"]["key"])
    heads = measure_distances(network, params, stats, IMAGES, (3, 3))
    assert [(head.block, head.head) for head in heads] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert heads[0].path == "blocks/0/attention/attend"
    for head in heads:
        assert head.distance == pytest.approx(uniform_distance((3, 3)), rel=1e-5)


def test_distances_are_those_of_the_softmax_of_queries_and_keys():
    """The first block by hand: positions and patches, norm, queries and keys, softmax, without the class token."""
    network, params, stats = make_vit()
    block = params["blocks"][0]
    for name in ("query", "key"):  # larger weights than the initial ones, so that heads differ from uniform ones
        block["attention"][name]["kernel"] = block["attention"][name]["kernel"] * 8
    patches = IMAGES.reshape(3, 3, 4, 3, 4).transpose(0, 1, 3, 2, 4).reshape(3, 9, 16)
    embed = jax.tree.leaves(params["patches"])
    (kernel,) = [value.reshape(16, 8) for value in embed if value.size == 128]
    (bias,) = [value for value in embed if value.size == 8]
    tokens = np.concatenate([np.broadcast_to(params["cls_token"], (3, 1, 8)), patches @ kernel + bias], 1)
    (table,) = jax.tree.leaves(params["pos_embed"])
    tokens = tokens + table
    normalized = (tokens - tokens.mean(-1, keepdims=True)) / np.sqrt(tokens.var(-1, keepdims=True) + 1e-6)
    normalized = normalized * block["norm1"]["scale"] + block["norm1"]["bias"]
    expected = []
    for head in range(2):
        features = slice(4 * head, 4 * head + 4)
        query, key = (
            (normalized @ block["attention"][name]["kernel"] + block["attention"][name]["bias"])[..., features]
            for name in ("query", "key")
        )
        scores = query @ key.transpose(0, 2, 1) / 2  # sqrt(4) = 2
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        weights = (scores / scores.sum(-1, keepdims=True))[:, 1:, 1:]
        expected.append(float((weights * grid_distances((3, 3))).sum() / weights.sum()))
    heads = measure_distances(network, params, stats, IMAGES, (3, 3))
    assert [head.distance for head in heads[:2]] == pytest.approx(expected, rel=1e-4)
    assert abs(expected[0] - uniform_distance((3, 3))) > 0.01


def test_the_two_tokens_of_a_distilled_network_that_are_no_patches_count_for_nothing():
    network = build("deit/test-distilled", 3, image_size=12, channels=1)
    params, stats = initial_values(functional(network), 0)
    for block in params["blocks"].values():
        block["attention"]["key"] = jax.tree.map(np.zeros_like, block["attention"]["key"])
    heads = measure_distances(network, params, stats, IMAGES, (3, 3))
    assert len(heads) > 1
    for head in heads:
        assert head.distance == pytest.approx(uniform_distance((3, 3)), rel=1e-5)


@pytest.mark.parametrize("fused", [False, True])
def test_the_weights_are_those_of_the_mask_and_bias_of_the_call(fused):
    """Two tokens with equal scores: a bias of log 3 makes 3 to 1 of them, and a mask leaves one alone."""
    zeros = np.zeros((1, 2, 1, 4), np.float32)
    bias = np.log(np.array([[[[3, 1], [1, 1]]]], np.float32))
    mask = np.array([[[[True, True], [False, True]]]])

    def run(inputs):
        return attend(**inputs)

    def weights_of(**changes):
        inputs = {"q": zeros, "k": zeros, "v": zeros, "mask": None, "bias": None, "drop": None, "fused": fused}
        call = Call("attend", "attend", attend, inputs | changes)
        return attention_weights(call, run)[0, 0].tolist()

    assert weights_of() == [[0.5, 0.5], [0.5, 0.5]]
    assert weights_of(bias=bias) == [pytest.approx([0.75, 0.25]), [0.5, 0.5]]
    assert weights_of(mask=mask) == [[0.5, 0.5], [0, 1]]


def test_other_values_of_the_same_network_compile_nothing(monkeypatch):
    """The weights are read while a program is traced: once for each of the two blocks, and never again."""
    network, params, stats = make_vit()
    traced = []

    def attend_and_count(call, run):
        traced.append(call.path)
        return attention_weights(call, run)

    monkeypatch.setattr("cnn_vit.analysis.attention.attention_weights", attend_and_count)
    first = measure_distances(network, params, stats, IMAGES, (3, 3))
    larger = jax.tree.map(lambda value: 3 * value, params)
    second = measure_distances(network, larger, stats, IMAGES, (3, 3))
    assert traced == ["blocks/0/attention/attend", "blocks/1/attention/attend"]
    assert [head.path for head in second] == [head.path for head in first]
    assert all(abs(after.distance / before.distance - 1) > 1e-4 for before, after in zip(first, second, strict=True))


@pytest.mark.parametrize("name", ["cnn/test", "vit/test"])
def test_a_network_without_attention_among_so_many_patches_is_refused(name):
    network = build(name, 3, image_size=12, channels=1)
    with pytest.raises(UserError, match="this network has no attention among 2 x 2 patches; take a vit"):
        measure_distances(network, *initial_values(functional(network), 0), IMAGES, (2, 2))
