"""Names of MobileNetV2: those of torchvision, which numbers all blocks through, and of timm, which counts by stages."""

from collections.abc import Callable
from typing import Any

from cnn_vit.models import round_filters
from cnn_vit.models.mobilenet_v2 import FILTERS, LAST_FILTERS, STEM_FILTERS
from cnn_vit.transfer.rules import (
    IMAGENET,
    ConversionRule,
    Guess,
    Shapes,
    count_numbered,
    find_multiplier,
    name_variant,
)
from cnn_vit.transfer.table import TORCH_BATCH_NORM, TORCH_CONV, TORCH_COUNTER, TORCH_DENSE, TORCH_OPTIMIZER, Row

BLOCKS = (1, 2, 3, 4, 3, 3, 1)  # of each stage, as all networks of torchvision have them


def block_rows(ours: str, theirs: str, *, names: tuple[str, ...]) -> tuple[Row, ...]:
    """Returns the rows of a block.

    Args:
        ours: path of the block.
        theirs: its name.
        names: of a convolution and its norm, and of the next two: the depthwise one and the last one of the block, and
            before them the first one where the block has three.
    """
    layers = ("expand/conv", "expand/norm", "depthwise", "depthwise_norm", "project", "project_norm")
    rows = []
    for layer, name in zip(layers[-len(names) :], names, strict=True):
        leaves = TORCH_BATCH_NORM if layer.endswith("norm") else TORCH_CONV
        rows.append(Row(f"{ours}/{layer}", f"{theirs}.{name}", leaves))
    return tuple(rows)


def torchvision_table() -> tuple[Row, ...]:
    """Names each block by itself: `features.1` to `features.17` run through all stages."""
    rows = [Row("stem", "features.0.0", TORCH_CONV), Row("stem_norm", "features.0.1", TORCH_BATCH_NORM)]
    number = 1
    for stage, count in enumerate(BLOCKS):
        names = ("0.0", "0.1", "1", "2") if stage == 0 else ("0.0", "0.1", "1.0", "1.1", "2", "3")
        for block in range(count):
            rows += block_rows(f"stages/{stage}/blocks/{block}", f"features.{number}.conv", names=names)
            number += 1
    rows.append(Row("last/conv", f"features.{number}.0", TORCH_CONV))
    rows.append(Row("last/norm", f"features.{number}.1", TORCH_BATCH_NORM))
    rows.append(Row("head", "classifier.1", TORCH_DENSE))
    return tuple(rows)


def timm_table() -> tuple[Row, ...]:
    """Names blocks by stage and number; those of the first stage have two convolutions, which are numbered from 1."""
    rows = [Row("stem", "conv_stem", TORCH_CONV), Row("stem_norm", "bn1", TORCH_BATCH_NORM)]
    for stage in range(len(FILTERS)):
        names = (
            ("conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3") if stage else ("conv_dw", "bn1", "conv_pw", "bn2")
        )
        rows += block_rows(f"stages/{stage}/blocks/{{b}}", f"blocks.{stage}.{{b}}", names=names)
    rows.append(Row("last/conv", "conv_head", TORCH_CONV))
    rows.append(Row("last/norm", "bn2", TORCH_BATCH_NORM))
    rows.append(Row("head", "classifier", TORCH_DENSE))
    return tuple(rows)


def guess_torchvision(shapes: Shapes, keywords: dict[str, Any]) -> Guess:
    """Reads the widths of the stages behind the first block of each."""
    widths = [shapes["features.1.conv.1.weight"][0]]
    number = 1
    for count in BLOCKS[:-1]:
        number += count
        widths.append(shapes[f"features.{number}.conv.2.weight"][0])
    ends = shapes["features.0.0.weight"], shapes["features.18.0.weight"], shapes["classifier.1.weight"]
    return guess(widths, BLOCKS, ends)


def guess_timm(shapes: Shapes, keywords: dict[str, Any]) -> Guess:
    """Counts the blocks of each stage, and reads the widths of the stages behind the first block of each."""
    widths, blocks = [shapes["blocks.0.0.conv_pw.weight"][0]], [count_numbered(shapes, "blocks.0.{}.conv_pw.weight")]
    while f"blocks.{len(widths)}.0.conv_pwl.weight" in shapes:
        blocks.append(count_numbered(shapes, f"blocks.{len(widths)}.{{}}.conv_pwl.weight"))
        widths.append(shapes[f"blocks.{len(widths)}.0.conv_pwl.weight"][0])
    ends = shapes["conv_stem.weight"], shapes["conv_head.weight"], shapes["classifier.weight"]
    return guess(widths, tuple(blocks), ends)


def guess(widths: list[int], blocks: tuple[int, ...], ends: tuple[tuple[int, ...], ...]) -> Guess:
    """Finds the width multiplier.

    Args:
        widths: filters of each stage.
        blocks: blocks of each stage.
        ends: shapes of the kernels of stem, last convolution and head.

    Raises:
        ValueError: no multiplier gives these widths.
    """
    stem, last, head = ends
    multiplier = find_multiplier(FILTERS, widths)
    scaled_stem = round_filters(STEM_FILTERS * multiplier)
    scaled_last = round_filters(LAST_FILTERS * max(1.0, multiplier))
    scale_ends = (stem[0], last[0]) == (scaled_stem, scaled_last)
    sizes = {"width_multiplier": multiplier, "blocks": blocks, "scale_ends": scale_ends}
    model, left_over = name_variant("mobilenet_v2", sizes, otherwise="1.0")
    reasons = (
        f"{'-'.join(map(str, widths))} filters in its stages: a width multiplier of {multiplier:g}",
        f"{'-'.join(map(str, blocks))} blocks",
    )
    return Guess(model, head[0], stem[1], None, reasons, left_over)


def make_rule(
    program: str,
    table: tuple[Row, ...],
    signs: tuple[str, ...],
    guess: Callable[[Shapes, dict[str, Any]], Guess],
    interpolation: str,
) -> ConversionRule:
    """Makes the rule of a program; both prepare images alike but for the interpolation."""
    return ConversionRule(
        family="mobilenet_v2",
        source=f"PyTorch, {program}",
        version=1,
        table=table,
        signs=signs,
        guess=guess,
        first_kernel="stem/kernel",
        prefixes=("", "module."),
        dropped=(TORCH_COUNTER, TORCH_OPTIMIZER),
        preprocessing={
            **IMAGENET,
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": interpolation,
        },
        classes={1000: "ImageNet-1k"},
    )


RULES = (
    make_rule(
        "torchvision",
        torchvision_table(),
        (
            "features.0.0.weight",
            "features.1.conv.0.0.weight",
            "features.2.conv.2.weight",
            "features.18.0.weight",
            "classifier.1.weight",
        ),
        guess_torchvision,
        "bilinear",
    ),
    make_rule(
        "timm",
        timm_table(),
        (
            "conv_stem.weight",
            "blocks.0.0.conv_dw.weight",
            "blocks.1.0.conv_pwl.weight",
            "conv_head.weight",
            "classifier.weight",
        ),
        guess_timm,
        "bicubic",
    ),
)

# Addresses, licences and preprocessing are those of the programs' own files, and accuracies what they measured. Sizes
# are torchvision's; of timm's files, that of the numbers.
WEIGHTS = {
    "mobilenet_v2/1.0@torchvision_v1": {
        "address": "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth",
        "sha256": "b0353104",
        "bytes": None,
        "megabytes": 14.2,
        "license": "BSD-3-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 71.878,
        "accuracy_size": 224,
        "source": "torchvision 0.28.0, MobileNet_V2_Weights.IMAGENET1K_V1",
    },
    "mobilenet_v2/1.0@torchvision_v2": {
        "address": "https://download.pytorch.org/models/mobilenet_v2-7ebf99e0.pth",
        "sha256": "7ebf99e0",
        "bytes": None,
        "megabytes": 14.3,
        "license": "BSD-3-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.965)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 72.154,
        "accuracy_size": 224,
        "source": "torchvision 0.28.0, MobileNet_V2_Weights.IMAGENET1K_V2",
    },
    "mobilenet_v2/0.5@lamb_in1k": {
        "address": "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/mobilenetv2_050-3d30d450.pth",
        "sha256": "3d30d450",
        "bytes": None,
        "megabytes": 7.9,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 65.928,
        "accuracy_size": 224,
        "source": "timm 1.0.31, mobilenetv2_050.lamb_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "mobilenet_v2/1.0@ra_in1k": {
        "address": "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/mobilenetv2_100_ra-b33bc2c4.pth",
        "sha256": "b33bc2c4",
        "bytes": None,
        "megabytes": 14.2,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 72.91,
        "accuracy_size": 224,
        "source": "timm 1.0.31, mobilenetv2_100.ra_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "mobilenet_v2/1.1d@ra_in1k": {
        "address": "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/mobilenetv2_110d_ra-77090ade.pth",
        "sha256": "77090ade",
        "bytes": None,
        "megabytes": 18.3,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 75.056,
        "accuracy_size": 224,
        "source": "timm 1.0.31, mobilenetv2_110d.ra_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "mobilenet_v2/1.2d@ra_in1k": {
        "address": "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/mobilenetv2_120d_ra-5987e2ed.pth",
        "sha256": "5987e2ed",
        "bytes": None,
        "megabytes": 23.6,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 77.3,
        "accuracy_size": 224,
        "source": "timm 1.0.31, mobilenetv2_120d.ra_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "mobilenet_v2/1.4@ra_in1k": {
        "address": "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/mobilenetv2_140_ra-21a4e913.pth",
        "sha256": "21a4e913",
        "bytes": None,
        "megabytes": 24.6,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 76.528,
        "accuracy_size": 224,
        "source": "timm 1.0.31, mobilenetv2_140.ra_in1k; its results/results-imagenet.csv at aa4b5850",
    },
}
