"""Convolution over images, channels last.

Padding is always written out, in pixels before and after each side, as the source of a network had it. JAX's and
TensorFlow's "SAME" depends on the image's size and puts the odd pixel last (kernel 3, stride 2, 224 pixels: 0 before, 1
after); torchvision's networks pad 1 and 1, which gives other numbers at the same output shape. What stands in the
padding are zeros, or pixels of the image (`padding.py`): these are put around it first, and the forms below slide over
the larger image without any padding.

Forms on a CPU; the first that fits is taken:

| form | case | reason | measured |
|---|---|---|---|
| `convolve_channels` | depthwise, up to 7x7 | XLA takes one channel after another | 9 to 16 |
| `convolve_groups` | other groups | XLA's weight gradient takes seconds | 95 |
| `convolve_by_product` | each side 1 or the stride, no padding | it is a product of matrices | 0.8 to 1.7 |
| `convolve_by_columns` | few input channels, up to 3x3 | XLA's weight gradient crawls there | 1.2 to 2.8 |
| `convolve_apart` | any other | XLA's, but its weight gradient does not compute earlier layers anew | 2.9 |

Measured: how many times as fast as the plain form, forward and backward (experiments/speed/forms.py, jaxlib 0.10.2).

Axes:
    B batch    H, W input height and width    Y, X output height and width    I input channels    O filters
    V, U kernel height and width    J input channels of a group
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from cnn_vit.errors import UserError
from cnn_vit.nn.dense import multiply_last_axis
from cnn_vit.nn.forms import add_bias, bind, choose_form, has_tangent, materialize, spread
from cnn_vit.nn.padding import ZERO, check_padding_kind, surround
from cnn_vit.nn.values import declare
from cnn_vit.nn.windows import IntOrPair, Padding, height_and_width, normalize_padding, output_size

FEW_CHANNELS = 4  # an image's colors, and a mask
SMALL_WINDOW = 9  # pixels of a 3x3 filter: copies of larger windows take more memory, and are no faster
MOST_WRITTEN_OUT = 49  # weights of a filter that stand one by one in a program, which takes time to compile
WORTHWHILE_WIDTH = 32  # channels from which on XLA's convolutions keep a core busy


@dataclass(frozen=True)
class Slide:
    """How filters slide over images; each pair is (down, right) or ((top, bottom), (left, right)), in pixels.

    Attributes:
        stride: from one position to the next.
        padding: zeros around the image.
        dilation: from one weight of a filter to its neighbor.
        groups: channel groups that do not see each other.
    """

    stride: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    dilation: tuple[int, int]
    groups: int


def convolve(x: jax.Array, kernel: jax.Array, slide: Slide) -> jax.Array:  # (B, H, W, I), (V, U, J, O) -> (B, Y, X, O)
    """Slides filters over images of the same dtype."""
    form = choose_cpu_form(slide, x.shape[-1], kernel.shape)
    return choose_form(bind(plain_convolve, slide=slide), x, kernel, cpu=bind(form, slide=slide))


def plain_convolve(
    x: jax.Array, kernel: jax.Array, slide: Slide
) -> jax.Array:  # (B, H, W, I), (V, U, J, O) -> (B, Y, X, O)
    """Convolves as XLA does it."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=slide.stride,
        padding=slide.padding,
        rhs_dilation=slide.dilation,
        feature_group_count=slide.groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),  # of images, kernel and output: channels last
    )


def choose_cpu_form(slide: Slide, in_channels: int, kernel_shape: tuple[int, ...]) -> Callable:
    """Returns the form that a CPU runs faster than XLA's convolution alone.

    It depends on nothing but the layer, above all not on the batch, so that evaluation gives the same scores at any
    batch size.
    """
    *window, group_width, filters = kernel_shape
    if slide.groups > 1:
        is_depthwise = group_width == 1 and filters == in_channels
        if is_depthwise and window[0] * window[1] <= MOST_WRITTEN_OUT:
            return convolve_channels
        return convolve_groups
    is_padded = slide.padding != ((0, 0), (0, 0))
    are_side_by_side = all(length in (1, step) for length, step in zip(window, slide.stride, strict=True))
    if are_side_by_side and not is_padded and slide.dilation == (1, 1):
        return convolve_by_product
    if in_channels <= FEW_CHANNELS and window[0] * window[1] <= SMALL_WINDOW:
        return convolve_by_columns
    return convolve_apart


def pad_image(x: jax.Array, slide: Slide) -> jax.Array:  # (B, H, W, I) -> (B, R, S, I)
    """Surrounds images with the zeros of their padding, which makes them R times S pixels large."""
    return jnp.pad(x, ((0, 0), *slide.padding, (0, 0)))


def count_positions(x: jax.Array, kernel: jax.Array, slide: Slide) -> tuple[int, int]:  # (B, H, W, I), (V, U, J, O)
    """Counts the positions of a filter on an image, down and right.

    Raises:
        UserError: if there are none, because the filter is larger than the padded image.
    """
    counts = []
    for i in (0, 1):
        count = output_size(
            x.shape[1 + i],
            kernel.shape[i],
            stride=slide.stride[i],
            padding=slide.padding[i],
            dilation=slide.dilation[i],
        )
        counts.append(count)
    return counts[0], counts[1]


def slide_weight(
    x: jax.Array, kernel: jax.Array, slide: Slide
) -> Iterator[tuple[int, int, jax.Array]]:  # (B, H, W, I), (V, U, J, O)
    """Yields for each weight of a filter, row by row, its place (row, column) and the pixels that it meets.

    These are (B, Y, X, I), strided slices of the padded image.
    """
    padded = pad_image(x, slide)
    rows, columns = count_positions(x, kernel, slide)
    (down, right), (row_step, column_step) = slide.stride, slide.dilation
    for row in range(kernel.shape[0]):
        for column in range(kernel.shape[1]):
            top, left = row * row_step, column * column_step
            bottom, end = top + (rows - 1) * down + 1, left + (columns - 1) * right + 1
            yield row, column, padded[:, top:bottom:down, left:end:right]


@partial(jax.custom_jvp, nondiff_argnames=("slide",))
def convolve_apart(
    x: jax.Array, kernel: jax.Array, slide: Slide
) -> jax.Array:  # (B, H, W, I), (V, U, J, O) -> (B, Y, X, O)
    """Convolves as XLA does it; the weight gradient reads images that are computed once (`forms.materialize`)."""
    return plain_convolve(x, kernel, slide)


def convolve_apart_jvp(slide: Slide, primals: tuple, tangents: tuple) -> tuple:
    """The tangent of `convolve_apart`: changed images with the kernel, and the images with a changed kernel."""
    x, kernel = primals
    dx, dkernel = tangents
    y = plain_convolve(x, kernel, slide)
    dy = plain_convolve(dx, kernel, slide) if has_tangent(dx) else jnp.zeros_like(y)
    if has_tangent(dkernel):
        dy = dy + plain_convolve(materialize(x), dkernel, slide)
    return y, dy


convolve_apart.defjvp(convolve_apart_jvp, symbolic_zeros=True)


def convolve_by_product(
    x: jax.Array, kernel: jax.Array, slide: Slide
) -> jax.Array:  # (B, H, W, I), (V, U, I, O) -> (B, Y, X, O)
    """Convolves where windows do not overlap: each window is a row of a matrix, each filter a column of another."""
    height, width, in_channels, filters = kernel.shape
    rows, columns = count_positions(x, kernel, slide)
    down, right = slide.stride
    # What fills no window at the bottom and right is left out. Where the filter is shorter than the stride it has one
    # row (or column), and the windows are that row of each step.
    images = x[:, : (rows - 1) * down + height, : (columns - 1) * right + width]
    if height < down:
        images = images[:, ::down]
    if width < right:
        images = images[:, :, ::right]
    if (height, width) != (1, 1):
        grid = images.reshape(len(x), rows, height, columns, width, in_channels)
        images = grid.swapaxes(2, 3).reshape(len(x), rows, columns, height * width * in_channels)
    return multiply_last_axis(images, kernel.reshape(height * width * in_channels, filters))


def convolve_by_columns(
    x: jax.Array, kernel: jax.Array, slide: Slide
) -> jax.Array:  # (B, H, W, I), (V, U, I, O) -> (B, Y, X, O)
    """Convolves by copying all pixels of a window side by side, and one product of matrices (im2col)."""
    windows = [pixels for _, _, pixels in slide_weight(x, kernel, slide)]
    return multiply_last_axis(jnp.concatenate(windows, axis=-1), kernel.reshape(-1, kernel.shape[-1]))


def convolve_groups(
    x: jax.Array, kernel: jax.Array, slide: Slide
) -> jax.Array:  # (B, H, W, I), (V, U, J, O) -> (B, Y, X, O)
    """Convolves neighboring groups together, as many as have WORTHWHILE_WIDTH channels, by an ordinary convolution.

    The weights between channels of two groups are 0. That multiplies the arithmetic, by 8 for groups of 4 channels, and
    is faster all the same. Where one number is not finite, the groups beside it get numbers that are not.
    """
    group_width = kernel.shape[2]
    groups_together = min(slide.groups, max(1, WORTHWHILE_WIDTH // group_width))
    while slide.groups % groups_together:
        groups_together -= 1
    parts = slide.groups // groups_together
    ordinary = replace(slide, groups=1)
    outputs = []
    for images, filters in zip(jnp.split(x, parts, -1), jnp.split(kernel, parts, -1), strict=True):
        outputs.append(convolve_apart(images, join_groups(filters, groups_together), ordinary))
    return jnp.concatenate(outputs, axis=-1)


def join_groups(kernel: jax.Array, groups: int) -> jax.Array:  # (V, U, J, O) -> (V, U, I, O)
    """Returns the kernel of an ordinary convolution that computes the same: 0 from any group to another."""
    height, width, group_width, filters = kernel.shape
    by_group = kernel.reshape(height, width, group_width, groups, filters // groups)
    same_group = jnp.eye(groups, dtype=kernel.dtype)
    joined = jnp.einsum("vuigo,fg->vufigo", by_group, same_group)
    return joined.reshape(height, width, groups * group_width, filters)


@partial(jax.custom_jvp, nondiff_argnames=("slide",))
def convolve_channels(
    x: jax.Array, kernel: jax.Array, slide: Slide
) -> jax.Array:  # (B, H, W, I), (V, U, 1, I) -> (B, Y, X, I)
    """Convolves each channel with its own filter: a sum over the filter's weights of shifted images, in float32."""
    kernel = kernel.astype(jnp.float32)
    y = jnp.zeros((), jnp.float32)
    for row, column, pixels in slide_weight(x, kernel, slide):
        y = y + pixels.astype(jnp.float32) * kernel[row, column, 0]
    return y.astype(x.dtype)


def convolve_channels_jvp(slide: Slide, primals: tuple, tangents: tuple) -> tuple:
    """The tangent of `convolve_channels`: the same sum of changed images, and that of the changed weights."""
    x, kernel = primals
    dx, dkernel = tangents
    y = convolve_channels(x, kernel, slide)
    dy = convolve_channels(dx, kernel, slide) if has_tangent(dx) else jnp.zeros_like(y)
    if has_tangent(dkernel):
        dy = dy + convolve_channels_in_loop(x, dkernel, slide)
    return y, dy


convolve_channels.defjvp(convolve_channels_jvp, symbolic_zeros=True)


def convolve_channels_in_loop(
    x: jax.Array, kernel: jax.Array, slide: Slide
) -> jax.Array:  # (B, H, W, I), (V, U, 1, I) -> (B, Y, X, I)
    """Convolves each channel with its own filter, one weight after another in a loop.

    Transposed it is the gradient of the weights. A loop needs room for one product of image and gradient, where the
    sum written out keeps those of all weights: 49 of a 7x7 filter.
    """
    padded = pad_image(x, slide).astype(jnp.float32)
    kernel = kernel.astype(jnp.float32)
    rows, columns = count_positions(x, kernel, slide)
    (down, right), (row_step, column_step) = slide.stride, slide.dilation
    height, width, _, channels = kernel.shape
    window = (len(x), (rows - 1) * down + 1, (columns - 1) * right + 1, channels)
    output_shape = (len(x), rows, columns, channels)

    def add_weight(y: jax.Array, number_and_weight: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        number, weight = number_and_weight
        corner = (0, number // width * row_step, number % width * column_step, 0)
        pixels = jax.lax.dynamic_slice(padded, corner, window)[:, ::down, ::right]
        return y + pixels * spread(weight, output_shape), None

    # Made from the images, so that inside a `shard_map` it varies over the devices as they do.
    zeros = jnp.zeros_like(padded, shape=output_shape)
    numbers = jnp.arange(height * width)
    # Without `checkpoint` the gradient would keep the pixels that each weight meets, 9 copies of the images for a 3x3.
    step = jax.checkpoint(add_weight, prevent_cse=False)
    y, _ = jax.lax.scan(step, zeros, (numbers, kernel.reshape(height * width, channels)))
    return y.astype(x.dtype)


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
        padding: pixels around the image: one number for every side, or ((top, bottom), (left, right)).
        padding_kind: what stands there: zero; circular, the pixels of the opposite side; reflect, those inside,
            mirrored at the outermost pixel; or edge, the outermost pixel again.
        stride: pixels from one position of a filter to the next, one number or (down, right).
        dilation: pixels from one weight of a filter to its neighbor, one number or (down, right); 1 leaves no holes.
        groups: channel groups that do not see each other; `in_channels` for a depthwise convolution. Group g of the
            output channels reads group g of the input channels.
        bias: whether a learned number is added to each output channel.
        initializer: distribution of the kernel's initial values (Flax's own default is LeCun's, PyTorch's neither).

    Raises:
        UserError: if the groups do not divide both channel counts, if a padding is not in pixels or of no known kind,
            or if a filter is larger than the padded image.
    """

    def __init__(
        self,
        in_channels: int,
        filters: int,
        kernel_size: IntOrPair,
        *,
        padding: Padding,
        padding_kind: str = ZERO,
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
        self.padding_kind = check_padding_kind(padding_kind)
        self.stride = height_and_width(stride, "stride")
        self.dilation = height_and_width(dilation, "dilation")
        self.groups = groups

    def __call__(self, x: jax.Array) -> jax.Array:  # (B, H, W, I) -> (B, Y, X, O)
        kernel = self.kernel[...].astype(x.dtype)  # (V, U, J, O)
        slide = Slide(self.stride, self.padding, self.dilation, self.groups)
        # XLA answers with an empty image where a filter does not fit; `count_positions` raises an error instead.
        count_positions(x, kernel, slide)
        if self.padding_kind != ZERO:
            x = surround(x, self.padding, self.padding_kind)
            slide = replace(slide, padding=((0, 0), (0, 0)))
        y = convolve(x, kernel, slide)
        if self.bias is None:
            return y
        return add_bias(y, self.bias[...])


class WindowDense(Conv):
    """A dense layer on all values of a window of pixels, which slides where there are more pixels than that.

    Its parameters and results are those of a convolution without padding. Where the pixels are just one window it is
    computed as the product of matrices that it is: the gradient of a convolution would multiply many zeros, which
    surround the one pixel that comes out.

    Args:
        in_channels: channels of the input.
        features: channels of the output.
        window_size: side of the window in pixels, or (height, width).
        initializer: distribution of the kernel's initial values.
    """

    def __init__(self, in_channels: int, features: int, window_size: IntOrPair, *, initializer: str = "he_normal"):
        super().__init__(in_channels, features, window_size, padding=0, initializer=initializer)

    def __call__(self, x: jax.Array) -> jax.Array:  # (B, H, W, I) -> (B, Y, X, O)
        kernel = self.kernel[...]
        if x.shape[1:3] != kernel.shape[:2] or self.bias is None:
            return super().__call__(x)
        pixels = x.reshape(len(x), -1)  # (B, H*W*I)
        y = pixels @ kernel.reshape(-1, kernel.shape[-1]).astype(x.dtype)  # (B, O)
        return add_bias(y[:, None, None], self.bias[...])
