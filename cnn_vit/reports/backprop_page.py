"""Makes the page of `cnn-vit backprop trace`: formulas, shapes, values and gradients of each layer, and one step.

Every number on the page comes from the `Trace`: the formulas stand beside what they gave on this image.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from cnn_vit import plots
from cnn_vit.analysis import backprop
from cnn_vit.analysis.backprop_trace import KERNEL, PADDING, POOL, LayerTrace, Trace
from cnn_vit.reports import page
from cnn_vit.reports.mathml import formula

MAPS_IN_ROW = 6
MAP_SCALE = 2  # CSS pixels for a pixel of a map's image
IMAGE_ENLARGED = 24  # pixels of the page for a pixel of the image, at most
CELL_OPACITY = 0.45  # of the darkest cell of a table: ink stays readable on it


@dataclass(frozen=True)
class MapImage:
    """Maps of an array as one image.

    Attributes:
        title: what the array is, as MathML or text.
        address: the image.
        alt: what a screen reader says.
        caption: shape and largest number.
        width: CSS pixels of the image, at most.
    """

    title: str
    address: str
    alt: str
    caption: str
    width: int


@dataclass(frozen=True)
class Cell:
    """A number in a table.

    Attributes:
        text: the number.
        style: CSS of its background.
    """

    text: str
    style: str


@dataclass(frozen=True)
class NumberTable:
    """A few numbers of an array.

    Attributes:
        sign: what stands in front of it, such as a multiplication sign.
        title: what they are.
        rows: of cells.
    """

    sign: str
    title: str
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Example:
    """One number computed before the reader's eyes.

    Attributes:
        sentence: which number.
        tables: what it is made of.
        result: the sum written out.
    """

    sentence: str
    tables: tuple[NumberTable, ...]
    result: str


@dataclass(frozen=True)
class Part:
    """What the page says of a layer in one direction.

    Attributes:
        formulas: MathML with a sentence below each.
        maps: the arrays.
        examples: numbers by hand.
    """

    formulas: tuple[tuple[str, str], ...]
    maps: tuple[MapImage, ...]
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class Section:
    """A layer on the page.

    Attributes:
        name: of the layer.
        title: in words.
        shapes: name and shape of each array.
        parameters: how many numbers are learned.
        forward: the way up.
        backward: the way down.
        largest_difference: from automatic differentiation.
    """

    name: str
    title: str
    shapes: tuple[tuple[str, str], ...]
    parameters: int
    forward: Part
    backward: Part
    largest_difference: float


@dataclass(frozen=True)
class ScoreRow:
    """A class at the loss.

    Attributes:
        label: the class.
        is_label: whether it is that of the image.
        score: of the last layer.
        probability: its softmax.
        target: 1 or 0.
        gradient: dL/dscore.
        probability_after: after the step.
    """

    label: int
    is_label: bool
    score: float
    probability: float
    target: int
    gradient: Cell
    probability_after: float


@dataclass(frozen=True)
class TracePage:
    """All that the template shows.

    Attributes:
        image: the image, enlarged.
        size: height and width in pixels.
        sections: of the layers in forward order.
        scores: a row for each class.
        loss_formulas: MathML and a sentence each, forward, then backward.
        step_formulas: the same of the step.
        steps: kernel, gradient and new kernel of the first convolution.
        parameters: of the whole network.
        legend: colors of the maps.
    """

    image: MapImage
    size: tuple[int, int]
    sections: tuple[Section, ...]
    scores: tuple[ScoreRow, ...]
    loss_formulas: tuple[tuple[str, str], ...]
    step_formulas: tuple[tuple[str, str], ...]
    steps: tuple[MapImage, ...]
    parameters: int
    legend: MapImage = field(default_factory=lambda: draw_legend())


def write_page(trace: Trace, source: str, command: str) -> str:
    """Returns the page as HTML.

    Args:
        trace: the walk.
        source: what the image is, in words.
        command: that makes the page again.
    """
    return page.render(
        "backprop.html",
        mark="",
        title="Backpropagation through a small CNN",
        source=source,
        command=command,
        chain=CHAIN,
        trace=trace,
        page=collect_page(trace),
    )


def collect_page(trace: Trace) -> TracePage:
    """Returns what the page shows."""
    sections = tuple(collect_section(trace, layer) for layer in trace.layers)
    scores = []
    largest = float(np.abs(trace.score_gradient).max())
    for label, (score, probability) in enumerate(zip(trace.scores, trace.probabilities, strict=True)):
        scores.append(
            ScoreRow(
                label=label,
                is_label=label == trace.label,
                score=float(score),
                probability=float(probability),
                target=int(label == trace.label),
                gradient=number_cell(float(trace.score_gradient[label]), largest, digits=3),
                probability_after=float(trace.probabilities_after[label]),
            )
        )
    return TracePage(
        image=draw_image(trace.image),
        size=(trace.image.shape[0], trace.image.shape[1]),
        sections=sections,
        scores=tuple(scores),
        loss_formulas=LOSS_FORMULAS,
        step_formulas=STEP_FORMULAS,
        steps=draw_step(trace),
        parameters=sum(section.parameters for section in sections),
    )


# Formulas -------------------------------------------------------------------------------------------------------------


def with_sentence(text: str, sentence: str) -> tuple[str, str]:
    """A formula as MathML, and the sentence below it."""
    return formula(text), sentence


CHAIN = formula(
    r"g = \frac{\partial L}{\partial y} \to \frac{\partial L}{\partial x} = "
    r"\frac{\partial L}{\partial y} \frac{\partial y}{\partial x}"
)
LOSS_FORMULAS = (
    with_sentence(
        r"p_{k} = \frac{\exp z_{k}}{\sum_{j} \exp z_{j}} \quad L = - \log p_{\text{label}}",
        "Softmax turns the scores z into probabilities p. The loss L is small where the label's probability is near 1.",
    ),
    with_sentence(
        r"\frac{\partial L}{\partial z_{k}} = p_{k} - t_{k}",
        "t is 1 at the label and 0 elsewhere. This is where the way back begins: the label's score has to rise, the "
        "others have to fall, each by as much as its probability is wrong.",
    ),
)
STEPPED = r"w - \eta \partial L / \partial w"
STEP_FORMULAS = (
    with_sentence(
        r"w \gets w - \eta \frac{\partial L}{\partial w}",
        "Each parameter moves against its gradient; the learning rate \N{GREEK SMALL LETTER ETA} says how far.",
    ),
)
FORWARD_FORMULAS = {
    "conv": (
        with_sentence(
            r"y_{i j o} = \sum_{u v c} \tilde{x}_{i + u, j + v, c} w_{u v c o} + b_{o}",
            "Each filter o is laid on every place (i, j) of the padded input; products of pixels and weights are "
            "summed. The same weights are used everywhere, and the kernel is not flipped.",
        ),
    ),
    "relu": (with_sentence(r"y = \max(x, 0)", "What is negative becomes 0."),),
    "max_pool": (
        with_sentence(
            r"y_{i j c} = \max_{u, v} x_{2 i + u, 2 j + v, c}",
            "The largest of each 2 x 2 pixels stays, in each channel by itself: a quarter of the numbers.",
        ),
    ),
    "dense": (
        with_sentence(
            r"y_{k} = \sum_{d} x_{d} w_{d k} + b_{k}",
            "All numbers that are left stand in one row; each class has a weight for each of them. The outputs are the "
            "scores z of the classes.",
        ),
    ),
}
BACKWARD_FORMULAS = {
    "conv": (
        with_sentence(
            r"\frac{\partial L}{\partial w_{u v c o}} = \sum_{i j} \tilde{x}_{i + u, j + v, c} g_{i j o}",
            "A weight met every pixel of the image: its gradient is the sum of these pixels times the gradients of the "
            "outputs that they went into. Input and gradient are correlated.",
        ),
        with_sentence(r"\frac{\partial L}{\partial b_{o}} = \sum_{i j} g_{i j o}", "The bias was added everywhere."),
        with_sentence(
            r"\frac{\partial L}{\partial \tilde{x}_{a e c}} = \sum_{u v o} g_{a - u, e - v, o} w_{u v c o}",
            "A pixel went into each output whose window holds it, at another place of the kernel each time: the minus "
            "signs flip the kernel in height and width, and the sum runs over filters instead of channels. The "
            "gradient of the padding is dropped.",
        ),
    ),
    "relu": (
        with_sentence(
            r"\frac{\partial L}{\partial x} = g \cdot [x > 0]",
            "Where the input was above 0, the gradient goes on as it is; elsewhere it ends. The mask is of the input, "
            "not of the gradient.",
        ),
    ),
    "max_pool": (
        with_sentence(
            r"\frac{\partial L}{\partial x_{a e c}} = \sum_{(i, j) \text{ won by } (a, e)} g_{i j c}",
            "The gradient of each window goes to the pixel that was its largest; of equal ones to the first, row by "
            "row. The other three had no part in the output and get 0.",
        ),
    ),
    "dense": (
        with_sentence(
            r"\frac{\partial L}{\partial w_{d k}} = x_{d} g_{k} \quad \frac{\partial L}{\partial b_{k}} = g_{k}",
            "A weight's gradient is the number that it multiplied, times the gradient of the score that it went into.",
        ),
        with_sentence(
            r"\frac{\partial L}{\partial x_{d}} = \sum_{k} g_{k} w_{d k}",
            "A number went into all scores: it collects their gradients, weighted by the same weights.",
        ),
    ),
}
TITLES = {
    "conv": f"{KERNEL} x {KERNEL} convolution, padding 1",
    "relu": "ReLU",
    "max_pool": f"{POOL} x {POOL} max pooling",
    "dense": "all numbers to all scores",
}


def symbol(name: str) -> str:
    """A name such as "dL/dw" or "y" as MathML in a line."""
    if name.startswith("dL/d"):
        return formula(f"\\partial L / \\partial {name.removeprefix('dL/d')}", block=False)
    return formula(name, block=False)


# Layers ---------------------------------------------------------------------------------------------------------------


def collect_section(trace: Trace, layer: LayerTrace) -> Section:
    """Returns what the page says of a layer."""
    shapes = [("x", shape_text(layer.x)), ("y", shape_text(layer.y))]
    shapes += [(name, shape_text(array)) for name, array in layer.params.items()]
    forward_maps = [draw_array("w", layer.params["w"])] if layer.params else []
    forward_maps.append(draw_array("y", layer.y))
    backward_maps = [draw_array("dL/dy", layer.g)]
    backward_maps += [draw_array(f"dL/d{name}", array) for name, array in layer.gradients.items() if name == "w"]
    backward_maps.append(draw_array("dL/dx", layer.dx))
    forward_examples: tuple[Example, ...] = ()
    backward_examples: tuple[Example, ...] = ()
    if layer.name == "conv1":
        forward_examples = (conv_example(layer),)
        backward_examples = (kernel_gradient_example(layer), input_gradient_example(layer))
    if layer.name == "pool1":
        backward_examples = (pool_example(layer),)
    if layer.name == "relu1":
        backward_examples = (relu_example(layer),)
    return Section(
        name=layer.name,
        title=TITLES[layer.kind],
        shapes=tuple(shapes),
        parameters=sum(array.size for array in layer.params.values()),
        forward=Part(FORWARD_FORMULAS[layer.kind], tuple(forward_maps), forward_examples),
        backward=Part(BACKWARD_FORMULAS[layer.kind], tuple(backward_maps), backward_examples),
        largest_difference=max(row.largest for row in trace.differences if row.layer == layer.name),
    )


def shape_text(array: np.ndarray) -> str:
    """A shape without the axis of the one image."""
    shape = array.shape[1:] if array.shape[0] == 1 and array.ndim in (2, 4) else array.shape
    return " x ".join(map(str, shape))


# Maps -----------------------------------------------------------------------------------------------------------------


def draw_array(name: str, array: np.ndarray) -> MapImage:
    """Draws an array: images (1, H, W, C) as C maps, kernels (U, V, C, O) as a row a channel and a column a filter."""
    columns = MAPS_IN_ROW
    if array.ndim == 4 and len(array) == 1:
        maps = np.moveaxis(array[0], -1, 0)
    elif array.ndim == 4:
        maps = array.transpose(2, 3, 0, 1).reshape(-1, *array.shape[:2])
        columns = array.shape[3]
    elif len(array) == 1:
        maps = array[None]
    else:
        maps = array.T[None]  # a class in each row
    pixels = plots.signed_maps(maps, columns=columns)
    count, height, width = maps.shape
    largest = float(np.abs(array).max())
    what = f"{count} maps of {height} x {width}" if count > 1 else f"{height} x {width}"
    return MapImage(
        title=symbol(name),
        address=plots.data_uri(pixels),
        alt=f"{name}: {what}",
        caption=f"{what}, from {plots_number(float(array.min()))} to {plots_number(float(array.max()))}"
        if largest
        else f"{what}, all 0",
        width=min(MAP_SCALE * pixels.shape[1], 560),
    )


def draw_image(image: np.ndarray) -> MapImage:
    """Draws the image in gray."""
    times = max(1, IMAGE_ENLARGED * 8 // max(image.shape))
    pixels = np.round(255 * image).astype(np.uint8).repeat(times, 0).repeat(times, 1)
    height, width = image.shape
    return MapImage(
        "", plots.data_uri(np.stack([pixels] * 4, -1) | np.array([0, 0, 0, 255], np.uint8)), "the image",
        f"{height} x {width} pixels, 0 is black and 1 is white", pixels.shape[1],
    )  # fmt: skip


def draw_legend() -> MapImage:
    """Draws the colors of the maps from the most negative number to the most positive one."""
    pixels = plots.signed_maps(np.linspace(-1, 1, 21)[None, None], columns=1)
    return MapImage("", plots.data_uri(pixels), "from blue over the page's color to orange", "", pixels.shape[1])


def draw_step(trace: Trace) -> tuple[MapImage, ...]:
    """Draws kernel, gradient and new kernel of the first convolution."""
    layer = trace.layer("conv1")
    return (
        draw_array("w", layer.params["w"]),
        draw_array("dL/dw", layer.gradients["w"]),
        replace(draw_array("w", trace.stepped["conv1"]["w"]), title=formula(STEPPED, block=False)),
    )


def plots_number(value: float) -> str:
    """A number with three digits that count."""
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}")


# Numbers by hand ------------------------------------------------------------------------------------------------------


def number_cell(value: float, largest: float, *, digits: int = 2) -> Cell:
    """A number on the color of its sign and size."""
    red, green, blue, opacity = plots.signed_colors(np.array(value), largest)
    share = CELL_OPACITY * int(opacity) / 255
    rounded = round(value, digits) + 0.0  # -0.0 + 0.0 is 0.0
    text = f"{rounded:.{digits}f}".replace("-", "\N{MINUS SIGN}")
    return Cell(text, f"background: rgba({red}, {green}, {blue}, {share:.3f})")


def number_table(sign: str, title: str, array: np.ndarray, *, digits: int = 2) -> NumberTable:
    """A small matrix as a table."""
    largest = float(np.abs(array).max())
    rows = []
    for row in array:
        rows.append(tuple(number_cell(float(value), largest, digits=digits) for value in row))
    return NumberTable(sign, title, tuple(rows))


def brightest_place(array: np.ndarray) -> tuple[int, int]:
    """The place of the largest absolute number of a map, away from the border."""
    inner = np.abs(array[1:-1, 1:-1])
    row, column = np.unravel_index(int(inner.argmax()), inner.shape)
    return int(row) + 1, int(column) + 1


def strongest_channel(array: np.ndarray) -> int:
    """The channel of an image (1, H, W, C) whose numbers are largest in sum."""
    return int(np.abs(array[0]).sum((0, 1)).argmax())


def busiest_part(array: np.ndarray, *, side: int) -> tuple[int, int]:
    """The corner of the square part of a map, of so many numbers a side, whose numbers are largest in sum."""
    sums = backprop.sum_windows(
        np.abs(array)[None, :, :, None], (array.shape[0] - side + 1, array.shape[1] - side + 1), side, 1
    )
    row, column = np.unravel_index(int(sums.argmax()), sums.shape[1:3])
    return int(row), int(column)


def conv_example(layer: LayerTrace) -> Example:
    """One output of the first convolution: a window, the kernel, their products."""
    number = strongest_channel(layer.g)
    row, column = brightest_place(layer.y[0, ..., number])
    padded = backprop.pad(layer.x, PADDING)[0, ..., 0]
    window, kernel = padded[row : row + KERNEL, column : column + KERNEL], layer.params["w"][..., 0, number]
    return Example(
        f"One number by hand: output ({row}, {column}) of filter {number}. The window's pixels, times the weights at "
        "the same places:",
        (
            number_table("", "window", window),
            number_table("\N{MULTIPLICATION SIGN}", "kernel", kernel),
            number_table("=", "products", window * kernel),
        ),
        f"Their sum is {plots_number(float((window * kernel).sum()))}; with the bias "
        f"{plots_number(float(layer.params['b'][number]))} it is y = "
        f"{plots_number(float(layer.y[0, row, column, number]))}.",
    )


def kernel_gradient_example(layer: LayerTrace) -> Example:
    """One weight's gradient: where the outputs' gradients are largest, what that weight met there."""
    number = strongest_channel(layer.g)
    gradient = layer.gradients["w"][..., 0, number]
    u, v = np.unravel_index(int(np.abs(gradient).argmax()), gradient.shape)
    g = layer.g[0, ..., number]
    padded = backprop.pad(layer.x, PADDING)[0, ..., 0]
    met = padded[u : u + g.shape[0], v : v + g.shape[1]]
    products = met * g
    row, column = busiest_part(products, side=4)
    part = np.s_[row : row + 4, column : column + 4]
    rest = float(products.sum() - products[part].sum())
    return Example(
        f"One weight by hand: w at ({u}, {v}) of filter {number}. Of its {g.size} products, those of the 4 x 4 outputs "
        f"from ({row}, {column}) on: the pixels that it met, times the gradients of the outputs:",
        (
            number_table("", "pixels met", met[part]),
            number_table("\N{MULTIPLICATION SIGN}", "g", g[part]),
            number_table("=", "products", products[part], digits=3),
        ),
        f"They sum up to {plots_number(float(products[part].sum()))}, the others to {plots_number(rest)}: together "
        f"{plots_number(float(gradient[u, v]))}, which is the gradient of this weight.",
    )


def input_gradient_example(layer: LayerTrace) -> Example:
    """One pixel's gradient: the gradients of the nine outputs that it went into, and the flipped kernel."""
    dx, g = layer.dx[0, ..., 0], layer.g[0]
    row, column = brightest_place(dx)
    sums = []
    for number in range(g.shape[-1]):
        around = g[row - 1 : row + 2, column - 1 : column + 2, number]
        sums.append(float((around * layer.params["w"][::-1, ::-1, 0, number]).sum()))
    strongest = int(np.abs(sums).argmax())
    around = g[row - 1 : row + 2, column - 1 : column + 2, strongest]
    flipped = layer.params["w"][::-1, ::-1, 0, strongest]
    terms = " + ".join(plots_number(value) for value in sums)
    return Example(
        f"One pixel by hand: ({row}, {column}). It went into nine outputs of each filter; of filter {strongest}, their "
        "gradients and the kernel, flipped in height and width:",
        (
            number_table("", "g around the pixel", around),
            number_table("\N{MULTIPLICATION SIGN}", "flipped kernel", flipped),
            number_table("=", "products", around * flipped, digits=3),
        ),
        f"Their sum is {plots_number(sums[strongest])}. Over all filters: "
        f"{terms} = {plots_number(float(dx[row, column]))}.",
    )


def pool_example(layer: LayerTrace) -> Example:
    """One window of a pooling: its pixels, and where the gradient went."""
    g = np.abs(layer.g[0])
    i, j, channel = np.unravel_index(int(g.argmax()), g.shape)
    part = np.s_[POOL * i : POOL * i + POOL, POOL * j : POOL * j + POOL, channel]
    return Example(
        f"One window by hand: ({i}, {j}) of channel {channel}, whose gradient is "
        f"{plots_number(float(layer.g[0, i, j, channel]))}:",
        (
            number_table("", "x", layer.x[0][part]),
            number_table("\N{RIGHTWARDS ARROW}", "its gradient", layer.dx[0][part]),
        ),
        "All of it goes to the largest pixel.",
    )


def relu_example(layer: LayerTrace) -> Example:
    """A part of a map: inputs, gradients, and what is left of them."""
    cut = layer.g - layer.dx  # what the mask takes away
    channel = strongest_channel(cut if cut.any() else layer.g)
    row, column = brightest_place((cut if cut.any() else layer.g)[0, ..., channel])
    row, column = min(row, layer.g.shape[1] - 3), min(column, layer.g.shape[2] - 3)
    part = np.s_[row - 1 : row + 3, column - 1 : column + 3, channel]
    return Example(
        f"Some numbers by hand: 4 x 4 of channel {channel}, from ({row - 1}, {column - 1}) on:",
        (
            number_table("", "x", layer.x[0][part]),
            number_table("", "g", layer.g[0][part]),
            number_table("\N{RIGHTWARDS ARROW}", "its gradient", layer.dx[0][part]),
        ),
        "Where x is negative, nothing goes on.",
    )
