"""Vision Transformer: an image as a sequence of patches, a stack of attention and MLP blocks, one token or an average.

Paper: Dosovitskiy et al., An Image Is Worth 16x16 Words, ICLR 2021, arXiv:2010.11929; sizes beyond it from
arXiv:2106.04560 (Ti to G), arXiv:2305.13035 (So400m), arXiv:2209.06794 (e) and big_vision (mu).
Numbers and first values follow Google's code (google-research/vision_transformer; big_vision for `-tok` and `-map`):
LayerNorm's epsilon 1e-6; MLP and attention start with Xavier's uniform values, positions with normal(0.02), class token
and head at 0, so that the first scores are 0. GELU is its tanh form there; timm and torchvision use erf (`gelu="erf"`;
up to 5e-4 apart).
Departs from it: stochastic depth is DeiT's (arXiv:2012.12877), rising linearly from 0 in the first block. With a mask
each image gets the scores that it would get alone: its patches read one another only, and have the positions of the
top left part of the table, those of their pixels (absolute positions in NaViT's words, arXiv:2307.06304).

A patch side stands behind the size, "B16"; `-gap` averages the tokens, `-map` reads them by one query of attention,
`-tok` has its class token outside the table of positions, `-pre_logits` puts a dense layer and tanh before the head.

Axes:
    B batch    H, W image sides in pixels    C colors    N patches    T tokens (patches, and the class token if any)
    D width    F hidden width    K classes
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cnn_vit.errors import UserError
from cnn_vit.models import height_and_width, refuse_size, require_at_least, require_rates
from cnn_vit.nn.attention import Attention
from cnn_vit.nn.dense import Dense
from cnn_vit.nn.dropout import Dropout, StochasticDepth
from cnn_vit.nn.masks import apply_mask, masked_mean
from cnn_vit.nn.norm import LayerNorm
from cnn_vit.nn.patches import PatchEmbed
from cnn_vit.nn.position import LearnedPositions, sincos_positions
from cnn_vit.nn.values import declare

EPSILON = 1e-6  # of every LayerNorm, as in Flax; PyTorch's default is 1e-5, timm's ViT sets 1e-6


class ViT(nnx.Module):
    """Scores each image for each class.

    Args:
        num_classes: classes.
        patch: side of a patch in pixels.
        width: numbers per token.
        depth: blocks.
        heads: attention heads of a block; they share the width evenly.
        hidden: units in the middle of each MLP.
        pool: what the head sees; a class token, the average of the tokens, or one learned query's attention to them.
        token_position: whether the class token has its own row in the table of learned positions.
        pre_logits: whether a dense layer and tanh stand before the head.
        positions: what is added to the patches to tell their places; sincos is fixed, in two dimensions.
        norm: pre normalizes what each part of a block takes, and the end; post what it gives, as in arXiv:1706.03762.
        gelu: tanh is the approximation of Google's code, erf the exact one of timm and torchvision.
        dropout: share of the values dropped in training behind positions, attention, and both layers of an MLP.
        stochastic_depth: share of the examples that skip a part of the last block in training; linearly less before.
        leftover: what becomes of pixels at the right and bottom that fill no patch: the size is refused, or they are
            dropped as upstream does (H14 at 384 pixels reads 27 patches a side); an image in a mask is never refused.
        fused: whether attention runs as one fused operation: the same numbers up to rounding, less memory on a GPU.
        channels: colors of an image.
        image_size: side in pixels, or (height, width), each a multiple of the patch side (see leftover); fixed.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        hidden: int,
        pool: Literal["token", "average", "attention"] = "token",
        token_position: bool = True,
        pre_logits: bool = False,
        positions: Literal["learned", "sincos", "none"] = "learned",
        norm: Literal["pre", "post"] = "pre",
        gelu: Literal["tanh", "erf"] = "tanh",
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        leftover: Literal["refuse", "drop"] = "refuse",
        fused: bool = False,
        channels: int = 3,
        image_size: int | tuple[int, int] = 224,
    ):
        require_at_least(1, patch=patch, width=width, depth=depth, heads=heads, hidden=hidden)
        require_rates(dropout=dropout, stochastic_depth=stochastic_depth)
        self.image_size = height_and_width(image_size)
        self.drop_leftover = leftover == "drop"
        self.grid = whole_patches(self.image_size, patch, drop=self.drop_leftover)
        self.read = self.grid[0] * patch, self.grid[1] * patch
        refuse_width(width, heads=heads, positions=positions)
        self.patches = PatchEmbed(patch, channels, width)
        self.cls_token = declare(nnx.Param, (1, width), "zeros") if pool == "token" else None
        self.token_position = token_position
        rows = self.grid[0] * self.grid[1] + (pool == "token" and token_position)
        self.pos_embed = LearnedPositions(rows, width) if positions == "learned" else None
        self.positions, self.dropout = positions, Dropout(dropout)
        mixer = partial(Attention, width, heads, fused=fused)
        block = partial(Block, width, hidden, mixer, post=norm == "post", gelu=gelu, dropout=dropout)
        rates = [stochastic_depth * i / max(depth - 1, 1) for i in range(depth)]
        self.blocks = nnx.List([block(stochastic_depth=rate) for rate in rates])
        self.norm = LayerNorm(width, epsilon=EPSILON) if norm == "pre" else None
        self.map_head = MAPHead(width, hidden, mixer, gelu=gelu) if pool == "attention" else None
        self.pre_logits = Dense(width, width) if pre_logits else None
        self.head = Dense(width, num_classes, initializer="zeros")

    def __call__(
        self, images: jax.Array, *, train: bool = False, rngs: nnx.Rngs | None = None, mask: jax.Array | None = None
    ) -> jax.Array:  # (B, H, W, C) -> (B, K)
        """Maps images, scaled by their data set's mean and standard deviation, to one unnormalized float32 score per class.

        `mask` (B, H, W) is True on the pixels of each image, a rectangle from the top left corner on; with it images
        may be smaller than `image_size`.
        """
        x = self.features(images, train=train, rngs=rngs, mask=mask)  # (B, D)
        return self.head(x).astype(jnp.float32)

    def features(
        self, images: jax.Array, *, train: bool = False, rngs: nnx.Rngs | None = None, mask: jax.Array | None = None
    ) -> jax.Array:  # (B, H, W, C) -> (B, D)
        """What the head sees: one token, or all of them pooled, in the dtype of the images."""
        grid, tokens = None, None
        if mask is None:
            refuse_size(images, self.image_size)
            images = images[:, : self.read[0], : self.read[1]]
        else:
            images, grid = self.whole(apply_mask(images, mask))
            tokens = self.tokens(mask)  # (B, T)
        x = self.patches(images)  # (B, N, D)
        x = self.dropout(self.placed(x, grid), train=train, rngs=rngs)
        for block in self.blocks:
            x = block(x, train=train, rngs=rngs, mask=tokens)
        if self.norm is not None:
            x = self.norm(x)
        x = self.pooled(x, mask=tokens)
        return x if self.pre_logits is None else jnp.tanh(self.pre_logits(x))

    def whole(self, images: jax.Array) -> tuple[jax.Array, tuple[int, int]]:  # (B, H, W, C) -> (B, Y, X, C), ()
        """Images as whole patches, what fills none dropped or filled up with zeros, and rows and columns of them."""
        side, (height, width) = self.patches.patch, images.shape[1:3]
        if height > self.image_size[0] or width > self.image_size[1]:
            refuse_size(images, self.image_size)
        if self.drop_leftover:
            rows, columns = height // side, width // side
            return images[:, : rows * side, : columns * side], (rows, columns)
        images = jnp.pad(images, ((0, 0), (0, -height % side), (0, -width % side), (0, 0)))
        return images, (images.shape[1] // side, images.shape[2] // side)

    def tokens(self, mask: jax.Array) -> jax.Array:  # (B, H, W) -> (B, T)
        """The tokens of each image: the class token if any, and patches that it fills or, unless dropped, touches."""
        side = self.patches.patch
        first = side - 1 if self.drop_leftover else 0
        mask = mask[:, first::side, first::side].reshape(len(mask), -1)  # (B, N)
        return mask if self.cls_token is None else jnp.pad(mask, ((0, 0), (1, 0)), constant_values=True)

    @property
    def least_side(self) -> int:
        """The smallest side in pixels, of an image in a mask, that has a patch."""
        return self.patches.patch if self.drop_leftover else 1

    def placed(self, patches: jax.Array, grid: tuple[int, int] | None = None) -> jax.Array:  # (B, N, D) -> (B, T, D)
        """The class token (if any) before the patches, and positions added to all that have one.

        Of a smaller grid than the network's own, those of its top left part.
        """
        cls_token, rows = None, None
        if self.cls_token is not None:
            cls_token = self.cls_token[...].astype(patches.dtype)  # (1, D)
            cls_token = jnp.broadcast_to(cls_token, (len(patches), 1, patches.shape[-1]))
        if grid is not None:
            rows = np.add.outer(np.arange(grid[0]) * self.grid[1], np.arange(grid[1])).ravel()
        if self.pos_embed is None:
            x = patches
            if self.positions == "sincos":
                x = x + jnp.asarray(sincos_positions(*(grid or self.grid), x.shape[-1]), x.dtype)
        elif cls_token is not None and self.token_position:
            rows = rows if rows is None else np.append(0, rows + 1)
            return self.pos_embed(jnp.concatenate([cls_token, patches], axis=1), rows)
        else:
            x = self.pos_embed(patches, rows)
        return x if cls_token is None else jnp.concatenate([cls_token, x], axis=1)

    def pooled(self, x: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:  # (B, T, D) -> (B, D)
        """One vector for all tokens that the mask (B, T) keeps."""
        if self.map_head is not None:
            return self.map_head(x, mask=mask)
        if self.cls_token is not None:
            return x[:, 0]
        return x.mean(1) if mask is None else masked_mean(x, mask)


class Block(nnx.Module):
    """Attention among the tokens, then an MLP on each; each is added to what it was given.

    Args:
        width: numbers per token.
        hidden: units in the middle of the MLP.
        mixer: makes the attention.
        post: normalize after each addition instead of before each part.
        gelu: tanh or erf.
        dropout: share of the values dropped in training.
        stochastic_depth: share of the examples for which a part is skipped in training.
    """

    def __init__(
        self, width: int, hidden: int, mixer: partial, *, post: bool, gelu: str, dropout: float, stochastic_depth: float
    ):
        self.norm1 = LayerNorm(width, epsilon=EPSILON)
        self.attention = mixer()
        self.norm2 = LayerNorm(width, epsilon=EPSILON)
        self.mlp = MLP(width, hidden, gelu=gelu, dropout=dropout)
        self.dropout, self.skip, self.post = Dropout(dropout), StochasticDepth(stochastic_depth), post

    def __call__(
        self, x: jax.Array, *, train: bool, rngs: nnx.Rngs | None, mask: jax.Array | None = None
    ) -> jax.Array:  # (B, T, D) -> (B, T, D)
        """`mask` (B, T) is True on the tokens that are read."""
        for norm, part in ((self.norm1, partial(self.mix, mask=mask)), (self.norm2, self.mlp)):
            y = part(x if self.post else norm(x), train=train, rngs=rngs)  # (B, T, D)
            x = x + self.skip(y, train=train, rngs=rngs)
            x = norm(x) if self.post else x
        return x

    def mix(
        self, x: jax.Array, *, train: bool, rngs: nnx.Rngs | None, mask: jax.Array | None = None
    ) -> jax.Array:  # (B, T, D) -> (B, T, D)
        """Attention, and dropout of what it gives; none of its weights, as in the paper."""
        return self.dropout(self.attention(x, mask=mask, train=train, rngs=rngs), train=train, rngs=rngs)


class MLP(nnx.Module):
    """Two dense layers on each token alone, GELU between them."""

    def __init__(self, width: int, hidden: int, *, gelu: str, dropout: float):
        dense = partial(Dense, initializer="xavier_uniform", bias_initializer="normal(1e-6)")
        self.dense1, self.dense2 = dense(width, hidden), dense(hidden, width)
        self.approximate, self.dropout = gelu == "tanh", Dropout(dropout)

    def __call__(self, x: jax.Array, *, train: bool, rngs: nnx.Rngs | None) -> jax.Array:  # (B, T, D) -> (B, T, D)
        x = jax.nn.gelu(self.dense1(x), approximate=self.approximate)  # (B, T, F)
        x = self.dense2(self.dropout(x, train=train, rngs=rngs))
        return self.dropout(x, train=train, rngs=rngs)


class MAPHead(nnx.Module):
    """Attention pooling (arXiv:1810.00825, as in arXiv:2106.04560): a learned query reads the tokens, then an MLP."""

    def __init__(self, width: int, hidden: int, mixer: partial, *, gelu: str):
        self.query = declare(nnx.Param, (1, width), "xavier_uniform")
        self.attention = mixer()
        self.norm = LayerNorm(width, epsilon=EPSILON)
        self.mlp = MLP(width, hidden, gelu=gelu, dropout=0.0)

    def __call__(self, x: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:  # (B, T, D) -> (B, D)
        query = jnp.broadcast_to(self.query[...].astype(x.dtype), (len(x), 1, x.shape[-1]))  # (B, 1, D)
        y = self.attention(query, x, mask=mask)  # (B, 1, D)
        y = y + self.mlp(self.norm(y), train=False, rngs=None)
        return y[:, 0]


def whole_patches(image_size: tuple[int, int], patch: int, *, drop: bool) -> tuple[int, int]:
    """Rows and columns of patches; raises UserError where an image is no whole number of them, or with `drop` none."""
    height, width = image_size
    if min(height, width) < patch or (not drop and (height % patch or width % patch)):
        raise UserError(
            f"{height}x{width} pixels are not whole {patch}-pixel patches; make data.image_size a multiple of {patch}"
        )
    return height // patch, width // patch


def refuse_width(width: int, *, heads: int, positions: str) -> None:
    """Raises UserError for a width that heads cannot share, or that sin-cos positions cannot fill by quarters."""
    if width % heads:
        raise UserError(f"model.width={width} is no multiple of model.heads={heads}; the heads share it evenly")
    if positions == "sincos" and width % 4:
        raise UserError(f"model.width={width} is no multiple of 4; sincos positions need a sine and cosine per axis")


VARIANTS = {"test": partial(ViT, patch=4, width=8, depth=1, heads=2, hidden=16, image_size=16)}
SIZES = {
    "mu": partial(ViT, patch=16, width=32, depth=1, heads=2, hidden=128),
    "Ti": partial(ViT, patch=16, width=192, depth=12, heads=3, hidden=768),
    "S": partial(ViT, patch=16, width=384, depth=12, heads=6, hidden=1536),
    "M": partial(ViT, patch=16, width=512, depth=12, heads=8, hidden=2048),
    "B": partial(ViT, patch=16, width=768, depth=12, heads=12, hidden=3072),
    "L": partial(ViT, patch=16, width=1024, depth=24, heads=16, hidden=4096),
    "So400m": partial(ViT, patch=14, width=1152, depth=27, heads=16, hidden=4304),
    "H": partial(ViT, patch=14, width=1280, depth=32, heads=16, hidden=5120, leftover="drop"),
    "g": partial(ViT, patch=14, width=1408, depth=40, heads=16, hidden=6144),
    "G": partial(ViT, patch=14, width=1664, depth=48, heads=16, hidden=8192),
    "e": partial(ViT, patch=14, width=1792, depth=56, heads=16, hidden=15360),
}
SUFFIXES = {
    "gap": {"pool": "average"},
    "map": {"pool": "attention"},
    "tok": {"pool": "token", "token_position": False},
    "pre_logits": {"pre_logits": True},
}
