"""Counts parameters and multiply-accumulates (MACs): of each layer by a formula, and of a traced program one by one.

The convention is that of published tables, whose "GFLOPs" are billions of MACs. They count one image in evaluation, and
of it the products of convolutions, matrix products and attention. Products with the zeros of padding count; norms,
activations, pooling and sums do not. A training step costs 3 times as many MACs, and 6 times as many FLOPs. XLA's
`cost_analysis` counts something else: it leaves out padded taps and counts elementwise operations.

A formula is a sum of products whose factors carry their meaning, so that the number and its words cannot differ. A
convolution with 3x3 kernels, 128 channels and 128 filters, whose output has 28x28 pixels, has one product for each
weight at each pixel of the output:

    parameters    3 (kernel rows) * 3 (kernel columns) * 128 (channels) * 128 (filters) = 147,456
    MACs          28 (output rows) * 28 (output columns) * 3 * 3 * 128 * 128            = 115,605,504
"""

import inspect
import math
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from jax.extend import core

from cnn_vit.analysis.program import Program, call_number, inner_jaxprs
from cnn_vit.analysis.record import Call
from cnn_vit.nn.attention import attend
from cnn_vit.nn.conv import Conv, WindowDense
from cnn_vit.nn.dense import Dense
from cnn_vit.nn.local import LocalConv
from cnn_vit.nn.norm import BatchNorm, GroupNorm, LayerNorm
from cnn_vit.nn.patches import PatchEmbed
from cnn_vit.nn.position import LearnedPositions


class Factor(NamedTuple):
    """A number with what it is a number of, such as 64 filters."""

    number: int
    meaning: str


Term = tuple[Factor, ...]  # factors that are multiplied
Formula = tuple[Term, ...]  # terms that are added


def compute_formula(formula: Formula) -> int:
    """Computes the number that a formula stands for; 0 where it has no term."""
    return sum(math.prod(factor.number for factor in term) for term in formula)


def formula_text(formula: Formula) -> str:
    """A formula in words and numbers: `3 (rows) * 64 (filters) + 64 (biases) = 256`; "none" where it has no term."""
    if not formula:
        return "none"
    terms = []
    for term in formula:
        terms.append(" * ".join(f"{factor.number:,} ({factor.meaning})" for factor in term))
    return f"{' + '.join(terms)} = {compute_formula(formula):,}"


def layer_key(call: Call) -> Any:
    """The key of a layer in the tables of rules: its class, or the function without its mark as a layer."""
    return inspect.unwrap(call.layer) if inspect.isroutine(call.layer) else type(call.layer)


def parameter_formula(call: Call) -> Formula:
    """The formula for the parameters of a layer; without terms where PARAMETERS does not know the layer."""
    rule = PARAMETERS.get(layer_key(call))
    return () if rule is None else rule(call)  # `find_uncounted_parameters` of the table counts what is left


def mac_formula(call: Call) -> Formula:
    """The formula for the MACs of a layer on one image; without terms where MACS does not know the layer."""
    rule = MACS.get(layer_key(call))
    return () if rule is None else rule(call)


# Rules: each takes a call and reads the shapes that its formula needs


def input_shape(call: Call, name: str = "x") -> tuple[int, ...]:
    """The shape of an argument without the batch axis."""
    return call.inputs[name].shape[1:]


def conv_weights(call: Call) -> Term:
    """A convolution has a weight for each tap of its kernel, channel that a filter reads, and filter."""
    rows, columns = call.layer.kernel.shape[:2]
    return (
        Factor(rows, "kernel rows"),
        Factor(columns, "kernel columns"),
        Factor(input_shape(call)[-1] // call.layer.groups, "channels that each filter reads"),
        Factor(call.outputs.shape[-1], "filters"),
    )


def biases(call: Call) -> Formula:
    """A layer that has biases has one for each feature of its output."""
    return () if call.layer.bias is None else ((Factor(call.outputs.shape[-1], "biases"),),)


def conv_parameters(call: Call) -> Formula:
    """A convolution's parameters are its weights and biases."""
    return (conv_weights(call), *biases(call))


def conv_macs(call: Call) -> Formula:
    """A convolution multiplies each weight once for each pixel of its output."""
    height, width = call.outputs.shape[1:3]
    return ((Factor(height, "output rows"), Factor(width, "output columns"), *conv_weights(call)),)


def local_weights(call: Call) -> Term:
    """A locally connected layer has the weights of a convolution once for each place of its output."""
    height, width, rows, columns, channels, filters = call.layer.kernel.shape
    return (
        Factor(height, "output rows"),
        Factor(width, "output columns"),
        Factor(rows, "kernel rows"),
        Factor(columns, "kernel columns"),
        Factor(channels, "channels that each filter reads"),
        Factor(filters, "filters"),
    )


def local_parameters(call: Call) -> Formula:
    """A locally connected layer's parameters are its weights, and a bias for each filter of each place."""
    if call.layer.bias is None:
        return (local_weights(call),)
    height, width, filters = call.layer.bias.shape
    return local_weights(call), (
        Factor(height, "output rows"),
        Factor(width, "output columns"),
        Factor(filters, "biases"),
    )


def local_macs(call: Call) -> Formula:
    """A locally connected layer multiplies each weight once."""
    return (local_weights(call),)


def dense_weights(call: Call) -> Term:
    """A dense layer has a weight for each pair of an input feature and an output feature."""
    return Factor(input_shape(call)[-1], "inputs"), Factor(call.outputs.shape[-1], "outputs")


def dense_parameters(call: Call) -> Formula:
    """A dense layer's parameters are its weights and biases."""
    return (dense_weights(call), *biases(call))


def dense_macs(call: Call) -> Formula:
    """A dense layer multiplies each weight once for each token, or once where its input is one vector for the image."""
    token_shape = input_shape(call)[:-1]
    if not token_shape:
        return (dense_weights(call),)
    return ((Factor(math.prod(token_shape), "tokens"), *dense_weights(call)),)


def patch_weights(call: Call) -> Term:
    """A patch embedding has a weight for each number of a patch and each feature of a token."""
    side = call.layer.patch
    return (
        Factor(side, "patch rows"),
        Factor(side, "patch columns"),
        Factor(input_shape(call)[-1], "channels"),
        Factor(call.outputs.shape[-1], "width"),
    )


def patch_parameters(call: Call) -> Formula:
    """A patch embedding's parameters are its weights and biases."""
    return (patch_weights(call), *biases(call))


def patch_macs(call: Call) -> Formula:
    """A patch embedding multiplies each weight once for each patch."""
    return ((Factor(call.outputs.shape[1], "patches"), *patch_weights(call)),)


def norm_parameters(call: Call) -> Formula:
    """A norm has a scale and a bias for each channel; running statistics are not parameters."""
    return ((Factor(2, "scale and bias"), Factor(input_shape(call)[-1], "channels")),)


def position_parameters(call: Call) -> Formula:
    """Learned positions are a table with a row for each token."""
    tokens, width = input_shape(call)
    return ((Factor(tokens, "tokens"), Factor(width, "width")),)


def attend_macs(call: Call) -> Formula:
    """Each head scores every pair of a query and a key, then sums the values weighted by these scores."""
    queries, heads, head_width = input_shape(call, "q")
    keys = input_shape(call, "k")[0]
    pairs = Factor(heads, "heads"), Factor(queries, "query tokens"), Factor(keys, "key tokens")
    scores = (*pairs, Factor(head_width, "head width, for the scores"))
    weighted_values = (*pairs, Factor(head_width, "head width, for the values"))
    return scores, weighted_values


PARAMETERS: dict[Any, Callable[[Call], Formula]] = {
    Conv: conv_parameters,
    WindowDense: conv_parameters,
    LocalConv: local_parameters,
    Dense: dense_parameters,
    PatchEmbed: patch_parameters,
    BatchNorm: norm_parameters,
    GroupNorm: norm_parameters,
    LayerNorm: norm_parameters,
    LearnedPositions: position_parameters,
}
MACS: dict[Any, Callable[[Call], Formula]] = {
    Conv: conv_macs,
    WindowDense: conv_macs,
    LocalConv: local_macs,
    Dense: dense_macs,
    PatchEmbed: patch_macs,
    inspect.unwrap(attend): attend_macs,
}


# The second way: count the products of the traced program

UNCOUNTABLE = ("while", "pallas_call", "ffi_call", "ragged_dot_general")  # equations whose products no walk can count


def count_program_macs(program: Program) -> Counter[int | None]:
    """Counts the MACs of each call's own equations, without those of the layers inside it; None holds any outside all.

    Raises:
        ValueError: an equation may hide products.
    """
    return count_jaxpr_macs(program.jaxpr, None)


def count_jaxpr_macs(jaxpr: core.Jaxpr, owner: int | None) -> Counter[int | None]:
    """Counts the MACs of a program by the number of the call that they belong to.

    Args:
        jaxpr: the program.
        owner: the innermost call around the program; None where there is none.

    Raises:
        ValueError: an equation may hide products.
    """
    macs: Counter[int | None] = Counter()
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        call = call_number(equation)
        inner_owner = owner if call is None else call
        inner_macs = [count_jaxpr_macs(inner, inner_owner) for _, inner in inner_jaxprs(equation)]
        if name in UNCOUNTABLE:
            raise ValueError(f"the products inside {name!r} cannot be counted")
        if name == "cond":
            # One branch runs. Branches are either forms of one computation or a branch that is not taken.
            inner_macs = [max(inner_macs, key=Counter.total)]
        # A scan holds its body once and runs it `length` times.
        repeats = equation.params["length"] if name == "scan" else 1
        for counted in inner_macs:
            macs.update({inner_call: repeats * count for inner_call, count in counted.items()})
        macs[owner] += count_equation_macs(equation)
    return macs


def count_equation_macs(equation: Any) -> int:
    """Counts the MACs of one matrix product or convolution: elements of its output times products summed for each."""
    if equation.primitive.name == "dot_general":
        # The contracted axes of the left input are those that each element of the output sums over.
        (contracted, _), _ = equation.params["dimension_numbers"]
        left_shape = equation.invars[0].aval.shape
        return math.prod(equation.outvars[0].aval.shape) * math.prod(left_shape[axis] for axis in contracted)
    if equation.primitive.name == "conv_general_dilated":
        kernel_shape = equation.invars[1].aval.shape
        filter_axis = equation.params["dimension_numbers"].rhs_spec[0]
        # A kernel holds the weights of all filters; an element of the output comes of one filter.
        weights_of_a_filter = math.prod(kernel_shape) // kernel_shape[filter_axis]
        return math.prod(equation.outvars[0].aval.shape) * weights_of_a_filter
    return 0
