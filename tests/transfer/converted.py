"""What tests of converted weights share: files under others' names, and the scores of converted networks."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from cnn_vit import compilation
from cnn_vit.compilation import ProgramKind
from cnn_vit.nn.values import Network
from cnn_vit.transfer import matching, rules, weights
from cnn_vit.transfer.readers import NamedArrays
from cnn_vit.transfer.rules import ConversionRule


def as_named(arrays: dict[str, np.ndarray], **changes) -> NamedArrays:
    """Returns arrays as a reader would, without a file."""
    facts = {"skipped": {}, "sha256": "0" * 64, "format": "npz", "metadata": {}} | changes
    return NamedArrays(arrays=arrays, **facts)


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """Writes arrays under their names and returns the path."""
    np.savez(path, **arrays)
    return path


def find_rule(family: str) -> ConversionRule:
    """Returns the first rule of a family."""
    return next(rule for rule in rules.all_rules() if rule.family == family)


def compile_scores(network: Network, *, convolutional: bool) -> Callable:
    """Compiles (params, stats, images) -> scores, as evaluation does."""
    kind = ProgramKind("cpu", convolutional=convolutional, dtype="float32")
    return compilation.jit(lambda params, stats, images: network.apply(params, stats, images)[0], kind)


def compute_scores(converted: weights.Weights, images: np.ndarray, *, convolutional: bool = True) -> np.ndarray:
    """Returns the scores of images as the network sees them, (N, H, W, C)."""
    compiled = compile_scores(weights.network_of(converted.card), convolutional=convolutional)
    return np.asarray(compiled(converted.params, converted.stats, images))


def normalize(pixels: np.ndarray, preprocessing: dict) -> np.ndarray:
    """Turns pixels of 8 bits into what the network of a card sees."""
    mean, std = np.float32(preprocessing["mean"]), np.float32(preprocessing["std"])
    return (pixels.astype(np.float32) / 255 - mean) / std


def under_their_names(converted: weights.Weights, family: str, prefix: str = "") -> dict[str, np.ndarray]:
    """Returns our arrays under the names of the family's rule."""
    arrays = matching.to_theirs(find_rule(family), converted.params, converted.stats)
    return {prefix + name: array for name, array in arrays.items()}


def leaves_by_path(converted: weights.Weights) -> dict[str, np.ndarray]:
    """Returns all arrays of weights by path."""
    leaves = jax.tree_util.tree_leaves_with_path({"params": converted.params, "stats": converted.stats})
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
