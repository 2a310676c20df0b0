"""The layers of one block of a transformer: which are the attention's, the MLP's, and the norms.

Shapes decide where only one reading fits them: of four matrices (3I, D), (D, I), (F, D), (D, F) the two of the same
sizes are the MLP's. Where several fit, plain words decide ("attn", "mlp", "fc1"), and where these are missing the order
of the file, which is a guess and said to be one.

Letters:
    D width of a token    I numbers of all heads together    F hidden units of the MLP
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cnn_vit.transfer.suggesting.layers import BIAS, SCALE, Layer
from cnn_vit.transfer.suggesting.proposal import Placed, layout_by_bias

ATTENTION_WORDS = {"attn", "attention", "attentions", "mha", "msa", "mhsa", "selfattn", "qkv", "wqkv"}
MLP_WORDS = {"mlp", "ffn", "ff", "feedforward", "fc", "feed", "intermediate", "ffw"}
PART_WORDS = {
    "query": {"q", "query", "queries", "wq"},
    "key": {"k", "key", "keys", "wk"},
    "value": {"v", "value", "values", "wv", "val"},
}
LETTERS = {"q": "query", "k": "key", "v": "value"}
BY_ORDER = "by the order of the file"
FUSED_DOUBT = "nothing tells the order of queries, keys and values in it"
KEYS_DOUBT = "nothing tells the order of keys and values in it"


@dataclass(frozen=True)
class Block:
    """The layers of a block that have a place in ours.

    Attributes:
        placed: each with its path in our block.
        inner_width: I.
        hidden: F.
        heads: of the attention, where a kernel has an axis for them; else None.
        doubts: what stays open.
        unplaced: layers that have no place.
    """

    placed: tuple[Placed, ...]
    inner_width: int
    hidden: int
    heads: int | None
    doubts: tuple[str, ...]
    unplaced: tuple[Layer, ...]


@dataclass(frozen=True)
class Grouping:
    """One reading of the kernels of a block: the attention's and the two of the MLP."""

    attention: tuple[Layer, ...]
    mlp: tuple[Layer, Layer]


def read_block(layers: Sequence[Layer], width: int) -> Block | None:
    """Reads the layers of a block, in the order of the file; None where they are not those of ours."""
    kernels = [layer for layer in layers if other_size(layer, width) is not None]
    others = [layer for layer in layers if len(layer.kernel) >= 2 and layer not in kernels]
    if others or len(kernels) not in (4, 5, 6):
        return None
    groupings = list_groupings(kernels, width)
    if not groupings:
        return None
    grouping, doubt = choose_grouping(groupings)
    attention = place_attention(grouping.attention, width, doubt)
    mlp = place_mlp(grouping.mlp, width, doubt)
    norms, loose = place_norms(layers, grouping, width, doubt)
    placed = [*attention, *mlp, *norms]
    placed_layers = [part.layer for part in placed]
    unplaced = [layer for layer in layers if layer not in placed_layers]
    inner_width, heads = measure_heads(grouping.attention, width)
    hidden = other_size(grouping.mlp[0], width) or 0
    doubts = [loose] if loose else []
    return Block(tuple(placed), inner_width, hidden, heads, tuple(doubts), tuple(unplaced))


def other_size(layer: Layer, width: int) -> int | None:
    """Returns the side of a kernel that is not the width of a token; None where neither is, or there is no kernel."""
    shape = layer.kernel
    if len(shape) == 3:  # (width, heads, head) or (heads, head, width)
        if shape[0] == width:
            return shape[1] * shape[2]
        return shape[0] * shape[1] if shape[2] == width else None
    if len(shape) != 2 or width not in shape:
        return None
    return shape[1] if shape[0] == width else shape[0]


def list_groupings(kernels: Sequence[Layer], width: int) -> list[Grouping]:
    """Lists the readings of the kernels of a block that their shapes allow."""
    groupings = []
    for mlp in itertools.combinations(kernels, 2):
        attention = tuple(layer for layer in kernels if layer not in mlp)
        if is_mlp(mlp, width) and is_attention(attention, width):
            groupings.append(Grouping(attention, mlp))
    return groupings


def is_mlp(pair: Sequence[Layer], width: int) -> bool:
    """Whether two matrices can be those of an MLP: the same sizes, and outputs of both."""
    sizes = [other_size(layer, width) for layer in pair]
    if sizes[0] != sizes[1] or not all(layer.is_dense for layer in pair):
        return False
    outputs = [output_size(layer) for layer in pair]
    return None in outputs or set(outputs) == {width, sizes[0]}


def is_attention(layers: Sequence[Layer], width: int) -> bool:
    """Whether kernels can be those of an attention: all four apart, keys with values, or all three in one."""
    sizes = sorted(other_size(layer, width) or 0 for layer in layers)
    least = sizes[0]
    expected = {2: [least, 3 * least], 3: [least, least, 2 * least], 4: [least] * 4}
    if sizes != expected[len(layers)]:
        return False
    outputs = [size for size in map(output_size, layers) if size is not None]
    if len(outputs) == 4:  # of queries, keys, values and the projection back to the width
        return sorted(outputs) == sorted([least, least, least, width])
    return True


def output_size(layer: Layer) -> int | None:
    """Returns how many numbers come out of a matrix, where its bias tells it; else None."""
    layout = layout_by_bias(layer)
    if layout is None:
        return None
    return layer.shapes[BIAS][0]


def part_by_words(layer: Layer) -> str:
    """Returns which part the words of a layer say, "attention" or "mlp"; "" where they say none or both."""
    words = set(layer.words)
    is_attention = bool(words & ATTENTION_WORDS) or any(words & part for part in PART_WORDS.values())
    is_mlp = any(re.sub(r"\d+$", "", word) in MLP_WORDS for word in words)
    if is_attention == is_mlp:
        return ""
    return "attention" if is_attention else "mlp"


def choose_grouping(groupings: Sequence[Grouping]) -> tuple[Grouping, str]:
    """Chooses a reading, and says what is guessed in it: nothing where shapes, words or paths leave no other one."""

    def rank(grouping: Grouping) -> tuple[int, int, int]:
        return count_agreements(grouping), count_shared_steps(grouping), groupings.index(grouping)

    # Of equals the last one, whose MLP stands last in the file.
    best = max(groupings, key=rank)
    if len(groupings) == 1:
        return best, "" if count_agreements(best) >= 0 else "its name says another part than its shape"
    others = [grouping for grouping in groupings if grouping is not best]
    agreements = count_agreements(best)
    all_kernels_agree = agreements == len(best.attention) + len(best.mlp)
    others_agree_less = all(count_agreements(other) < agreements for other in others)
    if all_kernels_agree and others_agree_less:
        return best, ""
    if agreements > 0 and is_split_by_paths(best):
        return best, ""
    return best, f"which matrices are the attention's, {BY_ORDER}"


def count_agreements(grouping: Grouping) -> int:
    """Returns how many kernels are called what the reading makes of them, less those that are called the other."""
    count = 0
    for part, layers in (("attention", grouping.attention), ("mlp", grouping.mlp)):
        for layer in layers:
            count += {part: 1, "": 0}.get(part_by_words(layer), -1)
    return count


def count_shared_steps(grouping: Grouping) -> int:
    """Returns how many steps of their paths the kernels of a part share, pair by pair, of both parts together."""
    count = 0
    for part in (grouping.attention, grouping.mlp):
        for left, right in itertools.product(part, repeat=2):
            count += shared_steps(left, right)
    return count


def is_split_by_paths(grouping: Grouping) -> bool:
    """Whether the kernels of a part share steps that those of the other have not, and none is called the other part."""
    pairs_across = itertools.product(grouping.attention, grouping.mlp)
    steps_across = max(shared_steps(left, right) for left, right in pairs_across)
    for part, other_part in ((grouping.attention, "mlp"), (grouping.mlp, "attention")):
        for layer in part:
            if shared_steps(part[0], layer) <= steps_across or part_by_words(layer) == other_part:
                return False
    return True


# Attention ------------------------------------------------------------------------------------------------------------


def place_attention(layers: Sequence[Layer], width: int, doubt: str) -> list[Placed]:
    """Places the kernels of an attention."""
    sizes = [other_size(layer, width) or 0 for layer in layers]
    inner_width = min(sizes)
    into, out_of = (width, inner_width), (inner_width, width)
    if len(layers) == 2:
        fused, out = layers if sizes[0] > sizes[1] else layers[::-1]
        order = fused_order(fused)
        return [
            Placed(fused, f"attention/{{{','.join(order)}}}", into, join(doubt, FUSED_DOUBT)),
            Placed(out, "attention/out", out_of, doubt),
        ]
    parts = [part_said(layer) for layer in layers]
    if len(layers) == 3:
        fused = layers[sizes.index(max(sizes))]
        query, out = (layer for layer in layers if layer is not fused)
        if part_said(out) == "query":
            query, out = out, query
        unsure = "" if part_said(query) == "query" else f"which is the query's, {BY_ORDER}"
        return [
            Placed(query, "attention/query", into, join(doubt, unsure)),
            Placed(fused, "attention/{key,value}", into, join(doubt, KEYS_DOUBT)),
            Placed(out, "attention/out", out_of, join(doubt, unsure)),
        ]
    unsure = ""
    if sorted(part for part in parts if part) == ["key", "query", "value"]:
        parts = [part or "out" for part in parts]
    else:
        parts, unsure = ["query", "key", "value", "out"], f"queries, keys, values and their join {BY_ORDER}"
    placed = []
    for layer, part in zip(layers, parts, strict=True):
        placed.append(Placed(layer, f"attention/{part}", out_of if part == "out" else into, join(doubt, unsure)))
    return placed


def part_said(layer: Layer) -> str:
    """Returns which of the three the words of a layer say: "query", "key" or "value"; "" for none or several."""
    words = set(layer.words)
    parts = [part for part, names in PART_WORDS.items() if words & names]
    return parts[0] if len(parts) == 1 else ""


def fused_order(layer: Layer) -> tuple[str, ...]:
    """Returns the order of queries, keys and values that a name says, such as kqv; else q, k, v."""
    for word in layer.words:
        if sorted(word[-3:]) == ["k", "q", "v"]:
            return tuple(LETTERS[letter] for letter in word[-3:])
    return ("query", "key", "value")


def measure_heads(layers: Sequence[Layer], width: int) -> tuple[int, int | None]:
    """Returns I, and the number of heads where a kernel has an axis for them."""
    inner_width = min(other_size(layer, width) or 0 for layer in layers)
    for layer in layers:
        shape = layer.kernel
        if len(shape) == 3 and shape[0] != shape[-1]:
            return inner_width, shape[1] if shape[0] == width else shape[0]
    return inner_width, None


# MLP ------------------------------------------------------------------------------------------------------------------


def place_mlp(pair: tuple[Layer, Layer], width: int, doubt: str) -> list[Placed]:
    """Places the two matrices of an MLP."""
    hidden = other_size(pair[0], width) or 0
    first, second, unsure = pair[0], pair[1], ""
    outputs = (output_size(first), output_size(second))
    if outputs == (width, hidden) and width != hidden:
        first, second = second, first
    elif outputs != (hidden, width) or width == hidden:
        is_numbered = are_numbered_alike(first, second)
        numbers = [last_number(layer) or 0 for layer in (first, second)]
        if is_numbered and numbers[0] - numbers[1] == 1:
            first, second = second, first
        elif not is_numbered or numbers[1] - numbers[0] != 1:
            unsure = f"which matrix of the MLP is first, {BY_ORDER}"
    return [
        Placed(first, "mlp/dense1", (width, hidden), join(doubt, unsure)),
        Placed(second, "mlp/dense2", (hidden, width), join(doubt, unsure)),
    ]


def last_number(layer: Layer) -> int | None:
    """Returns the last number in the name of a layer; None where there is none."""
    numbers = re.findall(r"\d+", layer.suffix or layer.name)
    return int(numbers[-1]) if numbers else None


def are_numbered_alike(first: Layer, second: Layer) -> bool:
    """Whether two names differ in their last number alone, which is joined to a word: "fc1" and "fc2", not "net.0"."""
    names = [layer.suffix or layer.name for layer in (first, second)]
    bare = [re.sub(r"(?<=[A-Za-z_])\d+(?=\D*$)", "", name) for name in names]
    return bare[0] == bare[1] and bare[0] != names[0]


# Norms ----------------------------------------------------------------------------------------------------------------


def place_norms(layers: Sequence[Layer], grouping: Grouping, width: int, doubt: str) -> tuple[list[Placed], str]:
    """Places the norms of a block; returns them, and what is open where there are not two."""
    norms = [layer for layer in layers if layer.is_norm and layer.shapes[SCALE] == (width,)]
    if len(norms) != 2:
        return [], f"a block of ours has 2 norms of the width {width}, and theirs has {len(norms)}"
    parts = [norm_part(norm, grouping) for norm in norms]
    if sorted(parts) == ["attention", "mlp"]:
        ordered = norms if parts[0] == "attention" else norms[::-1]
        return pair_of_norms(ordered, doubt), ""
    order = [list(layers).index(layer) for layer in (grouping.attention[0], grouping.mlp[0])]
    first, second = (last_number(norm) for norm in norms)
    if first is not None and second is not None and first != second and are_numbered_alike(*norms):
        ordered = norms if first < second else norms[::-1]
        unsure = "" if order[0] < order[1] else "their numbers say so, but the MLP stands before the attention"
        return pair_of_norms(ordered, join(doubt, unsure)), ""
    return pair_of_norms(norms, join(doubt, f"which norm is the attention's, {BY_ORDER}")), ""


def pair_of_norms(norms: Sequence[Layer], unknown: str) -> list[Placed]:
    """Places two norms: the attention's, then the MLP's."""
    return [Placed(norms[0], "norm1", unknown=unknown), Placed(norms[1], "norm2", unknown=unknown)]


def norm_part(norm: Layer, grouping: Grouping) -> str:
    """Returns whose norm it is, as its words say, or because it stands beside one part's kernels alone; else ""."""
    words = set(norm.words)
    if "before" in words and "after" not in words:
        return "attention"
    if "after" in words and "before" not in words:
        return "mlp"
    part = part_by_words(norm)
    if part:
        return part
    to_attention = max(shared_steps(norm, layer) for layer in grouping.attention)
    to_mlp = max(shared_steps(norm, layer) for layer in grouping.mlp)
    if to_attention == to_mlp:
        return ""
    return "attention" if to_attention > to_mlp else "mlp"


def shared_steps(left: Layer, right: Layer) -> int:
    """Returns how many steps of their paths two layers share from the first on."""
    steps = [[step for step in re.split(r"[./]", layer.suffix or layer.name) if step] for layer in (left, right)]
    count = 0
    for one, two in zip(*steps, strict=False):
        if one != two:
            break
        count += 1
    return count


def join(*texts: str) -> str:
    """Joins what is guessed."""
    return "; ".join(text for text in texts if text)
