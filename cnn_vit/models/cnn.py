"""The lecture's network: stages of convolutions with pooling between them, then dense layers or an average, a head.

Every dimension is a keyword, so that each claim about filters, strides, padding and pooling can be put to the test.

Source: the common pattern since LeCun et al. 1998; batch norm of arXiv:1502.03167, the average of arXiv:1312.4400.
An output side is floor((side + 2 * padding - kernel_size) / stride) + 1 behind a convolution and
floor((side - pool_size) / pool_size) + 1 behind a pooling: windows do not overlap, and the odd pixels at the right and
bottom, which fill no window, are left out. First values are He's normal; the head's are LeCun's.
With a mask each image gets the scores that it would get alone: it cuts before each convolution, and the average.

Axes:
    B batch    H, W image sides in pixels    C colors    I, O channels into and out of a stage
    D features    K classes
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from cnn_vit.errors import UserError
from cnn_vit.models import feature_map_size, height_and_width, refuse_size, require_at_least, require_rates
from cnn_vit.models.mlp import Hidden
from cnn_vit.nn.conv import Conv
from cnn_vit.nn.dense import Dense
from cnn_vit.nn.dropout import Dropout
from cnn_vit.nn.masks import apply_mask, masked_mean, slide_mask
from cnn_vit.nn.norm import BatchNorm
from cnn_vit.nn.pool import average_pool, max_pool


class CNN(nnx.Module):
    """Scores each image for each class.

    Args:
        num_classes: classes.
        filters: filters of each stage, first to last.
        convolutions: convolutions of a stage; one number for all stages, or one each.
        kernel_size: side of a filter in pixels; for all stages, or one each.
        stride: pixels between two places of a stage's first convolution (its others have 1); for all, or one each.
        padding: zeros on each side of a convolution's input in pixels; for all stages, or one each.
        pooling: what stands between two stages.
        pool_size: side of a pooling window in pixels, and its stride.
        pool_last: whether the last stage is pooled too.
        batch_norm: whether each convolution is normalized over the batch (and then has no bias of its own).
        head: dense flattens the last stage, average takes the mean over its pixels.
        hidden: units of each dense layer between that and the scores; () for none.
        dropout: share of the values dropped in training before each dense layer, the head's too.
        channels: colors of an image.
        image_size: side in pixels, or (height, width). Fixed where the head is dense; the average minds no larger one.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        filters: tuple[int, ...],
        convolutions: int | tuple[int, ...] = 1,
        kernel_size: int | tuple[int, ...] = 3,
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] = 1,
        pooling: Literal["max", "average", "none"] = "max",
        pool_size: int = 2,
        pool_last: bool = False,
        batch_norm: bool = True,
        head: Literal["dense", "average"] = "dense",
        hidden: tuple[int, ...] = (),
        dropout: float = 0.0,
        channels: int = 3,
        image_size: int | tuple[int, int] = 32,
    ):
        require_at_least(1, filters=filters, pool_size=pool_size)
        require_rates(dropout=dropout)
        plan = per_stage(
            len(filters), convolutions=convolutions, kernel_size=kernel_size, stride=stride, padding=padding
        )
        pooled = [pooling != "none" and (pool_last or i < len(filters) - 1) for i in range(len(filters))]
        taken = (channels, *filters[:-1])
        self.stages = nnx.List(
            [
                Stage(taken[i], filters[i], **plan[i], batch_norm=batch_norm, pool=pool_size if pooled[i] else 1)
                for i in range(len(filters))
            ]
        )
        self.pooling, self.average, self.image_size = pooling, head == "average", height_and_width(image_size)
        height, width = feature_map_size(self.image_size, self.side_after)
        features = filters[-1] * (1 if self.average else height * width)
        self.dropout = Dropout(dropout)
        self.hidden = Hidden(features, hidden, activation="relu", dropout=dropout)
        self.head = Dense(self.hidden.features, num_classes)

    def __call__(
        self, images: jax.Array, *, train: bool = False, rngs: nnx.Rngs | None = None, mask: jax.Array | None = None
    ) -> jax.Array:  # (B, H, W, C) -> (B, K)
        """Maps images, scaled by their data set's mean and standard deviation, to one unnormalized float32 score per class.

        `mask` (B, H, W) is True on the pixels of each image, a rectangle from the top left corner on.
        """
        x = self.features(images, train=train, rngs=rngs, mask=mask)  # (B, D)
        return self.head(x).astype(jnp.float32)

    def features(
        self, images: jax.Array, *, train: bool = False, rngs: nnx.Rngs | None = None, mask: jax.Array | None = None
    ) -> jax.Array:  # (B, H, W, C) -> (B, D)
        """What the head sees: the last hidden layer, or the stages' pixels where there is none."""
        if mask is not None:
            self.refuse_mask(train=train)
        elif not self.average:
            refuse_size(images, self.image_size)
        x = images
        for stage in self.stages:
            x = stage(x, pooling=self.pooling, train=train, mask=mask)
            mask = None if mask is None else stage.mask_after(mask)
        if mask is not None:
            x = masked_mean(x, mask)
        elif self.average:
            x = x.mean((1, 2))
        else:
            x = x.reshape(len(x), -1)
        x = self.dropout(x, train=train, rngs=rngs)
        return self.hidden(x, train=train, rngs=rngs)

    def refuse_mask(self, *, train: bool) -> None:
        """Raises UserError where images of several sizes cannot be told from what surrounds them."""
        if not self.average:
            raise UserError("a dense head has a weight for each pixel of one size; set model.head=average for a mask")
        if train and self.stages[0].norms:
            raise UserError(
                "batch norm takes its statistics over the padding too; set model.batch_norm=false to train with a mask"
            )

    @property
    def least_side(self) -> int:
        """The smallest side in pixels, of an image in a mask, that the stages leave something of."""
        return next(side for side in range(1, max(self.image_size) + 1) if self.side_after(side) >= 1)

    def side_after(self, side: int) -> int:
        """Side in pixels that the stages leave of an image's; below 1 where they leave nothing."""
        for stage in self.stages:
            side = stage.side_after(side)
        return side


class Stage(nnx.Module):
    """Convolutions of one width, each followed by batch norm (if any) and a rectifier; then a pooling (if any).

    Args:
        in_channels: channels taken.
        filters: channels given.
        convolutions: how many; the first has the stride, the others 1.
        kernel_size: side of a filter in pixels.
        stride: of the first convolution, in pixels.
        padding: zeros on each side in pixels.
        batch_norm: whether each convolution is normalized.
        pool: side of the pooling window in pixels; 1 for none.
    """

    def __init__(
        self,
        in_channels: int,
        filters: int,
        *,
        convolutions: int,
        kernel_size: int,
        stride: int,
        padding: int,
        batch_norm: bool,
        pool: int,
    ):
        layers = [
            Conv(
                in_channels if i == 0 else filters,
                filters,
                kernel_size,
                stride=stride if i == 0 else 1,
                padding=padding,
                bias=not batch_norm,
            )
            for i in range(convolutions)
        ]
        self.convolutions = nnx.List(layers)
        self.norms = nnx.List([BatchNorm(filters) for _ in range(convolutions if batch_norm else 0)])
        self.kernel_size, self.stride, self.padding, self.pool = kernel_size, stride, padding, pool

    def __call__(
        self, x: jax.Array, *, pooling: str, train: bool, mask: jax.Array | None = None
    ) -> jax.Array:  # (B, H, W, I) -> (B, Y, X, O)
        for i, convolution in enumerate(self.convolutions):
            if mask is not None:
                x, mask = apply_mask(x, mask), self.inside(i, mask)
            x = convolution(x)
            if self.norms:
                x = self.norms[i](x, train=train)
            x = jax.nn.relu(x)
        if self.pool == 1:
            return x
        if pooling == "max":
            return max_pool(x, self.pool, stride=self.pool, padding=0)
        return average_pool(x, self.pool, stride=self.pool, padding=0, count_padding=False)

    def inside(self, i: int, mask: jax.Array) -> jax.Array:  # (B, H, W) -> (B, Y, X)
        """The pixels that convolution i leaves of each image."""
        return slide_mask(mask, self.kernel_size, stride=self.stride if i == 0 else 1, padding=self.padding)

    def mask_after(self, mask: jax.Array) -> jax.Array:  # (B, H, W) -> (B, Y, X)
        """The pixels that the stage leaves of each image."""
        for i in range(len(self.convolutions)):
            mask = self.inside(i, mask)
        return mask if self.pool == 1 else slide_mask(mask, self.pool, stride=self.pool, padding=0)

    def side_after(self, side: int) -> int:
        """Side in pixels that the stage leaves of a side."""
        for i in range(len(self.convolutions)):
            if side < 1:  # padding alone makes no image
                return 0
            side = (side + 2 * self.padding - self.kernel_size) // (self.stride if i == 0 else 1) + 1
        return side // self.pool


def per_stage(stages: int, **keywords: int | tuple[int, ...]) -> list[dict[str, int]]:
    """The keywords of each stage, of numbers said once for all stages or one for each."""
    if stages == 0:
        raise UserError("model.filters=() names no stage; give one number per stage")
    for key, value in keywords.items():
        require_at_least(0 if key == "padding" else 1, **{key: value})
        if isinstance(value, tuple) and len(value) != stages:
            raise UserError(f"model.{key}={value} has {len(value)} numbers for {stages} stages; give one for each")
    return [
        {key: value[i] if isinstance(value, tuple) else value for key, value in keywords.items()} for i in range(stages)
    ]


VARIANTS = {
    "test": partial(CNN, filters=(8, 8)),
    "small": partial(CNN, filters=(16, 32), convolutions=2, head="average"),
    "lecture": partial(CNN, filters=(32, 64, 128), hidden=(128,)),  # 1,143,466 parameters at 32x32x3 and 10 classes
}
