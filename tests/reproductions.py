"""Published faults of jaxlib on a CPU, under the compiler options in force: python reproductions.py true float32

The arguments are whether programs are convolutional, and their dtype, which together choose the options; then the names
of reproductions, all where none is given. Each prints a line of its name and the largest error of its result, as a
share of the largest right value. A fault may end the process: then lines are missing.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

from cnn_vit import compilation

ROWS = 32_769  # one more than the largest sum that comes out right under the faults of jax issue 39103


def sum_of_squares(jit, rng):
    """Jax issue 39103: the sum of squares of a product, for each of many rows."""
    rows, matrix = rng.normal(size=(ROWS, 3)), rng.normal(size=(3, 3))
    squares = jit(lambda matrix, rows: jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2))(rows))
    return squares(to_float32(matrix), to_float32(rows)), ((rows @ matrix.T) ** 2).sum(1)


def rank_7(jit, rng):
    """Jax issue 40412: a sum over products of arrays of seven axes, one of them of length 1."""
    a, b = rng.normal(size=(2, 3, 1, 2, 2, 8, 8, 8))
    return jit(lambda a, b: jnp.sum(a * b, axis=3))(to_float32(a), to_float32(b)), (a * b).sum(3)


def rank_8(jit, rng):
    """Jax issue 39257: a sum over products with an array that is broadcast to eight axes."""
    a, b = rng.uniform(size=(10, 4, 6)), rng.uniform(size=(10, 4, 6, 9, 9, 9, 9, 9))
    a = a[..., None, None, None, None, None]
    log_sums = jit(lambda a, b: jnp.log(jnp.maximum(jnp.sum(a * b, axis=2), 1e-16)))
    return log_sums(to_float32(a), to_float32(b)), np.log((a * b).sum(2))


def constant_cotangent(jit, rng):
    """The gradient of a plain sum, whose cotangents are all 1, by the operands of a product over many rows."""
    rows, kernel, bias = rng.normal(size=(ROWS, 16)) + 1, rng.normal(size=(16, 10)), rng.normal(size=10)
    gradient = jit(jax.grad(lambda rows, kernel, bias: jnp.sum(rows @ kernel + bias), argnums=(0, 1, 2)))
    computed = gradient(*map(to_float32, (rows, kernel, bias)))
    by_rows = np.broadcast_to(kernel.sum(1), rows.shape)
    by_kernel = np.broadcast_to(rows.sum(0)[:, None], kernel.shape)
    return computed, (by_rows, by_kernel, np.full(10, ROWS))


def product_of_zeros(jit, rng):
    """XLA issue 13054: oneDNN's sum of two products, of which one is 0; the gradient of the mean is minus `weights`."""
    weights, count = np.array([1.0, 2, 3]), 1_000_000

    def mean_score(x, rows):
        def score(row):
            difference = row - x
            return difference @ to_float32(weights) + difference @ jnp.zeros((3, 3)) @ difference

        return jnp.mean(jax.vmap(score)(rows))

    return jit(jax.grad(mean_score))(np.ones(3, np.float32), np.ones((count, 3), np.float32)), -weights


def softmax_over_rows(jit, rng):
    """XLA issue 11772: oneDNN's softmax over the first of three axes, of which the others have length 1."""
    scores = rng.normal(size=(3, 1, 1))
    shares = np.exp(scores) / np.exp(scores).sum()
    return jit(lambda scores: jax.nn.softmax(scores, axis=0))(to_float32(scores)), shares


REPRODUCTIONS = (sum_of_squares, rank_7, rank_8, constant_cotangent, product_of_zeros, softmax_over_rows)


def to_float32(array):
    """The array as float32."""
    return np.asarray(array, np.float32)


def largest_error(computed, right):
    """The largest difference of two trees of arrays, as a share of the largest right value of the same array."""
    shares = jax.tree.map(lambda a, b: np.abs(np.asarray(a, np.float64) - b).max() / np.abs(b).max(), computed, right)
    return float(max(jax.tree.leaves(shares)))


def main(convolutional, dtype, *names):
    """Prints the options in force, then the error of each reproduction."""
    kind = compilation.ProgramKind("cpu", convolutional=json.loads(convolutional), dtype=dtype)
    print(json.dumps(compilation.options_in_force(kind)), flush=True)
    for reproduction in REPRODUCTIONS:
        if not names or reproduction.__name__ in names:
            computed, right = reproduction(lambda function: compilation.jit(function, kind), np.random.default_rng(0))
            # waits for the result, so that whatever ends the process ends it before the line is printed
            print(reproduction.__name__, largest_error(computed, right), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
