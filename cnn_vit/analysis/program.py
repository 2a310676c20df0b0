"""A network as a program (a jaxpr) in which every call of a layer is an equation of its own, found by its number.

One tracing at batch 1 in evaluation; nothing is computed or compiled. What can be known of a network without values is
read from here: shapes, products, and which pixels each number sees.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.extend import core

from cnn_vit.analysis.record import Call, Run, is_array, outline, shapes, watching

MARK = "layer "  # of the equation's name, the call's number behind it


class Program(NamedTuple):
    """A traced network.

    Attributes:
        calls: of its layers, in the order in which they began; arrays are shapes, modules those of the network given.
        idle: numbers of the calls that hand on what they were given (dropout in evaluation).
        jaxpr: parameters, statistics and images -> scores; the equation of call i is named by `number`.
        params: shapes of the parameters.
    """

    calls: list[Call]
    idle: set[int]
    jaxpr: core.Jaxpr
    params: dict


def traced(network: nnx.Module, image_shape: tuple[int, int, int], dtype: str = "float32") -> Program:
    """Traces one call on an image of a shape (H, W, C)."""
    graph, *states = nnx.split(network, nnx.Param, nnx.BatchStat)
    params, stats = (nnx.to_pure_dict(state) for state in states)
    calls: list[Call] = []
    idle: set[int] = set()

    def around(call: Call, run: Run) -> Any:
        place = len(calls)
        calls.append(call)
        leaves, tree = jax.tree.flatten(call.inputs)
        at = [i for i in range(len(leaves)) if is_array(leaves[i])]

        def layer(*arrays: jax.Array) -> Any:
            inputs = list(leaves)
            for i, array in zip(at, arrays, strict=True):
                inputs[i] = array
            outputs = run(jax.tree.unflatten(tree, inputs))
            calls[place] = outline(call._replace(outputs=outputs))
            if any(outputs is array for array in arrays):
                idle.add(place)
            return outputs

        layer.__name__ = f"{MARK}{place}"
        return jax.jit(layer)(*(leaves[i] for i in at))

    def scores(params: dict, stats: dict, images: jax.Array) -> jax.Array:
        live = nnx.merge(graph, params, stats)
        with watching(live, around):
            return live(images)

    images = jax.ShapeDtypeStruct((1, *image_shape), dtype)
    program = jax.make_jaxpr(scores)(params, stats, images)
    declared = {"/".join(map(str, path)): module for path, module in nnx.iter_modules(network)}
    named = [call._replace(layer=declared.get(call.path.partition("#")[0], call.layer)) for call in calls]
    return Program(named, idle, program.jaxpr, shapes(params))


def number(equation: Any) -> int | None:
    """The number of the call that an equation is, if it is one."""
    found = re.fullmatch(rf"{MARK}(\d+)", str(equation.params.get("name", "")))
    return int(found[1]) if found else None


def inner(equation: Any) -> Iterator[tuple[str, core.Jaxpr]]:
    """The programs inside an equation, by the name of the parameter that holds them."""
    for name, value in equation.params.items():
        for one in value if isinstance(value, tuple | list) else (value,):
            plain = one.jaxpr if isinstance(one, core.ClosedJaxpr) else one
            if isinstance(plain, core.Jaxpr):
                yield name, plain
