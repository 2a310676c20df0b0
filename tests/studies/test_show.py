"""What can be looked at of a trained network: filters and maps, the same numbers before training as were drawn."""

import dataclasses
import re

import numpy as np
import pytest
from PIL import Image

from cnn_vit.errors import UserError
from cnn_vit.nn.values import initial_values
from cnn_vit.reports import layer_drawings
from cnn_vit.studies import show
from cnn_vit.training import trained
from cnn_vit.training.forward import NetworkSpec, get_network
from cnn_vit.training.rules import RuleSpec
from cnn_vit.training.trained import Trained

SIDE = 8


def make_network(model, channels=1, **keywords):
    """A network whose values are those of seed 0, but its first kernel twice as large: as if training had done that."""
    spec = NetworkSpec(
        model=model,
        keywords=tuple(sorted(keywords.items())),
        num_classes=3,
        image_shape=(SIDE, SIDE, channels),
        dtype="float32",
        loss=RuleSpec("softmax"),
    )
    params, stats = initial_values(get_network(spec), 0)
    preprocessing = {
        "mean": [0.5] * channels,
        "std": [0.25] * channels,
        "image_size": (SIDE, SIDE),
        "channels": channels,
        "fit": "crop",
        "interpolation": "bilinear",
        "levels": None,
        "max_pixels": 10**6,
    }
    return Trained(spec, params, stats, ("a", "b", "c"), preprocessing)


def test_filters_are_the_first_layers_kernels_before_and_after():
    network = make_network("cnn/test", channels=3)
    kernel = network.params["stages"][0]["convolutions"][0]["kernel"]
    before = kernel.copy()
    kernel *= 3
    comparison = show.compare_filters(network)
    assert comparison.layer == "stages/0/convolutions/0"
    np.testing.assert_array_equal(comparison.before, np.moveaxis(before, -1, 0))
    np.testing.assert_array_equal(comparison.after, np.moveaxis(3 * before, -1, 0))
    assert comparison.change == pytest.approx(2)  # 3 times the length is 2 lengths away
    assert comparison.start == "initial values of seed 0"
    text = layer_drawings.draw_filters(comparison)
    assert "8 filters of 3 x 3 pixels and 3 channels." in text
    # A file of weights says nothing of what its training began with.
    sentence = "Their distance from initial values of seed 0 is 2 times the length of those."
    assert comparison.change_sentence == sentence
    assert "Their distance from initial values of seed 0" in text
    assert "Training moved" not in text


@pytest.mark.parametrize(
    ("weights", "start", "sentence"),
    [
        (None, "before training", "Training moved them by 1.4 times the length of the initial values."),
        (
            "a.npz",
            "initial values of seed 7",
            "Their distance from initial values of seed 7 is 1.4 times the length of",
        ),
    ],
)
def test_the_values_before_are_of_the_seed_of_the_run_and_called_so_where_its_training_began_with_others(
    monkeypatch, tmp_path, weights, start, sentence
):
    network = dataclasses.replace(make_network("mlp/test"), run=tmp_path)
    monkeypatch.setattr(trained.reader, "read_settings", lambda run: {"seed": 7, "pretrained.weights": weights})
    comparison = show.compare_filters(network)
    drawn, _ = initial_values(network.network, 7)
    weights_before = np.asarray(drawn["hidden"]["layers"][0]["kernel"])
    np.testing.assert_array_equal(comparison.before[2, 1, 5, 0], weights_before[1 * SIDE + 5, 2])
    assert comparison.start == start
    # Both are drawn with the same variance and share nothing: their difference is about sqrt(2) times as long as each.
    assert comparison.change == pytest.approx(2**0.5, rel=0.1)
    assert dataclasses.replace(comparison, change=1.4).change_sentence.startswith(sentence)


def test_filters_of_two_channels_are_drawn_as_their_means_and_the_largest_mean_has_the_strongest_color(monkeypatch):
    kernels = []
    draw = layer_drawings.plots.signed_maps

    def signed_maps(values, *, columns, largest=None):
        kernels.append((values, largest))
        return draw(values, columns=columns, largest=largest)

    monkeypatch.setattr(layer_drawings.plots, "signed_maps", signed_maps)
    before = np.zeros((1, 1, 2, 2), np.float32)
    after = np.array([[[[10, -10], [1, 5]]]], np.float32)  # the means of the two pixels are 0 and 3
    comparison = layer_drawings.FilterComparison(
        "stem", before, after, filters=1, change=1, start="", is_before_training=True
    )
    text = layer_drawings.draw_filters(comparison)
    assert [values.tolist() for values, _ in kernels] == [[[[0, 0]]], [[[0, 3]]], [[[0, 3]]]]  # the third: differences
    assert [largest for _, largest in kernels] == [3, 3, None]
    assert "Of each the mean over its channels" in " ".join(re.findall(">([^<]+)</text>", text))


def test_the_units_of_an_mlp_are_shown_as_images_of_their_weights():
    network = make_network("mlp/test")
    comparison = show.compare_filters(network)
    weights = network.params["hidden"]["layers"][0]["kernel"]  # (64, 8)
    np.testing.assert_array_equal(comparison.after[2, 1, 5, 0], weights[1 * SIDE + 5, 2])
    assert comparison.change == 0


def test_maps_of_an_image_that_is_black_or_white_move_with_it():
    # One convolution of cnn/test reads 3 x 3 pixels: a white pixel changes 3 x 3 places of its map, and no others.
    network = make_network("cnn/test")
    black = np.zeros((SIDE, SIDE), np.uint8)
    white = black.copy()
    white[4, 4] = 255
    maps = []
    for image in (black, white):
        seen, layers, start = show.compare_features(network, image, "stages/0/convolutions/0")
        np.testing.assert_array_equal(seen[..., 0], image)
        (layer,) = layers
        np.testing.assert_array_equal(layer.before, layer.after)  # its values are the initial ones
        maps.append(layer.after)
    changed = np.argwhere(np.abs(maps[1] - maps[0]).max(-1) > 0)
    assert changed.min(0).tolist() == [3, 3]
    assert changed.max(0).tolist() == [5, 5]
    text = layer_drawings.draw_features(seen, layers, start)
    assert "stages/0/convolutions/0 with its norm, after training" in text
    assert "8 channels, 8 x 8" in text


def test_a_map_behind_a_norm_is_that_of_the_norm_and_says_so_before_and_after(monkeypatch):
    network = make_network("cnn/test")
    kernel = network.params["stages"][0]["convolutions"][0]["kernel"]
    sums = kernel.sum((0, 1, 2))
    kernel *= 3
    norm = network.stats["stages"][0]["norms"][0]
    norm["mean"] = np.full(8, 1, np.float32)
    norm["var"] = np.full(8, 4, np.float32)
    white = np.full((SIDE, SIDE), 255, np.uint8)
    seen, (layer,), start = show.compare_features(network, white, "stages/0/convolutions/0")
    assert layer.norm == "stages/0/norms/0"
    # White is (1 - 0.5) / 0.25 = 2. A new norm has mean 0 and variance 1, and so leaves the convolution as it is.
    np.testing.assert_allclose(layer.before[4, 4], 2 * sums, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.after[4, 4], (2 * 3 * sums - 1) / 2, rtol=1e-4, atol=1e-5)
    drawn = []
    draw = layer_drawings.plots.signed_maps
    monkeypatch.setattr(
        layer_drawings.plots, "signed_maps", lambda maps, **words: drawn.append(maps) or draw(maps, **words)
    )
    text = layer_drawings.draw_features(seen, [layer], start)
    assert "stages/0/convolutions/0 with its norm, " in text
    for maps, features in zip(drawn, (layer.before, layer.after), strict=True):
        np.testing.assert_array_equal(maps, np.moveaxis(features, -1, 0))


def test_tokens_of_a_vit_stand_at_the_places_of_their_patches():
    network = make_network("vit/test", patch=2)
    image = np.zeros((SIDE, SIDE), np.uint8)
    image[2:4, 6:8] = 255  # the patch in row 1 and column 3 of 4 x 4
    _, layers, _ = show.compare_features(network, image, None)
    _, black_layers, _ = show.compare_features(network, np.zeros_like(image), None)
    patches, block = layers[0], layers[-1]
    assert (patches.layer, patches.after.shape[:2]) == ("patches", (4, 4))
    differs = np.abs(patches.after - patches.after[0, 0]).max(-1) > 0
    assert np.argwhere(differs).tolist() == [[1, 3]]
    # Behind a block all tokens differ from those of a black image, and most of all the one that was added to itself.
    assert block.layer == "blocks/0"
    change = np.linalg.norm(block.after - black_layers[-1].after, axis=-1)
    assert np.unravel_index(change.argmax(), change.shape) == (1, 3)


@pytest.mark.parametrize(
    ("model", "layer", "sentence"),
    [
        ("mlp/test", None, "no layer of mlp/test has a map: only convolutions and patches keep the place"),
        ("cnn/test", "stages/0/convolution/0", "no layer with a map .*; did you mean stages/0/convolutions/0"),
    ],
)
def test_a_network_or_layer_without_maps_is_refused(model, layer, sentence):
    with pytest.raises(UserError, match=sentence):
        show.compare_features(make_network(model), np.zeros((SIDE, SIDE), np.uint8), layer)


def test_a_network_for_images_of_several_sizes_is_refused():
    network = make_network("cnn/test")
    network.preprocessing["fit"] = "pad_batch"
    with pytest.raises(UserError, match="this network was trained on several"):
        show.compare_features(network, np.zeros((SIDE, SIDE), np.uint8), None)


def test_an_image_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"broken\.png: "):
        show.compare_features(make_network("cnn/test"), str(path), None)


def test_a_folder_is_no_image_even_where_it_holds_one(tmp_path):
    Image.fromarray(np.zeros((SIDE, SIDE), np.uint8)).save(tmp_path / "one.png")
    with pytest.raises(UserError, match="is a folder; name one image in it"):
        show.compare_features(make_network("cnn/test"), str(tmp_path), None)


@pytest.mark.parametrize("channels", [1, 3])
def test_filters_and_maps_stand_under_the_name_of_when_they_were(channels, monkeypatch):
    """Each sheet of images is that of the values under whose name it stands, before training or after it."""
    sheets = []
    monkeypatch.setattr(
        layer_drawings.plots,
        "draw_sheet",
        lambda images, **_: sheets.append({image.title: image.pixels for image in images}),
    )
    before, after = np.random.default_rng(0).normal(size=(2, 4, 3, 3, channels)).astype(np.float32)
    words = {"start": "before training", "is_before_training": True}
    comparison = layer_drawings.FilterComparison("stem", before, after, filters=4, change=1, **words)
    layer_drawings.draw_filters(comparison)
    maps = layer_drawings.LayerMaps("stem", before[0], after[0])
    layer_drawings.draw_features(np.zeros((8, 8, 1), np.uint8), [maps], "before training")
    largest = max(np.abs(before).max(), np.abs(after).max())
    filters, features = sheets
    for name, values in (("before training", before), ("after training", after)):
        np.testing.assert_array_equal(filters[name], layer_drawings.draw_kernels(values, largest))
        expected = layer_drawings.plots.signed_maps(values[0].transpose(2, 0, 1), columns=layer_drawings.COLUMNS)
        np.testing.assert_array_equal(features[f"stem, {name}"], expected)
    assert (filters["before training"] != filters["after training"]).any()


def test_of_a_deep_network_six_layers_are_shown_from_the_first_to_the_last(monkeypatch):
    maps = {f"layer{number}": (np.full((2, 2, 1), number), "") for number in range(11)}
    monkeypatch.setattr(show, "collect_maps", lambda *_: maps)
    _, layers, _ = show.compare_features(make_network("cnn/test"), np.zeros((SIDE, SIDE, 1), np.uint8), None)
    assert [layer.layer for layer in layers] == [f"layer{number}" for number in (0, 2, 4, 6, 8, 10)]
    assert [int(layer.after[0, 0, 0]) for layer in layers] == [0, 2, 4, 6, 8, 10]


def test_large_maps_are_reduced_by_means_of_squares():
    maps = np.arange(64 * 64.0).reshape(1, 64, 64)
    small = layer_drawings.shrink(maps)
    assert small.shape == (1, 32, 32)
    assert small[0, 0, 0] == (0 + 1 + 64 + 65) / 4
    assert layer_drawings.shrink(maps[:, :30, :30]).shape == (1, 30, 30)


def test_of_many_layers_the_first_and_the_last_are_shown():
    names = [f"{number}" for number in range(20)]
    assert show.choose_evenly(names, 1) == ["0"]
    chosen = show.choose_evenly(names, 5)
    assert chosen == ["0", "5", "10", "14", "19"]
    assert show.choose_evenly(names[:3], 5) == names[:3]
