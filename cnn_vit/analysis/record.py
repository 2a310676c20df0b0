"""Records every call of a layer while a network runs: which layer, with which inputs, and what it returned.

    images = jax.ShapeDtypeStruct((2, 8, 8, 3), "float32")
    for call in record_calls(build("cnn/test", 3, image_size=8), images):
        call.path, call.outputs.shape       "stages/0/convolutions/0", (2, 8, 8, 8)

A layer is a module of the network, or a function that `nn/calls` marks as a layer (pooling, attention).

While `intercept_calls` is open, the classes of the network's modules have a stand-in for their `__call__`, which comes
here first. When it closes, the methods are put back as they were. The stand-in knows the modules of its network, so
another network of the same classes runs as ever. The network may run on arrays or on the shapes of `jax.eval_shape`:
a call is Python code, and is seen while a program is traced.
"""

import contextlib
import functools
import inspect
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
from flax import nnx

from cnn_vit import compilation
from cnn_vit.compilation import ProgramKind
from cnn_vit.nn.calls import WATCHER
from cnn_vit.nn.conv import is_convolutional
from cnn_vit.trees import differences

PATCH_LOCK = threading.RLock()  # two threads that patch one class would each put back the other's stand-in


@dataclass(frozen=True)
class Call:
    """One call of a layer.

    Attributes:
        path: the module's path, "stages/0/blocks/0/conv1", and "" for the network itself. A function has its name
            behind the path of the module that calls it, "blocks/0/attention/attend". A second call has "#2" behind it.
        kind: the name of the layer's class, or of the function.
        layer: the module or function.
        inputs: the arguments by name with defaults filled in, arrays and settings alike.
        outputs: what the layer returned; None until it has returned.
    """

    path: str
    kind: str
    layer: Any
    inputs: dict[str, Any]
    outputs: Any = None


RunLayer = Callable[[dict[str, Any]], Any]  # takes inputs by name and returns the outputs that the layer computes
Interceptor = Callable[[Call, RunLayer], Any]  # stands in for a call; the network goes on with what it returns
Values = Mapping[str, Any]  # of a network, as nested dicts


@contextlib.contextmanager
def intercept_calls(network: nnx.Module, interceptor: Interceptor) -> Iterator[None]:
    """While open, calls `interceptor(call, run)` in place of each layer of the network and uses what it returns.

    `run(call.inputs)` runs the layer itself. An interceptor may run it on other inputs, and may return other outputs.
    """
    interception = Interception(network, interceptor)
    with PATCH_LOCK:
        token = WATCHER.set(interception.stand_in_for_functions(WATCHER.get()))
        try:
            for kind in interception.classes:
                original = kind.__dict__["__call__"]
                interception.originals[kind] = original
                kind.__call__ = interception.stand_in_for_method(original)
            yield
        finally:
            WATCHER.reset(token)
            for kind, original in interception.originals.items():
                kind.__call__ = original


def run_network(
    network: nnx.Module, params: Values, stats: Values, images: Any, interceptor: Interceptor, **keywords: Any
) -> Any:  # (B, H, W, C) -> (B, K)
    """Runs a network on values with an interceptor for each call of a layer, and returns the scores.

    Args:
        network: the network, declared without values.
        params: its parameters.
        stats: its running statistics.
        images: as the network takes them.
        interceptor: stands in for each call.
        **keywords: of the network's `__call__`, such as train.
    """
    graph, *_ = nnx.split(network, nnx.Param, nnx.BatchStat)
    live: Any = nnx.merge(graph, dict(params), dict(stats))
    with intercept_calls(live, interceptor):
        return live(images, **keywords)


def compile_for(network: nnx.Module, function: Callable) -> Any:
    """Compiles a function that runs a network, with the options of the network's kind of program."""
    kind = ProgramKind(jax.default_backend(), convolutional=is_convolutional(network), dtype="float32")
    return compilation.jit(function, kind)


def record_calls(
    network: nnx.Module, images: Any, params: dict | None = None, stats: dict | None = None, *, mask: Any = None
) -> list[Call]:
    """Returns the calls of one evaluation, in the order in which they began.

    Args:
        network: the network, declared without values.
        images: (B, H, W, C), or their shape and dtype as a `jax.ShapeDtypeStruct`.
        params: the parameters as plain dicts. Where they are left out nothing is computed, and calls hold shapes.
        stats: the running statistics as plain dicts.
        mask: (B, H, W), which pixels belong to an image, for a network that takes images of several sizes.

    Raises:
        ValueError: the values belong to another network.
    """
    _, *states = nnx.split(network, nnx.Param, nnx.BatchStat)
    declared_params, declared_stats = (nnx.to_pure_dict(state) for state in states)
    mask_if_any = {} if mask is None else {"mask": mask}  # most networks have no such keyword

    def run_and_record(params: dict, stats: dict, images: Any) -> list[Call]:
        calls: list[Call] = []
        run_network(network, params, stats, images, functools.partial(append_call, calls), **mask_if_any)
        return calls

    if params is None:
        calls_as_shapes: list[Call] = []

        def record_shapes(params: dict, stats: dict, images: Any) -> None:
            # Tracers must not leave `eval_shape`, so the calls give up their arrays before it ends.
            calls_as_shapes.extend(map(drop_arrays, run_and_record(params, stats, images)))

        jax.eval_shape(record_shapes, declared_params, declared_stats, images)
        return calls_as_shapes
    stats = stats or {}
    # `nnx.merge` would accept values of other shapes without a word.
    wrong = differences(dict(params=params, stats=stats), dict(params=declared_params, stats=declared_stats))
    if wrong:
        raise ValueError("these values belong to another network: " + "; ".join(sorted(wrong)[:5]))
    return run_and_record(params, stats, images)


def append_call(calls: list[Call], call: Call, run: RunLayer) -> Any:
    """An interceptor (with `calls` bound) that changes nothing and appends each call to a list."""
    position = len(calls)
    calls.append(call)  # before the layer runs, so that a module stands before the layers inside it
    outputs = run(call.inputs)
    calls[position] = replace(call, outputs=outputs)
    return outputs


def drop_arrays(call: Call) -> Call:
    """Returns a call with shapes in place of its arrays."""
    return replace(call, inputs=arrays_to_shapes(call.inputs), outputs=arrays_to_shapes(call.outputs))


def arrays_to_shapes(tree: Any) -> Any:
    """Returns a tree with the shape and dtype of each array in its place; other leaves stay."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if is_array(leaf) else leaf, tree)


def is_array(leaf: Any) -> bool:
    """Whether a value is an array, live or traced, or the shape of one."""
    return isinstance(leaf, jax.Array | jax.ShapeDtypeStruct)


class Interception:
    """The stand-ins for the layers of one network, and what they must remember while it runs.

    Attributes:
        paths: the path of each module, by the module's identity.
        classes: those classes that define a `__call__` which some module of the network runs.
        originals: the `__call__` of each class before it was replaced.
        interceptor: what is called in place of each layer.
        stack: the calls under way, outermost first, as (identity of the layer, its path). The path is None where the
            layer belongs to another network.
        call_counts: how often each path has been called.
    """

    def __init__(self, network: nnx.Module, interceptor: Interceptor):
        modules = list(nnx.iter_modules(network))
        self.paths = {id(module): "/".join(map(str, path)) for path, module in modules}
        # A module may inherit its `__call__`, so the class to patch may be any of its bases.
        classes: dict[Any, None] = {}
        for _, module in modules:
            for base in type(module).__mro__:
                if "__call__" in base.__dict__ and issubclass(base, nnx.Module):
                    classes[base] = None
        self.classes: list[Any] = list(classes)
        self.originals: dict[Any, Any] = {}
        self.interceptor = interceptor
        self.stack: list[tuple[int, str | None]] = []
        self.call_counts: Counter[str] = Counter()

    def stand_in_for_method(self, original: Callable) -> Callable:
        """Returns a function that stands in for the `__call__` of a class."""

        @functools.wraps(original)
        def stand_in(module: nnx.Module, *args: Any, **kwargs: Any) -> Any:
            run = functools.partial(original, module)
            # A subclass that calls its parent's method is still the same call.
            if self.stack and self.stack[-1][0] == id(module):
                return run(*args, **kwargs)
            path = self.paths.get(id(module))
            if path is None:
                with self.within(module, None):
                    return run(*args, **kwargs)
            return self.intercept(path, type(module).__name__, module, run, args, kwargs)

        return stand_in

    def stand_in_for_functions(self, outer: Callable | None) -> Callable:
        """Returns a watcher for `nn/calls`; `outer` is the watcher before it, which must still hear of each call."""

        def stand_in(function: Callable, args: tuple, kwargs: dict) -> Any:
            @functools.wraps(function)  # `inspect.signature` must still find the names of the arguments
            def run(*args: Any, **kwargs: Any) -> Any:
                return function(*args, **kwargs) if outer is None else outer(function, args, kwargs)

            caller_path = self.stack[-1][1] if self.stack else ""
            if caller_path is None:
                return run(*args, **kwargs)
            name = function.__name__
            path = f"{caller_path}/{name}" if caller_path else name
            return self.intercept(path, name, function, run, args, kwargs)

        return stand_in

    def intercept(self, path: str, kind: str, layer: Any, function: Callable, args: tuple, kwargs: dict) -> Any:
        """Hands one call to the interceptor, with its arguments by name and its number behind the path."""
        arguments = inspect.signature(function).bind(*args, **kwargs)
        arguments.apply_defaults()
        self.call_counts[path] += 1
        if self.call_counts[path] > 1:
            path = f"{path}#{self.call_counts[path]}"

        def run(inputs: dict[str, Any]) -> Any:
            arguments.arguments.update(inputs)
            return function(*arguments.args, **arguments.kwargs)

        with self.within(layer, path):
            return self.interceptor(Call(path, kind, layer, dict(arguments.arguments)), run)

    @contextlib.contextmanager
    def within(self, layer: Any, path: str | None) -> Iterator[None]:
        """While open, every call that begins is one that this layer makes."""
        self.stack.append((id(layer), path))
        try:
            yield
        finally:
            self.stack.pop()
