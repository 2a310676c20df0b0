"""Layers that are functions, such as a pooling: whoever watches is told of each call, as modules' are seen by class."""

import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

Params = ParamSpec("Params")
Result = TypeVar("Result")
WATCHER: ContextVar[Callable[..., Any] | None] = ContextVar("WATCHER", default=None)


def layer(function: Callable[Params, Result]) -> Callable[Params, Result]:
    """Marks a function as a layer: where `WATCHER` holds a function, that is called with (layer, args, kwargs) instead.

    Nothing watches but while `analysis/record` looks at a network; a call costs one look-up then, at tracing alone.
    """

    @functools.wraps(function)
    def called(*args: Params.args, **kwargs: Params.kwargs) -> Result:
        watcher = WATCHER.get()
        return function(*args, **kwargs) if watcher is None else watcher(function, args, kwargs)

    return called
