"""Names of Vision Transformers: vit-pytorch, timm, torchvision, Hugging Face, and Google's two codes.

With vit-pytorch many small networks were trained, for MNIST too. Google's files keep the tanh form of GELU that they
were trained with, and timm's own loader of the same files computes with erf, a few times 1e-4 apart: a file of Google's
becomes a network with `gelu_tanh`, timm's own file of the same weights one with `gelu`, and the card says which.
"""

import math
from functools import partial
from typing import Any

from cnn_vit.transfer.rules import IMAGENET, ConversionRule, Guess, PublishedFile, Shapes, count_numbered, name_variant
from cnn_vit.transfer.rules._transformers import (
    BIG_VISION,
    CLASSES,
    FLAX_REFUSED,
    HALF,
    HF,
    HF_5,
    HF_NAMES,
    OLD_MLP,
    STACKED,
    TIMM,
    TIMM_NAMES,
    TIMM_REFUSED,
    TORCH_QKV,
    TORCH_TABLE,
    TORCHVISION,
    TORCHVISION_NAMES,
    VISION_TRANSFORMER,
    FlaxNames,
    TorchNames,
    flax_table,
    guess_flax,
    guess_torch,
    read_hf_config,
    rename,
    rename_names,
)
from cnn_vit.transfer.table import TORCH_DENSE, TORCH_LAYER_NORM, TORCH_OPTIMIZER, Leaf, Row

# vit-pytorch ----------------------------------------------------------------------------------------------------------

BLOCK = "transformer.layers.{b}"
# Patches are flattened row by row, `p q` inside a patch, and their colors last.
PATCHES = (Leaf("/kernel", ".weight", "p q c d", "d (p q c)"), Leaf("/bias", ".bias"))
VIT_PYTORCH = (
    Row("patches", "to_patch_embedding.1", PATCHES),
    Row("cls_token", "cls_token", TORCH_TABLE),
    Row("pos_embed/embedding", "pos_embedding", TORCH_TABLE),
    Row("blocks/{b}/norm1", f"{BLOCK}.0.norm", TORCH_LAYER_NORM),
    Row("blocks/{b}/attention", f"{BLOCK}.0.fn.to_qkv.", TORCH_QKV),
    Row("blocks/{b}/attention/out", f"{BLOCK}.0.fn.to_out.0", TORCH_DENSE),
    Row("blocks/{b}/norm2", f"{BLOCK}.1.norm", TORCH_LAYER_NORM),
    Row("blocks/{b}/mlp/dense1", f"{BLOCK}.1.fn.net.0", TORCH_DENSE),
    Row("blocks/{b}/mlp/dense2", f"{BLOCK}.1.fn.net.3", TORCH_DENSE),
    Row("norm", "mlp_head.0", TORCH_LAYER_NORM),
    Row("head", "mlp_head.1", TORCH_DENSE),
)


def guess_vit_pytorch(shapes: Shapes, keywords: dict[str, Any]) -> Guess:
    """Reads width, depth, hidden width, patch and image; heads and activation leave no trace in the shapes."""
    width, pixels = shapes["to_patch_embedding.1.weight"]
    patch, channels = split_pixels(pixels)
    tokens = shapes["pos_embedding"][1]
    # Patches; images are taken for square, which a wrong number of rows contradicts; ValueError for none.
    side = math.isqrt(tokens - 1)
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

# The rules ------------------------------------------------------------------------------------------------------------


def make_torchvision_rule(source: str, table: tuple[Row, ...], names: TorchNames) -> ConversionRule:
    """Makes the rule of files of torchvision with these names."""
    return ConversionRule(
        family="vit",
        source=source,
        version=1,
        table=table,
        signs=(names.cls_token, names.positions, names.patches, names.query, names.dense1, names.head),
        guess=partial(guess_torch, names=names),
        first_kernel="patches/kernel",
        prefixes=("", "module."),
        dropped=(TORCH_OPTIMIZER,),
        keywords={"activation": "gelu", "epsilon": 1e-6},
        # torchvision 0.28.0, ViT_B_16_Weights.IMAGENET1K_V1: 224 of 256 pixels
        preprocessing=IMAGENET | {"fit": "crop(0.875)", "interpolation": "bilinear"},
        classes=CLASSES,
    )


def make_hf_rule(source: str, table: tuple[Row, ...], names: TorchNames) -> ConversionRule:
    """Makes the rule of files of Hugging Face's transformers with these names."""
    return ConversionRule(
        family="vit",
        source=source,
        version=1,
        table=table,
        signs=(names.cls_token, names.positions, names.patches, names.query, names.dense1, names.head),
        guess=partial(guess_torch, names=names),
        first_kernel="patches/kernel",
        dropped=(r"vit\.pooler\..*", r"vit\.embeddings\.mask_token", TORCH_OPTIMIZER),
        keywords={"activation": "gelu", "epsilon": 1e-12},
        # transformers 5.23.0, ViTImageProcessor
        preprocessing=HALF | {"fit": "stretch", "interpolation": "bilinear"},
        classes=CLASSES,
        read_config=read_hf_config,
    )


def make_flax_rule(source: str, names: FlaxNames, *, fit: str) -> ConversionRule:
    """Makes the rule of one of Google's codes.

    Args:
        source: the code, for people.
        names: what it calls the parts of a block.
        fit: how its evaluation brings images to their size: resized to both sides in vision_transformer's
            input_pipeline.py, the middle 224 of 256 pixels in big_vision's configs/vit_i1k.py.
    """
    block = names.block.format(b=0)
    return ConversionRule(
        family="vit",
        source=source,
        version=1,
        table=flax_table(names),
        signs=(
            "embedding/kernel",
            f"{block}/{names.norm1}/scale",
            f"{block}/{names.attention}/query/kernel",
            f"{block}/{names.mlp}/Dense_0/kernel",
            "Transformer/encoder_norm/scale",
            "head/kernel",
        ),
        guess=partial(guess_flax, names=names),
        first_kernel="patches/kernel",
        prefixes=("", "params/", "opt/target/"),
        dropped=(r"(opt/(?!target/)|chrono/).*",),  # what an optimizer and a clock keep
        keywords={"activation": "gelu_tanh", "epsilon": 1e-6},
        preprocessing=HALF | {"fit": fit, "interpolation": "bilinear"},
        classes=CLASSES,
        letters={"a": "heads"},
        refused=FLAX_REFUSED,
    )


RULES = (
    ConversionRule(
        family="vit",
        source="PyTorch, lucidrains/vit-pytorch (with PreNorm and fn)",
        version=1,
        table=VIT_PYTORCH,
        signs=(
            "pos_embedding",
            "cls_token",
            "to_patch_embedding.1.weight",
            "transformer.layers.0.0.fn.to_qkv.weight",
            "transformer.layers.0.1.fn.net.3.weight",
            "mlp_head.1.weight",
        ),
        guess=guess_vit_pytorch,
        first_kernel="patches/kernel",
        prefixes=("", "module."),
        dropped=(TORCH_OPTIMIZER,),
        keywords={"qkv_bias": False, "epsilon": 1e-5},
        published=(MNIST_DIGITS,),
        targets=("vit-pytorch",),
    ),
    ConversionRule(
        family="vit",
        source="timm",
        version=1,
        table=TIMM,
        signs=(
            "pos_embed",
            "patch_embed.proj.weight",
            "blocks.0.attn.qkv.weight",
            "blocks.0.mlp.fc1.weight",
            "norm.weight",
            "head.weight",
        ),
        guess=partial(guess_torch, names=TIMM_NAMES),
        first_kernel="patches/kernel",
        prefixes=("", "module."),
        dropped=(TORCH_OPTIMIZER,),
        keywords={"activation": "gelu", "epsilon": 1e-6},
        # timm 1.0.31, models/vision_transformer.py, _cfg
        preprocessing=HALF | {"fit": "crop(0.9)", "interpolation": "bicubic"},
        classes=CLASSES,
        refused=TIMM_REFUSED,
    ),
    make_torchvision_rule("torchvision", TORCHVISION, TORCHVISION_NAMES),
    make_torchvision_rule(
        "torchvision, files with mlp.linear_1", rename(TORCHVISION, OLD_MLP), rename_names(TORCHVISION_NAMES, OLD_MLP)
    ),
    make_hf_rule("Hugging Face", HF, HF_NAMES),
    make_hf_rule("Hugging Face, modules of version 5", rename(HF, HF_5), rename_names(HF_NAMES, HF_5)),
    make_flax_rule("Google, vision_transformer", VISION_TRANSFORMER, fit="stretch"),
    make_flax_rule("Google, big_vision", BIG_VISION, fit="crop(0.875)"),
    make_flax_rule("Google, big_vision with stacked blocks", STACKED, fit="crop(0.875)"),
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
    "vit/Ti16@augreg_in21k_ft_in1k": {
        "address": (
            "https://huggingface.co/timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k/resolve/main/model.safetensors"
        ),
        "sha256": None,
        "bytes": None,
        "megabytes": 22.9,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": [224, 224],
            "fit": "crop(0.9)",
            "interpolation": "bicubic",
        },
        "trained_on": ["ImageNet-21k", "ImageNet-1k"],
        "accuracy": 75.452,
        "accuracy_size": 224,
        "source": (
            "timm 1.0.31, vit_tiny_patch16_224.augreg_in21k_ft_in1k; its results/results-imagenet.csv at aa4b5850"
        ),
    },
    "vit/S32@augreg_in21k_ft_in1k": {
        "address": (
            "https://huggingface.co/timm/vit_small_patch32_224.augreg_in21k_ft_in1k/resolve/main/model.safetensors"
        ),
        "sha256": None,
        "bytes": None,
        "megabytes": 91.5,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": [224, 224],
            "fit": "crop(0.9)",
            "interpolation": "bicubic",
        },
        "trained_on": ["ImageNet-21k", "ImageNet-1k"],
        "accuracy": 76.01,
        "accuracy_size": 224,
        "source": (
            "timm 1.0.31, vit_small_patch32_224.augreg_in21k_ft_in1k; its results/results-imagenet.csv at aa4b5850"
        ),
    },
    "vit/S16@augreg_in21k_ft_in1k": {
        "address": (
            "https://huggingface.co/timm/vit_small_patch16_224.augreg_in21k_ft_in1k/resolve/main/model.safetensors"
        ),
        "sha256": None,
        "bytes": None,
        "megabytes": 88.2,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": [224, 224],
            "fit": "crop(0.9)",
            "interpolation": "bicubic",
        },
        "trained_on": ["ImageNet-21k", "ImageNet-1k"],
        "accuracy": 81.402,
        "accuracy_size": 224,
        "source": (
            "timm 1.0.31, vit_small_patch16_224.augreg_in21k_ft_in1k; its results/results-imagenet.csv at aa4b5850"
        ),
    },
    "vit/B32@augreg_in21k_ft_in1k": {
        "address": (
            "https://huggingface.co/timm/vit_base_patch32_224.augreg_in21k_ft_in1k/resolve/main/model.safetensors"
        ),
        "sha256": None,
        "bytes": None,
        "megabytes": 352.9,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": [224, 224],
            "fit": "crop(0.9)",
            "interpolation": "bicubic",
        },
        "trained_on": ["ImageNet-21k", "ImageNet-1k"],
        "accuracy": 80.732,
        "accuracy_size": 224,
        "source": (
            "timm 1.0.31, vit_base_patch32_224.augreg_in21k_ft_in1k; its results/results-imagenet.csv at aa4b5850"
        ),
    },
    "vit/B16@augreg_in21k_ft_in1k": {
        "address": (
            "https://huggingface.co/timm/vit_base_patch16_224.augreg_in21k_ft_in1k/resolve/main/model.safetensors"
        ),
        "sha256": None,
        "bytes": None,
        "megabytes": 346.3,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": [224, 224],
            "fit": "crop(0.9)",
            "interpolation": "bicubic",
        },
        "trained_on": ["ImageNet-21k", "ImageNet-1k"],
        "accuracy": 84.534,
        "accuracy_size": 224,
        "source": (
            "timm 1.0.31, vit_base_patch16_224.augreg_in21k_ft_in1k; its results/results-imagenet.csv at aa4b5850"
        ),
    },
    "vit/B8@augreg_in21k_ft_in1k": {
        "address": (
            "https://huggingface.co/timm/vit_base_patch8_224.augreg_in21k_ft_in1k/resolve/main/model.safetensors"
        ),
        "sha256": None,
        "bytes": None,
        "megabytes": 346.3,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": [224, 224],
            "fit": "crop(0.9)",
            "interpolation": "bicubic",
        },
        "trained_on": ["ImageNet-21k", "ImageNet-1k"],
        "accuracy": 85.838,
        "accuracy_size": 224,
        "source": "timm 1.0.31, vit_base_patch8_224.augreg_in21k_ft_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "vit/L16@augreg_in21k_ft_in1k": {
        "address": (
            "https://huggingface.co/timm/vit_large_patch16_224.augreg_in21k_ft_in1k/resolve/main/model.safetensors"
        ),
        "sha256": None,
        "bytes": None,
        "megabytes": 1217.3,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": [224, 224],
            "fit": "crop(0.9)",
            "interpolation": "bicubic",
        },
        "trained_on": ["ImageNet-21k", "ImageNet-1k"],
        "accuracy": 85.856,
        "accuracy_size": 224,
        "source": (
            "timm 1.0.31, vit_large_patch16_224.augreg_in21k_ft_in1k; its results/results-imagenet.csv at aa4b5850"
        ),
    },
    "vit/Ti16@augreg_in21k_ft_in1k_384": {
        "address": (
            "https://huggingface.co/timm/vit_tiny_patch16_384.augreg_in21k_ft_in1k/resolve/main/model.safetensors"
        ),
        "sha256": None,
        "bytes": None,
        "megabytes": 23.2,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": [384, 384],
            "fit": "crop",
            "interpolation": "bicubic",
        },
        "trained_on": ["ImageNet-21k", "ImageNet-1k"],
        "accuracy": 78.438,
        "accuracy_size": 384,
        "source": (
            "timm 1.0.31, vit_tiny_patch16_384.augreg_in21k_ft_in1k; its results/results-imagenet.csv at aa4b5850"
        ),
    },
    "vit/S16@augreg_in21k_ft_in1k_384": {
        "address": (
            "https://huggingface.co/timm/vit_small_patch16_384.augreg_in21k_ft_in1k/resolve/main/model.safetensors"
        ),
        "sha256": None,
        "bytes": None,
        "megabytes": 88.8,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": [384, 384],
            "fit": "crop",
            "interpolation": "bicubic",
        },
        "trained_on": ["ImageNet-21k", "ImageNet-1k"],
        "accuracy": 83.814,
        "accuracy_size": 384,
        "source": (
            "timm 1.0.31, vit_small_patch16_384.augreg_in21k_ft_in1k; its results/results-imagenet.csv at aa4b5850"
        ),
    },
    "vit/B16@augreg_in21k_ft_in1k_384": {
        "address": (
            "https://huggingface.co/timm/vit_base_patch16_384.augreg_in21k_ft_in1k/resolve/main/model.safetensors"
        ),
        "sha256": None,
        "bytes": None,
        "megabytes": 347.4,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": [384, 384],
            "fit": "crop",
            "interpolation": "bicubic",
        },
        "trained_on": ["ImageNet-21k", "ImageNet-1k"],
        "accuracy": 86.01,
        "accuracy_size": 384,
        "source": (
            "timm 1.0.31, vit_base_patch16_384.augreg_in21k_ft_in1k; its results/results-imagenet.csv at aa4b5850"
        ),
    },
    "vit/L16@augreg_in21k_ft_in1k_384": {
        "address": (
            "https://huggingface.co/timm/vit_large_patch16_384.augreg_in21k_ft_in1k/resolve/main/model.safetensors"
        ),
        "sha256": None,
        "bytes": None,
        "megabytes": 1218.9,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": [384, 384],
            "fit": "crop",
            "interpolation": "bicubic",
        },
        "trained_on": ["ImageNet-21k", "ImageNet-1k"],
        "accuracy": 87.096,
        "accuracy_size": 384,
        "source": (
            "timm 1.0.31, vit_large_patch16_384.augreg_in21k_ft_in1k; its results/results-imagenet.csv at aa4b5850"
        ),
    },
    "vit/S16@augreg_in1k": {
        "address": "https://huggingface.co/timm/vit_small_patch16_224.augreg_in1k/resolve/main/model.safetensors",
        "sha256": None,
        "bytes": None,
        "megabytes": 88.2,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": [224, 224],
            "fit": "crop(0.9)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 78.842,
        "accuracy_size": 224,
        "source": "timm 1.0.31, vit_small_patch16_224.augreg_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "vit/B16@augreg_in1k": {
        "address": "https://huggingface.co/timm/vit_base_patch16_224.augreg_in1k/resolve/main/model.safetensors",
        "sha256": None,
        "bytes": None,
        "megabytes": 346.3,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": [224, 224],
            "fit": "crop(0.9)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 79.154,
        "accuracy_size": 224,
        "source": "timm 1.0.31, vit_base_patch16_224.augreg_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "vit/B16@augreg2_in21k_ft_in1k": {
        "address": (
            "https://huggingface.co/timm/vit_base_patch16_224.augreg2_in21k_ft_in1k/resolve/main/model.safetensors"
        ),
        "sha256": None,
        "bytes": None,
        "megabytes": 346.3,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": [224, 224],
            "fit": "crop(0.9)",
            "interpolation": "bicubic",
        },
        "trained_on": ["ImageNet-21k", "ImageNet-1k"],
        "accuracy": 85.108,
        "accuracy_size": 224,
        "source": (
            "timm 1.0.31, vit_base_patch16_224.augreg2_in21k_ft_in1k; its results/results-imagenet.csv at aa4b5850"
        ),
    },
    "vit/B16@orig_in21k_ft_in1k": {
        "address": "https://huggingface.co/timm/vit_base_patch16_224.orig_in21k_ft_in1k/resolve/main/model.safetensors",
        "sha256": None,
        "bytes": None,
        "megabytes": 346.3,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": [224, 224],
            "fit": "crop(0.9)",
            "interpolation": "bicubic",
        },
        "trained_on": ["ImageNet-21k", "ImageNet-1k"],
        "accuracy": 81.782,
        "accuracy_size": 224,
        "source": "timm 1.0.31, vit_base_patch16_224.orig_in21k_ft_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "vit/Ti16@augreg_in21k": {
        "address": "https://huggingface.co/timm/vit_tiny_patch16_224.augreg_in21k/resolve/main/model.safetensors",
        "sha256": None,
        "bytes": None,
        "megabytes": 39.0,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": [224, 224],
            "fit": "crop(0.9)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-21k",
        "accuracy": None,
        "accuracy_size": None,
        "source": "timm 1.0.31, vit_tiny_patch16_224.augreg_in21k",
    },
    "vit/S16@augreg_in21k": {
        "address": "https://huggingface.co/timm/vit_small_patch16_224.augreg_in21k/resolve/main/model.safetensors",
        "sha256": None,
        "bytes": None,
        "megabytes": 120.3,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": [224, 224],
            "fit": "crop(0.9)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-21k",
        "accuracy": None,
        "accuracy_size": None,
        "source": "timm 1.0.31, vit_small_patch16_224.augreg_in21k",
    },
    "vit/B16@augreg_in21k": {
        "address": "https://huggingface.co/timm/vit_base_patch16_224.augreg_in21k/resolve/main/model.safetensors",
        "sha256": None,
        "bytes": None,
        "megabytes": 410.4,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": [224, 224],
            "fit": "crop(0.9)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-21k",
        "accuracy": None,
        "accuracy_size": None,
        "source": "timm 1.0.31, vit_base_patch16_224.augreg_in21k",
    },
    "vit/Ti16@google_augreg_384": {
        "address": (
            "https://storage.googleapis.com/vit_models/augreg/"
            "Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_384.npz"
        ),
        "sha256": None,
        "bytes": None,
        "megabytes": 23.2,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": [384, 384],
            "fit": "stretch",
            "interpolation": "bilinear",
        },
        "trained_on": ["ImageNet-21k", "ImageNet-1k"],
        "accuracy": 78.22,
        "accuracy_size": 384,
        "source": "README.md and input_pipeline.py of google-research/vision_transformer at c6de1e53",
    },
    "vit/S32@google_augreg_384": {
        "address": (
            "https://storage.googleapis.com/vit_models/augreg/"
            "S_32-i21k-300ep-lr_0.001-aug_none-wd_0.1-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.01-res_384.npz"
        ),
        "sha256": None,
        "bytes": None,
        "megabytes": 91.7,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": [384, 384],
            "fit": "stretch",
            "interpolation": "bilinear",
        },
        "trained_on": ["ImageNet-21k", "ImageNet-1k"],
        "accuracy": 79.58,
        "accuracy_size": 384,
        "source": "README.md and input_pipeline.py of google-research/vision_transformer at c6de1e53",
    },
    "vit/S16@google_augreg_384": {
        "address": (
            "https://storage.googleapis.com/vit_models/augreg/"
            "S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_384.npz"
        ),
        "sha256": None,
        "bytes": None,
        "megabytes": 88.8,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": [384, 384],
            "fit": "stretch",
            "interpolation": "bilinear",
        },
        "trained_on": ["ImageNet-21k", "ImageNet-1k"],
        "accuracy": 83.73,
        "accuracy_size": 384,
        "source": "README.md and input_pipeline.py of google-research/vision_transformer at c6de1e53",
    },
    "vit/B32@google_augreg_384": {
        "address": (
            "https://storage.googleapis.com/vit_models/augreg/"
            "B_32-i21k-300ep-lr_0.001-aug_light1-wd_0.1-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.01-res_384.npz"
        ),
        "sha256": None,
        "bytes": None,
        "megabytes": 353.2,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": [384, 384],
            "fit": "stretch",
            "interpolation": "bilinear",
        },
        "trained_on": ["ImageNet-21k", "ImageNet-1k"],
        "accuracy": 83.59,
        "accuracy_size": 384,
        "source": "README.md and input_pipeline.py of google-research/vision_transformer at c6de1e53",
    },
    "vit/B16@google_augreg_384": {
        "address": (
            "https://storage.googleapis.com/vit_models/augreg/"
            "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_384.npz"
        ),
        "sha256": None,
        "bytes": None,
        "megabytes": 347.4,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": [384, 384],
            "fit": "stretch",
            "interpolation": "bilinear",
        },
        "trained_on": ["ImageNet-21k", "ImageNet-1k"],
        "accuracy": 85.49,
        "accuracy_size": 384,
        "source": "README.md and input_pipeline.py of google-research/vision_transformer at c6de1e53",
    },
    "vit/L16@google_augreg_384": {
        "address": (
            "https://storage.googleapis.com/vit_models/augreg/"
            "L_16-i21k-300ep-lr_0.001-aug_strong1-wd_0.1-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.01-res_384.npz"
        ),
        "sha256": None,
        "bytes": None,
        "megabytes": 1218.9,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": [384, 384],
            "fit": "stretch",
            "interpolation": "bilinear",
        },
        "trained_on": ["ImageNet-21k", "ImageNet-1k"],
        "accuracy": 85.59,
        "accuracy_size": 384,
        "source": "README.md and input_pipeline.py of google-research/vision_transformer at c6de1e53",
    },
    "vit/B16@google_augreg_in21k": {
        "address": (
            "https://storage.googleapis.com/vit_models/augreg/"
            "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0.npz"
        ),
        "sha256": None,
        "bytes": None,
        "megabytes": 410.4,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": [224, 224],
            "fit": "stretch",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-21k",
        "accuracy": None,
        "accuracy_size": None,
        "source": "README.md and input_pipeline.py of google-research/vision_transformer at c6de1e53",
    },
    "vit/B16-pre_logits@google_in21k": {
        "address": "https://storage.googleapis.com/vit_models/imagenet21k/ViT-B_16.npz",
        "sha256": None,
        "bytes": None,
        "megabytes": 412.7,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": [224, 224],
            "fit": "stretch",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-21k",
        "accuracy": None,
        "accuracy_size": None,
        "source": "README.md and input_pipeline.py of google-research/vision_transformer at c6de1e53",
    },
    "vit/B16@torchvision": {
        "address": "https://download.pytorch.org/models/vit_b_16-c867db91.pth",
        "sha256": "c867db91",
        "bytes": None,
        "megabytes": 346.3,
        "license": "BSD-3-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 81.072,
        "accuracy_size": 224,
        "source": "torchvision 0.28.0, ViT_B_16_Weights.IMAGENET1K_V1",
    },
    "vit/B32@torchvision": {
        "address": "https://download.pytorch.org/models/vit_b_32-d86f8d99.pth",
        "sha256": "d86f8d99",
        "bytes": None,
        "megabytes": 353.0,
        "license": "BSD-3-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 75.912,
        "accuracy_size": 224,
        "source": "torchvision 0.28.0, ViT_B_32_Weights.IMAGENET1K_V1",
    },
    "vit/L16@torchvision": {
        "address": "https://download.pytorch.org/models/vit_l_16-852ce7e3.pth",
        "sha256": "852ce7e3",
        "bytes": None,
        "megabytes": 1217.4,
        "license": "BSD-3-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.926)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 79.662,
        "accuracy_size": 224,
        "source": "torchvision 0.28.0, ViT_L_16_Weights.IMAGENET1K_V1",
    },
    "vit/L32@torchvision": {
        "address": "https://download.pytorch.org/models/vit_l_32-c7638314.pth",
        "sha256": "c7638314",
        "bytes": None,
        "megabytes": 1226.3,
        "license": "BSD-3-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 76.972,
        "accuracy_size": 224,
        "source": "torchvision 0.28.0, ViT_L_32_Weights.IMAGENET1K_V1",
    },
    "vit/B16@torchvision_swag": {
        "address": "https://download.pytorch.org/models/vit_b_16_swag-9ac1b537.pth",
        "sha256": "9ac1b537",
        "bytes": None,
        "megabytes": 347.5,
        "license": "CC-BY-NC-4.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [384, 384],
            "fit": "crop",
            "interpolation": "bicubic",
        },
        "trained_on": ["Instagram, by hashtags", "ImageNet-1k"],
        "accuracy": 85.304,
        "accuracy_size": 384,
        "source": (
            "torchvision 0.28.0, ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1; licence: LICENSE of facebookresearch/SWAG"
        ),
    },
    "vit/L16@torchvision_swag": {
        "address": "https://download.pytorch.org/models/vit_l_16_swag-4f3808c9.pth",
        "sha256": "4f3808c9",
        "bytes": None,
        "megabytes": 1220.8,
        "license": "CC-BY-NC-4.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [512, 512],
            "fit": "crop",
            "interpolation": "bicubic",
        },
        "trained_on": ["Instagram, by hashtags", "ImageNet-1k"],
        "accuracy": 88.064,
        "accuracy_size": 512,
        "source": (
            "torchvision 0.28.0, ViT_L_16_Weights.IMAGENET1K_SWAG_E2E_V1; licence: LICENSE of facebookresearch/SWAG"
        ),
    },
    "vit/H14@torchvision_swag": {
        "address": "https://download.pytorch.org/models/vit_h_14_swag-80465313.pth",
        "sha256": "80465313",
        "bytes": None,
        "megabytes": 2534.0,
        "license": "CC-BY-NC-4.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [518, 518],
            "fit": "crop",
            "interpolation": "bicubic",
        },
        "trained_on": ["Instagram, by hashtags", "ImageNet-1k"],
        "accuracy": 88.552,
        "accuracy_size": 518,
        "source": (
            "torchvision 0.28.0, ViT_H_14_Weights.IMAGENET1K_SWAG_E2E_V1; licence: LICENSE of facebookresearch/SWAG"
        ),
    },
    "vit/B16@huggingface": {
        "address": "https://huggingface.co/google/vit-base-patch16-224/resolve/main/model.safetensors",
        "sha256": None,
        "bytes": None,
        "megabytes": 346.3,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": [224, 224],
            "fit": "stretch",
            "interpolation": "bilinear",
        },
        "trained_on": ["ImageNet-21k", "ImageNet-1k"],
        "accuracy": None,
        "accuracy_size": None,
        "source": (
            "transformers 5.23.0, ViTConfig and ViTImageProcessor, whose defaults are those of "
            "google/vit-base-patch16-224"
        ),
    },
}
