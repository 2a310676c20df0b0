"""Patch embedding: an image becomes a sequence of patches, each mapped by the same dense layer.

Axes:
    B batch    H, W image height and width    C colors    P side of a patch in pixels    N patches    D width
"""

import jax
from flax import nnx

from cnn_vit.errors import UserError
from cnn_vit.nn.dense import multiply_last_axis
from cnn_vit.nn.forms import add_bias
from cnn_vit.nn.norm import LayerNorm
from cnn_vit.nn.values import declare


class PatchEmbed(nnx.Module):
    """Cuts an image into square patches, row by row, and maps each to one token.

    The same as a convolution whose stride is its kernel's size, but written as one matrix product, which is how every
    platform runs it best. Source: Dosovitskiy et al., arXiv:2010.11929, section 3.1.

    Attributes:
        kernel: (patch, patch, channels, width) weights, stored as a convolution's.
        bias: (width,).

    Args:
        patch: side of a patch in pixels.
        channels: colors of an image.
        width: numbers per token.
        epsilon: of a norm of each patch's pixels before they are mapped, which is then `norm`; None for no norm.
        initializer: distribution of the kernel's initial values; LeCun's normal is not cut off here, as Flax's is.

    Raises:
        UserError: if the sides of an image are not multiples of the patch's.
    """

    def __init__(
        self,
        patch: int,
        channels: int,
        width: int,
        *,
        epsilon: float | None = None,
        initializer: str = "lecun_normal",
    ):
        self.norm = None if epsilon is None else LayerNorm(patch * patch * channels, epsilon=epsilon)
        self.kernel = declare(nnx.Param, (patch, patch, channels, width), initializer)
        self.bias = declare(nnx.Param, (width,), "zeros")
        self.patch = patch

    def __call__(self, x: jax.Array) -> jax.Array:  # (B, H, W, C) -> (B, N, D)
        batch, height, width, channels = x.shape
        side = self.patch
        if height % side or width % side:
            raise UserError(
                f"{height}x{width} pixels are not whole {side}-pixel patches; make data.image_size a multiple of {side}"
            )
        rows, columns = height // side, width // side
        grid = x.reshape(batch, rows, side, columns, side, channels)  # (B, H/P, P, W/P, P, C)
        # The two axes inside a patch must lie side by side before a patch can be flattened.
        patches = grid.swapaxes(2, 3).reshape(batch, rows * columns, -1)  # (B, N, P*P*C)
        if self.norm is not None:
            patches = self.norm(patches)
        kernel = self.kernel[...].astype(x.dtype).reshape(-1, self.kernel.shape[-1])  # (P*P*C, D)
        return add_bias(multiply_last_axis(patches, kernel), self.bias[...])
