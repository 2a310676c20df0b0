"""Draws the walks of `analysis/walks` as grids of numbers: the frames of an animation, and one drawing that stays.

Minus signs are those of typography; whole numbers have no decimals, and others two, or what three digits take.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from cnn_vit.analysis.walks import AttentionWalk, ConvolutionWalk, PoolingWalk, WindowPosition, WindowWalk
from cnn_vit.plots import GridCell, NumberDrawing, NumberGrid, framed, gray_cell, signed_cell

READ, CHOSEN = "series1", "series2"  # frames of what is read, and of what comes of it
OUTSIDE = "series4"  # color of what stands in the padding
OUTSIDE_OPACITY = 0.3
STEP, PAUSE = 0.6, 3.0  # seconds of a frame, and of the last one
SLOW_STEP = 1.8  # seconds of a frame with more to read
MOST_DECIMALS = 6  # of a number: what is smaller is 0 but for rounding in float32
MOST_TERMS = 9  # of a sum that is written out
LETTERS, CELL_ROOM = 8, 8  # pixels of a letter in a cell, and around all of them
SIGNED_LEGEND = "Cells: orange above 0, blue below, stronger the larger the number."
LEGEND = f"Frames: orange is what is read, green what comes of it. {SIGNED_LEGEND}"
PADDING_LEGEND = "Yellow cells are padding."
POOLING_LEGEND = (
    f"Frames: orange is the window, green its largest pixel and what each kind makes of the window. {SIGNED_LEGEND}"
)
PADDING_SENTENCES = {
    "zero": "black all around",
    "circular": "pixels of the opposite side",
    "reflect": "mirrored at the outermost pixel",
    "edge": "the outermost pixel again",
}
POOLING_TITLES = {"max": "largest", "average": "average", "blur": "blur", "stride": "stride alone"}
STAGES = 3  # of a token that reads: scores, weights, output
CHANNEL_NAMES = {1: ("image",), 3: ("red", "green", "blue")}


def cell_text(value: float) -> str:
    """Writes a number as it stands in a cell: 3, -11 with a minus sign, 0.25, 0.0625: three digits, two decimals."""
    text = f"{value:.0f}"
    if not float(value).is_integer():
        decimals = min(max(2, 2 - math.floor(math.log10(abs(value)))), MOST_DECIMALS)
        whole, _, digits = f"{value:.{decimals}f}".partition(".")
        text = f"{whole}.{digits[:2]}{digits[2:].rstrip('0')}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def factor_text(value: float) -> str:
    """Writes a number as it stands in a product: in brackets below 0."""
    return f"({cell_text(value)})" if value < 0 else cell_text(value)


def read_number(text: str) -> float:
    """Reads a number that `cell_text` or `factor_text` wrote."""
    return float(text.strip("()").replace("\N{MINUS SIGN}", "-"))


def product_sum(pairs: Iterable[tuple[float, float]]) -> tuple[str, float]:
    """Writes out a sum of products; returns it, and what the written numbers give."""
    terms, value = [], 0.0
    for factors in pairs:
        first, second = map(factor_text, factors)
        terms.append(f"{first}\N{MULTIPLICATION SIGN}{second}")
        value += read_number(first) * read_number(second)
    return " + ".join(terms), value


def equals_text(written: float, result: float) -> str:
    """Writes "= 3", or a sign of approximation where the written numbers do not give what is written as the result.

    Args:
        written: what the written numbers give.
        result: what they should give.
    """
    text = cell_text(result)
    sign = "=" if math.isclose(written, read_number(text), rel_tol=1e-9, abs_tol=1e-9) else "\N{ALMOST EQUAL TO}"
    return f"{sign} {text}"


def rounded_text(value: float) -> str:
    """Writes a number of float32, behind a sign of approximation where it is rounded: 2.25, and about 2.33."""
    text = cell_text(value)
    is_rounded = not math.isclose(read_number(text), value, rel_tol=1e-6)
    return f"\N{ALMOST EQUAL TO} {text}" if is_rounded else text


def number_grid(title: str, rows: Iterable[Iterable[GridCell]]) -> NumberGrid:
    """Returns cells as a grid that is wide enough for its longest number."""
    cells = tuple(tuple(row) for row in rows)
    longest = max(len(cell.text) for row in cells for cell in row)
    width = max(NumberGrid.cell_width, longest * LETTERS + CELL_ROOM)
    return NumberGrid(title, cells, width)


def signed_grid(title: str, values: np.ndarray, *, frames: dict[tuple[int, int], str], largest: float) -> NumberGrid:
    """Returns numbers (rows, columns) on blue and orange, some with a frame, by (row, column)."""
    rows = []
    for row, numbers in enumerate(values):
        cells = []
        for column, value in enumerate(numbers):
            cell = signed_cell(cell_text(value), float(value), largest)
            cells.append(framed(cell, frames.get((row, column), "")))
        rows.append(cells)
    return number_grid(title, rows)


def output_grid(
    title: str, values: np.ndarray, *, shown: int, position: tuple[int, int] | None, color: str = READ
) -> NumberGrid:
    """Returns the first `shown` numbers of an output, row by row, the others left empty; `position` has a frame."""
    largest = float(np.abs(values).max())
    texts = [cell_text(value) for value in values.ravel()]
    longest = max(map(len, texts))
    rows = []
    for row in range(values.shape[0]):
        cells = []
        for column in range(values.shape[1]):
            number = row * values.shape[1] + column
            cell = GridCell()
            if number < shown:
                cell = signed_cell(texts[number], float(values[row, column]), largest)
            cells.append(framed(cell, color) if (row, column) == position else cell)
        rows.append(tuple(cells))
    # As wide as the whole output needs, so that nothing moves while it fills.
    return NumberGrid(title, tuple(rows), max(NumberGrid.cell_width, longest * LETTERS + CELL_ROOM))


def pixel_grid(
    title: str, slide: WindowWalk, channel: int, levels: float, *, frames: dict[tuple[int, int], str]
) -> NumberGrid:
    """Returns a channel of the padded image as numbers on their grays, the padding on a color of its own.

    Args:
        title: what it is.
        slide: the walk.
        channel: number of the channel.
        levels: the number that is white.
        frames: color of a frame, by (row, column) of the padded image.
    """
    rows = []
    for row in range(slide.padded.shape[0]):
        cells = []
        for column in range(slide.padded.shape[1]):
            value = float(slide.padded[row, column, channel])
            if slide.is_padding(row, column):
                cell = GridCell(cell_text(value), OUTSIDE, OUTSIDE_OPACITY)
            else:
                cell = gray_cell(cell_text(value), value / levels)
            cells.append(framed(cell, frames.get((row, column), "")))
        rows.append(cells)
    return number_grid(title, rows)


def window_frames(position: WindowPosition) -> dict[tuple[int, int], str]:
    """Returns a frame for each pixel under a window."""
    return {(row, column): READ for row in position.rows for column in position.columns}


def draw_slide(
    slide: WindowWalk, draw: Callable[..., NumberDrawing], *, chosen: int
) -> tuple[list[NumberDrawing], NumberDrawing]:
    """Returns a frame for each position of a window, and the drawing of one of them when all outputs are known.

    Args:
        slide: the walk of the window.
        draw: takes a position, `shown` outputs that are known there, and the `seconds` of the frame.
        chosen: number of the position whose drawing stays.
    """
    positions = list(slide.positions())
    frames = []
    for number, position in enumerate(positions):
        frames.append(draw(position, shown=number + 1, seconds=STEP))
    return with_pause(frames), draw(positions[chosen], shown=len(positions), seconds=PAUSE)


def with_pause(frames: Sequence[NumberDrawing]) -> list[NumberDrawing]:
    """Returns the frames of an animation, the last of which stands longer: it is not repeated, or a GIF has fewer."""
    return [*frames[:-1], replace(frames[-1], seconds=PAUSE)]


# Convolution ----------------------------------------------------------------------------------------------------------


def draw_convolution(walk: ConvolutionWalk, levels: float) -> tuple[list[NumberDrawing], NumberDrawing]:
    """Returns the frames of a convolution, one for each position, and the drawing of its largest output.

    Args:
        walk: the convolution.
        levels: the number of the image that is white.
    """
    largest = int(np.abs(walk.output).argmax())
    return draw_slide(walk.slide, partial(draw_position, walk, levels=levels), chosen=largest)


def draw_position(
    walk: ConvolutionWalk, position: WindowPosition, levels: float, *, shown: int, seconds: float
) -> NumberDrawing:
    """Returns what a filter reads, multiplies and adds up at one position."""
    slide = walk.slide
    pixels = position.read(slide.padded)
    products = pixels * walk.kernel
    largest_weight, largest_product = float(np.abs(walk.kernel).max()), float(np.abs(products).max())
    grids = []
    channels = pixels.shape[2]
    for channel in range(channels):
        name = CHANNEL_NAMES[channels][channel]
        suffix = "" if channels == 1 else f", {name}"
        image = pixel_grid(f"{name} x", slide, channel, levels, frames=window_frames(position))
        grids += [
            replace(image, starts_row=channel > 0),
            signed_grid(f"filter w{suffix}", walk.kernel[..., channel], frames={}, largest=largest_weight),
            signed_grid(f"x times w{suffix}", products[..., channel], frames={}, largest=largest_product),
        ]
    place = position.row, position.column
    legend = f"{LEGEND} {PADDING_LEGEND}" if slide.padding else LEGEND
    grids.append(output_grid("output y", walk.output, shown=shown, position=place, color=CHOSEN))
    return NumberDrawing(convolution_title(walk), tuple(grids), (sum_text(walk, position),), seconds, legend)


def convolution_title(walk: ConvolutionWalk) -> str:
    """Says which convolution it is, and the sizes."""
    slide = walk.slide
    (height, width), (rows, columns) = slide.window, walk.output.shape
    padding = f"padding {slide.padding}"
    if slide.padding:
        padding += f" ({walk.padding_kind})"
    sizes = f"{slide.image.shape[0]} x {slide.image.shape[1]} to {rows} x {columns}"
    return f"{height} x {width} convolution, stride {slide.stride}, {padding}, dilation {slide.dilation}: {sizes}"


def sum_text(walk: ConvolutionWalk, position: WindowPosition) -> str:
    """Writes out the sum at a position, or its sum in each channel where it is long."""
    pixels = position.read(walk.slide.padded)
    result = f"y({position.row}, {position.column})"
    value = float(walk.output[position.row, position.column])
    if pixels.size <= MOST_TERMS:
        terms, written = product_sum(zip(pixels.ravel(), walk.kernel.ravel(), strict=True))
        return f"{result} = {terms} {equals_text(written, value)}"
    sums = (pixels * walk.kernel).sum((0, 1))
    if len(sums) == 1:
        return f"{result} = the sum of {pixels.size} products {equals_text(float(sums[0]), value)}"
    texts = [factor_text(number) for number in sums]
    equals = equals_text(sum(map(read_number, texts)), value)
    return f"{result} = {' + '.join(texts)} {equals}, a sum over {len(sums)} channels"


# Padding --------------------------------------------------------------------------------------------------------------


def draw_padding(walks: Sequence[ConvolutionWalk], levels: float) -> tuple[list[NumberDrawing], NumberDrawing]:
    """Returns a frame for each kind of padding, with the filter where they differ most, and a drawing of all kinds.

    Args:
        walks: the same convolution with each kind of padding.
        levels: the number of the image that is white.
    """
    outputs = np.stack([walk.output for walk in walks])
    most_different = int((outputs.max(0) - outputs.min(0)).argmax())
    position = list(walks[0].slide.positions())[most_different]
    frames, grids = [], []
    for walk in walks:
        shown = walk.output.size
        frames.append(draw_position(walk, position, levels, shown=shown, seconds=PAUSE))
        title = f"{walk.padding_kind}: {PADDING_SENTENCES[walk.padding_kind]}"
        grids.append(pixel_grid(title, walk.slide, 0, levels, frames={}))
    lines = (
        "The filter reads the padding like any other pixel: what stands there changes the outputs at the border, and "
        "in deeper layers those farther inside.",
    )
    legend = f"Cells: pixels are gray, from 0, black, to {cell_text(levels)}, white; {PADDING_LEGEND.lower()}"
    return frames, NumberDrawing("The same image in each kind of padding", tuple(grids), lines, legend=legend)


# Pooling --------------------------------------------------------------------------------------------------------------


def draw_pooling(walk: PoolingWalk, levels: float) -> tuple[list[NumberDrawing], NumberDrawing]:
    """Returns the frames of four kinds of pooling, one for each window, and the drawing of the brightest.

    Args:
        walk: the pooling.
        levels: the number of the image that is white.
    """
    brightest = int(walk.outputs["average"].argmax())
    return draw_slide(walk.slide, partial(draw_pooled, walk, levels=levels), chosen=brightest)


def draw_pooled(
    walk: PoolingWalk, position: WindowPosition, levels: float, *, shown: int, seconds: float
) -> NumberDrawing:
    """Returns what each kind of pooling makes of one window."""
    slide = walk.slide
    pixels = position.read(slide.padded)[..., 0]
    place = position.row, position.column
    frames = window_frames(position)
    # The first of equal ones, row by row: it is the one that the gradient goes to.
    down, right = np.unravel_index(pixels.argmax(), pixels.shape)
    frames[position.rows[down], position.columns[right]] = CHOSEN
    grids = [pixel_grid("image", slide, 0, levels, frames=frames)]
    for kind, output in walk.outputs.items():
        grids.append(output_grid(POOLING_TITLES[kind], output, shown=shown, position=place, color=CHOSEN))
    numbers = ", ".join(cell_text(pixel) for pixel in pixels.ravel())
    results = {kind: rounded_text(output[place]) for kind, output in walk.outputs.items()}
    weighing = "a mean that weighs the middle most" if slide.window[0] > 2 else "the mean, for there is no middle"
    lines = (
        f"Of {numbers} the largest is {results['max']}, the mean {results['average']}, the blur {results['blur']} "
        f"({weighing}), and the first {results['stride']}.",
    )
    side, (rows, columns) = slide.window[0], walk.outputs["max"].shape
    sizes = f"{slide.image.shape[0]} x {slide.image.shape[1]} to {rows} x {columns}"
    title = f"Pooling {side} x {side}, stride {slide.stride}: {sizes}"
    return NumberDrawing(title, tuple(grids), lines, seconds, POOLING_LEGEND)


# Attention ------------------------------------------------------------------------------------------------------------


def draw_attention(walk: AttentionWalk) -> tuple[list[NumberDrawing], NumberDrawing]:
    """Returns three frames for each token that reads (scores, softmax, weighted sum), and the last one's drawing."""
    frames = []
    tokens = len(walk.tokens)
    for reader in range(tokens):
        for stage in range(STAGES):
            frames.append(draw_stage(walk, reader, stage, seconds=SLOW_STEP))
    frames = with_pause(frames)
    return frames, frames[-1]


def draw_stage(walk: AttentionWalk, reader: int, stage: int, *, seconds: float) -> NumberDrawing:
    """Returns what is known when a token has got its scores (0), its weights (1) or its output (2)."""
    tokens, width = walk.queries.shape
    largest = max(float(np.abs(array).max()) for array in (walk.queries, walk.keys, walk.values))

    def row_frames(row: int, columns: int, color: str = READ) -> dict[tuple[int, int], str]:
        return {(row, column): color for column in range(columns)}

    def all_frames(columns: int) -> dict[tuple[int, int], str]:
        return {(row, column): READ for row in range(tokens) for column in range(columns)}

    query_frames = row_frames(reader, width) if stage == 0 else {}
    key_frames = all_frames(width) if stage == 0 else {}
    value_frames = all_frames(width) if stage == STAGES - 1 else {}
    grids = [
        patch_grid(walk, reader),
        signed_grid("queries q", walk.queries, frames=query_frames, largest=largest),
        signed_grid("keys k", walk.keys, frames=key_frames, largest=largest),
        signed_grid("values v", walk.values, frames=value_frames, largest=largest),
    ]
    products = (
        (f"scores q k' / \u221a{width}", walk.scores, 0),
        ("weights: softmax of a row", walk.weights, 1),
        ("output: weights times v", walk.output, 2),
    )
    for title, values, own_stage in products:
        rows_known = reader + int(stage >= own_stage)
        grids.append(rows_grid(title, values, rows_known, framed_row=reader if stage == own_stage else None))
    return NumberDrawing(
        f"One head of attention between {tokens} patches; its projections are random, not trained",
        tuple(grids),
        (stage_sentence(walk, reader, stage),),
        seconds,
        LEGEND,
    )


def rows_grid(title: str, values: np.ndarray, known: int, *, framed_row: int | None) -> NumberGrid:
    """Returns the rows of a matrix that are known, one of them in a frame, and the others empty."""
    grid = output_grid(title, values, shown=known * values.shape[1], position=None)
    rows = []
    for row, cells in enumerate(grid.rows):
        rows.append(tuple(framed(cell, CHOSEN) for cell in cells) if row == framed_row else cells)
    return NumberGrid(title, tuple(rows), grid.cell_width)


def patch_grid(walk: AttentionWalk, reader: int) -> NumberGrid:
    """Returns the image with a frame around the pixels of the patch that reads; patches have their numbers."""
    per_row = walk.image.shape[1] // walk.patch
    rows = []
    for row, line in enumerate(walk.image):
        cells = []
        for column, value in enumerate(line):
            patch = row // walk.patch * per_row + column // walk.patch
            is_first = row % walk.patch == 0 and column % walk.patch == 0
            cell = gray_cell(f"{patch}" if is_first else "", float(value))
            cells.append(framed(cell, READ) if patch == reader else cell)
        rows.append(cells)
    return number_grid("patches, each a row of q, k, v", rows)


def stage_sentence(walk: AttentionWalk, reader: int, stage: int) -> str:
    """Says what happens to a token that reads, with the first number written out."""
    width = walk.queries.shape[1]
    if stage == 0:
        terms, written = product_sum(zip(walk.queries[reader], walk.keys[0], strict=True))
        score = equals_text(written / math.sqrt(width), walk.scores[reader, 0])
        return f"Patch {reader} asks: its query times each key. With key 0: ({terms}) / \u221a{width} {score}."
    if stage == 1:
        exponentials = np.exp(walk.scores[reader])
        above, below = cell_text(exponentials[0]), cell_text(exponentials.sum())
        weight = equals_text(read_number(above) / read_number(below), walk.weights[reader, 0])
        return (
            f"Softmax: exp of each score, divided by their sum. For key 0: {above} / {below} {weight}. A row has sum 1."
        )
    terms, written = product_sum(zip(walk.weights[reader], walk.values[:, 0], strict=True))
    output = equals_text(written, walk.output[reader, 0])
    return f"Patch {reader} takes the values by these weights. Its first number: {terms} {output}."
