"""Names of arrays -> layers: which arrays belong together, what their names say, and which of them repeat."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Shape = tuple[int, ...]

KERNEL, SCALE, BIAS, MEAN, VAR, ARRAY = "kernel", "scale", "bias", "mean", "var", "array"
ROLES = {
    "weight": KERNEL,
    "weights": KERNEL,
    "kernel": KERNEL,
    "embedding": KERNEL,
    "embeddings": KERNEL,
    "w": KERNEL,
    "gamma": SCALE,
    "scale": SCALE,
    "g": SCALE,
    "a_2": SCALE,  # as The Annotated Transformer calls scale and bias of a norm
    "bias": BIAS,
    "biases": BIAS,
    "beta": BIAS,
    "b": BIAS,
    "b_2": BIAS,
    "running_mean": MEAN,
    "moving_mean": MEAN,
    "mean": MEAN,
    "running_var": VAR,
    "moving_variance": VAR,
    "moving_var": VAR,
    "var": VAR,
}
# The last word of a name, and words that are joined to it by an underscore: "in_proj_weight".
LEAF = re.compile(r"(?:(?P<layer>.*)[./])?(?P<leaf>[^./]+)", re.DOTALL)
JOINED = re.compile(r"(?P<layer>.*\w)_(?P<leaf>weights?|kernel|gamma|beta|scale|bias|[wbg])")
# Parameters without a layer of their own: "W_q" and "b_q", "w1" and "b1".
BARE = re.compile(r"(?:(?P<leaf>[WwBb]|weight|bias|kernel)_(?P<layer>\w+)|(?P<letter>[WwBb])(?P<number>\d+))")
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
DIGITS = re.compile(r"\d+")


@dataclass(eq=False)  # two layers are the same if they are one object: thousands are looked up in lists and sets
class Layer:
    """Arrays that belong together.

    Attributes:
        name: what their names begin with, "blocks.0.attn.qkv".
        names: of the arrays by role.
        shapes: of the arrays by role.
        index: of the block that the layer is in; None outside of blocks.
        suffix: what of its name stands behind the number of the block.
    """

    name: str
    names: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    index: int | None = None
    suffix: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        """The words of the name in small letters: "layerNorm_1" is ("layer", "norm", "1")."""
        return split_words(self.suffix or self.name)

    @property
    def kernel(self) -> Shape:
        """The shape of the kernel; () where there is none."""
        return self.shapes.get(KERNEL, ())

    @property
    def is_norm(self) -> bool:
        """Whether it has the two vectors of a layer norm, and nothing else."""
        return self.shapes.keys() == {SCALE, BIAS} and len(self.shapes[SCALE]) == 1

    @property
    def is_batch_norm(self) -> bool:
        """Whether it has the four vectors of a batch norm."""
        return self.shapes.keys() == {SCALE, BIAS, MEAN, VAR}

    @property
    def is_dense(self) -> bool:
        """Whether its kernel is a matrix."""
        return len(self.kernel) == 2


def split_words(name: str) -> tuple[str, ...]:
    """Splits a name at dots, slashes, underscores, capitals and digits."""
    return tuple(word.lower() for word in WORD.findall(name))


def read_layers(shapes: Mapping[str, Shape]) -> list[Layer]:
    """Groups arrays into layers, in the order of the file."""
    layers: dict[str, Layer] = {}
    for name, shape in shapes.items():
        layer_name, role = split_name(name, shape)
        layer = layers.setdefault(layer_name, Layer(layer_name))
        layer.names[role] = name
        layer.shapes[role] = shape
    return list(layers.values())


def split_name(name: str, shape: Shape) -> tuple[str, str]:
    """Returns the name of the layer that an array belongs to, and its role there."""
    match = LEAF.fullmatch(name)
    if match is None:
        return name, ARRAY
    leaf = match["leaf"].removesuffix(":0")
    layer = match["layer"] or ""
    role = ROLES.get(leaf.lower())
    if role is None:
        inner, word = split_leaf(leaf)
        role = ROLES.get(word.lower(), ARRAY)
        if role == ARRAY or (role == BIAS and len(shape) > 2):
            return name, ARRAY
        layer = f"{layer}.{inner}" if layer else inner
    if role in (KERNEL, SCALE):
        role = SCALE if len(shape) == 1 else KERNEL
    return layer, role


def split_leaf(leaf: str) -> tuple[str, str]:
    """Splits the last word of a name into layer and role: "in_proj_weight", "W_q", "b1"; the role may be ""."""
    joined = JOINED.fullmatch(leaf)
    if joined is not None:
        return joined["layer"], joined["leaf"]
    bare = BARE.fullmatch(leaf)
    if bare is not None:
        return bare["layer"] or bare["number"], bare["leaf"] or bare["letter"]
    return leaf, ""


def shared_prefix(names: Sequence[str]) -> str:
    """Returns what all names begin with, up to a dot or slash, and not a number: "module."."""
    if len(names) < 2:
        return ""
    first, last = min(names), max(names)
    end = 0
    while end < min(len(first), len(last)) and first[end] == last[end]:
        end += 1
    prefix = first[:end]
    prefix = prefix[: max(prefix.rfind("."), prefix.rfind("/")) + 1]
    return re.sub(r"(?:(?<=[./])|^)\d+[./]$", "", prefix)


@dataclass(frozen=True)
class Blocks:
    """Layers that repeat.

    Attributes:
        prefix: what their names begin with, up to the number.
        indices: the numbers, in order, one more each.
        first: the layers of the first block, in the order of the file.
        layers: all layers by number.
    """

    prefix: str
    indices: tuple[int, ...]
    first: tuple[Layer, ...]
    layers: Mapping[int, tuple[Layer, ...]]


def find_blocks(layers: Sequence[Layer]) -> Blocks | None:
    """Finds the numbers in names behind which the same layers with the same shapes repeat, and most of them.

    A block has kernels and norms: what has less is no block of a transformer. None where there is no such number.
    """
    grouped: dict[str, dict[int, dict[str, Layer]]] = {}
    for layer in layers:
        for match in DIGITS.finditer(layer.name):
            by_index = grouped.setdefault(layer.name[: match.start()], {})
            by_index.setdefault(int(match[0]), {})[layer.name[match.end() :]] = layer
    best: Blocks | None = None
    for prefix, by_index in grouped.items():
        blocks = find_run(prefix, by_index)
        if blocks is not None and (best is None or count_layers(blocks) > count_layers(best)):
            best = blocks
    return best


def count_layers(blocks: Blocks) -> int:
    """Returns how many layers stand in all blocks together."""
    return len(blocks.first) * len(blocks.indices)


def find_run(prefix: str, by_index: Mapping[int, Mapping[str, Layer]]) -> Blocks | None:
    """Finds the longest run of numbers with the same layers behind them."""
    runs: list[list[int]] = []
    for index in sorted(by_index):
        is_same = bool(runs) and runs[-1][-1] == index - 1 and are_alike(by_index[index], by_index[runs[-1][0]])
        if is_same:
            runs[-1].append(index)
        else:
            runs.append([index])
    run = max(runs, key=lambda run: len(run) * len(by_index[run[0]]))
    first = by_index[run[0]]
    kernels = sum(len(layer.kernel) >= 2 for layer in first.values())
    norms = sum(layer.is_norm for layer in first.values())
    if kernels < 3 or norms < 1:
        return None
    by_number = {}
    for index in run:
        by_number[index] = tuple(by_index[index].values())
    return Blocks(prefix, tuple(run), tuple(first.values()), by_number)


def are_alike(left: Mapping[str, Layer], right: Mapping[str, Layer]) -> bool:
    """Whether two blocks have the same layers with arrays of the same shapes."""
    if left.keys() != right.keys():
        return False
    return all(left[suffix].shapes == right[suffix].shapes for suffix in left)


def place_in_blocks(blocks: Blocks) -> None:
    """Writes the number of the block, and what of the name stands behind it, into each layer of the blocks."""
    for index, layers in blocks.layers.items():
        for layer in layers:
            layer.index = index
            layer.suffix = layer.name[len(blocks.prefix) + len(str(index)) :]


def sort_naturally(layers: Sequence[Layer]) -> list[Layer]:
    """Sorts layers by their names, and numbers in these as numbers: "conv_2" stands before "conv_10"."""

    def key(layer: Layer) -> list[tuple[int, int, str]]:
        parts = re.split(r"(\d+)", layer.name)
        return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]

    return sorted(layers, key=key)
