"""EfficientNet: one small network, found by a search, made wider, deeper and for larger images in step.

Its blocks are those of MobileNetV2 with SiLU, filters of 3x3 or 5x5, and squeeze and excitation: wide inside, narrow
where they are added up. B1 to B7 have more filters and blocks in each stage than B0, and larger images: 240, 260, 300,
380, 456, 528 and 600 pixels where B0 has 224.

Paper: Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019,
arXiv:1905.11946, Table 1; the multipliers of B1 to B7 are those of Google's code (tensorflow/tpu), which rounds filters
to multiples of 8 and blocks up.
Departs from it: without a suffix a network pads as torchvision and timm do, equally at all sides, and batch norm's
epsilon is 1e-5; `-tf` is Google's own, and timm's tf_efficientnet: TensorFlow's "SAME" padding, which depends on the
image size, and 1e-3. Momentum is 0.9 (0.99 in Google's code); kernels start with He's normal of the inputs.

Axes:
    B batch    H, W image height and width in pixels    C colors    S filters of the stem
    I, O channels into and out of a block    Y, X height and width behind it    D features    K classes
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from cnn_vit.errors import UserError
from cnn_vit.models import (
    cut_stages,
    height_and_width,
    refuse_size,
    require_at_least,
    require_multiplier,
    require_rates,
    round_filters,
)
from cnn_vit.nn.conv import Conv
from cnn_vit.nn.dense import Dense
from cnn_vit.nn.dropout import Dropout, StochasticDepth
from cnn_vit.nn.norm import BatchNorm
from cnn_vit.nn.squeeze import SqueezeExcitation

# Of each stage in Table 1: filters, side of the depthwise filters, stride; the first is not widened inside (MBConv1).
FILTERS = (16, 24, 40, 80, 112, 192, 320)
KERNELS = (3, 3, 5, 3, 5, 5, 3)
STRIDES = (1, 2, 2, 2, 1, 2, 1)
EXPANSION = 6
SQUEEZE = 4  # how many of a block's input channels share one squeezed number
STEM_FILTERS, LAST_FILTERS = 32, 1280

Size = tuple[int, int]  # height and width in pixels
Pixels = tuple[tuple[int, int], tuple[int, int]]  # at the top and bottom, at the left and right


class EfficientNet(nnx.Module):
    """Scores each image for each class.

    Args:
        num_classes: classes.
        width_multiplier: share of B0's filters that each layer has; above 0. Filters are rounded to multiples of 8.
        blocks: blocks of each stage, first to last; the paper's 7 stages or fewer.
        padding: zeros around the input of a convolution; symmetric has as many at each side, same as many as
            TensorFlow's SAME, of which an odd one stands at the right and bottom: for one image size alone.
        epsilon: added to the variance in each norm; 1e-5 in PyTorch, 1e-3 in Google's code.
        dropout: share of the features that is dropped in training in front of the head.
        stochastic_depth: share of the examples that would skip one more block in training; the first is never skipped,
            and the share rises evenly from block to block.
        cut: path of the stage or block that is kept last, such as stages/1 or stages/1/blocks/0; the head stands on the
            average over its pixels, and the last convolution is left out.
        channels: colors of an image.
        image_size: side in pixels, or (height, width); any will do where the padding is symmetric, since the last layer
            is averaged.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        width_multiplier: float,
        blocks: tuple[int, ...],
        padding: Literal["symmetric", "same"],
        epsilon: float = 1e-5,
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        cut: str | None = None,
        channels: int = 3,
        image_size: int | tuple[int, int] = 224,
    ):
        require_at_least(1, blocks=blocks)
        require_multiplier(width_multiplier)
        require_rates(dropout=dropout, stochastic_depth=stochastic_depth)
        if epsilon <= 0:
            raise UserError(f"model.epsilon={epsilon} must be above 0")
        if not 1 <= len(blocks) <= len(FILTERS):
            raise UserError(
                f"model.blocks={blocks} has {len(blocks)} numbers; give one for each stage, at most {len(FILTERS)}"
            )
        size = height_and_width(image_size)  # of what the next layer sees
        self.fixed_size = size if padding == "same" else None
        # No convolution here has a bias: the batch norm behind it subtracts the mean, and adds a bias of its own.
        in_channels = round_filters(STEM_FILTERS * width_multiplier)
        stem_padding = choose_padding(padding, size, kernel_size=3, stride=2)
        self.stem = Conv(channels, in_channels, 3, stride=2, padding=stem_padding, bias=False)
        self.stem_norm = BatchNorm(in_channels, epsilon=epsilon)
        size = divide_size(size, 2)
        stages = []
        blocks_before = 0
        for i, count in enumerate(cut_stages(cut, blocks)):
            out_channels = round_filters(FILTERS[i] * width_multiplier)
            expansion = 1 if i == 0 else EXPANSION
            make_block = partial(Block, kernel_size=KERNELS[i], padding=padding, expansion=expansion, epsilon=epsilon)
            # Divided by the number of blocks as in Google's code (ViTs: by one less), so that the last stays below it.
            skip_rates = [stochastic_depth * (blocks_before + j) / sum(blocks) for j in range(count)]
            stages.append(Stage(make_block, in_channels, out_channels, STRIDES[i], size, skip_rates))
            size = divide_size(size, STRIDES[i])
            blocks_before += count
            in_channels = out_channels
        self.stages = nnx.List(stages)
        last_filters = round_filters(LAST_FILTERS * width_multiplier)
        self.last = Pointwise(in_channels, last_filters, epsilon=epsilon) if cut is None else None
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
        if self.fixed_size is not None:
            refuse_size(images, self.fixed_size)
        x = self.stem(images)  # (B, Y, X, S)
        x = jax.nn.silu(self.stem_norm(x, train=train))
        for stage in self.stages:
            x = stage(x, train=train, rngs=rngs)
        if self.last is not None:
            x = self.last(x, train=train)
        return self.dropout(x.mean((1, 2)), train=train, rngs=rngs)


class Stage(nnx.Module):
    """Blocks of one width; the first has the stride.

    Args:
        make_block: makes a Block of (in_channels, out_channels, *, stride, size, skip_rate).
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: of the first block.
        size: height and width of the input.
        skip_rates: of each block, the share of the examples that skip it in training.
    """

    def __init__(
        self,
        make_block: partial,
        in_channels: int,
        out_channels: int,
        stride: int,
        size: Size,
        skip_rates: list[float],
    ):
        blocks = [make_block(in_channels, out_channels, stride=stride, size=size, skip_rate=skip_rates[0])]
        size = divide_size(size, stride)
        for rate in skip_rates[1:]:
            blocks.append(make_block(out_channels, out_channels, stride=1, size=size, skip_rate=rate))
        self.blocks = nnx.List(blocks)

    def __call__(
        self, x: jax.Array, *, train: bool, rngs: nnx.Rngs | None
    ) -> jax.Array:  # (B, H, W, I) -> (B, Y, X, O)
        for block in self.blocks:
            x = block(x, train=train, rngs=rngs)
        return x


class Block(nnx.Module):
    """1x1 to the inner width (where that is another), a filter for each channel by itself, 1x1 to the outer width.

    Before the last, squeeze and excitation weakens channels. The output is added to the input where both have the same
    shape.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int,
        stride: int,
        padding: str,
        size: Size,
        expansion: int,
        epsilon: float,
        skip_rate: float,
    ):
        inner = in_channels * expansion
        zeros = choose_padding(padding, size, kernel_size=kernel_size, stride=stride)
        self.expand = Pointwise(in_channels, inner, epsilon=epsilon) if expansion > 1 else None
        self.depthwise = Conv(inner, inner, kernel_size, stride=stride, padding=zeros, groups=inner, bias=False)
        self.depthwise_norm = BatchNorm(inner, epsilon=epsilon)
        self.excitation = SqueezeExcitation(inner, in_channels // SQUEEZE)
        self.project = Conv(inner, out_channels, 1, padding=0, bias=False)
        self.project_norm = BatchNorm(out_channels, epsilon=epsilon)
        self.skip = StochasticDepth(skip_rate)
        self.is_residual = stride == 1 and in_channels == out_channels

    def __call__(
        self, x: jax.Array, *, train: bool, rngs: nnx.Rngs | None
    ) -> jax.Array:  # (B, H, W, I) -> (B, Y, X, O)
        y = x if self.expand is None else self.expand(x, train=train)
        y = jax.nn.silu(self.depthwise_norm(self.depthwise(y), train=train))
        y = self.excitation(y)
        y = self.project_norm(self.project(y), train=train)
        return x + self.skip(y, train=train, rngs=rngs) if self.is_residual else y


class Pointwise(nnx.Module):
    """A 1x1 convolution, which mixes the channels of a pixel, batch norm and SiLU."""

    def __init__(self, in_channels: int, out_channels: int, *, epsilon: float):
        self.conv = Conv(in_channels, out_channels, 1, padding=0, bias=False)
        self.norm = BatchNorm(out_channels, epsilon=epsilon)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:  # (B, H, W, I) -> (B, H, W, O)
        return jax.nn.silu(self.norm(self.conv(x), train=train))


def choose_padding(padding: str, size: Size, *, kernel_size: int, stride: int) -> Pixels:
    """Returns the zeros around an input of a size, ((top, bottom), (left, right)) in pixels.

    Args:
        padding: symmetric or same.
        size: height and width of the input.
        kernel_size: side of the filter, odd.
        stride: pixels from one position of the filter to the next.
    """
    if padding == "symmetric":
        pixels = kernel_size // 2
        return (pixels, pixels), (pixels, pixels)
    return pad_like_tensorflow(size[0], kernel_size, stride), pad_like_tensorflow(size[1], kernel_size, stride)


def pad_like_tensorflow(side: int, kernel_size: int, stride: int) -> tuple[int, int]:
    """Returns the zeros before and after a side that give ceil(side / stride) positions; an odd one stands after it."""
    positions = -(-side // stride)
    total = max((positions - 1) * stride + kernel_size - side, 0)
    return total // 2, total - total // 2


def divide_size(size: Size, stride: int) -> Size:
    """Returns the size behind a convolution with either padding: each side divided by the stride, rounded up."""
    return -(-size[0] // stride), -(-size[1] // stride)


VARIANTS = {
    "test": partial(EfficientNet, width_multiplier=0.25, blocks=(1, 1), padding="symmetric"),
    "B0": partial(EfficientNet, width_multiplier=1.0, blocks=(1, 2, 2, 3, 3, 4, 1), padding="symmetric"),
    "B1": partial(
        EfficientNet, width_multiplier=1.0, blocks=(2, 3, 3, 4, 4, 5, 2), padding="symmetric", image_size=240
    ),
    "B2": partial(
        EfficientNet, width_multiplier=1.1, blocks=(2, 3, 3, 4, 4, 5, 2), padding="symmetric", image_size=260
    ),
    "B3": partial(
        EfficientNet, width_multiplier=1.2, blocks=(2, 3, 3, 5, 5, 6, 2), padding="symmetric", image_size=300
    ),
    "B4": partial(
        EfficientNet, width_multiplier=1.4, blocks=(2, 4, 4, 6, 6, 8, 2), padding="symmetric", image_size=380
    ),
    "B5": partial(
        EfficientNet, width_multiplier=1.6, blocks=(3, 5, 5, 7, 7, 9, 3), padding="symmetric", image_size=456
    ),
    "B6": partial(
        EfficientNet, width_multiplier=1.8, blocks=(3, 6, 6, 8, 8, 11, 3), padding="symmetric", image_size=528
    ),
    "B7": partial(
        EfficientNet, width_multiplier=2.0, blocks=(4, 7, 7, 10, 10, 13, 4), padding="symmetric", image_size=600
    ),
}
SUFFIXES = {"tf": {"padding": "same", "epsilon": 1e-3}}
CUTS = {"stages/*": (), "stages/*/blocks/*": ()}
