"""The Python that makes a network of ours in another program, where files under its names are loaded.

A function gets all keywords of our network, and `num_classes`, `channels` and `image_size` (height, width), and returns
an expression that begins with the program's module. The signatures are those of torchvision 0.28.0, timm 1.0.31 and
transformers 5.23.0.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cnn_vit.models import efficientnet, mobilenet_v2, round_filters

Keywords = Mapping[str, Any]
LOAD = "model.load_state_dict(safetensors.torch.load_file({file}))"
TIMM_POOLS = {"token": "token", "average": "avg", "attention": "map"}
HF_ACTIVATIONS = {"gelu": "gelu", "relu": "relu", "gelu_tanh": "gelu_pytorch_tanh"}


@dataclass(frozen=True)
class TorchModel:
    """How a network of another program is made.

    Attributes:
        write: writes the expression.
        sets: keywords of ours that it sets, whatever the program does by default.
        has: keywords that every network of the program has, beside those of its rule.
        limits: each says what of a network the program does not have, the end of a sentence; "" where it has all.
        modules: of Python that the expression needs beside the program's.
        load: what loads the arrays, where {file} stands for the file; the network is called `model`.
    """

    write: Callable[[Keywords], str]
    sets: tuple[str, ...] = ()
    has: Mapping[str, Any] = field(default_factory=dict)
    limits: tuple[Callable[[Keywords], str], ...] = ()
    modules: tuple[str, ...] = ()
    load: str = LOAD


def call(name: str, **arguments: Any) -> str:
    """Writes a call; a value that is a text is written as it is."""
    return f"{name}({', '.join(f'{key}={value}' for key, value in arguments.items())})"


# What networks of programs do not have -------------------------------------------------------------------------------


def only_color(keywords: Keywords) -> str:
    """A program whose images have 3 channels."""
    return "" if keywords["channels"] == 3 else f"images of {keywords['channels']} channel, and there they have 3"


def only_square(keywords: Keywords) -> str:
    """A program whose images are square."""
    height, width = keywords["image_size"]
    return "" if height == width else f"images of {height}x{width} pixels, and there they are square"


def four_stages(keywords: Keywords) -> str:
    """A program whose networks have 4 stages."""
    count = len(keywords["blocks"])
    return "" if count == 4 else f"{count} stages, and there it is always 4"


def seven_stages(keywords: Keywords) -> str:
    """A program whose networks have 7 stages."""
    count = len(keywords["blocks"])
    return "" if count == 7 else f"{count} stages, and there it is always 7"


def one_epsilon(keywords: Keywords) -> str:
    """A program that adds the same number to the variance in all norms."""
    epsilon, last = keywords["epsilon"], keywords["last_epsilon"]
    return "" if epsilon == last else f"an epsilon of {epsilon}, in the last norm of {last}, and there it is one"


# Networks -------------------------------------------------------------------------------------------------------------


def timm_vit(keywords: Keywords) -> str:
    """Writes a ViT of timm, whose average would get a norm of its own instead of the last one."""
    return call(
        "timm.models.vision_transformer.VisionTransformer",
        img_size=keywords["image_size"],
        patch_size=keywords["patch"],
        in_chans=keywords["channels"],
        num_classes=keywords["num_classes"],
        embed_dim=keywords["width"],
        depth=keywords["depth"],
        num_heads=keywords["heads"],
        mlp_ratio=timm_ratio(keywords),
        qkv_bias=keywords["qkv_bias"],
        class_token=keywords["pool"] == "token",
        no_embed_class=not keywords["token_position"],
        global_pool=repr(TIMM_POOLS[keywords["pool"]]),
        fc_norm=False,
        act_layer=repr(keywords["activation"]),
    )


def timm_ratio(keywords: Keywords) -> str:
    """Writes the share of the width that an MLP has inside, of which timm takes the whole part after multiplying."""
    return f"{keywords['hidden'] + 0.5} / {keywords['width']}"


def timm_deit(keywords: Keywords) -> str:
    """Writes a DeiT of timm with two learned tokens."""
    return call(
        "timm.models.deit.VisionTransformerDistilled",
        img_size=keywords["image_size"],
        patch_size=keywords["patch"],
        in_chans=keywords["channels"],
        num_classes=keywords["num_classes"],
        embed_dim=keywords["width"],
        depth=keywords["depth"],
        num_heads=keywords["heads"],
        mlp_ratio=timm_ratio(keywords),
    )


def hf_deit(keywords: Keywords) -> str:
    """Writes the configuration of a DeiT of Hugging Face's code."""
    return call(
        "transformers.DeiTConfig",
        hidden_size=keywords["width"],
        num_hidden_layers=keywords["depth"],
        num_attention_heads=keywords["heads"],
        intermediate_size=keywords["hidden"],
        layer_norm_eps=keywords["epsilon"],
        image_size=list(keywords["image_size"]),
        patch_size=keywords["patch"],
        num_channels=keywords["channels"],
        num_labels=keywords["num_classes"],
    )


def torchvision_vit(keywords: Keywords) -> str:
    """Writes a ViT of torchvision, which takes square images in color."""
    return call(
        "torchvision.models.VisionTransformer",
        image_size=keywords["image_size"][0],
        patch_size=keywords["patch"],
        num_layers=keywords["depth"],
        num_heads=keywords["heads"],
        hidden_dim=keywords["width"],
        mlp_dim=keywords["hidden"],
        num_classes=keywords["num_classes"],
        representation_size=keywords["width"] if keywords["pre_logits"] else None,
    )


def hf_vit(keywords: Keywords) -> str:
    """Writes the configuration of a ViT of Hugging Face's code, which makes the network where the arrays are loaded."""
    return call(
        "transformers.ViTConfig",
        hidden_size=keywords["width"],
        num_hidden_layers=keywords["depth"],
        num_attention_heads=keywords["heads"],
        intermediate_size=keywords["hidden"],
        hidden_act=repr(HF_ACTIVATIONS[keywords["activation"]]),
        layer_norm_eps=keywords["epsilon"],
        image_size=list(keywords["image_size"]),
        patch_size=keywords["patch"],
        num_channels=keywords["channels"],
        qkv_bias=keywords["qkv_bias"],
        num_labels=keywords["num_classes"],
    )


def torchvision_resnet(keywords: Keywords) -> str:
    """Writes a ResNet of torchvision."""
    return (
        f"torchvision.models.ResNet(torchvision.models.resnet.{block_of(keywords)}, {list(keywords['blocks'])}, "
        f"num_classes={keywords['num_classes']}, groups={keywords['groups']}, "
        f"width_per_group={keywords['group_width']})"
    )


def timm_resnet(keywords: Keywords) -> str:
    """Writes a ResNet of timm."""
    return (
        f"timm.models.resnet.ResNet(timm.models.resnet.{block_of(keywords)}, {tuple(keywords['blocks'])}, "
        f"num_classes={keywords['num_classes']}, in_chans={keywords['channels']}, cardinality={keywords['groups']}, "
        f"base_width={keywords['group_width']})"
    )


def hf_resnet(keywords: Keywords) -> str:
    """Writes the configuration of a ResNet of Hugging Face's code."""
    widening = 4 if keywords["bottleneck"] else 1
    sizes = [keywords["filters"] * widening * 2**stage for stage in range(len(keywords["blocks"]))]
    return call(
        "transformers.ResNetConfig",
        num_channels=keywords["channels"],
        embedding_size=keywords["filters"],
        hidden_sizes=sizes,
        depths=list(keywords["blocks"]),
        layer_type=repr("bottleneck" if keywords["bottleneck"] else "basic"),
        downsample_in_bottleneck=keywords["version"] == "v1",
        num_labels=keywords["num_classes"],
    )


def torchvision_vgg(keywords: Keywords) -> str:
    """Writes a VGG of torchvision."""
    layers: list[int | str] = []
    for filters, convolutions in zip(keywords["filters"], keywords["convolutions"], strict=True):
        layers += [filters] * convolutions + ["M"]
    made = f"torchvision.models.vgg.make_layers({layers}, batch_norm={keywords['batch_norm']})"
    return f"torchvision.models.VGG({made}, num_classes={keywords['num_classes']})"


def timm_vgg(keywords: Keywords) -> str:
    """Writes a VGG of timm."""
    layers: list[int | str] = []
    for filters, convolutions in zip(keywords["filters"], keywords["convolutions"], strict=True):
        layers += [filters] * convolutions + ["M"]
    norm = ", norm_layer=torch.nn.BatchNorm2d" if keywords["batch_norm"] else ""
    return (
        f"timm.models.vgg.VGG({layers}, num_classes={keywords['num_classes']}, in_chans={keywords['channels']}{norm})"
    )


def torchvision_convnext(keywords: Keywords) -> str:
    """Writes a ConvNeXt of torchvision."""
    stages = []
    widths, blocks = keywords["widths"], keywords["blocks"]
    for i in range(len(widths)):
        after = widths[i + 1] if i + 1 < len(widths) else None
        stages.append(f"torchvision.models.convnext.CNBlockConfig({widths[i]}, {after}, {blocks[i]})")
    return f"torchvision.models.ConvNeXt([{', '.join(stages)}], num_classes={keywords['num_classes']})"


def timm_convnext(keywords: Keywords) -> str:
    """Writes a ConvNeXt of timm."""
    return call(
        "timm.models.convnext.ConvNeXt",
        in_chans=keywords["channels"],
        num_classes=keywords["num_classes"],
        depths=keywords["blocks"],
        dims=keywords["widths"],
        norm_eps=keywords["epsilon"],
    )


def hf_convnext(keywords: Keywords) -> str:
    """Writes the configuration of a ConvNeXt of Hugging Face's code."""
    return call(
        "transformers.ConvNextConfig",
        num_channels=keywords["channels"],
        num_stages=len(keywords["widths"]),
        hidden_sizes=list(keywords["widths"]),
        depths=list(keywords["blocks"]),
        layer_norm_eps=keywords["last_epsilon"],
        num_labels=keywords["num_classes"],
    )


def torchvision_mobilenet(keywords: Keywords) -> str:
    """Writes a MobileNetV2 of torchvision."""
    return call(
        "torchvision.models.MobileNetV2",
        num_classes=keywords["num_classes"],
        width_mult=keywords["width_multiplier"],
    )


def timm_mobilenet(keywords: Keywords) -> str:
    """Writes a MobileNetV2 of timm, stage by stage: "ir_r2_k3_s2_e6_c24" is 2 blocks, 3x3, stride 2, 24 filters."""
    stages = []
    for i, blocks in enumerate(keywords["blocks"]):
        kind, expansion = ("ds", 1) if i == 0 else ("ir", mobilenet_v2.EXPANSION)
        filters, stride = mobilenet_v2.FILTERS[i], mobilenet_v2.STRIDES[i]
        stages.append([f"{kind}_r{blocks}_k3_s{stride}_e{expansion}_c{filters}"])
    multiplier = keywords["width_multiplier"] if keywords["scale_ends"] else 1.0
    return timm_stages(
        keywords,
        stages,
        num_features=round_filters(mobilenet_v2.LAST_FILTERS * max(1.0, multiplier)),
        fix_stem=not keywords["scale_ends"],
        act_layer="torch.nn.ReLU6",
    )


def torchvision_efficientnet(keywords: Keywords) -> str:
    """Writes an EfficientNet of torchvision: expansion, kernel, stride, filters into and out of each stage, blocks."""
    stages = []
    before = efficientnet.STEM_FILTERS
    for i, blocks in enumerate(keywords["blocks"]):
        expansion = 1 if i == 0 else efficientnet.EXPANSION
        numbers = (expansion, efficientnet.KERNELS[i], efficientnet.STRIDES[i], before, efficientnet.FILTERS[i], blocks)
        before = efficientnet.FILTERS[i]
        stages.append(numbers)
    config = f"torchvision.models.efficientnet.MBConvConfig(*stage, width_mult={keywords['width_multiplier']})"
    return call(
        "torchvision.models.EfficientNet",
        inverted_residual_setting=f"[{config} for stage in {stages}]",
        dropout=0.0,
        num_classes=keywords["num_classes"],
        norm_layer=f"functools.partial(torch.nn.BatchNorm2d, eps={keywords['epsilon']})",
        last_channel=round_filters(efficientnet.LAST_FILTERS * keywords["width_multiplier"]),
    )


def timm_efficientnet(keywords: Keywords) -> str:
    """Writes an EfficientNet of timm, stage by stage as a MobileNetV2."""
    stages = []
    for i, blocks in enumerate(keywords["blocks"]):
        kind, expansion = ("ds", 1) if i == 0 else ("ir", efficientnet.EXPANSION)
        kernel, stride, filters = efficientnet.KERNELS[i], efficientnet.STRIDES[i], efficientnet.FILTERS[i]
        stages.append([f"{kind}_r{blocks}_k{kernel}_s{stride}_e{expansion}_c{filters}_se0.25"])
    return timm_stages(
        keywords,
        stages,
        num_features=round_filters(efficientnet.LAST_FILTERS * keywords["width_multiplier"]),
        act_layer="torch.nn.SiLU",
        pad_type=repr("same" if keywords["padding"] == "same" else ""),
        norm_layer=f"functools.partial(torch.nn.BatchNorm2d, eps={keywords['epsilon']})",
    )


def timm_stages(keywords: Keywords, stages: list[list[str]], **arguments: Any) -> str:
    """Writes a network of timm's class for MobileNetV2 and EfficientNet, whose stages are written as texts."""
    round_channels = "timm.models.efficientnet.round_channels"
    return call(
        "timm.models.efficientnet.EfficientNet",
        block_args=f"timm.models.efficientnet.decode_arch_def({stages})",
        num_classes=keywords["num_classes"],
        in_chans=keywords["channels"],
        round_chs_fn=f"functools.partial({round_channels}, multiplier={keywords['width_multiplier']})",
        **arguments,
    )


def block_of(keywords: Keywords) -> str:
    """Returns the class of a residual block, which has the same name in both programs."""
    return "Bottleneck" if keywords["bottleneck"] else "BasicBlock"


LEARNED = {"positions": "learned", "head_width": None}
WITH_TOKEN = LEARNED | {"pool": "token", "token_position": True}
# Modules of Hugging Face's code have other names than its files, which `from_pretrained` knows.
HF_LOAD = (
    "model = transformers.{name}.from_pretrained(None, config=model, state_dict=safetensors.torch.load_file({{file}}))"
)
FULL_VGG = {"filters": (64, 128, 256, 512, 512), "hidden": (4096, 4096)}
TWO_TOKENS = {"distilled": True}
TORCH = ("functools", "torch")
# By family and by what `--to` calls the program.
MODELS = {
    ("vit", "timm"): TorchModel(timm_vit, ("activation",), LEARNED | {"pre_logits": False}),
    ("vit", "torchvision"): TorchModel(
        torchvision_vit, (), WITH_TOKEN | {"qkv_bias": True}, limits=(only_color, only_square)
    ),
    ("vit", "hf"): TorchModel(
        hf_vit,
        ("activation", "epsilon"),
        WITH_TOKEN | {"pre_logits": False},
        load=HF_LOAD.format(name="ViTForImageClassification"),
    ),
    ("deit", "timm"): TorchModel(timm_deit, (), TWO_TOKENS),
    ("deit", "hf"): TorchModel(
        hf_deit, ("epsilon",), TWO_TOKENS, load=HF_LOAD.format(name="DeiTForImageClassificationWithTeacher")
    ),
    ("resnet", "torchvision"): TorchModel(torchvision_resnet, (), {"filters": 64}, limits=(only_color, four_stages)),
    ("resnet", "timm"): TorchModel(timm_resnet, (), {"filters": 64}, limits=(four_stages,)),
    ("resnet", "hf"): TorchModel(
        hf_resnet,
        ("version",),
        {"groups": 1, "group_width": 64},
        load=HF_LOAD.format(name="ResNetForImageClassification"),
    ),
    ("vgg", "torchvision"): TorchModel(torchvision_vgg, (), FULL_VGG, limits=(only_color,)),
    ("vgg", "timm"): TorchModel(timm_vgg, (), {"hidden": (4096, 4096)}, modules=("torch",)),
    ("convnext", "torchvision"): TorchModel(
        torchvision_convnext, (), {"kernel_size": 7, "epsilon": 1e-6, "last_epsilon": 1e-6}, limits=(only_color,)
    ),
    ("convnext", "timm"): TorchModel(
        timm_convnext, ("epsilon", "last_epsilon"), {"kernel_size": 7}, limits=(four_stages, one_epsilon)
    ),
    ("convnext", "hf"): TorchModel(
        hf_convnext,
        ("last_epsilon",),
        {"kernel_size": 7, "epsilon": 1e-6},
        load=HF_LOAD.format(name="ConvNextForImageClassification"),
    ),
    ("mobilenet_v2", "torchvision"): TorchModel(
        torchvision_mobilenet, (), {"scale_ends": True, "blocks": (1, 2, 3, 4, 3, 3, 1)}, limits=(only_color,)
    ),
    ("mobilenet_v2", "timm"): TorchModel(timm_mobilenet, modules=TORCH),
    ("efficientnet", "torchvision"): TorchModel(
        torchvision_efficientnet,
        ("epsilon",),
        {"padding": "symmetric"},
        limits=(only_color, seven_stages),
        modules=TORCH,
    ),
    ("efficientnet", "timm"): TorchModel(timm_efficientnet, modules=TORCH),
}
