"""Layers that set numbers to zero at random in training and do nothing otherwise.

Both divide what remains by the probability of remaining, so that the mean stays what it was. The random draws come from
the stream "dropout" of the call's `rngs`; nothing is stored.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from cnn_vit.errors import UserError


def drop_randomly(
    x: jax.Array, rate: float, shape: tuple[int, ...], rngs: nnx.Rngs | None
) -> jax.Array:  # (...) -> (...)
    """Returns x / (1 - rate) where a random mask of this shape, broadcast over x, is True, and 0 elsewhere.

    Raises:
        ValueError: if there are no `rngs` to draw the mask from.
    """
    if rngs is None:
        raise ValueError(f"a dropout rate of {rate} in training needs rngs: pass rngs=nnx.Rngs(dropout=key)")
    keep = jax.random.bernoulli(rngs.dropout(), 1 - rate, shape)
    # Divided in float32: 1 - 0.1 rounded to bfloat16 would make every number 0.2 % too large.
    scaled = (x.astype(jnp.float32) / (1 - rate)).astype(x.dtype)
    return jnp.where(keep, scaled, 0)


def refuse_rate(rate: float) -> None:
    """Raises UserError for a rate outside 0 <= rate < 1."""
    if not 0 <= rate < 1:
        raise UserError(f"a dropout rate of {rate} must be at least 0 and below 1")


class Dropout(nnx.Module):
    """Sets each number to 0 with probability `rate` in training, and divides the others by 1 - rate.

    It is the identity where `train` is False or the rate is 0; nothing random is drawn then.

    Source: Srivastava et al., Dropout, JMLR 2014; there the division is a multiplication outside training.

    Args:
        rate: share that is dropped, 0 <= rate < 1.

    Raises:
        UserError: if the rate lies outside that range.
        ValueError: if a call in training comes without `rngs`.
    """

    def __init__(self, rate: float):
        refuse_rate(rate)
        self.rate = rate

    def __call__(self, x: jax.Array, *, train: bool, rngs: nnx.Rngs | None = None) -> jax.Array:  # (...) -> (...)
        if not train or self.rate == 0:
            return x
        return drop_randomly(x, self.rate, x.shape, rngs)


class StochasticDepth(nnx.Module):
    """Sets all numbers of an example to 0 with probability `rate` in training, and divides the others by 1 - rate.

    Applied to what a residual block adds, it lets examples skip the block. It is the identity where `train` is False or
    the rate is 0. Each row of the batch is drawn by itself.

    Source: Huang et al., Deep Networks with Stochastic Depth, ECCV 2016, arXiv:1603.09382; per example as in
    EfficientNet's code ("drop connect") and timm ("drop path"), per batch in the paper.

    Args:
        rate: share of examples that skip, 0 <= rate < 1.

    Raises:
        UserError: if the rate lies outside that range.
        ValueError: if a call in training comes without `rngs`.
    """

    def __init__(self, rate: float):
        refuse_rate(rate)
        self.rate = rate

    def __call__(self, x: jax.Array, *, train: bool, rngs: nnx.Rngs | None = None) -> jax.Array:  # (B, ...) -> (B, ...)
        if not train or self.rate == 0:
            return x
        one_draw_per_example = (len(x),) + (1,) * (x.ndim - 1)
        return drop_randomly(x, self.rate, one_draw_per_example, rngs)
