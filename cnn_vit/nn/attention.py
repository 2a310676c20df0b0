"""Attention: each token reads from all tokens, by how well its query fits their keys.

Source: Vaswani et al., Attention Is All You Need, NeurIPS 2017, arXiv:1706.03762, section 3.2.
Scores and softmax are float32 whatever the input is; the weights are rounded to the input's dtype before they are
applied to the values.

Axes:
    B batch    N tokens that read    M tokens that are read    D width    A heads    E width of a head
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from cnn_vit.errors import UserError
from cnn_vit.nn.calls import layer
from cnn_vit.nn.dense import Dense
from cnn_vit.nn.dropout import Dropout


@layer
def attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    mask: jax.Array | None = None,
    drop: Callable | None = None,
    fused: bool = False,
) -> jax.Array:  # (B, N, A, E), (B, M, A, E), (B, M, A, E) -> (B, N, A, E)
    """softmax(q k' / sqrt(E)) v, in each head by itself.

    Args:
        q: queries.
        k: keys.
        v: values.
        mask: what may be read, True: (B, M) says which tokens, the same for every reader; (B, 1, N, M) for each reader
            by itself. A token that may read nothing gets zeros, and sends no gradient back.
        drop: applied to the weights (B, A, N, M) before they read; the plain form only.
        fused: leave the whole to `jax.nn.dot_product_attention`: the same numbers up to rounding.
    """
    if mask is not None and mask.ndim == 2:
        mask = mask[:, None, None, :]  # (B, 1, 1, M)
    if fused:
        with jax.numpy_dtype_promotion("standard"):  # JAX's own body adds bfloat16 to float32
            y = jax.nn.dot_product_attention(q, k, v, mask=mask)
    else:
        y = plain_attention(q, k, v, mask=mask, drop=drop)
    if mask is None:
        return y
    reads = mask.any(-1).swapaxes(1, 2)  # whether each reader reads anything; one for all if the mask has one
    return jnp.where(reads[..., None], y, 0)


def plain_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, *, mask: jax.Array | None, drop: Callable | None
) -> jax.Array:  # (B, N, A, E), (B, M, A, E), (B, M, A, E) -> (B, N, A, E)
    """Attention written out, with all N times M weights of a head in memory."""
    scores = jnp.einsum("bnae,bmae->banm", q, k, preferred_element_type=jnp.float32)  # (B, A, N, M)
    scores = scores / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)  # finite: a row without any True stays a number
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)  # (B, A, N, M)
    return jnp.einsum("banm,bmae->bnae", weights if drop is None else drop(weights), v)


class Attention(nnx.Module):
    """Attention in several heads, each with its own learned queries, keys and values; a dense layer joins them.

    Attributes:
        query, key, value, out: dense layers of (width, width), with bias. Head a owns features a * E to (a + 1) * E - 1
            of the first three's outputs and of the last one's input.

    Args:
        width: numbers per token.
        heads: attention heads; they share the width evenly.
        dropout: share of the attention weights dropped in training, each by itself (Flax's default drops the same ones
            in the whole batch).
        fused: whether `jax.nn.dot_product_attention` does it: the same numbers up to rounding.
        initializer: distribution of the kernels' first values; Xavier's is that of Google's ViT, its limit
            sqrt(3 / width) in each of the four.

    Raises:
        UserError: heads that do not divide the width; dropout of weights that the fused form does not show.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        dropout: float = 0.0,
        fused: bool = False,
        initializer: str = "xavier_uniform",
    ):
        if heads < 1 or width % heads:
            raise UserError(f"{heads} heads do not share a width of {width} evenly")
        if fused and dropout:
            raise UserError(f"fused attention has no weights to drop; make dropout={dropout} 0 or fused False")
        dense = partial(Dense, width, width, initializer=initializer)
        self.query, self.key, self.value, self.out = dense(), dense(), dense(), dense()
        self.drop, self.heads, self.fused = Dropout(dropout), heads, fused

    def __call__(
        self,
        x: jax.Array,
        context: jax.Array | None = None,
        *,
        mask: jax.Array | None = None,
        train: bool = False,
        rngs: nnx.Rngs | None = None,
    ) -> jax.Array:  # (B, N, D), (B, M, D) -> (B, N, D)
        """Tokens of x read from those of the context, or from one another; `mask` as in `attend`, True = read."""
        source = x if context is None else context  # (B, M, D)
        q = self.apart(self.query(x))  # (B, N, A, E)
        k, v = self.apart(self.key(source)), self.apart(self.value(source))
        drop = None if self.fused else partial(self.drop, train=train, rngs=rngs)
        y = attend(q, k, v, mask=mask, drop=drop, fused=self.fused)  # (B, N, A, E)
        return self.out(y.reshape(x.shape))

    def apart(self, x: jax.Array) -> jax.Array:  # (B, N, D) -> (B, N, A, D/A)
        """The share of each head."""
        return x.reshape(*x.shape[:-1], self.heads, -1)
