"""Published weights, converted, give the scores that PyTorch gives; both lie beside the repository, where they do.

The scores were computed with torch 2.13 on a CPU from pixels of 8 bits; nothing of these files may be part of the
project.
"""

from pathlib import Path

import numpy as np
import pytest
from converted import compute_scores, normalize

from cnn_vit.transfer.convert import Conversion, convert_file

SHARED = Path(__file__).parents[3] / "shared" / "data"  # published files, on machines that have them
MOBILENET = "mobilenet_v1_0.25_224_imagenet.npz"
VIT = "vit_mnist_d64_l6_h4_p4.pt"
RESNETS = {
    20: "resnet20-12fca82f.th",
    32: "resnet32-d509ac18.th",
    44: "resnet44-014dd654.th",
    56: "resnet56-4bfd9763.th",
}
CLOSE = 1e-4


def shared_file(name: str) -> Path:
    """Returns the path of a file beside the repository, or skips the test."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"no {name} beside the repository")
    return path


def convert(name: str) -> Conversion:
    """Converts published weights by nothing but their names and shapes."""
    return convert_file(shared_file(f"pretrained/{name}"))


def distance(conversion: Conversion, pixels: np.ndarray, expected: np.ndarray, **options) -> float:
    """Returns the largest difference of scores, of images prepared as the card says."""
    images = normalize(pixels, conversion.weights.card.preprocessing)
    return float(np.abs(compute_scores(conversion.weights, images, **options) - expected).max())


def check_resnet(depth: int) -> None:
    """Checks what a published ResNet is recognized as, and its scores."""
    golden = np.load(shared_file("golden/resnet_cifar10.npz"))
    conversion = convert(RESNETS[depth])
    card = conversion.weights.card
    assert (card.model, card.keywords, card.num_classes) == (f"cifar_resnet/{depth}", {}, 10)
    assert card.classes[0] == "airplane"
    assert card.origin["licence"] == "BSD-2-Clause"
    np.testing.assert_allclose(card.preprocessing["mean"], golden["mean"], atol=1e-7)
    np.testing.assert_allclose(card.preprocessing["std"], golden["std"], atol=1e-7)
    assert distance(conversion, golden["images_uint8"], golden[f"resnet{depth}_logits"]) <= CLOSE


def test_resnet_20_gives_the_golden_scores():
    check_resnet(20)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [32, 44, 56])
def test_deeper_resnets_give_the_golden_scores(depth):
    check_resnet(depth)


def test_the_vit_for_mnist_gives_the_golden_scores():
    golden = np.load(shared_file("golden/vit_mnist.npz"))
    conversion = convert(VIT)
    card = conversion.weights.card
    assert card.keywords["heads"] == 4
    assert card.preprocessing == {
        "mean": [float(golden["mean"])], "std": [float(golden["std"])], "image_size": [28, 28], "channels": 1
    }  # fmt: skip
    pixels = golden["images_uint8"][..., None]
    assert distance(conversion, pixels, golden["logits"], convolutional=False) <= CLOSE


@pytest.mark.slow
def test_mobilenet_gives_the_golden_scores():
    golden = np.load(shared_file("golden/mobilenet_v1_025.npz"))
    conversion = convert(MOBILENET)
    card = conversion.weights.card
    assert card.model == "mobilenet_v1/0.25"
    # pixels / 127.5 - 1 and (pixels / 255 - 0.5) / 0.5 are the same
    assert (card.preprocessing["mean"], card.preprocessing["std"]) == ([0.5] * 3, [0.5] * 3)
    assert distance(conversion, golden["images_uint8"], golden["logits"]) <= CLOSE
    names = [card.classes[label] for label in golden["labels"]]  # every tenth class
    assert names[:3] == ["tench", "brambling", "water ouzel"]


def test_imagenet_s_class_names_are_those_beside_the_repository():
    import json

    from cnn_vit.transfer import class_names

    pairs = json.loads(shared_file("imagenet_classes.json").read_text())
    folder = Path(class_names.__file__).parent
    lines = (folder / "imagenet_classes.txt").read_text().splitlines()
    assert lines == [f"{identifier} {name}" for identifier, name in pairs]
