"""Names of EfficientNets: those of torchvision and of timm.

timm has two networks of the same names and shapes: efficientnet_b0 pads equally at all sides with an epsilon of 1e-5,
tf_efficientnet_b0 as TensorFlow does, with 1e-3. So of its files the padding is asked for; a model's name says it too,
efficientnet/B0 or efficientnet/B0-tf.
"""

from collections.abc import Callable
from typing import Any

from cnn_vit.models.efficientnet import FILTERS, LAST_FILTERS
from cnn_vit.transfer.rules import (
    IMAGENET,
    ConversionRule,
    Guess,
    Shapes,
    count_numbered,
    find_multiplier,
    name_variant,
)
from cnn_vit.transfer.table import (
    TORCH_BATCH_NORM,
    TORCH_CONV,
    TORCH_COUNTER,
    TORCH_DENSE,
    TORCH_OPTIMIZER,
    Leaf,
    Row,
)

# Both write the dense layers of squeeze and excitation as convolutions of one pixel.
ONE_PIXEL = (Leaf("/kernel", ".weight", "i o", "o i 1 1"), Leaf("/bias", ".bias"))
LAYERS = (
    ("expand/conv", TORCH_CONV),
    ("expand/norm", TORCH_BATCH_NORM),
    ("depthwise", TORCH_CONV),
    ("depthwise_norm", TORCH_BATCH_NORM),
    ("excitation/squeeze", ONE_PIXEL),
    ("excitation/excite", ONE_PIXEL),
    ("project", TORCH_CONV),
    ("project_norm", TORCH_BATCH_NORM),
)
# Of the layers of a block, in our order; those of the first stage have no expansion.
TORCHVISION_FIRST = ("0.0", "0.1", "1.fc1", "1.fc2", "2.0", "2.1")
TORCHVISION_OTHERS = ("0.0", "0.1", "1.0", "1.1", "2.fc1", "2.fc2", "3.0", "3.1")
TIMM_FIRST = ("conv_dw", "bn1", "se.conv_reduce", "se.conv_expand", "conv_pw", "bn2")
TIMM_OTHERS = ("conv_pw", "bn1", "conv_dw", "bn2", "se.conv_reduce", "se.conv_expand", "conv_pwl", "bn3")
TIMM_EPSILONS = {"symmetric": 1e-5, "same": 1e-3}  # by the padding
# torchvision took these from another program and kept its epsilon.
TORCHVISION_WITH_1E_3 = ("efficientnet/B5", "efficientnet/B6", "efficientnet/B7")


def block_rows(stage: int, theirs: str, names: tuple[str, ...]) -> list[Row]:
    """Returns the rows of a stage's blocks: `theirs` is the name of one, `names` are those of its layers."""
    rows = []
    for (layer, leaves), name in zip(LAYERS[-len(names) :], names, strict=True):
        rows.append(Row(f"stages/{stage}/blocks/{{b}}/{layer}", f"{theirs}.{name}", leaves))
    return rows


def torchvision_table() -> tuple[Row, ...]:
    """Names blocks by stage and number; the stages are features.1 to features.7."""
    rows = [Row("stem", "features.0.0", TORCH_CONV), Row("stem_norm", "features.0.1", TORCH_BATCH_NORM)]
    for stage in range(len(FILTERS)):
        names = TORCHVISION_FIRST if stage == 0 else TORCHVISION_OTHERS
        rows += block_rows(stage, f"features.{stage + 1}.{{b}}.block", names)
    rows.append(Row("last/conv", "features.8.0", TORCH_CONV))
    rows.append(Row("last/norm", "features.8.1", TORCH_BATCH_NORM))
    rows.append(Row("head", "classifier.1", TORCH_DENSE))
    return tuple(rows)


def timm_table() -> tuple[Row, ...]:
    """Names blocks by stage and number."""
    rows = [Row("stem", "conv_stem", TORCH_CONV), Row("stem_norm", "bn1", TORCH_BATCH_NORM)]
    for stage in range(len(FILTERS)):
        rows += block_rows(stage, f"blocks.{stage}.{{b}}", TIMM_FIRST if stage == 0 else TIMM_OTHERS)
    rows.append(Row("last/conv", "conv_head", TORCH_CONV))
    rows.append(Row("last/norm", "bn2", TORCH_BATCH_NORM))
    rows.append(Row("head", "classifier", TORCH_DENSE))
    return tuple(rows)


def guess_torchvision(shapes: Shapes, keywords: dict[str, Any]) -> Guess:
    """Counts blocks; the epsilon of B5 and larger ones, which no shape tells, is not that of the smaller ones."""
    blocks, widths = [], []
    for stage in range(len(FILTERS)):
        last_layer = "2.0" if stage == 0 else "3.0"
        blocks.append(count_numbered(shapes, f"features.{stage + 1}.{{}}.block.{last_layer}.weight"))
        widths.append(shapes[f"features.{stage + 1}.0.block.{last_layer}.weight"][0])
    ends = shapes["features.0.0.weight"], shapes["features.8.0.weight"], shapes["classifier.1.weight"]
    model, left_over, reasons = name_network(tuple(blocks), widths, ends[1])
    unseen: dict[str, tuple[Any, ...]] = {}
    if model in TORCHVISION_WITH_1E_3:
        left_over["epsilon"] = 1e-3
        unseen["epsilon"] = (1e-3,)
        reasons = (*reasons, "an epsilon of 0.001, as torchvision has it from B5 on")
    return Guess(model, ends[2][0], ends[0][1], None, reasons, left_over, unseen)


def guess_timm(shapes: Shapes, keywords: dict[str, Any]) -> Guess:
    """Counts blocks; the padding has to be said, and the epsilon follows from it."""
    blocks = [count_numbered(shapes, "blocks.0.{}.conv_pw.weight")]
    widths = [shapes["blocks.0.0.conv_pw.weight"][0]]
    while f"blocks.{len(widths)}.0.conv_pwl.weight" in shapes:
        blocks.append(count_numbered(shapes, f"blocks.{len(widths)}.{{}}.conv_pwl.weight"))
        widths.append(shapes[f"blocks.{len(widths)}.0.conv_pwl.weight"][0])
    ends = shapes["conv_stem.weight"], shapes["conv_head.weight"], shapes["classifier.weight"]
    model, left_over, reasons = name_network(tuple(blocks), widths, ends[1])
    if keywords.get("padding") == "same":
        model += "-tf"
    return Guess(
        model,
        ends[2][0],
        ends[0][1],
        None,
        (*reasons, "efficientnet_b0 and the like if its padding is symmetric, tf_efficientnet_b0 if same"),
        left_over,
        unseen={"padding": tuple(TIMM_EPSILONS)},
        tied={"padding": {padding: {"epsilon": epsilon} for padding, epsilon in TIMM_EPSILONS.items()}},
    )


def name_network(
    blocks: tuple[int, ...], widths: list[int], last: tuple[int, ...]
) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    """Finds a network by its blocks and their filters.

    Args:
        blocks: of each stage.
        widths: filters of each stage.
        last: shape of the kernel of the last convolution.

    Returns:
        Its name, the keywords that this does not say, and what was seen.

    Raises:
        ValueError: no width multiplier gives these filters.
    """
    multiplier = find_multiplier((*FILTERS[: len(widths)], LAST_FILTERS), [*widths, last[0]])
    model, left_over = name_variant("efficientnet", {"width_multiplier": multiplier, "blocks": blocks}, otherwise="B0")
    reasons = (
        f"{'-'.join(map(str, blocks))} blocks in its stages",
        f"{'-'.join(map(str, widths))} filters: a width multiplier of {multiplier:g}",
    )
    return model, left_over, reasons


def make_rule(
    program: str,
    table: tuple[Row, ...],
    signs: tuple[str, ...],
    guess: Callable[[Shapes, dict[str, Any]], Guess],
) -> ConversionRule:
    """Makes the rule of a program; the image size is that of the network's name."""
    return ConversionRule(
        family="efficientnet",
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
            "fit": "crop(0.875)",
            "interpolation": "bicubic",
        },
        classes={1000: "ImageNet-1k"},
    )


RULES = (
    make_rule(
        "torchvision",
        torchvision_table(),
        (
            "features.0.0.weight",
            "features.1.0.block.0.0.weight",
            "features.2.0.block.2.fc1.weight",
            "features.8.0.weight",
            "classifier.1.weight",
        ),
        guess_torchvision,
    ),
    make_rule(
        "timm",
        timm_table(),
        # those of MobileNetV2, and squeeze and excitation
        (
            "conv_stem.weight",
            "blocks.0.0.conv_dw.weight",
            "blocks.1.0.conv_pwl.weight",
            "conv_head.weight",
            "classifier.weight",
            "blocks.0.0.se.conv_reduce.weight",
            "blocks.1.0.se.conv_expand.weight",
        ),
        guess_timm,
    ),
)

# Addresses, licences and preprocessing are those of the programs' own files, and accuracies what they measured. Sizes
# are torchvision's; of timm's files, that of the numbers. torchvision took the first weights of B0 to B3 from timm, as
# its efficientnet.py says, and so they have timm's licence.
WEIGHTS = {
    "efficientnet/B0@torchvision_v1": {
        "address": "https://download.pytorch.org/models/efficientnet_b0_rwightman-7f5810bc.pth",
        "sha256": "7f5810bc",
        "bytes": None,
        "megabytes": 21.4,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 77.692,
        "accuracy_size": 224,
        "source": (
            "torchvision 0.28.0, EfficientNet_B0_Weights.IMAGENET1K_V1, ported from "
            "https://github.com/rwightman/pytorch-image-models/"
        ),
    },
    "efficientnet/B1@torchvision_v1": {
        "address": "https://download.pytorch.org/models/efficientnet_b1_rwightman-bac287d4.pth",
        "sha256": "bac287d4",
        "bytes": None,
        "megabytes": 31.6,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [240, 240],
            "fit": "crop(0.9375)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 78.642,
        "accuracy_size": 240,
        "source": (
            "torchvision 0.28.0, EfficientNet_B1_Weights.IMAGENET1K_V1, ported from "
            "https://github.com/rwightman/pytorch-image-models/"
        ),
    },
    "efficientnet/B1@torchvision_v2": {
        "address": "https://download.pytorch.org/models/efficientnet_b1-c27df63c.pth",
        "sha256": "c27df63c",
        "bytes": None,
        "megabytes": 31.6,
        "license": "BSD-3-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [240, 240],
            "fit": "crop(0.941)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 79.838,
        "accuracy_size": 240,
        "source": "torchvision 0.28.0, EfficientNet_B1_Weights.IMAGENET1K_V2",
    },
    "efficientnet/B2@torchvision_v1": {
        "address": "https://download.pytorch.org/models/efficientnet_b2_rwightman-c35c1473.pth",
        "sha256": "c35c1473",
        "bytes": None,
        "megabytes": 36.9,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [288, 288],
            "fit": "crop(1.0)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 80.608,
        "accuracy_size": 288,
        "source": (
            "torchvision 0.28.0, EfficientNet_B2_Weights.IMAGENET1K_V1, ported from "
            "https://github.com/rwightman/pytorch-image-models/"
        ),
    },
    "efficientnet/B3@torchvision_v1": {
        "address": "https://download.pytorch.org/models/efficientnet_b3_rwightman-b3899882.pth",
        "sha256": "b3899882",
        "bytes": None,
        "megabytes": 49.5,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [300, 300],
            "fit": "crop(0.9375)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 82.008,
        "accuracy_size": 300,
        "source": (
            "torchvision 0.28.0, EfficientNet_B3_Weights.IMAGENET1K_V1, ported from "
            "https://github.com/rwightman/pytorch-image-models/"
        ),
    },
    "efficientnet/B0@ra4_e3600_r224_in1k": {
        "address": "https://huggingface.co/timm/efficientnet_b0.ra4_e3600_r224_in1k/resolve/main/model.safetensors",
        "sha256": None,
        "bytes": None,
        "megabytes": 21.3,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": [256, 256],
            "fit": "crop(1.0)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 79.364,
        "accuracy_size": 256,
        "source": "timm 1.0.31, efficientnet_b0.ra4_e3600_r224_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "efficientnet/B0@ra_in1k": {
        "address": "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/efficientnet_b0_ra-3dd342df.pth",
        "sha256": "3dd342df",
        "bytes": None,
        "megabytes": 21.3,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 77.698,
        "accuracy_size": 224,
        "source": "timm 1.0.31, efficientnet_b0.ra_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "efficientnet/B1@ft_in1k": {
        "address": "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/efficientnet_b1-533bc792.pth",
        "sha256": "533bc792",
        "bytes": None,
        "megabytes": 31.4,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [256, 256],
            "fit": "crop(1.0)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 78.806,
        "accuracy_size": 256,
        "source": "timm 1.0.31, efficientnet_b1.ft_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "efficientnet/B1@ra4_e3600_r240_in1k": {
        "address": "https://huggingface.co/timm/efficientnet_b1.ra4_e3600_r240_in1k/resolve/main/model.safetensors",
        "sha256": None,
        "bytes": None,
        "megabytes": 31.4,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": [288, 288],
            "fit": "crop(1.0)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 81.444,
        "accuracy_size": 288,
        "source": "timm 1.0.31, efficientnet_b1.ra4_e3600_r240_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "efficientnet/B2@ra_in1k": {
        "address": "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/efficientnet_b2_ra-bcdf34b7.pth",
        "sha256": "bcdf34b7",
        "bytes": None,
        "megabytes": 36.7,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [288, 288],
            "fit": "crop(1.0)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 80.612,
        "accuracy_size": 288,
        "source": "timm 1.0.31, efficientnet_b2.ra_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "efficientnet/B3@ra2_in1k": {
        "address": "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/efficientnet_b3_ra2-cf984f9c.pth",
        "sha256": "cf984f9c",
        "bytes": None,
        "megabytes": 49.3,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [320, 320],
            "fit": "crop(1.0)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 82.296,
        "accuracy_size": 320,
        "source": "timm 1.0.31, efficientnet_b3.ra2_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "efficientnet/B0-tf@aa_in1k": {
        "address": "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/tf_efficientnet_b0_aa-827b6e33.pth",
        "sha256": "827b6e33",
        "bytes": None,
        "megabytes": 21.3,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 76.882,
        "accuracy_size": 224,
        "source": "timm 1.0.31, tf_efficientnet_b0.aa_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "efficientnet/B0-tf@ns_jft_in1k": {
        "address": "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/tf_efficientnet_b0_ns-c0e6a31c.pth",
        "sha256": "c0e6a31c",
        "bytes": None,
        "megabytes": 21.3,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bicubic",
        },
        "trained_on": ["ImageNet-1k", "JFT-300M without labels"],
        "accuracy": 78.68,
        "accuracy_size": 224,
        "source": "timm 1.0.31, tf_efficientnet_b0.ns_jft_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "efficientnet/B1-tf@aa_in1k": {
        "address": "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/tf_efficientnet_b1_aa-ea7a6ee0.pth",
        "sha256": "ea7a6ee0",
        "bytes": None,
        "megabytes": 31.4,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [240, 240],
            "fit": "crop(0.882)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 78.84,
        "accuracy_size": 240,
        "source": "timm 1.0.31, tf_efficientnet_b1.aa_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "efficientnet/B1-tf@ns_jft_in1k": {
        "address": "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/tf_efficientnet_b1_ns-99dd0c41.pth",
        "sha256": "99dd0c41",
        "bytes": None,
        "megabytes": 31.4,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [240, 240],
            "fit": "crop(0.882)",
            "interpolation": "bicubic",
        },
        "trained_on": ["ImageNet-1k", "JFT-300M without labels"],
        "accuracy": 81.388,
        "accuracy_size": 240,
        "source": "timm 1.0.31, tf_efficientnet_b1.ns_jft_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "efficientnet/B2-tf@aa_in1k": {
        "address": "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/tf_efficientnet_b2_aa-60c94f97.pth",
        "sha256": "60c94f97",
        "bytes": None,
        "megabytes": 36.7,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [260, 260],
            "fit": "crop(0.89)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 80.074,
        "accuracy_size": 260,
        "source": "timm 1.0.31, tf_efficientnet_b2.aa_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "efficientnet/B2-tf@ns_jft_in1k": {
        "address": "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/tf_efficientnet_b2_ns-00306e48.pth",
        "sha256": "00306e48",
        "bytes": None,
        "megabytes": 36.7,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [260, 260],
            "fit": "crop(0.89)",
            "interpolation": "bicubic",
        },
        "trained_on": ["ImageNet-1k", "JFT-300M without labels"],
        "accuracy": 82.412,
        "accuracy_size": 260,
        "source": "timm 1.0.31, tf_efficientnet_b2.ns_jft_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "efficientnet/B3-tf@aa_in1k": {
        "address": "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/tf_efficientnet_b3_aa-84b4657e.pth",
        "sha256": "84b4657e",
        "bytes": None,
        "megabytes": 49.3,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [300, 300],
            "fit": "crop(0.904)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 81.648,
        "accuracy_size": 300,
        "source": "timm 1.0.31, tf_efficientnet_b3.aa_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "efficientnet/B3-tf@ns_jft_in1k": {
        "address": "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/tf_efficientnet_b3_ns-9d44bf68.pth",
        "sha256": "9d44bf68",
        "bytes": None,
        "megabytes": 49.3,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [300, 300],
            "fit": "crop(0.904)",
            "interpolation": "bicubic",
        },
        "trained_on": ["ImageNet-1k", "JFT-300M without labels"],
        "accuracy": 84.054,
        "accuracy_size": 300,
        "source": "timm 1.0.31, tf_efficientnet_b3.ns_jft_in1k; its results/results-imagenet.csv at aa4b5850",
    },
}
