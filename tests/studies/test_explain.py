"""Beside a trained network stands the one that it began as: of its run's seed, without scores of a head of zeros."""

import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from test_show import make_network

from cnn_vit.__main__ import main
from cnn_vit.analysis.shift import measure_shift
from cnn_vit.cli import _network
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
    head = network.params["head"]
    learned = head | {"kernel": np.random.default_rng(1).normal(size=head["kernel"].shape).astype(np.float32)}
    network = replace(network, params=network.params | {"head": learned})
    compared = explain.compare_shift(network, [photo], (2, 2))
    assert compared.has_zero_head
    assert math.isnan(compared.untrained.consistency)
    assert math.isnan(compared.untrained.largest_change)
    left_out = [layer.path for layer in compared.untrained.layers if math.isnan(layer.invariance)]
    assert left_out == ["head", ""]
    assert not any(math.isnan(layer.invariance) for layer in compared.trained.layers)


def test_a_folder_of_many_images_goes_through_a_few_at_a_time_and_the_bar_counts_them(tmp_path, monkeypatch):
    """7 images in batches of 3, 3 and 1, for the trained network and for the untrained one."""
    rng = np.random.default_rng(0)
    for number in range(7):
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(tmp_path / f"{number}.png")
    network = make_network("cnn/test")
    whole = explain.compare_shift(network, [str(tmp_path)], (2, 2))
    shown = []
    monkeypatch.setattr(explain.Progress, "update", lambda self, step: shown.append((step, self._total)))
    monkeypatch.setattr("cnn_vit.analysis.shift.MOST_PIXELS", 3 * 64)
    compared = explain.compare_shift(network, [str(tmp_path)], (2, 2))
    assert shown == [(step, 14) for step in (3, 6, 7, 10, 13, 14)]
    for name in ("trained", "untrained"):
        report, expected = getattr(compared, name), getattr(whole, name)
        assert [layer.invariance for layer in report.layers] == pytest.approx(
            [layer.invariance for layer in expected.layers], rel=1e-5
        )


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
    assert (compared.start, compared.is_before_training) == (words, weights is None)
    images = explain.prepare_images(network, compared.images)
    module = explain.forward.build_network(network.spec)
    expected = measure_shift(module, *initial_values(network.network, 7), images, shift=(2, 2))
    assert [layer.invariance for layer in compared.untrained.layers] == [layer.invariance for layer in expected.layers]
    assert compared.untrained.largest_change == expected.largest_change
    other = measure_shift(module, *initial_values(network.network, 0), images, shift=(2, 2))
    assert other.largest_change != expected.largest_change


@pytest.mark.parametrize(
    ("model", "keywords", "shift"),
    [
        ("vit/test", {"patch": 4}, (4, 4)),
        ("vit/test", {"patch": 1}, (2, 2)),
        ("vit/test", {"patch": 8}, (2, 2)),  # one patch: no shift of an 8x8 image is whole in it
        ("cnn/test", {}, (2, 2)),
        ("mlp/test", {}, (2, 2)),
        ("resnet/test", {}, (2, 2)),
    ],
)
def test_the_shift_is_whole_in_the_first_map_where_the_image_has_room_for_it(model, keywords, shift):
    assert explain.choose_shift(make_network(model, **keywords)) == shift


def test_a_shift_is_suggested_only_where_another_leaves_a_layer_with_a_map(photo):
    suggested = {}
    for model, keywords in (("vit/test", {"patch": 4}), ("vit/test", {"patch": 8}), ("cnn/test", {}), ("mlp/test", {})):
        compared = explain.compare_shift(make_network(model, **keywords), [photo], (2, 2))
        suggested[model, keywords.get("patch")] = explain.suggest_shift(compared)
    assert suggested == {
        ("vit/test", 4): (4, 4),
        ("vit/test", 8): None,  # its map is one place
        ("cnn/test", None): None,
        ("mlp/test", None): None,
    }


def test_of_a_shift_that_no_map_can_follow_the_flag_that_helps_is_said(photo, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(_network, "load_network", lambda args: make_network("vit/test", patch=4))
    monkeypatch.chdir(tmp_path)
    remedy = "--shift=4,4"
    assert main(["explain", photo, "--method=shift", "--workdir=run", "--shift=2,2"]) == 0
    sentence = f"no layer has a map of which this shift is a whole number of pixels; give {remedy}"
    assert sentence in capsys.readouterr().out
    assert f"With <code>{remedy}</code> this network has maps." in (tmp_path / "run" / "shift.html").read_text(
        encoding="utf-8"
    )
    assert main(["explain", photo, "--method=shift", "--workdir=run"]) == 0
    assert sentence not in capsys.readouterr().out
    page = (tmp_path / "run" / "shift.html").read_text(encoding="utf-8")
    assert f"--method=shift {remedy} --workdir=run" in page
    assert "No layer of this network has a map" not in page
