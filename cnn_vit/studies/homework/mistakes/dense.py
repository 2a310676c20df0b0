"""Mistakes in ReLU and dense layers."""

from types import SimpleNamespace

import numpy as np

from cnn_vit.studies.homework.mistakes.record import Mistake, right

RELU_FORWARD = (
    Mistake(
        "absolute value",
        "y",
        "negative numbers come out with their sign turned; ReLU makes them 0: y = max(x, 0)",
        lambda i: np.abs(i.x),
    ),
    Mistake("nothing cut off", "y", "negative numbers come out as they are; they have to become 0", lambda i: i.x),
    Mistake(
        "wrong half",
        "y",
        "the positive numbers become 0 and the negative ones stay; it is the other way round: y = max(x, 0)",
        lambda i: np.minimum(i.x, 0),
    ),
    Mistake(
        "mask alone",
        "y",
        "the result is 1 where x > 0, which is the derivative of ReLU; its value there is x",
        lambda i: (i.x > 0).astype(float),
    ),
)

RELU_BACKWARD = (
    Mistake(
        "mask of the gradient",
        "dL/dx",
        "the gradient is cut off where g is negative. ReLU's derivative asks for the sign of its input x, and a "
        "negative g goes through where x > 0: g * (x > 0)",
        lambda i: i.g * (i.g > 0),
    ),
    Mistake(
        "no mask",
        "dL/dx",
        "g is returned as it came. Where x < 0, y is 0 whatever x is exactly, so that dL/dx is 0 there",
        lambda i: i.g,
    ),
    Mistake(
        "gradient at zero",
        "dL/dx",
        "at x = 0 the gradient goes through. There is no derivative there, and everyone takes 0: compare by >, not >=",
        lambda i: i.g * (i.x >= 0),
    ),
    Mistake(
        "half a gradient at zero",
        "dL/dx",
        "at x = 0 half of the gradient goes through, as of jnp.maximum(x, 0); the convention of ReLU is 0",
        lambda i: i.g * ((i.x > 0) + 0.5 * (i.x == 0)),
    ),
    Mistake(
        "g forgotten",
        "dL/dx",
        "the result is ReLU's derivative alone, 1 or 0. By the chain rule it is multiplied by g, the gradient of what "
        "comes behind",
        lambda i: (i.x > 0).astype(float),
    ),
    Mistake(
        "multiplied by the output",
        "dL/dx",
        "g is multiplied by y = max(x, 0); ReLU's derivative where x > 0 is 1, not x",
        lambda i: i.g * np.maximum(i.x, 0),
    ),
    Mistake(
        "mask turned round",
        "dL/dx",
        "the gradient goes through where x <= 0 and ends where x > 0; it is the other way round",
        lambda i: i.g * (i.x <= 0),
    ),
)

DENSE_FORWARD = (
    Mistake("bias forgotten", "y", "b is not added", lambda i: i.x @ i.w),
    Mistake(
        "kernel transposed",
        "y",
        "w is used transposed: w[d, k] leads from number d of x to number k of y, so that y = x @ w",
        lambda i: i.x @ i.w.T + i.b,
    ),
    Mistake("bias subtracted", "y", "b is subtracted where it is added", lambda i: i.x @ i.w - i.b),
    Mistake(
        "product number by number",
        "y",
        "x * w multiplies number by number. Each number of y is a sum over all numbers of x: y = x @ w + b",
        lambda i: i.x * i.w + i.b,
    ),
)

MEAN_OVER_BATCH = (
    "the gradients of the examples are averaged. All examples use the same parameter, and L is a function of all of "
    "them: sum. Where L is a mean, its 1 / B is in g already"
)
NOT_SUMMED = (
    "there is a gradient for each example. The examples share the parameter, so that its gradient is the sum over the "
    "batch, and has the parameter's shape"
)


def batch_size(inputs: SimpleNamespace) -> int:
    """The number of examples of a case."""
    return len(inputs.x)


DENSE_BACKWARD = (
    Mistake(
        "kernel not transposed",
        "dL/dx",
        "w is not transposed. Forward, w[d, k] leads from d to k; backward, the gradient goes from k back to d: g @ "
        "w.T",
        lambda i: i.g @ i.w,
    ),
    Mistake(
        "mean over the batch",
        "dL/dx",
        "dL/dx is divided by the number of examples. Each example has its own x, and nothing is averaged here",
        lambda i: right("dense_backward", i) / batch_size(i),
    ),
    Mistake(
        "mean over the batch", "dL/dw", MEAN_OVER_BATCH, lambda i: right("dense_backward", i, 1) / batch_size(i)
    ),
    Mistake("not summed over the batch", "dL/dw", NOT_SUMMED, lambda i: i.x[:, :, None] * i.g[:, None, :]),
    Mistake(
        "transposed",
        "dL/dw",
        "dL/dw is transposed: it has the shape (D, K) of w, and is x.T @ g",
        lambda i: i.g.T @ i.x,
    ),
    Mistake(
        "last example alone",
        "dL/dw",
        "only the last example counts; add up over the batch, += where there is a loop",
        lambda i: i.x[-1:].T @ i.g[-1:],
    ),
    Mistake(
        "first example alone", "dL/dw", "only the first example counts; add up over the batch",
        lambda i: i.x[:1].T @ i.g[:1],
    ),
    Mistake(
        "mean over the batch", "dL/db", MEAN_OVER_BATCH, lambda i: right("dense_backward", i, 2) / batch_size(i)
    ),
    Mistake("not summed over the batch", "dL/db", NOT_SUMMED, lambda i: i.g),
    Mistake(
        "summed over the wrong axis",
        "dL/db",
        "g is summed over the outputs of each example; the sum over the batch, axis 0, is wanted",
        lambda i: i.g.sum(1),
    ),
    Mistake(
        "last example alone",
        "dL/db",
        "only the last example counts; add up over the batch, += where there is a loop",
        lambda i: i.g[-1],
    ),
    Mistake("first example alone", "dL/db", "only the first example counts; add up over the batch", lambda i: i.g[0]),
)  # fmt: skip
