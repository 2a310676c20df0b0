"""MobileNetV2: blocks that are wide inside and narrow where they are added up (inverted residuals).

A block widens its input sixfold by a 1x1 convolution, filters each channel by itself (depthwise), and narrows the
result by another 1x1 convolution, which nothing rectifies: a rectifier would lose what few channels carry (a linear
bottleneck). The variant is the width multiplier, the share of the paper's filters in each layer.

Paper: Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018, arXiv:1801.04381, Table 2.
Departs from it: the table's convolution behind the average is the dense head. What the paper leaves open is as in
torchvision and timm, whose weights fit: filters are rounded to multiples of 8, the last convolution keeps its 1,280
filters in narrower networks, a convolution pads one zero at each side, batch norm's epsilon is 1e-5. (Google's own code
pads as TensorFlow's "SAME" and has an epsilon of 1e-3.) Momentum is 0.9, and kernels start with He's normal. `1.1d` and
`1.2d` are timm's: stages deepened 1.2 and 1.4 times, stem and last convolution as at the full width.

Axes:
    B batch    H, W image height and width in pixels    C colors    S filters of the stem
    I, O channels into and out of a block    Y, X height and width behind it    D features    K classes
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from cnn_vit.errors import UserError
from cnn_vit.models import (
    cut_stages,
    height_and_width,
    require_at_least,
    require_multiplier,
    require_rates,
    round_filters,
)
from cnn_vit.nn.conv import Conv
from cnn_vit.nn.dense import Dense
from cnn_vit.nn.dropout import Dropout
from cnn_vit.nn.norm import BatchNorm

# Of each stage in Table 2: filters c and stride s; t, how much wider a block is inside, is 1 in the first, 6 elsewhere.
FILTERS = (16, 24, 32, 64, 96, 160, 320)
STRIDES = (1, 2, 2, 2, 1, 2, 1)
EXPANSION = 6
STEM_FILTERS, LAST_FILTERS = 32, 1280


class MobileNetV2(nnx.Module):
    """Scores each image for each class.

    Args:
        num_classes: classes.
        width_multiplier: share of the paper's filters that each layer has; above 0. Filters are rounded to multiples of
            8, and the last convolution has 1,280 at least.
        blocks: blocks of each stage, first to last; the paper's 7 stages or fewer.
        scale_ends: whether the multiplier is for stem and last convolution too.
        dropout: share of the features that is dropped in training in front of the head.
        cut: path of the stage or block that is kept last, such as stages/1 or stages/1/blocks/0; the head stands on the
            average over its pixels, and the last convolution is left out.
        channels: colors of an image.
        image_size: side in pixels, or (height, width); any will do, since the last layer is averaged.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        width_multiplier: float = 1.0,
        blocks: tuple[int, ...] = (1, 2, 3, 4, 3, 3, 1),
        scale_ends: bool = True,
        dropout: float = 0.0,
        cut: str | None = None,
        channels: int = 3,
        image_size: int | tuple[int, int] = 224,
    ):
        require_at_least(1, blocks=blocks)
        require_multiplier(width_multiplier)
        require_rates(dropout=dropout)
        height_and_width(image_size)  # only checked: no parameter depends on it
        if not 1 <= len(blocks) <= len(FILTERS):
            raise UserError(
                f"model.blocks={blocks} has {len(blocks)} numbers; give one for each stage, at most {len(FILTERS)}"
            )
        multiplier_of_ends = width_multiplier if scale_ends else 1.0
        # No convolution here has a bias: the batch norm behind it subtracts the mean, and adds a bias of its own.
        in_channels = round_filters(STEM_FILTERS * multiplier_of_ends)
        self.stem = Conv(channels, in_channels, 3, stride=2, padding=1, bias=False)
        self.stem_norm = BatchNorm(in_channels)
        stages = []
        for i, count in enumerate(cut_stages(cut, blocks)):
            out_channels = round_filters(FILTERS[i] * width_multiplier)
            expansion = 1 if i == 0 else EXPANSION
            stages.append(Stage(in_channels, out_channels, blocks=count, stride=STRIDES[i], expansion=expansion))
            in_channels = out_channels
        self.stages = nnx.List(stages)
        last_filters = round_filters(LAST_FILTERS * max(1.0, multiplier_of_ends))
        self.last = Pointwise(in_channels, last_filters) if cut is None else None
        self.dropout = Dropout(dropout)
        self.head = Dense(in_channels if self.last is None else last_filters, num_classes)

    def __call__(
        self, images: jax.Array, *, train: bool = False, rngs: nnx.Rngs | None = None
    ) -> jax.Array:  # (B, H, W, C) -> (B, K)
        """Maps images, scaled by their data set's mean and standard deviation, to a float32 score for each class."""
        x = self.features(images, train=train, rngs=rngs)  # (B, D)
        return self.head(x).astype(jnp.float32)

    def features(
        self, images: jax.Array, *, train: bool = False, rngs: nnx.Rngs | None = None
    ) -> jax.Array:  # (B, H, W, C) -> (B, D)
        """Returns what the head sees: the average over the last layer's pixels, in the dtype of the images."""
        x = self.stem(images)  # (B, Y, X, S)
        x = jax.nn.relu6(self.stem_norm(x, train=train))
        for stage in self.stages:
            x = stage(x, train=train)
        if self.last is not None:
            x = self.last(x, train=train)
        return self.dropout(x.mean((1, 2)), train=train, rngs=rngs)


class Stage(nnx.Module):
    """Blocks of one width; the first has the stride."""

    def __init__(self, in_channels: int, out_channels: int, *, blocks: int, stride: int, expansion: int):
        first = Block(in_channels, out_channels, stride=stride, expansion=expansion)
        rest = [Block(out_channels, out_channels, stride=1, expansion=expansion) for _ in range(blocks - 1)]
        self.blocks = nnx.List([first, *rest])

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:  # (B, H, W, I) -> (B, Y, X, O)
        for block in self.blocks:
            x = block(x, train=train)
        return x


class Block(nnx.Module):
    """1x1 to the inner width (where that is another), a 3x3 filter for each channel by itself, 1x1 to the outer width.

    The output is added to the input where both have the same shape.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, expansion: int):
        inner = in_channels * expansion
        self.expand = Pointwise(in_channels, inner) if expansion > 1 else None
        self.depthwise = Conv(inner, inner, 3, stride=stride, padding=1, groups=inner, bias=False)
        self.depthwise_norm = BatchNorm(inner)
        self.project = Conv(inner, out_channels, 1, padding=0, bias=False)
        self.project_norm = BatchNorm(out_channels)
        self.is_residual = stride == 1 and in_channels == out_channels

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:  # (B, H, W, I) -> (B, Y, X, O)
        y = x if self.expand is None else self.expand(x, train=train)
        y = jax.nn.relu6(self.depthwise_norm(self.depthwise(y), train=train))
        y = self.project_norm(self.project(y), train=train)
        return x + y if self.is_residual else y


class Pointwise(nnx.Module):
    """A 1x1 convolution, which mixes the channels of a pixel, batch norm and a rectifier that ends at 6."""

    def __init__(self, in_channels: int, out_channels: int):
        self.conv = Conv(in_channels, out_channels, 1, padding=0, bias=False)
        self.norm = BatchNorm(out_channels)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:  # (B, H, W, I) -> (B, H, W, O)
        return jax.nn.relu6(self.norm(self.conv(x), train=train))


VARIANTS = {
    "test": partial(MobileNetV2, width_multiplier=0.25, blocks=(1, 1)),
    "0.35": partial(MobileNetV2, width_multiplier=0.35),
    "0.5": partial(MobileNetV2, width_multiplier=0.5),
    "0.75": partial(MobileNetV2, width_multiplier=0.75),
    "1.0": partial(MobileNetV2, width_multiplier=1.0),
    "1.4": partial(MobileNetV2, width_multiplier=1.4),
    "1.1d": partial(MobileNetV2, width_multiplier=1.1, blocks=(1, 3, 4, 5, 4, 4, 1), scale_ends=False),
    "1.2d": partial(MobileNetV2, width_multiplier=1.2, blocks=(1, 3, 5, 6, 5, 5, 1), scale_ends=False),
}
CUTS = {"stages/*": (), "stages/*/blocks/*": ()}
