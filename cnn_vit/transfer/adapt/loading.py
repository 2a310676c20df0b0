"""What is loaded: the values of one network as the start of another.

Each value of the network is one of three things, and its row says which:

    loaded     as it is in the weights, to the bit
    resized    made to fit: positions for another grid, the first kernel for other patches or other channels
    new        an initial value: of the head, of what a cut makes new, and of what `pretrained.load` leaves out

Nothing else happens. A value that the weights lack, one that has no place in the network, and one of another shape are
errors, all of them listed.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import numpy as np

from cnn_vit.data.reading.unreadable import printable_name
from cnn_vit.errors import UserError, nearest
from cnn_vit.nn.values import Network, initial_values
from cnn_vit.transfer.adapt.patches import change_channels, resize_patch_kernel
from cnn_vit.transfer.adapt.patterns import Pattern, find_matches, parse
from cnn_vit.transfer.adapt.positions import Grid, resize_positions
from cnn_vit.transfer.weights import Weights
from cnn_vit.trees import keys_text, leaves_by_path, shapes_by_path

SETTING = "pretrained.load"
HEAD = "head"  # the attribute of every family
POSITIONS = ("pos_embed", "embedding")
PATCH_KERNEL = ("patches", "kernel")
SMALL = "normal(0.01)"
Origin = Literal["loaded", "resized", "new"]
MOST_SUGGESTIONS = 10  # lines of an error that name what is spelled alike: comparing hundreds with hundreds takes long


@dataclass(frozen=True)
class AdaptedLeaf:
    """What became of one value of the network.

    Attributes:
        path: ("stages", 0, "blocks", 0, "conv1", "kernel").
        is_statistic: whether it is a running statistic; else it is a parameter.
        origin: where its numbers come from.
        source_shape: its shape in the weights; None where it is new.
        shape: its shape in the network.
    """

    path: tuple
    is_statistic: bool
    origin: Origin
    source_shape: tuple[int, ...] | None
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Adapted:
    """Values for a network, made from weights.

    Attributes:
        params, stats: all values of the network, NumPy float32.
        rows: what became of each, parameters first, in the order of jax.
    """

    params: dict
    stats: dict
    rows: tuple[AdaptedLeaf, ...]


@dataclass(frozen=True)
class Geometry:
    """What resizing must know of the network of the weights and of the one that is trained.

    Attributes:
        old_grid, new_grid: rows and columns of the patches of each; None where positions are not learned.
        input_kernel: path of the kernel that reads pixels, ("stem", "kernel"); None where there is none, as in an MLP.
    """

    old_grid: Grid | None = None
    new_grid: Grid | None = None
    input_kernel: tuple | None = None


def adapt(
    source: Weights,
    network: Network,
    initial: dict[str, dict],
    *,
    geometry: Geometry,
    load: tuple[str, ...] = ("all",),
    keep_head: bool = False,
    head: Literal["zero", "small"] = "zero",
    seed: int = 0,
    new: tuple[str, ...] = (),
    dropped: tuple[str, ...] = (),
) -> Adapted:
    """Makes all values of a network from weights and initial values.

    Args:
        source: the weights.
        network: the network that is trained.
        initial: dict(params, stats), its initial values, which stay where nothing is loaded.
        geometry: what resizing must know.
        load: the parts of a pattern (see `patterns`) that says which parameters are loaded. A running statistic is
            loaded where the pattern means its path.
        keep_head: whether the head is loaded as everything else is, which has a meaning where the classes are the same.
        head: what a head that is not loaded starts from. zero: all scores are 0, as in the fine-tuning of the Vision
            Transformer (arXiv:2010.11929, section 3.2). small: kernels from normal(0.01), as Fast R-CNN's new layer of
            classes (arXiv:1504.08083), and biases 0.
        seed: of a small head, whose values depend on it and on their paths alone.
        new: beginnings of paths, `norm`, that are new because of a cut, whether the weights have them or not.
        dropped: beginnings of paths, `blocks/6`, that lie above a cut: in the weights, and not in the network.

    Raises:
        UserError: a pattern that does not fit, loads nothing or names what is new; or values that are missing, have no
            place or another shape, with a line about each of them in the error's details.
    """
    if not keep_head:
        new, dropped = (*new, HEAD), (*dropped, HEAD)
    pattern = parse(", ".join(load), setting=SETTING)
    # Here a path begins with its tree: ("params", "head", "kernel").
    source_leaves = leaves_by_path(dict(params=source.params, stats=source.stats))
    initial_leaves = leaves_by_path(initial) | draw_head(network, head, seed)
    declared = dict(params=network.params, stats=network.stats)
    shapes = shapes_by_path(declared)

    loaded_paths = find_loaded(pattern, shapes, new)
    missing = [path for path in loaded_paths if path not in source_leaves]
    unplaced = find_unplaced(pattern, source_leaves, shapes, dropped)
    fitted = {}
    for path in loaded_paths:
        if path in source_leaves:
            fitted[path] = make_fit(source_leaves[path], path, shapes[path], geometry)
    refuse_misfits(source, shapes, fitted, missing, unplaced)

    values, rows = [], []
    for path, shape in shapes.items():
        value = initial_leaves[path]
        origin: Origin = "new"
        source_shape = None
        if path in fitted:
            value = fitted[path]
            origin = "loaded" if value is source_leaves[path] else "resized"
            source_shape = source_leaves[path].shape
        values.append(value)
        rows.append(AdaptedLeaf(path[1:], path[0] == "stats", origin, source_shape, shape))
    whole = jax.tree.unflatten(jax.tree.structure(declared), values)
    return Adapted(whole["params"], whole["stats"], tuple(rows))


def draw_head(network: Network, head: str, seed: int) -> dict[tuple, np.ndarray]:
    """Draws what a new head starts from, by path; what is neither a kernel nor a bias starts as the network says."""
    kernel_initializer = "zeros" if head == "zero" else SMALL
    initializers = {}
    for path, initializer in network.initializers.items():
        initializers[path] = {"kernel": kernel_initializer, "bias": "zeros"}.get(path[-1], initializer)
    only_head = replace(network, params={HEAD: network.params[HEAD]}, stats={}, initializers=initializers)
    params, _ = initial_values(only_head, seed)
    return leaves_by_path(dict(params=params))


def begins_with(path: tuple, beginnings: tuple[str, ...]) -> bool:
    """Whether a path, ("blocks", 6, "norm1", "scale"), begins with one of some texts, `blocks/6`, or is one of them."""
    text = keys_text(path)
    return any(text == beginning or text.startswith(f"{beginning}/") for beginning in beginnings)


def find_loaded(pattern: Pattern, shapes: dict[tuple, tuple], new: tuple[str, ...]) -> list[tuple]:
    """Returns the paths of the values that are to be loaded, in the order of the network.

    Args:
        pattern: which parameters the user asks for.
        shapes: of all values of the network, by path with its tree.
        new: beginnings of paths that are new whatever the pattern says.

    Raises:
        UserError: a part of the pattern that no parameter has, or all of whose parameters are new; nothing to load.
    """
    params = [path[1:] for path in shapes if path[0] == "params"]
    find_matches(pattern, params)  # only checked: statistics are meant as well
    if not pattern.is_complement:
        for prefix in pattern.prefixes:
            if all(begins_with(path, new) for path in params if prefix.matches(path)):
                raise UserError(
                    f"{pattern.setting}: {prefix.text} is new in this network, as a head for other classes is, or what "
                    "stands behind a cut; leave it out"
                )
    loaded = [path for path in shapes if pattern.matches(path[1:]) and not begins_with(path[1:], new)]
    if not loaded:
        raise UserError(f"{pattern.setting} loads nothing; write all, or name a part that is not new")
    return loaded


def find_unplaced(
    pattern: Pattern, source_leaves: dict[tuple, Any], shapes: dict[tuple, tuple], dropped: tuple[str, ...]
) -> list[tuple]:
    """Returns the paths of the weights that the pattern means, and that neither the network has nor a cut explains."""
    unplaced = []
    for path in source_leaves:
        if path not in shapes and pattern.matches(path[1:]) and not begins_with(path[1:], dropped):
            unplaced.append(path)
    return unplaced


def make_fit(value: np.ndarray, path: tuple, shape: tuple[int, ...], geometry: Geometry) -> np.ndarray:
    """Resizes a value of the weights where there is a way; any other is returned as it is, of whatever shape.

    Args:
        value: of the weights.
        path: with its tree.
        shape: that the network has there.
        geometry: what resizing must know.
    """
    if path == ("params", *POSITIONS) and geometry.old_grid is not None and geometry.new_grid is not None:
        # Not only where the shapes differ: 4 x 9 patches are as many as 6 x 6.
        return resize_positions(value, geometry.old_grid, geometry.new_grid)
    if geometry.input_kernel is None or path != ("params", *geometry.input_kernel):
        return value
    if len(shape) != 4 or value.ndim != 4:  # not a kernel over pixels
        return value
    value = change_channels(value, shape[2])
    if geometry.input_kernel == PATCH_KERNEL:
        value = resize_patch_kernel(value, (shape[0], shape[1]))
    return value


def refuse_misfits(
    source: Weights,
    shapes: dict[tuple, tuple],
    fitted: dict[tuple, np.ndarray],
    missing: list[tuple],
    unplaced: list[tuple],
) -> None:
    """Raises UserError where weights and network do not fit: a sentence, and in its details a line for each value.

    Args:
        source: the weights.
        shapes: of the values of the network, by path with its tree.
        fitted: values of the weights that the network has, made to fit where there is a way.
        missing: paths that the weights lack.
        unplaced: paths that the network lacks.
    """
    lines: list[str] = []
    for path in missing:
        near = suggest(path, unplaced) if len(lines) < MOST_SUGGESTIONS else ""
        lines.append(f"{name(path)}: not in the weights{near}")
    for path in unplaced:
        near = suggest(path, missing) if len(lines) < MOST_SUGGESTIONS else ""
        lines.append(f"{name(path)}: in the weights, not in the network{near}")
    for path, value in fitted.items():
        if value.shape != shapes[path]:
            lines.append(f"{name(path)}: {value.shape} in the weights, {shapes[path]} in the network")
    if not lines:
        return
    if len(lines) == 1:
        raise UserError(f"weights of {source.card.model} do not fit this network: {lines[0]}")
    raise UserError(
        f"weights of {source.card.model} do not fit this network in {len(lines)} values, the first {lines[0]}; take "
        "the model that they are of, or name in pretrained.load what is to be loaded",
        details=lines,
    )


def name(path: tuple) -> str:
    """Writes a path with its tree as messages do: `stages/0/kernel`; keys of a file may hold anything."""
    return printable_name(keys_text(path[1:]))


def suggest(path: tuple, others: list[tuple]) -> str:
    """Says which of other paths is spelled most like one; nothing where none is."""
    near = nearest(keys_text(path[1:]), [keys_text(other[1:]) for other in others], most=1)
    return f"; there is {printable_name(near[0])}" if near else ""
