"""Squeeze and excitation: each channel of an image is weakened by a factor that follows from all of its channels.

Source: Hu et al., Squeeze-and-Excitation Networks, CVPR 2018, arXiv:1709.01507, section 3; SiLU in place of its
rectifier as in EfficientNet (arXiv:1905.11946).

Axes:
    B batch    H, W image height and width    C channels    S channels that they are squeezed to
"""

import jax
from flax import nnx

from cnn_vit.nn.dense import Dense


class SqueezeExcitation(nnx.Module):
    """Multiplies each channel of an image by a factor between 0 and 1, from the averages of all channels.

        factors = sigmoid(W2 silu(W1 averages + b1) + b2)

    Attributes:
        squeeze, excite: dense layers of (channels, squeezed) and (squeezed, channels).

    Args:
        channels: channels of the input and the output.
        squeezed: numbers that the averages are squeezed to.
    """

    def __init__(self, channels: int, squeezed: int):
        self.squeeze = Dense(channels, squeezed)
        self.excite = Dense(squeezed, channels)

    def __call__(self, x: jax.Array) -> jax.Array:  # (B, H, W, C) -> (B, H, W, C)
        averages = x.mean((1, 2))  # (B, C)
        squeezed = jax.nn.silu(self.squeeze(averages))  # (B, S)
        factors = jax.nn.sigmoid(self.excite(squeezed))  # (B, C)
        return x * factors[:, None, None]
