"""Describes a network as a table: output, parameters, MACs, bytes, receptive field and stride of each layer.

    describe("resnet/50").macs                          4,089,184,256
    describe("vit/B16", 384, num_classes=10).rows       a row for each layer

A row stands for a layer of `nn`, for a module that holds parameters or calls no other layer, or for a parameter that a
module with layers inside holds itself (a class token). What does nothing in evaluation (dropout) has no row. The
parameters and MACs of the rows add up to those of the network. All numbers come from shapes and formulas; the network
is traced, but nothing is computed or compiled.
"""

import inspect
import math
from dataclasses import dataclass
from typing import Any

from flax import nnx

from cnn_vit import models
from cnn_vit.analysis import flops, receptive
from cnn_vit.analysis.flops import Factor, Formula, Term
from cnn_vit.analysis.program import Program, trace_network
from cnn_vit.analysis.receptive import CallReach, Field
from cnn_vit.analysis.record import Call
from cnn_vit.errors import UserError, unknown
from cnn_vit.trees import shapes_by_path

SMALL = 64  # pixels a side: a network for images up to this size is shown with 10 classes, a larger one with ImageNet's
DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class Row:
    """A layer, or a parameter that a larger module holds.

    Attributes:
        path: the path of the layer's call, as in `record.Call`, or that of the parameter.
        kind: the name of the layer's class or function, or "parameter".
        output: the shape of the output without the batch; None for a parameter.
        parameters: the formula for the number of parameters; `flops.compute_formula` gives the number.
        macs: the formula for the MACs of one image.
        activation_bytes: the size of the output for one image, in bytes.
        field: the receptive field along the rows and the columns, each None where it is not known; () for a parameter.
        call: the number of the call in the program; None for a parameter.
    """

    path: str
    kind: str
    output: tuple[int, ...] | None
    parameters: Formula
    macs: Formula
    activation_bytes: int
    field: tuple[Field | None, ...]
    call: int | None


@dataclass(frozen=True, repr=False)
class Description:
    """A described network.

    Attributes:
        model: the network's name, or the name of its class.
        num_classes: how many scores it gives.
        image_shape: the shape (H, W, C) of the images.
        dtype: the dtype in which layers compute.
        rows: the rows of the table, in the order of the calls.
        network: the network itself.
        program: the program that was traced.
        reaches: what the inputs and outputs of each call see, by the number of the call.
    """

    model: str
    num_classes: int
    image_shape: tuple[int, int, int]
    dtype: str
    rows: tuple[Row, ...]
    network: nnx.Module
    program: Program
    reaches: dict[int, CallReach]

    @property
    def parameters(self) -> int:
        """The number of parameters."""
        return sum(flops.compute_formula(row.parameters) for row in self.rows)

    @property
    def macs(self) -> int:
        """The multiply-accumulates of one image in evaluation."""
        return sum(flops.compute_formula(row.macs) for row in self.rows)

    @property
    def activation_bytes(self) -> int:
        """The size of the outputs of all rows for one image, in bytes."""
        return sum(row.activation_bytes for row in self.rows)

    def row(self, path: str) -> Row:
        """Returns the row of a path; raises UserError with the nearest paths where there is none."""
        by_path = {row.path: row for row in self.rows}
        if path not in by_path:
            raise unknown(f"layer of {self.model}", path, by_path)
        return by_path[path]

    def to_json(self) -> dict[str, Any]:
        """Returns the description as plain values.

        A receptive field of "all" is the whole image, and one of null is not known. A stride is null where all elements
        see the same pixels.
        """
        return {
            "model": self.model,
            "classes": self.num_classes,
            "image": list(self.image_shape),
            "dtype": self.dtype,
            "parameters": self.parameters,
            "macs": self.macs,
            "activation_bytes": self.activation_bytes,
            "layers": [as_json(row) for row in self.rows],
        }

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.image_shape))
        return f"<{self.model} on {shape}: {self.parameters:,} parameters, {self.macs:,} MACs, {len(self.rows)} rows>"


def describe(
    network: str | nnx.Module,
    image_size: int | tuple[int, int] | None = None,
    *,
    num_classes: int | None = None,
    channels: int | None = None,
    dtype: str = "float32",
    **changes: Any,
) -> Description:
    """Describes a network. Nothing is computed or compiled.

    Args:
        network: its name, "resnet/50", or a network that `build` returned.
        image_size: side in pixels, or (height, width); left out, the network's own.
        num_classes: classes of a named network; left out, 10 where its own images are at most 64 pixels, else 1000.
        channels: colors of an image; left out, the network's own, or 3.
        dtype: the dtype in which layers compute, for the bytes.
        changes: keywords of a named network.

    Raises:
        UserError: the network does not take this name, keyword or image size, or it is not a network.
    """
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    if not isinstance(network, str | nnx.Module):
        raise UserError(
            f"{type(network).__name__} is not a network; give a name such as resnet/50, or what build gives"
        )
    if not isinstance(network, str):
        if num_classes is not None or changes:
            raise UserError("a built network has its classes and keywords already; give those to build, or a name here")
        size = image_size or getattr(network, "image_size", None)
        if size is None:
            raise UserError(f"{type(network).__name__} takes images of any size; say image_size")
        return describe_built(network, (*models.height_and_width(size), channels or 3), dtype)
    keywords = models.keywords(network)
    image_size = keywords["image_size"].default if image_size is None else image_size
    channels = keywords["channels"].default if channels is None else channels
    if num_classes is None:
        # The size that the network is usually built for decides, not the size that is asked for.
        usual_size = models.height_and_width(keywords["image_size"].default)
        num_classes = 10 if max(usual_size) <= SMALL else 1000
    built = models.build(network, num_classes, image_size=image_size, channels=channels, **changes)
    return describe_traced(built, network, (*models.height_and_width(image_size), channels), dtype)


def describe_built(network: nnx.Module, image_shape: tuple[int, int, int], dtype: str) -> Description:
    """Describes a network that has no name but that of its class.

    Raises:
        UserError: the network does not take such images.
    """
    name = type(network).__name__
    try:
        return describe_traced(network, name, image_shape, dtype)
    except (TypeError, ValueError) as error:
        shape = "x".join(map(str, image_shape))
        reason = str(error).partition("\n")[0]
        raise UserError(f"{name} does not take images of {shape}: {reason}; say image_size and channels") from error


def describe_traced(network: nnx.Module, name: str, image_shape: tuple[int, int, int], dtype: str) -> Description:
    """Traces a network and describes it under a name."""
    program = trace_network(network, image_shape, dtype)
    reaches = receptive.follow_program(program)
    uncounted = find_uncounted_parameters(program)
    paths_with_layers_inside = {above for call in program.calls for above in paths_above(call.path)}
    rows: list[Row] = []
    for i, call in enumerate(program.calls):
        uncounted_here = uncounted.get(i, [])
        if not is_known_layer(call) and call.path in paths_with_layers_inside:
            # The layers inside have rows of their own, so only the module's own parameters are left to show.
            rows += [Row(path, "parameter", None, (term,), (), 0, (), None) for path, term in uncounted_here]
            continue
        # A second call of a layer uses the parameters of the first.
        parameters = () if "#" in call.path else flops.parameter_formula(call)
        parameters += tuple(term for _, term in uncounted_here)
        if i in program.idle_calls and not parameters:
            continue  # dropout, say
        height, width, _ = image_shape
        rows_reach, columns_reach = reaches[i].outputs
        output = call.outputs.shape[1:]
        rows.append(
            Row(
                path=call.path,
                kind=call.kind,
                output=output,
                parameters=parameters,
                macs=flops.mac_formula(call),
                activation_bytes=math.prod(output) * call.outputs.dtype.itemsize,
                field=(receptive.summarize_field(rows_reach, height), receptive.summarize_field(columns_reach, width)),
                call=i,
            )
        )
    num_classes = program.calls[0].outputs.shape[-1]  # call 0 is the network, which returns a score for each class
    return Description(name, num_classes, image_shape, dtype, tuple(rows), network, program, reaches)


def is_known_layer(call: Call) -> bool:
    """Whether a call has a row even where layers are inside: a formula knows the layer, or it is a function."""
    key = flops.layer_key(call)
    return key in flops.PARAMETERS or key in flops.MACS or inspect.isroutine(call.layer)


def paths_above(path: str) -> list[str]:
    """The paths of the modules around a path: of "a/b/c" these are "", "a" and "a/b"."""
    parts = path.split("/") if path else []
    return ["/".join(parts[:end]) for end in range(len(parts))]


def find_uncounted_parameters(program: Program) -> dict[int, list[tuple[str, Term]]]:
    """Finds the parameters that no formula counts.

    Returns:
        For each call that holds such parameters, by its number: the path of each, with its shape as factors.
    """
    number_of_path: dict[str, int] = {}
    for i, call in enumerate(program.calls):
        if not inspect.isroutine(call.layer):  # a function holds no parameters
            number_of_path.setdefault(call.path, i)
    uncounted: dict[int, list[tuple[str, Term]]] = {}
    for keys, shape in shapes_by_path(program.params).items():
        path = "/".join(map(str, keys))
        # The innermost module that was called holds it: a module that nobody called leaves it to the one around it.
        holder_path = next(above for above in reversed(paths_above(path)) if above in number_of_path)
        holder = number_of_path[holder_path]
        if flops.layer_key(program.calls[holder]) in flops.PARAMETERS:
            continue  # the layer's formula counts it
        factors = tuple(Factor(size, f"axis {axis}") for axis, size in enumerate(shape))
        uncounted.setdefault(holder, []).append((path, factors or (Factor(1, "number"),)))
    return uncounted


def as_json(row: Row) -> dict[str, Any]:
    """Returns a row as plain values."""
    return {
        "path": row.path,
        "kind": row.kind,
        "output": None if row.output is None else list(row.output),
        "parameters": flops.compute_formula(row.parameters),
        "macs": flops.compute_formula(row.macs),
        "activation_bytes": row.activation_bytes,
        "receptive_field": [field_size(field) for field in row.field] or None,
        "stride": [field and field.stride for field in row.field] or None,
    }


def field_size(field: Field | None) -> int | str | None:
    """The pixels of a receptive field; "all" for the whole image, None where it is not known."""
    if field is None:
        return None
    return "all" if field.size is None else field.size


def find_differences(first: Description, second: Description) -> dict[str, Any]:
    """Compares two networks.

    Returns:
        The totals of both as plain values. Of each layer that differs: its path, and the quantities that differ, each
        as [value in the first, value in the second]. In a network that lacks the layer the value is None.
    """
    first_rows = {row.path: as_json(row) for row in first.rows}
    second_rows = {row.path: as_json(row) for row in second.rows}
    layers = []
    for path in dict.fromkeys([*first_rows, *second_rows]):  # a set would lose the order of the layers
        pair = first_rows.get(path), second_rows.get(path)
        quantities = differing_quantities(*pair)
        if quantities:
            layers.append({"path": path, "in": [row is not None for row in pair], "differs": quantities})
    return {
        "models": [first.model, second.model],
        "classes": [first.num_classes, second.num_classes],
        "images": [list(first.image_shape), list(second.image_shape)],
        "parameters": [first.parameters, second.parameters],
        "macs": [first.macs, second.macs],
        "activation_bytes": [first.activation_bytes, second.activation_bytes],
        "layers": layers,
    }


def differing_quantities(first: dict[str, Any] | None, second: dict[str, Any] | None) -> dict[str, list[Any]]:
    """Returns the quantities in which two rows of one path differ; all of them where one row is missing."""
    quantities = {}
    for key in first or second or {}:
        pair = [row and row[key] for row in (first, second)]
        if key != "path" and (first is None or second is None or pair[0] != pair[1]):
            quantities[key] = pair
    return quantities
