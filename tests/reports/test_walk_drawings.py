"""Drawings of walks: the numbers in the frames are those of the layers, and the sums under them are true."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from cnn_vit import plots
from cnn_vit.analysis.walks import walk_attention, walk_convolution, walk_pooling
from cnn_vit.nn.conv import Slide, convolve
from cnn_vit.nn.pool import average_pool, max_pool
from cnn_vit.reports import walk_drawings

IMAGE = np.random.default_rng(0).integers(0, 17, (6, 6, 1))
KERNEL = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]])[..., None]


def numbers(grid):
    """The numbers that stand in a grid, None for an empty cell."""
    rows = []
    for cells in grid.rows:
        rows.append([None if cell.text == "" else float(cell.text.replace("\N{MINUS SIGN}", "-")) for cell in cells])
    return rows


def evaluate(text):
    """The value of a sum as it stands under a drawing."""
    plain = text.replace("\N{MINUS SIGN}", "-").replace("\N{MULTIPLICATION SIGN}", "*")
    plain = re.sub("\u221a(\\d+)", r"\1**0.5", plain)
    assert re.fullmatch(r"[-+*/(). \d]+", plain), plain
    return eval(plain, {})


def find_grid(drawing, title):
    (grid,) = [grid for grid in drawing.grids if grid.title == title]
    return grid


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (2, 1)])
def test_frames_fill_the_output_with_the_numbers_of_the_convolution(stride, padding):
    frames, still = walk_drawings.draw_convolution(
        walk_convolution(IMAGE, KERNEL, stride=stride, padding=padding), levels=16
    )
    slide = Slide((stride, stride), ((padding, padding), (padding, padding)), (1, 1), 1)
    inputs = (
        jnp.asarray(array[None] if array is IMAGE else array[..., None], jnp.float32) for array in (IMAGE, KERNEL)
    )
    output = np.asarray(convolve(*inputs, slide)[0, ..., 0])
    assert numbers(find_grid(still, "output y")) == output.tolist()
    row, column = np.unravel_index(np.abs(output).argmax(), output.shape)
    assert (row, column) != (0, 0)
    assert still.lines[0].startswith(f"y({row}, {column}) = ")  # it stands at the largest output
    assert len(frames) == output.size
    assert [frame.seconds for frame in frames] == [0.6] * (output.size - 1) + [3]  # the last one stands longer
    for count, frame in enumerate(frames, 1):
        shown = [number for row in numbers(find_grid(frame, "output y")) for number in row]
        assert shown == [*output.ravel()[:count], *[None] * (output.size - count)]
        products = numbers(find_grid(frame, "x times w"))
        assert np.sum(products) == output.ravel()[count - 1]


def test_the_sum_under_each_frame_is_true():
    frames, _ = walk_drawings.draw_convolution(walk_convolution(IMAGE, KERNEL, padding=1), levels=16)
    for frame in frames:
        place, terms, value = frame.lines[0].split(" = ")
        row, column = map(int, re.findall(r"\d+", place))
        assert evaluate(terms) == evaluate(value) == numbers(find_grid(frame, "output y"))[row][column]


@pytest.mark.parametrize(
    ("kernel", "sentence"),
    [
        # By hand: 2 * 0.001 - 15 * 0.004 = -0.058 and 2 / 16 + 15 / 8 = 2; 19 / 3 = 6.33, and what is written 6.329.
        ([0.001, -0.004], "y(0, 0) = 2\u00d70.001 + 15\u00d7(\u22120.004) = \u22120.058"),
        ([1 / 16, 1 / 8], "y(0, 0) = 2\u00d70.0625 + 15\u00d70.125 = 2"),
        ([2 / 3, 1 / 3], "y(0, 0) = 2\u00d70.667 + 15\u00d70.333 \u2248 6.33"),
    ],
)
def test_a_written_sum_of_fractions_gives_what_stands_behind_its_sign(kernel, sentence):
    walk = walk_convolution(np.array([[2, 15]])[..., None], np.array([kernel])[..., None])
    assert walk_drawings.sum_text(walk, next(walk.slide.positions())) == sentence


def test_frames_and_colors_have_a_legend():
    slide = walk_convolution(IMAGE, KERNEL, padding=1)
    pooling = walk_pooling(IMAGE[..., 0], size=3, stride=3)
    attention = walk_attention(IMAGE[:4, :4, 0] / 16, patch=2, head_width=2, seed=0)
    drawings = {
        "convolution": walk_drawings.draw_convolution(slide, levels=16)[1],
        "pooling": walk_drawings.draw_pooling(pooling, levels=16)[1],
        "attention": walk_drawings.draw_attention(attention)[1],
    }
    for drawing in drawings.values():
        text = plots.draw_numbers(drawing)
        assert "Frames: orange is " in text
        assert "orange above 0, blue below" in " ".join(re.findall(">([^<]+)</text>", text))
    assert drawings["convolution"].legend.endswith("Yellow cells are padding.")
    assert "padding" not in walk_drawings.draw_convolution(walk_convolution(IMAGE, KERNEL), levels=16)[1].legend


def test_the_drawing_of_all_paddings_says_what_gray_and_yellow_are():
    black_and_white = walk_convolution(np.array([[0, 16], [16, 0]])[..., None], KERNEL, padding=1)
    _, still = walk_drawings.draw_padding([black_and_white], levels=16)
    text = " ".join(re.findall(">([^<]+)</text>", plots.draw_numbers(still)))
    assert "Cells: pixels are gray, from 0, black, to 16, white; yellow cells are padding." in text
    rows = still.grids[0].rows
    assert {cell.fill for cell in (*rows[0], *rows[-1])} == {"series4"}  # the yellow of plots.COLORS
    assert [(cell.text, cell.fill) for cell in rows[1][1:-1]] == [("0", "#000000"), ("16", "#ffffff")]


def test_a_sum_over_channels_that_is_rounded_is_said_to_be_approximate():
    walk = walk_convolution(np.ones((1, 4, 3)), np.full((1, 4, 3), 1 / 7))
    # Twelve products are more than are written out: 4 / 7 in each channel.
    text = walk_drawings.sum_text(walk, next(walk.slide.positions()))
    assert text == "y(0, 0) = 0.571 + 0.571 + 0.571 \u2248 1.71, a sum over 3 channels"


def test_each_pixel_under_the_window_has_a_frame_and_the_holes_of_dilation_have_none():
    frames, _ = walk_drawings.draw_convolution(walk_convolution(IMAGE, KERNEL, dilation=2), levels=16)
    cells = find_grid(frames[0], "image x").rows
    marked = [(row, column) for row, column in np.ndindex(6, 6) if cells[row][column].frame]
    assert marked == [(row, column) for row in (0, 2, 4) for column in (0, 2, 4)]


def test_three_channels_have_a_grid_each_and_their_sums_are_added():
    image = np.random.default_rng(1).integers(0, 17, (4, 4, 3))
    _, still = walk_drawings.draw_convolution(walk_convolution(image, KERNEL.repeat(3, 2)), levels=16)
    assert [grid.title for grid in still.grids[::3]] == ["red x", "green x", "blue x", "output y"]
    sums = re.fullmatch(r"y\(\d, \d\) = (.*) = (\S+), a sum over 3 channels", still.lines[0])
    assert evaluate(sums[1]) == evaluate(sums[2])
    assert sums[1].count(" + ") == 2


def test_each_kind_of_padding_shows_what_stands_around_the_image():
    row = np.tile([1, 2, 3], (3, 1))[..., None]
    walks = [walk_convolution(row, KERNEL, padding=1, padding_kind=kind) for kind in walk_drawings.PADDING_SENTENCES]
    frames, still = walk_drawings.draw_padding(walks, levels=3)
    assert [grid.title for grid in still.grids] == [
        "zero: black all around",
        "circular: pixels of the opposite side",
        "reflect: mirrored at the outermost pixel",
        "edge: the outermost pixel again",
    ]
    middle = {grid.title.partition(":")[0]: numbers(grid)[2] for grid in still.grids}
    assert middle == {
        "zero": [0, 1, 2, 3, 0],
        "circular": [3, 1, 2, 3, 1],
        "reflect": [2, 1, 2, 3, 2],
        "edge": [1, 1, 2, 3, 3],
    }
    assert len(frames) == 4
    # The filter is (left - right) times 1, 2 and 1, so that inside the column of padding each row counts four times:
    # 4 * (0 - 2), 4 * (3 - 2), 4 * (2 - 2), 4 * (1 - 2). All four frames stand at this place.
    places = {frame.lines[0].partition(" = ")[0] for frame in frames}
    assert places == {"y(1, 0)"}
    assert [frame.lines[0].rpartition(" = ")[2] for frame in frames] == ["\N{MINUS SIGN}8", "4", "0", "\N{MINUS SIGN}4"]


def test_pooled_numbers_are_those_of_the_layers_and_the_largest_pixel_is_marked():
    frames, still = walk_drawings.draw_pooling(walk_pooling(IMAGE[..., 0], size=3, stride=3), levels=16)
    pixels = jnp.asarray(IMAGE[None], jnp.float32)
    largest = np.asarray(max_pool(pixels, 3, stride=3, padding=0)[0, ..., 0])
    mean = np.asarray(average_pool(pixels, 3, stride=3, padding=0, count_padding=True)[0, ..., 0])
    assert numbers(find_grid(still, "largest")) == largest.tolist()
    brightest = np.unravel_index(mean.argmax(), mean.shape)
    assert brightest != (0, 0)
    framed = [place for place in np.ndindex(2, 2) if find_grid(still, "average").rows[place[0]][place[1]].frame]
    assert framed == [brightest]
    np.testing.assert_allclose(numbers(find_grid(still, "average")), mean, atol=0.0051)
    blur = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    windows = IMAGE[..., 0].reshape(2, 3, 2, 3).swapaxes(1, 2)  # (2, 2, 3, 3)
    np.testing.assert_allclose(numbers(find_grid(still, "blur")), (windows * blur).sum((2, 3)), atol=0.0051)
    assert numbers(find_grid(still, "stride alone")) == windows[..., 0, 0].tolist()
    for place, frame in zip(np.ndindex(2, 2), frames, strict=True):
        cells = [cell for row in find_grid(frame, "image").rows for cell in row]
        (winner,) = [cell for cell in cells if cell.frame == walk_drawings.CHOSEN]
        assert float(winner.text) == largest[place]


@pytest.mark.parametrize(
    ("pixels", "mean"),
    [
        ([[3, 4], [5, 6]], "4.50"),  # 18 / 4
        ([[1, 0], [0, 0]], "0.25"),
        ([[1, 1, 1], [2, 2, 2], [4, 4, 4]], "\u2248 2.33"),  # 21 / 9
        ([[6, 6, 6], [6, 6, 6], [6, 6, 6]], "6"),
    ],
)
def test_a_pooled_number_that_is_rounded_has_the_sign_of_approximation(pixels, mean):
    _, still = walk_drawings.draw_pooling(walk_pooling(np.array(pixels), size=len(pixels), stride=1), levels=16)
    largest, first = max(map(max, pixels)), pixels[0][0]
    assert f"the largest is {largest}, the mean {mean}, the blur" in still.lines[0]
    assert still.lines[0].endswith(f", and the first {first}.")


def test_the_three_steps_of_a_patch_are_written_out_and_true():
    walk = walk_attention(IMAGE[:4, :4, 0] / 16, patch=2, head_width=2, seed=0)
    frames, still = walk_drawings.draw_attention(walk)
    assert len(frames) == 3 * 4
    for frame in frames:
        (sentence,) = frame.lines
        terms, sign, value = re.search(r"(?:0: |number: )(.*?) ([=\u2248]) (\S+?)\.(?: |$)", sentence).groups()
        # Each number has three digits: half of the third is at most 0.5 % of it, and here of numbers below 4.
        assert evaluate(terms) == pytest.approx(evaluate(value), rel=0.01, abs=0.01)
        assert (sign == "=") == (abs(evaluate(terms) - evaluate(value)) < 1e-9)
    np.testing.assert_allclose(numbers(find_grid(still, "output: weights times v")), walk.output, atol=0.0051)
    weights = numbers(find_grid(frames[4], "weights: softmax of a row"))
    assert weights[2:] == [[None] * 4] * 2  # patch 1 has its weights, patches 2 and 3 wait
    np.testing.assert_allclose(weights[:2], walk.weights[:2], atol=0.0051)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        (-11, "\N{MINUS SIGN}11"),
        (0.25, "0.25"),
        (0.5, "0.50"),
        (0.0625, "0.0625"),
        (-0.001, "\N{MINUS SIGN}0.001"),
        (-1e-9, "0.00"),
        (2.999, "3.00"),
        (123.456, "123.46"),
        (0, "0"),
    ],
)
def test_a_number_has_no_decimals_or_two_or_those_of_three_digits(value, text):
    assert walk_drawings.cell_text(value) == text
