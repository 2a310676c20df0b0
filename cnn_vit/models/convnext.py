"""ConvNeXt: a ResNet that takes over, one after another, the choices of Vision Transformers, and stays convolutional.

A block filters each channel by itself (7x7), as attention mixes tokens, and then passes each pixel through an MLP of
four times its channels. One norm and one activation a block; images shrink between the stages by convolutions whose
stride is their side.

Paper: Liu et al., A ConvNet for the 2020s, CVPR 2022, arXiv:2201.03545, section 2 and Table 9; sizes T, S, B, L, XL.
Smaller and larger ones, atto to nano and xxlarge, are those of timm.
Initial values follow Meta's code (facebookresearch/ConvNeXt): normal(0.02) kernels, biases 0, and `layer_scale` (the
paper's Layer Scale, arXiv:2103.17239) 1e-6, so that each block starts as almost the identity.
Departs from it: nothing is rescaled in the initial head. Stochastic depth rises linearly over all blocks, as there.

Axes:
    B batch    H, W image height and width in pixels    C colors    I, O channels into and out of a layer
    Y, X height and width behind it    F units in the middle of an MLP    D features    K classes
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from cnn_vit.errors import UserError
from cnn_vit.models import cut_stages, feature_map_size, require_at_least, require_rates
from cnn_vit.models.mlp import ACTIVATIONS
from cnn_vit.nn.conv import Conv
from cnn_vit.nn.dense import Dense
from cnn_vit.nn.dropout import StochasticDepth
from cnn_vit.nn.norm import LayerNorm
from cnn_vit.nn.values import declare

KERNELS = "normal(0.02)"  # PyTorch's `trunc_normal_` cuts it off at -2 and 2, a hundred standard deviations away


class ConvNeXt(nnx.Module):
    """Scores each image for each class.

    Args:
        num_classes: classes.
        blocks: blocks of each stage, first to last.
        widths: channels of each stage, first to last.
        kernel_size: side in pixels of the filters of single channels; odd.
        stochastic_depth: share of the examples that skip the last block in training; linearly less before.
        epsilon: added to the variance in each norm but the last.
        last_epsilon: added to the variance in the last norm; 1e-6 in Meta's code, 1e-12 in Hugging Face's.
        cut: path of the stage or block that is kept last, such as stages/1 or stages/1/blocks/0; the head stands on the
            average over its pixels, which gets a norm of its own.
        channels: colors of an image.
        image_size: side in pixels, or (height, width); any from 32 on for four stages, since the last one is averaged.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        blocks: tuple[int, ...] = (3, 3, 9, 3),
        widths: tuple[int, ...] = (96, 192, 384, 768),
        kernel_size: int = 7,
        stochastic_depth: float = 0.0,
        epsilon: float = 1e-6,
        last_epsilon: float = 1e-6,
        cut: str | None = None,
        channels: int = 3,
        image_size: int | tuple[int, int] = 224,
    ):
        require_at_least(1, blocks=blocks, widths=widths, kernel_size=kernel_size)
        require_rates(stochastic_depth=stochastic_depth)
        if not blocks or len(blocks) != len(widths):
            raise UserError(
                f"model.blocks={blocks} and model.widths={widths} do not name the same stages; give each one number "
                "per stage"
            )
        if kernel_size % 2 == 0:
            raise UserError(f"model.kernel_size={kernel_size} must be odd, so that an image keeps its size")
        for key, value in (("epsilon", epsilon), ("last_epsilon", last_epsilon)):
            if value <= 0:
                raise UserError(f"model.{key}={value} must be above 0")
        # 0 in the first block, rising linearly to `stochastic_depth` in the last; a network of one block never skips.
        total = sum(blocks)
        skip_rates = [stochastic_depth * i / max(total - 1, 1) for i in range(total)]
        kept = cut_stages(cut, blocks)
        # Only checked: no parameter depends on it.
        feature_map_size(image_size, partial(output_side, stages=len(kept)))
        self.stem = Conv(channels, widths[0], 4, stride=4, padding=0, initializer=KERNELS)
        self.stem_norm = LayerNorm(widths[0], epsilon=epsilon)
        stages = []
        first = 0  # block of a stage, counted through all stages
        in_channels = widths[0]
        for i, count in enumerate(kept):
            rates = skip_rates[first : first + count]
            make_block = partial(Block, widths[i], kernel_size=kernel_size, epsilon=epsilon)
            downsample = Downsample(in_channels, widths[i], epsilon=epsilon) if i > 0 else None
            stages.append(Stage(downsample, [make_block(stochastic_depth=rate) for rate in rates]))
            in_channels = widths[i]
            first += count
        self.stages = nnx.List(stages)
        self.norm = LayerNorm(in_channels, epsilon=last_epsilon)
        self.head = Dense(in_channels, num_classes, initializer=KERNELS)

    def __call__(
        self, images: jax.Array, *, train: bool = False, rngs: nnx.Rngs | None = None
    ) -> jax.Array:  # (B, H, W, C) -> (B, K)
        """Maps images, scaled by their data set's mean and standard deviation, to a float32 score for each class."""
        x = self.features(images, train=train, rngs=rngs)  # (B, D)
        return self.head(x).astype(jnp.float32)

    def features(
        self, images: jax.Array, *, train: bool = False, rngs: nnx.Rngs | None = None
    ) -> jax.Array:  # (B, H, W, C) -> (B, D)
        """Returns what the head sees: the normalized average over the last stage's pixels, in the images' dtype."""
        x = self.stem_norm(self.stem(images))  # (B, Y, X, O)
        for stage in self.stages:
            x = stage(x, train=train, rngs=rngs)
        return self.norm(x.mean((1, 2)))


class Stage(nnx.Module):
    """Blocks of one width, and what halves the image before them, which the first stage lacks."""

    def __init__(self, downsample: "Downsample | None", blocks: list["Block"]):
        self.downsample = downsample
        self.blocks = nnx.List(blocks)

    def __call__(
        self, x: jax.Array, *, train: bool, rngs: nnx.Rngs | None
    ) -> jax.Array:  # (B, H, W, I) -> (B, Y, X, O)
        if self.downsample is not None:
            x = self.downsample(x)  # (B, Y, X, O)
        for block in self.blocks:
            x = block(x, train=train, rngs=rngs)
        return x


class Downsample(nnx.Module):
    """A norm, and a convolution whose windows of 2x2 pixels do not overlap; an odd side loses its last pixel."""

    def __init__(self, in_channels: int, out_channels: int, *, epsilon: float):
        self.norm = LayerNorm(in_channels, epsilon=epsilon)
        self.conv = Conv(in_channels, out_channels, 2, stride=2, padding=0, initializer=KERNELS)

    def __call__(self, x: jax.Array) -> jax.Array:  # (B, H, W, I) -> (B, Y, X, O)
        return self.conv(self.norm(x))


class Block(nnx.Module):
    """A filter for each channel by itself, a norm, and an MLP on each pixel; its output is scaled and added."""

    def __init__(self, width: int, *, kernel_size: int, epsilon: float, stochastic_depth: float):
        # As many zeros on each side as the filter reaches beyond its middle.
        padding = kernel_size // 2
        self.depthwise = Conv(width, width, kernel_size, padding=padding, groups=width, initializer=KERNELS)
        self.norm = LayerNorm(width, epsilon=epsilon)
        self.dense1 = Dense(width, 4 * width, initializer=KERNELS)
        self.dense2 = Dense(4 * width, width, initializer=KERNELS)
        self.layer_scale = declare(nnx.Param, (width,), "constant(1e-6)")
        self.skip = StochasticDepth(stochastic_depth)

    def __call__(
        self, x: jax.Array, *, train: bool, rngs: nnx.Rngs | None
    ) -> jax.Array:  # (B, H, W, I) -> (B, H, W, I)
        y = self.norm(self.depthwise(x))  # (B, H, W, I)
        y = ACTIVATIONS["gelu"](self.dense1(y))  # (B, H, W, F)
        y = self.dense2(y) * self.layer_scale[...].astype(x.dtype)  # (B, H, W, I)
        return x + self.skip(y, train=train, rngs=rngs)


def output_side(side: int, *, stages: int) -> int:
    """Returns the side in pixels behind the last stage: the stem leaves a quarter, all stages but the first a half."""
    return side // 4 // 2 ** (stages - 1)


VARIANTS = {
    "test": partial(ConvNeXt, blocks=(1, 1), widths=(8, 16), kernel_size=3),
    "atto": partial(ConvNeXt, blocks=(2, 2, 6, 2), widths=(40, 80, 160, 320)),
    "femto": partial(ConvNeXt, blocks=(2, 2, 6, 2), widths=(48, 96, 192, 384)),
    "pico": partial(ConvNeXt, blocks=(2, 2, 6, 2), widths=(64, 128, 256, 512)),
    "nano": partial(ConvNeXt, blocks=(2, 2, 8, 2), widths=(80, 160, 320, 640)),
    "T": partial(ConvNeXt, blocks=(3, 3, 9, 3), widths=(96, 192, 384, 768), stochastic_depth=0.1),
    "S": partial(ConvNeXt, blocks=(3, 3, 27, 3), widths=(96, 192, 384, 768), stochastic_depth=0.4),
    "B": partial(ConvNeXt, blocks=(3, 3, 27, 3), widths=(128, 256, 512, 1024), stochastic_depth=0.5),
    "L": partial(ConvNeXt, blocks=(3, 3, 27, 3), widths=(192, 384, 768, 1536), stochastic_depth=0.5),
    "XL": partial(ConvNeXt, blocks=(3, 3, 27, 3), widths=(256, 512, 1024, 2048), stochastic_depth=0.5),
    "xxlarge": partial(ConvNeXt, blocks=(3, 4, 30, 3), widths=(384, 768, 1536, 3072), epsilon=1e-5, last_epsilon=1e-5),
}
# The last norm of the whole network scales the channels of the last stage.
CUTS = {"stages/*": ("norm",), "stages/*/blocks/*": ("norm",)}
