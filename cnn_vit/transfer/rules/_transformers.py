"""What the rules of several kinds of Vision Transformers share: names and axes of each program, and what shapes tell.

What no shape tells is a property of the program: the epsilon of its norms, and whether GELU is exact (erf), as in
PyTorch, or its tanh form, as in Google's code.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from cnn_vit import models
from cnn_vit.errors import UserError
from cnn_vit.settings.values import quote_value
from cnn_vit.transfer import hub_config
from cnn_vit.transfer.rules import Guess, Shapes, count_numbered, name_variant
from cnn_vit.transfer.table import TORCH_CONV, TORCH_DENSE, TORCH_LAYER_NORM, Leaf, Row

HALF = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
CLASSES = {1000: "ImageNet-1k"}
UNSEEN_POSITIONS = ("sincos", "none")

# PyTorch: tokens and tables have an axis of size one for the batch.
TORCH_TABLE = (Leaf("", "", "t d", "1 t d"),)
# The rows of one matrix are those of the queries, then of the keys, then of the values.
TORCH_QKV = (
    Leaf(("/query/kernel", "/key/kernel", "/value/kernel"), "weight", "s i o", "(s o) i"),
    Leaf(("/query/bias", "/key/bias", "/value/bias"), "bias", "s o", "(s o)"),
)
TORCH_KV = (
    Leaf(("/key/kernel", "/value/kernel"), "weight", "s i o", "(s o) i"),
    Leaf(("/key/bias", "/value/bias"), "bias", "s o", "(s o)"),
)


# Of all programs ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sizes:
    """What the shapes of a file say of a Vision Transformer.

    Attributes:
        patch, width, depth, hidden, channels, num_classes: as the model and a guess have them.
        tokens: rows of the table of positions; None where the file has none.
        inner_width: numbers of all heads together.
        heads: where a shape tells them.
        has_cls_token, has_map_head, has_pre_logits, has_qkv_bias: what the file has.
        has_token_row: whether a class token has a row of positions in all networks of the program; None where some
            have one.
    """

    patch: int
    width: int
    depth: int
    hidden: int
    channels: int
    num_classes: int
    tokens: int | None
    inner_width: int
    heads: int | None
    has_cls_token: bool
    has_map_head: bool
    has_pre_logits: bool
    has_qkv_bias: bool
    has_token_row: bool | None = True


def name_sizes(
    family: str, sizes: Sizes, keywords: dict[str, Any]
) -> tuple[str, dict[str, Any], dict[str, tuple[Any, ...]], list[str]]:
    """Names the network of a family that has these sizes; UserError for a number of heads below 1.

    Heads leave no trace in the shapes of most programs. Those of a size of the papers are known with it; else they are
    unseen, and the number is taken from the keywords that are given.

    Returns:
        The name, keywords that it does not say, what is unseen, and the reasons.
    """
    known = {"patch": sizes.patch, "width": sizes.width, "depth": sizes.depth, "hidden": sizes.hidden}
    unseen: dict[str, tuple[Any, ...]] = {}
    otherwise = f"Ti{sizes.patch}"
    model, left_over = name_variant(family, known, otherwise=otherwise)
    heads = keywords.get("heads") if sizes.heads is None else sizes.heads
    if heads is not None:
        models.require_at_least(1, heads=heads)
    reasons = [
        f"{sizes.depth} blocks of width {sizes.width}, MLPs of {sizes.hidden} units",
        f"patches of {sizes.patch}x{sizes.patch} pixels of {sizes.channels} channel{'s' if sizes.channels > 1 else ''}",
    ]
    if heads is None:
        if left_over or sizes.inner_width != sizes.width:
            divisors = range(1, sizes.inner_width + 1)
            unseen["heads"] = tuple(number for number in divisors if sizes.inner_width % number == 0)
        else:
            reasons.append(f"sizes of {model}, whose number of heads is known")
    elif sizes.inner_width % heads == 0:
        known["heads"] = heads
        if sizes.inner_width != sizes.width:
            known["head_width"] = sizes.inner_width // heads
        model, left_over = name_variant(family, known, otherwise=otherwise)
        reasons.append(f"{heads} heads of {sizes.inner_width // heads} numbers")
    return model, left_over, unseen, reasons


def token_has_row(tokens: int, sizes: Sizes, keywords: dict[str, Any]) -> bool | None:
    """Whether the class token has one of so many rows of positions: as the user or the program says, or the rows tell.

    None where nothing tells: 9 rows are 3x3 patches alone, or a class token and 2x4 patches.
    """
    if not sizes.has_cls_token:
        return False
    if "token_position" in keywords:
        return keywords["token_position"]
    if sizes.has_token_row is not None:
        return sizes.has_token_row
    patches = count_patches(sizes, keywords)
    if patches is not None and tokens in (math.prod(patches), math.prod(patches) + 1):
        return tokens > math.prod(patches)
    return None if math.isqrt(tokens) ** 2 == tokens else True


def count_patches(sizes: Sizes, keywords: dict[str, Any]) -> tuple[int, int] | None:
    """Returns the rows and columns of patches of an image whose size is said; None where it is not, or has no such."""
    if keywords.get("image_size") is None:
        return None
    height, width = keywords["image_size"]
    if height % sizes.patch or width % sizes.patch:
        return None
    return height // sizes.patch, width // sizes.patch


def name_vit(sizes: Sizes, keywords: dict[str, Any]) -> Guess:
    """Names the Vision Transformer that has these sizes, with the suffixes of what else it has."""
    model, left_over, unseen, reasons = name_sizes("vit", sizes, keywords)
    image_size = None
    if sizes.tokens is None:
        unseen["positions"] = UNSEEN_POSITIONS
    else:
        has_row = token_has_row(sizes.tokens, sizes, keywords)
        if has_row is None:
            has_row = False
            unseen["token_position"] = (True, False)
        # Images of no size that is said are taken for square, which a wrong number of rows contradicts.
        side = math.isqrt(sizes.tokens - has_row)
        rows, columns = (side, side)
        patches = count_patches(sizes, keywords)
        if patches is not None and math.prod(patches) == sizes.tokens - has_row:
            rows, columns = patches
        image_size = (rows * sizes.patch, columns * sizes.patch)
        also = "the class token and " if has_row else ""
        pixels = f"{image_size[0]}x{image_size[1]} pixels"
        reasons.append(f"{sizes.tokens} positions: {also}{rows}x{columns} patches of {pixels}")
        if sizes.has_cls_token and not has_row and not sizes.has_map_head:  # no network of ours has both
            model += "-tok"
    if sizes.has_map_head:
        model += "-map"
    elif not sizes.has_cls_token:
        model += "-gap"
    if sizes.has_pre_logits:
        model += "-pre_logits"
    if not sizes.has_qkv_bias:
        left_over["qkv_bias"] = False
    return Guess(model, sizes.num_classes, sizes.channels, image_size, tuple(reasons), left_over, unseen)


@dataclass(frozen=True)
class TorchNames:
    """Where a program in PyTorch keeps what tells the network; {} stands for the number of a block.

    Attributes:
        patches, positions, cls_token, head: names.
        block: a weight that each block has.
        query: the weight of the queries, or of queries, keys and values together.
        query_bias, dense1: of the first block.
        is_fused: whether queries, keys and values are one matrix.
        pre_logits, map_query: of a layer before the head, and of a head that attends; "" where the program has none.
        has_token_row: as of Sizes.
    """

    patches: str
    positions: str
    cls_token: str
    head: str
    block: str
    query: str
    query_bias: str
    dense1: str
    is_fused: bool
    pre_logits: str = ""
    map_query: str = ""
    has_token_row: bool | None = True


def read_torch_sizes(shapes: Shapes, names: TorchNames) -> Sizes:
    """Reads the sizes of a network in PyTorch."""
    width, channels, patch, across = shapes[names.patches]
    if patch != across:
        raise ValueError(f"patches of {patch}x{across} pixels are not square")
    parts = 3 if names.is_fused else 1
    return Sizes(
        patch=patch,
        width=width,
        depth=count_numbered(shapes, names.block),
        hidden=shapes[names.dense1][0],
        channels=channels,
        num_classes=shapes[names.head][0],
        tokens=shapes[names.positions][1] if names.positions in shapes else None,
        inner_width=shapes[names.query][0] // parts,
        heads=None,
        has_cls_token=names.cls_token in shapes,
        has_map_head=names.map_query in shapes,
        has_pre_logits=names.pre_logits in shapes,
        has_qkv_bias=names.query_bias in shapes,
        has_token_row=names.has_token_row,
    )


def guess_torch(shapes: Shapes, keywords: dict[str, Any], *, names: TorchNames) -> Guess:
    """Reads the network of a file of PyTorch from its shapes."""
    return name_vit(read_torch_sizes(shapes, names), keywords)


# timm -----------------------------------------------------------------------------------------------------------------

TIMM_BLOCKS = (
    Row("blocks/{b}/norm1", "blocks.{b}.norm1", TORCH_LAYER_NORM),
    Row("blocks/{b}/attention", "blocks.{b}.attn.qkv.", TORCH_QKV),
    Row("blocks/{b}/attention/out", "blocks.{b}.attn.proj", TORCH_DENSE),
    Row("blocks/{b}/norm2", "blocks.{b}.norm2", TORCH_LAYER_NORM),
    Row("blocks/{b}/mlp/dense1", "blocks.{b}.mlp.fc1", TORCH_DENSE),
    Row("blocks/{b}/mlp/dense2", "blocks.{b}.mlp.fc2", TORCH_DENSE),
)
TIMM = (
    Row("patches", "patch_embed.proj", TORCH_CONV),
    Row("cls_token", "cls_token", TORCH_TABLE),
    Row("pos_embed/embedding", "pos_embed", TORCH_TABLE),
    *TIMM_BLOCKS,
    Row("norm", "norm", TORCH_LAYER_NORM),
    Row("map_head/query", "attn_pool.latent", TORCH_TABLE),
    Row("map_head/attention/query", "attn_pool.q", TORCH_DENSE),
    Row("map_head/attention", "attn_pool.kv.", TORCH_KV),
    Row("map_head/attention/out", "attn_pool.proj", TORCH_DENSE),
    Row("map_head/norm", "attn_pool.norm", TORCH_LAYER_NORM),
    Row("map_head/mlp/dense1", "attn_pool.mlp.fc1", TORCH_DENSE),
    Row("map_head/mlp/dense2", "attn_pool.mlp.fc2", TORCH_DENSE),
    Row("pre_logits", "pre_logits.fc", TORCH_DENSE),
    Row("head", "head", TORCH_DENSE),
)
TIMM_NAMES = TorchNames(
    patches="patch_embed.proj.weight",
    positions="pos_embed",
    cls_token="cls_token",
    head="head.weight",
    block="blocks.{}.norm1.weight",
    query="blocks.0.attn.qkv.weight",
    query_bias="blocks.0.attn.qkv.bias",
    dense1="blocks.0.mlp.fc1.weight",
    is_fused=True,
    pre_logits="pre_logits.fc.weight",
    map_query="attn_pool.latent",
    has_token_row=None,
)
TIMM_REFUSED = {
    r"fc_norm\..*": "a norm behind the average of the tokens, where vit/*-gap has it before",
    r"norm_pre\..*": "a norm before the first block",
    r"reg_token": "register tokens",
    r"blocks\.\d+\.ls[12]\..*": "layer scales in its blocks",
    r"blocks\.\d+\.attn\.[qk]_norm\..*": "norms of queries and keys",
    r"blocks\.\d+\.attn\.rel_pos.*": "relative positions",
    r"blocks\.\d+\.mlp\.(fc1_[gx]|w12)\..*": "gated MLPs",
}

# torchvision ----------------------------------------------------------------------------------------------------------

LAYER = "encoder.layers.encoder_layer_{b}"
TORCHVISION = (
    Row("patches", "conv_proj", TORCH_CONV),
    Row("cls_token", "class_token", TORCH_TABLE),
    Row("pos_embed/embedding", "encoder.pos_embedding", TORCH_TABLE),
    Row("blocks/{b}/norm1", f"{LAYER}.ln_1", TORCH_LAYER_NORM),
    Row("blocks/{b}/attention", f"{LAYER}.self_attention.in_proj_", TORCH_QKV),
    Row("blocks/{b}/attention/out", f"{LAYER}.self_attention.out_proj", TORCH_DENSE),
    Row("blocks/{b}/norm2", f"{LAYER}.ln_2", TORCH_LAYER_NORM),
    Row("blocks/{b}/mlp/dense1", f"{LAYER}.mlp.0", TORCH_DENSE),
    Row("blocks/{b}/mlp/dense2", f"{LAYER}.mlp.3", TORCH_DENSE),
    Row("norm", "encoder.ln", TORCH_LAYER_NORM),
    Row("pre_logits", "heads.pre_logits", TORCH_DENSE),
    Row("head", "heads.head", TORCH_DENSE),
)
TORCHVISION_NAMES = TorchNames(
    patches="conv_proj.weight",
    positions="encoder.pos_embedding",
    cls_token="class_token",
    head="heads.head.weight",
    block="encoder.layers.encoder_layer_{}.ln_1.weight",
    query="encoder.layers.encoder_layer_0.self_attention.in_proj_weight",
    query_bias="encoder.layers.encoder_layer_0.self_attention.in_proj_bias",
    dense1="encoder.layers.encoder_layer_0.mlp.0.weight",
    is_fused=True,
    pre_logits="heads.pre_logits.weight",
)


def rename(rows: Iterable[Row], names: dict[str, str]) -> tuple[Row, ...]:
    """Puts other words into the names of rows: {"mlp.0": "mlp.linear_1"}."""
    renamed = []
    for row in rows:
        theirs = row.theirs
        for word, other in names.items():
            theirs = theirs.replace(word, other)
        renamed.append(replace(row, theirs=theirs))
    return tuple(renamed)


# Its published files are older than the names of its code, and its code renames what it reads.
OLD_MLP = {"mlp.0": "mlp.linear_1", "mlp.3": "mlp.linear_2"}

# Hugging Face ---------------------------------------------------------------------------------------------------------

HF_LAYER = "vit.encoder.layer.{b}"
HF = (
    Row("patches", "vit.embeddings.patch_embeddings.projection", TORCH_CONV),
    Row("cls_token", "vit.embeddings.cls_token", TORCH_TABLE),
    Row("pos_embed/embedding", "vit.embeddings.position_embeddings", TORCH_TABLE),
    Row("blocks/{b}/norm1", f"{HF_LAYER}.layernorm_before", TORCH_LAYER_NORM),
    Row("blocks/{b}/attention/query", f"{HF_LAYER}.attention.attention.query", TORCH_DENSE),
    Row("blocks/{b}/attention/key", f"{HF_LAYER}.attention.attention.key", TORCH_DENSE),
    Row("blocks/{b}/attention/value", f"{HF_LAYER}.attention.attention.value", TORCH_DENSE),
    Row("blocks/{b}/attention/out", f"{HF_LAYER}.attention.output.dense", TORCH_DENSE),
    Row("blocks/{b}/norm2", f"{HF_LAYER}.layernorm_after", TORCH_LAYER_NORM),
    Row("blocks/{b}/mlp/dense1", f"{HF_LAYER}.intermediate.dense", TORCH_DENSE),
    Row("blocks/{b}/mlp/dense2", f"{HF_LAYER}.output.dense", TORCH_DENSE),
    Row("norm", "vit.layernorm", TORCH_LAYER_NORM),
    Row("head", "classifier", TORCH_DENSE),
)
# Words of the modules of version 5, whose `save_pretrained` still writes the names above; the first that fits is put.
HF_5 = {
    "encoder.layer.": "layers.",
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
HF_NAMES = TorchNames(
    patches="vit.embeddings.patch_embeddings.projection.weight",
    positions="vit.embeddings.position_embeddings",
    cls_token="vit.embeddings.cls_token",
    head="classifier.weight",
    block="vit.encoder.layer.{}.layernorm_before.weight",
    query="vit.encoder.layer.0.attention.attention.query.weight",
    query_bias="vit.encoder.layer.0.attention.attention.query.bias",
    dense1="vit.encoder.layer.0.intermediate.dense.weight",
    is_fused=False,
)
HF_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}


def rename_names(names: TorchNames, words: dict[str, str]) -> TorchNames:
    """Puts other words into the names of a program."""
    changes: dict[str, Any] = {}
    for key, name in vars(names).items():
        if isinstance(name, str):
            for word, other in words.items():
                name = name.replace(word, other)
            changes[key] = name
    return replace(names, **changes)


def read_hf_config(config: dict[str, Any]) -> dict[str, Any]:
    """Reads from a config.json what no tensor tells: heads, epsilon, activation.

    Raises:
        UserError: a number cannot be, or the activation is none of the family's.
    """
    keywords: dict[str, Any] = {}
    if "num_attention_heads" in config:
        keywords["heads"] = hub_config.read_count(config, "num_attention_heads")
    if "layer_norm_eps" in config:
        keywords["epsilon"] = hub_config.read_positive(config, "layer_norm_eps")
    if "hidden_act" in config:
        activation = config["hidden_act"]
        if not isinstance(activation, str) or activation not in HF_ACTIVATIONS:
            raise UserError(
                f"hidden_act={quote_value(activation)} of the file's config.json is not one of "
                f"{', '.join(HF_ACTIVATIONS)}"
            )
        keywords["activation"] = HF_ACTIVATIONS[activation]
    return keywords


# Google ---------------------------------------------------------------------------------------------------------------

FLAX_DENSE = (Leaf("/kernel", "/kernel"), Leaf("/bias", "/bias"))
FLAX_LAYER_NORM = (Leaf("/scale", "/scale"), Leaf("/bias", "/bias"))
# Heads have an axis of their own: (D, A, E) into queries, keys and values, (A, E, D) out of all heads together.
FLAX_INTO_HEADS = (Leaf("/kernel", "/kernel", "i (a e)", "i a e"), Leaf("/bias", "/bias", "(a e)", "a e"))
FLAX_OUT_OF_HEADS = (Leaf("/kernel", "/kernel", "(a e) o", "a e o"), Leaf("/bias", "/bias"))


def attention_rows(ours: str, theirs: str) -> tuple[Row, ...]:
    """The four dense layers of attention in Flax."""
    return (
        Row(f"{ours}/query", f"{theirs}/query", FLAX_INTO_HEADS),
        Row(f"{ours}/key", f"{theirs}/key", FLAX_INTO_HEADS),
        Row(f"{ours}/value", f"{theirs}/value", FLAX_INTO_HEADS),
        Row(f"{ours}/out", f"{theirs}/out", FLAX_OUT_OF_HEADS),
    )


@dataclass(frozen=True)
class FlaxNames:
    """How one of Google's codes names what is in a block, and the positions.

    Attributes:
        block: the path of a block, or of all blocks together.
        norm1, attention, norm2, mlp: what is in it, with Flax's running number.
        positions: the table.
        has_token_row: as of Sizes.
    """

    block: str
    norm1: str
    attention: str
    norm2: str
    mlp: str
    positions: str
    has_token_row: bool | None


VISION_TRANSFORMER = FlaxNames(
    "Transformer/encoderblock_{b}",
    "LayerNorm_0",
    "MultiHeadDotProductAttention_1",
    "LayerNorm_2",
    "MlpBlock_3",
    "Transformer/posembed_input/pos_embedding",
    has_token_row=True,
)
BIG_VISION = FlaxNames(
    "Transformer/encoderblock_{b}",
    "LayerNorm_0",
    "MultiHeadDotProductAttention_0",
    "LayerNorm_1",
    "MlpBlock_0",
    "pos_embedding",
    has_token_row=False,
)
STACKED = replace(BIG_VISION, block="Transformer/encoderblock")


def flax_table(names: FlaxNames) -> tuple[Row, ...]:
    """Makes the table of one of Google's codes."""
    return (
        Row("patches", "embedding", FLAX_DENSE),
        Row("cls_token", "cls", TORCH_TABLE),
        Row("pos_embed/embedding", names.positions, TORCH_TABLE),
        Row("blocks/{b}/norm1", f"{names.block}/{names.norm1}", FLAX_LAYER_NORM),
        *attention_rows("blocks/{b}/attention", f"{names.block}/{names.attention}"),
        Row("blocks/{b}/norm2", f"{names.block}/{names.norm2}", FLAX_LAYER_NORM),
        Row("blocks/{b}/mlp/dense1", f"{names.block}/{names.mlp}/Dense_0", FLAX_DENSE),
        Row("blocks/{b}/mlp/dense2", f"{names.block}/{names.mlp}/Dense_1", FLAX_DENSE),
        Row("norm", "Transformer/encoder_norm", FLAX_LAYER_NORM),
        Row("map_head/query", "MAPHead_0/probe", TORCH_TABLE),
        *attention_rows("map_head/attention", "MAPHead_0/MultiHeadDotProductAttention_0"),
        Row("map_head/norm", "MAPHead_0/LayerNorm_0", FLAX_LAYER_NORM),
        Row("map_head/mlp/dense1", "MAPHead_0/MlpBlock_0/Dense_0", FLAX_DENSE),
        Row("map_head/mlp/dense2", "MAPHead_0/MlpBlock_0/Dense_1", FLAX_DENSE),
        Row("pre_logits", "pre_logits", FLAX_DENSE),
        Row("head", "head", FLAX_DENSE),
    )


def guess_flax(shapes: Shapes, keywords: dict[str, Any], *, names: FlaxNames) -> Guess:
    """Reads the sizes of a network of Google's, whose arrays tell heads too."""
    patch, across, channels, width = shapes["embedding/kernel"]
    if patch != across:
        raise ValueError(f"patches of {patch}x{across} pixels are not square")
    query = shapes[f"{names.block}/{names.attention}/query/kernel".format(b=0)]
    dense1 = shapes[f"{names.block}/{names.mlp}/Dense_0/kernel".format(b=0)]
    is_stacked = names.block == STACKED.block
    _, heads, head_width = query[-3:]
    sizes = Sizes(
        patch=patch,
        width=width,
        depth=query[0] if is_stacked else count_numbered(shapes, f"{names.block}/{names.norm1}/scale".format(b="{}")),
        hidden=dense1[-1],
        channels=channels,
        num_classes=shapes["head/kernel"][1],
        tokens=shapes[names.positions][1] if names.positions in shapes else None,
        inner_width=heads * head_width,
        heads=heads,
        has_cls_token="cls" in shapes,
        has_map_head="MAPHead_0/probe" in shapes,
        has_pre_logits="pre_logits/kernel" in shapes,
        has_qkv_bias=f"{names.block}/{names.attention}/query/bias".format(b=0) in shapes,
        has_token_row=names.has_token_row,
    )
    return name_vit(sizes, keywords)


FLAX_REFUSED = {
    r"t/.*": "a temperature and towers of image and text",
    r"(img|txt)/.*": "a tower of image or text beside a classifier",
    r"embedding/root.*|conv_root/.*|gn_root/.*|block\d+/.*": "a ResNet before its transformer",
}
