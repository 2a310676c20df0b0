"""A convolution without weight sharing: each place has filters of its own (a locally connected layer).

It sees what a convolution sees, a small window at each place, and what comes out has the same shape. But nothing that
is learned at one place is known at another: it has a convolution's parameters once for each place, takes images of one
size alone, and does not commute with a shift. Beside a convolution it tells what sharing gives, and beside a dense
layer what locality gives.

Source: LeCun, Generalization and network design strategies, 1989 ("local connections" against "weight sharing").

Axes:
    B batch    H, W input height and width    Y, X output height and width    I input channels    O filters
    V, U kernel height and width
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from cnn_vit.errors import UserError
from cnn_vit.nn.conv import Slide, count_positions, slide_weight
from cnn_vit.nn.padding import ZERO, check_padding_kind, surround
from cnn_vit.nn.values import declare
from cnn_vit.nn.windows import IntOrPair, Padding, height_and_width, normalize_padding, output_size


class LocalConv(nnx.Module):
    """Multiplies the window of pixels at each place by filters of this place alone.

    Each output side has floor((side + padding - kernel side) / stride) + 1 places.

    Attributes:
        kernel: (places down, places right, kernel height, kernel width, in_channels, filters) weights.
        bias: (places down, places right, filters) or None.
        places: how many there are, down and right.

    Args:
        in_channels: channels of the input.
        filters: channels of the output.
        kernel_size: side of a filter in pixels, or (height, width).
        image_size: side of the input in pixels, or (height, width); fixed.
        padding: pixels around the image: one number for every side, or ((top, bottom), (left, right)).
        padding_kind: what stands there, as in `conv.Conv`.
        stride: pixels from one place to the next, one number or (down, right).
        bias: whether a learned number is added to each output channel of each place.

    Raises:
        UserError: if a padding is not in pixels or of no known kind, or if a filter is larger than the padded image.
    """

    def __init__(
        self,
        in_channels: int,
        filters: int,
        kernel_size: IntOrPair,
        *,
        image_size: IntOrPair,
        padding: Padding,
        padding_kind: str = ZERO,
        stride: IntOrPair = 1,
        bias: bool = True,
    ):
        window = height_and_width(kernel_size, "kernel_size")
        image_sides = height_and_width(image_size, "image_size")
        self.padding = normalize_padding(padding)
        self.padding_kind = check_padding_kind(padding_kind)
        self.stride = height_and_width(stride, "stride")
        places = []
        for i in (0, 1):
            places.append(output_size(image_sides[i], window[i], stride=self.stride[i], padding=self.padding[i]))
        self.places = (places[0], places[1])
        # He's normal values for the window that one output sums over; the places are no inputs of it.
        std = math.sqrt(2 / (math.prod(window) * in_channels))
        self.kernel = declare(nnx.Param, (*places, *window, in_channels, filters), f"normal({std})")
        self.bias = declare(nnx.Param, (*places, filters), "zeros") if bias else None

    def __call__(self, x: jax.Array) -> jax.Array:  # (B, H, W, I) -> (B, Y, X, O)
        kernel = self.kernel[...].astype(x.dtype)  # (Y, X, V, U, I, O)
        slide = Slide(self.stride, self.padding, dilation=(1, 1), groups=1)
        if self.padding_kind != ZERO:
            x = surround(x, self.padding, self.padding_kind)
            slide = Slide(self.stride, ((0, 0), (0, 0)), dilation=(1, 1), groups=1)
        places = count_positions(x, kernel[0, 0], slide)
        if places != self.places:
            raise UserError(
                f"an image of {x.shape[1]}x{x.shape[2]} pixels has {places[0]}x{places[1]} places, and this layer has "
                f"filters for {self.places[0]}x{self.places[1]}; give it images of the size that it was built for"
            )
        y = multiply_windows(x, kernel, slide)
        if self.bias is None:
            return y
        return y + self.bias[...].astype(x.dtype)


def multiply_windows(
    x: jax.Array, kernel: jax.Array, slide: Slide
) -> jax.Array:  # (B, H, W, I), (Y, X, V, U, I, O) -> (B, Y, X, O)
    """Copies the pixels of each window side by side, and multiplies those of each place by its own matrix."""
    windows = [pixels for _, _, pixels in slide_weight(x, kernel[0, 0], slide)]
    matrices = kernel.reshape(*kernel.shape[:2], -1, kernel.shape[-1])
    return jnp.einsum("byxw,yxwo->byxo", jnp.concatenate(windows, axis=-1), matrices)
