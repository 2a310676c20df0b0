"""Small networks made by others' programs themselves: torchvision, timm and Hugging Face's transformers.

A test that makes one is skipped where its program is not installed.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from torch_libraries import import_timm, import_torchvision, import_transformers

IMPORTS = {"torchvision": import_torchvision, "timm": import_timm, "transformers": import_transformers}


@dataclass(frozen=True)
class Program:
    """A network of somebody's program.

    Attributes:
        name: of the program, as it is imported.
        make: makes the network, without the values that matter.
        image_shape: (N, H, W, C) of the images whose scores are stored.
        keywords: keywords of our model that no shape tells.
    """

    name: str
    make: Callable[[], nn.Module]
    image_shape: tuple[int, int, int, int]
    keywords: dict[str, Any] = field(default_factory=dict)

    @property
    def versions(self) -> str:
        """The program and torch with their versions."""
        return f"{self.name} {IMPORTS[self.name]().__version__}, torch {torch.__version__}"


class Scores(nn.Module):
    """A network of transformers, whose answer is a record, as a network that answers with scores."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x).logits

    def state_dict(self, *args, **kwargs):
        return self.network.state_dict(*args, **kwargs)

    def load_state_dict(self, *args, **kwargs):
        return self.network.load_state_dict(*args, **kwargs)


# ResNet ---------------------------------------------------------------------------------------------------------------


def torchvision_resnet(block: str, blocks: list[int], classes: int = 10, **keywords) -> nn.Module:
    """A ResNet of torchvision; `block` is BasicBlock or Bottleneck."""
    import_torchvision()
    resnet = importlib.import_module("torchvision.models.resnet")
    return resnet.ResNet(getattr(resnet, block), blocks, num_classes=classes, **keywords)


def timm_resnet(block: str, blocks: list[int], classes: int = 10, **keywords) -> nn.Module:
    """A ResNet of timm; `block` is BasicBlock or Bottleneck."""
    import_timm()
    resnet = importlib.import_module("timm.models.resnet")
    return resnet.ResNet(getattr(resnet, block), blocks, num_classes=classes, **keywords)


def keep_two_stages(network: nn.Module) -> nn.Module:
    """Takes the last two stages out of a ResNet of torchvision or timm; its head is a new one on the second."""
    features = network.fc.in_features // 4
    network.layer3, network.layer4 = nn.Identity(), nn.Identity()
    network.fc = nn.Linear(features, network.fc.out_features)
    return network


def hf_resnet(classes: int = 10, **keywords) -> nn.Module:
    """A ResNet of transformers; keywords are those of its configuration."""
    if find_spec("torchvision") is not None:  # transformers imports it where it is installed
        import_torchvision()
    transformers = import_transformers()
    config = transformers.ResNetConfig(num_labels=classes, **keywords)
    return Scores(transformers.ResNetForImageClassification(config))


# VGG ------------------------------------------------------------------------------------------------------------------

LAYERS = (8, "M", 12, 12, "M")  # filters of convolutions; M is a pooling


def torchvision_vgg(*, batch_norm: bool, layers=LAYERS, hidden: tuple[int, int] = (24, 16)) -> nn.Module:
    """torchvision's VGG with a few narrow layers: those of 4,096 units are exchanged for others before they exist."""
    import_torchvision()
    vgg = importlib.import_module("torchvision.models.vgg")
    with torch.device("meta"):
        network = vgg.VGG(nn.Identity(), num_classes=10, init_weights=False)
    network.features = vgg.make_layers(list(layers), batch_norm)
    filters = [number for number in layers if number != "M"][-1]
    for place, inputs, outputs in ((0, filters * 7 * 7, hidden[0]), (3, *hidden), (6, hidden[1], 10)):
        network.classifier[place] = nn.Linear(inputs, outputs)
    return network


def timm_vgg(*, batch_norm: bool, layers=LAYERS) -> nn.Module:
    """timm's VGG with a few narrow layers; its second dense layer always has 4,096 units."""
    import_timm()
    vgg = importlib.import_module("timm.models.vgg")
    norm = nn.BatchNorm2d if batch_norm else None
    return vgg.VGG(list(layers), num_classes=10, mlp_ratio=1 / 256, norm_layer=norm)


HF_SMALL = {"embedding_size": 8, "hidden_sizes": [32, 64], "depths": [1, 2]}
PROGRAMS = {
    "resnet": Program(
        "torchvision",
        lambda: keep_two_stages(torchvision_resnet("BasicBlock", [1, 1, 1, 1])),
        (2, 57, 43, 3),
    ),
    "resnet_groups": Program(
        "timm",
        lambda: keep_two_stages(timm_resnet("Bottleneck", [1, 1, 1, 1], cardinality=32, base_width=4)),
        (2, 57, 43, 3),
    ),
    "resnet_huggingface": Program("transformers", lambda: hf_resnet(**HF_SMALL), (2, 57, 43, 3)),
    "vgg": Program("torchvision", lambda: torchvision_vgg(batch_norm=False), (2, 41, 18, 3)),
    "vgg_timm": Program("timm", lambda: timm_vgg(batch_norm=True), (2, 41, 18, 3)),
}
