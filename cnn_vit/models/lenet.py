"""LeNet-5: two convolutions of 5x5, each followed by a 2x2 pooling, then three dense layers.

Paper: LeCun, Bottou, Bengio, Haffner, Gradient-based learning applied to document recognition, Proc. IEEE 86, 1998,
section II.B. This is the network that is called LeNet-5 today, 61,706 parameters, not the paper's 60,000.
Departs from it: C3 reads all six maps of S2 instead of the paper's table; the pooling learns nothing; the hyperbolic
tangent is not stretched; the last layer is dense, not a distance to fixed bitmaps; initial values are LeCun's normal
(He's where the activation is relu), not uniform. C5, a convolution of 5x5 over 5x5 pixels, is written as the dense
layer that it is.
"5" works on 32 pixels a side, as the paper does: MNIST's 28 get 2 zeros on each side. "5-valid" pads nothing.

Axes:
    B batch    H, W image height and width in pixels    C colors    O filters    D features    K classes
    Y, X height and width behind a pooling
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from cnn_vit.models import choose_place, feature_map_size, height_and_width, refuse_size, require_at_least
from cnn_vit.models.mlp import ACTIVATIONS, Hidden, hidden_places
from cnn_vit.nn.conv import Conv
from cnn_vit.nn.dense import Dense
from cnn_vit.nn.pool import average_pool, max_pool


class LeNet(nnx.Module):
    """Scores each image for each class.

    Args:
        num_classes: classes.
        filters: filters of the two convolutions.
        hidden: units of the dense layers between them and the scores.
        field: side in pixels to which zeros on each side bring a smaller image (the odd one behind); 0 for none.
        activation: what follows each convolution and each hidden dense layer.
        pooling: what a 2x2 window of pixels becomes.
        cut: path of the layer that is kept last, conv1, conv2 or one such as hidden/layers/0; the head stands on the
            average over the pixels behind the convolution's pooling, or on the dense layer.
        channels: colors of an image.
        image_size: side in pixels, or (height, width); at least 16 with the zeros, and fixed.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        filters: tuple[int, int] = (6, 16),
        hidden: tuple[int, ...] = (120, 84),
        field: int = 32,
        activation: Literal["tanh", "relu"] = "tanh",
        pooling: Literal["average", "max"] = "average",
        cut: str | None = None,
        channels: int = 3,
        image_size: int | tuple[int, int] = 32,
    ):
        require_at_least(1, filters=filters)
        require_at_least(0, field=field)
        self.activation = activation
        self.pooling = pooling
        self.image_size = height_and_width(image_size)
        pad_down, pad_across = (pad_to_field(side, field) for side in self.image_size)
        map_height, map_width = feature_map_size(self.image_size, partial(output_side, field=field))
        # He's values make up for the half that a rectifier sets to zero; tanh keeps both halves.
        initializer = "lecun_normal" if activation == "tanh" else "he_normal"
        self.conv1 = Conv(channels, filters[0], 5, padding=(pad_down, pad_across), initializer=initializer)
        self.conv2 = None if cut == "conv1" else Conv(filters[0], filters[1], 5, padding=0, initializer=initializer)
        if cut is not None:
            hidden = choose_place(cut, {"conv1": (), "conv2": (), **hidden_places(hidden)})
        self.average = cut in ("conv1", "conv2")
        if self.average:
            features = filters[0] if cut == "conv1" else filters[1]
        else:
            features = map_height * map_width * filters[1]
        self.hidden = Hidden(features, hidden, activation=activation, dropout=0.0)
        self.head = Dense(self.hidden.features, num_classes)

    def __call__(
        self, images: jax.Array, *, train: bool = False, rngs: nnx.Rngs | None = None
    ) -> jax.Array:  # (B, H, W, C) -> (B, K)
        """Maps images, scaled by their data set's mean and standard deviation, to a float32 score for each class."""
        x = self.features(images, train=train, rngs=rngs)  # (B, D)
        return self.head(x).astype(jnp.float32)

    def features(
        self, images: jax.Array, *, train: bool = False, rngs: nnx.Rngs | None = None
    ) -> jax.Array:  # (B, H, W, C) -> (B, D)
        """Returns what the head sees: the last hidden layer (F6), in the dtype of the images."""
        refuse_size(images, self.image_size)
        activate = ACTIVATIONS[self.activation]
        # The paper's names, and the pixels a side of its 32: a filter of 5 takes 4 pixels, a pooling half.
        x = self.pool(activate(self.conv1(images)))  # C1: 28, S2: 14
        if self.conv2 is not None:
            x = self.pool(activate(self.conv2(x)))  # C3: 10, S4: 5
        x = x.mean((1, 2)) if self.average else x.reshape(len(x), -1)
        return self.hidden(x, train=train, rngs=rngs)

    def pool(self, x: jax.Array) -> jax.Array:  # (B, H, W, O) -> (B, Y, X, O)
        """Makes one pixel of each 2x2 window; an odd last row or column is left out."""
        if self.pooling == "max":
            return max_pool(x, 2, stride=2, padding=0)
        return average_pool(x, 2, stride=2, padding=0, count_padding=False)


def pad_to_field(side: int, field: int) -> tuple[int, int]:
    """Returns the zeros before and after a side that bring it to `field` pixels; the odd one stands behind."""
    missing = max(field - side, 0)
    return missing // 2, missing - missing // 2


def output_side(side: int, *, field: int) -> int:
    """Returns the side in pixels behind the second pooling; each 5x5 convolution takes 4 pixels, each pooling half."""
    side = (max(side, field) - 4) // 2
    return (side - 4) // 2


VARIANTS = {
    "test": partial(LeNet, filters=(8, 8), hidden=(8,), field=16),
    "5": partial(LeNet, channels=1),
    "5-valid": partial(LeNet, field=0, channels=1, image_size=28),
}
CUTS = {"conv1": (), "conv2": (), "hidden/layers/*": ()}
