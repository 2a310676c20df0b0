"""What each function of a learner is called with: cases from the simplest to all of it together.

Each case adds one thing, such as padding or a stride, so that the first one that is wrong tells where to look. All
numbers are float64 and drawn with two decimals, the same in every process.
"""

import functools
import inspect
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from cnn_vit.analysis import backprop
from cnn_vit.analysis.backprop import NO_PADDING

ALL_SIDES = ((1, 1), (1, 1))
UNEQUAL = ((1, 0), (0, 2))
UNEQUAL_OF_POOL = ((1, 0), (0, 1))
OUTPUTS = {  # of each function, as its docstring calls them, in the order in which they are returned
    "relu_forward": ("y",),
    "relu_backward": ("dL/dx",),
    "dense_forward": ("y",),
    "dense_backward": ("dL/dx", "dL/dw", "dL/db"),
    "conv_forward": ("y",),
    "conv_backward": ("dL/dx", "dL/dw", "dL/db"),
    "max_pool_forward": ("y",),
    "max_pool_backward": ("dL/dx",),
    "average_pool_forward": ("y",),
    "average_pool_backward": ("dL/dx",),
    "softmax_cross_entropy_forward": ("L",),
    "softmax_cross_entropy_backward": ("dL/dscores",),
    "batch_norm_forward": ("y",),
    "batch_norm_backward": ("dL/dx", "dL/dgamma", "dL/dbeta"),
    "layer_norm_forward": ("y",),
    "layer_norm_backward": ("dL/dx", "dL/dgamma", "dL/dbeta"),
    "attention_forward": ("y",),
    "attention_backward": ("dL/dq", "dL/dk", "dL/dv"),
}


# What to write first.
GOOD_START = ("relu_backward", "dense_backward", "softmax_cross_entropy_backward", "conv_backward")


@dataclass(frozen=True)
class Hint:
    """What to look at where a case is wrong, which is something else forward than backward.

    Attributes:
        forward: for the forward function.
        backward: for the backward function.
    """

    forward: str
    backward: str


@dataclass(frozen=True)
class Case:
    """One call of a function.

    Attributes:
        name: what the case is about, as a phrase that stands behind "with".
        inputs: the arguments by name, in their order.
        hint: what to look at where this is the first case that is wrong.
    """

    name: str
    inputs: dict[str, Any]
    hint: str

    @property
    def named(self) -> SimpleNamespace:
        """The arguments as attributes."""
        return SimpleNamespace(**self.inputs)


@dataclass(frozen=True)
class Exercise:
    """A function that the learner writes.

    Attributes:
        name: of the function.
        outputs: names of what it returns.
        cases: what it is called with.
        right: what it has to return, for each case an array for each output.
    """

    name: str
    outputs: tuple[str, ...]
    cases: tuple[Case, ...]
    right: tuple[tuple[np.ndarray, ...], ...]


def reference(name: str) -> Callable[..., Any]:
    """The right function of a name."""
    return getattr(backprop, name)


def as_outputs(returned: Any) -> tuple[np.ndarray, ...]:
    """What a right function returns, as a tuple of arrays also where it is one array or one number."""
    outputs = returned if isinstance(returned, tuple) else (returned,)
    return tuple(np.asarray(output, float) for output in outputs)


@functools.cache
def load_exercise(name: str) -> Exercise:
    """The exercise of a function, with its right answers."""
    cases = CASES[name.removesuffix("_forward").removesuffix("_backward")](is_backward=name.endswith("_backward"))
    right = tuple(as_outputs(reference(name)(**case.inputs)) for case in cases)
    return Exercise(name, OUTPUTS[name], tuple(cases), right)


# Numbers --------------------------------------------------------------------------------------------------------------


class Numbers:
    """Draws the numbers of a layer's cases, the same each time.

    Args:
        seed: which numbers.
    """

    def __init__(self, seed: int):
        self._rng = np.random.default_rng(seed)

    def draw(self, *shape: int) -> np.ndarray:
        """Normal numbers with two decimals, none of them 0."""
        numbers = np.round(self._rng.normal(size=shape), 2)
        return np.where(numbers == 0, 0.5, numbers)

    def draw_different(self, *shape: int) -> np.ndarray:
        """Numbers of which no two are equal: whole ones around 0, in any order."""
        count = int(np.prod(shape))
        return (self._rng.permutation(count) - count / 2 + 0.25).reshape(shape)

    def draw_equal(self, *shape: int) -> np.ndarray:
        """Numbers of which many are equal, as behind a ReLU: 0, 1 and 2."""
        return self._rng.integers(0, 3, shape).astype(float)


CaseRow = tuple[str, str | Hint, dict[str, Any]]  # name, hint and the arguments of the forward function


def make_cases(layer: str, rows: list[CaseRow], numbers: Numbers, *, is_backward: bool) -> list[Case]:
    """Makes the cases of a function from those of its layer.

    Args:
        layer: such as "conv".
        rows: name, hint and the arguments of the forward function.
        numbers: that g is drawn by.
        is_backward: whether the cases are of the backward function, which takes g and not all of the others.
    """
    forward, backward = reference(f"{layer}_forward"), reference(f"{layer}_backward")
    cases = []
    for name, hint, inputs in rows:
        if is_backward:
            with_gradient = {**inputs, "g": numbers.draw(*np.shape(forward(**inputs)))}
            inputs = {parameter: with_gradient[parameter] for parameter in inspect.signature(backward).parameters}
        if isinstance(hint, Hint):
            hint = hint.backward if is_backward else hint.forward
        cases.append(Case(name, inputs, hint))
    return cases


# The layers -----------------------------------------------------------------------------------------------------------


def relu_cases(*, is_backward: bool) -> list[Case]:
    """Cases of ReLU."""
    numbers = Numbers(1)
    with_zeros = np.array([[-1.5, 0, 2], [0, 3.25, -0.5], [0, -2, 1]])
    rows: list[CaseRow] = [
        ("a few numbers", "compare x with 0, number by number", {"x": numbers.draw(2, 5)}),
        (
            "zeros in x",
            Hint("max(0, 0) is 0", "at x = 0 the gradient is 0: x > 0, not x >= 0"),
            {"x": with_zeros},
        ),
        ("a batch of images", "no shape matters here: work on all numbers alike", {"x": numbers.draw(2, 3, 4, 2)}),
    ]
    return make_cases("relu", rows, numbers, is_backward=is_backward)


def dense_cases(*, is_backward: bool) -> list[Case]:
    """Cases of a dense layer; the first has a square kernel, with which a transposed one gives numbers too."""
    numbers = Numbers(2)
    rows: list[CaseRow] = []
    for name, hint, batch, before, behind in (
        ("one example and as many numbers behind as before", "write the sum for one y[n, k] on paper", 1, 3, 3),
        (
            "several examples",
            Hint(
                "each row of x is an example and gives its own row of y, by the same w and b",
                "each parameter is used by all examples: add up their gradients",
            ),
            4, 3, 3,
        ),
        ("more numbers before than behind", "follow the shapes: which axis is summed away in each line?", 4, 5, 2),
    ):  # fmt: skip
        inputs = {"x": numbers.draw(batch, before), "w": numbers.draw(before, behind), "b": numbers.draw(behind)}
        rows.append((name, hint, inputs))
    return make_cases("dense", rows, numbers, is_backward=is_backward)


def conv_cases(*, is_backward: bool) -> list[Case]:
    """Cases of a convolution."""
    numbers = Numbers(3)
    rows: list[CaseRow] = []
    # name, hint, shape of x, shape of w, stride, padding, dilation, groups
    layers: tuple[tuple[Any, ...], ...] = (
        (
            "one image, one channel, one filter",
            Hint(
                "take a 1x3 kernel on 5 pixels and write every y on paper",
                "take a 1x3 kernel on 5 pixels, write every y on paper, then what each pixel and weight has a part in",
            ),
            (1, 5, 5, 1), (3, 3, 1, 1), 1, NO_PADDING, 1, 1,
        ),
        (
            "a batch, and as many filters as channels",
            "w[u, v, c, o] has the channel of the input third and the filter last",
            (2, 4, 5, 2), (2, 2, 2, 2), 1, NO_PADDING, 1, 1,
        ),
        (
            "sides and channels of different sizes",
            "height and width, rows and columns of the kernel, channels and filters each have their own axis",
            (2, 5, 4, 2), (2, 3, 2, 3), 1, NO_PADDING, 1, 1,
        ),
        ("padding of 1", "work on the padded x throughout", (1, 4, 4, 2), (3, 3, 2, 1), 1, ALL_SIDES, 1, 1),
        (
            "unequal padding",
            "padding is ((top, bottom), (left, right)), and they may differ",
            (1, 4, 4, 1), (3, 3, 1, 2), 1, UNEQUAL, 1, 1,
        ),
        ("stride 2", "window i begins at pixel 2 i", (1, 5, 7, 1), (3, 3, 1, 2), 2, NO_PADDING, 1, 1),
        (
            "stride 2 and pixels that no window reads",
            Hint(
                "the last row and column are read by no window: floor((H - kernel) / stride) + 1 windows fit",
                "the last row and column are read by no window: the sizes must come from x, not from g",
            ),
            (1, 6, 8, 2), (3, 3, 2, 1), 2, NO_PADDING, 1, 1,
        ),
        ("dilation 2", "place u of the kernel lies on pixel 2 u", (1, 6, 7, 1), (3, 2, 1, 2), 1, NO_PADDING, 2, 1),
        (
            "2 groups",
            "the first half of the filters sees the first half of the channels, and w has only these",
            (1, 4, 4, 4), (2, 2, 2, 6), 1, NO_PADDING, 1, 2,
        ),
        (
            "all of it together",
            "each part is right alone; look at how they meet: row = i * stride + u * dilation in the padded image",
            (2, 8, 9, 4), (2, 3, 2, 2), 3, ((2, 1), (1, 0)), 2, 2,
        ),
    )  # fmt: skip
    for name, hint, image, kernel, *options in layers:
        inputs = {"x": numbers.draw(*image), "w": numbers.draw(*kernel), "b": numbers.draw(kernel[-1])}
        inputs |= dict(zip(("stride", "padding", "dilation", "groups"), options, strict=True))
        rows.append((name, hint, inputs))
    return make_cases("conv", rows, numbers, is_backward=is_backward)


BEGIN = "window i begins at pixel i * stride, whatever its size"
UNREAD = Hint("only whole windows count: floor((H - size) / stride) + 1 of them fit", "their gradient is 0")


def max_pool_cases(*, is_backward: bool) -> list[Case]:
    """Cases of max pooling."""
    numbers = Numbers(4)
    draw, equal = numbers.draw_different, numbers.draw_equal
    rows: list[CaseRow] = []
    for name, hint, x, *options in (
        ("one image and windows side by side", "draw the four windows", draw(1, 4, 4, 1), 2, 2, NO_PADDING),
        ("a batch of several channels", "each channel of each image by itself", draw(2, 4, 6, 2), 2, 2, NO_PADDING),
        (
            "windows that overlap",
            Hint(
                BEGIN,
                "a pixel may be the largest of several windows, and gets the sum of their gradients",
            ),
            draw(1, 4, 5, 1), 3, 1, NO_PADDING,
        ),
        ("pixels that no window reads", UNREAD, draw(1, 5, 7, 1), 2, 2, NO_PADDING),
        (
            "equal largest pixels",
            Hint(
                "the largest number of a window is the same, whichever pixel it is taken from",
                "one pixel of each window gets the whole gradient: the first, row by row",
            ),
            equal(1, 4, 6, 2), 2, 2, NO_PADDING,
        ),
        (
            "negative pixels beside padding",
            Hint(
                "padding is minus infinity, so that it is never the largest",
                "padding is minus infinity, so that it is never the largest, and the gradient of x has no padding",
            ),
            -np.abs(draw(1, 3, 3, 1)) - 1, 2, 2, UNEQUAL_OF_POOL,
        ),
        (
            "all of it together",
            "each part is right alone; look at how they meet",
            equal(2, 5, 4, 2) - 1, 3, 2, ((1, 2), (2, 1)),
        ),
    ):  # fmt: skip
        rows.append((name, hint, {"x": x, **dict(zip(("size", "stride", "padding"), options, strict=True))}))
    return make_cases("max_pool", rows, numbers, is_backward=is_backward)


def average_pool_cases(*, is_backward: bool) -> list[Case]:
    """Cases of average pooling."""
    numbers = Numbers(5)
    rows: list[CaseRow] = []
    for name, hint, image, *options in (
        ("one image and windows side by side", "a window has size * size pixels", (1, 4, 4, 1), 2, 2, NO_PADDING, True),
        ("a batch of several channels", "each channel by itself", (2, 4, 6, 2), 2, 2, NO_PADDING, True),
        (
            "windows that overlap",
            Hint(BEGIN, "a pixel has a part in several means"),
            (1, 4, 5, 1), 3, 1, NO_PADDING, True,
        ),
        ("pixels that no window reads", UNREAD, (1, 5, 7, 1), 2, 2, NO_PADDING, True),
        ("padding that counts", "the zeros around x count as pixels", (1, 3, 3, 1), 2, 2, UNEQUAL_OF_POOL, True),
        (
            "padding that does not count",
            "divide by how many pixels of the image each window has",
            (1, 3, 3, 1), 2, 2, UNEQUAL_OF_POOL, False,
        ),
        ("all of it together", "each part is right alone", (2, 5, 4, 2), 3, 2, ((1, 2), (2, 1)), False),
    ):  # fmt: skip
        names = ("size", "stride", "padding", "counts_padding")
        rows.append((name, hint, {"x": numbers.draw(*image), **dict(zip(names, options, strict=True))}))
    return make_cases("average_pool", rows, numbers, is_backward=is_backward)


def norm_cases(layer: str, shapes: list[tuple[int, ...]], *, is_backward: bool) -> list[Case]:
    """Cases of a normalization, of two shapes of x: gamma 1 and beta 0, then others, then a large epsilon."""
    numbers = Numbers(len(layer))
    rows: list[CaseRow] = []
    for name, hint, shape, is_scaled, epsilon in (
        (
            "gamma 1 and beta 0",
            Hint(
                "compare the axes of the means with the docstring",
                "gamma is 1, so that only z, the root, means and sums are left: write the docstring's formula of this "
                "output beside your line",
            ),
            shapes[0], False, 1e-5,
        ),
        (
            "other gammas and betas",
            Hint("gamma scales behind the norm", "dL/dz is gamma g; no gamma stands in dL/dgamma and dL/dbeta"),
            shapes[0], True, 1e-5,
        ),
        (
            "more examples",
            Hint("which axes do the means run over?", "which axes do the means run over, and which the sums?"),
            shapes[1], True, 1e-5,
        ),
        ("a large epsilon", "epsilon is added to the variance, inside the root", shapes[1], True, 0.5),
    ):  # fmt: skip
        channels = shape[-1]
        gamma, beta = np.ones(channels), np.zeros(channels)
        if is_scaled:
            gamma, beta = numbers.draw(channels), numbers.draw(channels)
        x = 2 * numbers.draw(*shape) + 1
        rows.append((name, hint, {"x": x, "gamma": gamma, "beta": beta, "epsilon": epsilon}))
    return make_cases(layer, rows, numbers, is_backward=is_backward)


def attention_cases(*, is_backward: bool) -> list[Case]:
    """Cases of attention; the first has as many queries as keys, with which a transposed matrix gives numbers too."""
    numbers = Numbers(6)
    rows: list[CaseRow] = []
    for name, hint, batch, queries, keys, width, value_width, scale in (
        ("one example, 3 queries and 3 keys", "write P for 2 queries and 2 keys on paper", 1, 3, 3, 4, 4, 1),
        ("a batch", "the first axis only counts examples", 2, 3, 3, 4, 4, 1),
        ("more keys than queries", "follow the shapes: P is (B, T, S)", 2, 2, 5, 3, 2, 1),
        (
            "large scores",
            "exp of a large number overflows: subtract the largest score of each row before exp",
            1, 2, 3, 4, 2, 3000,
        ),
    ):  # fmt: skip
        q, k = scale * numbers.draw(batch, queries, width), numbers.draw(batch, keys, width)
        rows.append((name, hint, {"q": q, "k": k, "v": numbers.draw(batch, keys, value_width)}))
    return make_cases("attention", rows, numbers, is_backward=is_backward)


def softmax_cross_entropy_cases(*, is_backward: bool) -> list[Case]:
    """Cases of the loss; the loss is one number, so that there is no g."""
    numbers = Numbers(7)
    large = np.array([[1000.0, 999, 998.5], [1001, 1000, 998]])
    unlikely = np.array([[1.0, -800, 0.5], [-0.5, 2, 1]])
    cases = []
    for name, hint, scores, labels, smoothing in (
        ("one example", "p = softmax(scores), and the loss is -log p[label]", numbers.draw(1, 3), [1], 0.0),
        ("a batch", "the loss is the mean over the batch", numbers.draw(4, 5), [0, 4, 2, 2], 0.0),
        (
            "smoothed labels",
            "the target is 1 - smoothing + smoothing / K at the label and smoothing / K elsewhere",
            numbers.draw(3, 4), [3, 0, 1], 0.2,
        ),
        (
            "large scores",
            "exp(1000) overflows: subtract the largest score of each row first, which changes no probability",
            large, [2, 1], 0.0,
        ),
        (
            "a label that is very unlikely",
            "its probability is rounded to 0, and log(0) is minus infinity: write log p as a difference of scores",
            unlikely, [1, 1], 0.0,
        ),
    ):  # fmt: skip
        cases.append(Case(name, {"scores": scores, "labels": np.array(labels), "smoothing": smoothing}, hint))
    return cases


CASES: dict[str, Callable[..., list[Case]]] = {
    "relu": relu_cases,
    "dense": dense_cases,
    "conv": conv_cases,
    "max_pool": max_pool_cases,
    "average_pool": average_pool_cases,
    "softmax_cross_entropy": softmax_cross_entropy_cases,
    "batch_norm": functools.partial(norm_cases, "batch_norm", [(4, 1, 1, 2), (3, 2, 2, 3)]),
    "layer_norm": functools.partial(norm_cases, "layer_norm", [(1, 2, 4), (2, 3, 5)]),
    "attention": attention_cases,
}


def choose_exercises(only: str | None) -> list[str]:
    """The names of the exercises: all, one of a name, or both of a layer such as "conv".

    Raises:
        UserError: there is none of that name.
    """
    from cnn_vit.errors import unknown

    if only is None:
        return list(OUTPUTS)
    names = [name for name in OUTPUTS if only in (name, name.removesuffix("_forward").removesuffix("_backward"))]
    if not names:
        raise unknown("function", only, itertools.chain(OUTPUTS, CASES))
    return names
