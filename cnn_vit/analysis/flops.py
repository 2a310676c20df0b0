"""Parameters and multiply-accumulates (MACs) of each layer in closed form, and the products that a program makes.

The convention of published tables, whose "GFLOPs" are billions of MACs: one image, evaluation, the products of
convolutions, matrices and attention; what padding's zeros are multiplied with counts, norms, activations, pooling and
sums do not. A training step is 3 times as many, its FLOPs 6 times. XLA's `cost_analysis` is another thing: it leaves
out padded taps and counts what is elementwise.

A formula is a sum of products whose factors carry their meaning, so that the number and its words cannot differ.
"""

import inspect
import math
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from jax.extend import core

from cnn_vit.analysis.program import Program, inner, number
from cnn_vit.analysis.record import Call
from cnn_vit.nn.attention import attend
from cnn_vit.nn.conv import Conv
from cnn_vit.nn.dense import Dense
from cnn_vit.nn.norm import BatchNorm, GroupNorm, LayerNorm
from cnn_vit.nn.patches import PatchEmbed
from cnn_vit.nn.position import LearnedPositions


class Factor(NamedTuple):
    """A number and what it is a number of."""

    number: int
    meaning: str


Formula = tuple[tuple[Factor, ...], ...]


def value(formula: Formula) -> int:
    """The number that a formula gives; 0 where it has no term."""
    return sum(math.prod(factor.number for factor in term) for term in formula)


def written(formula: Formula) -> str:
    """A formula in words and numbers: `3 (rows) * 64 (filters) + 64 (biases) = 256`; "none" where it has no term."""
    terms = (" * ".join(f"{number:,} ({meaning})" for number, meaning in term) for term in formula)
    return f"{' + '.join(terms)} = {value(formula):,}" if formula else "none"


def key(call: Call) -> Any:
    """What the tables below know a layer by: its class, or the function."""
    return inspect.unwrap(call.layer) if inspect.isroutine(call.layer) else type(call.layer)


def parameters(call: Call) -> Formula:
    """Parameters of a layer that the table knows, from what it takes and gives."""
    return PARAMETERS[key(call)](call) if key(call) in PARAMETERS else ()


def macs(call: Call) -> Formula:
    """Products of a layer, one image."""
    return MACS[key(call)](call) if key(call) in MACS else ()


def shape(call: Call, name: str = "x") -> tuple[int, ...]:
    """Shape of an argument without the batch."""
    return call.inputs[name].shape[1:]


def filters(call: Call) -> tuple[Factor, ...]:
    """What a convolution has a weight for."""
    rows, columns = call.layer.kernel.shape[:2]
    read = shape(call)[-1] // call.layer.groups
    given = Factor(call.outputs.shape[-1], "filters")
    return Factor(rows, "kernel rows"), Factor(columns, "kernel columns"), Factor(read, "channels each reads"), given


def biases(call: Call) -> Formula:
    """One for each feature given, where the layer has any."""
    return () if call.layer.bias is None else ((Factor(call.outputs.shape[-1], "biases"),),)


def conv_macs(call: Call) -> Formula:
    """A product for each weight at each place."""
    height, width = call.outputs.shape[1:3]
    return ((Factor(height, "rows given"), Factor(width, "columns given"), *filters(call)),)


def matrix(call: Call) -> tuple[Factor, ...]:
    """What a dense layer has a weight for."""
    return Factor(shape(call)[-1], "inputs"), Factor(call.outputs.shape[-1], "outputs")


def dense_macs(call: Call) -> Formula:
    """A product for each weight and token; an image's features are one token."""
    tokens = math.prod(shape(call)[:-1])
    return ((Factor(tokens, "tokens"), *matrix(call)),) if len(shape(call)) > 1 else (matrix(call),)


def patch(call: Call) -> tuple[Factor, ...]:
    """What a patch embedding has a weight for."""
    side = call.layer.patch
    channels = Factor(shape(call)[-1], "channels")
    return Factor(side, "patch rows"), Factor(side, "patch columns"), channels, Factor(call.outputs.shape[-1], "width")


def norm(call: Call) -> Formula:
    """A scale and a bias for each channel; running statistics are no parameters."""
    return ((Factor(2, "scale and bias"), Factor(shape(call)[-1], "channels")),)


def positions(call: Call) -> Formula:
    """A row for each token."""
    tokens, width = shape(call)
    return ((Factor(tokens, "tokens"), Factor(width, "width")),)


def attend_macs(call: Call) -> Formula:
    """Each head scores every pair of a token that reads and one that is read, and sums the values by the scores."""
    readers, heads, width = shape(call, "q")
    pairs = Factor(heads, "heads"), Factor(readers, "tokens that read"), Factor(shape(call, "k")[0], "tokens read")
    return (*pairs, Factor(width, "width of a score's sum")), (*pairs, Factor(width, "values each"))


PARAMETERS: dict[Any, Callable[[Call], Formula]] = {
    Conv: lambda call: (filters(call), *biases(call)),
    Dense: lambda call: (matrix(call), *biases(call)),
    PatchEmbed: lambda call: (patch(call), *biases(call)),
    BatchNorm: norm,
    GroupNorm: norm,
    LayerNorm: norm,
    LearnedPositions: positions,
}
MACS: dict[Any, Callable[[Call], Formula]] = {
    Conv: conv_macs,
    Dense: dense_macs,
    PatchEmbed: lambda call: ((Factor(call.outputs.shape[1], "patches"), *patch(call)),),
    inspect.unwrap(attend): attend_macs,
}


# The second way: what the program does

HIDING = ("while", "pallas_call", "ffi_call", "ragged_dot_general")  # products that a walk cannot count


def products(program: Program) -> Counter[int | None]:
    """Products of each call's own equations, those of the layers inside it left to them; None holds any outside all."""
    return walked(program.jaxpr, None)


def walked(jaxpr: core.Jaxpr, owner: int | None) -> Counter[int | None]:
    """Products of a program by the call they belong to.

    Raises:
        ValueError: an equation that may hide products.
    """
    found: Counter[int | None] = Counter()
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        call = number(equation)
        parts = [walked(one, owner if call is None else call) for _, one in inner(equation)]
        if name in HIDING:
            raise ValueError(f"the products inside {name!r} cannot be counted")
        if name == "cond":  # forms of one thing, or a branch not taken: the dearest
            parts = [max(parts, key=Counter.total)]
        times = equation.params["length"] if name == "scan" else 1
        for part in parts:
            found.update({one: times * count for one, count in part.items()})
        found[owner] += own_products(equation)
    return found


def own_products(equation: Any) -> int:
    """Products of a matrix product or convolution: numbers given times numbers summed for each."""
    given = math.prod(equation.outvars[0].aval.shape) if equation.outvars else 0
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return given * math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
    if equation.primitive.name == "conv_general_dilated":
        kernel, (outputs, *_) = equation.invars[1].aval.shape, equation.params["dimension_numbers"].rhs_spec
        return given * math.prod(kernel) // kernel[outputs]
    return 0
