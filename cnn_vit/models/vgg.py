"""VGG: 3x3 convolutions in stages, each of which ends with a pooling that halves the image, then three dense layers.

Paper: Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015,
arXiv:1409.1556, table 1: 11, 13, 16 and 19 are its columns A, B, D and E. `-bn`, with batch norm, came later.
Departs from it: the first dense layer, which the paper sees 7x7 pixels of a 224x224 image, sees 7x7 of any image, as in
torchvision: averages over windows that may overlap bring the pixels to that size. timm does the same with fewer than
7x7 pixels; with more it moves the layer over them and averages what the second dense layer makes of each place, as the
paper's section 3.2 does for scores. `larger_map` says which.
Beside torchvision: convolutions keep their bias under batch norm, as there. Its running variance is the unbiased one,
ours the biased. Its initial kernels are He's normal of the outputs (fan_out), ours of the inputs; those of its dense
layers are normal with a standard deviation of 0.01, ours He's, and the head's 1/sqrt(D).

Axes:
    B batch    H, W image height and width in pixels    C colors    I, O channels into and out of a layer
    Y, X height and width behind it    D features    K classes
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from cnn_vit.errors import UserError
from cnn_vit.models import choose_place, feature_map_size, require_at_least, require_rates
from cnn_vit.nn.conv import Conv, WindowDense
from cnn_vit.nn.dense import Dense
from cnn_vit.nn.dropout import Dropout
from cnn_vit.nn.norm import BatchNorm
from cnn_vit.nn.pool import adaptive_average_pool, max_pool

FIELD = 7  # pixels a side that the first dense layer sees


class VGG(nnx.Module):
    """Scores each image for each class.

    Args:
        num_classes: classes.
        convolutions: convolutions of each stage, first to last.
        filters: filters of each stage.
        hidden: units of the two dense layers in front of the head.
        batch_norm: whether each convolution is normalized over the batch.
        larger_map: what becomes of more than 7x7 pixels behind the stages: pool averages them to 7x7, slide moves the
            dense layers over them and averages.
        dropout: share of the values that is dropped in training behind each of the two dense layers.
        cut: path of the stage or dense layer that is kept last, such as stages/1 or dense1; the head stands on the
            average over the stage's pixels, or on the dense layer.
        channels: colors of an image.
        image_size: side in pixels, or (height, width); any from 32 on for five stages.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        convolutions: tuple[int, ...],
        filters: tuple[int, ...] = (64, 128, 256, 512, 512),
        hidden: tuple[int, int] = (4096, 4096),
        batch_norm: bool = False,
        larger_map: Literal["pool", "slide"] = "pool",
        dropout: float = 0.5,
        cut: str | None = None,
        channels: int = 3,
        image_size: int | tuple[int, int] = 224,
    ):
        require_at_least(1, convolutions=convolutions, filters=filters, hidden=hidden)
        require_rates(dropout=dropout)
        if not convolutions or len(convolutions) != len(filters):
            raise UserError(
                f"model.convolutions={convolutions} and model.filters={filters} must have one number for each stage"
            )
        last_stage, dense_layers = choose_place(cut or "dense2", list_places(len(convolutions)))
        stages = []
        in_channels = channels
        for i in range(last_stage + 1):
            stages.append(Stage(in_channels, filters[i], convolutions=convolutions[i], batch_norm=batch_norm))
            in_channels = filters[i]
        self.stages = nnx.List(stages)
        # Only checked: no parameter depends on it. A pooling halves a side, an odd one is rounded down.
        feature_map_size(image_size, lambda side: side // 2 ** len(stages))
        self.dense1 = WindowDense(in_channels, hidden[0], FIELD) if dense_layers >= 1 else None
        self.dense2 = Dense(*hidden, initializer="he_normal") if dense_layers >= 2 else None
        self.larger_map = larger_map
        self.dropout = Dropout(dropout)
        self.head = Dense((in_channels, *hidden)[dense_layers], num_classes)

    def __call__(
        self, images: jax.Array, *, train: bool = False, rngs: nnx.Rngs | None = None
    ) -> jax.Array:  # (B, H, W, C) -> (B, K)
        """Maps images, scaled by their data set's mean and standard deviation, to a float32 score for each class."""
        x = self.features(images, train=train, rngs=rngs)  # (B, D)
        return self.head(x).astype(jnp.float32)

    def features(
        self, images: jax.Array, *, train: bool = False, rngs: nnx.Rngs | None = None
    ) -> jax.Array:  # (B, H, W, C) -> (B, D)
        """Returns what the head sees: the second dense layer, in the dtype of the images."""
        x = images
        for stage in self.stages:
            x = stage(x, train=train)
        if self.dense1 is None:
            return x.mean((1, 2))
        x = jax.nn.relu(self.dense1(self.fit_field(x)))  # (B, Y, X, O)
        if self.dense2 is not None:
            x = self.dropout(x, train=train, rngs=rngs)
            x = jax.nn.relu(self.dense2(x))
        return self.dropout(x.mean((1, 2)), train=train, rngs=rngs)

    def fit_field(self, x: jax.Array) -> jax.Array:  # (B, H, W, I) -> (B, Y, X, I)
        """Brings the pixels behind the stages to 7x7, or, where the first dense layer slides, to 7 a side at least."""
        height, width = x.shape[1:3]
        if self.larger_map == "slide":
            return adaptive_average_pool(x, (max(height, FIELD), max(width, FIELD)))
        return adaptive_average_pool(x, (FIELD, FIELD))


class Stage(nnx.Module):
    """Convolutions of 3x3, each followed by batch norm (if any) and a rectifier, then a max pooling of 2x2."""

    def __init__(self, in_channels: int, filters: int, *, convolutions: int, batch_norm: bool):
        layers = []
        for _ in range(convolutions):
            layers.append(Conv(in_channels, filters, 3, padding=1))
            in_channels = filters
        self.convolutions = nnx.List(layers)
        self.norms = nnx.List([BatchNorm(filters) for _ in range(convolutions if batch_norm else 0)])

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:  # (B, H, W, I) -> (B, Y, X, O)
        for i, convolution in enumerate(self.convolutions):
            x = convolution(x)
            if self.norms:
                x = self.norms[i](x, train=train)
            x = jax.nn.relu(x)
        return max_pool(x, 2, stride=2, padding=0)


def list_places(stages: int) -> dict[str, tuple[int, int]]:
    """Returns the last stage and the number of dense layers that each cut leaves, by the path of what is kept last."""
    places = {f"stages/{i}": (i, 0) for i in range(stages)}
    return places | {"dense1": (stages - 1, 1), "dense2": (stages - 1, 2)}


VARIANTS = {
    "test": partial(VGG, convolutions=(1, 1), filters=(8, 12), hidden=(16, 20), dropout=0.0),
    "11": partial(VGG, convolutions=(1, 1, 2, 2, 2)),
    "13": partial(VGG, convolutions=(2, 2, 2, 2, 2)),
    "16": partial(VGG, convolutions=(2, 2, 3, 3, 3)),
    "19": partial(VGG, convolutions=(2, 2, 4, 4, 4)),
}
SUFFIXES = {"bn": {"batch_norm": True}}
CUTS = {"stages/*": (), "dense1": (), "dense2": ()}
