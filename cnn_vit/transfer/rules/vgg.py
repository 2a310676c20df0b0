"""Names of VGG networks: those of torchvision, and of timm, which writes the dense layers as convolutions.

Both number convolutions, norms, rectifiers and poolings of all stages through, so that a name of `features` depends on
what stands before: two layers for each convolution, three with batch norm, and one more at the end of each stage.
"""

from functools import partial
from typing import Any

from cnn_vit.transfer.rules import IMAGENET, ConversionRule, Guess, Shapes, name_variant
from cnn_vit.transfer.table import (
    TORCH_BATCH_NORM,
    TORCH_CONV,
    TORCH_COUNTER,
    TORCH_DENSE,
    TORCH_OPTIMIZER,
    Leaf,
    Row,
)

PLAIN = (Row("stages/{s}/convolutions/{c}", "features.{2#+s}", TORCH_CONV),)
NORMED = (
    Row("stages/{s}/convolutions/{c}", "features.{3#+s}", TORCH_CONV),
    Row("stages/{s}/norms/{c}", "features.{3#+s+1}", TORCH_BATCH_NORM),
)
# torchvision flattens 7x7 pixels by channel, row and column; our kernel has their axes.
FLATTENED = (Leaf("/kernel", ".weight", "h w i o", "o (i h w)"), Leaf("/bias", ".bias"))
ONE_PIXEL = (Leaf("/kernel", ".weight", "i o", "o i 1 1"), Leaf("/bias", ".bias"))
TORCHVISION = (
    Row("dense1", "classifier.0", FLATTENED),
    Row("dense2", "classifier.3", TORCH_DENSE),
    Row("head", "classifier.6", TORCH_DENSE),
)
TIMM = (
    Row("dense1", "pre_logits.fc1", TORCH_CONV),
    Row("dense2", "pre_logits.fc2", ONE_PIXEL),
    Row("head", "head.fc", TORCH_DENSE),
)


def guess(shapes: Shapes, keywords: dict[str, Any], *, dense: tuple[Row, ...], layers: int) -> Guess:
    """Counts the convolutions of each stage, at whose end a number of `features` is left out for the pooling.

    Args:
        shapes: of the arrays, by name.
        keywords: that are given; the shapes tell all but `larger_map`, which is the program's.
        dense: the rows of the dense layers and the head.
        layers: numbers that a convolution takes, with what follows it.
    """
    filters, convolutions = [], []
    number = 0
    while f"features.{number}.weight" in shapes:
        filters.append(shapes[f"features.{number}.weight"][0])
        convolutions.append(0)
        while f"features.{number}.weight" in shapes:
            convolutions[-1] += 1
            number += layers
        number += 1  # the pooling
    hidden = (shapes[f"{dense[0].theirs}.weight"][0], shapes[f"{dense[1].theirs}.weight"][0])
    sizes = {"convolutions": tuple(convolutions), "filters": tuple(filters), "hidden": hidden}
    model, left_over = name_variant("vgg", sizes, otherwise="11")
    is_normed = layers == 3
    if is_normed:
        model += "-bn"
    reasons = (
        f"{'-'.join(map(str, convolutions))} convolutions{' with batch norm' if is_normed else ''} and three dense "
        f"layers: {sum(convolutions) + 3} layers",
        f"dense layers of {hidden[0]:,} and {hidden[1]:,} units",
    )
    num_classes, channels = shapes[f"{dense[2].theirs}.weight"][0], shapes["features.0.weight"][1]
    return Guess(model, num_classes, channels, None, reasons, left_over)


def make_rule(program: str, dense: tuple[Row, ...], *, is_normed: bool, keywords: dict[str, Any]) -> ConversionRule:
    """Makes a rule of a program.

    Args:
        program: its name for people.
        dense: the rows of the two dense layers and of the head.
        is_normed: whether it is the rule of the networks with batch norm.
        keywords: keywords that every network of the program has.
    """
    signs = ["features.0.weight", *(f"{row.theirs}.weight" for row in dense)]
    if is_normed:
        signs.append("features.1.running_mean")
    return ConversionRule(
        family="vgg",
        source=f"PyTorch, {program}{', with batch norm' if is_normed else ''}",
        version=1,
        table=(*(NORMED if is_normed else PLAIN), *dense),
        signs=tuple(signs),
        guess=partial(guess, dense=dense, layers=3 if is_normed else 2),
        first_kernel="stages/0/convolutions/0/kernel",
        prefixes=("", "module."),
        dropped=(TORCH_COUNTER, TORCH_OPTIMIZER),
        keywords=keywords,
        preprocessing={
            **IMAGENET,
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bilinear",
        },
        classes={1000: "ImageNet-1k"},
    )


RULES = (
    make_rule("torchvision", TORCHVISION, is_normed=False, keywords={}),
    make_rule("torchvision", TORCHVISION, is_normed=True, keywords={}),
    make_rule("timm", TIMM, is_normed=False, keywords={"larger_map": "slide"}),
    make_rule("timm", TIMM, is_normed=True, keywords={"larger_map": "slide"}),
)

# Weights by name, each figure from its source; tests/transfer/test_named_weights.py compares them with it.
WEIGHTS = {
    "vgg/11@torchvision": {
        "address": "https://download.pytorch.org/models/vgg11-8a719046.pth",
        "sha256": "8a719046",
        "bytes": None,
        "megabytes": 531.5,
        "license": "BSD-3-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 69.02,
        "accuracy_size": 224,
        "source": "torchvision 0.28.0, VGG11_Weights.IMAGENET1K_V1",
    },
    "vgg/11-bn@torchvision": {
        "address": "https://download.pytorch.org/models/vgg11_bn-6002323d.pth",
        "sha256": "6002323d",
        "bytes": None,
        "megabytes": 531.5,
        "license": "BSD-3-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 70.37,
        "accuracy_size": 224,
        "source": "torchvision 0.28.0, VGG11_BN_Weights.IMAGENET1K_V1",
    },
    "vgg/13@torchvision": {
        "address": "https://download.pytorch.org/models/vgg13-19584684.pth",
        "sha256": "19584684",
        "bytes": None,
        "megabytes": 532.2,
        "license": "BSD-3-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 69.928,
        "accuracy_size": 224,
        "source": "torchvision 0.28.0, VGG13_Weights.IMAGENET1K_V1",
    },
    "vgg/13-bn@torchvision": {
        "address": "https://download.pytorch.org/models/vgg13_bn-abd245e5.pth",
        "sha256": "abd245e5",
        "bytes": None,
        "megabytes": 532.2,
        "license": "BSD-3-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 71.586,
        "accuracy_size": 224,
        "source": "torchvision 0.28.0, VGG13_BN_Weights.IMAGENET1K_V1",
    },
    "vgg/16@torchvision": {
        "address": "https://download.pytorch.org/models/vgg16-397923af.pth",
        "sha256": "397923af",
        "bytes": None,
        "megabytes": 553.4,
        "license": "BSD-3-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 71.592,
        "accuracy_size": 224,
        "source": "torchvision 0.28.0, VGG16_Weights.IMAGENET1K_V1",
    },
    "vgg/16-bn@torchvision": {
        "address": "https://download.pytorch.org/models/vgg16_bn-6c64b313.pth",
        "sha256": "6c64b313",
        "bytes": None,
        "megabytes": 553.5,
        "license": "BSD-3-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 73.36,
        "accuracy_size": 224,
        "source": "torchvision 0.28.0, VGG16_BN_Weights.IMAGENET1K_V1",
    },
    "vgg/19@torchvision": {
        "address": "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
        "sha256": "dcbb9e9d",
        "bytes": None,
        "megabytes": 574.7,
        "license": "BSD-3-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 72.376,
        "accuracy_size": 224,
        "source": "torchvision 0.28.0, VGG19_Weights.IMAGENET1K_V1",
    },
    "vgg/19-bn@torchvision": {
        "address": "https://download.pytorch.org/models/vgg19_bn-c79401a0.pth",
        "sha256": "c79401a0",
        "bytes": None,
        "megabytes": 574.8,
        "license": "BSD-3-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 74.218,
        "accuracy_size": 224,
        "source": "torchvision 0.28.0, VGG19_BN_Weights.IMAGENET1K_V1",
    },
}
