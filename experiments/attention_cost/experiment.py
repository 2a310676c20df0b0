"""Attention's cost: products, memory and time against the number of tokens, the image size and the patch size.

Nothing is trained. Products (MACs) are those of `describe`, memory is what the compiler plans for intermediate results,
and time is CPU time on a CPU, else that of the wall clock. A size is planned before it is run, and one that
would need more than MEMORY is not run at all.
"""

import functools
import itertools
import math

import jax
import numpy as np

from cnn_vit import compilation, plots
from cnn_vit.analysis import flops
from cnn_vit.analysis.table import describe
from cnn_vit.compilation import ProgramKind
from cnn_vit.models import build
from cnn_vit.nn.attention import attend
from cnn_vit.nn.values import functional, initial_values
from cnn_vit.reports.evidence import at_least, at_most
from cnn_vit.reports.lab_facts import Table
from cnn_vit.reports.lab_rows import mean_text, values
from cnn_vit.runs.journal import cpu_seconds, now
from cnn_vit.studies.lab import Measured

ORDER = 70
QUESTION = "What does attention cost, and from which size on does it outweigh the rest of a Vision Transformer?"
CLAIM = (
    "A block of width d has 12 N d\u00b2 products that grow with the number N of tokens, and 2 N\u00b2 d that grow "
    "with its square. So attention takes the share N / (6 d + N) of the products: little while N is far below 6 d, "
    "nearly all far above it."
)
SENTENCES = {
    "quadratic": (
        "Naive self-attention compares every pixel with every other: its cost is quadratic.",
        "True of attention itself: N tokens have N\u00b2 scores in each head, be they pixels or patches, and its "
        "products and its time grow with them. It is not the cost of a whole network, which is the next sentence.",
    ),
    "vit": (
        "The cost of a Vision Transformer grows with the square of the number of its patches.",
        "Only where the tokens are many times the width. A block has 12 N d\u00b2 other products beside attention's 2 "
        "N\u00b2 d, so that attention has 4.1 % of all in ViT-B/16 at 224 pixels. Twice the image side makes four "
        "times as many patches and 4.5 times as many products: an exponent of 1.08. With pixels as tokens attention "
        "has 91.6 %, and the exponent is 1.95.",
    ),
    "crossover": (
        "Attention outweighs the rest of a block from N = 6 d tokens on.",
        "By the products, exactly there: at 4,608 tokens for ViT-B. By the clock of this machine it came at 446 "
        "tokens of width 128, where 6 d are 768.",
    ),
    "memory": (
        "Attention needs memory for all pairs of tokens.",
        "Only where all scores are held at once. A query's softmax needs the scores of this query alone: of 128 "
        "queries at a time, memory grows with the tokens and not with their square, and the results are the same. "
        "JAX's own function holds all scores on a CPU. Kernels that fuse the steps are for GPUs, which this "
        "machine has none of.",
    ),
    "patch": (
        "Halving the side of the patches makes a Vision Transformer four times as expensive.",
        "It makes four times as many tokens, which cost four times as many products as long as attention is a small "
        "part of them, and up to sixteen times where it is all: 4.0 times from ViT-B/32 to B/16, 4.5 to B/8, and 12.8 "
        "from patches of 2 pixels to single pixels. By the clock it was 12 times from 2 pixels to single ones "
        "(1,024 to 4,096 tokens), in a network of width 128, and 1.5 to 5.2 times from 16 pixels to 8 (16 to 64 "
        "tokens): five seeds leave open whether the latter is within 1 of four.",
    ),
}
FORMULAS = (
    (
        r"\frac{2 N^{2} d}{12 N d^{2} + 2 N^{2} d} = \frac{N}{6 d + N}",
        "The share of attention in the products of a block with N tokens of width d: the scores and the averages have "
        "2 N\u00b2 d, the four dense layers beside them 4 N d\u00b2, and the MLP 8 N d\u00b2.",
        "pytest tests/analysis/test_flops.py",
    ),
    (
        r"N = 6 d",
        "Where attention has as many products as the rest of the block: 4,608 tokens for ViT-B, which are about 68 x "
        "68 patches or pixels.",
        "pytest tests/analysis/test_attention_cost.py",
    ),
    (
        r"N = \frac{H W}{p^{2}}",
        "Tokens of an image of H x W pixels in patches of p x p: half the side p makes four times as many tokens.",
        "cnn-vit describe vit/B16 --image=224",
    ),
)
FIGURES = {
    "products": "Products, in 10\u2079, of one block of ViT-B (d = 768) by the number of tokens: those of attention "
    "grow with the square, and cross the others at 6 d = 4,608 tokens. 196 tokens are patches of 16 pixels in an image "
    "of 224; 50,176 are its pixels.",
    "memory": "Memory that the compiler plans for the intermediate results of attention in two heads of 64 numbers. "
    "On a CPU JAX's own function needs as much as attention all at once: the two lines lie on one another.",
    "seconds": "CPU time, of all threads together, of attention in three forms, and of a whole block of width 128 that "
    "has the first form in it.",
}
SURPRISE = (
    "What is called fused need not be: on a CPU jax.nn.dot_product_attention needs as much memory as attention step by "
    "step, and 2.2 times its time at 4,096 tokens. A plain loop over 128 queries at a time needs 22 times less memory "
    "there, takes no longer (0.84 times) and gives the same bits; it runs the 16,384 pixels of an image of 128, which "
    "would need 4 GiB all at once. At 4,096 tokens attention has 84 % of the products of a block of width 128, and 95 "
    "% of its time. The compiler of jax 0.12 goes in parts by itself: for attention step by step it plans 16.5 MiB "
    "with 1,024 tokens, and 3 MiB with 2,048."
)
CHOSEN = (
    "Sizes and bounds were fixed before the first full run. With three seeds on a busy machine two verdicts by "
    "the clock were open; five seeds and the least of single calls followed, with the same bounds. That four times "
    "holds within 1 on both sides came last, when all costs were known: before, at most 5 was the bound, and 1.4 times "
    "passed it. The times were measured once more, with the code as it was, and scattered more: since then the "
    "sentence on patches is open, which had been conditional."
)
SEEDS = (0, 1, 2, 3, 4)  # more than three, for what a clock says scatters

WIDTH, HEADS, CLASSES = 128, 2, 10  # of the networks that are run; heads of 64 numbers, as published networks have
TOKENS = (64, 128, 256, 512, 1024, 2048, 4096, 16384)  # 16384 are the pixels of an image of 128
PIXELS_OF_224 = 224 * 224  # tokens that are planned only
QUICK_TOKENS = (64, 128, 256, 512)
LARGE = 512  # tokens from which on an exponent is that of large sizes
BLOCK = 128  # queries that are computed at a time, where they are not all
SIDE, PATCH = 64, 4  # pixels of an image that is cut into several patches, and of patches that several images have
IMAGE_SIZES, PATCHES = (16, 32, 64, 128, 256), (16, 8, 4, 2, 1)
MEMORY = 2**30  # bytes of intermediate results; what would need more is not run
LONG = 4096  # tokens above which a timing is not repeated: it lasts seconds
REPEATS = 8  # of a timing, and more of a short one; the least counts, for other programs only make it longer
MOST_REPEATS = 256
DIGITS = 6  # behind the point of what logarithms give: their last ones are not the same on all machines
MIDDLE = 1.5  # an exponent above it is nearer to the square than to the line
PUBLISHED = (
    ("vit/Ti16", 224),
    ("vit/S16", 224),
    ("vit/B32", 224),
    ("vit/B16", 224),
    ("vit/L16", 224),
    ("vit/B16", 384),
    ("vit/B16", 448),
    ("vit/B8", 224),
    ("vit/B2", 224),
    ("vit/B1", 32),
    ("vit/B1", 224),
    ("vit/B1", 448),
)
CURVE = (49, 196, 784, 3136, 12544, 50176)  # tokens of the figure of products: patches of 32, 16, 8, 4, 2, 1 at 224


# Attention in three forms ---------------------------------------------------------------------------------------------


def attend_at_once(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:  # (1, N, A, E) each -> (1, N, A, E)
    """Attention with all N x N scores of a head in memory."""
    return attend(q, k, v)


def attend_fused(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:  # (1, N, A, E) each -> (1, N, A, E)
    """Attention by JAX's own function, which a GPU may compute in one kernel."""
    return attend(q, k, v, fused=True)


def attend_in_blocks(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:  # (1, N, A, E) each -> (1, N, A, E)
    """Attention for some queries at a time: a query's softmax needs its own scores only."""
    queries = q.reshape(-1, 1, min(BLOCK, q.shape[1]), *q.shape[2:])  # (blocks, 1, BLOCK, A, E)
    return jax.lax.map(lambda part: attend(part, k, v), queries).reshape(q.shape)


FORMS = {"all at once": attend_at_once, "JAX's function": attend_fused, f"{BLOCK} queries at a time": attend_in_blocks}
AT_ONCE, FUSED, IN_BLOCKS = FORMS


# Programs -------------------------------------------------------------------------------------------------------------


def compile_program(function, *arguments):
    """Compiles a function for the arguments' shapes, which plans its memory and runs nothing."""
    kind = ProgramKind(jax.default_backend(), convolutional=False, dtype="float32")
    return compilation.jit(function, kind).lower(*arguments).compile()


@functools.cache
def compile_attention(form: str, tokens: int):
    """Compiles attention for one image."""
    shape = jax.ShapeDtypeStruct((1, tokens, HEADS, WIDTH // HEADS), np.float32)
    return compile_program(FORMS[form], shape, shape, shape)


@functools.cache
def compile_block(tokens: int):
    """Compiles a block of the network for one image; returns its functions and the program."""
    parts = functional(small_vit(SIDE, PATCH).blocks[0])
    return parts, compile_parts(parts, (1, tokens, WIDTH))


@functools.cache
def compile_network(side: int, patch: int):
    """Compiles the network for one image; returns its functions and the program."""
    parts = functional(small_vit(side, patch))
    return parts, compile_parts(parts, (1, side, side, 3))


def compile_parts(parts, shape: tuple[int, ...]):
    """Compiles the evaluation of a network, or of a part of it, for inputs of a shape."""
    return compile_program(parts.apply, *initial_values(parts, 0), jax.ShapeDtypeStruct(shape, np.float32))


def small_vit(side, patch: int):
    """Builds a Vision Transformer of one block whose tokens are the patches and nothing else."""
    keywords = {"width": WIDTH, "heads": HEADS, "hidden": 4 * WIDTH, "depth": 1, "pool": "average"}
    return build(f"vit/Ti{patch}", CLASSES, image_size=side, **keywords)


def planned_bytes(program) -> int:
    """Bytes that a compiled program needs for intermediate results."""
    return int(program.memory_analysis().temp_size_in_bytes)


# Measuring ------------------------------------------------------------------------------------------------------------


def measure(seed: int, runs, *, quick: bool) -> Measured:
    """Counts products, plans memory, and times what fits into it; the seed draws the values."""
    rng = np.random.default_rng(seed)
    tokens_to_run = QUICK_TOKENS if quick else TOKENS
    repeats = 2 if quick else REPEATS
    rows, times = [], []
    for tokens in (*tokens_to_run, PIXELS_OF_224):
        rows += plan_attention(tokens)
        if tokens in tokens_to_run:
            rows += compare_forms(tokens, rng)
            times += time_attention(tokens, rng, seed, repeats=repeats)
    for side, patch in list_networks(quick=quick):
        rows.append(plan_network(side, patch))
        times += time_network(side, patch, rng, seed, repeats=repeats)
    rows += [count_published(model, side) for model, side in PUBLISHED]
    if jax.default_backend() != "cpu":
        times = [row | {"clock": "wall"} for row in times]  # of `read_clock`
    return Measured(rows, times)


def list_networks(*, quick: bool) -> list[tuple[int, int]]:
    """Sides of image and patch: several images at one patch, and several patches at one image."""
    image_sizes, patches = ((32, SIDE), (8,)) if quick else (IMAGE_SIZES, PATCHES)
    return [(side, PATCH) for side in image_sizes] + [(SIDE, patch) for patch in patches if patch != PATCH]


def plan_attention(tokens: int) -> list[dict]:
    """Products and planned memory of attention in each form, and whether it is run."""
    rows = []
    for form in FORMS:
        needed = planned_bytes(compile_attention(form, tokens))
        row = {"what": "attention", "form": form, "tokens": tokens, "macs": count_products(tokens), "bytes": needed}
        rows.append(row | {"fits": needed <= MEMORY, "platform": jax.default_backend()})
    return rows


@functools.cache
def count_products(tokens: int) -> int:
    """Products of attention in a network whose tokens are the pixels of one row."""
    row = describe(small_vit((1, tokens), 1)).row("blocks/0/attention/attend")
    return flops.compute_formula(row.macs)


def compare_forms(tokens: int, rng: np.random.Generator) -> list[dict]:
    """The largest difference between attention all at once and its other forms, as a power of ten that it is below."""
    q, k, v = rng.normal(size=(3, 1, tokens, HEADS, WIDTH // HEADS)).astype(np.float32)
    programs = {form: compile_attention(form, tokens) for form in FORMS}
    if any(planned_bytes(program) > MEMORY for program in programs.values()):
        return []
    results = {form: np.asarray(program(q, k, v)) for form, program in programs.items()}
    rows = []
    for form in (FUSED, IN_BLOCKS):
        difference = float(np.abs(results[form] - results[AT_ONCE]).max())
        rows.append({"what": "difference", "form": form, "tokens": tokens, "below": round_up(difference)})
    return rows


def round_up(number: float) -> float:
    """The least power of ten above a number; 0 for 0. The last digits of a sum depend on how it is parted."""
    return float(f"1e{math.floor(math.log10(number)) + 1}") if number else 0.0


def time_attention(tokens: int, rng: np.random.Generator, seed: int, *, repeats: int) -> list[dict]:
    """Times attention in each form and a whole block, in turn, but for what does not fit into memory."""
    q, k, v = rng.normal(size=(3, 1, tokens, HEADS, WIDTH // HEADS)).astype(np.float32)
    evaluations = {}
    for form in FORMS:
        program = compile_attention(form, tokens)
        if planned_bytes(program) <= MEMORY:
            evaluations["attention", form] = functools.partial(program, q, k, v)
    parts, program = compile_block(tokens)
    if planned_bytes(program) <= MEMORY:
        x = rng.normal(size=(1, tokens, WIDTH)).astype(np.float32)
        evaluations["block", AT_ONCE] = functools.partial(program, *initial_values(parts, seed), x)
    seconds = time_in_turn(evaluations, repeats=count_repeats(tokens, repeats))
    return [{"what": what, "form": form, "tokens": tokens, "seconds": least} for (what, form), least in seconds.items()]


def count_repeats(tokens: int, repeats: int) -> int:
    """How often an evaluation is timed: so many times where it is long, and more often where it is short."""
    if tokens > LONG:
        return 1
    return min(MOST_REPEATS, repeats * max(1, (1024 // tokens) ** 2))


def time_in_turn(evaluations, *, repeats: int) -> dict:
    """The seconds of each evaluation, the least of some timings that take turns."""
    seconds = dict.fromkeys(evaluations, math.inf)
    for _, (name, evaluate) in itertools.product(range(repeats), evaluations.items()):
        begin = read_clock()
        jax.block_until_ready(evaluate())
        seconds[name] = min(seconds[name], read_clock() - begin)
    return seconds


def read_clock() -> float:
    """CPU-seconds of this process, which other programs hardly change; the wall clock's on another device."""
    return cpu_seconds() if jax.default_backend() == "cpu" else now()


def plan_network(side: int, patch: int) -> dict:
    """Products and planned memory of the whole network for one image."""
    _, program = compile_network(side, patch)
    row = {"what": "vit", "image": side, "patch": patch, "tokens": (side // patch) ** 2}
    return row | {"macs": describe(small_vit(side, patch)).macs, "bytes": planned_bytes(program)}


def time_network(side: int, patch: int, rng: np.random.Generator, seed: int, *, repeats: int) -> list[dict]:
    """Times the whole network for one image; [] where it does not fit into memory."""
    parts, program = compile_network(side, patch)
    if planned_bytes(program) > MEMORY:
        return []
    images = rng.normal(size=(1, side, side, 3)).astype(np.float32)
    evaluation = functools.partial(program, *initial_values(parts, seed), images)
    tokens = (side // patch) ** 2
    seconds = time_in_turn({"vit": evaluation}, repeats=count_repeats(tokens, repeats))
    return [{"what": "vit", "image": side, "patch": patch, "tokens": tokens, "seconds": seconds["vit"]}]


@functools.cache
def count_published(model: str, side: int) -> dict:
    """Products of a published network, and of attention in one of its blocks."""
    description = describe(model, side, num_classes=1000)
    in_block = {}
    for row in description.rows:
        if row.path.startswith("blocks/0/"):
            in_block[row.path] = flops.compute_formula(row.macs)
    attention = description.row("blocks/0/attention/attend")
    tokens, width = attention.output[0], math.prod(attention.output[1:])
    row = {"what": "published", "model": model, "image": side, "tokens": tokens, "width": width}
    block = {"attention": in_block["blocks/0/attention/attend"], "block": sum(in_block.values())}
    return row | block | {"macs": description.macs}


# What the rows say ----------------------------------------------------------------------------------------------------


def select(rows, **match) -> list[dict]:
    """The rows that match."""
    return [row for row in rows if all(row.get(name) == value for name, value in match.items())]


def fit_exponents(rows, key: str, *, low: float = 0, high: float = math.inf, **match) -> list[float]:
    """The exponent of a number by the tokens from low to high, one a seed: the slope of a line through logarithms."""
    exponents = []
    for seed in sorted({row["seed"] for row in rows}):
        points = [(row["tokens"], row[key]) for row in select(rows, seed=seed, **match) if low <= row["tokens"] <= high]
        tokens, numbers = np.log(np.array(points)).T
        exponents.append(round(float(np.polyfit(tokens, numbers, 1)[0]), DIGITS))
    return exponents


def published_exponents(rows, model: str, first: int, second: int) -> list[float]:
    """The exponent of all products of a published network by its tokens, between two image sizes; one a seed."""
    exponents = []
    for small, large in zip(
        select(rows, what="published", model=model, image=first),
        select(rows, what="published", model=model, image=second),
        strict=True,
    ):
        exponent = math.log(large["macs"] / small["macs"]) / math.log(large["tokens"] / small["tokens"])
        exponents.append(round(exponent, DIGITS))
    return exponents


def ratios(numerators, denominators) -> list[float]:
    """Each number over its partner."""
    return [one / other for one, other in zip(numerators, denominators, strict=True)]


def formula_share(row) -> float:
    """N / (6 d + N), attention's share of a block's products."""
    return row["tokens"] / (6 * row["width"] + row["tokens"])


def published_name(model: str) -> str:
    """Writes vit/B16 as ViT-B/16, and vit/Ti16 as ViT-Ti/16."""
    size = model.removeprefix("vit/")
    letters = size.rstrip("0123456789")
    return f"ViT-{letters}/{size.removeprefix(letters)}"


def is_square(tokens: int) -> bool:
    """Whether tokens are the pixels of a square image; figures show these alone, so that their labels have room."""
    return math.isqrt(tokens) ** 2 == tokens


def weigh(rows) -> dict:
    """The evidence for each sentence that no clock gives."""
    scores = {"what": "attention", "form": AT_ONCE}
    most = max(values(rows, "tokens", **scores))
    quadratic = [
        at_least("exponent of the products of attention by the tokens", fit_exponents(rows, "macs", **scores), 1.95),
    ]
    vit = []
    for model, name in (("vit/B16", "patches of 16 pixels"), ("vit/B1", "pixels as tokens")):
        exponents = published_exponents(rows, model, 224, 448)
        vit.append(at_least(f"exponent of the products of ViT-B, {name}, from 224 to 448 pixels", exponents, MIDDLE))
    farthest = []
    for seed in sorted({row["seed"] for row in rows}):
        networks = select(rows, what="published", seed=seed)
        farthest.append(max(abs(row["attention"] / row["block"] - formula_share(row)) for row in networks))
    statement = "distance of attention's share of a block's products from N / (6 d + N), published networks"
    vit.append(at_most(statement, farthest, 1e-6, is_control=True))
    crossings = []
    for row in select(rows, what="published", model="vit/B16", image=224):
        # attention has b N^2 products and the rest a N, which are as many at N = a / b
        rest = (row["block"] - row["attention"]) / row["tokens"]
        crossings.append(rest / (row["attention"] / row["tokens"] ** 2) / (6 * row["width"]))
    statement = "distance from 6 d of the tokens at which half of the products of a block of ViT-B are attention's"
    crossover = [at_most(f"{statement}, over 6 d", distances(crossings, 1), 0.01)]
    memory = []
    for form in FORMS:
        exponents = fit_exponents(rows, "bytes", what="attention", form=form, low=LARGE)
        statement = f"exponent of the memory from {LARGE} to {most:,} tokens, {form}"
        memory.append(at_least(statement, exponents, MIDDLE))
    largest = max(row["tokens"] for row in rows if row["what"] == "difference")
    for form in (FUSED, IN_BLOCKS):
        differences = values(rows, "below", what="difference", form=form, tokens=largest)
        statement = f"difference of the results from those all at once, {form}, {largest:,} tokens"
        memory.append(at_most(statement, differences, 1e-5, is_control=True))
    patch = []
    for first, second in (("vit/B32", "vit/B16"), ("vit/B16", "vit/B8"), ("vit/B2", "vit/B1")):
        costs = [values(rows, "macs", what="published", model=model, image=224) for model in (first, second)]
        names = f"{published_name(second)} to {published_name(first)}"
        statement = f"distance from 4 of the ratio of the products, {names}, 224 pixels"
        patch.append(at_most(statement, distances(ratios(costs[1], costs[0]), 4), 1))
    return {"quadratic": quadratic, "vit": vit, "crossover": crossover, "memory": memory, "patch": patch}


def weigh_times(times) -> dict:
    """The evidence that a clock gives."""
    clock = name_clock(times)
    run = {"what": "attention", "form": AT_ONCE}
    most = max(values(times, "tokens", **run))
    exponents = fit_exponents(times, "seconds", low=LARGE // 2, **run)
    statement = f"exponent of the {clock} time of attention from {LARGE // 2} to {most:,} tokens"
    quadratic = [at_least(statement, exponents, 1.8)]
    vit = []
    networks = sorted(set(values(times, "tokens", what="vit", patch=PATCH)))
    for first, second in sorted({tuple(networks[:2]), tuple(networks[-2:])}):
        exponents = fit_exponents(times, "seconds", what="vit", patch=PATCH, low=first, high=second)
        statement = f"exponent of the {clock} time of a network of width {WIDTH} from {first:,} to {second:,} tokens"
        vit.append(at_least(statement, exponents, MIDDLE))
    crossings = [crossing / (6 * WIDTH) for crossing in find_crossings(times)]
    statement = f"distance from 6 d of the tokens at which attention takes half of the {clock} time of a block"
    crossover = [at_most(f"{statement} of width {WIDTH}, over 6 d", distances(crossings, 1), 0.25)]
    patch = []
    patches = sorted(set(values(times, "patch", what="vit", image=SIDE)), reverse=True)
    for pair in sorted({(patches[0], patches[1]), (patches[-2], patches[-1])}, reverse=True):
        costs = [values(times, "seconds", what="vit", image=SIDE, patch=side) for side in pair]
        statement = f"distance from 4 of the ratio of the {clock} time, patches of {pair[1]} to those of {pair[0]}"
        statement += f", a network of width {WIDTH}, {SIDE} pixels"
        patch.append(at_most(statement, distances(ratios(costs[1], costs[0]), 4), 1))
    return {"quadratic": quadratic, "vit": vit, "crossover": crossover, "patch": patch}


def name_clock(times) -> str:
    """The clock that the times are of: "CPU" or "wall"."""
    return times[0].get("clock", "CPU")


def distances(numbers, center: float) -> list[float]:
    """How far numbers lie from a center."""
    return [abs(number - center) for number in numbers]


def find_shares(times, tokens: int) -> list[float]:
    """The share of attention in the time of a block, one a seed."""
    attention = values(times, "seconds", what="attention", form=AT_ONCE, tokens=tokens)
    return ratios(attention, values(times, "seconds", what="block", tokens=tokens))


def find_crossings(times) -> list[float]:
    """The tokens at which attention takes half of the time of a block, between two sizes; one a seed."""
    sizes = sorted(set(values(times, "tokens", what="block")))
    shares = np.array([find_shares(times, tokens) for tokens in sizes]).T  # (seeds, sizes)
    crossings = []
    for of_seed in shares:
        rising = np.maximum.accumulate(of_seed)
        crossings.append(round(float(np.exp(np.interp(0.5, rising, np.log(sizes)))), DIGITS))
    return crossings


def tabulate(rows) -> list[Table]:
    """The tables: published networks, memory of attention, and networks by image and patch size."""
    published = []
    for row in select(rows, what="published", seed=SEEDS[0]):
        share = row["attention"] / row["block"]
        cells = (published_name(row["model"]), str(row["image"]), f"{row['tokens']:,}", f"{6 * row['width']:,}")
        published.append(
            (*cells, f"{row['macs'] / 1e9:,.2f}", f"{100 * share:.1f} %", f"{100 * formula_share(row):.1f} %")
        )
    columns = ("network", "image", "tokens N", "6 d", "10\u2079 products", "share of attention", "N / (6 d + N)")
    tables = [Table("what attention takes of the products", columns, tuple(published))]
    memory = []
    for tokens in sorted({row["tokens"] for row in select(rows, what="attention")}):
        cells = [f"{tokens:,}"]
        for form in FORMS:
            (row, *_) = select(rows, what="attention", form=form, tokens=tokens)
            cells.append(f"{row['bytes'] / 2**20:,.1f} MiB{'' if row['fits'] else ', not run'}")
        memory.append(tuple(cells))
    cells = ["exponent"]
    for form in FORMS:
        cells.append(mean_text(fit_exponents(rows, "bytes", what="attention", form=form, low=LARGE)))
    memory.append(tuple(cells))
    title = f"memory of attention, {HEADS} heads of {WIDTH // HEADS}; what needs more than 1 GiB is not run"
    (platform,) = set(values(rows, "platform", what="attention"))
    title += "; fused attention is for a GPU, and here is none" if platform == "cpu" else f"; on a {platform}"
    tables.append(Table(title, ("tokens", *FORMS), tuple(memory)))
    networks = []
    for row in select(rows, what="vit", seed=SEEDS[0]):
        size = (str(row["image"]), str(row["patch"]), f"{row['tokens']:,}")
        networks.append((*size, f"{row['macs'] / 1e6:,.1f}", f"{row['bytes'] / 2**20:,.1f} MiB"))
    columns = ("image", "patch", "tokens", "10\u2076 products", "memory")
    tables.append(Table(f"a network of one block of width {WIDTH}, by image and patch size", columns, tuple(networks)))
    return tables


def tabulate_times(times) -> list[Table]:
    """The times of attention and of a block, their exponents, and the times of the networks."""
    clock = name_clock(times)
    by_tokens = []
    for tokens in sorted(set(values(times, "tokens", what="attention"))):
        cells = [f"{tokens:,}"]
        for form in FORMS:
            cells.append(milliseconds(values(times, "seconds", what="attention", form=form, tokens=tokens)))
        block = values(times, "seconds", what="block", tokens=tokens)
        share = mean_text([100 * share for share in find_shares(times, tokens)], 0) + " %" if block else ""
        by_tokens.append((*cells, milliseconds(block), share))
    for low, high in ((0, LARGE), (LARGE, math.inf)):
        cells = [f"exponent {'up to' if low == 0 else 'from'} {LARGE}"]
        for match in (*({"what": "attention", "form": form} for form in FORMS), {"what": "block"}):
            count = len({row["tokens"] for row in select(times, **match) if low <= row["tokens"] <= high})
            exponents = fit_exponents(times, "seconds", low=low, high=high, **match) if count > 1 else None
            cells.append(mean_text(exponents) if exponents else "")
        by_tokens.append((*cells, ""))
    columns = ("tokens", *(f"attention, {form}" for form in FORMS), "a block", "share of attention")
    tables = [Table(f"{clock} milliseconds of attention and of a block", columns, tuple(by_tokens))]
    crossing = (str(WIDTH), f"{6 * WIDTH:,}", mean_text(find_crossings(times), 0))
    columns = ("width d", "tokens by the products, 6 d", f"by {clock} time")
    tables.append(Table("where attention is half of a block", columns, (crossing,)))
    networks = []
    for row in select(times, what="vit", seed=SEEDS[0]):
        size = {"image": row["image"], "patch": row["patch"]}
        seconds = values(times, "seconds", what="vit", **size)
        networks.append((str(row["image"]), str(row["patch"]), f"{row['tokens']:,}", milliseconds(seconds)))
    columns = ("image", "patch", "tokens", f"{clock} milliseconds")
    title = f"{clock} time of a network of one block of width {WIDTH}"
    tables.append(Table(title, columns, tuple(networks)))
    return tables


def milliseconds(seconds) -> str:
    """The mean of the seeds in milliseconds and half the width of its interval; "not run" for none."""
    if not seconds:
        return "not run"
    thousandths = [1000 * number for number in seconds]
    return mean_text(thousandths, 1 if min(thousandths) >= 10 else 2)


def draw(rows) -> dict[str, str]:
    """The products of a block of ViT-B, and the memory of attention, by the tokens."""
    (base,) = select(rows, what="published", model="vit/B16", image=224, seed=SEEDS[0])
    pairs = base["attention"] / base["tokens"] ** 2
    rest = (base["block"] - base["attention"]) / base["tokens"]
    products = [
        plots.Line("attention", CURVE, [pairs * tokens**2 / 1e9 for tokens in CURVE], 0),
        plots.Line("dense layers and MLP", CURVE, [rest * tokens / 1e9 for tokens in CURVE], 1),
    ]
    memory = []
    for series, form in enumerate(FORMS):
        points = [row for row in select(rows, what="attention", form=form, seed=SEEDS[0]) if is_square(row["tokens"])]
        tokens, numbers = [row["tokens"] for row in points], [row["bytes"] / 2**20 for row in points]
        memory.append(plots.Line(form, tokens, numbers, series))
    axes = {"x_label": "tokens", "log": True, "log_x": True}
    return {
        "products": plots.draw_curves(products, title="10\u2079 products of a block of ViT-B", **axes),
        "memory": plots.draw_curves(memory, title="MiB of intermediate results", **axes),
    }


def draw_times(times) -> dict[str, str]:
    """The time of attention in each form and of a block, by the tokens."""
    lines = []
    measured = [(form, {"what": "attention", "form": form}) for form in FORMS] + [("whole block", {"what": "block"})]
    for series, (name, match) in enumerate(measured):
        sizes = sorted(filter(is_square, set(values(times, "tokens", **match))))
        means = [1000 * float(np.mean(values(times, "seconds", tokens=tokens, **match))) for tokens in sizes]
        lines.append(plots.Line(name, sizes, means, series))
    title = f"{name_clock(times)} milliseconds"
    return {"seconds": plots.draw_curves(lines, title=title, x_label="tokens", log=True, log_x=True)}
