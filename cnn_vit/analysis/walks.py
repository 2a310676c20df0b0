"""Walks through one layer on one image, number by number: convolution, padding, pooling and attention.

What comes out of a layer is what the package's own layer returns, run on the image; what is read at each position is
taken from the image beside it, so that both can be compared.

Axes:
    H, W image height and width    R, S height and width with padding    Y, X height and width of the output
    C channels    V, U height and width of a window    N tokens    D width of a token    E width of the head
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from cnn_vit.analysis.input_layer import split_into_patches
from cnn_vit.analysis.record import record_calls
from cnn_vit.errors import UserError
from cnn_vit.nn.attention import Attention, attend
from cnn_vit.nn.conv import Conv
from cnn_vit.nn.norm import normalize
from cnn_vit.nn.padding import ZERO, surround
from cnn_vit.nn.pool import average_pool, blur_pool, max_pool
from cnn_vit.nn.values import functional, initial_values

EPSILON = 1e-6  # of the norm in front of attention, as in a ViT


@dataclass(frozen=True)
class WindowPosition:
    """A place of a window.

    Attributes:
        row: of the output.
        column: of the output.
        rows: of the padded image, which the window reads.
        columns: of the padded image, which the window reads.
    """

    row: int
    column: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    def read(self, padded: np.ndarray) -> np.ndarray:  # (R, S, C) -> (V, U, C)
        """Returns the pixels under the window."""
        return padded[np.ix_(self.rows, self.columns)]


@dataclass(frozen=True)
class WindowWalk:
    """A window that slides over an image.

    Attributes:
        image: (H, W, C) pixels.
        padded: (R, S, C) the image in its padding.
        padding: pixels on each side.
        window: height and width of the window.
        stride: pixels from one position to the next.
        dilation: pixels from one row (or column) of the window to the next.
    """

    image: np.ndarray
    padded: np.ndarray
    padding: int
    window: tuple[int, int]
    stride: int
    dilation: int

    def positions(self) -> Iterator[WindowPosition]:
        """Yields the places of the window, row by row."""
        counts = []
        for pixels, side in zip(self.padded.shape[:2], self.window, strict=True):
            counts.append((pixels - self.dilation * (side - 1) - 1) // self.stride + 1)
        for row in range(counts[0]):
            for column in range(counts[1]):
                rows = range(row * self.stride, row * self.stride + self.dilation * self.window[0], self.dilation)
                columns = range(
                    column * self.stride, column * self.stride + self.dilation * self.window[1], self.dilation
                )
                yield WindowPosition(row, column, tuple(rows), tuple(columns))

    def is_padding(self, row: int, column: int) -> bool:
        """Whether a place of the padded image lies outside the image."""
        height, width = self.image.shape[:2]
        return not (0 <= row - self.padding < height and 0 <= column - self.padding < width)


@dataclass(frozen=True)
class ConvolutionWalk:
    """A convolution with one filter.

    Attributes:
        slide: where the filter lies.
        kernel: (V, U, C) weights.
        padding_kind: what stands in the padding.
        output: (Y, X) what `nn.conv.Conv` returns.
    """

    slide: WindowWalk
    kernel: np.ndarray
    padding_kind: str
    output: np.ndarray


def walk_convolution(
    image: np.ndarray,
    kernel: np.ndarray,
    *,
    stride: int = 1,
    padding: int = 0,
    padding_kind: str = "zero",
    dilation: int = 1,
) -> ConvolutionWalk:  # (H, W, C), (V, U, C)
    """Slides one filter over an image.

    Args:
        image: pixels.
        kernel: weights of the filter.
        stride: pixels from one position to the next.
        padding: pixels on each side.
        padding_kind: what stands there, one of `nn.padding.MODES`.
        dilation: pixels from one weight to the next.

    Raises:
        UserError: the filter does not fit, or the padding is no padding of this image.
    """
    window = kernel.shape[0], kernel.shape[1]
    layer = Conv(
        image.shape[2],
        1,
        window,
        padding=padding,
        padding_kind=padding_kind,
        stride=stride,
        dilation=dilation,
        bias=False,
    )
    pixels = jnp.asarray(image[None], jnp.float32)
    (call,) = record_calls(layer, pixels, {"kernel": jnp.asarray(kernel[..., None], jnp.float32)})
    padded = surround(pixels, layer.padding, padding_kind)
    slide = WindowWalk(image, np.asarray(padded[0]), padding, window, stride, dilation)
    return ConvolutionWalk(slide, kernel, padding_kind, np.asarray(call.outputs[0, ..., 0]))


@dataclass(frozen=True)
class PoolingWalk:
    """Four kinds of pooling of one image with the same window.

    Attributes:
        slide: where the window lies.
        outputs: (Y, X) by kind: "max", "average" and "blur" are those of `nn.pool`, "stride" is the first pixel of each
            window, as a convolution with a stride reads it.
    """

    slide: WindowWalk
    outputs: dict[str, np.ndarray]


def walk_pooling(image: np.ndarray, *, size: int, stride: int) -> PoolingWalk:  # (H, W)
    """Pools an image with windows of size x size pixels.

    Raises:
        UserError: the window does not fit into the image.
    """
    pixels = jnp.asarray(image[None, ..., None], jnp.float32)
    outputs = {
        "max": max_pool(pixels, size, stride=stride, padding=0),
        "average": average_pool(pixels, size, stride=stride, padding=0, count_padding=True),
        "blur": blur_pool(pixels, size, stride=stride, padding=0, padding_kind=ZERO),
    }
    arrays = {kind: np.asarray(output[0, ..., 0]) for kind, output in outputs.items()}
    slide = WindowWalk(image[..., None], image[..., None], 0, (size, size), stride, 1)
    rows, columns = arrays["max"].shape
    arrays["stride"] = image[::stride, ::stride][:rows, :columns]
    return PoolingWalk(slide, arrays)


@dataclass(frozen=True)
class AttentionWalk:
    """One head of attention between the patches of an image.

    Attributes:
        image: (H, W) pixels.
        patch: side of a patch in pixels.
        tokens: (N, D) the pixels of each patch in one row, normalized to mean 0 and variance 1.
        projections: by name ("query", "key" and "value") the kernel (D, E) that tokens are multiplied by, and the bias
            (E,) that is added.
        queries: (N, E) what each token asks for.
        keys: (N, E) what each token answers to.
        values: (N, E) what each token gives.
        scores: (N, N) each query with each key, divided by sqrt(E).
        weights: (N, N) softmax of each row of scores.
        output: (N, E) what `nn.attention.attend` returns.
    """

    image: np.ndarray
    patch: int
    tokens: np.ndarray
    projections: dict[str, dict[str, np.ndarray]]
    queries: np.ndarray
    keys: np.ndarray
    values: np.ndarray
    scores: np.ndarray
    weights: np.ndarray
    output: np.ndarray


def walk_attention(image: np.ndarray, *, patch: int, head_width: int, seed: int) -> AttentionWalk:  # (H, W)
    """Runs one head of attention, with projections that are drawn and not trained.

    Args:
        image: pixels in 0..1.
        patch: side of a patch in pixels.
        head_width: numbers of a query, a key and a value.
        seed: of the projections.

    Raises:
        UserError: the image is no whole number of patches, or is one patch alone.
    """
    height, width = image.shape
    if height % patch or width % patch:
        raise UserError(f"{height}x{width} pixels are not whole {patch}-pixel patches; take a patch that divides them")
    pixels = split_into_patches(image[..., None], patch).reshape(-1, patch * patch).astype(np.float32)
    if len(pixels) < 2:
        raise UserError(f"one patch of {patch} pixels has no other to attend to; take a smaller patch")
    # A norm stands before attention in a ViT, too: without it all keys have the brightness of the image in common.
    tokens = normalize(jnp.asarray(pixels), (-1,), EPSILON)
    attention = Attention(patch * patch, 1, head_width=head_width, initializer="lecun_normal")
    params, _ = initial_values(functional(attention), seed)
    calls = {call.path: call for call in record_calls(attention, tokens[None], params)}
    names = ("query", "key", "value")
    queries, keys, values = (calls[path].outputs for path in names)  # (1, N, E)
    # Of values that are the rows of the identity matrix, attention returns the weights.
    unit_values = jnp.eye(len(tokens))[None, :, None]
    weights = attend(queries[:, :, None], keys[:, :, None], unit_values)  # (1, N, 1, N)
    return AttentionWalk(
        image=image,
        patch=patch,
        tokens=np.asarray(tokens),
        projections={name: {part: np.asarray(value) for part, value in params[name].items()} for name in names},
        queries=np.asarray(queries[0]),
        keys=np.asarray(keys[0]),
        values=np.asarray(values[0]),
        scores=np.asarray(queries[0] @ keys[0].T) / math.sqrt(head_width),
        weights=np.asarray(weights[0, :, 0]),
        output=np.asarray(calls["attend"].outputs[0, :, 0]),
    )
