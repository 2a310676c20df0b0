"""Multilayer perceptron: an image as one row of numbers, hidden layers, a head.

It has no notion of which pixels are neighbors: shuffle the pixels of all images alike and it learns as well. That makes
it the baseline that a convolution must beat.

Source: Rumelhart, Hinton, Williams, Learning representations by back-propagating errors, Nature 323, 1986.
Departs from it: rectified units with He's initial values (arXiv:1502.01852), dropout (Srivastava et al., JMLR 15,
2014); the head starts with LeCun's normal, which keeps the initial scores near standard deviation 1.

Axes:
    B batch    H, W image height and width in pixels    C colors    I input values    D features    K classes
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from cnn_vit.models import choose_place, height_and_width, refuse_size, require_at_least, require_rates
from cnn_vit.nn.dense import Dense
from cnn_vit.nn.dropout import Dropout
from cnn_vit.nn.permutation import permute_pixels

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
}


class MLP(nnx.Module):
    """Scores each image for each class.

    Args:
        num_classes: classes.
        hidden: units of each hidden layer, first to last.
        activation: what a hidden unit does with its sum; gelu is the exact one (erf).
        dropout: share of the values that is dropped in training before each layer except the first.
        permutation: number of a fixed permutation of the pixels, the same for all images; none leaves them in order.
        cut: path of the hidden layer that is kept last, such as hidden/layers/0; the head then stands on it.
        channels: colors of an image.
        image_size: side in pixels, or (height, width); any, but fixed: the first layer has a weight for each pixel.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        hidden: tuple[int, ...],
        activation: Literal["relu", "tanh", "gelu"] = "relu",
        dropout: float = 0.0,
        permutation: int | None = None,
        cut: str | None = None,
        channels: int = 3,
        image_size: int | tuple[int, int] = 32,
    ):
        self.image_size = height_and_width(image_size)
        if permutation is not None:
            require_at_least(0, permutation=permutation)
        self.permutation = permutation
        height, width = self.image_size
        if cut is not None:
            hidden = choose_place(cut, hidden_places(hidden))
        self.hidden = Hidden(height * width * channels, hidden, activation=activation, dropout=dropout)
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
        """Returns what the head sees: the last hidden layer, in the dtype of the images."""
        refuse_size(images, self.image_size)
        if self.permutation is not None:
            images = permute_pixels(images, self.permutation)
        # Rows of pixels end to end: from here on nothing tells which pixels were neighbors.
        x = images.reshape(len(images), -1)  # (B, H*W*C)
        return self.hidden(x, train=train, rngs=rngs)


class Hidden(nnx.Module):
    """Dense layers, each followed by its activation and dropout; without any layer the input is the output.

    Attributes:
        features: output values per example.

    Args:
        in_features: input values per example.
        hidden: units of each layer.
        activation: a key of ACTIVATIONS.
        dropout: share of each layer's values that is dropped in training.
    """

    def __init__(self, in_features: int, hidden: tuple[int, ...], *, activation: str, dropout: float):
        require_at_least(1, hidden=hidden)
        require_rates(dropout=dropout)
        # He's values make up for the half that a rectifier sets to zero; tanh keeps both halves.
        initializer = "lecun_normal" if activation == "tanh" else "he_normal"
        widths = (in_features, *hidden)
        self.layers = nnx.List([Dense(widths[i], widths[i + 1], initializer=initializer) for i in range(len(hidden))])
        self.activation = activation
        self.dropout = Dropout(dropout)
        self.features = widths[-1]

    def __call__(self, x: jax.Array, *, train: bool, rngs: nnx.Rngs | None) -> jax.Array:  # (B, I) -> (B, D)
        for layer in self.layers:
            x = ACTIVATIONS[self.activation](layer(x))
            x = self.dropout(x, train=train, rngs=rngs)
        return x


def hidden_places(hidden: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Returns the units of the hidden layers that a cut leaves, by the path of the layer that is kept last."""
    return {f"hidden/layers/{i}": hidden[: i + 1] for i in range(len(hidden))}


VARIANTS = {
    "test": partial(MLP, hidden=(8,)),
    "small": partial(MLP, hidden=(256, 128)),  # 50,826 parameters on the 8x8 digits
    "lecture": partial(MLP, hidden=(512, 512)),  # two layers of 512, 669,706 parameters on MNIST
}
CUTS = {"hidden/layers/*": ()}
