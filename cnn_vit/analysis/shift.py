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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import numpy as np
from flax import nnx

from cnn_vit.analysis.record import Call, Values, compile_for, record_calls
from cnn_vit.analysis.windows import find_windows
from cnn_vit.errors import UserError, unknown
from cnn_vit.nn.patches import PatchEmbed

Motion = Literal["around", "window"]
MOTIONS = ("around", "window")
MOST_PIXELS = 2**18  # of a batch: 5 images of 224 x 224, of which all features of a ResNet-18 take 0.8 GB
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
    params: Values,
    stats: Values,
    images: np.ndarray,
    *,
    shift: tuple[int, int],
    motion: Motion = "around",
    prepare: Callable[[np.ndarray], np.ndarray] = np.asarray,
    on_batch: Callable[[int], None] | None = None,
) -> ShiftReport:  # images: (B, H, W, C)
    """Compares what each layer says of images and of the shifted images.

    They go through the network in batches of MOST_PIXELS, and of the features only sums are kept.

    Args:
        network: the network, declared without values.
        params: its parameters.
        stats: its running statistics.
        images: for a window they are larger than what the network sees, by the shift.
        shift: pixels down and right, from 0 on.
        motion: what a shift means, one of MOTIONS.
        prepare: makes of a batch of `images` what the network takes.
        on_batch: called with the number of images that are done, after each batch; what it raises ends the work.

    Raises:
        UserError: there is no such motion, or the shift is not one.
    """
    run = compile_layers(network)
    count, batch = len(images), choose_batch(images.shape)
    layers: list[LayerSums] = []
    same_classes, largest_change = 0, 0.0
    for start in range(0, count, batch):
        first, second = shift_images(prepare(images[start : start + batch]), shift, motion)
        here = len(first)
        # The last batch is filled up, so that one program is compiled; what fills it is cut off behind.
        filling = [(0, min(batch, count) - here), (0, 0), (0, 0), (0, 0)]
        # Both in one batch, so that no difference comes from another program.
        calls = run(params, stats, np.concatenate([np.pad(array, filling, mode="edge") for array in (first, second)]))
        strides, grid = find_strides(calls), find_patch_grid(calls)
        sums = []
        for call in calls:
            if not isinstance(call.outputs, np.ndarray):
                continue
            outputs, stride = lay_out_map(call, strides, grid)
            features, shifted_features = (array[:here] for array in np.split(outputs, 2))
            sums.append(sum_squares(call, features, shifted_features, stride, shift, motion))
        layers = list(map(LayerSums.add, layers, sums)) if layers else sums
        # The network itself is the first call to begin.
        scores, shifted_scores = (array[:here] for array in np.split(calls[0].outputs, 2))
        same_classes += int((scores.argmax(-1) == shifted_scores.argmax(-1)).sum())
        largest_change = max(largest_change, float(np.abs(shifted_scores - scores).max()))
        if on_batch is not None:
            on_batch(start + here)
    compared = [sums.compare() for sums in layers]
    # The whole network stands first, because its call begins first; readers expect it at the end.
    return ShiftReport((*compared[1:], compared[0]), same_classes / count, largest_change)


def choose_batch(shape: Sequence[int]) -> int:
    """Returns how many images of a shape (B, H, W, C) go through a network at once, one at least."""
    return max(1, MOST_PIXELS // (shape[1] * shape[2]))


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


def compile_layers(network: nnx.Module) -> Callable[[Values, Values, np.ndarray], list[Call]]:
    """Returns a function of (params, stats, images) that runs a network and returns its calls.

    The outputs of a call are a NumPy array where they are one array, and None elsewhere.
    """
    traced: list[Call] = []

    def run(params: dict, stats: dict, images: jax.Array) -> list[Any]:
        traced.clear()
        traced.extend(record_calls(network, images, params, stats))
        return [call.outputs for call in traced]

    compiled = compile_for(network, run)

    def run_layers(params: Values, stats: Values, images: np.ndarray) -> list[Call]:
        outputs = compiled(params, stats, images)
        calls = []
        for call, output in zip(traced, outputs, strict=True):
            value = np.asarray(output, np.float32) if isinstance(output, jax.Array) else None
            # What was traced is dropped: of the inputs, only sides and settings are read from here on.
            shapes = {name: sides_or_setting(entry) for name, entry in call.inputs.items()}
            calls.append(Call(call.path, call.kind, call.layer, shapes, value))
        return calls

    return run_layers


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


@dataclass(frozen=True)
class LayerSums:
    """Sums of squares over the images that were compared so far, in float64.

    Attributes:
        path: of the layer, as `LayerShift` has it.
        kind: as `LayerShift` has it.
        stride: as `LayerShift` has it.
        numbers: how many numbers the output of the layer has.
        features: the sum over all of them.
        changes: the sum of the differences between the features of the shifted images and those of the images.
        errors: (Y, X) the sum of the differences from the shifted features at each place; None as `LayerShift.errors`.
        numbers_at_place: how many numbers there are at a place of the map.
    """

    path: str
    kind: str
    stride: int | None
    numbers: int
    features: float
    changes: float
    errors: np.ndarray | None
    numbers_at_place: int = 0

    def add(self, other: "LayerSums") -> "LayerSums":
        """Returns the sums of this layer over these images and others."""
        return replace(
            self,
            numbers=self.numbers + other.numbers,
            features=self.features + other.features,
            changes=self.changes + other.changes,
            errors=None if self.errors is None or other.errors is None else self.errors + other.errors,
            numbers_at_place=self.numbers_at_place + other.numbers_at_place,
        )

    def compare(self) -> LayerShift:
        """Returns the errors of the layer: roots of mean squares, relative to that of its features."""
        numbers = max(self.numbers, 1)
        size = math.sqrt(self.features / numbers) or math.nan  # an error relative to 0 is undefined
        invariance = math.sqrt(self.changes / numbers) / size
        if self.errors is None:
            return LayerShift(self.path, self.kind, self.stride, None, invariance, None)
        squares = self.errors / max(self.numbers_at_place, 1)  # (Y, X)
        equivariance = math.sqrt(float(squares.sum()) / max(squares.size, 1)) / size
        return LayerShift(self.path, self.kind, self.stride, equivariance, invariance, np.sqrt(squares) / size)


def sum_squares(
    call: Call,
    features: np.ndarray,
    shifted: np.ndarray,
    stride: int | None,
    shift: tuple[int, int],
    motion: str,
) -> LayerSums:  # features, shifted: (B, ...)
    """Returns the sums of a call for some images and for the shifted images."""
    sums = LayerSums(
        call.path, call.kind, stride, features.size, sum_of_squares(features), sum_of_squares(shifted - features), None
    )
    if stride is None or any(pixels % stride for pixels in shift):
        return sums
    down, right = (pixels // stride for pixels in shift)
    if motion == "around":
        difference = shifted - np.roll(features, (down, right), axis=(1, 2))
    else:
        height, width = features.shape[1:3]
        difference = shifted[:, down:, right:] - features[:, : height - down, : width - right]
    errors = np.square(difference, dtype=np.float64).sum((0, 3))  # (Y, X)
    return replace(sums, errors=errors, numbers_at_place=difference.shape[0] * difference.shape[3])


def sum_of_squares(values: np.ndarray) -> float:
    """The sum of the squares of all numbers of an array, in float64."""
    return float(np.square(values, dtype=np.float64).sum())
