"""Names of Vision Transformers: those of vit-pytorch, with which many small networks were trained, for MNIST too."""

from typing import Any

from cnn_vit.transfer.rules import ConversionRule, Guess, PublishedFile, Shapes, count_numbered, name_variant
from cnn_vit.transfer.table import TORCH_DENSE, TORCH_LAYER_NORM, TORCH_OPTIMIZER, Leaf, Row

BLOCK = "transformer.layers.{b}"
# Patches are flattened row by row, `p q` inside a patch, and their colors last.
PATCHES = (Leaf("/kernel", ".weight", "p q c d", "d (p q c)"), Leaf("/bias", ".bias"))
# The rows of one matrix are those of the queries, then of the keys, then of the values.
FUSED_QKV = (Leaf(("/query/kernel", "/key/kernel", "/value/kernel"), ".weight", "s i o", "(s o) i"),)
TABLE = (
    Row("patches", "to_patch_embedding.1", PATCHES),
    Row("cls_token", "cls_token", (Leaf("", "", "t d", "1 t d"),)),
    Row("pos_embed/embedding", "pos_embedding", (Leaf("", "", "t d", "1 t d"),)),
    Row("blocks/{b}/norm1", f"{BLOCK}.0.norm", TORCH_LAYER_NORM),
    Row("blocks/{b}/attention", f"{BLOCK}.0.fn.to_qkv", FUSED_QKV),
    Row("blocks/{b}/attention/out", f"{BLOCK}.0.fn.to_out.0", TORCH_DENSE),
    Row("blocks/{b}/norm2", f"{BLOCK}.1.norm", TORCH_LAYER_NORM),
    Row("blocks/{b}/mlp/dense1", f"{BLOCK}.1.fn.net.0", TORCH_DENSE),
    Row("blocks/{b}/mlp/dense2", f"{BLOCK}.1.fn.net.3", TORCH_DENSE),
    Row("norm", "mlp_head.0", TORCH_LAYER_NORM),
    Row("head", "mlp_head.1", TORCH_DENSE),
)


def guess(shapes: Shapes, keywords: dict[str, Any]) -> Guess:
    """Reads width, depth, hidden width, patch and image; heads and activation leave no trace in the shapes."""
    width, pixels = shapes["to_patch_embedding.1.weight"]
    patch, channels = split_pixels(pixels)
    tokens = shapes["pos_embedding"][1]
    side = int((tokens - 1) ** 0.5)  # patches; images are taken for square, which a wrong number of rows contradicts
    depth = count_numbered(shapes, BLOCK.format(b="{}") + ".0.fn.to_qkv.weight")
    inner_width = shapes[BLOCK.format(b=0) + ".0.fn.to_qkv.weight"][0] // 3
    hidden = shapes[BLOCK.format(b=0) + ".1.fn.net.0.weight"][0]
    num_classes = shapes["mlp_head.1.weight"][0]
    height = side * patch
    reasons = (
        f"{depth} blocks of width {width}, MLPs of {hidden} units",
        f"{pixels} numbers in a patch: {patch}x{patch} pixels of {channels} channel{'s' if channels > 1 else ''}",
        f"{tokens} positions: a class token and {side}x{side} patches of an image of {height}x{height} pixels",
        f"queries, keys and values of {inner_width} numbers, without bias",
    )
    sizes: dict[str, Any] = {"patch": patch, "width": width, "depth": depth, "hidden": hidden}
    divisors = tuple(number for number in range(1, inner_width + 1) if inner_width % number == 0)
    unseen = {"activation": ("gelu", "relu", "gelu_tanh"), "heads": divisors}
    heads = keywords.get("heads")
    if heads in divisors:
        sizes["heads"] = heads
        if inner_width != width:
            sizes["head_width"] = inner_width // heads
    model, left_over = name_variant("vit", sizes, otherwise=f"Ti{patch}")
    return Guess(model, num_classes, channels, (height, height), reasons, left_over, unseen)


def split_pixels(numbers: int) -> tuple[int, int]:
    """Returns the patch side and the channels whose product with the side squared is so many numbers: 48 is 4, 3.

    Three times a square is no square, so there is one answer at most.

    Raises:
        ValueError: there is none.
    """
    for channels in (1, 3):
        side = round((numbers / channels) ** 0.5)
        if side * side * channels == numbers:
            return side, channels
    raise ValueError(f"{numbers} numbers are not a square patch of 1 or 3 channels")


MNIST_DIGITS = PublishedFile(
    sha256="f742611b57b99a601fb33fbb50f262131988a2bbca0bc2d3ae8544d25cd89b2c",
    facts={
        "published_as": "vit_mnist_d64_l6_h4_p4.pt",
        "source": "https://github.com/researchase/vit-mnist-explorations",
        "revision": "325a984b",
        "licence": "MIT",
        "trained_on": ["MNIST"],
        "accuracy": "97.2 to 97.7 % on the test split",
    },
    preprocessing={"mean": [0.1307], "std": [0.3081]},
    keywords={"heads": 4, "activation": "relu"},
    classes="MNIST",
)

RULES = (
    ConversionRule(
        family="vit",
        source="PyTorch, lucidrains/vit-pytorch (with PreNorm and fn)",
        version=1,
        table=TABLE,
        signs=(
            "pos_embedding",
            "cls_token",
            "to_patch_embedding.1.weight",
            "transformer.layers.0.0.fn.to_qkv.weight",
            "transformer.layers.0.1.fn.net.3.weight",
            "mlp_head.1.weight",
        ),
        guess=guess,
        first_kernel="patches/kernel",
        prefixes=("", "module."),
        dropped=(TORCH_OPTIMIZER,),
        keywords={"qkv_bias": False, "epsilon": 1e-5},
        published=(MNIST_DIGITS,),
    ),
)

# Weights by name, as `catalog` reads them.
WEIGHTS = {
    "vit/Ti4-gap@mnist": {
        "file": "vit_ti4_gap_mnist.safetensors",
        "sha256": "50e6f1659bf084a1eef491c82c807983ca0c2fc8dc04780a13de7e7aeee8dfb3",
        "bytes": 563192,
        "license": "Apache-2.0",
        "trained_on": "mnist",
        "accuracy": 97.14,
        "accuracy_size": 28,
        "source": "configs/mnist_vit.py",
        "meaning": "gray digits of 28 pixels, width 64, 4 blocks: 97.14 % of MNIST's test split; configs/mnist_vit.py",
    },
}
