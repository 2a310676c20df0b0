"""Local and global: how far a unit of a convolutional network sees, and how far a head of attention reads.

Convolutions need no training here: the derivative of a unit to the pixels shows what it sees, and how much of that it
uses. Attention is measured before and after the training of small vision transformers on digits.
"""

import functools
import math

import numpy as np

import cnn_vit
from cnn_vit import plots
from cnn_vit.analysis.attention import measure_distances, uniform_distance
from cnn_vit.analysis.gradients import measure_field
from cnn_vit.analysis.table import describe
from cnn_vit.models import build
from cnn_vit.nn.values import functional, initial_values
from cnn_vit.reports.evidence import at_least, at_most
from cnn_vit.reports.lab_facts import Table
from cnn_vit.reports.lab_rows import mean_text, values
from cnn_vit.studies.lab import Measured
from cnn_vit.studies.trials import Trial

ORDER = 60
QUESTION = "How far does a convolution see, and how far does attention read?"
CLAIM = (
    "One convolution sees a window; a unit behind many sees more, and behind those of ResNet-20 the whole image. But "
    "the influence of the pixels is spread as a random walk, so that what is used grows with the square root of the "
    "depth. Attention can read everything from its first block on."
)
SENTENCES = {
    "local": (
        "Convolution sees only locally.",
        "One layer does: a 3x3 convolution sees 3 pixels a side. A network does not: 16 such layers see 33 pixels, and "
        "the last convolution of ResNet-20 sees 81, more than the 32 pixels of its images.",
    ),
    "whole": (
        "A unit uses its whole receptive field, which grows in proportion to the depth.",
        "The field grows in proportion to the depth. What is used of it does not: with random filters the influence "
        "spreads as a random walk does, as a bell curve whose width grows with the square root of the depth. Behind 16 "
        "convolutions, 15 of the 33 pixels a side hold 95 % of it.",
    ),
    "attention": (
        "Attention can read globally from the first block on.",
        "It does in this small network: before training each head reads all patches nearly alike, and 400 steps on "
        "digits change little of that. So reading globally needs no training here; whether a head stays global depends "
        "on network and data.",
    ),
    "rises": (
        "The deeper a block of a vision transformer lies, the farther its attention reads.",
        "Not to be seen here: all four blocks read nearly as far as heads that read all patches alike. Large networks "
        "trained on many images have local heads in their first blocks, and those trained on fewer images lack them "
        "(Raghu et al., arXiv:2108.08810).",
    ),
}
FORMULAS = (
    (
        r"r_{l} = r_{l - 1} + (k_{l} - 1) d_{l} s_{1} \dots s_{l - 1}",
        "The receptive field r of a unit behind layer l, with kernel k, dilation d and strides s.",
        "cnn-vit describe cifar_resnet/20",
    ),
    (
        r"\sigma = \sqrt{\frac{n (k^{2} - 1)}{12}}",
        "The spread of the influence behind n random k x k convolutions, in pixels along each side: the standard "
        "deviation of a random walk of n steps, each uniform over k pixels.",
        "pytest tests/analysis/test_gradients.py",
    ),
    (
        r"\frac{\sum_{i j} a_{i j} |p_{i} - p_{j}|}{\sum_{i j} a_{i j}}",
        "The mean distance of a head whose patch i at the place p reads patch j with the weight a.",
        "pytest tests/analysis/test_attention_distance.py",
    ),
)
FIGURES = {
    "influence": "The root of the influence of each pixel on the unit in the middle, behind 1, 4 and 16 convolutions "
    "with 3x3 random filters, of one seed; the lightest is the largest. The unit sees 3, 9 and 33 pixels a side.",
    "spread": "The pixels a side that a unit sees, and those that hold 95 % of the influence on it, by the number "
    "of convolutions.",
    "distance": "How far each head reads before and after training, as a share of the distance of a head that reads "
    "all patches alike; the mean of the seeds, with heads sorted by their distance.",
}
SURPRISE = (
    "The spread of the influence is that of the random walk at each depth, although the walk knows nothing of the "
    "rectifiers. A vision transformer of four blocks classifies digits with 92 % right and hardly any local head: mean "
    "distances within 7 % of those of heads that read all patches alike do not show that its attention looks at "
    "anything in particular."
)
CHOSEN = (
    "The small transformer was trained with 1,500 steps once, outside of the results, to see whether its heads "
    "part; they did not. The sentence on attention said 'reads globally' until its verdict was seen: one small network "
    "near its initial values shows only that attention can."
)
SEEDS = (0, 1, 2)

DEPTHS = (1, 2, 4, 8, 16)  # 3x3 convolutions
SIDE = 41  # pixels of the images of noise: the field of 16 convolutions has 33
FILTERS, IMAGES = 16, 8
MOST = 0.95  # of the influence
DRAWN = (1, 4, 16)  # convolutions, of those in DEPTHS, whose influence is drawn
DIGITS = 4  # decimals in the rows
POOLED = {  # name -> (side of the image in pixels, path of the last convolution)
    "cnn/small": (32, "stages/1/convolutions/1"),
    "cifar_resnet/20": (96, "stages/2/blocks/2/conv2"),
}
PATCHES, BLOCKS, HEADS = 8, 4, 4  # patches a side, blocks and heads of the vision transformer
VIT = {"depth": BLOCKS, "heads": HEADS, "width": 32, "hidden": 64}
READ = 64  # test images whose attention is measured


def list_trials(*, quick: bool) -> list[Trial]:
    """The runs: a small vision transformer on digits, once a seed."""
    overrides = (
        "data.image_size=16",
        "data.batch_size=32",
        "data.augment=()",
        *(f"model.{keyword}={value}" for keyword, value in VIT.items()),
        "ema_decay=none",
        f"duration={5 if quick else 400} steps",
        f"schedule.warmup={1 if quick else 40}",
        "evaluate_every=1000 steps",
        "checkpoint_every=1000 steps",
    )
    return [Trial("train", "configs/digits_vit.py", overrides, seed=seed, name=f"vit {seed}") for seed in SEEDS]


@functools.cache
def stack_of_convolutions():
    """Builds 16 convolutions with rectifiers, without normalization and pooling; all seeds share what it compiles."""
    return build(
        "cnn/small",
        10,
        image_size=SIDE,
        channels=1,
        filters=(FILTERS,),
        convolutions=DEPTHS[-1],
        pooling="none",
        batch_norm=False,
        head="average",
    )


@functools.cache
def pooled_network(name: str) -> tuple:
    """Builds a network that halves the image: (network, side of the image in pixels, path of its last convolution)."""
    side, path = POOLED[name]
    return build(name, 10, image_size=side, channels=1), side, path


def measure(seed: int, runs, *, quick: bool) -> Measured:
    """Everything of one seed: filters and noise are drawn from it, and the attention of its run is read."""
    rows = []
    for depth in DEPTHS[:3] if quick else DEPTHS:
        rows.append(measure_depth(depth, seed))
    for name in list(POOLED)[:1] if quick else POOLED:
        network, side, path = pooled_network(name)
        field = find_field(network, seed, side, path, images=4)
        described = describe_field(network, side, path)
        rows.append({"what": "pooled", "network": name, "seen": field.box[0], "described": described})
    record = runs[f"vit {seed}"]
    rows += measure_attention(record, seed)
    result = record.result
    rows.append({"what": "vit", "accuracy": result["test"]["accuracy"], "fingerprint": result["fingerprint"]})
    return Measured(rows, [{"what": "vit", "cpu_seconds": result["timing"]["cpu_seconds"]}])


def find_field(network, seed: int, side: int, path: str, *, images: int):
    """The effective receptive field of the middle unit of a layer, with random filters and on noise."""
    params, stats = initial_values(functional(network), seed)
    noise = np.random.default_rng(seed).normal(size=(images, side, side, 1)).astype(np.float32)
    return measure_field(network, params, stats, noise, path=path)


def describe_field(network, side: int, path: str) -> int:
    """The pixels a side that `describe` says a unit of a layer sees."""
    (row,) = [row for row in describe(network, side, channels=1).rows if row.path == path]
    return row.field[0].size


def measure_depth(depth: int, seed: int) -> dict:
    """What a unit behind so many convolutions sees, and how the influence on it is spread."""
    path = f"stages/0/convolutions/{depth - 1}"
    field = find_field(stack_of_convolutions(), seed, SIDE, path, images=IMAGES)
    row = {
        "what": "field",
        "depth": depth,
        "seen": field.box[0],
        "described": describe_field(stack_of_convolutions(), SIDE, path),
        "spread": round(math.sqrt(np.mean(np.square(field.spread))), DIGITS),
        "kurtosis": round(excess_kurtosis(field.influence), DIGITS),
        "used": count_used(field.influence),
    }
    if seed == SEEDS[0] and depth in DRAWN:
        # The root of the influence: the influence itself leaves too few pixels to be seen.
        shades = np.sqrt(field.influence / field.influence.max())
        row["map"] = [" ".join(f"{shade:.2f}" for shade in line) for line in shades]
    return row


def excess_kurtosis(influence: np.ndarray) -> float:
    """How the influence along one side differs in form from a bell curve, whose excess kurtosis is 0; mean of both."""
    by_side = []
    for axis in (0, 1):
        along = influence.sum(axis)
        distances = np.arange(len(along)) - np.average(np.arange(len(along)), weights=along)
        second, fourth = (np.average(distances**power, weights=along) for power in (2, 4))
        by_side.append(fourth / second**2 - 3)
    return float(np.mean(by_side))


def count_used(influence: np.ndarray) -> float:
    """The pixels a side of the square in the middle that holds 95 % of the influence, between whole sides by a line."""
    middle = len(influence) // 2
    before, size = 0.0, 1
    for reach in range(middle + 1):
        inside = influence[middle - reach : middle + reach + 1, middle - reach : middle + reach + 1].sum()
        size = 2 * reach + 1
        if inside >= MOST:
            # One pixel alone may hold that much; between two squares the share grows by a line.
            return round(size - 2 * (inside - MOST) / (inside - before), DIGITS) if reach else 1
        before = inside
    return size


def measure_attention(record, seed: int) -> list[dict]:
    """How far each head reads before and after training, as a share of a head that reads all patches alike."""
    trained = cnn_vit.load(record.run)
    network = build("vit/Ti2-gap", 10, image_size=16, channels=1, **VIT)
    images, _ = next(cnn_vit.batches("digits", split="test", image_size=16, batch_size=READ))
    images = (images - np.array(trained.preprocessing["mean"])) / np.array(trained.preprocessing["std"])
    initial = initial_values(functional(network), seed)
    rows = []
    for when, (params, stats) in {"before": initial, "after": (trained.params, trained.stats)}.items():
        heads = measure_distances(network, params, stats, images.astype(np.float32), (PATCHES, PATCHES))
        for block in range(BLOCKS):
            shares = [head.distance / uniform_distance((PATCHES, PATCHES)) for head in heads if head.block == block]
            distances = [round(share, DIGITS) for share in sorted(shares)]
            rows.append({"what": "attention", "when": when, "block": block + 1, "distances": distances})
    return rows


# What the rows say ----------------------------------------------------------------------------------------------------


def depths_of(rows) -> list[int]:
    """The depths that were measured."""
    return sorted(set(values(rows, "depth", what="field")))


def name_depth(depth: int) -> str:
    """A number of convolutions in words."""
    return "1 convolution" if depth == 1 else f"{depth} convolutions"


def fit_exponents(rows, key: str, *, less: float = 0) -> list[float]:
    """For each seed, the exponent b of key - less = a depth^b, by least squares of the logarithms."""
    by_depth = [values(rows, key, what="field", depth=depth) for depth in depths_of(rows)]
    logs = np.log(np.array(by_depth) - less)
    return [float(np.polyfit(np.log(depths_of(rows)), column, 1)[0]) for column in logs.T]


def attention_means(rows, block: int, choose=np.mean) -> list[float]:
    """For each seed, the mean (or another choice) of the distances of a block's heads after training."""
    by_seed = values(rows, "distances", what="attention", when="after", block=block)
    return [float(choose(distances)) for distances in by_seed]


def weigh(rows) -> dict:
    """The evidence for each sentence."""
    shallow, *_, deep = depths_of(rows)
    seen = {
        depth: [pixels / SIDE for pixels in values(rows, "seen", what="field", depth=depth)]
        for depth in (shallow, deep)
    }
    differences = [row["seen"] - row["described"] for row in rows if "described" in row]
    by_seed = np.abs(np.reshape(differences, (-1, len(differences) // len(SEEDS)))).max(1)
    same = at_most("difference from what `describe` says, in pixels", by_seed, 0, is_control=True)
    local = [
        at_most(f"share of an image of {SIDE} pixels a side that a unit sees, {name_depth(depth)}", seen[depth], 0.5)
        for depth in (shallow, deep)
    ]
    whole = []
    for depth in (shallow, deep):
        match = {"what": "field", "depth": depth}
        shares = np.divide(values(rows, "used", **match), values(rows, "seen", **match))
        whole.append(
            at_least(f"share of the field's side that holds 95 % of the influence, {name_depth(depth)}", shares, 0.9)
        )
    whole += [
        at_least(
            "exponent of the depth that the field, less 1 pixel, grows with", fit_exponents(rows, "seen", less=1), 0.9
        ),
        at_least(
            "exponent of the depth that the spread of the influence grows with", fit_exponents(rows, "spread"), 0.9
        ),
    ]
    before = values(rows, "distances", what="attention", when="before", block=1)
    nearest, farthest = attention_means(rows, 1, min), attention_means(rows, 1, max)
    uniform = [float(np.mean(distances)) for distances in before]
    attention = [
        at_least(
            "distance of the first block's head that reads farthest, over that of reading all alike", farthest, 0.8
        ),
        at_least("distance of the first block's head that reads nearest, over that of reading all alike", nearest, 0.8),
        at_least("the mean of the first block's heads before training", uniform, 0.9, is_control=True),
    ]
    first, last = (attention_means(rows, block) for block in (1, BLOCKS))
    rise = [later - earlier for earlier, later in zip(first, last, strict=True)]
    rises = [
        at_least("mean distance of the last block, less that of the first, as shares of reading all alike", rise, 0)
    ]
    return {"local": [*local, same], "whole": whole, "attention": attention, "rises": rises}


def tabulate(rows) -> list[Table]:
    """The tables: fields by depth, pooled networks, and attention by block."""
    fields = []
    for depth in depths_of(rows):
        match = {"what": "field", "depth": depth}
        spreads, (seen, *_) = values(rows, "spread", **match), values(rows, "seen", **match)
        used = mean_text(values(rows, "used", **match), 1)
        cells = [str(depth), str(seen), used, mean_text(spreads), f"{math.sqrt(depth * (3**2 - 1) / 12):.2f}"]
        # The sum of n independent steps has the excess kurtosis of one, -3/2 for 3 equal chances, divided by n.
        fields.append((*cells, mean_text(values(rows, "kurtosis", **match)), f"{-1.5 / depth:.2f}"))
    columns = ("3x3 convolutions", "pixels seen", "pixels that hold 95 %", "spread in pixels", "in theory")
    columns += ("excess kurtosis", "in theory")
    tables = [Table("what a unit sees and uses, along one side", columns, tuple(fields))]
    pooled = []
    for name in dict.fromkeys(values(rows, "network", what="pooled")):
        seen, described = (values(rows, key, what="pooled", network=name)[0] for key in ("seen", "described"))
        pooled.append((name, str(seen), str(described)))
    columns = ("network", "pixels that have any influence", "receptive field of describe")
    tables.append(Table("the receptive field of the last convolution, along one side", columns, tuple(pooled)))
    blocks = []
    for block in range(1, BLOCKS + 1):
        cells = [str(block)]
        for when in ("before", "after"):
            by_seed = values(rows, "distances", what="attention", when=when, block=block)
            cells += [mean_text([choose(numbers) for numbers in by_seed]) for choose in (min, np.mean, max)]
        blocks.append(tuple(cells))
    columns = ("block", "nearest head before", "mean before", "farthest before")
    columns += ("nearest head after", "mean after", "farthest after")
    accuracy = mean_text([100 * share for share in values(rows, "accuracy", what="vit")], 1)
    title = f"how far heads read, over the distance of reading all patches alike; test accuracy {accuracy} %"
    tables.append(Table(title, columns, tuple(blocks)))
    return tables


def draw(rows) -> dict[str, str]:
    """The influence as maps, what is seen and used by depth, and the distances by block."""
    panels = []
    for row in rows:
        if "map" in row:
            colors = plots.heatmap(np.array([line.split() for line in row["map"]], float), 0, 1)
            panels.append(plots.draw_panel(plots.data_uri(colors), name_depth(row["depth"])))
    depths = depths_of(rows)
    lines = []
    for series, (key, name) in enumerate({"seen": "seen", "used": "holds 95 % of the influence"}.items()):
        means = [float(np.mean(values(rows, key, what="field", depth=depth))) for depth in depths]
        lines.append(plots.Line(name, depths, means, series))
    blocks = range(1, BLOCKS + 1)
    heads = []
    for series, when in enumerate(("before", "after")):
        by_block = [np.mean(values(rows, "distances", what="attention", when=when, block=block), 0) for block in blocks]
        for head in range(HEADS):
            name = f"{when} training" if head == 0 else ""
            heads.append(plots.Line(name, blocks, [float(distances[head]) for distances in by_block], series))
    return {
        "influence": plots.side_by_side(panels, "Influence on the unit in the middle"),
        "spread": plots.draw_curves(lines, title="Pixels a side", x_label="3x3 convolutions", log_x=True),
        "distance": plots.draw_curves(
            heads, title="Distance over that of reading all alike", x_label="block", legend_below=True
        ),
    }
