"""Splits a network that holds no values into plain dicts and a pure function of values, and draws the initial values.

A layer declares each parameter: its shape and the distribution of its initial values. Nothing is computed while a
network is built. `functional` splits it once into plain dicts, `params` and `stats`, and a pure function over them.

The distributions of initial values are INITIALIZERS. The `normal` ones are not cut off, as PyTorch's are not; those of
the same names in JAX and Flax are cut off at two standard deviations and widened to the same standard deviation.
"""

import functools
import hashlib
import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cnn_vit.errors import UserError, unknown
from cnn_vit.trees import differences


@dataclass(frozen=True)
class Network:
    """A network as plain data.

    Attributes:
        params: shapes of the parameters, a dict keyed as the network's attributes are.
        stats: shapes of the running statistics.
        initializers: distribution of each parameter's and statistic's initial values, by path.
        apply: (params, stats, images, *, train, rngs, mask) -> (scores, new stats). `mask` (B, H, W) is True on each
            image's own pixels; only networks whose call has that keyword take one.
    """

    params: dict
    stats: dict
    initializers: dict[tuple, str]
    apply: Callable


class DeclaredValue(jax.ShapeDtypeStruct):
    """Stands where a network will have a value; reading it raises UserError."""

    def __getitem__(self, index):
        raise UserError(
            "this network has no values, only shapes: cnn_vit.load(RUN) gives a trained one, and "
            "cnn_vit.nn.values.functional(network) the pure function of values that initial_values draws"
        )


def declare(kind: type[nnx.Variable], shape: tuple[int, ...], initializer: str) -> nnx.Variable:
    """Makes a float32 parameter or statistic that has no value yet.

    Args:
        kind: nnx.Param or nnx.BatchStat.
        shape: of the array; a kernel's last axis is its outputs, the last but one its inputs.
        initializer: a key of INITIALIZERS, with its numbers if it takes any: "normal(0.02)".

    Raises:
        UserError: if there is no such distribution, or if it takes other numbers.
    """
    parse_initializer(initializer)  # only checked here: nothing is drawn before `initial_values`
    return kind(DeclaredValue(shape, jnp.float32), initializer=initializer)


def functional(model: nnx.Module) -> Network:
    """Splits a network into plain dicts and a pure function over them."""
    # `graph` is the network's structure without values; `nnx.merge` puts values back into it.
    graph, *states = nnx.split(model, nnx.Param, nnx.BatchStat)
    initializers = {}
    for state in states:
        for path, variable in nnx.to_flat_state(state):
            initializers[path] = variable.initializer
    param_shapes, stat_shapes = (nnx.to_pure_dict(state) for state in states)

    def apply(params, stats, images, *, train=False, rngs=None, mask=None):
        # `nnx.merge` compares nothing but the number of leaves: swapped kernels would pass it silently.
        mismatches = differences(dict(params=params, stats=stats), dict(params=param_shapes, stats=stat_shapes))
        if mismatches:
            raise ValueError("these values belong to another network: " + "; ".join(sorted(mismatches)[:5]))
        network = nnx.merge(graph, params, stats)
        mask_if_any = {} if mask is None else {"mask": mask}  # most networks have no such keyword
        scores = network(images, train=train, rngs=rngs, **mask_if_any)
        if not train:
            return scores, stats
        return scores, nnx.to_pure_dict(nnx.state(network, nnx.BatchStat))

    return Network(param_shapes, stat_shapes, initializers, apply)


def initial_values(network: Network, seed: int) -> tuple[dict, dict]:
    """Draws parameters and statistics as NumPy arrays.

    Each depends on seed (at least 0), path, shape and distribution alone: not on platform, device count or order.
    """

    def draw(path, leaf):
        keys = tuple(entry.key for entry in path)
        name, numbers = parse_initializer(network.initializers[keys])
        # The path is hashed into the generator's key, so each parameter has a stream of its own.
        digest = hashlib.blake2b("/".join(map(str, keys)).encode(), digest_size=8).digest()
        rng = np.random.Generator(np.random.Philox(key=[seed, int.from_bytes(digest, "little")]))
        return INITIALIZERS[name](rng, leaf.shape, *numbers)

    return jax.tree_util.tree_map_with_path(draw, network.params), jax.tree_util.tree_map_with_path(draw, network.stats)


@functools.cache
def parse_initializer(initializer: str) -> tuple[str, tuple[float, ...]]:
    """Reads "normal(0.02)" as ("normal", (0.02,)).

    Raises:
        UserError: if no distribution has that name, or if it takes other numbers.
    """
    match = re.fullmatch(r"(\w+)(?:\((.+)\))?", initializer)
    name, text = match.groups() if match else (initializer, None)
    if name not in INITIALIZERS:
        raise unknown("initializer", name, INITIALIZERS)
    try:
        numbers = tuple(float(number) for number in text.split(",")) if text else ()
    except ValueError:
        raise UserError(f"initializer {initializer!r}: {text!r} are not numbers") from None
    expected = len(inspect.signature(INITIALIZERS[name]).parameters) - 2  # all but rng and shape
    if len(numbers) != expected or not all(map(math.isfinite, numbers)):
        raise UserError(f"initializer {initializer!r} takes {expected} finite numbers")
    return name, numbers


# Distributions: (rng, shape, numbers) -> float32 array


def normal(rng: np.random.Generator, shape: tuple[int, ...], std: float) -> np.ndarray:
    """Draws from the normal distribution with mean 0 and a standard deviation, not cut off."""
    drawn = np.empty(shape, np.float32)
    rng.standard_normal(dtype=np.float32, out=drawn)
    drawn *= np.float32(std)
    return drawn


def uniform(rng: np.random.Generator, shape: tuple[int, ...], limit: float) -> np.ndarray:
    """Draws uniformly from -limit to limit; the standard deviation is limit / sqrt(3)."""
    drawn = np.empty(shape, np.float32)
    rng.random(dtype=np.float32, out=drawn)
    drawn *= np.float32(2 * limit)
    drawn -= np.float32(limit)
    return drawn


# What a cut at -2 and 2 leaves of a standard deviation of 1: sqrt(1 - 4 p(2) / P(-2 < x < 2)), p the normal density;
# 0.8796.
TRUNCATED_STD = math.sqrt(1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2)))


def truncated_normal(rng: np.random.Generator, shape: tuple[int, ...], std: float) -> np.ndarray:
    """Draws from the normal distribution cut off at 2 standard deviations, widened to have the `std` asked for.

    Uncorrected the draws would have TRUNCATED_STD of it: so do `jax.nn.initializers.truncated_normal` and
    `torch.nn.init.trunc_normal_` with bounds of 2 standard deviations. JAX's variance scaling ("he_normal" and so on
    there) is corrected, as here.
    """
    drawn = np.empty(shape, np.float32)
    rng.standard_normal(dtype=np.float32, out=drawn)
    flat = drawn.reshape(-1)
    outside = np.flatnonzero((flat > 2) | (flat < -2))
    # What fell outside is drawn again until nothing does; clipping would pile it up at the bounds.
    while outside.size:
        redrawn = rng.standard_normal(outside.size, np.float32)
        flat[outside] = redrawn
        outside = outside[np.abs(redrawn) > 2]
    drawn *= np.float32(std / TRUNCATED_STD)
    return drawn


def fan_in(shape: tuple[int, ...]) -> int:
    """Counts the values that one output of a kernel (pixels ..., inputs, outputs) sums over."""
    return math.prod(shape[:-1])


def fan_out(shape: tuple[int, ...]) -> int:
    """Counts the outputs that one input of a kernel (pixels ..., inputs, outputs) reaches."""
    return math.prod(shape[:-2]) * shape[-1]


INITIALIZERS: dict[str, Callable[..., np.ndarray]] = {
    "zeros": lambda rng, shape: np.zeros(shape, np.float32),
    "ones": lambda rng, shape: np.ones(shape, np.float32),
    "constant": lambda rng, shape, value: np.full(shape, value, np.float32),
    "normal": normal,
    "uniform": uniform,
    "truncated_normal": truncated_normal,
    # He: the variance is 2 / fan_in. LeCun: 1 / fan_in. Xavier: 2 / (fan_in + fan_out). A uniform limit is sqrt(3) std.
    "he_normal": lambda rng, shape: normal(rng, shape, math.sqrt(2 / fan_in(shape))),
    "he_uniform": lambda rng, shape: uniform(rng, shape, math.sqrt(6 / fan_in(shape))),
    "lecun_normal": lambda rng, shape: normal(rng, shape, math.sqrt(1 / fan_in(shape))),
    "lecun_uniform": lambda rng, shape: uniform(rng, shape, math.sqrt(3 / fan_in(shape))),
    "xavier_normal": lambda rng, shape: normal(rng, shape, math.sqrt(2 / (fan_in(shape) + fan_out(shape)))),
    "xavier_uniform": lambda rng, shape: uniform(rng, shape, math.sqrt(6 / (fan_in(shape) + fan_out(shape)))),
}
