"""Convolutions and dense layers one behind the other, as `nn.Sequential` and Keras' Sequential have them: cnn, mlp."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cnn_vit.transfer.suggesting.blocks import join
from cnn_vit.transfer.suggesting.layers import BIAS, KERNEL, SCALE, Layer, sort_naturally
from cnn_vit.transfer.suggesting.proposal import TORCH, Placed, Proposal, ProposedLine, find_layout, lines_of

FLAT_DOUBT = "nothing tells the order of channels, rows and columns in the flattened map, nor its sides"
STAGE_DOUBT = "nothing tells which convolutions stand between two poolings; those of the same filters are put together"

EPSILON_DOUBT = (
    "no array tells what batch norms add to the variance; cnn/* always adds 1e-5, PyTorch's default, so that a "
    "file of Keras (by default 1e-3) cannot be expressed exactly"
)
ORDER_DOUBT = (
    "no array tells whether batch norms stand before or behind the activation; cnn/* has them before it, so that "
    "others cannot be expressed"
)


@dataclass(frozen=True)
class Convolution:
    """A convolution, with the batch norm behind it.

    Attributes:
        layer: of the kernel.
        norm: the batch norm, None where there is none.
        axes: of the kernel, theirs -> ours.
        inputs, filters: channels in and out.
        side: of the kernel in pixels.
    """

    layer: Layer
    norm: Layer | None
    axes: str
    inputs: int
    filters: int
    side: int


def propose(layers: Sequence[Layer]) -> Proposal | None:
    """Proposes a chain of convolutions, then of dense layers; None where sizes do not follow one another.

    The order is that of the file, or where this gives no chain, as in files that sort names, that of the numbers.
    """
    return propose_in_order(layers) or propose_in_order(sort_naturally(layers))


def propose_in_order(layers: Sequence[Layer]) -> Proposal | None:
    """Proposes a chain of layers in their order."""
    layout, layout_fact = find_layout(layers)
    convolutions = read_convolutions(layers)
    if convolutions is None:
        return None
    placed = [part for conv in convolutions for part in (conv.layer, conv.norm) if part is not None]
    matrices = [layer for layer in layers if layer.is_dense]
    rest = [layer for layer in layers if layer not in placed and layer not in matrices]
    unplaced = [name for layer in rest for name in layer.names.values()]
    start = convolutions[-1].filters if convolutions else None
    chain = read_chain(matrices, layout, start)
    if not chain:
        return None
    if convolutions:
        return propose_cnn(convolutions, chain, layout, layout_fact, unplaced)
    return propose_mlp(chain, layout, layout_fact, unplaced)


def read_convolutions(layers: Sequence[Layer]) -> list[Convolution] | None:
    """Reads a chain of convolutions in the order of the file; None where one does not take what the last one gives."""
    kernels = [layer for layer in layers if len(layer.kernel) == 4]
    norms = [layer for layer in layers if layer.is_batch_norm]
    if norms and len(norms) != len(kernels):
        return None
    chain: list[Convolution] = []
    for i, layer in enumerate(kernels):
        before = chain[-1].filters if chain else None
        reading = read_kernel(layer, before)
        if reading is None:
            return None
        axes, inputs, filters, side = reading
        norm = norms[i] if norms else None
        if norm is not None and norm.shapes[SCALE] != (filters,):
            return None
        chain.append(Convolution(layer, norm, axes, inputs, filters, side))
    return chain


def read_kernel(layer: Layer, before: int | None) -> tuple[str, int, int, int] | None:
    """Reads a square kernel: its axes, channels in and out, and side; None where it takes other channels.

    Args:
        layer: of the kernel.
        before: channels of its input; None for an image, which has 1 or 3.
    """
    shape = layer.kernel
    colors = (1, 3) if before is None else (before,)
    if shape[2] == shape[3] and shape[1] in colors:
        return "o i h w -> h w i o", shape[1], shape[0], shape[2]
    if shape[0] == shape[1] and shape[2] in colors:
        return "h w i o -> h w i o", shape[2], shape[3], shape[0]
    return None


@dataclass(frozen=True)
class Matrix:
    """A dense layer of a chain: the layer, and what goes in and comes out."""

    layer: Layer
    inputs: int
    outputs: int


def read_chain(matrices: Sequence[Layer], layout: str, start: int | None) -> list[Matrix]:
    """Reads dense layers in the order of the file; empty where one does not take what the last one gives.

    Args:
        matrices: the layers.
        layout: of their matrices.
        start: filters in front, of whose map the first one takes all pixels or the average; None for an image.
    """
    chain: list[Matrix] = []
    for layer in matrices:
        inputs, outputs = layer.kernel[::-1] if layout == TORCH else layer.kernel
        bias = layer.shapes.get(BIAS)
        if bias is not None and bias != (outputs,):
            return []
        if chain and chain[-1].outputs != inputs:
            return []
        if not chain and start is not None and inputs % start:
            return []
        chain.append(Matrix(layer, inputs, outputs))
    return chain


def group_stages(convolutions: Sequence[Convolution]) -> list[list[Convolution]]:
    """Puts convolutions of the same filters and sides behind one another into stages."""
    stages: list[list[Convolution]] = []
    for conv in convolutions:
        if stages and stages[-1][0].filters == conv.filters and stages[-1][0].side == conv.side:
            stages[-1].append(conv)
        else:
            stages.append([conv])
    return stages


def propose_cnn(
    convolutions: Sequence[Convolution],
    chain: Sequence[Matrix],
    layout: str,
    layout_fact: str,
    unplaced: Sequence[str],
) -> Proposal:
    """Proposes a network of the family cnn."""
    stages = group_stages(convolutions)
    is_open = any(len(stage) > 1 for stage in stages)
    order_doubt = doubt_of_order(convolutions)
    lines: list[ProposedLine] = []
    doubts = [f"stages: {STAGE_DOUBT}"] if is_open else []
    has_norms = convolutions[0].norm is not None
    for s, stage in enumerate(stages):
        for c, conv in enumerate(stage):
            unknown = join(STAGE_DOUBT if is_open else "", order_doubt)
            path = f"stages/{s}/convolutions/{c}"
            of_layer = lines_of(Placed(conv.layer, path, unknown=unknown), str, layout, sure_kernel=conv.axes)
            if has_norms and BIAS in conv.layer.names:
                of_layer = [line for line in of_layer if not line.ours.endswith("/bias")]
                unplaced = [*unplaced, conv.layer.names[BIAS]]
            lines += of_layer
            if conv.norm is not None:
                lines += lines_of(Placed(conv.norm, f"stages/{s}/norms/{c}", unknown=unknown), str, layout)
    filters = tuple(stage[0].filters for stage in stages)
    keywords: dict[str, Any] = {"filters": filters}
    keywords |= one_or_each("convolutions", [len(stage) for stage in stages], default=1)
    keywords |= one_or_each("kernel_size", [stage[0].side for stage in stages], default=3)
    keywords |= one_or_each("padding", [stage[0].side // 2 for stage in stages], default=1)
    if not has_norms:
        keywords["batch_norm"] = False
    pixels = chain[0].inputs // filters[-1]
    keywords["head"] = "average" if pixels == 1 else "dense"
    if len(chain) > 1:
        keywords["hidden"] = tuple(matrix.outputs for matrix in chain[:-1])
    facts = [
        f"{len(convolutions)} convolutions of {', '.join(str(conv.filters) for conv in convolutions)} filters, "
        f"then {len(chain)} dense layers; {chain[-1].outputs:,} classes",
        layout_fact,
    ]
    size = None
    first_axes, sizes, flat_doubt = "", {}, ""
    if pixels > 1:
        side = math.isqrt(pixels)
        flat_doubt = FLAT_DOUBT
        if side * side == pixels:
            if layout == TORCH:  # which has channels first, and flattens them so; Keras flattens as ours do
                sizes = {"c": filters[-1], "h": side, "w": side}
                first_axes = "o (c h w) -> (h w c) o"
            image_side = side * 2 ** (len(stages) - 1)
            size = (image_side, image_side)
            doubts.append(
                f"image_size: the dense layers see {side}x{side} pixels; where each stage but the last is pooled by 2, "
                f"images have {image_side}x{image_side}"
            )
        else:
            doubts.append(f"image_size: the dense layers see {pixels} pixels, which are no square")
    else:
        doubts.append("head: the average of the last map, or a map of one pixel")
    doubts.append("stride, padding, pooling: no array tells; padding is taken to keep the size")
    doubts.append("activation: no array tells; cnn/* has ReLU and no keyword, so that no other one can be expressed")
    if has_norms:
        doubts += [f"epsilon: {EPSILON_DOUBT}", f"norms: {ORDER_DOUBT}"]
    if is_open:
        doubts.append("shortcuts: no array tells whether blocks add their input to their output, which cnn/* does not")
    lines += chain_lines(chain, layout, first_axes, sizes, flat_doubt)
    if has_norms and any(BIAS in conv.layer.names for conv in convolutions):
        doubts.append(
            "convolutions in front of batch norms have biases, which ours have not: subtract them from the means"
        )
    return Proposal(
        model="cnn/small",
        keywords=keywords,
        choices={"pooling": ("max", "average", "none")},
        facts=tuple(facts),
        doubts=tuple(doubts),
        lines=tuple(lines),
        image_size=size,
        unplaced=tuple(unplaced),
    )


def doubt_of_order(convolutions: Sequence[Convolution]) -> str:
    """Says that other orders of the convolutions fit too, where two have the same channels; else nothing."""
    channels = [convolutions[0].inputs, *(conv.filters for conv in convolutions)]
    return "convolutions by the order of the file" if len(set(channels)) < len(channels) else ""


def one_or_each(key: str, numbers: Sequence[int], *, default: int) -> dict[str, Any]:
    """Returns a keyword with one number for all stages, one for each, or none where it is the default."""
    if len(set(numbers)) > 1:
        return {key: tuple(numbers)}
    return {} if key != "convolutions" and numbers[0] == default else {key: numbers[0]}


def chain_lines(
    chain: Sequence[Matrix], layout: str, first_axes: str, sizes: dict[str, int], flat_doubt: str
) -> list[ProposedLine]:
    """Returns the lines of dense layers: the last one is the head."""
    lines: list[ProposedLine] = []
    shapes = [(matrix.inputs, matrix.outputs) for matrix in chain]
    for i, matrix in enumerate(chain):
        path = "head" if i == len(chain) - 1 else f"hidden/layers/{i}"
        is_twice = shapes.count(shapes[i]) > 1
        unknown = "matrices of the same shape, by the order of the file" if is_twice else ""
        for line in lines_of(Placed(matrix.layer, path, shapes[i], unknown), str, layout):
            if i == 0 and flat_doubt and line.ours.endswith(f"/{KERNEL}"):
                axes, doubt = first_axes or line.axes, join(line.unknown, flat_doubt)
                line = ProposedLine(line.theirs, line.ours, axes, sizes, doubt)
            lines.append(line)
    return lines


def propose_mlp(chain: Sequence[Matrix], layout: str, layout_fact: str, unplaced: Sequence[str]) -> Proposal | None:
    """Proposes a network of the family mlp."""
    if len(chain) < 2:
        return None
    widths = ", ".join(str(matrix.outputs) for matrix in chain[:-1])
    facts = [f"dense layers of {widths} units behind {chain[0].inputs:,} numbers of an image", layout_fact]
    side = math.isqrt(chain[0].inputs)
    size, sizes = None, {}
    doubt, axes = "", ""
    doubts = ["activation: no array tells"]
    if side * side == chain[0].inputs:
        size = (side, side)
        facts.append(f"an image of {side}x{side} pixels of one channel, if it is square")
    else:
        side = math.isqrt(chain[0].inputs // 3)
        if 3 * side * side != chain[0].inputs:
            doubts.append("image_size: no square image has so many numbers; give --image_size=HEIGHT,WIDTH")
        else:
            size, doubt = (side, side), FLAT_DOUBT
            if layout == TORCH:
                sizes = {"c": 3, "h": side, "w": side}
                axes = "o (c h w) -> (h w c) o"
    return Proposal(
        model="mlp/small",
        keywords={"hidden": tuple(matrix.outputs for matrix in chain[:-1])},
        choices={"activation": ("relu", "tanh", "gelu")},
        facts=tuple(facts),
        doubts=tuple(doubts),
        lines=tuple(chain_lines(chain, layout, axes, sizes, doubt)),
        image_size=size,
        unplaced=tuple(unplaced),
    )
