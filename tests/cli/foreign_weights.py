"""Weights as another program saves them, for tests of commands."""

import numpy as np

from cnn_vit.models import build
from cnn_vit.nn.values import functional, initial_values
from cnn_vit.transfer import rules
from cnn_vit.transfer.matching import to_theirs


def make_arrays(**keywords) -> dict[str, np.ndarray]:
    """A ResNet of 8 layers and 10 classes under akamaster's names, as DataParallel saves them."""
    params, stats = initial_values(functional(build("cifar_resnet/8", 10, **keywords)), seed=0)
    rule = next(rule for rule in rules.all_rules() if rule.family == "cifar_resnet")
    return {f"module.{name}": array for name, array in to_theirs(rule, params, stats).items()}


def write(path, **keywords):
    """Writes the arrays as an npz, and returns the path."""
    np.savez(path, **make_arrays(**keywords))
    return path
