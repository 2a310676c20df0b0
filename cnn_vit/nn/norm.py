"""Normalization: of each channel over the batch, of each token over its features, of groups of channels of an image.

Arithmetic is float32 whatever the input is: folding the mean into the bias in bfloat16 would shift whole channels. The
variance is the biased one, sum of squares over n, in two passes: the mean first, then the squares around it. Epsilon
differs between frameworks (layer and group norm: Flax 1e-6, PyTorch 1e-5), so those two have no default; batch norm's
1e-5 is that of both.

| form | case | reason | measured |
|---|---|---|---|
| `fast_normalize_channels` | CPU; batch norm in training, group norm | 2 sums in its gradient, products | 3.4 to 12 |
| `fast_layer_norm` | CPU | closed form; gradients of scale and bias by products | 1.2 to 1.6 |

Measured: how many times as fast as the plain form, forward and backward (experiments/speed/forms.py, jaxlib 0.10.2).

Axes:
    B batch    H, W image height and width    C channels    D features    G groups
    N how many have statistics of their own: 1 for the whole batch, B for each image
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from cnn_vit.errors import UserError
from cnn_vit.nn.forms import bind, choose_form, has_tangent, spread, sum_pixels
from cnn_vit.nn.values import declare

Normalized = tuple[jax.Array, jax.Array, jax.Array]  # what was normalized, its mean and its variance


def normalize(x: jax.Array, axes: tuple[int, ...], epsilon: float) -> jax.Array:  # (...) -> (...)
    """Computes (x - mean) / sqrt(var + epsilon) for a float32 x, with mean and variance over the given axes."""
    return (x - x.mean(axes, keepdims=True)) * jax.lax.rsqrt(x.var(axes, keepdims=True) + epsilon)


# Over pixels: batch norm and group norm -------------------------------------------------------------------------------


def normalize_channels(
    x: jax.Array, scale: jax.Array, bias: jax.Array, *, groups: int | None, epsilon: float
) -> Normalized:  # (B, H, W, C), (C,), (C,) -> (B, H, W, C), (N, C), (N, C)
    """Gives channels mean 0 and variance 1 over pixels, then scales and shifts them.

    Args:
        x: float32.
        scale: number that each normalized channel is multiplied by.
        bias: number that is added to it.
        groups: None takes mean and variance of each channel over the batch and all pixels (batch norm); a number takes
            them over the pixels and neighboring channels of one image, in so many groups (group norm).
        epsilon: added to the variance.

    Returns:
        The output, and mean and variance of each channel: of the batch, or as each channel of each image sees them.
    """
    plain = bind(plain_normalize_channels, groups=groups, epsilon=epsilon)
    fast = bind(fast_normalize_channels, groups=groups, epsilon=epsilon)
    return choose_form(plain, x, scale, bias, cpu=fast)


def plain_normalize_channels(
    x: jax.Array, scale: jax.Array, bias: jax.Array, *, groups: int | None, epsilon: float
) -> Normalized:  # (B, H, W, C), (C,), (C,) -> (B, H, W, C), (N, C), (N, C)
    """Normalizes channels as it reads; the arguments are those of `normalize_channels`."""
    if groups is None:
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        y = (x - mean) * (scale * jax.lax.rsqrt(var + epsilon)) + bias
        return y, mean[None], var[None]
    grouped = x.reshape(*x.shape[:3], groups, -1)
    # Both pixel axes and the channels of one group are averaged over; batch and groups stay apart.
    axes = (1, 2, 4)
    y = normalize(grouped, axes, epsilon).reshape(x.shape) * scale + bias
    group_width = grouped.shape[4]
    mean = jnp.repeat(grouped.mean(axes), group_width, axis=1)  # (N, C)
    var = jnp.repeat(grouped.var(axes), group_width, axis=1)
    return y, mean, var


def average_groups(sums: jax.Array, pixels: int, groups: int | None) -> jax.Array:  # (B, C) -> (N, C)
    """Turns the sums of each image's channels into means over the batch, or over each group of channels of an image.

    Args:
        sums: over the pixels of each image.
        pixels: of an image.
        groups: as `normalize_channels` takes them.
    """
    if groups is None:
        return sums.sum(0, keepdims=True) / (pixels * len(sums))
    grouped = sums.reshape(len(sums), groups, -1)
    means = grouped.sum(2, keepdims=True) / (pixels * grouped.shape[2])
    return jnp.broadcast_to(means, grouped.shape).reshape(sums.shape)


@partial(jax.custom_jvp, nondiff_argnames=("groups", "epsilon"))
def fast_normalize_channels(
    x: jax.Array, scale: jax.Array, bias: jax.Array, groups: int | None, epsilon: float
) -> Normalized:  # (B, H, W, C), (C,), (C,) -> (B, H, W, C), (N, C), (N, C)
    """Normalizes channels with a gradient in closed form; the arguments are those of `normalize_channels`."""
    pixels = x.shape[1] * x.shape[2]
    mean = average_groups(sum_pixels(x), pixels, groups)  # (N, C)
    centered = x - mean[:, None, None]
    var = average_groups(sum_pixels(centered * centered), pixels, groups)
    scale_over_std = scale * jax.lax.rsqrt(var + epsilon)
    return centered * scale_over_std[:, None, None] + bias, mean, var


def normalize_channels_jvp(groups: int | None, epsilon: float, primals: tuple, tangents: tuple) -> tuple:
    """The tangent of `fast_normalize_channels`.

    With y = c (x - mean) + bias, c = scale / std, and means over the same pixels:

        dmean = mean(dx)    dvar = 2 mean((x - mean) dx)
        dy = c dx  +  [dbias - c dmean]  +  (x - mean) [dscale / std - c dvar / (2 var)]

    with var + epsilon for var. Each bracket is one number for each channel that is spread over the pixels. So in the
    transposed direction, one sum for each bracket serves scale, bias and input.
    """
    x, scale, bias = primals
    dx, dscale, dbias = tangents
    y, mean, var = fast_normalize_channels(x, scale, bias, groups, epsilon)
    centered = x - mean[:, None, None]
    inverse_std = jax.lax.rsqrt(var + epsilon)
    scale_over_std = scale * inverse_std
    dy = jnp.zeros_like(y)
    dmean, dvar = jnp.zeros_like(mean), jnp.zeros_like(var)
    shift, stretch = jnp.zeros_like(mean), jnp.zeros_like(var)  # the two brackets
    if has_tangent(dx):
        pixels = x.shape[1] * x.shape[2]
        # Plain sums: their transposes are broadcasts, which cost nothing.
        dmean = average_groups(dx.sum((1, 2)), pixels, groups)
        dvar = 2 * average_groups((centered * dx).sum((1, 2)), pixels, groups)
        dy = scale_over_std[:, None, None] * dx
        shift = shift - scale_over_std * dmean
        stretch = stretch - scale_over_std * inverse_std**2 * dvar / 2
    if has_tangent(dbias):
        shift = shift + dbias
    if has_tangent(dscale):
        stretch = stretch + dscale * inverse_std
    dy = dy + spread(shift, x.shape) + centered * spread(stretch, x.shape)
    return (y, mean, var), (dy, dmean, dvar)


fast_normalize_channels.defjvp(normalize_channels_jvp, symbolic_zeros=True)

# Over features: layer norm --------------------------------------------------------------------------------------------


def layer_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, *, epsilon: float
) -> jax.Array:  # (..., D), (D,), (D,) -> (..., D)
    """Gives the features of each token of a float32 x mean 0 and variance 1, then scales and shifts them."""
    plain = bind(plain_layer_norm, epsilon=epsilon)
    return choose_form(plain, x, scale, bias, cpu=bind(fast_layer_norm, epsilon=epsilon))


def plain_layer_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> jax.Array:  # (..., D), (D,), (D,) -> (..., D)
    """Normalizes features as it reads."""
    return normalize(x, (-1,), epsilon) * scale + bias


# The same numbers, with a gradient in closed form.
fast_layer_norm = jax.custom_jvp(plain_layer_norm, nondiff_argnames=("epsilon",))


def layer_norm_jvp(epsilon: float, primals: tuple, tangents: tuple) -> tuple:
    """The tangent of layer norm.

    With n = (x - mean) / std:   dn = (dx - mean(dx) - n mean(n dx)) / std   and   dy = scale dn + n dscale + dbias.
    """
    x, scale, bias = primals
    dx, dscale, dbias = tangents
    mean = x.mean(-1, keepdims=True)
    inverse_std = jax.lax.rsqrt(x.var(-1, keepdims=True) + epsilon)
    normalized = (x - mean) * inverse_std
    y = normalized * scale + bias
    dy = jnp.zeros_like(y)
    if has_tangent(dx):
        along = (normalized * dx).mean(-1, keepdims=True)
        dy = scale * (inverse_std * (dx - dx.mean(-1, keepdims=True) - normalized * along))
    if has_tangent(dscale):
        dy = dy + normalized * spread(dscale, x.shape)
    if has_tangent(dbias):
        dy = dy + spread(dbias, x.shape)
    return y, dy


fast_layer_norm.defjvp(layer_norm_jvp, symbolic_zeros=True)

# The layers -----------------------------------------------------------------------------------------------------------


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
        if train and not self.fixed:
            y, mean, var = normalize_channels(x32, self.scale[...], self.bias[...], groups=None, epsilon=self.epsilon)
            # `set_value` replaces the array; assigning to `self.mean[...]` would write into a caller's NumPy array.
            self.mean.set_value(self.momentum * self.mean[...] + (1 - self.momentum) * mean[0])
            self.var.set_value(self.momentum * self.var[...] + (1 - self.momentum) * var[0])
            return y.astype(x.dtype)
        scale = self.scale[...] * jax.lax.rsqrt(self.var[...] + self.epsilon)
        return ((x32 - self.mean[...]) * scale + self.bias[...]).astype(x.dtype)


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
        y = layer_norm(x.astype(jnp.float32), self.scale[...], self.bias[...], epsilon=self.epsilon)
        return y.astype(x.dtype)


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
        y, *_ = normalize_channels(
            x.astype(jnp.float32), self.scale[...], self.bias[...], groups=self.groups, epsilon=self.epsilon
        )
        return y.astype(x.dtype)
