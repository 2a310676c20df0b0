"""How far attention reads: the mean distance between a patch and the patches it reads from, for each head.

    for head in measure_distances(network, params, stats, images): head.block, head.head, head.distance

A head that reads its own neighborhood alone has a small distance, as a convolution has; a head that reads all patches
alike has the mean distance of all pairs (`uniform_distance`), of an n x n grid about 0.52 n patches.

The weights of a head are what attention returns for values that are one-hot: value j is 1 at place j and 0 elsewhere.
So they are right in whichever form attention is computed.

Source: Dosovitskiy et al., arXiv:2010.11929, figure 7 and appendix D.7; Raghu et al., Do Vision Transformers See Like
Convolutional Neural Networks?, arXiv:2108.08810, section 4.

Axes:
    B images    H, W image height and width    C colors    T tokens    N patches    A heads    M tokens that are read
"""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cnn_vit.analysis.record import Call, RunLayer, Values, compile_for, run_network
from cnn_vit.analysis.shift import MOST_OTHER_TOKENS
from cnn_vit.errors import UserError

KEPT = 8  # compiled measurements; the same network with other values compiles nothing
ATTEND = "attend"  # the function of `nn/attention` that weighs values, as `record.Call` names it


@dataclass(frozen=True)
class HeadDistance:
    """How far a head of attention reads.

    Attributes:
        path: of the attention, as `record.Call` has it.
        block: its number among the attentions of the network, from 0.
        head: its number in the block, from 0.
        distance: the mean distance in patches between a patch and the patches that it reads, each by its weight.
    """

    path: str
    block: int
    head: int
    distance: float


def measure_distances(
    network: nnx.Module, params: Values, stats: Values, images: np.ndarray, grid: tuple[int, int]
) -> list[HeadDistance]:  # (B, H, W, C)
    """Returns how far each head reads, in an evaluation: the mean over all images and patches, by the weights.

    A class token is left out, and that of a distilled network: they lie nowhere, so that what they read, and the
    weights on them, count for nothing.

    Args:
        network: the network, declared without values.
        params: its parameters.
        stats: its running statistics.
        images: over which the distances are averaged.
        grid: rows and columns of the patches.

    Raises:
        UserError: there is no attention among that many tokens.
    """
    measure, paths = compile_distances(network, grid)
    by_block = measure(params, stats, images)
    if not paths:
        raise UserError(
            f"this network has no attention among {grid[0]} x {grid[1]} patches; take a vit, and its own grid"
        )
    heads = []
    for block, (path, of_heads) in enumerate(zip(paths, by_block, strict=True)):
        heads += [HeadDistance(path, block, head, float(distance)) for head, distance in enumerate(of_heads)]
    return heads


@functools.lru_cache(maxsize=KEPT)
def compile_distances(network: nnx.Module, grid: tuple[int, int]) -> tuple[Any, list[str]]:
    """Returns the compiled measurement, and a list that holds the paths of the attentions once it has run."""
    paths: list[str] = []
    distances = grid_distances(grid)
    patches = len(distances)

    def measure(params: Values, stats: Values, images: jax.Array) -> list[jax.Array]:
        paths.clear()
        by_block: list[jax.Array] = []

        def read_weights(call: Call, run: RunLayer) -> Any:
            if call.kind == ATTEND and is_among_tokens(call, patches):
                weights = attention_weights(call, run)[:, :, -patches:, -patches:]  # (B, A, N, N)
                paths.append(call.path)
                by_block.append((weights * distances).sum((0, 2, 3)) / weights.sum((0, 2, 3)))
            return run(call.inputs)

        run_network(network, params, stats, images, read_weights)
        return by_block

    return compile_for(network, measure), paths


def is_among_tokens(call: Call, patches: int) -> bool:
    """Whether all tokens of the patches, and at most MOST_OTHER_TOKENS before them, read one another."""
    readers, read = call.inputs["q"].shape[1], call.inputs["k"].shape[1]
    return readers == read and 0 <= readers - patches <= MOST_OTHER_TOKENS


def attention_weights(call: Call, run: RunLayer) -> jax.Array:  # (B, A, N, M)
    """Returns the weights of a call of `attend`: what it returns for one-hot values."""
    batch, tokens, heads, _ = call.inputs["v"].shape
    one_hot = jnp.broadcast_to(jnp.eye(tokens)[None, :, None, :], (batch, tokens, heads, tokens))  # (B, M, A, M)
    # The fused form wants values as wide as keys; it gives the same weights up to rounding.
    weights = run(call.inputs | {"v": one_hot.astype(call.inputs["v"].dtype), "drop": None, "fused": False})
    return weights.astype(jnp.float32).swapaxes(1, 2)


def grid_distances(grid: tuple[int, int]) -> np.ndarray:  # (N, N)
    """Returns the distance in patches between each two patches, which are numbered row by row."""
    rows, columns = grid
    places = np.stack(np.divmod(np.arange(rows * columns), columns), -1)  # (N, 2)
    return np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1)).astype(np.float32)


def uniform_distance(grid: tuple[int, int]) -> float:
    """Returns the mean distance in patches of a head that reads all patches alike, itself too."""
    return float(grid_distances(grid).mean())
