"""Names of ResNets, ResNeXts and wide ResNets: those of torchvision, which timm uses too, and of Hugging Face.

timm calls many more networks ResNet. Those with another stem, with average pooling in the shortcuts or with squeeze and
excitation are refused by their names and shapes; our family has none of these. What no file shows: blur or average
pooling in place of strides (resnetblur50, resnetaa50), and strides that were exchanged for dilation.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from cnn_vit.errors import UserError
from cnn_vit.settings.values import quote_value
from cnn_vit.transfer.rules import IMAGENET, ConversionRule, Guess, Shapes, name_variant
from cnn_vit.transfer.table import TORCH_BATCH_NORM, TORCH_CONV, TORCH_COUNTER, TORCH_DENSE, TORCH_OPTIMIZER, Row

TORCH_TABLE = (
    Row("stem", "conv1", TORCH_CONV),
    Row("stem_norm", "bn1", TORCH_BATCH_NORM),
    Row("stages/{s}/blocks/{b}/conv{n}", "layer{s+1}.{b}.conv{n}", TORCH_CONV),
    Row("stages/{s}/blocks/{b}/norm{n}", "layer{s+1}.{b}.bn{n}", TORCH_BATCH_NORM),
    Row("stages/{s}/blocks/{b}/shortcut/conv", "layer{s+1}.{b}.downsample.0", TORCH_CONV),
    Row("stages/{s}/blocks/{b}/shortcut/norm", "layer{s+1}.{b}.downsample.1", TORCH_BATCH_NORM),
    Row("head", "fc", TORCH_DENSE),
)
HF_STEM = "resnet.embedder.embedder"
HF_BLOCK = "resnet.encoder.stages.{s}.layers.{b}"
HF_TABLE = (
    Row("stem", f"{HF_STEM}.convolution", TORCH_CONV),
    Row("stem_norm", f"{HF_STEM}.normalization", TORCH_BATCH_NORM),
    Row("stages/{s}/blocks/{b}/conv{n}", HF_BLOCK + ".layer.{n-1}.convolution", TORCH_CONV),
    Row("stages/{s}/blocks/{b}/norm{n}", HF_BLOCK + ".layer.{n-1}.normalization", TORCH_BATCH_NORM),
    Row("stages/{s}/blocks/{b}/shortcut/conv", HF_BLOCK + ".shortcut.convolution", TORCH_CONV),
    Row("stages/{s}/blocks/{b}/shortcut/norm", HF_BLOCK + ".shortcut.normalization", TORCH_BATCH_NORM),
    Row("head", "classifier.1", TORCH_DENSE),
)
# Groups and the width of a group in a stage of 64 filters -> what stands behind the depth in a network's name.
SUFFIXES = {(1, 64): "", (1, 128): "-wide2", (32, 4): "-32x4d", (32, 8): "-32x8d", (64, 4): "-64x4d"}


TORCH_STEM = "conv1.weight"


def torch_kernel(stage: int, block: int, number: int) -> str:
    """Returns torchvision's name of a convolution's kernel; its numbers count from 0, as in our path."""
    return f"layer{stage + 1}.{block}.conv{number + 1}.weight"


def hf_kernel(stage: int, block: int, number: int) -> str:
    """Returns Hugging Face's name of a convolution's kernel; its numbers count from 0."""
    return f"resnet.encoder.stages.{stage}.layers.{block}.layer.{number}.convolution.weight"


def guess(
    shapes: Shapes, keywords: dict[str, Any], *, stem: str, name_kernel: Callable[[int, int, int], str], head: str
) -> Guess:
    """Counts the blocks of each stage and the convolutions of a block, and reads its groups from the second of them.

    Args:
        shapes: of the arrays, by name.
        keywords: that are given; the shapes tell all but the version, of which v1.5 is the default.
        stem: name of the first kernel.
        name_kernel: from a convolution's stage, block and number to the name of its kernel.
        head: name of the last kernel.

    Raises:
        UserError: the names or shapes are those of a network that our family does not have.
    """
    refuse_other_networks(shapes)
    filters, channels, *size = shapes[stem]
    if size != [7, 7]:
        raise UserError(
            f"{stem} has filters of {' x '.join(map(str, size))} pixels, and the first ones of resnet/* have 7 x 7; "
            "another stem, as it is used for small images, cannot be converted to this family"
        )
    blocks: list[int] = []
    while name_kernel(len(blocks), 0, 0) in shapes:
        blocks.append(count_blocks(shapes, partial(name_kernel, len(blocks))))
    is_bottleneck = name_kernel(0, 0, 2) in shapes
    sizes = {"blocks": tuple(blocks), "bottleneck": is_bottleneck, "filters": filters}
    model, left_over = name_variant("resnet", sizes, otherwise="50" if is_bottleneck else "18")
    reasons = [
        f"{'-'.join(map(str, blocks))} blocks of {3 if is_bottleneck else 2} convolutions: "
        f"{sum(blocks) * (3 if is_bottleneck else 2) + 2} layers",
        f"{filters} filters in the stem",
    ]
    if stem == TORCH_STEM:
        reasons.append(
            "no shape tells how the image is halved: by strides, as usual, not by average pooling or blur (timm's "
            "resnetaa50 and resnetblur50), nor by dilation in their place"
        )
    if is_bottleneck:
        inner, group_channels = shapes[name_kernel(0, 0, 1)][:2]
        groups = inner // group_channels
        group_width = -(-group_channels * 64 // filters)  # of a stage of 64 filters; rounded up, as ours rounds down
        reasons.append(f"{groups} group{'s' if groups > 1 else ''} of {group_channels} channels in the first stage")
        reasons.append("no shape tells where a block halves the image: in its 3x3 convolution (v1.5), as usual")
        if (groups, group_width) in SUFFIXES:
            model += SUFFIXES[groups, group_width]
        else:
            left_over |= {"groups": groups, "group_width": group_width}
    return Guess(model, shapes[head][0], channels, None, tuple(reasons), left_over)


def count_blocks(shapes: Shapes, name_kernel: Callable[[int, int], str]) -> int:
    """Counts the blocks of a stage, by the first kernel of each."""
    count = 0
    while name_kernel(count, 0) in shapes:
        count += 1
    return count


def refuse_other_networks(shapes: Shapes) -> None:
    """Raises UserError for names and shapes of timm's other networks of the same kind."""
    remedy = "resnet/* has no such layer; take weights of a plain ResNet, such as timm's resnet50.a1_in1k"
    if "conv1.0.weight" in shapes:
        raise UserError(
            f"conv1.0.weight is one of several convolutions in the stem (ResNet-C, -D, -S or -T), and {remedy}"
        )
    for name, shape in shapes.items():
        if ".se." in name:
            raise UserError(f"{name} weighs channels (squeeze and excitation, or another attention), and {remedy}")
        if name.endswith("downsample.1.weight") and len(shape) == 4:
            raise UserError(f"{name} stands behind average pooling in a shortcut (ResNet-D), and {remedy}")


def read_config(config: dict[str, Any]) -> dict[str, Any]:
    """Reads from Hugging Face's file of JSON what no tensor tells: which convolution of a block halves the image.

    Raises:
        UserError: the network is not as ours are, in another way that no tensor tells, or a value cannot be.
    """
    for key, ours in {"hidden_act": "relu", "downsample_in_first_stage": False}.items():
        if config.get(key, ours) != ours:
            text = quote_value(config[key])
            raise UserError(f"{key}={text} of the file's config.json is not that of resnet/*: {ours}")
    is_early = config.get("downsample_in_bottleneck", False)
    if not isinstance(is_early, bool):
        raise UserError(f"downsample_in_bottleneck={quote_value(is_early)} of the file's config.json is no truth value")
    return {"version": "v1"} if is_early else {}


def make_rule(
    source: str,
    table: tuple[Row, ...],
    name_kernel: Callable[[int, int, int], str],
    *,
    interpolation: str,
    prefixes: tuple[str, ...],
) -> ConversionRule:
    """Makes a rule of a program.

    Args:
        source: the program, for people.
        table: names and axes; the first row is the stem, the second its norm, the last the head.
        name_kernel: from a convolution's stage, block and number to the name of its kernel.
        interpolation: by which images are brought to size.
        prefixes: what all names may begin with.
    """
    stem, norm, head = f"{table[0].theirs}.weight", f"{table[1].theirs}.running_mean", f"{table[-1].theirs}.weight"
    return ConversionRule(
        family="resnet",
        source=source,
        version=1,
        table=table,
        signs=(stem, norm, name_kernel(0, 0, 0), name_kernel(3, 0, 1), head),
        guess=partial(guess, stem=stem, name_kernel=name_kernel, head=head),
        first_kernel="stem/kernel",
        prefixes=prefixes,
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
        "PyTorch, torchvision and timm", TORCH_TABLE, torch_kernel, interpolation="bilinear", prefixes=("", "module.")
    ),
    replace(
        make_rule("PyTorch, Hugging Face transformers", HF_TABLE, hf_kernel, interpolation="bicubic", prefixes=("",)),
        read_config=read_config,
    ),
)

# Weights by name, each figure from its source; tests/transfer/test_named_weights.py compares them with it.
WEIGHTS = {
    "resnet/18@torchvision": {
        "address": "https://download.pytorch.org/models/resnet18-f37072fd.pth",
        "sha256": "f37072fd",
        "bytes": None,
        "megabytes": 46.8,
        "license": "BSD-3-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 69.758,
        "accuracy_size": 224,
        "source": "torchvision 0.28.0, ResNet18_Weights.IMAGENET1K_V1",
    },
    "resnet/34@torchvision": {
        "address": "https://download.pytorch.org/models/resnet34-b627a593.pth",
        "sha256": "b627a593",
        "bytes": None,
        "megabytes": 87.3,
        "license": "BSD-3-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 73.314,
        "accuracy_size": 224,
        "source": "torchvision 0.28.0, ResNet34_Weights.IMAGENET1K_V1",
    },
    "resnet/50@torchvision_v1": {
        "address": "https://download.pytorch.org/models/resnet50-0676ba61.pth",
        "sha256": "0676ba61",
        "bytes": None,
        "megabytes": 102.4,
        "license": "BSD-3-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 76.13,
        "accuracy_size": 224,
        "source": "torchvision 0.28.0, ResNet50_Weights.IMAGENET1K_V1",
    },
    "resnet/50@torchvision_v2": {
        "address": "https://download.pytorch.org/models/resnet50-11ad3fa6.pth",
        "sha256": "11ad3fa6",
        "bytes": None,
        "megabytes": 102.4,
        "license": "BSD-3-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.965)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 80.858,
        "accuracy_size": 224,
        "source": "torchvision 0.28.0, ResNet50_Weights.IMAGENET1K_V2",
    },
    "resnet/101@torchvision_v1": {
        "address": "https://download.pytorch.org/models/resnet101-63fe2227.pth",
        "sha256": "63fe2227",
        "bytes": None,
        "megabytes": 178.6,
        "license": "BSD-3-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 77.374,
        "accuracy_size": 224,
        "source": "torchvision 0.28.0, ResNet101_Weights.IMAGENET1K_V1",
    },
    "resnet/101@torchvision_v2": {
        "address": "https://download.pytorch.org/models/resnet101-cd907fc2.pth",
        "sha256": "cd907fc2",
        "bytes": None,
        "megabytes": 178.6,
        "license": "BSD-3-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.965)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 81.886,
        "accuracy_size": 224,
        "source": "torchvision 0.28.0, ResNet101_Weights.IMAGENET1K_V2",
    },
    "resnet/152@torchvision_v1": {
        "address": "https://download.pytorch.org/models/resnet152-394f9c45.pth",
        "sha256": "394f9c45",
        "bytes": None,
        "megabytes": 241.4,
        "license": "BSD-3-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 78.312,
        "accuracy_size": 224,
        "source": "torchvision 0.28.0, ResNet152_Weights.IMAGENET1K_V1",
    },
    "resnet/152@torchvision_v2": {
        "address": "https://download.pytorch.org/models/resnet152-f82ba261.pth",
        "sha256": "f82ba261",
        "bytes": None,
        "megabytes": 241.4,
        "license": "BSD-3-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.965)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 82.284,
        "accuracy_size": 224,
        "source": "torchvision 0.28.0, ResNet152_Weights.IMAGENET1K_V2",
    },
    "resnet/50-32x4d@torchvision_v1": {
        "address": "https://download.pytorch.org/models/resnext50_32x4d-7cdf4587.pth",
        "sha256": "7cdf4587",
        "bytes": None,
        "megabytes": 100.4,
        "license": "BSD-3-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 77.618,
        "accuracy_size": 224,
        "source": "torchvision 0.28.0, ResNeXt50_32X4D_Weights.IMAGENET1K_V1",
    },
    "resnet/50-32x4d@torchvision_v2": {
        "address": "https://download.pytorch.org/models/resnext50_32x4d-1a0047aa.pth",
        "sha256": "1a0047aa",
        "bytes": None,
        "megabytes": 100.4,
        "license": "BSD-3-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.965)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 81.198,
        "accuracy_size": 224,
        "source": "torchvision 0.28.0, ResNeXt50_32X4D_Weights.IMAGENET1K_V2",
    },
    "resnet/101-32x8d@torchvision_v1": {
        "address": "https://download.pytorch.org/models/resnext101_32x8d-8ba56ff5.pth",
        "sha256": "8ba56ff5",
        "bytes": None,
        "megabytes": 356.0,
        "license": "BSD-3-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 79.312,
        "accuracy_size": 224,
        "source": "torchvision 0.28.0, ResNeXt101_32X8D_Weights.IMAGENET1K_V1",
    },
    "resnet/101-32x8d@torchvision_v2": {
        "address": "https://download.pytorch.org/models/resnext101_32x8d-110c445d.pth",
        "sha256": "110c445d",
        "bytes": None,
        "megabytes": 356.0,
        "license": "BSD-3-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.965)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 82.834,
        "accuracy_size": 224,
        "source": "torchvision 0.28.0, ResNeXt101_32X8D_Weights.IMAGENET1K_V2",
    },
    "resnet/101-64x4d@torchvision": {
        "address": "https://download.pytorch.org/models/resnext101_64x4d-173b62eb.pth",
        "sha256": "173b62eb",
        "bytes": None,
        "megabytes": 334.6,
        "license": "BSD-3-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.965)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 83.246,
        "accuracy_size": 224,
        "source": "torchvision 0.28.0, ResNeXt101_64X4D_Weights.IMAGENET1K_V1",
    },
    "resnet/50-wide2@torchvision_v2": {
        "address": "https://download.pytorch.org/models/wide_resnet50_2-9ba9bcbe.pth",
        "sha256": "9ba9bcbe",
        "bytes": None,
        "megabytes": 275.8,
        "license": "BSD-3-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.965)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 81.602,
        "accuracy_size": 224,
        "source": "torchvision 0.28.0, Wide_ResNet50_2_Weights.IMAGENET1K_V2",
    },
    "resnet/101-wide2@torchvision_v2": {
        "address": "https://download.pytorch.org/models/wide_resnet101_2-d733dc28.pth",
        "sha256": "d733dc28",
        "bytes": None,
        "megabytes": 508.1,
        "license": "BSD-3-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.965)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 82.51,
        "accuracy_size": 224,
        "source": "torchvision 0.28.0, Wide_ResNet101_2_Weights.IMAGENET1K_V2",
    },
    "resnet/18@a1_in1k": {
        "address": "https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-rsb-weights/resnet18_a1_0-d63eafa0.pth",
        "sha256": "d63eafa0",
        "bytes": None,
        "megabytes": 46.8,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.95)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 71.504,
        "accuracy_size": 224,
        "source": "timm 1.0.31, resnet18.a1_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "resnet/18@fb_swsl_ig1b_ft_in1k": {
        "address": "https://dl.fbaipublicfiles.com/semiweaksupervision/model_files/semi_weakly_supervised_resnet18-118f1556.pth",
        "sha256": "118f1556",
        "bytes": None,
        "megabytes": 46.8,
        "license": "CC-BY-NC-4.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bilinear",
        },
        "trained_on": ["Instagram-1B hashtags", "ImageNet-1k"],
        "accuracy": 73.286,
        "accuracy_size": 224,
        "source": "timm 1.0.31, resnet18.fb_swsl_ig1b_ft_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "resnet/26@bt_in1k": {
        "address": "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/resnet26-9aa10e23.pth",
        "sha256": "9aa10e23",
        "bytes": None,
        "megabytes": 64.1,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 75.298,
        "accuracy_size": 224,
        "source": "timm 1.0.31, resnet26.bt_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "resnet/34@a1_in1k": {
        "address": "https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-rsb-weights/resnet34_a1_0-46f8f793.pth",
        "sha256": "46f8f793",
        "bytes": None,
        "megabytes": 87.3,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.95)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 76.42,
        "accuracy_size": 224,
        "source": "timm 1.0.31, resnet34.a1_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "resnet/34@ra4_e3600_r224_in1k": {
        "address": "https://huggingface.co/timm/resnet34.ra4_e3600_r224_in1k/resolve/main/model.safetensors",
        "sha256": None,
        "bytes": None,
        "megabytes": 87.3,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": [224, 224],
            "fit": "crop(0.9)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 77.492,
        "accuracy_size": 224,
        "source": "timm 1.0.31, resnet34.ra4_e3600_r224_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "resnet/50@a1_in1k": {
        "address": "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-rsb-weights/resnet50_a1_0-14fe96d1.pth",
        "sha256": "14fe96d1",
        "bytes": None,
        "megabytes": 102.4,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.95)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 80.382,
        "accuracy_size": 224,
        "source": "timm 1.0.31, resnet50.a1_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "resnet/50@ram_in1k": {
        "address": "https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-weights/resnet50_ram-a26f946b.pth",
        "sha256": "a26f946b",
        "bytes": None,
        "megabytes": 102.4,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 79.034,
        "accuracy_size": 224,
        "source": "timm 1.0.31, resnet50.ram_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "resnet/50@fb_swsl_ig1b_ft_in1k": {
        "address": "https://dl.fbaipublicfiles.com/semiweaksupervision/model_files/semi_weakly_supervised_resnet50-16a12f1b.pth",
        "sha256": "16a12f1b",
        "bytes": None,
        "megabytes": 102.4,
        "license": "CC-BY-NC-4.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bilinear",
        },
        "trained_on": ["Instagram-1B hashtags", "ImageNet-1k"],
        "accuracy": 81.146,
        "accuracy_size": 224,
        "source": "timm 1.0.31, resnet50.fb_swsl_ig1b_ft_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "resnet/101@a1h_in1k": {
        "address": "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-rsb-weights/resnet101_a1h-36d3f2aa.pth",
        "sha256": "36d3f2aa",
        "bytes": None,
        "megabytes": 178.6,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.95)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 81.95,
        "accuracy_size": 224,
        "source": "timm 1.0.31, resnet101.a1h_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "resnet/152@a1h_in1k": {
        "address": "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-rsb-weights/resnet152_a1h-dc400468.pth",
        "sha256": "dc400468",
        "bytes": None,
        "megabytes": 241.4,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.95)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 82.818,
        "accuracy_size": 224,
        "source": "timm 1.0.31, resnet152.a1h_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "resnet/50-32x4d@a1h_in1k": {
        "address": "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-rsb-weights/resnext50_32x4d_a1h-0146ab0a.pth",
        "sha256": "0146ab0a",
        "bytes": None,
        "megabytes": 100.4,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.95)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 81.14,
        "accuracy_size": 224,
        "source": "timm 1.0.31, resnext50_32x4d.a1h_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "resnet/101-32x8d@fb_swsl_ig1b_ft_in1k": {
        "address": "https://dl.fbaipublicfiles.com/semiweaksupervision/model_files/semi_weakly_supervised_resnext101_32x8-b4712904.pth",
        "sha256": "b4712904",
        "bytes": None,
        "megabytes": 356.0,
        "license": "CC-BY-NC-4.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bilinear",
        },
        "trained_on": ["Instagram-1B hashtags", "ImageNet-1k"],
        "accuracy": 84.276,
        "accuracy_size": 224,
        "source": "timm 1.0.31, resnext101_32x8d.fb_swsl_ig1b_ft_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "resnet/101-64x4d@c1_in1k": {
        "address": "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-tpu-weights/resnext101_64x4d_c-0d0e0cc0.pth",
        "sha256": "0d0e0cc0",
        "bytes": None,
        "megabytes": 334.6,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.95)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 82.446,
        "accuracy_size": 224,
        "source": "timm 1.0.31, resnext101_64x4d.c1_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "resnet/50-wide2@racm_in1k": {
        "address": "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/wide_resnet50_racm-8234f177.pth",
        "sha256": "8234f177",
        "bytes": None,
        "megabytes": 275.8,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 81.466,
        "accuracy_size": 224,
        "source": "timm 1.0.31, wide_resnet50_2.racm_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "resnet/50@microsoft": {
        "address": "https://huggingface.co/microsoft/resnet-50/resolve/refs%2Fpr%2F4/model.safetensors",
        "sha256": "9c6061af1f450bb0847e529fd742aa5066017be379c71bbf5546b198e5b13a1e",
        "bytes": None,
        "megabytes": 102.4,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": None,
        "accuracy_size": None,
        "source": "huggingface.co/microsoft/resnet-50 (model card, files); transformers 5.23.0, ConvNextImageProcessor",
    },
}
