"""The same operation under two names: what turns a layer of `nn/` into another layer, or into a product of matrices.

    convolution          a product with one large matrix, in which the filter stands again in each row
    patch embedding      windows side by side as rows, times one matrix; a convolution whose stride is its side
    1x1 convolution      a dense layer on each pixel
    average pooling      a depthwise convolution, all of whose weights are 1 / (V U)
    k x k convolution    attention in k k heads, each of which looks at one offset from its own pixel

`convolution_matrix`, `unfold`, `average_kernel` and `attention_of_convolution` make the right-hand sides.
experiments/same_operation measures how far they are from the layers.

Axes:
    B batch    H, W image height and width    Y, X output height and width    I input channels    O filters
    V, U kernel height and width    N pixels, or windows    D width of a token    A heads    E width of a head
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cnn_vit.analysis.record import compile_for
from cnn_vit.errors import UserError
from cnn_vit.nn.attention import Attention, attend
from cnn_vit.nn.padding import MODES, ZERO, check_padding_kind
from cnn_vit.nn.windows import IntOrPair, Padding, height_and_width, normalize_padding, output_size

PLACE_FEATURES = 3  # of a token: squared distance from the center, row, column


def convolution_matrix(
    kernel: np.ndarray,
    image_size: tuple[int, int],
    *,
    padding: Padding,
    padding_kind: str = ZERO,
    stride: IntOrPair = 1,
    dilation: IntOrPair = 1,
) -> np.ndarray:  # (V, U, I, O) -> (Y*X*O, H*W*I)
    """Returns the matrix that does to all numbers of an image at once what a convolution does.

    Its rows are the outputs and its columns the numbers of the image, both row by row with channels last. At stride 1
    the matrix of one row of pixels is Toeplitz: each row is the row above, moved by one pixel. That of an image has a
    block for each pair of image rows: each block is Toeplitz, and the blocks are arranged so. With circular padding
    both are circulant. Where there are several channels, a number is here the little matrix of one tap.

    Args:
        kernel: the filters.
        image_size: H and W.
        padding: as `Conv` takes it, as the other arguments.

    Raises:
        UserError: the filter does not fit, or there is no such kind of padding.
    """
    edges, strides = normalize_padding(padding), height_and_width(stride, "stride")
    dilations = height_and_width(dilation, "dilation")
    counts = []
    for pixels, taps, step, pair, gap in zip(image_size, kernel.shape[:2], strides, edges, dilations, strict=True):
        counts.append(output_size(pixels, taps, stride=step, padding=pair, dilation=gap))
    # The number of the pixel that stands at each place of the padded image; -1 where a zero does.
    height, width = image_size
    numbers = np.arange(height * width).reshape(height, width)
    mode: Any = MODES[check_padding_kind(padding_kind)]
    fill = {"constant_values": -1} if padding_kind == ZERO else {}
    padded = np.pad(numbers, edges, mode=mode, **fill)
    (rows, columns), (height_taps, width_taps, channels, filters) = counts, kernel.shape
    matrix = np.zeros((rows, columns, filters, height * width, channels))
    for i, j, v, u in np.ndindex(rows, columns, height_taps, width_taps):
        pixel = padded[i * strides[0] + v * dilations[0], j * strides[1] + u * dilations[1]]
        if pixel >= 0:
            # Added, not set: one pixel may stand in the padding and in the image of the same window.
            matrix[i, j, :, pixel] += kernel[v, u].T
    return matrix.reshape(rows * columns * filters, height * width * channels)


def unfold(images: np.ndarray, window: int, *, stride: int) -> np.ndarray:  # (B, H, W, I) -> (B, N, V*U*I)
    """Returns the pixels of each window as one row, windows row by row; without padding.

    A product with a kernel of shape (V*U*I, O) is then the convolution (im2col), and with stride = window the patch
    embedding.
    """
    windows = np.lib.stride_tricks.sliding_window_view(images, (window, window), axis=(1, 2))
    windows = windows[:, ::stride, ::stride]  # (B, Y, X, I, V, U)
    return np.moveaxis(windows, 3, -1).reshape(len(images), windows.shape[1] * windows.shape[2], -1)


def average_kernel(size: IntOrPair, channels: int) -> np.ndarray:  # -> (V, U, 1, I)
    """Returns the depthwise kernel that takes the mean of a window, which counts zeros of the padding."""
    height, width = height_and_width(size, "size")
    return np.full((height, width, 1, channels), 1 / (height * width), np.float32)


# Attention that is a convolution --------------------------------------------------------------------------------------


def attention_of_convolution(
    kernel: np.ndarray, *, sharpness: float
) -> tuple[Attention, dict[str, Any]]:  # (V, U, I, O)
    """Returns an attention layer and the values with which it convolves.

    Head (v, u) of a pixel at q gives the pixel at p the weight softmax over p of

        -sharpness |p - q - d|^2          d = (v, u) minus the middle of the filter

    which for a large sharpness is 1 at p = q + d and 0 elsewhere; the last dense layer multiplies what each head has
    read by the weights of the filter there. Multiplied out, the score is a product of (-1, 2 (q + d)) and (|p|^2, p):
    a query and a key that a dense layer makes of `add_places`; what is left depends on q alone, and the softmax does
    not see it. So only p - q decides: positions are relative. Beside the border the nearest pixel of the image gets the
    weight, which is a convolution with edge padding.

    Source: Cordonnier et al., On the Relationship between Self-Attention and Convolutional Layers, ICLR 2020,
    arXiv:1911.03584, theorem 1 and lemma 2, with its quadratic encoding. Departs from it: it leaves the place of
    the pixels outside the image open.

    Args:
        kernel: the filters, of odd sides.
        sharpness: how much the score falls from the pixel that is read to its neighbor.

    Raises:
        UserError: a side of the filters is even, so that it has no middle.
    """
    height, width, channels, filters = kernel.shape
    if not height % 2 or not width % 2:
        raise UserError(f"a filter of {height}x{width} pixels has no middle; make both sides odd")
    heads = height * width
    pixel_features = max(channels, filters)  # the layer gives as many features as it takes
    token_width, head_width = pixel_features + PLACE_FEATURES, max(channels, PLACE_FEATURES)
    square, row, column = range(pixel_features, token_width)
    query = np.zeros((token_width, heads, head_width), np.float32)
    query_bias = np.zeros((heads, head_width), np.float32)
    key, value = np.zeros_like(query), np.zeros_like(query)
    out = np.zeros((heads, head_width, token_width), np.float32)
    scale = sharpness * math.sqrt(head_width)  # the layer divides the scores by the root
    offsets = [(v - height // 2, u - width // 2) for v, u in np.ndindex(height, width)]
    for head, (down, right) in enumerate(offsets):
        query_bias[head, :3] = -scale, 2 * scale * down, 2 * scale * right
        query[row, head, 1] = query[column, head, 2] = 2 * scale
        out[head, :channels, :filters] = kernel[down + height // 2, right + width // 2]
    key[square, :, 0] = key[row, :, 1] = key[column, :, 2] = 1
    for channel in range(channels):
        value[channel, :, channel] = 1
    inner_width = heads * head_width

    def dense(weights: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
        return {"kernel": weights.reshape(token_width, inner_width), "bias": bias.reshape(inner_width)}

    zeros = np.zeros(inner_width, np.float32)
    params = {
        "query": dense(query, query_bias),
        "key": dense(key, zeros),
        "value": dense(value, zeros),
        "out": {"kernel": out.reshape(inner_width, token_width), "bias": np.zeros(token_width, np.float32)},
    }
    return Attention(token_width, heads, head_width=head_width), params


def add_places(images: np.ndarray, features: int) -> np.ndarray:  # (B, H, W, I) -> (B, N, D)
    """Returns pixels as tokens: their channels, zeros up to so many features, then |p|^2, row and column of p.

    Rows and columns are counted from the center of the image, so that the numbers stay small.
    """
    batch, height, width, channels = images.shape
    rows, columns = np.mgrid[:height, :width] - np.array([(height - 1) / 2, (width - 1) / 2]).reshape(2, 1, 1)
    places = np.stack([rows**2 + columns**2, rows, columns], -1).reshape(1, height * width, PLACE_FEATURES)
    pixels = images.reshape(batch, height * width, channels)
    empty = np.zeros((batch, height * width, features - channels))
    tokens = [pixels, empty, np.broadcast_to(places, (batch, *places.shape[1:]))]
    return np.concatenate(tokens, -1).astype(np.float32)


def read_weights(
    attention: Attention, params: Mapping[str, Any], tokens: np.ndarray
) -> np.ndarray:  # (B, N, D) -> (B, N, A, N)
    """Returns how much each token reads from each other in each head."""
    batch, count = tokens.shape[:2]
    inputs = []
    for name in ("query", "key"):
        features = tokens @ params[name]["kernel"] + params[name]["bias"]
        inputs.append(features.reshape(batch, count, attention.heads, -1))
    # Each token has a value that is 1 in a feature of its own: what a head reads of these are its weights.
    values = np.broadcast_to(np.eye(count, dtype=np.float32)[:, None], (batch, count, attention.heads, count))
    return np.asarray(attend(*map(jnp.asarray, (*inputs, values))))


# Running a layer ------------------------------------------------------------------------------------------------------


def layer_function(layer: nnx.Module) -> Callable[..., jax.Array]:
    """Returns a layer of `nn/` without statistics as a function of (params, *inputs)."""
    graph, *_ = nnx.split(layer, nnx.Param, nnx.BatchStat)

    def run(params: Mapping[str, Any], *inputs: jax.Array) -> jax.Array:
        return nnx.merge(graph, params, {})(*inputs)

    return run


def run_layer(layer: nnx.Module, params: Mapping[str, Any], *inputs: np.ndarray) -> np.ndarray:
    """Runs a layer of `nn/` without statistics, compiled as a whole."""
    return np.asarray(compile_for(layer, layer_function(layer))(params, *inputs))
