"""ResNet for small images: a stem, three stages of residual blocks, global average pooling, a head.

A block learns what to add to its input. Where a stage halves the image it doubles the filters, so the work per layer
stays level.

Paper: He et al., Deep Residual Learning for Image Recognition, CVPR 2016, arXiv:1512.03385, section 4.2.
Departs from it: nothing; the shortcut is its option A (subsample, pad the filters with zeros), `-b` its option B (a 1x1
convolution and batch norm where the shape changes). The paper leaves open the momentum of batch norm (here 0.9) and the
head's initial values (here LeCun's normal). "8", one block a stage, is our own, for images of 8 pixels and the like.
Without shortcuts (`shortcut="none"`) it is the plain network that the paper compares it with.

Axes:
    B batch    H, W image height and width in pixels    C colors    S filters of the stem
    I, O channels into and out of a block    Y, X height and width behind it    D features    K classes
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from cnn_vit.models import cut_stages, height_and_width, require_at_least
from cnn_vit.nn.conv import Conv
from cnn_vit.nn.dense import Dense
from cnn_vit.nn.norm import BatchNorm


class ResNet(nnx.Module):
    """Scores each image for each class.

    Args:
        num_classes: classes.
        blocks: residual blocks per stage; the network is 6 * blocks + 2 layers deep.
        filters: filters of the stem and of the first stage.
        shortcut: what takes the input past a block that changes its shape; pad is option A, projection option B; with
            none no block adds its input, whether it changes its shape or not.
        cut: path of the stage or block that is kept last, such as stages/1 or stages/1/blocks/0; the head stands on the
            average over its pixels.
        channels: colors of an image.
        image_size: side in pixels, or (height, width); any will do, since the last stage is averaged.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        blocks: int,
        filters: int = 16,
        shortcut: Literal["pad", "projection", "none"] = "pad",
        cut: str | None = None,
        channels: int = 3,
        image_size: int | tuple[int, int] = 32,
    ):
        require_at_least(1, blocks=blocks, filters=filters)
        height_and_width(image_size)  # only checked: no parameter depends on it
        # No convolution here has a bias: the batch norm behind it subtracts the mean, and adds a bias of its own.
        self.stem = Conv(channels, filters, 3, padding=1, bias=False)
        self.stem_norm = BatchNorm(filters)
        stages = []
        in_channels = filters
        for i, count in enumerate(cut_stages(cut, (blocks, blocks, blocks))):
            out_channels = filters * 2**i
            stages.append(Stage(in_channels, out_channels, count, shortcut=shortcut))
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
        x = self.stem(images)  # (B, H, W, S)
        x = jax.nn.relu(self.stem_norm(x, train=train))
        for stage in self.stages:
            x = stage(x, train=train)
        return x.mean((1, 2))


class Stage(nnx.Module):
    """Blocks with the same number of filters; the first halves the image where that number changes."""

    def __init__(self, in_channels: int, filters: int, blocks: int, *, shortcut: str):
        first_stride = 1 if in_channels == filters else 2
        first = Block(in_channels, filters, stride=first_stride, shortcut=shortcut)
        rest = [Block(filters, filters, stride=1, shortcut=shortcut) for _ in range(blocks - 1)]
        self.blocks = nnx.List([first, *rest])

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:  # (B, H, W, I) -> (B, Y, X, O)
        for block in self.blocks:
            x = block(x, train=train)
        return x


class Block(nnx.Module):
    """Two 3x3 convolutions, whose output is added to their input where there are shortcuts."""

    def __init__(self, in_channels: int, filters: int, *, stride: int, shortcut: str):
        self.conv1 = Conv(in_channels, filters, 3, stride=stride, padding=1, bias=False)
        self.norm1 = BatchNorm(filters)
        self.conv2 = Conv(filters, filters, 3, padding=1, bias=False)
        self.norm2 = BatchNorm(filters)
        self.stride = stride
        self.adds_input = shortcut != "none"
        needs_projection = shortcut == "projection" and in_channels != filters
        self.projection = Projection(in_channels, filters, stride=stride) if needs_projection else None

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:  # (B, H, W, I) -> (B, Y, X, O)
        y = jax.nn.relu(self.norm1(self.conv1(x), train=train))
        y = self.norm2(self.conv2(y), train=train)
        if not self.adds_input:
            return jax.nn.relu(y)
        if self.projection is None:
            shortcut = self.pad_channels(x, filters=y.shape[-1])
        else:
            shortcut = self.projection(x, train=train)
        return jax.nn.relu(y + shortcut)  # rectified behind the addition, as in the paper

    def pad_channels(self, x: jax.Array, *, filters: int) -> jax.Array:  # (B, H, W, I) -> (B, Y, X, O)
        """Brings the input to the output's shape: one pixel per stride, zeros for the channels that it lacks."""
        missing = filters - x.shape[-1]  # 0 where the number of filters stays
        x = x[:, :: self.stride, :: self.stride]
        # Half of the zeros stand before the channels and half behind: the paper leaves their place open.
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (missing // 2, missing - missing // 2)))


class Projection(nnx.Module):
    """The shortcut of option B: a 1x1 convolution with the block's stride, and batch norm."""

    def __init__(self, in_channels: int, filters: int, *, stride: int):
        self.conv = Conv(in_channels, filters, 1, stride=stride, padding=0, bias=False)
        self.norm = BatchNorm(filters)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:  # (B, H, W, I) -> (B, Y, X, O)
        return self.norm(self.conv(x), train=train)


VARIANTS = {
    "test": partial(ResNet, blocks=1, filters=8),
    "8": partial(ResNet, blocks=1),
    "20": partial(ResNet, blocks=3),
    "32": partial(ResNet, blocks=5),
    "44": partial(ResNet, blocks=7),
    "56": partial(ResNet, blocks=9),
    "110": partial(ResNet, blocks=18),
    "1202": partial(ResNet, blocks=200),
}
SUFFIXES = {"b": {"shortcut": "projection"}}
CUTS = {"stages/*": (), "stages/*/blocks/*": ()}
