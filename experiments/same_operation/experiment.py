"""One operation under several names: convolutions as matrices, patches, dense layers, pooling and attention.

Nothing is trained. Filters and images are drawn at random, and two layers that are said to be the same get the same
values: what is measured is how far their outputs are apart. Layers of the package are compared with XLA's own
convolution, for on a CPU some of them are one program (`nn/conv.py`), which would agree with itself.
"""

from functools import partial

import jax
import numpy as np

from cnn_vit import plots
from cnn_vit.analysis.same_operation import (
    add_places,
    attention_of_convolution,
    average_kernel,
    convolution_matrix,
    layer_function,
    read_weights,
    run_layer,
    unfold,
)
from cnn_vit.analysis.shift import measure_shift
from cnn_vit.models import build
from cnn_vit.nn.conv import Conv, Slide, plain_convolve
from cnn_vit.nn.dense import Dense
from cnn_vit.nn.patches import PatchEmbed
from cnn_vit.nn.pool import average_pool, max_pool
from cnn_vit.nn.values import functional, initial_values
from cnn_vit.reports.evidence import at_least, at_most
from cnn_vit.reports.intervals import student_interval
from cnn_vit.reports.lab_facts import Table
from cnn_vit.studies.lab import Measured

ORDER = 10
QUESTION = "Which layers of a CNN and of a ViT are the same operation under two names?"
CLAIM = (
    "A convolution is a product with a sparse matrix in which the same few weights stand again in each row. Patch "
    "embedding, 1x1 convolutions and average pooling are convolutions, and attention can be one: with a head for each "
    "weight of the filter and positions that are relative. Outputs then agree to the rounding of float32."
)
SENTENCES = {
    "matrix": (
        "A convolution is a matrix multiplication.",
        "The matrix has a row for each number of the output. For a row of pixels, at stride 1, each row of the matrix "
        "holds the filter one pixel farther on than the row above (a Toeplitz matrix). For an image the matrix has a "
        "block for each pair of a row of the output and a row of the image: each block is a Toeplitz matrix, and so is "
        "the arrangement of the blocks. The gradient of the image is a product with the transposed matrix. For an "
        "image of 8x8 pixels at least six of seven numbers of this matrix are zeros, and all others are copies of the "
        "same 135 weights: that is what local connection and weight sharing mean.",
    ),
    "equivariant": (
        "Convolution is equivariant to translation.",
        "A stride-1 network is exactly equivariant where its padding is circular: the matrix of each layer then "
        "has circulant blocks in a circulant arrangement, and commutes with the matrix of a shift. With zeros "
        "as padding this holds inside the image, but not at its border.",
    ),
    "patches": (
        "A Vision Transformer has no convolution.",
        "Its first layer is a convolution: patch embedding is one whose stride is the side of its filter, and also a "
        "product of the unfolded patches with one matrix.",
    ),
    "dense": (
        "A 1x1 convolution is a dense layer on each pixel.",
        "The channels of each pixel are multiplied by the same matrix. The MLP of a Transformer, a dense layer on each "
        "token, is a 1x1 convolution in the same way.",
    ),
    "pooling": (
        "Pooling is another operation than convolution.",
        "Max pooling is, for it is not linear. Average pooling is a depthwise convolution whose weights are all "
        "1 / k^2, and are not trained.",
    ),
    "attention": (
        "Self-attention can do all that a convolution does.",
        "It can with as many heads as the filter has weights, and with positions that tell the offset of one pixel "
        "from another: each head then reads at one offset. At the border it repeats the outermost pixels, unless "
        "pixels of zeros are given to it there. With one head fewer of this kind, one weight of the filter is missing.",
    ),
}
FORMULAS = (
    (
        r"y_{i} = \sum_{p} M_{i p} x_{p} \quad M_{i p} = w_{p - i}",
        "A convolution of a row of pixels x with the filter w as a product with the matrix M, at stride 1: the weight "
        "depends on p - i alone, so that each row of M is the row above, moved by one.",
        "pytest tests/analysis/test_same_operation.py -k matrix",
    ),
    (
        r"M T = T M",
        "A convolution of a row of pixels commutes with the matrix T of a shift around where its matrix M is "
        "circulant: each row is the row above moved by one, and what leaves at the end comes in at the beginning. The "
        "matrix of an image does where its blocks are circulant and arranged in a circulant way.",
        "pytest tests/analysis/test_same_operation.py -k commutes",
    ),
    (
        r"t_{n} = b + \sum_{u} x_{P n + u} w_{u}",
        "The token n of patches of P pixels: a convolution with the stride P, whose windows do not overlap.",
        "pytest tests/analysis/test_same_operation.py -k patch",
    ),
    (
        r"w_{u v} = \frac{1}{k^{2}}",
        "The weights with which a depthwise convolution takes the mean of k x k pixels.",
        "pytest tests/analysis/test_same_operation.py -k pooling",
    ),
    (
        r"a_{q p} = \frac{\exp(- \alpha |p - q - d|^{2})}{\sum_{r} \exp(- \alpha |r - q - d|^{2})}",
        "How much the head of the offset d of the pixel at q reads from the pixel at p (Cordonnier et al., "
        "arXiv:1911.03584). For a large \u03b1 it is 1 at p = q + d and 0 elsewhere.",
        "pytest tests/analysis/test_same_operation.py -k heads",
    ),
)
FIGURES = {
    "matrices": "A 3x3 filter, and the matrix that it becomes for an image of 6x6 pixels, with zeros and with circular "
    "padding: 6x6 blocks, one for each pair of a row of the output and a row of the image, each a Toeplitz or "
    "circulant matrix. Each row makes one pixel of the output. Blue is negative, orange positive.",
    "heads": "What the nine heads of one pixel read, for an image of 7x7 pixels: with \u03b1 = 1 and with \u03b1 = 20 "
    "for the pixel in the middle, and for the pixel in the upper left corner, whose heads stay inside the image.",
    "sharpness": "How far attention is from the convolution. A head gives each of the four pixels beside its own the "
    "share exp(-\u03b1), and the error falls with it until float32 has no more digits.",
}
SURPRISE = (
    "Attention that imitates a convolution pads by itself: a head that looks beyond the border finds the nearest pixel "
    "of the image, for a softmax always reads something. It is edge padding, exactly. The zeros that a convolution "
    "usually sees there have to be given to it as pixels."
)
CHOSEN = (
    "Nothing is trained. The bound of 1e-6 is what float32 leaves of a relative difference of 0. Where zero "
    "padding breaks was first measured at the center alone, and then everywhere inside."
)
SEEDS = (0, 1, 2)

SIDE, CHANNELS, FILTERS, KERNEL = 8, 3, 5, 3  # of images and convolutions
PATCH = 4  # pixels of a patch's side
IMAGES = 4
ROUNDING = 1e-5  # of the largest number: what sums of some dozen products in float32 leave of a difference of 0
EXACT = 1e-6  # of an equivariance error
SHARPNESSES = (1, 2, 4, 6, 8, 10, 12, 16, 20, 30)  # how hard a head looks at its pixel
SHARP = 30
LAYERS, SHIFT = 4, 2  # of the network that is shifted, whose images have 2 * SIDE pixels
CONVOLUTIONS = {  # name -> keywords of the convolution
    "zeros around": {"padding": 1},
    "no padding": {"padding": 0},
    "circular padding": {"padding": 1, "padding_kind": "circular"},
    "stride 2": {"padding": 1, "stride": 2},
    "dilation 2": {"padding": 2, "dilation": 2},
}
DRAWN_SIDE, MAP_SIDE = 6, 7  # pixels of the images of the figures


def measure(seed: int, runs, *, quick: bool) -> Measured:
    """Everything of one seed: filters and images are drawn from it."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return rng.normal(size=shape).astype(np.float32)

    images = draw(IMAGES, SIDE, SIDE, CHANNELS)
    kernel = draw(KERNEL, KERNEL, CHANNELS, FILTERS)
    rows = compare_matrices(images, kernel)
    rows += compare_patches(images, draw(PATCH, PATCH, CHANNELS, FILTERS), draw(FILTERS))
    rows += compare_dense(images, draw(CHANNELS, FILTERS), draw(FILTERS))
    rows += compare_pooling(images, draw(*images.shape))
    rows += compare_attention(images, kernel)
    rows += compare_shifts(seed, draw(IMAGES, 2 * SIDE, 2 * SIDE, 1))
    if seed == SEEDS[0]:
        rows += record_figures(draw(KERNEL, KERNEL, 1, 1))
    return Measured(rows)


def difference(values, expected) -> float:
    """The largest difference of two arrays, relative to the largest number."""
    expected = np.asarray(expected, np.float64).ravel()
    return float(np.abs(np.asarray(values, np.float64).ravel() - expected).max() / np.abs(expected).max())


def convolve_with_xla(
    images: np.ndarray, kernel: np.ndarray, *, padding: int = 0, stride: int = 1, groups: int = 1
) -> np.ndarray:
    """XLA's convolution, with zeros as padding."""
    edges = ((padding, padding), (padding, padding))
    slide = Slide(stride=(stride, stride), padding=edges, dilation=(1, 1), groups=groups)
    return np.asarray(plain_convolve(images, kernel, slide))


# Convolutions as matrices ---------------------------------------------------------------------------------------------


def compare_matrices(images: np.ndarray, kernel: np.ndarray) -> list[dict]:
    """Each convolution against the product with its matrix, and its gradient against the transposed one."""
    rows = []
    for name, keywords in CONVOLUTIONS.items():
        layer = Conv(CHANNELS, FILTERS, KERNEL, bias=False, **keywords)
        y, backward = jax.vjp(partial(layer_function(layer), {"kernel": kernel}), images)
        matrix = convolution_matrix(kernel, (SIDE, SIDE), **keywords)
        flat = np.asarray(y, np.float64).reshape(IMAGES, -1)
        # The gradient of half the sum of squares, which is the output itself.
        (of_images,) = backward(y)
        rows.append(
            {
                "what": "matrix",
                "case": name,
                "error": difference(flat, images.reshape(IMAGES, -1) @ matrix.T),
                "gradient_error": difference(of_images, flat @ matrix),
                "numbers": matrix.size,
                "share": float((matrix != 0).mean()),
                "weights": kernel.size,
            }
        )
    return rows


def compare_shifts(seed: int, images: np.ndarray) -> list[dict]:
    """The equivariance error of a deep stride-1 network, and whether the matrix of a layer commutes with a shift."""
    rows = []
    for kind in ("circular", "zero"):
        network = build(
            "cnn/small",
            10,
            image_size=2 * SIDE,
            channels=1,
            filters=(8,) * LAYERS,
            convolutions=1,
            padding_kind=kind,
            pooling="none",
            batch_norm=False,
            head="average",
        )
        params, stats = initial_values(functional(network), seed)
        report = measure_shift(network, params, stats, images, shift=(SHIFT, SHIFT))
        last = [layer for layer in report.layers if layer.kind == "Conv"][-1]
        # Each layer carries the border one pixel farther inside, and the shift moves what is wrong above and left.
        inside = slice(LAYERS + SHIFT, 2 * SIDE - LAYERS)
        size = (SIDE, SIDE)
        kernel = params["stages"][0]["convolutions"][0]["kernel"]
        matrix = convolution_matrix(kernel[..., :1], size, padding=1, padding_kind=kind)
        pixels = SIDE * SIDE
        shift = np.roll(np.eye(pixels).reshape(*size, pixels), (SHIFT, SHIFT), axis=(0, 1)).reshape(pixels, pixels)
        rows.append(
            {
                "what": "shift",
                "padding": kind,
                "error": last.equivariance,
                "inside": float(last.errors[inside, inside].max()),
                "largest": float(last.errors.max()),
                "commutator": float(np.abs(matrix @ shift - shift @ matrix).max()),
            }
        )
    return rows


# Layers of other names ------------------------------------------------------------------------------------------------


def compare_patches(images: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> list[dict]:
    """Patch embedding against a convolution with its stride, and against unfolding and a product."""
    params = {"kernel": kernel, "bias": bias}
    tokens = run_layer(PatchEmbed(PATCH, CHANNELS, FILTERS), params, images)
    convolved = convolve_with_xla(images, kernel, stride=PATCH) + bias
    product = unfold(images, PATCH, stride=PATCH) @ kernel.reshape(-1, FILTERS) + bias
    return [
        {"what": "patches", "case": "convolution with stride", "error": difference(tokens, convolved)},
        {"what": "patches", "case": "unfold and product", "error": difference(tokens, product)},
    ]


def compare_dense(images: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> list[dict]:
    """A dense layer on each pixel against a 1x1 convolution."""
    dense = run_layer(Dense(CHANNELS, FILTERS), {"kernel": kernel, "bias": bias}, images)
    convolved = convolve_with_xla(images, kernel[None, None]) + bias
    return [{"what": "dense", "error": difference(dense, convolved)}]


def compare_pooling(images: np.ndarray, others: np.ndarray) -> list[dict]:
    """Average pooling against a depthwise convolution; and how far each pooling is from being linear."""
    rows = []
    window = {"stride": 2, "padding": 1}
    convolved = convolve_with_xla(images, average_kernel(KERNEL, CHANNELS), groups=CHANNELS, **window)
    poolings = {"average": partial(average_pool, count_padding=True), "max": max_pool}
    for name, pool in poolings.items():
        of_images, of_others, of_sum = (
            np.asarray(pool(x, KERNEL, **window)) for x in (images, others, images + others)
        )
        row = {"what": "pooling", "case": name, "additivity": difference(of_images + of_others, of_sum)}
        rows.append(row | {"error": difference(of_images, convolved)})
    return rows


# Attention ------------------------------------------------------------------------------------------------------------


def compare_attention(images: np.ndarray, kernel: np.ndarray) -> list[dict]:
    """Attention with a head for each weight against the convolution, for each sharpness and padding."""
    rows = []
    around = ((0, 0), (1, 1), (1, 1), (0, 0))
    convolved = {
        "edge": convolve_with_xla(np.pad(images, around, mode="edge"), kernel),
        "zero": convolve_with_xla(images, kernel, padding=1),
    }
    tokens = add_places(images, FILTERS)
    for sharpness in SHARPNESSES:
        attention, params = attention_of_convolution(kernel, sharpness=sharpness)
        y = run_layer(attention, params, tokens)[..., :FILTERS]
        rows.append({"what": "attention", "sharpness": sharpness, "error": difference(y, convolved["edge"])})
        if sharpness == SHARP:
            row = {"what": "attention", "case": "zeros, no ring", "error": difference(y, convolved["zero"])}
            rows.append(row)
    surrounded = np.pad(images, around)
    attention, params = attention_of_convolution(kernel, sharpness=SHARP)
    y = run_layer(attention, params, add_places(surrounded, FILTERS))[..., :FILTERS]
    inside = y.reshape(IMAGES, SIDE + 2, SIDE + 2, FILTERS)[:, 1:-1, 1:-1]
    rows.append({"what": "attention", "case": "zeros, a ring of them", "error": difference(inside, convolved["zero"])})
    error = error_without_a_head(images, convolved["edge"])
    rows.append({"what": "attention", "case": "one head fewer", "error": error})
    return rows


def error_without_a_head(images: np.ndarray, convolved: np.ndarray) -> float:
    """The least relative error of eight heads for nine weights: the last dense layer is fitted by least squares."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    windows = unfold(padded, KERNEL, stride=1).reshape(-1, KERNEL * KERNEL * CHANNELS).astype(np.float64)
    target = convolved.reshape(-1, FILTERS).astype(np.float64)
    errors = []
    for head in range(KERNEL * KERNEL):
        read = np.delete(windows, np.s_[head * CHANNELS : (head + 1) * CHANNELS], axis=1)
        weights, *_ = np.linalg.lstsq(read, target, rcond=None)
        residual = target - read @ weights
        errors.append(float(np.sqrt((residual**2).sum() / (target**2).sum())))
    return min(errors)


# Figures --------------------------------------------------------------------------------------------------------------


def record_figures(kernel: np.ndarray) -> list[dict]:
    """The numbers of the figures: a filter with its matrices, and what the heads of a pixel read."""
    rows = [{"what": "figure", "name": "filter", "map": write_map(kernel[..., 0, 0])}]
    for kind in ("zero", "circular"):
        matrix = convolution_matrix(kernel, (DRAWN_SIDE, DRAWN_SIDE), padding=1, padding_kind=kind)
        rows.append({"what": "figure", "name": f"{kind} padding", "map": write_map(matrix)})
    tokens = add_places(np.zeros((1, MAP_SIDE, MAP_SIDE, 1)), 1)
    middle = MAP_SIDE * MAP_SIDE // 2
    for name, sharpness, query in (("middle", 1, middle), ("middle", 20, middle), ("corner", 20, 0)):
        attention, params = attention_of_convolution(kernel, sharpness=sharpness)
        weights = read_weights(attention, params, tokens)[0, query]
        row = {"what": "heads", "name": f"{name}, \u03b1 = {sharpness}"}
        rows.append(row | {"maps": [write_map(head.reshape(MAP_SIDE, MAP_SIDE)) for head in weights]})
    return rows


def write_map(numbers: np.ndarray) -> list[str]:
    """A map as a text a line, two digits a number."""
    return [" ".join(f"{number:.2f}" for number in line) for line in numbers]


def read_map(lines: list[str]) -> np.ndarray:
    """The numbers of a map that `write_map` wrote."""
    return np.array([line.split() for line in lines], float)


# What the rows say ----------------------------------------------------------------------------------------------------


def values(rows, key: str, **match) -> list[float]:
    """The numbers of the rows that match, one a seed."""
    return [row[key] for row in rows if key in row and all(row.get(name) == value for name, value in match.items())]


def weigh(rows) -> dict:
    """The evidence for each sentence."""
    matrix = []
    for name in CONVOLUTIONS:
        errors = values(rows, "error", what="matrix", case=name)
        matrix.append(at_most(f"difference of the convolution and the product, {name}", errors, ROUNDING))
    gradients = np.reshape(values(rows, "gradient_error", what="matrix"), (-1, len(CONVOLUTIONS))).max(1)
    matrix.append(at_most("difference of the gradient and the product with the transposed", gradients, ROUNDING))
    equivariant = [
        at_most(
            f"equivariance error of {LAYERS} layers, circular padding",
            values(rows, "error", what="shift", padding="circular"),
            EXACT,
        ),
        at_most(
            f"equivariance error of {LAYERS} layers, zeros as padding",
            values(rows, "error", what="shift", padding="zero"),
            EXACT,
        ),
        at_most(
            f"largest error at a place that is {LAYERS} pixels or more from the border, before and after the shift",
            values(rows, "inside", what="shift", padding="zero"),
            EXACT,
            is_control=True,
        ),
        at_most(
            "largest number of M T - T M, for the matrix M of a layer with circular padding and T of the shift",
            values(rows, "commutator", what="shift", padding="circular"),
            0,
            is_control=True,
        ),
    ]
    patches = []
    for name in ("convolution with stride", "unfold and product"):
        errors = values(rows, "error", what="patches", case=name)
        patches.append(at_least(f"difference of patch embedding and {name}", errors, 1e-3))
    dense = [at_most("difference of the two", values(rows, "error", what="dense"), ROUNDING)]
    pooling = [
        at_least(
            "difference of average pooling and the depthwise convolution",
            values(rows, "error", what="pooling", case="average"),
            1e-3,
        ),
        at_least(
            "how far max pooling is from being linear: |f(a) + f(b) - f(a + b)| / |f(a + b)|",
            values(rows, "additivity", what="pooling", case="max"),
            1e-3,
        ),
        at_most(
            "the same of average pooling",
            values(rows, "additivity", what="pooling", case="average"),
            ROUNDING,
            is_control=True,
        ),
    ]
    cases = {
        "nine heads and a convolution with edge padding": {"sharpness": SHARP},
        "nine heads on an image with a ring of zeros, and a convolution with zeros as padding": {
            "case": "zeros, a ring of them"
        },
        "nine heads without the ring, and a convolution with zeros as padding": {"case": "zeros, no ring"},
        "eight heads, fitted as well as can be, and a convolution with edge padding": {"case": "one head fewer"},
    }
    attention = []
    for statement, match in cases.items():
        errors = values(rows, "error", what="attention", **match)
        attention.append(at_most(f"difference of {statement}", errors, ROUNDING))
    return {
        "matrix": matrix,
        "equivariant": equivariant,
        "patches": patches,
        "dense": dense,
        "pooling": pooling,
        "attention": attention,
    }


def largest_text(errors) -> str:
    """The largest difference of all seeds."""
    return f"{max(errors):.1e}" if any(errors) else "0"


def tabulate(rows) -> list[Table]:
    """The tables: what is the same as what, the matrices, and the attention by sharpness."""
    stride = {"what": "patches", "case": "convolution with stride"}
    product = {"what": "patches", "case": "unfold and product"}
    ring = {"what": "attention", "case": "zeros, a ring of them"}
    fewer = {"what": "attention", "case": "one head fewer"}
    same = [
        ("patch embedding", "convolution whose stride is its side", "error", stride),
        ("patch embedding", "unfold, then one product", "error", product),
        ("1x1 convolution", "dense layer on each pixel", "error", {"what": "dense"}),
        ("3x3 average pooling", "depthwise convolution, weights 1/9", "error", {"what": "pooling", "case": "average"}),
        ("3x3 max pooling", "any linear layer", "additivity", {"what": "pooling", "case": "max"}),
        ("3x3 convolution, edge padding", "attention in 9 heads", "error", {"what": "attention", "sharpness": SHARP}),
        ("3x3 convolution, zeros around", "attention in 9 heads, zeros around", "error", ring),
        ("3x3 convolution, edge padding", "attention in 8 heads, fitted", "error", fewer),
    ]
    cells = []
    for left, right, key, match in same:
        errors = values(rows, key, **match)
        cells.append((left, right, largest_text(errors), "yes" if max(errors) <= ROUNDING else "no"))
    columns = ("layer", "written as", "largest difference", "the same")
    tables = [Table("what is the same as what", columns, tuple(cells))]
    cells = []
    for name in CONVOLUTIONS:
        match = {"what": "matrix", "case": name}
        (first, *_), (share, *_), (weights, *_) = (
            values(rows, key, **match) for key in ("numbers", "share", "weights")
        )
        errors = [largest_text(values(rows, key, **match)) for key in ("error", "gradient_error")]
        cells.append((name, f"{first:,}", f"{100 * share:.1f} %", f"{weights:,}", *errors))
    columns = ("3x3 convolution", "numbers of the matrix", "not 0", "weights", "difference", "of the gradient")
    tables.append(Table("convolutions as matrices, 8x8 pixels, 3 channels to 5", columns, tuple(cells)))
    cells = []
    for kind in ("circular", "zero"):
        match = {"what": "shift", "padding": kind}
        texts = []
        for key in ("error", "inside", "largest", "commutator"):
            texts.append(mean_text(values(rows, key, **match)))
        cells.append((kind, *texts))
    columns = ("padding", "equivariance error", "largest inside", "largest at the border", "|M T - T M|")
    tables.append(Table(f"a shift by {SHIFT} pixels, {LAYERS} layers of stride 1", columns, tuple(cells)))
    cells = []
    for sharpness in SHARPNESSES:
        error = mean_of(values(rows, "error", what="attention", sharpness=sharpness))
        cells.append((str(sharpness), f"{error:.1e}", f"{4 * np.exp(-sharpness):.1e}"))
    columns = ("sharpness \u03b1", "difference from the convolution", "4 exp(-\u03b1)")
    tables.append(Table("attention as a convolution, by how hard a head looks", columns, tuple(cells)))
    return tables


def mean_of(numbers) -> float:
    """The mean of the seeds."""
    return float(np.mean(numbers))


def mean_text(numbers) -> str:
    """The mean of the seeds and half the width of its interval; 0 where all are."""
    if not any(numbers):
        return "0"
    estimate, low, high = student_interval(numbers)
    if max(numbers) <= EXACT:
        return f"{estimate:.1e}"
    half = 0.0 if low is None or high is None else (high - low) / 2
    return f"{estimate:.3f} \u00b1 {half:.3f}"


def draw(rows) -> dict[str, str]:
    """The matrices, what the heads read, and the error by sharpness."""
    matrices = []
    for row in rows:
        if row["what"] == "figure":
            colors = plots.signed_maps(read_map(row["map"])[None], columns=1)
            matrices.append(plots.draw_panel(plots.data_uri(colors), row["name"]))
    heads = []
    for row in rows:
        if row["what"] == "heads":
            maps = np.stack([read_map(lines) for lines in row["maps"]])
            colors = plots.signed_maps(maps, columns=KERNEL, largest=1)
            heads.append(plots.draw_panel(plots.data_uri(colors), row["name"]))
    # Where float32 has no digit left the difference is 0, which a logarithmic axis has no place for.
    errors = {
        sharpness: mean_of(values(rows, "error", what="attention", sharpness=sharpness)) for sharpness in SHARPNESSES
    }
    seen = [sharpness for sharpness in SHARPNESSES if errors[sharpness] > 0]
    lines = [
        plots.Line("measured", seen, [errors[sharpness] for sharpness in seen], 0),
        plots.Line("4 exp(-\u03b1)", seen, [4 * float(np.exp(-sharpness)) for sharpness in seen], 1),
    ]
    title = "Difference of attention and convolution"
    return {
        "matrices": plots.side_by_side(matrices, "A filter and its matrices"),
        "heads": plots.side_by_side(heads, "What nine heads of one pixel read"),
        "sharpness": plots.draw_curves(lines, title=title, x_label="sharpness \u03b1", log=True),
    }
