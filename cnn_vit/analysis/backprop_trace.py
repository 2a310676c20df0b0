"""Walks one image through a small CNN and back, layer by layer, and compares each gradient with automatic ones.

    conv - ReLU - max pooling - conv - ReLU - max pooling - dense - softmax cross-entropy

`trace` computes with the functions of `backprop.py` in NumPy alone. jax then derives the same loss by each parameter,
by the image, and by each number between two layers, in float64: `Trace.differences` holds how far the two are apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_vit.analysis import backprop

FILTERS = (4, 6)  # of the two convolutions
KERNEL = 3  # pixels of a kernel's side
PADDING: backprop.Padding = ((1, 1), (1, 1))  # keeps height and width
POOL = 2  # pixels of a window's side, and its stride
NUM_CLASSES = 10
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class LayerTrace:
    """What happened in one layer.

    Attributes:
        name: such as "conv1".
        kind: "conv", "relu", "max_pool" or "dense".
        x: what came in.
        y: what went out.
        params: its parameters by name, "w" and "b"; none of ReLU and pooling.
        g: dL/dy.
        dx: dL/dx.
        gradients: dL/d of each parameter.
    """

    name: str
    kind: str
    x: np.ndarray
    y: np.ndarray
    params: Arrays
    g: np.ndarray
    dx: np.ndarray
    gradients: Arrays


@dataclass(frozen=True)
class Difference:
    """How far a number by hand is from the automatic one.

    Attributes:
        layer: name of the layer.
        array: "y", "dL/dy", "dL/dx", "dL/dw" or "dL/db".
        largest: the largest difference of any two numbers.
        scale: the largest number of the array.
    """

    layer: str
    array: str
    largest: float
    scale: float


@dataclass(frozen=True)
class Trace:
    """A walk forward and backward, and one step of gradient descent.

    Attributes:
        image: pixels (H, W) in 0..1.
        label: class of the image.
        layers: in forward order.
        scores: (K,) of the last layer.
        probabilities: (K,) softmax of the scores.
        loss: cross-entropy at the label.
        score_gradient: dL/dscores, (K,).
        rate: learning rate of the step.
        stepped: parameters after the step, by layer and name.
        loss_after: the loss of the same image with these.
        probabilities_after: its probabilities with these.
        differences: from automatic differentiation, of each array of each layer.
        loss_difference: of the loss, and of the loss after the step.
    """

    image: np.ndarray
    label: int
    layers: tuple[LayerTrace, ...]
    scores: np.ndarray
    probabilities: np.ndarray
    loss: float
    score_gradient: np.ndarray
    rate: float
    stepped: dict[str, Arrays]
    loss_after: float
    probabilities_after: np.ndarray
    differences: tuple[Difference, ...]
    loss_difference: tuple[float, float]

    @property
    def largest_difference(self) -> float:
        """The largest of all differences, of losses too."""
        return max(*self.loss_difference, *(difference.largest for difference in self.differences))

    def layer(self, name: str) -> LayerTrace:
        """The layer of a name."""
        return next(layer for layer in self.layers if layer.name == name)


# The network ----------------------------------------------------------------------------------------------------------

LAYERS = (
    ("conv1", "conv"),
    ("relu1", "relu"),
    ("pool1", "max_pool"),
    ("conv2", "conv"),
    ("relu2", "relu"),
    ("pool2", "max_pool"),
    ("dense", "dense"),
)


def initial_parameters(image_size: tuple[int, int], seed: int) -> dict[str, Arrays]:
    """Draws kernels of variance 2 / (numbers that a sum runs over), after He et al., arXiv:1502.01852; biases are 0."""
    rng = np.random.default_rng(seed)
    height, width = image_size
    numbers = (height // POOL // POOL) * (width // POOL // POOL) * FILTERS[1]
    shapes = {
        "conv1": (KERNEL, KERNEL, 1, FILTERS[0]),
        "conv2": (KERNEL, KERNEL, FILTERS[0], FILTERS[1]),
        "dense": (numbers, NUM_CLASSES),
    }
    parameters = {}
    for name, shape in shapes.items():
        fan_in = int(np.prod(shape[:-1]))
        parameters[name] = {"w": rng.normal(0, np.sqrt(2 / fan_in), shape), "b": np.zeros(shape[-1])}
    return parameters


def forward(x: np.ndarray, parameters: dict[str, Arrays]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns what went into each layer and what came out; the last output are the scores (B, K)."""
    steps = []
    for name, kind in LAYERS:
        if kind == "conv":
            y = backprop.conv_forward(x, parameters[name]["w"], parameters[name]["b"], padding=PADDING)
        elif kind == "relu":
            y = backprop.relu_forward(x)
        elif kind == "max_pool":
            y = backprop.max_pool_forward(x, POOL, POOL)
        else:
            x = x.reshape(len(x), -1)  # all numbers of an image in one row
            y = backprop.dense_forward(x, **parameters[name])
        steps.append((x, y))
        x = y
    return steps


def backward(
    steps: Sequence[tuple[np.ndarray, np.ndarray]], parameters: dict[str, Arrays], g: np.ndarray
) -> list[LayerTrace]:
    """Returns what happened in each layer, in forward order; `g` is dL/dscores."""
    traces = []
    for (name, kind), (x, y) in zip(reversed(LAYERS), reversed(steps), strict=True):
        g = g.reshape(y.shape)  # of the row of numbers, the image that it was
        params = parameters.get(name, {})
        gradients = {}
        if kind == "conv":
            dx, gradients["w"], gradients["b"] = backprop.conv_backward(x, params["w"], g, padding=PADDING)
        elif kind == "relu":
            dx = backprop.relu_backward(x, g)
        elif kind == "max_pool":
            dx = backprop.max_pool_backward(x, g, POOL, POOL)
        else:
            dx, gradients["w"], gradients["b"] = backprop.dense_backward(x, params["w"], g)
        traces.append(LayerTrace(name, kind, x, y, params, g, dx, gradients))
        g = dx
    return traces[::-1]


def trace(image: np.ndarray, label: int, *, rate: float, seed: int) -> Trace:
    """Walks an image through the network and back, takes one step, and compares with automatic differentiation.

    Args:
        image: pixels (H, W) in 0..1; sides of at least 4.
        label: its class, 0 to 9.
        rate: learning rate of the step.
        seed: of the initial parameters.
    """
    x = image.astype(float)[None, :, :, None]
    height, width = image.shape
    parameters = initial_parameters((height, width), seed)
    labels = np.array([label])
    steps = forward(x, parameters)
    scores = steps[-1][1]
    loss = backprop.softmax_cross_entropy_forward(scores, labels)
    score_gradient = backprop.softmax_cross_entropy_backward(scores, labels)
    layers = backward(steps, parameters, score_gradient)
    stepped = {}
    for layer in layers:
        if layer.params:
            stepped[layer.name] = {key: layer.params[key] - rate * layer.gradients[key] for key in layer.params}
    scores_after = forward(x, stepped)[-1][1]
    loss_after = backprop.softmax_cross_entropy_forward(scores_after, labels)
    automatic, automatic_losses = differentiate(x, label, parameters, rate)
    differences = []
    for layer in layers:
        arrays = {"y": layer.y, "dL/dy": layer.g, "dL/dx": layer.dx}
        arrays |= {f"dL/d{key}": gradient for key, gradient in layer.gradients.items()}
        for key, array in arrays.items():
            other = automatic[layer.name][key].reshape(array.shape)
            largest, scale = float(np.abs(array - other).max()), float(np.abs(array).max())
            differences.append(Difference(layer.name, key, largest, scale))
    return Trace(
        image=image,
        label=label,
        layers=tuple(layers),
        scores=scores[0],
        probabilities=backprop.softmax(scores)[0],
        loss=loss,
        score_gradient=score_gradient[0],
        rate=rate,
        stepped=stepped,
        loss_after=loss_after,
        probabilities_after=backprop.softmax(scores_after)[0],
        differences=tuple(differences),
        loss_difference=(abs(loss - automatic_losses[0]), abs(loss_after - automatic_losses[1])),
    )


# Automatic differentiation --------------------------------------------------------------------------------------------


def loss_in_jax(parameters: Any, x: jax.Array, taps: dict[str, jax.Array], label: int) -> tuple[jax.Array, Any]:
    """The loss of the same network, and the output of each layer.

    Args:
        parameters: by layer and name.
        x: the image (1, H, W, 1).
        taps: zeros that are added to the output of each layer: the derivative by them is dL/dy.
        label: class of the image.
    """
    outputs = {}
    for name, kind in LAYERS:
        if kind == "conv":
            x = jax.lax.conv_general_dilated(
                x, parameters[name]["w"], (1, 1), PADDING, dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = x + parameters[name]["b"]
        elif kind == "relu":
            x = jax.nn.relu(x)
        elif kind == "max_pool":
            window = (1, POOL, POOL, 1)
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
        else:
            x = x.reshape(len(x), -1) @ parameters[name]["w"] + parameters[name]["b"]
        x = x + taps[name]
        outputs[name] = x
    return -jax.nn.log_softmax(x)[0, label], outputs


def differentiate(
    x: np.ndarray, label: int, parameters: dict[str, Arrays], rate: float
) -> tuple[dict[str, Arrays], tuple[float, float]]:
    """Returns outputs and derivatives by layer from `jax.grad` in float64, and the loss before and after a step."""
    with jax.enable_x64(True):
        taps = {}
        for (name, _), (_, y) in zip(LAYERS, forward(x, parameters), strict=True):
            taps[name] = jnp.zeros(y.shape)
        params = jax.tree.map(jnp.asarray, parameters)
        derive = jax.value_and_grad(loss_in_jax, argnums=(0, 1, 2), has_aux=True)
        (loss, outputs), (gradients, image_gradient, tap_gradients) = derive(params, jnp.asarray(x), taps, label)
        stepped = jax.tree.map(lambda value, gradient: value - rate * gradient, params, gradients)
        loss_after, _ = loss_in_jax(stepped, jnp.asarray(x), taps, label)
        by_layer: dict[str, Arrays] = {}
        below = image_gradient
        for name, _ in LAYERS:
            arrays = {"y": outputs[name], "dL/dy": tap_gradients[name], "dL/dx": below}
            arrays |= {f"dL/d{key}": gradient for key, gradient in gradients.get(name, {}).items()}
            by_layer[name] = {key: np.asarray(array) for key, array in arrays.items()}
            below = tap_gradients[name]  # the dL/dx of the next layer
        return by_layer, (float(loss), float(loss_after))
