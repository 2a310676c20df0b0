"""ResNet for photographs: a stem of 7x7, a max-pooling, four stages of residual blocks, an average, a head.

Papers: He et al., Deep Residual Learning for Image Recognition, CVPR 2016, arXiv:1512.03385, table 1 (18 to 152; the
shortcut is option B, a projection where the shape changes); Zagoruyko and Komodakis, arXiv:1605.07146 (`-wide2`: twice
the inner width); Xie et al., arXiv:1611.05431 (`-32x4d`: ResNeXt, 32 groups of 4).
Departs from it: "v1.5", the default as in torchvision, halves the image in the 3x3 convolution of a bottleneck; the
paper, `-v1`, in the 1x1 before it, which reads every fourth pixel only: as many parameters, fewer products. Networks of
two-convolution blocks (18, 34) are the same in both. ResNet-26 is timm's: bottlenecks, two a stage.
Beside torchvision: epsilon 1e-5 and momentum (0.1 there, 0.9 as counted here) are the same; its running variance is the
unbiased one, ours the biased; its first kernels are He's normal of the outputs (fan_out), ours the paper's, of the
inputs; its head's first values are uniform up to 1/sqrt(D), ours normal with deviation 1/sqrt(D).

Axes:
    B batch    H, W image sides in pixels    C colors    S filters of the stem
    I, O channels into and out of a block    D features    K classes
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from cnn_vit.errors import UserError
from cnn_vit.models import height_and_width, require_at_least
from cnn_vit.nn.conv import Conv
from cnn_vit.nn.dense import Dense
from cnn_vit.nn.norm import BatchNorm
from cnn_vit.nn.pool import max_pool


class ResNet(nnx.Module):
    """Scores each image for each class.

    Args:
        num_classes: classes.
        blocks: residual blocks of each stage, first to last; a stage doubles the filters and, but for the first,
            halves the image.
        bottleneck: whether a block is 1x1, 3x3, 1x1 and four times as wide at its end, or 3x3, 3x3.
        version: v1.5 puts a bottleneck's stride on its 3x3 convolution, v1 on the first 1x1.
        filters: filters of the stem and of the first stage.
        groups: channel groups of a bottleneck's 3x3 convolution that do not see each other.
        group_width: width of one such group in the first stage, where the stage has 64 filters.
        zero_last: whether the last norm's scale of each block starts at 0, so that a block first hands its input on
            (arXiv:1706.02677, section 5.1); the paper and torchvision's default start at 1.
        channels: colors of an image.
        image_size: side in pixels, or (height, width); any, the average does not mind.
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
        channels: int = 3,
        image_size: int | tuple[int, int] = 224,
    ):
        require_at_least(1, blocks=blocks, filters=filters, groups=groups, group_width=group_width)
        height_and_width(image_size)
        if not blocks:
            raise UserError("model.blocks=() names no stage; give one number per stage")
        if not bottleneck and (groups, group_width) != (1, 64):
            raise UserError("model.groups and group_width belong to bottlenecks; this network has none, resnet/50 has")
        if filters * group_width < 64:
            raise UserError(f"model.filters={filters} x group_width={group_width} is below 64: no channel is left")
        self.stem = Conv(channels, filters, 7, stride=2, padding=3, bias=False)
        self.stem_norm = BatchNorm(filters)
        kind = partial(Bottleneck, groups=groups, group_width=group_width, version=version) if bottleneck else Basic
        given = [filters * 2**i * (4 if bottleneck else 1) for i in range(len(blocks))]
        stage = partial(Stage, partial(kind, zero_last=zero_last))
        self.stages = nnx.List(
            [
                stage(taken, out, blocks=count, stride=1 if i == 0 else 2)
                for i, (taken, out, count) in enumerate(zip([filters, *given], given, blocks, strict=False))
            ]
        )
        self.head = Dense(given[-1], num_classes)

    def __call__(
        self, images: jax.Array, *, train: bool = False, rngs: nnx.Rngs | None = None
    ) -> jax.Array:  # (B, H, W, C) -> (B, K)
        """Maps images, scaled by their data set's mean and standard deviation, to one unnormalized float32 score per class."""
        x = self.features(images, train=train, rngs=rngs)  # (B, D)
        return self.head(x).astype(jnp.float32)

    def features(
        self, images: jax.Array, *, train: bool = False, rngs: nnx.Rngs | None = None
    ) -> jax.Array:  # (B, H, W, C) -> (B, D)
        """What the head sees: the average over the last stage's pixels, in the dtype of the images."""
        x = self.stem(images)  # (B, Y, X, S)
        x = jax.nn.relu(self.stem_norm(x, train=train))
        x = max_pool(x, 3, stride=2, padding=1)
        for stage in self.stages:
            x = stage(x, train=train)
        return x.mean((1, 2))


class Stage(nnx.Module):
    """Blocks of one width; the first has the stride."""

    def __init__(self, kind: partial, in_channels: int, out_channels: int, *, blocks: int, stride: int):
        first = kind(in_channels, out_channels, stride=stride)
        self.blocks = nnx.List([first, *(kind(out_channels, out_channels, stride=1) for _ in range(blocks - 1))])

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:  # (B, H, W, I) -> (B, Y, X, O)
        for block in self.blocks:
            x = block(x, train=train)
        return x


class Basic(nnx.Module):
    """Two 3x3 convolutions, added to what they were given."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, zero_last: bool):
        self.conv1 = Conv(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.norm1 = BatchNorm(out_channels)
        self.conv2 = Conv(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = BatchNorm(out_channels, initializer="zeros" if zero_last else "ones")
        self.shortcut = shortcut(in_channels, out_channels, stride)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:  # (B, H, W, I) -> (B, Y, X, O)
        y = jax.nn.relu(self.norm1(self.conv1(x), train=train))
        y = self.norm2(self.conv2(y), train=train)
        return jax.nn.relu(y + (x if self.shortcut is None else self.shortcut(x, train=train)))


class Bottleneck(nnx.Module):
    """1x1 to the inner width, 3x3, 1x1 to four times the stage's filters, added to what they were given."""

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
        inner = out_channels // 4 * group_width // 64 * groups  # 64 is the first stage's filters in the papers
        first, second = (stride, 1) if version == "v1" else (1, stride)
        self.conv1 = Conv(in_channels, inner, 1, stride=first, padding=0, bias=False)
        self.norm1 = BatchNorm(inner)
        self.conv2 = Conv(inner, inner, 3, stride=second, padding=1, groups=groups, bias=False)
        self.norm2 = BatchNorm(inner)
        self.conv3 = Conv(inner, out_channels, 1, padding=0, bias=False)
        self.norm3 = BatchNorm(out_channels, initializer="zeros" if zero_last else "ones")
        self.shortcut = shortcut(in_channels, out_channels, stride)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:  # (B, H, W, I) -> (B, Y, X, O)
        y = jax.nn.relu(self.norm1(self.conv1(x), train=train))
        y = jax.nn.relu(self.norm2(self.conv2(y), train=train))
        y = self.norm3(self.conv3(y), train=train)
        return jax.nn.relu(y + (x if self.shortcut is None else self.shortcut(x, train=train)))


class Projection(nnx.Module):
    """The shortcut where the shape changes (option B): a 1x1 convolution with the stride, and batch norm."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int):
        self.conv = Conv(in_channels, out_channels, 1, stride=stride, padding=0, bias=False)
        self.norm = BatchNorm(out_channels)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:  # (B, H, W, I) -> (B, Y, X, O)
        return self.norm(self.conv(x), train=train)


def shortcut(in_channels: int, out_channels: int, stride: int) -> Projection | None:
    """A projection where the shape changes; None where the input itself fits."""
    return None if stride == 1 and in_channels == out_channels else Projection(in_channels, out_channels, stride=stride)


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
}
