"""How a layer is computed: as it reads, or in a form of the same numbers that XLA runs faster on a CPU.

A layer with a fast form returns `choose_form(plain, *arrays, cpu=fast)`. Which of the two runs follows from the
platform that a program is compiled for, and whether there is a fast form from shapes and dtypes; nothing is timed when
a program runs. GPU and TPU run the plain form, for which their libraries are made.

Where a fast form has a gradient of its own, it is a `jax.custom_jvp`: it says how a small change of its inputs changes
its output (the tangent), and JAX derives the gradient by transposing that. So second derivatives, `vmap`, `remat`,
`scan` and `shard_map` work as ever (a `custom_vjp` would know no `jvp`). How fast the gradient is depends on what the
tangent is written with, because each operation is transposed to its opposite:

    in the tangent             in the gradient
    sum over pixels            broadcast over pixels, which costs nothing
    broadcast over pixels      sum over pixels, for which XLA's own loops add one channel after another
    `spread` over pixels       product with ones, which the matrix library computes faster; `norm` has figures
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

ONLY_PLAIN: ContextVar[bool] = ContextVar("ONLY_PLAIN", default=False)
MOST_BOUND = 1024  # forms with settings that are kept, more than any network has


def choose_form(plain: Callable, *arrays: jax.Array, cpu: Callable) -> Any:
    """Runs `cpu(*arrays)` where the program is compiled for a CPU, and `plain(*arrays)` on any other platform."""
    if ONLY_PLAIN.get():
        return plain(*arrays)
    return jax.lax.platform_dependent(*arrays, cpu=cpu, default=plain)


@functools.lru_cache(maxsize=MOST_BOUND)
def bind(form: Callable, **settings: Any) -> Callable:
    """Gives a form its settings, as `functools.partial` does, but returns the same object each time.

    JAX knows a function by its object: with a new one in each layer it would trace each form as often as there are
    layers, before every start of a run.

    Args:
        form: a function of arrays.
        settings: keyword arguments that can be hashed.
    """
    return functools.partial(form, **settings)


@contextlib.contextmanager
def only_plain_forms() -> Iterator[None]:
    """While open, what is traced has the plain forms alone.

    For whoever reads a network's program, where a convolution should look like one, and for tests that compare forms. A
    function that `jax.jit` has traced before keeps the forms that it was traced with.
    """
    token = ONLY_PLAIN.set(True)
    try:
        yield
    finally:
        ONLY_PLAIN.reset(token)


def has_tangent(tangent: Any) -> bool:
    """Whether an input changes at all; a frozen kernel does not, and what would be multiplied by its zeros is left out.

    Only for tangents of a `custom_jvp` with `symbolic_zeros=True`.
    """
    return not isinstance(tangent, SymbolicZero)


def sum_pixels(x: jax.Array) -> jax.Array:  # (B, ..., C) -> (B, C)
    """Sums over all axes between the first and the last, by a product with ones for each image."""
    images, channels = x.shape[0], x.shape[-1]
    rows = x.reshape(images, math.prod(x.shape[1:-1]), channels)
    ones = jnp.ones((images, 1, rows.shape[1]), x.dtype)
    return (ones @ rows)[:, 0]


def spread(values: jax.Array, shape: tuple[int, ...]) -> jax.Array:  # (..., C)
    """Broadcasts a value for each channel to a shape (B, ..., C), by a product with ones for each image.

    Its transpose is a sum by products with ones; the module's docstring says why that matters.

    Args:
        values: (C,), (1, C) or (B, C).
        shape: of the result.
    """
    if len(shape) == 1:  # nothing to spread over
        return values.reshape(shape)
    images, channels = shape[0], shape[-1]
    pixels = math.prod(shape[1:-1])
    one_row = jnp.broadcast_to(values, (images, channels))[:, None]
    ones = jnp.ones((images, pixels, 1), values.dtype)
    return (ones @ one_row).reshape(shape)


def materialize(x: jax.Array) -> jax.Array:  # (B, H, W, C) -> (B, H, W, C)
    """Returns x multiplied by the identity matrix: the same finite numbers, computed once and kept.

    XLA fuses cheap operations, such as additions and rectifiers, into each loop that reads their result, and computes
    them anew there. Where the values of a residual stream are read in another order of axes, as the weight gradient of
    a convolution reads them, that goes back through all earlier blocks. A product of matrices is never fused. (XLA
    takes `jax.lax.optimization_barrier` away before it fuses.) Where a pixel has one number that is not finite, all of
    its channels get one.
    """
    channels = x.shape[-1]
    return (x.reshape(-1, channels) @ jnp.eye(channels, dtype=x.dtype)).reshape(x.shape)


def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:  # (B, ..., C), (C,) -> (B, ..., C)
    """Adds a float32 number to each channel, rounded to the dtype of x.

    On a CPU, its gradient sums the pixels of each image by a product with ones, and then the images.
    """
    return choose_form(plain_add_bias, x, bias, cpu=fast_add_bias)


def plain_add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:  # (B, ..., C), (C,) -> (B, ..., C)
    """Adds a bias as it reads."""
    return x + bias.astype(x.dtype)


fast_add_bias = jax.custom_jvp(plain_add_bias)


def add_bias_jvp(primals: tuple, tangents: tuple) -> tuple:
    """The tangent of a sum is the sum of the tangents."""
    x, bias = primals
    dx, dbias = tangents
    y = plain_add_bias(x, bias)
    dy = dx if has_tangent(dx) else jnp.zeros_like(y)
    if has_tangent(dbias):
        # In float32, so that the gradient of a bfloat16 layer is summed in float32.
        dy = dy + spread(dbias, y.shape).astype(y.dtype)
    return y, dy


fast_add_bias.defjvp(add_bias_jvp, symbolic_zeros=True)
