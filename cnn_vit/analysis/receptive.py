"""Receptive fields: which pixels of the image each layer's elements see, followed through the network's program.

The program is a jaxpr, a list of primitive operations (`analysis/program`). It is walked once from the image to the
scores, for the rows of the image and then for its columns. Each operation has a rule here that says what it does to the
ranges of pixels that `analysis/reach` calculates with. A small network, on an image of 32 rows:

    conv_general_dilated    3 taps, stride 2, padding 1     row y sees the 3 rows from 2 * y - 1 on
    max                     with 0, the ReLU                row y sees the same; the 0 sees nothing
    reduce_sum              over rows and columns           one element for each channel, which sees all 32 rows

So it does not matter where in a network an operation stands, or in which form a layer is written. An operation that no
rule knows leads to "not known", never to a guess. Where every element sees the same pixels already, no operation can
add to them.

This is the theoretical receptive field: all pixels that can have any influence at all.
"""

from collections.abc import Callable
from itertools import accumulate
from typing import Any, NamedTuple

from jax.extend import core

from cnn_vit.analysis import reach
from cnn_vit.analysis.program import Program, call_number, inner_jaxprs
from cnn_vit.analysis.reach import Reach, SlidingWindow

SIDES = (0, 1)  # rows and columns; along side i of the image runs axis 1 + i of a batch (B, H, W, C)


class CallReach(NamedTuple):
    """What the elements of one call of a layer see, each as (reach along the rows, reach along the columns).

    Attributes:
        inputs: the reach of the call's first input that sees anything.
        outputs: the reach of what the call returns.
    """

    inputs: tuple[Reach, Reach]
    outputs: tuple[Reach, Reach]


class Field(NamedTuple):
    """One side of a receptive field, as papers print it.

    Attributes:
        size: the pixels that an element sees in an image that is large enough; 0 where it sees none, and None where it
            sees all there are.
        stride: the pixels between the fields of neighbors; None where all elements see the same.
    """

    size: int | None
    stride: int | None


Reaches = dict[int, tuple[Reach, Reach]]  # by number of the call: along one side, what its inputs and outputs see


def follow_program(program: Program) -> dict[int, CallReach]:
    """Returns what the inputs and outputs of each call see, by the number of the call."""
    _, height, width, _ = shape(program.jaxpr.invars[-1])
    by_side: list[Reaches] = []
    for side, pixels in zip(SIDES, (height, width), strict=True):
        reaches_of_calls: Reaches = {}
        # The program takes parameters and statistics, which see no pixel, and the images last.
        parameter_reaches: list[Reach] = [()] * (len(program.jaxpr.invars) - 1)
        image_reach = reach.image_reach(1 + side, pixels)
        follow_jaxpr(program.jaxpr, [*parameter_reaches, image_reach], reaches_of_calls)
        by_side.append(reaches_of_calls)
    rows, columns = by_side
    return {call: CallReach(*zip(rows[call], columns[call], strict=True)) for call in rows}


def summarize_field(pixels_seen: Reach, pixels: int) -> Field | None:
    """Returns the receptive field along a side of the image; None where it is not known.

    Args:
        pixels_seen: the reach of an array along that side.
        pixels: the image's pixels along that side.
    """
    # Several ranges that move differently have no single size and stride.
    if pixels_seen is None or len(pixels_seen) > 1:
        return None
    if not pixels_seen:
        return Field(0, None)
    (pixel_range,) = pixels_seen
    if pixel_range.digits:
        # The smallest stride belongs to the nearest neighbors, as those in one row of patches.
        return Field(pixel_range.size, min(digit.stride for digit in pixel_range.digits))
    first, end = pixel_range.extent
    return Field(None if (first, end) == (0, pixels) else end - first, None)


def follow_jaxpr(jaxpr: core.Jaxpr, input_reaches: list[Reach], reaches_of_calls: Reaches) -> list[Reach]:
    """Returns what the outputs of a program see.

    Args:
        jaxpr: the program.
        input_reaches: what its inputs see.
        reaches_of_calls: receives what each call on the way sees.
    """
    by_variable: dict[Any, Reach] = dict(zip(jaxpr.invars, input_reaches, strict=True))

    def look_up(variable: Any) -> Reach:
        # Literals (numbers in the program) and constants see no pixel.
        return () if isinstance(variable, core.Literal) else by_variable.get(variable, ())

    for equation in jaxpr.eqns:
        inputs = [look_up(variable) for variable in equation.invars]
        outputs = follow_equation(equation, inputs, reaches_of_calls)
        by_variable.update(zip(equation.outvars, outputs, strict=True))
        call = call_number(equation)
        if call is not None:
            reaches_of_calls[call] = first_that_sees(inputs), outputs[0]
    return [look_up(variable) for variable in jaxpr.outvars]


def first_that_sees(reaches: list[Reach]) -> Reach:
    """Returns the first reach that is not empty: that of the images or features, for parameters see nothing."""
    for candidate in reaches:
        if candidate != ():
            return candidate
    return ()


def follow_equation(equation: Any, inputs: list[Reach], reaches_of_calls: Reaches) -> list[Reach]:
    """Returns what each output of an equation sees."""
    name, outputs = equation.primitive.name, equation.outvars
    if all(input_reach == () for input_reach in inputs) and call_number(equation) is None:
        return [()] * len(outputs)  # arithmetic on parameters alone
    if name in INNER_PROGRAMS:
        programs = [jaxpr for parameter, jaxpr in inner_jaxprs(equation) if parameter in INNER_PROGRAMS[name]]
        (program,) = programs
        return follow_jaxpr(program, inputs, reaches_of_calls)
    if name == "cond":
        # The first input says which branch runs. Any branch may, so an output sees what it sees in any of them.
        branches = [follow_jaxpr(jaxpr, inputs[1:], reaches_of_calls) for _, jaxpr in inner_jaxprs(equation)]
        return [reach.join_reaches(alternatives) for alternatives in zip(*branches, strict=True)]
    if name in RULES:
        return [RULES[name](equation, inputs)] * len(outputs)
    joined = reach.join_reaches(inputs)
    if name in ELEMENTWISE or is_the_same_everywhere(joined):
        return [joined] * len(outputs)
    return [None] * len(outputs)


def is_the_same_everywhere(pixels_seen: Reach) -> bool:
    """Whether all elements of an array see the same pixels; then any mixture of them sees these too."""
    if pixels_seen is None:
        return False
    return not any(pixel_range.digits for pixel_range in pixels_seen)


# Equations that run one inner program on their own inputs: the names under which they may hold it.
INNER_PROGRAMS = {
    "jit": ("jaxpr",), "pjit": ("jaxpr",), "closed_call": ("call_jaxpr",), "core_call": ("call_jaxpr",),
    "remat2": ("jaxpr",), "checkpoint": ("jaxpr",), "custom_jvp_call": ("call_jaxpr",),
    "custom_vjp_call": ("call_jaxpr", "fun_jaxpr"),
}  # fmt: skip

# Operations on each element by itself. An output sees what the elements at the same place of all inputs see; these
# inputs have one shape, or are scalars.
ELEMENTWISE = {
    "abs", "add", "add_any", "and", "cbrt", "ceil", "clamp", "convert_element_type", "copy", "copy_p", "cos", "cosh",
    "div", "eq", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "integer_pow", "is_finite",
    "le", "log", "log1p", "logistic", "lt", "max", "min", "mul", "ne", "neg", "nextafter", "not",
    "optimization_barrier", "or", "pow", "real", "reduce_precision", "rem", "round", "rsqrt", "select_n", "sign",
    "sin", "sinh", "sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "xor",
}  # fmt: skip


# Rules: each takes an equation and what its inputs see, and returns what its output sees; None is "not known"


def shape(variable: Any) -> tuple[int, ...]:
    """The shape of the array that a variable of a program stands for."""
    return variable.aval.shape


def follow_broadcast(equation: Any, inputs: list[Reach]) -> Reach:
    """Broadcasting moves each axis to its new place. Along an axis that it repeats, every index sees the same."""
    input_shape, output_shape = shape(equation.invars[0]), shape(equation.outvars[0])
    new_axes = {}
    for axis, new_axis in enumerate(equation.params["broadcast_dimensions"]):
        if input_shape[axis] == output_shape[new_axis]:
            new_axes[axis] = new_axis
    return reach.move_axes(inputs[0], new_axes)


def follow_reshape(equation: Any, inputs: list[Reach]) -> Reach:
    """A reshape leaves the ranges as they are; the digits that move them are read from other axes."""
    return reach.reshape(inputs[0], shape(equation.invars[0]), shape(equation.outvars[0]))


def follow_squeeze(equation: Any, inputs: list[Reach]) -> Reach:
    """Squeezing takes axes of one index away; the others move up."""
    return reach.move_axes(inputs[0], close_ranks(shape(equation.invars[0]), equation.params["dimensions"]))


def close_ranks(input_shape: tuple[int, ...], removed_axes: tuple[int, ...]) -> dict[int, int]:
    """Returns the new place of each axis that is left when some are removed: {old axis: new axis}."""
    left = [axis for axis in range(len(input_shape)) if axis not in removed_axes]
    return {axis: new_axis for new_axis, axis in enumerate(left)}


def follow_transpose(equation: Any, inputs: list[Reach]) -> Reach:
    """A transpose exchanges axes, and the digits go with them."""
    return reach.move_axes(inputs[0], {axis: new_axis for new_axis, axis in enumerate(equation.params["permutation"])})


def follow_slice(equation: Any, inputs: list[Reach]) -> Reach:
    """A slice begins later along each axis, and with a step its ranges lie further apart, as if through one tap."""
    output_reach = inputs[0]
    input_shape, output_shape = shape(equation.invars[0]), shape(equation.outvars[0])
    steps = equation.params["strides"] or [1] * len(input_shape)
    for axis, (first, step) in enumerate(zip(equation.params["start_indices"], steps, strict=True)):
        length, output_length = input_shape[axis], output_shape[axis]
        if step == 1 and length != output_length:
            output_reach = reach.pad_or_crop(output_reach, axis, length, -first, output_length)
        elif step != 1:
            window = SlidingWindow(length, output_length, stride=step, before=-first)
            output_reach = reach.slide_window(output_reach, axis, window)
    return output_reach


def follow_pad(equation: Any, inputs: list[Reach]) -> Reach:
    """Padding adds elements that see no pixel before and after; not known where it puts them in between."""
    output_reach, padding_value = inputs
    input_shape, output_shape = shape(equation.invars[0]), shape(equation.outvars[0])
    for axis, (before, after, between) in enumerate(equation.params["padding_config"]):
        if between:
            return None
        if before or after:
            output_reach = reach.pad_or_crop(output_reach, axis, input_shape[axis], before, output_shape[axis])
    return reach.join_reaches([output_reach, padding_value])


def follow_concatenate(equation: Any, inputs: list[Reach]) -> Reach:
    """Arrays one behind the other: each is padded by the lengths of the others, and elements see what they saw."""
    axis = equation.params["dimension"]
    output_length = shape(equation.outvars[0])[axis]
    lengths = [shape(variable)[axis] for variable in equation.invars]
    starts = [0, *accumulate(lengths)][:-1]
    placed = [
        reach.pad_or_crop(input_reach, axis, length, start, output_length)
        for input_reach, length, start in zip(inputs, lengths, starts, strict=True)
    ]
    return reach.join_reaches(placed)


def follow_reduction(equation: Any, inputs: list[Reach]) -> Reach:
    """A sum or maximum over axes sees what every element along these axes saw together; the other axes move up."""
    axes = equation.params["axes"]
    return reach.move_axes(reach.sum_over_axes(inputs[0], axes), close_ranks(shape(equation.invars[0]), axes))


def follow_matrix_product(equation: Any, inputs: list[Reach]) -> Reach:
    """A matrix product sums over the contracted axes of both inputs, and sees what either saw there.

    The output's axes are the batch axes, then the free axes (neither contracted nor batch) of the left input, then
    those of the right one.
    """
    (left_contracted, right_contracted), (left_batch, right_batch) = equation.params["dimension_numbers"]
    left_free = free_axes(equation.invars[0], (*left_contracted, *left_batch))
    right_free = free_axes(equation.invars[1], (*right_contracted, *right_batch))
    left_axes = {axis: new_axis for new_axis, axis in enumerate([*left_batch, *left_free])}
    right_axes = {axis: new_axis for new_axis, axis in enumerate(right_batch)}
    right_offset = len(left_batch) + len(left_free)
    right_axes |= {axis: right_offset + position for position, axis in enumerate(right_free)}
    left = reach.move_axes(reach.sum_over_axes(inputs[0], left_contracted), left_axes)
    right = reach.move_axes(reach.sum_over_axes(inputs[1], right_contracted), right_axes)
    return reach.join_reaches([left, right])


def free_axes(variable: Any, bound_axes: tuple[int, ...]) -> list[int]:
    """Returns the axes of an array that are not among the bound ones."""
    return [axis for axis in range(len(shape(variable))) if axis not in bound_axes]


def follow_convolution(equation: Any, inputs: list[Reach]) -> Reach:
    """A convolution sees through the window of its kernel along each side, and sums over all channels.

    Not known where the kernel depends on pixels, or where the input is spread apart (a transposed convolution).
    """
    params, numbers = equation.params, equation.params["dimension_numbers"]
    if inputs[1] != () or any(dilation != 1 for dilation in params["lhs_dilation"]):
        return None
    input_shape, kernel_shape = shape(equation.invars[0]), shape(equation.invars[1])
    output_shape = shape(equation.outvars[0])
    # Each specification lists axes: (batch, channels, sides ...), of the kernel (filters, channels, sides ...).
    input_axes, kernel_axes, output_axes = numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec
    # With groups each filter reads a part of the channels. These see the same pixels as the others, unless a reshape
    # has moved pixels into the channels; then this is too much, never too little.
    output_reach = reach.sum_over_axes(inputs[0], [input_axes[1]])
    for i, axis in enumerate(input_axes[2:]):
        window = SlidingWindow(
            length=input_shape[axis],
            output_size=output_shape[output_axes[2 + i]],
            taps=kernel_shape[kernel_axes[2 + i]],
            stride=params["window_strides"][i],
            dilation=params["rhs_dilation"][i],
            before=params["padding"][i][0],
        )
        output_reach = reach.slide_window(output_reach, axis, window)
    return reach.move_axes(output_reach, dict(zip(input_axes, output_axes, strict=True)))


def follow_pooling(equation: Any, inputs: list[Reach]) -> Reach:
    """A pooling sees through its window along every axis; not known where the input is spread apart."""
    params, output_reach = equation.params, inputs[0]
    input_shape, output_shape = shape(equation.invars[0]), shape(equation.outvars[0])
    if any(dilation != 1 for dilation in params["base_dilation"]):
        return None
    for axis, taps in enumerate(params["window_dimensions"]):
        stride, (before, after) = params["window_strides"][axis], params["padding"][axis]
        # A window of one tap does nothing. It is left out because a slide along an axis of tokens is not known.
        if (taps, stride, before, after) != (1, 1, 0, 0):
            dilation = params["window_dilation"][axis]
            window = SlidingWindow(input_shape[axis], output_shape[axis], taps, stride, dilation, before)
            output_reach = reach.slide_window(output_reach, axis, window)
    return output_reach


RULES: dict[str, Callable[[Any, list[Reach]], Reach]] = {
    "broadcast_in_dim": follow_broadcast,
    "concatenate": follow_concatenate,
    "conv_general_dilated": follow_convolution,
    "dot_general": follow_matrix_product,
    "pad": follow_pad,
    "reshape": follow_reshape,
    "slice": follow_slice,
    "squeeze": follow_squeeze,
    "transpose": follow_transpose,
    **dict.fromkeys(
        ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "argmax", "argmin"),
        follow_reduction,
    ),
    **dict.fromkeys(("reduce_window_sum", "reduce_window_max", "reduce_window_min"), follow_pooling),
}
