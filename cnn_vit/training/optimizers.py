"""How parameters follow a gradient. The chain is built anew inside the compiled step, from hyperparameters that are arguments.

In order: the gradient is clipped, decay and the rule make it a direction, and the rate makes that an update.

    sgd     v = momentum v + (g + weight_decay p);  p -= rate v             (with Nesterov: rate (g' + momentum v))
    adamw   p -= rate (m / (sqrt(n) + epsilon) + weight_decay p)            m, n: averages of g and g^2, bias corrected

SGD's decay is added to the gradient before momentum, as in torch and the papers' L2; AdamW's goes around it, times the
rate: Loshchilov et al., arXiv:1711.05101, as optax and torch scale it. Every state starts from zeros; its structure
depends on the rule alone, on none of the numbers, nor on whether clipping or Nesterov is on.
"""

from typing import Any

import jax
import optax

from cnn_vit import trees
from cnn_vit.errors import UserError, unknown


def decay_mask(params: dict, pattern: str) -> dict:
    """A tree of booleans: which parameters weight decay shrinks.

    Args:
        params: arrays or their shapes.
        pattern: a regular expression, found somewhere in a parameter's path, `stages/0/blocks/0/conv1/kernel`.

    Raises:
        UserError: the pattern is found in no path, which weight_decay 0 says better.
    """
    mask = trees.mask_by_pattern(params, pattern)
    if not any(jax.tree.leaves(mask)):
        last = sorted({str(path[-1]) for path in trees.shapes_by_path(params)})
        raise UserError(
            f"optimizer.decay_pattern {pattern!r} is found in no parameter, whose paths end in {', '.join(last)}; "
            "for no decay set optimizer.weight_decay=0"
        )
    return mask


def chain(
    name: str,
    hyperparameters: dict[str, Any],
    rate: jax.Array | float,
    *,
    decay_mask: dict,
    clip: bool,
    nesterov: bool = False,
) -> optax.GradientTransformation:
    """The rule of one step.

    Args:
        name: a key of OPTIMIZERS.
        hyperparameters: scalars that may be traced: weight_decay; momentum for sgd; b1, b2, epsilon for adamw; clip where on.
        rate: the learning rate of this step, may be traced.
        decay_mask: which parameters decay, as `decay_mask` gives it.
        clip: whether a gradient whose norm over all parameters exceeds hyperparameters["clip"] is shortened to it.
        nesterov: whether sgd looks ahead along the momentum.

    Returns:
        optax's pair of `init(params)` and `update(gradient, state, params)`.

    Raises:
        UserError: no such optimizer; Nesterov where the rule has none.
    """
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS)
    if nesterov and name != "sgd":
        raise UserError(f"optimizer.nesterov is for sgd; {name} has no such momentum, set it to False")
    clipping = optax.clip_by_global_norm(hyperparameters["clip"]) if clip else optax.identity()
    decay = optax.add_decayed_weights(hyperparameters["weight_decay"], mask=decay_mask)
    return optax.chain(clipping, OPTIMIZERS[name](hyperparameters, decay, nesterov), optax.scale_by_learning_rate(rate))


def sgd(hyperparameters: dict, decay: optax.GradientTransformation, nesterov: bool) -> optax.GradientTransformation:
    """Stochastic gradient descent with momentum: Sutskever et al., 2013, as torch.optim.SGD writes it."""
    return optax.chain(decay, optax.trace(hyperparameters["momentum"], nesterov=nesterov))


def adamw(hyperparameters: dict, decay: optax.GradientTransformation, nesterov: bool) -> optax.GradientTransformation:
    """Adam (Kingma and Ba, arXiv:1412.6980) with decay apart from the gradient's averages."""
    return optax.chain(
        optax.scale_by_adam(hyperparameters["b1"], hyperparameters["b2"], hyperparameters["epsilon"]), decay
    )


OPTIMIZERS = {
    "sgd": sgd,
    "adamw": adamw,
}
