"""Normalization: of each channel over the batch, of each token over its features, of groups of channels of an image.

Arithmetic is float32 whatever the input is: folding the mean into the bias in bfloat16 would shift whole channels. The
variance is the biased one, sum of squares over n. Epsilon differs between frameworks (layer and group norm: Flax 1e-6,
PyTorch 1e-5), so those two have no default; batch norm's 1e-5 is that of both.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from cnn_vit.errors import UserError
from cnn_vit.nn.values import declare


def normalize(x: jax.Array, axes: tuple[int, ...], epsilon: float) -> jax.Array:  # (...) -> (...)
    """(x - mean) / sqrt(var + epsilon), mean and variance over some axes, in float32."""
    return (x - x.mean(axes, keepdims=True)) * jax.lax.rsqrt(x.var(axes, keepdims=True) + epsilon)


class BatchNorm(nnx.Module):
    """Gives each channel mean 0 and deviation 1 over batch and pixels, then a learned scale and bias.

    In training the batch's own statistics are used and the running ones follow them; else the running ones are used.
    The running variance is the biased one, as in Flax; PyTorch keeps the unbiased one (n / (n - 1) times it).

    Attributes:
        scale, bias: (channels,) parameters.
        mean, var: (channels,) running statistics, at first 0 and 1.

    Args:
        channels: channels of the input.
        momentum: share of the old running statistics that a training step keeps. 0.9 is PyTorch's default, which it
            writes as 0.1; Flax's is 0.99.
        epsilon: added to the variance; 1e-5 in Flax and PyTorch, 1e-3 in TensorFlow.
        fixed: use the running statistics in training too, and leave them as they are.
        initializer: distribution of the scale's first values; "zeros" for the last norm of a residual branch.
    """

    def __init__(
        self,
        channels: int,
        *,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        fixed: bool = False,
        initializer: str = "ones",
    ):
        self.scale = declare(nnx.Param, (channels,), initializer)
        self.bias = declare(nnx.Param, (channels,), "zeros")
        self.mean = declare(nnx.BatchStat, (channels,), "zeros")
        self.var = declare(nnx.BatchStat, (channels,), "ones")
        self.momentum, self.epsilon, self.fixed = momentum, epsilon, fixed

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:  # (B, H, W, C) -> (B, H, W, C)
        x32 = x.astype(jnp.float32)
        mean, var = self.mean[...], self.var[...]
        if train and not self.fixed:
            mean, var = x32.mean((0, 1, 2)), x32.var((0, 1, 2))
            self.mean.set_value(self.momentum * self.mean[...] + (1 - self.momentum) * mean)  # [...] = would write
            self.var.set_value(self.momentum * self.var[...] + (1 - self.momentum) * var)  # into a caller's NumPy array
        scale = self.scale[...] * jax.lax.rsqrt(var + self.epsilon)  # (C,)
        return ((x32 - mean) * scale + self.bias[...]).astype(x.dtype)


class LayerNorm(nnx.Module):
    """Gives the features of each token mean 0 and deviation 1, then a learned scale and bias.

    Attributes:
        scale, bias: (features,) parameters, at first 1 and 0.

    Args:
        features: size of the last axis.
        epsilon: added to the variance; 1e-6 in Flax and timm's ViT, 1e-5 in PyTorch.
    """

    def __init__(self, features: int, *, epsilon: float):
        self.scale = declare(nnx.Param, (features,), "ones")
        self.bias = declare(nnx.Param, (features,), "zeros")
        self.epsilon = epsilon

    def __call__(self, x: jax.Array) -> jax.Array:  # (..., D) -> (..., D)
        y = normalize(x.astype(jnp.float32), (-1,), self.epsilon)
        return (y * self.scale[...] + self.bias[...]).astype(x.dtype)


class GroupNorm(nnx.Module):
    """Gives each group of channels of an image mean 0 and deviation 1 over its pixels, then a scale and bias a channel.

    Attributes:
        scale, bias: (channels,) parameters, at first 1 and 0.

    Args:
        channels: channels of the input.
        groups: groups of neighboring channels; 1 normalizes an image as a whole, `channels` each channel by itself.
        epsilon: added to the variance; 1e-6 in Flax, 1e-5 in PyTorch and BiT.

    Raises:
        UserError: groups that do not divide the channels.
    """

    def __init__(self, channels: int, *, groups: int, epsilon: float):
        if groups < 1 or channels % groups:
            raise UserError(f"{groups} groups do not divide {channels} channels evenly")
        self.scale = declare(nnx.Param, (channels,), "ones")
        self.bias = declare(nnx.Param, (channels,), "zeros")
        self.groups, self.epsilon = groups, epsilon

    def __call__(self, x: jax.Array) -> jax.Array:  # (B, H, W, C) -> (B, H, W, C)
        grouped = x.astype(jnp.float32).reshape(*x.shape[:3], self.groups, -1)  # (B, H, W, G, C/G)
        y = normalize(grouped, (1, 2, 4), self.epsilon).reshape(x.shape)  # (B, H, W, C)
        return (y * self.scale[...] + self.bias[...]).astype(x.dtype)
