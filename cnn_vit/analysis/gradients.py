"""Gradients on their way down a network: of the loss to what each layer returns, and of a unit to the image's pixels.

    for layer in measure_gradients(network, params, stats, images, labels): layer.path, layer.size
    field = measure_field(network, params, stats, images, path="stages/0/convolutions/1")
    field.spread, field.box                  the pixels that the unit in the middle of that layer really uses

The gradient to a layer's output is that to a zero which is added to the output.

A unit's receptive field has two sizes. The theoretical one holds every pixel that can have any influence. The effective
one is how the influence is spread: the mean square of the derivative of the unit to each pixel. Behind n convolutions
with k x k random filters the square spreads as the chances of a random walk of n steps do, each of them uniform over k
pixels, so that

    spread = sqrt(n (k^2 - 1) / 12)          pixels along each side, while the theoretical field is n (k - 1) + 1

Source: Luo, Li, Urtasun, Zemel, Understanding the Effective Receptive Field in Deep Convolutional Neural Networks,
NeurIPS 2016, arXiv:1701.04128, section 2.

Axes:
    B images    H, W image height and width in pixels    C colors
"""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from cnn_vit.analysis.record import Call, RunLayer, Values, compile_for, run_network
from cnn_vit.errors import UserError, unknown

KEPT = 8  # compiled measurements; the same network with other values compiles nothing


@dataclass(frozen=True)
class LayerGradient:
    """The gradient of the loss to the output of one layer.

    Attributes:
        path: of the layer, as `record.Call` has it.
        kind: name of the layer's class, or of the function.
        size: the root of its mean square over all elements of the output.
    """

    path: str
    kind: str
    size: float


@dataclass(frozen=True)
class EffectiveField:
    """How the influence on the unit in the middle of a layer's map is spread over the image.

    Attributes:
        influence: (H, W) the mean square of the derivative of the unit to each pixel, as shares of their sum.
        box: (height, width) of the smallest rectangle that holds every pixel with any influence.
        spread: (rows, columns) standard deviation of the influence in pixels.
    """

    influence: np.ndarray
    box: tuple[int, int]
    spread: tuple[float, float]


def measure_gradients(
    network: nnx.Module, params: Values, stats: Values, images: np.ndarray, labels: np.ndarray, *, train: bool = True
) -> list[LayerGradient]:  # images: (B, H, W, C), labels: (B,)
    """Returns the gradient of the mean cross-entropy to the output of each layer, in the order of the calls.

    Args:
        network: the network, declared without values; it draws nothing at random.
        params: its parameters.
        stats: its running statistics.
        images: as the network takes them.
        labels: the class of each.
        train: whether batch norm takes the statistics of the batch, and so passes gradients through them.
    """
    measure, calls = compile_gradients(network, train)
    sizes = measure(params, stats, images, labels)
    return [LayerGradient(call.path, call.kind, float(size)) for call, size in zip(calls, sizes, strict=True)]


@functools.lru_cache(maxsize=KEPT)
def compile_gradients(network: nnx.Module, train: bool) -> tuple[Any, list[Call]]:
    """Returns the compiled measurement, and a list that holds the calls of the layers once it has run."""
    calls: list[Call] = []

    def measure(params: Values, stats: Values, images: jax.Array, labels: jax.Array) -> list[jax.Array]:
        def evaluate(zeros: dict[str, jax.Array]) -> jax.Array:
            calls.clear()

            def add_zeros(call: Call, run: RunLayer) -> Any:
                outputs = run(call.inputs)
                if not isinstance(outputs, jax.Array):
                    return outputs
                shape = jax.ShapeDtypeStruct(outputs.shape, outputs.dtype)
                calls.append(Call(call.path, call.kind, call.layer, {}, shape))
                return outputs + zeros[call.path] if call.path in zeros else outputs

            scores = run_network(network, params, stats, images, add_zeros, train=train)
            return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()

        jax.eval_shape(evaluate, {})  # fills `calls` with the outputs, whose shapes the zeros have
        zeros = {call.path: jnp.zeros(call.outputs.shape, call.outputs.dtype) for call in calls}
        gradients = jax.grad(evaluate)(zeros)
        return [jnp.sqrt(jnp.square(gradients[call.path].astype(jnp.float32)).mean()) for call in calls]

    return compile_for(network, measure), calls


def measure_field(
    network: nnx.Module, params: Values, stats: Values, images: np.ndarray, *, path: str
) -> EffectiveField:  # (B, H, W, C)
    """Returns the effective receptive field of the unit in the middle of a layer's map, in an evaluation.

    The unit is the sum of the channels there, each with a sign that belongs to its number and to the image's, so that
    the mean over images is a mean over channels too.

    Args:
        network: the network, declared without values.
        params: its parameters.
        stats: its running statistics.
        images: over which the square of the derivative is averaged.
        path: of the layer, as `record.Call` has it.

    Raises:
        UserError: there is no such layer, or what it returns is not a map.
    """

    squares = compile_field(network, path)(params, stats, images)
    return summarize_influence(np.asarray(squares, np.float64))


@functools.lru_cache(maxsize=KEPT)
def compile_field(network: nnx.Module, path: str) -> Any:
    """Returns the compiled measurement of the squares of the derivatives of the unit in the middle of a layer."""

    def measure(params: Values, stats: Values, images: jax.Array) -> jax.Array:  # (B, H, W, C) -> (H, W)
        def read_unit(images: jax.Array) -> jax.Array:
            outputs: dict[str, Any] = {}

            def keep_output(call: Call, run: RunLayer) -> Any:
                outputs[call.path] = run(call.inputs)
                return outputs[call.path]

            run_network(network, params, stats, images, keep_output, train=False)
            if path not in outputs:
                raise unknown("layer", path, outputs)
            features = outputs[path]
            if getattr(features, "ndim", 0) != 4:
                raise UserError(f"{path} returns no map of the image, so it has no middle unit; name another layer")
            unit = features[:, features.shape[1] // 2, features.shape[2] // 2]
            signs = np.random.default_rng(0).choice([-1.0, 1.0], unit.shape)
            return (unit * signs.astype(unit.dtype)).sum()

        return jnp.square(jax.grad(read_unit)(images)).sum((0, 3))

    return compile_for(network, measure)


def summarize_influence(squares: np.ndarray) -> EffectiveField:  # (H, W)
    """Returns the effective field of the mean squares of a derivative; a unit that sees nothing has a spread of 0."""
    influence = squares / (squares.sum() or 1.0)
    box, spread = [], []
    for other_side in (1, 0):
        along = influence.sum(other_side)  # over the columns for the rows, and the other way round
        (seen,) = np.nonzero(along)
        box.append(int(seen.max() - seen.min() + 1) if seen.size else 0)
        pixels = np.arange(len(along))
        mean = (along * pixels).sum()
        spread.append(float(np.sqrt((along * (pixels - mean) ** 2).sum())))
    return EffectiveField(influence, (box[0], box[1]), (spread[0], spread[1]))
