"""Convolution over images, channels last.

Padding is always written out, in pixels before and after each side, as the source of a network had it. JAX's and
TensorFlow's "SAME" depends on the image's size and puts the odd pixel last (kernel 3, stride 2, 224 pixels: 0 before, 1
after); torchvision's networks pad 1 and 1, which gives other numbers at the same output shape.

Axes:
    B batch    H, W input height and width    Y, X output height and width    I input channels    O filters
    V, U kernel height and width    G groups
"""

import jax
from flax import nnx

from cnn_vit.errors import UserError
from cnn_vit.nn.values import declare
from cnn_vit.nn.windows import IntOrPair, Padding, height_and_width, normalize_padding, output_size


def is_convolutional(network: nnx.Module) -> bool:
    """Whether a network, or a part of one, has a convolution anywhere inside."""
    return any(isinstance(module, Conv) for _, module in nnx.iter_modules(network))


class Conv(nnx.Module):
    """Slides filters over an image (cross-correlation: the filter is not flipped).

    Each output side has floor((side + padding - dilation * (kernel side - 1) - 1) / stride) + 1 pixels.

    Attributes:
        kernel: (kernel height, kernel width, in_channels / groups, filters) weights.
        bias: (filters,) or None.

    Args:
        in_channels: channels of the input.
        filters: channels of the output.
        kernel_size: side of a filter in pixels, or (height, width).
        padding: zeros around the image in pixels: one number for every side, or ((top, bottom), (left, right)).
        stride: pixels from one position of a filter to the next, one number or (down, right).
        dilation: pixels from one weight of a filter to its neighbor, one number or (down, right); 1 leaves no holes.
        groups: channel groups that do not see each other; `in_channels` for a depthwise convolution. Group g of the
            output channels reads group g of the input channels.
        bias: whether a learned number is added to each output channel.
        initializer: distribution of the kernel's initial values (Flax's own default is LeCun's, PyTorch's neither).

    Raises:
        UserError: if the groups do not divide both channel counts, if a padding is not in pixels, or if a filter is
            larger than the padded image.
    """

    def __init__(
        self,
        in_channels: int,
        filters: int,
        kernel_size: IntOrPair,
        *,
        padding: Padding,
        stride: IntOrPair = 1,
        dilation: IntOrPair = 1,
        groups: int = 1,
        bias: bool = True,
        initializer: str = "he_normal",
    ):
        if groups < 1 or in_channels % groups or filters % groups:
            raise UserError(f"{groups} groups do not divide {in_channels} channels and {filters} filters evenly")
        kernel_height, kernel_width = height_and_width(kernel_size, "kernel_size")
        kernel_shape = (kernel_height, kernel_width, in_channels // groups, filters)
        self.kernel = declare(nnx.Param, kernel_shape, initializer)
        self.bias = declare(nnx.Param, (filters,), "zeros") if bias else None
        self.padding = normalize_padding(padding)
        self.stride = height_and_width(stride, "stride")
        self.dilation = height_and_width(dilation, "dilation")
        self.groups = groups

    def __call__(self, x: jax.Array) -> jax.Array:  # (B, H, W, I) -> (B, Y, X, O)
        kernel = self.kernel[...].astype(x.dtype)  # (V, U, I/G, O)
        # XLA answers with an empty image where a filter does not fit; `output_size` raises an error instead.
        for i in (0, 1):
            output_size(
                x.shape[1 + i],
                kernel.shape[i],
                stride=self.stride[i],
                padding=self.padding[i],
                dilation=self.dilation[i],
            )
        y = jax.lax.conv_general_dilated(
            x,
            kernel,
            window_strides=self.stride,
            padding=self.padding,
            rhs_dilation=self.dilation,
            feature_group_count=self.groups,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),  # of images, kernel and output: channels last
        )
        if self.bias is None:
            return y
        return y + self.bias[...].astype(x.dtype)
