"""ResNet for photographs: a stem of 7x7, max pooling, four stages of residual blocks, global average pooling, a head.

Papers: He et al., Deep Residual Learning for Image Recognition, CVPR 2016, arXiv:1512.03385, table 1 (18 to 152; the
shortcut is option B, a projection where the shape changes); Zagoruyko and Komodakis, arXiv:1605.07146 (`-wide2`: twice
the inner width); Xie et al., arXiv:1611.05431 (ResNeXt; `-32x4d`: 32 groups of 4 channels).
Departs from it: "v1.5", the default as in torchvision, halves the image in the 3x3 convolution of a bottleneck; the
paper, `-v1`, in the 1x1 before it, which reads every fourth pixel only: as many parameters, fewer MACs. Networks of
two-convolution blocks (18, 34) are the same in both. ResNet-26 is timm's: bottlenecks, two a stage.
Beside torchvision: epsilon 1e-5 and momentum (0.1 there, 0.9 as counted here) are the same. Its running variance is the
unbiased one, ours the biased. Its initial kernels are He's normal of the outputs (fan_out), ours the paper's, of the
inputs. Its head's initial values are uniform up to 1/sqrt(D), ours normal with standard deviation 1/sqrt(D).

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
from cnn_vit.models import cut_stages, height_and_width, require_at_least
from cnn_vit.nn.conv import Conv
from cnn_vit.nn.dense import Dense
from cnn_vit.nn.norm import BatchNorm
from cnn_vit.nn.pool import max_pool


class ResNet(nnx.Module):
    """Scores each image for each class.

    Args:
        num_classes: classes.
        blocks: residual blocks of each stage, first to last; a stage doubles the filters and, except for the first,
            halves the image.
        bottleneck: whether a block is 1x1, 3x3, 1x1 and four times as wide at its end, or 3x3, 3x3.
        version: v1.5 puts a bottleneck's stride on its 3x3 convolution, v1 on the first 1x1.
        filters: filters of the stem and of the first stage.
        groups: channel groups of a bottleneck's 3x3 convolution that do not see each other.
        group_width: width of one such group in the first stage, where the stage has 64 filters.
        zero_last: whether the last norm's scale of each block starts at 0, so that a block first hands its input on
            (arXiv:1706.02677, section 5.1); the paper and torchvision's default start at 1.
        cut: path of the stage or block that is kept last, such as stages/1 or stages/1/blocks/0; the head stands on the
            average over its pixels.
        channels: colors of an image.
        image_size: side in pixels, or (height, width); any will do, since the last stage is averaged.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        blocks: tuple[int, ...],
        bottleneck: bool,
        version: Literal["v1.5", "v1"] = "v1.5",
        filters: int = 64,
        groups: int = 1,
        group_width: int = 64,
        zero_last: bool = False,
        cut: str | None = None,
        channels: int = 3,
        image_size: int | tuple[int, int] = 224,
    ):
        require_at_least(1, blocks=blocks, filters=filters, groups=groups, group_width=group_width)
        height_and_width(image_size)  # only checked: no parameter depends on it
        if not blocks:
            raise UserError("model.blocks=() names no stage; give one number per stage")
        if not bottleneck and (groups, group_width) != (1, 64):
            raise UserError("model.groups and group_width belong to bottlenecks; this network has none, resnet/50 has")
        if filters * group_width < 64:
            raise UserError(f"model.filters={filters} x group_width={group_width} is below 64: no channel is left")
        block: partial  # makes a block of (in_channels, out_channels, *, stride)
        if bottleneck:
            expansion = 4
            block = partial(Bottleneck, groups=groups, group_width=group_width, version=version, zero_last=zero_last)
        else:
            expansion = 1
            block = partial(Basic, zero_last=zero_last)
        # No convolution here has a bias: the batch norm behind it subtracts the mean, and adds a bias of its own.
        self.stem = Conv(channels, filters, 7, stride=2, padding=3, bias=False)
        self.stem_norm = BatchNorm(filters)
        stages = []
        in_channels = filters
        for i, count in enumerate(cut_stages(cut, blocks)):
            out_channels = filters * 2**i * expansion
            stride = 1 if i == 0 else 2  # the max pooling before the first stage has halved the image already
            stages.append(Stage(block, in_channels, out_channels, blocks=count, stride=stride))
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
        x = jax.nn.relu(self.stem_norm(x, train=train))
        x = max_pool(x, 3, stride=2, padding=1)
        for stage in self.stages:
            x = stage(x, train=train)
        return x.mean((1, 2))


class Stage(nnx.Module):
    """Blocks of one width; the first has the stride. `make_block` is Basic or Bottleneck with keywords of their own."""

    def __init__(self, make_block: partial, in_channels: int, out_channels: int, *, blocks: int, stride: int):
        first = make_block(in_channels, out_channels, stride=stride)
        rest = [make_block(out_channels, out_channels, stride=1) for _ in range(blocks - 1)]
        self.blocks = nnx.List([first, *rest])

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:  # (B, H, W, I) -> (B, Y, X, O)
        for block in self.blocks:
            x = block(x, train=train)
        return x


class Basic(nnx.Module):
    """Two 3x3 convolutions, whose output is added to their input."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, zero_last: bool):
        self.conv1 = Conv(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.norm1 = BatchNorm(out_channels)
        self.conv2 = Conv(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = BatchNorm(out_channels, initializer="zeros" if zero_last else "ones")
        self.shortcut = make_shortcut(in_channels, out_channels, stride)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:  # (B, H, W, I) -> (B, Y, X, O)
        y = jax.nn.relu(self.norm1(self.conv1(x), train=train))
        y = self.norm2(self.conv2(y), train=train)
        shortcut = x if self.shortcut is None else self.shortcut(x, train=train)
        return jax.nn.relu(y + shortcut)


class Bottleneck(nnx.Module):
    """1x1 to the inner width, 3x3, 1x1 to four times the stage's filters; the output is added to the input."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int,
        zero_last: bool,
        groups: int,
        group_width: int,
        version: str,
    ):
        # The width of all groups together; a stage of 64 filters, the first in the papers, has groups of `group_width`.
        inner = out_channels // 4 * group_width // 64 * groups
        stride1, stride2 = (stride, 1) if version == "v1" else (1, stride)
        self.conv1 = Conv(in_channels, inner, 1, stride=stride1, padding=0, bias=False)
        self.norm1 = BatchNorm(inner)
        self.conv2 = Conv(inner, inner, 3, stride=stride2, padding=1, groups=groups, bias=False)
        self.norm2 = BatchNorm(inner)
        self.conv3 = Conv(inner, out_channels, 1, padding=0, bias=False)
        self.norm3 = BatchNorm(out_channels, initializer="zeros" if zero_last else "ones")
        self.shortcut = make_shortcut(in_channels, out_channels, stride)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:  # (B, H, W, I) -> (B, Y, X, O)
        y = jax.nn.relu(self.norm1(self.conv1(x), train=train))
        y = jax.nn.relu(self.norm2(self.conv2(y), train=train))
        y = self.norm3(self.conv3(y), train=train)
        shortcut = x if self.shortcut is None else self.shortcut(x, train=train)
        return jax.nn.relu(y + shortcut)


class Projection(nnx.Module):
    """The shortcut where the shape changes (option B): a 1x1 convolution with the stride, and batch norm."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int):
        self.conv = Conv(in_channels, out_channels, 1, stride=stride, padding=0, bias=False)
        self.norm = BatchNorm(out_channels)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:  # (B, H, W, I) -> (B, Y, X, O)
        return self.norm(self.conv(x), train=train)


def make_shortcut(in_channels: int, out_channels: int, stride: int) -> Projection | None:
    """Makes the projection of a block that changes the shape; None where the input itself can be added."""
    if stride == 1 and in_channels == out_channels:
        return None
    return Projection(in_channels, out_channels, stride=stride)


VARIANTS = {
    "test": partial(ResNet, blocks=(1, 1, 1, 1), bottleneck=False, filters=8),
    "18": partial(ResNet, blocks=(2, 2, 2, 2), bottleneck=False),
    "26": partial(ResNet, blocks=(2, 2, 2, 2), bottleneck=True),
    "34": partial(ResNet, blocks=(3, 4, 6, 3), bottleneck=False),
    "50": partial(ResNet, blocks=(3, 4, 6, 3), bottleneck=True),
    "101": partial(ResNet, blocks=(3, 4, 23, 3), bottleneck=True),
    "152": partial(ResNet, blocks=(3, 8, 36, 3), bottleneck=True),
}
SUFFIXES = {
    "v1": {"version": "v1"},
    "wide2": {"group_width": 128},
    "32x4d": {"groups": 32, "group_width": 4},
    "32x8d": {"groups": 32, "group_width": 8},
    "64x4d": {"groups": 64, "group_width": 4},
}
CUTS = {"stages/*": (), "stages/*/blocks/*": ()}
