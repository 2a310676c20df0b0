"""Names of ResNets for CIFAR: those of akamaster/pytorch_resnet_cifar10, whose option A has no parameters."""

from typing import Any

from cnn_vit.transfer.rules import IMAGENET, ConversionRule, Guess, Shapes, count_numbered, name_variant
from cnn_vit.transfer.table import TORCH_BATCH_NORM, TORCH_CONV, TORCH_COUNTER, TORCH_DENSE, TORCH_OPTIMIZER, Row

TABLE = (
    Row("stem", "conv1", TORCH_CONV),
    Row("stem_norm", "bn1", TORCH_BATCH_NORM),
    Row("stages/{s}/blocks/{b}/conv{n}", "layer{s+1}.{b}.conv{n}", TORCH_CONV),
    Row("stages/{s}/blocks/{b}/norm{n}", "layer{s+1}.{b}.bn{n}", TORCH_BATCH_NORM),
    Row("stages/{s}/blocks/{b}/projection/conv", "layer{s+1}.{b}.shortcut.0", TORCH_CONV),
    Row("stages/{s}/blocks/{b}/projection/norm", "layer{s+1}.{b}.shortcut.1", TORCH_BATCH_NORM),
    Row("head", "linear", TORCH_DENSE),
)


def guess(shapes: Shapes, keywords: dict[str, Any]) -> Guess:
    """Counts the blocks of the first stage and the filters of the stem."""
    filters, channels = shapes["conv1.weight"][:2]
    num_classes = shapes["linear.weight"][0]
    blocks = count_numbered(shapes, "layer1.{}.conv1.weight")
    model, left_over = name_variant("cifar_resnet", {"blocks": blocks, "filters": filters}, otherwise="20")
    reasons = [f"{blocks} blocks in layer1 of two convolutions: {6 * blocks + 2} layers", f"{filters} filters in conv1"]
    if "layer2.0.shortcut.0.weight" in shapes:
        model += "-b"
        reasons.append("a convolution in the shortcut of layer2: option B")
    else:
        reasons.append("no array in the shortcuts: option A")
    return Guess(model, num_classes, channels, None, tuple(reasons), left_over)


RULES = (
    ConversionRule(
        family="cifar_resnet",
        source="PyTorch, akamaster/pytorch_resnet_cifar10",
        version=1,
        table=TABLE,
        signs=("conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight", "layer3.0.conv2.weight", "linear.weight"),
        guess=guess,
        first_kernel="stem/kernel",
        prefixes=("", "module."),
        dropped=(TORCH_COUNTER, TORCH_OPTIMIZER),
        # its trainer.py: mean and standard deviation of ImageNet, for CIFAR too
        preprocessing=IMAGENET | {"image_size": [32, 32]},
        classes={10: "CIFAR-10"},
        targets=("akamaster",),
    ),
)

# Weights by name, as `catalog` reads them. The repository's README gives test errors; its training saves the epoch that
# was best on the test split. The file of 110 layers is in the repository too, and only its name says a hash of it.
WEIGHTS = {
    "cifar_resnet/8@mnist": {
        "file": "cifar_resnet_8_mnist.safetensors",
        "sha256": "1e1b177bd6e3fca57b513b561fc87111560234201f1d28f229cc6b471928c594",
        "bytes": 306272,
        "license": "Apache-2.0",
        "trained_on": "mnist",
        "accuracy": 99.31,
        "accuracy_size": 28,
        "source": "configs/mnist_resnet.py",
        "meaning": "gray digits of 28 pixels: 99.31 % of MNIST's test split; configs/mnist_resnet.py",
    },
    "cifar_resnet/20@akamaster": {
        "address": "https://raw.githubusercontent.com/akamaster/pytorch_resnet_cifar10/"
        "d5489e8995e81e91ce6b1d69dcc98ad579b0b153/pretrained_models/resnet20-12fca82f.th",
        "sha256": "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8",
        "bytes": 1099231,
        "license": "BSD-2-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [32, 32],
        },
        "trained_on": "CIFAR-10",
        "accuracy": 91.73,
        "accuracy_size": 32,
        "source": "akamaster/pytorch_resnet_cifar10 at d5489e89, README: the epoch that was best on the test split",
    },
    "cifar_resnet/32@akamaster": {
        "address": "https://raw.githubusercontent.com/akamaster/pytorch_resnet_cifar10/"
        "d5489e8995e81e91ce6b1d69dcc98ad579b0b153/pretrained_models/resnet32-d509ac18.th",
        "sha256": "d509ac1820d7f25398913559d7e81a13229b1e7adc5648e3bfa5e22dc137f850",
        "bytes": 1890043,
        "license": "BSD-2-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [32, 32],
        },
        "trained_on": "CIFAR-10",
        "accuracy": 92.63,
        "accuracy_size": 32,
        "source": "akamaster/pytorch_resnet_cifar10 at d5489e89, README: the epoch that was best on the test split",
    },
    "cifar_resnet/44@akamaster": {
        "address": "https://raw.githubusercontent.com/akamaster/pytorch_resnet_cifar10/"
        "d5489e8995e81e91ce6b1d69dcc98ad579b0b153/pretrained_models/resnet44-014dd654.th",
        "sha256": "014dd6541728a1c700b1642ab640e211dc6eb8ed507d70697458dc8f8a0ae2e4",
        "bytes": 2680855,
        "license": "BSD-2-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [32, 32],
        },
        "trained_on": "CIFAR-10",
        "accuracy": 93.1,
        "accuracy_size": 32,
        "source": "akamaster/pytorch_resnet_cifar10 at d5489e89, README: the epoch that was best on the test split",
    },
    "cifar_resnet/56@akamaster": {
        "address": "https://raw.githubusercontent.com/akamaster/pytorch_resnet_cifar10/"
        "d5489e8995e81e91ce6b1d69dcc98ad579b0b153/pretrained_models/resnet56-4bfd9763.th",
        "sha256": "4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367",
        "bytes": 3471733,
        "license": "BSD-2-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [32, 32],
        },
        "trained_on": "CIFAR-10",
        "accuracy": 93.39,
        "accuracy_size": 32,
        "source": "akamaster/pytorch_resnet_cifar10 at d5489e89, README: the epoch that was best on the test split",
    },
    "cifar_resnet/110@akamaster": {
        "address": "https://raw.githubusercontent.com/akamaster/pytorch_resnet_cifar10/"
        "d5489e8995e81e91ce6b1d69dcc98ad579b0b153/pretrained_models/resnet110-1d1ed7c2.th",
        "sha256": "1d1ed7c2",
        "bytes": None,
        "megabytes": 6.9,
        "license": "BSD-2-Clause",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "image_size": [32, 32],
        },
        "trained_on": "CIFAR-10",
        "accuracy": 93.68,
        "accuracy_size": 32,
        "source": "akamaster/pytorch_resnet_cifar10 at d5489e89, README: the epoch that was best on the test split",
    },
}
