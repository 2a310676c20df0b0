"""What a step minimizes: cross-entropies of scores against soft labels, one number for each example.

The arithmetic is float32. A target is a distribution over the K classes: all on one class, or smoothed, or mixed with
the classes of other images. Training may also weight the classes, with a weight (K,) for each: an example of one class
then costs its weight times as much, and a mixed or smoothed example costs the sum over the classes of what that class
alone would cost, times its share of the target, times its weight. Evaluation uses no weights.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax


def softmax_cross_entropy(
    scores: jax.Array, target: jax.Array, weight: jax.Array | float = 1.0
) -> jax.Array:  # (B, K), (B, K) -> (B,)
    """Cross-entropy of the softmax over the classes, in nats: -sum of weight x target x log softmax(scores).

    Without weights it is never below the target's entropy: 0 for one class, 0.5003 for 10 classes smoothed by 0.1.

    Args:
        scores: (B, K), before the softmax.
        target: (B, K), rows that sum to 1.
        weight: of each class, (K,), or 1 for none.
    """
    return optax.softmax_cross_entropy(scores.astype(jnp.float32), target.astype(jnp.float32) * weight)


def sigmoid_cross_entropy(
    scores: jax.Array, target: jax.Array, weight: jax.Array | float = 1.0
) -> jax.Array:  # (B, K), (B, K) -> (B,)
    """Binary cross-entropy of each class by itself, in nats, summed over the classes.

    The sum is big_vision's `sigmoid_xent` (Beyer et al., arXiv:2006.07159); "ResNet strikes back" (arXiv:2110.00476)
    and timm take the mean, which is this divided by K. Arguments are those of `softmax_cross_entropy`.
    """
    scores, target = scores.astype(jnp.float32), target.astype(jnp.float32)
    # For a target t the loss is C - t . scores, where C is the cost of "no class at all", a target of zeros. A weighted
    # example of class c must cost w_c (C - score_c), but with the target w t optax gives C - w_c score_c. The part that
    # lacks, (w_c - 1) C, is added for each class by its share of the target.
    cost_of_no_class = jax.nn.softplus(scores).sum(-1)
    per_class = optax.sigmoid_binary_cross_entropy(scores, target * weight)
    return per_class.sum(-1) + (target * (weight - 1)).sum(-1) * cost_of_no_class


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
    "softmax": softmax_cross_entropy,
    "sigmoid": sigmoid_cross_entropy,
}

# The probability of each class that the loss of the same name believes in, from scores (B, K)
PROBABILITIES = {
    "softmax": jax.nn.softmax,
    "sigmoid": jax.nn.sigmoid,
}
