"""Any network of ours that is named, beside a checkpoint: layers of the same shapes, in the order of both."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cnn_vit.transfer.suggesting.layers import KERNEL, Layer, Shape, split_words
from cnn_vit.transfer.suggesting.proposal import SQUARE, TORCH, Proposal, ProposedLine, find_layout

BY_ORDER = "several layers have these shapes: by the order of the file"
AXES = {2: ("o i -> i o", "i o -> i o"), 4: ("o i h w -> h w i o", "h w i o -> h w i o")}


@dataclass(frozen=True)
class OurLayer:
    """A layer of our network: its path, and the shapes of its arrays by name."""

    path: str
    shapes: Mapping[str, Shape]


def propose(layers: Sequence[Layer], ours: Mapping[str, Shape], model: str, keywords: Mapping[str, Any]) -> Proposal:
    """Proposes a line for each layer of ours that has a partner of its shapes.

    Args:
        layers: of the checkpoint.
        ours: shapes of our network by path, in its order.
        model: its name.
        keywords: of it.
    """
    layout, layout_fact = find_layout(layers)
    by_path: dict[str, dict[str, Shape]] = {}
    for path, shape in ours.items():
        layer_path, _, name = path.rpartition("/")
        by_path.setdefault(layer_path, {})[name] = shape
    our_layers = [OurLayer(path, shapes) for path, shapes in by_path.items()]
    our_layers.sort(key=lambda layer: layer.path == "head")  # the head is built last, and stands last in most files
    keys = {layer.path: key_of(layer.shapes) for layer in our_layers}
    counts = Counter(keys.values())
    their_counts = Counter(key_of(layer.shapes) for layer in layers)
    left = list(layers)
    lines: list[ProposedLine] = []
    missing = []
    for layer in our_layers:
        key = keys[layer.path]
        partners = [other for other in left if key_of(other.shapes) == key]
        if not partners:
            missing.append(layer.path)
            continue
        partner = partners[0]
        left.remove(partner)
        is_only = counts[key] == 1 and their_counts[key] == 1
        unknown = "" if is_only and are_words_alike(layer, partner) else BY_ORDER
        if is_only and unknown:
            unknown = "the only layer of these shapes"
        lines += layer_lines(layer, partner, layout, unknown)
    doubts = [f"no layer has the shapes of {path}" for path in missing]
    unplaced = [name for layer in left for name in layer.names.values()]
    facts = (f"{len(our_layers) - len(missing)} of {len(our_layers)} layers have partners of their shapes", layout_fact)
    return Proposal(model, dict(keywords), {}, facts, tuple(doubts), tuple(lines), unplaced=tuple(unplaced))


def key_of(shapes: Mapping[str, Shape]) -> tuple:
    """Returns what two layers have in common that can be partners: the sorted sizes of their arrays by name."""
    return tuple(sorted((name, tuple(sorted(shape))) for name, shape in shapes.items()))


def are_words_alike(ours: OurLayer, theirs: Layer) -> bool:
    """Whether two names have a word in common that is not a number."""
    return any(not word.isdigit() for word in set(split_words(ours.path)) & set(split_words(theirs.name)))


def layer_lines(ours: OurLayer, theirs: Layer, layout: str, unknown: str) -> list[ProposedLine]:
    """Returns the lines of two partners."""
    lines = []
    for name, our_shape in ours.shapes.items():
        their_shape = theirs.shapes[name]
        axes, doubt = "", ""
        if name == KERNEL and len(our_shape) in AXES:
            transposed, plain = AXES[len(our_shape)]
            is_transposed = transpose(our_shape) == their_shape
            if is_transposed and our_shape == their_shape:
                axes, doubt = (transposed if layout == TORCH else plain), SQUARE.format(f"({layout})")
            else:
                axes = transposed if is_transposed else plain
                doubt = "" if is_transposed or our_shape == their_shape else "its axes are in another order"
        elif len(our_shape) != len(their_shape):
            doubt = "its axes are other ones"
        whole = "; ".join(text for text in (unknown, doubt) if text)
        lines.append(ProposedLine(theirs.names[name], f"{ours.path}/{name}", axes, {}, whole))
    return lines


def transpose(shape: Shape) -> Shape:
    """Returns the shape that PyTorch gives a kernel of ours."""
    return (shape[1], shape[0]) if len(shape) == 2 else (shape[3], shape[2], shape[0], shape[1])
