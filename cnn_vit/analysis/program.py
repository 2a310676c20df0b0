"""Traces a network as a program (a jaxpr) in which every call of a layer is one equation that carries its number.

A jaxpr is JAX's list of primitive operations, such as `conv_general_dilated` or `reduce_sum`. Of a network that calls
`conv1` and `conv2` it looks like this, with the operations of each layer in an inner jaxpr:

    jit[name="layer 0"]             call 0: the network itself
        jit[name="layer 1"]         call 1: conv1
            conv_general_dilated
        jit[name="layer 2"]         call 2: conv2
            conv_general_dilated

The network is traced once, at batch 1 in evaluation; nothing is computed or compiled. Whatever can be known of a
network without values is read from this program: shapes, MACs, and which pixels each element sees.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
from flax import nnx
from jax.extend import core

from cnn_vit.analysis.record import Call, RunLayer, arrays_to_shapes, drop_arrays, intercept_calls, is_array
from cnn_vit.nn.forms import only_plain_forms

NAME_PREFIX = "layer "  # begins the name of a call's equation; the call's number follows


@dataclass(frozen=True)
class Program:
    """A traced network.

    Attributes:
        calls: the calls of its layers, in the order in which they began, with shapes for arrays. Their modules are
            those of the network that was handed in.
        idle_calls: numbers of the calls that return an input unchanged (dropout in evaluation).
        jaxpr: takes parameters, statistics and images, and gives scores. `call_number` finds the equation of a call.
        params: shapes of the parameters.
    """

    calls: list[Call]
    idle_calls: set[int]
    jaxpr: core.Jaxpr
    params: dict


def trace_network(network: nnx.Module, image_shape: tuple[int, int, int], dtype: str = "float32") -> Program:
    """Traces one call of a network on an image of shape (H, W, C) and of a dtype."""
    graph, *states = nnx.split(network, nnx.Param, nnx.BatchStat)
    params, stats = (nnx.to_pure_dict(state) for state in states)
    calls: list[Call] = []
    idle_calls: set[int] = set()

    def trace_as_equation(call: Call, run: RunLayer) -> Any:
        # An interceptor that runs each layer inside its own `jax.jit`: that is what makes it one equation.
        position = len(calls)
        calls.append(call)
        leaves, tree = jax.tree.flatten(call.inputs)
        array_positions = [i for i, leaf in enumerate(leaves) if is_array(leaf)]

        def layer(*arrays: jax.Array) -> Any:
            inputs = list(leaves)
            for i, array in zip(array_positions, arrays, strict=True):
                inputs[i] = array
            outputs = run(jax.tree.unflatten(tree, inputs))
            calls[position] = drop_arrays(replace(call, outputs=outputs))
            if any(outputs is array for array in arrays):
                idle_calls.add(position)
            return outputs

        layer.__name__ = f"{NAME_PREFIX}{position}"
        # Settings such as `train` stay Python values; only arrays may be arguments of `jax.jit`.
        return jax.jit(layer)(*(leaves[i] for i in array_positions))

    def compute_scores(params: dict, stats: dict, images: jax.Array) -> jax.Array:
        live = nnx.merge(graph, params, stats)
        # A convolution should look like one, whatever the platform's own form of it.
        with only_plain_forms(), intercept_calls(live, trace_as_equation):
            return live(images)

    images = jax.ShapeDtypeStruct((1, *image_shape), dtype)
    closed_jaxpr = jax.make_jaxpr(compute_scores)(params, stats, images)
    # The traced modules are copies; the reader gets those of the network itself, which outlive the trace.
    modules = {"/".join(map(str, path)): module for path, module in nnx.iter_modules(network)}
    network_calls = [replace(call, layer=modules.get(call.path.partition("#")[0], call.layer)) for call in calls]
    return Program(network_calls, idle_calls, closed_jaxpr.jaxpr, arrays_to_shapes(params))


def call_number(equation: Any) -> int | None:
    """The number of the call that an equation stands for; None where it is not a call of a layer."""
    match = re.fullmatch(rf"{NAME_PREFIX}(\d+)", str(equation.params.get("name", "")))
    return int(match[1]) if match else None


def inner_jaxprs(equation: Any) -> Iterator[tuple[str, core.Jaxpr]]:
    """Yields the programs inside an equation, each behind the name of the parameter that holds it."""
    for name, value in equation.params.items():
        candidates = value if isinstance(value, tuple | list) else (value,)
        for candidate in candidates:
            jaxpr = candidate.jaxpr if isinstance(candidate, core.ClosedJaxpr) else candidate
            if isinstance(jaxpr, core.Jaxpr):
                yield name, jaxpr
