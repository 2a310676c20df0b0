"""What a step minimizes: cross-entropies of scores against soft labels, one number per example.

Arithmetic is float32. A target is a distribution over the classes: one class, smoothed or mixed with others. Each
class may have a weight, (K,): an example of one class costs that many times as much, and one that is mixed or smoothed
the sum of what its classes would cost, each by its share of the target and its weight. Evaluation gives none.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax


def softmax(
    scores: jax.Array, target: jax.Array, weight: jax.Array | float = 1.0
) -> jax.Array:  # (B, K), (B, K) -> (B,)
    """Cross-entropy of the softmax over the classes, in nats: -sum of weight x target x log softmax(scores).

    Its least value without weights is the target's entropy: 0 for one class, 0.5003 for 10 classes smoothed by 0.1.
    """
    return optax.softmax_cross_entropy(scores.astype(jnp.float32), target.astype(jnp.float32) * weight)


def sigmoid(
    scores: jax.Array, target: jax.Array, weight: jax.Array | float = 1.0
) -> jax.Array:  # (B, K), (B, K) -> (B,)
    """Binary cross-entropies of every class apart, in nats, summed over the classes.

    The sum is big_vision's `sigmoid_xent` (Beyer et al., arXiv:2006.07159); "ResNet strikes back" (arXiv:2110.00476)
    and timm take the mean, which is this divided by K.
    """
    scores, target = scores.astype(jnp.float32), target.astype(jnp.float32)
    none = jax.nn.softplus(scores).sum(-1)  # what no class at all would cost, of which a weighted example has its part
    each = optax.sigmoid_binary_cross_entropy(scores, target * weight)
    return each.sum(-1) + (target * (weight - 1)).sum(-1) * none


def smooth_labels(target: jax.Array, amount: jax.Array) -> jax.Array:  # (B, K), () -> (B, K)
    """Label smoothing: a share `amount` of each target is spread evenly over all K classes, the right one included.

    Szegedy et al., arXiv:1512.00567, section 7.
    """
    return target * (1 - amount) + amount / target.shape[-1]


def balanced_class_weights(labels: np.ndarray, classes: int) -> np.ndarray:  # (N,) -> (K,)
    """Weights by which all classes count alike: n / (classes x count). Their mean over the examples is 1.

    As scikit-learn's class_weight="balanced", after King and Zeng, Logistic Regression in Rare Events Data, 2001.
    """
    return (len(labels) / (classes * np.bincount(labels, minlength=classes))).astype(np.float32)


LOSSES = {
    "softmax": softmax,
    "sigmoid": sigmoid,
}

PROBABILITIES = {  # of each class, from scores (B, K), as the loss of that name reads them
    "softmax": jax.nn.softmax,
    "sigmoid": jax.nn.sigmoid,
}
