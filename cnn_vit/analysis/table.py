"""A network as a table: each layer's output, parameters, products, bytes, receptive field and stride, in closed form.

    describe("resnet/50").macs                          4,089,184,256
    describe("vit/B16", 384, num_classes=10).rows       a row per layer

A row is a layer of `nn`, a module that holds parameters or calls nothing else, or a parameter that a module with layers
inside holds itself (a class token). What does nothing in evaluation (dropout) has no row. The rows' parameters and
products add up to the network's.
"""

import inspect
import math
from typing import Any, NamedTuple

from flax import nnx

from cnn_vit import models
from cnn_vit.analysis import flops, receptive
from cnn_vit.analysis.flops import Factor, Formula
from cnn_vit.analysis.program import Program, traced
from cnn_vit.analysis.receptive import Field, Seen
from cnn_vit.errors import UserError, unknown
from cnn_vit.trees import shapes_by_path

SMALL = 64  # pixels a side: of networks that are at home in smaller ones, 10 classes are shown, of others ImageNet's
DTYPES = ("float32", "bfloat16")


class Row(NamedTuple):
    """A layer, or a parameter that a larger module holds.

    Attributes:
        path: as in `record.Call`, or the parameter's.
        kind: class or function, or "parameter".
        output: shape without the batch; None of a parameter.
        parameters, macs: formulas; `flops.value` is their number.
        activation_bytes: of the output, one image.
        field: rows and columns; None where it is not known, () of a parameter.
        call: number of the call in the program; None of a parameter.
    """

    path: str
    kind: str
    output: tuple[int, ...] | None
    parameters: Formula
    macs: Formula
    activation_bytes: int
    field: tuple[Field | None, ...]
    call: int | None


class Description(NamedTuple):
    """A described network.

    Attributes:
        model: its name, or its class.
        num_classes: scores given.
        image_shape: (H, W, C).
        dtype: in which layers compute.
        rows: in the order of their calls.
        network: itself.
        program: what was traced.
        seen: what each call sees, by number.
    """

    model: str
    num_classes: int
    image_shape: tuple[int, int, int]
    dtype: str
    rows: tuple[Row, ...]
    network: nnx.Module
    program: Program
    seen: dict[int, Seen]

    @property
    def parameters(self) -> int:
        """Learned numbers."""
        return sum(flops.value(row.parameters) for row in self.rows)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image in evaluation."""
        return sum(flops.value(row.macs) for row in self.rows)

    @property
    def activation_bytes(self) -> int:
        """Of all outputs of rows, one image."""
        return sum(row.activation_bytes for row in self.rows)

    def row(self, path: str) -> Row:
        """The row of a path; UserError with the nearest ones where there is none."""
        found = {row.path: row for row in self.rows}
        if path not in found:
            raise unknown(f"layer of {self.model}", path, found)
        return found[path]

    def to_json(self) -> dict[str, Any]:
        """As plain values. A field of "all" is the whole image, null not known; a stride of null: one for all."""
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
        network: its name, "resnet/50", or what `build` gives.
        image_size: side in pixels, or (height, width); left out, the network's own.
        num_classes: classes of a named network; left out, 10 where its own images are at most 64 pixels, else 1000.
        channels: colors of an image; left out, the network's own, or 3.
        dtype: in which layers compute, for the bytes.
        changes: keywords of a named network.

    Raises:
        UserError: a name, keyword or image size that the network does not take; something else than a network.
    """
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    if not isinstance(network, str | nnx.Module):
        raise UserError(f"{type(network).__name__} is no network; give a name such as resnet/50, or what build gives")
    if not isinstance(network, str):
        if num_classes is not None or changes:
            raise UserError("a built network has its classes and keywords already; give those to build, or a name here")
        size = image_size or getattr(network, "image_size", None)
        if size is None:
            raise UserError(f"{type(network).__name__} takes images of any size; say image_size")
        return describe_network(network, (*models.height_and_width(size), channels or 3), dtype)
    own = models.keywords(network)
    image_size = own["image_size"].default if image_size is None else image_size
    channels = own["channels"].default if channels is None else channels
    if num_classes is None:
        num_classes = 10 if max(models.height_and_width(own["image_size"].default)) <= SMALL else 1000
    built = models.build(network, num_classes, image_size=image_size, channels=channels, **changes)
    return described(built, network, (*models.height_and_width(image_size), channels), dtype)


def describe_network(network: nnx.Module, image_shape: tuple[int, int, int], dtype: str) -> Description:
    """Describes a network that is known by its class alone; UserError where it does not take such images."""
    name = type(network).__name__
    try:
        return described(network, name, image_shape, dtype)
    except (TypeError, ValueError) as error:
        shape = "x".join(map(str, image_shape))
        reason = str(error).partition("\n")[0]
        raise UserError(f"{name} does not take images of {shape}: {reason}; say image_size and channels") from error


def described(network: nnx.Module, name: str, image_shape: tuple[int, int, int], dtype: str) -> Description:
    """Describes a built network by a name."""
    program = traced(network, image_shape, dtype)
    seen = receptive.seen(program)
    own = uncounted_parameters(program)
    parents = {above for call in program.calls for above in ancestors(call.path)}
    rows: list[Row] = []
    for i, call in enumerate(program.calls):
        known = flops.key(call) in flops.PARAMETERS or flops.key(call) in flops.MACS or inspect.isroutine(call.layer)
        parameters = () if "#" in call.path else flops.parameters(call)
        if not known and call.path in parents:
            rows += [Row(path, "parameter", None, (formula,), (), 0, (), None) for path, formula in own.get(i, ())]
            continue
        parameters += tuple(formula for _, formula in own.get(i, ()))
        if i in program.idle and not parameters:
            continue
        field = tuple(receptive.field(one, side) for one, side in zip(seen[i].after, image_shape, strict=False))
        output = call.outputs.shape[1:]
        size = math.prod(output) * call.outputs.dtype.itemsize
        rows.append(Row(call.path, call.kind, output, parameters, flops.macs(call), size, field, i))
    scores = program.calls[0].outputs.shape[-1]
    return Description(name, scores, image_shape, dtype, tuple(rows), network, program, seen)


def ancestors(path: str) -> list[str]:
    """Paths above one: of "a/b/c", "", "a" and "a/b"."""
    parts = path.split("/") if path else []
    return ["/".join(parts[:end]) for end in range(len(parts))]


def uncounted_parameters(program: Program) -> dict[int, list[tuple[str, tuple[Factor, ...]]]]:
    """Parameters that no formula counts, by the number of the call that holds them: (path, its shape as factors)."""
    at = {call.path: i for i, call in reversed(list(enumerate(program.calls))) if not inspect.isroutine(call.layer)}
    found: dict[int, list[tuple[str, tuple[Factor, ...]]]] = {}
    for keys, shape in shapes_by_path(program.params).items():
        parts = list(map(str, keys))
        holder = next(at[path] for end in range(len(parts) - 1, -1, -1) if (path := "/".join(parts[:end])) in at)
        if flops.key(program.calls[holder]) not in flops.PARAMETERS:
            factors = tuple(Factor(side, f"axis {axis}") for axis, side in enumerate(shape)) or (Factor(1, "number"),)
            found.setdefault(holder, []).append(("/".join(parts), factors))
    return found


def as_json(row: Row) -> dict[str, Any]:
    """A row as plain values."""
    return {
        "path": row.path,
        "kind": row.kind,
        "output": None if row.output is None else list(row.output),
        "parameters": flops.value(row.parameters),
        "macs": flops.value(row.macs),
        "activation_bytes": row.activation_bytes,
        "receptive_field": [size_of(field) for field in row.field] or None,
        "stride": [field and field.stride for field in row.field] or None,
    }


def size_of(field: Field | None) -> int | str | None:
    """Pixels of a field, or "all"."""
    return None if field is None else "all" if field.size is None else field.size


def differences(one: Description, other: Description) -> dict[str, Any]:
    """What differs between two networks: totals, and layers by path with (one's value, the other's) of each quantity.

    A layer that only one has is None on the other side.
    """
    sides = [{row["path"]: row for row in map(as_json, each.rows)} for each in (one, other)]
    layers = []
    for path in dict.fromkeys([*sides[0], *sides[1]]):
        first, second = (side.get(path) for side in sides)
        keys = [key for key in (first or second or {}) if key != "path"]
        differs = {
            key: [row and row[key] for row in (first, second)]
            for key in keys
            if first is None or second is None or first[key] != second[key]
        }
        if differs:
            layers.append({"path": path, "in": [first is not None, second is not None], "differs": differs})
    return {
        "models": [one.model, other.model],
        "classes": [one.num_classes, other.num_classes],
        "images": [list(one.image_shape), list(other.image_shape)],
        "parameters": [one.parameters, other.parameters],
        "macs": [one.macs, other.macs],
        "activation_bytes": [one.activation_bytes, other.activation_bytes],
        "layers": layers,
    }
