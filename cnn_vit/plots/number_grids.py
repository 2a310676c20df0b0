"""Draws grids of numbers: one drawing as SVG in the colors of a page, many as the frames of an animated GIF.

A drawing is laid out once, as rectangles and letters, and rendered by two painters: as SVG with the page's variables,
and by Pillow in the colors of light pages, because a GIF cannot change its colors.
"""

import functools
import html
import io
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cnn_vit.plots.style import COLORS, NAMESPACES, rgb

CELL = 32  # CSS pixels of the side of a cell
GRID_GAP = 22  # between grids, and around them
TITLE_HEIGHT, LINE_HEIGHT = 22, 18  # of the title above a grid, and of a line of letters
TITLE_SIZE, NUMBER_SIZE, CAPTION_SIZE = 13, 12, 13  # of letters, in CSS pixels
LETTER_WIDTH = 0.64  # of a digit, as a share of its size: no letter of a caption is wider on average
GRAY_SPLIT = 0.45  # of white, from which on letters on gray are black
SIGNED_OPACITY = 0.5  # of the largest number's cell: ink stays readable on it
FRAME_WIDTH = 3  # of the frame around a chosen cell
GIF_COLORS = 256
SVG_WIDTH, GIF_WIDTH = 420, 1040  # of a drawing: the width of a phone, and of a slide


@dataclass(frozen=True)
class GridCell:
    """A number in a grid.

    Attributes:
        text: the number; "" leaves the cell empty.
        fill: what it stands on: a name of COLORS, a color such as "#808080", or "" for the page.
        opacity: of the fill, in 0..1.
        ink: color of the number, a name of COLORS or a color.
        frame: color of a thick frame, a name of COLORS; "" for a thin line.
    """

    text: str = ""
    fill: str = ""
    opacity: float = 1.0
    ink: str = "ink"
    frame: str = ""


@dataclass(frozen=True)
class NumberGrid:
    """Numbers in rows under a title.

    Attributes:
        title: what they are.
        rows: cells, the same number in each row.
        cell_width: of a cell, in CSS pixels.
        starts_row: whether it stands below the grids before it, and never beside them.
    """

    title: str
    rows: tuple[tuple[GridCell, ...], ...]
    cell_width: int = CELL
    starts_row: bool = False

    @property
    def size(self) -> tuple[float, float]:
        """Width and height with the title, in CSS pixels."""
        title_width = len(self.title) * TITLE_SIZE * LETTER_WIDTH
        width = len(self.rows[0]) * self.cell_width
        return max(width, title_width), len(self.rows) * CELL + TITLE_HEIGHT


@dataclass(frozen=True)
class NumberDrawing:
    """Grids of numbers, with sentences under them.

    Attributes:
        title: above all grids.
        grids: in the order in which they are read.
        lines: sentences under the grids, each on lines of its own.
        seconds: how long the drawing stands in an animation.
        legend: what frames and colors mean, below the sentences in softer letters.
    """

    title: str
    grids: tuple[NumberGrid, ...]
    lines: tuple[str, ...] = ()
    seconds: float = 0.6
    legend: str = ""


def gray_cell(text: str, white: float) -> GridCell:
    """Returns a number on the gray of a pixel, 0 for black to 1 for white, the same on light and dark pages."""
    level = round(255 * min(max(white, 0), 1))
    return GridCell(text, f"#{level:02x}{level:02x}{level:02x}", ink="#000000" if white > GRAY_SPLIT else "#ffffff")


def signed_cell(text: str, value: float, largest: float) -> GridCell:
    """Returns a number on blue below 0 and on orange above, the darker the nearer it is to the largest absolute one."""
    share = min(abs(value) / largest, 1) if largest > 0 else 0
    return GridCell(text, "series0" if value < 0 else "series1", SIGNED_OPACITY * share)


def framed(cell: GridCell, color: str) -> GridCell:
    """Returns a cell with a thick frame."""
    return replace(cell, frame=color)


# Layout ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rectangle:
    """A cell's area, in CSS pixels.

    Attributes:
        x: left edge.
        y: upper edge.
        width: of the area.
        height: of the area.
        fill: a name of COLORS, a color, or "".
        opacity: of the fill.
        line: color of the frame.
        thickness: of the frame.
    """

    x: float
    y: float
    width: float
    height: float
    fill: str
    opacity: float
    line: str
    thickness: int


@dataclass(frozen=True)
class Letters:
    """A line of letters.

    Attributes:
        x: where it begins; its middle where it is centered.
        y: the line that the letters stand on.
        text: the letters.
        size: in CSS pixels.
        ink: a name of COLORS, or a color.
        is_centered: whether x is the middle.
        is_bold: whether the letters are bold.
    """

    x: float
    y: float
    text: str
    size: int
    ink: str
    is_centered: bool = False
    is_bold: bool = False


@dataclass(frozen=True)
class Layout:
    """All shapes of a drawing, in the order in which they are painted.

    Attributes:
        width: of the drawing, in CSS pixels.
        height: of the drawing.
        shapes: the rectangles and letters.
    """

    width: int
    height: int
    shapes: tuple[Rectangle | Letters, ...]


def lay_out(drawing: NumberDrawing, most: float) -> Layout:
    """Lays grids beside each other, and below where they would be wider than `most`; the sentences follow below."""
    widest = max(grid.size[0] for grid in drawing.grids)
    inner_width = max(most - 2 * GRID_GAP, widest)
    letters_in_line = int(inner_width / (CAPTION_SIZE * LETTER_WIDTH))
    shapes: list[Rectangle | Letters] = []
    y = GRID_GAP + LINE_HEIGHT / 2
    for line in textwrap.wrap(drawing.title, letters_in_line):
        shapes.append(Letters(GRID_GAP, y, line, CAPTION_SIZE + 1, "ink", is_bold=True))
        y += LINE_HEIGHT
    x, row_height = float(GRID_GAP), 0.0
    for grid in drawing.grids:
        width, height = grid.size
        is_too_wide = x + width > GRID_GAP + inner_width
        if x > GRID_GAP and (is_too_wide or grid.starts_row):
            x, y, row_height = float(GRID_GAP), y + row_height + GRID_GAP / 2, 0.0
        shapes += place_grid(grid, x, y)
        x += width + GRID_GAP
        row_height = max(row_height, height)
    y += row_height + GRID_GAP
    for sentence in drawing.lines:
        for line in textwrap.wrap(sentence, letters_in_line) or [""]:
            shapes.append(Letters(GRID_GAP, y + LINE_HEIGHT / 2, line, CAPTION_SIZE, "ink"))
            y += LINE_HEIGHT
    for line in textwrap.wrap(drawing.legend, letters_in_line):
        shapes.append(Letters(GRID_GAP, y + LINE_HEIGHT / 2, line, CAPTION_SIZE, "soft"))
        y += LINE_HEIGHT
    return Layout(round(inner_width + 2 * GRID_GAP), round(y + GRID_GAP / 2), tuple(shapes))


def place_grid(grid: NumberGrid, left: float, top: float) -> list[Rectangle | Letters]:
    """Returns the shapes of a grid at a place; frames stand above their neighbors' lines."""
    shapes: list[Rectangle | Letters] = [Letters(left, top + 14, grid.title, TITLE_SIZE, "soft")]
    areas, frames, numbers = [], [], []
    for row, cells in enumerate(grid.rows):
        for column, cell in enumerate(cells):
            x, y = left + column * grid.cell_width, top + TITLE_HEIGHT + row * CELL
            areas.append(Rectangle(x, y, grid.cell_width, CELL, cell.fill, cell.opacity, "line", 1))
            if cell.frame:
                frames.append(Rectangle(x, y, grid.cell_width, CELL, "", 1, cell.frame, FRAME_WIDTH))
            if cell.text:
                middle, foot = x + grid.cell_width / 2, y + CELL / 2 + NUMBER_SIZE * 0.36
                numbers.append(Letters(middle, foot, cell.text, NUMBER_SIZE, cell.ink, is_centered=True))
    return [*shapes, *areas, *frames, *numbers]


# SVG ------------------------------------------------------------------------------------------------------------------


def draw_numbers(drawing: NumberDrawing, *, width: float = SVG_WIDTH) -> str:
    """Returns a drawing as SVG to stand in a page, in the page's colors and letters.

    Args:
        drawing: the grids and sentences.
        width: grids stand beside each other up to so many CSS pixels, and below each other beyond.
    """
    layout = lay_out(drawing, width)
    label = html.escape(drawing.title)
    head = f'<svg class="plot" role="img" aria-label="{label}" viewBox="0 0 {layout.width} {layout.height}"'
    parts = [f'{head} style="max-width: {layout.width}px" {NAMESPACES}>']
    for shape in layout.shapes:
        parts.append(svg_rectangle(shape) if isinstance(shape, Rectangle) else svg_letters(shape))
    return "\n".join([*parts, "</svg>"])


def svg_color(name: str) -> str:
    """Returns the text of a color in an SVG: the page's variable for a name, and a color as it is."""
    return f"var(--{name})" if name in COLORS else name


def svg_rectangle(area: Rectangle) -> str:
    """Returns a rectangle as an SVG element."""
    fill = f"fill: {svg_color(area.fill)}; fill-opacity: {area.opacity:.3g}" if area.fill else "fill: none"
    stroke = f"stroke: {svg_color(area.line)}; stroke-width: {area.thickness}"
    size = f'width="{area.width:g}" height="{area.height:g}"'
    return f'<rect x="{area.x:g}" y="{area.y:g}" {size} style="{fill}; {stroke}"/>'


def svg_letters(letters: Letters) -> str:
    """Returns letters as an SVG element."""
    style = f"font-size: {letters.size}px; fill: {svg_color(letters.ink)}"
    if letters.is_bold:
        style += "; font-weight: 700"
    if letters.is_centered:
        style += "; text-anchor: middle"
    return f'<text x="{letters.x:g}" y="{letters.y:.4g}" style="{style}">{html.escape(letters.text)}</text>'


# GIF ------------------------------------------------------------------------------------------------------------------


def draw_animation(
    drawings: Sequence[NumberDrawing], *, width: float = GIF_WIDTH, on_frame: Callable[[int], None] | None = None
) -> bytes:
    """Returns drawings as an animated GIF that begins again at its end, each as long as its `seconds` say.

    Args:
        drawings: the frames, at least one; all are as large as the largest.
        width: grids stand beside each other up to so many pixels.
        on_frame: called with the number of frames that are painted, after each; what it raises ends the work.
    """
    from PIL import Image

    sizes = []
    for drawing in drawings:
        layout = lay_out(drawing, width)
        sizes.append((layout.width, layout.height))
    size = max(width for width, _ in sizes), max(height for _, height in sizes)
    # One palette for all frames, of the last and the middle one: what does not change has the same color throughout.
    samples = [np.asarray(paint(lay_out(drawings[number], width), size)) for number in (-1, len(drawings) // 2)]
    palette = Image.fromarray(np.concatenate(samples)).quantize(
        GIF_COLORS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
    )

    def paint_frames() -> Iterator[Image.Image]:
        """Paints one frame at a time: only what is left of it, a byte for each pixel, stays in memory."""
        for number, drawing in enumerate(drawings, start=1):
            yield paint(lay_out(drawing, width), size).quantize(palette=palette, dither=Image.Dither.NONE)
            if on_frame is not None:
                on_frame(number)

    frames = paint_frames()
    buffer = io.BytesIO()
    next(frames).save(
        buffer,
        "GIF",
        save_all=True,
        append_images=frames,
        duration=[round(1000 * drawing.seconds) for drawing in drawings],
        loop=0,
    )
    return buffer.getvalue()


def paint(layout: Layout, size: tuple[int, int]):
    """Paints a layout on a light page of a size, as an image of Pillow."""
    from PIL import Image, ImageDraw, ImageFont

    basic = ImageFont.Layout.BASIC  # the one that every build of Pillow has
    image = Image.new("RGB", size, pixel_color("paper"))
    painter = ImageDraw.Draw(image)
    fonts = {}
    for shape in layout.shapes:
        if isinstance(shape, Rectangle):
            # A line of an odd width lies on both sides of its edge, so that neighbors share it.
            half = shape.thickness // 2
            box = (shape.x - half, shape.y - half, shape.x + shape.width + half, shape.y + shape.height + half)
            fill = pixel_color(shape.fill, shape.opacity) if shape.fill else None
            painter.rectangle(box, fill=fill, outline=pixel_color(shape.line), width=shape.thickness)
            continue
        key = shape.size, shape.is_bold
        if key not in fonts:
            fonts[key] = ImageFont.truetype(str(font_file(shape.is_bold)), shape.size, layout_engine=basic)
        anchor = "ms" if shape.is_centered else "ls"
        painter.text((shape.x, shape.y), shape.text, fill=pixel_color(shape.ink), font=fonts[key], anchor=anchor)
    return image


@functools.lru_cache(maxsize=4096)  # a frame asks some thousand times for some dozen colors
def pixel_color(name: str, opacity: float = 1.0) -> tuple[int, int, int]:
    """Returns a color of light pages as red, green and blue in 0..255, as it looks on the page at an opacity."""
    paper = np.array(rgb(COLORS["paper"][0]))
    color = np.array(rgb(COLORS[name][0] if name in COLORS else name))
    red, green, blue = (255 * (opacity * color + (1 - opacity) * paper)).round().astype(int).tolist()
    return red, green, blue


def font_file(is_bold: bool) -> Path:
    """Returns the file of the letters that matplotlib brings along, the same on every machine."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if is_bold else "DejaVuSans.ttf"
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name
