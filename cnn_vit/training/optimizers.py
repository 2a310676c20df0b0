"""How parameters follow a gradient.

The optimizer is a chain of optax transformations. It is built anew inside the compiled step, from hyperparameters that
are arguments of the step, so that another learning rate or decay compiles nothing. In order: the gradient is clipped,
weight decay and the rule turn it into a direction, and the learning rate turns that into an update.

    sgd     v = momentum v + (g + weight_decay p);  p -= rate v             (with Nesterov: rate (g' + momentum v))
    adamw   p -= rate (m / (sqrt(n) + epsilon) + weight_decay p)            m, n: averages of g and g^2, bias corrected

Here g' = g + weight_decay p. SGD's decay is added to the gradient before momentum, as in torch and as the papers' L2
penalty; AdamW's goes around the averages, times the rate: Loshchilov et al., arXiv:1711.05101, scaled as in optax and
torch. The state of every rule starts from zeros. Its tree structure depends on the rule alone: not on a hyperparameter,
nor on whether clipping or Nesterov is on.
"""

from typing import Any

import jax
import optax

from cnn_vit import trees
from cnn_vit.errors import UserError, unknown


def build_decay_mask(params: dict, pattern: str) -> dict:
    """Builds a tree of booleans that says which parameters weight decay shrinks.

    Args:
        params: arrays or their shapes.
        pattern: a regular expression that is searched in each parameter's path, `stages/0/blocks/0/conv1/kernel`.

    Raises:
        UserError: no path matches the pattern; weight_decay 0 is the clear way to have no decay.
    """
    mask = trees.mask_by_pattern(params, pattern)
    if not any(jax.tree.leaves(mask)):
        leaf_names = sorted({str(path[-1]) for path in trees.shapes_by_path(params)})
        raise UserError(
            f"optimizer.decay_pattern {pattern!r} matches no parameter's path; paths end in {', '.join(leaf_names)}; "
            "take one of these, such as (^|/)kernel$, or optimizer.weight_decay=0 for no decay"
        )
    return mask


def build_chain(
    name: str,
    hyperparameters: dict[str, Any],
    rate: jax.Array | float,
    *,
    decay_mask: dict,
    clip: bool,
    nesterov: bool = False,
) -> optax.GradientTransformation:
    """Builds the optimizer of one step.

    Args:
        name: a key of OPTIMIZERS.
        hyperparameters: scalars, which may be traced: weight_decay; momentum for sgd; b1, b2 and epsilon for adamw;
            clip where clipping is on.
        rate: the learning rate of this step, which may be traced.
        decay_mask: which parameters decay, as `build_decay_mask` gives it.
        clip: whether a gradient whose norm over all parameters exceeds hyperparameters["clip"] is shortened to it.
        nesterov: whether sgd looks ahead along the momentum.

    Returns:
        optax's pair of `init(params)` and `update(gradient, state, params)`.

    Raises:
        UserError: there is no such optimizer, or nesterov is set for one that has no such momentum.
    """
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS)
    if nesterov and name != "sgd":
        raise UserError(f"optimizer.nesterov is for sgd; {name} has no such momentum, set it to False")
    # identity keeps the chain as long without clipping, so that the state has one structure
    clipping = optax.clip_by_global_norm(hyperparameters["clip"]) if clip else optax.identity()
    decay = optax.add_decayed_weights(hyperparameters["weight_decay"], mask=decay_mask)
    rule = OPTIMIZERS[name](hyperparameters, decay, nesterov)
    return optax.chain(clipping, rule, optax.scale_by_learning_rate(rate))


def sgd(hyperparameters: dict, decay: optax.GradientTransformation, nesterov: bool) -> optax.GradientTransformation:
    """Stochastic gradient descent with momentum: Sutskever et al., 2013, as torch.optim.SGD writes it."""
    return optax.chain(decay, optax.trace(hyperparameters["momentum"], nesterov=nesterov))


def adamw(hyperparameters: dict, decay: optax.GradientTransformation, nesterov: bool) -> optax.GradientTransformation:
    """Adam (Kingma and Ba, arXiv:1412.6980) with weight decay that does not enter the gradient's averages."""
    adam = optax.scale_by_adam(hyperparameters["b1"], hyperparameters["b2"], hyperparameters["epsilon"])
    return optax.chain(adam, decay)


OPTIMIZERS = {
    "sgd": sgd,
    "adamw": adamw,
}
