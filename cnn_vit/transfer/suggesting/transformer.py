"""A whole Vision Transformer: patches, class token, positions, blocks, last norm, head.

Blocks are found by the number in their names; where layers are numbered by kind instead, as Keras does ("dense_7"), the
running numbers put them in order, which is a guess.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cnn_vit.transfer.suggesting import blocks as block_reading
from cnn_vit.transfer.suggesting.blocks import Block, join, read_block
from cnn_vit.transfer.suggesting.layers import (
    ARRAY,
    BIAS,
    KERNEL,
    SCALE,
    Blocks,
    Layer,
    Shape,
    find_blocks,
    place_in_blocks,
    split_words,
)
from cnn_vit.transfer.suggesting.proposal import (
    Placed,
    Proposal,
    ProposedLine,
    find_layout,
    lines_of,
)

CLS_WORDS = {"cls", "class", "classtoken", "clstoken"}
POSITION_WORDS = {"pos", "position", "positions", "positional", "posembed", "posemb"}
HEAD_WORDS = {"head", "heads", "classifier", "fc", "logits", "prediction", "predictions", "output", "out", "cls"}
LAST_WORDS = {"final", "last", "head", "out", "output", "classifier", "post"}
FIRST_WORDS = {"pre", "embed", "embedding", "embeddings", "patch", "patches", "input", "in", "stem", *POSITION_WORDS}
PATCH_DOUBT = "nothing tells the order of rows, columns and colors in a flattened patch"
ACTIVATIONS = ("gelu", "relu", "gelu_tanh")


@dataclass(frozen=True)
class Outside:
    """The layers outside of the blocks that have a place, and what they say.

    Attributes:
        lines: of them.
        patch: side in pixels, channels: of an image, size: height and width in pixels; None where they are not told.
        keywords: of the network.
        doubts: what stays open.
        facts: what was recognized.
        placed: names of the arrays.
    """

    lines: tuple[ProposedLine, ...]
    patch: int | None
    channels: int | None
    size: tuple[int, int] | None
    keywords: dict[str, Any]
    facts: tuple[str, ...]
    doubts: tuple[str, ...]
    placed: frozenset[str]


def propose(layers: Sequence[Layer], place: Mapping[str, int]) -> Proposal | None:
    """Proposes a Vision Transformer; None where the layers are not those of one.

    Args:
        layers: of the checkpoint, without the shared prefix.
        place: of each array in the file.
    """
    repeated = find_blocks(layers)
    if repeated is not None:
        place_in_blocks(repeated)
        in_blocks = [layer for block in repeated.layers.values() for layer in block]
        width = find_width(repeated.first)
        block = read_block(repeated.first, width) if width else None
        if width is None or block is None:
            return None
        outside = leave_out(layers, in_blocks)
        layout, layout_fact = find_layout(layers)
        lines = block_lines(repeated, block, layout, doubt_of_stack(repeated, outside))
        depth = len(repeated.indices)
        unplaced = [name for layer in in_blocks for name in names_without_line(layer, repeated, block)]
    else:
        running = read_running(layers)
        if running is None:
            return None
        width, depth, block, in_blocks, lines = running
        layout, layout_fact = find_layout(layers)
        outside = leave_out(layers, in_blocks)
        unplaced = []
    around = read_outside(outside, width, layout)
    for layer in outside:
        unplaced += [name for name in layer.names.values() if name not in around.placed]
    return assemble(block, around, lines, width, depth, layout_fact, unplaced, place)


def leave_out(layers: Sequence[Layer], others: Sequence[Layer]) -> list[Layer]:
    """Returns the layers that are not among others, in their order."""
    known = set(others)
    return [layer for layer in layers if layer not in known]


def find_width(layers: Sequence[Layer]) -> int | None:
    """Returns the size of most norms of a block."""
    sizes = Counter(layer.shapes[SCALE][0] for layer in layers if layer.is_norm)
    return sizes.most_common(1)[0][0] if sizes else None


def doubt_of_stack(repeated: Blocks, outside: Sequence[Layer]) -> str:
    """Says why a stack of blocks may not be the network: there are more, or its first ones are missing."""
    if find_blocks(outside) is not None:
        return "which of several stacks of blocks is the network"
    return "" if repeated.indices[0] in (0, 1) else "the first blocks are missing"


def block_lines(repeated: Blocks, block: Block, layout: str, doubt: str) -> list[ProposedLine]:
    """Returns the lines of all blocks, with {i} for their number."""
    first = repeated.indices[0]
    number = "{i}" if first == 0 else f"{{i+{first}}}"
    beginning = len(repeated.prefix) + len(str(first))

    def rename(name: str) -> str:
        return f"{repeated.prefix}{number}{name[beginning:]}"

    lines = []
    for part in block.placed:
        unknown = join(doubt, part.unknown)
        lines += lines_of(replace(part, ours=f"blocks/{{i}}/{part.ours}", unknown=unknown), rename, layout)
    return lines


def names_without_line(layer: Layer, repeated: Blocks, block: Block) -> list[str]:
    """Returns the names of a layer of a block that has no place."""
    suffixes = {part.layer.suffix for part in block.placed}
    return [] if layer.suffix in suffixes else list(layer.names.values())


def assemble(
    block: Block,
    around: Outside,
    lines: Sequence[ProposedLine],
    width: int,
    depth: int,
    layout_fact: str,
    unplaced: Sequence[str],
    place: Mapping[str, int],
) -> Proposal:
    """Makes the proposal: the network's keywords, what is known and what is open."""
    keywords: dict[str, Any] = {"width": width, "depth": depth, "hidden": block.hidden}
    facts = [f"a Vision Transformer: {depth} blocks of width {width}, MLPs of {block.hidden} units", layout_fact]
    facts += around.facts
    doubts = [*block.doubts, *around.doubts]
    choices: dict[str, tuple[Any, ...]] = {}
    inner = block.inner_width
    if block.heads is not None:
        keywords["heads"] = block.heads
        facts.append(f"{block.heads} heads, which have an axis of their own")
        if inner != width:
            keywords["head_width"] = inner // block.heads
    else:
        choices["heads"] = tuple(number for number in range(1, inner + 1) if inner % number == 0)
        doubts.append(f"heads: queries have {inner} numbers, and nothing tells how many heads share them")
        if inner != width:
            choices["head_width"] = ()
            doubts.append(f"head_width: {inner} divided by the heads")
    choices["activation"] = ACTIVATIONS
    doubts.append("activation: no array tells")
    biases = [BIAS in part.layer.names for part in block.placed if is_query_key_value(part)]
    if not any(biases):
        keywords["qkv_bias"] = False
        facts.append("queries, keys and values have no bias")
    elif not all(biases):
        doubts.append("of queries, keys and values some have a bias and some have none, which ours cannot have")
    norm, norm_doubt = norm_order(block, around)
    keywords |= norm
    doubts.append(norm_doubt)
    doubts.append("epsilon: no array tells what its norms add to the variance; PyTorch's default is 1e-5, ours 1e-6")
    keywords |= around.keywords
    suffix = "-gap" if keywords.pop("pool", "token") == "average" else ""
    patch = around.patch if around.patch is not None else 16
    ordered = sorted([*lines, *around.lines], key=lambda line: place_of(line, place))
    return Proposal(
        model=f"vit/Ti{patch}{suffix}",
        keywords=keywords,
        choices=choices,
        facts=tuple(facts),
        doubts=tuple(doubts),
        lines=tuple(ordered),
        image_size=around.size,
        unplaced=tuple(unplaced),
    )


def place_of(line: ProposedLine, place: Mapping[str, int]) -> int:
    """Returns the place in the file of the first array that a line names."""
    for number in ("0", "1", "2"):
        name = re.sub(r"\{i(\+\d+)?\}", number, line.theirs)
        if name in place:
            return place[name]
    return len(place)


def is_query_key_value(part: Placed) -> bool:
    """Whether a layer of a block gives queries, keys or values."""
    return part.ours.startswith("attention/") and not part.ours.endswith("/out")


def norm_order(block: Block, around: Outside) -> tuple[dict[str, Any], str]:
    """Returns the keywords of the norms' order, and what is open about it."""
    has_final = any(line.ours.startswith("norm/") for line in around.lines)
    names = " ".join(part.layer.suffix for part in block.placed if part.ours.startswith("norm"))
    if "before" in split_words(names):
        return ({} if has_final else {"final_norm": False}), "norm: pre, as the word before says"
    if has_final:
        return {}, "norm: the norm behind the blocks suggests pre; of post-norm blocks, --model.norm=post"
    return {"norm": "post"}, "norm: no norm behind the blocks suggests post; else --model.norm=pre and final_norm=false"


# Outside of the blocks ------------------------------------------------------------------------------------------------


class OutsideReader:
    """Places the layers outside of the blocks one by one.

    Attributes:
        left: layers that have no place so far.
        width: of a token.
        layout: of the matrices of the file.
        lines, facts, doubts: what was placed and recognized so far.
    """

    def __init__(self, layers: Sequence[Layer], width: int, layout: str):
        self.left = list(layers)
        self.width = width
        self.layout = layout
        self.lines: list[ProposedLine] = []
        self.placed: list[str] = []
        self.facts: list[str] = []
        self.doubts: list[str] = []

    def put(self, layer: Layer, lines: Sequence[ProposedLine]) -> None:
        """Gives a layer its lines."""
        self.left.remove(layer)
        self.lines += lines
        self.placed += layer.names.values()

    def put_layer(self, layer: Layer, ours: str, unknown: str, sizes: tuple[int, int] = (0, 0), axes: str = "") -> None:
        """Gives a layer with kernel or scale the lines of one of ours."""
        placed = Placed(layer, ours, sizes, unknown)
        self.put(layer, lines_of(placed, str, self.layout, sure_kernel=axes))

    def put_table(self, layer: Layer, ours: str, unknown: str) -> None:
        """Gives an array (1, T, D) or (T, D) its line."""
        (name,) = layer.names.values()
        (shape,) = layer.shapes.values()
        axes = {1: "d -> 1 d", 3: "1 t d -> t d"}.get(len(shape), "")
        self.put(layer, [ProposedLine(name, ours, axes, {}, unknown)])

    def lone_arrays(self) -> list[Layer]:
        """Returns the layers that are one array whose last axis is the width: tokens and tables."""
        lone = []
        for layer in self.left:
            shapes = list(layer.shapes.values())
            roles = set(layer.shapes)
            if len(shapes) == 1 and roles <= {ARRAY, KERNEL, SCALE} and shapes[0][-1:] == (self.width,):
                lone.append(layer)
        return lone


def read_outside(layers: Sequence[Layer], width: int, layout: str) -> Outside:
    """Places patches, class token, positions, norms and head."""
    reader = OutsideReader(layers, width, layout)
    has_token = put_class_token(reader)
    positions = put_positions(reader)
    patch, channels = put_patches(reader)
    keywords: dict[str, Any] = {}
    put_head(reader)
    put_outer_norms(reader, patch, channels, keywords)
    if not has_token:
        keywords["pool"] = "average"
        reader.facts.append("no class token: the average of the tokens")
        reader.doubts.append("pool: without a class token the average is taken for granted")
    else:
        reader.doubts.append("pool: a class token is there, and taken for what the head sees")
    size = measure_image(reader, positions, patch, has_token, keywords)
    return Outside(
        lines=tuple(reader.lines),
        patch=patch,
        channels=channels,
        size=size,
        keywords=keywords,
        facts=tuple(reader.facts),
        doubts=tuple(reader.doubts),
        placed=frozenset(reader.placed),
    )


def put_class_token(reader: OutsideReader) -> bool:
    """Places the class token, if there is one."""
    tokens = [layer for layer in reader.lone_arrays() if math.prod(only_shape(layer)) == reader.width]
    said = [layer for layer in tokens if set(layer.words) & CLS_WORDS and not set(layer.words) & POSITION_WORDS]
    if len(said) == 1:
        reader.put_table(said[0], "cls_token", "")
    elif len(tokens) == 1 and not said and len(only_shape(tokens[0])) > 1:
        reader.put_table(tokens[0], "cls_token", "one token, which no word calls the class token")
    else:
        return False
    reader.facts.append("a class token")
    return True


def only_shape(layer: Layer) -> Shape:
    """Returns the shape of a layer that is one array."""
    (shape,) = layer.shapes.values()
    return shape


def put_positions(reader: OutsideReader) -> int | None:
    """Places the table of positions; returns its rows, None where there is none."""
    tables = []
    for layer in reader.lone_arrays():
        shape = only_shape(layer)
        is_table = len(shape) == 2 or (len(shape) == 3 and shape[0] == 1)
        if is_table and shape[-2] > 1:
            tables.append(layer)
    said = [layer for layer in tables if set(layer.words) & POSITION_WORDS]
    if len(said) == 1:
        rows = only_shape(said[0])[-2]
        reader.put_table(said[0], "pos_embed/embedding", "")
    else:
        # a head or a projection without bias is a matrix too: only arrays that are called nothing of the kind
        arrays = [layer for layer in tables if ARRAY in layer.shapes]
        if said:
            reader.doubts.append(f"positions: {len(said)} tables are called so, and ours has one")
        if said or len(arrays) != 1:
            return None
        rows = only_shape(arrays[0])[-2]
        reader.put_table(arrays[0], "pos_embed/embedding", "a table, which no word calls positions")
    reader.facts.append(f"a table of {rows} positions")
    return rows


def put_patches(reader: OutsideReader) -> tuple[int | None, int | None]:
    """Places the projection of the patches; returns the side of a patch in pixels and the channels of an image."""
    width = reader.width
    convolutions = [layer for layer in reader.left if len(layer.kernel) == 4]
    for layer in convolutions:
        shape = layer.kernel
        readings = []
        if shape[0] == width and shape[2] == shape[3] and shape[1] in (1, 3):
            readings.append(("o i h w -> h w i o", shape[2], shape[1]))
        if shape[3] == width and shape[0] == shape[1] and shape[2] in (1, 3):
            readings.append(("h w i o -> h w i o", shape[0], shape[2]))
        if readings and len(convolutions) == 1:
            axes, patch, channels = readings[0]
            doubt = "" if len(readings) == 1 else "its axes can be read in two ways"
            reader.put_layer(layer, "patches", doubt, axes=axes)
            reader.facts.append(f"patches of {patch}x{patch} pixels and {channels} channels, by a convolution")
            reader.doubts.append(
                f"patches: no array tells the stride of this convolution; {patch}, its side, is taken for granted, "
                "since patches of vit/* do not overlap"
            )
            return patch, channels
    if convolutions:
        reader.doubts.append("patches: more than one convolution, or none of square patches, is nothing that ours has")
        return None, None
    return put_flat_patches(reader)


def put_flat_patches(reader: OutsideReader) -> tuple[int | None, int | None]:
    """Places a matrix that maps flattened patches."""
    width, candidates = reader.width, []
    for layer in reader.left:
        if not layer.is_dense or width not in layer.kernel:
            continue
        numbers = layer.kernel[1] if layer.kernel[0] == width else layer.kernel[0]
        bias = layer.shapes.get(BIAS)
        if split_pixels(numbers) is not None and (bias is None or bias == (width,)):
            candidates.append((layer, numbers))
    named = [entry for entry in candidates if set(entry[0].words) & {"patch", "patches", "patchembed", "projection"}]
    heads = [entry for entry in candidates if set(entry[0].words) & HEAD_WORDS]
    which, doubt = "", PATCH_DOUBT
    if len(named) == 1:
        chosen = named[0]
    elif len(candidates) == 1:
        chosen = candidates[0]
    else:
        rest = [entry for entry in candidates if entry not in heads]
        if not rest:
            reader.doubts.append("patches: nothing maps them")
            return None, None
        chosen, which = rest[0], "which matrix maps the patches, by the order of the file"
    layer, numbers = chosen
    side, channels = split_pixels(numbers) or (1, numbers)
    theirs = "(p q c)"
    shape = layer.kernel
    if shape == (width, numbers) and (width != numbers or reader.layout == "torch"):
        axes = f"d {theirs} -> p q c d"
    else:
        axes = f"{theirs} d -> p q c d"
    if width == numbers:
        doubt = join(doubt, "a square matrix: nothing tells whether it is transposed")
    lines = []
    for role, name in layer.names.items():
        if role == KERNEL:
            lines.append(ProposedLine(name, "patches/kernel", axes, {}, join(which, doubt)))
        else:
            lines.append(ProposedLine(name, f"patches/{role}", "", {}, which))
    reader.put(layer, lines)
    reader.facts.append(f"{numbers} numbers in a patch: {side}x{side} pixels of {channels} channels, flattened")
    return side, channels


def split_pixels(numbers: int) -> tuple[int, int] | None:
    """Returns patch side and channels of so many numbers: 48 is (4, 3); None where they are no square of 1 or 3."""
    for channels in (1, 3):
        side = math.isqrt(numbers // channels)
        if side and side * side * channels == numbers:
            return side, channels
    return None


def put_head(reader: OutsideReader) -> None:
    """Places the head: the matrix that takes a token; one that also gives one may stand before it."""
    width = reader.width
    candidates = []
    for layer in reader.left:
        if layer.is_dense and width in layer.kernel:
            classes = layer.kernel[1] if layer.kernel[0] == width else layer.kernel[0]
            if layer.shapes.get(BIAS, (classes,)) == (classes,):
                candidates.append((layer, classes))
    if not candidates:
        reader.doubts.append("head: no matrix takes what comes out of the blocks; one that takes less is not ours")
        return
    named = [entry for entry in candidates if set(entry[0].words) & HEAD_WORDS]
    exact = [entry for entry in candidates if re.split(r"[./]", entry[0].name)[-1] in HEAD_WORDS]
    square = [entry for entry in candidates if entry[1] == width]
    doubt = ""
    if len(candidates) == 1:
        chosen = candidates[0]
    elif len(named) == 1:
        chosen = named[0]
    elif len(exact) == 1:
        chosen, doubt = exact[0], "which matrix is the head, by its name alone"
    else:
        rest = [entry for entry in candidates if entry not in square] or candidates
        chosen, doubt = rest[-1], "which matrix is the head, by the order of the file"
    layer, classes = chosen
    if any(other.is_dense and other is not layer for other in reader.left):
        doubt = doubt or "other matrices are left, so that the head may have several layers"
    reader.put_layer(layer, "head", doubt, (width, classes))
    reader.facts.append(f"{classes:,} classes")


def put_outer_norms(reader: OutsideReader, patch: int | None, channels: int | None, keywords: dict[str, Any]) -> None:
    """Places the norm behind the blocks, and those around the patches."""
    width = reader.width
    pixels = patch * patch * channels if patch and channels else 0
    norms = [layer for layer in reader.left if layer.is_norm]
    before = [layer for layer in norms if layer.shapes[SCALE] == (pixels,) and pixels != width]
    of_tokens = [layer for layer in norms if layer.shapes[SCALE] == (width,)]
    if len(before) == 1 and patch and channels and len(of_tokens) in (1, 2):
        place_patch_norms(reader, before[0], of_tokens, (patch, channels))
        keywords["patch_norm"] = True
    of_tokens = [layer for layer in of_tokens if layer in reader.left]
    if not of_tokens:
        return
    last = [layer for layer in of_tokens if is_called_last(layer)]
    if len(of_tokens) == 1:
        doubt = "" if last else "the only norm outside of the blocks is taken for the one behind them"
        reader.put_layer(of_tokens[0], "norm", doubt)
    elif len(last) == 1:
        reader.put_layer(last[0], "norm", "")
    else:
        reader.put_layer(of_tokens[-1], "norm", "which norm stands behind the blocks, by the order of the file")


def is_called_last(layer: Layer) -> bool:
    """Whether the words of a norm say that it stands behind the blocks: "final_norm", "ln_f"."""
    words = set(layer.words)
    return (bool(words & LAST_WORDS) or layer.words[-1:] == ("f",)) and not words & FIRST_WORDS


def place_patch_norms(reader: OutsideReader, before: Layer, of_tokens: Sequence[Layer], patch: tuple[int, int]) -> None:
    """Places the norms before and behind the projection of the patches."""
    side, _ = patch
    lines = []
    for role, name in before.names.items():
        axes = "(p q c) -> (p q c)"
        sizes = {"p": side, "q": side}
        lines.append(ProposedLine(name, f"patches/norm/{role}", axes, sizes, PATCH_DOUBT))
    reader.put(before, lines)
    beside = max(of_tokens, key=lambda norm: block_reading.shared_steps(norm, before))
    shared = [block_reading.shared_steps(norm, before) for norm in of_tokens]
    doubt = "" if len(of_tokens) > 1 and shared[0] != shared[1] else "which norm stands behind the patches"
    reader.put_layer(beside, "patch_norm", doubt)
    reader.facts.append("norms before and behind the projection of the patches")


def measure_image(
    reader: OutsideReader, rows: int | None, patch: int | None, has_token: bool, keywords: dict[str, Any]
) -> tuple[int, int] | None:
    """Returns height and width of a square image whose patches have these positions; None where they are not told."""
    if rows is None:
        keywords["positions"] = "sincos"
        reader.doubts.append(
            "positions: no table is there; fixed sines are taken for granted, or --model.positions=none"
        )
        return None
    if patch is None:
        return None
    for token_rows in (1, 0) if has_token else (0,):
        side = math.isqrt(rows - token_rows)
        if side and side * side == rows - token_rows:
            if has_token and not token_rows:
                keywords["token_position"] = False
            with_token = " and the class token, taken for the first row" if token_rows else ""
            reader.facts.append(
                f"positions of {side}x{side} patches{with_token}: an image of {side * patch}x{side * patch} pixels, if "
                "it is square"
            )
            return side * patch, side * patch
    reader.doubts.append(
        f"image_size: {rows} positions are not those of a square image; give --image_size=HEIGHT,WIDTH"
    )
    return None


# Layers that are numbered by kind -------------------------------------------------------------------------------------


def read_running(
    layers: Sequence[Layer],
) -> tuple[int, int, Block, list[Layer], list[ProposedLine]] | None:
    """Reads blocks whose layers are numbered by kind: "layer_normalization_3", "multi_head_attention_1/query".

    Returns:
        Width, depth, the first block, all layers of blocks, and their lines; None where there are no such blocks.
    """
    attentions: dict[tuple[str, int], list[Layer]] = {}
    for layer in layers:
        steps = re.split(r"[./]", layer.name)
        if (
            len(layer.kernel) in (2, 3)
            and len(steps) > 1
            and set(split_words(layer.name)) & (block_reading.ATTENTION_WORDS | {"attention"})
        ):
            base, number = split_number("/".join(steps[:-1]))
            attentions.setdefault((base, number), []).append(layer)
    if not attentions or len({base for base, _ in attentions}) != 1:
        return None
    ordered = [attentions[key] for key in sorted(attentions, key=lambda key: key[1])]
    depth = len(ordered)
    rest = leave_out(layers, [layer for group in ordered for layer in group])
    norms = sort_by_number([layer for layer in rest if layer.is_norm])
    width_counts = Counter(layer.shapes[SCALE][0] for layer in norms)
    if not width_counts:
        return None
    width = width_counts.most_common(1)[0][0]
    norms = [layer for layer in norms if layer.shapes[SCALE] == (width,)]
    matrices = sort_by_number([layer for layer in rest if layer.is_dense])
    pairs = find_mlps(matrices, width)
    if len(norms) < 2 * depth or len(pairs) != depth:
        return None
    in_blocks: list[Layer] = []
    lines: list[ProposedLine] = []
    first: Block | None = None
    for i in range(depth):
        members = [norms[2 * i], *ordered[i], norms[2 * i + 1], *pairs[i]]
        block = read_block(members, width)
        if block is None or block.unplaced:
            return None
        first = first or block
        layout, _ = find_layout(layers)
        for part in block.placed:
            is_norm = part.ours.startswith("norm")
            doubt = "which norm of the block it is, by its running number" if is_norm else ""
            doubt = join(doubt, "" if part.unknown.startswith("which norm") else part.unknown, RUNNING_DOUBT)
            lines += lines_of(replace(part, ours=f"blocks/{i}/{part.ours}", unknown=doubt), str, layout)
        in_blocks += members
    if first is None:
        return None
    return width, depth, first, in_blocks, lines


RUNNING_DOUBT = "which block it is in, by its running number"


def split_number(name: str) -> tuple[str, int]:
    """Splits the running number from a name: "dense_7" and "dense_7/dense_7" end in 7, "dense" in 0."""
    numbers = re.findall(r"\d+", name)
    return re.sub(r"_?\d+", "", name), int(numbers[-1]) if numbers else 0


def sort_by_number(layers: Sequence[Layer]) -> list[Layer]:
    """Sorts layers by their running numbers."""
    return sorted(layers, key=lambda layer: split_number(layer.name)[1])


def find_mlps(matrices: Sequence[Layer], width: int) -> list[tuple[Layer, Layer]]:
    """Finds neighbors among matrices in their order that map the width to another size and back."""
    pairs, i = [], 0
    while i + 1 < len(matrices):
        pair = (matrices[i], matrices[i + 1])
        sizes = [block_reading.other_size(layer, width) for layer in pair]
        is_pair = None not in sizes and block_reading.is_mlp(pair, width) and pair[0].kernel != pair[1].kernel
        if is_pair:
            pairs.append(pair)
            i += 2
        else:
            i += 1
    return pairs
