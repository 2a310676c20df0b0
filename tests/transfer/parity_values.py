"""Values for parity tests that any platform makes anew, bit for bit, from the names of parameters alone.

The raw bits of NumPy's Philox, which are the same everywhere, become dyadic fractions: whole numbers over a power of
two, which float32 holds exactly and no rounding can change. So the weights of a reference network need not be stored:
only its scores are.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "parity"
GATE_BIASES = (".1.fc2.bias", ".2.fc2.bias", "se.conv_expand.bias")  # of squeeze and excitation in torchvision and timm
BITS = 16  # of each number; sums and products with powers of two stay exact in float32
# The last words of names that say what a parameter is.
SCALES = ("running_var", "moving_variance", "gamma", "scale", "layer_scale", "layer_scale_parameter")
TOKENS = ("cls_token", "class_token", "dist_token", "distillation_token", "cls", "probe", "latent")
TOKENS += ("pos_embedding", "pos_embed", "position_embeddings")


@dataclass(frozen=True)
class Reference:
    """What is stored of a reference network that was filled with these values.

    Attributes:
        program: what made the scores.
        keywords: keywords of our model that no shape tells.
        image_shape: (N, H, W, C) of the images.
        shapes: of its parameters, by name.
        scores: (N, K).
    """

    program: str
    keywords: dict
    image_shape: tuple[int, int, int, int]
    shapes: dict[str, list[int]]
    scores: list[list[float]]


def read_reference(name: str) -> Reference:
    """Reads what is stored of a reference network."""
    facts = json.loads((FOLDER / f"{name}.json").read_text())
    return Reference(**facts | {"image_shape": tuple(facts["image_shape"])})


def write_reference(name: str, reference: Reference) -> None:
    """Stores what a reference network computed; a line for each key."""
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in asdict(reference).items()]
    (FOLDER / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def fractions(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns float32 numbers in -1 <= x < 1, multiples of 2^-15, that follow from a name."""
    key = np.frombuffer(hashlib.sha256(name.encode()).digest()[:16], "<u8")
    raw = np.random.Philox(key=key).random_raw(math.prod(shape)) >> np.uint64(64 - BITS)
    half = 2 ** (BITS - 1)
    return ((raw.astype(np.int64) - half) / half).astype(np.float32).reshape(shape)


def make_values(shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """Makes the parameters of a network: what a name says of their part in it decides over their size."""
    return {name: make_value(name, tuple(shape)) for name, shape in shapes.items()}


def make_value(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Makes one parameter.

    Kernels have about the variance 2 / inputs, so that scores neither vanish nor grow; scales and variances of norms
    lie in 0.5 to 1.5, biases and means in -0.25 to 0.25, tokens and positions in -1 to 1. Biases that open a gate lie
    in 1 to 3: half closed gates, one behind another, would leave nothing of an image.
    """
    last = name.replace("/", ".").rpartition(".")[2]
    if last == "num_batches_tracked":
        return np.array(7)
    x = fractions(name, shape)
    if last in SCALES or (last == "weight" and len(shape) == 1):
        return 1 + x / 2
    if name.endswith(GATE_BIASES):
        return 2 + x
    if len(shape) == 1 or last == "bias":
        return x / 4
    if last in TOKENS:
        return x
    # PyTorch's kernels have their inputs and pixels behind the outputs, Keras' before them.
    inputs = math.prod(shape[1:]) if last.endswith("weight") else math.prod(shape[:-1])
    if last == "depthwise_kernel":
        inputs = shape[0] * shape[1]
    return x * np.float32(2.0 ** round(math.log2(math.sqrt(6 / inputs))))


def make_images(shape: tuple[int, ...]) -> np.ndarray:
    """Makes images as a network sees them, (N, H, W, C) in -1 to 1; even neighbors in one image are unlike."""
    return fractions(f"images of {shape}", shape)
