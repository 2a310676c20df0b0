"""Fills the reference networks with values that follow from names, and stores their scores of two images.

python tests/transfer/write_parity.py [NAME ...]   writes tests/transfer/parity/*.json, all or those that are named;
                                                    needs torch, and for some torchvision, timm or transformers
"""

import sys
from collections.abc import Callable

import mobile_references as mobile
import numpy as np
import parity_wheels
import torch
from parity_values import FOLDER, Reference, make_images, make_values, write_reference
from torch import nn
from torch_programs import PROGRAMS
from torch_references import CifarResNet, VisionTransformer, mobilenet_scores, mobilenet_shapes

VIT_KEYWORDS = {"heads": 3, "activation": "relu"}


def make_vit(activation: nn.Module, image_size: tuple[int, int]) -> VisionTransformer:
    """Makes a small transformer whose heads are together wider than the network."""
    sizes = {"width": 32, "depth": 2, "heads": 3, "head_width": 16, "hidden": 48}
    return VisionTransformer(image_size, 4, 1, 10, activation=activation, **sizes)


# Each network at the size of its stored images.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], dict, tuple[int, int, int, int]]] = {
    "cifar_resnet": (lambda: CifarResNet(1, 10), {}, (2, 32, 32, 3)),
    "cifar_resnet_b": (lambda: CifarResNet(1, 10, "B"), {}, (2, 32, 32, 3)),
    "vit": (lambda: make_vit(nn.ReLU(), (16, 16)), VIT_KEYWORDS, (2, 16, 16, 1)),
    "vit_gelu": (lambda: make_vit(nn.GELU(), (16, 16)), {"heads": 3, "activation": "gelu"}, (2, 16, 16, 1)),
    "mobilenet_v2": (mobile.small_mobilenet, {}, (2, 31, 22, 3)),
    "mobilenet_v2_torchvision": (mobile.torchvision_mobilenet, {}, (2, 64, 64, 3)),
    # An even and an odd side, which TensorFlow pads by other numbers.
    "efficientnet": (mobile.small_efficientnet, {"padding": "same"}, (2, 30, 23, 3)),
    "efficientnet_torchvision": (mobile.torchvision_efficientnet, {}, (2, 64, 64, 3)),
}
MOBILENET_IMAGES = (2, 64, 64, 3)


def fill(network: nn.Module) -> tuple[nn.Module, dict[str, np.ndarray]]:
    """Fills a network with values that follow from the names of its parameters, and returns these too."""
    shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    values = make_values(shapes)
    network.load_state_dict({name: torch.tensor(value) for name, value in values.items()})
    return network.eval(), values


def compute_scores(network: Callable, images: np.ndarray) -> np.ndarray:
    """Returns the scores of images (N, H, W, C)."""
    with torch.no_grad():
        return network(torch.tensor(images).permute(0, 3, 1, 2)).numpy()


def mobilenet(alpha: float = 0.25, classes: int = 10) -> tuple[Callable, dict[str, np.ndarray]]:
    """Returns a MobileNet as a function of images, and its values."""
    values = make_values(mobilenet_shapes(alpha, classes))
    weights = {name: torch.tensor(value) for name, value in values.items()}
    return lambda images: mobilenet_scores(weights, images), values


def make_reference(name: str) -> Reference:
    """Computes what is stored of a reference network."""
    if name in parity_wheels.NETWORKS:
        return parity_wheels.make_reference(name)
    versions = f"torch {torch.__version__}"
    if name == "mobilenet_v1":
        network, values = mobilenet()
        keywords, shape = {}, MOBILENET_IMAGES
    elif name in PROGRAMS:
        program = PROGRAMS[name]
        network, values = fill(program.make())
        keywords, shape, versions = program.keywords, program.image_shape, program.versions
    else:
        make, keywords, shape = NETWORKS[name]
        network, values = fill(make())
    scores = compute_scores(network, make_images(shape))
    shapes = {key: list(value.shape) for key, value in values.items()}
    return Reference(versions, keywords, shape, shapes, scores.tolist())


NAMES = (*NETWORKS, "mobilenet_v1", *parity_wheels.NETWORKS, *PROGRAMS)

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or NAMES:
        reference = make_reference(name)
        write_reference(name, reference)
        scores = np.array(reference.scores)
        print(f"{name}: scores from {scores.min():.3f} to {scores.max():.3f}, standard deviation {scores.std():.3f}")
