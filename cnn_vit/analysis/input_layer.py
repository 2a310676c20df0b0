"""Where pixels enter a network: its first convolution or patch embedding, and the positions given to its patches.

What is here can be looked at with the eye: filters as small images, an image as the sequence of its patches, and how
alike the positions of two patches are. Filters of other layers read features, not colors.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cnn_vit.analysis import record
from cnn_vit.nn.conv import Conv
from cnn_vit.nn.patches import PatchEmbed
from cnn_vit.nn.position import LearnedPositions

FILTERS = 64  # of a layer, at most, that are looked at
NUMBERS = 50_000  # of all those filters together, at most
QUERIES = 14  # patches a side, at most, whose likeness to all others is taken


class InputLayer(NamedTuple):
    """The first layer that reads pixels.

    Attributes:
        path: of its kernel in the tree of parameters, ("patches", "kernel").
        patch: side of a patch in pixels; None of a convolution.
        grid: patches (down, right); None of a convolution.
    """

    path: tuple
    patch: int | None
    grid: tuple[int, int] | None


class FoundError(Exception):
    """Ends the trace at the layer looked for; never leaves this file."""

    def __init__(self, entrance: InputLayer):
        self.entrance = entrance


def find_input_layer(network: nnx.Module, image_shape: tuple[int, int, int]) -> InputLayer | None:
    """The first convolution or patch embedding that a network calls; None where there is none, as in an MLP.

    Args:
        network: declared, without values.
        image_shape: (H, W, C).
    """
    graph, *states = nnx.split(network, nnx.Param, nnx.BatchStat)

    def run(params: dict, stats: dict, images: jax.Array) -> None:
        live = nnx.merge(graph, params, stats)
        with record.watching(live, stop_at_pixels):
            live(images)

    try:
        images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
        jax.eval_shape(run, *(nnx.to_pure_dict(state) for state in states), images)
    except FoundError as found:
        return found.entrance
    return None


def stop_at_pixels(call: record.Call, run: record.Run) -> Any:
    """An `around` that ends the trace at the first layer that reads pixels."""
    if not isinstance(call.layer, Conv | PatchEmbed):
        return run(call.inputs)
    path = (*path_keys(call.path), "kernel")
    if isinstance(call.layer, Conv):
        raise FoundError(InputLayer(path, None, None))
    side, shape = call.layer.patch, call.inputs["x"].shape
    raise FoundError(InputLayer(path, side, (shape[1] // side, shape[2] // side)))


def path_keys(path: str) -> tuple:
    """A written path as the keys of a tree; those of an `nnx.List` are integers."""
    return tuple(int(part) if part.isdecimal() else part for part in path.split("/"))


def leaf_at(tree: dict, path: tuple) -> Any:
    """The leaf at a path of keys."""
    for key in path:
        tree = tree[key]
    return tree


def filter_images(kernel: np.ndarray) -> np.ndarray:  # (V, U, C, F) -> (F', V, U, C)
    """The first filters of a kernel, at most FILTERS, and fewer where they are large; each an image."""
    each = math.prod(kernel.shape[:-1])
    most = max(1, min(FILTERS, NUMBERS // each))
    return np.moveaxis(np.asarray(kernel, np.float32)[..., :most], -1, 0)


def split_into_patches(image: np.ndarray, side: int) -> np.ndarray:  # (H, W, C) -> (N, P, P, C)
    """An image as the sequence of patches that a patch embedding reads: row by row, each from left to right.

    Pixels at the right and bottom that fill no patch are left out.
    """
    rows, columns = image.shape[0] // side, image.shape[1] // side
    corners = [(side * row, side * column) for row in range(rows) for column in range(columns)]
    return np.stack([image[top : top + side, left : left + side] for top, left in corners])


def find_pos_embed(network: nnx.Module, patches: int) -> tuple | None:
    """The path of the table of learned positions with a row for each of so many patches; None where there is none."""
    found = [(*path, "embedding") for path, module in nnx.iter_modules(network)
             if isinstance(module, LearnedPositions) and module.embedding.shape[0] >= patches]  # fmt: skip
    return min(found, key=lambda path: (len(path), str(path))) if found else None


def position_similarities(table: np.ndarray, grid: tuple[int, int]) -> np.ndarray:  # (T, D) -> (R', C', R, C)
    """The cosine between the positions of patches: for every patch, or every few, a map of its likeness to all.

    Rows of the table before those of the patches (a class token's) are left out. At most QUERIES patches a side have a
    map, evenly spaced. As in Figure 7 of Dosovitskiy et al., arXiv:2010.11929.
    """
    rows, columns = grid
    own = np.asarray(table, np.float64)[len(table) - rows * columns :]
    own /= np.maximum(np.linalg.norm(own, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    step = max(1, -(-max(grid) // QUERIES))
    maps = (own @ own.T).reshape(rows, columns, rows, columns)
    return maps[::step, ::step].astype(np.float32)
