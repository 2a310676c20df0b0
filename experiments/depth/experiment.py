"""Depth: what becomes of the gradient on its way down, and what deeper networks learn, with and without shortcuts.

The gradients are those of networks with random values on digits. The runs train the plain and the residual network of
He et al. (arXiv:1512.03385), small, with 8 and with 32 layers for the same number of steps.
"""

import functools
import math

import jax
import numpy as np

import cnn_vit
from cnn_vit import plots
from cnn_vit.analysis.gradients import measure_gradients
from cnn_vit.models import build
from cnn_vit.nn.values import functional, initial_values
from cnn_vit.reports.evidence import at_most
from cnn_vit.reports.lab_facts import Table
from cnn_vit.reports.lab_rows import mean_text, values
from cnn_vit.studies.lab import Measured
from cnn_vit.studies.trials import Trial

ORDER = 50
QUESTION = "What does depth do to the gradient and to what a network learns, with and without residual connections?"
CLAIM = (
    "What becomes of the gradient is decided by what one layer does to it, for that is repeated with each layer. "
    "Rectifiers halve its square, He's initial values double it again, and batch norm makes it grow from the scores to "
    "the image. With residual connections it grows less, and a deep network learns as well as a shallow one."
)
SENTENCES = {
    "deeper": (
        "Deeper is better.",
        "With residual connections the test loss with 32 layers is lower than with 8 after the same 100 steps, the "
        "accuracy is not higher. Without them 32 layers learn little in these steps, though they could represent all "
        "that 8 layers can.",
    ),
    "vanish": (
        "The gradient vanishes on its way down a deep network.",
        "It shrinks, stays or grows, and one layer decides which. Before rectifiers LeCun's initial values shrink it "
        "to 0.73 of its size with each layer: to less than a thousandth in a network of 32. He's values keep it on "
        "average, though networks differ from one another. With batch norm it grows by a factor of 1.19 with each "
        "layer.",
    ),
    "shortcut": (
        "Residual connections are needed because gradients vanish without them.",
        "Of the plain networks only that with LeCun's initial values has gradients that vanish. With batch norm they "
        "explode: with 32 layers the gradient to the first is 120 times that to the last, with residual connections "
        "7 times. So vanishing gradients are not the reason where there is batch norm.",
    ),
}
FORMULAS = (
    (
        r"\frac{\partial L}{\partial x} = \frac{\partial L}{\partial y} (1 + \frac{\partial f}{\partial x})",
        "With a residual connection y = x + f(x), the gradient of the loss L reaches the input x of a block directly "
        "and through f. Without it the 1 is missing, and the gradient is a product of as many factors as there are "
        "layers.",
        "pytest tests/analysis/test_gradients.py",
    ),
    (
        r"\frac{g_{l}^{2}}{g_{l + 1}^{2}} = \frac{n}{2} w^{2}",
        "How a layer with rectifiers changes the mean square of the gradient g, with n units that read each value (as "
        "many as the values into a unit, where all layers are equally wide) and weights of mean square w^2: He's 2 / n "
        "keep it, LeCun's 1 / n halve it.",
        "pytest tests/analysis/test_gradients.py",
    ),
)
FIGURES = {
    "gradients": "The gradient of the loss to each layer of the networks with 32 layers, relative to that of the last, "
    "before training; the geometric mean of the seeds. The way down goes from right to left. The first three are "
    "plain networks: with LeCun's and He's initial values, and with batch norm.",
}
SURPRISE = (
    "The plain network of 32 layers, which learns little, has gradients that are larger at the image than at its end, "
    "not smaller: batch norm, which is said to cure vanishing gradients, makes them explode. The factor of 1.19 for a "
    "layer is near the 1.21 of wide dense networks (Yang et al., arXiv:1902.08129: the square grows by pi / (pi - 1)); "
    "here the layers are convolutions with 16 filters and zeros at the border. The deep residual network has a lower "
    "loss than that of 8 layers, but no higher accuracy."
)
CHOSEN = (
    "The test loss was taken instead of the accuracy, and 32 layers and 100 steps were taken, after trials with "
    "one seed. The third sentence was weighed for batch norm alone at first; the other plain networks were added when "
    "all numbers were known, with the bound that they have in the second sentence."
)
SEEDS = (0, 1, 2)

DEPTHS = (8, 20, 32)  # layers
TRAINED = (8, 32)  # layers of the networks that are trained
FILTERS = 16
IMAGES = 32  # digits that the gradient is taken of
ARMS = {  # name -> name in the figure
    "plain, LeCun's values": "LeCun",
    "plain, He's values": "He",
    "plain, batch norm": "batch norm",
    "residual, batch norm": "residual",
}
DIGITS = 4  # decimals of a logarithm: what a file needs
SHORTCUTS = {"plain": "none", "residual": "pad"}  # model.shortcut


def list_trials(*, quick: bool) -> list[Trial]:
    """The runs: the plain and the residual network, shallow and deep, once a seed."""
    common = (
        "data.augment=()",
        "data.batch_size=32",
        "model.filters=8",
        "loss.smoothing=0",
        "ema_decay=none",
        f"duration={3 if quick else 100} steps",
        f"schedule.warmup={1 if quick else 10}",
        "evaluate_every=1000 steps",
        "checkpoint_every=1000 steps",
    )
    trials = []
    for seed in SEEDS[:1] if quick else SEEDS:
        for kind, shortcut in SHORTCUTS.items():
            for layers in TRAINED:
                # In quotes, for the bare word none is the value that says nothing.
                model = [f"model.blocks={(layers - 2) // 6}", f"model.shortcut='{shortcut}'"]
                if quick:
                    model += ["model.cut=stages/0", f"model.blocks={1 if layers == TRAINED[0] else 2}"]
                overrides = (*common, *model)
                trial = Trial("train", "configs/digits_resnet.py", overrides, seed=seed, name=f"{kind} {layers} {seed}")
                trials.append(trial)
    return trials


@functools.cache
def deep_network(arm: str, layers: int):
    """Builds so many convolutions of equal shape and a head; all seeds share what it compiles."""
    kind, values = arm.split(", ")
    if values != "batch norm":
        return build(
            "cnn/small",
            10,
            image_size=8,
            channels=1,
            filters=(FILTERS,),
            convolutions=layers - 1,
            padding_kind="circular",  # zeros would take some of the gradient away at the border
            pooling="none",
            batch_norm=False,
            head="average",
        )
    # Of three stages only the first, so that all layers have the same shape.
    return build(
        "cifar_resnet/8",
        10,
        image_size=8,
        channels=1,
        filters=FILTERS,
        blocks=(layers - 2) // 2,
        cut="stages/0",
        shortcut=SHORTCUTS[kind],
    )


def measure(seed: int, runs, *, quick: bool) -> Measured:
    """Everything of one seed: its initial values and a batch of digits, and its runs."""
    images, labels = next(cnn_vit.batches("digits", batch_size=IMAGES, seed=seed))
    images = (images - images.mean()) / images.std()
    rows, times = [], []
    depths = DEPTHS[:1] if quick else DEPTHS
    for arm in ARMS:
        for layers in depths:
            sizes = find_gradients(arm, layers, seed, images, labels)
            log_sizes = [round(math.log10(size / sizes[-1]), DIGITS) for size in sizes]
            per_layer = (sizes[0] / sizes[-1]) ** (1 / layers_between(arm, sizes))
            row = {"what": "gradient", "arm": arm, "layers": layers, "log_ratio": log_sizes[0]}
            if layers == depths[-1]:
                row["log_sizes"] = log_sizes
            rows.append(row | {"per_layer": round(per_layer, DIGITS)})
    for name, record in runs.items():
        kind, layers, run_seed = name.split()
        if int(run_seed) != seed:
            continue
        result = record.result
        row = {"what": "run", "kind": kind, "layers": int(layers), "accuracy": result["test"]["accuracy"]}
        rows.append(row | {"loss": result["test"]["loss"], "fingerprint": result["fingerprint"]})
        times.append({"what": kind, "layers": int(layers), "cpu_seconds": result["timing"]["cpu_seconds"]})
    return Measured(rows, times)


def find_gradients(arm: str, layers: int, seed: int, images: np.ndarray, labels: np.ndarray) -> list[float]:
    """The size of the gradient to each convolution or block, from the image to the scores."""
    network = deep_network(arm, layers)
    params, stats = initial_values(functional(network), seed)
    if arm == "plain, LeCun's values":  # He's divided by the square root of 2
        params["stages"] = jax.tree.map(lambda value: value * np.float32(math.sqrt(0.5)), params["stages"])
    kind = "Block" if arm.endswith("batch norm") else "Conv"
    gradients = measure_gradients(network, params, stats, images, labels)
    return [gradient.size for gradient in gradients if gradient.kind == kind]


def layers_between(arm: str, sizes: list[float]) -> int:
    """Counts the layers from the first to the last gradient; a block has two."""
    return (len(sizes) - 1) * (2 if arm.endswith("batch norm") else 1)


# What the rows say ----------------------------------------------------------------------------------------------------


def deepest(rows) -> int:
    """The most layers whose gradients were measured."""
    return max(values(rows, "layers", what="gradient"))


def weigh(rows) -> dict:
    """The evidence for each sentence."""
    deep = {"what": "gradient", "layers": deepest(rows)}
    deeper = []
    for kind in SHORTCUTS:
        losses = [values(rows, "loss", what="run", kind=kind, layers=layers) for layers in TRAINED]
        differences = [more - fewer for fewer, more in zip(*losses, strict=True)]
        statement = f"test loss with {TRAINED[1]} layers, less that with {TRAINED[0]}, {kind} network"
        deeper.append(at_most(statement, differences, 0))
    vanish = {}
    for arm in ARMS:
        statement = f"gradient to the first layer over that to the last, as a power of ten, {arm}"
        vanish[arm] = at_most(statement, values(rows, "log_ratio", **deep, arm=arm), -1)
    without = [evidence for arm, evidence in vanish.items() if arm.startswith("plain")]
    return {"deeper": deeper, "vanish": list(vanish.values()), "shortcut": without}


EXPECTED = {  # what theory says of one layer
    "plain, LeCun's values": "0.707",
    "plain, He's values": "1",
    "plain, batch norm": "1.21, wide and dense",
    "residual, batch norm": "falls towards 1",
}


def tabulate(rows) -> list[Table]:
    """The tables: gradients by depth, and what was learned."""
    gradients = []
    depths = [layers for layers in DEPTHS if values(rows, "log_ratio", what="gradient", layers=layers)]
    for arm in ARMS:
        cells = [arm]
        for layers in depths:
            cells.append(mean_text(values(rows, "log_ratio", what="gradient", arm=arm, layers=layers)))
        deep = values(rows, "per_layer", what="gradient", arm=arm, layers=deepest(rows))
        gradients.append((*cells, mean_text(deep, 3), EXPECTED[arm]))
    columns = ("network", *(f"{layers} layers" for layers in depths), "factor of a layer", "in theory")
    title = "gradient to the first layer over that to the last, as a power of ten, before training"
    tables = [Table(title, columns, tuple(gradients))]
    runs = []
    for kind in SHORTCUTS:
        for layers in TRAINED:
            match = {"what": "run", "kind": kind, "layers": layers}
            accuracy = mean_text(values(rows, "accuracy", **match), 1, scale=100, unit=" %")
            runs.append((kind, str(layers), accuracy, mean_text(values(rows, "loss", **match))))
    tables.append(Table("digits after the training", ("network", "layers", "test accuracy", "test loss"), tuple(runs)))
    return tables


def draw(rows) -> dict[str, str]:
    """The gradient by layer."""
    lines = []
    for series, (arm, name) in enumerate(ARMS.items()):
        means = 10 ** np.mean(values(rows, "log_sizes", what="gradient", arm=arm, layers=deepest(rows)), 0)
        # The first convolution is layer 1, and the first block ends with layer 3.
        places = np.linspace(3 if arm.endswith("batch norm") else 1, deepest(rows) - 1, len(means))
        lines.append(plots.Line(name, list(places), list(means), series))
    title = "Gradient to a layer over that to the last"
    return {"gradients": plots.draw_curves(lines, title=title, x_label="layer", log=True, legend_below=True)}
