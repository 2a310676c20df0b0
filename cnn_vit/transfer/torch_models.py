"""The Python that makes a network of ours in another program, where files under its names are loaded.

A function gets all keywords of our network, and `num_classes`, `channels` and `image_size` (height, width), and returns
an expression that begins with the program's module. The signatures are those of torchvision 0.28.0, timm 1.0.31 and
transformers 5.23.0.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

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
        load: what loads the arrays, where {file} stands for the file; the network is called `model`.
    """

    write: Callable[[Keywords], str]
    sets: tuple[str, ...] = ()
    has: Mapping[str, Any] = field(default_factory=dict)
    load: str = LOAD


def call(name: str, **arguments: Any) -> str:
    """Writes a call; a value that is a text is written as it is."""
    return f"{name}({', '.join(f'{key}={value}' for key, value in arguments.items())})"


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
        mlp_ratio=f"{keywords['hidden']} / {keywords['width']}",
        qkv_bias=keywords["qkv_bias"],
        class_token=keywords["pool"] == "token",
        no_embed_class=not keywords["token_position"],
        global_pool=repr(TIMM_POOLS[keywords["pool"]]),
        fc_norm=False,
        act_layer=repr(keywords["activation"]),
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
        num_labels=keywords["num_classes"],
    )


def torchvision_vgg(keywords: Keywords) -> str:
    """Writes a VGG of torchvision."""
    layers: list[int | str] = []
    for filters, convolutions in zip(keywords["filters"], keywords["convolutions"], strict=True):
        layers += [filters] * convolutions + ["M"]
    made = f"torchvision.models.vgg.make_layers({layers}, batch_norm={keywords['batch_norm']})"
    return f"torchvision.models.VGG({made}, num_classes={keywords['num_classes']})"


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


def block_of(keywords: Keywords) -> str:
    """Returns the class of a residual block, which has the same name in both programs."""
    return "Bottleneck" if keywords["bottleneck"] else "BasicBlock"


LEARNED = {"positions": "learned", "head_width": None}
WITH_TOKEN = LEARNED | {"pool": "token", "token_position": True}
# Modules of Hugging Face's code have other names than its files, which `from_pretrained` knows.
HF_LOAD = (
    "model = transformers.{name}ForImageClassification.from_pretrained("
    "None, config=model, state_dict=safetensors.torch.load_file({{file}}))"
)
FULL_VGG = {"filters": (64, 128, 256, 512, 512), "hidden": (4096, 4096)}
# By family and by what `--to` calls the program.
MODELS = {
    ("vit", "timm"): TorchModel(timm_vit, ("activation",), LEARNED),
    ("vit", "torchvision"): TorchModel(torchvision_vit, (), WITH_TOKEN | {"qkv_bias": True}),
    ("vit", "hf"): TorchModel(hf_vit, ("activation", "epsilon"), WITH_TOKEN, HF_LOAD.format(name="ViT")),
    ("resnet", "torchvision"): TorchModel(torchvision_resnet, (), {"filters": 64}),
    ("resnet", "timm"): TorchModel(timm_resnet, (), {"filters": 64}),
    ("resnet", "hf"): TorchModel(hf_resnet, (), {"groups": 1, "group_width": 64}, HF_LOAD.format(name="ResNet")),
    ("vgg", "torchvision"): TorchModel(torchvision_vgg, (), FULL_VGG),
    ("convnext", "torchvision"): TorchModel(torchvision_convnext, (), {"kernel_size": 7}),
    ("convnext", "timm"): TorchModel(timm_convnext, (), {"kernel_size": 7}),
    ("convnext", "hf"): TorchModel(hf_convnext, ("last_epsilon",), {"kernel_size": 7}, HF_LOAD.format(name="ConvNext")),
}
