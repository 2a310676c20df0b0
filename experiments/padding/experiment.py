"""Padding: which kind lets a convolution commute with a shift, what each tells of the place, and what it costs.

No training is needed for the first part: networks of six 3x3 convolutions with random filters look at noise. The second
part trains small networks, on digits for their accuracy, and on drawn shapes whose class is the place where they lie.
"""

from functools import partial

import jax
import numpy as np

from cnn_vit import compilation, plots
from cnn_vit.analysis.record import record_calls
from cnn_vit.analysis.shift import measure_shift
from cnn_vit.analysis.table import describe
from cnn_vit.compilation import ProgramKind
from cnn_vit.models import build
from cnn_vit.nn.values import functional, initial_values
from cnn_vit.reports.evidence import at_least, at_most
from cnn_vit.reports.lab_facts import Table
from cnn_vit.reports.lab_rows import error_text, percent_text, values
from cnn_vit.runs.journal import cpu_seconds
from cnn_vit.studies.lab import Measured
from cnn_vit.studies.trials import Trial

ORDER = 30
QUESTION = "What does padding do to an image, and what does it tell the network of the place?"
CLAIM = (
    "A convolution commutes with a shift only where its padding is what the shift brings in: circular padding with a "
    "shift around, no padding with a window that moves. Zeros do neither, and tell every layer how far the border is."
)
SENTENCES = {
    "invariant": (
        "Padding does not change the image, because a CNN is translation invariant.",
        "A convolution is equivariant, not invariant: features move with the image. They do so exactly only with "
        "circular padding, or without any. Zeros break it at the border, one pixel farther inside with each layer, and "
        "mark the place: even features of noise then say how far the center is.",
    ),
    "place": (
        "A CNN that ends with a global average cannot tell where something is.",
        "It cannot where nothing marks the place, as with circular padding. Zeros mark it; and without padding the "
        "border does, for fewer filters reach what lies near it.",
    ),
    "cost": (
        "Computation increases with padding.",
        "It does, by (n / (n - k + 1))^2 for one convolution, which is 14 % at 32 pixels and 2 % at 224; more over "
        "several layers, because without padding each leaves the next one fewer pixels. Parameters stay the same "
        "behind a global average.",
    ),
}
FORMULAS = (
    (
        r"y_{i} = \sum_{u} x_{i + u - p} w_{u}",
        "A convolution of a row x with the filter w and p pixels of padding. Where i + u - p is no pixel of the row, "
        "zero padding reads 0, circular padding the pixel modulo the length n.",
        "pytest tests/nn/test_padding_kinds.py",
    ),
    (
        r"e = \frac{|f(T x) - T f(x)|}{|f(x)|}",
        "The equivariance error of the network f up to a layer, for a shift T. It is 0 where both commute.",
        "pytest tests/analysis/test_shift.py",
    ),
    (
        r"\frac{n^{2}}{(n - k + 1)^{2}}",
        "How many times as many products a k x k convolution of n x n pixels has with padding that keeps the size.",
        "cnn-vit describe conv --n=32 --k=3 --s=1 --padding=1",
    ),
)
FIGURES = {
    "where_it_breaks": "Equivariance error at each place of the map behind six 3x3 convolutions, for a shift by 4 "
    "pixels around; dark is 0, and the lightest color 1. Errors stand where the border is and where the shift moved "
    "it. Without padding the map has 20 pixels a side, with it 32.",
    "by_layer": "How much of the distance from the center a linear function reads off the features of noise, by layer.",
}
SURPRISE = (
    "Neither of the two exact kinds is better than the other: circular padding is exact for a shift around and wrong "
    "for a moving camera, and no padding is the other way round. Features of noise tell the place only with zeros; but "
    "a network that is trained to tell the place does it best without any padding, probably because fewer filters see "
    "what lies near the border. With circular padding it never does better than guessing."
)
CHOSEN = (
    "The networks of the first part have random filters. Those that are trained have the settings of their "
    "recipes, with fewer steps. The bounds are what float32 leaves of an error of 0, and a hundredth of R\u00b2."
)
SEEDS = (0, 1, 2)

PADDINGS = {  # name -> (pixels, what stands there)
    "circular": (1, "circular"),
    "zero": (1, "zero"),
    "reflect": (1, "reflect"),
    "edge": (1, "edge"),
    "valid": (0, "zero"),
}
SIDE, CHANNELS, LAYERS = 32, 24, 6  # pixels of an image; filters of a layer; 3x3 convolutions
SHIFT = 4  # pixels down and right
IMAGES = 16  # of noise, for the equivariance error
FITTED, TESTED = 24, 12  # images of noise that the place is fitted on, and tested on
EXACT = 1e-6  # what float32 leaves of an error of 0
LEAK = 0.01  # of R^2: below that the features say nothing
CELLS = 9  # places of a shape: guessing is right once in 9
REPEATS = 15  # of a timing; the least counts, for other programs only make it longer


def deep_network(name: str):
    """Builds six convolutions with rectifiers, without normalization and pooling, and an average."""
    pixels, kind = PADDINGS[name]
    return build(
        "cnn/small",
        10,
        image_size=SIDE,
        channels=1,
        filters=(CHANNELS,) * LAYERS,
        convolutions=1,
        padding=pixels,
        padding_kind=kind,
        pooling="none",
        batch_norm=False,
        head="average",
    )


def list_trials(*, quick: bool) -> list[Trial]:
    """The runs: digits for the accuracy of each kind, shapes for the place."""
    # 14 pixels are the fewest that four convolutions without padding and a pooling leave something of.
    digits = [
        "data.image_size=14",
        "data.batch_size=64",
        "model.filters=(8, 16)",
        f"duration={5 if quick else 100} steps",
        "schedule.warmup=0",
    ]
    places = [
        "data.name=shapes",
        "data.label=position",
        f"data.classes={CELLS}",
        "data.image_size=24",
        f"data.train_count={256 if quick else 2000}",
        f"data.validation_count={64 if quick else 500}",
        f"data.test_count={64 if quick else 500}",
        "data.augment=()",
        "data.batch_size=64",
        f"duration={5 if quick else 140} steps",
        "schedule.warmup=0",
    ]
    trials = []
    for seed in SEEDS:
        for name, (pixels, kind) in PADDINGS.items():
            model = [f"model.padding={pixels}", f"model.padding_kind={kind}"]
            for task, overrides in (("digits", digits), ("place", places)):
                if task == "place" and name in ("reflect", "edge"):
                    continue
                trial = Trial(
                    "train",
                    "configs/digits_cnn.py",
                    (*overrides, *model, "evaluate_every=1000 steps", "checkpoint_every=1000 steps"),
                    seed=seed,
                    name=f"{task} {name} {seed}",
                )
                trials.append(trial)
    return trials


def measure(seed: int, runs, *, quick: bool) -> Measured:
    """Everything of one seed: the filters and the noise are drawn from it, and its runs are read."""
    rows, times = [], []
    for name in PADDINGS:
        rows += measure_equivariance(name, seed)
        rows += measure_place(name, seed)
    rows += count_products()
    for run_name, record in runs.items():
        task, name, run_seed = run_name.split()
        if int(run_seed) != seed:
            continue
        result = record.result
        accuracy = result["test"]["accuracy"]
        rows.append({"what": task, "padding": name, "accuracy": accuracy, "fingerprint": result["fingerprint"]})
        times.append({"what": task, "padding": name, "cpu_seconds": result["timing"]["cpu_seconds"]})
    times += time_networks(seed, repeats=2 if quick else REPEATS)
    return Measured(rows, times)


def measure_equivariance(name: str, seed: int) -> list[dict]:
    """The equivariance error of each convolution, for both meanings of a shift."""
    network = deep_network(name)
    params, stats = initial_values(functional(network), seed)
    noise = np.random.default_rng(seed).normal(size=(IMAGES, SIDE + SHIFT, SIDE + SHIFT, 1)).astype(np.float32)
    rows = []
    for motion in ("around", "window"):
        images = noise if motion == "window" else noise[:, :SIDE, :SIDE]
        report = measure_shift(network, params, stats, images, shift=(SHIFT, SHIFT), motion=motion)
        convolutions = [layer for layer in report.layers if layer.kind == "Conv"]
        for depth, layer in enumerate(convolutions, 1):
            height, width = layer.errors.shape
            row = {
                "what": "equivariance",
                "padding": name,
                "motion": motion,
                "layer": depth,
                "error": layer.equivariance,
                "invariance": layer.invariance,
                "at_center": float(layer.errors[height // 2, width // 2]),
                "largest": float(layer.errors.max()),
            }
            if depth == LAYERS and motion == "around" and seed == SEEDS[0]:
                row["map"] = [" ".join(f"{error:.2f}" for error in line) for line in layer.errors]
            rows.append(row)
        average = report.layers[-1].invariance
        rows.append({"what": "average", "padding": name, "motion": motion, "invariance": average})
    return rows


def measure_place(name: str, seed: int) -> list[dict]:
    """R^2 of the distance from the center, read off the features of noise by a linear function, for each layer."""
    network = deep_network(name)
    params, stats = initial_values(functional(network), seed)
    noise = np.random.default_rng(1000 + seed).normal(size=(FITTED + TESTED, SIDE, SIDE, 1)).astype(np.float32)

    def run(params, images):
        calls = record_calls(network, images, params, stats)
        return [jax.nn.relu(call.outputs) for call in calls if call.kind == "Conv"]

    kind = ProgramKind(jax.default_backend(), convolutional=True, dtype="float32")
    rows = []
    for depth, features in enumerate(compilation.jit(run, kind)(params, noise), 1):
        share = explained_share(np.asarray(features, np.float64))
        rows.append({"what": "noise", "padding": name, "layer": depth, "r2": share})
    return rows


def explained_share(features: np.ndarray) -> float:  # (N, Y, X, C)
    """R^2 on images that were not fitted; negative where the fit is worse than the mean."""
    height, width = features.shape[1:3]
    down, right = np.mgrid[:height, :width]
    radius = np.hypot(down - (height - 1) / 2, right - (width - 1) / 2)
    columns = features.reshape(len(features), height * width, -1)
    columns = np.concatenate([columns, np.ones_like(columns[..., :1])], -1)
    fitted, tested = columns[:FITTED].reshape(-1, columns.shape[-1]), columns[FITTED:].reshape(-1, columns.shape[-1])
    weights, *_ = np.linalg.lstsq(fitted, np.tile(radius.ravel(), FITTED), rcond=None)
    target = np.tile(radius.ravel(), TESTED)
    residual = target - tested @ weights
    return float(1 - (residual**2).mean() / target.var())


COSTS = {  # what is compared -> (pixels of the image, keywords of the network)
    "one convolution, 32 pixels": (32, {"filters": (16,), "pooling": "none"}),
    "one convolution, 224 pixels": (224, {"filters": (16,), "pooling": "none"}),
    "three convolutions, two poolings": (32, {"filters": (32, 64, 128)}),
}


def cost_network(case: str, padding: int):
    """Builds the network of a comparison of costs."""
    side, keywords = COSTS[case]
    return build("cnn/small", 10, image_size=side, convolutions=1, padding=padding, head="average", **keywords)


def count_products() -> list[dict]:
    """The products (MACs) and parameters with padding that keeps the size, and without any."""
    rows = []
    for case, (side, _) in COSTS.items():
        padded, valid = (describe(cost_network(case, padding), side) for padding in (1, 0))
        row = {"what": "cost", "case": case, "padded": padded.macs, "valid": valid.macs}
        rows.append(row | {"parameters_padded": padded.parameters, "parameters_valid": valid.parameters})
    return rows


def time_networks(seed: int, *, repeats: int) -> list[dict]:
    """CPU-seconds of an evaluation of 64 images with padding and without, each the least of some in turn."""
    case = "three convolutions, two poolings"
    side, _ = COSTS[case]
    images = np.random.default_rng(seed).normal(size=(64, side, side, 3)).astype(np.float32)
    kind = ProgramKind(jax.default_backend(), convolutional=True, dtype="float32")
    evaluations = {}
    for name, padding in (("padded", 1), ("valid", 0)):
        parts = functional(cost_network(case, padding))
        run = compilation.jit(parts.apply, kind)
        evaluations[name] = partial(run, *initial_values(parts, seed), images)
        jax.block_until_ready(evaluations[name]())  # compiles
    seconds: dict[str, list[float]] = {name: [] for name in evaluations}
    for _ in range(repeats):
        for name, evaluate in evaluations.items():
            begin = cpu_seconds()
            jax.block_until_ready(evaluate())
            seconds[name].append(cpu_seconds() - begin)
    return [{"what": "cost", "case": case, **{name: min(times) for name, times in seconds.items()}}]


# What the rows say ----------------------------------------------------------------------------------------------------


def weigh(rows) -> dict:
    """The evidence for each sentence."""
    deep = {"what": "equivariance", "layer": LAYERS}
    invariant = [
        at_most(
            "error of the sixth convolution for a shift around, zero padding",
            values(rows, "error", **deep, padding="zero", motion="around"),
            EXACT,
        ),
        at_most(
            "change of the sixth convolution's features by a shift, circular padding",
            values(rows, "invariance", **deep, padding="circular", motion="around"),
            EXACT,
        ),
        at_most(
            "R\u00b2 of the place in features of noise, zero padding",
            values(rows, "r2", what="noise", layer=LAYERS, padding="zero"),
            LEAK,
        ),
        at_most(
            "error of the sixth convolution for a shift around, circular padding",
            values(rows, "error", **deep, padding="circular", motion="around"),
            EXACT,
            is_control=True,
        ),
        at_most(
            "error of the sixth convolution for a moving window, no padding",
            values(rows, "error", **deep, padding="valid", motion="window"),
            EXACT,
            is_control=True,
        ),
        at_most(
            "error of the sixth convolution at the center of the map, zero padding",
            values(rows, "at_center", **deep, padding="zero", motion="around"),
            EXACT,
            is_control=True,
        ),
        at_most(
            "R\u00b2 of the place in features of noise, circular padding",
            values(rows, "r2", what="noise", layer=LAYERS, padding="circular"),
            LEAK,
            is_control=True,
        ),
    ]
    guessing = 1 / CELLS
    place = []
    for name in ("circular", "zero", "valid"):
        padding = "no" if name == "valid" else name
        statement = f"accuracy on 9 places, less that of guessing, with {padding} padding"
        accuracies = values(rows, "accuracy", what="place", padding=name)
        place.append(at_most(statement, [accuracy - guessing for accuracy in accuracies], 0.1))
    cost = []
    for case in COSTS:
        padded, valid = (values(rows, key, what="cost", case=case) for key in ("padded", "valid"))
        ratios = [one / other for one, other in zip(padded, valid, strict=True)]
        cost.append(at_least(f"products with padding over those without, {case}", ratios, 1.01))
    return {"invariant": invariant, "place": place, "cost": cost}


def tabulate(rows) -> list[Table]:
    """The tables: by kind of padding, by layer, and the costs."""
    by_kind = []
    for name in PADDINGS:
        deep = {"what": "equivariance", "layer": LAYERS, "padding": name}
        cells = [
            name,
            error_text(values(rows, "error", **deep, motion="around")),
            error_text(values(rows, "at_center", **deep, motion="around")),
            error_text(values(rows, "largest", **deep, motion="around")),
            error_text(values(rows, "error", **deep, motion="window")),
            error_text(values(rows, "r2", what="noise", layer=LAYERS, padding=name)),
            percent_text(values(rows, "accuracy", what="place", padding=name)),
            percent_text(values(rows, "accuracy", what="digits", padding=name)),
        ]
        by_kind.append(tuple(cells))
    columns = ("padding", "shift around", "at the center", "largest", "moving window", "R\u00b2 of the place")
    columns += ("accuracy on 9 places", "accuracy on digits")
    tables = [Table("equivariance error behind six convolutions, place and accuracy", columns, tuple(by_kind))]
    by_layer = []
    for name in PADDINGS:
        cells = [name]
        for layer in range(1, LAYERS + 1):
            match = {"what": "equivariance", "layer": layer, "padding": name, "motion": "around"}
            cells.append(error_text(values(rows, "error", **match)))
        by_layer.append(tuple(cells))
    layers = tuple(f"layer {layer}" for layer in range(1, LAYERS + 1))
    tables.append(Table("equivariance error by layer, shift around", ("padding", *layers), tuple(by_layer)))
    costs = []
    for case in COSTS:
        (first, *_), (second, *_) = (values(rows, key, what="cost", case=case) for key in ("padded", "valid"))
        same = values(rows, "parameters_padded", what="cost", case=case)
        is_same = same == values(rows, "parameters_valid", what="cost", case=case)
        costs.append((case, f"{first:,}", f"{second:,}", f"{first / second:.3f}", "the same" if is_same else "other"))
    columns = ("network", "MACs with padding", "without", "ratio", "parameters")
    tables.append(Table("what padding costs", columns, tuple(costs)))
    return tables


def tabulate_times(times) -> list[Table]:
    """What a clock says of padding, beside the ratio of the products."""
    ratios = [row["padded"] / row["valid"] for row in times if row["what"] == "cost"]
    (case,) = {row["case"] for row in times if row["what"] == "cost"}
    columns = ("network", "CPU time of an evaluation of 64 images with padding, over that without")
    return [Table("what padding costs by the clock", columns, ((case, error_text(ratios)),))]


def draw(rows) -> dict[str, str]:
    """The maps of the error, and the place in the features by layer."""
    panels = []
    for name in PADDINGS:
        (errors,) = [row["map"] for row in rows if "map" in row and row["padding"] == name]
        colors = plots.heatmap(np.array([line.split() for line in errors], float), 0, 1)
        panels.append(plots.draw_panel(plots.data_uri(colors), name))
    panels.append(plots.draw_scale(0, 1, "error"))
    lines = []
    for series, name in enumerate(PADDINGS):
        means = []
        for layer in range(1, LAYERS + 1):
            means.append(float(np.mean(values(rows, "r2", what="noise", layer=layer, padding=name))))
        lines.append(plots.Line(name, range(1, LAYERS + 1), means, series))
    title = "R\u00b2 of the distance from the center"
    return {
        "where_it_breaks": plots.side_by_side(panels, "Where equivariance breaks"),
        "by_layer": plots.draw_curves(lines, title=title, x_label="layer", legend_below=True),
    }
