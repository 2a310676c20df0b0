"""What a step minimizes: the cost of scores against soft labels, one number for each example.

The arithmetic is float32. A target is a distribution over the K classes: all on one class, or smoothed, or mixed with
the classes of other images. Training may also weight the classes, with a weight (K,) for each: an example of one class
then costs its weight times as much, and a mixed or smoothed example costs the sum over the classes of what that class
alone would cost, times its share of the target, times its weight. Evaluation uses no weights.

A loss takes scores, targets and weights by position; its keywords are settings, `loss.gamma`, as `settings.rules`
reads them. It brings along the probabilities that it believes in.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnn_vit.errors import unknown


@dataclass(frozen=True)
class Loss:
    """A loss.

    Attributes:
        cost: (scores (B, K), target (B, K), weight of each class (K,) or 1, keywords) -> (B,), float32.
        probabilities: scores (B, K) -> the probability of each class (B, K).
    """

    cost: Callable[..., jax.Array]
    probabilities: Callable[[jax.Array], jax.Array]


def get_loss(name: str) -> Loss:
    """Returns a loss; UserError where there is none of that name."""
    if name not in LOSSES:
        raise unknown("loss", name, LOSSES)
    return LOSSES[name]


def softmax_cross_entropy(
    scores: jax.Array, target: jax.Array, weight: jax.Array | float = 1.0
) -> jax.Array:  # (B, K), (B, K) -> (B,)
    """Cross-entropy of the softmax over the classes, in nats: -sum of weight x target x log softmax(scores).

    Without weights it is never below the target's entropy: 0 for one class, 0.5003 for 10 classes smoothed by 0.1.
    Source: optax.softmax_cross_entropy.
    """
    return optax.softmax_cross_entropy(scores.astype(jnp.float32), target.astype(jnp.float32) * weight)


def sigmoid_cross_entropy(
    scores: jax.Array, target: jax.Array, weight: jax.Array | float = 1.0
) -> jax.Array:  # (B, K), (B, K) -> (B,)
    """Binary cross-entropy of each class by itself, in nats, summed over the classes.

    The sum is big_vision's `sigmoid_xent` (Beyer et al., arXiv:2006.07159); "ResNet strikes back" (arXiv:2110.00476)
    and timm take the mean, which is this divided by K. Source: optax.sigmoid_binary_cross_entropy.
    """
    scores, target = scores.astype(jnp.float32), target.astype(jnp.float32)
    # For a target t the loss is C - t . scores, where C is the cost of "no class at all", a target of zeros. A weighted
    # example of class c must cost w_c (C - score_c), but with the target w t optax gives C - w_c score_c. The part that
    # lacks, (w_c - 1) C, is added for each class by its share of the target.
    cost_of_no_class = jax.nn.softplus(scores).sum(-1)
    per_class = optax.sigmoid_binary_cross_entropy(scores, target * weight)
    return per_class.sum(-1) + (target * (weight - 1)).sum(-1) * cost_of_no_class


def sigmoid_focal(
    scores: jax.Array,
    target: jax.Array,
    weight: jax.Array | float = 1.0,
    *,
    gamma: float = 2.0,
    alpha: float | None = None,
) -> jax.Array:  # (B, K), (B, K) -> (B,)
    """Binary cross-entropy of each class, less the more certain the network is of it, summed over the classes.

        sum over the classes of  -(1 - p)^gamma log p,  p the probability of what is true: that it is the class, or not

    With gamma 0 it is the loss `sigmoid`. Lin et al., arXiv:1708.02002, equations 4 and 5; optax.sigmoid_focal_loss.

    Args:
        gamma: how strongly examples that are classified well count less, in [0, 100].
        alpha: weight of the class of an example against 1 - alpha of the others, unset: both 1, in (0, 1).
    """
    scores, target = scores.astype(jnp.float32), target.astype(jnp.float32)
    cost_if_absent = optax.sigmoid_focal_loss(scores, jnp.zeros_like(scores), alpha=alpha, gamma=gamma)
    cost_if_present = optax.sigmoid_focal_loss(scores, jnp.ones_like(scores), alpha=alpha, gamma=gamma)
    # An example of class c costs the sum of what all classes cost if absent, but for c, which is present.
    cost_of_class = cost_if_absent.sum(-1, keepdims=True) - cost_if_absent + cost_if_present  # (B, K)
    return (target * weight * cost_of_class).sum(-1)


def smooth_labels(target: jax.Array, amount: jax.Array) -> jax.Array:  # (B, K), () -> (B, K)
    """Label smoothing: spreads a share `amount` of each target evenly over all K classes, the right one included.

    Szegedy et al., arXiv:1512.00567, section 7; optax.smooth_labels.
    """
    return optax.smooth_labels(target, amount)


def balanced_class_weights(labels: np.ndarray, classes: int) -> np.ndarray:  # (N,) -> (K,)
    """Weights by which all classes count alike, n / (classes x count of the class), float32.

    Their mean over the examples is 1. They are those of scikit-learn's class_weight="balanced", after King and Zeng,
    Logistic Regression in Rare Events Data, 2001.
    """
    return (len(labels) / (classes * np.bincount(labels, minlength=classes))).astype(np.float32)


LOSSES = {
    "softmax": Loss(softmax_cross_entropy, jax.nn.softmax),
    "sigmoid": Loss(sigmoid_cross_entropy, jax.nn.sigmoid),
    "focal": Loss(sigmoid_focal, jax.nn.sigmoid),
}
