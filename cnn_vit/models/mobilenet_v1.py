"""MobileNet for small devices: a convolution is split into one over pixels and one over channels.

A depthwise convolution filters each channel by itself, a pointwise one (1x1) mixes the channels of a pixel: together
about an eighth of the products of a 3x3 convolution. The variant is the width multiplier, the share of the paper's
filters in each layer.

Paper: Howard et al., MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications, 2017,
arXiv:1704.04861, Table 1.
Departs from it: the table's second last depthwise convolution halves the image, the last one, which it writes with
stride 2 at the same output size, does not. What the paper leaves open is as in Keras, whose weights fit: rectified
units end at 6, batch norm's epsilon is 1e-3, and a convolution that halves the image pads one zero at the right and
bottom only. Momentum is 0.9 (0.99 in Keras); nothing is dropped before the head, which is dense (a 1x1 convolution in
Keras); kernels start with He's normal.

Axes:
    B batch    H, W image height and width in pixels    C colors    S filters of the stem
    I, O channels into and out of a block    Y, X height and width behind it    D features    K classes
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from cnn_vit.errors import UserError
from cnn_vit.models import cut_stages, feature_map_size, require_at_least
from cnn_vit.nn.conv import Conv
from cnn_vit.nn.dense import Dense
from cnn_vit.nn.norm import BatchNorm

EPSILON = 1e-3  # of every batch norm, as in Keras; PyTorch's and Flax's is 1e-5


class MobileNet(nnx.Module):
    """Scores each image for each class.

    Args:
        num_classes: classes.
        width_multiplier: share of the paper's filters that each layer has (its alpha); above 0.
        blocks: blocks of each stage, first to last; a stage doubles the filters and, except for the first, halves the
            image.
        cut: path of the stage or block that is kept last, such as stages/1 or stages/1/blocks/0; the head stands on the
            average over its pixels.
        channels: colors of an image.
        image_size: side in pixels, or (height, width); any from 32 on for five stages, since the last one is averaged.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        width_multiplier: float = 1.0,
        blocks: tuple[int, ...] = (1, 2, 2, 6, 2),
        cut: str | None = None,
        channels: int = 3,
        image_size: int | tuple[int, int] = 224,
    ):
        require_at_least(1, blocks=blocks)
        if not blocks:
            raise UserError("model.blocks=() names no stage; give one number per stage")
        filters = int(32 * width_multiplier)  # rounded down, as in Keras
        if filters < 1:
            raise UserError(
                f"model.width_multiplier={width_multiplier} leaves no filter; make it at least 1/32 = 0.03125"
            )
        blocks = cut_stages(cut, blocks)
        # Only checked: no parameter depends on it.
        feature_map_size(image_size, partial(output_side, stages=len(blocks)))
        # No convolution here has a bias: the batch norm behind it subtracts the mean, and adds a bias of its own.
        self.stem = Conv(channels, filters, 3, stride=2, padding=padding_of_stride(2), bias=False)
        self.stem_norm = BatchNorm(filters, epsilon=EPSILON)
        stages = []
        in_channels = filters
        for i, count in enumerate(blocks):
            out_channels = int(32 * 2 ** (i + 1) * width_multiplier)
            stages.append(Stage(in_channels, out_channels, blocks=count, stride=1 if i == 0 else 2))
            in_channels = out_channels
        self.stages = nnx.List(stages)
        self.head = Dense(in_channels, num_classes)

    def __call__(
        self, images: jax.Array, *, train: bool = False, rngs: nnx.Rngs | None = None
    ) -> jax.Array:  # (B, H, W, C) -> (B, K)
        """Maps images, scaled by their data set's mean and standard deviation, to a float32 score for each class."""
        x = self.features(images, train=train, rngs=rngs)  # (B, D)
        return self.head(x).astype(jnp.float32)

    def features(
        self, images: jax.Array, *, train: bool = False, rngs: nnx.Rngs | None = None
    ) -> jax.Array:  # (B, H, W, C) -> (B, D)
        """Returns what the head sees: the average over the last stage's pixels, in the dtype of the images."""
        x = self.stem(images)  # (B, Y, X, S)
        x = jax.nn.relu6(self.stem_norm(x, train=train))
        for stage in self.stages:
            x = stage(x, train=train)
        return x.mean((1, 2))


class Stage(nnx.Module):
    """Blocks of one width; the first has the stride."""

    def __init__(self, in_channels: int, out_channels: int, *, blocks: int, stride: int):
        first = Block(in_channels, out_channels, stride=stride)
        rest = [Block(out_channels, out_channels, stride=1) for _ in range(blocks - 1)]
        self.blocks = nnx.List([first, *rest])

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:  # (B, H, W, I) -> (B, Y, X, O)
        for block in self.blocks:
            x = block(x, train=train)
        return x


class Block(nnx.Module):
    """A 3x3 filter for each channel by itself, then a 1x1 convolution, which mixes the channels of a pixel."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int):
        padding = padding_of_stride(stride)
        self.depthwise = Conv(
            in_channels, in_channels, 3, stride=stride, padding=padding, groups=in_channels, bias=False
        )
        self.depthwise_norm = BatchNorm(in_channels, epsilon=EPSILON)
        self.pointwise = Conv(in_channels, out_channels, 1, padding=0, bias=False)
        self.pointwise_norm = BatchNorm(out_channels, epsilon=EPSILON)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:  # (B, H, W, I) -> (B, Y, X, O)
        x = jax.nn.relu6(self.depthwise_norm(self.depthwise(x), train=train))
        return jax.nn.relu6(self.pointwise_norm(self.pointwise(x), train=train))


def padding_of_stride(stride: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns the zeros around the input of a 3x3 convolution, ((top, bottom), (left, right)) in pixels."""
    if stride == 1:
        return (1, 1), (1, 1)
    # As Keras' ZeroPadding2D there. It is TensorFlow's "SAME" of an even side; of an odd one "SAME" makes a pixel more.
    return (0, 1), (0, 1)


def output_side(side: int, *, stages: int) -> int:
    """Returns the side in pixels behind the last stage: the stem and all stages but the first halve it."""
    # Each makes (side + 1 - 3) // 2 + 1 = side // 2 pixels of a side.
    return side // 2**stages


VARIANTS = {
    "test": partial(MobileNet, width_multiplier=0.25, blocks=(1, 1)),
    "0.25": partial(MobileNet, width_multiplier=0.25),
    "0.5": partial(MobileNet, width_multiplier=0.5),
    "0.75": partial(MobileNet, width_multiplier=0.75),
    "1.0": partial(MobileNet, width_multiplier=1.0),
}
CUTS = {"stages/*": (), "stages/*/blocks/*": ()}
