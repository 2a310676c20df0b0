"""Shows where pixels enter a network: its first convolution or patch embedding, and the positions of its patches.

What is here can be looked at by eye: filters as small images, an image as the sequence of its patches, and how similar
the positions of two patches are. Filters of later layers read features, not colors, and are not images.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cnn_vit.analysis.record import Call, RunLayer, run_network
from cnn_vit.nn.conv import Conv
from cnn_vit.nn.patches import PatchEmbed
from cnn_vit.nn.position import LearnedPositions

MAX_FILTERS = 64  # of a layer, which are shown
MAX_NUMBERS = 50_000  # in all those filters together
MAX_MAPS = 14  # patches along a side whose similarity to all others is mapped


class InputLayer(NamedTuple):
    """The first layer that reads pixels.

    Attributes:
        path: the path of its kernel in the tree of parameters, ("patches", "kernel").
        patch: the side of a patch in pixels; None for a convolution.
        grid: how many patches there are (down, right); None for a convolution.
    """

    path: tuple
    patch: int | None
    grid: tuple[int, int] | None


class InputLayerFoundError(Exception):
    """Ends the trace at the layer that was looked for, and carries it; never leaves this file."""

    def __init__(self, input_layer: InputLayer):
        self.input_layer = input_layer


def find_input_layer(network: nnx.Module, image_shape: tuple[int, int, int]) -> InputLayer | None:
    """Finds the first convolution or patch embedding that a network calls; None where there is none, as in an MLP.

    Args:
        network: the network, declared without values.
        image_shape: the shape (H, W, C) of an image.
    """
    _, *states = nnx.split(network, nnx.Param, nnx.BatchStat)

    def search(params: dict, stats: dict, images: jax.Array) -> None:
        run_network(network, params, stats, images, stop_at_pixels)

    try:
        images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
        jax.eval_shape(search, *(nnx.to_pure_dict(state) for state in states), images)
    except InputLayerFoundError as found:
        # The rest of the network need not be traced, so an exception ends it here.
        return found.input_layer
    return None


def stop_at_pixels(call: Call, run: RunLayer) -> Any:
    """An interceptor that ends the trace at the first layer that reads pixels."""
    if not isinstance(call.layer, Conv | PatchEmbed):
        return run(call.inputs)
    path = (*path_keys(call.path), "kernel")
    if isinstance(call.layer, Conv):
        raise InputLayerFoundError(InputLayer(path, None, None))
    side = call.layer.patch
    _, height, width, _ = call.inputs["x"].shape
    raise InputLayerFoundError(InputLayer(path, side, (height // side, width // side)))


def path_keys(path: str) -> tuple:
    """The keys of a tree on a written path; those of an `nnx.List` are integers."""
    return tuple(int(part) if part.isdecimal() else part for part in path.split("/"))


def leaf_at(tree: dict, path: tuple) -> Any:
    """Returns the leaf at a path of keys."""
    for key in path:
        tree = tree[key]
    return tree


def collect_arrays(network: nnx.Module, image_shape: tuple[int, int, int], params: dict) -> dict[str, np.ndarray]:
    """Collects what can be looked at of where pixels enter a network.

    Args:
        network: the network, declared without values.
        image_shape: the shape (H, W, C) of an image.
        params: its parameters as plain dicts.

    Returns:
        Arrays by name: `filters_after` (F, V, U, C), and where the network has patches, `patches` (side in pixels,
        patches down, patches right) and with learned positions `similarity` (R', C', R, C); {} of a network that has
        neither.
    """
    first_layer = find_input_layer(network, image_shape)
    if first_layer is None:
        return {}
    arrays = {"filters_after": take_filters(np.asarray(leaf_at(params, first_layer.path)))}
    if first_layer.patch is None or first_layer.grid is None:
        return arrays
    arrays["patches"] = np.array([first_layer.patch, *first_layer.grid], np.int32)
    rows, columns = first_layer.grid
    path = find_pos_embed(network, rows * columns)
    if path:
        arrays["similarity"] = position_similarities(np.asarray(leaf_at(params, path)), first_layer.grid)
    return arrays


def take_filters(kernel: np.ndarray) -> np.ndarray:  # (V, U, C, F) -> (F', V, U, C)
    """Returns the first filters of a kernel, each as an image: at most MAX_FILTERS, and fewer where they are large."""
    numbers_per_filter = math.prod(kernel.shape[:-1])
    count = max(1, min(MAX_FILTERS, MAX_NUMBERS // numbers_per_filter))
    return np.moveaxis(np.asarray(kernel, np.float32)[..., :count], -1, 0)


def split_into_patches(image: np.ndarray, side: int) -> np.ndarray:  # (H, W, C) -> (N, P, P, C)
    """Splits an image into the sequence of patches that a patch embedding reads: row by row, each from left to right.

    Pixels at the right and bottom that fill no patch are left out.
    """
    rows, columns = image.shape[0] // side, image.shape[1] // side
    patches = []
    for top in range(0, rows * side, side):
        for left in range(0, columns * side, side):
            patches.append(image[top : top + side, left : left + side])
    return np.stack(patches)


def find_pos_embed(network: nnx.Module, patches: int) -> tuple | None:
    """Finds the table of learned positions that has at least a row for each patch.

    Args:
        network: the network, declared without values.
        patches: how many patches there are.

    Returns:
        The path of the table in the tree of parameters, the shortest where there are several; None where there is none.
    """
    paths = []
    for path, module in nnx.iter_modules(network):
        if isinstance(module, LearnedPositions) and module.embedding.shape[0] >= patches:
            paths.append((*path, "embedding"))
    return min(paths, key=lambda path: (len(path), str(path)), default=None)


def position_similarities(table: np.ndarray, grid: tuple[int, int]) -> np.ndarray:  # (T, D) -> (R', C', R, C)
    """Returns for patches a map of the cosine similarity between their position and those of all patches.

    As in Figure 7 of Dosovitskiy et al., arXiv:2010.11929.

    Args:
        table: the learned positions. Rows before those of the patches (a class token's) are left out.
        grid: how many patches there are (down, right). At most MAX_MAPS of them along a side have a map, evenly spaced.
    """
    rows, columns = grid
    positions = np.asarray(table, np.float64)[len(table) - rows * columns :]
    # A position of zeros has no direction; the tiny number keeps its similarities at 0.
    positions = positions / np.maximum(np.linalg.norm(positions, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    step = max(1, -(-max(grid) // MAX_MAPS))
    maps = (positions @ positions.T).reshape(rows, columns, rows, columns)
    return maps[::step, ::step].astype(np.float32)
