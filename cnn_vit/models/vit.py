"""Vision Transformer: an image as a sequence of patches, a stack of attention and MLP blocks, one token or an average.

`ViT.features` shows the way of an image: patches -> class token and positions -> blocks -> norm -> pooling -> head.

Paper: Dosovitskiy et al., An Image Is Worth 16x16 Words, ICLR 2021, arXiv:2010.11929; sizes beyond it from
arXiv:2106.04560 (Ti to G), arXiv:2305.13035 (So400m), arXiv:2209.06794 (e) and big_vision (mu).
Numbers and initial values follow Google's code (google-research/vision_transformer; big_vision for `-tok` and `-map`):
LayerNorm's epsilon 1e-6; MLP and attention start with Xavier's uniform values, positions with normal(0.02), class token
and head at 0, so that the initial scores are 0. GELU is its tanh form there; timm and torchvision use erf
(`activation="gelu"`; up to 5e-4 apart).
Departs from it: stochastic depth is DeiT's (arXiv:2012.12877), rising linearly from 0 in the first block. With a mask,
images of several sizes share a batch, and each gets the scores that it would get alone: its patches read one another
only, and have the positions of the top left part of the table, those of their pixels (absolute positions in NaViT's
words, arXiv:2307.06304). Rotary, relative and concatenated positions are not the paper's; `nn/position.py` has their
sources.

A patch side stands behind the size, "B16"; `-gap` averages the tokens, `-map` reads them by one query of attention,
`-tok` has its class token outside the table of positions, `-pre_logits` puts a dense layer and tanh before the head.

Axes:
    B batch    H, W image height and width in pixels    Y, X height and width of whole patches    C colors
    N patches    T tokens (patches, and the class token if any)    D width    F hidden width    A heads    K classes
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cnn_vit.errors import UserError
from cnn_vit.models import choose_place, height_and_width, refuse_size, require_at_least, require_rates
from cnn_vit.models.mlp import ACTIVATIONS
from cnn_vit.nn.attention import Attention
from cnn_vit.nn.dense import Dense
from cnn_vit.nn.dropout import Dropout, StochasticDepth
from cnn_vit.nn.masks import apply_mask, masked_mean
from cnn_vit.nn.norm import LayerNorm
from cnn_vit.nn.patches import PatchEmbed
from cnn_vit.nn.permutation import permute_pixels
from cnn_vit.nn.position import (
    ConcatenatedPositions,
    LearnedPositions,
    relative_scores,
    rotary_angles,
    sincos_positions,
)
from cnn_vit.nn.values import declare

TABLES = {"learned": LearnedPositions, "concatenated": ConcatenatedPositions}  # by the setting `positions`


class ViT(nnx.Module):
    """Scores each image for each class.

    Args:
        num_classes: classes.
        patch: side of a patch in pixels.
        width: numbers per token.
        depth: blocks.
        heads: attention heads of a block.
        hidden: units in the middle of each MLP.
        head_width: numbers per head in queries, keys and values; none lets the heads share the width evenly.
        qkv_bias: whether queries, keys and values have a bias.
        activation: what stands in the middle of each MLP; gelu_tanh is the approximation of Google's code, gelu the
            exact one (erf) of timm and torchvision.
        epsilon: added to the variance in each norm; 1e-6 in Flax and timm's ViT, 1e-5 is PyTorch's default.
        pool: what the head sees; a class token, the average of the tokens, or one learned query's attention to them.
        token_position: whether the class token has its own row in the table of learned positions.
        pre_logits: whether a dense layer and tanh stand before the head.
        positions: what tells where a patch is. Learned rows and fixed sincos, in two dimensions, are added to the
            patches; concatenated rows stand beside them, and a dense layer maps both to the width; rotary turns queries
            and keys; relative adds a learned number for each head and offset between two patches to the scores.
        norm: pre normalizes the input of each part of a block, and the end; post its output, as in arXiv:1706.03762.
        final_norm: whether the end of all blocks is normalized; none does what norm says, pre does and post does not.
        patch_norm: whether the pixels of each patch are normalized before they are mapped, and the tokens behind
            (Dual PatchNorm, arXiv:2302.01327).
        dropout: share of the values that is dropped in training behind positions, attention, and both layers of an MLP.
        stochastic_depth: share of the examples that skip a part of the last block in training; linearly less before.
        leftover: what becomes of pixels at the right and bottom that fill no patch: the size is refused, or they are
            dropped as upstream does (H14 at 384 pixels reads 27 patches a side); with a mask no size is refused for it.
        fused: whether attention runs as one fused operation: the same numbers up to rounding.
        permutation: number of a fixed permutation of the pixels, the same for all images; none leaves them in order.
        cut: path of the block that is kept last, such as blocks/5; its tokens get a norm of their own (if pre) and are
            pooled, those that attention would read by their average; pre_logits is left out.
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
        head_width: int | None = None,
        qkv_bias: bool = True,
        activation: Literal["gelu_tanh", "gelu", "relu"] = "gelu_tanh",
        epsilon: float = 1e-6,
        pool: Literal["token", "average", "attention"] = "token",
        token_position: bool = True,
        pre_logits: bool = False,
        positions: Literal["learned", "sincos", "rotary", "relative", "concatenated", "none"] = "learned",
        norm: Literal["pre", "post"] = "pre",
        final_norm: bool | None = None,
        patch_norm: bool = False,
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        leftover: Literal["refuse", "drop"] = "refuse",
        fused: bool = False,
        permutation: int | None = None,
        cut: str | None = None,
        channels: int = 3,
        image_size: int | tuple[int, int] = 224,
    ):
        require_at_least(1, patch=patch, width=width, depth=depth, heads=heads, hidden=hidden)
        require_rates(dropout=dropout, stochastic_depth=stochastic_depth)
        if head_width is not None:
            require_at_least(1, head_width=head_width)
        if permutation is not None:
            require_at_least(0, permutation=permutation)
        if epsilon <= 0:
            raise UserError(f"model.epsilon={epsilon} must be above 0")
        self.image_size = height_and_width(image_size)
        self.permutation = permutation
        self.drop_leftover = leftover == "drop"
        self.grid = count_patches(self.image_size, patch, drop_leftover=self.drop_leftover)
        refuse_width(width, heads=heads, head_width=head_width, positions=positions)
        self.head_width = width // heads if head_width is None else head_width
        rows, columns = self.grid
        self.covered_size = (rows * patch, columns * patch)  # the pixels that the patches cover
        self.patches = PatchEmbed(patch, channels, width, epsilon=epsilon if patch_norm else None)
        self.patch_norm = LayerNorm(width, epsilon=epsilon) if patch_norm else None
        self.cls_token = declare(nnx.Param, (1, width), "zeros") if pool == "token" else None
        self.token_has_row = pool == "token" and token_position
        table_rows = rows * columns + (1 if self.token_has_row else 0)
        make_table = TABLES.get(positions)
        self.pos_embed = None if make_table is None else make_table(table_rows, width)
        # One table serves all blocks, as in T5 (arXiv:1910.10683): a number for each head and offset of two patches.
        bias_table = declare(nnx.Param, (heads, 2 * rows - 1, 2 * columns - 1), "normal(0.02)")
        self.relative_bias = bias_table if positions == "relative" else None
        self.positions = positions
        self.dropout = Dropout(dropout)
        make_norm = partial(LayerNorm, width, epsilon=epsilon)
        make_attention = partial(Attention, width, heads, head_width=head_width, qkv_bias=qkv_bias, fused=fused)
        make_mlp = partial(MLP, width, hidden, activation=activation)
        make_block = partial(Block, make_norm, make_attention, make_mlp, post=norm == "post", dropout=dropout)
        # 0 in the first block, rising linearly to `stochastic_depth` in the last; a network of one block never skips.
        skip_rates = [stochastic_depth * i / max(depth - 1, 1) for i in range(depth)]
        if cut is not None:
            skip_rates = choose_place(cut, {f"blocks/{i}": skip_rates[: i + 1] for i in range(depth)})
        self.blocks = nnx.List([make_block(stochastic_depth=rate) for rate in skip_rates])
        # Pre-norm blocks add to x without normalizing the sum, so it is normalized once at the end.
        if final_norm is None:
            final_norm = norm == "pre"
        self.norm = make_norm() if final_norm else None
        # What stands between the blocks and the head is cut off too.
        has_map_head = pool == "attention" and cut is None
        self.map_head = MAPHead(width, make_norm, make_attention, make_mlp) if has_map_head else None
        self.pre_logits = Dense(width, width) if pre_logits and cut is None else None
        self.head = Dense(width, num_classes, initializer="zeros")

    def __call__(
        self, images: jax.Array, *, train: bool = False, rngs: nnx.Rngs | None = None, mask: jax.Array | None = None
    ) -> jax.Array:  # (B, H, W, C) -> (B, K)
        """Maps images, scaled by their data set's mean and standard deviation, to a float32 score for each class.

        `mask` (B, H, W) is True on the pixels of each image, a rectangle from the top left corner on; with it images
        may be smaller than `image_size`.
        """
        x = self.features(images, train=train, rngs=rngs, mask=mask)  # (B, D)
        return self.head(x).astype(jnp.float32)

    def features(
        self, images: jax.Array, *, train: bool = False, rngs: nnx.Rngs | None = None, mask: jax.Array | None = None
    ) -> jax.Array:  # (B, H, W, C) -> (B, D)
        """Returns what the head sees: one token, or all of them pooled, in the dtype of the images."""
        grid, token_mask = None, None  # only images of several sizes need them
        if mask is None:
            refuse_size(images, self.image_size)
            if self.permutation is not None:
                images = permute_pixels(images, self.permutation)
            images = images[:, : self.covered_size[0], : self.covered_size[1]]  # (B, Y, X, C)
        else:
            self.refuse_mask(train=train)
            images = self.fit_to_whole_patches(apply_mask(images, mask))  # (B, Y, X, C)
            grid = self.count_rows_and_columns(images)
            token_mask = self.make_token_mask(mask)  # (B, T)
        x = self.patches(images)  # (B, N, D)
        if self.patch_norm is not None:
            x = self.patch_norm(x)
        x = self.add_positions(x, grid)  # (B, T, D)
        x = self.dropout(x, train=train, rngs=rngs)
        angles = self.find_angles(grid)
        bias = self.make_bias(grid)
        for block in self.blocks:
            x = block(x, train=train, rngs=rngs, mask=token_mask, angles=angles, bias=bias)
        if self.norm is not None:
            x = self.norm(x)
        x = self.pool_tokens(x, mask=token_mask)  # (B, D)
        if self.pre_logits is None:
            return x
        return jnp.tanh(self.pre_logits(x))

    def add_positions(
        self, patches: jax.Array, grid: tuple[int, int] | None = None
    ) -> jax.Array:  # (B, N, D) -> (B, T, D)
        """Puts the class token (if any) before the patches, and adds a position to each token that has one.

        `grid`, rows and columns of the patches, is given where they are fewer than those of `image_size`; they get the
        positions of its top left part.
        """
        if self.cls_token is None:
            return self.add_patch_positions(patches, grid)
        # All images of the batch begin with the same learned token.
        cls_token = self.cls_token[...].astype(patches.dtype)  # (1, D)
        cls_token = jnp.broadcast_to(cls_token, (len(patches), 1, patches.shape[-1]))  # (B, 1, D)
        if self.pos_embed is not None and self.token_has_row:
            # The first row of the table is the class token's, so it joins the patches before they get their rows.
            x = jnp.concatenate([cls_token, patches], axis=1)  # (B, T, D)
            return self.pos_embed(x, self.find_table_rows(grid))
        x = self.add_patch_positions(patches, grid)
        return jnp.concatenate([cls_token, x], axis=1)

    def add_patch_positions(
        self, x: jax.Array, grid: tuple[int, int] | None = None
    ) -> jax.Array:  # (B, N, D) -> (B, N, D)
        """Gives each patch its position: a learned row, a fixed one, or none; others are known in the blocks."""
        if self.pos_embed is not None:
            return self.pos_embed(x, self.find_table_rows(grid))
        if self.positions == "sincos":
            rows, columns = self.grid if grid is None else grid
            return x + jnp.asarray(sincos_positions(rows, columns, x.shape[-1]), x.dtype)
        return x

    def find_angles(self, grid: tuple[int, int] | None) -> np.ndarray | None:
        """Returns the angles (T, E / 2) by which rotary positions turn queries and keys; None without them.

        The class token stands at no place, and is not turned.
        """
        if self.positions != "rotary":
            return None
        rows, columns = self.grid if grid is None else grid
        angles = rotary_angles(rows, columns, self.head_width)
        return angles if self.cls_token is None else np.pad(angles, ((1, 0), (0, 0)))

    def make_bias(self, grid: tuple[int, int] | None) -> jax.Array | None:  # -> (1, A, T, T)
        """Makes what relative positions add to the scores of attention; None without them.

        The class token stands at no place: nothing is added to its scores, nor to the scores for it.
        """
        if self.relative_bias is None:
            return None
        scores = relative_scores(self.relative_bias[...], self.grid if grid is None else grid)  # (A, N, N)
        if self.cls_token is not None:
            scores = jnp.pad(scores, ((0, 0), (1, 0), (1, 0)))
        return scores[None]

    def pool_tokens(self, x: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:  # (B, T, D) -> (B, D)
        """Makes one vector of all tokens that the mask (B, T) keeps."""
        if self.map_head is not None:
            return self.map_head(x, mask=mask)
        if self.cls_token is not None:
            return x[:, 0]  # the class token, which has read from all others in every block
        if mask is None:
            return x.mean(1)
        return masked_mean(x, mask)

    # What only images with a mask need

    def refuse_mask(self, *, train: bool) -> None:
        """Raises UserError where the network would not tell the pixels of an image from what surrounds them."""
        if self.permutation is not None:
            raise UserError(
                "a permutation of the pixels would mix an image with what surrounds it; set model.permutation=none for "
                "a mask"
            )

    def fit_to_whole_patches(self, images: jax.Array) -> jax.Array:  # (B, H, W, C) -> (B, Y, X, C)
        """Crops images to whole patches where leftover pixels are dropped, else pads them with zeros to whole patches.

        Raises:
            UserError: if the images are larger than `image_size`, so that there are no positions for them.
        """
        side = self.patches.patch
        height, width = images.shape[1:3]
        if height > self.image_size[0] or width > self.image_size[1]:
            refuse_size(images, self.image_size)
        if self.drop_leftover:
            return images[:, : height // side * side, : width // side * side]
        # -height % side is what is missing to the next multiple of the patch side.
        return jnp.pad(images, ((0, 0), (0, -height % side), (0, -width % side), (0, 0)))

    def count_rows_and_columns(self, images: jax.Array) -> tuple[int, int]:  # (B, Y, X, C)
        """Counts the rows and columns of patches in images that are whole patches."""
        height, width = images.shape[1:3]
        return height // self.patches.patch, width // self.patches.patch

    def make_token_mask(self, mask: jax.Array) -> jax.Array:  # (B, H, W) -> (B, T)
        """Marks the tokens of each image: the class token if any, and the patches of its pixels."""
        side = self.patches.patch
        # An image begins in the top left corner: it touches a patch whose first pixel it has, and fills a patch whose
        # last pixel it has. Where leftover pixels are dropped, only filled patches count.
        offset = side - 1 if self.drop_leftover else 0
        patch_mask = mask[:, offset::side, offset::side].reshape(len(mask), -1)  # (B, N)
        if self.cls_token is None:
            return patch_mask
        return jnp.pad(patch_mask, ((0, 0), (1, 0)), constant_values=True)

    def find_table_rows(self, grid: tuple[int, int] | None) -> np.ndarray | None:
        """Returns the rows of the learned table for a grid in its top left part, (N,) or (T,); None for all rows."""
        if grid is None:
            return None
        # Patches are numbered row by row, so a step down passes a whole row of the table's grid, not of this one.
        table_columns = self.grid[1]
        rows = np.add.outer(np.arange(grid[0]) * table_columns, np.arange(grid[1])).ravel()
        return np.append(0, rows + 1) if self.token_has_row else rows

    @property
    def least_side(self) -> int:
        """The smallest side in pixels, of an image with a mask, that has a patch."""
        return self.patches.patch if self.drop_leftover else 1


class Block(nnx.Module):
    """Attention among the tokens, then an MLP on each of them; the output of each part is added to its input.

    Args:
        make_norm: makes a norm.
        make_attention: makes the attention.
        make_mlp: makes the MLP.
        post: normalize after each addition instead of before each part.
        dropout: share of the values that is dropped in training.
        stochastic_depth: share of the examples for which a part is skipped in training.
    """

    def __init__(
        self,
        make_norm: partial,
        make_attention: partial,
        make_mlp: partial,
        *,
        post: bool,
        dropout: float,
        stochastic_depth: float,
    ):
        self.norm1 = make_norm()
        self.attention = make_attention()
        self.norm2 = make_norm()
        self.mlp = make_mlp(dropout=dropout)
        self.dropout = Dropout(dropout)
        self.skip = StochasticDepth(stochastic_depth)
        self.post = post

    def __call__(
        self,
        x: jax.Array,
        *,
        train: bool,
        rngs: nnx.Rngs | None,
        mask: jax.Array | None = None,
        angles: np.ndarray | None = None,
        bias: jax.Array | None = None,
    ) -> jax.Array:  # (B, T, D) -> (B, T, D)
        """Runs both parts; `mask` (B, T) is True on the tokens that are read, angles and bias are `Attention`'s."""
        mix_tokens = partial(self.mix_tokens, mask=mask, angles=angles, bias=bias, train=train, rngs=rngs)
        if self.post:
            # The sum itself is normalized: gradients pass a norm between any two blocks.
            x = self.norm1(x + mix_tokens(x))
            return self.norm2(x + self.transform_tokens(x, train=train, rngs=rngs))
        # The sum is never normalized: gradients pass from the last block to the first unchanged.
        x = x + mix_tokens(self.norm1(x))
        return x + self.transform_tokens(self.norm2(x), train=train, rngs=rngs)

    def mix_tokens(
        self,
        x: jax.Array,
        *,
        mask: jax.Array | None,
        angles: np.ndarray | None,
        bias: jax.Array | None,
        train: bool,
        rngs: nnx.Rngs | None,
    ) -> jax.Array:  # (B, T, D) -> (B, T, D)
        """Lets the tokens read one another. Dropout falls on the output, not on the weights, as in the paper."""
        x = self.attention(x, mask=mask, angles=angles, bias=bias, train=train, rngs=rngs)
        x = self.dropout(x, train=train, rngs=rngs)
        return self.skip(x, train=train, rngs=rngs)

    def transform_tokens(
        self, x: jax.Array, *, train: bool, rngs: nnx.Rngs | None
    ) -> jax.Array:  # (B, T, D) -> (B, T, D)
        """Applies the MLP to each token alone."""
        x = self.mlp(x, train=train, rngs=rngs)
        return self.skip(x, train=train, rngs=rngs)


class MLP(nnx.Module):
    """Two dense layers on each token alone, and an activation between them, a key of ACTIVATIONS."""

    def __init__(self, width: int, hidden: int, *, activation: str, dropout: float):
        # Google's code starts the biases not at 0 but near it.
        dense = partial(Dense, initializer="xavier_uniform", bias_initializer="normal(1e-6)")
        self.dense1 = dense(width, hidden)
        self.dense2 = dense(hidden, width)
        self.activation = activation
        self.dropout = Dropout(dropout)

    def __call__(self, x: jax.Array, *, train: bool, rngs: nnx.Rngs | None) -> jax.Array:  # (B, T, D) -> (B, T, D)
        x = ACTIVATIONS[self.activation](self.dense1(x))  # (B, T, F)
        x = self.dense2(self.dropout(x, train=train, rngs=rngs))
        return self.dropout(x, train=train, rngs=rngs)


class MAPHead(nnx.Module):
    """Attention pooling (arXiv:1810.00825, as in arXiv:2106.04560): a learned query reads the tokens, then an MLP."""

    def __init__(self, width: int, make_norm: partial, make_attention: partial, make_mlp: partial):
        self.query = declare(nnx.Param, (1, width), "xavier_uniform")
        self.attention = make_attention()
        self.norm = make_norm()
        self.mlp = make_mlp(dropout=0.0)

    def __call__(self, x: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:  # (B, T, D) -> (B, D)
        """Lets one learned query, the same for all images, read the tokens that the mask (B, T) keeps."""
        query = jnp.broadcast_to(self.query[...].astype(x.dtype), (len(x), 1, x.shape[-1]))  # (B, 1, D)
        y = self.attention(query, x, mask=mask)  # (B, 1, D)
        y = y + self.mlp(self.norm(y), train=False, rngs=None)
        return y[:, 0]


def count_patches(image_size: tuple[int, int], patch: int, *, drop_leftover: bool) -> tuple[int, int]:
    """Counts the rows and columns of patches in an image.

    Raises:
        UserError: if the image has not one whole patch, or, unless `drop_leftover`, is not whole patches only.
    """
    height, width = image_size
    has_leftover = height % patch != 0 or width % patch != 0
    if min(height, width) < patch or (has_leftover and not drop_leftover):
        raise UserError(
            f"{height}x{width} pixels are not whole {patch}-pixel patches; make data.image_size a multiple of {patch}"
        )
    return height // patch, width // patch


def refuse_width(width: int, *, heads: int, head_width: int | None, positions: str) -> None:
    """Raises UserError for a width that heads cannot share, or that fixed positions on two axes cannot fill."""
    if head_width is None and width % heads:
        raise UserError(
            f"model.width={width} is not a multiple of model.heads={heads}; the heads share it evenly, unless "
            "model.head_width gives each its own"
        )
    if positions == "sincos" and width % 4:
        raise UserError(f"model.width={width} is not a multiple of 4; sincos positions need a sine and cosine per axis")
    head_width = width // heads if head_width is None else head_width
    if positions == "rotary" and head_width % 4:
        raise UserError(
            f"heads of {head_width} numbers are no multiple of 4, and rotary positions turn pairs of them on two axes; "
            "set model.head_width to a multiple of 4, or model.width to one of 4 times model.heads"
        )


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
# The last norm of the whole network scales the tokens of the last block.
CUTS = {"blocks/*": ("norm",)}
