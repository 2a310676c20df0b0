"""The dense layer: one learned matrix, and a bias.

| form | case | reason | measured |
|---|---|---|---|
| `forms.add_bias` | CPU | its gradient sums the tokens of each image by products | 1.1 |

Measured: how many times as fast as the plain form, forward and backward (experiments/speed/forms.py, jaxlib 0.10.2).
"""

import jax
from flax import nnx

from cnn_vit.nn.forms import add_bias
from cnn_vit.nn.values import declare


def multiply_last_axis(x: jax.Array, kernel: jax.Array) -> jax.Array:  # (..., I), (I, O) -> (..., O)
    """Multiplies the last axis by a matrix, as one product of two matrices.

    The gradient of a product of a 3-D array wants transposed operands, which XLA may fuse with what comes before them
    and compute anew. A product of two matrices wants none.
    """
    rows = x.reshape(-1, x.shape[-1])  # (N, I)
    return (rows @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


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
        y = multiply_last_axis(x, self.kernel[...].astype(x.dtype))
        if self.bias is None:
            return y
        return add_bias(y, self.bias[...])
