"""DeiT: a Vision Transformer that learns from ImageNet alone, without or with a teacher.

The network is that of vit.py with a class token, exact GELU and learned positions. With `-distilled` a second learned
token stands behind the class token, and has a head of its own, which learned from a teacher; the prediction is the mean
of both heads. Here both heads learn from the labels, through that mean: there is no teacher.

Paper: Touvron et al., Training data-efficient image transformers & distillation through attention, ICML 2021,
arXiv:2012.12877; sizes Ti, S and B of its Table 1.
Numbers and initial values are those of vit.py, whose blocks these are; the second token starts at 0 as the first does
(both are drawn from normal(0.02) in the paper's code), and so do both heads.

Axes:
    B batch    H, W image height and width in pixels    C colors    N patches
    T tokens (the patches, and one or two learned ones)    D width    L numbers of all learned tokens    K classes
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from cnn_vit.errors import UserError
from cnn_vit.models import choose_place, height_and_width, refuse_size, require_at_least, require_rates
from cnn_vit.models.vit import MLP, Block, count_patches, refuse_width
from cnn_vit.nn.attention import Attention
from cnn_vit.nn.dense import Dense
from cnn_vit.nn.dropout import Dropout
from cnn_vit.nn.norm import LayerNorm
from cnn_vit.nn.patches import PatchEmbed
from cnn_vit.nn.position import LearnedPositions
from cnn_vit.nn.values import declare


class DeiT(nnx.Module):
    """Scores each image for each class.

    Args:
        num_classes: classes.
        patch: side of a patch in pixels.
        width: numbers per token.
        depth: blocks.
        heads: attention heads of a block.
        hidden: units in the middle of each MLP.
        distilled: whether a second learned token, with a head of its own, stands behind the class token. The scores are
            then the mean of both heads, and the features are both tokens one after the other, the class token first.
        epsilon: added to the variance in each norm; 1e-6 in timm and the paper's code, 1e-12 in Hugging Face's.
        dropout: share of the values that is dropped in training behind positions, attention, and both layers of an MLP.
        stochastic_depth: share of the examples that skip a part of the last block in training; linearly less before.
        fused: whether attention runs as one fused operation: the same numbers up to rounding.
        cut: path of the block that is kept last, such as blocks/5; its tokens get a norm of their own.
        channels: colors of an image.
        image_size: side in pixels, or (height, width), each a multiple of the patch side; fixed.
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
        distilled: bool = False,
        epsilon: float = 1e-6,
        dropout: float = 0.0,
        stochastic_depth: float = 0.1,
        fused: bool = False,
        cut: str | None = None,
        channels: int = 3,
        image_size: int | tuple[int, int] = 224,
    ):
        require_at_least(1, patch=patch, width=width, depth=depth, heads=heads, hidden=hidden)
        require_rates(dropout=dropout, stochastic_depth=stochastic_depth)
        if epsilon <= 0:
            raise UserError(f"model.epsilon={epsilon} must be above 0")
        refuse_width(width, heads=heads, head_width=None, positions="learned")
        self.image_size = height_and_width(image_size)
        rows, columns = count_patches(self.image_size, patch, drop_leftover=False)
        self.patches = PatchEmbed(patch, channels, width)
        self.cls_token = declare(nnx.Param, (1, width), "zeros")
        self.dist_token = declare(nnx.Param, (1, width), "zeros") if distilled else None
        learned_tokens = 2 if distilled else 1
        self.pos_embed = LearnedPositions(learned_tokens + rows * columns, width)
        self.dropout = Dropout(dropout)
        make_norm = partial(LayerNorm, width, epsilon=epsilon)
        make_attention = partial(Attention, width, heads, fused=fused)
        make_mlp = partial(MLP, width, hidden, activation="gelu")
        make_block = partial(Block, make_norm, make_attention, make_mlp, post=False, dropout=dropout)
        # 0 in the first block, rising linearly to `stochastic_depth` in the last; a network of one block never skips.
        skip_rates = [stochastic_depth * i / max(depth - 1, 1) for i in range(depth)]
        if cut is not None:
            skip_rates = choose_place(cut, {f"blocks/{i}": skip_rates[: i + 1] for i in range(depth)})
        self.blocks = nnx.List([make_block(stochastic_depth=rate) for rate in skip_rates])
        self.norm = make_norm()
        self.head = TwoHeads(width, num_classes) if distilled else Dense(width, num_classes, initializer="zeros")

    def __call__(
        self, images: jax.Array, *, train: bool = False, rngs: nnx.Rngs | None = None
    ) -> jax.Array:  # (B, H, W, C) -> (B, K)
        """Maps images, scaled by their data set's mean and standard deviation, to a float32 score for each class."""
        x = self.features(images, train=train, rngs=rngs)  # (B, L)
        return self.head(x).astype(jnp.float32)

    def features(
        self, images: jax.Array, *, train: bool = False, rngs: nnx.Rngs | None = None
    ) -> jax.Array:  # (B, H, W, C) -> (B, L)
        """Returns what the head sees: the class token, and the second one behind it if any, in the images' dtype."""
        refuse_size(images, self.image_size)
        x = self.patches(images)  # (B, N, D)
        x = self.pos_embed(self.add_tokens(x))  # (B, T, D)
        x = self.dropout(x, train=train, rngs=rngs)
        for block in self.blocks:
            x = block(x, train=train, rngs=rngs)
        x = self.norm(x)  # (B, T, D)
        if self.dist_token is None:
            return x[:, 0]
        return jnp.concatenate([x[:, 0], x[:, 1]], axis=-1)

    def add_tokens(self, patches: jax.Array) -> jax.Array:  # (B, N, D) -> (B, T, D)
        """Puts the learned tokens, the same for all images, before the patches."""
        tokens = [self.cls_token] if self.dist_token is None else [self.cls_token, self.dist_token]
        parts = []
        for token in tokens:
            row = token[...].astype(patches.dtype)
            parts.append(jnp.broadcast_to(row, (len(patches), 1, patches.shape[-1])))
        return jnp.concatenate([*parts, patches], axis=1)


class TwoHeads(nnx.Module):
    """Scores the class token and the second token by a dense layer each, and gives the mean of both.

    Attributes:
        cls, dist: dense layers of the class token, and of the one that learned from a teacher.
    """

    def __init__(self, width: int, num_classes: int):
        self.cls = Dense(width, num_classes, initializer="zeros")
        self.dist = Dense(width, num_classes, initializer="zeros")

    def __call__(self, x: jax.Array) -> jax.Array:  # (B, L) -> (B, K)
        cls_token, dist_token = jnp.split(x, 2, axis=-1)
        return (self.cls(cls_token) + self.dist(dist_token)) / 2


VARIANTS = {"test": partial(DeiT, patch=4, width=8, depth=1, heads=2, hidden=16, image_size=16)}
SIZES = {
    "Ti": partial(DeiT, patch=16, width=192, depth=12, heads=3, hidden=768),
    "S": partial(DeiT, patch=16, width=384, depth=12, heads=6, hidden=1536),
    "B": partial(DeiT, patch=16, width=768, depth=12, heads=12, hidden=3072),
}
SUFFIXES = {"distilled": {"distilled": True}}
# The last norm of the whole network scales the tokens of the last block.
CUTS = {"blocks/*": ("norm",)}
