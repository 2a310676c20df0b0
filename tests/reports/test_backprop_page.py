"""The page of a walk: formulas are MathML, maps show sign and size, and numbers by hand are those of the arrays."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from cnn_vit import plots
from cnn_vit.analysis import backprop_trace
from cnn_vit.reports import backprop_page
from cnn_vit.reports.mathml import formula


@pytest.fixture(scope="module")
def walk():
    """The walk of a random image without automatic differentiation, which has its own tests and takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backprop_trace, "differentiate", own_gradients)
        image = np.random.default_rng(5).random((8, 8))
        return backprop_trace.trace(image, 2, rate=0.1, seed=0)


def own_gradients(x, label, parameters, rate):
    """What `differentiate` would return, by the gradients by hand."""
    steps = backprop_trace.forward(x, parameters)
    scores = steps[-1][1]
    g = backprop_trace.backprop.softmax_cross_entropy_backward(scores, np.array([label]))
    arrays = {}
    for layer in backprop_trace.backward(steps, parameters, g):
        arrays[layer.name] = {"y": layer.y, "dL/dy": layer.g, "dL/dx": layer.dx}
        arrays[layer.name] |= {f"dL/d{key}": gradient for key, gradient in layer.gradients.items()}
    return arrays, (0.0, 0.0)


def test_the_last_table_is_whole(walk):
    """No box of its own scrolls, which would end in half a row."""
    page = backprop_page.write_page(walk, "an image", "cnn-vit backprop trace")
    behind = page.partition("The match with automatic differentiation</h2>")[2]
    assert re.search('<div class="([^"]*)"><table>', behind)[1] == "scroll whole"


def test_the_page_stands_alone_and_every_formula_of_it_is_xml(walk):
    page = backprop_page.write_page(walk, "an <image>", "cnn-vit backprop trace a.png")
    assert "an &lt;image&gt;" in page
    assert re.findall(r'(?:src|href)="(?!data:)[^"]*"', page) == []
    assert "<script" not in page
    formulas = re.findall(r"<math.*?</math>", page, re.DOTALL)
    assert len(formulas) > 30
    for text in formulas:
        ElementTree.fromstring(text)
    for name, _ in backprop_trace.LAYERS:
        assert page.count(f"<h3>{name}: ") == 2  # forward and backward
    assert page == backprop_page.write_page(walk, "an <image>", "cnn-vit backprop trace a.png")


def numbers(text):
    """The numbers of a sentence."""
    return [
        float(word.replace("\N{MINUS SIGN}", "-"))
        for word in re.findall(r"\N{MINUS SIGN}?\d+(?:\.\d+)?(?:e-?\d+)?", text)
    ]


def cell_values(table):
    """The numbers of a table."""
    return np.array([[float(cell.text.replace("\N{MINUS SIGN}", "-")) for cell in row] for row in table.rows])


def test_numbers_by_hand_add_up_to_those_of_the_arrays(walk):
    layer = walk.layer("conv1")
    forward = backprop_page.conv_example(layer)
    row, column, number = map(int, re.findall(r"output \((\d+), (\d+)\) of filter (\d)", forward.sentence)[0])
    window, kernel, products = map(cell_values, forward.tables)
    np.testing.assert_allclose(window * kernel, products, atol=0.02)  # each has two decimals
    total, bias, value = numbers(forward.result)
    assert total + bias == pytest.approx(value, rel=1e-2)
    assert value == pytest.approx(layer.y[0, row, column, number], rel=1e-2)

    of_pixel = backprop_page.input_gradient_example(layer)
    row, column = map(int, re.findall(r"by hand: \((\d+), (\d+)\)", of_pixel.sentence)[0])
    first, *terms, total = numbers(of_pixel.result)
    assert sum(terms) == pytest.approx(total, abs=0.01 * sum(map(abs, terms)))
    assert first in terms
    assert total == pytest.approx(layer.dx[0, row, column, 0], rel=1e-2)
    np.testing.assert_allclose(
        cell_values(of_pixel.tables[1]), layer.params["w"][::-1, ::-1, 0, terms.index(first)], atol=0.006
    )

    of_weight = backprop_page.kernel_gradient_example(layer)
    u, v, number = map(int, re.findall(r"w at \((\d), (\d)\) of filter (\d)", of_weight.sentence)[0])
    part, rest, total = numbers(of_weight.result)
    assert abs(total) > 0.01
    assert abs(part) > abs(rest) / 4  # most of it is shown
    assert part + rest == pytest.approx(total, abs=0.01 * (abs(part) + abs(rest)))
    assert total == pytest.approx(layer.gradients["w"][u, v, 0, number], rel=1e-2)
    assert cell_values(of_weight.tables[2]).sum() == pytest.approx(part, abs=0.01)


def test_a_part_of_relu_by_hand_loses_its_gradient_where_the_input_is_negative(walk):
    x, g, gradient = map(cell_values, backprop_page.relu_example(walk.layer("relu1")).tables)
    np.testing.assert_array_equal(gradient, g * (x > 0))
    assert g[x < 0].any()


def test_a_window_by_hand_sends_its_gradient_to_its_largest_pixel(walk):
    pixels, gradient = map(cell_values, backprop_page.pool_example(walk.layer("pool1")).tables)
    assert gradient[np.unravel_index(pixels.argmax(), pixels.shape)] != 0
    assert np.count_nonzero(gradient) == 1


def test_maps_are_blue_below_zero_orange_above_and_clear_at_zero():
    colors = plots.signed_colors(np.array([-2.0, -1, 0, 1, 2]), 2.0)
    assert colors[:, 3].tolist() == [255, 128, 0, 128, 255]
    assert colors[0, 2] > colors[0, 0]  # more blue than red
    assert colors[4, 0] > colors[4, 2]
    assert not plots.signed_colors(np.zeros(3), 0.0)[:, 3].any()
    grid = plots.signed_maps(np.ones((3, 2, 2)), columns=2)
    side = 2 * 8 + 2  # two numbers of 8 pixels in a frame of 1
    assert grid.shape == (2 * side + 8, 2 * side + 8, 4)
    assert not grid[side : side + 8].any()  # the gap between the rows
    assert not grid[side + 8 :, side + 8 :].any()  # no fourth map


# MathML ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "elements"),
    [
        ("x_{i}", "<msub><mi>x</mi><mrow><mi>i</mi></mrow></msub>"),
        ("x_i^2", "<msubsup><mi>x</mi><mi>i</mi><mn>2</mn></msubsup>"),
        ("a - 0.5", "<mi>a</mi><mo>\u2212</mo><mn>0.5</mn>"),
        (r"\frac{1}{b}", "<mfrac><mrow><mn>1</mn></mrow><mrow><mi>b</mi></mrow></mfrac>"),
        (r"\sqrt{\sigma}", "<msqrt><mrow><mi>\u03c3</mi></mrow></msqrt>"),
        (r"\tilde{x}", '<mover accent="true"><mrow><mi>x</mi></mrow><mo>~</mo></mover>'),
        (r"a < b \text{ if c}", "<mi>a</mi><mo>&lt;</mo><mi>b</mi><mtext>\u00a0if\u00a0c</mtext>"),
        (r"\sum_{u} w", '<munder><mo movablelimits="false">\u2211</mo><mrow><mi>u</mi></mrow></munder><mi>w</mi>'),
    ],
)
def test_formulas_become_mathml(text, elements):
    assert formula(text, block=False) == f"<math>{elements}</math>"


@pytest.mark.parametrize("text", [r"\unknown", "{x", "x}", "x_", "_x", r"\frac{1}"])
def test_formulas_that_are_not_known_are_refused(text):
    with pytest.raises(ValueError, match=r"is not known|too many|too early|has to stand"):
        formula(text)
