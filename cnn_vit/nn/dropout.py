"""Layers that are chance in training and nothing at all else.

Both divide what they keep by the share kept, so that its mean stays what it was. Chance comes from the stream
"dropout" of the `rngs` of the call; nothing is stored.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from cnn_vit.errors import UserError


def drop_randomly(
    x: jax.Array, rate: float, shape: tuple[int, ...], rngs: nnx.Rngs | None
) -> jax.Array:  # (...) -> (...)
    """x / (1 - rate) where a draw of this shape, broadcast over x, keeps it; 0 elsewhere.

    Divided in float32: 1 - 0.1 rounded to bfloat16 would make every number 0.2 % too large.
    """
    if rngs is None:
        raise ValueError(f"dropping a share of {rate} in training needs rngs: pass rngs=nnx.Rngs(dropout=key)")
    kept = jax.random.bernoulli(rngs.dropout(), 1 - rate, shape)
    return jnp.where(kept, (x.astype(jnp.float32) / (1 - rate)).astype(x.dtype), 0)


def refuse_rate(rate: float) -> None:
    """Raises UserError for a rate outside 0 <= rate < 1."""
    if not 0 <= rate < 1:
        raise UserError(f"a dropped share of {rate} is not at least 0 and below 1")


class Dropout(nnx.Module):
    """Sets each number to 0 with probability `rate` in training, and divides the others by 1 - rate.

    The identity where `train` is False or the rate is 0; no chance is drawn then.

    Source: Srivastava et al., Dropout, JMLR 2014; divided in training, not multiplied in use as there.

    Args:
        rate: share dropped, 0 <= rate < 1.

    Raises:
        UserError: another rate. ValueError: a call in training without `rngs`.
    """

    def __init__(self, rate: float):
        refuse_rate(rate)
        self.rate = rate

    def __call__(self, x: jax.Array, *, train: bool, rngs: nnx.Rngs | None = None) -> jax.Array:  # (...) -> (...)
        return drop_randomly(x, self.rate, x.shape, rngs) if train and self.rate else x


class StochasticDepth(nnx.Module):
    """Sets all numbers of an example to 0 with probability `rate` in training, and divides the others by 1 - rate.

    Put around what a residual block adds, it lets examples skip the block. The identity where `train` is False or the
    rate is 0. Each row of the batch draws for itself.

    Source: Huang et al., Deep Networks with Stochastic Depth, ECCV 2016, arXiv:1603.09382; per example as in
    EfficientNet's code ("drop connect") and timm ("drop path"), per batch in the paper.

    Args:
        rate: share of examples that skip, 0 <= rate < 1.

    Raises:
        UserError: another rate. ValueError: a call in training without `rngs`.
    """

    def __init__(self, rate: float):
        refuse_rate(rate)
        self.rate = rate

    def __call__(self, x: jax.Array, *, train: bool, rngs: nnx.Rngs | None = None) -> jax.Array:  # (B, ...) -> (B, ...)
        each = (len(x),) + (1,) * (x.ndim - 1)
        return drop_randomly(x, self.rate, each, rngs) if train and self.rate else x
