"""Checks every number of a table in a second way that shares nothing with the first.

parameters          The table has formulas of what a layer takes and returns.
                    They are checked against the sizes of the arrays in the parameter tree.
MACs                The table has formulas of shapes.
                    They are checked against the products counted in the equations of the traced program.
receptive field     The table has ranges of pixels that were followed through the program.
                    They are checked against the pixels with a gradient, in the network itself with positive parameters.

The idea of the last check: element e of a layer's output sees pixel p if d e / d p is not 0. A gradient may be 0 by
chance all the same: terms cancel, a ReLU cuts off, a maximum takes one pixel of its window. So the parameters are all
positive, norms are left out, a maximum is replaced by a mean, and on the way back each gradient is replaced by 1 where
it is not 0. Behind a 3x3 convolution with padding 1 the first element then has a gradient at the pixels 0 and 1 of each
side (its pixel -1 is padding), and the table must say the same.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cnn_vit import compilation
from cnn_vit.analysis import flops, reach
from cnn_vit.analysis.reach import PixelRange, Reach
from cnn_vit.analysis.record import Call, RunLayer, intercept_calls
from cnn_vit.analysis.table import Description, Row
from cnn_vit.compilation import ProgramKind
from cnn_vit.nn.conv import is_convolutional
from cnn_vit.nn.norm import BatchNorm, GroupNorm, LayerNorm
from cnn_vit.nn.pool import adaptive_average_pool, average_pool, max_pool
from cnn_vit.trees import shapes_by_path

Extent = tuple[int, int]  # the first pixel and the one after the last; (0, 0) for none
ROUNDING = 1e-6  # a gradient below this share of the largest one is rounding


class DisagreementError(Exception):
    """Two ways to one number disagree: a fault of this program. The sentence names the row."""


def check(description: Description) -> dict[str, int]:
    """Checks every number of a description in a second way.

    Returns:
        How many rows (or for the MACs, modules) each way looked at.

    Raises:
        DisagreementError: the two ways disagree; the first row where they do is named.
    """
    return {
        "parameters": check_parameters(description),
        "macs": check_macs(description),
        "receptive_field": check_fields(description),
    }


def check_parameters(description: Description) -> int:
    """Compares each row with the arrays at its path, and makes sure that each array belongs to a row."""
    unclaimed = {}
    for keys, shape in shapes_by_path(description.program.params).items():
        unclaimed["/".join(map(str, keys))] = int(np.prod(shape))
    for row in description.rows:
        paths = [path for path in unclaimed if path == row.path or path.startswith(f"{row.path}/")]
        in_arrays = sum(unclaimed.pop(path) for path in paths)
        compare(row.path, "parameters", flops.compute_formula(row.parameters), in_arrays, "its arrays")
    # What is left has no row, so by the table it has no parameters.
    for path, size in unclaimed.items():
        compare(path, "parameters", 0, size, "an array that no row holds")
    return len(description.rows)


def check_macs(description: Description) -> int:
    """Compares each row, and each module with layers inside, with the products of its own equations."""
    counted = flops.count_program_macs(description.program)
    rows = {row.call: row for row in description.rows if row.call is not None}
    for i, call in enumerate(description.program.calls):
        # A module without a row of its own has layers inside, and no product may stand between them.
        by_formula = flops.compute_formula(rows[i].macs) if i in rows else 0
        compare(call.path or call.kind, "MACs", by_formula, counted[i], "its program")
    compare(description.model, "MACs outside its layers", 0, counted[None], "the program")
    return len(description.program.calls)


def compare(path: str, quantity: str, by_formula: int, by_count: int, counted_in: str) -> None:
    """Raises DisagreementError where two ways to a quantity disagree."""
    if by_formula != by_count:
        raise DisagreementError(
            f"{path}: {quantity} are {by_formula} by the table's formula, {by_count} by {counted_in}"
        )


# Receptive fields by gradients


def check_fields(description: Description) -> int:
    """Compares the first and the last element of each row's output with the pixels that have a gradient to them."""
    rows = [row for row in description.rows if row.call is not None]
    find_pixels_with_gradient = gradient_function(description, rows)
    for i, row in enumerate(rows):
        has_gradient = np.asarray(find_pixels_with_gradient(i))  # (2, H, W)
        for last in (0, 1):
            for side in (0, 1):
                # A row of the image is seen if any of its columns is, and the other way round.
                by_gradient = extent(has_gradient[last].any(axis=1 - side))
                check_side(description, row, last=bool(last), side=side, by_gradient=by_gradient)
    return len(rows)


def check_side(description: Description, row: Row, *, last: bool, side: int, by_gradient: Extent) -> None:
    """Compares one side of the receptive field of one element.

    Args:
        description: the description that is checked.
        row: the row whose output has the element.
        last: whether it is the last element, else the first.
        side: 0 for the rows of the image, 1 for the columns.
        by_gradient: the pixels along that side that have a gradient.

    Raises:
        DisagreementError: they are not the pixels that the table says.
    """
    pixels_seen = description.reaches[row.call or 0].outputs[side]
    where = f"{'rows' if side == 0 else 'columns'} of the {'last' if last else 'first'} element"
    if pixels_seen is None:
        raise DisagreementError(f"{row.path}: the {where} are not known; gradients reach {by_gradient}")
    picked = pick_element(pixels_seen, row, last=last)
    if not fields_agree(picked, by_gradient, moves=any(pixel_range.digits for pixel_range in pixels_seen)):
        raise DisagreementError(
            f"{row.path}: the {where} see pixels {picked.extent} by the table, {by_gradient} by gradients"
        )


class ElementField(NamedTuple):
    """The pixels that one element sees by the table, along one side of the image.

    Attributes:
        start: the first pixel, as if the image had no border; below 0 in the padding.
        end: the pixel after the last, as if the image had no border.
        extent: what of that lies inside the image.
    """

    start: int
    end: int
    extent: Extent


def pick_element(pixels_seen: Reach, row: Row, *, last: bool) -> ElementField:
    """Returns what the first or last element of a row's output sees, all its features together."""
    # Axis 0 is the batch and the last axis the features; in between are positions, of which one is picked.
    positions = dict(enumerate((row.output or ())[:-1], start=1))
    indices = {axis: size - 1 if last else 0 for axis, size in positions.items()}
    ranges: list[PixelRange] = []
    for pixel_range in pixels_seen or ():
        picked = reach.pick_indices(pixel_range, indices)
        ranges += reach.sum_over_axes(picked, range(5)) or ()  # no output has more than 5 axes
    if not ranges:
        return ElementField(0, 0, (0, 0))
    start = min(pixel_range.start for pixel_range in ranges)
    end = max(pixel_range.start + pixel_range.size for pixel_range in ranges)
    extents = [pixel_range.extent for pixel_range in ranges]
    return ElementField(start, end, (min(first for first, _ in extents), max(end for _, end in extents)))


def fields_agree(by_table: ElementField, by_gradient: Extent, *, moves: bool) -> bool:
    """Whether the table and the gradients see the same pixels.

    Where a range reaches over the border of the image, its first or last pixels may be read through the padding of some
    layer on the way alone; gradients may then end further inside. `moves` says whether ranges move with the index: one
    that stands still must agree exactly.
    """
    low, high = by_table.extent
    if low == high or not moves:
        return by_gradient == by_table.extent
    first, end = by_gradient
    if first < low or end > high:
        return False
    first_agrees = by_table.start < low or first == low
    end_agrees = by_table.end > high or end == high
    return first_agrees and end_agrees


def extent(touched: np.ndarray) -> Extent:
    """The extent of the True entries of a vector."""
    indices = np.flatnonzero(touched)
    return (int(indices[0]), int(indices[-1]) + 1) if indices.size else (0, 0)


def gradient_function(description: Description, rows: list[Row]) -> Callable[[int], jax.Array]:
    """Returns a function of the position of a row: which pixels (2, H, W) its first and its last element depend on."""
    graph, *states = nnx.split(description.network, nnx.Param, nnx.BatchStat)
    params, stats = (jax.tree.map(positive_values, nnx.to_pure_dict(state)) for state in states)
    position_of_path = {row.path: i for i, row in enumerate(rows)}

    def compute_outputs(images: jax.Array) -> list[jax.Array]:
        live = nnx.merge(graph, params, stats)
        outputs: list[Any] = [None] * len(rows)  # in the order of the rows, whatever the order of the calls

        def run_stand_in(call: Call, run: RunLayer) -> Any:
            stand_in = STAND_INS.get(flops.layer_key(call), run_unchanged)
            output = flag_gradient(stand_in(call.inputs, run))
            if call.path in position_of_path:
                outputs[position_of_path[call.path]] = output
            return output

        with intercept_calls(live, run_stand_in):
            live(images)
        return outputs

    def find_pixels_with_gradient(position: jax.Array) -> jax.Array:
        # The position is an argument, so that one compilation serves all rows.
        images = jnp.ones((2, *description.image_shape), jnp.float32)
        outputs, pull_back = jax.vjp(compute_outputs, images)
        # A cotangent of 0 switches the outputs of all other rows off.
        cotangents = [
            select_first_and_last(output) * (position == i).astype(output.dtype) for i, output in enumerate(outputs)
        ]
        (gradient,) = pull_back(cotangents)
        return is_nonzero(gradient).any(-1)

    convolutional = is_convolutional(description.network)
    kind = ProgramKind(jax.default_backend(), convolutional=convolutional, dtype="float32")
    return compilation.jit(find_pixels_with_gradient, kind)


def positive_values(leaf: Any) -> np.ndarray:
    """Returns positive values for a parameter, small enough that sums over a kernel's inputs stay near 1."""
    return np.full(leaf.shape, 1 / max(1, int(np.prod(leaf.shape[:-1]))), np.float32)


def select_first_and_last(output: jax.Array) -> jax.Array:
    """Returns an array like the output: 1 in all features of two positions, 0 elsewhere.

    These are the first position of example 0 and the last position of example 1. So one pass back serves both.
    """
    selected = np.zeros(output.shape, np.float32)
    position_axes = output.ndim - 2
    selected[(0, *[0] * position_axes)] = 1
    selected[(1, *[-1] * position_axes)] = 1
    return jnp.asarray(selected)


@jax.custom_vjp
def flag_gradient(output: jax.Array) -> jax.Array:
    """Replaces a layer's output by ones, and on the way back its gradient by 1 where it is not 0.

    The ones keep every ReLU open; the flags keep a gradient from fading or growing on its way.
    """
    return jnp.ones_like(output)


def is_nonzero(gradient: jax.Array) -> jax.Array:
    """Where a gradient is more than the rounding of the largest one of its example."""
    size = jnp.abs(gradient)
    return size > ROUNDING * size.max(axis=tuple(range(1, size.ndim)), keepdims=True)


flag_gradient.defvjp(
    lambda output: (jnp.ones_like(output), None),
    lambda _, gradient: (is_nonzero(gradient).astype(gradient.dtype),),
)


# What runs in place of a layer, with the layer's inputs and the layer itself as `run`


def run_unchanged(inputs: Mapping[str, Any], run: RunLayer) -> Any:
    """Runs the layer itself: with positive parameters it passes on whatever it reads."""
    return run(dict(inputs))


def skip_norm(inputs: Mapping[str, Any], run: RunLayer) -> Any:
    """Returns the input: a norm within each position moves nothing, but its subtraction could cancel gradients."""
    return inputs["x"]


def add_mean_over_pixels(inputs: Mapping[str, Any], run: RunLayer) -> Any:
    """Adds the mean over all pixels to the input: each output of such a norm depends on all of them."""
    return inputs["x"] + inputs["x"].mean((1, 2, 3), keepdims=True)


def average_window(inputs: Mapping[str, Any], run: RunLayer) -> Any:
    """Takes the mean of each window: the maximum passes a gradient to one pixel, the mean to all that might be it."""
    window = {name: inputs[name] for name in ("size", "stride", "padding")}
    return inspect.unwrap(average_pool)(inputs["x"], count_padding=True, **window)


def average_everything(inputs: Mapping[str, Any], run: RunLayer) -> Any:
    """Gives each pixel the mean of all: windows of unlike sides have no stride, so the table adds up what all see."""
    outputs = run(dict(inputs))
    return jnp.broadcast_to(inputs["x"].mean((1, 2), keepdims=True), outputs.shape)


STAND_INS: dict[Any, Callable[[Mapping[str, Any], RunLayer], Any]] = {
    BatchNorm: skip_norm,
    LayerNorm: skip_norm,
    GroupNorm: add_mean_over_pixels,
    inspect.unwrap(max_pool): average_window,
    inspect.unwrap(adaptive_average_pool): average_everything,
}
