"""How layers answer a shift: exact where the padding is what the shift brings in, wrong at the border elsewhere."""

import math

import numpy as np
import pytest

from cnn_vit.analysis import shift as analysis_shift
from cnn_vit.analysis.shift import measure_shift, shift_images
from cnn_vit.errors import UserError
from cnn_vit.models import build
from cnn_vit.nn.values import functional, initial_values


def measure(images, *, shift=(2, 2), motion="around", **changes):
    """Measures a small network with random filters and without normalization."""
    keywords = {"batch_norm": False, "head": "average", "pooling": "none", "channels": 1} | changes
    network = build("cnn/test", 3, image_size=12, **keywords)
    params, stats = initial_values(functional(network), 0)
    return measure_shift(network, params, stats, images, shift=shift, motion=motion)


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).normal(size=(4, 14, 14, 1)).astype(np.float32)


def test_each_exact_kind_is_exact_for_one_meaning_of_a_shift_and_not_for_the_other(noise):
    """Circular padding is what a shift around brings in; without padding a window reads its own pixels alone."""
    largest = {}
    for name, changes in {"circular": {"padding_kind": "circular"}, "valid": {"padding": 0}}.items():
        for motion, images in (("around", noise[:, :12, :12]), ("window", noise)):
            report = measure(images, motion=motion, **changes)
            errors = [layer.equivariance for layer in report.layers if layer.kind == "Conv"]
            assert len(errors) == 2
            largest[name, motion] = max(errors)
    assert max(largest["circular", "around"], largest["valid", "window"]) <= 1e-6
    assert min(largest["circular", "window"], largest["valid", "around"]) > 0.1


def test_zeros_break_a_layer_at_the_border_and_one_pixel_farther_inside_with_the_next(noise):
    """By hand for 12 pixels and a shift by 2: layer 1 is wrong at 0 and 11, and at 2 and 1, where these came to lie."""
    report = measure(noise[:, :12, :12])
    first, second = (layer.errors for layer in report.layers if layer.kind == "Conv")
    wrong = [[pixel for pixel in range(12) if errors[pixel, 7] > 1e-3] for errors in (first, second)]
    assert wrong == [[0, 1, 2, 11], [0, 1, 2, 3, 10, 11]]
    assert second[5:9, 5:9].max() <= 1e-6


@pytest.mark.parametrize("motion", ["around", "window"])
def test_errors_are_of_all_images_however_few_go_through_at_once(noise, motion, monkeypatch):
    """In batches of 3 and 1: a last batch is filled up, and what fills it counts for nothing."""
    images = noise * np.array([1, 2, 3, 4]).reshape(4, 1, 1, 1)  # the last one has the most to say
    images = images if motion == "window" else images[:, :12, :12]
    whole = measure(images, motion=motion)
    sizes = []
    monkeypatch.setattr(analysis_shift, "choose_batch", lambda shape: 3)
    find_strides = analysis_shift.find_strides
    monkeypatch.setattr(
        analysis_shift, "find_strides", lambda calls: sizes.append(len(calls[0].outputs)) or find_strides(calls)
    )
    report = measure(images, motion=motion)
    assert sizes == [6, 6]  # the images and the shifted ones
    assert (report.consistency, report.largest_change) == (whole.consistency, pytest.approx(whole.largest_change))
    for layer, expected in zip(report.layers, whole.layers, strict=True):
        assert layer.invariance == pytest.approx(expected.invariance, rel=1e-6)
        assert layer.equivariance == (expected.equivariance and pytest.approx(expected.equivariance, rel=1e-6))
        if expected.errors is not None:
            np.testing.assert_allclose(layer.errors, expected.errors, rtol=1e-4, atol=1e-6)


def test_features_move_and_their_circular_average_stays(noise):
    report = measure(noise[:, :12, :12], padding_kind="circular")
    assert report.layers[-1].path == ""
    assert report.layers[-1].equivariance is None
    assert report.layers[-1].invariance <= 1e-6
    assert report.layers[-2].kind != "CNN"
    assert min(layer.invariance for layer in report.layers if layer.kind == "Conv") > 0.3
    assert (report.consistency, report.largest_change <= 1e-5) == (1.0, True)


@pytest.mark.parametrize(("shift", "is_whole"), [((2, 2), True), ((1, 2), False), ((0, 4), True)])
def test_behind_a_pooling_of_two_only_even_shifts_are_whole(noise, shift, is_whole):
    report = measure(noise[:, :12, :12], shift=shift, padding_kind="circular", pooling="max")
    (pooling,) = [layer for layer in report.layers if layer.kind == "max_pool"]
    assert pooling.stride == 2
    assert (pooling.equivariance is not None) == is_whole
    if is_whole:
        assert pooling.equivariance <= 1e-6


def test_a_blurred_circular_network_moves_by_whole_strides(noise):
    report = measure(noise[:, :12, :12], padding_kind="circular", pooling="max_blur")
    errors = [layer.equivariance for layer in report.layers if layer.kind in ("Conv", "blur_pool")]
    assert [layer.stride for layer in report.layers if layer.kind in ("Conv", "blur_pool")] == [1, 2, 2]
    assert max(errors) <= 1e-6


def test_a_window_shows_the_same_pixels_farther_down_and_right(noise):
    first, second = shift_images(noise, (2, 1), "window")
    assert first.shape == second.shape == (4, 12, 13, 1)
    np.testing.assert_array_equal(second[:, 2:, 1:], first[:, :-2, :-1])


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        ({"motion": "arround"}, "no motion 'arround'; did you mean around"),
        ({"shift": (14, 0)}, "a shift of 14, 0 pixels does not fit images of 14x14; make it smaller"),
        ({"shift": (-1, 0)}, "a shift of -1, 0 pixels does not fit"),
    ],
)
def test_what_is_no_shift_is_refused(noise, keywords, sentence):
    words = {"shift": (2, 2), "motion": "around"} | keywords
    with pytest.raises(UserError, match=sentence):
        shift_images(noise, words["shift"], words["motion"])


def test_an_error_relative_to_a_layer_of_zeros_is_undefined(noise):
    """0 / 0 is no error of 0: the last norm of each block begins with a scale of 0, and says nothing of any image."""
    network = build("resnet/test", 3, image_size=12, channels=1, zero_last=True)
    report = measure_shift(network, *initial_values(functional(network), 0), noise[:, :12, :12], shift=(4, 4))
    silent = [layer for layer in report.layers if layer.path.endswith("/norm2")]
    assert len(silent) == 4
    assert all(math.isnan(layer.invariance) for layer in silent)
    with_map = [layer for layer in silent if layer.errors is not None]
    assert with_map
    for layer in with_map:
        assert math.isnan(layer.equivariance)
        assert math.isnan(layer.center)
        assert np.isnan(layer.errors).all()
    others = [layer for layer in report.layers if not layer.path.endswith("/norm2")]
    assert min(layer.invariance for layer in others) > 0  # false of nan, too


@pytest.fixture(scope="module")
def transformer():
    """A Vision Transformer of 4-pixel patches for 16 pixels, as many tokens as pixels a side, with its values."""
    network = build("vit/test", 3, image_size=16, channels=1)
    params, stats = initial_values(functional(network), 0)
    params["head"]["kernel"] = np.random.default_rng(1).normal(size=params["head"]["kernel"].shape).astype(np.float32)
    return network, params, stats


@pytest.mark.parametrize(("shift", "is_whole"), [((4, 8), True), ((4, 2), False)])
def test_tokens_without_positions_move_with_whole_patches(transformer, shift, is_whole):
    """A shift by whole patches only exchanges tokens, which attention without positions does not notice."""
    network, params, stats = transformer
    bare = params | {"pos_embed": {"embedding": np.zeros_like(params["pos_embed"]["embedding"])}}
    images = np.random.default_rng(0).normal(size=(3, 16, 16, 1)).astype(np.float32)
    reports = {}
    for name, values in (("bare", bare), ("learned", params)):
        reports[name] = measure_shift(network, values, stats, images, shift=shift)
    kinds = {layer.kind for layer in reports["bare"].layers if layer.stride == 4}
    assert {"PatchEmbed", "Attention", "attend", "LayerNorm"} <= kinds
    for layer, learned in zip(reports["bare"].layers, reports["learned"].layers, strict=True):
        if layer.stride is None:
            continue
        assert layer.stride == 4  # none is taken for an image, though 16 tokens are as many as its rows
        assert (layer.equivariance is not None) == is_whole
        if is_whole:
            assert layer.errors.shape == (4, 4)
            assert layer.equivariance <= 1e-5
            assert (learned.equivariance > 1e-4) == (layer.kind != "PatchEmbed"), layer.path
    if is_whole:
        assert reports["bare"].layers[-1].invariance <= 1e-5 < reports["learned"].layers[-1].invariance
