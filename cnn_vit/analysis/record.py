"""Every call of a layer while a network runs: who was called, with what, and what came of it.

A layer is a module of the network, or a function that `nn/calls` marks as one (pooling, attention). While `watching` is
open the classes of the network's modules call back here, and are put back as they were when it closes; another network
of the same classes runs as ever. What runs may be arrays or the shapes of `jax.eval_shape`: a call is Python, seen
while a program is traced.
"""

import contextlib
import functools
import inspect
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from flax import nnx

from cnn_vit.nn.calls import WATCHER
from cnn_vit.trees import differences

ONE_AT_A_TIME = threading.RLock()  # two threads that patch one class would not put it back


class Call(NamedTuple):
    """One call of a layer.

    Attributes:
        path: of the module, "stages/0/blocks/0/conv1", "" for the network itself; of a function, its name behind the
            path of the module that calls it, "blocks/0/attention/attend". A second call has "#2" behind it.
        kind: name of its class, or of the function.
        layer: the module or function.
        inputs: arguments by name, defaults filled in; arrays and settings alike.
        outputs: what it gave; None until then.
    """

    path: str
    kind: str
    layer: Any
    inputs: dict[str, Any]
    outputs: Any = None


Run = Callable[[dict[str, Any]], Any]  # inputs by name -> outputs, as the layer makes them
Around = Callable[[Call, Run], Any]


@contextlib.contextmanager
def watching(network: nnx.Module, around: Around) -> Iterator[None]:
    """While open, `around(call, run)` stands in for each call of a layer of the network, and answers for it.

    `run(call.inputs)` is the layer itself; other inputs may be handed to it, and another answer given.
    """
    watch = Watch(network, around)
    with ONE_AT_A_TIME:
        token = WATCHER.set(watch.function(WATCHER.get()))
        try:
            for kind in watch.classes:
                watch.before[kind] = kind.__dict__["__call__"]
                kind.__call__ = watch.method(kind.__dict__["__call__"])
            yield
        finally:
            WATCHER.reset(token)
            for kind, method in watch.before.items():
                kind.__call__ = method


def record(network: nnx.Module, images: Any, params: dict | None = None, stats: dict | None = None) -> list[Call]:
    """The calls of one evaluation, in the order in which they began.

    Args:
        network: declared, without values.
        images: (B, H, W, C), or their shape and dtype as a `jax.ShapeDtypeStruct`.
        params, stats: its values as plain dicts. Where they are left out nothing is computed, and calls hold shapes.
    """
    graph, *states = nnx.split(network, nnx.Param, nnx.BatchStat)
    declared = [nnx.to_pure_dict(state) for state in states]

    def calls(params: dict, stats: dict, images: Any) -> list[Call]:
        found: list[Call] = []
        live = nnx.merge(graph, params, stats)
        with watching(live, functools.partial(listing, found)):
            live(images)
        return found

    if params is None:
        found: list[Call] = []
        jax.eval_shape(lambda *given: found.extend(map(outline, calls(*given))), *declared, images)
        return found
    given = dict(params=params, stats=stats or {})
    if wrong := differences(given, dict(zip(given, declared, strict=True))):
        raise ValueError("these values belong to another network: " + "; ".join(sorted(wrong)[:5]))
    return calls(params, stats or {}, images)


def listing(found: list[Call], call: Call, run: Run) -> Any:
    """An `around` that changes nothing and notes each call."""
    place = len(found)
    found.append(call)
    outputs = run(call.inputs)
    found[place] = call._replace(outputs=outputs)
    return outputs


def outline(call: Call) -> Call:
    """A call with shapes for arrays."""
    return call._replace(inputs=shapes(call.inputs), outputs=shapes(call.outputs))


def shapes(tree: Any) -> Any:
    """A tree with the shape and dtype of each array."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if is_array(leaf) else leaf, tree)


def is_array(leaf: Any) -> bool:
    """Whether a value is an array, live or traced, or the shape of one."""
    return isinstance(leaf, jax.Array | jax.ShapeDtypeStruct)


class Watch:
    """One look at one network.

    Attributes:
        paths: of each module, by identity.
        classes: those that define a `__call__` some module of the network runs.
        before: what stood in the classes.
    """

    def __init__(self, network: nnx.Module, around: Around):
        modules = list(nnx.iter_modules(network))
        self.paths = {id(module): "/".join(map(str, path)) for path, module in modules}
        inherited = [base for _, module in modules for base in type(module).__mro__ if "__call__" in base.__dict__]
        self.classes: list[Any] = [kind for kind in dict.fromkeys(inherited) if issubclass(kind, nnx.Module)]
        self.before: dict[Any, Any] = {}
        self.around = around
        self.inside: list[tuple[int, str | None]] = []  # calls under way: identity, path; None for another network's
        self.times: Counter[str] = Counter()

    def method(self, original: Callable) -> Callable:
        """Stands in for a class's `__call__`."""

        @functools.wraps(original)
        def called(module: nnx.Module, *args: Any, **kwargs: Any) -> Any:
            path, own = self.paths.get(id(module)), functools.partial(original, module)
            if self.inside and self.inside[-1][0] == id(module):  # a subclass calls its parent's
                return own(*args, **kwargs)
            if path is None:
                with self.within(module, None):
                    return own(*args, **kwargs)
            return self.seen(path, type(module).__name__, module, own, args, kwargs)

        return called

    def function(self, outer: Callable | None) -> Callable:
        """Stands in for functions; `outer` is what watched them before."""

        def called(function: Callable, args: tuple, kwargs: dict) -> Any:
            onward = function if outer is None else functools.wraps(function)(lambda *a, **k: outer(function, a, k))
            above = self.inside[-1][1] if self.inside else ""
            if above is None:
                return onward(*args, **kwargs)
            name = function.__name__
            return self.seen(f"{above}/{name}" if above else name, name, function, onward, args, kwargs)

        return called

    def seen(self, path: str, kind: str, layer: Any, function: Callable, args: tuple, kwargs: dict) -> Any:
        """Names a call and hands it to `around`."""
        bound = inspect.signature(function).bind(*args, **kwargs)
        bound.apply_defaults()
        self.times[path] += 1
        path += f"#{self.times[path]}" if self.times[path] > 1 else ""

        def run(inputs: dict[str, Any]) -> Any:
            bound.arguments.update(inputs)
            return function(*bound.args, **bound.kwargs)

        with self.within(layer, path):
            return self.around(Call(path, kind, layer, dict(bound.arguments)), run)

    @contextlib.contextmanager
    def within(self, layer: Any, path: str | None) -> Iterator[None]:
        """While open, what is called is called by this layer."""
        self.inside.append((id(layer), path))
        try:
            yield
        finally:
            self.inside.pop()
