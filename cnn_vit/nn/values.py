"""From a network without values to pure functions of values, and the first values themselves.

A layer declares each parameter: its shape and the distribution of its first value. Nothing is computed while a network
is built. `functional` splits it once into plain dicts, `params` and `stats`, and a pure function over them.

Distributions of first values are INITIALIZERS. The `normal` ones are not cut off, as PyTorch's are not; those of the
same names in JAX and Flax are cut off at two deviations and widened to the same deviation.
"""

import functools
import hashlib
import inspect
import math
import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cnn_vit.errors import UserError, unknown
from cnn_vit.trees import differences


class Network(NamedTuple):
    """A network as plain data.

    Attributes:
        params: shapes of the parameters, a dict keyed as the network's attributes are.
        stats: shapes of the running statistics.
        initializers: distribution of each first value, by path.
        apply: (params, stats, images, *, train, rngs, mask) -> (scores, new stats). `mask` (B, H, W), True on each
            image's own pixels, only where the network's call takes one.
    """

    params: dict
    stats: dict
    initializers: dict[tuple, str]
    apply: Callable


class DeclaredValue(jax.ShapeDtypeStruct):
    """The place of a value that a network does not have yet."""

    def __getitem__(self, index):
        raise UserError(
            "this network has no values, only shapes: cnn_vit.load(RUN) gives a trained one, and "
            "cnn_vit.nn.values.functional(network) the pure function of values that first_values draws"
        )


def declare(kind: type[nnx.Variable], shape: tuple[int, ...], initializer: str) -> nnx.Variable:
    """A float32 parameter or statistic without a value.

    Args:
        kind: nnx.Param or nnx.BatchStat.
        shape: of the array; a kernel's last axis is its outputs, the last but one its inputs.
        initializer: a key of INITIALIZERS, with its numbers if it takes any: "normal(0.02)".

    Raises:
        UserError: a distribution that is not among them, or other numbers than it takes.
    """
    parse_initializer(initializer)
    return kind(DeclaredValue(shape, jnp.float32), initializer=initializer)


def functional(model: nnx.Module) -> Network:
    """Splits a network into plain dicts and a pure function over them."""
    graph, *states = nnx.split(model, nnx.Param, nnx.BatchStat)
    initializers = {path: leaf.initializer for state in states for path, leaf in nnx.to_flat_state(state)}
    params, stats = (nnx.to_pure_dict(state) for state in states)

    def apply(given_params, given_stats, images, *, train=False, rngs=None, mask=None):
        if wrong := differences(dict(params=given_params, stats=given_stats), dict(params=params, stats=stats)):
            raise ValueError("these values belong to another network: " + "; ".join(sorted(wrong)[:5]))
        live = nnx.merge(graph, given_params, given_stats)
        scores = live(images, train=train, rngs=rngs, **({} if mask is None else {"mask": mask}))
        return scores, nnx.to_pure_dict(nnx.state(live, nnx.BatchStat)) if train else given_stats

    return Network(params, stats, initializers, apply)


def initial_values(network: Network, seed: int) -> tuple[dict, dict]:
    """Draws parameters and statistics as NumPy arrays.

    Each depends on seed (at least 0), path, shape and distribution alone: not on platform, device count or order.
    """

    def draw(path, leaf):
        keys = tuple(entry.key for entry in path)
        name, numbers = parse_initializer(network.initializers[keys])
        digest = hashlib.blake2b("/".join(map(str, keys)).encode(), digest_size=8).digest()
        rng = np.random.Generator(np.random.Philox(key=[seed, int.from_bytes(digest, "little")]))
        return INITIALIZERS[name](rng, leaf.shape, *numbers)

    return jax.tree_util.tree_map_with_path(draw, network.params), jax.tree_util.tree_map_with_path(draw, network.stats)


@functools.cache
def parse_initializer(initializer: str) -> tuple[str, tuple[float, ...]]:
    """Reads "normal(0.02)" as ("normal", (0.02,)); UserError where no distribution is meant."""
    found = re.fullmatch(r"(\w+)(?:\((.+)\))?", initializer)
    name, text = found.groups() if found else (initializer, None)
    if name not in INITIALIZERS:
        raise unknown("initializer", name, INITIALIZERS)
    try:
        numbers = tuple(float(number) for number in text.split(",")) if text else ()
    except ValueError:
        raise UserError(f"initializer {initializer!r}: {text!r} are not numbers") from None
    takes = len(inspect.signature(INITIALIZERS[name]).parameters) - 2
    if len(numbers) != takes or not all(map(math.isfinite, numbers)):
        raise UserError(f"initializer {initializer!r} takes {takes} finite numbers")
    return name, numbers


# Distributions: (rng, shape, numbers) -> float32 array


def normal(rng: np.random.Generator, shape: tuple[int, ...], std: float) -> np.ndarray:
    """Normal with mean 0, not cut off."""
    drawn = np.empty(shape, np.float32)
    rng.standard_normal(dtype=np.float32, out=drawn)
    drawn *= np.float32(std)
    return drawn


def uniform(rng: np.random.Generator, shape: tuple[int, ...], limit: float) -> np.ndarray:
    """Uniform from -limit to limit; its deviation is limit / sqrt(3)."""
    drawn = np.empty(shape, np.float32)
    rng.random(dtype=np.float32, out=drawn)
    drawn *= np.float32(2 * limit)
    drawn -= np.float32(limit)
    return drawn


TRUNCATED_STD = math.sqrt(
    1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2))
)  # 0.8796: see truncated_normal


def truncated_normal(rng: np.random.Generator, shape: tuple[int, ...], std: float) -> np.ndarray:
    """Normal with mean 0, cut off at 2 deviations, then widened so that what is drawn has the deviation said.

    Uncorrected it would have KEPT of it: so do `jax.nn.initializers.truncated_normal` and `torch.nn.init.trunc_normal_`
    with bounds of 2 deviations. JAX's variance scaling ("he_normal" and so on there) is corrected, as here.
    """
    drawn = np.empty(shape, np.float32)
    rng.standard_normal(dtype=np.float32, out=drawn)
    flat = drawn.reshape(-1)
    outside = np.flatnonzero((flat > 2) | (flat < -2))
    while outside.size:
        again = rng.standard_normal(outside.size, np.float32)
        flat[outside] = again
        outside = outside[np.abs(again) > 2]
    drawn *= np.float32(std / TRUNCATED_STD)
    return drawn


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Values that an output sums over, and outputs that an input reaches, of a kernel (pixels ..., inputs, outputs)."""
    return math.prod(shape[:-1]), math.prod(shape[:-2]) * shape[-1]


INITIALIZERS: dict[str, Callable[..., np.ndarray]] = {
    "zeros": lambda rng, shape: np.zeros(shape, np.float32),
    "ones": lambda rng, shape: np.ones(shape, np.float32),
    "constant": lambda rng, shape, value: np.full(shape, value, np.float32),
    "normal": normal,
    "uniform": uniform,
    "truncated_normal": truncated_normal,
    "he_normal": lambda rng, shape: normal(rng, shape, math.sqrt(2 / fans(shape)[0])),
    "he_uniform": lambda rng, shape: uniform(rng, shape, math.sqrt(6 / fans(shape)[0])),
    "lecun_normal": lambda rng, shape: normal(rng, shape, math.sqrt(1 / fans(shape)[0])),
    "lecun_uniform": lambda rng, shape: uniform(rng, shape, math.sqrt(3 / fans(shape)[0])),
    "xavier_normal": lambda rng, shape: normal(rng, shape, math.sqrt(2 / sum(fans(shape)))),
    "xavier_uniform": lambda rng, shape: uniform(rng, shape, math.sqrt(6 / sum(fans(shape)))),
}
