"""Names of ConvNeXt: those of timm, torchvision, Hugging Face, and Meta's own code."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from cnn_vit.errors import UserError
from cnn_vit.settings.values import quote_value
from cnn_vit.transfer import hub_config
from cnn_vit.transfer.rules import IMAGENET, ConversionRule, Guess, Shapes, count_numbered, name_variant
from cnn_vit.transfer.table import TORCH_CONV, TORCH_DENSE, TORCH_LAYER_NORM, TORCH_OPTIMIZER, Leaf, Row

STAGES = 4  # of the published networks; a table may name more than a network has
SCALE = (Leaf("", ""),)
PIXEL_SCALE = (Leaf("", "", "c", "c 1 1"),)  # torchvision keeps images channels first

TIMM = (
    Row("stem", "stem.0", TORCH_CONV),
    Row("stem_norm", "stem.1", TORCH_LAYER_NORM),
    Row("stages/{s}/downsample/norm", "stages.{s}.downsample.0", TORCH_LAYER_NORM),
    Row("stages/{s}/downsample/conv", "stages.{s}.downsample.1", TORCH_CONV),
    Row("stages/{s}/blocks/{b}/depthwise", "stages.{s}.blocks.{b}.conv_dw", TORCH_CONV),
    Row("stages/{s}/blocks/{b}/norm", "stages.{s}.blocks.{b}.norm", TORCH_LAYER_NORM),
    Row("stages/{s}/blocks/{b}/dense1", "stages.{s}.blocks.{b}.mlp.fc1", TORCH_DENSE),
    Row("stages/{s}/blocks/{b}/dense2", "stages.{s}.blocks.{b}.mlp.fc2", TORCH_DENSE),
    Row("stages/{s}/blocks/{b}/layer_scale", "stages.{s}.blocks.{b}.gamma", SCALE),
    Row("norm", "head.norm", TORCH_LAYER_NORM),
    Row("head", "head.fc", TORCH_DENSE),
)
HF_BLOCK = "convnext.encoder.stages.{s}.layers.{b}"
HF = (
    Row("stem", "convnext.embeddings.patch_embeddings", TORCH_CONV),
    Row("stem_norm", "convnext.embeddings.layernorm", TORCH_LAYER_NORM),
    Row("stages/{s}/downsample/norm", "convnext.encoder.stages.{s}.downsampling_layer.0", TORCH_LAYER_NORM),
    Row("stages/{s}/downsample/conv", "convnext.encoder.stages.{s}.downsampling_layer.1", TORCH_CONV),
    Row("stages/{s}/blocks/{b}/depthwise", f"{HF_BLOCK}.dwconv", TORCH_CONV),
    Row("stages/{s}/blocks/{b}/norm", f"{HF_BLOCK}.layernorm", TORCH_LAYER_NORM),
    Row("stages/{s}/blocks/{b}/dense1", f"{HF_BLOCK}.pwconv1", TORCH_DENSE),
    Row("stages/{s}/blocks/{b}/dense2", f"{HF_BLOCK}.pwconv2", TORCH_DENSE),
    Row("stages/{s}/blocks/{b}/layer_scale", f"{HF_BLOCK}.layer_scale_parameter", SCALE),
    Row("norm", "convnext.layernorm", TORCH_LAYER_NORM),
    Row("head", "classifier", TORCH_DENSE),
)
META = (
    Row("stem", "downsample_layers.0.0", TORCH_CONV),
    Row("stem_norm", "downsample_layers.0.1", TORCH_LAYER_NORM),
    Row("stages/{s}/downsample/norm", "downsample_layers.{s}.0", TORCH_LAYER_NORM),
    Row("stages/{s}/downsample/conv", "downsample_layers.{s}.1", TORCH_CONV),
    Row("stages/{s}/blocks/{b}/depthwise", "stages.{s}.{b}.dwconv", TORCH_CONV),
    Row("stages/{s}/blocks/{b}/norm", "stages.{s}.{b}.norm", TORCH_LAYER_NORM),
    Row("stages/{s}/blocks/{b}/dense1", "stages.{s}.{b}.pwconv1", TORCH_DENSE),
    Row("stages/{s}/blocks/{b}/dense2", "stages.{s}.{b}.pwconv2", TORCH_DENSE),
    Row("stages/{s}/blocks/{b}/layer_scale", "stages.{s}.{b}.gamma", SCALE),
    Row("norm", "norm", TORCH_LAYER_NORM),
    Row("head", "head", TORCH_DENSE),
)


def torchvision_table() -> tuple[Row, ...]:
    """Makes the table of torchvision, which numbers the stem, stages and what halves the image through: 0, 1, 2 ..."""
    rows = [
        Row("stem", "features.0.0", TORCH_CONV),
        Row("stem_norm", "features.0.1", TORCH_LAYER_NORM),
        Row("norm", "classifier.0", TORCH_LAYER_NORM),
        Row("head", "classifier.2", TORCH_DENSE),
    ]
    for s in range(STAGES):
        if s > 0:
            rows += [
                Row(f"stages/{s}/downsample/norm", f"features.{2 * s}.0", TORCH_LAYER_NORM),
                Row(f"stages/{s}/downsample/conv", f"features.{2 * s}.1", TORCH_CONV),
            ]
        block = f"features.{2 * s + 1}.{{b}}"
        rows += [
            Row(f"stages/{s}/blocks/{{b}}/depthwise", f"{block}.block.0", TORCH_CONV),
            Row(f"stages/{s}/blocks/{{b}}/norm", f"{block}.block.2", TORCH_LAYER_NORM),
            Row(f"stages/{s}/blocks/{{b}}/dense1", f"{block}.block.3", TORCH_DENSE),
            Row(f"stages/{s}/blocks/{{b}}/dense2", f"{block}.block.5", TORCH_DENSE),
            Row(f"stages/{s}/blocks/{{b}}/layer_scale", f"{block}.layer_scale", PIXEL_SCALE),
        ]
    return tuple(rows)


@dataclass(frozen=True)
class Names:
    """Where a program keeps what tells the network.

    Attributes:
        stem, head: kernels.
        depthwise: the kernel of a block, with {b} for its number, for each stage.
        others: more names that each of its files has.
    """

    stem: str
    head: str
    depthwise: Sequence[str]
    others: tuple[str, ...]


def guess(shapes: Shapes, keywords: dict[str, Any], *, names: Names) -> Guess:
    """Reads blocks and widths of the stages, and the side of the filters."""
    channels = shapes[names.stem][1]
    num_classes = shapes[names.head][0]
    blocks, widths = [], []
    for template in names.depthwise:
        count = count_numbered(shapes, template.replace("{b}", "{}"))
        if count:
            blocks.append(count)
            widths.append(shapes[template.replace("{b}", "0")][0])
    *_, side = shapes[names.depthwise[0].replace("{b}", "0")]
    sizes = {"blocks": tuple(blocks), "widths": tuple(widths), "kernel_size": side}
    model, left_over = name_variant("convnext", sizes, otherwise="T")
    listed = ", ".join(f"{count} of width {width}" for count, width in zip(blocks, widths, strict=True))
    return Guess(model, num_classes, channels, None, (f"blocks of the stages: {listed}",), left_over)


def read_config(config: dict[str, Any]) -> dict[str, Any]:
    """Reads from the file of JSON what no tensor tells: the epsilon of the last norm.

    Raises:
        UserError: the activation is another one than convnext/* has, or a number cannot be.
    """
    if config.get("hidden_act", "gelu") != "gelu":
        raise UserError(
            f"hidden_act={quote_value(config['hidden_act'])} of the file's config.json is not that of convnext/*: gelu"
        )
    if "layer_norm_eps" not in config:
        return {}
    return {"last_epsilon": hub_config.read_positive(config, "layer_norm_eps")}


def make_rule(source: str, table: tuple[Row, ...], names: Names, *, fit: str) -> ConversionRule:
    """Makes the rule of a program.

    Args:
        source: its name for people.
        table: names and axes.
        names: what tells the network.
        fit: how its evaluation brings images to their size.
    """
    return ConversionRule(
        family="convnext",
        source=source,
        version=1,
        table=table,
        signs=(names.stem, names.depthwise[0].replace("{b}", "0"), names.head, *names.others),
        guess=partial(guess, names=names),
        first_kernel="stem/kernel",
        prefixes=("", "module."),
        dropped=(TORCH_OPTIMIZER,),
        preprocessing={
            **IMAGENET,
            "image_size": [224, 224],
            "fit": fit,
            "interpolation": "bicubic",
        },
        classes={1000: "ImageNet-1k"},
        refused={r"stages\.\d+\.(blocks\.)?\d+\.(mlp\.)?grn\..*": "the global response norm of ConvNeXt V2"},
    )


def per_stage(template: str) -> tuple[str, ...]:
    """Writes the number of each stage into a name."""
    return tuple(template.replace("{s}", str(s)) for s in range(STAGES))


TIMM_NAMES = Names(
    stem="stem.0.weight",
    head="head.fc.weight",
    depthwise=per_stage("stages.{s}.blocks.{b}.conv_dw.weight"),
    others=("stages.0.blocks.0.gamma", "head.norm.weight"),
)
TORCHVISION_NAMES = Names(
    stem="features.0.0.weight",
    head="classifier.2.weight",
    depthwise=tuple(f"features.{2 * s + 1}.{{b}}.block.0.weight" for s in range(STAGES)),
    others=("features.1.0.layer_scale", "classifier.0.weight"),
)
HF_NAMES = Names(
    stem="convnext.embeddings.patch_embeddings.weight",
    head="classifier.weight",
    depthwise=per_stage("convnext.encoder.stages.{s}.layers.{b}.dwconv.weight"),
    others=("convnext.encoder.stages.0.layers.0.layer_scale_parameter", "convnext.layernorm.weight"),
)
META_NAMES = Names(
    stem="downsample_layers.0.0.weight",
    head="head.weight",
    depthwise=per_stage("stages.{s}.{b}.dwconv.weight"),
    others=("stages.0.0.gamma", "downsample_layers.0.1.weight"),
)

# timm 1.0.31, models/convnext.py, _cfg: the middle 0.875 of an image
TIMM_RULE = make_rule("timm", TIMM, TIMM_NAMES, fit="crop(0.875)")
# torchvision 0.28.0, ConvNeXt_Tiny_Weights: 224 of 236 pixels; of 230 and 232 in the others
TORCHVISION_RULE = make_rule("torchvision", torchvision_table(), TORCHVISION_NAMES, fit="crop(0.949)")
# transformers 5.23.0, ConvNextImageProcessor: crop_pct 224 / 256
HF_RULE = make_rule("Hugging Face", HF, HF_NAMES, fit="crop(0.875)")

RULES = (
    TIMM_RULE,
    replace(TORCHVISION_RULE, preprocessing=TORCHVISION_RULE.preprocessing | {"interpolation": "bilinear"}),
    replace(HF_RULE, keywords={"last_epsilon": 1e-12}, read_config=read_config),
    make_rule("Meta, facebookresearch/ConvNeXt", META, META_NAMES, fit="crop(0.875)"),
)

WEIGHTS = {
    "convnext/T@torchvision": {
        "address": "https://download.pytorch.org/models/convnext_tiny-983f1562.pth",
        "sha256": "983f1562",
        "bytes": None,
        "megabytes": 114.4,
        "license": "BSD-3-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.949)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 82.52,
        "accuracy_size": 224,
        "source": "torchvision 0.28.0, ConvNeXt_Tiny_Weights.IMAGENET1K_V1",
    },
    "convnext/S@torchvision": {
        "address": "https://download.pytorch.org/models/convnext_small-0c510722.pth",
        "sha256": "0c510722",
        "bytes": None,
        "megabytes": 201.0,
        "license": "BSD-3-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.974)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 83.616,
        "accuracy_size": 224,
        "source": "torchvision 0.28.0, ConvNeXt_Small_Weights.IMAGENET1K_V1",
    },
    "convnext/B@torchvision": {
        "address": "https://download.pytorch.org/models/convnext_base-6075fbad.pth",
        "sha256": "6075fbad",
        "bytes": None,
        "megabytes": 354.5,
        "license": "BSD-3-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.966)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 84.062,
        "accuracy_size": 224,
        "source": "torchvision 0.28.0, ConvNeXt_Base_Weights.IMAGENET1K_V1",
    },
    "convnext/L@torchvision": {
        "address": "https://download.pytorch.org/models/convnext_large-ea097f82.pth",
        "sha256": "ea097f82",
        "bytes": None,
        "megabytes": 791.2,
        "license": "BSD-3-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.966)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 84.414,
        "accuracy_size": 224,
        "source": "torchvision 0.28.0, ConvNeXt_Large_Weights.IMAGENET1K_V1",
    },
    "convnext/T@fb_in1k": {
        "address": "https://huggingface.co/timm/convnext_tiny.fb_in1k/resolve/main/model.safetensors",
        "sha256": None,
        "bytes": None,
        "megabytes": 114.4,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 82.066,
        "accuracy_size": 224,
        "source": "timm 1.0.31, convnext_tiny.fb_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "convnext/S@fb_in1k": {
        "address": "https://huggingface.co/timm/convnext_small.fb_in1k/resolve/main/model.safetensors",
        "sha256": None,
        "bytes": None,
        "megabytes": 200.9,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 83.144,
        "accuracy_size": 224,
        "source": "timm 1.0.31, convnext_small.fb_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "convnext/B@fb_in1k": {
        "address": "https://huggingface.co/timm/convnext_base.fb_in1k/resolve/main/model.safetensors",
        "sha256": None,
        "bytes": None,
        "megabytes": 354.4,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 83.838,
        "accuracy_size": 224,
        "source": "timm 1.0.31, convnext_base.fb_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "convnext/L@fb_in1k": {
        "address": "https://huggingface.co/timm/convnext_large.fb_in1k/resolve/main/model.safetensors",
        "sha256": None,
        "bytes": None,
        "megabytes": 791.1,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bicubic",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 84.304,
        "accuracy_size": 224,
        "source": "timm 1.0.31, convnext_large.fb_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "convnext/T@fb_in22k_ft_in1k": {
        "address": "https://huggingface.co/timm/convnext_tiny.fb_in22k_ft_in1k/resolve/main/model.safetensors",
        "sha256": None,
        "bytes": None,
        "megabytes": 114.4,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bicubic",
        },
        "trained_on": ["ImageNet-22k", "ImageNet-1k"],
        "accuracy": 82.9,
        "accuracy_size": 224,
        "source": "timm 1.0.31, convnext_tiny.fb_in22k_ft_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "convnext/S@fb_in22k_ft_in1k": {
        "address": "https://huggingface.co/timm/convnext_small.fb_in22k_ft_in1k/resolve/main/model.safetensors",
        "sha256": None,
        "bytes": None,
        "megabytes": 200.9,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bicubic",
        },
        "trained_on": ["ImageNet-22k", "ImageNet-1k"],
        "accuracy": 84.582,
        "accuracy_size": 224,
        "source": "timm 1.0.31, convnext_small.fb_in22k_ft_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "convnext/B@fb_in22k_ft_in1k": {
        "address": "https://huggingface.co/timm/convnext_base.fb_in22k_ft_in1k/resolve/main/model.safetensors",
        "sha256": None,
        "bytes": None,
        "megabytes": 354.4,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bicubic",
        },
        "trained_on": ["ImageNet-22k", "ImageNet-1k"],
        "accuracy": 85.814,
        "accuracy_size": 224,
        "source": "timm 1.0.31, convnext_base.fb_in22k_ft_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "convnext/L@fb_in22k_ft_in1k": {
        "address": "https://huggingface.co/timm/convnext_large.fb_in22k_ft_in1k/resolve/main/model.safetensors",
        "sha256": None,
        "bytes": None,
        "megabytes": 791.1,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bicubic",
        },
        "trained_on": ["ImageNet-22k", "ImageNet-1k"],
        "accuracy": 86.612,
        "accuracy_size": 224,
        "source": "timm 1.0.31, convnext_large.fb_in22k_ft_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "convnext/XL@fb_in22k_ft_in1k": {
        "address": "https://huggingface.co/timm/convnext_xlarge.fb_in22k_ft_in1k/resolve/main/model.safetensors",
        "sha256": None,
        "bytes": None,
        "megabytes": 1400.8,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bicubic",
        },
        "trained_on": ["ImageNet-22k", "ImageNet-1k"],
        "accuracy": 86.97,
        "accuracy_size": 224,
        "source": "timm 1.0.31, convnext_xlarge.fb_in22k_ft_in1k; its results/results-imagenet.csv at aa4b5850",
    },
    "convnext/T@huggingface": {
        "address": "https://huggingface.co/facebook/convnext-tiny-224/resolve/main/model.safetensors",
        "sha256": None,
        "bytes": None,
        "megabytes": 114.4,
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
        "source": (
            "transformers 5.23.0, ConvNextConfig and ConvNextImageProcessor of facebook/convnext-tiny-224; "
            "mean and std: timm 1.0.31, convnext_tiny.fb_in1k"
        ),
    },
}
