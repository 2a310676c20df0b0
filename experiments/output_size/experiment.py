"""Output sizes: the formula of lecture notes against XLA, and what SAME stands for.

Nothing is trained. Each seed draws windows at random: side, filter, stride, padding and dilation. XLA says the shape
that a convolution of them has, and each rule is compared with it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import jax
import numpy as np

from cnn_vit import plots
from cnn_vit.analysis.calculator import calculate
from cnn_vit.nn.conv import Slide, plain_convolve
from cnn_vit.reports.evidence import at_least, at_most
from cnn_vit.reports.intervals import student_interval
from cnn_vit.reports.lab_facts import Table
from cnn_vit.studies.lab import Measured

ORDER = 5
QUESTION = "How many pixels does a convolution leave, and what does SAME padding do?"
CLAIM = (
    "Of n pixels a convolution leaves floor((n + p0 + p1 - d (k - 1) - 1) / s) + 1, for a filter of k taps that are d "
    "pixels apart, a stride of s, and p0 and p1 pixels of padding. The n/s - k + 1 of lecture notes is this formula at "
    "stride 1 without padding and dilation, and elsewhere right by accident."
)
SENTENCES = {
    "textbook": (
        "The output of a convolution has n/s - k + 1 pixels.",
        "At stride 1, without padding and dilation, it has n - k + 1. In general it has "
        "floor((n + p0 + p1 - d (k - 1) - 1) / s) + 1: padding and dilation change the number, and the stride divides "
        "what is left behind the first window, not n alone. At larger strides, without padding and dilation, the notes "
        "are right only for a filter of one pixel whose stride divides n.",
    ),
    "same": (
        "SAME padding keeps the size of the image.",
        "It does at stride 1. At a stride of s it leaves n / s pixels, rounded up.",
    ),
    "symmetric": (
        "SAME padding is a padding of (k - 1) / 2 on each side.",
        "With filters of 3, 5 or 7 taps it is, at stride 1, and at stride 2 where the image has an odd side. With "
        "taps that are d pixels apart it is d (k - 1) / 2. Where the side is even, JAX and TensorFlow pad one pixel "
        "less before the image at stride 2. The output then has as many pixels as with the padding of PyTorch's "
        "networks, but each window lies one pixel farther on, and its numbers are others. A filter of one tap, as that "
        "of a ResNet's shortcuts, is not padded by either.",
    ),
}
FORMULAS = (
    (
        r"m = \lfloor \frac{n + p_{0} + p_{1} - d (k - 1) - 1}{s} \rfloor + 1",
        "The pixels m of the output. The window reaches over d (k - 1) + 1 pixels; each s pixels that are left behind "
        "the first window give one more.",
        "cnn-vit describe conv --n=32 --k=3 --s=2 --padding=1",
    ),
    (
        r"p_{0} + p_{1} = \max(0, (m - 1) s + d (k - 1) + 1 - n)",
        "The padding that SAME adds for m = n / s pixels, rounded up. Half of it, rounded down, stands before the "
        "image; the rest behind it.",
        "pytest tests/analysis/test_calculator.py -k same",
    ),
)
FIGURES = {
    "right": "How often n/s - k + 1 is the number of pixels, by stride, without padding and dilation: mean of the "
    "seeds and its 95 % interval.",
    "first_window": "Which pixels of a row of 8 a filter of 3 sees at stride 2. Each row is a window: orange is a "
    "pixel, blue is padding, pale is not seen. A padding of 1 before and 1 behind, as PyTorch's networks have it, and "
    "SAME both give four windows, of other pixels.",
}
SURPRISE = (
    "A shape that is right proves little. At stride 2 with even sides, SAME and a padding of (k - 1) / 2 give as many "
    "pixels, and other numbers: a network that was converted from PyTorch then runs without an error, and is wrong. "
    "Counted by hand, n/s - k + 1 without padding and dilation can be right at a larger stride only where k is 1 and "
    "s divides n; none of 3,600 windows says otherwise."
)
CHOSEN = (
    "Nothing is trained. Sides, filters, strides, paddings and dilations are drawn at random; those that leave no "
    "pixel of output are drawn again."
)
SEEDS = (0, 1, 2)

STRIDES = (1, 2, 3, 4)
LARGER = ("stride 2", "stride 3", "stride 4")
CASES, QUICK_CASES = 400, 60  # windows that a seed draws for each rule, or each stride of it
LARGEST_SIDE, LARGEST_FILTER = 64, 7  # pixels
COMPARED = ((8, 3), (14, 3), (16, 5), (32, 3), (9, 3), (15, 5))  # sides and filters whose outputs are compared
DRAWN_SIDE = 8


@dataclass(frozen=True)
class Window:
    """A window along one side of an image.

    Attributes:
        n: pixels of the side.
        k: taps of the filter.
        s: stride.
        d: dilation.
        padding: pixels before and behind.
    """

    n: int
    k: int
    s: int
    d: int
    padding: tuple[int, int]

    @property
    def formula(self) -> int:
        """floor((n + p0 + p1 - d (k - 1) - 1) / s) + 1."""
        return (self.n + sum(self.padding) - self.d * (self.k - 1) - 1) // self.s + 1

    @property
    def textbook(self) -> float:
        """n / s - k + 1."""
        return self.n / self.s - self.k + 1

    @property
    def xla(self) -> int:
        """The pixels of the output whose shape XLA infers."""
        image = jax.ShapeDtypeStruct((1, self.n, 1, 1), np.float32)
        kernel = jax.ShapeDtypeStruct((self.k, 1, 1, 1), np.float32)
        slide = Slide((self.s, 1), (self.padding, (0, 0)), (self.d, 1), groups=1)
        return jax.eval_shape(lambda image, kernel: plain_convolve(image, kernel, slide), image, kernel).shape[1]


def draw_windows(
    rng: np.random.Generator, count: int, *, stride: int = 0, is_plain: bool | None = None
) -> Iterator[Window]:
    """Draws windows that fit.

    Args:
        rng: what they are drawn from.
        count: how many.
        stride: of all of them; 0 for any.
        is_plain: whether they are without padding and dilation; None for both kinds.
    """
    drawn = 0
    while drawn < count:
        n, k = int(rng.integers(1, LARGEST_SIDE + 1)), int(rng.integers(1, LARGEST_FILTER + 1))
        s = stride or int(rng.choice(STRIDES))
        d = 1 if is_plain else int(rng.integers(1, 4))
        before, after = (0, 0) if is_plain else map(int, rng.integers(0, 6, 2))
        window = Window(n, k, s, d, (before, after))
        is_wrong_kind = is_plain is False and d == 1 and before == after == 0
        if window.formula >= 1 and not is_wrong_kind:
            drawn += 1
            yield window


def measure(seed: int, runs, *, quick: bool) -> Measured:
    """Everything of one seed: its windows and the images of the comparison are drawn from it."""
    rng = np.random.default_rng(seed)
    cases = QUICK_CASES if quick else CASES
    rows = []
    for stride in STRIDES:
        windows = list(draw_windows(rng, cases, stride=stride, is_plain=True))
        right = [window for window in windows if window.textbook == window.xla]
        row = {"what": "textbook", "case": f"stride {stride}", "cases": cases, "right": len(right)}
        rows.append(row | {"right_and_wide": sum(window.k > 1 for window in right)})
    windows = list(draw_windows(rng, cases, stride=1, is_plain=False))
    right = sum(window.textbook == window.xla for window in windows)
    rows.append({"what": "textbook", "case": "padding or dilation", "cases": cases, "right": right})
    windows = list(draw_windows(rng, cases))
    right = sum(window.formula == window.xla for window in windows)
    rows.append({"what": "formula", "cases": cases, "right": right})
    rows += compare_same(rng, cases)
    rows += compare_outputs(rng)
    return Measured(rows)


def compare_same(rng: np.random.Generator, cases: int) -> list[dict]:
    """What SAME gives, by stride: how often the size stays, is n / s rounded up, and the padding is symmetric."""
    rows = []
    for stride in STRIDES:
        stays, divides, agrees = 0, 0, 0
        # Agreeing, all; for sides of either kind and filters of 3, 5 or 7 taps, and for filters of one tap.
        symmetric = {"odd": [0, 0], "even": [0, 0], "one_tap": [0, 0]}
        for window in draw_windows(rng, cases, stride=stride):
            span = window.d * (window.k - 1) + 1
            (edges,) = jax.lax.padtype_to_pads((window.n,), (span,), (stride,), "SAME")
            before, after = map(int, edges)
            padded = Window(window.n, window.k, stride, window.d, (before, after))
            output = padded.xla
            stays += output == window.n
            divides += output == -(-window.n // stride)
            same = calculate("conv", n=window.n, k=window.k, s=stride, d=window.d, padding=span).same
            agrees += (same.output, same.padding) == (output, (before, after))
            if window.k % 2:
                count = symmetric["one_tap" if window.k == 1 else "odd" if window.n % 2 else "even"]
                count[0] += before == after == window.d * (window.k - 1) // 2
                count[1] += 1
        row = {"what": "same", "stride": stride, "cases": cases, "stays": stays, "divides": divides, "agrees": agrees}
        for name, (agreeing, count) in symmetric.items():
            row |= {f"symmetric_{name}": agreeing, f"cases_{name}": count}
        rows.append(row)
    return rows


def compare_outputs(rng: np.random.Generator) -> list[dict]:
    """The outputs of a stride-2 convolution with SAME and with (k - 1) / 2 around, relative to the largest number."""
    rows = []
    for side, taps in COMPARED:
        images = rng.normal(size=(1, side, side, 3)).astype(np.float32)
        kernel = rng.normal(size=(taps, taps, 3, 4)).astype(np.float32)
        (edges,) = jax.lax.padtype_to_pads((side,), (taps,), (2,), "SAME")
        half = (taps - 1) // 2
        outputs = []
        for before, after in (edges, (half, half)):
            pair = (int(before), int(after))
            outputs.append(np.asarray(plain_convolve(images, kernel, Slide((2, 2), (pair, pair), (1, 1), groups=1))))
        same, symmetric = outputs
        row = {"what": "outputs", "side": side, "taps": taps, "same_pixels": int(same.shape[1])}
        row["symmetric_pixels"] = int(symmetric.shape[1])
        row["difference"] = float(np.abs(same - symmetric).max() / np.abs(symmetric).max())
        rows.append(row)
    return rows


# What the rows say ----------------------------------------------------------------------------------------------------


def shares(rows, key: str, of: str, **match) -> list[float]:
    """The share of the cases of which something holds, one a seed."""
    matching = [row for row in rows if all(row.get(name) == value for name, value in match.items())]
    return [row[key] / row[of] for row in matching]


def differences(rows, *, is_odd: bool) -> list[float]:
    """For each seed: of even sides the least difference of two outputs, of odd sides the largest."""
    by_seed: dict[int, list[float]] = {}
    for row in rows:
        if row["what"] == "outputs" and bool(row["side"] % 2) == is_odd:
            by_seed.setdefault(row["seed"], []).append(row["difference"])
    return [max(numbers) if is_odd else min(numbers) for numbers in by_seed.values()]


def weigh(rows) -> dict:
    """The evidence for each sentence."""
    textbook = []
    for case in (*(f"stride {stride}" for stride in STRIDES), "padding or dilation"):
        name = f"{case}, no padding or dilation" if case.startswith("stride") else "stride 1, padding or dilation"
        right = shares(rows, "right", "cases", what="textbook", case=case)
        textbook.append(at_least(f"share of windows that give n/s - k + 1 pixels, {name}", right, 1))
    wide = dict.fromkeys(sorted({row["seed"] for row in rows}), 0)
    for row in rows:
        if row["what"] == "textbook" and row["case"] in LARGER:
            wide[row["seed"]] += row["right_and_wide"]
    statement = "windows of more than one pixel that give n/s - k + 1 pixels, strides 2 to 4"
    textbook.append(at_most(statement, list(wide.values()), 0, is_control=True))
    formula = shares(rows, "right", "cases", what="formula")
    textbook.append(
        at_least(
            "share of windows that give what the formula with floor says, any stride, padding and dilation",
            formula,
            1,
            is_control=True,
        )
    )
    same, symmetric = [], []
    for stride in STRIDES:
        stays = shares(rows, "stays", "cases", what="same", stride=stride)
        same.append(at_least(f"share of windows whose output is as large as the image, stride {stride}", stays, 1))
    divided = [row["divides"] / row["cases"] for row in rows if row["what"] == "same" and row["stride"] == 2]
    same.append(at_least("share whose output is n / 2, rounded up, stride 2", divided, 1, is_control=True))
    for stride, side in ((1, "odd"), (1, "even"), (2, "odd"), (2, "even")):
        agreeing = shares(rows, f"symmetric_{side}", f"cases_{side}", what="same", stride=stride)
        statement = f"share of filters of 3, 5 or 7 taps that SAME pads by d (k - 1) / 2, stride {stride}, {side} sides"
        symmetric.append(at_least(statement, agreeing, 1))
    bare = shares(rows, "symmetric_one_tap", "cases_one_tap", what="same", stride=2)
    symmetric.append(at_least("share of filters of one tap that SAME does not pad, stride 2", bare, 1, is_control=True))
    symmetric.append(
        at_most(
            "difference of the outputs with SAME and with (k - 1) / 2, relative to the largest number, stride 2, odd "
            "sides, the largest",
            differences(rows, is_odd=True),
            1e-6,
        )
    )
    symmetric.append(
        at_most(
            "difference of the outputs with SAME and with (k - 1) / 2, relative to the largest number, stride 2, even "
            "sides, the least",
            differences(rows, is_odd=False),
            1e-6,
        ),
    )
    return {"textbook": textbook, "same": same, "symmetric": symmetric}


def percent_text(numbers) -> str:
    """The mean of shares and half the width of its interval."""
    estimate, low, high = student_interval(numbers)
    half = 0.0 if low is None or high is None else (high - low) / 2
    return f"{100 * estimate:.1f} \u00b1 {100 * half:.1f} %" if half else f"{100 * estimate:g} %"


def tabulate(rows) -> list[Table]:
    """The tables: how often each rule is right, and both paddings side by side."""
    cells = []
    for case in (*(f"stride {stride}" for stride in STRIDES), "padding or dilation"):
        matching = [row for row in rows if row["what"] == "textbook" and row["case"] == case]
        count = sum(row["cases"] for row in matching)
        name = case if case.startswith("stride") else "stride 1 with padding or dilation"
        cells.append((name, f"{count:,}", percent_text([row["right"] / row["cases"] for row in matching])))
    matching = [row for row in rows if row["what"] == "formula"]
    count = sum(row["cases"] for row in matching)
    name = "the formula with floor, any stride, padding and dilation"
    cells.append((name, f"{count:,}", percent_text([row["right"] / row["cases"] for row in matching])))
    tables = [Table("how often n/s - k + 1 is right", ("windows", "how many", "right"), tuple(cells))]
    cells = []
    for stride in STRIDES:
        texts = [str(stride)]
        for key, of in (("stays", "cases"), ("divides", "cases"), ("agrees", "cases")):
            texts.append(percent_text(shares(rows, key, of, what="same", stride=stride)))
        for side in ("odd", "even"):
            agreeing = shares(rows, f"symmetric_{side}", f"cases_{side}", what="same", stride=stride)
            texts.append(percent_text(agreeing))
        cells.append(tuple(texts))
    columns = ("stride", "as large as the image", "n / s, rounded up", "as cnn-vit describe says")
    columns += ("d (k - 1) / 2 around, k = 3, 5 or 7, odd sides", "even sides")
    tables.append(Table("what SAME does", columns, tuple(cells)))
    cells = []
    for side, taps in COMPARED:
        matching = [row for row in rows if row["what"] == "outputs" and (row["side"], row["taps"]) == (side, taps)]
        texts = [str(side), f"{taps}x{taps}", str(matching[0]["same_pixels"]), str(matching[0]["symmetric_pixels"])]
        least = min(row["difference"] for row in matching)
        cells.append((*texts, f"{least:.2f}" if least else "0"))
    columns = ("pixels of a side", "filter", "outputs with SAME", "with (k - 1) / 2")
    columns += ("least difference, relative to the largest number",)
    tables.append(Table("SAME and (k - 1) / 2 at stride 2", columns, tuple(cells)))
    return tables


def draw(rows) -> dict[str, str]:
    """How often the formula of lecture notes is right, and where the windows of both paddings lie."""
    spans = []
    for stride in STRIDES:
        right = shares(rows, "right", "cases", what="textbook", case=f"stride {stride}")
        spans.append(plots.Span(f"stride {stride}", *student_interval(right)))
    maps = []
    for before in (1, 0):
        # Both have room for one pixel before the image, so that a pixel stands below itself; 0.15 is not seen.
        cells = np.zeros((4, DRAWN_SIDE + 2))
        cells[:, 1 : 1 + DRAWN_SIDE] = 0.15
        for window, tap in np.ndindex(4, 3):
            pixel = 2 * window - before + tap
            cells[window, 1 + pixel] = 1.0 if 0 <= pixel < DRAWN_SIDE else -1.0
        maps.append(cells)
    colors = plots.signed_maps(np.stack(maps), columns=1, largest=1)
    panel = plots.draw_panel(plots.data_uri(colors), "1 and 1 above, SAME below")
    return {
        "right": plots.draw_intervals(spans, title="n/s - k + 1 is right"),
        "first_window": plots.side_by_side([panel], "Windows of two paddings"),
    }
