"""The page of a shift: its maps are bright where the errors are, and it says what has no map."""

import base64
import io
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from cnn_vit import plots
from cnn_vit.analysis.shift import LayerShift, ShiftReport
from cnn_vit.reports import shift_page


def layer(path, errors=None, **changes):
    """A layer with a map of errors, or without one."""
    equivariance = None if errors is None else float(np.sqrt((errors**2).mean()))
    keywords = {"kind": "Conv", "stride": None if errors is None else 1, "invariance": 0.5} | changes
    return LayerShift(path, equivariance=equivariance, errors=errors, **keywords)


def report(*layers):
    """A report of layers, and of the network."""
    return ShiftReport((*layers, layer("", kind="CNN", invariance=0.25)), consistency=0.5, largest_change=0.125)


BORDER = np.zeros((3, 4))
BORDER[0, 3] = 2.0  # the largest error stands in the upper right corner
TRAINED = report(layer("stages/0", BORDER, kind="Stage"), layer("stages/0/conv", BORDER), layer("head"))
UNTRAINED = report(layer("stages/0", BORDER / 2, kind="Stage"), layer("stages/0/conv", BORDER / 2), layer("head"))
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 1), np.uint8)


def write(trained, untrained, **changes):
    """The page of two reports."""
    words = {"shift": (1, 2), "network": "<net>", "command": "cnn-vit explain a.png"}
    words |= {"start": "before training", "is_before_training": True, "has_zero_head": False} | changes
    return shift_page.write_page(trained, untrained, IMAGES, **words)


def read_pixels(address):
    """The image of a data address."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))


def test_the_page_stands_alone_and_every_formula_of_it_is_xml():
    page = write(TRAINED, UNTRAINED)
    assert "&lt;net&gt;" in page
    assert re.findall(r'(?:src|href)="(?!data:)[^"]*"', page) == []
    assert "<script" not in page
    for text in re.findall(r"<math.*?</math>", page, re.DOTALL):
        ElementTree.fromstring(text)
    assert page == write(TRAINED, UNTRAINED)


def test_a_map_is_bright_where_the_error_is_and_all_maps_share_their_colors():
    shown = shift_page.collect_page(TRAINED, UNTRAINED, IMAGES, (1, 2))
    (maps,) = shown.maps
    assert (maps.path, maps.size, shown.largest) == ("stages/0/conv", "3 x 4", 2.0)
    assert (maps.trained[1], maps.untrained[1]) == ("2", "1")
    trained, untrained = (read_pixels(address).astype(int).sum(-1) for address, _ in (maps.trained, maps.untrained))
    assert np.unravel_index(trained.argmax(), trained.shape) == (0, 3)
    assert trained[0, 3] > untrained[0, 3] > trained[0, 0] == untrained[0, 0]


def test_what_is_of_the_trained_network_and_of_the_untrained_one_each_has_its_place(monkeypatch):
    """No number is that of the other: cards, words and colors of the maps, rows, and the lines of the curves."""
    curves = {}

    def draw_curves(lines, **words):
        curves[words["title"]] = [(line.name, list(line.y)) for line in lines]
        return "<svg></svg>"

    def measured(scale, consistency, change):
        layers = [layer(f"conv{number}", scale * number * BORDER, invariance=scale * number) for number in (1, 2)]
        return ShiftReport((*layers, layer("", kind="CNN", invariance=scale * 8)), consistency, change)

    monkeypatch.setattr(plots, "draw_curves", draw_curves)
    trained, untrained = measured(1, 0.75, 0.125), measured(0.25, 0.25, 0.5)
    page = write(trained, untrained)
    spaced = page.replace("\N{NO-BREAK SPACE}", " ")
    assert "<b>75.0 %</b><span>of the images; untrained 25.0 %</span>" in spaced
    assert "<b>0.125</b><span>untrained 0.5</span>" in page
    shown = shift_page.collect_page(trained, untrained, IMAGES, (1, 2))
    _, second = shown.maps
    assert (second.trained[1], second.untrained[1]) == ("4", "1")
    assert "<span>trained &le; 4</span><span>untrained &le; 1</span>" in page
    for when, (address, _) in (("trained", second.trained), ("untrained", second.untrained)):
        assert f'src="{address}" alt="errors of conv2, {when}"' in page
    assert read_pixels(second.trained[0])[0, 3].tolist() == plots.heatmap(np.array([4.0]), 0, 4)[0].tolist()
    assert read_pixels(second.untrained[0])[0, 3].tolist() == plots.heatmap(np.array([1.0]), 0, 4)[0].tolist()
    assert shown.rows[1].equivariance == ("1.15", "0.289")  # 4 / sqrt(12), and a quarter of it
    assert shown.rows[1].invariance == ("2", "0.5")
    assert '<td class="number">1.15</td><td class="number">0.289</td>' in page
    assert curves["Invariance error"] == [("trained", [1, 2]), ("untrained", [0.25, 0.5])]
    (trained_name, errors), (untrained_name, smaller) = curves["Equivariance error"]
    assert (trained_name, untrained_name) == ("trained", "untrained")
    assert errors == pytest.approx([2 / 12**0.5, 4 / 12**0.5])
    assert smaller == pytest.approx([0.5 / 12**0.5, 1 / 12**0.5])


def test_the_images_stand_beside_themselves_shifted():
    shown = shift_page.collect_page(TRAINED, UNTRAINED, IMAGES, (1, 2))
    image, shifted = map(read_pixels, shown.images[1])
    np.testing.assert_array_equal(image, IMAGES[1, ..., 0])
    np.testing.assert_array_equal(shifted, image[[2, 0, 1]][:, [2, 3, 0, 1]])


def test_every_layer_has_a_row_and_those_without_a_map_are_named():
    rows = shift_page.collect_page(TRAINED, UNTRAINED, IMAGES, (1, 2)).rows
    assert [row.path for row in rows] == ["stages/0", "stages/0/conv", "head", "(scores)"]
    assert (rows[1].equivariance, rows[1].center) == (("0.577", "0.289"), ("0", "0"))  # 2 / sqrt(12), and half of it
    assert (rows[3].equivariance, rows[3].invariance) == (("", ""), ("0.25", "0.25"))


def test_the_page_says_what_the_initial_values_are():
    assert "Beside it stands the same network with the values it had before training." in write(TRAINED, UNTRAINED)
    page = write(TRAINED, UNTRAINED, start="initial values of seed 7", is_before_training=False)
    assert "Beside it stands the same network with initial values of seed 7." in page
    assert "before training" not in page


def test_of_a_head_of_zeros_no_scores_are_shown():
    """What is nan stands nowhere: two cells have a dash, and the cards speak of training alone."""
    nan = float("nan")
    layers = (*UNTRAINED.layers[:2], layer("head", invariance=nan), layer("", kind="CNN", invariance=nan))
    page = write(TRAINED, ShiftReport(layers, consistency=nan, largest_change=nan), has_zero_head=True)
    assert "Its head begins as zeros, so that every image has the same scores: those cells have a dash." in page
    assert page.count('<td class="number">-</td>') == 2
    assert "nan" not in re.sub('data:[^"]*', "", page)
    assert ">of the images</span>" in page
    assert "untrained 50.0" in write(TRAINED, UNTRAINED)
    assert "begins as zeros" not in write(TRAINED, UNTRAINED)


def test_a_layer_that_gives_zeros_has_no_error_and_its_map_is_clear():
    """The largest error is that of the other layer, and the color of no error stands nowhere on an undefined map."""
    silent = layer("stages/0/norm", np.full((3, 4), np.nan), kind="BatchNorm", invariance=float("nan"))
    untrained = report(layer("stages/0/conv", BORDER), silent)
    trained = report(layer("stages/0/conv", BORDER), layer("stages/0/norm", BORDER / 4, kind="BatchNorm"))
    shown = shift_page.collect_page(trained, untrained, IMAGES, (1, 2))
    assert shown.largest == 2.0
    assert shown.rows[1].equivariance == ("0.144", "-")  # 0.5 / sqrt(12)
    assert (shown.rows[1].center, shown.rows[1].invariance) == (("0", "-"), ("0.5", "-"))
    assert read_pixels(shown.maps[1].untrained[0])[..., 3].max() == 0
    page = write(trained, untrained)
    assert "<span>trained &le; 0.5</span><span>untrained: -</span>" in page
    assert "A dash says that an error is undefined, for what the layer gives is 0 everywhere" in page
    assert "nan" not in re.sub('data:[^"]*', "", page)
    assert "A dash" not in write(trained, trained)


def test_a_network_without_maps_says_why():
    bare = report(layer("hidden"))
    page = write(bare, bare)
    assert "No layer of this network has a map" in page
    assert "No layer of this network has a map" not in write(TRAINED, UNTRAINED)


def test_a_network_without_any_error_is_dark():
    exact = report(layer("conv", np.zeros((2, 2))))
    shown = shift_page.collect_page(exact, exact, IMAGES, (1, 2))
    assert shown.largest == 0
    pixels = read_pixels(shown.maps[0].trained[0])
    np.testing.assert_array_equal(pixels, np.broadcast_to(plots.heatmap(np.zeros(1), 0, 1), pixels.shape))


@pytest.mark.parametrize(("count", "chosen"), [(3, [0, 1, 2]), (9, [0, 2, 4, 6, 8])])
def test_of_many_layers_some_are_chosen_from_the_first_to_the_last(count, chosen):
    assert shift_page.choose_evenly(range(count), 5) == chosen
