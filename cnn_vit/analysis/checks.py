"""Second ways to what a table says, each of which owes nothing to the first.

parameters          sizes of the parameter tree's arrays, against formulas of what a layer takes and gives
MACs                products of the traced program's equations, against formulas of shapes
receptive field     pixels with an input gradient in the network itself, run with positive parameters,
                    against windows followed through the program
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cnn_vit.analysis import flops, reach
from cnn_vit.analysis.reach import Reach
from cnn_vit.analysis.record import Call, Run, watching
from cnn_vit.analysis.table import Description, Row
from cnn_vit.nn.norm import BatchNorm, GroupNorm, LayerNorm
from cnn_vit.nn.pool import average_pool, max_pool
from cnn_vit.trees import shapes_by_path

Extent = tuple[int, int]  # first pixel and one past the last; (0, 0) for none
FAINT = 1e-6  # share of the largest gradient below which one is rounding


class DisagreementError(Exception):
    """Two ways to one number differ: a fault of this program, with the row named."""


def check(found: Description) -> dict[str, int]:
    """Goes every second way; says how many rows, or modules, each looked at.

    Raises:
        DisagreementError: the first row that differs.
    """
    return {
        "parameters": check_parameters(found),
        "macs": check_macs(found),
        "receptive_field": check_fields(found),
    }


def check_parameters(found: Description) -> int:
    """Each row against the arrays at its path, none left over."""
    sizes = {
        "/".join(map(str, keys)): int(np.prod(shape)) for keys, shape in shapes_by_path(found.program.params).items()
    }
    left = dict(sizes)
    for row in found.rows:
        holds = [path for path in left if path == row.path or path.startswith(f"{row.path}/")]
        refuse(row.path, "parameters", flops.value(row.parameters), sum(left.pop(path) for path in holds), "its arrays")
    for path, size in left.items():
        refuse(path, "parameters", 0, size, "an array that no row holds")
    return len(found.rows)


def check_macs(found: Description) -> int:
    """Each row, and each module with layers inside, against the products of its own equations."""
    counted = flops.products(found.program)
    rows = {row.call: row for row in found.rows if row.call is not None}
    for i, call in enumerate(found.program.calls):
        ours = flops.value(rows[i].macs) if i in rows else 0
        refuse(call.path or call.kind, "MACs", ours, counted[i], "its program")
    refuse(found.model, "MACs outside its layers", 0, counted[None], "the program")
    return len(found.program.calls)


def refuse(path: str, what: str, ours: Any, theirs: Any, where: str) -> None:
    """Raises DisagreementError where two ways differ."""
    if ours != theirs:
        raise DisagreementError(f"{path}: {what} are {ours} by the table's formula, {theirs} by {where}")


# Receptive fields by gradients


def check_fields(found: Description) -> int:
    """The first and the last number of each row's output against the pixels with a gradient to them."""
    rows = [row for row in found.rows if row.call is not None]
    pull = gradients(found, rows)
    for place, row in enumerate(rows):
        touched = np.asarray(pull(place))  # (2, H, W)
        for last in (0, 1):
            for side in (0, 1):
                true = extent(touched[last].any(axis=1 - side))
                check_side(found, row, last=bool(last), side=side, true=true)
    return len(rows)


def check_side(found: Description, row: Row, *, last: bool, side: int, true: Extent) -> None:
    """One side of one number's field. A border cut off by the image's may lie further inside, behind padding."""
    after = found.seen[row.call or 0].after[side]
    where = f"{'rows' if side == 0 else 'columns'} of the {'last' if last else 'first'} number"
    if after is None:
        raise DisagreementError(f"{row.path}: the {where} are not known; gradients reach {true}")
    start, end, cut = window_ends(after, row, last=last)
    low, high = cut
    inside = low <= true[0] and true[1] <= high
    agree = true == cut if low == high or not window_moves(after) else inside and (
        (start < low or true[0] == low) and (end > high or true[1] == high)
    )  # fmt: skip
    if not agree:
        raise DisagreementError(f"{row.path}: the {where} see pixels {cut} by the table, {true} by gradients")


def window_moves(seen: Reach) -> bool:
    """Whether numbers of the array see different pixels."""
    return any(window.digits for window in seen or ())


def window_ends(seen: Reach, row: Row, *, last: bool) -> tuple[int, int, Extent]:
    """Start and end of the first or last number's window as it would be without borders, and what is left of it."""
    still: list[reach.Window] = []
    for window in seen or ():
        index = {axis: size - 1 if last else 0 for axis, size in picked_axes(row).items()}
        still += reach.summed(reach.at(window, index), range(5)) or ()
    if not still:
        return 0, 0, (0, 0)
    start, end = min(one.start for one in still), max(one.start + one.size for one in still)
    return start, end, (min(one.extent[0] for one in still), max(one.extent[1] for one in still))


def picked_axes(row: Row) -> dict[int, int]:
    """Axes of the output along which one number is picked, with their sizes; the others are taken whole."""
    shape = row.output or ()
    return {1 + axis: size for axis, size in enumerate(shape[:-1])}


def extent(touched: np.ndarray) -> Extent:
    """First and one past the last True."""
    at = np.flatnonzero(touched)
    return (int(at[0]), int(at[-1]) + 1) if at.size else (0, 0)


def gradients(found: Description, rows: list[Row]) -> Callable[[int], jax.Array]:
    """The network as a function: place of a row -> which pixels (2, H, W) its first and last number depend on."""
    graph, *states = nnx.split(found.network, nnx.Param, nnx.BatchStat)
    params, stats = (jax.tree.map(positive, nnx.to_pure_dict(state)) for state in states)
    places = {row.path: place for place, row in enumerate(rows)}

    def outputs(images: jax.Array) -> list[jax.Array]:
        live = nnx.merge(graph, params, stats)
        given: list[Any] = [None] * len(rows)

        def around(call: Call, run: Run) -> Any:
            answer = flagged(READ.get(flops.key(call), as_it_is)(call.inputs, run))
            if call.path in places:
                given[places[call.path]] = answer
            return answer

        with watching(live, around):
            live(images)
        return given

    @jax.jit
    def pull(place: jax.Array) -> jax.Array:
        given, back = jax.vjp(outputs, jnp.ones((2, *found.image_shape), jnp.float32))
        asked = [corners(one) * (place == i).astype(one.dtype) for i, one in enumerate(given)]
        (touched,) = back(asked)
        return flag(touched).any(-1)

    return pull


def positive(leaf: Any) -> np.ndarray:
    """A parameter above 0, small enough that sums over a kernel's inputs stay near 1."""
    return np.full(leaf.shape, 1 / max(1, int(np.prod(leaf.shape[:-1]))), np.float32)


def corners(answer: jax.Array) -> jax.Array:
    """(2, ...): 1 at the first number of the first example and at the last of the second, in all features; else 0."""
    chosen = np.zeros(answer.shape, np.float32)
    middle = answer.ndim - 2
    chosen[(0, *[0] * middle)] = 1
    chosen[(1, *[-1] * middle)] = 1
    return jnp.asarray(chosen)


@jax.custom_vjp
def flagged(answer: jax.Array) -> jax.Array:
    """Ones in place of any numbers. Backwards: 1 where there is a gradient, so that none fades or grows on its way."""
    return jnp.ones_like(answer)


def flag(gradient: jax.Array) -> jax.Array:
    """Where a gradient is more than the rounding of the largest one of its example."""
    size = jnp.abs(gradient)
    return size > FAINT * size.max(axis=tuple(range(1, size.ndim)), keepdims=True)


flagged.defvjp(
    lambda answer: (jnp.ones_like(answer), None), lambda _, gradient: (flag(gradient).astype(gradient.dtype),)
)


def as_it_is(inputs: Mapping[str, Any], run: Run) -> Any:
    """A layer with positive parameters passes whatever it reads."""
    return run(dict(inputs))


def neutral(inputs: Mapping[str, Any], run: Run) -> Any:
    """A norm moves no number to another place."""
    return inputs["x"]


def over_pixels(inputs: Mapping[str, Any], run: Run) -> Any:
    """A norm whose mean is over all pixels, with its sum for what it does with it."""
    return inputs["x"] + inputs["x"].mean((1, 2, 3), keepdims=True)


def mean_of_window(inputs: Mapping[str, Any], run: Run) -> Any:
    """The largest passes a gradient to one pixel; the mean passes it to all that might be."""
    given = {name: inputs[name] for name in ("size", "stride", "padding")}
    return inspect.unwrap(average_pool)(inputs["x"], count_padding=True, **given)


READ: dict[Any, Callable[[Mapping[str, Any], Run], Any]] = {
    BatchNorm: neutral,
    LayerNorm: neutral,
    GroupNorm: over_pixels,
    inspect.unwrap(max_pool): mean_of_window,
}
