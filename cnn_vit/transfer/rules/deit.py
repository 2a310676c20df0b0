"""Names of DeiT: those of timm, which are Meta's too, and of Hugging Face.

Without distillation the names and shapes are those of a Vision Transformer; such a file becomes deit/* where the name
is given. Hugging Face keeps only distilled networks as DeiT, and the others as ViT.
"""

import math
from functools import partial
from typing import Any

from cnn_vit.errors import UserError
from cnn_vit.transfer.rules import IMAGENET, ConversionRule, Guess, Shapes
from cnn_vit.transfer.rules._transformers import (
    CLASSES,
    HF,
    HF_5,
    HF_NAMES,
    TIMM,
    TIMM_NAMES,
    TIMM_REFUSED,
    TORCH_TABLE,
    TorchNames,
    name_sizes,
    read_hf_config,
    read_torch_sizes,
    rename,
    rename_names,
)
from cnn_vit.transfer.table import TORCH_DENSE, TORCH_OPTIMIZER, Row

# A network has the rows of one head or those of two.
TABLE = (
    *TIMM,
    Row("dist_token", "dist_token", TORCH_TABLE),
    Row("head/cls", "head", TORCH_DENSE),
    Row("head/dist", "head_dist", TORCH_DENSE),
)
DEIT = {"vit.": "deit.", "classifier": "cls_classifier"}
HF_TABLE = (
    *[row for row in rename(HF, DEIT) if row.ours != "head"],
    Row("dist_token", "deit.embeddings.distillation_token", TORCH_TABLE),
    Row("head/cls", "cls_classifier", TORCH_DENSE),
    Row("head/dist", "distillation_classifier", TORCH_DENSE),
)
HF_DEIT_NAMES = rename_names(HF_NAMES, DEIT)


def guess(shapes: Shapes, keywords: dict[str, Any], *, names: TorchNames, dist_token: str) -> Guess:
    """Reads the sizes, and whether there is a second token."""
    sizes = read_torch_sizes(shapes, names)
    model, left_over, unseen, reasons = name_sizes("deit", sizes, keywords)
    learned = 1
    if dist_token in shapes:
        model += "-distilled"
        learned = 2
        reasons.append("a second learned token, which learned from a teacher")
    if sizes.tokens is None:
        raise ValueError("a DeiT has a table of positions")
    side = math.isqrt(sizes.tokens - learned)  # images are taken for square; ValueError for fewer rows than tokens
    height = side * sizes.patch
    reasons.append(f"{sizes.tokens} positions: {learned} and {side}x{side} patches of {height}x{height} pixels")
    return Guess(model, sizes.num_classes, sizes.channels, (height, height), tuple(reasons), left_over, unseen)


def read_config(config: dict[str, Any]) -> dict[str, Any]:
    """Reads from the file of JSON what no tensor tells: heads and epsilon.

    Raises:
        UserError: the activation is another one than deit/* has.
    """
    keywords = read_hf_config(config)
    activation = keywords.pop("activation", "gelu")
    if activation != "gelu":
        raise UserError(f"hidden_act={config['hidden_act']!r} of the file's config.json is not that of deit/*: gelu")
    return keywords


def make_hf_rule(source: str, table: tuple[Row, ...], names: TorchNames) -> ConversionRule:
    """Makes the rule of files of Hugging Face's transformers with these names."""
    dist_token = "deit.embeddings.distillation_token"
    return ConversionRule(
        family="deit",
        source=source,
        version=1,
        table=table,
        signs=(
            names.cls_token,
            dist_token,
            names.positions,
            names.patches,
            names.query,
            names.dense1,
            names.head,
            "distillation_classifier.weight",
        ),
        guess=partial(guess, names=names, dist_token=dist_token),
        first_kernel="patches/kernel",
        dropped=(r"deit\.pooler\..*", r"deit\.embeddings\.mask_token", TORCH_OPTIMIZER),
        keywords={"epsilon": 1e-12},
        # transformers 5.23.0, DeiTImageProcessor: 224 of 256 pixels. Its default mean and std are 0.5; the files
        # that Meta published say those of ImageNet.
        preprocessing=IMAGENET | {"fit": "crop(0.875)", "interpolation": "bicubic"},
        classes=CLASSES,
        refused={r"classifier\..*": "one head behind two learned tokens"},
        read_config=read_config,
    )


RULES = (
    ConversionRule(
        family="deit",
        source="timm, and Meta's code",
        version=1,
        table=TABLE,
        signs=(
            "pos_embed",
            "patch_embed.proj.weight",
            "blocks.0.attn.qkv.weight",
            "blocks.0.mlp.fc1.weight",
            "norm.weight",
            "head.weight",
            "dist_token",
            "head_dist.weight",
        ),
        guess=partial(guess, names=TIMM_NAMES, dist_token="dist_token"),
        first_kernel="patches/kernel",
        prefixes=("", "module."),
        dropped=(TORCH_OPTIMIZER,),
        keywords={"epsilon": 1e-6},
        # timm 1.0.31, models/deit.py, _cfg
        preprocessing=IMAGENET | {"fit": "crop(0.9)", "interpolation": "bicubic"},
        classes=CLASSES,
        refused=TIMM_REFUSED,
    ),
    make_hf_rule("Hugging Face", HF_TABLE, HF_DEIT_NAMES),
    make_hf_rule("Hugging Face, modules of version 5", rename(HF_TABLE, HF_5), rename_names(HF_DEIT_NAMES, HF_5)),
)

WEIGHTS = {
    "deit/Ti16@meta": {
        "address": "https://dl.fbaipublicfiles.com/deit/deit_tiny_patch16_224-a1311bcf.pth",
        "sha256": "a1311bcf",
        "bytes": None,
        "megabytes": 22.9,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.9)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 72.19,
        "accuracy_size": 224,
        "source": "timm 1.0.31, deit_tiny_patch16_224.fb_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "deit/Ti16-distilled@meta": {
        "address": "https://dl.fbaipublicfiles.com/deit/deit_tiny_distilled_patch16_224-b40b3cf7.pth",
        "sha256": "b40b3cf7",
        "bytes": None,
        "megabytes": 23.6,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.9)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 74.538,
        "accuracy_size": 224,
        "source": "timm 1.0.31, deit_tiny_distilled_patch16_224.fb_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "deit/S16@meta": {
        "address": "https://dl.fbaipublicfiles.com/deit/deit_small_patch16_224-cd65a155.pth",
        "sha256": "cd65a155",
        "bytes": None,
        "megabytes": 88.2,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.9)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 79.856,
        "accuracy_size": 224,
        "source": "timm 1.0.31, deit_small_patch16_224.fb_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "deit/S16-distilled@meta": {
        "address": "https://dl.fbaipublicfiles.com/deit/deit_small_distilled_patch16_224-649709d9.pth",
        "sha256": "649709d9",
        "bytes": None,
        "megabytes": 89.7,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.9)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 81.204,
        "accuracy_size": 224,
        "source": "timm 1.0.31, deit_small_distilled_patch16_224.fb_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "deit/B16@meta": {
        "address": "https://dl.fbaipublicfiles.com/deit/deit_base_patch16_224-b5f2ef4d.pth",
        "sha256": "b5f2ef4d",
        "bytes": None,
        "megabytes": 346.3,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.9)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 81.98,
        "accuracy_size": 224,
        "source": "timm 1.0.31, deit_base_patch16_224.fb_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "deit/B16-distilled@meta": {
        "address": "https://dl.fbaipublicfiles.com/deit/deit_base_distilled_patch16_224-df68dfff.pth",
        "sha256": "df68dfff",
        "bytes": None,
        "megabytes": 349.4,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.9)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 83.384,
        "accuracy_size": 224,
        "source": "timm 1.0.31, deit_base_distilled_patch16_224.fb_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "deit/B16@meta_384": {
        "address": "https://dl.fbaipublicfiles.com/deit/deit_base_patch16_384-8de9b5d1.pth",
        "sha256": "8de9b5d1",
        "bytes": None,
        "megabytes": 347.4,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [384, 384],
            "fit": "crop",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 83.108,
        "accuracy_size": 384,
        "source": "timm 1.0.31, deit_base_patch16_384.fb_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "deit/B16-distilled@meta_384": {
        "address": "https://dl.fbaipublicfiles.com/deit/deit_base_distilled_patch16_384-d0272ac0.pth",
        "sha256": "d0272ac0",
        "bytes": None,
        "megabytes": 350.5,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [384, 384],
            "fit": "crop",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 85.438,
        "accuracy_size": 384,
        "source": "timm 1.0.31, deit_base_distilled_patch16_384.fb_in1k; its results/results-imagenet.csv at aa4b5850",
    },
}
