"""Grids of numbers: letters that can be read on every cell, frames that a GIF keeps, and text that stays text."""

import io
import weakref
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image, ImageFont

from cnn_vit import plots
from cnn_vit.plots import number_grids, style
from cnn_vit.plots.number_grids import Letters, Rectangle, lay_out

SVG = "{http://www.w3.org/2000/svg}"


def drawing(number, *, seconds=0.5):
    """Two grids, the second with a number of its own, and a sentence."""
    first = plots.NumberGrid("<image>", ((plots.gray_cell("7", 0.4), plots.gray_cell("16", 1)),))
    second = plots.NumberGrid("sum", ((plots.framed(plots.signed_cell(f"{number}", number, 9), "series2"),),))
    return plots.NumberDrawing("A & B", (first, second), ("a sentence of some words",), seconds)


def luminance(color):
    """Relative luminance of red, green, blue in 0..1 (WCAG 2.2)."""
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in color]
    return np.dot(linear, (0.2126, 0.7152, 0.0722))


def contrast(ink, ground):
    lighter, darker = sorted((luminance(ink), luminance(ground)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("theme", [0, 1])
def test_every_number_can_be_read_on_its_cell(theme):
    cells = [plots.gray_cell("1", level / 16) for level in range(17)]
    cells += [plots.signed_cell("1", value, 1) for value in (-1, -0.3, 0, 0.3, 1)]
    paper = np.array(style.rgb(plots.COLORS["paper"][theme]))
    for cell in cells:
        names = {name: pair[theme] for name, pair in plots.COLORS.items()}
        fill = np.array(style.rgb(names.get(cell.fill, cell.fill)))
        ground = cell.opacity * fill + (1 - cell.opacity) * paper
        assert contrast(style.rgb(names.get(cell.ink, cell.ink)), ground) > 4.5  # WCAG 2.2, AA


def test_an_animation_has_every_frame_at_its_time_and_comes_out_the_same():
    frames = [drawing(1), drawing(-2, seconds=1.25), drawing(3)]
    content = plots.draw_animation(frames)
    assert plots.draw_animation(frames) == content
    image = Image.open(io.BytesIO(content))
    durations = []
    for number in range(image.n_frames):
        image.seek(number)
        durations.append(image.info["duration"])
    assert durations == [500, 1250, 500]
    assert image.info["loop"] == 0


def test_frames_are_painted_one_after_the_other_and_counted(monkeypatch):
    """No frame of colors outlives the next but one: 324 of them took 6 GB. The count is of those that are painted."""
    painted, living, counted = [], [], []
    paint = number_grids.paint

    def paint_and_count(layout, size):
        image = paint(layout, size)
        painted.append(weakref.ref(image))
        living.append(sum(reference() is not None for reference in painted))
        return image

    monkeypatch.setattr(number_grids, "paint", paint_and_count)
    plots.draw_animation([drawing(number) for number in range(6)], on_frame=counted.append)
    assert max(living) <= 2
    assert counted == [1, 2, 3, 4, 5, 6]


def test_a_frame_has_the_colors_of_its_cells():
    layout = lay_out(drawing(9), 900)
    pixels = np.asarray(number_grids.paint(layout, (layout.width, layout.height)))
    areas = [shape for shape in layout.shapes if isinstance(shape, Rectangle) and shape.fill]
    for area in areas:
        # Beside the corner, where no letter stands.
        red_green_blue = pixels[int(area.y) + 4, int(area.x) + 4]
        assert tuple(red_green_blue) == number_grids.pixel_color(area.fill, area.opacity)
    assert number_grids.pixel_color("#808080") == (128, 128, 128)
    assert number_grids.pixel_color("#000000", 0.5) == (128, 128, 128)  # half of it on white


def test_grids_stand_beside_each_other_and_below_where_the_page_is_narrow():
    grids = tuple(plots.NumberGrid(f"{number}", ((plots.GridCell("1"),) * 5,)) for number in range(2))
    sample = plots.NumberDrawing("t", grids)

    def corners(width):
        titles = [shape for shape in lay_out(sample, width).shapes if isinstance(shape, Letters) and shape.size == 13]
        return [(letters.x, letters.y) for letters in titles]

    (first, second) = corners(900)
    assert second == (first[0] + 5 * number_grids.CELL + number_grids.GRID_GAP, first[1])
    (first, second) = corners(300)
    assert second[0] == first[0]
    assert second[1] >= first[1] + number_grids.CELL + number_grids.TITLE_HEIGHT


def test_text_stays_text_and_colors_are_the_pages():
    svg = ET.fromstring(plots.draw_numbers(drawing(-5)))
    texts = ["".join(node.itertext()) for node in svg.iter(f"{SVG}text")]
    assert texts == ["A & B", "<image>", "7", "16", "sum", "-5", "a sentence of some words"]
    styles = " ".join(node.get("style") for node in svg.iter(f"{SVG}rect"))
    assert "var(--series0)" in styles
    assert "var(--line)" in styles
    assert "background: var(--paper)" in plots.standalone(plots.draw_numbers(drawing(1)))


def test_a_line_of_the_sentences_fits_into_the_drawing():
    sentence = " + ".join(["13\N{MULTIPLICATION SIGN}(\N{MINUS SIGN}20)"] * 20)
    layout = lay_out(plots.NumberDrawing("t", drawing(1).grids, (sentence,)), plots.number_grids.SVG_WIDTH)
    font = ImageFont.truetype(str(number_grids.font_file(False)), number_grids.CAPTION_SIZE)
    for shape in layout.shapes:
        if isinstance(shape, Letters):
            assert shape.x + (not shape.is_centered) * font.getlength(shape.text) <= layout.width


def test_a_sheet_has_each_image_with_sharp_pixels_under_its_title():
    pixels = np.zeros((2, 100, 3), np.uint8)
    sheet = ET.fromstring(plots.draw_sheet([plots.SheetImage("<b>", "note", pixels)], title="t", lines=("a line",)))
    assert ["".join(node.itertext()) for node in sheet.iter(f"{SVG}text")] == ["t", "a line", "<b>", "note"]
    (image,) = sheet.iter(f"{SVG}image")
    assert float(image.get("width")) == 380  # 3.8 CSS pixels for each, at least twice as many in the file
    address = image.get("{http://www.w3.org/1999/xlink}href")
    assert address.startswith("data:image/png")
    assert plots.sheets.sharpen(pixels, 3.8).shape == (16, 800, 4)
