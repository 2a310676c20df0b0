"""How the layers of a network answer a shifted image: what moves along with it, and what stays as it was.

T shifts an image by d pixels, and f is the network up to a layer, whose neighbors lie s pixels of the image apart.

    equivariance error    |f(T x) - T' f(x)| / |f(x)|     T' shifts by d / s; 0 where the features move with the image
    invariance error      |f(T x) - f(x)| / |f(x)|        0 where the features do not notice

|.| is the root of the mean square over images, places and channels. Where it is 0 of f(x), as behind a norm whose scale
begins as 0, there is nothing that an error could be relative to: both are nan.

"Shift" has two meanings here, and a network may obey one of them only:

    around    what leaves the image at one side comes in at the other (numpy.roll)
    window    the camera moves: a window of the same size lies d pixels farther on a larger image

Features are compared where both images have them: of a window where the two overlap, of a shift around everywhere.
Tokens of patches are a map as well, whose stride is the side of a patch; tokens without a place, as the class token,
stand in front of them and are left out.

Axes:
    B images    H, W image height and width    Y, X height and width of a layer's map    C channels    T tokens
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np
from flax import nnx

from cnn_vit import compilation
from cnn_vit.analysis.record import Call, record_calls
from cnn_vit.analysis.windows import find_windows
from cnn_vit.compilation import ProgramKind
from cnn_vit.errors import UserError, unknown
from cnn_vit.nn.conv import is_convolutional
from cnn_vit.nn.patches import PatchEmbed

Motion = Literal["around", "window"]
MOTIONS = ("around", "window")
MOST_OTHER_TOKENS = 2  # beside those of patches: a class token, and the one that a distilled network has besides


@dataclass(frozen=True)
class LayerShift:
    """How the output of one layer answers a shift.

    Attributes:
        path: of the layer, as `record.Call` has it.
        kind: name of the layer's class, or of the function.
        stride: pixels of the image between two neighbors of its map; None where its output is not a map.
        equivariance: the error; None where the output is not a map, or the shift is not whole in its pixels; nan where
            the output is 0 everywhere.
        invariance: the error; nan where the output is 0 everywhere.
        errors: (Y, X) the equivariance error at each place of the map, relative to |f(x)|; None or nan as that is.
    """

    path: str
    kind: str
    stride: int | None
    equivariance: float | None
    invariance: float
    errors: np.ndarray | None

    @property
    def center(self) -> float | None:
        """The equivariance error at the center of the map; None as equivariance."""
        if self.errors is None:
            return None
        height, width = self.errors.shape
        return float(self.errors[height // 2, width // 2])


@dataclass(frozen=True)
class ShiftReport:
    """How a network answers a shift.

    Attributes:
        layers: the calls of its layers in order; the last is the whole network.
        consistency: share of the images whose best class is the same before and after.
        largest_change: of any score, where the shift leaves the scores as they are in exact arithmetic about 1e-6.
    """

    layers: tuple[LayerShift, ...]
    consistency: float
    largest_change: float


def measure_shift(
    network: nnx.Module,
    params: Mapping[str, Any],
    stats: Mapping[str, Any],
    images: np.ndarray,
    *,
    shift: tuple[int, int],
    motion: Motion = "around",
) -> ShiftReport:  # images: (B, H, W, C)
    """Compares what each layer says of images and of the shifted images.

    Args:
        network: the network, declared without values.
        params: its parameters.
        stats: its running statistics.
        images: for a window they are larger than what the network sees, by the shift.
        shift: pixels down and right, from 0 on.
        motion: what a shift means, one of MOTIONS.

    Raises:
        UserError: there is no such motion, or the shift is not one.
    """
    first, second = shift_images(images, shift, motion)
    # Both in one batch, so that one program is compiled and no difference comes from another.
    calls = run_layers(network, params, stats, np.concatenate([first, second]))
    strides, grid = find_strides(calls), find_patch_grid(calls)
    layers = []
    for call in calls:
        if not isinstance(call.outputs, np.ndarray):
            continue
        outputs, stride = lay_out_map(call, strides, grid)
        features, shifted_features = np.split(outputs, 2)
        layers.append(compare_layer(call, features, shifted_features, stride, shift, motion))
    scores, shifted_scores = np.split(calls[0].outputs, 2)  # the network itself is the first call to begin
    consistency = float((scores.argmax(-1) == shifted_scores.argmax(-1)).mean())
    # The whole network stands first, because its call begins first; readers expect it at the end.
    return ShiftReport((*layers[1:], layers[0]), consistency, float(np.abs(shifted_scores - scores).max()))


def shift_images(
    images: np.ndarray, shift: tuple[int, int], motion: str
) -> tuple[np.ndarray, np.ndarray]:  # (B, H, W, C)
    """Returns the images and the shifted images, of one size.

    Raises:
        UserError: there is no such motion, or the shift does not fit the images.
    """
    if motion not in MOTIONS:
        raise unknown("motion", motion, MOTIONS)
    down, right = shift
    height, width = images.shape[1:3]
    if not (0 <= down < height and 0 <= right < width):
        raise UserError(f"a shift of {down}, {right} pixels does not fit images of {height}x{width}; make it smaller")
    if motion == "around":
        return images, np.roll(images, (down, right), axis=(1, 2))
    # The window moves up and left on the larger image, so that what it shows moves down and right.
    return images[:, down:, right:], images[:, : height - down, : width - right]


def run_layers(
    network: nnx.Module, params: Mapping[str, Any], stats: Mapping[str, Any], images: np.ndarray
) -> list[Call]:  # (B, H, W, C)
    """Runs a network and returns its calls, whose outputs are NumPy arrays where they are one array."""
    calls: list[Call] = []

    def run(params: dict, stats: dict, images: jax.Array) -> list[Any]:
        calls.clear()
        calls.extend(record_calls(network, images, params, stats))
        return [call.outputs for call in calls]

    kind = ProgramKind(jax.default_backend(), convolutional=is_convolutional(network), dtype="float32")
    outputs = compilation.jit(run, kind)(params, stats, images)
    arrays = []
    for call, output in zip(calls, outputs, strict=True):
        value = np.asarray(output, np.float32) if isinstance(output, jax.Array) else None
        # What was traced is dropped: of the inputs, only sides and settings are read from here on.
        shapes = {name: sides_or_setting(entry) for name, entry in call.inputs.items()}
        arrays.append(Call(call.path, call.kind, call.layer, shapes, value))
    return arrays


def sides_or_setting(entry: Any) -> Any:
    """Returns the shape and dtype of an array; anything else as it is."""
    return jax.ShapeDtypeStruct(entry.shape, entry.dtype) if isinstance(entry, jax.Array) else entry


def find_strides(calls: list[Call]) -> dict[int, int]:
    """Returns the pixels of the image between two neighbors of a map, by the map's height.

    Maps grow only smaller on their way, so that maps of one height have one stride.
    """
    strides = {calls[0].inputs["images"].shape[1]: 1}
    for call in calls:
        windows = find_windows(call)
        if windows is None or not isinstance(call.outputs, np.ndarray) or windows[0].n not in strides:
            continue
        strides.setdefault(call.outputs.shape[1], strides[windows[0].n] * windows[0].s)
    return strides


def find_first_stride(network: nnx.Module, image_shape: tuple[int, int, int]) -> int | None:
    """Returns the stride of the first layer with a window, or the side of a patch; None where there is neither.

    Every later map has a multiple of it as its stride.

    Args:
        network: the network, declared without values.
        image_shape: the shape (H, W, C) of an image.
    """
    for call in record_calls(network, jax.ShapeDtypeStruct((1, *image_shape), np.float32)):
        if isinstance(call.layer, PatchEmbed):
            return call.layer.patch
        windows = find_windows(call)
        if windows is not None:
            return windows[0].s
    return None


@dataclass(frozen=True)
class PatchGrid:
    """How the patches of an image lie.

    Attributes:
        rows: of patches.
        columns: of patches.
        side: of a patch in pixels of the image.
    """

    rows: int
    columns: int
    side: int


def find_patch_grid(calls: list[Call]) -> PatchGrid | None:
    """Returns the patches that a network cuts its images into; None where it cuts none."""
    for call in calls:
        if isinstance(call.layer, PatchEmbed):
            height, width = call.inputs["x"].shape[1:3]
            side = call.layer.patch
            return PatchGrid(height // side, width // side, side)
    return None


def lay_out_map(
    call: Call, strides: Mapping[int, int], grid: PatchGrid | None
) -> tuple[np.ndarray, int | None]:  # -> (B, Y, X, C)
    """Returns the output of a call as a map, with the stride of the map; as it is, and None, where it is no map."""
    features = call.outputs
    is_of_heads = call.kind == "attend"  # whose output is (B, T, heads, channels)
    if features.ndim == 4 and not is_of_heads:
        return features, strides.get(features.shape[1])
    if grid is None or features.ndim < 3:
        return features, None
    batch, count = features.shape[:2]
    others = count - grid.rows * grid.columns
    if not 0 <= others <= MOST_OTHER_TOKENS:
        return features, None
    return features[:, others:].reshape(batch, grid.rows, grid.columns, -1), grid.side


def compare_layer(
    call: Call,
    features: np.ndarray,
    shifted: np.ndarray,
    stride: int | None,
    shift: tuple[int, int],
    motion: str,
) -> LayerShift:  # features, shifted: (B, ...)
    """Compares the output of a call for the images with that for the shifted images."""
    size = root_mean_square(features) or math.nan  # an error relative to 0 is undefined
    invariance = root_mean_square(shifted - features) / size
    if stride is None or any(pixels % stride for pixels in shift):
        return LayerShift(call.path, call.kind, stride, None, invariance, None)
    down, right = (pixels // stride for pixels in shift)
    if motion == "around":
        difference = shifted - np.roll(features, (down, right), axis=(1, 2))
    else:
        height, width = features.shape[1:3]
        difference = shifted[:, down:, right:] - features[:, : height - down, : width - right]
    errors = np.sqrt((difference.astype(np.float64) ** 2).mean((0, 3))) / size  # (Y, X)
    return LayerShift(call.path, call.kind, stride, root_mean_square(difference) / size, invariance, errors)


def root_mean_square(values: np.ndarray) -> float:
    """The root of the mean square of all numbers of an array, in float64; 0 of an empty one."""
    return float(np.sqrt(np.square(values, dtype=np.float64).mean())) if values.size else 0.0
