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
    """Computes (x - mean) / sqrt(var + epsilon) for a float32 x, with mean and variance over the given axes."""
    return (x - x.mean(axes, keepdims=True)) * jax.lax.rsqrt(x.var(axes, keepdims=True) + epsilon)


class BatchNorm(nnx.Module):
    """Gives each channel mean 0 and standard deviation 1 over batch and pixels, then a learned scale and bias.

    A call in training uses the batch's own statistics, and moves the running ones towards them; any other call uses the
    running ones. The running variance is the biased one, as in Flax; PyTorch keeps the unbiased one (n / (n - 1) times
    it).

    Attributes:
        scale, bias: (channels,) parameters.
        mean, var: (channels,) running statistics, initially 0 and 1.

    Args:
        channels: channels of the input.
        momentum: share of the old running statistics that a training step keeps. 0.9 is PyTorch's default, which it
            writes as 0.1; Flax's is 0.99.
        epsilon: added to the variance; 1e-5 in Flax and PyTorch, 1e-3 in TensorFlow.
        fixed: use the running statistics in training too, and leave them as they are.
        initializer: distribution of the scale's initial values; "zeros" for the last norm of a residual branch.
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
        self.momentum = momentum
        self.epsilon = epsilon
        self.fixed = fixed

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:  # (B, H, W, C) -> (B, H, W, C)
        x32 = x.astype(jnp.float32)
        mean, var = self.mean[...], self.var[...]
        if train and not self.fixed:
            mean, var = x32.mean((0, 1, 2)), x32.var((0, 1, 2))
            # `set_value` replaces the array; assigning to `self.mean[...]` would write into a caller's NumPy array.
            self.mean.set_value(self.momentum * self.mean[...] + (1 - self.momentum) * mean)
            self.var.set_value(self.momentum * self.var[...] + (1 - self.momentum) * var)
        scale = self.scale[...] * jax.lax.rsqrt(var + self.epsilon)  # (C,)
        return ((x32 - mean) * scale + self.bias[...]).astype(x.dtype)


class LayerNorm(nnx.Module):
    """Gives the features of each token mean 0 and standard deviation 1, then a learned scale and bias.

    Attributes:
        scale, bias: (features,) parameters, initially 1 and 0.

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
    """Gives each group of channels of an image mean 0 and standard deviation 1 over its pixels.

    Each channel then gets a learned scale and bias.

    Attributes:
        scale, bias: (channels,) parameters, initially 1 and 0.

    Args:
        channels: channels of the input.
        groups: groups of neighboring channels; 1 normalizes an image as a whole, `channels` each channel by itself.
        epsilon: added to the variance; 1e-6 in Flax, 1e-5 in PyTorch and BiT.

    Raises:
        UserError: if the groups do not divide the channels.
    """

    def __init__(self, channels: int, *, groups: int, epsilon: float):
        if groups < 1 or channels % groups:
            raise UserError(f"{groups} groups do not divide {channels} channels evenly")
        self.scale = declare(nnx.Param, (channels,), "ones")
        self.bias = declare(nnx.Param, (channels,), "zeros")
        self.groups = groups
        self.epsilon = epsilon

    def __call__(self, x: jax.Array) -> jax.Array:  # (B, H, W, C) -> (B, H, W, C)
        grouped = x.astype(jnp.float32).reshape(*x.shape[:3], self.groups, -1)  # (B, H, W, G, C/G)
        # Both pixel axes and the channels of one group are averaged over; batch and groups stay apart.
        y = normalize(grouped, (1, 2, 4), self.epsilon).reshape(x.shape)  # (B, H, W, C)
        return (y * self.scale[...] + self.bias[...]).astype(x.dtype)
