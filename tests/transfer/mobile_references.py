"""Small MobileNetV2s and EfficientNets of torchvision and timm: their own classes, with few filters and blocks."""

import importlib
from functools import partial

from torch import nn
from torch_libraries import import_timm, import_torchvision

WIDTH = 0.1  # share of the filters, which leaves 8 to 32 in each stage


def torchvision_mobilenet(width: float = WIDTH, classes: int = 10) -> nn.Module:
    """All 17 blocks, since torchvision numbers them through."""
    return import_torchvision().models.mobilenet_v2(width_mult=width, num_classes=classes)


def torchvision_efficientnet(width: float = WIDTH, depth: float = 0.1, classes: int = 10) -> nn.Module:
    """As many blocks in each stage as the depth multiplier leaves, rounded up: one with 0.1."""
    efficientnet = import_torchvision().models.efficientnet
    settings = []
    for expansion, kernel, stride, inputs, outputs, layers in (
        (1, 3, 1, 32, 16, 1),
        (6, 3, 2, 16, 24, 2),
        (6, 5, 2, 24, 40, 2),
        (6, 3, 2, 40, 80, 3),
        (6, 5, 1, 80, 112, 3),
        (6, 5, 2, 112, 192, 4),
        (6, 3, 1, 192, 320, 1),
    ):
        settings.append(
            efficientnet.MBConvConfig(
                expansion, kernel, stride, inputs, outputs, layers, width_mult=width, depth_mult=depth
            )
        )
    return efficientnet.EfficientNet(settings, dropout=0.0, num_classes=classes)


def timm_mobilenet(
    width: float = WIDTH, depth: float = 1.0, classes: int = 10, *, fixed_ends: bool = False
) -> nn.Module:
    """Built by the function that builds all of timm's."""
    build = import_timm().models.efficientnet._gen_mobilenet_v2
    return build("mobilenetv2_100", width, depth, fix_stem_head=fixed_ends, num_classes=classes)


def timm_efficientnet(width: float = WIDTH, depth: float = 0.1, classes: int = 10, *, tf: bool = False) -> nn.Module:
    """efficientnet_b0 and the like, or tf_efficientnet_b0 with TensorFlow's padding and epsilon."""
    build = import_timm().models.efficientnet._gen_efficientnet
    like_tf = {"bn_eps": 1e-3, "pad_type": "same"} if tf else {}
    return build("efficientnet_b0", width, depth, num_classes=classes, **like_tf)


def timm_first_stages(stages: list[str], last_filters: int, activation: type, *, tf: bool = False) -> nn.Module:
    """A network of timm of a few stages, "ir_r1_k5_s2_e6_c40": a block of 5x5 filters, six times as wide inside."""
    import_timm()
    builder = importlib.import_module("timm.models._efficientnet_builder")
    efficientnet = importlib.import_module("timm.models.efficientnet")
    return efficientnet.EfficientNet(
        builder.decode_arch_def([[stage] for stage in stages]),
        num_classes=10,
        num_features=last_filters,
        round_chs_fn=partial(builder.round_channels, multiplier=0.25),
        act_layer=activation,
        norm_layer=partial(nn.BatchNorm2d, eps=1e-3 if tf else 1e-5),
        pad_type="same" if tf else "",
    )


def small_mobilenet() -> nn.Module:
    """The first three stages of a MobileNetV2 with a quarter of the filters."""
    return timm_first_stages(["ds_r1_k3_s1_c16", "ir_r1_k3_s2_e6_c24", "ir_r1_k3_s2_e6_c32"], 1280, nn.ReLU6)


def small_efficientnet() -> nn.Module:
    """The first three stages of a tf_efficientnet with a quarter of the filters."""
    stages = ["ds_r1_k3_s1_e1_c16_se0.25", "ir_r1_k3_s2_e6_c24_se0.25", "ir_r1_k5_s2_e6_c40_se0.25"]
    return timm_first_stages(stages, 320, nn.SiLU, tf=True)
