"""Receptive fields: which pixels of the image each layer's numbers see, followed through the network's program.

Every operation of the program says what it does to the windows of `reach`: a convolution or pooling widens them, a sum
over an axis joins them, arithmetic joins those of what it is given, a reshape moves them to other axes. So it does not
matter where in a network an operation stands, or in which form a layer is written. What none of the rules knows leads
to "not known", never to a guess; where a number sees the whole image already, nothing can add to it.

What is found is the theoretical field, all that can have any influence. It is read per side: rows, then columns.
"""

from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any, NamedTuple

from jax.extend import core

from cnn_vit.analysis import reach
from cnn_vit.analysis.program import Program, inner, number
from cnn_vit.analysis.reach import Reach, Slide

SIDES = (0, 1)  # rows, columns


class Seen(NamedTuple):
    """What a call's first input and its output see, each (of the rows, of the columns)."""

    before: tuple[Reach, Reach]
    after: tuple[Reach, Reach]


class Field(NamedTuple):
    """One side of a receptive field.

    Attributes:
        size: pixels, as many as an image large enough would show; 0 where nothing is seen, None for all there are.
        stride: pixels between the fields of neighbors; None where all numbers see the same.
    """

    size: int | None
    stride: int | None


def seen(program: Program) -> dict[int, Seen]:
    """What each call takes and gives sees, by its number."""
    _, height, width, _ = shape(program.jaxpr.invars[-1])
    found: list[dict[int, tuple[Reach, Reach]]] = []
    for side, pixels in zip(SIDES, (height, width), strict=True):
        at: dict[int, tuple[Reach, Reach]] = {}
        given: list[Reach] = [()] * (len(program.jaxpr.invars) - 1)
        follow(program.jaxpr, [*given, reach.image(1 + side, pixels)], at)
        found.append(at)
    rows, columns = found
    return {call: Seen(*zip(rows[call], columns[call], strict=True)) for call in rows}


def field(seen: Reach, pixels: int) -> Field | None:
    """The receptive field along a side of the image of so many pixels; None where it is not known."""
    if seen is None or len(seen) > 1:
        return None
    if not seen:
        return Field(0, None)
    (window,) = seen
    if window.digits:
        return Field(window.size, min(digit.weight for digit in window.digits))
    first, end = window.extent
    return Field(None if (first, end) == (0, pixels) else end - first, None)


def follow(jaxpr: core.Jaxpr, given: list[Reach], at: dict[int, tuple[Reach, Reach]]) -> list[Reach]:
    """What a program's outputs see, where its inputs see what is given; notes each call on the way."""
    known: dict[Any, Reach] = dict(zip(jaxpr.invars, given, strict=True))

    def of(variable: Any) -> Reach:
        return () if isinstance(variable, core.Literal) else known.get(variable, ())

    for equation in jaxpr.eqns:
        taken = [of(variable) for variable in equation.invars]
        after = stepped(equation, taken, at)
        known.update(zip(equation.outvars, after, strict=True))
        call = number(equation)
        if call is not None:
            at[call] = images_seen(taken), after[0]
    return [of(variable) for variable in jaxpr.outvars]


def images_seen(taken: Iterable[Reach]) -> Reach:
    """What a call's inputs see: that of the first which sees anything; parameters see nothing."""
    return next((one for one in taken if one != ()), ())


def stepped(equation: Any, taken: list[Reach], at: dict[int, tuple[Reach, Reach]]) -> list[Reach]:
    """What the outputs of an equation see."""
    name, outputs = equation.primitive.name, equation.outvars
    if all(one == () for one in taken) and number(equation) is None:
        return [()] * len(outputs)
    if name in WHOLE:
        ((_, program),) = [(key, one) for key, one in inner(equation) if key in WHOLE[name]]
        return follow(program, taken, at)
    if name == "cond":
        branches = [follow(program, taken[1:], at) for _, program in inner(equation)]
        return [reach.joined(ways) for ways in zip(*branches, strict=True)]
    if name in RULES:
        return [RULES[name](equation, taken)] * len(outputs)
    together = reach.joined(taken)
    if name in ALIKE or (together is not None and not any(window.digits for window in together)):
        return [together] * len(outputs)
    return [None] * len(outputs)


# Programs inside an equation that take and give what it does, by the parameter that holds them
WHOLE = {
    "jit": ("jaxpr",), "pjit": ("jaxpr",), "closed_call": ("call_jaxpr",), "core_call": ("call_jaxpr",),
    "remat2": ("jaxpr",), "checkpoint": ("jaxpr",), "custom_jvp_call": ("call_jaxpr",),
    "custom_vjp_call": ("call_jaxpr", "fun_jaxpr"),
}  # fmt: skip

# Operations on each number by itself; those that take several arrays take them in one shape
ALIKE = {
    "abs", "add", "add_any", "and", "cbrt", "ceil", "clamp", "convert_element_type", "copy", "copy_p", "cos", "cosh",
    "div", "eq", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "integer_pow", "is_finite",
    "le", "log", "log1p", "logistic", "lt", "max", "min", "mul", "ne", "neg", "nextafter", "not",
    "optimization_barrier", "or", "pow", "real", "reduce_precision", "rem", "round", "rsqrt", "select_n", "sign",
    "sin", "sinh", "sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "xor",
}  # fmt: skip


def shape(variable: Any) -> tuple[int, ...]:
    """Of what a variable holds."""
    return variable.aval.shape


def broadcast(equation: Any, taken: list[Reach]) -> Reach:
    """Each axis goes to its place; what is repeated along one sees the same there."""
    places, given = equation.params["broadcast_dimensions"], shape(equation.outvars[0])
    kept = {axis: place for axis, place in enumerate(places) if shape(equation.invars[0])[axis] == given[place]}
    return reach.renamed(taken[0], kept)


def reshaped(equation: Any, taken: list[Reach]) -> Reach:
    """Axes split and join."""
    return reach.reshaped(taken[0], shape(equation.invars[0]), shape(equation.outvars[0]))


def squeezed(equation: Any, taken: list[Reach]) -> Reach:
    """Axes of one index leave."""
    gone = equation.params["dimensions"]
    left = [axis for axis in range(len(shape(equation.invars[0]))) if axis not in gone]
    return reach.renamed(taken[0], {axis: place for place, axis in enumerate(left)})


def transposed(equation: Any, taken: list[Reach]) -> Reach:
    """Axes change places."""
    return reach.renamed(taken[0], {axis: place for place, axis in enumerate(equation.params["permutation"])})


def sliced(equation: Any, taken: list[Reach]) -> Reach:
    """A part of each axis, and a step."""
    params, seen = equation.params, taken[0]
    steps = params["strides"] or [1] * len(shape(equation.invars[0]))
    for axis, (first, step) in enumerate(zip(params["start_indices"], steps, strict=True)):
        before, after = shape(equation.invars[0])[axis], shape(equation.outvars[0])[axis]
        if step == 1 and before != after:
            seen = reach.shifted(seen, axis, before, -first, after)
        elif step != 1:
            seen = reach.slid(seen, axis, Slide(before, after, step=step, before=-first))
    return seen


def padded(equation: Any, taken: list[Reach]) -> Reach:
    """Numbers that see nothing before and after; not known where they come between."""
    seen = taken[0]
    for axis, (low, high, between) in enumerate(equation.params["padding_config"]):
        if between:
            return None
        if low or high:
            before, after = shape(equation.invars[0])[axis], shape(equation.outvars[0])[axis]
            seen = reach.shifted(seen, axis, before, low, after)
    return reach.joined([seen, taken[1]])


def concatenated(equation: Any, taken: list[Reach]) -> Reach:
    """Arrays one behind the other, each at its place."""
    axis, length = equation.params["dimension"], shape(equation.outvars[0])[equation.params["dimension"]]
    lengths = [shape(variable)[axis] for variable in equation.invars]
    places = [0, *accumulate(lengths)]
    return reach.joined(
        reach.shifted(seen, axis, own, place, length)
        for seen, own, place in zip(taken, lengths, places[:-1], strict=True)
    )


def reduced(equation: Any, taken: list[Reach]) -> Reach:
    """One number for all of some axes."""
    axes = equation.params["axes"]
    left = [axis for axis in range(len(shape(equation.invars[0]))) if axis not in axes]
    return reach.renamed(reach.summed(taken[0], axes), {axis: place for place, axis in enumerate(left)})


def multiplied(equation: Any, taken: list[Reach]) -> Reach:
    """A matrix product: sums over the contracted axes; batch axes first, then the free ones of either side."""
    contracted, batch = equation.params["dimension_numbers"]
    ranks = [len(shape(variable)) for variable in equation.invars]
    free = [[axis for axis in range(rank) if axis not in (*contracted[i], *batch[i])] for i, rank in enumerate(ranks)]
    places = [[*batch[0], *free[0]], [*batch[1], *[-1] * len(free[0]), *free[1]]]
    return reach.joined(
        reach.renamed(
            reach.summed(taken[i], contracted[i]), {axis: place for place, axis in enumerate(places[i]) if axis >= 0}
        )
        for i in (0, 1)
    )


def convolved(equation: Any, taken: list[Reach]) -> Reach:
    """Windows of the kernel; all channels that are summed. Not known where the input is spread apart."""
    params, numbers = equation.params, equation.params["dimension_numbers"]
    if taken[1] != () or any(spread != 1 for spread in params["lhs_dilation"]):
        return None
    seen = reach.summed(taken[0], [numbers.lhs_spec[1]])
    for i, axis in enumerate(numbers.lhs_spec[2:]):
        slide = Slide(
            length=shape(equation.invars[0])[axis],
            places=shape(equation.outvars[0])[numbers.out_spec[2 + i]],
            taps=shape(equation.invars[1])[numbers.rhs_spec[2 + i]],
            step=params["window_strides"][i],
            spread=params["rhs_dilation"][i],
            before=params["padding"][i][0],
        )
        seen = reach.slid(seen, axis, slide)
    return reach.renamed(seen, dict(zip(numbers.lhs_spec, numbers.out_spec, strict=True)))


def pooled(equation: Any, taken: list[Reach]) -> Reach:
    """Windows of a pooling."""
    params, seen = equation.params, taken[0]
    if any(spread != 1 for spread in params["base_dilation"]):
        return None
    for axis, taps in enumerate(params["window_dimensions"]):
        step, (before, after) = params["window_strides"][axis], params["padding"][axis]
        if (taps, step, before, after) != (1, 1, 0, 0):
            length, places = shape(equation.invars[0])[axis], shape(equation.outvars[0])[axis]
            spread = params["window_dilation"][axis]
            seen = reach.slid(seen, axis, Slide(length, places, taps, step, spread, before))
    return seen


RULES: dict[str, Callable[[Any, list[Reach]], Reach]] = {
    "broadcast_in_dim": broadcast,
    "concatenate": concatenated,
    "conv_general_dilated": convolved,
    "dot_general": multiplied,
    "pad": padded,
    "reshape": reshaped,
    "slice": sliced,
    "squeeze": squeezed,
    "transpose": transposed,
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "argmax", "argmin"), reduced),
    **dict.fromkeys(("reduce_window_sum", "reduce_window_max", "reduce_window_min"), pooled),
}
