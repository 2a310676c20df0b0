"""Attention: each token reads from all tokens, weighted by how well its query matches their keys.

Source: Vaswani et al., Attention Is All You Need, NeurIPS 2017, arXiv:1706.03762, section 3.2.
Scores and softmax are float32 whatever the input is; the weights are rounded to the input's dtype before they are
applied to the values.

Axes:
    B batch    N tokens that read    M tokens that are read    D width    A heads    E width of a head
    I width of all heads together
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cnn_vit.errors import UserError
from cnn_vit.nn.calls import layer
from cnn_vit.nn.dense import Dense
from cnn_vit.nn.dropout import Dropout
from cnn_vit.nn.position import rotate


@layer
def attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    mask: jax.Array | None = None,
    bias: jax.Array | None = None,
    drop: Callable | None = None,
    fused: bool = False,
) -> jax.Array:  # (B, N, A, E), (B, M, A, E), (B, M, A, E) -> (B, N, A, E)
    """Computes softmax(q k' / sqrt(E) + bias) v in each head by itself.

    Args:
        q: queries.
        k: keys.
        v: values.
        mask: which tokens may be read, True: (B, M) says it for all readers alike, (B, 1, N, M) for each reader by
            itself. A reader that may read nothing gets zeros, and sends no gradient back.
        bias: added to the scores, (1, A, N, M); None for 0.
        drop: applied to the weights (B, A, N, M) before they weigh the values; only where `fused` is False.
        fused: whether `jax.nn.dot_product_attention` computes it: the same numbers up to rounding.
    """
    if mask is not None and mask.ndim == 2:
        mask = mask[:, None, None, :]  # (B, 1, 1, M)
    if fused:
        # JAX's own function adds bfloat16 to float32 inside, which the tests' strict promotion would refuse.
        with jax.numpy_dtype_promotion("standard"):
            y = jax.nn.dot_product_attention(q, k, v, bias=bias, mask=mask)
    else:
        y = plain_attention(q, k, v, mask=mask, bias=bias, drop=drop)
    if mask is None:
        return y
    # The softmax of a row without any True is made of nothing but the fill value, so its answer is replaced by zeros.
    reads_something = mask.any(-1).swapaxes(1, 2)  # its N is 1 where the mask is the same for all readers
    return jnp.where(reads_something[..., None], y, 0)


def plain_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    mask: jax.Array | None,
    bias: jax.Array | None,
    drop: Callable | None,
) -> jax.Array:  # (B, N, A, E), (B, M, A, E), (B, M, A, E) -> (B, N, A, E)
    """Computes attention step by step, with all N times M weights of a head in memory; the arguments are `attend`'s."""
    # Each head of each image is one product of two matrices, for which XLA has its fastest code; so the heads go first.
    q, k, v = q.swapaxes(1, 2), k.swapaxes(1, 2), v.swapaxes(1, 2)
    scores = jnp.matmul(q, k.swapaxes(2, 3), preferred_element_type=jnp.float32)  # (B, A, N, M)
    # Sums of E products grow with sqrt(E); undivided, the softmax of a wide head would see little but its best token.
    scores = scores / math.sqrt(q.shape[-1])
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        # The lowest finite number, not -inf: the softmax of a row without any True would be NaN.
        scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)  # (B, A, N, M)
    if drop is not None:
        weights = drop(weights)
    return (weights @ v).swapaxes(1, 2)


class Attention(nnx.Module):
    """Attention in several heads, each with learned queries, keys and values of its own; a dense layer joins them.

    Attributes:
        query, key, value, out: dense layers, the first three of (width, A * E), the last of (A * E, width). Head a owns
            features a * E to (a + 1) * E - 1 of the first three's outputs and of the last one's input.

    Args:
        width: numbers per token.
        heads: attention heads.
        head_width: E, numbers per head; None lets the heads share the width evenly.
        qkv_bias: whether queries, keys and values have a bias; the last dense layer always has one.
        dropout: share of the attention weights that is dropped in training. Each weight is drawn by itself (Flax's
            default drops the same weights in the whole batch).
        fused: whether `jax.nn.dot_product_attention` computes it: the same numbers up to rounding.
        initializer: distribution of the kernels' initial values; Xavier's is that of Google's ViT, its limit
            sqrt(3 / width) in each of the four.

    Raises:
        UserError: if heads are to share a width that they do not divide, or if weights are to be dropped that the fused
            form hides.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        head_width: int | None = None,
        qkv_bias: bool = True,
        dropout: float = 0.0,
        fused: bool = False,
        initializer: str = "xavier_uniform",
    ):
        if heads < 1 or (head_width is None and width % heads):
            raise UserError(f"{heads} heads do not share a width of {width} evenly")
        if head_width is not None and head_width < 1:
            raise UserError(f"a head of {head_width} numbers has nothing to compare; head_width must be at least 1")
        if fused and dropout:
            raise UserError(f"fused attention hides the weights to drop; set dropout={dropout} to 0, or fused to False")
        inner_width = width if head_width is None else heads * head_width
        self.query = Dense(width, inner_width, bias=qkv_bias, initializer=initializer)
        self.key = Dense(width, inner_width, bias=qkv_bias, initializer=initializer)
        self.value = Dense(width, inner_width, bias=qkv_bias, initializer=initializer)
        self.out = Dense(inner_width, width, initializer=initializer)
        self.drop = Dropout(dropout)
        self.heads = heads
        self.fused = fused

    def __call__(
        self,
        x: jax.Array,
        context: jax.Array | None = None,
        *,
        mask: jax.Array | None = None,
        angles: np.ndarray | None = None,
        bias: jax.Array | None = None,
        train: bool = False,
        rngs: nnx.Rngs | None = None,
    ) -> jax.Array:  # (B, N, D), (B, M, D) -> (B, N, D)
        """Lets the tokens of x read from those of the context, or from one another.

        `mask` and `bias` are those of `attend`. `angles` (N, E / 2) turn queries and keys (see `position.rotate`) of
        tokens that read one another.
        """
        context = x if context is None else context  # (B, M, D)
        q = self.split_heads(self.query(x))  # (B, N, A, E)
        k = self.split_heads(self.key(context))  # (B, M, A, E)
        v = self.split_heads(self.value(context))  # (B, M, A, E)
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        drop = None if self.fused else partial(self.drop, train=train, rngs=rngs)
        y = attend(q, k, v, mask=mask, bias=bias, drop=drop, fused=self.fused)  # (B, N, A, E)
        return self.out(y.reshape(*y.shape[:2], -1))

    def split_heads(self, x: jax.Array) -> jax.Array:  # (B, N, I) -> (B, N, A, I/A)
        """Gives each head its share of the features, in their order."""
        return x.reshape(*x.shape[:-1], self.heads, -1)
