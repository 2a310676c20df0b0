"""The lecture's network: stages of convolutions with pooling between them, then dense layers or an average, a head.

Every dimension is a keyword, so that each claim about filters, strides, padding and pooling can be put to the test.

Source: the common pattern since LeCun et al. 1998; batch norm of arXiv:1502.03167, the average of arXiv:1312.4400.
An output side is floor((side + 2 * padding - kernel_size) / stride) + 1 behind a convolution and
floor((side - pool_size) / pool_size) + 1 behind a pooling: windows do not overlap (those of a blur do), and the odd
pixels at the right and bottom, which fill no window, are left out. Initial values are He's normal; the head's are
LeCun's.
With a mask, images of several sizes share a batch, and each gets the scores that it would get alone: what lies outside
an image is set to 0 before each convolution, and left out of the average.

Axes:
    B batch    H, W image height and width in pixels    C colors    I, O channels into and out of a stage
    Y, X height and width behind it    D features    K classes
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from cnn_vit.errors import UserError
from cnn_vit.models import (
    choose_place,
    feature_map_size,
    height_and_width,
    refuse_size,
    require_at_least,
    require_rates,
)
from cnn_vit.models.mlp import Hidden, hidden_places
from cnn_vit.nn.conv import Conv
from cnn_vit.nn.dense import Dense
from cnn_vit.nn.dropout import Dropout
from cnn_vit.nn.local import LocalConv
from cnn_vit.nn.masks import apply_mask, masked_mean, slide_mask
from cnn_vit.nn.norm import BatchNorm
from cnn_vit.nn.padding import ZERO, surround
from cnn_vit.nn.permutation import permute_pixels
from cnn_vit.nn.pool import average_pool, blur_pool, max_pool


class CNN(nnx.Module):
    """Scores each image for each class.

    Args:
        num_classes: classes.
        filters: filters of each stage, first to last.
        convolutions: convolutions of a stage; one number for all stages, or one each.
        kernel_size: side of a filter in pixels; for all stages, or one each.
        stride: pixels from one position of a stage's first convolution to the next (its others have 1); for all stages,
            or one each.
        padding: pixels on each side of a convolution's input; for all stages, or one each.
        padding_kind: what stands there; circular takes the pixels of the opposite side, reflect those inside, edge the
            outermost one again.
        sharing: whether a filter is the same everywhere; without, each place has filters and biases of its own (a
            locally connected network), and images have one size.
        pooling: what stands between two stages: the largest or the mean of each window, or the same without aliasing:
            blur takes a binomial mean of 2 * pool_size - 1 pixels, max_blur first the largest of each window at every
            pixel (arXiv:1904.11486).
        pool_size: side of a pooling window in pixels, and its stride.
        pool_last: whether the last stage is pooled too.
        batch_norm: whether each convolution is normalized over the batch (and then has no bias of its own).
        head: dense flattens the last stage, average takes the mean over its pixels.
        hidden: units of each dense layer between that and the scores; () for none.
        dropout: share of the values that is dropped in training before each dense layer, the head's too.
        permutation: number of a fixed permutation of the pixels, the same for all images; none leaves them in order.
        cut: path of the stage or dense layer that is kept last, such as stages/0 or hidden/layers/0; the head stands on
            the average over the stage's pixels, or on the dense layer.
        channels: colors of an image.
        image_size: side in pixels, or (height, width). Fixed where the head is dense; an average takes any larger one.
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
        padding_kind: Literal["zero", "circular", "reflect", "edge"] = "zero",
        sharing: bool = True,
        pooling: Literal["max", "average", "blur", "max_blur", "none"] = "max",
        pool_size: int = 2,
        pool_last: bool = False,
        batch_norm: bool = True,
        head: Literal["dense", "average"] = "dense",
        hidden: tuple[int, ...] = (),
        dropout: float = 0.0,
        permutation: int | None = None,
        cut: str | None = None,
        channels: int = 3,
        image_size: int | tuple[int, int] = 32,
    ):
        require_at_least(1, filters=filters, pool_size=pool_size)
        require_rates(dropout=dropout)
        if permutation is not None:
            require_at_least(0, permutation=permutation)
        stage_keywords = split_by_stage(
            len(filters), convolutions=convolutions, kernel_size=kernel_size, stride=stride, padding=padding
        )
        stages = []
        in_channels = channels
        map_size = height_and_width(image_size)
        for i, out_channels in enumerate(filters):
            # Pooling stands between stages; behind the last one only where it is asked for.
            is_last = i == len(filters) - 1
            is_pooled = pooling != "none" and (pool_last or not is_last)
            pool = pool_size if is_pooled else 1
            stage = Stage(
                in_channels,
                out_channels,
                **stage_keywords[i],
                padding_kind=padding_kind,
                map_size=None if sharing else map_size,
                batch_norm=batch_norm,
                pool=pool,
            )
            stages.append(stage)
            map_size = stage.output_side(map_size[0]), stage.output_side(map_size[1])
            in_channels = out_channels
        self.average = head == "average"
        if cut is not None:
            stages, hidden = choose_place(cut, list_places(stages, hidden))
            if cut.startswith("stages/"):
                self.average = True
        self.stages = nnx.List(stages)
        self.pooling = pooling
        self.sharing = sharing
        self.permutation = permutation
        self.image_size = height_and_width(image_size)
        map_height, map_width = feature_map_size(self.image_size, self.output_side)
        out_channels = filters[len(stages) - 1]
        features = out_channels if self.average else out_channels * map_height * map_width
        self.dropout = Dropout(dropout)
        self.hidden = Hidden(features, hidden, activation="relu", dropout=dropout)
        self.head = Dense(self.hidden.features, num_classes)

    def __call__(
        self, images: jax.Array, *, train: bool = False, rngs: nnx.Rngs | None = None, mask: jax.Array | None = None
    ) -> jax.Array:  # (B, H, W, C) -> (B, K)
        """Maps images, scaled by their data set's mean and standard deviation, to a float32 score for each class.

        `mask` (B, H, W) is True on the pixels of each image, a rectangle from the top left corner on.
        """
        x = self.features(images, train=train, rngs=rngs, mask=mask)  # (B, D)
        return self.head(x).astype(jnp.float32)

    def features(
        self, images: jax.Array, *, train: bool = False, rngs: nnx.Rngs | None = None, mask: jax.Array | None = None
    ) -> jax.Array:  # (B, H, W, C) -> (B, D)
        """Returns what the head sees: the last hidden layer, or the stages' pixels where there is none."""
        if mask is not None:
            self.refuse_mask(train=train)
        elif not self.average or not self.sharing:
            refuse_size(images, self.image_size)
        x = images if self.permutation is None else permute_pixels(images, self.permutation)
        for stage in self.stages:
            x = stage(x, pooling=self.pooling, train=train, mask=mask)
            # The next stage's pixels are fewer, and so are those of each image.
            if mask is not None:
                mask = stage.output_mask(mask)
        if mask is not None:
            x = masked_mean(x, mask)
        elif self.average:
            x = x.mean((1, 2))
        else:
            x = x.reshape(len(x), -1)
        x = self.dropout(x, train=train, rngs=rngs)
        return self.hidden(x, train=train, rngs=rngs)

    def refuse_mask(self, *, train: bool) -> None:
        """Raises UserError where the network would not tell the pixels of an image from what surrounds them."""
        if not self.average:
            raise UserError("a dense head has a weight for each pixel of one size; set model.head=average for a mask")
        if not self.sharing:
            raise UserError("a network without sharing has filters for one size of images; set model.sharing=true")
        if self.permutation is not None:
            raise UserError(
                "a permutation of the pixels would mix an image with what surrounds it; set model.permutation=none for "
                "a mask"
            )
        if self.stages[0].padding_kind != ZERO:
            raise UserError(
                f"{self.stages[0].padding_kind} padding would take what lies beside an image in a batch of several "
                "sizes; set model.padding_kind=zero for a mask"
            )
        if train and self.stages[0].norms:
            raise UserError(
                "batch norm takes its statistics over the padding too; set model.batch_norm=false to train with a mask"
            )

    @property
    def least_side(self) -> int:
        """The smallest side in pixels, of an image with a mask, of which the stages leave something."""
        return next(side for side in range(1, max(self.image_size) + 1) if self.output_side(side) >= 1)

    def output_side(self, side: int) -> int:
        """Returns the side in pixels that the stages leave of an image's; below 1 where they leave nothing."""
        for stage in self.stages:
            side = stage.output_side(side)
        return side


class Stage(nnx.Module):
    """Convolutions of one width, each followed by batch norm (if any) and a rectifier; then a pooling (if any).

    Args:
        in_channels: channels of the input.
        filters: channels of the output.
        convolutions: how many; the first has the stride, the others 1.
        kernel_size: side of a filter in pixels.
        stride: of the first convolution, in pixels.
        padding: pixels on each side.
        padding_kind: what stands there.
        map_size: height and width of the input, for filters that are not shared; None for shared ones.
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
        padding_kind: str,
        map_size: tuple[int, int] | None,
        batch_norm: bool,
        pool: int,
    ):
        self.kernel_size = kernel_size
        self.strides = (stride, *[1] * (convolutions - 1))
        self.padding = padding
        self.padding_kind = padding_kind
        self.pool = pool
        layers: list[Conv | LocalConv] = []
        # Batch norm subtracts the mean, so a bias before it would be lost.
        make_shared = partial(Conv, padding=padding, padding_kind=padding_kind, bias=not batch_norm)
        make_local = partial(LocalConv, padding=padding, padding_kind=padding_kind, bias=not batch_norm)
        for step in self.strides:
            if map_size is None:
                layers.append(make_shared(in_channels, filters, kernel_size, stride=step))
            else:
                layer = make_local(in_channels, filters, kernel_size, image_size=map_size, stride=step)
                layers.append(layer)
                map_size = layer.places
            in_channels = filters
        self.convolutions = nnx.List(layers)
        self.norms = nnx.List([BatchNorm(filters) for _ in range(convolutions if batch_norm else 0)])

    def __call__(
        self, x: jax.Array, *, pooling: str, train: bool, mask: jax.Array | None = None
    ) -> jax.Array:  # (B, H, W, I) -> (B, Y, X, O)
        for i, convolution in enumerate(self.convolutions):
            if mask is not None:
                # What norms and earlier filters left around an image must be the zeros of its padding again.
                x = apply_mask(x, mask)
                mask = self.convolve_mask(i, mask)
            x = convolution(x)
            if self.norms:
                x = self.norms[i](x, train=train)
            x = jax.nn.relu(x)
        return x if self.pool == 1 else self.pool_windows(x, pooling)

    def pool_windows(self, x: jax.Array, pooling: str) -> jax.Array:  # (B, H, W, C) -> (B, Y, X, C)
        """Makes one pixel of each window, by a kind of pooling."""
        if pooling == "max":
            return max_pool(x, self.pool, stride=self.pool, padding=0)
        if pooling == "average":
            return average_pool(x, self.pool, stride=self.pool, padding=0, count_padding=False)
        # These windows overlap, and the first reach over the border. They do so above and on the left alone: so there
        # are as many of them as of the other kinds, and none reads what lies behind an image with a mask.
        if pooling == "max_blur":
            x = self.max_everywhere(x)
        size = 2 * self.pool - 1
        return blur_pool(x, size, stride=self.pool, padding=self.edges, padding_kind=self.padding_kind)

    @property
    def edges(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """The padding of a filter that ends at the last pixel of its window, ((top, bottom), (left, right))."""
        return ((self.pool - 1, 0), (self.pool - 1, 0))

    def max_everywhere(self, x: jax.Array) -> jax.Array:  # (B, H, W, C) -> (B, H, W, C)
        """Takes the largest value of the window that ends at each pixel."""
        if self.padding_kind == ZERO:
            return max_pool(x, self.pool, stride=1, padding=self.edges)
        return max_pool(surround(x, self.edges, self.padding_kind), self.pool, stride=1, padding=0)

    def output_mask(self, mask: jax.Array) -> jax.Array:  # (B, H, W) -> (B, Y, X)
        """Returns the mask of the pixels that the stage leaves of each image."""
        for i in range(len(self.convolutions)):
            mask = self.convolve_mask(i, mask)
        if self.pool == 1:
            return mask
        return slide_mask(mask, self.pool, stride=self.pool, padding=0)

    def convolve_mask(self, i: int, mask: jax.Array) -> jax.Array:  # (B, H, W) -> (B, Y, X)
        """Returns the mask of the pixels that convolution i leaves of each image."""
        return slide_mask(mask, self.kernel_size, stride=self.strides[i], padding=self.padding)

    def output_side(self, side: int) -> int:
        """Returns the side in pixels that the stage leaves of a side."""
        for stride in self.strides:
            if side < 1:  # nothing is left; a later padding would make an image of zeros of it
                return 0
            side = (side + 2 * self.padding - self.kernel_size) // stride + 1
        return side // self.pool


def list_places(stages: list[Stage], hidden: tuple[int, ...]) -> dict[str, tuple[list[Stage], tuple[int, ...]]]:
    """Returns what each cut leaves of the stages and of the hidden layers, by the path of what is kept last."""
    places: dict[str, tuple[list[Stage], tuple[int, ...]]] = {}
    for i in range(len(stages)):
        places[f"stages/{i}"] = (stages[: i + 1], ())
    for path, layers in hidden_places(hidden).items():
        places[path] = (stages, layers)
    return places


def split_by_stage(stages: int, **keywords: int | tuple[int, ...]) -> list[dict[str, int]]:
    """Gives each stage its keywords, from numbers written once for all stages or as one for each stage.

    Raises:
        UserError: if there is no stage, if a number is too small, or if a tuple has not one number for each stage.
    """
    if stages == 0:
        raise UserError("model.filters=() names no stage; give one number per stage")
    by_stage: list[dict[str, int]] = [{} for _ in range(stages)]
    for key, value in keywords.items():
        require_at_least(0 if key == "padding" else 1, **{key: value})
        numbers = value if isinstance(value, tuple) else (value,) * stages
        if len(numbers) != stages:
            raise UserError(f"model.{key}={value} has {len(numbers)} numbers for {stages} stages; give one for each")
        for stage_keywords, number in zip(by_stage, numbers, strict=True):
            stage_keywords[key] = number
    return by_stage


VARIANTS = {
    "test": partial(CNN, filters=(8, 8)),
    "small": partial(CNN, filters=(16, 32), convolutions=2, head="average"),
    "lecture": partial(CNN, filters=(32, 64, 128), hidden=(128,)),  # 1,143,466 parameters at 32x32x3 and 10 classes
}
CUTS = {"stages/*": (), "hidden/layers/*": ()}
