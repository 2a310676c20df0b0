"""Plots: the same bytes, the page's colors, text that stays text, and colors that all eyes tell apart."""

import base64
import io
import itertools
import re
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest
from PIL import Image

from cnn_vit import plots
from cnn_vit.plots import Line, ParallelAxis, ParallelLine, Points, Span, parallel, style

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = ["<b>&'\"", "a$b$ \\frac{1}{2}", "語", "plain"]
COUNTS = np.array([[3, 0, 7, 0], [0, 5, 0, 0], [0, 0, 6, 0], [0, 2, 0, 0]])
AXES = [
    ParallelAxis("a.<b>", ((0, "0"), (1, "1"))),
    ParallelAxis("x" * 99, tuple((number / 40, HOSTILE[number % 4]) for number in range(41)), "not active"),
    ParallelAxis("accuracy", (), "failed"),
]
LINES = [
    ParallelLine("<script>", (0.5, None, None), "failed"),
    ParallelLine("b", (0.5, 0.25, 0.1), "pruned"),
    ParallelLine("c", (0.5, 0.25, 0.1), "complete", 3),
    ParallelLine("d", (1, 0, 1), "best"),
]
PLOTS = {
    "curves": lambda: plots.draw_curves(
        [Line("a", [1, 2, 3], [1.0, None, 3.0]), Line("b", [1], [2.0], 1)], title="Loss"
    ),
    "log": lambda: plots.draw_curves([Line("a", [1, 2, 3], [0.001, 1.0, 100.0])], title="Norm", log=True),
    "names below": lambda: plots.draw_curves(
        [Line(f"arm {number}", [13, 129, 1293], [0.5, 0.75, 1.0], number) for number in range(7)], title="Shares",
        log_x=True, legend_below=True,
    ),
    "matrix": lambda: plots.draw_confusion(COUNTS, HOSTILE, title="<i>Confusion</i>"),
    "large matrix": lambda: plots.draw_confusion(np.eye(30, dtype=int), ["x"] * 30, title="Large"),
    "spans": lambda: plots.draw_intervals([Span("A", 0.5, 0.4, 0.6), Span("B", 0.6, None, None, 1)], title="Accuracy"),
    "bars": lambda: plots.draw_bars([3, 2000, 0, 1], HOSTILE, title="Counts"),
    "beside": lambda: plots.side_by_side([PLOTS["bars"](), plots.draw_panel("data:image/png;base64,", "<b>")], "<b>"),
    "scale": lambda: plots.side_by_side([plots.draw_scale(-1, 0.5, "<b>")], "<b>"),
    "looks": lambda: plots.draw_curves(
        [Line("", [1, 2], [0.1, 0.2], look="faint"), Line("", [1], [0.1], look="ended"), Line("a", [1, 2], [1, 2], 1,
        "strong")], title="Looks",
    ),
    "shares": lambda: plots.draw_shares([Span("<b>", 0.9, 0.8, 1.0), Span("b", -0.01, None, None)], title="Shares"),
    "points": lambda: plots.draw_scatter(
        [Points([1, 10], [0.1, None], "level2"), Points([100], [0.2], "series1", "*", 9, True)], title="Points",
        log_x=True, log_y=True,
    ),
    "named points": lambda: plots.draw_scatter([Points([0, 3], [0.5, 0.6], "soft")], title="<b>", names=HOSTILE),
    "points without values": lambda: plots.draw_scatter([Points([0.5], [None], "soft", "x")], title="Failed"),
    "axes beside each other": lambda: plots.draw_parallel(AXES, LINES, title="<b>"),
    "axes below each other": lambda: plots.draw_parallel(AXES, LINES, title="<b>", is_stacked=True),
    "reliability": lambda: plots.draw_reliability([Span("0.5", 0.4, 0.3, 0.5)], title="Calibration"),
}  # fmt: skip
every_plot = pytest.mark.parametrize("name", PLOTS)


def test_a_logarithmic_axis_has_a_tick_at_each_number_and_names_below_make_room_for_themselves():
    text = PLOTS["names below"]()
    written = re.findall(r">([^<>]+)</text>", text)
    assert [number for number in written if number.isdigit()][:3] == [
        "13",
        "129",
        "1293",
    ]  # then those of the other axis
    assert {f"arm {number}" for number in range(7)} <= set(written)
    heights = [float(style.view_size(plot)[1]) for plot in (text, PLOTS["curves"]())]
    assert heights[0] - heights[1] == 3 * plots.ROW_HEIGHT  # seven names, three in a row


@pytest.mark.parametrize(
    ("largest", "names"), [(50, {"1", "2", "5", "10", "20", "50"}), (5000, {"1", "10", "100", "1000"})]
)
def test_a_logarithmic_axis_names_numbers_between_the_powers_of_ten_where_these_are_few(largest, names):
    text = plots.draw_curves([Line("", [-1.0, -1.1], [1.0, largest])], title="Memory", log=True)
    written = re.findall(r">([0-9]+)</text>", text)  # the numbers of the other axis have a sign and a point
    assert set(written) & {"1", "2", "5", "10", "20", "50", "100", "1000"} == names


@every_plot
def test_a_plot_has_the_same_bytes_whatever_the_users_settings(name):
    first = PLOTS[name]()
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "svg.hashsalt": None, "axes.linewidth": 9}):
        assert PLOTS[name]() == first


@every_plot
def test_a_plots_colors_are_the_pages(name):
    text = PLOTS[name]()
    assert not re.search(r"#[0-9a-fA-F]{6}\b", text)
    assert set(re.findall(r"var\(--(\w+)\)", text)) <= style.COLORS.keys()
    assert not re.search(r"<style|<script|<metadata|\d{4}-\d{2}-\d{2}", text)


@every_plot
def test_a_plot_alone_is_whole_xml_with_colors_for_light_and_dark(name):
    text = plots.standalone(PLOTS[name]())
    root = ET.fromstring(text)
    assert root.tag == f"{SVG}svg"
    assert root.get("width")
    assert root.get("height")
    assert text.count("--series0:") == 2
    assert "prefers-color-scheme: dark" in text


def test_names_stay_text_and_become_no_markup_or_formula():
    root = ET.fromstring(PLOTS["matrix"]())
    texts = {node.text for node in root.iter(f"{SVG}text")}
    assert {*HOSTILE[:1], *HOSTILE[2:], "<i>Confusion</i>"} <= texts
    assert "a$b$ \\frac{1}\u2026" in texts  # cut, not set as mathematics
    assert root.get("aria-label") == "<i>Confusion</i>"


def test_printable_escapes_what_would_steer_a_terminal_or_turn_the_line():
    assert plots.printable("\x1b[31mred\u202e\n") == "\\x1b[31mred\\u202e\\n"


def test_true_classes_are_rows_and_predicted_ones_columns():
    root = ET.fromstring(PLOTS["matrix"]())
    positions = {}
    for node in root.iter(f"{SVG}text"):
        if node.get("x"):
            positions[node.text] = float(node.get("x")), float(node.get("y"))
    # 3 and 7 stand in the first row of the counts, 7 and 6 in the third column
    (three_x, three_y), (seven_x, seven_y), (six_x, six_y) = positions["3"], positions["7"], positions["6"]
    assert seven_y == pytest.approx(three_y)
    assert seven_x > three_x
    assert seven_x == pytest.approx(six_x)
    assert six_y > seven_y


def test_a_line_crosses_each_axis_at_its_place_or_at_the_foot():
    layout = parallel.SideLayout(3)
    (low_x, low_y), (_, high_y) = layout.point(1, 0), layout.point(1, 1)
    foot = low_y + 0.13 * (low_y - high_y)  # below the low end by 0.13 of the axis
    path = parallel.draw_path(layout, ParallelLine("a", (0.5, None, 1.0)), 1.0)
    first, second, third = (tuple(map(float, point.split())) for point in re.findall(r'd="M(.*?)"', path)[0].split("L"))
    assert first == pytest.approx((64, (low_y + high_y) / 2), abs=0.06)
    assert second == pytest.approx((low_x, foot), abs=0.06)
    assert third == pytest.approx((2 * low_x - 64, high_y), abs=0.06)
    stacked = parallel.StackedLayout(3)
    assert stacked.point(1, 0.5)[1] == stacked.point(1, None or 0)[1]
    assert stacked.point(2, 1)[0] > stacked.point(2, 0)[0] > stacked.point(2, stacked.FOOT)[0] >= 0


def test_many_ticks_are_thinned_and_every_cut_name_is_whole_under_the_pointer():
    layout = parallel.SideLayout(3)
    assert len(parallel.thin_ticks(AXES[1].ticks, layout)) == 11  # every fourth of 41, for 12 have room
    assert 'text-anchor="end"' in layout.tick_part(1, 0.5, "a")
    assert 'text-anchor="start"' in layout.tick_part(2, 0.5, "a")  # right of the last axis is room
    wide_ticks = tuple((number / 9, "x" * 20) for number in range(10))
    assert len(parallel.thin_ticks(wide_ticks, parallel.StackedLayout(3))) == 3  # of 13 letters of 6.2 pixels on 270
    text = PLOTS["axes beside each other"]()
    root = ET.fromstring(text)
    titles = {node.text for node in root.iter(f"{SVG}title")}
    assert "x" * 99 in titles
    assert "<script>" in titles


def test_ticks_are_powers_of_ten_on_a_logarithmic_axis_and_round_or_whole_numbers_on_others():
    assert plots.number_ticks(1e-4, 1.0, log=True) == tuple(
        (pytest.approx(place), text)
        for place, text in [(0, "0.0001"), (0.25, "0.001"), (0.5, "0.01"), (0.75, "0.1"), (1, "1")]
    )
    short = plots.number_ticks(0.1, 1.0, log=True)  # one power of ten: at 1, 2 and 5 as well
    assert [text for _, text in short] == ["0.1", "0.2", "0.5", "1"]
    assert plots.number_ticks(2, 4, whole=True) == ((0, "2"), (0.5, "3"), (1, "4"))
    assert plots.number_ticks(0.5, 1.0, percent=True, is_flipped=True)[0] == (1, "50 %")
    assert plots.number_ticks(3.0, 3.0) == ((0.5, "3"),)


def test_points_without_a_value_stand_below_all_others():
    text = plots.draw_scatter(
        [Points([1, 2], [0.5, 0.7], "level2"), Points([1], [None], "soft", "x")], title="Points", percent=True
    )
    marks = re.findall(r'y="([\d.]+)" style="fill: var\(--(level2|soft)\)', text)
    heights = {name: [float(y) for y, of_name in marks if of_name == name] for name in ("level2", "soft")}
    assert (len(heights["level2"]), len(heights["soft"])) == (2, 1)
    assert heights["soft"][0] > max(heights["level2"])


def test_powers_of_ten_are_written_as_numbers():
    written = re.findall(r">([^<>]+)</text>", PLOTS["points"]())
    assert {"1", "10", "100"} <= set(written)
    assert not [text for text in written if "$" in text]


def test_a_curve_of_many_points_is_means_of_neighbors_without_the_gaps():
    x, y = style.downsample([0, 1, 2, 3, 4, 5, 6], [1.0, 3.0, None, 7.0, None, float("nan"), 4.0], most=4)
    np.testing.assert_allclose(x, [0.5, 2.5, 4.5, 6])
    np.testing.assert_allclose(y, [2, 7, np.nan, 4])
    x, y = style.downsample(range(100_000), [1.0] * 100_000)
    assert len(x) <= style.POINTS
    assert set(y) == {1.0}


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.5, "0.5"), (1e-4, "0.0001"), (2e-5, "2e-5"), (9000, "9000"), (25_000, "25k"), (1.5e6, "1.5M")],
)
def test_numbers_on_an_axis_are_short(value, text):
    assert style.compact_label(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.9875, "98.75 %"), (1, "100 %"), (0.07, "7 %")])
def test_shares_on_an_axis_are_in_percent(value, text):
    assert style.percent_label(value) == text


# Images ---------------------------------------------------------------------------------------------------------------


def decode_address(address):
    """Returns the kind of a data address and its image's pixels."""
    kind, _, text = address.partition(";base64,")
    return kind, np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 6, 3), (64, 64, 3), (100, 100, 4)])
def test_small_and_transparent_images_are_kept_to_the_bit(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    kind, decoded = decode_address(plots.data_uri(pixels))
    assert kind == "data:image/png"
    np.testing.assert_array_equal(decoded.reshape(shape), pixels)


def test_large_images_are_small_files():
    pixels = np.full((128, 128, 3), 100, np.uint8)
    kind, decoded = decode_address(plots.data_uri(pixels))
    assert kind == "data:image/jpeg"
    assert np.abs(decoded.astype(int) - 100).max() <= 2


def test_a_grid_runs_row_by_row_with_transparent_gaps_and_square_pixels():
    images = np.arange(3, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2)  # three of 8x8
    grid = plots.image_grid(images, columns=2)
    side, gap = 16, 2  # enlarged twofold
    assert grid.shape == (2 * side + gap, 2 * side + gap, 4)
    assert (grid[:side, :side, 0] == 0).all()
    assert (grid[:side, side + gap :, 0] == 1).all()
    assert (grid[side + gap :, :side, 0] == 2).all()
    assert (grid[:, side : side + gap, 3] == 0).all()
    assert (grid[side + gap :, side:, 3] == 0).all()
    assert grid[..., 3].sum() == 255 * 3 * side * side


def test_photographs_have_the_side_that_is_asked_for_and_letters_keep_their_size():
    """Three of 112 pixels with a gap of 2 behind each, and the same at half the size, beside 150 for the names."""
    rows = [plots.Row("name", "note", np.zeros((3, 112, 112, 3), np.uint8))]
    own, half = plots.draw_gallery(rows, title="t"), plots.draw_gallery(rows, title="t", side=56)
    for svg, width, side in ((own, 342, 112), (half, 171, 56)):
        assert f'width="{width}" height="{side}"' in svg
        assert f"max-width: {150 + width}px" in svg
    assert re.findall("font-size: [0-9]+px", own) == re.findall("font-size: [0-9]+px", half)


def test_zero_is_middle_gray_and_each_filter_has_its_own_scale():
    filters = np.array([[0, 1, -2], [0, 0, 0.01]], np.float32).reshape(2, 1, 3, 1)
    np.testing.assert_array_equal(plots.filter_images(filters)[..., 0].reshape(2, 3), [[128, 191, 0], [128, 128, 255]])


def test_the_colors_of_numbers_rise_in_lightness():
    colors = plots.heatmap(np.linspace(-1, 1, 21), -1, 1)
    luminances = [luminance(tuple(color / 255)) for color in colors]
    assert all(later > earlier for earlier, later in itertools.pairwise(luminances))


def test_a_scale_has_the_color_of_each_number_and_the_larger_ones_above():
    """Beside an image of the same numbers: its upper end is as bright as the largest, its lower end as the least."""
    root = ET.fromstring(plots.draw_scale(-2, 4, "error"))
    height = {node.text: float(node.get("y")) for node in root.iter(f"{SVG}text")}
    assert height["error"] < height["4"] < height["-2"]
    (image,) = root.iter(f"{SVG}image")
    address = image.get("{http://www.w3.org/1999/xlink}href")
    colors = np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))[:, 0]
    np.testing.assert_array_equal(colors[[0, -1]], plots.heatmap(np.array([4.0, -2.0]), -2, 4))
    expected = plots.heatmap(np.array([4 - 6 * 21 / 63]), -2, 4)[0]  # a third of the way down
    np.testing.assert_array_equal(colors[21], expected)


# Eyes -----------------------------------------------------------------------------------------------------------------

BLINDNESS = {  # Machado, Oliveira and Fernandes, IEEE TVCG 15 (2009), table 1, severity 1, on linear RGB
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])  # of linear sRGB
WHITE = XYZ.sum(1)


def linear_rgb(color):
    """Returns an sRGB color, shares of red, green and blue, as amounts of light (IEC 61966-2-1)."""
    shares = np.array(color)
    return np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)


def luminance(color):
    """Returns the luminance of an sRGB color, 0 to 1."""
    return float(XYZ[1] @ linear_rgb(color))


def cielab(light):
    """Returns amounts of red, green and blue light in CIELAB, where distances are those that eyes see."""
    ratio = XYZ @ np.clip(light, 0, 1) / WHITE
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def house_color(name, side):
    """Returns a color of the house as shares of red, green and blue: side 0 of light pages, 1 of dark ones."""
    text = style.COLORS[name][side]
    return tuple(int(text[start : start + 2], 16) / 255 for start in (1, 3, 5))


@pytest.mark.parametrize("side", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("kind", BLINDNESS)
def test_series_are_told_apart_by_all_eyes(side, kind):
    colors_seen = []
    for number in range(style.SERIES):
        light = linear_rgb(house_color(f"series{number}", side))
        colors_seen.append(cielab(np.array(BLINDNESS[kind]) @ light))
    distances = [np.linalg.norm(first - second) for first, second in itertools.combinations(colors_seen, 2)]
    assert min(distances) > 18


@pytest.mark.parametrize("side", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("kind", BLINDNESS)
def test_each_level_stands_out_from_its_paper_more_than_the_one_below_for_all_eyes(side, kind):
    contrasts = []
    for name in ("paper", *(f"level{number}" for number in range(plots.LEVELS))):
        light = np.clip(np.array(BLINDNESS[kind]) @ linear_rgb(house_color(name, side)), 0, 1)
        contrasts.append(float(XYZ[1] @ light) + 0.05)
    ratios = [max(first / second, second / first) for first, second in itertools.pairwise(contrasts)]
    assert min(ratios) > 1.4
    assert contrasts == sorted(contrasts, reverse=side == 0)


@pytest.mark.parametrize("side", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("name", "least"), [("ink", 7), ("soft", 4.5), *((f"series{n}", 3) for n in range(6))])
def test_colors_stand_out_from_their_paper(side, name, least):
    low, high = sorted([luminance(house_color(name, side)), luminance(house_color("paper", side))])
    assert (high + 0.05) / (low + 0.05) >= least  # WCAG 2: 7 and 4.5 for text, 3 for graphics
