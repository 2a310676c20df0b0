"""Beside a trained network stands the one that it began as: of its run's seed, without scores of a head of zeros."""

import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from test_show import make_network

from cnn_vit.analysis.shift import measure_shift
from cnn_vit.nn.values import initial_values
from cnn_vit.studies import explain
from cnn_vit.training import trained as loading


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """An image of noise, 8x8 gray."""
    path = tmp_path_factory.mktemp("photos") / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)).save(path)
    return str(path)


def test_a_vit_begins_with_a_head_of_zeros_whose_scores_are_left_out(photo):
    network = make_network("vit/test", patch=2)
    compared = explain.compare_shift(network, [photo], (2, 2))
    assert compared.has_zero_head
    assert math.isnan(compared.untrained.consistency)
    assert math.isnan(compared.untrained.largest_change)
    left_out = [layer.path for layer in compared.untrained.layers if math.isnan(layer.invariance)]
    assert left_out == ["head", ""]
    assert not any(math.isnan(layer.invariance) for layer in compared.trained.layers)


def test_the_scores_of_a_cnn_stay(photo):
    compared = explain.compare_shift(make_network("cnn/test"), [photo], (2, 2))
    assert not compared.has_zero_head
    assert compared.untrained.consistency in (0, 1)
    assert compared.start == "initial values of seed 0"


@pytest.mark.parametrize(
    ("head", "is_zero"),
    [
        ({"kernel": np.zeros((2, 3)), "bias": np.ones(3)}, True),  # every image then has the scores 1, 1, 1
        ({"kernel": np.eye(2), "bias": np.zeros(2)}, False),
        ({"cls": {"kernel": np.zeros((2, 3))}, "dist": {"kernel": np.zeros((2, 3))}}, True),
        ({"cls": {"kernel": np.zeros((2, 3))}, "dist": {"kernel": np.ones((2, 3))}}, False),
        ({}, False),
    ],
)
def test_a_head_begins_as_zeros_where_all_its_kernels_do(head, is_zero):
    assert explain.begins_as_zeros(head) == is_zero


@pytest.mark.parametrize(
    ("weights", "words"), [(None, "before training"), ("net.safetensors", "initial values of seed 7")]
)
def test_the_initial_values_are_of_the_seed_of_the_run(photo, tmp_path, monkeypatch, weights, words):
    network = replace(make_network("cnn/test"), run=tmp_path)
    monkeypatch.setattr(loading.reader, "read_settings", lambda run: {"seed": 7, "pretrained.weights": weights})
    compared = explain.compare_shift(network, [photo], (2, 2))
    assert compared.start == words
    images = explain.normalize(network, compared.images)
    module = explain.forward.build_network(network.spec)
    expected = measure_shift(module, *initial_values(network.network, 7), images, shift=(2, 2))
    assert [layer.invariance for layer in compared.untrained.layers] == [layer.invariance for layer in expected.layers]
    assert compared.untrained.largest_change == expected.largest_change
    other = measure_shift(module, *initial_values(network.network, 0), images, shift=(2, 2))
    assert other.largest_change != expected.largest_change
