"""The dense layer: one learned matrix, and a bias."""

import jax
from flax import nnx

from cnn_vit.nn.values import declare


class Dense(nnx.Module):
    """Multiplies the last axis by a learned matrix, and adds a learned bias.

    Attributes:
        kernel: (in_features, features) weights.
        bias: (features,) or None.

    Args:
        in_features: size of the last axis of the input.
        features: size of the last axis of the output.
        bias: whether a learned number is added to each output.
        initializer: distribution of the kernel's initial values; LeCun's normal is not cut off here, as Flax's is.
        bias_initializer: distribution of the bias's initial values.
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        *,
        bias: bool = True,
        initializer: str = "lecun_normal",
        bias_initializer: str = "zeros",
    ):
        self.kernel = declare(nnx.Param, (in_features, features), initializer)
        self.bias = declare(nnx.Param, (features,), bias_initializer) if bias else None

    def __call__(self, x: jax.Array) -> jax.Array:  # (..., I) -> (..., O)
        y = x @ self.kernel[...].astype(x.dtype)
        if self.bias is None:
            return y
        return y + self.bias[...].astype(x.dtype)
