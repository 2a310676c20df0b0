"""Mistakes in batch norm and layer norm."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import numpy as np

from cnn_vit.studies.homework.mistakes.dense import MEAN_OVER_BATCH
from cnn_vit.studies.homework.mistakes.record import Mistake, right

Axes = int | tuple[int, ...]
BATCH_AXES, LAYER_AXES = (0, 1, 2), (-1,)


# Forward --------------------------------------------------------------------------------------------------------------


def normalize(inputs: SimpleNamespace, axes: Axes, *, correction: int = 0) -> np.ndarray:
    """The normalized x over some axes, with the variance of n - correction numbers."""
    mean = inputs.x.mean(axes, keepdims=True)
    return (inputs.x - mean) / np.sqrt(inputs.x.var(axes, keepdims=True, ddof=correction) + inputs.epsilon)


def scaled(inputs: SimpleNamespace, z: np.ndarray) -> np.ndarray:
    """gamma z + beta."""
    return inputs.gamma * z + inputs.beta


def normalize_and_scale(inputs: SimpleNamespace, axes: Axes) -> np.ndarray:
    """The output with mean and variance over some axes."""
    return scaled(inputs, normalize(inputs, axes))


def divide_by(inputs: SimpleNamespace, axes: Axes, divisor: Callable[[np.ndarray, float], np.ndarray]) -> np.ndarray:
    """The output where the centered x is divided by some function of variance and epsilon."""
    mean, variance = inputs.x.mean(axes, keepdims=True), inputs.x.var(axes, keepdims=True)
    return scaled(inputs, (inputs.x - mean) / divisor(variance, inputs.epsilon))


def norm_forward(axes: Axes, wrong_axes: tuple[tuple[str, Axes, str], ...]) -> tuple[Mistake, ...]:
    """Mistakes of a norm forward.

    Args:
        axes: that means run over.
        wrong_axes: (name, axes, message) of other axes that learners take.
    """
    mistakes = []
    for name, others, message in wrong_axes:
        mistakes.append(Mistake(name, "y", message, partial(normalize_and_scale, axes=others)))
    mistakes += [
        Mistake(
            "unbiased variance",
            "y",
            "the variance is divided by the number of values less 1. Norms divide by the number: np.var as it is",
            lambda i: scaled(i, normalize(i, axes, correction=1)),
        ),
        Mistake(
            "divided by the variance",
            "y",
            "x - m is divided by the variance; divide by its square root",
            lambda i: divide_by(i, axes, lambda variance, epsilon: variance + epsilon),
        ),
        Mistake(
            "epsilon outside the root",
            "y",
            "epsilon is added to the root of the variance; it stands inside, sqrt(v + epsilon)",
            lambda i: divide_by(i, axes, lambda variance, epsilon: np.sqrt(variance) + epsilon),
        ),
        Mistake(
            "epsilon forgotten",
            "y",
            "epsilon is left out: sqrt(v + epsilon), so that nothing is divided by 0",
            lambda i: divide_by(i, axes, lambda variance, epsilon: np.sqrt(variance)),
        ),
        Mistake(
            "mean forgotten",
            "y",
            "the mean is not subtracted: z = (x - m) / sqrt(v + epsilon)",
            lambda i: scaled(i, i.x / np.sqrt(i.x.var(axes, keepdims=True) + i.epsilon)),
        ),
        Mistake("gamma and beta forgotten", "y", "z is returned; y = gamma z + beta", lambda i: normalize(i, axes)),
        Mistake("beta forgotten", "y", "beta is not added", lambda i: i.gamma * normalize(i, axes)),
        Mistake("gamma forgotten", "y", "z is not multiplied by gamma", lambda i: normalize(i, axes) + i.beta),
    ]
    return tuple(mistakes)


BATCH_NORM_FORWARD = norm_forward(
    BATCH_AXES,
    (
        (
            "mean over the batch alone",
            0,
            "mean and variance are taken for each pixel, over the batch alone. A channel has one mean over all "
            "examples, rows and columns",
        ),
        (
            "each image by itself",
            (1, 2),
            "mean and variance are taken for each image by itself, and the mean over the batch is forgotten. A channel "
            "has one mean over all examples, rows and columns",
        ),
        (
            "over the channels",
            -1,
            "mean and variance run over the channels of each pixel, as in layer norm. In batch norm they run over all "
            "but the channels",
        ),
        (
            "one mean for all channels",
            (0, 1, 2, 3),
            "all channels share one mean and variance; each has its own",
        ),
    ),
)
LAYER_NORM_FORWARD = norm_forward(
    LAYER_AXES,
    (
        (
            "over the batch",
            (0, 1),
            "mean and variance run over examples and tokens, as in batch norm. In layer norm they run over the numbers "
            "of each token",
        ),
        (
            "over the batch",
            0,
            "mean and variance run over the batch. In layer norm they run over the numbers of a token",
        ),
        (
            "over tokens and numbers",
            (1, 2),
            "all tokens of an example share a mean and a variance; each token has its own, over the last axis",
        ),
    ),
)


# Backward -------------------------------------------------------------------------------------------------------------


def parts(inputs: SimpleNamespace, axes: Axes) -> tuple[np.ndarray, np.ndarray]:
    """The normalized x, and sqrt(v + epsilon)."""
    root = np.sqrt(inputs.x.var(axes, keepdims=True) + inputs.epsilon)
    return (inputs.x - inputs.x.mean(axes, keepdims=True)) / root, root


def input_gradient(
    inputs: SimpleNamespace,
    axes: Axes,
    *,
    mean: float = 1.0,
    product: float = 1.0,
    gamma: str = "inside",
    power: float = 1.0,
    sums: bool = False,
) -> np.ndarray:
    """dL/dx of a norm, changed in some part.

    Args:
        inputs: the arguments.
        axes: that the means run over.
        mean: the weight of mean(g).
        product: the weight of z mean(g z).
        gamma: where gamma stands: "inside" the means, "outside" of them, "nowhere".
        power: of the root that is divided by.
        sums: whether sums stand for the means.
    """
    z, root = parts(inputs, axes)
    g = inputs.g * inputs.gamma if gamma == "inside" else inputs.g
    reduce = np.sum if sums else np.mean
    means = reduce(g, axis=axes, keepdims=True), reduce(g * z, axis=axes, keepdims=True)
    dx = (g - mean * means[0] - product * z * means[1]) / root**power
    return dx * inputs.gamma if gamma == "outside" else dx


def norm_backward(function: str, axes: Axes) -> tuple[Mistake, ...]:
    """Returns the mistakes of the backward function of a norm, "batch_norm_backward" or "layer_norm_backward"."""
    return (*norm_input_mistakes(function, axes), *norm_parameter_mistakes(function, axes))


def norm_input_mistakes(function: str, axes: Axes) -> tuple[Mistake, ...]:
    """Returns the mistakes of dL/dx, in which each x has a part in the mean and the variance."""
    gamma_outside: tuple[Mistake, ...] = ()
    if function == "batch_norm_backward":
        mean_forgotten = (
            "the term - mean(g) is missing. Every x has a part in the mean that is subtracted from all: adding 1 to "
            "all of them changes no y, so that the dL/dx of a channel have sum 0"
        )
    else:
        mean_forgotten = (
            "the term - mean(dL/dz) is missing. Every x has a part in the mean that is subtracted from all: "
            "adding 1 to all numbers of a token changes no y, so that its dL/dx have sum 0"
        )
        gamma_outside = (
            Mistake(
                "gamma outside the means",
                "dL/dx",
                "gamma is multiplied at the end, as in batch norm. Here it differs along the axis that the means "
                "run over: take them of g gamma",
                lambda i: input_gradient(i, axes, gamma="outside"),
            ),
        )

    return (
        Mistake(
            "both means forgotten",
            "dL/dx",
            "mean and variance are treated as constants, as they are in evaluation. In training every x has a part in "
            "both: subtract mean(g) and z mean(g z)",
            lambda i: input_gradient(i, axes, mean=0, product=0),
        ),
        Mistake(
            "term of the mean forgotten",
            "dL/dx",
            mean_forgotten,
            lambda i: input_gradient(i, axes, mean=0),
        ),
        Mistake(
            "term of the variance forgotten",
            "dL/dx",
            "the term - z mean(g z) is missing. Every x has a part in the variance that all are divided by",
            lambda i: input_gradient(i, axes, product=0),
        ),
        Mistake(
            "z forgotten in front of its mean",
            "dL/dx",
            "mean(g z) is subtracted without z in front of it: an x far from the mean moves the variance most",
            lambda i: without_z(i, axes),
        ),
        Mistake(
            "sums for means",
            "dL/dx",
            "sums stand where means belong: mean(g) and mean(g z). With sums each is too large by the number of values",
            lambda i: input_gradient(i, axes, sums=True),
        ),
        Mistake(
            "gamma forgotten",
            "dL/dx",
            "gamma is missing: y = gamma z + beta, so that dL/dz = gamma g",
            lambda i: input_gradient(i, axes, gamma="nowhere"),
        ),
        *gamma_outside,
        Mistake(
            "divided by the variance",
            "dL/dx",
            "the result is divided by v + epsilon; divide by its square root",
            lambda i: input_gradient(i, axes, power=2),
        ),
        Mistake(
            "root forgotten",
            "dL/dx",
            "the result is not divided by sqrt(v + epsilon), by which x was divided",
            lambda i: input_gradient(i, axes, power=0),
        ),
        Mistake(
            "epsilon forgotten",
            "dL/dx",
            "epsilon is left out: the root is that of the forward function, sqrt(v + epsilon)",
            lambda i: right(function, i, epsilon=0.0),
        ),
    )


def norm_parameter_mistakes(function: str, axes: Axes) -> tuple[Mistake, ...]:
    """Returns the mistakes of dL/dgamma and dL/dbeta, sums over all places where gamma and beta are used."""
    summed = SUMMED_AXES[function]

    def count(inputs: SimpleNamespace) -> int:
        return inputs.x.size // inputs.x.shape[-1]  # how often each gamma is used

    return (
        Mistake(
            "x for z",
            "dL/dgamma",
            "g is multiplied by x; gamma multiplied z, the normalized x: sum g z",
            lambda i: (i.g * i.x).sum(summed),
        ),
        Mistake(
            "z forgotten",
            "dL/dgamma",
            "g is summed without z; gamma multiplied z: sum g z",
            lambda i: i.g.sum(summed),
        ),
        Mistake("mean over the batch", "dL/dgamma", MEAN_OVER_BATCH, lambda i: right(function, i, 1) / count(i)),
        Mistake(
            "mean over the batch", "dL/dgamma", MEAN_OVER_BATCH, lambda i: right(function, i, 1) / len(i.x)
        ),
        Mistake(
            "not summed over the batch",
            "dL/dgamma",
            f"gamma has one number for each position along the last axis: {SUM_OVER[function]}",
            lambda i: (i.g * parts(i, axes)[0]).sum(0),
        ),
        Mistake(
            "not summed over the batch",
            "dL/dgamma",
            f"gamma has one number for each position along the last axis: {SUM_OVER[function]}",
            lambda i: i.g * parts(i, axes)[0],
        ),
        Mistake("mean over the batch", "dL/dbeta", MEAN_OVER_BATCH, lambda i: right(function, i, 2) / count(i)),
        Mistake("mean over the batch", "dL/dbeta", MEAN_OVER_BATCH, lambda i: right(function, i, 2) / len(i.x)),
        Mistake(
            "not summed over the batch",
            "dL/dbeta",
            f"beta has one number for each position along the last axis: {SUM_OVER[function]}",
            lambda i: i.g.sum(0),
        ),
        Mistake(
            "not summed over the batch",
            "dL/dbeta",
            f"beta has one number for each position along the last axis: {SUM_OVER[function]}",
            lambda i: i.g,
        ),
    )  # fmt: skip


SUMMED_AXES: dict[str, tuple[int, ...]] = {  # axes over which one gamma is used
    "batch_norm_backward": BATCH_AXES,
    "layer_norm_backward": (0, 1),
}
SUM_OVER = {
    "batch_norm_backward": "sum over examples, rows and columns",
    "layer_norm_backward": "sum over examples and tokens",
}


def without_z(inputs: SimpleNamespace, axes: Axes) -> np.ndarray:
    """dL/dx where mean(g z) stands without z in front of it."""
    z, root = parts(inputs, axes)
    g = inputs.g * inputs.gamma
    return (g - g.mean(axes, keepdims=True) - (g * z).mean(axes, keepdims=True)) / root


BATCH_NORM_BACKWARD = norm_backward("batch_norm_backward", BATCH_AXES)
LAYER_NORM_BACKWARD = norm_backward("layer_norm_backward", LAYER_AXES)
